"""`read_pairs`: preference data of any known format, from a file, a folder, the Hub or memory, as the pair table.

`FORMATS` is tried from top to bottom on the columns and types of the first rows; the first that fits reads all rows,
and a row of another shape is an error that names it. What a pair does not carry whole goes to `extra`.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, NamedTuple

import orjson
import polars as pl
import pyarrow as pa

from curate import schemas
from curate.errors import CurateError, unknown_choice
from curate.files import PlacedRow, Row
from curate.messages import TURN, message_column, text
from curate.pairs import PAIR_SCHEMA, heldout_groups, prompt_group
from curate.schemas import GivenPair
from curate.sources import Data, Source, open_source

FIRST_ROWS = 100  # the format is recognised from this many rows
CHUNK_ROWS = 4096  # rows that are Python objects at one time
SIDES = ("chosen", "rejected")
# How a CSV cell that is no text is read, by column.
CELLS: dict[str, Callable[[str], Any]] = {"label": float, "votes": json.loads, "meta": json.loads}
OWN_COLUMNS = ("prompt", *SIDES, "response_a", "response_b", *CELLS)


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Every column of the first rows, in order of first appearance."""
    return list(dict.fromkeys(str(name) for row in rows for name in row))


def kind(rows: Sequence[Row], column: str) -> type | None:
    """The type of a column's first value that is not null; None where there is none."""
    return next((type(row[column]) for row in rows if row.get(column) is not None), None)


def is_transcript(rows: Sequence[Row]) -> bool:
    """Without a prompt, every text of the first rows holds a human and an assistant turn."""
    texts = [row.get(side) for row in rows for side in SIDES]
    return kind(rows, "prompt") is None and all(
        isinstance(value, str) and set(TURN.findall(value)) == {"Human", "Assistant"} for value in texts
    )


def is_open_transcript(rows: Sequence[Row]) -> bool:
    """Every prompt of the first rows begins with a turn and ends with an assistant turn that has yet to be written."""
    prompts = [row.get("prompt") for row in rows]
    return all(
        isinstance(prompt, str) and TURN.match(prompt) and prompt.endswith(("\n\nAssistant:", "\n\nAssistant: "))
        for prompt in prompts
    )


class Format(NamedTuple):
    """A schema: the columns it needs, a rule on the first rows that have them, and its reader."""

    needs: tuple[str, str]
    fits: Callable[[Sequence[Row]], bool]
    read: Callable[[Row], GivenPair]


FORMATS = {
    "neutral": Format(("response_a", "response_b"), lambda _: True, schemas.neutral),
    "hh": Format(SIDES, is_transcript, schemas.hh),
    "hh-prompt": Format(SIDES, is_open_transcript, schemas.hh_prompt),
    "conversational": Format(SIDES, lambda rows: kind(rows, "prompt") is list, schemas.conversational),
    "mixed": Format(SIDES, lambda rows: (kind(rows, "prompt"), kind(rows, "chosen")) == (str, list), schemas.mixed),
    "conversational-implicit": Format(
        SIDES,
        lambda rows: (kind(rows, "prompt"), kind(rows, "chosen")) == (None, list),
        schemas.conversational_implicit,
    ),
    "standard-implicit": Format(SIDES, lambda rows: kind(rows, "prompt") is None, schemas.standard_implicit),
    "standard": Format(SIDES, lambda _: True, schemas.standard),
}


def recognise(rows: Sequence[Row]) -> str:
    """The name of the first format that fits the first rows."""
    found = columns_of(rows)
    for name, form in FORMATS.items():
        if set(form.needs) <= set(found) and form.fits(rows):
            return name
    raise CurateError(
        f"found columns {', '.join(found) or '(none)'}; expected chosen and rejected, or response_a, response_b and "
        "label; name yours with --columns chosen=NAME,rejected=NAME"
    )


@dataclass(frozen=True)
class ReadOptions:
    """How the rows of a dataset are read."""

    format: str = field(default="auto", metadata={"help": f"auto, or one of: {', '.join(FORMATS)}"})
    columns: str = field(
        default="", metadata={"help": "columns with other names, ours=yours: chosen=preferred,rejected=other"}
    )
    split: str = field(default="train", metadata={"help": "the split to read, and its name in pair ids"})


@dataclass(frozen=True)
class LoadOptions(ReadOptions):
    """How a dataset is read and which of its prompts are set aside."""

    heldout_share: float = field(
        default=0.1, metadata={"help": "share of the prompts set aside for evaluation; no member trains on them"}
    )
    seed: int = field(default=0, metadata={"help": "seed of every random choice"})


@dataclass(frozen=True)
class Loaded:
    """A dataset as the pair table, and what reading it showed.

    `form` is how texts were given and should be written again: "standard" (strings) or "conversational" (messages).
    """

    pairs: pl.DataFrame
    form: str
    format: str
    n_rows: int
    notes: list[str]


def read_pairs(data: "Data", options: LoadOptions = LoadOptions()) -> Loaded:
    """The pairs of a file, a folder of shards, a hub id, or a polars, pandas or `datasets` table, in its order.

    Raises CurateError with the place of the first row that cannot be read; no row is skipped.
    """
    if not 0 <= options.heldout_share < 1:
        raise CurateError(f"heldout share is {options.heldout_share}; expected --heldout-share from 0 to below 1")
    yours = column_mapping(options.columns)
    source = open_source(data, options.split)
    with closing(source.rows):
        return _loaded(source, yours, options)


def _loaded(source: Source, yours: Mapping[str, str], options: LoadOptions) -> Loaded:
    """The pair table of a source's rows, a chunk at a time."""
    first = list(islice(source.rows, FIRST_ROWS))
    name = format_of(source, first, yours, options.format)
    rows = chain(first, source.rows)
    chunks: list[pl.DataFrame] = []
    n_rows, n_partly, is_text = 0, 0, True
    while chunk := list(islice(rows, CHUNK_ROWS)):
        given = [read_row(placed, FORMATS[name].read, yours, source.is_untyped) for placed in chunk]
        chunks.append(pair_table(given, source, n_rows))
        n_rows += len(chunk)
        n_partly += sum(not pair.carried.issuperset(FORMATS[name].needs) for pair, _ in given)
        is_text = is_text and all(pair.is_text for pair, _ in given)
    pairs = pl.concat(chunks, rechunk=True)
    heldout = heldout_groups(pairs["group"], options.heldout_share, options.seed)
    pairs = pairs.with_columns(is_heldout=pl.col("group").is_in(heldout))
    notes = list(source.notes)
    if n_partly:
        notes.append(f"{n_partly} rows hold more than plain text (typed parts, tool calls); extra keeps them as given")
    if options.heldout_share and not heldout:
        notes.append("too few prompts to hold any out, so retrain asks for --test")
    return Loaded(pairs, "standard" if is_text else "conversational", name, n_rows, notes)


def column_mapping(columns: str) -> dict[str, str]:
    """Our name of each column that is named otherwise in the data, from `ours=yours,...`.

    >>> column_mapping("chosen=preferred, rejected=other")
    {'preferred': 'chosen', 'other': 'rejected'}
    """
    ours: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in columns.split(","))):
        own, equals, given = (part.strip() for part in entry.partition("="))
        if not (own and equals and given):
            raise CurateError(f"--columns: {entry!r} is not ours=yours; type for example --columns chosen=preferred")
        if own not in OWN_COLUMNS:
            raise unknown_choice("column in --columns", own, OWN_COLUMNS)
        if given in ours or own in ours.values():
            raise CurateError(f"--columns: {own if own in ours.values() else given!r} is there twice; name each once")
        ours[given] = own
    return ours


def format_of(source: Source, first: Sequence[PlacedRow], ours: Mapping[str, str], given: str) -> str:
    """The format to read: the one asked for, or the one that the first rows are recognised as."""
    if given != "auto" and given not in FORMATS:
        raise unknown_choice("format", given, ["auto", *FORMATS])
    if not first:
        raise CurateError(f"{source.name}: holds no rows; expected at least one pair")
    place, rows = first[0][0], [row for _, row in first]
    if missing := [name for name in ours if name not in columns_of(rows)]:
        found = ", ".join(columns_of(rows))
        raise CurateError(f"{place}: no column {missing[0]!r} as --columns says; found {found}")
    try:
        return recognise([renamed(row, ours) for row in rows]) if given == "auto" else given
    except CurateError as error:
        raise CurateError(f"{place}: {error}") from None


def own_names(row: Row, ours: Mapping[str, str]) -> dict[str, str]:
    """Our name of each column of a row; a column whose name another one takes over by --columns has none.

    >>> own_names({"chosen": 1, "preferred": 2, "id": 3}, {"preferred": "chosen"})
    {'preferred': 'chosen', 'id': 'id'}
    """
    taken = set(ours.values())
    return {name: ours.get(name, name) for name in row if name in ours or name not in taken}


def renamed(row: Row, ours: Mapping[str, str]) -> Row:
    """A row under our column names."""
    return {own: row[name] for name, own in own_names(row, ours).items()}


def read_row(
    placed: PlacedRow, read: Callable[[Row], GivenPair], ours: Mapping[str, str], is_untyped: bool
) -> tuple[GivenPair, str]:
    """The pair of a row and the JSON of what it does not carry; an error in it says where the row is."""
    place, row = placed
    names = own_names(row, ours)
    if is_untyped:
        row = typed(row, names)
    try:
        pair = read({own: row[name] for name, own in names.items()})
        return pair, extra_json({name: value for name, value in row.items() if names.get(name) not in pair.carried})
    except CurateError as error:
        raise CurateError(f"{place}: {error}") from None


def typed(row: Row, names: Mapping[str, str]) -> Row:
    """A CSV row with the number in its label cell and the JSON in its votes and meta cells; other text stays text."""
    values = dict(row)
    for name, own in names.items():
        with suppress(ValueError):
            values[name] = CELLS.get(own, str)(row[name])
    return values


def extra_json(extra: Row) -> str:
    """Canonical JSON of the columns that a pair does not carry; NaN becomes null, dates text, bytes base64 text."""
    if not extra:
        return "{}"
    try:
        return orjson.dumps(extra, default=as_text, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()
    except TypeError as error:
        reason = str(error)
    try:  # integers over 64 bits
        written = json.dumps(extra, sort_keys=True, ensure_ascii=False, allow_nan=False, default=as_text)
        return text(written, "another column")
    except (TypeError, ValueError, RecursionError):
        raise CurateError(f"another column cannot be written as JSON ({reason}); mend or remove it") from None


def as_text(value: object) -> str:
    """The text of a value that JSON has no type for."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def pair_table(given: Sequence[tuple[GivenPair, str]], source: Source, start: int) -> pl.DataFrame:
    """The pair table of some rows, the first of which is row `start`; nothing is held out yet."""
    pairs = [pair for pair, _ in given]
    columns = {
        "pair_id": [f"{source.name}:{source.split}:{row}" for row in range(start, start + len(pairs))],
        "prompt": message_column("prompt", [pair.prompt for pair in pairs]),
        "chosen": message_column("chosen", [pair.chosen for pair in pairs]),
        "rejected": message_column("rejected", [pair.rejected for pair in pairs]),
        "group": [prompt_group(pair.prompt, pair.chosen, pair.rejected) for pair in pairs],
        "is_heldout": [False] * len(pairs),
        "label_strength": [pair.label_strength for pair in pairs],
        "votes": pl.Series(pa.array([pair.votes for pair in pairs], pa.large_list(pa.float64()))),
        "annotators": pl.Series(pa.array([pair.annotators for pair in pairs], pa.large_list(pa.large_string()))),
        "source": [source.name] * len(pairs),
        "extra": [extra for _, extra in given],
    }
    return pl.DataFrame(columns, schema=PAIR_SCHEMA)

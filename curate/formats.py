"""`read_pairs`: preference data of any known format, from a file, a folder, the Hub or memory, as the pair table.

The format is the first of `recognise.FORMATS` that fits the first rows; it reads all rows, and a row of another shape is
an error that names it. What a pair does not carry whole goes to `extra`.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import orjson
import polars as pl
import pyarrow as pa

from curate.errors import CurateError, unknown_choice
from curate.files import PlacedRow
from curate.given_votes import n_score_lists
from curate.messages import message_column
from curate.pairs import PAIR_SCHEMA, heldout_groups, is_tie, prompt_group
from curate.ranked import PAIRS, GivenResponses, chosen_places, ranked_pairs
from curate.recognise import FORMATS, columns_of, explain, recognise
from curate.rows import GivenRow, column_mapping, given_rows, placed_error, placed_json, renamed
from curate.run import Progress, no_progress
from curate.schemas import GivenPair
from curate.sources import Data, Source, open_source

FIRST_ROWS = 100  # the format is recognised from this many rows
CHUNK_ROWS = 4096  # rows that are Python objects at one time


@dataclass(frozen=True)
class ReadOptions:
    """How the rows of a dataset are read."""

    format: str = field(default="auto", metadata={"help": f"auto, or one of: {', '.join(FORMATS)}"})
    columns: str = field(
        default="", metadata={"help": "columns with other names, ours=yours: chosen=preferred,rejected=other"}
    )
    split: str = field(default="train", metadata={"help": "the split to read, and its name in pair ids"})
    pairs: str = field(
        default="all",
        metadata={
            "help": f"rated and ranked responses: {'; '.join(f'{name} ({what})' for name, what in PAIRS.items())}"
        },
    )
    min_gap: float = field(
        default=0.0,
        metadata={
            "help": "rated and ranked responses: leave out pairs whose ratings or ranks are closer; 0 keeps ties"
        },
    )

    def __post_init__(self) -> None:
        if self.pairs not in PAIRS:
            raise unknown_choice("--pairs", self.pairs, PAIRS)
        if not 0 <= self.min_gap < float("inf"):
            raise CurateError(f"--min-gap {self.min_gap:g}: give 0 or more, in the unit of the ratings or ranks")


@dataclass(frozen=True)
class LoadOptions(ReadOptions):
    """How a dataset is read and which of its prompts are set aside."""

    heldout_share: float = field(
        default=0.1, metadata={"help": "share of the prompts set aside for evaluation; no member trains on them"}
    )
    score_lists: bool = field(
        default=True,
        metadata={"help": "lists of an ensemble's scores in the data (hh-rlhf-strength-cleaned) are the votes"},
    )
    seed: int = field(default=0, metadata={"help": "seed of every random choice"})


@dataclass(frozen=True)
class Loaded:
    """A dataset as the pair table, and what reading it showed.

    `form` is how texts were given and should be written again: "standard" (strings) or "conversational" (messages).
    `n_score_lists` is how many members' votes the data brings in `scores_chosen` and `scores_rejected` of `extra`.
    """

    pairs: pl.DataFrame
    form: str
    format: str
    n_rows: int
    notes: list[str]
    n_score_lists: int = 0


def read_pairs(data: "Data", options: LoadOptions = LoadOptions(), progress: Progress = no_progress) -> Loaded:
    """The pairs of a file, a folder of shards, a hub id, or a polars, pandas or `datasets` table, in its order.

    Raises CurateError with the place of the first row that cannot be read; no row is skipped. Rated and ranked responses
    become pairs in the order of their prompts; those that no pair is made of are counted in the notes.
    """
    if not 0 <= options.heldout_share < 1:
        raise CurateError(f"heldout share is {options.heldout_share}; expected --heldout-share from 0 to below 1")
    yours = column_mapping(options.columns)
    source = open_source(data, options.split)
    with closing(source.rows):
        return _loaded(source, yours, options, progress)


def explain_format(data: "Data", options: ReadOptions = ReadOptions()) -> list[str]:
    """One line per format: why it matches the first rows of a dataset, or why not. Nothing more is read."""
    ours = column_mapping(options.columns)
    if options.format not in ("auto", *FORMATS):
        raise unknown_choice("format", options.format, ["auto", *FORMATS])
    source = open_source(data, options.split)
    with closing(source.rows):
        rows = [row for _, row in islice(source.rows, FIRST_ROWS)]
    return [f"{source.name}:{source.split}", *explain([renamed(row, ours) for row in rows], options.format)]


def _loaded(source: Source, yours: Mapping[str, str], options: LoadOptions, progress: Progress) -> Loaded:
    """The pair table of a source's rows, a chunk at a time."""
    first = list(islice(source.rows, FIRST_ROWS))
    name = format_of(source, first, yours, options.format)
    form, seen = FORMATS[name], Counter[str]()
    given = given_rows(source.watched(first, progress), form, yours, source.is_untyped, seen)
    pairs = as_pairs(by_prompt(given) if form.is_by_prompt else given, name, options, seen)
    chunks = [pair_table(chunk, source) for chunk in iter(lambda: list(islice(pairs, CHUNK_ROWS)), [])]
    if not chunks:
        raise CurateError(
            f"{source.name}: read as {name}, gives no pair; expected two responses to a prompt"
            + (f" that are rated {options.min_gap:g} or more apart (--min-gap)" if options.min_gap else "")
        )
    table = pl.concat(chunks, rechunk=True)
    heldout = heldout_groups(table["group"], options.heldout_share, options.seed)
    table = table.with_columns(is_heldout=pl.col("group").is_in(heldout))
    seen["no prompt"] = int((table["prompt"].list.len() == 0).sum())
    notes = [*source.notes, *notes_of(seen, options)]
    as_given = "standard" if seen["text rows"] == seen["rows"] else "conversational"
    n_members = n_score_lists(table) if name == "strength" and options.score_lists else 0
    if n_members:
        notes.append(
            f"the scores of {n_members} models came with the data and are the votes; --no-score-lists trains ours"
        )
    if options.heldout_share and not heldout:
        notes.append("too few prompts to hold any out, so retrain asks for --test")
    return Loaded(table, as_given, name, seen["rows"], notes, n_members)


def notes_of(seen: Mapping[str, int], options: ReadOptions) -> list[str]:
    """What reading showed, in words."""
    sentences = {
        "part rows": "rows hold more than plain text (typed parts, tool calls); extra keeps them as given",
        "listed pairs": f"pairs were made of {seen['responses']:,} responses to {seen['prompts']:,} prompts "
        f"(--pairs {options.pairs}: {PAIRS[options.pairs]})",
        "close pairs": f"pairs whose ratings are less than --min-gap {options.min_gap:g} apart are left out",
        "single responses": "prompts with fewer than two responses give no pair",
        "no prompt": "pairs have no prompt; if a column holds it under another name: --columns prompt=NAME",
    }
    return [f"{seen[name]:,} {sentence}" for name, sentence in sentences.items() if seen[name]]


def by_prompt(rows: Iterable[GivenRow]) -> Iterator[GivenRow]:
    """Rows that hold one response each as one row per prompt, which has the number and place of the prompt's first.

    The other columns of a row, and its number as `row`, are its response's own.
    """
    prompts: dict[bytes, GivenRow] = {}
    for row in rows:
        assert isinstance(row.given, GivenResponses)
        (response,) = row.given.responses
        placed_json(row.place, row.rest)  # so that an error names this row
        first = prompts.setdefault(
            orjson.dumps(row.given.prompt), row._replace(given=row.given._replace(responses=[]), rest={})
        )
        assert isinstance(first.given, GivenResponses)
        first.given.responses.append(response._replace(own={"row": row.number, **row.rest}))
    yield from prompts.values()


def as_pairs(
    rows: Iterable[GivenRow], name: str, options: ReadOptions, seen: Counter[str]
) -> Iterator[tuple[str, GivenPair, str]]:
    """Each pair with the end of its id (`row` or `row:i-j`) and its `extra`; counts what lists gave in `seen`."""
    is_choice = options.pairs != "all" or options.min_gap > 0
    for row in rows:
        if isinstance(row.given, GivenResponses):
            pairs = listed_pairs(row.given, options, seen)
        elif is_choice:
            raise CurateError(
                f"{row.place}: --pairs and --min-gap choose among rated or ranked responses, and {name} holds pairs; "
                "leave them out"
            )
        else:
            pairs = [row.given]
        for pair in pairs:
            number = f"{row.number}:{pair.place}" if pair.place else f"{row.number}"
            yield number, pair, placed_json(row.place, {**row.rest, **pair.own})


def listed_pairs(given: GivenResponses, options: ReadOptions, seen: Counter[str]) -> list[GivenPair]:
    """The pairs of the responses to a prompt; counts them, and what was left out, in `seen`."""
    pairs = ranked_pairs(given, options.pairs, options.min_gap)
    grades = [response.grade for response in given.responses]
    n_possible = len(chosen_places(grades, options.pairs, 0.0)) if options.min_gap else len(pairs)
    seen.update(
        {
            "prompts": 1,
            "responses": len(grades),
            "listed pairs": len(pairs),
            "close pairs": n_possible - len(pairs),
            "single responses": int(len(grades) < 2),
        }
    )
    return pairs


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
        raise placed_error(place, error) from None


def pair_table(found: Sequence[tuple[str, GivenPair, str]], source: Source) -> pl.DataFrame:
    """The pair table of pairs, each with the end of its id and its `extra`; nothing is held out yet."""
    numbers, pairs, extras = zip(*found, strict=True)
    columns = {
        "pair_id": [f"{source.name}:{source.split}:{number}" for number in numbers],
        "prompt": message_column("prompt", [pair.prompt for pair in pairs]),
        "chosen": message_column("chosen", [pair.chosen for pair in pairs]),
        "rejected": message_column("rejected", [pair.rejected for pair in pairs]),
        "group": [prompt_group(pair.prompt, pair.chosen, pair.rejected) for pair in pairs],
        "is_heldout": [False] * len(pairs),
        "label_strength": [pair.label_strength for pair in pairs],
        "votes": pl.Series(pa.array([pair.votes for pair in pairs], pa.large_list(pa.float64()))),
        "annotators": pl.Series(pa.array([pair.annotators for pair in pairs], pa.large_list(pa.large_string()))),
        "source": [source.name] * len(pairs),
        "extra": list(extras),
    }
    return pl.DataFrame(columns, schema=PAIR_SCHEMA)


def read_all(data: "Data", reading: ReadOptions, progress: Progress = no_progress) -> Loaded:
    """A dataset that is only judged, so that nothing of it is held out."""
    return read_pairs(data, LoadOptions(**asdict(reading), heldout_share=0.0), progress)


def load_facts(loaded: Loaded) -> dict[str, Any]:
    """What run.json keeps of a dataset that was read."""
    pairs = loaded.pairs
    held = pairs.filter("is_heldout")
    return {
        "format": loaded.format,
        "form": loaded.form,
        "n_rows": loaded.n_rows,
        "n_pairs": len(pairs),
        "n_groups": pairs["group"].n_unique(),
        "n_heldout_groups": held["group"].n_unique(),
        "n_heldout_pairs": len(held),
        "n_ties": int(pairs.select(is_tie()).to_series().sum()),
        "n_graded": int(pairs["label_strength"].is_not_null().sum()),
        "n_with_votes": int(pairs["votes"].list.len().fill_null(0).gt(0).sum()),
        "notes": list(loaded.notes),
        "n_score_lists": loaded.n_score_lists,
    }


def table_fingerprint(pairs: pl.DataFrame) -> str:
    """Hash of the pairs of a table in memory."""
    content = pairs.drop("is_heldout").write_ipc(None).getvalue()
    return hashlib.sha256(content).hexdigest()[:16]

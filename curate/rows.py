"""Rows as what a format's reader says of them: our names of columns, values in CSV cells, and what goes to `extra`."""

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple

import orjson

from curate.ab_schemas import WINNER_COLUMNS
from curate.errors import CurateError, unknown_choice
from curate.files import PlacedRow, Row
from curate.messages import text
from curate.ranked import GivenResponses
from curate.recognise import COLUMNS, Format
from curate.schemas import RATINGS, SCORE_LISTS, SIDES, GivenPair, rated


def csv_number(cell: str) -> float | bool:
    """The number, or the truth, in a CSV cell; ValueError for other text."""
    truth = {"true": True, "false": False}.get(cell.strip().lower())
    return float(cell) if truth is None else truth


NUMBERS = ("label", "score", "helpfulness", "overall_preference", *WINNER_COLUMNS, *chain(*RATINGS))
JSON_VALUES = (
    "votes", "meta", "context", "messages", "answers", "completions", "conversation_a", "conversation_b", "annotations",
    "individual_preference", *SCORE_LISTS, *(name.replace(" ", "_") for name in SCORE_LISTS),
)  # fmt: skip
# How a CSV cell that is no text is read, by column.
CELLS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(NUMBERS, csv_number),
    **dict.fromkeys(JSON_VALUES, json.loads),
}
OWN_COLUMNS = tuple(dict.fromkeys([*COLUMNS, *CELLS]))


class GivenRow(NamedTuple):
    """What a row says, its number and place, and the columns that the pair does not give back."""

    number: int
    place: str
    given: GivenPair | GivenResponses
    rest: Row


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


def given_rows(
    rows: Iterable[PlacedRow], form: Format, ours: Mapping[str, str], is_untyped: bool, seen: Counter[str]
) -> Iterator[GivenRow]:
    """What each row says; counts rows, rows of mere text and rows that hold more than text in `seen`."""
    for number, placed in enumerate(rows):
        row = read_row(number, placed, form, ours, is_untyped)
        seen["rows"] += 1
        seen["text rows"] += row.given.is_text
        seen["part rows"] += not row.given.carried.issuperset(form.texts)
        yield row


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


def read_row(number: int, placed: PlacedRow, form: Format, ours: Mapping[str, str], is_untyped: bool) -> GivenRow:
    """What a row says and the columns that it does not carry; an error in it says where the row is."""
    place, row = placed
    names = own_names(row, ours)
    if is_untyped:
        row = typed(row, names)
    own = {own: row[name] for name, own in names.items()}
    try:
        given = form.read(own)
    except CurateError as error:
        raise placed_error(place, error) from None
    if isinstance(given, GivenPair) and form.texts == SIDES:
        given = rated(given, own)
    return GivenRow(
        number, place, given, {name: value for name, value in row.items() if names.get(name) not in given.carried}
    )


def typed(row: Row, names: Mapping[str, str]) -> Row:
    """A CSV row with its numbers and JSON as values (CELLS); other text stays text."""
    values = dict(row)
    for name, own in names.items():
        with suppress(ValueError, RecursionError):
            values[name] = CELLS.get(own, str)(row[name])
    return values


def placed_error(place: str, error: CurateError) -> CurateError:
    """The error with its place, in one line whatever the names of columns and keys in it.

    >>> placed_error("a.jsonl: row 0 (line 1)", CurateError("no column 'chosen' (found two\\nlines)"))
    CurateError("a.jsonl: row 0 (line 1): no column 'chosen' (found two lines)")
    """
    return CurateError(f"{place}: {' '.join(str(error).split())}")


def placed_json(place: str, extra: Row) -> str:
    """The JSON of `extra_json`; an error in it says where the row is."""
    try:
        return extra_json(extra)
    except CurateError as error:
        raise placed_error(place, error) from None


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

"""A table as an answer: JSON rows, or a file written whole or not at all."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from curate.errors import CurateError, unknown_choice
from curate.run import whole_file, write_parquet

FILES = (".csv", ".parquet", ".jsonl")


def json_rows(table: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as JSON can hold them."""
    return [json_row(row) for row in table.iter_rows(named=True)]


def json_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON can hold it: NaN and infinity become null, what JSON does not know becomes text.

    >>> json_row({"a": float("nan"), "b": [1, b"x"]})
    {'a': None, 'b': [1, "b'x'"]}
    """
    return {name: _json_value(value) for name, value in row.items()}


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return json_row(value)
    if isinstance(value, list):
        return [_json_value(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def refuse_target(
    path: Path, source: Path, overwrite: bool, kinds: Sequence[str] = FILES, option: str = "--to"
) -> None:
    """Refuses a file of another kind than `kinds`, one that lies in `source` or is it, and one that exists without `overwrite`.

    `source` is what the answer is made from: a run folder, or a file or folder of data.
    """
    if path.suffix not in kinds:
        raise unknown_choice(f"kind of file in {option} {path}:", path.suffix, kinds)
    if source.resolve() in (path.resolve(), *path.resolve().parents):
        what = "inside the run folder" if (source / "run.json").is_file() else "part of the data"
        raise CurateError(f"{path}: is {what}; choose another {option}")
    if path.exists() and not overwrite:
        raise CurateError(f"{path}: exists; choose another {option}, or add --overwrite")


def without_formulas(table: pl.DataFrame) -> pl.DataFrame:
    """A table with a quote before every text that a spreadsheet would run as a formula.

    >>> without_formulas(pl.DataFrame({"text": ["=1+1", "1+1"], "number": [-1, 1]})).rows()
    [("'=1+1", -1), ('1+1', 1)]
    """
    texts = pl.col(pl.String)
    is_formula = texts.str.contains(r"^[=+\-@\t\r]")
    return table.with_columns(pl.when(is_formula).then(pl.lit("'") + texts).otherwise(texts).name.keep())


def unquoted(text: str) -> str:
    """A text without the quote that `without_formulas` may have put before it."""
    return text.removeprefix("'")


def write_table(table: pl.DataFrame, path: Path) -> None:
    """Write a table as .csv, .parquet or .jsonl, whole or not at all; a .csv holds no formula, and lists are refused in it."""
    if path.suffix == ".parquet":
        write_parquet(table, path)
        return
    nested = [name for name, dtype in table.schema.items() if dtype.is_nested()]
    if path.suffix == ".csv" and nested:
        raise CurateError(
            f"{path}: a .csv has no place for the lists of {', '.join(nested)}; choose .parquet or .jsonl"
        )
    with whole_file(path) as partial:
        if path.suffix == ".csv":
            without_formulas(table).write_csv(partial)
            return
        with partial.open("w", encoding="utf-8") as file:
            for row in table.iter_rows(named=True):
                file.write(json.dumps(json_row(row), ensure_ascii=False) + "\n")

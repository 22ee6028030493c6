"""Where rows come from: a file, a folder of shards, a dataset on the Hugging Face Hub, or a table in memory."""

import math
import os
import re
from collections.abc import Generator, Iterator, Sized
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl

from curate.errors import CurateError
from curate.files import BATCH_ROWS, Meter, PlacedRow, batch_rows, file_rows, kind_of, source_name
from curate.run import TOLD, Progress, key_of, sha256_of

if TYPE_CHECKING:
    import datasets
    import pandas as pd

Data: TypeAlias = "str | os.PathLike[str] | pl.DataFrame | pl.LazyFrame | pd.DataFrame | datasets.Dataset"

HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?::(?P<config>[^:/\[]*))?(?::(?P<split>[^:/\[]+(?:\[[^\]/]*\])?))?")
SPLITS = ("train", "test", "validation", "valid", "dev", "eval")
BOOKKEEPING = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "provenance.json"}


@dataclass(frozen=True)
class Source:
    """Rows with their places, and what `pair_id` and the report say about where they come from."""

    name: str
    split: str
    rows: Generator[PlacedRow, None, None]  # closing it closes the file that is being read
    is_untyped: bool = False  # every cell is text (CSV)
    n_rows: int | None = None  # None where only reading tells
    meter: Meter = field(default_factory=Meter)  # of the files, where there are any

    def watched(self, first: list[PlacedRow], progress: Progress) -> Iterator[PlacedRow]:
        """The first rows and the rest; how much has been read is told now and then, in rows if their number is known."""
        number = 0
        for number, placed in enumerate(chain(first, self.rows), start=1):
            if number % TOLD == 0:
                self.tell(number, progress)
            yield placed
        self.tell(number, progress)

    def tell(self, number: int, progress: Progress) -> None:
        """Report that so many rows have been read; silent on a stream whose end is not known."""
        if self.n_rows is not None:
            progress("read rows", number, self.n_rows)
        elif self.meter.total:
            progress("read kB", self.meter.done // 1000, self.meter.total // 1000)

    notes: tuple[str, ...] = ()


def open_source(data: "Data", split: str) -> Source:
    """The rows of whatever the user named; `a/b` is a hub id unless it, or the folder `a`, is here."""
    if not isinstance(data, str | os.PathLike):
        return table_source(data, split)
    path = Path(data)
    if path.is_dir():
        return folder_source(path, split)
    hub_id = HUB_ID.fullmatch(str(data))
    is_local = path.exists() or path.parent.is_dir() or kind_of(path)
    if hub_id and not is_local:
        return hub_source(hub_id, split)
    meter = Meter([path])
    return Source(source_name(path), split, file_rows(path, meter), is_untyped=kind_of(path) == ".csv", meter=meter)


def folder_source(folder: Path, split: str) -> Source:
    """All shards of a folder in name order; files named after another split are left out, with a note.

    The shards lie in the folder's `data/` (our exports, hub checkouts), or in the folder, or in its subfolder `split`.
    """
    if (folder / "run.json").is_file():
        raise CurateError(f"{folder}: a run folder, not data; name the data it was made from")
    found = files_of_rows(folder, split)
    files = [file for file in found if split_of(file) in (split, None)]
    if not files:
        known = f" of split {split!r} (found {', '.join(file.name for file in found)})" if found else ""
        raise CurateError(f"{folder}: no files of rows{known}; name a file, or the folder that holds the shards")
    kinds = sorted({kind_of(file) for file in files})
    if len(kinds) > 1:
        raise CurateError(f"{folder}: holds files of several kinds ({', '.join(kinds)}); name one file")
    left_out = [file.name for file in found if file not in files]
    notes = (f"left out as another split than {split}: {', '.join(left_out)}",) if left_out else ()
    meter = Meter(files)
    rows = (row for file in files for row in file_rows(file, meter))
    return Source(source_name(folder), split, rows, is_untyped=kinds == [".csv"], notes=notes, meter=meter)


def files_of_rows(folder: Path, split: str) -> list[Path]:
    """The files of rows of the first of `data/`, the folder itself and the split's folder that has any."""
    places = [place for place in (folder / "data", folder, folder / split) if place.is_dir()]
    return next((files for files in map(shards, places) if files), [])


def shards(folder: Path) -> list[Path]:
    """The files of rows directly in a folder, in name order."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and kind_of(path) and path.name not in BOOKKEEPING and not path.name.startswith((".", "_"))
    )


def split_of(file: Path) -> str | None:
    """The well-known split that a file's name begins with, None for any other name.

    >>> split_of(Path("test-00000-of-00001.parquet")), split_of(Path("training.jsonl"))
    ('test', None)
    """
    return next((split for split in SPLITS if re.match(rf"{split}(?![a-z])", file.name)), None)


def hub_source(hub_id: re.Match[str], split: str) -> Source:
    """A dataset of the Hub, read through `datasets.load_dataset`.

    `org/name:config:split` says all; `org/name:word` is a split where the word begins with a well-known split's name
    (`test`, `train_prefs`) and a config otherwise; `org/name::split` is the split of the default config.
    """
    import datasets

    name, config, own_split = hub_id["name"], hub_id["config"] or None, hub_id["split"]
    if config and not own_split and split_of(Path(config)):
        config, own_split = None, config
    split = own_split or split
    try:
        dataset = datasets.load_dataset(name, config, split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise CurateError(
            f"{hub_id[0]}: no such file or folder here, and the Hub did not give it ({reason}); "
            "check the path, or ORG/NAME[:CONFIG][:SPLIT] and the network"
        ) from None
    return Source(name, split, dataset_rows(dataset, name), n_rows=len(dataset))


def table_source(data: Any, split: str) -> Source:
    """A table in memory: polars, pandas, or a dataset of the `datasets` library (one split of a dictionary of them)."""
    library = type(data).__module__.partition(".")[0]
    if isinstance(data, pl.LazyFrame):
        data = data.collect()
    if isinstance(data, pl.DataFrame):
        return Source("data", split, polars_rows(data), n_rows=len(data))
    if library == "pandas":
        return Source("data", split, pandas_rows(data), n_rows=len(data))
    if library == "datasets":
        if isinstance(data, dict):
            if split not in data:
                raise CurateError(f"data: no split {split!r}; choose one of {', '.join(data)} with split=")
            data = data[split]
        n_rows = len(data) if isinstance(data, Sized) else None  # a streamed one has no length
        return Source("data", split, dataset_rows(data, "data"), n_rows=n_rows)
    raise CurateError(
        f"data is {type(data).__name__}; expected a path, a hub id, or a polars, pandas or datasets table"
    )


def polars_rows(table: pl.DataFrame) -> Generator[PlacedRow, None, None]:
    """The rows of a polars table."""
    for row, values in enumerate(table.iter_rows(named=True)):
        yield f"data: row {row}", values


def dataset_rows(dataset: Any, name: str) -> Generator[PlacedRow, None, None]:
    """The rows of a `datasets.Dataset`, through arrow; of a streamed one, as they come."""
    import datasets

    if isinstance(dataset, datasets.Dataset):
        tables = dataset.with_format("arrow").iter(batch_size=BATCH_ROWS)
        batches = (batch for table in tables for batch in table.to_batches())
        return ((f"{name}: {place}", row) for place, row in batch_rows(batches, name))
    return ((f"{name}: row {row}", values) for row, values in enumerate(dataset))


def pandas_rows(table: "pd.DataFrame") -> Generator[PlacedRow, None, None]:
    """The rows of a pandas table as plain Python values; NaN, NaT and NA, its marks of a missing value, become None."""
    if not table.columns.is_unique:
        raise CurateError("data: a column name is there twice; rename one")
    for start in range(0, len(table), BATCH_ROWS):
        part = table.iloc[start : start + BATCH_ROWS]
        for row, values in enumerate(part.to_dict("records"), start=start):
            yield f"data: row {row}", {str(name): plain(value) for name, value in values.items()}


def plain(value: Any) -> Any:
    """A pandas cell without numpy in it."""
    import numpy as np
    import pandas as pd

    if isinstance(value, np.ndarray | list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    is_missing = value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))
    return None if is_missing else value


def fingerprint_of(data: "Data", split: str) -> str | None:
    """Hash of the names and bytes of the file, or of a folder's files of rows, that `data` names; None for anything else."""
    if not isinstance(data, str | os.PathLike) or not Path(data).exists():
        return None
    path = Path(data)
    files = [path] if path.is_file() else files_of_rows(path, split)
    return key_of([[file.name, sha256_of(file)] for file in files])

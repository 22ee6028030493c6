"""The run folder: stages meet in its files, a file under its final name is complete, `run.json` says what made it.

A stage is fresh when `run.json` records it with the same options and the same inputs (the keys of the stages before
it) and its files still have the recorded sizes. Otherwise it is redone, and so is everything after it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl
from filelock import FileLock, Timeout

from curate.errors import CurateError

if TYPE_CHECKING:
    from curate.diff import Diff

FORMAT_VERSION = 1
TOLD = 1000  # progress is told after so many items
Item = TypeVar("Item")
STAGES = ("load", "check", "vote", "strength", "decide", "report")
AFTER = {
    "load": (),
    "check": ("load",),
    "vote": ("load",),
    "strength": ("vote",),
    "decide": ("check", "strength"),
    "report": ("check", "strength", "decide"),
}


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no NaN: equal values give equal text, which is what keys are made of."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def key_of(value: Any) -> str:
    """16 hex digits that stand for a JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends well, and is removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def replace_folder(partial: Path, to: Path) -> None:
    """Put a finished folder in place of `to`; the old one goes last."""
    old = to.with_name(f".{to.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if to.exists():
        to.rename(old)
    try:
        partial.rename(to)
    except BaseException:
        if old.exists():
            old.rename(to)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_parquet(table: pl.DataFrame, path: Path) -> None:
    """Write a table whole or not at all."""
    with whole_file(path) as partial:
        table.write_parquet(partial, compression="zstd")


def write_json(value: Any, path: Path) -> None:
    """Write a value as readable JSON, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Run:
    """A run folder and its stage files.

    `run.read("strength")` reads a stage's table; `run.manifest` is `run.json`; `run.options("vote")` what a stage
    was run with.
    """

    path: Path

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Run":
        """An existing run; refuses a folder that holds none."""
        run = cls(Path(path))
        if not run.manifest_path.is_file():
            raise CurateError(f"{path}: not a run folder (no run.json); make one with: curate audit DATA --out {path}")
        return run

    @property
    def manifest_path(self) -> Path:
        return self.path / "run.json"

    @property
    def manifest(self) -> dict[str, Any]:
        """`run.json` as it is on disk; an empty one for a run that has not begun."""
        if not self.manifest_path.is_file():
            return {"format_version": FORMAT_VERSION, "stages": {}}
        try:
            manifest: dict[str, Any] = json.loads(self.manifest_path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CurateError(f"{self.manifest_path}: damaged ({error}); audit again with --overwrite") from None
        if manifest.get("format_version") != FORMAT_VERSION:
            found = manifest.get("format_version")
            raise CurateError(
                f"{self.manifest_path}: run format {found}, this prefcurate reads {FORMAT_VERSION}; "
                "audit again with --overwrite"
            )
        return manifest

    @property
    def is_readable(self) -> bool:
        """False where `run.json` is damaged or of another version's format."""
        try:
            return bool(self.manifest)
        except CurateError:
            return False

    def stage(self, name: str) -> dict[str, Any]:
        """What `run.json` records of a finished stage; refuses one that has not run or is stale, naming the command to type.

        A stage is stale when it, or a stage before it, was made from something that has changed since.
        """
        record: dict[str, Any] | None = self.manifest["stages"].get(name)
        command = "curate load DATA --out" if name == "load" else f"curate {name}"
        if record is None:
            raise CurateError(f"{self.path}: stage {name} has not run; run first: {command} {self.path}")
        for before in AFTER[name]:
            self.stage(before)
        if record["key"] != self.key(name, record["options"]):
            raise CurateError(
                f"{self.path}: stage {name} is stale, what it is made from has changed; run first: {command} {self.path}"
            )
        return record

    def options(self, name: str) -> dict[str, Any]:
        """The options that a finished stage was run with."""
        options: dict[str, Any] = self.stage(name)["options"]
        return options

    def read(self, table: str) -> pl.DataFrame:
        """The table `pairs`, `checks`, `strength` or `decisions`."""
        return self.scan(table).collect()

    def scan(self, table: str) -> pl.LazyFrame:
        """The same, lazily."""
        self.stage({"pairs": "load", "checks": "check", "decisions": "decide"}.get(table, table))
        return pl.scan_parquet(self.path / f"{table}.parquet")

    @property
    def strength(self) -> pl.DataFrame:
        """How firmly the ensemble backs each label, one row per pair."""
        return self.read("strength")

    @property
    def decisions(self) -> pl.DataFrame:
        """What is done to each pair and why, one row per pair."""
        return self.read("decisions")

    def key(self, name: str, options: Mapping[str, Any], made_by: str | None = None) -> str:
        """What a stage's files depend on: our version (or `made_by`), its options and the keys of the stages before it."""
        stages = self.manifest["stages"]
        by = made_by or version("prefcurate")
        return key_of([by, name, options, [stages.get(before, {}).get("key") for before in AFTER[name]]])

    def is_consistent(self, name: str) -> bool:
        """True where a stage was made from the stages before it as they are now, by this version of ours or an older one."""
        manifest = self.manifest
        record = manifest["stages"].get(name)
        if record is None or not all(self.is_consistent(before) for before in AFTER[name]):
            return False
        versions = (None, manifest.get("versions", {}).get("prefcurate"))
        return any(record["key"] == self.key(name, record["options"], made_by) for made_by in versions)

    def is_fresh(self, name: str, options: Mapping[str, Any]) -> bool:
        """True when the stage's files are there and were made with these options from these inputs."""
        record = self.manifest["stages"].get(name)
        if record is None or record["key"] != self.key(name, options):
            return False
        return all(
            (self.path / file).is_file() and (self.path / file).stat().st_size == entry["bytes"]
            for file, entry in record["files"].items()
        )

    def record(
        self,
        name: str,
        options: Mapping[str, Any],
        files: list[Path],
        rows: int,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Enter a finished stage in `run.json`, the last thing a stage does; stages after it become stale."""
        manifest = self.manifest
        manifest["stages"][name] = {
            "key": self.key(name, options),
            "options": dict(options),
            "rows": rows,
            **({"facts": dict(facts)} if facts else {}),
            "files": {
                path.relative_to(self.path).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
                for path in sorted(files)
            },
        }
        write_json(manifest, self.manifest_path)

    def update(self, **entries: Any) -> None:
        """Set top-level entries of `run.json` (input, versions)."""
        write_json({**self.manifest, **entries}, self.manifest_path)

    def clear(self) -> None:
        """Remove the run's own files, and nothing else that may lie in the folder."""
        for name in ("features", "votes", "members"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in ("pairs", "checks", "strength", "decisions"):
            (self.path / f"{name}.parquet").unlink(missing_ok=True)
        for name in ("facts.json", "report.html", "run.json"):
            (self.path / name).unlink(missing_ok=True)

    def export(
        self,
        to: str | os.PathLike[str],
        *,
        push: str | None = None,
        private: bool = False,
        overwrite: bool = False,
        **options: Any,
    ) -> dict[str, int]:
        """Write the cleaned dataset to `to`; `options` are the fields of ExportOptions. Returns the counts.

        `push` is the dataset of the Hub (org/name) that the folder is then uploaded to.
        """
        from curate import pipeline
        from curate.export import ExportOptions
        from curate.options import options_from

        (chosen,) = options_from(options, ExportOptions)
        counts = pipeline.export(self, to, chosen, overwrite=overwrite)
        if push:
            pipeline.push(to, push, private=private, overwrite=overwrite)
        return counts

    def retrain(
        self, to: str | os.PathLike[str], *, test: Any = None, overwrite: bool = False, **options: Any
    ) -> dict[str, Any]:
        """Retrain on the curated and on the raw split; `options` are the fields of RetrainOptions. Returns the comparison."""
        from curate import pipeline
        from curate.options import RetrainOptions, options_from

        (chosen,) = options_from(options, RetrainOptions)
        return pipeline.retrain(self, to, chosen, test=test, overwrite=overwrite)

    def sql(self, statement: str) -> pl.DataFrame:
        """The answer of one select statement over the views pairs, checks, strength and decisions."""
        from curate import pipeline

        return pipeline.sql(self, statement)

    def compare(self, policies: Sequence[str], *, retrain: bool = False, **options: Any) -> dict[str, Any]:
        """What each policy would do, and with `retrain` is worth; `options` are the fields of RetrainOptions."""
        from curate import pipeline
        from curate.options import RetrainOptions, options_from

        (chosen,) = options_from(options, RetrainOptions)
        return pipeline.compare(self, policies, chosen if retrain else None)

    def diff(self, other: "Run") -> "Diff":
        """What changed from this run to another one: `facts`, and `changed`, a row per pair."""
        from curate import pipeline

        return pipeline.diff(self, other)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while a command writes to the run; a second command on the same run is refused."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise CurateError(f"{self.path}: another curate command is working on this run; wait for it") from None
        try:
            yield
        finally:
            lock.release()


Progress = Callable[[str, int, int], None]
"""Called as `progress(what, done, total)` by long stages; the command line draws a bar from it."""


def no_progress(what: str, done: int, total: int) -> None:
    """The progress callback of library calls: silent."""


def told(items: Iterable[Item], what: str, total: int, progress: Progress) -> Iterator[Item]:
    """The items; progress is told of every thousandth and of the last.

    >>> list(told("ab", "letters", 2, print))
    letters 2 2
    ['a', 'b']
    """
    for number, item in enumerate(items, start=1):
        if number % TOLD == 0:
            progress(what, number, total)
        yield item
    progress(what, total, total)

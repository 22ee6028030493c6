"""Where a command may write: into a new place, or over what the same command once left there."""

from pathlib import Path

from curate.errors import CurateError
from curate.run import Run


def refuse_run(run: Run, fingerprint: str, overwrite: bool) -> None:
    """Only an empty or new folder, a run of the same input, or (with overwrite) a run of other data may be written to."""
    if run.path.exists() and not run.path.is_dir():
        raise CurateError(f"{run.path}: is a file; --out names a folder")
    if not run.path.exists() or all(file.name == ".lock" for file in run.path.iterdir()):
        return
    if not run.manifest_path.is_file():
        raise CurateError(f"{run.path}: holds files that are not a run's; choose another --out")
    if run.manifest.get("input") in (None, fingerprint):
        return
    if not overwrite:
        raise CurateError(f"{run.path}: holds a run of other data; choose another --out, or add --overwrite")


def refuse_folder(to: Path, overwrite: bool, marker: str) -> None:
    """A non-empty folder is only replaced with `overwrite`, and only if it holds what this command once wrote."""
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return
    if not overwrite:
        raise CurateError(f"{to}: not empty; choose another --to, or add --overwrite")
    if not (to / marker).is_file():
        raise CurateError(f"{to}: holds no {marker}, so it was not written by this command; choose another --to")

"""An export folder to the Hugging Face Hub: uploaded, and then counted there, because an upload can lose a file."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet

from curate.errors import CurateError

EMPTY_REPO = {".gitattributes"}  # what a repository has that nothing was put into
LOGIN = "log in with: hf auth login"


def push(folder: Path, repo: str, n_rows: int, *, private: bool = False, overwrite: bool = False) -> str:
    """Upload an export folder as the dataset `repo` (org/name) and return its address.

    Refuses a repository of other files, one that holds an export without `overwrite`, and a public one where `private` is
    asked. Afterwards the rows of `data/` are counted on the Hub; a count other than `n_rows` is an error. The local folder
    stays as it is.
    """
    from huggingface_hub import DatasetCard, HfApi, get_token

    if get_token() is None:
        raise CurateError(f"--push {repo}: no token of the Hub; {LOGIN}{_still_here(folder, repo)}")
    api = HfApi()
    with hub_errors(folder, repo):
        DatasetCard.load(folder / "README.md").validate()
        made = api.create_repo(repo, repo_type="dataset", private=private or None, exist_ok=True)
        _refuse_other(api, made.repo_id, private, overwrite)
        commit = api.upload_folder(
            repo_id=made.repo_id,
            repo_type="dataset",
            folder_path=folder,
            commit_message="Curated with prefcurate",
            delete_patterns=["data/*", "removed/*", "trl_reward.yaml"],  # what an earlier export left
        )
        found = rows_on_hub(api, made.repo_id, commit.oid)
    if found != n_rows:
        raise CurateError(
            f"--push {repo}: {found:,} rows lie on the Hub and {n_rows:,} were written; push again with --overwrite"
        )
    return str(made)


def _refuse_other(api: Any, repo: str, private: bool, overwrite: bool) -> None:
    """Refuse a repository of other contents or, where private was asked, one that everyone can read."""
    if private and not api.repo_info(repo, repo_type="dataset").private:
        raise CurateError(
            f"--push {repo}: the repository is public; make it private on the Hub, or leave out --private"
        )
    held = set(api.list_repo_files(repo, repo_type="dataset")) - EMPTY_REPO
    if held and not ("provenance.json" in held and _is_export(repo)):
        raise CurateError(
            f"--push {repo}: the repository holds {len(held):,} files that curate export did not write; choose another "
            "name, or empty it on the Hub"
        )
    if held and not overwrite:
        raise CurateError(f"--push {repo}: the repository holds an export; choose another name, or add --overwrite")


def _is_export(repo: str) -> bool:
    """True where the provenance.json of a repository is that of an export: it names the prefcurate that wrote it."""
    from huggingface_hub import HfFileSystem

    try:
        found = json.loads(HfFileSystem().read_bytes(f"datasets/{repo}/provenance.json"))
    except (ValueError, RecursionError):
        return False
    made_by = found.get("versions") if isinstance(found, dict) else None
    return isinstance(made_by, dict) and "prefcurate" in made_by


def rows_on_hub(api: Any, repo: str, revision: str) -> int:
    """How many rows the data files of a repository hold: from the footers of parquet files, and by line of JSON lines."""
    from huggingface_hub import HfFileSystem

    files = HfFileSystem()
    held = api.list_repo_files(repo, repo_type="dataset", revision=revision)
    data = [name for name in held if name.startswith("data/")]
    return sum(rows_of(files, f"datasets/{repo}@{revision}/{name}") for name in data)


def rows_of(files: Any, path: str) -> int:
    """The rows of a file of a remote file system."""
    with files.open(path, "rb") as file:
        if path.endswith(".parquet"):
            return int(pyarrow.parquet.ParquetFile(file).metadata.num_rows)
        return sum(1 for _ in file)


@contextmanager
def hub_errors(folder: Path, repo: str) -> Iterator[None]:
    """What goes wrong between here and the Hub, as one line that says what to do; the export itself is complete."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        todo = LOGIN if status == 401 else "ask for the right to write there, or choose another name"
        what = f"the Hub refused ({status}: {_first_line(error)}); {todo}"
    except errors.HFValidationError as error:
        raise CurateError(f"--push {repo}: {_first_line(error)}; expected org/name") from None
    except ValueError as error:  # the Hub's answer to a card that it does not accept
        what = f"the Hub does not accept the card ({_first_line(error)}); mend --license"
    except (OSError, errors.HTTPError, errors.EntryNotFoundError) as error:  # type: ignore[attr-defined]  # httpx's own
        what = f"the Hub cannot be reached ({_first_line(error)}); check the network"
    else:
        return
    raise CurateError(f"--push {repo}: {what}{_still_here(folder, repo)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")


def _still_here(folder: Path, repo: str) -> str:
    """How to go on: the folder is complete and can be uploaded by itself."""
    return f"; the export is complete in {folder}, upload it with: hf upload {repo} {folder} --repo-type dataset"

"""The upload against a local stand-in of the Hub: a folder with the methods of huggingface_hub that are used."""

import shutil
from types import SimpleNamespace

import pytest

from curate import pipeline
from curate.errors import CurateError
from curate.export import ExportOptions, split_pairs, write_export
from curate.push import push
from tests.decided import decided
from tests.test_card import PROVENANCE

REPO = "org/name"


class FakeHub:
    """Dataset repositories as folders; `lost` is a file that an upload does not bring, `error` what every call raises."""

    def __init__(self, folder):
        self.folder, self.lost, self.error, self.is_private, self.calls = folder, None, None, False, []

    def place(self, repo):
        assert repo == REPO
        return self.folder / repo

    def called(self, name):
        self.calls.append(name)
        if self.error:
            raise self.error

    def create_repo(self, repo, *, repo_type, private, exist_ok):
        self.called("create_repo")
        assert (repo_type, exist_ok) == ("dataset", True)
        if not self.place(repo).exists():
            self.place(repo).mkdir(parents=True)
            assert private in (True, None)  # False would overrule an organisation's default
            self.is_private = bool(private)
            (self.place(repo) / ".gitattributes").write_text("")

        class RepoUrl(str):
            repo_id = repo

        return RepoUrl(f"https://huggingface.co/datasets/{repo}")

    def repo_info(self, repo, *, repo_type):
        assert (repo, repo_type) == (REPO, "dataset")
        return SimpleNamespace(private=self.is_private)

    def list_repo_files(self, repo, *, repo_type, revision="main"):
        assert (repo_type, revision in ("main", "c0ffee")) == ("dataset", True)
        place = self.place(repo)
        return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())

    def upload_folder(self, *, repo_id, repo_type, folder_path, commit_message, delete_patterns):
        self.called("upload_folder")
        assert (repo_type, bool(commit_message)) == ("dataset", True)
        for pattern in delete_patterns:
            for path in self.place(repo_id).glob(pattern):
                path.unlink()
        shutil.copytree(folder_path, self.place(repo_id), dirs_exist_ok=True)
        if self.lost:
            (self.place(repo_id) / self.lost).unlink()
        return SimpleNamespace(oid="c0ffee")

    def open(self, path, mode):
        assert path.startswith(f"datasets/{REPO}@c0ffee/")
        return (self.place(REPO) / path.removeprefix(f"datasets/{REPO}@c0ffee/")).open(mode)

    def read_bytes(self, path):
        assert path.startswith(f"datasets/{REPO}/")
        return (self.place(REPO) / path.removeprefix(f"datasets/{REPO}/")).read_bytes()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    fake = FakeHub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: fake)
    monkeypatch.setattr("huggingface_hub.HfFileSystem", lambda: fake)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_token")
    monkeypatch.setattr("huggingface_hub.DatasetCard.validate", lambda _: fake.called("validate"))
    return fake


@pytest.fixture
def folder(make_pairs, tmp_path, monkeypatch):
    """An export of five pairs in three shards."""
    monkeypatch.setattr("curate.export.PAIRS_PER_SHARD", 2)
    return exported(make_pairs, tmp_path, 5)


def exported(make_pairs, tmp_path, n, **options):
    pairs = make_pairs(*[(f"question {i}", "good\n", "bad") for i in range(n)])
    chosen = ExportOptions(**options)
    split = split_pairs(pairs, decided(pairs), chosen, "standard")
    write_export(tmp_path / "out", split, "standard", chosen, PROVENANCE)
    return tmp_path / "out"


def error_of(*arguments, **options):
    with pytest.raises(CurateError) as error:
        push(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_folder_lies_on_the_hub_whole(hub, folder):
    assert pipeline.push(folder, REPO, private=True) == "https://huggingface.co/datasets/org/name"
    assert hub.calls == ["validate", "create_repo", "upload_folder"]
    assert hub.is_private
    local = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {name: (hub.place(REPO) / name).read_bytes() for name in local} == local


def test_lines_are_counted_too(hub, make_pairs, tmp_path):
    folder = exported(make_pairs, tmp_path, 3, file="jsonl")
    pipeline.push(folder, REPO)
    hub.lost = "data/train-00000-of-00001.jsonl"
    with pytest.raises(CurateError, match="0 rows lie on the Hub and 3 were written"):
        pipeline.push(folder, REPO, overwrite=True)


def test_a_lost_shard_is_found_out(hub, folder):
    hub.lost = "data/train-00001-of-00003.parquet"
    assert error_of(folder, REPO, 5) == (
        "--push org/name: 3 rows lie on the Hub and 5 were written; push again with --overwrite"
    )


def test_an_earlier_export_is_refused_without_overwrite(hub, folder, make_pairs, tmp_path):
    push(folder, REPO, 5)
    assert error_of(folder, REPO, 5) == (
        "--push org/name: the repository holds an export; choose another name, or add --overwrite"
    )
    assert hub.calls.count("upload_folder") == 1
    smaller = exported(make_pairs, tmp_path, 2)
    push(smaller, REPO, 2, overwrite=True)  # the old shards are gone, or the count would tell


@pytest.mark.parametrize("provenance", [None, "{", "[]", '{"versions": {"other": "1"}}'])
def test_a_repository_that_holds_no_export_is_never_overwritten(hub, folder, provenance):
    """`--overwrite` is typed for the local folder too, after an upload that failed."""
    held = {"data/precious.parquet": "rows", "README.md": "theirs"} | (
        {"provenance.json": provenance} if provenance else {}
    )
    for name, text in held.items():
        (hub.place(REPO) / name).parent.mkdir(parents=True, exist_ok=True)
        (hub.place(REPO) / name).write_text(text)
    for overwrite in (False, True):
        assert error_of(folder, REPO, 5, overwrite=overwrite) == (
            f"--push org/name: the repository holds {len(held)} files that curate export did not write; choose another name, "
            "or empty it on the Hub"
        )
    assert {name: (hub.place(REPO) / name).read_text() for name in held} == held
    assert "upload_folder" not in hub.calls


def test_a_public_repository_is_not_taken_for_a_private_one(hub, folder):
    push(folder, REPO, 5)
    assert not hub.is_private
    message = error_of(folder, REPO, 5, private=True, overwrite=True)
    assert message.startswith("--push org/name: the repository is public; make it private on the Hub, or leave out")


def test_without_a_token_the_way_to_one_is_said(hub, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert error_of(folder, REPO, 5) == (
        f"--push org/name: no token of the Hub; log in with: hf auth login; the export is complete in {folder}, upload it "
        f"with: hf upload org/name {folder} --repo-type dataset"
    )
    assert not hub.calls


def answer(status):
    """The error that huggingface_hub raises for an answer of the Hub."""
    from huggingface_hub.errors import HfHubHTTPError

    response = SimpleNamespace(status_code=status, headers={}, request=None)
    return HfHubHTTPError(f"{status} Client Error.\n\nmore", response=response)


def no_network():
    from huggingface_hub import errors

    return errors.HTTPError("[Errno -2] Name or service not known")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (answer(401), "the Hub refused (401: 401 Client Error); log in with: hf auth login; the export is complete in"),
        (
            answer(403),
            "the Hub refused (403: 403 Client Error); ask for the right to write there, or choose another name;",
        ),
        (
            no_network(),
            "the Hub cannot be reached ([Errno -2] Name or service not known); check the network; the export",
        ),
        (ConnectionError("offline mode"), "the Hub cannot be reached (offline mode); check the network; the export"),
        (
            ValueError('"license" must be one of [...]'),
            'the Hub does not accept the card ("license" must be one of [...])',
        ),
    ],
)
def test_what_goes_wrong_is_one_line_and_the_folder_stays(hub, folder, error, message):
    hub.error = error
    before = sorted(folder.rglob("*"))
    assert error_of(folder, REPO, 5).startswith(f"--push org/name: {message}")
    assert sorted(folder.rglob("*")) == before


def test_a_name_that_is_none_is_refused(hub, folder):
    from huggingface_hub.errors import HFValidationError

    hub.error = HFValidationError("Repo id must be in the form 'repo_name' or 'namespace/repo_name': 'a/b/c'.")
    assert error_of(folder, "a/b/c", 5).endswith("'namespace/repo_name': 'a/b/c'; expected org/name")

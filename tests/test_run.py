import json
import threading

import polars as pl
import pytest

from curate.errors import CurateError, unknown_choice
from curate.run import Run, canonical_json, key_of, sha256_of, whole_file, write_json, write_parquet


@pytest.fixture
def run(tmp_path):
    """A run with a load and a check stage of two rows."""
    run = Run(tmp_path / "run")
    for stage, name in (("load", "pairs"), ("check", "checks")):
        write_parquet(pl.DataFrame({"pair_id": ["a", "b"]}), run.path / f"{name}.parquet")
        run.record(stage, {"seed": 0}, [run.path / f"{name}.parquet"], rows=2)
    return run


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with pytest.raises(RuntimeError), whole_file(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    with whole_file(path) as partial:
        partial.write_text("whole")
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_finished_stage_is_fresh_until_something_before_it_changes(run):
    assert run.is_fresh("load", {"seed": 0})
    assert run.is_fresh("check", {"seed": 0})
    assert not run.is_fresh("load", {"seed": 1})
    assert not run.is_fresh("vote", {})
    run.record("load", {"seed": 1}, [run.path / "pairs.parquet"], rows=2)
    assert not run.is_fresh("check", {"seed": 0})


def test_a_cut_or_missing_file_is_not_fresh(run):
    path = run.path / "pairs.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert not run.is_fresh("load", {"seed": 0})
    path.unlink()
    assert not run.is_fresh("load", {"seed": 0})


def test_the_manifest_holds_hash_size_and_rows(run):
    entry = run.stage("load")
    path = run.path / "pairs.parquet"
    assert entry["files"] == {"pairs.parquet": {"bytes": path.stat().st_size, "sha256": sha256_of(path)}}
    assert entry["rows"] == 2


def test_a_stage_run_too_early_names_the_command(run):
    with pytest.raises(CurateError, match=r"stage vote has not run; run first: curate vote"):
        run.stage("vote")
    with pytest.raises(CurateError, match=r"run first: curate decide"):
        run.read("decisions")
    assert run.read("checks").height == 2


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(CurateError, match="not a run folder .*curate audit DATA --out"):
        Run.open(tmp_path)


@pytest.mark.parametrize(("text", "message"), [("{", "damaged"), ('{"format_version": 99}', "run format 99")])
def test_a_damaged_or_foreign_manifest_is_refused(tmp_path, text, message):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(CurateError, match=message):
        Run.open(tmp_path).stage("load")


def test_a_second_command_on_the_same_run_is_refused(run):
    refused = []

    def second() -> None:
        try:
            with Run(run.path).lock():
                pass
        except CurateError as error:
            refused.append(str(error))

    with run.lock():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "another curate command is working" in refused[0]


def test_clear_removes_the_runs_files_and_nothing_else(run):
    (run.path / "notes.txt").write_text("mine")
    run.clear()
    assert [path.name for path in run.path.iterdir()] == ["notes.txt"]


def test_equal_values_have_equal_keys():
    assert key_of({"a": 1, "b": [2]}) == key_of(json.loads('{"b": [2], "a": 1}'))
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(float("nan"))


def test_json_is_readable_and_keeps_unicode(tmp_path):
    write_json({"text": "läuft"}, tmp_path / "x.json")
    assert "läuft" in (tmp_path / "x.json").read_text(encoding="utf-8")


def test_unknown_choice_lists_the_choices_and_the_nearest():
    assert str(unknown_choice("format", "trll", ["trl", "full"])) == (
        "unknown format 'trll': choose one of trl, full (did you mean trl?)"
    )

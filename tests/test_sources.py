import json
import shutil

import datasets
import pandas as pd
import polars as pl
import pytest

from curate.errors import CurateError
from curate.sources import open_source

ROWS = [
    {"prompt": "Sky?", "chosen": f"Blue {row}", "rejected": [{"role": "assistant", "content": "é"}]} for row in range(3)
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, and a function that writes some of ROWS to a file of lines in it."""
    monkeypatch.chdir(tmp_path)

    def write(name, *numbers):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(ROWS[number]) + "\n" for number in numbers), encoding="utf-8")

    return write


def rows_of(data, split="train"):
    return [row for _, row in open_source(data, split).rows]


def error_of(data, split="train"):
    with pytest.raises(CurateError) as error:
        rows_of(data, split)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_is_named_after_itself(folder):
    folder("hh.v2.jsonl", 0, 1)
    source = open_source("hh.v2.jsonl", "test")
    assert (source.name, source.split, source.is_untyped) == ("hh.v2", "test", False)
    assert [place for place, _ in source.rows] == ["hh.v2.jsonl: row 0 (line 1)", "hh.v2.jsonl: row 1 (line 2)"]


def test_shards_are_read_in_name_order_and_other_files_are_not(folder, tmp_path):
    folder("set/b-2.jsonl", 2)
    folder("set/b-1.jsonl", 0, 1)
    for name in ("README.md", ".hidden.jsonl", "_marks.jsonl", "dataset_info.json"):
        (tmp_path / "set" / name).write_text("no rows")
    source = open_source(tmp_path / "set", "train")
    assert source.name == "set"
    assert [row for _, row in source.rows] == ROWS


def test_files_of_another_split_are_left_out_with_a_note(folder):
    folder("set/test-0.jsonl", 0)
    folder("set/train-0.jsonl", 1)
    folder("set/training.jsonl", 2)
    source = open_source("set", "train")
    assert [row for _, row in source.rows] == ROWS[1:]
    assert source.notes == ("left out as another split than train: test-0.jsonl",)
    assert rows_of("set", "test") == [ROWS[0], ROWS[2]]


def test_an_export_or_hub_folder_is_its_data_folder(folder):
    folder("out/data/train-00000-of-00001.jsonl", 0)
    folder("out/provenance.json", 1)
    folder("out/removed/removed.jsonl", 2)
    assert rows_of("out") == ROWS[:1]


def test_a_folder_saved_by_datasets_is_read(tmp_path):
    dataset = datasets.Dataset.from_list(ROWS)
    dataset.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=dataset).save_to_disk(tmp_path / "several")
    assert rows_of(tmp_path / "one") == rows_of(tmp_path / "several") == ROWS


def test_folders_that_cannot_be_read_say_why(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert error_of("empty") == "empty: no files of rows; name a file, or the folder that holds the shards"
    folder("tests/test.jsonl", 0)
    assert "no files of rows of split 'train' (found test.jsonl)" in error_of("tests")
    folder("both/a.jsonl", 0)
    folder("both/a.csv", 0)
    assert error_of("both") == "both: holds files of several kinds (.csv, .jsonl); name one file"
    folder("run/run.json", 0)
    assert error_of("run") == "run: a run folder, not data; name the data it was made from"


def test_paths_that_are_not_there_are_missing_files(folder):
    folder("data/a.jsonl", 0)
    assert error_of("data/b.jsonl") == "data/b.jsonl: no such file; check the path"
    assert error_of("data/b") == "data/b: no such file; check the path"
    assert error_of("b") == "b: no such file; check the path"


@pytest.mark.parametrize(
    ("hub_id", "asked"),
    [
        ("org/name", ("org/name", None, "train")),
        ("org/name:test", ("org/name", None, "test")),
        ("org/name:train_prefs", ("org/name", None, "train_prefs")),
        ("org/name:harmless-base", ("org/name", "harmless-base", "train")),
        ("org/name:harmless-base:test", ("org/name", "harmless-base", "test")),
        ("org/name::extra", ("org/name", None, "extra")),
        ("org/name:train[:10]", ("org/name", None, "train[:10]")),
        ("org/name:default:train[:10]", ("org/name", "default", "train[:10]")),
    ],
)
def test_a_hub_id_names_a_config_and_a_split(monkeypatch, hub_id, asked):
    calls = []

    def load_dataset(name, config, split):
        calls.append((name, config, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = open_source(hub_id, "train")
    assert calls == [asked]
    assert (source.name, source.split) == (asked[0], asked[2])
    assert list(source.rows) == [(f"org/name: row {row}", values) for row, values in enumerate(ROWS)]


def test_a_hub_id_is_read_through_datasets(folder, tmp_path, monkeypatch):
    folder("checkout/data/train-0.jsonl", 0, 1, 2)
    load_dataset = datasets.load_dataset

    def from_checkout(name, config, split):
        assert name == "org/name"
        return load_dataset(str(tmp_path / "checkout"), config, split=split, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", from_checkout)
    assert rows_of("org/name") == ROWS


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    message = error_of("no-such-org/no-such-name")
    assert message.startswith("no-such-org/no-such-name: no such file or folder here, and the Hub did not give it (")
    assert message.endswith("check the path, or ORG/NAME[:CONFIG][:SPLIT] and the network")


def test_tables_in_memory_give_the_same_rows(folder):
    frame = pl.DataFrame(ROWS)
    folder("a.jsonl", 0, 1, 2)
    tables = (frame, frame.lazy(), frame.to_pandas(), pd.DataFrame(ROWS), datasets.Dataset.from_list(ROWS))
    for table in (*tables, datasets.Dataset.from_list(ROWS).to_iterable_dataset()):
        source = open_source(table, "train")
        assert source.name == "data"
        assert list(source.rows) == [(f"data: row {row}", values) for row, values in enumerate(ROWS)], type(table)


def test_a_dictionary_of_datasets_is_asked_for_the_split():
    both = datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS), test=datasets.Dataset.from_list(ROWS[:1]))
    assert rows_of(both, "test") == ROWS[:1]
    assert error_of(both, "dev") == "data: no split 'dev'; choose one of train, test with split="


def test_missing_values_of_pandas_are_none_and_its_numbers_plain():
    table = pd.DataFrame(
        {
            "a": [1.5, None],
            "b": pd.array([1, None], dtype="Int64"),
            "c": pd.to_datetime(["2020-01-01", None]),
            7: ["x", None],
        }
    )
    first, second = rows_of(table)
    assert second == {"a": None, "b": None, "c": None, "7": None}
    assert (first["a"], first["b"], type(first["b"]), first["7"]) == (1.5, 1, int, "x")


def test_what_is_no_table_is_refused():
    assert error_of(3) == "data is int; expected a path, a hub id, or a polars, pandas or datasets table"
    twice = pd.DataFrame([["a", "b"]], columns=["chosen", "chosen"])
    assert error_of(twice) == "data: a column name is there twice; rename one"


def test_a_csv_file_says_that_its_cells_are_text(tmp_path):
    (tmp_path / "shards").mkdir()
    for path in (tmp_path / "a.csv.gz", tmp_path / "shards" / "a.csv"):
        pd.DataFrame({"chosen": ["a"]}).to_csv(path, index=False)
    assert open_source(tmp_path / "a.csv.gz", "train").is_untyped
    assert open_source(tmp_path / "shards", "train").is_untyped
    shutil.rmtree(tmp_path / "shards")


def told(data, split="train"):
    source, seen = open_source(data, split), []
    n_rows = sum(1 for _ in source.watched([], lambda *progress: seen.append(progress)))
    return n_rows, seen


def test_progress_is_told_in_rows_where_they_are_known_and_in_kilobytes_of_the_files_elsewhere(tmp_path):
    table = pl.DataFrame({"prompt": ["Sky?"] * 2500, "chosen": [f"Blue {row}." for row in range(2500)]})
    rows = [("read rows", n, 2500) for n in (1000, 2000, 2500)]
    for data in (table, table.to_pandas(), datasets.Dataset.from_polars(table)):
        assert told(data) == (2500, rows)
    assert told(datasets.Dataset.from_polars(table).to_iterable_dataset()) == (2500, [])
    (tmp_path / "set").mkdir()
    for name in ("train-0.jsonl", "train-1.jsonl", "test-0.jsonl"):
        table.write_ndjson(tmp_path / "set" / name)
    size = (tmp_path / "set" / "train-0.jsonl").stat().st_size
    n_rows, seen = told(tmp_path / "set")
    assert n_rows == 5000
    assert {(what, total) for what, _, total in seen} == {("read kB", 2 * size // 1000)}
    done = [done for _, done, _ in seen]
    assert done == sorted(done)
    assert 0 < done[0] < size // 1000 < done[3] < done[-1] == 2 * size // 1000

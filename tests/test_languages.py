"""Languages are told from the texts where two of them have pairs enough, of a bounded number of pairs."""

from pathlib import Path

import polars as pl
import pytest
from fake_run import N_PAIRS, fake_pairs, fake_run

import reports.languages
from curate.run import Run
from reports.facts import facts
from reports.languages import UNCLEAR, detected_languages

ENGLISH = "What would they have said about the weather that we had in the mountains this year?"
GERMAN = "Was hätten sie wohl über das Wetter gesagt, das wir dieses Jahr in den Bergen hatten?"
CODE = "```\nprint(1)\n```"


def run_of(path: Path, texts: list[str]) -> Run:
    """A run whose pairs, in order, ask and answer in these texts."""
    run = fake_run(path)
    said = pl.Series([[{"role": "user", "content": text}] for text in texts], dtype=fake_pairs().schema["prompt"])
    pairs = run.read("pairs").with_columns(prompt=said, chosen=said, rejected=said, extra=pl.lit("{}"))
    pairs.write_parquet(path / "pairs.parquet")
    return run


def test_languages_with_pairs_enough_are_parts(tmp_path: Path) -> None:
    run = run_of(tmp_path, [ENGLISH] * 60 + [GERMAN] * 50 + [CODE] * 10)
    found = detected_languages(run)
    assert found is not None
    assert found.to_list() == ["en"] * 60 + ["de"] * 50 + [UNCLEAR] * 10
    (way,) = facts(run)["slices"]
    assert way["by"] == "detected language"
    assert [(part["name"], part["n_pairs"]) for part in way["parts"]] == [("en", 60), ("de", 50), (UNCLEAR, 10)]


def test_one_language_alone_and_rare_ones_are_no_parts(tmp_path: Path) -> None:
    assert detected_languages(run_of(tmp_path / "a", [ENGLISH] * N_PAIRS)) is None
    assert detected_languages(run_of(tmp_path / "b", [ENGLISH] * 101 + [GERMAN] * 19)) is None


def test_of_many_pairs_a_sample_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports.languages, "MOST_JUDGED", 90)
    run = run_of(tmp_path, [ENGLISH, GERMAN] * 60)
    found = detected_languages(run)
    assert found is not None
    assert len(found) == N_PAIRS and found.null_count() == N_PAIRS - 90
    (way,) = facts(run)["slices"]
    assert sum(part["n_pairs"] for part in way["parts"]) == 90


def test_rows_that_name_their_language_are_believed(tmp_path: Path) -> None:
    run = run_of(tmp_path, [ENGLISH] * 60 + [GERMAN] * 60)
    extra = pl.Series(['{"language": "x"}', '{"language": "y"}'] * 60)
    run.read("pairs").with_columns(extra=extra).write_parquet(tmp_path / "pairs.parquet")
    assert [way["by"] for way in facts(run)["slices"]] == ["language"]

"""The real preference data of CURATE_TEST_DATA: every file is read whole, and the votes find errors that people made."""

import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

import curate
from benchmarks.natural_noise import draw, is_odd, write_rows
from curate.formats import read_pairs
from curate.intervals import length_difference
from curate.pairs import is_tie

N_PAIRS = {
    "hh_rlhf_test": 8552,
    "ukp_convarg": 16927,
    "fine_grained_rlhf_dev": 3000,
    "alpaca_bon_gpt4turbo": 8826,
    "gsm8k_solutions": 2429,
    "oasst1_zh_rank": 1809,
}


def rows_of(file: Path) -> list[dict]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def text(messages: list[dict]) -> str:
    return "".join(message["content"] for message in messages)


@pytest.mark.parametrize("name", N_PAIRS)
def test_every_pair_is_read_with_its_label_and_its_text(data_folder, name):
    file = data_folder / f"{name}.jsonl.gz"
    rows, pairs = rows_of(file), read_pairs(str(file)).pairs
    assert len(pairs) == len(rows) == N_PAIRS[name]
    assert int(pairs.select(is_tie()).to_series().sum()) == sum(row["label"] == 0.5 for row in rows)
    for row, pair in zip(rows[::50], pairs[::50].iter_rows(named=True), strict=True):
        preferred, other = ("response_b", "response_a") if row["label"] < 0.5 else ("response_a", "response_b")
        assert (text(pair["chosen"]), text(pair["rejected"])) == (row[preferred], row[other])


def test_the_native_transcripts_are_the_same_pairs(data_folder):
    native = read_pairs(str(data_folder / "native")).pairs
    neutral = [
        row for row in rows_of(data_folder / "hh_rlhf_test.jsonl.gz") if row["meta"]["category"] == "harmless-base"
    ]
    assert len(native) == len(neutral)
    for row, pair in zip(neutral, native.iter_rows(named=True), strict=True):
        preferred = row["response_a"] if row["label"] == 1.0 else row["response_b"]
        assert text(pair["chosen"]).split() == preferred.split()  # the two were stripped differently


def test_votes_find_real_annotator_errors_better_than_length_does(data_folder, tmp_path):
    """On the debate sides with even hashes, which defaults were chosen on; benchmarks/natural_noise.py reports odd ones."""
    rows = draw(data_folder, seed=0)
    rows = rows.filter([not is_odd(side) for side in rows["side"]])
    file = write_rows(rows, "label", tmp_path / "single-votes.jsonl")
    run = curate.audit(str(file), tmp_path / "run", members=4, heldout_share=0.0)
    is_wrong = (rows["label"] != rows["gold"]).to_numpy()
    votes = roc_auc_score(is_wrong, -run.strength["strength_mean"].to_numpy())
    length = roc_auc_score(is_wrong, -length_difference(run.read("pairs")))
    assert votes > max(length + 0.03, 0.89)
    dropped = (run.decisions["action"] == "drop").to_numpy()
    assert is_wrong[dropped].mean() > 3 * is_wrong.mean()  # what is dropped is mostly worth dropping


def test_an_export_of_real_pairs_gives_their_texts_back(data_folder, tmp_path):
    rows = rows_of(data_folder / "fine_grained_rlhf_dev.jsonl.gz")[:240]
    file = tmp_path / "sample.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = curate.audit(str(file), tmp_path / "run", members=2, policy="secrets2-margin")
    counts = run.export(tmp_path / "cleaned", format="full")
    assert counts["read"] == counts["kept"] == len(rows)
    exported = pl.read_parquet(tmp_path / "cleaned" / "data" / "*.parquet")
    given = [{row["response_a"], row["response_b"]} for row in rows]
    assert [set(two) for two in exported.select("chosen", "rejected").iter_rows()] == given
    ties = np.array([row["label"] == 0.5 for row in rows])
    assert ties.any()
    assert (exported["label_prob"].to_numpy()[ties] == 0.5).all()

import json

import numpy as np
import polars as pl
import pytest

from curate.answer import write_table
from curate.errors import CurateError
from curate.pairs import PAIR_SCHEMA
from curate.verified import read_verified, sample_pairs, warnings


def table(n=60):
    """Pairs of which the last is a tie and every tenth is held out."""
    return pl.DataFrame(
        [
            {
                "pair_id": f"d:train:{i}",
                "prompt": [
                    {"role": "user", "content": f"question, {i}\n"},
                    {"role": "assistant", "content": 'so "so"'},
                ][: 1 + i % 2],
                "chosen": [{"role": "assistant", "content": f"good {i}\r\n\r\nnext"}],
                "rejected": [{"role": "assistant", "content": f"bad {i}"}],
                "group": str(i),
                "is_heldout": i % 10 == 0,
                "label_strength": 0.5 if i == n - 1 else None,
            }
            for i in range(n)
        ],
        schema=PAIR_SCHEMA,
    )


def answered(answers, tmp_path, kind="jsonl"):
    rows = [{"pair_id": pair_id, "label_is_right": answer} for pair_id, answer in answers]
    path = tmp_path / f"answers.{kind}"
    if kind == "csv":
        pl.DataFrame(rows, schema={"pair_id": pl.String, "label_is_right": pl.String}).write_csv(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_sample_is_uniform_over_labelled_training_pairs():
    pairs = table()
    counts = pl.concat([sample_pairs(pairs, 10, seed) for seed in range(300)])["pair_id"].value_counts()
    eligible = pairs.filter(~pl.col("is_heldout"))["pair_id"].to_list()[:-1]
    assert sorted(counts["pair_id"]) == sorted(eligible)
    expected = 300 * 10 / len(eligible)
    assert ((counts["count"] - expected) ** 2 / expected).sum() < 1.6 * len(eligible)  # chi-square, far in its tail
    assert sample_pairs(pairs, 10, 3).equals(sample_pairs(pairs, 10, 3))
    assert sample_pairs(pairs, 10, 3)["pair_id"].n_unique() == 10


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_sample_that_was_answered_reads_back(kind, tmp_path):
    pairs = table()
    drawn = sample_pairs(pairs, 12, 0)
    write_table(drawn, tmp_path / f"sample.{kind}")
    assert drawn.columns == ["pair_id", "prompt", "chosen", "rejected", "label_is_right"]
    with pytest.raises(CurateError, match="no answer in label_is_right yet"):
        read_verified(tmp_path / f"sample.{kind}", pairs)
    answers = ["true", "false", "unsure", None] * 3
    write_table(drawn.with_columns(label_is_right=pl.Series(answers)), tmp_path / f"done.{kind}")
    found = read_verified(tmp_path / f"done.{kind}", pairs)
    expected = dict(zip(drawn["pair_id"], ["right", "wrong", "unsure", None] * 3, strict=True))
    assert dict(zip(pairs["pair_id"], found, strict=True)) == {p: expected.get(p) for p in pairs["pair_id"]}


def test_json_booleans_and_words_in_any_case_are_answers(tmp_path):
    pairs = table()
    path = answered(
        [("d:train:1", True), ("d:train:2", False), ("d:train:3", " Unsure "), ("d:train:1", "TRUE")], tmp_path
    )
    assert read_verified(path, pairs)[1:4].to_list() == ["right", "wrong", "unsure"]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            [("d:train:1", "maybe")],
            r"row 0 \(line 1\): label_is_right is 'maybe'; expected true, false, unsure, or nothing",
        ),
        ([("other:train:1", True)], "pair 'other:train:1' is not in this run; verify pairs drawn by curate sample"),
        ([("d:train:1", True), ("d:train:1", False)], r"pair 'd:train:1' is wrong here and right at .*row 0"),
        ([("d:train:59", True)], "is a tie, so there is no label to verify"),
        ([("d:train:1", "")], "no answer in label_is_right yet"),
    ],
)
def test_bad_answers_are_refused_with_their_place(answers, message, tmp_path):
    with pytest.raises(CurateError, match=message):
        read_verified(answered(answers, tmp_path), table())


def test_answers_about_other_texts_are_refused(tmp_path):
    pairs = table()
    row = {**sample_pairs(pairs, 1, 0).to_dicts()[0], "label_is_right": True, "chosen": "another text"}
    (tmp_path / "answers.jsonl").write_text(json.dumps(row))
    with pytest.raises(CurateError, match="the chosen is not the one of pair"):
        read_verified(tmp_path / "answers.jsonl", pairs)
    (tmp_path / "bare.csv").write_text("pair_id,answer\nd:train:1,true\n")
    with pytest.raises(CurateError, match="no label_is_right; expected pair_id and label_is_right"):
        read_verified(tmp_path / "bare.csv", pairs)


def verified(n, positions, answer="right"):
    return pl.Series("verified", [answer if i in positions else None for i in range(n)], dtype=pl.String)


def test_a_random_subset_raises_no_warning_and_the_suspicious_end_does():
    mean = np.sort(np.random.default_rng(0).normal(1, 2, 2_000))
    eligible = np.ones(2_000, dtype=bool)
    drawn = set(np.random.default_rng(1).choice(2_000, 100, replace=False).tolist())
    assert warnings(verified(2_000, drawn), mean, eligible) == []
    (found,) = warnings(verified(2_000, set(range(100))), mean, eligible)
    assert "not a random sample: they lie low by strength" in found


def test_all_wrong_and_few_are_said():
    mean, eligible = np.random.default_rng(0).normal(size=200), np.ones(200, dtype=bool)
    drawn = set(np.random.default_rng(1).choice(200, 50, replace=False).tolist())
    (found,) = warnings(verified(200, drawn, "wrong"), mean, eligible)
    assert found.startswith("every verified label is wrong (50 of 50): chosen and rejected are probably reversed")
    (few,) = warnings(verified(200, set(list(drawn)[:5])), mean, eligible)
    assert few.startswith("5 verified pairs are too few")
    (unsure,) = warnings(verified(200, drawn, "unsure"), mean, eligible)
    assert unsure.startswith("50 of 50 answers are unsure")
    (heldout,) = warnings(verified(200, drawn), mean, ~np.isin(np.arange(200), list(drawn)[:3]))
    assert heldout.startswith("3 verified pairs are on held-out prompts")


def test_a_text_that_a_spreadsheet_would_run_is_quoted_and_reads_back(tmp_path):
    formula = pl.lit([{"role": "assistant", "content": "=cmd|' /C calc'!A0"}])
    pairs = table(12).with_columns(pair_id="=" + pl.col("pair_id"), chosen=formula)
    drawn = sample_pairs(pairs, 8, 0).with_columns(label_is_right=pl.lit("true"))
    write_table(drawn, tmp_path / "done.csv")
    written = pl.read_csv(tmp_path / "done.csv")
    assert all(written[name].str.starts_with("'=").all() for name in ("pair_id", "chosen"))
    assert read_verified(tmp_path / "done.csv", pairs).null_count() == 4


def test_a_file_with_semicolons_is_recognised(tmp_path):
    (tmp_path / "excel.csv").write_text("pair_id;label_is_right\nd:train:1;true\n")
    with pytest.raises(CurateError, match="the header has ';' and no comma; separate the columns by commas"):
        read_verified(tmp_path / "excel.csv", table())


def test_too_many_are_refused():
    with pytest.raises(CurateError, match="--n 60: give a number from 1 to 53"):
        sample_pairs(table(), 60)

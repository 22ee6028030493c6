import json

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import curate
from curate import pipeline
from curate.cli import app
from curate.errors import CurateError
from curate.formats import LoadOptions, read_pairs
from curate.given_votes import member_votes, n_score_lists
from curate.options import DecideOptions, StrengthOptions
from curate.strength import read_votes

N_PAIRS, N_MODELS = 120, 10


def rows():
    """Pairs in the columns of hh-rlhf-strength-cleaned; the first twelve labels are wrong, and the models say so."""
    rng = np.random.default_rng(0)
    for number in range(N_PAIRS):
        lead = -2.0 if number < 12 else 2.0
        chosen, rejected = rng.normal(lead, 1, N_MODELS), rng.normal(0, 1, N_MODELS)
        yield {
            "chosen": [f"Question {number}?", f"Answer {number}."],
            "rejected": [f"Question {number}?", f"Other {number}."],
            "GPT4 label": -1,
            "mean preference difference": float((chosen - rejected).mean()),
            "std preference difference": float((chosen - rejected).std()),
            "chosen score list": chosen.tolist(),
            "rejected score list": rejected.tolist(),
        }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("given") / "strength.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return path


@pytest.fixture(scope="module")
def audited(data, tmp_path_factory):
    return curate.audit(data, tmp_path_factory.mktemp("run"), policy="secrets2-flip", heldout_share=0.0)


def test_the_votes_are_the_scores_that_came_with_the_data(audited):
    pairs = audited.read("pairs")
    differences, folds = read_votes(audited.path, pairs["pair_id"])
    given = np.array([np.subtract(row["chosen score list"], row["rejected score list"]) for row in rows()])
    np.testing.assert_allclose(differences, given, atol=1e-6)  # votes are float32
    assert folds.shape == (N_PAIRS, N_MODELS)
    means = [row["mean preference difference"] for row in rows()]
    np.testing.assert_allclose(audited.strength["strength_mean_raw"], means, atol=1e-6)
    assert sorted(file.name for file in (audited.path / "votes").iterdir())[-1] == "member-09.parquet"


def test_nothing_is_trained_and_nothing_is_claimed(audited):
    assert not (audited.path / "features").exists()
    assert audited.options("vote") == {"ensemble": "given", "scoring": "given", "members": N_MODELS}
    assert audited.strength["label_prob"].null_count() == N_PAIRS
    facts = json.loads((audited.path / "facts.json").read_text())
    assert not facts["ensemble"]["is_out_of_fold"]
    assert any(warning.startswith("The votes came with the data, and nothing says") for warning in facts["warnings"])
    assert "came with the data" in (audited.path / "report.html").read_text()


def test_the_planted_errors_are_flipped(audited):
    flipped = audited.decisions.with_row_index("row").filter(pl.col("action") == "flip")["row"].to_list()
    assert flipped == list(range(12))  # 10 % of the pairs


def test_voting_again_is_fresh(audited):
    before = {file: file.stat().st_mtime_ns for file in (audited.path / "votes").iterdir()}
    pipeline.vote(audited)
    assert {file: file.stat().st_mtime_ns for file in (audited.path / "votes").iterdir()} == before


def test_a_policy_that_needs_label_prob_is_refused_before_anything_is_voted(data, tmp_path):
    with pytest.raises(CurateError) as error:
        curate.audit(data, tmp_path / "run")
    assert str(error.value) == (
        "policy auto needs label_prob, and the votes came with the data: nothing says whether their models had seen these "
        "labels; choose a secrets2-* policy, add --verified FILE, or train our own members with --no-score-lists"
    )
    assert not (tmp_path / "run" / "votes").exists()


def test_verified_pairs_give_such_votes_a_label_prob(audited):
    """The votes treat verified and other pairs alike, whatever their models have seen, so a random draw calibrates them."""
    drawn = pl.DataFrame({"pair_id": audited.read("pairs")["pair_id"][::2]})
    answers = drawn.with_columns(label_is_right=pl.Series(number >= 6 for number in range(len(drawn))))
    answers.write_ndjson(audited.path.parent / "answers.jsonl")
    verified = str(audited.path.parent / "answers.jsonl")
    pipeline.strength(audited, StrengthOptions(verified))
    label_prob = audited.strength["label_prob"].to_numpy()
    assert label_prob[:12].max() < 0.5 < label_prob[12:].min()
    decided = pipeline.decide(audited, DecideOptions(policy="auto"))
    assert set(decided.decisions["action"][:12].to_list()) <= {"drop", "flip"}


def test_our_own_members_can_be_trained_instead(data):
    options = LoadOptions(score_lists=False)
    assert read_pairs(data, options).n_score_lists == 0


def test_votes_keep_the_order_of_the_lists():
    extra = ['{"scores_chosen":[1,2],"scores_rejected":[0,5]}', '{"scores_chosen":[3,4],"scores_rejected":[0,0]}']
    tables = member_votes(pl.DataFrame({"pair_id": ["a", "b"], "extra": extra}))
    assert [table["reward_chosen"].to_list() for table in tables] == [[1, 3], [2, 4]]
    assert [table["reward_rejected"].to_list() for table in tables] == [[0, 0], [5, 0]]
    assert tables[0].dtypes == [pl.String, pl.Float32, pl.Float32, pl.Int16, pl.Boolean]


def test_pairs_without_lists_bring_no_votes():
    assert n_score_lists(pl.DataFrame({"pair_id": ["a"], "extra": ["{}"]})) == 0
    assert (
        n_score_lists(pl.DataFrame({"pair_id": [], "extra": []}, schema={"pair_id": pl.String, "extra": pl.String}))
        == 0
    )


def test_loading_says_that_votes_came_along_and_explaining_writes_nothing(data, tmp_path):
    run = tmp_path / "run"
    explained = CliRunner().invoke(app, ["load", str(data), "--explain", "--out", str(run)])
    assert explained.exit_code == 0
    assert "strength                 yes: chosen and rejected are lists of text turns" in explained.stdout
    assert not run.exists()
    loaded = CliRunner().invoke(app, ["load", str(data), "--out", str(run)])
    assert loaded.stdout == f"120 pairs on 120 prompts read as strength into {run}\n"
    assert "note: the scores of 10 models came with the data and are the votes" in loaded.stderr
    refused = CliRunner().invoke(app, ["load", str(data)])
    assert (refused.exit_code, refused.stderr) == (
        2, "error: load: no run folder; add --out RUN, or --explain to see which format matches\n"
    )  # fmt: skip

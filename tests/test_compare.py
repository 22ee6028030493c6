"""Policies side by side, and what they are worth; the run is left as it was."""

import json
import shutil

import polars as pl
import pytest
from fake_run import fake_run

from curate import pipeline
from curate.compare import effects
from curate.demo import TOPICS, sample
from curate.errors import CurateError
from curate.options import RetrainOptions
from curate.policy import decide as decide_pairs
from curate.policy import load_policy
from curate.run import Run, sha256_of


@pytest.fixture(scope="module")
def audited(tmp_path_factory) -> Run:
    """120 generated pairs, a sixth of them with their label planted wrong, audited with two members."""
    folder = tmp_path_factory.mktemp("compare")
    sample(120, 1 / 6, 0, TOPICS[:12])[0].write_ndjson(folder / "sample.jsonl")
    return pipeline.audit(folder / "sample.jsonl", folder / "run", members=2)


def hashes(run: Run) -> dict[str, str]:
    return {
        path.name: sha256_of(path) for path in sorted(run.path.iterdir()) if path.is_file() and path.name != ".lock"
    }


def test_effects_can_be_recounted():
    found = effects(pl.Series(["keep", "keep", "flip", "flip", "smooth"]), pl.Series([0.9, None, 0.5, 0.1, 0.6]))
    assert found["counts"] == {"keep": 2, "flip": 2, "drop": 0, "smooth": 1}
    assert found["shares"]["flip"] == 2 / 5
    assert found["wrong_kept"] == found["wrong_kept_share"] == pytest.approx(1 - 0.9)  # the tie has no label_prob
    assert found["wrong_flip_share"] == pytest.approx((0.5 + 0.1) / 2)
    nothing = effects(pl.Series(["drop"]), pl.Series([None], dtype=pl.Float64))
    assert nothing["wrong_kept"] is nothing["wrong_flip_share"] is None


def test_each_policy_is_counted_as_decide_would_and_the_run_is_untouched(audited, tmp_path):
    own = tmp_path / "my.yaml"
    own.write_text("rules:\n  - {where: strength_mean < 0, do: flip, reason: against}\n")
    before = hashes(audited)
    found = audited.compare(["auto", "secrets2-flip", str(own)])
    assert hashes(audited) == before
    assert list(found["policies"]) == ["auto", "secrets2-flip", str(own)]
    for name, entry in found["policies"].items():
        decided = decide_pairs(audited.read("pairs"), audited.read("checks"), audited.strength, load_policy(name))
        assert entry["counts"] == {action: (decided["action"] == action).sum() for action in entry["counts"]}
        assert sum(entry["counts"].values()) == found["n_pairs"] == 120
        assert "retrain" not in entry
    assert found["policies"]["auto"]["counts"] == audited.stage("decide")["facts"]["actions"]
    assert [pair["policies"] for pair in found["differing"]] == [
        ["auto", "secrets2-flip"], ["auto", str(own)], ["secrets2-flip", str(own)],
    ]  # fmt: skip
    assert audited.compare(["auto"])["differing"] == []


def test_with_retrain_raw_is_the_same_for_all_and_nothing_is_left(audited):
    before = hashes(audited)
    seen = []
    found = pipeline.compare(audited, ["auto", "secrets2-margin"], RetrainOptions(), lambda *step: seen.append(step[0]))
    auto, margin = (found["policies"][name]["retrain"] for name in ("auto", "secrets2-margin"))
    assert auto["raw"] == margin["raw"]
    assert auto["curated"]["nll"] != margin["curated"]["nll"]
    assert auto["difference"]["accuracy"]["low"] <= auto["difference"]["accuracy"]["value"]
    assert margin["margin_factor"] == 1.0  # raw margins are used as they are
    assert {"policies", "auto: train heads"} <= set(seen)
    assert hashes(audited) == before


def test_compare_and_curate_retrain_agree(audited, tmp_path):
    found = audited.compare(["auto"], retrain=True, seed=3)["policies"]["auto"]["retrain"]
    assert found == audited.retrain(tmp_path / "model", seed=3)


def test_the_command_shows_policies_side_by_side(audited, command):
    code, out, _ = command("compare", audited.path, "--policies", "auto,secrets2-flip,auto", "--retrain")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[1] == ["policy", "keep", "smooth", "flip", "drop", "wrong", "among", "kept", "wrong", "flips"]
    assert [line[0] for line in lines[2:4]] == ["auto", "secrets2-flip"]
    flipped = audited.compare(["secrets2-flip"])["policies"]["secrets2-flip"]["counts"]["flip"]
    assert lines[3][5] == str(flipped)
    assert "auto and secrets2-flip treat" in out
    assert "held-out pairs on" in out
    assert "95 % interval" in out
    code, out, _ = command("compare", audited.path, "--policies", "auto,select-easy", "--json")
    assert code == 0
    assert json.loads(out) == json.loads(json.dumps(audited.compare(["auto", "select-easy"])))


def test_what_cannot_be_compared_is_refused(audited, command, tmp_path):
    for policies, message in (
        ("", "no policy to compare: choose from auto"),
        ("auto,autos", "unknown policy 'autos'"),
        ("auto,none.yaml", "none.yaml: no such policy file"),
    ):
        code, _, err = command("compare", audited.path, "--policies", policies)
        assert (code, message in err) == (2, True), err
    with pytest.raises(CurateError, match="unknown option 'nope'"):
        audited.compare(["auto"], nope=1)
    early = fake_run(tmp_path / "early", stages=("load", "check"))
    with pytest.raises(CurateError, match="run first: curate strength"):
        early.compare(["auto"])


def test_decide_says_when_no_rule_fires(audited, command, tmp_path):
    shutil.copytree(audited.path, tmp_path / "run")
    own = tmp_path / "my.yaml"
    own.write_text("rules:\n  - {where: strength_mean < -999, do: drop, reason: never}\n")
    code, out, err = command("decide", tmp_path / "run", "--policy", own)
    assert code == 0
    assert "120 pairs" in out
    assert "warning: no rule of policy my holds for any of the 120 pairs" in err
    (rule,) = Run(tmp_path / "run").stage("decide")["facts"]["rules"]
    assert rule == {"where": "strength_mean < -999", "do": "drop", "reason": "never", "n_pairs": 0}

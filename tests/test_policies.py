"""What each policy would do is counted from the run's own tables; what it cannot serve is left out."""

from pathlib import Path

import polars as pl
from fake_run import N_PAIRS, fake_run, fake_verified_run

from reports.facts import facts, judged_pairs
from reports.policies import policies


def test_the_policy_that_decided_comes_first_with_its_own_counts(tmp_path: Path) -> None:
    made = facts(fake_run(tmp_path))
    own, *others = made["policies"]
    assert (own["name"], own["is_chosen"], own["counts"]) == ("auto", True, made["decisions"]["actions"])
    assert not any(row["is_chosen"] for row in others)
    for row in made["policies"]:
        assert sum(row["counts"].values()) == N_PAIRS


def test_presets_do_what_they_say(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    counts = {row["name"]: row["counts"] for row in policies(run, judged_pairs(run)) or []}
    assert counts["secrets2-flip"]["flip"] == 12  # the lowest 10 % of 120, percent_rank below .1
    assert counts["secrets2-margin"]["keep"] == N_PAIRS
    below = int((run.strength["strength_mean_raw"] < 0).sum())
    assert counts["secrets2-soft-margin"]["smooth"] == below
    assert counts["select-easy"]["drop"] == 23  # a fifth of 119, the tie aside


def test_policies_that_the_run_cannot_serve_are_left_out(tmp_path: Path) -> None:
    def names(run: object) -> set[str]:
        return {row["name"] for row in policies(run, judged_pairs(run)) or []}  # type: ignore[arg-type]

    assert "guaranteed" not in names(fake_run(tmp_path / "a"))
    assert "guaranteed" in names(fake_verified_run(tmp_path / "b"))
    run = fake_run(tmp_path / "c")
    run.strength.with_columns(label_prob=pl.lit(None, dtype=pl.Float64)).write_parquet(tmp_path / "c/strength.parquet")
    assert names(run) & {"select-easy", "guaranteed"} == set()


def test_a_run_without_decisions_compares_nothing(tmp_path: Path) -> None:
    run = fake_run(tmp_path, stages=("load", "vote", "strength"))
    assert policies(run, judged_pairs(run)) is None

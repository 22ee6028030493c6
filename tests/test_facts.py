"""The facts of a run can be recounted from its tables, and what was not computed is missing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from fake_run import HOSTILE, HOSTILE_CATEGORY, N_GROUPS, N_PAIRS, estimate, fake_pairs, fake_run

from reports.facts import FACTS_VERSION, N_POINTS, facts, histogram, lead_over_length, length_rule, scatter
from reports.numbers import interval
from reports.suspicious import text_limit
from reports.verdict import HEADLINES, judge, verdict


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return facts(fake_run(tmp_path_factory.mktemp("run")))


def judged(means: list[float], leads: list[float], **columns: Any) -> pl.DataFrame:
    n = len(means)
    return pl.DataFrame(
        {
            "pair_id": [f"p{i}" for i in range(n)],
            "group": [f"g{i}" for i in range(n)],
            "is_tie": [False] * n,
            "strength_mean": means,
            "strength_std": [1.0] * n,
            "length_lead": leads,
            "kind": ["normal"] * n,
            **columns,
        }
    )


def test_facts_are_versioned_json_without_nan(made: dict[str, Any]) -> None:
    assert made["facts_version"] == FACTS_VERSION
    assert json.loads(json.dumps(made, allow_nan=False)) == made


def test_data_is_counted_from_the_pairs(made: dict[str, Any]) -> None:
    data = made["data"]
    assert (data["n_pairs"], data["n_groups"], data["n_ties"]) == (N_PAIRS, N_GROUPS, 1)
    assert data["n_heldout_pairs"] == 4 * (N_PAIRS // N_GROUPS)
    assert data["sources"] == [{"name": "fake", "n_pairs": N_PAIRS}]


def test_every_pair_is_accounted_for(made: dict[str, Any]) -> None:
    decided = made["decisions"]
    assert sum(decided["actions"].values()) == N_PAIRS
    assert sum(row["n_pairs"] for row in decided["reasons"]) == N_PAIRS
    assert {"action": "keep", "reason": "tie", "n_pairs": 1} in decided["reasons"]
    assert sum(made["strength"]["kinds"].values()) == N_PAIRS
    assert sum(sum(counts) for counts in made["strength"]["histogram"]["counts"].values()) == N_PAIRS


def test_checks_carry_their_meaning_and_share(made: dict[str, Any]) -> None:
    assert made["checks"]["found"][1] == {
        "name": "length_ratio",
        "meaning": "One response is far longer.",
        "n_pairs": 12,
        "share": 12 / 120,
    }


def test_lead_over_length_is_the_difference_of_two_accuracies() -> None:
    lead = lead_over_length(judged(means=[1, 1, -1, 1], leads=[1, -1, -1, 1]))
    assert lead is not None
    assert lead["value"] == 3 / 4 - 2 / 4
    assert (lead["n_pairs"], lead["n_groups"]) == (4, 4)


def test_length_prefers_whichever_side_labels_prefer() -> None:
    lead = lead_over_length(judged(means=[1, 1, 1, -1], leads=[-1, -1, -1, 1]))  # the shorter one is always chosen ...
    assert lead is not None
    assert lead["value"] == 3 / 4 - 3 / 4  # ... but once, in the pair that the votes too are against
    assert length_rule(estimate(0.4, 0.3, 0.45))["prefers"] == "shorter"
    assert length_rule(estimate(0.4, 0.25, 0.45))["high"] == 0.75
    assert length_rule(estimate(0.6, 0.5, 0.7)) == {**estimate(0.6, 0.5, 0.7), "prefers": "longer"}


def test_lead_over_length_leaves_ties_out() -> None:
    lead = lead_over_length(judged(means=[1, 1, -1], leads=[-1, 1, 1], is_tie=[False, False, True]))
    assert lead is not None
    assert (lead["value"], lead["n_pairs"]) == (2 / 2 - 1 / 2, 2)


def test_histogram_counts_every_pair_and_splits_at_zero() -> None:
    made = histogram(judged(means=[-100.0, -0.001, 0.001, 0.2, 100.0], leads=[0] * 5))
    counts, edges = np.array(made["counts"]["normal"]), np.array(made["edges"])
    assert 0.0 in edges
    assert counts[edges[:-1] < 0].sum() == 2
    assert counts[edges[:-1] >= 0].sum() == 3


def test_scatter_is_a_sample_evenly_spaced_by_rank() -> None:
    n = 2 * N_POINTS + 1
    sample = scatter(judged(means=[float(i) for i in range(n)], leads=[0] * n))
    means = sample["points"]["normal"]["mean"]
    assert (sample["n_points"], sample["n_pairs"]) == (N_POINTS, n)
    assert (means[0], means[-1]) == (0, n - 1)
    assert set(np.diff(means)) <= {2.0, 3.0}


def test_suspicious_pairs_come_worst_first_and_without_ties(made: dict[str, Any]) -> None:
    rows = made["suspicious"]
    assert [row["pair_id"] for row in rows[: len(HOSTILE)]] == [f"fake:train:{i}" for i in range(len(HOSTILE))]
    assert all(row["strength_mean"] < 0 for row in rows)
    probs = [row["label_prob"] for row in rows]
    assert probs == sorted(probs)
    assert rows[0]["chosen"][0]["content"] == fake_pairs()["chosen"][0][0]["content"]


def test_long_texts_are_cut_to_the_budget_and_say_by_how_much(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    long = [{"role": "assistant", "content": "x" * 1_000_000}]
    replaced = run.read("pairs").with_columns(chosen=pl.Series([long] * N_PAIRS, dtype=fake_pairs().schema["chosen"]))
    replaced.write_parquet(tmp_path / "pairs.parquet")
    shown = facts(run)["suspicious"][0]["chosen"][0]
    assert len(shown["content"]) + shown["n_not_shown"] == 1_000_000
    assert len(json.dumps(facts(run)["suspicious"])) < 1_000_000
    assert text_limit(["short"] * 10) == 8000


def test_parts_are_measured_beside_the_length_null(made: dict[str, Any]) -> None:
    (way,) = made["slices"]
    assert way["by"] == "category"
    assert {part["name"]: part["n_pairs"] for part in way["parts"]} == {"blue": 60, HOSTILE_CATEGORY: 60}
    blue = next(part for part in way["parts"] if part["name"] == "blue")
    table = fake_run_table(made)
    assert blue["accuracy"]["n_pairs"] == 60
    assert blue["dropped_share"] == table["blue"]["drop"] / 60
    assert way["weak"] == [part["name"] for part in way["parts"] if part["accuracy"].get("low", 1) <= 0.5]


def fake_run_table(made: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Dropped pairs of the even rows, which are the blue ones, counted from the list of suspicious pairs."""
    dropped = [row for row in made["suspicious"] if row["action"] == "drop"]
    return {"blue": {"drop": sum(int(row["pair_id"].split(":")[-1]) % 2 == 0 for row in dropped)}}


def test_what_was_not_computed_is_missing(tmp_path: Path) -> None:
    made = facts(fake_run(tmp_path, stages=("load",)))
    assert {"checks", "ensemble", "strength", "decisions", "suspicious", "clear_errors", "agreement"} & set(
        made
    ) == set()
    assert made["verdict"] == {"level": "unvoted", "headline": HEADLINES["unvoted"], "sentences": []}
    assert "accuracy" not in made["slices"][0]["parts"][0]


def test_facts_survive_a_run_without_checks(tmp_path: Path) -> None:
    made = facts(fake_run(tmp_path, stages=("load", "vote", "strength")))
    assert "checks" not in made and "decisions" not in made
    assert "action" not in made["suspicious"][0]
    assert made["warnings"] == []


def test_in_sample_votes_are_no_evidence(tmp_path: Path) -> None:
    made = facts(fake_run(tmp_path, scoring="in-sample"))
    assert made["verdict"]["level"] == "unmeasured"
    assert not made["ensemble"]["is_out_of_fold"] and "lead_over_length" not in made["ensemble"]
    assert any("in-sample" in warning for warning in made["warnings"])
    assert "accuracy" not in made["slices"][0]["parts"][0]
    assert not any("72.0" in sentence for sentence in made["verdict"]["sentences"])


@pytest.mark.parametrize(
    ("accuracy", "lead", "level"),
    [
        (estimate(0.51, 0.49, 0.53), estimate(0.05, 0.02, 0.08), "weak"),
        (estimate(0.70, 0.66, 0.74), estimate(0.01, -0.02, 0.04), "weak"),
        (estimate(0.59, 0.57, 0.61), estimate(0.05, 0.02, 0.08), "limited"),
        (estimate(0.72, 0.66, 0.78), estimate(0.17, 0.10, 0.24), "useful"),
    ],
)
def test_the_judge_is_judged_beside_chance_and_length(accuracy: Any, lead: Any, level: str) -> None:
    ensemble = {"accuracy": accuracy, "lead_over_length": lead, "is_out_of_fold": True}
    assert judge(ensemble) == level
    words = " ".join([HEADLINES[level], *verdict({"ensemble": ensemble})["sentences"]])
    assert ("weak judge" in words) == (level == "weak")
    assert interval(accuracy) in words


def test_the_verdict_gives_the_numbers(made: dict[str, Any]) -> None:
    words = " ".join(made["verdict"]["sentences"])
    left = N_PAIRS - made["decisions"]["actions"]["drop"]
    for number in ("72.0", "66.0 to 78.0", "55.0", "3 members", "1.5 independent", f"{left} of 120 pairs"):
        assert number in words


def test_the_clear_pairs_are_never_called_the_noise_rate(made: dict[str, Any]) -> None:
    assert made["clear_errors"]["assumption"] == "errors do not depend on the pair"
    assert "noise rate" not in json.dumps(made)


def test_few_prompts_are_a_warning(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    few = run.read("pairs").with_columns(group=pl.lit("one"))
    few.write_parquet(tmp_path / "pairs.parquet")
    made = facts(run)
    assert any("come from 1 prompt" in warning for warning in made["warnings"])
    assert "low" not in made["slices"][0]["parts"][0]["accuracy"]

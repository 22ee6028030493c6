"""The facts of a run can be recounted from its tables, and what was not computed is missing."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fake_run import (
    ANNOTATOR_FACTS,
    CHECK_FACTS,
    GUARANTEE,
    HOSTILE,
    HOSTILE_CATEGORY,
    N_GROUPS,
    N_PAIRS,
    RULES,
    VERIFIED_FACTS,
    estimate,
    fake_old_run,
    fake_pairs,
    fake_run,
    fake_verified_run,
)

from curate.guarantee_words import guarantee_words
from curate.run import write_json
from reports.facts import FACTS_VERSION, facts, lead_over_length, length_rule, warnings
from reports.numbers import interval
from reports.verdict import HEADLINES, judge, verdict


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return facts(fake_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return facts(fake_verified_run(tmp_path_factory.mktemp("verified")))


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


def test_facts_are_versioned_json_without_nan(made: dict[str, Any], verified: dict[str, Any]) -> None:
    for found in (made, verified):
        assert found["facts_version"] == FACTS_VERSION
        assert json.loads(json.dumps(found, allow_nan=False)) == found


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


def test_checks_carry_their_meaning_and_share(made: dict[str, Any], tmp_path: Path) -> None:
    known = {"name": "length_ratio", "meaning": "One response is far longer.", "n_pairs": 12, "share": 12 / 120}
    assert made["checks"]["found"][1] == {**known, "severity": "note", "fix": "nothing"}
    assert facts(fake_old_run(tmp_path))["checks"]["found"][1] == known


def test_pairs_with_an_error_or_a_warning_are_counted_once(made: dict[str, Any], tmp_path: Path) -> None:
    assert made["checks"]["n_pairs_with"] == {"error": 1, "warning": 3 + 12}  # echo; refusal and cut_off
    sentence = "The checks, which need no judge, find an error in 1 (0.8 %) of the pairs and a warning in 15 (12.5 %)."
    assert sentence in plain(made["verdict"]["sentences"])
    assert "n_pairs_with" not in facts(fake_old_run(tmp_path))["checks"]


def test_findings_about_the_whole_data_are_told(made: dict[str, Any]) -> None:
    assert made["checks"]["biases"] == CHECK_FACTS["biases"]


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
    parts = {"checks", "ensemble", "strength", "decisions", "suspicious", "clear_errors", "agreement", "label_prob"}
    assert parts & set(made) == set()
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


def test_without_verified_pairs_there_is_no_noise_rate_and_no_guarantee(made: dict[str, Any]) -> None:
    assert not {"noise_rate", "annotators"} & set(made)
    assert "guarantee" not in made["decisions"] and "given_truth" not in made["ensemble"]
    assert "reliability" not in made["label_prob"]
    assert not any("verified" in row for row in made["suspicious"])
    assert not any("verified" in sentence for sentence in made["verdict"]["sentences"])


def plain(sentences: list[str]) -> str:
    return " ".join(sentences).replace("\u00a0", " ")


def test_verified_pairs_give_the_noise_rate_in_words_and_numbers(verified: dict[str, Any]) -> None:
    rate = verified["noise_rate"]
    assert (rate["value"], rate["low"], rate["high"], rate["n_wrong"]) == (0.139, 0.106, 0.178, 9)
    sentence = "13.9 % of the labels are wrong, 95 % interval 10.6 to 17.8 %, from 60 verified pairs."
    assert plain([rate["sentence"]]) == sentence
    assert sentence in plain(verified["verdict"]["sentences"])
    assert rate["n_unsure"] == 1


def test_reliability_is_that_of_the_stage(made: dict[str, Any], verified: dict[str, Any]) -> None:
    assert made["agreement"]["ece"] == {"value": 0.01, "low": 0.005, "high": 0.03}
    assert verified["label_prob"]["reliability"] == VERIFIED_FACTS["label_prob"]


@pytest.mark.parametrize(
    ("strength_facts", "sources", "words"),
    [
        ({}, ["formula"], ["For 119 pairs", "at a label error rate of 4.0 %", "assumes that errors do not depend"]),
        ({"verified": VERIFIED_FACTS}, ["verified"], ["logistic curve (Platt) over strength_mean", "60 verified"]),
        (
            {"verified": {**VERIFIED_FACTS, "fit": "isotonic"}, "annotators": ANNOTATOR_FACTS},
            ["verified"],
            ["For 119 pairs, label_prob is a rising curve (isotonic)"],
        ),
        (
            {"annotators": ANNOTATOR_FACTS | {"n_posterior": 119}},
            ["annotators"],
            ["For 119 pairs, label_prob is the posterior", "votes err independently"],
        ),
        (
            {"annotators": ANNOTATOR_FACTS},
            ["annotators", "formula"],
            ["the other 19 pairs, label_prob is computed", "errors do not depend on the pair"],
        ),
    ],
)
def test_what_made_label_prob_is_said_and_its_assumption_where_it_is_the_formula(
    strength_facts: dict[str, Any], sources: list[str], words: list[str], tmp_path: Path
) -> None:
    found = facts(fake_run(tmp_path, strength_facts=strength_facts))
    assert found["label_prob"]["sources"] == sources
    said = plain(found["label_prob"]["sentences"])
    assert all(word in said for word in words), said
    judge = {"accuracy": estimate(0.72, 0.66, 0.78), "is_out_of_fold": True}
    against = plain(verdict({**found, "ensemble": judge})["sentences"])
    assumed = "By label_prob" in against and "if label errors do not depend on the pair" in against
    assert assumed == ("formula" in sources)


def test_effective_votes_given_the_truth_stand_beside_the_lower_bound(verified: dict[str, Any]) -> None:
    assert verified["ensemble"]["effective_votes"] == 1.5
    given_truth = {"effective_votes": 2.25, "error_correlation": 0.17, "n_verified": 60}
    assert verified["ensemble"]["given_truth"] == given_truth
    assert "without these, the lower bound is 1.5" in plain(verified["verdict"]["sentences"])


def test_members_are_rows_and_sentences(made: dict[str, Any], verified: dict[str, Any]) -> None:
    assert [row["member"] for row in made["members"]["rows"]] == [0, 1, 2]
    assert made["members"]["rows"][1] == {"member": 1, "backbone": "minilm", "agreement": 0.71, "correlation": 1.1 / 2}
    assert plain(made["members"]["sentences"]) == (
        "3 members vote like 1.5 independent ones, at least. "
        "The votes took 6 linear heads of up to 841 weights, fitted to convergence. "
        "The same text in another batch got a reward that differed by at most 1.2 × 10⁻⁶; "
        "members differ by 0.34 on a typical pair (280,000 times that)."  # 0.34 / 1.2e-6 = 283,333
    )
    assert "like 2.2 independent ones, given the truth" in plain(verified["members"]["sentences"])


def test_an_old_run_has_members_without_the_new_facts(tmp_path: Path) -> None:
    made = facts(fake_old_run(tmp_path))
    assert set(made["members"]["rows"][0]) == {"member", "agreement", "correlation"}
    assert made["members"]["sentences"] == ["3 members vote like 1.5 independent ones, at least."]


def test_votes_that_depend_on_the_batch_are_a_warning(made: dict[str, Any], tmp_path: Path) -> None:
    moved = facts(fake_run(tmp_path, batch_tolerance=0.05))
    assert any("moved a reward by up to 0.05" in warning for warning in moved["warnings"])
    assert moved["members"]["warning"] in moved["warnings"]
    assert not any("moved a reward" in warning for warning in made["warnings"])


def test_rules_and_guarantee_are_those_of_the_decision(verified: dict[str, Any]) -> None:
    decided = verified["decisions"]
    assert decided["rules"] == RULES
    assert decided["guarantee"]["flips"] == GUARANTEE["flips"]
    assert decided["guarantee"]["sentences"] == guarantee_words(GUARANTEE, True)


def test_a_policy_that_asks_for_no_guarantee_gets_no_sentence(tmp_path: Path) -> None:
    run = fake_run(tmp_path, strength_facts={"verified": VERIFIED_FACTS}, guarantee=GUARANTEE)
    record = run.manifest["stages"]["decide"]
    record["facts"]["asks_guarantee"] = False
    run.update(stages={**run.manifest["stages"], "decide": record})
    guarantee = facts(run)["decisions"]["guarantee"]
    assert (guarantee["is_asked"], guarantee["sentences"]) == (False, [])


def test_warnings_of_every_stage_are_sentences(verified: dict[str, Any]) -> None:
    assert verified["warnings"] == [
        "The data is <mostly> not English.",
        "Every <verified> label is wrong.",
        "No rule <of> yours.",
    ]


def test_annotators_are_counted_and_what_is_unknown_is_missing(verified: dict[str, Any], tmp_path: Path) -> None:
    assert verified["annotators"]["n_reversed"] == 1
    assert "1 looks reversed and 0 look random; 2 have too few" in verified["annotators"]["sentence"]
    unknown = ANNOTATOR_FACTS | {"alpha": None, "agreement": None, "n_judged": 0, "n_reversed": 0, "doubtful": []}
    found = facts(fake_run(tmp_path, strength_facts={"annotators": unknown}))["annotators"]
    assert not {"alpha", "agreement"} & set(found)
    assert found["sentence"] == "None of 9 annotators cast votes enough to say who is in doubt."


def test_suspicious_pairs_say_what_a_person_found(verified: dict[str, Any]) -> None:
    answers = [row.get("verified") for row in verified["suspicious"][:4]]
    assert answers == ["unsure", None, "wrong", None]


def test_few_prompts_are_a_warning(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    few = run.read("pairs").with_columns(group=pl.lit("one"))
    few.write_parquet(tmp_path / "pairs.parquet")
    made = facts(run)
    assert any("come from 1 prompt" in warning for warning in made["warnings"])
    assert "low" not in made["slices"][0]["parts"][0]["accuracy"]


def test_recurring_responses_are_pointed_out_only_with_folds_by_prompt(tmp_path: Path) -> None:
    made = {}
    for name, share in (("many", 0.9), ("few", 0.1)):
        run = fake_run(tmp_path / name, recurring_share=share)
        manifest = run.manifest
        manifest["stages"]["vote"]["options"]["folds_by"] = "prompt"
        write_json(manifest, run.manifest_path)
        made[name] = warnings(run, fake_pairs())
    assert any("--folds-by pair" in warning for warning in made["many"])
    assert not any("--folds-by pair" in warning for warning in made["few"])


@pytest.mark.parametrize(("n_errors", "level"), [(10, "useful"), (11, "limited")])
def test_many_errors_of_the_checks_are_in_the_headline(n_errors: int, level: str) -> None:
    estimate = {"value": 0.8, "low": 0.78, "high": 0.82, "n_pairs": 100, "n_groups": 100}
    checks = {"n_pairs_with": {"error": n_errors, "warning": 0}}
    found = verdict({"ensemble": {"accuracy": estimate}, "checks": checks, "data": {"n_pairs": 100}})
    assert found["level"] == level
    said = "the checks find an error in 11.0 % of the pairs" in plain([found["headline"]])
    assert said == (level == "limited")

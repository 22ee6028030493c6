import json
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tiny_models import LETTERS, good_answers, write_encoder

from curate.errors import CurateError
from curate.intervals import FEWEST_GROUPS
from curate.pairs import PAIR_SCHEMA
from rm_ensemble import artefact
from rm_ensemble.batches import unique_texts
from rm_ensemble.classifier import new_classifier
from rm_ensemble.evaluate import METRICS, compare, evaluate_scores, metrics, nulls

BINARY = float("nan")


def pair_table(lengths: list[tuple[int, int]], label_strength: list[float | None] | None = None) -> pl.DataFrame:
    """One pair per prompt whose responses have the given numbers of characters."""
    strengths = label_strength or [None] * len(lengths)
    rows = [
        {
            "pair_id": f"t:train:{row}",
            "prompt": [{"role": "user", "content": f"q{row}"}],
            "chosen": [{"role": "assistant", "content": "c" * chosen}],
            "rejected": [{"role": "assistant", "content": "r" * rejected}],
            "group": f"g{row}",
            "is_heldout": True,
            "label_strength": strength,
        }
        for row, ((chosen, rejected), strength) in enumerate(zip(lengths, strengths, strict=True))
    ]
    return pl.DataFrame(rows, schema=PAIR_SCHEMA)


def test_values_can_be_counted_by_hand() -> None:
    difference = [math.log(3), -math.log(3), 0.0, math.log(3)]  # sigma = 3/4, 1/4, 1/2, 3/4
    found = metrics(difference, ["a", "a", "b", "c"], [BINARY, 1.0, 1.0, 1.0])
    assert found["accuracy"]["value"] == 2.5 / 4
    assert found["margin"]["value"] == pytest.approx(math.log(3) / 4)
    assert found["nll"]["value"] == pytest.approx(-(2 * math.log(3 / 4) + math.log(1 / 4) + math.log(1 / 2)) / 4)
    # one bin at confidence 3/4 (3 pairs, 2 right): gap 3 * 3/4 - 2; one at 1/2 (a tie, half right): gap 0
    assert found["ece"]["value"] == pytest.approx((3 * 3 / 4 - 2) / 4)
    assert (found["n_pairs"], found["n_groups"], found["n_reward_ties"], found["n_label_ties"]) == (4, 3, 1, 0)


def test_a_calibrated_model_has_no_calibration_error() -> None:
    """3 of 4 right at confidence 3/4, and graded labels of 3/4 at the same confidence."""
    difference = [math.log(3)] * 3 + [-math.log(3)]
    assert metrics(difference, list("abcd"), [BINARY] * 4)["ece"]["value"] == pytest.approx(0)
    assert metrics([math.log(3)] * 2, list("ab"), [0.75] * 2)["ece"]["value"] == pytest.approx(0)


def test_graded_labels_cost_their_soft_cross_entropy() -> None:
    found = metrics([math.log(3)], ["a"], [0.75])
    assert found["nll"]["value"] == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert found["accuracy"]["value"] == 1


def test_tied_labels_are_left_out_and_counted() -> None:
    found = metrics([1.0, -5.0], ["a", "b"], [1.0, 0.5])
    assert (found["accuracy"]["value"], found["n_pairs"], found["n_label_ties"]) == (1.0, 1, 1)
    with pytest.raises(CurateError, match="2 pairs, and no label among them prefers a side"):
        metrics([1.0, -5.0], ["a", "b"], [0.5, 0.5])


def test_swapping_every_label_mirrors_accuracy_and_margin() -> None:
    difference = np.random.default_rng(0).normal(size=50)
    found, mirrored = (metrics(sign * difference, np.arange(50), np.full(50, BINARY)) for sign in (1, -1))
    assert found["accuracy"]["value"] == pytest.approx(1 - mirrored["accuracy"]["value"])
    assert found["margin"]["value"] == pytest.approx(-mirrored["margin"]["value"])


def test_the_interval_holds_whole_groups_together() -> None:
    """400 pairs that are 40 prompts repeated 10 times know no more than 40 pairs."""
    difference = np.random.default_rng(1).normal(size=40)
    once = metrics(difference, np.arange(40), np.full(40, BINARY))
    repeated = metrics(np.repeat(difference, 10), np.repeat(np.arange(40), 10), np.full(400, BINARY))
    as_if_independent = metrics(np.repeat(difference, 10), np.arange(400), np.full(400, BINARY))
    assert repeated["accuracy"] == pytest.approx(once["accuracy"])
    width = as_if_independent["accuracy"]["high"] - as_if_independent["accuracy"]["low"]
    assert width < 0.5 * (repeated["accuracy"]["high"] - repeated["accuracy"]["low"])


def test_the_interval_is_the_textbook_one_for_independent_pairs() -> None:
    difference = np.where(np.arange(1000) < 700, 1.0, -1.0)
    found = metrics(difference, np.arange(1000), np.full(1000, BINARY))["accuracy"]
    half_width = 1.96 * math.sqrt(0.7 * 0.3 / 1000)
    assert (found["low"], found["high"]) == pytest.approx((0.7 - half_width, 0.7 + half_width), abs=0.003)


def test_few_groups_are_noted_and_one_group_has_no_interval() -> None:
    few = metrics(np.ones(FEWEST_GROUPS - 1), np.arange(FEWEST_GROUPS - 1), np.ones(FEWEST_GROUPS - 1))
    assert few["note"] == "only 19 prompt groups: the intervals are too narrow"
    assert metrics(np.ones(FEWEST_GROUPS), np.arange(FEWEST_GROUPS), np.ones(FEWEST_GROUPS))["note"] is None
    assert metrics([1.0, -1.0], ["a", "a"], [1.0, 1.0])["accuracy"] == {"value": 0.5, "low": None, "high": None}


def test_a_model_compared_with_itself_gains_nothing() -> None:
    difference = np.random.default_rng(2).normal(size=60)
    found = compare(difference, difference, np.arange(60), np.full(60, BINARY))
    assert all(found[name] == {"value": 0.0, "low": 0.0, "high": 0.0} for name in METRICS)


def test_pairing_narrows_the_interval_of_the_difference() -> None:
    generator = np.random.default_rng(3)
    raw = generator.normal(0.3, 1, size=400)
    curated = raw + generator.normal(0.1, 0.1, size=400)
    groups, labels = np.arange(400), np.full(400, BINARY)
    paired, alone = compare(curated, raw, groups, labels)["margin"], metrics(curated, groups, labels)["margin"]
    assert paired["value"] == pytest.approx((curated - raw).mean())
    assert paired["low"] > 0
    assert paired["high"] - paired["low"] < 0.2 * (alone["high"] - alone["low"])


def test_more_groups_than_cells_are_bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    difference = np.random.default_rng(4).normal(size=3000)
    whole = metrics(difference, np.arange(3000), np.full(3000, BINARY))
    monkeypatch.setattr("rm_ensemble.evaluate.MAX_CELLS", 500)
    bundled = metrics(difference, np.arange(3000), np.full(3000, BINARY))
    assert bundled["n_groups"] == 3000
    assert bundled["accuracy"] == pytest.approx(whole["accuracy"], abs=0.005)


def test_extreme_differences_stay_finite() -> None:
    found = metrics([1e4, -1e4], ["a", "b"], [1.0, 1.0])
    assert found["nll"]["value"] == pytest.approx(1e4 / 2)
    assert found["ece"]["value"] == pytest.approx(0.5)


def test_length_nulls_count_equal_lengths_half() -> None:
    found = nulls(pair_table([(9, 1), (1, 9), (9, 1), (5, 5)]))
    assert found["longer"]["accuracy"]["value"] == 2.5 / 4
    assert found["shorter"]["accuracy"]["value"] == 1.5 / 4
    assert found["random"]["accuracy"]["value"] == 0.5


def test_evaluation_joins_scores_and_labels() -> None:
    pairs = pair_table([(9, 1), (1, 9), (1, 9)], [1.0, None, 0.5])
    scores = pairs.select("pair_id").with_columns(
        reward_chosen=pl.Series([1.0, 0.0, 1.0]), reward_rejected=pl.Series([0.0, 1.0, 1.0])
    )
    found = evaluate_scores(pairs, scores)
    assert (found["accuracy"]["value"], found["n_label_ties"]) == (0.5, 1)
    assert found["nulls"]["longer"]["accuracy"]["value"] == 0.5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    made = new_classifier(write_encoder(root / "backbone"), max_tokens=48, seed=0)
    artefact.save(made, root / "rm", unique_texts(good_answers(4))[0])
    return root / "rm"


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """All six pairs of four responses on each of six prompts, of two subsets; the first pair of a prompt is a tie."""
    answers = ["a good", "b bad good", "c", "d bad bad bad"]
    rows = [
        {
            "prompt": f"what is {letter}",
            "response_a": answers[first],
            "response_b": answers[second],
            "label": 0.5 if (first, second) == (0, 1) else 1.0,
            "subset": "mt-bench-easy" if letter < "c" else "hep-cpp",
            "meta": {"domain": letter},
        }
        for letter in LETTERS[:6]
        for first, second in combinations(range(4), 2)
    ]
    (tmp_path / "lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "lists.jsonl"


def test_the_command_gives_everything_as_json(model: Path, lists: Path, command: Any) -> None:
    code, out, err = command("evaluate", model, lists, "--by", "domain", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["n_pairs"], found["n_label_ties"]) == (30, 6)
    assert {name: len(slices) for name, slices in found["slices"].items()} == {"subset": 2, "domain": 6, "length": 3}
    easy, code_ = found["slices"]["subset"]["mt-bench-easy"], found["slices"]["subset"]["hep-cpp"]
    assert (easy["n_pairs"], easy["n_groups"], code_["n_pairs"]) == (10, 2, 20)
    assert set(found["subsets"]) == {"mean over subsets", "Chat", "Reasoning"}
    mean = (easy["accuracy"]["value"] + code_["accuracy"]["value"]) / 2
    assert found["subsets"]["mean over subsets"]["value"] == pytest.approx(mean)
    assert found["subsets"]["Chat"]["value"] == pytest.approx(easy["accuracy"]["value"])
    assert [(row["n"], row["n_prompts"]) for row in found["best_of_n"]] == [(1, 6), (2, 6), (4, 6)]
    # shares of comparisons won: 2.5, 2.5, 1 and 0 of 3
    assert found["best_of_n"][0]["random"]["value"] == pytest.approx(6 / 3 / 4)
    assert found["best_of_n"][2]["oracle"]["value"] == pytest.approx(2.5 / 3)
    assert found["best_of_n"][2]["longest"]["value"] == 0


def test_the_terminal_shows_slices_subsets_and_best_of_n(model: Path, lists: Path, command: Any) -> None:
    code, out, err = command("evaluate", model, lists, "--by", "domain")
    assert code == 0, err
    lines = [" ".join(line.split()) for line in out.splitlines()]
    for header in ("subset", "domain", "length"):
        assert f"accuracy by {header} pairs prompts value 95 % interval longer wins" in lines
    assert any(line.startswith("mt-bench-easy 10 2 ") for line in lines)
    assert any(line.startswith("Chat 10 ") for line in lines)
    assert any(line.startswith("1 6 0.500 [0.500, 0.500] +0.000 [+0.000, +0.000] 0.500") for line in lines)
    assert lines[-2:] == [
        "0 equal rewards count half; 6 tied labels are left out",
        "only 6 prompt groups: the intervals are too narrow",
    ]


def test_pairs_alone_have_no_best_of_n(model: Path, tmp_path: Path, command: Any) -> None:
    rows = [{"prompt": f"what is {letter}", "chosen": "a good", "rejected": "b"} for letter in LETTERS]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = command("evaluate", model, tmp_path / "pairs.jsonl", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["best_of_n"], found["subsets"], list(found["slices"])) == ([], None, ["length"])
    assert "best of n" not in command("evaluate", model, tmp_path / "pairs.jsonl")[1]


def test_an_unknown_slice_is_refused_before_anything_is_scored(lists: Path, tmp_path: Path, command: Any) -> None:
    code, _, err = command("evaluate", tmp_path / "nowhere", lists, "--by", "topic")
    assert code == 2
    has = "meta, position_chosen, subset (and what is in its meta)"
    assert err == f"error: --by topic: no pair has that column; the first has {has}\n"

import json

import numpy as np
import polars as pl
import pytest
from test_checks_planted import lengths

from curate.check_bias import bias_findings, metadata_paths, predicted
from curate.check_columns import own_scores
from curate.checks import check_table
from curate.options import CheckOptions


def findings(pairs):
    return {
        finding["name"]: finding
        for finding in bias_findings(check_table(pairs, lengths(pairs), CheckOptions(near=False)))
    }


def rows(n, chosen, rejected):
    return [(f"Question number {i}?", chosen, rejected) for i in range(n)]


def test_length_bias_counts_longer_responses_and_half_of_equal_ones(make_pairs):
    pairs = make_pairs(*rows(30, "longer", "short"), *rows(10, "short", "longer"), *rows(20, "same", "size"))
    found = findings(pairs)["length_bias"]
    assert found["value"] == pytest.approx((30 + 20 / 2) / 60)
    assert (found["null"], found["n_pairs"], found["n_groups"]) == (0.5, 60, 30)
    assert found["low"] < found["value"] < found["high"]


def test_ties_have_no_preference_and_few_pairs_no_finding(make_pairs):
    pairs = make_pairs(*rows(40, "longer", "short"), label_strength=[0.5] * 10 + [None] * 30)
    assert findings(pairs)["length_bias"]["n_pairs"] == 30
    pairs = make_pairs(*rows(40, "longer", "short"), label_strength=[0.5] * 11 + [None] * 29)
    assert findings(pairs) == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list_bias", "Two things:\n- one\n- two"),
        ("list_bias", "Two things:\n1. one\n2) two"),
        ("bold_bias", "This is **bold** text"),
        ("bold_bias", "# A heading\ntext"),
        ("code_bias", "Code:\n```\nx = 1\n```"),
        ("refusal_bias", "I cannot help you with that."),
    ],
)
def test_format_bias_counts_only_pairs_in_which_one_side_has_it(make_pairs, name, text):
    both_or_none = [*rows(9, text, text + " Too."), *rows(9, "Plain.", "Text.")]
    pairs = make_pairs(*rows(30, text, "Plain."), *rows(10, "Plain.", text), *both_or_none)
    found = findings(pairs)[name]
    assert (found["value"], found["n_pairs"]) == (30 / 40, 40)


def test_a_clear_bias_is_a_warning_either_way(make_pairs):
    text = "Two things:\n- one\n- two"
    assert findings(make_pairs(*rows(40, text, "Plain.")))["list_bias"]["severity"] == "warning"
    assert findings(make_pairs(*rows(40, "Plain.", text)))["list_bias"]["severity"] == "warning"
    even = make_pairs(*rows(40, "Plain.", text), *rows(40, text, "Plain."))
    assert findings(even)["list_bias"]["severity"] == "none"


def test_a_clear_bias_on_few_prompts_is_a_note_because_its_interval_is_too_narrow(make_pairs):
    longer = [("One prompt?", f"A longer answer {i}.", f"Short {i}.") for i in range(28)]
    shorter = [("One prompt?", f"Short {i}.", f"A longer answer {i}.") for i in range(28, 40)]
    found = findings(make_pairs(*longer, *shorter))["length_bias"]
    assert (found["value"], found["low"], found["high"], found["n_groups"]) == (0.7, 0.7, 0.7, 1)
    assert (found["is_too_narrow"], found["severity"]) == (True, "note")
    votes = {"votes": [[1.0, 0.0]] * 40, "annotators": [["ann", "bob"]] * 40}
    found = findings(make_pairs(*longer, *shorter, **votes))["annotator_agreement"]
    assert (found["is_too_narrow"], found["severity"]) == (True, "note")


def test_position_bias_needs_a_known_order(make_pairs):
    extra = [json.dumps({"position_chosen": "a"})] * 36 + [json.dumps({"position_chosen": "b"})] * 4
    found = findings(make_pairs(*rows(40, "Yes.", "No."), extra=extra))["position_bias"]
    assert (found["value"], found["severity"]) == (0.9, "warning")
    assert "position_bias" not in findings(make_pairs(*rows(40, "Yes.", "No.")))


def test_a_model_that_always_wins_is_a_shortcut_and_a_random_one_is_not(make_pairs):
    models = [("good", "bad") if i % 10 else ("bad", "good") for i in range(100)]
    coins = np.random.default_rng(0).choice(["x", "y"], (100, 2))
    extra = [
        json.dumps(
            {"chosen_model": c, "rejected_model": r, "meta": {"coin_chosen": x, "coin_rejected": y}, "id": f"q{i}"}
        )
        for i, ((c, r), (x, y)) in enumerate(zip(models, coins.tolist(), strict=True))
    ]
    found = findings(make_pairs(*rows(100, "Yes.", "No."), extra=extra))
    assert found["model_shortcut"]["value"] == 0.9
    assert found["model_shortcut"]["severity"] == "warning"
    assert found["coin_shortcut"]["low"] < 0.5 < found["coin_shortcut"]["high"]
    assert found["coin_shortcut"]["severity"] == "none"
    assert not any(name.startswith("id") for name in found)


def test_a_model_on_either_side_is_found_through_the_label(make_pairs):
    positions = ["a" if i % 2 else "b" for i in range(60)]
    models = [{"model_a": "good" if i % 2 else "bad", "model_b": "bad" if i % 2 else "good"} for i in range(60)]
    extra = [json.dumps({"position_chosen": p, "meta": m}) for p, m in zip(positions, models, strict=True)]
    found = findings(make_pairs(*rows(60, "Yes.", "No."), extra=extra))
    assert found["model_shortcut"]["value"] == 1.0  # the good one is chosen, wherever it stands
    assert found["position_bias"]["value"] == 0.5
    assert not any("position_chosen" in name for name in found)


def test_a_category_in_which_one_place_wins_is_a_shortcut(make_pairs):
    extra = [json.dumps({"position_chosen": "ab"[i % 2], "category": ["code", "chat"][i % 2]}) for i in range(60)]
    found = findings(make_pairs(*rows(60, "Yes.", "No."), extra=extra))
    assert found["category_shortcut"]["value"] == 1.0


def test_predictions_come_from_the_other_folds_only():
    chosen, rejected = np.array(["a", "b", "b"]), np.array(["b", "a", "a"])
    assert predicted(chosen, rejected, np.array([0, 1, 1])).tolist() == [0.0, 0.0, 0.0]
    assert predicted(chosen, rejected, np.array([0, 0, 0])).tolist() == [0.5, 0.5, 0.5]  # nothing to learn from


def test_annotators_who_agree_and_who_toss_coins(make_pairs):
    names = [["ann", "bob"]] * 40
    agreed = make_pairs(*rows(40, "Yes.", "No."), votes=[[1.0, 1.0]] * 40, annotators=names)
    found = findings(agreed)["annotator_agreement"]
    assert (found["value"], found["null"], found["severity"]) == (1.0, 0.0, "none")
    coins = np.random.default_rng(0).choice([0.0, 1.0], (400, 2)).tolist()
    tossed = make_pairs(*rows(400, "Yes.", "No."), votes=coins, annotators=[["ann", "bob"]] * 400)
    found = findings(tossed)["annotator_agreement"]
    assert found["low"] < 0 < found["high"]
    assert found["severity"] == "warning"


def test_scores_are_read_under_every_name_and_missing_ones_are_null():
    extra = [
        '{"score_chosen":1,"score_rejected":"2"}',
        '{"rating_chosen":3,"rating_rejected":null}',
        '{"chosen_score":[1]}',
        "{}",
    ]
    assert own_scores(pl.DataFrame({"extra": extra})).rows() == [(1.0, 2.0), (3.0, None), (None, None), (None, None)]
    assert own_scores(pl.DataFrame({"extra": ["{}"]})).rows() == [(None, None)]


def test_scores_of_two_places_are_turned_by_the_label():
    extra = [
        '{"position_chosen":"b","score_a":5,"score_b":1}',
        '{"position_chosen":"a","rating_a":5,"rating_b":1}',
        '{"score_a":5,"score_b":1}',  # nobody says which of the two was chosen
        '{"position_chosen":"b","score_a":5,"score_b":1,"score_chosen":3,"score_rejected":2}',
    ]
    assert own_scores(pl.DataFrame({"extra": extra})).rows() == [(1.0, 5.0), (5.0, 1.0), (None, None), (3.0, 2.0)]


def test_metadata_of_strange_shape_is_left_out():
    assert metadata_paths(['{"meta":["x"],"a\\"b":"x","n":1}', '{"meta":null,"late":"y"}']) == {"late": '$["late"]'}


def test_biases_of_real_data(data_folder):
    from curate.formats import LoadOptions, read_pairs

    pairs = read_pairs(data_folder / "alpaca_bon_gpt4turbo.jsonl.gz", LoadOptions()).pairs
    found = findings(pairs)
    assert found["list_bias"]["severity"] == "warning"
    assert found["length_bias"]["value"] == pytest.approx(0.619, abs=0.001)
    assert found["length_bias"]["low"] > 0.59

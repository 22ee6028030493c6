import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import CurateError
from rm_ensemble.evaluate import metrics
from rm_ensemble.slices import (
    COLUMNS,
    REWARDBENCH,
    Slicing,
    by_column,
    by_length,
    slice_metrics,
    slicings,
    subset_means,
    subset_weights,
    weighted_accuracy,
)


def scores(differences):
    rewards = {"reward_chosen": differences, "reward_rejected": [0.0] * len(differences)}
    return pl.DataFrame(rewards, schema_overrides=dict.fromkeys(rewards, pl.Float64))


def with_extra(make_pairs, *extra, **columns):
    """One pair per extra, each of its own prompt, whose chosen response is one character longer."""
    rows = [(f"q{row}", "aa", "b") for row in range(len(extra))]
    return make_pairs(*rows, extra=[json.dumps(value) for value in extra], **columns)


def test_slices_come_from_the_top_of_a_row_or_from_its_meta(make_pairs):
    pairs = with_extra(make_pairs, {"source": "x", "meta": {"category": "one"}}, {"source": "x", "category": "two"}, {})
    found = slicings(pairs, None)
    assert list(found) == ["source", "category", "length"]
    assert found["category"].names == ["(none)", "one", "two"]
    assert found["category"].of_pair.tolist() == [1, 2, 0]
    assert found["source"].of_pair.tolist() == [1, 1, 0]


def test_a_column_that_is_equal_everywhere_slices_only_when_asked_for(make_pairs):
    pairs = with_extra(make_pairs, {"category": "one", "turns": 1}, {"category": "one", "turns": 2})
    assert list(slicings(pairs)) == ["length"]
    assert list(slicings(pairs, "category")) == ["category", "length"]
    assert slicings(pairs, "turns")["turns"].names == ["1", "2"]


@pytest.mark.parametrize("name", ["a b", "it's", "a.b", "$", "é", "x]", "*", "domain,a"])
def test_a_column_may_have_any_name(make_pairs, name):
    assert slicings(with_extra(make_pairs, {name: "v", "a": "n"}, {name: "w"}), name)[name].names == ["v", "w"]


def test_a_name_that_cannot_be_looked_up_is_refused(make_pairs):
    with pytest.raises(CurateError, match='--by say "x": a name with a double quote cannot be looked up; rename'):
        slicings(with_extra(make_pairs, {'say "x"': "v"}, {}), 'say "x"')


def test_a_column_that_is_not_there_is_refused_with_those_that_are(make_pairs):
    pairs = with_extra(make_pairs, {"domain": "a", "meta": {}}, {"domain": "b"})
    with pytest.raises(CurateError, match=r"--by topic: no pair has that column; the first has domain, meta \("):
        slicings(pairs, "topic")


def test_a_column_of_too_many_values_is_refused_or_left_out(make_pairs):
    pairs = with_extra(make_pairs, *({"category": row, "domain": row} for row in range(101)))
    assert list(slicings(pairs)) == ["length"]
    with pytest.raises(CurateError, match="--by domain: 101 values; choose a column with at most 100"):
        slicings(pairs, "domain")


def test_lengths_make_three_parts(make_pairs):
    pairs = make_pairs(*(("q", "x" * (n + 1), "y" * (n - 1)) for n in range(1, 31)))
    slicing = by_length(pairs)
    assert np.bincount(slicing.of_pair).tolist() == [10, 10, 10]
    assert slicing.names == ["up to 11 characters", "up to 20", "over 20"]
    equal = by_length(make_pairs(*(("q", "x", "y"),) * 5))
    assert equal.of_pair.tolist() == [0] * 5


def test_each_slice_holds_the_metrics_of_its_pairs_and_the_length_null(make_pairs):
    pairs = with_extra(make_pairs, *({"category": name} for name in "aabbb"), label_strength=[None, 1, None, 0.8, 0.5])
    pairs = pairs.with_columns(
        chosen=pl.when(pl.col("pair_id") == "toy:train:2").then("rejected").otherwise("chosen"),
        rejected=pl.when(pl.col("pair_id") == "toy:train:2").then("chosen").otherwise("rejected"),
    )
    differences = [1.0, -1.0, 2.0, 0.0, 3.0]
    found = slice_metrics(pairs, scores(differences), by_column(pairs, "category"))
    assert found["a"]["accuracy"]["value"] == 1 / 2
    assert found["b"]["accuracy"]["value"] == 1.5 / 2  # equal rewards count half, a tied label not at all
    assert (found["b"]["n_pairs"], found["b"]["n_reward_ties"], found["b"]["n_label_ties"]) == (2, 1, 1)
    assert (found["a"]["longer"]["value"], found["b"]["longer"]["value"]) == (1, 1 / 2)
    alone = metrics(differences[:2], pairs["group"][:2].to_numpy(), np.array([np.nan, 1.0]))
    assert {name: found["a"][name] for name in alone} == alone


def test_a_slice_of_ties_alone_has_no_row(make_pairs):
    pairs = with_extra(make_pairs, {"category": "a"}, {"category": "tied"}, label_strength=[1, 0.5])
    assert list(slice_metrics(pairs, scores([1.0, 1.0]), by_column(pairs, "category"))) == ["a"]


def test_the_slices_of_a_column_add_up_to_the_whole(make_pairs):
    generator = np.random.default_rng(0)
    pairs = with_extra(make_pairs, *({"category": int(c)} for c in generator.integers(0, 4, size=60)))
    differences = generator.normal(size=60).tolist()
    found = slice_metrics(pairs, scores(differences), by_column(pairs, "category"))
    whole = metrics(differences, pairs["group"].to_numpy(), np.full(60, np.nan))["accuracy"]["value"]
    assert sum(part["n_pairs"] for part in found.values()) == 60
    assert sum(part["n_pairs"] * part["accuracy"]["value"] for part in found.values()) / 60 == pytest.approx(whole)


def test_the_mean_over_subsets_weighs_them_equally(make_pairs):
    pairs = with_extra(
        make_pairs, *({"subset": name} for name in "aaab"), {"subset": "tied"}, label_strength=[1] * 4 + [0.5]
    )
    found = subset_means(pairs, scores([1.0, 1.0, -1.0, -1.0, 1.0]), by_column(pairs, "subset"))
    assert list(found) == ["mean over subsets"]
    assert found["mean over subsets"]["value"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["mean over subsets"]["n_pairs"] == 4


def test_rewardbench_sections_weigh_subsets_by_their_examples(make_pairs):
    subsets = ["mt-bench-easy", "mt-bench-easy", "mt-bench-med", "math-prm", "hep-cpp", "other"]
    pairs = with_extra(make_pairs, *({"subset": name} for name in subsets))
    found = subset_means(pairs, scores([1.0, -1.0, 1.0, 1.0, -1.0, 1.0]), by_column(pairs, "subset"))
    assert list(found) == ["mean over subsets", "Chat", "Reasoning"]
    assert found["Chat"]["value"] == pytest.approx((28 * 1 / 2 + 40 * 1) / (28 + 40))
    assert found["Reasoning"]["value"] == pytest.approx(984 / (984 + 164))
    assert found["Reasoning"]["n_pairs"] == 2


def test_the_score_is_the_mean_of_all_four_sections(make_pairs):
    subsets = [name for section in REWARDBENCH.values() for name in section]
    pairs = with_extra(make_pairs, *({"subset": name} for name in subsets))
    differences = [1.0 if name.startswith(("mt", "hep", "refusals")) else -1.0 for name in subsets]
    found = subset_means(pairs, scores(differences), by_column(pairs, "subset"))
    by_section = [68 / 358, 37 / 456, 200 / 740, 984 / 1968]
    assert [found[section]["value"] for section in REWARDBENCH] == pytest.approx(by_section)
    assert found["RewardBench score"]["value"] == pytest.approx(sum(by_section) / 4)
    assert len(subsets) == 23


@given(st.dictionaries(st.sampled_from(list(REWARDBENCH["Safety"])), st.integers(1, 9), min_size=1))
def test_section_weights_are_shares(n_pairs):
    assert sum(subset_weights(list(n_pairs))["Safety"].values()) == pytest.approx(1)


def test_the_weighted_interval_is_that_of_the_groups():
    correct = (np.arange(400) % 4 > 0).astype(float)
    alone = weighted_accuracy(correct, np.full(400, 3.0), np.arange(400))
    half_width = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert (alone["low"], alone["high"]) == pytest.approx((0.75 - half_width, 0.75 + half_width), abs=0.01)
    assert weighted_accuracy(correct, np.ones(400), np.arange(400) % 4)["low"] < alone["low"] - 0.1
    assert weighted_accuracy(correct, np.ones(400), np.zeros(400))["low"] is None


def test_real_slices_show_that_harmless_answers_are_shorter(data_folder):
    from curate.formats import LoadOptions, read_pairs

    pairs = read_pairs(data_folder / "hh_rlhf_test.jsonl.gz", LoadOptions(heldout_share=0.0)).pairs
    found = slicings(pairs)
    assert list(found) == ["category", "length"]  # one source
    assert found["category"].names == ["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"]
    sliced = slice_metrics(pairs, scores([1.0] * len(pairs)), found["category"])
    assert sliced["harmless-base"]["n_pairs"] == 2312
    assert sliced["harmless-base"]["longer"]["high"] < 0.5 < sliced["helpful-base"]["longer"]["low"]
    assert isinstance(found["category"], Slicing)
    assert set(found) - set(COLUMNS) == {"length"}

from itertools import combinations
from math import comb

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.formats import LoadOptions, read_pairs
from rm_ensemble.best_of_n import best_of_n, expected_grade, first_chance, graded_responses, pair_grades

ROWS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=3, max_size=7)


def by_brute_force(reward, grade, n):
    """The mean over all subsets of n of the mean grade of those with the subset's highest reward."""
    picked = []
    for subset in combinations(range(len(reward)), n):
        best = max(reward[i] for i in subset)
        picked.append(np.mean([grade[i] for i in subset if reward[i] == best]))
    return np.mean(picked)


def table(lists, reward, grade, length=None):
    """A graded table in which every list is a prompt group of its own."""
    columns = {"list": lists, "group": [f"g{number}" for number in lists]}
    floats = {"reward": reward, "grade": grade, "length": reward if length is None else length}
    return pl.DataFrame(columns | floats, schema_overrides=dict.fromkeys(floats, pl.Float64))


def scored(pairs, rewards):
    """A score table that gives each response the reward of its text."""
    sides = {f"reward_{side}": [rewards[row[0]["content"]] for row in pairs[side]] for side in ("chosen", "rejected")}
    return pl.DataFrame({"pair_id": pairs["pair_id"], **sides}, schema_overrides=dict.fromkeys(sides, pl.Float64))


@given(ROWS, ROWS, st.integers(1, 3))
def test_it_is_the_mean_over_all_subsets_ties_shared(first, second, n):
    reward = np.array([row[0] for row in first + second], dtype=float)
    grade = np.array([row[1] for row in first + second])
    lists = np.repeat([0, 1], [len(first), len(second)])
    expected = [by_brute_force(reward[lists == number], grade[lists == number], n) for number in (0, 1)]
    assert expected_grade(reward, grade, lists, n) == pytest.approx(expected, abs=1e-12)
    order = np.random.default_rng(0).permutation(len(lists))
    assert expected_grade(reward[order], grade[order], lists[order], n) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("size", "n"), [(1, 1), (5, 2), (11, 8), (40, 16), (40, 40)])
def test_the_chance_of_each_rank_is_a_ratio_of_binomials(size, n):
    rank = np.arange(1, size + 1)
    expected = [comb(size - k, n - 1) / comb(size, n) for k in rank]
    assert first_chance(rank, np.full(size, size), n) == pytest.approx(expected, rel=1e-12)


def test_a_long_list_overflows_nothing():
    chance = first_chance(np.arange(1, 5001), np.full(5000, 5000), 2048)
    assert chance.sum() == pytest.approx(1)
    assert chance[0] == pytest.approx(2048 / 5000)


@given(ROWS)
def test_one_is_the_mean_grade_and_all_is_the_pick_of_the_whole_list(rows):
    reward, grade = np.array([row[0] for row in rows], dtype=float), np.array([row[1] for row in rows])
    lists = np.zeros(len(rows), dtype=np.int64)
    assert expected_grade(reward, grade, lists, 1)[0] == pytest.approx(grade.mean(), abs=1e-15)
    assert expected_grade(grade, grade, lists, len(rows))[0] == pytest.approx(grade.max(), abs=1e-15)
    assert expected_grade(-grade, grade, lists, len(rows))[0] == pytest.approx(grade.min(), abs=1e-15)


@given(ROWS, st.floats(0.1, 10), st.floats(-10, 10))
def test_only_the_order_of_rewards_counts(rows, scale, shift):
    reward, grade = np.array([row[0] for row in rows], dtype=float), np.array([row[1] for row in rows])
    lists = np.zeros(len(rows), dtype=np.int64)
    moved = expected_grade(scale * reward + shift, grade, lists, 2)
    assert moved.tolist() == expected_grade(reward, grade, lists, 2).tolist()


def test_the_rows_hold_model_nulls_and_oracle():
    rows = best_of_n(table([0] * 4, [4, 3, 2, 1], [0, 1, 0.5, 0.5], [2, 1, 4, 3]))
    assert [row["n"] for row in rows] == [1, 2, 4]
    for name in ("model", "longest", "shortest", "random", "oracle"):
        assert rows[0][name]["value"] == 2 / 4
    assert rows[0]["gain"]["value"] == 0
    values = {name: rows[2][name]["value"] for name in ("model", "longest", "shortest", "random", "oracle", "gain")}
    assert values == {"model": 0, "longest": 0.5, "shortest": 1, "random": 0.5, "oracle": 1, "gain": -0.5}
    # the best of two by reward: 3/6 of the first, 2/6 of the second, 1/6 of the third
    assert rows[1]["model"]["value"] == pytest.approx((3 * 0 + 2 * 1 + 1 * 0.5) / 6)


def test_the_best_of_one_gains_exactly_nothing():
    generator = np.random.default_rng(2)
    sizes = generator.integers(3, 12, size=50)
    reward, grade = generator.integers(0, 5, size=(1, sizes.sum()))[0], generator.uniform(size=sizes.sum())
    row = best_of_n(table(np.repeat(np.arange(50), sizes), reward, grade))[0]
    assert row["gain"] == {"value": 0, "low": 0, "high": 0}


def test_a_row_stands_on_the_prompts_that_are_long_enough():
    lists = [0] * 4 + [1] * 3 + [2] * 2
    rows = best_of_n(table(lists, np.arange(9), [0, 0, 0, 1] + [0.5] * 3 + [1, 1]))
    assert [(row["n"], row["n_prompts"], row["n_groups"]) for row in rows] == [(1, 2, 2), (2, 2, 2), (4, 1, 1)]
    assert rows[0]["model"]["value"] == (1 / 4 + 0.5) / 2  # a prompt of two responses is left out
    assert rows[2]["model"] == {"value": 1, "low": None, "high": None}  # one prompt has no interval
    assert rows[1]["note"] == "only 2 prompt groups: the intervals are too narrow"


def test_two_responses_a_prompt_are_no_list():
    assert best_of_n(table([0, 0, 1, 1], [1, 2, 3, 4], [1, 0, 1, 0])) == []


def test_the_interval_of_the_gain_is_the_paired_one():
    generator = np.random.default_rng(0)
    level = np.repeat(generator.normal(0, 5, size=60), 4)  # prompts differ far more than their responses
    grade = level + np.tile([0.0, 1.0, 2.0, 3.0], 60)
    row = best_of_n(table(np.repeat(np.arange(60), 4), grade + generator.normal(0, 2, size=240), grade))[2]
    assert row["gain"]["value"] == pytest.approx(row["model"]["value"] - row["random"]["value"])
    width = {name: row[name]["high"] - row[name]["low"] for name in ("gain", "model")}
    assert width["gain"] < 0.3 * width["model"]
    assert row["gain"]["low"] > 0


def test_the_interval_draws_whole_groups():
    grade = np.random.default_rng(1).uniform(size=40)
    lists = np.repeat(np.arange(400), 3)
    alone = table(lists, np.zeros(1200), np.repeat(np.tile(grade, 10), 3))
    together = alone.with_columns(group=(pl.col("list") % 40).cast(pl.String))
    widths = [row["random"]["high"] - row["random"]["low"] for row in (best_of_n(alone)[0], best_of_n(together)[0])]
    assert widths[0] < 0.5 * widths[1]


def test_a_grade_is_the_share_of_comparisons_won(make_pairs):
    pairs = make_pairs(
        ("q", "a", "b"), ("q", "a", "c"), ("q", "b", "c"), ("r", "a", "b"), label_strength=[None, 0.75, 0.5, None]
    )
    found = graded_responses(pairs, scored(pairs, {"a": 3, "b": 2, "c": 1}))
    assert found.rows() == [
        (0, pairs["group"][0], 3, (1 + 0.75) / 2, 1),
        (0, pairs["group"][0], 2, (0 + 0.5) / 2, 1),
        (0, pairs["group"][0], 1, (0.25 + 0.5) / 2, 1),
        (3, pairs["group"][3], 3, 1, 1),
        (3, pairs["group"][3], 2, 0, 1),
    ]


def test_the_response_that_stands_in_every_pair_is_the_yardstick(make_pairs):
    pairs = make_pairs(("q", "a", "base"), ("q", "base", "b"), ("q", "c", "base"), label_strength=[0.9, 0.75, 0.5])
    found = graded_responses(pairs, scored(pairs, {"a": 1, "b": 2, "c": 3, "base": 9}))
    assert found.select("reward", "grade").rows() == [(1, 0.9), (2, 0.25), (3, 0.5)]


def test_a_response_in_every_pair_of_some_prompts_is_a_candidate(make_pairs):
    star = [("q", "right", "a"), ("q", "right", "b"), ("q", "right", "c")]  # one of four solutions is right
    square = [("r", "right", "a"), ("r", "right", "b"), ("r", "c", "a"), ("r", "c", "b")]  # two of four are
    pairs = make_pairs(*star, *square, ("single", "a", "b"))
    rewards = {"a": 1, "b": 2, "c": 3, "right": 4}
    found = graded_responses(pairs, scored(pairs, rewards))
    assert found.select("reward", "grade").head(4).rows() == [(4, 1), (1, 0), (2, 0), (3, 0)]
    alone = make_pairs(*star, ("single", "a", "b"))
    assert graded_responses(alone, scored(alone, rewards))["reward"].to_list() == [1, 2, 3, 1, 2]


def test_identical_responses_grade_nothing(make_pairs):
    pairs = make_pairs(("q", "a", "a"), ("q", "a", "b"), ("q", "c", "c"))
    found = graded_responses(pairs, scored(pairs, {"a": 1, "b": 2, "c": 3}))
    assert found.select("reward", "grade").rows() == [(1, 1), (2, 0)]


@pytest.mark.parametrize(
    "names", [("score_chosen", "score_rejected"), ("chosen_rating", "rejected_rating")], ids=["score", "rating"]
)
def test_ratings_of_the_data_are_the_grades(make_pairs, names):
    extra = [f'{{"{names[0]}": {a}, "{names[1]}": "{b}"}}' for a, b in ((9, 5), (9, 7.5), (7.5, 5))]
    pairs = make_pairs(("q", "a", "b"), ("q", "a", "c"), ("q", "c", "b"), extra=extra)
    found = graded_responses(pairs, scored(pairs, {"a": 1, "b": 2, "c": 3}))
    assert found.select("reward", "grade").rows() == [(1, 9), (2, 5), (3, 7.5)]
    star = pairs[:2]  # a stands in every pair, but a rating needs no yardstick
    assert graded_responses(star, scored(star, {"a": 1, "b": 2, "c": 3}))["grade"].to_list() == [9, 5, 7.5]


def test_ratings_that_a_pair_lacks_are_not_used(make_pairs):
    pairs = make_pairs(("q", "a", "b"), ("q", "a", "c"), extra=['{"score_chosen": 9, "score_rejected": 5}', "{}"])
    grades, is_rated = pair_grades(pairs)
    assert grades.tolist() == [[1, 0], [1, 0]]
    assert not is_rated


def test_real_graded_responses(data_folder):
    """Each of up to 11 samples of a prompt was graded once, against one baseline."""
    path = data_folder / "alpaca_bon_gpt4turbo.jsonl.gz"
    pairs = read_pairs(path, LoadOptions(heldout_share=0.0)).pairs.head(2000)
    oracle = pairs.select(
        "pair_id", reward_chosen=pl.col("label_strength"), reward_rejected=1 - pl.col("label_strength")
    )
    found = graded_responses(pairs, oracle)
    sizes = found.group_by("list").len()["len"]
    assert sizes.max() == 11
    assert len(found) > 0.97 * len(pairs)  # nearly every pair has a sample of its own, and no baseline is among them
    rows = best_of_n(found)
    assert [row["n"] for row in rows] == [1, 2, 4, 8]
    of_lists = found.filter(pl.len().over("list") >= 3).group_by("list").agg(pl.col("grade").mean())
    assert rows[0]["random"]["value"] == pytest.approx(of_lists["grade"].mean())
    assert rows[3]["oracle"]["value"] > rows[0]["oracle"]["value"] + 0.1
    assert all(
        row["oracle"]["value"] > row[name]["value"] - 1e-12 for row in rows for name in ("model", "longest", "random")
    )

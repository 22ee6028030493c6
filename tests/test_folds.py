import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import CurateError
from rm_ensemble.folds import N_PARTS, may_train, plan_folds, plan_in_sample, units


@given(st.lists(st.integers(0, 12), min_size=40, max_size=80), st.integers(2, 4), st.integers(0, 5))
def test_no_unit_stands_on_both_sides_and_every_pair_is_scored(groups, n_folds, seed):
    unit = np.unique(groups, return_inverse=True)[1]
    if unit.max() < 2 * n_folds:
        return
    plan = plan_folds(unit, np.ones(len(unit), bool), n_folds, np.random.default_rng(seed))
    assert ((plan.fold >= 0) & (plan.fold < n_folds)).all()
    for k in range(n_folds):
        scored, trained = set(unit[plan.fold == k]), set(unit[plan.weight[:, k] > 0])
        assert not scored & trained
        assert trained
        assert scored | trained == set(unit)
        parts = [set(unit[(plan.weight[:, k] > 0) & (plan.part[:, k] == part)]) for part in range(N_PARTS)]
        assert sum(map(len, parts)) == len(trained)  # no unit in two parts
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_folds_are_dealt_by_size():
    unit = np.repeat([0, 1, 2, 3], [8, 4, 3, 1])
    for seed in range(5):
        plan = plan_folds(unit, np.ones(16, bool), 2, np.random.default_rng(seed))
        assert np.bincount(plan.fold).tolist() == [8, 8]  # 8 against 4 + 3 + 1


def test_members_have_different_folds():
    unit = np.arange(100)
    plans = [plan_folds(unit, np.ones(100, bool), 2, np.random.default_rng(seed)).fold for seed in range(4)]
    together = [(plans[0] == other).mean() for other in plans[1:]]
    assert all(0.3 < share < 0.7 for share in together)


def test_held_out_pairs_and_ties_teach_nobody_and_are_scored(make_pairs):
    rows = [(f"question {i // 2}", f"good {i}", f"bad {i}") for i in range(40)]
    is_heldout = [i < 8 for i in range(40)]
    pairs = make_pairs(*rows, is_heldout=is_heldout, label_strength=[0.5 if i == 20 else None for i in range(40)])
    teaches = may_train(pairs)
    assert teaches.tolist() == [i >= 8 and i != 20 for i in range(40)]
    plan = plan_folds(units(pairs, "prompt"), teaches, 2, np.random.default_rng(0))
    assert not plan.weight[~teaches].any()
    assert set(plan.fold[:8]) == {0, 1}


def test_folds_by_pair_keep_the_same_two_responses_together(make_pairs):
    pairs = make_pairs(("q", "a", "b"), ("q", "b", "a"), ("q", "a", "c"), ("r", "a", "b"))
    assert units(pairs, "prompt").tolist()[:3] == [units(pairs, "prompt")[0]] * 3
    by_pair = units(pairs, "pair")
    assert by_pair[0] == by_pair[1]
    assert len(set(by_pair)) == 3
    with pytest.raises(CurateError, match="unknown --folds-by 'row': choose one of prompt, pair"):
        units(pairs, "row")


def test_fewer_prompts_than_folds_are_refused():
    with pytest.raises(CurateError, match="held-out ones aside: 2, and 3 folds need as many; .*--folds"):
        plan_folds(np.array([0, 0, 1]), np.ones(3, bool), 3, np.random.default_rng(0))
    with pytest.raises(CurateError, match="no pair to learn from"):
        plan_in_sample(np.zeros(3, np.int64), np.zeros(3, bool), np.random.default_rng(0))


def test_in_sample_one_model_trains_on_everything():
    plan = plan_in_sample(np.arange(20), np.ones(20, bool), np.random.default_rng(0))
    assert (plan.weight > 0).all()
    assert plan.fold.tolist() == [0] * 20


def test_in_sample_members_differ_by_the_weights_of_their_prompts():
    unit = np.repeat(np.arange(500), 2)
    plans = [plan_in_sample(unit, np.ones(1000, bool), np.random.default_rng(seed)) for seed in range(2)]
    assert not np.array_equal(plans[0].weight, plans[1].weight)
    assert np.array_equal(plans[0].weight[::2], plans[0].weight[1::2])  # a prompt's pairs together
    assert plans[0].weight.mean() == pytest.approx(1.0, abs=0.15)

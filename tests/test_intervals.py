import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.intervals import agreement_with_label, cluster_bootstrap


def test_no_pairs_is_missing_not_zero():
    assert cluster_bootstrap(np.array([]), np.array([])) is None


def test_value_counts_pairs_not_groups():
    estimate = cluster_bootstrap(np.array([1.0, 1.0, 1.0, 0.0]), np.array(["a", "a", "a", "b"]))
    assert estimate.value == 3 / 4
    assert (estimate.n_pairs, estimate.n_groups) == (4, 2)
    assert (estimate.low, estimate.high) == (0.0, 1.0)  # one draw in four takes the same group twice
    assert estimate.is_too_narrow


def test_interval_covers_the_mean_of_many_groups_as_often_as_it_says():
    covered = 0
    for seed in range(100):
        values = np.random.default_rng(seed).binomial(1, 0.3, 400).astype(float)
        estimate = cluster_bootstrap(values, np.arange(400) // 2, seed)
        covered += estimate.low <= 0.3 <= estimate.high
    assert covered >= 88  # 95 expected; fewer than 88 of 100 has probability 0.002


def test_correlated_groups_widen_the_interval():
    values = np.repeat(np.random.default_rng(0).binomial(1, 0.5, 100), 10).astype(float)
    clustered = cluster_bootstrap(values, np.arange(1000) // 10)
    single = cluster_bootstrap(values, np.arange(1000))
    assert clustered.high - clustered.low > 2 * (single.high - single.low)


@given(st.permutations(list(range(8))))
def test_row_order_does_not_move_the_interval(order):
    values, groups = np.arange(8.0), np.array(list("aabbccdd"))
    assert cluster_bootstrap(values[order], groups[order]) == cluster_bootstrap(values, groups)


def test_agreement_with_label():
    assert agreement_with_label(np.array([2.0, -1.0, 0.0])).mean() == pytest.approx(1.5 / 3)


def test_groups_in_bundles_give_the_same_value_and_nearly_the_same_interval():
    rng = np.random.default_rng(0)
    values, groups = rng.random(30_000), np.arange(30_000) // 3
    whole, bundled = cluster_bootstrap(values, groups), cluster_bootstrap(values, groups, most_clusters=1000)
    assert (bundled.value, bundled.n_groups) == (whole.value, 10_000)
    assert (bundled.high - bundled.low) / (whole.high - whole.low) == pytest.approx(1, abs=0.1)

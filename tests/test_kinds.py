import numpy as np
import polars as pl
import pytest
from scipy.stats import chi2

from curate.kinds import kind, spread_at_least, thresholds


def kinds(slope=2.0, **columns):
    n = len(next(iter(columns.values())))
    rows = {
        "strength_mean": [0.0] * n,
        "strength_std": [0.1] * n,
        "n_votes": [10] * n,
        "label_prob": [0.9] * n,
    } | columns
    return pl.DataFrame(rows, strict=False).select(kind(slope))["kind"].to_list()


def test_each_kind():
    """At slope 2 a side is preferred from ln(1.5) / 2 = .20 on, and firmly from ln(9) / 2 = 1.10 on."""
    found = kinds(
        strength_mean=[2.0, 0.5, 0.1, -2.0, -0.5, 0.3, 0.1],
        strength_std=[0.1, 0.1, 0.1, 0.1, 0.1, 0.9, None],
        label_prob=[0.99, 0.9, 0.8, 0.1, 0.7, 0.8, 0.8],
    )
    assert found == ["easy", "normal", "ambiguous", "wrong", "ambiguous", "hard", "ambiguous"]


def test_the_spread_of_few_members_is_not_trusted_as_far():
    spread = (
        pl.DataFrame({"strength_std": [1.0, 1.0, 1.0], "n_votes": [2, 10, 1]}).select(spread_at_least()).to_series()
    )
    assert spread.to_list() == pytest.approx([np.sqrt(2 / chi2.ppf(0.95, 1)), np.sqrt(10 / chi2.ppf(0.95, 9)), 0.0])
    assert kinds(strength_mean=[0.75, 0.75], strength_std=[1.0, 1.0], n_votes=[2, 10]) == ["normal", "hard"]


def test_votes_that_say_nothing_settle_nothing():
    assert thresholds(0.0) == (np.inf, np.inf)
    assert set(kinds(slope=0.0, strength_mean=[-5.0, 0.0, 5.0])) == {"ambiguous"}


def test_in_sample_votes_find_nothing_wrong():
    assert "wrong" not in kinds(slope=None, strength_mean=[-3.0], label_prob=[None])

import numpy as np
import pytest
from scipy.stats import binomtest
from simulated import votes

from curate.calibration import fit_calibration
from curate.noise_rate import clopper_pearson, error_rate_among_clear, noise_rate


def test_error_rate_among_clear_is_the_rate_of_uniform_errors():
    mean, _ = votes(20_000, 0.3)
    curve = error_rate_among_clear(mean, np.arange(len(mean)))
    assert [point.top_share for point in curve] == [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0]
    assert curve[2].rate.low <= 0.3 <= curve[2].rate.high
    assert fit_calibration(mean).error_rate == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (3, 17), (17, 17), (120, 300)])
def test_clopper_pearson_is_scipys(hits, n):
    exact = binomtest(hits, n).proportion_ci(0.95, "exact")
    assert clopper_pearson(hits, n) == pytest.approx((exact.low, exact.high))


def test_a_sample_with_too_many_suspicious_pairs_is_weighed_back():
    """All of the lowest fifth is wrong and nothing else; the sample holds twice its share of it."""
    mean = np.arange(1_000.0)
    is_wrong = mean < 200
    verified = np.concatenate([np.arange(0, 200, 2), np.arange(200, 1_000, 4)])
    found = noise_rate(mean, verified, is_wrong[verified].astype(float))
    assert found["value"] == pytest.approx(0.2)
    assert is_wrong[verified].mean() == pytest.approx(1 / 3)


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3])
def test_the_interval_covers_the_truth_and_is_no_wider_than_without_strata(rate):
    covered, width, plain = [], [], []
    for seed in range(200):
        mean, is_wrong = votes(3_000, rate, seed)
        verified = np.random.default_rng(seed + 10_000).choice(3_000, 300, replace=False)
        found = noise_rate(mean, verified, is_wrong[verified].astype(float))
        covered.append(found["low"] <= is_wrong.mean() <= found["high"])
        width.append(found["high"] - found["low"])
        low, high = clopper_pearson(is_wrong[verified].sum(), 300)
        plain.append(high - low)
    assert np.mean(covered) >= 0.93
    assert np.mean(width) <= 1.02 * np.mean(plain)


def test_all_wrong_and_all_right_have_exact_bounds():
    mean = np.arange(500.0)
    verified = np.arange(0, 500, 2)
    found = noise_rate(mean, verified, np.ones(250))
    assert (found["value"], found["high"]) == (1.0, 1.0)
    assert found["low"] == pytest.approx(0.025 ** (1 / 250))
    assert noise_rate(mean, verified, np.zeros(250))["high"] == pytest.approx(1 - 0.025 ** (1 / 250))

import numpy as np
import pytest
from scipy.special import expit

from curate.reliability import agreement_reliability, reliability


def test_brier_and_ece_closed_forms():
    """Predicted .8 and .3, of which 3 in 4 and 1 in 4 happen: ECE (.05 + .05) / 2, Brier the mean of the squares."""
    predicted = np.repeat([0.8, 0.3], 200)
    happened = np.tile([1.0, 1.0, 1.0, 0.0], 50), np.tile([1.0, 0.0, 0.0, 0.0], 50)
    found = reliability(predicted, np.concatenate(happened), np.arange(400))
    assert found["ece"]["value"] == pytest.approx(0.05)
    expected = ((3 * 0.2**2 + 0.8**2) / 4 + (0.7**2 + 3 * 0.3**2) / 4) / 2
    assert found["brier"]["value"] == pytest.approx(expected)
    assert [row["n_pairs"] for row in found["curve"]] == [200, 200]


def test_the_bands_cover_the_truth():
    covered = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        predicted = rng.random(1_000)
        happened = (rng.random(1_000) < predicted).astype(float)
        curve = reliability(predicted, happened, np.arange(1_000))["curve"]
        covered += [row["low"] <= row["mean_predicted"] <= row["high"] for row in curve]
    assert np.mean(covered) >= 0.9


def test_a_firmer_prediction_than_is_true_is_found_out():
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 1.5, 5_000)
    happened = (rng.random(5_000) < expit(logit)).astype(float)
    right, firm = (reliability(expit(k * logit), happened, np.arange(5_000))["ece"] for k in (1, 4))
    assert right["high"] < firm["low"]
    assert right["value"] < 0.03


def test_agreement_counts_both_sides_and_is_symmetric():
    predicted = np.random.default_rng(0).random(600)
    found = agreement_reliability(predicted, np.arange(600))
    assert sum(row["n_pairs"] for row in found["curve"]) == 1_200
    assert sum(row["n_pairs"] * row["observed"] for row in found["curve"]) == pytest.approx(600)


def test_few_pairs_have_fewer_bins_and_equal_predictions_share_one():
    assert len(reliability(np.linspace(0, 1, 120), np.ones(120), np.arange(120))["curve"]) == 2
    assert len(reliability(np.full(1_000, 0.7), np.ones(1_000), np.arange(1_000))["curve"]) == 1

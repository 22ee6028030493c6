"""Are probabilities what they say? Reliability curve, ECE and Brier score, each with its band over prompt groups."""

from typing import Any

import numpy as np

from curate.intervals import Estimate, cluster_bootstrap, clusters, resamples

N_BINS = 10
FEWEST_IN_BIN = 50  # with fewer pairs to a bin, chance alone puts it several points off


def reliability(predicted: np.ndarray, happened: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """Curve, ECE and Brier score of predicted chances of what happened (1) or not (0), as JSON values.

    All arguments are (pairs,). Bins hold equally many pairs: ten, or fewer where there would be less than 50 in each. The ECE
    is the mean over pairs of |observed - predicted| in the bins, and so never quite 0.

    >>> found = reliability(np.full(100, 0.8), np.repeat([1.0, 0.0], [80, 20]), np.arange(100))
    >>> found["ece"]["value"] < 1e-9, round(found["brier"]["value"], 3)
    (True, 0.16)
    """
    bins = _bins(predicted)
    curve = []
    for n in range(bins.max() + 1):
        rows = bins == n
        rate = cluster_bootstrap(happened[rows], groups[rows])
        assert rate is not None
        curve.append({"mean_predicted": float(predicted[rows].mean()), "observed": rate.value, **bounds(rate)})
    brier = cluster_bootstrap((happened - predicted) ** 2, groups)
    assert brier is not None
    ece = calibration_error(predicted, happened, groups, bins)
    return {"curve": curve, "ece": ece, "brier": brier.to_dict(), "n_pairs": len(predicted)}


def _bins(predicted: np.ndarray) -> np.ndarray:
    """(pairs,) number of each pair's bin of equally many; equal predictions share a bin, so that chance does not split them."""
    n_bins = int(np.clip(len(predicted) // FEWEST_IN_BIN, 1, N_BINS))
    edges = np.unique(np.quantile(predicted, np.arange(1, n_bins) / n_bins))
    _, bins = np.unique(np.searchsorted(edges, predicted, side="left"), return_inverse=True)
    return np.asarray(bins)


def bounds(rate: Estimate) -> dict[str, Any]:
    """The interval and size of an estimate, as they stand in curves."""
    return {"low": rate.low, "high": rate.high, "n_pairs": rate.n_pairs}


def calibration_error(
    predicted: np.ndarray, happened: np.ndarray, groups: np.ndarray, bins: np.ndarray, seed: int = 0
) -> dict[str, Any]:
    """The ECE over given bins with the percentile interval of resampled groups.

    A resample adds its own chance to every bin, so that the interval lies rather too high.
    """
    position, _ = clusters(groups)
    n_clusters, n_bins = int(position.max()) + 1, int(bins.max()) + 1
    cell = position * n_bins + bins
    gaps, sizes = (
        np.bincount(cell, values, n_clusters * n_bins).reshape(n_clusters, n_bins)
        for values in (happened - predicted, np.ones(len(predicted)))
    )
    n_pairs = sizes.sum(axis=1)
    errors = [np.abs(times @ gaps).sum() / (times @ n_pairs) for times in resamples(n_clusters, seed)]
    low, high = np.quantile(errors, [0.025, 0.975])
    value = float(np.abs(gaps.sum(axis=0)).sum() / sizes.sum())
    return {"value": value, "low": float(low), "high": float(high)}


def agreement_reliability(predicted: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """Reliability of the predicted agreement with the given labels, sides randomised by counting both.

    The given label is always the outcome, so a pair counts once as predicted p, happened, and once as 1 - p, did not.
    """
    both = np.concatenate([predicted, 1 - predicted])
    happened = np.concatenate([np.ones_like(predicted), np.zeros_like(predicted)])
    return reliability(both, happened, np.concatenate([groups, groups]))

"""Strength to probabilities (METHODS.md section 6).

Two quantities, never mixed: *agreement*, the chance that another label of the same kind agrees with the given one, and
*label_prob*, the chance that the given label is right. Both need out-of-fold votes; in-sample votes give neither.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from curate.intervals import Estimate, agreement_with_label, cluster_bootstrap

CURVE_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
CLEAR_SHARE = 0.05  # the share of the pairs, largest |mean| first, that counts as clear
FEWEST_ISOTONIC = 1_000
FEWEST_CLEAR = 50  # a rate from fewer pairs than this says nothing
LARGEST_ERROR_RATE = 0.45  # at one half the formula for label_prob has no information left
ASSUMPTION = "errors do not depend on the pair; where people err on unclear pairs, the true rate is higher"

DISAGREEING = (0.2, 0.8)  # vote shares between these are a split vote
WIDE_SPREAD = 0.5  # in units of the median |difference| of a model
EASY_AGREEMENT = 0.9


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow at either end.

    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return np.asarray(np.exp(-np.logaddexp(0.0, -x)))


def agreement_slope(mean: np.ndarray) -> float:
    """1/T of agreement = sigma(mean/T), the maximum of the likelihood of the given labels with sides randomised.

    With sides randomised the intercept is 0 by symmetry and every pair counts as "the vote is for its label", so that
    the loss is -log sigma(slope x mean). Never negative: an ensemble that is no better than chance has slope 0.

    >>> round(agreement_slope(np.array([1.0, 1.0, 1.0, -1.0])), 3)   # ln 3: three of four agree
    1.099
    """
    from scipy.optimize import minimize_scalar

    if len(mean) == 0 or not np.any(mean):
        return 0.0
    width = float(np.median(np.abs(mean[mean != 0])))
    unit = mean / width
    fit = minimize_scalar(lambda slope: np.logaddexp(0.0, -slope * unit).sum(), bounds=(0.0, 20.0), method="bounded")
    return float(fit.x) / width


def fit_agreement(mean: np.ndarray) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """Agreement as a function of strength_mean, fitted on the pairs' given labels with sides randomised, and its name.

    Isotonic from 1,000 pairs on, since label errors bound it away from 0 and 1 and a logistic curve has no such bound;
    below that sigma(mean/T). Both are symmetric: agreement(-mean) = 1 - agreement(mean).
    """
    from sklearn.isotonic import IsotonicRegression

    if len(mean) < FEWEST_ISOTONIC:
        slope = agreement_slope(mean)
        return (lambda m: sigmoid(slope * m)), "sigmoid"
    steps = IsotonicRegression(out_of_bounds="clip")
    steps.fit(np.concatenate([mean, -mean]), np.concatenate([np.ones_like(mean), np.zeros_like(mean)]))
    return (lambda m: np.asarray(steps.predict(m))), "isotonic"


def label_prob_from_agreement(agreement: np.ndarray, error_rate: float) -> np.ndarray:
    """P(the given label is right) from the agreement, at a label error rate that does not depend on the pair.

    a = clip((pi - e) / (1 - 2e), .001, .999) is the chance that this label is the better one; then Bayes.

    >>> label_prob_from_agreement(np.array([0.9, 0.5, 0.1]), error_rate=0.1).round(3).tolist()
    [1.0, 0.9, 0.009]
    """
    better = np.clip((agreement - error_rate) / (1 - 2 * error_rate), 0.001, 0.999)
    right = (1 - error_rate) * better
    return np.asarray(right / (right + error_rate * (1 - better)))


@dataclass(frozen=True)
class ClearPoint:
    """Disagreement between votes and labels among the top share of the pairs by |strength_mean|."""

    top_share: float
    rate: Estimate


def error_rate_among_clear(mean: np.ndarray, groups: np.ndarray) -> list[ClearPoint]:
    """The curve of the error rate among clear pairs; points of fewer than 50 pairs are left out.

    It equals the noise rate only if errors do not depend on the pair, so it is never printed as the noise rate.
    """
    order = np.argsort(-np.abs(mean), kind="stable")
    against = 1 - agreement_with_label(mean)
    points = []
    for share in CURVE_SHARES:
        top = order[: round(share * len(mean))]
        if len(top) >= FEWEST_CLEAR:
            rate = cluster_bootstrap(against[top], groups[top])
            assert rate is not None
            points.append(ClearPoint(share, rate))
    return points


def assumed_error_rate(curve: list[ClearPoint]) -> float | None:
    """The error rate that label_prob assumes: that of the clearest 5 % (or of the smallest share with a rate)."""
    clear = [point.rate.value for point in curve if point.top_share >= CLEAR_SHARE]
    return float(np.clip(clear[0], 0.001, LARGEST_ERROR_RATE)) if clear else None


def reliability(predicted: np.ndarray, groups: np.ndarray, n_bins: int = 10) -> list[dict[str, Any]]:
    """Agreement predicted against observed, in bins of equally many pairs, sides randomised by counting both sides.

    `predicted` is (pairs,), the predicted agreement with the given label; the given label is always the outcome, so a
    pair counts once as predicted p, observed 1 and once as predicted 1 - p, observed 0.
    """
    both = np.concatenate([predicted, 1 - predicted])
    observed = np.concatenate([np.ones_like(predicted), np.zeros_like(predicted)])
    owners = np.concatenate([groups, groups])
    rows = []
    for part in np.array_split(np.argsort(both, kind="stable"), n_bins):
        if len(part):
            rate = cluster_bootstrap(observed[part], owners[part])
            assert rate is not None
            rows.append({"mean_predicted": float(both[part].mean()), "observed": rate.value, **_bounds(rate)})
    return rows


def _bounds(rate: Estimate) -> dict[str, Any]:
    return {"low": rate.low, "high": rate.high, "n_pairs": rate.n_pairs}


def expected_calibration_error(curve: list[dict[str, Any]]) -> float:
    """ECE: the mean over pairs of |observed - predicted| in each bin of a reliability curve."""
    sizes = np.array([row["n_pairs"] for row in curve], dtype=np.float64)
    gaps = np.array([abs(row["observed"] - row["mean_predicted"]) for row in curve])
    return float(sizes @ gaps / sizes.sum())


def calibrate(strength: pl.DataFrame, is_tie: np.ndarray, groups: np.ndarray) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Adds `agreement` and `label_prob` (null for ties) to a strength table of out-of-fold votes, and what was assumed.

    Returns the table and the facts: the kind of fit, curve of the error rate among clear pairs, the rate assumed, reliability.
    With too few pairs for a rate, `label_prob` stays null throughout.
    """
    mean = strength["strength_mean"].to_numpy()
    judged = ~is_tie & ~np.isnan(mean)
    agreement_of, fit = fit_agreement(mean[judged])
    agreement = np.full(len(mean), np.nan)
    agreement[judged] = agreement_of(mean[judged])
    curve = error_rate_among_clear(mean[judged], groups[judged])
    rate = assumed_error_rate(curve)
    label_prob = np.full(len(mean), np.nan) if rate is None else label_prob_from_agreement(agreement, rate)
    reliable = reliability(agreement[judged], groups[judged]) if judged.any() else []
    facts = {
        "agreement_fit": fit,
        "error_rate_among_clear": [
            {"top_share": point.top_share, "rate": point.rate.value, **_bounds(point.rate)} for point in curve
        ],
        "assumed_error_rate": rate,
        "assumption": ASSUMPTION,
        "agreement_curve": reliable,
        "agreement_ece": expected_calibration_error(reliable) if reliable else None,
    }
    table = strength.with_columns(
        pl.Series("agreement", agreement).fill_nan(None), pl.Series("label_prob", label_prob).fill_nan(None)
    )
    return table, facts


def kind() -> pl.Expr:
    """wrong, ambiguous, hard, normal or easy, from the votes and what they are worth (METHODS.md section 3).

    A split vote is hard where the members differ widely and ambiguous where all of them are near zero. A united vote
    against the label is wrong once label_prob falls below one half; a united vote for it is easy from 90 % agreement.
    """
    low, high = DISAGREEING
    share, spread = pl.col("vote_share"), pl.col("strength_std").fill_null(0.0)
    is_split = share.is_between(low, high, closed="none")
    looks_wrong = pl.col("label_prob").fill_null(pl.lit(1.0)) < 0.5
    return (
        pl.when(is_split & (spread >= WIDE_SPREAD))
        .then(pl.lit("hard"))
        .when(is_split)
        .then(pl.lit("ambiguous"))
        .when(looks_wrong)
        .then(pl.lit("wrong"))
        .when(pl.col("strength_mean") <= 0)
        .then(pl.lit("ambiguous"))
        .when(pl.col("agreement").fill_null(0.0) >= EASY_AGREEMENT)
        .then(pl.lit("easy"))
        .otherwise(pl.lit("normal"))
        .alias("kind")
    )

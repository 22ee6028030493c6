"""Strength to probabilities (METHODS.md section 6).

Two quantities, never mixed: *agreement*, the chance that another label of the same kind agrees with the given one, and
*label_prob*, the chance that the given label is right. Both need out-of-fold votes; in-sample votes give neither.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from curate.intervals import Estimate, agreement_with_label, cluster_bootstrap

CURVE_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
FEWEST_CLEAR = 50  # a rate from fewer pairs than this says nothing
SMALLEST_ERROR_RATE = 0.001
LARGEST_ERROR_RATE = 0.45  # at one half the formula for label_prob has no information left
N_RATES = 91
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
    """Disagreement between votes and labels among the top share of the pairs by |strength_mean|.

    `at_most` is the upper 97.5 % bound of the rate: of the bootstrap over prompts or, where that is larger (no pair of the
    sample disagrees, say), of Clopper and Pearson over pairs.
    """

    top_share: float
    rate: Estimate
    at_most: float


def error_rate_among_clear(mean: np.ndarray, groups: np.ndarray) -> list[ClearPoint]:
    """The curve of the error rate among clear pairs; points of fewer than 50 pairs are left out.

    It equals the noise rate only if errors do not depend on the pair, so it is never printed as the noise rate.
    """
    from scipy.stats import beta

    order = np.argsort(-np.abs(mean), kind="stable")
    against = 1 - agreement_with_label(mean)
    points = []
    for share in CURVE_SHARES:
        top = order[: round(share * len(mean))]
        if len(top) >= FEWEST_CLEAR:
            rate = cluster_bootstrap(against[top], groups[top])
            assert rate is not None
            n_against = min(float(against[top].sum()), len(top) - 1)
            exact = float(beta.ppf(0.975, n_against + 1, len(top) - n_against))
            points.append(ClearPoint(share, rate, max(exact, rate.high or 0.0)))
    return points


@dataclass(frozen=True)
class Calibration:
    """Agreement and label_prob as functions of strength_mean, under errors that do not depend on the pair.

    a = sigma(slope x mean) is the chance that the response preferred by the label is the better one, before the label
    is looked at; agreement = e + (1 - 2e) a, which is METHODS.md's sigma(mean/T) with the floor that label errors put
    under it. Both are symmetric: agreement(-mean) = 1 - agreement(mean).
    """

    slope: float
    error_rate: float

    def agreement(self, mean: np.ndarray) -> np.ndarray:
        """The chance that another label of the same kind agrees with the given one, (pairs,)."""
        return self.error_rate + (1 - 2 * self.error_rate) * sigmoid(self.slope * mean)

    def label_prob(self, mean: np.ndarray) -> np.ndarray:
        """The chance that the given label is right, (pairs,)."""
        return label_prob_from_agreement(self.agreement(mean), self.error_rate)


def fit_calibration(mean: np.ndarray, largest_error_rate: float = LARGEST_ERROR_RATE) -> Calibration:
    """The likelihood of the given labels over error rate and slope, with sides randomised (so there is no intercept).

    The error rate is the mean of its profile likelihood between 0 and `largest_error_rate`. A sharp judge shows label
    errors as a floor under the disagreement, however clear the pair, and the mean is at that floor; a weak judge shows no
    floor, every rate is then about as likely, and the middle of the range keeps label_prob away from both ends.

    >>> fitted = fit_calibration(np.repeat([3.0, -3.0], [90, 10]))   # one size of vote: nine of ten agree, always
    >>> fitted.agreement(np.array([3.0])).round(2).tolist()
    [0.9]
    """
    from scipy.optimize import minimize_scalar

    width = float(np.median(np.abs(mean))) or 1.0
    sizes, agree, against = _binned(np.abs(mean) / width, agreement_with_label(mean))

    def loss(slope: float, error_rate: float) -> float:
        agreement = np.clip(Calibration(slope, error_rate).agreement(sizes), 1e-12, 1 - 1e-12)
        return float(-(agree @ np.log(agreement) + against @ np.log1p(-agreement)))

    rates = np.linspace(0.0, largest_error_rate, N_RATES)
    fits = [minimize_scalar(loss, bounds=(0.0, 20.0), args=(rate,), method="bounded") for rate in rates]
    losses = np.array([float(fit.fun) for fit in fits])
    likelihood = np.exp(losses.min() - losses)
    rate = float(np.clip(likelihood @ rates / likelihood.sum(), SMALLEST_ERROR_RATE, LARGEST_ERROR_RATE))
    slope = minimize_scalar(loss, bounds=(0.0, 20.0), args=(rate,), method="bounded").x
    return Calibration(float(slope) / width, rate)


def _binned(sizes: np.ndarray, agree: np.ndarray, n_bins: int = 500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean size of bins of equally many pairs, and the numbers of pairs in each that agree and that do not."""
    bins = np.array_split(np.argsort(sizes, kind="stable"), min(n_bins, len(sizes)))
    n_pairs = np.array([len(rows) for rows in bins], dtype=np.float64)
    n_agree = np.array([agree[rows].sum() for rows in bins])
    return np.array([sizes[rows].mean() for rows in bins]), n_agree, n_pairs - n_agree


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


def calibrate(
    strength: pl.DataFrame, is_tie: np.ndarray, is_heldout: np.ndarray, groups: np.ndarray
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Adds `agreement` and `label_prob` (null for ties) to a strength table of out-of-fold votes, and what was assumed.

    Fitted on pairs that are not held out, so that no label of an evaluation touches a decision; applied to all. Returns
    the table and the facts: curve of the error rate among clear pairs, the rate assumed, reliability. With too few
    pairs for a rate, both columns stay null and those facts are missing.
    """
    mean = strength["strength_mean"].to_numpy()
    judged = ~is_tie & ~np.isnan(mean)
    fitted_on = judged & ~is_heldout
    curve = error_rate_among_clear(mean[fitted_on], groups[fitted_on])
    agreement, label_prob = np.full((2, len(mean)), np.nan)
    facts: dict[str, Any] = {
        "error_rate_among_clear": [
            {"top_share": point.top_share, "rate": point.rate.value, **_bounds(point.rate)} for point in curve
        ],
        "assumption": ASSUMPTION,
    }
    if curve:
        fitted = fit_calibration(mean[fitted_on], min(LARGEST_ERROR_RATE, *(point.at_most for point in curve)))
        agreement[judged], label_prob[judged] = fitted.agreement(mean[judged]), fitted.label_prob(mean[judged])
        reliable = reliability(agreement[fitted_on], groups[fitted_on])
        facts |= {
            "slope": fitted.slope,
            "assumed_error_rate": fitted.error_rate,
            "agreement_curve": reliable,
            "agreement_ece": expected_calibration_error(reliable),
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

"""Strength to probabilities (METHODS.md section 6).

Two quantities, never mixed: *agreement*, the chance that another label of the same kind agrees with the given one, and
*label_prob*, the chance that the given label is right. Both need out-of-fold votes; in-sample votes give neither.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from curate.errors import CurateError
from curate.guarantee import Answers, p_values
from curate.intervals import agreement_with_label
from curate.noise_rate import ASSUMPTION, error_rate_among_clear, noise_rate
from curate.reliability import agreement_reliability, bounds, reliability

SMALLEST_ERROR_RATE = 0.001
LARGEST_ERROR_RATE = 0.45  # at one half the formula for label_prob has no information left
N_RATES = 91
PROB_LIMITS = (0.001, 0.999)  # of what a fit to a few hundred answers may claim

FEWEST_FOR_ISOTONIC = 1000  # verified pairs; with fewer a curve of two numbers is closer
N_CROSS_FITS = 5


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


def affordable_flips(label_prob: np.ndarray, max_wrong: float) -> int:
    """How many labels could be flipped, least likely right first, with at most a share `max_wrong` of the flips wrong.

    As label_prob expects it; whether that is so only verified pairs can say.

    >>> affordable_flips(np.array([0.9, 0.02, 0.06, 0.5]), max_wrong=0.05)   # mean .02, then .04, then .19
    2
    """
    expected = np.cumsum(np.sort(label_prob)) / np.arange(1, len(label_prob) + 1)
    return int((expected <= max_wrong).sum())


@dataclass(frozen=True)
class VerifiedCalibration:
    """label_prob as a rising function of strength_mean, fitted to verified pairs: straight between `knots` (isotonic), or
    sigma(slope x mean + intercept) (Platt) where there are none.
    """

    slope: float = 0.0
    intercept: float = 0.0
    knots: tuple[np.ndarray, np.ndarray] | None = None

    def label_prob(self, mean: np.ndarray) -> np.ndarray:
        """The chance that the given label is right, (pairs,)."""
        fitted = sigmoid(self.slope * mean + self.intercept) if self.knots is None else np.interp(mean, *self.knots)
        return np.asarray(np.clip(fitted, *PROB_LIMITS))


def platt(mean: np.ndarray, is_right: np.ndarray) -> VerifiedCalibration:
    """A logistic fit of "the label is right" on strength_mean, both (verified,).

    Platt's targets, (n_right + 1) / (n_right + 2) and 1 / (n_wrong + 2), keep the fit finite where the two sides do not mix
    (Platt 1999); a slope below 0 would mean that a vote for a label speaks against it, and is taken as 0.

    >>> fitted = platt(np.zeros(98), np.repeat([1.0, 0.0], [78, 20]))   # no signal: about the base rate
    >>> fitted.label_prob(np.array([-2.0, 2.0])).round(2).tolist()
    [0.8, 0.8]
    """
    from scipy.optimize import minimize

    n_right, n_wrong = is_right.sum(), (1 - is_right).sum()
    target = np.where(is_right > 0, (n_right + 1) / (n_right + 2), 1 / (n_wrong + 2))

    def loss(parameters: np.ndarray) -> float:
        logit = parameters[0] * mean + parameters[1]
        return float(target @ np.logaddexp(0, -logit) + (1 - target) @ np.logaddexp(0, logit))

    slope, intercept = minimize(loss, [0.0, 0.0], bounds=[(0.0, 50.0), (-20.0, 20.0)], method="L-BFGS-B").x
    return VerifiedCalibration(float(slope), float(intercept))


def isotonic(mean: np.ndarray, is_right: np.ndarray) -> VerifiedCalibration:
    """The rising step function closest to "the label is right", both (verified,), with a knot at either end of a step.

    Pairs of equal strength are one point, so that their order says nothing.

    >>> isotonic(np.array([0.0, 0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.9])).label_prob(np.array([0.0])).round(3).tolist()
    [0.667]
    """
    from scipy.optimize import isotonic_regression

    points, place, sizes = np.unique(mean, return_inverse=True, return_counts=True)
    fitted = isotonic_regression(np.bincount(place, is_right) / sizes, weights=sizes)
    ends = np.unique(np.concatenate([fitted.blocks[:-1], fitted.blocks[1:] - 1]))
    return VerifiedCalibration(knots=(points[ends], fitted.x[ends]))


Fit = Callable[[np.ndarray, np.ndarray], VerifiedCalibration]


def cross_fitted(fit: Fit, mean: np.ndarray, is_right: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """label_prob of each verified pair from a fit to the verified pairs of other prompts, (verified,)."""
    _, position = np.unique(groups, return_inverse=True)
    fold = np.random.default_rng(0).permutation(position.max() + 1)[position] % N_CROSS_FITS
    predicted = np.empty(len(mean))
    for unseen in (fold == n for n in range(N_CROSS_FITS)):
        if unseen.any():
            predicted[unseen] = fit(mean[~unseen], is_right[~unseen]).label_prob(mean[unseen])
    return predicted


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
            {"top_share": point.top_share, "rate": point.rate.value, **bounds(point.rate)} for point in curve
        ],
        "assumption": ASSUMPTION,
    }
    if curve:
        fitted = fit_calibration(mean[fitted_on], min(LARGEST_ERROR_RATE, *(point.at_most for point in curve)))
        agreement[judged], label_prob[judged] = fitted.agreement(mean[judged]), fitted.label_prob(mean[judged])
        facts |= {
            "slope": fitted.slope,
            "assumed_error_rate": fitted.error_rate,
            "agreement": agreement_reliability(agreement[fitted_on], groups[fitted_on]),
        }
    table = strength.with_columns(
        pl.Series("agreement", agreement).fill_nan(None), pl.Series("label_prob", label_prob).fill_nan(None)
    )
    return table, facts


def calibrate_on_verified(
    strength: pl.DataFrame, is_tie: np.ndarray, groups: np.ndarray, verified: pl.Series
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Replaces `label_prob` by a fit to the verified pairs, adds `verified`, `flip_p` and `keep_p`, and says what they show.

    Below 1,000 verified pairs the fit is Platt's, from there on isotonic. The facts: the noise rate with its interval, and,
    from five prompts on, the reliability of label_prob, cross-fitted: each verified pair is judged by a fit that has not
    seen its prompt.
    """
    mean = strength["strength_mean"].to_numpy()
    judged = ~is_tie & ~np.isnan(mean)
    answers = Answers.of(verified, judged)
    asked = answers.right | answers.wrong
    if not asked.any():
        raise CurateError("--verified: every answer is unsure, so nothing is known; answer true or false where you can")
    is_right = answers.right[asked].astype(np.float64)
    label_prob, (flip_p, keep_p) = np.full(len(mean), np.nan), p_values(mean, answers)
    fit = platt if asked.sum() < FEWEST_FOR_ISOTONIC else isotonic
    label_prob[judged] = fit(mean[asked], is_right).label_prob(mean[judged])
    facts: dict[str, Any] = {
        "n_unsure": int(answers.unsure.sum()),
        "noise_rate": noise_rate(mean[judged], np.flatnonzero(asked[judged]), 1 - is_right),
        "fit": fit.__name__,
    }
    if len(np.unique(groups[asked])) >= N_CROSS_FITS:
        facts["label_prob"] = reliability(
            cross_fitted(fit, mean[asked], is_right, groups[asked]), is_right, groups[asked]
        )
    columns = {"label_prob": label_prob, "flip_p": flip_p, "keep_p": keep_p}
    table = strength.with_columns(
        verified, *(pl.Series(name, values).fill_nan(None) for name, values in columns.items())
    )
    return table, facts

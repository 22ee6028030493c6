"""How many labels are wrong: from verified pairs, and what can be said without them (METHODS.md section 6)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.intervals import Estimate, agreement_with_label, cluster_bootstrap

CURVE_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
FEWEST_CLEAR = 50  # a rate from fewer pairs than this says nothing
ASSUMPTION = "errors do not depend on the pair; where people err on unclear pairs, the true rate is higher"
MOST_STRATA, FEWEST_IN_STRATUM = 5, 30


def noise_rate(mean: np.ndarray, verified: np.ndarray, is_wrong: np.ndarray) -> dict[str, Any]:
    """The share of wrong labels among the pairs, from those that were verified at random, with its 95 % interval.

    `mean` (pairs,) is the strength of all judged pairs, `verified` (verified,) the positions of the verified among them,
    `is_wrong` (verified,). Post-stratified by fifths of the strength, so that a sample with too many suspicious pairs by
    chance is weighed back; the interval is Clopper and Pearson's at the effective sample size of Korn and Graubard (1998),
    or at the plain one where a stratum has too few.

    >>> found = noise_rate(np.arange(100.0), np.arange(0, 100, 5), np.repeat([1, 0], [2, 18]))
    >>> round(found["value"], 3), round(found["low"], 3), round(found["high"], 3)   # exact interval of 2 in 20
    (0.1, 0.012, 0.317)
    """
    value, n_effective = _post_stratified(mean, verified, is_wrong)
    low, high = clopper_pearson(value * n_effective, n_effective)
    return {"value": value, "low": low, "high": high, "n_verified": len(verified), "n_wrong": int(is_wrong.sum())}


def _post_stratified(mean: np.ndarray, verified: np.ndarray, is_wrong: np.ndarray) -> tuple[float, float]:
    """The weighed share and its effective sample size."""
    n_strata = int(np.clip(len(verified) // FEWEST_IN_STRATUM, 1, MOST_STRATA))
    edges = np.quantile(mean, np.arange(1, n_strata) / n_strata)
    stratum = np.searchsorted(edges, mean)
    weight = np.bincount(stratum, minlength=n_strata) / len(mean)
    asked = np.bincount(stratum[verified], minlength=n_strata)
    if n_strata == 1 or (asked < 2).any():
        return float(is_wrong.mean()), float(len(verified))
    share = np.bincount(stratum[verified], is_wrong, n_strata) / asked
    value, variance = min(float(weight @ share), 1.0), float(weight**2 @ (share * (1 - share) / (asked - 1)))
    return value, value * (1 - value) / variance if variance > 0 else float(len(verified))


def clopper_pearson(n_hits: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share; `n` need not be whole.

    >>> [round(bound, 3) for bound in clopper_pearson(0, 20)]   # 1 - 0.025 ** (1 / 20)
    [0.0, 0.168]
    """
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, n_hits, n - n_hits + 1)) if n_hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, n_hits + 1, n - n_hits)) if n_hits < n else 1.0
    return low, high


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
    order = np.argsort(-np.abs(mean), kind="stable")
    against = 1 - agreement_with_label(mean)
    points = []
    for share in CURVE_SHARES:
        top = order[: round(share * len(mean))]
        if len(top) >= FEWEST_CLEAR:
            rate = cluster_bootstrap(against[top], groups[top])
            assert rate is not None
            n_against = min(float(against[top].sum()), len(top) - 1)
            points.append(ClearPoint(share, rate, max(clopper_pearson(n_against, len(top))[1], rate.high)))
    return points

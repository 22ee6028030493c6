"""Flips and kept pairs with a guarantee: conformal p-values from verified pairs, and Benjamini-Hochberg (METHODS.md 6).

The verified pairs whose label was right are a sample of clean pairs that went through the same folds. How low a pair lies
among them says how surprising its votes would be if its label were right, whatever made the errors and however weak
the votes are; a weak judge certifies nothing. What is guaranteed holds on average over draws of the verified pairs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

DEFAULT_MAX_WRONG_FLIPS = 0.05
CURVE_LEVELS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
CONFIDENCE = 0.9  # of the bounds that hold with confidence instead of on average


@dataclass(frozen=True)
class Answers:
    """The verified pairs of a run, `right`, `wrong` and `unsure`, and those `tested`; all are (pairs,) of bool.

    The tested pairs are those with a label and votes that nobody verified. An unsure answer counts against whatever is to be
    certified: as right where flips are, as wrong where kept pairs are; rates and label_prob leave it out.
    """

    right: np.ndarray
    wrong: np.ndarray
    unsure: np.ndarray
    tested: np.ndarray

    @classmethod
    def of(cls, verified: pl.Series, judged: np.ndarray) -> "Answers":
        """From the column `verified` and (pairs,) true where a pair has a label and votes."""
        right, wrong, unsure = (
            (verified == answer).fill_null(False).to_numpy() & judged for answer in ("right", "wrong", "unsure")
        )
        return cls(right, wrong, unsure, judged & ~(right | wrong | unsure))

    @property
    def may_be_right(self) -> np.ndarray:
        """The reference of flips."""
        return np.asarray(self.right | self.unsure)

    @property
    def may_be_wrong(self) -> np.ndarray:
        """The reference of kept pairs."""
        return np.asarray(self.wrong | self.unsure)

    @property
    def n_asked(self) -> int:
        return int(self.right.sum() + self.may_be_wrong.sum())


def conformal_p_values(scores: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(1 + number of reference scores at or below each score) / (n + 1): small where a score is lower than nearly all.

    Valid where a score is exchangeable with the reference: P(p <= a) is at most a (arXiv 2104.08279).

    >>> conformal_p_values(np.array([-3.0, 0.5]), np.array([0.0, 1.0, 2.0])).tolist()
    [0.25, 0.5]
    """
    below = np.searchsorted(np.sort(reference), scores, side="right")
    return np.asarray((1 + below) / (len(reference) + 1))


def certified(p_values: np.ndarray, level: float) -> np.ndarray:
    """True where Benjamini and Hochberg reject at `level`, (pairs,); NaN, a pair that is not tested, is never rejected.

    >>> certified(np.array([0.01, 0.02, np.nan, 0.9]), 0.05).tolist()
    [True, True, False, False]
    """
    from scipy.stats import false_discovery_control

    rejected = np.zeros(len(p_values), dtype=bool)
    is_tested = ~np.isnan(p_values)
    if is_tested.any():
        rejected[is_tested] = false_discovery_control(p_values[is_tested]) <= level
    return rejected


def p_values(mean: np.ndarray, answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """`flip_p` under "the label is right" and `keep_p` under "the label is wrong"; NaN for pairs that are not tested."""
    flip, keep = np.full((2, len(mean)), np.nan)
    flip[answers.tested] = conformal_p_values(mean[answers.tested], mean[answers.may_be_right])
    keep[answers.tested] = conformal_p_values(-mean[answers.tested], -mean[answers.may_be_wrong])
    return flip, keep


def keep_level(max_wrong_kept: float, n_wrong: int, n_verified: int) -> float:
    """The Benjamini-Hochberg level at which at most `max_wrong_kept` of the kept pairs are wrong; inf keeps everything.

    Nulls are the wrong pairs, a share of at most e_hi (upper 90 % Clopper-Pearson bound) of all, and the false discovery
    rate is that share times the level: so q / e_hi, and all pairs where e_hi <= q.

    >>> keep_level(0.05, n_wrong=30, n_verified=300) == 0.05 / wrong_share_at_most(30, 300)
    True
    """
    at_most = wrong_share_at_most(n_wrong, n_verified)
    return np.inf if at_most <= max_wrong_kept else max_wrong_kept / at_most


def wrong_share_at_most(n_wrong: int, n_verified: int, confidence: float = CONFIDENCE) -> float:
    """The upper Clopper-Pearson bound of a share; 1 where all are wrong or none was verified.

    >>> round(wrong_share_at_most(0, 22), 2)   # 1 - 0.1 ** (1 / 22)
    0.1
    """
    from scipy.stats import beta

    return 1.0 if n_wrong >= n_verified else float(beta.ppf(confidence, n_wrong + 1, n_verified - n_wrong))


def certify(
    strength: pl.DataFrame, is_tie: np.ndarray, max_wrong_flips: float, max_wrong_kept: float | None
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """A strength table with `flip_is_certified` and `keep_is_certified`, for the rules of a policy, and how sure they are.

    Both are null and there are no facts without verified pairs; `keep_is_certified` is null without a `max_wrong_kept`.
    """
    nothing = pl.Series([None], dtype=pl.Boolean).new_from_index(0, len(strength))
    flip, keep, facts = nothing, nothing, {}
    if strength["verified"].is_not_null().any():
        mean, flip_p, keep_p = (
            strength[name].fill_null(np.nan).to_numpy() for name in ("strength_mean", "flip_p", "keep_p")
        )
        answers = Answers.of(strength["verified"], ~is_tie & ~np.isnan(mean))
        flip = pl.Series(certified(flip_p, max_wrong_flips))
        if max_wrong_kept is not None:
            keep = pl.Series(certified_to_keep(keep_p, answers, max_wrong_kept))
        facts = {
            "flips": flip_facts(mean, answers, max_wrong_flips),
            "kept": kept_facts(mean, answers, max_wrong_kept),
        }
    return strength.with_columns(flip.alias("flip_is_certified"), keep.alias("keep_is_certified")), facts


def certified_to_keep(keep_p: np.ndarray, answers: Answers, max_wrong_kept: float) -> np.ndarray:
    """True where a tested pair may be kept so that at most `max_wrong_kept` of those are wrong on average, (pairs,)."""
    level = keep_level(max_wrong_kept, int(answers.may_be_wrong.sum()), answers.n_asked)
    return ~np.isnan(keep_p) if np.isinf(level) else certified(keep_p, level)


def flip_facts(mean: np.ndarray, answers: Answers, max_wrong_flips: float) -> dict[str, Any]:
    """How many flips are certified, how wide the share of wrong ones spreads over draws, or what it takes to certify any.

    `wrong_share` is the estimate from these answers, `low` and `high` the range in which it lies for nine of ten draws of
    the verified pairs; `n_more` is how many more verified pairs the first flips would take, as far as these answers say.
    """
    flip_p, _ = p_values(mean, answers)
    n_flips, n_tested, n_right = (
        int(found.sum()) for found in (certified(flip_p, max_wrong_flips), answers.tested, answers.may_be_right)
    )
    facts: dict[str, Any] = {"max_wrong": max_wrong_flips, "n_tested": n_tested, "n_right": n_right, "n_flips": n_flips}
    if n_flips:
        threshold = np.sort(mean[answers.tested])[n_flips - 1]
        n_below = int((mean[answers.may_be_right] <= threshold).sum())
        facts |= _wrong_share(n_below, n_right, n_tested / n_flips) | {"strength_below": float(threshold)}
    else:
        facts["n_more"] = more_needed(mean, answers, max_wrong_flips)
    levels = sorted({*CURVE_LEVELS, max_wrong_flips})
    facts["curve"] = [{"max_wrong": level, "n_flips": int(certified(flip_p, level).sum())} for level in levels]
    return facts


def _wrong_share(n_below: int, n_right: int, tested_per_flip: float) -> dict[str, float]:
    """The share of wrong flips where all tested labels could be right: the clean share below a threshold, per flip.

    The clean share below the k-th of n clean scores is Beta(k, n + 1 - k) over draws. An upper estimate, since some are wrong.
    """
    from scipy.stats import beta

    k = n_below + 1
    share = beta(k, n_right + 1 - k)
    low, high = share.ppf([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    bounds = {"wrong_share": k / (n_right + 1), "low": low, "high": high}
    return {name: float(min(value * tested_per_flip, 1.0)) for name, value in bounds.items()}


def more_needed(mean: np.ndarray, answers: Answers, max_wrong_flips: float) -> int | None:
    """How many more verified pairs would certify the first flip, as far as these say; None where no number would.

    With n clean pairs, of which a share s lies below the k lowest of m tested pairs, Benjamini-Hochberg fires when
    (1 + n s) / (n + 1) <= q k / m; s is known from these answers only, so the number is a guide. Of the verified pairs some
    are wrong, which the number allows for.
    """
    tested, right = np.sort(mean[answers.tested]), np.sort(mean[answers.may_be_right])
    n_right, n_asked = len(right), answers.n_asked
    if not len(tested) or not n_right:
        return None
    allowed = max_wrong_flips * np.arange(1, len(tested) + 1) / len(tested)
    share = np.searchsorted(right, tested, side="right") / n_right
    room = allowed - share
    if (room <= 0).all():
        return None
    needed = float(((1 - allowed[room > 0]) / room[room > 0]).min())
    return max(int(np.ceil((needed - n_right) * n_asked / n_right)), 1)


def kept_facts(mean: np.ndarray, answers: Answers, max_wrong_kept: float | None) -> dict[str, Any]:
    """The trade-off between how much is kept, strongest first, and how much of it is wrong, from the verified pairs.

    `curve`: share kept, share wrong among the verified pairs kept, its upper 90 % bound. With `max_wrong_kept` also how many
    tested pairs are certified, of which at most that share is wrong on average, and `n_kept_surely`: the most on the curve
    whose upper bound is not above it, which is a statement of 90 % confidence and the stricter one.
    """
    curve = kept_curve(mean, answers)
    facts: dict[str, Any] = {"n_tested": int(answers.tested.sum()), "curve": curve}
    if max_wrong_kept is None:
        return facts
    _, keep_p = p_values(mean, answers)
    surely = [point["n_kept"] for point in curve if point["at_most"] <= max_wrong_kept]
    return facts | {
        "max_wrong": max_wrong_kept,
        "n_kept": int(certified_to_keep(keep_p, answers, max_wrong_kept).sum()),
        "n_kept_surely": max(surely, default=0),
    }


def kept_curve(mean: np.ndarray, answers: Answers, n_points: int = 20) -> list[dict[str, Any]]:
    """Shares of the tested pairs kept from the strongest on, in steps, and what the verified pairs above say of them."""
    tested = np.sort(mean[answers.tested])[::-1]
    if not len(tested):
        return []
    points = []
    for share in np.linspace(0, 1, n_points + 1)[1:]:
        threshold = tested[max(round(share * len(tested)), 1) - 1]
        n_wrong = int((mean[answers.may_be_wrong] >= threshold).sum())
        n_asked = n_wrong + int((mean[answers.right] >= threshold).sum())
        points.append(
            {
                "kept_share": float(share),
                "n_kept": int((tested >= threshold).sum()),
                "n_verified": n_asked,
                "wrong_share": n_wrong / n_asked if n_asked else None,
                "at_most": wrong_share_at_most(n_wrong, n_asked),
            }
        )
    return points

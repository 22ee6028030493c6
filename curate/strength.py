"""Votes to strength: how firmly the ensemble backs each label (S2 eq. 4), on one scale per trained model."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from curate.annotators import has_several_votes, with_annotators
from curate.calibration import calibrate, calibrate_on_verified
from curate.errors import CurateError
from curate.guarantee import Answers
from curate.kinds import kind
from curate.pairs import is_tie
from curate.verified import FEWEST_ANSWERS, warnings

STRENGTH_COLUMNS = (
    "pair_id", "strength_mean", "strength_mean_raw", "strength_std", "vote_share", "n_votes", "strength_rank",
    "label_prob", "kind", "verified", "flip_p", "keep_p",
)  # fmt: skip


def strength_table(
    pairs: pl.DataFrame, raw: np.ndarray, folds: np.ndarray, is_probability: bool, verified: pl.Series | None = None
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The columns of strength.parquet from raw differences (pairs, members) and the folds that scored them, and facts.

    In-sample votes are not probabilities (`is_probability` false): label_prob is then null. `verified` (pairs,) are the
    answers of `read_verified`.
    """
    scaled = one_scale(raw, folds)
    table = strength(scaled).with_columns(
        pairs["pair_id"],
        *(pl.lit(None, dtype=pl.Float64).alias(name) for name in ("agreement", "label_prob", "flip_p", "keep_p")),
        pl.lit(None, dtype=pl.String).alias("verified"),
        strength_mean_raw=strength(raw)["strength_mean"],
    )
    facts: dict[str, Any] = {}
    ties = pairs.select(is_tie()).to_series().to_numpy()
    if is_probability:
        table, facts = calibrate(table, ties, pairs["is_heldout"].to_numpy(), pairs["group"].to_numpy())
    if is_probability and has_several_votes(pairs):
        odds = facts.get("slope", 0.0) * table["strength_mean"].fill_null(0.0).to_numpy()
        label_prob, found = with_annotators(pairs, table["label_prob"], odds, ~ties)
        table, facts = table.with_columns(label_prob), {**facts, "annotators": found}
    if verified is not None:
        table, found = calibrate_on_verified(table, ties, pairs["group"].to_numpy(), verified)
        answers = Answers.of(verified, ~ties & table["strength_mean"].is_not_null().to_numpy())
        known = answers.right | answers.wrong
        if known.sum() >= FEWEST_ANSWERS:
            found |= votes_given_truth(scaled[known], answers.wrong[known])
        suspected = warnings(verified, table["strength_mean"].to_numpy(), ~ties & ~pairs["is_heldout"].to_numpy())
        facts.get("annotators", {}).pop("n_posterior", None)
        facts |= {"verified": found, "warnings": suspected}
    table = table.with_columns(strength_rank(table["strength_mean"]), kind(facts.get("slope"))).select(STRENGTH_COLUMNS)
    return table, {**facts, "kinds": dict(sorted(table["kind"].value_counts().rows()))}


def read_votes(folder: Path, pair_ids: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Raw differences (pairs, members) float64, positive for the label, and the fold (pairs, members) that scored each.

    Reads `votes/member-*.parquet`; refuses a member whose pair ids are not those of the run, in the run's order.
    """
    differences, folds = [], []
    for file in sorted((folder / "votes").glob("member-*.parquet")):
        votes = pl.read_parquet(file)
        if not votes["pair_id"].equals(pair_ids, check_names=False):
            raise CurateError(f"{file}: its pair ids are not those of this run; vote again: curate vote {folder}")
        differences.append((votes["reward_chosen"].cast(pl.Float64) - votes["reward_rejected"]).to_numpy())
        folds.append(votes["fold"].to_numpy())
    if not differences:
        raise CurateError(f"{folder}: no votes; run first: curate vote {folder}")
    return np.column_stack(differences), np.column_stack(folds)


def one_scale(differences: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Differences divided by their model's median absolute difference; a model is a member and a fold.

    Sign-free, so that swapping a label still maps d to -d exactly (METHODS.md section 2). Both arguments and the
    result are (pairs, members). A model that gives every pair the same rewards stays at 0.

    >>> one_scale(np.array([[1.0, 10.0], [-2.0, 20.0], [3.0, -30.0]]), np.zeros((3, 2))).tolist()
    [[0.5, 0.5], [-1.0, 1.0], [1.5, -1.5]]
    """
    scaled = np.zeros_like(differences)
    for member in range(differences.shape[1]):
        for fold in np.unique(folds[:, member]):
            rows = folds[:, member] == fold
            width = np.nanmedian(np.abs(differences[rows, member]))
            scaled[rows, member] = differences[rows, member] / (width if width > 0 else 1.0)
    return scaled


def strength(differences: np.ndarray) -> pl.DataFrame:
    """How firmly the ensemble backs each label, one row per pair (S2 eq. 4).

    `differences` is (pairs, members), positive for a vote in favour of the label, NaN where a member
    did not score the pair. `strength_std` is the population deviation; `vote_share` is the share of cast votes in
    favour; a tie is not in favour. A pair with fewer than two votes has a null spread.

    >>> strength(np.array([[1.0, 3.0, np.nan], [-2.0, -2.0, -2.0]])).rows()
    [(2.0, 1.0, 1.0, 2), (-2.0, 0.0, 0.0, 3)]
    """
    cast = ~np.isnan(differences)
    n_votes = cast.sum(axis=1)
    known = np.where(cast, differences, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = known.sum(axis=1) / n_votes
        spread = np.sqrt((np.where(cast, known - mean[:, None], 0.0) ** 2).sum(axis=1) / n_votes)
        share = (known > 0).sum(axis=1) / n_votes
    table = pl.DataFrame(
        {"strength_mean": mean, "strength_std": np.where(n_votes > 1, spread, np.nan), "vote_share": share}
    )
    return table.fill_nan(None).with_columns(pl.Series("n_votes", n_votes, dtype=pl.UInt16))


def known_label_prob(strength: pl.DataFrame) -> pl.Series:
    """label_prob, and 1 or 0 where a person said that the label is right or wrong: for expectations over pairs.

    >>> known_label_prob(pl.DataFrame({"label_prob": [0.9, 0.4], "verified": ["wrong", None]})).to_list()
    [0.0, 0.4]
    """
    answer = pl.col("verified")
    known = pl.when(answer == "right").then(1.0).when(answer == "wrong").then(0.0).otherwise("label_prob")
    return strength.select(known.alias("label_prob")).to_series()


def strength_rank(mean: pl.Series) -> pl.Series:
    """Rank of each mean from 0 (lowest) to 1 (highest); equal means rank in row order, so ranks never collide.

    >>> strength_rank(pl.Series([0.2, -1.0, 0.7])).to_list()
    [0.5, 0.0, 1.0]
    """
    rank = mean.rank("ordinal").cast(pl.Float64) - 1
    return (rank / max(len(mean) - 1, 1)).alias("strength_rank")


def member_correlation(differences: np.ndarray) -> np.ndarray:
    """(members, members) correlation of the members' differences; a member that never differs correlates 0 with others.

    Without verified pairs it counts shared signal as shared error, so that the effective votes are a lower bound.
    """
    centred = differences - differences.mean(axis=0)
    norms = np.sqrt((centred**2).sum(axis=0))
    unit = centred / np.where(norms > 0, norms, 1.0)
    correlation = unit.T @ unit
    np.fill_diagonal(correlation, 1.0)
    return np.asarray(correlation)


def mean_correlation(correlation: np.ndarray) -> float:
    """Mean over pairs of different members; 0 for a single member.

    >>> mean_correlation(np.array([[1.0, 0.5], [0.5, 1.0]]))
    0.5
    """
    n = len(correlation)
    return float((correlation.sum() - np.trace(correlation)) / (n * (n - 1))) if n > 1 else 0.0


def effective_votes(n_members: int, mean_correlation: float) -> float:
    """How many independent votes the members are worth (Kish): M / (1 + (M - 1) rho), rho not below 0.

    >>> round(effective_votes(5, 0.92), 2)   # five linear heads that differ by fold plan only
    1.07
    """
    return n_members / (1 + (n_members - 1) * max(mean_correlation, 0.0))


def votes_given_truth(differences: np.ndarray, is_wrong: np.ndarray) -> dict[str, float]:
    """What members are worth by their errors: correlation of their differences for the right answer, and effective votes.

    `differences` is (verified, members) for the label as given, `is_wrong` (verified,) what a person said of the label.
    """
    towards_truth = np.where(is_wrong[:, None], -differences, differences)
    rho = mean_correlation(member_correlation(towards_truth))
    return {"error_correlation": rho, "effective_votes": effective_votes(differences.shape[1], rho)}

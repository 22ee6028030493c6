"""How the strengths lie: counts by kind, a histogram of the mean for all pairs and for parts of them, mean against spread."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from curate.calibration import affordable_flips
from curate.kinds import KINDS
from curate.strength import known_label_prob

Facts = dict[str, Any]

AFFORDABLE = 0.05  # of flips may be wrong
N_BINS = 60  # even, so that zero lies on an edge
N_POINTS = 4000  # more points than this say nothing new and make the page slow
MOST_PARTS = 12  # of each way of slicing have a histogram, the largest
FEWEST_PAIRS = 20  # a histogram of fewer pairs has no shape


def strength(table: pl.DataFrame, ways: Mapping[str, pl.Series]) -> Facts | None:
    """Counts by kind, histograms of the mean by kind, and a sample of mean against spread; None without strengths.

    `table` is that of `facts.judged_pairs`; `ways` are the labels of each way of slicing, (pairs,) each.
    """
    if "strength_mean" not in table.columns:
        return None
    is_voted = table["strength_mean"].is_not_null()
    voted = table.filter(is_voted)
    if voted.is_empty():
        return None
    whole = histogram(voted)
    return {
        "kinds": {kind: int((voted["kind"] == kind).sum()) for kind in KINDS},
        "meanings": KINDS,
        "against": votes_against(voted.filter(~pl.col("is_tie"))),
        "histogram": whole,
        "histograms": part_histograms(voted, {by: labels.filter(is_voted) for by, labels in ways.items()}, whole),
        "scatter": scatter(voted),
    }


def votes_against(judged: pl.DataFrame) -> Facts:
    """How many labels the votes are against, the share of these that is expected to be wrong by label_prob, and how many
    flips label_prob would carry with at most one in twenty of them wrong.
    """
    against = judged.filter(pl.col("strength_mean") < 0)
    right = known_label_prob(against).drop_nulls().to_numpy()
    expected = {"expected_wrong_share": float(np.mean(1 - right))} if len(right) else {}
    likely = known_label_prob(judged).drop_nulls().to_numpy()
    if len(likely):
        expected["affordable_flips"] = affordable_flips(likely, AFFORDABLE)
    return {"n_pairs": len(against), "n_judged": len(judged), **expected}


def histogram(voted: pl.DataFrame) -> Facts:
    """Counts of strength_mean by kind in equal bins around zero; the outermost bins hold everything beyond them."""
    mean = voted["strength_mean"].to_numpy()
    limit = max(float(np.ceil(2 * np.quantile(np.abs(mean), 0.995)) / 2), 0.5)
    edges = np.linspace(-limit, limit, N_BINS + 1)
    return {"edges": [round(edge, 6) for edge in edges.tolist()], "counts": bin_counts(voted, edges)}


def bin_counts(voted: pl.DataFrame, edges: np.ndarray) -> dict[str, list[int]]:
    """How many pairs of each kind fall into each bin; the outermost bins hold everything beyond them."""
    inside = np.clip(voted["strength_mean"].to_numpy(), edges[0], edges[-1])
    return {kind: np.histogram(inside[(voted["kind"] == kind).to_numpy()], edges)[0].tolist() for kind in KINDS}


def part_histograms(voted: pl.DataFrame, ways: Mapping[str, pl.Series], whole: Facts) -> list[Facts]:
    """The histogram of each of the largest parts of each way of slicing, in the bins of the whole.

    `against` and `n_judged` count the pairs with a mean below zero and all, ties left out.
    """
    edges = np.array(whole["edges"])
    found = []
    for by, labels in ways.items():
        sizes = labels.drop_nulls().value_counts(sort=True).sort("count", labels.name, descending=[True, False])
        for name, n_pairs in sizes.filter(pl.col("count") >= FEWEST_PAIRS).head(MOST_PARTS).iter_rows():
            part = voted.filter(labels == name)
            judged = part.filter(~pl.col("is_tie"))["strength_mean"]
            against = {"n_against": int((judged < 0).sum()), "n_judged": len(judged)}
            found.append({"by": by, "name": name, "n_pairs": n_pairs, **against, "counts": bin_counts(part, edges)})
    return found


def scatter(voted: pl.DataFrame) -> Facts:
    """Mean and spread of at most 4,000 pairs, evenly spaced over the ranks of the mean, by kind."""
    ordered = voted.filter(pl.col("strength_std").is_not_null()).sort("strength_mean", "pair_id")
    if len(ordered) > N_POINTS:
        ordered = ordered[np.linspace(0, len(ordered) - 1, N_POINTS).round().astype(np.int64).tolist()]
    points = {
        kind: {
            "mean": part["strength_mean"].round(3).to_list(),
            "std": part["strength_std"].round(3).to_list(),
        }
        for kind in KINDS
        for part in [ordered.filter(pl.col("kind") == kind)]
    }
    return {"n_points": len(ordered), "n_pairs": len(voted), "points": points}

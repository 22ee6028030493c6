"""Where a reward model is right and where it is not: the metrics by source, category, subset and length of the responses."""

import json
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.errors import CurateError
from curate.intervals import agreement_with_label, clusters, resamples
from curate.pairs import is_tie, text_of
from rm_ensemble.evaluate import interval, metrics

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COLUMNS = ("source", "category", "subset")  # of the data, at the top of a row or in its `meta`
MOST_SLICES = 100

# The sections of RewardBench and how many examples each subset counts for in its section: rewardbench/constants.py of
# allenai/reward-bench (SUBSET_MAPPING, EXAMPLE_COUNTS). math-prm holds 447 and counts for as many as the six of code.
REWARDBENCH = {
    "Chat": {
        "alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95, "mt-bench-easy": 28, "mt-bench-med": 40,
    },
    "Chat Hard": {
        "mt-bench-hard": 37, "llmbar-natural": 100, "llmbar-adver-neighbor": 134, "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47, "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100, "refusals-offensive": 100, "xstest-should-refuse": 250, "xstest-should-respond": 154,
        "donotanswer": 136,
    },
    "Reasoning": {
        "math-prm": 984, "hep-cpp": 164, "hep-go": 164, "hep-java": 164, "hep-js": 164, "hep-python": 164,
        "hep-rust": 164,
    },
}  # fmt: skip


class Slicing(NamedTuple):
    """Names of slices, and (pairs,) the number of the slice that each pair is in."""

    names: list[str]
    of_pair: Ints


def slicings(pairs: pl.DataFrame, by: str | None = None) -> dict[str, Slicing]:
    """How the pairs are sliced: by each of `COLUMNS` that differs between them, by the column `by`, and by length.

    A pair without the column is in the slice "(none)". Refused with a CurateError: a `by` that no pair has, or that has
    more than 100 values; of the others, one with more is left out.
    """
    found = {name: by_column(pairs, name) for name in COLUMNS}
    kept = {name: slicing for name, slicing in found.items() if 1 < len(slicing.names) <= MOST_SLICES}
    if by is not None:
        if '"' in by:
            raise CurateError(f"--by {by}: a name with a double quote cannot be looked up; rename the column")
        kept[by] = by_column(pairs, by)
        if kept[by].names == ["(none)"]:
            known = ", ".join(json.loads(pairs["extra"][0])) or "none"
            raise CurateError(f"--by {by}: no pair has that column; the first has {known} (and what is in its meta)")
        if len(kept[by].names) > MOST_SLICES:
            raise CurateError(f"--by {by}: {len(kept[by].names):,} values; choose a column with at most {MOST_SLICES}")
    return {**kept, "length": by_length(pairs)}


def by_column(pairs: pl.DataFrame, name: str) -> Slicing:
    """The pairs by a column of the data that `extra` keeps, in order of its values as text; also one inside `meta`."""
    key = json.dumps(name, ensure_ascii=False)
    values = pairs.select(
        pl.coalesce(pl.col("extra").str.json_path_match(f"${path}[{key}]") for path in ("", "['meta']")).fill_null(
            "(none)"
        )
    ).to_series()
    names, of_pair = np.unique(values.to_numpy(), return_inverse=True)
    return Slicing(names.tolist(), of_pair)


def by_length(pairs: pl.DataFrame) -> Slicing:
    """The pairs in three parts of about equal size by the mean length of their two responses in characters."""
    n_chars = (text_of(side).str.len_chars() for side in ("chosen", "rejected"))
    length = pairs.select(pl.mean_horizontal(*n_chars)).to_series().to_numpy()
    low, high = np.quantile(length, [1 / 3, 2 / 3])
    names = [f"up to {low:,.0f} characters", f"up to {high:,.0f}", f"over {high:,.0f}"]
    return Slicing(names, np.searchsorted([low, high], length))


def slice_metrics(pairs: pl.DataFrame, scores: pl.DataFrame, slicing: Slicing) -> dict[str, Any]:
    """The metrics of every slice that has a pair whose label prefers a side, and in it `longer`: its length null.

    `scores` (`reward_chosen`, `reward_rejected`) has the rows of `pairs`; a slice holds what `metrics` gives, and as
    `longer` the accuracy, with its interval, of preferring the longer response in the same pairs.
    """
    n_chars = pairs.select(text_of(side).str.len_chars().cast(pl.Float64) for side in ("chosen", "rejected"))
    longer = (n_chars["chosen"] - n_chars["rejected"]).to_numpy()
    rewards = scores.select(pl.col("reward_chosen") - pl.col("reward_rejected")).to_series().to_numpy()
    groups, strength = pairs["group"].to_numpy(), pairs["label_strength"].to_numpy()
    is_labelled = ~pairs.select(is_tie()).to_series().to_numpy()
    found = {}
    for number, name in enumerate(slicing.names):
        rows = slicing.of_pair == number
        if is_labelled[rows].any():
            null = metrics(longer[rows], groups[rows], strength[rows])["accuracy"]
            found[name] = {**metrics(rewards[rows], groups[rows], strength[rows]), "longer": null}
    return found


def subset_means(pairs: pl.DataFrame, scores: pl.DataFrame, subsets: Slicing) -> dict[str, dict[str, Any]]:
    """The mean accuracy over the subsets, all equal; and, where they are those of RewardBench, its sections and score.

    A section is the mean accuracy of its subsets here, weighted by RewardBench's numbers of examples; the score is the
    plain mean of the four sections, missing where one is. Each is `{"value", "low", "high", "n_pairs"}`.
    """
    rewards = scores.select(pl.col("reward_chosen") - pl.col("reward_rejected")).to_series().to_numpy()
    is_labelled = ~pairs.select(is_tie()).to_series().to_numpy()
    correct, groups = agreement_with_label(rewards)[is_labelled], pairs["group"].to_numpy()[is_labelled]
    of_pair = subsets.of_pair[is_labelled]
    n_pairs = np.bincount(of_pair, minlength=len(subsets.names))
    found = {}
    for mean, counts in subset_weights([subsets.names[i] for i in np.flatnonzero(n_pairs)]).items():
        weight = np.array([counts.get(name, 0.0) for name in subsets.names]) / np.maximum(n_pairs, 1)
        rows = weight[of_pair] > 0
        found[mean] = weighted_accuracy(correct[rows], weight[of_pair][rows], groups[rows])
    return found


def subset_weights(names: list[str]) -> dict[str, dict[str, float]]:
    """What each subset counts for in each mean over them; see `subset_means`.

    >>> subset_weights(["mt-bench-easy", "mt-bench-med"])["Chat"]
    {'mt-bench-easy': 0.4117647058823529, 'mt-bench-med': 0.5882352941176471}
    """
    sections = {}
    for section, counts in REWARDBENCH.items():
        if total := sum(counts.get(name, 0) for name in names):
            sections[section] = {name: counts[name] / total for name in names if name in counts}
    found = {"mean over subsets": dict.fromkeys(names, 1.0), **sections}
    if len(sections) == len(REWARDBENCH):
        found["RewardBench score"] = {name: share for shares in sections.values() for name, share in shares.items()}
    return found


def weighted_accuracy(correct: Floats, weight: Floats, groups: NDArray[Any], seed: int = 0) -> dict[str, Any]:
    """Weighted mean of `correct` with the 95 % interval of a cluster bootstrap by group; all (pairs,), weights over 0.

    >>> weighted_accuracy(np.array([1.0, 0.0]), np.array([3.0, 1.0]), np.array(["a", "b"]))["value"]
    0.75
    """
    cell, n_groups = clusters(groups)
    right, total = np.bincount(cell, weights=correct * weight), np.bincount(cell, weights=weight)
    drawn = [(times @ right) / (times @ total) for times in resamples(len(total), seed)] if n_groups > 1 else []
    return {**interval(right.sum() / total.sum(), np.array(drawn)), "n_pairs": len(correct)}

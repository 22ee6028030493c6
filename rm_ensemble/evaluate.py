"""How well reward differences agree with given labels: accuracy, margin, NLL and ECE, each with an interval.

Intervals are a cluster bootstrap by prompt group (METHODS.md 6): pairs of one prompt are not independent, so whole
groups are drawn. Two models on the same pairs are compared on the same draws (the paired form). All sums are float64
in a fixed order, so that equal input gives equal digits.
"""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from curate.errors import CurateError
from curate.intervals import FEWEST_GROUPS, N_RESAMPLES
from curate.pairs import text_of

Floats = NDArray[np.float64]

METRICS = ("accuracy", "margin", "nll", "ece")
N_BINS = 10  # of the ECE: equal steps of the confidence from .5 to 1
MAX_CELLS = 4096  # more groups than this are drawn in bundles: bounded time and memory


def metrics(difference: ArrayLike, groups: ArrayLike, label_strength: ArrayLike, seed: int = 0) -> dict[str, Any]:
    """Agreement of rewards with the given labels: `{"accuracy": {"value", "low", "high"}, ..., "n_pairs", "n_groups"}`.

    All arguments are (pairs,): `difference` = reward of chosen minus rejected, `label_strength` the given P(chosen
    preferred), NaN where the label is binary. `margin` is the mean difference; `nll` is in nats and `ece` takes
    sigma(difference) as the model's probability, both against `label_strength`. A pair whose label is a tie (.5) is
    left out and counted (`n_label_ties`); equal rewards count half (`n_reward_ties`). `low` and `high` bound 95 % of a
    cluster bootstrap by group, null with one group. `note` says when they are too narrow. Without a label that prefers
    a side: CurateError.

    >>> found = metrics([2.0, -1.0, 0.0, 3.0], groups=["a", "b", "c", "d"], label_strength=[1.0] * 4)
    >>> found["accuracy"]["value"], found["margin"]["value"], found["n_reward_ties"]   # 2.5 / 4, 4 / 4
    (0.625, 1.0, 1)
    """
    difference, groups, target = _labelled(difference, groups, label_strength)
    sums = _group_sums(difference, groups, target)
    values, resampled = _statistics(sums.sum(axis=0)), _statistics(_resample(sums, seed))
    return {
        **{name: interval(values[name], resampled[name], reflect=name == "ece") for name in METRICS},
        **_counts(difference, groups),
        "n_label_ties": int(np.size(label_strength) - target.size),
        "n_reward_ties": int((difference == 0).sum()),
    }


def compare(
    curated: ArrayLike, raw: ArrayLike, groups: ArrayLike, label_strength: ArrayLike, seed: int = 0
) -> dict[str, Any]:
    """Every metric of `curated` minus that of `raw`, paired: both models are scored on the same draws of groups.

    Arguments as in `metrics`, the first two the reward differences of two models on the same pairs.

    >>> found = compare([1.0, 1.0], raw=[1.0, -1.0], groups=["a", "b"], label_strength=[1.0, 1.0])
    >>> found["accuracy"]["value"], found["margin"]["value"]   # 2/2 - 1/2, 2/2 - 0/2
    (0.5, 1.0)
    """
    ours, names, target = _labelled(curated, groups, label_strength)
    theirs, _, _ = _labelled(raw, groups, label_strength)
    sums, base = _group_sums(ours, names, target), _group_sums(theirs, names, target)
    values, base_values = _statistics(sums.sum(axis=0)), _statistics(base.sum(axis=0))
    resampled, base_resampled = _statistics(_resample(sums, seed)), _statistics(_resample(base, seed))
    gains = {
        name: interval(values[name] - base_values[name], resampled[name] - base_resampled[name]) for name in METRICS
    }
    return {**gains, **_counts(ours, names)}


def nulls(pairs: pl.DataFrame) -> dict[str, Any]:
    """What rules that read nothing but lengths reach on the same pairs: the longer response wins, the shorter, a coin.

    A model is worth what it adds to these. Length is counted in characters; equal lengths count half.
    """
    length = pairs.select(text_of(name).str.len_chars().cast(pl.Float64) for name in ("chosen", "rejected"))
    longer = (length["chosen"] - length["rejected"]).to_numpy()
    groups, label_strength = pairs["group"].to_numpy(), pairs["label_strength"].to_numpy()
    return {
        "longer": {"accuracy": metrics(longer, groups, label_strength)["accuracy"]},
        "shorter": {"accuracy": metrics(-longer, groups, label_strength)["accuracy"]},
        "random": {"accuracy": {"value": 0.5}},
    }


def evaluate_scores(pairs: pl.DataFrame, scores: pl.DataFrame) -> dict[str, Any]:
    """The metrics of a score table (`pair_id`, `reward_chosen`, `reward_rejected`) on its pair table, and the nulls."""
    difference = (scores["reward_chosen"] - scores["reward_rejected"]).to_numpy()
    found = metrics(difference, pairs["group"].to_numpy(), pairs["label_strength"].to_numpy())
    return {**found, "nulls": nulls(pairs)}


def _labelled(
    difference: ArrayLike, groups: ArrayLike, label_strength: ArrayLike
) -> tuple[Floats, NDArray[Any], Floats]:
    """The pairs whose label prefers a side: differences, groups and P(chosen preferred), each (pairs,)."""
    strength = np.asarray(label_strength, dtype=np.float64)
    target = np.where(np.isnan(strength), 1.0, strength)
    is_labelled = target != 0.5
    if not is_labelled.any():
        raise CurateError(f"nothing to evaluate on: {target.size} pairs, and no label among them prefers a side")
    return np.asarray(difference, dtype=np.float64)[is_labelled], np.asarray(groups)[is_labelled], target[is_labelled]


def _group_sums(difference: Floats, groups: NDArray[Any], target: Floats) -> Floats:
    """Sums over each group (or bundle of groups): pairs, correct, difference, nll, and the gap of each ECE bin.

    The gap is confidence minus correctness of the side that the model prefers. That does not depend on which side is
    called chosen, so one-sided tables (chosen first, always) are no special case.
    """
    names, cell = np.unique(groups, return_inverse=True)
    n_cells = min(names.size, MAX_CELLS)
    agreement = np.where(difference > 0, target, 1 - target)  # (pairs,) P(label takes the model's side)
    correct = np.where(difference == 0, 0.5, (difference > 0).astype(np.float64))
    softplus = np.logaddexp(0.0, -difference)  # -log sigma(d)
    nll = target * softplus + (1 - target) * (softplus + difference)
    confidence = 1 / (1 + np.exp(-np.abs(difference)))  # in [.5, 1]
    gap = confidence - np.where(difference == 0, 0.5, agreement)
    step = np.minimum(((confidence - 0.5) * 2 * N_BINS).astype(np.int64), N_BINS - 1)
    columns = [np.ones_like(difference), correct, difference, nll, *(gap * (step == k) for k in range(N_BINS))]
    sums = [np.bincount(cell % n_cells, weights=column, minlength=n_cells) for column in columns]
    return np.stack(sums, axis=1)  # (cells, 4 + N_BINS)


def _statistics(sums: Floats) -> dict[str, Floats]:
    """The four metrics from sums of shape (..., 4 + N_BINS), each (...)."""
    n_pairs = sums[..., 0]
    means = {name: sums[..., column] / n_pairs for column, name in enumerate(METRICS[:3], start=1)}
    return {**means, "ece": np.abs(sums[..., 4:]).sum(axis=-1) / n_pairs}


def _resample(sums: Floats, seed: int) -> Floats:
    """Sums over as many cells as there are, drawn with replacement: (resamples, columns), none for a single cell.

    Equal seeds draw the same cells, which is what pairs two models.
    """
    n_cells, n_columns = sums.shape
    if n_cells == 1:
        return np.empty((0, n_columns))
    draws = np.random.default_rng(seed).multinomial(n_cells, np.full(n_cells, 1 / n_cells), size=N_RESAMPLES)
    totals: Floats = np.einsum("rc,ck->rk", draws.astype(np.float64), sums)  # not matmul: one thread, one order of sums
    return totals


def interval(value: Any, resampled: Floats, reflect: bool = False) -> dict[str, float | None]:
    """The value with its 95 % interval; `reflect` for a statistic that resampling inflates.

    The ECE of a resample carries the sampling error of the bins twice, so its quantiles lie above the ECE itself; the
    basic bootstrap (reflected about the value) undoes that.
    """
    value = float(value)
    if not resampled.size:
        return {"value": value, "low": None, "high": None}
    low, high = (float(bound) for bound in np.quantile(resampled, [0.025, 0.975]))
    if reflect:
        low, high = max(0.0, 2 * value - high), max(0.0, 2 * value - low)
    return {"value": value, "low": low, "high": high}


def _counts(difference: Floats, groups: NDArray[Any]) -> dict[str, Any]:
    """How many pairs and groups the metrics stand on, and a note where the groups are too few for the interval."""
    n_groups = int(np.unique(groups).size)
    note = f"only {n_groups} prompt groups: the intervals are too narrow" if n_groups < FEWEST_GROUPS else None
    return {"n_pairs": int(difference.size), "n_groups": n_groups, "note": note}

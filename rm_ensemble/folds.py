"""Which pairs each model of the ensemble trains on, chooses on and scores. A model is one member and one fold.

Pairs that belong together (a prompt's, or only the identical ones) are one unit and never stand on both sides.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.errors import CurateError, unknown_choice
from curate.options import FOLDS_BY
from curate.pairs import is_tie, stable_hash, text_of

Ints = NDArray[np.int64]
N_PARTS = 3  # of a model's training units: what it chooses on, each part by a fit to the others


@dataclass(frozen=True)
class FoldPlan:
    """One member's folds: `fold` (pairs,) is the model that scores each pair, `weight` what the pair counts in its training.

    `weight` (pairs, folds) is 0 where a model never sees the pair; `part` (pairs, folds) deals each model's training units
    into N_PARTS parts for the choices that it makes.
    """

    fold: Ints
    weight: NDArray[np.float32]
    part: NDArray[np.int8]


def units(pairs: pl.DataFrame, folds_by: str) -> Ints:
    """(pairs,) numbers of the units that folds keep together, in the order of their sorted names.

    `prompt`: the group of the pair table. `pair`: the same two responses to the same prompt, in either order.
    """
    if folds_by not in FOLDS_BY:
        raise unknown_choice("--folds-by", folds_by, FOLDS_BY)
    names = pairs["group"].to_numpy()
    if folds_by == "pair":
        sides = pairs.select(text_of("prompt"), text_of("chosen"), text_of("rejected"))
        names = np.array([stable_hash("\x1f".join((prompt, *sorted(two)))) for prompt, *two in sides.iter_rows()])
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def may_train(pairs: pl.DataFrame) -> NDArray[np.bool_]:
    """(pairs,) true where a pair may teach a member: not held out and not a tie."""
    return pairs.select(~pl.col("is_heldout") & ~is_tie()).to_series().to_numpy()


def plan_folds(unit: Ints, teaches: NDArray[np.bool_], n_folds: int, rng: np.random.Generator) -> FoldPlan:
    """Deals the units to folds by size, largest first, ties in size at random; every fold's model scores what it did not see.

    Pairs that teach nobody because their whole unit is held out are dealt like the others, so that each is scored by one
    of the member's models. Refuses fewer teaching units than folds.
    """
    n_units = int(unit.max()) + 1 if len(unit) else 0
    sizes = np.bincount(unit[teaches], minlength=n_units)
    n_teaching = int((sizes > 0).sum())
    if n_teaching < max(n_folds, 2):
        raise CurateError(
            f"prompts with a label to learn from, ties and held-out ones aside: {n_teaching}, and {max(n_folds, 2)} folds need "
            "as many; give more data, fewer --folds or --folds-by pair, or run the checks alone: curate check DATA"
        )
    fold_of_unit = _deal(sizes, n_folds, rng)
    fold = fold_of_unit[unit]
    trains = teaches[:, None] & (fold[:, None] != np.arange(n_folds))
    return FoldPlan(fold, trains.astype(np.float32), _parts(unit, trains, rng))


def plan_in_sample(unit: Ints, teaches: NDArray[np.bool_], rng: np.random.Generator) -> FoldPlan:
    """One model that trains on every pair and scores every pair, as in the paper (S2).

    Members of the paper differ in the order of the data, which a convex fit does not feel: here each weighs the units at
    random, with mean 1 (the Bayesian bootstrap, Rubin 1981).
    """
    trains = teaches[:, None].copy()
    if not trains.any():
        raise CurateError("no pair to learn from: every label is a tie or held out")
    part = _parts(unit, trains, rng)
    chance = rng.exponential(size=int(unit.max()) + 1)[unit][:, None]
    return FoldPlan(np.zeros(len(unit), dtype=np.int64), (trains * chance).astype(np.float32), part)


def _deal(sizes: Ints, n_folds: int, rng: np.random.Generator) -> Ints:
    """(units,) fold of each unit: the largest first, each to the fold with the fewest pairs so far."""
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    load = np.zeros(n_folds, dtype=np.int64)
    first = rng.integers(n_folds)  # which fold is filled first is chance as well
    fold = np.empty(len(sizes), dtype=np.int64)
    for unit in order:
        fold[unit] = (first + int(np.argmin(np.roll(load, -first)))) % n_folds
        load[fold[unit]] += max(int(sizes[unit]), 1)
    return fold


def _parts(unit: Ints, trains: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int8]:
    """(pairs, models) part of each training pair's unit: as many units in each as can be, at random for each model."""
    parts = np.zeros(trains.shape, dtype=np.int8)
    for model in range(trains.shape[1]):
        teaching, place = np.unique(unit[trains[:, model]], return_inverse=True)
        parts[trains[:, model], model] = rng.permutation(len(teaching))[place] % N_PARTS
    return parts

"""Decisions -> the pairs that a reward model trains on, raw or curated, and the pairs that it is judged on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.errors import CurateError
from rm_ensemble.batches import Ints
from rm_ensemble.folds import may_train

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class PairTexts:
    """The distinct texts of a pair table, and the rows of each pair's chosen and rejected text, (pairs, 2)."""

    texts: pl.DataFrame
    index: Ints


@dataclass(frozen=True)
class Split:
    """Pairs to train on: `index` is (pairs, 2), the texts of chosen and rejected after flips; the rest is (pairs,)."""

    pair_id: NDArray[Any]
    group: NDArray[Any]
    index: Ints
    label_prob: Floats
    margin: Floats
    weight: Floats


def judged_pairs(pairs: pl.DataFrame, test: pl.DataFrame | None) -> pl.DataFrame:
    """The pairs to evaluate on: the held-out ones of the run, or `test`, which may not share a prompt with the run."""
    if test is None:
        heldout = pairs.filter("is_heldout")
        if heldout.is_empty():
            raise CurateError(
                "no held-out prompts in this run (fewer than 10 prompts, or --heldout-share 0): "
                "give labelled pairs of other prompts with --test FILE"
            )
        return heldout
    shared = test.filter(pl.col("group").is_in(pairs["group"].unique().implode()))
    if len(shared):
        raise CurateError(
            f"--test: {shared['group'].n_unique()} of its {test['group'].n_unique()} prompts are also in the run "
            f"(row {shared['pair_id'][0]}, say): take them out of one of the two"
        )
    return test


def raw_pairs(pairs: pl.DataFrame, index: Ints) -> Split:
    """Every pair that is neither held out nor a tie, with its label as given."""
    return _split(pairs.select("pair_id", "group", label_prob=1.0, margin=0.0, weight=1.0), index, may_train(pairs))


def curated_pairs(pairs: pl.DataFrame, decisions: pl.DataFrame, index: Ints) -> Split:
    """The same pairs after their decisions: dropped ones absent, flipped ones with their responses swapped.

    `label_prob`, `margin` and `weight` of a decision are already those of the pair after its flip.
    """
    action = decisions["action"].to_numpy()
    index = np.where((action == "flip")[:, None], index[:, ::-1], index)
    table = pairs.select("pair_id", "group").hstack(decisions.select("label_prob", "margin", "weight"))
    return _split(table, index, may_train(pairs) & (action != "drop"))


def difference(rewards: Callable[[Ints], Floats], index: Ints) -> Floats:
    """Reward of chosen minus rejected, (pairs,), for texts `index` (pairs, 2); each text is scored once.

    >>> difference(lambda rows: np.float32(10) * rows, np.array([[7, 5], [5, 6]])).tolist()
    [20.0, -10.0]
    """
    rows, place = np.unique(index, return_inverse=True)
    found = rewards(rows)[place.reshape(index.shape)]
    return found[:, 0] - found[:, 1]


def _split(table: pl.DataFrame, index: Ints, is_kept: NDArray[np.bool_]) -> Split:
    if not is_kept.any():
        raise CurateError("nothing to train on: every pair is held out, a tie, or dropped; choose another --policy")
    table = table.filter(is_kept)
    numbers = [np.array(table[name].cast(pl.Float32)) for name in ("label_prob", "margin", "weight")]
    return Split(table["pair_id"].to_numpy(), table["group"].to_numpy(), index[is_kept], *numbers)

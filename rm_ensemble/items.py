"""What the training loop draws: a pair, the pairs of a prompt, a ranked list or a rated response, all of the same table."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.errors import CurateError
from rm_ensemble.batches import Ints, Sequences
from rm_ensemble.splits import Split

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Items:
    """Items, each read whole in one forward pass: item i has the texts `rows[starts[i]:starts[i + 1]]` of `sequences`.

    `names` (items,) say which in messages, `group` (items,) is the prompt that each stands on. The pairs of item i are
    `pair_starts[i]:pair_starts[i + 1]` of `place` (pairs, 2), where its chosen and its rejected text are among the item's,
    and of `label_prob`, `margin` and `weight` (pairs,). `target` (texts,) is a rating, or a rank from 1, the best.
    """

    names: NDArray[Any]
    group: NDArray[Any]
    sequences: Sequences
    starts: Ints
    rows: Ints
    pair_starts: Ints
    place: Ints
    label_prob: Floats
    margin: Floats
    weight: Floats
    target: Floats

    def __len__(self) -> int:
        return len(self.names)

    @property
    def lengths(self) -> Ints:
        """(items,) tokens of the longest text of each item."""
        longest: Ints = np.maximum.reduceat(self.sequences.lengths[self.rows], self.starts[:-1])
        return longest


@dataclass(frozen=True)
class Batch:
    """Some items: `rows` (texts,) of their texts, `item` (texts,) and `item_of_pair` (pairs,) their number in the batch.

    `pairs` (pairs, 2) are places in `rows`, all else as in Items.
    """

    n_items: int
    rows: Ints
    item: Ints
    pairs: Ints
    item_of_pair: Ints
    label_prob: Floats
    margin: Floats
    weight: Floats
    target: Floats


def batch_of(items: Items, numbers: Ints) -> Batch:
    """The items of these numbers, in this order."""
    texts, item = _ranges(items.starts, numbers)
    pairs, item_of_pair = _ranges(items.pair_starts, numbers)
    first = np.concatenate([[0], np.cumsum(np.bincount(item, minlength=len(numbers)))])[:-1]
    return Batch(
        len(numbers),
        items.rows[texts],
        item,
        items.place[pairs] + first[item_of_pair, None],
        item_of_pair,
        items.label_prob[pairs],
        items.margin[pairs],
        items.weight[pairs],
        items.target[texts],
    )


def pair_items(split: Split, sequences: Sequences, by_prompt: bool = False) -> Items:
    """An item for each pair of a split, or for all pairs of a prompt, whose texts are then each read once.

    The texts of the split are those that `sequences.index` has the rows of.
    """
    rows = sequences.index[split.index]  # (pairs, 2)
    names = np.asarray(split.group if by_prompt else split.pair_id).astype(str)
    unit = np.unique(names, return_inverse=True)[1].astype(np.int64) if by_prompt else np.arange(len(names))
    order = np.argsort(unit, kind="stable")
    unit, rows = unit[order], rows[order]
    n_rows = len(sequences.lengths)
    texts, place = np.unique(unit[:, None] * n_rows + rows, return_inverse=True)
    starts = _starts(texts // n_rows, int(unit[-1]) + 1)
    pair_starts = _starts(unit, int(unit[-1]) + 1)
    first = order[pair_starts[:-1]]
    return Items(
        names[first],
        split.group[first],
        sequences,
        starts,
        texts % n_rows,
        pair_starts,
        place.reshape(-1, 2) - starts[unit, None],
        split.label_prob[order],
        split.margin[order],
        split.weight[order],
        np.zeros(len(texts), np.float32),
    )


def graded_items(graded: pl.DataFrame, sequences: Sequences, form: str) -> Items:
    """Ranked lists (`plackett-luce`) or rated responses (`pointwise`) of the table of `graded_texts`.

    Ratings are brought to mean 0 and standard deviation 1, so that a reward has a size that a model can reach. Refused with
    a CurateError: ratings that are all equal, and no list of two responses that differ.
    """
    if form == "pointwise":
        grade = graded["grade"].to_numpy()
        if not grade.std() > 1e-9:
            raise CurateError("--form pointwise: all ratings are equal; choose another --form, or rate the responses")
        target, unit = (grade - grade.mean()) / grade.std(), np.arange(len(graded))
    else:
        graded = graded.filter(pl.col("grade").n_unique().over("list") > 1).sort("list", maintain_order=True)
        if graded.is_empty():
            raise CurateError(
                f"--form {form}: no prompt has two responses that rank differently; choose --form pairwise"
            )
        target = graded.select(pl.col("grade").rank("min", descending=True).over("list")).to_series().to_numpy()
        unit = graded["list"].rank("dense").to_numpy().astype(np.int64) - 1
    starts = _starts(unit, int(unit[-1]) + 1)
    rows, group = sequences.index[graded["text"].to_numpy()], graded["group"].to_numpy()[starts[:-1]]
    nowhere, empty = np.zeros(len(starts), np.int64), np.zeros(0, np.float32)
    place = np.zeros((0, 2), np.int64)
    targets = np.asarray(target, dtype=np.float32)
    return Items(group, group, sequences, starts, rows, nowhere, place, empty, empty, empty, targets)


def part_of(items: Items, numbers: Ints) -> Items:
    """Some of the items, in this order."""
    texts, item = _ranges(items.starts, numbers)
    pairs, item_of_pair = _ranges(items.pair_starts, numbers)
    return Items(
        items.names[numbers],
        items.group[numbers],
        items.sequences,
        _starts(item, len(numbers)),
        items.rows[texts],
        _starts(item_of_pair, len(numbers)),
        items.place[pairs],
        items.label_prob[pairs],
        items.margin[pairs],
        items.weight[pairs],
        items.target[texts],
    )


def micro_batches(batch: Ints, n_parts: int) -> Iterator[Ints]:
    """A batch of item numbers in parts of nearly equal size, at most as many as it has items.

    >>> [part.tolist() for part in micro_batches(np.array([7, 8, 9]), 2)]
    [[7, 8], [9]]
    """
    yield from np.array_split(batch, min(n_parts, len(batch)))


def _starts(unit: Ints, n_units: int) -> Ints:
    """(n_units + 1,) where each unit begins in a sorted column of unit numbers, and its end.

    >>> _starts(np.array([0, 0, 2]), 3).tolist()
    [0, 2, 2, 3]
    """
    return np.asarray(np.searchsorted(unit, np.arange(n_units + 1)), dtype=np.int64)


def _ranges(starts: Ints, numbers: Ints) -> tuple[Ints, Ints]:
    """The positions `starts[i]:starts[i + 1]` of each i of `numbers`, end to end, and which of them each belongs to.

    >>> [found.tolist() for found in _ranges(np.array([0, 2, 5]), np.array([1, 0]))]
    [[2, 3, 4, 0, 1], [0, 0, 0, 1, 1]]
    """
    sizes = starts[numbers + 1] - starts[numbers]
    which = np.repeat(np.arange(len(numbers)), sizes)
    within = np.arange(len(which)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return starts[numbers][which] + within, which

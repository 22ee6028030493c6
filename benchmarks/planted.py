"""Real pairs with errors that are known: planted into trusted labels, or made by people and known from other votes.

A sample holds every pair in the orientation that is trusted (chosen = better); a labelling is `is_wrong` (pairs,), true where
the label that the tool sees is the other way round. Features are computed once per set and cached.
"""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from curate.formats import LoadOptions, read_pairs
from curate.intervals import length_difference
from curate.options import FeatureOptions, VoteOptions
from curate.pairs import is_tie
from curate.strength import one_scale
from rm_ensemble.batches import unique_texts
from rm_ensemble.features import features
from rm_ensemble.heads import PairTargets, PairWeights, linear_path, train_heads
from rm_ensemble.inputs import HeadInputs, text_effects
from rm_ensemble.text_features import text_features
from rm_ensemble.votes import plan_members

FEWEST_VOTES = 4


class Sample(NamedTuple):
    """Pairs in the trusted orientation and what heads read of them."""

    pairs: pl.DataFrame
    index: np.ndarray  # (pairs, 2) better and worse text
    inputs: np.ndarray  # (texts, dims)

    def part(self, rows: np.ndarray) -> "Sample":
        """Some of the pairs, (n,) positions or (pairs,) bool."""
        return self._replace(pairs=self.pairs[np.arange(len(self.index))[rows].tolist()], index=self.index[rows])

    def turned(self, is_wrong: np.ndarray) -> "Sample":
        """The same pairs with the two sides changed where true."""
        sides = ("chosen", "rejected")
        swapped = [pl.when(pl.lit(pl.Series(is_wrong))).then(b).otherwise(a).alias(a) for a, b in (sides, sides[::-1])]
        return self._replace(
            pairs=self.pairs.with_columns(swapped), index=np.where(is_wrong[:, None], self.index[:, ::-1], self.index)
        )

    @property
    def n_pairs(self) -> int:
        return len(self.index)

    @property
    def groups(self) -> np.ndarray:
        return self.pairs["group"].to_numpy()


def sample(data: Path, name: str, cache: Path, n_pairs: int | None = None) -> Sample:
    """A set of the data folder (`hh_rlhf_test harmless-base` for one category), without ties; or whole prompts of it at
    random until there are `n_pairs`.
    """
    file, _, category = name.partition(" ")
    pairs = read_pairs(str(data / f"{file}.jsonl.gz"), LoadOptions(heldout_share=0.0)).pairs.filter(~is_tie())
    if category:
        pairs = pairs.filter([json.loads(extra)["meta"]["category"] == category for extra in pairs["extra"]])
    if n_pairs is not None:
        groups = np.random.default_rng(0).permutation(pairs["group"].unique().sort().to_numpy())
        sizes = pl.DataFrame({"group": groups}).join(pairs.group_by("group").len(), on="group", maintain_order="left")
        taken = sizes.filter(pl.col("len").cum_sum() - pl.col("len") < n_pairs)["group"]
        pairs = pairs.filter(pl.col("group").is_in(taken.implode()))
    return _read(pairs, cache)


def _read(pairs: pl.DataFrame, cache: Path) -> Sample:
    texts, index = unique_texts(pairs)
    read = features(texts, FeatureOptions(), cache)
    text = text_features(texts)
    return Sample(pairs, index, HeadInputs.fit(read.blocks, text, index)(read.blocks, text))


def arguments(data: Path, cache: Path) -> tuple[Sample, list[list[float]]]:
    """ukp_convarg's pairs with at least four votes that are no ties, response a first, and those votes (1 = a)."""
    with gzip.open(data / "ukp_convarg.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    voted = [(row, [vote for vote in row["votes"] if vote != 0.5]) for row in rows]
    voted = [(row, votes) for row, votes in voted if len(votes) >= FEWEST_VOTES]
    texts = [
        {name: row[name] for name in ("id", "prompt", "response_a", "response_b")} | {"label": 1.0} for row, _ in voted
    ]
    pairs = read_pairs(pl.DataFrame(texts), LoadOptions(heldout_share=0.0)).pairs
    sides = pl.Series("side", [row["meta"]["category"] for row, _ in voted])
    return _read(pairs.with_columns(sides), cache), [votes for _, votes in voted]


def natural(everything: tuple[Sample, list[list[float]]], seed: int) -> tuple[Sample, np.ndarray]:
    """The natural noise of DATA.md: one vote at random is the label, the others, where unanimous, are the gold."""
    whole, all_votes = everything
    rng = np.random.default_rng(seed)
    kept, gold_is_a, is_wrong = [], [], []
    for i, votes in enumerate(all_votes):
        rest = list(votes)
        label = rest.pop(int(rng.integers(len(rest))))
        if len(set(rest)) == 1:
            kept.append(i), gold_is_a.append(rest[0] == 1.0), is_wrong.append(label != rest[0])
    return whole.part(np.array(kept)).turned(~np.array(gold_is_a)), np.array(is_wrong)


def plant(kind: str, rate: float, sample: Sample, clear: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(pairs,) true where the label is turned round: `rate` of all pairs, of a kind of METHODS.md section 7.

    `uniform`: any pairs. `near-tie`: from the twice as many with the smallest `clear` (pairs,). `longer`: pairs whose better
    response is the shorter one (all of them, where they are fewer). `side`: all pairs of one prompt (rate is not used).
    """
    n = round(rate * sample.n_pairs)
    if kind == "side":
        return np.asarray(sample.groups == rng.choice(np.unique(sample.groups)))
    may = {
        "uniform": np.arange(sample.n_pairs),
        "near-tie": np.argsort(clear, kind="stable")[: 2 * n],
        "longer": np.flatnonzero(length_difference(sample.pairs) < 0),
    }[kind]
    planted = np.zeros(sample.n_pairs, dtype=bool)
    planted[rng.choice(may, min(n, len(may)), replace=False)] = True
    return planted


class Votes(NamedTuple):
    """What the members say of the labels as given: `raw` differences and the `fold` that gave each, (pairs, members)."""

    raw: np.ndarray
    fold: np.ndarray
    averaged: (
        np.ndarray
    )  # (pairs,) of the model whose weights are the mean of all models', whether they saw the pair or not
    along: np.ndarray  # (pairs,) of the first member in training, averaged over its path from the strongest penalty on

    @property
    def scaled(self) -> np.ndarray:
        """One scale per trained model, (pairs, members)."""
        return one_scale(self.raw, self.fold)

    @property
    def mean(self) -> np.ndarray:
        """strength_mean, (pairs,)."""
        return np.asarray(self.scaled.mean(axis=1))


def vote(sample: Sample, is_wrong: np.ndarray, **options: Any) -> Votes:
    """The ensemble's votes on a labelling, as `curate vote` casts them; `options` are those of VoteOptions."""
    chosen = VoteOptions(**options)
    given = sample.turned(is_wrong)
    inputs = given.inputs
    if chosen.folds_by == "pair":
        inputs = np.concatenate([inputs, text_effects(given.index, len(inputs))], axis=1)
    plans, seeds = plan_members(given.pairs, chosen)
    targets = PairTargets(given.index, np.ones(given.n_pairs, np.float32), np.zeros(given.n_pairs, np.float32))
    weights = PairWeights(
        *(np.concatenate([getattr(plan, name) for plan in plans], axis=1) for name in ("weight", "part"))
    )
    heads = train_heads(inputs, targets, weights, seeds=seeds)
    rewards = heads.rewards(inputs)
    fold = np.stack([plan.fold for plan in plans], axis=1)
    model = fold + plans[0].weight.shape[1] * np.arange(len(plans))
    raw = (rewards[given.index[:, :1], model] - rewards[given.index[:, 1:], model]).astype(np.float64)
    apart = inputs[given.index[:, 0]] - inputs[given.index[:, 1]]
    averaged = (apart @ heads.arrays["linear"].mean(axis=1)).astype(np.float64)
    path = linear_path(apart, targets, weights.weight[:, :1])
    along = one_scale((apart @ path).astype(np.float64), np.zeros((given.n_pairs, path.shape[1]))).mean(axis=1)
    return Votes(raw, fold, averaged, along)


def table(rows: list[Mapping[str, Any]]) -> str:
    """Rows of equal keys as a Markdown table; numbers are formatted by who makes the rows."""
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    return "\n".join([*lines, *(f"| {' | '.join(str(row[name]) for name in names)} |" for row in rows)])

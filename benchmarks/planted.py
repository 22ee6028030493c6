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

from benchmarks.natural_noise import FEWEST_VOTES, drawn_vote
from curate.formats import LoadOptions, read_pairs
from curate.intervals import length_difference
from curate.options import FeatureOptions, VoteOptions
from curate.pairs import is_tie
from curate.strength import one_scale
from rm_ensemble.batches import unique_texts
from rm_ensemble.features import features
from rm_ensemble.inputs import HeadInputs
from rm_ensemble.text_features import text_features
from rm_ensemble.votes import Ensemble, plan_members, train_ensemble, with_text_effects


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
    pairs = read_set(data, name).filter(~is_tie())
    return _read(pairs if n_pairs is None else whole_prompts(pairs, n_pairs), cache)


def read_set(data: Path, name: str) -> pl.DataFrame:
    """The pair table of a set of the data folder, or of one category of it: `hh_rlhf_test harmless-base`."""
    file, _, category = name.partition(" ")
    pairs = read_pairs(str(data / f"{file}.jsonl.gz"), LoadOptions(heldout_share=0.0)).pairs
    if not category:
        return pairs
    return pairs.filter([json.loads(extra)["meta"]["category"] == category for extra in pairs["extra"]])


def whole_prompts(pairs: pl.DataFrame, n_pairs: int) -> pl.DataFrame:
    """The pairs of prompts in random order, until there are `n_pairs`."""
    groups = np.random.default_rng(0).permutation(pairs["group"].unique().sort().to_numpy())
    sizes = pl.DataFrame({"group": groups}).join(pairs.group_by("group").len(), on="group", maintain_order="left")
    taken = sizes.filter(pl.col("len").cum_sum() - pl.col("len") < n_pairs)["group"]
    return pairs.filter(pl.col("group").is_in(taken.implode()))


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
        label, gold = drawn_vote(votes, rng)
        if gold is not None:
            kept.append(i), gold_is_a.append(gold == 1.0), is_wrong.append(label != gold)
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

    @property
    def scaled(self) -> np.ndarray:
        """One scale per trained model, (pairs, members)."""
        return one_scale(self.raw, self.fold)

    @property
    def mean(self) -> np.ndarray:
        """strength_mean, (pairs,)."""
        return np.asarray(self.scaled.mean(axis=1))


def train_on(given: Sample, **options: Any) -> Ensemble:
    """The ensemble that `curate vote` trains on a sample's labels; `options` are those of VoteOptions."""
    chosen = VoteOptions(**options)
    inputs = with_text_effects(given.inputs, given.index, chosen.folds_by)
    return train_ensemble(inputs, given.index, *plan_members(given.pairs, chosen))


def votes_of(ensemble: Ensemble, given: Sample) -> Votes:
    """The votes that `curate vote` writes."""
    rewards = ensemble.rewards(given.index).astype(np.float64)
    return Votes(rewards[..., 0] - rewards[..., 1], ensemble.fold)


def vote(sample: Sample, is_wrong: np.ndarray, **options: Any) -> Votes:
    """The ensemble's votes on a labelling, as `curate vote` casts them; `options` are those of VoteOptions."""
    given = sample.turned(is_wrong)
    return votes_of(train_on(given, **options), given)


def table(rows: list[Mapping[str, Any]]) -> str:
    """Rows of equal keys as a Markdown table; numbers are formatted by who makes the rows."""
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    return "\n".join([*lines, *(f"| {' | '.join(str(row[name]) for name in names)} |" for row in rows)])

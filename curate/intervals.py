"""Intervals of data-set-level numbers: bootstrap over prompt groups, since pairs of one prompt are not independent."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

N_RESAMPLES = 2000
MOST_CLUSTERS = 20_000  # more groups than this are drawn in bundles: bounded time, the same spread
FEWEST_GROUPS = 20  # with fewer groups the cluster bootstrap is too narrow (METHODS.md section 6)


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, and the numbers of pairs and prompt groups behind it."""

    value: float
    low: float
    high: float
    n_pairs: int
    n_groups: int

    @property
    def is_too_narrow(self) -> bool:
        """True where there are too few groups for the interval to be trusted."""
        return self.n_groups < FEWEST_GROUPS

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def cluster_bootstrap(
    values: np.ndarray, groups: np.ndarray, seed: int = 0, most_clusters: int = MOST_CLUSTERS
) -> Estimate | None:
    """Mean of `values` with the percentile interval of resampled groups; None where there is no value.

    `values` is (pairs,), `groups` (pairs,) any labels. Each of the resamples draws as many groups as there are, with
    replacement, and takes the mean over their pairs. Sums run in float64 in the order of the sorted group labels. More
    groups than `most_clusters` are drawn in bundles.

    >>> cluster_bootstrap(np.array([1.0, 1.0, 0.0, 1.0]), np.array(["a", "a", "b", "b"])).value
    0.75
    """
    if len(values) == 0:
        return None
    position, n_groups = clusters(groups, most_clusters)
    sums = np.bincount(position, weights=values.astype(np.float64))
    sizes = np.bincount(position).astype(np.float64)
    # einsum, because a product of whole numbers with floats by @ takes five times as long
    sums_and_sizes = ((np.einsum("i,i", times, part) for part in (sums, sizes)) for times in resamples(len(sums), seed))
    means = np.array([total / n for total, n in sums_and_sizes])
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(sums.sum() / sizes.sum()), float(low), float(high), len(values), n_groups)


def clusters(groups: np.ndarray, most_clusters: int = MOST_CLUSTERS) -> tuple[np.ndarray, int]:
    """(pairs,) the cluster of each pair, from 0, and how many groups there are: a cluster is a group, or a bundle of them."""
    names, position = np.unique(groups, return_inverse=True)
    return position % most_clusters, len(names)


def resamples(n_clusters: int, seed: int) -> Iterator[np.ndarray]:
    """How often each cluster is drawn, (clusters,), in each resample: as many draws as clusters, with replacement.

    One at a time: a (resamples, clusters) matrix would not fit large data.
    """
    rng = np.random.default_rng(seed)
    for _ in range(N_RESAMPLES):
        yield np.bincount(rng.integers(0, n_clusters, n_clusters), minlength=n_clusters)


def agreement_with_label(differences: np.ndarray) -> np.ndarray:
    """1 where a difference agrees with the label, 0 where it does not, one half where it is exactly 0.

    >>> agreement_with_label(np.array([0.3, -0.2, 0.0])).tolist()
    [1.0, 0.0, 0.5]
    """
    return np.asarray((np.sign(differences) + 1) / 2)


def length_difference(pairs: pl.DataFrame) -> np.ndarray:
    """The length null of `length_lead`, (pairs,)."""
    return pairs.select(length_lead()).to_series().to_numpy()


def length_lead() -> pl.Expr:
    """The length null: log length of the chosen response minus that of the rejected one, nothing trained.

    Lengths are in characters, plus 1 so that an empty response counts. Positive = the label prefers the longer text.
    """
    n_chars = pl.element().struct.field("content").str.len_chars()
    chosen, rejected = ((pl.col(side).list.eval(n_chars).list.sum() + 1.0).log() for side in ("chosen", "rejected"))
    return chosen - rejected

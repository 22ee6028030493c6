"""What every ensemble writes of its votes, however its members are made."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

N_PROBE_TEXTS = 16


def member_table(pair_ids: pl.Series, rewards: Floats, fold: Ints, scoring: str) -> pl.DataFrame:
    """A votes file: the rewards (pairs, 2) that a member gives both responses by the model of the pair's fold (pairs,)."""
    return pl.DataFrame(
        {
            "pair_id": pair_ids,
            "reward_chosen": rewards[:, 0],
            "reward_rejected": rewards[:, 1],
            "fold": fold.astype(np.int16),
            "is_out_of_fold": np.full(len(pair_ids), scoring == "out-of-fold"),
        }
    )


def probe_rows(n_texts: int) -> Ints:
    """A few texts that are scored once more among others, to see how much a reward depends on its batch.

    >>> probe_rows(3).tolist()
    [0, 1, 2]
    """
    return np.unique(np.linspace(0, n_texts - 1, N_PROBE_TEXTS).astype(np.int64))

"""Several reward models as one (METHODS.md section 4): rewards on one scale, then their mean, worst case or a cautious mean."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from curate.errors import CurateError
from curate.options import ScoreOptions
from curate.run import Progress, no_progress
from rm_ensemble.artefact import loader, rewards
from rm_ensemble.batches import unique_texts

Floats = NDArray[np.float64]


def score_together(
    models: Sequence[Path], pairs: pl.DataFrame, combining: ScoreOptions, progress: Progress = no_progress
) -> pl.DataFrame:
    """The combined rewards of both responses of each pair, and each model's own: one row per pair, in their order.

    Columns: `pair_id`, `reward_chosen`, `reward_rejected` (the combination, float64), then `reward_chosen_1`,
    `reward_rejected_1`, ... (float32, as each model gives them, in the order of `models`). Refused with a CurateError: a
    folder without a reward model, before anything is scored, and a model that gives all texts the same reward.
    """
    texts, index = unique_texts(pairs)
    own = model_rewards(models, texts, progress, combining.deterministic)
    scaled = np.stack([standardised(own[:, i], str(model)) for i, model in enumerate(models)], axis=1)
    rewards_of: dict[str, NDArray[Any]] = {
        "": combined(scaled, combining),
        **{f"_{i + 1}": own[:, i] for i in range(len(models))},
    }
    columns = {
        f"reward_{side}{model}": reward[index[:, i]]
        for model, reward in rewards_of.items()
        for i, side in enumerate(("chosen", "rejected"))
    }
    return pl.DataFrame({"pair_id": pairs["pair_id"], **columns})


def model_rewards(
    models: Sequence[Path], texts: pl.DataFrame, progress: Progress = no_progress, is_alone: bool = False
) -> NDArray[np.float32]:
    """The reward of each text by each model, (texts, models); one model is in memory at a time."""
    loaders = [loader(folder) for folder in models]

    def of_model(number: int, folder: Path) -> NDArray[np.float32]:
        model = loaders[number](folder)
        return rewards(model, texts, lambda what, *done: progress(f"model {number + 1}: {what}", *done), is_alone)

    return np.stack([of_model(number, folder) for number, folder in enumerate(models)], axis=1)


def standardised(reward: ArrayLike, model: str) -> Floats:
    """(texts,) rewards of one model shifted and scaled to mean 0 and standard deviation 1 (population), in float64.

    Rewards that are all equal, or not finite, have no such scale: CurateError with the name of the model.

    >>> standardised([1.0, 3.0], "rm").tolist()
    [-1.0, 1.0]
    """
    values = np.asarray(reward, dtype=np.float64)
    if not 0 < np.ptp(values) < np.inf:
        raise CurateError(
            f"{model}: gives all {len(values):,} texts the same reward, or one that is no number; leave that model out"
        )
    centred = values - values.mean()
    return np.asarray(centred / np.sqrt(np.square(centred).mean()))


def combined(scaled: Floats, combining: ScoreOptions) -> Floats:
    """(texts,) one reward from standardised ones, (texts, models), as the options say.

    `mean-std` is the mean minus `k` population standard deviations over the models: a text on which they differ is
    worth less.

    >>> scaled = np.array([[1.0, -1.0], [0.5, 0.5]])
    >>> [combined(scaled, ScoreOptions(how)).tolist() for how in ("mean", "min", "mean-std")]
    [[0.0, 0.5], [-1.0, 0.5], [-1.0, 0.5]]
    >>> combined(scaled, ScoreOptions("weighted", weights="3,1")).tolist()   # (3 - 1) / 4, 4 * .5 / 4
    [0.5, 0.5]
    """
    match combining.combine:
        case "min":
            return np.asarray(scaled.min(axis=1))
        case "mean-std":
            return np.asarray(scaled.mean(axis=1) - combining.k * scaled.std(axis=1))
        case "weighted":
            weights = np.array(combining.weights_of(scaled.shape[1]))
            return np.asarray((scaled * weights).sum(axis=1) / weights.sum())
    return np.asarray(scaled.mean(axis=1))

"""The model folder: which kind of reward model is in it, scores from it, and a check that saving lost nothing."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.errors import CurateError
from curate.run import Progress, no_progress, replace_folder
from rm_ensemble.batches import unique_texts
from rm_ensemble.classifier import Classifier, classifier_rewards, load_classifier, save_classifier
from rm_ensemble.head_model import HeadModel, head_rewards, load_head, save_head

Floats = NDArray[np.float32]
RewardModel = Classifier | HeadModel

SAME_REWARD = 1e-4  # a reloaded model may differ by this much, no more


def score(model: Path, pairs: pl.DataFrame, progress: Progress = no_progress, is_alone: bool = False) -> pl.DataFrame:
    """The rewards that a saved model gives both responses of each pair: `pair_id`, `reward_chosen`, `reward_rejected`.

    The rewards are float32, the rows those of `pairs` in their order. A folder that holds no reward model, or a damaged
    one, is refused with a CurateError.
    """
    texts, index = unique_texts(pairs)
    found = rewards(load(model), texts, progress, is_alone)
    return pl.DataFrame(
        {"pair_id": pairs["pair_id"], "reward_chosen": found[index[:, 0]], "reward_rejected": found[index[:, 1]]}
    )


def rewards(
    model: RewardModel, texts: pl.DataFrame, progress: Progress = no_progress, is_alone: bool = False
) -> Floats:
    """The reward of each text of a `prompt`, `response` table: (texts,) float32; `is_alone` in a batch of its own each."""
    if isinstance(model, HeadModel):
        return head_rewards(model, texts, progress, is_alone)
    return classifier_rewards(model, texts, progress, is_alone)


def load(folder: Path) -> RewardModel:
    """The reward model of a folder, whichever kind it is."""
    return loader(folder)(folder)


def loader(folder: Path) -> Callable[[Path], RewardModel]:
    """What reads the kind of reward model that is in a folder; one without a model is refused before anything is read."""
    if (folder / "head.json").is_file():
        return load_head
    if (folder / "config.json").is_file():
        return load_classifier
    raise CurateError(
        f"{folder}: no reward model there (no config.json, no head.json); make one with: curate retrain RUN --to {folder}"
    )


def save(model: RewardModel, folder: Path, probe: pl.DataFrame) -> None:
    """Write a reward model, read it back, and refuse one that no longer gives the probe texts the same rewards.

    Lost or re-initialised heads are the most common reward-model bug in trackers (INTEROP.md).
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, HeadModel):
        save_head(model, folder)
    else:
        save_classifier(model, folder)
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)  # safetensors writes files that only their owner can read
    difference = np.abs(rewards(load(folder), probe) - rewards(model, probe)).max()
    if not difference < SAME_REWARD:
        raise CurateError(f"{folder}: the saved model scores differently from the trained one, by {difference:.2g}")


def share_backbone(folder: Path, other: Path) -> None:
    """Let two head models keep one copy of their backbone on disk (hard links), where the file system can."""
    for file in (folder / "backbone").glob("*"):
        with suppress(OSError):
            file.with_suffix(".link").hardlink_to(other / "backbone" / file.name)
            file.with_suffix(".link").replace(file)


@contextmanager
def whole_folder(to: Path) -> Iterator[Path]:
    """A new folder beside `to` that takes its place when the block ends well, and is removed when it does not."""
    partial = to.with_name(f".{to.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        replace_folder(partial, to)
    finally:
        shutil.rmtree(partial, ignore_errors=True)

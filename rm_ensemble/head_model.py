"""A reward model made of a frozen backbone and a head on its features: trained, saved and read back, and its rewards.

The head reads hidden states of several layers and cheap text features, which no class of transformers does: the saved
folder is for `curate score` and says so.
"""

import shutil
from dataclasses import replace
from json import loads
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from curate.errors import CurateError
from curate.options import FeatureOptions
from curate.run import Progress, no_progress, sha256_of, write_json
from rm_ensemble.backbone import MODEL_FILES, find_backbone, fingerprint, verify_files
from rm_ensemble.features import features
from rm_ensemble.folds import plan_in_sample
from rm_ensemble.heads import HeadOptions, Heads, PairTargets, PairWeights, train_heads
from rm_ensemble.inputs import HeadInputs
from rm_ensemble.splits import Split
from rm_ensemble.text_features import text_features

Floats = NDArray[np.float32]

FORMAT_VERSION = 1
LOADS_HERE_ONLY = (
    "A reward head of prefcurate on a frozen backbone. It reads several layers and text features, so stock transformers "
    "(AutoModelForSequenceClassification) cannot load it: use `curate score MODEL DATA --to FILE`, or retrain with "
    "--train full for a model that loads everywhere."
)
N_TWO_LAYER = 4  # heads that are averaged, each stopped on other prompts
FEWEST_STEPS, FEWEST_BATCH_PAIRS = 16, 16  # small data: smaller batches, or a two-layer head hardly moves


class HeadModel(NamedTuple):
    """One head, the map from features to its inputs, and how the features are made."""

    heads: Heads
    inputs: HeadInputs
    features: FeatureOptions


def train_head(
    inputs: Floats, split: Split, options: HeadOptions, *, seed: int, progress: Progress = no_progress
) -> Heads:
    """One head on inputs (texts, dims); a two-layer one is several side by side, each stopped on other prompts.

    A single part of the prompts is a noisy guide to the moment to stop, and costs its pairs; the average is again one head.
    """
    plans, seeds = [], []
    unit = np.unique(split.group, return_inverse=True)[1].astype(np.int64)
    for child in np.random.SeedSequence(seed).spawn(N_TWO_LAYER if options.hidden else 1):
        plans.append(plan_in_sample(unit, np.ones(len(unit), dtype=bool), np.random.default_rng(child)))
        seeds.append(int(child.generate_state(1)[0]))
    part = np.concatenate([plan.part for plan in plans], axis=1)
    weights = PairWeights(np.repeat(split.weight[:, None], len(plans), axis=1), part)
    few = max(FEWEST_BATCH_PAIRS, len(unit) // FEWEST_STEPS)
    options = replace(options, batch_pairs=min(options.batch_pairs, few))
    targets = PairTargets(split.index, split.label_prob, split.margin)
    heads = train_heads(inputs, targets, weights, options, tuple(seeds), progress)
    return side_by_side(heads) if options.hidden else heads


def side_by_side(heads: Heads) -> Heads:
    """The single two-layer head whose reward is the mean reward of all."""
    arrays = heads.arrays
    n_models = len(arrays["second"])
    first = np.concatenate(list(arrays["first"]), axis=1)[None]  # (1, dims, models x hidden)
    bias, second = (arrays[name].reshape(1, -1) for name in ("bias", "second"))
    return Heads({"first": first, "bias": bias, "second": second / np.float32(n_models)}, heads.settings)


def head_rewards(
    model: HeadModel, texts: pl.DataFrame, progress: Progress = no_progress, is_alone: bool = False
) -> Floats:
    """The reward of each text of a `prompt`, `response` table, (texts,) float32; runs the backbone over all of them."""
    read = features(texts, replace(model.features, deterministic=is_alone), None, progress)
    rewards: Floats = model.heads.rewards(model.inputs(read.blocks, text_features(texts)))[:, 0]
    return rewards


def save_head(model: HeadModel, folder: Path) -> None:
    """Write `backbone/` (a copy), `head.safetensors`, and last `head.json`, which says what they must hash to."""
    source = find_backbone(model.features.backbone)
    (folder / "backbone").mkdir()
    for file in sorted({file for pattern in MODEL_FILES for file in source.folder.glob(pattern)}):
        shutil.copyfile(file, folder / "backbone" / file.name)
    tensors = {f"inputs.{name}": array for name, array in model.inputs.arrays.items()}
    tensors |= {f"head.{name}": array for name, array in model.heads.arrays.items()}
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, folder / "head.safetensors")
    write_json(
        {
            "format_version": FORMAT_VERSION,
            "what": LOADS_HERE_ONLY,
            "blocks": list(model.features.blocks),
            "max_tokens": model.features.max_tokens,
            "dtype": model.features.dtype,
            "shapes": {name: list(array.shape) for name, array in sorted(tensors.items())},
            "choices": model.heads.settings,
            "sha256": {"head.safetensors": sha256_of(folder / "head.safetensors"), **_backbone_hashes(folder)},
        },
        folder / "head.json",
    )


def load_head(folder: Path) -> HeadModel:
    """The head model of a folder; a file that is missing or not the one that was saved is refused."""
    try:
        record = loads((folder / "head.json").read_text(encoding="utf-8"))
        features_read = FeatureOptions(
            str(folder / "backbone"), record["max_tokens"], record["dtype"], tuple(record["blocks"])
        )
        hashes = dict(record["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise CurateError(f"{folder / 'head.json'}: damaged ({error}); retrain the model with --overwrite") from error
    verify_files(folder, hashes)
    try:
        tensors = load_file(folder / "head.safetensors")
    except (OSError, SafetensorError) as error:
        raise CurateError(f"{folder / 'head.safetensors'}: {error}; retrain the model with --overwrite") from error
    inputs, head = (_part(tensors, name) for name in ("inputs.", "head."))
    return HeadModel(Heads(head, record["choices"]), HeadInputs(inputs), features_read)


def _part(tensors: dict[str, Floats], prefix: str) -> dict[str, Floats]:
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def _backbone_hashes(folder: Path) -> dict[str, str]:
    prints = fingerprint(find_backbone(str(folder / "backbone")))
    return {f"backbone/{name}": digest for name, digest in prints.items()}

"""What a head reads: feature blocks and text features, scaled without looking at labels, and how the prompt bends them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rm_ensemble.batches import Ints

Floats = NDArray[np.float32]

PROMPT_AXES = 8  # principal axes of the prompts that the text features interact with
WIDEST = 8.0  # in standard deviations: an outlier feature may not own a reward
MOST_TEXT_EFFECTS = 2000
MOST_EFFECT_NUMBERS = 200_000_000  # of the dense matrix of text effects: 800 MB
SMALLEST_SPREAD = 1e-3  # a feature whose pairs differ less than this share of its spread says nothing about a choice


@dataclass(frozen=True)
class HeadInputs:
    """The map from the features of a text to the inputs of a head, fitted on a pair table but not on its labels.

    Every block is scaled so that its differences within pairs have a mean square norm of 2, so that a penalty means the
    same for all blocks; the hidden states by one number, which leaves their directions as they are, the text features
    one by one. Text features also enter multiplied by the prompt's principal axes: what a good length is depends on
    the question.
    """

    arrays: dict[str, Floats]

    @classmethod
    def fit(cls, blocks: Mapping[str, Floats], text: Floats | None, index: Ints) -> "HeadInputs":
        """From blocks of (texts, width), text features (texts, n) or none, and the two texts of each pair (pairs, 2)."""
        arrays: dict[str, Floats] = {}
        for name, block in _response_blocks(blocks, text).items():
            arrays[f"{name}.center"] = block.mean(axis=0)
            arrays[f"{name}.scale"] = _scale(block, index, is_joint=name != "text")
        prompt = _prompt_block(blocks)
        if text is not None and prompt is not None:
            arrays["prompt.center"] = prompt.mean(axis=0)
            arrays["prompt.axes"] = _axes(prompt - arrays["prompt.center"])
        return cls(arrays)

    def __call__(self, blocks: Mapping[str, Floats], text: Floats | None) -> Floats:
        """(texts, dims) float32 inputs; zero-spread features are zero."""
        parts = [self._scaled(name, block) for name, block in _response_blocks(blocks, text).items()]
        prompt = _prompt_block(blocks)
        if "prompt.axes" in self.arrays and prompt is not None:
            bent = parts[-1] * np.sqrt(parts[-1].shape[1])  # the text features come last
            axes = np.clip((prompt - self.arrays["prompt.center"]) @ self.arrays["prompt.axes"], -4, 4)
            products = bent[:, :, None] * axes[:, None, :]
            parts.append(products.reshape(len(bent), -1) / np.float32(np.sqrt(products[0].size)))
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def _scaled(self, name: str, block: Floats) -> Floats:
        scaled = (block - self.arrays[f"{name}.center"]) * self.arrays[f"{name}.scale"]
        return np.asarray(np.clip(scaled, -WIDEST, WIDEST) / np.float32(np.sqrt(block.shape[1])), dtype=np.float32)


def text_effects(index: Ints, n_texts: int) -> Floats:
    """(texts, effects): one input for each text that stands in several pairs, 1 for that text, 0 for all others.

    With folds by pair a text's other pairs are known, and how it fared there says more about it than its features: a
    Bradley-Terry strength of its own, shrunk to what the features say. Like every block, a difference of two texts has a
    square norm of 2. Of many such texts those in most pairs have one.

    >>> text_effects(np.array([[0, 1], [0, 2], [3, 2]]), 4).tolist()
    [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    """
    n_pairs = np.bincount(index.ravel(), minlength=n_texts)
    most = min(MOST_TEXT_EFFECTS, MOST_EFFECT_NUMBERS // max(n_texts, 1))
    often = np.sort(np.argsort(-n_pairs, kind="stable")[: min(most, int((n_pairs > 1).sum()))])
    effects = np.zeros((n_texts, len(often)), dtype=np.float32)
    effects[often, np.arange(len(often))] = 1.0
    return effects


def _response_blocks(blocks: Mapping[str, Floats], text: Floats | None) -> dict[str, Floats]:
    read = {name: block for name, block in blocks.items() if not name.endswith("/prompt")}
    return read if text is None else {**read, "text": text}


def _prompt_block(blocks: Mapping[str, Floats]) -> Floats | None:
    return next((block for name, block in blocks.items() if name.endswith("/prompt")), None)


def _scale(block: Floats, index: Ints, is_joint: bool) -> Floats:
    """(width,) 1 / standard deviation within pairs, of all features together or of each; the same if sides are swapped.

    0 for a feature in which pairs hardly differ.
    """
    within = np.sqrt(((block[index[:, 0]] - block[index[:, 1]]) ** 2).mean(axis=0) / 2)
    is_used = within > SMALLEST_SPREAD * block.std(axis=0) + 1e-8
    if is_joint:
        within = np.full_like(within, np.sqrt((within**2).mean()))
    return np.asarray(np.divide(1.0, within, out=np.zeros_like(within), where=is_used))


def _axes(centred: Floats) -> Floats:
    """(width, PROMPT_AXES) principal axes, scaled so that projections have unit variance."""
    variances, axes = np.linalg.eigh((centred.T @ centred / len(centred)).astype(np.float64))
    top = axes[:, ::-1][:, :PROMPT_AXES] / np.sqrt(np.maximum(variances[::-1][:PROMPT_AXES], 1e-8))
    return np.asarray(top, dtype=np.float32)

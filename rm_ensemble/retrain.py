"""Decisions -> two reward models, one trained on the curated split, one on the raw split, compared on held-out prompts.

Both see the same number of pair presentations and neither sees a held-out prompt. The raw split is every label as given.
The evaluation uses given labels of held-out pairs (or of a test file), never decisions, so no vote leaks into it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.errors import CurateError, unknown_choice
from curate.pairs import is_tie
from curate.run import Progress, no_progress, write_json
from rm_ensemble import artefact
from rm_ensemble.backbone import DTYPES, compute_device, compute_dtype
from rm_ensemble.batches import Ints, full_sequences, text_segments, unique_texts
from rm_ensemble.classifier import classifier_rewards, new_classifier
from rm_ensemble.evaluate import compare, metrics, nulls
from rm_ensemble.train import TrainingPairs, TrainOptions, train

Floats = NDArray[np.float32]

CHOICES = {"train": ("head", "full"), "contrastive": ("none", "simcse")}
N_PROBE_TEXTS = 32
N_SCALE_PAIRS = 512  # enough for the median |difference| that margins are brought to


@dataclass(frozen=True)
class RetrainOptions(TrainOptions):
    """How the final reward models, curated and raw, are trained."""

    train: str = field(default="head", metadata={"help": "head (frozen backbone) or full (fine-tuning)"})
    margin: bool = field(default=True, metadata={"help": "train the curated model with the margins of the decisions"})
    hidden: int = field(default=0, metadata={"help": "hidden units of a two-layer head; 0 is a linear head"})
    epochs: float = field(
        default=1.0,
        metadata={"help": "passes over the raw pairs in full fine-tuning; curated pairs get as many in all"},
    )
    backbone: str = field(default="minilm", metadata={"help": "minilm, a local model folder, or a Hugging Face id"})
    max_tokens: int = field(default=256, metadata={"help": "tokens of a sequence; prompts lose their head first"})
    dtype: str = field(default="auto", metadata={"help": "bfloat16, float32, or auto: bfloat16 where it is fast"})


@dataclass(frozen=True)
class Split:
    """Pairs to train on: `index` is (pairs, 2), the texts of chosen and rejected after flips; the rest is (pairs,)."""

    pair_id: NDArray[Any]
    group: NDArray[Any]
    index: Ints
    label_prob: Floats
    margin: Floats
    weight: Floats


class Trained(NamedTuple):
    """Reward differences of a trained and saved model, and how its training went.

    `scale` is the median |difference| over its training pairs, `on_judged` (judged pairs,) what it is evaluated by.
    """

    scale: float
    on_judged: Floats
    facts: dict[str, Any]


Fit = Callable[[Split, Path], Trained]
"""Trains a model on a split and saves it in a folder."""


def retrain(
    pairs: pl.DataFrame,
    decisions: pl.DataFrame,
    to: Path,
    options: RetrainOptions,
    *,
    features_folder: Path | None = None,
    test: pl.DataFrame | None = None,
    margin_scale: float | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Train, compare and save both models; returns what `comparison.json` holds.

    `pairs` and `decisions` are those of a run, in one row order. Margins of the decisions are in units of the
    ensemble's rewards, whose median |difference| is `margin_scale`; they are brought to the scale of the raw model, or
    used as they are where it is None (the secrets2 policies). `to` becomes the curated model, `to/raw` the other one.

    Refused with a CurateError: options that contradict each other, a run without held-out prompts where no `test` is
    given, a `test` that shares a prompt with the run, a split with nothing to train on.
    """
    _refuse_contradictions(options)
    judged = judged_pairs(pairs, test)
    texts, index = unique_texts(pairs)
    raw_split, curated_split = raw_pairs(pairs, index), curated_pairs(pairs, decisions, index)
    fit = _full(texts, judged, round(options.epochs * len(raw_split.index)), options, progress)
    with artefact.whole_folder(to) as folder:
        raw = fit(raw_split, folder / "raw")
        factor = _margin_factor(raw.scale, margin_scale) if options.margin else 0.0
        curated = fit(replace(curated_split, margin=curated_split.margin * np.float32(factor)), folder)
        comparison = {
            **_compared(judged, curated.on_judged, raw.on_judged),
            "judged_on": "held-out prompts" if test is None else "test data",
            "training": {"curated": curated.facts, "raw": raw.facts},
            "margin_factor": factor,
            "options": {**asdict(options), "backbone": Path(options.backbone).name},
        }
        write_json(comparison, folder / "comparison.json")
    return comparison


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
    return _split(pairs.select("pair_id", "group", label_prob=1.0, margin=0.0, weight=1.0), index, _trainable(pairs))


def curated_pairs(pairs: pl.DataFrame, decisions: pl.DataFrame, index: Ints) -> Split:
    """The same pairs after their decisions: dropped ones absent, flipped ones with their responses swapped.

    `label_prob`, `margin` and `weight` of a decision are already those of the pair after its flip.
    """
    action = decisions["action"].to_numpy()
    index = np.where((action == "flip")[:, None], index[:, ::-1], index)
    table = pairs.select("pair_id", "group").hstack(decisions.select("label_prob", "margin", "weight"))
    return _split(table, index, _trainable(pairs) & (action != "drop"))


def _trainable(pairs: pl.DataFrame) -> NDArray[np.bool_]:
    return pairs.select(~pl.col("is_heldout") & ~is_tie()).to_series().to_numpy()


def _split(table: pl.DataFrame, index: Ints, is_kept: NDArray[np.bool_]) -> Split:
    if not is_kept.any():
        raise CurateError("nothing to train on: every pair is held out, a tie, or dropped; choose another --policy")
    table = table.filter(is_kept)
    numbers = [table[name].cast(pl.Float32).to_numpy() for name in ("label_prob", "margin", "weight")]
    return Split(table["pair_id"].to_numpy(), table["group"].to_numpy(), index[is_kept], *numbers)


def _full(
    texts: pl.DataFrame, judged: pl.DataFrame, n_presentations: int, options: RetrainOptions, progress: Progress
) -> Fit:
    """Full fine-tuning of the backbone with a new head, which is the same for every split."""
    judged_texts, judged_index = unique_texts(judged)
    autocast = DTYPES[compute_dtype(options.dtype, compute_device())]

    def fit(split: Split, folder: Path) -> Trained:
        classifier = new_classifier(options.backbone, options.max_tokens, options.seed)
        sequences = full_sequences(text_segments(texts, classifier.tokenizer), options.max_tokens)
        pairs = TrainingPairs(
            split.pair_id.tolist(),
            sequences,
            sequences.index[split.index],
            split.label_prob,
            split.margin,
            split.weight,
        )
        facts = train(classifier.model, pairs, n_presentations, options, autocast=autocast, progress=progress)
        artefact.save(classifier, folder, probe=judged_texts.head(N_PROBE_TEXTS))
        sample = np.random.default_rng(options.seed).permutation(len(split.index))[:N_SCALE_PAIRS]
        on_sample = classifier_rewards(classifier, texts[split.index[sample].reshape(-1)]).reshape(-1, 2)
        on_judged = classifier_rewards(classifier, judged_texts, progress)[judged_index]
        facts = {"n_pairs": len(split.index), "n_presentations": n_presentations, **facts}
        return Trained(_scale(-np.diff(on_sample)[:, 0]), -np.diff(on_judged)[:, 0], facts)

    return fit


def _scale(difference: Floats) -> float:
    return float(np.median(np.abs(difference)))


def _margin_factor(raw_scale: float, margin_scale: float | None) -> float:
    """What the decisions' margins are multiplied by: their scale is the ensemble's, the loss wants the model's own."""
    if margin_scale is None:
        return 1.0
    return raw_scale / margin_scale if margin_scale > 0 else 0.0


def _compared(judged: pl.DataFrame, curated: Floats, raw: Floats) -> dict[str, Any]:
    """Both models' metrics, their paired difference and the nulls, and how many pairs and prompts they stand on."""
    groups, label_strength = judged["group"].to_numpy(), judged["label_strength"].to_numpy()
    found = {
        "curated": metrics(curated, groups, label_strength),
        "raw": metrics(raw, groups, label_strength),
        "difference": compare(curated, raw, groups, label_strength),
    }
    counts = {name: found["difference"][name] for name in ("n_pairs", "n_groups", "note")}
    return {**counts, **found, "nulls": nulls(judged)}


def _refuse_contradictions(options: RetrainOptions) -> None:
    for name, choices in CHOICES.items():
        if getattr(options, name) not in choices:
            raise unknown_choice(f"--{name}", getattr(options, name), choices)
    if options.train == "head" and options.contrastive != "none" and options.hidden == 0:
        raise CurateError(
            f"--contrastive {options.contrastive}: a linear head on cached features has no representation to train; "
            "add --hidden 64, or choose --train full"
        )

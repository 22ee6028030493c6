"""Decisions -> two reward models, one trained on the curated split, one on the raw split, compared on held-out prompts.

Both see the same number of pair presentations and neither sees a held-out prompt. The raw split is every label as given.
The evaluation uses given labels of held-out pairs (or of a test file), never decisions, so no vote leaks into it.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.errors import CurateError, unknown_choice
from curate.options import FeatureOptions, RetrainOptions, TrainOptions
from curate.run import Progress, no_progress, write_json
from rm_ensemble import artefact
from rm_ensemble.backbone import backbone_identity
from rm_ensemble.batches import Sequences, full_sequences, text_segments, unique_texts
from rm_ensemble.best_of_n import graded_texts
from rm_ensemble.classifier import (
    LOADS_EVERYWHERE,
    classifier_rewards,
    classifier_states,
    new_classifier,
    set_reward_head,
)
from rm_ensemble.evaluate import compare, metrics, nulls
from rm_ensemble.features import features
from rm_ensemble.fine_tune import fine_tune
from rm_ensemble.head_model import LOADS_HERE_ONLY, HeadModel, train_head
from rm_ensemble.heads import HeadOptions
from rm_ensemble.inputs import HeadInputs
from rm_ensemble.items import Items, graded_items, pair_items
from rm_ensemble.language import language_head
from rm_ensemble.lora import merged, save_adapter
from rm_ensemble.splits import PairTexts, Split, curated_pairs, difference, judged_pairs, raw_pairs
from rm_ensemble.text_features import text_features

Floats = NDArray[np.float32]

TRAINS = ("head", "stock-head", "lora", "full")
N_PROBE_PAIRS = 8
N_SCALE_PAIRS = 512  # enough for the median |difference| that margins are brought to


class Trained(NamedTuple):
    """What a trained and saved model does, and how its training went.

    `scale` is the median |difference| over its training pairs, `on_judged` the reward differences it is evaluated by.
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

    `pairs` and `decisions` are those of a run, in one row order; features are cached in `features_folder`. Margins of
    the decisions are in units of the ensemble's rewards, whose median |difference| is `margin_scale`; they are brought
    to the scale of the raw model, or used as they are where it is None (the secrets2 policies). `to` becomes the
    curated model, `to/raw` the other one.

    Refused with a CurateError: options that contradict each other, a run without held-out prompts where no `test` is
    given, a `test` that shares a prompt with the run, a split with nothing to train on.
    """
    _refuse_contradictions(options)
    judged = judged_pairs(pairs, test)
    own = PairTexts(*unique_texts(pairs))
    own_judged = PairTexts(own.texts, own.index[pairs["is_heldout"].to_numpy()])
    on = own_judged if test is None else PairTexts(*unique_texts(test))
    raw_split, curated_split = raw_pairs(pairs, own.index), curated_pairs(pairs, decisions, own.index)
    state = to.with_name(f".{to.name}.training")
    if options.train in ("lora", "full"):
        fit = _fine_tuned(own, on, raw_split, pairs, options, state, progress)
    elif options.train == "stock-head":
        fit = _stock_head(own, on, raw_split, options, progress)
    else:
        fit = _head(own, on, raw_split, options, features_folder, progress=progress)
    with _removed_on_refusal(state), artefact.whole_folder(to) as folder:
        raw = fit(raw_split, folder / "raw")
        factor = _margin_factor(raw.scale, margin_scale) if options.margin else 0.0
        curated = fit(replace(curated_split, margin=curated_split.margin * np.float32(factor)), folder)
        artefact.share_backbone(folder / "raw", folder)
        comparison = {
            **_compared(judged, curated.on_judged, raw.on_judged),
            "judged_on": "held-out prompts" if test is None else "test data",
            "training": {"curated": curated.facts, "raw": raw.facts},
            "margin_factor": factor,
            "statement": LOADS_HERE_ONLY if options.train == "head" else LOADS_EVERYWHERE,
            "options": asdict(replace(options, backbone=Path(options.backbone).name, tensorboard="")),
        }
        write_json(comparison, folder / "comparison.json")
    shutil.rmtree(state, ignore_errors=True)
    return comparison


@contextmanager
def _removed_on_refusal(state: Path) -> Iterator[None]:
    """What was to go on from is of no use when the same command would be refused again."""
    try:
        yield
    except CurateError:
        shutil.rmtree(state, ignore_errors=True)
        raise


def _head(
    own: PairTexts,
    judged: PairTexts,
    raw_split: Split,
    options: RetrainOptions,
    features_folder: Path | None,
    *,
    progress: Progress,
) -> Fit:
    """Heads on the frozen backbone's features, which are made once; the map to head inputs is fitted on the raw split."""
    chosen = FeatureOptions(options.backbone, options.max_tokens, options.dtype)
    read = features(own.texts, chosen, features_folder, progress)
    text = text_features(own.texts)
    to_inputs = HeadInputs.fit(read.blocks, text, raw_split.index)
    inputs = judged_inputs = to_inputs(read.blocks, text)
    if judged.texts is not own.texts:
        judged_read = features(judged.texts, chosen, features_folder, progress)
        judged_inputs = to_inputs(judged_read.blocks, text_features(judged.texts))
    chosen = replace(chosen, dtype=read.facts["dtype"])  # the saved model computes as this one did, wherever it is read
    n_presentations = HeadOptions.epochs * len(raw_split.index)

    def fit(split: Split, folder: Path) -> Trained:
        n_epochs = round(n_presentations / len(split.index))
        beta = options.contrastive_weight * HeadOptions.contrastive_weight  # a small layer's unit is a tenth of S2's
        head_options = HeadOptions(options.hidden, options.contrastive, n_epochs, contrastive_weight=beta)
        heads = train_head(inputs, split, head_options, seed=options.seed, progress=progress)
        artefact.save(HeadModel(heads, to_inputs, chosen), folder, judged.texts[judged.index[:N_PROBE_PAIRS].ravel()])
        on_split = difference(lambda rows: heads.rewards(inputs[rows])[:, 0], split.index)
        on_judged = difference(lambda rows: heads.rewards(judged_inputs[rows])[:, 0], judged.index)
        shown = n_epochs * len(split.index) if options.hidden else "to convergence"
        facts = {"n_pairs": len(split.index), "n_presentations": shown, "choices": heads.settings}
        return Trained(_scale(on_split), on_judged, facts)

    return fit


def _stock_head(
    own: PairTexts, judged: PairTexts, raw_split: Split, options: RetrainOptions, progress: Progress
) -> Fit:
    """Linear heads on exactly the state that transformers' own class reads (a decoder's last token), put into that class."""
    classifier = new_classifier(options.backbone, options.max_tokens, options.seed)
    states = classifier_states(classifier, own.texts, progress)
    judged_states = states if judged.texts is own.texts else classifier_states(classifier, judged.texts, progress)
    apart = states[raw_split.index[:, 0]] - states[raw_split.index[:, 1]]
    scale = np.sqrt(2 / np.maximum((apart**2).sum(axis=1).mean(), np.float32(1e-12)))  # as head inputs are scaled
    inputs = states * scale

    def fit(split: Split, folder: Path) -> Trained:
        heads = train_head(inputs, split, HeadOptions(), seed=options.seed, progress=progress)
        weight = heads.arrays["linear"][:, 0] * scale
        set_reward_head(classifier, weight)
        artefact.save(classifier, folder, judged.texts[judged.index[:N_PROBE_PAIRS].ravel()])
        on_split = difference(lambda rows: states[rows] @ weight, split.index)
        on_judged = difference(lambda rows: judged_states[rows] @ weight, judged.index)
        facts = {"n_pairs": len(split.index), "n_presentations": "to convergence", "choices": heads.settings}
        return Trained(_scale(on_split), on_judged, facts)

    return fit


def _fine_tuned(
    own: PairTexts,
    judged: PairTexts,
    raw_split: Split,
    pairs: pl.DataFrame,
    options: RetrainOptions,
    state: Path,
    progress: Progress,
) -> Fit:
    """Full fine-tuning or LoRA of the backbone with a new head, which is the same for every split.

    What a killed run goes on from is kept under `state`.
    """
    first = new_classifier(options.backbone, options.max_tokens, options.seed)
    sequences = full_sequences(text_segments(own.texts, first.tokenizer), options.max_tokens)
    n_presentations = round(options.epochs * len(items_of(raw_split, own, pairs, sequences, options.form)))
    identity = {"version": version("prefcurate"), **backbone_identity(options.backbone)}

    def fit(split: Split, folder: Path) -> Trained:
        name = "raw" if folder.name == "raw" else "curated"
        board = str(Path(options.tensorboard) / name) if options.tensorboard else ""
        classifier = new_classifier(options.backbone, options.max_tokens, options.seed)
        head = language_head(options.backbone, classifier) if options.language else None
        items = items_of(split, own, pairs, sequences, options.form)
        found = fine_tune(
            options.train, classifier, items, n_presentations, replace(options, tensorboard=board), dtype=options.dtype,
            language_head=head, folder=state / name, identity=identity, progress=progress,
        )  # fmt: skip
        classifier = found.classifier
        if found.adapted is not None:
            save_adapter(found.adapted, options.backbone, folder / "adapter")
            classifier = merged(found.adapted, classifier)
        artefact.save(classifier, folder, judged.texts[judged.index[:N_PROBE_PAIRS].ravel()])
        shutil.copyfile(state / name / "metrics.jsonl", folder / "metrics.jsonl")
        sample = np.random.default_rng(options.seed).permutation(len(split.index))[:N_SCALE_PAIRS]
        on_sample = difference(lambda rows: classifier_rewards(classifier, own.texts[rows]), split.index[sample])
        on_judged = difference(lambda rows: classifier_rewards(classifier, judged.texts[rows], progress), judged.index)
        facts = {"n_pairs": len(split.index), "n_presentations": n_presentations, **found.facts}
        return Trained(_scale(on_sample), on_judged, facts)

    return fit


def items_of(split: Split, own: PairTexts, pairs: pl.DataFrame, sequences: Sequences, form: str) -> Items:
    """What a form of training draws from a split; a pair that is dropped or flipped grades neither of its responses."""
    if form in ("pairwise", "listwise"):
        return pair_items(split, sequences, by_prompt=form == "listwise")
    given = pairs.with_row_index("row").join(
        pl.DataFrame({"pair_id": split.pair_id, "text": split.index[:, 0]}), on="pair_id", maintain_order="left"
    )
    is_flipped = own.index[given["row"].to_numpy(), 0] != given["text"].to_numpy()
    given = given.filter(~pl.Series(is_flipped))
    graded = graded_texts(given.drop("row", "text"), own.texts, own.index[given["row"].to_numpy()])
    return graded_items(graded, sequences, form)


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
    if options.hidden < 0:
        raise CurateError(f"--hidden {options.hidden}: hidden units are 0 or more")
    if options.train not in TRAINS:
        raise unknown_choice("--train", options.train, TRAINS)
    if options.train == "stock-head" and (options.hidden or options.contrastive != "none"):
        raise CurateError(
            "--train stock-head: the reward head of transformers is linear; leave out --hidden and --contrastive, or "
            "choose --train head or full"
        )
    if options.train == "head" and options.contrastive != "none" and options.hidden == 0:
        raise CurateError(
            f"--contrastive {options.contrastive}: a linear head on cached features has no representation to train; "
            "add --hidden 64, or choose --train full"
        )
    if options.train == "head" and options.contrastive == "swav":
        raise CurateError("--contrastive swav: only with --train lora or full; heads know simcse")
    known = {"contrastive", "contrastive_weight", "seed"}  # of the options of fine-tuning, by heads
    default = TrainOptions()
    given = [
        f.name
        for f in fields(TrainOptions)
        if f.name not in known and getattr(options, f.name) != getattr(default, f.name)
    ]
    if options.train in ("head", "stock-head") and given:
        raise CurateError(
            f"--{given[0].replace('_', '-')}: heads on frozen features do not know it; choose --train lora or full"
        )

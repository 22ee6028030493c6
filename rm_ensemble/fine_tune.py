"""A reward model from a backbone by fine-tuning, all of it or LoRA matrices; members of an ensemble made that way."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from peft import PeftModel

from curate.options import TrainOptions, VoteOptions
from curate.run import Progress, no_progress, write_parquet
from rm_ensemble.backbone import DTYPES, compute_device, compute_dtype
from rm_ensemble.batches import Sequences, full_sequences, is_cut, text_segments
from rm_ensemble.checkpoint import Checkpoint
from rm_ensemble.classifier import Classifier, classifier_rewards, new_classifier
from rm_ensemble.folds import FoldPlan
from rm_ensemble.items import Items, pair_items
from rm_ensemble.lora import LEARNING_RATE_FACTOR, merged, with_lora
from rm_ensemble.splits import Split
from rm_ensemble.train import LanguageHead, train, training_key, width_learning_rate
from rm_ensemble.votes import member_table

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class FineTuned(NamedTuple):
    """A trained classifier, its LoRA matrices where it has them, and how the training went."""

    classifier: Classifier
    adapted: PeftModel | None
    facts: dict[str, Any]


def fine_tune(
    method: str,
    classifier: Classifier,
    items: Items,
    n_presentations: int,
    options: TrainOptions,
    *,
    dtype: str = "auto",
    language_head: LanguageHead | None = None,
    folder: Path | None = None,
    identity: dict[str, Any] | None = None,
    progress: Progress = no_progress,
) -> FineTuned:
    """Train a new classifier by `full` fine-tuning or `lora`.

    In `folder` it keeps the state that the same call goes on from after a kill (`identity` says what model and version it
    is of), and metrics. LoRA's peak learning rate is higher where the width decides.
    """
    adapted = None
    if method == "lora":
        adapted = with_lora(classifier, options.lora_rank, options.seed)
        width = classifier.model.config.get_text_config().hidden_size
        rate = options.learning_rate or LEARNING_RATE_FACTOR * width_learning_rate(width)
        options = replace(options, learning_rate=rate)
    checkpoint = metrics = None
    if folder is not None:
        key = training_key(items, n_presentations, options, {"method": method, **(identity or {})})
        checkpoint, metrics = Checkpoint(folder / "state.safetensors", key), folder / "metrics.jsonl"
    facts = train(
        classifier.model,
        items,
        n_presentations,
        options,
        autocast=DTYPES[compute_dtype(dtype, compute_device())],
        language_head=language_head,
        checkpoint=checkpoint,
        metrics=metrics,
        progress=progress,
    )
    n_trained = sum(p.numel() for p in classifier.model.parameters() if p.requires_grad)
    return FineTuned(classifier, adapted, {**facts, "n_trained_parameters": n_trained})


def fine_tuned_members(
    pairs: pl.DataFrame,
    texts: pl.DataFrame,
    index: Ints,
    plans: list[FoldPlan],
    seeds: tuple[int, ...],
    options: VoteOptions,
    folder: Path,
    key: str,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write `member-00.parquet` ... into `folder`, one after the other; those that are there already are left alone.

    `key` stands for all that decides a member beside its number: files of another key are removed first. A model that was
    stopped in the middle goes on from its last state, to the same votes. Returns facts.
    """
    _keep_only(folder, key, len(plans))
    classifier = new_classifier(options.backbone, options.max_tokens, options.seed)
    segments = text_segments(texts, classifier.tokenizer, progress)
    sequences = full_sequences(segments, options.max_tokens)
    n_folds = plans[0].weight.shape[1]
    n_models = len(plans) * n_folds
    for member, plan in enumerate(plans):
        if _member(folder, member).is_file():
            continue
        rewards = np.full((len(pairs), 2), np.nan, dtype=np.float32)
        for fold in range(n_folds):
            number = member * n_folds + fold
            of_fold = np.flatnonzero(plan.fold == fold)

            def part(what: str, done: int, total: int, number: int = number) -> None:
                progress(f"{what} models", number * total + done, n_models * total)

            rewards[of_fold] = _fold_rewards(
                pairs, texts, index, sequences, (plan.weight[:, fold] > 0, of_fold),
                seeds[number], options, folder / "training" / f"member-{member:02d}-fold-{fold}", key, part,
            )  # fmt: skip
        write_parquet(member_table(pairs["pair_id"], rewards, plan.fold, options.scoring), _member(folder, member))
        shutil.rmtree(folder / "training", ignore_errors=True)
    cut = [int(found.sum()) for found in is_cut(segments, options.max_tokens)]
    return {"n_texts": len(texts), "n_prompts_cut": cut[0], "n_responses_cut": cut[1], "n_folds": n_folds}


def _member(folder: Path, number: int) -> Path:
    return folder / f"member-{number:02d}.parquet"


def _keep_only(folder: Path, key: str, n_members: int) -> None:
    """Leave the members of this key that are still wanted, and nothing else."""
    mark = folder / "key.txt"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != key:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(key, encoding="utf-8")
    for file in sorted(folder.glob("member-*.parquet"))[n_members:]:
        file.unlink()


def _fold_rewards(
    pairs: pl.DataFrame,
    texts: pl.DataFrame,
    index: Ints,
    sequences: Sequences,
    train_and_score: tuple[NDArray[np.bool_], Ints],
    seed: int,
    options: VoteOptions,
    folder: Path,
    key: str,
    progress: Progress,
) -> Floats:
    """The rewards (scored pairs, 2) of a model of one fold; kept in `folder` until its member is whole."""
    trains, scored = train_and_score
    done = folder / "rewards.parquet"
    if done.is_file():
        return pl.read_parquet(done).to_numpy()
    training = TrainOptions(options.epochs, options.learning_rate, options.batch_size, options.lora_rank, seed=seed)
    classifier = new_classifier(options.backbone, options.max_tokens, seed)
    items = pair_items(_as_given(pairs, index, trains), sequences)
    n_presentations = max(1, round(options.epochs * len(items)))
    model = fine_tune(
        options.ensemble, classifier, items, n_presentations, training,
        dtype=options.dtype, folder=folder, identity={"key": key}, progress=progress,
    )  # fmt: skip
    if model.adapted is not None:
        model = model._replace(classifier=merged(model.adapted, classifier))
    rows, place = np.unique(index[scored], return_inverse=True)
    rewards = classifier_rewards(model.classifier, texts[rows])[place.reshape(-1, 2)]
    write_parquet(pl.DataFrame(rewards, schema=["reward_chosen", "reward_rejected"]), done)
    (folder / "state.safetensors").unlink(missing_ok=True)
    return rewards


def _as_given(pairs: pl.DataFrame, index: Ints, trains: NDArray[np.bool_]) -> Split:
    """The pairs that a model trains on, with their labels as given."""
    n_pairs = int(trains.sum())
    ones, zeros = np.ones(n_pairs, np.float32), np.zeros(n_pairs, np.float32)
    ids, groups = (pairs[name].to_numpy()[trains] for name in ("pair_id", "group"))
    return Split(ids, groups, index[trains], ones, zeros, ones)

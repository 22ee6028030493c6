"""A reward model from a backbone by fine-tuning, all of it or LoRA matrices."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from peft import PeftModel

from curate.options import TrainOptions
from curate.run import Progress, no_progress
from rm_ensemble.backbone import DTYPES, compute_device, compute_dtype
from rm_ensemble.checkpoint import Checkpoint
from rm_ensemble.classifier import Classifier
from rm_ensemble.items import Items
from rm_ensemble.lora import LEARNING_RATE_FACTOR, with_lora
from rm_ensemble.train import LanguageHead, train, training_key, width_learning_rate


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

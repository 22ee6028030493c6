"""LoRA: a frozen classifier with small trained matrices beside its linear layers, and its head trained whole (peft)."""

import warnings
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from rm_ensemble.classifier import Classifier, seeded

MINILM_ID = "sentence-transformers/all-MiniLM-L6-v2"
LEARNING_RATE_FACTOR = (
    3  # of full fine-tuning's: 1e-3 beat 3e-3 for minilm on 600 pairs (benchmarks/results/ensembles.md)
)


def with_lora(classifier: Classifier, rank: int, seed: int) -> PeftModel:
    """Put LoRA matrices of a rank beside every linear layer of the classifier's backbone, in place; the rest is frozen.

    What stands above the layers, the reward head and a pooler, is trained whole (`modules_to_save`): a backbone may have
    come without it, and an adapter must hold all that its backbone does not. The matrices start from `seed` and change
    nothing before they are trained.
    """
    whole = _above(classifier.model)
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=rank,
        lora_alpha=2 * rank,
        target_modules=_linear_layers(classifier.model, whole),
        modules_to_save=whole,
    )
    with seeded(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, on names that transformers renames and on GPT-2's Conv1D
        adapted: Any = get_peft_model(classifier.model, config)
    found: PeftModel = adapted
    return found


def merged(adapted: PeftModel, classifier: Classifier) -> Classifier:
    """The classifier with its LoRA matrices added into its weights: a stock model again. `adapted` is used up."""
    model: Any = adapted.merge_and_unload()
    return classifier._replace(model=model)


def save_adapter(adapted: PeftModel, backbone: str, folder: Path) -> None:
    """Write the LoRA matrices and the head without the backbone, whose name on the hub the adapter's config gives.

    Of a backbone in a folder it gives the folder's name, not the way to it.
    """
    config: Any = adapted.peft_config["default"]
    name = Path(backbone).name if Path(backbone).is_dir() else backbone
    config.base_model_name_or_path = MINILM_ID if backbone == "minilm" else name
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty card


def _above(model: PreTrainedModel) -> list[str]:
    """The names of the modules with weights that are no part of the backbone's layers: heads and poolers."""
    above = [(name, child) for name, child in model.named_children() if name != model.base_model_prefix]
    above += [(name, child) for name, child in model.base_model.named_children() if name == "pooler"]
    return [name for name, child in above if any(True for _ in child.parameters())]


def _linear_layers(model: nn.Module, but: list[str]) -> list[str]:
    """The whole names of all linear layers that are not in the modules `but`; GPT-2's Conv1D counts as one."""
    kinds = ("Linear", "Conv1D")
    return [
        name
        for name, module in model.named_modules()
        if type(module).__name__ in kinds and not set(name.split(".")) & set(but)
    ]

"""The next-token head of a decoder backbone, for the language term of reward-model training."""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from curate.errors import CurateError
from rm_ensemble.backbone import find_backbone, quiet_transformers
from rm_ensemble.batches import is_encoder
from rm_ensemble.classifier import Classifier
from rm_ensemble.train import LanguageHead


def language_head(backbone: str, classifier: Classifier) -> LanguageHead:
    """What turns the hidden states of a classifier on a decoder backbone into next-token logits.

    A head that is tied to the embeddings is the classifier's own embeddings, which training moves; one with weights of its
    own stays as it is. Refused with a CurateError: an encoder, and a backbone that was saved without a language head.
    """
    model = classifier.model
    if is_encoder(classifier.tokenizer) or type(model.config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise CurateError(f"--language: backbone {backbone} predicts no next tokens; leave it out, or choose a decoder")
    if model.config.tie_word_embeddings:
        embeddings: Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
        return lambda states: states @ embeddings.T
    weight = _own_head(backbone, model)
    return lambda states: states @ weight.T


def _own_head(backbone: str, model: PreTrainedModel) -> Tensor:
    source = find_backbone(backbone)
    with quiet_transformers(), torch.random.fork_rng():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    whole, loading = loaded
    if any("head" in key or "embed_out" in key for key in loading["missing_keys"]):
        raise CurateError(f"--language: backbone {backbone} was saved without its language head; leave it out")
    head: Tensor = whole.get_output_embeddings().weight.detach().to(model.device)
    return head

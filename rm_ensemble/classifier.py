"""A language model with one scalar output: made from a backbone, saved and loaded as transformers does; its rewards.

The saved folder is what `AutoModelForSequenceClassification` and `trl.RewardTrainer` read: weights, tokenizer, and a
chat template that renders a conversation to the very tokens that the model was trained on.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from curate.errors import CurateError
from curate.run import Progress, no_progress
from rm_ensemble.backbone import Source, compute_device, find_backbone, load_tokenizer, quiet_transformers
from rm_ensemble.batches import ROLE_NAMES, Ints, Sequences, batches, full_sequences, is_encoder, padded, text_segments

Floats = NDArray[np.float32]

BATCH_TOKENS = {"cpu": 8192, "cuda": 65536}
LOADS_EVERYWHERE = "A reward model that AutoModelForSequenceClassification, trl and others load as it is."
PAD_TOKEN = "<|pad|>"
_ROLE = f"({ROLE_NAMES!r}.get(m['role']) or m['role'] | capitalize) + ': ' + m['content']"
# What text_segments does to a conversation, as templates: an encoder reads [CLS] prompt [SEP] response [SEP].
ENCODER_TEMPLATE = (
    "{{ cls_token }}{% for m in messages %}"
    "{% if loop.last and not add_generation_prompt and not loop.first %}{{ sep_token + m['content'] }}"
    "{% else %}{{ ('' if loop.first else '\\n\\n') + " + _ROLE + " }}{% endif %}"
    "{% endfor %}{{ sep_token }}"
)
DECODER_TEMPLATE = (
    "{{ bos_token or '' }}{% for m in messages %}{{ ('' if loop.first else '\\n\\n') + " + _ROLE + " }}{% endfor %}"
    "{{ '\\n\\nAssistant:' if add_generation_prompt else eos_token or '' }}"
)


class Classifier(NamedTuple):
    """A model with one scalar output in evaluation mode, its tokenizer, and how many tokens of a text it reads."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    max_tokens: int


def new_classifier(backbone: str, max_tokens: int, seed: int) -> Classifier:
    """A reward model to be trained: the backbone's weights, and a new head (the same for the same seed).

    Refused with a CurateError: a backbone without a sequence classifier in transformers, or that reads fewer tokens.
    """
    source = find_backbone(backbone)
    tokenizer = _ready(load_tokenizer(source))
    with seeded(seed):  # before the model is made: its head is drawn
        model, _ = _load(source)
        if len(tokenizer) > model.config.vocab_size:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and max_tokens > limit:
        raise CurateError(f"--max-tokens {max_tokens}: backbone {backbone} reads at most {limit}")
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(model.config, name, getattr(tokenizer, name))
    return Classifier(model, tokenizer, max_tokens)


def save_classifier(classifier: Classifier, folder: Path) -> None:
    """Write weights (safetensors), config, tokenizer and chat template; max_tokens is the saved model_max_length."""
    classifier.tokenizer.model_max_length = classifier.max_tokens
    with quiet_transformers():
        classifier.model.save_pretrained(folder)
        classifier.tokenizer.save_pretrained(folder)


def load_classifier(folder: Path) -> Classifier:
    """The model of a folder, whole: weights that are missing, above all the head, are refused, never drawn anew."""
    source = Source(str(folder), folder)
    model, missing = _load(source)
    if missing:
        raise CurateError(f"{folder}: the model has no weights for {missing[0]}; it is not a whole reward model")
    tokenizer = load_tokenizer(source)
    limit = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    return Classifier(model, tokenizer, min(tokenizer.model_max_length, limit))


def classifier_rewards(classifier: Classifier, texts: pl.DataFrame, progress: Progress = no_progress) -> Floats:
    """The reward of each text of a `prompt`, `response` table, (texts,), computed in the float32 of its weights."""
    return _read(classifier, texts, lambda rewards, _: rewards, progress)


def classifier_states(classifier: Classifier, texts: pl.DataFrame, progress: Progress = no_progress) -> Floats:
    """The representation that the reward head reads of each text, (texts, dims) float32."""
    return _read(classifier, texts, lambda _, states: states, progress)


@torch.inference_mode()
def _read(
    classifier: Classifier, texts: pl.DataFrame, which: Callable[[Tensor, Tensor], Tensor], progress: Progress
) -> Floats:
    model, tokenizer, max_tokens = classifier
    sequences = full_sequences(text_segments(texts, tokenizer), max_tokens)
    order, parts = [], []
    for rows in batches(sequences.lengths, BATCH_TOKENS[model.device.type]):
        tokens, mask = token_batch(sequences, rows, model)
        parts.append(which(*rewards_and_states(model, tokens, mask)).cpu().numpy())
        order += rows.tolist()
        progress("score", len(order), len(sequences.lengths))
    found: Floats = np.concatenate(parts)[np.argsort(order)][sequences.index]
    return found


def token_batch(sequences: Sequences, rows: Ints, model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Token ids padded on the right, and the mask of real tokens: both (rows, tokens) int64, on the model's device."""
    ids, mask = padded(sequences, rows, model.config.pad_token_id)
    return torch.from_numpy(ids).to(model.device), torch.from_numpy(mask).long().to(model.device)


def rewards_and_states(
    model: PreTrainedModel, tokens: Tensor, mask: Tensor, autocast: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """The reward of each text, (texts,), and the representation that the head reads, (texts, dims), both float32.

    The head runs in float32 whatever the rest runs in: near 3, bfloat16 steps are 0.016.
    """
    states: list[Tensor] = []

    def in_float32(head: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor:
        states.append(inputs[0].float())
        with torch.autocast(tokens.device.type, enabled=False):
            return nn.functional.linear(states[0], head.weight, head.bias)  # type: ignore[arg-type]

    hook = reward_head(model).register_forward_hook(in_float32)
    try:
        with torch.autocast(tokens.device.type, dtype=torch.bfloat16, enabled=autocast == torch.bfloat16):
            rewards = model(input_ids=tokens, attention_mask=mask).logits[:, 0]
    finally:
        hook.remove()
    state = states[0]
    if state.dim() == 3:  # decoders apply the head to every token, and the last real one counts
        state = state[torch.arange(len(tokens)), mask.sum(dim=1) - 1]
    return rewards.float(), state


def reward_head(model: PreTrainedModel) -> nn.Linear:
    """The linear layer whose output is the reward; its input is the representation the reward head reads."""
    inside = f"{model.base_model_prefix}."
    found = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == 1 and not name.startswith(inside)
    ]
    if len(found) != 1:
        raise CurateError(
            f"{type(model).__name__}: {len(found)} linear layers with one output beside the backbone, expected 1; "
            "use another --backbone, or --train head"
        )
    return found[0]


def set_reward_head(classifier: Classifier, weight: Floats) -> None:
    """Put a linear head (dims,) into the model; a constant would cancel in every difference, so a bias becomes 0."""
    head = reward_head(classifier.model)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight)[None])
        if head.bias is not None:
            head.bias.zero_()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws from torch's global generators are fixed by `seed` inside, and leave no trace outside."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _load(source: Source) -> tuple[PreTrainedModel, list[str]]:
    """The sequence classifier in float32, and the names of the weights that the folder does not have."""
    with quiet_transformers():
        try:
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                source.folder,
                num_labels=1,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CurateError(
                f"{source.name}: no reward model can be loaded from it ({reason}); get a whole copy, or choose another"
            ) from error
    return model.eval().to(compute_device()), sorted(loading["missing_keys"])


def _ready(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A tokenizer that trl can train with: an eos, a pad that is not the eos, and a chat template.

    Decoders read the reward at the last token that is not padding, so pad = eos would move it (INTEROP.md).
    """
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    if is_encoder(tokenizer):
        tokenizer.eos_token = tokenizer.eos_token or tokenizer.sep_token
        tokenizer.chat_template = ENCODER_TEMPLATE
    elif not tokenizer.chat_template:
        tokenizer.chat_template = DECODER_TEMPLATE
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    return tokenizer

"""A language model with one scalar output: made from a backbone, saved and loaded as transformers does; its rewards.

The saved folder is what `AutoModelForSequenceClassification` and `trl.RewardTrainer` read: weights, tokenizer, and a
chat template that renders a conversation to the very tokens that the model was trained on.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import loads
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from curate.errors import CurateError
from curate.run import Progress, no_progress, sha256_of, write_json
from rm_ensemble.backbone import (
    Source,
    checked,
    compute_device,
    find_backbone,
    load_tokenizer,
    load_weights,
    quiet_transformers,
    refuse_new,
    unknown_tokens,
    verify_files,
)
from rm_ensemble.batches import (
    ROLE_NAMES,
    Ints,
    Sequences,
    batches,
    ends_with_eos,
    full_sequences,
    is_encoder,
    padded,
    text_segments,
)

Floats = NDArray[np.float32]

BATCH_TOKENS = {"cpu": 8192, "cuda": 65536}
LOADS_EVERYWHERE = "A reward model that AutoModelForSequenceClassification, trl and others load as it is."
PAD_TOKEN = "<|pad|>"
RECORD = "classifier.json"
FORMAT_VERSION = 1
RECORDED = ("*.safetensors", "config.json", "tokenizer*.json", "*.jinja")  # what a reward depends on
_ROLE = f"({ROLE_NAMES!r}.get(m['role']) or m['role'] | capitalize) + ': ' + m['content']"
# What text_segments does to a conversation, as templates: an encoder reads [CLS] prompt [SEP] response [SEP].
ENCODER_TEMPLATE = (
    "{{ cls_token }}{% for m in messages %}"
    "{% if loop.last and not add_generation_prompt and (not loop.first or m['role'] == 'assistant') %}"
    "{{ sep_token + m['content'] }}"
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


class Outputs(NamedTuple):
    """The reward of each text, (texts,), the representation that the head reads, (texts, dims), and what it was applied to:
    of a decoder all of its last states, (texts, tokens, dims).
    """

    rewards: Tensor
    states: Tensor
    head_inputs: Tensor


def new_classifier(backbone: str, max_tokens: int, seed: int) -> Classifier:
    """A reward model to be trained: the backbone's weights, and a new head (the same for the same seed).

    A head that the backbone comes with, a language model's or a classifier's, is left behind.
    Refused with a CurateError: a backbone without a sequence classifier in transformers, or that reads fewer tokens;
    weights or tokenizer of another model.
    """
    source = find_backbone(backbone)
    tokenizer = _ready(load_tokenizer(source))
    with seeded(seed):  # before the model is made: its head is drawn
        model, new = _load(source)
        refuse_new(source, [key for key in new if _is_in_backbone(model, key)])
        _draw_head(model, new)
        if unknown_tokens(source, model, tokenizer):
            model.resize_token_embeddings(tokenizer.pad_token_id + 1, mean_resizing=False)
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and max_tokens > limit:
        raise CurateError(f"--max-tokens {max_tokens}: backbone {backbone} reads at most {limit}")
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(model.config, name, getattr(tokenizer, name))
    return Classifier(model, tokenizer, max_tokens)


def save_classifier(classifier: Classifier, folder: Path) -> None:
    """Write weights (safetensors), config, tokenizer and chat template; max_tokens is the saved model_max_length.

    Last comes `classifier.json`, which says what the files must hash to and whether every text ends with the eos token.
    """
    classifier.tokenizer.model_max_length = classifier.max_tokens
    with quiet_transformers():
        classifier.model.save_pretrained(folder)
        classifier.tokenizer.save_pretrained(folder)
    files = sorted(path for pattern in RECORDED for path in folder.glob(pattern))
    record = {
        "format_version": FORMAT_VERSION,
        "what": LOADS_EVERYWHERE,
        "max_tokens": classifier.max_tokens,
        "ends_with_eos": ends_with_eos(classifier.tokenizer),
        "sha256": {path.name: sha256_of(path) for path in files},
    }
    write_json(record, folder / RECORD)


def load_classifier(folder: Path) -> Classifier:
    """The model of a folder, whole, ours or another's: files that changed since we saved them are refused.

    So are weights that are missing, above all the head, which is never drawn anew, more or fewer outputs than one,
    and a pad token that would move the place at which a decoder's reward is read.
    """
    source = checked(Source(f"model {folder}", folder))
    verify_files(folder, _recorded_hashes(folder / RECORD))
    model, new = _load(source)
    refuse_new(source, [key for key in new if _is_in_backbone(model, key)])
    if new:
        raise CurateError(
            f"{source.name}: not a reward model, it has no head with one output ({new[0]} is missing or has several); "
            f"make one of it with: curate retrain RUN --backbone {folder} --to FOLDER"
        )
    tokenizer = load_tokenizer(source)
    _refuse_pad(source, model, tokenizer)
    limit = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    return Classifier(model, tokenizer, min(tokenizer.model_max_length, limit))


def classifier_rewards(
    classifier: Classifier, texts: pl.DataFrame, progress: Progress = no_progress, is_alone: bool = False
) -> Floats:
    """The reward of each text of a `prompt`, `response` table, (texts,), computed in the float32 of its weights.

    `is_alone` reads each text in a batch of its own: then no reward depends on the other texts, to the last bit.
    """
    return _read(classifier, texts, lambda found: found.rewards, progress, is_alone)


def classifier_states(classifier: Classifier, texts: pl.DataFrame, progress: Progress = no_progress) -> Floats:
    """The representation that the reward head reads of each text, (texts, dims) float32."""
    return _read(classifier, texts, lambda found: found.states, progress)


@torch.inference_mode()
def _read(
    classifier: Classifier,
    texts: pl.DataFrame,
    which: Callable[[Outputs], Tensor],
    progress: Progress,
    is_alone: bool = False,
) -> Floats:
    model, tokenizer, max_tokens = classifier
    sequences = full_sequences(text_segments(texts, tokenizer), max_tokens)
    order, parts = [], []
    for rows in batches(sequences.lengths, 1 if is_alone else BATCH_TOKENS[model.device.type]):
        tokens, mask = token_batch(sequences, rows, model)
        parts.append(which(rewards_and_states(model, tokens, mask)).cpu().numpy())
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
) -> Outputs:
    """What the model says of each text, in float32.

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
            rewards = model(input_ids=tokens, attention_mask=mask, **_no_cache(model)).logits[:, 0]
    finally:
        hook.remove()
    state = states[0]
    if state.dim() == 3:  # decoders apply the head to every token, and the last real one counts
        state = state[torch.arange(len(tokens)), mask.sum(dim=1) - 1]
    return Outputs(rewards.float(), state, states[0])


def _no_cache(model: PreTrainedModel) -> dict[str, bool]:
    """Decoders would keep keys and values for a next token that nobody asks for."""
    return {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}


def reward_head(model: PreTrainedModel) -> nn.Linear:
    """The linear layer whose output is the reward; its input is the representation the reward head reads."""
    inside = f"{model.base_model_prefix}."
    found = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.out_features == 1
        and not name.startswith(inside)
        and "original_module" not in name  # peft's frozen copy of a head it trains
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
    """The sequence classifier with one output in float32, and the weights that were drawn anew."""
    kind = AutoModelForSequenceClassification
    return load_weights(source, kind, torch.float32, compute_device(), num_labels=1)


def _draw_head(model: PreTrainedModel, new: list[str]) -> None:
    """Draw the reward head where the backbone came with one of that shape, which is another task's."""
    head = reward_head(model)
    if not any(weight is head.weight and name in new for name, weight in model.named_parameters()):
        nn.init.normal_(head.weight, std=getattr(model.config, "initializer_range", 0.02))
        if head.bias is not None:
            nn.init.zeros_(head.bias)


def _is_in_backbone(model: PreTrainedModel, weight: str) -> bool:
    """True for a weight that every checkpoint has; poolers and heads come with some tasks only."""
    return weight.startswith(f"{model.base_model_prefix}.") and "pooler" not in weight


def _recorded_hashes(record: Path) -> dict[str, str]:
    """The sha256 by file name of a folder that we saved; none for the folders of others."""
    if not record.is_file():
        return {}
    try:
        return dict(loads(record.read_text(encoding="utf-8"))["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise CurateError(f"{record}: damaged ({error}); retrain the model with --overwrite") from error


def _refuse_pad(source: Source, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuse a model that cannot pad, or whose pad token ends texts too: a decoder's reward is read before the pads."""
    pad = model.config.pad_token_id
    if unknown_tokens(source, model, tokenizer) or pad is None or pad < 0:
        found = "not one of its embedding"
    elif pad == tokenizer.eos_token_id and not is_encoder(tokenizer):
        found = "its eos token"
    else:
        return
    raise CurateError(
        f"{source.name}: its pad token is {found}, so a reward would depend on the batch; give it one of its own, the "
        "same in config.json and the tokenizer"
    )


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

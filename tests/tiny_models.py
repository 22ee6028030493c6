"""Models of a few thousand weights, written to a folder as transformers saves them, and pairs that they can learn from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    BertModel,
    BertTokenizer,
    DebertaV2Config,
    DebertaV2Tokenizer,
    GPT2Config,
    GPT2Tokenizer,
    GPTNeoXConfig,
    GPTNeoXTokenizer,
    LlamaConfig,
    LlamaModel,
    LlamaTokenizer,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Tokenizer,
    Qwen3Config,
)

from curate.pairs import PAIR_SCHEMA, stable_hash

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<s>", "</s>"]
LETTERS = "abcdefghijklmnop"
WORDS = ["human", "assistant", ":", "what", "is", "good", "bad", *LETTERS]
VOCABULARY = {word: number for number, word in enumerate(SPECIAL + WORDS)}

SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 128,
}  # fmt: skip
QWEN_SIZES = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
DEBERTA_SIZES = {**SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
GPT2_SIZES = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128}
LLAMA2_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
CHATML_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
THINKING_TEMPLATE = CHATML_TEMPLATE.replace(  # as Qwen3's: an empty thought before the last answer
    "+ m['content']",
    "+ ('<think>\\n\\n</think>\\n\\n' if loop.last and m['role'] == 'assistant' else '') + m['content']",
)


def write_encoder(folder: Path) -> str:
    """A two-layer BERT with a word tokenizer; returns the folder as a backbone name."""
    roles = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    return _write(BertModel, config, roles, folder)


def write_decoder(folder: Path) -> str:
    """A two-layer Llama without a chat template and with pad = eos, as many published decoders have it."""
    roles = {"pad_token": "</s>", "unk_token": "[UNK]", "bos_token": "<s>", "eos_token": "</s>"}
    config = LlamaConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    return _write(LlamaModel, config, roles, folder)


class Family(NamedTuple):
    """A family of backbones: its configuration without a vocabulary, and its own kind of tokenizer."""

    config: Callable[..., PreTrainedConfig]
    sizes: dict[str, Any]
    tokenizer: Callable[[], PreTrainedTokenizerFast]
    head: type


def write_family(name: str, folder: Path) -> str:
    """The tiny model of a family, as published: with the head of its pretraining, its own tokenizer and template."""
    family = FAMILIES[name]
    tokenizer = family.tokenizer()
    special = {
        f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos", "cls", "sep")
    }
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = family.config(vocab_size=len(tokenizer), **family.sizes, **special)
        family.head.from_config(config).save_pretrained(folder)
    return str(folder)


def good_answers(n_pairs: int, n_heldout: int = 0) -> pl.DataFrame:
    """Pairs of one prompt each whose chosen answer says good and whose rejected answer says bad; the last are held out."""
    rows = []
    for row in range(n_pairs):
        letters = [LETTERS[(row // 16**place) % 16] for place in range(3)]
        question = f"what is {' '.join(letters)}"
        chosen, rejected = (f"{letters[row % 3]} is {word}" for word in ("good", "bad"))
        rows.append(
            {
                "pair_id": f"tiny:train:{row}",
                "prompt": [{"role": "user", "content": question}],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
                "group": stable_hash(question),
                "is_heldout": row >= n_pairs - n_heldout,
                "source": "tiny",
                "extra": "{}",
            }
        )
    return pl.DataFrame(rows, schema=PAIR_SCHEMA)


def _write(kind: type, config: BertConfig | LlamaConfig, roles: dict[str, str], folder: Path) -> str:
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind(config).save_pretrained(folder)
    return str(folder)


def _byte_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["Human: what is good\n\nAssistant: a is bad"] * 4, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def _llama() -> PreTrainedTokenizerFast:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *LETTERS]
    tokenizer = LlamaTokenizer({piece: number for number, piece in enumerate(pieces)}, [])
    tokenizer.chat_template = LLAMA2_TEMPLATE
    return tokenizer


def _qwen(template: str, eos: str) -> PreTrainedTokenizerFast:
    tokenizer = Qwen2Tokenizer(*_byte_pairs())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.eos_token, tokenizer.chat_template = eos, template
    return tokenizer


def _bert() -> PreTrainedTokenizerFast:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *(f"##{letter}" for letter in LETTERS)]
    return BertTokenizer({piece: number for number, piece in enumerate(pieces)})


def _modern_bert() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(*_byte_pairs()))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    roles = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", **roles)


def _deberta() -> PreTrainedTokenizerFast:
    pieces = [
        "[PAD]",
        "[CLS]",
        "[SEP]",
        "[UNK]",
        "\u2581",
        ":",
        *LETTERS,
        *(f"\u2581{word}" for word in WORDS),
        "[MASK]",
    ]
    return DebertaV2Tokenizer([(piece, -1.0 * number) for number, piece in enumerate(pieces)], unk_id=3)


FAMILIES = {
    "llama": Family(LlamaConfig, SIZES, _llama, AutoModelForCausalLM),
    "qwen2": Family(Qwen2Config, QWEN_SIZES, lambda: _qwen(CHATML_TEMPLATE, "<|endoftext|>"), AutoModelForCausalLM),
    "qwen3": Family(Qwen3Config, QWEN_SIZES, lambda: _qwen(THINKING_TEMPLATE, "<|im_end|>"), AutoModelForCausalLM),
    "gpt2": Family(GPT2Config, GPT2_SIZES, lambda: GPT2Tokenizer(*_byte_pairs()), AutoModelForCausalLM),
    "gpt_neox": Family(GPTNeoXConfig, SIZES, lambda: GPTNeoXTokenizer(*_byte_pairs()), AutoModelForCausalLM),
    "bert": Family(BertConfig, SIZES, _bert, AutoModelForMaskedLM),
    "modernbert": Family(ModernBertConfig, SIZES, _modern_bert, AutoModelForMaskedLM),
    "deberta_v2": Family(DebertaV2Config, DEBERTA_SIZES, _deberta, AutoModelForMaskedLM),
}

"""Models of a few thousand weights, written to a folder as transformers saves them, and pairs that they can learn from."""

from pathlib import Path

import polars as pl
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from curate.pairs import PAIR_SCHEMA, stable_hash

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<s>", "</s>"]
LETTERS = "abcdefghijklmnop"
WORDS = ["human", "assistant", ":", "what", "is", "good", "bad", *LETTERS]
VOCABULARY = {word: number for number, word in enumerate(SPECIAL + WORDS)}


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

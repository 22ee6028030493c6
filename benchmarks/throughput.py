"""How fast does the training loop train? Pairs a second beside trl.RewardTrainer, on the same model, pairs and machine.

    python benchmarks/throughput.py --data ../shared/data --size tiny     # on a CPU
    python benchmarks/throughput.py --data ../shared/data --size 0.6b     # on a GPU

A randomly initialised Qwen3 decoder (its weights have no say in speed) is trained on pairs of hh_rlhf_test by both, with the
same batch, length limit, type of matrix products and number of steps. Tokenising is not timed, nor are the first steps. The
share of the peak is 6 x weights x real tokens a second over the machine's own rate of large matrix products in that type.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForSequenceClassification, TrainerCallback
from trl import RewardConfig, RewardTrainer

from benchmarks.planted import read_set, table
from curate.options import TrainOptions
from curate.pairs import is_tie, text_of
from rm_ensemble.backbone import DTYPES, compute_device, compute_dtype
from rm_ensemble.batches import full_sequences, text_segments, unique_texts
from rm_ensemble.classifier import load_classifier, new_classifier, save_classifier
from rm_ensemble.items import Items, pair_items
from rm_ensemble.splits import raw_pairs
from rm_ensemble.train import train

SIZES = {
    "tiny": {"hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 384, "num_attention_heads": 4},
    "0.6b": {"hidden_size": 1024, "num_hidden_layers": 28, "intermediate_size": 3072, "num_attention_heads": 16},
}
N_WARM = 3


def write_decoder(folder: Path, size: str, texts: list[str], max_tokens: int) -> None:
    """A random Qwen3 with a byte-pair tokenizer made of these texts."""
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer, plain.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    plain.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=8000, special_tokens=["<s>", "</s>", "<pad>"]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    sizes = SIZES[size]
    config = Qwen3Config(
        vocab_size=len(tokenizer), num_key_value_heads=sizes["num_attention_heads"] // 2, head_dim=32 if size == "tiny" else 128,
        max_position_embeddings=max(512, max_tokens), num_labels=1, pad_token_id=tokenizer.pad_token_id, **sizes,
    )  # fmt: skip
    Qwen3ForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Clock(TrainerCallback):
    """When each step of trl ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Takes the time, with the device at rest."""
        self.times.append(now())


def now() -> float:
    """Seconds, once the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def ours(folder: Path, items: Items, n_steps: int, options: argparse.Namespace) -> list[float]:
    """When each of our steps ended."""
    times: list[float] = []
    classifier = load_classifier(folder)
    train(
        classifier.model,
        items,
        n_steps * options.batch,
        TrainOptions(batch_size=options.batch, learning_rate=1e-5),
        autocast=DTYPES[compute_dtype("auto", compute_device())],
        progress=lambda *_: times.append(now()),
    )
    return times


def peer(folder: Path, pairs: pl.DataFrame, n_steps: int, options: argparse.Namespace) -> list[float]:
    """When each step of trl ended, with its own defaults beside what both have in common."""
    clock = Clock()
    is_bf16 = compute_dtype("auto", compute_device()) == "bfloat16"
    with tempfile.TemporaryDirectory() as out:
        settings = RewardConfig(
            output_dir=out, max_steps=n_steps, per_device_train_batch_size=options.batch, learning_rate=1e-5,
            max_length=options.max_tokens, bf16=is_bf16, gradient_checkpointing=False, report_to="none",
            disable_tqdm=True, save_strategy="no", use_cpu=compute_device() == "cpu", logging_strategy="no",
        )  # fmt: skip
        rows = Dataset.from_list(pairs.select("prompt", "chosen", "rejected").to_dicts())
        trainer = RewardTrainer(model=str(folder), args=settings, train_dataset=rows, callbacks=[clock])
        trainer.train()
    return clock.times


def matmul_rate(dtype: torch.dtype, n: int) -> float:
    """Floating-point operations a second of a large matrix product."""
    a, b = (torch.randn(n, n, device=compute_device(), dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(5):
        start = now()
        a @ b
        seconds.append(now() - start)
    return 2 * n**3 / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with hh_rlhf_test.jsonl.gz")
    parser.add_argument("--size", choices=SIZES, default="tiny", help="of the decoder")
    parser.add_argument("--pairs", type=int, default=800, help="pairs to draw from")
    parser.add_argument("--steps", type=int, default=40, help="steps of each, beside the first ones")
    parser.add_argument("--batch", type=int, default=16, help="pairs of a step")
    parser.add_argument("--max-tokens", type=int, default=256, help="tokens of a text")
    options = parser.parse_args()
    pairs = read_set(options.data, "hh_rlhf_test").filter(~is_tie())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_decoder(
            folder / "random",
            options.size,
            pairs.head(2000).select(text_of("chosen")).to_series().to_list(),
            options.max_tokens,
        )
        save_classifier(new_classifier(str(folder / "random"), options.max_tokens, 0), folder / "model")
        classifier = load_classifier(folder / "model")
        texts, index = unique_texts(pairs)
        sequences = full_sequences(text_segments(texts, classifier.tokenizer), options.max_tokens)
        fits = sequences.lengths[sequences.index[index]].max(axis=1) < options.max_tokens  # trl would drop longer ones
        rows = np.random.default_rng(0).permutation(np.flatnonzero(fits))[: options.pairs]
        part = pairs[rows.tolist()]
        items = pair_items(raw_pairs(part, index[rows]), sequences)
        n_weights = sum(p.numel() for n, p in classifier.model.named_parameters() if "embed" not in n)
        n_tokens = float(sequences.lengths[sequences.index[index[rows]]].sum(axis=1).mean())
        del classifier
        n_steps = options.steps + N_WARM
        found = {
            "ours": ours(folder / "model", items, n_steps, options),
            "trl": peer(folder / "model", part, n_steps, options),
        }
    peak = matmul_rate(DTYPES[compute_dtype("auto", compute_device())], 4096 if torch.cuda.is_available() else 1024)
    speed = {name: options.steps * options.batch / (times[-1] - times[N_WARM - 1]) for name, times in found.items()}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"{device}; {n_weights:,} weights beside the embeddings, {n_tokens:.0f} real tokens a pair\n")
    print(
        table(
            [
                {
                    "loop": name,
                    "pairs/s": f"{rate:.1f}",
                    "share of the matrix-product rate": f"{6 * n_weights * n_tokens * rate / peak:.0%}",
                    "to trl": f"{rate / speed['trl']:.2f}x",
                }
                for name, rate in speed.items()
            ]
        )
    )


if __name__ == "__main__":
    main()

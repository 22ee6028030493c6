"""How fast features are computed, beside sentence-transformers, the plain loop, and what the machine can multiply.

    python benchmarks/features.py --data ../shared/data/hh_rlhf_test.jsonl.gz --texts 512 --repeats 3

All run in one process on the same texts, cut to the same 256 tokens, in turns, so that whatever else the machine does
falls on all of them; loading the model is left out, tokenising is not. The share is the arithmetic of the layers
(linear and attention products, 2 per multiply-add) over what the same processor does in the feed-forward product of
one batch alone, measured between the turns.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel

from curate.formats import read_pairs
from curate.options import FeatureOptions
from rm_ensemble.backbone import (
    DTYPES,
    Backbone,
    compute_device,
    compute_dtype,
    find_backbone,
    load_backbone,
    quiet_transformers,
)
from rm_ensemble.batches import full_sequences, prompt_text, text_segments, unique_texts
from rm_ensemble.cache import GrowingFile
from rm_ensemble.features import BATCH_TOKENS, Reading, checked_layers, extract, make_readings, parse_block

OPTIONS = FeatureOptions()
BLOCKS = {name: parse_block(name) for name in OPTIONS.blocks}
FLOAT32_BATCH = 32  # of the plain loop, and sentence-transformers' default


def sample(data: Path, n_texts: int) -> pl.DataFrame:
    """Unique texts of a data set, all or a random part, in the order of the data."""
    texts, _ = unique_texts(read_pairs(str(data)).pairs)
    chosen = np.random.default_rng(0).permutation(texts.height)[: n_texts or None]
    return texts[np.sort(chosen)]


def as_strings(texts: pl.DataFrame) -> list[str]:
    """What the others read: the conversation as one text."""
    return [prompt_text(prompt + response) for prompt, response in texts.iter_rows()]


def read(texts: pl.DataFrame, backbone: Backbone) -> list[Reading]:
    """What the default blocks have to read of these texts."""
    blocks = checked_layers(OPTIONS, BLOCKS, backbone)
    return make_readings(text_segments(texts, backbone.tokenizer), blocks, OPTIONS.max_tokens)


def ours(texts: pl.DataFrame, backbone: Backbone) -> None:
    """What `features` does, without loading the model."""
    readings = read(texts, backbone)
    shape = (texts.height, backbone.model.config.hidden_size)
    extract(backbone, readings, GrowingFile(None, "", dict.fromkeys(BLOCKS, shape), {}), lambda *_: None)


@torch.inference_mode()
def plain_loop(strings: list[str], backbone: Backbone) -> list[torch.Tensor]:
    """Float32, the texts in their order, 32 at a time, padded to the longest of them, the mean over tokens."""
    means = []
    for start in range(0, len(strings), FLOAT32_BATCH):
        batch = backbone.tokenizer(
            strings[start : start + FLOAT32_BATCH],
            padding=True, truncation=True, max_length=OPTIONS.max_tokens, return_tensors="pt",
        )  # fmt: skip
        hidden = backbone.model(**batch).last_hidden_state
        mask = batch["attention_mask"][:, :, None]
        means.append((hidden * mask).sum(dim=1) / mask.sum(dim=1))
    return means


def operations(model: PreTrainedModel, readings: list[Reading]) -> float:
    """Floating-point operations of the layers that are run: linear and attention products, nothing else."""
    config = model.config
    linear = 2 * (4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size)
    total = 0.0
    for reading in readings:
        n = reading.sequences.lengths.astype(np.float64)
        total += max(reading.layers) * float((n * (linear + 4 * n * config.hidden_size)).sum())
    return total


@torch.inference_mode()
def product_rate(model: PreTrainedModel) -> float:
    """Operations per second of the feed-forward product on one batch of tokens, the best of 200."""
    width, inner, tokens = model.config.hidden_size, model.config.intermediate_size, BATCH_TOKENS["cpu"]
    weight, state = (torch.randn(n, width, dtype=model.dtype) for n in (inner, tokens))
    return (
        2 * tokens * width * inner / min(seconds(lambda: torch.nn.functional.linear(state, weight)) for _ in range(200))
    )


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(texts: pl.DataFrame, repeats: int) -> tuple[dict[str, list[float]], list[float], int]:
    """Seconds of each contender, the share of the product rate that ours reaches, and the number of tokens."""
    source, strings = find_backbone("minilm"), as_strings(texts)
    dtype = DTYPES[compute_dtype("auto", compute_device())]
    fast, exact = load_backbone(source, dtype), load_backbone(source)
    with quiet_transformers():
        peer = SentenceTransformer(str(source.folder), device="cpu")
    contenders = {
        f"prefcurate, {str(dtype).removeprefix('torch.')}": lambda: ours(texts, fast),
        "prefcurate, float32": lambda: ours(texts, exact),
        "sentence-transformers encode, its defaults": lambda: peer.encode(strings),
        "plain loop, float32, batch 32, not sorted": lambda: plain_loop(strings, exact),
    }
    lengths = full_sequences(text_segments(texts, fast.tokenizer), OPTIONS.max_tokens).lengths
    readings = read(texts, fast)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    shares = []
    for _ in range(repeats):
        rate = product_rate(fast.model)
        for name, work in contenders.items():
            times[name].append(seconds(work))
            print(f"{name}: {times[name][-1]:.1f} s", file=sys.stderr)
        first = next(iter(times.values()))[-1]
        shares.append(operations(fast.model, readings) / first / max(rate, product_rate(fast.model)))
    return times, shares, int(lengths.sum())


def table(times: dict[str, list[float]], shares: list[float], n_texts: int, n_tokens: int) -> str:
    """The result as markdown; ratios are medians over the turns of the two times of one turn."""
    first = next(iter(times.values()))
    lines = [
        f"{n_texts:,} texts, {n_tokens:,} tokens, {len(first)} turns, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, {'native' if compute_dtype('auto', 'cpu') == 'bfloat16' else 'no'} bfloat16",
        "",
        "| | seconds (median) | texts/s | tokens/s | times as long as the first, median (range) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, taken in times.items():
        median = statistics.median(taken)
        ratios = [b / a for a, b in zip(first, taken, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        lines.append(f"| {name} | {median:.1f} | {n_texts / median:.0f} | {n_tokens / median:,.0f} | {spread} |")
    share = f"{statistics.median(shares):.0%} ({min(shares):.0%}-{max(shares):.0%})"
    return "\n".join([*lines, "", f"Share of the product rate that the first reaches: {share}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="preference data, such as hh_rlhf_test.jsonl.gz")
    parser.add_argument("--texts", type=int, default=512, help="texts drawn at random; 0 for all")
    parser.add_argument("--repeats", type=int, default=3, help="turns that each contender gets")
    arguments = parser.parse_args()
    texts = sample(arguments.data, arguments.texts)
    times, shares, n_tokens = measure(texts, arguments.repeats)
    print(table(times, shares, texts.height, n_tokens))


if __name__ == "__main__":
    main()

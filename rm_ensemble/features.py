"""Features of texts: hidden states of a frozen backbone, pooled over parts of a text, computed once and cached."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor
from transformers import BertModel

from curate.errors import CurateError
from curate.options import FeatureOptions
from curate.run import Progress, key_of, no_progress
from rm_ensemble.backbone import (
    DTYPES,
    Backbone,
    compute_device,
    compute_dtype,
    find_backbone,
    fingerprint,
    load_backbone,
    weights_sha256,
)
from rm_ensemble.batches import (
    Ints,
    Segments,
    Sequences,
    batches,
    full_sequences,
    is_cut,
    padded,
    response_sequences,
    text_segments,
)
from rm_ensemble.bert import PackedBert, is_packable, keep_freed_memory
from rm_ensemble.cache import Floats, GrowingFile, finished_file, open_arrays

BATCH_TOKENS = {"cpu": 2048, "cuda": 16384}  # on a CPU, what stays in its caches
FACTS = ("backbone", "backbone_sha256", "max_tokens", "dtype", "device", "threads")
SAVE_EVERY_TOKENS = {"cpu": 250_000, "cuda": 10_000_000}  # an interruption costs 10-20 seconds of work


class Block(NamedTuple):
    """One feature block: which text is read, at which hidden layer (0 = embeddings, -1 = last), pooled over what."""

    text: str
    layer: int
    pool: str


@dataclass(frozen=True)
class Features:
    """`blocks` maps a block's name to (texts, width) float32, memory-mapped where it is cached.

    `facts` is JSON for `run.json`: n_texts, n_tokens, n_prompts_cut, n_responses_cut, backbone, backbone_sha256, dtype,
    device, threads. A text without tokens in a pooled part (an empty response) has zeros there.
    """

    blocks: Mapping[str, Floats]
    facts: dict[str, Any]
    key: str


def features(
    texts: pl.DataFrame, options: FeatureOptions, folder: Path | None = None, progress: Progress = no_progress
) -> Features:
    """Feature blocks of each text in the order of `texts` (`prompt`, `response` messages; see `unique_texts`).

    With a folder they are cached there as `KEY.safetensors` and read back memory-mapped; the key covers the model's and
    the tokenizer's files, every option, the texts, dtype, device and thread count. Interrupted, the same call goes on
    where it was. The same call on the same machine gives the same bits.
    """
    blocks = {name: parse_block(name) for name in options.blocks}
    source, device = find_backbone(options.backbone), compute_device()
    settings = _settings(texts, options, fingerprint(source), device)
    key = key_of(settings)
    if folder is not None and finished_file(folder, key).is_file():
        return Features(*open_arrays(finished_file(folder, key)), key)
    backbone = load_backbone(source, DTYPES[settings["dtype"]], device)
    blocks = checked_layers(options, blocks, backbone)
    segments = text_segments(texts, backbone.tokenizer, progress)
    readings = make_readings(segments, blocks, options.max_tokens)
    facts = {
        "n_texts": texts.height,
        "n_tokens": sum(len(reading.sequences.ids) for reading in readings),
        **_cut_counts(segments, options.max_tokens),
        **{name: settings[name] for name in FACTS},
    }
    shape = (texts.height, backbone.model.config.hidden_size)
    file = GrowingFile(folder, key, dict.fromkeys(blocks, shape), facts)
    extract(backbone, readings, file, settings["batch_tokens"], progress)
    return Features(*file.finish(), key)


def parse_block(name: str) -> Block:
    """A block's parts; refuses a name that says nothing.

    >>> parse_block("full/6/response")
    Block(text='full', layer=6, pool='response')
    """
    found = re.fullmatch(r"(full)/(-?\d+)/(response|prompt|first|last)|(response)/(-?\d+)/(mean|first|last)", name)
    if not found:
        raise CurateError(
            f"unknown feature block {name!r}: type full/LAYER/response, full/LAYER/prompt, full/LAYER/first, "
            "full/LAYER/last or response/LAYER/mean"
        )
    text, layer, pool = (part for part in found.groups() if part is not None)
    return Block(text, int(layer), pool)


class Reading:
    """The sequences of one kind (full, response), the blocks read off them, and the texts that each row stands for."""

    def __init__(self, sequences: Sequences, blocks: Mapping[str, Block], text: str) -> None:
        self.sequences = sequences
        self.blocks = {name: block for name, block in blocks.items() if block.text == text}
        self.pools = sorted({block.pool for block in self.blocks.values()})
        self.layers = sorted({block.layer for block in self.blocks.values()})
        self._texts_by_row = np.argsort(sequences.index, kind="stable")
        self._n_texts = np.bincount(sequences.index, minlength=len(sequences.lengths))
        self._first = np.concatenate([[0], np.cumsum(self._n_texts)])

    def texts_of(self, rows: Ints) -> tuple[Ints, Ints]:
        """The texts of these rows, and how many each row has."""
        spans = [self._texts_by_row[self._first[row] : self._first[row + 1]] for row in rows]
        return np.concatenate(spans), self._n_texts[rows]

    def pool_weights(self, rows: Ints, n_tokens: int) -> Floats:
        """(rows, pools, tokens): averages a part of a sequence by one matrix product; zeros where the part is empty."""
        position = np.arange(n_tokens)
        spans = np.stack([self._span(pool, rows) for pool in self.pools], axis=1)  # (rows, pools, 2)
        start, stop = spans[:, :, :1], spans[:, :, 1:]
        inside = (start <= position) & (position < stop)
        weights: Floats = (inside / np.maximum(1, stop - start)).astype(np.float32)
        return weights

    def _span(self, pool: str, rows: Ints) -> Ints:
        lengths = self.sequences.lengths[rows]
        match pool:
            case "prompt":
                return self.sequences.prompt[rows]
            case "first":
                return np.stack([np.zeros_like(lengths), np.ones_like(lengths)], axis=1)
            case "last":
                return np.stack([lengths - 1, lengths], axis=1)
            case _:  # response, and mean: the response tokens of their sequence
                return self.sequences.response[rows]


def make_readings(segments: Segments, blocks: Mapping[str, Block], max_tokens: int) -> list[Reading]:
    """What has to be read for these blocks: whole texts, responses alone, or both."""
    makers = {"full": full_sequences, "response": response_sequences}
    texts = sorted({block.text for block in blocks.values()})
    return [Reading(makers[text](segments, max_tokens), blocks, text) for text in texts]


def extract(
    backbone: Backbone, readings: list[Reading], file: GrowingFile, batch_tokens: int, progress: Progress
) -> None:
    """Run every batch that is not on disk yet; save now and then."""
    device = backbone.model.device.type
    model = backbone.model
    forward = PackedForward(model) if is_packable(model) else PaddedForward(backbone)
    keep_freed_memory()
    jobs = [(r, rows) for r in readings for rows in batches(r.sequences.lengths, batch_tokens)]
    total = sum(len(r.sequences.ids) for r in readings)
    done = saved = 0
    for step, (reading, rows) in enumerate(jobs):
        if step >= file.n_done:
            for some, values in pooled(forward, reading, rows):
                texts, counts = reading.texts_of(some)
                for name, value in values.items():
                    file.arrays[name][texts] = np.repeat(value, counts, axis=0)
        done += int(reading.sequences.lengths[rows].sum())
        if step >= file.n_done and done - saved >= SAVE_EVERY_TOKENS[device]:
            file.save(step + 1)
            saved = done
        progress("features", done, total)


class PaddedForward:
    """Hidden states by the model itself, in one padded batch."""

    def __init__(self, backbone: Backbone) -> None:
        self.model = backbone.model
        self.pad_id = backbone.tokenizer.pad_token_id or 0

    def __call__(self, sequences: Sequences, rows: Ints, layers: list[int]) -> Iterator[tuple[Ints, dict[int, Tensor]]]:
        """Parts of the rows with their hidden states (rows, tokens, width) by layer."""
        ids, mask = (torch.from_numpy(array).to(self.model.device) for array in padded(sequences, rows, self.pad_id))
        output = self.model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True, use_cache=False)
        yield rows, {layer: output.hidden_states[layer] for layer in layers}


class PackedForward:
    """The same for a BERT encoder on a CPU, without padding, up to the last layer that is asked for."""

    def __init__(self, model: BertModel) -> None:
        self.bert = PackedBert(model)

    def __call__(self, sequences: Sequences, rows: Ints, layers: list[int]) -> Iterator[tuple[Ints, dict[int, Tensor]]]:
        """One part for each length among the rows."""
        lengths = sequences.lengths[rows]
        ids = np.concatenate([sequences.ids[sequences.starts[row] : sequences.starts[row + 1]] for row in rows])
        states = self.bert.hidden(torch.from_numpy(ids), lengths, max(layers))
        start = 0
        for length in dict.fromkeys(lengths.tolist()):
            some = rows[lengths == length]
            stop = start + length * len(some)
            yield some, {layer: states[layer][start:stop].view(len(some), length, -1) for layer in layers}
            start = stop


@torch.inference_mode()
def pooled(
    forward: PaddedForward | PackedForward, reading: Reading, rows: Ints
) -> list[tuple[Ints, dict[str, Floats]]]:
    """One forward pass: parts of the rows, each with the reading's blocks (rows, width) float32."""
    parts = []
    for some, hidden in forward(reading.sequences, rows, reading.layers):
        state = hidden[reading.layers[0]]
        weights = torch.from_numpy(reading.pool_weights(some, state.shape[1])).to(state.device)
        means = {layer: torch.bmm(weights, state.float()).cpu().numpy() for layer, state in hidden.items()}
        blocks = reading.blocks.items()
        parts.append((some, {name: means[b.layer][:, reading.pools.index(b.pool)] for name, b in blocks}))
    return parts


def checked_layers(options: FeatureOptions, blocks: Mapping[str, Block], backbone: Backbone) -> dict[str, Block]:
    """The blocks with layers counted from 0; refuses layers and lengths that the model does not have."""
    config = backbone.model.config
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and options.max_tokens > limit:
        raise CurateError(f"--max-tokens {options.max_tokens}: backbone {options.backbone} reads at most {limit}")
    n = config.num_hidden_layers
    for name, block in blocks.items():
        if not -n - 1 <= block.layer <= n:
            raise CurateError(f"feature block {name}: backbone {options.backbone} has layers 0 to {n} (-1 = last)")
    return {name: block._replace(layer=block.layer % (n + 1)) for name, block in blocks.items()}


def _settings(texts: pl.DataFrame, options: FeatureOptions, prints: dict[str, str], device: str) -> dict[str, Any]:
    """Everything that the bits of the features depend on."""
    return {
        **{name: value for name, value in asdict(options).items() if name != "deterministic"},  # batch_tokens says it
        "backbone": Path(options.backbone).name if Path(options.backbone).is_dir() else options.backbone,
        "dtype": compute_dtype(options.dtype, device),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "batch_tokens": 1 if options.deterministic else BATCH_TOKENS[device],
        "backbone_sha256": weights_sha256(prints),
        "files": prints,
        "texts": _texts_sha256(texts),
    }


def _texts_sha256(texts: pl.DataFrame) -> str:
    digest = hashlib.sha256()
    for part in texts.select("prompt", "response").iter_slices(10_000):
        digest.update(part.write_ndjson().encode("utf-8"))
    return digest.hexdigest()


def _cut_counts(segments: Segments, max_tokens: int) -> dict[str, int]:
    prompts, responses = is_cut(segments, max_tokens)
    return {"n_prompts_cut": int(prompts.sum()), "n_responses_cut": int(responses.sum())}

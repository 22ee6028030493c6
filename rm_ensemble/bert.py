"""A BERT encoder's hidden states on a CPU, about twice as fast as transformers' and equal to them up to rounding.

It differs from `BertModel` in the order of work only: rows lie end to end without padding, queries, keys and values
come from one product, rows of equal length share their attention products, and weights are laid out for the processor
once, not at each product. The softmax skips the usual subtraction of the maximum, which costs more than the rest of
it, and is done the usual way where that overflows.
"""

import ctypes
import math
import platform
from itertools import groupby
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertModel, PreTrainedModel

from rm_ensemble.batches import Ints

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


class PackedBert:
    """The embeddings and layers of a `BertModel`."""

    def __init__(self, model: BertModel) -> None:
        self.embeddings: Any = model.embeddings
        self.n_heads: int = model.config.num_attention_heads
        self.layers = [_layer(layer, model.config.hidden_size // self.n_heads) for layer in model.encoder.layer]

    def hidden(self, ids: Tensor, lengths: Ints, n_layers: int) -> list[Tensor]:
        """Hidden states before and after each of the first `n_layers` layers, each (tokens, width).

        `ids` are the rows' tokens end to end, `lengths` (rows,) has rows of equal length side by side.
        """
        runs = [(length, sum(1 for _ in rows)) for length, rows in groupby(lengths.tolist())]
        position = torch.from_numpy(np.concatenate([np.tile(np.arange(length), n) for length, n in runs]))
        embeddings = self.embeddings
        state = embeddings.word_embeddings(ids) + embeddings.position_embeddings(position)
        state = embeddings.LayerNorm(state + embeddings.token_type_embeddings.weight[0])
        states = [state]
        for layer in self.layers[:n_layers]:
            states.append(self._apply(layer, states[-1], runs))
        return states

    def _apply(self, layer: "_Layer", state: Tensor, runs: list[tuple[int, int]]) -> Tensor:
        parts = torch.split(layer.query_key_value(state), [length * n for length, n in runs])
        attended = torch.cat([self._attend(part, length) for part, (length, _) in zip(parts, runs, strict=True)])
        state = layer.attention_norm(layer.attention_output(attended).add_(state))
        state = layer.output_norm(layer.output(layer.intermediate(state)).add_(state))
        return state

    def _attend(self, inputs: Tensor, length: int) -> Tensor:
        """Attention inside each of the rows of one length: (rows x length, 3 x width) -> (rows x length, width)."""
        heads = inputs.view(-1, length, 3, self.n_heads, inputs.shape[1] // (3 * self.n_heads))
        query, key, value = heads.permute(2, 0, 3, 1, 4).contiguous().flatten(1, 2)  # (rows x heads, length, width)
        weights = torch.bmm(query, key.transpose(1, 2)).exp2_()
        total = weights.sum(dim=-1, keepdim=True)
        if not torch.isfinite(total.log2()).all():  # too large or too small for exp2
            weights = torch.softmax(torch.bmm(query, key.transpose(1, 2)) * math.log(2), dim=-1)
            total = torch.ones_like(total)
        attended = torch.bmm(weights, value).div_(total)
        return attended.view(-1, self.n_heads, length, value.shape[2]).transpose(1, 2).reshape(len(inputs), -1)


class _Product:
    """A linear layer, with an exact GELU after it if asked for: what torch.compile makes of one on a CPU."""

    def __init__(self, weight: Tensor, bias: Tensor, activation: str = "none") -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
        self.bias, self.activation = bias.detach(), activation

    def __call__(self, state: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(state, self.weight, self.bias, self.activation, [], "none")
        return product


class _Layer(NamedTuple):
    query_key_value: _Product  # (tokens, width) -> (tokens, 3 x width)
    attention_output: _Product
    attention_norm: nn.LayerNorm
    intermediate: _Product
    output: _Product
    output_norm: nn.LayerNorm


def _layer(layer: Any, head_width: int) -> _Layer:
    """The products of one layer; the queries are scaled so that the softmax is over powers of two."""
    query, key, value = layer.attention.self.query, layer.attention.self.key, layer.attention.self.value
    scale, dtype = math.log2(math.e) / math.sqrt(head_width), query.weight.dtype
    weight = torch.cat([query.weight.float() * scale, key.weight.float(), value.weight.float()])
    bias = torch.cat([query.bias.float() * scale, key.bias.float(), value.bias.float()])
    attention_output = layer.attention.output
    return _Layer(
        _Product(weight.to(dtype), bias.to(dtype)),
        _Product(attention_output.dense.weight, attention_output.dense.bias),
        attention_output.LayerNorm,
        _Product(layer.intermediate.dense.weight, layer.intermediate.dense.bias, "gelu"),
        _Product(layer.output.dense.weight, layer.output.dense.bias),
        layer.output.LayerNorm,
    )


def is_packable(model: PreTrainedModel) -> TypeGuard[BertModel]:
    """True for a BERT encoder on a CPU with nothing unusual about it, and a torch that has the products."""
    if not isinstance(model, BertModel) or model.device.type != "cpu":
        return False
    is_usual = model.config.hidden_act == "gelu" and not model.config.is_decoder
    has_products = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(is_usual and has_products)


def keep_freed_memory() -> None:
    """Let glibc keep up to 256 MiB of freed buffers for the next layer.

    Otherwise it gives them back and fetches them again, zeroed page by page: a fifth of a forward pass on a virtual
    machine. Other C libraries are left alone.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # 32 MiB is the largest value that glibc takes
        libc.mallopt(M_TRIM_THRESHOLD, 256 << 20)

"""Pair table -> unique texts -> token sequences -> batches of nearly equal length; too long is cut and counted."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from curate.errors import CurateError
from curate.options import FeatureOptions
from curate.run import Progress, no_progress
from rm_ensemble.backbone import find_backbone, load_tokenizer
from rm_ensemble.tokens import ChatEncoder, Messages, plain_tokenizer

Ints = npt.NDArray[np.int64]

KEPT_PROMPT_TOKENS = 32  # a long response is cut before the prompt's last 32 tokens are: a response needs its question
MIN_TOKENS = 48  # below it the kept prompt tokens and the special tokens leave no room for a response
ROLE_NAMES = {"user": "Human", "assistant": "Assistant", "system": "System"}


@dataclass(frozen=True)
class Sequences:
    """Token sequences, each once, stored end to end: row i is `ids[starts[i]:starts[i + 1]]`.

    `prompt` and `response` are (rows, 2): where those tokens begin and end within the row. `index` is (texts,): the
    row of each text.
    """

    ids: npt.NDArray[np.int32]
    starts: Ints
    prompt: Ints
    response: Ints
    index: Ints

    @property
    def lengths(self) -> Ints:
        """(rows,) tokens of each row."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class Segments:
    """The prompt's and the response's token ids of each text, whole, and the special tokens that go around them.

    `closing` is how a chat template ends responses, part of each that it ends so: a cut response keeps it.
    """

    prompts: list[list[int]]
    responses: list[list[int]]
    head: list[int]
    middle: list[int]
    tail: list[int]
    closing: list[int] = field(default_factory=list)


def unique_texts(pairs: pl.DataFrame) -> tuple[pl.DataFrame, Ints]:
    """The distinct (prompt, response) texts of a pair table, and where each pair's two are.

    `texts` has the message columns `prompt` and `response`, in order of first appearance; the second result is
    (pairs, 2): the rows of the chosen and the rejected text.

    >>> turn = lambda role, content: [{"role": role, "content": content}]
    >>> hi, a, b = turn("user", "Hi"), turn("assistant", "Hello!"), turn("assistant", "Go away.")
    >>> texts, index = unique_texts(pl.DataFrame({"prompt": [hi, hi], "chosen": [a, b], "rejected": [b, b]}))
    >>> texts.height, index.tolist()
    (2, [[0, 1], [1, 1]])
    """
    sides = [
        pairs.select("prompt", response=side, side=pl.int_range(pl.len(), dtype=pl.Int64) * 2 + i)
        for i, side in enumerate(("chosen", "rejected"))
    ]
    texts = pl.concat(sides).sort("side").group_by("prompt", "response", maintain_order=True).agg("side")
    sizes = texts["side"].list.len().to_numpy()
    index = np.empty(2 * pairs.height, dtype=np.int64)
    index[texts["side"].explode().to_numpy()] = np.repeat(np.arange(texts.height), sizes)
    return texts.select("prompt", "response"), index.reshape(-1, 2)


def token_lengths(pairs: pl.DataFrame, options: FeatureOptions, progress: Progress = no_progress) -> pl.DataFrame:
    """How many tokens each pair has and what the limit cuts off, one row per pair; reads no model weights into memory.

    Columns: `pair_id`, `n_prompt_tokens`, `n_chosen_tokens`, `n_rejected_tokens` (before any cut), `is_prompt_cut` and
    `is_response_cut` (for either response), and `is_equal_after_cut`: the two texts differ, but their token sequences
    do not, so no model with this limit can tell them apart.
    """
    texts, index = unique_texts(pairs)
    segments = text_segments(texts, load_tokenizer(find_backbone(options.backbone)), progress)
    sequences = full_sequences(segments, options.max_tokens)
    n_prompt, n_response = segment_lengths(segments)
    is_prompt_cut, is_response_cut = is_cut(segments, options.max_tokens)
    same_row = sequences.index[index[:, 0]] == sequences.index[index[:, 1]]
    return pl.DataFrame(
        {
            "pair_id": pairs["pair_id"],
            "n_prompt_tokens": n_prompt[index].max(axis=1),
            "n_chosen_tokens": n_response[index[:, 0]],
            "n_rejected_tokens": n_response[index[:, 1]],
            "is_prompt_cut": is_prompt_cut[index].any(axis=1),
            "is_response_cut": is_response_cut[index].any(axis=1),
            "is_equal_after_cut": same_row & (index[:, 0] != index[:, 1]),
        }
    )


def text_segments(
    texts: pl.DataFrame, tokenizer: PreTrainedTokenizerFast, progress: Progress = no_progress
) -> Segments:
    """The token ids of each text's prompt and response, uncut.

    An encoder (a tokenizer with [CLS] and [SEP]) reads `[CLS] prompt [SEP] response [SEP]`; a decoder reads its chat
    template, or without one the same rendering as an encoder between its begin and end tokens. The response is the
    content of the last message; messages before it belong to the prompt. Special tokens inside a message stay text.
    """
    silence = [{"role": "assistant", "content": ""}]
    conversations = [
        prompt + (response or silence) for prompt, response in texts.select("prompt", "response").iter_rows()
    ]
    if is_encoder(tokenizer):
        cls, sep = _ids(tokenizer.cls_token_id), _ids(tokenizer.sep_token_id)
        prompts, responses = _rendered_segments(conversations, tokenizer, ("", ""), progress)
        return Segments(prompts, responses, cls, sep, sep)
    bos, eos = _ids(tokenizer.bos_token_id), _ids(tokenizer.eos_token_id)
    if tokenizer.chat_template:
        return _chat_segments(conversations, tokenizer, bos, progress)
    prompts, responses = _rendered_segments(conversations, tokenizer, ("\n\nAssistant:", " "), progress)
    return Segments(prompts, responses, bos, [], eos)


def is_encoder(tokenizer: PreTrainedTokenizerFast) -> bool:
    """True for a tokenizer with [CLS] and [SEP], whatever they are called."""
    return tokenizer.cls_token_id is not None and tokenizer.sep_token_id is not None


def ends_with_eos(tokenizer: PreTrainedTokenizerFast) -> bool:
    """True where every text ends with the eos token, cut or not; an encoder's is its [SEP]."""
    if tokenizer.chat_template and not is_encoder(tokenizer):
        return tokenizer.eos_token_id in ChatEncoder(tokenizer).closing()
    return tokenizer.eos_token_id is not None


def prompt_text(messages: Messages) -> str:
    r"""A conversation as the text that an encoder reads.

    >>> prompt_text([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}])
    'Human: Hi\n\nAssistant: Hello!'
    """
    return "\n\n".join(f"{ROLE_NAMES.get(m['role'], m['role'].capitalize())}: {m['content']}" for m in messages)


def segment_lengths(segments: Segments) -> tuple[Ints, Ints]:
    """(texts,) tokens of the prompts and of the responses before any cut."""
    prompts, responses = (
        np.array([len(ids) for ids in part], dtype=np.int64) for part in (segments.prompts, segments.responses)
    )
    return prompts, responses


def kept_tokens(n_prompt: Ints, n_response: Ints, room: int) -> tuple[Ints, Ints]:
    """How many tokens of prompt (its last) and response (its first) fit into `room`; the response has priority.

    The prompt keeps at least its last 32 tokens, where it has them.

    >>> [kept.tolist() for kept in kept_tokens(np.array([10, 200, 200]), np.array([300, 300, 50]), room=253)]
    [[10, 32, 200], [243, 221, 50]]
    """
    response = np.minimum(n_response, room - np.minimum(n_prompt, KEPT_PROMPT_TOKENS))
    return np.minimum(n_prompt, room - response), response


def is_cut(segments: Segments, max_tokens: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(texts,) which prompts and which responses lose tokens to the limit."""
    n_prompt, n_response = segment_lengths(segments)
    kept_prompt, kept_response = kept_tokens(n_prompt, n_response, _room(segments, max_tokens))
    return kept_prompt < n_prompt, kept_response < n_response


def full_sequences(segments: Segments, max_tokens: int) -> Sequences:
    """Head, prompt, middle, response, tail of every text, cut to `max_tokens`."""
    n_prompt, n_response = segment_lengths(segments)
    kept = kept_tokens(n_prompt, n_response, _room(segments, max_tokens))
    rows = (
        (segments.head, p[len(p) - n_p :], segments.middle, _cut(r, n_r, segments.closing), segments.tail)
        for p, r, n_p, n_r in zip(segments.prompts, segments.responses, *(k.tolist() for k in kept), strict=True)
    )
    return _collect(rows)


def response_sequences(segments: Segments, max_tokens: int) -> Sequences:
    """Head, response, tail: every response alone, cut to `max_tokens`."""
    room = max_tokens - len(segments.head) - len(segments.tail)
    responses = (_cut(response, room, segments.closing) for response in segments.responses)
    return _collect((segments.head, [], [], response, segments.tail) for response in responses)


def batches(lengths: Ints, token_budget: int) -> list[Ints]:
    """Row numbers by batch, longest rows first; a batch has at most `token_budget` tokens with padding, or one row.

    Rows without tokens are in no batch.

    >>> [rows.tolist() for rows in batches(np.array([2, 9, 3, 3]), token_budget=6)]
    [[1], [2, 3], [0]]
    """
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    found, start = [], 0
    while start < len(order):
        stop = start + max(1, token_budget // int(lengths[order[start]]))
        found.append(order[start:stop])
        start = stop
    return found


def padded(sequences: Sequences, rows: Ints, pad_id: int) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Token ids and the mask of real tokens of a batch, both (rows, tokens), padded on the right."""
    lengths = sequences.lengths[rows]
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.concatenate([sequences.ids[sequences.starts[row] : sequences.starts[row + 1]] for row in rows])
    return ids, mask


def _cut(response: list[int], n_kept: int, closing: list[int]) -> list[int]:
    """The first tokens of a response; one that is cut keeps what closes it.

    >>> _cut([1, 2, 3, 8, 9], 4, [8, 9]), _cut([1, 2, 3, 8, 9], 5, [8, 9]), _cut([1, 2, 3], 2, [8, 9])
    ([1, 2, 8, 9], [1, 2, 3, 8, 9], [1, 2])
    """
    n_closing = len(closing) if closing and response[-len(closing) :] == closing else 0
    return response[: n_kept - n_closing] + closing if n_kept < len(response) and n_closing else response[:n_kept]


def _room(segments: Segments, max_tokens: int) -> int:
    if max_tokens < MIN_TOKENS:
        raise CurateError(f"--max-tokens {max_tokens}: too few; give at least {MIN_TOKENS}")
    return max_tokens - len(segments.head) - len(segments.middle) - len(segments.tail)


def _collect(rows: Iterator[tuple[list[int], list[int], list[int], list[int], list[int]]]) -> Sequences:
    """Sequences from their five parts, equal ones once."""
    seen: dict[tuple[bytes, int], int] = {}
    ids: list[npt.NDArray[np.int32]] = []
    spans, index = [], []
    for head, prompt, middle, response, tail in rows:
        row = np.array(head + prompt + middle + response + tail, dtype=np.int32)
        prompt_stop = len(head) + len(prompt)
        response_start = prompt_stop + len(middle)
        number = seen.setdefault((row.tobytes(), response_start), len(seen))
        if number == len(ids):
            ids.append(row)
            spans.append((len(head), prompt_stop, response_start, response_start + len(response)))
        index.append(number)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in ids], dtype=np.int64)])
    places = np.array(spans, dtype=np.int64).reshape(-1, 4)
    flat = np.concatenate(ids) if ids else np.empty(0, dtype=np.int32)
    return Sequences(flat, starts, places[:, :2], places[:, 2:], np.array(index, dtype=np.int64))


def _rendered_segments(
    conversations: list[Messages], tokenizer: PreTrainedTokenizerFast, seam: tuple[str, str], progress: Progress
) -> tuple[list[list[int]], list[list[int]]]:
    """Prompt and response ids; the first half of `seam` ends the prompt, the second begins the response."""
    plain = plain_tokenizer(tokenizer)
    prompts = [prompt_text(messages[:-1]) + seam[0] for messages in conversations]
    responses = [seam[1] + messages[-1]["content"] for messages in conversations]
    return _encode(prompts, plain, "tokenise prompts", progress), _encode(
        responses, plain, "tokenise responses", progress
    )


def _encode(
    texts: list[str], tokenizer: Tokenizer, what: str, progress: Progress, chunk: int = 4096
) -> list[list[int]]:
    """Token ids of each text without special tokens; equal texts are encoded once and share their list."""
    unique = list(dict.fromkeys(texts))
    ids: dict[str, list[int]] = {}
    for start in range(0, len(unique), chunk):
        part = unique[start : start + chunk]
        encodings = tokenizer.encode_batch_fast(part, add_special_tokens=False)
        ids.update(zip(part, (encoding.ids for encoding in encodings), strict=True))
        progress(what, start + len(part), len(unique))
    return [ids[text] for text in texts]


def _chat_segments(
    conversations: list[Messages], tokenizer: PreTrainedTokenizerFast, bos: list[int], progress: Progress
) -> Segments:
    """Segments of a chat template's rendering; the response begins where the prompt with its generation prompt ends.

    That end is found in the tokens of the whole, since tokens at the seam may differ from those of the prompt alone.
    """
    chat = ChatEncoder(tokenizer)
    has_bos = bool(bos) and chat.ids([{"role": "user", "content": ""}], False)[:1] == bos
    prompts, responses = [], []
    for done, messages in enumerate(conversations, 1):
        whole, opening = chat.ids(messages, False), chat.ids(messages[:-1], True) if messages[1:] else []
        seam = next((i for i, pair in enumerate(zip(whole, opening, strict=False)) if pair[0] != pair[1]), len(opening))
        seam = max(seam, int(has_bos))  # a response without a prompt
        prompts.append(whole[int(has_bos) : seam])
        responses.append(whole[seam:])
        progress("tokenise", done, len(conversations))
    return Segments(prompts, responses, bos if has_bos else [], [], [], chat.closing())


def _ids(token_id: Any) -> list[int]:
    return [] if token_id is None else [int(token_id)]

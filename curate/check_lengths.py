"""Lengths in tokens: which pairs need a tokenizer at all, and how many are over the limits that trainers drop at."""

from typing import Any

import polars as pl

from curate.check_columns import SIDES
from curate.pairs import text_of

LIMITS = (512, 1024, 2048)  # 1024 is TRL's default: it drops pairs that are longer
TOKENS_PER_MESSAGE = 24  # role names and special tokens around each
LONG_WORD = r"\S{100}"  # one unknown token for a tokenizer of words
CHUNK = 20_000


def needs_tokens(pairs: pl.DataFrame, max_tokens: int) -> pl.Series:
    """True where tokens can be too many, or equal for two different responses, (pairs,); elsewhere neither can be.

    A tokenizer makes at most one token of a byte (ligatures that it spells out aside), and only responses with the same
    letters and digits, case and accents aside, can have equal tokens. The first pair is always asked for.
    """
    n_bytes = {name: text_of(name).str.len_bytes() for name in ("prompt", *SIDES)}
    n_messages = pl.col("prompt").list.len() + pl.max_horizontal(*(pl.col(side).list.len() for side in SIDES)) + 1
    longest = n_bytes["prompt"] + pl.max_horizontal(n_bytes["chosen"], n_bytes["rejected"])
    is_long = longest + TOKENS_PER_MESSAGE * n_messages > min(max_tokens, LIMITS[0])
    folded = [text_of(s).str.normalize("NFKD").str.to_lowercase().str.replace_all("[^a-z0-9]+", "") for s in SIDES]
    has_long_word = pl.any_horizontal(*(text_of(side).str.contains(LONG_WORD) for side in SIDES))
    is_alike = (folded[0] == folded[1]) | has_long_word
    return pairs.select((is_long | is_alike | (pl.int_range(pl.len()) == 0)).alias("needs_tokens")).to_series()


def length_facts(lengths: pl.DataFrame) -> dict[str, Any]:
    """How many pairs, and which share, are over each limit as trainers count: prompt and longer response, no template.

    A trainer with that limit drops this share. A pair whose lengths are null was not asked for: it is under all limits.

    >>> lengths = {"n_prompt_tokens": [9, 600], "n_chosen_tokens": [9, 500], "n_rejected_tokens": [503, 9]}
    >>> facts = length_facts(pl.DataFrame(lengths))
    >>> facts["n_over_512_tokens"], facts["over_512_tokens_share"], facts["over_1024_tokens_share"]
    (1, 0.5, 0.5)
    """
    longest = pl.col("n_prompt_tokens") + pl.max_horizontal("n_chosen_tokens", "n_rejected_tokens")
    counts = {limit: int(lengths.select((longest > limit).sum()).item()) for limit in LIMITS}
    return {
        **{f"n_over_{limit}_tokens": count for limit, count in counts.items()},
        **{f"over_{limit}_tokens_share": count / len(lengths) for limit, count in counts.items()},
    }

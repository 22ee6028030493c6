"""Cheap features of a response's text: how long it is, how it is punctuated and laid out, what it shares with its prompt.

They put the nulls (the longer text wins, the one with a list wins) inside the model, where the data can weigh them.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.pairs import text_of

WORD = r"[\p{Han}\p{Hiragana}\p{Katakana}]|[\p{L}\p{N}']+"  # a Chinese or Japanese character counts as a word
COUNTED = {
    "sentences": r"[.!?。！？]+",
    "lines": r"\n",
    "paragraphs": r"\n\s*\n",
    "list_items": r"(?m)^\s*(?:[-*•]|\d+[.)])\s",
    "digits": r"\d",
    "capitals": r"\p{Lu}",
    "commas": r"[,，、;；:：]",
    "questions": r"[?？]",
    "exclamations": r"[!！]",
    "quotes": r'["“”()（）]',
    "symbols": r"[^\p{L}\p{N}\s\p{P}]",
    "markup": r"[`*#|]",
    "links": r"https?://|www\.",
    "shouted": r"\b\p{Lu}{2,}\b",
    "first_person": r"(?i)\b(?:i|i'm|i'd|i've|my|me)\b",
    "second_person": r"(?i)\b(?:you|your|you're)\b",
    "negations": r"(?i)\b(?:not|no|never|\w+n't|cannot|sorry|unable)\b",
}


def text_features(texts: pl.DataFrame) -> NDArray[np.float32]:
    """(texts, features) float32 of a table with message columns `prompt` and `response`; counts as log(1 + n).

    In the order of COUNTED, then characters, words, distinct words, distinct share, word length, whether the text ends with a
    full stop and begins with a capital, and the share of its distinct words that are in the last message of the prompt.
    """
    last_turn = pl.col("prompt").list.last().struct.field("content").fill_null("").alias("prompt")
    read = texts.lazy().select(last_turn, text_of("response").fill_null(""))
    words = read.with_columns(
        words=pl.col("response").str.to_lowercase().str.extract_all(WORD),
        asked=pl.col("prompt").str.to_lowercase().str.extract_all(WORD),
    ).with_columns(distinct=pl.col("words").list.unique(maintain_order=True))
    n_words, n_distinct = pl.col("words").list.len(), pl.col("distinct").list.len()
    shared = pl.col("distinct").list.set_intersection("asked").list.len()
    response = pl.col("response")
    table = words.select(
        *(response.str.count_matches(pattern).log1p().alias(name) for name, pattern in COUNTED.items()),
        characters=response.str.len_chars().log1p(),
        words=n_words.log1p(),
        distinct_words=n_distinct.log1p(),
        distinct_share=n_distinct / n_words.clip(1),
        word_length=pl.col("words").list.eval(pl.element().str.len_chars()).list.mean().fill_null(0.0),
        is_finished=response.str.contains(r'[.!?。！？"”)]\s*$').cast(pl.Float64),
        is_capitalised=response.str.contains(r"^\s*[\p{Lu}\p{Han}]").cast(pl.Float64),
        shared_with_prompt=shared / n_distinct.clip(1),
    )
    return table.collect().to_numpy().astype(np.float32)

"""Overlap with another file, for test sets that have leaked into training: equal texts, and runs of words that both have."""

from collections.abc import Iterator
from typing import Any

import polars as pl

from curate.check_columns import SIDES, check_columns
from curate.check_duplicates import runs, words
from curate.run import Progress, no_progress

RUN_WORDS = 13  # as in the decontamination of GPT-3 (arXiv 2005.14165, appendix C)
FEWEST_WORDS = 5  # a shorter text that both have says nothing, unless it is a prompt
CHUNK = 20_000


def prompt_in_other() -> pl.Expr:
    """The first or the last question, or 13 words of it in a row, is also in the file compared with.

    error: take the pair out of one of the two, or the test measures memory
    """
    return pl.col("is_prompt_in_other")


def response_in_other() -> pl.Expr:
    """A response, or 13 words of it in a row, is also in the file compared with.

    warning: look whether it is a quotation; take the pair out of one of the two if not
    """
    return pl.col("is_response_in_other")


OVERLAP_CHECKS = (prompt_in_other, response_in_other)


def overlap_columns(table: pl.DataFrame, other: pl.DataFrame, progress: Progress = no_progress) -> pl.DataFrame:
    """`is_prompt_in_other` and `is_response_in_other` of each pair of `table`; `other` is a pair table."""
    against = check_columns(other)
    asked, questions = (pl.concat([part["opening"], part["question"]]) for part in (table, against))
    prompts = seen(asked, questions, 1, "prompts", progress)
    texts, others = (pl.concat([part[f"{side}_text"] for side in SIDES]) for part in (table, against))
    responses = seen(texts, others, FEWEST_WORDS, "responses", progress)
    n = len(table)
    return pl.DataFrame(
        {"is_prompt_in_other": prompts[:n] | prompts[n:], "is_response_in_other": responses[:n] | responses[n:]}
    )


def seen(
    texts: pl.Series, others: pl.Series, fewest_words: int, what: str = "texts", progress: Progress = no_progress
) -> pl.Series:
    """True for each text that shares a run of 13 words with another one, or all its words where it has fewer.

    >>> seen(pl.Series(["How are you?", "Who are you?"]), pl.Series(["how are YOU"]), fewest_words=3).to_list()
    [True, False]
    """
    known = pl.concat([keys["key"] for keys in run_keys(others.unique(), fewest_words)]).unique()
    own, found = texts.unique(), []
    for number, keys in enumerate(run_keys(own, fewest_words), start=1):
        found.append(keys.filter(pl.col("key").is_in(known.implode()))["text"])
        progress(f"overlap: {what}", min(number * CHUNK, len(own)), len(own))
    return texts.is_in(pl.concat(found).unique().implode())


def run_keys(texts: pl.Series, fewest_words: int) -> Iterator[pl.DataFrame]:
    """`text` and `key`, the hash of each run of its words, a chunk of texts at a time."""
    for start in range(0, max(len(texts), 1), CHUNK):
        chunk = texts.slice(start, CHUNK).to_frame("text").with_columns(words=words(pl.col("text")))
        kept = chunk.filter(pl.col("words").list.len() >= fewest_words)
        keys = runs(pl.col("words"), RUN_WORDS).list.eval(pl.element().hash())
        yield kept.select("text", key=keys).explode("key")


def overlap_facts(table: pl.DataFrame, other: pl.DataFrame, name: str) -> dict[str, Any]:
    """How many pairs share a whole prompt or response with the other file, word for word, beside its name and size."""
    against = check_columns(other)
    questions = pl.concat([against["opening"], against["question"]]).unique().implode()
    prompts = table["opening"].is_in(questions) | table["question"].is_in(questions)
    texts = pl.concat([against[f"{side}_text"] for side in SIDES]).unique().implode()
    responses = table["chosen_text"].is_in(texts) | table["rejected_text"].is_in(texts)
    return {
        "name": name,
        "n_pairs": len(other),
        "n_equal_prompts": int(prompts.sum()),
        "n_equal_responses": int(responses.sum()),
    }

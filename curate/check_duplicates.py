"""Near-duplicates by MinHash (rensa), and overlap with another file by runs of words.

Two texts are nearly the same where their sets of word pairs have a Jaccard similarity of `NEAR` or more. MinHash proposes;
the sets themselves decide. benchmarks/results/checks.md tells how `NEAR` was chosen.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl

from curate.check_columns import SIDES, response_uses
from curate.check_labels import equal_but_for_space, is_contradicted, is_repeated
from curate.run import Progress, no_progress, told

NEAR = 0.9
PROPOSED = 0.8  # MinHash estimates; what it proposes from here on is measured
PERMUTATIONS = 64
CHUNK = 50_000
# A letter of a script without spaces is a word
WORD = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]|[\w--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]]+"


def words(text: pl.Expr) -> pl.Expr:
    """The words of a text in lower case; punctuation and white space do not count."""
    return text.str.to_lowercase().str.extract_all(WORD)


def runs(words: pl.Expr, n: int) -> pl.Expr:
    """Every `n` words in a row; all words of a text that has fewer."""
    following = pl.concat_str([pl.element().shift(-i) for i in range(n)], separator=" ").drop_nulls()
    return (
        pl.when(words.list.len() < n).then(pl.concat_list(words.list.join(" "))).otherwise(words.list.eval(following))
    )


def near_leader(texts: pl.Series, what: str = "texts", progress: Progress = no_progress) -> pl.Series:
    """The number of the first text that each text is nearly the same as; its own where there is none.

    Numbers count the distinct texts in order of appearance, so that equal texts have equal numbers.

    >>> fox = "the quick brown fox jumps over the lazy dog near the old mill by the river bank today"
    >>> near_leader(pl.Series([fox, "a cat", fox.upper() + "!", "a dog", "a cat"])).to_list()
    [0, 1, 0, 3, 1]
    """
    distinct = texts.unique(maintain_order=True)
    tokens = told(_token_lists(distinct), f"near-duplicates: {what}", len(distinct), progress)
    leader = _leaders(distinct, tokens)
    numbers = pl.DataFrame({"text": distinct, "leader": leader})
    return texts.to_frame("text").join(numbers, on="text", how="left", maintain_order="left", nulls_equal=True)[
        "leader"
    ]


def _leaders(distinct: pl.Series, token_lists: Iterator[list[str]]) -> np.ndarray:
    """`near_leader` of texts that are all different, (texts,); `token_lists` has those of each."""
    from rensa import RMinHashDeduplicator

    index = RMinHashDeduplicator(threshold=PROPOSED, num_perm=PERMUTATIONS, use_lsh=True)
    is_new = np.array(index.add_pairs((str(i), tokens) for i, tokens in enumerate(token_lists)), dtype=bool)
    leader = np.arange(len(distinct))
    repeated = np.flatnonzero(~is_new)
    for start in range(0, len(repeated), CHUNK):
        later = repeated[start : start + CHUNK]
        proposals = index.get_duplicate_sets(_token_lists(distinct.gather(later)))
        proposed = [sorted(map(int, keys)) for keys in proposals]
        needed = sorted({*later.tolist(), *(row for rows in proposed for row in rows)})
        tokens = {row: set(found) for row, found in zip(needed, _token_lists(distinct.gather(needed)), strict=True)}
        for own, rows in zip(later.tolist(), proposed, strict=True):
            leader[own] = next((row for row in rows if is_near(tokens[own], tokens[row])), own)
    return leader


def is_near(one: set[str], other: set[str]) -> bool:
    """True where two sets of word pairs have a Jaccard similarity of `NEAR` or more."""
    return len(one & other) >= NEAR * len(one | other)


def _token_lists(texts: pl.Series) -> Iterator[list[str]]:
    """The word pairs of each text, a chunk of texts at a time; a text without a word stands for itself."""
    for start in range(0, len(texts), CHUNK):
        chunk = texts.slice(start, CHUNK).to_frame("text").with_columns(words=words(pl.col("text")))
        tokens = (
            pl.when(pl.col("words").list.len() == 0).then(pl.concat_list("text")).otherwise(runs(pl.col("words"), 2))
        )
        yield from chunk.select(tokens).to_series().to_list()


def near_columns(table: pl.DataFrame, progress: Progress = no_progress) -> pl.DataFrame:
    """Numbers that are equal where texts are nearly the same, and what follows from them, one row per pair.

    `opening_near`, `prompt_near`, `chosen_near` and `rejected_near`; `chosen_near_prompts` and `rejected_near_prompts`, to
    how many prompts nearly the same response is given.
    """
    n = len(table)
    prompts = near_leader(pl.concat([table["opening"], table["prompt_text"]]), "prompts", progress)
    responses = near_leader(pl.concat([table[f"{side}_text"] for side in SIDES]), "responses", progress)
    parts = {"opening": prompts[:n], "prompt": prompts[n:], "chosen": responses[:n], "rejected": responses[n:]}
    near = pl.DataFrame({f"{name}_near": part for name, part in parts.items()})
    return pl.concat([near, response_uses(near.with_columns(table["prompt_key"]), "near")], how="horizontal")


def near_equal_responses() -> pl.Expr:
    """The two responses are nearly the same, so the label hangs on a few words.

    note: look whether those words matter, as a number does
    """
    is_near_equal = (pl.col("chosen_near") == pl.col("rejected_near")) & (
        pl.col("chosen_key") != pl.col("rejected_key")
    )
    return is_near_equal & ~equal_but_for_space()


def near_duplicate_prompt() -> pl.Expr:
    """An earlier prompt begins with nearly the same question, and can lie on the other side of a split.

    warning: give both the same wording, so that they are grouped, or keep one of them
    """
    return pl.col("opening") != pl.col("opening").first().over("opening_near")


def near_duplicate_response() -> pl.Expr:
    """A response is nearly the same as one that another prompt has.

    note: look whether it answers either
    """
    return pl.any_horizontal(*(pl.col(f"{side}_near_prompts") > pl.col(f"{side}_key_prompts") for side in SIDES))


def near_duplicate_pair() -> pl.Expr:
    """An earlier row has nearly the same prompt and responses and the same label.

    warning: keep one of them
    """
    return is_repeated("near") & ~is_repeated()


def near_contradicting_labels() -> pl.Expr:
    """Another row prefers nearly the other one of nearly the same two responses to nearly the same prompt.

    warning: ask again which is better
    """
    return is_contradicted("near") & ~is_contradicted()


NEAR_CHECKS = (
    near_contradicting_labels,
    near_duplicate_pair,
    near_equal_responses,
    near_duplicate_prompt,
    near_duplicate_response,
)

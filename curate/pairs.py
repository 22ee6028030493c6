"""The pair table: its columns, the identity of a pair, and the prompt groups that folds and held-out prompts follow.

Every stage takes and returns tables keyed by `pair_id`, in the row order of `pairs.parquet`, so that stages join by
position.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import polars as pl

MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))

PAIR_SCHEMA = pl.Schema(
    {  # type: ignore[arg-type]  # polars' own instances and classes mixed
        "pair_id": pl.String,  # source:split:row, plus :i-j where one row gives several pairs
        "prompt": MESSAGES,
        "chosen": MESSAGES,
        "rejected": MESSAGES,
        "group": pl.String,  # hash of the first user turn: pairs of one prompt stay on one side of every split
        "is_heldout": pl.Boolean,  # set aside for the final comparison: no member trains on it
        "label_strength": pl.Float64,  # given P(chosen preferred) in [.5, 1]; .5 = tie; null where the label is binary
        "votes": pl.List(pl.Float64),  # one per annotator, 1 = chosen
        "annotators": pl.List(pl.String),  # parallel to votes
        "source": pl.String,
        "extra": pl.String,  # JSON text of every other column of the input row
    }
)


def is_tie() -> pl.Expr:
    """True where the given label prefers neither response."""
    return pl.col("label_strength").fill_null(1.0) == 0.5


def text_of(column: str) -> pl.Expr:
    """The contents of a message column joined by blank lines: for display, lengths and hashes, not for models."""
    return pl.col(column).list.eval(pl.element().struct.field("content")).list.join("\n\n").alias(column)


def stable_hash(text: str) -> str:
    """16 hex digits that depend on the text alone, on every machine and in every version.

    >>> stable_hash("What is the capital of France?")
    '137c4ba2345af8c0'
    """
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def prompt_group(
    prompt: Sequence[Mapping[str, str]], chosen: Sequence[Mapping[str, str]], rejected: Sequence[Mapping[str, str]]
) -> str:
    """The group of a pair: the hash of its first user turn, system turns excluded (METHODS.md section 2).

    Without a user turn, or with a blank one, the two responses stand for the prompt, in either order.

    >>> question, answer = [{"role": "user", "content": "Sky?"}], [{"role": "assistant", "content": "Blue."}]
    >>> prompt_group(question, answer, []) == prompt_group(question, [], answer) == stable_hash("Sky?")
    True
    """
    for message in prompt:
        if message["role"] == "user":
            if message["content"].strip():
                return stable_hash(message["content"])
            break
    return stable_hash("\0".join(sorted("\n\n".join(turn["content"] for turn in side) for side in (chosen, rejected))))


def heldout_groups(groups: Iterable[str], share: float, seed: int) -> set[str]:
    """The groups that no member trains on: the `share` of smallest seeded hash; none of fewer than 10.

    >>> len(heldout_groups(map(str, range(40)), 0.1, seed=0)), heldout_groups(map(str, range(9)), 0.1, seed=0)
    (4, set())
    """
    unique = set(groups)
    if len(unique) < 10:
        return set()
    ordered = sorted(unique, key=lambda group: (stable_hash(f"{seed}:{group}"), group))
    return set(ordered[: round(share * len(ordered))])

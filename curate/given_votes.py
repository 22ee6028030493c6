"""Votes that the data brings: the score lists of hh-rlhf-strength-cleaned as an ensemble that nobody trained here.

Nothing says whether those models had seen the labels that they judge, so such votes are no probabilities: label_prob is
unknown until a person has verified some pairs (METHODS.md section 6).
"""

import polars as pl

from curate.errors import CurateError

SIDES = ("chosen", "rejected")


def score_lists(pairs: pl.DataFrame) -> pl.DataFrame:
    """`chosen` and `rejected`, the scores that each pair brings for its responses; null where it brings none.

    >>> score_lists(pl.DataFrame({"extra": ['{"scores_chosen":[1.5,2],"scores_rejected":[0,1]}', "{}"]})).rows()
    [([1.5, 2.0], [0.0, 1.0]), (None, None)]
    """
    lists = pl.List(pl.Float64)
    return pairs.select(
        pl.col("extra").str.json_path_match(f"$.scores_{side}").str.json_decode(lists).alias(side) for side in SIDES
    )


def n_score_lists(pairs: pl.DataFrame) -> int:
    """How many members' votes every pair brings, 0 where none does; refuses pairs that bring different numbers of them."""
    sizes = score_lists(pairs)["chosen"].list.len().fill_null(0)
    first = int(sizes[0]) if len(sizes) else 0
    other = pairs["pair_id"].filter(sizes != first)
    if len(other):
        found = int(sizes.filter(sizes != first)[0])
        raise CurateError(
            f"{other[0]}: its score lists hold {found} scores, those of the first pair {first}; mend them, or add "
            "--no-score-lists to train members of our own"
        )
    return first


def member_votes(pairs: pl.DataFrame) -> list[pl.DataFrame]:
    """A votes table per member (`pair_id`, `reward_chosen`, `reward_rejected`, `fold`, `is_out_of_fold`), as the data has it."""
    scores = score_lists(pairs)
    return [
        scores.select(
            pairs["pair_id"],
            *(pl.col(side).list.get(member).cast(pl.Float32).alias(f"reward_{side}") for side in SIDES),
            fold=pl.lit(0, dtype=pl.Int16),
            is_out_of_fold=pl.lit(False),
        )
        for member in range(n_score_lists(pairs))
    ]

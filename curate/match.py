"""Which pair of one version of a dataset is which pair of another: by what they say, for rows move between versions.

Ids are of no use here: `pair_id` holds the file's name and the row. Where several pairs fit, they are matched in an order that
rests on their content alone, so that shuffling the rows of a version changes nothing.
"""

from collections.abc import Callable

import polars as pl

from curate.check_columns import content_key
from curate.check_labels import ordered_responses
from curate.pairs import is_tie, text_of

SAME, RESPONSE, PROMPT = "same texts", "response edited", "prompt edited"
TEXTS = ("prompt", "chosen", "rejected")
SIDES = (("chosen", "rejected"), ("rejected", "chosen"))  # a response and the other one
ALL_OF_IT = ("prompt_key", "chosen_key", "rejected_key", "label_strength", "source", "is_heldout")
Step = Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]
N_ALIKE = 24  # characters; an edit leaves the beginning of a text as it was, or its end
RESPONSES = ["first_key", "second_key"]
EDITED_PROMPT = {  # by what a pair is known again whose prompt was edited, the surest first
    "opening": [*RESPONSES, "prompt_opening"],
    "ending": [*RESPONSES, "prompt_ending"],
    "responses": RESPONSES,
}


def pair_keys(pairs: pl.LazyFrame) -> pl.DataFrame:
    """One row per pair without its texts: `row`, what it is called, the keys and lengths of its texts, and its `lean`.

    `first_key` and `second_key` are the keys of the two responses in an order that does not depend on the label. `lean` is
    how far the label prefers the first: label_strength (1 where the label is binary), negative for the second, 0 for a tie.
    `is_known_by_responses`, `_opening` and `_ending` say that no other prompt has the same responses, or the same ones after
    such a prompt. `content` is equal where all is that is compared: what is left to chance goes by it, not by the row.
    """
    first, second = ordered_responses()
    sign = pl.when(pl.col("chosen_key") == first).then(1.0).otherwise(-1.0)
    return (
        pairs.select(
            "pair_id",
            "source",
            "group",
            "is_heldout",
            "label_strength",
            is_tie().alias("is_tie"),
            *(content_key(text).alias(f"{text}_key") for text in TEXTS),
            *(text_of(text).str.len_chars().alias(f"{text}_length") for text in TEXTS),
            *(text_of(text).str.head(N_ALIKE).hash().alias(f"{text}_opening") for text in TEXTS),
            *(text_of(text).str.tail(N_ALIKE).hash().alias(f"{text}_ending") for text in TEXTS),
        )
        .with_columns(
            first_key=first,
            second_key=second,
            lean=pl.when("is_tie").then(0.0).otherwise(sign * pl.col("label_strength").fill_null(1.0)),
        )
        .with_columns(
            content=pl.struct(ALL_OF_IT).hash(),
            direction=pl.col("lean").sign(),
            **{f"is_known_by_{name}": _is_of_one_prompt(keys) for name, keys in EDITED_PROMPT.items()},
        )
        .with_columns(is_known_by_responses=pl.col("is_known_by_responses") & _is_long())
        .with_row_index("row")
        .collect()
    )


def _is_of_one_prompt(keys: list[str]) -> pl.Expr:
    """True where all rows of these keys have the same prompt."""
    prompt = pl.col("prompt_key")
    return (prompt.min() == prompt.max()).over(keys)


def _is_long() -> pl.Expr:
    """True where a response is so long that two pairs do not share it by chance, as they share "Yes" and "No"."""
    return pl.max_horizontal("chosen_length", "rejected_length") >= N_ALIKE


def match_pairs(a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
    """One row per pair of either version: `row_a`, `row_b` (null where it is not there), `match` and `is_crossed`.

    `a` and `b` are those of `pair_keys`. `is_crossed` is true where what is chosen in A is rejected in B. In this order:

    1. the same prompt and responses, first with the same label, then with the same side preferred: `same texts`;
    2. the same two responses, first with the same side preferred: `prompt edited`. As many prompts are answered by Yes and No,
       the prompts must begin or end alike, or the responses be long, and no other prompt of either version fit as well;
    3. the same prompt and one of the two responses: `response edited`, first where the other two begin or end alike, and where
       the equal one is on the same side. Many data sets have several pairs of one response, so this says less than 2.

    A pair is matched once. Rows are in the order of A, then those that are only in B.
    """
    found = []
    left, right = a, b
    for match, step in STEPS:
        matched = step(left, right).with_columns(match=pl.lit(match))
        left, right = _without(left, matched, "row_a"), _without(right, matched, "row_b")
        found.append(matched)
    alone = [left.select(row_a="row"), right.select(row_b="row")]
    return pl.concat([*found, *alone], how="diagonal").sort("row_a", "row_b", nulls_last=True)


def _without(table: pl.DataFrame, matched: pl.DataFrame, row: str) -> pl.DataFrame:
    return table.join(matched, left_on="row", right_on=row, how="anti", maintain_order="left")


def _numbered(table: pl.DataFrame, keys: list[str], order: list[str]) -> pl.DataFrame:
    """The table with `nth`, the number of a row among those of the same keys, counted in the given order."""
    return table.sort(*order, "content", "row").with_columns(nth=pl.int_range(pl.len()).over(keys))


def _matched_by(keys: list[str], order: list[str], among: str = "") -> Step:
    """A step that matches pairs of equal keys: the nth of A with the nth of B; `among` names a column that must be true."""

    def step(a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
        needed = list(dict.fromkeys(["row", "chosen_key", "content", *keys, *order]))
        fitting = [side.filter(among) if among else side for side in (a, b)]
        sides = [_numbered(side.select(needed), keys, order) for side in fitting]
        matched = sides[0].join(sides[1], on=[*keys, "nth"], suffix="_b", nulls_equal=True)
        is_crossed = pl.lit(False) if "chosen_key" in keys else pl.col("chosen_key") != pl.col("chosen_key_b")
        return matched.select(row_a="row", row_b="row_b", is_crossed=is_crossed)

    return step


def _matched_by_response(is_crossed: bool, alike: str) -> Step:
    """A step that matches pairs with the same prompt and one equal response, on the same side or (crossed) on the other.

    The other two responses are `alike` in their "opening" or "ending", or in nothing (""). A pair has two responses and can so
    fit two others: of all that fit, those whose other responses are most alike in length are taken first, until nothing fits.
    """

    def step(a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
        found = []
        while True:
            matched = _mutual_best(_candidates(_responses(a), _responses(b, is_crossed), alike))
            found.append(matched.with_columns(is_crossed=pl.lit(is_crossed)))
            if matched.is_empty():
                return pl.concat(found)
            a, b = _without(a, matched, "row_a"), _without(b, matched, "row_b")

    return step


def _candidates(a: pl.DataFrame, b: pl.DataFrame, alike: str) -> pl.DataFrame:
    """Rows that share prompt and a response, from the most to the least alike; `a` and `b` are those of `_responses`."""
    keys = ["prompt_key", "side", "response"]
    keys += [f"other_{alike}"] if alike else []
    sides = [_numbered(responses, keys, ["other_length"]) for responses in (a, b)]
    matched = sides[0].join(sides[1], on=[*keys, "nth"], suffix="_b")
    gap = (pl.col("other_length").cast(pl.Int64) - pl.col("other_length_b").cast(pl.Int64)).abs()
    contents = (
        pl.col("content"),
        pl.col("content_b"),
    )  # either way around: B against A is to find the same as A against B
    ranked = matched.sort(gap, pl.min_horizontal(contents), pl.max_horizontal(contents), "row", "row_b")
    return ranked.select(row_a="row", row_b="row_b").with_row_index("rank")


def _responses(table: pl.DataFrame, is_crossed: bool = False) -> pl.DataFrame:
    """Two rows per pair: one of its responses, on which side it is (crossed: the other side), and what the other one is like."""
    about = ("length", "opening", "ending")
    return pl.concat(
        table.select(
            "row",
            "prompt_key",
            "content",
            side=pl.lit(other if is_crossed else side),
            response=f"{side}_key",
            **{f"other_{name}": f"{other}_{name}" for name in about},
        )
        for side, other in SIDES
    )


def _mutual_best(candidates: pl.DataFrame) -> pl.DataFrame:
    """Those candidates that are the best of both of their rows, so that every row is in one at most."""
    rank = pl.col("rank")
    is_best = [rank == rank.min().over(row) for row in ("row_a", "row_b")]
    return candidates.filter(pl.all_horizontal(is_best)).drop("rank")


STEPS: tuple[tuple[str, Step], ...] = (
    (SAME, _matched_by(["prompt_key", "chosen_key", "rejected_key", "label_strength"], [])),
    (SAME, _matched_by(["prompt_key", *RESPONSES, "direction"], ["lean"])),
    (SAME, _matched_by(["prompt_key", *RESPONSES], ["lean"])),
    *(
        (PROMPT, _matched_by([*keys, *direction], ["prompt_length", "lean"], among=f"is_known_by_{name}"))
        for name, keys in EDITED_PROMPT.items()
        for direction in (["direction"], [])
    ),
    *(
        (RESPONSE, _matched_by_response(is_crossed, alike))
        for alike in ("opening", "ending", "")
        for is_crossed in (False, True)
    ),
)

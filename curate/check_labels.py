"""Checks of the labels: pairs that say nothing, say the opposite of another pair, or of the data's own scores."""

import numpy as np
import polars as pl

from curate.pairs import is_tie


def ordered_responses(suffix: str = "key") -> tuple[pl.Expr, pl.Expr]:
    """The keys of the two responses in an order that does not depend on the label."""
    chosen, rejected = pl.col(f"chosen_{suffix}"), pl.col(f"rejected_{suffix}")
    return pl.min_horizontal(chosen, rejected), pl.max_horizontal(chosen, rejected)


def is_repeated(suffix: str = "key") -> pl.Expr:
    """True where an earlier row has the same prompt, the same two responses and the same label."""
    first, second = ordered_responses(suffix)
    label = pl.when(is_tie()).then(None).otherwise(pl.col(f"chosen_{suffix}") == first)
    return ~pl.struct(f"prompt_{suffix}", first=first, second=second, label=label).is_first_distinct()


def is_contradicted(suffix: str = "key") -> pl.Expr:
    """True where another row prefers the other one of the same two responses to the same prompt."""
    first, second = ordered_responses(suffix)
    label = pl.when(~is_tie() & (first != second)).then(pl.col(f"chosen_{suffix}") == first)
    share = label.mean().over(pl.struct(f"prompt_{suffix}", first=first, second=second).hash())
    return (label.is_not_null() & share.is_between(0, 1, closed="none")).fill_null(False)


def identical_responses() -> pl.Expr:
    """Both responses are the same text, so the label says nothing.

    error: drop the pair; where ratings were made into pairs, leave out equal ratings
    """
    return pl.col("chosen_key") == pl.col("rejected_key")


def equal_but_for_space() -> pl.Expr:
    """The responses differ in white space only, so the label can be about the layout at most.

    warning: drop the pair unless the layout was asked for
    """
    chosen, rejected = (pl.col(f"{side}_text").str.replace_all(r"\s+", "") for side in ("chosen", "rejected"))
    return (chosen == rejected) & (chosen != "") & (pl.col("chosen_text") != pl.col("rejected_text"))


def exact_duplicate_pair() -> pl.Expr:
    """An earlier row has the same prompt, the same two responses and the same label.

    warning: keep one of them; --policy auto does
    """
    return is_repeated()


def contradicting_labels() -> pl.Expr:
    """Another row prefers the other one of the same two responses to the same prompt.

    error: ask again which is better, or make the pair a tie; --policy auto drops both
    """
    return is_contradicted()


def label_cycle() -> pl.Expr:
    """The label is one of a circle (a > b > c > a), so one of them is wrong.

    error: ask again which of these responses is better
    """
    return pl.col("is_in_cycle")


def score_contradicts_label() -> pl.Expr:
    """The data's own scores put the rejected response above the chosen one.

    error: swap the pair, or find out which of the two columns is wrong
    """
    return (~is_tie() & (pl.col("chosen_score") < pl.col("rejected_score"))).fill_null(False)


def equal_scores() -> pl.Expr:
    """The data's own scores of the two responses are equal, so the label was drawn, not given.

    warning: drop the pair, or leave it the tie that it is read as
    """
    is_drawn = ~is_tie() | (pl.col("extra").str.json_path_match("$.is_label_drawn") == "true")  # else a tie was given
    return (is_drawn & (pl.col("chosen_score") == pl.col("rejected_score"))).fill_null(False)


def repeated_prompt() -> pl.Expr:
    """An earlier row has the same prompt.

    note: nothing to do; pairs of one prompt stay on one side of every split
    """
    return ~pl.col("prompt_key").is_first_distinct()


def repeated_response() -> pl.Expr:
    """A response is also given to another prompt.

    note: look whether it answers either
    """
    return pl.any_horizontal(pl.col("chosen_key_prompts", "rejected_key_prompts") > 1)


LABEL_CHECKS = (
    identical_responses,
    equal_but_for_space,
    contradicting_labels,
    label_cycle,
    score_contradicts_label,
    equal_scores,
    exact_duplicate_pair,
    repeated_prompt,
    repeated_response,
)


def in_cycle(table: pl.DataFrame) -> pl.Series:
    """True where the label of a pair is part of a circle of responses to one prompt, (pairs,).

    Of a tangle of circles those of three; where there is none of three, every label in it. `table` has `prompt_key`,
    `chosen_key`, `rejected_key` and `label_strength`. Ties have no direction, and two labels that contradict each other are
    left out: they are a finding of their own, not a circle.

    >>> table = pl.DataFrame({"prompt_key": [7] * 4, "chosen_key": [1, 2, 3, 1], "rejected_key": [2, 3, 1, 4]})
    >>> in_cycle(table.with_columns(label_strength=pl.lit(None, pl.Float64))).to_list()
    [True, True, True, False]
    """
    is_edge = ~is_tie() & ~is_contradicted() & (pl.col("chosen_key") != pl.col("rejected_key"))
    edges = table.with_row_index("pair").filter(is_edge & (pl.len().over("prompt_key") > 2))
    is_member = np.zeros(len(table), dtype=bool)
    if len(edges):
        responses = [edges.select("prompt_key", key=side).hash_rows() for side in ("chosen_key", "rejected_key")]
        _, nodes = np.unique(pl.concat(responses).to_numpy(), return_inverse=True)
        is_member[edges["pair"].to_numpy()] = circles(nodes[: len(edges)], nodes[len(edges) :])
    return pl.Series("is_in_cycle", is_member)


def circles(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
    """Which edges of a graph are part of a circle, (edges,); of three nodes where a tangle has such."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = int(max(better.max(), worse.max())) + 1
    graph = coo_array((np.ones(len(better), dtype=np.int64), (better, worse)), shape=(size, size)).tocsr()
    component = connected_components(graph, directed=True, connection="strong")[1]
    is_tangled = component[better] == component[worse]
    inner = coo_array((is_tangled.astype(np.int64), (better, worse)), shape=(size, size)).tocsr()
    is_of_three = is_tangled & (np.asarray((inner @ inner)[worse, better]).ravel() > 0)
    has_three = np.isin(component[better], component[better[is_of_three]])
    return np.asarray(is_of_three | (is_tangled & ~has_three))

"""Best-of-n (METHODS.md 5): how good is the response that a reward model picks among n, in closed form, without drawing."""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.intervals import FEWEST_GROUPS, cluster_bootstrap
from curate.pairs import text_of
from rm_ensemble.batches import unique_texts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEWEST_RESPONSES = 3  # with two candidates the best of two is the accuracy again
# What ranks the responses: the model, and what it is held against; responses that are equal share their chances.
PICKS = {
    "model": pl.col("reward"),
    "longest": pl.col("length"),
    "shortest": -pl.col("length"),
    "random": 0 * pl.col("length"),
    "oracle": pl.col("grade"),
}


def best_of_n(graded: pl.DataFrame, seed: int = 0) -> list[dict[str, Any]]:
    """The mean grade of the response ranked first among n of a prompt, for n = 1, 2, 4, ... up to the longest list.

    `graded` is the table of `graded_responses`. A row of n stands on the prompts with at least n responses (`n_prompts`)
    and holds for the model, its nulls (the longest response, the shortest, a random one) and the oracle (the best grade)
    the expected grade, and model minus random (`gain`) on the same prompts: each `{"value", "low", "high"}`, a 95 %
    cluster bootstrap, null with one prompt group. No prompt with three responses: an empty list.

    >>> table = pl.DataFrame({"list": [0, 0, 0], "group": ["a"] * 3, "reward": [3.0, 2.0, 1.0], "grade": [0.0, 1.0, 0.5],
    ...                       "length": [9.0, 1.0, 5.0]})
    >>> [(row["n"], row["model"]["value"], row["oracle"]["value"]) for row in best_of_n(table)]   # 1 / 3, 5 / 6
    [(1, 0.5, 0.5), (2, 0.3333333333333333, 0.8333333333333333)]
    """
    sized = graded.with_columns(size=pl.len().over("list")).filter(pl.col("size") >= FEWEST_RESPONSES)
    if sized.is_empty():
        return []
    powers = (2**power for power in range(int(sized["size"].to_numpy().max()).bit_length()))
    return [_picked(sized.filter(pl.col("size") >= n), n, seed) for n in powers]


def graded_responses(pairs: pl.DataFrame, scores: pl.DataFrame) -> pl.DataFrame:
    """The table of `graded_texts` with the `reward` of each response, from `scores` (rows as in `pairs`) without `text`."""
    texts, index = unique_texts(pairs)
    reward = np.empty(texts.height)
    reward[index] = scores.select("reward_chosen", "reward_rejected").to_numpy()
    graded = graded_texts(pairs, texts, index)
    of_text = pl.Series("reward", reward[graded["text"].to_numpy()])
    return graded.with_columns(of_text).select("list", "group", "reward", "grade", "length")


def graded_texts(pairs: pl.DataFrame, texts: pl.DataFrame, index: Ints) -> pl.DataFrame:
    """The distinct responses of each prompt that have a grade: `text`, `list`, `group`, `grade`, `length` (characters).

    `texts` and `index` (pairs, 2) are those of `unique_texts`, of these pairs and perhaps others; `text` is the row there.
    `list` numbers the prompts. The grade is the mean of the response's own ratings where every pair has both
    (`pair_grades`). Elsewhere it is the mean preference over its opponents: its share of wins, a tie half. Where every
    prompt with three or more responses has one that stands in all its pairs, that is the yardstick that the others are
    held against, and no candidate. Pairs of identical responses grade nothing.

    >>> turn = lambda role, content: [{"role": role, "content": content}]
    >>> hi, a, b, c = turn("user", "Hi"), *(turn("assistant", text) for text in "abc")
    >>> pairs = pl.DataFrame({"group": ["g"] * 3, "prompt": [hi] * 3, "chosen": [a, b, a], "rejected": [b, c, c],
    ...                       "label_strength": [None, None, 0.75], "extra": ["{}"] * 3})
    >>> graded_texts(pairs, *unique_texts(pairs))["grade"].to_list()   # a: 1 and .75, b: 0 and 1, c: 0 and .25
    [0.875, 0.5, 0.125]
    """
    grades, is_rated = pair_grades(pairs)
    differs = index[:, 0] != index[:, 1]
    n_pairs = np.bincount(index[differs].ravel(), minlength=texts.height)
    total = np.bincount(index[differs].ravel(), weights=grades[differs].ravel(), minlength=texts.height)
    pair = np.zeros(texts.height, dtype=np.int64)
    pair[index] = np.arange(pairs.height)[:, None]
    table = texts.select(
        "prompt",
        text=pl.int_range(pl.len()),
        group=pairs["group"].gather(pair),
        grade=pl.Series(total / np.maximum(n_pairs, 1)),
        length=text_of("response").str.len_chars().cast(pl.Float64),
        n_pairs=pl.Series(n_pairs),
    ).filter(pl.col("n_pairs") > 0)
    return _candidates(table, is_rated)


def pair_grades(pairs: pl.DataFrame) -> tuple[Floats, bool]:
    """(pairs, 2) the grade that a pair gives its chosen and its rejected response, and whether those are ratings.

    Ratings are the columns `score_chosen`, `score_rejected` or `chosen_rating`, `rejected_rating` of the data, in any
    unit. Where a pair lacks one, every pair gives its label: P(chosen preferred) and the rest to 1.
    """
    names = (("score_chosen", "chosen_rating"), ("score_rejected", "rejected_rating"))
    ratings = pairs.select(
        pl.coalesce(
            pl.col("extra").str.json_path_match(f"$.{name}").cast(pl.Float64, strict=False) for name in either
        ).alias(either[0])
        for either in names
    )
    if not sum(ratings.null_count().row(0)):
        return ratings.to_numpy(), True
    label = pairs["label_strength"].fill_null(1.0).to_numpy()
    return np.stack([label, 1 - label], axis=1), False


def expected_grade(reward: Floats, grade: Floats, lists: Ints, n: int) -> Floats:
    """The expected grade of the response with the highest reward among n drawn from a list without replacement, (lists,).

    `reward`, `grade` and `lists` (0, 1, ... each at least n times) are (responses,). The response of rank k among K is
    the best of n drawn with chance C(K - k, n - 1) / C(K, n); responses of equal reward share theirs.

    >>> expected_grade(np.array([2.0, 1.0, 1.0]), np.array([1.0, 0.0, 0.5]), np.array([0, 0, 0]), n=2)   # 2/3 + 1/3 * 1/4
    array([0.75])
    """
    order = np.lexsort((-reward, lists))
    ranked, of_list = reward[order], lists[order]
    size = np.bincount(lists)
    rank = np.arange(1, len(lists) + 1) - (np.cumsum(size) - size)[of_list]
    chance = first_chance(rank, size[of_list], n)
    is_first = np.concatenate([[True], (ranked[1:] != ranked[:-1]) | (of_list[1:] != of_list[:-1])])
    tie, first = np.cumsum(is_first) - 1, chance[is_first]  # a block of equal rewards, and the chance of its first
    excess = np.bincount(tie, weights=chance - first[tie]) / np.bincount(tie)  # exactly 0 where all chances are equal
    shared = np.empty(len(lists))
    shared[order] = (first + excess)[tie]
    return np.asarray(np.bincount(lists, weights=shared * grade), dtype=np.float64)


def first_chance(rank: Ints, size: Ints, n: int) -> Floats:
    """The chance that the response of each rank (1 = highest reward) among `size` is the best of n drawn.

    C(size - rank, n - 1) / C(size, n) as a product, which no list overflows.

    >>> first_chance(np.array([1, 2, 3, 4]), np.array([4, 4, 4, 4]), n=3).tolist()   # 3/4, 1/4, 0, 0
    [0.75, 0.25, 0.0, 0.0]
    """
    chance = n / size
    for drawn in range(1, n):
        chance = chance * np.maximum(size - rank - drawn + 1, 0) / (size - drawn)
    return chance


def _candidates(table: pl.DataFrame, is_rated: bool) -> pl.DataFrame:
    """The graded table without yardsticks; the number of a list is the row of its prompt's first text."""
    of_list = ("group", "prompt")
    is_long = pl.len().over(of_list) >= 3
    is_in_all = is_long & (pl.col("n_pairs") == pl.col("n_pairs").sum().over(of_list) // 2)
    has_one = is_in_all.any().over(of_list)
    is_yardstick = is_in_all & (has_one | ~is_long).all() & (not is_rated)
    numbered = table.with_columns(is_yardstick.alias("is_yardstick"), list=pl.col("text").first().over(of_list))
    return numbered.filter(~pl.col("is_yardstick")).select("text", "list", "group", "grade", "length")


def _picked(table: pl.DataFrame, n: int, seed: int) -> dict[str, Any]:
    """The row of one n over lists that all have at least n responses."""
    lists = table["list"].rank("dense").to_numpy().astype(np.int64) - 1
    groups = table.unique("list", keep="first", maintain_order=True).sort("list")["group"].to_numpy()
    ranked, grade = table.select(**PICKS), table["grade"].to_numpy()
    picks = {name: expected_grade(ranked[name].to_numpy(), grade, lists, n) for name in PICKS}
    picks["gain"] = picks["model"] - picks["random"]
    n_groups = len(np.unique(groups))
    note = f"only {n_groups} prompt groups: the intervals are too narrow" if n_groups < FEWEST_GROUPS else None
    found = {name: _interval(values, groups, seed) for name, values in picks.items()}
    return {"n": n, "n_prompts": len(groups), "n_groups": n_groups, "note": note, **found}


def _interval(values: Floats, groups: NDArray[Any], seed: int) -> dict[str, float | None]:
    found = cluster_bootstrap(values, groups, seed)
    assert found is not None  # a row of n has prompts
    is_known = found.n_groups > 1
    return {
        "value": found.value,
        "low": found.low if is_known else None,
        "high": found.high if is_known else None,
    }

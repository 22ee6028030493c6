"""Verified pairs: a uniform random subset of a run that a person reads, and the answers that come back.

An answer says whether the given label is right. Everything that rests on answers (noise rate, label_prob, guaranteed
flips) is valid because the pairs were drawn uniformly at random, and for no other reason (METHODS.md section 6).
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from curate.answer import unquoted
from curate.errors import CurateError
from curate.files import PlacedRow, file_rows
from curate.pairs import is_tie, text_of

ANSWERS = {"true": "right", "false": "wrong", "unsure": "unsure"}  # in the file, and in the column `verified`
TEXTS = ("prompt", "chosen", "rejected")
FEWEST_ANSWERS = 30  # with fewer, a rate is known to within 15 points at best
MOST_UNSURE = 0.05
SURELY_CHOSEN = 1e-4  # p-value of the verified pairs' places among all pairs, below which they were not drawn at random


def sample_pairs(pairs: pl.DataFrame, n: int, seed: int = 0) -> pl.DataFrame:
    """`n` pairs drawn uniformly at random, to be verified: pair_id, texts and an empty label_is_right, in random order.

    Ties are left out (there is no label to verify), and so are held-out prompts, so that no answer touches what the final
    comparison is made on. The same seed gives the same pairs. Refuses more pairs than there are.
    """
    eligible = pairs.filter(~is_tie() & ~pl.col("is_heldout"))
    if not 1 <= n <= len(eligible):
        raise CurateError(
            f"--n {n}: give a number from 1 to {len(eligible)}, the pairs with a label on training prompts"
        )
    rows = np.random.default_rng(seed).choice(len(eligible), n, replace=False)
    drawn: pl.DataFrame = eligible[rows.tolist()]
    return drawn.select("pair_id", *readable_texts(), pl.lit(None, dtype=pl.String).alias("label_is_right"))


def readable_texts() -> list[pl.Expr]:
    """The texts of a pair as a person reads them: the prompt as turns where there are several, the responses plain."""
    turn = pl.concat_str(
        pl.element().struct.field("role"), pl.lit(": "), pl.element().struct.field("content"), ignore_nulls=True
    )
    prompt = pl.when(pl.col("prompt").list.len() > 1).then(pl.col("prompt").list.eval(turn).list.join("\n\n"))
    return [prompt.otherwise(text_of("prompt")).alias("prompt"), text_of("chosen"), text_of("rejected")]


def read_verified(path: Path, pairs: pl.DataFrame) -> pl.Series:
    """The answers of a file in the order of `pairs`: right, wrong, unsure, or null where there is none.

    Rows (JSONL, CSV or any other file of rows) hold `pair_id` and `label_is_right`: true, false or unsure; an empty answer
    is a pair not read yet. Refused: an answer that is none of these, a pair that is not in the run or is a tie, two
    answers that contradict each other, texts (where the file has them) that are not those of the run, and a file
    without any answer.
    """
    position = {pair_id: i for i, pair_id in enumerate(pairs["pair_id"])}
    tie = pairs.select(is_tie()).to_series()
    answers: dict[int, tuple[str, str]] = {}
    given: list[tuple[int, PlacedRow]] = []
    for place, row in file_rows(path):
        answer = _answer(place, row)
        if answer is None:
            continue
        given_id = str(row["pair_id"])
        i = position.get(given_id, position.get(unquoted(given_id)))
        if i is None:
            raise CurateError(
                f"{place}: pair {row['pair_id']!r} is not in this run; verify pairs drawn by curate sample"
            )
        if tie[i]:
            raise CurateError(
                f"{place}: pair {row['pair_id']!r} is a tie, so there is no label to verify; remove the row"
            )
        before = answers.setdefault(i, (answer, place))
        if before[0] != answer:
            raise CurateError(
                f"{place}: pair {row['pair_id']!r} is {answer} here and {before[0]} at {before[1]}; keep one"
            )
        given.append((i, (place, row)))
    if not answers:
        raise CurateError(
            f"{path}: no answer in label_is_right yet; write true, false or unsure for each pair you read"
        )
    _refuse_other_texts(given, pairs)
    column = pl.Series("verified", [None], dtype=pl.String).new_from_index(0, len(pairs))
    return column.scatter(list(answers), [answer for answer, _ in answers.values()])


def _answer(place: str, row: dict[str, Any]) -> str | None:
    missing = [name for name in ("pair_id", "label_is_right") if name not in row]
    if missing:
        raise CurateError(
            f"{place}: no {missing[0]}; expected pair_id and label_is_right, as curate sample writes them"
        )
    text = "" if row["label_is_right"] is None else str(row["label_is_right"]).strip().lower()
    if text and text not in ANSWERS:
        raise CurateError(
            f"{place}: label_is_right is {row['label_is_right']!r}; expected {', '.join(ANSWERS)}, or nothing"
        )
    return ANSWERS.get(text)


def _refuse_other_texts(given: list[tuple[int, PlacedRow]], pairs: pl.DataFrame) -> None:
    """Refuses answers about other texts: another dataset of the same name has the same pair ids."""
    texts = pairs[[i for i, _ in given]].select(readable_texts())
    for (_, (place, row)), own in zip(given, texts.iter_rows(named=True), strict=True):
        for name in TEXTS:
            if row.get(name) is not None and _words(str(row[name])) != _words(own[name] or ""):
                raise CurateError(
                    f"{place}: the {name} is not the one of pair {row['pair_id']!r} in this run; verify pairs of this run"
                )


def _words(text: str) -> list[str]:
    """What has to be equal: spreadsheets change line ends and drop the quote before a formula."""
    return unquoted(text).split()


def warnings(verified: pl.Series, mean: np.ndarray, eligible: np.ndarray) -> list[str]:
    """What makes the answers doubtful: too few, all wrong, or not drawn at random.

    `mean` is strength_mean, (pairs,); `eligible` (pairs,) true where a pair could have been drawn. Verified pairs that were
    drawn at random lie anywhere among them by strength (two-sample Kolmogorov-Smirnov); a user who verified the most
    suspicious ones is found out.
    """
    from scipy.stats import ks_2samp

    asked = verified.is_not_null().to_numpy() & ~np.isnan(mean)
    found = []
    n, n_wrong = int(asked.sum()), int((verified == "wrong").fill_null(False).to_numpy()[asked].sum())
    n_unsure = int((verified == "unsure").fill_null(False).to_numpy()[asked].sum())
    if n_wrong == n:
        found.append(
            f"every verified label is wrong ({n} of {n}): chosen and rejected are probably reversed in the whole data; "
            "no flip can be certified from these answers, so check the columns and audit again"
        )
    if n < FEWEST_ANSWERS:
        found.append(f"{n} verified pairs are too few to say much; verify a few hundred")
    if n_unsure > MOST_UNSURE * n:
        found.append(
            f"{n_unsure} of {n} answers are unsure: the noise rate and label_prob are those of the pairs that could be judged"
        )
    n_heldout = int((asked & ~eligible).sum())
    if n_heldout:
        found.append(
            f"{n_heldout} verified pairs are on held-out prompts, so these answers touch decisions that the final comparison "
            "is to judge; curate sample leaves such pairs out"
        )
    others = eligible & ~asked
    if asked.any() and others.any() and ks_2samp(mean[asked], mean[others]).pvalue < SURELY_CHOSEN:
        where = "low" if np.median(mean[asked]) < np.median(mean[others]) else "high"
        found.append(
            f"the verified pairs are not a random sample: they lie {where} by strength. Rates, label_prob and guarantees "
            "hold for pairs drawn by curate sample only"
        )
    return found

"""The pairs whose labels look most wrong, with their texts, cut so that the page stays small."""

from collections.abc import Iterable
from typing import Any

import polars as pl

from curate.run import Run

N_SHOWN = 200
TEXT_BUDGET = 700_000  # bytes of all shown texts: with plotly.js the page stays under 6 MB
TEXT_LIMITS = (8000, 4000, 2000, 1000, 500, 250)  # characters per text; the first whose total fits the budget is used

Messages = list[dict[str, str]]


def suspicious_pairs(run: Run, table: pl.DataFrame) -> list[dict[str, Any]] | None:
    """Up to 200 pairs that the votes are against, least likely right first, each with its texts; ties are left out.

    `table` is that of `facts.judged_pairs`. None where there are no strengths.
    """
    if "strength_mean" not in table.columns:
        return None
    worst = most_suspicious(table)
    texts = run.scan("pairs").filter(pl.col("pair_id").is_in(worst["pair_id"].to_list())).collect()
    by_id = {
        row["pair_id"]: row for row in texts.select("pair_id", "prompt", "chosen", "rejected").iter_rows(named=True)
    }
    rows = [{**row, **{side: by_id[row["pair_id"]][side] for side in SIDES}} for row in worst.iter_rows(named=True)]
    limit = text_limit(message["content"] for row in rows for side in SIDES for message in row[side])
    return [_shown(row, limit) for row in rows]


SIDES = ("prompt", "chosen", "rejected")
NUMBERS = ("strength_mean", "strength_std", "vote_share", "label_prob", "kind", "verified", "action", "reason")


def most_suspicious(table: pl.DataFrame) -> pl.DataFrame:
    """The pairs with the lowest label_prob, then the lowest mean, among those with a mean below zero."""
    against = table.filter(~pl.col("is_tie") & (pl.col("strength_mean") < 0))
    ordered = against.sort("label_prob", "strength_mean", "pair_id", nulls_last=True).head(N_SHOWN)
    return ordered.select("pair_id", "source", *(name for name in NUMBERS if name in table.columns))


def text_limit(texts: Iterable[str]) -> int:
    """The most characters per text with which all of them together stay within the budget."""
    shown = list(texts)
    for limit in TEXT_LIMITS:
        if sum(len(text[:limit].encode()) for text in shown) <= TEXT_BUDGET:
            return limit
    return TEXT_LIMITS[-1]


def _shown(row: dict[str, Any], limit: int) -> dict[str, Any]:
    numbers = {name: _rounded(row[name]) for name in NUMBERS if row.get(name) is not None}
    sides = {side: [_cut(message, limit) for message in row[side]] for side in SIDES}
    return {"pair_id": row["pair_id"], "source": row["source"], **numbers, **sides}


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _cut(message: dict[str, str], limit: int) -> dict[str, Any]:
    """A message with at most `limit` characters and, where it was longer, the number that is not shown."""
    content = message["content"]
    beyond = len(content) - limit
    return {"role": message["role"], "content": content[:limit], **({"n_not_shown": beyond} if beyond > 0 else {})}

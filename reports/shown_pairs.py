"""The pairs that the page shows: those whose labels look most wrong, and examples of what each check found.

Their texts are cut so that the page stays small.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
import polars as pl

from curate.run import Run
from reports.differences import differences

VOTES = "votes"  # what found a pair, where no check did
EXAMPLES = 5  # pairs per check
TEXT_BUDGET = 450_000  # bytes of all shown texts and marks as HTML: with plotly.js and charts the page is under 6 MB
# The most suspicious pairs, and the characters of a prompt or a response: the first two whose total fits are used
SIZES = ((200, 8000), (200, 4000), (200, 2000), (100, 2000), (100, 1000), (100, 500), (100, 250), (50, 120))
MARK_BYTES = len("<mark></mark>")
LEAST_COST = 20  # characters that a turn counts for even if it is empty

SIDES = ("prompt", "chosen", "rejected")
NUMBERS = ("strength_mean", "strength_std", "vote_share", "label_prob", "kind", "verified", "action", "reason")

Row = dict[str, Any]
Messages = list[dict[str, Any]]


def shown_pairs(run: Run, table: pl.DataFrame) -> dict[str, list[Row] | None]:
    """`suspicious`, the pairs that the votes are most against, worst first, and `examples`, up to 5 pairs per check.

    A pair stands once; `found_by` names all that found it. `table` is that of `facts.judged_pairs`. None where there are
    no strengths, or no checks.
    """
    found = check_examples(run)
    by_votes = [] if "strength_mean" not in table.columns else most_suspicious(table)["pair_id"].to_list()
    by_checks = [pair_id for pair_id in found if pair_id not in set(by_votes)]
    rows = read_rows(run, table, [*by_votes, *by_checks])
    n_votes, limit = fitting(rows[: len(by_votes)], rows[len(by_votes) :])
    suspicious = [_shown(row, [VOTES, *found.get(row["pair_id"], [])], limit) for row in rows[:n_votes]]
    examples = [_shown(row, found[row["pair_id"]], limit) for row in rows[n_votes:] if row["pair_id"] in found]
    return {
        "suspicious": suspicious if "strength_mean" in table.columns else None,
        "examples": examples if "check" in run.manifest["stages"] else None,
    }


def most_suspicious(table: pl.DataFrame) -> pl.DataFrame:
    """The pairs with the lowest label_prob, then the lowest mean, among those with a mean below zero; ties are left out."""
    against = table.filter(~pl.col("is_tie") & (pl.col("strength_mean") < 0))
    return against.sort("label_prob", "strength_mean", "pair_id", nulls_last=True).head(SIZES[0][0])


def check_examples(run: Run) -> dict[str, list[str]]:
    """Up to 5 pairs of each check that found something, evenly spaced over what it found, each with its checks by name."""
    if "check" not in run.manifest["stages"]:
        return {}
    checked = run.read("checks")
    found: dict[str, list[str]] = {}
    for name in (name for name in checked.columns if name != "pair_id"):
        rows = checked[name].arg_true()
        places = np.linspace(0, max(len(rows) - 1, 0), min(EXAMPLES, len(rows))).round().astype(np.int64)
        for pair_id in checked["pair_id"][rows.gather(places)]:
            found.setdefault(pair_id, []).append(name)
    return found


def read_rows(run: Run, table: pl.DataFrame, pair_ids: Sequence[str]) -> list[Row]:
    """Numbers and texts of the pairs, in the order of `pair_ids`; only their rows are held in memory."""
    numbers = table.filter(pl.col("pair_id").is_in(pair_ids))
    columns = ("pair_id", "source", "is_tie", *(name for name in NUMBERS if name in numbers.columns))
    texts = run.scan("pairs").select("pair_id", *SIDES).filter(pl.col("pair_id").is_in(pair_ids))
    sides = {row["pair_id"]: row for row in texts.collect(engine="streaming").iter_rows(named=True)}
    known = {row["pair_id"]: row | sides[row["pair_id"]] for row in numbers.select(columns).iter_rows(named=True)}
    return [known[pair_id] for pair_id in pair_ids]


def fitting(suspicious: Sequence[Row], examples: Sequence[Row]) -> tuple[int, int]:
    """How many suspicious pairs are shown and with how many characters a side, so that all texts stay within the budget."""
    for n_votes, limit in SIZES:
        sides = [_cut_sides(row, limit) for row in (*suspicious[:n_votes], *examples)]
        n_bytes = html_bytes(message["content"] for row in sides for side in row.values() for message in side)
        if n_bytes <= TEXT_BUDGET and n_bytes + MARK_BYTES * sum(map(_n_marks, sides)) <= TEXT_BUDGET:
            break
    return min(n_votes, len(suspicious)), limit


def html_bytes(texts: Iterable[str]) -> int:
    """The bytes of the texts as they stand in HTML.

    >>> html_bytes(["<b>", "é"])   # &lt;b&gt; and two bytes
    11
    """
    return sum(len(escape(text).encode()) for text in texts)


def _n_marks(sides: Row) -> int:
    """How many differences of the two responses are marked."""
    found = differences(sides["chosen"], sides["rejected"])
    return sum(
        is_alone for side in ("chosen", "rejected") for message in found[side] for _, is_alone in message["pieces"]
    )


def _cut_sides(row: Row, limit: int) -> Row:
    return {side: cut(row[side], limit, is_last_first=side == "prompt") for side in SIDES}


def _shown(row: Row, found_by: list[str], limit: int) -> Row:
    numbers = {name: _rounded(row[name]) for name in NUMBERS if row.get(name) is not None}
    about = {"pair_id": row["pair_id"], "source": row["source"], "found_by": found_by}
    return {**about, **({"is_tie": True} if row["is_tie"] else {}), **numbers, **_cut_sides(row, limit)}


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def cut(messages: Sequence[dict[str, str]], limit: int, is_last_first: bool = False) -> Messages:
    """The messages with at most `limit` characters in all, from the first on, or of the last turns of a conversation.

    A message that was cut has `n_not_shown`, the number of its other characters; the first message of those shown has
    `n_turns_not_shown` where others were left out.

    >>> turns = [{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "It is blue."}]
    >>> cut(turns, 5, is_last_first=True)
    [{'role': 'assistant', 'content': 'It is', 'n_not_shown': 6, 'n_turns_not_shown': 1}]
    """
    shown: Messages = []
    left = limit
    for message in reversed(messages) if is_last_first else messages:
        if left <= 0:
            break
        content = message["content"][:left]
        beyond = len(message["content"]) - len(content)
        shown.append({"role": message["role"], "content": content, **({"n_not_shown": beyond} if beyond else {})})
        left -= max(len(content), LEAST_COST)
    ordered = shown[::-1] if is_last_first else shown
    if len(shown) < len(messages):
        ordered[0]["n_turns_not_shown"] = len(messages) - len(shown)
    return ordered

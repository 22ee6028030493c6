"""The changed pairs that the page of a diff shows, with their texts, few and short enough for the page to stay small."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from curate.match import TEXTS
from curate.run import Run
from reports.edits import Runs, edits, shortened

N_SHOWN = 200
TEXT_BUDGET = 700_000  # bytes of all shown texts: with plotly.js the page stays under 6 MB
TEXT_LIMITS = (8000, 4000, 2000, 1000, 500, 250)  # characters per text; the first whose total fits the budget is used
ORDER = (
    "label swapped", "became a tie", "no longer a tie", "label strength changed", "response edited", "prompt edited",
    "only in A", "only in B", "action changed", "moved into held-out", "moved out of held-out",
)  # fmt: skip
OTHER = {"prompt": "prompt", "chosen": "rejected", "rejected": "chosen"}
NUMBERS = ("label_prob", "strength_mean", "action", "kind")


def changed_pairs(pairs: pl.DataFrame, a: Run, b: Run) -> list[dict[str, Any]]:
    """Up to 200 changed pairs, some of every change, each with its numbers in both runs and its texts.

    `pairs` is that of `curate.diff.side_by_side`. An edited text is shown as one, with what A and B have of it marked.
    """
    shown = to_show(pairs)
    texts = {side: texts_of(run, shown[f"row_{side}"].drop_nulls()) for side, run in (("a", a), ("b", b))}
    rows = [_with_texts(row, texts) for row in shown.iter_rows(named=True)]
    limit = text_limit(rows)
    return [{**row, **{name: [_cut(run, limit) for run in row[name]] for name in TEXTS}} for row in rows]


def to_show(pairs: pl.DataFrame) -> pl.DataFrame:
    """Of each change as many as there is room for, those first that the audits think most differently of."""
    first = pl.coalesce(
        pl.when(pl.col("change").str.contains(name, literal=True)).then(place) for place, name in enumerate(ORDER)
    )
    changed = pairs.filter(pl.col("change") != "").with_columns(first=first)
    ordered = changed.sort("first", -pl.col("shift").abs().fill_null(-1.0), "row_a", "row_b", nulls_last=True)
    numbered = ordered.with_columns(nth=pl.int_range(pl.len()).over("first"), place=pl.int_range(pl.len()))
    return numbered.sort("nth", "first").head(N_SHOWN).sort("place")


def texts_of(run: Run, rows: pl.Series) -> dict[int, dict[str, str]]:
    """The texts of some pairs of a run by row, each as it is read."""
    table = pl.scan_parquet(run.path / "pairs.parquet").select(TEXTS).with_row_index("row")
    found = table.filter(pl.col("row").is_in(rows.to_list())).collect()
    return {row["row"]: {name: as_read(row[name]) for name in TEXTS} for row in found.iter_rows(named=True)}


def as_read(messages: list[Mapping[str, str]]) -> str:
    """Messages as one text; where there are several, each after its role.

    >>> as_read([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])
    'user: Hi\\n\\nassistant: Hello'
    """
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _with_texts(row: dict[str, Any], texts: dict[str, dict[int, dict[str, str]]]) -> dict[str, Any]:
    """A row with its texts as runs; those of B are on the side of A's label."""
    in_a, in_b = (texts[side].get(row[f"row_{side}"], {}) for side in ("a", "b"))
    turned = OTHER if row["is_crossed"] else {}
    about = {name: row[name] for name in ("change", "pair_id_a", "pair_id_b", "shift")}
    numbers = {f"{name}_{side}": row[f"{name}_{side}"] for name in NUMBERS for side in ("a", "b")}
    return {**about, **numbers, **{name: _runs(in_a.get(name), in_b.get(turned.get(name, name))) for name in TEXTS}}


def _runs(old: str | None, new: str | None) -> Runs:
    if old is None or new is None or old == new:
        return [{"is": "same", "text": (new if old is None else old) or ""}]
    return shortened(edits(old, new))


def text_limit(rows: list[dict[str, Any]]) -> int:
    """The most characters per run with which all texts together stay within the budget."""
    texts = [run["text"] for row in rows for name in TEXTS for run in row[name]]
    fitting = (limit for limit in TEXT_LIMITS if sum(len(text[:limit].encode()) for text in texts) <= TEXT_BUDGET)
    return next(fitting, TEXT_LIMITS[-1])


def _cut(run: dict[str, str], limit: int) -> dict[str, Any]:
    """A run with at most `limit` characters and, where it was longer, the number that is not shown."""
    beyond = len(run["text"]) - limit
    return {**run, "text": run["text"][:limit], **({"n_not_shown": beyond} if beyond > 0 else {})}

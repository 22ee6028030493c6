"""What `curate diff` shows: the answer, what stands behind it, and tables of what differs."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from rich.console import Console
from rich.text import Text

from curate.diff_words import judge_words, setting_text
from curate.terminal import printable, show_table

N_SHOWN = 8
Facts = Mapping[str, Any]


def show_diff(facts: Facts) -> None:
    """The answer in sentences, then a table for each part in which the two runs differ."""
    console = Console()
    runs = (printable(facts["runs"][side]) for side in ("a", "b"))
    console.print(Text("A: {}   B: {}".format(*runs), style="dim"), soft_wrap=True)
    console.print(Text(facts["headline"], style="bold"), soft_wrap=True)
    for sentence in facts["sentences"]:
        console.print(Text(f"- {sentence}"), soft_wrap=True)
    if not any(facts["is_changed"].values()):
        return
    for table in tables(facts):
        if len(table):
            console.print()
            show_table(table)


def tables(facts: Facts) -> list[pl.DataFrame]:
    """What is shown as a table, each empty where there is nothing to show."""
    moved = (transition_table(facts[name], name) for name in ("actions", "kinds") if name in facts)
    parts = [source_table(facts["data"].get("sources", [])), check_table(facts.get("checks", []))]
    return [*parts, vote_table(facts["votes"]), *moved, most_table(facts["most_changed"]), setting_table(facts)]


def source_table(sources: list[Facts]) -> pl.DataFrame:
    """One row per source."""
    names = {"name": "source", "n_a": "in A", "n_b": "in B", "n_only_a": "only in A", "n_only_b": "only in B"}
    return pl.DataFrame([{**row} for row in sources]).rename({**names, "n_changed": "changed"}, strict=False)


def check_table(checks: list[Facts]) -> pl.DataFrame:
    """One row per check that differs, with its counts in all pairs, and in the pairs in both what is new and what is gone."""
    return pl.DataFrame(
        [
            {
                "check": check["name"],
                "severity": check["severity"] or "",
                "in A": check["n_a"],
                "in B": check["n_b"],
                "newly found": check["n_new"],
                "no longer": check["n_gone"],
            }
            for check in checks
            if check["n_new"] or check["n_gone"] or check["n_a"] != check["n_b"]
        ],
        infer_schema_length=None,
    )


def vote_table(votes: Facts) -> pl.DataFrame:
    """How good a judge the votes of each run are; empty where neither has votes, or both the same."""
    if votes["a"] == votes["b"]:
        return pl.DataFrame()
    judges = {side: judge_words(votes[side] or {}) for side in ("a", "b")}
    names = dict.fromkeys([*judges["a"], *judges["b"]])
    return pl.DataFrame(
        [{"votes": name, "A": judges["a"].get(name, "-"), "B": judges["b"].get(name, "-")} for name in names]
    )


def transition_table(moved: Facts, what: str) -> pl.DataFrame:
    """How many pairs in both have which action or kind in A (rows) and in B (columns); empty where none changed."""
    if not moved["n_changed"]:
        return pl.DataFrame()
    names = moved["names"]
    counts = {f"{name} in B": [row[i] for row in moved["counts"]] for i, name in enumerate(names)}
    return pl.DataFrame({f"{what} in A": names, **counts})


def most_table(most: list[Facts]) -> pl.DataFrame:
    """The pairs that the two audits think most differently of."""
    return pl.DataFrame(
        [
            {
                "most changed, in A": row["pair_id_a"],
                "in B": row["pair_id_b"],
                "label right in A": _percent(row["label_prob_a"]),
                "in B ": _percent(row["label_prob_b"]),
                "action in A": row["action_a"] or "-",
                "action in B": row["action_b"] or "-",
            }
            for row in most[:N_SHOWN]
        ]
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}".replace("%", "\u00a0%")


def setting_table(facts: Facts) -> pl.DataFrame:
    """The settings that differ, with both values."""
    rows = facts["settings"]
    texts = {side.upper(): [setting_text(row[side]) for row in rows] for side in ("a", "b")}
    names = [f"{row['stage']}: {row['option']}" for row in rows]
    return pl.DataFrame({"setting": names, **texts}, schema=dict.fromkeys(("setting", "A", "B"), pl.String()))

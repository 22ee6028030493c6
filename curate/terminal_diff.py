"""What `curate diff` shows: the answer, what stands behind it, and tables of what differs."""

import json
from collections.abc import Mapping
from typing import Any

import polars as pl
from rich.console import Console
from rich.text import Text

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


def judge_words(judge: Facts) -> dict[str, str]:
    """What is known of how good the votes are, each with its interval, by name.

    >>> judge_words({"n_members": 5, "effective_votes": 1.64, "is_out_of_fold": True})
    {'members': '5', 'independent votes': 'at least 1.6'}
    """
    found = {}
    if "n_members" in judge:
        found["members"] = str(judge["n_members"])
    if "effective_votes" in judge:
        found["independent votes"] = f"at least {judge['effective_votes']:.1f}"
    if "accuracy" in judge:
        found["agree with labels"] = _share(judge["accuracy"], judge["accuracy"]["value"])
    elif judge and not judge["is_out_of_fold"]:
        found["agree with labels"] = "no evidence: they had seen them"
    if "error_rate_among_clear" in judge:
        clear = judge["error_rate_among_clear"]
        found["error rate among clear pairs"] = f"{_share(clear, clear['rate'])}, clearest {clear['top_share']:.0%}"
    if "assumed_error_rate" in judge:
        found["error rate behind label_prob"] = f"{judge['assumed_error_rate']:.1%}, assumed"
    if "noise_rate" in judge:
        found["labels that are wrong"] = _share(judge["noise_rate"], judge["noise_rate"]["value"])
    return {name: text.replace("%", "\u00a0%") for name, text in found.items()}


def _share(estimate: Facts, value: float) -> str:
    return f"{value:.1%} [{estimate['low']:.1%}, {estimate['high']:.1%}]"


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


def setting_text(value: Any) -> str:
    """The value of a setting as it is read; a setting that one run has not is a dash.

    >>> setting_text(None), setting_text("auto"), setting_text(True)
    ('-', 'auto', 'true')
    """
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)

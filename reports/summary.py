"""The facts in one screenful for the terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reports.numbers import count, counted, interval, percent

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

LEVEL_STYLES = {"useful": "bold green", "limited": "bold yellow", "weak": "bold red"}


def summary(facts: Mapping[str, Any]) -> "Group":
    """What the report says in short: notes, warnings, verdict, numbers, checks that found something, and actions."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    verdict = facts["verdict"]
    blocks: list[Any] = [Text(note, style="dim") for note in facts["data"].get("notes", [])]
    blocks += [Text(f"! {warning}", style="yellow") for warning in facts.get("warnings", [])]
    blocks.append(Text(verdict["headline"], style=LEVEL_STYLES.get(verdict["level"], "bold")))
    tables = [numbers(facts), checks(facts), actions(facts)]
    return Group(*blocks, *(Padding(table, (1, 0, 0, 0)) for table in tables if table is not None))


def numbers(facts: Mapping[str, Any]) -> "Table":
    """The few numbers behind the verdict, each with its interval."""
    data, ensemble = facts["data"], facts.get("ensemble", {})
    table = _table("", "", "")
    table.add_row("pairs read", count(data["n_pairs"]), f"on {counted(data['n_groups'], 'prompt')}")
    if "accuracy" in ensemble and ensemble.get("is_out_of_fold"):
        table.add_row("votes agree with labels", *_estimate(ensemble["accuracy"]))
        if "length" in ensemble:
            table.add_row(f"the {ensemble['length']['prefers']} response agrees", *_estimate(ensemble["length"]))
    if "effective_votes" in ensemble:
        table.add_row("independent votes", f"{ensemble['effective_votes']:.1f}", f"of {ensemble['n_members']} members")
    clear = facts.get("clear_errors")
    if clear:
        point = next((point for point in clear["curve"] if point["top_share"] >= 0.05), clear["curve"][0])
        share = percent(point["top_share"], 0)
        table.add_row("error rate among clear pairs", percent(point["rate"]), f"clearest {share}, {interval(point)}")
    return table


def checks(facts: Mapping[str, Any]) -> "Table | None":
    """The checks that found something."""
    found = [check for check in facts.get("checks", {}).get("found", []) if check["n_pairs"]]
    if not found:
        return None
    table = _table("check", "pairs", "meaning")
    for check in sorted(found, key=lambda check: (-check["n_pairs"], check["name"])):
        table.add_row(check["name"].replace("_", " "), count(check["n_pairs"]), check["meaning"])
    return table


def actions(facts: Mapping[str, Any]) -> "Table | None":
    """Actions and reasons, with their sum: every pair is accounted for."""
    decided = facts.get("decisions")
    if decided is None:
        return None
    table = _table("action", "pairs", "reason")
    for row in decided["reasons"]:
        table.add_row(row["action"], count(row["n_pairs"]), row["reason"])
    table.add_row("all", count(sum(row["n_pairs"] for row in decided["reasons"])), "every pair is accounted for")
    return table


def _table(*columns: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=any(columns), header_style="dim")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i == 1 else "left")
    return table


def _estimate(estimate: Mapping[str, Any]) -> tuple[str, str]:
    return percent(estimate["value"]), f"95 % interval {interval(estimate)}"

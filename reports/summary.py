"""The facts in one screenful for the terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reports.findings import check_rows, finding_rows
from reports.numbers import count, counted, decimal, decimal_interval, interval, percent
from reports.verdict import flip_words

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

HOW_TO_KNOW = "How many labels are wrong? curate sample RUN --n 300 --to FILE, then --verified FILE"
LEVEL_STYLES = {"useful": "bold green", "limited": "bold yellow", "weak": "bold red"}


def summary(facts: Mapping[str, Any]) -> "Group":
    """What the report says in short: notes, warnings, verdict, numbers, checks that found something, actions, guarantees."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    verdict = facts["verdict"]
    blocks: list[Any] = [Text(note, style="dim") for note in facts["data"].get("notes", [])]
    blocks += [Text(f"! {warning}", style="yellow") for warning in facts.get("warnings", [])]
    blocks.append(Text(verdict["headline"], style=LEVEL_STYLES.get(verdict["level"], "bold")))
    tables = [numbers(facts), checks(facts), actions(facts)]
    blocks += [Padding(table, (1, 0, 0, 0)) for table in tables if table is not None]
    guarantee = facts.get("decisions", {}).get("guarantee")
    blocks += [Padding(Text(sentence), (1, 0, 0, 0)) for sentence in (guarantee or {}).get("sentences", [])]
    blocks += [Padding(Text(sentence), (1, 0, 0, 0)) for sentence in flip_words(facts)]
    if "strength" in facts and "noise_rate" not in facts:
        blocks.append(Padding(Text(HOW_TO_KNOW, style="dim"), (1, 0, 0, 0)))
    return Group(*blocks)


def numbers(facts: Mapping[str, Any]) -> "Table":
    """The few numbers behind the verdict, each with its interval."""
    data, ensemble = facts["data"], facts.get("ensemble", {})
    table = _table("", "", "")
    table.add_row("pairs read", count(data["n_pairs"]), f"on {counted(data['n_groups'], 'prompt')}")
    found = facts.get("checks", {}).get("n_pairs_with")
    if found:
        table.add_row(
            "pairs with an error", count(found["error"]), f"by the checks; {count(found['warning'])} with a warning"
        )
    if "noise_rate" in facts:
        rate = facts["noise_rate"]
        table.add_row("labels that are wrong", *_estimate(rate, f", {counted(rate['n_verified'], 'verified pair')}"))
    if "accuracy" in ensemble and ensemble.get("is_out_of_fold"):
        table.add_row("votes agree with labels", *_estimate(ensemble["accuracy"]))
        if "length" in ensemble:
            table.add_row(f"the {ensemble['length']['prefers']} response agrees", *_estimate(ensemble["length"]))
    if "effective_votes" in ensemble:
        at_least, members = f"{ensemble['effective_votes']:.1f}", counted(ensemble["n_members"], "member")
        if "given_truth" in ensemble:
            value = f"{ensemble['given_truth']['effective_votes']:.1f}"
            table.add_row("independent votes", value, f"of {members}, given the truth; at least {at_least} without")
        else:
            table.add_row("independent votes", at_least, f"at least, of {members}")
    clear = facts.get("clear_errors")
    if clear:
        point = next((point for point in clear["curve"] if point["top_share"] >= 0.05), clear["curve"][0])
        share = percent(point["top_share"], 0)
        table.add_row("error rate among clear pairs", percent(point["rate"]), f"clearest {share}, {interval(point)}")
    _add_certainty(table, facts)
    return table


def _add_certainty(table: "Table", facts: Mapping[str, Any]) -> None:
    """What label_prob and the annotators are worth, where that is known."""
    reliability = facts.get("label_prob", {}).get("reliability")
    if reliability:
        pairs = counted(reliability["n_pairs"], "verified pair")
        ece = reliability["ece"]
        words = f"95 % interval {decimal_interval(ece)}, {pairs}"
        table.add_row("calibration error of label_prob", decimal(ece["value"], 3), words)
    annotators = facts.get("annotators")
    if not annotators:
        return
    if "alpha" in annotators:
        alpha = annotators["alpha"]
        words = f"95 % interval {decimal_interval(alpha, 2)}, {counted(annotators['n_annotators'], 'annotator')}"
        table.add_row("alpha of the annotators", decimal(alpha["value"]), words)
    n_doubtful = annotators["n_reversed"] + annotators["n_random"]
    looks = f"{count(annotators['n_reversed'])} reversed, {count(annotators['n_random'])} random"
    table.add_row(
        "annotators in doubt", count(n_doubtful), f"of {count(annotators['n_judged'])} judged, by their looks {looks}"
    )


def checks(facts: Mapping[str, Any]) -> "Table | None":
    """The checks that found something, worst first, and what the labels clearly prefer; of notes the names and counts."""
    checked = facts.get("checks", {"found": []})
    found = [check for check in check_rows(checked)[0] if check["n_pairs"]]
    preferred = [row for row in finding_rows(checked) if row["severity"] == "warning"]
    if not found and not preferred:
        return None
    table = _table("check", "pairs", "meaning")
    for check in found:
        if check.get("severity") != "note":
            table.add_row(check["name"].replace("_", " "), count(check["n_pairs"]), check["meaning"])
    for row in preferred:
        table.add_row(_given(row["title"]), row["value"], _given(row["meaning"]))
    notes = [f"{c['name'].replace('_', ' ')} {count(c['n_pairs'])}" for c in found if c.get("severity") == "note"]
    if notes:
        table.add_row("notes", "", ", ".join(notes))
    return table


def actions(facts: Mapping[str, Any]) -> "Table | None":
    """Actions and reasons, with their sum: every pair is accounted for."""
    decided = facts.get("decisions")
    if decided is None:
        return None
    table = _table("action", "pairs", "reason")
    for row in decided["reasons"]:
        table.add_row(row["action"], count(row["n_pairs"]), _given(row["reason"]))
    table.add_row("all", count(sum(row["n_pairs"] for row in decided["reasons"])), "every pair is accounted for")
    return table


def _given(text: str) -> "Text":
    """A text with words of the data or of a policy file, which cannot steer the terminal."""
    from rich.text import Text

    from curate.terminal import printable

    return Text(printable(text))


def _table(*columns: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=any(columns), header_style="dim")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i == 1 else "left")
    return table


def _estimate(estimate: Mapping[str, Any], support: str = "") -> tuple[str, str]:
    return percent(estimate["value"]), f"95 % interval {interval(estimate)}{support}"

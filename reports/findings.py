"""What the checks found: the single checks, worst first, and the findings about the data as a whole beside their nulls.

Everywhere `checks` are the facts of `facts.checks`; those of a run of before 0.2 know no severity and no findings.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from curate.check_bias import CLEARLY, RELIABLE
from curate.checks import SEVERITIES
from reports.numbers import count, counted, decimal, decimal_interval, interval, percent
from reports.shown_pairs import VOTES

Facts = dict[str, Any]

SCORES = ("annotator_agreement",)  # these are no shares
SHORTCUT = "_shortcut"
WARNED_WHEN = (
    f"A bias or a shortcut is a warning where its whole interval lies more than {100 * CLEARLY:.0f} percentage points from its "
    f"null, and a note where it leaves the null out; the agreement of the annotators where it lies below {2 * CLEARLY:.1f}, and "
    f"below {RELIABLE}. The others say no more than chance would."
)


def check_rows(checks: Mapping[str, Any]) -> tuple[list[Facts], list[str]]:
    """The checks that found something, worst first, then by count, and the names of those that found nothing.

    Without severities all are rows, by count.

    >>> check_rows({"found": [{"name": name, "severity": "note", "n_pairs": n} for name, n in (("a", 0), ("b", 2))]})
    ([{'name': 'b', 'severity': 'note', 'n_pairs': 2}], ['a'])
    """
    ordered = sorted(checks["found"], key=lambda check: (_rank(check.get("severity")), -check["n_pairs"]))
    if not any("severity" in check for check in ordered):
        return ordered, []
    quiet = [check["name"] for check in checks["found"] if not check["n_pairs"]]
    return [check for check in ordered if check["n_pairs"]], quiet


def _rank(severity: str | None) -> int:
    """The place of a severity, the worst first, an unknown one last."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def pair_filters(facts: Mapping[str, Any]) -> dict[str, str]:
    """What found the pairs that are shown, by name, in words with how many pairs each has: votes, then checks, worst first."""
    rows = (*facts.get("suspicious", []), *facts.get("examples", []))
    shown = Counter(name for row in rows for name in row.get("found_by", []))
    ordered = [VOTES, *(check["name"] for check in check_rows(facts.get("checks", {"found": []}))[0])]
    return {name: f"{name.replace('_', ' ')} ({count(shown[name])} shown)" for name in ordered if shown[name]}


def finding_rows(checks: Mapping[str, Any]) -> list[dict[str, str]]:
    """The findings about the data as a whole as they are written, warnings first; none where they were not looked for."""
    return [_written(finding) for finding in sorted(checks.get("biases", []), key=lambda row: _rank(row["severity"]))]


def _written(finding: Mapping[str, Any]) -> dict[str, str]:
    is_score = finding["name"] in SCORES
    value, null = finding["value"], finding["null"]
    around = decimal_interval(finding, 2) if is_score else interval(finding)
    few = f"{counted(finding['n_groups'], 'prompt')} only: the interval is too narrow."
    return {
        "title": in_words(finding["name"]),
        "severity": finding["severity"],
        "value": decimal(value) if is_score else percent(value),
        "interval": around,
        "null": decimal(null) if is_score else percent(null, 0),
        "pairs": count(finding["n_pairs"]),
        "meaning": finding["meaning"],
        "fix": finding["fix"],
        **({"caveat": few} if finding.get("is_too_narrow") else {}),
    }


def in_words(name: str) -> str:
    """A finding's name in words; the column that a shortcut is named after keeps its own.

    >>> in_words("length_bias"), in_words("model_name_shortcut")
    ('length bias', 'shortcut by model_name')
    """
    if name.endswith(SHORTCUT):
        return f"shortcut by {name.removesuffix(SHORTCUT)}"
    return name.replace("_", " ")


def findings_sentence(rows: list[dict[str, str]]) -> str:
    """How many of the findings are warnings; `rows` is that of `finding_rows` and not empty.

    >>> findings_sentence([{"severity": "warning"}, {"severity": "note"}])
    '1 of 2 findings about the data as a whole is a warning.'
    """
    n = sum(row["severity"] == "warning" for row in rows)
    if len(rows) == 1:
        return f"The one finding about the data as a whole is {'a warning' if n else 'no warning'}."
    are = "are warnings" if n > 1 else "is a warning"
    return f"{count(n) if n else 'None'} of {count(len(rows))} findings about the data as a whole {are}."

"""What `curate check --pii` finds in six real datasets, as the two tables of results/checks.md.

    python benchmarks/check_findings.py --data ../shared/data

Pairs by check, worst severity first, and the pairs that a limit of tokens drops; then what the labels prefer, each mean
with its interval, bold where it is a warning.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from curate import pipeline
from curate.check_lengths import LIMITS
from curate.checks import SEVERITIES, report_of
from curate.options import CheckOptions

SETS = (
    "hh_rlhf_test",
    "ukp_convarg",
    "fine_grained_rlhf_dev",
    "alpaca_bon_gpt4turbo",
    "gsm8k_solutions",
    "oasst1_zh_rank",
)
Report = Mapping[str, Any]


def report(path: Path) -> Report:
    """What the checks find in a dataset."""
    print(f"checking {path.name}", file=sys.stderr)
    return report_of(pipeline.check_data(path, checking=CheckOptions(pii=True))[1])


def row(cells: Iterable[object]) -> str:
    """A row of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def check_rows(reports: Mapping[str, Report]) -> list[str]:
    """The table of checks that found something in any dataset."""
    found = {name: {entry["check"]: entry for entry in made["found"]} for name, made in reports.items()}
    severity = {check: entry["severity"] for entries in found.values() for check, entry in entries.items()}
    rows = [row(("check", "severity", *reports)), row(("---", "---", *("---:" for _ in reports)))]
    rows.append(row(("pairs", "", *(f"{made['n_pairs']:,}" for made in reports.values()))))
    for check in sorted(severity, key=lambda check: (SEVERITIES.index(severity[check]), check)):
        counts = (f"{entries[check]['n_pairs']:,}" if check in entries else "" for entries in found.values())
        rows.append(row((check, severity[check], *counts)))
    for limit in LIMITS:
        over = (
            f"{made[f'n_over_{limit}_tokens']:,} ({made[f'over_{limit}_tokens_share']:.1%})"
            for made in reports.values()
        )
        rows.append(row((f"over {limit:,} tokens", "", *over)))
    return rows


def bias_rows(reports: Mapping[str, Report]) -> list[str]:
    """The table of what the labels prefer."""
    found = {name: {entry["name"]: entry for entry in made["biases"]} for name, made in reports.items()}
    nulls = {bias: entry["null"] for entries in found.values() for bias, entry in entries.items()}
    rows = [row(("finding (null)", *reports)), row(("---", *("---:" for _ in reports)))]
    for bias, null in nulls.items():
        rows.append(row((f"{bias} ({null:.1f})", *(estimate(entries.get(bias)) for entries in found.values()))))
    return rows


def estimate(entry: Report | None) -> str:
    """A mean with its interval, bold for a warning, empty for none."""
    if entry is None:
        return ""
    value = f"{entry['value']:.3f}"
    shown = f"**{value}**" if entry["severity"] == "warning" else value
    return f"{shown} [{entry['low']:.3f}, {entry['high']:.3f}]"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the datasets")
    given = parser.parse_args()
    reports = {name: report(given.data / f"{name}.jsonl.gz") for name in SETS}
    print("\n".join([*check_rows(reports), "", *bias_rows(reports)]))


if __name__ == "__main__":
    main()

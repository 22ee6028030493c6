"""What the audits of several datasets say, as a markdown table: one column per run folder.

for set in hh_rlhf_test ukp_convarg; do curate audit ../shared/data/$set.jsonl.gz --out runs/$set; done
python benchmarks/audit_findings.py runs/hh_rlhf_test runs/ukp_convarg
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reports.numbers import interval, percent


def column(facts: Mapping[str, Any]) -> dict[str, str]:
    """The answers of one report, by what they are."""
    data, ensemble, decided = facts["data"], facts["ensemble"], facts["decisions"]
    found, clear = facts["checks"]["n_pairs_with"], clearest(facts)
    return {
        "pairs, prompts": f"{data['n_pairs']:,}, {data['n_groups']:,}",
        "ties": f"{data['n_ties']:,}",
        "headline": facts["verdict"]["headline"],
        "pairs with an error, a warning": f"{found['error']:,}, {found['warning']:,}",
        "votes agree with labels": shown(ensemble["accuracy"]),
        "the better length rule": f"{shown(ensemble['length'])}, {ensemble['length']['prefers']}",
        "lead over it": shown(ensemble["lead_over_length"]),
        "independent votes, at least": f"{ensemble['effective_votes']:.1f} of {ensemble['n_members']}",
        "error rate among the clearest 5 %": shown(clear, "rate") if clear else "",
        **{f"{action} by policy auto": f"{n:,}" for action, n in decided["actions"].items()},
        "flips that label_prob carries": f"{facts['strength']['against'].get('affordable_flips', 0):,}",
    }


def clearest(facts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The error rate among the clearest twentieth of the pairs."""
    curve = facts.get("clear_errors", {}).get("curve", [])
    return next((point for point in curve if point["top_share"] >= 0.05), None)


def shown(estimate: Mapping[str, Any], value: str = "value") -> str:
    """A share with its interval."""
    return f"{percent(estimate[value])} [{interval(estimate)}]".replace("\u00a0", " ")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    runs = parser.parse_args().runs
    columns = [column(json.loads((run / "facts.json").read_text(encoding="utf-8"))) for run in runs]
    print(f"| | {' | '.join(run.name for run in runs)} |\n| --- |{' --- |' * len(runs)}")
    for name in columns[0]:
        print(f"| {name} | {' | '.join(each[name] for each in columns)} |")


if __name__ == "__main__":
    main()

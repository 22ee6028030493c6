"""What the commands show: progress bars on stderr, results as tables on stdout."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from curate.run import Progress as Callback
from curate.run import Run

NULLS = {"longer": "longer wins", "shorter": "shorter wins"}
METRICS = {"accuracy": "accuracy", "margin": "mean margin", "nll": "NLL", "ece": "ECE"}


class Rate(TextColumn):
    """Steps a second of a task."""

    def __init__(self) -> None:
        super().__init__("{task.speed:,.0f}/s")

    def render(self, task: Any) -> Any:
        return "" if task.speed is None else super().render(task)


@contextmanager
def progress_bars() -> Iterator[Callback]:
    """A progress callback that draws one bar per stage, with rate and time left, on stderr if that is a terminal.

    Elsewhere (a log file) it prints a line per stage every ten seconds at most.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _log_lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=False) as bars:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show


def _log_lines(console: Console) -> Callback:
    last: dict[str, float] = {}

    def show(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - last.get(what, now - 11) > 10:
            console.print(f"{what}: {done:,} of {total:,}", highlight=False)
            last[what] = now

    return show


def show_counts(counts: Mapping[str, int], unit: str) -> None:
    """A two-column table of names and counts."""
    table = Table(box=None, show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    for name, count in counts.items():
        table.add_row(name, f"{count:,} {unit}")
    Console().print(table)


def show_summary(run: Run) -> None:
    """The short answers of the report, and where it is."""
    from reports.summary import summary

    console = Console()
    console.print(summary(json.loads((run.path / "facts.json").read_text(encoding="utf-8"))))
    console.print(f"report: {run.path / 'report.html'}", highlight=False, soft_wrap=True)


def show_metrics(metrics: Mapping[str, Any]) -> None:
    """One row per metric with its interval."""
    table = Table(box=None, title=f"{metrics['n_pairs']:,} pairs on {metrics['n_groups']:,} prompts")
    for name in ("metric", "value", "95 % interval"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for key, name in METRICS.items():
        table.add_row(name, *_cells(metrics[key]))
    for key, name in NULLS.items():
        table.add_row(name, *_cells(metrics["nulls"][key]["accuracy"]))
    Console().print(table)


def show_comparison(comparison: Mapping[str, Any]) -> None:
    """Raw beside curated, and the paired difference with its interval, over the evaluation pairs."""
    table = Table(box=None, title=f"{comparison['n_pairs']:,} held-out pairs on {comparison['n_groups']:,} prompts")
    for name in ("metric", "raw", "curated", "difference", "95 % interval"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for key, name in METRICS.items():
        raw, curated = (f"{comparison[side][key]['value']:.3f}" for side in ("raw", "curated"))
        table.add_row(name, raw, curated, *_cells(comparison["difference"][key], "+"))
    console = Console()
    console.print(table)
    found = (f"{name} {comparison['nulls'][key]['accuracy']['value']:.3f}" for key, name in NULLS.items())
    console.print(f"accuracy of the nulls: {', '.join(found)}", highlight=False)
    for remark in ("note", "statement"):
        if comparison.get(remark):
            console.print(comparison[remark], highlight=False, soft_wrap=True)


def _cells(estimate: Mapping[str, float], sign: str = "") -> tuple[str, str]:
    if estimate["low"] is None:  # a single prompt has no interval
        return f"{estimate['value']:{sign}.3f}", "-"
    return f"{estimate['value']:{sign}.3f}", f"[{estimate['low']:{sign}.3f}, {estimate['high']:{sign}.3f}]"

"""What the commands show: progress bars on stderr, results as tables on stdout."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import polars as pl
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from curate.check_lengths import LIMITS
from curate.run import Progress as Callback
from curate.run import Run, no_progress

NULLS = {"longer": "longer wins", "shorter": "shorter wins"}
MOST_ROWS = 100
WIDEST_CELL = 60
FIRST_LINE, BETWEEN_LINES = 2, 10  # seconds, in a log file
SHORT = (  # the parts of facts.json that answer in short
    "verdict", "warnings", "data", "noise_rate", "clear_errors", "ensemble", "checks", "annotators", "decisions",
)  # fmt: skip
METRICS = {"accuracy": "accuracy", "margin": "mean margin", "nll": "NLL", "ece": "ECE"}


class Rate(ProgressColumn):
    """Steps a second of a task."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else _rate(task.speed))


@contextmanager
def progress_bars(quiet: bool = False) -> Iterator[Callback]:
    """A progress callback that draws one bar per stage, with rate and time left, on stderr if that is a terminal.

    Elsewhere (a log file) it prints a line per stage every ten seconds at most; with `quiet`, nothing.
    """
    console = Console(stderr=True)
    if quiet:
        yield no_progress
        return
    if not console.is_terminal:
        yield log_lines(console, time.monotonic)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=False) as bars:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show


def log_lines(console: Console, clock: Callable[[], float]) -> Callback:
    """A progress callback that prints a line per stage with rate and time left, the first one after two seconds."""
    started: dict[str, float] = {}
    said: dict[str, float] = {}

    def show(what: str, done: int, total: int) -> None:
        now = clock()
        start = started.setdefault(what, now)
        if done < total and now - start > FIRST_LINE and now - said.get(what, start - BETWEEN_LINES) >= BETWEEN_LINES:
            console.print(f"{what}: {done:,} of {total:,}{_speed(done, total, now - start)}", highlight=False)
            said[what] = now

    return show


def _rate(per_second: float) -> str:
    """Steps a second; slow ones with a digit that says something.

    >>> _rate(1234.5), _rate(0.26)
    ('1,234/s', '0.3/s')
    """
    return f"{per_second:,.{0 if per_second >= 10 else 1}f}/s"


def _speed(done: int, total: int, seconds: float) -> str:
    """The rate so far and the time that the rest takes at it; nothing before the first step.

    >>> _speed(300, 900, 10.0), _speed(0, 900, 10.0)
    (', 30/s, 0:20 left', '')
    """
    if not done:
        return ""
    left = round((total - done) * seconds / done)
    hours = f"{left // 3600}:" if left >= 3600 else ""
    return f", {_rate(done / seconds)}, {hours}{left // 60 % 60:0{2 if hours else 1}d}:{left % 60:02d} left"


def show_warnings(facts: Mapping[str, Any]) -> None:
    """What a stage warns of, on stderr."""
    for warning in facts.get("warnings", []):
        print(f"warning: {printable(warning)}", file=sys.stderr)


def show_notes(notes: Sequence[str]) -> None:
    """What reading showed, on stderr."""
    for note in notes:
        print(f"note: {printable(note)}", file=sys.stderr)


def show_counts(counts: Mapping[str, int], unit: str) -> None:
    """A two-column table of names and counts."""
    table = Table(box=None, show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    for name, count in counts.items():
        table.add_row(name, f"{count:,} {unit}")
    Console().print(table)


def show_checks(report: Mapping[str, Any]) -> None:
    """What the checks found, worst first, and what the labels prefer, each beside its null; warnings go to stderr."""
    show_notes(report.get("notes", []))
    show_warnings(report)
    table = Table(box=None, title=f"{report['n_pairs']:,} pairs, worst: {report['severity']}")
    for name in ("check", "severity", "pairs", "share", "example", "fix"):
        table.add_column(name, justify="right" if name in ("pairs", "share") else "left", no_wrap=True)
    for row in report["found"]:
        counts = (f"{row['n_pairs']:,}", f"{row['share']:.1%}")
        table.add_row(row["check"], row["severity"], *counts, Text(_one_line(row["examples"][0])), row["fix"])
    if not report["found"]:
        table = Table("no check found anything", box=None, title=table.title)
    _print_whole(table)
    biases = Table(box=None)
    for name in ("finding", "severity", "pairs", "value", "95 % interval", "null", "meaning"):
        biases.add_column(name, justify="left" if name in ("finding", "severity", "meaning") else "right", no_wrap=True)
    for row in report["biases"]:
        values = (f"{row['n_pairs']:,}", *_cells(row), f"{row['null']:.1f}")
        biases.add_row(Text(_one_line(row["name"])), row["severity"], *values, Text(printable(row["meaning"])))
    if report["biases"]:
        _print_whole(biases)
    if "personal" in report:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in report["personal"].items())
        Console().print(f"pairs with personal data: {kinds}", highlight=False)
    over = (
        f"{report[f'n_over_{limit}_tokens']:,} ({report[f'over_{limit}_tokens_share']:.1%}) over {limit:,}"
        for limit in LIMITS
    )
    Console().print(f"pairs that a limit of tokens drops: {', '.join(over)}", highlight=False, soft_wrap=True)


def summary_facts(run: Run) -> dict[str, Any]:
    """What `show_summary` says, as JSON: the parts of facts.json that answer in short, and where the report is."""
    facts = json.loads((run.path / "facts.json").read_text(encoding="utf-8"))
    return {**{name: facts[name] for name in SHORT if name in facts}, "report": str(run.path / "report.html")}


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


def show_evaluation(metrics: Mapping[str, Any]) -> None:
    """The metrics, the accuracy by slice and over subsets, and best-of-n, each beside its null."""
    show_metrics(metrics)
    for name, slices in metrics["slices"].items():
        _show_slices(name, slices)
    if metrics["subsets"]:
        _show_subsets(metrics["subsets"])
    if metrics["best_of_n"]:
        _show_best_of_n(metrics["best_of_n"])
    ties = (
        f"{metrics['n_reward_ties']:,} equal rewards count half; {metrics['n_label_ties']:,} tied labels are left out"
    )
    for remark in filter(None, (ties, metrics["note"])):
        Console().print(remark, highlight=False, soft_wrap=True)


def _show_slices(by: str, slices: Mapping[str, Any]) -> None:
    table = Table(box=None)
    for name in (f"accuracy by {_one_line(by)}", "pairs", "prompts", "value", "95 % interval", "longer wins"):
        table.add_column(Text(name), justify="left" if name.startswith("accuracy") else "right")
    for name, found in slices.items():
        counts, longer = (f"{found['n_pairs']:,}", f"{found['n_groups']:,}"), f"{found['longer']['value']:.3f}"
        table.add_row(Text(_one_line(name)), *counts, *_cells(found["accuracy"]), longer)
    _print_whole(table)


def _show_subsets(means: Mapping[str, Any]) -> None:
    table = Table(box=None)
    for name in ("accuracy over subsets", "pairs", "value", "95 % interval"):
        table.add_column(name, justify="left" if name.startswith("accuracy") else "right")
    for name, found in means.items():
        table.add_row(name, f"{found['n_pairs']:,}", *_cells(found))
    _print_whole(table)


def _show_best_of_n(rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(box=None, title="mean grade of the best of n responses")
    nulls = ("longest", "shortest", "random", "oracle")
    for name in ("n", "prompts", "model", "95 % interval", "model - random", "95 % interval", *nulls):
        table.add_column(name, justify="right")
    for row in rows:
        values = (f"{row[name]['value']:.3f}" for name in nulls)
        table.add_row(f"{row['n']}", f"{row['n_prompts']:,}", *_cells(row["model"]), *_cells(row["gain"], "+"), *values)
    _print_whole(table)


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


def show_policies(comparison: Mapping[str, Any]) -> None:
    """One row per policy: what it would do and leave wrong; then, where it was measured, what that is worth."""
    policies: Mapping[str, Any] = comparison["policies"]
    table = Table(box=None, title=f"{comparison['n_pairs']:,} pairs")
    for name in ("policy", *next(iter(policies.values()))["counts"], "wrong among kept", "wrong flips"):
        table.add_column(name, justify="left" if name == "policy" else "right")
    for name, found in policies.items():
        actions = (f"{count:,} ({found['shares'][action]:.1%})" for action, count in found["counts"].items())
        wrong = (
            _expected(found["wrong_kept"], found["wrong_kept_share"]),
            _expected(found["wrong_flips"], found["wrong_flip_share"]),
        )
        table.add_row(Text(name), *actions, *wrong)
    _print_whole(table)
    for pair in comparison["differing"]:
        Console().print(
            Text(f"{' and '.join(pair['policies'])} treat {pair['n_pairs']:,} pairs differently"), soft_wrap=True
        )
    measured = {name: found["retrain"] for name, found in policies.items() if "retrain" in found}
    if measured:
        _show_worth(measured)


def _expected(n: float | None, share: float | None) -> str:
    return "-" if n is None or share is None else f"{n:,.0f} ({share:.1%})"


def _show_worth(measured: Mapping[str, Any]) -> None:
    first = next(iter(measured.values()))
    table = Table(box=None, title=f"{first['n_pairs']:,} held-out pairs on {first['n_groups']:,} prompts")
    for name in ("policy", "accuracy raw", "curated", "difference", "95 % interval", "NLL raw", "curated"):
        table.add_column(name, justify="left" if name == "policy" else "right")
    for name, found in measured.items():
        accuracy, nll = (
            [f"{found[side][key]['value']:.3f}" for side in ("raw", "curated")] for key in ("accuracy", "nll")
        )
        table.add_row(Text(name), *accuracy, *_cells(found["difference"]["accuracy"], "+"), *nll)
    _print_whole(table)


def show_table(table: pl.DataFrame) -> None:
    """The rows of an answer, aligned; long texts and long answers are cut, and it is said how long they are."""
    shown = Table(box=None)
    for name, dtype in table.schema.items():
        shown.add_column(Text(_one_line(name)), justify="right" if dtype.is_numeric() else "left", no_wrap=True)
    for row in table.head(MOST_ROWS).iter_rows():
        shown.add_row(*(Text(_one_line(_shown(value))) for value in row))
    _print_whole(shown)
    if len(table) > MOST_ROWS:
        Console().print(f"{MOST_ROWS} of {len(table):,} rows; --to FILE or --json gives all", highlight=False)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else str(value)


def printable(text: str) -> str:
    """A message as one line that cannot steer the terminal, whoever wrote the text in it.

    >>> printable("two\\nlines, \\x1b[31mred")
    'two lines, \\\\x1b[31mred'
    """
    return "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)


def _one_line(text: str) -> str:
    """A text of the data as one short line that cannot steer the terminal.

    >>> _one_line("two\\nlines, \\x1b[31mred"), len(_one_line("x" * 100))
    ('two lines, \\\\x1b[31mred', 60)
    """
    line = " ".join(printable(text[: 2 * WIDEST_CELL]).split())
    return line if len(line) <= WIDEST_CELL else line[: WIDEST_CELL - 1] + "…"


def _print_whole(table: Table) -> None:
    """Print a table at its full width: a terminal wraps its lines, and a file or a pipe gets all of every line."""
    console = Console()
    console.width = max(console.width, console.measure(table, options=console.options.update_width(10_000)).maximum)
    console.print(table)

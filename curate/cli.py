"""The commands: each one stage or use of pipeline.py. Results go to stdout, progress to stderr; exit codes: 0 done, 2 you
can fix this, 1 our bug, 130 interrupted (the same command resumes).
"""

import dataclasses
import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from curate import pipeline
from curate.errors import CurateError
from curate.export import ExportOptions
from curate.formats import LoadOptions, ReadOptions
from curate.guarantee_words import guarantee_words
from curate.options import (
    CheckOptions,
    DecideOptions,
    FeatureOptions,
    RetrainOptions,
    ScoreOptions,
    StrengthOptions,
    VoteOptions,
)
from curate.run import Run
from curate.terminal import (
    printable,
    progress_bars,
    show_checks,
    show_comparison,
    show_counts,
    show_evaluation,
    show_notes,
    show_policies,
    show_summary,
    show_table,
    show_warnings,
)

app = typer.Typer(
    help="Find wrong labels in preference data, export a cleaned dataset, retrain a reward model on it.\n\n"
    "Start with: curate audit DATA --out RUN, then curate export RUN --to DIR and curate retrain RUN --to MODEL. "
    "To see it work on a generated sample: curate demo.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

DataArgument = Annotated[
    str, typer.Argument(metavar="DATA", help="a file, a folder of shards, or a hub id (org/name[:config][:split])")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="a run folder, made by curate audit or curate load")]
OutOption = Annotated[Path, typer.Option("--out", help="the run folder to write")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what another command or other data left there")]


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command; a parameter whose type is an options dataclass becomes one option per field.

    Name, type, default and help of an option are those of the field (its help in `metadata`); a field that two
    dataclasses share, such as seed, is one option that both receive.
    """
    parameters: dict[str, inspect.Parameter] = {}
    classes: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if dataclasses.is_dataclass(parameter.annotation):
            classes[parameter.name] = parameter.annotation
            for entry in dataclasses.fields(parameter.annotation):
                if entry.metadata:  # a field without help is not for the command line
                    parameters.setdefault(entry.name, _option(entry))
        else:
            parameters[parameter.name] = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)

    parameters["context"] = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

    @functools.wraps(function)
    def run_command(context: typer.Context, **given: Any) -> None:
        plain = {key: value for key, value in given.items() if key in inspect.signature(function).parameters}
        typed = {key: value for key, value in given.items() if not _is_default(context, key)}
        with user_errors():
            function(**plain, **{name: _instance(cls, typed) for name, cls in classes.items()})

    run_command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    run_command.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    app.command(name=function.__name__.removesuffix("_command"))(run_command)
    return run_command


def _is_default(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT"


def _instance(cls: Any, typed: dict[str, Any]) -> Any:
    """The options dataclass of what was typed; the rest is its own defaults, or what a preset says."""
    names = {entry.name for entry in dataclasses.fields(cls)}
    return pipeline.options_from({key: value for key, value in typed.items() if key in names}, cls)[0]


@contextmanager
def user_errors() -> Iterator[None]:
    """One line and exit code 2 for what the user can fix, 130 for Ctrl-C; our own bugs pass."""
    try:
        yield
    except CurateError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:  # no such permission, a disk that is full, a folder where a file should be
        print(f"error: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted: the same command resumes", file=sys.stderr)
        raise SystemExit(130) from None


def _option(entry: "dataclasses.Field[Any]") -> inspect.Parameter:
    annotation: Any = Annotated.__class_getitem__((entry.type, typer.Option(help=entry.metadata["help"])))  # type: ignore[attr-defined]
    return inspect.Parameter(entry.name, inspect.Parameter.KEYWORD_ONLY, default=entry.default, annotation=annotation)


@command
def audit(
    data: DataArgument,
    out: OutOption,
    loading: LoadOptions,
    voting: VoteOptions,
    deciding: DecideOptions,
    overwrite: Overwrite = False,
) -> None:
    """Read, check, vote, decide and report: which labels are probably wrong, and what to do about it."""
    options = dataclasses.asdict(loading) | dataclasses.asdict(voting) | dataclasses.asdict(deciding)
    with progress_bars() as progress:
        run = pipeline.audit(data, out, overwrite=overwrite, progress=progress, **options)
    show_summary(run)


@command
def load(
    data: DataArgument,
    loading: LoadOptions,
    out: Annotated[Path | None, typer.Option("--out", help="the run folder to write")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="say which format matches and why the others do not; write nothing")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Read a preference dataset of any known format into a run folder, or explain its format."""
    if explain:
        for line in pipeline.explain(data, loading):
            typer.echo(printable(line))
        return
    if out is None:
        raise CurateError("load: no run folder; add --out RUN, or --explain to see which format matches")
    with progress_bars() as progress:
        run = pipeline.load(data, out, loading, overwrite, progress)
    facts = run.stage("load")["facts"]
    typer.echo(f"{facts['n_pairs']:,} pairs on {facts['n_groups']:,} prompts read as {facts['format']} into {out}")
    show_notes(facts["notes"])


@command
def check(
    data: Annotated[str, typer.Argument(metavar="DATA", help="a dataset as for curate audit, or a run folder")],
    reading: ReadOptions,
    features: FeatureOptions,
    checking: CheckOptions,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="write every finding (pair_id, check, severity) to this .csv, .jsonl or .parquet"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON: what was found, with all fixes")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Run the data checks alone, without any model: empty, identical, duplicate, contradicting, truncated, biased ...

    Exit code for CI: 0 nothing worse than notes, 3 warnings, 4 errors (2: the data cannot be read). A run folder gets its
    checks.parquet and exits with 0.
    """
    from curate.answer import refuse_target, write_table
    from curate.checks import EXIT_CODES, findings, report_of

    is_run = (Path(data) / "run.json").is_file()
    if to:
        refuse_target(to, Path(data), overwrite)
    with progress_bars() as progress:
        if is_run:
            run = pipeline.check(Run.open(data), features, progress, checking)
            table, facts = run.read("checks"), run.stage("check")["facts"]
        else:
            table, facts = pipeline.checked_data(data, reading, features, checking, progress)
    if to:
        write_table(findings(table), to)
    found = report_of(facts)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        show_notes(facts.get("notes", []))
        show_warnings(facts)
        show_checks(found)
    raise SystemExit(0 if is_run else EXIT_CODES[found["severity"]])


@command
def vote(run: RunArgument, voting: VoteOptions, overwrite: Overwrite = False) -> None:  # noqa: ARG001
    """Train the ensemble of reward models and let it vote on every pair."""
    with progress_bars() as progress:
        voted = pipeline.vote(Run.open(run), voting, progress)
    facts = voted.stage("vote")["facts"]
    typer.echo(f"{facts['n_members']} members voted, worth {facts['effective_votes']:.1f} independent votes")


@command
def sample(
    run: RunArgument,
    to: Annotated[Path, typer.Option("--to", help="the .csv or .jsonl file to write")],
    n: Annotated[
        int, typer.Option("--n", help="pairs to draw; the more are verified, the more can be certified")
    ] = 300,
    seed: Annotated[int, typer.Option("--seed", help="seed of the draw")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Draw pairs at random to be verified by a person: fill in label_is_right, then give the file as --verified."""
    drawn = pipeline.sample(Run.open(run), to, n, seed, overwrite)
    typer.echo(
        f"{len(drawn):,} pairs drawn: {to}\nread each pair and write true, false or unsure into label_is_right, then: "
        f"curate decide {run} --policy guaranteed --verified {to}"
    )


@command
def strength(run: RunArgument, calibrating: StrengthOptions, overwrite: Overwrite = False) -> None:  # noqa: ARG001
    """Turn votes into strength, the chance that each label is right, and kinds."""
    facts = pipeline.strength(Run.open(run), calibrating).stage("strength")["facts"]
    show_warnings(facts)
    show_counts(facts["kinds"], "pairs")


@command
def decide(run: RunArgument, deciding: DecideOptions, overwrite: Overwrite = False) -> None:  # noqa: ARG001
    """Decide per pair: keep, flip, drop or smooth, by a policy of rules."""
    decided = pipeline.decide(Run.open(run), deciding)
    facts = decided.stage("decide")["facts"]
    show_warnings(decided.stage("strength").get("facts", {}))
    show_warnings(facts)
    show_counts(facts["actions"], "pairs")
    for sentence in guarantee_words(facts.get("guarantee", {}), facts["asks_guarantee"]):
        typer.echo(sentence)


@command
def report(run: RunArgument, overwrite: Overwrite = False) -> None:  # noqa: ARG001
    """Write facts.json and report.html, one page that opens offline."""
    show_summary(pipeline.report(Run.open(run)))


@command
def export(
    run: RunArgument,
    to: Annotated[Path, typer.Option("--to", help="the folder to write")],
    exporting: ExportOptions,
    overwrite: Overwrite = False,
) -> None:
    """Write the cleaned dataset, what was removed and why, and a dataset card."""
    counts = pipeline.export(Run.open(run), to, exporting, overwrite)
    show_counts(counts, "pairs")
    typer.echo(f"dataset: {to}  (datasets.load_dataset({str(to)!r}) gives the curated pairs)")


@command
def retrain(
    run: RunArgument,
    to: Annotated[Path, typer.Option("--to", help="the model folder to write")],
    training: RetrainOptions,
    test: Annotated[
        str | None, typer.Option("--test", help="compare on this dataset (gold labels) instead of the held-out prompts")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a reward model on the curated and on the raw pairs and compare them on held-out prompts."""
    with progress_bars() as progress:
        comparison = pipeline.retrain(Run.open(run), to, training, test, overwrite, progress)
    show_comparison(comparison)
    typer.echo(f"model: {to}")


@command
def sql(
    run: RunArgument,
    statement: Annotated[
        str, typer.Argument(metavar="QUERY", help="one select over the views pairs, checks, strength, decisions")
    ],
    to: Annotated[Path | None, typer.Option("--to", help="write the answer to this .csv, .parquet or .jsonl")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the rows as JSON")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Answer a question over the tables of a run: one SQL select, which reads nothing else."""
    from curate import answer

    opened = Run.open(run)
    if to:
        answer.refuse_target(to, opened.path, overwrite)
    table = pipeline.sql(opened, statement)
    if to:
        answer.write_table(table, to)
        typer.echo(f"{len(table):,} rows: {to}", err=as_json)
    if as_json:
        rows = [answer.json_row(row) for row in table.iter_rows(named=True)]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif not to:
        show_table(table)


@command
def compare(
    run: RunArgument,
    policies: Annotated[str, typer.Option("--policies", help="presets and YAML files to compare, between commas")],
    training: RetrainOptions,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="also train on what each makes, and compare on the held-out prompts")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show what several policies would do to a run, side by side, and what each is worth."""
    names = list(dict.fromkeys(name.strip() for name in policies.split(",") if name.strip()))
    with progress_bars() as progress:
        comparison = pipeline.compare(Run.open(run), names, training if retrain else None, progress)
    if as_json:
        typer.echo(json.dumps(comparison, indent=2, ensure_ascii=False))
    else:
        show_policies(comparison)


@command
def score(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="a model folder, made by curate retrain")],
    data: DataArgument,
    to: Annotated[Path, typer.Option("--to", help="the .parquet file to write")],
    reading: ReadOptions,
    scoring: ScoreOptions,
    others: Annotated[
        list[Path] | None, typer.Option("--with", metavar="MODEL2", help="another model folder; may be given again")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Score both responses of every pair with a saved reward model, or with several (--with) whose rewards are combined.

    Before they are combined, each model's rewards are standardised over the distinct texts.
    """
    with progress_bars() as progress:
        table = pipeline.score(model, data, to, reading, overwrite, progress, others=others or (), scoring=scoring)
    typer.echo(f"{len(table):,} pairs scored: {to}")


@command
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="a model folder, made by curate retrain")],
    data: DataArgument,
    reading: ReadOptions,
    by: Annotated[
        str | None, typer.Option("--by", metavar="COLUMN", help="also slice by this column of the data, or of its meta")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON: everything, with all intervals")] = False,
) -> None:
    """Accuracy, margin, NLL and calibration of a saved reward model, whole and by slice, and best-of-n, with intervals."""
    with progress_bars() as progress:
        metrics = pipeline.evaluate(model, data, reading, progress, by)
    if as_json:
        typer.echo(json.dumps(metrics, indent=2))
    else:
        show_evaluation(metrics)


@command
def demo(
    to: Annotated[Path, typer.Option("--to", help="folder for the sample, the run, the export and the model")] = Path(
        "demo"
    ),
    overwrite: Overwrite = False,
) -> None:
    """Audit, export and retrain on a generated sample with planted label errors, and show what was found."""
    from curate.demo import run_demo

    with progress_bars() as progress:
        run_demo(to, overwrite, progress)


def main() -> None:
    """The console command `curate`."""
    app()

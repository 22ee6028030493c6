"""The commands: each one stage or use of curate.pipeline. Results go to stdout, progress to stderr; exit codes: 0 done,
2 you can fix this, 1 our bug, 130 interrupted (the same command resumes).
"""

import dataclasses
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from curate import pipeline
from curate.card import remarks
from curate.command import Answer, command, user_errors
from curate.errors import CurateError
from curate.export import ExportOptions, read_provenance
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
from curate.run import Progress, Run
from curate.terminal import (
    printable,
    show_checks,
    show_comparison,
    show_counts,
    show_evaluation,
    show_notes,
    show_policies,
    show_summary,
    show_table,
    show_warnings,
    summary_facts,
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


USES, LOOK = "The three uses", "Looking closer"
STAGES, MODELS = "The stages of an audit, one by one", "Reward models"


@command(app, USES)
def audit(
    data: DataArgument,
    out: OutOption,
    loading: LoadOptions,
    voting: VoteOptions,
    deciding: DecideOptions,
    progress: Progress,
    overwrite: Overwrite = False,
) -> Answer:
    """Read, check, vote, decide and report: which labels are probably wrong, and what to do about it."""
    options = dataclasses.asdict(loading) | dataclasses.asdict(voting) | dataclasses.asdict(deciding)
    run = pipeline.audit(data, out, overwrite=overwrite, progress=progress, **options)
    return Answer(summary_facts(run), lambda: show_summary(run))


@command(app, STAGES)
def load(
    data: DataArgument,
    loading: LoadOptions,
    progress: Progress,
    out: Annotated[Path | None, typer.Option("--out", help="the run folder to write")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="say which format matches and why the others do not; write nothing")
    ] = False,
    overwrite: Overwrite = False,
) -> Answer:
    """Read a preference dataset of any known format into a run folder, or explain its format."""
    if explain:
        lines = pipeline.explain(data, loading)
        return Answer(lines, lambda: typer.echo("\n".join(map(printable, lines))))
    if out is None:
        raise CurateError("load: no run folder; add --out RUN, or --explain to see which format matches")
    facts = pipeline.load(data, out, loading, overwrite, progress).stage("load")["facts"]
    return Answer(facts, lambda: _show_loaded(facts, out))


def _show_loaded(facts: Mapping[str, Any], out: Path) -> None:
    typer.echo(f"{facts['n_pairs']:,} pairs on {facts['n_groups']:,} prompts read as {facts['format']} into {out}")
    show_notes(facts["notes"])


@command(app, LOOK)
def check(
    data: Annotated[str, typer.Argument(metavar="DATA", help="a dataset as for curate audit, or a run folder")],
    reading: ReadOptions,
    features: FeatureOptions,
    checking: CheckOptions,
    progress: Progress,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="write every finding (pair_id, check, severity) to this .csv, .jsonl or .parquet"),
    ] = None,
    overwrite: Overwrite = False,
) -> Answer:
    """Run the data checks alone, without any model: empty, identical, duplicate, contradicting, truncated, biased ...

    Exit code for CI: 0 nothing worse than notes, 3 warnings, 4 errors (2: the data cannot be read). A run folder gets its
    checks.parquet and exits with 0.
    """
    from curate.answer import refuse_target, write_table
    from curate.checks import EXIT_CODES, findings, report_of

    is_run = (Path(data) / "run.json").is_file()
    if to:
        refuse_target(to, Path(data), overwrite)
    if is_run:
        run = pipeline.check(Run.open(data), features, progress, checking)
        table, facts = run.read("checks"), run.stage("check")["facts"]
    else:
        table, facts = pipeline.check_data(data, reading, features, checking, progress)
    if to:
        write_table(findings(table), to)
    found = report_of(facts)
    exit_code = 0 if is_run else EXIT_CODES[found["severity"]]
    return Answer(found, lambda: show_checks(found), exit_code)


@command(app, STAGES)
def vote(run: RunArgument, voting: VoteOptions, progress: Progress, overwrite: Overwrite = False) -> Answer:  # noqa: ARG001
    """Train the ensemble of reward models and let it vote on every pair."""
    facts = pipeline.vote(Run.open(run), voting, progress).stage("vote")["facts"]
    words = f"{facts['n_members']} members voted, worth {facts['effective_votes']:.1f} independent votes"
    return Answer(facts, lambda: typer.echo(words))


@command(app, LOOK)
def sample(
    run: RunArgument,
    to: Annotated[Path, typer.Option("--to", help="the .csv or .jsonl file to write")],
    n: Annotated[
        int, typer.Option("--n", help="pairs to draw; the more are verified, the more can be certified")
    ] = 300,
    seed: Annotated[int, typer.Option("--seed", help="seed of the draw")] = 0,
    overwrite: Overwrite = False,
) -> Answer:
    """Draw pairs at random to be verified by a person: fill in label_is_right, then give the file as --verified."""
    drawn = pipeline.sample(Run.open(run), to, n, seed, overwrite)
    words = (
        f"{len(drawn):,} pairs drawn: {to}\nread each pair and write true, false or unsure into label_is_right, then: "
        f"curate decide {run} --policy guaranteed --verified {to}"
    )
    return Answer({"n_pairs": len(drawn), "to": str(to)}, lambda: typer.echo(words))


@command(app, STAGES)
def strength(
    run: RunArgument,
    calibrating: StrengthOptions,
    progress: Progress,
    overwrite: Overwrite = False,  # noqa: ARG001
) -> Answer:
    """Turn votes into strength, the chance that each label is right, and kinds."""
    facts = pipeline.strength(Run.open(run), calibrating, progress).stage("strength")["facts"]

    def show() -> None:
        show_warnings(facts)
        show_counts(facts["kinds"], "pairs")

    return Answer(facts, show)


@command(app, STAGES)
def decide(
    run: RunArgument,
    deciding: DecideOptions,
    progress: Progress,
    overwrite: Overwrite = False,  # noqa: ARG001
) -> Answer:
    """Decide per pair: keep, flip, drop or smooth, by a policy of rules."""
    decided = pipeline.decide(Run.open(run), deciding, progress)
    facts = decided.stage("decide")["facts"]

    def show() -> None:
        show_warnings(decided.stage("strength").get("facts", {}))
        show_warnings(facts)
        show_counts(facts["actions"], "pairs")
        for sentence in guarantee_words(facts.get("guarantee", {}), facts["asks_guarantee"]):
            typer.echo(sentence)

    return Answer(facts, show)


@command(app, STAGES)
def report(run: RunArgument, progress: Progress, overwrite: Overwrite = False) -> Answer:  # noqa: ARG001
    """Write facts.json and report.html, one page that opens offline."""
    reported = pipeline.report(Run.open(run), progress)
    return Answer(summary_facts(reported), lambda: show_summary(reported))


@command(app, USES)
def export(
    run: RunArgument,
    to: Annotated[Path, typer.Option("--to", help="the folder to write")],
    exporting: ExportOptions,
    progress: Progress,
    push: Annotated[
        str | None,
        typer.Option(
            "--push",
            metavar="ORG/NAME",
            help="then upload the folder to the Hub as this dataset and count the rows that lie there",
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="with --push: only you and the organisation see it")
    ] = False,
    overwrite: Overwrite = False,
) -> Answer:
    """Write the cleaned dataset, what was removed and why, and a dataset card; with --push, also to the Hub.

    A pair that the format cannot carry goes to removed/ with its reason.
    """
    if private and not push:
        raise CurateError("--private: says how --push makes the dataset; add --push ORG/NAME, or leave it out")
    counts = pipeline.export(Run.open(run), to, exporting, overwrite, progress)
    said = remarks(read_provenance(to))
    address = pipeline.push(to, push, private=private, overwrite=overwrite) if push else None

    def show() -> None:
        show_counts(counts, "pairs")
        for remark in said:
            typer.echo(printable(remark))
        typer.echo(f"dataset: {to}  (datasets.load_dataset({str(to)!r}) gives the curated pairs)")
        if address:
            typer.echo(f"on the Hub: {address}")

    return Answer({"counts": counts, "remarks": said, "to": str(to), "pushed": address}, show)


@command(app, USES)
def retrain(
    run: RunArgument,
    to: Annotated[Path, typer.Option("--to", help="the model folder to write")],
    training: RetrainOptions,
    progress: Progress,
    test: Annotated[
        str | None, typer.Option("--test", help="compare on this dataset (gold labels) instead of the held-out prompts")
    ] = None,
    overwrite: Overwrite = False,
) -> Answer:
    """Train a reward model on the curated and on the raw pairs and compare them on held-out prompts."""
    comparison = pipeline.retrain(Run.open(run), to, training, test, overwrite, progress)

    def show() -> None:
        show_comparison(comparison)
        typer.echo(f"model: {to}")

    return Answer(comparison, show)


@command(app, LOOK)
def sql(
    run: RunArgument,
    statement: Annotated[
        str, typer.Argument(metavar="QUERY", help="one select over the views pairs, checks, strength, decisions")
    ],
    to: Annotated[Path | None, typer.Option("--to", help="write the answer to this .csv, .parquet or .jsonl")] = None,
    overwrite: Overwrite = False,
) -> Answer:
    """Answer a question over the tables of a run: one SQL select, which reads nothing else."""
    from curate import answer

    opened = Run.open(run)
    if to:
        answer.refuse_target(to, opened.path, overwrite)
    table = pipeline.sql(opened, statement)
    if to:
        answer.write_table(table, to)
    words = f"{len(table):,} rows: {to}"
    return Answer(table, lambda: typer.echo(words) if to else show_table(table))


@command(app, LOOK)
def compare(
    run: RunArgument,
    policies: Annotated[str, typer.Option("--policies", help="presets and YAML files to compare, between commas")],
    training: RetrainOptions,
    progress: Progress,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="also train on what each makes, and compare on the held-out prompts")
    ] = False,
) -> Answer:
    """Show what several policies would do to a run, side by side, and what each is worth."""
    names = list(dict.fromkeys(name.strip() for name in policies.split(",") if name.strip()))
    comparison = pipeline.compare(Run.open(run), names, training if retrain else None, progress)
    return Answer(comparison, lambda: show_policies(comparison))


@command(app, LOOK)
def diff(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="the first run folder: the older version, say")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="the run folder to compare with it")],
    progress: Progress,
    to: Annotated[
        Path | None, typer.Option("--to", help="write a row per changed pair to this .csv, .parquet or .jsonl")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="write a page with plots and texts, for a browser")
    ] = None,
    overwrite: Overwrite = False,
) -> Answer:
    """Show what changed between two versions of a dataset, or between two audits of one.

    Pairs are matched by their texts, not by their ids, so rows may have moved. Both runs are only read, and stages that one
    of them lacks are named. The exit code is 0 whatever changed; is_changed of --json says whether anything did.
    """
    from curate import answer
    from curate.terminal_diff import show_diff

    a, b = Run.open(run_a), Run.open(run_b)
    for run in (a, b):
        if to:
            answer.refuse_target(to, run.path, overwrite)
        if html:
            answer.refuse_target(html, run.path, overwrite, (".html",), "--html")
    found = pipeline.diff(a, b, progress)
    if to:
        answer.write_table(found.changed, to)
    if html:
        pipeline.diff_page(found, a, b, html)

    def show() -> None:
        show_diff(found.facts)
        for what, path in ((f"{len(found.changed):,} changed pairs", to), ("page", html)):
            if path:
                typer.echo(f"{what}: {path}")

    return Answer(found.facts, show)


@command(app, MODELS)
def score(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="a model folder, made by curate retrain")],
    data: DataArgument,
    to: Annotated[Path, typer.Option("--to", help="the .parquet file to write")],
    reading: ReadOptions,
    scoring: ScoreOptions,
    progress: Progress,
    others: Annotated[
        list[Path] | None, typer.Option("--with", metavar="MODEL2", help="another model folder; may be given again")
    ] = None,
    overwrite: Overwrite = False,
) -> Answer:
    """Score both responses of every pair with a saved reward model, or with several (--with) whose rewards are combined.

    Before they are combined, each model's rewards are standardised over the distinct texts.
    """
    table = pipeline.score(model, data, to, reading, overwrite, progress, others=others or (), scoring=scoring)
    return Answer({"n_pairs": len(table), "to": str(to)}, lambda: typer.echo(f"{len(table):,} pairs scored: {to}"))


@command(app, MODELS)
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="a model folder, made by curate retrain")],
    data: DataArgument,
    reading: ReadOptions,
    progress: Progress,
    by: Annotated[
        str | None, typer.Option("--by", metavar="COLUMN", help="also slice by this column of the data, or of its meta")
    ] = None,
) -> Answer:
    """Accuracy, margin, NLL and calibration of a saved reward model, whole and by slice, and best-of-n, with intervals."""
    metrics = pipeline.evaluate(model, data, reading, progress, by)
    return Answer(metrics, lambda: show_evaluation(metrics))


@command(app, USES)
def demo(
    progress: Progress,
    to: Annotated[Path, typer.Option("--to", help="folder for the sample, the run, the export and the model")] = Path(
        "demo"
    ),
    overwrite: Overwrite = False,
) -> Answer:
    """Audit, export and retrain on a generated sample with planted label errors, and show what was found."""
    from curate.demo import run_demo, show_demo

    found = run_demo(to, overwrite, progress)
    return Answer(found, lambda: show_demo(to, found))


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"prefcurate {version('prefcurate')}")
        raise typer.Exit


@app.callback()
def about(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Options of `curate` itself."""


def main() -> None:
    """The console command `curate`; Ctrl-C before or after a command's own work is told like one within it."""
    with user_errors():
        app()

"""What all commands share: options from dataclasses, --json and --quiet, progress, and one line for what a user can fix."""

import dataclasses
import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import polars as pl
import typer

from curate.answer import json_rows
from curate.errors import CurateError
from curate.options import options_from
from curate.run import Progress
from curate.terminal import printable, progress_bars

AS_JSON = Annotated[bool, typer.Option("--json", help="print JSON, for programs: everything, unrounded")]
QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="print nothing but errors, and what --json asks for")]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command has to say: as JSON, in words (`show` prints them), and by its exit code."""

    facts: Any  # JSON values, or a table whose rows are printed
    show: Callable[[], None]
    exit_code: int = 0


def command(app: typer.Typer, group: str) -> Callable[[Callable[..., Answer]], Callable[..., None]]:
    """Register a function as a command of `app`, which prints its answer: in words, or with --json as JSON.

    `group` heads the command and its like in `curate --help`.

    A parameter whose type is an options dataclass becomes one option per field: name, type, default and help of an option
    are those of the field (its help in `metadata`), and a field that two dataclasses share, such as seed, is one option
    that both receive. The first line of a dataclass's docstring heads its options in --help. A parameter of the type
    Progress draws bars on stderr, unless the user asked for quiet.
    """

    def register(function: Callable[..., Answer]) -> Callable[..., None]:
        own = inspect.signature(function).parameters
        classes = {name: each.annotation for name, each in own.items() if dataclasses.is_dataclass(each.annotation)}
        callbacks = [name for name, each in own.items() if each.annotation is Progress]
        parameters = _parameters(own, classes)

        @functools.wraps(function)
        def run_command(context: typer.Context, as_json: bool, quiet: bool, **given: Any) -> None:
            plain = {key: value for key, value in given.items() if key in own}
            typed = {key: value for key, value in given.items() if not _is_default(context, key)}
            with user_errors():
                options = {name: _instance(cls, typed) for name, cls in classes.items()}
                with progress_bars(quiet) as progress:
                    answer = function(**plain, **options, **dict.fromkeys(callbacks, progress))
                _print(answer, as_json, quiet)
            raise SystemExit(answer.exit_code)

        run_command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
        run_command.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
        app.command(name=function.__name__, rich_help_panel=group)(run_command)
        return run_command

    return register


def _parameters(own: Mapping[str, inspect.Parameter], classes: Mapping[str, Any]) -> dict[str, inspect.Parameter]:
    """What the command line takes: the function's own parameters, the fields of its options, and what all commands take."""
    parameters: dict[str, inspect.Parameter] = {}
    for name, parameter in own.items():
        if name in classes:
            for entry in dataclasses.fields(classes[name]):
                if entry.metadata:  # a field without help is not for the command line
                    parameters.setdefault(entry.name, _option(entry, classes[name]))
        elif parameter.annotation is not Progress:
            parameters[name] = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    shared = {"as_json": AS_JSON, "quiet": QUIET}
    for name, annotation in shared.items():
        parameters[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    return {**parameters, "context": context}


def _option(entry: "dataclasses.Field[Any]", cls: Any) -> inspect.Parameter:
    """A field as an option; --help shows it under what its class is for."""
    option = typer.Option(
        help=entry.metadata["help"], rich_help_panel=inspect.cleandoc(cls.__doc__).splitlines()[0].rstrip(".")
    )
    annotation: Any = Annotated.__class_getitem__((entry.type, option))  # type: ignore[attr-defined]
    return inspect.Parameter(entry.name, inspect.Parameter.KEYWORD_ONLY, default=entry.default, annotation=annotation)


def _is_default(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT"


def _instance(cls: Any, typed: Mapping[str, Any]) -> Any:
    """The options dataclass of what was typed; the rest is its own defaults, or what a preset says."""
    names = {entry.name for entry in dataclasses.fields(cls)}
    return options_from({key: value for key, value in typed.items() if key in names}, cls)[0]


def _print(answer: Answer, as_json: bool, quiet: bool) -> None:
    if as_json:
        facts = json_rows(answer.facts) if isinstance(answer.facts, pl.DataFrame) else answer.facts
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    elif not quiet:
        answer.show()


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

"""What all commands share: --json, --quiet, progress with rate and time left, colours only where they are wanted."""

import io
import json
import re
import subprocess
import sys

import pytest
from rich.console import Console
from typer.main import get_command

from curate.cli import app
from curate.demo import TOPICS, sample
from curate.terminal import log_lines, progress_bars

COMMANDS = get_command(app).commands


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with 80 generated pairs in data.jsonl and their audit in run/."""
    folder = tmp_path_factory.mktemp("command")
    sample(80, 0.1, 0, TOPICS)[0].write_ndjson(folder / "data.jsonl")
    audit = ["audit", str(folder / "data.jsonl"), "--out", str(folder / "run"), "--members", "2", "--quiet"]
    done = subprocess.run([sys.executable, "-m", "curate", *audit], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    return folder


LINES = {  # a line of each command that needs no model, and a key of its JSON
    "audit": ("audit {}/data.jsonl --out {}/run --members 2", "verdict"),
    "load": ("load {}/data.jsonl --out {}/run", "n_pairs"),
    "check": ("check {}/data.jsonl", "severity"),
    "vote": ("vote {}/run --members 2", "n_members"),
    "strength": ("strength {}/run", "kinds"),
    "decide": ("decide {}/run", "actions"),
    "report": ("report {}/run", "decisions"),
    "sample": ("sample {}/run --to {}/sample.csv --n 5 --overwrite", "n_pairs"),
    "compare": ("compare {}/run --policies auto,secrets2-flip", "policies"),
    "export": ("export {}/run --to {}/cleaned --overwrite", "counts"),
}


@pytest.mark.parametrize("name", LINES)
def test_json_is_all_of_stdout_and_quiet_is_silent(command, folder, name):
    line, key = LINES[name]
    arguments = line.replace("{}", str(folder)).split()
    code, out, err = command(*arguments, "--json", "-q")
    assert key in json.loads(out) and not err
    assert command(*arguments, "--quiet") == (code, "", "")
    assert command(*arguments)[1]


def test_the_json_of_an_audit_gives_the_answers_of_the_report(command, folder):
    found = json.loads(command("report", folder / "run", "--json")[1])
    facts = json.loads((folder / "run" / "facts.json").read_text(encoding="utf-8"))
    assert found["verdict"] == facts["verdict"] and found["decisions"] == facts["decisions"]
    assert found["report"] == str(folder / "run" / "report.html")
    assert "suspicious" not in found


def test_sql_prints_rows_as_json(command, folder):
    code, out, _ = command("sql", folder / "run", "select count(*) as n from pairs", "--json")
    assert (code, json.loads(out)) == (0, [{"n": 80}])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_json_and_quiet(name):
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert {"--json", "--quiet", "-q"} <= options


def test_errors_are_said_even_quietly(command, tmp_path):
    code, out, err = command("load", tmp_path / "no.jsonl", "--out", tmp_path / "run", "--quiet")
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1


def test_the_version_is_that_of_the_project(command):
    code, out, _ = command("--version")
    assert code == 0 and re.fullmatch(r"prefcurate \d+\.\d+\.\d+\n", out)


def test_options_stand_under_what_they_are_for(command):
    code, out, _ = command("audit", "--help")
    headings = re.findall(r"─ (\w[^─]*\w) ─", out)
    assert code == 0 and headings[:2] == ["Arguments", "Options"]
    assert "How a dataset is read and which of its prompts are set aside" in headings
    assert "What is done to each pair" in headings


def test_a_log_file_gets_a_line_per_stage_with_rate_and_time_left():
    times = iter([0, 1, 4, 5, 14, 20])
    console = Console(file=io.StringIO(), width=100)
    show = log_lines(console, lambda: next(times))
    for done in (0, 100, 400, 500, 1400, 2000):
        show("read", done, 2000)
    assert console.file.getvalue().splitlines() == [
        "read: 400 of 2,000, 100/s, 0:16 left",
        "read: 1,400 of 2,000, 100/s, 0:06 left",
    ]


def test_a_quiet_progress_says_nothing(capsys):
    with progress_bars(quiet=True) as progress:
        progress("read", 1, 2)
    assert capsys.readouterr() == ("", "")


def coloured(text: str) -> bool:
    """True where a terminal would be told to change a colour."""
    return re.search(r"\x1b\[[0-9;]*3[0-7]", text) is not None


@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color_is_honoured(folder, no_color):
    environment = {"PATH": "/usr/bin:/bin", "FORCE_COLOR": "1", "TERM": "xterm-256color", "NO_COLOR": no_color}
    code = "import sys; from curate.cli import main; sys.argv = ['curate', 'report', sys.argv[1]]; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "run")], env=environment, capture_output=True, text=True, check=True
    )
    assert coloured(done.stdout) is not bool(no_color)

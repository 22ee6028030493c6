"""Every command in the README and in docs/ is run, top to bottom of each page, and what the pages list is what there is."""

import gzip
import json
import re
import shlex
from pathlib import Path

import polars as pl
import pytest
from tiny_models import write_decoder
from typer.main import get_command

from curate.check_bias import BIASES
from curate.checks import ALL_CHECKS, fixes, meanings, severities
from curate.cli import app
from curate.demo import TOPICS, sample
from curate.recognise import FORMATS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
OTHER_TOOLS = {"--constraint", "--config"}  # options of pip and of trl
NOT_RUN = {  # why a command of the pages is not run here
    "--push": "needs the Hub; tests/test_push.py has a stand-in for it",
}
CHECK_EXITS = (0, 3, 4)


def commands_of(page: Path) -> list[str]:
    """The command lines of a page: those of its sh blocks, and those with a prompt in its text blocks."""
    lines = []
    for kind, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        head = "curate " if kind == "sh" else "$ curate "
        lines += [line.removeprefix("$ ") for line in block.splitlines() if line.startswith(head)]
    return lines


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with small files under the names that the pages use; the working folder of the test."""
    pairs, _ = sample(150, 0.1, 0, TOPICS)
    rows = pairs.with_columns(category=pl.Series(["help", "advice"] * 75))
    for name in ("data.jsonl", "train.jsonl"):
        rows.write_ndjson(tmp_path / name)
    (tmp_path / "hh_rlhf_test.jsonl.gz").write_bytes(gzip.compress((tmp_path / "data.jsonl").read_bytes()))
    rows[20:].vstack(sample(20, 0.0, 1, TOPICS)[0].with_columns(category=pl.lit("new"))).write_ndjson(
        tmp_path / "newer.jsonl"
    )
    sample(60, 0.0, 2, TOPICS)[0].with_columns(category=pl.lit("help")).write_ndjson(tmp_path / "test.jsonl")
    write_lines(tmp_path / "rated.jsonl", [rated(prompt, place) for prompt in range(20) for place in range(3)])
    write_lines(tmp_path / "strength.jsonl", [scored(row) for row in range(60)])
    (tmp_path / "mine.yaml").write_text(policy_of(ROOT / "docs" / "audit.md"), encoding="utf-8")
    write_decoder(tmp_path / "my-model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def rated(prompt, place):
    return {"prompt": f"Question {prompt}?", "response": f"Answer {place} to {prompt}.", "score": place * (prompt % 3)}


def scored(row):
    texts = {
        side: [f"\n\nHuman: Question {row}?", f"\n\nAssistant: A {side} answer."] for side in ("chosen", "rejected")
    }
    return {**texts, "chosen score list": [1.0, 2.0 - row / 30], "rejected score list": [0.5, row / 60]}


def policy_of(page):
    """The policy that a page shows."""
    return re.search(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1]


def answer_all(path):
    """Verify a drawn sample: every label is right but the first."""
    drawn = pl.read_csv(path, infer_schema=False)
    answers = ["false", *["true"] * (len(drawn) - 1)]
    drawn.with_columns(pl.Series("label_is_right", answers)).write_csv(path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_runs(command, folder, page):
    lines = commands_of(page)
    assert lines or page.name == "method.md"
    for line in lines:
        if any(option in line for option in NOT_RUN):
            continue
        words = shlex.split(line.removeprefix("curate "), comments=True)
        code, _, err = command(*words)
        assert code in (CHECK_EXITS if words[0] == "check" else (0,)), f"{line}\n{err}"
        if words[0] == "sample":
            answer_all(folder / words[words.index("--to") + 1])


def test_the_python_of_the_readme_runs(folder):
    (code,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    exec(compile(code, "README.md", "exec"), {})
    assert (folder / "cleaned" / "README.md").is_file() and (folder / "rm" / "comparison.json").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_and_command_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    commands = get_command(app).commands
    options = {option for each in commands.values() for parameter in each.params for option in parameter.opts}
    options |= {
        option for each in commands.values() for parameter in each.params for option in parameter.secondary_opts
    }
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= options | OTHER_TOOLS | {"--version", "--help"}
    assert set(re.findall(r"(?:`|\$ |^)curate ([a-z]+)", text, re.MULTILINE)) <= set(commands)


def test_every_command_is_told_of_in_the_readme():
    told = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [name for name in get_command(app).commands if f"`curate {name}" not in told]


def table_rows(text, n_columns):
    """The rows of the tables of a page, each as its cells; a bar within a cell, in code too, needs a backslash there."""
    lines = [line.strip().strip("|") for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)] for line in lines]
    return [row for row in rows if len(row) == n_columns]


def test_the_page_of_checks_lists_them_as_they_are():
    text = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    listed = [row for row in table_rows(text, 4) if row[0].startswith("`")]
    expected = [
        [f"`{name}`", severities()[name], meanings()[name], fixes()[name]] for name in (c.__name__ for c in ALL_CHECKS)
    ]
    assert listed == expected
    biases = [[f"`{bias.__name__}`", (bias.__doc__ or "").splitlines()[0]] for bias in BIASES]
    assert [row for row in table_rows(text, 2) if row[0].endswith("_bias`")] == biases


def test_the_page_of_formats_lists_them_in_their_order():
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    named = [name for row in table_rows(text, 3) for name in re.findall(r"`([a-z0-9-]+)`", row[0]) if name in FORMATS]
    assert named == list(FORMATS)

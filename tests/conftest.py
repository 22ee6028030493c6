"""Fixtures that all tests share: the folder of real data, and small pair tables."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import settings

from curate import cli
from curate.pairs import PAIR_SCHEMA, prompt_group

# The same examples on every machine, however slow, and nothing written into the working folder.
settings.register_profile("project", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("project")


@pytest.fixture(scope="session")
def data_folder():
    """The folder of real preference data; tests that need it are skipped where it is not named."""
    folder = os.environ.get("CURATE_TEST_DATA")
    if not folder:
        pytest.skip("CURATE_TEST_DATA is not set: no real preference data here")
    if not (Path(folder) / "hh_rlhf_test.jsonl.gz").is_file():
        pytest.skip(f"CURATE_TEST_DATA={folder} holds no hh_rlhf_test.jsonl.gz")
    return Path(folder)


@pytest.fixture
def command(capsys, monkeypatch):
    """Runs one command line in this process: (exit code, stdout, stderr)."""

    def run_command(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["curate", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        captured = capsys.readouterr()
        return int(done.value.code or 0), captured.out, captured.err

    return run_command


def said(value, role):
    """A text as one message, messages as they are."""
    if isinstance(value, str):
        return [{"role": role, "content": value}] if value or role == "assistant" else []
    return value


@pytest.fixture
def make_pairs():
    """A function that makes a pair table of (prompt, chosen, rejected) rows; other columns by keyword, whole."""

    def make(*rows, **columns):
        sides = [(said(prompt, "user"), said(a, "assistant"), said(b, "assistant")) for prompt, a, b in rows]
        table = {
            "pair_id": [f"toy:train:{row}" for row in range(len(rows))],
            **{name: [side[i] for side in sides] for i, name in enumerate(("prompt", "chosen", "rejected"))},
            "group": [prompt_group(*side) for side in sides],
            "is_heldout": [False] * len(rows),
            "label_strength": [None] * len(rows),
            "votes": [None] * len(rows),
            "annotators": [None] * len(rows),
            "source": ["toy"] * len(rows),
            "extra": ["{}"] * len(rows),
        }
        return pl.DataFrame(table | columns, schema=PAIR_SCHEMA)

    return make


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium that shows nothing, and keeps what it logs."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium and chromedriver are not installed: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = chromium
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()

import re

import pytest

from curate import pipeline, terminal
from curate.formats import read_pairs
from curate.options import CheckOptions


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def test_every_long_stage_of_a_check_is_told_and_comes_to_its_end(tmp_path):
    rows = [
        f'{{"prompt": "Question {i}?", "chosen": "Answer {i}.", "rejected": "No answer {i}."}}' for i in range(1500)
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(rows), encoding="utf-8")
    seen: dict[str, list[tuple[int, int]]] = {}
    pipeline.check_data(
        data,
        checking=CheckOptions(against=str(data)),
        progress=lambda what, done, total: seen.setdefault(what, []).append((done, total)),
    )
    assert list(seen) == [
        "read kB",
        "compared with: read kB",
        "tokenise",
        "near-duplicates: prompts",
        "near-duplicates: responses",
        "overlap: prompts",
        "overlap: responses",
        "languages",
        "check",
    ]
    for calls in seen.values():
        assert len({total for _, total in calls}) == 1
        assert calls == sorted(calls)
        assert calls[-1][0] == calls[-1][1]
    assert seen["near-duplicates: responses"] == [(1000, 3000), (2000, 3000), (3000, 3000), (3000, 3000)]


def test_loading_shows_progress_on_stderr_only(command, tmp_path, clock, monkeypatch):
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "Sky?", "chosen": "Blue.", "rejected": "Red."}\n' * 5000, encoding="utf-8")
    real = read_pairs

    def slow(data, options, progress):
        def ticking(what, done, total):
            clock[0] += 3
            progress(what, done, total)

        return real(data, options, ticking)

    monkeypatch.setattr("curate.pipeline.stages.read_pairs", slow)
    code, out, err = command("load", data, "--out", tmp_path / "run")
    assert code == 0
    assert re.search(r"read kB: \d+ of 290, \d+/s, \d+:\d\d left", err)
    assert "read kB" not in out

"""The pairs that are shown: the most suspicious, and examples of every check, cut to a budget."""

from pathlib import Path
from typing import Any

import polars as pl
from fake_run import N_PAIRS, fake_pairs, fake_run

from reports.facts import facts, judged_pairs
from reports.page import page
from reports.shown_pairs import SIZES, TEXT_BUDGET, check_examples, cut, fitting, html_bytes, shown_pairs


def row(text: str) -> dict[str, Any]:
    return {side: [{"role": "user", "content": text}] for side in ("prompt", "chosen", "rejected")}


def test_examples_are_evenly_spaced_over_what_a_check_found(tmp_path: Path) -> None:
    found = check_examples(fake_run(tmp_path))
    of = {
        name: [int(pair.split(":")[-1]) for pair in found if name in found[pair]]
        for name in ("cut_off", "refusal", "echo")
    }
    assert of == {"cut_off": [100, 103, 106, 108, 111], "refusal": [0, 1, 2], "echo": [1]}
    assert found["fake:train:1"] == ["refusal", "echo"]


def test_a_pair_stands_once_and_names_all_that_found_it(tmp_path: Path) -> None:
    made = facts(fake_run(tmp_path))
    rows = made["suspicious"] + made["examples"]
    assert len({row["pair_id"] for row in rows}) == len(rows)
    first = next(row for row in rows if row["pair_id"] == "fake:train:1")
    assert first["found_by"] == ["votes", "refusal", "echo"]
    assert all("votes" in row["found_by"] for row in made["suspicious"])
    assert not any("votes" in row["found_by"] for row in made["examples"])
    shown = {name for row in rows for name in row["found_by"]}
    assert shown == {"votes", "length_ratio", "refusal", "echo", "cut_off"}


def test_examples_need_no_votes(tmp_path: Path) -> None:
    run = fake_run(tmp_path, stages=("load", "check"))
    shown = shown_pairs(run, judged_pairs(run))
    assert shown["suspicious"] is None
    assert shown["examples"] and "strength_mean" not in shown["examples"][0]
    unchecked = fake_run(tmp_path / "b", stages=("load",))
    assert shown_pairs(unchecked, judged_pairs(unchecked)) == {"suspicious": None, "examples": None}


def test_a_tie_among_the_examples_says_so(tmp_path: Path) -> None:
    run = fake_run(tmp_path, stages=("load", "check"))
    checks = run.read("checks").with_columns(echo=pl.int_range(pl.len()) == N_PAIRS - 1)
    checks.write_parquet(tmp_path / "checks.parquet")
    tie = next(row for row in facts(run)["examples"] if row["found_by"] == ["echo"])
    assert tie["pair_id"] == f"fake:train:{N_PAIRS - 1}" and tie["is_tie"]


def test_long_texts_are_cut_and_say_by_how_much() -> None:
    messages = [{"role": "assistant", "content": "x" * 100}]
    assert cut(messages, 100) == messages
    assert cut(messages, 40) == [{"role": "assistant", "content": "x" * 40, "n_not_shown": 60}]
    assert cut([], 40) == []


def test_of_a_conversation_the_last_turns_are_shown() -> None:
    turns = [{"role": "user", "content": f"turn {i} " + "x" * 53} for i in range(10)]
    shown = cut(turns, 130, is_last_first=True)
    assert [message["content"][:6] for message in shown] == ["turn 7", "turn 8", "turn 9"]
    assert shown[0]["n_turns_not_shown"] == 7
    assert sum(len(message["content"]) for message in shown) == 130
    assert len(cut([{"role": "user", "content": ""}] * 1000, 200)) == 10


def test_texts_fit_the_budget_as_html() -> None:
    assert fitting([row("short")] * 10, []) == (10, SIZES[0][1])
    n_votes, limit = fitting([row('"<' * 4000)] * 200, [row("x" * 8000)] * 100)
    texts = [
        message["content"]
        for each in [row('"<' * 4000)] * n_votes
        for side in each.values()
        for message in cut(side, limit)
    ]
    assert 0 < html_bytes(texts) <= TEXT_BUDGET


def test_marks_count_as_text() -> None:
    words = [f"word{i}" for i in range(200)]
    chosen, rejected = (" ".join(word if i % 2 else side + word for i, word in enumerate(words)) for side in "ab")
    marked = {**row(chosen), "rejected": [{"role": "user", "content": rejected}]}
    plain = {**row(chosen), "rejected": [{"role": "user", "content": "z" * len(rejected)}]}
    assert fitting([plain] * 65, []) == (65, 8000)
    assert fitting([marked] * 65, [])[1] < 2000  # 200 marks of 13 bytes for three texts of 1,700 characters


def test_the_page_of_a_run_of_long_texts_stays_small(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    long = [{"role": "assistant", "content": "<x> & y " * 20_000}]
    column = pl.Series([long] * N_PAIRS, dtype=fake_pairs().schema["chosen"])
    run.read("pairs").with_columns(chosen=column, rejected=column).write_parquet(tmp_path / "pairs.parquet")
    made = facts(run)
    assert len(page(made).encode()) < 6_000_000
    shown = made["suspicious"][0]["chosen"][0]
    assert len(shown["content"]) + shown["n_not_shown"] == 160_000

import gzip
import json

import datasets
import polars as pl
import pytest
from test_checks_planted import CLEAN

from curate import pipeline
from curate.check_lengths import needs_tokens
from curate.checks import EXIT_CODES
from curate.export import ExportOptions, exported_columns, split_pairs
from curate.formats import LoadOptions, read_pairs
from curate.options import CheckOptions, FeatureOptions
from tests.decided import decided


def write(path, rows):
    lines = [json.dumps(dict(zip(("prompt", "chosen", "rejected"), row, strict=True))) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


BALANCED = [(p, c, r) if i % 2 else (p, r, c) for i, (p, c, r) in enumerate(CLEAN)]  # neither side is the longer one


def test_clean_data_exit_with_0_and_say_so(command, tmp_path):
    data = write(tmp_path / "clean.jsonl", BALANCED)
    code, out, _ = command("check", data)
    assert code == 0
    assert "60 pairs, worst: none" in out
    code, out, _ = command("check", data, "--json")
    report = json.loads(out)
    assert (code, report["severity"], report["n_pairs"], report["n_groups"], report["found"]) == (0, "none", 60, 60, [])
    assert report["biases"][0]["name"] == "length_bias"
    assert [path.name for path in tmp_path.iterdir()] == ["clean.jsonl"]  # nothing is written


@pytest.mark.parametrize(
    ("row", "severity", "check"),
    [
        (CLEAN[0], "warning", "exact_duplicate_pair"),
        (("Who sings?", "Larks.", "Larks."), "error", "identical_responses"),
        (("Who sings?", "I'm sorry, I can't help with that.", "Larks do."), "note", "refusal"),
    ],
)
def test_the_exit_code_follows_the_worst_severity(command, tmp_path, row, severity, check):
    rows = [CLEAN[0], *BALANCED[1:], row]
    code, out, _ = command("check", write(tmp_path / "data.jsonl", rows), "--json")
    report = json.loads(out)
    assert (code, report["severity"]) == (EXIT_CODES[severity], severity)
    first = next(entry for entry in report["found"] if entry["check"] == check)
    assert first["examples"] == ["data:train:60"]
    assert (first["n_pairs"], first["share"]) == (1, 1 / 61)
    assert first["severity"] == severity
    assert first["meaning"] and first["fix"]


def test_exit_codes_are_told_apart_from_what_is_taken():
    assert EXIT_CODES == {"none": 0, "note": 0, "warning": 3, "error": 4}


def test_what_cannot_be_read_exits_with_2(command, tmp_path):
    code, out, err = command("check", tmp_path / "nothing.jsonl")
    assert (code, out) == (2, "")
    assert "no such file" in err
    data = write(tmp_path / "clean.jsonl", BALANCED)
    code, out, err = command("check", data, "--against", tmp_path / "nothing.jsonl")
    assert (code, out) == (2, "")
    assert "nothing.jsonl: no such file" in err


def test_the_help_tells_the_exit_codes(command):
    code, out, _ = command("check", "--help")
    text = " ".join(out.replace("│", " ").split())
    assert code == 0
    assert "0 nothing worse than notes, 3 warnings, 4 errors" in text
    assert "--against" in text and "--json" in text and "--no-near" in text


def test_overlap_with_another_file(command, tmp_path):
    data = write(tmp_path / "train.jsonl", BALANCED)
    test = write(tmp_path / "test.jsonl", [BALANCED[4], ("Is this new?", "It is new.", "It is not new.")])
    code, out, _ = command("check", data, "--against", test, "--json")
    report = json.loads(out)
    assert code == 4
    assert {row["check"]: row["n_pairs"] for row in report["found"]} == {"prompt_in_other": 1, "response_in_other": 1}
    assert report["found"][0]["examples"] == ["train:train:4"]
    assert report["against"] == {"name": str(test), "n_pairs": 2, "n_equal_prompts": 1, "n_equal_responses": 1}


def test_near_duplicates_can_be_left_out(command, tmp_path):
    long = "Tell me of the old lighthouse keeper who walked down to the pier to look at boats and nets in the rain"
    rows = [*BALANCED, (f"{long}?", "He slept.", "He swam."), (f"{long} once?", "He sang.", "He sat.")]
    data = write(tmp_path / "data.jsonl", rows)
    assert command("check", data)[0] == 3
    assert "near_duplicate_prompt" in command("check", data)[1]
    code, out, _ = command("check", data, "--no-near")
    assert code == 0
    assert "near_duplicate_prompt" not in out


def test_scores_of_a_and_b_against_the_label_are_found(command, tmp_path):
    rows = [
        {
            "prompt": "Who sings?",
            "response_a": "Larks.",
            "response_b": "Cats.",
            "label": label,
            "score_a": 5,
            "score_b": 1,
        }
        for label in (1, 0)
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = {row["check"]: row for row in json.loads(command("check", data, "--json")[1])["found"]}
    assert found["score_contradicts_label"]["examples"] == ["data:train:1"]


EQUAL = {"scored": {"chosen": "A.", "rejected": "B.", "score_chosen": 4, "score_rejected": 4}}
EQUAL["rated"] = {"response": "A.", "score": 4}
EQUAL["compared"] = {"response_a": "A.", "response_b": "B.", "label": 0.5, "score_a": 4, "score_b": 4}


@pytest.mark.parametrize(("kind", "n_found"), [("scored", 1), ("rated", 0), ("compared", 0)])
def test_equal_scores_are_found_where_a_label_was_drawn_and_the_same_after_an_export(command, tmp_path, kind, n_found):
    rows = [{"prompt": "Who sings?", **EQUAL[kind]}]
    rows += [rows[0] | {"response": "B."}] if kind == "rated" else []
    data, cleaned = tmp_path / "data.jsonl", tmp_path / "cleaned.parquet"
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    loaded = read_pairs(data, LoadOptions())
    options = ExportOptions(format="full")
    split = split_pairs(loaded.pairs, decided(loaded.pairs), options, loaded.form)
    exported_columns(split.curated, loaded.form, options).write_parquet(cleaned)
    for source in (data, cleaned):
        report = json.loads(command("check", source, "--json")[1])
        assert [row["n_pairs"] for row in report["found"] if row["check"] == "equal_scores"] == [1] * n_found


def test_a_run_folder_gets_its_table_and_exits_with_0(command, tmp_path):
    data = write(tmp_path / "data.jsonl", [*BALANCED, ("Who sings?", "Larks.", "Larks.")])
    run = pipeline.load(data, tmp_path / "run")
    code, out, _ = command("check", run.path)
    assert code == 0
    assert "identical_responses" in out
    table = run.read("checks")
    assert table["identical_responses"].to_list() == [False] * 60 + [True]
    assert "near_duplicate_pair" in table.columns
    assert set(table.drop("pair_id").dtypes) == {pl.Boolean}
    assert table.drop("pair_id").null_count().sum_horizontal().item() == 0
    written = (run.path / "checks.parquet").stat().st_mtime_ns
    pipeline.check(run)
    assert (run.path / "checks.parquet").stat().st_mtime_ns == written  # fresh
    pipeline.check(run, checking=CheckOptions(against=str(data)))
    assert run.read("checks")["prompt_in_other"].all()


FOUND = [("data:train:60", "identical_responses", "error"), ("data:train:61", "refusal", "note")]
FAULTY = [("Who sings?", "Larks.", "Larks."), ("Who talks?", "I'm sorry, I can't help with that.", "Parrots do.")]


@pytest.mark.parametrize(
    ("suffix", "read"), [("csv", pl.read_csv), ("jsonl", pl.read_ndjson), ("parquet", pl.read_parquet)]
)
def test_every_finding_is_written_as_a_row(command, tmp_path, suffix, read):
    data, to = write(tmp_path / "data.jsonl", [*BALANCED, *FAULTY]), tmp_path / f"found.{suffix}"
    code, _, _ = command("check", data, "--to", to)
    assert code == 4
    assert read(to).rows() == FOUND
    assert read(to).columns == ["pair_id", "check", "severity"]
    run = pipeline.load(data, tmp_path / "run")
    assert command("check", run.path, "--to", to, "--overwrite")[0] == 0
    assert read(to).rows() == FOUND


def test_a_run_is_checked_again_when_the_set_on_the_hub_has_changed(tmp_path, monkeypatch):
    on_the_hub = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(on_the_hub))
    run = pipeline.load(write(tmp_path / "data.jsonl", FAULTY), tmp_path / "run")
    seen = []
    for prompt in ("Who sings?", "Who sings?", "Who talks?"):
        on_the_hub[:] = [{"prompt": prompt, "chosen": "Ravens.", "rejected": "Finches."}]
        pipeline.check(run, checking=CheckOptions(against="org/name"))
        seen.append(run.read("checks")["prompt_in_other"].to_list())
        assert run.is_fresh("check", run.options("check"))
    assert seen == [[True, False], [True, False], [False, True]]


def test_a_csv_of_findings_or_of_an_answer_holds_no_formula(command, tmp_path):
    data, to = write(tmp_path / "=cmd.jsonl", FAULTY), tmp_path / "found.csv"
    command("check", data, "--to", to)
    assert pl.read_csv(to)["pair_id"].to_list() == ["'=cmd:train:0", "'=cmd:train:1"]
    run = pipeline.load(data, tmp_path / "run")
    command("sql", run.path, "select pair_id, source, -1 as n from pairs limit 1", "--to", to, "--overwrite")
    assert pl.read_csv(to).rows() == [("'=cmd:train:0", "'=cmd", -1)]
    command("sql", run.path, "select source from pairs limit 1", "--to", tmp_path / "found.jsonl")
    assert pl.read_ndjson(tmp_path / "found.jsonl")["source"].to_list() == ["=cmd"]


def test_findings_are_never_written_over_another_file_or_into_the_data(command, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    data = write(folder / "data.jsonl", BALANCED)
    old = tmp_path / "old.csv"
    old.write_text("mine")
    for source, to, message in (
        (data, old, "exists; choose another --to, or add --overwrite"),
        (data, tmp_path / "found.xls", "unknown kind of file"),
        (folder, folder / "found.csv", "is part of the data; choose another --to"),
    ):
        code, out, err = command("check", source, "--to", to)
        assert (code, out, message in err) == (2, "", True)
    code, _, err = command("check", data, "--to", data, "--overwrite")
    assert (code, "is part of the data" in err) == (2, True)
    assert old.read_text() == "mine"
    assert [path.name for path in folder.iterdir()] == ["data.jsonl"]


def test_what_reading_showed_is_told(command, tmp_path):
    rows = [
        {"prompt": "Who sings?", "response": f"{who} do.", "score": score}
        for score, who in enumerate(("Larks", "Crows", "Owls"))
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    note = "2 pairs were made of 3 responses to 1 prompts (--pairs best-rest: the best response against each other one)"
    code, out, err = command("check", tmp_path / "data.jsonl", "--pairs", "best-rest")
    assert (code, err) == (0, f"note: {note}\n")
    code, out, err = command("check", tmp_path / "data.jsonl", "--pairs", "best-rest", "--json")
    report = json.loads(out)
    assert (report["format"], report["notes"], err) == ("pointwise", [note], "")


def test_clean_data_have_no_empty_table(command, tmp_path):
    _, out, _ = command("check", write(tmp_path / "clean.jsonl", BALANCED))
    assert "no check found anything" in out
    assert "fix" not in out


def test_hostile_text_stays_text(command, tmp_path):
    rows = [*BALANCED, ("Who?", "[bold]\x1b[31mred", "[bold]\x1b[31mred")]
    data = write(tmp_path / "[red]data.jsonl", rows)
    code, out, _ = command("check", data)
    assert code == 4
    assert "[red]data:train:60" in out
    assert "\x1b[31m" not in out


@pytest.mark.parametrize("name", ["hh_rlhf_test", "oasst1_zh_rank"])
def test_pairs_without_need_of_tokens_would_have_had_no_finding(data_folder, name):
    from rm_ensemble.batches import token_lengths

    pairs = read_pairs(data_folder / f"{name}.jsonl.gz", LoadOptions()).pairs.head(1500)
    needed = needs_tokens(pairs, 256)
    rest = pairs.filter(~needed)
    assert len(rest) > 20
    lengths = token_lengths(rest, FeatureOptions())
    assert (
        not lengths.select(pl.any_horizontal("is_prompt_cut", "is_response_cut", "is_equal_after_cut"))
        .to_series()
        .any()
    )
    longest = (
        lengths["n_prompt_tokens"]
        + lengths.select(pl.max_horizontal("n_chosen_tokens", "n_rejected_tokens")).to_series()
    )
    assert longest.max() <= 256


def test_tokens_are_counted_where_they_can_matter(make_pairs):
    short, long, long_word = ("Why?", "Because.", "So."), ("Why?", "word " * 100, "So."), ("Why?", "x" * 101, "y" * 101)
    alike, umlaut, signs = ("Why?", "Über!", "uber"), ("Why?", "Größe", "Masse"), ("Why?", "你好", "再见")
    pairs = make_pairs(short, short, long, long_word, alike, umlaut, signs)
    assert needs_tokens(pairs, 256).to_list() == [True, False, True, True, True, False, True]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "hh_rlhf_test",
            {"broken_encoding": 1, "prompt_in_response": 2, "boilerplate_response": 7, "empty_response": 11},
        ),
        ("oasst1_zh_rank", {"equal_but_for_space": 2, "near_duplicate_prompt": 38, "other_language": 0}),
        ("ukp_convarg", {"contradicting_labels": 84, "truncated_response": 31, "label_cycle": 5055}),
        ("gsm8k_solutions", {"near_duplicate_pair": 2, "exact_duplicate_pair": 3, "refusal": 0}),
        ("alpaca_bon_gpt4turbo", {"near_contradicting_labels": 8, "refusal": 5, "other_language": 0}),
        ("fine_grained_rlhf_dev", {"near_duplicate_prompt": 24, "truncated_response": 114, "label_cycle": 0}),
    ],
)
def test_findings_in_real_data(data_folder, name, expected):
    from test_checks_planted import lengths

    from curate.checks import check_table, run_checks

    pairs = read_pairs(data_folder / f"{name}.jsonl.gz", LoadOptions()).pairs
    table = run_checks(check_table(pairs, lengths(pairs)))
    assert {check: table[check].sum() for check in expected} == expected


def test_questions_of_one_real_set_are_found_in_another(data_folder):
    _, facts = pipeline.check_data(
        data_folder / "alpaca_bon_gpt4turbo.jsonl.gz",
        checking=CheckOptions(near=False, against=str(data_folder / "hh_rlhf_test.jsonl.gz")),
    )
    with gzip.open(data_folder / "hh_rlhf_test.jsonl.gz", "rt", encoding="utf-8") as lines:
        prompts = [json.loads(line)["prompt"] for line in lines]
    known = {turn for prompt in prompts for turn in ([prompt] if isinstance(prompt, str) else [prompt[0]["content"]])}
    with gzip.open(data_folder / "alpaca_bon_gpt4turbo.jsonl.gz", "rt", encoding="utf-8") as lines:
        own = [json.loads(line)["prompt"] for line in lines]
    shared = [prompt in known for prompt in own]
    assert len({prompt for prompt, is_shared in zip(own, shared, strict=True) if is_shared}) == 129  # DATA.md
    assert facts["against"]["n_equal_prompts"] == sum(shared)
    assert facts["counts"]["prompt_in_other"] == sum(shared)

"""The three uses through the real commands, on a small generated sample and with the embedded backbone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import curate
from curate import pipeline
from curate.demo import TOPICS, found_against_planted, planted_words, sample
from curate.export import read_provenance
from curate.formats import LoadOptions
from curate.options import DecideOptions
from curate.pairs import text_of
from curate.run import Run, sha256_of
from curate.strength import STRENGTH_COLUMNS

N_PAIRS, N_WRONG = 240, 36
STAGE_FILES = ("pairs.parquet", "checks.parquet", "strength.parquet", "decisions.parquet", "facts.json", "report.html")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """240 generated pairs, 36 of them with their label planted wrong."""
    path = tmp_path_factory.mktemp("data") / "sample.jsonl"
    sample(N_PAIRS, N_WRONG / N_PAIRS, 0, TOPICS[:20])[0].write_ndjson(path)
    return path


@pytest.fixture(scope="module")
def is_wrong() -> np.ndarray:
    return sample(N_PAIRS, N_WRONG / N_PAIRS, 0, TOPICS[:20])[1]


@pytest.fixture(scope="module")
def audited(data, tmp_path_factory) -> Run:
    return pipeline.audit(data, tmp_path_factory.mktemp("runs") / "run", members=4)


@pytest.fixture
def run(audited, tmp_path) -> Run:
    """A copy of the audited run that a test may change."""
    shutil.copytree(audited.path, tmp_path / "run")
    return Run(tmp_path / "run")


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): sha256_of(p) for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"
    }


def test_the_planter_swaps_exactly_what_it_says():
    wrong, is_wrong = sample(50, 0.2, 3, TOPICS)
    clean, none = sample(50, 0.0, 3, TOPICS)
    assert (is_wrong.sum(), none.sum()) == (10, 0)
    planted = wrong.filter(pl.Series(is_wrong))
    assert wrong.filter(~pl.Series(is_wrong)).height == 40
    assert not planted.is_empty()
    assert set(clean.columns) == {"prompt", "chosen", "rejected"}


def test_an_audit_finds_the_planted_errors(audited, is_wrong):
    from sklearn.metrics import roc_auc_score

    assert roc_auc_score(is_wrong, -audited.strength["strength_mean"].to_numpy()) > 0.95
    line = planted_words(found_against_planted(audited, is_wrong))
    dropped = (audited.decisions["action"] == "drop").to_numpy()
    assert f"precision {is_wrong[dropped].mean():.3f}" in line
    assert f"recall {dropped[is_wrong].mean():.3f}" in line


def test_every_table_has_one_row_per_pair_in_the_same_order(audited):
    ids = audited.read("pairs")["pair_id"]
    assert ids.is_unique().all()
    for table in ("checks", "strength", "decisions"):
        assert audited.read(table)["pair_id"].equals(ids), table
    for member in sorted((audited.path / "votes").iterdir()):
        votes = pl.read_parquet(member)
        assert votes.columns == ["pair_id", "reward_chosen", "reward_rejected", "fold", "is_out_of_fold"]
        assert votes["pair_id"].equals(ids)
    assert audited.strength.columns == list(STRENGTH_COLUMNS)


def test_auditing_again_does_nothing(run, data):
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file() and path.name != ".lock"}
    pipeline.audit(data, run.path, members=4)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_same_audit_elsewhere_gives_the_same_bytes(audited, data, tmp_path):
    again = pipeline.audit(data, tmp_path / "other" / "place", members=4)
    for name in STAGE_FILES:
        assert sha256_of(again.path / name) == sha256_of(audited.path / name), name


def test_a_changed_option_redoes_only_what_depends_on_it(run):
    before = hashes(run.path)
    pipeline.decide(run, DecideOptions("secrets2-flip"))
    pipeline.report(run)
    changed = {name for name, digest in hashes(run.path).items() if before.get(name) != digest}
    assert changed == {"decisions.parquet", "facts.json", "report.html", "run.json"}
    assert run.decisions["action"].value_counts(sort=True).rows() == [("keep", N_PAIRS - 24), ("flip", 24)]


def test_a_swapped_label_negates_its_own_strength(data, audited, tmp_path):
    rows = pl.read_ndjson(data)
    swapped = rows.with_row_index().with_columns(
        chosen=pl.when(pl.col("index") == 7).then("rejected").otherwise("chosen"),
        rejected=pl.when(pl.col("index") == 7).then("chosen").otherwise("rejected"),
    )
    (tmp_path / "sample.jsonl").write_text("")
    swapped.drop("index").write_ndjson(tmp_path / "sample.jsonl")
    run = pipeline.audit(tmp_path / "sample.jsonl", tmp_path / "run", members=4)
    # To the precision of features: the swap moves the row's texts to another place of their batch.
    assert run.strength["strength_mean_raw"][7] == pytest.approx(-audited.strength["strength_mean_raw"][7], rel=0.02)


def test_export_loads_with_datasets_and_accounts_for_every_pair(run, command, tmp_path):
    import datasets

    code, out, _ = command("export", run.path, "--to", tmp_path / "cleaned", "--format", "full")
    assert code == 0
    loaded = datasets.load_dataset(str(tmp_path / "cleaned"), cache_dir=str(tmp_path / "cache"))["train"]
    counts = json.loads((tmp_path / "cleaned" / "provenance.json").read_text())["counts"]
    assert counts["kept"] + counts["flipped"] + counts["smoothed"] == len(loaded)
    assert len(loaded) + counts["dropped"] + counts["not carried"] == counts["read"] == N_PAIRS
    assert f"{counts['dropped']} pairs" in out
    pairs = run.read("pairs")
    kept = {row["pair_id"]: row for row in loaded}
    text = {i: p[0]["content"] for i, p in pairs.select("pair_id", "chosen").iter_rows()}
    assert all(row["chosen"] == text[i] for i, row in kept.items() if row["action"] != "flip")  # letter for letter


def texts(run: Run) -> set[tuple[str, str]]:
    """The texts of both responses of every pair."""
    return set(run.read("pairs").select(map(text_of, ("chosen", "rejected"))).rows())


@pytest.mark.parametrize(
    ("name", "read_as"), {"trl": "standard", "full": "full", "strength": "strength", "rewardbench": "standard"}.items()
)
def test_an_export_in_any_format_is_read_again(run, command, tmp_path, name, read_as):
    code, out, _ = command("export", run.path, "--to", tmp_path / "cleaned", "--format", name)
    found = read_provenance(tmp_path / "cleaned")
    assert (code, found["counts"]["not carried"]) == (0, 0)
    assert ("has no soft label per pair (--format full has: label_prob)" in out) == (
        name != "full" and found["counts"]["smoothed"] > 0
    )
    again = pipeline.load(tmp_path / "cleaned", tmp_path / "again", LoadOptions(heldout_share=0))
    facts = again.stage("load")["facts"]
    assert (facts["format"], facts["n_pairs"]) == (read_as, found["rows"])
    assert texts(again) <= texts(run)
    if name == "strength":
        voted = pipeline.vote(again)
        kept = run.read("pairs")["pair_id"].is_in(run.decisions.filter(pl.col("action") != "drop")["pair_id"].implode())
        for member in (0, 3):
            file = f"votes/member-0{member}.parquet"
            ours, theirs = pl.read_parquet(run.path / file).filter(kept), pl.read_parquet(voted.path / file)
            assert ours.select("^reward_.*$").equals(theirs.select("^reward_.*$"))


def test_an_export_is_pushed_and_its_rows_counted(run, command, tmp_path, monkeypatch):
    pushed = []
    monkeypatch.setattr(
        "curate.push.push", lambda *given, **options: pushed.append((given, options)) or "https://hub/x"
    )
    to = tmp_path / "cleaned"
    code, out, _ = command("export", run.path, "--to", to, "--push", "org/x", "--private")
    rows = read_provenance(to)["rows"]
    assert (code, "on the Hub: https://hub/x" in out) == (0, True)
    run.export(to, push="org/x", overwrite=True)
    assert pushed == [
        ((to, "org/x", rows), {"private": True, "overwrite": False}),
        ((to, "org/x", rows), {"private": False, "overwrite": True}),
    ]
    code, _, error = command("export", run.path, "--to", tmp_path / "b", "--private")
    assert (code, (tmp_path / "b").exists()) == (2, False)
    assert error == "error: --private: says how --push makes the dataset; add --push ORG/NAME, or leave it out\n"


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL passes transformers options that go away in v6
def test_one_step_of_trl_runs_on_the_export(run, tmp_path):
    import datasets

    trl = pytest.importorskip("trl")
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from rm_ensemble.backbone import find_backbone

    pipeline.export(run, tmp_path / "cleaned")
    loaded = datasets.load_dataset(str(tmp_path / "cleaned"), cache_dir=str(tmp_path / "cache"))["train"]
    tokenizer = AutoTokenizer.from_pretrained(find_backbone("minilm").folder)
    tokenizer.eos_token = tokenizer.sep_token
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    config.num_labels, config.pad_token_id = 1, tokenizer.pad_token_id
    settings = trl.RewardConfig(
        str(tmp_path / "rm"),
        max_steps=1,
        gradient_checkpointing=False,
        report_to="none",
        use_cpu=True,
        bf16=False,
        max_length=64,
    )
    trainer = trl.RewardTrainer(
        BertForSequenceClassification(config), settings, train_dataset=loaded, processing_class=tokenizer
    )
    assert np.isfinite(trainer.train().training_loss)


def test_retrain_score_and_evaluate(run, command, tmp_path):
    gold = tmp_path / "gold.jsonl"
    sample(80, 0.0, 1, TOPICS[20:])[0].write_ndjson(gold)
    code, out, err = command("retrain", run.path, "--to", tmp_path / "model", "--test", gold)
    assert code == 0, err
    comparison = json.loads((tmp_path / "model" / "comparison.json").read_text())
    assert "accuracy" in out
    assert comparison["curated"]["accuracy"]["value"] >= 0.8
    assert comparison["n_pairs"] == 80
    assert (tmp_path / "model" / "raw").is_dir()
    assert command("score", tmp_path / "model", gold, "--to", tmp_path / "scores.parquet")[0] == 0
    scores = pl.read_parquet(tmp_path / "scores.parquet")
    assert scores.columns == ["pair_id", "reward_chosen", "reward_rejected"]
    accuracy = (scores["reward_chosen"] > scores["reward_rejected"]).mean()
    assert accuracy == pytest.approx(comparison["curated"]["accuracy"]["value"])
    code, out, _ = command("evaluate", tmp_path / "model", gold, "--json")
    assert json.loads(out)["accuracy"]["value"] == pytest.approx(accuracy)
    renamed = pl.read_ndjson(gold).rename({"chosen": "first", "rejected": "second"})
    renamed.write_ndjson(tmp_path / "renamed.jsonl")
    columns = ("--columns", "chosen=first,rejected=second")
    code, other, err = command("evaluate", tmp_path / "model", tmp_path / "renamed.jsonl", "--json", *columns)
    assert code == 0, err
    assert json.loads(other)["accuracy"] == json.loads(out)["accuracy"]


def test_other_features_make_the_votes_stale(run):
    key = run.key("vote", {**run.options("vote"), "blocks": ["full/-1/response"]})
    assert key != run.manifest["stages"]["vote"]["key"]


def test_decisions_on_older_votes_are_not_exported(run, command, tmp_path):
    assert command("vote", run.path, "--members", "2", "--seed", "1")[0] == 0
    for arguments in (("export", run.path, "--to", tmp_path / "a"), ("decide", run.path), ("report", run.path)):
        code, _, err = command(*arguments)
        assert code == 2
        assert (
            f"stage strength is stale, what it is made from has changed; run first: curate strength {run.path}" in err
        )
    assert command("strength", run.path)[0] == command("decide", run.path)[0] == 0
    assert command("export", run.path, "--to", tmp_path / "a")[0] == 0


def test_a_damaged_manifest_is_replaced_with_overwrite(run, data, command):
    (run.path / "run.json").write_text("{", encoding="utf-8")
    code, _, err = command("load", data, "--out", run.path)
    assert code == 2
    assert "audit again with --overwrite" in err
    before = hashes(run.path)
    assert command("load", run.path / "nothing.jsonl", "--out", run.path, "--overwrite")[0] == 2
    assert hashes(run.path) == before  # not before the new data has been read
    assert command("load", data, "--out", run.path, "--overwrite")[0] == 0


def test_what_can_be_refused_is_refused_before_anything_is_written(data, command, tmp_path):
    for arguments in (["--scoring", "in-sample"], ["--backbone", "nope"], ["--dtype", "int4"], ["--members", "0"]):
        code, _, err = command("audit", data, "--out", tmp_path / "run", *arguments)
        assert code == 2, err
        assert not (tmp_path / "run").exists()


def test_a_file_where_a_folder_should_be_is_one_line(data, command, tmp_path):
    (tmp_path / "run").write_text("not a folder", encoding="utf-8")
    code, _, err = command("audit", data, "--out", tmp_path / "run")
    assert (code, err.splitlines()[-1]) == (2, f"error: {tmp_path / 'run'}: is a file; --out names a folder")


def test_another_heldout_share_of_the_same_table_is_the_same_data(data, tmp_path):
    pipeline.load(pl.read_ndjson(data), tmp_path / "run")
    run = pipeline.load(pl.read_ndjson(data), tmp_path / "run", LoadOptions(heldout_share=0.3))
    assert run.read("pairs")["is_heldout"].mean() > 0.2


def test_the_python_api(data, tmp_path):
    run = curate.audit(pl.read_ndjson(data), out=tmp_path / "run", members=2)
    assert run.strength.height == N_PAIRS
    assert sum(run.export(tmp_path / "cleaned", format="trl", file="jsonl").values()) == 2 * N_PAIRS
    with pytest.raises(curate.CurateError, match="unknown option 'memberz': choose from"):
        curate.audit(data, out=tmp_path / "other", memberz=3)
    with pytest.raises(curate.CurateError, match="not empty; choose another --to, or add --overwrite"):
        run.export(tmp_path / "cleaned")


BAD = {
    "missing": (None, "no such file"),
    "empty": (b"", "empty"),
    "not JSON": (b'{"chosen": "a", "rejected": "b"}\n{"chosen": \n', "line 2"),
    "null response": (b'{"prompt": "p", "chosen": "a", "rejected": null}\n', "rejected"),
    "NaN label": (b'{"prompt": "p", "response_a": "a", "response_b": "b", "label": NaN}\n', "label"),
    "label outside": (b'{"prompt": "p", "response_a": "a", "response_b": "b", "label": 2}\n', "label"),
    "no such column": (b'{"question": "p", "good": "a", "bad": "b"}\n', "--columns"),
    "not UTF-8": (b'{"prompt": "p", "chosen": "\xff", "rejected": "b"}\n', "UTF-8"),
    "lone surrogate": (b'{"prompt": "p", "chosen": "\\ud800", "rejected": "b"}\n', "surrogate"),
    "one prompt": (b'{"prompt": "p", "chosen": "a", "rejected": "b"}\n', "aside: 1, and policy auto needs 50"),
    "only ties": (b'{"prompt": "p", "response_a": "a", "response_b": "b", "label": 0.5}\n' * 30, "label"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_exit_code_2_and_no_report(case, command, tmp_path):
    content, message = BAD[case]
    path = tmp_path / "bad.jsonl"
    if content is not None:
        path.write_bytes(content)
    code, out, err = command("audit", path, "--out", tmp_path / "run")
    assert code == 2
    line = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(line) == 1, err
    assert message in line[0]
    assert "Traceback" not in err + out
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "autos"], "unknown policy 'autos'"),
        (["--format", "xml"], "unknown format 'xml'"),
        (["--backbone", "minilmm"], "unknown backbone 'minilmm'"),
        (["--folds-by", "row"], "unknown --folds-by 'row': choose one of prompt, pair"),
        (["--scoring", "magic"], "unknown --scoring 'magic'"),
        (["--dtype", "int4"], "unknown dtype 'int4'"),
        (["--folds", "1"], "2 folds"),
        (["--columns", "chosen=nope"], "nope"),
    ],
)
def test_unknown_choices_are_named_with_the_choices(arguments, message, command, data, tmp_path):
    code, _, err = command("audit", data, "--out", tmp_path / "run", *arguments)
    assert code == 2
    assert message in err


def test_other_data_in_the_same_folder_needs_overwrite(run, command, tmp_path):
    other = tmp_path / "other.jsonl"
    sample(60, 0.1, 5, TOPICS)[0].write_ndjson(other)
    before = hashes(run.path)
    code, _, err = command("audit", other, "--out", run.path, "--members", "2")
    assert (code, hashes(run.path)) == (2, before)
    assert "holds a run of other data; choose another --out, or add --overwrite" in err
    other.write_text("broken")
    assert command("audit", other, "--out", run.path, "--overwrite")[0] == 2
    assert hashes(run.path) == before  # bad input leaves outputs as they were
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    code, _, err = command("audit", other, "--out", tmp_path / "mine", "--overwrite")
    assert code == 2
    assert (tmp_path / "mine" / "thesis.txt").is_file()


def test_a_foreign_folder_is_never_replaced(run, command, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for arguments in (["export"], ["retrain"]):
        code, _, err = command(*arguments, run.path, "--to", tmp_path / "mine", "--overwrite")
        assert code == 2
        assert "was not written by this command" in err
    assert (tmp_path / "mine" / "thesis.txt").is_file()


def test_a_stage_too_early_says_which_first(command, data, tmp_path):
    assert command("load", data, "--out", tmp_path / "run")[0] == 0
    for stage, first in (("strength", "curate vote"), ("decide", "curate check"), ("report", "curate decide")):
        code, _, err = command(stage, tmp_path / "run")
        assert code == 2
        assert f"run first: {first}" in err


def test_in_sample_votes_are_not_probabilities(data, tmp_path, command):
    run = tmp_path / "run"
    code, _, err = command("audit", data, "--out", run, "--scoring", "in-sample", "--members", "2")
    assert code == 2
    assert "policy auto needs label_prob" in err
    code, _, err = command(
        "audit", data, "--out", run, "--scoring", "in-sample", "--members", "2", "--policy", "secrets2-soft-margin"
    )
    assert code == 0, err
    assert Run(run).strength["label_prob"].null_count() == N_PAIRS


def test_an_interrupted_audit_is_resumed_by_the_same_command(data, audited, tmp_path):
    arguments = [sys.executable, "-m", "curate", "audit", str(data), "--out", str(tmp_path / "run"), "--members", "4"]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "checks.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command resumes" in err
    assert "Traceback" not in err
    assert not (tmp_path / "run" / "report.html").exists()
    subprocess.run(arguments, check=True, capture_output=True, env={**os.environ, "NO_COLOR": "1"})
    for name in STAGE_FILES:
        assert sha256_of(tmp_path / "run" / name) == sha256_of(audited.path / name), name


def answer(sampled: Path, pairs: pl.DataFrame, is_wrong: np.ndarray) -> None:
    """Fills in what a person who is always right would write."""
    right = dict(zip(pairs["pair_id"], (~is_wrong).tolist(), strict=True))
    rows = pl.read_csv(sampled, infer_schema=False)
    answers = [str(right[pair_id]).lower() for pair_id in rows["pair_id"]]
    rows.with_columns(label_is_right=pl.Series(answers)).write_csv(sampled)


def test_verified_pairs_certify_flips_that_are_mostly_right(run, command, is_wrong, tmp_path):
    file = tmp_path / "verify.csv"
    code, out, err = command("sample", run.path, "--n", "120", "--to", file)
    assert code == 0, err
    assert f"curate decide {run.path} --policy guaranteed --verified {file}" in out
    assert command("sample", run.path, "--n", "120", "--to", file)[0] == 2  # not overwritten by accident
    code, _, err = command("decide", run.path, "--policy", "guaranteed", "--verified", file)
    assert (code, "no answer in label_is_right yet" in err) == (2, True)
    answer(file, run.read("pairs"), is_wrong)
    code, out, err = command(
        "decide", run.path, "--policy", "guaranteed", "--verified", file, "--max-wrong-flips", "0.2"
    )
    assert code == 0, err
    facts = run.stage("decide")["facts"]["guarantee"]["flips"]
    assert f"{facts['n_flips']} of {facts['n_tested']} labels are certified as wrong: at most 20 % wrong" in out
    decided = run.decisions
    certified = (decided["reason"] == "certified wrong by verified pairs").to_numpy()
    assert certified.sum() == facts["n_flips"] >= 6
    assert is_wrong[certified].mean() > 0.6
    verified = decided["reason"] == "verified"
    assert ((decided["action"] == "flip").to_numpy() == is_wrong)[verified.to_numpy()].all()
    assert int(verified.sum()) == 120
    rate = run.stage("strength")["facts"]["verified"]["noise_rate"]
    assert rate["low"] <= is_wrong.mean() <= rate["high"]
    assert set(decided["action"]) == {"keep", "flip"}
    assert command("report", run.path)[0] == 0


def test_the_rest_may_be_decided_by_auto_and_what_is_kept_certified(run, command, is_wrong, tmp_path):
    file = tmp_path / "verify.csv"
    command("sample", run.path, "--n", "120", "--to", file)
    answer(file, run.read("pairs"), is_wrong)
    guaranteed = ("decide", run.path, "--policy", "guaranteed", "--verified", file)
    assert command(*guaranteed, "--rest", "auto")[0] == 0
    assert "label probably wrong" in set(run.decisions["reason"])
    code, out, _ = command(*guaranteed, "--max-wrong-kept", "0.1")
    assert code == 0
    dropped = (run.decisions["action"] == "drop").to_numpy()
    assert set(run.decisions["reason"].filter(pl.Series(dropped))) == {"not certified right (--max-wrong-kept)"}
    kept = (run.decisions["action"] == "keep").to_numpy() & (run.decisions["reason"] != "verified").to_numpy()
    assert "pairs are certified as right: at most 10 % of them are wrong on average" in out
    assert is_wrong[kept].mean() < is_wrong.mean()


def test_reversed_labels_are_said_and_not_flipped_in_silence(data, command, tmp_path):
    rows = pl.read_ndjson(data).rename({"chosen": "rejected", "rejected": "chosen"})
    reversed_data = tmp_path / "reversed.jsonl"
    rows.write_ndjson(reversed_data)
    run = pipeline.audit(reversed_data, tmp_path / "run", members=2)
    file = tmp_path / "verify.csv"
    command("sample", run.path, "--n", "60", "--to", file)
    answer(file, run.read("pairs"), np.ones(N_PAIRS, dtype=bool))
    code, out, err = command("decide", run.path, "--policy", "guaranteed", "--verified", file)
    assert code == 0
    assert "every verified label is wrong (60 of 60)" in err
    assert "No flip could be certified" in out
    assert set(run.decisions.filter(pl.col("action") == "flip")["reason"]) == {"verified"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "guaranteed"], "needs verified pairs: draw some with curate sample RUN --n 300 --to FILE"),
        (["--verified", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--policy", "guaranteed", "--max-wrong-flips", "0"], "--max-wrong-flips 0: give a share between 0 and 1"),
        (["--max-wrong-kept", "1.5"], "--max-wrong-kept 1.5: give a share between 0 and 1"),
        (["--max-wrong-flips", "0.1"], "no rule of policy auto asks for flip_is_certified; add --policy guaranteed"),
        (["--rest", "drop"], "unknown --rest 'drop': choose one of keep, auto"),
    ],
)
def test_a_guarantee_that_cannot_be_given_is_refused_first(arguments, message, command, data, tmp_path):
    code, _, err = command("audit", data, "--out", tmp_path / "run", *arguments)
    assert (code, message in err) == (2, True), err
    assert not (tmp_path / "run").exists()


def test_annotators_votes_are_combined_with_the_ensemble(tmp_path):
    """Three voters per pair, one of them reversed: found out, and label_prob uses who voted what."""
    wrong, is_wrong = sample(N_PAIRS, 0.15, 1, TOPICS[:20])
    rng = np.random.default_rng(0)
    truth = np.where(is_wrong, 0.0, 1.0)
    rates = {"ann": 0.9, "bob": 0.85, "eve": 0.1}
    votes = np.stack([np.where(rng.random(N_PAIRS) < rate, truth, 1 - truth) for rate in rates.values()], axis=1)
    rows = [
        {
            "prompt": row["prompt"],
            "response_a": row["chosen"],
            "response_b": row["rejected"],
            "label": 1.0,
            "votes": given.tolist(),
            "meta": {"annotator_ids": list(rates)},
        }
        for row, given in zip(wrong.to_dicts(), votes, strict=True)
    ]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = pipeline.audit(tmp_path / "votes.jsonl", tmp_path / "run", members=2)
    found = run.stage("strength")["facts"]["annotators"]
    assert [each["annotator"] for each in found["doubtful"]] == ["eve"]
    assert found["n_posterior"] == N_PAIRS
    looks_wrong = (run.strength["label_prob"] < 0.5).to_numpy()
    assert (looks_wrong == is_wrong).mean() > 0.95


def test_too_few_labels_are_refused_before_the_long_stages(command, tmp_path):
    rows = [{"prompt": f"Question {i}?", "chosen": f"Answer {i}.", "rejected": f"No {i}."} for i in range(54)]
    data = tmp_path / "few.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    code, out, err = command("audit", data, "--out", tmp_path / "run")
    assert (code, out) == (2, "") and "labels to learn from, ties and held-out prompts aside: 49, and" in err
    assert "policy auto needs 50" in err and "curate check DATA" in err
    assert not (tmp_path / "run" / "votes").exists()

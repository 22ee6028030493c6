import json
from contextlib import nullcontext

import polars as pl
import pytest

from curate import pipeline
from curate.card import remarks
from curate.errors import CurateError
from curate.export import (
    ExportOptions,
    exported_columns,
    read_provenance,
    split_pairs,
    trl_reads_all,
    write_export,
)
from curate.pairs import PAIR_SCHEMA
from curate.run import Run, sha256_of, write_parquet
from curate.writers import WRITERS
from tests.decided import decided

ACTIONS = ["keep", "flip", "smooth", "drop", "keep"]
PROVENANCE = {
    "source": "toy",
    "policy": "auto",
    "versions": {"prefcurate": "0.1.0"},
    "margin_scale": 0.5,
    "languages": ["en"],
}


def say(role, content):
    return [{"role": role, "content": content}]


@pytest.fixture
def pairs(make_pairs):
    """Five pairs, one for each action and a tie that is kept."""
    rows = [(f"question {i} ", f" good {i}", f"bad {i}\n") for i in range(5)]
    return make_pairs(*rows, label_strength=[None, None, None, None, 0.5])


@pytest.fixture
def split(pairs):
    """A function that divides the five pairs for an export with the given options."""

    def split_for(form="standard", **options):
        return split_pairs(pairs, decided(pairs, ACTIONS), ExportOptions(**options), form)

    return split_for


def test_every_pair_is_accounted_for(split):
    found = split()
    assert found.counts == {"kept": 1, "flipped": 1, "smoothed": 1, "dropped": 1, "not carried": 1, "read": 5}
    assert found.removed.select("pair_id", "reason").rows() == [
        ("toy:train:3", "broken"),
        ("toy:train:4", "tie: not carried by trl"),
    ]
    assert found.reasons == {"broken": 1, "tie: not carried by trl": 1}
    assert found.diff.rows() == [
        ("toy:train:1", "flip", "chosen, rejected"),
        ("toy:train:2", "smooth", "label_prob"),
        ("toy:train:3", "drop", "removed"),
        ("toy:train:4", "keep", "removed"),
    ]
    assert found.removed.columns[: len(PAIR_SCHEMA)] == PAIR_SCHEMA.names()


@pytest.mark.parametrize("name", WRITERS)
def test_the_counts_add_up_in_every_format(split, name):
    counts = split(format=name).counts
    assert sum(counts.values()) - counts["read"] == counts["read"] == 5
    assert counts["not carried"] == (0 if name == "full" else 1)  # the tie


def test_smoothed_drop_leaves_them_out_and_says_so(split):
    found = split(smoothed="drop")
    assert found.counts["not carried"] == 2
    assert found.reasons["smoothed: left out by --smoothed drop"] == 1


def test_standard_form_gives_the_text_back_exactly(split):
    options = ExportOptions(format="full")
    table = exported_columns(split(format="full").curated, "standard", options)
    assert table.row(0)[:3] == ("question 0 ", " good 0", "bad 0\n")
    assert table.row(1)[:3] == ("question 1 ", "bad 1\n", " good 1")  # flipped
    assert table.columns == [name for name in WRITERS["full"].columns if name in table.columns]
    assert table.schema["margin"] == pl.Float32


def test_margin_is_in_all_rows_or_in_none(pairs, split):
    columns = decided(pairs, ACTIONS)
    without = columns.with_columns(margin=pl.when(pl.col("margin").is_not_null()).then(0.0))
    options = ExportOptions()
    plain = split_pairs(pairs, without, options, "standard").curated
    assert "margin" not in exported_columns(plain, "standard", options)
    assert exported_columns(split().curated, "conversational", options)["margin"].null_count() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "format trl cannot carry all that was decided (1 tie, 1 soft label); use --format full, or leave out"),
        ({"smoothed": "duplicate"}, "format trl cannot carry all that was decided (1 tie); use --format full, or"),
        ({"smoothed": "drop"}, "format trl cannot carry all that was decided (1 smoothed, 1 tie); use --format full"),
        ({"format": "rewardbench"}, "format rewardbench cannot carry all that was decided (1 tie, 1 soft label); use"),
    ],
)
def test_strict_refuses_what_a_format_cannot_carry(split, options, message):
    with pytest.raises(CurateError) as error:
        split(strict=True, **options)
    assert str(error.value).startswith(message)


def test_strict_lets_the_format_pass_that_carries_everything(split):
    assert split(format="full", strict=True).counts["smoothed"] == 1


def test_an_export_without_a_pair_is_refused(make_pairs):
    ties = make_pairs(("a", "b", "c"), ("d", "e", "f"), label_strength=[0.5, None])
    with pytest.raises(CurateError) as error:
        split_pairs(ties, decided(ties, ["keep", "drop"]), ExportOptions())
    assert str(error.value) == "format trl cannot carry any of the pairs that are left (1 tie); use --format full"
    with pytest.raises(CurateError, match="the policy drops all 2 pairs; choose another: curate decide RUN --policy"):
        split_pairs(ties, decided(ties, ["drop", "drop"]), ExportOptions(format="full"))


@pytest.mark.parametrize("field", ["format", "file", "smoothed"])
def test_unknown_choices_are_refused(field):
    with pytest.raises(CurateError, match="choose one of"):
        ExportOptions(**{field: "xml"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "full", "smoothed": "drop"}, "--smoothed drop: format full has soft labels; leave it out"),
        ({"format": "rewardbench", "smoothed": "duplicate"}, "--smoothed duplicate: for training, not for format"),
        ({"license": "MIT License"}, "--license 'MIT License': the Hub's names are like mit, apache-2.0 or cc-by-4.0"),
    ],
)
def test_options_that_contradict_are_refused(options, message):
    with pytest.raises(CurateError) as error:
        ExportOptions(**options)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("name", ["unknown", "cc-by-nc-sa-4.0", "openrail++"])
def test_licences_are_named_as_the_hub_names_them(name):
    assert ExportOptions(license=name).license == name


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("form", ["standard", "conversational"])
def test_load_dataset_gives_the_curated_pairs_and_nothing_else(split, tmp_path, name, kind, form):
    import datasets

    options = ExportOptions(format=name, file=kind)
    found = write_export(tmp_path / "out", split(form, format=name), form, options, PROVENANCE)
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    assert loaded["train"].column_names == found["columns"]
    assert set(found["columns"]) <= set(WRITERS[name].columns)
    assert len(loaded["train"]) == found["rows"] == (4 if name == "full" else 3)
    is_text = form == "standard" or name == "rewardbench"
    expected = ["\n\nHuman: question 1 ", "\n\nAssistant: bad 1\n"]
    if name != "strength":
        expected = "bad 1\n" if is_text else say("assistant", "bad 1\n")
    assert loaded["train"][1]["chosen"] == expected  # flipped
    assert not list(tmp_path.glob(".*"))  # no partial folder is left


def test_columns_that_begin_with_nulls_have_their_type_in_json_lines_too(make_pairs, tmp_path):
    """Without the types in the card, datasets takes a first block of nulls, or of empty lists, for the type."""
    import datasets

    rows = [("", "a" * 40_000, "b")] * 300  # over the 10 MiB that datasets reads at a time
    last = {"label_strength": 0.75, "votes": [1.0], "annotators": ["ann"]}
    columns = {name: [None] * len(rows) + [value] for name, value in last.items()}
    pairs = make_pairs(*rows, ("Sky?", "Blue.", "Red."), **columns)
    options = ExportOptions(format="full", file="jsonl")
    write_export(
        tmp_path / "out",
        split_pairs(pairs, decided(pairs), options),
        "conversational",
        options,
        PROVENANCE,
    )
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded[-1].items() >= (last | {"prompt": say("user", "Sky?")}).items()
    assert loaded.features["votes"] == datasets.List(datasets.Value("float64"))


def test_the_provenance_says_what_was_written(split, tmp_path):
    found = write_export(tmp_path / "out", split(), "standard", ExportOptions(), PROVENANCE)
    assert json.loads((tmp_path / "out" / "provenance.json").read_text()) == found
    assert found.items() >= PROVENANCE.items()
    ((file, record),) = found["files"].items()
    assert record == {"rows": 3, "sha256": sha256_of(tmp_path / "out" / file)}
    assert sum(found["removed"].values()) == pl.read_parquet(tmp_path / "out" / "removed" / "removed.parquet").height


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_export_twice_has_the_same_bytes(split, tmp_path, name):
    options = ExportOptions(format=name)
    for folder in ("a", "b"):
        write_export(tmp_path / folder, split(format=name), "standard", options, PROVENANCE)
    one, two = (
        {str(p.relative_to(tmp_path / folder)): sha256_of(p) for p in (tmp_path / folder).rglob("*") if p.is_file()}
        for folder in ("a", "b")
    )
    assert one == two


def test_shards_are_numbered_and_hold_every_row(split, tmp_path, monkeypatch):
    monkeypatch.setattr("curate.export.PAIRS_PER_SHARD", 2)
    found = write_export(tmp_path / "out", split(), "standard", ExportOptions(), PROVENANCE)
    assert {file: record["rows"] for file, record in found["files"].items()} == {
        "data/train-00000-of-00002.parquet": 2,
        "data/train-00001-of-00002.parquet": 1,
    }


def test_every_shard_and_what_takes_time_before_is_told(make_pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("curate.export.PAIRS_PER_SHARD", 2)
    pairs = make_pairs(*[(f"question {i}", "good", "bad") for i in range(5)])
    run, told = decided_run(tmp_path / "run", pairs, ["keep"] * 5), []
    pipeline.export(run, tmp_path / "out", progress=lambda *call: told.append(call))
    assert told == [("tokenise", 1, 1), ("export", 0, 5), ("export", 2, 5), ("export", 4, 5), ("export", 5, 5)]


def test_the_command_shows_the_progress_of_an_export(make_pairs, tmp_path, monkeypatch, command):
    run, seen = decided_run(tmp_path / "run", make_pairs(("Sky?", "Blue.", "Red.")), ["keep"]), []
    monkeypatch.setattr("curate.command.progress_bars", lambda _: nullcontext(lambda *call: seen.append(call)))
    assert command("export", run.path, "--to", tmp_path / "out")[0] == 0
    assert ("export", 1, 1) in seen


def test_the_trl_config_lies_only_where_trl_can_train(split, make_pairs, tmp_path):
    for name, expected in {"trl": True, "full": False, "strength": False, "rewardbench": False}.items():
        found = write_export(tmp_path / name, split(format=name), "standard", ExportOptions(format=name), PROVENANCE)
        assert found["trl_reads_all"] == (tmp_path / name / "trl_reward.yaml").exists() == expected
    plain = make_pairs(("a", "b", "c"))
    options = ExportOptions(format="full")
    assert trl_reads_all(split_pairs(plain, decided(plain), options).curated, "standard", options)


def test_a_failed_write_leaves_the_old_export(split, tmp_path):
    write_export(tmp_path / "out", split(), "standard", ExportOptions(), PROVENANCE)
    before = sorted(path.name for path in (tmp_path / "out").rglob("*"))
    with pytest.raises(KeyError):
        write_export(tmp_path / "out", split(), "standard", ExportOptions(), {})
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def decided_run(path, pairs, actions):
    """A run folder whose stages left these pairs and decisions."""
    table = decided(pairs, actions)
    of_strength = ["pair_id", "label_prob", "strength_mean", "strength_std", "vote_share"]
    stages = {
        "load": ("pairs", pairs, {"form": "standard"}),
        "check": ("checks", pairs.select("pair_id"), {"n_over_1024_tokens": 2}),
        "vote": ("votes", pairs.select("pair_id"), {}),
        "strength": ("strength", table.select(of_strength), {}),
        "decide": (
            "decisions",
            table.select("pair_id", "action", "reason", "label_prob", "margin", "weight"),
            {"policy": "auto", "margin_scale": 0.5},
        ),
    }
    run = Run(path)
    for stage, (name, rows, facts) in stages.items():
        write_parquet(rows, path / f"{name}.parquet")
        run.record(stage, {}, [path / f"{name}.parquet"], len(rows), facts)
    run.update(input="0123", versions={"prefcurate": "0.1.0"})
    return run


def test_only_exported_pairs_count_as_over_trls_limit(make_pairs, tmp_path):
    """Two of the pairs read are too long; the policy drops one of them."""
    long, short = "word " * 1100, "word " * 500  # a word is a token
    rows = [("Sky?", long, "Red."), ("Sea?", "Blue.", long), ("Sun?", short, "Red."), ("Moon?", "Grey.", "Red.")]
    run = decided_run(tmp_path / "run", make_pairs(*rows), ["drop", "flip", "keep", "keep"])
    pipeline.export(run, tmp_path / "out")
    found = read_provenance(tmp_path / "out")
    assert found["n_over_1024_tokens"] == 1
    assert remarks(found)[-1] == (
        "1 of the exported pairs are over 1,024 tokens (as minilm counts), TRL's default limit; TRL drops such pairs"
    )

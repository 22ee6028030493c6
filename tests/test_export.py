import json

import polars as pl
import pytest

from curate.errors import CurateError
from curate.export import ExportOptions, card, exported_columns, flip_responses, split_pairs, write_export
from curate.pairs import PAIR_SCHEMA

ACTIONS = ["keep", "flip", "smooth", "drop", "keep"]
PROVENANCE = {"source": "toy", "policy": "auto", "versions": {"prefcurate": "0.1.0"}, "margin_scale": 0.5}


def say(role, content):
    return [{"role": role, "content": content}]


@pytest.fixture
def tables():
    """Five pairs, one of each action and a tie that is kept."""
    ids = [f"toy:train:{i}" for i in range(5)]
    pairs = pl.DataFrame(
        {
            "pair_id": ids,
            "prompt": [say("user", f"question {i} ") for i in range(5)],
            "chosen": [say("assistant", f" good {i}") for i in range(5)],
            "rejected": [say("assistant", f"bad {i}\n") for i in range(5)],
            "group": ids,
            "is_heldout": False,
            "label_strength": [None, None, None, None, 0.5],
            "votes": None,
            "annotators": None,
            "source": "toy",
            "extra": "{}",
        },
        schema=PAIR_SCHEMA,
    )
    decisions = pl.DataFrame(
        {
            "pair_id": ids,
            "action": ACTIONS,
            "reason": ["fine", "wrong", "doubtful", "broken", "tie"],
            "label_prob": [1.0, 1.0, 0.7, None, 0.5],
            "margin": [0.5, 0.2, 0.1, None, 0.0],
            "weight": [1.0, 1.0, 1.0, 0.0, 1.0],
        }
    )
    strength = pl.DataFrame(
        {"pair_id": ids, "strength_mean": 1.0, "strength_std": 0.1, "vote_share": 0.9, "label_prob": 0.5}
    )
    return pairs, decisions, strength


def test_every_pair_is_accounted_for(tables):
    split = split_pairs(*tables, ExportOptions())
    assert split.counts == {"kept": 1, "flipped": 1, "smoothed": 1, "dropped": 1, "not carried": 1, "read": 5}
    assert split.removed.select("pair_id", "reason").rows() == [
        ("toy:train:3", "broken"),
        ("toy:train:4", "tie: not carried by trl"),
    ]
    assert split.diff.rows() == [
        ("toy:train:1", "flip", "chosen, rejected"),
        ("toy:train:2", "smooth", "label_prob"),
        ("toy:train:3", "drop", "removed"),
        ("toy:train:4", "keep", "removed"),
    ]
    assert split.removed.columns[: len(PAIR_SCHEMA)] == PAIR_SCHEMA.names()


def test_full_carries_ties_and_smoothed_drop_leaves_them_out(tables):
    assert split_pairs(*tables, ExportOptions(format="full")).counts["kept"] == 2
    assert split_pairs(*tables, ExportOptions(smoothed="drop")).counts["not carried"] == 2


def test_flip_swaps_and_twice_is_nothing(tables):
    table = pl.concat([tables[0], tables[1].drop("pair_id")], how="horizontal")
    assert flip_responses(table)["chosen"][1].to_list() == say("assistant", "bad 1\n")
    assert flip_responses(flip_responses(table)).equals(table)


def test_standard_form_gives_the_text_back_exactly(tables):
    options = ExportOptions(format="full")
    table = exported_columns(split_pairs(*tables, options).curated, "standard", options)
    assert table.row(0)[:3] == ("question 0 ", " good 0", "bad 0\n")
    assert table.columns[3:] == [
        "margin", "label_prob", "weight", "action", "strength_mean", "strength_std", "vote_share", "pair_id",
    ]  # fmt: skip
    assert table.schema["margin"] == pl.Float32


def test_margin_is_in_all_rows_or_in_none(tables):
    pairs, decisions, strength = tables
    without = decisions.with_columns(margin=pl.when(pl.col("margin").is_not_null()).then(0.0))
    options = ExportOptions()
    assert "margin" not in exported_columns(split_pairs(pairs, without, strength, options).curated, "standard", options)
    margins = exported_columns(split_pairs(*tables, options).curated, "conversational", options)["margin"]
    assert margins.null_count() == 0


def test_strict_refuses_what_trl_cannot_carry(tables):
    with pytest.raises(CurateError, match="cannot carry 1 ties and 1 soft labels; use --format full"):
        split_pairs(*tables, ExportOptions(strict=True))


def test_strict_lets_the_format_pass_that_carries_everything(tables):
    assert split_pairs(*tables, ExportOptions(format="full", strict=True)).counts["smoothed"] == 1


@pytest.mark.parametrize("field", ["format", "file", "smoothed"])
def test_unknown_choices_are_refused(field):
    with pytest.raises(CurateError, match="choose one of"):
        ExportOptions(**{field: "xml"})


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("form", ["standard", "conversational"])
def test_load_dataset_gives_the_curated_pairs_and_nothing_else(tables, tmp_path, kind, form):
    import datasets

    options = ExportOptions(file=kind)
    split = split_pairs(*tables, options)
    write_export(tmp_path / "out", split, form, options, PROVENANCE)
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    assert loaded["train"].column_names == ["prompt", "chosen", "rejected", "margin"]
    assert len(loaded["train"]) == 3
    expected = "bad 1\n" if form == "standard" else say("assistant", "bad 1\n")
    assert loaded["train"][1]["chosen"] == expected  # flipped
    assert json.loads((tmp_path / "out" / "provenance.json").read_text()) == PROVENANCE
    assert pl.read_parquet(tmp_path / "out" / "removed" / "removed.parquet").height == 2
    assert not list(tmp_path.glob(".*"))  # no partial folder is left


def test_a_failed_write_leaves_the_old_export(tables, tmp_path):
    options = ExportOptions()
    split = split_pairs(*tables, options)
    write_export(tmp_path / "out", split, "standard", options, PROVENANCE)
    before = sorted(path.name for path in (tmp_path / "out").rglob("*"))
    with pytest.raises(KeyError):
        write_export(tmp_path / "out", split, "standard", options, {})
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_card_passes_the_hubs_own_reader(tables):
    from huggingface_hub import DatasetCard

    split = split_pairs(*tables, ExportOptions())
    read = DatasetCard(card(split.counts, ["prompt", "margin"], ExportOptions(license="mit"), PROVENANCE))
    assert read.data.license == "mit"
    assert {"trl", "preference"} <= set(read.data.tags)
    assert read.data.configs[0]["data_files"] == [{"split": "train", "path": "data/train-*"}]
    assert "1 doubtful pairs are written with their hard label" in read.text

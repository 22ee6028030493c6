import csv
import json
from itertools import combinations

import datasets
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import CurateError
from curate.formats import LoadOptions, ReadOptions, explain_format, read_pairs
from curate.messages import render_transcript
from curate.pairs import PAIR_SCHEMA
from curate.recognise import FORMATS, recognise

SKY = [{"role": "user", "content": "Sky?"}]
BLUE = [{"role": "assistant", "content": "Blue."}]
RED = [{"role": "assistant", "content": "Red."}]
PAIR = ("Sky?", "Blue.", "Red.")
# Rows in each native schema that hold one pair.
NATIVE = {
    "full": [
        {
            "prompt": "Sky?",
            "chosen": "Blue.",
            "rejected": "Red.",
            "label_prob": 0.7,
            "weight": 1.0,
            "action": "smooth",
            "strength_mean": 0.2,
            "strength_std": None,
            "vote_share": 0.5,
            "pair_id": "toy:train:3",
            "label_strength": None,
            "votes": None,
            "annotators": None,
            "source": "toy",
            "extra": "{}",
        }
    ],
    "arena": [
        {
            "prompt": '["Sky?"]',
            "response_a": '["Blue."]',
            "response_b": '["Red."]',
            "winner_model_a": 1,
            "winner_model_b": 0,
            "winner_tie": 0,
        }
    ],
    "arena-conversations": [{"conversation_a": SKY + RED, "conversation_b": SKY + BLUE, "winner": "model_b"}],
    "icai": [
        {
            "prompt": "Sky?",
            "response_a": {"text": "Red."},
            "response_b": {"text": "Blue."},
            "annotations": {"x": {"pref": "b"}},
        }
    ],
    "neutral": [{"prompt": "Sky?", "response_a": "Blue.", "response_b": "Red.", "label": 1}],
    "helpsteer3": [
        {
            "context": SKY,
            "response1": "Red.",
            "response2": "Blue.",
            "overall_preference": 3,
            "individual_preference": [{"score": 2, "reasoning": "", "feedback1": "", "feedback2": ""}],
        }
    ],
    "openai": [{"messages": SKY + BLUE, "rejected_response": "Red."}],
    "strength": [
        {
            "chosen": ["Sky?", "Blue."],
            "rejected": ["Sky?", "Red."],
            "GPT4 label": -1,
            "mean preference difference": 1.0,
            "chosen score list": [1.0, 2.0],
            "rejected score list": [0.0, 1.0],
        }
    ],
    "hh": [{"chosen": "\n\nHuman: Sky?\n\nAssistant: Blue.", "rejected": "\n\nHuman: Sky?\n\nAssistant: Red."}],
    "hh-prompt": [{"prompt": "\n\nHuman: Sky?\n\nAssistant:", "chosen": " Blue.", "rejected": " Red."}],
    "conversational": [{"prompt": SKY, "chosen": BLUE, "rejected": RED}],
    "mixed": [{"prompt": "Sky?", "chosen": SKY + BLUE, "rejected": SKY + RED}],
    "conversational-implicit": [{"chosen": SKY + BLUE, "rejected": SKY + RED}],
    "standard-implicit": [{"chosen": "Sky? Blue.", "rejected": "Sky? Red."}],
    "standard": [{"prompt": "Sky?", "chosen": "Blue.", "rejected": "Red."}],
    "nectar": [
        {
            "prompt": "\n\nHuman: Sky?\n\nAssistant: ",
            "answers": [{"answer": "Red.", "model": "m", "rank": 2.0}, {"answer": "Blue.", "model": "m", "rank": 1.0}],
        }
    ],
    "nemo-rl": [{"context": SKY, "completions": [{"rank": 0, "completion": BLUE}, {"rank": 1, "completion": RED}]}],
    "helpsteer2": [
        {"prompt": "Sky?", "response": "Red.", "helpfulness": 1, "correctness": 0},
        {"prompt": "Sky?", "response": "Blue.", "helpfulness": 4, "correctness": 4},
    ],
    "pointwise": [
        {"prompt": "Sky?", "response": "Blue.", "score": 0.5},
        {"prompt": "Sky?", "response": "Red.", "score": -3},
    ],
    "kto": [
        {"prompt": SKY, "completion": BLUE, "label": True},
        {"prompt": SKY, "completion": RED, "label": False},
    ],
}
EXAMPLES = {name: rows[0] for name, rows in NATIVE.items()}
TEXT_FORMATS = {"full", "neutral", "standard-implicit", "standard", "icai", "helpsteer2", "pointwise"}
STANDARD = EXAMPLES["standard"]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes rows as JSON lines to a.jsonl in the working folder and gives its name."""
    monkeypatch.chdir(tmp_path)

    def write_lines(*rows, name="a.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return name

    return write_lines


def error_of(data, **options):
    with pytest.raises(CurateError) as error:
        read_pairs(data, LoadOptions(**options))
    assert "\n" not in str(error.value)
    return str(error.value)


def contents(pair):
    """The texts of prompt, chosen and rejected of a row of the pair table."""
    return tuple("|".join(turn["content"] for turn in pair[side]) for side in ("prompt", "chosen", "rejected"))


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_recognised_and_read(write, name):
    loaded = read_pairs(write(*NATIVE[name]))
    assert (loaded.format, loaded.n_rows, len(loaded.pairs)) == (name, len(NATIVE[name]), 1)
    assert loaded.form == ("standard" if name in TEXT_FORMATS else "conversational")
    assert loaded.pairs.schema == PAIR_SCHEMA
    pair = loaded.pairs.row(0, named=True)
    assert tuple(part.strip() for part in contents(pair)) == PAIR
    assert pair["label_strength"] is None
    assert read_pairs("a.jsonl", LoadOptions(format=name)).pairs.equals(loaded.pairs)


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_read_from_parquet_as_from_json_lines(write, name, tmp_path):
    pairs = read_pairs(write(*NATIVE[name])).pairs
    pl.DataFrame(NATIVE[name]).write_parquet(tmp_path / "a.parquet")
    assert read_pairs("a.parquet").pairs.equals(pairs)


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_read_from_csv(write, name, tmp_path):
    """Lists of messages under prompt, chosen, rejected, response and completion stay text, so those schemas are not CSV's.

    Nor is full, whose nulls a CSV file has no sign for.
    """
    if not {"full", "conversational", "mixed", "conversational-implicit", "strength", "kto", "icai"} & {name}:
        pairs = read_pairs(write(*NATIVE[name])).pairs
        with (tmp_path / "a.csv").open("w", newline="") as file:
            lines = csv.DictWriter(file, NATIVE[name][0])
            lines.writeheader()
            for row in NATIVE[name]:
                cells = {key: json.dumps(value) if isinstance(value, list) else value for key, value in row.items()}
                lines.writerow(cells)
        columns = ["pair_id", "prompt", "chosen", "rejected", "label_strength", "votes"]
        assert read_pairs("a.csv").pairs.select(columns).equals(pairs.select(columns))


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_without_a_needed_column_is_named_in_every_format(write, name):
    first, needed = NATIVE[name][0], FORMATS[name].needs[-1]
    broken = {key: value for key, value in first.items() if key != needed}
    message = error_of(write(first, broken), format=name)
    assert message.startswith("a.jsonl: row 1 (line 2): no column ")
    assert f"'{needed}'" in message
    for wrong in (None, 3.5, {}):
        message = error_of(write(first, first | {FORMATS[name].texts[-1]: wrong}), format=name)
        assert message.startswith("a.jsonl: row 1 (line 2): ")
        assert "; expected " in message or "; if yours has another name" in message


@pytest.mark.parametrize("name", FORMATS)
def test_other_columns_survive_in_every_format(write, name):
    rows = [row | {"id": number, "tools": [{"name": "look"}]} for number, row in enumerate(NATIVE[name])]
    extra = json.loads(read_pairs(write(*rows)).pairs["extra"].item())
    if FORMATS[name].is_by_prompt:
        assert (extra["id_chosen"] + extra["id_rejected"], extra["tools_chosen"]) == (1, [{"name": "look"}])
        assert extra["row_chosen"] + extra["row_rejected"] == 1
    else:
        assert (extra["id"], extra["tools"]) == (0, [{"name": "look"}])


def test_ratings_and_ranks_of_both_responses_are_in_extra(write):
    for name, scores in {
        "nectar": (-1, -2), "nemo-rl": (0, -1), "helpsteer2": (4, 1), "pointwise": (0.5, -3), "kto": (1, 0)
    }.items():  # fmt: skip
        extra = json.loads(read_pairs(write(*NATIVE[name])).pairs["extra"].item())
        assert (extra["score_chosen"], extra["score_rejected"]) == scores
    assert (extra["label_chosen"], extra["label_rejected"]) == (True, False)


RANKED = {
    "prompt": "Sky?",
    "answers": [{"answer": text, "rank": rank} for text, rank in (("c", 3), ("a", 1), ("b", 2), ("b2", 2))],
}


def ids_and_ties(pairs):
    return [(pair_id.removeprefix("a:train:"), strength) for pair_id, strength in
            pairs.select("pair_id", "label_strength").iter_rows()]  # fmt: skip


def test_which_pairs_are_made_of_a_ranked_list_is_a_choice_that_the_notes_show(write):
    loaded = read_pairs(write(STANDARD | RANKED), LoadOptions(format="nectar"))
    ids = ["0:1-2", "0:1-3", "0:1-0", "0:2-3", "0:2-0", "0:3-0"]
    assert ids_and_ties(loaded.pairs) == [(number, 0.5 if number == "0:2-3" else None) for number in ids]
    assert loaded.notes[0] == (
        "6 pairs were made of 4 responses to 1 prompts (--pairs all: every two responses to a prompt)"
    )
    rest = read_pairs("a.jsonl", LoadOptions(format="nectar", pairs="best-rest", min_gap=2))
    assert ids_and_ties(rest.pairs) == [("0:1-0", None)]
    assert rest.notes[1] == "2 pairs whose ratings are less than --min-gap 2 apart are left out"


def test_rows_of_one_prompt_are_paired_wherever_they_stand(write):
    rows = [
        {"prompt": prompt, "response": f"{prompt}{score}", "score": score} for score in (2, 1, 2) for prompt in "xy"
    ]
    loaded = read_pairs(write(*rows, {"prompt": "alone", "response": "z", "score": 1}))
    assert ids_and_ties(loaded.pairs) == [
        (f"{row}:{places}", 0.5 if places == "0-2" else None) for row in (0, 1) for places in ("0-2", "0-1", "2-1")
    ]
    assert contents(loaded.pairs.row(1, named=True)) == ("x", "x2", "x1")
    assert loaded.notes[1] == "1 prompts with fewer than two responses give no pair"
    extra = json.loads(loaded.pairs["extra"][2])
    assert extra == {
        "row_chosen": 4, "row_rejected": 2, "score_chosen": 2, "score_rejected": 1
    }  # fmt: skip


def test_data_without_a_pair_is_refused(write):
    one = {"prompt": "Sky?", "response": "Blue.", "score": 1}
    assert error_of(write(one)) == "a: read as pointwise, gives no pair; expected two responses to a prompt"
    message = error_of(write(one, one), min_gap=1)
    assert message.endswith("expected two responses to a prompt that are rated 1 or more apart (--min-gap)")
    assert error_of(write({"context": SKY, "completions": []})).startswith("a: read as nemo-rl, gives no pair")


def test_a_choice_of_pairs_where_there_is_none_is_refused(write):
    message = (
        "a.jsonl: row 0 (line 1): --pairs and --min-gap choose among rated or ranked responses, and standard holds"
    )
    assert error_of(write(STANDARD), pairs="best-rest").startswith(message)
    assert error_of("a.jsonl", min_gap=0.5).startswith(message)
    with pytest.raises(CurateError, match="unknown --pairs 'best': choose one of all, best-rest, best-worst"):
        LoadOptions(pairs="best")
    with pytest.raises(CurateError, match="--min-gap -1: give 0 or more, in the unit of the ratings or ranks"):
        LoadOptions(min_gap=-1)


def test_an_error_in_a_rated_row_names_that_row(write):
    rows = NATIVE["pointwise"]
    assert error_of(write(*rows, rows[0] | {"score": None})).startswith("a.jsonl: row 2 (line 3): score is null")
    assert error_of(write(*rows, rows[0] | {"note": "\ud800"})).startswith(
        "a.jsonl: row 2 (line 3): another column holds"
    )


def test_equal_ratings_of_both_responses_are_a_tie(write):
    row = EXAMPLES["mixed"] | {"chosen_rating": 4.0, "rejected_rating": 4.0}
    pairs = read_pairs(write(row, row | {"rejected_rating": 2.0}, row | {"chosen_rating": None})).pairs
    assert pairs["label_strength"].to_list() == [0.5, None, None]
    extra = json.loads(pairs["extra"][1])
    assert extra == {"chosen_rating": 4, "rejected_rating": 2, "score_chosen": 4, "score_rejected": 2}


def test_what_was_shown_first_is_known(write):
    rows = [EXAMPLES["neutral"] | {"label": label} for label in (1, 0, 0.5, 0.2)]
    extra = [json.loads(each) for each in read_pairs(write(*rows)).pairs["extra"]]
    assert [each["position_chosen"] for each in extra] == ["a", "b", "a", "b"]


def test_score_lists_are_counted_and_must_be_as_many_in_every_pair(write):
    row = EXAMPLES["strength"]
    loaded = read_pairs(write(row, row))
    assert (loaded.n_score_lists, loaded.notes[0][:14]) == (2, "the scores of ")
    extra = json.loads(loaded.pairs["extra"][0])
    assert extra == {
        "GPT4 label": -1,
        "mean preference difference": 1.0,
        "scores_chosen": [1.0, 2.0],
        "scores_rejected": [0.0, 1.0],
    }
    assert read_pairs("a.jsonl", LoadOptions(score_lists=False)).n_score_lists == 0
    without = {name: value for name, value in row.items() if "score list" not in name}
    assert read_pairs(write(without)).n_score_lists == 0
    message = "a:train:1: its score lists hold 0 scores, those of the first pair 2; mend them, or add --no-score-lists"
    assert error_of(write(row, without)).startswith(message)


def test_icai_annotated_pairs_are_one_json_object(tmp_path):
    whole = {
        "metadata": {"version": "2.0", "default_annotator": "x"},
        "annotators": {"x": {"name": "Human"}},
        "comparisons": NATIVE["icai"],
    }
    (tmp_path / "a.json").write_text(json.dumps(whole, indent=2))
    loaded = read_pairs(tmp_path / "a.json")
    pair = loaded.pairs.row(0, named=True)
    assert (loaded.format, contents(pair), pair["votes"], pair["annotators"]) == ("icai", PAIR, [1.0], ["Human"])


def test_explaining_reads_nothing_but_the_first_rows(write):
    write(STANDARD, STANDARD | {"chosen": None})
    head, columns, *lines = explain_format("a.jsonl")
    assert (head, columns) == ("a:train", "columns of the first 2 rows: prompt, chosen, rejected")
    assert [line.split()[0] for line in lines] == list(FORMATS)
    assert [line for line in lines if " yes: " in line] == ["standard                 yes: its columns are there"]
    assert "no: lacks x" not in "".join(explain_format("a.jsonl", ReadOptions(columns="prompt=prompt")))
    with pytest.raises(CurateError, match="unknown format 'trl'"):
        explain_format("a.jsonl", ReadOptions(format="trl"))


def test_the_format_can_be_given(write):
    loaded = read_pairs(write(EXAMPLES["hh"]), LoadOptions(format="standard-implicit"))
    assert contents(loaded.pairs.row(0, named=True)) == ("\n\nHuman: Sky?\n\nAssistant:", " Blue.", " Red.")
    assert error_of("a.jsonl", format="trl").startswith("unknown format 'trl': choose one of auto, full, arena, ")


def test_pairs_are_numbered_through_all_shards(write, tmp_path):
    (tmp_path / "set").mkdir()
    for shard in ("b", "a"):
        write(STANDARD | {"id": shard}, STANDARD, name=f"set/{shard}.jsonl")
    pairs = read_pairs("set", LoadOptions(split="test")).pairs
    assert pairs["pair_id"].to_list() == [f"set:test:{row}" for row in range(4)]
    assert pairs["extra"].to_list() == ['{"id":"a"}', "{}", '{"id":"b"}', "{}"]
    assert set(pairs["source"]) == {"set"}


def test_columns_can_have_other_names(write):
    row = {"question": "Sky?", "good": "Blue.", "rejected": "Red.", "chosen": "model A", "pair_id": 3}
    loaded = read_pairs(write(row), LoadOptions(columns="prompt=question, chosen=good"))
    pair = loaded.pairs.row(0, named=True)
    assert contents(pair) == ("Sky?", "Blue.", "Red.")
    assert pair["extra"] == '{"chosen":"model A","pair_id":3}'


def test_pairs_without_a_prompt_are_noted(write):
    asked = [
        {"question": "Sky?", "chosen": "Blue.", "rejected": "Red."},
        {"chosen": "It is so.", "rejected": "It is not."},
    ]
    note = "1 pairs have no prompt; if a column holds it under another name: --columns prompt=NAME"
    loaded = read_pairs(write(*asked), LoadOptions(heldout_share=0.0))
    assert (loaded.format, loaded.notes) == ("standard-implicit", [note])
    assert read_pairs(write(STANDARD), LoadOptions(heldout_share=0.0)).notes == []


def test_chosen_and_rejected_can_be_exchanged(write):
    loaded = read_pairs(write(STANDARD), LoadOptions(columns="chosen=rejected,rejected=chosen"))
    assert contents(loaded.pairs.row(0, named=True)) == ("Sky?", "Red.", "Blue.")
    assert loaded.pairs["extra"].item() == "{}"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"a": 1, "b": 2}],
            "a.jsonl: row 0 (line 1): found columns a, b; expected chosen and rejected, or response_a,",
        ),
        ([{}], "a.jsonl: row 0 (line 1): found columns (none); expected chosen and rejected"),
        (
            [STANDARD, {"prompt": "a", "chosen": "b"}],
            "a.jsonl: row 1 (line 2): no column 'rejected' (found prompt, chosen);",
        ),
        ([STANDARD, STANDARD | {"chosen": None}], "a.jsonl: row 1 (line 2): chosen is null; expected text"),
        ([STANDARD | {"chosen": 3}], "a.jsonl: row 0 (line 1): chosen is 3; expected text"),
        ([STANDARD, EXAMPLES["conversational"]], "a.jsonl: row 1 (line 2): prompt is a list; expected text"),
        ([EXAMPLES["conversational"], STANDARD], "a.jsonl: row 1 (line 2): prompt is text ('Sky?'); expected a list"),
        (
            [EXAMPLES["standard-implicit"], EXAMPLES["conversational-implicit"]],
            "a.jsonl: row 1 (line 2): chosen is a list",
        ),
        (
            [EXAMPLES["neutral"], STANDARD],
            "a.jsonl: row 1 (line 2): no column 'response_a' (found prompt, chosen, rejected)",
        ),
        ([EXAMPLES["neutral"] | {"label": float("nan")}], "a.jsonl: row 0 (line 1): label is NaN; expected a number"),
        ([EXAMPLES["neutral"] | {"label": 2}], "a.jsonl: row 0 (line 1): label is 2; expected a number from 0"),
        (
            [STANDARD | {"chosen": "\ud800"}],
            "a.jsonl: row 0 (line 1): chosen holds a lone surrogate (\\ud800); replace it",
        ),
        ([STANDARD | {"note": "\ud800"}], "a.jsonl: row 0 (line 1): another column holds a lone surrogate (\\ud800)"),
        (
            [STANDARD | {"note": {"\udfff": 1}}],
            "a.jsonl: row 0 (line 1): another column holds a lone surrogate (\\udfff)",
        ),
    ],
)
def test_a_row_that_cannot_be_read_is_named(write, rows, message):
    assert error_of(write(*rows)).startswith(message)


def test_bad_options_are_named(write):
    write(STANDARD)
    assert error_of("a.jsonl", columns="chosen=best") == (
        "a.jsonl: row 0 (line 1): no column 'best' as --columns says; found prompt, chosen, rejected"
    )
    assert error_of("a.jsonl", heldout_share=1.0).startswith("heldout share is 1.0; expected --heldout-share from 0")
    assert error_of("a.jsonl", heldout_share=float("nan")).startswith("heldout share is nan; expected")


def test_a_column_nested_deeply_is_kept_and_an_absurd_one_refused(write, tmp_path):
    deep = []
    for _ in range(300):
        deep = [deep]
    assert json.loads(read_pairs(write(STANDARD | {"z": deep})).pairs["extra"].item()) == {"z": deep}
    (tmp_path / "a.jsonl").write_text(
        json.dumps(STANDARD | {"z": 0}).replace('"z": 0', '"z": ' + "[" * 5000 + "]" * 5000)
    )
    assert error_of("a.jsonl").startswith("a.jsonl: nested too deeply at line 1")


def test_empty_tables_have_no_pairs():
    assert error_of(pl.DataFrame({"chosen": [], "rejected": []})) == "data: holds no rows; expected at least one pair"


def test_null_and_nan_labels_of_tables_in_memory_are_named():
    table = pl.DataFrame([EXAMPLES["neutral"] | {"label": label} for label in (1.0, None, float("nan"))])
    assert error_of(table).startswith("data: row 1: label is null")
    assert error_of(table[[0, 2]]).startswith("data: row 1: label is NaN")
    assert error_of(table.to_pandas()).startswith("data: row 1: label is null")


def test_csv_reads_labels_and_votes_from_text(tmp_path):
    lines = ["prompt,response_a,response_b,label,votes,meta", 'Sky?,Blue.,"Red,\n really.",.25,"[0, 0.5]","{""k"": 1}"']
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    pair = read_pairs(tmp_path / "a.csv").pairs.row(0, named=True)
    assert contents(pair) == ("Sky?", "Red,\n really.", "Blue.")
    assert (pair["label_strength"], pair["votes"]) == (0.75, [1.0, 0.5])
    assert json.loads(pair["extra"]) == {"meta": {"k": 1}, "position_chosen": "b"}
    (tmp_path / "a.csv").write_text("prompt,response_a,response_b,label\nSky?,Blue.,Red.,good\n")
    assert error_of(tmp_path / "a.csv").endswith(
        "row 0 (line 2): label is text ('good'); expected a number from 0 (b preferred) to 1 (a preferred)"
    )


def test_extra_keeps_all_other_columns_exactly(write):
    other = {"id": 2**70, "pair_id": "x", "group": None, "é": ["ü", {"b": 1, "a": 0.1}], "margin": -0.5}
    extra = read_pairs(write(STANDARD | other)).pairs["extra"].item()
    assert json.loads(extra) == other
    assert list(json.loads(extra)) == sorted(other)


def test_extra_of_values_without_a_json_type():
    table = pl.DataFrame({**{name: [text] for name, text in STANDARD.items()}, "x": [float("nan")], "y": [b"\xff"]})
    table = table.with_columns(z=pl.date(2020, 1, 2), w=pl.lit("1.10").cast(pl.Decimal(5, 2)))
    assert json.loads(read_pairs(table).pairs["extra"].item()) == {
        "x": None,
        "y": "/w==",
        "z": "2020-01-02",
        "w": "1.10",
    }


def test_more_than_text_is_kept_as_given_and_counted(write):
    parts = [{"role": "user", "content": [{"type": "text", "text": "Sky?"}, {"type": "image", "url": "x"}]}]
    loaded = read_pairs(write(EXAMPLES["conversational"], {"prompt": SKY, "chosen": BLUE, "rejected": parts + RED}))
    assert loaded.pairs["extra"].to_list()[0] == "{}"
    assert json.loads(loaded.pairs["extra"].to_list()[1]) == {"rejected": parts + RED}
    assert loaded.notes[0].startswith("1 rows hold more than plain text")


def test_held_out_prompts_are_a_tenth_and_whole_groups(write):
    rows = [STANDARD | {"prompt": f"question {row % 20}"} for row in range(60)]
    loaded = read_pairs(write(*rows))
    held = loaded.pairs.group_by("group").agg(pl.col("is_heldout").n_unique(), held=pl.col("is_heldout").first())
    assert held["is_heldout"].to_list() == [1] * 20
    assert held["held"].sum() == round(0.1 * 20)
    assert loaded.pairs.equals(read_pairs("a.jsonl").pairs)
    assert not loaded.pairs.equals(read_pairs("a.jsonl", LoadOptions(seed=1)).pairs)
    assert not read_pairs("a.jsonl", LoadOptions(heldout_share=0)).pairs["is_heldout"].any()


def test_of_few_prompts_none_is_held_out_and_the_notes_say_so(write):
    loaded = read_pairs(write(*[STANDARD | {"prompt": str(row)} for row in range(9)]))
    assert not loaded.pairs["is_heldout"].any()
    assert loaded.notes == ["too few prompts to hold any out, so retrain asks for --test"]


def test_many_rows_are_read_in_chunks_as_in_one(write, monkeypatch):
    rows = [STANDARD | {"prompt": f"question {row}"} for row in range(250)]
    whole = read_pairs(write(*rows)).pairs
    monkeypatch.setattr("curate.formats.CHUNK_ROWS", 100)
    assert read_pairs("a.jsonl").pairs.equals(whole)


def test_tables_in_memory_and_files_of_every_kind_give_the_same_pairs(write, tmp_path):
    rows = [EXAMPLES["conversational"] | {"id": row} for row in range(3)]
    pairs = read_pairs(write(*rows, name="data.jsonl")).pairs
    table = pl.DataFrame(rows)
    table.write_parquet(tmp_path / "data.parquet")
    (tmp_path / "data.json").write_text(json.dumps(rows, indent=2))
    same = ("data.parquet", "data.json", table, table.to_pandas(), datasets.Dataset.from_list(rows))
    assert all(read_pairs(data).pairs.equals(pairs) for data in same)


def test_a_full_export_of_before_0_4_is_read_as_trl_data(write):
    ours = {"label_prob": 0.9, "weight": 1.0, "action": "keep", "strength_mean": 1.2, "vote_share": 0.8, "margin": 0.3}
    loaded = read_pairs(write(EXAMPLES["conversational"] | ours | {"pair_id": "toy:train:3"}))
    assert loaded.format == "conversational"
    assert json.loads(loaded.pairs["extra"].item()) == ours | {"pair_id": "toy:train:3"}
    assert loaded.pairs["label_strength"].to_list() == [None]


# Round trips: what the pair table gives back is what was in the file, whatever the texts are.

TEXT = st.text(max_size=30) | st.sampled_from(
    ["", " ", "\n\n", "a b", "\0", "\u2028", "“é”😀", "\n\nHuman: x\n\nAssistant: y"]
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXT}), max_size=3
)


def texts(column):
    return ["".join(turn["content"] for turn in messages) for messages in column]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("round_trip")


def read_lines(folder, rows, **options):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return read_pairs(path, LoadOptions(**options)).pairs


@given(rows=st.lists(st.fixed_dictionaries({"prompt": TEXT, "chosen": TEXT, "rejected": TEXT}), min_size=1, max_size=5))
def test_standard_texts_come_back(folder, rows):
    pairs = read_lines(folder, rows)
    assert {name: texts(pairs[name]) for name in rows[0]} == {name: [row[name] for row in rows] for name in rows[0]}


@given(rows=st.lists(st.fixed_dictionaries({"chosen": TEXT, "rejected": TEXT}), min_size=1, max_size=5))
@pytest.mark.parametrize("form", ["standard-implicit", "auto"])
def test_implicit_texts_come_back_in_two_parts(folder, form, rows):
    pairs = read_lines(folder, rows, format=form)
    if form == "standard-implicit" or "standard" in recognise(rows):
        for side in ("chosen", "rejected"):
            joined = [prompt + rest for prompt, rest in zip(texts(pairs["prompt"]), texts(pairs[side]), strict=True)]
            assert joined == [row[side] for row in rows]


@given(
    rows=st.lists(
        st.fixed_dictionaries({"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES}), min_size=1, max_size=5
    )
)
def test_conversations_come_back(folder, rows):
    pairs = read_lines(folder, rows)
    for row, pair in zip(rows, pairs.iter_rows(named=True), strict=True):
        assert pair["prompt"] == row["prompt"]
        for side in ("chosen", "rejected"):
            assert row[side] in (pair[side], row["prompt"] + pair[side])


@given(rows=st.lists(st.fixed_dictionaries({"chosen": MESSAGES, "rejected": MESSAGES}), min_size=1, max_size=5))
def test_implicit_conversations_come_back(folder, rows):
    pairs = read_lines(folder, rows)
    for row, pair in zip(rows, pairs.iter_rows(named=True), strict=True):
        assert {side: pair["prompt"] + pair[side] for side in row} == row


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "id": TEXT | st.integers(),
                "prompt": TEXT | MESSAGES,
                "response_a": TEXT,
                "response_b": TEXT,
                "label": st.floats(0, 1),
                "votes": st.lists(st.sampled_from([0, 0.5, 1])),
                "meta": st.dictionaries(
                    TEXT, TEXT | st.integers() | st.none() | st.floats(allow_nan=False, allow_infinity=False)
                ),
            }
        ),
        min_size=1,
        max_size=5,
    )
)
def test_neutral_rows_come_back(folder, rows):
    pairs = read_lines(folder, rows)
    for row, pair in zip(rows, pairs.iter_rows(named=True), strict=True):
        order = ("chosen", "rejected") if row["label"] >= 0.5 else ("rejected", "chosen")
        assert [pair[side][0]["content"] for side in order] == [row["response_a"], row["response_b"]]
        assert row["prompt"] in (pair["prompt"], "".join(turn["content"] for turn in pair["prompt"]))
        assert (pair["label_strength"] or 1.0) == max(row["label"], 1 - row["label"])
        assert (pair["votes"] or []) == [vote if row["label"] >= 0.5 else 1 - vote for vote in row["votes"]]
        assert json.loads(pair["extra"]) == {
            "id": row["id"], "meta": row["meta"], "position_chosen": "a" if row["label"] >= 0.5 else "b"
        }  # fmt: skip


ANSWERS = st.lists(st.tuples(TEXT, st.integers(1, 4)), max_size=5)


@given(rows=st.lists(ANSWERS, min_size=1, max_size=4))
def test_ranked_answers_come_back_with_their_ranks(folder, rows):
    given_rows = [
        {"prompt": f"q{number}", "answers": [{"answer": text, "rank": rank} for text, rank in answers]}
        for number, answers in enumerate(rows)
    ]
    expected = [
        sorted([(text, rank), (other, other_rank)])
        for answers in rows
        for (text, rank), (other, other_rank) in combinations(answers, 2)
    ]
    if not expected:
        return
    pairs = read_lines(folder, given_rows)
    extra = [json.loads(each) for each in pairs["extra"]]
    sides = [
        [(chosen, each["rank_chosen"]), (rejected, each["rank_rejected"])]
        for chosen, rejected, each in zip(texts(pairs["chosen"]), texts(pairs["rejected"]), extra, strict=True)
    ]
    assert sorted(map(sorted, sides)) == sorted(expected)
    assert all(chosen[1] <= rejected[1] for chosen, rejected in sides)
    ties = [chosen[1] == rejected[1] for chosen, rejected in sides]
    assert [strength == 0.5 for strength in pairs["label_strength"]] == ties


@given(
    rows=st.lists(
        st.fixed_dictionaries({"prompt": st.sampled_from(["x", "y"]), "response": TEXT, "score": st.floats(-9, 9)}),
        min_size=1,
        max_size=8,
    )
)
def test_rated_responses_come_back_with_their_scores(folder, rows):
    expected = [
        sorted([(one["response"], one["score"]), (two["response"], two["score"])])
        for one, two in combinations(rows, 2)
        if one["prompt"] == two["prompt"]
    ]
    if not expected:
        return
    pairs = read_lines(folder, rows)
    extra = [json.loads(each) for each in pairs["extra"]]
    sides = [
        sorted([(chosen, each["score_chosen"]), (rejected, each["score_rejected"])])
        for chosen, rejected, each in zip(texts(pairs["chosen"]), texts(pairs["rejected"]), extra, strict=True)
    ]
    assert sorted(sides) == sorted(expected)


@given(rows=st.lists(st.tuples(MESSAGES, TEXT, TEXT | MESSAGES), min_size=1, max_size=4))
def test_openai_rows_come_back(folder, rows):
    given_rows = [
        {"messages": [*prompt, {"role": "assistant", "content": chosen}], "rejected_response": rejected}
        for prompt, chosen, rejected in rows
    ]
    pairs = read_lines(folder, given_rows)
    for row, pair in zip(given_rows, pairs.iter_rows(named=True), strict=True):
        assert pair["prompt"] + pair["chosen"] == row["messages"]
        assert row["rejected_response"] in (pair["rejected"], pair["rejected"] and pair["rejected"][0]["content"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("name", FORMATS)
@given(values=st.lists(JSON, min_size=4, max_size=4))
def test_any_value_is_read_or_refused_in_one_line(folder, name, values):
    """Whatever stands in the needed columns: pairs, or a CurateError, never another error."""
    rows = [dict(zip(FORMATS[name].needs, values, strict=False)) | {"prompt": values[-1]}] * 2
    try:
        pairs = read_lines(folder, [*NATIVE[name], *rows], format=name)
    except CurateError as error:
        assert "\n" not in str(error)
    else:
        assert len(pairs) >= 1


def test_huge_texts_are_read_whole(write):
    huge = "é" * 3_000_000
    rows = [row | {"response": row["response"] + huge} for row in NATIVE["pointwise"]]
    assert read_pairs(write(*rows)).pairs["chosen"][0][0]["content"] == "Blue." + huge
    arena = EXAMPLES["arena"] | {"response_a": json.dumps([huge])}
    assert read_pairs(write(arena)).pairs["chosen"][0][0]["content"] == huge


def test_system_turns_and_tool_calls_survive(write):
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]}
    answer = {"role": "tool", "content": "blue", "tool_call_id": "1"}
    prompt = [{"role": "system", "content": "Be brief."}, *SKY]
    rows = [{"prompt": prompt, "chosen": [call, answer, *BLUE], "rejected": RED, "tools": [{"name": "look"}]}]
    pair = read_pairs(write(*rows)).pairs.row(0, named=True)
    assert pair["prompt"] == prompt
    assert [turn["role"] for turn in pair["chosen"]] == ["assistant", "tool", "assistant"]
    assert json.loads(pair["extra"]) == {"chosen": rows[0]["chosen"], "tools": rows[0]["tools"]}


# Real data


def test_published_transcripts_come_back_byte_for_byte(data_folder):
    loaded = read_pairs(data_folder / "native" / "hh-harmless-base-test.jsonl.gz")
    given_rows = pl.read_ndjson(data_folder / "native" / "hh-harmless-base-test.jsonl.gz")
    assert (loaded.format, loaded.form, loaded.n_rows) == ("hh", "conversational", 2312)
    assert set(loaded.pairs["extra"]) == {"{}"}
    for pair, row in zip(loaded.pairs.iter_rows(named=True), given_rows.iter_rows(named=True), strict=True):
        assert {side: render_transcript(pair["prompt"] + pair[side]) for side in row} == row


def test_native_and_neutral_rows_are_the_same_pairs(data_folder):
    """Up to the white space around turns, which the neutral file leaves out in 8 of the 2,312 rows."""
    native = read_pairs(data_folder / "native" / "hh-harmless-base-test.jsonl.gz").pairs
    neutral = read_pairs(data_folder / "hh_rlhf_test.jsonl.gz").pairs
    neutral = neutral.filter(pl.col("extra").str.json_path_match("$.meta.category") == "harmless-base")
    sides = ["prompt", "chosen", "rejected"]
    assert sum(a != b for a, b in zip(native.select(sides).rows(), neutral.select(sides).rows(), strict=True)) == 8
    stripped = [
        [
            [(turn["role"], turn["content"].replace("Assistant:  ", "Assistant: ").strip()) for turn in side]
            for side in row
        ]
        for table in (native, neutral)
        for row in table.select(sides).iter_rows()
    ]
    assert stripped[:2312] == stripped[2312:]
    assert native["group"].equals(neutral["group"])


@pytest.mark.parametrize(
    ("name", "n_pairs", "form", "n_ties", "n_graded"),
    [
        ("hh_rlhf_test", 8552, "conversational", 0, 0),
        ("ukp_convarg", 16927, "standard", 3595, 4132),
        ("fine_grained_rlhf_dev", 3000, "standard", 384, 384),
        ("oasst1_zh_rank", 1809, "conversational", 0, 0),
        ("alpaca_bon_gpt4turbo", 8826, "standard", 18, 7295),
        ("gsm8k_solutions", 2429, "standard", 0, 0),
    ],
)
def test_real_files_keep_their_ties_and_graded_labels(data_folder, name, n_pairs, form, n_ties, n_graded):
    loaded = read_pairs(data_folder / f"{name}.jsonl.gz")
    strength = loaded.pairs["label_strength"]
    assert (loaded.format, loaded.form, len(loaded.pairs)) == ("neutral", form, n_pairs)
    assert (strength.eq(0.5).sum(), strength.is_not_null().sum()) == (n_ties, n_graded)
    n_groups = loaded.pairs["group"].n_unique()
    assert loaded.pairs.filter("is_heldout")["group"].n_unique() == round(0.1 * n_groups)

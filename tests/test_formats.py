import json

import datasets
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import CurateError
from curate.formats import FORMATS, LoadOptions, column_mapping, read_pairs, recognise
from curate.messages import render_transcript
from curate.pairs import PAIR_SCHEMA

SKY = [{"role": "user", "content": "Sky?"}]
BLUE = [{"role": "assistant", "content": "Blue."}]
RED = [{"role": "assistant", "content": "Red."}]
EXAMPLES = {
    "neutral": {"prompt": "Sky?", "response_a": "Blue.", "response_b": "Red.", "label": 1},
    "hh": {"chosen": "\n\nHuman: Sky?\n\nAssistant: Blue.", "rejected": "\n\nHuman: Sky?\n\nAssistant: Red."},
    "hh-prompt": {"prompt": "\n\nHuman: Sky?\n\nAssistant:", "chosen": " Blue.", "rejected": " Red."},
    "conversational": {"prompt": SKY, "chosen": BLUE, "rejected": RED},
    "mixed": {"prompt": "Sky?", "chosen": SKY + BLUE, "rejected": SKY + RED},
    "conversational-implicit": {"chosen": SKY + BLUE, "rejected": SKY + RED},
    "standard-implicit": {"chosen": "Sky? Blue.", "rejected": "Sky? Red."},
    "standard": {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Red."},
}
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
    loaded = read_pairs(write(EXAMPLES[name], EXAMPLES[name] | {"id": 7}))
    assert (loaded.format, loaded.n_rows, len(loaded.pairs)) == (name, 2, 2)
    assert loaded.form == ("standard" if "standard" in name or name == "neutral" else "conversational")
    assert loaded.pairs.schema == PAIR_SCHEMA
    assert {tuple(part.strip() for part in contents(pair)) for pair in loaded.pairs.iter_rows(named=True)} == {
        ("Sky?", "Blue.", "Red.")
    }
    assert loaded.pairs["extra"].to_list() == ["{}", '{"id":7}']
    assert loaded.pairs["group"].n_unique() == 1


def test_nulls_do_not_decide_the_format():
    blank = dict.fromkeys(("prompt", "chosen", "rejected"))
    assert recognise([blank, EXAMPLES["conversational"]]) == "conversational"
    assert recognise([EXAMPLES["conversational-implicit"] | {"prompt": None}]) == "conversational-implicit"
    assert recognise([blank]) == "standard-implicit"


def test_transcripts_are_recognised_only_where_every_first_row_is_one():
    assert recognise([EXAMPLES["hh"], EXAMPLES["standard-implicit"]]) == "standard-implicit"
    assert recognise([EXAMPLES["hh"] | {"prompt": "Sky?"}]) == "standard"


def test_the_format_can_be_given(write):
    loaded = read_pairs(write(EXAMPLES["hh"]), LoadOptions(format="standard-implicit"))
    assert contents(loaded.pairs.row(0, named=True)) == ("\n\nHuman: Sky?\n\nAssistant:", " Blue.", " Red.")
    assert error_of("a.jsonl", format="trl").startswith("unknown format 'trl': choose one of auto, neutral, hh, ")


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


def test_chosen_and_rejected_can_be_exchanged(write):
    loaded = read_pairs(write(STANDARD), LoadOptions(columns="chosen=rejected,rejected=chosen"))
    assert contents(loaded.pairs.row(0, named=True)) == ("Sky?", "Red.", "Blue.")
    assert loaded.pairs["extra"].item() == "{}"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("chosen", "--columns: 'chosen' is not ours=yours; type for example --columns chosen=preferred"),
        ("chosen=", "--columns: 'chosen=' is not ours=yours"),
        ("chosen=a,chosen=b", "--columns: 'chosen' is there twice; name each once"),
        ("chosen=a,rejected=a", "--columns: 'a' is there twice; name each once"),
        ("choosen=a", "unknown column in --columns 'choosen': choose one of prompt, chosen, rejected, response_a,"),
    ],
)
def test_a_mapping_that_says_nothing_is_refused(columns, message):
    with pytest.raises(CurateError) as error:
        column_mapping(columns)
    assert str(error.value).startswith(message)


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
    assert (pair["label_strength"], pair["votes"], pair["extra"]) == (0.75, [1.0, 0.5], '{"meta":{"k":1}}')
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


def test_a_full_export_of_ours_is_read_as_trl_data(write):
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
        assert json.loads(pair["extra"]) == {"id": row["id"], "meta": row["meta"]}


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

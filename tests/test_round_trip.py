"""Native rows of every format, read, exported and read again: nothing that a format carries is lost on the way."""

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import CurateError
from curate.export import ExportOptions, Split, exported_columns, split_pairs
from curate.flips import flipped_extra
from curate.formats import Loaded, LoadOptions, read_pairs
from curate.given_votes import score_lists
from curate.recognise import FORMATS
from curate.writers import SCORE_LISTS
from tests.decided import decided
from tests.test_formats import NATIVE

KINDS = ("memory", "jsonl", "parquet")
SIDES = ["prompt", "chosen", "rejected"]
SAME = [*SIDES, "group", "is_heldout", "label_strength", "votes", "annotators"]


def say(role, content, **more):
    return {"role": role, "content": content, **more}


SYSTEM, SKY, BLUE, RED = (
    say("system", "Be brief."),
    say("user", "Sky?"),
    say("assistant", "Blue."),
    say("assistant", "Red."),
)
TYPED = say("user", [{"type": "text", "text": "Sk"}, {"type": "text", "text": "y?"}])
IMAGE = say("user", [{"type": "text", "text": "Sky?"}, {"type": "image", "url": "x"}])
CALL = say(
    "assistant", None, tool_calls=[{"type": "function", "function": {"name": "look", "arguments": {"at": "sky"}}}]
)
TOOL = say("tool", "It is blue.", tool_call_id="1")
# Rows in each native schema with what else it can say: ties, both bad, votes, annotators, tool calls, typed parts, system
# turns, ratings, other columns.
RICH = {
    "full": [
        NATIVE["full"][0] | {"label_strength": 0.5, "votes": [1.0, 0.0], "annotators": ["ann", "bob"], "margin": 0.5},
        NATIVE["full"][0] | {"prompt": "", "extra": json.dumps({"id": 2**70, "exported": {"pair_id": "x"}})},
    ],
    "arena": [
        NATIVE["arena"][0]
        | {"winner_model_a": 0, "winner_tie": 1, "model_a": "m1", "prompt": '["Sky?", null]'}
        | {"response_a": '["Blue.", "\\ud83d"]', "response_b": '["Red.", null]'}
    ],
    "arena-conversations": [
        {"conversation_a": [TYPED, BLUE], "conversation_b": [SKY, RED], "winner": "both_bad", "model_a": "m1"},
        {"conversation_a": [IMAGE, BLUE], "conversation_b": [IMAGE, CALL, TOOL, RED], "winner": "model_b"},
        {"conversation_a": [SKY, BLUE, SKY, RED], "conversation_b": [SKY, BLUE, SKY, BLUE], "winner": "tie"},
    ],
    "icai": [
        NATIVE["icai"][0]
        | {
            "response_a": {"text": "Red.", "model": "m1"},
            "annotations": {"x": {"pref": "b"}, "y": {"pref": "a"}, "z": {"pref": None, "no_pref_reason": "neither"}},
            "default_annotator": "x",
            "annotators": {"x": {"name": "Human"}, "y": {"description": "Prefer red."}},
        },
        NATIVE["icai"][0] | {"annotations": {"x": {"pref": "tie"}}, "prompt": None},
    ],
    "neutral": [
        NATIVE["neutral"][0]
        | {"label": 0.25, "votes": [0, 0, 1, 0], "meta": {"annotator_ids": ["a", "b", "c", "d"], "category": "x"}},
        {"prompt": [SYSTEM, IMAGE], "response_a": [CALL, TOOL, BLUE], "response_b": "Red.", "label": 0.5},
    ],
    "helpsteer3": [
        NATIVE["helpsteer3"][0] | {"overall_preference": 0},
        NATIVE["helpsteer3"][0]
        | {"overall_preference": -1, "individual_preference": [{"score": -2, "reasoning": "x"}, {"score": 0}]}
        | {"context": [SYSTEM, SKY], "domain": "code"},
    ],
    "openai": [
        {"messages": [SYSTEM, TYPED, BLUE], "rejected_response": "Red."},
        {"messages": [SKY, CALL], "rejected_response": [RED], "tools": [{"name": "look"}]},
    ],
    "strength": [NATIVE["strength"][0] | {"std preference difference": 0.0, "GPT4 label": 1}],
    "hh": [
        {
            "chosen": "\n\nHuman: Sky?\n\nAssistant: Blue.\n\nHuman: Sure?",
            "rejected": "\n\nHuman: Sky?\n\nAssistant: Red.",
        },
        {"chosen": "\n\nHuman: Sky?\n\nAssistant: Blue.", "rejected": "\n\nHuman: Sea?\n\nAssistant: Blue."},
        {"chosen": "Human: Sky?\n\nAssistant: Blue.", "rejected": "\n\nHuman: Sky?\n\nAssistant:"},
    ],
    "hh-prompt": [NATIVE["hh-prompt"][0] | {"chosen_rating": 4.0, "rejected_rating": 4.0}],
    "conversational": [
        {"prompt": [SYSTEM, SKY], "chosen": [CALL, TOOL, BLUE], "rejected": [RED], "tools": [{"name": "look"}]},
        {"prompt": [TYPED], "chosen": [SYSTEM, BLUE], "rejected": "Red.", "id": "x"},
        {"prompt": [], "chosen": [], "rejected": [RED]},
    ],
    "mixed": [
        {"prompt": "Sky?", "chosen": [SKY, BLUE], "rejected": [SKY, RED], "score_chosen": 7.5, "score_rejected": 7.5},
        {"prompt": "Other", "chosen": [SYSTEM, SKY, CALL], "rejected": [SYSTEM, SKY, RED], "messages": [SKY, BLUE]},
    ],
    "conversational-implicit": [{"chosen": [SYSTEM, IMAGE, BLUE], "rejected": [SYSTEM, IMAGE, CALL], "source": "x"}],
    "standard-implicit": [NATIVE["standard-implicit"][0], {"chosen": "a", "rejected": "b", "chosen_score": 1.5}],
    "standard": [
        {"prompt": " ", "chosen": "", "rejected": "\n\n", "group": None, "exported": 1, "é": [{"b": [], "a": {}}]}
    ],
    "nectar": [
        {
            "prompt": "\n\nHuman: Sky?\n\nAssistant: ",
            "answers": [{"answer": str(rank), "rank": rank, "model": "m"} for rank in (2.0, 1.0, 2.0)],
            "turns": 1,
        }
    ],
    "nemo-rl": [
        {
            "context": [SYSTEM, IMAGE],
            "completions": [{"rank": 0, "completion": [CALL]}, {"rank": 1, "completion": [RED]}],
            "task_name": "x",
        }
    ],
    "helpsteer2": [
        NATIVE["helpsteer2"][0] | {"response": str(n), "helpfulness": n % 2, "verbosity": n} for n in range(3)
    ],
    "pointwise": [{"prompt": "Sky?", "response": str(n), "score": n / 4, "model": "m"} for n in range(3)],
    "kto": [{"prompt": [TYPED], "completion": [side], "label": side is BLUE} for side in (BLUE, RED, CALL)],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("round_trip")


def lines(folder, rows):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read_again(folder, table: pl.DataFrame, kind: str, **options) -> Loaded:
    data = folder / f"again.{kind}"
    if kind == "jsonl":
        table.write_ndjson(data)
    elif kind == "parquet":
        table.write_parquet(data)
    return read_pairs(table if kind == "memory" else data, LoadOptions(**options))


def exported(loaded: Loaded, name: str) -> tuple[pl.DataFrame, Split]:
    options = ExportOptions(format=name)
    split = split_pairs(loaded.pairs, decided(loaded.pairs), options, loaded.form)
    return exported_columns(split.curated, loaded.form, options), split


def assert_same(again: Loaded, loaded: Loaded):
    """All that was read is there again; what the export adds is under `exported`."""
    assert again.pairs.select(SAME).equals(loaded.pairs.select(SAME))
    for now, before, pair_id in zip(again.pairs["extra"], loaded.pairs["extra"], loaded.pairs["pair_id"], strict=True):
        found, given = json.loads(now), json.loads(before)
        assert found["exported"]["pair_id"] == pair_id
        assert found["exported"].get("exported") == given.get("exported")
        assert {**found, "exported": 0} == {**given, "exported": 0}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [NATIVE, RICH], ids=["native", "rich"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_full_export_gives_back_all_that_was_read(folder, name, rows, kind):
    loaded = read_pairs(lines(folder, rows[name]), LoadOptions(format=name))
    again = read_again(folder, exported(loaded, "full")[0], kind)
    assert (again.format, again.form) == ("full", loaded.form)
    assert_same(again, loaded)


@pytest.mark.parametrize("name", FORMATS)
def test_flipped_pairs_come_back_as_they_were_exported(folder, name):
    """The other response is chosen, votes and extra are turned, and the label is the binary one of the flip."""
    loaded = read_pairs(lines(folder, NATIVE[name] + RICH[name]), LoadOptions(format=name))
    is_tie = loaded.pairs["label_strength"].fill_null(1.0) == 0.5
    actions = ["keep" if tie else "flip" for tie in is_tie]
    options = ExportOptions(format="full")
    curated = split_pairs(loaded.pairs, decided(loaded.pairs, actions), options, loaded.form).curated
    again = read_again(folder, exported_columns(curated, loaded.form, options), "parquet").pairs
    flipped = zip(
        again.filter(~is_tie).iter_rows(named=True), loaded.pairs.filter(~is_tie).iter_rows(named=True), strict=True
    )
    for now, before in flipped:
        assert (now["prompt"], now["chosen"]) == (before["prompt"], before["rejected"])
        assert (now["rejected"], now["label_strength"]) == (before["chosen"], None)
        assert now["votes"] == (before["votes"] and [1 - vote for vote in before["votes"]])
        found = json.loads(now["extra"])
        assert found["exported"].get("label_strength") == (before["label_strength"] and 1 - before["label_strength"])
        assert {**found, "exported": 0} == {**json.loads(flipped_extra(before["extra"])), "exported": 0}
    assert again.filter(is_tie).select(SAME).equals(loaded.pairs.filter(is_tie).select(SAME))


def test_what_an_export_said_turns_with_a_flip_of_the_pair_that_is_read_back(folder):
    """Kept at first with a strength of .75 and a margin of .5, then flipped: both speak against what is now chosen."""
    loaded = read_pairs(lines(folder, NATIVE["standard"][:1]), LoadOptions())
    again = read_again(folder, exported(loaded, "full")[0], "parquet")
    options = ExportOptions(format="full")
    curated = split_pairs(again.pairs, decided(again.pairs, ["flip"]), options, again.form).curated
    said = json.loads(exported_columns(curated, again.form, options)["extra"][0])["exported"]
    assert (said["strength_mean"], said["margin"], said["vote_share"], said["label_prob"]) == (-0.75, -0.5, 0.0, 0.0)


def test_every_format_has_rich_rows():
    assert list(RICH) == list(FORMATS)


def test_rich_rows_hold_what_they_are_for(folder):
    """Ties, votes, annotators, more than text and system turns are among what goes round."""
    pairs = pl.concat(read_pairs(lines(folder, rows), LoadOptions(format=name)).pairs for name, rows in RICH.items())
    assert (pairs["label_strength"] == 0.5).sum() > 8
    assert pairs["votes"].list.len().max() == 4
    assert pairs["annotators"].null_count() < len(pairs)
    assert pairs["extra"].str.contains('"tool_calls":[{', literal=True).sum() > 4
    assert pairs["extra"].str.contains('"both_bad"', literal=True).any()
    assert pairs["prompt"].list.first().struct.field("role").eq("system").sum() > 4


# Any rows of every format

TEXT = st.text(max_size=20) | st.sampled_from(
    ["", " ", "\n\n", "\0", "\u2028", "“é”😀", "\n\nHuman: x\n\nAssistant: y"]
)
SAID = st.text(min_size=1, max_size=10)
TURN = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": TEXT})
TURNS = st.lists(TURN, max_size=3)
ASKED = st.tuples(st.lists(st.just(SYSTEM), max_size=1), TEXT).map(lambda both: [*both[0], say("user", both[1])])
REPLY = TEXT.map(lambda said: [say("assistant", said)])
PARTS = TEXT.map(lambda said: [say("assistant", [{"type": "text", "text": said}, {"type": "image", "url": said}])])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(SAID, inner, max_size=2),
    max_leaves=6,
)
RATING = st.integers(0, 4)
SHARE = st.sampled_from([0, 0.25, 0.5, 0.75, 1])


def row(**columns):
    return st.fixed_dictionaries(columns, optional={"note": JSON, "meta": st.just({"category": "x"})})


def arena_row(n):
    turns = st.lists(TEXT | st.none(), min_size=n, max_size=n).map(json.dumps)
    winner = st.sampled_from([(1, 0, 0), (0, 1, 0), (0, 0, 1)])
    names = ("winner_model_a", "winner_model_b", "winner_tie")
    texts = row(prompt=turns, response_a=turns, response_b=turns)
    return st.tuples(texts, winner).map(lambda both: both[0] | dict(zip(names, both[1], strict=True)))


def marked(turns):
    return "".join(f"\n\n{who}: {said}" for who, said in turns)


TRANSCRIPT = st.tuples(SAID, SAID).map(lambda said: marked(zip(("Human", "Assistant"), said, strict=True)))
SCORES = st.tuples(*[st.floats(-9, 9, width=32)] * 2).map(list)
ROWS = {
    "full": st.tuples(row(prompt=TEXT | TURNS, chosen=TEXT, rejected=TEXT), SHARE, JSON).map(
        lambda all: NATIVE["full"][0] | all[0] | {"label_strength": all[1], "extra": json.dumps({"x": all[2]})}
    ),
    "arena": st.integers(1, 3).flatmap(arena_row),
    "arena-conversations": row(
        conversation_a=TURNS, conversation_b=TURNS, winner=st.sampled_from(["model_a", "model_b", "tie", "both_bad"])
    ),
    "icai": row(
        prompt=TEXT,
        response_a=st.fixed_dictionaries({"text": TEXT, "model": SAID}),
        response_b=st.fixed_dictionaries({"text": TEXT}),
        annotations=st.dictionaries(
            SAID, st.fixed_dictionaries({"pref": st.sampled_from(["a", "b", "tie"])}), min_size=1, max_size=4
        ),
    ),
    "neutral": row(
        prompt=TEXT | ASKED,
        response_a=TEXT | REPLY,
        response_b=TEXT | PARTS,
        label=SHARE,
        votes=st.lists(SHARE, max_size=3),
    ),
    "helpsteer3": row(context=ASKED, response1=TEXT, response2=TEXT, overall_preference=st.integers(-3, 3)),
    "openai": st.tuples(ASKED, REPLY | PARTS, row(rejected_response=TEXT | REPLY)).map(
        lambda all: all[2] | {"messages": all[0] + all[1]}
    ),
    "strength": st.tuples(row(), st.lists(SAID, max_size=2), SAID, SAID, SCORES, SCORES).map(
        lambda all: (
            all[0]
            | {"chosen": [*all[1], all[2]], "rejected": [*all[1], all[3]]}
            | dict(zip(SCORE_LISTS, all[4:], strict=True))
        )
    ),
    "hh": row(chosen=TRANSCRIPT, rejected=TRANSCRIPT),
    "hh-prompt": row(
        prompt=TRANSCRIPT.map(lambda text: f"{text}\n\nHuman: And?\n\nAssistant:"), chosen=TEXT, rejected=TEXT
    ),
    "conversational": row(prompt=TURNS, chosen=TURNS | PARTS, rejected=TURNS),
    "mixed": st.tuples(row(prompt=TEXT, score_chosen=RATING, score_rejected=RATING), ASKED, REPLY | PARTS, REPLY).map(
        lambda all: all[0] | {"chosen": all[1] + all[2], "rejected": all[1] + all[3]}
    ),
    "conversational-implicit": row(chosen=TURNS, rejected=TURNS),
    "standard-implicit": row(chosen=TEXT, rejected=TEXT),
    "standard": row(prompt=TEXT, chosen=TEXT, rejected=TEXT, chosen_rating=RATING, rejected_rating=RATING),
    "nectar": row(
        prompt=TEXT, answers=st.lists(st.fixed_dictionaries({"answer": TEXT, "rank": RATING}), min_size=2, max_size=3)
    ),
    "nemo-rl": row(
        context=ASKED,
        completions=st.lists(
            st.fixed_dictionaries({"rank": RATING, "completion": REPLY | PARTS}), min_size=2, max_size=3
        ),
    ),
    "helpsteer2": row(prompt=st.just("x"), response=TEXT, helpfulness=RATING),
    "pointwise": row(prompt=st.just("x"), response=TEXT, score=st.floats(-9, 9)),
    "kto": row(prompt=st.just([SKY]), completion=REPLY | PARTS, label=st.booleans()),
}


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=25)  # of 20 formats, each written in four formats and read again
@given(data=st.data())
def test_any_rows_come_back_from_every_format_that_carries_them(folder, name, data):
    rows = data.draw(st.lists(ROWS[name], min_size=2, max_size=4))
    loaded = read_pairs(lines(folder, rows), LoadOptions(format=name))
    kind = data.draw(st.sampled_from(KINDS))
    assert_same(read_again(folder, exported(loaded, "full")[0], kind), loaded)
    for writer in ("trl", "strength", "rewardbench"):
        assert_texts_come_back(folder, loaded, writer, kind)


def assert_texts_come_back(folder, loaded: Loaded, writer: str, kind: str):
    """The carried pairs have the same prompts and responses again, and under strength the same votes."""
    try:
        table, split = exported(loaded, writer)
    except CurateError as error:
        assert "use --format full" in str(error)
        return
    form = "strength" if writer == "strength" else "conversational"
    form = "standard" if table.schema.get("prompt") == pl.String else form
    again = read_again(folder, table, kind, format=form).pairs
    carried = loaded.pairs.join(split.removed, on="pair_id", how="anti", maintain_order="left")
    for now, before in zip(again.select(SIDES).rows(), carried.select(SIDES).rows(), strict=True):
        prompt, chosen, rejected = before
        is_ambiguous = prompt and chosen[: len(prompt)] == prompt == rejected[: len(prompt)]
        assert now == before or (form == "conversational" and is_ambiguous)
    if writer == "strength":
        assert score_lists(again).rows() == [([1.0, 2.0], [0.5, 1.0])] * len(carried)


# Hostile sizes


@pytest.mark.parametrize("name", FORMATS)
def test_huge_texts_and_deep_columns_go_round(folder, name):
    deep = []
    for _ in range(300):
        deep = [deep]
    huge = "é\u2028x " * 75_000
    rows = json.loads(json.dumps(NATIVE[name]).replace("Blue.", huge))
    loaded = read_pairs(lines(folder, [row | {"deep": deep} for row in rows]), LoadOptions(format=name))
    assert loaded.pairs["chosen"].list.first().struct.field("content").str.len_chars().max() > 299_000
    for kind in ("jsonl", "parquet"):
        assert_same(read_again(folder, exported(loaded, "full")[0], kind), loaded)


@pytest.mark.parametrize("name", FORMATS)
def test_half_of_a_surrogate_pair_is_refused(folder, name):
    text = "".join(json.dumps(row).replace("Blue.", "\\ud800") + "\n" for row in NATIVE[name])
    (folder / "half.jsonl").write_text(text)
    with pytest.raises(CurateError, match="half.jsonl: row . .* holds a lone surrogate"):
        read_pairs(folder / "half.jsonl", LoadOptions(format=name))

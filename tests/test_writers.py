import json

import polars as pl
import pytest

from curate.errors import CurateError
from curate.export import ExportOptions, exported_columns, split_pairs
from curate.formats import read_pairs
from curate.given_votes import score_lists
from curate.pairs import text_of
from curate.writers import COPIES, WRITERS, duplicated, read_scores
from tests.decided import decided


def say(role, content):
    return {"role": role, "content": content}


ONE_TURN = ("Sky?", "Blue.", "Red.")
TWO_TURNS = ([say("user", "Hi."), say("assistant", "Hello."), say("user", "Sky?")], "Blue.", " Red.")
SYSTEM = ([say("system", "Be brief."), say("user", "Sky?")], "Blue.", "Red.")
NO_PROMPT = ("", "Blue.", "Red.")
SEVERAL = ("Sky?", [say("assistant", "Blue."), say("user", "Sure?"), say("assistant", "Yes.")], "Red.")
TWO_IN_A_ROW = ([say("user", "Hi."), say("user", "Sky?")], "Blue.", "Red.")
MARKED = ("Sky?", "Blue.\n\nHuman: Sure?", "Red.")
PAIRS = (ONE_TURN, TWO_TURNS, SYSTEM, NO_PROMPT, SEVERAL, TWO_IN_A_ROW, MARKED)
NAMES = ("one turn", "two turns", "system", "no prompt", "several", "two in a row", "marked")


def exported(pairs, form="conversational", actions=None, **options):
    chosen = ExportOptions(**options)
    split = split_pairs(pairs, decided(pairs, actions), chosen, form)
    return exported_columns(split.curated, form, chosen), split


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("full", {}),
        ("trl", {"no prompt": "empty list of messages"}),
        (
            "strength",
            {
                "system": "turns of others than user and assistant",
                "several": "response that is not one message of the assistant",
                "two in a row": "turns that do not alternate",
                "marked": "Human: or Assistant: within a turn",
            },
        ),
        (
            "rewardbench",
            {
                "system": "turns of others than user and assistant",
                "several": "response that is not one message of the assistant",
            },
        ),
    ],
)
def test_what_a_format_cannot_carry_is_removed_with_its_reason(make_pairs, name, reasons):
    _, split = exported(make_pairs(*PAIRS), format=name)
    found = {NAMES[int(pair_id.split(":")[-1])]: why for pair_id, why in split.removed[["pair_id", "reason"]].rows()}
    assert found == {pair: f"{reason}: not carried by {name}" for pair, reason in reasons.items()}


def test_an_empty_prompt_is_text_like_any_other(make_pairs):
    table, split = exported(make_pairs(NO_PROMPT, ONE_TURN), form="standard")
    assert split.removed.is_empty()
    assert table["prompt"].to_list() == ["", "Sky?"]


def test_trl_fails_on_what_is_said_to_be_an_empty_list():
    """The reason for a row in LOSSES: should TRL read empty lists one day, the row can go."""
    trl = pytest.importorskip("trl.data_utils")
    with pytest.raises(IndexError):
        trl.is_conversational({"prompt": []})


CALL = [say("user", "Sky?"), {"role": "assistant", "content": None, "tool_calls": [{"name": "look"}]}]


def test_pairs_with_more_than_text_are_carried_by_full_alone(make_pairs):
    extra = [json.dumps({"conversation_a": CALL}), "{}", json.dumps({"meta": {"type": "x"}})]
    pairs = make_pairs(("Sky?", "", "Red."), ONE_TURN, ONE_TURN, extra=extra)
    for name in set(WRITERS) - {"full"}:
        _, split = exported(pairs, format=name)
        assert split.reasons == {f"tool calls or media: not carried by {name}": 1}
    table, split = exported(pairs, format="full")
    assert split.removed.is_empty()
    assert table["extra"][0] == extra[0]


# strength


def test_strength_has_marked_turns_and_scores_of_both_responses(make_pairs):
    table, _ = exported(make_pairs(ONE_TURN, TWO_TURNS), format="strength", actions=["keep", "flip"])
    rows = table.rows(named=True)
    assert table.columns == [
        "chosen", "rejected", "mean preference difference", "std preference difference", "chosen score list",
        "rejected score list",
    ]  # fmt: skip
    assert rows[0] == {
        "chosen": ["\n\nHuman: Sky?", "\n\nAssistant: Blue."],
        "rejected": ["\n\nHuman: Sky?", "\n\nAssistant: Red."],
        "mean preference difference": ((1 - 0.5) + (2 - 1)) / 2,
        "std preference difference": 0.25,
        "chosen score list": [1.0, 2.0],
        "rejected score list": [0.5, 1.0],
    }
    assert rows[1]["chosen"] == ["\n\nHuman: Hi.", "\n\nAssistant: Hello.", "\n\nHuman: Sky?", "\n\nAssistant:  Red."]
    assert (rows[1]["mean preference difference"], rows[1]["chosen score list"]) == (-0.75, [0.5, 1.0])


def test_strength_is_read_back_with_its_votes(make_pairs, tmp_path):
    pairs = make_pairs(ONE_TURN, TWO_TURNS)
    table, _ = exported(pairs, format="strength")
    table.write_ndjson(tmp_path / "a.jsonl")
    loaded = read_pairs(tmp_path / "a.jsonl")
    assert (loaded.format, loaded.n_score_lists) == ("strength", 2)
    sides = ["prompt", "chosen", "rejected"]
    assert loaded.pairs.select(sides).equals(pairs.select(sides))
    assert score_lists(loaded.pairs).rows() == [([1.0, 2.0], [0.5, 1.0])] * 2


def test_strength_has_a_gpt4_label_only_where_the_data_brought_one(make_pairs):
    pairs = make_pairs(ONE_TURN, ONE_TURN, ONE_TURN, extra=['{"GPT4 label":1}', '{"GPT4 label":-1}', "{}"])
    table, _ = exported(pairs, format="strength", actions=["flip", "flip", "keep"])
    assert table["GPT4 label"].to_list() == [0, -1, -1]


def test_one_member_has_no_spread(make_pairs):
    pairs = make_pairs(ONE_TURN)
    one = decided(pairs).with_columns(pl.col("^.* score list$").list.head(1))
    table = WRITERS["strength"].write(pl.concat([pairs, one.drop("pair_id")], how="horizontal"), "", False)
    assert table.select("mean preference difference", "std preference difference").rows() == [(0.5, None)]


def test_scores_are_the_members_rewards(tmp_path):
    ids = pl.Series("pair_id", ["a", "b"])
    (tmp_path / "votes").mkdir()
    for member in range(2):
        rewards = {"reward_chosen": [1.0 + member, 2.0], "reward_rejected": [0.0, -1.0]}
        pl.DataFrame({"pair_id": ids, **rewards}).write_parquet(tmp_path / "votes" / f"member-0{member}.parquet")
    assert read_scores(tmp_path, ids).rows() == [([1.0, 2.0], [0.0, 0.0]), ([2.0, 2.0], [-1.0, -1.0])]
    for folder, other in ((tmp_path, ids[::-1]), (tmp_path / "none", ids)):
        with pytest.raises(CurateError, match="no votes of its pairs; vote again: curate vote"):
            read_scores(folder, other)


# rewardbench


def test_rewardbench_prompts_are_text_where_all_are_one_turn(make_pairs):
    table, _ = exported(make_pairs(ONE_TURN, NO_PROMPT), format="rewardbench")
    assert table.rows() == [
        ("Sky?", "Blue.", "Red.", "toy", "toy:train:0"),
        ("", "Blue.", "Red.", "toy", "toy:train:1"),
    ]
    assert table.columns == ["prompt", "chosen", "rejected", "subset", "id"]
    table, _ = exported(make_pairs(ONE_TURN, TWO_TURNS), format="rewardbench")
    assert table["prompt"].to_list() == [[say("user", "Sky?")], TWO_TURNS[0]]
    assert table["chosen"].to_list() == ["Blue.", "Blue."]
    greeting = [say("assistant", "Hello.")]
    table, _ = exported(make_pairs((greeting, "Blue.", "Red.")), format="rewardbench")
    assert table["prompt"].to_list() == [greeting]


def test_a_subset_is_a_category_of_the_data(make_pairs):
    extra = ['{"meta":{"category":"chat"}}', '{"subset":"math","meta":{"category":"x"}}', "{}"]
    table, _ = exported(make_pairs(*[ONE_TURN] * 3, extra=extra), format="rewardbench")
    assert table["subset"].to_list() == ["chat", "math", "toy"]


# duplicate


@pytest.mark.parametrize(("prob", "n_turned"), [(1.0, 0), (0.9, 0), (0.8, 1), (0.7, 1), (0.5, 2), (0.2, 3), (0.0, 4)])
def test_a_smoothed_pair_is_repeated_with_exchanged_copies_by_its_doubt(make_pairs, prob, n_turned):
    pairs = make_pairs(ONE_TURN)
    columns = decided(pairs, ["smooth"]).with_columns(label_prob=pl.lit(prob), margin=pl.lit(0.5))
    table = duplicated(pl.concat([pairs, columns.drop("pair_id")], how="horizontal"))
    rows = table.select(text_of("chosen"), text_of("rejected"), "margin").rows()
    assert rows == [("Blue.", "Red.", 0.5)] * (COPIES - n_turned) + [("Red.", "Blue.", -0.5)] * n_turned


def test_duplicates_weigh_all_pairs_alike(make_pairs):
    table, _ = exported(make_pairs(ONE_TURN, TWO_TURNS), actions=["keep", "smooth"], smoothed="duplicate")
    assert table["prompt"].list.len().to_list() == [1] * COPIES + [3] * COPIES
    table, _ = exported(make_pairs(ONE_TURN, TWO_TURNS), smoothed="duplicate")
    assert len(table) == 2  # nothing is in doubt


def test_every_column_of_a_writer_is_explained_and_every_format_has_a_line():
    assert all(writer.help and all(writer.columns.values()) for writer in WRITERS.values())
    assert all(name in ExportOptions.__dataclass_fields__["format"].metadata["help"] for name in WRITERS)

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import ab_schemas
from curate.errors import CurateError

SKY = [{"role": "user", "content": "Sky?"}]
BLUE = [{"role": "assistant", "content": "Blue."}]
RED = [{"role": "assistant", "content": "Red."}]
SYSTEM = [{"role": "system", "content": "Be brief."}]
NEUTRAL = {"prompt": "Sky?", "response_a": "Blue.", "response_b": "Red.", "label": 1.0}
HELPSTEER3 = {
    "domain": "general",
    "language": "english",
    "context": SKY,
    "response1": "Blue.",
    "response2": "Red.",
    "overall_preference": -2,
    "individual_preference": [{"score": -3, "reasoning": "@Response 1 is right.", "feedback1": "", "feedback2": ""}],
}
ARENA = {
    "id": 30192,
    "model_a": "m1",
    "model_b": "m2",
    "prompt": json.dumps(["Sky?"]),
    "response_a": json.dumps(["Blue."]),
    "response_b": json.dumps(["Red."]),
    "winner_model_a": 1,
    "winner_model_b": 0,
    "winner_tie": 0,
}
PARTS = [{"type": "text", "text": "Blue.", "image": None, "mimeType": None}]
CONVERSATIONS = {
    "winner": "model_a",
    "conversation_a": SKY + BLUE,
    "conversation_b": SKY + RED,
    "language": "en",
}
ICAI = {
    "id": "2fbb184f",
    "prompt": "Sky?",
    "response_a": {"text": "Blue.", "model": "m1"},
    "response_b": {"text": "Red.", "model": "m2"},
    "annotations": {"d3": {"pref": "a"}, "2f": {"pref": "b"}, "43": {"pref": None, "no_pref_reason": "neither"}},
    "metadata": {"index": "0"},
    "default_annotator": "d3",
    "annotators": {"d3": {"name": "Human", "type": "human"}, "2f": {"description": "Prefer red."}},
}


def sides(pair):
    return pair.prompt, pair.chosen, pair.rejected


def error_of(read, row):
    with pytest.raises(CurateError) as error:
        read(row)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("label", "chosen", "rejected", "strength"),
    [
        (1, BLUE, RED, None),
        (0, RED, BLUE, None),
        (0.5, BLUE, RED, 0.5),
        (0.75, BLUE, RED, 0.75),
        (0.25, RED, BLUE, 0.75),
    ],
)
def test_the_preferred_neutral_response_is_chosen_and_a_tie_keeps_the_order(label, chosen, rejected, strength):
    pair = ab_schemas.neutral(NEUTRAL | {"label": label})
    assert sides(pair) == (SKY, chosen, rejected)
    assert pair.label_strength == strength
    assert pair.is_text


def test_votes_are_turned_with_the_label():
    row = NEUTRAL | {"label": 0.25, "votes": [0, 0.5, 0, 0.5], "meta": {"annotator_ids": ["w0", 1, "w2", "w3"]}}
    pair = ab_schemas.neutral(row)
    assert pair.votes == [1, 0.5, 1, 0.5]
    assert pair.annotators == ["w0", "1", "w2", "w3"]
    assert ab_schemas.neutral(row | {"label": 0.75}).votes == [0, 0.5, 0, 0.5]
    assert ab_schemas.neutral(NEUTRAL | {"votes": [], "meta": None}).votes is None


def test_neutral_prompts_may_be_messages():
    pair = ab_schemas.neutral(NEUTRAL | {"prompt": SYSTEM + SKY})
    assert sides(pair) == (SYSTEM + SKY, BLUE, RED)
    assert not pair.is_text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": float("nan")}, "label is NaN; expected a number from 0 (b preferred) to 1 (a preferred)"),
        ({"label": 1.01}, "label is 1.01; expected a number from 0"),
        ({"label": -1}, "label is -1; expected a number from 0"),
        ({"label": None}, "label is null; expected a number from 0"),
        ({"label": "a"}, "label is text ('a'); expected a number from 0"),
        ({"label": True}, "label is true; expected a number from 0"),
        ({"response_b": None}, "response_b is null; expected text or a list of messages"),
        ({"prompt": 3}, "prompt is 3; expected text or a list of messages"),
        ({"votes": [1, 2]}, "votes[1] is 2; expected a number from 0"),
        ({"votes": {"w0": 1}}, "votes is an object; expected a list"),
        ({"votes": [1, 0], "meta": {"annotator_ids": ["w0"]}}, "meta.annotator_ids has 1 names for 2 votes"),
    ],
)
def test_wrong_neutral_values_are_named(change, message):
    assert error_of(ab_schemas.neutral, NEUTRAL | change).startswith(message)


@pytest.mark.parametrize("column", NEUTRAL)
def test_a_missing_column_is_named_with_the_option_that_maps_it(column):
    row = {name: value for name, value in NEUTRAL.items() if name != column}
    found = ", ".join(row)
    expected = f"no column '{column}' (found {found}); if yours has another name: --columns {column}=NAME"
    assert error_of(ab_schemas.neutral, row) == expected


@pytest.mark.parametrize(
    ("preference", "chosen", "strength"),
    [(-3, BLUE, None), (-1, BLUE, 2 / 3), (0, BLUE, 0.5), (1, RED, 2 / 3), (2, RED, 5 / 6), (3, RED, None)],
)
def test_a_helpsteer3_preference_below_zero_is_for_response_1(preference, chosen, strength):
    pair = ab_schemas.helpsteer3(HELPSTEER3 | {"overall_preference": preference})
    assert (pair.prompt, pair.chosen) == (SKY, chosen)
    assert pair.label_strength == (strength if strength is None else pytest.approx(strength))
    assert pair.votes == [1 if chosen == BLUE else 0]  # the annotator prefers response 1 by 3
    assert pair.own == {"position_chosen": "a" if chosen == BLUE else "b"}
    assert pair.carried == {"context", "response1", "response2"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"overall_preference": None},
            "overall_preference is null; expected a number from -3 (response 1 much better)",
        ),
        ({"overall_preference": 4}, "overall_preference is 4; expected a number from -3"),
        ({"overall_preference": True}, "overall_preference is true; expected a number from -3"),
        ({"individual_preference": [{"reasoning": ""}]}, "individual_preference[0].score is null; expected a number"),
        (
            {"individual_preference": [{"score": "2"}]},
            "individual_preference[0].score is text ('2'); expected a number",
        ),
        ({"individual_preference": "good"}, "individual_preference is text ('good'); expected a list"),
        ({"context": None}, "context is null; expected text or a list of messages"),
        ({"response2": ["Red."]}, "response2[0] is text ('Red.'); expected a message with role and content"),
    ],
)
def test_wrong_helpsteer3_values_are_named(change, message):
    assert error_of(ab_schemas.helpsteer3, HELPSTEER3 | change).startswith(message)


def test_arena_turns_become_conversations_that_part_at_the_first_response():
    turns = {
        "prompt": '["Sky?", "Sure?"]', "response_a": '["Blue.", "Yes."]', "response_b": '["Blue.", "No."]'
    }  # fmt: skip
    pair = ab_schemas.arena(ARENA | turns | {"winner_model_a": 0, "winner_model_b": 1})
    assert [turn["content"] for turn in pair.prompt] == ["Sky?", "Blue.", "Sure?"]
    assert [side[0]["content"] for side in (pair.chosen, pair.rejected)] == ["No.", "Yes."]
    assert (dict(pair.own), pair.label_strength) == ({"position_chosen": "b"}, None)
    assert pair.carried == set(turns)


def test_an_arena_tie_is_a_tie_and_keeps_a_first():
    pair = ab_schemas.arena(ARENA | {"winner_model_a": 0.0, "winner_tie": 1.0})
    assert (sides(pair), pair.label_strength) == ((SKY, BLUE, RED), 0.5)


def test_null_turns_and_halves_of_emoji_in_arena_texts_are_read_and_kept_as_given():
    pair = ab_schemas.arena(ARENA | {"response_a": "[null]", "response_b": '["\\ud83d!"]'})
    assert (pair.chosen[0]["content"], pair.rejected[0]["content"]) == ("", "\ufffd!")
    assert pair.carried == {"prompt"}
    assert ab_schemas.arena(ARENA | {"response_a": '["\\ud83d\\ude00"]'}).chosen[0]["content"] == "\U0001f600"


def test_arena_texts_may_be_lists_or_plain_text():
    plain = {"prompt": "Sky?", "response_a": "[Blue", "response_b": "Red."}
    assert ab_schemas.arena(ARENA | plain).chosen[0]["content"] == "[Blue"
    lists = {"prompt": ["Sky?"], "response_a": ["Blue."], "response_b": ["Red."]}
    assert sides(ab_schemas.arena(ARENA | lists)) == (SKY, BLUE, RED)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"winner_model_a": 0}, "winner_model_a, winner_model_b, winner_tie are 0, 0, 0; expected one 1 and two 0"),
        ({"winner_tie": 1}, "winner_model_a, winner_model_b, winner_tie are 1, 0, 1; expected one 1"),
        ({"winner_tie": None}, "winner_model_a, winner_model_b, winner_tie are 1, 0, null; expected one 1"),
        ({"winner_tie": [0]}, "winner_model_a, winner_model_b, winner_tie are 1, 0, a list; expected one 1"),
        ({"response_a": "[]"}, "prompt has 1 turns and response_a 0; expected as many, at least one"),
        ({"response_b": '["Red.", "No."]'}, "prompt has 1 turns and response_b 2; expected as many"),
        ({"response_b": "[1]"}, "response_b[0] is 1; expected text, or null for an empty turn"),
        ({"prompt": None}, "prompt is null; expected a list"),
    ],
)
def test_wrong_arena_values_are_named(change, message):
    assert error_of(ab_schemas.arena, ARENA | change).startswith(message)


@pytest.mark.parametrize(
    ("winner", "chosen", "strength"),
    [
        ("model_a", BLUE, None),
        ("model_b", RED, None),
        ("tie", BLUE, 0.5),
        ("both_bad", BLUE, 0.5),
        ("tie (bothbad)", BLUE, 0.5),
    ],
)
def test_arena_conversations_and_their_outcomes(winner, chosen, strength):
    pair = ab_schemas.arena_conversations(CONVERSATIONS | {"winner": winner})
    assert (pair.prompt, pair.chosen, pair.label_strength) == (SKY, chosen, strength)
    assert pair.carried == {"conversation_a", "conversation_b"}  # winner stays in extra: both_bad is more than a tie


def test_typed_parts_of_an_arena_conversation_are_read_and_kept_as_given():
    typed = [*SKY, {"role": "assistant", "content": PARTS}]
    pair = ab_schemas.arena_conversations(CONVERSATIONS | {"conversation_a": typed})
    assert (sides(pair), pair.carried) == ((SKY, BLUE, RED), {"conversation_b"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"winner": None}, "winner is null; expected one of model_a, model_b, tie, both_bad"),
        ({"winner": ["tie"]}, "winner is a list; expected one of"),
        ({"winner": "model_c"}, "winner is text ('model_c'); expected one of"),
        ({"conversation_a": "Blue."}, "conversation_a is text ('Blue.'); expected a list"),
        (
            {"conversation_b": [{"role": "user", "content": [{"type": "text"}]}]},
            "conversation_b[0].content[0].text is null",
        ),
    ],
)
def test_wrong_arena_conversations_are_named(change, message):
    assert error_of(ab_schemas.arena_conversations, CONVERSATIONS | change).startswith(message)


def test_the_default_annotator_is_the_label_and_all_who_prefer_one_are_votes():
    pair = ab_schemas.annotated(ICAI)
    assert (sides(pair), pair.label_strength, pair.is_text) == ((SKY, BLUE, RED), None, True)
    assert (pair.votes, pair.annotators) == ([1.0, 0.0], ["Human", "Prefer red."])
    assert pair.own == {"position_chosen": "a", "model_a": "m1", "model_b": "m2"}
    other = ab_schemas.annotated(ICAI | {"default_annotator": "2f"})
    assert (other.chosen, other.votes) == (RED, [0.0, 1.0])
    assert ab_schemas.annotated(ICAI | {"default_annotator": "43"}).label_strength == 0.5


def test_without_a_default_annotator_the_label_is_the_mean_preference():
    three = {"x": {"pref": "b"}, "y": {"pref": "b"}, "z": "a"}
    pair = ab_schemas.annotated(
        {**ICAI, "annotations": three, "default_annotator": None, "annotators": None, "prompt": None}
    )
    assert (pair.prompt, pair.chosen, pair.label_strength) == ([], RED, pytest.approx(2 / 3))
    assert (pair.votes, pair.annotators) == ([1, 1, 0], ["x", "y", "z"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": {}}, "annotations hold no preference; expected at least one annotator with pref a, b or tie"),
        ({"annotations": None}, "annotations is null; expected an object of annotators"),
        ({"annotations": {"x": {"pref": "A"}}}, "annotations.x.pref is text ('A'); expected one of a, b, tie"),
        ({"annotations": {"x": {"pref": ["a"]}}}, "annotations.x.pref is a list; expected one of a, b, tie"),
        ({"response_a": {"model": "m"}}, "no column 'text' (found model)"),
        ({"response_b": {"text": None}}, "response_b.text is null; expected text"),
    ],
)
def test_wrong_annotations_are_named(change, message):
    assert error_of(ab_schemas.annotated, ICAI | change).startswith(message)


TURNS = st.lists(st.text(max_size=20) | st.none(), min_size=1, max_size=4)


@given(prompts=TURNS, responses=st.data())
def test_every_turn_of_an_arena_row_is_in_the_pair(prompts, responses):
    of_each = [
        responses.draw(st.lists(st.text(max_size=20), min_size=len(prompts), max_size=len(prompts))) for _ in "ab"
    ]
    texts = dict(zip(("prompt", "response_a", "response_b"), map(json.dumps, (prompts, *of_each)), strict=True))
    pair = ab_schemas.arena(ARENA | texts)
    for side, given_responses in ((pair.chosen, of_each[0]), (pair.rejected, of_each[1])):
        turns = [turn for both in zip(prompts, given_responses, strict=True) for turn in both]
        assert [turn["content"] for turn in pair.prompt + side] == [turn or "" for turn in turns]


@given(st.dictionaries(st.text(max_size=5), st.sampled_from(["a", "b", "tie", None]), min_size=1), st.booleans())
def test_votes_turn_with_the_label(preferences, has_default):
    default = next(iter(preferences)) if has_default else None
    row = ICAI | {
        "annotations": {name: {"pref": pref} for name, pref in preferences.items()},
        "default_annotator": default,
    }
    known = [{"a": 1, "b": 0, "tie": 0.5}[pref] for pref in preferences.values() if pref]
    if not known:
        assert "no preference" in error_of(ab_schemas.annotated, row)
        return
    pair = ab_schemas.annotated(row)
    assert pair.votes == (known if pair.own["position_chosen"] == "a" else [1 - vote for vote in known])

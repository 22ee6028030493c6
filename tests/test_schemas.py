import pytest

from curate import schemas
from curate.errors import CurateError

SKY = [{"role": "user", "content": "Sky?"}]
BLUE = [{"role": "assistant", "content": "Blue."}]
RED = [{"role": "assistant", "content": "Red."}]
SYSTEM = [{"role": "system", "content": "Be brief."}]
NEUTRAL = {"prompt": "Sky?", "response_a": "Blue.", "response_b": "Red.", "label": 1.0}


def sides(pair):
    return pair.prompt, pair.chosen, pair.rejected


def error_of(read, row):
    with pytest.raises(CurateError) as error:
        read(row)
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
    pair = schemas.neutral(NEUTRAL | {"label": label})
    assert sides(pair) == (SKY, chosen, rejected)
    assert pair.label_strength == strength
    assert pair.is_text


def test_votes_are_turned_with_the_label():
    row = NEUTRAL | {"label": 0.25, "votes": [0, 0.5, 0, 0.5], "meta": {"annotator_ids": ["w0", 1, "w2", "w3"]}}
    pair = schemas.neutral(row)
    assert pair.votes == [1, 0.5, 1, 0.5]
    assert pair.annotators == ["w0", "1", "w2", "w3"]
    assert schemas.neutral(row | {"label": 0.75}).votes == [0, 0.5, 0, 0.5]
    assert schemas.neutral(NEUTRAL | {"votes": [], "meta": None}).votes is None


def test_neutral_prompts_may_be_messages():
    pair = schemas.neutral(NEUTRAL | {"prompt": SYSTEM + SKY})
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
    assert error_of(schemas.neutral, NEUTRAL | change).startswith(message)


@pytest.mark.parametrize("column", NEUTRAL)
def test_a_missing_column_is_named_with_the_option_that_maps_it(column):
    row = {name: value for name, value in NEUTRAL.items() if name != column}
    found = ", ".join(row)
    expected = f"no column '{column}' (found {found}); if yours has another name: --columns {column}=NAME"
    assert error_of(schemas.neutral, row) == expected


def transcript(*turns):
    return "".join(f"\n\n{who}: {said}" for who, said in turns)


H, A = "Human", "Assistant"


def test_transcripts_are_split_at_the_last_shared_assistant_turn():
    shared = [(H, "Sky?"), (A, "What of it?"), (H, "Its colour.")]
    pair = schemas.hh({"chosen": transcript(*shared, (A, "Blue.")), "rejected": transcript(*shared, (A, "Red."))})
    assert [turn["content"] for turn in pair.prompt] == ["Sky?", "What of it?", "Its colour."]
    assert (pair.chosen, pair.rejected, pair.carried) == (BLUE, RED, {"chosen", "rejected"})


def test_later_turns_of_a_transcript_stay_in_the_response():
    whole = transcript((H, "Sky?"), (A, "Blue."), (H, "Sure?"), (A, "Yes."))
    for row in (
        {"chosen": whole, "rejected": transcript((H, "Sky?"), (A, "Red."))},
        {"chosen": whole, "rejected": whole[:30]},
    ):
        pair = schemas.hh(row)
        assert pair.prompt == SKY
        assert pair.chosen[0]["content"] == "Blue.\n\nHuman: Sure?\n\nAssistant: Yes."
        assert schemas.render_transcript(pair.prompt + pair.rejected) == row["rejected"]


def test_transcripts_with_different_contexts_share_no_prompt():
    row = {"chosen": transcript((H, "Sky?"), (A, "Blue.")), "rejected": transcript((H, "Sea?"), (A, "Blue."))}
    pair = schemas.hh(row)
    assert sides(pair) == ([], SKY + BLUE, [{"role": "user", "content": "Sea?"}, *BLUE])
    assert pair.carried == {"chosen", "rejected"}


def test_a_transcript_in_another_spelling_is_kept_as_given_too():
    pair = schemas.hh({"chosen": "Human: Sky?\n\nAssistant: Blue.", "rejected": "\n\nHuman: Sky?\n\nAssistant:"})
    assert sides(pair) == (SKY, BLUE, [{"role": "assistant", "content": ""}])
    assert pair.carried == set()


@pytest.mark.parametrize(("ending", "begun"), [("", []), (" ", []), (" Let", ["Let"])])
def test_a_transcript_as_the_prompt_is_read_as_turns(ending, begun):
    prompt = transcript((H, "Sky?"), (A, "What of it?"), (H, "Its colour.")) + "\n\nAssistant:" + ending
    pair = schemas.hh_prompt({"prompt": prompt, "chosen": " Blue.", "rejected": "Red."})
    assert [turn["content"] for turn in pair.prompt] == ["Sky?", "What of it?", "Its colour.", *begun]
    assert (pair.chosen[0]["content"], pair.rejected) == (" Blue.", RED)
    assert pair.carried == {"prompt", "chosen", "rejected"}


def test_a_text_without_an_assistant_turn_is_no_transcript():
    message = error_of(schemas.hh, {"chosen": transcript((H, "Sky?")), "rejected": transcript((A, "Blue."))})
    assert message == "chosen has no 'Assistant:' turn; expected a transcript, or choose another --format"


def test_standard_texts_are_taken_as_they_are():
    pair = schemas.standard({"prompt": "Sky? ", "chosen": " Blue.", "rejected": "", "id": 3})
    assert [[turn["content"] for turn in side] for side in sides(pair)] == [["Sky? "], [" Blue."], [""]]
    assert pair.carried == {"prompt", "chosen", "rejected"}
    assert (
        error_of(schemas.standard, {"prompt": "a", "chosen": BLUE, "rejected": ""}) == "chosen is a list; expected text"
    )


def test_an_implicit_prompt_is_the_shared_beginning():
    pair = schemas.standard_implicit({"chosen": "Sky? It is blue.", "rejected": "Sky? It is black."})
    assert [[turn["content"] for turn in side] for side in sides(pair)] == [["Sky? It is"], [" blue."], [" black."]]
    assert schemas.standard_implicit({"chosen": "blue", "rejected": "black"}).prompt == []


@pytest.mark.parametrize("whole", [[], SYSTEM + SKY])
def test_conversational_completions_may_repeat_their_prompt(whole):
    row = {"prompt": SYSTEM + SKY, "chosen": whole + BLUE, "rejected": whole + RED}
    assert sides(schemas.conversational(row)) == (SYSTEM + SKY, BLUE, RED)


def test_conversational_completions_may_be_text():
    assert sides(schemas.conversational({"prompt": SKY, "chosen": "Blue.", "rejected": "Red."})) == (SKY, BLUE, RED)


def test_whole_conversations_part_at_a_response():
    pair = schemas.conversational_implicit({"chosen": SYSTEM + SKY + BLUE, "rejected": SYSTEM + SKY + RED})
    assert sides(pair) == (SYSTEM + SKY, BLUE, RED)
    message = error_of(schemas.conversational_implicit, {"chosen": SKY + BLUE, "rejected": "Red."})
    assert message == "rejected is text ('Red.'); expected a list"


@pytest.mark.parametrize(
    ("prompt", "start", "expected", "carried"),
    [
        ("Sky?", SKY, SKY, True),  # ultrafeedback_binarized
        ("Sky?", [], SKY, True),  # the last turns alone
        ("Sky?", SYSTEM + SKY, SYSTEM + SKY, False),
        ("Another text", SKY, SKY, False),
    ],
)
def test_a_text_prompt_beside_conversations(prompt, start, expected, carried):
    pair = schemas.mixed({"prompt": prompt, "chosen": start + BLUE, "rejected": start + RED})
    assert sides(pair) == (expected, BLUE, RED)
    assert ("prompt" in pair.carried) == carried


def test_what_is_more_than_text_is_not_carried():
    call = [{"role": "assistant", "content": None, "tool_calls": [{"name": "look"}]}]
    pair = schemas.conversational({"prompt": SKY, "chosen": call, "rejected": RED})
    assert pair.chosen == [{"role": "assistant", "content": ""}]
    assert pair.carried == {"prompt", "rejected"}

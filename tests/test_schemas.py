import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import schemas
from curate.errors import CurateError

SKY = [{"role": "user", "content": "Sky?"}]
BLUE = [{"role": "assistant", "content": "Blue."}]
RED = [{"role": "assistant", "content": "Red."}]
SYSTEM = [{"role": "system", "content": "Be brief."}]


def sides(pair):
    return pair.prompt, pair.chosen, pair.rejected


def error_of(read, row):
    with pytest.raises(CurateError) as error:
        read(row)
    return str(error.value)


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


def test_openai_messages_end_with_the_chosen_response():
    row = {"messages": SYSTEM + SKY + BLUE, "rejected_response": "Red."}
    pair = schemas.openai(row)
    assert sides(pair) == (SYSTEM + SKY, BLUE, RED)
    assert pair.carried == set(row)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"messages": SKY, "rejected_response": "Red."},
            "messages has no assistant message at its end; expected the chosen",
        ),
        ({"messages": [], "rejected_response": "Red."}, "messages has no assistant message at its end"),
        ({"messages": "Sky?", "rejected_response": "Red."}, "messages is text ('Sky?'); expected a list"),
        ({"messages": SKY + BLUE, "rejected_response": None}, "rejected_response is null; expected text or a list"),
        ({"messages": SKY + BLUE}, "no column 'rejected_response' (found messages)"),
    ],
)
def test_wrong_openai_rows_are_named(row, message):
    assert error_of(schemas.openai, row).startswith(message)


MARKED = {"chosen": ["\n\nHuman: Sky?", "\n\nAssistant: Blue."], "rejected": ["\n\nHuman: Sky?", "\n\nAssistant: Red."]}
PLAIN = {"chosen": ["Sky?", "Blue."], "rejected": ["Sky?", "Red."]}


@pytest.mark.parametrize("row", [MARKED, PLAIN])
def test_lists_of_turns_end_with_the_response(row):
    pair = schemas.strength(row)
    assert sides(pair) == (SKY, BLUE, RED)
    assert (pair.carried, pair.own, pair.is_text) == ({"chosen", "rejected"}, {}, False)


@pytest.mark.parametrize("space", [" ", "_"])
def test_score_lists_are_read_in_both_spellings(space):
    given = {"chosen score list": [1.5, 2], "rejected score list": [0, -1.0]}
    row = PLAIN | {name.replace(" ", space): scores for name, scores in given.items()}
    pair = schemas.strength(row | {"GPT4 label": 1})
    assert pair.own == {"scores_chosen": [1.5, 2.0], "scores_rejected": [0.0, -1.0]}
    assert pair.carried == set(row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": []}, "chosen is an empty list; expected turns, the last one the response"),
        ({"rejected": None}, "rejected is null; expected a list"),
        ({"rejected": ["Sky?", None]}, "rejected[1] is null; expected text"),
        ({"chosen score list": [1.0]}, "rejected_score_list is null; expected a list"),
        (
            {"chosen score list": [1.0], "rejected score list": [1.0, 2.0]},
            "chosen score list has 1 numbers and rejected score list 2; expected one per model in both",
        ),
        (
            {"chosen score list": [], "rejected score list": []},
            "chosen score list has 0 numbers and rejected score list 0",
        ),
        (
            {"chosen score list": [1.0, None], "rejected score list": [1.0, 2.0]},
            "chosen score list[1] is null; expected a number",
        ),
        (
            {"chosen score list": "[1]", "rejected score list": "[2]"},
            "chosen score list is text ('[1]'); expected a list",
        ),
    ],
)
def test_wrong_turns_and_score_lists_are_named(change, message):
    assert error_of(schemas.strength, PLAIN | change).startswith(message)


@pytest.mark.parametrize("names", schemas.RATINGS)
def test_ratings_of_both_responses_have_one_name(names):
    row = {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Red."} | dict(zip(names, (4, 2.5), strict=True))
    pair = schemas.rated(schemas.standard(row), row)
    assert (pair.own, pair.label_strength) == ({"score_chosen": 4, "score_rejected": 2.5}, None)
    tied = row | dict.fromkeys(names, 4)
    pair = schemas.rated(schemas.standard(tied), tied)
    assert (pair.own, pair.label_strength) == ({"score_chosen": 4, "score_rejected": 4, "is_label_drawn": True}, 0.5)


@pytest.mark.parametrize("rating", [None, "4", float("nan"), True])
def test_what_is_no_rating_is_left_alone(rating):
    row = {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Red.", "score_chosen": rating, "score_rejected": rating}
    assert schemas.rated(schemas.standard(row), row) == schemas.standard(row)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4), st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_every_turn_of_a_list_is_in_the_pair(chosen, rejected):
    pair = schemas.strength({"chosen": chosen, "rejected": rejected})
    for side, given_turns in ((pair.chosen, chosen), (pair.rejected, rejected)):
        if not any(schemas.TURN.search(turn) for turn in given_turns):
            said = "".join(turn["content"] for turn in pair.prompt + side)
            marks = ("\n\nHuman: ", "\n\nAssistant: ")
            assert said.replace(marks[0], "").replace(marks[1], "") == "".join(given_turns)

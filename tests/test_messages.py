import gzip
import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import CurateError
from curate.messages import (
    as_messages,
    common_length,
    is_plain,
    message_column,
    render_transcript,
    split_messages,
    split_text,
    transcript_turns,
)
from curate.pairs import MESSAGES


def say(role, content):
    return {"role": role, "content": content}


def conversation(letters):
    """`u1 a2` is a user turn 1 and an assistant turn 2."""
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [say(roles[word[0]], word[1:]) for word in letters.split()]


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("Sky? It is blue.", "Sky? It is black.", "Sky? It is"),  # bl is shared, but within a word
        ("Sky? Blue", "Sky? Red", "Sky?"),  # the space belongs to the responses
        ("the cat sat", "the cat\nsat", "the cat"),  # white space in both, though not the same
        ("Sky? Yes it is", "Sky? Yes", "Sky?"),  # one text begins with the other: no empty response
        ("Sky? Yes", "Sky? Yes", "Sky?"),
        ("Sky?\n\nYes", "Sky?\n\nNo", "Sky?\n"),
        ("blue", "black", ""),
        ("", "", ""),
        ("", "black", ""),
        (" a", " b", ""),
    ],
)
def test_an_implicit_prompt_ends_before_white_space(chosen, rejected, prompt):
    end = split_text(chosen, rejected)
    assert chosen[:end] == rejected[:end] == prompt
    assert split_text(rejected, chosen) == end


@given(st.text("ab \n", max_size=12), st.text("ab \n", max_size=12))
def test_the_prompt_never_ends_inside_a_word(chosen, rejected):
    end = split_text(chosen, rejected)
    assert chosen[:end] == rejected[:end]
    assert end == 0 or (chosen[end].isspace() and rejected[end].isspace())


@pytest.mark.parametrize(
    ("chosen", "rejected", "shared"),
    [
        ("u1 a1", "u1 a2", 1),
        ("u1 a1 u2 a2", "u1 a1 u2 a3", 3),
        ("u1 a1 u2 a2", "u1 a1", 1),  # one begins with the other
        ("u1 a1 u2 a2", "u1 a1 u3 a3", 1),  # contexts differ after the first answer
        ("u1 a1", "u2 a1", 0),  # contexts differ from the start
        ("s1 u1 a1", "s1 u2 a2", 0),
        ("u1 a1 t1 a2", "u1 a1 t2 a3", 1),  # a tool result is no response
        ("u1 a1", "u1 a1", 1),
        ("", "u1 a1", 0),
        ("a1", "a2", 0),
    ],
)
def test_conversations_part_before_a_response(chosen, rejected, shared):
    assert split_messages(conversation(chosen), conversation(rejected)) == shared
    assert split_messages(conversation(rejected), conversation(chosen)) == shared


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_common_length_is_that_of_the_plain_loop(first, second):
    expected = next((i for i, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second)))  # noqa: B905
    assert common_length(first, second) == expected


def test_a_transcript_keeps_every_character_of_its_turns():
    text = "\n\nHuman:  two spaces \n\nAssistant: \n\nAssistant: again\n\nno turn: Human: x"
    assert transcript_turns(text) == [
        say("user", " two spaces "),
        say("assistant", ""),
        say("assistant", "again\n\nno turn: Human: x"),
    ]
    assert render_transcript(transcript_turns(text)) == text


def test_text_before_the_first_turn_is_a_system_message():
    text = "Be brief.\n\nHuman: Sky?\n\nAssistant: Blue."
    assert [turn["role"] for turn in transcript_turns(text)] == ["system", "user", "assistant"]
    assert render_transcript(transcript_turns(text)) == text
    assert transcript_turns("Human: Sky?\n\nAssistant:") == [say("user", "Sky?"), say("assistant", "")]


def test_every_published_transcript_comes_back_byte_for_byte(data_folder):
    with gzip.open(data_folder / "native" / "hh-harmless-base-test.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    texts = [row[side] for row in rows for side in ("chosen", "rejected")]
    assert len(texts) == 2 * 2312
    assert all(render_transcript(transcript_turns(text)) == text for text in texts)


def test_text_becomes_one_message_and_an_empty_prompt_none():
    assert as_messages("Sky?", "prompt", "user") == [say("user", "Sky?")]
    assert as_messages("", "prompt", "user") == []
    assert as_messages("", "chosen", "assistant") == [say("assistant", "")]


def test_typed_parts_are_joined_and_tool_calls_have_no_text():
    parts = [{"type": "text", "text": "Look: "}, {"type": "image"}, {"type": "text", "text": "a cat"}, "!"]
    given = [{"role": "user", "content": parts}, {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]
    assert as_messages(given, "prompt", "user") == [say("user", "Look: a cat!"), say("assistant", "")]
    assert not is_plain(given)
    assert not is_plain([{"role": "assistant", "tool_calls": [{"id": 1}]}])
    call = [{"role": "assistant", "function_call": {"name": "look"}}]
    assert as_messages(call, "chosen", "assistant") == [say("assistant", "")]
    assert is_plain([{"role": "user", "content": "Sky?", "name": None}])
    assert not is_plain([{"role": "user", "content": "Sky?", "name": "Ann"}])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "chosen is null; expected text or a list of messages"),
        (3.5, "chosen is 3.5; expected text"),
        (True, "chosen is true; expected text"),
        (["hi"], "chosen[0] is text ('hi'); expected a message with role and content"),
        ([{"from": "human", "value": "hi"}], "chosen[0] is an object with from, value; expected a message with role"),
        ([{"role": "user"}], "chosen[0].content is null; expected text"),
        ([{"role": "user", "content": None}], "chosen[0].content is null; expected text"),
        ([{"role": None, "content": "hi"}], "chosen[0].role is null; expected text"),
        ([{"role": "user", "content": [3]}], "chosen[0].content[0] is 3; expected a part like"),
        ([{"role": "user", "content": [{"type": "text"}]}], "chosen[0].content[0].text is null; expected text"),
        ("a\ud800", "chosen holds a lone surrogate (\\ud800); replace it"),
        ([{"role": "user", "content": "\udfff"}], "chosen[0].content holds a lone surrogate (\\udfff)"),
    ],
)
def test_values_that_are_no_messages_are_named(value, message):
    with pytest.raises(CurateError) as error:
        as_messages(value, "chosen", "assistant")
    assert message in str(error.value)


@given(st.lists(st.lists(st.builds(say, st.sampled_from(["user", "assistant"]), st.text(max_size=5)), max_size=3)))
def test_a_message_column_holds_what_was_put_in(conversations):
    column = message_column("prompt", conversations)
    assert column.dtype == MESSAGES
    assert column.to_list() == conversations == pl.Series(conversations, dtype=MESSAGES).to_list()

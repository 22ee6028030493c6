"""Only words that one side alone has are marked, and only where the sides are alike."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.differences import differences


def say(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


def marked(messages: list[dict[str, Any]]) -> list[str]:
    return [text for message in messages for text, is_alone in message["pieces"] if is_alone]


@pytest.mark.parametrize(
    ("chosen", "rejected", "of_chosen", "of_rejected"),
    [
        ("The sky is blue today.", "The sky is red today.", ["blue"], ["red"]),
        ("one two three four", "one two three", ["four"], []),
        ("a very long day", "a day very", ["long day"], ["day"]),
        ("今天天气很好", "今天天气不好", ["很"], ["不"]),
        ("<b>bold</b> text here", "<i>bold</i> text here", ["b", "b"], ["i", "i"]),
    ],
)
def test_words_of_one_side_are_marked(chosen: str, rejected: str, of_chosen: list[str], of_rejected: list[str]) -> None:
    found = differences(say(chosen), say(rejected))
    assert (marked(found["chosen"]), marked(found["rejected"])) == (of_chosen, of_rejected)
    assert found["sentence"].endswith("the others are marked.")


def test_sides_with_little_in_common_are_not_marked() -> None:
    found = differences(say("The sky is blue"), say("Ask me about the sea"))
    assert marked(found["chosen"]) == marked(found["rejected"]) == []
    assert found["sentence"].endswith("with so little in common nothing is marked.")


def test_half_of_the_words_is_enough() -> None:
    assert marked(differences(say("a b"), say("a c"))["chosen"]) == ["b"]  # 2 of 4 words
    assert marked(differences(say("a b"), say("a c d"))["chosen"]) == []  # 2 of 5


def test_equal_and_empty_sides_are_the_same() -> None:
    for text in ("", "The same."):
        found = differences(say(text), say(text))
        assert found["sentence"] == "Word for word the two sides are the same."
        assert marked(found["chosen"]) == []
    assert differences([], [])["chosen"] == []


def test_a_difference_over_two_messages_is_marked_in_both() -> None:
    two = [{"role": "assistant", "content": "We read it now"}, {"role": "tool", "content": "and again we read"}]
    found = differences(two, say("We read it we read"))
    assert [[text for text, is_alone in message["pieces"] if is_alone] for message in found["chosen"]] == [
        ["now"],
        ["and again"],
    ]
    assert found["chosen"][1]["role"] == "tool"


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_is_lost(chosen: str, rejected: str) -> None:
    found = differences(say(chosen), say(rejected))
    for side, text in (("chosen", chosen), ("rejected", rejected)):
        assert "".join(piece for piece, _ in found[side][0]["pieces"]) == text

import json

import pytest

from curate.not_carried import holds_more_than_text, is_end, more_than_text, roles

SKY = [{"role": "user", "content": "Sky?"}]
BLUE = [{"role": "assistant", "content": "Blue."}]
EMPTY = [{"role": "assistant", "content": ""}]
CALL = [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look", "arguments": {}}}]}]
OLD_CALL = [{"role": "assistant", "content": None, "function_call": {"name": "look"}}]
TYPED = [{"role": "assistant", "content": [{"type": "text", "text": "Bl"}, {"type": "text", "text": "ue."}]}]
IMAGE = [{"role": "user", "content": [{"type": "text", "text": "Sky?"}, {"type": "image", "url": "x"}]}]
NO_CALL = [{"role": "assistant", "content": "Blue.", "tool_calls": None, "name": "bob"}]


@pytest.mark.parametrize(
    ("extra", "chosen", "expected"),
    [
        ({"chosen": CALL}, EMPTY, True),
        ({"chosen": OLD_CALL}, EMPTY, True),
        ({"messages": SKY + CALL}, EMPTY, True),
        ({"prompt": IMAGE}, BLUE, True),
        ({"conversation_a": IMAGE + BLUE}, BLUE, True),
        ({"chosen": TYPED}, BLUE, False),  # all of it is text
        ({"chosen": NO_CALL}, BLUE, False),
        ({"trace": CALL}, BLUE, False),  # messages of something else
        ({"parts": [{"type": "image"}], "note": "tool_calls", "empty": [], "odd": [3]}, BLUE, False),
    ],
)
def test_only_the_pairs_own_messages_count(make_pairs, extra, chosen, expected):
    text = json.dumps(extra)
    assert holds_more_than_text(text, SKY, chosen, BLUE) == expected
    pairs = make_pairs((SKY, chosen, BLUE), (SKY, BLUE, BLUE), extra=[text, "{}"])
    assert more_than_text(pairs).to_list() == [expected, False]
    compact = make_pairs((SKY, chosen, BLUE), extra=[json.dumps(extra, separators=(",", ":"))])
    assert more_than_text(compact).to_list() == [expected]


def test_roles_are_letters(make_pairs):
    pairs = make_pairs(([{"role": "system", "content": ""}, *SKY, *BLUE], "", ""), ([], "", ""))
    assert pairs.select(roles("prompt")).to_series().to_list() == ["oua", ""]


def test_a_conversation_begins_or_ends_with_some_messages():
    assert is_end(SKY, SKY + BLUE)
    assert is_end(BLUE, SKY + BLUE)
    assert not is_end([], SKY)
    assert not is_end(SKY + BLUE, BLUE)

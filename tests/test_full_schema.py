import json

import pytest

from curate.errors import CurateError
from curate.full_schema import full
from tests.test_formats import EXAMPLES

SKY = [{"role": "user", "content": "Sky?"}]
BLUE = [{"role": "assistant", "content": "Blue."}]
RED = [{"role": "assistant", "content": "Red."}]
ROW = EXAMPLES["full"]


def test_everything_that_was_read_comes_back():
    extra = {"id": 3, "position_chosen": "b", "chosen": [{"role": "assistant", "content": None, "tool_calls": [1]}]}
    row = ROW | {
        "label_strength": 0.75,
        "votes": [1.0, 0.5],
        "annotators": ["ann", "bob"],
        "extra": json.dumps(extra),
        "margin": 0.25,
    }
    pair = full(row)
    assert (pair.prompt, pair.chosen, pair.rejected, pair.is_text) == (SKY, BLUE, RED, True)
    assert (pair.label_strength, pair.votes, pair.annotators) == (0.75, [1.0, 0.5], ["ann", "bob"])
    assert pair.carried >= set(row)
    own = dict(pair.own)
    assert own.pop("exported") == {
        "label_prob": 0.7, "weight": 1.0, "action": "smooth", "strength_mean": 0.2, "vote_share": 0.5, "margin": 0.25,
        "pair_id": "toy:train:3", "source": "toy",
    }  # fmt: skip
    assert own == extra


def test_messages_are_read_as_messages_and_responses_are_not_shortened():
    pair = full(ROW | {"prompt": SKY, "chosen": SKY + BLUE, "rejected": SKY + RED})
    assert (pair.prompt, pair.chosen, pair.rejected, pair.is_text) == (SKY, SKY + BLUE, SKY + RED, False)


def test_the_label_of_a_flipped_pair_is_the_flipped_one():
    pair = full(ROW | {"action": "flip", "label_strength": 0.25})
    assert pair.label_strength is None
    assert pair.own["exported"]["label_strength"] == 0.25


def test_a_second_export_keeps_what_the_first_one_said():
    first = {"exported": {"pair_id": "old:train:7"}}
    assert full(ROW | {"extra": json.dumps(first)}).own["exported"]["exported"] == {"pair_id": "old:train:7"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "prompt is null; expected text or a list of messages"),
        ({"label_strength": 1.5}, "label_strength is 1.5; expected a number from 0 to 1, or null"),
        ({"label_strength": "high"}, "label_strength is text ('high'); expected a number from 0 to 1, or null"),
        ({"votes": [1.0, None]}, "votes[1] is null; expected a number"),
        ({"votes": [2.0]}, "votes is 2.0; expected a number from 0 to 1"),
        ({"votes": "[1]"}, "votes is text ('[1]'); expected a list"),
        ({"annotators": ["ann"]}, "annotators has 1 names for 0 votes; expected one per vote"),
        ({"votes": [1.0], "annotators": [3]}, "annotators[0] is 3; expected text"),
        ({"extra": None}, "extra is null; expected text"),
        ({"extra": "[1]"}, "extra is text ('[1]'); expected the JSON text of an object"),
        ({"extra": "{"}, "extra is text ('{'); expected the JSON text of an object"),
    ],
)
def test_wrong_values_are_named(change, message):
    with pytest.raises(CurateError) as error:
        full(ROW | change)
    assert str(error.value).startswith(message)

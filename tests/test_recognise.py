
import pytest

from curate.errors import CurateError
from curate.recognise import COLUMNS, FORMATS, explain, recognise
from tests.test_formats import EXAMPLES, NATIVE


@pytest.mark.parametrize("name", FORMATS)
def test_native_rows_fit_their_own_format_first(name):
    assert recognise(NATIVE[name]) == name


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_recognised_among_other_columns(name):
    assert recognise([{"id": 1, "source": "x", "meta": {}, **row} for row in NATIVE[name]]) == name


def test_nulls_do_not_decide_the_format():
    blank = dict.fromkeys(("prompt", "chosen", "rejected"))
    assert recognise([blank, EXAMPLES["conversational"]]) == "conversational"
    assert recognise([EXAMPLES["conversational-implicit"] | {"prompt": None}]) == "conversational-implicit"
    assert recognise([blank]) == "standard-implicit"
    assert recognise([{"chosen": [], "rejected": []}, EXAMPLES["strength"]]) == "strength"


def test_transcripts_are_recognised_only_where_every_first_row_is_one():
    assert recognise([EXAMPLES["hh"], EXAMPLES["standard-implicit"]]) == "standard-implicit"
    assert recognise([EXAMPLES["hh"] | {"prompt": "Sky?"}]) == "standard"


def test_pairs_come_before_ratings_of_single_responses():
    assert recognise([EXAMPLES["standard"] | {"response": "x", "score": 1}]) == "standard"


def test_rows_of_no_format_are_told_what_is_expected():
    with pytest.raises(
        CurateError, match="found columns a; expected chosen and rejected, or .* curate load DATA --explain"
    ):
        recognise([{"a": 1}])


def test_every_format_has_one_line_and_one_verdict():
    head, *lines = explain([EXAMPLES["hh"]])
    assert head == "columns of the first 1 rows: chosen, rejected"
    told = dict(line.split(maxsplit=1) for line in lines)
    assert list(told) == list(FORMATS)
    assert told["hh"] == "yes: there is no prompt, and every text has Human: and Assistant: turns"
    assert told["neutral"] == "no: lacks response_a, response_b"
    assert told["conversational"] == "no: only where prompt is a list of messages"
    assert told["standard-implicit"] == told["standard"] == "no: fits too, but hh comes first"


def test_a_given_format_is_the_one_that_is_read():
    told = dict(line.split(maxsplit=1) for line in explain([EXAMPLES["hh"]], "standard-implicit")[1:])
    assert told["standard-implicit"] == "yes: as --format says"
    assert told["hh"] == "no: fits too, but --format decides"


def test_where_nothing_matches_the_last_line_says_what_to_do():
    lines = explain([{"question": 1}])
    assert lines[-1] == "no format matches: name your columns with --columns ours=yours"
    assert not [line for line in lines if " yes: " in line]


def test_every_needed_column_can_be_mapped():
    assert {column for form in FORMATS.values() for column in form.needs} <= set(COLUMNS)


def test_every_rule_is_in_words():
    assert all(form.rule or form.fits([{}]) for form in FORMATS.values())

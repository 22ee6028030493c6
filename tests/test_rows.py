from collections import Counter

import pytest

from curate.errors import CurateError
from curate.recognise import FORMATS
from curate.rows import column_mapping, csv_number, extra_json, given_rows, own_names, typed


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("chosen", "--columns: 'chosen' is not ours=yours; type for example --columns chosen=preferred"),
        ("chosen=", "--columns: 'chosen=' is not ours=yours"),
        ("chosen=a,chosen=b", "--columns: 'chosen' is there twice; name each once"),
        ("chosen=a,rejected=a", "--columns: 'a' is there twice; name each once"),
        ("choosen=a", "unknown column in --columns 'choosen': choose one of prompt, chosen, rejected, label_prob,"),
    ],
)
def test_a_mapping_that_says_nothing_is_refused(columns, message):
    with pytest.raises(CurateError) as error:
        column_mapping(columns)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("cell", "value"), [("0.5", 0.5), ("3", 3.0), (" True ", True), ("false", False), ("1e2", 100.0)]
)
def test_numbers_and_truths_of_csv_cells(cell, value):
    assert csv_number(cell) == value
    assert type(csv_number(cell)) is type(value)


def test_a_cell_that_is_no_value_of_its_column_stays_text():
    row = {"prompt": "3", "label": "good", "votes": "[1", "meta": "{}", "score": "2"}
    assert typed(row, {name: name for name in row}) == row | {"meta": {}, "score": 2.0}


def test_cells_are_read_by_our_name_of_the_column():
    assert typed({"grade": "2", "label": "1"}, own_names({"grade": "2", "label": "1"}, {"grade": "score"})) == {
        "grade": 2.0,
        "label": 1.0,
    }


def test_rows_are_counted_as_they_are_read():
    seen = Counter()
    rows = [("a: row 0", {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Red.", "id": 1})]
    (row,) = given_rows(rows, FORMATS["standard"], {}, False, seen)
    assert (row.number, row.place, row.rest) == (0, "a: row 0", {"id": 1})
    assert seen == {"rows": 1, "text rows": 1, "part rows": 0}


def test_what_json_cannot_hold_is_named():
    with pytest.raises(CurateError, match="another column cannot be written as JSON"):
        extra_json({"x": {1: object()} | {"y": 2**70, "z": float("nan")}})

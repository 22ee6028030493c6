"""Which pair of one version is which pair of another: by content, whatever the order of the rows."""

import pytest

from curate.match import PROMPT, RESPONSE, SAME, match_pairs, pair_keys


@pytest.fixture
def matched(make_pairs):
    """A function of the rows of two versions: (row_a, row_b, match, is_crossed) of every pair."""

    def match(a, b, **columns_b):
        keys = [pair_keys(pairs.lazy()) for pairs in (make_pairs(*a), make_pairs(*b, **columns_b))]
        return match_pairs(*keys).select("row_a", "row_b", "match", "is_crossed").rows()

    return match


def test_moved_rows_are_the_same_pairs(matched):
    rows = [("q1", "a", "b"), ("q2", "a", "b"), ("q3", "c", "d")]
    assert matched(rows, rows[::-1]) == [(0, 2, SAME, False), (1, 1, SAME, False), (2, 0, SAME, False)]


def test_a_swapped_label_is_the_same_pair_crossed(matched):
    assert matched([("q", "a", "b")], [("q", "b", "a")]) == [(0, 0, SAME, True)]


def test_duplicates_are_matched_one_to_one_and_first_those_with_the_same_label(matched):
    found = matched([("q", "a", "b"), ("q", "a", "b"), ("q", "b", "a")], [("q", "b", "a"), ("q", "a", "b")])
    assert found == [(0, 1, SAME, False), (1, None, None, None), (2, 0, SAME, False)]


@pytest.mark.parametrize(
    ("edited", "match", "is_crossed"),
    [
        (("q", "a", "x"), RESPONSE, False),
        (("q", "x", "b"), RESPONSE, False),
        (("q", "x", "a"), RESPONSE, True),
        (("q", "b", "x"), RESPONSE, True),
        (("p", "a", "b"), PROMPT, False),
        (("p", "b", "a"), PROMPT, True),
    ],
)
def test_one_edited_text_of_three_leaves_the_pair_what_it_was(matched, edited, match, is_crossed):
    assert matched([("q", "a", "b")], [edited]) == [(0, 0, match, is_crossed)]


@pytest.mark.parametrize("other", [("p", "x", "b"), ("q", "x", "y"), ("p", "x", "y")])
def test_two_edited_texts_are_another_pair(matched, other):
    assert matched([("q", "a", "b")], [other]) == [(0, None, None, None), (None, 0, None, None)]


def test_an_edited_response_goes_to_the_pair_that_begins_or_ends_alike(matched):
    long = "a response of some length that says this and that"
    other = "quite another response, of some length, about that"
    edited = [("q", "a", f"{long}, and more"), ("q", "a", f"Well: {other}")]
    assert matched([("q", "a", long), ("q", "a", other)], edited[::-1]) == [
        (0, 1, RESPONSE, False),
        (1, 0, RESPONSE, False),
    ]


def test_an_edited_prompt_is_not_taken_for_an_edited_response_of_another_pair(matched):
    found = matched([("q", "a", "b"), ("q", "a", "c")], [("q, please", "a", "b"), ("q", "a", "c, mended")])
    assert found == [(0, 0, PROMPT, False), (1, 1, RESPONSE, False)]


def test_a_pair_that_fits_two_others_is_matched_once_and_as_near_in_length(matched):
    found = matched([("q", "a", "bbbb")], [("q", "a", "x"), ("q", "yy", "bbbb")])
    assert found == [(0, 1, RESPONSE, False), (None, 0, None, None)]


def test_equal_responses_are_not_crossed(matched):
    assert matched([("q", "a", "a")], [("q", "a", "a")]) == [(0, 0, SAME, False)]
    assert [row[2] for row in matched([("q", "a", "a")], [("q", "a", "b")])] == [RESPONSE]


def test_roles_are_part_of_a_text(matched):
    system = [{"role": "system", "content": "q"}]
    assert matched([("q", "a", "b")], [(system, "a", "b")]) == [(0, 0, PROMPT, False)]


def test_lean_is_towards_the_first_response_and_its_strength(make_pairs):
    rows = make_pairs(("q", "a", "b"), ("q", "b", "a"), ("q", "a", "b"), label_strength=[0.8, None, 0.5])
    lean = pair_keys(rows.lazy())["lean"].to_list()
    assert sorted(map(abs, lean)) == [0.0, 0.8, 1.0] and lean[0] * lean[1] < 0
    assert lean[2] == 0.0 and pair_keys(rows.lazy())["row"].to_list() == [0, 1, 2]

"""Which pair of one version is which pair of another: by content, whatever the order of the rows."""

import pytest

from curate.match import PROMPT, RESPONSE, SAME, match_pairs, pair_keys

LONG = "a response that is no other's by chance"
MOON = ("Does the moon have an atmosphere worth the name?", "No.", "Yes.")
YES_NO = [
    ("Is 2 prime?", "Yes.", "No."),
    ("Is 9 prime?", "No.", "Yes."),
    ("Is every swan white? Yes or no:", "No.", "Yes."),
]


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


@pytest.mark.parametrize(("better", "worse"), [("a", "b"), ("b", "a")])
def test_the_same_side_with_another_strength_comes_before_a_swapped_label(make_pairs, better, worse):
    rows = [("q", better, worse), ("q", worse, better)]
    sides = [make_pairs(*rows, label_strength=[0.6, 1.0]), make_pairs(rows[0], label_strength=[0.7])]
    found = match_pairs(*(pair_keys(pairs.lazy()) for pairs in sides))
    assert found.select("row_a", "row_b", "is_crossed").rows() == [(0, 0, False), (1, None, None)]


@pytest.mark.parametrize(("better", "worse"), [("a", "b"), ("b", "a")])
def test_a_tie_goes_to_a_tie_and_a_label_to_a_label(make_pairs, better, worse):
    label, turned = ("q", better, worse), ("q", worse, better)
    sides = [make_pairs(label, label, label_strength=[0.5, 0.8]), make_pairs(label, turned, label_strength=[0.9, 0.5])]
    found = match_pairs(*(pair_keys(pairs.lazy()) for pairs in sides))
    assert found.select("row_a", "row_b").rows() == [(0, 1), (1, 0)]


@pytest.mark.parametrize(
    ("edited", "match", "is_crossed"),
    [
        (("q", LONG, "x"), RESPONSE, False),
        (("q", "x", "b"), RESPONSE, False),
        (("q", "x", LONG), RESPONSE, True),
        (("q", "b", "x"), RESPONSE, True),
        (("p", LONG, "b"), PROMPT, False),
        (("p", "b", LONG), PROMPT, True),
    ],
)
def test_one_edited_text_of_three_leaves_the_pair_what_it_was(matched, edited, match, is_crossed):
    assert matched([("q", LONG, "b")], [edited]) == [(0, 0, match, is_crossed)]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_short_answers_do_not_make_two_questions_one(matched, n):
    kept = [(row, row + 1, SAME, False) for row in range(n - 1)]
    found = matched([*YES_NO[1:n], YES_NO[0]], [MOON, *YES_NO[1:n]])
    assert found == [*kept, (n - 1, None, None, None), (None, 0, None, None)]


def test_prompts_of_one_template_with_the_same_answers_are_not_one(matched):
    template = "Answer the following question by Yes or No. "
    a, b = ([(template + prompt, *sides) for prompt, *sides in rows] for rows in (YES_NO, [*YES_NO[1:], MOON]))
    assert [row[2] for row in matched(a, b)] == [None, SAME, SAME, None]


@pytest.mark.parametrize("edited", ["Is every swan white? Yes, or no?", "Well: is every swan white? Yes or no:"])
def test_short_answers_to_prompts_that_begin_or_end_alike_are_one_pair(matched, edited):
    assert matched(YES_NO, [*YES_NO[:2], (edited, "No.", "Yes.")])[2] == (2, 2, PROMPT, False)


def test_a_refusal_of_many_prompts_does_not_tell_which(matched):
    refused = [(prompt, "I am sorry, but I cannot help with that.", "No.") for prompt in ("p", "q", "r")]
    assert [row[2] for row in matched(refused[:2], refused[1:])] == [None, SAME, None]


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
    found = matched([("q", LONG, "b"), ("q", LONG, "c")], [("q, please", LONG, "b"), ("q", LONG, "c, mended")])
    assert found == [(0, 0, PROMPT, False), (1, 1, RESPONSE, False)]


def test_a_pair_that_fits_two_others_is_matched_once_and_as_near_in_length(matched):
    found = matched([("q", "a", "bbbb")], [("q", "a", "x"), ("q", "yy", "bbbb")])
    assert found == [(0, 1, RESPONSE, False), (None, 0, None, None)]


def test_equal_responses_are_not_crossed(matched):
    assert matched([("q", "a", "a")], [("q", "a", "a")]) == [(0, 0, SAME, False)]
    assert [row[2] for row in matched([("q", "a", "a")], [("q", "a", "b")])] == [RESPONSE]


def test_roles_are_part_of_a_text(matched):
    system = [{"role": "system", "content": "q"}]
    assert matched([("q", LONG, "b")], [(system, LONG, "b")]) == [(0, 0, PROMPT, False)]


def test_lean_is_towards_the_first_response_and_its_strength(make_pairs):
    rows = make_pairs(("q", "a", "b"), ("q", "b", "a"), ("q", "a", "b"), label_strength=[0.8, None, 0.5])
    lean = pair_keys(rows.lazy())["lean"].to_list()
    assert lean in ([0.8, -1.0, 0.0], [-0.8, 1.0, 0.0])

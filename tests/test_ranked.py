import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import ranked
from curate.errors import CurateError
from curate.ranked import PAIRS, GivenResponse, GivenResponses, chosen_places, ranked_pairs

SKY = [{"role": "user", "content": "Sky?"}]
BLUE = [{"role": "assistant", "content": "Blue."}]
RED = [{"role": "assistant", "content": "Red."}]
NECTAR = {
    "prompt": "\n\nHuman: Sky?\n\nAssistant: ",
    "answers": [{"answer": "Red.", "model": "m1", "rank": 2.0}, {"answer": "Blue.", "model": "m2", "rank": 1.0}],
    "turns": 1,
}
NEMO = {"context": SKY, "completions": [{"rank": 0, "completion": BLUE}, {"rank": 1, "completion": RED}]}
HELPSTEER2 = {"prompt": "Sky?", "response": "Blue.", "helpfulness": 3, "correctness": 4}


def error_of(read, row):
    with pytest.raises(CurateError) as error:
        read(row)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("which", "min_gap", "places"),
    [
        ("all", 0, [(2, 0), (2, 3), (2, 1), (0, 3), (0, 1), (3, 1)]),
        ("all", 1, [(2, 0), (2, 3), (2, 1), (0, 1), (3, 1)]),
        ("all", 2, [(2, 1)]),
        ("best-rest", 0, [(2, 0), (2, 3), (2, 1)]),
        ("best-worst", 0, [(2, 1)]),
        ("best-worst", 3, []),
    ],
)
def test_the_pairs_of_a_rated_list(which, min_gap, places):
    """Ratings 2, 1, 3, 2."""
    assert chosen_places([2.0, 1.0, 3.0, 2.0], which, min_gap) == places


@pytest.mark.parametrize("which", PAIRS)
def test_fewer_than_two_responses_give_no_pair(which):
    assert chosen_places([], which, 0) == chosen_places([4.0], which, 0) == []


@given(st.lists(st.floats(-5, 5), max_size=8), st.floats(0, 3), st.sampled_from(list(PAIRS)))
def test_the_chosen_is_never_rated_below_the_rejected(grades, min_gap, which):
    places = chosen_places(grades, which, min_gap)
    assert all(grades[i] >= grades[j] for i, j in places)
    assert len({frozenset(pair) for pair in places}) == len(places)
    n = len(grades)
    most = {"all": n * (n - 1) // 2, "best-rest": max(n - 1, 0), "best-worst": int(n > 1)}[which]
    assert len(places) <= most
    if min_gap == 0:
        assert len(places) == most


def test_a_gap_of_a_tenth_is_a_tenth():
    assert chosen_places([0.3, 0.2], "all", 0.1) == [(0, 1)]


def test_both_grades_and_what_else_is_known_of_a_response_go_to_extra():
    responses = [GivenResponse(RED, 1.0, {"model": "m1"}), GivenResponse(BLUE, 3.0, {"model": "m2", "note": None})]
    (pair,) = ranked_pairs(GivenResponses(SKY, responses, {"answers"}, is_text=True), "all", 0)
    assert (pair.prompt, pair.chosen, pair.rejected) == (SKY, BLUE, RED)
    assert (pair.place, pair.label_strength, pair.is_text, pair.carried) == ("1-0", None, True, {"answers"})
    assert pair.own == {
        "model_chosen": "m2",
        "note_chosen": None,
        "model_rejected": "m1",
        "score_chosen": 3.0,
        "score_rejected": 1.0,
    }


def test_equal_grades_are_a_tie_in_the_order_given():
    (pair,) = ranked_pairs(GivenResponses(SKY, [GivenResponse(side, 1.0, {}) for side in (RED, BLUE)], set()), "all", 0)
    assert (pair.chosen, pair.label_strength, pair.place) == (RED, 0.5, "0-1")


def test_the_lowest_rank_of_nectar_is_the_best():
    found = ranked.nectar(NECTAR)
    assert (found.prompt, found.carried, found.is_text) == (SKY, {"prompt", "answers"}, False)
    assert [(response.turns, response.grade) for response in found.responses] == [(RED, -2.0), (BLUE, -1.0)]
    assert found.responses[0].own == {"model": "m1", "rank": 2.0}
    assert ranked.nectar(NECTAR | {"prompt": "Sky?"}).is_text
    assert ranked.nectar(NECTAR | {"prompt": SKY}).prompt == SKY


def test_nemo_completions_keep_what_is_more_than_text():
    call = [{"role": "assistant", "content": None, "tool_calls": [{"name": "look"}]}]
    found = ranked.nemo_rl(NEMO | {"completions": [*NEMO["completions"], {"rank": 2, "completion": call}]})
    assert (found.prompt, found.carried) == (SKY, {"context", "completions"})
    assert [response.grade for response in found.responses] == [0, -1, -2]
    assert found.responses[2].turns == [{"role": "assistant", "content": ""}]
    assert found.responses[2].own == {"rank": 2, "completion": call}


@pytest.mark.parametrize(
    ("read", "row", "message"),
    [
        (ranked.nectar, NECTAR | {"answers": None}, "answers is null; expected a list"),
        (ranked.nectar, NECTAR | {"answers": ["Blue."]}, "answers[0] is text ('Blue.'); expected an object"),
        (ranked.nectar, NECTAR | {"answers": [{"rank": 1}]}, "answers[0] has no 'answer' (found rank)"),
        (ranked.nectar, NECTAR | {"answers": [{"answer": "Blue."}]}, "answers[0] has no 'rank' (found answer)"),
        (
            ranked.nectar,
            NECTAR | {"answers": [{"answer": "Blue.", "rank": "1"}]},
            "answers[0].rank is text ('1'); expected a number, the best response's the lowest",
        ),
        (
            ranked.nectar,
            NECTAR | {"answers": [{"answer": None, "rank": 1}]},
            "answers[0].answer is null; expected text",
        ),
        (ranked.nectar, NECTAR | {"prompt": 3}, "prompt is 3; expected text or a list of messages"),
        (ranked.nemo_rl, NEMO | {"context": "Sky?"}, "context is text ('Sky?'); expected a list"),
        (
            ranked.nemo_rl,
            NEMO | {"completions": [{"rank": float("nan"), "completion": BLUE}]},
            "completions[0].rank is NaN; expected a number",
        ),
        (ranked.helpsteer2, HELPSTEER2 | {"helpfulness": None}, "helpfulness is null; expected a number"),
        (ranked.helpsteer2, HELPSTEER2 | {"response": None}, "response is null; expected text or a list of messages"),
        (ranked.pointwise, {"prompt": "Sky?", "response": "Blue."}, "no column 'score' (found prompt, response)"),
        (
            ranked.pointwise,
            {"prompt": "Sky?", "response": "Blue.", "score": float("inf")},
            "score is Infinity; expected a number",
        ),
        (ranked.kto, {"prompt": "Sky?", "completion": "Blue.", "label": "yes"}, "label is text ('yes'); expected true"),
        (ranked.kto, {"prompt": "Sky?", "completion": "Blue.", "label": None}, "label is null; expected true"),
    ],
)
def test_wrong_values_are_named(read, row, message):
    assert error_of(read, row).startswith(message)


def test_a_row_with_one_rated_response():
    found = ranked.helpsteer2(HELPSTEER2)
    assert (found.prompt, found.is_text, found.carried) == (SKY, True, {"prompt", "response"})
    assert found.responses == [GivenResponse(BLUE, 3.0, {})]
    assert ranked.kto({"prompt": SKY, "completion": RED, "label": False}).responses[0].grade == 0
    assert ranked.pointwise({"prompt": SKY, "response": BLUE, "score": -1.5}).responses[0].grade == -1.5


def test_the_best_rank_of_all_is_a_score_of_zero_without_a_sign():
    given = ranked.nemo_rl({**NEMO, "completions": [{"rank": 0, "completion": BLUE}, {"rank": 1, "completion": RED}]})
    assert [str(response.grade) for response in given.responses] == ["0.0", "-1.0"]

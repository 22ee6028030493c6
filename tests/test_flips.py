import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.flips import flip_responses, flipped_extra
from tests.decided import decided


def flipped(pairs, actions):
    return flip_responses(pl.concat([pairs, decided(pairs, actions).drop("pair_id")], how="horizontal"))


def test_a_flip_turns_all_that_says_which_response_was_chosen(make_pairs):
    extra = '{"position_chosen":"a","score_chosen":4,"score_rejected":1}'
    pairs = make_pairs(
        ("a", "b", "c"), ("d", "e", "f"), label_strength=[0.75, 0.75], votes=[[1, 0.5, 1]] * 2, extra=[extra] * 2
    )
    kept, turned = flipped(pairs, ["keep", "flip"]).rows(named=True)
    assert (kept["label_strength"], kept["votes"], kept["extra"]) == (0.75, [1, 0.5, 1], extra)
    assert (turned["chosen"], turned["rejected"]) == (pairs["rejected"][1].to_list(), pairs["chosen"][1].to_list())
    assert (turned["label_strength"], turned["votes"]) == (0.25, [0, 0.5, 0])
    assert (turned["strength_mean"], turned["strength_std"], turned["vote_share"]) == (-0.75, 0.25, 0.0)
    assert (turned["chosen score list"], turned["rejected score list"]) == ([0.5, 1.0], [1.0, 2.0])
    assert json.loads(turned["extra"]) == {"position_chosen": "b", "score_chosen": 1, "score_rejected": 4}


def test_what_is_unknown_stays_unknown(make_pairs):
    (turned,) = flipped(make_pairs(("a", "b", "c")), ["flip"]).rows(named=True)
    assert (turned["label_strength"], turned["votes"], turned["annotators"], turned["extra"]) == (
        None,
        None,
        None,
        "{}",
    )


def test_two_flips_are_none(make_pairs):
    pairs = make_pairs(("a", "b", "c"), label_strength=[0.75], votes=[[1, 0]], extra=['{"score_chosen":1}'])
    once = flipped(pairs, ["flip"])
    assert not once.select(pairs.columns).equals(pairs)
    assert flip_responses(once).select(pairs.columns).equals(pairs)


@pytest.mark.parametrize(
    ("given_extra", "expected"),
    [
        ({"chosen": [1], "rejected": [2]}, {"rejected": [1], "chosen": [2]}),
        ({"chosen_model": "x"}, {"rejected_model": "x"}),
        ({"chosen-rating": 4, "rejected-rating": 1}, {"chosen-rating": 1, "rejected-rating": 4}),
        ({"scores_chosen": [1.5], "unchosen": 1}, {"scores_rejected": [1.5], "unchosen": 1}),
        ({"GPT4 label": 1, "mean preference difference": 0.5}, {"GPT4 label": 0, "mean preference difference": -0.5}),
        (
            {"GPT4 label": -1, "mean_preference_difference": None},
            {"GPT4 label": -1, "mean_preference_difference": None},
        ),
        ({"position_chosen": "a", "id": 2**70}, {"position_chosen": "b", "id": 2**70}),
        (  # what a `full` export said of the pair before, and the export before that
            {"exported": {"strength_mean": 0.5, "vote_share": 0.75, "label_prob": 1.0, "margin": 0.25, "weight": 1.0}},
            {
                "exported": {
                    "strength_mean": -0.5,
                    "vote_share": 0.25,
                    "label_prob": 0.0,
                    "margin": -0.25,
                    "weight": 1.0,
                }
            },
        ),
        (
            {"exported": {"label_strength": 0.25, "strength_std": 0.5, "exported": {"action": "flip", "margin": 1}}},
            {"exported": {"label_strength": 0.75, "strength_std": 0.5, "exported": {"action": "flip", "margin": -1}}},
        ),
        ({"exported": {"label_prob": None, "margin": "1"}}, {"exported": {"label_prob": None, "margin": "1"}}),
        ({"exported": 1, "label_prob": 0.25}, {"exported": 1, "label_prob": 0.25}),  # columns of the data
        ({"meta": {"score_chosen": 1}}, {"meta": {"score_chosen": 1}}),  # of a column as given, beside position_chosen
    ],
)
def test_entries_of_extra_follow_their_response(given_extra, expected):
    assert json.loads(flipped_extra(json.dumps(given_extra))) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.text(max_size=6) | st.sampled_from(
    ["chosen", "rejected", "score_chosen", "chosen_by", "position_chosen", "exported", "strength_mean", "margin"]
)


@given(st.dictionaries(KEYS, JSON, max_size=5))
def test_two_flips_of_any_extra_are_none(extra):
    assert json.loads(flipped_extra(flipped_extra(json.dumps(extra)))) == extra

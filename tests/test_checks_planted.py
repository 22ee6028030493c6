"""A clean dataset, its twin with one planted defect of each check, and what each check does at its edge."""

import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.check_duplicates import NEAR, is_near, near_leader, runs, words
from curate.check_labels import in_cycle
from curate.check_overlap import seen
from curate.checks import (
    ALL_CHECKS,
    SEVERITIES,
    check_facts,
    check_table,
    fixes,
    meanings,
    report_of,
    run_checks,
    severities,
)
from curate.options import CheckOptions, FeatureOptions

NOUNS = ("river", "mountain", "violin", "harbour", "lantern", "orchard", "castle", "meadow", "engine", "island")
VERBS = ("freeze", "shine", "wander", "collapse", "echo", "glow", "rust", "drift", "tremble", "bloom")
PLACES = ("Norway", "Peru", "Kenya", "Nepal", "Chile", "Ghana", "Japan", "Spain", "Egypt", "Fiji")


def clean_row(i):
    """A question and two answers that no check has anything against; every number has texts of its own."""
    noun, verb, place = NOUNS[i % 10], VERBS[i // 10 % 10], PLACES[(i * 7 + i // 10) % 10]
    return (
        f"Why would the old {noun} in {place} {verb} during spring number {i}?",
        f"Because winds of {place} carry {noun} dust numbered {i}, and they {verb} whatever stands there.",
        f"Nobody has measured how often {i} such things {verb}, so this {noun} of {place} keeps its secret.",
    )


CLEAN = [clean_row(i) for i in range(60)]
LONG = (
    "It was a quiet morning when the old lighthouse keeper walked down to the pier to look at the boats and the nets."
)
NEARLY = LONG.replace("nets.", "nets again.")  # 21 of 22 word pairs
GERMAN = (
    "Das weiß niemand so genau, aber der Wind trägt im Frühling immer sehr viel Staub von den Bergen bis in die Täler."
)
OLD_MARY = [{"role": "assistant", "content": "Old?"}, {"role": "user", "content": "Yes."}]
OLD_MARY_ENDS = [{"role": "assistant", "content": "Then it was the frost."}]
CUT = "It was the frost that did it. Everybody in the village knows that the frost of that long winter broke the"

# What is put in: rows of (prompt, chosen, rejected), with the checks that have to find exactly these rows, by position.
PLANTED = {
    "identical_responses": ([("Who sings at dawn?", "Larks do.", "Larks do.")], [0]),
    "equal_but_for_space": ([("Who sings at noon?", "Finches do.", "Finches  do.\n")], [0]),
    "contradicting_labels": ([("Who swims?", "Otters.", "Seals."), ("Who swims?", "Seals.", "Otters.")], [0, 1]),
    "label_cycle": (
        [("Who digs?", "Moles.", "Hares."), ("Who digs?", "Hares.", "Foxes."), ("Who digs?", "Foxes.", "Moles.")],
        [0, 1, 2],
    ),
    "exact_duplicate_pair": ([("Who climbs?", "Goats.", "Cows."), ("Who climbs?", "Goats.", "Cows.")], [1]),
    "repeated_prompt": ([("Who hums?", "Bees hum.", "Ants hum."), ("Who hums?", "Flies hum.", "Moths hum.")], [1]),
    "repeated_response": ([("Who hides?", "Newts.", "Toads hide."), ("Who naps?", "Newts.", "Dogs nap.")], [0, 1]),
    "empty_response": ([("Who barks?", "Foxes bark.", " \n ")], [0]),
    "empty_prompt": ([(" ", "Something was asked.", "Nothing was asked.")], [0]),
    "boilerplate_response": (
        [
            (f"Question of the day {i}?", f"Answer of day {i}.", "Is there anything else to help you with?")
            for i in range(5)
        ],
        [0, 1, 2, 3, 4],
    ),
    "turns_in_response": ([("Who left?", "Anna left.\n\nAssistant: Or was it Ben?", "Carl left early.")], [0]),
    "differing_contexts": ([("Why now?", [*OLD_MARY, *OLD_MARY_ENDS], "It was the rain.")], [0]),
    "template_in_response": ([("Who flies?", "Swifts fly.<|im_end|>", "Rats fly at night.")], [0]),
    "prompt_in_response": (
        [
            (
                "Which of the seven seas is the saltiest one?",
                "Which of the seven seas is the saltiest one? Red.",
                "It varies.",
            )
        ],
        [0],
    ),
    "broken_encoding": ([("Who bakes?", "The baker\u00e2\u20ac\u2122s wife.", "The miller bakes.")], [0]),
    "truncated_response": ([("What broke the bridge?", CUT, "Nobody knows what broke it.")], [0]),
    "other_language": (
        [
            (
                "Do you know what carries all that dust in spring, and from which place?",
                GERMAN,
                "The winds of the mountains.",
            )
        ],
        [0],
    ),
    "refusal": ([("How to pick a lock?", "I'm sorry, I can't help with that.", "Use a thin hook.")], [0]),
    "personal_data": ([("Where to write?", "To anna.berg@web.de, she answers.", "Nobody knows where.")], [0]),
    "extreme_length_ratio": ([("Tell a story?", LONG, "No.")], [0]),
    "near_duplicate_pair": (
        [("Who kept the light?", LONG, "The cook."), ("Who kept the light?", NEARLY, "The cook.")],
        [1],
    ),
    "near_contradicting_labels": (
        [("Who was early?", LONG, "The cook."), ("Who was early?", "The cook.", NEARLY)],
        [0, 1],
    ),
    "near_equal_responses": ([("What was it like?", LONG, NEARLY)], [0]),
    "near_duplicate_prompt": (
        [(LONG, "How calm.", "How dull."), (NEARLY, "How nice.", "How long.")],
        [1],
    ),
    "near_duplicate_response": (
        [("Say more?", LONG, "The mate."), ("Go on?", NEARLY, "The boy.")],
        [0, 1],
    ),
}
SCORED = {
    "score_contradicts_label": '{"score_chosen":2.0,"score_rejected":4.5}',
    "equal_scores": '{"is_label_drawn":true,"score_chosen":4,"score_rejected":4}',
}
LENGTHS = {"prompt_longer_than_limit": "is_prompt_cut", "equal_after_truncation": "is_equal_after_cut"}
OVERLAP = {"prompt_in_other": 0, "response_in_other": 1}


def lengths(pairs):
    n_tokens = {f"n_{part}_tokens": pl.lit(9) for part in ("prompt", "chosen", "rejected")}
    cut = {name: pl.lit(False) for name in ("is_prompt_cut", "is_response_cut", "is_equal_after_cut")}
    return pairs.select("pair_id", **n_tokens, **cut)


def found(pairs, token_lengths=None, other=None):
    token_lengths = lengths(pairs) if token_lengths is None else token_lengths
    return run_checks(check_table(pairs, token_lengths, CheckOptions(pii=True), other))


def rows_of(table, name):
    return table.with_row_index().filter(name)["index"].to_list()


def test_every_check_is_planted():
    assert {*PLANTED, *SCORED, *LENGTHS, *OVERLAP} == {check.__name__ for check in ALL_CHECKS}


def test_no_check_finds_anything_in_the_clean_twin(make_pairs):
    scores = ['{"score_chosen":4.5,"score_rejected":2.0}'] * len(CLEAN)
    pairs = make_pairs(*CLEAN, extra=scores)
    other = make_pairs(*(clean_row(i) for i in range(60, 99)))
    table = found(pairs, other=other)
    assert len(table.columns) == 1 + len(ALL_CHECKS)
    assert {name: rows_of(table, name) for name in table.columns[1:] if table[name].any()} == {}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_is_found_whole_and_nowhere_else(make_pairs, name):
    rows, expected = PLANTED[name]
    table = found(make_pairs(*CLEAN, *rows))
    assert rows_of(table, name) == [len(CLEAN) + row for row in expected]
    others = [other for other in table.columns[1:] if other != name and table[other].head(len(CLEAN)).any()]
    assert others == []


@pytest.mark.parametrize("name", SCORED)
def test_planted_scores_are_found(make_pairs, name):
    extra = ['{"score_chosen":4.5,"score_rejected":2.0}'] * len(CLEAN)
    extra[7] = extra[9] = SCORED[name]
    ties = [0.5 if row == 9 else None for row in range(len(CLEAN))]
    table = found(make_pairs(*CLEAN, extra=extra, label_strength=ties))
    expected = {"score_contradicts_label": [7], "equal_scores": [7, 9]}[name]  # a tie contradicts no scores
    assert {other: rows_of(table, other) for other in SCORED} == {**{other: [] for other in SCORED}, name: expected}


def test_ties_that_were_given_have_no_label_that_was_drawn(make_pairs):
    extra = [SCORED["equal_scores"], '{"score_chosen":4,"score_rejected":4}']
    pairs = make_pairs(*CLEAN[:2], extra=extra, label_strength=[0.5, 0.5])
    assert rows_of(found(pairs), "equal_scores") == [0]


@pytest.mark.parametrize("name", LENGTHS)
def test_planted_lengths_are_found(make_pairs, name):
    pairs = make_pairs(*CLEAN)
    cut = lengths(pairs).with_columns((pl.int_range(pl.len()) == 7).alias(LENGTHS[name]))
    table = found(pairs, cut)
    assert {other: rows_of(table, other) for other in LENGTHS} == {**{other: [] for other in LENGTHS}, name: [7]}


def test_planted_overlap_is_found_whole_and_in_part(make_pairs):
    prompt, chosen, _ = CLEAN[3]
    quoted = f"An old book says: {CLEAN[5][2]} That is what it says."
    other = make_pairs((prompt.upper(), "Some other words.", "Such a thing."), ("Who wrote this?", quoted, chosen))
    table = found(make_pairs(*CLEAN), other=other)
    assert rows_of(table, "prompt_in_other") == [3]
    assert rows_of(table, "response_in_other") == [3, 5]


def test_all_defects_together_are_all_found_and_reported(make_pairs):
    rows = [row for planted, _ in PLANTED.values() for row in planted]
    pairs = make_pairs(*CLEAN, *rows)
    table = check_table(pairs, lengths(pairs), CheckOptions(pii=True))
    report = report_of(check_facts(table, run_checks(table), FeatureOptions()))
    assert {row["check"] for row in report["found"]} >= set(PLANTED)
    assert report["severity"] == "error"
    order = [SEVERITIES.index(row["severity"]) for row in report["found"]]
    assert order == sorted(order)
    for row in report["found"]:
        assert all(int(example.rsplit(":", 1)[1]) >= len(CLEAN) for example in row["examples"])
        assert row["share"] == row["n_pairs"] / len(pairs)
    assert json.loads(json.dumps(report)) == report


def test_every_check_has_a_meaning_a_severity_and_a_fix():
    names = [check.__name__ for check in ALL_CHECKS]
    assert list(meanings()) == list(severities()) == list(fixes()) == names
    assert set(severities().values()) == set(SEVERITIES)
    assert all(meaning.endswith(".") and meaning[0].isupper() for meaning in meanings().values())
    assert all(len(fix) > 10 and "\n" not in fix for fix in fixes().values())


def test_a_circle_of_four_is_found_where_there_is_none_of_three():
    def edges(*pairs):
        chosen, rejected = zip(*pairs, strict=True)
        table = pl.DataFrame({"prompt_key": [1] * len(pairs), "chosen_key": chosen, "rejected_key": rejected})
        return table.with_columns(label_strength=pl.lit(None, pl.Float64))

    four = [(1, 2), (2, 3), (3, 4), (4, 1), (1, 5)]
    assert in_cycle(edges(*four)).to_list() == [True, True, True, True, False]
    chord = [*four[:4], (1, 3)]  # 1 > 3 > 4 > 1 is one of three
    assert in_cycle(edges(*chord)).to_list() == [False, False, True, True, True]
    assert in_cycle(edges((1, 2), (2, 1), (2, 3))).to_list() == [False] * 3  # contradicting, not a circle
    tied = edges((1, 2), (2, 3), (3, 1)).with_columns(label_strength=pl.Series([None, 0.5, None]))
    assert in_cycle(tied).to_list() == [False] * 3


def test_a_circle_stays_within_its_prompt():
    table = pl.DataFrame(
        {"prompt_key": [1, 1, 1, 2, 2, 2], "chosen_key": [1, 2, 8, 3, 4, 9], "rejected_key": [2, 3, 9, 1, 5, 8]}
    )
    assert not in_cycle(table.with_columns(label_strength=pl.lit(None, pl.Float64))).any()


@given(st.lists(st.integers(0, 4), min_size=3, max_size=12), st.randoms(use_true_random=False))
def test_labels_that_follow_a_ranking_never_go_round(responses, random):
    edges = [
        (min(a, b), max(a, b))
        for a, b in zip(responses, random.sample(responses, len(responses)), strict=True)
        if a != b
    ]
    if edges:
        better, worse = zip(*edges, strict=True)
        table = pl.DataFrame({"prompt_key": [0] * len(edges), "chosen_key": better, "rejected_key": worse})
        assert not in_cycle(table.with_columns(label_strength=pl.lit(None, pl.Float64))).any()


@given(st.lists(st.text(max_size=60), min_size=1, max_size=20))
def test_equal_texts_have_the_same_leader_and_leaders_come_first(texts):
    leader = near_leader(pl.Series(texts, dtype=pl.String)).to_list()
    number = {text: position for position, text in enumerate(dict.fromkeys(texts))}
    assert all(leader[i] <= number[text] for i, text in enumerate(texts))
    by_text = {}
    for text, its in zip(texts, leader, strict=True):
        assert by_text.setdefault(text, its) == its
    distinct = list(number)
    tokens = pl.DataFrame({"text": distinct}).select(runs(words(pl.col("text")), 2)).to_series().to_list()
    for text, its in by_text.items():
        if its != number[text] and tokens[number[text]] != [""]:
            assert is_near(set(tokens[number[text]]), set(tokens[its]))


def test_near_means_a_jaccard_similarity_of_nine_tenths():
    ten = {f"w{i}" for i in range(10)}
    assert NEAR == 0.9
    assert is_near(ten, ten | {"x"})  # 10 / 11
    assert not is_near(ten, ten - {"w0"} | {"x"})  # 9 / 11


def test_words_and_runs():
    table = pl.DataFrame({"text": ["Don't  stop, NOW!", "你好 you", "..."]}).with_columns(words=words(pl.col("text")))
    assert table["words"].to_list() == [["don", "t", "stop", "now"], ["你", "好", "you"], []]
    assert table.select(runs(pl.col("words"), 3)).to_series().to_list() == [
        ["don t stop", "t stop now"],
        ["你 好 you"],
        [""],
    ]


@given(st.lists(st.sampled_from("abcdefgh"), min_size=14, max_size=30), st.integers(0, 5))
def test_any_thirteen_words_in_a_row_are_seen_and_twelve_are_not(letters, start):
    own = [f"{letter}{i}" for i, letter in enumerate(letters)]  # every word once
    start = min(start, len(own) - 13)
    text = pl.Series([" ".join(own)])
    assert seen(text, pl.Series([" ".join(["x", *own[start : start + 13], "y"])]), 5).to_list() == [True]
    assert seen(text, pl.Series([" ".join(["x", *own[start : start + 12], "y"])]), 5).to_list() == [False]


def test_short_texts_are_seen_only_whole_and_only_if_long_enough():
    texts = pl.Series(["yes it is so", "one two three four five", "one two three four five six"])
    assert seen(texts, pl.Series(["Yes, it is so!", "one two three four FIVE."]), 5).to_list() == [False, True, False]
    assert seen(texts, pl.Series(["Yes, it is so!"]), 1).to_list() == [True, False, False]

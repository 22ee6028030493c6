import polars as pl
import pytest

from curate.checks import CHECKS, check_table, language, meanings, run_checks
from curate.formats import LoadOptions, read_pairs
from curate.options import CheckOptions

COMPARED = [check.__name__ for check in CHECKS]


def lengths(pairs, is_prompt_cut=False, is_equal_after_cut=False):
    """Token lengths as the backbone gives them, with the same answer for every pair."""
    return pairs.select(
        "pair_id",
        n_prompt_tokens=pl.lit(3),
        n_chosen_tokens=pl.lit(4),
        n_rejected_tokens=pl.lit(5),
        is_prompt_cut=pl.lit(is_prompt_cut),
        is_response_cut=pl.lit(False),
        is_equal_after_cut=pl.lit(is_equal_after_cut),
    )


def checks(pairs, token_lengths):
    """Every check of every pair, near-duplicates aside."""
    return run_checks(check_table(pairs, token_lengths, CheckOptions(near=False)))


def flagged(pairs, check):
    """What one check says of each pair."""
    return checks(pairs, lengths(pairs))[check].to_list()


def test_one_boolean_column_per_check_and_one_row_per_pair(make_pairs):
    pairs = make_pairs(("Sky?", "Blue.", "Red."), ("Sea?", "Deep.", "Dry."))
    table = checks(pairs, lengths(pairs))
    assert table.columns == ["pair_id", *COMPARED]
    assert table["pair_id"].equals(pairs["pair_id"])
    assert set(table.drop("pair_id").dtypes) == {pl.Boolean}
    assert table.drop("pair_id").null_count().row(0) == (0,) * len(COMPARED)
    assert not any(any(row) for row in table.drop("pair_id").rows())


def test_every_check_has_a_meaning_in_one_sentence():
    assert list(meanings())[: len(COMPARED)] == COMPARED
    assert all(meaning.endswith(".") for meaning in meanings().values())


def test_identical_and_empty_responses(make_pairs):
    pairs = make_pairs(
        ("Sky?", "Blue.", "Blue."), ("Sky?", "Blue.", " \n"), ("Sky?", [], "Red."), ("Sky?", "Blue.", "blue.")
    )
    assert flagged(pairs, "identical_responses") == [True, False, False, False]
    assert flagged(pairs, "empty_response") == [False, True, True, False]


def test_same_texts_in_other_roles_are_not_identical(make_pairs):
    pairs = make_pairs(("Sky?", [{"role": "assistant", "content": "a"}], [{"role": "tool", "content": "a"}]))
    assert flagged(pairs, "identical_responses") == [False]


def test_empty_prompt(make_pairs):
    pairs = make_pairs(("", "Blue.", "Red."), (" ", "Blue.", "Red."), ("Sky?", "Blue.", "Red."))
    assert flagged(pairs, "empty_prompt") == [True, True, False]


def test_duplicates_are_all_but_the_first(make_pairs):
    one, turned, other = ("Sky?", "Blue.", "Red."), ("Sky?", "Red.", "Blue."), ("Sea?", "Blue.", "Red.")
    pairs = make_pairs(one, other, one, turned, one)
    assert flagged(pairs, "exact_duplicate_pair") == [False, False, True, False, True]


def test_a_tie_is_a_duplicate_either_way_round_but_not_of_a_preference(make_pairs):
    one, turned = ("Sky?", "Blue.", "Red."), ("Sky?", "Red.", "Blue.")
    pairs = make_pairs(one, one, turned, label_strength=[None, 0.5, 0.5])
    assert flagged(pairs, "exact_duplicate_pair") == [False, False, True]


def test_contradicting_labels_are_flagged_on_both_sides_ties_aside(make_pairs):
    one, turned, other = ("Sky?", "Blue.", "Red."), ("Sky?", "Red.", "Blue."), ("Sea?", "Red.", "Blue.")
    pairs = make_pairs(one, turned, other, one, turned, label_strength=[None, None, None, 0.8, 0.5])
    assert flagged(pairs, "contradicting_labels") == [True, True, False, True, False]
    ties = make_pairs(one, turned, label_strength=[0.5, None])
    assert flagged(ties, "contradicting_labels") == [False, False]
    same = make_pairs(("Sky?", "Blue.", "Blue."), ("Sky?", "Blue.", "Blue."))
    assert flagged(same, "contradicting_labels") == [False, False]


def test_further_turns_in_a_response(make_pairs):
    dialogue = [{"role": "assistant", "content": "Why?"}, {"role": "user", "content": "So."}]
    pairs = make_pairs(
        ("Sky?", "Blue.\n\nHuman: Sure?\n\nAssistant: Yes.", "Red."),
        ("Sky?", "Red.", dialogue),
        ("Sky?", "Human: Hi", "b"),
    )
    assert flagged(pairs, "turns_in_response") == [True, True, False]


def test_extreme_length_ratio_is_above_ten(make_pairs):
    pairs = make_pairs(("Sky?", "a" * 10, "b"), ("Sky?", "a" * 11, "b"), ("Sky?", "", "b" * 11), ("Sky?", "", "b" * 10))
    assert flagged(pairs, "extreme_length_ratio") == [False, True, True, False]


def test_limits_come_from_the_token_lengths(make_pairs):
    pairs = make_pairs(("Sky?", "Blue.", "Red."))
    table = checks(pairs, lengths(pairs, is_prompt_cut=True, is_equal_after_cut=True))
    assert table.select("prompt_longer_than_limit", "equal_after_truncation").row(0) == (True, True)


def test_token_lengths_of_other_pairs_are_refused(make_pairs):
    pairs = make_pairs(("Sky?", "Blue.", "Red."))
    with pytest.raises(AssertionError, match="other pairs"):
        checks(pairs, lengths(pairs).with_columns(pair_id=pl.lit("other:train:0")))


def test_language_is_the_share_of_english_in_a_fixed_sample(make_pairs):
    english = ("Why is the sky blue during the day?", "The air scatters blue light more.", "Because it is blue.")
    german = ("Warum ist der Himmel am Tag blau?", "Die Luft streut blaues Licht stärker.", "Weil er eben blau ist.")
    pairs = make_pairs(english, german, english, english, ("1 + 1", "2", "3"))
    assert language(pairs) == {"sample_size": 4, "english_share": 3 / 4}
    assert language(pairs, sample=2, seed=1) == language(pairs[::-1], sample=2, seed=1)
    assert language(make_pairs(("1 + 1", "2", "3"))) == {"sample_size": 0, "english_share": 1.0}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hh_rlhf_test", {"identical_responses": 36, "empty_response": 11, "turns_in_response": 19}),
        ("oasst1_zh_rank", {"identical_responses": 6, "exact_duplicate_pair": 5}),
    ],
)
def test_faults_of_real_data(data_folder, name, expected):
    pairs = read_pairs(data_folder / f"{name}.jsonl.gz", LoadOptions()).pairs
    table = checks(pairs, lengths(pairs))
    assert {check: table[check].sum() for check in expected} == expected


def test_contradictions_of_real_data_are_pairs_of_opposite_labels(data_folder):
    pairs = read_pairs(data_folder / "ukp_convarg.jsonl.gz", LoadOptions()).pairs
    found = pairs.filter(checks(pairs, lengths(pairs))["contradicting_labels"])
    labels = {(str(row["prompt"]), str(row["chosen"]), str(row["rejected"])) for row in found.iter_rows(named=True)}
    assert len(found) == 84
    assert all((prompt, rejected, chosen) in labels for prompt, chosen, rejected in labels)


def test_chinese_is_not_english(data_folder):
    found = language(read_pairs(data_folder / "oasst1_zh_rank.jsonl.gz", LoadOptions()).pairs, sample=100)
    assert found["sample_size"] == 100
    assert found["english_share"] < 0.1

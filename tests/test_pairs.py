import polars as pl
import pytest

from curate.pairs import heldout_groups, is_tie, prompt_group, stable_hash, text_of


def say(role, content):
    return {"role": role, "content": content}


def test_ties_are_the_pairs_of_strength_one_half(make_pairs):
    rows = [("Sky?", "Blue.", "Red.")] * 3
    pairs = make_pairs(*rows, label_strength=[0.5, None, 0.8])
    assert pairs.select(is_tie()).to_series().to_list() == [True, False, False]


def test_text_of_joins_the_contents_of_turns(make_pairs):
    pairs = make_pairs(([say("user", "Sky?"), say("assistant", "Blue.")], "Yes.", ""))
    assert pairs.select(text_of("prompt"), text_of("rejected")).row(0) == ("Sky?\n\nBlue.", "")


def test_the_group_is_the_first_user_turn_whatever_surrounds_it():
    short = [say("user", "Sky?")]
    long = [say("system", "Be brief."), say("user", "Sky?"), say("assistant", "Blue."), say("user", "Sure?")]
    assert prompt_group(short, [], []) == prompt_group(long, [], []) == stable_hash("Sky?")
    assert prompt_group([say("user", "sky?")], [], []) != stable_hash("Sky?")


@pytest.mark.parametrize("prompt", [[], [say("user", " ")], [say("system", "Be brief.")]])
def test_without_a_user_turn_the_responses_stand_for_the_prompt_in_either_order(prompt):
    a, b, c = ([say("assistant", content)] for content in "abc")
    assert prompt_group(prompt, a, b) == prompt_group(prompt, b, a)
    assert prompt_group(prompt, a, b) != prompt_group(prompt, a, c)


def test_held_out_groups_are_a_rounded_share_of_all():
    groups = [str(number) for number in range(26)]
    assert len(heldout_groups(groups, 0.1, seed=0)) == round(2.6)
    assert heldout_groups(groups, 0.0, seed=0) == set()
    assert len(heldout_groups(groups[:10], 0.1, seed=0)) == 1
    assert heldout_groups(groups[:9], 0.5, seed=0) == set()


def test_held_out_groups_depend_on_the_seed_and_not_on_the_order_or_number_of_rows():
    groups = [str(number) for number in range(100)]
    assert heldout_groups(groups, 0.1, 0) == heldout_groups(groups[::-1] + groups, 0.1, 0)
    assert heldout_groups(groups, 0.1, 0) != heldout_groups(groups, 0.1, 1)


def test_the_table_made_by_make_pairs_groups_equal_prompts(make_pairs):
    pairs = make_pairs(("Sky?", "Blue.", "Red."), ("Sky?", "Grey.", "Red."), ("Sea?", "Blue.", "Red."))
    assert pairs["group"].n_unique() == 2
    assert pairs["label_strength"].dtype == pl.Float64

"""The members' rows and sentences, by closed forms; what was not computed is missing."""

from typing import Any

import pytest

from reports.members import batch_warning, batch_words, cost_words, member_rows, members, worth

HEADS = {"ensemble": "head", "n_models": 20, "n_presentations": None, "n_trained_parameters": 841}
LORA = {"ensemble": "lora", "n_models": 6, "n_presentations": 3000, "n_trained_parameters": 200_000}
ENSEMBLE = {
    "n_members": 3,
    "is_out_of_fold": True,
    "member_backbone": ["minilm", "minilm", "my-model"],
    "member_accuracy": [0.7, 0.71, 0.69],
    "correlation": [[1.0, 0.5, 0.4], [0.5, 1.0, 0.6], [0.4, 0.6, 1.0]],
    "effective_votes": 1.5,
    "cost": LORA,
    "batch_tolerance": 0.001,
    "vote_spread": 0.34,
}


def test_a_row_holds_what_is_known_of_a_member() -> None:
    rows = member_rows(ENSEMBLE)
    assert [row["member"] for row in rows] == [0, 1, 2]  # as in the chart and in votes/member-00.parquet
    assert [row["backbone"] for row in rows] == ["minilm", "minilm", "my-model"]
    assert [row["agreement"] for row in rows] == [0.7, 0.71, 0.69]
    expected = [(0.5 + 0.4) / 2, (0.5 + 0.6) / 2, (0.4 + 0.6) / 2]
    assert [row["correlation"] for row in rows] == pytest.approx(expected)


def test_one_member_correlates_with_no_other() -> None:
    one = {"n_members": 1, "is_out_of_fold": True, "member_accuracy": [0.6], "correlation": [[1.0]]}
    assert member_rows(one) == [{"member": 0, "agreement": 0.6}]


def test_agreement_with_labels_that_were_seen_is_left_out() -> None:
    assert all("agreement" not in row for row in member_rows(ENSEMBLE | {"is_out_of_fold": False}))


def test_an_old_run_has_rows_without_a_backbone_and_no_sentence_on_cost() -> None:
    new = ("member_backbone", "cost", "batch_tolerance", "vote_spread")
    found = members({name: value for name, value in ENSEMBLE.items() if name not in new})
    assert found is not None
    assert set(found["rows"][0]) == {"member", "agreement", "correlation"}
    assert found["sentences"] == ["3 members vote like 1.5 independent ones, at least."]
    assert "warning" not in found


def test_without_votes_there_are_no_members() -> None:
    assert members(None) is None
    assert members({"n_members": 3, "is_out_of_fold": True}) is None


def test_worth_is_a_lower_bound_unless_the_truth_is_known() -> None:
    assert worth(ENSEMBLE) == "3 members vote like 1.5 independent ones, at least"
    known = ENSEMBLE | {"given_truth": {"effective_votes": 2.25, "n_verified": 60}}
    assert worth(known) == "3 members vote like 2.2 independent ones, given the truth"


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        (HEADS, "20 linear heads of 841 weights, fitted to convergence"),
        (HEADS | {"n_models": 1}, "1 linear head of 841 weights, fitted to convergence"),
        (LORA, "6 LoRA fine-tunes of 200,000 weights, 3,000 pair presentations"),
        (LORA | {"ensemble": "full", "n_models": 1}, "1 full fine-tune of 200,000 weights, 3,000 pair presentations"),
    ],
)
def test_cost_is_said_in_words(cost: dict[str, Any], words: str) -> None:
    assert cost_words(cost) == words


def test_models_of_several_backbones_have_different_sizes() -> None:
    assert cost_words(HEADS, n_backbones=2) == "20 linear heads of up to 841 weights, fitted to convergence"


def test_batches_are_compared_with_the_members() -> None:
    same = "The same text in another batch got "
    assert batch_words(0.001, 0.34) == (
        f"{same}a reward that differed by at most 0.001; members differ by 0.34 on a typical pair (340 times that)."
    )
    assert batch_words(0.001, None) == f"{same}a reward that differed by at most 0.001."
    assert batch_words(0.0, 0.34) == f"{same}exactly the same reward; members differ by 0.34 on a typical pair."
    assert batch_words(0.0, None) == f"{same}exactly the same reward."
    assert "differ by 0 on a typical pair (0 times that)" in batch_words(0.001, 0.0)


@pytest.mark.parametrize(
    ("tolerance", "spread", "is_warned"),
    [
        (0.1, 1.0, False),  # a tenth is not over a tenth
        (0.11, 1.0, True),
        (0.0, 0.0, False),
        (0.001, 0.0, True),
        (0.5, None, False),
        (None, 1.0, False),
    ],
)
def test_a_warning_begins_above_a_tenth_of_the_spread(
    tolerance: float | None, spread: float | None, is_warned: bool
) -> None:
    warning = batch_warning(ENSEMBLE | {"batch_tolerance": tolerance, "vote_spread": spread})
    assert (warning is not None) == is_warned


def test_the_warning_gives_both_numbers_and_says_what_to_try() -> None:
    moved = ENSEMBLE | {"batch_tolerance": 0.05, "vote_spread": 0.2}
    warning = batch_warning(moved)
    assert warning == (
        "The other texts in its batch moved a reward by up to 0.05, and members differ by only 0.2 on a typical pair: "
        "part of their disagreement is only that. Vote again with --deterministic."
    )
    found = members(moved)
    assert found is not None and found["warning"] == warning


def test_the_sentences_are_worth_cost_and_batches() -> None:
    found = members(ENSEMBLE)
    assert found is not None
    assert found["sentences"] == [
        "3 members vote like 1.5 independent ones, at least.",
        "The votes took 6 LoRA fine-tunes of up to 200,000 weights, 3,000 pair presentations.",
        batch_words(0.001, 0.34),
    ]

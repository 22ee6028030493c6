import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from curate.errors import CurateError
from curate.strength import (
    effective_votes,
    mean_correlation,
    member_correlation,
    one_scale,
    read_votes,
    strength,
    strength_rank,
    votes_given_truth,
)

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-6)


def test_strength_by_hand():
    table = strength(np.array([[1.0, 3.0, np.nan], [-2.0, -2.0, -2.0], [0.0, 0.0, 6.0]]))
    assert table["strength_mean"].to_list() == [2.0, -2.0, 2.0]
    assert table["strength_std"].to_list() == pytest.approx([1.0, 0.0, (8.0) ** 0.5])
    assert table["vote_share"].to_list() == pytest.approx([2 / 2, 0 / 3, 1 / 3])  # a tie is not in favour
    assert table["n_votes"].to_list() == [2, 3, 3]


def test_one_vote_has_no_spread_and_no_vote_has_nothing():
    table = strength(np.array([[2.0, np.nan], [np.nan, np.nan]]))
    assert table.row(0) == (2.0, None, 1.0, 1)
    assert table.row(1) == (None, None, None, 0)


@given(arrays(np.float64, (4, 3), elements=NUMBERS))
def test_swapping_the_labels_negates_the_strength(differences):
    straight, swapped = strength(differences), strength(-differences)
    assert (straight["strength_mean"] == -swapped["strength_mean"]).all()
    assert (straight["strength_std"] == swapped["strength_std"]).all()


@given(arrays(np.float64, (6, 2), elements=NUMBERS), st.sampled_from([0.5, 2.0, 1024.0]))
def test_one_scale_forgets_the_scale_and_keeps_the_sign(differences, factor):
    folds = np.array([[0, 1]] * 3 + [[1, 0]] * 3)
    scaled = one_scale(differences, folds)
    assert np.array_equal(np.sign(scaled), np.sign(differences))
    widths = np.median(np.abs(differences[:3]), axis=0)  # a model with median 0 keeps its scale
    assume(np.all(widths) and np.all(np.median(np.abs(differences[3:]), axis=0)))
    assert np.array_equal(one_scale(differences * factor, folds), scaled)  # powers of two: exact


def test_one_scale_is_per_member_and_fold():
    scaled = one_scale(np.array([[2.0], [4.0], [30.0]]), np.array([[0], [0], [1]]))
    assert scaled.ravel().tolist() == [2 / 3, 4 / 3, 1.0]


def test_rank_runs_from_0_to_1_and_equal_means_keep_row_order():
    assert strength_rank(pl.Series([0.5, 0.5, -1.0])).to_list() == [0.5, 1.0, 0.0]
    assert strength_rank(pl.Series([3.0])).to_list() == [0.0]


def test_votes_of_another_run_are_refused(tmp_path):
    (tmp_path / "votes").mkdir()
    with pytest.raises(CurateError, match="no votes; run first: curate vote"):
        read_votes(tmp_path, pl.Series(["a", "b"]))
    member = pl.DataFrame(
        {"pair_id": ["a", "b"], "reward_chosen": [1.0, 2.0], "reward_rejected": [0.5, 3.0], "fold": 0}
    )
    member.write_parquet(tmp_path / "votes" / "member-00.parquet")
    differences, folds = read_votes(tmp_path, pl.Series(["a", "b"]))
    assert differences.tolist() == [[0.5], [-1.0]]
    assert folds.tolist() == [[0], [0]]
    with pytest.raises(CurateError, match="not those of this run"):
        read_votes(tmp_path, pl.Series(["b", "a"]))


def test_effective_votes():
    assert effective_votes(10, 0.0) == 10
    assert effective_votes(10, 1.0) == 1
    assert effective_votes(10, -0.2) == 10  # never more than there are
    assert effective_votes(5, 0.92) == pytest.approx(5 / (1 + 4 * 0.92))


def test_correlation_of_members():
    votes = np.array([[1.0, 2.0, 5.0], [-1.0, -2.0, 5.0], [0.5, 1.0, 5.0]])
    correlation = member_correlation(votes)
    assert correlation[0, 1] == pytest.approx(1.0)
    assert correlation[0, 2] == 0.0  # a member that always says the same
    assert mean_correlation(correlation) == pytest.approx(1 / 3)
    assert mean_correlation(np.ones((1, 1))) == 0.0


def test_votes_given_truth_are_those_of_the_errors():
    """Members that share the signal and nothing else: their errors do not correlate, whatever the labels say."""
    rng = np.random.default_rng(0)
    is_wrong = rng.random(4_000) < 0.3
    signal = np.where(is_wrong, -1.0, 1.0)[:, None]
    found = votes_given_truth(signal + rng.normal(size=(4_000, 5)), is_wrong)
    assert found["error_correlation"] == pytest.approx(0.0, abs=0.03)
    assert found["effective_votes"] == pytest.approx(5, abs=0.6)
    shared = signal + rng.normal(size=(4_000, 1)) + 0.1 * rng.normal(size=(4_000, 5))
    assert votes_given_truth(shared, is_wrong)["effective_votes"] < 1.1

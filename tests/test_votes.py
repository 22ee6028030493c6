import numpy as np
import pytest

from rm_ensemble.votes import effective_votes, mean_correlation, member_correlation


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

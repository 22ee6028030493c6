"""Histograms count every pair of the whole and of each part, and the scatter is a fair sample."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from reports.strengths import N_POINTS, histogram, part_histograms, scatter, strength


def judged(means: list[float], **columns: Any) -> pl.DataFrame:
    n = len(means)
    table = {
        "pair_id": [f"p{i}" for i in range(n)],
        "is_tie": [False] * n,
        "strength_mean": means,
        "strength_std": [1.0] * n,
        "kind": ["normal"] * n,
    }
    return pl.DataFrame(table | columns, schema_overrides={"strength_mean": pl.Float64})


def test_histogram_counts_every_pair_and_splits_at_zero() -> None:
    made = histogram(judged(means=[-100.0, -0.001, 0.001, 0.2, 100.0]))
    counts, edges = np.array(made["counts"]["normal"]), np.array(made["edges"])
    assert 0.0 in edges
    assert counts[edges[:-1] < 0].sum() == 2
    assert counts[edges[:-1] >= 0].sum() == 3


def test_scatter_is_a_sample_evenly_spaced_by_rank() -> None:
    n = 2 * N_POINTS + 1
    sample = scatter(judged(means=[float(i) for i in range(n)]))
    means = sample["points"]["normal"]["mean"]
    assert (sample["n_points"], sample["n_pairs"]) == (N_POINTS, n)
    assert (means[0], means[-1]) == (0, n - 1)
    assert set(np.diff(means)) <= {2.0, 3.0}


def test_each_part_has_the_bins_of_the_whole_and_all_its_pairs() -> None:
    means = [-1.0, 2.0, 3.0] * 10
    table, labels = judged(means), pl.Series("colour", ["red", "blue", "blue"] * 10)
    whole = histogram(table)
    (blue,) = part_histograms(table, {"colour": labels}, whole)  # 10 red pairs have no shape
    assert (blue["by"], blue["name"], blue["n_pairs"]) == ("colour", "blue", 20)
    assert sum(blue["counts"]["normal"]) == 20 and len(blue["counts"]["normal"]) == len(whole["counts"]["normal"])
    assert (blue["n_against"], blue["n_judged"]) == (0, 20)


def test_only_the_largest_parts_have_a_histogram() -> None:
    names = [f"part {i:02d}" for i in range(14) for _ in range(20 + i)]
    table = judged([1.0] * len(names))
    found = part_histograms(table, {"part": pl.Series("part", names)}, histogram(table))
    assert [part["name"] for part in found] == [f"part {i:02d}" for i in range(13, 1, -1)]


def test_pairs_without_votes_and_without_a_part_are_left_out() -> None:
    table = judged(
        [1.0, None, -1.0] * 20, label_prob=[0.9, None, 0.2] * 20, verified=pl.Series([None] * 60, dtype=pl.String)
    )
    found = strength(table, {"half": pl.Series("half", ["a", "a", None] * 20)})
    assert found is not None
    assert [(part["name"], part["n_pairs"]) for part in found["histograms"]] == [("a", 20)]
    assert found["against"] == {
        "n_pairs": 20,
        "n_judged": 40,
        "expected_wrong_share": pytest.approx(0.8),
        "affordable_flips": 0,
    }


def test_a_run_without_votes_has_no_strengths() -> None:
    assert strength(pl.DataFrame({"pair_id": ["a"]}), {}) is None
    assert strength(judged([None]), {}) is None  # type: ignore[list-item]

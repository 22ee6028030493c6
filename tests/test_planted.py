"""The planter of the benchmarks is tested by its definition: what it turns, how many, and nothing else."""

import numpy as np
import polars as pl
import pytest

from benchmarks.planted import Sample, natural, plant, table
from curate.pairs import PAIR_SCHEMA


def sample(n=200):
    """Pairs on ten prompts; the better response is the longer one in the first half."""
    rows = [
        {
            "pair_id": str(i),
            "prompt": [],
            "chosen": [{"role": "assistant", "content": "x" * (20 if i < n // 2 else 5)}],
            "rejected": [{"role": "assistant", "content": "x" * 10}],
            "group": str(i % 10),
            "is_heldout": False,
        }
        for i in range(n)
    ]
    index = np.arange(2 * n).reshape(n, 2)
    return Sample(pl.DataFrame(rows, schema=PAIR_SCHEMA), index, np.zeros((2 * n, 1), dtype=np.float32))


@pytest.mark.parametrize(
    ("kind", "rate", "n"), [("uniform", 0.3, 60), ("near-tie", 0.1, 20), ("longer", 0.2, 40), ("longer", 0.9, 100)]
)
def test_as_many_are_turned_as_asked_for(kind, rate, n):
    planted = plant(kind, rate, sample(), np.arange(200.0), np.random.default_rng(0))
    assert planted.sum() == n


def test_each_kind_turns_only_what_it_says():
    pairs, rng = sample(), np.random.default_rng(1)
    assert plant("near-tie", 0.1, pairs, np.arange(200.0), rng).nonzero()[0].max() < 40
    assert plant("longer", 0.2, pairs, np.zeros(200), rng).nonzero()[0].min() >= 100
    side = plant("side", 0.0, pairs, np.zeros(200), rng)
    assert (len(set(pairs.groups[side])), side.sum()) == (1, 20)


def test_turning_swaps_both_the_texts_and_their_places():
    pairs, planted = sample(), np.arange(200) < 3
    turned = pairs.turned(planted)
    assert (turned.index[:3] == pairs.index[:3, ::-1]).all()
    assert (turned.index[3:] == pairs.index[3:]).all()
    assert turned.pairs["chosen"][:3].equals(pairs.pairs["rejected"][:3], check_names=False)
    assert turned.turned(planted).pairs.equals(pairs.pairs)
    assert pairs.part(planted).pairs["pair_id"].to_list() == ["0", "1", "2"]


def test_natural_noise_keeps_pairs_whose_other_votes_are_unanimous():
    whole = sample(4), [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]]
    shares = []
    for seed in range(200):
        found, is_wrong = natural(whole, seed)
        assert "2" not in found.pairs["pair_id"].to_list()  # two against two is never unanimous
        assert not is_wrong[np.isin(found.pairs["pair_id"].to_numpy(), ["0", "1"])].any()
        against = found.pairs.filter(pair_id="1")["chosen"][0]
        assert against.to_list() == whole[0].pairs["rejected"][1].to_list()  # gold prefers response b
        shares.append("3" in found.pairs["pair_id"].to_list())
        assert is_wrong.sum() == shares[-1]  # only where the one dissenting vote was drawn
    assert np.mean(shares) == pytest.approx(1 / 4, abs=0.08)


def test_a_table_has_a_line_per_row():
    assert table([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]).splitlines()[2:] == ["| 1 | x |", "| 2 | y |"]

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binomtest

from curate.guarantee import (
    Answers,
    certified,
    certify,
    conformal_p_values,
    flip_facts,
    keep_level,
    kept_facts,
    more_needed,
    p_values,
    wrong_share_at_most,
)
from curate.guarantee_words import guarantee_words

finite = st.floats(-10, 10)


def simulated(seed, n=4_000, rate=0.2, n_verified=500):
    """Strengths of labels of which a share is wrong, votes of a good judge, and a random subset verified."""
    rng = np.random.default_rng(seed)
    is_wrong = rng.random(n) < rate
    mean = np.where(is_wrong, -1, 1) * rng.normal(1.5, 1.0, n)
    asked = np.zeros(n, dtype=bool)
    asked[rng.choice(n, n_verified, replace=False)] = True
    return mean, is_wrong, Answers(asked & ~is_wrong, asked & is_wrong, np.zeros_like(asked), ~asked)


@given(st.lists(finite, min_size=1, max_size=30), st.lists(finite, max_size=30))
def test_conformal_p_values_count_the_reference_at_or_below(scores, reference):
    found = conformal_p_values(np.array(scores), np.array(reference))
    expected = [(1 + sum(r <= s for r in reference)) / (len(reference) + 1) for s in scores]
    assert found.tolist() == expected


@given(st.lists(st.floats(0.0001, 1), min_size=1, max_size=40), st.floats(0.01, 0.99))
def test_benjamini_hochberg_is_its_definition(p, level):
    p = np.array(p)
    ranked = np.sort(p)
    allowed = level * np.arange(1, len(p) + 1) / len(p)
    below = np.flatnonzero(ranked <= allowed * (1 + 1e-12))
    expected = p <= ranked[below[-1]] if len(below) else np.zeros(len(p), dtype=bool)
    close = np.isclose(ranked, allowed, rtol=1e-9).any()
    assert close or certified(p, level).tolist() == expected.tolist()


def test_a_pair_that_is_not_tested_is_never_certified():
    mean, _, answers = simulated(0)
    flip_p, keep_p = p_values(mean, answers)
    assert np.isnan(flip_p[~answers.tested]).all()
    assert np.isnan(keep_p[~answers.tested]).all()
    assert not certified(flip_p, 0.5)[~answers.tested].any()


@pytest.mark.parametrize("q", [0.05, 0.2])
def test_the_share_of_wrong_flips_is_at_most_q_on_average(q):
    shares, n_flips = [], []
    for seed in range(60):
        mean, is_wrong, answers = simulated(seed)
        flips = certified(p_values(mean, answers)[0], q)
        shares.append((~is_wrong[flips]).mean() if flips.any() else 0.0)
        n_flips.append(flips.sum())
    assert np.mean(shares) <= q + 2 * np.std(shares) / np.sqrt(60)
    assert np.mean(n_flips) > 100


def test_the_share_of_wrong_pairs_kept_is_at_most_q_on_average():
    shares, kept_shares = [], []
    for seed in range(60):
        mean, is_wrong, answers = simulated(seed)
        level = keep_level(0.05, int(answers.wrong.sum()), 500)
        kept = certified(p_values(mean, answers)[1], level)
        shares.append(is_wrong[kept].mean())
        kept_shares.append(kept.sum() / answers.tested.sum())
    assert np.mean(shares) <= 0.05 + 2 * np.std(shares) / np.sqrt(60)
    assert np.mean(kept_shares) > 0.6


def test_pure_noise_is_hardly_ever_flipped():
    n_any = 0
    for seed in range(60):
        mean, _, answers = simulated(seed, rate=0.5)
        noise = np.random.default_rng(seed + 1000).normal(size=len(mean))
        n_any += certified(p_values(noise, answers)[0], 0.1).any()
    assert n_any <= 60 * 0.1 + 2 * np.sqrt(60 * 0.1 * 0.9)


def test_nothing_is_certified_when_every_verified_label_is_wrong():
    mean, _, answers = simulated(1, rate=1.0)
    facts = flip_facts(-mean, answers, 0.2)
    assert not answers.right.any()
    assert (facts["n_flips"], facts["n_more"]) == (0, None)


def test_the_upper_bound_is_clopper_pearson():
    exact = (
        binomtest(30, 300).proportion_ci(0.8, "exact").high
    )  # two-sided 80 % has the same upper end as one-sided 90 %
    assert wrong_share_at_most(30, 300) == pytest.approx(exact)


def test_everything_is_kept_where_few_labels_are_wrong():
    mean, _, answers = simulated(2, rate=0.01)
    table = pl.DataFrame({"strength_mean": mean}).with_columns(
        verified=pl.Series(np.select([answers.right, answers.wrong], ["right", "wrong"], "")).replace("", None),
        flip_p=pl.Series(p_values(mean, answers)[0]).fill_nan(None),
        keep_p=pl.Series(p_values(mean, answers)[1]).fill_nan(None),
    )
    done, facts = certify(table, np.zeros(len(mean), dtype=bool), 0.05, 0.05)
    assert facts["kept"]["n_kept"] == answers.tested.sum()
    assert done["keep_is_certified"].to_list() == answers.tested.tolist()


def test_certify_is_null_without_verified_pairs():
    table = pl.DataFrame({"strength_mean": [1.0], "flip_p": [None], "keep_p": [None], "verified": [None]})
    done, facts = certify(table, np.zeros(1, dtype=bool), 0.05, 0.05)
    assert done.select("flip_is_certified", "keep_is_certified").row(0) == (None, None)
    assert facts == {}


def test_the_spread_is_that_of_a_clean_share_below_an_order_statistic():
    mean, _, answers = simulated(3)
    facts = flip_facts(mean, answers, 0.1)
    n_right, per_flip = answers.right.sum(), answers.tested.sum() / facts["n_flips"]
    n_below = (mean[answers.right] <= facts["strength_below"]).sum()
    assert facts["low"] == pytest.approx(beta.ppf(0.05, n_below + 1, n_right - n_below) * per_flip)
    assert facts["low"] < facts["wrong_share"] < facts["high"]
    assert facts["wrong_share"] <= 0.1
    assert [point["max_wrong"] for point in facts["curve"]] == sorted(point["max_wrong"] for point in facts["curve"])
    assert [point["n_flips"] for point in facts["curve"]] == sorted(point["n_flips"] for point in facts["curve"])


def test_more_needed_is_the_smallest_number_at_which_benjamini_hochberg_could_fire():
    """2 of 100 tested lie below all 9 clean ones: (1 + 0) / (n + 1) <= .1 x 2 / 100 needs n = 499."""
    mean = np.concatenate([[-5.0, -5.0], np.full(98, 1.0), np.full(9, 0.5)])
    right = np.arange(109) >= 100
    answers = Answers(right, *np.zeros((2, 109), dtype=bool), ~right)
    assert more_needed(mean, answers, 0.1) == 499 - 9


@settings(max_examples=30)
@given(st.lists(finite, min_size=3, max_size=40), st.integers(0, 2**20))
def test_a_rising_recalibration_changes_nothing(mean, seed):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 4, len(mean))
    answers = Answers(group == 0, group == 1, group == 3, group == 2)
    ranks = np.unique(mean, return_inverse=True)[1].astype(float)
    for one, other in zip(p_values(np.array(mean), answers), p_values(ranks, answers), strict=True):
        assert np.array_equal(one, other, equal_nan=True)


def test_the_words_say_what_was_certified_and_what_not():
    mean, _, answers = simulated(4)
    facts = {"flips": flip_facts(mean, answers, 0.1), "kept": kept_facts(mean, answers, 0.05)}
    flips, kept = guarantee_words(facts, True)
    assert (
        f"{facts['flips']['n_flips']:,} of 3,500 labels are certified as wrong: at most 10 % wrong on average" in flips
    )
    assert "at most 5 % of them are wrong on average" in kept
    assert facts["kept"]["n_kept_surely"] < facts["kept"]["n_kept"]
    assert guarantee_words(facts, False) == guarantee_words({}, True) == []
    few = Answers(
        *(found & (np.arange(4_000) < 100) for found in (answers.right, answers.wrong, answers.unsure)), answers.tested
    )
    (none,) = guarantee_words({"flips": flip_facts(mean, few, 0.01), "kept": kept_facts(mean, few, None)}, True)
    assert none.startswith("No flip could be certified (at most 1 % wrong")
    assert "more, as far as these say" in none


def test_an_unsure_answer_counts_against_whatever_is_to_be_certified():
    mean, _, answers = simulated(5)
    unsure = answers.right & (np.random.default_rng(0).random(4_000) < 0.3)
    doubtful = Answers(answers.right & ~unsure, answers.wrong, unsure, answers.tested)
    as_wrong = Answers(answers.right & ~unsure, answers.wrong | unsure, np.zeros_like(unsure), answers.tested)
    assert np.array_equal(p_values(mean, doubtful)[0], p_values(mean, answers)[0], equal_nan=True)
    assert np.array_equal(p_values(mean, doubtful)[1], p_values(mean, as_wrong)[1], equal_nan=True)
    assert kept_facts(mean, doubtful, 0.05) == kept_facts(mean, as_wrong, 0.05)
    assert flip_facts(mean, doubtful, 0.1) == flip_facts(mean, answers, 0.1)

import warnings

import numpy as np
import polars as pl
import pytest
from scipy.special import expit

from curate.annotators import (
    FEWEST_VOTES,
    agreement_alpha,
    annotator_facts,
    annotator_table,
    left_out,
    nominal_alpha,
    posterior,
    reliability,
    vote_table,
)
from curate.formats import read_pairs

# Krippendorff (2011), "Computing Krippendorff's alpha-reliability", C: four observers, twelve units, values 1 to 5.
OBSERVERS = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3),
    (0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0),
)


def simulated(rates, n_pairs=2_000, n_votes=5, seed=0):
    """A pair table voted on by annotators of known rates, the label being the first vote; and whether it is right."""
    rng = np.random.default_rng(seed)
    who = rng.permuted(np.tile(np.arange(len(rates)), (n_pairs, 1)), axis=1)[:, :n_votes]
    is_right = rng.random(who.shape) < np.asarray(rates)[who]
    votes = np.where(is_right, is_right[:, :1], ~is_right[:, :1]).astype(float)  # 1 = sides with the first vote
    names = [[f"w{i:03}" for i in row] for row in who]
    groups = [f"g{i % 50}" for i in range(n_pairs)]
    return pl.DataFrame({"votes": votes.tolist(), "annotators": names, "group": groups}), is_right[:, 0]


def swapped(pairs, rows):
    """The same pairs with the label of some given the other way round: every vote on them turns over."""
    is_swapped = pl.Series(rows)
    return pairs.with_columns(
        votes=pl.when(is_swapped).then(pl.col("votes").list.eval(1 - pl.element())).otherwise("votes")
    )


def verdicts(table, verdict):
    return table.filter(pl.col("verdict") == verdict)["annotator"].to_list()


def test_votes_without_a_side_or_a_name_are_left_out_and_counted():
    pairs = pl.DataFrame(
        {
            "votes": [[1.0, 0.0, 0.5, 0.8], None, [], [1.0, 1.0], [1.0, 0.0, 1.0, 1.0], [0.3, 0.9]],
            "annotators": [["a", None, "b", "c"], None, [], None, ["a", "a", "a", "b"], ["a", "a"]],
        }
    )
    assert vote_table(pairs).rows() == [(0, "a", 1.0), (0, "c", 1.0), (4, "a", 1.0), (4, "b", 1.0)]
    assert left_out(pairs) == {"n_votes": 12, "n_unnamed": 1 + 2, "n_ties": 1, "n_repeated": 2 + 2}


def test_alpha_of_the_published_example():
    counts = np.array([[unit.count(value) for value in range(1, 6)] for unit in zip(*OBSERVERS, strict=True)])
    assert round(nominal_alpha(counts), 3) == 0.743


def test_alpha_limits():
    assert nominal_alpha(np.array([[3, 0], [0, 2]])) == 1
    assert np.isnan(nominal_alpha(np.array([[3, 0], [2, 0]])))  # one value only: nothing could have differed
    assert np.isnan(nominal_alpha(np.array([[1, 0], [0, 1]])))  # no unit with two observers
    assert nominal_alpha(np.array([[1, 1]] * 10)) == pytest.approx(1 - 19 * 20 / (2 * 10 * 10))


def test_alpha_is_that_of_the_library():
    krippendorff = pytest.importorskip("krippendorff")
    counts = np.random.default_rng(0).integers(0, 4, (200, 3))
    expected = krippendorff.alpha(value_counts=counts, level_of_measurement="nominal")
    assert nominal_alpha(counts) == pytest.approx(expected, abs=1e-12)


def test_alpha_of_the_annotators_does_not_depend_on_which_side_is_chosen():
    pairs, _ = simulated([0.8] * 20)
    groups = pairs["group"].to_numpy()
    alpha = agreement_alpha(vote_table(pairs), groups)
    turned = agreement_alpha(vote_table(swapped(pairs, np.arange(2_000) % 3 == 0)), groups)
    assert (turned.value, turned.low, turned.high) == pytest.approx((alpha.value, alpha.low, alpha.high), abs=1e-12)
    assert alpha.low < (2 * 0.8 - 1) ** 2 < alpha.high  # two votes agree with chance r^2 + (1 - r)^2
    assert alpha.low < alpha.value < alpha.high
    assert (alpha.n_pairs, alpha.n_groups) == (2_000, 50)


def test_alpha_needs_two_votes_on_one_pair():
    votes = vote_table(pl.DataFrame({"votes": [[1.0], [0.0]], "annotators": [["a"], ["b"]]}))
    assert agreement_alpha(votes, np.array(["g", "h"])) is None


def test_planted_annotators_are_found_and_ordinary_ones_are_not():
    rates = [0.1] * 3 + [0.5] * 3 + [0.8] * 54
    pairs, _ = simulated(rates, n_pairs=3_000)
    table = annotator_table(vote_table(pairs), np.zeros(3_000))
    assert verdicts(table, "reversed") == ["w000", "w001", "w002"]
    assert verdicts(table, "random") == ["w003", "w004", "w005"]
    assert len(verdicts(table, "ordinary")) == 54
    found = reliability(vote_table(pairs), np.zeros(3_000))["reliability"].to_numpy()
    assert found == pytest.approx(np.array(rates), abs=0.1)  # drawn towards 0.8


def test_thousands_of_ordinary_annotators_give_no_false_alarms():
    pairs, _ = simulated([0.65] * 800, n_pairs=4_000)
    table = annotator_table(vote_table(pairs), np.zeros(4_000))
    assert (table["n_votes"] >= FEWEST_VOTES).mean() > 0.9
    assert (table["high"] < 0.5).sum() > 0  # by interval alone
    assert verdicts(table, "reversed") == []
    assert len(verdicts(table, "random")) <= 2


def test_votes_by_chance_make_nobody_reversed_and_show_no_agreement():
    pairs, _ = simulated([0.5] * 100, n_pairs=3_000)
    votes = vote_table(pairs)
    table = annotator_table(votes, np.zeros(3_000))
    assert table["agreement"].mean() == pytest.approx(0.5, abs=0.02)  # leave-one-out: no vote is held against itself
    assert verdicts(table, "reversed") == []
    alpha = agreement_alpha(votes, pairs["group"].to_numpy())
    assert alpha.low < 0 < alpha.high


def test_agreement_is_with_the_majority_of_the_others():
    pairs = pl.DataFrame({"votes": [[1.0, 1.0, 0.0]] * 12, "annotators": [["a", "b", "c"]] * 12})
    table = annotator_table(vote_table(pairs), np.zeros(12))
    assert table["n_votes"].to_list() == [0, 0, 12]  # for a and b the other two cancel out
    assert table["agreement"].to_list() == [None, None, 0.0]
    assert table["verdict"].to_list() == [None, None, "reversed"]
    assert table["high"][2] == pytest.approx(1 - 0.025 ** (1 / 12))  # Clopper and Pearson at 0 of 12


def test_the_ensemble_judges_annotators_who_are_alone_on_their_pairs():
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 2, 3_000)
    is_better = rng.random(3_000) < expit(odds)
    who = np.arange(3_000) % 10
    is_right = rng.random(3_000) < np.where(who == 0, 0.15, 0.85)
    votes = np.where(is_right, is_better, ~is_better).astype(float)
    pairs = pl.DataFrame({"votes": votes[:, None].tolist(), "annotators": [[f"w{i}"] for i in who]})
    found = reliability(vote_table(pairs), odds)
    assert found["reliability"].to_numpy() == pytest.approx(np.array([0.15] + [0.85] * 9), abs=0.08)
    assert verdicts(annotator_table(vote_table(pairs), odds), "reversed") == ["w0"]
    silent = reliability(vote_table(pairs), np.zeros(3_000))
    assert silent["reliability"].null_count() == 10  # nothing to compare: missing, not one half
    assert silent["n_votes"].sum() == 0


def test_posterior_adds_log_odds():
    votes = vote_table(pl.DataFrame({"votes": [[1.0, 0.0], [], [1.0]], "annotators": [["a", "b"], [], ["new"]]}))
    reliable = pl.DataFrame({"annotator": ["a", "b"], "reliability": [0.8, 0.6]})
    right = posterior(votes, reliable, np.log([0.5, 9.0, 9.0]))
    assert right[0] == pytest.approx(2 / (2 + 1.5))  # odds 0.5 x 4 / 1.5
    assert np.isnan(right[1:]).all()  # no vote, and a vote of somebody nothing is known of
    assert posterior(votes, reliable, np.array([np.nan, 0.0, 0.0]))[0] == pytest.approx(4 / 5.5)
    assert posterior(votes, reliable, np.array([50.0, 0.0, 0.0]))[0] == 0.999


def test_posterior_is_calibrated_where_its_assumptions_hold_and_better_than_either_part():
    rng = np.random.default_rng(1)
    pairs, is_right = simulated(rng.uniform(0.55, 0.9, 60), n_pairs=20_000, n_votes=3)
    clear = np.abs(rng.normal(0, 1.5, 20_000))
    odds = np.where((rng.random(20_000) < expit(clear)) == is_right, clear, -clear)
    votes = vote_table(pairs)
    both, alone = (posterior(votes, reliability(votes, x), x) for x in (odds, np.zeros(20_000)))
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        inside = (both >= low) & (both < low + 0.2)
        assert is_right[inside].mean() == pytest.approx(both[inside].mean(), abs=0.04)
    accuracy = [((score > 0.5) == is_right).mean() for score in (both, alone, expit(odds))]
    assert accuracy[0] > max(accuracy[1:]) + 0.02


def test_swapping_a_label_turns_its_posterior_over_and_leaves_the_annotators_alone():
    pairs, _ = simulated([0.2] + [0.8] * 20, n_pairs=600)
    odds = np.random.default_rng(0).normal(0, 1, 600)
    rows = np.arange(600) % 2 == 0
    one, other = vote_table(pairs), vote_table(swapped(pairs, rows))
    turned = np.where(rows, -odds, odds)
    assert annotator_table(one, odds).equals(annotator_table(other, turned))
    reliable, again = reliability(one, odds), reliability(other, turned)
    assert again["reliability"].to_numpy() == pytest.approx(reliable["reliability"].to_numpy(), abs=1e-9)
    right, back = posterior(one, reliable, odds), posterior(other, again, turned)
    assert np.where(rows, 1 - back, back) == pytest.approx(right, abs=1e-9)


def test_without_a_prior_the_model_is_that_of_crowd_kit():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas deprecations inside crowd-kit 1.4
        aggregation = pytest.importorskip("crowdkit.aggregation")
        pairs, _ = simulated(np.linspace(0.3, 0.9, 12), n_pairs=400)
        votes = vote_table(pairs)
        twice = pl.concat(  # every pair in either order, so that crowd-kit's prior of the two classes is even
            [votes, votes.with_columns(pair=pl.col("pair") + 400, vote=1 - pl.col("vote"))]
        )
        table = twice.rename({"pair": "task", "annotator": "worker", "vote": "label"}).to_pandas()
        theirs = aggregation.OneCoinDawidSkene(n_iter=200, tol=1e-12).fit(table)
    ours = reliability(votes, np.zeros(400), prior_votes=0.0)
    assert ours["reliability"].to_numpy() == pytest.approx(theirs.skills_[ours["annotator"].to_list()], abs=1e-4)
    right = posterior(votes, ours, np.zeros(400))
    assert right == pytest.approx(np.clip(theirs.probas_.loc[range(400), 1.0], 0.001, 0.999), abs=1e-3)


def test_no_votes_at_all_are_facts_too(make_pairs):
    facts = annotator_facts(make_pairs(("Sky?", "Blue.", "Red.")), np.zeros(1))
    assert (facts["n_votes"], facts["n_annotators"], facts["alpha"], facts["doubtful"]) == (0, 0, None, [])
    assert facts["agreement"] is None


def test_doubtful_annotators_come_reversed_first():
    pairs, _ = simulated([0.5] * 15 + [0.1] * 15 + [0.85] * 70, n_pairs=6_000)
    facts = annotator_facts(pairs, np.zeros(6_000))
    assert (facts["n_reversed"], facts["n_random"], facts["n_annotators"]) == (15, 15, 100)
    assert [row["verdict"] for row in facts["doubtful"]] == ["reversed"] * 15 + ["random"] * 5
    assert (sum(facts["distribution"]), sum(facts["distribution"][:8])) == (100, 15)  # the reversed agree below 40 %
    assert facts == annotator_facts(pairs, np.zeros(6_000))


def test_real_annotators(data_folder):
    pairs = read_pairs(str(data_folder / "ukp_convarg.jsonl.gz")).pairs
    facts = annotator_facts(pairs, np.zeros(len(pairs)))
    assert (facts["n_votes"], facts["n_unnamed"], facts["n_ties"]) == (84_445, 0, 84_445 - 65_340)
    assert (facts["n_pairs_several"], facts["n_annotators"]) == (16_279, 3_801)
    assert facts["alpha"]["value"] == pytest.approx(0.435, abs=0.001)
    assert facts["alpha"]["n_groups"] == 32
    assert facts["n_judged"] > 700
    assert facts["n_reversed"] == 0
    assert facts["n_random"] <= 2
    votes = vote_table(pairs)
    reliable = reliability(votes, np.zeros(len(pairs)))
    right = posterior(votes, reliable, np.zeros(len(pairs)))
    assert np.isnan(right).sum() == 16_927 - 16_800  # nothing but ties
    majority = votes.group_by("pair").agg(pl.col("vote").mean())
    united = majority.filter(pl.col("vote").is_in([0.0, 1.0]))
    assert ((right[united["pair"].to_numpy()] > 0.5) == (united["vote"] == 1).to_numpy()).all()

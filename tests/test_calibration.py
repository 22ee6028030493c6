import numpy as np
import polars as pl
import pytest
from scipy.special import expit
from simulated import votes

from curate.calibration import (
    calibrate,
    calibrate_on_verified,
    cross_fitted,
    fit_calibration,
    isotonic,
    label_prob_from_agreement,
    platt,
)
from curate.errors import CurateError
from curate.noise_rate import error_rate_among_clear


def test_an_ensemble_worse_than_chance_says_nothing():
    fitted = fit_calibration(np.repeat([1.0, -1.0], [40, 60]))
    assert fitted.agreement(np.array([5.0]))[0] == pytest.approx(0.5, abs=1e-3)


def test_votes_that_are_all_zero_say_nothing():
    assert fit_calibration(np.zeros(100)).agreement(np.zeros(1))[0] == 0.5


def test_label_prob_closed_forms():
    assert label_prob_from_agreement(np.array([0.5]), 0.25)[0] == pytest.approx(1 - 0.25)  # no evidence: the base rate
    prob = label_prob_from_agreement(np.linspace(0, 1, 101), 0.2)
    assert (np.diff(prob) >= 0).all()
    assert prob.min() > 0
    assert prob.max() < 1


def test_label_prob_is_calibrated_under_its_own_assumption():
    mean, is_wrong = votes(40_000, 0.2)
    strength = pl.DataFrame({"strength_mean": mean})
    table, facts = calibrate(strength, np.zeros(len(mean), bool), np.zeros(len(mean), bool), np.arange(len(mean)))
    assert facts["assumed_error_rate"] == pytest.approx(0.2, abs=0.02)
    predicted = table["label_prob"].to_numpy()
    for low in (0.2, 0.4, 0.6, 0.8):
        inside = (predicted >= low) & (predicted < low + 0.2)
        assert (~is_wrong[inside]).mean() == pytest.approx(predicted[inside].mean(), abs=0.06)


def test_a_weak_judge_does_not_take_its_own_errors_for_errors_of_the_labels():
    rng = np.random.default_rng(0)
    mean = rng.normal(0, 1, 5_000)
    mean = np.where(rng.random(5_000) < expit(0.3 * np.abs(mean)), 1, -1) * np.abs(mean)  # clean labels, weak votes
    table, facts = calibrate(pl.DataFrame({"strength_mean": mean}), *np.zeros((2, 5_000), bool), np.arange(5_000))
    assert facts["error_rate_among_clear"][2]["rate"] > 0.25
    assert facts["assumed_error_rate"] < 0.25
    assert (table["label_prob"] < 0.5).mean() < 0.02


def test_too_few_pairs_for_a_rate_leave_label_prob_missing():
    table, facts = calibrate(
        pl.DataFrame({"strength_mean": [1.0, -1.0]}), *np.zeros((2, 2), bool), np.array(["a", "b"])
    )
    assert table["label_prob"].null_count() == 2
    assert "assumed_error_rate" not in facts


def test_ties_have_no_label_prob_and_do_not_move_the_fit():
    mean, _ = votes(2_000, 0.1)
    with_ties = np.concatenate([mean, np.full(500, -3.0)])
    is_tie = np.arange(2_500) >= 2_000
    table, _ = calibrate(pl.DataFrame({"strength_mean": with_ties}), is_tie, np.zeros(2_500, bool), np.arange(2_500))
    without, _ = calibrate(pl.DataFrame({"strength_mean": mean}), *np.zeros((2, 2_000), bool), np.arange(2_000))
    assert table["label_prob"][:2_000].equals(without["label_prob"])
    assert table["label_prob"][2_000:].null_count() == 500


@pytest.mark.parametrize("n", [300, 3_000])
def test_agreement_is_symmetric_and_monotone(n):
    mean, _ = votes(n, 0.2)
    fitted = fit_calibration(mean)
    grid = np.linspace(-5, 5, 101)
    assert fitted.agreement(-grid) == pytest.approx(1 - fitted.agreement(grid))
    assert (np.diff(fitted.agreement(grid)) > 0).all()
    assert (np.diff(fitted.label_prob(grid)) >= 0).all()


def test_labels_of_held_out_pairs_do_not_touch_the_calibration():
    rng = np.random.default_rng(0)
    mean = rng.normal(1.0, 1.5, 1_000)
    is_heldout = np.arange(1_000) >= 800
    swapped = np.where(is_heldout, -mean, mean)
    one, other = (
        calibrate(pl.DataFrame({"strength_mean": m}), np.zeros(1_000, bool), is_heldout, np.arange(1_000))
        for m in (mean, swapped)
    )
    assert one[1] == other[1]
    assert one[0]["label_prob"][:800].equals(other[0]["label_prob"][:800])


def test_clear_pairs_without_an_error_do_not_switch_detection_off():
    """3 % of the labels are wrong, none of them among the clearest: the cap is what 0 of 50 leaves possible."""
    rng = np.random.default_rng(1)
    truth = np.abs(rng.normal(0.0, 2.0, 5_000))
    is_wrong = rng.random(5_000) < 0.03
    is_wrong[np.argsort(-truth)[:100]] = False
    mean = np.where(is_wrong, -truth, truth) + rng.normal(0.0, 0.3, 5_000)
    points = error_rate_among_clear(mean, np.arange(5_000))
    assert points[0].rate.value == 0
    assert points[0].at_most == pytest.approx(1 - 0.025 ** (1 / 50))
    table, _ = calibrate(pl.DataFrame({"strength_mean": mean}), *np.zeros((2, 5_000), bool), np.arange(5_000))
    is_found = (table["label_prob"] < 0.5).to_numpy()
    assert is_found[is_wrong].mean() > 0.5


def test_platt_is_logistic_regression_on_many_pairs():
    from sklearn.linear_model import LogisticRegression

    mean, is_wrong = votes(900, 0.2)
    fitted = platt(mean, (~is_wrong).astype(float))
    peer = LogisticRegression(C=1e6).fit(mean[:, None], ~is_wrong)
    grid = np.linspace(-3, 3, 13)
    assert fitted.label_prob(grid) == pytest.approx(peer.predict_proba(grid[:, None])[:, 1], abs=0.01)


def test_isotonic_is_scikit_learns_at_its_own_points():
    from sklearn.isotonic import IsotonicRegression

    mean, is_wrong = votes(3_000, 0.2)
    is_right = (~is_wrong).astype(float)
    fitted = isotonic(mean, is_right).label_prob(mean)
    peer = np.clip(IsotonicRegression().fit_transform(mean, is_right), 0.001, 0.999)
    assert np.abs(fitted - peer).mean() < 0.02  # ours is straight between the steps
    assert (np.diff(fitted[np.argsort(mean)]) >= 0).all()


@pytest.mark.parametrize("n", [300, 3_000])
def test_label_prob_from_verified_pairs_is_calibrated_where_people_err_on_unclear_pairs(n):
    rng = np.random.default_rng(0)
    truth = np.abs(rng.normal(0, 1.5, 20_000))
    is_wrong = rng.random(20_000) < 0.4 * expit(2 - 3 * truth)
    mean = np.where(is_wrong, -truth, truth)
    answers = pl.Series("verified", np.where(is_wrong, "wrong", "right"))
    answers = answers.set(pl.Series(np.arange(20_000) >= n), None)
    strength = pl.DataFrame({"strength_mean": mean})
    table, facts = calibrate_on_verified(strength, np.zeros(20_000, bool), np.arange(20_000), answers)
    predicted = table["label_prob"].to_numpy()
    bins = np.digitize(predicted, np.quantile(predicted, np.linspace(0.1, 0.9, 9)))
    gaps = [abs((~is_wrong[bins == b]).mean() - predicted[bins == b].mean()) for b in np.unique(bins)]
    assert np.mean(gaps) < 0.05
    assert facts["fit"] == ("platt" if n < 1_000 else "isotonic")
    assert facts["noise_rate"]["value"] == pytest.approx(is_wrong.mean(), abs=0.03)
    assert table["flip_p"].null_count() == n
    assert table["verified"].null_count() == 20_000 - n


def test_votes_that_speak_against_right_labels_are_worth_nothing():
    fitted = platt(np.array([-1.0, -2.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0, 0.0]))
    assert fitted.slope == 0
    assert fitted.label_prob(np.array([-9.0, 9.0])) == pytest.approx([0.5, 0.5], abs=1e-3)


def test_no_verified_pair_is_judged_by_a_fit_that_saw_its_prompt():
    """All pairs of a prompt have the same answer; only a fit that has seen it could tell them apart without a signal."""
    groups = np.repeat(np.arange(40), 10)
    is_right = np.repeat(np.random.default_rng(0).random(40) < 0.5, 10).astype(float)
    predicted = cross_fitted(platt, np.zeros(400), is_right, groups)
    assert np.unique(predicted).size <= 5
    assert np.abs(np.corrcoef(predicted, is_right)[0, 1]) < 0.6
    own = {group: predicted[groups == group] for group in range(40)}
    assert all(np.unique(values).size == 1 for values in own.values())


def test_isotonic_does_not_depend_on_the_order_of_equal_strengths():
    rng = np.random.default_rng(0)
    mean = np.concatenate([rng.normal(size=700), np.zeros(500)])
    is_right = (rng.random(1_200) < expit(mean + 0.3)).astype(float)
    order = rng.permutation(1_200)
    grid = np.linspace(-2, 2, 41)
    one, other = isotonic(mean, is_right), isotonic(mean[order], is_right[order])
    assert one.label_prob(grid) == pytest.approx(other.label_prob(grid), abs=1e-12)


def test_unsure_answers_are_left_out_of_rates_and_label_prob():
    mean, is_wrong = votes(2_000, 0.2)
    answers = pl.Series("verified", np.where(is_wrong, "wrong", "right")).set(pl.Series(np.arange(2_000) >= 400), None)
    unsure = answers.set(pl.Series(np.arange(2_000) % 4 == 0) & answers.is_not_null(), "unsure")
    strength = pl.DataFrame({"strength_mean": mean})
    table, facts = calibrate_on_verified(strength, np.zeros(2_000, bool), np.arange(2_000), unsure)
    assert (facts["n_unsure"], facts["noise_rate"]["n_verified"]) == (100, 300)
    only = unsure.replace("unsure", None)
    expected, _ = calibrate_on_verified(strength, np.zeros(2_000, bool), np.arange(2_000), only)
    assert table["label_prob"].equals(expected["label_prob"])
    with pytest.raises(CurateError, match="every answer is unsure"):
        nothing = answers.set(answers.is_not_null(), "unsure")
        calibrate_on_verified(strength, np.zeros(2_000, bool), np.arange(2_000), nothing)


def test_one_prompt_has_no_reliability():
    mean, is_wrong = votes(300, 0.2)
    answers = pl.Series("verified", np.where(is_wrong, "wrong", "right")).set(pl.Series(np.arange(300) >= 100), None)
    facts = calibrate_on_verified(pl.DataFrame({"strength_mean": mean}), *np.zeros((2, 300), bool), answers)[1]
    assert "label_prob" not in facts
    assert facts["noise_rate"]["n_verified"] == 100

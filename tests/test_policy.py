import polars as pl
import pytest

from curate.errors import CurateError
from curate.policy import DECISIONS_SCHEMA, decide, load_policy, margin_scale, policy_from, presets

CHECKS = (
    "identical_responses",
    "empty_response",
    "exact_duplicate_pair",
    "contradicting_labels",
    "equal_after_truncation",
)


def tables(means, label_probs=None, label_strengths=None, **checks):
    """Pairs, checks and strength of as many pairs as there are means; `checks` give the rows where one fires."""
    n = len(means)
    ids = [f"toy:train:{i}" for i in range(n)]
    turn = [{"role": "user", "content": "Hi"}]
    pairs = pl.DataFrame(
        {
            "pair_id": ids,
            "prompt": [turn] * n,
            "chosen": [turn] * n,
            "rejected": [turn] * n,
            "votes": [None] * n,
            "annotators": [None] * n,
            "label_strength": pl.Series(label_strengths or [None] * n, dtype=pl.Float64),
            "source": ["toy"] * n,
        }
    )
    fired = pl.DataFrame({"pair_id": ids, **{name: [i in checks.get(name, ()) for i in range(n)] for name in CHECKS}})
    strength = pl.DataFrame(
        {
            "pair_id": ids,
            "strength_mean": means,
            "strength_mean_raw": [mean / 10 for mean in means],
            "strength_std": [0.1] * n,
            "label_prob": pl.Series(label_probs or [None] * n, dtype=pl.Float64),
        }
    )
    return pairs, fired, strength


def rows(decisions):
    return decisions.select("action", "label_prob", "margin", "weight").rows()


def test_auto_drops_smooths_keeps_and_never_flips():
    means = [2.0, -1.0, 0.1, 0.5]
    decisions = decide(*tables(means, [0.99, 0.2, 0.7, 0.95]), load_policy("auto"))
    m = margin_scale(tables(means)[2])
    assert m == pytest.approx((0.05 + 0.1) / 2)
    assert decisions.schema == DECISIONS_SCHEMA
    assert decisions["action"].to_list() == ["keep", "drop", "smooth", "keep"]
    assert decisions["label_prob"].to_list() == [1.0, None, 0.7, 1.0]
    assert decisions["margin"].to_list() == pytest.approx([m, None, 0.1 * m, 0.5 * m])  # clipped to [-1, 1]
    assert decisions["weight"].to_list() == [1.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "check", ["identical_responses", "empty_response", "exact_duplicate_pair", "contradicting_labels"]
)
def test_auto_drops_what_a_check_found_and_says_which(check):
    decisions = decide(*tables([1.0, 1.0], [0.9, 0.9], **{check: [1]}), load_policy("auto"))
    assert decisions["action"].to_list() == ["keep", "drop"]
    assert decisions["reason"][1] != decisions["reason"][0]


def test_ties_are_kept_before_any_rule_and_never_flipped():
    always = policy_from(
        "always", {"rules": [{"where": "true", "do": "flip", "reason": "all"}], "margin": "raw"}, "x.yaml"
    )
    decisions = decide(*tables([-3.0, -3.0], label_strengths=[0.5, None]), always)
    assert decisions["action"].to_list() == ["keep", "flip"]
    assert decisions["reason"].to_list() == ["tie", "all"]
    assert rows(decisions)[0] == ("keep", 0.5, 0.0, 1.0)
    assert rows(decisions)[1] == ("flip", 1.0, pytest.approx(0.3), 1.0)  # a flip changes the sign of the margin


def test_secrets2_flip_takes_the_lowest_tenth_by_raw_mean():
    means = [float(i) for i in range(20)]
    decisions = decide(*tables(means), load_policy("secrets2-flip"))
    assert decisions["action"].to_list() == ["flip"] * 2 + ["keep"] * 18
    assert decisions["margin"].to_list() == [0.0] * 20


def test_secrets2_margins_are_raw_and_unclipped():
    means = [-30.0, 5.0]
    assert decide(*tables(means), load_policy("secrets2-margin"))["margin"].to_list() == [-3.0, 0.5]
    assert decide(*tables(means), load_policy("secrets2-flip-margin"))["margin"].to_list() == [3.0, 0.5]
    smoothed = decide(*tables(means), load_policy("secrets2-soft-margin"))
    assert rows(smoothed) == [("smooth", 0.8, -3.0, 1.0), ("keep", 1.0, 0.5, 1.0)]


def test_first_matching_rule_decides_and_null_conditions_do_not_hold():
    rules = [
        {"where": "label_prob < 0.5", "do": "drop", "reason": "first"},
        {"where": "strength_mean < 0", "do": "flip", "reason": "second"},
    ]
    decisions = decide(*tables([-1.0, -1.0, 1.0], [0.1, None, 0.9]), policy_from("mine", {"rules": rules}, "mine.yaml"))
    assert decisions["reason"].to_list() == ["first", "second", "no rule fired"]


def test_auto_without_label_prob_says_what_it_needs():
    with pytest.raises(CurateError, match="policy auto needs label_prob.*--scoring out-of-fold"):
        decide(*tables([1.0, -1.0]), load_policy("auto"))


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("no_such_column < 1", r"rule 1: 'no_such_column < 1': Binder Error.*columns: pair_id"),
        ("label_prob <", "rule 1: .*Parser Error"),
        ("label_prob", "is Float64, not true or false"),
        ("true); drop table pair; --", "rule 1: "),
        ("true) from pair; select (true", "rule 1: "),
        ("(select count(*) from read_text('/etc/hostname')) > 0", "Permission Error"),
        ("(select count(*) from '/etc/hostname') > 0", "rule 1: "),
    ],
)
def test_a_bad_condition_names_the_rule_and_reads_no_file(condition, message):
    policy = policy_from("mine", {"rules": [{"where": condition, "do": "drop", "reason": "r"}]}, "mine.yaml")
    with pytest.raises(CurateError, match=message):
        decide(*tables([1.0], [0.9]), policy)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([], "mine.yaml: a policy is a mapping with a list `rules`"),
        ({"rules": [], "margn": "raw"}, "unknown key 'margn'"),
        ({"rules": [], "margin": "huge"}, "unknown margin in mine.yaml 'huge': choose one of none, scaled, raw"),
        ({"rules": [{"where": "true"}]}, "mine.yaml, rule 1: a rule has exactly the keys where, do, reason"),
        ({"rules": [{"where": "true", "do": "filter", "reason": ""}]}, "choose one of keep, flip, drop, smooth"),
    ],
)
def test_a_bad_policy_file_is_refused(entry, message):
    with pytest.raises(CurateError, match=message):
        policy_from("mine", entry, "mine.yaml")


def test_smoothing_without_a_soft_label_is_refused():
    policy = policy_from("mine", {"rules": [{"where": "true", "do": "smooth", "reason": "r"}]}, "mine.yaml")
    with pytest.raises(CurateError, match="soft_label 'label_prob' is null for 1 pairs to smooth, first toy:train:0"):
        decide(*tables([1.0]), policy)


def test_load_policy_by_name_and_by_file(tmp_path):
    with pytest.raises(CurateError, match="unknown policy 'autos': choose one of auto, .*did you mean auto"):
        load_policy("autos")
    with pytest.raises(CurateError, match="no such policy file"):
        load_policy(str(tmp_path / "none.yaml"))
    file = tmp_path / "mine.yaml"
    file.write_text("rules:\n  - {where: strength_mean < 0, do: drop, reason: against}\n")
    assert load_policy(str(file)).rules[0].where == "strength_mean < 0"
    file.write_text("rules: [")
    with pytest.raises(CurateError, match="not YAML"):
        load_policy(str(file))
    assert {"auto", "secrets2-flip", "secrets2-margin", "secrets2-flip-margin", "secrets2-soft-margin"} <= set(
        presets()
    )


def test_a_rule_whose_reason_is_tie_makes_no_tie():
    entry = {"rules": [{"where": "true", "do": "keep", "reason": "tie"}], "margin": "raw"}
    assert rows(decide(*tables([3.0]), policy_from("mine", entry, "mine.yaml"))) == [("keep", 1.0, 0.3, 1.0)]


def test_a_policy_that_needs_an_unknown_column_is_refused():
    with pytest.raises(CurateError, match="policy mine needs nope, which this run has not"):
        decide(*tables([1.0]), policy_from("mine", {"rules": [], "needs": "nope"}, "mine.yaml"))

import polars as pl
import pytest

from curate.errors import CurateError
from curate.policy import (
    DECISIONS_SCHEMA,
    NO_RULE,
    decide,
    decide_by_rule,
    decide_with_rest,
    load_policy,
    margin_scale,
    policy_from,
    presets,
    rule_facts,
)

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
            "verified": pl.Series([None] * n, dtype=pl.String),
            "flip_is_certified": pl.Series([None] * n, dtype=pl.Boolean),
            "keep_is_certified": pl.Series([None] * n, dtype=pl.Boolean),
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
        ("no_such_column < 1", r"rule 1: 'no_such_column < 1': Binder Error at character 1: .*columns: pair_id"),
        ("label_prob <", "policy mine, rule 1: .*a condition is one expression: Parser Error"),
        ("label_prob", "is Float64, not true or false"),
        ("true); drop table pair; --", "rule 1: "),
        ("true) from pair; select (true", "rule 1: "),
        ("(select count(*) from read_text('/etc/hostname')) > 0", "rule 1: .*read_text is not allowed"),
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
        ({"rules": []}, "mine.yaml: no rule and no margin, so it would change nothing; add a rule, or margin: scaled"),
        ({"rules": [], "margin": "huge"}, "unknown margin in mine.yaml 'huge': choose one of none, scaled, raw"),
        ({"rules": [{"where": "true"}]}, "mine.yaml, rule 1: a rule has exactly the keys where, do, reason"),
        ({"rules": [{"where": "true", "do": "filter", "reason": ""}]}, "choose one of keep, smooth, flip, drop"),
    ],
)
def test_a_bad_policy_file_is_refused(entry, message):
    with pytest.raises(CurateError, match=message):
        policy_from("mine", entry, "mine.yaml")


def test_smoothing_without_a_soft_label_is_refused():
    policy = policy_from("mine", {"rules": [{"where": "true", "do": "smooth", "reason": "r"}]}, "mine.yaml")
    with pytest.raises(CurateError, match=r"soft_label 'label_prob' is null for pair toy:train:0 \(1 of 1 pairs"):
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
    with pytest.raises(CurateError, match="unknown needs in mine.yaml 'nope': choose one of label_prob, verified"):
        policy_from("mine", {"rules": [], "margin": "raw", "needs": "nope"}, "mine.yaml")
    with pytest.raises(CurateError, match="policy mine needs verified pairs: draw some with curate sample"):
        decide(*tables([1.0]), policy_from("mine", {"rules": [], "margin": "raw", "needs": "verified"}, "mine.yaml"))


def mine(*rules, **entries):
    """A user's policy of (condition, action) rules."""
    listed = [{"where": where, "do": do, "reason": f"{do} {i}"} for i, (where, do) in enumerate(rules, start=1)]
    return policy_from("mine", {"rules": listed, **entries}, "mine.yaml")


def test_every_pair_knows_the_rule_that_decided_it_and_the_facts_count_them_in_order():
    policy = mine(("strength_mean < 0", "drop"), ("strength_mean < -5", "flip"), ("strength_mean > 3", "keep"))
    decisions, rule = decide_by_rule(*tables([-9.0, -1.0, 1.0, 4.0], label_strengths=[None, None, None, 0.5]), policy)
    assert rule.to_list() == [0, 0, NO_RULE, NO_RULE]
    assert decisions["reason"].to_list() == ["drop 1", "drop 1", "no rule fired", "tie"]
    facts = rule_facts(rule, policy)
    assert [each["n_pairs"] for each in facts["rules"]] == [2, 0, 0]
    assert facts["rules"][0] == {"where": "strength_mean < 0", "do": "drop", "reason": "drop 1", "n_pairs": 2}
    assert facts["warnings"] == []


def test_a_policy_none_of_whose_rules_fires_is_said_to_do_nothing():
    policy = mine(("strength_mean < -99", "drop"), ("label_prob < 0.1", "flip"))
    rule = decide_by_rule(*tables([1.0, -1.0]), policy)[1]
    (warning,) = rule_facts(rule, policy)["warnings"]
    assert warning == "no rule of policy mine holds for any of the 2 pairs, so every label is kept as it is"
    margins_only = load_policy("secrets2-margin")
    assert rule_facts(decide_by_rule(*tables([1.0]), margins_only)[1], margins_only)["warnings"] == []


def test_a_rule_that_drops_everything_is_refused_by_its_number():
    ties = [None, None, 0.5]
    everything = mine(("strength_mean > 99", "flip"), ("strength_mean < 99", "drop"))
    with pytest.raises(CurateError, match="policy mine, rule 2: 'strength_mean < 99' and the rules after it drop"):
        decide(*tables([1.0, -1.0, 0.0], label_strengths=ties), everything)
    decide(*tables([1.0, -1.0], label_strengths=[0.5, 0.5]), everything)  # only ties, which no rule touches
    decide(*tables([1.0, 100.0]), everything)  # something remains
    assert decide(*tables([1.0], [0.1]), load_policy("auto"))["action"].to_list() == ["drop"]  # the data, not a slip


def test_rules_that_drop_everything_together_are_refused_and_most_is_said():
    with pytest.raises(CurateError, match="drop every one of the 3 pairs that are not ties"):
        decide(*tables([1.0, -1.0, 2.0]), mine(("strength_mean < 0", "drop"), ("true", "drop")))
    policy = mine(("strength_mean < 2", "drop"))
    (warning,) = rule_facts(decide_by_rule(*tables([1.0, -1.0, 2.0]), policy)[1], policy)["warnings"]
    assert warning == "policy mine drops 2 of the 3 pairs"


def test_a_soft_label_outside_0_to_1_is_refused():
    with pytest.raises(CurateError, match=r"soft_label '80' is 80.0 for pair toy:train:0 \(2 of 2 pairs to smooth\)"):
        decide(*tables([1.0, 2.0]), mine(("true", "smooth"), soft_label=80))


def test_a_guaranteed_policy_follows_the_answers_and_then_the_certificates():
    pairs, checks, strength = tables([-9.0, 9.0, -5.0, -4.0, 3.0, 2.0])
    strength = strength.with_columns(
        verified=pl.Series(["wrong", "right", "unsure", None, None, None]),
        flip_is_certified=pl.Series([None, None, None, True, False, False]),
        keep_is_certified=pl.Series([None, None, None, False, True, False]),
    )
    decisions = decide(pairs, checks, strength, load_policy("guaranteed"))
    assert decisions["action"].to_list() == ["flip", "keep", "keep", "flip", "keep", "drop"]
    assert decisions["reason"][:3].to_list() == ["verified"] * 3


def test_the_rest_is_decided_by_auto_with_its_own_margin_and_soft_label():
    pairs, checks, strength = tables([-9.0, 1.0, 2.0], [0.1, 0.6, 0.99])
    policy = mine(("strength_mean < -5", "smooth"), soft_label=0.8)
    decided, facts = decide_with_rest(pairs, checks, strength, policy, presets()["auto"])
    assert decided["label_prob"].to_list() == [0.8, 0.6, 1.0]
    scale = margin_scale(strength)
    assert decided["margin"].to_list() == pytest.approx([0.0, scale, scale])
    assert sum(each["n_pairs"] for each in facts["rules"]) == 2
    alone, _ = decide_with_rest(pairs, checks, strength, policy, None)
    assert alone["action"].to_list() == ["smooth", "keep", "keep"]


def test_select_easy_drops_the_fifth_with_the_highest_loss_and_no_tie():
    means = [float(i) for i in range(10)] + [-50.0]
    strengths = [None] * 10 + [0.5]
    decisions = decide(*tables(means, [0.9] * 11, strengths), load_policy("select-easy"))
    assert decisions["action"].to_list() == ["drop"] * 2 + ["keep"] * 9
    assert decide(*tables(means[:4], [0.9] * 4), load_policy("select-easy"))["action"].to_list() == ["keep"] * 4
    with pytest.raises(CurateError, match="policy select-easy needs label_prob"):
        decide(*tables(means), load_policy("select-easy"))


def test_conditions_that_add_or_draw_at_random_decide_the_same_every_time():
    many = tables([float(i % 7) for i in range(5000)])
    policy = mine(("random() < 0.5", "drop"), ("strength_mean > avg(strength_mean) over ()", "flip"))
    assert decide(*many, policy).equals(decide(*many, policy))

"""Strength and checks to one decision per pair; presets and user files are the same YAML rules (METHODS.md 3)."""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from curate.errors import CurateError, unknown_choice
from curate.pairs import is_tie
from curate.sql import evaluate_sql

ACTIONS = ("keep", "smooth", "flip", "drop")  # from what does least to a label to what does most
NEEDED = ("label_prob", "verified")
MOST_HELP = 300  # characters
MARGINS = ("none", "scaled", "raw")
TIE = "tie"
TRUSTED = "no rule fired"
RESTS = ("keep", "auto")  # what decides the pairs that no rule of a policy decides
MOSTLY = 0.5
NO_RULE = -1  # the number of the rule that decided a pair, where none did

DECISIONS_SCHEMA = pl.Schema(
    {
        "pair_id": pl.String,
        "action": pl.String,
        "reason": pl.String,
        "label_prob": pl.Float64,  # of the pair as exported: 1 for keep and flip, .5 for a tie, null for drop
        "margin": pl.Float64,  # of the pair as exported: sign changed for a flip, null for drop
        "weight": pl.Float64,  # 0 for drop
    }
)


@dataclass(frozen=True)
class Rule:
    """Pairs where an SQL condition holds get an action and a reason."""

    where: str
    do: str
    reason: str


@dataclass(frozen=True)
class Policy:
    """Rules, of which the first that matches decides, and how margin and soft label are computed."""

    name: str
    help: str
    rules: tuple[Rule, ...]
    margin: str = "none"
    soft_label: str = "label_prob"
    needs: str | None = None  # a strength column that must not be all null


def policy_from(name: str, entry: Any, place: str) -> Policy:
    """A policy from its YAML value; `place` (file, or preset) leads the messages of what is wrong with it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("rules"), list):
        raise CurateError(f"{place}: a policy is a mapping with a list `rules`; see curate decide --help")
    unknown = set(entry) - {"help", "needs", "rules", "margin", "soft_label"}
    if unknown:
        raise CurateError(
            f"{place}: unknown key {min(map(str, unknown))!r}: use help, needs, rules, margin, soft_label"
        )
    margin = str(entry.get("margin", "none"))
    if margin not in MARGINS:
        raise unknown_choice(f"margin in {place}", margin, MARGINS)
    rules = tuple(_rule_from(rule, f"{place}, rule {i}") for i, rule in enumerate(entry["rules"], start=1))
    if not rules and margin == "none":
        raise CurateError(f"{place}: no rule and no margin, so it would change nothing; add a rule, or margin: scaled")
    soft_label = str(entry.get("soft_label", "label_prob"))
    needs = entry.get("needs")
    if needs is not None and needs not in NEEDED:
        raise unknown_choice(f"needs in {place}", str(needs), NEEDED)
    return Policy(name, str(entry.get("help", ""))[:MOST_HELP], rules, margin, soft_label, needs)


def _rule_from(rule: Any, place: str) -> Rule:
    if not isinstance(rule, dict) or set(rule) != {"where", "do", "reason"}:
        raise CurateError(f"{place}: a rule has exactly the keys where, do, reason")
    if rule["do"] not in ACTIONS:
        raise unknown_choice(f"action in {place}", str(rule["do"]), ACTIONS)
    return Rule(str(rule["where"]), str(rule["do"]), str(rule["reason"]))


@cache
def presets() -> dict[str, Policy]:
    """The policies that come with prefcurate, by name."""
    text = resources.files("curate").joinpath("policies.yaml").read_text(encoding="utf-8")
    return {name: policy_from(name, entry, f"preset {name}") for name, entry in yaml.safe_load(text).items()}


def load_policy(name: str) -> Policy:
    """A preset by name, or a policy from a YAML file (a name that ends in .yaml or .yml)."""
    if not name.endswith((".yaml", ".yml")):
        if name not in presets():
            raise unknown_choice("policy", name, presets())
        return presets()[name]
    try:
        entry = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CurateError(f"{name}: no such policy file; or choose one of {', '.join(presets())}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise CurateError(f"{name}: not YAML: {' '.join(str(error).split())}") from None
    return policy_from(Path(name).stem, entry, name)


def missing(policy: Policy) -> str:
    """What to do where a run has not the column that a policy needs."""
    from curate.noise_rate import FEWEST_CLEAR

    if policy.needs == "verified":
        return (
            f"policy {policy.name} needs verified pairs: draw some with curate sample RUN --n 300 --to FILE, fill in "
            "label_is_right, and give the file as --verified FILE"
        )
    return (
        f"policy {policy.name} needs {policy.needs}, which this run has not: label_prob takes out-of-fold votes on "
        f"{FEWEST_CLEAR} pairs or more; vote with --scoring out-of-fold, or choose a secrets2-* policy"
    )


def decide(pairs: pl.DataFrame, checks: pl.DataFrame, strength: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """One decision per pair, in the order of `pairs` (columns: DECISIONS_SCHEMA).

    All three tables have one row per pair in the same order. `margin`, where the policy asks for one, is
    `margin_scale(strength)` x clip(strength_mean, -1, 1) (scaled), or strength_mean_raw (raw).
    """
    return decide_by_rule(pairs, checks, strength, policy)[0]


def decide_by_rule(
    pairs: pl.DataFrame, checks: pl.DataFrame, strength: pl.DataFrame, policy: Policy
) -> tuple[pl.DataFrame, pl.Series]:
    """The decisions, and the number of the rule that made each: from 0, or NO_RULE.

    Refused with a CurateError: a condition that is wrong, a column that the policy needs and that is missing, and rules
    of the user's own that drop every pair that is not a tie.
    """
    table = pl.concat([pairs, checks.drop("pair_id"), strength.drop("pair_id")], how="horizontal")
    if policy.needs and (policy.needs not in strength.columns or strength[policy.needs].is_null().all()):
        raise CurateError(missing(policy))
    facts = table.drop(
        "prompt", "chosen", "rejected", "votes", "annotators", strict=False
    )  # may be left out of `pairs`
    tie = table.select(is_tie()).to_series()
    rule = _first_match(facts, tie, policy)
    action, reason = _what_and_why(rule, tie, policy)
    _refuse_dropping_all(action, rule, tie, policy)
    place = f"policy {policy.name}, soft_label"
    soft = evaluate_sql(facts, [(policy.soft_label, place)])["0"].cast(pl.Float64, strict=False)
    decided = pl.DataFrame(
        {
            "pair_id": pairs["pair_id"],
            "action": action,
            "reason": reason,
            "soft": soft,
            "margin": _margin(strength, policy.margin),
            "is_tie": tie,
        }
    )
    _refuse_wrong_soft_label(decided, policy)
    is_dropped, is_flipped = pl.col("action") == "drop", pl.col("action") == "flip"
    label_prob = pl.when("is_tie").then(0.5).when(pl.col("action") == "smooth").then("soft").otherwise(1.0)
    has_none = pl.col("is_tie") | (pl.col("margin") == 0)  # never -0.0
    margin = pl.when(has_none).then(0.0).when(is_flipped).then(-pl.col("margin"))
    decisions = decided.with_columns(
        pl.when(~is_dropped).then(label_prob).alias("label_prob"),
        pl.when(~is_dropped).then(margin.otherwise(pl.col("margin"))).alias("margin"),
        pl.when(is_dropped).then(0.0).otherwise(1.0).alias("weight"),
    )
    return decisions.select(DECISIONS_SCHEMA.names()), rule


def decide_with_rest(
    pairs: pl.DataFrame, checks: pl.DataFrame, strength: pl.DataFrame, policy: Policy, rest: Policy | None
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The decisions of a policy, where none of its rules holds those of `rest`, and the facts of both policies' rules."""
    decided, rule = decide_by_rule(pairs, checks, strength, policy)
    facts = rule_facts(rule, policy)
    if rest is None:
        return decided, facts
    others, other_rule = decide_by_rule(pairs, checks, strength, rest)
    is_left = rule == NO_RULE  # ties too, which both keep
    facts["rules"] += rule_facts(other_rule.filter(is_left), rest)["rules"]
    columns = [pl.when(is_left).then(others[name]).otherwise(decided[name]).alias(name) for name in decided.columns]
    return decided.select(columns), facts


def _first_match(facts: pl.DataFrame, tie: pl.Series, policy: Policy) -> pl.Series:
    """The number of the first rule that holds for each pair; NO_RULE for ties, which are kept before any rule."""
    places = [f"policy {policy.name}, rule {i}" for i, _ in enumerate(policy.rules, start=1)]
    holds = evaluate_sql(facts, [(rule.where, place) for rule, place in zip(policy.rules, places, strict=True)])
    first = pl.lit(NO_RULE)
    for i, rule in reversed(list(enumerate(policy.rules))):
        if holds[str(i)].dtype not in (pl.Boolean, pl.Null):
            raise CurateError(f"{places[i]}: {rule.where!r} is {holds[str(i)].dtype}, not true or false")
        first = pl.when(pl.col(str(i)).fill_null(False)).then(pl.lit(i)).otherwise(first)
    return pl.DataFrame([tie.alias("tie"), *holds]).select(
        rule=pl.when("tie").then(pl.lit(NO_RULE)).otherwise(first).cast(pl.Int32)
    )["rule"]


def _what_and_why(rule: pl.Series, tie: pl.Series, policy: Policy) -> tuple[pl.Series, pl.Series]:
    """Action and reason of each pair from the number of its rule."""
    numbers = list(range(len(policy.rules)))
    actions = rule.replace_strict(numbers, [each.do for each in policy.rules], default="keep", return_dtype=pl.String)
    reasons = rule.replace_strict(
        numbers, [each.reason for each in policy.rules], default=TRUSTED, return_dtype=pl.String
    )
    return actions, pl.select(pl.when(tie).then(pl.lit(TIE)).otherwise(reasons)).to_series()


def _refuse_dropping_all(action: pl.Series, rule: pl.Series, tie: pl.Series, policy: Policy) -> None:
    """Rules that leave nothing are a slip of their author; where a preset does that, the data are broken, and it says so."""
    judged = action.filter(~tie)
    if judged.is_empty() or (judged != "drop").any() or policy in presets().values():
        return
    first = rule.filter(~tie).min()
    assert isinstance(first, int)
    raise CurateError(
        f"policy {policy.name}, rule {first + 1}: {policy.rules[first].where!r} and the rules after it drop every one of the "
        f"{len(judged)} pairs that are not ties, so nothing would remain; narrow the condition"
    )


def rule_facts(rule: pl.Series, policy: Policy) -> dict[str, Any]:
    """How many pairs each rule decided, in order, and a warning where no rule decided any, or most pairs are dropped."""
    counts = dict(rule.value_counts().rows())
    n_pairs = [int(counts.get(i, 0)) for i in range(len(policy.rules))]
    n_dropped = sum(n for n, each in zip(n_pairs, policy.rules, strict=True) if each.do == "drop")
    warnings = []
    if policy.rules and not any(n_pairs):
        warnings.append(
            f"no rule of policy {policy.name} holds for any of the {len(rule)} pairs, so every label is kept as it is"
        )
    if n_dropped > MOSTLY * len(rule):
        warnings.append(f"policy {policy.name} drops {n_dropped} of the {len(rule)} pairs")
    decided = zip(policy.rules, n_pairs, strict=True)
    rules = [{"where": each.where, "do": each.do, "reason": each.reason, "n_pairs": n} for each, n in decided]
    return {"rules": rules, "warnings": warnings}


def margin_scale(strength: pl.DataFrame) -> float:
    """m of METHODS.md section 3: the median |r_c - r_r| of the ensemble, in raw reward units."""
    return float(strength["strength_mean_raw"].abs().median() or 0.0)  # type: ignore[arg-type]


def _margin(strength: pl.DataFrame, margin: str) -> pl.Series:
    if margin == "raw":
        return strength["strength_mean_raw"].fill_null(0.0)
    if margin == "none":
        return pl.Series([0.0]).new_from_index(0, len(strength))
    return strength["strength_mean"].fill_null(0.0).clip(-1.0, 1.0) * margin_scale(strength)


def _refuse_wrong_soft_label(decided: pl.DataFrame, policy: Policy) -> None:
    smoothed = decided.filter(pl.col("action") == "smooth")
    wrong = smoothed.filter(~pl.col("soft").is_between(0.0, 1.0).fill_null(False))
    if len(wrong):
        found = wrong["soft"][0]
        raise CurateError(
            f"policy {policy.name}: soft_label {policy.soft_label!r} is {'null' if found is None else found} for pair "
            f"{wrong['pair_id'][0]} ({len(wrong)} of {len(smoothed)} pairs to smooth); give a chance between 0 and 1"
        )

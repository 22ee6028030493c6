"""Strength and checks to one decision per pair; presets and user files are the same YAML rules (METHODS.md 3)."""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import yaml

from curate.errors import CurateError, unknown_choice
from curate.pairs import is_tie

if TYPE_CHECKING:
    import duckdb

ACTIONS = ("keep", "flip", "drop", "smooth")
MARGINS = ("none", "scaled", "raw")
TIE = "tie"
TRUSTED = "no rule fired"

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
        raise CurateError(f"{place}: unknown key {sorted(unknown)[0]!r}: use help, needs, rules, margin, soft_label")
    margin = str(entry.get("margin", "none"))
    if margin not in MARGINS:
        raise unknown_choice(f"margin in {place}", margin, MARGINS)
    rules = tuple(_rule_from(rule, f"{place}, rule {i}") for i, rule in enumerate(entry["rules"], start=1))
    soft_label = str(entry.get("soft_label", "label_prob"))
    return Policy(name, str(entry.get("help", "")), rules, margin, soft_label, entry.get("needs"))


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
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CurateError(f"{name}: not YAML: {' '.join(str(error).split())}") from None
    return policy_from(Path(name).stem, entry, name)


def sandbox() -> "duckdb.DuckDBPyConnection":
    """A database that reads no file and no network, and whose settings can no longer be changed."""
    import duckdb

    connection = duckdb.connect(config={"autoload_known_extensions": "false", "autoinstall_known_extensions": "false"})
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def evaluate_sql(table: pl.DataFrame, expressions: list[tuple[str, str]]) -> pl.DataFrame:
    """One column per SQL expression over the table's columns, in row order.

    `expressions` are (expression, place) pairs; the columns are named "0", "1", ... A bad expression is refused with
    the place, the SQL error and the columns there are.
    """
    import duckdb

    columns = []
    with sandbox() as connection:
        connection.register("pair", table.with_row_index("_row").to_arrow())
        for i, (expression, place) in enumerate(expressions):
            query = f"SELECT ({expression}\n) AS value FROM pair ORDER BY _row"
            try:
                if len(connection.extract_statements(query)) != 1:
                    raise CurateError(f"{place}: {expression!r} is more than one SQL statement")
                value = pl.DataFrame(connection.sql(query).to_arrow_table())
            except duckdb.Error as error:
                message = " ".join(str(error).split())
                raise CurateError(f"{place}: {expression!r}: {message}; columns: {', '.join(table.columns)}") from None
            if value.columns != ["value"] or len(value) != len(table):
                raise CurateError(f"{place}: {expression!r} is not one SQL expression")
            columns.append(value["value"].alias(str(i)))
    return pl.DataFrame(columns)


def decide(pairs: pl.DataFrame, checks: pl.DataFrame, strength: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """One decision per pair, in the order of `pairs` (columns: DECISIONS_SCHEMA).

    All three tables have one row per pair in the same order. `margin`, where the policy asks for one, is
    `margin_scale(strength)` x clip(strength_mean, -1, 1) (scaled), or strength_mean_raw (raw).
    """
    table = pl.concat([pairs, checks.drop("pair_id"), strength.drop("pair_id")], how="horizontal")
    if policy.needs and (policy.needs not in strength.columns or strength[policy.needs].is_null().all()):
        from curate.calibration import FEWEST_CLEAR

        raise CurateError(
            f"policy {policy.name} needs {policy.needs}, which this run has not: label_prob takes out-of-fold votes on "
            f"{FEWEST_CLEAR} pairs or more; vote with --scoring out-of-fold, or choose a secrets2-* policy"
        )
    facts = table.drop("prompt", "chosen", "rejected", "votes", "annotators")
    tie = table.select(is_tie()).to_series()
    action, reason = _first_match(facts, tie, policy.rules)
    soft = evaluate_sql(facts, [(policy.soft_label, "soft_label")])["0"].cast(pl.Float64, strict=False)
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
    _refuse_missing_soft_label(decided, policy)
    is_dropped, is_flipped = pl.col("action") == "drop", pl.col("action") == "flip"
    label_prob = (
        pl.when("is_tie")
        .then(0.5)
        .when(pl.col("action") == "smooth")
        .then(pl.col("soft").clip(0.0, 1.0))
        .otherwise(1.0)
    )
    has_none = pl.col("is_tie") | (pl.col("margin") == 0)  # never -0.0
    margin = pl.when(has_none).then(0.0).when(is_flipped).then(-pl.col("margin"))
    return decided.with_columns(
        pl.when(~is_dropped).then(label_prob).alias("label_prob"),
        pl.when(~is_dropped).then(margin.otherwise(pl.col("margin"))).alias("margin"),
        pl.when(is_dropped).then(0.0).otherwise(1.0).alias("weight"),
    ).select(DECISIONS_SCHEMA.names())


def _first_match(facts: pl.DataFrame, tie: pl.Series, rules: tuple[Rule, ...]) -> tuple[pl.Series, pl.Series]:
    """Action and reason of the first rule that holds for each pair; ties are kept before any rule."""
    holds = evaluate_sql(facts, [(rule.where, f"rule {i}") for i, rule in enumerate(rules, start=1)])
    for i, rule in enumerate(rules):
        if holds[str(i)].dtype not in (pl.Boolean, pl.Null):
            raise CurateError(f"rule {i + 1}: {rule.where!r} is {holds[str(i)].dtype}, not true or false")
    action, reason = pl.lit("keep"), pl.lit(TRUSTED)
    for i, rule in reversed(list(enumerate(rules))):
        fires = pl.col(str(i)).fill_null(False)
        action = pl.when(fires).then(pl.lit(rule.do)).otherwise(action)
        reason = pl.when(fires).then(pl.lit(rule.reason)).otherwise(reason)
    decided = pl.DataFrame([tie.alias("tie"), *holds]).select(
        action=pl.when("tie").then(pl.lit("keep")).otherwise(action),
        reason=pl.when("tie").then(pl.lit(TIE)).otherwise(reason),
    )
    return decided["action"], decided["reason"]


def margin_scale(strength: pl.DataFrame) -> float:
    """m of METHODS.md section 3: the median |r_c - r_r| of the ensemble, in raw reward units."""
    return float(strength["strength_mean_raw"].abs().median() or 0.0)  # type: ignore[arg-type]


def _margin(strength: pl.DataFrame, margin: str) -> pl.Series:
    if margin == "raw":
        return strength["strength_mean_raw"].fill_null(0.0)
    if margin == "none":
        return pl.Series([0.0]).new_from_index(0, len(strength))
    return strength["strength_mean"].fill_null(0.0).clip(-1.0, 1.0) * margin_scale(strength)


def _refuse_missing_soft_label(decided: pl.DataFrame, policy: Policy) -> None:
    missing = decided.filter((pl.col("action") == "smooth") & pl.col("soft").is_null())
    if len(missing):
        raise CurateError(
            f"policy {policy.name}: soft_label {policy.soft_label!r} is null for {len(missing)} pairs to smooth, "
            f"first {missing['pair_id'][0]}; give a number instead"
        )

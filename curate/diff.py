"""What changed between two versions of a dataset, or two audits of one: counts as JSON, and a row per changed pair.

Everywhere A is the first run and B the second, columns end in `_a` and `_b`, and the numbers of B that have a sign are turned
to A's label: where the two labels are swapped, a vote for one is a vote against the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from curate.checks import meanings, severities
from curate.diff_side import COMPARED, Side
from curate.diff_words import headline, sentences
from curate.intervals import agreement_with_label, cluster_bootstrap
from curate.kinds import KINDS
from curate.match import PROMPT, RESPONSE, match_pairs
from curate.policy import ACTIONS

Facts = dict[str, Any]

DIFF_VERSION = 1
N_MOST_CHANGED = 20
CLEAREST = 0.05  # of the pairs, by strength: where the error rate among clear pairs is read

IS_BOTH = pl.col("row_a").is_not_null() & pl.col("row_b").is_not_null()
IS_TIE = (pl.col("is_tie_a"), pl.col("is_tie_b"))
IS_SWAPPED = pl.col("is_crossed") & ~IS_TIE[0] & ~IS_TIE[1]
IS_SAME_LABEL = IS_BOTH & ~pl.col("is_crossed") & ~IS_TIE[0] & ~IS_TIE[1]
STRENGTH_B = pl.when("is_crossed").then(-pl.col("strength_mean_b")).otherwise("strength_mean_b")  # for A's label

DATA_CHANGES = {
    "only in A": pl.col("row_b").is_null(),
    "only in B": pl.col("row_a").is_null(),
    "label swapped": IS_SWAPPED,
    "became a tie": ~IS_TIE[0] & IS_TIE[1],
    "no longer a tie": IS_TIE[0] & ~IS_TIE[1],
    "label strength changed": IS_SAME_LABEL & pl.col("label_strength_a").ne_missing(pl.col("label_strength_b")),
    RESPONSE: pl.col("match") == RESPONSE,
    PROMPT: pl.col("match") == PROMPT,
}
AUDIT_CHANGES = {
    "moved into held-out": ~pl.col("is_heldout_a") & pl.col("is_heldout_b"),
    "moved out of held-out": pl.col("is_heldout_a") & ~pl.col("is_heldout_b"),
    "action changed": pl.col("action_a") != pl.col("action_b"),
}
CHANGES = DATA_CHANGES | AUDIT_CHANGES
CHANGED_COLUMNS = (
    "pair_id_a", "pair_id_b", "source_a", "source_b", "change", "action_a", "action_b", "label_prob_a", "label_prob_b",
    "kind_a", "kind_b", "strength_mean_a", "strength_mean_b", "shift",
)  # fmt: skip


@dataclass(frozen=True)
class Diff:
    """What changed: `facts` as JSON values, `changed` with a row per changed pair, and `pairs` with a row per pair of either."""

    facts: Facts
    changed: pl.DataFrame
    pairs: pl.DataFrame


def diff(a: Side, b: Side) -> Diff:
    """What changed from A to B, in the data and in the audits; a stage that one of them lacks is named in `not_compared`."""
    pairs = side_by_side(a, b)
    parts = {
        "diff_version": DIFF_VERSION,
        "runs": {"a": a.name, "b": b.name},
        "data": data(pairs),
        "checks": checks(pairs, a, b),
        "votes": {"a": votes(a), "b": votes(b), "difference": accuracy_difference(pairs, a, b)},
        "strength": strength(pairs),
        "swapped": swapped(pairs),
        "kinds": transitions(pairs, "kind", tuple(KINDS)),
        "actions": transitions(pairs, "action", ACTIONS),
        "most_changed": most_changed(pairs),
        "settings": settings(a, b),
        "not_compared": [
            f"The {what} are not compared: stage {stage} {side.missing[stage]} in {name}."
            for stage, what in COMPARED.items()
            for name, side in (("A", a), ("B", b))
            if stage in side.missing
        ],
    }
    changed = pairs.filter(pl.col("change") != "").select(CHANGED_COLUMNS)
    found = {name: part for name, part in parts.items() if part is not None}
    facts = {**found, "n_changed_pairs": len(changed), "is_changed": is_changed(found)}
    return Diff({**facts, "headline": headline(facts), "sentences": sentences(facts)}, changed, pairs)


def side_by_side(a: Side, b: Side) -> pl.DataFrame:
    """One row per pair of either run: both its rows, how they were matched, what `change`d, and both audits of it.

    `shift` is how far the chance that the label is right has moved (or, where one of the runs knows none, the rank of the
    strength), null where the labels differ.
    """
    sides = [side.judged().select(pl.all().name.suffix(f"_{end}")) for side, end in ((a, "a"), (b, "b"))]
    table = (
        match_pairs(a.pairs, b.pairs)
        .join(sides[0], on="row_a", how="left", maintain_order="left")
        .join(sides[1], on="row_b", how="left", maintain_order="left")
    )
    measure = "label_prob" if _has_both(table, "label_prob") else "strength_rank"
    words = [pl.when(is_so).then(pl.lit(name)) for name, is_so in CHANGES.items()]
    return table.with_columns(
        change=pl.concat_str(words, separator=", ", ignore_nulls=True),
        shift=pl.when(IS_SAME_LABEL).then(pl.col(f"{measure}_b") - pl.col(f"{measure}_a")),
    )


def _has_both(table: pl.DataFrame, column: str) -> bool:
    """True where some pair has a value in both runs."""
    return bool(table.select((pl.col(f"{column}_a") + pl.col(f"{column}_b")).is_not_null().any()).item())


def data(pairs: pl.DataFrame) -> Facts:
    """How many pairs are in A, in B and in both, and with how many of them what happened; by source where there are several."""
    counts = pairs.select(
        n_a=pl.col("row_a").count(),
        n_b=pl.col("row_b").count(),
        n_both=IS_BOTH.sum(),
        n_changed=pl.any_horizontal(list(DATA_CHANGES.values())).sum(),
    ).to_dicts()[0]
    changes = pairs.select(is_so.sum().alias(name) for name, is_so in CHANGES.items()).to_dicts()[0]
    del changes["action changed"]  # is no property of the data
    found = {**counts, "changes": changes}
    by_source = sources(pairs)
    several = max(sum(row[side] > 0 for row in by_source) for side in ("n_a", "n_b")) > 1 if by_source else False
    return {**found, **({"sources": by_source} if several else {})}


def sources(pairs: pl.DataFrame) -> list[Facts]:
    """The same by source, the largest first; a pair that changed counts with its source in A and with that in B."""
    is_changed = pl.any_horizontal(list(DATA_CHANGES.values()))
    in_a = {"n_a": pl.col("row_a").is_not_null(), "n_only_a": DATA_CHANGES["only in A"]}
    in_b = {"n_b": pl.col("row_b").is_not_null(), "n_only_b": DATA_CHANGES["only in B"]}
    flags = pairs.with_columns(changed=is_changed & IS_BOTH, **in_a, **in_b)
    of_a = flags.select("changed", *in_a, name="source_a", n_b=False, n_only_b=False)
    of_b = flags.select(
        name="source_b", n_a=False, n_only_a=False, n_b="n_b", n_only_b="n_only_b",
        changed=pl.col("changed") & (pl.col("source_a") != pl.col("source_b")),
    )  # fmt: skip
    counted = pl.concat([of_a, of_b], how="diagonal").drop_nulls("name").group_by("name")
    names = ("n_a", "n_b", "n_only_a", "n_only_b")
    table = counted.agg(pl.col(*names).sum(), n_changed=pl.col("changed").sum())
    return table.sort(pl.max_horizontal("n_a", "n_b"), "name", descending=[True, False]).to_dicts()


def checks(pairs: pl.DataFrame, a: Side, b: Side) -> list[Facts] | None:
    """What each check finds in A and in B, and of the pairs in both what it newly finds and finds no longer.

    A check that one of the runs did not make has no count there. None where one of them has no checks.
    """
    if "check" not in a.tables or "check" not in b.tables:
        return None
    both = pairs.filter(IS_BOTH)
    rows = {"a": both["row_a"], "b": both["row_b"]}
    tables = {"a": a.tables["check"], "b": b.tables["check"]}
    names = dict.fromkeys(name for table in tables.values() for name in table.columns if name != "pair_id")
    return [_check(name, tables, rows) for name in names]


def _check(name: str, tables: dict[str, pl.DataFrame], rows: dict[str, pl.Series]) -> Facts:
    known = {"name": name, "severity": severities().get(name), "meaning": meanings().get(name)}
    found = {side: table[name] for side, table in tables.items() if name in table.columns}
    counts = {f"n_{side}": int(found[side].sum()) if side in found else None for side in tables}
    if len(found) < 2:
        return {**known, **counts, "n_new": None, "n_gone": None}
    in_a, in_b = (found[side].gather(rows[side]) for side in ("a", "b"))
    return {**known, **counts, "n_new": int((~in_a & in_b).sum()), "n_gone": int((in_a & ~in_b).sum())}


def votes(side: Side) -> Facts | None:
    """How good a judge the votes are: accuracy, worth of the members, error rate among the clearest pairs, noise rate."""
    voted, calibrated = side.facts("vote"), side.facts("strength")
    if not voted:
        return None
    is_out_of_fold = side.options("vote").get("scoring") == "out-of-fold"  # else the members had seen the labels
    curve = calibrated.get("error_rate_among_clear") or [None]
    parts = {
        "n_members": voted.get("n_members"),
        "effective_votes": voted.get("effective_votes"),
        "accuracy": voted.get("accuracy") if is_out_of_fold else None,
        "error_rate_among_clear": next((point for point in curve if point and point["top_share"] >= CLEAREST), None),
        "assumed_error_rate": calibrated.get("assumed_error_rate"),
        "noise_rate": calibrated.get("verified", {}).get("noise_rate"),
    }
    return {"is_out_of_fold": is_out_of_fold, **{name: part for name, part in parts.items() if part is not None}}


def accuracy_difference(pairs: pl.DataFrame, a: Side, b: Side) -> Facts | None:
    """How much more often the votes of B agree with the labels, on the pairs that have the same label in both; paired."""
    if not all(votes(side) and side.options("vote").get("scoring") == "out-of-fold" for side in (a, b)):
        return None
    strengths = ["strength_mean_a", "strength_mean_b"]
    judged = pairs.filter(IS_SAME_LABEL).drop_nulls(strengths)
    agrees = [agreement_with_label(judged[name].to_numpy()) for name in strengths]
    difference = cluster_bootstrap(agrees[1] - agrees[0], judged["group_a"].to_numpy())
    return difference.to_dict() if difference else None


def strength(pairs: pl.DataFrame) -> Facts | None:
    """How alike the strengths are on the pairs in both, and how many labels are suspected in one run only.

    `n_sign_changes` are pairs of which the votes now prefer the other response, whatever the label says;
    `n_prob_changed` labels, the same in both, that have another label_prob, `n_fell` and `n_rose` those of which it fell below
    one half or rose above it.
    """
    both = pairs.filter(IS_BOTH).with_columns(strength_b=STRENGTH_B).drop_nulls(["strength_mean_a", "strength_b"])
    if both.is_empty():
        return None
    prob_a, prob_b = pl.col("label_prob_a"), pl.col("label_prob_b")
    counts = both.select(
        n_pairs=pl.len(),
        n_equal=(pl.col("strength_mean_a") == pl.col("strength_b")).sum(),
        n_sign_changes=(pl.col("strength_mean_a").sign() * pl.col("strength_b").sign() < 0).sum(),
        n_with_prob=(IS_SAME_LABEL & prob_a.is_not_null() & prob_b.is_not_null()).sum(),
        n_prob_changed=(IS_SAME_LABEL & prob_a.ne_missing(prob_b)).sum(),
        n_fell=(IS_SAME_LABEL & (prob_a >= 0.5) & (prob_b < 0.5)).sum(),
        n_rose=(IS_SAME_LABEL & (prob_a < 0.5) & (prob_b >= 0.5)).sum(),
    )
    return {**counts.to_dicts()[0], "spearman": spearman(both["strength_mean_a"], both["strength_b"])}


def spearman(x: pl.Series, y: pl.Series) -> float | None:
    """The correlation of the ranks, equal values sharing theirs; None where one of them does not vary.

    >>> spearman(pl.Series([1.0, 2.0, 3.0]), pl.Series([10.0, 30.0, 20.0]))
    0.5
    """
    ranks = [series.rank("average").to_numpy() - (len(series) + 1) / 2 for series in (x, y)]
    spread = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float((ranks[0] * ranks[1]).sum()) / spread if spread > 0 else None


def swapped(pairs: pl.DataFrame) -> Facts | None:
    """Of the swapped labels with a label_prob in both runs: how many A suspected, and how many B does (below one half)."""
    known = pairs.filter(IS_SWAPPED).drop_nulls(["label_prob_a", "label_prob_b"])
    if known.is_empty():
        return None
    suspected = {f"n_suspected_{side}": int((known[f"label_prob_{side}"] < 0.5).sum()) for side in ("a", "b")}
    return {"n_pairs": len(known), **suspected}


def transitions(pairs: pl.DataFrame, column: str, names: Sequence[str]) -> Facts | None:
    """Of the pairs in both, how many have which value in A (rows) and in B (columns); None where one of the runs has none."""
    columns = [f"{column}_a", f"{column}_b"]
    known = pairs.filter(IS_BOTH).drop_nulls(columns)
    if known.is_empty():
        return None
    found = {(row, col): n for row, col, n in known.group_by(columns).len().iter_rows()}
    counts = [[found.get((row, col), 0) for col in names] for row in names]
    n_same = sum(counts[i][i] for i in range(len(names)))
    return {"names": list(names), "counts": counts, "n_pairs": len(known), "n_changed": len(known) - n_same}


def most_changed(pairs: pl.DataFrame) -> list[Facts]:
    """The pairs with the same label in both of which the audit thinks most differently, by the size of their `shift`."""
    moved = pairs.filter(pl.col("shift").is_not_null() & (pl.col("shift") != 0))
    worst = moved.sort(-pl.col("shift").abs(), "row_a").head(N_MOST_CHANGED)
    names = ("pair_id", "action", "label_prob", "strength_rank", "kind")
    return worst.select("shift", "change", *(f"{name}_{side}" for name in names for side in ("a", "b"))).to_dicts()


def settings(a: Side, b: Side) -> list[Facts]:
    """The options of stages, the versions and the input that differ, with both values; null where it is not known."""
    values = [_settings(side) for side in (a, b)]
    names = dict.fromkeys([*values[0], *values[1]])
    return [
        {"stage": stage, "option": option, "a": values[0].get((stage, option)), "b": values[1].get((stage, option))}
        for stage, option in names
        if values[0].get((stage, option)) != values[1].get((stage, option))
    ]


def _settings(side: Side) -> dict[tuple[str, str], Any]:
    stages = [name for name in side.manifest["stages"] if name != "report"]
    options = {(stage, name): value for stage in stages for name, value in side.options(stage).items()}
    versions = {("versions", name): value for name, value in side.manifest.get("versions", {}).items()}
    return {**options, **versions, ("run", "input"): side.manifest.get("input")}


def is_changed(facts: Facts) -> Facts:
    """Whether anything differs: in the data, in the audits of it, and in the settings."""
    strengths = facts.get("strength", {})
    moved = ("moved into held-out", "moved out of held-out")
    audits = [
        sum(facts["data"]["changes"][name] for name in moved),
        *(check[side] or 0 for check in facts.get("checks", []) for side in ("n_new", "n_gone")),
        strengths.get("n_pairs", 0) - strengths.get("n_equal", 0),
        strengths.get("n_prob_changed", 0),
        *(facts[name]["n_changed"] for name in ("kinds", "actions") if name in facts),
    ]
    return {"data": facts["data"]["n_changed"] > 0, "audits": any(audits), "settings": bool(facts["settings"])}

"""A run folder to one versioned JSON: everything that the report says, and nothing that the stages did not compute.

What was not computed is missing from the JSON, never zero. Nothing here depends on the clock, on where the run folder
is, or on the order in which a library sums.
"""

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from curate.checks import SEVERITIES
from curate.guarantee_words import guarantee_words
from curate.intervals import agreement_with_label, cluster_bootstrap, length_lead
from curate.pairs import is_tie
from curate.policy import ACTIONS
from curate.run import STAGES, Progress, Run, no_progress
from reports import label_errors
from reports.members import batch_warning, members
from reports.policies import policies
from reports.shown_pairs import shown_pairs
from reports.slices import slices, slicings
from reports.strengths import strength
from reports.verdict import verdict

FACTS_VERSION = 3

MOSTLY = 0.5

NO_EVIDENCE = {  # by scoring: why the members' agreement with the labels says nothing
    "in-sample": "The members scored pairs that they were trained on (--scoring in-sample), as the published method does: "
    "they have seen the labels they judge, so their agreement with them is no evidence.",
    "given": "The votes came with the data, and nothing says whether their models had seen the labels they judge: "
    "their agreement with them is no evidence, and label_prob is unknown without verified pairs.",
}

Facts = dict[str, Any]


def facts(run: Run, progress: Progress = no_progress) -> Facts:
    """Everything the report says about a run, as JSON values.

    Needs the stage `load`; every part that rests on another stage is left out where that stage has not run.
    """
    table = judged_pairs(run)
    calibrated = stage_facts(run, "strength") or {}
    judge = ensemble(run, table)
    ways = slicings(run, table)
    parts: dict[str, Callable[[], Any]] = {
        "facts_version": lambda: FACTS_VERSION,
        "data": lambda: data(run, table),
        "warnings": lambda: warnings(run, table),
        "ensemble": lambda: judge,
        "members": lambda: members(judge),
        "checks": lambda: checks(run, len(table)),
        "noise_rate": lambda: label_errors.noise_rate(calibrated),
        "clear_errors": lambda: label_errors.clear_errors(calibrated),
        "agreement": lambda: calibrated.get("agreement"),
        "label_prob": lambda: label_errors.label_prob(calibrated, table),
        "annotators": lambda: label_errors.annotators(calibrated),
        "decisions": lambda: decisions(run, table),
        "policies": lambda: policies(run, table),
        "strength": lambda: strength(table, ways),
        "slices": lambda: slices(table, ways, not _is_in_sample(run)),
        "settings": lambda: settings(run),
    }
    made = {}
    for done, (name, part) in enumerate(parts.items()):
        progress("report", done, len(parts))
        made[name] = part()
    computed = {name: part for name, part in {**made, **shown_pairs(run, table)}.items() if part is not None}
    progress("report", len(parts), len(parts))
    return {**computed, "verdict": verdict(computed)}


def judged_pairs(run: Run) -> pl.DataFrame:
    """One row per pair without its texts: identity, tie, length lead and, where computed, strength and decision.

    `length_lead` is the length null (log length of chosen minus rejected), `group` a number that sorts as the prompt groups
    do: numbers are counted and drawn faster. Tables join by position.
    """
    columns = ("pair_id", "group", "source", "is_heldout", is_tie().alias("is_tie"), length_lead().alias("length_lead"))
    read = run.scan("pairs").select(columns).collect(engine="streaming")
    table = read.with_columns(pl.col("group").rank("dense"))
    done = run.manifest["stages"]
    if "strength" in done:
        table = _beside(table, run.strength)
    if "decide" in done:
        table = _beside(table, run.decisions.select("pair_id", "action", "reason"))
    return table


def _beside(table: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """Two tables of the same pairs in the same order, side by side."""
    assert table["pair_id"].equals(other["pair_id"]), "stage tables have other pairs than pairs.parquet"
    return pl.concat([table, other.drop("pair_id")], how="horizontal")


def stage_facts(run: Run, stage: str) -> Facts | None:
    """The facts a stage left in `run.json`, None where it has not run or left none."""
    record: Facts = run.manifest["stages"].get(stage, {})
    return record.get("facts")


def data(run: Run, table: pl.DataFrame) -> Facts:
    """What was read: the facts of the stage `load`, and the sources by number of pairs."""
    sources = table["source"].value_counts(sort=True).sort("count", "source", descending=[True, False])
    return {
        **(stage_facts(run, "load") or {}),
        "n_pairs": len(table),
        "n_groups": table["group"].n_unique(),
        "n_ties": int(table["is_tie"].sum()),
        "n_heldout_pairs": int(table["is_heldout"].sum()),
        "sources": [{"name": name, "n_pairs": n} for name, n in sources.iter_rows()],
    }


def warnings(run: Run, table: pl.DataFrame) -> list[str]:
    """What a reader must know before any number: the warnings of the stages, and votes that prove nothing."""
    stages = ("check", "strength", "decide")
    found = [_sentence(text) for stage in stages for text in (stage_facts(run, stage) or {}).get("warnings", [])]
    if _is_in_sample(run):
        found.append(NO_EVIDENCE[_scoring(run)])
    voted, options = stage_facts(run, "vote") or {}, run.manifest["stages"].get("vote", {}).get("options", {})
    if voted.get("recurring_share", 0.0) > MOSTLY and options.get("folds_by") == "prompt":
        found.append(
            "Most responses stand in several pairs. With --folds-by pair the votes also use how a response fared in its other "
            "pairs, which finds more wrong labels here, but says less about new prompts."
        )
    moved = batch_warning(voted)
    if moved:
        found.append(moved)
    n_groups = table["group"].n_unique()
    if n_groups < 20:
        found.append(
            f"The pairs come from {n_groups} prompts only: intervals over fewer than 20 prompts are too narrow."
        )
    return found


def _sentence(text: str) -> str:
    """A warning as a sentence; stages write theirs as they follow "warning:" on the terminal.

    >>> _sentence("no rule holds")
    'No rule holds.'
    """
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _scoring(run: Run) -> str:
    options: Facts = run.manifest["stages"].get("vote", {}).get("options", {})
    return str(options.get("scoring"))


def _is_in_sample(run: Run) -> bool:
    """True where the members have seen the labels that they judge, or may have."""
    return _scoring(run) in NO_EVIDENCE


def ensemble(run: Run, table: pl.DataFrame) -> Facts | None:
    """The facts of the stage `vote`, whether votes are out of fold, the lead over the length null, and the votes' worth
    given the truth where there are verified pairs.
    """
    voted = stage_facts(run, "vote")
    if voted is None:
        return None
    made = {**voted, "is_out_of_fold": not _is_in_sample(run)}
    null = voted.get("length_null", {}).get("accuracy")
    if null is not None:
        made["length"] = length_rule(null)
    lead = None if _is_in_sample(run) else lead_over_length(table)
    given_truth = label_errors.votes_given_truth(stage_facts(run, "strength") or {})
    rest = {"lead_over_length": lead, "given_truth": given_truth}
    return {**made, **{name: part for name, part in rest.items() if part}}


def length_rule(null: Facts) -> Facts:
    """The better of two rules that need no training, "prefer the longer response" and "prefer the shorter one".

    `null` is the accuracy of preferring the longer response; where that is below one half, the other rule is 1 minus it.

    >>> length_rule({"value": 0.4, "low": 0.3, "high": 0.45, "n_pairs": 9, "n_groups": 9})["prefers"]
    'shorter'
    """
    if null["value"] >= 0.5:
        return {**null, "prefers": "longer"}
    mirrored = {"value": 1 - null["value"], "low": 1 - null["high"], "high": 1 - null["low"]}
    return {**null, **mirrored, "prefers": "shorter"}


def lead_over_length(table: pl.DataFrame) -> Facts | None:
    """Accuracy of the votes minus that of the better length rule on the same pairs, with a paired interval.

    Ties are left out. None without strengths or without a pair that is not a tie.
    """
    if "strength_mean" not in table.columns:
        return None
    judged = table.filter(~pl.col("is_tie") & pl.col("strength_mean").is_not_null())
    votes, longer = (agreement_with_label(judged[column].to_numpy()) for column in ("strength_mean", "length_lead"))
    length = longer if longer.sum() >= 0.5 * len(longer) else 1 - longer
    lead = cluster_bootstrap(votes - length, judged["group"].to_numpy())
    return lead.to_dict() if lead else None


def checks(run: Run, n_pairs: int) -> Facts | None:
    """The facts of the stage `check`, with one entry per check: name, meaning, count, share of all pairs, severity and fix.

    Runs of before 0.2 know no severity and no fix.
    """
    checked = stage_facts(run, "check")
    if checked is None:
        return None
    meanings = checked.get("meanings", {})
    known = {"severity": checked.get("severities", {}), "fix": checked.get("fixes", {})}
    found = [
        {"name": name, "meaning": meanings.get(name, ""), "n_pairs": n, "share": n / n_pairs}
        | {what: of[name] for what, of in known.items() if name in of}
        for name, n in checked.get("counts", {}).items()
    ]
    told = ("counts", "meanings", "severities", "fixes")
    rest = {name: value for name, value in checked.items() if name not in told}
    return {
        **rest,
        "found": found,
        **({"n_pairs_with": n_pairs_with(run, known["severity"])} if known["severity"] else {}),
    }


def n_pairs_with(run: Run, severities: Mapping[str, str]) -> Facts:
    """How many pairs have a finding of each severity that is worse than a note."""
    checked = run.scan("checks")
    names = checked.collect_schema().names()
    by = {severity: [name for name in names if severities.get(name) == severity] for severity in SEVERITIES[:2]}
    columns = [pl.any_horizontal(*by[severity], False).sum().alias(severity) for severity in by]
    return checked.select(columns).collect().row(0, named=True)


def decisions(run: Run, table: pl.DataFrame) -> Facts | None:
    """How many pairs get each action, and each action with each reason (both add up to all pairs), the rules of the policy
    with the pairs that each decided, and what verified pairs certify.
    """
    if "action" not in table.columns:
        return None
    actions = {action: int((table["action"] == action).sum()) for action in ACTIONS}
    assert sum(actions.values()) == len(table), "a pair without one of the four actions"
    reasons = (
        table.group_by("action", "reason")
        .len("n_pairs")
        .sort(
            pl.col("action").replace_strict(ACTIONS, range(len(ACTIONS))), -pl.col("n_pairs").cast(pl.Int64), "reason"
        )
    )
    return {
        **policy_facts(stage_facts(run, "decide") or {}),
        "n_pairs": len(table),
        "actions": actions,
        "reasons": reasons.to_dicts(),
    }


def policy_facts(decided: Facts) -> Facts:
    """Policy, rules and guarantee as the stage `decide` left them, with the sentences that the terminal prints too."""
    found = {name: decided[name] for name in ("policy", "help", "rules") if decided.get(name)}
    if not decided.get("guarantee"):
        return found
    is_asked = decided["asks_guarantee"]
    sentences = guarantee_words(decided["guarantee"], is_asked)
    return {**found, "guarantee": {**decided["guarantee"], "is_asked": is_asked, "sentences": sentences}}


def settings(run: Run) -> Facts:
    """The options of every stage that has run, and what `run.json` says of the run as a whole (seed, versions ...)."""
    manifest: Mapping[str, Any] = run.manifest
    done = manifest["stages"]
    stages = {name: done[name]["options"] for name in STAGES if name in done and name != "report"}
    whole = {name: value for name, value in manifest.items() if name != "stages"}
    return {"stages": stages, "run": whole}

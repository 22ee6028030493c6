"""The stages of an audit, each reading and writing the run folder; one that is fresh (see run.py) is not redone."""

import os
import shutil
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from curate import policy as policy_stage
from curate.errors import CurateError
from curate.formats import LoadOptions, ReadOptions, explain_format, load_facts, read_all, read_pairs, table_fingerprint
from curate.options import CheckOptions, DecideOptions, FeatureOptions, StrengthOptions, VoteOptions
from curate.pairs import is_tie
from curate.run import Progress, Run, key_of, no_progress, write_parquet
from curate.sources import Data, fingerprint_of
from curate.targets import refuse_run

IN_SAMPLE = "votes on pairs that a member trained on are no probabilities and certify nothing"


def versions() -> dict[str, str]:
    """The versions that results depend on."""
    return {
        name: version(name) for name in ("prefcurate", "torch", "transformers", "polars", "duckdb", "numpy", "scipy")
    }


def load(
    data: Data,
    out: str | os.PathLike[str],
    options: LoadOptions = LoadOptions(),
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Run:
    """Read a preference dataset into the run folder `out` (pairs.parquet); nothing is written if a row is bad.

    A folder that holds a run of other data is refused without `overwrite`, and so is one that holds other files.
    """
    run = Run(Path(out))
    is_beyond_repair = overwrite and not run.is_readable
    fingerprint = fingerprint_of(data, options.split)
    if (
        not is_beyond_repair
        and fingerprint
        and run.manifest.get("input") == fingerprint
        and run.is_fresh("load", asdict(options))
    ):
        return run
    loaded = read_pairs(data, options, progress)
    fingerprint = fingerprint or table_fingerprint(loaded.pairs)
    if not is_beyond_repair:
        refuse_run(run, fingerprint, overwrite)
    with run.lock():
        if is_beyond_repair or run.manifest.get("input") not in (None, fingerprint):
            run.clear()
        run.update(input=fingerprint, versions=versions())
        write_parquet(loaded.pairs, run.path / "pairs.parquet")
        run.record("load", asdict(options), [run.path / "pairs.parquet"], len(loaded.pairs), load_facts(loaded))
    return run


def explain(data: Data, reading: ReadOptions = ReadOptions()) -> list[str]:
    """One line per format: why it is the one that a dataset is read as, or why not; nothing is written."""
    return explain_format(data, reading)


def check(
    run: Run,
    options: FeatureOptions = FeatureOptions(),
    progress: Progress = no_progress,
    checking: CheckOptions = CheckOptions(),
) -> Run:
    """Run every data check (checks.parquet); lengths are in tokens of the backbone that will vote."""
    from rm_ensemble.backbone import backbone_identity

    other = _other_pairs(checking, progress)
    against = {} if other is None else {"against": checking.against, "other": table_fingerprint(other)}
    looked_for = {"near": checking.near, **({"pii": True} if checking.pii else {}), **against}
    used = {**backbone_identity(options.backbone), "max_tokens": options.max_tokens, **looked_for}
    if run.is_fresh("check", used):
        return run
    pairs = run.read("pairs")
    table, facts = _checked(pairs, other, options, checking, progress)
    with run.lock():
        write_parquet(table, run.path / "checks.parquet")
        run.record("check", used, [run.path / "checks.parquet"], len(table), facts)
    return run


def check_data(
    data: Data,
    reading: ReadOptions = ReadOptions(),
    options: FeatureOptions = FeatureOptions(),
    checking: CheckOptions = CheckOptions(),
    progress: Progress = no_progress,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Run every data check on a dataset; no model is run, nothing is written.

    Returns a table with `pair_id` and one boolean per check, in the order of the dataset, and what was found, as JSON values.
    """
    loaded = read_all(data, reading, progress)
    table, facts = _checked(loaded.pairs, _other_pairs(checking, progress), options, checking, progress)
    about = {"format": loaded.format, "notes": loaded.notes, "n_groups": loaded.pairs["group"].n_unique()}
    return table, {**about, **facts}


def _checked(
    pairs: pl.DataFrame,
    other: pl.DataFrame | None,
    options: FeatureOptions,
    checking: CheckOptions,
    progress: Progress,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The columns of the checks, and what was found."""
    from curate import checks as checks_stage
    from curate.check_overlap import overlap_facts

    lengths = pair_lengths(pairs, options, progress)
    table = checks_stage.check_table(pairs, lengths, checking, other, progress)
    progress("check", 0, len(pairs))
    checked = checks_stage.run_checks(table)
    progress("check", len(pairs), len(pairs))
    facts = checks_stage.check_facts(table, checked, options)
    return checked, facts | ({} if other is None else {"against": overlap_facts(table, other, str(checking.against))})


def pair_lengths(pairs: pl.DataFrame, options: FeatureOptions, progress: Progress) -> pl.DataFrame:
    """The token lengths of every pair that they can matter for, and null and false for the rest, in the order of `pairs`."""
    from curate.check_lengths import CHUNK, needs_tokens
    from rm_ensemble.batches import token_lengths

    asked = pairs.filter(needs_tokens(pairs, options.max_tokens))
    parts = []
    for start in range(0, len(asked), CHUNK):
        parts.append(token_lengths(asked.slice(start, CHUNK), options))
        progress("tokenise", min(start + CHUNK, len(asked)), len(asked))
    found = pairs.select("pair_id").join(pl.concat(parts), on="pair_id", how="left", maintain_order="left")
    return found.with_columns(pl.col("is_prompt_cut", "is_response_cut", "is_equal_after_cut").fill_null(False))


def _other_pairs(checking: CheckOptions, progress: Progress) -> pl.DataFrame | None:
    """The pairs to compare with, where there are any; read each time, for only so is it known whether the Hub's changed."""
    return None if checking.against is None else read_all(checking.against, ReadOptions(), _of_other(progress)).pairs


def _of_other(progress: Progress) -> Progress:
    """Progress with the file that is compared with, under names of its own."""
    return lambda what, done, total: progress(f"compared with: {what}", done, total)


def vote(run: Run, options: VoteOptions = VoteOptions(), progress: Progress = no_progress) -> Run:
    """Train the ensemble and let every member vote on every pair (votes/member-*.parquet).

    Where the data brings the votes of an ensemble (`n_score_lists`), those are taken and nothing is trained.
    """
    from rm_ensemble.backbone import backbone_identity
    from rm_ensemble.votes import vote as vote_pairs

    if n_given_votes(run):
        return _take_given_votes(run)
    found = [backbone_identity(name) for name in options.backbones]
    backbones = {name: ",".join(each[name] for each in found) for name in ("backbone", "backbone_files")}
    used = {**asdict(options), "folds": options.n_folds, "jobs": 1, "blocks": options.features.blocks, **backbones}
    if run.is_fresh("vote", used):
        return run
    pairs = run.read("pairs")
    with run.lock():
        of_any_member = run.key("vote", {name: value for name, value in used.items() if name != "members"})
        facts = vote_pairs(pairs, options, run.path, of_any_member, progress)
        members = sorted((run.path / "votes").glob("member-*.parquet"))
        run.record("vote", used, members, len(pairs), facts)
    return run


def n_given_votes(run: Run) -> int:
    """How many members' votes the data brought."""
    return int(run.stage("load").get("facts", {}).get("n_score_lists", 0))


def _take_given_votes(run: Run) -> Run:
    """Write the votes that the data brought as those of an ensemble (votes/member-*.parquet)."""
    from curate.given_votes import member_votes
    from rm_ensemble.votes import vote_facts

    used = {"ensemble": "given", "scoring": "given", "members": n_given_votes(run)}
    if run.is_fresh("vote", used):
        return run
    pairs = run.read("pairs")
    tables = member_votes(pairs)
    with run.lock():
        shutil.rmtree(run.path / "votes", ignore_errors=True)
        members = [run.path / "votes" / f"member-{number:02d}.parquet" for number in range(len(tables))]
        for table, file in zip(tables, members, strict=True):
            write_parquet(table, file)
        run.record("vote", used, members, len(pairs), vote_facts(pairs, tables))
    return run


def refuse_given_votes(run: Run, policy: policy_stage.Policy, is_verified: bool) -> None:
    """Votes that came with the data give no label_prob until some pairs are verified; a policy that needs it is refused."""
    if n_given_votes(run) and policy.needs and not is_verified:
        raise CurateError(
            f"policy {policy.name} needs {policy.needs}, and the votes came with the data: nothing says whether their models had "
            "seen these labels; choose a secrets2-* policy, add --verified FILE, or train our own members with --no-score-lists"
        )


def strength(run: Run, options: StrengthOptions = StrengthOptions(), progress: Progress = no_progress) -> Run:
    """Turn votes into strength, label_prob and kind (strength.parquet); with verified pairs, calibrated on them."""
    from curate.strength import read_votes, strength_table
    from curate.verified import read_verified

    scoring = run.options("vote")["scoring"]
    is_probability = scoring == "out-of-fold"
    verified = None
    if options.verified is not None:
        if scoring == "in-sample":
            raise CurateError(f"--verified {options.verified}: {IN_SAMPLE}; vote with --scoring out-of-fold")
        verified = read_verified(Path(options.verified), run.read("pairs"))
    used = {} if verified is None else {"verified": key_of(verified.to_list())}
    if run.is_fresh("strength", used):
        return run
    pairs = run.read("pairs")
    progress("strength", 0, 2)
    raw, folds = read_votes(run.path, pairs["pair_id"])
    progress("strength", 1, 2)
    table, facts = strength_table(pairs, raw, folds, is_probability, verified)
    with run.lock():
        write_parquet(table, run.path / "strength.parquet")
        run.record("strength", used, [run.path / "strength.parquet"], len(table), facts)
    progress("strength", 2, 2)
    return run


def decide(run: Run, options: DecideOptions = DecideOptions(), progress: Progress = no_progress) -> Run:
    """Decide what is done to every pair and why (decisions.parquet).

    Verified pairs that are given here are read into the strength first; later decisions keep them until `curate strength`
    is run without.
    """
    from curate.guarantee import DEFAULT_MAX_WRONG_FLIPS, certify

    policy = options.chosen
    run.stage("check")
    if options.verified is not None:
        strength(run, StrengthOptions(options.verified), progress)
    refuse_given_votes(run, policy, "verified" in run.options("strength"))
    max_wrong_flips = options.max_wrong_flips or DEFAULT_MAX_WRONG_FLIPS
    levels = {"max_wrong_flips": max_wrong_flips, "max_wrong_kept": options.max_wrong_kept}
    used = {"policy": policy.name, "rules": key_of(asdict(policy)), **levels, "rest": options.rest}
    if run.is_fresh("decide", used):
        return run
    pairs = run.read("pairs")
    ties = pairs.select(is_tie()).to_series().to_numpy()
    progress("decide", 0, 2)
    strengths, guarantee = certify(run.strength, ties, max_wrong_flips, options.max_wrong_kept)
    progress("decide", 1, 2)
    rest = policy_stage.presets()[options.rest] if options.rest != "keep" else None
    table, rule_facts = policy_stage.decide_with_rest(pairs, run.read("checks"), strengths, policy, rest)
    facts = {
        "policy": policy.name,
        "help": policy.help,
        "margin": policy.margin,
        "actions": {action: int((table["action"] == action).sum()) for action in policy_stage.ACTIONS},
        "reasons": dict(sorted(table["reason"].value_counts().rows())),
        "margin_scale": policy_stage.margin_scale(strengths),
        **rule_facts,
        "asks_guarantee": any("is_certified" in each.where for each in policy.rules),
        **({"guarantee": guarantee} if guarantee else {}),
    }
    with run.lock():
        write_parquet(table, run.path / "decisions.parquet")
        run.record("decide", used, [run.path / "decisions.parquet"], len(table), facts)
    progress("decide", 2, 2)
    return run


def report(run: Run, progress: Progress = no_progress) -> Run:
    """Write facts.json and report.html from what the run folder holds."""
    from reports.page import write_report

    run.stage("decide")
    if run.is_fresh("report", {}):
        return run
    with run.lock():
        write_report(run, progress)
        run.record("report", {}, [run.path / "facts.json", run.path / "report.html"], run.stage("load")["rows"])
    return run

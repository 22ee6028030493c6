"""The stages as functions, each reading and writing the run folder; the only file that reaches into the other packages.

A stage that is fresh (see run.py) is not redone. `rm_ensemble`, `reports` and what needs numpy are imported inside functions,
so that asking for help is quick and reading a dataset never loads torch.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from curate import export as export_stage
from curate import policy as policy_stage
from curate.errors import CurateError
from curate.formats import Loaded, LoadOptions, ReadOptions, explain_format, read_pairs
from curate.options import (
    CheckOptions,
    DecideOptions,
    FeatureOptions,
    RetrainOptions,
    ScoreOptions,
    StrengthOptions,
    VoteOptions,
)
from curate.pairs import is_tie
from curate.run import Progress, Run, key_of, no_progress, sha256_of, write_parquet
from curate.sources import files_of_rows

if TYPE_CHECKING:
    from curate.diff import Diff

Data = Any  # a path, a hub id, or a datasets / polars / pandas table
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
    fingerprint = _fingerprint(data, options.split)
    if (
        not is_beyond_repair
        and fingerprint
        and run.manifest.get("input") == fingerprint
        and run.is_fresh("load", asdict(options))
    ):
        return run
    loaded = read_pairs(data, options, progress)
    fingerprint = fingerprint or _table_fingerprint(loaded.pairs)
    if not is_beyond_repair:
        _refuse_foreign_run(run, fingerprint, overwrite)
    with run.lock():
        if is_beyond_repair or run.manifest.get("input") not in (None, fingerprint):
            run.clear()
        run.update(input=fingerprint, versions=versions())
        write_parquet(loaded.pairs, run.path / "pairs.parquet")
        run.record("load", asdict(options), [run.path / "pairs.parquet"], len(loaded.pairs), _load_facts(loaded))
    return run


def explain(data: Data, reading: ReadOptions = ReadOptions()) -> list[str]:
    """One line per format: why it is the one that a dataset is read as, or why not; nothing is written."""
    return explain_format(data, reading)


def _fingerprint(data: Data, split: str) -> str | None:
    """Hash of the names and bytes of the file, or of a folder's files of rows, that `data` names; None for anything else."""
    if not isinstance(data, str | os.PathLike) or not Path(data).exists():
        return None
    path = Path(data)
    files = [path] if path.is_file() else files_of_rows(path, split)
    return key_of([[file.name, sha256_of(file)] for file in files])


def _table_fingerprint(pairs: pl.DataFrame) -> str:
    content = pairs.drop("is_heldout").write_ipc(None).getvalue()
    return hashlib.sha256(content).hexdigest()[:16]


def _refuse_foreign_run(run: Run, fingerprint: str, overwrite: bool) -> None:
    """Only an empty or new folder, a run of the same input, or (with overwrite) a run of other data may be written to."""
    if run.path.exists() and not run.path.is_dir():
        raise CurateError(f"{run.path}: is a file; --out names a folder")
    if not run.path.exists() or all(file.name == ".lock" for file in run.path.iterdir()):
        return
    if not run.manifest_path.is_file():
        raise CurateError(f"{run.path}: holds files that are not a run's; choose another --out")
    if run.manifest.get("input") in (None, fingerprint):
        return
    if not overwrite:
        raise CurateError(f"{run.path}: holds a run of other data; choose another --out, or add --overwrite")


def _load_facts(loaded: Loaded) -> dict[str, Any]:
    pairs = loaded.pairs
    held = pairs.filter("is_heldout")
    return {
        "format": loaded.format,
        "form": loaded.form,
        "n_rows": loaded.n_rows,
        "n_pairs": len(pairs),
        "n_groups": pairs["group"].n_unique(),
        "n_heldout_groups": held["group"].n_unique(),
        "n_heldout_pairs": len(held),
        "n_ties": int(pairs.select(is_tie()).to_series().sum()),
        "n_graded": int(pairs["label_strength"].is_not_null().sum()),
        "n_with_votes": int(pairs["votes"].list.len().fill_null(0).gt(0).sum()),
        "notes": list(loaded.notes),
        "n_score_lists": loaded.n_score_lists,
    }


def check(
    run: Run,
    options: FeatureOptions = FeatureOptions(),
    progress: Progress = no_progress,
    checking: CheckOptions = CheckOptions(),
) -> Run:
    """Run every data check (checks.parquet); lengths are in tokens of the backbone that will vote."""
    from rm_ensemble.backbone import backbone_identity

    other = _other_pairs(checking, progress)
    against = {} if other is None else {"against": checking.against, "other": _table_fingerprint(other)}
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
) -> dict[str, Any]:
    """Run every data check on a dataset and return what was found, as JSON values; no model is run, nothing is written."""
    return checked_data(data, reading, options, checking, progress)[1]


def checked_data(
    data: Data,
    reading: ReadOptions = ReadOptions(),
    options: FeatureOptions = FeatureOptions(),
    checking: CheckOptions = CheckOptions(),
    progress: Progress = no_progress,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The same, after the table of it: `pair_id` and one boolean per check, in the order of the dataset."""
    loaded = _read_all(data, reading, progress)
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

    lengths = _token_lengths(pairs, options, progress)
    table = checks_stage.check_table(pairs, lengths, checking, other, progress)
    progress("check", 0, len(pairs))
    checked = checks_stage.run_checks(table)
    progress("check", len(pairs), len(pairs))
    facts = checks_stage.check_facts(table, checked, options)
    return checked, facts | ({} if other is None else {"against": overlap_facts(table, other, str(checking.against))})


def _other_pairs(checking: CheckOptions, progress: Progress) -> pl.DataFrame | None:
    """The pairs to compare with, where there are any; read each time, for only so is it known whether the Hub's changed."""
    return None if checking.against is None else _all_pairs(checking.against, ReadOptions(), _of_other(progress))


def _token_lengths(pairs: pl.DataFrame, options: FeatureOptions, progress: Progress) -> pl.DataFrame:
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


def vote(run: Run, options: VoteOptions = VoteOptions(), progress: Progress = no_progress) -> Run:
    """Train the ensemble and let every member vote on every pair (votes/member-*.parquet).

    Where the data brings the votes of an ensemble (`n_score_lists`), those are taken and nothing is trained.
    """
    from rm_ensemble.backbone import backbone_identity
    from rm_ensemble.votes import vote as vote_pairs

    if _n_given_votes(run):
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


def _n_given_votes(run: Run) -> int:
    """How many members' votes the data brought."""
    return int(run.stage("load").get("facts", {}).get("n_score_lists", 0))


def _take_given_votes(run: Run) -> Run:
    """Write the votes that the data brought as those of an ensemble (votes/member-*.parquet)."""
    from curate.given_votes import member_votes
    from rm_ensemble.votes import vote_facts

    used = {"ensemble": "given", "scoring": "given", "members": _n_given_votes(run)}
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


def _refuse_given_votes(run: Run, policy: policy_stage.Policy, is_verified: bool) -> None:
    """Votes that came with the data give no label_prob until some pairs are verified; a policy that needs it is refused."""
    if _n_given_votes(run) and policy.needs and not is_verified:
        raise CurateError(
            f"policy {policy.name} needs {policy.needs}, and the votes came with the data: nothing says whether their models had "
            "seen these labels; choose a secrets2-* policy, add --verified FILE, or train our own members with --no-score-lists"
        )


def sample(run: Run, to: str | os.PathLike[str], n: int = 300, seed: int = 0, overwrite: bool = False) -> pl.DataFrame:
    """Draw pairs uniformly at random for a person to verify, and write them to `to` (.csv, .jsonl or .parquet)."""
    from curate.answer import refuse_target, write_table
    from curate.verified import sample_pairs

    drawn = sample_pairs(run.read("pairs"), n, seed)
    refuse_target(Path(to), run.path, overwrite)
    write_table(drawn, Path(to))
    return drawn


def strength(run: Run, options: StrengthOptions = StrengthOptions()) -> Run:
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
    raw, folds = read_votes(run.path, pairs["pair_id"])
    table, facts = strength_table(pairs, raw, folds, is_probability, verified)
    with run.lock():
        write_parquet(table, run.path / "strength.parquet")
        run.record("strength", used, [run.path / "strength.parquet"], len(table), facts)
    return run


def decide(run: Run, options: DecideOptions = DecideOptions()) -> Run:
    """Decide what is done to every pair and why (decisions.parquet).

    Verified pairs that are given here are read into the strength first; later decisions keep them until `curate strength`
    is run without.
    """
    from curate.guarantee import DEFAULT_MAX_WRONG_FLIPS, certify

    policy = options.chosen
    run.stage("check")
    if options.verified is not None:
        strength(run, StrengthOptions(options.verified))
    _refuse_given_votes(run, policy, "verified" in run.options("strength"))
    max_wrong_flips = options.max_wrong_flips or DEFAULT_MAX_WRONG_FLIPS
    levels = {"max_wrong_flips": max_wrong_flips, "max_wrong_kept": options.max_wrong_kept}
    used = {"policy": policy.name, "rules": key_of(asdict(policy)), **levels, "rest": options.rest}
    if run.is_fresh("decide", used):
        return run
    pairs = run.read("pairs")
    ties = pairs.select(is_tie()).to_series().to_numpy()
    strengths, guarantee = certify(run.strength, ties, max_wrong_flips, options.max_wrong_kept)
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


def audit(
    data: Data,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress = no_progress,
    **options: Any,
) -> Run:
    """Read, check, vote, strength, decide, report: the whole audit of a preference dataset into the run folder `out`.

    `data` is a path, a folder of shards, a hub id, or a datasets, polars or pandas table. `options` are the fields of
    LoadOptions, VoteOptions and DecideOptions, such as members=10, policy="auto", seed=0. What is already there and
    fresh is not redone. Raises CurateError for what the caller can fix.
    """
    from curate.verified import read_verified

    load_options, vote_options, decide_options = options_from(options, LoadOptions, VoteOptions, DecideOptions)
    _refuse_before_work(vote_options, decide_options)
    run = load(data, out, load_options, overwrite, progress)
    _refuse_given_votes(run, decide_options.chosen, decide_options.verified is not None)
    _refuse_too_few(run, decide_options)
    if decide_options.verified is not None:
        read_verified(Path(decide_options.verified), run.read("pairs"))  # refused before the long stages
    check(run, vote_options.features, progress)
    vote(run, vote_options, progress)
    strength(run, StrengthOptions(decide_options.verified))
    decide(run, replace(decide_options, verified=None))  # the strength has them
    return report(run, progress)


def _refuse_before_work(voting: VoteOptions, deciding: DecideOptions) -> None:
    """What can be refused before anything is read or written: the policy, the backbone, and a policy the votes cannot serve."""
    from rm_ensemble.backbone import compute_device, compute_dtype, find_backbone

    policy = deciding.chosen
    if (policy.needs or deciding.verified) and voting.scoring == "in-sample":
        what = f"policy {policy.name} needs {policy.needs}" if policy.needs else f"--verified {deciding.verified}"
        raise CurateError(f"{what}, and {IN_SAMPLE}; leave out --scoring in-sample, or choose a secrets2-* policy")
    if policy.needs == "verified" and deciding.verified is None:
        raise CurateError(policy_stage.missing(policy))
    if deciding.verified is not None and not Path(deciding.verified).is_file():
        raise CurateError(f"--verified {deciding.verified}: no such file; draw one with curate sample and answer it")
    for name in voting.backbones:
        find_backbone(name)
    compute_dtype(voting.dtype, compute_device())


def _refuse_too_few(run: Run, deciding: DecideOptions) -> None:
    """Too few labels for label_prob, before the long stages and where a policy needs it; several annotators give it too."""
    from curate.noise_rate import FEWEST_CLEAR

    facts = run.stage("load")["facts"]
    if deciding.chosen.needs != "label_prob" or deciding.verified or facts["n_score_lists"] or facts["n_with_votes"]:
        return
    n_labels = len(run.scan("pairs").filter(~is_tie() & ~pl.col("is_heldout")).select("pair_id").collect())
    if n_labels < FEWEST_CLEAR:
        raise CurateError(
            f"{run.path}: {n_labels} pairs with a label to learn from (ties and held-out prompts aside), and policy "
            f"{deciding.chosen.name} needs {FEWEST_CLEAR}; give more data or --heldout-share 0, choose --policy "
            "secrets2-margin, or run the checks alone: curate check DATA"
        )


def options_from(given: Mapping[str, Any], *classes: Any) -> list[Any]:
    """One instance of each options class from flat keyword arguments; refuses a name that none of them has."""
    fields = [set(cls.__dataclass_fields__) for cls in classes]
    unknown = set(given) - set().union(*fields)
    if unknown:
        known = ", ".join(sorted(set().union(*fields)))
        raise CurateError(f"unknown option {sorted(unknown)[0]!r}: choose from {known}")
    return [
        getattr(cls, "of", cls)(**{name: given[name] for name in names & set(given)})
        for cls, names in zip(classes, fields, strict=True)
    ]


def export(
    run: Run,
    to: str | os.PathLike[str],
    options: export_stage.ExportOptions = export_stage.ExportOptions(),
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, int]:
    """Write the cleaned dataset to the folder `to`; returns the counts, which add up to the pairs read.

    What was written and why pairs were left out is in its provenance.json.
    """
    from curate.card import languages_of
    from curate.writers import FOR_TRL, WRITERS, read_scores

    decided = run.stage("decide")
    _refuse_foreign_folder(Path(to), overwrite, "provenance.json")
    to = Path(to).absolute()  # "." has no name to write beside
    pairs, form = run.read("pairs"), run.stage("load")["facts"]["form"]
    columns = [run.decisions, run.strength.drop("pair_id", "label_prob")]
    if WRITERS[options.format].needs_scores:
        columns.append(read_scores(run.path, pairs["pair_id"]))
    split = export_stage.split_pairs(pairs, pl.concat(columns, how="horizontal"), options, form)
    provenance = {
        "source": pairs["source"][0],
        "input": run.manifest["input"],
        "versions": run.manifest["versions"],
        "policy": decided["facts"]["policy"],
        "margin_scale": decided["facts"]["margin_scale"],
        "languages": languages_of(split.curated),
        **(_lengths_for_trl(split.curated, progress) if options.format in FOR_TRL else {}),
        "options": {name: stage["options"] for name, stage in run.manifest["stages"].items()},
    }
    export_stage.write_export(to, split, form, options, provenance, progress)
    return split.counts


def _lengths_for_trl(curated: pl.DataFrame, progress: Progress) -> dict[str, Any]:
    """How many exported pairs are over TRL's limit, and whose tokens were counted: those of the backbone that is always there.

    The pairs read were counted by the stage check, but those that were dropped or not carried among them.
    """
    from curate.card import TRL_MAX_LENGTH
    from curate.check_lengths import length_facts

    counting = FeatureOptions(max_tokens=TRL_MAX_LENGTH)
    found = length_facts(_token_lengths(curated, counting, progress))
    name = f"n_over_{TRL_MAX_LENGTH}_tokens"
    return {name: found[name], "tokens_of": counting.backbone}


def push(folder: str | os.PathLike[str], repo: str, *, private: bool = False, overwrite: bool = False) -> str:
    """Upload an export folder as the dataset `repo` (org/name) of the Hub, count its rows there, and return its address."""
    from curate.push import push as push_folder

    rows = read_provenance(folder)["rows"]
    return push_folder(Path(folder), repo, rows, private=private, overwrite=overwrite)


def read_provenance(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What provenance.json says of an export."""
    found: dict[str, Any] = json.loads((Path(folder) / "provenance.json").read_text(encoding="utf-8"))
    return found


def _refuse_foreign_folder(to: Path, overwrite: bool, marker: str) -> None:
    """A non-empty folder is only replaced with `overwrite`, and only if it holds what this command once wrote."""
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return
    if not overwrite:
        raise CurateError(f"{to}: not empty; choose another --to, or add --overwrite")
    if not (to / marker).is_file():
        raise CurateError(f"{to}: holds no {marker}, so it was not written by this command; choose another --to")


def retrain(
    run: Run,
    to: str | os.PathLike[str],
    options: RetrainOptions = RetrainOptions(),
    test: Data | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Train a reward model on the curated split and one on the raw split, and compare them on held-out prompts.

    Writes the model folder of DESIGN.md and returns comparison.json. `test` is another dataset (gold labels, say) to
    compare on; a prompt group that it shares with the run is refused.
    """
    from rm_ensemble.retrain import retrain as retrain_pairs

    facts = run.stage("decide")["facts"]
    _refuse_foreign_folder(Path(to), overwrite, "comparison.json")
    test_pairs = None if test is None else _all_pairs(test, ReadOptions(), progress)
    is_raw_margin = facts["margin"] == "raw"
    return retrain_pairs(
        run.read("pairs"),
        run.decisions,
        Path(to).absolute(),
        options,
        features_folder=run.path / "features",
        test=test_pairs,
        margin_scale=None if is_raw_margin else facts["margin_scale"],
        progress=progress,
    )


def _all_pairs(data: Data, reading: ReadOptions, progress: Progress = no_progress) -> pl.DataFrame:
    """The pairs of a dataset that is only judged."""
    return _read_all(data, reading, progress).pairs


def _read_all(data: Data, reading: ReadOptions, progress: Progress) -> Loaded:
    """A dataset that is only judged, so that nothing of it is held out."""
    return read_pairs(data, LoadOptions(**asdict(reading), heldout_share=0.0), progress)


def _of_other(progress: Progress) -> Progress:
    """Progress with the file that is compared with, under names of its own."""
    return lambda what, done, total: progress(f"compared with: {what}", done, total)


def sql(run: Run, statement: str) -> pl.DataFrame:
    """The answer of one select statement over the tables of the run: pairs, checks, strength, decisions.

    Only tables that the statement names are read, and of those only the columns it needs; nothing else can be reached.
    """
    from curate import sql as sql_stage

    done = [name for name, stage in sql_stage.TABLES.items() if stage in run.manifest["stages"]]
    asked = sql_stage.named_tables(statement) or done  # one that has not been made yet is refused: which stage to run
    return sql_stage.query({name: run.scan(name) for name in asked}, statement)


def compare(
    run: Run,
    policies: Sequence[str],
    retraining: RetrainOptions | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """What each policy (a preset or a YAML file) would do, side by side; nothing is written to the run.

    With `retraining`, a reward model is trained on the decisions of each and compared with the raw one on the held-out
    prompts; the raw model is the same for all.
    """
    from curate.compare import compare as compare_policies
    from curate.guarantee import DEFAULT_MAX_WRONG_FLIPS, certify

    if not policies:
        raise CurateError(f"no policy to compare: choose from {', '.join(policy_stage.presets())}, or name YAML files")
    loaded = {name: policy_stage.load_policy(name) for name in policies}
    pairs = run.read("pairs")
    strengths, _ = certify(run.strength, pairs.select(is_tie()).to_series().to_numpy(), DEFAULT_MAX_WRONG_FLIPS, None)

    def worth(decisions: pl.DataFrame, policy: policy_stage.Policy) -> dict[str, Any]:
        from rm_ensemble.retrain import retrain as retrain_pairs

        assert retraining is not None
        with tempfile.TemporaryDirectory(prefix="curate-compare-") as folder:
            return retrain_pairs(
                pairs,
                decisions,
                Path(folder) / "model",
                retraining,
                features_folder=run.path / "features",
                margin_scale=None if policy.margin == "raw" else policy_stage.margin_scale(strengths),
                progress=lambda what, done, total: progress(f"{policy.name}: {what}", done, total),
            )

    return compare_policies(pairs, run.read("checks"), strengths, loaded, worth if retraining else None, progress)


def diff(a: Run, b: Run, progress: Progress = no_progress) -> "Diff":
    """What changed from run `a` to run `b`, two versions of a dataset or two audits of one; nothing is written."""
    from curate.diff import diff as diff_sides
    from curate.diff_side import names_of, read_side

    sides = []
    for run, name in zip((a, b), names_of(a, b), strict=True):
        sides.append(read_side(run, name))
        progress("compare runs", len(sides), 3)
    found = diff_sides(*sides)
    progress("compare runs", 3, 3)
    return found


def diff_page(found: "Diff", a: Run, b: Run, to: str | os.PathLike[str]) -> None:
    """Write what changed as one HTML page that opens offline."""
    from reports.diff_page import write_diff_page

    write_diff_page(found, a, b, Path(to))


def score(
    model: str | os.PathLike[str],
    data: Data,
    to: str | os.PathLike[str],
    reading: ReadOptions = ReadOptions(),
    overwrite: bool = False,
    progress: Progress = no_progress,
    *,
    others: Sequence[str | os.PathLike[str]] = (),
    scoring: ScoreOptions = ScoreOptions(),
) -> pl.DataFrame:
    """Score every pair of a dataset with a saved reward model; writes pair_id, reward_chosen, reward_rejected to `to`.

    With `others`, more model folders, those rewards are a combination of all models', and each model's own follow.
    """
    from rm_ensemble.artefact import score as score_pairs
    from rm_ensemble.criteria import score_together

    if Path(to).exists() and not overwrite:
        raise CurateError(f"{to}: exists; choose another --to, or add --overwrite")
    models = [Path(folder) for folder in (model, *others)]
    if scoring.combine == "weighted":
        scoring.weights_of(len(models))
    if not others and scoring.combine != "mean":
        raise CurateError(f"--combine {scoring.combine}: one model has nothing to combine; add --with MODEL2")
    pairs = _all_pairs(data, reading, progress)
    table = (
        score_together(models, pairs, scoring, progress)
        if others
        else score_pairs(models[0], pairs, progress, scoring.deterministic)
    )
    write_parquet(table, Path(to))
    return table


def evaluate(
    model: str | os.PathLike[str],
    data: Data,
    reading: ReadOptions = ReadOptions(),
    progress: Progress = no_progress,
    by: str | None = None,
) -> dict[str, Any]:
    """Accuracy, margin, NLL and ECE of a saved reward model on a labelled dataset, with intervals and the nulls.

    Also the same by slice (source, category, subset, length, and the column `by`), means over subsets, and best-of-n.
    """
    from rm_ensemble.artefact import score as score_pairs
    from rm_ensemble.best_of_n import best_of_n, graded_responses
    from rm_ensemble.evaluate import evaluate_scores
    from rm_ensemble.slices import slice_metrics, slicings, subset_means

    pairs = _all_pairs(data, reading, progress)
    sliced = slicings(pairs, by)  # an unknown column is refused before anything is scored
    scores = score_pairs(Path(model), pairs, progress)
    return {
        **evaluate_scores(pairs, scores),
        "slices": {name: slice_metrics(pairs, scores, slicing) for name, slicing in sliced.items()},
        "subsets": subset_means(pairs, scores, sliced["subset"]) if "subset" in sliced else None,
        "best_of_n": best_of_n(graded_responses(pairs, scores)),
    }


__all__ = [
    "audit", "check", "check_data", "checked_data", "compare", "decide", "diff", "diff_page", "evaluate", "explain", "export",
    "load", "push", "report", "retrain", "sample", "score", "sql", "strength", "vote",
]  # fmt: skip

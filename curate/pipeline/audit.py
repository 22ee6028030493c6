"""All stages in a row, and what can be refused before the first of them."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from curate import policy as policy_stage
from curate.errors import CurateError
from curate.formats import LoadOptions
from curate.options import DecideOptions, StrengthOptions, VoteOptions, options_from
from curate.pairs import is_tie
from curate.pipeline.stages import IN_SAMPLE, check, decide, load, refuse_given_votes, report, strength, vote
from curate.run import Progress, Run, no_progress
from curate.sources import Data


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
    refuse_given_votes(run, decide_options.chosen, decide_options.verified is not None)
    _refuse_too_few(run, decide_options)
    if decide_options.verified is not None:
        read_verified(Path(decide_options.verified), run.read("pairs"))  # refused before the long stages
    check(run, vote_options.features, progress)
    vote(run, vote_options, progress)
    strength(run, StrengthOptions(decide_options.verified), progress)
    decide(run, replace(decide_options, verified=None), progress)  # the strength has them
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
            f"{run.path}: labels to learn from, ties and held-out prompts aside: {n_labels}, and policy "
            f"{deciding.chosen.name} needs {FEWEST_CLEAR}; give more data or --heldout-share 0, choose --policy "
            "secrets2-margin, or run the checks alone: curate check DATA"
        )

"""The ensemble's votes: every member, a seed and a plan of folds, scores every pair by a model that did not see it."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.intervals import Estimate, agreement_with_label, cluster_bootstrap, length_difference
from curate.options import VoteOptions
from curate.pairs import is_tie
from curate.run import Progress, no_progress, write_parquet
from curate.strength import effective_votes, mean_correlation, member_correlation, one_scale
from rm_ensemble.batches import unique_texts
from rm_ensemble.features import features
from rm_ensemble.folds import FoldPlan, may_train, plan_folds, plan_in_sample, units
from rm_ensemble.heads import PairTargets, PairWeights, train_heads
from rm_ensemble.inputs import HeadInputs, text_effects
from rm_ensemble.text_features import text_features

Floats = NDArray[np.float64]


def vote(pairs: pl.DataFrame, options: VoteOptions, folder: Path, progress: Progress = no_progress) -> dict[str, Any]:
    """Write `votes/member-00.parquet` ... and `features/` into `folder`; returns facts for run.json.

    The facts: members, folds, effective votes and the correlation they come from, accuracy of the ensemble, of each member
    and of the length null on the given labels (ties aside), what was cut, and what the models chose.
    """
    texts, index = unique_texts(pairs)
    read = features(texts, options.features, folder / "features", progress)
    text = text_features(texts)
    inputs = HeadInputs.fit(read.blocks, text, index)(read.blocks, text)
    if options.folds_by == "pair":
        inputs = np.concatenate([inputs, text_effects(index, len(inputs))], axis=1)
    plans, seeds = plan_members(pairs, options)
    targets = PairTargets(index, np.ones(len(pairs), np.float32), np.zeros(len(pairs), np.float32))
    weights = PairWeights(
        np.concatenate([plan.weight for plan in plans], axis=1),
        np.concatenate([plan.part for plan in plans], axis=1),
    )
    heads = train_heads(inputs, targets, weights, seeds=seeds, progress=progress)
    rewards = heads.rewards(inputs)
    tables = [_member_table(pairs, index, rewards, plan, i, options) for i, plan in enumerate(plans)]
    for i, table in enumerate(tables):
        write_parquet(table, folder / "votes" / f"member-{i:02d}.parquet")
    return {
        **_facts(pairs, tables),
        "recurring_share": recurring_share(index),
        **read.facts,
        "n_folds": plans[0].weight.shape[1],
        "n_dims": inputs.shape[1],
        "penalties": {str(penalty): heads.settings.count(penalty) for penalty in sorted(set(heads.settings))},
    }


def recurring_share(index: NDArray[np.int64]) -> float:
    """The share of pairs both of whose texts stand in other pairs too; `index` is (pairs, 2).

    >>> recurring_share(np.array([[0, 1], [0, 1], [0, 2], [3, 4]]))   # 2 / 4
    0.5
    """
    n_pairs = np.bincount(index.ravel())
    return float((n_pairs[index] > 1).all(axis=1).mean()) if len(index) else 0.0


def plan_members(pairs: pl.DataFrame, options: VoteOptions) -> tuple[list[FoldPlan], tuple[int, ...]]:
    """Each member's fold plan, and one seed per model; all spawned from the run's one seed."""
    unit, teaches = units(pairs, options.folds_by), may_train(pairs)
    plans, seeds = [], []
    for member in np.random.SeedSequence(options.seed).spawn(options.members):
        rng = np.random.default_rng(member)
        is_in_sample = options.scoring == "in-sample"
        plan = plan_in_sample(unit, teaches, rng) if is_in_sample else plan_folds(unit, teaches, options.folds, rng)
        plans.append(plan)
        seeds += member.generate_state(plan.weight.shape[1]).tolist()
    return plans, tuple(seeds)


def _member_table(
    pairs: pl.DataFrame, index: NDArray[np.int64], rewards: Any, plan: FoldPlan, member: int, options: VoteOptions
) -> pl.DataFrame:
    """The votes of one member: each pair's two rewards by the model of its fold."""
    n_folds = plan.weight.shape[1]
    model = member * n_folds + plan.fold  # (pairs,)
    return pl.DataFrame(
        {
            "pair_id": pairs["pair_id"],
            "reward_chosen": rewards[index[:, 0], model],
            "reward_rejected": rewards[index[:, 1], model],
            "fold": plan.fold.astype(np.int16),
            "is_out_of_fold": np.full(len(pairs), options.scoring == "out-of-fold"),
        }
    )


def _facts(pairs: pl.DataFrame, tables: list[pl.DataFrame]) -> dict[str, Any]:
    raw = np.column_stack([table["reward_chosen"].cast(pl.Float64) - table["reward_rejected"] for table in tables])
    scaled = one_scale(raw, np.column_stack([table["fold"] for table in tables]))  # (pairs, members)
    judged = pairs.select(~is_tie()).to_series().to_numpy()
    groups = pairs["group"].to_numpy()[judged]
    correlation = member_correlation(scaled)
    rho = mean_correlation(correlation)
    return {
        "n_members": len(tables),
        "correlation": [[round(value, 4) for value in row] for row in correlation.tolist()],
        "mean_correlation": rho,
        "effective_votes": effective_votes(len(tables), rho),
        "accuracy": _accuracy(scaled.mean(axis=1)[judged], groups),
        "member_accuracy": agreement_with_label(scaled[judged]).mean(axis=0).tolist(),
        "length_null": {"accuracy": _accuracy(length_difference(pairs)[judged], groups)},
    }


def _accuracy(difference: Floats, groups: NDArray[Any]) -> dict[str, Any] | None:
    estimate: Estimate | None = cluster_bootstrap(agreement_with_label(difference), groups)
    return estimate.to_dict() if estimate else None

"""The ensemble's votes: every member, a seed and a plan of folds, scores every pair by a model that did not see it."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.intervals import Estimate, agreement_with_label, cluster_bootstrap, length_difference
from curate.options import VoteOptions
from curate.pairs import is_tie
from curate.run import Progress, no_progress, write_parquet
from curate.strength import effective_votes, mean_correlation, member_correlation, one_scale
from rm_ensemble.backbone import find_backbone, load_tokenizer
from rm_ensemble.batches import is_cut, text_segments, unique_texts
from rm_ensemble.features import Features, features
from rm_ensemble.folds import FoldPlan, may_train, plan_folds, plan_in_sample, units
from rm_ensemble.heads import Heads, PairTargets, PairWeights, train_heads
from rm_ensemble.inputs import HeadInputs, text_effects
from rm_ensemble.text_features import text_features
from rm_ensemble.vote_files import member_table, probe_rows

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]


def vote(
    pairs: pl.DataFrame, options: VoteOptions, folder: Path, key: str = "", progress: Progress = no_progress
) -> dict[str, Any]:
    """Write `votes/member-00.parquet` ... and `features/` into `folder`; returns facts for run.json.

    `key` stands for all that decides a member's votes beside its number: of an ensemble that is fine-tuned, the members of
    this key that are there already stay. The facts: members, folds, effective votes and the correlation they come from,
    accuracy of the ensemble, of each member and of the length null on the given labels (ties aside), what was cut, and
    what the models chose or cost.
    """
    texts, index = unique_texts(pairs)
    make = _vote_heads if options.ensemble == "head" else _vote_fine_tuned
    made = make(pairs, texts, index, options, folder, key, progress)
    tables = [pl.read_parquet(file) for file in sorted((folder / "votes").glob("member-*.parquet"))]
    names = [Path(options.backbone_of(member)).name for member in range(options.members)]
    return {
        **vote_facts(pairs, tables),
        "recurring_share": recurring_share(index),
        "member_backbone": names,
        **made,
    }


def _vote_heads(
    pairs: pl.DataFrame,
    texts: pl.DataFrame,
    index: Ints,
    options: VoteOptions,
    folder: Path,
    _: str,
    progress: Progress,
) -> dict[str, Any]:
    """Heads are trained anew each time, in seconds; members of one backbone all at once."""
    shutil.rmtree(folder / "votes", ignore_errors=True)
    plans, seeds = plan_members(pairs, options)
    n_folds, facts = plans[0].weight.shape[1], {}
    settings: list[Any] = []
    tolerances: list[float] = []
    widths: list[int] = []
    for backbone in options.backbones[::-1]:  # the facts of the first one count
        members = [number for number in range(options.members) if options.backbone_of(number) == backbone]
        own_seeds = tuple(seeds[number * n_folds + fold] for number in members for fold in range(n_folds))
        read, to_inputs, inputs = _head_inputs(texts, index, replace(options, backbone=backbone), folder, progress)
        ensemble = train_ensemble(inputs, index, [plans[number] for number in members], own_seeds, progress)
        rewards = ensemble.rewards(index)
        for place, number in enumerate(members):
            table = member_table(pairs["pair_id"], rewards[:, place], plans[number].fold, options.scoring)
            write_parquet(table, folder / "votes" / f"member-{number:02d}.parquet")
        tolerances.append(_batch_tolerance(texts, ensemble, to_inputs, replace(options, backbone=backbone)))
        widths.append(ensemble.inputs.shape[1])
        facts, settings = read.facts, settings + ensemble.heads.settings
    cost = {"ensemble": "head", "n_models": len(settings), "n_presentations": None}
    return {
        **facts,
        "n_folds": n_folds,
        "n_dims": max(widths),
        "penalties": {str(penalty): settings.count(penalty) for penalty in sorted(set(settings))},
        "cost": {**cost, "n_trained_parameters": max(widths)},
        "batch_tolerance": max(tolerances),
    }


def _head_inputs(
    texts: pl.DataFrame, index: Ints, options: VoteOptions, folder: Path, progress: Progress
) -> tuple[Features, HeadInputs, Floats32]:
    """The features of the texts, how they become inputs of heads, and the inputs (texts, dims)."""
    read = features(texts, options.features, folder / "features", progress)
    text = text_features(texts)
    to_inputs = HeadInputs.fit(read.blocks, text, index)
    return read, to_inputs, with_text_effects(to_inputs(read.blocks, text), index, options.folds_by)


def _batch_tolerance(texts: pl.DataFrame, ensemble: "Ensemble", to_inputs: HeadInputs, options: VoteOptions) -> float:
    """How much a reward moves at most when its text is read among other texts, of a few texts by all models."""
    probe = probe_rows(len(texts))
    own = ensemble.inputs[probe]
    read = features(texts[probe], options.features).blocks
    inputs = to_inputs(read, text_features(texts[probe]))
    elsewhere = np.concatenate([inputs, own[:, inputs.shape[1] :]], axis=1)
    return float(np.abs(ensemble.heads.rewards(elsewhere) - ensemble.heads.rewards(own)).max())


def _vote_fine_tuned(
    pairs: pl.DataFrame,
    texts: pl.DataFrame,
    index: Ints,
    options: VoteOptions,
    folder: Path,
    key: str,
    progress: Progress,
) -> dict[str, Any]:
    from rm_ensemble.members import Work, fine_tuned_members

    plans, seeds = plan_members(pairs, options)
    work = Work(pairs, texts, index, options, key)
    cut = is_cut(text_segments(texts, load_tokenizer(find_backbone(options.backbones[0]))), options.max_tokens)
    facts = fine_tuned_members(work, plans, seeds, folder, progress)
    n_prompts_cut, n_responses_cut = (int(each.sum()) for each in cut)
    return {"n_texts": len(texts), "n_prompts_cut": n_prompts_cut, "n_responses_cut": n_responses_cut, **facts}


class Ensemble(NamedTuple):
    """Trained members: the heads of all their folds on the same `inputs` (texts, dims), and each member's plan."""

    inputs: Floats32
    heads: Heads
    plans: list[FoldPlan]

    @property
    def n_folds(self) -> int:
        """Models of each member."""
        return int(self.plans[0].weight.shape[1])

    @property
    def fold(self) -> Ints:
        """The model of each member that scores each pair, (pairs, members)."""
        return np.stack([plan.fold for plan in self.plans], axis=1)

    def rewards(self, index: Ints) -> Floats32:
        """(pairs, members, 2): the rewards of chosen and rejected by each member's model of the pair's fold.

        `index` (pairs, 2) are the rows of both texts in `inputs`.
        """
        model = self.fold + self.n_folds * np.arange(len(self.plans))
        rewards: Floats32 = self.heads.rewards(self.inputs)[index[:, None], model[:, :, None]]
        return rewards


def train_ensemble(
    inputs: Floats32, index: Ints, plans: list[FoldPlan], seeds: tuple[int, ...], progress: Progress = no_progress
) -> Ensemble:
    """Members with these plans of folds on head inputs (texts, dims), of the pairs whose texts are at `index` (pairs, 2)."""
    targets = PairTargets(index, np.ones(len(index), np.float32), np.zeros(len(index), np.float32))
    weights = PairWeights(
        np.concatenate([plan.weight for plan in plans], axis=1),
        np.concatenate([plan.part for plan in plans], axis=1),
    )
    return Ensemble(inputs, train_heads(inputs, targets, weights, seeds=seeds, progress=progress), plans)


def with_text_effects(inputs: Floats32, index: Ints, folds_by: str) -> Floats32:
    """Head inputs (texts, dims) with a strength of each recurring text, where folds are by pair."""
    return np.concatenate([inputs, text_effects(index, len(inputs))], axis=1) if folds_by == "pair" else inputs


def recurring_share(index: Ints) -> float:
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
        plan = plan_in_sample(unit, teaches, rng) if is_in_sample else plan_folds(unit, teaches, options.n_folds, rng)
        plans.append(plan)
        seeds += member.generate_state(plan.weight.shape[1]).tolist()
    return plans, tuple(seeds)


def vote_facts(pairs: pl.DataFrame, tables: list[pl.DataFrame]) -> dict[str, Any]:
    """How the members vote: the facts of run.json that hold for any ensemble, from its votes files."""
    raw = np.column_stack([table["reward_chosen"].cast(pl.Float64) - table["reward_rejected"] for table in tables])
    scaled = one_scale(raw, np.column_stack([table["fold"] for table in tables]))  # (pairs, members)
    judged = pairs.select(~is_tie()).to_series().to_numpy()
    groups = pairs["group"].to_numpy()[judged]
    correlation = member_correlation(scaled)
    rho = mean_correlation(correlation)
    spread = float(np.median(raw.std(axis=1))) if len(tables) > 1 else None
    return {
        "vote_spread": spread,
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

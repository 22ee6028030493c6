"""Members of an ensemble that are fine-tuned: one model after another or side by side, each resumable, more of them later."""

import json
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from curate.options import TrainOptions, VoteOptions
from curate.run import Progress, no_progress, write_json, write_parquet
from rm_ensemble.batches import full_sequences, text_segments
from rm_ensemble.classifier import classifier_rewards, new_classifier
from rm_ensemble.fine_tune import fine_tune
from rm_ensemble.folds import FoldPlan
from rm_ensemble.items import pair_items
from rm_ensemble.lora import merged
from rm_ensemble.splits import Split
from rm_ensemble.votes import N_PROBE_TEXTS, member_table

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class FoldModel:
    """A model of a member: what it is made of, the pairs it trains on, and those that it scores, both as positions."""

    number: int
    backbone: str
    seed: int
    trains: Ints
    scores: Ints
    folder: Path


@dataclass(frozen=True)
class Work:
    """What the models of an ensemble share: the pairs, their distinct texts, and where each pair's two are, (pairs, 2)."""

    pairs: pl.DataFrame
    texts: pl.DataFrame
    index: Ints
    options: VoteOptions
    key: str


def fine_tuned_members(
    work: Work, plans: list[FoldPlan], seeds: tuple[int, ...], folder: Path, progress: Progress = no_progress
) -> dict[str, Any]:
    """Write `member-00.parquet` ... into `folder`; those that are there already are left alone. Returns facts.

    The key of `work` stands for all that decides a member beside its number: files of another key are removed first. A
    model that was stopped in the middle goes on from its last state, to the same votes. With `--jobs` several models are
    trained side by side, each in a process and, where there are several GPUs, on one of them.
    """
    _keep_only(folder, work.key, len(plans))
    files = [folder / f"member-{number:02d}.parquet" for number in range(len(plans))]
    of_member = [_models(work.options, plan, seeds, number, folder) for number, plan in enumerate(plans)]
    missing = [number for number, file in enumerate(files) if not file.is_file()]
    _run_all(work, [model for number in missing for model in of_member[number]], progress)
    for number in missing:
        _write_member(work, plans[number], of_member[number], files[number])
    shutil.rmtree(folder / "training", ignore_errors=True)
    facts = [json.loads(file.with_suffix(".json").read_text(encoding="utf-8")) for file in files]
    return _facts(work.options, facts)


def run_model(work: Work, model: FoldModel, progress: Progress = no_progress) -> None:
    """Train a model and score its pairs: `rewards.parquet` (scored pairs, 2) and `facts.json` in its folder."""
    if (model.folder / "facts.json").is_file():
        return
    options = work.options
    training = TrainOptions(
        options.epochs, options.learning_rate, options.batch_size, options.lora_rank, seed=model.seed
    )
    classifier = new_classifier(model.backbone, options.max_tokens, model.seed)
    sequences = full_sequences(text_segments(work.texts, classifier.tokenizer), options.max_tokens)
    items = pair_items(_as_given(work, model.trains), sequences)
    n_presentations = max(1, round(options.epochs * len(items)))
    found = fine_tune(
        options.ensemble, classifier, items, n_presentations, training,
        dtype=options.dtype, folder=model.folder, identity={"key": work.key}, progress=progress,
    )  # fmt: skip
    if found.adapted is not None:
        classifier = merged(found.adapted, classifier)
    rows, place = np.unique(work.index[model.scores], return_inverse=True)
    rewards = classifier_rewards(classifier, work.texts[rows], is_alone=options.deterministic)
    probe = np.unique(np.linspace(0, len(rows) - 1, N_PROBE_TEXTS).astype(np.int64))
    elsewhere = classifier_rewards(classifier, work.texts[rows[probe]], is_alone=options.deterministic)
    scored = rewards[place.reshape(-1, 2)]
    write_parquet(pl.DataFrame(scored, schema=["reward_chosen", "reward_rejected"]), model.folder / "rewards.parquet")
    (model.folder / "state.safetensors").unlink(missing_ok=True)
    cost = {"n_presentations": n_presentations, "n_trained_parameters": found.facts["n_trained_parameters"]}
    tolerance = float(np.abs(rewards[probe] - elsewhere).max())
    write_json({**cost, "backbone": model.backbone, "batch_tolerance": tolerance}, model.folder / "facts.json")


def _run_all(work: Work, models: list[FoldModel], progress: Progress) -> None:
    if work.options.jobs == 1 or len(models) < 2:
        for number, model in enumerate(models):

            def part(what: str, done: int, total: int, number: int = number) -> None:
                progress(f"{what} models", number * total + done, len(models) * total)

            run_model(work, model, part)
        return
    n_jobs = min(work.options.jobs, len(models))
    n_threads = max(1, (os.cpu_count() or 1) // n_jobs)
    with ProcessPoolExecutor(n_jobs, get_context("spawn"), _start_process, (n_threads,)) as pool:
        for done, _ in enumerate(pool.map(partial(_run_beside, work), models), 1):
            progress("train models", done, len(models))


def _start_process(n_threads: int) -> None:
    torch.set_num_threads(n_threads)


def _run_beside(work: Work, model: FoldModel) -> None:
    """In a process of its own, which ends when the one that started it was killed."""
    parent = os.getppid()
    if torch.cuda.is_available():
        torch.cuda.set_device(model.number % torch.cuda.device_count())

    def live(_what: str, _done: int, _total: int) -> None:
        if os.getppid() != parent:
            os._exit(1)

    run_model(work, model, live)


def _models(options: VoteOptions, plan: FoldPlan, seeds: tuple[int, ...], member: int, folder: Path) -> list[FoldModel]:
    """The models of a member, one for each of its folds."""
    n_folds = plan.weight.shape[1]
    return [
        FoldModel(
            member * n_folds + fold,
            options.backbone_of(member),
            seeds[member * n_folds + fold],
            np.flatnonzero(plan.weight[:, fold] > 0),
            np.flatnonzero(plan.fold == fold),
            folder / "training" / f"member-{member:02d}-fold-{fold}",
        )
        for fold in range(n_folds)
    ]


def _write_member(work: Work, plan: FoldPlan, models: list[FoldModel], file: Path) -> None:
    """The votes of a member and, first, what its models cost."""
    rewards = np.full((len(work.pairs), 2), np.nan, dtype=np.float32)
    for model in models:
        rewards[model.scores] = pl.read_parquet(model.folder / "rewards.parquet").to_numpy()
    found = [json.loads((model.folder / "facts.json").read_text(encoding="utf-8")) for model in models]
    write_json(found, file.with_suffix(".json"))
    write_parquet(member_table(work.pairs["pair_id"], rewards, plan.fold, work.options.scoring), file)


def _keep_only(folder: Path, key: str, n_members: int) -> None:
    """Leave the members of this key that are still wanted, and nothing else."""
    mark = folder / "key.txt"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != key:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(key, encoding="utf-8")
    for file in sorted(folder.glob("member-*.parquet"))[n_members:]:
        file.unlink()


def _facts(options: VoteOptions, of_members: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """What the models are and cost, from the facts of each member's models."""
    models = [model for of_member in of_members for model in of_member]
    return {
        "n_folds": len(of_members[0]),
        "cost": {
            "ensemble": options.ensemble,
            "n_models": len(models),
            "n_presentations": sum(model["n_presentations"] for model in models),
            "n_trained_parameters": max(model["n_trained_parameters"] for model in models),
        },
        "batch_tolerance": max(model["batch_tolerance"] for model in models),
    }


def _as_given(work: Work, rows: Ints) -> Split:
    """The pairs at these positions, with their labels as given."""
    ones, zeros = np.ones(len(rows), np.float32), np.zeros(len(rows), np.float32)
    ids, groups = (work.pairs[name].to_numpy()[rows] for name in ("pair_id", "group"))
    return Split(ids, groups, work.index[rows], ones, zeros, ones)

"""Members of an ensemble that are fine-tuned: one model after another or side by side, each resumable, more of them later."""

import json
import os
import shutil
import signal
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from curate.options import TrainOptions, VoteOptions
from curate.run import Progress, key_of, no_progress, sha256_of, whole_file, write_json, write_parquet
from rm_ensemble.backbone import compute_device, compute_dtype
from rm_ensemble.batches import full_sequences, text_segments
from rm_ensemble.classifier import classifier_rewards, new_classifier
from rm_ensemble.fine_tune import fine_tune
from rm_ensemble.folds import FoldPlan
from rm_ensemble.items import pair_items
from rm_ensemble.lora import merged
from rm_ensemble.splits import Split
from rm_ensemble.vote_files import member_table, probe_rows

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_stop: Event  # of a process of the pool


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
    """Write `votes/member-00.parquet` ... into a run folder; what has been trained before is not trained again.

    Members are kept in `members/KEY/`, where the key stands for all that decides a member beside its number, so that other
    options leave them alone. A model that was stopped in the middle goes on from its last state, to the same votes. With
    `--jobs` several models are trained side by side, each in a process and, where there are several GPUs, on one of them.
    Returns facts.
    """
    kept = folder / "members" / key_of([work.key, *_machine(work.options)])
    files = [kept / f"member-{number:02d}.parquet" for number in range(len(plans))]
    of_member = [_models(work.options, plan, seeds, number, kept) for number, plan in enumerate(plans)]
    missing = [number for number, file in enumerate(files) if not _is_whole(file)]
    _run_all(work, [model for number in missing for model in of_member[number]], progress)
    for number in missing:
        _write_member(work, plans[number], of_member[number], files[number])
    shutil.rmtree(kept / "training", ignore_errors=True)
    shutil.rmtree(folder / "votes", ignore_errors=True)
    for file in files:
        with whole_file(folder / "votes" / file.name) as partial:
            shutil.copyfile(file, partial)
    return _facts(work.options, [_record(file)["models"] for file in files])


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
    probe = probe_rows(len(rows))
    elsewhere = classifier_rewards(classifier, work.texts[rows[probe]], is_alone=options.deterministic)
    scored = rewards[place.reshape(-1, 2)]
    write_parquet(pl.DataFrame(scored, schema=["reward_chosen", "reward_rejected"]), model.folder / "rewards.parquet")
    cost = {"n_presentations": n_presentations, "n_trained_parameters": found.facts["n_trained_parameters"]}
    tolerance = float(np.abs(rewards[probe] - elsewhere).max())
    write_json({**cost, "batch_tolerance": tolerance}, model.folder / "facts.json")
    (model.folder / "state.safetensors").unlink(missing_ok=True)


def _run_all(work: Work, models: list[FoldModel], progress: Progress) -> None:
    if work.options.jobs == 1 or len(models) < 2:
        for number, model in enumerate(models):

            def part(what: str, done: int, total: int, number: int = number) -> None:
                progress(f"{what} models", number * total + done, len(models) * total)

            run_model(work, model, part)
        return
    context = get_context("spawn")
    stop = context.Event()
    n_threads = _threads(work.options)
    with ProcessPoolExecutor(work.options.jobs, context, _start_process, (n_threads, stop)) as pool:
        try:
            for done, _ in enumerate(pool.map(partial(_run_beside, work), models), 1):
                progress("train models", done, len(models))
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_process(n_threads: int, stop: Event) -> None:
    global _stop  # noqa: PLW0603 - a process of the pool has one
    _stop = stop
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches all processes; the one that started this one says stop
    torch.set_num_threads(n_threads)


def _run_beside(work: Work, model: FoldModel) -> None:
    """In a process of its own, which ends when it is told to, or when the one that started it was killed."""
    parent = os.getppid()
    if torch.cuda.is_available():
        torch.cuda.set_device(model.number % torch.cuda.device_count())

    def live(_what: str, _done: int, _total: int) -> None:
        if _stop.is_set() or os.getppid() != parent:
            os._exit(1)

    run_model(work, model, live)


def _threads(options: VoteOptions) -> int:
    return max(1, torch.get_num_threads() // options.jobs)


def _machine(options: VoteOptions) -> list[Any]:
    """What a member's bits depend on beside its options."""
    device = compute_device()
    return [device, compute_dtype(options.dtype, device), torch.__version__, _threads(options)]


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
    write_parquet(member_table(work.pairs["pair_id"], rewards, plan.fold, work.options.scoring), file)
    found = [json.loads((model.folder / "facts.json").read_text(encoding="utf-8")) for model in models]
    write_json({"models": found, "sha256": sha256_of(file)}, file.with_suffix(".json"))


def _record(file: Path) -> dict[str, Any]:
    """What is written beside a member's votes, last: its models' facts, and what the votes must hash to."""
    try:
        return dict(json.loads(file.with_suffix(".json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _is_whole(file: Path) -> bool:
    """True where a member's votes are there as they were written."""
    return file.is_file() and _record(file).get("sha256") == sha256_of(file)


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

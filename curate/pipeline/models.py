"""Reward models that were saved: scores and evaluations."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from curate.errors import CurateError
from curate.formats import ReadOptions, read_all
from curate.options import ScoreOptions
from curate.run import Progress, no_progress, write_parquet
from curate.sources import Data


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
    pairs = read_all(data, reading, progress).pairs
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

    pairs = read_all(data, reading, progress).pairs
    sliced = slicings(pairs, by)  # an unknown column is refused before anything is scored
    scores = score_pairs(Path(model), pairs, progress)
    return {
        **evaluate_scores(pairs, scores),
        "slices": {name: slice_metrics(pairs, scores, slicing) for name, slicing in sliced.items()},
        "subsets": subset_means(pairs, scores, sliced["subset"]) if "subset" in sliced else None,
        "best_of_n": best_of_n(graded_responses(pairs, scores)),
    }

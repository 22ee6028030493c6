"""Which score finds wrong labels best? Every detector on labels with known errors, beside the nulls and cleanlab.

    python benchmarks/detection.py --data ../shared/data --cache runs/features

Natural noise (single votes of ukp_convarg against the unanimous rest) and errors planted into trusted labels. The tool sees the
labels with their errors only. A detector is a score per pair that is high where the label looks wrong.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.metrics import roc_auc_score

from benchmarks.natural_noise import detection, is_odd
from benchmarks.planted import Sample, arguments, natural, plant, sample, table, train_on, vote, votes_of
from curate.calibration import fit_calibration
from curate.intervals import length_difference
from curate.strength import one_scale, strength_table
from rm_ensemble.heads import LinearFit, PairTargets

N_MEMBERS = 3
PLANTED = (("uniform", 0.1), ("uniform", 0.2), ("uniform", 0.4), ("near-tie", 0.2))
OTHER_SETS = (
    "hh_rlhf_test harmless-base",
    "gsm8k_solutions",
    "fine_grained_rlhf_dev",
    "oasst1_zh_rank",
    "alpaca_bon_gpt4turbo",
)
OTHER_PLANTED = (("uniform", 0.2), ("longer", 0.2))
N_OTHER_PAIRS = 1500


class Labelling(NamedTuple):
    """Pairs in the trusted orientation, and which labels are wrong."""

    set: str
    noise: str
    sample: Sample
    is_wrong: np.ndarray


def labellings(options: argparse.Namespace) -> Iterator[tuple[Labelling, int]]:
    """Every noise of the parts asked for, one seed after the other."""
    for part in options.parts:
        yield from PARTS[part](options)


def natural_noise(options: argparse.Namespace) -> Iterator[tuple[Labelling, int]]:
    """People's own errors, on all sides or on those that choices may be made on."""
    everything = arguments(options.data, options.cache)
    for seed in range(options.draws):
        found, is_wrong = natural(everything, seed)
        even = np.array([not is_odd(side) for side in found.pairs["side"]])
        if options.even_only:
            yield Labelling("ukp_convarg", "natural, even sides", found.part(even), is_wrong[even]), seed
        else:
            yield Labelling("ukp_convarg", "natural", found, is_wrong), seed


def planted_in_gold(options: argparse.Namespace) -> Iterator[tuple[Labelling, int]]:
    """Errors planted into the gold of ukp_convarg."""
    gold, _ = natural(arguments(options.data, options.cache), 0)
    clear = np.abs(vote(gold, np.zeros(gold.n_pairs, bool), members=2).mean)
    for kind, rate in PLANTED:
        for seed in range(options.seeds):
            planted = plant(kind, rate, gold, clear, np.random.default_rng([seed, 1]))
            yield Labelling("ukp_convarg, gold", f"{kind} {rate:.0%}", gold, planted), seed


def planted_elsewhere(options: argparse.Namespace) -> Iterator[tuple[Labelling, int]]:
    """Errors planted into the given labels of the other sets, which have errors of their own."""
    for name in OTHER_SETS:
        part = sample(options.data, name, options.cache, N_OTHER_PAIRS)
        for kind, rate in OTHER_PLANTED:
            for seed in range(options.seeds):
                planted = plant(kind, rate, part, np.zeros(0), np.random.default_rng([seed, 1]))
                yield Labelling(name, f"{kind} {rate:.0%}", part, planted), seed


PARTS = {"natural": natural_noise, "gold": planted_in_gold, "others": planted_elsewhere}


def suspicions(labelling: Labelling, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Every detector's score, high = looks wrong, (pairs,); and the pairs that two methods flag by themselves, bool."""
    is_wrong, given = labelling.is_wrong, labelling.sample.turned(labelling.is_wrong)
    chosen: dict[str, Any] = {"members": N_MEMBERS, "seed": seed}
    out_of_fold = train_on(given, **chosen)
    by_prompt, by_pair = (
        votes_of(out_of_fold, given),
        votes_of(train_on(given, folds=2, folds_by="pair", **chosen), given),
    )
    in_sample = train_on(given, scoring="in-sample", **chosen)
    apart = given.inputs[given.index[:, 0]] - given.inputs[given.index[:, 1]]
    scores = {
        "length null": length_difference(given.pairs),
        "mean, folds by prompt": by_prompt.mean,
        "vote share": (by_prompt.scaled > 0).mean(axis=1),
        "mean / std": by_prompt.mean / np.maximum(by_prompt.scaled.std(axis=1), 1e-6),
        "single model": by_prompt.scaled[:, 0],
        "weight-averaged member": apart @ out_of_fold.heads.arrays["linear"].mean(axis=1),
        "in-sample mean": votes_of(in_sample, given).mean,
        "in-sample, averaged over training": along_path(apart, given, in_sample.plans[0].weight),
        "mean, folds by pair": by_pair.mean,
        "mean, 5 folds by pair": votes_of(train_on(given, folds=5, folds_by="pair", **chosen), given).mean,
        "fused: folds by prompt and by pair": by_prompt.mean + by_pair.mean,
    }
    flagged = {}
    for name, votes in (("folds by prompt", by_prompt), ("folds by pair", by_pair)):
        quality, issues = cleanlab(votes.mean, seed)
        scores[f"cleanlab, {name}"] = quality
        label_prob = strength_table(given.pairs, votes.raw, votes.fold, True)[0]["label_prob"].to_numpy()
        flagged |= {f"cleanlab find_label_issues, {name}": issues, f"label_prob < .5, {name}": label_prob < 0.5}
        flagged[f"sign of the mean, {name}"] = votes.mean < 0
    null = scores["length null"]
    if roc_auc_score(is_wrong, -null) < 0.5:  # where the shorter text wins
        scores["length null"] = -null
    return {name: -score for name, score in scores.items()}, flagged


def along_path(apart: np.ndarray, given: Sample, weight: np.ndarray) -> np.ndarray:
    """(pairs,) scaled difference of one in-sample model, averaged over its path from the strongest penalty to the weakest.

    `apart` (pairs, dims), `weight` (pairs, 1). Stopping early and penalising strongly are the same restraint here.
    """
    ones, zeros = (fill(given.n_pairs, dtype=np.float32) for fill in (np.ones, np.zeros))
    path = LinearFit(torch.from_numpy(apart), PairTargets(given.index, ones, zeros)).path(torch.from_numpy(weight))
    raw = np.concatenate([(apart @ head.numpy()).astype(np.float64) for head in path], axis=1)
    return np.asarray(one_scale(raw, np.zeros(raw.shape)).mean(axis=1))


def cleanlab(mean: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """cleanlab's label quality and the issues it finds on our probabilities; A/B order is randomised, it rejects one class."""
    is_a = np.random.default_rng([seed, 5]).random(len(mean)) < 0.5
    agreement = fit_calibration(mean).agreement(mean)
    of_a = np.where(is_a, agreement, 1 - agreement)
    labels, probabilities = is_a.astype(int), np.stack([1 - of_a, of_a], axis=1)
    quality = get_label_quality_scores(labels, probabilities, method="self_confidence")
    return quality, np.asarray(find_label_issues(labels, probabilities, n_jobs=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real preference data")
    parser.add_argument("--cache", type=Path, default=Path("runs/features"), help="folder that keeps the features")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which labels")
    parser.add_argument("--draws", type=int, default=5, help="draws of the natural noise")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of every planted noise")
    parser.add_argument("--even-only", action="store_true", help="natural noise on sides that choices may be made on")
    options = parser.parse_args()
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for labelling, seed in labellings(options):
        cell = (labelling.set, labelling.noise)
        scores, flagged = suspicions(labelling, seed)
        row: dict[str, Any] = {"base": labelling.is_wrong.mean(), "n": labelling.sample.n_pairs}
        row |= {name: detection(labelling.is_wrong, score) for name, score in scores.items()}
        row |= {name: _flagged(labelling.is_wrong, issues) for name, issues in flagged.items()}
        found.setdefault(cell, []).append(row)
        print(cell, seed, {name: round(row[name]["AUROC"], 4) for name in scores}, flush=True)
    print(f"\n## Ranking\n\n{table(_ranking(found))}\n\n## Flagged by themselves\n\n{table(_flags(found))}")


def _flagged(is_wrong: np.ndarray, issues: np.ndarray) -> dict[str, float]:
    n_hits = int((issues & is_wrong).sum())
    precision, recall = n_hits / max(issues.sum(), 1), n_hits / is_wrong.sum()
    return {
        "flagged": float(issues.mean()),
        "precision": precision,
        "recall": recall,
        "F1": 2 * n_hits / (issues.sum() + is_wrong.sum()),
    }


def _cells(rows: list[dict[str, Any]], name: str) -> dict[str, str]:
    """Mean and, from two seeds on, standard deviation over seeds of each measure."""
    columns = {key: np.array([row[name][key] for row in rows]) for key in rows[0][name]}
    spread = {key: f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else "" for key, values in columns.items()}
    return {key: f"{values.mean():.3f}{spread[key]}" for key, values in columns.items()}


def _ranking(found: dict[tuple[str, str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [
        {"set": cell[0], "noise": cell[1], "pairs": f"{np.mean([row['n'] for row in rows]):.0f}"}
        | {"wrong (base rate)": f"{np.mean([row['base'] for row in rows]):.3f}", "detector": name}
        | _cells(rows, name)
        for cell, rows in found.items()
        for name in rows[0]
        if isinstance(rows[0][name], dict) and "AUROC" in rows[0][name]
    ]


def _flags(found: dict[tuple[str, str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [
        {"set": cell[0], "noise": cell[1], "method": name} | _cells(rows, name)
        for cell, rows in found.items()
        for name in rows[0]
        if isinstance(rows[0][name], dict) and "F1" in rows[0][name]
    ]


if __name__ == "__main__":
    main()

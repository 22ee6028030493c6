"""Do the guarantees hold? Realised share of wrong flips, of wrong kept pairs, coverage of the noise rate, ECE of label_prob.

    python benchmarks/guarantee.py --data ../shared/data --cache runs/features

Pairs of ukp_convarg with a gold label. The noise is people's own (one vote as the label) or planted into the gold; each kind is
drawn several times, an ensemble votes out of fold (folds by debate side) on every draw, and several random subsets of each
draw are verified against the gold. Every figure is over draws x subsets; +- is the standard error over them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.planted import Sample, Votes, arguments, natural, plant, table, vote
from curate.calibration import calibrate_on_verified
from curate.guarantee import Answers, certified, certified_to_keep, p_values
from curate.reliability import reliability
from curate.strength import strength, strength_table

KINDS = (
    ("natural", 0.0),
    ("uniform", 0.1),
    ("uniform", 0.2),
    ("uniform", 0.3),
    ("near-tie", 0.1),
    ("near-tie", 0.2),
    ("longer", 0.1),
    ("side", 0.0),
    ("clean", 0.0),
    ("pure noise", 0.5),
    ("all reversed", 1.0),
)
NO_SIGNAL = ("clean", "pure noise")
LEVELS = (0.05, 0.1, 0.2)
N_VERIFIED = (300, 1000)
N_MEMBERS = 5
KEPT = 0.05


def labelled(
    everything: tuple[Sample, list[list[float]]], kind: str, rate: float, clear: np.ndarray, seed: int
) -> tuple[Sample, np.ndarray]:
    """One draw of a kind of noise: the pairs in the gold orientation, and which labels are wrong."""
    sample, is_wrong = natural(everything, seed if kind == "natural" else 0)
    rng = np.random.default_rng([seed, 1])
    if kind == "clean":
        return sample, np.zeros(sample.n_pairs, dtype=bool)
    if kind in ("pure noise", "all reversed"):
        return sample, plant("uniform", rate, sample, clear, rng)
    return sample, is_wrong if kind == "natural" else plant(kind, rate, sample, clear, rng)


def subset(mean: np.ndarray, is_wrong: np.ndarray, sides: np.ndarray, n: int, seed: int) -> dict[str, Any]:
    """What `n` random verified pairs give: per level the wrong share and recall of flips, and the rest of the figures."""
    asked = np.zeros(len(mean), dtype=bool)
    asked[np.random.default_rng([seed, n]).choice(len(mean), n, replace=False)] = True
    answers = Answers(asked & ~is_wrong, asked & is_wrong, np.zeros_like(asked), ~asked)
    flip_p, keep_p = p_values(mean, answers)
    found: dict[str, Any] = {}
    for level in LEVELS:
        flips = certified(flip_p, level)
        found[f"wrong {level}"] = float((~is_wrong[flips]).mean()) if flips.any() else 0.0
        found[f"recall {level}"] = float(is_wrong[flips].sum() / max(is_wrong[~asked].sum(), 1))
        found[f"any {level}"] = float(flips.any())
    kept = certified_to_keep(keep_p, answers, KEPT)
    found |= {"kept": kept.sum() / (~asked).sum(), "wrong kept": float(is_wrong[kept].mean()) if kept.any() else 0.0}
    verified = pl.Series("verified", np.where(is_wrong, "wrong", "right")).set(~pl.Series(asked), None)
    table, facts = calibrate_on_verified(strength(mean[:, None]), np.zeros(len(mean), bool), sides, verified)
    rate = facts["noise_rate"]
    label_prob = table["label_prob"].to_numpy()[~asked]
    found |= {
        "noise rate": rate["value"],
        "covered": float(rate["low"] <= is_wrong.mean() <= rate["high"]),
        "width": rate["high"] - rate["low"],
        "ece": reliability(label_prob, (~is_wrong[~asked]).astype(float), sides[~asked])["ece"]["value"],
    }
    return found


def ece_of_formula(votes: Votes, sample: Sample, is_wrong: np.ndarray) -> float:
    """The ECE against the gold of the label_prob that needs no verified pair."""
    label_prob = strength_table(sample.turned(is_wrong).pairs, *votes, True)[0]["label_prob"].to_numpy()
    return float(reliability(label_prob, (~is_wrong).astype(float), sample.groups)["ece"]["value"])


def cell(
    everything: tuple[Sample, list[list[float]]],
    kind: str,
    rate: float,
    clear: np.ndarray,
    n_draws: int,
    n_subsets: int,
) -> dict[int, list[dict[str, Any]]]:
    """Every draw and subset of a kind of noise, by the number of verified pairs."""
    found: dict[int, list[dict[str, Any]]] = {n: [] for n in N_VERIFIED}
    for seed in range(n_draws):
        sample, is_wrong = labelled(everything, kind, rate, clear, seed)
        votes = vote(sample, is_wrong, members=N_MEMBERS, seed=seed)
        of_draw = {"true": is_wrong.mean(), "ece unverified": ece_of_formula(votes, sample, is_wrong)}
        for n in N_VERIFIED:
            for i in range(n_subsets):
                found[n].append(of_draw | subset(votes.mean, is_wrong, sample.groups, n, seed * n_subsets + i))
    return found


def _rows(kind: str, rate: float, n: int, found: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The row of this cell in each of the three tables."""
    values = {name: np.array([each[name] for each in found]) for name in found[0]}
    error = {name: column.std(ddof=1) / np.sqrt(len(column)) for name, column in values.items()}
    mean = {name: column.mean() for name, column in values.items()}
    first = {"noise": f"{kind} {rate:.0%}" if rate else kind, "verified": n}
    flips = dict(first)
    for q in LEVELS:
        share = f"any {q}" if kind in NO_SIGNAL else f"wrong {q}"  # where every flip is wrong or a guess, any counts
        holds = mean[share] <= q + 2 * error[share] + 1e-12
        flips[f"wrong flips at q = {q}"] = (
            f"{mean[f'wrong {q}']:.3f} ± {error[f'wrong {q}']:.3f}{'' if holds else ' **above**'}"
        )
        flips[f"recall, any flip at {q}"] = f"{mean[f'recall {q}']:.2f}, {mean[f'any {q}']:.2f}"
    yield "flips", flips
    yield (
        "kept",
        first
        | {
            "kept": f"{mean['kept']:.3f}",
            f"wrong kept at q = {KEPT}": f"{mean['wrong kept']:.3f} ± {error['wrong kept']:.3f}",
        },
    )
    yield (
        "rates",
        first
        | {
            "true rate": f"{mean['true']:.3f}",
            "noise rate": f"{mean['noise rate']:.3f}",
            "width": f"{mean['width']:.3f}",
            "covered": f"{mean['covered']:.2f}",
            "ECE of label_prob": f"{mean['ece']:.3f}",
            "without verified pairs": f"{mean['ece unverified']:.3f}",
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with ukp_convarg.jsonl.gz")
    parser.add_argument("--cache", type=Path, default=Path("runs/features"), help="folder that keeps the features")
    parser.add_argument("--draws", type=int, default=10, help="draws of the noise, each with its own ensemble")
    parser.add_argument("--subsets", type=int, default=5, help="random subsets verified of each draw")
    options = parser.parse_args()
    everything = arguments(options.data, options.cache)
    gold, _ = natural(everything, 0)
    clear = np.abs(vote(gold, np.zeros(gold.n_pairs, bool), members=N_MEMBERS).mean)
    tables: dict[str, list[dict[str, Any]]] = {"flips": [], "kept": [], "rates": []}
    for kind, rate in KINDS:
        for n, found in cell(everything, kind, rate, clear, options.draws, options.subsets).items():
            for name, row in _rows(kind, rate, n, found):
                tables[name].append(row)
                print(name, row, flush=True) if name == "flips" else None
    for name, rows in tables.items():
        print(f"\n## {name}\n\n{table(rows)}", flush=True)


if __name__ == "__main__":
    main()

"""What is acting on wrong labels worth? A reward model on raw, curated and clean labels, judged on gold of other prompts.

    python benchmarks/cure.py --data ../shared/data --cache runs/features

ukp_convarg with a gold label; ten of the 32 debate sides are held out in every split, and their gold is what all models are
judged by. The labels of the other sides are single votes of people, or gold with planted errors. The ensemble sees these only.
Every model is a linear head on the frozen embedded default that chooses its own penalty by cross-validation over its own
training sides and labels. The temperature is fitted on a fifth of the training sides and their labels as given.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.optimize import minimize_scalar

from benchmarks.natural_noise import is_odd
from benchmarks.planted import Sample, Votes, arguments, natural, plant, table, vote
from curate.checks import check_table, run_checks
from curate.intervals import cluster_bootstrap
from curate.options import CheckOptions, FeatureOptions
from curate.policy import decide, load_policy, margin_scale
from curate.strength import strength_table
from rm_ensemble.batches import token_lengths
from rm_ensemble.evaluate import metrics
from rm_ensemble.head_model import train_head
from rm_ensemble.heads import HeadOptions
from rm_ensemble.splits import Split, curated_pairs, difference, raw_pairs

KINDS = (("natural", 0.0), ("uniform", 0.2), ("uniform", 0.3), ("uniform", 0.4))
N_HELDOUT = 10
N_MEMBERS = 3
N_VERIFIED = 300
VALIDATION_SHARE = 0.2


class Case:
    """One split and labelling: what the ensemble sees of it, and what each way of acting on it is worth."""

    def __init__(self, gold: Sample, is_wrong: np.ndarray, is_test: np.ndarray, seed: int) -> None:
        self.seed = seed
        self.is_wrong = is_wrong[~is_test]
        self.test = gold.part(is_test)
        self.clean = gold.part(~is_test)
        self.given = self.clean.turned(self.is_wrong)
        self.inputs = gold.inputs
        lengths = token_lengths(self.given.pairs, FeatureOptions())
        self.checks = run_checks(check_table(self.given.pairs.drop("side"), lengths, CheckOptions(near=False)))
        self.votes: dict[str, Votes] = {}

    def strengths(self, folds_by: str, is_verified: bool) -> pl.DataFrame:
        """strength.parquet of the labels as given, calibrated on 300 verified pairs or without any."""
        if folds_by not in self.votes:
            chosen = {"members": N_MEMBERS, "folds": 2, "folds_by": folds_by, "seed": self.seed}
            self.votes[folds_by] = vote(self.clean, self.is_wrong, **chosen)
        answers = None
        if is_verified:
            asked = np.random.default_rng([self.seed, 2]).choice(len(self.is_wrong), N_VERIFIED, replace=False)
            answers = pl.Series("verified", np.where(self.is_wrong, "wrong", "right"))
            answers = answers.set(~pl.Series(np.isin(np.arange(len(answers)), asked)), None)
        return strength_table(self.given.pairs, *self.votes[folds_by][:2], True, answers)[0]

    def curated(self, policy: str, folds_by: str = "prompt", is_verified: bool = False) -> Split:
        """The training pairs after the decisions of a policy."""
        strengths = self.strengths(folds_by, is_verified)
        decisions = decide(self.given.pairs, self.checks, strengths, load_policy(policy))
        split = curated_pairs(self.given.pairs, decisions, self.given.index)
        return replace(split, margin=split.margin / np.float32(margin_scale(strengths) or 1.0))

    def raw(self) -> Split:
        return raw_pairs(self.given.pairs, self.given.index)

    def without(self, is_dropped: np.ndarray) -> Split:
        """The raw pairs without some."""
        return raw_pairs(self.given.pairs.filter(~pl.Series(is_dropped)), self.given.index[~is_dropped])

    def rewards(self, split: Split, on: Sample, scale: float) -> np.ndarray:
        """Reward differences on other pairs of a head trained on a split; margins are in units of `scale`."""
        split = replace(split, margin=split.margin * np.float32(scale))
        heads = train_head(self.inputs, split, HeadOptions(), seed=self.seed)
        return difference(lambda rows: heads.rewards(self.inputs[rows])[:, 0], on.index).astype(np.float64)

    def temperature(self, split: Split, scale: float) -> float:
        """What rewards are divided by so that the labels as given of a fifth of the training sides are likeliest."""
        sides = np.unique(self.given.groups)
        aside = np.random.default_rng([self.seed, 3]).permutation(sides)[: round(VALIDATION_SHARE * len(sides))]
        rest = np.isin(split.group, aside, invert=True)
        part = Split(
            *(getattr(split, name)[rest] for name in ("pair_id", "group", "index", "label_prob", "margin", "weight"))
        )
        d = self.rewards(part, self.given.part(np.isin(self.given.groups, aside)), scale)
        return float(
            np.exp(
                minimize_scalar(lambda t: np.logaddexp(0, -d / np.exp(t)).mean(), bounds=(-3, 3), method="bounded").x
            )
        )


Arm = Callable[[Case], Split]


def _random_drop(case: Case) -> Split:
    dropped = np.zeros(len(case.is_wrong), dtype=bool)
    n = len(case.is_wrong) - len(case.curated("auto", "pair").index)
    dropped[np.random.default_rng([case.seed, 4]).choice(len(dropped), n, replace=False)] = True
    return case.without(dropped)


ARMS: dict[str, Arm] = {
    "raw": Case.raw,
    "clean": lambda case: raw_pairs(case.clean.pairs, case.clean.index),
    "auto": lambda case: case.curated("auto"),
    "auto, folds by pair": lambda case: case.curated("auto", "pair"),
    "auto, 300 verified": lambda case: case.curated("auto", "prompt", True),
    "auto, 300 verified, folds by pair": lambda case: case.curated("auto", "pair", True),
    "secrets2-flip": lambda case: case.curated("secrets2-flip"),
    "random drop": _random_drop,
    "oracle drop": lambda case: case.without(case.is_wrong),
}

CONTROLS = ("secrets2-flip", "random drop", "oracle drop")  # without a temperature


def measure(case: Case, arms: dict[str, Arm]) -> dict[str, dict[str, Any]]:
    """Per arm: whether each test pair is right, (pairs,), and accuracy, NLL and ECE, as trained and after a temperature."""
    strength = np.ones(case.test.n_pairs)
    found: dict[str, dict[str, Any]] = {}
    scale = 1.0
    for name, arm in arms.items():
        split = arm(case)
        d = case.rewards(split, case.test, scale)
        if name == "raw":
            on_split = case.rewards(split, case.given, 1.0)
            scale = float(np.median(np.abs(on_split)))
        plain = metrics(d, case.test.groups, strength)
        found[name] = {"right": (np.sign(d) + 1) / 2, "n": len(split.index)}
        found[name] |= {key: plain[key]["value"] for key in ("accuracy", "nll", "ece")}
        if name not in CONTROLS:
            warm = metrics(d / case.temperature(split, scale), case.test.groups, strength)
            found[name] |= {f"{key} at T": warm[key]["value"] for key in ("nll", "ece")}
    return found


def case_of(everything: Any, kind: str, rate: float, seed: int, even_only: bool) -> Case:
    """The split and labelling of a seed; with `even_only` on sides whose name has an even hash, as choices are made on."""
    sample, is_wrong = natural(everything, seed)
    if even_only:
        even = np.array([not is_odd(side) for side in sample.pairs["side"]])
        sample, is_wrong = sample.part(even), is_wrong[even]
    if kind != "natural":
        clear = (
            np.abs(vote(sample, np.zeros(sample.n_pairs, bool), members=2).mean) if kind == "near-tie" else np.zeros(0)
        )
        is_wrong = plant(kind, rate, sample, clear, np.random.default_rng([seed, 1]))
    sides = np.random.default_rng(seed).permutation(np.unique(sample.groups))
    return Case(sample, is_wrong, np.isin(sample.groups, sides[: N_HELDOUT // (2 if even_only else 1)]), seed)


def summary(kind: str, rate: float, cells: list[tuple[Case, dict[str, dict[str, Any]]]]) -> list[dict[str, Any]]:
    """A row per arm: means over splits, the paired difference from raw and the share of the raw-to-clean gap it closes."""
    rows = []
    groups = np.concatenate([case.test.groups for case, _ in cells])  # a side may be held out in several splits

    def gain(name: str) -> Any:
        return cluster_bootstrap(
            np.concatenate([found[name]["right"] - found["raw"]["right"] for _, found in cells]), groups
        )

    gap = gain("clean")
    deviation = (gap.high - gap.low) / 3.92
    for name in cells[0][1]:
        mean = {
            key: float(np.mean([found[name][key] for _, found in cells])) for key in cells[0][1][name] if key != "right"
        }
        d = gain(name)
        closed = f"{d.value / gap.value:.0%}" if gap.value > 2 * deviation else ""
        rows.append(
            {
                "noise": f"{kind} {rate:.0%}" if rate else kind,
                "trained on": name,
                "pairs": f"{mean['n']:.0f}",
                "accuracy": f"{mean['accuracy']:.4f}",
                "minus raw [95 %]": f"{d.value:+.4f} [{d.low:+.4f}, {d.high:+.4f}]",
                "each split": " ".join(
                    f"{100 * (found[name]['accuracy'] - found['raw']['accuracy']):+.2f}" for _, found in cells
                ),
                "gap closed": closed,
                "NLL": f"{mean['nll']:.3f}",
                "ECE": f"{mean['ece']:.3f}",
                "NLL at T": f"{mean['nll at T']:.3f}" if "nll at T" in mean else "",
                "ECE at T": f"{mean['ece at T']:.3f}" if "ece at T" in mean else "",
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with ukp_convarg.jsonl.gz")
    parser.add_argument("--cache", type=Path, default=Path("runs/features"), help="folder that keeps the features")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="splits, one labelling each")
    parser.add_argument(
        "--kinds", type=int, nargs="+", default=list(range(len(KINDS))), help="which kinds of noise, by number"
    )
    parser.add_argument("--even-only", action="store_true", help="only sides that choices may be made on")
    options = parser.parse_args()
    everything = arguments(options.data, options.cache)
    rows: list[dict[str, Any]] = []
    for kind, rate in (KINDS[i] for i in options.kinds):
        cells = []
        for seed in options.seeds:
            case = case_of(everything, kind, rate, seed, options.even_only)
            cells.append((case, measure(case, ARMS)))
            print(
                kind,
                rate,
                seed,
                {name: round(found["accuracy"], 4) for name, found in cells[-1][1].items()},
                flush=True,
            )
        rows += summary(kind, rate, cells)
        print(table(rows[-len(ARMS) :]), flush=True)
    print(f"\n## All\n\n{table(rows)}")


if __name__ == "__main__":
    main()

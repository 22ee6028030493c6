"""Which loss on curated pairs? Soft labels, margins and SimCSE against plain Bradley-Terry, under people's own label errors.

    python benchmarks/losses.py --data ../shared/data --cache runs/features --to runs/losses

The natural noise and the splits of benchmarks/cure.py: ten of the 32 debate sides of ukp_convarg are held out, and their gold is
what all models are judged by. Curated pairs are those of the policy `auto` on the votes of heads, folds by pair. Every model
is the same backbone, fine-tuned (`--train full`, on a random part of the pairs) or under a two-layer head (`--train head`),
from the same start with equally many presentations. Differences from plain Bradley-Terry on raw labels are paired, their
interval a bootstrap over held-out sides.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from benchmarks.cure import Case, case_of
from benchmarks.planted import arguments, table
from curate.intervals import cluster_bootstrap
from curate.options import TrainOptions
from curate.run import key_of
from rm_ensemble.batches import Sequences, full_sequences, text_segments, unique_texts
from rm_ensemble.classifier import classifier_rewards, new_classifier
from rm_ensemble.evaluate import metrics
from rm_ensemble.fine_tune import fine_tune
from rm_ensemble.head_model import train_head
from rm_ensemble.heads import HeadOptions
from rm_ensemble.items import pair_items
from rm_ensemble.splits import Split, difference

HIDDEN = 64


class Arm(NamedTuple):
    """What a model is trained on, and with which terms."""

    is_curated: bool
    is_soft: bool = False
    has_margin: bool = False
    contrastive: str = "none"


ARMS = {
    "raw, Bradley-Terry": Arm(False),
    "raw, SimCSE": Arm(False, contrastive="simcse"),
    "curated, Bradley-Terry": Arm(True),
    "curated, soft label": Arm(True, True),
    "curated, soft label + margin (default)": Arm(True, True, True),
    "curated, soft label + margin + SimCSE": Arm(True, True, True, "simcse"),
}


def split_of(case: Case, arm: Arm, rows: np.ndarray) -> Split:
    """The pairs that an arm trains on, of those with these ids; margins are in units of the raw model's median difference."""
    split = case.curated("auto", "pair") if arm.is_curated else case.raw()
    kept = np.isin(split.pair_id, rows)
    columns = {
        name: getattr(split, name)[kept] for name in ("pair_id", "group", "index", "label_prob", "margin", "weight")
    }
    split = Split(**columns)
    if not arm.is_soft:
        split = replace(split, label_prob=np.ones_like(split.label_prob))
    return split if arm.has_margin else replace(split, margin=np.zeros_like(split.margin))


class Trainer:
    """Trains one arm of a case and gives the reward differences of other pairs."""

    def __init__(self, case: Case, texts: pl.DataFrame, options: argparse.Namespace) -> None:
        self.case, self.texts, self.options, self.scale = case, texts, options, 1.0
        ids = case.raw().pair_id
        n_used = min(options.pairs or len(ids), len(ids))
        self.ids = np.random.default_rng([case.seed, 6]).permutation(ids)[:n_used]

    def differences(self, arm: Arm) -> np.ndarray:
        """(test pairs,) on the gold of the held-out sides."""
        split = split_of(self.case, arm, self.ids)
        split = replace(split, margin=split.margin * np.float32(self.scale))
        fit = self._full if self.options.train == "full" else self._head
        on_test, on_train = fit(split, arm)
        if arm == ARMS["raw, Bradley-Terry"]:
            self.scale = float(np.median(np.abs(on_train)))
        return on_test

    def _head(self, split: Split, arm: Arm) -> tuple[np.ndarray, np.ndarray]:
        n_epochs = round(HeadOptions.epochs * len(self.ids) / len(split.index))
        options = HeadOptions(HIDDEN, arm.contrastive, n_epochs)
        heads = train_head(self.case.inputs, split, options, seed=self.case.seed)
        rewards = heads.rewards(self.case.inputs)[:, 0].astype(np.float64)
        return _apart(rewards, self.case.test.index), _apart(rewards, split.index)

    def _full(self, split: Split, arm: Arm) -> tuple[np.ndarray, np.ndarray]:
        chosen = TrainOptions(contrastive=arm.contrastive, seed=self.case.seed)
        classifier = new_classifier(self.options.backbone, self.options.max_tokens, self.case.seed)
        sequences: Sequences = full_sequences(text_segments(self.texts, classifier.tokenizer), self.options.max_tokens)
        name = key_of([self.case.seed, list(arm)])
        fine_tune(
            "full", classifier, pair_items(split, sequences), len(self.ids), chosen, folder=self.options.to / name
        )
        return tuple(  # type: ignore[return-value]
            difference(lambda rows: classifier_rewards(classifier, self.texts[rows]), index).astype(np.float64)
            for index in (self.case.test.index, split.index[:512])
        )


def _apart(rewards: np.ndarray, index: np.ndarray) -> np.ndarray:
    return rewards[index[:, 0]] - rewards[index[:, 1]]


def rows_of(found: list[tuple[Case, dict[str, np.ndarray]]]) -> list[dict[str, Any]]:
    """A row per arm: means over splits, and the paired difference from plain Bradley-Terry on raw labels."""
    groups = np.concatenate([case.test.groups for case, _ in found])

    def right(name: str) -> np.ndarray:
        return np.concatenate([(np.sign(of[name]) + 1) / 2 for _, of in found])

    rows = []
    for name in ARMS:
        gain = cluster_bootstrap(right(name) - right("raw, Bradley-Terry"), groups)
        assert gain is not None
        plain = [metrics(of[name], case.test.groups, np.ones(case.test.n_pairs)) for case, of in found]
        mean = {key: float(np.mean([each[key]["value"] for each in plain])) for key in ("accuracy", "nll", "ece")}
        rows.append(
            {
                "trained on": name,
                "accuracy": f"{mean['accuracy']:.4f}",
                "minus raw Bradley-Terry [95 %]": f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]",
                "NLL": f"{mean['nll']:.3f}",
                "ECE": f"{mean['ece']:.3f}",
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with ukp_convarg.jsonl.gz")
    parser.add_argument("--cache", type=Path, default=Path("runs/features"), help="folder that keeps the features")
    parser.add_argument(
        "--to", type=Path, default=Path("runs/losses"), help="folder for what a stopped run goes on from"
    )
    parser.add_argument(
        "--train", choices=("head", "full"), default="head", help="two-layer heads, or full fine-tuning"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="splits, one labelling each")
    parser.add_argument("--pairs", type=int, default=0, help="training pairs of each split; 0 is all of them")
    parser.add_argument("--max-tokens", type=int, default=96, help="tokens of a text (full)")
    parser.add_argument("--backbone", default="minilm", help="what is fine-tuned (full)")
    options = parser.parse_args()
    everything = arguments(options.data, options.cache)
    texts = unique_texts(everything[0].pairs)[0]
    found = []
    for seed in options.seeds:
        trainer = Trainer(case_of(everything, "natural", 0.0, seed, False), texts, options)
        of_arm = {}
        for name, arm in ARMS.items():
            of_arm[name] = trainer.differences(arm)
            print(seed, name, round(float((of_arm[name] > 0).mean()), 4), flush=True)
        found.append((trainer.case, of_arm))
    print(f"\n{table(rows_of(found))}")


if __name__ == "__main__":
    main()

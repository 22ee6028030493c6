"""Real annotator errors against a real gold: how well does an audit find them, and what is acting on it worth?

Construction (../shared/data/DATA.md): ukp_convarg pairs with at least four non-tie votes; one vote, drawn at random, is
the label; where the remaining votes are unanimous they are the gold. The tool sees id, prompt, responses and the label.
Defaults were chosen on the debate sides whose name has an even hash and on other data; the odd sides are the report.

    python benchmarks/natural_noise.py --data ../shared/data --to runs/natural_noise

Everything runs through the real commands: `curate audit`, `curate retrain --test GOLD`.
"""

import argparse
import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.metrics import average_precision_score, roc_auc_score

from curate.intervals import length_difference
from curate.pairs import stable_hash

N_HELDOUT_SIDES = 10
FOLDS_BY = ("prompt", "pair")
FEWEST_VOTES = 4


def drawn_vote(votes: list[float], rng: np.random.Generator) -> tuple[float, float | None]:
    """One vote at random as the label, and the gold: what the others say where they are unanimous, else None."""
    rest = list(votes)
    label = rest.pop(int(rng.integers(len(rest))))
    return label, rest[0] if len(set(rest)) == 1 else None


def draw(data: Path, seed: int) -> pl.DataFrame:
    """One row per usable pair: id, side, prompt, response_a, response_b, label (the drawn vote), gold; a = 1, b = 0."""
    rng = np.random.default_rng(seed)
    rows = []
    with gzip.open(data / "ukp_convarg.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            votes = [vote for vote in row["votes"] if vote != 0.5]
            if len(votes) < FEWEST_VOTES:
                continue
            label, gold = drawn_vote(votes, rng)
            if gold is not None:
                texts = {name: row[name] for name in ("id", "prompt", "response_a", "response_b")}
                rows.append({**texts, "side": row["meta"]["category"], "label": label, "gold": gold})
    return pl.DataFrame(rows)


def is_odd(side: str) -> bool:
    """Odd sides are reported; even ones may be used to choose defaults."""
    return int(stable_hash(side), 16) % 2 == 1


def write_rows(rows: pl.DataFrame, label: str, to: Path) -> Path:
    """The neutral A/B form with nothing that gives the gold away."""
    to.parent.mkdir(parents=True, exist_ok=True)
    rows.select("id", "prompt", "response_a", "response_b", pl.col(label).alias("label")).write_ndjson(to)
    return to


def curate(*arguments: str | Path) -> None:
    """Run the real command; its progress goes to this script's stderr, its tables are dropped."""
    command = [str(Path(sys.executable).with_name("curate")), *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def detection(is_wrong: np.ndarray, suspicion: np.ndarray) -> dict[str, float]:
    """AUROC, AUPRC and precision (= recall) at the budget = number of wrong labels, of a score that is high for wrong ones."""
    top = np.argsort(-suspicion, kind="stable")[: int(is_wrong.sum())]
    return {
        "AUROC": float(roc_auc_score(is_wrong, suspicion)),
        "AUPRC": float(average_precision_score(is_wrong, suspicion)),
        "precision at budget": float(is_wrong[top].mean()),
    }


def detect(data: Path, to: Path, seed: int) -> list[dict[str, object]]:
    """Audit one draw with folds by debate side and by pair; one row per detector and part of the data."""
    rows = draw(data, seed)
    file = write_rows(rows, "label", to / f"draw-{seed}.jsonl")
    is_wrong = (rows["label"] != rows["gold"]).to_numpy()
    odd = np.array([is_odd(side) for side in rows["side"]])
    suspicions = {}
    for folds_by in FOLDS_BY:
        run = to / f"run-{seed}-{folds_by}"
        curate("audit", file, "--out", run, "--folds-by", folds_by, "--overwrite")
        suspicions[f"ensemble, folds by {folds_by}"] = -pl.read_parquet(run / "strength.parquet")[
            "strength_mean"
        ].to_numpy()
    suspicions["length null"] = -length_difference(pl.read_parquet(run / "pairs.parquet"))
    parts = {"all sides": np.ones(len(rows), bool), "odd sides": odd}
    return [
        {
            "seed": seed,
            "detector": name,
            "part": part,
            "n": int(rows_in.sum()),
            "wrong": float(is_wrong[rows_in].mean()),
        }
        | detection(is_wrong[rows_in], suspicion[rows_in])
        for name, suspicion in suspicions.items()
        for part, rows_in in parts.items()
    ]


def cure(data: Path, to: Path, seed: int) -> dict[str, object]:
    """Retrain on the single votes of 22 debate sides, curated against raw, tested on the gold of the other 10."""
    rows = draw(data, seed)
    sides = np.random.default_rng(seed).permutation(rows["side"].unique().sort().to_numpy())
    is_test = rows["side"].is_in(sides[:N_HELDOUT_SIDES].tolist())
    train = write_rows(rows.filter(~is_test), "label", to / f"cure-{seed}-train.jsonl")
    gold = write_rows(rows.filter(is_test), "gold", to / f"cure-{seed}-gold.jsonl")
    run, model = to / f"cure-{seed}-run", to / f"cure-{seed}-model"
    curate("audit", train, "--out", run, "--heldout-share", "0", "--overwrite")
    curate("retrain", run, "--to", model, "--test", gold, "--overwrite")
    comparison = json.loads((model / "comparison.json").read_text())
    accuracy = {side: comparison[side]["accuracy"]["value"] for side in ("raw", "curated")}
    nll = {f"nll_{side}": comparison[side]["nll"]["value"] for side in ("raw", "curated")}
    return {
        "seed": seed,
        "n": comparison["n_pairs"],
        **accuracy,
        **nll,
        "difference": comparison["difference"]["accuracy"],
    }


def table(rows: list[dict[str, object]]) -> str:
    """Markdown: mean over draws and, from two draws on, the standard deviation over them."""
    frame = pl.DataFrame(rows)
    lines = ["| detector | part | pairs | wrong | AUROC | AUPRC | precision at budget |"]
    lines.append("| --- | --- | ---: | ---: | --- | --- | --- |")
    for (detector, part), group in frame.group_by("detector", "part", maintain_order=True):
        cells = [
            f"{group[name].mean():.3f} ± {group[name].std() or 0:.3f}"
            for name in ("AUROC", "AUPRC", "precision at budget")
        ]
        lines.append(
            f"| {detector} | {part} | {group['n'].mean():.0f} | {group['wrong'].mean():.3f} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def cure_table(rows: list[dict[str, object]]) -> str:
    """Markdown: one row per split of the debate sides."""
    lines = ["| split | gold pairs | raw | curated | difference [95 %] | NLL raw | NLL curated |"]
    lines.append("| ---: | ---: | ---: | ---: | --- | ---: | ---: |")
    for row in rows:
        d = row["difference"]
        lines.append(
            f"| {row['seed']} | {row['n']} | {row['raw']:.4f} | {row['curated']:.4f} | "
            f"{d['value']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}] | {row['nll_raw']:.3f} | {row['nll_curated']:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with ukp_convarg.jsonl.gz")
    parser.add_argument("--to", type=Path, default=Path("runs/natural_noise"), help="folder for the runs")
    parser.add_argument("--draws", type=int, default=5, help="draws of the single vote")
    parser.add_argument("--splits", type=int, default=5, help="splits of the debate sides for the cure")
    options = parser.parse_args()
    found = [row for seed in range(options.draws) for row in detect(options.data, options.to, seed)]
    print(
        f"## Detection of real annotator errors, mean ± sd over {options.draws} draws\n\n{table(found)}\n", flush=True
    )
    cured = [cure(options.data, options.to, seed) for seed in range(options.splits)]
    print(f"## Cure: accuracy on the gold of {N_HELDOUT_SIDES} held-out debate sides\n\n{cure_table(cured)}")


if __name__ == "__main__":
    main()

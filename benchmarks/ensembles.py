"""Do cheap members vote as dear ones do? Heads, LoRA and full fine-tunes, out of fold and in sample, on the same pairs.

    python benchmarks/ensembles.py --data ../shared/data --to runs/ensembles

1,000 pairs of hh_rlhf_test harmless-base, a fifth of the labels swapped; every variant of the ensemble votes on them through
`rm_ensemble.votes.vote`. Table: AUROC of the swapped labels by strength_mean, agreement with the labels before swapping, the
mean correlation of members, and between variants Spearman's correlation of strength_mean and of strength_std and Jaccard's
overlap of the tenth with the lowest mean. A stopped run goes on where it was; members can be added later.
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from benchmarks.planted import read_set, table, whole_prompts
from curate.intervals import length_difference
from curate.options import VoteOptions
from curate.pairs import is_tie
from curate.run import Progress, key_of, write_json
from curate.strength import mean_correlation, member_correlation, one_scale, read_votes, strength
from curate.terminal import progress_bars
from rm_ensemble.batches import unique_texts
from rm_ensemble.votes import vote

FLIPPED_SHARE = 0.2
VARIANTS = tuple(
    (f"{ensemble}, {scoring}", {"ensemble": ensemble, "scoring": scoring})
    for ensemble in ("head", "lora", "full")
    for scoring in ("out-of-fold", "in-sample")
)
FLAGGED_SHARE = 0.1


def planted(data: Path, name: str, n_pairs: int) -> tuple[pl.DataFrame, np.ndarray]:
    """Whole prompts of a set until there are `n_pairs`, and which of the labels were then swapped, (pairs,)."""
    pairs = whole_prompts(read_set(data, name).filter(~is_tie()), n_pairs)
    is_flipped = np.random.default_rng(1).random(len(pairs)) < FLIPPED_SHARE
    sides = [
        pl.when(pl.Series(is_flipped)).then(b).otherwise(a).alias(a)
        for a, b in (("chosen", "rejected"), ("rejected", "chosen"))
    ]
    return pairs.with_columns(sides), is_flipped


def cast(pairs: pl.DataFrame, options: VoteOptions, folder: Path, progress: Progress) -> pl.DataFrame:
    """The strength of a variant; its votes and what they cost are kept in `folder` and not cast again."""
    record = folder / "cost.json"
    of_any_member = key_of(
        [asdict(replace(options, members=1)), *pairs.select("pair_id", "chosen").hash_rows().to_list()]
    )
    key = key_of([of_any_member, options.members])
    if not record.is_file() or json.loads(record.read_text())["key"] != key:
        start = time.perf_counter()
        facts = vote(pairs, options, folder, of_any_member, progress)
        cost = {"seconds": time.perf_counter() - start, "effective_votes": facts["effective_votes"]}
        write_json({"key": key, **cost}, record)
    raw, fold = read_votes(folder, pairs["pair_id"])
    scaled = one_scale(raw, fold)
    facts = json.loads(record.read_text())
    table = strength(scaled)
    return table.with_columns(
        pl.lit(facts["seconds"]).alias("seconds"),
        pl.lit(mean_correlation(member_correlation(scaled))).alias("correlation"),
        pl.lit(facts["effective_votes"]).alias("effective_votes"),
    )


def alone(name: str, found: pl.DataFrame, is_flipped: np.ndarray) -> dict[str, Any]:
    """What one variant finds."""
    mean = found["strength_mean"].to_numpy()
    right = np.where(is_flipped, -mean, mean)
    return {
        "members": name,
        "AUROC of swapped": f"{roc_auc_score(is_flipped, -mean):.3f}",
        "agreement before swapping": f"{(right > 0).mean():.3f}",
        "members' correlation": f"{found['correlation'][0]:.2f}",
        "effective votes": f"{found['effective_votes'][0]:.1f}",
        "seconds": f"{found['seconds'][0]:.0f}",
    }


def together(first: str, second: str, found: dict[str, pl.DataFrame]) -> dict[str, Any]:
    """How alike two variants are."""
    a, b = found[first], found[second]
    flagged = [set(np.argsort(x["strength_mean"].to_numpy())[: round(FLAGGED_SHARE * len(x))].tolist()) for x in (a, b)]
    return {
        "one": first,
        "other": second,
        "Spearman of mean": f"{spearmanr(a['strength_mean'], b['strength_mean']).statistic:.2f}",
        "Spearman of std": f"{spearmanr(a['strength_std'], b['strength_std']).statistic:.2f}",
        "Jaccard of the lowest tenth": f"{len(flagged[0] & flagged[1]) / len(flagged[0] | flagged[1]):.2f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real preference data")
    parser.add_argument("--to", type=Path, default=Path("runs/ensembles"), help="folder that keeps the votes")
    parser.add_argument("--set", default="hh_rlhf_test harmless-base", help="the set, and a category of it")
    parser.add_argument("--pairs", type=int, default=1000, help="pairs, in whole prompts")
    parser.add_argument("--members", type=int, default=3, help="members of each ensemble, of two folds out of fold")
    parser.add_argument("--max-tokens", type=int, default=128, help="tokens of a text")
    parser.add_argument("--backbone", default="minilm", help="what is fine-tuned")
    parser.add_argument("--variants", nargs="+", default=[name for name, _ in VARIANTS], help="which ensembles")
    options = parser.parse_args()
    pairs, is_flipped = planted(options.data, options.set, options.pairs)
    found = {}
    for name, change in VARIANTS:
        if name not in options.variants:
            continue
        chosen = VoteOptions(
            members=options.members, max_tokens=options.max_tokens, backbone=options.backbone, **change
        )
        with progress_bars() as progress:
            found[name] = cast(pairs, chosen, options.to / name.replace(", ", "-"), progress)
        print(alone(name, found[name], is_flipped), flush=True)
    longer = length_difference(pairs)
    null = max(roc_auc_score(is_flipped, longer), roc_auc_score(is_flipped, -longer))
    print(
        f"\n{len(pairs)} pairs of {options.set}, {is_flipped.sum()} swapped, {len(unique_texts(pairs)[0])} texts; ",
        end="",
    )
    print(f"length null: AUROC {null:.3f}\n")
    print(table([alone(name, each, is_flipped) for name, each in found.items()]))
    print()
    print(table([together(a, b, found) for a, b in combinations(found, 2)]))


if __name__ == "__main__":
    main()

"""Which features, which head and which members: what an ensemble of heads finds on every set of real data.

    python benchmarks/heads.py --data ../shared/data --pairs 2000

Of each set a part of whole prompts is read; in a second pass a fifth of its labels is swapped. Every variant is scored out of
fold, folds by prompt, beside the length null: agreement with the given labels, and AUROC of the swapped ones. The default
is the first variant of each table. Error correlation is that of the members' differences turned towards the labels as
given before swapping, which are themselves not free of errors.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from sklearn.metrics import roc_auc_score

from benchmarks.planted import read_set, whole_prompts
from curate.intervals import agreement_with_label, length_difference
from curate.options import DEFAULT_BLOCKS, FeatureOptions
from curate.pairs import is_tie
from curate.strength import effective_votes, mean_correlation, member_correlation, one_scale
from rm_ensemble.batches import unique_texts
from rm_ensemble.features import features
from rm_ensemble.folds import FoldPlan, may_train, plan_folds, units
from rm_ensemble.heads import HeadOptions, PairTargets, PairWeights, train_heads
from rm_ensemble.inputs import HeadInputs
from rm_ensemble.text_features import text_features

SETS = (
    "hh_rlhf_test", "hh_rlhf_test harmless-base", "ukp_convarg", "fine_grained_rlhf_dev", "alpaca_bon_gpt4turbo",
    "gsm8k_solutions", "oasst1_zh_rank",
)  # fmt: skip
RESPONSE, ALONE, PROMPT = DEFAULT_BLOCKS
LAST, LOWER = "full/-1/response", "full/-5/response"
FLIPPED_SHARE, N_FOLDS, HIDDEN = 0.2, 2, 32


@dataclass(frozen=True)
class Variant:
    """What the heads read, what a head is, and how the members differ beyond their fold plans."""

    name: str
    blocks: tuple[str, ...] = DEFAULT_BLOCKS
    text: bool = True
    hidden: int = 0
    bootstrap: bool = False
    half_of_inputs: bool = False


READS = (
    Variant("both readings of the response, text x prompt (default)"),
    Variant("text features only", blocks=()),
    Variant("both readings, no text features", blocks=(RESPONSE, ALONE), text=False),
    Variant("both readings, text", blocks=(RESPONSE, ALONE)),
    Variant("response after its prompt, text x prompt", blocks=(RESPONSE, PROMPT)),
    Variant("response alone, text x prompt", blocks=(ALONE, PROMPT)),
    Variant("after its prompt at -3 and -5, text x prompt", blocks=(RESPONSE, LOWER, PROMPT)),
    Variant("after its prompt at the last layer, text x prompt", blocks=(LAST, PROMPT)),
)
MEMBERS = (
    Variant("own fold plan (default)"),
    Variant("and a bootstrap of the prompts", bootstrap=True),
    Variant("and half of the inputs", half_of_inputs=True),
    Variant("both", bootstrap=True, half_of_inputs=True),
    Variant(f"two-layer heads of {HIDDEN}", hidden=HIDDEN),
)
TABLES = {"reads": ("What the heads read", READS), "members": ("What members differ in", MEMBERS)}


class Sample(NamedTuple):
    """A part of a data set and everything that a variant may read of it."""

    pairs: pl.DataFrame
    index: np.ndarray
    blocks: dict[str, np.ndarray]
    text: np.ndarray


class Found(NamedTuple):
    """What a variant reached on a sample."""

    agreement: float
    auroc: float
    member_auroc: float
    error_correlation: float
    seconds: float


def sample(data: Path, name: str, n_pairs: int, cache: Path) -> Sample:
    """Whole prompts in random order until there are enough pairs, with every block that any variant reads."""
    pairs = whole_prompts(read_set(data, name), n_pairs)
    texts, index = unique_texts(pairs)
    wanted = sorted({block for variant in READS for block in variant.blocks})
    read = features(texts, FeatureOptions(blocks=tuple(wanted)), cache)
    return Sample(pairs, index, dict(read.blocks), text_features(texts))


def measure(sample: Sample, variant: Variant, n_members: int) -> Found:
    """Both passes: labels as given, and with a fifth of them swapped."""
    start = time.perf_counter()
    is_label = ~sample.pairs.select(is_tie()).to_series().to_numpy()
    is_flipped = is_label & (np.random.default_rng(1).random(len(is_label)) < FLIPPED_SHARE)
    given = votes(sample, sample.index, variant, n_members)
    index = np.where(is_flipped[:, None], sample.index[:, ::-1], sample.index)
    planted = votes(sample, index, variant, n_members)
    correct = np.where(is_flipped[:, None], -planted, planted)[is_label]
    flipped = is_flipped[is_label]
    return Found(
        float(agreement_with_label(given.mean(axis=1))[is_label].mean()),
        roc_auc_score(flipped, -planted[is_label].mean(axis=1)),
        float(np.mean([roc_auc_score(flipped, -member) for member in planted[is_label].T])),
        mean_correlation(member_correlation(correct)),
        time.perf_counter() - start,
    )


def votes(sample: Sample, index: np.ndarray, variant: Variant, n_members: int) -> np.ndarray:
    """Out-of-fold differences (pairs, members), one scale per model."""
    blocks = {name: sample.blocks[name] for name in variant.blocks}
    text = sample.text if variant.text else None
    inputs = HeadInputs.fit(blocks, text, index)(blocks, text)
    unit, teaches = units(sample.pairs, "prompt"), may_train(sample.pairs)
    rngs = [np.random.default_rng(child) for child in np.random.SeedSequence(0).spawn(n_members)]
    plans = [plan_folds(unit, teaches, N_FOLDS, rng) for rng in rngs]
    if not variant.half_of_inputs:
        return differences(inputs, index, plans, rngs, unit, variant)
    half = [inputs * (rng.random(inputs.shape[1]) < 0.5).astype(np.float32) for rng in rngs]
    each = zip(half, plans, rngs, strict=True)
    return np.concatenate([differences(part, index, [plan], [rng], unit, variant) for part, plan, rng in each], axis=1)


def differences(
    inputs: np.ndarray,
    index: np.ndarray,
    plans: list[FoldPlan],
    rngs: list[np.random.Generator],
    unit: np.ndarray,
    variant: Variant,
) -> np.ndarray:
    """Train the members of these plans together; each pair's scaled difference by the model of its fold."""
    weight = np.concatenate([plan.weight for plan in plans], axis=1)
    if variant.bootstrap:
        counts = [rng.poisson(1.0, (unit.max() + 1, N_FOLDS)).astype(np.float32) for rng in rngs]
        weight = weight * np.concatenate(counts, axis=1)[unit]
    targets = PairTargets(index, np.ones(len(index), np.float32), np.zeros(len(index), np.float32))
    weights = PairWeights(weight, np.concatenate([plan.part for plan in plans], axis=1))
    seeds = tuple(int(rng.integers(2**31)) for rng in rngs for _ in range(N_FOLDS))
    rewards = train_heads(inputs, targets, weights, replace(HeadOptions(), hidden=variant.hidden), seeds).rewards(
        inputs
    )
    fold = np.stack([plan.fold for plan in plans], axis=1)
    model = fold + N_FOLDS * np.arange(len(plans))
    raw = rewards[index[:, :1], model] - rewards[index[:, 1:], model]
    return one_scale(raw.astype(np.float64), fold)


def null_row(sample: Sample) -> tuple[float, float]:
    """What the length null reaches: agreement (longer or shorter, whichever is better), and AUROC of the swapped labels."""
    is_label = ~sample.pairs.select(is_tie()).to_series().to_numpy()
    flipped = (is_label & (np.random.default_rng(1).random(len(is_label)) < FLIPPED_SHARE))[is_label]
    longer = length_difference(sample.pairs)[is_label]
    agreement = float(agreement_with_label(longer).mean())
    auroc = roc_auc_score(flipped, -np.where(flipped, -longer, longer))
    return max(agreement, 1 - agreement), max(auroc, 1 - auroc)


def table(title: str, variants: tuple[Variant, ...], samples: dict[str, Sample], n_members: int) -> Iterator[str]:
    """Markdown, a line at a time: a row per variant and set, the null first."""
    yield f"## {title}\n"
    yield "| set | variant | agreement | AUROC of swapped | of one member | error correlation | effective votes | s |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name, part in samples.items():
        agreement, auroc = null_row(part)
        yield f"| {name} ({len(part.pairs)}) | length null | {agreement:.3f} | {auroc:.3f} | | | | |"
        for variant in variants:
            found = measure(part, variant, n_members)
            rho = found.error_correlation
            numbers = f"{found.agreement:.3f} | {found.auroc:.3f} | {found.member_auroc:.3f} | {rho:.2f}"
            worth = f"{effective_votes(n_members, rho):.1f} | {found.seconds:.0f}"
            yield f"| {name} | {variant.name} | {numbers} | {worth} |"
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real preference data")
    parser.add_argument("--pairs", type=int, default=2000, help="pairs of each set, in whole prompts")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, help="the sets to measure on")
    parser.add_argument("--members", type=int, default=10, help="members, of two folds each")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=tuple(TABLES), help="what is compared")
    parser.add_argument("--cache", type=Path, help="folder that keeps the features between calls")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = options.cache or Path(folder)
        samples = {name: sample(options.data, name, options.pairs, cache) for name in options.sets}
        for name in options.tables:
            for line in table(*TABLES[name], samples, options.members):
                print(line, flush=True)


if __name__ == "__main__":
    main()

"""What does each form of training reach on held-out prompts? Full fine-tunes of one backbone on every suitable set.

    python benchmarks/forms.py --data ../shared/data --to runs/forms

Of each set whole prompts are read until there are enough pairs; a fifth of the prompts is held out. Pairs and soft labels
(`auto` on the votes of heads) on sets of pairs; ratings and lists on sets with several graded responses of a prompt. All forms
of a set start from the same head and see the pairs or the responses equally often. Accuracy on the given labels of the held-out
pairs, and the mean grade of the best of 4 responses, beside the length nulls; intervals are a cluster bootstrap by prompt.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.planted import read_set, table, whole_prompts
from curate.checks import check_table, run_checks
from curate.options import CheckOptions, FeatureOptions, TrainOptions, VoteOptions
from curate.pairs import is_tie
from curate.policy import decide, load_policy, margin_scale
from curate.run import key_of, write_json
from curate.strength import read_votes, strength_table
from curate.terminal import progress_bars
from rm_ensemble.batches import full_sequences, text_segments, token_lengths, unique_texts
from rm_ensemble.best_of_n import best_of_n, graded_responses
from rm_ensemble.classifier import classifier_rewards, new_classifier
from rm_ensemble.evaluate import metrics, nulls
from rm_ensemble.fine_tune import fine_tune
from rm_ensemble.retrain import items_of
from rm_ensemble.splits import PairTexts, Split, curated_pairs, raw_pairs
from rm_ensemble.votes import vote

PAIR_SETS = ("ukp_convarg", "hh_rlhf_test")
GRADED_SETS = ("alpaca_bon_gpt4turbo", "fine_grained_rlhf_dev")
HELDOUT_SHARE = 0.2
FEW_PROMPTS = 100
FORMS = {
    "pairs": TrainOptions(),
    "soft labels": TrainOptions(),
    "soft labels, forward correction": TrainOptions(soft_label="forward"),
    "all pairs of a prompt at once": TrainOptions(form="listwise"),
    "lists, Plackett-Luce": TrainOptions(form="plackett-luce"),
    "ratings": TrainOptions(form="pointwise"),
}
OF_PAIRS = ("pairs", "soft labels", "soft labels, forward correction")
OF_GRADES = ("pairs", "all pairs of a prompt at once", "lists, Plackett-Luce", "ratings")


def held_out(pairs: pl.DataFrame) -> pl.DataFrame:
    """The pairs with a fifth of the prompts held out."""
    groups = np.random.default_rng(0).permutation(pairs["group"].unique().sort().to_numpy())
    return pairs.with_columns(is_heldout=pl.col("group").is_in(groups[: round(HELDOUT_SHARE * len(groups))].tolist()))


def part_of(pairs: pl.DataFrame, n_pairs: int) -> pl.DataFrame:
    """About `n_pairs` in whole prompts; of a set with few prompts, that many of each prompt's pairs."""
    if pairs["group"].n_unique() > FEW_PROMPTS:
        return whole_prompts(pairs, n_pairs)
    return pairs.sample(min(n_pairs, len(pairs)), seed=0).sort("pair_id")


def softened(pairs: pl.DataFrame, index: np.ndarray, folder: Path) -> Split:
    """The pairs after the policy `auto` on the votes of five heads, without its margins."""
    options = VoteOptions(members=5)
    vote(pairs, options, folder, "")
    strengths = strength_table(pairs, *read_votes(folder, pairs["pair_id"]), True)[0]
    lengths = token_lengths(pairs, FeatureOptions())
    found = run_checks(check_table(pairs, lengths, CheckOptions(near=False)))
    split = curated_pairs(pairs, decide(pairs, found, strengths, load_policy("auto")), index)
    assert margin_scale(strengths)
    return replace(split, margin=np.zeros_like(split.margin))


def reached(
    pairs: pl.DataFrame, name: str, options: TrainOptions, folder: Path, max_tokens: int, backbone: str
) -> dict[str, Any]:
    """Metrics on the held-out pairs of one form; kept in `folder` and not computed again."""
    record = folder / "found.json"
    key = key_of([name, pairs["pair_id"].to_list(), max_tokens, backbone])
    if record.is_file() and json.loads(record.read_text())["key"] == key:
        return dict(json.loads(record.read_text())["found"])
    own = PairTexts(*unique_texts(pairs))
    classifier = new_classifier(backbone, max_tokens, 0)
    sequences = full_sequences(text_segments(own.texts, classifier.tokenizer), max_tokens)
    raw = raw_pairs(pairs, own.index)
    split = softened(pairs, own.index, folder.parent / "heads") if name.startswith("soft") else raw
    items = items_of(split, own, pairs, sequences, options.form)
    n_presentations = len(raw.index) if name in OF_PAIRS else len(items)
    with progress_bars() as progress:
        facts = fine_tune("full", classifier, items, n_presentations, options, folder=folder, progress=progress).facts
    judged = pairs.filter("is_heldout")
    texts, index = unique_texts(judged)
    rewards = classifier_rewards(classifier, texts).astype(np.float64)
    scores = pl.DataFrame({"reward_chosen": rewards[index[:, 0]], "reward_rejected": rewards[index[:, 1]]})
    groups, label_strength = judged["group"].to_numpy(), judged["label_strength"].to_numpy()
    found = {
        "n_pairs": len(split.index),
        "n_steps": facts["n_steps"],
        **{
            key: metrics(rewards[index[:, 0]] - rewards[index[:, 1]], groups, label_strength)[key]
            for key in ("accuracy", "nll")
        },
        "nulls": nulls(judged),
        "best_of_4": next((row for row in best_of_n(graded_responses(judged, scores)) if row["n"] == 4), None),
    }
    write_json({"key": key, "found": found}, record)
    (folder / "state.safetensors").unlink(missing_ok=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real preference data")
    parser.add_argument("--to", type=Path, default=Path("runs/forms"), help="folder that keeps what is done")
    parser.add_argument("--pairs", type=int, default=1250, help="pairs of each set, in whole prompts")
    parser.add_argument("--max-tokens", type=int, default=128, help="tokens of a text")
    parser.add_argument("--backbone", default="minilm", help="what is fine-tuned")
    parser.add_argument("--sets", nargs="+", default=[*PAIR_SETS, *GRADED_SETS], help="which sets")
    options = parser.parse_args()
    rows = []
    for name in options.sets:
        pairs = held_out(part_of(read_set(options.data, name).filter(~is_tie()), options.pairs))
        for form in OF_PAIRS if name in PAIR_SETS else OF_GRADES:
            folder = options.to / name / form.replace(" ", "-").replace(",", "")
            found = reached(pairs, form, FORMS[form], folder, options.max_tokens, options.backbone)
            rows.append(row(name, form, found))
            print(rows[-1], flush=True)
    print(f"\n{table(rows)}")


def row(name: str, form: str, found: dict[str, Any]) -> dict[str, str]:
    """A row of the table."""
    accuracy, best = found["accuracy"], found["best_of_4"]
    longer = found["nulls"]["longer"]["accuracy"]["value"]
    return {
        "set": name,
        "trained on": form,
        "pairs": str(found["n_pairs"]),
        "steps": str(found["n_steps"]),
        "held-out accuracy [95 %]": f"{accuracy['value']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}]",
        "NLL": f"{found['nll']['value']:.3f}",
        "longer or shorter wins": f"{max(longer, 1 - longer):.3f}",
        "best of 4: model": f"{best['model']['value']:.3f}" if best else "",
        "longest": f"{best['longest']['value']:.3f}" if best else "",
        "random": f"{best['random']['value']:.3f}" if best else "",
    }


if __name__ == "__main__":
    main()

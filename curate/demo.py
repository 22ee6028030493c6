"""A generated sample with planted label errors, and the three uses run on it, so that what is found can be counted.

The sample is templates: an answer of mostly helpful sentences against one of sentences that mostly dodge, ramble or are
rude, of overlapping lengths. It shows that the tool works, not how well it works on real data; for that see
benchmarks/results.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import typer

from curate import pipeline
from curate.errors import CurateError
from curate.options import RetrainOptions
from curate.run import Progress, Run, write_json
from curate.terminal import show_comparison, show_counts, show_summary

N_PAIRS, N_TEST_PAIRS = 600, 300
ERROR_SHARE = 0.15
SEED = 7
HELPFUL_SHARE = {"good": 0.75, "bad": 0.25}  # of an answer's sentences

TOPICS = (
    "growing tomatoes", "a stiff lower back", "learning to swim", "baking rye bread", "a leaking tap", "training a puppy",
    "saving for a flat", "a noisy neighbour", "writing a cover letter", "cycling to work", "drying herbs", "chess openings",
    "a slow laptop", "packing for a hike", "learning Spanish", "a shy colleague", "painting a fence", "roasting coffee",
    "a picky eater", "tuning a guitar", "cleaning a cast iron pan", "public speaking", "watering orchids", "a sore throat",
    "reading contracts", "planting an oak", "folding a map", "knitting socks", "keeping bees", "brewing tea",
)  # fmt: skip
QUESTIONS = (
    "What should I know about {topic} before I start?", "Can you help me with {topic}?",
    "I keep failing at {topic}. What am I doing wrong?", "Give me three tips on {topic}.",
    "How would you explain {topic} to a friend?", "What is the most common mistake with {topic}?",
    "I have one hour a week for {topic}. How do I use it?", "Which tools do I need for {topic}?",
    "Is {topic} worth the effort?", "How do I know that I am getting better at {topic}?",
)  # fmt: skip
HELPFUL = (
    "Start small with {topic} and change one thing at a time, so that you can see what helped.",
    "For {topic}, write down what you tried and what happened; the pattern shows within two weeks.",
    "A common mistake with {topic} is to hurry: allow twice the time you think it takes.",
    "First check the basics, then ask somebody who has done {topic} for years to look at yours.",
    "The usual advice on {topic} is sound: prepare well, keep it simple, and repeat it often.",
    "If {topic} goes wrong, stop, find the first step that failed, and begin again from there.",
    "You need less equipment for {topic} than shops say; a good teacher or a good book matters more.",
    "Good question! With {topic} the first month is the hardest, and after that it becomes a habit.",
)
USELESS = (
    "I do not know, and honestly nobody cares about {topic}.",
    "Just look it up yourself, it is not my job to explain {topic} to you.",
    "Well, {topic} is what it is. Things are things. Some people do it, some people do not.",
    "You are probably too lazy for {topic} anyway, so why bother asking.",
    "That reminds me of a film I saw. It had a very long car chase and I forgot the ending.",
    "I cannot say anything about {topic}. I cannot say anything about anything.",
    "Whatever. Maybe yes, maybe no, who can tell with {topic}.",
    "lol {topic} is stupid, do something else, this is a waste of time.",
)


def sample(n_pairs: int, error_share: float, seed: int, topics: tuple[str, ...]) -> tuple[pl.DataFrame, np.ndarray]:
    """Preference pairs (prompt, chosen, rejected) and where their labels are planted errors, (pairs,) bool.

    Exactly round(error_share x n_pairs) pairs, drawn at random, have their two responses swapped.

    >>> pairs, is_wrong = sample(10, 0.2, seed=0, topics=TOPICS)
    >>> len(pairs), int(is_wrong.sum())
    (10, 2)
    """
    rng = np.random.default_rng(seed)
    prompts = [question.format(topic=topic) for topic in topics for question in QUESTIONS]
    is_wrong = np.zeros(n_pairs, dtype=bool)
    is_wrong[rng.choice(n_pairs, round(error_share * n_pairs), replace=False)] = True
    rows = []
    for i in range(n_pairs):
        place = int(rng.integers(len(prompts)))
        topic = topics[place // len(QUESTIONS)]
        good, bad = (_answer(rng, share, topic) for share in HELPFUL_SHARE.values())
        chosen, rejected = (bad, good) if is_wrong[i] else (good, bad)
        rows.append({"prompt": prompts[place], "chosen": chosen, "rejected": rejected})
    return pl.DataFrame(rows), is_wrong


def _answer(rng: np.random.Generator, helpful_share: float, topic: str) -> str:
    is_helpful = rng.random(int(rng.integers(2, 6))) < helpful_share
    picked = rng.permutation(len(HELPFUL))
    return " ".join(
        (HELPFUL if h else USELESS)[i].format(topic=topic) for h, i in zip(is_helpful, picked, strict=False)
    )


def run_demo(to: Path, overwrite: bool, progress: Progress) -> dict[str, Any]:
    """Write the sample to `to`, audit, export and retrain on it; returns what was found against what was planted."""
    if to.exists() and any(to.iterdir()) and not (to / "planted.json").is_file():
        raise CurateError(f"{to}: holds other files; choose another --to")
    to.mkdir(parents=True, exist_ok=True)
    pairs, is_wrong = sample(N_PAIRS, ERROR_SHARE, SEED, TOPICS[:24])
    test, _ = sample(N_TEST_PAIRS, 0.0, SEED + 1, TOPICS[24:])
    pairs.write_ndjson(to / "sample.jsonl")
    test.write_ndjson(to / "gold.jsonl")
    write_json({"rows_with_a_planted_error": np.flatnonzero(is_wrong).tolist()}, to / "planted.json")

    run = pipeline.audit(to / "sample.jsonl", to / "run", overwrite=overwrite, progress=progress)
    exported = pipeline.export(run, to / "cleaned", overwrite=True)
    options = RetrainOptions(train="head", hidden=32, margin=True, contrastive="simcse")
    comparison = pipeline.retrain(run, to / "model", options, to / "gold.jsonl", overwrite=True, progress=progress)
    return {"planted": found_against_planted(run, is_wrong), "export": exported, "comparison": comparison}


def show_demo(to: Path, found: Mapping[str, Any]) -> None:
    """The three uses, one after the other, and where their files are."""
    planted = found["planted"]
    _say(f"1. audit of {N_PAIRS} generated pairs, {planted['n_planted']} of them with a planted label error")
    show_summary(Run.open(to / "run"))
    typer.echo(planted_words(planted))
    _say("2. export")
    show_counts(found["export"], "pairs")
    _say("3. retrain: raw against curated, adaptive margin and SimCSE on, tested on clean labels of other prompts")
    show_comparison(found["comparison"])
    typer.echo(f"report:  {to / 'run' / 'report.html'}\ndataset: {to / 'cleaned'}\nmodel:   {to / 'model'}")


def found_against_planted(run: Run, is_wrong: np.ndarray) -> dict[str, int]:
    """How many pairs were dropped, how many of them carry a planted error, and how many errors were planted."""
    is_dropped = (run.decisions["action"] == "drop").to_numpy()
    counts = {"n_dropped": is_dropped, "n_found": is_dropped & is_wrong, "n_planted": is_wrong}
    return {name: int(which.sum()) for name, which in counts.items()}


def planted_words(planted: Mapping[str, int]) -> str:
    """One line with precision and recall.

    >>> planted_words({"n_dropped": 4, "n_found": 3, "n_planted": 6})
    'dropped 4 pairs, 3 of them with a planted error: precision 0.750, recall 0.500 of 6 planted errors'
    """
    n_dropped, n_found, n_planted = (planted[name] for name in ("n_dropped", "n_found", "n_planted"))
    return (
        f"dropped {n_dropped} pairs, {n_found} of them with a planted error: precision {n_found / max(n_dropped, 1):.3f}, "
        f"recall {n_found / max(n_planted, 1):.3f} of {n_planted} planted errors"
    )


def _say(heading: str) -> None:
    typer.echo(f"\n{heading}\n{'-' * len(heading)}")

"""A small run folder as the stages would leave it, with random votes and hostile texts, for the tests of the report."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from curate.pairs import PAIR_SCHEMA
from curate.run import Run, write_parquet

N_PAIRS = 120
N_GROUPS = 40
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><b>bold</b>",
    "<img src=x onerror=alert(2)>",
    "{{ 7 * 7 }} & \u202eabc",
)
HOSTILE_ANNOTATOR = "</script><img src=x onerror=alert(4)>\u202eann" + "n" * 100
HOSTILE_BACKBONE = "</script><img src=x onerror=alert(5)>\u202e" + "m" * 100
HOSTILE_COLUMN = "</script><img src=x onerror=alert(6)>\u202ecol" + "c" * 300
HOSTILE_ID = "<img src=x onerror=alert(7)>"
HOSTILE_LANGUAGE = "</option></select><img src=x onerror=alert(8)>"
HOSTILE_POLICY = "</script><img src=x onerror=alert(9)>\u202e" + "p" * 100
HOSTILE_CATEGORY = '<a href="javascript:alert(3)">red</a></script>'
NEW_VOTE_FACTS = ("member_backbone", "cost", "batch_tolerance", "vote_spread")  # runs of before 0.2 lack them
NEW_CHECK_FACTS = ("severities", "fixes", "examples", "biases")  # these too
ALL_STAGES = ("load", "check", "vote", "strength", "decide")


def fake_pairs() -> pl.DataFrame:
    """120 pairs on 40 prompts and two categories; the first four hold hostile texts, the last is a tie."""
    rows = [_pair(i) for i in range(N_PAIRS)]
    return pl.DataFrame(rows, schema=PAIR_SCHEMA)


def _pair(i: int) -> dict[str, Any]:
    hostile = HOSTILE[i] if i < len(HOSTILE) else ""
    turns = [f"question {i % N_GROUPS} {hostile}", "an answer", "a second question"][: 3 if i % 7 == 3 else 1]
    roles = ("user", "assistant", "user")
    category = HOSTILE_CATEGORY if i % 2 else "blue"
    return {
        "pair_id": f"fake:train:{i}",
        "prompt": [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)],
        "chosen": [{"role": "assistant", "content": f"chosen {i} {hostile}" + " and more" * (i % 90)}],
        "rejected": [{"role": "assistant", "content": f"rejected {i} {hostile}" + " and so on" * (i % 13)}],
        "group": f"group-{i % N_GROUPS:02d}",
        "is_heldout": i % N_GROUPS < 4,
        "label_strength": 0.5 if i == N_PAIRS - 1 else None,
        "votes": None,
        "annotators": None,
        "source": "fake",
        "extra": f'{{"meta": {{"category": {_quoted(category)}}}}}',
    }


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


def fake_strength(pairs: pl.DataFrame) -> pl.DataFrame:
    """Ten random votes a pair, seven in ten of them for the label; the hostile pairs have the lowest means, in order."""
    rng = np.random.default_rng(0)
    differences = rng.normal(0.6, 1.0, (len(pairs), 1)) + rng.normal(0, 0.7, (len(pairs), 10))
    differences[: len(HOSTILE)] = -9.0 + np.arange(len(HOSTILE))[:, None]
    mean = differences.mean(axis=1)
    right = 1 / (1 + np.exp(-2 * mean))
    is_tie = np.arange(len(pairs)) == len(pairs) - 1
    kinds = np.select([mean < -0.7, np.abs(mean) < 0.2, mean > 1.2], ["wrong", "ambiguous", "easy"], "normal")
    return pl.DataFrame(
        {
            "pair_id": pairs["pair_id"],
            "strength_mean": mean,
            "strength_mean_raw": mean * 0.8,
            "strength_std": differences.std(axis=1),
            "vote_share": (differences > 0).mean(axis=1),
            "n_votes": pl.Series([10] * len(pairs), dtype=pl.UInt16),
            "strength_rank": mean.argsort().argsort() / (len(pairs) - 1),
            "label_prob": pl.Series(np.where(is_tie, np.nan, right)).fill_nan(None),
            "kind": kinds,
            "verified": pl.Series([None] * len(pairs), dtype=pl.String),
            "flip_p": pl.Series([None] * len(pairs), dtype=pl.Float64),
            "keep_p": pl.Series([None] * len(pairs), dtype=pl.Float64),
        }
    )


def fake_answers(strength: pl.DataFrame) -> pl.DataFrame:
    """Every other pair verified, wrong where the mean is below zero; the first one is unsure, the last is a tie."""
    row = pl.int_range(pl.len())
    answer = pl.when(pl.col("strength_mean") < 0).then(pl.lit("wrong")).otherwise(pl.lit("right"))
    asked = pl.when((row % 2 == 0) & (row > 0)).then(answer).when(row == 0).then(pl.lit("unsure"))
    p_value = pl.when(asked.is_null() & (row < N_PAIRS - 1)).then(pl.col("strength_rank"))
    return strength.with_columns(asked.alias("verified"), flip_p=p_value, keep_p=1 - p_value)


def fake_decisions(strength: pl.DataFrame) -> pl.DataFrame:
    """Drop below a label_prob of .3, smooth below .6, keep the rest and the tie."""
    prob = pl.col("label_prob")
    action = pl.when(prob < 0.3).then(pl.lit("drop")).when(prob < 0.6).then(pl.lit("smooth")).otherwise(pl.lit("keep"))
    reasons = {"drop": "label probably wrong", "smooth": "label doubtful", "keep": "no rule fired"}
    reason = pl.when(prob.is_null()).then(pl.lit("tie")).otherwise(pl.col("action").replace_strict(reasons))
    decided = strength.select("pair_id", action.alias("action"), prob).with_columns(reason.alias("reason"))
    return decided.select(
        "pair_id",
        "action",
        "reason",
        pl.when(pl.col("action") == "smooth").then(prob).when(pl.col("action") == "keep").then(1.0).alias("label_prob"),
        pl.lit(0.0).alias("margin"),
        pl.when(pl.col("action") == "drop").then(0.0).otherwise(1.0).alias("weight"),
    )


def fake_checks(pairs: pl.DataFrame) -> pl.DataFrame:
    """The columns of the checks; as many pairs each as CHECK_FACTS counts, hostile ones among them."""
    row = pl.int_range(pl.len())
    return pairs.select(
        "pair_id",
        empty_response=False,
        length_ratio=row < 12,
        no_prompt=False,
        refusal=row < 3,
        echo=row == 1,
        cut_off=row.is_between(100, 111),
    )


def estimate(value: float, low: float, high: float) -> dict[str, Any]:
    """An estimate as the stages write it."""
    return {"value": value, "low": low, "high": high, "n_pairs": N_PAIRS - 1, "n_groups": N_GROUPS}


def fake_curve(predicted: tuple[float, ...], n_pairs: int) -> list[dict[str, Any]]:
    """A reliability curve that is a point off everywhere."""
    return [
        {"mean_predicted": p, "observed": p + 0.01, "low": p - 0.05, "high": p + 0.07, "n_pairs": n_pairs}
        for p in predicted
    ]


VOTE_FACTS = {
    "n_members": 3,
    "n_folds": 2,
    "effective_votes": 1.5,
    "mean_correlation": 0.5,
    "correlation": [[1.0, 0.5, 0.4], [0.5, 1.0, 0.6], [0.4, 0.6, 1.0]],
    "member_accuracy": [0.7, 0.71, 0.69],
    "member_backbone": ["minilm", "minilm", HOSTILE_BACKBONE],
    "cost": {"ensemble": "head", "n_models": 6, "n_presentations": None, "n_trained_parameters": 841},
    "batch_tolerance": 1.2e-6,
    "vote_spread": 0.34,
    "accuracy": estimate(0.72, 0.66, 0.78),
    "length_null": {"accuracy": estimate(0.55, 0.48, 0.62)},
    "n_texts": 240,
    "n_prompts_cut": 3,
    "n_responses_cut": 4,
    "backbone": "minilm",
    "dtype": "float32",
    "threads": 1,
}


def fake_finding(name: str, severity: str, value: float, half_width: float, null: float = 0.5) -> dict[str, Any]:
    """A finding about the data as a whole, as the stage `check` writes it."""
    about = {"name": name, "severity": severity, "meaning": f"What {name} is.", "fix": f"what to do about {name}"}
    numbers = estimate(value, value - half_width, value + half_width)
    return {**about, **numbers, "null": null, "is_too_narrow": False}


CHECK_FACTS = {
    "counts": {"empty_response": 0, "length_ratio": 12, "no_prompt": 0, "refusal": 3, "echo": 1, "cut_off": 12},
    "meanings": {
        "empty_response": "A response has no text.",
        "length_ratio": "One response is far longer.",
        "no_prompt": "There is no prompt.",
        "refusal": "A response <refuses>.",
        "echo": "A response repeats the prompt.",
        "cut_off": "A response stops within a sentence.",
    },
    "severities": {
        "empty_response": "error",
        "length_ratio": "note",
        "no_prompt": "error",
        "refusal": "warning",
        "echo": "error",
        "cut_off": "warning",
    },
    "fixes": {
        "empty_response": "drop the pair",
        "length_ratio": "nothing",
        "no_prompt": "drop the pair",
        "refusal": "read <them>",
        "echo": "drop the pair",
        "cut_off": "write it again",
    },
    "examples": {"length_ratio": "fake:train:0", "refusal": "fake:train:0", "echo": "fake:train:1"},
    "biases": [
        fake_finding("list_bias", "note", 0.52, 0.04),
        fake_finding("length_bias", "warning", 0.71, 0.03),
        {**fake_finding(f"{HOSTILE_COLUMN}_shortcut", "warning", 0.9, 0.05), "n_groups": 7, "is_too_narrow": True},
        fake_finding("annotator_agreement", "note", 0.41, 0.04, null=0.0),
    ],
    "language": {"sample_size": 120, "english_share": 0.98},
    "n_over_512_tokens": 30,
    "n_over_1024_tokens": 6,
    "n_over_2048_tokens": 0,
    "max_tokens": 256,
    "warnings": ["The data is <mostly> not English."],
}
STRENGTH_FACTS = {
    "error_rate_among_clear": [
        {"top_share": share, "rate": rate, "low": rate - 0.02, "high": rate + 0.02, "n_pairs": round(share * N_PAIRS)}
        for share, rate in ((0.05, 0.04), (0.2, 0.1), (1.0, 0.28))
    ],
    "assumed_error_rate": 0.04,
    "assumption": "errors do not depend on the pair",
    "slope": 2.0,
    "agreement": {
        "curve": fake_curve((0.2, 0.5, 0.8), 40),
        "ece": {"value": 0.01, "low": 0.005, "high": 0.03},
        "brier": estimate(0.2, 0.18, 0.22),
        "n_pairs": 2 * (N_PAIRS - 1),
    },
    "kinds": {},
}
VERIFIED_FACTS = {
    "n_unsure": 1,
    "noise_rate": {"value": 0.139, "low": 0.106, "high": 0.178, "n_verified": 60, "n_wrong": 9},
    "fit": "platt",
    "label_prob": {
        "curve": fake_curve((0.4, 0.9), 30),
        "ece": {"value": 0.023, "low": 0.011, "high": 0.06},
        "brier": estimate(0.071, 0.05, 0.09),
        "n_pairs": 60,
    },
    "effective_votes": 2.25,
    "error_correlation": 0.17,
}
ANNOTATOR_FACTS = {
    "n_votes": 300,
    "n_unnamed": 2,
    "n_ties": 1,
    "n_repeated": 0,
    "n_pairs_voted": 100,
    "n_pairs_several": 90,
    "n_annotators": 9,
    "n_judged": 7,
    "n_reversed": 1,
    "n_random": 0,
    "agreement": 0.74,
    "distribution": [0] * 4 + [1] + [0] * 9 + [3, 3] + [0] * 4,
    "alpha": estimate(0.41, 0.38, 0.45),
    "doubtful": [
        {
            "annotator": HOSTILE_ANNOTATOR,
            "n_votes": 31,
            "agreement": 0.21,
            "low": 0.08,
            "high": 0.4,
            "verdict": "reversed",
        }
    ],
    "n_posterior": 100,
}
RULES = [
    {"where": "label_prob < 0.3", "do": "drop", "reason": "label probably wrong", "n_pairs": 20},
    {"where": "prompt = '<script>'", "do": "flip", "reason": "never", "n_pairs": 0},
]
GUARANTEE = {
    "flips": {
        "max_wrong": 0.2,
        "n_tested": 59,
        "n_flips": 7,
        "wrong_share": 0.18,
        "low": 0.08,
        "high": 0.36,
        "strength_below": -1.2,
        "curve": [{"max_wrong": q, "n_flips": n} for q, n in ((0.05, 0), (0.1, 2), (0.2, 7), (0.4, 11))],
    },
    "kept": {
        "n_tested": 59,
        "curve": [
            {"kept_share": 0.05, "n_kept": 3, "n_verified": 0, "wrong_share": None, "at_most": 1.0},
            {"kept_share": 0.5, "n_kept": 30, "n_verified": 30, "wrong_share": 0.0, "at_most": 0.074},
            {"kept_share": 1.0, "n_kept": 59, "n_verified": 60, "wrong_share": 0.15, "at_most": 0.23},
        ],
        "max_wrong": 0.1,
        "n_kept": 40,
        "n_kept_surely": 30,
    },
}


def decide_facts(guarantee: dict[str, Any] | None) -> dict[str, Any]:
    """The facts of the stage `decide`: no policy asks for a guarantee where there is none."""
    facts = {"policy": "auto", "help": "drop <most>; see --policy", "rules": RULES, "warnings": ["no rule <of> yours"]}
    return {**facts, "asks_guarantee": guarantee is not None, **({"guarantee": guarantee} if guarantee else {})}


def fake_run(
    path: Path,
    stages: tuple[str, ...] = ALL_STAGES,
    scoring: str = "out-of-fold",
    strength_facts: dict[str, Any] | None = None,
    guarantee: dict[str, Any] | None = None,
    **votes: Any,
) -> Run:
    """A run folder in which the given stages have run; `strength_facts` and `votes` add to the facts of their stages."""
    pairs = fake_pairs()
    strength = fake_strength(pairs)
    if "verified" in (strength_facts or {}):
        strength = fake_answers(strength)
    checks = fake_checks(pairs)
    tables: dict[str, tuple[str, pl.DataFrame, dict[str, Any], dict[str, Any]]] = {
        "load": (
            "pairs",
            pairs,
            {"heldout_share": 0.1},
            {"format": "neutral A/B", "form": "standard", "notes": ["3 <rows> noted"]},
        ),
        "check": ("checks", checks, {"max_tokens": 256}, CHECK_FACTS),
        "vote": ("votes", pairs.select("pair_id"), {"members": 3, "scoring": scoring}, {**VOTE_FACTS, **votes}),
        "strength": ("strength", strength, {}, {**STRENGTH_FACTS, **(strength_facts or {})}),
        "decide": ("decisions", fake_decisions(strength), {"policy": "auto"}, decide_facts(guarantee)),
    }
    run = Run(path)
    for stage in stages:
        name, table, options, facts = tables[stage]
        write_parquet(table, path / f"{name}.parquet")
        run.record(stage, options, [path / f"{name}.parquet"], len(table), facts)
    run.update(versions={"prefcurate": "0.1.0"})
    return run


def fake_verified_run(path: Path) -> Run:
    """A run with verified pairs, annotators and a guarantee that its policy asks for."""
    warnings = ["every <verified> label is wrong"]
    facts = {"verified": VERIFIED_FACTS, "annotators": ANNOTATOR_FACTS, "warnings": warnings}
    return fake_run(path, strength_facts=facts, guarantee=GUARANTEE)


def fake_hostile_run(path: Path) -> Run:
    """A verified run whose pair ids, languages and policy are hostile too."""
    run = fake_verified_run(path)
    language = pl.Series([HOSTILE_LANGUAGE, "en"] * (N_PAIRS // 2))
    extra = pl.Series([f'{{"language": {_quoted(name)}}}' for name in language])
    for name in ("pairs", "checks", "strength", "decisions"):
        table = run.read(name).with_columns(pl.col("pair_id") + HOSTILE_ID)
        write_parquet(table.with_columns(extra=extra) if name == "pairs" else table, path / f"{name}.parquet")
    decided = run.manifest["stages"]["decide"]["facts"] | {"policy": HOSTILE_POLICY}
    run.record("decide", {"policy": HOSTILE_POLICY}, [path / "decisions.parquet"], N_PAIRS, decided)
    return run


def fake_old_run(path: Path) -> Run:
    """A run whose checks had no severity and whose votes were cast before the stage told of its members."""
    run = fake_run(path)
    stages = dict(run.manifest["stages"])
    for stage, new in (("check", NEW_CHECK_FACTS), ("vote", NEW_VOTE_FACTS)):
        stages[stage] = {**stages[stage], "facts": _without(stages[stage]["facts"], new)}
    run.update(stages=stages)
    return run


def _without(facts: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: fact for name, fact in facts.items() if name not in names}

"""What each of several policies would do to the pairs of a run, side by side; nothing is written."""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import polars as pl

from curate.policy import ACTIONS, Policy, decide
from curate.run import Progress, no_progress
from curate.strength import known_label_prob

Worth = Callable[[pl.DataFrame, Policy], dict[str, Any]]
"""The comparison of curated and raw after a retrain on the decisions of a policy (comparison.json)."""


def compare(
    pairs: pl.DataFrame,
    checks: pl.DataFrame,
    strength: pl.DataFrame,
    policies: Mapping[str, Policy],
    worth: Worth | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """What each policy would do, what that is expected to leave wrong, and where two policies differ.

    The tables have one row per pair in the same order. With `worth`, what a retrain on the decisions of each is worth.
    """
    decided: dict[str, pl.DataFrame] = {}
    found: dict[str, dict[str, Any]] = {}
    for i, (name, policy) in enumerate(policies.items()):
        progress("policies", i, len(policies))
        decided[name] = decide(pairs, checks, strength, policy)
        found[name] = {"help": policy.help, **effects(decided[name]["action"], known_label_prob(strength))}
        if worth is not None:
            found[name]["retrain"] = worth(decided[name], policy)
    progress("policies", len(policies), len(policies))
    differing = [
        {"policies": [a, b], "n_pairs": int((decided[a]["action"] != decided[b]["action"]).sum())}
        for a, b in combinations(policies, 2)
    ]
    return {"n_pairs": len(pairs), "policies": found, "differing": differing}


def effects(action: pl.Series, label_prob: pl.Series) -> dict[str, Any]:
    """Counts and shares of the actions, and how many labels are expected to be wrong after them.

    Wrong labels among kept pairs are the sum of 1 - label_prob; a flip is wrong where the given label was right, so the
    wrong share of the flips is the mean of their label_prob. None where no such pair has a label_prob (ties have none).

    >>> found = effects(pl.Series(["keep", "keep", "flip", "drop"]), pl.Series([0.9, 0.8, 0.25, 0.1]))
    >>> found["counts"], round(found["wrong_kept"], 3), found["wrong_flip_share"]
    ({'keep': 2, 'smooth': 0, 'flip': 1, 'drop': 1}, 0.3, 0.25)
    """
    counts = {name: int((action == name).sum()) for name in ACTIONS}
    kept = label_prob.filter(action == "keep").drop_nulls().to_numpy()
    flipped = label_prob.filter(action == "flip").drop_nulls().to_numpy()
    return {
        "counts": counts,
        "shares": {name: count / max(len(action), 1) for name, count in counts.items()},
        "wrong_kept": float((1 - kept).sum()) if len(kept) else None,
        "wrong_kept_share": float((1 - kept).mean()) if len(kept) else None,
        "wrong_flips": float(flipped.sum()) if len(flipped) else None,
        "wrong_flip_share": float(flipped.mean()) if len(flipped) else None,
    }

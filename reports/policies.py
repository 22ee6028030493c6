"""What each policy that comes with prefcurate would do to the pairs of a run, beside the one that decided."""

from typing import Any

import polars as pl

from curate.compare import effects
from curate.errors import CurateError
from curate.guarantee import DEFAULT_MAX_WRONG_FLIPS, certify
from curate.policy import Policy, decide, presets
from curate.run import Run
from curate.strength import known_label_prob

Facts = dict[str, Any]

OF_RULES = (
    "pair_id",
    "group",
    "source",
    "is_heldout",
    "label_strength",
    "extra",
)  # columns of pairs: presets read no text


def policies(run: Run, table: pl.DataFrame) -> list[Facts] | None:
    """One entry per policy: `name`, `is_chosen`, and the counts and expected errors of `curate.compare.effects`.

    First the policy that decided, then the others that come with prefcurate; left out are those that need what the run has
    not (label_prob, verified pairs, a check). `table` is that of `facts.judged_pairs`. None without decisions.
    """
    if "action" not in table.columns:
        return None
    strength, _ = certify(run.strength, table["is_tie"].to_numpy(), DEFAULT_MAX_WRONG_FLIPS, None)
    chosen = str(run.manifest["stages"]["decide"]["options"]["policy"])
    own = {"name": chosen, "is_chosen": True, **effects(table["action"], known_label_prob(strength))}
    pairs, checks = run.scan("pairs").select(OF_RULES).collect(), run.read("checks")
    tried = {name: would_do(pairs, checks, strength, policy) for name, policy in presets().items() if name != chosen}
    return [own, *({"name": name, "is_chosen": False, **effect} for name, effect in tried.items() if effect)]


def would_do(pairs: pl.DataFrame, checks: pl.DataFrame, strength: pl.DataFrame, policy: Policy) -> Facts | None:
    """The effects of a policy; None where it is refused because the run lacks a column that it needs or names."""
    try:
        action = decide(pairs, checks, strength, policy)["action"]
    except CurateError:
        return None
    return effects(action, known_label_prob(strength))

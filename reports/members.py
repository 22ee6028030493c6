"""The members of the ensemble: what is known of each, and what they are worth, cost and owe to their batch, in words."""

from collections.abc import Mapping
from typing import Any

from reports.numbers import counted, significant

Facts = dict[str, Any]

TRAINED = {"head": "linear head", "lora": "LoRA fine-tune", "full": "full fine-tune"}
TOLERATED = 0.1  # of the members' spread may come from the batch


def members(ensemble: Mapping[str, Any] | None) -> Facts | None:
    """One row per member, the sentences below them and, where the batch matters, a warning.

    `ensemble` are the facts of `facts.ensemble`. None where nothing is known of single members.
    """
    rows = member_rows(ensemble) if ensemble is not None else []
    if ensemble is None or not any(len(row) > 1 for row in rows):
        return None
    warning = batch_warning(ensemble)
    return {"rows": rows, "sentences": sentences(ensemble), **({"warning": warning} if warning else {})}


def member_rows(ensemble: Mapping[str, Any]) -> list[Facts]:
    """Number, backbone, agreement with the given labels and mean correlation with the others, each where it is known.

    Agreement with labels that the members have seen says nothing, so it is left out.
    """
    columns = {
        "backbone": ensemble.get("member_backbone"),
        "agreement": ensemble.get("member_accuracy") if ensemble["is_out_of_fold"] else None,
        "correlation": with_others(ensemble.get("correlation") or []),
    }
    known = {name: values for name, values in columns.items() if values}
    return [
        {"member": i, **{name: values[i] for name, values in known.items()}}
        for i in range(ensemble.get("n_members", 0))
    ]


def with_others(correlation: list[list[float]]) -> list[float]:
    """The mean correlation of each member with the others; nothing for a single member.

    >>> with_others([[1.0, 0.5, 0.25], [0.5, 1.0, 0.75], [0.25, 0.75, 1.0]])
    [0.375, 0.625, 0.5]
    """
    n_others = len(correlation) - 1
    if n_others < 1:
        return []
    return [sum(value for j, value in enumerate(row) if j != i) / n_others for i, row in enumerate(correlation)]


def sentences(ensemble: Mapping[str, Any]) -> list[str]:
    """What the members are worth, what they cost and how far a reward depends on its batch, each where it is known."""
    found = []
    if "effective_votes" in ensemble and ensemble["n_members"] > 1:
        found.append(f"{worth(ensemble)}.")
    if ensemble.get("cost"):
        n_backbones = len(set(ensemble.get("member_backbone") or []))
        found.append(f"The votes took {cost_words(ensemble['cost'], n_backbones)}.")
    if ensemble.get("batch_tolerance") is not None:
        found.append(batch_words(ensemble["batch_tolerance"], ensemble.get("vote_spread")))
    return found


def worth(ensemble: Mapping[str, Any]) -> str:
    """How many independent votes the members are worth: by their errors on verified pairs, or at least.

    >>> worth({"n_members": 3, "effective_votes": 1.5})
    '3 members vote like 1.5 independent ones, at least'
    """
    given_truth = ensemble.get("given_truth")
    votes = (given_truth or ensemble)["effective_votes"]
    bound = "given the truth" if given_truth else "at least"
    return f"{counted(ensemble['n_members'], 'member')} vote like {votes:.1f} independent ones, {bound}"


def cost_words(cost: Mapping[str, Any], n_backbones: int = 1) -> str:
    """What was trained for the votes, and for how long in all; models of several backbones have different sizes.

    >>> cost_words({"ensemble": "head", "n_models": 20, "n_presentations": None, "n_trained_parameters": 841})
    '20 linear heads of 841 weights, fitted to convergence'
    """
    n_presentations = cost["n_presentations"]
    length = "fitted to convergence" if n_presentations is None else counted(n_presentations, "pair presentation")
    models, weights = counted(cost["n_models"], TRAINED[cost["ensemble"]]), cost["n_trained_parameters"]
    up_to = "up to " if n_backbones > 1 else ""
    return f"{models} of {up_to}{counted(weights, 'weight')}, {length}"


def batch_words(tolerance: float, spread: float | None) -> str:
    """How far the same text's reward moved with its batch, beside how far members differ (`spread`, None for one member).

    The past tense is meant: the stage `vote` measures it on a few texts.
    """
    moved = f"a reward that differed by at most {significant(tolerance)}" if tolerance else "exactly the same reward"
    words = f"The same text in another batch got {moved}"
    if spread is None:
        return f"{words}."
    times = f" ({significant(spread / tolerance)} times that)" if tolerance else ""
    return f"{words}; members differ by {significant(spread)} on a typical pair{times}."


def batch_warning(ensemble: Mapping[str, Any]) -> str | None:
    """A warning where the batch moves a reward by more than a tenth of what members differ by; None where it is fine."""
    tolerance, spread = ensemble.get("batch_tolerance"), ensemble.get("vote_spread")
    if tolerance is None or spread is None or tolerance <= TOLERATED * spread:
        return None
    return (
        f"The other texts in its batch moved a reward by up to {significant(tolerance)}, and members differ by only "
        f"{significant(spread)} on a typical pair: part of their disagreement is only that. "
        "Vote again with --deterministic."
    )

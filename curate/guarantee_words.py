"""What verified pairs certify, in words: the same sentences on the terminal and in the report."""

from collections.abc import Mapping
from typing import Any


def guarantee_words(guarantee: Mapping[str, Any], is_asked: bool) -> list[str]:
    """Sentences on flips and kept pairs from the facts of a decision; none where the policy asks for no guarantee."""
    if not guarantee or not is_asked:
        return []
    return [*_flip_words(guarantee["flips"]), *_kept_words(guarantee["kept"])]


def _flip_words(flips: Mapping[str, Any]) -> list[str]:
    asked = f"at most {_percent(flips['max_wrong'])} wrong on average over draws of the verified pairs"
    if flips["n_flips"]:
        spread = f"for nine of ten draws between {_percent(flips['low'])} and {_percent(flips['high'])}"
        return [
            f"{flips['n_flips']:,} of {flips['n_tested']:,} labels are certified as wrong: {asked}; "
            f"this draw: about {_percent(flips['wrong_share'])}, {spread}."
        ]
    if not flips["n_tested"] or not flips["n_right"]:
        more = "no pair is left to test" if flips["n_right"] else "none of their labels was right"
    elif flips["n_more"] is None:
        more = "more of them would not help: these votes do not tell wrong labels from right ones firmly enough"
    else:
        more = f"certifying the first ones takes at least {flips['n_more']:,} more, as far as these say"
    return [f"No flip could be certified ({asked}) from these verified pairs; {more}."]


def _kept_words(kept: Mapping[str, Any]) -> list[str]:
    if "n_kept" not in kept:
        return []
    share = _percent(kept["max_wrong"])
    return [
        f"{kept['n_kept']:,} of {kept['n_tested']:,} pairs are certified as right: at most {share} of them are wrong on "
        f"average; {kept['n_kept_surely']:,} could be kept if that has to hold with 90 % confidence."
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %".replace(".0 %", " %")

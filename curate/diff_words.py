"""What a diff found, in words: the same sentences on the terminal and on the page."""

import json
from collections.abc import Mapping
from typing import Any

from curate.intervals import Estimate

Facts = Mapping[str, Any]

NOUNS = {  # what is counted by each change, one and several
    "only in A": ("pair is only in A", "pairs are only in A"),
    "only in B": ("pair is only in B", "pairs are only in B"),
    "label swapped": ("label was swapped", "labels were swapped"),
    "became a tie": ("label became a tie", "labels became ties"),
    "no longer a tie": ("tie became a label", "ties became labels"),
    "label strength changed": ("label changed its strength", "labels changed their strength"),
    "response edited": ("pair has an edited response", "pairs have an edited response"),
    "prompt edited": ("pair has an edited prompt", "pairs have an edited prompt"),
    "moved into held-out": ("pair moved into the held-out ones", "pairs moved into the held-out ones"),
    "moved out of held-out": ("pair moved out of the held-out ones", "pairs moved out of the held-out ones"),
}


def headline(facts: Facts) -> str:
    """The answer in one sentence.

    >>> data = {"n_a": 4, "n_b": 4, "n_both": 4, "n_changed": 0}
    >>> headline({"data": data, "is_changed": {"data": False, "audits": False, "settings": False}})
    'Nothing changed.'
    """
    data, actions, is_changed = facts["data"], facts.get("actions", {}), facts["is_changed"]
    n, n_actions = data["n_changed"], actions.get("n_changed", 0)
    if not any(is_changed.values()):
        return "Nothing changed."
    if n and not data["n_both"]:
        return "The two runs have no pair in common."
    decided = f"{n_actions:,} of {actions['n_pairs']:,} decisions" if n_actions else "no decision"
    if n:
        rest = f", and {decided} on the pairs in both" if actions else ""
        return f"{n:,} {_pairs(n)} of the data changed{rest}."
    if n_actions:
        return f"The data is the same; {decided} changed."
    if not is_changed["audits"]:
        return "Nothing changed but the settings."
    return f"The data{' and all decisions are' if actions else ' is'} the same; the audits are not."


def _pairs(n: int) -> str:
    return "pair" if n == 1 else "pairs"


def sentences(facts: Facts) -> list[str]:
    """What stands behind the headline: data, checks, votes, strengths, and what was not compared."""
    return [
        *data_words(facts["data"]),
        *checks_words(facts.get("checks")),
        *strength_words(facts.get("strength")),
        *swapped_words(facts.get("swapped")),
        *votes_words(facts["votes"].get("difference")),
        *facts["not_compared"],
    ]


def data_words(data: Facts) -> list[str]:
    """How many pairs there are, and what happened to them.

    >>> changes = {"only in A": 1, "label swapped": 2}
    >>> print(*data_words({"n_a": 9, "n_b": 8, "n_both": 8, "changes": changes}))
    8 pairs are in both, of 9 in A and 8 in B. 1 pair is only in A, 2 labels were swapped.
    """
    counted = f"{data['n_both']:,} {_pairs(data['n_both'])} {'is' if data['n_both'] == 1 else 'are'} in both, of"
    words = [f"{counted} {data['n_a']:,} in A and {data['n_b']:,} in B."]
    found = [f"{n:,} {NOUNS[name][n > 1]}" for name, n in data["changes"].items() if n]
    return [*words, f"{', '.join(found)}."] if found else words


def checks_words(checks: Any) -> list[str]:
    """How often a check finds one of the pairs in both newly, or no longer; what is only a note is left to the table."""
    if checks is None:
        return []
    new, gone = (
        sum(check[side] or 0 for check in checks if check["severity"] != "note") for side in ("n_new", "n_gone")
    )
    if not new and not gone:
        return ["On the pairs in both, the checks find the same, notes aside."]
    return [f"On the pairs in both, the checks find {new:,} new faults and {gone:,} no longer, notes aside."]


def strength_words(strength: Facts | None) -> list[str]:
    """How alike the two audits judge the pairs in both."""
    if not strength:
        return []
    return [votes_of_both(strength), *label_prob_words(strength)]


def votes_of_both(strength: Facts) -> str:
    """How alike the strengths of the pairs in both are."""
    n = strength["n_pairs"]
    if strength["n_equal"] == n:
        return f"The votes on the {n:,} {_pairs(n)} in both are the same."
    rank = "" if strength["spearman"] is None else f"rank correlation {strength['spearman']:.2f}; "
    signs = f"{strength['n_sign_changes']:,} ({strength['n_sign_changes'] / n:.1%})".replace("%", "\u00a0%")
    return f"Strengths of the {n:,} {_pairs(n)} in both: {rank}of {signs} the votes prefer the other response."


def label_prob_words(strength: Facts) -> list[str]:
    """Of how many labels the chance to be right changed, which it can where the votes did not: by verified pairs.

    >>> label_prob_words({"n_with_prob": 80, "n_prob_changed": 77, "n_fell": 0, "n_rose": 7})[0].partition(":")[0]
    'Of 80 labels that are the same in both, 77 have another label_prob'
    """
    n, n_changed = strength["n_with_prob"], strength["n_prob_changed"]
    if not n or not n_changed:
        return []
    return [
        f"Of {n:,} {'label that is' if n == 1 else 'labels that are'} the same in both, {n_changed:,} "
        f"{'has' if n_changed == 1 else 'have'} another label_prob: {strength['n_fell']:,} became more likely wrong than right, "
        f"{strength['n_rose']:,} more likely right than wrong."
    ]


def swapped_words(swapped: Facts | None) -> list[str]:
    """Whether the swapped labels were the suspected ones."""
    if not swapped:
        return []
    n, before, after = swapped["n_pairs"], swapped["n_suspected_a"], swapped["n_suspected_b"]
    return [
        f"Of {n:,} swapped {'label' if n == 1 else 'labels'} with a label_prob, A suspected {before:,} and B {after:,}."
    ]


def votes_words(difference: Facts | None) -> list[str]:
    """Whether the votes of B agree more often with the labels, on the same pairs."""
    if not difference or not difference["n_pairs"]:
        return []
    value, low, high = (100 * difference[name] for name in ("value", "low", "high"))
    n = difference["n_pairs"]
    if value == low == high == 0:
        return []
    often = "more" if value >= 0 else "less"
    return [
        f"On the {n:,} {_pairs(n)} with the same label, the votes of B agree with it {abs(value):.1f} points {often} often "
        f"(95\u00a0% interval {low:+.1f} to {high:+.1f}){_how_surely(Estimate(**difference))}."
    ]


def _how_surely(difference: Estimate) -> str:
    """What has to be said of an interval: nothing where it is one to trust and does not hold zero."""
    if difference.is_too_narrow:
        prompts = "1 prompt" if difference.n_groups == 1 else f"{difference.n_groups} prompts"
        return f", {prompts} only, so the interval is too narrow"
    return "" if difference.low > 0 or difference.high < 0 else ", so no clear difference"


def judge_words(judge: Facts) -> dict[str, str]:
    """What is known of how good the votes are, each with its interval, by name.

    >>> judge_words({"n_members": 5, "effective_votes": 1.64, "is_out_of_fold": True})
    {'members': '5', 'independent votes': 'at least 1.6'}
    """
    found = {}
    if "n_members" in judge:
        found["members"] = str(judge["n_members"])
    if "effective_votes" in judge:
        found["independent votes"] = f"at least {judge['effective_votes']:.1f}"
    if "accuracy" in judge:
        found["agree with labels"] = _share(judge["accuracy"], judge["accuracy"]["value"])
    elif judge and not judge["is_out_of_fold"]:
        found["agree with labels"] = "no evidence: they had seen them"
    if "error_rate_among_clear" in judge:
        clear = judge["error_rate_among_clear"]
        found["error rate among clear pairs"] = f"{_share(clear, clear['rate'])}, clearest {clear['top_share']:.0%}"
    if "assumed_error_rate" in judge:
        found["error rate behind label_prob"] = f"{judge['assumed_error_rate']:.1%}, assumed"
    if "noise_rate" in judge:
        found["labels that are wrong"] = _share(judge["noise_rate"], judge["noise_rate"]["value"])
    return {name: text.replace("%", "\u00a0%") for name, text in found.items()}


def _share(estimate: Facts, value: float) -> str:
    return f"{value:.1%} [{estimate['low']:.1%}, {estimate['high']:.1%}]"


def setting_text(value: Any) -> str:
    """The value of a setting as it is read; a setting that one run has not is a dash.

    >>> setting_text(None), setting_text("auto"), setting_text(True)
    ('-', 'auto', 'true')
    """
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)

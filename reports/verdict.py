"""Can I train on this? The answer in plain words, from the facts alone."""

from collections.abc import Mapping
from typing import Any

from reports.numbers import count, counted, interval, percent

LIMITED_BELOW = 0.65  # with one label in five wrong, two of three votes against a label are then the judge's own error
MANY_ERRORS = 0.1  # of the pairs: no policy that comes with prefcurate repairs labels that go round in a circle

HEADLINES = {
    "unvoted": "Nothing has judged these labels yet.",
    "unmeasured": "This run cannot say: its votes were cast on labels that the members had seen, or may have seen.",
    "weak": "This audit cannot tell: the ensemble is a weak judge of this data.",
    "limited": "With care: the votes carry signal, but they are a limited judge of this data.",
    "useful": "Yes, after curation: the votes carry real signal about these labels.",
}
BROKEN = "With care: the votes carry real signal, but the checks find an error in {} of the pairs."


def verdict(facts: Mapping[str, Any]) -> dict[str, Any]:
    """`level` (a key of HEADLINES), `headline`, and `sentences` that give the numbers behind it."""
    level = judge(facts.get("ensemble"))
    headline = HEADLINES[level]
    if level == "useful" and error_share(facts) > MANY_ERRORS:
        level, headline = "limited", BROKEN.format(percent(error_share(facts)))
    sentences = [
        *_judge_words(facts.get("ensemble"), level),
        *([facts["noise_rate"]["sentence"]] if "noise_rate" in facts else []),
        *_against_words(facts, level),
        *_checks_words(facts),
        *_training_words(facts, level),
    ]
    return {"level": level, "headline": headline, "sentences": sentences}


def error_share(facts: Mapping[str, Any]) -> float:
    """The share of the pairs in which a check finds an error; 0 where the checks have not run.

    >>> error_share({"data": {"n_pairs": 4}, "checks": {"n_pairs_with": {"error": 1, "warning": 3}}})
    0.25
    """
    found = facts.get("checks", {}).get("n_pairs_with")
    return found["error"] / facts["data"]["n_pairs"] if found else 0.0


def judge(ensemble: Mapping[str, Any] | None) -> str:
    """How far the votes can be trusted, from their out-of-fold accuracy beside chance and the length null.

    >>> judge({"accuracy": {"value": 0.59, "low": 0.57, "high": 0.61}, "lead_over_length": {"low": -0.01}})
    'weak'
    """
    if ensemble is None:
        return "unvoted"
    if not ensemble.get("is_out_of_fold", True) or "accuracy" not in ensemble:
        return "unmeasured"
    if ensemble["accuracy"]["low"] <= 0.5 or not _is_above_length(ensemble):
        return "weak"
    return "limited" if ensemble["accuracy"]["value"] < LIMITED_BELOW else "useful"


def _is_above_length(ensemble: Mapping[str, Any]) -> bool:
    if "lead_over_length" in ensemble:
        return bool(ensemble["lead_over_length"]["low"] > 0)
    return "length" not in ensemble or bool(ensemble["accuracy"]["value"] > ensemble["length"]["value"])


def _judge_words(ensemble: Mapping[str, Any] | None, level: str) -> list[str]:
    if ensemble is None or "accuracy" not in ensemble or level == "unmeasured":
        return []
    accuracy, length = ensemble["accuracy"], ensemble.get("length")
    words = (
        f"Judging pairs it was not trained on, the ensemble agrees with {percent(accuracy['value'])} of the labels "
        f"(95 % interval {interval(accuracy)})"
    )
    if length:
        words += f"; preferring the {length['prefers']} response agrees with {percent(length['value'])}"
    return [f"{words}.", *_weakness_words(ensemble, level), *_opinion_words(ensemble)]


def _weakness_words(ensemble: Mapping[str, Any], level: str) -> list[str]:
    if level != "weak":
        return []
    accuracy = ensemble["accuracy"]
    if accuracy["low"] > 0.5:
        return [
            "That is not clearly above the length of the responses alone: a vote against a label says little more here "
            "than which response is the longer one. Try a larger --backbone."
        ]
    fault = "The interval includes one half" if accuracy["high"] >= 0.5 else "That is worse than a coin toss"
    return [
        f"{fault}: either the labels carry little that this backbone can see, or it is too small to see it. "
        "Try a larger --backbone, and read the pairs below before you act on any flag."
    ]


def _opinion_words(ensemble: Mapping[str, Any]) -> list[str]:
    members, votes = ensemble.get("n_members"), ensemble.get("effective_votes")
    if members is None or votes is None:
        return []
    own = f"Its {counted(members, 'member')} are worth about"
    bound = f"{votes:.1f} independent votes (a lower bound: shared signal counts as shared error)"
    given_truth = ensemble.get("given_truth")
    if given_truth is not None:
        bound = (
            f"{given_truth['effective_votes']:.1f} independent votes by the errors they share on "
            f"{counted(given_truth['n_verified'], 'verified pair')} (without these, the lower bound is {votes:.1f})"
        )
    return [f"{own} {bound}, so a unanimous vote is not {members} opinions."]


def _against_words(facts: Mapping[str, Any], level: str) -> list[str]:
    against = facts.get("strength", {}).get("against")
    if not against or not against["n_judged"]:
        return []
    share = percent(against["n_pairs"] / against["n_judged"])
    words = f"The votes go against {counted(against['n_pairs'], 'label')} ({share})"
    if level in ("weak", "unmeasured"):
        return [f"{words}, which here says more about the judge than about the labels.", *flip_words(facts)]
    if "expected_wrong_share" not in against:
        return [f"{words}."]
    wrong = percent(against["expected_wrong_share"], digits=0)
    ending = f"about {wrong} of these labels are wrong and the rest are errors of the judge"
    return [
        f"{words}. By label_prob{_made_words(facts)}, {ending}{_assumed_words(facts)}.",
        *flip_words(facts),
    ]


def flip_words(facts: Mapping[str, Any]) -> list[str]:
    """How few flips the votes carry; with verified pairs the guarantee says that better."""
    against = facts.get("strength", {}).get("against", {})
    if "affordable_flips" not in against or facts.get("noise_rate"):
        return []
    n = against["affordable_flips"]
    carried = f"only {counted(n, 'flip')}" if n else "no flip at all"
    return [
        f"By label_prob these votes carry {carried} if at most one flip in twenty may be wrong. "
        "To know more, see curate sample."
    ]


def _made_words(facts: Mapping[str, Any]) -> str:
    """What label_prob rests on, where that is more than the votes of the ensemble."""
    made = facts.get("label_prob", {}).get("sources", [])
    found = {"annotators": "the annotators' votes", "verified": "verified pairs"}
    named = [name for source, name in found.items() if source in made]
    return f", which rests on {' and '.join(named)}" if named else ""


def _assumed_words(facts: Mapping[str, Any]) -> str:
    """The assumption of the formula, where the formula made label_prob."""
    is_formula = "formula" in facts.get("label_prob", {}).get("sources", [])
    return ", if label errors do not depend on the pair" if is_formula else ""


def _checks_words(facts: Mapping[str, Any]) -> list[str]:
    """How many pairs are broken or should be looked at, which no judge is needed for."""
    found = facts.get("checks", {}).get("n_pairs_with")
    if not found:
        return []
    n_pairs = facts["data"]["n_pairs"]
    broken, warned = (f"{count(found[name])} ({percent(found[name] / n_pairs)})" for name in ("error", "warning"))
    return [f"The checks, which need no judge, find an error in {broken} of the pairs and a warning in {warned}."]


def _training_words(facts: Mapping[str, Any], level: str) -> list[str]:
    decided = facts.get("decisions")
    if not decided:
        return []
    actions, n_pairs = decided["actions"], decided["n_pairs"]
    policy = f" under the policy {decided['policy']}" if "policy" in decided else ""
    left = n_pairs - actions["drop"]
    flipped = f" and {counted(actions['flip'], 'label')} flipped" if actions["flip"] else ""
    words = (
        f"{count(left)} of {counted(n_pairs, 'pair')} ({percent(left / n_pairs)}) remain{policy}; "
        f"{counted(actions['drop'], 'pair')} would be dropped{flipped}, each with its reason."
    )
    if level in ("useful", "limited"):
        words += (
            " Whether that helps is a measurement, not a promise: curate retrain compares both on held-out prompts."
        )
    return [words]

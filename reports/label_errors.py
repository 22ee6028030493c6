"""How many labels are wrong, and how sure is that: what the stage `strength` found out, as parts of the facts.

Everywhere `calibrated` are the facts of that stage; a part that it did not compute is None.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from reports.numbers import count, counted, interval, percent

Facts = dict[str, Any]

FITS = {"platt": "a logistic curve (Platt)", "isotonic": "a rising curve (isotonic)"}


def noise_rate(calibrated: Mapping[str, Any]) -> Facts | None:
    """The share of wrong labels from verified pairs, with the sentence that says it; None without verified pairs."""
    verified = calibrated.get("verified")
    if not verified:
        return None
    rate = verified["noise_rate"]
    return {**rate, "n_unsure": verified.get("n_unsure", 0), "sentence": noise_sentence(rate)}


def noise_sentence(rate: Mapping[str, Any]) -> str:
    """The noise rate in words.

    >>> noise_sentence({"value": 0.139, "low": 0.106, "high": 0.178, "n_verified": 300}).replace("\\xa0", " ")
    '13.9 % of the labels are wrong, 95 % interval 10.6 to 17.8 %, from 300 verified pairs.'
    """
    pairs = counted(rate["n_verified"], "verified pair")
    return f"{percent(rate['value'])} of the labels are wrong, 95 % interval {interval(rate)}, from {pairs}."


def clear_errors(calibrated: Mapping[str, Any]) -> Facts | None:
    """How often votes contradict labels among the clearest pairs, with the assumption that makes it an error rate."""
    if not calibrated.get("error_rate_among_clear"):
        return None
    return {
        "curve": calibrated["error_rate_among_clear"],
        **{name: calibrated[name] for name in ("assumed_error_rate", "assumption") if calibrated.get(name) is not None},
    }


def label_prob(calibrated: Mapping[str, Any], table: pl.DataFrame) -> Facts | None:
    """What made label_prob, in `sources` and in sentences, and its reliability where there are verified pairs.

    The sources are `verified`, a fit to verified pairs, which replaces the others; `annotators`, the posterior of their votes
    and the ensemble's; and for pairs without several votes `formula`, from the agreement at an assumed error rate.
    """
    n_pairs = len(table["label_prob"].drop_nulls()) if "label_prob" in table.columns else 0
    verified = calibrated.get("verified")
    made = {"verified": _fit_sentence(n_pairs, verified)} if verified else _unverified_sentences(n_pairs, calibrated)
    if not n_pairs or not made:
        return None
    found: Facts = {"sources": list(made), "sentences": list(made.values())}
    return {**found, **({"reliability": verified["label_prob"]} if verified and "label_prob" in verified else {})}


def _fit_sentence(n_pairs: int, verified: Mapping[str, Any]) -> str:
    fit, n_verified = FITS[verified["fit"]], counted(verified["noise_rate"]["n_verified"], "verified pair")
    return f"For {counted(n_pairs, 'pair')}, label_prob is {fit} over strength_mean, fitted to {n_verified}."


def _unverified_sentences(n_pairs: int, calibrated: Mapping[str, Any]) -> dict[str, str]:
    """What made label_prob of how many pairs, and under which assumption, by source."""
    n_posterior = min(calibrated.get("annotators", {}).get("n_posterior", 0), n_pairs)
    made = {}
    if n_posterior:
        made["annotators"] = (
            f"For {counted(n_posterior, 'pair')}, label_prob is the posterior of the annotators' votes and the "
            "ensemble's. It assumes that votes err independently, given which response is better."
        )
    if n_pairs > n_posterior and "assumed_error_rate" in calibrated:
        others = f"{'the other ' if n_posterior else ''}{counted(n_pairs - n_posterior, 'pair')}"
        made["formula"] = (
            f"For {others}, label_prob is computed from the predicted agreement at a label error rate of "
            f"{percent(calibrated['assumed_error_rate'])}. It assumes that {calibrated['assumption']}."
        )
    return made


def votes_given_truth(calibrated: Mapping[str, Any]) -> Facts | None:
    """The effective votes and the correlation of the members' errors, from verified pairs."""
    verified = calibrated.get("verified") or {}
    if verified.get("effective_votes") is None:
        return None
    names = ("effective_votes", "error_correlation")
    found = {name: verified[name] for name in names if verified.get(name) is not None}
    return {**found, "n_verified": verified["noise_rate"]["n_verified"]}


def annotators(calibrated: Mapping[str, Any]) -> Facts | None:
    """The facts about the annotators without what could not be computed, and the sentence on those in doubt."""
    found = calibrated.get("annotators")
    if not found:
        return None
    known = {name: value for name, value in found.items() if value is not None}
    return {**known, "sentence": annotators_sentence(found)}


def annotators_sentence(found: Mapping[str, Any]) -> str:
    """How many annotators look reversed or random, of those with votes enough to say.

    >>> annotators_sentence({"n_annotators": 9, "n_judged": 7, "n_reversed": 1, "n_random": 0})
    'Of 7 annotators with votes enough to say, 1 looks reversed and 0 look random; 2 have too few.'
    """
    if not found["n_judged"]:
        return f"None of {counted(found['n_annotators'], 'annotator')} cast votes enough to say who is in doubt."
    turned, random = (
        f"{count(found[name])} {'looks' if found[name] == 1 else 'look'}" for name in ("n_reversed", "n_random")
    )
    few = found["n_annotators"] - found["n_judged"]
    judged = (
        f"Of {counted(found['n_judged'], 'annotator')} with votes enough to say, {turned} reversed and {random} random"
    )
    return f"{judged}; {count(few)} {'has' if few == 1 else 'have'} too few." if few else f"{judged}."

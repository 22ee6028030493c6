"""Our own `full` export: its columns beside TRL's, and the reader that gives back all that was read, pair by pair."""

import json
from typing import Any

from curate.errors import CurateError
from curate.files import Row
from curate.messages import as_messages, describe, text
from curate.schemas import SIDES, GivenPair, cell, listed, number, numbers

DECIDED = ("label_prob", "weight", "action", "strength_mean", "strength_std", "vote_share")
GIVEN = ("label_strength", "votes", "annotators", "source", "extra")
FULL_COLUMNS = (*DECIDED, "pair_id", *GIVEN)
EXPORTED = (*DECIDED, "margin", "pair_id", "source")  # what the reader keeps under `exported` of `extra`


def full(row: Row) -> GivenPair:
    """A `full` export: the pair as exported, and what the data said of it: label strength, votes, annotators, extra.

    What the audit added, with the pair's old id and source, becomes `exported` of `extra`; so does a label strength below
    .5, which a flip leaves behind: the label of the exported pair is the flipped one.
    """
    prompt = as_messages(cell(row, "prompt"), "prompt", "user")
    chosen, rejected = (as_messages(cell(row, side), side, "assistant") for side in SIDES)
    strength = optional_share(cell(row, "label_strength"), "label_strength")
    votes = [optional_share(vote, "votes") or 0.0 for vote in numbers(cell(row, "votes") or [], "votes")]
    names = listed(cell(row, "annotators") or [], "annotators")
    annotators = [text(name, f"annotators[{place}]") for place, name in enumerate(names)]
    if annotators and len(annotators) != len(votes):
        raise CurateError(f"annotators has {len(annotators)} names for {len(votes)} votes; expected one per vote")
    is_turned = strength is not None and strength < 0.5
    extra = extra_object(cell(row, "extra"))
    exported = {name: row[name] for name in EXPORTED if row.get(name) is not None}
    exported |= {"label_strength": strength} if is_turned else {}
    exported |= {"exported": extra["exported"]} if "exported" in extra else {}
    return GivenPair(
        prompt,
        chosen,
        rejected,
        {"prompt", *SIDES, *FULL_COLUMNS, "margin"},
        is_text=all(isinstance(row[name], str) for name in ("prompt", *SIDES)),
        label_strength=None if is_turned else strength,
        votes=votes or None,
        annotators=annotators or None,
        own={**extra, "exported": exported},
    )


def optional_share(value: Any, name: str) -> float | None:
    """A number from 0 to 1, or null."""
    if value is None:
        return None
    found = number(value, name, "a number from 0 to 1, or null")
    if not 0 <= found <= 1:
        raise CurateError(f"{name} is {describe(value)}; expected a number from 0 to 1, or null")
    return found


def extra_object(value: Any) -> dict[str, Any]:
    """The object in the JSON text of `extra`.

    >>> extra_object('{"id": 3}')
    {'id': 3}
    """
    try:
        found = json.loads(text(value, "extra"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CurateError(f"extra is {describe(value)}; expected the JSON text of an object")
    return found

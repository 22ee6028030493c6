"""A pair as it is exported: a flip turns everything that says which of the two responses was chosen."""

import json
import re
from collections.abc import Callable
from typing import Any

import polars as pl

from curate.rows import extra_json
from curate.schemas import is_number

SIDE = re.compile(r"(?<![^\W_])(chosen|rejected)(?![^\W_])")
OTHER_SIDE = {"chosen": "rejected", "rejected": "chosen"}
OTHER_POSITION = {"a": "b", "b": "a"}
PAIRED = (("chosen", "rejected"), ("chosen score list", "rejected score list"))  # columns that change places


def other_side(share: Any) -> Any:
    """A share, or a chance, of the other response."""
    return 1 - share if is_number(share) else share


def negated(lead: Any) -> Any:
    """A lead over the other response, seen from that one."""
    return 0 - lead if is_number(lead) else lead  # never -0.0


# Entries of `extra` whose value depends on which response is the chosen one; their names stay.
TURNED: dict[str, Callable[[Any], Any]] = {
    "position_chosen": lambda position: OTHER_POSITION.get(str(position), position),
    "GPT4 label": lambda label: 1 - label if is_number(label) and label in (0, 1) else label,
    "mean preference difference": negated,
    "mean_preference_difference": negated,
}
# What a `full` export that was read back said of the pair, under `exported` of `extra`.
TURNED_EXPORTED = {
    **dict.fromkeys(("strength_mean", "margin"), negated),
    **dict.fromkeys(("vote_share", "label_prob", "label_strength"), other_side),
}


def flip_responses(table: pl.DataFrame) -> pl.DataFrame:
    """The table with chosen and rejected, and all that depends on them, exchanged where the action is flip.

    `label_strength` becomes what the given label says of the pair as exported, so below .5, and the strength turns with it.
    """
    is_flipped = pl.col("action") == "flip"

    def turned(name: str, flipped: pl.Expr) -> pl.Expr:
        return pl.when(is_flipped).then(flipped).otherwise(pl.col(name)).alias(name)

    sides = [pair for pair in PAIRED if pair[0] in table.columns]
    extra = pl.when(is_flipped).then("extra").map_elements(flipped_extra, return_dtype=pl.String)
    return table.with_columns(
        *(turned(name, pl.col(other)) for pair in sides for name, other in (pair, pair[::-1])),
        turned("strength_mean", -pl.col("strength_mean")),
        *(turned(name, 1 - pl.col(name)) for name in ("vote_share", "label_strength")),
        turned("votes", pl.col("votes").list.eval(1 - pl.element())),
        turned("extra", extra),
    )


def flipped_extra(extra: str) -> str:
    """The `extra` of a pair whose responses change places.

    >>> flipped_extra('{"position_chosen":"a","score_chosen":4,"score_rejected":1}')
    '{"position_chosen":"b","score_chosen":1,"score_rejected":4}'
    """
    given = json.loads(extra)
    _turn_exported(given)
    return extra_json({_name(name): TURNED[name](value) if name in TURNED else value for name, value in given.items()})


def _turn_exported(given: dict[str, Any]) -> None:
    """Turn what former exports said of the pair, each within the one after it."""
    while isinstance(given := given.get("exported", {}), dict) and given:
        given.update({name: turn(given[name]) for name, turn in TURNED_EXPORTED.items() if name in given})


def _name(name: str) -> str:
    """The name that an entry has after a flip: that of the other response.

    >>> _name("chosen-rating"), _name("model_rejected"), _name("rejected_by"), _name("unchosen")
    ('rejected-rating', 'model_chosen', 'chosen_by', 'unchosen')
    """
    return name if name in TURNED else SIDE.sub(lambda found: OTHER_SIDE[found[0]], name)

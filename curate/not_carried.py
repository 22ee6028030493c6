"""What an export format may be unable to carry: `LOSSES`, each a name and which pairs it is true of."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from curate.errors import CurateError
from curate.messages import Message, as_messages
from curate.pairs import is_tie

SIDES = ("chosen", "rejected")
MARK = r"\n\n(Human|Assistant):"
# Pairs whose `extra` may hold messages with more than text; holds_more_than_text then reads it.
MAY_HOLD_PARTS = r'"(tool_calls|function_call)": ?[\[{]|"type": ?"'


def roles(column: str) -> pl.Expr:
    """The roles of a message column as letters: u for user, a for assistant, o for any other."""
    letters = pl.element().struct.field("role").replace_strict({"user": "u", "assistant": "a"}, default="o")
    return pl.col(column).list.eval(letters).list.join("")


def any_content(column: str, pattern: str) -> pl.Expr:
    """True where a message of the column holds the pattern."""
    return pl.col(column).list.eval(pl.element().struct.field("content").str.contains(pattern)).list.any()


# Each a function of the form in which texts are written, "standard" or "conversational".
LOSSES: dict[str, Callable[[str], pl.Expr]] = {
    "tie": lambda _: is_tie(),
    "tool calls or media": lambda _: pl.col("is_more_than_text"),
    # TRL looks into the first message of each list (trl.data_utils.is_conversational, 1.16)
    "empty list of messages": lambda form: (
        pl.any_horizontal(pl.col("prompt", *SIDES).list.len() == 0) & (form == "conversational")
    ),
    "response that is not one message of the assistant": lambda _: pl.any_horizontal(
        roles(side) != "a" for side in SIDES
    ),
    "turns of others than user and assistant": lambda _: roles("prompt").str.contains("o"),
    "turns that do not alternate": lambda _: ~roles("prompt").str.contains("^(a?(ua)*u)?$"),
    "Human: or Assistant: within a turn": lambda _: pl.any_horizontal(
        any_content(column, MARK) for column in ("prompt", *SIDES)
    ),
}


def first_loss(names: Sequence[str], form: str) -> pl.Expr:
    """The first of the named losses that a pair suffers, null where it suffers none."""
    return pl.coalesce(
        *(pl.when(LOSSES[name](form)).then(pl.lit(name)) for name in names), pl.lit(None, dtype=pl.String)
    )


def more_than_text(pairs: pl.DataFrame) -> pl.Series:
    """True for pairs whose messages held more than the pair table has: tool calls, images; (pairs,).

    `extra` keeps such messages as they were given.
    """
    extra = pairs["extra"]
    may_hold = extra.str.contains('"role"', literal=True) & extra.str.contains(MAY_HOLD_PARTS)
    asked = pairs.filter(may_hold).select("extra", "prompt", *SIDES)
    found = pl.Series([holds_more_than_text(*row) for row in asked.iter_rows()], dtype=pl.Boolean)
    return may_hold.scatter(may_hold.arg_true(), found).alias("is_more_than_text")


def holds_more_than_text(extra: str, prompt: list[Message], chosen: list[Message], rejected: list[Message]) -> bool:
    """True where an entry of `extra` is this pair's own messages as they were given, and they hold more than text.

    >>> call = '{"chosen": [{"role": "assistant", "content": null, "tool_calls": [{"name": "look"}]}]}'
    >>> holds_more_than_text(call, [], [{"role": "assistant", "content": ""}], [])
    True
    """
    wholes = (prompt + chosen, prompt + rejected)
    given = (value for value in json.loads(extra).values() if isinstance(value, list) and value)
    return any(has_parts(value) and any(is_end(turns_of(value), whole) for whole in wholes) for value in given)


def has_parts(messages: Sequence[Any]) -> bool:
    """True where messages hold tool calls or typed parts that are no text."""
    for message in messages:
        if isinstance(message, Mapping) and (message.get("tool_calls") or message.get("function_call")):
            return True
        content = message.get("content") if isinstance(message, Mapping) else None
        parts = content if isinstance(content, list) else []
        if any(isinstance(part, Mapping) and part.get("type", "text") != "text" for part in parts):
            return True
    return False


def turns_of(value: Any) -> list[Message]:
    """A value as messages, none where it is something else."""
    try:
        return as_messages(value, "extra", "user")
    except CurateError:
        return []


def is_end(messages: list[Message], whole: list[Message]) -> bool:
    """True where a conversation begins or ends with the messages."""
    n = len(messages)
    return n > 0 and messages in (whole[:n], whole[-n:])

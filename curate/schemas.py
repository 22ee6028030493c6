"""Schemas that say which response was chosen: one reader function each, which says what pair a row holds.

The columns that a reader names in `carried` are given back whole by the pair; all others go to `extra`. Schemas of two
compared responses are in ab_schemas.py, those of rated and ranked responses in ranked.py.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from curate.errors import CurateError
from curate.files import Row
from curate.messages import (
    TURN,
    Message,
    as_messages,
    describe,
    is_plain,
    render_transcript,
    split_messages,
    split_text,
    text,
    transcript_turns,
)

SIDES = ("chosen", "rejected")
SCORE_LISTS = ("chosen score list", "rejected score list")
# Columns in which data sets rate the chosen and the rejected response.
RATINGS = (
    ("score_chosen", "score_rejected"),
    ("chosen_rating", "rejected_rating"),
    ("chosen_score", "rejected_score"),
    ("chosen-rating", "rejected-rating"),
    ("rating_chosen", "rating_rejected"),
)


class GivenPair(NamedTuple):
    """What one input row says."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    carried: set[str]  # the row's columns that the other fields give back whole
    is_text: bool = False  # prompt and responses came as strings
    label_strength: float | None = None
    votes: list[float] | None = None
    annotators: list[str] | None = None
    own: Mapping[str, Any] = MappingProxyType({})  # what `extra` says of the pair beside the row's other columns
    place: str = ""  # `i-j`, chosen and rejected, where one row or prompt gives several pairs


def hh(row: Row) -> GivenPair:
    """hh-rlhf transcripts: the prompt ends at the last shared `Assistant:`; later turns stay in the response."""
    chosen_turns, rejected_turns = (transcript(cell(row, side), side) for side in ("chosen", "rejected"))
    end = split_messages(chosen_turns, rejected_turns)
    prompt, chosen, rejected = chosen_turns[:end], one_response(chosen_turns[end:]), one_response(rejected_turns[end:])
    sides = (("chosen", chosen), ("rejected", rejected))
    carried = {side for side, response in sides if render_transcript(prompt + response) == row[side]}
    return GivenPair(prompt, chosen, rejected, carried)


def hh_prompt(row: Row) -> GivenPair:
    """hh-rlhf with the prompt apart: a transcript up to an open `Assistant:` in `prompt`, the responses as text."""
    turns, is_whole = open_transcript(cell(row, "prompt"), "prompt")
    chosen, rejected = ([{"role": "assistant", "content": text(cell(row, side), side)}] for side in SIDES)
    return GivenPair(turns, chosen, rejected, {*SIDES, "prompt"} if is_whole else set(SIDES))


def open_transcript(value: Any, name: str) -> tuple[list[Message], bool]:
    """The turns of a transcript up to an open `Assistant:`, and whether they give the text back.

    >>> open_transcript("\\n\\nHuman: Sky?\\n\\nAssistant:", "prompt")
    ([{'role': 'user', 'content': 'Sky?'}], True)
    """
    turns = transcript(value, name)
    if turns[-1] == {"role": "assistant", "content": ""}:
        turns.pop()
    return turns, render_transcript(turns) == value.removesuffix(" ").removesuffix("\n\nAssistant:")


def transcript(value: Any, name: str) -> list[Message]:
    """The turns of a value that has to be an hh-rlhf transcript."""
    turns = transcript_turns(text(value, name))
    if not any(turn["role"] == "assistant" for turn in turns):
        raise CurateError(f"{name} has no 'Assistant:' turn; expected a transcript, or choose another --format")
    return turns


def one_response(turns: list[Message]) -> list[Message]:
    """The turns after the prompt as one response, later turns in its text; whole dialogues that share nothing stay."""
    if turns[0]["role"] != "assistant":
        return turns
    return [{"role": "assistant", "content": turns[0]["content"] + render_transcript(turns[1:])}]


def standard(row: Row) -> GivenPair:
    """TRL standard: `prompt`, `chosen` and `rejected` as text."""
    prompt, chosen, rejected = (text(cell(row, name), name) for name in ("prompt", "chosen", "rejected"))
    return text_pair(prompt, chosen, rejected, {"prompt", "chosen", "rejected"})


def standard_implicit(row: Row) -> GivenPair:
    """TRL standard without a prompt: `chosen` and `rejected` begin with it; it is cut off at white space."""
    chosen, rejected = (text(cell(row, side), side) for side in ("chosen", "rejected"))
    end = split_text(chosen, rejected)
    return text_pair(chosen[:end], chosen[end:], rejected[end:], {"chosen", "rejected"})


def text_pair(prompt: str, chosen: str, rejected: str, carried: set[str]) -> GivenPair:
    """A pair that came as strings."""
    chosen_turns, rejected_turns = ([{"role": "assistant", "content": response}] for response in (chosen, rejected))
    return GivenPair(as_messages(prompt, "prompt", "user"), chosen_turns, rejected_turns, carried, is_text=True)


def conversational(row: Row) -> GivenPair:
    """TRL conversational: `prompt` a list of messages, `chosen` and `rejected` the turns after it."""
    given = {name: cell(row, name) for name in ("prompt", "chosen", "rejected")}
    prompt = as_messages(listed(given["prompt"], "prompt"), "prompt", "user")
    chosen, rejected = (as_messages(given[side], side, "assistant") for side in ("chosen", "rejected"))
    n = len(prompt)
    if prompt and chosen[:n] == prompt == rejected[:n]:  # whole conversations beside their prompt
        chosen, rejected = chosen[n:], rejected[n:]
    return GivenPair(prompt, chosen, rejected, plain_columns(given))


def conversational_implicit(row: Row) -> GivenPair:
    """TRL conversational without a prompt: `chosen` and `rejected` are whole conversations with the same beginning."""
    given = {side: listed(cell(row, side), side) for side in ("chosen", "rejected")}
    chosen, rejected = (as_messages(value, side, "assistant") for side, value in given.items())
    end = split_messages(chosen, rejected)
    return GivenPair(chosen[:end], chosen[end:], rejected[end:], plain_columns(given))


def mixed(row: Row) -> GivenPair:
    """ultrafeedback_binarized: `prompt` as text, `chosen` and `rejected` conversations, whole or the last turns."""
    prompt = as_messages(text(cell(row, "prompt"), "prompt"), "prompt", "user")
    pair = conversational_implicit(row)
    if not any(turn["role"] == "user" for turn in pair.prompt + pair.chosen + pair.rejected):
        pair = pair._replace(prompt=prompt + pair.prompt)
    return pair._replace(carried=pair.carried | ({"prompt"} if pair.prompt == prompt else set()))


def openai(row: Row) -> GivenPair:
    """OpenAI style (ms-swift): `messages`, the last of them the chosen response, and the other in `rejected_response`."""
    given = {"messages": listed(cell(row, "messages"), "messages"), "rejected_response": cell(row, "rejected_response")}
    messages = as_messages(given["messages"], "messages", "user")
    if not messages or messages[-1]["role"] != "assistant":
        raise CurateError("messages has no assistant message at its end; expected the chosen response there")
    rejected = as_messages(given["rejected_response"], "rejected_response", "assistant")
    return GivenPair(messages[:-1], messages[-1:], rejected, plain_columns(given))


def strength(row: Row) -> GivenPair:
    """hh-rlhf-strength-cleaned: `chosen` and `rejected` are lists of text turns, the last the response.

    The score lists of an ensemble, where the row has them, become `scores_chosen` and `scores_rejected` of `extra`.
    """
    chosen, rejected = (text_turns(cell(row, side), side) for side in SIDES)
    end = split_messages(chosen, rejected)
    responses = [one_response(turns[end:]) for turns in (chosen, rejected)]
    whole = [chosen[:end] + response for response in responses]
    carried = {side for side, turns in zip(SIDES, whole, strict=True) if says_all(turns, row[side])}
    scores, columns = score_lists(row)
    return GivenPair(chosen[:end], responses[0], responses[1], carried | columns, own=scores)


def says_all(turns: Sequence[Message], texts: Sequence[str]) -> bool:
    """True where turns give a list of texts back, with marks or without."""
    return [turn["content"] for turn in turns] == texts or render_transcript(turns) == "".join(texts)


def text_turns(value: Any, name: str) -> list[Message]:
    """A list of texts as turns: by their marks `Human:` and `Assistant:`, or in turns that end with the assistant.

    >>> text_turns(["Sky?", "Blue."], "chosen") == text_turns(["\\n\\nHuman: Sky?", "\\n\\nAssistant: Blue."], "chosen")
    True
    """
    texts = [text(turn, f"{name}[{position}]") for position, turn in enumerate(listed(value, name))]
    if not texts:
        raise CurateError(f"{name} is an empty list; expected turns, the last one the response")
    if all(TURN.match(turn) for turn in texts):
        return [turn for marked in texts for turn in transcript_turns(marked)]
    roles = ("assistant", "user")
    return [{"role": roles[(len(texts) - 1 - position) % 2], "content": turn} for position, turn in enumerate(texts)]


def score_lists(row: Row) -> tuple[dict[str, list[float]], set[str]]:
    """The score lists of a row under our names and the columns that hold them, spelled with spaces or underscores."""
    names = [name if name in row else name.replace(" ", "_") for name in SCORE_LISTS]
    lists = [row.get(name) for name in names]
    if lists == [None, None]:
        return {}, set()
    scores = {f"scores_{side}": numbers(given, name) for side, name, given in zip(SIDES, names, lists, strict=True)}
    n_chosen, n_rejected = map(len, scores.values())
    if n_chosen != n_rejected or not n_chosen:
        raise CurateError(
            f"{names[0]} has {n_chosen} numbers and {names[1]} {n_rejected}; expected one per model in both"
        )
    return scores, set(names)


def rated(pair: GivenPair, row: Row) -> GivenPair:
    """The pair with the row's ratings of both responses as `score_chosen` and `score_rejected`; equal ones make a tie.

    Where both were rated the same, the label says which of the two was put first, not which is better: `is_label_drawn`.
    """
    for names in RATINGS:
        ratings = [row.get(name) for name in names]
        if all(is_number(rating) for rating in ratings):
            own = {**pair.own, "score_chosen": ratings[0], "score_rejected": ratings[1]}
            if ratings[0] == ratings[1] and pair.label_strength is None:
                return pair._replace(own=own | {"is_label_drawn": True}, label_strength=0.5)
            return pair._replace(own=own)
    return pair


# Parts of a row


def cell(row: Row, column: str) -> Any:
    """A column that has to be there."""
    if column not in row:
        raise CurateError(
            f"no column {column!r} (found {', '.join(map(str, row)) or 'none'}); "
            f"if yours has another name: --columns {column}=NAME"
        )
    return row[column]


def is_number(value: Any) -> bool:
    """True for a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any, name: str, expected: str = "a number") -> float:
    """A value that has to be a finite number."""
    if not is_number(value):
        raise CurateError(f"{name} is {describe(value)}; expected {expected}")
    return float(value)


def numbers(value: Any, name: str) -> list[float]:
    """A value that has to be a list of finite numbers."""
    return [number(item, f"{name}[{position}]") for position, item in enumerate(listed(value, name))]


def assistant(value: str) -> list[Message]:
    """A text as a response.

    >>> assistant("Blue.")
    [{'role': 'assistant', 'content': 'Blue.'}]
    """
    return [{"role": "assistant", "content": value}]


def listed(value: Any, name: str) -> list[Any]:
    """A value that has to be a list."""
    if not isinstance(value, list):
        raise CurateError(f"{name} is {describe(value)}; expected a list")
    return value


def plain_columns(given: Mapping[str, Any]) -> set[str]:
    """The columns whose messages say all that they hold."""
    return {name for name, value in given.items() if is_plain(value)}

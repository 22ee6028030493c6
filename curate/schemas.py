"""Schemas of preference data: one reader function each, which says what pair a row holds.

The columns that a reader names in `carried` are given back whole by the pair; all others go to `extra`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from curate.errors import CurateError
from curate.files import Row
from curate.messages import (
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


def neutral(row: Row) -> GivenPair:
    """`prompt`, `response_a`, `response_b` and `label` from 0 to 1 (1 = a preferred), optional `votes`, `meta`."""
    given = {name: cell(row, name) for name in ("prompt", "response_a", "response_b")}
    prompt = as_messages(given["prompt"], "prompt", "user")
    chosen, rejected = (as_messages(given[name], name, "assistant") for name in ("response_a", "response_b"))
    label = share(cell(row, "label"), "label")
    votes = [share(vote, f"votes[{position}]") for position, vote in enumerate(listed(row.get("votes") or [], "votes"))]
    if label < 0.5:
        chosen, rejected, votes = rejected, chosen, [1 - vote for vote in votes]
    return GivenPair(
        prompt,
        chosen,
        rejected,
        plain_columns(given) | {"label", "votes"},
        is_text=all(isinstance(value, str) for value in given.values()),
        label_strength=None if label in (0, 1) else max(label, 1 - label),
        votes=votes or None,
        annotators=annotators(row, len(votes)),
    )


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
    turns = transcript(cell(row, "prompt"), "prompt")
    if turns[-1] == {"role": "assistant", "content": ""}:
        turns.pop()
    given = row["prompt"].removesuffix(" ").removesuffix("\n\nAssistant:")
    chosen, rejected = (
        [{"role": "assistant", "content": text(cell(row, side), side)}] for side in ("chosen", "rejected")
    )
    carried = {"prompt"} if render_transcript(turns) == given else set()
    return GivenPair(turns, chosen, rejected, {"chosen", "rejected"} | carried)


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


# Parts of a row


def cell(row: Row, column: str) -> Any:
    """A column that has to be there."""
    if column not in row:
        raise CurateError(
            f"no column {column!r} (found {', '.join(map(str, row)) or 'none'}); "
            f"if yours has another name: --columns {column}=NAME"
        )
    return row[column]


def share(value: Any, name: str) -> float:
    """A label or vote: a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise CurateError(f"{name} is {describe(value)}; expected a number from 0 (b preferred) to 1 (a preferred)")
    return float(value)


def listed(value: Any, name: str) -> list[Any]:
    """A value that has to be a list."""
    if not isinstance(value, list):
        raise CurateError(f"{name} is {describe(value)}; expected a list")
    return value


def annotators(row: Row, n_votes: int) -> list[str] | None:
    """Who gave each vote, from `meta.annotator_ids`; None where it does not say."""
    meta = row.get("meta")
    names = listed(meta.get("annotator_ids") or [], "meta.annotator_ids") if isinstance(meta, dict) else []
    if names and len(names) != n_votes:
        raise CurateError(f"meta.annotator_ids has {len(names)} names for {n_votes} votes; expected one per vote")
    return [str(name) for name in names] or None


def plain_columns(given: Mapping[str, Any]) -> set[str]:
    """The columns whose messages say all that they hold."""
    return {name for name, value in given.items() if is_plain(value)}

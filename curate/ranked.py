"""Rated and ranked responses: their readers, and which pairs are made of the responses to one prompt.

A grade is what the data says of a response, higher is better: a rating, or a rank with its sign changed. Both grades of a
pair are in `extra` as `score_chosen` and `score_rejected`; what else was said of a response, as `NAME_chosen` and
`NAME_rejected`.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from curate.errors import CurateError
from curate.files import Row
from curate.messages import TURN, Message, as_messages, describe, is_plain
from curate.schemas import GivenPair, cell, listed, number, open_transcript, plain_columns

PAIRS = {
    "all": "every two responses to a prompt",
    "best-rest": "the best response against each other one",
    "best-worst": "the best response against the worst",
}
OPEN_ENDS = ("\n\nAssistant:", "\n\nAssistant: ")


class GivenResponse(NamedTuple):
    """A response, its grade (higher is better) and what else the data says of it."""

    turns: list[Message]
    grade: float
    own: dict[str, Any]


class GivenResponses(NamedTuple):
    """What one input row, or all rows of one prompt, say: a prompt and graded responses to it."""

    prompt: list[Message]
    responses: list[GivenResponse]
    carried: set[str]  # the row's columns that the other fields give back whole
    is_text: bool = False  # prompt and responses came as strings


def chosen_places(grades: Sequence[float], which: str, min_gap: float) -> list[tuple[int, int]]:
    """The places of chosen and rejected of every pair made of graded responses, best first; equal grades keep their order.

    Pairs whose grades are less than `min_gap` apart are left out, so that 0 keeps ties.

    >>> chosen_places([1.0, 4.0, 4.0], "all", min_gap=0)
    [(1, 2), (1, 0), (2, 0)]
    >>> chosen_places([1.0, 4.0, 4.0], "best-rest", min_gap=1)
    [(1, 0)]
    """
    order = sorted(range(len(grades)), key=lambda place: -grades[place])
    pairs: Iterable[tuple[int, int]] = combinations(order, 2)
    if which == "best-rest":
        pairs = [(order[0], place) for place in order[1:]]
    elif which == "best-worst":
        pairs = [(order[0], order[-1])] if len(order) > 1 else []
    return [(i, j) for i, j in pairs if grades[i] - grades[j] >= min_gap - 1e-9]  # 0.3 - 0.2 is a gap of 0.1


def ranked_pairs(given: GivenResponses, which: str, min_gap: float) -> list[GivenPair]:
    """The pairs that are made of the responses to a prompt; equal grades are a tie."""
    grades = [response.grade for response in given.responses]
    return [_pair(given, i, j) for i, j in chosen_places(grades, which, min_gap)]


def _pair(given: GivenResponses, i: int, j: int) -> GivenPair:
    sides = {"chosen": given.responses[i], "rejected": given.responses[j]}
    own = {f"{name}_{side}": value for side, response in sides.items() for name, value in response.own.items()}
    own |= {f"score_{side}": response.grade for side, response in sides.items()}
    return GivenPair(
        given.prompt,
        sides["chosen"].turns,
        sides["rejected"].turns,
        given.carried,
        given.is_text,
        label_strength=0.5 if sides["chosen"].grade == sides["rejected"].grade else None,
        own=own,
        place=f"{i}-{j}",
    )


# Readers of a row that holds several responses


def nectar(row: Row) -> GivenResponses:
    """Nectar: `prompt` (a transcript, text or messages) and `answers`, each `{answer, rank}`; the lowest rank is the best."""
    given = cell(row, "prompt")
    is_open = isinstance(given, str) and TURN.match(given) is not None and given.endswith(OPEN_ENDS)
    prompt, is_whole = open_transcript(given, "prompt") if is_open else (as_messages(given, "prompt", "user"), True)
    answers = objects(cell(row, "answers"), "answers")
    responses = [ranked(item, "answer", f"answers[{place}]") for place, item in enumerate(answers)]
    is_prompt_carried = is_whole and is_plain(given)
    is_text = isinstance(given, str) and not is_open and all(isinstance(item["answer"], str) for item in answers)
    return GivenResponses(prompt, responses, {"answers"} | ({"prompt"} if is_prompt_carried else set()), is_text)


def nemo_rl(row: Row) -> GivenResponses:
    """NeMo-RL: `context` as messages and `completions`, each `{rank, completion}`; the lowest rank is the best."""
    context = listed(cell(row, "context"), "context")
    prompt = as_messages(context, "context", "user")
    completions = objects(cell(row, "completions"), "completions")
    responses = [ranked(item, "completion", f"completions[{place}]") for place, item in enumerate(completions)]
    return GivenResponses(prompt, responses, {"completions"} | plain_columns({"context": context}))


def objects(value: Any, name: str) -> list[dict[str, Any]]:
    """A value that has to be a list of objects."""
    for place, item in enumerate(listed(value, name)):
        if not isinstance(item, dict):
            raise CurateError(f"{name}[{place}] is {describe(item)}; expected an object")
    return value  # type: ignore[no-any-return]  # checked above


def ranked(item: dict[str, Any], content: str, name: str) -> GivenResponse:
    """A response with a rank; all that it says beside its text stays its own."""
    turns = as_messages(part(item, content, name), f"{name}.{content}", "assistant")
    rank = number(part(item, "rank", name), f"{name}.rank", "a number, the best response's the lowest")
    is_whole = is_plain(item[content])
    return GivenResponse(
        turns, 0.0 - rank, {key: value for key, value in item.items() if key != content or not is_whole}
    )


def part(item: dict[str, Any], key: str, name: str) -> Any:
    """A part of an object that has to be there."""
    if key not in item:
        raise CurateError(f"{name} has no {key!r} (found {', '.join(map(str, item)) or 'none'})")
    return item[key]


# Readers of a row that holds one response: rows of the same prompt belong together


def helpsteer2(row: Row) -> GivenResponses:
    """HelpSteer2: `prompt`, `response`, and ratings from 0 to 4, of which `helpfulness` is the grade."""
    return one_rated(row, "response", number(cell(row, "helpfulness"), "helpfulness"))


def pointwise(row: Row) -> GivenResponses:
    """`prompt`, `response` and `score`, in any unit, higher is better."""
    return one_rated(row, "response", number(cell(row, "score"), "score"))


def kto(row: Row) -> GivenResponses:
    """KTO: `prompt`, `completion` and `label`, true for a desirable completion."""
    label = cell(row, "label")
    if label not in (0, 1):
        raise CurateError(f"label is {describe(label)}; expected true (desirable) or false")
    return one_rated(row, "completion", float(label))


def one_rated(row: Row, content: str, grade: float) -> GivenResponses:
    """A prompt and one response with its grade."""
    given = {name: cell(row, name) for name in ("prompt", content)}
    turns = as_messages(given[content], content, "assistant")
    prompt = as_messages(given["prompt"], "prompt", "user")
    is_text = all(isinstance(value, str) for value in given.values())
    return GivenResponses(prompt, [GivenResponse(turns, grade, {})], plain_columns(given), is_text)

"""Schemas of two compared responses, A and B: one reader function each, which turns the pair by its label.

`label` and each vote are P(A preferred): 1, 0, 0.5 for a tie, or between where graded. What was A is kept in `extra` as
`position_chosen` ("a" or "b"), because people and models prefer what they see first.
"""

import json
from collections.abc import Sequence
from typing import Any

from curate.errors import CurateError
from curate.files import Row
from curate.messages import Message, as_messages, describe, is_plain, split_messages, text
from curate.schemas import GivenPair, assistant, cell, listed, number, plain_columns

SHARE = "a number from 0 (b preferred) to 1 (a preferred)"
# How Arena data names its outcomes, as P(A preferred); "both bad" is a tie, whose name stays in `extra`.
WINNERS = {"model_a": 1.0, "model_b": 0.0, "tie": 0.5, "both_bad": 0.5, "bothbad": 0.5, "tie (bothbad)": 0.5}
WINNER_COLUMNS = {"winner_model_a": 1.0, "winner_model_b": 0.0, "winner_tie": 0.5}
PREFERENCES = {"a": 1.0, "b": 0.0, "tie": 0.5, "both": 0.5, "neither": 0.5}


def compared(
    prompt: list[Message],
    responses: tuple[list[Message], list[Message]],
    label: float,
    carried: set[str],
    votes: Sequence[float] = (),
    annotators: list[str] | None = None,
) -> GivenPair:
    """The pair of responses A and B, the preferred one as chosen and the votes turned with it; a tie keeps A first.

    >>> blue, red = assistant("Blue."), assistant("Red.")
    >>> pair = compared([], (red, blue), 0.25, set(), votes=[0, 0.5])
    >>> pair.chosen == blue, pair.label_strength, pair.votes, dict(pair.own)
    (True, 0.75, [1, 0.5], {'position_chosen': 'b'})
    """
    is_turned = label < 0.5
    chosen, rejected = reversed(responses) if is_turned else responses
    return GivenPair(
        prompt,
        chosen,
        rejected,
        carried,
        label_strength=None if label in (0, 1) else max(label, 1 - label),
        votes=[1 - vote if is_turned else vote for vote in votes] or None,
        annotators=annotators or None,
        own={"position_chosen": "b" if is_turned else "a"},
    )


def neutral(row: Row) -> GivenPair:
    """`prompt`, `response_a`, `response_b` and `label` from 0 to 1 (1 = a preferred), optional `votes`, `meta`."""
    given = {name: cell(row, name) for name in ("prompt", "response_a", "response_b")}
    prompt = as_messages(given["prompt"], "prompt", "user")
    responses = (
        as_messages(given["response_a"], "response_a", "assistant"),
        as_messages(given["response_b"], "response_b", "assistant"),
    )
    label = share(cell(row, "label"), "label")
    votes = [share(vote, f"votes[{position}]") for position, vote in enumerate(listed(row.get("votes") or [], "votes"))]
    carried = plain_columns(given) | {"label", "votes"}
    pair = compared(prompt, responses, label, carried, votes, annotator_ids(row, len(votes)))
    return pair._replace(is_text=all(isinstance(value, str) for value in given.values()))


def share(value: Any, name: str) -> float:
    """A label or vote: a number from 0 to 1."""
    found = number(value, name, SHARE)
    if not 0 <= found <= 1:
        raise CurateError(f"{name} is {describe(value)}; expected {SHARE}")
    return found


def annotator_ids(row: Row, n_votes: int) -> list[str] | None:
    """Who gave each vote, from `meta.annotator_ids`; None where it does not say."""
    meta = row.get("meta")
    names = listed(meta.get("annotator_ids") or [], "meta.annotator_ids") if isinstance(meta, dict) else []
    if names and len(names) != n_votes:
        raise CurateError(f"meta.annotator_ids has {len(names)} names for {n_votes} votes; expected one per vote")
    return [str(name) for name in names] or None


def helpsteer3(row: Row) -> GivenPair:
    """HelpSteer3: `context`, `response1`, `response2`, `overall_preference` from -3 (response 1) to 3 (response 2).

    P(response 1 preferred) is 1/2 - preference / 6, of the whole and of each annotator in `individual_preference`.
    """
    given = {name: cell(row, name) for name in ("context", "response1", "response2")}
    prompt = as_messages(given["context"], "context", "user")
    responses = (
        as_messages(given["response1"], "response1", "assistant"),
        as_messages(given["response2"], "response2", "assistant"),
    )
    label = of_three(cell(row, "overall_preference"), "overall_preference")
    people = listed(row.get("individual_preference") or [], "individual_preference")
    votes = [
        of_three(
            person.get("score") if isinstance(person, dict) else person, f"individual_preference[{position}].score"
        )
        for position, person in enumerate(people)
    ]
    return compared(prompt, responses, label, plain_columns(given), votes)


def of_three(value: Any, name: str) -> float:
    """P(response 1 preferred) of a preference from -3 to 3, negative for response 1.

    >>> of_three(-3, "score"), of_three(0, "score"), of_three(3, "score")
    (1.0, 0.5, 0.0)
    """
    expected = "a number from -3 (response 1 much better) to 3 (response 2 much better)"
    found = number(value, name, expected)
    if not -3 <= found <= 3:
        raise CurateError(f"{name} is {describe(value)}; expected {expected}")
    return 0.5 - found / 6


def arena(row: Row) -> GivenPair:
    """Arena 55k: `prompt`, `response_a` and `response_b` as JSON lists of turns; one of the columns `winner_...` is 1."""
    given = {name: json_turns(cell(row, name), name) for name in ("prompt", "response_a", "response_b")}
    conversations = [dialogue(given["prompt"], given[name], name) for name in ("response_a", "response_b")]
    carried = {name for name, turns in given.items() if all(turn == well_formed(turn) for turn in turns)}
    return parted(conversations, won(row), carried)


def json_turns(value: Any, name: str) -> list[str | None]:
    """The turns in a JSON list of texts, given as text or as a list; a text of another kind is a single turn.

    >>> json_turns('["Sky?", null]', "prompt"), json_turns("Sky?", "prompt")
    (['Sky?', None], ['Sky?'])
    """
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            found = None
        value = found if isinstance(found, list) else [value]
    turns = listed(value, name)
    for position, turn in enumerate(turns):
        if not isinstance(turn, str | None):
            raise CurateError(f"{name}[{position}] is {describe(turn)}; expected text, or null for an empty turn")
    return turns


def well_formed(value: str | None) -> str:
    """A turn as text that can be written: nothing for null, and the mark U+FFFD for half of a surrogate pair.

    Arena's JSON texts hold halves of emoji; `extra` keeps such a column as it was given.
    """
    return (value or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def dialogue(prompts: Sequence[str | None], responses: Sequence[str | None], name: str) -> list[Message]:
    """A conversation from the user's turns and the answers to them."""
    if len(prompts) != len(responses) or not prompts:
        raise CurateError(
            f"prompt has {len(prompts)} turns and {name} {len(responses)}; expected as many, at least one"
        )
    return [
        {"role": role, "content": well_formed(turn)}
        for both in zip(prompts, responses, strict=True)
        for role, turn in zip(("user", "assistant"), both, strict=True)
    ]


def won(row: Row) -> float:
    """P(A preferred) from the columns winner_model_a, winner_model_b and winner_tie, of which one is 1."""
    marks = [cell(row, name) for name in WINNER_COLUMNS]
    if sorted(marks, key=str) not in ([0, 0, 1], [False, False, True]):
        found = ", ".join(map(describe, marks))
        raise CurateError(f"{', '.join(WINNER_COLUMNS)} are {found}; expected one 1 and two 0")
    return next(label for label, mark in zip(WINNER_COLUMNS.values(), marks, strict=True) if mark)


def arena_conversations(row: Row) -> GivenPair:
    """Arena 33k and 140k: `conversation_a` and `conversation_b` as messages, `winner` the name of an outcome."""
    given = {name: listed(cell(row, name), name) for name in ("conversation_a", "conversation_b")}
    winner = cell(row, "winner")
    if not isinstance(winner, str) or winner not in WINNERS:
        raise CurateError(f"winner is {describe(winner)}; expected one of {', '.join(WINNERS)}")
    conversations = [as_messages(value, name, "assistant") for name, value in given.items()]
    return parted(conversations, WINNERS[winner], plain_columns(given))


def parted(conversations: Sequence[list[Message]], label: float, carried: set[str]) -> GivenPair:
    """The pair of two conversations, which part at the first response that they do not share."""
    first, second = conversations
    end = split_messages(first, second)
    return compared(first[:end], (first[end:], second[end:]), label, carried)


def annotated(row: Row) -> GivenPair:
    """ICAI annotated pairs 2.0: a comparison with `annotations[annotator].pref`; the default annotator is the label.

    Without a default annotator the label is the mean over those that have a preference. Annotators go by their name, else
    their description, else their id.
    """
    texts = {name: response_text(cell(row, name), name) for name in ("response_a", "response_b")}
    prompt = as_messages(row.get("prompt") or "", "prompt", "user")
    annotations = cell(row, "annotations")
    votes = preferences(annotations)
    if not votes:
        raise CurateError("annotations hold no preference; expected at least one annotator with pref a, b or tie")
    default = row.get("default_annotator")
    label = votes.get(str(default), 0.5) if default in annotations else sum(votes.values()) / len(votes)
    names = [annotator_name(row.get("annotators"), annotator) for annotator in votes]
    responses = (assistant(texts["response_a"]), assistant(texts["response_b"]))
    carried = {*texts, "annotators"} | ({"prompt"} if "prompt" not in row or is_plain(row["prompt"] or "") else set())
    pair = compared(prompt, responses, label, carried, list(votes.values()), names)
    return pair._replace(own={**pair.own, **beside_text(row)}, is_text=not isinstance(row.get("prompt"), list))


def response_text(value: Any, name: str) -> str:
    """The text of a response, which is an object with `text`, or text."""
    return text(cell(value, "text"), f"{name}.text") if isinstance(value, dict) else text(value, name)


def beside_text(row: Row) -> dict[str, Any]:
    """What ICAI's responses say beside their text, under names as Arena has them: `model_a`, `model_b`."""
    responses = {side: row[f"response_{side}"] for side in "ab"}
    return {
        f"{name}_{side}": value
        for side, response in responses.items()
        if isinstance(response, dict)
        for name, value in response.items()
        if name != "text"
    }


def preferences(annotations: Any) -> dict[str, float]:
    """P(A preferred) by annotator, of those that have a preference.

    >>> preferences({"ann": {"pref": "a"}, "bob": {"pref": None}, "cy": {"pref": "tie"}})
    {'ann': 1.0, 'cy': 0.5}
    """
    if not isinstance(annotations, dict):
        raise CurateError(f"annotations is {describe(annotations)}; expected an object of annotators")
    given = {name: value.get("pref") if isinstance(value, dict) else value for name, value in annotations.items()}
    for name, preference in given.items():
        if preference is not None and (not isinstance(preference, str) or preference not in PREFERENCES):
            expected = ", ".join(PREFERENCES)
            raise CurateError(f"annotations.{name}.pref is {describe(preference)}; expected one of {expected}, or null")
    return {name: PREFERENCES[preference] for name, preference in given.items() if preference is not None}


def annotator_name(annotators: Any, annotator: str) -> str:
    """What an annotator is called in the file's own list of annotators, or the id."""
    found = annotators.get(annotator) if isinstance(annotators, dict) else None
    found = found if isinstance(found, dict) else {}
    return str(found.get("name") or found.get("description") or annotator)

"""What two responses do not share: the words that only one side has, where the two are alike enough to compare."""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from reports.numbers import percent

ALIKE = 0.5  # of the words of both have a counterpart in the other, in order; below, everything would be marked
# A word, a sign, or one character of a script that is written without spaces
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+|[^\w\s]")

RULE = (
    "Words that only one side has are marked where at least half of the words of both sides are the same and in the same "
    "order. Below that nothing is marked, because nearly everything would be."
)

Messages = Sequence[Mapping[str, Any]]
Pieces = list[tuple[str, bool]]  # text, and whether only this side has it


def differences(chosen: Messages, rejected: Messages) -> dict[str, Any]:
    """The two responses with the pieces of each message, and `sentence`, which says what is marked.

    >>> found = differences([{"role": "a", "content": "The sky is blue."}], [{"role": "a", "content": "The sky is red."}])
    >>> found["chosen"][0]["pieces"]
    [('The sky is ', False), ('blue', True), ('.', False)]
    >>> found["sentence"].replace("\\xa0", " ")
    '80 % of the words shown on both sides are the same, in the same order; the others are marked.'
    """
    words = [list(_words(side)) for side in (chosen, rejected)]
    first, second = ([word for *_, word in side] for side in words)
    matcher = SequenceMatcher(None, first, second)
    shared = matcher.ratio()
    is_marked = ALIKE <= shared < 1
    changes = [ends for name, *ends in matcher.get_opcodes() if name != "equal"] if is_marked else []
    alone = [words[0][start:end] for start, end, *_ in changes], [words[1][start:end] for *_, start, end in changes]
    pieces = [_pieces(side, _spans(runs)) for side, runs in zip((chosen, rejected), alone, strict=True)]
    return {"chosen": pieces[0], "rejected": pieces[1], "sentence": _sentence(shared, is_marked)}


def _words(messages: Messages) -> Iterator[tuple[int, int, int, str]]:
    """Message, start, end and text of each word."""
    for i, message in enumerate(messages):
        for match in WORD.finditer(message["content"]):
            yield i, match.start(), match.end(), match.group()


def _spans(runs: list[list[tuple[int, int, int, str]]]) -> dict[int, list[tuple[int, int]]]:
    """Start and end of each run of words, by message; a run over two messages ends with the first and begins anew."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for run in runs:
        for i in sorted({word[0] for word in run}):
            inside = [word for word in run if word[0] == i]
            spans.setdefault(i, []).append((inside[0][1], inside[-1][2]))
    return spans


def _pieces(messages: Messages, spans: Mapping[int, list[tuple[int, int]]]) -> list[dict[str, Any]]:
    """The messages, each with its content in pieces: outside and inside of its spans."""
    return [{**message, "pieces": _cut(message["content"], spans.get(i, []))} for i, message in enumerate(messages)]


def _cut(text: str, spans: list[tuple[int, int]]) -> Pieces:
    pieces: Pieces = []
    place = 0
    for start, end in spans:
        pieces += [(text[place:start], False), (text[start:end], True)]
        place = end
    return [(piece, is_alone) for piece, is_alone in [*pieces, (text[place:], False)] if piece]


def _sentence(shared: float, is_marked: bool) -> str:
    if shared == 1:
        return "Word for word the two sides are the same."
    found = f"{percent(shared, 0)} of the words shown on both sides are the same, in the same order; "
    return found + ("the others are marked." if is_marked else "with so little in common nothing is marked.")

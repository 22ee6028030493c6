"""Two versions of a text as one, with what was taken out and what was put in marked, and long stretches between left out."""

import re
from difflib import SequenceMatcher
from typing import Any

WORDS = re.compile(r"\w+|\s+|[^\w\s]")
MOST_COMPARED = 500_000  # words of one version times words of the other; beyond that the whole middle counts as edited
CONTEXT = 160  # characters that are shown before and after an edit
MOST_SHOWN = 2000  # characters of one edit

Runs = list[dict[str, str]]


def edits(old: str, new: str) -> Runs:
    """The runs of a text of which some words were edited: each `same`, `old` (taken out) or `new` (put in).

    >>> edits("a red car", "a blue car")   # doctest: +NORMALIZE_WHITESPACE
    [{'is': 'same', 'text': 'a '}, {'is': 'old', 'text': 'red'}, {'is': 'new', 'text': 'blue'},
     {'is': 'same', 'text': ' car'}]
    """
    before, after = WORDS.findall(old), WORDS.findall(new)
    first = _n_common(before, after)
    last = _n_common(before[first:][::-1], after[first:][::-1])
    middle = _compared(before[first : len(before) - last], after[first : len(after) - last])
    runs = [("same", before[:first]), *middle, ("same", before[len(before) - last :])]
    return [{"is": what, "text": "".join(words)} for what, words in runs if words]


def _n_common(a: list[str], b: list[str]) -> int:
    """How many words two lists have in common at their beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _compared(before: list[str], after: list[str]) -> list[tuple[str, list[str]]]:
    if len(before) * len(after) > MOST_COMPARED:
        return [("old", before), ("new", after)]
    runs: list[tuple[str, list[str]]] = []
    for what, i, i_end, j, j_end in SequenceMatcher(str.isspace, before, after, autojunk=False).get_opcodes():
        if what == "equal":
            runs.append(("same", before[i:i_end]))
        else:
            runs += [("old", before[i:i_end]), ("new", after[j:j_end])]
    return runs


def shortened(runs: Runs) -> list[dict[str, Any]]:
    """The runs with every long one cut: a `same` one to its ends next to edits, an edit to its beginning.

    >>> runs = [{"is": "same", "text": "x" * 500}, {"is": "new", "text": "y"}]
    >>> [len(run["text"]) for run in shortened(runs)]   # an ellipsis and 160 characters
    [161, 1]
    """
    last = len(runs) - 1
    return [{**run, "text": _short(run, is_first=i == 0, is_last=i == last)} for i, run in enumerate(runs)]


def _short(run: dict[str, str], is_first: bool, is_last: bool) -> str:
    text = run["text"]
    if run["is"] != "same":
        return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "…"
    head, tail = (0 if is_first else CONTEXT), (0 if is_last else CONTEXT)
    if len(text) <= head + tail + 1:
        return text
    return text[:head] + "…" + (text[-tail:] if tail else "")

"""Which format a dataset has: `FORMATS` is tried from top to bottom on the columns and types of the first rows.

The first whose columns are there and whose rule holds reads all rows; `explain` says of each why it matched or not.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from curate import ab_schemas, full_schema, ranked, schemas
from curate.errors import CurateError
from curate.files import Row
from curate.messages import TURN
from curate.ranked import OPEN_ENDS, GivenResponses
from curate.schemas import SIDES, GivenPair

Reader = Callable[[Row], GivenPair | GivenResponses]


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Every column of the first rows, in order of first appearance."""
    return list(dict.fromkeys(str(name) for row in rows for name in row))


def kind(rows: Sequence[Row], column: str) -> type | None:
    """The type of a column's first value that is not null; None where there is none."""
    return next((type(row[column]) for row in rows if row.get(column) is not None), None)


def kinds(rows: Sequence[Row]) -> tuple[type | None, type | None]:
    """The types of `prompt` and `chosen`."""
    return kind(rows, "prompt"), kind(rows, "chosen")


def always(_: Sequence[Row]) -> bool:
    """The columns say enough."""
    return True


def is_transcript(rows: Sequence[Row]) -> bool:
    """Without a prompt, every text of the first rows holds a human and an assistant turn."""
    texts = [row.get(side) for row in rows for side in SIDES]
    return kind(rows, "prompt") is None and all(
        isinstance(value, str) and set(TURN.findall(value)) == {"Human", "Assistant"} for value in texts
    )


def is_open_transcript(rows: Sequence[Row]) -> bool:
    """Every prompt of the first rows begins with a turn and ends with an assistant turn that has yet to be written."""
    prompts = [row.get("prompt") for row in rows]
    return all(isinstance(prompt, str) and TURN.match(prompt) and prompt.endswith(OPEN_ENDS) for prompt in prompts)


def is_text_turns(rows: Sequence[Row]) -> bool:
    """The first list in `chosen` that holds anything holds text."""
    return next(
        (isinstance(row["chosen"][0], str) for row in rows if isinstance(row.get("chosen"), list) and row["chosen"]),
        False,
    )


class Format(NamedTuple):
    """A schema: the columns with its texts, the other columns it needs, a rule on the first rows, and its reader.

    `rule` says in words when `fits` is true. Rows of one prompt are read together where each holds one response.
    """

    texts: tuple[str, ...]
    read: Reader
    others: tuple[str, ...] = ()
    rule: str = ""
    fits: Callable[[Sequence[Row]], bool] = always
    is_by_prompt: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns that have to be there."""
        return self.texts + self.others


# From the most particular to the most general.
FORMATS = {
    "full": Format(SIDES, full_schema.full, others=("prompt", *full_schema.FULL_COLUMNS)),
    "arena": Format(("prompt", "response_a", "response_b"), ab_schemas.arena, others=tuple(ab_schemas.WINNER_COLUMNS)),
    "arena-conversations": Format(
        ("conversation_a", "conversation_b"), ab_schemas.arena_conversations, others=("winner",)
    ),
    "icai": Format(("response_a", "response_b"), ab_schemas.annotated, others=("annotations",)),
    "neutral": Format(("response_a", "response_b"), ab_schemas.neutral),
    "helpsteer3": Format(("context", "response1", "response2"), ab_schemas.helpsteer3, others=("overall_preference",)),
    "openai": Format(("messages", "rejected_response"), schemas.openai),
    "strength": Format(SIDES, schemas.strength, rule="chosen and rejected are lists of text turns", fits=is_text_turns),
    "hh": Format(
        SIDES,
        schemas.hh,
        rule="there is no prompt, and every text has Human: and Assistant: turns",
        fits=is_transcript,
    ),
    "hh-prompt": Format(
        SIDES,
        schemas.hh_prompt,
        rule="prompt is a transcript that ends with an open Assistant:",
        fits=is_open_transcript,
    ),
    "conversational": Format(
        SIDES,
        schemas.conversational,
        rule="prompt is a list of messages",
        fits=lambda rows: kind(rows, "prompt") is list,
    ),
    "mixed": Format(
        SIDES,
        schemas.mixed,
        rule="prompt is text, and chosen a list of messages",
        fits=lambda rows: kinds(rows) == (str, list),
    ),
    "conversational-implicit": Format(
        SIDES,
        schemas.conversational_implicit,
        rule="there is no prompt, and chosen is a list of messages",
        fits=lambda rows: kinds(rows) == (None, list),
    ),
    "standard-implicit": Format(
        SIDES, schemas.standard_implicit, rule="there is no prompt", fits=lambda rows: kind(rows, "prompt") is None
    ),
    "standard": Format(SIDES, schemas.standard),
    "nectar": Format(("prompt", "answers"), ranked.nectar),
    "nemo-rl": Format(("context", "completions"), ranked.nemo_rl),
    "helpsteer2": Format(("prompt", "response"), ranked.helpsteer2, others=("helpfulness",), is_by_prompt=True),
    "pointwise": Format(("prompt", "response"), ranked.pointwise, others=("score",), is_by_prompt=True),
    "kto": Format(("prompt", "completion"), ranked.kto, others=("label",), is_by_prompt=True),
}
COLUMNS = tuple(dict.fromkeys(["prompt", *SIDES, *(name for form in FORMATS.values() for name in form.needs)]))


def fits(form: Format, rows: Sequence[Row]) -> bool:
    """True where the columns of a format are there and its rule holds."""
    return set(form.needs) <= set(columns_of(rows)) and form.fits(rows)


def recognise(rows: Sequence[Row]) -> str:
    """The name of the first format that fits the first rows.

    >>> recognise([{"prompt": "Sky?", "chosen": "Blue.", "rejected": "Red."}])
    'standard'
    """
    for name, form in FORMATS.items():
        if fits(form, rows):
            return name
    raise CurateError(
        f"found columns {', '.join(columns_of(rows)) or '(none)'}; expected chosen and rejected, or response_a, "
        "response_b and label; name yours with --columns chosen=NAME,rejected=NAME, or see what every format needs: "
        "curate load DATA --explain"
    )


def explain(rows: Sequence[Row], given: str = "auto") -> list[str]:
    """One line per format: that it matches the first rows, or why it does not; first what was found.

    `given` is the format that was asked for, or "auto".

    >>> explain([{"prompt": "Sky?", "response": "Blue.", "score": 3}])[-2]
    'pointwise                yes: its columns are there'
    """
    found = columns_of(rows)
    chosen = given if given != "auto" else next((name for name, form in FORMATS.items() if fits(form, rows)), None)
    head = f"columns of the first {len(rows)} rows: {', '.join(found) or '(none)'}"
    tail = [] if chosen else ["no format matches: name your columns with --columns ours=yours"]
    return [head, *(f"{name:<24} {_verdict(name, rows, chosen, given)}" for name in FORMATS), *tail]


def _verdict(name: str, rows: Sequence[Row], chosen: str | None, given: str) -> str:
    form = FORMATS[name]
    missing = [column for column in form.needs if column not in columns_of(rows)]
    if name == chosen:
        why = "as --format says" if given != "auto" else form.rule
        return f"yes: {why or 'its columns are there'}"
    if missing:
        return f"no: lacks {', '.join(missing)}"
    if not form.fits(rows):
        return f"no: only where {form.rule}"
    return f"no: fits too, but {chosen} comes first" if given == "auto" else "no: fits too, but --format decides"

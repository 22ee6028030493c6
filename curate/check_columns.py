"""What the checks look at, beside the pair table: texts, turns and keys of the prompt and of the two responses."""

import polars as pl

from curate.pairs import text_of

SIDES = ("chosen", "rejected")
SCORE_NAMES = ("score_{}", "{}_score", "rating_{}", "{}_rating")

LAST_LINE_BYTES = 60  # a shorter last line may be a name, a title or the end of a list
# The last sentence, after another that ended properly, ends with a letter, a comma or an opening
OPEN_END = r"[.!?][\"')”’]*\s+[^.!?]*([\p{L}--\p{Han}]|[,(\-–])$"
NO_SENTENCE = r"^\s*([-*•+]|\d+[.)]|[#|])|https?://\S*$|```|#\w+$|[-–—] ?[A-Z][\w .]+$"


def content_key(column: str) -> pl.Expr:
    """A 64-bit hash of the messages of a column: equal messages, equal numbers."""
    return pl.col(column).list.eval(pl.element().struct.json_encode()).list.join(",").hash()


def user_turns(column: str) -> pl.Expr:
    """The contents of the user's messages of a column."""
    of_user = pl.element().filter(pl.element().struct.field("role") == "user")
    return pl.col(column).list.eval(of_user.struct.field("content"))


def ends_open(side: str) -> pl.Expr:
    """True where a response stops within a sentence: its last line is long and ends without an end after one that has it."""
    text = pl.col(f"{side}_text").str.strip_chars_end()
    last_line = text.str.extract(r"([^\n]*)$")
    is_long = last_line.str.len_bytes() >= LAST_LINE_BYTES
    return is_long & text.str.contains(OPEN_END) & ~last_line.str.contains(NO_SENTENCE)


def check_columns(pairs: pl.DataFrame) -> pl.DataFrame:
    """The pair table with a column for each thing that several checks look at, in the same order.

    `prompt_text`, `chosen_text` and `rejected_text`; `opening` and `question`, the first and the last user turn of the
    prompt (all of it where no turn is the user's); `prompt_key`, `chosen_key` and `rejected_key`, equal where the messages are;
    `chosen_is_open` and `rejected_is_open`, see `ends_open`.
    """
    columns = ("prompt", *SIDES)
    texts = pairs.with_columns(
        *(text_of(column).alias(f"{column}_text") for column in columns),
        *(content_key(column).alias(f"{column}_key") for column in columns),
        opening=user_turns("prompt").list.first(),
        question=user_turns("prompt").list.last(),
    )
    return texts.with_columns(
        pl.col("opening", "question").fill_null(pl.col("prompt_text")),
        *(ends_open(side).alias(f"{side}_is_open") for side in SIDES),
    )


def response_uses(table: pl.DataFrame, suffix: str = "key") -> pl.DataFrame:
    """To how many different prompts the responses of each pair are given: `chosen_key_prompts` and `rejected_key_prompts`."""
    sides = [table.select("prompt_key", response=f"{side}_{suffix}") for side in SIDES]
    uses = pl.concat(sides).unique().group_by("response").len("n_prompts")
    columns = [
        table.select(response=f"{side}_{suffix}").join(uses, on="response", how="left", maintain_order="left")[
            "n_prompts"
        ]
        for side in SIDES
    ]
    return pl.DataFrame({f"{side}_{suffix}_prompts": column for side, column in zip(SIDES, columns, strict=True)})


def chosen_first(extra: pl.Series) -> pl.Series:
    """Whether the chosen response stood first, from `position_chosen` in `extra`; null where that is not there.

    >>> chosen_first(pl.Series(['{"position_chosen":"a"}', '{"position_chosen":"b"}', "{}"])).to_list()
    [True, False, None]
    """
    return (extra.str.json_path_match("$.position_chosen") == "a").alias("is_chosen_first")


def own_scores(pairs: pl.DataFrame) -> pl.DataFrame:
    """The data's own scores of the two responses as `chosen_score` and `rejected_score`, from `extra`; null where it has none.

    Where they are named after a and b, `position_chosen` says which of them was chosen.

    >>> extra = ['{"score_chosen":4,"score_rejected":2.5}', '{"position_chosen":"b","score_a":4,"score_b":1}', "{}"]
    >>> own_scores(pl.DataFrame({"extra": extra})).rows()
    [(4.0, 2.5), (1.0, 4.0), (None, None)]
    """
    extra, is_first = pairs["extra"], pl.col("is_chosen_first")
    a, b = (_score(extra, place) for place in "ab")
    chosen = pl.when(is_first).then(a).when(~is_first).then(b)
    rejected = pl.when(is_first).then(b).when(~is_first).then(a)
    return pairs.with_columns(chosen_first(extra)).select(
        chosen_score=pl.coalesce(_score(extra, "chosen"), chosen),
        rejected_score=pl.coalesce(_score(extra, "rejected"), rejected),
    )


def _score(extra: pl.Series, side: str) -> pl.Expr:
    """The first number that `extra` has under one of the names of a side's score."""
    names = (name.format(side) for name in SCORE_NAMES)
    given = [name for name in names if extra.str.contains(f'"{name}"', literal=True).any()]
    found = [pl.col("extra").str.json_path_match(f'$["{name}"]').cast(pl.Float64, strict=False) for name in given]
    return pl.coalesce(found) if found else pl.lit(None, dtype=pl.Float64)

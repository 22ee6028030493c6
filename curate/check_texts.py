"""Checks of the responses' texts: each says of every pair whether something is wrong with it.

The first line of a docstring is the meaning, its last line the severity (error, warning, note) and what to do about it.
"""

from collections.abc import Callable

import polars as pl

from curate.check_columns import SIDES

EXTREME_RATIO = 10  # 0.1-0.3 % of the pairs of three real sets, 3-5 % of two (among them terse refusals, bare labels)
MOST_PROMPTS = 5  # a response to this many prompts answers none of them
FEWEST_BYTES = 30  # shorter ones (Yes., You are very welcome!) are rightly given to many prompts
HEAD_CHARS = 250  # where a refusal is looked for
LEAKED_CHARS = 40  # shorter questions are repeated in good answers
MOST_OPEN = 0.1  # with more open ends than this, people write without full stops
# A limit stops anywhere, people who leave out the full stop do not stop here: 19 % of the open ends in hh_rlhf_test
MIDDLE = r"(?i)([,(\-–]|\b(the|a|an|and|or|of|to|in|on|at|with|for|from|by|as|is|are|was|which|their|your|my|if|because|but))$"
FEWEST_MIDDLE = 0.1
TURN_IN_TEXT = "\n\n(Human|Assistant): "
CHAT_MARKS = (
    r"<\|(im_start|im_end|user|assistant|system|endoftext|eot_id|start_header_id|end_of_turn)\|>"
    r"|\[/?INST\]|<</?SYS>>|<(start|end)_of_turn>|(?m:^#{2,3} (Instruction|Response|Human|Assistant): ?$)"
)
# UTF-8 read as Windows-1252 or Latin-1, UTF-8 read as GBK, replacement and control characters
MOJIBAKE = (
    "[\u00c3\u00c2][\u0080-\u00bf\u20ac\u0192\u2020\u2021\u02c6\u2030\u0160\u0152\u017d\u2122\u0161\u0153\u017e\u0178]"
    "|\u00e2(\u20ac|\u0080)[\u0080-\u00bf\u0153\u2122\u02dc\u201c\u00a6]|\u00ef\u00bf\u00bd|\u00f0\u0178"
    "|\u951f\u65a4\u62f7|[\ufffd\\x00-\\x08\\x0e-\\x1f\\x7f]"
)
CANNOT = r"(can('|’)?t|cannot|can not|('|’)m (unable|not able) to|am (unable|not able) to|won('|’)t|will not|refuse to)"
DO = r"(assist|help|comply|fulfill?|provide|engage|support|encourage|condone|participate|answer|generate|create|write|do)\b"
REFUSAL = (
    rf"(?is)^.{{0,60}}?\bi ?{CANNOT} (\w+ )?{DO}|^.{{0,20}}\bsorry\b.{{0,40}}\bi ?{CANNOT} (?:\w+ )?{DO}"
    "|^.{0,10}(抱歉|对不起|很遗憾).{0,25}(不能|无法|没有办法|没法)|^作为.{0,20}(人工智能|语言模型|AI).{0,20}(不能|无法)"
)
# What follows is an answer after all
HEDGE = r"(?i)\b(however|but|instead|here (is|are))\b|但|不过|可以|能够"


def on_either_side(condition: Callable[[str], pl.Expr]) -> pl.Expr:
    """True where a condition on a side holds for the chosen or for the rejected response."""
    return pl.any_horizontal(*(condition(side) for side in SIDES))


def is_blank(column: str) -> pl.Expr:
    """True where a text column holds nothing but white space."""
    return pl.col(column).str.strip_chars().str.len_bytes() == 0


def empty_response() -> pl.Expr:
    """A response has no text.

    error: drop the pair, or fetch the response again
    """
    return on_either_side(lambda side: is_blank(f"{side}_text"))


def empty_prompt() -> pl.Expr:
    """The prompt has no text, so nothing says what the responses answer.

    warning: name the prompt's column with --columns, or drop the pair
    """
    return is_blank("prompt_text")


def boilerplate_response() -> pl.Expr:
    """A response is given word for word to five prompts or more.

    warning: drop the pair, or keep one of each such response, so that no model learns the phrase
    """

    def is_boilerplate(side: str) -> pl.Expr:
        return (pl.col(f"{side}_key_prompts") >= MOST_PROMPTS) & (
            pl.col(f"{side}_text").str.len_bytes() >= FEWEST_BYTES
        )

    return on_either_side(is_boilerplate)


def turns_in_response() -> pl.Expr:
    """A response runs over further turns of dialogue, so that the two sides answer different things.

    warning: cut the response at its first turn, or drop the pair
    """
    has_turn = on_either_side(lambda side: pl.col(f"{side}_text").str.contains(TURN_IN_TEXT))
    of_user = pl.element().struct.field("role") == "user"
    return has_turn | on_either_side(lambda side: pl.col(side).list.eval(of_user).list.any())


def differing_contexts() -> pl.Expr:
    """The last answers of the two sides follow different turns, so they answer different questions.

    error: drop the pair, or cut both sides back to the turns that they share
    """
    turns, texts = [turns_before(side) for side in SIDES], [text_before(side) for side in SIDES]
    has_messages = pl.any_horizontal(*(pl.col(side).list.len() > 1 for side in SIDES))
    return (has_messages & (turns[0] != turns[1])) | (texts[0] != texts[1])


def turns_before(side: str) -> pl.Expr:
    """The messages of a side before its last one, as JSON."""
    return (
        pl.col(side).list.eval(pl.element().struct.json_encode()).list.head(pl.col(side).list.len() - 1).list.join(",")
    )


def text_before(side: str) -> pl.Expr:
    """The text of a side before the last answer in it, where it runs over a further question; else empty."""
    return pl.col(f"{side}_text").str.extract(r"(?s)^(.*\n\nHuman: .*)\n\nAssistant:").fill_null("")


def template_in_response() -> pl.Expr:
    """A response holds the marks of a chat template, such as [INST] or <|im_end|>.

    warning: cut the response at the mark; it comes from a model that did not stop
    """
    return on_either_side(lambda side: pl.col(f"{side}_text").str.contains(CHAT_MARKS))


def prompt_in_response() -> pl.Expr:
    """A response begins with the whole last question.

    warning: cut the question off; it is repeated where a completion was stored with its prompt
    """
    question = pl.col("question").str.strip_chars()
    is_long = question.str.len_chars() >= LEAKED_CHARS

    def begins(side: str) -> pl.Expr:
        return pl.col(f"{side}_text").str.strip_chars_start().str.starts_with(question)

    return is_long & on_either_side(begins)


def broken_encoding() -> pl.Expr:
    """A text holds replacement or control characters, or letters that were decoded wrongly (â€™ for an apostrophe).

    warning: read the source again as UTF-8, or mend the text (ftfy does)
    """
    return pl.any_horizontal(*(pl.col(f"{column}_text").str.contains(MOJIBAKE) for column in ("prompt", *SIDES)))


def ends_in_middle(side: str) -> pl.Expr:
    """True where a response stops at a word that no sentence ends with."""
    return pl.col(f"{side}_is_open") & pl.col(f"{side}_text").str.strip_chars_end().str.contains(MIDDLE)


def is_cut_off(side: str) -> pl.Expr:
    """True where a response stops at such a word, or at any word where enough of the open ends of the data are such."""
    n_open = pl.sum_horizontal(*(pl.col(f"{each}_is_open").sum() for each in SIDES))
    n_middle = pl.sum_horizontal(*(ends_in_middle(each).sum() for each in SIDES))
    is_by_limit = (n_open < MOST_OPEN * len(SIDES) * pl.len()) & (n_middle > FEWEST_MIDDLE * n_open)
    return ends_in_middle(side) | (pl.col(f"{side}_is_open") & is_by_limit)


def truncated_response() -> pl.Expr:
    """A response stops within a sentence, while most end properly.

    warning: write it again with a higher limit of tokens, or drop the pair: the label may punish the limit
    """
    return on_either_side(is_cut_off)


def refuses(side: str) -> pl.Expr:
    """True where a response begins by declining to answer."""
    opening = pl.col(f"{side}_text").str.head(HEAD_CHARS)
    return opening.str.contains(REFUSAL) & ~opening.str.contains(HEDGE)


def refusal() -> pl.Expr:
    """A response declines to answer.

    note: see refusal_bias for whether the labels prefer that, and keep what your policy wants refused
    """
    return on_either_side(refuses)


def extreme_length_ratio() -> pl.Expr:
    """One response is more than ten times as long as the other.

    note: look whether the label says more than the length does
    """
    chosen, rejected = (pl.col(f"{side}_text").str.len_chars().clip(1) for side in SIDES)
    return pl.max_horizontal(chosen, rejected) > EXTREME_RATIO * pl.min_horizontal(chosen, rejected)


def prompt_longer_than_limit() -> pl.Expr:
    """The prompt does not fit beside the responses within the token limit; its beginning is not read.

    note: raise --max-tokens if the beginning matters
    """
    return pl.col("is_prompt_cut")


def equal_after_truncation() -> pl.Expr:
    """The responses have the same tokens up to the limit, so the models see no difference.

    warning: raise --max-tokens if the difference lies beyond it; such a pair is kept as it is
    """
    return pl.col("is_equal_after_cut")


def other_language() -> pl.Expr:
    """A response is in another language than the question.

    note: drop the pair unless a translation was asked for
    """
    return pl.col("is_other_language")


TEXT_CHECKS = (
    empty_response,
    empty_prompt,
    boilerplate_response,
    turns_in_response,
    differing_contexts,
    template_in_response,
    prompt_in_response,
    broken_encoding,
    truncated_response,
    other_language,
    refusal,
    extreme_length_ratio,
    prompt_longer_than_limit,
    equal_after_truncation,
)

"""Cheap checks of the data: a tuple of functions, each one boolean column of `checks.parquet`.

Adding a check is adding a function: its name is the column, the first line of its docstring its line in the report.
A check sees the pair table beside the columns of `rm_ensemble.batches.token_lengths`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from curate.options import FeatureOptions
from curate.pairs import is_tie, stable_hash, text_of

EXTREME_RATIO = 10  # 0.1-0.3 % of the pairs of three real sets, 3-5 % of two (among them terse refusals, bare labels)
TRL_MAX_TOKENS = 1024  # TRL drops pairs that are longer
MOSTLY = 0.5
TURN_IN_TEXT = "\n\n(Human|Assistant): "


def content_key(column: str) -> pl.Expr:
    """A 64-bit hash of the messages of a column: equal messages, equal numbers."""
    return pl.col(column).list.eval(pl.element().struct.json_encode()).list.join(",").hash()


def is_blank(column: str) -> pl.Expr:
    """True where a message column holds nothing but white space."""
    return text_of(column).str.strip_chars().str.len_bytes() == 0


def identical_responses(_pairs: pl.LazyFrame) -> pl.Expr:
    """Both responses are the same text, so the label says nothing."""
    return content_key("chosen") == content_key("rejected")


def empty_response(_pairs: pl.LazyFrame) -> pl.Expr:
    """A response has no text."""
    return is_blank("chosen") | is_blank("rejected")


def empty_prompt(_pairs: pl.LazyFrame) -> pl.Expr:
    """The prompt has no text, so nothing says what the responses answer."""
    return is_blank("prompt")


def exact_duplicate_pair(_pairs: pl.LazyFrame) -> pl.Expr:
    """An earlier row has the same prompt, the same two responses and the same label."""
    first, second = ordered_responses()
    label = pl.when(is_tie()).then(None).otherwise(content_key("chosen") == first)
    return ~pl.struct(content_key("prompt"), first=first, second=second, label=label).is_first_distinct()


def contradicting_labels(_pairs: pl.LazyFrame) -> pl.Expr:
    """Another row prefers the other one of the same two responses to the same prompt."""
    first, second = ordered_responses()
    label = pl.when(~is_tie() & (first != second)).then(content_key("chosen") == first)
    share = label.mean().over(pl.struct(content_key("prompt"), first=first, second=second).hash())
    return (label.is_not_null() & share.is_between(0, 1, closed="none")).fill_null(False)


def ordered_responses() -> tuple[pl.Expr, pl.Expr]:
    """The keys of the two responses in an order that does not depend on the label."""
    chosen, rejected = content_key("chosen"), content_key("rejected")
    return pl.min_horizontal(chosen, rejected), pl.max_horizontal(chosen, rejected)


def turns_in_response(_pairs: pl.LazyFrame) -> pl.Expr:
    """A response runs over further turns of dialogue, so that the two sides answer different things."""
    has_turn = [text_of(side).str.contains(TURN_IN_TEXT) for side in ("chosen", "rejected")]
    has_user = [
        pl.col(side).list.eval(pl.element().struct.field("role") == "user").list.any()
        for side in ("chosen", "rejected")
    ]
    return pl.any_horizontal(*has_turn, *has_user)


def extreme_length_ratio(_pairs: pl.LazyFrame) -> pl.Expr:
    """One response is more than ten times as long as the other."""
    chosen, rejected = (text_of(side).str.len_chars().clip(1) for side in ("chosen", "rejected"))
    return pl.max_horizontal(chosen, rejected) > EXTREME_RATIO * pl.min_horizontal(chosen, rejected)


def prompt_longer_than_limit(_pairs: pl.LazyFrame) -> pl.Expr:
    """The prompt does not fit beside the responses within the token limit; its beginning is not read."""
    return pl.col("is_prompt_cut")


def equal_after_truncation(_pairs: pl.LazyFrame) -> pl.Expr:
    """The responses differ only beyond the token limit, so the models see no difference."""
    return pl.col("is_equal_after_cut")


CHECKS: tuple[Callable[[pl.LazyFrame], pl.Expr], ...] = (
    identical_responses,
    empty_response,
    empty_prompt,
    exact_duplicate_pair,
    contradicting_labels,
    turns_in_response,
    extreme_length_ratio,
    prompt_longer_than_limit,
    equal_after_truncation,
)


def meanings() -> dict[str, str]:
    """What each check means, in one sentence, by its column."""
    return {check.__name__: (check.__doc__ or "").splitlines()[0] for check in CHECKS}


def checks(pairs: pl.DataFrame, token_lengths: pl.DataFrame) -> pl.DataFrame:
    """Every check of every pair: `pair_id` and one boolean per check, in the order of `pairs`.

    `token_lengths` has a row for each pair in the same order (`rm_ensemble.batches.token_lengths`).
    """
    assert pairs["pair_id"].equals(token_lengths["pair_id"]), "token lengths of other pairs"
    table = pl.concat([pairs, token_lengths.drop("pair_id")], how="horizontal").lazy()
    return table.select("pair_id", *(check(table).alias(check.__name__) for check in CHECKS)).collect()


def language(pairs: pl.DataFrame, sample: int = 500, seed: int = 0) -> dict[str, float]:
    """The share of English among `sample` pairs, those of smallest seeded hash, judged by prompt and responses.

    A pair without letters (numbers, formulas) has no language and is not in `sample_size`; without any the share is 1,
    so that nothing is warned of.
    """
    import py3langid  # reads its model on import

    order = pairs["pair_id"].map_elements(lambda pair_id: stable_hash(f"{seed}:{pair_id}"), return_dtype=pl.String)
    chosen = pairs.with_columns(order=order).sort("order", "pair_id").head(sample)
    texts = chosen.select(pl.concat_str(map(text_of, ("prompt", "chosen", "rejected")), separator="\n")).to_series()
    languages = [py3langid.classify(text)[0] for text in texts if any(map(str.isalpha, text))]
    n_english = languages.count("en")
    return {"sample_size": len(languages), "english_share": n_english / len(languages) if languages else 1.0}


def check_facts(
    pairs: pl.DataFrame, table: pl.DataFrame, lengths: pl.DataFrame, options: FeatureOptions
) -> dict[str, Any]:
    """Counts and meanings of the checks, language and lengths, and what the backbone cannot judge, as JSON values."""
    found = language(pairs)
    longest = pl.col("n_prompt_tokens") + pl.max_horizontal("n_chosen_tokens", "n_rejected_tokens")
    facts = {
        "counts": {name: int(table[name].sum()) for name in table.columns if name != "pair_id"},
        "meanings": meanings(),
        "language": found,
        "max_tokens": options.max_tokens,
        "n_prompts_cut": int(lengths["is_prompt_cut"].sum()),
        "n_responses_cut": int(lengths["is_response_cut"].sum()),
        "n_over_1024_tokens": int(lengths.select((longest > TRL_MAX_TOKENS).sum()).item()),
    }
    return {**facts, "warnings": _warnings(facts, len(pairs), options)}


def _warnings(facts: Mapping[str, Any], n_pairs: int, options: FeatureOptions) -> list[str]:
    """What the embedded default cannot judge about this data, in words."""
    warnings = []
    if options.backbone == "minilm" and facts["language"]["english_share"] < MOSTLY:
        warnings.append(
            f"{1 - facts['language']['english_share']:.0%} of a sample of the pairs are not English, and the embedded "
            "backbone knows English only: use a multilingual --backbone"
        )
    cut = facts["n_responses_cut"] / n_pairs
    if cut > MOSTLY:
        warnings.append(
            f"{cut:.0%} of the pairs have a response longer than the limit of {options.max_tokens} tokens: "
            "only its beginning is judged"
        )
    prompts = facts["n_prompts_cut"] / n_pairs
    if prompts > MOSTLY:
        warnings.append(
            f"{prompts:.0%} of the pairs have a prompt that does not fit into {options.max_tokens} tokens beside its "
            "responses: only its end is read"
        )
    return warnings

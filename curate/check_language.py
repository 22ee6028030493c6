"""Languages: how much of the data is English, and which responses are in another language than the question."""

from functools import cache
from typing import Any

import polars as pl

from curate.check_columns import SIDES
from curate.pairs import stable_hash, text_of

FEWEST_LETTERS = 40  # shorter texts are guessed wrong
SURE = 0.9  # the identifier's own probability, of either text
JUDGED_CHARS = 400
# Words of English that no other large language has: most English texts need no identifier, which takes 0.1 ms a text
ENGLISH = r"(?i)\b(the|and|that|you|with|this|have|are|your|from|which|would|they|will|what|there)\b"
CODE = r"```|[{};]\s*\n|\$\$|\\[a-z]+\{|(?m:^\s*(import|def|class|#include|function|const|return) )"
TRANSLATION = (
    r"(?i)translat|übersetz|traduc|tradui|翻译|翻訳|переве|in (english|chinese|french|german|spanish|japanese)"
)


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


def other_language_column(table: pl.DataFrame) -> pl.Series:
    """True where a response is in another language than the question, (pairs,); false where either is short, code or unclear.

    A question that asks for a translation is not held against the response.
    """
    columns = ["question", *(f"{side}_text" for side in SIDES)]
    guessed = pl.concat([table.select(text=pl.col(name).str.head(JUDGED_CHARS)) for name in columns])["text"]
    known = languages(guessed)
    question, *sides = (known[i * len(table) : (i + 1) * len(table)] for i in range(len(columns)))
    asks = table["question"].str.contains(TRANSLATION)
    differs = [((side != question) & side.is_not_null() & question.is_not_null()).fill_null(False) for side in sides]
    return ((differs[0] | differs[1]) & ~asks).alias("is_other_language")


def languages(texts: pl.Series) -> pl.Series:
    """The language of each text as a code, null where it is too short, holds code, or is not clear."""
    letters = texts.str.count_matches(r"\p{L}")
    scripts = texts.str.count_matches(
        r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]"
    )  # two or three letters' worth each
    is_judged = (letters + 2 * scripts >= FEWEST_LETTERS) & ~texts.str.contains(CODE)
    is_english = texts.str.count_matches(ENGLISH) >= 2 + letters // 100
    rest = texts.filter(is_judged & ~is_english).unique()
    codes = pl.DataFrame({"text": rest, "code": pl.Series(map(_code, rest), dtype=pl.String)})
    joined = texts.to_frame("text").join(codes, on="text", how="left", maintain_order="left", nulls_equal=True)
    found = joined.with_columns(is_judged.alias("judged"), is_english.alias("english"))
    return found.select(pl.when("judged").then(pl.when("english").then(pl.lit("en")).otherwise("code"))).to_series()


def _code(text: str) -> str | None:
    """The language of a text, None where the identifier is not sure."""
    code, probability = _identifier().classify(text)
    return code if probability >= SURE else None


@cache
def _identifier() -> Any:
    """The language identifier with probabilities; its model is read once."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

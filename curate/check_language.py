"""Languages: how much of the data is English, and which responses are in another language than the question."""

from functools import cache
from typing import Any

import polars as pl

from curate.check_columns import SIDES
from curate.pairs import stable_hash, text_of
from curate.run import Progress, no_progress, told

FEWEST_LETTERS = 40  # shorter texts are guessed wrong
SURE = 0.9  # the identifier's own probability, of either text
JUDGED_CHARS = 400
# Words of English that no other large language has: most English texts need no identifier, which takes 0.1 ms a text
ENGLISH = r"(?i)\b(the|and|that|you|with|this|have|are|your|from|which|would|they|will|what|there)\b"
FEWEST_ENGLISH = 2
OTHER_SCRIPT = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Cyrillic}\p{Arabic}\p{Greek}\p{Devanagari}\p{Thai}]"
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


def other_language_column(table: pl.DataFrame, progress: Progress = no_progress) -> pl.Series:
    """True where a response is in another language than the question, (pairs,); false where either is short, code or unclear.

    A question that asks for a translation is not held against the response.
    """
    columns = ["question", *(f"{side}_text" for side in SIDES)]
    texts = table.select(pl.col(columns).str.head(JUDGED_CHARS))
    judged = texts.select(can_be_judged(pl.col(columns)))
    is_asked = judged["question"] & (judged["chosen_text"] | judged["rejected_text"])
    is_asked &= ~table["question"].str.contains(TRANSLATION)
    codes = languages(pl.concat([texts.filter(is_asked)[name] for name in columns]).unique(), progress)
    known = texts.with_columns(
        pl.when(is_asked & judged[name]).then(pl.col(name).replace_strict(codes, default=None, return_dtype=pl.String))
        for name in columns
    )
    differs = [(pl.col(f"{side}_text") != pl.col("question")).fill_null(False) for side in SIDES]
    return known.select(pl.any_horizontal(differs).alias("is_other_language")).to_series()


def can_be_judged(text: pl.Expr) -> pl.Expr:
    """True for a text that is long enough and not code."""
    letters = text.str.count_matches(r"\p{L}")
    characters = text.str.count_matches(
        r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]"
    )  # worth two or three letters each
    return (letters + 2 * characters >= FEWEST_LETTERS) & ~text.str.contains(CODE)


def languages(texts: pl.Series, progress: Progress = no_progress) -> dict[str, str | None]:
    """The language of each text as a code, None where it is not clear."""
    is_english = (texts.str.count_matches(ENGLISH) >= FEWEST_ENGLISH) & ~texts.str.contains(OTHER_SCRIPT)
    rest = texts.filter(~is_english).to_list()
    codes = {text: _code(text) for text in told(rest, "languages", len(rest), progress)}
    return dict.fromkeys(texts.filter(is_english).to_list(), "en") | codes


def _code(text: str) -> str | None:
    """The language of a text, None where the identifier is not sure."""
    code, probability = _identifier().classify(text)
    return code if probability >= SURE else None


@cache
def _identifier() -> Any:
    """The language identifier with probabilities; its model is read once."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

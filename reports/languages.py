"""In which language each pair is written, where its row does not say."""

import polars as pl

from curate.check_columns import SIDES, user_turns
from curate.check_language import JUDGED_CHARS, can_be_judged, languages
from curate.pairs import text_of
from curate.run import Run

DETECTED = "detected language"
MOST_JUDGED = 5000  # pairs: the identifier takes up to 0.3 ms a text, and every text may need it
FEWEST_PAIRS = 20  # of a language; a rarer one is often a wrong guess
UNCLEAR = "other or unclear"


def detected_languages(run: Run) -> pl.Series | None:
    """The language of each pair as a code, (pairs,), from its last question and both responses; null where nobody looked.

    Of more than 5,000 pairs those of smallest hash are looked at. None where fewer than two languages have 20 pairs.
    """
    ids = run.scan("pairs").select("pair_id").collect()
    chosen = ids if len(ids) <= MOST_JUDGED else ids.sort(pl.col("pair_id").hash(0), "pair_id").head(MOST_JUDGED)
    judged = pair_texts(run.scan("pairs").join(chosen.lazy(), on="pair_id", how="semi"))
    codes = languages(judged.filter("can_be_judged")["text"].unique())
    code = pl.col("text").replace_strict(codes, default=None, return_dtype=pl.String)
    found = judged.select("pair_id", language=pl.when("can_be_judged").then(code))
    sizes = found["language"].drop_nulls().value_counts().filter(pl.col("count") >= FEWEST_PAIRS)
    if len(sizes) < 2:
        return None
    is_common = pl.col("language").is_in(sizes["language"].to_list())
    named = found.with_columns(pl.when(is_common).then("language").otherwise(pl.lit(UNCLEAR)).alias("language"))
    return ids.join(named, on="pair_id", how="left", maintain_order="left")["language"]


def pair_texts(pairs: pl.LazyFrame) -> pl.DataFrame:
    """`pair_id`, `text` (the beginnings of question and responses) and whether its language can be told."""
    question = pl.coalesce(user_turns("prompt").list.last(), text_of("prompt"))
    begun = [part.str.head(JUDGED_CHARS) for part in (question, *map(text_of, SIDES))]
    text = pl.concat_str(begun, separator="\n", ignore_nulls=True)
    texts = pairs.select("pair_id", text=text).collect(engine="streaming")
    return texts.with_columns(can_be_judged=can_be_judged(pl.col("text")))

import numpy as np
import polars as pl
import pytest

from rm_ensemble.text_features import COUNTED, text_features

NAMES = [
    *COUNTED,
    "characters",
    "words",
    "distinct_words",
    "distinct_share",
    "word_length",
    "is_finished",
    "is_capitalised",
    "shared",
]


def read(prompt, response):
    turn = [{"role": "user", "content": prompt}] if prompt is not None else []
    texts = pl.DataFrame(
        {"prompt": [turn], "response": [[{"role": "assistant", "content": response}]]},
        schema_overrides={"prompt": pl.List(pl.Struct({"role": pl.String, "content": pl.String}))},
    )
    return dict(zip(NAMES, text_features(texts)[0].tolist(), strict=True))


def test_counts_by_hand():
    found = read("Which tea, please?", "Green tea. 2 cups!\n- I'd SAY: green")
    for name, count in {
        "sentences": 2,
        "lines": 1,
        "list_items": 1,
        "digits": 1,
        "exclamations": 1,
        "shouted": 1,
    }.items():
        assert found[name] == pytest.approx(np.log1p(count)), name
    assert found["words"] == pytest.approx(np.log1p(7))  # green tea 2 cups i'd say green
    assert found["distinct_share"] == pytest.approx(6 / 7)
    assert found["shared"] == pytest.approx(1 / 6)  # tea
    assert (found["is_finished"], found["is_capitalised"]) == (0, 1)


def test_a_chinese_character_is_a_word():
    assert read(None, "你好吗")["words"] == pytest.approx(np.log1p(3))


@pytest.mark.parametrize("response", ["", " ", "\n\n", "🙂"])
def test_empty_and_odd_texts_give_finite_numbers(response):
    assert np.isfinite(list(read(None, response).values())).all()

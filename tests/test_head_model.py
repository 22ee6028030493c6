import json
from pathlib import Path

import numpy as np
import pytest
from tiny_models import good_answers, write_encoder

from curate.errors import CurateError
from curate.options import FeatureOptions
from rm_ensemble import artefact
from rm_ensemble.batches import unique_texts
from rm_ensemble.features import features
from rm_ensemble.head_model import N_TWO_LAYER, HeadModel, head_rewards, side_by_side, train_head
from rm_ensemble.heads import HeadOptions, Heads
from rm_ensemble.inputs import HeadInputs
from rm_ensemble.splits import Split, difference, raw_pairs
from rm_ensemble.text_features import text_features

BLOCKS = ("full/2/response", "full/2/prompt", "response/1/mean")
PAIRS = good_answers(24)
TEXTS, INDEX = unique_texts(PAIRS)


def planted_split(n_pairs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Split]:
    """Inputs of 8 dims, the direction that decides, and pairs (two texts each) labelled by it."""
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(2 * n_pairs, 8)).astype(np.float32)
    direction = np.array([1, -1, 1, 0, 0, 0, 0, 0], dtype=np.float32)
    index = np.arange(2 * n_pairs).reshape(-1, 2)
    index = np.where((inputs[index] @ direction)[:, :1] > (inputs[index] @ direction)[:, 1:], index, index[:, ::-1])
    ones = np.ones(n_pairs, dtype=np.float32)
    return inputs, direction, Split(ones, np.arange(n_pairs), index, ones, 0 * ones, ones)


@pytest.fixture
def model(tmp_path: Path) -> HeadModel:
    options = FeatureOptions(write_encoder(tmp_path / "backbone"), 48, "float32", BLOCKS)
    read, text, split = features(TEXTS, options), text_features(TEXTS), raw_pairs(PAIRS, INDEX)
    inputs = HeadInputs.fit(read.blocks, text, split.index)
    return HeadModel(train_head(inputs(read.blocks, text), split, HeadOptions(), seed=0), inputs, options)


@pytest.mark.parametrize(("hidden", "n_models"), [(0, 1), (8, N_TWO_LAYER)])
def test_one_head_comes_back_and_finds_the_planted_direction(hidden: int, n_models: int) -> None:
    inputs, direction, split = planted_split(300)
    heads = train_head(inputs, split, HeadOptions(hidden), seed=0)
    assert len(heads.settings) == n_models
    assert heads.rewards(inputs).shape == (600, 1)
    fresh, _, other = planted_split(200, seed=1)
    agreement = (difference(lambda rows: heads.rewards(fresh[rows])[:, 0], other.index) > 0).mean()
    assert agreement > (0.85 if hidden else 0.93)
    if not hidden:
        weight = heads.arrays["linear"][:, 0]
        assert weight @ direction / np.linalg.norm(weight) / np.linalg.norm(direction) > 0.98


def test_heads_side_by_side_give_their_mean_reward() -> None:
    generator = np.random.default_rng(0)
    draw = lambda *shape: generator.normal(size=shape).astype(np.float32)  # noqa: E731
    heads = Heads({"first": draw(4, 6, 3), "bias": draw(4, 3), "second": draw(4, 3)}, [5] * 4)
    inputs = draw(10, 6)
    np.testing.assert_allclose(
        side_by_side(heads).rewards(inputs)[:, 0], heads.rewards(inputs).mean(axis=1), rtol=1e-4, atol=1e-5
    )


def test_a_pair_without_weight_does_not_count() -> None:
    inputs, direction, split = planted_split(300)
    half = np.arange(300) < 150
    wrong = np.where(half[:, None], split.index[:, ::-1], split.index)
    weighted = Split(split.pair_id, split.group, wrong, split.label_prob, split.margin, (~half).astype(np.float32))
    assert train_head(inputs, weighted, HeadOptions(), seed=0).arrays["linear"][:, 0] @ direction > 0


def test_saved_and_loaded_scores_are_the_same(model: HeadModel, tmp_path: Path) -> None:
    artefact.save(model, tmp_path / "model", TEXTS)
    np.testing.assert_array_equal(head_rewards(artefact.load(tmp_path / "model"), TEXTS), head_rewards(model, TEXTS))
    table = artefact.score(tmp_path / "model", PAIRS)
    np.testing.assert_array_equal(table.drop("pair_id").to_numpy(), head_rewards(model, TEXTS)[INDEX])
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"backbone", "head.safetensors", "head.json"}


def test_the_folder_says_what_it_is_and_names_no_place_on_this_machine(model: HeadModel, tmp_path: Path) -> None:
    artefact.save(model, tmp_path / "model", TEXTS)
    text = (tmp_path / "model" / "head.json").read_text(encoding="utf-8")
    record = json.loads(text)
    assert "AutoModelForSequenceClassification) cannot load it" in record["what"]
    assert (record["blocks"], record["max_tokens"], record["dtype"]) == (list(BLOCKS), 48, "float32")
    assert record["shapes"]["head.linear"] == [model.heads.arrays["linear"].shape[0], 1]
    assert str(tmp_path) not in text


@pytest.mark.parametrize("name", ["head.safetensors", "backbone/model.safetensors", "backbone/tokenizer.json"])
def test_a_file_that_is_not_the_saved_one_is_refused(name: str, model: HeadModel, tmp_path: Path) -> None:
    artefact.save(model, tmp_path / "model", TEXTS)
    path = tmp_path / "model" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CurateError, match=rf"{name}: sha256 \w+, expected \w+; retrain the model with --overwrite"):
        artefact.score(tmp_path / "model", PAIRS)
    path.unlink()
    with pytest.raises(CurateError, match=rf"{name}: sha256 no such file, expected"):
        artefact.score(tmp_path / "model", PAIRS)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]"])
def test_a_damaged_record_is_refused(text: str, model: HeadModel, tmp_path: Path) -> None:
    artefact.save(model, tmp_path / "model", TEXTS)
    (tmp_path / "model" / "head.json").write_text(text, encoding="utf-8")
    with pytest.raises(CurateError, match=r"head.json: damaged .* retrain the model with --overwrite"):
        artefact.load(tmp_path / "model")


def test_batches_and_company_hardly_change_a_reward(model: HeadModel) -> None:
    together = head_rewards(model, TEXTS)
    alone = np.concatenate([head_rewards(model, TEXTS[row : row + 1]) for row in range(8)])
    np.testing.assert_allclose(alone, together[:8], atol=1e-5)

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tiny_models import good_answers, write_decoder, write_encoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from curate.errors import CurateError
from rm_ensemble.batches import full_sequences, text_segments, unique_texts
from rm_ensemble.classifier import (
    BATCH_TOKENS,
    Classifier,
    classifier_rewards,
    load_classifier,
    new_classifier,
    reward_head,
    rewards_and_states,
    save_classifier,
    token_batch,
)


@pytest.fixture(params=[write_encoder, write_decoder], ids=["encoder", "decoder"])
def classifier(request: pytest.FixtureRequest, tmp_path: Path) -> Classifier:
    return new_classifier(request.param(tmp_path / "backbone"), max_tokens=48, seed=0)


@pytest.fixture
def texts() -> pl.DataFrame:
    return unique_texts(good_answers(20))[0]


def test_the_seed_fixes_the_head_and_leaves_the_callers_generator_alone(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path)
    before = torch.random.get_rng_state()
    heads = [reward_head(new_classifier(folder, 48, seed).model).weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert torch.equal(before, torch.random.get_rng_state())


def test_saved_and_loaded_scores_are_the_same(classifier: Classifier, texts: pl.DataFrame, tmp_path: Path) -> None:
    save_classifier(classifier, tmp_path / "model")
    loaded = load_classifier(tmp_path / "model")
    assert loaded.max_tokens == 48
    np.testing.assert_array_equal(classifier_rewards(loaded, texts), classifier_rewards(classifier, texts))
    kinds = {path.suffix for path in (tmp_path / "model").iterdir()}
    assert kinds == {".safetensors", ".json", ".jinja"}


def test_stock_transformers_reads_the_folder_and_finds_our_rewards(
    classifier: Classifier, texts: pl.DataFrame, tmp_path: Path
) -> None:
    """The chat template renders the very tokens that we score, and the stock class gives the same reward."""
    save_classifier(classifier, tmp_path / "model")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    ours = full_sequences(text_segments(texts, classifier.tokenizer), 48)
    conversations = [prompt + response for prompt, response in texts.rows()]
    for row, messages in enumerate(conversations[:4]):
        ids = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
        place = ours.index[row]
        assert ids == ours.ids[ours.starts[place] : ours.starts[place + 1]].tolist()
    batch = tokenizer.apply_chat_template(conversations, return_dict=True, return_tensors="pt", padding=True)
    with torch.inference_mode():
        stock = model(**batch).logits[:, 0].numpy()
    np.testing.assert_allclose(stock, classifier_rewards(classifier, texts), atol=1e-6)


def test_pad_is_never_eos_and_config_and_tokenizer_agree(classifier: Classifier) -> None:
    config, tokenizer = classifier.model.config, classifier.tokenizer
    assert None not in (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert (config.pad_token_id, config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert config.num_labels == 1


def test_batches_and_padding_do_not_change_a_reward(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = good_answers(12).with_columns(
        chosen=pl.Series([[{"role": "assistant", "content": "a b " * row}] for row in range(12)])
    )
    texts = unique_texts(pairs)[0]
    together = classifier_rewards(classifier, texts)
    monkeypatch.setitem(BATCH_TOKENS, "cpu", 1)  # one text per batch
    np.testing.assert_allclose(classifier_rewards(classifier, texts), together, atol=1e-6)
    np.testing.assert_allclose(classifier_rewards(classifier, texts[::-1]), together[::-1], atol=1e-6)


def test_the_head_reads_the_returned_state_in_float32(classifier: Classifier, texts: pl.DataFrame) -> None:
    sequences = full_sequences(text_segments(texts, classifier.tokenizer), 48)
    tokens, mask = token_batch(sequences, np.arange(len(sequences.lengths)), classifier.model)
    for autocast in (torch.float32, torch.bfloat16):
        with torch.no_grad():
            rewards, states = rewards_and_states(classifier.model, tokens, mask, autocast)
            assert (rewards.dtype, states.dtype) == (torch.float32, torch.float32)
            torch.testing.assert_close(reward_head(classifier.model)(states)[:, 0], rewards)


def test_a_folder_without_the_head_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    save_classifier(classifier, tmp_path / "model")
    classifier.model.base_model.save_pretrained(tmp_path / "model")
    with pytest.raises(CurateError, match=r"model: the model has no weights for (classifier|score)"):
        load_classifier(tmp_path / "model")


def test_truncated_weights_are_refused_in_one_line(classifier: Classifier, tmp_path: Path) -> None:
    save_classifier(classifier, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CurateError, match="no reward model can be loaded from it") as error:
        load_classifier(tmp_path / "model")
    assert "\n" not in str(error.value)


def test_too_many_tokens_for_the_backbone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CurateError, match="--max-tokens 65: backbone .* reads at most 64"):
        new_classifier(write_encoder(tmp_path), max_tokens=65, seed=0)


def test_nothing_saved_names_a_place_on_this_machine(classifier: Classifier, tmp_path: Path) -> None:
    save_classifier(classifier, tmp_path / "model")
    for path in (tmp_path / "model").glob("*.json"):
        assert str(tmp_path) not in json.dumps(json.loads(path.read_text(encoding="utf-8"))), path.name

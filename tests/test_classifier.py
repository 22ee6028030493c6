import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tiny_models import VOCABULARY, good_answers, write_decoder, write_encoder, write_family
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from curate.errors import CurateError
from rm_ensemble.batches import full_sequences, text_segments, unique_texts
from rm_ensemble.classifier import (
    BATCH_TOKENS,
    RECORD,
    Classifier,
    classifier_rewards,
    load_classifier,
    new_classifier,
    reward_head,
    rewards_and_states,
    save_classifier,
    token_batch,
)

NO_HEAD = r"not a reward model, it has no head with one output .* with: curate retrain RUN --backbone .* --to FOLDER"


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
            rewards, states, _ = rewards_and_states(classifier.model, tokens, mask, autocast)
            assert (rewards.dtype, states.dtype) == (torch.float32, torch.float32)
            torch.testing.assert_close(reward_head(classifier.model)(states)[:, 0], rewards)


def test_a_folder_without_the_head_is_no_reward_model(classifier: Classifier, tmp_path: Path) -> None:
    save_classifier(classifier, tmp_path / "model")
    classifier.model.base_model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / RECORD).unlink()
    with pytest.raises(CurateError, match=NO_HEAD):
        load_classifier(tmp_path / "model")


@pytest.mark.parametrize("name", ["qwen2", "gpt2", "bert"])
def test_a_language_model_is_no_reward_model(name: str, tmp_path: Path) -> None:
    write_family(name, tmp_path)
    with pytest.raises(CurateError, match=NO_HEAD):
        load_classifier(tmp_path)


@pytest.mark.parametrize("name", ["qwen2", "bert"])
def test_a_classifier_with_several_outputs_is_no_reward_model(name: str, tmp_path: Path) -> None:
    write_family(name, tmp_path)
    AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=3).save_pretrained(tmp_path)
    with pytest.raises(
        CurateError, match=r"no head with one output \((score|classifier)\.\w+ is missing or has several\)"
    ):
        load_classifier(tmp_path)


@pytest.mark.parametrize("n_labels", [1, 3])
@pytest.mark.parametrize("name", ["llama", "gpt_neox", "bert", "modernbert"])
def test_a_classifier_as_backbone_loses_its_head(name: str, n_labels: int, tmp_path: Path) -> None:
    """The new head is that of the seed, whatever head the folder has, and the rest is the folder's."""
    folder = write_family(name, tmp_path)
    given = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=n_labels)
    torch.nn.init.constant_(given.get_submodule("score" if hasattr(given, "score") else "classifier").weight, 7.0)
    given.save_pretrained(folder)
    one, same, other = (new_classifier(folder, 48, seed).model for seed in (1, 1, 2))
    heads = [reward_head(model).weight for model in (one, same, other)]
    assert one.config.num_labels == 1
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert 0 < heads[0].abs().max() < 1
    for (key, weight), own in zip(given.base_model.named_parameters(), one.base_model.parameters(), strict=True):
        assert torch.equal(weight, own[: len(weight)]), key  # one row longer where a pad token was added


def damage(path: Path, change: Callable[[bytearray], object]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def cut_short(content: bytearray) -> None:
    del content[-100:]


def flip_a_bit(content: bytearray) -> None:
    content[-9] ^= 4  # in the numbers of the last tensor, which safetensors does not look at


@pytest.mark.parametrize("change", [cut_short, flip_a_bit])
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"])
def test_a_file_that_is_not_the_saved_one_is_refused(
    name: str, change: Callable[[bytearray], object], classifier: Classifier, tmp_path: Path
) -> None:
    save_classifier(classifier, tmp_path / "model")
    damage(tmp_path / "model" / name, change)
    with pytest.raises(CurateError, match=rf"{name}: (sha256 \w+, expected \w+; retrain|not JSON|not a JSON)") as error:
        load_classifier(tmp_path / "model")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"sha256": 3}'])
def test_a_damaged_record_is_refused(text: str, classifier: Classifier, tmp_path: Path) -> None:
    save_classifier(classifier, tmp_path / "model")
    (tmp_path / "model" / RECORD).write_text(text, encoding="utf-8")
    with pytest.raises(CurateError, match=r"classifier.json: damaged .* retrain the model with --overwrite"):
        load_classifier(tmp_path / "model")


def test_the_folders_of_others_have_no_record(classifier: Classifier, texts: pl.DataFrame, tmp_path: Path) -> None:
    """They load as they are; truncated weights are still refused, in one line."""
    save_classifier(classifier, tmp_path / "model")
    (tmp_path / "model" / RECORD).unlink()
    loaded = load_classifier(tmp_path / "model")
    np.testing.assert_array_equal(classifier_rewards(loaded, texts), classifier_rewards(classifier, texts))
    damage(tmp_path / "model" / "model.safetensors", cut_short)
    with pytest.raises(CurateError, match="its model cannot be loaded") as error:
        load_classifier(tmp_path / "model")
    assert "\n" not in str(error.value)


def test_weights_that_are_not_finite_are_refused(classifier: Classifier, tmp_path: Path) -> None:
    torch.nn.init.constant_(reward_head(classifier.model).weight, torch.nan)
    save_classifier(classifier, tmp_path / "model")
    with pytest.raises(CurateError, match=r"(classifier|score)\.weight holds NaN or infinite values"):
        load_classifier(tmp_path / "model")


def rewrite_config(folder: Path, **entries: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | entries), encoding="utf-8")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"auto_map": {"AutoModel": "modeling.Evil"}}, r"model .*: config.json has auto_map.*does not run"),
        ({"hidden_size": 32}, r"weights are missing or of another shape than config.json says"),
        ({"num_hidden_layers": 3}, r"weights are missing or of another shape than config.json says"),
        ({"pad_token_id": None}, "its pad token is not one of its embedding, .* in config.json and the tokenizer"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    entries: dict[str, object], message: str, classifier: Classifier, tmp_path: Path
) -> None:
    save_classifier(classifier, tmp_path / "model")
    (tmp_path / "model" / RECORD).unlink()
    rewrite_config(tmp_path / "model", **entries)
    with pytest.raises(CurateError, match=message):
        load_classifier(tmp_path / "model")


@pytest.mark.parametrize("entries", [{"hidden_size": 32}, {"num_hidden_layers": 3}, {"model_type": "gpt2"}])
def test_a_backbone_is_never_partly_drawn(entries: dict[str, object], tmp_path: Path) -> None:
    folder = write_decoder(tmp_path)
    rewrite_config(tmp_path, **entries)
    with pytest.raises(CurateError, match=r"weights are missing or of another shape than config.json says"):
        new_classifier(folder, 48, seed=0)


def test_a_decoder_whose_pad_is_its_eos_is_refused(tmp_path: Path) -> None:
    classifier = new_classifier(write_decoder(tmp_path / "backbone"), 48, seed=0)
    classifier.tokenizer.pad_token = classifier.tokenizer.eos_token
    classifier.model.config.pad_token_id = classifier.tokenizer.eos_token_id
    save_classifier(classifier, tmp_path / "model")
    with pytest.raises(CurateError, match="its pad token is its eos token, .* give it one of its own"):
        load_classifier(tmp_path / "model")


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    """Only the pad token may be new: its embedding is added, for no text has it."""
    folder = write_decoder(tmp_path / "backbone")
    classifier = new_classifier(folder, 48, seed=0)
    assert len(classifier.tokenizer) == classifier.model.config.vocab_size == len(VOCABULARY) + 1
    save_classifier(classifier, tmp_path / "model")
    (tmp_path / "model" / RECORD).unlink()
    classifier.tokenizer.add_tokens(["novel", "words"])
    for place in (tmp_path / "backbone", tmp_path / "model"):
        classifier.tokenizer.save_pretrained(place)
    with pytest.raises(CurateError, match=r"backbone .*: its tokenizer has 3 tokens .* \('<\|pad\|>', .*; it has 29\)"):
        new_classifier(folder, 48, seed=0)
    with pytest.raises(CurateError, match=r"model .*: its tokenizer has 2 tokens .* no embedding for \('novel'"):
        load_classifier(tmp_path / "model")


def test_a_response_without_a_prompt_is_rendered_as_it_is_read(classifier: Classifier, texts: pl.DataFrame) -> None:
    turn = [{"role": "assistant", "content": "a is good"}]
    alone = pl.DataFrame({"prompt": [[]], "response": [turn]}, schema=texts.schema)
    read = full_sequences(text_segments(alone, classifier.tokenizer), 48).ids.tolist()
    assert classifier.tokenizer.apply_chat_template(turn, return_dict=True)["input_ids"] == read


def test_too_many_tokens_for_the_backbone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CurateError, match="--max-tokens 65: backbone .* reads at most 64"):
        new_classifier(write_encoder(tmp_path), max_tokens=65, seed=0)


def test_nothing_saved_names_a_place_on_this_machine(classifier: Classifier, tmp_path: Path) -> None:
    save_classifier(classifier, tmp_path / "model")
    for path in (tmp_path / "model").glob("*.json"):
        assert str(tmp_path) not in json.dumps(json.loads(path.read_text(encoding="utf-8"))), path.name

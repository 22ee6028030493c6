"""Every family of backbones, as tiny models: features, training, saving, and the same scores in plain transformers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tiny_models import FAMILIES, good_answers, write_family
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from curate.options import FeatureOptions
from rm_ensemble import artefact
from rm_ensemble.batches import Segments, full_sequences, is_cut, is_encoder, text_segments, unique_texts
from rm_ensemble.classifier import (
    Classifier,
    classifier_rewards,
    new_classifier,
    reward_head,
    rewards_and_states,
    save_classifier,
    token_batch,
)
from rm_ensemble.features import features

PAIRS = good_answers(8)
TEXTS, INDEX = unique_texts(PAIRS)
CONVERSATIONS = [prompt + response for prompt, response in TEXTS.rows()]
MAX_TOKENS = 96
DECODERS = {"llama", "qwen2", "qwen3", "gpt2", "gpt_neox"}
WITHOUT_EOS = {"qwen2"}  # its template ends turns with <|im_end|>, and its eos is another token
RELOAD = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
conversations, found = json.load(sys.stdin), []
for folder in sys.argv[1:]:
    model, tokenizer = (kind.from_pretrained(folder) for kind in (AutoModelForSequenceClassification, AutoTokenizer))
    batch = tokenizer.apply_chat_template(conversations, return_dict=True, return_tensors="pt", padding=True)
    with torch.inference_mode():
        found.append(model(**batch).logits[:, 0].tolist())
print(json.dumps([found, sorted(name for name in sys.modules if name.split(".")[0] in ("rm_ensemble", "curate"))]))
"""


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def backbone(family: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_family(family, tmp_path_factory.mktemp(family) / "backbone")


@pytest.fixture(scope="module")
def trained(backbone: str) -> Classifier:
    """A classifier after three steps on the good answers; tests do not change it."""
    classifier = new_classifier(backbone, MAX_TOKENS, seed=0)
    train_a_little(classifier)
    return classifier


def train_a_little(classifier: Classifier) -> None:
    sequences = full_sequences(text_segments(TEXTS, classifier.tokenizer), MAX_TOKENS)
    optimizer = torch.optim.AdamW(classifier.model.parameters(), lr=1e-2)
    tokens, mask = token_batch(sequences, sequences.index[INDEX].T.reshape(-1), classifier.model)
    for _ in range(3):
        chosen, rejected = rewards_and_states(classifier.model, tokens, mask)[0].chunk(2)
        loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def segments(classifier: Classifier, prompt: str, response: str) -> Segments:
    """The parts of one text."""
    turns = [[{"role": "user", "content": prompt}], [{"role": "assistant", "content": response}]]
    return text_segments(pl.DataFrame({"prompt": turns[:1], "response": turns[1:]}), classifier.tokenizer)


def sequence(classifier: Classifier, prompt: str, response: str) -> list[int]:
    """The token ids of one text."""
    return full_sequences(segments(classifier, prompt, response), MAX_TOKENS).ids.tolist()


def test_frozen_features_are_read(backbone: str) -> None:
    blocks = ("full/-1/last", "full/1/response", "response/1/mean")
    read = features(TEXTS, FeatureOptions(backbone, MAX_TOKENS, "float32", blocks))
    alone = features(TEXTS[:1], FeatureOptions(backbone, MAX_TOKENS, "float32", blocks))
    assert read.facts["n_responses_cut"] == 0
    for name in blocks:
        assert np.isfinite(read.blocks[name]).all()
        assert read.blocks[name].std(axis=0).max() > 1e-4
        np.testing.assert_allclose(alone.blocks[name][0], read.blocks[name][0], atol=1e-5)  # padding changes nothing


def test_after_training_plain_transformers_gives_the_saved_scores(
    backbone: str, trained: Classifier, tmp_path: Path
) -> None:
    """On the ids of apply_chat_template, padded together and one by one; those ids are the very ones that we read."""
    ours = classifier_rewards(trained, TEXTS)
    assert np.abs(ours - classifier_rewards(new_classifier(backbone, MAX_TOKENS, seed=0), TEXTS)).max() > 1e-3
    artefact.save(trained, tmp_path / "model", TEXTS)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    batch = tokenizer.apply_chat_template(CONVERSATIONS, return_dict=True, return_tensors="pt", padding=True)
    with torch.inference_mode():
        together = model(**batch).logits[:, 0].numpy()
        ids = [tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"] for chat in CONVERSATIONS]
        alone = np.array([model(input_ids=torch.tensor([row])).logits[0, 0].item() for row in ids])
    np.testing.assert_allclose(together, ours, atol=1e-5)
    np.testing.assert_allclose(alone, ours, atol=1e-5)
    texts = [(prompt[-1]["content"], response[0]["content"]) for prompt, response in TEXTS.rows()]
    assert ids == [sequence(trained, *text) for text in texts]
    scores = artefact.score(tmp_path / "model", PAIRS).select("reward_chosen", "reward_rejected").to_numpy()
    np.testing.assert_allclose(scores, ours[INDEX], atol=1e-5)


def test_a_decoders_reward_is_read_at_the_last_real_token(family: str, trained: Classifier) -> None:
    assert is_encoder(trained.tokenizer) == (family not in DECODERS)
    ids = torch.tensor([sequence(trained, "what is a", "a is good")])
    head = reward_head(trained.model)
    with torch.no_grad():
        hidden = trained.model.base_model(ids).last_hidden_state[0]
        reward = trained.model(ids).logits[0, 0]
        padded = torch.nn.functional.pad(ids, (0, 5), value=trained.model.config.pad_token_id)
        mask = (torch.arange(padded.shape[1]) < ids.shape[1])[None].long()
        again, state, _ = rewards_and_states(trained.model, padded, mask)
    torch.testing.assert_close(again[0], reward)
    torch.testing.assert_close(head(state)[0, 0], reward)
    if family in DECODERS:
        torch.testing.assert_close(state[0], hidden[-1], atol=1e-5, rtol=1e-4)
        assert trained.tokenizer.pad_token_id not in (trained.tokenizer.eos_token_id, *ids[0].tolist())


def test_special_tokens_are_written_once_and_those_of_a_user_are_text(trained: Classifier) -> None:
    tokenizer = trained.tokenizer
    harmless = sequence(trained, "what is a", "a is good")
    begin = tokenizer.cls_token_id if is_encoder(tokenizer) else tokenizer.bos_token_id
    n_ends = int(begin is not None and begin == tokenizer.eos_token_id)  # GPT-2 ends texts with what begins them
    assert begin is None or harmless.count(begin) == 1 + n_ends
    assert (harmless[0] == begin) or begin is None
    for token in tokenizer.all_special_tokens:
        number = tokenizer.convert_tokens_to_ids(token)
        if token != tokenizer.unk_token or n_ends:  # a word that is not known becomes it
            hostile = sequence(trained, f"what {token} is a", f"a {token}{token} is good")
            assert hostile.count(number) == harmless.count(number), token


def test_a_cut_keeps_the_response_and_the_end_and_is_counted(family: str, trained: Classifier, tmp_path: Path) -> None:
    long_prompt, long_response = segments(trained, "a " * 200, "b is good"), segments(trained, "a", "b " * 200)
    ending = long_prompt.responses[0] + long_prompt.tail
    cut_prompt, cut_response = (full_sequences(s, MAX_TOKENS).ids.tolist() for s in (long_prompt, long_response))
    assert (len(cut_prompt), len(cut_response)) == (MAX_TOKENS, MAX_TOKENS)
    assert cut_prompt[-len(ending) :] == ending
    assert cut_response[-1] == ending[-1]
    assert cut_response[: len(long_response.head)] == long_response.head
    found = [[part.tolist() for part in is_cut(s, MAX_TOKENS)] for s in (long_prompt, long_response)]
    assert found == [[[True], [False]], [[False], [True]]]
    save_classifier(trained, tmp_path / "model")
    record = json.loads((tmp_path / "model" / "classifier.json").read_text(encoding="utf-8"))
    assert record["ends_with_eos"] == (family not in WITHOUT_EOS)
    assert (trained.tokenizer.eos_token_id in cut_response[-2:]) == record["ends_with_eos"]


def test_a_fresh_process_with_plain_transformers_gives_the_same_scores(tmp_path: Path) -> None:
    expected = []
    for family in ("gpt2", "modernbert"):  # a decoder that gets a pad token, an encoder that gets an eos
        classifier = new_classifier(write_family(family, tmp_path / "backbone" / family), MAX_TOKENS, seed=0)
        artefact.save(classifier, tmp_path / family, TEXTS)
        expected.append(classifier_rewards(classifier, TEXTS))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RELOAD, tmp_path / "gpt2", tmp_path / "modernbert"],
        input=json.dumps(CONVERSATIONS),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, ours = json.loads(done.stdout)
    assert ours == []
    np.testing.assert_allclose(np.array(found), np.array(expected), atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL passes transformers options that go away in v6
@pytest.mark.parametrize("family", ["qwen2", "bert"])
def test_trl_continues_the_training(family: str, tmp_path: Path) -> None:
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    classifier = new_classifier(write_family(family, tmp_path / "backbone"), MAX_TOKENS, seed=0)
    artefact.save(classifier, tmp_path / "model", TEXTS)
    settings = trl.RewardConfig(
        str(tmp_path / "trl"), max_steps=1, learning_rate=1e-2, gradient_checkpointing=False, report_to="none",
        use_cpu=True, bf16=False, max_length=MAX_TOKENS,
    )  # fmt: skip
    chats = [{side: row["prompt"] + row[side] for side in ("chosen", "rejected")} for row in PAIRS.to_dicts()]
    trainer = trl.RewardTrainer(str(tmp_path / "model"), settings, train_dataset=datasets.Dataset.from_list(chats))
    found = trainer.train_dataset[
        "chosen_input_ids" if "chosen_input_ids" in trainer.train_dataset[0] else "chosen_ids"
    ]
    texts = [(row["prompt"][-1]["content"], row["chosen"][0]["content"]) for row in PAIRS.to_dicts()]
    assert [list(ids) for ids in found] == [sequence(classifier, *text) for text in texts]
    assert np.isfinite(trainer.train().training_loss)
    trainer.save_model(str(tmp_path / "more"))
    scores = [artefact.score(tmp_path / name, PAIRS)["reward_chosen"].to_numpy() for name in ("model", "more")]
    assert np.abs(scores[0] - scores[1]).max() > 1e-4

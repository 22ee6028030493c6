import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tiny_models import good_answers, write_decoder, write_encoder

from curate.errors import CurateError
from rm_ensemble.batches import full_sequences, text_segments, unique_texts
from rm_ensemble.classifier import Classifier, classifier_rewards, new_classifier, reward_head, save_classifier
from rm_ensemble.train import DROPOUT, TrainingPairs, TrainOptions, learning_rate_share, presentations, train

FAST = TrainOptions(learning_rate=5e-3, batch_size=8)
N_PAIRS = 48


@pytest.fixture
def encoder(tmp_path: Path) -> Classifier:
    return new_classifier(write_encoder(tmp_path / "backbone"), max_tokens=48, seed=0)


def training_pairs(classifier: Classifier, n_pairs: int = N_PAIRS) -> TrainingPairs:
    pairs = good_answers(n_pairs)
    texts, index = unique_texts(pairs)
    sequences = full_sequences(text_segments(texts, classifier.tokenizer), classifier.max_tokens)
    ones = np.ones(n_pairs, dtype=np.float32)
    return TrainingPairs(pairs["pair_id"].to_list(), sequences, sequences.index[index], ones, 0 * ones, ones)


def differences(classifier: Classifier) -> np.ndarray:
    texts, index = unique_texts(good_answers(N_PAIRS + 16)[N_PAIRS:])
    rewards = classifier_rewards(classifier, texts)
    return rewards[index[:, 0]] - rewards[index[:, 1]]


@pytest.mark.parametrize("write", [write_encoder, write_decoder])
@pytest.mark.parametrize("contrastive", ["none", "simcse"])
def test_what_the_pairs_teach_is_learnt(write, contrastive, tmp_path: Path) -> None:
    classifier = new_classifier(write(tmp_path), max_tokens=48, seed=0)
    options = replace(FAST, contrastive=contrastive, contrastive_weight=0.1)
    found = train(classifier.model, training_pairs(classifier), 8 * N_PAIRS, options)
    assert found["n_steps"] == 8 * N_PAIRS // 8
    assert found["last_loss"] < found["first_loss"]
    assert (differences(classifier) > 0).mean() == 1


def test_the_first_loss_of_equal_rewards_is_ln_2(encoder: Classifier) -> None:
    torch.nn.init.zeros_(reward_head(encoder.model).weight)
    found = train(encoder.model, training_pairs(encoder, 8), 8, FAST)
    assert found["first_loss"] == pytest.approx(math.log(2))


def test_label_prob_zero_teaches_the_opposite_and_weight_zero_nothing(encoder: Classifier) -> None:
    pairs = training_pairs(encoder)
    opposite = replace(pairs, label_prob=np.zeros(N_PAIRS, dtype=np.float32))
    before = reward_head(encoder.model).weight.clone()
    no_decay = replace(FAST, learning_rate=1e-12)
    train(encoder.model, replace(pairs, weight=np.zeros(N_PAIRS, dtype=np.float32)), N_PAIRS, no_decay)
    torch.testing.assert_close(reward_head(encoder.model).weight, before)
    train(encoder.model, opposite, 8 * N_PAIRS, FAST)
    assert (differences(encoder) < 0).mean() == 1


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "backbone")
    saved = []
    for run, seed in enumerate((3, 3, 4)):
        classifier = new_classifier(folder, max_tokens=48, seed=seed)
        options = replace(FAST, contrastive="simcse", seed=seed)
        train(classifier.model, training_pairs(classifier), N_PAIRS, options)
        save_classifier(classifier, tmp_path / f"model{run}")
        saved.append((tmp_path / f"model{run}" / "model.safetensors").read_bytes())
    assert saved[0] == saved[1]
    assert saved[0] != saved[2]


def test_a_loss_that_is_not_finite_stops_and_names_the_batch(encoder: Classifier) -> None:
    pairs = training_pairs(encoder)
    margin = np.zeros(N_PAIRS, dtype=np.float32)
    margin[17] = np.nan
    with pytest.raises(CurateError, match=r"step \d: the loss is nan on the batch of pairs .*tiny:train:17"):
        train(encoder.model, replace(pairs, margin=margin), N_PAIRS, FAST)


def test_training_leaves_the_model_and_the_callers_generator_as_they_were(encoder: Classifier) -> None:
    def rates() -> list[float]:
        return [module.p for module in encoder.model.modules() if isinstance(module, torch.nn.Dropout)]

    own, before = rates(), torch.random.get_rng_state()
    assert DROPOUT not in own
    train(encoder.model, training_pairs(encoder), 16, replace(FAST, contrastive="simcse"))
    assert rates() == own
    assert not encoder.model.training
    assert torch.equal(before, torch.random.get_rng_state())


def test_progress_is_reported_to_the_last_step(encoder: Classifier) -> None:
    seen: list[tuple[str, int, int]] = []
    train(encoder.model, training_pairs(encoder, 16), 16, FAST, progress=lambda *step: seen.append(step))
    assert seen == [("train", 1, 2), ("train", 2, 2)]


@pytest.mark.filterwarnings("ignore")  # trl's and transformers' own
@pytest.mark.parametrize("write", [write_encoder, write_decoder])
def test_trl_trains_the_saved_folder_and_starts_from_our_loss(write, tmp_path: Path) -> None:
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    classifier = new_classifier(write(tmp_path / "backbone"), max_tokens=48, seed=0)
    save_classifier(classifier, tmp_path / "model")
    pairs = good_answers(8).with_columns(margin=pl.Series(np.arange(8) / 4))
    settings = trl.RewardConfig(
        output_dir=str(tmp_path / "trl"), max_steps=1, report_to="none", use_cpu=True, bf16=False, disable_tqdm=True,
        save_strategy="no",
    )  # fmt: skip
    rows = datasets.Dataset.from_list(pairs.select("prompt", "chosen", "rejected", "margin").to_dicts())
    trainer = trl.RewardTrainer(model=str(tmp_path / "model"), args=settings, train_dataset=rows)
    own = replace(training_pairs(classifier, 8), margin=(np.arange(8) / 4).astype(np.float32))
    found = train(classifier.model, own, 8, FAST)
    assert trainer.train().training_loss == pytest.approx(found["first_loss"], abs=1e-5)


def test_presentations_are_whole_passes_of_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, size=1000)
    batches = list(presentations(lengths, 2500, 10, np.random.default_rng(1)))
    shown = np.bincount(np.concatenate(batches), minlength=1000)
    assert (shown.sum(), shown.min(), shown.max()) == (2500, 2, 3)
    assert np.mean([np.ptp(lengths[batch]) for batch in batches]) < 10


def test_the_learning_rate_rises_falls_and_stays_positive() -> None:
    for n_steps in (1, 2, 7, 100):
        shares = [learning_rate_share(step, n_steps) for step in range(n_steps)]
        assert max(shares) == 1
        assert min(shares) > 0
        assert shares == sorted(shares[: shares.index(1) + 1]) + sorted(shares[shares.index(1) + 1 :], reverse=True)

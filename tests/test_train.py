import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_models import FAMILIES, good_answers, write_decoder, write_encoder, write_family
from torch.nn.functional import logsigmoid

import rm_ensemble.checkpoint
import rm_ensemble.train
from curate.errors import CurateError
from rm_ensemble.batches import full_sequences, text_segments, unique_texts
from rm_ensemble.best_of_n import graded_texts
from rm_ensemble.checkpoint import Checkpoint
from rm_ensemble.classifier import (
    Classifier,
    classifier_rewards,
    new_classifier,
    reward_head,
    rewards_and_states,
    save_classifier,
    token_batch,
)
from rm_ensemble.items import Items, batch_of, graded_items, pair_items, part_of
from rm_ensemble.language import language_head
from rm_ensemble.losses import language_loss
from rm_ensemble.splits import Split
from rm_ensemble.train import (
    DROPOUT,
    LanguageHead,
    TrainOptions,
    _set_aside,
    _training,
    presentations,
    schedule,
    train,
    training_key,
)

FAST = TrainOptions(learning_rate=5e-3, batch_size=8)
N_PAIRS = 48


@pytest.fixture
def encoder(tmp_path: Path) -> Classifier:
    return new_classifier(write_encoder(tmp_path / "backbone"), max_tokens=48, seed=0)


def training_items(classifier: Classifier, n_pairs: int = N_PAIRS, by_prompt: bool = False) -> Items:
    pairs = good_answers(n_pairs)
    texts, index = unique_texts(pairs)
    sequences = full_sequences(text_segments(texts, classifier.tokenizer), classifier.max_tokens)
    ones = np.ones(n_pairs, dtype=np.float32)
    ids, groups = pairs["pair_id"].to_numpy(), pairs["group"].to_numpy()
    return pair_items(Split(ids, groups, index, ones, 0 * ones, ones), sequences, by_prompt)


def differences(classifier: Classifier) -> np.ndarray:
    texts, index = unique_texts(good_answers(N_PAIRS + 16)[N_PAIRS:])
    rewards = classifier_rewards(classifier, texts)
    return rewards[index[:, 0]] - rewards[index[:, 1]]


@pytest.mark.parametrize("write", [write_encoder, write_decoder])
@pytest.mark.parametrize("contrastive", ["none", "simcse"])
def test_what_the_pairs_teach_is_learnt(write, contrastive, tmp_path: Path) -> None:
    classifier = new_classifier(write(tmp_path), max_tokens=48, seed=0)
    options = replace(FAST, contrastive=contrastive, contrastive_weight=0.1)
    found = train(classifier.model, training_items(classifier), 8 * N_PAIRS, options)
    assert found["n_steps"] == 8 * N_PAIRS // 8
    assert found["last_loss"] < found["first_loss"]
    assert (differences(classifier) > 0).mean() == 1


def test_the_first_loss_of_equal_rewards_is_ln_2(encoder: Classifier) -> None:
    torch.nn.init.zeros_(reward_head(encoder.model).weight)
    found = train(encoder.model, training_items(encoder, 8), 8, FAST)
    assert found["first_loss"] == pytest.approx(math.log(2))


def test_label_prob_zero_teaches_the_opposite_and_weight_zero_nothing(encoder: Classifier) -> None:
    pairs = training_items(encoder)
    opposite = replace(pairs, label_prob=np.zeros(N_PAIRS, dtype=np.float32))
    nothing = replace(pairs, weight=np.zeros(N_PAIRS, dtype=np.float32))
    facts = train(encoder.model, nothing, N_PAIRS, replace(FAST, learning_rate=1e-12))
    assert facts["first_loss"] == facts["last_loss"] == 0
    train(encoder.model, opposite, 8 * N_PAIRS, FAST)
    assert (differences(encoder) < 0).mean() == 1


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "backbone")
    saved = []
    for run, seed in enumerate((3, 3, 4)):
        classifier = new_classifier(folder, max_tokens=48, seed=seed)
        options = replace(FAST, contrastive="simcse", seed=seed)
        train(classifier.model, training_items(classifier), N_PAIRS, options)
        save_classifier(classifier, tmp_path / f"model{run}")
        saved.append((tmp_path / f"model{run}" / "model.safetensors").read_bytes())
    assert saved[0] == saved[1]
    assert saved[0] != saved[2]


def test_a_loss_that_is_not_finite_stops_and_names_the_batch(encoder: Classifier) -> None:
    pairs = training_items(encoder)
    margin = np.zeros(N_PAIRS, dtype=np.float32)
    margin[17] = np.nan
    with pytest.raises(CurateError, match=r"step \d: the loss is nan, its gradient .* on the batch of .*tiny:train:17"):
        train(encoder.model, replace(pairs, margin=margin), N_PAIRS, FAST)


def test_training_leaves_the_model_and_the_callers_generator_as_they_were(encoder: Classifier) -> None:
    def rates() -> list[float]:
        return [module.p for module in encoder.model.modules() if isinstance(module, torch.nn.Dropout)]

    own, before = rates(), torch.random.get_rng_state()
    assert DROPOUT not in own
    train(encoder.model, training_items(encoder), 16, replace(FAST, contrastive="simcse"))
    assert rates() == own
    assert not encoder.model.training
    assert torch.equal(before, torch.random.get_rng_state())


def test_progress_is_reported_to_the_last_step(encoder: Classifier) -> None:
    seen: list[tuple[str, int, int]] = []
    train(encoder.model, training_items(encoder, 16), 16, FAST, progress=lambda *step: seen.append(step))
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
    own = replace(training_items(classifier, 8), margin=(np.arange(8) / 4).astype(np.float32))
    found = train(classifier.model, own, 8, FAST)
    assert trainer.train().training_loss == pytest.approx(found["first_loss"], abs=1e-5)


class Killed(BaseException):
    """Stands for kill -9: nothing in the loop may tidy up after it."""


def weights(classifier: Classifier) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in classifier.model.named_parameters()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"contrastive": "simcse", "micro_batch": 3},
        {"contrastive": "swav", "contrastive_on": "differences", "checkpointing": True},
        {"contrastive": "swav", "micro_batch": 2},
        {"validation": 0.25, "schedule": "cosine"},
    ],
    ids=str,
)
def test_a_killed_run_goes_on_to_the_same_weights(
    change: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rm_ensemble.checkpoint.Checkpoint, "is_due", True)
    folder = write_encoder(tmp_path / "backbone")
    options = replace(FAST, **change)

    def run(stop_after: tuple[int, ...], to: Path) -> tuple[dict[str, torch.Tensor], str]:
        for stop in (*stop_after, None):
            classifier = new_classifier(folder, max_tokens=48, seed=0)
            items = training_items(classifier)
            checkpoint = Checkpoint(to / "state.safetensors", training_key(items, 96, options, {}))

            def progress(_what: str, done: int, _total: int, stop: int | None = stop) -> None:
                if done == stop:
                    raise Killed

            try:
                train(
                    classifier.model, items, 96, options, checkpoint=checkpoint, metrics=to / "metrics.jsonl",
                    progress=progress,
                )  # fmt: skip
            except Killed:
                continue
        return weights(classifier), (to / "metrics.jsonl").read_text()

    whole, log = run((), tmp_path / "whole")
    resumed, resumed_log = run((1, 2, 7, 11), tmp_path / "resumed")
    assert same(whole, resumed)
    assert log == resumed_log
    assert len(log.splitlines()) > 6


@pytest.mark.parametrize("name", FAMILIES)
def test_contrastive_views_differ_and_without_the_term_there_is_no_dropout(name: str, tmp_path: Path) -> None:
    classifier = new_classifier(write_family(name, tmp_path), max_tokens=96, seed=0)
    tokens = torch.arange(6, 30)[None]

    def states(options: TrainOptions) -> tuple[torch.Tensor, torch.Tensor]:
        with _training(classifier.model, options):
            one, other = (rewards_and_states(classifier.model, tokens, torch.ones_like(tokens)) for _ in range(2))
        return one.states, other.states

    assert not torch.equal(*states(replace(FAST, contrastive="simcse")))
    assert torch.equal(*states(FAST))


def test_a_retry_after_out_of_memory_fills_the_queue_once(encoder: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    real, queues, n_calls = rm_ensemble.train.swav, [], 0

    def once_too_little(view_a, view_b, prototypes, queue):
        nonlocal n_calls
        n_calls += 1
        if n_calls == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        queues.append(len(queue))
        return real(view_a, view_b, prototypes, queue)

    monkeypatch.setattr(rm_ensemble.train, "swav", once_too_little)
    train(encoder.model, training_items(encoder), 16, replace(FAST, contrastive="swav", micro_batch=4))
    assert queues[:5] == [0, 0, 4, 8, 12]  # the first part of two, then all four parts of the retry


def test_a_state_of_other_options_or_other_pairs_is_not_gone_on_from(encoder: Classifier, tmp_path: Path) -> None:
    items = training_items(encoder)
    other = replace(items, margin=items.margin + 1)
    keys = {
        training_key(items, 96, FAST, {}),
        training_key(items, 97, FAST, {}),
        training_key(other, 96, FAST, {}),
        training_key(items, 96, replace(FAST, seed=1), {}),
        training_key(items, 96, FAST, {"version": "2"}),
    }
    assert len(keys) == 5
    checkpoint = Checkpoint(tmp_path / "state.safetensors", "one")
    checkpoint.save({"a": torch.ones(2)}, {"b": 1})
    assert Checkpoint(tmp_path / "state.safetensors", "other").load() is None
    assert Checkpoint(tmp_path / "state.safetensors", "one").load()[1] == {"b": 1}


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state.safetensors", "one")
    checkpoint.save({"a": torch.ones(2)}, {})
    whole = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CurateError, match="state.safetensors: damaged .*delete it"):
        checkpoint.load()


@pytest.mark.parametrize("form", ["listwise", "plackett-luce", "pointwise"])
def test_every_form_learns_what_the_pairs_teach(form: str, encoder: Classifier) -> None:
    pairs = good_answers(N_PAIRS)
    texts, index = unique_texts(pairs)
    if form == "listwise":
        items = training_items(encoder, by_prompt=True)
        assert len(items) == len(set(items.group.tolist()))
    else:
        sequences = full_sequences(text_segments(texts, encoder.tokenizer), encoder.max_tokens)
        items = graded_items(graded_texts(pairs, texts, index), sequences, form)
    train(encoder.model, items, 8 * len(items), replace(FAST, form=form))
    assert (differences(encoder) > 0).mean() > 0.95


def test_ratings_that_are_all_equal_and_lists_of_one_response_are_refused(encoder: Classifier) -> None:
    texts, index = unique_texts(good_answers(4))
    sequences = full_sequences(text_segments(texts, encoder.tokenizer), encoder.max_tokens)
    graded = graded_texts(good_answers(4), texts, index)
    with pytest.raises(CurateError, match="all ratings are equal"):
        graded_items(graded.with_columns(grade=pl.lit(2.0)), sequences, "pointwise")
    with pytest.raises(CurateError, match="no prompt has two responses that rank differently"):
        graded_items(graded.unique("list", keep="first", maintain_order=True), sequences, "plackett-luce")


@pytest.mark.parametrize("form", ["pairwise", "listwise"])
def test_micro_batches_add_up_to_the_same_gradient(form: str, tmp_path: Path) -> None:
    folder, found = write_encoder(tmp_path / "backbone"), []
    for micro_batch in (0, 3):
        classifier = new_classifier(folder, max_tokens=48, seed=0)
        items = training_items(classifier, by_prompt=form == "listwise")
        facts = train(classifier.model, items, 2 * len(items), replace(FAST, form=form, micro_batch=micro_batch))
        found.append((differences(classifier), facts["last_loss"]))
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-4)
    np.testing.assert_allclose(found[1][0], found[0][0], atol=1e-3)


def test_gradient_checkpointing_changes_no_result(tmp_path: Path) -> None:
    folder, found = write_decoder(tmp_path / "backbone"), []
    for checkpointing in (False, True):
        classifier = new_classifier(folder, max_tokens=48, seed=0)
        train(classifier.model, training_items(classifier), 32, replace(FAST, checkpointing=checkpointing))
        found.append(weights(classifier))
    for name, parameter in found[0].items():
        torch.testing.assert_close(found[1][name], parameter)


def test_out_of_memory_halves_the_batch_and_goes_on(encoder: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    real, most = rm_ensemble.train.token_batch, 8

    def little_memory(sequences, rows, model):
        if len(rows) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(sequences, rows, model)

    monkeypatch.setattr(rm_ensemble.train, "token_batch", little_memory)
    facts = train(encoder.model, training_items(encoder), N_PAIRS, FAST)
    assert (facts["n_steps"], facts["forward_passes_per_step"]) == (6, 2)
    most = 1
    with pytest.raises(CurateError, match="out of memory even alone"):
        train(encoder.model, training_items(encoder), N_PAIRS, FAST)


def test_early_stopping_keeps_the_weights_of_the_lowest_validation_loss(encoder: Classifier, tmp_path: Path) -> None:
    items = training_items(encoder)
    wild = replace(FAST, learning_rate=0.5, validation=0.25)
    facts = train(encoder.model, items, 40 * N_PAIRS, wild, metrics=tmp_path / "metrics.jsonl")
    looks = [
        r for r in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()) if "validation_loss" in r
    ]
    assert facts["validation_loss"] == min(look["validation_loss"] for look in looks)
    assert facts["stopped_at"] < facts["n_steps"] < 40 * N_PAIRS * 3 // 4 // 8
    _, aside = _set_aside(items, wild)
    assert aside is not None
    batch = batch_of(aside, np.arange(len(aside)))
    with torch.no_grad():
        rewards = rewards_and_states(encoder.model, *token_batch(aside.sequences, batch.rows, encoder.model)).rewards
    lead = rewards[batch.pairs[:, 0]] - rewards[batch.pairs[:, 1]]
    assert -logsigmoid(lead).mean().item() == pytest.approx(facts["validation_loss"], rel=1e-4)


def test_tensorboard_reads_what_the_log_says(encoder: Classifier, tmp_path: Path) -> None:
    options = replace(FAST, tensorboard=str(tmp_path / "board"))
    train(encoder.model, training_items(encoder), 24, options, metrics=tmp_path / "metrics.jsonl")
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([line["loss"] for line in lines])


def test_a_run_that_stopped_early_is_not_gone_on_with(tmp_path: Path) -> None:
    folder, found = write_encoder(tmp_path / "backbone"), []
    wild = replace(FAST, learning_rate=0.5, validation=0.25)
    for _ in range(2):  # the second finds the last state of the first
        classifier = new_classifier(folder, max_tokens=48, seed=0)
        checkpoint = Checkpoint(tmp_path / "state.safetensors", "key")
        facts = train(classifier.model, training_items(classifier), 40 * N_PAIRS, wild, checkpoint=checkpoint)
        found.append((facts, weights(classifier)))
    assert found[0][0] == found[1][0]
    assert same(found[0][1], found[1][1])


def test_validation_prompts_are_not_trained_on(encoder: Classifier) -> None:
    items = training_items(encoder)
    fitted, aside = _set_aside(items, replace(FAST, validation=0.25))
    assert aside is not None
    assert not set(fitted.group) & set(aside.group)
    assert len(fitted) + len(aside) == len(items)
    with pytest.raises(CurateError, match="too few to set some aside"):
        _set_aside(part_of(items, np.arange(1)), replace(FAST, validation=0.25))


def test_centring_holds_the_mean_reward_near_zero(tmp_path: Path) -> None:
    folder, means = write_encoder(tmp_path / "backbone"), []
    for centring in (0.0, 1.0):
        classifier = new_classifier(folder, max_tokens=48, seed=0)
        with torch.no_grad():
            reward_head(classifier.model).bias.fill_(3.0)
        train(classifier.model, training_items(classifier), 8 * N_PAIRS, replace(FAST, centring=centring))
        means.append(abs(classifier_rewards(classifier, unique_texts(good_answers(8))[0]).mean()))
    assert means[1] < means[0] / 2


def test_the_language_term_teaches_a_decoder_to_write_the_chosen_responses(tmp_path: Path) -> None:
    backbone = write_family("llama", tmp_path / "backbone")
    losses = []
    for weight in (0.0, 1.0):
        classifier = new_classifier(backbone, max_tokens=96, seed=0)
        head = language_head(backbone, classifier)
        items = training_items(classifier)
        options = replace(FAST, language=weight)
        train(classifier.model, items, 4 * N_PAIRS, options, language_head=head if weight else None)
        losses.append(language_of(classifier, head, items))
    assert losses[1] < losses[0] - 0.2


def language_of(classifier: Classifier, head: LanguageHead, items: Items) -> float:
    """The next-token loss of all chosen responses, in nats per token."""
    batch = batch_of(items, np.arange(len(items)))
    chosen = batch.rows[batch.pairs[:, 0]]
    tokens, mask = token_batch(items.sequences, chosen, classifier.model)
    start, stop = items.sequences.response[chosen].T
    place = np.arange(tokens.shape[1])
    is_response = torch.from_numpy((place >= start[:, None]) & (place < stop[:, None]))
    with torch.no_grad():
        states = classifier.model.base_model(input_ids=tokens, attention_mask=mask).last_hidden_state
        return language_loss(head(states), tokens, is_response).mean().item()


def test_an_encoder_has_no_language_head(encoder: Classifier) -> None:
    with pytest.raises(CurateError, match="predicts no next tokens"):
        language_head("toy", encoder)


def test_presentations_are_whole_passes_of_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, size=1000)
    batches = list(presentations(lengths, 2500, 10, np.random.default_rng(1)))
    shown = np.bincount(np.concatenate(batches), minlength=1000)
    assert (shown.sum(), shown.min(), shown.max()) == (2500, 2, 3)
    assert np.mean([np.ptp(lengths[batch]) for batch in batches]) < 10


def test_the_learning_rate_rises_falls_and_stays_positive() -> None:
    for n_steps in (1, 2, 7, 100):
        shares = schedule("linear", n_steps, warmup=0.1)
        assert max(shares) == 1
        assert min(shares) > 0
        assert shares == sorted(shares[: shares.index(1) + 1]) + sorted(shares[shares.index(1) + 1 :], reverse=True)

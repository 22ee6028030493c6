import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from peft import PeftModel
from tiny_models import good_answers, write_encoder, write_family

import rm_ensemble.checkpoint
from curate.options import TrainOptions, VoteOptions
from rm_ensemble.batches import full_sequences, text_segments, unique_texts
from rm_ensemble.classifier import classifier_rewards, load_classifier, new_classifier, reward_head, save_classifier
from rm_ensemble.fine_tune import fine_tune
from rm_ensemble.items import pair_items
from rm_ensemble.lora import merged, save_adapter, with_lora
from rm_ensemble.splits import raw_pairs
from rm_ensemble.votes import vote

FAST = TrainOptions(learning_rate=5e-3, batch_size=8, lora_rank=4)


class Killed(BaseException):
    """Stands for kill -9: nothing may tidy up after it."""


def items_of(classifier, pairs):
    texts, index = unique_texts(pairs)
    return pair_items(
        raw_pairs(pairs, index), full_sequences(text_segments(texts, classifier.tokenizer), classifier.max_tokens)
    )


def lead(classifier, pairs):
    texts, index = unique_texts(pairs)
    rewards = classifier_rewards(classifier, texts)
    return rewards[index[:, 0]] - rewards[index[:, 1]]


@pytest.mark.filterwarnings("ignore")  # peft's own
@pytest.mark.parametrize("name", ["bert", "llama", "gpt2", "gpt_neox"])
def test_lora_learns_with_few_weights_and_merges_into_a_stock_model(name: str, tmp_path: Path) -> None:
    classifier = new_classifier(write_family(name, tmp_path / "backbone"), max_tokens=96, seed=0)
    pairs = good_answers(64)
    train_on, test_on = pairs[:48], pairs[48:]
    before = {key: p.detach().clone() for key, p in classifier.model.named_parameters()}
    plain = lead(classifier, test_on)
    n_items = len(items_of(classifier, train_on))
    found = fine_tune("lora", classifier, items_of(classifier, train_on), 16 * n_items, FAST)
    assert found.adapted is not None
    learnt = lead(classifier, test_on)
    assert (learnt > 0).mean() > 0.9
    assert learnt.mean() > plain.mean() + 0.5
    assert found.facts["n_trained_parameters"] < sum(p.numel() for p in before.values())
    save_adapter(found.adapted, "org/backbone", tmp_path / "adapter")
    whole = merged(found.adapted, classifier)
    np.testing.assert_allclose(lead(whole, test_on), learnt, atol=1e-4)
    save_classifier(whole, tmp_path / "model")
    np.testing.assert_allclose(lead(load_classifier(tmp_path / "model"), test_on), learnt, atol=1e-4)
    assert not list((tmp_path / "adapter").glob("*.bin"))
    again = new_classifier(str(tmp_path / "backbone"), max_tokens=96, seed=1)
    adapted = PeftModel.from_pretrained(again.model, str(tmp_path / "adapter"))
    np.testing.assert_allclose(lead(again._replace(model=adapted.get_base_model()), test_on), learnt, atol=1e-4)


def test_lora_changes_nothing_before_it_is_trained(tmp_path: Path) -> None:
    classifier = new_classifier(write_encoder(tmp_path / "backbone"), max_tokens=48, seed=0)
    pairs = good_answers(8)
    plain = lead(classifier, pairs)
    head = reward_head(classifier.model).weight.detach().clone()
    with_lora(classifier, rank=4, seed=0)
    np.testing.assert_array_equal(lead(classifier, pairs), plain)
    trained = {name for name, p in classifier.model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "modules_to_save" in name for name in trained)
    assert (reward_head(classifier.model).weight == head).all()
    assert reward_head(classifier.model).weight.requires_grad


@pytest.fixture
def options(tmp_path: Path) -> VoteOptions:
    backbone = write_encoder(tmp_path / "backbone")
    return VoteOptions(
        epochs=2, learning_rate=5e-3, batch_size=8, ensemble="full", backbone=backbone, members=2, max_tokens=48,
        dtype="float32",
    )  # fmt: skip


def read(folder: Path) -> list[pl.DataFrame]:
    return [pl.read_parquet(file) for file in sorted((folder / "votes").glob("member-*.parquet"))]


@pytest.mark.parametrize("ensemble", ["full", "lora"])
def test_fine_tuned_members_vote_out_of_fold(ensemble: str, options: VoteOptions, tmp_path: Path) -> None:
    pairs = good_answers(64)
    lora = {"ensemble": ensemble, "learning_rate": 2e-2, "epochs": 8.0} if ensemble == "lora" else {}
    facts = vote(pairs, replace(options, **lora), tmp_path / "run", "key")
    tables = read(tmp_path / "run")
    assert len(tables) == facts["n_members"] == 2
    for table in tables:
        assert table["pair_id"].equals(pairs["pair_id"])
        assert table["is_out_of_fold"].all()
        assert set(table["fold"]) == {0, 1}
        assert (table["reward_chosen"] > table["reward_rejected"]).mean() > 0.9
    assert facts["accuracy"]["value"] > 0.9
    assert not list((tmp_path / "run").glob("members/*/training"))


def trained(folder: Path) -> dict[str, int]:
    """When each member that is kept was written."""
    return {str(file): file.stat().st_mtime_ns for file in folder.glob("members/*/member-*.parquet")}


def test_members_can_be_added_later_and_taken_away(options: VoteOptions, tmp_path: Path) -> None:
    pairs = good_answers(48)
    vote(pairs, options, tmp_path / "few", "key")
    few, stamps = read(tmp_path / "few"), trained(tmp_path / "few")
    vote(pairs, replace(options, members=3), tmp_path / "few", "key")
    assert trained(tmp_path / "few").items() >= stamps.items()
    vote(pairs, replace(options, members=3), tmp_path / "many", "key")
    assert [a.equals(b) for a, b in zip(read(tmp_path / "few"), read(tmp_path / "many"), strict=True)] == [True] * 3
    vote(pairs, options, tmp_path / "few", "key")
    assert [a.equals(b) for a, b in zip(read(tmp_path / "few"), few, strict=True)] == [True] * 2


def test_other_options_leave_trained_members_alone(options: VoteOptions, tmp_path: Path) -> None:
    pairs = good_answers(48)
    vote(pairs, replace(options, members=1), tmp_path, "one")
    (before,), stamps = read(tmp_path), trained(tmp_path)
    vote(pairs, replace(options, members=1, seed=5), tmp_path, "other")
    (after,) = read(tmp_path)
    assert not before.equals(after)
    vote(pairs, replace(options, members=1), tmp_path, "one")
    assert read(tmp_path)[0].equals(before)
    assert trained(tmp_path).items() >= stamps.items()


@pytest.mark.parametrize("damage", ["votes", "record"])
def test_a_damaged_member_is_trained_again(damage: str, options: VoteOptions, tmp_path: Path) -> None:
    pairs = good_answers(48)
    vote(pairs, options, tmp_path, "key")
    before = read(tmp_path)
    (file,) = tmp_path.glob(f"members/*/member-01.{'parquet' if damage == 'votes' else 'json'}")
    file.write_bytes(file.read_bytes()[:50])
    vote(pairs, options, tmp_path, "key")
    assert [a.equals(b) for a, b in zip(read(tmp_path), before, strict=True)] == [True] * 2


def test_in_sample_members_see_every_pair_in_another_order(options: VoteOptions, tmp_path: Path) -> None:
    vote(good_answers(48), replace(options, scoring="in-sample"), tmp_path, "key")
    one, other = read(tmp_path)
    assert not one["is_out_of_fold"].any()
    assert (one["reward_chosen"] - other["reward_chosen"]).abs().max() > 0


@pytest.mark.parametrize("ensemble", ["full", "lora"])
def test_killed_at_ten_random_points_the_votes_are_the_same(
    ensemble: str, options: VoteOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill is an exception that nothing catches; benchmarks/killed.py does it with kill -9."""
    pairs, options = good_answers(48), replace(options, ensemble=ensemble, epochs=4)
    vote(pairs, options, tmp_path / "whole", "key")
    monkeypatch.setattr(rm_ensemble.checkpoint.Checkpoint, "is_due", True)
    draws = random.Random(ensemble)
    for _ in range(10):
        left = draws.randrange(1, 5)

        def progress(_what: str, _done: int, _total: int) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed

        with pytest.raises(Killed):
            vote(pairs, options, tmp_path / "killed", "key", progress)
    vote(pairs, options, tmp_path / "killed", "key")
    files = [sorted((tmp_path / name / "votes").glob("*.parquet")) for name in ("whole", "killed")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


def test_models_trained_side_by_side_vote_the_same(options: VoteOptions, tmp_path: Path) -> None:
    pairs = good_answers(48)
    vote(pairs, options, tmp_path / "one", "key")
    vote(pairs, replace(options, jobs=2), tmp_path / "two", "key")
    for one, two in zip(read(tmp_path / "one"), read(tmp_path / "two"), strict=True):
        np.testing.assert_allclose(one["reward_chosen"], two["reward_chosen"], atol=1e-5)


def test_several_backbones_take_turns(options: VoteOptions, tmp_path: Path) -> None:
    other = write_family("llama", tmp_path / "other")
    both = replace(options, backbone=f"{options.backbone}, {other}", members=3)
    facts = vote(good_answers(48), both, tmp_path / "run", "key")
    assert facts["member_backbone"] == ["backbone", "other", "backbone"]
    alone = replace(options, members=1)
    vote(good_answers(48), alone, tmp_path / "alone", "key")
    assert read(tmp_path / "run")[0].equals(read(tmp_path / "alone")[0])


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
def test_alone_no_reward_depends_on_the_other_texts(name: str, tmp_path: Path) -> None:
    classifier = new_classifier(write_family(name, tmp_path / "backbone"), max_tokens=96, seed=0)
    texts, _ = unique_texts(good_answers(24))
    whole = classifier_rewards(classifier, texts, is_alone=True)
    some = classifier_rewards(classifier, texts[5:9], is_alone=True)
    assert (whole[5:9] == some).all()
    np.testing.assert_allclose(classifier_rewards(classifier, texts), whole, atol=1e-5)


def test_the_cost_and_the_batch_tolerance_are_facts(options: VoteOptions, tmp_path: Path) -> None:
    facts = vote(good_answers(48), options, tmp_path / "run", "key")
    cost = facts["cost"]
    assert (cost["ensemble"], cost["n_models"], cost["n_presentations"]) == ("full", 4, 4 * 2 * 24)
    assert 0 <= facts["batch_tolerance"] < 1e-4 < facts["vote_spread"]

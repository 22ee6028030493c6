import json
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel
from tiny_models import good_answers, write_decoder, write_encoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import rm_ensemble.checkpoint
from curate.errors import CurateError
from curate.options import FeatureOptions, RetrainOptions
from rm_ensemble.artefact import score
from rm_ensemble.batches import unique_texts
from rm_ensemble.evaluate import evaluate_scores
from rm_ensemble.retrain import retrain
from rm_ensemble.splits import curated_pairs, judged_pairs, raw_pairs

PLAIN = {"learning_rate": 0.0, "batch_size": 16, "epochs": 1.0}  # the defaults
FULL = RetrainOptions(train="full", max_tokens=48, learning_rate=5e-3, batch_size=8, epochs=4)


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feature blocks that a backbone of two layers has."""
    blocks = ("full/2/response", "full/2/prompt")
    monkeypatch.setattr("rm_ensemble.retrain.FeatureOptions", partial(FeatureOptions, blocks=blocks))


def decisions(pairs: pl.DataFrame, **columns: object) -> pl.DataFrame:
    """Keep everything, unless columns say otherwise."""
    kept = {
        "pair_id": pairs["pair_id"],
        "action": "keep",
        "reason": "r",
        "label_prob": 1.0,
        "margin": 0.0,
        "weight": 1.0,
    }
    return pl.DataFrame({**kept, **columns})


def flipped(pairs: pl.DataFrame, is_flipped: np.ndarray) -> pl.DataFrame:
    """The pairs with the labels of some of them wrong."""
    return pairs.with_columns(
        chosen=pl.when(pl.Series(is_flipped)).then("rejected").otherwise("chosen"),
        rejected=pl.when(pl.Series(is_flipped)).then("chosen").otherwise("rejected"),
    )


def test_the_splits_are_what_the_decisions_say() -> None:
    pairs = good_answers(6, n_heldout=1).with_columns(label_strength=pl.Series([None, 0.9, None, None, 0.5, None]))
    table = decisions(
        pairs,
        action=["keep", "flip", "smooth", "drop", "keep", "flip"],
        label_prob=[1.0, 1.0, 0.7, None, 0.5, 1.0],
        margin=[0.5, -0.25, 0.0, None, 0.0, 9.0],
        weight=[1.0, 1.0, 1.0, 0.0, 1.0, 1.0],
    )
    _, index = unique_texts(pairs)
    raw, curated = raw_pairs(pairs, index), curated_pairs(pairs, table, index)
    number = [int(pair_id.split(":")[-1]) for pair_id in raw.pair_id]
    assert number == [0, 1, 2, 3]  # 4 is a tie, 5 held out
    assert raw.index.tolist() == index[:4].tolist()
    assert (raw.label_prob.tolist(), raw.margin.tolist(), raw.weight.tolist()) == ([1] * 4, [0] * 4, [1] * 4)
    assert [int(pair_id.split(":")[-1]) for pair_id in curated.pair_id] == [0, 1, 2]  # 3 is dropped
    assert curated.index.tolist() == [index[0].tolist(), index[1, ::-1].tolist(), index[2].tolist()]
    assert curated.label_prob.tolist() == pytest.approx([1, 1, 0.7])
    assert curated.margin.tolist() == [0.5, -0.25, 0]


def test_full_fine_tuning_on_repaired_labels_beats_the_wrong_ones(tmp_path: Path) -> None:
    clean = good_answers(96, n_heldout=32)
    is_wrong = (np.arange(96) % 5 < 3) & ~clean["is_heldout"].to_numpy()  # most labels to train on
    pairs = flipped(clean, is_wrong)
    repaired = decisions(pairs, action=np.where(is_wrong, "flip", "keep"), margin=1.0)
    options = replace(FULL, backbone=write_encoder(tmp_path / "backbone"))
    steps: list[tuple[str, int, int]] = []
    found = retrain(pairs, repaired, tmp_path / "model", options, margin_scale=1.0, progress=lambda *s: steps.append(s))
    assert found["curated"]["accuracy"]["value"] == 1
    assert found["raw"]["accuracy"]["value"] < 0.5
    assert found["difference"]["accuracy"]["low"] > 0.5
    assert (found["n_pairs"], found["n_groups"]) == (32, 32)
    training = found["training"]
    assert training["curated"]["n_presentations"] == training["raw"]["n_presentations"] == 4 * 64
    assert ("train", 32, 32) in steps
    assert json.loads((tmp_path / "model" / "comparison.json").read_text(encoding="utf-8")) == found
    judged = judged_pairs(pairs, None)
    for folder, name in ((tmp_path / "model", "curated"), (tmp_path / "model" / "raw", "raw")):
        again = evaluate_scores(judged, score(folder, judged))
        assert again["accuracy"] == found[name]["accuracy"]
        assert again["margin"]["value"] == pytest.approx(found[name]["margin"]["value"], abs=1e-5)


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("change", [{}, {"hidden": 8, "contrastive": "simcse"}, {"train": "stock-head"}])
def test_heads_on_repaired_labels_beat_the_wrong_ones(change: dict, tmp_path: Path) -> None:
    clean = good_answers(96, n_heldout=32)
    is_wrong = (np.arange(96) % 5 < 3) & ~clean["is_heldout"].to_numpy()
    pairs = flipped(clean, is_wrong)
    repaired = decisions(pairs, action=np.where(is_wrong, "flip", "keep"), margin=1.0)
    backbone = write_encoder(tmp_path / "backbone")
    options = replace(RetrainOptions(backbone=backbone, max_tokens=48, dtype="float32"), **change)
    found = retrain(pairs, repaired, tmp_path / "model", options, features_folder=tmp_path / "f", margin_scale=1.0)
    assert found["curated"]["accuracy"]["value"] == 1
    assert found["raw"]["accuracy"]["value"] < 0.5
    judged = judged_pairs(pairs, None)
    for folder, name in ((tmp_path / "model", "curated"), (tmp_path / "model" / "raw", "raw")):
        again = evaluate_scores(judged, score(folder, judged))
        assert again["margin"]["value"] == pytest.approx(
            found[name]["margin"]["value"], rel=1e-4
        )  # float32: the stock head holds the scaling of its inputs
    assert (tmp_path / "model" / "head.json").is_file() == (options.train == "head")


@pytest.mark.usefixtures("tiny_blocks")
def test_raw_and_curated_heads_share_one_copy_of_the_backbone(tmp_path: Path) -> None:
    pairs = good_answers(40, n_heldout=20)
    options = RetrainOptions(backbone=write_encoder(tmp_path / "backbone"), max_tokens=48, dtype="float32")
    retrain(pairs, decisions(pairs), tmp_path / "model", options)
    files = [tmp_path / "model" / part / "backbone" / "model.safetensors" for part in ("", "raw")]
    assert files[0].samefile(files[1])
    weights = [(tmp_path / "model" / part / "head.safetensors").read_bytes() for part in ("", "raw")]
    assert weights[0] == weights[1]  # every pair is kept, and the margin is zero


@pytest.mark.usefixtures("tiny_blocks")
def test_a_two_layer_head_sees_as_many_pairs_after_drops(tmp_path: Path) -> None:
    pairs = good_answers(40, n_heldout=20)
    half = decisions(pairs, action=np.where(np.arange(40) % 2, "drop", "keep"))
    options = RetrainOptions(backbone=write_encoder(tmp_path / "backbone"), max_tokens=48, dtype="float32", hidden=4)
    found = retrain(pairs, half, tmp_path / "model", options)["training"]
    assert found["raw"]["n_presentations"] == found["curated"]["n_presentations"] == 30 * 20


def test_dropped_pairs_are_made_up_for_by_showing_the_others_more_often(tmp_path: Path) -> None:
    pairs = good_answers(40, n_heldout=20)
    half = decisions(pairs, action=np.where(np.arange(40) % 2, "drop", "keep"))
    options = replace(FULL, backbone=write_encoder(tmp_path / "backbone"), epochs=1)
    found = retrain(pairs, half, tmp_path / "model", options)["training"]
    assert (found["raw"]["n_pairs"], found["raw"]["n_presentations"]) == (20, 20)
    assert (found["curated"]["n_pairs"], found["curated"]["n_presentations"]) == (10, 20)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    pairs = good_answers(30, n_heldout=10)
    options = replace(FULL, backbone=write_encoder(tmp_path / "backbone"), epochs=1, contrastive="simcse")
    contents = []
    for name in ("a", "b"):
        retrain(pairs, decisions(pairs, margin=0.5), tmp_path / name, options, margin_scale=1.0)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append([(path.relative_to(tmp_path / name), path.read_bytes()) for path in files])
    assert contents[0] == contents[1]
    assert not any(str(tmp_path).encode() in content for _, content in contents[0])


def test_margins_are_brought_to_the_scale_of_the_raw_model(tmp_path: Path) -> None:
    pairs = good_answers(40, n_heldout=20)
    options = replace(FULL, backbone=write_encoder(tmp_path / "backbone"), epochs=1)

    def factor(margin_scale: float | None, margin: bool = True) -> float:
        chosen = replace(options, margin=margin)
        found = retrain(pairs, decisions(pairs, margin=1.0), tmp_path / "model", chosen, margin_scale=margin_scale)
        return float(found["margin_factor"])

    assert factor(1.0) == pytest.approx(2 * factor(2.0))
    assert factor(1.0) > 0
    assert (factor(None), factor(0.0), factor(1.0, margin=False)) == (1, 0, 0)


def test_a_test_set_of_other_prompts_takes_the_place_of_held_out_ones(tmp_path: Path) -> None:
    pairs, others = good_answers(20), good_answers(60)[20:]
    options = replace(FULL, backbone=write_encoder(tmp_path / "backbone"), epochs=1)
    found = retrain(pairs, decisions(pairs), tmp_path / "model", options, test=others)
    assert (found["n_groups"], found["judged_on"]) == (40, "test data")


def test_a_test_set_that_shares_a_prompt_is_refused() -> None:
    with pytest.raises(CurateError, match=r"--test: 2 of its 5 prompts are also in the run \(row tiny:train:8, say\)"):
        judged_pairs(good_answers(10), good_answers(13)[8:])


def test_a_run_without_held_out_prompts_asks_for_a_test_set() -> None:
    with pytest.raises(CurateError, match="no held-out prompts .* with --test FILE"):
        judged_pairs(good_answers(10), None)


def test_nothing_left_to_train_on_is_refused(tmp_path: Path) -> None:
    pairs = good_answers(20, n_heldout=5)
    with pytest.raises(CurateError, match="nothing to train on"):
        retrain(pairs, decisions(pairs, action="drop"), tmp_path / "model", FULL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": "half"}, "unknown --train 'half': choose one of head, stock-head, lora, full"),
        ({"contrastive": "moco"}, "unknown --contrastive 'moco': choose one of none, simcse, swav"),
        ({"form": "triples"}, "unknown --form 'triples': choose one of pairwise, listwise"),
        ({"form": "pointwise", "centring": 0.01}, "--centring: a term of pairs, which --form pointwise has not"),
        ({"form": "plackett-luce", "language": 0.1}, "--language: a term of pairs"),
        ({"learning_rate": -1.0}, "the learning rate is 0 or more"),
        ({"epochs": float("nan")}, "epochs are above 0"),
        ({"contrastive_weight": -1.0}, "--contrastive-weight -1: give 0 or more"),
        ({**PLAIN, "train": "head", "lora_rank": 4}, "heads on frozen features do not know it"),
        ({**PLAIN, "train": "head", "form": "listwise"}, "--form: heads on frozen features do not know it"),
        ({"train": "head", "hidden": 8, "contrastive": "swav"}, "--contrastive swav: only with --train lora or full"),
        ({"warmup": 1.0}, "--warmup 1 "),
        ({"validation": 0.9}, "--validation 0.9: give shares"),
        ({"lora_rank": 0}, "rank are 1 or more"),
        ({"language": 0.1}, "--language: backbone .* predicts no next tokens"),
        ({"train": "head", "contrastive": "simcse"}, "--contrastive simcse: a linear head .* add --hidden 64"),
        ({"train": "stock-head", "hidden": 8}, "--train stock-head: the reward head of transformers is linear"),
    ],
)
def test_options_that_make_no_sense_are_refused(change: dict[str, str], message: str, tmp_path: Path) -> None:
    pairs = good_answers(20, n_heldout=5)
    with pytest.raises(CurateError, match=message):
        retrain(pairs, decisions(pairs), tmp_path / "model", replace(FULL, **change))


@pytest.mark.parametrize("form", ["pairwise", "listwise", "plackett-luce", "pointwise"])
def test_every_form_is_worth_something_on_held_out_prompts(form: str, tmp_path: Path) -> None:
    pairs = good_answers(100, n_heldout=30)
    options = replace(FULL, form=form, backbone=write_encoder(tmp_path / "backbone"), epochs=8.0)
    found = retrain(pairs, decisions(pairs), tmp_path / "model", options)
    assert found["raw"]["accuracy"]["value"] > 0.9
    assert (tmp_path / "model" / "metrics.jsonl").stat().st_size > 0
    assert not list(tmp_path.glob(".*"))


@pytest.mark.filterwarnings("ignore")  # peft's own
def test_lora_is_saved_merged_and_unmerged(tmp_path: Path) -> None:
    pairs = good_answers(100, n_heldout=30)
    backbone = write_encoder(tmp_path / "backbone")
    options = replace(FULL, train="lora", backbone=backbone, epochs=16.0)
    found = retrain(pairs, decisions(pairs), tmp_path / "model", options)
    assert found["curated"]["accuracy"]["value"] > 0.9
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    base = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=1)
    adapted = PeftModel.from_pretrained(base, str(tmp_path / "model" / "adapter"))
    tokens = torch.arange(6, 22)[None]
    with torch.no_grad():
        torch.testing.assert_close(adapted(tokens).logits, merged(tokens).logits, atol=1e-5, rtol=1e-4)


def test_a_killed_retrain_goes_on_to_the_same_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = good_answers(40, n_heldout=10)
    options = replace(FULL, backbone=write_encoder(tmp_path / "backbone"), epochs=3.0)
    retrain(pairs, decisions(pairs), tmp_path / "whole", options)
    monkeypatch.setattr(rm_ensemble.checkpoint.Checkpoint, "is_due", True)
    for stop in (3, 5, 8, 4, None):
        left = stop

        def progress(what: str, _done: int, _total: int) -> None:
            nonlocal left
            if left is not None and what == "train":
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt

        with nullcontext() if stop is None else pytest.raises(KeyboardInterrupt):
            retrain(pairs, decisions(pairs), tmp_path / "killed", options, progress=progress)
    for name in ("model.safetensors", "raw/model.safetensors", "metrics.jsonl", "raw/metrics.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_a_stock_head_on_a_decoder_loads_in_transformers(tmp_path: Path) -> None:
    pairs = good_answers(80, n_heldout=20)
    options = RetrainOptions(train="stock-head", backbone=write_decoder(tmp_path / "backbone"), max_tokens=48)
    found = retrain(pairs, decisions(pairs), tmp_path / "model", options)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    sides = [pairs.select(pl.concat_list("prompt", side)).to_series().to_list() for side in ("chosen", "rejected")]
    batch = tokenizer.apply_chat_template(sides[0] + sides[1], return_dict=True, return_tensors="pt", padding=True)
    with torch.inference_mode():
        rewards = model(**batch).logits[:, 0].numpy().reshape(2, -1).T
    np.testing.assert_allclose(rewards, score(tmp_path / "model", pairs).drop("pair_id").to_numpy(), atol=1e-5)
    assert "AutoModelForSequenceClassification, trl and others load as it is" in found["statement"]

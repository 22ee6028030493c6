import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tiny_models import good_answers, write_encoder

from curate.errors import CurateError
from rm_ensemble import artefact
from rm_ensemble.batches import unique_texts
from rm_ensemble.classifier import new_classifier, reward_head

PAIRS = good_answers(6)
PROBE = unique_texts(PAIRS)[0]


@pytest.fixture
def model(tmp_path: Path) -> artefact.RewardModel:
    return new_classifier(write_encoder(tmp_path / "backbone"), max_tokens=48, seed=0)


def test_scores_are_the_saved_models_rewards_in_the_order_of_the_pairs(
    model: artefact.RewardModel, tmp_path: Path
) -> None:
    artefact.save(model, tmp_path / "model", PROBE)
    table = artefact.score(tmp_path / "model", PAIRS)
    assert table.columns == ["pair_id", "reward_chosen", "reward_rejected"]
    assert table["pair_id"].to_list() == PAIRS["pair_id"].to_list()
    rewards, index = artefact.rewards(model, PROBE), unique_texts(PAIRS)[1]
    np.testing.assert_array_equal(table.drop("pair_id").to_numpy(), rewards[index])
    backwards = artefact.score(tmp_path / "model", PAIRS.reverse())
    np.testing.assert_allclose(backwards.drop("pair_id").to_numpy()[::-1], rewards[index], atol=1e-6)


@pytest.mark.parametrize("is_text", [True, False], ids=["text", "messages"])
def test_data_as_rewardbench_has_it_is_scored(
    is_text: bool, model: artefact.RewardModel, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    """`prompt` as text or as messages, `chosen` and `rejected` as text, `subset` and a number as `id`."""
    artefact.save(model, tmp_path / "model", PROBE)
    rows = [
        {
            "prompt": row["prompt"][0]["content"] if is_text else row["prompt"],
            **{side: row[side][0]["content"] for side in ("chosen", "rejected")},
            **{"chosen_model": "a", "rejected_model": "b", "subset": "alpacaeval-easy", "id": number},
        }
        for number, row in enumerate(PAIRS.to_dicts())
    ]
    (tmp_path / "bench.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    code, _, err = command("score", tmp_path / "model", tmp_path / "bench.jsonl", "--to", tmp_path / "scores.parquet")
    assert code == 0, err
    found = pl.read_parquet(tmp_path / "scores.parquet").select("reward_chosen", "reward_rejected")
    own = artefact.score(tmp_path / "model", PAIRS).select("reward_chosen", "reward_rejected")
    np.testing.assert_allclose(found.to_numpy(), own.to_numpy(), atol=1e-6)
    assert found.height == found.unique().height == len(PAIRS)


def test_a_model_that_saving_changes_is_refused(
    model: artefact.RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_another_head(model: artefact.RewardModel, folder: Path) -> None:
        own = reward_head(model.model).weight.detach().clone()
        torch.nn.init.ones_(reward_head(model.model).weight)
        save_classifier(model, folder)
        reward_head(model.model).weight.data = own

    save_classifier = artefact.save_classifier
    monkeypatch.setattr(artefact, "save_classifier", save_another_head)
    with pytest.raises(CurateError, match="the saved model scores differently from the trained one, by "):
        artefact.save(model, tmp_path / "model", PROBE)


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CurateError, match="no reward model there .* make one with: curate retrain RUN --to"):
            artefact.score(folder, PAIRS)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    to = tmp_path / "model"
    with pytest.raises(KeyboardInterrupt), artefact.whole_folder(to) as folder:
        (folder / "half").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    for name in ("first", "second"):
        with artefact.whole_folder(to) as folder:
            (folder / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["model", "model/second"]

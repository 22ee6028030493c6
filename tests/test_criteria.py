import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import good_answers, write_encoder

from curate.errors import CurateError
from curate.options import COMBINATIONS, ScoreOptions
from rm_ensemble import artefact
from rm_ensemble.batches import unique_texts
from rm_ensemble.classifier import new_classifier, reward_head
from rm_ensemble.criteria import combined, score_together, standardised

PAIRS = good_answers(6)
SCALED = np.array([[1.0, -1.0, 3.0], [0.0, 0.0, 0.0], [-2.0, 4.0, 1.0]])
REWARDS = st.lists(st.lists(st.integers(-50, 50), min_size=3, max_size=3), min_size=4, max_size=9)


def options(how, **given):
    return ScoreOptions(how, weights="3,2,1" if how == "weighted" else "", **given)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three saved reward models with different heads."""
    root = tmp_path_factory.mktemp("models")
    backbone = write_encoder(root / "backbone")
    probe = unique_texts(PAIRS)[0]
    for seed in range(3):
        artefact.save(new_classifier(backbone, max_tokens=48, seed=seed), root / f"m{seed}", probe)
    return [root / f"m{seed}" for seed in range(3)]


@pytest.fixture
def data(tmp_path):
    rows = PAIRS.select(
        **{name: pl.col(name).list.first().struct.field("content") for name in ("prompt", "chosen", "rejected")}
    )
    rows.write_ndjson(tmp_path / "data.jsonl")
    return tmp_path / "data.jsonl"


def test_combinations_can_be_counted_by_hand():
    assert combined(SCALED, options("mean")).tolist() == [1, 0, 1]
    assert combined(SCALED, options("min")).tolist() == [-1, 0, -2]
    assert combined(SCALED, options("weighted")).tolist() == [(3 - 2 + 3) / 6, 0, (-6 + 8 + 1) / 6]
    spread = np.sqrt((0 + 4 + 4) / 3), np.sqrt((9 + 9 + 0) / 3)
    assert combined(SCALED, options("mean-std", k=2.0)) == pytest.approx([1 - 2 * spread[0], 0, 1 - 2 * spread[1]])
    assert combined(SCALED, options("mean-std", k=0.0)).tolist() == combined(SCALED, options("mean")).tolist()


def test_standardised_rewards_have_mean_0_and_deviation_1():
    found = standardised(np.random.default_rng(0).normal(7, 3, size=500).astype(np.float32), "m")
    assert found.dtype == np.float64
    assert (found.mean(), found.std()) == pytest.approx((0, 1))


@pytest.mark.parametrize("rewards", [[2.5, 2.5, 2.5], [1.0, np.nan], [1.0, np.inf], [0.1]])
def test_a_model_without_a_scale_is_refused_by_name(rewards):
    with pytest.raises(CurateError, match=r"^rm/b: gives all [123] texts the same reward, or one that is no number; "):
        standardised(rewards, "rm/b")


@given(REWARDS, st.sampled_from(COMBINATIONS), st.floats(0.1, 100), st.floats(-100, 100), st.integers(0, 2))
def test_no_unit_or_zero_of_a_model_matters(rewards, how, scale, shift, model):
    raw = np.array(rewards, dtype=float)
    raw[0], raw[1] = 0, 1  # no model gives all texts one reward
    moved = raw.copy()
    moved[:, model] = scale * raw[:, model] + shift
    both = [
        combined(np.stack([standardised(column, "m") for column in table.T], axis=1), options(how))
        for table in (raw, moved)
    ]
    assert both[0] == pytest.approx(both[1], abs=1e-9)


@given(REWARDS)
def test_the_worst_case_is_at_most_the_cautious_mean_is_at_most_the_mean(rewards):
    scaled = np.array(rewards, dtype=float)
    least, mean, weighted, cautious = (
        combined(scaled, options(how)) for how in ("min", "mean", "weighted", "mean-std")
    )
    assert (least <= mean + 1e-9).all()
    assert (least <= weighted + 1e-9).all()
    assert (cautious <= mean).all()


@given(REWARDS, st.sampled_from(["mean", "min", "mean-std"]))
def test_the_order_of_models_does_not_matter(rewards, how):
    scaled = np.array(rewards, dtype=float)
    assert combined(scaled[:, ::-1], options(how)) == pytest.approx(combined(scaled, options(how)))


def test_the_table_holds_the_combination_and_each_models_rewards(models):
    table = score_together(models, PAIRS, options("mean"))
    names = [f"reward_{side}{model}" for model in ("", "_1", "_2", "_3") for side in ("chosen", "rejected")]
    assert table.columns == ["pair_id", *names]
    assert table["pair_id"].to_list() == PAIRS["pair_id"].to_list()
    for number, model in enumerate(models, start=1):
        alone = artefact.score(model, PAIRS)
        assert table[f"reward_chosen_{number}"].to_list() == alone["reward_chosen"].to_list()
        assert table[f"reward_rejected_{number}"].to_list() == alone["reward_rejected"].to_list()
    own = np.concatenate(
        [table.select(f"reward_{side}_{n}" for n in (1, 2, 3)).to_numpy() for side in ("chosen", "rejected")]
    )
    expected = ((own - own.mean(axis=0, dtype=float)) / own.std(axis=0, dtype=float)).mean(axis=1)
    found = np.concatenate([table["reward_chosen"], table["reward_rejected"]])
    assert found == pytest.approx(expected, abs=1e-6)  # every text stands in one pair here
    assert found.mean() == pytest.approx(0, abs=1e-9)


def test_a_text_in_many_pairs_counts_once_for_the_scale(models):
    table = score_together(models, PAIRS, options("mean"))
    repeated = score_together(models, pl.concat([PAIRS, *[PAIRS[:1]] * 20]), options("mean"))
    assert repeated["reward_chosen"][:6].to_list() == table["reward_chosen"].to_list()


def test_a_model_whose_rewards_are_all_equal_is_refused(models, tmp_path):
    flat = artefact.load(models[0])
    reward_head(flat.model).weight.data.zero_()
    artefact.save(flat, tmp_path / "flat", unique_texts(PAIRS)[0])
    with pytest.raises(CurateError, match="flat: gives all 12 texts the same reward"):
        score_together([models[0], tmp_path / "flat"], PAIRS, options("mean"))


def test_a_folder_without_a_model_is_refused_before_any_is_read(models, tmp_path, monkeypatch):
    monkeypatch.setattr("rm_ensemble.artefact.load_classifier", lambda _: pytest.fail("a model was read"))
    with pytest.raises(CurateError, match="no reward model there"):
        score_together([models[0], tmp_path], PAIRS, options("mean"))


def test_the_command_combines_models(models, data, tmp_path, command):
    to, others = tmp_path / "scores.parquet", ("--with", models[1], "--with", models[2])
    assert command("score", models[0], data, "--to", to)[0] == 0
    assert pl.read_parquet(to).columns == ["pair_id", "reward_chosen", "reward_rejected"]
    assert pl.read_parquet(to)["reward_chosen"].dtype == pl.Float32
    tables = {}
    for how in (("mean",), ("weighted", "--weights", "1,1,1"), ("weighted", "--weights", ".5,.3,.2"), ("min",)):
        code, out, err = command("score", models[0], data, "--to", to, *others, "--combine", *how, "--overwrite")
        assert (code, out) == (0, f"6 pairs scored: {to}\n"), err
        tables[how] = pl.read_parquet(to)
    mean, equal, unequal, least = (table["reward_chosen"].to_numpy() for table in tables.values())
    assert equal == pytest.approx(mean)
    assert (least < mean).all()
    assert abs(unequal - mean).max() > 1e-3
    pairs = PAIRS.with_columns(pair_id=tables[("mean",)]["pair_id"])
    assert tables[("mean",)].equals(score_together(models, pairs, options("mean")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--combine", "median"), "unknown --combine 'median': choose one of mean, weighted, min, mean-std"),
        (("--combine", "weighted"), "--weights '': give 2 numbers above 0 between commas, one per model, MODEL first"),
        (("--combine", "weighted", "--weights", "1,2,3"), "--weights '1,2,3': give 2 numbers above 0"),
        (("--combine", "weighted", "--weights", "1,-2"), "--weights '1,-2': give 2 numbers above 0"),
        (("--combine", "weighted", "--weights", "1,0"), "--weights '1,0': give 2 numbers above 0"),
        (("--combine", "weighted", "--weights", "1,inf"), "--weights '1,inf': give 2 numbers above 0"),
        (("--combine", "weighted", "--weights", "1;2"), "--weights '1;2': give 2 numbers above 0"),
        (("--weights", "1,2"), "--weights 1,2: --combine mean has none; add --combine weighted"),
        (("--combine", "mean-std", "--k", "-1"), "--k -1: give 0 or more standard deviations to take off, such as 1"),
        (("--with", "nowhere"), "nowhere: no reward model there"),
    ],
)
def test_what_cannot_be_combined_is_refused_in_one_line(arguments, message, models, data, tmp_path, command):
    code, _, err = command(
        "score", models[0], data, "--to", tmp_path / "scores.parquet", "--with", models[1], *arguments
    )
    assert code == 2
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert not (tmp_path / "scores.parquet").exists()


def test_one_model_has_nothing_to_combine(models, data, tmp_path, command):
    code, _, err = command("score", models[0], data, "--to", tmp_path / "s.parquet", "--combine", "min")
    assert (code, err) == (2, "error: --combine min: one model has nothing to combine; add --with MODEL2\n")

import numpy as np
import pytest

from rm_ensemble.inputs import PROMPT_AXES, HeadInputs

RNG = np.random.default_rng(0)
BLOCKS = {
    "full/4/response": RNG.normal(3.0, 5.0, (60, 20)).astype(np.float32),
    "full/6/prompt": RNG.normal(size=(60, 24)).astype(np.float32),
}
TEXT = RNG.normal(size=(60, 5)).astype(np.float32)
INDEX = np.arange(60).reshape(-1, 2)


def test_inputs_do_not_depend_on_labels():
    one, other = (HeadInputs.fit(BLOCKS, TEXT, index)(BLOCKS, TEXT) for index in (INDEX, INDEX[:, ::-1]))
    assert np.array_equal(one, other)


def test_blocks_are_scaled_by_their_differences_within_pairs():
    inputs = HeadInputs.fit(BLOCKS, TEXT, INDEX)(BLOCKS, TEXT)
    assert inputs.shape == (60, 20 + 5 + 5 * PROMPT_AXES)
    difference = inputs[INDEX[:, 0], :20] - inputs[INDEX[:, 1], :20]
    assert (difference**2).sum(axis=1).mean() == pytest.approx(2.0, rel=1e-4)


def test_the_directions_of_hidden_states_stay_as_they_are():
    block = BLOCKS["full/4/response"]
    inputs = HeadInputs.fit(BLOCKS, TEXT, INDEX)(BLOCKS, TEXT)[:, :20]
    ratio = inputs / (block - block.mean(axis=0))
    assert ratio == pytest.approx(np.full_like(ratio, ratio[0, 0]), rel=1e-3)


def test_a_feature_that_never_differs_within_pairs_is_zero():
    constant = {"full/4/response": np.repeat(BLOCKS["full/4/response"][::2], 2, axis=0)}
    assert (HeadInputs.fit(constant, None, INDEX)(constant, None) == 0).all()


def test_without_a_prompt_block_nothing_interacts():
    blocks = {"full/-1/last": BLOCKS["full/4/response"]}
    assert HeadInputs.fit(blocks, TEXT, INDEX)(blocks, TEXT).shape == (60, 25)


def test_new_texts_are_read_by_the_fitted_map():
    fitted = HeadInputs.fit(BLOCKS, TEXT, INDEX)
    some = {name: block[:7] for name, block in BLOCKS.items()}
    assert fitted(some, TEXT[:7]) == pytest.approx(fitted(BLOCKS, TEXT)[:7], abs=1e-6)

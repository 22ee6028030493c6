import numpy as np
import polars as pl
import pytest

from curate.errors import CurateError
from curate.options import VoteOptions
from curate.pairs import PAIR_SCHEMA
from rm_ensemble.votes import plan_members


def pairs(n=40):
    turn = [{"role": "assistant", "content": "text"}]
    rows = [{"pair_id": str(i), "prompt": [], "chosen": turn, "rejected": turn, "group": str(i // 2)} for i in range(n)]
    return pl.DataFrame(rows, schema=PAIR_SCHEMA).with_columns(is_heldout=pl.lit(False))


def test_another_member_does_not_move_those_before_it():
    few, few_seeds = plan_members(pairs(), VoteOptions(members=2))
    more, more_seeds = plan_members(pairs(), VoteOptions(members=4))
    assert more_seeds[: len(few_seeds)] == few_seeds
    assert all(np.array_equal(one.fold, other.fold) for one, other in zip(few, more, strict=False))
    assert len({plan.fold.tobytes() for plan in more}) == 4


def test_out_of_fold_no_model_trains_on_a_prompt_that_it_scores():
    for plan in plan_members(pairs(), VoteOptions(members=3, folds=4))[0]:
        scores = plan.fold[:, None] == np.arange(4)
        assert not (plan.weight[scores] > 0).any()
        assert ((plan.weight > 0).sum(axis=1) == 3).all()


def test_a_backbone_without_a_member_is_refused():
    with pytest.raises(CurateError, match="--members 1: fewer than the backbones one,two"):
        VoteOptions(backbone="one,two", members=1)

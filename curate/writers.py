"""The export formats: `WRITERS` says of each its columns, which pairs it cannot carry, and writes it.

A writer's table has the columns of the pair table as exported, of the decisions and of the strength, and where it asks for
scores the two score lists; it gives the columns of the file, in one consistent form.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl

from curate.errors import CurateError
from curate.full_schema import FULL_COLUMNS
from curate.messages import HEADS
from curate.not_carried import roles
from curate.pairs import text_of
from curate.schemas import SCORE_LISTS

TEXTS = ("prompt", "chosen", "rejected")
DIFFERENCES = ("mean preference difference", "std preference difference")
SUBSETS = ("subset", "meta.category", "category")  # where in `extra` a pair's part of a benchmark is named
COPIES = 4  # of every pair under --smoothed duplicate


def trl(table: pl.DataFrame, form: str, has_margin: bool) -> pl.DataFrame:
    """TRL's preference format: strings (standard) or message lists (conversational), and a margin in all rows or none."""
    if form == "standard":
        table = table.with_columns(map(text_of, TEXTS))
    margin = [pl.col("margin").cast(pl.Float32)] if has_margin else []
    return table.select(*TEXTS, *margin)


def full(table: pl.DataFrame, form: str, has_margin: bool) -> pl.DataFrame:
    """TRL's columns, what was decided and how strongly, and all else that was read of the pair."""
    return pl.concat([trl(table, form, has_margin), table.select(FULL_COLUMNS)], how="horizontal")


def strength(table: pl.DataFrame, form: str, has_margin: bool) -> pl.DataFrame:  # noqa: ARG001
    """hh-rlhf-strength-cleaned: marked turns, the last the response, and every member's reward of both responses.

    `GPT4 label` is there only where the data brought it.
    """
    mark = pl.element().struct.field("role").replace_strict(HEADS) + pl.element().struct.field("content")
    difference = pl.col(SCORE_LISTS[0]).cast(pl.List(pl.Float64)) - pl.col(SCORE_LISTS[1]).cast(pl.List(pl.Float64))
    label = table["extra"].str.json_path_match("$['GPT4 label']").cast(pl.Int64, strict=False)
    return table.select(
        *(pl.concat_list("prompt", side).list.eval(mark).alias(side) for side in ("chosen", "rejected")),
        *([label.fill_null(-1).alias("GPT4 label")] if label.null_count() < len(label) else []),
        difference.list.mean().alias(DIFFERENCES[0]),
        pl.when(difference.list.len() > 1).then(difference.list.std(ddof=0)).alias(DIFFERENCES[1]),
        *SCORE_LISTS,
    )


def rewardbench(table: pl.DataFrame, form: str, has_margin: bool) -> pl.DataFrame:  # noqa: ARG001
    """RewardBench: the prompt as text where every one is a single turn, else as messages; the responses as text."""
    is_question = (roles("prompt") == "u") & (pl.col("prompt").list.first().struct.field("content") != "")
    is_text = table.select((is_question | (pl.col("prompt").list.len() == 0)).all()).item()
    names = [pl.col("extra").str.json_path_match(f"$.{path}") for path in SUBSETS]
    return table.select(
        text_of("prompt") if is_text else "prompt",
        *map(text_of, ("chosen", "rejected")),
        pl.coalesce(*names, "source").alias("subset"),
        pl.col("pair_id").alias("id"),
    )


class Writer(NamedTuple):
    """A format: what it is for, what its columns mean, the pairs it cannot carry (LOSSES) and the function that writes it."""

    help: str
    columns: dict[str, str]
    write: Callable[[pl.DataFrame, str, bool], pl.DataFrame]
    cannot: tuple[str, ...] = ()
    has_soft_label: bool = False
    needs_scores: bool = False


PAIR_COLUMNS = {
    "prompt": "what was asked",
    "chosen": "the preferred response",
    "rejected": "the other response",
    "margin": "lead that the chosen reward must have in TRL's loss",
}
ONE_RESPONSE = "response that is not one message of the assistant"
WRITERS = {
    "trl": Writer(
        "what trl reward trains on: prompt, chosen, rejected, margin",
        PAIR_COLUMNS,
        trl,
        cannot=("tie", "tool calls or media", "empty list of messages"),
    ),
    "full": Writer(
        "trl and everything known of a pair; curate reads it back without loss",
        PAIR_COLUMNS
        | {
            "label_prob": "chance that chosen is better, as a loss should take it; .5 is a tie",
            "weight": "weight of the pair",
            "action": "what was done: keep, flip or smooth",
            "strength_mean": "mean lead of chosen over rejected in the ensemble, scaled; negative where it disagrees",
            "strength_std": "its standard deviation over the members",
            "vote_share": "share of members that prefer chosen",
            "pair_id": "the pair's place in the input",
            "label_strength": "given chance that chosen is better; null where the label is binary, below .5 after a flip",
            "votes": "one per annotator, 1 for chosen",
            "annotators": "who gave each vote",
            "source": "data set of the input",
            "extra": "JSON text of all other columns, and of messages that hold more than text",
        },
        full,
        has_soft_label=True,
    ),
    "strength": Writer(
        "the columns of hh-rlhf-strength-cleaned: marked turns and every member's scores",
        {
            "chosen": "turns of the conversation, the last one the preferred response",
            "rejected": "the same with the other response",
            "GPT4 label": "as the data brought it: 1 GPT-4 prefers chosen, 0 rejected, -1 not asked",
            DIFFERENCES[0]: "mean over the members of their score of chosen minus that of rejected",
            DIFFERENCES[1]: "its standard deviation over the members",
            SCORE_LISTS[0]: "each member's reward of the preferred response",
            SCORE_LISTS[1]: "each member's reward of the other response",
        },
        strength,
        cannot=(
            "tie",
            "tool calls or media",
            "turns of others than user and assistant",
            ONE_RESPONSE,
            "turns that do not alternate",
            "Human: or Assistant: within a turn",
        ),
        needs_scores=True,
    ),
    "rewardbench": Writer(
        "what reward-bench evaluates on: prompt, chosen, rejected, subset, id",
        {name: PAIR_COLUMNS[name] for name in TEXTS}
        | {
            "subset": "part of the benchmark: a category of the data, else its source",
            "id": "the pair's place in the input",
        },
        rewardbench,
        cannot=("tie", "tool calls or media", "turns of others than user and assistant", ONE_RESPONSE),
    ),
}
FOR_TRL = ("trl", "full")  # formats with the columns that TRL reads
CARRIES_ALL = next(name for name, writer in WRITERS.items() if not writer.cannot and writer.has_soft_label)


def read_scores(folder: Path, pair_ids: pl.Series) -> pl.DataFrame:
    """The two score lists of every pair, (pairs,): each member's raw reward of the chosen and of the rejected response."""
    members = [pl.read_parquet(file) for file in sorted((folder / "votes").glob("member-*.parquet"))]
    if not members or not all(votes["pair_id"].equals(pair_ids, check_names=False) for votes in members):
        raise CurateError(f"{folder}: no votes of its pairs; vote again: curate vote {folder}")
    return pl.DataFrame(
        {
            name: pl.select(pl.concat_list(*(votes[f"reward_{side}"] for votes in members))).to_series()
            for name, side in zip(SCORE_LISTS, ("chosen", "rejected"), strict=True)
        }
    )


def duplicated(table: pl.DataFrame) -> pl.DataFrame:
    """Every pair COPIES times, of a smoothed one round(COPIES * (1 - label_prob)) with the responses exchanged.

    All pairs weigh the same, and a loss without soft labels learns label_prob to the nearest quarter. The margin of an
    exchanged copy has its sign changed, so that both copies speak of the same lead.
    """
    n_turned = (
        pl.when(pl.col("action") == "smooth").then((COPIES * (1 - pl.col("label_prob")) + 0.5).floor()).otherwise(0)
    )
    copies = table.with_columns(copy=pl.int_ranges(0, COPIES), n_turned=n_turned).explode("copy")
    is_turned = pl.col("copy") >= COPIES - pl.col("n_turned")
    return copies.with_columns(
        pl.when(is_turned).then("rejected").otherwise("chosen").alias("chosen"),
        pl.when(is_turned).then("chosen").otherwise("rejected").alias("rejected"),
        pl.when(is_turned).then(0 - pl.col("margin")).otherwise("margin").alias("margin"),
    ).drop("copy", "n_turned")

"""Decisions to a cleaned dataset: the curated pairs, what was removed and why, a diff against the input, and a card.

Every input pair is accounted for: kept + flipped + smoothed + dropped + not carried = read, asserted on write.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from curate.errors import CurateError, unknown_choice
from curate.pairs import is_tie, text_of
from curate.run import replace_folder, write_json, write_parquet

FORMATS = ("trl", "full")
FILES = ("parquet", "jsonl")
SMOOTHED = ("keep", "drop")
PAIRS_PER_SHARD = 100_000
TIE_NOT_CARRIED = "tie: not carried by trl"
SMOOTHED_NOT_CARRIED = "smoothed: left out by --smoothed drop"

TRL_COLUMNS = ("prompt", "chosen", "rejected")
FULL_COLUMNS = ("label_prob", "weight", "action", "strength_mean", "strength_std", "vote_share", "pair_id")


@dataclass(frozen=True)
class ExportOptions:
    """What `curate export` writes."""

    format: str = field(
        default="trl", metadata={"help": "trl: prompt, chosen, rejected, margin. full: also label_prob, weight, votes"}
    )
    file: str = field(default="parquet", metadata={"help": "parquet or jsonl"})
    margin: bool = field(default=True, metadata={"help": "write the policy's margin column (in all rows or in none)"})
    smoothed: str = field(
        default="keep",
        metadata={"help": "trl has no soft label: keep smoothed pairs hard-labelled, or drop them"},
    )
    strict: bool = field(default=False, metadata={"help": "refuse instead of losing soft labels or ties"})
    license: str = field(default="unknown", metadata={"help": "licence of the data, for the dataset card"})

    def __post_init__(self) -> None:
        for value, what, choices in (
            (self.format, "format", FORMATS),
            (self.file, "file kind", FILES),
            (self.smoothed, "--smoothed", SMOOTHED),
        ):
            if value not in choices:
                raise unknown_choice(what, value, choices)


@dataclass(frozen=True)
class Split:
    """The pairs of a run divided into what the export carries and what it does not."""

    curated: pl.DataFrame  # pair columns, as exported (flips swapped), and decision and strength columns
    removed: pl.DataFrame  # whole input rows, with action and reason
    diff: pl.DataFrame  # pair_id, action, changed
    counts: dict[str, int]


def split_pairs(pairs: pl.DataFrame, decisions: pl.DataFrame, strength: pl.DataFrame, options: ExportOptions) -> Split:
    """Divide the pairs by their decisions; flipped pairs come back with their responses swapped.

    All three tables have one row per pair in the same order. Raises AssertionError if the counts do not add up to the
    pairs read, CurateError under `strict` where the format cannot carry a decision.
    """
    table = pl.concat([pairs, decisions.drop("pair_id"), strength.drop("pair_id", "label_prob")], how="horizontal")
    not_carried = _not_carried(options)
    table = table.with_columns(not_carried.alias("not_carried"))
    if options.strict and options.format == "trl":
        _refuse_losses(table)
    is_removed = (pl.col("action") == "drop") | pl.col("not_carried").is_not_null()
    reason = pl.coalesce("not_carried", "reason").alias("reason")
    removed = table.filter(is_removed).select(*pairs.columns, "action", reason)
    curated = flip_responses(table.filter(~is_removed))
    counts = _counts(table)
    assert sum(counts.values()) - counts["read"] == counts["read"] == len(curated) + len(removed), counts
    return Split(curated, removed, _diff(table, is_removed), counts)


def flip_responses(table: pl.DataFrame) -> pl.DataFrame:
    """The table with chosen and rejected swapped where the action is flip."""
    is_flipped = pl.col("action") == "flip"
    return table.with_columns(
        pl.when(is_flipped).then("rejected").otherwise("chosen").alias("chosen"),
        pl.when(is_flipped).then("chosen").otherwise("rejected").alias("rejected"),
    )


def _not_carried(options: ExportOptions) -> pl.Expr:
    """The reason for which the format leaves a pair out, null where it carries it."""
    if options.format == "full":
        return pl.lit(None, dtype=pl.String)
    tie = pl.when(is_tie() & (pl.col("action") != "drop")).then(pl.lit(TIE_NOT_CARRIED))
    smoothed = pl.when((pl.col("action") == "smooth") & (options.smoothed == "drop")).then(pl.lit(SMOOTHED_NOT_CARRIED))
    return pl.coalesce(tie, smoothed)


def _refuse_losses(table: pl.DataFrame) -> None:
    ties = int((table["not_carried"] == TIE_NOT_CARRIED).sum())
    smoothed = int((table["action"] == "smooth").sum())
    if ties or smoothed:
        raise CurateError(
            f"format trl cannot carry {ties} ties and {smoothed} soft labels; use --format full, or leave out --strict"
        )


def _counts(table: pl.DataFrame) -> dict[str, int]:
    carried = table.filter(pl.col("not_carried").is_null())
    by_action = dict(carried["action"].value_counts().rows())
    names = {"kept": "keep", "flipped": "flip", "smoothed": "smooth", "dropped": "drop"}
    counts = {name: int(by_action.get(action, 0)) for name, action in names.items()}
    return {**counts, "not carried": len(table) - len(carried), "read": len(table)}


def _diff(table: pl.DataFrame, is_removed: pl.Expr) -> pl.DataFrame:
    """What the export changed, one row per changed pair: `changed` names the columns, or says removed."""
    changed = (
        pl.when(is_removed)
        .then(pl.lit("removed"))
        .when(pl.col("action") == "flip")
        .then(pl.lit("chosen, rejected"))
        .when(pl.col("action") == "smooth")
        .then(pl.lit("label_prob"))
    )
    return table.select("pair_id", "action", changed.alias("changed")).filter(pl.col("changed").is_not_null())


def exported_columns(curated: pl.DataFrame, form: str, options: ExportOptions) -> pl.DataFrame:
    """The columns of an export format, in one consistent form: strings (standard) or message lists (conversational)."""
    columns = list(TRL_COLUMNS)
    if form == "standard":
        curated = curated.with_columns(text_of(column) for column in TRL_COLUMNS)
    if options.margin and (curated["margin"] != 0).any():  # a policy without margins leaves the column out
        curated = curated.with_columns(pl.col("margin").cast(pl.Float32))
        columns.append("margin")
    if options.format == "full":
        columns += FULL_COLUMNS
    return curated.select(columns)


def write_export(to: Path, split: Split, form: str, options: ExportOptions, provenance: dict[str, Any]) -> None:
    """Write the export folder `to` whole or not at all: into a folder beside it, which is then renamed."""
    partial = to.with_name(f".{to.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        table = exported_columns(split.curated, form, options)
        _write_shards(table, partial / "data", options.file)
        write_parquet(split.removed, partial / "removed" / "removed.parquet")
        write_parquet(split.diff, partial / "removed" / "diff.parquet")
        (partial / "README.md").write_text(card(split.counts, table.columns, options, provenance), encoding="utf-8")
        (partial / "trl_reward.yaml").write_text(trl_config(), encoding="utf-8")
        write_json(provenance, partial / "provenance.json")
        replace_folder(partial, to)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_shards(table: pl.DataFrame, folder: Path, kind: str) -> None:
    n_shards = max(1, -(-len(table) // PAIRS_PER_SHARD))
    for i in range(n_shards):
        shard = table.slice(i * PAIRS_PER_SHARD, PAIRS_PER_SHARD)
        path = folder / f"train-{i:05d}-of-{n_shards:05d}.{kind}"
        if kind == "parquet":
            write_parquet(shard, path)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shard.write_ndjson(path)


def card(counts: dict[str, int], columns: list[str], options: ExportOptions, provenance: dict[str, Any]) -> str:
    """The dataset card (README.md): metadata that names the curated split only, the counts, and how it was made."""
    from huggingface_hub import DatasetCardData

    n = counts["kept"] + counts["flipped"] + counts["smoothed"]
    metadata = DatasetCardData(
        license=options.license,
        tags=["trl", "preference", "reward-model", "prefcurate"],
        size_categories=[_size_category(n)],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
    )
    rows = "\n".join(f"| {name} | {count:,} |" for name, count in counts.items())
    lines = [
        f"---\n{metadata.to_yaml()}\n---\n",
        f"# {provenance['source']}, curated\n",
        f"{n:,} preference pairs of {counts['read']:,}, cleaned with "
        f"[prefcurate](https://pypi.org/project/prefcurate/) {provenance['versions']['prefcurate']}, "
        f"policy `{provenance['policy']}`.\n",
        f"| pairs | |\n| --- | ---: |\n{rows}\n",
    ]
    if counts["smoothed"] and options.format == "trl":
        lines.append(
            f"{counts['smoothed']:,} doubtful pairs are written with their hard label, because TRL has no soft label "
            "per pair: the format `full` carries it as `label_prob`.\n"
        )
    if "margin" in columns:
        lines.append(
            f"`margin` is in units of the ensemble's rewards, whose median difference is {provenance['margin_scale']:.3g}: "
            "rescale it to the model you train.\n"
        )
    if provenance.get("n_over_1024_tokens"):
        lines.append(
            f"{provenance['n_over_1024_tokens']:,} of the pairs read are over TRL's default of 1,024 tokens; "
            "TRL drops such pairs.\n"
        )
    lines.append(
        "`removed/removed.parquet` holds every removed pair with its reason, `removed/diff.parquet` what changed, "
        "`provenance.json` the input's hash and all settings. `datasets.load_dataset` loads the curated pairs only.\n"
    )
    return "\n".join(lines)


def _size_category(n: int) -> str:
    """The Hub's size bucket of n rows.

    >>> _size_category(999), _size_category(8552), _size_category(2_000_000)
    ('n<1K', '1K<n<10K', '1M<n<10M')
    """
    bounds = ["1K", "10K", "100K", "1M", "10M", "100M", "1B"]
    for i, bound in enumerate(bounds):
        if n < 10 ** (3 + i):
            return f"n<{bound}" if i == 0 else f"{bounds[i - 1]}<n<{bound}"
    return "n>1B"


def trl_config() -> str:
    """A `trl reward --config trl_reward.yaml` file that trains on the export from inside its folder."""
    settings = {
        "model_name_or_path": "Qwen/Qwen3-0.6B",
        "dataset_name": ".",
        "output_dir": "reward-model",
        "num_train_epochs": 1,
        "per_device_train_batch_size": 8,
        "learning_rate": 1.0e-4,
        "max_length": 1024,
        "center_rewards_coefficient": 0.01,
    }
    return "# Run inside this folder: trl reward --config trl_reward.yaml\n" + yaml.safe_dump(settings, sort_keys=False)

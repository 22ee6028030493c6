"""Decisions to a cleaned dataset: the curated pairs, what was removed and why, a diff against the input, and a card.

Every input pair is accounted for: kept + flipped + smoothed + dropped + not carried = read, asserted on write.
"""

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from curate.card import card, features, trl_config
from curate.errors import CurateError, unknown_choice
from curate.flips import flip_responses
from curate.not_carried import first_loss, more_than_text
from curate.pairs import is_tie
from curate.run import Progress, no_progress, replace_folder, sha256_of, write_json, write_parquet
from curate.writers import CARRIES_ALL, COPIES, FOR_TRL, WRITERS, duplicated

FILES = ("parquet", "jsonl")
SMOOTHED = ("keep", "drop", "duplicate")
PAIRS_PER_SHARD = 100_000
SMOOTHED_NOT_CARRIED = "smoothed: left out by --smoothed drop"


@dataclass(frozen=True)
class ExportOptions:
    """What `curate export` writes."""

    format: str = field(
        default="trl", metadata={"help": "; ".join(f"{name} ({writer.help})" for name, writer in WRITERS.items())}
    )
    file: str = field(default="parquet", metadata={"help": "parquet or jsonl"})
    margin: bool = field(
        default=True, metadata={"help": "trl, full: write the policy's margin column (in all rows or in none)"}
    )
    smoothed: str = field(
        default="keep",
        metadata={
            "help": f"pairs with a soft label, in formats without one (all but {CARRIES_ALL}): keep them hard-labelled, "
            f"drop them, or (trl) duplicate: every pair {COPIES} times, of a smoothed one as many with the responses "
            "exchanged as its label is in doubt"
        },
    )
    strict: bool = field(default=False, metadata={"help": "refuse instead of leaving out pairs or losing soft labels"})
    license: str = field(
        default="unknown", metadata={"help": "licence of the data as the Hub names it (mit, cc-by-4.0), for the card"}
    )

    def __post_init__(self) -> None:
        for value, what, choices in (
            (self.format, "format", tuple(WRITERS)),
            (self.file, "file kind", FILES),
            (self.smoothed, "--smoothed", SMOOTHED),
        ):
            if value not in choices:
                raise unknown_choice(what, value, choices)
        if self.smoothed != "keep" and WRITERS[self.format].has_soft_label:
            raise CurateError(f"--smoothed {self.smoothed}: format {self.format} has soft labels; leave it out")
        if self.smoothed == "duplicate" and self.format != "trl":
            raise CurateError(f"--smoothed duplicate: for training, not for format {self.format}; choose keep or drop")
        if not re.fullmatch(r"[a-z0-9.+-]+", self.license):
            raise CurateError(f"--license {self.license!r}: the Hub's names are like mit, apache-2.0 or cc-by-4.0")


@dataclass(frozen=True)
class Split:
    """The pairs of a run divided into what the export carries and what it does not."""

    curated: pl.DataFrame  # pair columns, as exported (flips turned), and decision and strength columns
    removed: pl.DataFrame  # whole input rows, with action and reason
    diff: pl.DataFrame  # pair_id, action, changed
    counts: dict[str, int]

    @property
    def reasons(self) -> dict[str, int]:
        """How many pairs were removed for each reason, the most frequent first."""
        counted = self.removed.group_by("reason").len().sort("len", "reason", descending=[True, False])
        return dict(counted.rows())


def split_pairs(
    pairs: pl.DataFrame, decided: pl.DataFrame, options: ExportOptions, form: str = "conversational"
) -> Split:
    """Divide the pairs by their decisions; flipped pairs come back turned.

    `decided` has the columns of decisions and strength, and the score lists where the format asks for them, one row per
    pair in the same order. Raises AssertionError if the counts do not add up to the pairs read, CurateError where nothing
    would be left, and under `strict` where the format cannot carry all that was decided.
    """
    table = pl.concat([pairs, decided.drop("pair_id")], how="horizontal")
    table = table.with_columns(more_than_text(pairs)).with_columns(_not_carried(options, form).alias("not_carried"))
    is_removed = (pl.col("action") == "drop") | pl.col("not_carried").is_not_null()
    reason = pl.coalesce("not_carried", "reason").alias("reason")
    removed = table.filter(is_removed).select(*pairs.columns, "action", reason)
    curated = flip_responses(table.filter(~is_removed))
    counts = _counts(table)
    assert sum(counts.values()) - counts["read"] == counts["read"] == len(curated) + len(removed), counts
    split = Split(curated, removed, _diff(table, is_removed), counts)
    _refuse_losses(split, options)
    return split


def _not_carried(options: ExportOptions, form: str) -> pl.Expr:
    """The reason for which the format leaves a pair out, null where it carries it or the policy drops it."""
    loss = first_loss(WRITERS[options.format].cannot, form) + f": not carried by {options.format}"
    smoothed = pl.when((pl.col("action") == "smooth") & (options.smoothed == "drop")).then(pl.lit(SMOOTHED_NOT_CARRIED))
    return pl.when(pl.col("action") != "drop").then(pl.coalesce(loss, smoothed))


def _refuse_losses(split: Split, options: ExportOptions) -> None:
    """Refuse an export without a pair, and under `strict` one that leaves out pairs or soft labels."""
    counts = split.counts
    losses = dict(split.removed.filter(pl.col("action") != "drop").group_by("reason").len().sort("reason").rows())
    if split.curated.is_empty() and not losses:
        raise CurateError(
            f"the policy drops all {counts['read']:,} pairs; choose another: curate decide RUN --policy NAME"
        )
    is_hardened = not WRITERS[options.format].has_soft_label and options.smoothed == "keep" and counts["smoothed"] > 0
    found = losses | ({"soft label": counts["smoothed"]} if is_hardened else {})
    if split.curated.is_empty() or (options.strict and found):
        words = ", ".join(f"{n:,} {what.partition(':')[0]}" for what, n in found.items())
        what = "any of the pairs that are left" if split.curated.is_empty() else "all that was decided"
        or_else = "" if split.curated.is_empty() else ", or leave out --strict"
        raise CurateError(f"format {options.format} cannot carry {what} ({words}); use --format {CARRIES_ALL}{or_else}")


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
    if options.smoothed == "duplicate" and (curated["action"] == "smooth").any():
        curated = duplicated(curated)
    has_margin = options.margin and bool((curated["margin"] != 0).any())  # a policy without margins leaves it out
    return WRITERS[options.format].write(curated, form, has_margin)


def write_export(
    to: Path,
    split: Split,
    form: str,
    options: ExportOptions,
    provenance: dict[str, Any],
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write the export folder `to` whole or not at all: into a folder beside it, which is then renamed.

    Returns what provenance.json holds: `provenance`, and what was written and removed.
    """
    partial = to.with_name(f".{to.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        table = exported_columns(split.curated, form, options)
        files = _write_shards(table, partial, options.file, progress)
        write_parquet(split.removed, partial / "removed" / "removed.parquet")
        write_parquet(split.diff, partial / "removed" / "diff.parquet")
        found = {
            **provenance,
            "counts": split.counts,
            "removed": split.reasons,
            "rows": len(table),
            "n_graded": int(split.curated.select((pl.col("label_strength").is_not_null() & ~is_tie()).sum()).item()),
            "columns": table.columns,
            "features": features(table.schema),
            "files": files,
            "export": asdict(options),
            "trl_reads_all": trl_reads_all(split.curated, form, options),
        }
        (partial / "README.md").write_text(card(found), encoding="utf-8")
        if found["trl_reads_all"]:
            (partial / "trl_reward.yaml").write_text(trl_config(found), encoding="utf-8")
        write_json(found, partial / "provenance.json")
        replace_folder(partial, to)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


def trl_reads_all(curated: pl.DataFrame, form: str, options: ExportOptions) -> bool:
    """True where TRL can train on the export as it is: its columns, and no pair that format trl would leave out."""
    if options.format not in FOR_TRL:
        return False
    return bool(curated.select(first_loss(WRITERS["trl"].cannot, form).is_null().all()).item())


def _write_shards(table: pl.DataFrame, folder: Path, kind: str, progress: Progress) -> dict[str, dict[str, Any]]:
    """Write the rows into `data/`; returns the rows and the sha256 of each file."""
    n_shards = max(1, -(-len(table) // PAIRS_PER_SHARD))
    files = {}
    progress("export", 0, len(table))
    for i in range(n_shards):
        shard = table.slice(i * PAIRS_PER_SHARD, PAIRS_PER_SHARD)
        path = folder / "data" / f"train-{i:05d}-of-{n_shards:05d}.{kind}"
        if kind == "parquet":
            write_parquet(shard, path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            shard.write_ndjson(path)
        files[path.relative_to(folder).as_posix()] = {"rows": len(shard), "sha256": sha256_of(path)}
        progress("export", i * PAIRS_PER_SHARD + len(shard), len(table))
    return files


def read_provenance(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What provenance.json says of an export."""
    found: dict[str, Any] = json.loads((Path(folder) / "provenance.json").read_text(encoding="utf-8"))
    return found

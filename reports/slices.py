"""Parts of the data set side by side: by source, by the categories that its rows carry, and by language."""

import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from curate.intervals import agreement_with_label, cluster_bootstrap
from curate.run import Run
from reports.languages import DETECTED, detected_languages

CATEGORIES = ("category", "subset", "task", "domain", "language", "annotator")  # names looked for in extra, extra.meta
MOST_VALUES = 40  # a column with more values than this is an id, not a category
MOST_BUNDLES = 2000  # of prompts are drawn for an interval: 40 parts of a million pairs take seconds, not minutes
FEWEST_PAIRS = 20  # an accuracy of fewer pairs than this is noise


def slicings(run: Run, table: pl.DataFrame) -> dict[str, pl.Series]:
    """The labels of each way of slicing that gives two parts or more, (pairs,) each; null where a pair has none.

    Languages are looked for where the rows do not name them.
    """
    ways = {"source": table["source"], **categories(run)}
    if "language" not in ways and (languages := detected_languages(run)) is not None:
        ways[DETECTED] = languages
    return {by: labels for by, labels in ways.items() if 2 <= labels.drop_nulls().n_unique() <= MOST_VALUES}


def slices(table: pl.DataFrame, ways: Mapping[str, pl.Series], is_out_of_fold: bool) -> list[dict[str, Any]] | None:
    """One entry per way of slicing: its name, its parts, largest first, and the weak ones.

    `table` is that of `facts.judged_pairs`. None where no column divides the pairs. A part is weak where the interval
    of its accuracy includes one half. Detected languages are only those of the pairs that were looked at.
    """
    found = [(by, parts(table, labels, is_out_of_fold, by == DETECTED)) for by, labels in ways.items()]
    weak = [[part["name"] for part in made if part.get("accuracy", {}).get("low", 1.0) <= 0.5] for _, made in found]
    return [{"by": by, "parts": made, "weak": names} for (by, made), names in zip(found, weak, strict=True)] or None


def categories(run: Run) -> dict[str, pl.Series]:
    """The text columns of `extra` that are named like a category, (pairs,) each; null where a row has none."""
    extra = run.scan("pairs").select("extra").collect().to_series()
    paths = {name: path for name in CATEGORIES for path in (f"$.meta.{name}", f"$.{name}") if _has(extra, path)}
    return {name: extra.str.json_path_match(path) for name, path in paths.items()}


def _has(extra: pl.Series, path: str) -> bool:
    """True when the first row that carries anything has a text at this path."""
    first = extra.filter(extra != "{}").head(1)
    if first.is_empty():
        return False
    value = json.loads(first[0])
    for key in path.removeprefix("$.").split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return isinstance(value, str)


def parts(
    table: pl.DataFrame, labels: pl.Series, is_out_of_fold: bool, is_sample: bool = False
) -> list[dict[str, Any]]:
    """Each value with its number of pairs and, where computed, accuracy, length null, suspicious and dropped shares.

    Pairs without a value are a part too, unless the values are those of a sample.
    """
    named = table.with_columns(labels.alias("part"))
    named = named.drop_nulls("part") if is_sample else named.with_columns(pl.col("part").fill_null("(none)"))
    found = [
        part_facts(str(name), part, is_out_of_fold) for (name,), part in named.group_by("part", maintain_order=True)
    ]
    return sorted(found, key=lambda part: (-part["n_pairs"], part["name"]))


def part_facts(name: str, part: pl.DataFrame, is_out_of_fold: bool) -> dict[str, Any]:
    """The facts of one part; accuracies only from 20 judged pairs, their intervals only from 20 prompts."""
    entry: dict[str, Any] = {"name": name, "n_pairs": len(part), "n_groups": part["group"].n_unique()}
    if "action" in part.columns:
        entry["dropped_share"] = int((part["action"] == "drop").sum()) / len(part)
    if "strength_mean" not in part.columns or not is_out_of_fold:
        return entry
    judged = part.filter(~pl.col("is_tie") & pl.col("strength_mean").is_not_null())
    if len(judged) < FEWEST_PAIRS:
        return entry
    groups = judged["group"].to_numpy()
    agrees = agreement_with_label(judged["strength_mean"].to_numpy())
    accuracy = cluster_bootstrap(agrees, groups, most_clusters=MOST_BUNDLES)
    assert accuracy is not None
    length = agreement_with_label(judged["length_lead"].to_numpy())
    measured = accuracy.to_dict()
    if accuracy.is_too_narrow:
        del measured["low"], measured["high"]
    entry |= {"accuracy": measured, "length_null": float(length.sum() / len(length))}
    return {**entry, "suspicious_share": int(judged.select(is_suspicious()).sum().item()) / len(judged)}


def is_suspicious() -> pl.Expr:
    """True where the label is more likely wrong than right by label_prob or, where that is missing, by the mean."""
    return pl.coalesce(pl.col("label_prob") < 0.5, pl.col("strength_mean") < 0)

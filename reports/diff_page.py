"""What changed between two runs as one HTML file that opens offline: made like the report, and as safe against its data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from curate.diff import IS_BOTH, STRENGTH_B, Diff
from curate.diff_words import judge_words, setting_text
from curate.run import Run, whole_file
from reports import numbers
from reports.diff_pairs import changed_pairs
from reports.marks import DOTTED, Chart, axis, layout, legend
from reports.numbers import count, counted, percent
from reports.page import rendered
from reports.strength_charts import reach

N_POINTS = 2000  # more points than this say nothing new and make the page slow
MOST_SOURCES = 50
GROUPS = {"same pair and label": "@easy", "texts edited": "@doubt", "label swapped": "@accent"}

Facts = Mapping[str, Any]


def write_diff_page(found: Diff, a: Run, b: Run, to: Path) -> None:
    """Write the page, whole or not at all."""
    html = page({**found.facts, "scatter": scatter(found.pairs), "pairs": changed_pairs(found.pairs, a, b)})
    with whole_file(to) as partial:
        partial.write_text(html, encoding="utf-8", newline="\n")


def scatter(pairs: pl.DataFrame) -> dict[str, Any]:
    """The strengths of at most 2,000 pairs in A and in B, both for A's label, evenly spaced over the ranks in A, by group."""
    group = (
        pl.when(pl.col("change").str.contains("swapped"))
        .then(pl.lit("label swapped"))
        .when(pl.col("change").str.contains("edited"))
        .then(pl.lit("texts edited"))
        .otherwise(pl.lit("same pair and label"))
    )
    both = pairs.filter(IS_BOTH).select("row_a", group=group, a="strength_mean_a", b=STRENGTH_B).drop_nulls()
    ordered = both.sort("a", "row_a")
    if len(ordered) > N_POINTS:
        ordered = ordered[np.linspace(0, len(ordered) - 1, N_POINTS).round().astype(np.int64).tolist()]
    points = {
        name: {side: ordered.filter(group=name)[side].round(3).to_list() for side in ("a", "b")} for name in GROUPS
    }
    return {"n_points": len(ordered), "n_pairs": len(both), "points": points}


def strength_chart(facts: Facts) -> Chart | None:
    """Strength in A against strength in B; none where there are no strengths, or all are the same."""
    strength, sample = facts.get("strength"), facts["scatter"]
    if not strength or strength["n_equal"] == strength["n_pairs"]:
        return None
    values = [abs(value) for points in sample["points"].values() for side in ("a", "b") for value in points[side]]
    widest = reach(values)
    frame = {"range": [-widest, widest]}
    traces = [_dots(name, colour, sample["points"][name]) for name, colour in GROUPS.items()]
    ends = [(-widest, widest, -widest, widest), (0, 0, -widest, widest), (-widest, widest, 0, 0)]
    design = layout(
        xaxis=axis("strength in A (for A's label)", **frame),
        yaxis=axis("strength in B (for A's label)", **frame),
        shapes=[{**DOTTED, "x0": x0, "x1": x1, "y0": y0, "y1": y1} for x0, x1, y0, y1 in ends],
        legend=legend(),
    )
    share = percent(strength["n_sign_changes"] / strength["n_pairs"])
    title = f"Of {share} of the pairs in both, the votes now prefer the other response"
    if strength["spearman"] is not None:
        title += f"; rank correlation {numbers.decimal(strength['spearman'])}"
    drawn = "every pair in both" if sample["n_points"] == sample["n_pairs"] else f"{count(sample['n_points'])} pairs"
    caption = (
        f"Each dot is a pair ({drawn}; the farthest lie outside the frame). On the dotted diagonal both audits say the same; "
        "upper left and lower right they prefer different responses."
    )
    return Chart("chart-strengths", title, caption, {"data": [t for t in traces if t["x"]], "layout": design}, 460)


def _dots(name: str, colour: str, points: Mapping[str, list[float]]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": points["a"],
        "y": points["b"],
        "marker": {"color": colour, "size": 6, "opacity": 0.6},
        "hovertemplate": "A %{x:.2f}, B %{y:.2f}<extra>" + name + "</extra>",
    }


def page(facts: Facts) -> str:
    """The page of a diff's facts; equal facts give equal bytes."""
    chart = strength_chart(facts)
    return rendered(
        "diff.html",
        {chart.id: chart} if chart else {},
        styles=("diff.css",),
        facts=facts,
        tiles=tiles(facts),
        checks=[row for row in facts.get("checks", []) if is_check_changed(row)],
        sources=facts["data"].get("sources", [])[:MOST_SOURCES],
        judges={side: judge_words(facts["votes"][side] or {}) for side in ("a", "b")},
        setting_text=setting_text,
    )


def tiles(facts: Facts) -> list[tuple[str, str, str]]:
    """The few numbers under the answer: what is counted, the number, and of what."""
    data, changes, actions = facts["data"], facts["data"]["changes"], facts.get("actions")
    found = [
        ("pairs in both", count(data["n_both"]), f"of {count(data['n_a'])} in A, {count(data['n_b'])} in B"),
        ("only in A", count(changes["only in A"]), "removed, if B is the newer one"),
        ("only in B", count(changes["only in B"]), "added, if B is the newer one"),
        ("labels swapped", count(changes["label swapped"]), "chosen and rejected changed places"),
        ("texts edited", count(changes["response edited"] + changes["prompt edited"]), "a response or the prompt"),
    ]
    if not actions:
        return found
    of = counted(actions["n_pairs"], "pair")
    return [*found, ("decisions changed", count(actions["n_changed"]), f"of {of} in both")]


def is_check_changed(row: Facts) -> bool:
    """True where a check finds other pairs, or another number of pairs, in the two runs."""
    return bool(row["n_new"] or row["n_gone"] or row["n_a"] != row["n_b"])

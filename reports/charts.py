"""The facts as plotly figures: plain JSON, with colour names in place of colours so that the page can be light or dark.

A figure says one thing, and its title is that thing. A colour written as `@name` is replaced on the page by the style
sheet's `--name`. Text that comes from the data is escaped, because plotly reads tags and links in labels.
"""

from itertools import pairwise

from reports import guarantee_charts, reliability_charts
from reports.marks import Chart, Facts, axis, dots, estimates, label, layout, legend, line, note
from reports.members import worth
from reports.numbers import count, counted, percent

STRENGTH_UNIT = "strength_mean (median difference = 1)"
MOST_NUMBERED = 12  # members; with more, the numbers in the cells would not fit
SHOWN_SHARE = 0.995  # the farthest points would make the frame so wide that nothing can be seen in it

KIND_COLOURS = {
    "wrong": "@accent",
    "ambiguous": "@doubt",
    "hard": "@split",
    "normal": "@normal",
    "easy": "@easy",
}


def charts(facts: Facts) -> dict[str, Chart]:
    """Every chart that the facts allow, by id; a chart of a part that was not computed is missing."""
    made = [
        accuracy(facts),
        reliability_charts.clear_errors(facts),
        reliability_charts.label_prob(facts),
        reliability_charts.agreement(facts),
        correlation(facts),
        guarantee_charts.certified_flips(facts),
        guarantee_charts.kept(facts),
        strengths(facts),
        spread(facts),
        *(slice_accuracy(way, i) for i, way in enumerate(facts.get("slices", []))),
    ]
    return {chart.id: chart for chart in made if chart is not None}


def accuracy(facts: Facts) -> Chart | None:
    """Agreement of the ensemble, of each member and of the length null with the given labels, beside a coin toss."""
    ensemble = facts.get("ensemble", {})
    if "accuracy" not in ensemble or not ensemble.get("is_out_of_fold"):
        return None
    length = ensemble.get("length")
    traces = [estimates("length alone", [("length alone", length)], "@muted")] if length else []
    members = ensemble.get("member_accuracy", [])
    if members:
        traces.append(dots("members", [100 * value for value in members], ["each member"] * len(members)))
    traces.append(estimates("ensemble", [("ensemble", ensemble["accuracy"])], "@accent"))
    design = layout(
        xaxis=axis("labels agreed with (%)"),
        yaxis=axis("", automargin=True, showgrid=False),
        showlegend=False,
        shapes=[line(x=50)],
        annotations=[note("coin toss", x=50)],
    )
    title = f"Votes agree with {percent(ensemble['accuracy']['value'])} of the labels"
    if length:
        title += f", the {length['prefers']} response with {percent(length['value'])}"
    caption = "Out of fold, ties left out. Lines are 95 % intervals over prompts; small dots are single members."
    return Chart("chart-accuracy", title, caption, {"data": traces, "layout": design}, 210)


def correlation(facts: Facts) -> Chart | None:
    """How alike the members vote: the correlation of their differences."""
    ensemble = facts.get("ensemble", {})
    matrix = ensemble.get("correlation")
    if not matrix or len(matrix) < 2:
        return None
    names = [str(member) for member in range(len(matrix))]
    cells = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": [[None if i == j else round(value, 3) for j, value in enumerate(row)] for i, row in enumerate(matrix)],
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "@sheet"], [1, "@easy"]],
        "text": [
            ["" if i == j else f"{value:.2f}".replace("0.", ".") for j, value in enumerate(row)]
            for i, row in enumerate(matrix)
        ],
        "texttemplate": "%{text}" if len(matrix) <= MOST_NUMBERED else "",
        "textfont": {"size": 10},
        "xgap": 2,
        "ygap": 2,
        "hoverongaps": False,
        "hovertemplate": "members %{x} and %{y}: %{z:.2f}<extra></extra>",
        "showscale": len(matrix) > MOST_NUMBERED,
        "colorbar": {"thickness": 10, "outlinewidth": 0, "tickvals": [0, 0.5, 1]},
    }
    design = layout(
        xaxis=axis("member", type="category", showgrid=False),
        yaxis=axis("member", type="category", showgrid=False, autorange="reversed"),
    )
    title, caption = _votes_worth(ensemble)
    return Chart("chart-correlation", title, caption, {"data": [cells], "layout": design}, 340)


def _votes_worth(ensemble: Facts) -> tuple[str, str]:
    """Title and caption of the correlations: how many independent votes the members are worth."""
    caption = "Correlation of the members' differences. Shared signal counts as shared error here, so the number of "
    if "effective_votes" not in ensemble:
        return "How alike the members vote", f"{caption}independent votes is lower than these say."
    at_least = f"{ensemble['effective_votes']:.1f}"
    given_truth = ensemble.get("given_truth")
    if given_truth is None:
        return worth(ensemble), f"{caption}independent votes is a lower bound."
    pairs = counted(given_truth["n_verified"], "verified pair")
    correlated = f" (correlation {given_truth['error_correlation']:.2f})" if "error_correlation" in given_truth else ""
    caption += (
        f"independent votes from it, {at_least}, is a lower bound; the title counts shared errors alone{correlated}"
    )
    return worth(ensemble), f"{caption}, on {pairs}."


def strengths(facts: Facts) -> Chart | None:
    """Histogram of strength_mean, stacked by kind."""
    strength = facts.get("strength")
    if strength is None:
        return None
    edges = strength["histogram"]["edges"]
    middles = [round((low + high) / 2, 6) for low, high in pairwise(edges)]
    bars = [
        {
            "type": "bar",
            "name": kind,
            "x": middles,
            "y": counts,
            "marker": {"color": KIND_COLOURS[kind], "line": {"width": 0}},
            "hovertemplate": "%{y} pairs<extra>" + kind + "</extra>",
        }
        for kind, counts in strength["histogram"]["counts"].items()
        if any(counts)
    ]
    design = layout(
        barmode="stack",
        bargap=0.06,
        xaxis=axis(STRENGTH_UNIT, showgrid=False),
        yaxis=axis("pairs"),
        shapes=[line(x=0)],
        legend=legend(),
    )
    against = strength["against"]
    share = percent(against["n_pairs"] / against["n_judged"]) if against["n_judged"] else "none"
    title = f"Votes go against {share} of the labels"
    caption = (
        "Left of zero the ensemble prefers the response that was rejected. "
        "The outermost bars also hold everything beyond them."
    )
    return Chart("chart-strength", title, caption, {"data": bars, "layout": design}, 380)


def spread(facts: Facts) -> Chart | None:
    """Mean against spread of the votes, one point per sampled pair, coloured by kind."""
    strength = facts.get("strength")
    if strength is None:
        return None
    sample = strength["scatter"]
    widest, highest = frame(sample)
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": kind,
            "x": points["mean"],
            "y": points["std"],
            "marker": {"color": KIND_COLOURS[kind], "size": 5, "opacity": 0.65},
            "hovertemplate": "mean %{x:.2f}, spread %{y:.2f}<extra>" + kind + "</extra>",
        }
        for kind, points in sample["points"].items()
        if points["mean"]
    ]
    design = layout(
        xaxis=axis(STRENGTH_UNIT, range=[-widest, widest]),
        yaxis=axis("strength_std (same unit)", range=[0, highest]),
        shapes=[line(x=0)],
        legend=legend(),
    )
    kinds = strength["kinds"]
    title = (
        f"{counted(kinds['wrong'], 'label looks', 'labels look')} wrong, "
        f"{counted(kinds['hard'], 'pair splits', 'pairs split')} the members"
    )
    drawn = "every pair" if sample["n_points"] == sample["n_pairs"] else f"{count(sample['n_points'])} pairs"
    caption = (
        f"Each dot is a pair ({drawn}, evenly spaced by rank; the farthest lie outside the frame). "
        "Low and left: the members agree against the label. High: they disagree."
    )
    return Chart("chart-spread", title, caption, {"data": traces, "layout": design}, 420)


def frame(sample: Facts) -> tuple[float, float]:
    """The largest |mean| and the largest spread that a frame needs to show nearly all points, with some room."""
    means = sorted(abs(mean) for points in sample["points"].values() for mean in points["mean"])
    spreads = sorted(std for points in sample["points"].values() for std in points["std"])
    if not means:
        return 1.0, 1.0
    last = int(SHOWN_SHARE * (len(means) - 1))
    return round(1.05 * max(means[last], 0.1), 3), round(1.05 * max(spreads[last], 0.1), 3)


def slice_accuracy(way: Facts, i: int) -> Chart | None:
    """Agreement with the labels in each part of the data, beside the length null of that part."""
    parts = [part for part in way["parts"] if "accuracy" in part]
    if len(parts) < 2:
        return None
    parts = sorted(parts, key=lambda part: (part["accuracy"]["value"], part["name"]))
    names = [label(part["name"]) for part in parts]
    names = [name if names.count(name) == 1 else f"{name} ({n})" for n, name in enumerate(names, start=1)]
    null = dots("length alone", [100 * part["length_null"] for part in parts], names)
    votes = estimates(
        "ensemble", [(name, part["accuracy"]) for name, part in zip(names, parts, strict=True)], "@accent"
    )
    design = layout(
        xaxis=axis("labels agreed with (%)"),
        yaxis=axis("", automargin=True, showgrid=False, type="category"),
        shapes=[line(x=50)],
        legend=legend(),
    )
    best, worst = parts[-1], parts[0]
    title = (
        f"By {way['by']}: from {percent(worst['accuracy']['value'])} on {worst['name']} "
        f"to {percent(best['accuracy']['value'])} on {best['name']}"
    )
    caption = "Filled: ensemble, with its 95 % interval where there are enough prompts. Hollow: preferring the longer response."
    return Chart(f"chart-slice-{i}", title, caption, {"data": [null, votes], "layout": design}, 130 + 26 * len(parts))

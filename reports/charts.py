"""The facts as plotly figures: plain JSON, with colour names in place of colours so that the page can be light or dark.

A figure says one thing, and its title is that thing. A colour written as `@name` is replaced on the page by the style
sheet's `--name`. Text that comes from the data is escaped, because plotly reads tags and links in labels.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor

from reports.marks import Facts, Figure, axis, band, dots, estimates, label, layout, legend, line, note
from reports.numbers import count, counted, decimal, percent

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


@dataclass(frozen=True)
class Chart:
    """A figure with its fixed id, the title that states its message, and a caption that says how to read it."""

    id: str
    title: str
    caption: str
    figure: Figure
    height: int  # pixels


def charts(facts: Facts) -> dict[str, Chart]:
    """Every chart that the facts allow, by id; a chart of a part that was not computed is missing."""
    made = [
        accuracy(facts),
        clear_errors(facts),
        reliability(facts),
        correlation(facts),
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


def clear_errors(facts: Facts) -> Chart | None:
    """The error rate among clear pairs as a curve over the top share, with its band."""
    clear = facts.get("clear_errors")
    if clear is None:
        return None
    curve = clear["curve"]
    shares = [100 * point["top_share"] for point in curve]
    area = band(shares, [100 * point["low"] for point in curve], [100 * point["high"] for point in curve])
    numbers = [counted(point["n_pairs"], "pair") for point in curve]
    curve_line = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": shares,
        "y": [100 * point["rate"] for point in curve],
        "text": numbers,
        "hovertemplate": "clearest %{x:g} %: %{y:.1f} % contradicted<br>%{text}<extra></extra>",
        "line": {"color": "@accent", "width": 2.5},
        "marker": {"color": "@accent", "size": 7},
    }
    design = layout(
        xaxis=axis(
            "clearest pairs (% of all, log scale)",
            type="log",
            tickvals=shares,
            ticktext=[f"{share:g}" for share in shares],
        ),
        yaxis=axis("labels contradicted (%)", rangemode="tozero"),
        showlegend=False,
    )
    point = next((point for point in curve if point["top_share"] >= 0.05), curve[0])
    title = (
        f"Among the clearest {percent(point['top_share'], 0)}, votes contradict {percent(point['rate'])} of the labels"
    )
    caption = "Clearest first: pairs with the largest mean difference, whichever way. The band is the 95 % interval."
    return Chart("chart-clear", title, caption, {"data": [*area, curve_line], "layout": design}, 340)


def reliability(facts: Facts) -> Chart | None:
    """Predicted agreement with the given label against how often labels did agree."""
    agreement = facts.get("agreement")
    if agreement is None:
        return None
    curve = agreement["curve"]
    observed = [100 * point["observed"] for point in curve]
    low = 10 * floor(10 * min(min(point["low"], point["mean_predicted"]) for point in curve))
    high = 10 * ceil(10 * max(max(point["high"], point["mean_predicted"]) for point in curve))
    points = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [100 * point["mean_predicted"] for point in curve],
        "y": observed,
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [100 * (point["high"] - point["observed"]) for point in curve],
            "arrayminus": [100 * (point["observed"] - point["low"]) for point in curve],
            "color": "@accent",
            "thickness": 1.5,
            "width": 0,
        },
        "hovertemplate": "predicted %{x:.1f} %, observed %{y:.1f} %<extra></extra>",
        "line": {"color": "@accent", "width": 2},
        "marker": {"color": "@accent", "size": 7},
    }
    ideal = {
        "type": "scatter",
        "mode": "lines",
        "x": [low, high],
        "y": [low, high],
        "hoverinfo": "skip",
        "line": {"color": "@muted", "width": 1, "dash": "dot"},
    }
    design = layout(
        xaxis=axis("predicted agreement (%)", range=[low, high]),
        yaxis=axis("observed agreement (%)", range=[low, high]),
        showlegend=False,
    )
    title = "How often another label would agree: predicted against observed"
    if "ece" in agreement:
        title = f"Predicted agreement is off by {decimal(100 * agreement['ece'], 1)} points on average"
    caption = "On the dotted line, predictions come true. Ten bins of equally many pairs, sides randomised."
    return Chart("chart-agreement", title, caption, {"data": [ideal, points], "layout": design}, 340)


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
    title = "How alike the members vote"
    if "effective_votes" in ensemble:
        members = counted(len(matrix), "member")
        title = f"{members} vote like {ensemble['effective_votes']:.1f} independent ones, at least"
    caption = (
        "Correlation of the members' differences. Shared signal counts as shared error here, "
        "so the number of independent votes is a lower bound."
    )
    return Chart("chart-correlation", title, caption, {"data": [cells], "layout": design}, 340)


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

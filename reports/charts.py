"""The facts as plotly figures: plain JSON, with colour names in place of colours so that the page can be light or dark.

A figure says one thing, and its title is that thing. A colour written as `@name` is replaced on the page by the style
sheet's `--name`. Text that comes from the data is escaped, because plotly reads tags and links in labels.
"""

from reports import data_charts, guarantee_charts, policy_charts, reliability_charts, strength_charts
from reports.marks import Chart, Facts, axis, different, dots, estimates, layout, legend, line, note, short
from reports.members import worth
from reports.numbers import counted, percent

MOST_NUMBERED = 12  # members; with more, the numbers in the cells would not fit


def charts(facts: Facts) -> dict[str, Chart]:
    """Every chart that the facts allow, by id; a chart of a part that was not computed is missing."""
    made = [
        accuracy(facts),
        data_charts.biases(facts),
        data_charts.lengths(facts),
        data_charts.annotators(facts),
        reliability_charts.clear_errors(facts),
        reliability_charts.label_prob(facts),
        reliability_charts.agreement(facts),
        correlation(facts),
        policy_charts.policies(facts),
        guarantee_charts.certified_flips(facts),
        guarantee_charts.kept(facts),
        strength_charts.strengths(facts),
        strength_charts.spread(facts),
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


def slice_accuracy(way: Facts, i: int) -> Chart | None:
    """Agreement with the labels in each part of the data, beside the length null of that part."""
    parts = [part for part in way["parts"] if "accuracy" in part]
    if len(parts) < 2:
        return None
    parts = sorted(parts, key=lambda part: (part["accuracy"]["value"], part["name"]))
    names = different(part["name"] for part in parts)
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
        f"By {way['by']}: from {percent(worst['accuracy']['value'])} on {short(worst['name'])} "
        f"to {percent(best['accuracy']['value'])} on {short(best['name'])}"
    )
    caption = "Filled: ensemble, with its 95 % interval where there are enough prompts. Hollow: preferring the longer response."
    return Chart(f"chart-slice-{i}", title, caption, {"data": [null, votes], "layout": design}, 130 + 26 * len(parts))

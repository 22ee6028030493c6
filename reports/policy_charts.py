"""What each policy would do to the pairs, as a figure."""

from reports.marks import Chart, Facts, Figure, axis, different, layout, legend, short
from reports.numbers import count, percent

ACTION_COLOURS = {"keep": "@easy", "smooth": "@doubt", "flip": "@split", "drop": "@accent"}


def policies(facts: Facts) -> Chart | None:
    """The share of pairs that each policy keeps, smooths, flips and drops, the one that decided on top."""
    rows = facts.get("policies")
    if not rows:
        return None
    names = different(f"{row['name']} (chosen)" if row["is_chosen"] else row["name"] for row in rows)
    bars = [_bar(action, rows, names) for action in ACTION_COLOURS if any(row["counts"][action] for row in rows)]
    design = layout(
        barmode="stack",
        bargap=0.35,
        xaxis=axis("pairs (%)", range=[0, 100], showgrid=False),
        yaxis=axis("", automargin=True, showgrid=False, type="category", autorange="reversed"),
        legend=legend(),
    )
    caption = (
        "Every policy that comes with prefcurate and that this run can serve. What they do to the margin in the loss is not "
        "shown. Which one helps is measured by a retrain, not by what it keeps."
    )
    height = 130 + 34 * len(rows)
    return Chart("chart-policies", _title(rows), caption, {"data": bars, "layout": design}, height)


def _bar(action: str, rows: list[Facts], names: list[str]) -> Figure:
    return {
        "type": "bar",
        "orientation": "h",
        "name": action,
        "x": [100 * row["shares"][action] for row in rows],
        "y": names,
        "text": [f"{count(row['counts'][action])} pairs" for row in rows],
        "textposition": "none",
        "marker": {"color": ACTION_COLOURS[action], "line": {"width": 0}},
        "hovertemplate": "%{x:.1f} %, %{text}<extra>" + action + "</extra>",
    }


def _title(rows: list[Facts]) -> str:
    own, *others = rows
    title = f"Policy {short(own['name'])} keeps {percent(own['shares']['keep'])} of the labels as they are"
    if not others:
        return title
    kept = [row["shares"]["keep"] for row in others]
    return f"{title}, others {percent(min(kept))} to {percent(max(kept))}"

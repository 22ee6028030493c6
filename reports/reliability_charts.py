"""How far the numbers can be believed, as figures: errors among clear pairs, and predictions against what happened."""

from math import ceil, floor

from reports.marks import Chart, Facts, Figure, axis, band, curve, layout
from reports.numbers import counted, decimal, percent


def clear_errors(facts: Facts) -> Chart | None:
    """The error rate among clear pairs as a curve over the top share, with its band."""
    clear = facts.get("clear_errors")
    if clear is None:
        return None
    points = clear["curve"]
    shares = [100 * point["top_share"] for point in points]
    area = band(shares, [100 * point["low"] for point in points], [100 * point["high"] for point in points])
    drawn = curve(
        shares,
        [100 * point["rate"] for point in points],
        [counted(point["n_pairs"], "pair") for point in points],
        "clearest %{x:g} %: %{y:.1f} % contradicted<br>%{text}",
    )
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
    point = next((point for point in points if point["top_share"] >= 0.05), points[0])
    title = (
        f"Among the clearest {percent(point['top_share'], 0)}, votes contradict {percent(point['rate'])} of the labels"
    )
    caption = "Clearest first: pairs with the largest mean difference, whichever way. The band is the 95 % interval."
    return Chart("chart-clear", title, caption, {"data": [*area, drawn], "layout": design}, 340)


def label_prob(facts: Facts) -> Chart | None:
    """label_prob of the verified pairs against how many of their labels were right."""
    found = facts.get("label_prob", {}).get("reliability")
    if found is None:
        return None
    title = f"On verified pairs, label_prob is off by {decimal(100 * found['ece']['value'], 1)} points on average"
    bins = len(found["curve"])
    caption = (
        f"On the dotted line, predictions come true. {counted(found['n_pairs'], 'verified pair')} in "
        f"{counted(bins, 'bin')}, each pair judged by a fit that has not seen its prompt. Bands are 95 % intervals over prompts."
    )
    figure = _reliability(found["curve"], "label_prob (%)", "labels that are right (%)")
    return Chart("chart-label-prob", title, caption, figure, 340)


def agreement(facts: Facts) -> Chart | None:
    """Predicted agreement with the given label against how often labels did agree."""
    found = facts.get("agreement")
    if found is None:
        return None
    title = f"Predicted agreement is off by {decimal(100 * found['ece']['value'], 1)} points on average"
    caption = (
        "How often would another label agree? On the dotted line, predictions come true. "
        f"{counted(len(found['curve']), 'bin')} of equally many pairs, sides randomised. Bands are 95 % intervals over prompts."
    )
    figure = _reliability(found["curve"], "predicted agreement (%)", "observed agreement (%)")
    return Chart("chart-agreement", title, caption, figure, 340)


def _reliability(points: list[Facts], predicted: str, observed: str) -> Figure:
    """Observed against predicted with its band; bars too, because a band around a single bin cannot be seen."""
    low = 10 * floor(10 * min(min(point["low"], point["mean_predicted"]) for point in points))
    high = 10 * ceil(10 * max(max(point["high"], point["mean_predicted"]) for point in points))
    x, y = ([100 * point[name] for point in points] for name in ("mean_predicted", "observed"))
    below, above = ([100 * point[name] for point in points] for name in ("low", "high"))
    sizes = [counted(point["n_pairs"], "pair") for point in points]
    drawn = curve(x, y, sizes, "predicted %{x:.1f} %, observed %{y:.1f} %<br>%{text}")
    drawn["error_y"] = {
        "type": "data",
        "symmetric": False,
        "array": [top - middle for top, middle in zip(above, y, strict=True)],
        "arrayminus": [middle - bottom for bottom, middle in zip(below, y, strict=True)],
        "color": "@accent",
        "thickness": 1.5,
        "width": 0,
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
        xaxis=axis(predicted, range=[low, high]),
        yaxis=axis(observed, range=[low, high]),
        showlegend=False,
    )
    return {"data": [ideal, *band(x, below, above), drawn], "layout": design}

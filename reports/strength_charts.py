"""How the strengths lie, as figures: a histogram of the mean, for all pairs or a part of them, and mean against spread."""

from collections.abc import Iterable
from itertools import pairwise

from reports.marks import Chart, Choice, Facts, axis, layout, legend, line, short
from reports.numbers import count, counted, percent

STRENGTH_UNIT = "strength_mean (median difference = 1)"
SHOWN_SHARE = 0.995  # the farthest points would make the frame so wide that nothing can be seen in it

KIND_COLOURS = {
    "wrong": "@accent",
    "ambiguous": "@doubt",
    "hard": "@split",
    "normal": "@normal",
    "easy": "@easy",
}


def strengths(facts: Facts) -> Chart | None:
    """Histogram of strength_mean, stacked by kind, of all pairs or of one part of them."""
    strength = facts.get("strength")
    if strength is None:
        return None
    edges, counts = strength["histogram"]["edges"], strength["histogram"]["counts"]
    middles = [round((low + high) / 2, 6) for low, high in pairwise(edges)]
    kinds = [kind for kind in counts if any(counts[kind])]
    bars = [
        {
            "type": "bar",
            "name": kind,
            "x": middles,
            "y": counts[kind],
            "marker": {"color": KIND_COLOURS[kind], "line": {"width": 0}},
            "hovertemplate": "%{y} pairs<extra>" + kind + "</extra>",
        }
        for kind in kinds
    ]
    design = layout(
        barmode="stack",
        bargap=0.06,
        xaxis=axis(STRENGTH_UNIT, showgrid=False),
        yaxis=axis("pairs"),
        shapes=[line(x=0)],
        legend=legend(),
    )
    caption = (
        "Left of zero the ensemble prefers the response that was rejected. "
        "The outermost bars also hold everything beyond them."
    )
    choices = part_choices(strength, kinds)
    title = choices[0].title
    shown = choices if len(choices) > 1 else ()
    return Chart("chart-strength", title, caption, {"data": bars, "layout": design}, 380, shown)


def part_choices(strength: Facts, kinds: list[str]) -> tuple[Choice, ...]:
    """All pairs, and each part that has a histogram, with the pairs of each kind."""
    against = strength["against"]
    share = percent(against["n_pairs"] / against["n_judged"]) if against["n_judged"] else "none"
    whole = Choice(
        f"all {counted(sum(strength['kinds'].values()), 'pair')}",
        f"Votes go against {share} of the labels",
        [strength["histogram"]["counts"][kind] for kind in kinds],
    )
    return (whole, *(_part_choice(part, kinds) for part in strength.get("histograms", [])))


def _part_choice(part: Facts, kinds: list[str]) -> Choice:
    share = percent(part["n_against"] / part["n_judged"]) if part["n_judged"] else "none"
    return Choice(
        f"{part['by']}: {short(part['name'])}, {counted(part['n_pairs'], 'pair')}",
        f"On {short(part['name'])}, votes go against {share} of the labels",
        [part["counts"][kind] for kind in kinds],
    )


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
    points = sample["points"].values()
    return reach([mean for kind in points for mean in kind["mean"]]), reach(
        [std for kind in points for std in kind["std"]]
    )


def reach(values: Iterable[float]) -> float:
    """How far from zero a frame must reach to show nearly all of these values, with some room; 1 where there are none.

    >>> reach([-2.0, 1.0]), reach([])
    (2.1, 1.0)
    """
    sizes = sorted(map(abs, values))
    return round(1.05 * max(sizes[round(SHOWN_SHARE * (len(sizes) - 1))], 0.1), 3) if sizes else 1.0

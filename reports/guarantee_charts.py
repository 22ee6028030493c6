"""What verified pairs certify, as figures: flips by the share that may be wrong, and what is kept against what is wrong."""

from reports.marks import Chart, Facts, axis, band, curve, layout, level, level_note, line, note
from reports.numbers import counted, percent, short_percent


def certified_flips(facts: Facts) -> Chart | None:
    """How many flips each share that may be wrong would certify, with the chosen share marked."""
    guarantee = facts.get("decisions", {}).get("guarantee")
    if guarantee is None:
        return None
    flips = guarantee["flips"]
    points, chosen = flips["curve"], 100 * flips["max_wrong"]
    most = max(point["n_flips"] for point in points)
    drawn = curve(
        [100 * point["max_wrong"] for point in points],
        [point["n_flips"] for point in points],
        [counted(point["n_flips"], "flip") for point in points],
        "at most %{x:g} % wrong: %{text}",
    )
    sizes = [12 if point["max_wrong"] == flips["max_wrong"] else 7 for point in points]
    drawn["marker"] |= {"size": sizes, "opacity": 1, "line": {"width": 0}}  # plotly fades dots of several sizes
    design = layout(
        xaxis=axis("flips that may be wrong (%)", rangemode="tozero"),
        yaxis=axis("flips certified", **({"rangemode": "tozero"} if most else {"range": [0, 1], "tickvals": [0]})),
        showlegend=False,
        shapes=[line(x=chosen)],
        annotations=[note("asked for" if guarantee["is_asked"] else "default", x=chosen)],
    )
    caption = (
        f"How many of {counted(flips['n_tested'], 'label')} could be flipped if that share of the flips may be wrong on average. "
        "The guarantee is for a share that is chosen before looking at this curve."
    )
    return Chart("chart-certified", _flips_title(guarantee), caption, {"data": [drawn], "layout": design}, 340)


def _flips_title(guarantee: Facts) -> str:
    flips = guarantee["flips"]
    asked = short_percent(flips["max_wrong"])
    first = next((point["max_wrong"] for point in flips["curve"] if point["n_flips"]), None)
    if flips["n_flips"]:
        are = ("is" if flips["n_flips"] == 1 else "are") if guarantee["is_asked"] else "could be"
        return f"{counted(flips['n_flips'], 'flip')} {are} certified, on average at most {asked} of them wrong"
    if first is None:
        return f"No flip can be certified, even where {short_percent(flips['curve'][-1]['max_wrong'])} may be wrong"
    return f"No flip can be certified at {asked} wrong, the first ones at {short_percent(first)}"


def kept(facts: Facts) -> Chart | None:
    """How much of what is kept is wrong, strongest pairs first, with the bound that holds with 90 % confidence."""
    found = facts.get("decisions", {}).get("guarantee", {}).get("kept")
    points = [point for point in found["curve"] if point["wrong_share"] is not None] if found else []
    if found is None or not points:
        return None
    shares, wrong, at_most = (
        [100 * point[name] for point in points] for name in ("kept_share", "wrong_share", "at_most")
    )
    drawn = curve(
        shares,
        wrong,
        [f"at most {point['at_most']:.1%}, {counted(point['n_verified'], 'verified pair')}" for point in points],
        "strongest %{x:g} %: %{y:.1f} % wrong<br>%{text}",
    )
    bound = {
        "type": "scatter",
        "mode": "lines",
        "x": shares,
        "y": at_most,
        "hoverinfo": "skip",
        "line": {"color": "@accent", "width": 1, "dash": "dash"},
    }
    shapes, notes = _asked(found)
    design = layout(
        xaxis=axis("pairs kept, strongest first (%)", range=[0, 102]),
        yaxis=axis("wrong labels among them (%)", rangemode="tozero"),
        showlegend=False,
        shapes=shapes,
        annotations=notes,
    )
    caption = (
        "Of the pairs that are not verified. Line: wrong labels among verified pairs that are as strong. "
        "Dashed: the upper bound that holds with 90 % confidence at each share."
    )
    data = [*band(shares, wrong, at_most), bound, drawn]
    return Chart("chart-kept", _kept_title(found, points), caption, {"data": data, "layout": design}, 340)


def _asked(found: Facts) -> tuple[list[Facts], list[Facts]]:
    """Lines and words at the share that may be wrong and at what is then kept."""
    if "n_kept" not in found:
        return [], []
    asked, share = 100 * found["max_wrong"], 100 * found["n_kept"] / found["n_tested"]
    return [level(asked), line(share)], [level_note("asked for", asked), note("kept", share)]


def _kept_title(found: Facts, points: list[Facts]) -> str:
    if "n_kept" not in found:
        half = min(points, key=lambda point: abs(point["kept_share"] - 0.5))
        wrong, most = percent(half["wrong_share"]), percent(points[-1]["wrong_share"])
        share = percent(half["kept_share"], 0)
        return f"Among verified pairs, {wrong} of the strongest {share} are wrong, {most} of all"
    asked = short_percent(found["max_wrong"])
    if not found["n_kept"]:
        return f"No pair can be kept if at most {asked} may be wrong"
    share = percent(found["n_kept"] / found["n_tested"], 0)
    surely = "none" if not found["n_kept_surely"] else percent(found["n_kept_surely"] / found["n_tested"], 0)
    return f"{share} can be kept with at most {asked} wrong on average, {surely} with 90 % confidence"

"""What is wrong with the data, as figures: what the labels prefer, how long the pairs are, how its annotators agree."""

from curate.check_lengths import LIMITS
from reports.findings import SCORES, in_words
from reports.marks import Chart, Facts, Figure, axis, different, estimates, layout, legend, line, note, short
from reports.numbers import count, counted, percent

LONGEST_MEANING = 90  # characters in a title; one that names a column of the data can have any length
TRL_LIMIT = 1024  # the default of trl's RewardTrainer
ROW = 26  # pixels
HISTOGRAM = 190  # pixels
SEVERITIES = {"none": ("within chance", "@muted"), "note": ("note", "@easy"), "warning": ("warning", "@accent")}


def biases(facts: Facts) -> Chart | None:
    """What the labels as a whole prefer, each share with its interval beside its null."""
    rows = [row for row in facts.get("checks", {}).get("biases", []) if row["name"] not in SCORES]
    if not rows:
        return None
    rows = sorted(rows, key=lambda row: abs(row["value"] - row["null"]))
    names = different(in_words(row["name"]) for row in rows)
    named = list(zip(names, rows, strict=True))
    nulls = {
        "type": "scatter",
        "mode": "markers",
        "name": "null",
        "x": [100 * row["null"] for row in rows],
        "y": names,
        "marker": {"color": "@muted", "size": 12, "symbol": "line-ns-open", "line": {"width": 2}},
        "hovertemplate": "%{x:.0f} % where there is nothing to find<extra></extra>",
    }
    found = {severity: [(n, row) for n, row in named if row["severity"] == severity] for severity in SEVERITIES}
    traces = [
        nulls,
        *(estimates(name, found[each], colour) for each, (name, colour) in SEVERITIES.items() if found[each]),
    ]
    design = layout(
        xaxis=axis("pairs (%)"),
        yaxis=axis("", automargin=True, showgrid=False, type="category", categoryorder="array", categoryarray=names),
        legend=legend(),
    )
    caption = (
        "Pairs in which the label prefers that side or, for a shortcut, is predicted right. Lines are 95 % intervals over "
        "prompts; the stroke is the null, the value where there is nothing to find."
    )
    figure = {"data": traces, "layout": design}
    return Chart("chart-biases", _strongest(rows), caption, figure, 130 + ROW * len(rows))


def _strongest(rows: list[Facts]) -> str:
    """In words the finding that lies farthest from its null, of those whose interval does not include it."""
    clear = [row for row in rows if not row["low"] <= row["null"] <= row["high"]]
    if not clear:
        return "No preference of the labels is clear: every interval includes its null"
    row = max(clear, key=lambda row: abs(row["value"] - row["null"]))
    meaning = row["meaning"].rstrip(".").split(",")[0]
    meaning = meaning if len(meaning) < LONGEST_MEANING else short(meaning)
    only = "only " if row["value"] < row["null"] else ""
    return f"{meaning} in {only}{percent(row['value'])} of {counted(row['n_pairs'], 'pair')}"


def lengths(facts: Facts) -> Chart | None:
    """How many pairs are longer than each limit at which trainers drop them; None where none is."""
    checked = facts.get("checks", {})
    over = {limit: checked.get(f"n_over_{limit}_tokens", 0) for limit in LIMITS}
    if not any(over.values()):
        return None
    n_pairs = facts["data"]["n_pairs"]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [100 * n / n_pairs for n in over.values()],
        "y": [f"{count(limit)} tokens" for limit in LIMITS],
        "text": [counted(n, "pair") for n in over.values()],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": "@easy", "line": {"width": 0}},
        "hovertemplate": "%{x:.2f} %, %{text}<extra>longer than %{y}</extra>",
    }
    design = layout(
        bargap=0.35,
        showlegend=False,
        xaxis=axis("pairs dropped (%)", range=[0, 125], tickvals=[0, 20, 40, 60, 80, 100]),  # room for the counts
        yaxis=axis("", automargin=True, type="category", showgrid=False, autorange="reversed"),
    )
    title = (
        f"With a limit of {count(TRL_LIMIT)} tokens a trainer drops {percent(over[TRL_LIMIT] / n_pairs)} of the pairs"
    )
    caption = (
        "Prompt and longer response together, in tokens of the judge's backbone and without a chat template; "
        f"{count(TRL_LIMIT)} is TRL's default. Another model counts somewhat differently."
    )
    return Chart("chart-lengths", title, caption, {"data": [bars], "layout": design}, 200)


def annotators(facts: Facts) -> Chart | None:
    """How often annotators agree with all the others: how many at each level, and those in doubt with their intervals."""
    people = facts.get("annotators", {})
    doubtful, counts = people.get("doubtful", []), people.get("distribution", [])
    if not doubtful and not any(counts):
        return None
    names = different(row["annotator"] for row in doubtful)
    rows = [row | {"value": row["agreement"], "n_pairs": row["n_votes"]} for row in doubtful]
    dots = {**estimates("in doubt", list(zip(names, rows, strict=True))[::-1], "@accent"), "yaxis": "y2"}
    traces = ([_distribution(counts)] if any(counts) else []) + ([dots] if names else [])
    lines = {"coin toss": 50, **({"all votes": 100 * people["agreement"]} if "agreement" in people else {})}
    height = ROW * len(names)
    dots_end = height / (height + HISTOGRAM) if any(counts) else 1.0
    design = layout(
        bargap=0.08,
        xaxis=axis("agrees with the others (%)", range=[0, 100], anchor="y2" if names else "y", showgrid=False),
        yaxis=axis("annotators", domain=[dots_end + 0.04 if names and any(counts) else 0, 1], rangemode="tozero"),
        yaxis2=axis("", automargin=True, type="category", domain=[0, max(dots_end - 0.04, 0.1)]),
        showlegend=False,
        shapes=[line(x=x) for x in lines.values()],
        annotations=[note(text, x=x) for text, x in lines.items()],
    )
    caption = (
        f"{'Bars: all' if any(counts) else 'Of'} {counted(people['n_judged'], 'annotator')} with at least ten votes. "
        f"{'Dots: those in doubt, with 95 % intervals. ' if names else ''}"
        "The others are the ensemble and everyone else who voted on the pair."
    )
    figure = {"data": traces, "layout": design}
    return Chart("chart-annotators", _agreement_title(people), caption, figure, height + 250)


def _distribution(counts: list[int]) -> Figure:
    """Bars of the number of annotators in equal bins of their agreement."""
    width = 100 / len(counts)
    return {
        "type": "bar",
        "x": [width * (i + 0.5) for i in range(len(counts))],
        "y": counts,
        "width": [0.92 * width] * len(counts),
        "marker": {"color": "@easy", "line": {"width": 0}},
        "hovertemplate": "%{y} annotators around %{x:.0f} %<extra></extra>",
    }


def _agreement_title(people: Facts) -> str:
    n_doubtful = people["n_reversed"] + people["n_random"]
    who = f"{counted(n_doubtful, 'annotator is', 'annotators are')} in doubt"
    if "agreement" not in people:
        return who
    return f"Annotators agree with the others in {percent(people['agreement'])} of their votes; {who}"

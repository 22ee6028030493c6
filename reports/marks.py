"""What the figures are made of: axes, lines, dots with intervals, in the plotly JSON that `charts` puts together.

A colour written as `@name` is replaced on the page by the style sheet's `--name`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from reports.numbers import counted, interval

Figure = dict[str, Any]
Facts = Mapping[str, Any]

DOTTED = {"type": "line", "layer": "below", "line": {"color": "@muted", "width": 1, "dash": "dot"}}
LONGEST_LABEL = 28  # characters of a category's name on an axis


@dataclass(frozen=True)
class Choice:
    """Other numbers that a figure can show: the name to choose it by, its title, and the heights of each trace."""

    name: str
    title: str
    heights: list[list[int]]


@dataclass(frozen=True)
class Chart:
    """A figure with its fixed id, the title that states its message, and a caption that says how to read it.

    With `choices`, of which the first is what the figure shows, the page lets the reader choose among them.
    """

    id: str
    title: str
    caption: str
    figure: Figure
    height: int  # pixels
    choices: tuple[Choice, ...] = ()


def short(text: str) -> str:
    """A text from the data with its middle left out where it is long.

    >>> short("a name that is far too long for a label")
    'a name that is f…for a label'
    """
    return text if len(text) <= LONGEST_LABEL else f"{text[:16]}…{text[-11:]}"


def label(text: str) -> str:
    """A text from the data as an axis label: short, and with nothing that plotly would read as a tag or a link.

    >>> label("<b>debate</b>")
    '&lt;b&gt;debate&lt;/b&gt;'
    """
    return escape(short(text), quote=False)


def different(names: Iterable[str]) -> list[str]:
    """Axis labels of texts from the data, told apart where they are equal once shortened.

    >>> different(["a", "b", "a"])
    ['a (1)', 'b', 'a (3)']
    """
    labels = [label(name) for name in names]
    return [text if labels.count(text) == 1 else f"{text} ({n})" for n, text in enumerate(labels, start=1)]


def estimates(name: str, rows: Iterable[tuple[str, Facts]], colour: str) -> Figure:
    """A dot and, where there is one, its 95 % interval per row, as percentages."""
    named = list(rows)
    found = [estimate for _, estimate in named]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [100 * estimate["value"] for estimate in found],
        "y": [row for row, _ in named],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [100 * (estimate.get("high", estimate["value"]) - estimate["value"]) for estimate in found],
            "arrayminus": [100 * (estimate["value"] - estimate.get("low", estimate["value"])) for estimate in found],
            "color": colour,
            "thickness": 2.5,
            "width": 0,
        },
        "marker": {"color": colour, "size": 10},
        "text": [_support(estimate) for estimate in found],
        "hovertemplate": "%{x:.1f} %<br>%{text}<extra></extra>",
    }


def _support(estimate: Facts) -> str:
    """The interval and the number of pairs behind an estimate, for its hover text."""
    pairs = counted(estimate["n_pairs"], "pair")
    return f"95 % interval {interval(estimate)}, {pairs}" if "low" in estimate else f"{pairs}, too few prompts"


def dots(name: str, values: list[float], rows: list[str]) -> Figure:
    """Hollow dots without intervals."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": values,
        "y": rows,
        "marker": {"color": "@muted", "size": 8, "symbol": "circle-open", "line": {"width": 1.5}},
        "hovertemplate": "%{x:.1f} %<extra>" + name + "</extra>",
    }


def band(x: list[float], low: list[float], high: list[float]) -> list[Figure]:
    """The area between two curves."""
    edge = {"type": "scatter", "mode": "lines", "x": x, "hoverinfo": "skip", "line": {"width": 0}}
    return [{**edge, "y": low}, {**edge, "y": high, "fill": "tonexty", "fillcolor": "@accent-soft"}]


def curve(x: list[float], y: list[float], texts: list[str], hover: str) -> Figure:
    """A line through its points; `hover` is what a point says, with %{text} for its text."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": x,
        "y": y,
        "text": texts,
        "hovertemplate": f"{hover}<extra></extra>",
        "line": {"color": "@accent", "width": 2.5},
        "marker": {"color": "@accent", "size": 7},
        "cliponaxis": False,
    }


def line(x: float) -> Figure:
    """A vertical line over the full height."""
    return {"x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", **DOTTED}


def level(y: float) -> Figure:
    """A horizontal line over the full width."""
    return {"y0": y, "y1": y, "x0": 0, "x1": 1, "xref": "paper", **DOTTED}


def note(text: str, x: float) -> Figure:
    """A word at the top of a vertical line."""
    place = {"x": x, "y": 1, "yref": "paper", "xanchor": "center", "yanchor": "bottom", "showarrow": False}
    return {**place, "text": text, "font": {"color": "@muted", "size": 12}}


def level_note(text: str, y: float) -> Figure:
    """A word above the left end of a horizontal line."""
    place = {"x": 0, "y": y, "xref": "paper", "xanchor": "left", "yanchor": "bottom", "showarrow": False}
    return {**place, "text": text, "font": {"color": "@muted", "size": 12}}


def axis(title: str, **settings: Any) -> Figure:
    lines = {"gridcolor": "@line", "linecolor": "@line", "tickcolor": "@line", "zeroline": False, "fixedrange": True}
    return {"title": {"text": title, "standoff": 12, "font": {"size": 13}}, "automargin": True, **lines, **settings}


def legend() -> Figure:
    return {
        "orientation": "h",
        "x": 0,
        "xanchor": "left",
        "y": 1.02,
        "yanchor": "bottom",
        "traceorder": "normal",
        "itemsizing": "constant",
    }


def layout(**settings: Any) -> Figure:
    return {
        "font": {"color": "@ink", "size": 13, "family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"bgcolor": "@sheet", "bordercolor": "@line", "font": {"color": "@ink"}},
        "margin": {"l": 16, "r": 16, "t": 28, "b": 16},
        "dragmode": False,
        **settings,
    }

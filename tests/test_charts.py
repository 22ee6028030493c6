"""Every figure is valid plotly, uses colours that the style sheet has, and shows texts of the data as text."""

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from fake_run import fake_run

from reports.charts import Chart, charts
from reports.facts import facts
from reports.marks import label

ALL = {
    *("chart-accuracy", "chart-clear", "chart-agreement", "chart-correlation", "chart-strength", "chart-spread"),
    "chart-slice-0",
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Chart]:
    return charts(facts(fake_run(tmp_path_factory.mktemp("run"))))


def strings(value: Any) -> list[str]:
    """Every string inside a JSON value."""
    if isinstance(value, str):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for item in inside for text in strings(item)]


def test_every_fact_has_its_chart(drawn: dict[str, Chart]) -> None:
    assert set(drawn) == ALL
    assert all(chart.title and chart.caption and chart.height > 100 for chart in drawn.values())


def test_plotly_accepts_every_figure(drawn: dict[str, Chart]) -> None:
    from plotly.graph_objects import Figure

    for chart in drawn.values():
        text = re.sub(r'"@[a-z-]+"', '"#123456"', json.dumps(chart.figure))
        Figure(json.loads(text))  # raises ValueError for a property that plotly does not know


def test_colours_are_defined_for_light_and_dark(drawn: dict[str, Chart]) -> None:
    style = resources.files("reports").joinpath("templates/report.css").read_text(encoding="utf-8")
    light, dark = (block.split("}")[0] for block in style.split(":root {")[1:3])
    used = {text[1:] for chart in drawn.values() for text in strings(chart.figure) if text.startswith("@")}
    assert used
    for name in used:
        assert f"--{name}:" in light and f"--{name}:" in dark


def test_axes_have_titles_with_units(drawn: dict[str, Chart]) -> None:
    for chart in drawn.values():
        assert chart.figure["layout"]["xaxis"]["title"]["text"]


def test_titles_state_the_message(drawn: dict[str, Chart]) -> None:
    assert drawn["chart-accuracy"].title.replace("\u00a0", " ") == (
        "Votes agree with 72.0 % of the labels, the longer response with 55.0 %"
    )
    assert drawn["chart-clear"].title.replace("\u00a0", " ") == (
        "Among the clearest 5 %, votes contradict 4.0 % of the labels"
    )
    assert drawn["chart-correlation"].title == "3 members vote like 1.5 independent ones, at least"


def test_names_from_the_data_are_no_markup_in_a_chart(drawn: dict[str, Chart]) -> None:
    assert not any("<a" in text or "</script" in text for text in strings(drawn["chart-slice-0"].figure))
    assert label('<a href="javascript:x">') == '&lt;a href="javascript:x"&gt;'
    assert label("a" * 20 + "b" * 20) == "a" * 16 + "…" + "b" * 11


def test_parts_that_were_not_computed_have_no_chart(tmp_path: Path) -> None:
    assert charts(facts(fake_run(tmp_path / "a", stages=("load",)))) == {}
    voted = charts(facts(fake_run(tmp_path / "b", stages=("load", "vote"))))
    assert set(voted) == {"chart-accuracy", "chart-correlation"}
    in_sample = charts(facts(fake_run(tmp_path / "c", scoring="in-sample")))
    assert "chart-accuracy" not in in_sample and "chart-slice-0" not in in_sample

"""Every figure is valid plotly, uses colours that the style sheet has, and shows texts of the data as text."""

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from fake_run import ANNOTATOR_FACTS, GUARANTEE, HOSTILE_CATEGORY, fake_finding, fake_run, fake_verified_run

from reports.charts import charts
from reports.data_charts import annotators, biases, lengths
from reports.facts import facts
from reports.guarantee_charts import certified_flips, kept
from reports.marks import Chart, label, short

ALL = {
    *("chart-accuracy", "chart-clear", "chart-agreement", "chart-correlation", "chart-strength", "chart-spread"),
    *("chart-biases", "chart-lengths", "chart-policies", "chart-slice-0"),
}
OF_VERIFIED = {"chart-label-prob", "chart-certified", "chart-kept", "chart-annotators"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Chart]:
    return charts(facts(fake_run(tmp_path_factory.mktemp("run"))))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Chart]:
    return charts(facts(fake_verified_run(tmp_path_factory.mktemp("verified"))))


def strings(value: Any) -> list[str]:
    """Every string inside a JSON value."""
    if isinstance(value, str):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for item in inside for text in strings(item)]


def test_every_fact_has_its_chart(plain: dict[str, Chart], drawn: dict[str, Chart]) -> None:
    assert set(plain) == ALL
    assert set(drawn) == ALL | OF_VERIFIED
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


def titles(found: dict[str, Chart]) -> dict[str, str]:
    return {name: chart.title.replace("\u00a0", " ") for name, chart in found.items()}


def test_titles_state_the_message(plain: dict[str, Chart], drawn: dict[str, Chart]) -> None:
    assert titles(plain)["chart-correlation"] == "3 members vote like 1.5 independent ones, at least"
    assert titles(plain)["chart-lengths"] == "With a limit of 1,024 tokens a trainer drops 5.0 % of the pairs"
    assert titles(plain)["chart-policies"].startswith("Policy auto keeps ")
    said = titles(drawn)
    assert said["chart-accuracy"] == "Votes agree with 72.0 % of the labels, the longer response with 55.0 %"
    assert (
        said["chart-annotators"] == "Annotators agree with the others in 74.0 % of their votes; 1 annotator is in doubt"
    )
    assert said["chart-clear"] == "Among the clearest 5 %, votes contradict 4.0 % of the labels"
    assert said["chart-agreement"] == "Predicted agreement is off by 1.0 points on average"
    assert said["chart-label-prob"] == "On verified pairs, label_prob is off by 2.3 points on average"
    assert said["chart-correlation"] == "3 members vote like 2.2 independent ones, given the truth"
    assert said["chart-certified"] == "7 flips are certified, on average at most 20 % of them wrong"
    assert said["chart-kept"] == "68 % can be kept with at most 10 % wrong on average, 51 % with 90 % confidence"


def certified(is_asked: bool = True, **flips: Any) -> Chart:
    chart = certified_flips({"decisions": {"guarantee": {"is_asked": is_asked, "flips": GUARANTEE["flips"] | flips}}})
    assert chart is not None
    return chart


def test_the_chart_of_flips_marks_the_chosen_share() -> None:
    chart = certified()
    assert [shape["x0"] for shape in chart.figure["layout"]["shapes"]] == [20]
    assert [note["text"] for note in chart.figure["layout"]["annotations"]] == ["asked for"]
    assert chart.figure["data"][0]["y"] == [0, 2, 7, 11]
    assert certified(is_asked=False).figure["layout"]["annotations"][0]["text"] == "default"


def test_the_chart_of_flips_says_where_none_is_certified() -> None:
    none_here = certified(max_wrong=0.05, n_flips=0).title.replace("\u00a0", " ")
    assert none_here == "No flip can be certified at 5 % wrong, the first ones at 10 %"
    curve = [{"max_wrong": q, "n_flips": 0} for q in (0.05, 0.4)]
    nowhere = certified(max_wrong=0.05, n_flips=0, curve=curve)
    assert nowhere.title.replace("\u00a0", " ") == "No flip can be certified, even where 40 % may be wrong"
    assert nowhere.figure["layout"]["yaxis"]["range"] == [0, 1]


def test_the_chart_of_kept_pairs_leaves_out_what_no_verified_pair_tells() -> None:
    found = {"n_tested": 59, "curve": GUARANTEE["kept"]["curve"]}
    chart = kept({"decisions": {"guarantee": {"kept": found}}})
    assert chart is not None
    assert chart.title.replace("\u00a0", " ") == (
        "Among verified pairs, 0.0 % of the strongest 50 % are wrong, 15.0 % of all"
    )
    assert chart.figure["data"][-1]["x"] == [50, 100]
    assert "shapes" not in chart.figure["layout"] or chart.figure["layout"]["shapes"] == []
    nothing = {**found, "curve": found["curve"][:1]}
    assert kept({"decisions": {"guarantee": {"kept": nothing}}}) is None


def test_the_chart_of_kept_pairs_says_where_nothing_can_be_kept() -> None:
    found = GUARANTEE["kept"] | {"n_kept": 0, "n_kept_surely": 0}
    chart = kept({"decisions": {"guarantee": {"kept": found}}})
    assert chart is not None
    assert chart.title.replace("\u00a0", " ") == "No pair can be kept if at most 10 % may be wrong"


def test_names_from_the_data_are_no_markup_in_a_chart(drawn: dict[str, Chart]) -> None:
    assert not any("<a" in text or "</script" in text for text in strings(drawn["chart-slice-0"].figure))
    assert label('<a href="javascript:x">') == '&lt;a href="javascript:x"&gt;'
    assert label("a" * 20 + "b" * 20) == "a" * 16 + "…" + "b" * 11


def finding(name: str, value: float, half_width: float) -> dict[str, Any]:
    return {**fake_finding(name, "note", value, half_width), "meaning": f"The label prefers {name}, if any."}


def test_every_bias_is_drawn_whatever_its_severity() -> None:
    rows = [fake_finding(f"{severity}_bias", severity, 0.5, 0.1) for severity in ("none", "note", "warning")]
    chart = biases({"checks": {"biases": rows}})
    assert chart is not None
    null, *drawn = chart.figure["data"]
    assert (
        sorted(row for trace in drawn for row in trace["y"])
        == sorted(null["y"])
        == ["none bias", "note bias", "warning bias"]
    )


def test_the_chart_of_biases_tells_the_farthest_of_those_that_are_clear() -> None:
    rows = [finding("lists", 0.3, 0.25), finding("bold", 0.6, 0.05), finding("code", 0.45, 0.02)]
    chart = biases({"checks": {"biases": rows}})
    assert chart is not None
    assert chart.title.replace("\u00a0", " ") == "The label prefers bold in 60.0 % of 119 pairs"
    unclear = biases({"checks": {"biases": rows[:1]}})
    assert unclear is not None and unclear.title.startswith("No preference of the labels is clear")
    nulls, notes = chart.figure["data"]
    assert nulls["x"] == [50, 50, 50]
    assert notes["y"] == ["code", "bold", "lists"]
    assert biases({"checks": {"biases": []}}) is None
    assert biases({"checks": {"biases": [fake_finding("annotator_agreement", "note", 0.4, 0.1, null=0.0)]}}) is None


def test_lengths_that_no_trainer_drops_have_no_chart() -> None:
    none = {f"n_over_{limit}_tokens": 0 for limit in (512, 1024, 2048)}
    assert lengths({"checks": none, "data": {"n_pairs": 10}}) is None
    chart = lengths({"checks": none | {"n_over_512_tokens": 4}, "data": {"n_pairs": 10}})
    assert chart is not None
    assert chart.figure["data"][0]["x"] == [40, 0, 0] and chart.figure["data"][0]["text"][0] == "4 pairs"


def test_annotators_without_doubt_or_without_a_distribution_have_half_a_chart() -> None:
    everyone = annotators({"annotators": ANNOTATOR_FACTS | {"doubtful": [], "n_reversed": 0}})
    assert everyone is not None
    assert [trace["type"] for trace in everyone.figure["data"]] == ["bar"]
    old = annotators({"annotators": {n: fact for n, fact in ANNOTATOR_FACTS.items() if n != "distribution"}})
    assert old is not None
    assert [trace["type"] for trace in old.figure["data"]] == ["scatter"]
    assert annotators({}) is None


def test_the_histogram_offers_each_part(plain: dict[str, Chart]) -> None:
    chart = plain["chart-strength"]
    whole, *parts = chart.choices
    assert [trace["y"] for trace in chart.figure["data"]] == whole.heights
    assert {choice.name for choice in parts} == {
        "category: blue, 60 pairs",
        f"category: {short(HOSTILE_CATEGORY)}, 60 pairs",
    }
    summed = [
        [a + b for a, b in zip(*heights, strict=True)] for heights in zip(*(c.heights for c in parts), strict=True)
    ]
    assert summed == whole.heights


def test_policies_add_up_to_all_pairs(plain: dict[str, Chart]) -> None:
    bars = plain["chart-policies"].figure["data"]
    assert [bar["name"] for bar in bars] == ["keep", "smooth", "flip", "drop"]
    assert bars[0]["y"][0] == "auto (chosen)"
    assert all(abs(sum(shares) - 100) < 1e-9 for shares in zip(*(bar["x"] for bar in bars), strict=True))


def test_parts_that_were_not_computed_have_no_chart(tmp_path: Path) -> None:
    assert charts(facts(fake_run(tmp_path / "a", stages=("load",)))) == {}
    assert set(charts(facts(fake_run(tmp_path / "d", stages=("load", "check"))))) == {"chart-biases", "chart-lengths"}
    voted = charts(facts(fake_run(tmp_path / "b", stages=("load", "vote"))))
    assert set(voted) == {"chart-accuracy", "chart-correlation"}
    in_sample = charts(facts(fake_run(tmp_path / "c", scoring="in-sample")))
    assert "chart-accuracy" not in in_sample and "chart-slice-0" not in in_sample

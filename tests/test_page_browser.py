"""The report in a real browser: charts, table, side by side, keyboard, colours, and hostile texts that stay text."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browsing import FAINT, texts, wait_for_charts
from fake_run import (
    HOSTILE,
    HOSTILE_ANNOTATOR,
    HOSTILE_BACKBONE,
    HOSTILE_CATEGORY,
    HOSTILE_COLUMN,
    HOSTILE_ID,
    HOSTILE_LANGUAGE,
    HOSTILE_POLICY,
    fake_hostile_run,
    fake_run,
    fake_verified_run,
)

from reports.page import write_report

PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = fake_run(tmp_path_factory.mktemp("run"))
    write_report(run)
    return run.path


@pytest.fixture(scope="module")
def verified_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = fake_verified_run(tmp_path_factory.mktemp("verified"))
    write_report(run)
    return run.path


@pytest.fixture(scope="module")
def hostile_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = fake_hostile_run(tmp_path_factory.mktemp("hostile"))
    write_report(run)
    return run.path


@pytest.fixture(autouse=True)
def plain_screen(browser: Any) -> None:
    """Every test begins at a desktop in light colours."""
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    scheme = [{"name": "prefers-color-scheme", "value": "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": scheme})


@pytest.fixture
def opened(browser: Any, folder: Path) -> Any:
    visit(browser, folder)
    return browser


def visit(browser: Any, folder: Path) -> None:
    """Open the report of a run and wait until its charts stand."""
    browser.get((folder / "report.html").as_uri())
    wait_for_charts(browser)


def test_plots_render_without_a_console_message(opened: Any) -> None:
    n_plots = opened.execute_script("return document.querySelectorAll('.plot').length")
    n_drawn = opened.execute_script("return document.querySelectorAll('.plot:has(svg.main-svg)').length")
    assert n_plots == n_drawn == 10
    assert opened.get_log("browser") == []


def test_plots_and_names_of_a_verified_run_render(browser: Any, verified_folder: Path) -> None:
    visit(browser, verified_folder)
    n_drawn = browser.execute_script("return document.querySelectorAll('.plot:has(svg.main-svg)').length")
    assert n_drawn == 14
    assert browser.get_log("browser") == []
    assert texts(browser, "#chart-annotators ~ details bdi") == [HOSTILE_ANNOTATOR[:79] + "…"]
    assert texts(browser, "#sure bdi") == ["minilm", "minilm", HOSTILE_BACKBONE[:79] + "…"]
    assert browser.execute_script("return document.querySelectorAll('main img, main script, svg a').length") == 0


def test_hostile_texts_stay_text(opened: Any) -> None:
    shown = " ".join(texts(opened, "#pairs td.text"))
    for text in HOSTILE:
        assert text in shown
    assert opened.execute_script("return document.querySelectorAll('main img, main script, svg a').length") == 0
    assert HOSTILE_CATEGORY in texts(opened, "table.parts tbody th")
    assert f"shortcut by {HOSTILE_COLUMN}"[:79] + "…" in texts(opened, "#wrong table.parts tbody th")


def test_the_table_searches(opened: Any) -> None:
    opened.find_element("id", "search").send_keys("question 2 ONERROR")
    assert texts(opened, "#pairs tbody tr p.id") and texts(opened, "#pairs tbody tr th[scope=row]")
    visible = opened.execute_script(
        "return [...document.querySelectorAll('#pairs tbody tr')].filter(e => !e.hidden).length"
    )
    assert visible == 1
    assert texts(opened, "#matches") == ["1 of 1 pairs shown"]


def test_the_table_sorts_both_ways(opened: Any) -> None:
    ranks = "#pairs tbody tr:not([hidden]) th[scope=row]"
    assert texts(opened, ranks)[:3] == ["1", "2", "3"]
    button = opened.find_element("css selector", "#pairs th[data-key=mean] button")
    opened.execute_script("arguments[0].click(); arguments[0].click()", button)
    means = opened.execute_script("return [...document.querySelectorAll('#pairs tbody tr')].map(e => +e.dataset.mean)")
    assert means == sorted(means, reverse=True)
    assert opened.execute_script("return arguments[0].closest('th').getAttribute('aria-sort')", button) == "descending"


def test_long_rows_unfold(opened: Any) -> None:
    row = opened.find_element("css selector", "#pairs tr.folded:not([hidden])")
    button = row.find_element("css selector", "button[data-unfold]")
    opened.execute_script("arguments[0].click()", button)
    assert "folded" not in row.get_attribute("class").split()
    assert button.get_attribute("aria-expanded") == "true"


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_a_phone_scrolls_one_way_only_and_colours_follow(browser: Any, hostile_folder: Path, mode: str) -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    scheme = [{"name": "prefers-color-scheme", "value": mode}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    visit(browser, hostile_folder)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    assert browser.execute_script(FAINT) == []
    ink = {"light": "rgb(28, 35, 48)", "dark": "rgb(233, 231, 226)"}[mode]
    drawn = browser.execute_script("return getComputedStyle(document.querySelector('.plot .xtitle')).fill")
    assert drawn == ink
    open_pair(browser)
    chosen, rejected = (browser.find_element("id", f"pair-{side}").rect for side in ("chosen", "rejected"))
    assert chosen["y"] + chosen["height"] <= rejected["y"]  # one below the other
    assert browser.execute_script("return document.querySelector('dialog').scrollWidth") <= 360
    assert browser.execute_script(FAINT) == []
    assert browser.get_log("browser") == []


def visible_ids(browser: Any) -> list[str]:
    return texts(browser, "#pairs tbody tr:not([hidden]) p.id")


def choose(browser: Any, selector: str, value: str) -> None:
    """Choose an option as a person does: the element's change event is what the page listens to."""
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("css selector", selector)).select_by_value(value)


def open_pair(browser: Any) -> Any:
    """Open the first pair that is shown side by side, by keyboard; returns its button."""
    button = browser.find_element("css selector", "#pairs tbody tr:not([hidden]) button[data-open]")
    browser.execute_script("arguments[0].scrollIntoView()", button)
    button.send_keys("\ue007")  # Enter
    return button


def press(browser: Any, key: str) -> None:
    browser.switch_to.active_element.send_keys(key)


def is_open(browser: Any) -> bool:
    return bool(browser.execute_script("return document.getElementById('pair').open"))


ESCAPE, LEFT, RIGHT = "\ue00c", "\ue012", "\ue014"


def test_the_table_filters_by_what_found_a_pair(opened: Any) -> None:
    choose(opened, "#found-by", "echo")
    assert visible_ids(opened) == ["fake:train:1"]
    choose(opened, "#found-by", "refusal")
    assert visible_ids(opened) == ["fake:train:0", "fake:train:1", "fake:train:2"]
    opened.find_element("id", "search").send_keys("fake:train:2")
    assert visible_ids(opened) == ["fake:train:2"]
    options = texts(opened, "#found-by option")
    assert options[:3] == ["anything", options[1], "echo (1 shown)"] and options[1].startswith("votes (")


def test_a_check_leads_to_its_pairs(opened: Any) -> None:
    opened.find_element("id", "search").send_keys("nothing has this")
    link = opened.find_element("css selector", "a[data-found-by=cut_off]")
    opened.execute_script("arguments[0].click()", link)
    assert sorted(visible_ids(opened)) == [f"fake:train:{i}" for i in (100, 103, 106, 108, 111)]
    assert opened.execute_script("return document.activeElement.id") == "found-by"


def test_what_was_not_computed_sorts_last_both_ways(browser: Any, tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    checks = run.read("checks")
    tie = checks["pair_id"] == checks["pair_id"][-1]  # has no label_prob
    checks.with_columns(echo=tie).write_parquet(tmp_path / "checks.parquet")
    write_report(run)
    visit(browser, tmp_path)
    for _ in range(2):
        button = browser.find_element("css selector", "#pairs th[data-key=prob] button")
        browser.execute_script("arguments[0].click()", button)
        last = browser.execute_script("return [...document.querySelectorAll('#pairs tbody tr')].at(-1).dataset")
        assert (last["found"], last["prob"]) == ("echo", "")


def test_a_pair_opens_side_by_side_and_closes_by_escape(opened: Any) -> None:
    button = open_pair(opened)
    assert is_open(opened)
    assert opened.execute_script("return document.getElementById('pair').matches(':modal')")
    assert texts(opened, "#pair-title")[0].startswith("Pair 1 (1 of ")
    assert texts(opened, "#pair-id .id") == ["fake:train:0"]
    assert HOSTILE[0] in texts(opened, "#pair-chosen")[0] and "rejected 0" in texts(opened, "#pair-rejected")[0]
    assert texts(opened, "#pair-numbers dt") == ["strength", "label right", "action"]
    assert "label probably wrong" in texts(opened, "#pair-numbers")[0]
    assert texts(opened, "#pair-rejected-note") == ["the votes prefer this one"]
    chosen, rejected = (opened.find_element("id", f"pair-{side}").rect for side in ("chosen", "rejected"))
    assert chosen["x"] + chosen["width"] <= rejected["x"]
    press(opened, ESCAPE)
    assert not is_open(opened)
    assert opened.execute_script("return document.activeElement === arguments[0]", button)


def test_words_of_one_side_are_marked_and_said(opened: Any) -> None:
    opened.find_element("id", "search").send_keys("fake:train:0")
    open_pair(opened)
    assert texts(opened, "#pair-chosen mark") == ["chosen"]
    assert texts(opened, "#pair-rejected mark")[0] == "rejected"
    assert texts(opened, "#pair-shared")[0].endswith("the others are marked.")
    said = "return getComputedStyle(document.querySelector('#pair-chosen mark'), '::before').content"
    assert "only here" in opened.execute_script(said)


def test_pairs_follow_each_other_in_the_order_of_the_table(opened: Any) -> None:
    choose(opened, "#found-by", "refusal")
    order = visible_ids(opened)
    open_pair(opened)
    seen = [texts(opened, "#pair-id .id")[0]]
    assert not opened.find_element("id", "pair-before").is_enabled()
    opened.find_element("id", "pair-after").click()
    seen += texts(opened, "#pair-id .id")
    press(opened, RIGHT)
    seen += texts(opened, "#pair-id .id")
    assert seen == order
    press(opened, RIGHT)  # there is no other
    assert texts(opened, "#pair-id .id") == order[-1:]
    assert opened.execute_script("return document.getElementById('pair').contains(document.activeElement)")
    press(opened, LEFT)
    assert texts(opened, "#pair-title") == ["Pair 2 (2 of 3)"]
    opened.find_element("id", "pair-close").click()
    assert not is_open(opened)


def test_a_conversation_is_shown_whole(opened: Any) -> None:
    turns = "return [...document.querySelectorAll('#pairs tbody tr')].find((row) => row.querySelector('.earlier'))"
    row = opened.execute_script(turns)
    opened.find_element("id", "search").send_keys(row.get_attribute("textContent").split("fake:train:")[1].split()[0])
    opened.execute_script("arguments[0].querySelector('button[data-open]').click()", row)
    assert texts(opened, "#pair-prompt .role") == ["user", "assistant", "user"]
    assert all(
        opened.execute_script("return [...document.querySelectorAll('#pair-prompt p')].map(p => p.checkVisibility())")
    )


def test_the_histogram_shows_the_part_that_is_chosen(opened: Any) -> None:
    def state() -> tuple[str, list[list[int]]]:
        drawn = "return document.getElementById('chart-strength').data.map((trace) => [...trace.y])"
        return texts(opened, "#chart-strength-title")[0], opened.execute_script(drawn)

    title, whole = state()
    options = texts(opened, "select[data-chart=chart-strength] option")
    assert options == ["all 120 pairs", *options[1:]] and f"category: {HOSTILE_CATEGORY[:16]}" in options[1]
    choose(opened, "select[data-chart=chart-strength]", "1")
    part_title, part = state()
    assert part_title != title and part_title.startswith(f"On {HOSTILE_CATEGORY[:16]}")
    assert sum(map(sum, part)) == 60 and sum(map(sum, whole)) == 120
    choose(opened, "select[data-chart=chart-strength]", "0")
    assert state() == (title, whole)
    assert opened.get_log("browser") == []


def test_hostile_ids_languages_and_policies_stay_text(browser: Any, hostile_folder: Path) -> None:
    visit(browser, hostile_folder)
    open_pair(browser)
    assert texts(browser, "#pair-id .id")[0].endswith(HOSTILE_ID)
    assert any(HOSTILE_LANGUAGE[:16] in option for option in texts(browser, "select[data-chart] option"))
    assert HOSTILE_LANGUAGE in texts(browser, "#slices tbody th")
    assert f"{HOSTILE_POLICY}"[:79] + "…" in texts(browser, "#actions bdi")
    assert browser.execute_script("return document.querySelectorAll('img, main script, svg a').length") == 0
    assert browser.execute_script("return document.querySelectorAll('#found-by option, select').length") > 2
    assert browser.get_log("browser") == []


def test_names_roles_and_order_are_fit_for_a_screen_reader(browser: Any, verified_folder: Path) -> None:
    visit(browser, verified_folder)
    ids = browser.execute_script("return [...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))
    refers = """return [...document.querySelectorAll('[aria-labelledby], [aria-controls]')].flatMap((element) =>
      ['aria-labelledby', 'aria-controls'].filter((name) => element.hasAttribute(name)).map((name) =>
        element.getAttribute(name)))"""
    assert set(browser.execute_script(refers)) <= set(ids)
    nameless = """return [...document.querySelectorAll('[role=img], [role=region], dialog, section, nav, button, select, input')]
      .filter((element) => !(element.ariaLabel || element.closest('label') || element.textContent.trim()
        || document.getElementById(element.getAttribute('aria-labelledby'))?.textContent.trim()))
      .map((element) => element.outerHTML.slice(0, 80))"""
    assert browser.execute_script(nameless) == []
    levels = browser.execute_script("return [...document.querySelectorAll('h1, h2, h3, h4')].map((h) => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert (
        browser.execute_script("return [...document.querySelectorAll('table')].filter((t) => !t.caption).length") == 1
    )
    assert (
        browser.execute_script("return document.getElementById('pairs').getAttribute('aria-labelledby')")
        == "pairs-title"
    )
    press_first = "document.body.focus(); return document.querySelector('a, button, input, select').className"
    assert browser.execute_script(press_first) == "skip"
    assert browser.execute_script("return document.documentElement.lang") == "en"


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Any, verified_folder: Path, mode: str) -> None:
    scheme = [{"name": "prefers-color-scheme", "value": mode}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    visit(browser, verified_folder)
    browser.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert browser.execute_script(FAINT) == []


def test_print_is_light_and_without_controls(browser: Any, folder: Path) -> None:
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": dark})
    visit(browser, folder)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": dark})
    assert browser.execute_script("return getComputedStyle(document.body).color") == "rgb(28, 35, 48)"
    assert not browser.find_element("id", "search").is_displayed()
    drawn = "return getComputedStyle(document.querySelector('.plot .xtitle')).fill"
    assert browser.execute_script(drawn) == "rgb(28, 35, 48)"

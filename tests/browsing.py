"""What the tests of the pages share: the text of a page, and what a browser shows of it."""

import re
from typing import Any

# Elements with text of their own whose contrast with the nearest background is below 4.5 (3 where the text is large).
FAINT = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const over = (top, below) => {
  const alpha = top[3] ?? 1;
  return [0, 1, 2].map((i) => alpha * top[i] + (1 - alpha) * below[i]);
};
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  if (!element) return channels(getComputedStyle(document.body).backgroundColor);
  const own = channels(getComputedStyle(element).backgroundColor);
  return (own[3] ?? 1) === 1 ? own : over(own, ground(element.parentElement));
};
const modal = document.querySelector("dialog[open]");
return [...(modal || document.body).querySelectorAll("*")].filter((element) => {
  if (element.closest("[hidden], .spoken, .skip, :disabled, script, style, .plot") || !element.checkVisibility()) return false;
  if (![...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) return false;
  const style = getComputedStyle(element), back = ground(element);
  const lights = [luminance(over(channels(style.color), back)), luminance(back)].sort((a, b) => b - a);
  const isLarge = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.6 && style.fontWeight >= 700);
  return (lights[0] + 0.05) / (lights[1] + 0.05) < (isLarge ? 3 : 4.5);
}).map((element) => `${element.tagName}.${element.className}: ${element.textContent.trim().slice(0, 40)}`);
"""


def own_text(html: str) -> str:
    """The page without its scripts, with plain spaces."""
    return re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL).replace("\u00a0", " ")


def texts(browser: Any, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].filter(e => !e.hidden).map(e => e.textContent.trim())"
    found: list[str] = browser.execute_script(script, selector)
    return found


def wait_for_charts(browser: Any) -> None:
    """Wait until all charts of the page stand."""
    from selenium.webdriver.support.ui import WebDriverWait

    drawn = "return document.documentElement.dataset.charts === 'drawn'"
    WebDriverWait(browser, 60, poll_frequency=0.05).until(lambda each: each.execute_script(drawn))

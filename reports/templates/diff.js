"use strict";
(() => {
  // "@name" in a figure is the style sheet's --name, so that a change between light and dark redraws it.
  const figures = JSON.parse(document.getElementById("figures").textContent);

  function coloured(value, style) {
    if (typeof value === "string") return value.startsWith("@") ? style.getPropertyValue("--" + value.slice(1)).trim() : value;
    if (Array.isArray(value)) return value.map((item) => coloured(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, style)]));
  }

  function draw() {
    const style = getComputedStyle(document.documentElement);
    for (const [id, figure] of Object.entries(figures)) {
      const { data, layout } = coloured(figure, style);
      Plotly.react(id, data, layout, { displayModeBar: false, responsive: true });
    }
  }

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  // The table of changed pairs: search, sort, unfold, and more of them.
  const table = document.getElementById("pairs");
  if (!table) return;
  const rows = Array.from(table.tBodies[0].rows);
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const more = document.getElementById("more-pairs");
  const field = document.getElementById("search");
  const step = 20;
  let most = step;

  function show() {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = rows.filter((row) => words.every((word) => texts.get(row).includes(word)));
    const shown = new Set(found.slice(0, most));
    for (const row of rows) row.hidden = !shown.has(row);
    more.hidden = shown.size === found.length;
    document.getElementById("matches").textContent = `${shown.size} of ${found.length} pairs shown`;
  }

  function compared(a, b, sign) {
    if (a === b) return 0;
    if (a === "" || b === "") return a === "" ? 1 : -1; // what was not computed comes last
    const difference = Number(a) - Number(b);
    return sign * (Number.isNaN(difference) ? (a < b ? -1 : 1) : difference);
  }

  function sort(header) {
    const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
    const key = header.dataset.key;
    rows.sort((a, b) => compared(a.dataset[key], b.dataset[key], sign) || a.dataset.rank - b.dataset.rank);
    table.tBodies[0].append(...rows);
    show();
  }

  function unfold(button) {
    const folded = button.closest("tr").classList.toggle("folded");
    button.setAttribute("aria-expanded", String(!folded));
    button.textContent = folded ? "Show all" : "Show less";
  }

  show();
  more.addEventListener("click", () => {
    most += step;
    show();
  });
  field.addEventListener("input", () => {
    most = step;
    show();
  });
  table.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.classList.contains("more")) unfold(button);
    else sort(button.closest("th"));
  });
})();

"use strict";
(() => {
  // Charts: "@name" in a figure is the style sheet's --name, so that a change between light and dark redraws them.
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

  // The table of suspicious pairs: search, sort, unfold.
  const table = document.getElementById("pairs");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));

  const more = document.getElementById("more-pairs");
  const step = 20;
  let wanted = [];
  let most = step;

  function show() {
    const found = rows.filter((row) => wanted.every((word) => texts.get(row).includes(word)));
    const shown = new Set(found.slice(0, most));
    for (const row of rows) row.hidden = !shown.has(row);
    more.hidden = shown.size === found.length;
    document.getElementById("matches").textContent = `${shown.size} of ${found.length} pairs shown`;
  }

  function search(words) {
    wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    most = step;
    show();
  }

  function compared(a, b) {
    if (a === b) return 0;
    if (a === "" || b === "") return a === "" ? 1 : -1; // what was not computed comes last
    const difference = Number(a) - Number(b);
    return Number.isNaN(difference) ? (a < b ? -1 : 1) : difference;
  }

  function sort(header) {
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = header.dataset.key;
    rows.sort((a, b) => (down ? -1 : 1) * compared(a.dataset[key], b.dataset[key]) || a.dataset.rank - b.dataset.rank);
    body.append(...rows);
    show();
  }

  function unfold(button) {
    const row = button.closest("tr");
    const folded = row.classList.toggle("folded");
    button.setAttribute("aria-expanded", String(!folded));
    button.dataset.shown ??= button.textContent;
    button.textContent = folded ? button.dataset.shown : "Show less";
  }

  show();
  more.addEventListener("click", () => {
    most += step;
    show();
  });
  document.getElementById("search").addEventListener("input", (event) => search(event.target.value));
  table.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.classList.contains("more")) unfold(button);
    else sort(button.closest("th"));
  });
})();

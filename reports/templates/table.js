"use strict";
// The table of pairs: search, filter, sort, unfold, and more of them; null on a page without one.
const pairTable = (() => {
  const table = document.getElementById("pairs");
  if (!table) return null;
  const get = (id) => document.getElementById(id);
  const rows = Array.from(table.tBodies[0].rows);
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));

  const [search, foundBy, more] = [get("search"), get("found-by"), get("more-pairs")]; // not every page has found-by
  const step = 20;
  let found = rows;
  let most = step;

  function show() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const isFound = (row) => !foundBy?.value || row.dataset.found.split(" ").includes(foundBy.value);
    found = rows.filter((row) => isFound(row) && words.every((word) => texts.get(row).includes(word)));
    const shown = new Set(found.slice(0, most));
    for (const row of rows) row.hidden = !shown.has(row);
    more.hidden = shown.size === found.length;
    get("matches").textContent = `${shown.size} of ${found.length} pairs shown`;
  }

  function restart() {
    most = step;
    show();
  }

  function compared(a, b) {
    const difference = Number(a) - Number(b);
    return Number.isNaN(difference) ? Number(a > b) - Number(a < b) : difference;
  }

  function sort(header) {
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = header.dataset.key;
    rows.sort((a, b) => {
      const [first, second] = [a.dataset[key], b.dataset[key]];
      const missing = Number(first === "") - Number(second === ""); // what was not computed comes last, both ways
      return missing || (down ? -1 : 1) * compared(first, second) || a.dataset.rank - b.dataset.rank;
    });
    table.tBodies[0].append(...rows);
    show();
  }

  function unfold(button) {
    const row = button.closest("tr");
    const folded = row.classList.toggle("folded");
    button.setAttribute("aria-expanded", String(!folded));
    button.dataset.shown ??= button.textContent;
    button.textContent = folded ? button.dataset.shown : "Show less";
  }

  more.addEventListener("click", () => {
    most += step;
    show();
  });
  search.addEventListener("input", restart);
  foundBy?.addEventListener("change", restart);
  table.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if ("unfold" in button.dataset) unfold(button);
    else if (button.closest("th")) sort(button.closest("th"));
  });
  show();
  return { found: () => found, restart };
})();

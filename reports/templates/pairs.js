"use strict";
(() => {
  // The table of pairs: search, filter, sort, unfold, and a pair side by side. Texts are only moved as nodes, never read as HTML.
  const table = document.getElementById("pairs");
  if (!table) return;
  const get = (id) => document.getElementById(id);
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));

  const [search, foundBy, more] = [get("search"), get("found-by"), get("more-pairs")];
  const step = 20;
  let found = rows;
  let most = step;

  function show() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const isFound = (row) => !foundBy.value || row.dataset.found.split(" ").includes(foundBy.value);
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

  // Side by side: the dialog holds copies of what stands in the row.
  const dialog = get("pair");
  let place = 0;

  function copies(nodes) {
    return Array.from(nodes, (node) => node.cloneNode(true));
  }

  function fill(row) {
    const cell = (name) => row.querySelector(`td[data-name="${name}"]`);
    const said = (name) => copies(cell(name).querySelectorAll(".said"));
    get("pair-title").textContent = `Pair ${row.dataset.rank} (${place + 1} of ${found.length})`;
    get("pair-id").replaceChildren(...copies(row.querySelectorAll("p.found, p.id")));
    get("pair-numbers").replaceChildren(...["strength", "label right", "action"].flatMap((name) => {
      const [term, value] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      value.replaceChildren(...copies(cell(name).childNodes));
      const entry = document.createElement("div");
      entry.append(term, value);
      return value.textContent.trim() ? [entry] : [];
    }));
    get("pair-prompt").replaceChildren(...said("prompt"));
    get("pair-chosen").replaceChildren(...said("chosen, by the label"));
    get("pair-rejected").replaceChildren(...said("rejected, by the label"));
    const mean = Number(row.dataset.mean);
    get("pair-chosen-note").textContent = mean > 0 ? "the votes prefer this one" : "";
    get("pair-rejected-note").textContent = mean < 0 ? "the votes prefer this one" : "";
    get("pair-shared").textContent = row.dataset.shared;
    get("pair-before").disabled = place === 0;
    get("pair-after").disabled = place === found.length - 1;
    dialog.querySelector(".pair-body").scrollTop = 0;
  }

  function open(row) {
    place = found.indexOf(row);
    fill(row);
    dialog.showModal();
  }

  function move(by) {
    if (!found[place + by]) return;
    place += by;
    fill(found[place]);
    if (document.activeElement === document.body || document.activeElement.disabled) get("pair-close").focus();
  }

  get("pair-before").addEventListener("click", () => move(-1));
  get("pair-after").addEventListener("click", () => move(1));
  get("pair-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    move(by);
  });

  more.addEventListener("click", () => {
    most += step;
    show();
  });
  search.addEventListener("input", restart);
  foundBy.addEventListener("change", restart);
  table.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if ("open" in button.dataset) open(button.closest("tr"));
    else if ("unfold" in button.dataset) unfold(button);
    else sort(button.closest("th"));
  });
  for (const link of document.querySelectorAll("a[data-found-by]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault(); // following it would take the focus away again
      search.value = "";
      foundBy.value = link.dataset.foundBy;
      restart();
      get("pairs-title").scrollIntoView();
      foundBy.focus({ preventScroll: true });
    });
  }
  show();
})();

"use strict";
(() => {
  // A pair of the table side by side, and the links to those that a check found. Texts are only moved as nodes, never read as HTML.
  if (!pairTable) return;
  const get = (id) => document.getElementById(id);
  const [search, foundBy] = [get("search"), get("found-by")];

  // The dialog holds copies of what stands in the row.
  const dialog = get("pair");
  let found = [];
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
    found = pairTable.found();
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

  get("pairs").addEventListener("click", (event) => {
    const button = event.target.closest("button[data-open]");
    if (button) open(button.closest("tr"));
  });
  for (const link of document.querySelectorAll("a[data-found-by]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault(); // following it would take the focus away again
      search.value = "";
      foundBy.value = link.dataset.foundBy;
      pairTable.restart();
      get("pairs-title").scrollIntoView();
      foundBy.focus({ preventScroll: true });
    });
  }
})();

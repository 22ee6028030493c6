"use strict";
(() => {
  // "@name" in a figure is the style sheet's --name, so that a change between light, dark and print redraws the charts.
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const ids = Array.from(document.querySelectorAll(".plot"), (plot) => plot.id);
  const chosen = {};
  const waiting = new Set(ids);
  const queue = [...ids];

  function coloured(value, style) {
    if (typeof value === "string") return value.startsWith("@") ? style.getPropertyValue("--" + value.slice(1)).trim() : value;
    if (Array.isArray(value)) return value.map((item) => coloured(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, style)]));
  }

  function draw(id) {
    if (!window.Plotly) return;
    const figure = { data: figures[id].data, layout: figures[id].layout };
    const { data, layout } = coloured(figure, getComputedStyle(document.documentElement));
    const heights = id in chosen ? figures[id].choices[chosen[id]].heights : null;
    const shown = heights ? data.map((trace, i) => ({ ...trace, y: heights[i] })) : data;
    Plotly.react(id, shown, layout, { displayModeBar: false, responsive: true });
    if (waiting.size === ids.length) performance.mark("first chart");
    if (!waiting.delete(id) || waiting.size) return;
    performance.mark("all charts");
    document.documentElement.dataset.charts = "drawn";
  }

  // One chart at a time: the page can be read and scrolled from the start.
  function drawNext() {
    const id = queue.shift();
    if (!id) return;
    setTimeout(drawNext); // before it, so that a chart that fails leaves the others
    draw(id);
  }

  // Plotly waits in an element of text until the page has loaded, because reading it takes longer than all the rest.
  function begin() {
    const script = document.createElement("script");
    script.textContent = document.getElementById("plotly").textContent;
    document.head.append(script);
    drawNext();
  }

  for (const query of ["(prefers-color-scheme: dark)", "print"]) {
    matchMedia(query).addEventListener("change", () => ids.forEach(draw));
  }
  for (const select of document.querySelectorAll("select[data-chart]")) {
    select.value = "0"; // a browser that comes back to the page would keep the old choice beside the first figure
    select.addEventListener("change", () => {
      const id = select.dataset.chart;
      chosen[id] = Number(select.value);
      document.getElementById(id + "-title").textContent = figures[id].choices[chosen[id]].title;
      draw(id);
    });
  }
  if (ids.length) addEventListener("load", () => setTimeout(begin));
})();

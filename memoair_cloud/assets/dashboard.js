// What moves on the pages of the dashboard. Everything here only improves: forms and links do the same without it.
"use strict";

htmx.config.includeIndicatorStyles = false; // the content security policy allows no inline styles
htmx.config.allowEval = false;
htmx.config.allowScriptTags = false;
htmx.config.historyCacheSize = 0; // callers' words must not stay in the browser's storage
htmx.config.selfRequestsOnly = true;

// A dashed line, with its name, where a row of the table has a mark.
function drawMarks(plot, rows, color) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = color;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
  ctx.font = `${11 * devicePixelRatio}px system-ui`;
  rows.forEach((row, index) => {
    if (!row.dataset.mark) return;
    const x = Math.round(plot.valToPos(index, "x", true));
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const isRight = x > bbox.left + bbox.width / 2;
    ctx.textAlign = isRight ? "right" : "left";
    ctx.fillText(row.dataset.mark, x + (isRight ? -4 : 4) * devicePixelRatio, bbox.top + bbox.height - 6 * devicePixelRatio);
  });
  ctx.restore();
}

function drawCharts() {
  const style = getComputedStyle(document.documentElement);
  const color = style.getPropertyValue("--pico-color").trim();
  const grid = style.getPropertyValue("--pico-muted-border-color").trim();
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const strokes = dark ? ["#7fb3ff", "#ffcf8a", "#ff9d94"] : ["#1f5fbf", "#8a5300", "#b3261e"];
  for (const chart of document.querySelectorAll("[data-chart]")) {
    const table = document.getElementById(chart.dataset.chart);
    if (!table) continue;
    // Columns may be chosen by data-series; rows can be left out, and be in the order of a list, latest first.
    const heads = [...table.tHead.rows[0].cells];
    const marked = heads.filter((cell) => "series" in cell.dataset);
    const columns = (marked.length ? marked : heads.slice(1)).map((cell) => cell.cellIndex);
    const names = columns.map((index) => heads[index].textContent.trim());
    const rows = [...table.tBodies[0].rows].filter((row) => !("skip" in row.dataset));
    if ("reversed" in chart.dataset) rows.reverse();
    const data = [rows.map((_, index) => index)];
    for (const column of columns) data.push(rows.map((row) => {
      const value = row.cells[column].dataset.value;
      return value === "" ? null : Number(value);
    }));
    chart.replaceChildren();
    const axis = { stroke: color, grid: { stroke: grid }, ticks: { stroke: grid }, font: "12px system-ui" };
    new uPlot({
      width: Math.max(240, chart.clientWidth), height: 180, tzDate: (seconds) => new Date(seconds * 1e3),
      padding: [null, "percent" in chart.dataset ? 44 : null, null, null], // room for a label with a time
      cursor: { drag: { x: false, y: false } }, scales: { x: { time: false }, ...("percent" in chart.dataset && { y: { range: [0, 100] } }) },
      hooks: { draw: [(plot) => drawMarks(plot, rows, color)] },
      axes: [
        { ...axis, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) && rows[tick] ? rows[tick].cells[0].dataset.label : "")) },
        { ...axis, size: 56 },
      ],
      series: [
        { label: table.tHead.rows[0].cells[0].textContent.trim(), value: (_, index) => (index === null || !rows[index] ? "–" : rows[index].cells[0].textContent.trim()) },
        ...names.map((label, index) => ({ label, stroke: strokes[index % strokes.length], width: 2, points: { show: rows.length < 40 } })),
      ],
    }, data, chart);
  }
}

function moveTurn(step) {
  const turns = [...document.querySelectorAll(".turn")];
  if (!turns.length) return;
  const current = turns.findIndex((turn) => turn === document.activeElement || turn.contains(document.activeElement));
  const next = turns[current < 0 ? (step > 0 ? 0 : turns.length - 1) : current + step];
  if (next) {
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "start" });
    return;
  }
  const link = document.querySelector(step > 0 ? "a[rel=next]" : "a[rel=prev]");
  if (link) link.click();
}

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select, [contenteditable]");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "j") moveTurn(1);
  else if (event.key === "k") moveTurn(-1);
  else if (event.key === "/") {
    const search = document.querySelector("input[type=search]");
    if (search) { event.preventDefault(); search.focus(); }
  }
});

// Rows of a form: the last one is copied, without what was typed.
function addRow(button) {
  const rows = button.parentElement.querySelector("[data-rows]");
  const row = rows.lastElementChild.cloneNode(true);
  for (const field of row.querySelectorAll("input, textarea")) field.value = field.defaultValue = "";
  if (row.ariaLabel) row.ariaLabel = row.ariaLabel.replace(/\d+(?!.*\d)/, (number) => Number(number) + 1);
  rows.append(row);
  row.querySelector("select, textarea, input:not([type=hidden])").focus();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-add-row]");
  if (button) addRow(button);
});

document.addEventListener("change", (event) => {
  if (event.target.matches("form[data-auto] select")) event.target.form.requestSubmit();
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method === "get") { // addresses stay short: empty fields are left out
    for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
    setTimeout(() => { for (const field of form.elements) field.disabled = false; });
  }
});

addEventListener("DOMContentLoaded", () => {
  for (const element of document.querySelectorAll("[data-add-row]")) element.hidden = false;
  if (window.uPlot) drawCharts();
  let width = innerWidth;
  addEventListener("resize", () => {
    if (window.uPlot && innerWidth !== width) drawCharts();
    width = innerWidth;
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => window.uPlot && drawCharts());
});

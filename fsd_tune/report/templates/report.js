"use strict";

// Tables can be sorted with the mouse or the keyboard. Without this script they show the best trial first.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];

  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };

  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      // Scores sort from the highest first, all other columns from the lowest.
      const first = ["score", "best seen"].includes(button.textContent) ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = heading.getAttribute("aria-sort") === first ? other : first;
      headings.forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => row.cells[column].dataset.value;
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * compare(x, y);
      });
      body.append(...rows);
    });
  });
}

// A field above a long table shows only the rows that have a cell starting with each of its words, such as `stopped kd`.
for (const table of document.querySelectorAll("table.filtered")) {
  const label = document.createElement("label");
  label.className = "filter";
  const field = document.createElement("input");
  field.type = "search";
  field.placeholder = "finished fsd_ilg";
  const count = document.createElement("output");
  label.append("Show rows with ", field, count);
  table.closest(".scroll").before(label);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) {
      const cells = [...row.cells].map((cell) => cell.textContent.trim().toLowerCase());
      row.hidden = !words.every((word) => cells.some((cell) => cell.startsWith(word)));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = words.length ? ` ${shown} of ${rows.length}` : "";
  });
}

// The charts take the colours of text and grid from the page, and change with it between light and dark.
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  return coloured(layout, ...["--ink", "--soft", "--line", "--page"].map((name) => style.getPropertyValue(name).trim()));
}

function coloured(layout, ink, soft, line, page) {
  const family = getComputedStyle(document.body).fontFamily;
  const colours = {
    "font.color": soft,
    "font.family": family,
    "hoverlabel.bgcolor": page,
    "hoverlabel.bordercolor": line,
    "hoverlabel.font.color": ink,
    "hoverlabel.font.family": family,
  };
  for (const axis of Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name))) {
    colours[`${axis}.gridcolor`] = line;
    colours[`${axis}.linecolor`] = line;
    colours[`${axis}.tickcolor`] = line;
  }
  return colours;
}

function draw(plot) {
  const figure = JSON.parse(document.getElementById(plot.dataset.figure).textContent);
  const config = { responsive: true, displayModeBar: false, displaylogo: false, showSendToCloud: false, plotlyServerURL: "" };
  return Plotly.newPlot(plot, figure.data, figure.layout, config).then(() => Plotly.relayout(plot, themed(plot.layout)));
}

// Draw one chart after the other, so that the page can be read and scrolled while large charts are drawn.
async function drawAll() {
  const plots = [...document.querySelectorAll(".plot")];
  for (const plot of plots) {
    await draw(plot);
    await new Promise((resume) => setTimeout(resume));
  }
  const restyle = (style) => plots.forEach((plot) => Plotly.relayout(plot, style(plot.layout)));
  dark.addEventListener("change", () => restyle(themed));
  // Print in light colours and at a fixed width, because paper is white and narrower than most windows.
  window.addEventListener("beforeprint", () =>
    restyle((layout) => ({ ...coloured(layout, "#000", "#444", "#ccc", "#fff"), autosize: false, width: 660 })),
  );
  window.addEventListener("afterprint", () => restyle((layout) => ({ ...themed(layout), autosize: true, width: null })));
  document.documentElement.dataset.drawn = plots.length;
}

drawAll();

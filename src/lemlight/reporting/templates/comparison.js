"use strict";
// Without this script the page shows everything: tables in their order, all mammograms below one another.

function sortBy(table, header, status) {
  const numbers = table.tBodies[0].rows[0]?.cells[header.cellIndex].dataset.value !== undefined;
  const last = header.getAttribute("aria-sort");
  const direction = last === "none" ? (numbers ? "descending" : "ascending") : last === "ascending" ? "descending" : "ascending";
  const sign = direction === "ascending" ? 1 : -1;
  const key = (row) => row.cells[header.cellIndex].dataset.value ?? row.cells[header.cellIndex].textContent.trim();
  const rows = Array.from(table.tBodies[0].rows);
  rows.sort((one, other) => {
    const a = key(one), b = key(other);
    if (a === "" || b === "") return (a === "") - (b === ""); // unknown values stay below
    return sign * (numbers ? a - b : a.localeCompare(b, "en", { numeric: true }));
  });
  table.tBodies[0].append(...rows);
  for (const each of table.tHead.rows[0].cells) each.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", direction);
  status.textContent = `sorted by ${header.textContent.trim()}, ${direction}`;
}

for (const table of document.querySelectorAll("table.sortable")) {
  const status = document.createElement("p");
  status.className = "unseen";
  status.setAttribute("role", "status");
  table.parentElement.after(status);
  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sortBy(table, header, status));
  }
}

const shown = document.getElementById("mammogram");
if (shown) {
  const fade = document.getElementById("fade");
  const groups = Array.from(document.querySelectorAll(".mammogram"));
  const show = () => {
    groups.forEach((group, place) => { group.hidden = place !== shown.value - 1; });
    const text = groups[shown.value - 1].dataset.name;
    document.getElementById("mammogram-shown").textContent = text;
    shown.setAttribute("aria-valuetext", text);
  };
  const blend = () => {
    document.getElementById("mammograms").style.setProperty("--fade", fade.value / 100);
    document.getElementById("fade-shown").textContent = `${fade.value} %`;
    fade.setAttribute("aria-valuetext", `${fade.value} %`);
  };
  shown.addEventListener("input", show);
  fade.addEventListener("input", blend);
  shown.value = 1; // a browser may bring back the place of the last visit
  fade.value = 100;
  document.getElementById("sliders").hidden = false;
  show();
  blend();
}

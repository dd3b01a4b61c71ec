"use strict";

// Tables sort by a click on a header, and show the rows that have the words in the field above them;
// both are in the address, so they can be linked to.
const compareWords = new Intl.Collator(undefined, { numeric: true }).compare;

function key(row, column) {
  const cell = row.cells[column];
  return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
}

function compare(a, b, sign) {
  if (a === "" || b === "") return (a === "") - (b === ""); // empty cells are last either way
  return sign * (typeof a === "number" && typeof b === "number" ? a - b : compareWords(a, b));
}

function sort(table, column, isDescending) {
  const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
  rows.sort((a, b) => compare(a[0], b[0], isDescending ? -1 : 1));
  table.tBodies[0].append(...rows.map(([, row]) => row));
  for (const header of table.tHead.rows[0].cells) header.removeAttribute("aria-sort");
  const order = isDescending ? "descending" : "ascending";
  table.tHead.rows[0].cells[column].setAttribute("aria-sort", order);
}

function linked(name) {
  return new URLSearchParams(location.hash.slice(1)).get(name) ?? "";
}

function link(name, value) {
  const wanted = new URLSearchParams(location.hash.slice(1));
  if (value) wanted.set(name, value);
  else wanted.delete(name);
  history.replaceState(null, "", `#${wanted}`);
}

function sortAsLinked() {
  const wanted = linked("sort");
  for (const table of document.querySelectorAll("table.sortable")) {
    const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    const column = names.indexOf(wanted.replace(/^-/, ""));
    if (column >= 0) sort(table, column, wanted.startsWith("-"));
  }
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const isDescending = header.getAttribute("aria-sort") === "ascending";
      sort(table, column, isDescending);
      link("sort", `${isDescending ? "-" : ""}${header.textContent}`);
    });
  });
}
addEventListener("hashchange", sortAsLinked);
sortAsLinked();

[...document.querySelectorAll("table.filterable")].forEach((table, index) => {
  const name = `filter${index || ""}`;
  const [label, input, count] = ["label", "input", "output"].map((tag) => document.createElement(tag));
  label.className = "filter";
  input.type = "search";
  input.placeholder = "words in the row";
  label.append("Filter", input, count);
  table.closest(".scroll").before(label);
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) {
      const text = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = words.length ? `${shown} of ${rows.length}` : "";
  };
  const filterAsLinked = () => {
    input.value = linked(name);
    filter();
  };
  input.addEventListener("input", () => {
    filter();
    link(name, input.value);
  });
  addEventListener("hashchange", filterAsLinked);
  filterAsLinked();
});

function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text.textContent);
  getSelection().selectAllChildren(text);
  return document.execCommand("copy") ? Promise.resolve() : Promise.reject();
}

for (const text of document.querySelectorAll(".code pre")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", () => {
    const say = (words) => () => { button.textContent = words; };
    copy(text).then(say("Copied"), () => {
      getSelection().selectAllChildren(text);
      say("Selected: press Ctrl+C")();
    });
  });
  text.before(button);
}

// Fix what the theme lacks for keyboards, screen readers and phones; `nox -s site` checks the result.
for (const element of document.querySelectorAll("pre, .table-wrapper")) {
  element.tabIndex = 0; // it may scroll
}
for (const table of document.querySelectorAll(".table-wrapper table")) {
  const columns = [...table.querySelectorAll("thead th")].map((head) => head.textContent);
  for (const row of table.querySelectorAll("tbody tr")) {
    [...row.cells].forEach((cell, index) => (cell.dataset.column = columns[index]));
  }
}
for (const caption of document.querySelectorAll(".caption[role=heading]")) {
  caption.setAttribute("aria-level", "2");
}
for (const list of document.querySelectorAll(".sig > dl")) {
  // A signature over several lines is not a list of definitions.
  const lines = [...list.children].map((line) => {
    const block = document.createElement("span");
    block.append(...line.childNodes);
    return block;
  });
  list.replaceWith(...lines);
}
document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "All pages");
document.querySelector(".toc-drawer")?.setAttribute("aria-label", "On this page");

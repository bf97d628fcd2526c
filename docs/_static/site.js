// What the theme leaves to be wished by those who use a keyboard, a screen reader or a phone; `nox -s site` checks it.
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
  // A signature over several lines is no list of definitions.
  const lines = [...list.children].map((line) => {
    const block = document.createElement("span");
    block.append(...line.childNodes);
    return block;
  });
  list.replaceWith(...lines);
}
document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "All pages");
document.querySelector(".toc-drawer")?.setAttribute("aria-label", "On this page");

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
if (navigator.clipboard) {
  // Output ("text") is not for copying. Of a dialogue with a shell or with Python, the input is.
  for (const block of document.querySelectorAll("div[class*=highlight-]:not(.highlight-text, .highlight-none) > .highlight")) {
    const button = document.createElement("button");
    button.className = "copy";
    button.type = "button";
    button.textContent = "Copy";
    button.ariaLive = "polite";
    button.addEventListener("click", async () => {
      const lines = block.querySelector("pre").textContent.trimEnd().split("\n");
      const input = lines.filter((line) => /^(\$|>>>|\.\.\.)( |$)/.test(line)).map((line) => line.replace(/^\S+ ?/, ""));
      await navigator.clipboard.writeText((input.length ? input : lines).join("\n"));
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
    block.append(button);
  }
}
document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "All pages");
document.querySelector(".toc-drawer")?.setAttribute("aria-label", "On this page");

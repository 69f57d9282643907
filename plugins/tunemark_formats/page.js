"use strict";
(() => {
  const root = document.documentElement;
  const stored = (value) => {
    try { return value === undefined ? localStorage.getItem("tunemark-theme") : localStorage.setItem("tunemark-theme", value); }
    catch { return null; }  // a page opened from disk may have no storage
  };
  if (["light", "dark"].includes(stored())) root.dataset.theme = stored();
  const toggle = document.getElementById("theme");
  const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => toggle.setAttribute("aria-pressed", String(isDark()));
  toggle.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; stored(root.dataset.theme); name(); });
  name();
  document.getElementById("print").addEventListener("click", () => print());
  for (const button of document.querySelectorAll("button[data-file]")) {
    button.addEventListener("click", () => {
      const data = document.getElementById(button.dataset.from);
      const text = button.dataset.type.startsWith("text/csv") ? JSON.parse(data.textContent) : data.textContent;
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: button.dataset.type }));
      link.download = button.dataset.file;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
  const words = JSON.parse(document.getElementById("words").textContent);
  const make = (tag, more, ...inside) => { const each = Object.assign(document.createElement(tag), more); each.append(...inside); return each; };
  const said = (cell) => (cell.querySelector(":scope > details.w > summary") || cell).textContent.trim();
  const key = (cell) => {
    const text = said(cell), number = Number.parseFloat(text.replace(/,/g, ""));
    return /^[-+]?[\d.]/.test(text) && !Number.isNaN(number) ? number : text;
  };
  const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
  // A table of several rows can be sorted, filtered, and shown without some of its columns.
  for (const table of document.querySelectorAll("table[data-table]")) {
    const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
    if (rows.length < 3) continue;
    heads.forEach((head, at) => {
      const button = make("button", { type: "button", className: "sort", title: words.sort }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" }[head.ariaSort || "none"];
        for (const each of heads) each.removeAttribute("aria-sort");
        if (next !== "none") head.setAttribute("aria-sort", next);
        const sign = next === "descending" ? -1 : 1;
        body.append(...(next === "none" ? rows : [...rows].sort((a, b) => sign * compare(key(a.cells[at]), key(b.cells[at])))));
      });
    });
    const tools = make("div", { className: "tools pick" });
    if (rows.length > 5) {
      const input = make("input", { type: "search" }), count = make("span", { className: "count" });
      count.setAttribute("role", "status");
      tools.append(make("label", {}, words.filter, " ", input), count);
      input.addEventListener("input", () => {
        const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
        let n = 0;
        for (const row of rows) {
          const text = [...row.cells].map(said).join(" ").toLowerCase();
          row.hidden = !wanted.every((word) => word.length > 1 && word[0] === "-" ? !text.includes(word.slice(1)) : text.includes(word));
          n += row.hidden ? 0 : 1;
        }
        count.textContent = wanted.length ? words.count.replace("{n}", n).replace("{all}", rows.length) : "";
      });
    }
    if (heads.length > 3) {
      const list = make("div", {});
      heads.forEach((head, at) => {
        if (at === 0) return;
        const box = make("input", { type: "checkbox", checked: true });
        box.addEventListener("change", () => { for (const row of [head.parentElement, ...rows]) row.cells[at].hidden = !box.checked; });
        list.append(make("label", {}, box, " ", head.textContent));
      });
      tools.append(make("details", { className: "columns" }, make("summary", {}, words.columns), list));
    }
    if (tools.childElementCount) table.parentElement.before(tools);
  }
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const each of document.querySelectorAll("details.w[open]")) {
      if (each.contains(document.activeElement)) each.querySelector("summary").focus();
      each.open = false;
    }
  });
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details.defs:not([open], .data)")];
    for (const each of opened) each.open = true;
  });
  addEventListener("afterprint", () => { for (const each of opened) each.open = false; });
})();

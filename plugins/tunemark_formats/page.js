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
    opened = [...document.querySelectorAll("details.defs:not([open])")];
    for (const each of opened) each.open = true;
  });
  addEventListener("afterprint", () => { for (const each of opened) each.open = false; });
})();

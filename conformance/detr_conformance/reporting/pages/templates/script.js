"use strict";
(() => {
  const all = (what, where = document) => [...where.querySelectorAll(what)];
  const root = document.documentElement;
  const live = document.getElementById("live");

  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    live.textContent = `${root.dataset.theme} colours`;
    try { localStorage.setItem("detr-spec-theme", root.dataset.theme); } catch {}
  });

  // A link into something folded opens it.
  const reveal = () => {
    const found = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!found) return;
    for (let part = found; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
    found.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();

  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    for (const part of folded) part.open = true;
  });
  addEventListener("afterprint", () => { for (const part of folded) part.open = false; });

  const copied = async (text) => {
    try { await navigator.clipboard.writeText(text); return true; } catch {}
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  };
  for (const button of all(".copy")) {
    button.addEventListener("click", async () => {
      const done = await copied(button.parentElement.querySelector("code").textContent);
      button.focus();
      button.textContent = done ? "Copied" : "Select and copy";
      live.textContent = done ? "the command was copied" : "the browser does not allow copying";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }

  for (const section of all(".filtered")) {
    const search = section.querySelector(".search");
    const filters = all(".filter", section);
    const rows = all(".row", section);
    const apply = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const wanted = new Set(filters.filter((each) => each.getAttribute("aria-pressed") === "true").map((each) => each.dataset.verdict));
      let count = 0;
      for (const row of rows) {
        const verdicts = row.dataset.verdict.split(" ");
        const kept = (!wanted.size || verdicts.some((each) => wanted.has(each))) && words.every((each) => row.dataset.search.includes(each));
        row.hidden = !kept;
        count += kept;
      }
      for (const group of all(".group", section)) {
        group.hidden = !group.querySelector(".row:not([hidden])");
        if (words.length || wanted.size) group.open = true;
      }
      section.querySelector(".nothing").hidden = count > 0;
      section.querySelector(".found").textContent = words.length || wanted.size ? `${count} of ${rows.length}` : "";
    };
    search.addEventListener("input", apply);
    search.addEventListener("keydown", (event) => { if (event.key === "Escape") { search.value = ""; apply(); } });
    for (const filter of filters) {
      filter.addEventListener("click", () => {
        filter.setAttribute("aria-pressed", String(filter.getAttribute("aria-pressed") !== "true"));
        apply();
      });
    }
    if (search.value) apply();
  }
})();

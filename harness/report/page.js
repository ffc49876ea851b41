"use strict";
/* What the page does beyond being read: draws its figures, shows and hides targets in all of them, sorts the table of
   cells, and, where it is served (a meta element "harness-live"), follows the sweep. Texts from records reach the page
   as text only (textContent, attributes), never as markup or as an expression. */
(() => {
  const FIRST_ROWS = 200, MORE_ROWS = 500, POLL_MS = 2000, NEWS_MS = 4000, LOST_AFTER = 3, ERRORS_ONLY = 1;
  const root = document.documentElement;
  root.classList.add("scripted");

  const chosen = { hidden: new Set(), accuracy: null, work: "0", sort: null, rows: FIRST_ROWS };
  const picked = new Set();
  const views = new Map();
  let data = null;
  let generation = 0;

  const all = (selector, within = document) => Array.from(within.querySelectorAll(selector));

  // A line of news, which goes again unless it is to stay; screen readers read it out.
  let clearing = 0;
  function say(text, stays = false) {
    clearTimeout(clearing);
    document.getElementById("news").textContent = text;
    if (!stays) clearing = setTimeout(() => say("", true), NEWS_MS);
  }

  /* Figures */

  // A legend's entries can be clicked, and fade where their target is hidden; the expression is fixed text.
  function clickableLegends(spec) {
    const faded = { signal: "indexof(hidden, datum.value) < 0 ? 1 : 0.3" };
    for (const legend of spec.legends || []) {
      if (!legend.values || legend.values.length < 2 || !(legend.fill || legend.stroke || legend.shape)) continue;
      if (legend.fill !== "color" && legend.stroke !== "color" && legend.shape !== "shape") continue;
      legend.encode = legend.encode || {};
      for (const part of ["symbols", "labels"]) {
        const had = legend.encode[part] || {};
        legend.encode[part] = {
          ...had, interactive: true,
          update: { ...(had.update || {}), opacity: faded, cursor: { value: "pointer" } },
        };
      }
    }
    return spec;
  }

  async function draw(box) {
    const name = box.dataset.figure;
    const mine = generation;
    const narrow = box.clientWidth < 520;
    const config = { ...data.config, legend: { ...data.config.legend, columns: narrow ? 1 : 3 } };
    const result = await vegaEmbed(box, data.figures[name].spec, {
      mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false,
      tooltip: { disableDefaultStyle: true }, logLevel: ERRORS_ONLY, config, patch: clickableLegends,
    });
    if (mine !== generation) { result.finalize(); return; }
    views.set(name, result);
    result.view.addEventListener("click", (event, item) => {
      const role = item && item.mark && item.mark.role || "";
      if (/^legend-(symbol|label)$/.test(role) && item.datum) toggle(String(item.datum.value));
    });
    tell(name);
  }

  // Of the present choice to one figure: which targets are hidden, which accuracy is looked at.
  function tell(name) {
    const { view } = views.get(name);
    view.signal("hidden", Array.from(chosen.hidden));
    const words = data.figures[name].words.find((one) => one[0] === chosen.accuracy);
    if (words) {
      view.signal("accuracy", chosen.accuracy);
      const figure = document.getElementById(name);
      figure.querySelector("h4").textContent = words[1];
      figure.querySelector(".chart").setAttribute("aria-label", words[2]);
      figure.querySelector(".in-words").textContent = words[2];
      figure.querySelector("caption").textContent = words[1];
      const text = chosen.accuracy.toFixed(2);
      for (const row of all("tbody tr", figure)) row.hidden = row.cells[0].textContent !== text;
    }
    return view.runAsync();
  }

  async function drawWork() {
    const mine = ++generation;
    for (const result of views.values()) result.finalize();
    views.clear();
    for (const section of all(".work")) section.hidden = section.dataset.work !== chosen.work;
    for (const box of all(`.work[data-work="${CSS.escape(chosen.work)}"] .chart, #load-figures .chart`)) {
      if (mine !== generation) return;
      try { await draw(box); } catch (problem) {
        box.textContent = "This figure could not be drawn here; its data are in the table below.";
        console.error(problem);
      }
    }
    if (mine === generation) root.dataset.drawn = String(Number(root.dataset.drawn || 0) + 1);
  }

  function toggle(target) {
    const button = all(".target").find((one) => one.dataset.target === target);
    if (!button) return;
    if (!chosen.hidden.delete(target)) chosen.hidden.add(target);
    button.setAttribute("aria-pressed", String(!chosen.hidden.has(target)));
    for (const name of views.keys()) tell(name);
    say(`${target} ${chosen.hidden.has(target) ? "hidden in" : "shown in"} the figures`);
  }

  /* The table of cells */

  const number = (text) => text === "-" ? null : Number(text.replace(/,/g, ""));

  function order() {
    const count = data.table.length ? data.table[0].rows.length : 0;
    const places = Array.from({ length: count }, (_, place) => place);
    if (!chosen.sort) return places;
    const { column, descending } = chosen.sort;
    const { texts, rows } = data.table[column];
    const numbers = texts.map(number);
    const numeric = numbers.every((value) => value === null || !Number.isNaN(value));
    const keys = numeric ? numbers : texts.map((text) => text === "-" ? null : text);
    const compare = numeric ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
    return places.sort((one, other) => {
      const a = keys[rows[one]], b = keys[rows[other]];
      if (a === null || b === null) return (a === null) - (b === null) || one - other;
      return (descending ? -compare(a, b) : compare(a, b)) || one - other;
    });
  }

  function fillTable() {
    const table = document.getElementById("headline");
    if (!table) return;
    const heads = all("thead th", table), places = order();
    heads.forEach((head, column) => {
      if (chosen.sort && chosen.sort.column === column) {
        head.setAttribute("aria-sort", chosen.sort.descending ? "descending" : "ascending");
      } else head.removeAttribute("aria-sort");
    });
    const rows = places.slice(0, chosen.rows).map((place) => {
      const row = document.createElement("tr");
      data.table.forEach((column, index) => {
        const cell = document.createElement("td");
        cell.textContent = column.texts[column.rows[place]];
        if (heads[index].classList.contains("number")) cell.className = "number";
        else if (index === data.table.length - 1) cell.className = cell.textContent === "ok" ? "status ok" : "status bad";
        row.append(cell);
      });
      return row;
    });
    table.tBodies[0].replaceChildren(...rows);
    const shown = rows.length, total = places.length, more = document.getElementById("more");
    more.hidden = shown >= total;
    more.textContent = `Show ${Math.min(MORE_ROWS, total - shown).toLocaleString("en")} more rows`;
    document.getElementById("rows-shown").textContent = shown < total
      ? `${shown.toLocaleString("en")} of ${total.toLocaleString("en")} rows.`
      : `${total.toLocaleString("en")} ${total === 1 ? "row" : "rows"}.`;
  }

  function sortBy(column) {
    const again = chosen.sort && chosen.sort.column === column;
    if (again && chosen.sort.descending) chosen.sort = null;
    else chosen.sort = { column, descending: Boolean(again) };
    fillTable();
    const name = all("#headline thead th")[column].textContent.trim();
    say(chosen.sort ? `Sorted by ${name}, ${chosen.sort.descending ? "largest" : "smallest"} first` : "In the order of the run");
  }

  /* Putting it together, at the start and whenever the page's content was replaced */

  function start() {
    data = JSON.parse(document.getElementById("data").textContent);
    for (const button of all(".target")) {
      button.setAttribute("aria-pressed", String(!chosen.hidden.has(button.dataset.target)));
      button.addEventListener("click", () => toggle(button.dataset.target));
    }
    choice("accuracy", Number, () => { for (const name of views.keys()) tell(name); });
    choice("work", String, drawWork);
    all("#headline thead button").forEach((button, column) => button.addEventListener("click", () => sortBy(column)));
    const more = document.getElementById("more");
    if (more) more.addEventListener("click", () => { chosen.rows += MORE_ROWS; fillTable(); });
    fillTable();
    return drawWork();
  }

  // A select; what a person picked there outlives a replaced page where it is still on offer.
  function choice(name, read, changed) {
    const select = document.getElementById(`choose-${name}`);
    if (!select) { chosen[name] = name === "work" ? "0" : null; return; }
    const offered = Array.from(select.options).find((option) => read(option.value) === chosen[name]);
    if (picked.has(name) && offered) select.value = offered.value;
    chosen[name] = read(select.value);
    select.addEventListener("change", () => {
      picked.add(name);
      chosen[name] = read(select.value);
      changed();
    });
  }

  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    for (const details of closed) details.open = true;
  });
  window.addEventListener("afterprint", () => { for (const details of closed) details.open = false; });

  /* Following a sweep that is under way */

  async function follow(meta) {
    let version = meta.content, lost = 0;
    for (;;) {
      await new Promise((wake) => setTimeout(wake, POLL_MS));
      try {
        const answer = await fetch("version", { cache: "no-store" });
        lost = 0;
        if (!answer.ok || (await answer.text()).trim() === version) continue;
        const page = await fetch(location.pathname, { cache: "no-store" });
        if (page.ok) version = await replace(await page.text());
      } catch (problem) {
        if (++lost < LOST_AFTER) continue;
        const { state } = document.getElementById("main").dataset;
        say(`No longer following: the sweep has ended or was stopped (${state}). Its page is report.html in the run folder.`, true);
        return;
      }
    }
  }

  // Put a newly fetched page in place of this one's content, where the reader is; gives its version.
  async function replace(text) {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const main = document.getElementById("main"), latest = fresh.getElementById("main");
    const version = fresh.querySelector('meta[name="harness-live"]').content;
    const open = new Set(all("details[open][data-key]").map((details) => details.dataset.key));
    const focused = document.activeElement && main.contains(document.activeElement) ? document.activeElement : null;
    const sought = focused && (focused.dataset.target ? [".target", "target"] : focused.dataset.column ? ["thead button", "column"] : null);
    const seen = all("h2[id], figure[id], table[id]", main).find((one) => one.getBoundingClientRect().top >= 0);
    const top = seen ? seen.getBoundingClientRect().top : 0;
    main.style.minHeight = `${main.offsetHeight}px`;
    main.replaceChildren(...Array.from(latest.childNodes).map((node) => document.importNode(node, true)));
    main.dataset.state = latest.dataset.state;
    document.title = fresh.title;
    for (const details of all("details[data-key]")) if (open.has(details.dataset.key)) details.open = true;
    const drawn = start();
    if (sought) {
      const same = all(sought[0]).find((one) => one.dataset[sought[1]] === focused.dataset[sought[1]]);
      if (same) same.focus({ preventScroll: true });
    } else if (focused && focused.id && document.getElementById(focused.id)) {
      document.getElementById(focused.id).focus({ preventScroll: true });
    }
    await drawn;
    main.style.minHeight = "";
    const again = seen && document.getElementById(seen.id);
    if (again) window.scrollBy({ top: again.getBoundingClientRect().top - top, behavior: "instant" });
    say(`Updated: ${main.dataset.state}`);
    return version;
  }

  start();
  const live = document.querySelector('meta[name="harness-live"]');
  if (live) follow(live);
})();

// The legend of a layer: a switch for each entry, with its share of the photo and its score.

import { make } from "./dom.js";

/** @typedef {import("./api.js").Entry} Entry */

/** @param {number} share */
export function percent(share) {
  if (share > 0 && share < 0.001) return "<0.1 %";
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}

/**
 * Return the nodes of the legend.
 * @param {Entry[]} entries
 * @param {Set<string>} off  names that are switched off; changed by the switches
 * @param {() => void} changed
 * @param {(value: number) => void} point  lets an entry stand out, 0 for none
 * @returns {HTMLElement[]}
 */
export function legend(entries, off, changed, point) {
  if (!entries.length) return [make("p", {}, "Nothing of these words was found: all is background.")];
  const list = make("div", { class: "legend" });
  /** @type {Map<string, HTMLElement>} */
  const groups = new Map();
  for (const entry of entries) {
    const owner = entry.instance ? `${entry.object} ${entry.instance}` : entry.object;
    const heading = !owner || !(entry.part || entry.rest) ? "" : owner === "any" ? "any object" : owner;
    let group = groups.get(heading);
    if (!group) {
      group = make("div", { class: "group" }, ...(heading ? [make("h4", {}, heading)] : []));
      groups.set(heading, group);
    }
    group.append(row(entry, off, changed, point));
  }
  list.append(...groups.values());
  const every = (/** @type {boolean} */ on) => () => {
    off.clear();
    if (!on) entries.forEach((entry) => off.add(entry.name));
    for (const box of list.querySelectorAll("input")) box.checked = on;
    changed();
  };
  const head = make("div", { class: "all" }, make("span", {}, `${entries.filter((entry) => !entry.rest).length} found`),
    make("button", { type: "button", onclick: every(true) }, "show all"),
    make("button", { type: "button", onclick: every(false) }, "hide all"));
  const columns = make("div", { class: "columns", "aria-hidden": "true" }, "share of photo", make("span", {}, "score"));
  return [head, columns, list];
}

/**
 * @param {Entry} entry
 * @param {Set<string>} off
 * @param {() => void} changed
 * @param {(value: number) => void} point
 */
function row(entry, off, changed, point) {
  // The score of a rest is that of the best part, which it does not belong to.
  const share = percent(entry.share), score = entry.rest ? "" : entry.score.toFixed(2);
  const box = make("input", {
    type: "checkbox", "aria-label": `${entry.name}, ${share} of the photo${score && `, score ${score}`}`,
    onchange: () => {
      if (box.checked) off.delete(entry.name);
      else off.add(entry.name);
      changed();
    },
    onfocus: () => point(entry.value), onblur: () => point(0),
  });
  box.checked = !off.has(entry.name);
  const short = entry.rest ? "rest" : entry.part ?? entry.name;
  const line = make("label", {
    title: entry.name, "data-value": entry.value,
    onpointerenter: () => point(entry.value), onpointerleave: () => point(0),
  }, box, make("i"), make("span", { class: entry.rest ? "rest" : "" }, short), make("small", {}, share),
  make("small", {}, score));
  line.style.setProperty("--colour", `rgb(${entry.colour})`);
  return line;
}

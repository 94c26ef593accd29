// Tabs and sliders above the result: what all its panels show.

import { make } from "./dom.js";

/** @typedef {import("./panel.js").Sliders} Sliders */

/** Titles of the tabs by their views. @type {ReadonlyMap<string, string>} */
export const VIEWS = new Map([
  ["object_parts", "Object-parts"], ["objects", "Objects"], ["parts", "Parts"],
  ["probability", "Probability"], ["attention", "Attention"],
]);

export class Toolbar {
  /**
   * @param {Sliders} sliders  changed by this bar
   * @param {string[]} views  those that the result has
   * @param {(what: "view" | "slider") => void} changed
   */
  constructor(sliders, views, changed) {
    this.sliders = sliders;
    this.changed = changed;
    this.tabs = make("div", { class: "tabs", role: "tablist", "aria-label": "What to show", onkeydown: (event) =>
      this.step(/** @type {KeyboardEvent} */ (event)) });
    for (const view of views) {
      this.tabs.append(make("button", {
        type: "button", role: "tab", id: `tab-${view}`, "data-view": view, "aria-controls": "panels",
        onclick: () => this.choose(view),
      }, VIEWS.get(view) ?? view));
    }
    if (!views.includes(sliders.view)) sliders.view = views[0];
    this.controls = make("div", { class: "controls" },
      this.slider("Opacity", "opacity", (value) => `${Math.round(100 * value)} %`),
      this.slider("Minimum score", "score", (value) => value.toFixed(2)));
    this.element = make("div", { class: "bar" }, this.tabs, this.controls);
    this.mark();
  }

  mark() {
    for (const tab of this.tabs.querySelectorAll("button")) {
      const chosen = tab.dataset.view === this.sliders.view;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
    }
    this.controls.hidden = ["probability", "attention"].includes(this.sliders.view);
  }

  /** @param {string} view */
  choose(view) {
    this.sliders.view = view;
    this.mark();
    this.changed("view");
  }

  /**
   * Move along the tabs by keys, as people expect of tabs.
   * @param {KeyboardEvent} event
   */
  step(event) {
    const tabs = [...this.tabs.querySelectorAll("button")], at = tabs.findIndex((tab) => tab === event.target);
    const moves = new Map([["ArrowRight", at + 1], ["ArrowLeft", at - 1], ["Home", 0], ["End", tabs.length - 1]]);
    const to = moves.get(event.key);
    if (to === undefined) return;
    event.preventDefault();
    const next = tabs[(to + tabs.length) % tabs.length];
    next.click();
    next.focus();
  }

  /**
   * @param {string} name
   * @param {"opacity" | "score"} field
   * @param {(value: number) => string} text
   */
  slider(name, field, text) {
    const shown = make("output", {}, text(this.sliders[field]));
    const input = make("input", {
      type: "range", min: 0, max: 1, step: 0.01, value: this.sliders[field], "aria-label": name, oninput: () => {
        this.sliders[field] = Number(input.value);
        shown.value = text(this.sliders[field]);
        this.changed("slider");
      },
    });
    return make("label", {}, make("span", {}, name), input, shown);
  }
}

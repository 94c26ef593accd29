// One result: the photo under its segments or a heat map, and beside it the legend or the choice of a class.

import { context2d, make } from "./dom.js";
import { legend } from "./legend.js";
import { decoded, heatColour, labelMap, paintHeat, paintLabels, pixels } from "./painting.js";

/** @typedef {import("./api.js").Entry} Entry */
/** @typedef {import("./api.js").Explained} Explained */
/** @typedef {import("./api.js").LayerView} LayerView */
/** @typedef {import("./api.js").HeatView} HeatView */
/** @typedef {{ view: string, opacity: number, score: number }} Sliders */

/** What a view shows, where its title does not say it. @type {ReadonlyMap<string, string>} */
const ABOUT = new Map([
  ["parts", "Generalized parts: what the part words say alone, whatever the object, inside the objects found."],
  ["probability", "How sure the model is of one class, object or part at each place; beside it, its greatest value."],
  ["attention", "Where the pixels of a class look in the decoder's last layer."],
]);
const KINDS = { "object-part": "Object-parts", object: "Objects", part: "Generalized parts" };

export class Panel {
  /**
   * Decode the pictures of a result and make its panel.
   * @param {Explained} result
   * @param {string} title  empty for none
   * @param {Sliders} sliders  read at each drawing
   */
  static async create(result, title, sliders) {
    const photo = await decoded(result.picture, "jpeg");
    const panel = new Panel(result, title, sliders, photo);
    for (const [view, layer] of Object.entries(result.layers)) panel.maps.set(view, await labelMap(layer.map));
    for (const [view, heat] of Object.entries(result.heat)) {
      if (heat) panel.atlases.set(view, await pixels(heat.atlas));
    }
    panel.show();
    return panel;
  }

  /**
   * @param {Explained} result
   * @param {string} title
   * @param {Sliders} sliders
   * @param {HTMLImageElement} photo
   */
  constructor(result, title, sliders, photo) {
    this.result = result;
    this.sliders = sliders;
    /** @type {Map<string, import("./painting.js").LabelMap>} */
    this.maps = new Map();
    /** @type {Map<string, import("./painting.js").Pixels>} */
    this.atlases = new Map();
    /** Names that the legend has switched off, by view. @type {Map<string, Set<string>>} */
    this.off = new Map(Object.keys(result.layers).map((view) => [view, new Set()]));
    this.pointed = 0;
    this.chosen = "";
    const { width, height } = photo;
    this.photo = make("canvas", { width, height, "aria-hidden": "true" });
    context2d(this.photo).drawImage(photo, 0, 0);
    this.paint = make("canvas", {
      role: "img", width, height, onpointermove: (event) => this.hover(/** @type {PointerEvent} */ (event)),
      onpointerdown: (event) => this.hover(/** @type {PointerEvent} */ (event)), onpointerleave: () => this.leave(),
    });
    this.tip = make("div", { class: "tip", hidden: true });
    this.side = make("div", { class: "side" });
    const stage = make("div", { class: "stage" }, this.photo, this.paint, this.tip);
    const heading = title ? [make("h3", { title }, title)] : [];
    this.element = make("section", { class: "panel", "aria-label": title || "Result" },
      ...heading, make("div", { class: "body" }, stage, this.side));
  }

  get view() { return this.sliders.view; }

  /** The layer of the view, or undefined where it shows heat. */
  get layer() { return this.result.layers[/** @type {LayerView} */ (this.view)]; }

  /** The heat maps of the view; null where this result has none. */
  get heat() { return this.result.heat[/** @type {HeatView} */ (this.view)]; }

  /** Show the view that the tabs name. */
  show() {
    this.leave();
    const sentence = ABOUT.get(this.view), about = sentence ? [make("p", { class: "help" }, sentence)] : [];
    this.side.replaceChildren(...about, ...(this.layer ? this.legend() : this.heatChoice()));
    // Grey lets the colours of segments and heat stand out, as in the overlays that are written to files.
    this.photo.style.filter = this.layer ? "saturate(0.45)" : "saturate(0)";
    this.draw();
  }

  draw() {
    if (this.layer) this.drawLayer(this.layer.entries);
    else if (this.heat) this.drawHeat();
    else context2d(this.paint).clearRect(0, 0, this.paint.width, this.paint.height);
  }

  // -- segments ---------------------------------------------------------------------------------------------

  legend() {
    const off = this.offNow();
    return legend(this.layer.entries, off, () => this.draw(), (value) => this.point(value));
  }

  offNow() { return /** @type {Set<string>} */ (this.off.get(this.view)); }

  /**
   * Whether an entry is painted. The score of a rest is low by its nature and hides nothing.
   * @param {Entry} entry
   */
  visible(entry) {
    return !this.offNow().has(entry.name) && (entry.rest || entry.score >= this.sliders.score);
  }

  /** @param {Entry[]} entries */
  drawLayer(entries) {
    const seen = entries.filter((entry) => this.visible(entry)), values = new Set(seen.map((entry) => entry.value));
    for (const row of this.side.querySelectorAll("[data-value]")) {
      row.classList.toggle("off", !values.has(Number(row.getAttribute("data-value"))));
    }
    const { opacity } = this.sliders;
    const shown = new Map(seen.map(({ value, colour }) => {
      const faded = this.pointed && this.pointed !== value;
      return [value, { colour, opacity: opacity * (faded ? 0.35 : 1) }];
    }));
    const map = this.maps.get(this.view);
    if (map) paintLabels(this.paint, map, shown, Math.min(0.92, 1.5 * opacity));
    this.paint.setAttribute("aria-label", seen.length
      ? `The photo with ${seen.map((entry) => entry.name).join(", ")}` : "The photo, with nothing found");
  }

  /**
   * Let one entry stand out, 0 for none.
   * @param {number} value
   */
  point(value) {
    if (this.pointed === value) return;
    this.pointed = value;
    if (this.layer) this.draw();
  }

  // -- heat maps --------------------------------------------------------------------------------------------

  /** The place of the chosen class: the last choice, or else the strongest class of the result. */
  get chosenIndex() {
    const entries = this.heat?.entries ?? [];
    const index = entries.findIndex((entry) => `${entry.kind} ${entry.name}` === this.chosen);
    if (index >= 0) return index;
    const parts = entries.map((_, i) => i).filter((i) => entries[i].kind === "object-part");
    return parts.reduce((best, i) => (entries[i].peak > entries[best].peak ? i : best), parts[0] ?? 0);
  }

  heatChoice() {
    if (!this.heat) return [make("p", {}, "This result has none: the model has none, or there are too many words.")];
    const { entries } = this.heat;
    const choose = make("select", { "aria-label": "Class", onchange: () => {
      const entry = entries[Number(choose.value)];
      this.chosen = `${entry.kind} ${entry.name}`;
      this.draw();
    } });
    for (const [kind, label] of Object.entries(KINDS)) {
      const options = entries.map((entry, i) => ({ entry, i })).filter(({ entry }) => entry.kind === kind)
        .map(({ entry, i }) => make("option", { value: i },
          this.view === "attention" ? entry.name : `${entry.name} (${entry.peak.toFixed(2)})`));
      if (options.length) choose.append(make("optgroup", { label }, ...options));
    }
    choose.value = String(this.chosenIndex);
    const bar = make("canvas", { width: 128, height: 1, "aria-hidden": "true" }), context = context2d(bar);
    for (let x = 0; x < 128; x++) {
      context.fillStyle = `rgb(${heatColour(x / 127)})`;
      context.fillRect(x, 0, 1, 1);
    }
    const most = this.view === "probability" ? "1" : "most";
    return [choose, make("div", { class: "scale" }, "0", bar, most)];
  }

  /**
   * The chosen map's value, 0 to 1, at a pixel of the map.
   * @param {number} x
   * @param {number} y
   */
  heatAt(x, y) {
    const atlas = this.atlases.get(this.view), { heat, chosenIndex: index } = this;
    if (!atlas || !heat) return 0;
    const row = Math.floor(index / heat.columns) * heat.height + y, column = (index % heat.columns) * heat.width + x;
    return atlas.data[4 * (row * atlas.width + column)] / 255;
  }

  drawHeat() {
    if (!this.heat) return;
    Object.assign(this.paint, { width: this.photo.width, height: this.photo.height });
    const { heat, chosenIndex: index } = this, atlas = this.atlases.get(this.view);
    if (!atlas) return;
    const top = Math.floor(index / heat.columns) * heat.height, left = (index % heat.columns) * heat.width;
    paintHeat(this.paint, heat, (x, y) => atlas.data[4 * ((top + y) * atlas.width + left + x)] / 255);
    this.paint.setAttribute("aria-label", `The photo under the ${this.view} of ${heat.entries[index].name}`);
  }

  // -- the pointer ------------------------------------------------------------------------------------------

  leave() {
    this.tip.hidden = true;
    this.point(0);
  }

  /** @param {PointerEvent} event */
  hover(event) {
    const box = this.paint.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
    const text = this.nameAt(Math.min(0.999999, Math.max(0, x)), Math.min(0.999999, Math.max(0, y)));
    this.tip.hidden = !text;
    if (!text) return;
    this.tip.textContent = text;
    const half = this.tip.offsetWidth / 2;
    this.tip.style.left = `${Math.max(half, Math.min(box.width - half, x * box.width))}px`;
    this.tip.style.top = `${Math.max(this.tip.offsetHeight + 12, y * box.height)}px`;
  }

  /**
   * What is shown at a place, x and y from 0 to 1, for the tip; in a layer it also stands out.
   * @param {number} x
   * @param {number} y
   */
  nameAt(x, y) {
    const map = this.layer && this.maps.get(this.view);
    if (map) {
      const value = map.labels[Math.floor(y * map.height) * map.width + Math.floor(x * map.width)];
      const entry = this.layer.entries.find((one) => one.value === value);
      const seen = entry && this.visible(entry);
      this.point(seen ? value : 0);
      return seen ? `${entry.name}  ${entry.score.toFixed(2)}` : "";
    }
    if (this.view !== "probability" || !this.heat) return "";
    const value = this.heatAt(Math.floor(x * this.heat.width), Math.floor(y * this.heat.height));
    return `${this.heat.entries[this.chosenIndex].name}  ${value.toFixed(2)}`;
  }
}

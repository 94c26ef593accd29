// The result of the photo that is shown: toolbar, one panel or two, and the downloads.

import { archive } from "./api.js";
import { make } from "./dom.js";
import { Panel } from "./panel.js";
import { stem } from "./photos.js";
import { Toolbar, VIEWS } from "./toolbar.js";
import { joinArchives } from "./zip.js";

/** @typedef {import("./photos.js").Photo} Photo */
/** @typedef {import("./photos.js").Run} Run */
/** @typedef {import("./api.js").LayerView} LayerView */
/** @typedef {import("./api.js").HeatView} HeatView */

export class ResultView {
  /**
   * @param {HTMLElement} element
   * @param {import("./panel.js").Sliders} sliders
   * @param {() => void} changed  after a tab or slider has moved
   * @param {(error: unknown) => void} failed
   */
  constructor(element, sliders, changed, failed) {
    this.element = element;
    this.sliders = sliders;
    this.changed = changed;
    this.failed = failed;
    this.drawing = 0;
    /** @type {HTMLButtonElement | undefined} */
    this.all = undefined;
  }

  /**
   * Show the result of a photo, or none.
   * @param {Photo | undefined} photo
   * @param {() => Photo[]} answered  all photos that have a result
   */
  async show(photo, answered) {
    const drawing = ++this.drawing;
    if (!photo?.runs.length) {
      this.element.hidden = true;
      this.element.replaceChildren();
      return;
    }
    const { runs } = photo, titles = titlesOf(runs);
    const panels = await Promise.all(runs.map(({ result }, i) => Panel.create(result, titles[i], this.sliders)));
    if (drawing !== this.drawing) return; // another photo was chosen meanwhile
    const views = [...VIEWS.keys()].filter((view) => runs.some(({ result }) =>
      result.layers[/** @type {LayerView} */ (view)] ?? result.heat[/** @type {HeatView} */ (view)]));
    const stage = make("div", { id: "panels", role: "tabpanel", "data-count": panels.length });
    const toolbar = new Toolbar(this.sliders, views, (what) => {
      for (const panel of panels) what === "view" ? panel.show() : panel.draw();
      stage.setAttribute("aria-labelledby", `tab-${this.sliders.view}`);
      this.changed();
    });
    stage.setAttribute("aria-labelledby", `tab-${this.sliders.view}`);
    for (const panel of panels) panel.show();
    stage.append(...panels.map((panel) => panel.element));
    const one = this.button("download", "Download as ZIP", () => [photo]);
    this.all = this.button("download-all", "Download all photos as ZIP", answered);
    const help = make("p", { class: "help" },
      "Overlay, label map, masks, JSON, CSV, COCO, LabelMe, YOLO and Label Studio, and maps of the objects where they "
      + "are told apart, at the sliders' opacity and score.");
    this.element.replaceChildren(toolbar.element, stage,
      make("div", { class: "downloads" }, one, this.all, help));
    this.count(answered().length);
    this.element.hidden = false;
    this.element.dataset.photo = photo.name;
  }

  /**
   * Offer the files of all photos where several have a result.
   * @param {number} answered
   */
  count(answered) {
    if (this.all) this.all.hidden = answered < 2;
  }

  /**
   * @param {string} id
   * @param {string} label
   * @param {() => Photo[]} photos
   */
  button(id, label, photos) {
    const node = make("button", { type: "button", id, class: "secondary", onclick: async () => {
      node.disabled = true;
      node.textContent = "Preparing the files …";
      try {
        await download(photos(), this.sliders);
      } catch (error) {
        this.failed(error);
      } finally {
        node.disabled = false;
        node.textContent = label;
      }
    } }, label);
    return node;
  }
}

/**
 * Ask for the files of each photo and save them as one ZIP; a comparison has a folder for each side.
 * @param {Photo[]} photos
 * @param {import("./panel.js").Sliders} sliders
 */
async function download(photos, sliders) {
  const parts = [];
  for (const { file, name, runs } of photos) {
    for (const [i, { question }] of runs.entries()) {
      const folder = runs.length > 1 ? "ab"[i] : "";
      parts.push({ folder, archive: await archive(file, name, question, sliders) });
    }
  }
  const address = URL.createObjectURL(joinArchives(parts));
  const name = photos.length === 1 ? `${stem(photos[0].name)}.parts.zip` : "parts.zip";
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/**
 * Return what tells the sides of a comparison apart: words, model, or both; nothing for a single result.
 * @param {Run[]} runs
 */
function titlesOf(runs) {
  if (runs.length === 1) return [""];
  const words = runs.map(({ question }) => shortened(question.vocabulary));
  const models = runs.map(({ result }) => result.model);
  return runs.map((_, i) => [
    ...(models[0] !== models[1] ? [models[i]] : []),
    ...(words[0] !== words[1] || models[0] === models[1] ? [words[i]] : []),
  ].join(" · "));
}

/** @param {string} words */
function shortened(words) {
  const line = words.split("\n").map((one) => one.trim()).filter(Boolean).join("; ") || "the model's own words";
  return line.length <= 200 ? line : `${line.slice(0, 197)}...`;
}

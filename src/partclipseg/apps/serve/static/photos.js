// The photos that were chosen, as a row of pictures of which one is shown. They stay in this page's memory.

import { make } from "./dom.js";
import { scenePicture } from "./api.js";

/** @typedef {import("./api.js").Explained} Explained */
/** @typedef {import("./api.js").Question} Question */
/** @typedef {{ question: Question, result: Explained }} Run */

/**
 * @typedef {object} Photo
 * @property {Blob} file
 * @property {string} name
 * @property {string} scene  name of the example, or empty
 * @property {HTMLInputElement} choice
 * @property {HTMLElement} badge
 * @property {string} address  of the picture, to be revoked
 * @property {string} asked  what the result answers, as JSON
 * @property {Run[]} runs
 * @property {string} error
 */

export class Photos {
  /**
   * @param {HTMLFieldSetElement} list
   * @param {() => void} changed  after another photo is shown, or there are others
   * @param {() => void} renewed  after photos came or went
   */
  constructor(list, changed, renewed) {
    this.list = list;
    this.changed = changed;
    this.renewed = renewed;
    /** @type {Photo[]} */
    this.all = [];
    /** @type {Photo | undefined} */
    this.current = undefined;
  }

  /**
   * Add photos and show the first of them.
   * @param {Iterable<Blob & { name?: string }>} files
   * @param {string} [scene]
   */
  add(files, scene = "") {
    const chosen = [...files];
    if (!chosen.length) return;
    // An example gives way to whatever follows it.
    for (const photo of this.all.filter((one) => one.scene)) this.remove(photo, true);
    const first = this.all.length;
    for (const file of chosen) this.all.push(this.item(file, file.name || "photo.png", scene));
    this.renewed();
    this.show(this.all[first]);
  }

  /**
   * Fetch an example and show it.
   * @param {string} name
   */
  async addScene(name) {
    this.add([new File([await scenePicture(name)], name)], name);
  }

  /**
   * @param {Photo} photo
   * @param {boolean} [quietly]
   */
  remove(photo, quietly = false) {
    const at = this.all.indexOf(photo);
    this.all.splice(at, 1);
    URL.revokeObjectURL(photo.address);
    photo.choice.closest(".photo")?.remove();
    if (quietly) return;
    this.renewed();
    this.show(this.all[Math.min(at, this.all.length - 1)]);
    (this.current?.choice ?? document.getElementById("file"))?.focus();
  }

  /** @param {Photo | undefined} photo */
  show(photo) {
    this.current = photo;
    if (photo) photo.choice.checked = true;
    this.list.hidden = !this.all.length;
    this.changed();
  }

  /**
   * Say how far a photo is, on its picture.
   * @param {Photo} photo
   * @param {string} sentence
   * @param {"" | "busy" | "done" | "failed"} state
   */
  mark(photo, sentence, state) {
    photo.badge.textContent = sentence;
    photo.badge.className = `badge ${state}`;
  }

  /**
   * @param {Blob} file
   * @param {string} name
   * @param {string} scene
   * @returns {Photo}
   */
  item(file, name, scene) {
    const address = URL.createObjectURL(file);
    // Formats that the browser cannot show, such as HEIC and TIFF, have their name only.
    const picture = make("img", { src: address, alt: "", onerror: () => picture.replaceWith(make("b", {}, "no preview")) });
    const badge = make("span", { class: "badge" });
    const choice = make("input", { type: "radio", name: "photo", class: "unseen", onchange: () => this.show(photo) });
    /** @type {Photo} */
    const photo = { file, name: this.unused(name), scene, choice, badge, address, asked: "", runs: [], error: "" };
    const remove = make("button", {
      type: "button", class: "remove", "aria-label": `remove ${photo.name}`, title: "remove",
      onclick: () => this.remove(photo),
    }, "×");
    this.list.append(make("div", { class: "photo" },
      make("label", { title: photo.name }, choice, picture, make("span", { class: "name" }, photo.name), badge), remove));
    return photo;
  }

  /**
   * A name whose stem no other photo has: it tells photos apart in the list and in their files.
   * @param {string} name
   */
  unused(name) {
    const taken = new Set(this.all.map((one) => stem(one.name).toLowerCase()));
    const [first, ending] = [stem(name), name.slice(stem(name).length)];
    for (let number = 1; ; number++) {
      const tried = number === 1 ? first : `${first}-${number}`;
      if (!taken.has(tried.toLowerCase())) return tried + ending;
    }
  }
}

/** @param {string} name */
export function stem(name) {
  const dot = name.lastIndexOf(".");
  return dot > 0 ? name.slice(0, dot) : name;
}

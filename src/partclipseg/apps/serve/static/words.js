// A box for words, with the catalogues and a search in them.

import { make } from "./dom.js";

/** @typedef {import("./api.js").Words} Words */

/**
 * Write words as people do: a line for each object.
 * @param {Words} words
 */
export function asText(words) {
  return Object.entries(words).map(([object, parts]) => `${object}: ${parts.join(", ")}`).join("\n");
}

export class WordBox {
  /**
   * @param {HTMLElement} section  to be filled
   * @param {string} id  of the text box
   * @param {string} label
   * @param {() => Map<string, Words>} lists  lists of words by title
   * @param {() => void} changed
   */
  constructor(section, id, label, lists, changed) {
    this.lists = lists;
    this.changed = changed;
    this.box = make("textarea", {
      id, rows: 3, spellcheck: "false", "aria-describedby": `${id}-help`,
      placeholder: "dog: head, torso, leg, tail\nbus: body, wheel", oninput: changed,
    });
    this.choose = make("select", { id: `${id}-catalogue`, onchange: () => this.list() });
    this.search = make("input", {
      id: `${id}-search`, type: "search", placeholder: "a word, such as wheel", oninput: () => this.list(),
    });
    this.count = make("p", { class: "help", role: "status" });
    this.found = make("ul", { class: "found" });
    const all = make("button", { type: "button", class: "small", onclick: () => this.take(this.matching()) },
      "Take these instead");
    this.details = make("details", { ontoggle: () => this.fill() },
      make("summary", {}, "Words of a catalogue"),
      make("label", {}, "Catalogue ", this.choose), make("label", {}, "Search ", this.search),
      make("div", { class: "split" }, this.count, all), this.found);
    section.append(make("label", { class: "title", for: id }, label), this.box,
      make("p", { class: "help", id: `${id}-help` },
        "An object, a colon, all its large parts, which share its pixels; a line for each object. A part alone is " +
        "looked for on any object."),
      this.details);
  }

  get text() { return this.box.value; }

  set text(text) { this.box.value = text; }

  /** Offer the lists that there are now. */
  fill() {
    const before = this.choose.value;
    this.choose.replaceChildren(...[...this.lists().keys()].map((title) => make("option", {}, title)));
    if ([...this.choose.options].some((option) => option.value === before)) this.choose.value = before;
    this.list();
  }

  /** The objects of the chosen list that have the searched word, or a part that has it. @returns {Words} */
  matching() {
    const words = this.lists().get(this.choose.value) ?? {}, sought = this.search.value.trim().toLowerCase();
    return Object.fromEntries(Object.entries(words).filter(([object, parts]) =>
      [object, ...parts].some((word) => word.toLowerCase().includes(sought))));
  }

  list() {
    const words = Object.entries(this.matching());
    this.count.textContent = words.length === 1 ? "1 object" : `${words.length} objects`;
    this.found.replaceChildren(...words.map(([object, parts]) => make("li", {}, make("button", {
      type: "button", title: `add ${object}: ${parts.join(", ")}`, onclick: () => this.add(object, parts),
    }, make("b", {}, object), ` ${parts.join(", ")}`))));
  }

  /**
   * Add a line for an object, in place of the one that it has.
   * @param {string} object
   * @param {string[]} parts
   */
  add(object, parts) {
    const others = this.text.split("\n").filter((line) => line.trim() && line.split(":")[0].trim() !== object);
    this.text = [...others, `${object}: ${parts.join(", ")}`].join("\n");
    this.changed();
  }

  /** @param {Words} words */
  take(words) {
    this.text = asText(words);
    this.changed();
  }
}

// The fields of the form, as one state that can be read and set.

import { byId } from "./dom.js";
import { WordBox } from "./words.js";

/** @typedef {import("./api.js").Model} Model */
/** @typedef {import("./api.js").Catalog} Catalog */
/** @typedef {import("./api.js").Question} Question */
/** @typedef {import("./state.js").State} State */
/** @typedef {Pick<State, "words" | "objects" | "zoom" | "least" | "model" | "compare" | "modelB" | "wordsB" | "instances">} Fields */

/** @type {ReadonlyMap<string, string>} */
const INSTANCES = new Map([["components", "by connected regions"], ["detector", "by the server's detector"]]);

export class Form {
  /** @param {() => void} changed  after a person has changed a field */
  constructor(changed) {
    /** @type {Model[]} */
    this.models = [];
    /** @type {Catalog[]} */
    this.catalogs = [];
    this.objects = byId("objects", HTMLInputElement);
    this.zoom = byId("zoom", HTMLInputElement);
    this.least = byId("least", HTMLInputElement);
    this.compare = byId("compare", HTMLInputElement);
    this.instances = byId("instances", HTMLSelectElement);
    this.model = byId("model", HTMLSelectElement);
    this.modelB = byId("model-b", HTMLSelectElement);
    const options = byId("options", HTMLDetailsElement);
    this.a = new WordBox(byId("words-a"), "words", "What to look for", () => this.lists(this.model.value), changed);
    this.b = new WordBox(
      byId("words-b"), "words-beside", "Words beside it (empty: the same)", () => this.lists(this.modelB.value), changed);
    options.addEventListener("input", (event) => {
      this.arrange();
      if (!(event.target instanceof HTMLTextAreaElement)) changed();
    });
  }

  /**
   * @param {Model[]} models
   * @param {Catalog[]} catalogs
   * @param {string[]} sources  ways to tell objects apart
   */
  offer(models, catalogs, sources) {
    this.instances.append(...sources.map((source) => new Option(INSTANCES.get(source) ?? source, source)));
    byId("apart").hidden = !sources.length;
    [this.models, this.catalogs] = [models, catalogs];
    for (const select of [this.model, this.modelB]) {
      select.replaceChildren(...models.map(({ name }) => new Option(name)));
    }
    this.modelB.value = models[models.length - 1].name;
    for (const label of document.querySelectorAll(".models")) label.toggleAttribute("hidden", models.length < 2);
  }

  /**
   * Lists of words by title: the model's own, then the catalogues.
   * @param {string} model
   */
  lists(model) {
    const own = this.models.find((one) => one.name === model)?.vocabulary;
    return new Map([
      ...(own ? [/** @type {const} */ (["the model's own words", own])] : []),
      ...this.catalogs.map(({ name, classes, vocabulary }) => /** @type {const} */ ([`${name} (${classes} classes)`, vocabulary])),
    ]);
  }

  /** Show what belongs to the comparison where there is one; objects told apart are looked at closely already. */
  arrange() {
    byId("other").hidden = !this.compare.checked;
    this.zoom.disabled = Boolean(this.instances.value);
  }

  /** What is wrong with a field, or nothing. The browser's own words would stay hidden where the options are closed. */
  get fault() {
    const { badInput, rangeUnderflow, rangeOverflow } = this.least.validity;
    const wrong = badInput || rangeUnderflow || rangeOverflow;
    return wrong ? "the least probability of a part is a number from 0 to 1: correct it under Options" : "";
  }

  /** @returns {Fields} */
  read() {
    const first = this.models[0]?.name, last = this.models[this.models.length - 1]?.name;
    return {
      words: this.a.text, objects: this.objects.value, zoom: this.zoom.checked, least: this.least.value,
      model: this.model.value === first ? "" : this.model.value, compare: this.compare.checked,
      instances: this.instances.value,
      modelB: this.modelB.value === last ? "" : this.modelB.value, wordsB: this.b.text,
    };
  }

  /** @param {Fields} fields */
  write({ words, objects, zoom, least, model, compare, modelB, wordsB, instances }) {
    this.instances.value = [...this.instances.options].some((one) => one.value === instances) ? instances : "";
    [this.a.text, this.b.text] = [words, wordsB];
    [this.objects.value, this.least.value] = [objects, least];
    [this.zoom.checked, this.compare.checked] = [zoom, compare];
    const names = this.models.map((one) => one.name);
    this.model.value = names.includes(model) ? model : names[0];
    this.modelB.value = names.includes(modelB) ? modelB : names[names.length - 1];
    if (objects || zoom || least || compare || this.instances.value || this.model.value !== names[0]) {
      byId("options", HTMLDetailsElement).open = true;
    }
    this.arrange();
  }

  /** What to ask for each photo: one question, or two to compare. @returns {Question[]} */
  questions() {
    const shared = {
      objects: this.objects.value, zoom: this.zoom.checked && !this.zoom.disabled,
      min_part_probability: this.least.value.trim(),
      ...(this.instances.value ? { instances: this.instances.value } : {}),
    };
    const first = { model: this.model.value, vocabulary: this.a.text, ...shared };
    if (!this.compare.checked) return [first];
    return [first, { ...shared, model: this.modelB.value, vocabulary: this.b.text.trim() ? this.b.text : this.a.text }];
  }

  /** Whether the built-in model, which knows no photos, is asked. */
  get asksBuiltIn() {
    const asked = this.questions().map(({ model }) => model);
    return this.models.some(({ name, built_in }) => built_in && asked.includes(name));
  }
}

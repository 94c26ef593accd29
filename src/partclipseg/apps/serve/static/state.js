// The page's state in its address, after the "#": browsers keep that part to themselves and never send it.

import { VIEWS } from "./toolbar.js";

/**
 * @typedef {object} State
 * @property {string} words
 * @property {string} objects
 * @property {boolean} zoom
 * @property {string} least
 * @property {string} model
 * @property {boolean} compare
 * @property {string} modelB
 * @property {string} wordsB
 * @property {string} instances   what tells objects apart, empty for nothing
 * @property {string} scene   name of an example, where it is the photo
 * @property {string} view
 * @property {number} opacity
 * @property {number} score   minimum score of the parts that are shown
 */

/** @type {Readonly<State>} */
export const DEFAULTS = Object.freeze({
  words: "", objects: "", zoom: false, least: "", model: "", compare: false, modelB: "", wordsB: "",
  instances: "", scene: "",
  view: "object_parts", opacity: 0.6, score: 0,
});

/**
 * Return the state that an address's hash holds; what is missing or damaged is the default.
 * @param {string} hash
 * @returns {State}
 */
export function readState(hash) {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  /** @type {Record<string, string | number | boolean>} */
  const state = { ...DEFAULTS };
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    const text = fields.get(name);
    if (text === null) continue;
    if (typeof usual === "boolean") state[name] = text === "1";
    else if (typeof usual === "string") state[name] = text;
    else if (text.trim() && Number(text) >= 0 && Number(text) <= 1) state[name] = Number(text);
  }
  if (!VIEWS.has(String(state.view))) state.view = DEFAULTS.view;
  return /** @type {State} */ (/** @type {unknown} */ (state));
}

/**
 * Return the hash of a state: what differs from the defaults.
 * @param {State} state
 */
export function writeState(state) {
  const fields = new URLSearchParams();
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    const value = state[/** @type {keyof State} */ (name)];
    if (value !== usual) fields.set(name, value === true ? "1" : String(value));
  }
  return fields.toString();
}

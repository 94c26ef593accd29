// Short forms for making and finding elements.

/** @typedef {Record<string, string | number | boolean | EventListener | undefined>} Attributes */

/**
 * Make an element. Attributes that begin with "on" are listeners; true and false set or leave out an attribute.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} attributes
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") node.toggleAttribute(name, value);
    else if (value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(...children);
  return node;
}

/**
 * Return the element of this identifier, which the page has.
 * @template {HTMLElement} [Kind=HTMLElement]
 * @param {string} id
 * @param {new () => Kind} [kind]
 * @returns {Kind}
 */
export function byId(id, kind) {
  const node = document.getElementById(id);
  if (!node || (kind && !(node instanceof kind))) throw new Error(`the page has no ${kind?.name ?? "element"} #${id}`);
  return /** @type {Kind} */ (node);
}

/**
 * Show a sentence in an element, or hide the element where there is none.
 * @param {HTMLElement} node
 * @param {string} sentence
 */
export function say(node, sentence) {
  const text = sentence && sentence[0].toUpperCase() + sentence.slice(1) + (sentence.endsWith(".") ? "" : ".");
  if (node.textContent !== text) node.textContent = text;
  node.hidden = !text;
}

/**
 * Return the 2D context of a canvas.
 * @param {HTMLCanvasElement} canvas
 * @returns {CanvasRenderingContext2D}
 */
export function context2d(canvas) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("this browser draws no canvas");
  return context;
}

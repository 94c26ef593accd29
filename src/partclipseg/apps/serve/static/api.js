// Client of the HTTP API, with the types of its answers (openapi.json describes them).

/** @typedef {Record<string, string[]>} Words */
/** @typedef {{ name: string, built_in: boolean, vocabulary: Words | null }} Model */
/** @typedef {{ name: string, classes: number, vocabulary: Words }} Catalog */
/** @typedef {{ name: string, vocabulary: Words }} Scene */

/**
 * @typedef {object} Entry  One line of a legend.
 * @property {string} name
 * @property {string | null} object
 * @property {string | null} part
 * @property {boolean} rest
 * @property {number | null} instance
 * @property {number} value
 * @property {number} score
 * @property {number} share
 * @property {[number, number, number]} colour
 */
/** @typedef {{ map: string, entries: Entry[] }} Layer */
/** @typedef {{ kind: string, name: string, peak: number }} HeatEntry */
/** @typedef {{ atlas: string, columns: number, height: number, width: number, entries: HeatEntry[] }} HeatMaps */
/** @typedef {"object_parts" | "objects" | "parts"} LayerView */
/** @typedef {"probability" | "attention"} HeatView */
/** @typedef {LayerView | HeatView} View */

/**
 * @typedef {object} Explained  Answer of /v1/explain.
 * @property {string} model
 * @property {string} photo
 * @property {string[]} unknown_words
 * @property {string} picture
 * @property {Record<LayerView, Layer>} layers
 * @property {Record<HeatView, HeatMaps | null>} heat
 */

/**
 * @typedef {object} Question  Fields of a request, beside the photo.
 * @property {string} model
 * @property {string} vocabulary
 * @property {string} objects
 * @property {boolean} zoom
 * @property {string} min_part_probability
 * @property {string} [instances]
 */

const TRIES = 5;

/** An answer without a result; the message is the server's sentence. */
export class RefusedError extends Error {}

/** @returns {Promise<{ models: Model[], instances: string[] }>} */
export const models = () => getJson("v1/models");
/** @returns {Promise<Catalog[]>} */
export const catalogs = async () => (await getJson("v1/catalogs")).catalogs;
/** @returns {Promise<Scene[]>} */
export const scenes = async () => (await getJson("v1/examples")).examples;

/** @param {string} name */
export const sceneAddress = (name) => `v1/examples/${encodeURIComponent(name)}`;
/** @param {string} name */
export const scenePicture = async (name) => (await answered(fetch(sceneAddress(name)))).blob();

/**
 * Ask for the maps of a photo.
 * @param {Blob} photo
 * @param {string} name
 * @param {Question} question
 * @param {AbortSignal} signal
 * @returns {Promise<Explained>}
 */
export async function explain(photo, name, question, signal) {
  const answer = await post("v1/explain", form(photo, name, question), {}, signal);
  return answer.json();
}

/**
 * Ask for the files of a photo, as a ZIP; the sliders decide what they show.
 * @param {Blob} photo
 * @param {string} name
 * @param {Question} question
 * @param {{ opacity: number, score: number }} sliders
 * @returns {Promise<Uint8Array>}
 */
export async function archive(photo, name, question, sliders) {
  const body = form(photo, name, question);
  body.append("formats", "all");
  body.append("min_score", String(sliders.score));
  body.append("opacity", String(sliders.opacity));
  const answer = await post("v1/segment", body, { Accept: "application/zip" });
  return new Uint8Array(await answer.arrayBuffer());
}

/**
 * @param {Blob} photo
 * @param {string} name
 * @param {Question} question
 */
function form(photo, name, question) {
  const body = new FormData();
  body.append("photo", photo, name);
  for (const [field, value] of Object.entries(question)) body.append(field, String(value));
  return body;
}

/** @param {string} path */
async function getJson(path) {
  return (await answered(fetch(path))).json();
}

/**
 * Send a form; a busy server is asked again when it says so.
 * @param {string} path
 * @param {FormData} body
 * @param {Record<string, string>} headers
 * @param {AbortSignal} [signal]
 */
async function post(path, body, headers, signal) {
  for (let attempt = 1; ; attempt++) {
    const answer = await reached(fetch(path, { method: "POST", body, headers, signal }));
    const wait = Number(answer.headers.get("retry-after"));
    if (answer.status !== 503 || !wait || attempt === TRIES) return answered(answer);
    await pause(1000 * wait, signal);
  }
}

/** @param {Promise<Response> | Response} answer */
async function answered(answer) {
  const found = await reached(answer);
  if (found.ok) return found;
  const detail = await found.json().then((content) => content.detail, () => "");
  throw new RefusedError(detail || `the server answered with status ${found.status}`);
}

/** @param {Promise<Response> | Response} answer */
async function reached(answer) {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof DOMException) throw error; // stopped by the person
    throw new RefusedError("the server does not answer: is it still running?");
  }
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => reject(signal.reason));
  });
}

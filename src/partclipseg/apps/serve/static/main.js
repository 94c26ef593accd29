// The page: joins photos, words, the API and the result.

import * as api from "./api.js";
import { byId, make, say } from "./dom.js";
import { Form } from "./form.js";
import { Photos } from "./photos.js";
import { ResultView } from "./result.js";
import { readState, writeState } from "./state.js";
import { keep, kept } from "./storage.js";

const THEME = "partclipseg-theme";
const NARROW = 860;
const BUILT_IN = "the built-in model knows rendered scenes only, not photos: start the server with " +
  "--model partclipseg-pascal for photos";

const state = readState(location.hash);
const sliders = { view: state.view, opacity: state.opacity, score: state.score };
const [message, notes, progress] = ["message", "notes", "progress"].map((id) => byId(id));
const run = byId("run", HTMLButtonElement);
const photos = new Photos(byId("photos", HTMLFieldSetElement), () => { remember(); present(); }, () => {
  if (!running) progress.textContent = ""; // it told of other photos
});
const form = new Form(() => { remember(); warn(); });
const view = new ResultView(byId("result"), sliders, remember, fail);
/** @type {AbortController | undefined} */
let running;

// -- what is shown --------------------------------------------------------------------------------------------

/** Show the current photo's result, error and notes. */
function present() {
  const photo = photos.current;
  say(message, photo?.error ?? "");
  const unknown = new Set(photo?.runs.flatMap(({ result }) => result.unknown_words));
  say(notes, unknown.size ? `the model has never seen these words and can only guess: ${[...unknown].join(", ")}` : "");
  byId("empty").hidden = Boolean(photo?.runs.length || photo?.error);
  warn();
  return view.show(photo, answered).catch(fail);
}

const answered = () => photos.all.filter((photo) => photo.runs.length);

/** Say what the built-in model does not know: quietly, and in a yellow box once a photo is there. */
function warn() {
  const box = byId("no-photos"), met = form.asksBuiltIn && photos.all.some((photo) => !photo.scene);
  box.className = met ? "note" : "caption";
  say(box, form.asksBuiltIn ? BUILT_IN : "");
}

/** @param {unknown} error */
function fail(error) {
  say(message, error instanceof Error ? error.message : String(error));
  reveal();
}

/** Keep form, scene, tab and sliders in the address. */
function remember() {
  const hash = writeState({ ...form.read(), ...sliders, scene: photos.current?.scene ?? "" });
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
}

// -- asking ---------------------------------------------------------------------------------------------------

/** Ask for every photo that has no answer to the present question; the one that is shown comes first. */
async function find() {
  if (!photos.all.length) return fail(new Error("there is no photo yet: drop one here, or pick an example"));
  if (form.fault) return fail(new Error(form.fault));
  say(message, "");
  const questions = form.questions(), asked = JSON.stringify(questions);
  const waiting = photos.all.filter((photo) => photo.asked !== asked);
  waiting.sort((one, other) => Number(other === photos.current) - Number(one === photos.current));
  for (const photo of waiting) photos.mark(photo, "waiting", "");
  running = new AbortController();
  run.textContent = "Stop";
  byId("output").setAttribute("aria-busy", "true");
  reveal();
  let done = 0;
  for (const photo of waiting) {
    if (running.signal.aborted) {
      photos.mark(photo, "", "");
      continue;
    }
    if (photos.all.includes(photo)) await ask(photo, questions, asked, `${++done} of ${waiting.length}`, running.signal);
  }
  running = undefined;
  run.textContent = "Find parts";
  byId("output").removeAttribute("aria-busy");
  progress.textContent = waiting.length ? summary(waiting) : "Nothing has changed: this is the result.";
}

/**
 * Ask for one photo and keep its answers, or the sentence why there are none.
 * @param {import("./photos.js").Photo} photo
 * @param {api.Question[]} questions
 * @param {string} asked
 * @param {string} place
 * @param {AbortSignal} signal
 */
async function ask(photo, questions, asked, place, signal) {
  progress.textContent = `Looking at ${photo.name} (${place}) …`;
  photos.mark(photo, "looking …", "busy");
  // An old result would be mistaken for the answer.
  Object.assign(photo, { asked: "", runs: [], error: "" });
  try {
    const results = await Promise.all(questions.map((one) => api.explain(photo.file, photo.name, one, signal)));
    photo.runs = results.map((result, i) => ({ result, question: questions[i] }));
    photo.asked = asked;
    photos.mark(photo, found(photo), "done");
  } catch (error) {
    if (signal.aborted) return photos.mark(photo, "stopped", "");
    photo.error = error instanceof Error ? error.message : String(error);
    photos.mark(photo, "failed", "failed");
  }
  if (photo === photos.current) {
    await present();
    reveal(); // the page is long enough for it only now
  }
  view.count(answered().length);
}

/** Bring the result into a narrow window, where it stands below the form. */
function reveal() {
  if (innerWidth < NARROW) byId("output").scrollIntoView({ behavior: "smooth" });
}

/**
 * Return how many parts were found, in words.
 * @param {import("./photos.js").Photo} photo
 */
function found(photo) {
  const count = photo.runs[0].result.layers.object_parts.entries.filter((entry) => !entry.rest).length;
  return `${count || "no"} ${count === 1 ? "part" : "parts"}`;
}

/** @param {import("./photos.js").Photo[]} asked */
function summary(asked) {
  const done = asked.filter((photo) => photo.runs.length), failed = asked.filter((photo) => photo.error).length;
  if (asked.length === 1) return done.length ? `In ${asked[0].name}: ${found(asked[0])} found.` : "";
  return `${done.length} of ${asked.length} photos answered${failed ? `, ${failed} failed` : ""}.`;
}

// -- what people do -------------------------------------------------------------------------------------------

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running.abort();
  else find().catch(fail);
});
byId("form").addEventListener("keydown", (event) => {
  const sends = event.key === "Enter" && (event.ctrlKey || event.metaKey || event.shiftKey);
  if (!sends || !(event.target instanceof HTMLTextAreaElement)) return;
  event.preventDefault();
  if (!running) find().catch(fail);
});
for (const id of ["file", "camera"]) {
  const input = byId(id, HTMLInputElement);
  input.addEventListener("change", () => {
    photos.add(input.files ?? []);
    input.value = ""; // so that the same file can be chosen again
  });
}
addEventListener("paste", (event) => {
  const files = event.clipboardData?.files;
  if (files?.length) {
    event.preventDefault();
    photos.add(files);
  }
});
const drop = byId("drop");
for (const kind of /** @type {const} */ (["dragover", "dragleave", "drop"])) {
  addEventListener(kind, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault(); // else the browser leaves the page for the photo
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") photos.add(event.dataTransfer.files);
  });
}
addEventListener("hashchange", () => restore(readState(location.hash)));

const theme = byId("theme", HTMLSelectElement);
/** @param {string} name */
const colour = (name) => { document.documentElement.dataset.theme = theme.value = name; };
theme.addEventListener("change", () => {
  keep(THEME, theme.value);
  colour(theme.value);
});
colour(kept(THEME));

// -- the start ------------------------------------------------------------------------------------------------

/** @param {import("./state.js").State} wanted */
function restore(wanted) {
  form.write(wanted);
  Object.assign(sliders, { view: wanted.view, opacity: wanted.opacity, score: wanted.score });
  if (wanted.scene && wanted.scene !== photos.current?.scene) return photos.addScene(wanted.scene).catch(fail);
  return present();
}

async function start() {
  const [{ models, instances }, catalogs] = await Promise.all([api.models(), api.catalogs()]);
  form.offer(models, catalogs, instances);
  await restore(state);
  const scenes = await api.scenes();
  byId("scenes").hidden = !scenes.length;
  byId("scenes").querySelector(".row")?.append(...scenes.map(({ name, vocabulary }) => make("button", {
    type: "button", "aria-label": `example: ${Object.keys(vocabulary).join(", ")}`, onclick: async () => {
      form.a.take(vocabulary);
      await photos.addScene(name).catch(fail);
    },
  }, make("img", { src: api.sceneAddress(name), alt: "", width: 384, height: 384 }))));
}

start().catch(fail).finally(() => { document.documentElement.dataset.ready = ""; });

// <part-viewer data-result="JSON">: a photo under its segments, with a legend; all work is done in the browser.
// What the JSON holds is said in viewer.py.

const STYLE = `
:host { display: block; container-type: inline-size; color: var(--body-text-color, #20232a); font: 14px/1.45 var(--font, system-ui, sans-serif);
  --line: var(--border-color-primary, #e2e5ea); --soft: var(--body-text-color-subdued, #69707c);
  --fill: var(--background-fill-secondary, #f6f7f9); --accent: var(--color-accent, #2563eb); }
h3 { margin: 0 0 8px; font-size: 13px; font-weight: 600; color: var(--soft); overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; }
.tabs { display: flex; overflow-x: auto; border-bottom: 1px solid var(--line); margin-bottom: 10px;
  scrollbar-width: none; }
.tabs button { all: unset; flex: none; cursor: pointer; padding: 7px clamp(5px, 1.5cqw, 12px); color: var(--soft); white-space: nowrap;
  border-bottom: 2px solid transparent; margin-bottom: -1px; }
.tabs button[aria-selected=true] { color: inherit; font-weight: 600; border-color: var(--accent); }
button:focus-visible, input:focus-visible, select:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.stage { position: relative; line-height: 0; background: var(--fill); border-radius: 8px; overflow: hidden; }
canvas { width: 100%; height: auto; display: block; }
.stage canvas + canvas { position: absolute; inset: 0; height: 100%; touch-action: pan-y pinch-zoom; }
.tip { position: absolute; pointer-events: none; transform: translate(-50%, calc(-100% - 12px)); line-height: 1.3;
  background: #16181dee; color: #fff; font-size: 13px; padding: 4px 9px; border-radius: 6px; white-space: nowrap;
  z-index: 1; }
.tip[hidden] { display: none; }
.body { display: grid; gap: 12px 18px; }
.controls { display: flex; flex-wrap: wrap; gap: 6px 22px; align-items: center; }
.controls label { display: flex; align-items: center; gap: 9px; flex: 1 1 200px; color: var(--soft); }
.controls label > span { white-space: nowrap; }
.controls output { min-width: 2.6em; text-align: right; color: var(--body-text-color, #20232a);
  font-variant-numeric: tabular-nums; }
input[type=range] { flex: 1; min-width: 60px; accent-color: var(--accent); }
select { flex: 1; min-width: 0; font: inherit; color: inherit; background: var(--block-background-fill, #fff);
  border: 1px solid var(--line); border-radius: 6px; padding: 6px 8px; }
.legend { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 0 14px;
  align-items: start; max-height: 300px; overflow-y: auto; }
.legend section { margin-bottom: 8px; }
.legend h4 { margin: 0; padding: 2px 6px; font-size: 12px; font-weight: 600; color: var(--soft);
  border-bottom: 1px solid var(--line); }
.legend label { display: flex; align-items: center; gap: 8px; padding: 3px 6px; border-radius: 5px; cursor: pointer; }
.legend label:hover { background: var(--fill); }
.legend label.off { opacity: .45; }
.legend input { position: absolute; opacity: 0; width: 0; margin: 0; }
.legend i { flex: none; width: 15px; height: 15px; border-radius: 4px; border: 2px solid var(--colour);
  background: var(--colour); box-sizing: border-box; }
.legend input:not(:checked) + i { background: transparent; }
.legend input:focus-visible + i { outline: 2px solid var(--accent); outline-offset: 2px; }
.legend span { flex: 1; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.legend small { color: var(--soft); font-variant-numeric: tabular-nums; }
.all { display: flex; gap: 14px; align-items: baseline; margin-bottom: 4px; color: var(--soft); font-size: 13px; }
.all button { all: unset; cursor: pointer; color: var(--accent); }
.scale { display: flex; align-items: center; gap: 9px; color: var(--soft); margin-top: 12px; }
.scale canvas { flex: 1; min-width: 0; height: 10px; border-radius: 5px; }
select { width: 100%; box-sizing: border-box; }
p { margin: 0 0 10px; color: var(--soft); }
@container (max-width: 400px) { .tabs { font-size: 13px; } }
@container (min-width: 600px) {
  .body { grid-template-columns: minmax(0, 1fr) 200px; grid-template-rows: auto 1fr; }
  .side { grid-column: 2; grid-row: 1 / 3; }
  .legend { grid-template-columns: 1fr; max-height: 560px; }
}
`;

const TABS = {
  "object-parts": "Object-parts", objects: "Objects", parts: "Parts",
  probability: "Probability", attention: "Attention",
};
const ABOUT = {
  parts: "Generalized parts: what the part words say alone, whatever the object, inside the objects found.",
  probability: "How sure the model is of one class, object or part at each place; beside it, its greatest value.",
  attention: "Where the pixels of a class look in the decoder's last layer.",
};
const percent = (share) => `${Math.round(100 * share)} %`;

// Anchors of matplotlib's "inferno" (CC0), from 0 to 1.
const HEAT = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39],
  [252, 255, 164]];
function heatColour(value) {
  const at = value * (HEAT.length - 1), low = Math.min(Math.floor(at), HEAT.length - 2);
  return HEAT[low].map((start, i) => start + (HEAT[low + 1][i] - start) * (at - low));
}

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") node.toggleAttribute(name, value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

async function pixels(url) {
  const picture = new Image();
  picture.src = url;
  await picture.decode();
  const canvas = make("canvas", { width: picture.width, height: picture.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  return { picture, ...size(picture), data: context.getImageData(0, 0, picture.width, picture.height).data };
}
const size = ({ width, height }) => ({ width, height });

class PartViewer extends HTMLElement {
  static observedAttributes = ["data-result"];

  async attributeChangedCallback() {
    const result = JSON.parse(this.dataset.result);
    const photo = await pixels(result.photo);
    this.result = result;
    this.hidden_ = {};  // view -> indices that are switched off
    this.labels = {};  // view -> index of each pixel, 0 for background
    for (const [view, layer] of Object.entries(result.layers)) {
      const { data, width, height } = await pixels(layer.map);
      const labels = new Uint16Array(width * height);
      for (let i = 0; i < labels.length; i++) labels[i] = data[4 * i] | (data[4 * i + 1] << 8);
      this.labels[view] = { labels, width, height };
      this.hidden_[view] = new Set();
    }
    this.atlases = {};
    for (const [view, heat] of Object.entries(result.heat)) this.atlases[view] = await pixels(heat.atlas);
    this.opacity ??= 0.6;
    this.chosen = undefined;
    this.least = 0;
    this.build(photo);
    this.show("object-parts");
    this.dataset.ready = "";
  }

  build(photo) {
    const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    this.photo = make("canvas", size(photo));
    this.photo.getContext("2d").drawImage(photo.picture, 0, 0);
    this.paint = make("canvas", {
      onpointermove: (event) => this.hover(event), onpointerdown: (event) => this.hover(event),
      onpointerleave: () => this.point(0), role: "img",
      "aria-label": `${this.result.title}: ${this.result.layers["object-parts"].entries.map((e) => e.name).join(", ")}`,
    });
    this.tip = make("div", { class: "tip", hidden: true });
    this.controls = make("div", { class: "controls" });
    this.side = make("div", { class: "side" });
    this.tabs = make("div", { class: "tabs", role: "tablist", onkeydown: (event) => this.step(event) });
    for (const view of Object.keys(TABS)) {
      if (!(view in this.result.layers || view in this.result.heat)) continue;
      this.tabs.append(make("button", { role: "tab", "data-view": view, onclick: () => this.show(view) }, TABS[view]));
    }
    const title = this.result.title ? [make("h3", { title: this.result.title }, this.result.title)] : [];
    root.replaceChildren(
      make("style", {}, STYLE), ...title, this.tabs,
      make("div", { class: "body" },
        make("div", { class: "stage" }, this.photo, this.paint, this.tip), this.controls, this.side),
    );
  }

  step(event) {
    const move = { ArrowRight: "nextSibling", ArrowLeft: "previousSibling" }[event.key];
    const target = move && event.target[move];
    if (target) { target.click(); target.focus(); }
  }

  show(view) {
    this.view = view;
    for (const tab of this.tabs.children) {
      const chosen = tab.dataset.view === view;
      tab.setAttribute("aria-selected", chosen);
      tab.tabIndex = chosen ? 0 : -1;
    }
    this.point(0);
    const about = view in ABOUT ? [make("p", {}, ABOUT[view])] : [];
    this.controls.replaceChildren(...(view in this.labels ? this.sliders() : []));
    this.side.replaceChildren(...about, ...(view in this.labels ? this.legend() : this.classes()));
    // Grey lets the colours of segments and heat stand out, as in the overlays that are written to files.
    this.photo.style.filter = view in this.labels ? "saturate(0.45)" : "saturate(0)";
    this.draw();
  }

  // -- segments ---------------------------------------------------------------------------------------------

  sliders() {
    return [
      this.slider("Opacity", this.opacity, percent, (value) => { this.opacity = value; }),
      this.slider("Minimum score", this.least, (value) => value.toFixed(2), (value) => { this.least = value; }),
    ];
  }

  legend() {
    const { entries } = this.result.layers[this.view], off = this.hidden_[this.view];
    if (!entries.length) return [make("p", {}, "Nothing of these words was found: all is background.")];
    const legend = make("div", { class: "legend" });
    const groups = new Map();
    for (const entry of entries) {
      if (!groups.has(entry.group)) {
        groups.set(entry.group, make("section", {}, ...(entry.group ? [make("h4", {}, entry.group)] : [])));
      }
      const box = make("input", { type: "checkbox", "aria-label": entry.name, onchange: () => {
        box.checked ? off.delete(entry.index) : off.add(entry.index);
        this.draw();
      } });
      box.checked = !off.has(entry.index);
      const row = make("label", { title: entry.name, "data-index": entry.index, style: `--colour: rgb(${entry.colour})`,
        onpointerenter: () => this.point(entry.index), onpointerleave: () => this.point(0),
      }, box, make("i"), make("span", {}, entry.short), make("small", {}, entry.score.toFixed(2)));
      groups.get(entry.group).append(row);
    }
    if (groups.size === 1 && groups.has("")) {  // without headings, rows flow through the columns
      legend.append(...groups.get("").childNodes);
    } else legend.append(...groups.values());
    const every = (on) => () => {
      off.clear();
      if (!on) entries.forEach((entry) => off.add(entry.index));
      for (const box of legend.querySelectorAll("input")) box.checked = on;
      this.draw();
    };
    return [
      make("div", { class: "all" }, `${entries.length} found`,
        make("button", { onclick: every(true) }, "show all"), make("button", { onclick: every(false) }, "hide all")),
      legend,
    ];
  }

  slider(name, value, text, set) {
    const shown = make("output", {}, text(value));
    const input = make("input", { type: "range", min: 0, max: 1, step: 0.01, value, "aria-label": name, oninput: () => {
      shown.value = text(+input.value);
      set(+input.value);
      this.draw();
    } });
    return make("label", {}, make("span", {}, name), input, shown);
  }

  visible(entry) { return !this.hidden_[this.view].has(entry.index) && entry.score >= this.least; }

  drawLayer() {
    const { labels, width, height } = this.labels[this.view], { entries } = this.result.layers[this.view];
    const shown = new Map(entries.filter((entry) => this.visible(entry)).map((entry) => [entry.index, entry]));
    for (const row of this.side.querySelectorAll(".legend label")) {
      row.classList.toggle("off", !shown.has(+row.dataset.index));
    }
    // Small photos are painted enlarged, so that contours stay thin.
    const zoom = Math.max(1, Math.round(1000 / Math.max(width, height)));
    const wide = width * zoom, high = height * zoom;
    Object.assign(this.paint, { width: wide, height: high });
    const context = this.paint.getContext("2d"), image = context.createImageData(wide, high);
    const colours = new Uint32Array(65536), words = new Uint32Array(image.data.buffer);
    for (const [index, entry] of shown) {
      const faded = this.pointed && this.pointed !== index;
      const [r, g, b] = entry.colour, alpha = Math.round(255 * this.opacity * (faded ? 0.35 : 1));
      colours[index] = ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
    }
    const line = ((Math.round(235 * Math.min(1, 1.6 * this.opacity)) << 24) | 0xffffff) >>> 0;
    for (let y = 0, to = 0; y < high; y++) {
      const row = Math.floor(y / zoom) * width, above = y % zoom || !y ? row : row - width;
      for (let x = 0; x < wide; x++, to++) {
        const column = Math.floor(x / zoom), i = row + column;
        const here = colours[labels[i]], left = x % zoom || !x ? i : i - 1, up = above + column;
        const edge = (labels[left] !== labels[i] && (here || colours[labels[left]]))
          || (labels[up] !== labels[i] && (here || colours[labels[up]]));
        words[to] = edge ? line : here;
      }
    }
    context.putImageData(image, 0, 0);
  }

  // -- heat maps --------------------------------------------------------------------------------------------

  classes() {
    const { entries } = this.result.heat[this.view];
    const choose = make("select", { "aria-label": "Class", onchange: () => { this.chosen = +choose.value; this.draw(); } });
    for (const [kind, label] of [["object-part", "Object-parts"], ["object", "Objects"], ["part", "Generalized parts"]]) {
      const options = entries.map((entry, i) => [entry, i]).filter(([entry]) => entry.kind === kind)
        .map(([entry, i]) => make("option", { value: i }, this.view === "attention" ? entry.name : `${entry.name} (${entry.peak.toFixed(2)})`));
      if (options.length) choose.append(make("optgroup", { label }, ...options));
    }
    // The strongest class of the result first.
    if (!(this.chosen < entries.length)) this.chosen = this.strongest(entries);
    choose.value = this.chosen;
    const bar = make("canvas", { width: 128, height: 1 }), context = bar.getContext("2d");
    for (let x = 0; x < 128; x++) {
      context.fillStyle = `rgb(${heatColour(x / 127)})`;
      context.fillRect(x, 0, 1, 1);
    }
    const most = this.view === "probability" ? "1" : "most";
    return [choose, make("div", { class: "scale" }, "0", bar, most)];
  }

  strongest(entries) {
    const parts = entries.map((entry, i) => i).filter((i) => entries[i].kind === "object-part");
    return parts.reduce((best, i) => (entries[i].peak > entries[best].peak ? i : best), parts[0] ?? 0);
  }

  /** The chosen map's value, 0 to 1, at a pixel of the map. */
  heat(x, y) {
    const { height, width, columns } = this.result.heat[this.view], atlas = this.atlases[this.view];
    const row = Math.floor(this.chosen / columns) * height + y, column = (this.chosen % columns) * width + x;
    return atlas.data[4 * (row * atlas.width + column)] / 255;
  }

  drawHeat() {
    const { height, width } = this.result.heat[this.view];
    const heat = new ImageData(width, height);
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i += 4) {
        const value = this.heat(x, y);
        heat.data.set([...heatColour(value), 255 * (0.55 + 0.35 * value)], i);
      }
    }
    const small = make("canvas", { width, height });
    small.getContext("2d").putImageData(heat, 0, 0);
    Object.assign(this.paint, size(this.photo));
    const context = this.paint.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, this.paint.width, this.paint.height);
  }

  // -- both -------------------------------------------------------------------------------------------------

  draw() { this.view in this.labels ? this.drawLayer() : this.drawHeat(); }

  point(index) {
    this.tip.hidden = true;
    if (this.pointed === index) return;
    this.pointed = index;
    if (this.view in this.labels) this.draw();
  }

  hover(event) {
    const box = this.paint.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
    let text = "";
    if (this.view in this.labels) {
      const { labels, width, height } = this.labels[this.view];
      const index = labels[Math.min(height - 1, Math.floor(y * height)) * width + Math.min(width - 1, Math.floor(x * width))];
      const entry = this.result.layers[this.view].entries.find((one) => one.index === index);
      const found = entry && this.visible(entry);
      this.point(found ? index : 0);
      if (found) text = `${entry.name}  ${entry.score.toFixed(2)}`;
    } else if (this.view === "probability") {
      const { height, width, entries } = this.result.heat.probability;
      const value = this.heat(Math.min(width - 1, Math.floor(x * width)), Math.min(height - 1, Math.floor(y * height)));
      text = `${entries[this.chosen].name}  ${value.toFixed(2)}`;
    }
    this.tip.hidden = !text;
    if (!text) return;
    this.tip.textContent = text;
    const half = this.tip.offsetWidth / 2;
    this.tip.style.left = `${Math.max(half, Math.min(box.width - half, x * box.width))}px`;
    this.tip.style.top = `${Math.max(this.tip.offsetHeight + 12, y * box.height)}px`;
  }
}

customElements.define("part-viewer", PartViewer);

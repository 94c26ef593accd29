// Drawing of label maps and heat maps, without any element of the page but canvases.

import { context2d, make } from "./dom.js";

/** @typedef {{ labels: Uint16Array, width: number, height: number }} LabelMap */
/** @typedef {{ width: number, height: number, data: Uint8ClampedArray }} Pixels */

/**
 * Decode a picture in base64.
 * @param {string} base64
 * @param {"png" | "jpeg"} kind
 * @returns {Promise<HTMLImageElement>}
 */
export async function decoded(base64, kind) {
  const picture = new Image();
  picture.src = `data:image/${kind};base64,${base64}`;
  await picture.decode();
  return picture;
}

/**
 * Return the pixels of a picture in base64.
 * @param {string} base64
 * @returns {Promise<Pixels>}
 */
export async function pixels(base64) {
  const picture = await decoded(base64, "png");
  const { width, height } = picture;
  const context = context2d(make("canvas", { width, height }));
  context.drawImage(picture, 0, 0);
  return { width, height, data: context.getImageData(0, 0, width, height).data };
}

/**
 * Return the value of each pixel of a layer's map: red + 256 green.
 * @param {string} base64
 * @returns {Promise<LabelMap>}
 */
export async function labelMap(base64) {
  const { width, height, data } = await pixels(base64);
  const labels = new Uint16Array(width * height);
  for (let i = 0; i < labels.length; i++) labels[i] = data[4 * i] | (data[4 * i + 1] << 8);
  return { labels, width, height };
}

/**
 * Paint the values that have a colour, with a white line between different ones.
 * @param {HTMLCanvasElement} canvas
 * @param {LabelMap} map
 * @param {Map<number, { colour: number[], opacity: number }>} shown  by value
 * @param {number} lineOpacity
 */
export function paintLabels(canvas, { labels, width, height }, shown, lineOpacity) {
  // Small photos are painted enlarged, so that lines stay thin.
  const zoom = Math.max(1, Math.round(1000 / Math.max(width, height)));
  const wide = width * zoom, high = height * zoom;
  Object.assign(canvas, { width: wide, height: high });
  const context = context2d(canvas), image = context.createImageData(wide, high);
  const colours = new Uint32Array(65536), words = new Uint32Array(image.data.buffer);
  for (const [value, { colour: [red, green, blue], opacity }] of shown) {
    colours[value] = packed(red, green, blue, opacity);
  }
  const line = packed(255, 255, 255, lineOpacity), thick = zoom > 1 ? 2 : 1;
  for (let y = 0, to = 0; y < high; y++) {
    const row = Math.floor(y / zoom) * width, above = y % zoom < thick && row ? row - width : row;
    for (let x = 0; x < wide; x++, to++) {
      const column = Math.floor(x / zoom), i = row + column;
      const here = colours[labels[i]], left = x % zoom < thick && column ? i - 1 : i, up = above + column;
      const edge = (labels[left] !== labels[i] && (here || colours[labels[left]]))
        || (labels[up] !== labels[i] && (here || colours[labels[up]]));
      words[to] = edge ? line : here;
    }
  }
  context.putImageData(image, 0, 0);
}

/**
 * @param {number} red
 * @param {number} green
 * @param {number} blue
 * @param {number} opacity
 */
function packed(red, green, blue, opacity) {
  return ((Math.round(255 * Math.min(1, opacity)) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

// Anchors of matplotlib's "inferno" (CC0), from 0 to 1.
const HEAT = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39],
  [252, 255, 164]];

/**
 * Return the colour of a value from 0 to 1.
 * @param {number} value
 */
export function heatColour(value) {
  const at = value * (HEAT.length - 1), low = Math.min(Math.floor(at), HEAT.length - 2);
  return HEAT[low].map((start, i) => start + (HEAT[low + 1][i] - start) * (at - low));
}

/**
 * Paint a heat map smoothly over the whole canvas.
 * @param {HTMLCanvasElement} canvas  has its size already
 * @param {{ width: number, height: number }} size  of the map
 * @param {(x: number, y: number) => number} valueAt  0 to 1
 */
export function paintHeat(canvas, { width, height }, valueAt) {
  const heat = new ImageData(width, height);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i += 4) {
      const value = valueAt(x, y);
      heat.data.set([...heatColour(value), 255 * (0.55 + 0.35 * value)], i);
    }
  }
  const small = make("canvas", { width, height });
  context2d(small).putImageData(heat, 0, 0);
  const context = context2d(canvas);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

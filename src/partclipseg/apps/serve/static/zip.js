// Joins ZIP archives into one. The files stay packed as they are.

const LOCAL = 0x04034b50, CENTRAL = 0x02014b50, END = 0x06054b50;
const UTF8 = 1 << 11;
const MAX_FILES = 2 ** 16 - 1, MAX_BYTES = 2 ** 32 - 1;

/**
 * Join archives; the server's are small, without comments and without the extension for large files.
 *
 * The server cuts the names of photos, so two archives may have files of one name. The second one then goes into a
 * folder with a number: unpacked, the files would replace each other.
 * @param {{ folder: string, archive: Uint8Array }[]} parts  folder: "" or a name
 * @returns {Blob}
 */
export function joinArchives(parts) {
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const files = [], directory = [];
  /** @type {Set<string>} */
  const taken = new Set();
  let offset = 0, count = 0;
  for (const { folder, archive } of parts) {
    const own = [...entries(archive)];
    const place = unusedFolder(folder, own.map((entry) => new TextDecoder().decode(entry.name)), taken);
    for (const entry of own) {
      const name = new Uint8Array([...new TextEncoder().encode(place), ...entry.name]);
      const local = header(LOCAL, entry, name, 0), central = header(CENTRAL, entry, name, offset);
      files.push(local, entry.packed);
      directory.push(central);
      offset += local.length + entry.packed.length;
      count += 1;
    }
  }
  const size = directory.reduce((sum, one) => sum + one.length, 0);
  if (count > MAX_FILES || offset + size > MAX_BYTES) {
    throw new Error("the files of all these photos are too many for one ZIP: download them photo by photo");
  }
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, END, true);
  end.setUint16(8, count, true);
  end.setUint16(10, count, true);
  end.setUint32(12, size, true);
  end.setUint32(16, offset, true);
  return new Blob([...files, ...directory, end], { type: "application/zip" });
}

/**
 * Return the beginning of paths, a folder and a slash or nothing, under which none of the names is taken; take them.
 * @param {string} folder
 * @param {string[]} names
 * @param {Set<string>} taken
 */
function unusedFolder(folder, names, taken) {
  for (let number = 1; ; number++) {
    const place = [folder, number > 1 ? String(number) : ""].filter(Boolean).join("-");
    const start = place && `${place}/`;
    // Many systems take upper and lower case for one, and a letter with its accent for the two in one.
    const paths = names.map((name) => (start + name).normalize("NFC").toLowerCase());
    if (paths.some((path) => taken.has(path))) continue;
    paths.forEach((path) => taken.add(path));
    return start;
  }
}

/** @typedef {{ name: Uint8Array, common: DataView, packed: Uint8Array<ArrayBuffer>, external: number }} ZipEntry */

/**
 * @param {Uint8Array} archive
 * @returns {Generator<ZipEntry>}
 */
function* entries(archive) {
  const view = new DataView(archive.buffer, archive.byteOffset, archive.byteLength);
  const end = archive.length - 22;
  if (end < 0 || view.getUint32(end, true) !== END) throw new Error("the server's ZIP cannot be read");
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    const size = view.getUint32(at + 20, true), local = view.getUint32(at + 42, true);
    const [name, extra, comment] = [28, 30, 32].map((place) => view.getUint16(at + place, true));
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    yield {
      name: archive.slice(at + 46, at + 46 + name),
      common: new DataView(archive.slice(at + 6, at + 28).buffer), // version needed to unpacked size
      packed: archive.slice(start, start + size),
      external: view.getUint32(at + 38, true),
    };
    at += 46 + name + extra + comment;
  }
}

/**
 * Return the local or central header of an entry.
 * @param {number} kind
 * @param {ZipEntry} entry
 * @param {Uint8Array} name
 * @param {number} offset  of the local header, for the central one
 */
function header(kind, entry, name, offset) {
  const fixed = kind === LOCAL ? 30 : 46, begin = kind === LOCAL ? 4 : 6;
  const bytes = new Uint8Array(fixed + name.length), view = new DataView(bytes.buffer);
  view.setUint32(0, kind, true);
  if (kind === CENTRAL) view.setUint16(4, 20, true);
  bytes.set(new Uint8Array(entry.common.buffer), begin);
  view.setUint16(begin + 2, (entry.common.getUint16(2, true) | UTF8) & ~8, true); // sizes stand in the header
  view.setUint16(begin + 22, name.length, true);
  if (kind === CENTRAL) {
    view.setUint32(38, entry.external, true);
    view.setUint32(42, offset, true);
  }
  bytes.set(name, fixed);
  return bytes;
}

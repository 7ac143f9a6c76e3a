/** From dropped or chosen files to requests: the kind of each file, and which go together. */

const PICTURES_PER_REQUEST = 8;
const DICOM_LIMITS = { files: 2000, bytes: 240 * 2 ** 20 }; // of a request; the server takes a little more
const MAGIC_BYTES = 4096; // the first of a file, by which it is recognised; they hold a compressed header
const HEADER_BYTES = 540; // of NIfTI
const FIRST_ELEMENTS = {
  0x00020000: "UL", 0x00020002: "UI", 0x00020010: "UI",
  0x00080000: "UL", 0x00080005: "CS", 0x00080008: "CS", 0x00080016: "UI", 0x00080018: "UI",
}; // with which a DICOM file without a preamble may begin, and what their values look like
const VALUES = { UL: /^.{4}$/s, UI: /^[0-9.]{1,64}\0?$/, CS: /^[A-Z0-9_ \\]{0,256}$/ };
const SUFFIXES = /\.(jpe?g|png|nii|nii\.gz|dcm)$/i;

/**
 * A file of the user's.
 * @typedef {{file: File, path: string, kind: "dicom"|"nifti"|"picture"|"unknown"}} Item
 */

/** Return the files of a drop, with those in folders. Call it in the event: the drop is gone afterwards. */
export async function dropped(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.() ?? null);
  const loose = items.map((item) => item.getAsFile());
  const files = await Promise.all(
    entries.map((entry, index) => (entry?.isDirectory ? inFolder(entry) : [{ file: loose[index], path: "" }])),
  );
  return files.flat().filter(({ file }) => file);
}

/** Return the files of an input element. */
export function chosen(input) {
  return [...input.files].map((file) => ({ file, path: file.webkitRelativePath || "" }));
}

async function inFolder(folder) {
  const files = [];
  const reader = folder.createReader();
  for (let part = await read(reader); part.length; part = await read(reader)) {
    for (const entry of part) {
      if (entry.isDirectory) files.push(...(await inFolder(entry)));
      else files.push({ file: await asFile(entry), path: entry.fullPath.replace(/^\//, "") });
    }
  }
  return files;
}

const read = (reader) => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
const asFile = (entry) => new Promise((resolve, reject) => entry.file(resolve, reject));

/**
 * Recognise files by their content. Files in a folder that are not scans are skipped, as by `brainstage predict`.
 * @returns {Promise<{items: Item[], skipped: number}>}
 */
export async function recognise(files) {
  const items = await Promise.all(files.map(async (entry) => ({ ...entry, kind: await kindOf(entry.file) })));
  const kept = items.filter(({ kind, path, file }) => kind !== "unknown" || !path || SUFFIXES.test(file.name));
  kept.sort((a, b) => inOrder.compare(nameOf(a), nameOf(b)));
  return { items: kept, skipped: items.length - kept.length };
}

const inOrder = new Intl.Collator("en", { numeric: true });

/** Return the name of a file on the screen. */
export const nameOf = ({ file, path }) => path || file.name;

/** Return the name of a scan on the screen: its file, or the folder of a series. */
export function nameOfAll(items) {
  if (items.length === 1) return nameOf(items[0]);
  const folder = folderOf(items[0]);
  if (folder && items.every((item) => folderOf(item) === folder)) return folder;
  return `${nameOf(items[0])} and ${items.length - 1} more`;
}

const folderOf = ({ path }) => path.split("/").slice(0, -1).join("/");

/** Return the kind of a file by its first bytes, whatever its name, as `scans/discover.py` does. */
async function kindOf(file) {
  const bytes = new Uint8Array(await file.slice(0, MAGIC_BYTES).arrayBuffer().catch(() => new ArrayBuffer(0)));
  const start = latin1(bytes);
  if (start.startsWith("\xff\xd8\xff") || start.startsWith("\x89PNG\r\n\x1a\n")) return "picture";
  const header = start.startsWith("\x1f\x8b") ? latin1(await unpacked(bytes)) : start;
  if (header.slice(344, 348) === "n+1\0" || header.slice(4, 8) === "n+2\0") return "nifti";
  return start.slice(128, 132) === "DICM" || lacksPreamble(bytes) ? "dicom" : "unknown";
}

const latin1 = (bytes) => String.fromCharCode(...bytes);

/** Return the first bytes of a gzip file's content; fewer where it is damaged. */
async function unpacked(bytes) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")).getReader();
  const found = [];
  try {
    while (found.length < HEADER_BYTES) {
      const { done, value } = await reader.read();
      if (done) break;
      found.push(...value.subarray(0, HEADER_BYTES));
    }
  } catch {} // the file goes on after these bytes, or is damaged
  reader.cancel().catch(() => {});
  return found;
}

/** Return whether a file begins with a DICOM element, not with a preamble; as `_lacks_preamble` in `scans/dicom.py`. */
function lacksPreamble(bytes) {
  if (bytes.length < 8) return false;
  const view = new DataView(bytes.buffer);
  const element = (at) => view.getUint16(at, true) * 0x10000 + view.getUint16(at + 2, true);
  const representation = FIRST_ELEMENTS[element(0)];
  if (!representation) return false;
  const explicit = latin1(bytes.subarray(4, 6)) === representation;
  const length = explicit ? view.getUint16(6, true) : view.getUint32(4, true);
  if (length % 2 || 12 + length > bytes.length || !VALUES[representation].test(latin1(bytes.subarray(8, 8 + length)))) return false;
  const following = element(8 + length);
  return [2, 8].includes(following >>> 16) && element(0) < following;
}

/**
 * Put files into requests: DICOM together, so that series stay whole; volumes alone; pictures a few at a time.
 * @param {Item[]} items
 * @param {boolean} onePerson - All in one request.
 * @returns {Item[][]}
 */
export function requests(items, onePerson) {
  if (onePerson) return [items];
  const dicom = items.filter((item) => item.kind === "dicom");
  const volumes = items.filter((item) => item.kind === "nifti");
  const others = items.filter((item) => !["dicom", "nifti"].includes(item.kind));
  const few = Array.from({ length: Math.ceil(others.length / PICTURES_PER_REQUEST) }, (_, index) =>
    others.slice(PICTURES_PER_REQUEST * index, PICTURES_PER_REQUEST * (index + 1)),
  );
  return [...few, ...packed(dicom), ...volumes.map((item) => [item])];
}

/** Put DICOM folders into few requests; a folder is never split. */
export function packed(items) {
  const folders = Object.values(Object.groupBy(items, folderOf));
  const batches = [];
  for (const folder of folders) {
    const last = batches.at(-1);
    if (last && last.length + folder.length <= DICOM_LIMITS.files && bytes(last) + bytes(folder) <= DICOM_LIMITS.bytes) {
      last.push(...folder);
    } else batches.push(folder);
  }
  return batches;
}

const bytes = (items) => items.reduce((sum, { file }) => sum + file.size, 0);

/** From dropped or chosen files to requests: the kind of each file, and which go together. */

const PICTURES_PER_REQUEST = 8;
const DICOM_LIMITS = { files: 2000, bytes: 240 * 2 ** 20 }; // of a request; the server takes a little more
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

async function kindOf(file) {
  const bytes = new Uint8Array(await file.slice(0, 352).arrayBuffer().catch(() => new ArrayBuffer(0)));
  const text = (start, end) => String.fromCharCode(...bytes.slice(start, end));
  if (text(128, 132) === "DICM") return "dicom";
  if (text(0, 2) === "\x1f\x8b" || ["n+1", "ni1"].includes(text(344, 347)) || text(4, 7) === "n+2") return "nifti";
  if (text(0, 3) === "\xff\xd8\xff" || text(1, 4) === "PNG") return "picture";
  return "unknown";
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

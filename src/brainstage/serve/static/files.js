/** From what was dropped or chosen to requests: what each file is, and which go together. */

const PICTURES = 8; // in a request
const MOST = { files: 2000, bytes: 240 * 2 ** 20 }; // of DICOM in a request; the server takes a little more
const SUFFIXES = /\.(jpe?g|png|nii|nii\.gz|dcm)$/i;

/**
 * A file of the user's.
 * @typedef {{file: File, path: string, kind: "dicom"|"nifti"|"picture"|"unknown"}} Item
 */

/** Return the files of a drop, those of folders too. Call it in the event: what was dropped is gone afterwards. */
export async function dropped(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.() ?? null);
  const loose = items.map((item) => item.getAsFile());
  const found = await Promise.all(
    entries.map((entry, index) => (entry?.isDirectory ? inFolder(entry) : [{ file: loose[index], path: "" }])),
  );
  return found.flat().filter((one) => one.file);
}

/** Return the files of an input element. */
export function chosen(input) {
  return [...input.files].map((file) => ({ file, path: file.webkitRelativePath || "" }));
}

async function inFolder(folder) {
  const found = [];
  const reader = folder.createReader();
  for (let part = await read(reader); part.length; part = await read(reader)) {
    for (const entry of part) {
      if (entry.isDirectory) found.push(...(await inFolder(entry)));
      else found.push({ file: await asFile(entry), path: entry.fullPath.replace(/^\//, "") });
    }
  }
  return found;
}

const read = (reader) => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
const asFile = (entry) => new Promise((resolve, reject) => entry.file(resolve, reject));

/**
 * Tell what files are. What lies in a folder and is no scan is left out, as `brainstage predict` does.
 * @returns {Promise<{items: Item[], left: number}>}
 */
export async function told(files) {
  const items = await Promise.all(files.map(async (one) => ({ ...one, kind: await kindOf(one.file) })));
  const kept = items.filter(({ kind, path, file }) => kind !== "unknown" || !path || SUFFIXES.test(file.name));
  kept.sort((a, b) => inOrder.compare(nameOf(a), nameOf(b)));
  return { items: kept, left: items.length - kept.length };
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
  const few = Array.from({ length: Math.ceil(others.length / PICTURES) }, (_, index) =>
    others.slice(PICTURES * index, PICTURES * (index + 1)),
  );
  return [...few, ...packed(dicom), ...volumes.map((item) => [item])];
}

/** Put DICOM folders into as few requests as hold them; a folder is never split. */
function packed(items) {
  const folders = Object.values(Object.groupBy(items, folderOf));
  const loads = [];
  for (const folder of folders) {
    const last = loads.at(-1);
    if (last && last.length + folder.length <= MOST.files && bytes(last) + bytes(folder) <= MOST.bytes) {
      last.push(...folder);
    } else loads.push(folder);
  }
  return loads;
}

const bytes = (items) => items.reduce((sum, { file }) => sum + file.size, 0);

/** Several DICOM series in one drop: a list to choose from, which names nobody. */

import { listScans } from "./api.js";
import { byId, count, element } from "./dom.js";
import { packed } from "./files.js";

/**
 * A DICOM series as its headers describe it.
 * @typedef {{modality: string|null, slices: number|null, matrix: number[]|null, spacing_mm: number[], patient?: number, items: import("./files.js").Item[]}} Series
 */

/**
 * Return the series among DICOM files; none where other files are among them, or there is one file.
 * @param {import("./files.js").Item[]} items
 * @param {AbortSignal} signal
 * @returns {Promise<Series[]>}
 */
export async function seriesOf(items, signal) {
  if (items.length < 2 || items.some(({ kind }) => kind !== "dicom")) return [];
  const found = [];
  for (const batch of packed(items)) {
    const listed = await listScans(batch.map(({ file }) => file), signal);
    found.push(...listed.map(({ files, ...about }) => ({ ...about, items: files.map((number) => batch[number - 1]) })));
  }
  return found.filter(({ kind }) => kind === "DICOM");
}

/** List series; `choose` is called with the items of the one that is chosen, `all` for all of them. */
export function showSeries(series, choose, all) {
  const rows = series.map(({ items, ...about }, index) => {
    const button = element("button", { type: "button" }, element("strong", {}, `Series ${index + 1}`), element("span", {}, wordsOf(about)));
    button.addEventListener("click", () => choose(items));
    return element("li", {}, button);
  });
  byId("series-list").replaceChildren(...rows);
  byId("series-all").textContent = `Read all ${series.length}, one after another`;
  byId("series-all").onclick = all;
}

function wordsOf({ modality, slices, matrix, spacing_mm: spacing, patient }) {
  return [
    patient && `patient ${patient}`, // where the headers name several
    modality ?? "modality not stated",
    slices === null ? "size not known" : count(slices, "slice"),
    matrix && `${matrix[0]} × ${matrix[1]} pixels`,
    spacing.length > 2 && `${spacing[2].toFixed(1)} mm apart`,
  ].filter(Boolean).join(" · ");
}

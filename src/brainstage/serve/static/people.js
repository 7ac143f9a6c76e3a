/** From a reply of /v1/predict to people: the prediction, slices and files of each. */

import { nameOfAll } from "./files.js";
import { shortNames } from "./dom.js";

/**
 * The prediction for a person.
 * @typedef {object} Person
 * @property {object} prediction - The row from all slices, or that of the only slice.
 * @property {object[]} slices - The rows of single slices, with their pictures.
 * @property {import("./files.js").Item[]} items - The files, as the user gave them.
 * @property {import("./files.js").Item[]} sent - The files of the request, by whose numbers rows name theirs.
 * @property {string} name - The name on the screen.
 * @property {string} model - Name of the model.
 * @property {object} reply - All but the predictions: notice, model, classes, calibrated.
 * @property {string[]} short - Names of the stages on the screen.
 * @property {object[]} outlines - Where a skull was taken off: a picture of each plane, with the outline of the brain.
 * @property {boolean} approved - Whether the user has seen the outlines and found them right; true where there are none.
 * @property {Map<string, object>} maps - The explanations of slices, by the slice's key, where requested.
 * @property {object} [explained] - What moved the score of all slices together, where requested.
 */

/**
 * @param {object} reply - The server's reply.
 * @param {import("./files.js").Item[]} sent - The files of the request, in its order.
 * @param {string} model - Name of the model.
 * @returns {Person[]}
 */
export function peopleOf({ predictions, extracted, ...reply }, sent, model) {
  const people = Object.values(Object.groupBy(predictions, (row) => row.person));
  return people.map((rows) => {
    const numbers = new Set(rows.flatMap((row) => row.files));
    const items = [...numbers].map((number) => sent[number - 1]);
    const brains = extracted.filter(({ files }) => files.every((number) => numbers.has(number)));
    const outlines = brains.map(({ outline }) => outline);
    return { ...withBrains(rows, sent, brains), items, name: nameOfAll(items), ...about(reply, model), outlines, approved: !brains.length };
  });
}

/** Have the rows of heads name the brain that the server took out, so that it is what further requests send. */
function withBrains(rows, uploaded, brains) {
  const sent = [...uploaded];
  const instead = new Map();
  for (const { files, brain } of brains) {
    sent.push({ file: new File([Uint8Array.from(atob(brain), (letter) => letter.charCodeAt(0))], "brain.nii.gz"), kind: "nifti" });
    files.forEach((number) => instead.set(number, sent.length));
  }
  const renumbered = rows.map((row) => ({ ...row, files: [...new Set(row.files.map((number) => instead.get(number) ?? number))] }));
  return { ...split(renumbered), sent };
}

/** Return a person for a file whose request failed. */
export function failed(item, reason, model, reply) {
  const prediction = { status: "failed", reason, slices: 0, files: [1] };
  return { prediction, slices: [], items: [item], sent: [item], name: nameOfAll([item]), ...about(reply, model) };
}

const about = (reply, model) => ({ reply, model, short: shortNames(reply.classes), maps: new Map(), outlines: [], approved: true });

const UNCHECKED = "a skull was taken off: open the scan and check where the brain was cut out";

/** Return what is shown of a person: the prediction, but of a head only once its outline is approved. */
export const answerOf = ({ prediction, approved }) => (approved ? prediction : { status: "unchecked", reason: UNCHECKED });

/** Return whether it is known which side of a row's slice is the person's right: a lone picture does not tell. */
export const knowsSides = (row, { sent }) => row.files.every((number) => ["dicom", "nifti"].includes(sent[number - 1].kind));

/** Separate the row of the person, which there is where there are several slices, from those of the slices. */
function split(rows) {
  const pictures = rows.filter((row) => row.slice_id);
  if (pictures.length > 1) return { prediction: rows[0], slices: rows.slice(1) };
  const prediction = pictures.find((row) => row.status === "predicted") ?? rows[0];
  return { prediction, slices: rows.length > 1 ? rows : pictures };
}

/** Return the files behind a row. */
export const filesOf = (row, person) => row.files.map((number) => person.sent[number - 1].file);

/** Return a row's probability of each stage and whether it cannot be ruled out. */
export function stagesOf(row, { reply, short }) {
  return reply.classes.map((name, index) => ({
    name: short[index],
    probability: row[`prob_${name}`] ?? null,
    inSet: row[`in_set_${name}`] ?? null,
  }));
}

/** Return the name on the screen of a row's likeliest stage; empty if it has none. */
export const likeliest = (row, { reply, short }) => short[reply.classes.indexOf(row.stage)] ?? "";

/** Return the key of a slice among a person's maps. */
export const keyOf = ({ files, level }) => `${files.join(" ")}:${level}`;

/** Return a model's identity in one line. */
export function titleOf({ hash, protocol, leakage, synthetic }) {
  const verdict = leakage?.sentence ?? "leakage unknown";
  const drawn = synthetic ? " · trained on phantoms: its predictions mean nothing for real brains" : "";
  return `model ${hash.slice(0, 12)} · protocol ${protocol ?? "unknown"} · ${verdict}${drawn}`;
}

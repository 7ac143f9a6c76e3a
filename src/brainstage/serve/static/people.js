/** From a reply of /v1/predict to people: whose answer, whose slices, whose files. */

import { nameOfAll } from "./files.js";
import { shortNames } from "./dom.js";

/**
 * What the model says of a person.
 * @typedef {object} Person
 * @property {object} answer - The row from all slices; of a single slice, its own.
 * @property {object[]} slices - The rows of single slices, with their pictures.
 * @property {import("./files.js").Item[]} items - The files, as the user gave them.
 * @property {import("./files.js").Item[]} sent - The files of the request, by whose numbers rows name theirs.
 * @property {string} name - For the screen only.
 * @property {string} model - Name of the model that was asked.
 * @property {object} reply - All but the predictions: notice, model, classes, calibrated.
 * @property {string[]} short - Names of the stages for the screen.
 * @property {Map<string, object>} maps - What moved the score of a slice, by its key, where it was asked for.
 */

/**
 * @param {object} reply - Of the server.
 * @param {import("./files.js").Item[]} sent - The files of the request, in its order.
 * @param {string} model - Name of the model that was asked.
 * @returns {Person[]}
 */
export function peopleOf({ predictions, ...reply }, sent, model) {
  const people = Object.values(Object.groupBy(predictions, (row) => row.person));
  return people.map((rows) => {
    const numbers = [...new Set(rows.flatMap((row) => row.files))];
    const items = numbers.map((number) => sent[number - 1]);
    return { ...split(rows), items, sent, name: nameOfAll(items), ...about(reply, model) };
  });
}

/** Return a person for a file that the server gave no answer for. */
export function failed(item, reason, model, reply) {
  const answer = { status: "failed", reason, slices: 0, files: [1] };
  return { answer, slices: [], items: [item], sent: [item], name: nameOfAll([item]), ...about(reply, model) };
}

const about = (reply, model) => ({ reply, model, short: shortNames(reply.classes), maps: new Map() });

/** Tell the row of the person from those of slices: it is there where there are several, which have a `slice_id`. */
function split(rows) {
  const pictures = rows.filter((row) => row.slice_id);
  if (pictures.length > 1) return { answer: rows[0], slices: rows.slice(1) };
  const answer = pictures.find((row) => row.status === "predicted") ?? rows[0];
  return { answer, slices: rows.length > 1 ? rows : pictures };
}

/** Return the files that a row is about. */
export const filesOf = (row, person) => row.files.map((number) => person.sent[number - 1].file);

/** Return a row's probability of each stage and whether it cannot be ruled out. */
export function stagesOf(row, { reply, short }) {
  return reply.classes.map((name, index) => ({
    name: short[index],
    probability: row[`prob_${name}`] ?? null,
    held: row[`in_set_${name}`] ?? null,
  }));
}

/** Return the name for the screen of a row's likeliest stage; empty where it has none. */
export const likeliest = (row, { reply, short }) => short[reply.classes.indexOf(row.stage)] ?? "";

/** Return the key of a slice among a person's maps; `level` is another one of the same scan. */
export const keyOf = (row, level = row.level) => `${row.files.join(" ")}:${level}`;

/** Return what is said of a model: its identity in one line. */
export function titleOf({ hash, protocol, leakage, synthetic }) {
  const verdict = leakage?.sentence ?? "leakage unknown";
  const drawn = synthetic ? " · trained on phantoms: says nothing about real brains" : "";
  return `model ${hash.slice(0, 12)} · protocol ${protocol ?? "unknown"} · ${verdict}${drawn}`;
}

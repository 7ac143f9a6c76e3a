/** The table of a batch as a CSV file, made in the browser. */

import { answerOf } from "./people.js";

/** Return the CSV of people, a row each; file names only where asked for. */
export function csvOf(people, withNames) {
  const classes = people[0].reply.classes;
  const columns = [
    ["person", (_, number) => number],
    ...(withNames ? [["source", (person) => person.name]] : []),
    ["status", ({ prediction }) => prediction.status],
    ["slices", ({ prediction }) => prediction.slices],
    ["stage", ({ prediction }) => prediction.stage],
    ...classes.map((name) => [`prob_${name}`, ({ prediction }) => prediction[`prob_${name}`]]),
    ...classes.map((name) => [`in_set_${name}`, ({ prediction }) => prediction[`in_set_${name}`]]),
    ["words", ({ prediction }) => prediction.words],
    ["stability", ({ prediction }) => prediction.stability],
    ["spread", ({ prediction }) => prediction.spread],
    ["reason", ({ prediction }) => prediction.reason],
    ["model", ({ reply }) => reply.model.hash],
    ["protocol", ({ reply }) => reply.model.protocol],
    ["leakage", ({ reply }) => reply.model.leakage?.sentence],
    ["calibrated", ({ reply }) => reply.calibrated],
    ["notice", ({ reply }) => reply.notice],
  ];
  const shown = people.map((person) => ({ ...person, prediction: answerOf(person) }));
  const rows = shown.map((person, index) => columns.map(([, value]) => value(person, index + 1)));
  return [columns.map(([name]) => name), ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

/** Quote a cell; text that a spreadsheet would take for a formula gets an apostrophe before it. */
function cell(value) {
  if (value === null || value === undefined) return "";
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}


/** Many scans: requests one after another, a table that grows, a CSV at the end. */

import { Problem, predict } from "./api.js";
import { csvOf, save } from "./csv.js";
import { byId, count, element, say, sentence, shownAs } from "./dom.js";
import { failed, likeliest, peopleOf, stagesOf } from "./people.js";

let people = [];
let open = () => {};

/** Wire the buttons; `show` opens the view of a person, `stop` ends the work. */
export function startBatch(show, stop) {
  open = show;
  byId("stop").addEventListener("click", stop);
  byId("save").addEventListener("click", () => save(csvOf(people, byId("with-names").checked), "brainstage.csv"));
}

/** Begin an empty table. */
export function clearBatch() {
  people = [];
  byId("results").querySelector("tbody").replaceChildren();
  byId("results").querySelector("thead").replaceChildren();
  byId("results").hidden = true;
  byId("batch-notice").textContent = "";
  byId("batch-summary").hidden = true;
  byId("batch-title").textContent = "Several scans";
  byId("save").disabled = true;
  byId("batch").querySelector(".bar").hidden = false;
}

/**
 * Send requests one after another and show what comes.
 * @param {import("./files.js").Item[][]} loads - The files of each request.
 * @param {{model: object, onePerson: boolean, left: number, signal: AbortSignal}} options - `left`: files left out.
 */
export async function runBatch(loads, { model, onePerson, left, signal }) {
  const all = loads.flat().length;
  let done = 0;
  progress(0, all);
  for (const load of loads) {
    const found = await answers(load, model, onePerson, signal);
    if (!found) break;
    addPeople(found);
    done += load.length;
    progress(done, all);
  }
  summarise(done, all, left);
}

/** Return the people of a request; null where it was stopped. */
async function answers(load, model, onePerson, signal) {
  const files = load.map(({ file }) => file);
  try {
    return peopleOf(await predict(files, { model: model.name, onePerson, signal }), load, model.name);
  } catch (error) {
    if (signal.aborted) return null;
    if (!(error instanceof Problem)) throw error;
    const reply = { notice: "", model, classes: model.classes, calibrated: model.calibrated };
    return load.map((item) => failed(item, error.message, model.name, reply));
  }
}

function progress(done, all) {
  byId("batch-progress").max = all;
  byId("batch-progress").value = done;
  byId("batch-count").textContent = `${done.toLocaleString("en")} of ${count(all, "file")}`;
}

/** Show people as rows of the table. */
export function addPeople(found) {
  if (!people.length) head(found[0]);
  const body = byId("results").querySelector("tbody");
  found.forEach((person) => {
    people.push(person);
    body.append(row(person, people.length));
  });
  byId("results").hidden = false;
  byId("save").disabled = false;
  byId("batch-notice").textContent = found.at(-1).reply.notice || byId("batch-notice").textContent;
}

/** Say how it ended. */
export function summarise(done, all, left) {
  const of = (status) => people.filter(({ answer }) => answer.status === status).length;
  const text = [
    done < all ? `Stopped after ${done} of ${count(all, "file")}:` : `${count(all, "file")}, ${count(people.length, "scan")}:`,
    `${of("predicted")} answered, ${of("refused")} refused, ${of("failed")} could not be read.`,
    left ? `${count(left, "file")} in the folder ${left === 1 ? "is no scan and was" : "are no scans and were"} left out.` : "",
  ].join(" ").trim();
  byId("batch-title").textContent = done < all ? "Stopped" : "Done";
  byId("batch").querySelector(".bar").hidden = true;
  byId("batch-summary").hidden = false;
  byId("batch-summary").textContent = text;
  say(text);
}

function head({ short, reply }) {
  const columns = ["Number", "Scan", reply.calibrated ? "Likeliest" : "Highest score", ...short, "Not ruled out"];
  const cells = columns.slice(0, reply.calibrated ? undefined : -1).map((text) => element("th", { scope: "col" }, text));
  cells[0].replaceChildren(element("span", { class: "hidden-text" }, columns[0]));
  byId("results").querySelector("thead").replaceChildren(element("tr", {}, ...cells));
}

function row(person, number) {
  const { answer, name } = person;
  const button = element("button", { class: "plain name", type: "button" }, name);
  const made = element(
    "tr",
    { class: answer.status },
    element("td", { class: "index" }, String(number)),
    element("th", { scope: "row" }, button),
    ...(answer.status === "predicted" ? figures(person) : [reasonCell(person)]),
  );
  made.addEventListener("click", () => open(person));
  return made;
}

function figures(person) {
  const stages = stagesOf(person.answer, person);
  const held = stages.filter((stage) => stage.held).map(({ name }) => name);
  return [
    element("td", { class: "likeliest", "data-label": person.reply.calibrated ? "Likeliest" : "Highest score" }, likeliest(person.answer, person)),
    ...stages.map(({ name, probability, held: inside }) => {
      const fill = element("i", { class: inside === false ? "mini out" : "mini", "aria-hidden": "true" });
      fill.style.width = `${100 * probability}%`;
      return element("td", { class: "number", "data-label": name }, shownAs(probability, person.reply.calibrated), fill);
    }),
    person.reply.calibrated && element("td", { class: "set", "data-label": "Not ruled out" }, held.join(", ")),
  ];
}

function reasonCell({ answer, short, reply }) {
  const label = answer.status === "refused" ? "Refused" : "Could not be read";
  return element("td", { class: "reason", colspan: short.length + (reply.calibrated ? 2 : 1) }, element("strong", {}, label), ` ${sentence(answer.reason)}`);
}

/** Many scans: requests one after another, a growing table, and a CSV at the end. */

import { Problem, predict } from "./api.js";
import { csvOf } from "./csv.js";
import { byId, count, element, save, say, sentence, shownAs } from "./dom.js";
import { answerOf, failed, likeliest, peopleOf, stagesOf } from "./people.js";

let people = [];
let open = () => {};
let ended = []; // how the batch ended, as summarise takes it

/** Wire the buttons; `show` opens the view of a person, `stop` ends the work. */
export function startBatch(show, stop) {
  open = show;
  byId("stop").addEventListener("click", stop);
  byId("save").addEventListener("click", () => save(["\ufeff", csvOf(people, byId("with-names").checked)], "text/csv", "brainstage.csv"));
}

/** Show the row of a person again, whose outline was approved. */
export function updatePerson(person) {
  const index = people.indexOf(person);
  if (index < 0) return;
  byId("results").querySelector("tbody").children[index].replaceWith(row(person, index + 1));
  if (!byId("batch-summary").hidden) summarise(...ended);
}

/** Empty the table. */
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
 * Send requests one after another and show their replies.
 * @param {import("./files.js").Item[][]} batches - The files of each request.
 * @param {{model: object, onePerson: boolean, skipped: number, signal: AbortSignal}} options - `skipped`: number of files left out.
 */
export async function runBatch(batches, { model, onePerson, skipped, signal }) {
  const all = batches.flat().length;
  let done = 0;
  progress(0, all);
  for (const items of batches) {
    const added = await predictPeople(items, model, onePerson, signal);
    if (!added) break;
    addPeople(added);
    done += items.length;
    progress(done, all);
  }
  summarise(done, all, skipped);
}

/** Return the people of a request; null if it was stopped. */
async function predictPeople(items, model, onePerson, signal) {
  const files = items.map(({ file }) => file);
  try {
    return peopleOf(await predict(files, { model: model.name, onePerson, signal }), items, model.name);
  } catch (error) {
    if (signal.aborted) return null;
    if (!(error instanceof Problem)) throw error;
    const reply = { notice: "", model, classes: model.classes, calibrated: model.calibrated };
    return items.map((item) => failed(item, error.message, model.name, reply));
  }
}

function progress(done, all) {
  byId("batch-progress").max = all;
  byId("batch-progress").value = done;
  byId("batch-count").textContent = `${done.toLocaleString("en")} of ${count(all, "file")}`;
}

/** Show people as rows of the table. */
export function addPeople(added) {
  if (!people.length) head(added[0]);
  const body = byId("results").querySelector("tbody");
  added.forEach((person) => {
    people.push(person);
    body.append(row(person, people.length));
  });
  byId("results").hidden = false;
  byId("save").disabled = false;
  byId("batch-notice").textContent = notices();
}

/** Return what accompanies the replies of all requests, each sentence once. */
function notices() {
  const sentences = people.flatMap(({ reply }) => reply.notice.split(/(?<=\.) (?=[A-Z])/));
  return [...new Set(sentences)].filter(Boolean).join(" ");
}

/** Show how the batch ended. */
export function summarise(done, all, skipped) {
  ended = [done, all, skipped];
  const total = (status) => people.filter((person) => answerOf(person).status === status).length;
  const text = [
    done < all ? `Stopped after ${done} of ${count(all, "file")}:` : `${count(all, "file")}, ${count(people.length, "scan")}:`,
    `${total("predicted")} predicted, ${total("refused")} refused, ${total("failed")} could not be read.`,
    total("unchecked") ? `${count(total("unchecked"), "head")}: open each to check where its brain was cut out.` : "",
    skipped ? `${count(skipped, "file")} in the folder ${skipped === 1 ? "is not a scan and was" : "are not scans and were"} left out.` : "",
  ].filter(Boolean).join(" ");
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
  const { name } = person;
  const { status, reason } = answerOf(person);
  const button = element("button", { class: "plain name", type: "button" }, name);
  const tableRow = element(
    "tr",
    { class: status },
    element("td", { class: "index" }, String(number)),
    element("th", { scope: "row" }, button),
    ...(status === "predicted" ? figures(person) : [reasonCell(person, status, reason)]),
  );
  tableRow.addEventListener("click", () => open(person));
  return tableRow;
}

function figures(person) {
  const stages = stagesOf(person.prediction, person);
  const inSet = stages.filter((stage) => stage.inSet).map(({ name }) => name);
  return [
    element("td", { class: "likeliest", "data-label": person.reply.calibrated ? "Likeliest" : "Highest score" }, likeliest(person.prediction, person)),
    ...stages.map(({ name, probability, inSet: inside }) => {
      const fill = element("i", { class: inside === false ? "mini out" : "mini", "aria-hidden": "true" });
      fill.style.width = `${100 * probability}%`;
      return element("td", { class: "number", "data-label": name }, shownAs(probability, person.reply.calibrated), fill);
    }),
    person.reply.calibrated && element("td", { class: "set", "data-label": "Not ruled out" }, inSet.join(", ")),
  ];
}

const LABELS = { refused: "Refused", failed: "Could not be read", unchecked: "To be checked" };

function reasonCell({ short, reply }, status, reason) {
  return element("td", { class: "reason", colspan: short.length + (reply.calibrated ? 2 : 1) }, element("strong", {}, LABELS[status]), ` ${sentence(reason)}`);
}

/** The page: sends dropped or chosen files to the server, and shows the reply in a view. */

import { fetchModels, predict } from "./api.js";
import { addPeople, clearBatch, runBatch, startBatch, summarise } from "./batch.js";
import { byId, say } from "./dom.js";
import { chosen, dropped, nameOfAll, recognise, requests } from "./files.js";
import { startControls } from "./heat.js";
import { showModels } from "./models.js";
import { peopleOf } from "./people.js";
import { showPerson, startSheet } from "./person.js";

const VIEWS = ["start", "working", "batch", "person"];
let selectedModel = null; // returns the selected model
let work = null; // the AbortController of the work in progress
let hasTable = false; // whether there is a table to go back to

/** Show a view, and add it to the browser's history. */
function show(view, { keep = true, focus = true } = {}) {
  VIEWS.forEach((id) => (byId(id).hidden = id !== view));
  if (keep) history.pushState({ view }, "");
  window.scrollTo(0, 0);
  if (focus) (byId(`${view}-title`) ?? byId("choose-files")).focus({ preventScroll: true });
}

function showProblem(text) {
  byId("problem").hidden = !text;
  byId("problem").textContent = text;
}

/** Take files from a drop or an input. */
async function take(files) {
  if (!selectedModel || !files.length) return;
  showProblem("");
  work?.abort();
  work = new AbortController();
  const { items, skipped } = await recognise(files);
  if (!items.length) {
    show("start", { keep: false });
    showProblem("None of these files is a scan: choose JPEG, PNG, NIfTI or DICOM files.");
    return;
  }
  const batches = requests(items, byId("one-person").checked);
  const options = { model: selectedModel(), onePerson: byId("one-person").checked, skipped, signal: work.signal };
  if (batches.length === 1 && (items.length === 1 || options.onePerson || items[0].kind === "dicom")) {
    await takeOne(batches[0], options);
  } else {
    hasTable = true;
    clearBatch();
    show("batch");
    await runBatch(batches, options);
  }
}

/** Stage files that may show one person; if the server finds several, show them as a table. */
async function takeOne(items, { model, onePerson, skipped, signal }) {
  byId("working-name").textContent = nameOfAll(items);
  show("working", { keep: false });
  say("Reading the scan.");
  const clock = startClock();
  try {
    const reply = await predict(items.map(({ file }) => file), { model: model.name, onePerson, signal });
    const people = peopleOf(reply, items, model.name);
    hasTable = people.length > 1;
    if (hasTable) showTable(people, items.length, skipped);
    else open(people[0]);
  } catch (error) {
    if (!signal.aborted) showProblem(`${nameOfAll(items)}: ${error.message}`);
    if (!byId("working").hidden) show("start", { keep: false });
  } finally {
    clearInterval(clock);
  }
}

function showTable(people, files, skipped) {
  clearBatch();
  addPeople(people);
  summarise(files, files, skipped);
  show("batch");
}

function open(person) {
  byId("back").querySelector("span").textContent = hasTable ? "All scans" : "Another scan";
  show("person");
  showPerson(person);
}

function startClock() {
  const began = Date.now();
  const tick = () => (byId("working-time").textContent = `${Math.round((Date.now() - began) / 1000)} s so far.`);
  tick();
  return setInterval(tick, 1000);
}

function startInputs() {
  byId("choose-files").addEventListener("click", () => byId("files").click());
  byId("choose-folder").addEventListener("click", () => byId("folder").click());
  byId("choose-folder").hidden = !("webkitdirectory" in byId("folder"));
  for (const input of [byId("files"), byId("folder")]) {
    input.addEventListener("change", async () => {
      const files = chosen(input);
      input.value = "";
      await take(files);
    });
  }
}

function startDrops() {
  const over = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const mark = (on) => document.body.classList.toggle("dragging", on);
  addEventListener("dragover", (event) => {
    if (!over(event)) return;
    event.preventDefault();
    mark(true);
  });
  addEventListener("dragleave", (event) => event.relatedTarget || mark(false));
  addEventListener("drop", async (event) => {
    if (!over(event)) return;
    event.preventDefault();
    mark(false);
    try {
      await take(await dropped(event.dataTransfer));
    } catch {
      showProblem("The dropped files cannot be read; choose them with the buttons.");
    }
  });
}

function startNavigation() {
  byId("home").addEventListener("click", () => {
    work?.abort();
    show("start");
  });
  byId("back").addEventListener("click", () => show(hasTable ? "batch" : "start"));
  byId("cancel").addEventListener("click", () => work?.abort());
  history.replaceState({ view: "start" }, "");
  addEventListener("popstate", (event) => {
    if (!byId("working").hidden) work?.abort();
    show(event.state?.view ?? "start", { keep: false });
  });
}

async function start() {
  byId("host").textContent = location.host;
  startInputs();
  startDrops();
  startNavigation();
  startControls();
  startSheet();
  startBatch(open, () => work?.abort());
  try {
    selectedModel = showModels(await fetchModels());
  } catch (error) {
    showProblem(`The models cannot be shown: ${error.message}`);
  }
}

start();

/** The page: what is dropped or chosen goes to the server, what comes back to a view. */

import { fetchModels, predict } from "./api.js";
import { addPeople, clearBatch, runBatch, startBatch, summarise } from "./batch.js";
import { byId, say } from "./dom.js";
import { chosen, dropped, nameOfAll, requests, told } from "./files.js";
import { startControls } from "./heat.js";
import { showModels } from "./models.js";
import { peopleOf } from "./people.js";
import { showPerson, startSheet } from "./person.js";

const VIEWS = ["start", "working", "batch", "person"];
let model = null; // gives the chosen one
let work = null; // what would stop the work in progress
let several = false; // whether there is a table to go back to

/** Show a view and let the browser's way back lead out of it. */
function show(view, { keep = true, focus = true } = {}) {
  VIEWS.forEach((one) => (byId(one).hidden = one !== view));
  if (keep) history.pushState({ view }, "");
  window.scrollTo(0, 0);
  if (focus) (byId(`${view}-title`) ?? byId("choose-files")).focus({ preventScroll: true });
}

function tellProblem(text) {
  byId("told").hidden = !text;
  byId("told").textContent = text;
}

/** Take files from a drop or an input. */
async function take(found) {
  if (!model || !found.length) return;
  tellProblem("");
  work?.abort();
  work = new AbortController();
  const { items, left } = await told(found);
  if (!items.length) {
    show("start", { keep: false });
    tellProblem("There is no scan among these files: JPEG, PNG, NIfTI or DICOM are taken.");
    return;
  }
  const loads = requests(items, byId("one-person").checked);
  const options = { model: model(), onePerson: byId("one-person").checked, left, signal: work.signal };
  if (loads.length === 1 && (items.length === 1 || options.onePerson || items[0].kind === "dicom")) {
    await takeOne(loads[0], options);
  } else {
    several = true;
    clearBatch();
    show("batch");
    await runBatch(loads, options);
  }
}

/** Stage what may be one person; where the server finds several, show them as a table. */
async function takeOne(load, { model: asked, onePerson, left, signal }) {
  byId("working-name").textContent = nameOfAll(load);
  show("working", { keep: false });
  say("Reading the scan.");
  const clock = startClock();
  try {
    const reply = await predict(load.map(({ file }) => file), { model: asked.name, onePerson, signal });
    const people = peopleOf(reply, load, asked.name);
    several = people.length > 1;
    if (several) showTable(people, load.length, left);
    else open(people[0]);
  } catch (error) {
    if (!signal.aborted) tellProblem(`${nameOfAll(load)}: ${error.message}`);
    if (!byId("working").hidden) show("start", { keep: false });
  } finally {
    clearInterval(clock);
  }
}

function showTable(people, files, left) {
  clearBatch();
  addPeople(people);
  summarise(files, files, left);
  show("batch");
}

function open(person) {
  byId("back").querySelector("span").textContent = several ? "All scans" : "Another scan";
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
      const found = chosen(input);
      input.value = "";
      await take(found);
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
      tellProblem("What was dropped cannot be read; choose it with the buttons.");
    }
  });
}

function startWays() {
  byId("home").addEventListener("click", () => {
    work?.abort();
    show("start");
  });
  byId("back").addEventListener("click", () => show(several ? "batch" : "start"));
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
  startWays();
  startControls();
  startSheet();
  startBatch(open, () => work?.abort());
  try {
    model = showModels(await fetchModels());
  } catch (error) {
    tellProblem(`The models cannot be shown: ${error.message}`);
  }
}

start();

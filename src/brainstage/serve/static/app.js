/** The page: sends dropped or chosen files to the server, and shows the reply in a view. */

import { fetchModels, predict } from "./api.js";
import { addPeople, clearBatch, runBatch, startBatch, summarise, updatePerson } from "./batch.js";
import { byId, say } from "./dom.js";
import { chosen, dropped, nameOfAll, recognise, requests } from "./files.js";
import { startControls } from "./heat.js";
import { showModels } from "./models.js";
import { showOutline, startOutline } from "./outline.js";
import { peopleOf } from "./people.js";
import { showPerson, startPerson } from "./person.js";
import { seriesOf, showSeries } from "./series.js";

const VIEWS = ["start", "working", "series", "batch", "outline", "person"];
const BACK = { start: "Another scan", series: "All series", batch: "All scans" };
let models = null; // promises what returns the selected model
let work = null; // the AbortController of the work in progress
let origin = "start"; // the view to go back to from a person

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
  if (!files.length) return;
  showProblem("");
  work?.abort();
  work = new AbortController();
  const { signal } = work;
  const { items, skipped } = await recognise(files);
  if (!items.length) {
    show("start", { keep: false });
    showProblem("None of these files is a scan. Choose JPEG, PNG, NIfTI or DICOM files.");
    return;
  }
  const onePerson = byId("one-person").checked;
  await atWork(items, signal, async () => {
    const model = (await models)();
    const series = onePerson ? [] : await seriesOf(items, signal);
    const options = { model, onePerson, skipped, signal };
    if (series.length > 1) offer(series, options);
    else await stage(series.length ? series[0].items : items, options);
  });
}

/** Show that files are being read while a function runs, and what is wrong if it fails. */
async function atWork(items, signal, run) {
  byId("working-name").textContent = nameOfAll(items);
  show("working", { keep: false });
  say("Reading the scan.");
  const clock = startClock();
  try {
    await run();
  } catch (error) {
    if (!signal.aborted) showProblem(`${nameOfAll(items)}: ${error.message}`);
    if (!byId("working").hidden) show("start", { keep: false });
  } finally {
    clearInterval(clock);
  }
}

/** Let the user choose one of several series, or all. */
function offer(series, options) {
  showSeries(
    series,
    (items) => {
      work?.abort();
      work = new AbortController();
      const { signal } = work;
      atWork(items, signal, () => stageOne(items, { ...options, signal }, "series"));
    },
    () => {
      work = new AbortController();
      stageMany(series.map(({ items }) => items), { ...options, signal: work.signal });
    },
  );
  show("series");
}

async function stage(items, options) {
  const batches = requests(items, options.onePerson);
  if (batches.length === 1 && (items.length === 1 || options.onePerson || items[0].kind === "dicom")) await stageOne(items, options);
  else await stageMany(batches, options);
}

/** Stage files that may show one person; if the server finds several, show them as a table. */
async function stageOne(items, { model, onePerson, skipped, signal }, from = "start") {
  const reply = await predict(items.map(({ file }) => file), { model: model.name, onePerson, signal });
  const people = peopleOf(reply, items, model.name);
  origin = people.length > 1 ? "batch" : from;
  if (people.length > 1) showTable(people, items.length, skipped);
  else open(people[0]);
}

/** Stage files that show several people, request by request. */
async function stageMany(batches, options) {
  origin = "batch";
  clearBatch();
  show("batch");
  await runBatch(batches, options);
}

function showTable(people, files, skipped) {
  clearBatch();
  addPeople(people);
  summarise(files, files, skipped);
  show("batch");
}

/** Show a person's prediction; of a head first where its brain was cut out. */
function open(person) {
  if (person.approved) {
    byId("back").querySelector("span").textContent = BACK[origin];
    show("person");
    showPerson(person);
  } else {
    showOutline(person);
    show("outline");
  }
}

function approve(person) {
  updatePerson(person);
  open(person);
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
  byId("back").addEventListener("click", () => show(origin));
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
  startPerson();
  startOutline(approve);
  startBatch(open, () => work?.abort());
  models = fetchModels().then(showModels);
  try {
    await models;
  } catch (error) {
    showProblem(`The models cannot be shown: ${error.message}`);
  }
}

start();

/** Explanations: maps of what moved the score, requested and laid over the slices. */

import { explain } from "./api.js";
import { byId, say } from "./dom.js";
import { filesOf, keyOf } from "./people.js";

let shown = null; // the person
let current = () => null; // returns the selected slice
let redraw = () => {};
let running = null; // the AbortController of the running request

/** Return the map of a slice; undefined if it was not requested. */
export const heatFor = (row) => shown?.maps.get(keyOf(row));

/** Begin with a person; `slice` returns the selected slice, `changed` is called when there are maps to draw. */
export function startHeat(person, slice, changed) {
  running?.abort();
  [shown, current, redraw] = [person, slice, changed];
  byId("heat").hidden = person.prediction.status !== "predicted";
  byId("explain-state").textContent = "";
  update();
}

/** Wire the button, the switch and the slider. */
export function startControls() {
  byId("explain").addEventListener("click", () => (running ? running.abort() : request()));
  byId("heat-on").addEventListener("change", fade);
  byId("heat-fade").addEventListener("input", fade);
  fade();
}

function fade() {
  const strength = byId("heat-on").checked ? byId("heat-fade").value / 100 : 0;
  byId("slices").style.setProperty("--heat", strength);
  byId("heat-fade").disabled = !byId("heat-on").checked;
}

async function request() {
  const [person, row] = [shown, current()];
  running = new AbortController();
  const { signal } = running;
  update();
  showState("Computing; a whole brain takes half a minute or more.");
  let end = "";
  try {
    const reply = await explain(filesOf(row, person), { model: person.model, signal });
    keep(person, row, reply);
    end = reply.maps.find((map) => map.reason)?.reason ?? "";
  } catch (error) {
    end = signal.aborted ? "Cancelled." : error.message;
  }
  if (running?.signal === signal) running = null; // else another one has begun for another person
  if (shown !== person) return;
  showState(end);
  update();
  redraw();
}

function keep(person, row, { maps, notice }) {
  for (const map of maps) {
    if (map.overlay) person.maps.set(keyOf(row, map.level), { ...map, notice });
  }
}

function showState(text) {
  byId("explain-state").textContent = text;
  say(text || "What moved the score is shown over the slices.");
}

/** Show what fits: the button while something can be running for, the controls once there are maps. */
export function update() {
  const row = current();
  const [any] = shown.maps.values();
  const map = (row && heatFor(row)) ?? any;
  byId("explain").hidden = !running && (row?.status !== "predicted" || shown.maps.has(keyOf(row)));
  byId("explain").textContent = running ? "Cancel" : "Show what moved the score";
  byId("explain-progress").hidden = !running;
  byId("heat-controls").hidden = byId("heat-notice").hidden = !any;
  if (!any) return;
  byId("heat-stage").textContent = shown.short[shown.reply.classes.indexOf(map.stage)];
  byId("heat-notice").textContent = map.notice;
}

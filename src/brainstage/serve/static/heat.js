/** What moved the score: asked for, waited for, laid over the slices. */

import { explain } from "./api.js";
import { byId, say } from "./dom.js";
import { filesOf, keyOf } from "./people.js";

let shown = null; // the person
let current = () => null; // gives the selected slice
let redraw = () => {};
let asked = null; // what would stop the request at work

/** Return the map of a slice; undefined where it was not asked for. */
export const heatFor = (row) => shown?.maps.get(keyOf(row));

/** Begin with a person; `slice` gives the selected one, `changed` is called when there are maps to draw. */
export function startHeat(person, slice, changed) {
  asked?.abort();
  [shown, current, redraw] = [person, slice, changed];
  byId("heat").hidden = person.answer.status !== "predicted";
  byId("explain-state").textContent = "";
  update();
}

/** Wire the button, the switch and the slider. */
export function startControls() {
  byId("explain").addEventListener("click", () => (asked ? asked.abort() : ask()));
  byId("heat-on").addEventListener("change", fade);
  byId("heat-fade").addEventListener("input", fade);
  fade();
}

function fade() {
  const strength = byId("heat-on").checked ? byId("heat-fade").value / 100 : 0;
  byId("slices").style.setProperty("--heat", strength);
  byId("heat-fade").disabled = !byId("heat-on").checked;
}

async function ask() {
  const [person, row] = [shown, current()];
  asked = new AbortController();
  const { signal } = asked;
  update();
  tell("At work; a whole brain takes half a minute or more.");
  let end = "";
  try {
    const reply = await explain(filesOf(row, person), { model: person.model, signal });
    keep(person, row, reply);
    end = reply.maps.find((map) => map.reason)?.reason ?? "";
  } catch (error) {
    end = signal.aborted ? "Cancelled." : error.message;
  }
  asked = null;
  if (shown !== person) return;
  tell(end);
  update();
  redraw();
}

function keep(person, row, { maps, notice }) {
  for (const map of maps) {
    if (map.overlay) person.maps.set(keyOf(row, map.level), { ...map, notice });
  }
}

function tell(text) {
  byId("explain-state").textContent = text;
  say(text || "What moved the score is shown over the slices.");
}

/** Show what fits: the button while something can be asked for, the controls once there are maps. */
export function update() {
  const row = current();
  const [any] = shown.maps.values();
  const map = (row && heatFor(row)) ?? any;
  byId("explain").hidden = !asked && (row?.status !== "predicted" || shown.maps.has(keyOf(row)));
  byId("explain").textContent = asked ? "Cancel" : "Show what moved the score";
  byId("explain-progress").hidden = !asked;
  byId("heat-controls").hidden = byId("heat-notice").hidden = !any;
  if (!any) return;
  byId("heat-stage").textContent = shown.short[shown.reply.classes.indexOf(map.stage)];
  byId("heat-notice").textContent = map.notice;
}

/** Explanations: what moved the score, requested and laid over the slices; of contributions each cell on hover. */

import { explain } from "./api.js";
import { byId, element, say } from "./dom.js";
import { filesOf, keyOf } from "./people.js";

let shown = null; // the person
let current = () => null; // returns the selected slice
let redraw = () => {};
let choose = () => {}; // selects a slice by its number among the person's
let running = null; // the AbortController of the running request
let marked = null; // the cell that is outlined, row and column

/** Return the map of a slice; undefined if it was not requested. */
export const heatFor = (row) => shown?.maps.get(keyOf(row));

/**
 * Begin with a person.
 * @param {import("./people.js").Person} person
 * @param {{slice: Function, changed: Function, select: Function}} view - Returns the selected slice; is called when
 *   there are maps to draw; selects a slice by its number.
 */
export function startHeat(person, { slice, changed, select }) {
  running?.abort();
  [shown, current, redraw, choose, marked] = [person, slice, changed, select, null];
  byId("heat").hidden = person.prediction.status !== "predicted";
  byId("explain-state").textContent = "";
  showLargest(person.explained);
  update();
}

/** Wire the button, the switch, the slider and the picture. */
export function startControls() {
  byId("explain").addEventListener("click", () => (running ? running.abort() : request()));
  byId("heat-on").addEventListener("change", fade);
  byId("heat-fade").addEventListener("input", fade);
  byId("large").addEventListener("pointermove", (event) => mark(cellAt(event)));
  byId("large").addEventListener("pointerleave", () => mark(null));
  fade();
}

function fade() {
  const strength = byId("heat-on").checked ? byId("heat-fade").value / 100 : 0;
  byId("slices").style.setProperty("--heat", strength);
  byId("heat-fade").disabled = !byId("heat-on").checked;
}

async function request() {
  const person = shown;
  running = new AbortController();
  const { signal } = running;
  update();
  showState("Computing; a volume is registered first.");
  let end = "";
  try {
    const reply = await explain(filesOf(person.prediction, person), { model: person.model, signal });
    keep(person, reply);
    end = reply.maps.find((map) => map.reason && map.level === null)?.reason ?? "";
  } catch (error) {
    end = signal.aborted ? "Cancelled." : error.message;
  }
  if (running?.signal === signal) running = null; // else another one has begun for another person
  if (shown !== person) return;
  showState(end);
  showLargest(person.explained);
  update();
  redraw();
}

/** Keep the maps of a person; those of the reply number the files of its own request. */
function keep(person, { maps, people, notice }) {
  const keys = [];
  for (const map of maps.filter(({ overlay }) => overlay)) {
    const files = map.files.map((number) => person.prediction.files[number - 1]);
    keys.push(keyOf({ files, level: map.level }));
    person.maps.set(keys.at(-1), { ...map, notice });
  }
  person.explained = { ...people[0], keys };
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
  byId("explain").hidden = !running && Boolean(any || shown.prediction.status !== "predicted");
  byId("explain").textContent = running ? "Cancel" : "Show what moved the score";
  byId("explain-progress").hidden = !running;
  byId("heat-controls").hidden = byId("heat-notice").hidden = !any;
  if (!any) return;
  byId("heat-for").textContent = map.cells ? `towards ${end(1)}` : `for ${shortName(map.stage)}`;
  byId("heat-against").textContent = map.cells ? `towards ${end(-1)}` : `against ${shortName(map.stage)}`;
  byId("heat-notice").textContent = map.notice;
  mark(marked);
}

const shortName = (stage) => shown.short[shown.reply.classes.indexOf(stage)];

/** Return the stage that a contribution points to. */
const end = (value) => (value > 0 ? shown.short.at(-1) : shown.short[0]);

/** List what moved the score most, where it was taken apart. */
function showLargest(explained) {
  byId("heat-largest").hidden = byId("heat-cell").hidden = !explained?.largest;
  if (!explained?.largest) return;
  const { summary, largest, keys } = explained;
  byId("heat-summary").textContent = summary.join(" ");
  const items = largest.map((part) => {
    const button = element("button", { type: "button", class: "plain" }, part.words);
    button.addEventListener("click", () => {
      const wanted = part.slices.map((number) => keys[number - 1]);
      marked = part.cell;
      if (!wanted.includes(keyOf(current()))) choose(shown.slices.findIndex((row) => wanted.includes(keyOf(row))));
      mark(part.cell);
    });
    return element("li", {}, button);
  });
  byId("heat-largest").querySelector("ul").replaceChildren(...items);
}

/** Return the cell under the pointer, null where there is none. */
function cellAt({ clientX, clientY }) {
  const cells = heatFor(current())?.cells;
  const frame = frameOf();
  if (!cells || !frame) return null;
  const place = byId("large").querySelector(".layers").getBoundingClientRect();
  const column = Math.floor(((clientX - place.left) / place.width - frame.left) / (frame.width / cells.length));
  const row = Math.floor(((clientY - place.top) / place.height - frame.top) / (frame.height / cells.length));
  return cells[row]?.[column] === undefined ? null : [row, column];
}

/** Return where the picture lies in its square, as shares of the side. */
function frameOf() {
  const image = byId("large").querySelector("img");
  if (!image?.naturalWidth) return null;
  const longer = Math.max(image.naturalWidth, image.naturalHeight);
  const [width, height] = [image.naturalWidth / longer, image.naturalHeight / longer];
  return { left: (1 - width) / 2, top: (1 - height) / 2, width, height };
}

/** Outline a cell of the large picture and say what it adds; without one, what the slice's grey values add. */
function mark(cell) {
  byId("large").querySelector(".cell-mark")?.remove();
  const map = current() && heatFor(current());
  if (!map?.cells) return;
  marked = cell;
  const signed = (value) => `${value < 0 ? "" : "+"}${value.toFixed(3)} towards ${end(value)}`;
  byId("heat-cell").textContent = cell
    ? `This cell: ${signed(map.cells[cell[0]][cell[1]])}, ${map.rim_cells[cell[0]][cell[1]] ? `at the rim of the brain: the outline there can be the ${shown.explained.registered ? "registration" : "skull stripping"}'s, not the person's` : "inside the brain"}.`
    : `Grey values of this slice: ${signed(map.grey_values)}. Point at the picture for what each cell adds.`;
  const frame = frameOf();
  if (!cell || !frame) return;
  const [row, column] = cell;
  const box = element("span", { class: "cell-mark" });
  const size = { width: frame.width / map.cells.length, height: frame.height / map.cells.length };
  Object.assign(box.style, {
    left: `${100 * (frame.left + column * size.width)}%`,
    top: `${100 * (frame.top + row * size.height)}%`,
    width: `${100 * size.width}%`,
    height: `${100 * size.height}%`,
  });
  byId("large").querySelector(".layers").append(box);
}

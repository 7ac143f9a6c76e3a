/** The view of one person: the probability of each stage, the 90 % set, and the slices. */

import { saveCase } from "./case.js";
import { byId, count, element, markSides, picture, sentence, showDetails, shownAs } from "./dom.js";
import { heatFor, startHeat, update } from "./heat.js";
import { detailsOf, meaningOf, noticeOf, referenceOf } from "./meaning.js";
import { modelNamed } from "./models.js";
import { knowsSides, likeliest, stagesOf, titleOf } from "./people.js";
import { showVolume } from "./volume.js";

let shown = null; // the person
let selected = 0; // number of the slice

/** Show a person. */
export function showPerson(person) {
  [shown, selected] = [person, first(person)];
  byId("person-title").textContent = person.name;
  byId("person-facts").textContent = facts(person);
  byId("notice").textContent = noticeOf(person);
  showDetails(byId("details"), detailsOf(person.reply));
  byId("person-model").textContent = titleOf(person.reply.model);
  showReason(person.prediction);
  showPrediction(person);
  startHeat(person, { slice: current, changed: showSlices, select });
  showSlices();
  const [item] = person.items;
  const volume = person.items.length === 1 && item.kind === "nifti" && person.prediction.status !== "failed";
  showVolume(volume ? item.file : null);
}

/** Return the number of the slice that is selected first: the middle one of those with a prediction. */
function first({ slices }) {
  const predicted = slices.flatMap((row, index) => (row.status === "predicted" ? [index] : []));
  return predicted[Math.floor(predicted.length / 2)] ?? 0;
}

const current = () => shown.slices[selected];

function facts({ items, slices, prediction }) {
  const kinds = { nifti: "NIfTI volume", dicom: "DICOM", picture: "picture", unknown: "file" };
  const kind = items.length > 1 ? `${items.length} ${items[0].kind === "dicom" ? "DICOM " : ""}files` : kinds[items[0].kind];
  const refused = slices.filter((row) => row.status === "refused").length;
  const parts = [kind];
  if (slices.length > 1) parts.push(`prediction from ${count(prediction.slices, "slice")}`);
  if (slices.length > 1 && refused) parts.push(`${refused} refused`);
  return parts.join(" · ");
}

function showReason({ status, reason }) {
  const place = byId("no-stage");
  place.hidden = status === "predicted";
  const heading = status === "refused" ? "Refused: no stage is predicted" : "Could not be read";
  place.querySelector("h2").textContent = heading;
  place.querySelector("p").textContent = sentence(reason);
}

function showPrediction(person) {
  const { prediction, reply, slices } = person;
  byId("prediction").hidden = byId("case").hidden = prediction.status !== "predicted";
  byId("prediction-title").textContent = reply.calibrated ? "Probability of each stage" : "Score of each stage";
  byId("bars").replaceChildren(...(prediction.status === "predicted" ? stagesOf(prediction, person).map((stage) => bar(stage, reply.calibrated)) : []));
  byId("words").textContent = reply.calibrated
    ? prediction.words ? `${prediction.words}.` : ""
    : "These are scores, not probabilities: the model was not calibrated on people outside its training set.";
  byId("meaning").querySelector("summary").textContent = reply.calibrated ? "What does a probability mean?" : "What does a score mean?";
  showDetails(byId("meaning"), meaningOf(person, modelNamed(person.model)));
  showDetails(byId("people"), referenceOf(modelNamed(person.model)));
  byId("reading").textContent = [
    Number.isFinite(prediction.spread) ? steadiness(prediction) : "",
    slices.length > 1 ? "This is the prediction from all slices together; that from each slice alone stands below the slice." : "",
  ].join(" ").trim();
}

/** Say how far the probability hangs on how the scan was acquired. */
function steadiness({ spread }) {
  const points = Math.round(100 * spread);
  return `Another scanner could change the probability of the likeliest stage: over the simulated scanners its standard deviation is ${count(points, "point")}.`;
}

function bar({ name, probability, inSet }, calibrated) {
  const number = shownAs(probability, calibrated);
  const fill = element("span", { class: "fill" });
  fill.style.width = `${100 * probability}%`;
  const verdict = inSet === null ? "" : inSet ? "not ruled out" : "unlikely";
  const meter = element(
    "span",
    {
      class: "track",
      role: "meter",
      "aria-label": name,
      "aria-valuemin": 0,
      "aria-valuemax": 1,
      "aria-valuenow": probability.toFixed(4),
      "aria-valuetext": [number, verdict].filter(Boolean).join(", "),
    },
    fill,
  );
  return element(
    "div",
    { class: inSet === false ? "row out" : "row" },
    element("span", { class: "stage" }, name),
    meter,
    element("span", { class: "number" }, number),
    element("span", { class: "verdict" }, verdict),
  );
}

function showSlices() {
  const { slices } = shown;
  byId("slices").hidden = !slices.some((row) => row.picture);
  byId("sheet").hidden = slices.length < 2;
  byId("sheet-note").hidden = !slices.some((row) => row.level !== null);
  byId("sides-note").hidden = !slices.some((row) => row.picture && knowsSides(row, shown));
  byId("slices-title").textContent = slices.length < 2 ? "The picture, as the model was given it" : "Slices, as the model was given them";
  byId("sheet").replaceChildren(...(slices.length > 1 ? slices.map(cell) : []));
  showLarge();
}

function cell(row, index) {
  const place = row.level ?? index + 1;
  const label = row.status === "predicted" ? likeliest(row, shown) : row.status;
  const made = element(
    "div",
    {
      role: "option",
      id: `slice-${index}`,
      class: row.status === "predicted" ? "cell" : "cell not",
      tabindex: index === selected ? 0 : -1,
      "aria-selected": String(index === selected),
      "aria-label": `${row.level === null ? "Picture" : "Level"} ${place}: ${label}`,
      title: sentence(row.reason) || null,
    },
    layers(row, ""),
    element("span", { class: "under" }, element("span", {}, String(place)), ` ${label}`),
  );
  made.addEventListener("click", () => select(index));
  return made;
}

/** Return a slice, with its map over it if there is one. */
function layers(row, alt) {
  const map = heatFor(row);
  return element(
    "span",
    { class: "layers" },
    row.picture ? picture(row.picture, alt) : element("span", { class: "blank" }),
    map?.overlay ? element("span", { class: "over" }, picture(map.overlay, "")) : null,
  );
}

function select(index) {
  if (index < 0 || index >= shown.slices.length) return;
  const cells = [...byId("sheet").children];
  cells[selected].setAttribute("aria-selected", "false");
  cells[selected].tabIndex = -1;
  selected = index;
  cells[selected].setAttribute("aria-selected", "true");
  cells[selected].tabIndex = 0;
  cells[selected].focus({ preventScroll: true });
  cells[selected].scrollIntoView({ block: "nearest" });
  showLarge();
}

function showLarge() {
  const row = current();
  if (!row) return;
  const place = row.level === null ? (shown.slices.length > 1 ? `Picture ${selected + 1}` : "") : `Level ${row.level}`;
  byId("large").replaceChildren(layers(row, place ? `Slice: ${place}` : "The picture, as the model was given it"));
  if (knowsSides(row, shown)) markSides(byId("large").firstChild);
  byId("large-caption").replaceChildren(element("strong", {}, place), element("span", {}, captionOf(row)));
  update();
}

function captionOf(row) {
  if (shown.slices.length < 2) return "";
  if (row.status !== "predicted") return sentence(row.reason);
  const numbers = stagesOf(row, shown)
    .filter(({ probability }) => probability >= 0.005)
    .map(({ name, probability }) => `${name}\u00a0${shownAs(probability, shown.reply.calibrated)}`);
  return `Alone: ${numbers.join(", ")}`;
}

/** Wire the button that saves the case, and let the arrow keys move over the sheet. */
export function startPerson() {
  byId("save-case").addEventListener("click", () => saveCase(shown));
  byId("sheet").addEventListener("keydown", (event) => {
    const last = shown.slices.length - 1;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns(), Home: -selected, End: last - selected };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    select(selected + steps[event.key]);
  });
}

function columns() {
  const cells = [...byId("sheet").children];
  return cells.filter((item) => item.offsetTop === cells[0].offsetTop).length;
}

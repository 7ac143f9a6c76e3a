/** The choice of the model: what it is, its performance on people outside its training set. */

import { byId, element, showDetails } from "./dom.js";
import { referenceOf } from "./meaning.js";

const METRICS = {
  accuracy: "Accuracy",
  balanced_accuracy: "Balanced accuracy",
  weighted_f1: "Weighted F1",
  macro_f1: "Macro F1",
  auroc_ovr: "AUROC",
  quadratic_kappa: "Kappa (quadratic)",
  log_loss: "Log loss",
  calibration_error: "Calibration error",
};

let known = [];

/** Return a model by its name. */
export const modelNamed = (name) => known.find((model) => model.name === name);

/** Fill the chooser; return a function that returns the selected model. */
export function showModels(models) {
  known = models;
  const chooser = byId("model");
  chooser.replaceChildren(...models.map(({ name }) => element("option", { value: name }, name)));
  chooser.disabled = models.length < 2;
  const current = () => models.find(({ name }) => name === chooser.value);
  chooser.addEventListener("change", () => describe(current()));
  describe(current());
  return current;
}

function describe(model) {
  const facts = {
    Recipe: model.recipe ?? "unknown",
    Evaluated: `protocol ${model.protocol ?? "unknown"}`,
    "Reference people": model.people ? `${model.people.count} of ${model.people.study.split(" (")[0]}` : "not described",
    Leakage: model.leakage?.sentence ?? "leakage unknown",
    Weights: model.hash.slice(0, 12),
  };
  const pairs = Object.entries(facts).map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value)),
  );
  byId("model-facts").replaceChildren(...pairs);
  byId("model-performance").textContent = [
    model.performance ?? "Its performance on people outside its training set is not known.",
    model.calibrated ? "" : "It returns scores, not probabilities: it was not calibrated.",
    model.refuses ? "" : "It refuses no picture: it predicts a stage for anything.",
    model.synthetic ? "It was trained on phantoms, so its predictions mean nothing for real brains." : "",
  ].join(" ").trim();
  showDetails(byId("model-people"), referenceOf(model));
  showDetails(byId("model-details"), model.details);
  showFigures(model);
}

function showFigures(model) {
  const groups = Object.entries(model.figures ?? {}).filter(([, scores]) => scores?.accuracy);
  const place = byId("model-figures");
  place.hidden = !groups.length;
  const isClean = model.protocol === "patient" && model.leakage?.status === "clean";
  place.querySelector("summary").textContent = isClean
    ? "Its figures on people outside its training set"
    : `Its figures (protocol ${model.protocol ?? "unknown"} unless a row says otherwise)`;
  const metrics = Object.keys(METRICS).filter((key) => groups.some(([, scores]) => scores[key]));
  const head = ["Judged on", ...metrics.map((key) => METRICS[key])].map((text) => element("th", { scope: "col" }, text));
  const rows = groups.map(([name, scores]) =>
    element("tr", {}, element("th", { scope: "row" }, name), ...metrics.map((key) => figure(scores[key]))),
  );
  place.querySelector("table").replaceChildren(
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...rows),
  );
}

function figure(score) {
  if (!score) return element("td");
  const [value, low, high] = [score.value, score.low, score.high].map((number) => number?.toFixed(2));
  return element("td", {}, value, element("small", {}, `${low} – ${high}`));
}

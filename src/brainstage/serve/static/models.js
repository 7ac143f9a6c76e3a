/** The choice of the model: what it is, its performance on people outside its training set. */

import { byId, element } from "./dom.js";

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

/** Fill the chooser; return a function that gives the chosen model. */
export function showModels(models) {
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
    Judged: `protocol ${model.protocol ?? "unknown"}`,
    Verdict: model.leakage?.sentence ?? "leakage unknown",
    Weights: model.hash.slice(0, 12),
  };
  const pairs = Object.entries(facts).map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value)),
  );
  byId("model-facts").replaceChildren(...pairs);
  byId("model-performance").textContent = [
    model.performance ?? "How well it does on people it has not seen is not known.",
    model.calibrated ? "" : "It gives scores, not probabilities: it was not calibrated.",
    model.refuses ? "" : "It does not refuse anything: it predicts a stage for pictures of anything.",
    model.synthetic ? "Trained on phantoms: says nothing about real brains." : "",
  ].join(" ").trim();
  showFigures(model);
}

function showFigures(model) {
  const groups = Object.entries(model.figures ?? {}).filter(([, scores]) => scores?.accuracy);
  const place = byId("model-figures");
  place.hidden = !groups.length;
  const unseen = model.protocol === "patient" && model.leakage?.status === "clean";
  place.querySelector("summary").textContent = unseen
    ? "Its figures on people it has not seen"
    : `Its figures (protocol ${model.protocol ?? "unknown"} unless a row says otherwise)`;
  const metrics = Object.keys(METRICS).filter((key) => groups.some(([, scores]) => scores[key]));
  const head = ["", ...metrics.map((key) => METRICS[key])].map((text) => element("th", { scope: "col" }, text));
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
  const [value, low, high] = [score.value, score.low, score.high].map((one) => one?.toFixed(2));
  return element("td", {}, value, element("small", {}, `${low} – ${high}`));
}

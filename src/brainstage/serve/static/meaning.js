/** What a prediction means, in plain sentences: its probabilities, and the people that it is a statement about. */

import { shortNames } from "./dom.js";

/** What stands under every prediction: that it is no diagnosis, and where there is more that must be known. */
export function noticeOf({ reply, slices }) {
  return [
    "This is research software, not a medical device, and its prediction is never a diagnosis.",
    reply.model.synthetic ? "The model was trained on phantoms, so its predictions mean nothing for real brains." : "",
    trainingOf(slices),
  ].filter(Boolean).join(" ");
}

/** Say how many slices of a person show people of the model's training set; nothing where none does. */
function trainingOf(slices) {
  const known = slices.filter((row) => row.training_slice).length;
  if (!known) return "";
  const all = slices.filter((row) => row.slice_id).length; // an unreadable file has none
  const shown = all === 1 ? "This slice shows" : `${known} of these ${all} slices ${known === 1 ? "shows" : "show"}`;
  return `${shown} people of the model's training set, so this prediction is no test of it.`;
}

/** Return what else there is to know, a sentence or a few each: what the prediction is worth, the people, the figures. */
export function detailsOf({ notice, details }) {
  return [notice, ...(details ?? [])].filter(Boolean);
}

/** Return what the probabilities of a prediction mean, or the scores of a model that is not calibrated. */
export function meaningOf({ reply, slices }, model) {
  if (!reply.calibrated) {
    return [
      "A score shows which stage fits the picture best. It is not a probability: of 100 people with a score of 0.6 for a stage, far more or far fewer than 60 may have it.",
    ];
  }
  return [
    "Take 100 people like the reference people, and suppose that the model gives each of them 60\u00a0% for a stage: about 60 of them have it.",
    errorOf(model),
    shareOf(model),
    "The model sees grey values and nothing else: no symptoms, tests or history. What holds for a group does not settle the case of one person.",
    "The stages that are not ruled out include the true one for nine of ten people like the reference people, and for fewer of those with a rare stage.",
    slices.length > 1 ? "" : "One slice tells less than a whole brain.",
  ].filter(Boolean);
}

/** Say how far stated and true shares lay apart, where that was measured on people whom the model had not seen. */
function errorOf({ figures, protocol, leakage }) {
  const error = Object.values(figures ?? {})[0]?.calibration_error?.value;
  if (!error || protocol !== "patient" || leakage?.status !== "clean") return "";
  return `On people whom it had not seen, the stated and the true share differed by ${Math.round(100 * error)} points on average.`;
}

function shareOf({ people }) {
  if (!people) return "";
  const [none, ...demented] = Object.values(people.stages);
  const share = demented.reduce((sum, number) => sum + number, 0) / people.count;
  return `Of the reference people ${Math.round(100 * share)}\u00a0% have dementia. In a group in which fewer have it, the stages of dementia are rarer than the model states.`;
}

/** Describe the reference people of a model, as far as they are known. */
export function referenceOf({ people }) {
  if (!people) return ["The reference people are those of the model's training data; the model says no more of them."];
  const names = shortNames(Object.keys(people.stages));
  const stages = Object.values(people.stages).map((number, index) => `${number} ${names[index]}`);
  return [
    `${people.count} people of the study ${people.study}: ${stages.join(", ")}.`,
    people.ages,
    people.sexes,
    "Wide ventricles come with age as well as with dementia, so great age alone can look like dementia to the model.",
  ];
}

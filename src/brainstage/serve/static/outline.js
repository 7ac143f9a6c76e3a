/** A head with its skull: where the brain was cut out, for the user to approve before there is a prediction. */

import { byId, element, markSides, picture } from "./dom.js";

const PLANES = { axial: "From above", coronal: "From the front", sagittal: "From the side" };
let shown = null; // the person

/** Show the outlines of a person. */
export function showOutline(person) {
  shown = person;
  byId("outline-name").textContent = person.name;
  byId("outline-refused").hidden = true;
  byId("outline-cuts").replaceChildren(...person.outlines.flatMap(cutsOf));
}

/** Wire the buttons; `approve` is called with a person whose outlines are right. */
export function startOutline(approve) {
  byId("outline-yes").addEventListener("click", () => {
    shown.approved = true;
    approve(shown);
  });
  byId("outline-no").addEventListener("click", () => {
    byId("outline-refused").hidden = false;
    byId("outline-refused").focus();
  });
}

/** Return a figure for each cut of an outline. */
export function cutsOf(outline) {
  return Object.entries(PLANES).map(([plane, title]) => {
    const layers = element("span", { class: "cut" }, picture(outline[plane], `${title}: the head and the outline of its brain`));
    if (plane !== "sagittal") markSides(layers);
    return element("figure", {}, layers, element("figcaption", {}, title));
  });
}

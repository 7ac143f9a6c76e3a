/** One prediction as one HTML file: pictures in it, no script, no name of a file or a person. */

import { byId, element, markSides, picture, save, shownAs } from "./dom.js";
import { detailsOf, meaningOf, noticeOf, referenceOf } from "./meaning.js";
import { modelNamed } from "./models.js";
import { cutsOf } from "./outline.js";
import { knowsSides, likeliest, stagesOf, titleOf } from "./people.js";

const POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";
const STYLE = `
:root { color-scheme: light dark; }
body { font: 1rem/1.55 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; margin-bottom: 0.25rem; }
h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; }
th, td { text-align: start; padding: 0.3rem 1.2rem 0.3rem 0; font-weight: 400; }
.pictures { display: flex; flex-wrap: wrap; gap: 0.75rem; }
figure { margin: 0; width: 8.5rem; font-size: 0.8125rem; }
.cuts figure { width: 17rem; }
figure span { position: relative; display: block; background: #000; }
img { display: block; width: 100%; }
figure b { position: absolute; top: 45%; color: #fff; font-weight: 400; }
figure b.right { left: 0.3rem; }
figure b.left { right: 0.3rem; }`;

/** Have the browser save a person's prediction. */
export function saveCase(person) {
  const date = new Date().toLocaleDateString("sv"); // year, month, day
  const page = documentOf(person, date);
  // the server's policy lets no style be made here, so it goes in as text; the file has a policy of its own
  const head = `<head>${page.head.innerHTML}<style>${STYLE}</style></head>`;
  save([`<!doctype html>\n<html lang="en">${head}${page.body.outerHTML}</html>\n`], "text/html", `brainstage-${date}.html`);
}

function documentOf(person, date) {
  const page = document.implementation.createHTMLDocument("brainstage: a prediction");
  page.head.append(
    element("meta", { charset: "utf-8" }),
    element("meta", { "http-equiv": "Content-Security-Policy", content: POLICY }),
    element("meta", { name: "viewport", content: "width=device-width, initial-scale=1" }),
  );
  page.body.append(element("main", {}, ...partsOf(person, date)));
  return page;
}

function partsOf(person, date) {
  const { prediction, reply, slices, outlines } = person;
  const model = modelNamed(person.model);
  const pictures = slices.filter((row) => row.picture);
  const sides = pictures.length > 0 && pictures.every((row) => knowsSides(row, person));
  return [
    element("p", {}, element("strong", {}, document.querySelector(".never").textContent)),
    element("h1", {}, `Prediction from ${prediction.slices} ${prediction.slices === 1 ? "slice" : "slices"}`),
    element("p", {}, `Made on ${date} by brainstage ${reply.version} · ${person.model}, ${titleOf(reply.model)}`),
    stageTable(person),
    ...[byId("words").textContent, byId("reading").textContent, noticeOf(person)].map((text) => element("p", {}, text)),
    ...section(reply.calibrated ? "What a probability means" : "What a score means", list(meaningOf(person, model))),
    ...section("The reference people", list(referenceOf(model))),
    ...(outlines.length ? section("Where the brain was cut out", element("p", {}, "The user approved this outline."), figures(outlines.flatMap(cutsOf), "pictures cuts")) : []),
    ...section("Slices, as the model was given them", element("p", {}, sides ? "The nose points down; the person's right is on the left." : "The nose points down."), figures(pictures.map((row) => slice(row, person)), "pictures")),
    ...section("Details", list(detailsOf(reply))),
  ];
}

const section = (title, ...content) => [element("h2", {}, title), ...content];
const list = (sentences) => element("ul", {}, ...sentences.map((text) => element("li", {}, text)));
const figures = (all, style) => element("div", { class: style }, ...all);

function stageTable(person) {
  const { calibrated } = person.reply;
  const rows = stagesOf(person.prediction, person).map(({ name, probability, inSet }) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      element("td", {}, element("meter", { min: 0, max: 1, value: probability.toFixed(4), "aria-label": name })),
      element("td", {}, shownAs(probability, calibrated)),
      element("td", {}, inSet === null ? "" : inSet ? "not ruled out" : "unlikely"),
    ),
  );
  return element("table", {}, element("tbody", {}, ...rows));
}

function slice(row, person) {
  const place = row.level === null ? "Picture" : `Level ${row.level}`;
  const label = row.status === "predicted" ? likeliest(row, person) : row.status;
  const shown = element("span", {}, picture(row.picture, place));
  if (knowsSides(row, person)) markSides(shown);
  return element("figure", {}, shown, element("figcaption", {}, `${place}: ${label}`));
}

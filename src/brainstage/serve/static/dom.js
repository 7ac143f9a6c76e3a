/** Small helpers for the page: elements, numbers and names as people read them. */

export const byId = (id) => document.getElementById(id);

/** Return a new element; text goes in as text, never as markup. */
export function element(tag, attributes = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) created.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) created.setAttribute(name, value);
  }
  created.append(...children.filter((child) => child || child === 0));
  return created;
}

/** Return a probability in whole percent; its spaces do not break. */
function percent(value) {
  if (value > 0 && value < 0.005) return "<\u00a01\u00a0%";
  if (value < 1 && value > 0.995) return ">\u00a099\u00a0%";
  return `${Math.round(100 * value)}\u00a0%`;
}

/** Return a stage's figure as text: a probability in percent, or the score of a model that is not calibrated. */
export const shownAs = (value, calibrated) => (calibrated ? percent(value) : value.toFixed(2));

/** Return class names without their common ending and without underscores. */
export function shortNames(classes) {
  const words = classes.map((name) => name.split("_"));
  const last = words.map((name) => name.at(-1));
  const shared = classes.length > 1 && new Set(last).size === 1 && words.every((name) => name.length > 1);
  return words.map((name) => (shared ? name.slice(0, -1) : name).join(" "));
}

/** Return a count with its noun. */
export function count(number, noun, plural = `${noun}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? noun : plural}`;
}

/** Return a reason as a sentence. */
export function sentence(text) {
  if (!text) return "";
  const whole = text[0].toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

/** Announce something to users of screen readers. */
export function say(text) {
  byId("status").textContent = text;
}

/** Return a PNG of a reply as an image. */
export function picture(base64, alt) {
  return element("img", { src: `data:image/png;base64,${base64}`, alt, draggable: "false" });
}

/** Mark the person's right and left on a picture that shows the right on the left, as radiologists look at it. */
export function markSides(place) {
  place.append(element("b", { class: "right", title: "The person's right" }, "R"), element("b", { class: "left", title: "The person's left" }, "L"));
}

/** Fill a details element with a list of sentences; hide it where there is none. */
export function showDetails(place, sentences) {
  place.hidden = !sentences?.length;
  place.querySelector("ul").replaceChildren(...(sentences ?? []).map((text) => element("li", {}, text)));
}

/** Have the browser save the parts of a text as a file. */
export function save(parts, type, name) {
  const address = URL.createObjectURL(new Blob(parts, { type }));
  const link = element("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** Requests to the server that the page came from. */

const TRIES = 4;

/** A request that failed; its message is a sentence for the user. */
export class Problem extends Error {}

/** Return the models that /v1/models lists. */
export async function fetchModels() {
  return (await requestJson(() => fetch("../v1/models"))).models;
}

/**
 * Stage files.
 * @param {File[]} files - The files of one request.
 * @param {{model: string, onePerson: boolean, signal: AbortSignal}} options
 */
export function predict(files, { model, onePerson, signal }) {
  return post("../v1/predict", files, { model, one_person: onePerson, pictures: true }, signal);
}

/** Explain the score of a person, given the files. */
export function explain(files, { model, signal }) {
  return post("../v1/explain", files, { model, one_person: true }, signal);
}

/** List the scans that files hold, by their headers. */
export async function listScans(files, signal) {
  return (await post("../v1/scans", files, {}, signal)).scans;
}

function post(address, files, fields, signal) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.set(name, String(value));
  // the server uses no names, so none are sent
  files.forEach((file, index) => form.append("files", file, String(index + 1)));
  return requestJson(() => fetch(address, { method: "POST", body: form, signal }), signal);
}

/** Return the JSON of a reply; send the request again while the server is too busy. */
async function requestJson(send, signal) {
  for (let tries = TRIES; ; tries -= 1) {
    const response = await attempt(send);
    if (response.ok) return response.json();
    const problem = await response.json().catch(() => ({}));
    const busy = response.status === 503 && problem.code !== "too-slow";
    if (!busy || tries <= 1) throw new Problem(problem.detail ?? `the server answered ${response.status}`);
    await pause(1000 * (Number(response.headers.get("Retry-After")) || 1), signal);
  }
}

async function attempt(send) {
  try {
    return await send();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("the server cannot be reached: it has stopped, or a file has changed or is too large");
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

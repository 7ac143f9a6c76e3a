/** Requests to the server that the page came from. */

const TRIES = 4;

/** A request that got no answer; its message is a sentence for the user. */
export class Problem extends Error {}

/** Return what /v1/models says. */
export async function fetchModels() {
  return (await answered(() => fetch("../v1/models"))).models;
}

/**
 * Stage files.
 * @param {File[]} files - Of one request.
 * @param {{model: string, onePerson: boolean, signal: AbortSignal}} options
 */
export function predict(files, { model, onePerson, signal }) {
  return post("../v1/predict", files, { model, one_person: onePerson, pictures: true }, signal);
}

/** Ask what moved the score of the scan that some files are. */
export function explain(files, { model, signal }) {
  return post("../v1/explain", files, { model }, signal);
}

function post(address, files, fields, signal) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.set(name, String(value));
  // the server uses no names, so none are sent
  files.forEach((file, index) => form.append("files", file, String(index + 1)));
  return answered(() => fetch(address, { method: "POST", body: form, signal }), signal);
}

/** Return the JSON that a request gives; ask again while the server is too busy. */
async function answered(ask, signal) {
  for (let left = TRIES; ; left -= 1) {
    const response = await reached(ask);
    if (response.ok) return response.json();
    const problem = await response.json().catch(() => ({}));
    const busy = response.status === 503 && problem.code !== "too-slow";
    if (!busy || left <= 1) throw new Problem(problem.detail ?? `the server answered ${response.status}`);
    await pause(1000 * (Number(response.headers.get("Retry-After")) || 1), signal);
  }
}

async function reached(ask) {
  try {
    return await ask();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("the server did not answer: it has ended, or a file has changed or is too large");
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

// Requests to the page's own server, which passes them on.

export class Problem extends Error {
  // `message` is for people, `code` for programs; `mayPass` says whether trying again may help.
  constructor(message, mayPass = false, code = "") {
    super(message);
    this.mayPass = mayPass;
    this.code = code;
  }
}

export async function classify(file, options, signal) {
  const { body } = await request("classify", options, { method: "POST", body: file, signal });
  return JSON.parse(await body.text());
}

export async function translate(file, options, signal) {
  const init = { method: "POST", body: file, signal };
  const { body, headers } = await request("translate", options, init);
  return {
    picture: body,
    weights: headers.get("x-model-weights"),
    seconds: Number(headers.get("x-seconds")),
  };
}

export async function about() {
  const { body } = await request("about");
  return JSON.parse(await body.text());
}

export async function example(url) {
  const { body } = await request(url);
  return new File([body], url.split("/").pop(), { type: body.type });
}

async function request(path, options = {}, init = {}) {
  let response, body;
  try {
    response = await fetch(`${path}?${new URLSearchParams(options)}`, init);
    body = await response.blob();
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new Problem("The page's own server does not answer. Start it again where it was started.", true);
  }
  if (response.ok) return { body, headers: response.headers };
  throw await refusal(response, body);
}

async function refusal({ status, statusText }, body) {
  try {
    const { code, type, message } = JSON.parse(await body.text());
    return new Problem(sentence(message), code >= 500, `${code} ${type}`);
  } catch {
    return new Problem("The page's own server failed.", status >= 500, `${status} ${statusText}`);
  }
}

// The server's messages begin in lower case; names such as top_k stay as they are.
const sentence = (text) => text.replace(/^[a-z]+(?![\w.:])/, (word) => word[0].toUpperCase() + word.slice(1));

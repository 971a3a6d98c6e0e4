// Classifies or translates a photograph over REST, with Node's built-in fetch.

import { ServerError, TIMEOUT_MS, VisionError, errorIn, main, timedOut, unreachable } from './common.mjs';

const SERVER = process.env.VISION_SERVER || 'http://127.0.0.1:8080';

async function predict(model, picture, options) {
  const headers = { 'content-type': 'application/octet-stream' };
  for (const [name, value] of Object.entries(options)) {
    headers[`x-${name.replaceAll('_', '-')}`] = value;
  }
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  let response, body;
  try {
    const url = `${SERVER}/predictions/${model}`;
    response = await fetch(url, { method: 'POST', headers, body: picture, signal });
    body = Buffer.from(await response.arrayBuffer());
  } catch (error) {
    if (error.name === 'TimeoutError') throw timedOut(SERVER);
    // fetch puts the reason into `cause`.
    const { code, message } = error.cause ?? error;
    throw unreachable(SERVER, 'VISION_SERVER', code ?? message);
  }
  if (!response.ok) {
    // Proxies answer without our JSON, and so does TorchServe to requests of more than 24 MiB.
    const { status: code, statusText: message } = response;
    throw errorIn(body) ?? new ServerError({ code, type: 'HttpError', message });
  }
  const weights = response.headers.get('x-model-weights');
  if (!weights) throw new VisionError(`${SERVER} answers, but is not the server of this project`);
  return { body, weights };
}

await main(predict);

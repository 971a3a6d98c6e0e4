// Classifies or translates a photograph over REST, with nothing but Node's own fetch.

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
    // fetch keeps what happened in `cause`.
    const { code, message } = error.cause ?? error;
    throw unreachable(SERVER, 'VISION_SERVER', code ?? message);
  }
  if (!response.ok) {
    // A proxy answers without our JSON, and TorchServe does where a request has over 24 MiB.
    const { status: code, statusText: message } = response;
    throw errorIn(body) ?? new ServerError({ code, type: 'HttpError', message });
  }
  const weights = response.headers.get('x-model-weights');
  if (!weights) throw new VisionError(`${SERVER} answers, but is not the server of this project`);
  return { body, weights };
}

await main(predict);

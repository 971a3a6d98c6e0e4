// Classifies or translates a photograph over REST, with Node's built-in fetch.

import { randomUUID } from 'node:crypto';
import { ServerError, TIMEOUT_MS, VisionError, errorIn, main, timedOut, unreachable } from './common.mjs';

const SERVER = process.env.VISION_SERVER || 'http://127.0.0.1:8080';
const foreign = () => new VisionError(`${SERVER} answers, but is not the server of this project`);

/** The headers and the body of a response without an error. */
async function request(path, init) {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  let response, body;
  try {
    response = await fetch(`${SERVER}${path}`, { ...init, signal });
    body = Buffer.from(await response.arrayBuffer());
  } catch (error) {
    if (error.name === 'TimeoutError') throw timedOut(SERVER);
    // fetch puts the reason into `cause`.
    const { code, message } = error.cause ?? error;
    throw unreachable(SERVER, 'VISION_SERVER', code ?? message);
  }
  const { status: code, statusText: message, headers } = response;
  if (response.ok) return { headers, body };
  const retryAfter = headers.get('retry-after');
  // Proxies answer without our JSON.
  const other = { code, type: 'HttpError', message };
  const error = errorIn(body, retryAfter) ?? new ServerError(other, retryAfter);
  if (error.type === 'DeadlineExceeded') throw timedOut(SERVER);
  error.message += ` (request ${headers.get('x-request-id') ?? 'without an id'})`; // for the server's log
  throw error;
}

async function models() {
  try {
    const { models } = JSON.parse((await request('/models')).body);
    if (models) return models;
  } catch (error) {
    if (error.code === 404)
      throw new VisionError(`${SERVER} has no gateway, which lists its models: set VISION_MODEL`);
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw foreign();
}

async function predict(model, picture, options) {
  const headers = {
    'content-type': 'application/octet-stream',
    'x-request-id': randomUUID(),
    'x-timeout-ms': String(Math.ceil(TIMEOUT_MS)), // the server drops a request that still waits by then
  };
  for (const [name, value] of Object.entries(options)) {
    headers[`x-${name.replaceAll('_', '-')}`] = value;
  }
  const path = `/predictions/${encodeURIComponent(model)}`;
  const answer = await request(path, { method: 'POST', headers, body: picture });
  const weights = answer.headers.get('x-model-weights');
  if (!weights) throw foreign();
  return { body: answer.body, weights };
}

await main(models, predict);

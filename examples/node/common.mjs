// Shared by rest.mjs and grpc.mjs: the command line, errors, retries, printing and saving.

import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

// A little more than the server allows for a batch of classifications. It finishes a batch that it has
// begun, so do not retry after a timeout.
export const TIMEOUT_MS = 1000 * (Number(process.env.VISION_TIMEOUT) || 130);

/** An expected failure of a call. */
export class VisionError extends Error {}

/**
 * An error of the server. `code` is the HTTP status, over gRPC too. Check `code` and `type`.
 * `retryAfter` is in seconds.
 */
export class ServerError extends VisionError {
  constructor({ code, type, message }, retryAfter = 0) {
    super(`${code} ${type}: ${message}`);
    Object.assign(this, { code, type, retryAfter: Number(retryAfter) || 0 });
  }
}

/** Nothing answers at `server`, which is set by the environment variable `variable`. */
export const unreachable = (server, variable, reason) =>
  new VisionError(
    `no connection to ${server}: start the server with \`make start\`, ` +
      `or set ${variable} to its address (${reason})`,
  );

export const timedOut = (server) =>
  new VisionError(`${server} gave no answer within ${TIMEOUT_MS / 1000} s`);

/** The error in a body, or undefined: predictions have no `code`, and no picture is JSON. */
export function errorIn(body, retryAfter) {
  if (body[0] !== '{'.charCodeAt(0)) return undefined;
  try {
    const parsed = JSON.parse(body);
    return 'code' in parsed ? new ServerError(parsed, retryAfter) : undefined;
  } catch {
    return undefined; // not JSON, so not an error of ours
  }
}

/** The answer of `call`, which is retried only if the server is busy, or answers others first. */
async function withRetries(call) {
  for (const pause of [1, 2, 4]) {
    try {
      return await call();
    } catch (error) {
      if (![429, 503].includes(error.code)) throw error;
      const jitter = 1 + Math.random() / 2; // so that clients do not retry at the same time
      const seconds = Math.max(pause * jitter, Math.min(error.retryAfter, TIMEOUT_MS / 1000));
      console.error(`${error.message}; asking again in ${seconds.toFixed(1)} s`);
      await sleep(1000 * seconds);
    }
  }
  return call();
}

/** Writes the file completely or not at all. */
async function save(path, data) {
  const partial = `${path}.${process.pid}.part`;
  try {
    await writeFile(partial, data);
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

function usage() {
  const script = basename(process.argv[1]);
  console.error(`usage: node ${script} classify PHOTO [topK]`);
  console.error(`       node ${script} translate PHOTO OUT.png [size]`);
  process.exit(2);
}

const isNumber = (text) => text === undefined || /^-?\d+$/.test(text);

async function classify(ask, [photo, topK, ...more]) {
  if (!photo || !isNumber(topK) || more.length > 0) usage();
  const answer = await ask('classify', photo, topK ? { top_k: topK } : {});
  for (const { label, probability } of JSON.parse(answer.body).predictions) {
    console.log(`${(100 * probability).toFixed(2).padStart(5)} %  ${label}`);
  }
  return answer;
}

async function translate(ask, [photo, out, size, ...more]) {
  if (!out?.endsWith('.png') || !isNumber(size) || more.length > 0) usage();
  const answer = await ask('translate', photo, size ? { size } : {});
  await save(out, answer.body);
  console.log(`${out} written`);
  return answer;
}

/** VISION_MODEL, or the first model of `task` that the server lists. */
async function modelOf(task, models) {
  if (process.env.VISION_MODEL) return process.env.VISION_MODEL;
  const model = (await models()).find((model) => model.task === task);
  if (!model) throw new VisionError(`the server has no model for the task ${task}`);
  return model.name;
}

const COMMANDS = new Map(Object.entries({ classify, translate }));

/**
 * Runs the command line. `models()` resolves to the server's models, `predict(model, picture,
 * options)` to `{ body, weights }`; both throw a VisionError.
 */
export async function main(models, predict) {
  const ask = async (task, photo, options) => {
    const picture = await readFile(photo);
    const model = await withRetries(() => modelOf(task, models));
    return withRetries(() => predict(model, picture, options));
  };
  const [name, ...rest] = process.argv.slice(2);
  const command = COMMANDS.get(name) ?? usage;
  try {
    const { weights } = await command(ask, rest);
    if (weights) console.log(`weights: ${weights}`);
    if (weights === 'untrained') console.error('untrained weights: the answer means nothing');
  } catch (error) {
    // Node's file errors have `syscall`. Any other error is a bug: show its stack.
    if (!(error instanceof VisionError || error.syscall)) throw error;
    console.error(error.message);
    process.exitCode = 1;
  }
}

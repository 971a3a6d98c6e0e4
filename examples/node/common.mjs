// Shared by rest.mjs and grpc.mjs: the command line, errors, retries, printing and saving.

import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

// A little more than the server allows for a batch of classifications. It does not notice when a
// client stops waiting, so do not retry after a timeout.
export const TIMEOUT_MS = 1000 * (Number(process.env.VISION_TIMEOUT) || 130);

/** An expected failure of a call. */
export class VisionError extends Error {}

/** An error of the server. `code` is the HTTP status, over gRPC too. Check `code` and `type`. */
export class ServerError extends VisionError {
  constructor({ code, type, message }) {
    super(`${code} ${type}: ${message}`);
    Object.assign(this, { code, type });
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
export function errorIn(body) {
  if (body[0] !== '{'.charCodeAt(0)) return undefined;
  try {
    const parsed = JSON.parse(body);
    return 'code' in parsed ? new ServerError(parsed) : undefined;
  } catch {
    return undefined; // not JSON, so not an error of ours
  }
}

/** The answer of `call`, which is retried only if the server is overloaded. */
async function withRetries(call) {
  for (const pause of [1, 2, 4]) {
    try {
      return await call();
    } catch (error) {
      if (error.code !== 503) throw error;
      const seconds = pause * (1 + Math.random() / 2); // so that clients do not retry at the same time
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
  const answer = await ask('resnet101', photo, topK ? { top_k: topK } : {});
  for (const { label, probability } of JSON.parse(answer.body).predictions) {
    console.log(`${(100 * probability).toFixed(2).padStart(5)} %  ${label}`);
  }
  return answer;
}

async function translate(ask, [photo, out, size, ...more]) {
  if (!out?.endsWith('.png') || !isNumber(size) || more.length > 0) usage();
  const answer = await ask('cyclegan', photo, size ? { size } : {});
  await save(out, answer.body);
  console.log(`${out} written`);
  return answer;
}

const COMMANDS = new Map(Object.entries({ classify, translate }));

/**
 * Runs the command line. `predict(model, picture, options)` resolves to `{ body, weights }` or
 * throws a VisionError.
 */
export async function main(predict) {
  const ask = async (model, photo, options) => {
    const picture = await readFile(photo);
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

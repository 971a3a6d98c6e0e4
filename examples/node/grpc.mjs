// Classifies or translates a photograph over gRPC.

import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import { ServerError, TIMEOUT_MS, errorIn, main, timedOut, unreachable } from './common.mjs';

const SERVER = process.env.VISION_GRPC || '127.0.0.1:7070';
const PROTO = new URL('../../client/vision_client/inference.proto', import.meta.url);

const definition = protoLoader.loadSync(fileURLToPath(PROTO), { keepCase: true });
const { org } = grpc.loadPackageDefinition(definition);
const { InferenceAPIsService } = org.pytorch.serve.grpc.inference;
const client = new InferenceAPIsService(SERVER, grpc.credentials.createInsecure(), {
  'grpc.max_receive_message_length': 16 << 20, // pictures outgrow the default, 4 MB
  'grpc.max_send_message_length': 24 << 20,
  'grpc.enable_http_proxy': 0, // as Node's fetch, which heeds no proxy of the shell's
});

// What TorchServe and grpc-js say in plain words, by the code that REST has for it.
const PLAIN = [
  [/has no worker to serve/, 503],
  [/^Worker died/, 507],
  [/^Attempted to send message/, 413],
  [/^Model not found/, 404],
];

/** The error of a call that failed as a whole. */
function errorOf({ code, details }) {
  // Line 1 is our JSON or a plain sentence; line 2, where there is one, a Java class.
  const [sentence] = details.split('\n');
  const told = errorIn(Buffer.from(sentence));
  if (told) return told;
  // The server knows the deadline too. Where its clock is first, it cancels the call.
  const { DEADLINE_EXCEEDED, CANCELLED, UNAVAILABLE } = grpc.status;
  if (code === DEADLINE_EXCEEDED || code === CANCELLED) return timedOut(SERVER);
  if (code === UNAVAILABLE) return unreachable(SERVER, 'VISION_GRPC', sentence);
  const [, known] = PLAIN.find(([words]) => words.test(sentence)) ?? [];
  return new ServerError({ code: known ?? 500, type: grpc.status[code], message: sentence });
}

function predict(model, picture, options) {
  const input = { data: picture };
  for (const [name, value] of Object.entries(options)) input[name] = Buffer.from(value);
  const deadline = Date.now() + TIMEOUT_MS;
  return new Promise((resolve, reject) => {
    client.Predictions({ model_name: model, input }, { deadline }, (failure, answer) => {
      // Only a whole batch can fail with a status. The error of one of its members comes with
      // status OK, as JSON in the place of its answer.
      const error = failure ? errorOf(failure) : errorIn(answer.prediction);
      if (error) reject(error);
      else resolve({ body: answer.prediction }); // gRPC does not tell the weights
    });
  });
}

await main(predict);
client.close();

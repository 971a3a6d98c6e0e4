// Classifies or translates a photograph over gRPC.

import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import { ServerError, TIMEOUT_MS, VisionError, errorIn, main, timedOut, unreachable } from './common.mjs';

const SERVER = process.env.VISION_GRPC || '127.0.0.1:7070';
const PROTO = new URL('../../client/vision_client/inference.proto', import.meta.url);

const definition = protoLoader.loadSync(fileURLToPath(PROTO), { keepCase: true });
const { org } = grpc.loadPackageDefinition(definition);
const { InferenceAPIsService } = org.pytorch.serve.grpc.inference;
const client = new InferenceAPIsService(SERVER, grpc.credentials.createInsecure(), {
  'grpc.max_receive_message_length': 16 << 20, // pictures may exceed the default, 4 MB
  'grpc.max_send_message_length': 24 << 20,
  'grpc.enable_http_proxy': 0, // like Node's fetch, which ignores http_proxy
});

// Messages of grpc-js, and of a server without its gateway, with the HTTP status for each.
const PLAIN = [
  [/has no worker to serve/, 503],
  [/^Worker died/, 507],
  [/^Attempted to send message/, 413],
  [/^Model not found/, 404],
];

/** The error of a call that failed with a gRPC status. */
function errorOf({ code, details, metadata }) {
  // The server checks the deadline too. Without the gateway it cancels the call.
  const { DEADLINE_EXCEEDED, CANCELLED, UNAVAILABLE } = grpc.status;
  if (code === DEADLINE_EXCEEDED || code === CANCELLED) return timedOut(SERVER);
  // The details are our JSON. Without the gateway, line 1 is the JSON or a plain sentence.
  const [sentence] = details.split('\n');
  const error = errorIn(Buffer.from(sentence), metadata?.get('retry-after')[0]);
  if (error) return error;
  if (code === UNAVAILABLE) return unreachable(SERVER, 'VISION_GRPC', sentence);
  const [, status] = PLAIN.find(([pattern]) => pattern.test(sentence)) ?? [];
  return new ServerError({ code: status ?? 500, type: grpc.status[code], message: sentence });
}

function predict(model, picture, options) {
  const input = { data: picture };
  for (const [name, value] of Object.entries(options)) input[name] = Buffer.from(value);
  const deadline = Date.now() + TIMEOUT_MS;
  return new Promise((resolve, reject) => {
    client.Predictions({ model_name: model, input }, { deadline }, (failure, answer) => {
      // Without the gateway, an error in a batch with good answers has status OK, with JSON in place
      // of the answer.
      const error = failure ? errorOf(failure) : errorIn(answer.prediction);
      if (error) reject(error);
      else resolve({ body: answer.prediction }); // the weights are in the metadata, which is not read here
    });
  });
}

async function models() {
  throw new VisionError('over gRPC the server does not list its models: set VISION_MODEL');
}

await main(models, predict);
client.close();

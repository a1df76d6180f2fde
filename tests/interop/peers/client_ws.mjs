// Client on node's `ws`: plays scenarios. Extra fields of a scenario: headers, deflate (default true), ca.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { obey } from './commands.mjs';
import { play } from './scenario.mjs';

const WebSocket = createRequire(`${process.env.NODE_MODULES}/x.js`)('ws');

function fragment(socket, payload, count) {
  const binary = typeof payload !== 'string';
  const bytes = Buffer.from(payload);
  const size = Math.ceil(bytes.length / count);
  for (let i = 0; i < count; i += 1) {
    socket.send(bytes.subarray(i * size, (i + 1) * size), { binary, fin: i === count - 1 });
  }
}

obey((scenario, told, finish) => {
  const open = (url, protocols) => {
    const socket = new WebSocket(url, protocols, {
      headers: scenario.headers ?? {},
      perMessageDeflate: scenario.deflate ?? true,
      ca: scenario.ca && readFileSync(scenario.ca),
      maxPayload: 64 * 2 ** 20,
    });
    socket.on('ping', () => told({ event: 'ping' }));
    return socket;
  };
  return play(scenario, open, told, finish, fragment);
});

// A SockJS client that stays with one transport.  client_sockjs.mjs URL TRANSPORT
import { createRequire } from 'node:module';
import { say } from './commands.mjs';

const SockJS = createRequire(`${process.env.NODE_MODULES}/x.js`)('sockjs-client');
const [url, transport] = process.argv.slice(2);
const socket = new SockJS(url, null, { transports: [transport] });
const messages = ['early', 'x'.repeat(100_000), 'last'];
let heard = 0;
let used;
socket.onopen = () => {
  used = socket.transport;
  socket.send(messages[0]);
};
socket.onmessage = ({ data }) => {
  if (data !== messages[heard]) say({ event: 'error', text: `${data.length} bytes instead of ${messages[heard].length}` });
  heard += 1;
  // The last one comes after some of the server's heartbeats.
  if (heard < messages.length) setTimeout(() => socket.send(messages[heard]), heard * 1500);
  else socket.close(3000, 'done');
};
socket.onclose = ({ code, reason }) => say({ event: 'outcome', transport: used, heard, code, reason });

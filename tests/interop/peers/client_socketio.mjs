// A socket.io client: polls first and upgrades, unless told a transport to stay with.  client_socketio.mjs URL [TRANSPORT]
import { createRequire } from 'node:module';
import { say } from './commands.mjs';

const { io } = createRequire(`${process.env.NODE_MODULES}/x.js`)('socket.io-client');
const [url, transport] = process.argv.slice(2);
const socket = io(url, { ...(transport && { transports: [transport] }), reconnection: false, withCredentials: true });
const large = 'x'.repeat(300_000);
socket.on('connect_error', (error) => say({ event: 'error', text: String(error) }));
// As soon as the transport stands: on a fast path the upgrade is over before the namespace is connected.
let first;
const upgraded = new Promise((resolve) =>
  socket.io.once('open', () => {
    first = socket.io.engine.transport.name;
    if (transport) resolve();
    else socket.io.engine.once('upgrade', resolve);
  }),
);
socket.on('connect', async () => {
  const early = await socket.emitWithAck('ask', 'early');
  await upgraded;
  const late = await socket.emitWithAck('ask', large);
  // Longer than a ping of socket.io's own, and its long poll, last.
  await new Promise((resolve) => setTimeout(resolve, 5000));
  const last = await socket.emitWithAck('ask', 'last');
  const intact = early === 'early' && late === large && last === 'last';
  say({ event: 'outcome', first, last: socket.io.engine.transport.name, intact });
  socket.close();
});

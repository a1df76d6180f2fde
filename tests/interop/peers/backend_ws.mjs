// Backend on node's `ws`.  backend_ws.mjs HOST PORT   (paths as in backend_websockets.py)
import { createRequire } from 'node:module';
import { say } from './commands.mjs';

const { WebSocketServer } = createRequire(`${process.env.NODE_MODULES}/x.js`)('ws');
const [host, port] = process.argv.slice(2);

const server = new WebSocketServer({
  host,
  port: Number(port),
  perMessageDeflate: true,
  maxPayload: 64 * 2 ** 20,
  maxFragments: 0,
  maxBufferedChunks: 0,
  handleProtocols: (offered) => (offered.has('chat.v2') ? 'chat.v2' : false),
});

server.on('connection', (socket, request) => {
  const path = request.url;
  const headers = [];
  for (let i = 0; i < request.rawHeaders.length; i += 2) headers.push(request.rawHeaders.slice(i, i + 2));
  const session = request.headers['x-request-id'];
  say({ event: 'open', path, session, deflate: socket.extensions.includes('permessage-deflate'), headers });
  if (path.startsWith('/headers')) socket.send(JSON.stringify(headers));
  socket.on('error', () => {});
  socket.on('ping', () => say({ event: 'ping', path }));
  socket.on('close', (code, reason) => say({ event: 'closed', path, session, code, reason: reason.toString() }));
  socket.on('message', (data, binary) => {
    if (path.startsWith('/control')) {
      const [, code, reason] = data.toString().match(/^close (\d+) (.*)$/);
      socket.close(Number(code), reason);
    } else if (path.startsWith('/fragments')) {
      const size = Math.ceil(data.length / 3);
      for (let i = 0; i < 3; i += 1) {
        socket.send(data.subarray(i * size, (i + 1) * size), { binary, fin: i === 2 });
      }
    } else {
      socket.send(data, { binary });
    }
  });
});
server.on('listening', () => say({ event: 'listening' }));

// A socket.io server that answers `ask` with what it was asked, and tells of its connections.  backend_socketio.mjs HOST PORT
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { say } from './commands.mjs';

const { Server } = createRequire(`${process.env.NODE_MODULES}/x.js`)('socket.io');
const [host, port] = process.argv.slice(2);
const server = createServer((request, response) => response.end('a page'));
const io = new Server(server, { pingInterval: 2000, pingTimeout: 2000 });
io.on('connection', (socket) => {
  say({ event: 'open', transport: socket.conn.transport.name, address: socket.handshake.headers['x-forwarded-for'] });
  socket.conn.on('upgrade', (transport) => say({ event: 'upgraded', transport: transport.name }));
  socket.on('ask', (question, answer) => answer(question));
  socket.on('disconnect', (reason) => say({ event: 'closed', reason }));
});
server.listen(Number(port), host, () => say({ event: 'listening' }));

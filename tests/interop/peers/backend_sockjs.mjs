// A SockJS server that echoes.  backend_sockjs.mjs HOST PORT
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { say } from './commands.mjs';

const sockjs = createRequire(`${process.env.NODE_MODULES}/x.js`)('sockjs');
const [host, port] = process.argv.slice(2);
const echo = sockjs.createServer({ log: () => {}, heartbeat_delay: 1000 });
echo.on('connection', (connection) => {
  say({ event: 'open', transport: connection.protocol, address: connection.headers['x-forwarded-for'] });
  connection.on('data', (message) => connection.write(message));
  connection.on('close', () => say({ event: 'closed' }));
});
const server = createServer();
echo.installHandlers(server, { prefix: '/echo' });
server.listen(Number(port), host, () => say({ event: 'listening' }));

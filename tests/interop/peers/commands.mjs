// Reads commands as JSON lines: `{id, ...scenario}` starts one, `{finish: id}` lets a held one end.
import { createInterface } from 'node:readline';

// `at`: seconds on the clock that all processes of this machine share.
const now = () => Number(process.hrtime.bigint()) / 1e9;
export const say = (event) => process.stdout.write(`${JSON.stringify({ ...event, at: now() })}\n`);

export function obey(start) {
  const finishers = new Map();
  const lines = createInterface({ input: process.stdin });
  lines.on('line', (line) => {
    const command = JSON.parse(line);
    if (command.finish !== undefined) {
      finishers.get(command.finish)?.();
      return;
    }
    const { id } = command;
    const finish = new Promise((resolve) => { finishers.set(id, resolve); });
    start(command, (event) => say({ ...event, id }), finish)
      .then((outcome) => say({ event: 'outcome', id, ...outcome }))
      .catch((error) => say({ event: 'outcome', id, error: String(error) }));
  });
  lines.on('close', () => process.exit(0));
  say({ event: 'ready' });
}

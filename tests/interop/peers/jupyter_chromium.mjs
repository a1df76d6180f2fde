// Works with JupyterLab in headless Chromium: opens a notebook, runs a cell, and tells its output.  jupyter_chromium.mjs URL
import { launch } from './browser.mjs';
import { say } from './commands.mjs';

const browser = await launch();
const page = await browser.newPage();
const sockets = [];
page.on('websocket', (socket) => sockets.push(new URL(socket.url()).pathname));
page.on('response', (response) => {
  if (response.status() >= 500) say({ event: 'error', text: `${response.status()} ${response.url()}` });
});
page.setDefaultTimeout(120_000);
await page.goto(process.argv[2]);
await page.waitForFunction(() => window.jupyterapp?.restored);
await page.evaluate(() => window.jupyterapp.restored);
await page.evaluate(async () => {
  const app = window.jupyterapp;
  const panel = await app.commands.execute('notebook:create-new', { kernelName: 'python3' });
  await panel.sessionContext.ready;
  panel.content.activeCell.model.sharedModel.setSource('import sys; print("the answer is", 6 * 7)');
  await app.commands.execute('notebook:run-all-cells');
});
const output = page.locator('.jp-OutputArea-output', { hasText: 'the answer is' });
await output.first().waitFor();
say({ event: 'outcome', output: (await output.first().innerText()).trim(), sockets });

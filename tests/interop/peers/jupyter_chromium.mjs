// Works with JupyterLab in headless Chromium: opens a notebook, runs a cell, and tells its output.  jupyter_chromium.mjs URL
import { createRequire } from 'node:module';
import { say } from './commands.mjs';

const { chromium } = createRequire(`${process.env.NODE_MODULES}/x.js`)('playwright-core');
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
});
process.on('SIGTERM', async () => {
  await browser.close();
  process.exit(0);
});
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

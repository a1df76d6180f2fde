// Client in headless Chromium: plays scenarios in a page served from http://127.0.0.1, so that it has an origin.
import { createServer } from 'node:http';
import { launch } from './browser.mjs';
import { obey } from './commands.mjs';
import { play } from './scenario.mjs';

const pages = createServer((_, response) => {
  response.setHeader('Content-Type', 'text/html');
  response.end('<!doctype html><title>interop</title>');
});
await new Promise((resolve) => { pages.listen(0, '127.0.0.1', resolve); });
const { port } = pages.address();

const browser = await launch('--ignore-certificate-errors');
const page = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
const listeners = new Map();
await page.exposeFunction('told', (id, event) => listeners.get(id)?.(event));
await page.goto(`http://127.0.0.1:${port}/`);
await page.addScriptTag({ content: `window.play = ${play}; window.finishers = new Map();` });

obey(async (scenario, told, finish) => {
  listeners.set(scenario.id, told);
  finish.then(() => page.evaluate((id) => window.finishers.get(id)?.(), scenario.id));
  return page.evaluate((wanted) => {
    const until = new Promise((resolve) => { window.finishers.set(wanted.id, resolve); });
    return window.play(wanted, null, (event) => window.told(wanted.id, event), until);
  }, scenario);
});

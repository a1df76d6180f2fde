// Opens a page of examples/browser in headless Chromium, connects to a URL, and tells what the page says.
//   page_chromium.mjs PAGE URL
import { pathToFileURL } from 'node:url';
import { launch } from './browser.mjs';
import { say } from './commands.mjs';

const [file, url] = process.argv.slice(2);
const browser = await launch();
const page = await browser.newPage();
page.on('pageerror', (error) => say({ event: 'error', text: String(error) }));
await page.exposeFunction('line', (text) => {
  const kind = [['closed:', 'closed'], ['open', 'open'], ['received:', 'received']].find(([word]) => text.includes(word));
  if (kind) say({ event: kind[1], text });
});
await page.goto(`${pathToFileURL(file)}?url=${encodeURIComponent(url)}`);
await page.evaluate(() => {
  const log = document.getElementById('log');
  let told = 0;
  new MutationObserver(() => {
    const lines = log.textContent.trimEnd().split('\n');
    while (told < lines.length) window.line(lines[told++]);
  }).observe(log, { childList: true, characterData: true, subtree: true });
});
await page.click('#connection button');

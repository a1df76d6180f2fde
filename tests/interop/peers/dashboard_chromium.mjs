// Opens the dashboard in headless Chromium and does as it is told, one JSON line a command; tells what it sees.
//   dashboard_chromium.mjs URL
import { createInterface } from 'node:readline';
import { launch } from './browser.mjs';
import { say } from './commands.mjs';

const [url] = process.argv.slice(2);
const browser = await launch();
const page = await browser.newPage({ viewport: { width: 1280, height: 1000 } });
page.on('pageerror', (error) => say({ event: 'error', text: String(error) }));
page.on('console', (message) => {
  if (/Content Security Policy/i.test(message.text())) say({ event: 'error', text: message.text() });
});
page.on('request', (request) => {
  if (!request.url().startsWith(url) && !request.url().startsWith('data:')) say({ event: 'foreign', url: request.url() });
});
await page.goto(url);

const commands = {
  /** Waits until an element's text holds something. */
  async sees({ where, text }) {
    await page.waitForFunction(([where, text]) => document.querySelector(where)?.textContent.includes(text), [where, text], { timeout: 15000 });
  },
  async screenshot({ file, width, height, scheme, full }) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width, height });
    await page.screenshot({ path: file, fullPage: Boolean(full) });
  },
  /** Whether nothing of the page stands beside the window. */
  async fits({ width, scheme }) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width, height: 800 });
    return { wide: await page.evaluate(() => document.documentElement.scrollWidth), ground: await page.evaluate(() => getComputedStyle(document.body).backgroundColor) };
  },
  /** Reaches the first button of a table by the Tab key alone, and presses it. */
  async tab_to_end() {
    await page.evaluate(() => document.activeElement?.blur());
    for (let presses = 0; presses < 60; presses += 1) {
      await page.keyboard.press('Tab');
      const label = await page.evaluate(() => document.activeElement?.getAttribute('aria-label') ?? '');
      if (label.startsWith('End session')) {
        await page.keyboard.press('Enter');
        return { label };
      }
    }
    throw new Error('no button to end a session is reached');
  },
  async fill({ where, text }) {
    await page.fill(where, text);
  },
  async press({ where }) {
    await page.click(where);
  },
  /** What the page keeps beyond its own memory. */
  async kept() {
    return page.evaluate(() => ({ cookies: document.cookie, local: localStorage.length, session: sessionStorage.length, url: location.href }));
  },
  /** Elements that have no name for who cannot see them. */
  async nameless() {
    return page.evaluate(() => ({
      count: [...document.querySelectorAll('button, input, svg[role], dialog, [role=region]')].filter((one) => {
        const named = one.getAttribute('aria-label') || one.getAttribute('aria-labelledby') || one.textContent.trim();
        return !(named || one.closest('label'));
      }).length,
    }));
  },
};
say({ event: 'ready' });
for await (const line of createInterface({ input: process.stdin })) {
  const { id, command, ...options } = JSON.parse(line);
  try {
    say({ event: 'done', id, ...(await commands[command](options)) });
  } catch (error) {
    say({ event: 'done', id, failed: String(error) });
  }
}

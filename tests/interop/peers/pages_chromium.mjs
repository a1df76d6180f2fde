// Opens a page in headless Chromium and tells what its `prove()` saw.  pages_chromium.mjs URL
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
page.on('pageerror', (error) => say({ event: 'error', text: String(error) }));
await page.goto(process.argv[2]);
say({ event: 'outcome', seen: await page.evaluate(() => window.prove()) });

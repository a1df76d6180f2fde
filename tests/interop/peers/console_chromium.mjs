// Runs a script in a page of headless Chromium, as typed into its console, and tells what it logs.
//   console_chromium.mjs SCRIPT
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
page.on('console', (message) => say({ event: 'console', text: message.text() }));
await page.evaluate((script) => { (0, eval)(script); }, process.argv[2]);

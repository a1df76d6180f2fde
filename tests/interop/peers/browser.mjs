// Headless Chromium, as the peers of these tests start it; it ends with them.
import { createRequire } from 'node:module';

const { chromium } = createRequire(`${process.env.NODE_MODULES}/x.js`)('playwright-core');

/** Starts it, with more arguments. */
export async function launch(...more) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', ...more],
  });
  process.on('SIGTERM', async () => {
    await browser.close();
    process.exit(0);
  });
  return browser;
}

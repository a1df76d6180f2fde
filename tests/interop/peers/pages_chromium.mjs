// Opens a page in headless Chromium and tells what its `prove()` saw.  pages_chromium.mjs URL
import { launch } from './browser.mjs';
import { say } from './commands.mjs';

const browser = await launch();
const page = await browser.newPage();
page.on('pageerror', (error) => say({ event: 'error', text: String(error) }));
await page.goto(process.argv[2]);
say({ event: 'outcome', seen: await page.evaluate(() => window.prove()) });

// Runs a script in a page of headless Chromium, as typed into its console, and tells what it logs.
//   console_chromium.mjs SCRIPT
import { launch } from './browser.mjs';
import { say } from './commands.mjs';

const browser = await launch();
const page = await browser.newPage();
page.on('console', (message) => say({ event: 'console', text: message.text() }));
await page.evaluate((script) => { (0, eval)(script); }, process.argv[2]);

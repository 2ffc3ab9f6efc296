// Chromium as Debian ships it, and a page that remembers everything that went wrong on it.

import { readFile } from "node:fs/promises";
import { chromium } from "playwright-core";

const AXE = await readFile(new URL("../node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export const open = () =>
  chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", headless: true, args: FLAGS });

/** On a machine that compiles something beside it. */
const SLOWEST_MS = 60_000;

/** A page in its own context. `faults` collects console errors, exceptions and refusals by the policy. */
export async function pageOf(browser, { scheme = "light", width = 1440, height = 1000 } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, reducedMotion: "reduce" });
  context.setDefaultTimeout(SLOWEST_MS);
  const page = await context.newPage();
  const faults = [];
  page.on("console", (m) => (m.type() === "error" || m.type() === "warning") && faults.push(`${m.type()}: ${m.text()}`));
  page.on("pageerror", (e) => faults.push(`exception: ${e.message}`));
  await page.addInitScript(() => {
    window.__refused = [];
    document.addEventListener("securitypolicyviolation", (e) => window.__refused.push(`${e.violatedDirective} ${e.blockedURI}`));
  });
  return { page, context, faults };
}

export async function expectClean({ page, faults }, what) {
  const refused = await page.evaluate(() => window.__refused);
  const all = [...faults, ...refused.map((r) => `policy: ${r}`)];
  if (all.length > 0) throw new Error(`${what}: the console is not clean:\n  ${all.join("\n  ")}`);
}

/** Every rule of axe, WCAG 2.2 AA and best practices. */
export async function expectAccessible(page, what) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  if (violations.length === 0) return;
  const told = violations.map((v) => `${v.id} (${v.impact}): ${v.help}\n    ${v.nodes.map((n) => n.html.slice(0, 160)).slice(0, 4).join("\n    ")}`);
  throw new Error(`${what}: axe finds\n  ${told.join("\n  ")}`);
}

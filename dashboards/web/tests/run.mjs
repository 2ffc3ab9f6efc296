// The page in a real browser. With FORETIDE_DEMO, a binary: against a demo that it plays and keeps. With FORETIDE_URL
// and FORETIDE_TOKEN: against whatever runs there, touching nothing. Without: against the fixture, its faults included.
// Pictures go to the folder given as the first argument.

import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { expectAccessible, expectClean, open, pageOf } from "./browser.mjs";
import { startDemo } from "./demo.mjs";
import { faultTests } from "./faults.mjs";
import { startFixture } from "./fixture.mjs";
import { Api, expectEqual, meaning } from "./numbers.mjs";
import { signInTests } from "./signin.mjs";
import { unitTests } from "./units.mjs";

const pictures = process.argv[2];
if (pictures) await mkdir(pictures, { recursive: true });
const binary = process.env.FORETIDE_DEMO;
const demo = binary ? await startDemo(binary, process.env.FORETIDE_DEMO_FOLDER ?? "target/demo-dashboard") : null;
const given = demo?.url ?? process.env.FORETIDE_URL;
if (given && !demo && !process.env.FORETIDE_TOKEN) {
  console.error("FORETIDE_URL is set and FORETIDE_TOKEN is not: give the API's token too");
  process.exit(2);
}
const fixture = given ? null : await startFixture();
const url = (given ?? fixture.url).replace(/\/$/, "");
const token = demo?.token ?? (given ? process.env.FORETIDE_TOKEN : fixture.token);

const failed = [];
let passed = 0;
/** A test that takes longer has hung; the machine may be busy. */
const TEST_MOST_MS = 150_000;
async function test(name, body) {
  const from = performance.now();
  try {
    const late = new Promise((_, fail) => setTimeout(() => fail(new Error(`not done after ${TEST_MOST_MS / 1000} s`)), TEST_MOST_MS).unref());
    const said = await Promise.race([body(), late]);
    passed += 1;
    console.log(`ok    ${name}${said ? ` (${said})` : ""} ${Math.round(performance.now() - from)} ms`);
  } catch (why) {
    failed.push(name);
    const said = String(why.message).split("Browser logs:")[0];
    console.log(`FAIL  ${name}\n      ${said.replaceAll("\n", "\n      ")}`);
  }
}
const expect = (holds, what) => {
  if (!holds) throw new Error(what);
};

const browser = await open();
try {
  for (const scheme of ["light", "dark"]) {
    await test(`the page shows what runs, ${scheme}`, async () => {
      const at = await pageOf(browser, { scheme });
      const { page } = at;
      await page.goto(`${url}/#token=${encodeURIComponent(token)}`);
      await page.waitForSelector('[data-connection="live"]');
      await page.waitForFunction(() => !document.querySelector('[aria-busy="true"]'));
      expect(!(await page.evaluate(() => location.href)).includes("token"), "the token is still in the address bar");
      if (fixture) fixture.state.frozenAt = Date.now();
      const compared = await expectEqual(page, new Api(url, token));
      if (fixture) fixture.state.frozenAt = null;
      await expectAccessible(page, "page");
      await expectClean(at, "page");
      if (pictures) await page.screenshot({ path: join(pictures, `dashboard-${scheme}.png`), fullPage: true });
      await at.context.close();
      return `${compared} numbers equal the API's`;
    });
  }
  for (const view of ["heat", "workloads", "sites", "warmups", "where", "whatif", "governance"]) {
    await test(`the view ${view} shows what the API tells`, async () => {
      const at = await pageOf(browser, { scheme: view === "sites" ? "dark" : "light" });
      const { page } = at;
      await page.goto(`${url}/#token=${encodeURIComponent(token)}`);
      await page.waitForSelector('[data-connection="live"]');
      await page.click(`nav a[href="#${view}"]`);
      await page.waitForFunction(() => !document.querySelector('[aria-busy="true"]'));
      if (fixture) fixture.state.frozenAt = Date.now();
      const compared = await expectEqual(page, new Api(url, token));
      if (fixture) fixture.state.frozenAt = null;
      await expectAccessible(page, view);
      await expectClean(at, view);
      if (pictures) await page.screenshot({ path: join(pictures, `${view}.png`), fullPage: true });
      await at.context.close();
      return `${compared} numbers equal the API's`;
    });
  }
  await test("a lane draws its moves, and a move is explained by key and by click", async () => {
    const at = await pageOf(browser);
    const { page } = at;
    await page.goto(`${url}/#token=${encodeURIComponent(token)}`);
    await page.waitForSelector("[data-lane]");
    const api = new Api(url, token);
    const moves = await api.list("/v1/moves");
    await page.waitForFunction(() => document.querySelector('#timeline[aria-busy="false"]'));
    if (moves.every((m) => m.state === "cancelled")) return "no moves to explain here";
    await page.getByRole("button", { name: "Fit" }).click();
    await page.waitForTimeout(300);
    const inked = await page.$$eval("[data-lane] canvas", (all) => all.map((c) => {
      const data = c.getContext("2d").getImageData(0, 0, c.width, Math.floor(c.height * 0.68)).data;
      const colours = new Set();
      for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200) colours.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
      return colours.size;
    }));
    expect(inked.some((n) => n > 2), `no lane shows a bar: ${inked}`);
    const nodes = await page.evaluate(() => document.querySelectorAll("*").length);
    expect(nodes < 3000, `${nodes} elements for ${moves.length} moves: bars must not be elements`);
    await page.locator(".lanes").focus();
    await page.keyboard.press("]");
    const id = await page.getAttribute("#explain[data-move]", "data-move");
    const said = await page.locator("#explain").innerText();
    const move = moves.find((m) => m.id === id);
    expect(move && said.includes(move.path) && said.includes(move.reason), `the explanation of ${id} lacks path or reason:\n${said}`);
    await expectAccessible(page, "explanation");
    if (pictures) await page.screenshot({ path: join(pictures, "explain.png") });
    await page.keyboard.press("Escape");
    expect((await page.locator("#explain[data-move]").count()) === 0, "Escape does not clear the choice");
    await expectClean(at, "explanation");
    await at.context.close();
    return `${moves.length} moves, ${nodes} elements`;
  });
  await test("panning and zooming stay smooth", async () => {
    const at = await pageOf(browser);
    const { page } = at;
    await page.goto(`${url}/#token=${encodeURIComponent(token)}`);
    await page.waitForSelector("[data-lane]");
    await page.waitForTimeout(1500);
    await page.locator(".lanes").focus();
    const [idle, busy] = await page.evaluate(async () => {
      const lanes = document.querySelector(".lanes");
      const median = async (act) => {
        const times = [];
        for (let i = 0; i < 40; i += 1) {
          const from = performance.now();
          act(i);
          await new Promise(requestAnimationFrame);
          times.push(performance.now() - from);
        }
        return times.sort((a, b) => a - b)[20];
      };
      const press = (i) => lanes.dispatchEvent(new KeyboardEvent("keydown", { key: ["ArrowRight", "+", "ArrowLeft", "-"][i % 4], bubbles: true, cancelable: true }));
      return [await median(() => {}), await median(press)];
    });
    expect(busy < 4 * idle, `a step takes ${busy.toFixed(1)} ms where a frame takes ${idle.toFixed(1)} ms`);
    await at.context.close();
    return `median step ${busy.toFixed(1)} ms, frame ${idle.toFixed(1)} ms`;
  });
  await test("what a warm-up would cost is said before anything is asked for", async () => {
    const at = await pageOf(browser);
    const { page } = at;
    await page.goto(`${url}/#token=${encodeURIComponent(token)}`);
    await page.click('nav a[href="#warmups"]');
    await page.waitForFunction(() => document.querySelector("#ask-volume")?.value);
    const before = (await new Api(url, token).list("/v1/warmups")).length;
    await page.getByRole("button", { name: "See what it would cost" }).click();
    const button = page.getByRole("button", { name: /^Warm it at .+ for [0-9.]+$/ });
    const refused = page.locator("#ask .trouble");
    await button.or(refused).first().waitFor();
    await expectAccessible(page, "warm-up previewed");
    expect((await new Api(url, token).list("/v1/warmups")).length === before, "to look at the cost asked for a warm-up");
    if (pictures) await page.screenshot({ path: join(pictures, "warmup-cost.png") });
    if (fixture) {
      await page.getByLabel("Label").fill("nightly");
      expect((await button.count()) === 0, "the cost of another wish is still on the button");
      await page.getByRole("button", { name: "See what it would cost" }).click();
      await button.click();
      await page.locator("#ask code").waitFor();
      expect(JSON.stringify(fixture.state.asked) === JSON.stringify([{ volume: "corpus", paths: [""], label: "nightly", site: "gpu-west" }]), JSON.stringify(fixture.state.asked));
      await page.getByRole("button", { name: "Release validation set" }).click();
      await page.waitForFunction(() => !document.querySelector("#warmups").innerText.includes("validation set"));
      expect(fixture.state.released.join() === "wu-2", "what served was not released");
      await page.getByRole("button", { name: "Take back ablation-17" }).click();
      await page.waitForFunction(() => !document.querySelector("#warmups").innerText.includes("ablation-17"));
      await page.getByLabel("Label").fill("phi");
      await page.getByRole("button", { name: "See what it would cost" }).click();
      await page.getByRole("alert").waitFor();
    }
    // A refusal is an answer too, and the browser logs it.
    if ((await refused.count()) > 0) at.faults.splice(0, at.faults.length, ...at.faults.filter((f) => !/Failed to load resource/.test(f)));
    await expectClean(at, "warm-up");
    await at.context.close();
  });
  await test("sites are compared side by side as the API ranks them", async () => {
    const at = await pageOf(browser);
    const { page } = at;
    await page.goto(`${url}/#token=${encodeURIComponent(token)}`);
    await page.click('nav a[href="#where"]');
    await page.waitForFunction(() => document.querySelector("#where-volume")?.value);
    const volume = await page.inputValue("#where-volume");
    await page.getByRole("button", { name: "Compare sites" }).click();
    await page.waitForSelector("#where ol li");
    const shown = await page.$$eval("#where ol h3", (all) => all.map((h) => h.firstChild.textContent.trim()));
    const answer = await fetch(`${url}/v1/advise`, { method: "POST", headers: { Authorization: `Bearer ${token}`, "content-type": "application/json" }, body: JSON.stringify({ volume, paths: [""] }) });
    const told = (await answer.json()).sites.map((s) => s.site);
    expect(JSON.stringify(shown) === JSON.stringify(told), `page ${shown}, API ${told}`);
    await expectAccessible(page, "where");
    await expectClean(at, "where");
    if (pictures) await page.screenshot({ path: join(pictures, "where.png"), fullPage: true });
    await at.context.close();
    return shown.join(", ");
  });
  await test("rules are tried on a file, site by site", async () => {
    const at = await pageOf(browser);
    const { page } = at;
    await page.goto(`${url}/#token=${encodeURIComponent(token)}`);
    await page.click('nav a[href="#governance"]');
    await page.waitForFunction(() => document.querySelector("#try-volume")?.value);
    const volume = await page.inputValue("#try-volume");
    await page.getByLabel("Path").fill("patients/7/scan.dcm");
    await page.getByRole("button", { name: "May it go?" }).click();
    await page.waitForSelector("#rules ul li");
    const shown = await page.$$eval("#rules ul li", (all) => all.map((li) => [li.querySelector("strong").innerText, li.querySelector(".pill").innerText]));
    const told = (await new Api(url, token).get(`/v1/policy/verdicts?volume=${volume}&path=patients/7/scan.dcm`)).items.map((v) => [v.site, { allow: "may", transit: "may pass, not stay", deny: "may not" }[v.effect]]);
    expect(JSON.stringify(shown) === JSON.stringify(told), `page ${JSON.stringify(shown)}, API ${JSON.stringify(told)}`);
    await expectAccessible(page, "rules tried");
    await expectClean(at, "rules tried");
    await at.context.close();
  });
  await test("what would have been is played as the API answers, in each way", async () => {
    const at = await pageOf(browser);
    const { page } = at;
    await page.goto(`${url}/#token=${encodeURIComponent(token)}`);
    await page.click('nav a[href="#whatif"]');
    await page.waitForFunction(() => !document.querySelector("#whatif button.primary").disabled);
    await page.getByLabel("Play again").selectOption({ label: "the last hour" });
    await page.getByLabel(/^Each link/).focus();
    for (let i = 0; i < 6; i += 1) await page.keyboard.press("ArrowRight");
    const link = await page.getByLabel(/^Each link/).getAttribute("aria-valuetext");
    const asked = [];
    page.on("response", async (answer) => answer.url().endsWith("/v1/what-if") && asked.push([answer.request().postDataJSON(), await answer.json()]));
    await page.getByRole("button", { name: "Play both" }).click();
    await page.waitForSelector("#whatif li[data-way=oracle]");
    const [[now, as], [then, would]] = asked;
    expect(JSON.stringify(now) === '{"span_s":3600}' && then.link_bits_per_s > 0, `asked ${JSON.stringify([now, then])}`);
    expect(meaning(link).number === then.link_bits_per_s, `the slider says ${link}, the question ${then.link_bits_per_s}`);
    for (const way of would.ways) {
      const before = as.ways.find((w) => w.name === way.name);
      const label = await page.getAttribute(`#whatif li[data-way="${way.name}"] svg`, "aria-label");
      const [stall, was] = /: (.+) of waiting, now (.+)$/.exec(label).slice(1).map(meaning);
      expect(Math.abs(stall.number - way.stall_s) <= stall.off && Math.abs(was.number - before.stall_s) <= was.off, `${label} is not ${way.stall_s} and ${before.stall_s}`);
      for (const field of ["stall_s", "link_bytes", "peak_link"]) {
        const said = meaning(await page.innerText(`#whatif li[data-way="${way.name}"] [data-field=${field}]`));
        expect(said && (said.bound || Math.abs(said.number - way[field]) <= said.off), `${way.name}: ${field} ${way[field]} reads ${JSON.stringify(said)}`);
      }
    }
    await expectAccessible(page, "what if");
    await expectClean(at, "what if");
    if (pictures) await page.screenshot({ path: join(pictures, "whatif.png"), fullPage: true });
    await at.context.close();
    return would.ways.map((w) => `${w.name} ${w.stall_s.toFixed(1)} s`).join(", ");
  });
  await test("a mode is chosen, what it holds back is shown, and evidence is taken away", async () => {
    const at = await pageOf(browser);
    const { page } = at;
    const api = new Api(url, token);
    const before = await api.get("/v1/mode");
    await page.goto(`${url}/#token=${encodeURIComponent(token)}`);
    await page.click('nav a[href="#governance"]');
    await page.waitForSelector(`#mode input[value=${before.mode}]:checked`);
    await page.getByRole("radio", { name: /^shadow/ }).check();
    const holds = async (mode) => {
      for (let i = 0; i < 100 && (await api.get("/v1/mode")).mode !== mode; i += 1) await page.waitForTimeout(100);
      expect((await api.get("/v1/mode")).mode === mode, `the API does not say ${mode}`);
    };
    await holds("shadow");
    await page.getByRole("button", { name: "Back to what is configured" }).click();
    await holds(before.configured);
    await page.getByRole("radio", { name: new RegExp(`^${before.mode}`) }).check();
    await holds(before.mode);
    const [saved] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Save evidence" }).click()]);
    const evidence = JSON.parse(await readFile(await saved.path(), "utf8"));
    const [policy, refusals] = [await api.get("/v1/policy"), await api.list("/v1/refusals")];
    expect(evidence.rules.length === policy.rules.length && evidence.refusals.length >= Math.min(1, refusals.length) && Array.isArray(evidence.audit), JSON.stringify(evidence).slice(0, 300));
    await expectAccessible(page, "mode");
    await expectClean(at, "mode");
    await at.context.close();
    return `${evidence.rules.length} rules, ${evidence.refusals.length} refusals, ${evidence.audit.length} deeds`;
  });
  if (fixture) {
    await unitTests(test, expect);
    await faultTests({ test, expect, browser, pictures });
    await signInTests({ test, expect, browser, pictures });
  }
} finally {
  await browser.close();
  await fixture?.stop();
}
if (demo) await test("the demo ends at Ctrl-C", () => demo.stop());
console.log(`${passed} passed, ${failed.length} failed, against ${given ? url : "the fixture"}`);
process.exit(failed.length === 0 && passed > 0 ? 0 : 1);

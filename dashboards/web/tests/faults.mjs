// What can go wrong, and what the page then says.

import { join } from "node:path";
import { expectAccessible, expectClean, pageOf } from "./browser.mjs";
import { startFixture } from "./fixture.mjs";

/** The browser itself logs each answer above 399; those that a test asked for are no fault of the page. */
const forgetAnswers = (at) => {
  at.faults.splice(0, at.faults.length, ...at.faults.filter((f) => !/Failed to load resource/.test(f)));
};

export async function faultTests({ test, expect, browser, pictures }) {
  async function on(options, body, { hash = true } = {}) {
    const fixture = await startFixture(options);
    const at = await pageOf(browser);
    try {
      await at.page.goto(hash ? `${fixture.url}/#token=${fixture.token}` : fixture.url);
      await body(at.page, fixture, at);
      forgetAnswers(at);
      await expectClean(at, "page");
    } finally {
      await at.context.close();
      await fixture.stop();
    }
  }
  const picture = (page, name) => (pictures ? page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true }) : undefined);

  await test("without a token it asks for one, refuses a wrong one and takes the right one", () =>
    on({}, async (page) => {
      await expectAccessible(page, "sign-in");
      await page.getByLabel("API token").fill("wrong");
      await page.getByRole("button", { name: "Open" }).click();
      await page.getByRole("alert").waitFor();
      expect((await page.getByRole("alert").innerText()).includes("Ask an admin for a new token."), "the remedy is not shown");
      await expectAccessible(page, "sign-in refused");
      await picture(page, "sign-in");
      await page.getByLabel("API token").fill("fixture");
      await page.keyboard.press("Enter");
      await page.waitForSelector('[data-connection="live"]');
      await page.reload();
      await page.waitForSelector('[data-connection="live"]');
    }, { hash: false }));

  await test("an empty control plane says what to do next", () =>
    on({ empty: true }, async (page) => {
      await page.waitForSelector("#warmups .empty");
      for (const id of ["runs", "learned", "warmups", "refusals", "left-out"]) {
        await page.waitForSelector(`#${id} .empty`);
      }
      await expectAccessible(page, "empty");
      await picture(page, "empty");
    }));

  await test("while it loads, each panel says so", () =>
    on({}, async (page, fixture) => {
      fixture.state.slowMs = 1500;
      await page.reload();
      await page.waitForSelector('[aria-busy="true"]');
      await expectAccessible(page, "loading");
      await picture(page, "loading");
      await page.waitForFunction(() => !document.querySelector('[aria-busy="true"]'));
    }));

  for (const status of [403, 500]) {
    await test(`a list that answers ${status} says so in its own panel and comes back`, () =>
      on({}, async (page, fixture) => {
        fixture.state.faults.set("/v1/runs", status);
        await page.reload();
        await page.waitForSelector("#runs [role=alert]");
        expect((await page.locator("#runs [role=alert]").innerText()).includes(String(status)), "the status is not named");
        await page.waitForSelector("#warmups table");
        await expectAccessible(page, String(status));
        await picture(page, `error-${status}`);
        await page.locator("#runs").getByRole("button", { name: "Ask again" }).click();
        fixture.state.faults.clear();
        // By the next event, whether or not anybody asks.
        await page.waitForSelector("#runs table");
      }));
  }

  await test("a server that goes is told, what was shown stays, and it comes back by itself", async () => {
    const first = await startFixture();
    const at = await pageOf(browser);
    const { page } = at;
    await page.goto(`${first.url}/#token=${first.token}`);
    await page.waitForSelector("#runs table");
    await first.stop();
    await page.waitForSelector('[data-connection="lost"]');
    expect((await page.locator("#runs table").count()) === 1, "what was known is gone");
    await expectAccessible(page, "disconnected");
    await picture(page, "disconnected");
    const second = await startFixture({ port: first.port });
    await page.waitForSelector('[data-connection="live"]');
    await at.context.close();
    await second.stop();
  });

  await test("the switch asks first, is thrown, and says 403 to who may not", async () => {
    await on({}, async (page, fixture) => {
      await page.getByRole("button", { name: "Prefetch on" }).click();
      await expectAccessible(page, "confirmation");
      await picture(page, "switch");
      await page.getByRole("button", { name: "Leave it on" }).click();
      expect(!fixture.state.prefetchOff, "thrown without consent");
      await page.getByRole("button", { name: "Prefetch on" }).click();
      await page.getByRole("button", { name: "Switch off" }).click();
      await page.getByRole("button", { name: "Prefetch off" }).waitFor();
      expect(fixture.state.prefetchOff, "the API was not told");
    });
    await on({ scope: "read" }, async (page, fixture) => {
      await page.getByRole("button", { name: "Prefetch on" }).click();
      await page.getByRole("button", { name: "Switch off" }).click();
      await page.getByRole("alert").waitFor();
      expect((await page.getByRole("alert").innerText()).includes("admin"), "the scope is not named");
      expect(!fixture.state.prefetchOff, "thrown without the scope");
      await expectAccessible(page, "403");
      await picture(page, "switch-403");
    });
  });

  await test("what a mode holds back is approved, one by one or all of it, by who may", async () => {
    await on({}, async (page, fixture) => {
      await page.click('nav a[href="#governance"]');
      await page.getByRole("button", { name: "Approve train at gpu" }).click();
      await page.getByText("1 warm-up was asked for").waitFor();
      await page.getByRole("button", { name: /^Approve all 8.00 GB$/ }).click();
      await page.getByText("2 warm-ups were asked for").waitFor();
      expect(JSON.stringify(fixture.state.approved) === '[{"path":"train","site":"gpu"},{}]', JSON.stringify(fixture.state.approved));
      await expectAccessible(page, "approved");
      await picture(page, "approved");
    });
    await on({ scope: "read" }, async (page) => {
      await page.click('nav a[href="#governance"]');
      await page.waitForSelector("#proposed table");
      await page.waitForFunction(() => document.querySelector("#mode fieldset").disabled);
      expect(await page.getByRole("button", { name: /^Approve all/ }).isDisabled(), "a token that may read may approve");
      expect((await page.locator("#mode").innerText()).includes("admin"), "the scope is not named");
      await expectAccessible(page, "without the scope");
    });
  });

  await test("tags, a run and patterns are asked for as they are typed", () =>
    on({}, async (page, fixture) => {
      await page.click('nav a[href="#warmups"]');
      await page.waitForFunction(() => document.querySelector("#ask-volume")?.value);
      const ask = async () => {
        await page.getByRole("button", { name: "See what it would cost" }).click();
        await page.getByRole("button", { name: /^Warm it at/ }).click();
        await page.locator("#ask code").waitFor();
      };
      await page.getByLabel("Only files that match").fill("tokens/*.bin\nindex/**");
      await page.getByLabel("Priority").fill("7");
      await page.getByLabel("Keep once ready").fill("2");
      await ask();
      await page.getByLabel("what is tagged").check();
      await page.getByLabel("Tags, key=value").fill("dataset = imagenet\nsplit=train");
      await ask();
      await page.getByLabel("what one run has read").check();
      await ask();
      const terms = { pin_for_s: 7200, priority: 7, label: "", site: "gpu-west" };
      const expected = [{ volume: "corpus", paths: [""], globs: ["tokens/*.bin", "index/**"], ...terms }, { tags: { dataset: "imagenet", split: "train" }, ...terms }, { run: "r-1", ...terms }];
      expect(JSON.stringify(fixture.state.asked) === JSON.stringify(expected), JSON.stringify(fixture.state.asked));
    }));

  await test("what cannot be played says so", () =>
    on({}, async (page) => {
      await page.click('nav a[href="#whatif"]');
      await page.getByLabel("Play again").selectOption({ label: "the last 15 minutes" });
      await page.getByRole("button", { name: "Play", exact: true }).click();
      await page.getByRole("alert").waitFor();
      expect((await page.getByRole("alert").innerText()).includes("holds no access"), "the reason is not shown");
      await expectAccessible(page, "nothing to play");
    }));

  await test("what may pass and not stay is shown as neither allowed nor forbidden", () =>
    on({}, async (page) => {
      await page.click('nav a[href="#governance"]');
      await page.waitForFunction(() => document.querySelector("#try-volume")?.value);
      await page.getByLabel("Path").fill("archive/2019/a");
      await page.getByRole("button", { name: "May it go?" }).click();
      await page.waitForSelector("#rules ul li");
      const said = await page.$$eval("#rules ul li", (all) => all.map((li) => li.innerText.replace(/\s+/g, " ")));
      expect(said[0].includes("may pass, not stay gpu") && said[1].startsWith("may gpu-west"), said.join(" | "));
      expect((await page.locator("#rules tbody .pill.transit").count()) === 1, "the rule is no transit in the table");
    }));

  await test("4,000 small moves are one shape while they cannot be told apart, and bars once they can", () =>
    on({}, async (page) => {
      const lane = page.locator('[data-lane="storage→gpu"]');
      await lane.waitFor();
      await page.waitForFunction(() => document.querySelector('[data-lane="storage→gpu"]').dataset.drawn === "columns");
      const canvas = await lane.locator("canvas").boundingBox();
      let chosen = 0;
      for (let x = 0.2; x < 0.6 && chosen < 2; x += 0.005) {
        await page.mouse.click(canvas.x + canvas.width * x, canvas.y + 60);
        chosen = await page.locator("#explain li").count();
      }
      expect(chosen >= 2, "a merged column lists nothing");
      await page.locator("#explain li button").first().click();
      await page.waitForSelector("#explain[data-move]");
      await picture(page, "merged");
    }));

  await test("10,000 moves and 200 sites leave it quick", () =>
    on({ small: 10_000, far: 197 }, async (page) => {
      await page.waitForFunction(() => document.querySelector('[data-lane="storage→gpu"]')?.dataset.drawn === "columns");
      await page.locator(".lanes").focus();
      const step = await page.evaluate(async () => {
        const lanes = document.querySelector(".lanes");
        const frame = () => new Promise(requestAnimationFrame);
        const median = async (act) => {
          const times = [];
          for (let i = 0; i < 30; i += 1) {
            const from = performance.now();
            act(i);
            await frame();
            times.push(performance.now() - from);
          }
          return times.sort((a, b) => a - b)[15];
        };
        const press = (i) => lanes.dispatchEvent(new KeyboardEvent("keydown", { key: ["ArrowRight", "+", "ArrowLeft", "-"][i % 4], bubbles: true, cancelable: true }));
        return { idle: await median(() => {}), busy: await median(press) };
      });
      expect(step.busy < 6 * step.idle, `a step takes ${step.busy.toFixed(1)} ms where a frame takes ${step.idle.toFixed(1)} ms`);
      for (const view of ["sites", "heat", "where", "whatif", "governance"]) {
        await page.click(`nav a[href="#${view}"]`);
        await page.waitForFunction(() => !document.querySelector('[aria-busy="true"]'));
      }
      await page.click('nav a[href="#sites"]');
      await page.waitForFunction(() => document.querySelectorAll("#agents tbody tr").length === 200);
      const nodes = await page.evaluate(() => document.querySelectorAll("*").length);
      expect(nodes < 12_000, `${nodes} elements for 200 sites`);
      await picture(page, "many");
    }));

  await test("it works without a mouse and on a narrow screen", () =>
    on({}, async (page) => {
      await page.waitForSelector("#runs table");
      const seen = new Set();
      for (let i = 0; i < 40; i += 1) {
        await page.keyboard.press("Tab");
        seen.add(await page.evaluate(() => document.activeElement?.className || document.activeElement?.textContent?.trim()));
      }
      expect([...seen].some((s) => /lanes/.test(s)) && [...seen].some((s) => /pick/.test(s)), `Tab does not reach timeline and jobs: ${[...seen].join(" | ")}`);
      await page.setViewportSize({ width: 420, height: 900 });
      await page.waitForTimeout(500);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      const beyond = await page.evaluate(() =>
        [...document.querySelectorAll("main *, header *")]
          .filter((e) => e.getBoundingClientRect().right > 421)
          .slice(0, 6)
          .map((e) => `${e.tagName.toLowerCase()}.${e.className?.baseVal ?? e.className} "${e.textContent.trim().slice(0, 30)}"`),
      );
      expect(wide <= 420, `the page is ${wide} px wide on a screen of 420 px: ${beyond.join("; ")}`);
      await expectAccessible(page, "narrow");
      await picture(page, "narrow");
    }));
}

// Signing in at an issuer: what people do, what an issuer answers, and what the page then says.

import { join } from "node:path";
import { expectAccessible, expectClean, pageOf } from "./browser.mjs";
import { startFixture } from "./fixture.mjs";
import { startIssuer } from "./issuer.mjs";

/** The browser itself logs answers above 399, connections that break and pages of the issuer; those are no fault of ours. */
const ASKED_FOR = /Failed to load resource|favicon|blocked by CORS policy/;
const LIVE = '[data-connection="live"]';

export async function signInTests({ test, expect, browser, pictures }) {
  async function on(options, body) {
    const issuer = await startIssuer(options);
    const fixture = await startFixture({ issuer });
    issuer.state.pages.add(`${fixture.url}/`);
    const at = await pageOf(browser);
    try {
      await body(at.page, issuer, fixture, at);
      at.faults.splice(0, at.faults.length, ...at.faults.filter((f) => !ASKED_FOR.test(f)));
      await expectClean(at, "page");
    } finally {
      await at.context.close();
      await fixture.stop();
      await issuer.stop();
    }
  }
  const picture = (page, name) => (pictures ? page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true }) : undefined);
  const button = (page) => page.getByRole("button", { name: "Sign in with The Lab" });
  const leave = async (page, fixture, view = "") => {
    await page.goto(`${fixture.url}/${view}`);
    await button(page).click();
    await page.getByRole("heading", { name: "May Foretide know you?" }).waitFor();
  };
  const signIn = async (page, fixture, view = "") => {
    await leave(page, fixture, view);
    await page.getByRole("button", { name: "Yes" }).click();
  };
  const isRefused = async (page, says, what) => {
    await page.getByRole("alert").waitFor();
    const said = await page.getByRole("alert").innerText();
    expect(says.every((s) => said.includes(s)), `${what}: the page says ${said}`);
    await button(page).waitFor();
    expect(!/[?&]/.test(page.url()), `the answer is still in the address: ${page.url()}`);
    await expectAccessible(page, what);
  };
  const viewOf = (page) => page.getAttribute('nav a[aria-current="page"]', "href");

  for (const [which, options] of [["the access token", {}], ["the ID token", { clientId: "foretide" }]]) {
    await test(`somebody signs in by keys alone, shows ${which}, comes back to what was looked at, and signs out`, () =>
      on(options, async (page, issuer, fixture) => {
        await page.goto(`${fixture.url}/#sites`);
        await button(page).waitFor();
        await expectAccessible(page, "sign-in with an issuer");
        await picture(page, "sign-in-issuer");
        await page.keyboard.press("Tab");
        expect(await button(page).evaluate((b) => b === document.activeElement), "the first key does not reach the issuer's button");
        await page.keyboard.press("Enter");
        await page.getByRole("heading", { name: "May Foretide know you?" }).waitFor();
        await page.keyboard.press("Tab");
        await page.keyboard.press("Enter");
        await page.waitForSelector(LIVE);
        expect(page.url() === `${fixture.url}/#sites` && (await viewOf(page)) === "#sites", `came back to ${page.url()}`);
        const audiences = [...fixture.state.shown].map((token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url")).aud);
        expect(audiences.length === 1 && audiences[0] === "foretide", `tokens for ${audiences} were shown`);
        await page.reload();
        await page.waitForSelector(LIVE);
        expect(issuer.state.given === 1, "a reload asked the issuer again");
        await page.getByRole("button", { name: "Sign out" }).press("Enter");
        await page.getByRole("link", { name: "sign out there, too" }).waitFor();
        const there = new URL(await page.getByRole("link", { name: "sign out there, too" }).getAttribute("href"));
        expect(there.pathname === "/logout" && there.searchParams.get("id_token_hint").split(".").length === 3, `the issuer's sign-out is ${there}`);
        await expectAccessible(page, "signed out");
        await picture(page, "signed-out");
        for (let i = 0; i < 50 && issuer.state.revoked.length === 0; i += 1) await page.waitForTimeout(100);
        expect(issuer.state.revoked.length === 1, "what renews the sign-in was not given back");
        expect((await page.evaluate(() => sessionStorage.length)) === 0, "something is still kept");
        await page.reload();
        await button(page).waitFor();
      }));
  }

  await test("an answer that this tab did not ask for is refused, and changes nobody who is in", () =>
    on({}, async (page, issuer, fixture) => {
      await page.goto(`${fixture.url}/?code=c&state=s#heat`);
      await isRefused(page, ["not begun here", "Nothing of it was taken"], "no question");
      await leave(page, fixture);
      const other = (name, value) => {
        const address = new URL(`${fixture.url}/?code=c`);
        const query = new URL(page.url()).searchParams;
        for (const [key, own] of Object.entries({ iss: issuer.url, state: query.get("state") })) address.searchParams.set(key, key === name ? value : own);
        return address.href;
      };
      for (const [name, value] of [["state", "x".repeat(43)], ["iss", "https://evil.example"]]) {
        await page.goto(other(name, value));
        await isRefused(page, ["not begun here"], `wrong ${name}`);
        await leave(page, fixture);
      }
      await page.goto(other("none"));
      await isRefused(page, ["does not take this sign-in", "no such code"], "an invented code");
      expect(issuer.state.given === 0, "tokens were given");
      await signIn(page, fixture);
      await page.waitForSelector(LIVE);
      await page.goto(`${fixture.url}/?code=c&state=s`);
      await page.waitForSelector(LIVE);
      expect(page.url() === `${fixture.url}/`, `the answer is still in the address: ${page.url()}`);
    }));

  await test("who says no at the issuer is told, and can say yes", () =>
    on({}, async (page, _, fixture) => {
      await leave(page, fixture, "#heat");
      await page.getByRole("button", { name: "No" }).click();
      await isRefused(page, ["You were not let in by The Lab", "Ann said no"], "denied");
      await picture(page, "sign-in-denied");
      await button(page).click();
      await page.getByRole("button", { name: "Yes" }).click();
      await page.waitForSelector(LIVE);
      expect((await viewOf(page)) === "#heat", "what was looked at is lost");
    }));

  await test("an issuer that is down, broken or mistaken is told, and a token still opens the page", () =>
    on({}, async (page, issuer, fixture) => {
      issuer.state.isDown = true;
      await page.goto(fixture.url);
      await page.getByRole("alert").waitFor();
      expect((await page.getByRole("alert").innerText()).includes(issuer.url), "the issuer is not named");
      await expectAccessible(page, "issuer down");
      issuer.state.isDown = false;
      await page.getByRole("button", { name: "Ask again" }).click();
      await button(page).waitFor();
      const failing = async (change, says, what) => {
        await leave(page, fixture);
        Object.assign(issuer.state, change);
        await page.getByRole("button", { name: "Yes" }).click();
        await isRefused(page, says, what);
        Object.assign(issuer.state, { refuses: null, opaque: false, groups: ["admins"], aheadS: 0 });
      };
      await failing({ refuses: [503, {}] }, ["The Lab has failed"], "503");
      await failing({ refuses: [401, { error: "invalid_client" }] }, ["does not know this page", "without a secret"], "a client with a secret");
      await failing({ refuses: [400, { error: "unsupported_x", error_description: "of a later time" }] }, ["The Lab refused", "of a later time"], "an error of a later time");
      await failing({ opaque: true }, ["gave no token that can be checked here"], "an opaque token");
      await failing({ groups: ["guests"] }, ["knows you, and nothing is granted to you here", "grant"], "nothing granted");
      await failing({ aheadS: -600 }, ["The clocks of The Lab and the control plane differ"], "a clock behind");
      await leave(page, fixture);
      await page.route(`${issuer.url}/token`, (route) => route.abort());
      await page.getByRole("button", { name: "Yes" }).click();
      await isRefused(page, ["The Lab does not answer", "CORS"], "a token endpoint that does not answer");
      await page.getByLabel("API token").fill(fixture.token);
      await page.keyboard.press("Enter");
      await page.waitForSelector(LIVE);
    }));

  await test("a computer whose clock is wrong signs in all the same", () =>
    on({}, async (page, _, fixture) => {
      await page.addInitScript(() => {
        const now = Date.now;
        Date.now = () => now() - 3_600_000;
      });
      await signIn(page, fixture);
      await page.waitForSelector(LIVE);
    }));

  await test("a sign-in is renewed before it ends, and what is being typed stays", () =>
    on({}, async (page, issuer, fixture) => {
      issuer.state.lifeS = 6;
      await signIn(page, fixture, "#warmups");
      await page.waitForSelector(LIVE);
      await page.getByLabel("Label").fill("half a word");
      const from = issuer.state.renewed;
      for (let i = 0; i < 300 && issuer.state.renewed < from + 3; i += 1) await page.waitForTimeout(100);
      expect(issuer.state.renewed >= from + 3, `renewed ${issuer.state.renewed} times`);
      expect((await page.getByLabel("Label").inputValue()) === "half a word", "what was typed is gone");
      await page.waitForSelector(LIVE);
      await page.reload();
      await page.waitForSelector(LIVE);
      expect(issuer.state.given === issuer.state.renewed + 1, "somebody signed in anew");
    }));

  await test("an issuer that is away for a while ends nobody's sign-in", () =>
    on({}, async (page, issuer, fixture) => {
      issuer.state.lifeS = 20;
      await signIn(page, fixture);
      await page.waitForSelector(LIVE);
      issuer.state.refuses = [503, {}];
      await page.waitForTimeout(12_000);
      await page.waitForSelector(LIVE);
      issuer.state.refuses = null;
      for (let i = 0; i < 300 && issuer.state.renewed === 0; i += 1) await page.waitForTimeout(100);
      expect(issuer.state.renewed > 0, "it is not asked again");
      await page.waitForSelector(LIVE);
    }));

  for (const [why, end, says] of [
    ["no longer believed", (_, fixture) => (fixture.state.distrusts = true), ["Your sign-in has ended", "had signed you in until", "Token not accepted"]],
    ["no longer renewed", (issuer) => issuer.takeBack(), ["Your sign-in has ended", "does not take this sign-in any more"]],
    ["not to be renewed", () => {}, ["Your sign-in has ended", "had signed you in until"]],
  ]) {
    await test(`a sign-in that is ${why} ends in words, and the next comes back to the same view`, () =>
      on({}, async (page, issuer, fixture) => {
        Object.assign(issuer.state, { lifeS: 6, renews: why !== "not to be renewed" });
        await signIn(page, fixture, "#governance");
        await page.waitForSelector(LIVE);
        end(issuer, fixture);
        await isRefused(page, [...says, "you come back to what you were looking at"], why);
        await picture(page, "sign-in-ended");
        fixture.state.distrusts = false;
        issuer.state.lifeS = 300;
        await button(page).click();
        await page.getByRole("button", { name: "Yes" }).click();
        await page.waitForSelector(LIVE);
        expect((await viewOf(page)) === "#governance", "what was looked at is lost");
      }));
  }

  await test("over plain HTTP the page says why it cannot sign in, and takes a token", () =>
    on({}, async (page, _, fixture) => {
      await page.addInitScript(() => Object.defineProperty(window, "isSecureContext", { value: false }));
      await page.goto(fixture.url);
      await page.getByText("open this page by https").waitFor();
      expect((await button(page).count()) === 0, "a button that cannot work");
      await expectAccessible(page, "plain HTTP");
      await page.getByLabel("API token").fill(fixture.token);
      await page.keyboard.press("Enter");
      await page.waitForSelector(LIVE);
    }));
}

// Numbers in words: what is printed means the number, within its last digit. The page's own functions, in Node.

import { build } from "vite";
import { meaning } from "./numbers.mjs";

async function load(path) {
  const file = new URL(`../src/${path}`, import.meta.url).pathname;
  const { output } = (await build({ configFile: false, logLevel: "silent", build: { write: false, minify: false, lib: { entry: file, formats: ["es"] } } }))[0];
  return import(`data:text/javascript;base64,${Buffer.from(output[0].code).toString("base64")}`);
}

export async function unitTests(test, expect) {
  await test("a number in words means the number", async () => {
    const { kinds } = await load("units.ts");
    const each = { bytes: [0, 1, 999, 1000, 123_456, 999_499, 999_500, 5e9, 3.84e12], seconds: [0, 0.000_21, 0.15, 1, 119.96, 7199, 86_400, 5e6], share: [0, 0.5, 0.925, 1], count: [0, 7, 4005, 1_204_118], rate: [1e9, 2.5e10, 640] };
    for (const [kind, values] of Object.entries(each))
      for (const value of values) {
        const text = kinds[kind](value);
        const said = meaning(text);
        expect(said && Math.abs(said.number - value) <= said.off, `${kind} ${value} reads ${text}`);
      }
    expect(kinds.share(0.9999) === "> 99.9 %" && kinds.share(0.0001) === "< 0.1 %", "a share rounds to a certainty");
  });

  await test("a sign-in is used, renewed and ended in time", async () => {
    const { step } = await load("signin/session.ts");
    const at = (renewal, lifeS, afterS) => step({ renewal, madeAt: 0, endsAt: lifeS * 1000 }, afterS * 1000);
    const expected = [
      ["r", 300, 239, "use"], ["r", 300, 240, "renew"], ["r", 300, 900, "renew"], // a computer slept
      ["r", 60, 29, "use"], ["r", 60, 30, "renew"], [null, 300, 299, "use"], [null, 300, 300, "end"],
    ];
    for (const [renewal, lifeS, afterS, what] of expected) expect(at(renewal, lifeS, afterS) === what, `${renewal} of ${lifeS} s after ${afterS} s: ${at(renewal, lifeS, afterS)}`);
  });

  await test("a job's name keeps the ends of long paths", async () => {
    const { jobName } = await load("units.ts");
    const named = (command) => jobName({ command, workload: "w" });
    expect(named("/opt/train/bin/job --data /mnt/gpu/vision/a --epochs #") === "…/bin/job --data …/vision/a --epochs #", named("/opt/train/bin/job --data /mnt/gpu/vision/a --epochs #"));
    expect(named("python train.py --data=/data/imagenet") === "python train.py --data=/data/imagenet" && named("") === "w", "short names stay");
  });

  await test("an order that was recognised is told by how it is drawn", async () => {
    const { habit } = await load("panels/words.ts");
    const shuffled = { extent: { kind: "whole" }, order: "shuffled", epochs_per_run: 0, readers: 1 };
    const drawn = habit({ ...shuffled, drawn: "drawn by PyTorch, seed 1000 + epoch" });
    expect(drawn === "each from start to end, in an order drawn by PyTorch, seed 1000 + epoch", drawn);
    expect(habit(shuffled) === "each from start to end, in a fresh random order each epoch", habit(shuffled));
  });

  await test("a clock is right within a second, else by how much it is wrong", async () => {
    const { clockError } = await load("units.ts");
    const said = [12_000, -999_000, 4_200_000, -4_200_000].map(clockError).join(", ");
    expect(said === "right, right, 4.20 s ahead, 4.20 s behind", said);
  });

  await test("a slider's steps are round numbers of equal ratio, and each value finds its step", async () => {
    const { TOP, cacheAt, rateAt, stepOf } = await load("whatif/scales.ts");
    expect(cacheAt(0) === 1e7 && cacheAt(TOP) === 1e16 && rateAt(0) === 1e7 && rateAt(TOP) === 1e12, "the ends of the scales");
    for (let step = 0; step <= TOP; step += 1) expect(stepOf(cacheAt, cacheAt(step)) === step, `step ${step} is not found again`);
    expect(rateAt(stepOf(rateAt, 1e9)) === 1e9 && stepOf(cacheAt, 0) === 0, "the nearest step");
  });

  await test("evidence holds rules, refusals and deeds, and says what it lacks", async () => {
    const { evidenceOf } = await load("sites/evidence.ts");
    const policy = { mode: "enforce", default_effect: "deny", rules: [{ name: "a", effect: "deny", until: 1_000_000 }] };
    const told = JSON.parse(evidenceOf("host", 0, policy, [{ rule: "a", volume: "v", path: "p", to: "s", by: "planner", at: 2_000_000 }], null));
    expect(told.rules[0].until === "1970-01-01T00:00:01.000Z" && told.refusals[0].at === "1970-01-01T00:00:02.000Z", JSON.stringify(told));
    expect(/admin/.test(told.audit) && told.default_effect === "deny", JSON.stringify(told));
  });

  await test("events are the same however the network cuts them", async () => {
    const { EventParser } = await load("api/events.ts");
    const text = ": awake\n\nid: 7\nevent: plan\ndata: {\"a\":1}\n\nevent: lost\ndata: x\ndata: y\n\n";
    const whole = JSON.stringify(new EventParser().push(text));
    for (let cut = 0; cut <= text.length; cut += 1) {
      const parser = new EventParser();
      const got = JSON.stringify([...parser.push(text.slice(0, cut)), ...parser.push(text.slice(cut))]);
      expect(got === whole, `cut at ${cut}: ${got}`);
    }
    expect(JSON.parse(whole).length === 2 && JSON.parse(whole)[1].data === "x\ny", whole);
  });

  await test("merged columns keep every byte in view", async () => {
    const { arrange, barOf } = await load("timeline/bars.ts");
    const link = { from: "a", to: "b", rate: 1e9, rtt_ms: 1, cost_per_gb: 0 };
    const bars = Array.from({ length: 4000 }, (_, i) => barOf({ id: `m${i}`, length: 100_000, start_at: 1_000_000 + i * 250, due_at: 3_000_000, state: "planned" }, link, 0));
    const drawn = arrange(bars, { from: 0, to: 10_000 }, 900);
    expect(drawn.kind === "columns", "4,000 moves in a second are drawn as bars");
    const total = drawn.columns.reduce((sum, c) => sum + c.total, 0);
    expect(Math.abs(total - 4e8) < 1, `${total} of 400,000,000 bytes are drawn`);
    expect(arrange(bars.slice(0, 4), { from: 1000, to: 1003 }, 900).kind === "bars", "four moves that can be told apart are merged");
  });
}

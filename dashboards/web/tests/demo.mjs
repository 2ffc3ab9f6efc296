// A running demo to test against: started with --keep, ended by the signal that a person's Ctrl-C sends.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

/** Its scenes and a busy machine. */
const UP_MOST_MS = 480_000;
/** It takes down mounts and namespaces. */
const DOWN_MOST_MS = 60_000;

/** Starts `binary demo --keep` in `folder`; resolves with its address and token once its scenes are played. */
export async function startDemo(binary, folder) {
  const child = spawn(binary, ["demo", "--keep", "--files", "300", "--epochs", "2", "--folder", folder], { stdio: ["ignore", "pipe", "pipe"] });
  const words = [];
  const ended = new Promise((done) => child.once("exit", (code, signal) => done(code ?? signal)));
  const keep = (line) => words.push(line) > 60 && words.shift();
  createInterface({ input: child.stderr }).on("line", keep);
  const said = new Promise((found) =>
    createInterface({ input: child.stdout }).on("line", (line) => {
      keep(line);
      const up = /^running on: (http:\S+)\/#token=(\S+)$/.exec(line);
      if (up) found({ url: up[1], token: up[2] });
    }),
  );
  let timer;
  const late = new Promise((_, fail) => (timer = setTimeout(() => fail(new Error(`the demo is not up after ${UP_MOST_MS / 1000} s`)), UP_MOST_MS)));
  const gone = ended.then((how) => Promise.reject(new Error(`the demo ended with ${how}:\n${words.join("\n")}`)));
  gone.catch(() => {});
  async function stop() {
    child.kill("SIGINT");
    const hung = new Promise((_, fail) => setTimeout(() => fail(new Error(`the demo did not end within ${DOWN_MOST_MS / 1000} s of Ctrl-C`)), DOWN_MOST_MS).unref());
    await Promise.race([ended, hung]);
  }
  try {
    return { ...(await Promise.race([said, late, gone])), stop };
  } catch (why) {
    child.kill("SIGINT");
    throw why;
  } finally {
    clearTimeout(timer);
  }
}

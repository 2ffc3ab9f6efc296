// Which data is meant, as a form holds it and as the API takes it. Pure.

export interface Selection {
  by: "paths" | "tags" | "workload" | "run";
  volume: string;
  /** As typed: one a line; nothing means all. */
  paths: string;
  /** As typed: one a line; nothing means every file. */
  globs: string;
  /** As typed: key=value, one a line. */
  tags: string;
  workload: string;
  run: string;
}

export interface Said {
  volume?: string;
  paths?: string[];
  globs?: string[];
  tags?: Record<string, string>;
  workload?: string;
  run?: string;
}

export const nothing = (): Selection => ({ by: "paths", volume: "", paths: "", globs: "", tags: "", workload: "", run: "" });

const lines = (text: string): string[] => text.split("\n").map((line) => line.trim()).filter(Boolean);

export function asked(selection: Selection): Said {
  switch (selection.by) {
    case "workload":
      return { workload: selection.workload };
    case "run":
      return { run: selection.run };
    case "tags":
      return { tags: Object.fromEntries(lines(selection.tags).map(pair)) };
    case "paths": {
      const paths = lines(selection.paths).map((path) => path.replace(/^\/+|\/+$/g, ""));
      const globs = lines(selection.globs);
      return { volume: selection.volume, paths: paths.length > 0 ? paths : [""], ...(globs.length > 0 ? { globs } : {}) };
    }
  }
}

function pair(line: string): [string, string] {
  const cut = line.indexOf("=");
  return cut < 0 ? [line, ""] : [line.slice(0, cut).trim(), line.slice(cut + 1).trim()];
}

/** Whether enough is said to be asked. */
export function says(selection: Selection): boolean {
  const said = { paths: selection.volume, tags: selection.tags.trim(), workload: selection.workload, run: selection.run };
  return said[selection.by] !== "";
}

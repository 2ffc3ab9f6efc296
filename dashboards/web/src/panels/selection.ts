// Which data is meant, as a form holds it and as the API takes it. Pure.

export interface Selection {
  by: "paths" | "workload";
  volume: string;
  /** As typed: one a line; nothing means all. */
  paths: string;
  workload: string;
}

export const nothing = (): Selection => ({ by: "paths", volume: "", paths: "", workload: "" });

export function asked(selection: Selection): { volume?: string; paths?: string[]; workload?: string } {
  if (selection.by === "workload") return { workload: selection.workload };
  const paths = selection.paths.split("\n").map((line) => line.trim().replace(/^\/+|\/+$/g, "")).filter(Boolean);
  return { volume: selection.volume, paths: paths.length > 0 ? paths : [""] };
}

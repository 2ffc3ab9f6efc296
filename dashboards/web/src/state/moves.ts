// The moves that the API keeps, brought up to date without asking for all of them each time.
//
// `GET /v1/moves?since=` gives those due at or after a moment. A move that has not ended may still change, so each
// question begins at the earliest due time among those; what is due before and has ended stays as it is. Now and then
// all are asked for again, so that what the control plane forgot is forgotten here.

import type { Client } from "../api/client";
import type { MoveRecord } from "../api/types";

/** Moves kept on the page: the busy hour of a large site. */
const MOVES_MOST = 20_000;
/** Between two questions for everything. */
const ALL_AGAIN_MS = 60_000;
/** A plan may hold moves that are due already: so much earlier than the present is asked for too. */
const OVERDUE_US = 120_000_000;

export class MoveBook {
  private byId = new Map<string, MoveRecord>();
  private allAt = -Infinity;

  /** The next question is for everything. */
  forget(): void {
    this.allAt = -Infinity;
  }

  async load(client: Client): Promise<MoveRecord[]> {
    const startedAt = Date.now();
    if (startedAt - this.allAt > ALL_AGAIN_MS) {
      const all = await client.list<MoveRecord>("/v1/moves", {}, MOVES_MOST);
      this.byId = new Map(all.map((m) => [m.id, m]));
      this.allAt = startedAt;
    } else {
      const changed = await client.list<MoveRecord>("/v1/moves", { since: this.earliest(startedAt * 1000) }, MOVES_MOST);
      for (const move of changed) this.byId.set(move.id, move);
    }
    return [...this.byId.values()];
  }

  private earliest(now: number): number {
    let earliest = now - OVERDUE_US;
    for (const m of this.byId.values()) {
      if (m.state === "planned" || m.state === "running") earliest = Math.min(earliest, m.due_at);
    }
    return earliest;
  }
}

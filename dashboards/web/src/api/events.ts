// Server-sent events over fetch: `EventSource` cannot carry a bearer token, and one in the URL would end in logs.

import { ApiError, type Client } from "./client";

export interface ServerEvent {
  id: string;
  kind: string;
  data: string;
}

/** Text of one event: far above any that the API sends. Beyond it the stream is not ours. */
const MAX_EVENT_CHARS = 1 << 20;

/** Cuts a stream of text into events, however the network cut it into pieces. */
export class EventParser {
  private rest = "";

  push(text: string): ServerEvent[] {
    this.rest += text.replace(/\r\n?/g, "\n");
    const blocks = this.rest.split("\n\n");
    this.rest = blocks.pop() ?? "";
    if (this.rest.length > MAX_EVENT_CHARS) throw new ApiError(0, "the event stream sends no events", "");
    return blocks.map(parse).filter((e) => e !== null);
  }
}

function parse(block: string): ServerEvent | null {
  const event: ServerEvent = { id: "", kind: "message", data: "" };
  let said = false;
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue; // a comment keeps the connection awake
    const value = line.slice(colon + 1).replace(/^ /, "");
    const field = line.slice(0, colon);
    if (field === "id") event.id = value;
    else if (field === "event") event.kind = value;
    else if (field === "data") event.data += event.data ? `\n${value}` : value;
    else continue;
    said = true;
  }
  return said ? event : null;
}

/** Reads events until the server or `signal` ends it. `opened` is told once the server has answered. */
export async function listen(
  client: Client,
  lastId: string,
  signal: AbortSignal,
  opened: () => void,
  heard: (event: ServerEvent | null) => void,
): Promise<void> {
  const resume: Record<string, string> = lastId ? { "Last-Event-ID": lastId } : {};
  const { body } = await client.answer("/v1/events", { headers: { Accept: "text/event-stream", ...resume }, signal });
  if (!body) return;
  opened();
  const parser = new EventParser();
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard(null);
    for (const event of parser.push(value)) heard(event);
  }
}

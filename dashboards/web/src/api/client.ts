// The edge to the API: one place that knows how a token is shown, the shape of errors and how lists are paged.

import type { Page, WaysIn } from "./types";

/** Items asked for per page; the API's own bound. */
const PAGE_ITEMS = 1000;
/** A call that took longer is given up, so that a hung server shows as one. */
const CALL_TIMEOUT_MS = 15_000;

/** What the API answered instead of what was asked: RFC 9457's fields. Status 0: no answer at all. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    readonly detail = "",
    readonly remedy = "",
  ) {
    super(detail ? `${title}: ${detail}` : title);
  }

  /** What was caught, as something that can be shown. */
  static of(caught: unknown): ApiError {
    return caught instanceof ApiError ? caught : new ApiError(0, String(caught));
  }
}

/** Parts of a message as sentences, however the API punctuates them. */
export const sentences = (...parts: string[]): string =>
  parts
    .filter(Boolean)
    .map((p) => p[0]!.toUpperCase() + p.slice(1) + (/[.!?]$/.test(p) ? "" : "."))
    .join(" ");

export type Query = Record<string, string | number | undefined>;

/** Who asks. */
export interface Bearer {
  /** The token to show now. */
  token(): Promise<string>;
  /** What it means to who is in that the API did not take the token. */
  refused(why: ApiError): ApiError;
}

export class Client {
  constructor(private readonly bearer: Bearer) {}

  /** The API's answer, if it gives what was asked. */
  async answer(path: string, { headers, ...request }: RequestInit & { headers?: Record<string, string> }): Promise<Response> {
    const shown = { Authorization: `Bearer ${await this.bearer.token()}`, ...headers };
    return ask(path, { ...request, headers: shown }).catch((why: ApiError) => {
      throw why.status === 401 ? this.bearer.refused(why) : why;
    });
  }

  get<T>(path: string, query: Query = {}): Promise<T> {
    return this.call<T>("GET", path + search(query));
  }

  /** `patienceMs` is for what takes a processor on the other side. */
  send<T>(method: "PUT" | "POST" | "PATCH" | "DELETE", path: string, body?: unknown, patienceMs = CALL_TIMEOUT_MS): Promise<T> {
    return this.call<T>(method, path, body, patienceMs);
  }

  /** A whole list, page by page, at most `most` items. */
  async list<T>(path: string, query: Query = {}, most = 20_000): Promise<T[]> {
    const items: T[] = [];
    let cursor: number | string | undefined;
    do {
      const page = await this.get<Page<T>>(path, { limit: PAGE_ITEMS, ...query, cursor });
      items.push(...page.items);
      cursor = page.next ?? undefined;
    } while (cursor !== undefined && items.length < most);
    return items;
  }

  private async call<T>(method: string, path: string, body?: unknown, patienceMs = CALL_TIMEOUT_MS): Promise<T> {
    const json = body === undefined ? undefined : JSON.stringify(body);
    const headers = json === undefined ? undefined : { "Content-Type": "application/json" };
    return read<T>(await this.answer(path, { method, headers, body: json, signal: AbortSignal.timeout(patienceMs) }));
  }
}

/** How people may sign in: what anyone may ask. */
export const waysIn = async (): Promise<WaysIn> => read<WaysIn>(await ask("/v1/sign-in", { signal: AbortSignal.timeout(CALL_TIMEOUT_MS) }));

async function ask(path: string, request: RequestInit): Promise<Response> {
  const answer = await fetch(path, { ...request, cache: "no-store" }).catch((why: unknown) => {
    throw new ApiError(0, "no answer from the control plane", String(why));
  });
  if (!answer.ok) throw await problem(answer);
  return answer;
}

const read = async <T>(answer: Response): Promise<T> => (answer.status === 204 ? undefined : await answer.json()) as T;

function search(query: Query): string {
  const set = Object.entries(query).filter((e): e is [string, string | number] => e[1] !== undefined);
  return set.length === 0 ? "" : `?${new URLSearchParams(set.map(([k, v]) => [k, String(v)]))}`;
}

async function problem(answer: Response): Promise<ApiError> {
  const told = (await answer.json().catch(() => ({}))) as { title?: string; detail?: string; remedy?: string };
  return new ApiError(answer.status, told.title ?? `HTTP ${answer.status}`, told.detail, told.remedy);
}

// What the page asks of the adapter itself, with the user's own token: logs, receipts, and the keys that check these.
import { createContext, useContext } from "react";
import { chunksOf, serverEvents } from "./sse";

export type Adapter = { url: string; token: () => Promise<string> };

const Context = createContext<Adapter | null>(null);
export const AdapterProvider = Context.Provider;

export function useAdapter(): Adapter {
  const adapter = useContext(Context);
  if (adapter === null) throw new Error("This part of the page stands outside of AdapterProvider");
  return adapter;
}

/** LogChunk, as `docs/contracts/job-logs.md` defines it. */
export type LogChunk = {
  state: string;
  attempt: number;
  latest_attempt: number;
  offset: number;
  next_offset: number;
  size: number;
  encoding: string;
  data: string;
  complete: boolean;
};

export type LogEvent =
  | { kind: "chunk"; chunk: LogChunk; text: string; isNewAttempt: boolean }
  | { kind: "end" }
  | { kind: "problem"; problem: Problem };

/** RFC 9457, as `docs/contracts/errors.md` defines it; `status` 0: nobody answered. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    override readonly name: string,
    detail: string,
    readonly retry: boolean,
    readonly retryAfterSeconds?: number,
  ) {
    super(detail);
  }
}

function problemOf(body: unknown, status: number): Problem {
  const { type, detail, title, retry, retry_after } = (body ?? {}) as Record<string, unknown>;
  const name = typeof type === "string" ? type.slice(type.lastIndexOf("/") + 1) : "";
  const helps = typeof retry === "boolean" ? retry : status >= 500 || status === 429;
  const after = typeof retry_after === "number" ? retry_after : undefined;
  // What to do about a passing trouble is the page's business: it asks again.
  const words = [title, helps ? undefined : detail].filter((each) => typeof each === "string");
  return new Problem(status, name, words.join(". ") || `The adapter answers ${status}`, helps, after);
}

async function asked(adapter: Adapter, path: string[], init: RequestInit & { query?: string } = {}): Promise<Response> {
  const { query = "", headers, ...rest } = init;
  const url = `${adapter.url}/v1/${path.map(encodeURIComponent).join("/")}${query && `?${query}`}`;
  const authorization = `Bearer ${await adapter.token()}`;
  let response: Response;
  try {
    response = await fetch(url, { ...rest, cache: "no-store", headers: { ...headers, authorization } });
  } catch (error) {
    if (rest.signal?.aborted) throw error;
    throw new Problem(0, "unreachable", "The adapter cannot be reached from here", true);
  }
  if (response.ok) return response;
  throw problemOf(await response.json().catch(() => undefined), response.status);
}

export type LogPlace = {
  node_id: string;
  job_id: string;
  stream: "stdout" | "stderr";
  attempt?: number;
  task?: number; // of an array
};

/**
 * One connection's worth of a log: from `after`, the id of the last event that came, until the stream ends.
 * Errors: `Problem`.
 */
export async function* logOf(
  adapter: Adapter,
  { node_id, job_id, stream, attempt, task }: LogPlace,
  signal: AbortSignal,
  after?: string,
): AsyncGenerator<{ id?: string; event: LogEvent }> {
  const query = new URLSearchParams({ follow: "true", stream });
  if (attempt !== undefined) query.set("attempt", String(attempt));
  if (task !== undefined) query.set("task", String(task));
  const headers = { Accept: "text/event-stream", ...(after === undefined ? {} : { "Last-Event-ID": after }) };
  const path = ["nodes", node_id, "jobs", job_id, "logs"];
  const response = await asked(adapter, path, { query: query.toString(), signal, headers });
  for await (const { event, data, id } of serverEvents(chunksOf(response.body!))) {
    const content = JSON.parse(data) as unknown;
    const withId = id === undefined ? {} : { id };
    if (event === "end") yield { ...withId, event: { kind: "end" } };
    else if (event === "problem") yield { ...withId, event: { kind: "problem", problem: problemOf(content, 0) } };
    else if (event === "log" || event === "attempt") {
      const chunk = content as LogChunk;
      yield { ...withId, event: { kind: "chunk", chunk, text: textOf(chunk), isNewAttempt: event === "attempt" } };
    }
  }
}

function textOf({ encoding, data }: LogChunk): string {
  if (encoding !== "base64") return data;
  return new TextDecoder().decode(Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0)));
}

/** The job's signed receipt, as text; null where there is none. Errors: `Problem`. */
export async function receiptOf(adapter: Adapter, node_id: string, job_id: string): Promise<string | null> {
  try {
    return await (await asked(adapter, ["nodes", node_id, "jobs", job_id, "receipt"])).text();
  } catch (problem) {
    if (problem instanceof Problem && problem.status === 404) return null;
    throw problem;
  }
}

/** The keys that check the node's receipts, as the text of a JWK Set. Errors: `Problem`. */
export async function keysOf(adapter: Adapter, node_id: string): Promise<string> {
  return (await asked(adapter, ["nodes", node_id, "keys"])).text();
}

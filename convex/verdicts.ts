// What an answer of the adapter means for a command: `docs/contracts/errors.md`, and the retry rules of the commands.
import { v, type Infer } from "convex/values";

const PROBLEM_BASE = "https://aiida-byoc.org/problems/";
const MAX_MESSAGE = 1_000;
const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 30_000;
/** For a node that is away: its next sign of life wakes what waits for it. */
const LONGEST_WAIT_FOR_A_NODE_MS = 300_000;
const LONGEST_RETRY_AFTER_SECONDS = 300;

/** Problems that say that the node has stored nothing. */
const NOTHING_STORED: ReadonlySet<string> = new Set([
  "node-unreachable",
  "node-draining",
  "quota-exceeded",
  "too-many-requests",
  "product-unavailable",
  "unauthenticated",
  "forbidden",
]);
const TRY_AGAIN: ReadonlySet<number> = new Set([408, 425, 429]);
/** Ours to cure, not the sender's: the product's own credential. */
const OURS: ReadonlySet<string> = new Set(["unauthenticated", "forbidden"]);

const problem = { code: v.string(), message: v.string() };

/** `again`: no verdict; `clean` then says that the node has stored nothing. */
export const answer = v.union(
  v.object({ kind: v.literal("accepted"), status: v.optional(v.string()) }),
  v.object({ kind: v.literal("refused"), ...problem, remedy: v.optional(v.string()) }),
  v.object({
    kind: v.literal("again"),
    ...problem,
    clean: v.boolean(),
    retry_after: v.optional(v.number()), // seconds
  }),
);
export type Answer = Infer<typeof answer>;

export type Response = { status: number; type: string | null; retryAfter: string | null; body: string };

/** Reads an answer to a command about `job_id`. Only a problem document of the catalogue refuses for good. */
export function read(response: Response, job_id: string, now = Date.now()): Answer {
  const { status } = response;
  const body = parsed(response.body);
  if (status === 202) {
    if (body?.job_id === job_id && typeof body.status === "string") return { kind: "accepted", status: body.status };
    return again("answer-unreadable", "The adapter gave an answer that is none of the contract's.");
  }
  const wait = retryAfter(response.retryAfter, now);
  const waiting = wait === undefined ? {} : { retry_after: wait };
  const code = problemName(response, body);
  if (code === undefined) return { ...again("adapter-failed", `The adapter answered ${status}.`), ...waiting };
  if (OURS.has(code)) {
    const message = "The adapter does not accept the product's credential: an operator of the product has to look.";
    return { ...again(code, message), clean: true, ...waiting };
  }
  const message = told(code, body!);
  if (status >= 500 || TRY_AGAIN.has(status)) {
    return { ...again(code, message), clean: NOTHING_STORED.has(code), ...waiting };
  }
  const remedy = remedies(body!);
  return { kind: "refused", code, message, ...(remedy === "" ? {} : { remedy }) };
}

export function again(code: string, message: string) {
  return { kind: "again" as const, code, message, clean: false };
}

/**
 * How long to wait before the attempt after `attempts`, in ms: full jitter, doubling to half a minute, on top of what the
 * answer asked for. `random` is from 0 to 1.
 */
export function wait(attempts: number, { code, retry_after = 0 }: Asked, random: number): number {
  const longest = code === "node-unreachable" ? LONGEST_WAIT_FOR_A_NODE_MS : LONGEST_WAIT_MS;
  const span = Math.min(longest, FIRST_WAIT_MS * 2 ** Math.min(attempts - 1, 10));
  return 1_000 * Math.min(retry_after, LONGEST_RETRY_AFTER_SECONDS) + Math.round(random * span);
}
type Asked = { code: string; retry_after?: number };

type Body = Record<string, unknown>;

function parsed(text: string): Body | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Body) : undefined;
  } catch {
    return undefined;
  }
}

function problemName({ status, type }: Response, body: Body | undefined): string | undefined {
  const named = body?.type;
  if (status < 400 || !type?.startsWith("application/problem+json") || typeof named !== "string") return undefined;
  const name = named.startsWith(PROBLEM_BASE) ? named.slice(PROBLEM_BASE.length) : "";
  return /^[a-z][a-z0-9-]{0,63}$/.test(name) ? name : undefined;
}

/** For people: what is the matter, and what exactly, unless that only tells the sender to try again. */
function told(code: string, { title, detail, retry, errors }: Body): string {
  const said = [title, retry === true && code !== "quota-exceeded" ? undefined : detail];
  const fields = fieldErrors(errors).map(({ field, message }) => `${field}: ${message}`);
  const sentences = [...said, ...fields].filter((text) => typeof text === "string" && text !== "") as string[];
  const closed = sentences.map((text) => (/[.!?]$/.test(text) ? text : `${text}.`));
  return (closed.join(" ") || "The command was refused.").slice(0, MAX_MESSAGE);
}

function remedies({ errors }: Body): string {
  const known = fieldErrors(errors).flatMap(({ remedy }) => (remedy === undefined ? [] : [remedy]));
  return [...new Set(known)].join(" ").slice(0, MAX_MESSAGE);
}

function fieldErrors(errors: unknown): { field: string; message: string; remedy?: string }[] {
  const all: unknown[] = Array.isArray(errors) ? errors : [];
  return all.flatMap((one) => {
    const { field, message, remedy } = Object(one) as Body;
    if (typeof field !== "string" || typeof message !== "string") return [];
    return [{ field, message, ...(typeof remedy === "string" ? { remedy } : {}) }];
  });
}

function retryAfter(header: string | null, now: number): number | undefined {
  if (header === null) return undefined;
  const seconds = /^\d{1,6}$/.test(header) ? Number(header) : (Date.parse(header) - now) / 1_000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : undefined;
}

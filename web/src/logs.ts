// A log that follows its job: one place in the stream, however often the connection ends.
import { useEffect, useReducer } from "react";
import { logOf, Problem, useAdapter, type LogPlace } from "./adapter";

const KEPT_CHARACTERS = 2_000_000; // what a browser shows without effort; the whole log is at the node
const MOST_WAIT_SECONDS = 30;

export type Log = {
  text: string;
  cut: boolean; // the beginning is left out
  attempt?: number;
  latest_attempt?: number;
  status: "connecting" | "following" | "complete" | "waiting" | "failed";
  problem?: string;
};

type Change =
  | { kind: "begin" }
  | { kind: "text"; text: string; attempt: number; latest_attempt: number }
  | { kind: "complete" }
  | { kind: "waiting" | "failed"; problem: string };

export const BEGINNING: Log = { text: "", cut: false, status: "connecting" };

/** The log after one change. */
export function changed(log: Log, change: Change): Log {
  switch (change.kind) {
    case "begin":
      return BEGINNING;
    case "text": {
      const { attempt, latest_attempt } = change;
      const isAnother = log.attempt !== undefined && log.attempt !== attempt;
      const text = `${log.text}${isAnother ? `\n── attempt ${attempt} ──\n` : ""}${change.text}`;
      const cut = log.cut || text.length > KEPT_CHARACTERS;
      const kept =
        text.length > KEPT_CHARACTERS ? text.slice(text.indexOf("\n", text.length - KEPT_CHARACTERS) + 1) : text;
      return { text: kept, cut, attempt, latest_attempt, status: "following" };
    }
    case "complete":
      return { ...log, status: "complete", problem: undefined };
    default:
      return { ...log, status: change.kind, problem: change.problem };
  }
}

/** Follows the log at `place` until the job has ended, through every interruption. */
export function useLog({ node_id, job_id, stream, attempt, task }: LogPlace): Log {
  const adapter = useAdapter();
  const [log, change] = useReducer(changed, BEGINNING);
  useEffect(() => {
    const ending = new AbortController();
    const place = { node_id, job_id, stream, attempt, task };
    change({ kind: "begin" });
    void follow();
    return () => ending.abort();

    async function follow() {
      let after: string | undefined;
      let failures = 0;
      while (!ending.signal.aborted) {
        try {
          for await (const { id, event } of logOf(adapter, place, ending.signal, after)) {
            failures = 0;
            after = id ?? after;
            if (event.kind === "end") return change({ kind: "complete" });
            if (event.kind === "problem") throw event.problem;
            const { chunk, text } = event;
            change({ kind: "text", text, attempt: chunk.attempt, latest_attempt: chunk.latest_attempt });
            if (attempt !== undefined && chunk.complete) return change({ kind: "complete" });
          }
        } catch (error) {
          if (ending.signal.aborted) return;
          const known = error instanceof Problem ? error : new Problem(0, "", "The connection was cut", true);
          const words = known.message;
          if (!known.retry) return change({ kind: "failed", problem: words });
          change({ kind: "waiting", problem: words });
          failures += 1;
          await pause(
            known.retryAfterSeconds ?? Math.min(MOST_WAIT_SECONDS, 2 ** Math.min(failures, 5) / 2),
            ending.signal,
          );
        }
      }
    }
  }, [adapter, node_id, job_id, stream, attempt, task]);
  return log;
}

function pause(seconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const timer = window.setTimeout(done, seconds * 1000);
    signal.addEventListener("abort", () => (window.clearTimeout(timer), done()), { once: true });
  });
}

// Colours and cursor moves of terminals: noise here.
const ESCAPES = /\u001b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\-_])/g;

/** A log's text as it reads on a page: without escapes, and with only the last state of a line that was written over. */
export function readable(text: string): string {
  return text
    .replace(ESCAPES, "")
    .replace(/\r\n/g, "\n")
    .replace(/^.*\r(?!$)/gm, "");
}

// Which tables a run of a query reads, and which tables are written: seen where functions call the database.
import { AsyncLocalStorage, AsyncResource } from "node:async_hooks";

type Runtime = {
  syscall(operation: string, args: string): string;
  asyncSyscall(operation: string, args: string): Promise<string>;
  jsSyscall(operation: string, args: object): unknown;
};
type Source = { tableName?: string; indexName?: string };
type Page = { continueCursor: string; isDone: boolean };
type Args = { table?: string; id?: string; query?: { source: Source }; endCursor?: string | null };

const READS = new Set(["1.0/get", "1.0/count", "1.0/queryStream", "1.0/queryPage"]);
const WRITES = new Set(["1.0/insert", "1.0/shallowMerge", "1.0/replace", "1.0/remove"]);
const END = "_end_cursor"; // the end of the whole range, and no place in it

/** One run of a query: the tables it read, and where the page ends that it returned. */
export class Trace {
  readonly tables = new Set<string>();

  /** `endCursor`: where the page ended when the query first ran, so that it ends there again. */
  constructor(public endCursor: string | null = null) {}

  /** Runs `query` and notes what it reads. */
  run<Result>(query: () => Promise<Result>): Promise<Result> {
    return traces.run(this, query);
  }
}

const traces = new AsyncLocalStorage<Trace>();

/** Calls `onWrite` with the table of each write from now on, while the transaction is under way: it may still fail. */
export function watchWrites(onWrite: (table: string) => void): void {
  const host = globalThis as unknown as { Convex: Runtime };
  const runtime = host.Convex;
  const notify = AsyncResource.bind(onWrite); // else it would be part of the transaction
  host.Convex = {
    syscall(operation, args) {
      noteRead(operation, args);
      return runtime.syscall(operation, args);
    },
    async asyncSyscall(operation, args) {
      noteRead(operation, args);
      const trace = traces.getStore();
      if (operation === "1.0/queryPage" && trace !== undefined) return readPage(runtime, trace, args);
      const answer = await runtime.asyncSyscall(operation, args);
      if (WRITES.has(operation)) notify(tableOf(JSON.parse(args) as Args));
      return answer;
    },
    jsSyscall: (operation, args) => runtime.jsSyscall(operation, args),
  };
}

/** The time of the newest commit; to be asked in a transaction. */
export function newestCommit(): bigint {
  const { Convex } = globalThis as unknown as { Convex: Runtime };
  const { $integer } = JSON.parse(Convex.syscall("1.0/getSnapshotTs", "{}")) as { $integer: string };
  return Buffer.from($integer, "base64").readBigUInt64LE();
}

function noteRead(operation: string, args: string): void {
  const trace = traces.getStore();
  if (trace !== undefined && READS.has(operation)) trace.tables.add(tableOf(JSON.parse(args) as Args));
}

// A page keeps the end that it had at first: documents that come or go make it longer or shorter, and the next page,
// which begins at that end, neither repeats nor misses any.
async function readPage(runtime: Runtime, trace: Trace, args: string): Promise<string> {
  const asked = JSON.parse(args) as Args;
  asked.endCursor ??= trace.endCursor;
  const page = JSON.parse(await runtime.asyncSyscall("1.0/queryPage", JSON.stringify(asked))) as Page;
  if (asked.endCursor && asked.endCursor !== END) {
    // convex-test takes a page for the last one when the document at its end is gone.
    Object.assign(page, { continueCursor: asked.endCursor, isDone: false });
  }
  trace.endCursor = page.continueCursor;
  return JSON.stringify(page);
}

// An id of convex-test ends in the name of its table.
function tableOf({ table, id, query }: Args): string {
  const source = query?.source;
  return table ?? source?.tableName ?? source?.indexName?.split(".")[0] ?? id?.replace(/^\d+/, "") ?? "";
}

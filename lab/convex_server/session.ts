// One client of the sync protocol: what it subscribes to, as whom, and what it was last told.
import { createHash } from "node:crypto";
import type { JSONValue } from "convex/values";
import type { Authenticator, Caller } from "./auth";
import type { Answer, Deployment } from "./functions";
import { AuthError, encodedTime, parsed, ProtocolError } from "./protocol";
import type { AddQuery, ClientMessage, Modification, Request } from "./protocol";
import type { Requests } from "./requests";
import { Trace } from "./tracking";

const MAX = 1000; // messages that wait, mutations that wait, actions under way, queries
const COALESCE_MS = 20; // of writes that come together a client is told once

type Query = AddQuery & {
  ranAs: number | undefined; // the version of the identity with which it ran last
  tables: ReadonlySet<string>; // what it read then
  told: string | undefined; // a digest of the result that the client has
};
type Version = { querySet: number; identity: number; ts: bigint };

/** The wire to the client. */
export type Wire = {
  /** Resolves when the message is on its way, so that a slow client is told less often instead of later. */
  send(message: object): Promise<void>;
  close(code: number, reason: string): void;
};

export class Session {
  private received = { querySet: 0, identity: 0 };
  private version: Version = { querySet: 0, identity: 0, ts: 0n };
  private caller: Caller = { admin: false };
  private sessionId: string | undefined;
  private clockSkew: number | undefined;
  private readonly queries = new Map<number, Query>();
  private readonly removed = new Set<number>();
  private readonly written = new Set<string>();
  private readonly mutations: { request: Request; caller: Caller }[] = [];
  private messages: Promise<void> = Promise.resolve();
  private waiting = 0;
  private actions = 0;
  private due = false;
  private mutated = false;
  private working = false;
  private ended = false;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly wire: Wire,
    private readonly authenticator: Authenticator,
    private readonly deployment: Deployment,
    private readonly requests: Requests,
  ) {}

  /** Takes a message of the client; they are handled one after the other. */
  receive(text: string): void {
    if (this.ended) return;
    if (++this.waiting > MAX) {
      this.fail(tooMany("waiting messages"));
      return;
    }
    this.messages = this.messages.then(async () => {
      try {
        if (!this.ended) await this.handle(parsed(text));
      } catch (error) {
        this.fail(error);
      }
      this.waiting -= 1;
    });
  }

  /** Hears that a table was written, by a transaction that is still under way. */
  hearWrite(table: string): void {
    if (this.ended) return;
    this.written.add(table);
    if (this.timer !== undefined || ![...this.queries.values()].some(({ tables }) => tables.has(table))) return;
    this.timer = setTimeout(() => {
      this.timer = undefined;
      this.update();
    }, COALESCE_MS);
  }

  /** Forgets the client. */
  end(): void {
    this.ended = true;
    clearTimeout(this.timer);
  }

  /** Tells the client why, as far as it is its own doing, and ends the connection. */
  fail(error: unknown): void {
    if (this.ended) return;
    this.end();
    if (error instanceof AuthError) {
      const { message, authUpdateAttempted } = error;
      const baseVersion = this.received.identity;
      void this.wire.send({ type: "AuthError", error: message, baseVersion, authUpdateAttempted });
      this.wire.close(1008, "Unauthenticated");
    } else if (error instanceof ProtocolError) {
      void this.wire.send({ type: "FatalError", error: `${error.code}: ${error.message}` });
      this.wire.close(1008, error.code);
    } else {
      console.error(error);
      this.wire.close(1011, "InternalServerError");
    }
  }

  private async handle(message: ClientMessage): Promise<void> {
    switch (message.type) {
      case "Connect":
        this.sessionId = message.sessionId;
        this.clockSkew = message.clientTs === undefined ? undefined : message.clientTs - Date.now();
        return;
      case "Authenticate":
        this.expect("identity", message.baseVersion);
        this.caller = await this.authenticated(message.credential);
        this.received.identity += 1;
        return this.update();
      case "ModifyQuerySet":
        this.expect("querySet", message.baseVersion);
        if (message.newVersion <= message.baseVersion) throw new ProtocolError("BadVersion", "newVersion is not newer");
        for (const each of message.modifications) this.modify(each);
        this.received.querySet = message.newVersion;
        return this.update();
      case "Mutation":
        if (this.mutations.length >= MAX) throw tooMany("mutations");
        this.mutations.push({ request: message, caller: this.current() });
        void this.work();
        return;
      case "Action":
        if (this.actions >= MAX) throw tooMany("actions");
        void this.act(message, this.current());
        return;
      case "Event":
        return;
    }
  }

  private expect(what: "identity" | "querySet", base: number): void {
    if (base === this.received[what]) return;
    const mismatch = `Base version ${base} passed up doesn't match the current version ${this.received[what]}`;
    throw new ProtocolError("BaseVersionMismatch", mismatch);
  }

  private async authenticated(credential: string | undefined): Promise<Caller> {
    try {
      return await this.authenticator.authenticate(credential);
    } catch (error) {
      throw new AuthError((error as Error).message, true);
    }
  }

  // Who the client is, while its token lasts.
  private current(): Caller {
    const { expires } = this.caller;
    if (expires !== undefined && Date.now() >= expires) throw new AuthError("Convex token identity expired", false);
    return this.caller;
  }

  private modify(modification: AddQuery | { type: "Remove"; queryId: number }): void {
    const { queryId } = modification;
    if (modification.type === "Remove") {
      if (!this.queries.delete(queryId)) throw new ProtocolError("UnknownQuery", `Nonexistent query id: ${queryId}`);
      this.removed.add(queryId);
      return;
    }
    if (this.queries.has(queryId)) throw new ProtocolError("DuplicateQuery", `Duplicate query id: ${queryId}`);
    if (this.queries.size >= MAX) throw tooMany("queries");
    this.queries.set(queryId, { ...modification, ranAs: undefined, tables: new Set(), told: undefined });
  }

  private update(): void {
    this.due = true;
    void this.work();
  }

  // Mutations in their order, and after each what it changed: its response comes before the transition that shows it.
  private async work(): Promise<void> {
    if (this.working) return;
    this.working = true;
    try {
      while (!this.ended && (this.due || this.mutations.length > 0)) {
        const mutation = this.mutations.shift();
        if (mutation !== undefined) await this.mutate(mutation.request, mutation.caller);
        if (this.due) await this.transition();
      }
    } catch (error) {
      this.fail(error);
    } finally {
      this.working = false;
    }
  }

  private async mutate({ requestId, udfPath, args }: Request, caller: Caller): Promise<void> {
    const answer = await this.requests.once(this.sessionId, requestId, caller, () =>
      this.deployment.run(caller, "mutation", udfPath, args),
    );
    let ts: string | undefined;
    if (answer.status === "success") {
      this.due = this.mutated = true;
      await this.deployment.snapshot({ admin: false }, async (time) => {
        ts = encodedTime(time); // of this commit, or of a later one
      });
    }
    await this.wire.send({ type: "MutationResponse", requestId, ...response(answer), ts });
  }

  private async act({ requestId, udfPath, args }: Request, caller: Caller): Promise<void> {
    this.actions += 1;
    try {
      const answer = await this.deployment.run(caller, "action", udfPath, args);
      if (!this.ended) await this.wire.send({ type: "ActionResponse", requestId, ...response(answer) });
    } catch (error) {
      this.fail(error);
    } finally {
      this.actions -= 1;
    }
  }

  // From what the client knows to how things are now.
  private async transition(): Promise<void> {
    this.due = false;
    const mutated = this.mutated;
    this.mutated = false;
    const caller = this.current();
    const target: Version = { ...this.received, ts: 0n };
    const known = [...this.queries.values()];
    const modifications: Modification[] = [...this.removed].map((queryId) => ({ type: "QueryRemoved", queryId }));
    this.removed.clear();
    await this.deployment.snapshot(caller, async (time, run) => {
      target.ts = time;
      const written = new Set(this.written); // all of it committed: no other transaction is under way
      this.written.clear();
      for (const query of known) {
        if (query.ranAs === target.identity && ![...query.tables].some((table) => written.has(table))) continue;
        const trace = new Trace(query.journal);
        const answer = await run(query.udfPath, query.args, trace);
        Object.assign(query, { ranAs: target.identity, tables: trace.tables, journal: trace.endCursor });
        const told = digest(answer);
        if (told !== query.told) modifications.push(modification(query, answer));
        query.told = told;
      }
    });
    const { querySet, identity } = this.version;
    const moved = querySet !== target.querySet || identity !== target.identity;
    if (this.ended || !(moved || mutated || modifications.length > 0)) return;
    const startVersion = encoded(this.version);
    this.version = target;
    const clientClockSkew = this.clockSkew;
    await this.wire.send({
      type: "Transition",
      startVersion,
      endVersion: encoded(target),
      modifications,
      clientClockSkew,
    });
  }
}

function encoded({ ts, ...version }: Version): object {
  return { ...version, ts: encodedTime(ts) };
}

function modification({ queryId, journal }: Query, answer: Answer): Modification {
  if (answer.status === "success") {
    return { type: "QueryUpdated", queryId, value: answer.value, logLines: [], journal };
  }
  const { errorMessage, errorData } = answer;
  return { type: "QueryFailed", queryId, errorMessage, errorData, logLines: [], journal };
}

function response(answer: Answer): object {
  if (answer.status === "success") return { success: true, result: answer.value, logLines: [] };
  const { errorMessage, errorData } = answer;
  return { success: false, result: errorMessage, errorData, logLines: [] };
}

// The first line of an error's text names the request, and differs each time.
function digest(answer: Answer): string {
  const result: JSONValue[] =
    answer.status === "success"
      ? ["value", answer.value]
      : ["error", answer.errorData ?? null, answer.errorMessage.slice(answer.errorMessage.indexOf("\n"))];
  return createHash("sha256").update(JSON.stringify(result)).digest("base64");
}

function tooMany(what: string): ProtocolError {
  return new ProtocolError("TooMany", `More than ${MAX} ${what} on one websocket`);
}

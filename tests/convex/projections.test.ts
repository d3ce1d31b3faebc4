import { ConvexError } from "convex/values";
import { describe, expect, test } from "vitest";
import { api } from "../../convex/_generated/api";
import { PRODUCT_STATE, updateOf, type ProjectionUpdate } from "../../convex/contract";
import { deployment, errorCode, LIFE, SUBMISSION, TRACE, update } from "./fixtures";

/** A permutation that depends on `seed` alone (Fisher-Yates over a linear congruential generator). */
function shuffled<T>(items: readonly T[], seed: number): T[] {
  const result = [...items];
  let state = seed;
  for (let last = result.length - 1; last > 0; last -= 1) {
    state = (state * 1103515245 + 12345) % 2 ** 31;
    const other = Math.floor((state / 2 ** 31) * (last + 1));
    [result[last], result[other]] = [result[other]!, result[last]!];
  }
  return result;
}

describe("the order of arrival", () => {
  const other = LIFE.map((one) => ({ ...one, job_id: "j2", projection_id: one.projection_id.replace("1:", "2:") }));

  test.each([...Array(20).keys()])("does not change the end, shuffle %i", async (seed) => {
    const { apply, job, rows } = await deployment();
    const events = shuffled([...LIFE, ...other], seed + 1);
    for (const event of events) expect(["applied", "superseded"]).toContain((await apply([event]))[0]);
    for (const [job_id, life] of [["j1", LIFE], ["j2", other]] as const) {
      const stored = await job(job_id);
      expect(updateOf(stored!)).toEqual(life.at(-1));
      expect(stored!.missing).toBeUndefined();
    }
    const timeline = (await rows("jobEvents")) as ProjectionUpdate[];
    expect(timeline).toHaveLength(LIFE.length * 2);
    expect((await apply(events)).every((outcome) => outcome === "duplicate")).toBe(true);
  });

  test("a gap is recorded and closes as the late ones arrive", async () => {
    const { apply, job } = await deployment();
    expect(await apply([LIFE[4]!])).toEqual(["applied"]);
    expect((await job())!.missing).toEqual([{ first: 1, last: 4 }]);
    expect(await apply([LIFE[1]!])).toEqual(["superseded"]);
    expect((await job())!.missing).toEqual([
      { first: 1, last: 1 },
      { first: 3, last: 4 },
    ]);
    expect(await apply([LIFE[0]!, LIFE[3]!, LIFE[2]!])).toEqual(Array(3).fill("superseded"));
    const stored = await job();
    expect(stored!.missing).toBeUndefined();
    expect(updateOf(stored!)).toEqual(LIFE[4]);
  });

  test("a gap of one counts, and so does the first update; the lowest is asked for", async () => {
    const { outcomes, job } = await deployment();
    const asked = (await outcomes([LIFE[1]!, LIFE[3]!])).map(({ missing_from }) => missing_from);
    expect((await job())!.missing).toEqual([
      { first: 1, last: 1 },
      { first: 3, last: 3 },
    ]);
    expect(asked).toEqual([1, 1]);
  });

  test("a late update is on the timeline and leaves the state", async () => {
    const { apply, job, rows } = await deployment();
    await apply([LIFE[0]!, LIFE[3]!]);
    const before = await job();
    expect(await apply([LIFE[1]!])).toEqual(["superseded"]);
    expect({ ...(await job()), missing: undefined }).toEqual({ ...before, missing: undefined });
    const late = (await rows("jobEvents")).find((row) => (row as ProjectionUpdate).seq === 2);
    expect(late).toMatchObject({ outcome: "superseded", execution_state: "launched" });
  });
});

test("a running job shows the newest progress, and its timeline all that was told", async () => {
  const { apply, job, rows } = await deployment();
  const at = (step: number) =>
    update(4 + step, "running", { progress: { step, metrics: { "energy/eV": -step }, reported_at: LIFE[0]!.occurred_at } });
  expect(await apply([...LIFE.slice(0, 4), at(1), at(2)])).toEqual(Array(6).fill("applied"));
  expect((await job())!.progress).toEqual(at(2).progress);
  expect(await apply([at(1)])).toEqual(["duplicate"]);
  expect(await rows("jobEvents")).toHaveLength(6);
});

describe("repetition", () => {
  test("the same content is a duplicate, whatever the order of its fields", async () => {
    const { apply, rows } = await deployment();
    const [, , queued] = LIFE;
    await apply([queued!]);
    const reordered = Object.fromEntries(Object.entries(queued!).reverse()) as ProjectionUpdate;
    expect(await apply([reordered, queued!])).toEqual(["duplicate", "duplicate"]);
    expect(await rows("jobEvents")).toHaveLength(1);
  });

  test("the same seq with other content is a conflict, newest or not", async () => {
    const { apply, job } = await deployment();
    await apply(LIFE.slice(0, 4));
    const before = await job();
    const changed = [update(2, "launched", { message: "other" }), update(4, "running", { attempt: 2 })];
    expect(await apply(changed)).toEqual(["seq_conflict", "seq_conflict"]);
    expect(await job()).toEqual(before);
  });
});

describe("a terminal state", () => {
  test.each(["succeeded", "failed", "cancelled"] as const)("%s absorbs what follows", async (end) => {
    const { apply, job } = await deployment();
    await apply([update(1, "accepted"), update(2, end)]);
    const later = (["accepted", "launched", "queued", "running", "held"] as const).map((s) => update(3, s));
    const otherEnd = update(3, end === "failed" ? "succeeded" : "failed");
    expect(await apply([...later, otherEnd])).toEqual(Array(6).fill("terminal"));
    expect((await job())!.seq).toBe(2);
  });

  test("may be told again with more", async () => {
    const { apply, job } = await deployment();
    await apply([update(1, "failed")]);
    const again = update(2, "failed", { error: { code: "oom", message: "out of memory", retryable: false } });
    expect(await apply([again])).toEqual(["applied"]);
    expect((await job())!.error!.code).toBe("oom");
  });
});

describe("refused by itself, the rest of the batch applied", () => {
  const poison: [string, string, ProjectionUpdate][] = [
    ["a fractional seq", "invalid", update(1.5, "accepted")],
    ["seq 0", "invalid", update(0, "accepted")],
    ["attempt 0", "invalid", update(1, "accepted", { attempt: 0 })],
    ["an id of another seq", "invalid", update(1, "accepted", { projection_id: `${SUBMISSION}:2` })],
    ["an id without submission", "invalid", update(1, "accepted", { projection_id: ":1" })],
    ["a name with a slash", "invalid", update(1, "accepted", { job_id: "a/b" })],
    ["a time with an offset", "invalid", update(1, "accepted", { occurred_at: "2026-03-01T12:00:00+01:00" })],
    ["no such day", "invalid", update(1, "accepted", { timings: { started: "2026-13-01T12:00:00Z" } })],
    ["progress at no time", "invalid", update(1, "running", { progress: { step: 1, reported_at: "today" } })],
    ["more than an event holds", "too_large", update(1, "accepted", { message: "x".repeat(64 * 1024) })],
    ["succeeded shown as running", "inconsistent", update(1, "succeeded", { state: "running" })],
    ["another node and its tenant", "forbidden", update(1, "accepted", { node_id: "n2", tenant_id: "rival" })],
    ["another node", "forbidden", update(1, "accepted", { node_id: "n2" })],
    ["a tenant that the node does not serve", "forbidden", update(1, "accepted", { tenant_id: "rival" })],
  ];

  test.each(poison)("%s", async (_, code, bad) => {
    const { apply, rows } = await deployment();
    const good = update(1, "accepted", { job_id: "good" });
    expect(await apply([good, bad, { ...good, job_id: "good2" }])).toEqual(["applied", code, "applied"]);
    expect((await rows("jobs")).map((row) => (row as ProjectionUpdate).job_id)).toEqual(["good", "good2"]);
  });

  test("every pair of states that the life cycle does not have", async () => {
    const { apply } = await deployment();
    const states = [...new Set(Object.values(PRODUCT_STATE))];
    const executions = Object.keys(PRODUCT_STATE) as (keyof typeof PRODUCT_STATE)[];
    for (const execution of executions) {
      for (const state of states.filter((one) => one !== PRODUCT_STATE[execution])) {
        expect(await apply([update(1, execution, { state })])).toEqual(["inconsistent"]);
      }
    }
  });

  test("a job of another node that serves the tenant too", async () => {
    const { t, apply, job } = await deployment();
    await t.run((ctx) => ctx.db.insert("nodeTenants", { node_id: "n2", tenant_id: "acme" }));
    await apply([LIFE[0]!]);
    const usurped = { ...LIFE[1]!, node_id: "n2" };
    expect(await apply([usurped, { ...LIFE[0]!, node_id: "n2" }], { node_id: "n2" })).toEqual([
      "forbidden",
      "forbidden",
    ]);
    expect((await job())!.node_id).toBe("n1");
  });

  test("a stored job told under another workspace or submission", async () => {
    const { apply } = await deployment();
    await apply([LIFE[0]!]);
    const submission = `${SUBMISSION.slice(0, -1)}2:2`;
    const strangers = [{ ...LIFE[1]!, workspace_id: "w2" }, { ...LIFE[1]!, projection_id: submission }];
    expect(await apply(strangers)).toEqual(["inconsistent", "inconsistent"]);
  });
});

describe("what only a later version knows", () => {
  const paused = { ...update(3, "running"), state: "paused", execution_state: "suspended" } as unknown as ProjectionUpdate;

  test("a state is stored raw and shown as such, among the rest of its batch", async () => {
    const { apply, job, told, user } = await deployment();
    expect(await apply([update(1, "accepted"), update(2, "running"), paused])).toEqual(["applied", "applied", "applied"]);
    const shown = { state: "attention", raw_state: "paused", execution_state: "suspended", seq: 3 };
    expect(await user("bob").query(api.jobs.get, { tenant_id: "acme", job_id: "j1" })).toMatchObject(shown);
    expect(await told("jobs")).toEqual([paused]);
    expect(await apply([paused])).toEqual(["duplicate"]);
    expect(await apply([{ ...paused, state: "running" }])).toEqual(["seq_conflict"]);
    expect(await apply([update(4, "succeeded")])).toEqual(["applied"]);
    expect((await job())!.raw_state).toBeUndefined();
  });

  test.each(["", "Paused", "a b", "x".repeat(40), "__proto__"])("a state is a word: %j is refused", async (state) => {
    const { apply, rows } = await deployment();
    const bad = { ...update(1, "accepted"), state } as unknown as ProjectionUpdate;
    const worse = { ...update(1, "accepted"), execution_state: state } as unknown as ProjectionUpdate;
    expect(await apply([bad, worse, update(1, "accepted")])).toEqual(["invalid", "invalid", "applied"]);
    expect(await rows("jobEvents")).toHaveLength(1);
  });

  test("an update of a job that nobody has heard of is kept", async () => {
    const { apply, job } = await deployment();
    expect(await apply([update(7, "running", { job_id: "unheard-of" })])).toEqual(["applied"]);
    expect(await job("unheard-of")).toMatchObject({ state: "running", missing: [{ first: 1, last: 6 }] });
  });
});

describe("refused whole", () => {
  test.each([0, 101])("%i updates", async (count) => {
    const { apply, rows } = await deployment();
    const updates = Array.from({ length: count }, (_, index) => update(index + 1, "queued"));
    expect(await errorCode(apply(updates))).toBe("invalid");
    expect(await rows("jobEvents")).toEqual([]);
  });

  test.each([
    ["an unknown field", { surprise: 1 }],
    ["a state that is no text", { state: 7 }],
    ["a number for a string", { message: 7 }],
    ["null for a missing field", { error: null }],
    ["another version", { schema_version: "2" }],
  ])("%s", async (_, fields) => {
    const { apply, rows } = await deployment();
    const bad = { ...update(2, "accepted"), ...fields } as unknown as ProjectionUpdate;
    await expect(apply([update(1, "accepted"), bad])).rejects.not.toBeInstanceOf(ConvexError);
    expect(await rows("jobs")).toEqual([]);
  });

  test.each([
    ["a user", { issuer: "https://product.test" }],
    ["no scope", { scope: "" }],
    ["the scope of heartbeats", { scope: "heartbeats:write" }],
    ["a scope that begins alike", { scope: "projections:writer" }],
    ["scopes as a list", { scope: ["projections:write"] }],
    ["no node", { node_id: undefined }],
    ["a list of nodes", { node_id: ["n1"] }],
  ])("%s", async (_, claims) => {
    const { apply, rows } = await deployment();
    expect(await errorCode(apply([LIFE[0]!], claims))).toBe("forbidden");
    expect(await rows("jobEvents")).toEqual([]);
  });

  test("nobody", async () => {
    const { t } = await deployment();
    const call = t.mutation(api.projections.applyProjections, { updates: [LIFE[0]!] });
    expect(await errorCode(call)).toBe("unauthenticated");
  });

  test("everybody, where no service issuer is configured", async () => {
    const { apply } = await deployment();
    delete process.env.BYOC_SERVICE_ISSUER;
    expect(await errorCode(apply([LIFE[0]!]))).toBe("forbidden");
  });
});

describe("a full batch", () => {
  test("of 100 jobs keeps within the limits of a transaction", async () => {
    const { apply, rows } = await deployment();
    const updates = Array.from({ length: 100 }, (_, index) =>
      update(1, "accepted", { job_id: `j${index}`, trace_id: TRACE }),
    );
    expect(await apply(updates)).toEqual(Array(100).fill("applied"));
    expect(await rows("jobs")).toHaveLength(100);
  });

  test("of the largest updates too", async () => {
    const { apply } = await deployment();
    const updates = Array.from({ length: 100 }, (_, index) =>
      update(1, "accepted", { job_id: `j${index}`, message: "x".repeat(64 * 1024 - 500) }),
    );
    expect(await apply(updates)).toEqual(Array(100).fill("applied"));
  });

  test("may tell the whole life of one job", async () => {
    const { apply, job } = await deployment();
    const { occurred_at } = LIFE[0]!;
    const life = Array.from({ length: 99 }, (_, index) => update(index + 1, "queued", { occurred_at }));
    const end = update(100, "succeeded", { occurred_at });
    expect(await apply([...life, end])).toEqual(Array(100).fill("applied"));
    expect((await job())!.state).toBe("succeeded");
  });
});

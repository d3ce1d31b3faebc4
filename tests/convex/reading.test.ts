import { describe, expect, test } from "vitest";
import { api, internal } from "../../convex/_generated/api";
import { deployment, errorCode, LIFE, update, type Deployment } from "./fixtures";

const FIRST_PAGE = { numItems: 5, cursor: null };

async function allPages<Item>(
  read: (cursor: string | null) => Promise<{ page: Item[]; isDone: boolean; continueCursor: string }>,
): Promise<Item[]> {
  const items: Item[] = [];
  for (let cursor: string | null = null, done = false; !done; ) {
    const { page, isDone, continueCursor } = await read(cursor);
    items.push(...page);
    [cursor, done] = [continueCursor, isDone];
  }
  return items;
}

async function withJobs(count: number): Promise<Deployment> {
  const product = await deployment();
  for (let index = 0; index < count; index += 1) {
    const state = index % 2 === 0 ? "running" : "failed";
    await product.apply([update(1, state, { job_id: `j${index}` })]);
  }
  const theirs = update(1, "running", { tenant_id: "rival", node_id: "n2", job_id: "theirs" });
  expect(await product.apply([theirs], { node_id: "n2" })).toEqual(["applied"]);
  return product;
}

describe("jobs", () => {
  test("get answers the newest update without the store's own fields", async () => {
    const { apply, user } = await deployment();
    await apply([LIFE[2]!]);
    const job = await user("alice").query(api.jobs.get, { tenant_id: "acme", job_id: "j1" });
    const { applied_at, missing, node_offline_since: _, ...rest } = job;
    expect(rest).toEqual(LIFE[2]);
    expect(missing).toEqual([{ first: 1, last: 2 }]);
    expect(applied_at).toMatch(/^\d{4}-\d\d-\d\dT.*Z$/);
  });

  test("list pages through every job of the tenant once, the newest first", async () => {
    const { user } = await withJobs(12);
    const jobs = await allPages((cursor) =>
      user("alice").query(api.jobs.list, { tenant_id: "acme", paginationOpts: { numItems: 5, cursor } }),
    );
    expect(jobs.map(({ job_id }) => job_id)).toEqual(Array.from({ length: 12 }, (_, index) => `j${11 - index}`));
  });

  test("list keeps to one state", async () => {
    const { user } = await withJobs(7);
    const paginationOpts = FIRST_PAGE;
    const { page } = await user("alice").query(api.jobs.list, { tenant_id: "acme", state: "failed", paginationOpts });
    expect(page.map(({ job_id }) => job_id)).toEqual(["j5", "j3", "j1"]);
  });

  test("list joins all filters, and pages stay whole while jobs come and change", async () => {
    const { t, user, apply } = await deployment();
    await t.mutation(internal.tenancy.seed, { nodes: [{ node_id: "n2", tenant_ids: ["acme"] }] });
    const of = (index: number) => ({
      job_id: `relax-${index}`,
      node_id: index % 3 === 0 ? "n2" : "n1",
      state: index % 2 === 0 ? ("running" as const) : ("failed" as const),
      workspace_id: index < 6 ? "alloys" : "glass",
    });
    const born: number[] = [];
    for (let index = 0; index < 12; index += 1) {
      const { state, ...fields } = of(index);
      born.push(Date.now());
      await apply([update(1, state, fields)], { node_id: fields.node_id });
      await new Promise((resolve) => setTimeout(resolve, 2)); // times are in ms
    }
    const at = (index: number) => new Date(born[index]!).toISOString();
    const names = async (wanted: object, numItems = 2) => {
      const jobs = await allPages((cursor) =>
        user("alice").query(api.jobs.list, { tenant_id: "acme", ...wanted, paginationOpts: { numItems, cursor } }),
      );
      return jobs.map(({ job_id }) => Number(job_id.split("-")[1]));
    };
    const all = [...Array(12).keys()].reverse();
    const fits = (index: number, { state, node_id, text }: Record<string, string>) =>
      (state === undefined || of(index).state === state) &&
      (node_id === undefined || of(index).node_id === node_id) &&
      (text === undefined || of(index).workspace_id === text);
    for (const state of [undefined, "running", "failed"]) {
      for (const node_id of [undefined, "n1", "n2"]) {
        for (const text of [undefined, "glass"]) {
          for (const [since, until] of [[], [3], [undefined, 9], [3, 9]] as (number | undefined)[][]) {
            const wanted = Object.fromEntries(
              Object.entries({ state, node_id, text }).filter(([, value]) => value !== undefined),
            ) as Record<string, string>;
            const time = {
              ...(since === undefined ? {} : { since: at(since) }),
              ...(until === undefined ? {} : { until: at(until) }),
            };
            const expected = all.filter(
              (index) => fits(index, wanted) && index >= (since ?? 0) && index < (until ?? Infinity),
            );
            const found = await names({ ...wanted, ...time });
            if (text === undefined) expect(found).toEqual(expected);
            else expect(new Set(found)).toEqual(new Set(expected)); // the best match first
            expect(found).toHaveLength(expected.length);
          }
        }
      }
    }
    const first = await user("alice").query(api.jobs.list, { tenant_id: "acme", paginationOpts: FIRST_PAGE });
    await apply([update(1, "running", { job_id: "newer" }), update(2, "succeeded", of(11))]);
    const paginationOpts = { numItems: 100, cursor: first.continueCursor };
    const rest = await user("alice").query(api.jobs.list, { tenant_id: "acme", paginationOpts });
    expect(rest.page.map(({ job_id }) => job_id)).toEqual(all.slice(5).map((index) => `relax-${index}`));
  });

  test.each([
    ["a time that is none", { since: "yesterday" }],
    ["a time without a zone", { until: "2026-03-01T00:00:00" }],
    ["a text without end", { text: "x".repeat(300) }],
    ["a page of nothing", { paginationOpts: { numItems: 0, cursor: null } }],
    ["half a job", { paginationOpts: { numItems: 1.5, cursor: null } }],
  ])("list refuses %s by name", async (_, fields) => {
    const { user } = await deployment();
    const asked = user("alice").query(api.jobs.list, { tenant_id: "acme", paginationOpts: FIRST_PAGE, ...fields });
    expect(await errorCode(asked)).toBe("invalid");
  });

  test("attempts tell how each ended and what the next does otherwise", async () => {
    const { apply, user } = await deployment();
    const recovery = { attempt: 1, code: "oom", message: "out of memory", action: "memory_mib 512 → 1024" };
    const started = "2026-03-01T12:00:01Z";
    const again = { attempt: 2, recovery };
    await apply([
      update(1, "queued", { scheduler: { job_id: "17" } }),
      update(2, "running", { scheduler: { job_id: "17", nodes: ["c1"] }, timings: { started } }),
      update(3, "queued", { ...again, scheduler: { job_id: "18" } }),
      update(4, "running", { ...again, scheduler: { job_id: "18", nodes: ["c2"] } }),
      update(5, "succeeded", { ...again, scheduler: { job_id: "18", nodes: ["c2"] }, timings: { ended: started } }),
    ]);
    const attempts = await user("bob").query(api.jobs.attempts, { tenant_id: "acme", job_id: "j1" });
    expect(attempts).toEqual([
      {
        ...{ attempt: 1, state: "failed", started, ended: update(3, "queued").occurred_at },
        scheduler: { job_id: "17", nodes: ["c1"] },
        error: { code: "oom", message: "out of memory" },
        action: "memory_mib 512 → 1024",
      },
      { attempt: 2, state: "succeeded", ended: started, scheduler: { job_id: "18", nodes: ["c2"] } },
    ]);
  });

  test("an attempt begins when Slurm has it, not when the node has the job", async () => {
    const { apply, user } = await deployment();
    const attempts = () => user("bob").query(api.jobs.attempts, { tenant_id: "acme", job_id: "j1" });
    await apply([update(1, "accepted")]);
    await apply([update(2, "launched")]);
    expect(await attempts()).toEqual([]);
    await apply([update(3, "queued", { scheduler: { job_id: "17" } })]);
    expect(await attempts()).toEqual([{ attempt: 1, state: "queued", scheduler: { job_id: "17" } }]);
  });

  test("what ends before Slurm had it tells its cause as the attempt's", async () => {
    const { apply, user } = await deployment();
    const error = { code: "image_missing", message: "The image is missing", retryable: false };
    await apply([update(1, "accepted"), update(2, "failed", { error })]);
    const attempts = await user("bob").query(api.jobs.attempts, { tenant_id: "acme", job_id: "j1" });
    expect(attempts).toEqual([{ attempt: 1, state: "failed", error }]);
  });

  test("a page holds 100 at most", async () => {
    const { apply, user } = await deployment();
    const life = Array.from({ length: 100 }, (_, index) =>
      update(index + 1, "queued", { occurred_at: LIFE[0]!.occurred_at }),
    );
    await apply(life);
    await apply([update(101, "queued", { occurred_at: LIFE[0]!.occurred_at })]);
    const paginationOpts = { numItems: 1000, cursor: null };
    const told = await user("alice").query(api.jobs.timeline, { tenant_id: "acme", job_id: "j1", paginationOpts });
    expect(told.page).toHaveLength(100);
    expect(told.isDone).toBe(false);
  });

  test("timeline tells every update by seq, the late ones too", async () => {
    const { apply, user } = await deployment();
    for (const index of [0, 3, 1, 4, 2]) await apply([LIFE[index]!]);
    const events = await allPages((cursor) =>
      user("alice").query(api.jobs.timeline, {
        tenant_id: "acme",
        job_id: "j1",
        paginationOpts: { numItems: 2, cursor },
      }),
    );
    expect(events.map(({ seq, outcome }) => [seq, outcome])).toEqual([
      [1, "applied"],
      [2, "superseded"],
      [3, "superseded"],
      [4, "applied"],
      [5, "applied"],
    ]);
  });
});

describe("nodes", () => {
  const report = { versions: { aiida: "2.8" }, queues: ["main"], jobs_active: 2 };
  const beat = (received_at: string, fields = {}) => ({ node_id: "n1", report, received_at, ...fields });

  test("list shows the tenant's nodes with their last heartbeat", async () => {
    const { t, user, service } = await deployment();
    const declared = ["n3", "n0"].map((node_id) => ({ node_id, tenant_ids: ["acme"] }));
    await t.mutation(internal.tenancy.seed, { nodes: declared });
    const sent = beat("2026-03-01T12:00:00.5Z");
    expect(await service().mutation(api.nodes.recordHeartbeat, sent)).toEqual({ outcome: "applied" });
    const since = expect.any(String) as string;
    const unheard = { owned: false, status: { state: "offline", since, reasons: ["never_heard"] } };
    expect(await user("alice").query(api.nodes.list, { tenant_id: "acme" })).toEqual([
      { node_id: "n0", ...unheard },
      {
        node_id: "n1",
        owned: true,
        status: { state: "online", since, reasons: [] },
        heartbeat: { received_at: sent.received_at, report },
      },
      { node_id: "n3", ...unheard },
    ]);
  });

  test("an older heartbeat does not replace a later one", async () => {
    const { user, service } = await deployment();
    const later = beat("2026-03-01T12:00:00.5Z");
    await service().mutation(api.nodes.recordHeartbeat, later);
    const older = beat("2026-03-01T12:00:00Z", { report: {} });
    expect(await service().mutation(api.nodes.recordHeartbeat, older)).toEqual({ outcome: "superseded" });
    const [node] = await user("alice").query(api.nodes.list, { tenant_id: "acme" });
    expect(node!.heartbeat!.received_at).toBe(later.received_at);
  });

  test.each([
    ["another node's", "forbidden", beat("2026-03-01T12:00:00Z", { node_id: "n2" }), {}],
    ["one of no registered node", "forbidden", beat("2026-03-01T12:00:00Z", { node_id: "n9" }), { node_id: "n9" }],
    ["one by the scope of projections", "forbidden", beat("2026-03-01T12:00:00Z"), { scope: "projections:write" }],
    ["one of a user", "forbidden", beat("2026-03-01T12:00:00Z"), { issuer: "https://product.test" }],
    ["one at no time", "invalid", beat("yesterday"), {}],
    ["one too long", "invalid", beat("2026-03-01T12:00:00Z", { report: { x: "x".repeat(64 * 1024) } }), {}],
  ])("a heartbeat is refused: %s", async (_, code, args, claims) => {
    const { t, service } = await deployment();
    expect(await errorCode(service(claims).mutation(api.nodes.recordHeartbeat, args))).toBe(code);
    const nodes = await t.run((ctx) => ctx.db.query("nodes").collect());
    expect(nodes.filter((node) => node.heartbeat)).toEqual([]);
  });
});

describe("seed", () => {
  test("refuses a tenant that nobody declared, and keeps nothing", async () => {
    const { t } = await deployment();
    const nodes = [{ node_id: "n7", tenant_ids: ["acme", "unknown"] }];
    expect(await errorCode(t.mutation(internal.tenancy.seed, { nodes }))).toBe("invalid");
    expect(await t.run((ctx) => ctx.db.query("nodes").collect())).toHaveLength(2);
  });

  test("refuses an owner that the node does not serve", async () => {
    const { t, rows } = await deployment();
    const nodes = [{ node_id: "n7", tenant_ids: ["rival"], owner: "acme" }];
    expect(await errorCode(t.mutation(internal.tenancy.seed, { nodes }))).toBe("invalid");
    expect(await rows("nodeRegistry")).toHaveLength(2);
  });

  test("who is not served any more owns the node no longer", async () => {
    const { t, user } = await deployment();
    await t.mutation(internal.tenancy.seed, { nodes: [{ node_id: "n1", tenant_ids: ["rival"] }] });
    const [shared] = await user("mallory").query(api.nodes.list, { tenant_id: "rival" });
    expect(shared).toMatchObject({ node_id: "n1", owned: false });
    const drained = user("alice").mutation(api.nodes.drain, { tenant_id: "acme", node_id: "n1" });
    expect(await errorCode(drained)).toBe("not_found");
  });

  test("takes a node from a tenant: its updates are refused from then on", async () => {
    const { t, apply } = await deployment();
    await apply([LIFE[0]!]);
    await t.mutation(internal.tenancy.seed, { nodes: [{ node_id: "n1", tenant_ids: [] }] });
    expect(await apply([LIFE[1]!])).toEqual(["forbidden"]);
  });
});

// How a node is shown, and since when: heard, in trouble, silent, draining, revoked, enrolling.
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { api } from "../../convex/_generated/api";
import { deployment, hashOf, newKey } from "./fixtures";

const START = Date.parse("2026-03-01T12:00:00.000Z");
const at = (seconds: number): string => new Date(START + seconds * 1000).toISOString();

beforeEach(() => {
  vi.useFakeTimers({ now: START });
});
afterEach(() => {
  vi.useRealTimers();
});

async function withNode() {
  const all = await deployment();
  const alice = all.user("alice");
  const node = { tenant_id: "acme", node_id: "n1" };
  const status = async (node_id = "n1") =>
    (await alice.query(api.nodes.get, { tenant_id: "acme", node_id })).status;
  return {
    ...all,
    alice,
    node,
    status,
    beat: (report: Record<string, unknown> = {}, received_at = new Date().toISOString()) =>
      all.service().mutation(api.nodes.recordHeartbeat, { node_id: "n1", report, received_at }),
    /** Lets seconds pass, and what is scheduled happen. */
    pass: async (seconds: number) => {
      for (let second = 0; second < seconds; second += 1) {
        await vi.advanceTimersByTimeAsync(1000);
        await all.t.finishInProgressScheduledFunctions();
      }
    },
    /** How many checks stand scheduled. */
    scheduled: () =>
      all.t.run(async (ctx) => {
        const jobs = await ctx.db.system.query("_scheduled_functions").collect();
        return jobs.filter(({ state, name }) => state.kind === "pending" && name.includes("liveness")).length;
      }),
  };
}

test("heard: online, since the first time", async () => {
  const { beat, pass, status } = await withNode();
  expect(await status()).toEqual({ state: "offline", since: at(0), reasons: ["never_heard"] });
  await pass(2);
  await beat();
  await pass(15);
  await beat();
  expect(await status()).toEqual({ state: "online", since: at(2), reasons: [] });
});

test("silent for a minute: offline since then; heard again: online anew", async () => {
  const { beat, pass, status } = await withNode();
  await beat();
  await pass(30);
  await beat();
  await pass(59);
  expect((await status()).state).toBe("online");
  await pass(2);
  expect(await status()).toEqual({ state: "offline", since: at(90), reasons: ["no_heartbeat"] });
  await pass(10);
  await beat();
  expect(await status()).toEqual({ state: "online", since: at(101), reasons: [] });
  await pass(61);
  expect(await status()).toEqual({ state: "offline", since: at(161), reasons: ["no_heartbeat"] });
});

test("one check at most stands scheduled, and none for a silent node", async () => {
  const { beat, pass, scheduled } = await withNode();
  expect(await scheduled()).toBe(0);
  for (let beats = 0; beats < 12; beats += 1) {
    await beat();
    expect(await scheduled()).toBe(1);
    await pass(15);
  }
  await pass(60);
  expect(await scheduled()).toBe(0);
});

test("a check that got lost is made up for by the next heartbeats", async () => {
  const { beat, pass, t, status } = await withNode();
  await beat();
  await t.run(async (ctx) => {
    for (const { _id } of await ctx.db.system.query("_scheduled_functions").collect()) await ctx.scheduler.cancel(_id);
  });
  for (let beats = 0; beats < 9; beats += 1) {
    await pass(15);
    await beat();
  }
  await pass(61);
  expect((await status()).state).toBe("offline");
});

test("a heartbeat from before changes nothing", async () => {
  const { beat, status } = await withNode();
  await beat({}, at(5));
  expect(await beat({ trouble: ["slurm"] }, at(4))).toEqual({ outcome: "superseded" });
  expect((await status()).state).toBe("online");
});

test.each([
  [{ trouble: ["slurm", "daemon"] }, ["daemon", "slurm"]],
  [{ trouble: [] }, []],
  [{ clock_skew_seconds: 60.5 }, ["clock_skew"]],
  [{ clock_skew_seconds: -61 }, ["clock_skew"]],
  [{ clock_skew_seconds: 60 }, []],
  [{ oldest_undelivered_seconds: 301 }, ["events_undelivered"]],
  [{ oldest_undelivered_seconds: 300 }, []],
  [{ jobs_quarantined: 1 }, ["jobs_quarantined"]],
  [{ jobs_quarantined: 0, repairs: { held: 3 } }, []],
  [{ partitions: [{ up: false }, { up: false }] }, ["partitions_down"]],
  [{ partitions: [{ up: false }, { up: true }] }, []],
  [{ partitions: [] }, []],
  [{ epoch: "b".repeat(16) }, ["epoch_not_accepted"]],
  [{ epoch: "a".repeat(16) }, []],
  [{ clock_skew_seconds: "9999", trouble: "all", jobs_quarantined: null, partitions: [null] }, []],
  [{ trouble: [7, "no name", "<b>"] }, []],
] as [Record<string, unknown>, string[]][])("the report %j gives the reasons %j", async (report, reasons) => {
  const { beat, status, accept } = await withNode();
  await accept("a".repeat(16));
  await beat(report);
  expect(await status()).toEqual({ state: reasons.length > 0 ? "degraded" : "online", since: at(0), reasons });
});

test("the reasons may change without the state", async () => {
  const { beat, pass, status } = await withNode();
  await beat({ trouble: ["slurm"] });
  await pass(15);
  await beat({ trouble: ["database"] });
  expect(await status()).toEqual({ state: "degraded", since: at(0), reasons: ["database"] });
  await beat();
  expect(await status()).toEqual({ state: "online", since: at(15), reasons: [] });
});

test("draining by the product's wish and by the node's word", async () => {
  const { beat, pass, status, alice, node } = await withNode();
  await beat();
  await alice.mutation(api.nodes.drain, node);
  expect(await status()).toEqual({ state: "draining", since: at(0), reasons: ["drain_requested"] });
  await pass(10);
  await beat({ draining: true, trouble: ["slurm"] });
  const both = ["drain_requested", "drain_reported", "slurm"];
  expect(await status()).toEqual({ state: "draining", since: at(0), reasons: both });
  await alice.mutation(api.nodes.resume, node);
  expect((await status()).reasons).toEqual(["drain_reported", "slurm"]);
  await beat();
  expect(await status()).toEqual({ state: "online", since: at(10), reasons: [] });
  await alice.mutation(api.nodes.drain, node);
  await pass(61);
  expect(await status()).toMatchObject({ state: "offline", reasons: ["no_heartbeat", "drain_requested"] });
});

test("enrolling until the token is redeemed; revoked whatever is heard", async () => {
  const { alice, status, service, pass } = await withNode();
  const made = { tenant_id: "acme", node_id: "made" };
  const { enrolment_token } = await alice.action(api.nodes.create, made);
  const adapter = service({ node_id: "made" });
  expect(await status("made")).toEqual({ state: "enrolling", since: at(0), reasons: [] });
  await pass(20);
  const secret_hash = await hashOf(enrolment_token.split(".")[2]!);
  await adapter.mutation(api.registry.redeem, { node_id: "made", secret_hash, key: await newKey() });
  expect(await status("made")).toEqual({ state: "offline", since: at(20), reasons: ["never_heard"] });
  const beat = { node_id: "made", report: {}, received_at: at(20) };
  await adapter.mutation(api.nodes.recordHeartbeat, beat);
  expect((await status("made")).state).toBe("online");
  await alice.mutation(api.nodes.revoke, made);
  await adapter.mutation(api.nodes.recordHeartbeat, { ...beat, received_at: at(21) });
  await pass(120);
  expect(await status("made")).toEqual({ state: "revoked", since: at(20), reasons: [] });
});

test("a heartbeat that changes nothing writes the node's own document alone", async () => {
  const { beat, rows } = await withNode();
  await beat({ trouble: ["slurm"] });
  const others = async () =>
    JSON.stringify([await rows("nodeStatuses"), await rows("nodeRegistry"), await rows("auditLog")]);
  const before = await others();
  await beat({ trouble: ["slurm"], jobs_active: 7 });
  expect(await others()).toBe(before);
});

// A node's database was restored or copied: what it tells from then on counts only once an operator says so.
import { ConvexError } from "convex/values";
import { describe, expect, test } from "vitest";
import { api, internal } from "../../convex/_generated/api";
import type { Doc } from "../../convex/_generated/dataModel";
import { updateOf } from "../../convex/contract";
import { deployment, errorCode, LIFE, update, type Deployment } from "./fixtures";

const [FIRST, SECOND, THIRD] = ["aaaaaaaaaaaaaaaa", "5555555555555555", "cccccccccccccccc"] as const;
const LIFE_IN = (epoch: string) => LIFE.map((one) => ({ ...one, epoch }));

async function order({ rows }: Deployment): Promise<string[]> {
  const epochs = (await rows("nodeEpochs")) as Doc<"nodeEpochs">[];
  return epochs.sort((one, other) => one.ordinal - other.ordinal).map(({ epoch }) => epoch);
}

async function isKnown({ user }: Deployment): Promise<string | undefined> {
  const [node] = await user("alice").query(api.nodes.list, { tenant_id: "acme" });
  return node!.epoch;
}

describe("an epoch that the product does not know", () => {
  test("the first is accepted on first use, and written once", async () => {
    const product = await deployment();
    expect(await product.apply(LIFE_IN(FIRST))).toEqual(Array(5).fill("applied"));
    const [row] = await product.rows("nodeEpochs");
    expect(row).toMatchObject({ node_id: "n1", epoch: FIRST, ordinal: 1 });
    await product.apply([update(6, "succeeded", { epoch: FIRST })]);
    expect(await product.rows("nodeEpochs")).toEqual([row]);
    expect(await isKnown(product)).toBe(FIRST);
  });

  test("test_I16 a further one fails the whole call, and nothing is applied", async () => {
    const product = await deployment();
    const [accepted, launched, queued] = LIFE_IN(FIRST);
    await product.apply([accepted!]);
    const before = [await product.rows("jobs"), await product.rows("jobEvents"), await product.rows("auditLog")];
    const other = update(1, "accepted", { job_id: "j2", epoch: FIRST });
    expect(await errorCode(product.apply([launched!, other, { ...queued!, epoch: SECOND }]))).toBe("epoch_mismatch");
    expect([await product.rows("jobs"), await product.rows("jobEvents"), await product.rows("auditLog")]).toEqual(before);
    expect(await order(product)).toEqual([FIRST]);
    expect(await product.apply([launched!, other])).toEqual(["applied", "applied"]);
  });

  test("the refusal names both in short, and nothing else", async () => {
    const product = await deployment();
    await product.apply([LIFE_IN(FIRST)[0]!]);
    const error = await product.apply([LIFE_IN(SECOND)[0]!]).catch((thrown: unknown) => thrown);
    const { message } = (error as ConvexError<{ message: string }>).data;
    expect(message).toContain(FIRST.slice(0, 8));
    expect(message).toContain(SECOND.slice(0, 8));
    for (const secret of [FIRST, SECOND, "acme", "rival", "j1"]) expect(message).not.toContain(secret);
  });

  test("an absent one is always known, and older than all that have a name", async () => {
    const product = await deployment();
    await product.apply([LIFE[0]!, LIFE[1]!]);
    expect(await product.apply([{ ...LIFE[2]!, epoch: FIRST }])).toEqual(["applied"]);
    expect(await product.apply([LIFE[3]!])).toEqual(["superseded"]);
    expect(updateOf((await product.job())!)).toEqual({ ...LIFE[2]!, epoch: FIRST });
    expect(await order(product)).toEqual([FIRST]);
  });

  test.each([
    ["of another node", { node_id: "n2", tenant_id: "rival" }],
    ["of a tenant that the node does not serve", { tenant_id: "rival" }],
    ["that is none", { attempt: 0 }],
  ])("in an update %s it is not looked at", async (_, fields) => {
    const product = await deployment();
    const bad = update(1, "accepted", { epoch: SECOND, ...fields });
    const [outcome] = await product.apply([bad]);
    expect(["forbidden", "invalid"]).toContain(outcome);
    expect(await order(product)).toEqual([]);
    expect(await product.apply([LIFE_IN(FIRST)[0]!, bad])).toEqual(["applied", outcome]);
  });

  test("is each node's own affair", async () => {
    const product = await deployment();
    await product.apply([LIFE_IN(FIRST)[0]!]);
    const theirs = update(1, "accepted", { node_id: "n2", tenant_id: "rival", epoch: SECOND });
    expect(await product.apply([theirs], { node_id: "n2" })).toEqual(["applied"]);
    expect(await isKnown(product)).toBe(FIRST);
  });
});

describe("once an operator accepts it", () => {
  test("it is newer than what was told before, whatever the seq, also than an end", async () => {
    const product = await deployment();
    await product.apply(LIFE_IN(FIRST));
    expect(await product.accept(SECOND)).toEqual({ changed: true });
    const running = update(3, "running", { epoch: SECOND });
    expect(await product.apply([running])).toEqual(["applied"]);
    expect(updateOf((await product.job())!)).toEqual(running);
    expect(await product.apply([update(6, "succeeded", { epoch: FIRST })])).toEqual(["superseded"]);
    expect(await product.apply([update(4, "failed", { epoch: SECOND })])).toEqual(["applied"]);
    expect(await product.apply([update(5, "running", { epoch: SECOND })])).toEqual(["terminal"]);
    expect(await isKnown(product)).toBe(SECOND);
  });

  test("both facts of one seq stand on the timeline", async () => {
    const product = await deployment();
    await product.apply(LIFE_IN(FIRST));
    await product.accept(SECOND);
    const [other] = [update(5, "failed", { epoch: SECOND })];
    expect(await product.apply([other!, other!, LIFE_IN(FIRST)[4]!])).toEqual(["applied", "duplicate", "duplicate"]);
    const { page } = await product.user("alice").query(api.jobs.timeline, {
      tenant_id: "acme",
      job_id: "j1",
      paginationOpts: { numItems: 10, cursor: null },
    });
    const fifths = page.filter(({ seq }) => seq === 5).map(({ epoch, state }) => [epoch, state]);
    expect(fifths).toEqual([
      [SECOND, "failed"],
      [FIRST, "succeeded"],
    ]);
  });

  test("the job is asked for from its beginning, as only the node knows where its histories part", async () => {
    const product = await deployment();
    const [one, two, three] = LIFE_IN(FIRST);
    await product.apply([one!, two!, three!]);
    await product.accept(SECOND);
    const asked = async (...updates: Parameters<Deployment["outcomes"]>[0]) =>
      (await product.outcomes(updates)).map(({ outcome, missing_from }) => [outcome, missing_from]);
    expect(await asked(update(5, "running", { epoch: SECOND }))).toEqual([["applied", 1]]);
    expect(await asked(one!, two!, three!)).toEqual([
      ["duplicate", 2],
      ["duplicate", 3],
      ["duplicate", 4],
    ]);
    expect(await asked(update(4, "queued", { epoch: SECOND }))).toEqual([["superseded", undefined]]);
    expect(await product.job()).not.toHaveProperty("missing");
  });

  test("a wrong decision is taken back, and a replay puts the jobs right", async () => {
    const product = await deployment();
    await product.apply(LIFE_IN(FIRST).slice(0, 4));
    await product.accept(SECOND);
    await product.apply([update(4, "held", { epoch: SECOND })]);
    expect(await product.accept(FIRST)).toEqual({ changed: true });
    expect(await order(product)).toEqual([SECOND, FIRST]);
    const replayed = await product.apply(LIFE_IN(FIRST).slice(0, 4));
    expect(replayed).toEqual(Array(4).fill("applied"));
    expect(updateOf((await product.job())!)).toEqual(LIFE_IN(FIRST)[3]);
    expect(await product.rows("jobEvents")).toHaveLength(5);
  });

  test("a product that has forgotten puts a former one in its place", async () => {
    const product = await deployment();
    await product.apply([update(4, "running", { epoch: THIRD })]);
    await product.accept(FIRST, THIRD);
    await product.accept(SECOND, THIRD);
    expect(await order(product)).toEqual([FIRST, SECOND, THIRD]);
    const former = [update(1, "accepted", { epoch: FIRST }), update(2, "launched", { epoch: SECOND })];
    expect(await product.apply(former)).toEqual(["superseded", "superseded"]);
  });

  test("the log says so to each tenant of the node, once", async () => {
    const product = await deployment();
    await product.t.mutation(internal.tenancy.seed, {
      nodes: [{ node_id: "n1", tenant_ids: ["acme", "rival"] }],
    });
    await product.accept(FIRST);
    expect(await product.accept(FIRST)).toEqual({ changed: false });
    const log = (await product.rows("auditLog")) as Doc<"auditLog">[];
    const said = log.filter(({ action }) => action === "node.epoch_accepted");
    expect(said.map(({ tenant_id, actor, subject }) => [tenant_id, actor, subject])).toEqual([
      ["acme", "admin", `n1:${FIRST}`],
      ["rival", "admin", `n1:${FIRST}`],
    ]);
  });

  test.each([
    ["of a node that is not registered", { node_id: "n9", epoch: FIRST }],
    ["in another form", { node_id: "n1", epoch: FIRST.toUpperCase() }],
    ["by its short name", { node_id: "n1", epoch: FIRST.slice(0, 8) }],
    ["before one that is not accepted", { node_id: "n1", epoch: FIRST, before: SECOND }],
    ["before itself", { node_id: "n1", epoch: FIRST, before: FIRST }],
  ])("none is accepted %s", async (_, args) => {
    const product = await deployment();
    expect(await errorCode(product.t.mutation(internal.nodes.acceptEpoch, args))).toBe("invalid");
    expect(await order(product)).toEqual([]);
  });
});

// A one-time token is good once, for a quarter of an hour, for its node; keys and revocation follow from it.
import { afterEach, expect, test, vi } from "vitest";
import { api, internal } from "../../convex/_generated/api";
import { ADAPTER, deployment, errorCode, hashOf, newKey, SIGNING_KEY, type Deployment } from "./fixtures";

const ALICE = "https://product.test|alice";
const REFUSED = { outcome: "refused" };
const ENROLLED = { outcome: "enrolled", tenants: ["acme"] };
type Key = Awaited<ReturnType<typeof newKey>>;

afterEach(() => {
  vi.useRealTimers();
});

/** A deployment in which alice of acme has just made the node `made`. */
async function withNode() {
  const all = await deployment();
  const alice = all.user("alice");
  const { enrolment_token } = await alice.action(api.nodes.create, { tenant_id: "acme", node_id: "made" });
  const adapter = all.service({ node_id: "made" });
  return {
    ...all,
    alice,
    adapter,
    token: enrolment_token,
    redeem: async (token: string, key: Key) =>
      adapter.mutation(api.registry.redeem, { node_id: "made", secret_hash: await hashOf(secretOf(token)), key }),
    renew: async () =>
      (await alice.action(api.nodes.renewToken, { tenant_id: "acme", node_id: "made" })).enrolment_token,
    registered: async () => (await adapter.query(api.registry.node, { node_id: "made" }))!,
    keys: async () => (await adapter.query(api.registry.node, { node_id: "made" }))!.keys.map((key) => key.key_id),
    add: async (key: Key, by: Key) =>
      (await adapter.mutation(api.registry.addKey, { node_id: "made", key, by: by.key_id })).outcome,
    retire: async (key: Key, by: Key) =>
      (await adapter.mutation(api.registry.retireKey, { node_id: "made", key_id: key.key_id, by: by.key_id })).outcome,
  };
}

const secretOf = (token: string): string => token.split(".")[2]!;

function later(minutes: number): void {
  const then = Date.now() + minutes * 60_000;
  vi.useFakeTimers({ toFake: ["Date"], now: then });
}

/** Everything that is stored, as one text. */
async function stored({ rows }: Deployment): Promise<string> {
  const tables = ["nodes", "nodeRegistry", "nodeStatuses", "nodeTenants", "auditLog", "serviceTokens"] as const;
  return JSON.stringify(await Promise.all(tables.map((table) => rows(table))));
}

test("the token names the node and the product's key, and only its hash is stored", async () => {
  const all = await withNode();
  expect(all.token).toMatch(/^byoc1\.made\.[A-Za-z0-9_-]{43}\.[A-Za-z0-9_-]{43}$/);
  expect(all.token.split(".")[3]).toBe(SIGNING_KEY.kid);
  const everything = await stored(all);
  expect(everything).not.toContain(secretOf(all.token));
  expect(everything).toContain(await hashOf(secretOf(all.token)));
  expect(secretOf(await all.renew())).not.toBe(secretOf(all.token));
});

test("a new node is known, serves its owner, and has no key", async () => {
  const { registered } = await withNode();
  expect(await registered()).toMatchObject({ node_id: "made", tenants: ["acme"], keys: [], state: "active" });
});

test("a token is good once; who won may ask again, as its answer may have got lost", async () => {
  const { redeem, token, keys, registered } = await withNode();
  const [winner, other] = [await newKey(), await newKey()];
  expect(await redeem(token, winner)).toEqual(ENROLLED);
  const { version } = await registered();
  expect(await redeem(token, other)).toEqual(REFUSED);
  expect(await redeem(token, winner)).toEqual(ENROLLED);
  expect(await keys()).toEqual([winner.key_id]);
  expect((await registered()).version).toBe(version);
});

test.each([
  [14, ENROLLED],
  [15, REFUSED],
])("after %i minutes", async (minutes, answer) => {
  const { redeem, token, keys } = await withNode();
  later(minutes);
  expect(await redeem(token, await newKey())).toEqual(answer);
  expect(await keys()).toHaveLength(answer === ENROLLED ? 1 : 0);
});

test("also the winner is refused once the token's life is over", async () => {
  const { redeem, token, keys } = await withNode();
  const key = await newKey();
  await redeem(token, key);
  later(15);
  expect(await redeem(token, key)).toEqual(REFUSED);
  expect(await keys()).toEqual([key.key_id]);
});

test("a key that was retired or revoked meanwhile does not come back by its token", async () => {
  const { redeem, token, add, retire, keys, alice } = await withNode();
  const [first, second] = [await newKey(), await newKey()];
  await redeem(token, first);
  await add(second, first);
  await retire(first, second);
  expect(await redeem(token, first)).toEqual(REFUSED);
  await alice.mutation(api.nodes.revoke, { tenant_id: "acme", node_id: "made" });
  expect(await redeem(token, second)).toEqual(REFUSED);
  expect(await keys()).toEqual([]);
});

test("a token that nobody redeemed dies with a revocation, and with a newer token", async () => {
  const { redeem, token, renew, alice } = await withNode();
  const newer = await renew();
  expect(await redeem(token, await newKey())).toEqual(REFUSED);
  await alice.mutation(api.nodes.revoke, { tenant_id: "acme", node_id: "made" });
  expect(await redeem(newer, await newKey())).toEqual(REFUSED);
});

test("a token is of its node and of its owner alone", async () => {
  const { t, redeem, token, alice, service, user } = await withNode();
  await alice.action(api.nodes.create, { tenant_id: "acme", node_id: "second" });
  const secret_hash = await hashOf(secretOf(token));
  const elsewhere = service({ node_id: "second" });
  const args = { node_id: "second", secret_hash, key: await newKey() };
  expect(await elsewhere.mutation(api.registry.redeem, args)).toEqual(REFUSED);
  expect(await errorCode(elsewhere.mutation(api.registry.redeem, { ...args, node_id: "made" }))).toBe("forbidden");

  const nodes = [{ node_id: "made", tenant_ids: ["acme", "rival"], owner: "rival" }];
  await t.mutation(internal.tenancy.seed, { nodes });
  expect(await redeem(token, await newKey())).toEqual(REFUSED);
  await expect(
    user("mallory").action(api.nodes.renewToken, { tenant_id: "rival", node_id: "made" }),
  ).resolves.toBeDefined();
});

test.each(["nobody", "n1"])("no secret opens the node %s, which waits for none", async (node_id) => {
  const { service } = await deployment();
  const args = { node_id, secret_hash: await hashOf("a".repeat(43)), key: await newKey() };
  expect(await service({ node_id }).mutation(api.registry.redeem, args)).toEqual(REFUSED);
});

test("another enrolment replaces all keys and lifts a revocation, but no drain", async () => {
  const { redeem, token, renew, add, alice, keys, registered } = await withNode();
  const [first, second, third] = [await newKey(), await newKey(), await newKey()];
  await redeem(token, first);
  await add(second, first);
  const again = await renew();
  expect(await keys()).toEqual([first.key_id, second.key_id]);
  await alice.mutation(api.nodes.drain, { tenant_id: "acme", node_id: "made" });
  await redeem(again, third);
  expect(await registered()).toMatchObject({ keys: [third], state: "draining" });

  await alice.mutation(api.nodes.revoke, { tenant_id: "acme", node_id: "made" });
  const last = await renew();
  expect((await registered()).state).toBe("revoked");
  await redeem(last, first);
  expect(await registered()).toMatchObject({ keys: [first], state: "active" });
});

test("two keys live at most, each on the word of a live one", async () => {
  const { redeem, token, add, retire, keys } = await withNode();
  const [first, second, third] = [await newKey(), await newKey(), await newKey()];
  await redeem(token, first);
  expect(await add(second, third)).toBe("unknown");
  expect(await add(first, first)).toBe("present");
  expect(await retire(first, first)).toBe("last");
  expect(await add(second, first)).toBe("added");
  expect(await add(second, first)).toBe("present");
  expect(await add(third, second)).toBe("too_many");
  expect(await retire(third, first)).toBe("absent");
  expect(await retire(first, third)).toBe("unknown");
  expect(await retire(first, first)).toBe("retired");
  expect(await add(third, first)).toBe("unknown");
  expect(await add(third, second)).toBe("added");
  expect(await keys()).toEqual([second.key_id, third.key_id]);
});

test("a key must bear its own thumbprint", async () => {
  const { adapter, redeem, token, keys } = await withNode();
  const [key, other] = [await newKey(), await newKey()];
  const renamed = { ...key, key_id: other.key_id };
  expect(await errorCode(redeem(token, renamed))).toBe("invalid");
  await redeem(token, key);
  const added = adapter.mutation(api.registry.addKey, { node_id: "made", key: renamed, by: key.key_id });
  expect(await errorCode(added)).toBe("invalid");
  expect(await keys()).toEqual([key.key_id]);
});

test("a client of the owner's tenant revokes by the adapter; nobody else's does", async () => {
  const { adapter, redeem, token, registered, t } = await withNode();
  await redeem(token, await newKey());
  const nodes = [{ node_id: "made", tenant_ids: ["acme", "rival"] }];
  await t.mutation(internal.tenancy.seed, { nodes });
  const revoke = (tenant_id: string, actor = "https://idp.test|robot") =>
    adapter.mutation(api.registry.revoke, { node_id: "made", tenant_id, actor });
  expect(await revoke("rival")).toEqual({ outcome: "unknown" });
  expect(await revoke("no-such")).toEqual({ outcome: "unknown" });
  expect(await errorCode(revoke("acme", ""))).toBe("invalid");
  expect(await revoke("acme")).toEqual({ outcome: "revoked" });
  expect(await revoke("acme")).toEqual({ outcome: "revoked" });
  expect(await registered()).toMatchObject({ keys: [], state: "revoked" });
});

test.each(["made", "n1", "n2"])("the name %s is taken, whoever has it", async (node_id) => {
  const { alice, user } = await withNode();
  const answers = [
    alice.action(api.nodes.create, { tenant_id: "acme", node_id }),
    user("mallory").action(api.nodes.create, { tenant_id: "rival", node_id }),
  ].map((call) => call.catch((error: { data: unknown }) => error.data));
  const [ours, theirs] = await Promise.all(answers);
  expect(ours).toEqual(theirs);
  expect(ours).toMatchObject({ code: "conflict" });
});

test.each(["", "-a", "a b", "a.b", "ä", "a".repeat(65)])("%j names no node", async (node_id) => {
  const { user } = await deployment();
  const made = user("alice").action(api.nodes.create, { tenant_id: "acme", node_id });
  expect(await errorCode(made)).toBe("invalid");
});

test("without a signing key no node is made", async () => {
  const { user, rows } = await deployment();
  delete process.env.BYOC_SIGNING_KEY;
  const made = user("alice").action(api.nodes.create, { tenant_id: "acme", node_id: "made" });
  expect(await errorCode(made)).toBe("not_configured");
  expect(await rows("nodes")).toHaveLength(2);
});

test.each(["renewToken", "revoke", "drain", "resume"] as const)(
  "nodes:%s: a node of others is as missing as none",
  async (name) => {
    const { alice, t } = await withNode();
    const nodes = [{ node_id: "n2", tenant_ids: ["acme", "rival"] }]; // it serves acme, and is rival's
    await t.mutation(internal.tenancy.seed, { nodes });
    const answers = ["n2", "nobody"].map((node_id) => {
      const args = { tenant_id: "acme", node_id };
      const call =
        name === "renewToken" ? alice.action(api.nodes.renewToken, args) : alice.mutation(api.nodes[name], args);
      return call.then(
        () => "done",
        (error: { data: unknown }) => error.data,
      );
    });
    const [foreign, missing] = await Promise.all(answers);
    expect(foreign).toEqual(missing);
    expect(foreign).toMatchObject({ code: "not_found" });
  },
);

test("a revoked node drains only after another enrolment", async () => {
  const { alice } = await withNode();
  const node = { tenant_id: "acme", node_id: "made" };
  expect(await alice.mutation(api.nodes.revoke, node)).toEqual({ changed: true });
  expect(await alice.mutation(api.nodes.revoke, node)).toEqual({ changed: false });
  expect(await errorCode(alice.mutation(api.nodes.drain, node))).toBe("conflict");
  expect(await alice.mutation(api.nodes.resume, node)).toEqual({ changed: false });
});

test("every change of an identity is in its owner's log, under the name of who did it", async () => {
  const { redeem, token, renew, add, retire, adapter, alice, rows, audited } = await withNode();
  const [first, second] = [await newKey(), await newKey()];
  const node = { tenant_id: "acme", node_id: "made" };
  await redeem(token, first);
  await redeem(token, first);
  await redeem(token, second);
  await add(second, first);
  await retire(first, second);
  await alice.mutation(api.nodes.drain, node);
  await alice.mutation(api.nodes.drain, node);
  await alice.mutation(api.nodes.resume, node);
  await adapter.mutation(api.registry.revoke, { ...node, actor: "robot" });
  await renew();
  expect(await audited()).toEqual([
    "acme node.created made",
    "acme node.token_issued made",
    `acme node.enrolled made:${first.key_id}`,
    `acme node.enrolment_refused made:${second.key_id} used`,
    `acme node.key_added made:${second.key_id}`,
    `acme node.key_retired made:${first.key_id}`,
    "acme node.drained made",
    "acme node.resumed made",
    "acme node.revoked made",
    "acme node.token_issued made",
  ]);
  const actors = (await rows("auditLog")).map(({ actor }) => actor);
  expect(actors).toEqual([
    ...[ALICE, ALICE, ADAPTER, ADAPTER, `${ADAPTER} for ${first.key_id}`, `${ADAPTER} for ${second.key_id}`],
    ...[ALICE, ALICE, `${ADAPTER} for robot`, ALICE],
  ]);
});

test("who does not know the secret writes into nobody's log", async () => {
  const { redeem, audited } = await withNode();
  await redeem(`byoc1.made.${"a".repeat(43)}.${SIGNING_KEY.kid}`, await newKey());
  expect((await audited()).at(-1)).toBe("node.enrolment_refused made unknown");
});

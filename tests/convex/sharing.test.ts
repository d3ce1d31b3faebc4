// A node comes to another tenant when its owner offers it and the other agrees, and not before.
import { expect, test } from "vitest";
import { api } from "../../convex/_generated/api";
import { deployment, errorCode, LIFE } from "./fixtures";

const OFFERED = { tenant_id: "acme", node_id: "n1", with_tenant: "rival" };
const TAKEN = { tenant_id: "rival", node_id: "n1" };
const STRANGE = { ...LIFE[0]!, tenant_id: "rival" };

async function parties() {
  const all = await deployment();
  const [alice, mallory] = [all.user("alice"), all.user("mallory")];
  return {
    ...all,
    alice,
    mallory,
    served: async () => (await all.service().query(api.registry.node, { node_id: "n1" }))!.tenants,
    share: () => alice.mutation(api.nodes.share, OFFERED),
    unshare: () => alice.mutation(api.nodes.unshare, OFFERED),
    accept: () => mallory.mutation(api.nodes.acceptShare, TAKEN),
    leave: () => mallory.mutation(api.nodes.leaveShare, TAKEN),
    offers: () => mallory.query(api.nodes.offers, { tenant_id: "rival" }),
  };
}

test("an offer alone lets a node write nothing into another tenant; its acceptance does", async () => {
  const { share, accept, served, apply, offers } = await parties();
  expect(await share()).toEqual({ changed: true });
  expect(await offers()).toMatchObject([{ node_id: "n1", owner: "acme" }]);
  expect(await served()).toEqual(["acme"]);
  expect(await apply([STRANGE])).toEqual(["forbidden"]);
  expect(await accept()).toEqual({ changed: true });
  expect(await served()).toEqual(["acme", "rival"]);
  expect(await apply([STRANGE])).toEqual(["applied"]);
  expect(await offers()).toEqual([]);
});

test("nothing is accepted that was not offered, and no offer shows who exists", async () => {
  const { alice, accept, share } = await parties();
  expect(await errorCode(accept())).toBe("not_found");
  const nowhere = { ...OFFERED, with_tenant: "no-such-tenant" };
  expect(await alice.mutation(api.nodes.share, nowhere)).toEqual(await share());
  expect(await errorCode(alice.mutation(api.nodes.share, { ...OFFERED, with_tenant: "no name" }))).toBe("invalid");
});

test("each step is safe to repeat", async () => {
  const { share, accept, leave } = await parties();
  expect([await share(), await share()]).toEqual([{ changed: true }, { changed: false }]);
  expect([await accept(), await accept()]).toEqual([{ changed: true }, { changed: false }]);
  expect(await share()).toEqual({ changed: false });
  expect(await leave()).toEqual({ changed: true });
  expect(await errorCode(leave())).toBe("not_found");
});

test("the owner takes a node back, the tenant gives it back", async () => {
  const { share, unshare, accept, leave, served, offers } = await parties();
  for (const end of [unshare, leave]) {
    await share();
    await accept();
    expect(await end()).toEqual({ changed: true });
    expect(await served()).toEqual(["acme"]);
  }
  await share();
  expect(await unshare()).toEqual({ changed: true });
  expect(await offers()).toEqual([]);
  expect(await errorCode(accept())).toBe("not_found");
});

test("only the owner shares a node, and never loses it by that", async () => {
  const { mallory, alice, share, accept } = await parties();
  await share();
  await accept();
  for (const name of ["share", "unshare"] as const) {
    const call = mallory.mutation(api.nodes[name], { ...TAKEN, with_tenant: "acme" });
    expect(await errorCode(call)).toBe("not_found");
  }
  const away = [
    alice.mutation(api.nodes.unshare, { ...OFFERED, with_tenant: "acme" }),
    alice.mutation(api.nodes.leaveShare, { tenant_id: "acme", node_id: "n1" }),
  ];
  for (const call of away) expect(await errorCode(call)).toBe("invalid");
});

test("both see the node; keys and tenants are for the owner's eyes", async () => {
  const { alice, mallory, share, accept } = await parties();
  await share();
  await accept();
  const theirs = await mallory.query(api.nodes.get, TAKEN);
  const ours = await alice.query(api.nodes.get, { tenant_id: "acme", node_id: "n1" });
  expect(theirs).toMatchObject({ node_id: "n1", owned: false });
  expect(theirs).not.toHaveProperty("tenants");
  expect(ours).toMatchObject({ node_id: "n1", owned: true, tenants: ["acme", "rival"], keys: [] });
});

test("the logs: the owner's of every step, the other's of what concerns it", async () => {
  const { share, unshare, accept, audited } = await parties();
  await share();
  await accept();
  await unshare();
  expect(await audited()).toEqual([
    "acme node.offered n1:rival",
    "acme node.shared n1:rival",
    "rival node.accepted n1",
    "rival node.withdrawn n1",
    "acme node.unshared n1:rival",
  ]);
});

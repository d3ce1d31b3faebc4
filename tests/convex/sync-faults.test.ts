// @vitest-environment node
// The lab's server to clients whose tokens are wrong or end, and to those that break the sync protocol.
import type { ConvexError } from "convex/values";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { api } from "../../convex/_generated/api";
import { PATIENCE, Seen, serve, WITHIN } from "./served";

type Nodes = { node_id: string }[];

let served: Awaited<ReturnType<typeof serve>>;
let made = 0;

vi.setConfig(PATIENCE);

beforeAll(async () => {
  served = await serve();
});

afterAll(() => served.end());

/** Something that whoever watches the nodes of acme can see; its name. */
async function newNode(): Promise<string> {
  const node_id = `made-${++made}`;
  await served.call("mutation", "tenancy:seed", { nodes: [{ node_id, tenant_ids: ["acme"] }] });
  return node_id;
}

describe("a token", () => {
  test("of another issuer is none", async () => {
    const client = served.client();
    const authenticated = vi.fn();
    client.setAuth(() => served.strangers.token("alice"), authenticated);
    await vi.waitFor(() => expect(authenticated).toHaveBeenCalledWith(false), WITHIN);
    expect(authenticated).not.toHaveBeenCalledWith(true);
    const nodes = new Seen<Nodes>(client, api.nodes.list, { tenant_id: "acme" });
    await vi.waitFor(() => expect(nodes.errors).toHaveLength(1), WITHIN);
    expect((nodes.errors[0] as ConvexError<{ code: string }>).data.code).toBe("unauthenticated");
  });

  test("that ends is replaced, and nothing is missed", async () => {
    let tokens = 0;
    // The first has ended, within the tolerance for clocks; the server takes it, and later does not.
    const client = served.client("alice", (subject) => served.product.token(subject, ++tokens === 1 ? -3 : 300));
    const nodes = new Seen<Nodes>(client, api.nodes.list, { tenant_id: "acme" });
    await vi.waitFor(() => expect(nodes.values).toHaveLength(1), WITHIN);
    await vi.waitFor(() => expect(tokens).toBeGreaterThan(1), WITHIN);
    const node_id = await newNode();
    await vi.waitFor(() => expect(nodes.last!.map((each) => each.node_id)).toContain(node_id), WITHIN);
    expect(nodes.errors).toEqual([]);
  });

  test("that has ended is an AuthError at the next change", async () => {
    const { say, messages, closed } = await served.socket();
    say({ type: "Authenticate", tokenType: "User", value: await served.product.token("alice", -3), baseVersion: 0 });
    const add = { type: "Add", queryId: 0, udfPath: "nodes:list", args: [{ tenant_id: "acme" }] };
    say({ type: "ModifyQuerySet", baseVersion: 0, newVersion: 1, modifications: [add] });
    await vi.waitFor(() => expect(messages.at(-1)).toMatchObject({ endVersion: { querySet: 1 } }), WITHIN);
    await vi.waitFor(async () => {
      await newNode();
      expect(messages.at(-1)).toMatchObject({ type: "AuthError", baseVersion: 1, authUpdateAttempted: false });
    }, WITHIN);
    expect(await closed).toEqual({ code: 1008, reason: "Unauthenticated" });
  });

  test("that is none is an AuthError at once", async () => {
    const { say, messages, closed } = await served.socket();
    say({ type: "Authenticate", tokenType: "User", value: "none", baseVersion: 0 });
    expect(await closed).toEqual({ code: 1008, reason: "Unauthenticated" });
    expect(messages).toEqual([
      { type: "AuthError", error: "Could not parse JWT payload", baseVersion: 0, authUpdateAttempted: true },
    ]);
  });
});

describe("a client that breaks the protocol", () => {
  const add = { type: "Add", queryId: 0, udfPath: "jobs:list", args: [{}] };
  const modify = { type: "ModifyQuerySet", baseVersion: 0, newVersion: 1, modifications: [add] };
  const mutation = { type: "Mutation", requestId: 0, udfPath: "nodes:drain", args: [{}] };
  test.each<[unknown, string]>([
    ["{", "it is no JSON"],
    ["[]", "the message must be an object"],
    [{ type: "Invented" }, "its `type` is unknown"],
    [{ type: "Connect", sessionId: 1 }, "`sessionId` must be a string"],
    [{ ...modify, baseVersion: 1, newVersion: 2 }, "Base version 1 passed up doesn't match the current version 0"],
    [{ ...modify, newVersion: 0 }, "newVersion is not newer"],
    [{ ...modify, modifications: {} }, "`modifications` must be an array"],
    [{ ...modify, modifications: [add, add] }, "Duplicate query id: 0"],
    [{ ...modify, modifications: [{ type: "Remove", queryId: 7 }] }, "Nonexistent query id: 7"],
    [{ ...modify, modifications: [{ ...add, queryId: -1 }] }, "`queryId` must be an integer"],
    [{ ...modify, modifications: [{ ...add, args: [{}, {}] }] }, "`args` must hold one object"],
    [{ ...modify, modifications: [{ ...add, journal: 1 }] }, "`journal` must be a string"],
    [{ ...modify, modifications: [{ ...add, componentPath: "workpool" }] }, "`componentPath` must be empty"],
    [
      { ...modify, modifications: Array.from({ length: 1001 }, (_, queryId) => ({ ...add, queryId })) },
      "More than 1000 queries",
    ],
    [{ ...mutation, args: ["text"] }, "the one of `args` must be an object"],
    [{ type: "Authenticate", baseVersion: 0, tokenType: "Odd" }, "`tokenType` must be"],
    [Buffer.from("{}"), "Received a binary message"],
  ])("is told so and ended: %#", async (message, reason) => {
    const { socket, messages, closed } = await served.socket();
    socket.send(typeof message === "string" || Buffer.isBuffer(message) ? message : JSON.stringify(message));
    expect((await closed).code).toBe(1008);
    expect(messages).toEqual([{ type: "FatalError", error: expect.stringContaining(reason) }]);
  });

  test("is ended: a message of more than 16 MiB", async () => {
    const { socket, closed } = await served.socket();
    socket.send("x".repeat(16 * 1024 * 1024 + 1));
    expect((await closed).code).toBe(1009);
  });

  test("is ended: too many messages at once", async () => {
    const { socket, messages, closed } = await served.socket();
    const value = await served.product.token("alice");
    const authenticate = { type: "Authenticate", tokenType: "User", value };
    for (let baseVersion = 0; baseVersion <= 2000; baseVersion++) {
      socket.send(JSON.stringify({ ...authenticate, baseVersion }));
    }
    expect((await closed).code).toBe(1008);
    expect(messages.at(-1)).toMatchObject({ type: "FatalError", error: expect.stringContaining("waiting messages") });
  });

  test.each(["/api/1.44.0/other", "/api/sync/1", "//", "/%"])("gets no socket at %s", async (path) => {
    await expect(served.socket(path)).rejects.toThrow("404");
  });

  afterEach(async () => {
    expect((await fetch(`${served.url}/version`)).status).toBe(200); // and harms nobody else
  });
});

test("pages of every origin may call over HTTP", async () => {
  const headers = { Origin: "http://127.0.0.1:1", "Access-Control-Request-Method": "POST" };
  const preflight = await fetch(`${served.url}/api/query`, { method: "OPTIONS", headers });
  expect(preflight.status).toBe(200);
  expect(preflight.headers.get("Access-Control-Allow-Headers")).toContain("authorization");
  const refused = await fetch(`${served.url}/api/query`, { method: "POST", headers: { Origin: headers.Origin } });
  expect(refused.status).toBe(400);
  for (const answer of [preflight, refused]) {
    expect(answer.headers.get("Access-Control-Allow-Origin")).toBe(headers.Origin);
  }
});

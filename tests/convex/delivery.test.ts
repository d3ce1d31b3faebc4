// What becomes of a command between the mutation that stores it and the node's verdict. The adapter is played at the
// wire: `fetch` is the only thing that is replaced.
import { decodeJwt, decodeProtectedHeader, importJWK, jwtVerify } from "jose";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Doc } from "../../convex/_generated/dataModel";
import { api, internal } from "../../convex/_generated/api";
import { COMMAND_KEY, deployment, errorCode, LIFE, SIGNING_KEY, update, type Deployment } from "./fixtures";
import { verifySignature } from "./verify";

const PROBLEMS = "https://aiida-byoc.org/problems/";
const COMMAND = {
  execution_profile: { queue_name: "default" },
  resource_shape: { cpu: 1, memory_mib: 256, walltime_seconds: 60 },
  workload: { kind: "container", image: "localhost/byoc/demo:1", argv: ["/bin/true"] },
};
const ASKED = { tenant_id: "acme", workspace_id: "w1", node_id: "n1", job_id: "j1", command: COMMAND };

type Request = { url: string; headers: Record<string, string>; body: Record<string, unknown>; redirect: unknown };
type Play = (request: Request) => Response | Promise<Response>;

let requests: Request[] = [];
let adapter: Play = () => json(202, acceptance());

beforeEach(() => {
  vi.useFakeTimers();
  requests = [];
  vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
    const body = JSON.parse(init.body as string) as Record<string, unknown>;
    requests.push({ url, headers: init.headers as Record<string, string>, body, redirect: init.redirect });
    return adapter(requests.at(-1)!);
  });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function json(status: number, body: object, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(body), { status, headers: { "Content-Type": "application/json", ...headers } });
}

function problem(status: number, name: string, headers: Record<string, string> = {}, extra: object = {}): Response {
  const body = { type: PROBLEMS + name, title: `title of ${name}`, status, detail: `detail of ${name}`, retry: status >= 500, ...extra };
  return json(status, body, { "Content-Type": "application/problem+json", ...headers });
}

const acceptance = () => ({ job_id: "j1", submission_id: "s", node_id: "n1", status: "accepted" });
const cancellation = (status: string) => ({ job_id: "j1", node_id: "n1", status });
const isCancel = ({ url }: Request) => url.endsWith("/cancel");

/** Answers in turn; the last answer is repeated. */
function inTurn(...plays: Play[]): Play {
  let next = 0;
  return (request) => plays[Math.min(next++, plays.length - 1)]!(request);
}

function lost(): never {
  throw new TypeError("connection reset");
}

const submit = (product: Deployment, fields: object = {}) =>
  product.user("bob").mutation(api.commands.submitJob, { ...ASKED, ...fields });
const cancel = (product: Deployment) =>
  product.user("bob").mutation(api.commands.cancelJob, { tenant_id: "acme", job_id: "j1" });
const commands = (product: Deployment) => product.user("bob").query(api.commands.list, { tenant_id: "acme", job_id: "j1" });
const settled = (product: Deployment) =>
  product.until(async () => (await commands(product)).every(({ state }) => state !== "pending"));

describe("a submission", () => {
  test("is there at once, goes out signed and by a credential of its own, and is accepted", async () => {
    const product = await deployment();
    adapter = () => json(202, acceptance());
    const { command_id } = await submit(product);
    const before = await product.user("bob").query(api.jobs.get, { tenant_id: "acme", job_id: "j1" });
    expect(before).toMatchObject({ state: "queued", execution_state: "submitting", seq: 0, node_id: "n1" });
    expect(requests).toEqual([]);

    await settled(product);

    expect(requests).toHaveLength(1);
    const [{ url, headers, body, redirect }] = requests as [Request];
    expect(url).toBe("https://adapter.test/v1/nodes/n1/jobs");
    expect(redirect).toBe("manual");
    expect(headers["Idempotency-Key"]).toBe(`"${command_id}"`);
    expect(body).toMatchObject({
      ...COMMAND,
      ...{ schema_version: "1", tenant_id: "acme", workspace_id: "w1", job_id: "j1", management_node_id: "n1" },
      requested_by: { user_id: "bob" },
    });
    expect(body.traceparent).toBe(`00-${before.trace_id}-${String(body.traceparent).split("-")[2]}-01`);
    expect(await verifySignature(headers["Byoc-Signature"]!, SIGNING_KEY, "submit", command_id, body)).toBe(true);
    const token = headers.Authorization!.replace("Bearer ", "");
    const key = await importJWK({ ...COMMAND_KEY, d: undefined }, "ES256");
    const options = { issuer: "https://product.test/commands", audience: "byoc-adapter", currentDate: new Date() };
    const { payload } = await jwtVerify(token, key, options);
    expect(payload).toMatchObject({ sub: "product", tenant_id: "acme", scope: "jobs:submit" });
    expect(payload.exp! - payload.iat!).toBeLessThanOrEqual(300);
    expect(decodeProtectedHeader(token).kid).toMatch(/^[\w-]{43}$/);
    expect(await commands(product)).toMatchObject([{ command_id, operation: "submit", state: "accepted", attempts: 1 }]);
    expect(await product.audited()).toEqual([
      "acme job.submit_requested j1",
      "acme command.accepted submit:j1",
    ]);
  });

  test("is tried with the same key and body until there is a verdict, through every kind of failure", async () => {
    const product = await deployment();
    adapter = inTurn(
      () => problem(503, "node-unreachable"),
      lost,
      () => new Response("bad gateway", { status: 502 }),
      () => new Response("not here", { status: 404 }),
      () => new Response(null, { status: 302, headers: { Location: "https://elsewhere.test" } }),
      () => problem(504, "outcome-unknown"),
      () => problem(401, "unauthenticated"),
      () => problem(403, "forbidden"),
      () => problem(429, "quota-exceeded"),
      () => json(202, { surprise: true }),
      () => json(202, acceptance()),
    );
    await submit(product);
    const said = new Set<string>();
    await product.until(async () => {
      const [command] = await commands(product);
      if (command!.last_problem !== undefined) said.add(command!.last_problem.code);
      return command!.state !== "pending";
    });
    expect(await commands(product)).toMatchObject([{ state: "accepted", attempts: 11 }]);
    expect((await product.job())!.message).toBeUndefined();
    expect(new Set(requests.map(({ headers }) => headers["Idempotency-Key"])).size).toBe(1);
    expect(new Set(requests.map(({ body }) => JSON.stringify(body))).size).toBe(1);
    expect([...said]).toEqual([
      ...["node-unreachable", "adapter-unreachable", "adapter-failed", "outcome-unknown", "unauthenticated"],
      ...["forbidden", "quota-exceeded", "answer-unreadable"],
    ]);
  });

  test("that waits says why, on the job and in the list of commands", async () => {
    const product = await deployment();
    adapter = () => problem(503, "node-unreachable", { "Retry-After": "120" });
    await submit(product);
    await product.until(async () => (await commands(product))[0]!.attempts === 1 && requests.length === 1);
    await product.until(async () => (await commands(product))[0]!.last_problem !== undefined);
    const [command] = await commands(product);
    expect(command).toMatchObject({
      state: "pending",
      last_problem: { code: "node-unreachable", message: "title of node-unreachable." },
    });
    expect(Date.parse(command!.next_at!) - Date.now()).toBeGreaterThan(110_000);
    const job = await product.user("bob").query(api.jobs.get, { tenant_id: "acme", job_id: "j1" });
    expect(job).toMatchObject({ state: "queued", message: "title of node-unreachable." });
  });

  test("tells since when its node is offline, until the node is heard again", async () => {
    const product = await deployment();
    const job = () => product.user("bob").query(api.jobs.get, { tenant_id: "acme", job_id: "j1" });
    const node = () => product.user("bob").query(api.nodes.get, { tenant_id: "acme", node_id: "n1" });
    const beat = () =>
      product.service().mutation(api.nodes.recordHeartbeat, {
        ...{ node_id: "n1", report: {}, received_at: new Date().toISOString() },
      });
    adapter = () => problem(503, "node-unreachable", { "Retry-After": "300" });
    await submit(product);
    expect((await job()).node_offline_since).toBe((await node()).status.since); // it was never heard
    await beat();
    expect(await job()).not.toHaveProperty("node_offline_since");
    const heard = Date.now();
    await product.until(async () => (await node()).status.state === "offline", 70_000);
    const { node_offline_since } = await job();
    expect(node_offline_since).toBe((await node()).status.since);
    expect(Date.parse(node_offline_since!)).toBeGreaterThan(heard);
    await beat();
    expect(await job()).not.toHaveProperty("node_offline_since");
  });

  test("that has ended no longer depends on its node", async () => {
    const product = await deployment();
    adapter = () => problem(422, "policy-refused");
    await submit(product);
    await settled(product);
    expect(await product.job()).toMatchObject({ state: "failed" });
    const shown = await product.user("bob").query(api.jobs.get, { tenant_id: "acme", job_id: "j1" });
    expect(shown).not.toHaveProperty("node_offline_since");
  });

  test("is no attempt yet, nor is one that the node refused", async () => {
    const product = await deployment();
    const attempts = () => product.user("bob").query(api.jobs.attempts, { tenant_id: "acme", job_id: "j1" });
    adapter = () => problem(422, "policy-refused");
    await submit(product);
    expect(await attempts()).toEqual([]);
    await settled(product);
    expect(await attempts()).toEqual([]);
  });

  test("waits the longer for a node that is away, and goes out soon after its next sign of life", async () => {
    const product = await deployment();
    const beat = () =>
      product.service().mutation(api.nodes.recordHeartbeat, {
        ...{ node_id: "n1", report: {}, received_at: new Date().toISOString() },
      });
    await beat();
    adapter = () => problem(503, "node-unreachable", { "Retry-After": "300" });
    await submit(product);
    await product.until(async () => (await commands(product))[0]!.last_problem !== undefined);
    const offline = Date.now() + 90_000;
    await product.until(async () => Date.now() > offline);
    expect(requests).toHaveLength(1);
    adapter = () => json(202, acceptance());
    await beat();
    const heard = Date.now();
    await settled(product);
    expect(Date.now() - heard).toBeLessThan(10_000);
    const much_later = Date.now() + 600_000;
    await product.until(async () => Date.now() > much_later, 700_000);
    expect(requests).toHaveLength(2); // what was to come at its old time does nothing
  });

  test("that is refused for good makes its job fail, with the reason on the timeline", async () => {
    const product = await deployment();
    const errors = [{ field: "resource_shape.cpu", message: "must be at most 4", remedy: "ask for 4" }];
    adapter = () => problem(422, "policy-refused", {}, { errors });
    await submit(product);
    await settled(product);
    expect(requests).toHaveLength(1);
    const error = {
      code: "policy-refused",
      message: "title of policy-refused. detail of policy-refused. resource_shape.cpu: must be at most 4.",
      retryable: false,
      remedy: "ask for 4",
    };
    expect(await product.job()).toMatchObject({ state: "failed", execution_state: "refused", error });
    const paginationOpts = { numItems: 10, cursor: null };
    const { page } = await product.user("bob").query(api.jobs.timeline, { ...about, paginationOpts });
    expect(page.map(({ seq, execution_state }) => [seq, execution_state])).toEqual([
      [0, "submitting"],
      [0, "refused"],
    ]);
    expect(page[1]).toMatchObject({ error });
    expect(await product.user("bob").query(api.jobs.attempts, about)).toEqual([]); // no node has tried it
    expect(await product.audited()).toContain("acme command.refused submit:j1 policy-refused");
  });

  test("gives way to what the node tells, also when that comes before the verdict", async () => {
    const product = await deployment();
    adapter = lost;
    await submit(product);
    await product.until(async () => requests.length === 1);
    expect(await product.apply([LIFE[0]!, LIFE[1]!])).toEqual(["applied", "applied"]);
    adapter = () => problem(422, "policy-refused");
    await settled(product);
    expect(await product.job()).toMatchObject({ seq: 2, state: "queued", execution_state: "launched" });
    expect((await product.job())!.message).toBeUndefined();
  });

  test("belongs to its node and workspace: no other may tell of it", async () => {
    const product = await deployment();
    adapter = lost;
    await product.t.mutation(internal.tenancy.seed, { nodes: [{ node_id: "n2", tenant_ids: ["acme", "rival"] }] });
    await submit(product);
    expect(await product.apply([{ ...LIFE[0]!, node_id: "n2" }], { node_id: "n2" })).toEqual(["forbidden"]);
    expect(await product.apply([{ ...LIFE[0]!, workspace_id: "w2" }])).toEqual(["inconsistent"]);
    expect(await product.job()).toMatchObject({ execution_state: "submitting" });
  });

  test.each([["succeeded"], ["failed"], ["cancelled"]] as const)("refused here, %s there: the node is right", async (end) => {
    const product = await deployment();
    adapter = () => problem(409, "job-id-conflict");
    await submit(product);
    await settled(product);
    expect(await product.job()).toMatchObject({ state: "failed" });
    expect(await product.apply([update(1, "running"), update(2, end)])).toEqual(["applied", "applied"]);
    expect(await product.job()).toMatchObject({ state: end, seq: 2 });
  });

  test("whose sender dies is sent again, and what the dead one hears later counts for nothing", async () => {
    const product = await deployment();
    const late: ((response: Response) => void)[] = [];
    adapter = inTurn(
      () => new Promise((resolve) => late.push(resolve)),
      () => problem(503, "node-unreachable"),
      () => json(202, acceptance()),
    );
    const { command_id } = await submit(product);
    await vi.waitFor(() => (vi.advanceTimersByTime(50), expect(late).toHaveLength(1)));
    const [{ _id: id, round, in_doubt }] = (await product.rows("commands")) as [Doc<"commands">];
    expect(in_doubt).toBe(1);
    const death = { workId: "w", context: { id, round }, result: { kind: "failed", error: "gone" } } as never;
    await product.t.mutation(internal.delivery.completed, death);
    expect(await commands(product)).toMatchObject([
      { command_id, state: "pending", last_problem: { code: "delivery-interrupted" } },
    ]);
    late[0]!(problem(422, "policy-refused"));
    await settled(product);
    expect(await commands(product)).toMatchObject([{ state: "accepted", attempts: 3 }]);
  });

  test("the adapter may not have heard of a new node: it is asked again for a while", async () => {
    const product = await deployment();
    adapter = () => problem(404, "not-found");
    await submit(product);
    await product.until(async () => requests.length > 2);
    expect(await commands(product)).toMatchObject([{ state: "pending" }]);
    await settled(product);
    expect(await product.job()).toMatchObject({ state: "failed", error: { code: "not-found" } });
  });
});

const about = { tenant_id: "acme", job_id: "j1" };
const soon = () => new Date(Date.now() + 5_000).toISOString();

describe("a deadline", () => {
  test("ends a submission that surely came to no node", async () => {
    const product = await deployment();
    adapter = () => problem(503, "node-unreachable", { "Retry-After": "60" });
    await submit(product, { command: { ...COMMAND, deadline: soon() } });
    const began = Date.now();
    await settled(product);
    expect(Date.now() - began).toBeLessThan(15_000);
    expect(await product.job()).toMatchObject({ state: "failed", error: { code: "command-expired" } });
  });

  test("leaves one that may have come to its node to the node", async () => {
    const product = await deployment();
    adapter = lost;
    await submit(product, { command: { ...COMMAND, deadline: soon() } });
    const end = Date.now() + 60_000;
    await product.until(async () => Date.now() > end);
    expect(await commands(product)).toMatchObject([{ state: "pending" }]);
    adapter = () => json(202, acceptance());
    await settled(product);
    expect(await commands(product)).toMatchObject([{ state: "accepted" }]);
    expect(await product.job()).toMatchObject({ execution_state: "submitting" });
  });
});

describe("a cancel", () => {
  test("of a job that surely came to no node is done at once, and nothing is sent any more", async () => {
    const product = await deployment();
    adapter = () => problem(503, "node-unreachable");
    await submit(product);
    await product.until(async () => (await commands(product))[0]!.last_problem !== undefined);
    const sent = requests.length;
    await cancel(product);
    expect(await product.job()).toMatchObject({ state: "cancelled" });
    expect(await commands(product)).toMatchObject([
      { operation: "submit", state: "refused", last_problem: { code: "job-cancelled" } },
      { operation: "cancel", state: "accepted", attempts: 0 },
    ]);
    const end = Date.now() + 60_000;
    await product.until(async () => Date.now() > end);
    expect(requests).toHaveLength(sent);
  });

  test.each([
    ["never had the job", "cancelled", "refused", "cancelled"],
    ["has the job", "cancelling", "accepted", "queued"],
  ])("of a submission in doubt goes before it; the node %s", async (_, status, decided, state) => {
    const product = await deployment();
    const answers = inTurn(...Array<Play>(8).fill(lost), () => json(202, cancellation(status)));
    adapter = (request) => (isCancel(request) ? answers(request) : lost());
    await submit(product);
    await product.until(async () => (await commands(product))[0]!.last_problem !== undefined);
    const sentBefore = requests.length;
    const { command_id } = await cancel(product);
    await settled(product);
    expect(requests.slice(sentBefore).every(isCancel)).toBe(true);
    expect(requests).toHaveLength(sentBefore + 9);
    const sent = requests.at(-1)!;
    expect(sent.url).toBe("https://adapter.test/v1/nodes/n1/jobs/j1/cancel");
    expect(sent.headers["Idempotency-Key"]).toBeUndefined();
    expect(await verifySignature(sent.headers["Byoc-Signature"]!, SIGNING_KEY, "cancel", null, sent.body)).toBe(true);
    expect(decodeJwt(sent.headers.Authorization!.slice(7)).scope).toBe("jobs:cancel");
    expect(await commands(product)).toMatchObject([{ state: decided }, { command_id, state: "accepted" }]);
    expect(await product.job()).toMatchObject({ state });
  });

  test("while a submission is on its way waits for what becomes of that, and no longer", async () => {
    const product = await deployment();
    const late: ((response: Response) => void)[] = [];
    adapter = (request) => (isCancel(request) ? lost() : new Promise((resolve) => late.push(resolve)));
    await submit(product);
    await vi.waitFor(() => (vi.advanceTimersByTime(50), expect(late).toHaveLength(1)));
    await cancel(product);
    expect(await product.job()).toMatchObject({ state: "queued" });
    late[0]!(problem(503, "node-unreachable")); // so it has surely not come to the node
    await settled(product);
    expect(await product.job()).toMatchObject({ state: "cancelled" });
    expect(await commands(product)).toMatchObject([{ state: "refused" }, { state: "accepted" }]);
  });

  test("that is refused lets the submission go on", async () => {
    const product = await deployment();
    const answers = inTurn(...Array<Play>(8).fill(lost), () => problem(403, "signature-invalid"));
    adapter = (request) => (isCancel(request) ? answers(request) : lost());
    await submit(product);
    await product.until(async () => (await commands(product))[0]!.last_problem !== undefined);
    await cancel(product);
    await product.until(async () => (await commands(product))[1]!.state === "refused");
    adapter = () => json(202, acceptance());
    await settled(product);
    expect(await commands(product)).toMatchObject([{ state: "accepted" }, { state: "refused" }]);
  });

  test("of a running job is asked once, however often it is repeated", async () => {
    const product = await deployment();
    await product.apply([update(1, "running")]);
    adapter = inTurn(lost, () => json(202, cancellation("cancelling")));
    const { command_id } = await cancel(product);
    expect(await cancel(product)).toEqual({ command_id });
    await settled(product);
    expect(await cancel(product)).toEqual({ command_id });
    expect(requests).toHaveLength(2);
  });

  test("of a job that has ended is a conflict", async () => {
    const product = await deployment();
    await product.apply(LIFE);
    expect(await errorCode(cancel(product))).toBe("conflict");
  });
});

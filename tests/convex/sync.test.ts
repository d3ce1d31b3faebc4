// @vitest-environment node
// The official client on the lab's server: subscriptions, mutations and actions over a real socket.
import type { ConvexClient } from "convex/browser";
import { anyApi } from "convex/server";
import type { ConvexError } from "convex/values";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { api } from "../../convex/_generated/api";
import { update } from "./fixtures";
import { PATIENCE, Seen, serve, WITHIN } from "./served";

type Served = Awaited<ReturnType<typeof serve>>;
type Nodes = { node_id: string; status: { state: string; since: string } }[];
type Page = { numItems: number; cursor: string | null };
type Jobs = { page: { job_id: string; state: string }[]; isDone: boolean; continueCursor: string };

const FIRST_PAGE: Page = { numItems: 50, cursor: null };

let served: Served;
let job = 0;

vi.setConfig(PATIENCE);

beforeAll(async () => {
  served = await serve();
  await served.hear("n1");
});

afterAll(() => served.end());

/** A job that no other test has, told over HTTP by a node. */
async function newJob(tenant_id = "acme", node_id = "n1"): Promise<string> {
  const job_id = `job-${++job}`;
  await served.apply(node_id, [told(job_id, 1, "queued", { tenant_id, node_id })]);
  return job_id;
}

function told(job_id: string, seq: number, state: "queued" | "running", fields = {}) {
  const submission = `00000000-0000-4000-8000-${job_id.replace("job-", "").padStart(12, "0")}`;
  return update(seq, state, { job_id, projection_id: `${submission}:${seq}`, ...fields });
}

function jobsOf(client: ConvexClient, tenant_id = "acme", paginationOpts: Page = FIRST_PAGE): Seen<Jobs> {
  return new Seen(client, api.jobs.list, { tenant_id, paginationOpts });
}

function stateOf(seen: Seen<Jobs>, job_id: string): string | undefined {
  return seen.last?.page.find((each) => each.job_id === job_id)?.state;
}

const codeOf = (error: Error | undefined) => (error as ConvexError<{ code?: string }> | undefined)?.data?.code;
const drains = (seen: Seen<Nodes>) => seen.last?.find(({ node_id }) => node_id === "n1")?.status.state === "draining";

describe("a subscription", () => {
  test("shows what came over HTTP", async () => {
    const job_id = await newJob();
    const jobs = jobsOf(served.client("alice"));
    await vi.waitFor(() => expect(stateOf(jobs, job_id)).toBe("queued"), WITHIN);
    await served.apply("n1", [told(job_id, 2, "running")]);
    await vi.waitFor(() => expect(stateOf(jobs, job_id)).toBe("running"), WITHIN);
  });

  test("ends with an error that has its data, and goes on when there is something to show", async () => {
    const job_id = `job-${job + 1}`;
    const shown = new Seen<{ state: string }>(served.client("alice"), api.jobs.get, { tenant_id: "acme", job_id });
    await vi.waitFor(() => expect(codeOf(shown.errors[0])).toBe("not_found"), WITHIN);
    await newJob();
    await vi.waitFor(() => expect(shown.last?.state).toBe("queued"), WITHIN);
    expect(shown.errors).toHaveLength(1);
  });

  test("with arguments that are none fails alone", async () => {
    const client = served.client("alice");
    const [wrong, unknown] = [
      new Seen(client, api.jobs.list, { tenant_id: 7, paginationOpts: FIRST_PAGE }),
      new Seen(client, anyApi.jobs!.invented!, {}),
    ];
    const hidden = new Seen(client, anyApi.nodes!.acceptEpoch!, {});
    const jobs = jobsOf(client);
    await vi.waitFor(() => {
      for (const { errors } of [wrong, unknown, hidden]) expect(errors).toHaveLength(1);
      expect(jobs.values).toHaveLength(1);
    }, WITHIN);
    expect([wrong, unknown, hidden].map(({ errors }) => codeOf(errors[0]))).toEqual([undefined, undefined, undefined]);
  });

  test("keeps its pages together while jobs come", async () => {
    const jobs: string[] = [];
    for (let count = 0; count < 5; count++) jobs.unshift(await newJob("rival", "n2"));
    const client = served.client("mallory");
    const first = jobsOf(client, "rival", { numItems: 2, cursor: null });
    await vi.waitFor(() => expect(first.last?.page).toHaveLength(2), WITHIN);
    const second = jobsOf(client, "rival", { numItems: 2, cursor: first.last!.continueCursor });
    await vi.waitFor(() => expect(second.last?.page).toHaveLength(2), WITHIN);
    jobs.unshift(await newJob("rival", "n2"));
    await vi.waitFor(() => expect(first.last?.page).toHaveLength(3), WITHIN);
    expect(first.last!.isDone).toBe(false);
    const shown = [...first.last!.page, ...second.last!.page].map(({ job_id }) => job_id);
    expect(shown).toEqual(jobs.slice(0, 5));
  });

  test("shows another tenant nothing, not even that something happens", async () => {
    const foreign = await served.socket();
    foreign.say({ type: "Connect", sessionId: "s", connectionCount: 0, lastCloseReason: null });
    foreign.say({
      type: "Authenticate",
      tokenType: "User",
      value: await served.product.token("mallory"),
      baseVersion: 0,
    });
    const args = [{ tenant_id: "acme", paginationOpts: FIRST_PAGE }];
    const add = { type: "Add", queryId: 0, udfPath: "jobs:list", args };
    foreign.say({ type: "ModifyQuerySet", baseVersion: 0, newVersion: 1, modifications: [add] });
    await vi.waitFor(() => expect(foreign.messages.at(-1)).toMatchObject({ endVersion: { querySet: 1 } }), WITHIN);
    expect(foreign.messages.flatMap(({ modifications }) => modifications)).toEqual([
      expect.objectContaining({ type: "QueryFailed", errorData: expect.objectContaining({ code: "not_found" }) }),
    ]);
    const before = foreign.messages.length;
    const own = jobsOf(served.client("alice"));
    const job_id = await newJob();
    await vi.waitFor(() => expect(stateOf(own, job_id)).toBe("queued"), WITHIN);
    foreign.say({ type: "ModifyQuerySet", baseVersion: 1, newVersion: 2, modifications: [] });
    await vi.waitFor(() => expect(foreign.messages.at(-1)).toMatchObject({ endVersion: { querySet: 2 } }), WITHIN);
    expect(foreign.messages.slice(before)).toEqual([expect.objectContaining({ modifications: [] })]);
  });
});

describe("a mutation by socket", () => {
  test("is seen by its caller as soon as it answers, and its optimistic update never flickers", async () => {
    const client = served.client("alice");
    const nodes = new Seen<Nodes>(client, api.nodes.list, { tenant_id: "acme" });
    await vi.waitFor(() => expect(nodes.values).toHaveLength(1), WITHIN);
    const first = nodes.last![0]!.status.state;
    expect(first).not.toBe("draining");
    const answer = await client.mutation(
      api.nodes.drain,
      { tenant_id: "acme", node_id: "n1" },
      {
        optimisticUpdate(store) {
          const shown = store.getQuery(api.nodes.list, { tenant_id: "acme" })!;
          const status = { state: "draining", since: "", reasons: [] } as (typeof shown)[0]["status"];
          store.setQuery(
            api.nodes.list,
            { tenant_id: "acme" },
            shown.map((node) => ({ ...node, status })),
          );
        },
      },
    );
    expect(answer).toEqual({ changed: true });
    expect(drains(nodes)).toBe(true);
    expect(nodes.last![0]!.status.since).not.toBe(""); // the server's
    await client.mutation(api.nodes.resume, { tenant_id: "acme", node_id: "n1" });
    expect(drains(nodes)).toBe(false);
    const states = nodes.values.map((shown) => shown[0]!.status.state);
    expect(states.filter((state, index) => state !== states[index - 1])).toEqual([first, "draining", first]);
  });

  test("that is refused says why, and changes nothing", async () => {
    const client = served.client("mallory");
    const refused = client.mutation(api.nodes.drain, { tenant_id: "acme", node_id: "n1" });
    expect(codeOf(await refused.then(undefined, (error: Error) => error))).toBe("not_found");
  });

  test("that is repeated after a lost connection runs once", async () => {
    const answers = [];
    const value = await served.product.token("alice");
    for (const udfPath of ["nodes:drain", "nodes:drain"]) {
      const { say, messages, socket } = await served.socket();
      say({ type: "Connect", sessionId: "the same", connectionCount: 0, lastCloseReason: null });
      say({ type: "Authenticate", tokenType: "User", value, baseVersion: 0 });
      say({ type: "Mutation", requestId: 3, udfPath, args: [{ tenant_id: "acme", node_id: "n1" }] });
      await vi.waitFor(() => expect(messages.map(({ type }) => type)).toContain("MutationResponse"), WITHIN);
      answers.push(messages.find(({ type }) => type === "MutationResponse")!.result);
      socket.terminate();
    }
    expect(answers).toEqual([{ changed: true }, { changed: true }]);
    const { changed } = await served.client("alice").mutation(api.nodes.resume, { tenant_id: "acme", node_id: "n1" });
    expect(changed).toBe(true);
  });
});

test("an action by socket answers, and what it changed is seen", async () => {
  const client = served.client("alice");
  const nodes = new Seen<Nodes>(client, api.nodes.list, { tenant_id: "acme" });
  const { enrolment_token } = await client.action(api.nodes.create, { tenant_id: "acme", node_id: "made-by-socket" });
  expect(enrolment_token).toMatch(/^byoc1\.made-by-socket\./);
  await vi.waitFor(() => expect(nodes.last?.map(({ node_id }) => node_id)).toContain("made-by-socket"), WITHIN);
  const again = client.action(api.nodes.create, { tenant_id: "acme", node_id: "made-by-socket" });
  expect(codeOf(await again.then(undefined, (error: Error) => error))).toBe("conflict");
});

// The last: the server forgets.
test("a client comes back after a restart of the server, with its subscriptions and mutations", async () => {
  const client = served.client("alice");
  const jobs = jobsOf(client);
  const lost = await newJob();
  await vi.waitFor(() => expect(stateOf(jobs, lost)).toBe("queued"), WITHIN);
  await served.restart();
  await served.hear("n1");
  const drained = client.mutation(api.nodes.drain, { tenant_id: "acme", node_id: "n1" });
  const job_id = await newJob();
  await vi.waitFor(() => expect(stateOf(jobs, job_id)).toBe("queued"), WITHIN);
  expect(stateOf(jobs, lost)).toBeUndefined();
  expect(await drained).toEqual({ changed: true });
});

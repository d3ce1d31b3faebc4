// Tokens of machines: shown once, kept as a hash, for some scopes and some days, until they are revoked.
import { afterEach, expect, test, vi } from "vitest";
import { api } from "../../convex/_generated/api";
import { deployment, errorCode, hashOf } from "./fixtures";

const DAY_MS = 86_400_000;
const WANTED = { tenant_id: "acme", name: "pipeline", scopes: ["jobs:submit", "jobs:read"], days: 30 };

afterEach(() => {
  vi.useRealTimers();
});

async function withToken(wanted: Partial<typeof WANTED> = {}) {
  const all = await deployment();
  const alice = all.user("alice");
  const made = await alice.action(api.serviceTokens.create, { ...WANTED, ...wanted });
  return {
    ...all,
    alice,
    made,
    found: async (text = made.token) =>
      all.service().query(api.registry.serviceToken, { hash: await hashOf(text) }),
    revoke: (tenant_id = "acme", token_id = made.token_id) =>
      all.user(tenant_id === "acme" ? "alice" : "mallory").mutation(api.serviceTokens.revoke, { tenant_id, token_id }),
  };
}

test("its text is shown once and found by its hash", async () => {
  const { made, found, alice, rows } = await withToken();
  expect(made.token).toMatch(/^byoc_st_[A-Za-z0-9_-]{43}$/);
  const { token, ...kept } = made;
  expect(await found()).toEqual({ ...kept, tenant_id: "acme", scopes: ["jobs:read", "jobs:submit"] });
  expect(await found("byoc_st_another")).toBeNull();
  const [listed] = await alice.query(api.serviceTokens.list, { tenant_id: "acme" });
  expect(listed).toMatchObject({ ...kept, name: "pipeline", created_by: "https://product.test|alice" });
  const [everything, hash] = [JSON.stringify(await rows("serviceTokens")), await hashOf(token)];
  expect(everything).toContain(hash);
  expect(everything).not.toContain(token);
  expect(JSON.stringify(listed)).not.toContain(hash);
});

test.each([
  { scopes: [] },
  { scopes: ["jobs:submit", "jobs:submit"] },
  { scopes: ["projections:write"] },
  { scopes: ["jobs:submit jobs:read"] },
  { days: 0 },
  { days: 366 },
  { days: 1.5 },
  { days: NaN },
  { name: "" },
  { name: "a".repeat(65) },
  { name: "a\nb" },
])("%j makes no token", async (wanted) => {
  const { user, rows } = await deployment();
  const made = user("alice").action(api.serviceTokens.create, { ...WANTED, ...wanted });
  expect(await errorCode(made)).toBe("invalid");
  expect(await rows("serviceTokens")).toEqual([]);
});

test("a revoked one is unknown; that is the tenant's alone to say", async () => {
  const { found, revoke, audited, made } = await withToken();
  expect(await errorCode(revoke("rival"))).toBe("not_found");
  expect(await errorCode(revoke("acme", "st-none"))).toBe("not_found");
  expect(await revoke()).toEqual({ changed: true });
  expect(await found()).toBeNull();
  expect(await revoke()).toEqual({ changed: false });
  expect(await audited()).toEqual([
    `acme service_token.created ${made.token_id}`,
    `acme service_token.revoked ${made.token_id}`,
  ]);
});

test("it ends at its time, and not before", async () => {
  vi.useFakeTimers();
  const { found, t, made } = await withToken({ days: 30 });
  const advance = async (days: number) => {
    await vi.advanceTimersByTimeAsync(days * DAY_MS);
    await t.finishInProgressScheduledFunctions();
  };
  for (let day = 0; day < 29; day += 1) await advance(1);
  expect((await found())?.expires_at).toBe(made.expires_at);
  await advance(1.01);
  expect(await found()).toBeNull();
});

test("the tenant sees its tokens alone, the newest first", async () => {
  const { alice, user } = await withToken();
  await alice.action(api.serviceTokens.create, { ...WANTED, name: "another" });
  const list = (who: typeof alice, tenant_id: string) => who.query(api.serviceTokens.list, { tenant_id });
  expect((await list(alice, "acme")).map(({ name }) => name)).toEqual(["another", "pipeline"]);
  expect(await list(user("mallory"), "rival")).toEqual([]);
});

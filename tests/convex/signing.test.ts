// TypeScript signs what Python verifies: the same payload and the same key name, as the golden vector shows.
import { compactVerify, importJWK } from "jose";
import { afterEach, expect, test } from "vitest";
import { api } from "../../convex/_generated/api";
import { canonicalJson } from "../../convex/canonical";
import { signCommand } from "../../convex/signing";
import vector from "../contracts/vectors/command-signature.v1.json";
import { deployment, errorCode, SIGNING_KEY } from "./fixtures";

const { operation, idempotency_key, body } = vector;

afterEach(() => {
  process.env.BYOC_SIGNING_KEY = JSON.stringify(SIGNING_KEY);
});

/** The payload under a detached signature, put back into place, and the header; throws if the signature is wrong. */
async function verified(signature: string, payload: string) {
  const { d: _, ...jwk } = SIGNING_KEY;
  const attached = signature.replace("..", `.${Buffer.from(payload).toString("base64url")}.`);
  const result = await compactVerify(attached, await importJWK(jwk, "ES256"), { algorithms: ["ES256"] });
  return result.protectedHeader;
}

test("the intent of the vector has one text", () => {
  expect(canonicalJson({ operation, idempotency_key, body })).toBe(vector.payload);
});

test("the vector's signature holds, and so does one of our own", async () => {
  await deployment();
  const own = await signCommand(operation, idempotency_key, body);
  expect(own).toMatch(/^[A-Za-z0-9_-]{1,512}\.\.[A-Za-z0-9_-]{1,512}$/);
  for (const signature of [vector.signature, own]) {
    expect(await verified(signature, vector.payload)).toEqual({ alg: "ES256", kid: SIGNING_KEY.kid });
  }
  await expect(verified(own, vector.payload.replace("acme", "rival"))).rejects.toThrow("verification failed");
});

test("a request without a key signs null", async () => {
  await deployment();
  const payload = canonicalJson({ operation: "cancel", idempotency_key: null, body: {} });
  await expect(verified(await signCommand("cancel", null, {}), payload)).resolves.toBeDefined();
});

test.each([
  [{ b: 1, a: [true, null, "x"] }, '{"a":[true,null,"x"],"b":1}'],
  [
    { "\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\u{1f600}": 5, "\u0080": 6, "\u00f6": 7 },
    '{"\\r":2,"1":4,"\u0080":6,"\u00f6":7,"\u20ac":1,"\u{1f600}":5,"\ufb33":3}',
  ],
  ["\u0000\b\n\u001f\"\\/\u2028\u00e9", '"\\u0000\\b\\n\\u001f\\"\\\\/\u2028\u00e9"'],
  [[0, -0, 1e21, 1e-7, 1e-6, 4.5, 2e-3, 1e30], "[0,0,1e+21,1e-7,0.000001,4.5,0.002,1e+30]"],
])("canonical text %#", (value, text) => {
  expect(canonicalJson(value)).toBe(text);
});

test.each([NaN, Infinity, 2 ** 53, -(2 ** 53), 1e20 / 3, "\ud800", { "\udfff": 1 }, undefined, 1n, () => 0])(
  "%s has no canonical form",
  (value) => {
    expect(() => canonicalJson({ a: [value] })).toThrow(TypeError);
  },
);

test.each([
  undefined,
  "",
  '{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA"}',
  JSON.stringify({ ...SIGNING_KEY, crv: "P-384" }),
  `${SIGNING_KEY.d} is not JSON`,
  "null",
])("no signature by what is no key of ours (%#)", async (key) => {
  await deployment();
  if (key === undefined) delete process.env.BYOC_SIGNING_KEY;
  else process.env.BYOC_SIGNING_KEY = key;
  const signed = signCommand("submit", null, {});
  const error = await signed.then(
    () => "signed",
    (thrown: Error) => thrown.message,
  );
  expect(await errorCode(signed)).toBe("not_configured");
  expect(error).not.toContain(SIGNING_KEY.d);
});

test("the public keys: the current one and the former, never a private part", async () => {
  const { service } = await deployment();
  const { d: _, ...current } = SIGNING_KEY;
  const pair = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign"]);
  const former = await crypto.subtle.exportKey("jwk", pair.privateKey);
  process.env.BYOC_SIGNING_KEYS_FORMER = JSON.stringify({ keys: [former] });
  const { keys } = await service().query(api.registry.productKeys, {});
  expect(keys[0]).toEqual(current);
  expect(keys[1]).toMatchObject({ kty: "EC", crv: "P-256", x: former.x, y: former.y, alg: "ES256", use: "sig" });
  expect(JSON.stringify(keys)).not.toContain('"d"');
});

test.each(["[]", "{}", '{"keys": [null]}', "no JSON"])("former keys must be a set of keys: %s", async (former) => {
  const { service } = await deployment();
  process.env.BYOC_SIGNING_KEYS_FORMER = former;
  expect(await errorCode(service().query(api.registry.productKeys, {}))).toBe("not_configured");
});

test("a product without signing key says so by an empty set", async () => {
  const { service } = await deployment();
  delete process.env.BYOC_SIGNING_KEY;
  expect(await service().query(api.registry.productKeys, {})).toEqual({ keys: [] });
});

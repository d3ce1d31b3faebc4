// The product's signature under its commands, which nodes verify: `docs/contracts/command-signature.md`.
// The private key is the deployment variable BYOC_SIGNING_KEY, an ES256 key as a JWK (RFC 7517).
import { canonicalJson } from "./canonical";
import { refusal } from "./functions";
import { base64url, sha256 } from "./secrets";

type Jwk = { kty?: string; crv?: string; x?: string; y?: string; d?: string };

/** What nodes know of a signing key. */
export type ProductKey = { kty: "EC"; crv: "P-256"; x: string; y: string; kid: string; alg: "ES256"; use: "sig" };

/**
 * Signs a command: a detached JWS, `<protected header>..<signature>`, for the header `Byoc-Signature`.
 * `operation` and `idempotencyKey` (null where the request has none) are those of the request, `body` is what its JSON
 * says. Call it in actions: the signature draws a random number.
 * Errors: `not_configured`; a TypeError for a body without canonical form.
 */
export async function signCommand(operation: string, idempotencyKey: string | null, body: object): Promise<string> {
  const jwk = privateKey();
  const payload = encoded(canonicalJson({ body, idempotency_key: idempotencyKey, operation }));
  const { header, signature } = await jws(jwk, { alg: "ES256", kid: await thumbprint(jwk) }, payload);
  return `${header}..${signature}`;
}

/** A JWT (RFC 7519) with these claims, signed by the private P-256 key in a deployment variable. Errors: as above. */
export async function signToken(variable: string, claims: object): Promise<string> {
  const jwk = privateKey(variable);
  const payload = encoded(canonicalJson(claims));
  const { header, signature } = await jws(jwk, { alg: "ES256", kid: await thumbprint(jwk), typ: "JWT" }, payload);
  return `${header}.${payload}.${signature}`;
}

async function jws(jwk: Jwk, protectedHeader: object, payload: string) {
  const algorithm = { name: "ECDSA", namedCurve: "P-256" };
  const key = await crypto.subtle.importKey("jwk", jwk, algorithm, false, ["sign"]);
  const header = encoded(canonicalJson(protectedHeader));
  const input = new TextEncoder().encode(`${header}.${payload}`);
  const signature = await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, key, input);
  return { header, signature: base64url(new Uint8Array(signature)) };
}

/** The thumbprint of the key that signs now: enrolment tokens carry it past the adapter. Errors: `not_configured`. */
export function signingKeyId(): Promise<string> {
  return thumbprint(privateKey());
}

/** The public keys: the one that signs now first, then those of BYOC_SIGNING_KEYS_FORMER (a JWK Set). */
export async function productKeys(): Promise<ProductKey[]> {
  const keys = process.env.BYOC_SIGNING_KEY ? [privateKey()] : [];
  const former = process.env.BYOC_SIGNING_KEYS_FORMER;
  if (former) {
    const set = (parsed(former) as { keys?: unknown }).keys;
    if (!Array.isArray(set)) throw malformed();
    keys.push(...set.map((key) => checked(key as Jwk)));
  }
  return Promise.all(
    keys.map(async (key) => ({ ...publicMembers(key), kid: await thumbprint(key), alg: "ES256", use: "sig" }) as const),
  );
}

function privateKey(variable = "BYOC_SIGNING_KEY"): Jwk {
  const text = process.env[variable];
  if (!text) {
    throw refusal("not_configured", `The deployment variable ${variable} is not set; convex/README.md says how`);
  }
  const { kty, crv, x, y, d } = checked(parsed(text) as Jwk);
  return { kty, crv, x, y, d };
}

// What is thrown names the variables, never what stands in them, as the parser's own errors would.
function parsed(text: string): object {
  try {
    return Object(JSON.parse(text)) as object;
  } catch {
    throw malformed();
  }
}

function checked(key: Jwk): Jwk {
  if (key?.kty !== "EC" || key.crv !== "P-256" || !key.x || !key.y) throw malformed();
  return key;
}

function malformed() {
  return refusal(
    "not_configured",
    "BYOC_SIGNING_KEY and BYOC_COMMAND_KEY must be P-256 keys as JWK, BYOC_SIGNING_KEYS_FORMER a set of such",
  );
}

function publicMembers({ x, y }: Jwk) {
  return { kty: "EC", crv: "P-256", x: x!, y: y! } as const;
}

async function thumbprint(key: Jwk): Promise<string> {
  return base64url(await sha256(canonicalJson(publicMembers(key))));
}

function encoded(text: string): string {
  return base64url(new TextEncoder().encode(text));
}

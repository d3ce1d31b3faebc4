import { base64url } from "jose";
import { canonicalJson } from "../../convex/canonical";

type Jwk = { kty: string; crv: string; x: string; y: string };

/** Whether a node would take this signature: a detached JWS over operation, key and body. */
export async function verifySignature(
  signature: string,
  { kty, crv, x, y }: Jwk,
  operation: string,
  idempotency_key: string | null,
  body: object,
): Promise<boolean> {
  const [header, signed] = signature.split("..") as [string, string];
  const payload = base64url.encode(canonicalJson({ operation, idempotency_key, body }));
  const algorithm = { name: "ECDSA", namedCurve: "P-256" };
  const key = await crypto.subtle.importKey("jwk", { kty, crv, x, y }, algorithm, false, ["verify"]);
  const input = new TextEncoder().encode(`${header}.${payload}`);
  return crypto.subtle.verify({ name: "ECDSA", hash: "SHA-256" }, key, new Uint8Array(base64url.decode(signed)), input);
}

// What the registration of a node is made of. `docs/contracts/node-enrolment.md`.
import { v, type Infer } from "convex/values";
import { base64url, sha256 } from "./secrets";

/** `draining` is the product's wish; what the node says of itself stands in its heartbeat. */
export const registryState = v.union(v.literal("active"), v.literal("draining"), v.literal("revoked"));

/** The public half of an Ed25519 key (RFC 8037) and its name everywhere, its thumbprint (RFC 7638). */
export const publicKey = v.object({
  key_id: v.string(),
  jwk: v.object({ kty: v.literal("OKP"), crv: v.literal("Ed25519"), x: v.string() }),
});
export type PublicKey = Infer<typeof publicKey>;

export const nodeKey = v.object({ ...publicKey.fields, added_at: v.string() });

/** A one-time token; `used_by` is the key that redeemed it. */
export const enrolment = v.object({
  tenant_id: v.string(),
  secret_hash: v.string(), // hex SHA-256 of the 43 characters
  expires_at: v.string(),
  used_by: v.optional(v.string()),
});

/** Whether the key is a key, under its own thumbprint. */
export async function bearsItsName({ key_id, jwk }: PublicKey): Promise<boolean> {
  const members = JSON.stringify({ crv: jwk.crv, kty: jwk.kty, x: jwk.x });
  return /^[A-Za-z0-9_-]{43}$/.test(jwk.x) && key_id === base64url(await sha256(members));
}

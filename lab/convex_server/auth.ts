// Who calls: what the Authorization header says, by the rules of Convex for customJwt providers and deploy keys.
import { timingSafeEqual } from "node:crypto";
import type { UserIdentity } from "convex/server";
import { createLocalJWKSet, decodeJwt, jwtVerify, type JSONWebKeySet, type JWTPayload } from "jose";
import type { Config } from "./config";
import { HttpError } from "./errors";

const CLOCK_TOLERANCE_SECONDS = 5;
const REGISTERED_CLAIMS = new Set(["iss", "sub", "aud", "exp", "nbf", "iat", "jti"]);

/**
 * `admin` may run internal functions; `identity` is what `ctx.auth.getUserIdentity()` answers; `expires` is when the
 * token does, in Unix milliseconds and with the tolerance.
 */
export type Caller = { admin: boolean; identity?: Partial<UserIdentity>; expires?: number };

type Provider = {
  issuer: string;
  applicationID: string;
  algorithm: string;
  keys: ReturnType<typeof createLocalJWKSet>;
};

export class Authenticator {
  private constructor(
    private readonly adminKey: string,
    private readonly providers: Provider[],
  ) {}

  /** Reads the providers of `convex/auth.config.ts` and their key sets. */
  static async create({ adminKey }: Config): Promise<Authenticator> {
    const { default: authConfig } = await import("../../convex/auth.config");
    const providers = authConfig.providers.map(async ({ jwks, ...provider }) => {
      const keySet = (await (await fetch(jwks)).json()) as JSONWebKeySet;
      return { ...provider, issuer: normalised(provider.issuer), keys: createLocalJWKSet(keySet) };
    });
    return new Authenticator(adminKey, await Promise.all(providers));
  }

  /** Throws HttpError 400 (not an Authorization header), 401 (token) or 403 (key). */
  async authenticate(header: string | undefined): Promise<Caller> {
    if (header === undefined) return { admin: false };
    const [, scheme, credential] = /^(convex|bearer) +(.*)$/i.exec(header) ?? [];
    if (scheme === undefined || credential === undefined) {
      throw new HttpError(400, "InvalidHeaderFailure", "Invalid authentication header");
    }
    return scheme.toLowerCase() === "convex" ? this.byKey(credential) : this.byToken(credential.trim());
  }

  // "[prod:name|]key[:base64 of the identity to act as]"
  private byKey(credential: string): Caller {
    const [key = "", actingAs] = credential.slice(credential.indexOf("|") + 1).split(":", 2);
    if (!sameText(key, this.adminKey)) {
      throw new HttpError(403, "BadDeployKey", "The provided deploy key was invalid for this deployment.");
    }
    return actingAs === undefined ? { admin: true } : { admin: true, identity: actedIdentity(actingAs) };
  }

  private async byToken(token: string): Promise<Caller> {
    const provider = this.providerOf(token);
    try {
      const { payload, protectedHeader } = await jwtVerify(token, provider.keys, {
        algorithms: [provider.algorithm],
        clockTolerance: CLOCK_TOLERANCE_SECONDS,
        requiredClaims: ["iss", "sub", "exp"],
      });
      if (protectedHeader.kid === undefined) throw new Error("The JWT is missing a 'kid' (key ID) header");
      const expires = (payload.exp! + CLOCK_TOLERANCE_SECONDS) * 1000;
      return { admin: false, identity: identityOf(payload), expires };
    } catch (error) {
      throw invalidToken(`Could not validate token: ${(error as Error).message}`);
    }
  }

  // By issuer and audience, as yet unverified; the provider's keys then prove them.
  private providerOf(token: string): Provider {
    let claims: JWTPayload;
    try {
      claims = decodeJwt(token);
    } catch {
      throw invalidToken("Could not parse JWT payload");
    }
    const { iss, aud } = claims;
    if (typeof iss !== "string") throw invalidToken("Missing issuer claim ('iss') in JWT payload");
    const provider = this.providers.find(
      ({ issuer, applicationID }) => issuer === normalised(iss) && [aud].flat().includes(applicationID),
    );
    if (provider === undefined) {
      throw new HttpError(401, "NoAuthProvider", "No auth provider found matching the given token");
    }
    return provider;
  }
}

function invalidToken(message: string): HttpError {
  return new HttpError(401, "InvalidAuthHeader", message);
}

function normalised(issuer: string): string {
  return (/^https?:\/\//.test(issuer) ? issuer : `https://${issuer}`).replace(/\/+$/, "");
}

function sameText(one: string, other: string): boolean {
  const [left, right] = [Buffer.from(one), Buffer.from(other)];
  return left.length === right.length && timingSafeEqual(left, right);
}

function identityOf(payload: JWTPayload): Partial<UserIdentity> {
  const { iss, sub } = payload as { iss: string; sub: string };
  const custom = Object.entries(payload).filter(([claim]) => !REGISTERED_CLAIMS.has(claim));
  return {
    ...flattened(Object.fromEntries(custom)),
    issuer: iss,
    subject: sub,
    tokenIdentifier: `${iss}|${sub}`,
  };
}

// {"a": {"b": 1}} reaches functions as {"a.b": 1}.
function flattened(claims: object, prefix = ""): Record<string, string> {
  const flat: Record<string, string> = {};
  for (const [name, value] of Object.entries(claims)) {
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      Object.assign(flat, flattened(value as object, `${prefix}${name}.`));
    } else {
      flat[prefix + name] = value as string;
    }
  }
  return flat;
}

function actedIdentity(encoded: string): Partial<UserIdentity> {
  const malformed = new HttpError(400, "HeaderParseFailure", "Malformed Authorization header.");
  let identity: Partial<UserIdentity>;
  try {
    identity = JSON.parse(Buffer.from(encoded, "base64").toString()) as Partial<UserIdentity>;
  } catch {
    throw malformed;
  }
  if (!identity.tokenIdentifier && !(identity.issuer && identity.subject)) throw malformed;
  return identity;
}

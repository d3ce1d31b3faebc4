import type { AuthConfig } from "convex/server";

// Users and the adapter come from different issuers: an issuer names the key set that is asked, so no user token
// can ever pass for the service.
if (process.env.BYOC_PRODUCT_ISSUER === process.env.BYOC_SERVICE_ISSUER) {
  throw new Error("BYOC_PRODUCT_ISSUER and BYOC_SERVICE_ISSUER must be set, and differ");
}

export default {
  providers: [
    {
      type: "customJwt",
      applicationID: "convex",
      issuer: process.env.BYOC_PRODUCT_ISSUER!,
      jwks: process.env.BYOC_PRODUCT_JWKS!,
      algorithm: "ES256",
    },
    {
      type: "customJwt",
      applicationID: "convex",
      issuer: process.env.BYOC_SERVICE_ISSUER!,
      jwks: process.env.BYOC_SERVICE_JWKS!,
      algorithm: "ES256",
    },
  ],
} satisfies AuthConfig;

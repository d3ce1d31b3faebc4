export type Config = {
  port: number; // 0: any free one; the ready line says which
  adminKey: string;
};

// The functions and auth.config.ts read these themselves, as a deployment's environment variables.
const DEPLOYMENT_VARIABLES = [
  "BYOC_PRODUCT_ISSUER",
  "BYOC_PRODUCT_JWKS",
  "BYOC_SERVICE_ISSUER",
  "BYOC_SERVICE_JWKS",
  "BYOC_SIGNING_KEY",
];

/** The server's configuration; throws an error that names what is missing or malformed. */
export function configure(env: NodeJS.ProcessEnv): Config {
  const needed = ["CONVEX_SERVER_PORT", "CONVEX_SERVER_ADMIN_KEY", ...DEPLOYMENT_VARIABLES];
  const missing = needed.filter((name) => !env[name]);
  if (missing.length > 0) throw new Error(`not set in the environment: ${missing.join(", ")}`);
  const port = Number(env.CONVEX_SERVER_PORT);
  if (!Number.isInteger(port) || port < 0 || port > 65535) throw new Error("CONVEX_SERVER_PORT is not a port");
  const adminKey = env.CONVEX_SERVER_ADMIN_KEY!;
  if (/[:|\s]/.test(adminKey)) throw new Error("CONVEX_SERVER_ADMIN_KEY may hold no colon, bar or space");
  return { port, adminKey };
}

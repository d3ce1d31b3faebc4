// The lab's server as a process, and the official clients on a socket to it.
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { ConvexClient } from "convex/browser";
import type { FunctionReference } from "convex/server";
import { exportJWK, generateKeyPair, SignJWT, type JWTPayload } from "jose";
import { WebSocket } from "ws";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const SERVICE_SCOPE = "projections:write heartbeats:write registry:read registry:write";
const ADMIN_KEY = "an-admin-key";
const KID = "k1";

/** How long to wait for what must come (vi.waitFor). */
export const WITHIN = { timeout: 20_000, interval: 10 };
/** For tests that wait more than once (vi.setConfig). */
export const PATIENCE = { testTimeout: 60_000, hookTimeout: 60_000 };

async function issuer(iss: string) {
  const { privateKey, publicKey } = await generateKeyPair("ES256", { extractable: true });
  const keys = { keys: [{ ...(await exportJWK(publicKey)), kid: KID, alg: "ES256", use: "sig" }] };
  return {
    iss,
    jwks: `data:application/json,${encodeURIComponent(JSON.stringify(keys))}`,
    privateKey,
    token: (sub: string, seconds = 300, claims: JWTPayload = {}) =>
      new SignJWT({ iss, sub, aud: "convex", ...claims })
        .setProtectedHeader({ alg: "ES256", kid: KID, typ: "JWT" })
        .setIssuedAt()
        .setExpirationTime(Math.floor(Date.now() / 1000) + seconds)
        .sign(privateKey),
  };
}

/** A server with the tenants `acme` (owner alice, node n1) and `rival` (owner mallory, node n2). */
export async function serve() {
  const [product, service, strangers, signer] = await Promise.all([
    issuer("https://product.test"),
    issuer("https://adapter.test"),
    issuer("https://product.test"),
    issuer("https://product.test"),
  ]);
  const signing = { ...(await exportJWK(signer.privateKey)), kid: KID };
  const clients: { close(): unknown }[] = [];
  let process_: ChildProcess | undefined;
  let url = "";

  async function start(port: string): Promise<void> {
    process_ = spawn(process.execPath, ["--import", "tsx", `${ROOT}lab/convex_server/main.ts`], {
      cwd: ROOT,
      stdio: ["ignore", "pipe", "inherit"],
      env: {
        ...process.env,
        TSX_DISABLE_CACHE: "1", // it would stay behind
        CONVEX_SERVER_PORT: port,
        CONVEX_SERVER_ADMIN_KEY: ADMIN_KEY,
        BYOC_PRODUCT_ISSUER: product.iss,
        BYOC_PRODUCT_JWKS: product.jwks,
        BYOC_SERVICE_ISSUER: service.iss,
        BYOC_SERVICE_JWKS: service.jwks,
        BYOC_SIGNING_KEY: JSON.stringify(signing),
      },
    });
    const lines = createInterface({ input: process_.stdout! });
    url = await new Promise<string>((resolve, reject) => {
      lines.on("line", (line) => line.startsWith("ready ") && resolve(line.slice("ready ".length)));
      process_!.once("exit", (code) => reject(new Error(`the server ended with ${code}`)));
    });
    await call("mutation", "tenancy:seed", {
      tenants: [{ tenant_id: "acme" }, { tenant_id: "rival" }],
      memberships: [
        { tenant_id: "acme", token_identifier: `${product.iss}|alice`, role: "owner" },
        { tenant_id: "rival", token_identifier: `${product.iss}|mallory`, role: "owner" },
      ],
      nodes: [
        { node_id: "n1", tenant_ids: ["acme"], owner: "acme" },
        { node_id: "n2", tenant_ids: ["rival"], owner: "rival" },
      ],
    });
  }

  async function call(
    kind: string,
    path: string,
    args: object,
    authorization = `Convex ${ADMIN_KEY}`,
  ): Promise<unknown> {
    const response = await fetch(`${url}/api/${kind}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: authorization },
      body: JSON.stringify({ path, args, format: "json" }),
    });
    const answer = (await response.json()) as { status?: string; value?: unknown };
    if (answer.status !== "success") throw new Error(`${path}: ${response.status} ${JSON.stringify(answer)}`);
    return answer.value;
  }

  async function stop(): Promise<void> {
    const exited = once(process_!, "exit");
    process_!.kill("SIGKILL");
    await exited;
  }

  await start("0");
  return {
    get url() {
      return url;
    },
    product,
    /** Signs as the product, with another key. */
    strangers,
    call,
    /** Ends the server, forgetting everything, and starts it again where it was. */
    async restart() {
      await stop();
      await start(new URL(url).port);
    },
    async end() {
      await Promise.all(clients.map((client) => client.close()));
      await stop();
    },
    /** Has a node be heard, now. */
    async hear(node_id: string) {
      const token = await service.token("adapter", 300, { scope: SERVICE_SCOPE, node_id });
      const args = { node_id, report: {}, received_at: new Date().toISOString() };
      await call("mutation", "nodes:recordHeartbeat", args, `Bearer ${token}`);
    },
    /** Applies updates as the adapter does, over HTTP. */
    async apply(node_id: string, updates: object[]) {
      const token = await service.token("adapter", 300, { scope: SERVICE_SCOPE, node_id });
      const answer = await call("mutation", "projections:applyProjections", { updates }, `Bearer ${token}`);
      const { outcomes } = answer as { outcomes: { outcome: string }[] };
      if (outcomes.some(({ outcome }) => outcome !== "applied")) throw new Error(JSON.stringify(outcomes));
    },
    /** The official client; `subject` undefined is nobody. */
    client(subject?: string, token = (sub: string) => product.token(sub)) {
      const client = new ConvexClient(url, { logger: false, unsavedChangesWarning: false });
      clients.push(client);
      if (subject !== undefined) client.setAuth(() => token(subject));
      return client;
    },
    /** A socket without a client: what it is sent, and how it ends. */
    async socket(path = "/api/1.44.0/sync") {
      const socket = new WebSocket(url.replace("http", "ws") + path);
      clients.push(socket);
      const messages: { type: string; [field: string]: unknown }[] = [];
      socket.on("message", (data: Buffer) => messages.push(JSON.parse(data.toString()) as (typeof messages)[0]));
      const closed = new Promise<{ code: number; reason: string }>((resolve) =>
        socket.once("close", (code, reason) => resolve({ code, reason: reason.toString() })),
      );
      await once(socket, "open");
      return { socket, messages, closed, say: (message: object) => socket.send(JSON.stringify(message)) };
    },
  };
}

/** What a subscription was given, one after the other. */
export class Seen<Value> {
  readonly values: Value[] = [];
  readonly errors: Error[] = [];

  constructor(client: ConvexClient, query: FunctionReference<"query">, args: object) {
    client.onUpdate(
      query,
      args,
      (value: Value) => this.values.push(value),
      (error) => this.errors.push(error),
    );
  }

  get last(): Value | undefined {
    return this.values.at(-1);
  }
}

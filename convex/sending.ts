// The product as a client of the adapter: one request, by a credential for one tenant and one purpose.
import { again, read, type Answer } from "./verdicts";
import { signCommand, signToken } from "./signing";

/** The adapter answers within 20 s, whatever the node does. */
const TIMEOUT_MS = 30_000;
const TOKEN_SECONDS = 120;

export type Sent = {
  tenant_id: string;
  command_id: string;
  operation: "submit" | "cancel";
  node_id: string;
  job_id: string;
  body: string;
};

/** Sends the command once and says what the answer means; it throws nothing. */
export async function send(command: Sent): Promise<Answer> {
  let request: { url: string; init: RequestInit };
  try {
    request = await prepared(command);
  } catch (error) {
    const data = (error as { data?: { message?: string } }).data;
    const message = data?.message ?? "The product's keys or the adapter's address cannot be used.";
    return { ...again("not-configured", message), clean: true };
  }
  try {
    const response = await fetch(request.url, { ...request.init, signal: AbortSignal.timeout(TIMEOUT_MS) });
    const [type, retryAfter] = [response.headers.get("Content-Type"), response.headers.get("Retry-After")];
    return read({ status: response.status, type, retryAfter, body: await response.text() }, command.job_id);
  } catch (error) {
    // What exactly went wrong may name addresses; whether the node has heard of it nobody knows.
    return (error as Error | undefined)?.name === "TimeoutError"
      ? again("adapter-silent", "The adapter did not answer in time.")
      : again("adapter-unreachable", "The adapter cannot be reached.");
  }
}

async function prepared({ tenant_id, command_id, operation, node_id, job_id, body }: Sent) {
  const path = operation === "submit" ? "jobs" : `jobs/${job_id}/cancel`;
  const url = new URL(`v1/nodes/${node_id}/${path}`, `${process.env.BYOC_ADAPTER_URL!.replace(/\/+$/, "")}/`);
  const now = Math.floor(Date.now() / 1_000);
  const token = await signToken("BYOC_COMMAND_KEY", {
    iss: process.env.BYOC_COMMAND_ISSUER,
    sub: "product",
    aud: process.env.BYOC_ADAPTER_AUDIENCE || "byoc-adapter",
    iat: now,
    exp: now + TOKEN_SECONDS,
    tenant_id,
    scope: operation === "submit" ? "jobs:submit" : "jobs:cancel",
  });
  const key = operation === "submit" ? command_id : null;
  const headers = {
    Authorization: `Bearer ${token}`,
    "Content-Type": "application/json",
    "Byoc-Signature": await signCommand(operation, key, JSON.parse(body) as object),
    ...(key === null ? {} : { "Idempotency-Key": `"${key}"` }),
  };
  // No other place is to see the credential.
  return { url: url.href, init: { method: "POST", headers, body, redirect: "manual" } satisfies RequestInit };
}

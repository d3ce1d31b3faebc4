// Where the product's functions and the adapter are: read when the page starts, so that one build serves every place.
export type Picked = { tenant_id: string; user_id: string; token: string };

export type Config = {
  convex_url: string;
  adapter_url: string;
  tenants: Picked[]; // who the sign-in page offers, in a lab; a product has none
};

/** Reads `config.json` beside the page. Errors: one that says what is wrong with it. */
export async function loadConfig(): Promise<Config> {
  const place = new URL("config.json", document.baseURI);
  let content: unknown;
  try {
    const response = await fetch(place, { cache: "no-cache" });
    if (!response.ok) throw new Error(`the server answers ${response.status}`);
    content = await response.json();
  } catch (error) {
    throw new Error(`${place.pathname} cannot be read: ${(error as Error).message}`);
  }
  return checked(content);
}

/** The configuration that `content` holds. Errors: one that names the field at fault. */
export function checked(content: unknown): Config {
  if (typeof content !== "object" || content === null) throw new Error("config.json must hold an object");
  const { convex_url, adapter_url, tenants = [] } = content as Record<string, unknown>;
  if (!Array.isArray(tenants)) throw new Error("config.json: tenants must be a list");
  return {
    convex_url: address("convex_url", convex_url),
    adapter_url: address("adapter_url", adapter_url),
    tenants: tenants.map((tenant, index) => picked(tenant, `tenants[${index}]`)),
  };
}

/** Lets the page speak to these servers only; a policy can be narrowed, never widened. */
export function narrowConnections({ convex_url, adapter_url }: Config): void {
  const { origin, host, protocol } = new URL(convex_url);
  const socket = `${protocol === "https:" ? "wss" : "ws"}://${host}`;
  const policy = document.createElement("meta");
  policy.httpEquiv = "Content-Security-Policy";
  policy.content = `connect-src 'self' ${origin} ${socket} ${new URL(adapter_url).origin}`;
  document.head.append(policy);
}

function address(field: string, value: unknown): string {
  if (typeof value !== "string" || !/^https?:\/\//.test(value) || !URL.canParse(value)) {
    throw new Error(`config.json: ${field} must be an address that begins with https:// or http://`);
  }
  return value.replace(/\/+$/, "");
}

function picked(value: unknown, where: string): Picked {
  const { tenant_id, user_id, token } = (value ?? {}) as Record<string, unknown>;
  if (typeof tenant_id !== "string" || typeof user_id !== "string" || typeof token !== "string") {
    throw new Error(`config.json: ${where} must have tenant_id, user_id and token`);
  }
  return { tenant_id, user_id, token };
}

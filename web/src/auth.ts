// Who is signed in. A product replaces this module by its own sign-in: Convex and the adapter ask `token` alone, and ask
// again before the token that they have expires.
export type SignedIn = {
  label: string; // shown in the page's header
  tenant_id?: string; // where to begin
  token: (options?: { forceRefreshToken: boolean }) => Promise<string>;
};

const KEPT = "byoc.token";

/** Takes a token that somebody pasted or picked; it lives as long as the tab. Errors: one that says what it is not. */
export function signIn(text: string): SignedIn {
  const token = text.trim();
  const signedIn = read(token);
  sessionStorage.setItem(KEPT, token);
  return signedIn;
}

/** Who is signed in in this tab, if anybody. */
export function restored(): SignedIn | null {
  const token = sessionStorage.getItem(KEPT);
  try {
    return token === null ? null : read(token);
  } catch {
    return null;
  }
}

export function signOut(): void {
  sessionStorage.removeItem(KEPT);
}

// Read for display alone: whoever is asked with the token verifies it.
function read(token: string): SignedIn {
  const [, payload, signature] = token.split(".");
  if (!payload || !signature) throw new Error("This is no token: it should be three words with dots between them");
  let claims: Record<string, unknown>;
  try {
    const bytes = Uint8Array.from(atob(payload.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
    claims = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
  } catch {
    throw new Error("This is no token: its middle part cannot be read");
  }
  const { sub, exp, tenant_id } = claims;
  if (typeof exp === "number" && exp * 1000 < Date.now()) {
    throw new Error(`This token expired at ${new Date(exp * 1000).toISOString()}: get a new one`);
  }
  return {
    label: typeof sub === "string" ? sub : "signed in",
    ...(typeof tenant_id === "string" ? { tenant_id } : {}),
    token: () => Promise.resolve(token),
  };
}

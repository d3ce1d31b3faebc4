// Convex lets pages of every origin call it: what a caller may do is said by its token alone.
import type { IncomingMessage, ServerResponse } from "node:http";

const METHODS = "GET,POST,OPTIONS,PATCH,DELETE,PUT";
const HEADERS = "content-type,sentry-trace,baggage,convex-client,authorization";
const MAX_AGE_SECONDS = 86_400;

/** Sets the headers that let a browser's page read the answer; answers a preflight itself and returns true. */
export function shared(request: IncomingMessage, response: ServerResponse): boolean {
  const { origin } = request.headers;
  if (origin === undefined) return false;
  response.setHeader("Access-Control-Allow-Origin", origin);
  response.setHeader("Access-Control-Allow-Credentials", "true");
  response.setHeader("Vary", "origin");
  if (request.method !== "OPTIONS" || request.headers["access-control-request-method"] === undefined) return false;
  response.setHeader("Access-Control-Allow-Methods", METHODS);
  response.setHeader("Access-Control-Allow-Headers", HEADERS);
  response.setHeader("Access-Control-Max-Age", MAX_AGE_SECONDS);
  response.end();
  return true;
}

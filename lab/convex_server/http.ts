// The routes of Convex's HTTP API that clients of functions use.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { JSONValue } from "convex/values";
import type { Authenticator } from "./auth";
import { shared } from "./cors";
import { HttpError } from "./errors";
import type { Answer, Deployment, FunctionType } from "./functions";
import { serveSync } from "./sync";

const HOST = "127.0.0.1";
const MAX_BODY_BYTES = 16 * 1024 * 1024;
const FORMATS = new Set([undefined, "json", "convex_encoded_json"]);

type JSONObject = { [key: string]: JSONValue };
type Call = { type: FunctionType | undefined; path: string; args: JSONValue };

/** Listens and returns the URL. */
export async function listen(port: number, authenticator: Authenticator, deployment: Deployment): Promise<string> {
  const server = createServer((request, response) => {
    if (shared(request, response)) return;
    serve(request, response, authenticator, deployment).catch((error: unknown) => {
      if (!(error instanceof HttpError)) console.error(error);
      const { status, code, message } =
        error instanceof HttpError
          ? error
          : new HttpError(500, "InternalServerError", "Your request couldn't be completed. Try again later.");
      log(request, `${status} ${code}`);
      send(response, status, { code, message });
    });
  });
  serveSync(server, authenticator, deployment);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, HOST, resolve);
  });
  return `http://${HOST}:${(server.address() as AddressInfo).port}`;
}

async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  authenticator: Authenticator,
  deployment: Deployment,
): Promise<void> {
  const route = new URL(request.url ?? "/", `http://${HOST}`).pathname;
  const body = await bodyOf(request); // whole, also for a refusal: the connection lives on
  if (request.method === "GET" && route === "/version") {
    response.setHeader("Content-Type", "text/plain");
    response.end("lab");
    return;
  }
  if (request.method !== "POST") throw new HttpError(404, "NotFound", `No route ${request.method} ${route}`);
  const called = calledBy(route);
  const caller = await authenticator.authenticate(request.headers.authorization);
  const { type, path, args } = called(parsed(body));
  const answer: Answer = await deployment.run(caller, type, path, args);
  log(request, answer.status === "success" ? path : `${path} ${answer.errorMessage}`);
  send(response, 200, answer);
}

// How the body of a request to `route` names its function; throws where the route serves none.
function calledBy(route: string): (body: JSONValue) => Call {
  const [, type] = /^\/api\/(query|mutation|action)$/.exec(route) ?? [];
  if (type !== undefined) {
    return (body) => {
      const { path, args, format } = fields(body);
      if (typeof path !== "string") throw badBody("`path` must be a string");
      return { type: type as FunctionType, path, args: named(args, format) };
    };
  }
  const [, module, name] = /^\/api\/run\/(.+)\/([^/]+)$/.exec(route) ?? [];
  if (module === undefined || name === undefined) throw new HttpError(404, "NotFound", `No route POST ${route}`);
  return (body) => {
    const { args, format } = fields(body);
    return { type: undefined, path: `${decoded(module)}:${decoded(name)}`, args: named(args, format) };
  };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new HttpError(400, "MissingIdentifier", "Path or function name not provided in path");
  }
}

function fields(body: JSONValue): JSONObject {
  if (!isObject(body)) throw badBody("an object is needed");
  return body;
}

// Arguments are an object, or by an older rule an array with that object.
function named(args: JSONValue | undefined, format: JSONValue | undefined): JSONValue {
  if (!FORMATS.has(format as string | undefined)) throw badBody("`format` is unknown");
  const given = Array.isArray(args) && args.length === 1 ? args[0] : args;
  if (!isObject(given)) throw badBody("`args` must be an object");
  return given;
}

function isObject(value: JSONValue | undefined): value is JSONObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size <= MAX_BODY_BYTES) chunks.push(chunk);
  }
  if (size > MAX_BODY_BYTES) throw new HttpError(413, "PayloadTooLarge", `The body exceeds ${MAX_BODY_BYTES} bytes`);
  return Buffer.concat(chunks).toString();
}

function parsed(body: string): JSONValue {
  try {
    return JSON.parse(body) as JSONValue;
  } catch {
    throw badBody("it is not JSON");
  }
}

function badBody(reason: string): HttpError {
  return new HttpError(400, "BadJsonBody", `Bad request body: ${reason}`);
}

function send(response: ServerResponse, status: number, body: object): void {
  const text = JSON.stringify(body);
  response.writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) });
  response.end(text);
}

function log(request: IncomingMessage, what: string): void {
  console.log(`${new Date().toISOString()} ${request.method} ${request.url} ${what.replaceAll("\n", " ")}`);
}

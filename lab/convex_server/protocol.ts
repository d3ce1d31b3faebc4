// The messages of Convex's sync protocol (convex/src/browser/sync/protocol.ts): those of clients are checked here.
import type { JSONValue } from "convex/values";

type JSONObject = { [key: string]: JSONValue };

export type AddQuery = { type: "Add"; queryId: number; udfPath: string; args: JSONValue; journal: string | null };
export type Request = { type: "Mutation" | "Action"; requestId: number; udfPath: string; args: JSONValue };
export type ClientMessage =
  | { type: "Connect"; sessionId: string; clientTs: number | undefined }
  | { type: "Authenticate"; baseVersion: number; credential: string | undefined }
  | {
      type: "ModifyQuerySet";
      baseVersion: number;
      newVersion: number;
      modifications: (AddQuery | { type: "Remove"; queryId: number })[];
    }
  | Request
  | { type: "Event" };

export type Modification =
  | { type: "QueryUpdated"; queryId: number; value: JSONValue; logLines: string[]; journal: string | null }
  | {
      type: "QueryFailed";
      queryId: number;
      errorMessage: string;
      errorData?: JSONValue;
      logLines: string[];
      journal: string | null;
    }
  | { type: "QueryRemoved"; queryId: number };

/** The client broke the protocol: it is told so in a FatalError, and does not come back. */
export class ProtocolError extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** The client's token is none, or no longer one: it is told so in an AuthError, and comes back with another. */
export class AuthError extends Error {
  constructor(
    message: string,
    readonly authUpdateAttempted: boolean,
  ) {
    super(message);
  }
}

/** A time as the protocol writes it: eight bytes, the lowest first, in base64. */
export function encodedTime(time: bigint): string {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(time);
  return bytes.toString("base64");
}

/** Reads a client's message; throws a ProtocolError that names the field. */
export function parsed(text: string): ClientMessage {
  let message: JSONValue;
  try {
    message = JSON.parse(text) as JSONValue;
  } catch {
    throw malformed("it is no JSON");
  }
  const fields = object(message, "the message");
  switch (fields.type) {
    case "Connect":
      return {
        type: "Connect",
        sessionId: string(fields, "sessionId"),
        clientTs: typeof fields.clientTs === "number" ? fields.clientTs : undefined,
      };
    case "Authenticate":
      return { type: "Authenticate", baseVersion: integer(fields, "baseVersion"), credential: credential(fields) };
    case "ModifyQuerySet":
      return {
        type: "ModifyQuerySet",
        baseVersion: integer(fields, "baseVersion"),
        newVersion: integer(fields, "newVersion"),
        modifications: array(fields, "modifications").map(modification),
      };
    case "Mutation":
    case "Action":
      atTheRoot(fields);
      return {
        type: fields.type,
        requestId: integer(fields, "requestId"),
        udfPath: string(fields, "udfPath"),
        args: named(fields),
      };
    case "Event":
      return { type: "Event" };
    default:
      throw malformed("its `type` is unknown");
  }
}

function modification(value: JSONValue): AddQuery | { type: "Remove"; queryId: number } {
  const fields = object(value, "each of `modifications`");
  const queryId = integer(fields, "queryId");
  if (fields.type === "Remove") return { type: "Remove", queryId };
  if (fields.type !== "Add") throw malformed("the `type` of a modification is unknown");
  atTheRoot(fields);
  const journal = fields.journal ?? null;
  if (journal !== null && typeof journal !== "string") throw malformed("`journal` must be a string or null");
  return { type: "Add", queryId, udfPath: string(fields, "udfPath"), args: named(fields), journal };
}

// As the Authorization header would say it.
function credential(fields: JSONObject): string | undefined {
  const { tokenType, impersonating } = fields;
  if (tokenType === "None") return undefined;
  if (tokenType === "User") return `Bearer ${string(fields, "value")}`;
  if (tokenType !== "Admin") throw malformed("`tokenType` must be Admin, User or None");
  const key = `Convex ${string(fields, "value")}`;
  if (impersonating === undefined) return key;
  return `${key}:${Buffer.from(JSON.stringify(impersonating)).toString("base64")}`;
}

function atTheRoot({ componentPath }: JSONObject): void {
  if (componentPath) throw malformed("`componentPath` must be empty: no function of a component is public");
}

function named(fields: JSONObject): JSONValue {
  const [args, ...more] = array(fields, "args");
  if (args === undefined || more.length > 0) throw malformed("`args` must hold one object");
  return object(args, "the one of `args`");
}

function integer(fields: JSONObject, name: string): number {
  const value = fields[name];
  if (!Number.isInteger(value) || (value as number) < 0 || (value as number) > 0xffff_ffff) {
    throw malformed(`\`${name}\` must be an integer from 0 to 4294967295`);
  }
  return value as number;
}

function string(fields: JSONObject, name: string): string {
  const value = fields[name];
  if (typeof value !== "string") throw malformed(`\`${name}\` must be a string`);
  return value;
}

function array(fields: JSONObject, name: string): JSONValue[] {
  const value = fields[name];
  if (!Array.isArray(value)) throw malformed(`\`${name}\` must be an array`);
  return value;
}

function object(value: JSONValue, name: string): JSONObject {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw malformed(`${name} must be an object`);
  return value;
}

function malformed(reason: string): ProtocolError {
  return new ProtocolError("WSMessageInvalidJson", `Received an invalid message on the websocket: ${reason}`);
}

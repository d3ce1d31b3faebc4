// What a user wants run: a SubmitJobCommand without what the product itself knows. The node judges the rest of it.
import { canonicalJson } from "./canonical";
import { isUtcTime } from "./checks";
import { refusal } from "./functions";

export const MAX_BYTES = 256 * 1024;
const REQUIRED = ["execution_profile", "resource_shape", "workload"];
const MEMBERS = [...REQUIRED, "retry_policy", "deadline"];

/** Returns the intent and its deadline in ms since the epoch. Errors: `invalid`, which names the member at fault. */
export function intentOf(command: string | Record<string, unknown>): {
  intent: Record<string, unknown>;
  deadline?: number;
} {
  const intent = typeof command === "string" ? parsed(command) : checked(command);
  for (const member of Object.keys(intent)) {
    if (!MEMBERS.includes(member)) {
      throw refusal("invalid", `command.${member.slice(0, 64)} is not known: command has ${MEMBERS.join(", ")}`);
    }
  }
  for (const member of REQUIRED) {
    const value = intent[member];
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw refusal("invalid", `command.${member} must be an object`);
    }
  }
  try {
    canonicalJson(intent);
  } catch {
    throw refusal("invalid", "command must be JSON whose integers are within 2^53 and whose texts are well formed");
  }
  const { deadline } = intent;
  if (deadline === undefined || deadline === null) return { intent };
  if (typeof deadline !== "string" || !isUtcTime(deadline)) {
    throw refusal("invalid", "command.deadline must be an RFC 3339 UTC time, for example 2026-03-01T18:00:00Z");
  }
  return { intent, deadline: Date.parse(deadline) };
}

function parsed(text: string): Record<string, unknown> {
  if (text.length > MAX_BYTES) throw refusal("invalid", `command must not exceed ${MAX_BYTES} bytes of JSON`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw refusal("invalid", "command must be an object, or JSON text of one");
  }
  return checked(value);
}

function checked(value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw refusal("invalid", "command must be an object, or JSON text of one");
  }
  return value as Record<string, unknown>;
}

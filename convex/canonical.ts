// One text for one JSON value (RFC 8785), the same as `canonical_json` of the contracts writes.

/** Throws a TypeError for what has no canonical form: what is not JSON, inexact integers, lone surrogates. */
export function canonicalJson(value: unknown): string {
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "string") return text(value);
  if (typeof value === "number") return number(value);
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (typeof value === "object") {
    // Sorted by UTF-16 code units, which is how ECMAScript compares strings.
    const members = Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1));
    return `{${members.map(([name, member]) => `${text(name)}:${canonicalJson(member)}`).join(",")}}`;
  }
  throw new TypeError(`a ${typeof value} has no canonical form`);
}

function number(value: number): string {
  if (!Number.isFinite(value)) throw new TypeError("a number that is not finite has no canonical form");
  const written = JSON.stringify(value);
  if (/^-?\d+$/.test(written) && !Number.isSafeInteger(value)) {
    throw new TypeError("an integer beyond 2^53 - 1 is not exact");
  }
  return written;
}

function text(value: string): string {
  if (/\p{Surrogate}/u.test(value)) throw new TypeError("a lone surrogate has no canonical form");
  return JSON.stringify(value);
}

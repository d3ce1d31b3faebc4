// What mutations may draw although it is seeded and can be repeated: names, and the lengths of pauses. No secrets.

export function newId(): string {
  return crypto.randomUUID();
}

/** A trace's or span's name of so many hexadecimal digits, at most 32, for W3C Trace Context. */
export function newTrace(digits: number): string {
  return newId().replaceAll("-", "").slice(0, digits);
}

/** From 0 to 1, for jitter. */
export function chance(): number {
  return Math.random();
}

// How times, spans and sizes are written: short for the eye, exact in a title.
const UNITS = [
  ["d", 86_400],
  ["h", 3_600],
  ["min", 60],
  ["s", 1],
] as const;

/** "3 min ago", "in 2 h", "now"; `at` and `now` in milliseconds. */
export function relative(at: number, now: number): string {
  const seconds = Math.round((at - now) / 1000);
  const away = Math.abs(seconds);
  if (away < 2) return "now";
  const [unit, size] = UNITS.find(([, length]) => away >= length)!;
  const span = `${Math.floor(away / size)} ${unit}`;
  return seconds < 0 ? `${span} ago` : `in ${span}`;
}

/** A span of seconds in its two largest units: "1 h 4 min"; below a minute with tenths. */
export function span(seconds: number): string {
  if (seconds < 60) return `${seconds < 10 ? Number(seconds.toFixed(1)) : Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  const first = UNITS.findIndex(([, length]) => whole >= length);
  const [unit, size] = UNITS[first]!;
  const [small, length] = UNITS[first + 1]!;
  const rest = Math.floor((whole % size) / length);
  return `${Math.floor(whole / size)} ${unit}${rest > 0 ? ` ${rest} ${small}` : ""}`;
}

/** The seconds from one RFC 3339 time to another; undefined where one is not known. */
export function between(from: string | undefined, until: string | undefined): number | undefined {
  if (from === undefined || until === undefined) return undefined;
  const seconds = (Date.parse(until) - Date.parse(from)) / 1000;
  return Number.isNaN(seconds) ? undefined : Math.max(0, seconds);
}

/** "3.4 MiB". */
export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  const power = count < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(count) / 10));
  const value = count / 1024 ** power;
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
}

/** A time as the reader's clock shows it, to the second, with its zone. */
export function exact(time: string): string {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return time;
  return `${date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" })} (${time})`;
}

/** "12:00:05" today, else with the date. */
export function clock(time: string, now = Date.now()): string {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return time;
  const hours = date.toLocaleTimeString("en-GB");
  const day = (each: Date) => each.toLocaleDateString("sv-SE");
  return day(date) === day(new Date(now)) ? hours : `${day(date)} ${hours}`;
}

/** "1 job", "2 jobs". */
export function counted(count: number, noun: string): string {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

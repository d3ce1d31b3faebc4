// How the page writes times, sizes and logs.
import { createElement } from "react";
import { renderToStaticMarkup } from "react-dom/server";
import { expect, test } from "vitest";
import { checked } from "../../web/src/config";
import { between, bytes, clock, counted, relative, span } from "../../web/src/format";
import { BEGINNING, changed, readable } from "../../web/src/logs";
import { State } from "../../web/src/parts/state";
import { reasonOf } from "../../web/src/parts/reasons";
import { serverEvents } from "../../web/src/sse";
import { shownRows } from "../../web/src/window";

const NOW = Date.parse("2026-03-08T12:00:00.000Z");

test.each([
  [0, "now"],
  [-1_000, "now"],
  [-59_000, "59 s ago"],
  [-61_000, "1 min ago"],
  [-3_599_000, "59 min ago"],
  [-86_400_000 * 2, "2 d ago"],
  [20_000, "in 20 s"],
])("%d ms from now is %j", (away, words) => {
  expect(relative(NOW + away, NOW)).toBe(words);
});

test.each([
  [0.25, "0.3 s"],
  [7, "7 s"],
  [59.4, "59 s"],
  [60, "1 min"],
  [3_840, "1 h 4 min"],
  [90_000, "1 d 1 h"],
])("%d seconds are %j", (seconds, words) => {
  expect(span(seconds)).toBe(words);
});

test.each([
  [0, "0 B"],
  [1_023, "1023 B"],
  [1_536, "1.5 KiB"],
  [8_589_934_592, "8.0 GiB"],
])("%d bytes are %j", (count, words) => {
  expect(bytes(count)).toBe(words);
});

test("what is not known is not guessed", () => {
  expect(between("2026-03-01T00:00:00Z", undefined)).toBeUndefined();
  expect(between("2026-03-01T00:00:00Z", "2026-03-01T00:01:00Z")).toBe(60);
  expect(between("2026-03-01T00:00:00Z", "soon")).toBeUndefined();
  expect(clock("soon", NOW)).toBe("soon");
  expect(counted(1, "job")).toBe("1 job");
  expect(counted(10_000, "job")).toBe("10,000 jobs");
});

test.each([
  [{}, "convex_url"],
  [{ convex_url: "ftp://a" }, "convex_url"],
  [{ convex_url: "https://a", adapter_url: 3 }, "adapter_url"],
  [{ convex_url: "https://a", adapter_url: "https://b", tenants: [{ tenant_id: "x" }] }, "tenants[0]"],
  [[], "convex_url"],
  [null, "object"],
])("the configuration %j is refused with the field at fault", (content, words) => {
  expect(() => checked(content)).toThrow(words);
});

test("a configuration without tenants is a product's", () => {
  expect(checked({ convex_url: "https://a/", adapter_url: "http://b" })).toEqual({
    convex_url: "https://a",
    adapter_url: "http://b",
    tenants: [],
  });
});

async function events(...chunks: string[]) {
  async function* stream() {
    for (const chunk of chunks) yield new TextEncoder().encode(chunk);
  }
  const found = [];
  for await (const event of serverEvents(stream())) found.push(event);
  return found;
}

test("server-sent events are read however they are cut", async () => {
  const text =
    ': hello\n\nevent: log\ndata: {"a":"ü"}\nid: 1:7\n\nevent: end\r\ndata: 1\r\ndata:2\r\n\r\nevent: none\n\n';
  const whole = [
    { event: "log", data: '{"a":"ü"}', id: "1:7" },
    { event: "end", data: "1\n2" },
  ];

  expect(await events(text)).toEqual(whole);
  expect(await events(...text)).toEqual(whole);
});

test("an event that was cut off is none", async () => {
  expect(await events("event: log\ndata: 1\n")).toEqual([]);
});

const told = (text: string, attempt = 1) => ({ kind: "text", text, attempt, latest_attempt: attempt }) as const;

test("a log grows, says where another attempt begins, and forgets a failure once it goes on", () => {
  let log = changed(BEGINNING, told("a\n"));
  log = changed(log, { kind: "waiting", problem: "gone" });
  expect(log).toMatchObject({ text: "a\n", status: "waiting", problem: "gone" });
  log = changed(log, told("b\n", 2));
  expect(log).toMatchObject({ text: "a\n\n── attempt 2 ──\nb\n", status: "following", attempt: 2 });
  expect(log.problem).toBeUndefined();
});

test("of a log that is too long for a page the end is kept, in whole lines", () => {
  const line = `${"x".repeat(99)}\n`;
  const log = changed(changed(BEGINNING, told(line.repeat(19_000))), told(`${line.repeat(2_000)}end`));

  expect(log.cut).toBe(true);
  expect(log.text.length).toBeLessThanOrEqual(2_000_000);
  expect(log.text.length).toBeGreaterThan(1_999_000);
  expect(log.text.startsWith(line)).toBe(true);
  expect(log.text.endsWith("end")).toBe(true);
});

test("colours and lines that were written over do not show", () => {
  expect(readable("\u001b[1;32mok\u001b[0m\r\n 10%\r 20%\r100%\nlast\r")).toBe("ok\n100%\nlast\r");
  expect(readable("a\u001b]0;title\u0007b<script>")).toBe("ab<script>");
});

test("of 10,000 rows those around the screen are shown", () => {
  expect(shownRows(0, 720, 36, 10_000)).toEqual({ first: 0, last: 32 });
  expect(shownRows(180_000, 720, 36, 10_000)).toEqual({ first: 4988, last: 5032 });
  expect(shownRows(359_000, 720, 36, 10_000).last).toBe(10_000);
  expect(shownRows(0, 720, 36, 3)).toEqual({ first: 0, last: 3 });
  expect(shownRows(9_999, 720, 36, 0)).toEqual({ first: 0, last: 0 });
});

test.each([
  ["succeeded", "succeeded"],
  ["attention", "needs attention"],
  ["held", "held"],
  ["melting<b>", "melting&lt;b&gt;"],
  ["constructor", "constructor"],
])("the state %j is shown as %j", (value, words) => {
  const markup = renderToStaticMarkup(createElement(State, { value }));

  expect(markup.replace(/<svg.*<\/svg>/, "").replace(/^<span[^>]*>|<\/span>$/g, "")).toBe(words);
  expect(markup).not.toContain("undefined");
});

test("a reason that this version does not know is shown as it came", () => {
  expect(reasonOf("never_heard")).toContain("enrol it");
  expect(reasonOf("moon_phase")).toBe("moon_phase");
  expect(reasonOf("toString")).toBe("toString");
});

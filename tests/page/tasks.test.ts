// What the page makes of an array's tasks: while it runs, at its end, and of jobs that are none.
import { createElement } from "react";
import { renderToStaticMarkup } from "react-dom/server";
import { expect, test } from "vitest";
import { TaskBar } from "../../web/src/pages/tasks";
import { summaryOf } from "../../web/src/parts/summary";
import { tasksOf, wordsOf } from "../../web/src/parts/tasks";

const reported_at = "2026-03-01T12:00:00.000Z";
const counts = { total: 1000, succeeded: 900, failed: 4, interrupted: 0, first_failed: [] };
const running = { step: 7, steps: 10, metrics: { tasks_succeeded: 5, tasks_failed: 1, tasks_cancelled: 1 }, reported_at };

test("while it runs the counts are the progress's, at its end the result's", () => {
  expect(tasksOf({ progress: running })).toEqual({ total: 10, succeeded: 5, failed: 1, cancelled: 1, interrupted: 0 });
  const ended = { exit_code: 1, outputs: [], tasks: { ...counts, cancelled: 96 } };
  expect(tasksOf({ progress: running, result: ended })).toMatchObject({ total: 1000, succeeded: 900, cancelled: 96 });
});

test.each([
  [{}],
  [{ progress: { step: 1, steps: 2, reported_at } }],
  [{ progress: { metrics: { loss: 0.5 }, reported_at } }],
  [{ result: { exit_code: 0, outputs: [] } }],
])("%j is no array's", (job) => {
  expect(tasksOf(job)).toBeUndefined();
});

test("what did not go well is told with what did", () => {
  const told = { total: 1000, succeeded: 900, failed: 4, cancelled: 0, interrupted: 2 };
  expect(wordsOf(told)).toBe("900 of 1,000 tasks done · 4 failed · 2 not ended");
  expect(summaryOf({ state: "running", execution_state: "running", progress: running })).toBe(
    "5 of 10 tasks done · 1 failed · 1 cancelled",
  );
});

test("the bar says its numbers to those who do not see it", () => {
  const bar = renderToStaticMarkup(createElement(TaskBar, { tasks: tasksOf({ progress: running })! }));
  expect(bar).toContain('role="progressbar"');
  expect(bar).toContain('aria-valuemax="10"');
  expect(bar).toContain('aria-valuenow="7"');
  expect(bar).toContain('aria-valuetext="5 of 10 tasks done · 1 failed · 1 cancelled"');
  expect(bar).toContain("width:50%");
});

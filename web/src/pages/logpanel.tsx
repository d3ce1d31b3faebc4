import { useLayoutEffect, useMemo, useRef, useState } from "react";
import type { LogPlace } from "../adapter";
import { readable, useLog, type Log } from "../logs";
import { Empty, Panel } from "../parts/common";
import { tasksOf } from "../parts/tasks";
import type { Job } from "../product";
import { save } from "../save";

type Chosen = { task?: number; choose: (task?: number) => void };

/** What the job's program writes, as it writes it; of an array, what one of its tasks does. */
export function LogPanel({ job, task, choose }: { job: Job } & Chosen) {
  const tasks = tasksOf(job);
  const [stream, setStream] = useState<"stdout" | "stderr">("stdout");
  const [attempt, setAttempt] = useState<number>();
  const isAtNode = job.seq > 0; // until then only the product has spoken of it
  const choices = (
    <>
      {tasks !== undefined && (
        <label>
          Task{" "}
          <input
            type="number"
            className="log-task"
            aria-label="Number of the task"
            min={0}
            max={tasks.total - 1}
            value={task ?? ""}
            onChange={({ target }) => choose(target.value === "" ? undefined : target.valueAsNumber)}
          />
        </label>
      )}
      <select aria-label="Stream" value={stream} onChange={(event) => setStream(event.target.value as typeof stream)}>
        <option>stdout</option>
        <option>stderr</option>
      </select>
      {job.attempt > 1 && (
        <select
          aria-label="Attempt"
          value={attempt ?? ""}
          onChange={(event) => setAttempt(event.target.value === "" ? undefined : Number(event.target.value))}
        >
          <option value="">newest attempt</option>
          {Array.from({ length: job.attempt }, (_, index) => (
            <option key={index} value={index + 1}>
              attempt {index + 1}
            </option>
          ))}
        </select>
      )}
    </>
  );
  return (
    <Panel title="Log" aside={choices}>
      {!isAtNode && <Empty title="No node has taken this job, so there is no log" />}
      {isAtNode && tasks !== undefined && task === undefined && <Empty title="Choose a task: each has a log of its own" />}
      {isAtNode && (tasks === undefined || task !== undefined) && (
        <Followed key={`${stream}:${attempt}:${task}`} job={job} stream={stream} attempt={attempt} task={task} />
      )}
    </Panel>
  );
}

type Place = Pick<LogPlace, "stream" | "attempt" | "task">;

function Followed({ job, stream, attempt, task }: { job: Job } & Place) {
  const log = useLog({ node_id: job.node_id, job_id: job.job_id, stream, attempt, task });
  const whose = task === undefined ? job.job_id : `task ${task} of ${job.job_id}`;
  const text = useMemo(() => readable(log.text), [log.text]);
  const [wraps, setWraps] = useState(false);
  const place = useRef<HTMLPreElement>(null);
  const atEnd = useRef(true);
  useLayoutEffect(() => {
    if (atEnd.current && place.current) place.current.scrollTop = place.current.scrollHeight;
  }, [text, wraps]);
  return (
    <>
      {log.cut && <p className="hint">The beginning is left out here; the node has the whole log.</p>}
      <pre
        ref={place}
        className={`log ${wraps ? "wraps" : ""} ${text === "" ? "bare" : ""}`}
        tabIndex={0}
        role="log"
        aria-live="off"
        aria-label={`${stream} of ${whose}`}
        onScroll={({ currentTarget: { scrollTop, scrollHeight, clientHeight } }) => {
          atEnd.current = scrollHeight - scrollTop - clientHeight < 8;
        }}
      >
        {text}
      </pre>
      <p className="log-foot">
        <span role="status">{statusOf(log)}</span>
        <label>
          <input type="checkbox" checked={wraps} onChange={(event) => setWraps(event.target.checked)} /> wrap lines
        </label>
        <Download text={log.text} name={`${job.job_id}${task === undefined ? "" : `.${task}`}.${stream}.txt`} />
      </p>
    </>
  );
}

function statusOf({ status, text, problem }: Log): string {
  switch (status) {
    case "connecting":
      return "Connecting…";
    case "following":
      return text === "" ? "Following; nothing was written yet" : "Following";
    case "complete":
      return text === "" ? "Complete; nothing was written" : "Complete";
    case "waiting":
      return `${problem}. Trying again…`;
    case "failed":
      return `${problem}`;
  }
}

function Download({ text, name }: { text: string; name: string }) {
  return (
    <button type="button" disabled={text === ""} onClick={() => save(text, name, "text/plain")}>
      Download
    </button>
  );
}

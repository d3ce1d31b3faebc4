// The tasks of an array: how many are how far, which failed, and stopping some of them.
import { useMutation } from "convex/react";
import { useState, type FormEvent } from "react";
import { Failure, Panel } from "../parts/common";
import { tasksOf, wordsOf, type Tasks } from "../parts/tasks";
import { api, TERMINAL, type Job } from "../product";

/** A bar of an array's tasks: those that succeeded, failed, or are not run any more, of all. */
export function TaskBar({ tasks }: { tasks: Tasks }) {
  const { total, succeeded, failed, cancelled } = tasks;
  const share = (count: number) => ({ width: `${(100 * count) / total}%` });
  return (
    <span
      className="task-bar"
      role="progressbar"
      aria-label="Tasks"
      aria-valuemin={0}
      aria-valuemax={total}
      aria-valuenow={Math.min(total, succeeded + failed + cancelled)}
      aria-valuetext={wordsOf(tasks)}
    >
      <span className="task-bar-good" style={share(succeeded)} />
      <span className="task-bar-bad" style={share(failed)} />
      <span className="task-bar-left" style={share(cancelled)} />
    </span>
  );
}

export function TasksPanel({ job, show }: { job: Job; show: (task: number) => void }) {
  const tasks = tasksOf(job);
  if (tasks === undefined) return null;
  const ended = TERMINAL.has(job.state);
  return (
    <Panel title="Tasks">
      <p className="progress">
        <TaskBar tasks={tasks} />
        <span>{wordsOf(tasks)}</span>
      </p>
      {!ended && tasks.failed > 0 && job.progress?.message !== undefined && <p>{job.progress.message}</p>}
      <FailedTasks job={job} tasks={tasks} show={show} />
      {!ended && <CancelTasks job={job} total={tasks.total} />}
    </Panel>
  );
}

function FailedTasks({ job, tasks, show }: { job: Job; tasks: Tasks; show: (task: number) => void }) {
  const failed = job.result?.tasks?.first_failed ?? [];
  if (failed.length === 0) return null;
  const more = tasks.failed + tasks.interrupted - failed.length;
  return (
    <>
      <table aria-label="Tasks that failed">
        <thead>
          <tr>
            <th scope="col">Task</th>
            <th scope="col">State</th>
            <th scope="col" className="number">
              Exit code
            </th>
            <th scope="col">Why</th>
            <th scope="col">
              <span className="unseen">Log</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {failed.map(({ number, id, state, exit_code, message }) => (
            <tr key={number}>
              <th scope="row">{id === String(number) ? id : `${id} (${number})`}</th>
              <td>{state}</td>
              <td className="number">{exit_code}</td>
              <td>{message}</td>
              <td>
                <button type="button" aria-label={`Log of task ${id}`} onClick={() => show(number)}>
                  Log
                </button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {more > 0 && <p className="hint">The node has {more.toLocaleString("en")} more, not told here.</p>}
    </>
  );
}

function CancelTasks({ job: { tenant_id, job_id }, total }: { job: Job; total: number }) {
  const cancel = useMutation(api.commands.cancelJob);
  const [said, setSaid] = useState<{ words?: string; error?: unknown }>({});
  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const fields = new FormData(event.currentTarget);
    const [first, last] = ["first", "last"].map((name) => Number(fields.get(name))) as [number, number];
    cancel({ tenant_id, job_id, tasks: [{ first, last }] }).then(
      () => setSaid({ words: `Asked to cancel the tasks ${first} to ${last}` }),
      (error: unknown) => setSaid({ error }),
    );
  }
  const bounds = { type: "number", min: 0, max: total - 1, required: true };
  return (
    <form className="cancel-tasks" onSubmit={submit} aria-label="Cancel tasks">
      <label>
        Cancel tasks <input {...bounds} name="first" aria-label="First task" />
      </label>
      <label>
        to <input {...bounds} name="last" aria-label="Last task" />
      </label>
      <button type="submit" className="danger">
        Cancel tasks
      </button>
      <span role="status">{said.words}</span>
      {said.error !== undefined && <Failure error={said.error} />}
    </form>
  );
}

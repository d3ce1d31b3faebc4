// One job: what it is at, what became of it and why, and everything that it leaves.
import { useMutation, usePaginatedQuery, useQuery } from "convex/react";
import { useEffect, useRef, useState } from "react";
import { Confirm, Code, Facts, Loading, Panel } from "../parts/common";
import { State } from "../parts/state";
import { stepOf } from "../parts/summary";
import { tasksOf } from "../parts/tasks";
import { Ago, Span } from "../parts/time";
import { api, TERMINAL, type Job } from "../product";
import { to } from "../router";
import { Attempts } from "./attempts";
import { Commands } from "./commands";
import { LogPanel } from "./logpanel";
import { Outputs } from "./outputs";
import { ReceiptPanel } from "./receipt";
import { TasksPanel } from "./tasks";
import { Timeline } from "./timeline";

type Named = { tenant_id: string; job_id: string };

export function JobPage(named: Named) {
  const job = useQuery(api.jobs.get, named);
  const [task, setTask] = useState<number>();
  if (job === undefined) return <Loading what={named.job_id} />;
  return (
    <div className="job">
      <Head job={job} {...named} />
      <Reason job={job} />
      <Commands {...named} said={job.error?.message ?? job.message} />
      <div className="columns">
        <div>
          <TasksPanel job={job} show={setTask} />
          <LogPanel job={job} task={task} choose={setTask} />
          <Panel title="Outputs">
            <Outputs job={job} />
          </Panel>
        </div>
        <div>
          <Panel title="Facts">
            <JobFacts job={job} />
          </Panel>
          <Panel title="Attempts">
            <Attempts {...named} ended={TERMINAL.has(job.state)} />
          </Panel>
          <Panel title="Timeline">
            <History {...named} />
          </Panel>
          <ReceiptPanel job={job} />
        </div>
      </div>
    </div>
  );
}

function Head({ job, tenant_id, job_id }: Named & { job: Job }) {
  const [asking, setAsking] = useState(false);
  const cancel = useMutation(api.commands.cancelJob);
  const ended = TERMINAL.has(job.state);
  return (
    <div className="title-row">
      <div className="job-title">
        <a href={to([tenant_id, "jobs"])} className="back">
          Jobs
        </a>
        <h1>{job_id}</h1>
        <State value={job.state} />
        {job.execution_state !== job.state && <span className="quiet">{job.execution_state}</span>}
        <span className="quiet">
          <Ago time={job.occurred_at} />
        </span>
      </div>
      <div className="actions">
        <a className="button" href={to([tenant_id, "submit"], { from: job_id })}>
          Submit again
        </a>
        {!ended && (
          <button type="button" className="danger" onClick={() => setAsking(true)}>
            Cancel job
          </button>
        )}
      </div>
      <Announcer job={job} />
      {asking && (
        <Confirm
          title={`Cancel ${job_id}?`}
          verb="Cancel the job"
          close={() => setAsking(false)}
          action={() => cancel({ tenant_id, job_id })}
        >
          <p>What it has computed so far is lost, unless it has written checkpoints. This cannot be taken back.</p>
        </Confirm>
      )}
    </div>
  );
}

// Tells a change of state to those who do not see it, and only a change.
function Announcer({ job }: { job: Job }) {
  const before = useRef(job.state);
  const [words, setWords] = useState("");
  useEffect(() => {
    if (before.current !== job.state) setWords(`${job.job_id} is now ${job.state}. ${job.error?.message ?? ""}`);
    before.current = job.state;
  }, [job]);
  return (
    <p className="unseen" aria-live="polite">
      {words}
    </p>
  );
}

// Why the job is as it is: the cause of a failure and what helps, what it waits for, how far it is.
function Reason({ job }: { job: Job }) {
  const { state, seq, error, message, progress, scheduler, recovery, node_offline_since } = job;
  if (error !== undefined) {
    return (
      <div className={`reason reason-${state}`}>
        <p>
          <code>{error.code}</code> {error.message}
        </p>
        {error.remedy && <p className="remedy">{error.remedy}</p>}
        <p className="quiet">
          {error.retryable ? "The same work can succeed as a new job." : "The same work would fail again."}
        </p>
      </div>
    );
  }
  const waits =
    state === "queued" && scheduler?.wait_reason ? `It waits in Slurm: ${scheduler.wait_reason}.` : undefined;
  const words = [
    message,
    waits,
    recovery && `Attempt ${recovery.attempt} ended: ${recovery.message} Then: ${recovery.action}.`,
  ];
  const said = words.filter((each): each is string => Boolean(each));
  const running = state === "running" && progress !== undefined && tasksOf(job) === undefined; // tasks have a panel
  if (said.length === 0 && !running && node_offline_since === undefined) return null;
  return (
    <div className={`reason reason-${state}`}>
      {said.map((each) => (
        <p key={each}>{each}</p>
      ))}
      {node_offline_since !== undefined && (
        <p>
          Its node is offline, since <Ago time={node_offline_since} />
          {seq === 0 ? ": it goes there as soon as the node is heard again." : ": what is shown here may be old."}
        </p>
      )}
      {running && (
        <p className="progress">
          {progress.fraction !== undefined && (
            <>
              <progress value={progress.fraction} aria-label="Progress" />
              <span>{Math.round(progress.fraction * 100)} %</span>
            </>
          )}
          <span>{[stepOf(progress), progress.message].filter(Boolean).join(" · ")}</span>
          {Object.entries(progress.metrics ?? {}).map(([name, value]) => (
            <span key={name} className="tag">
              {name} {value}
            </span>
          ))}
        </p>
      )}
    </div>
  );
}

function JobFacts({ job }: { job: Job }) {
  const { scheduler, timings, image, result } = job;
  const usage = result?.usage;
  return (
    <Facts
      of={[
        ["Workspace", job.workspace_id],
        ["Node", <a href={to([job.tenant_id, "nodes"], { node: job.node_id })}>{job.node_id}</a>],
        ["Waited", timings?.accepted && timings.started && <Span from={timings.accepted} until={timings.started} />],
        ["Ran", timings?.started && <Span from={timings.started} until={timings.ended} />],
        ["Slurm job", scheduler?.job_id],
        ["Partition", scheduler?.queue],
        ["Machines", scheduler?.nodes?.join(", ")],
        ["Image", image && <Code>{image.reference}</Code>],
        ["Digest", image && <Code what="the image's digest">{image.digest}</Code>],
        ["Exit code", result?.exit_code.toString()],
        ["CPU time", usage?.cpu_seconds !== undefined && `${usage.cpu_seconds} s`],
        ["Peak memory", usage?.peak_rss_mib !== undefined && `${usage.peak_rss_mib} MiB`],
        ["AiiDA work chain", job.execution_id && <Code what="the work chain's UUID">{job.execution_id}</Code>],
        ["Trace", job.trace_id && <Code what="the trace's id">{job.trace_id}</Code>],
      ]}
    />
  );
}

function History(named: Named) {
  const { results, status, loadMore } = usePaginatedQuery(api.jobs.timeline, named, { initialNumItems: 50 });
  if (status === "LoadingFirstPage") return <Loading what="what happened" />;
  return <Timeline updates={results} more={status === "CanLoadMore" ? () => loadMore(50) : undefined} />;
}

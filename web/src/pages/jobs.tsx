// The tenant's jobs, live, as many as there are: only those on the screen are in the document.
import { usePaginatedQuery, useQuery } from "convex/react";
import { useEffect, useMemo, useRef, type KeyboardEvent } from "react";
import { argumentsOf, filtersOf, queryOf } from "../filters";
import { counted } from "../format";
import { Boundary, Empty, Loading } from "../parts/common";
import { State } from "../parts/state";
import { summaryOf } from "../parts/summary";
import { tasksOf } from "../parts/tasks";
import { Ago } from "../parts/time";
import { api, type Job } from "../product";
import { to, usePlace } from "../router";
import { useWindow } from "../window";
import { FilterBar } from "./filterbar";
import { TaskBar } from "./tasks";

const PAGE = 100;
const ROW_PIXELS = 36;
const COLUMNS = ["State", "Job", "Workspace", "Node", "What is happening", "Changed"];

export function JobsPage({ tenant_id }: { tenant_id: string }) {
  const { query } = usePlace();
  const filters = useMemo(() => filtersOf(query), [query.toString()]);
  const nodes = useQuery(api.nodes.list, { tenant_id });
  return (
    <div className="jobs">
      <div className="title-row">
        <h1>Jobs</h1>
        <FilterBar tenant_id={tenant_id} filters={filters} nodes={nodes?.map(({ node_id }) => node_id) ?? []} />
      </div>
      <Boundary key={JSON.stringify(filters)}>
        <Rows tenant_id={tenant_id} filters={filters} />
      </Boundary>
    </div>
  );
}

function Rows({ tenant_id, filters }: { tenant_id: string; filters: ReturnType<typeof filtersOf> }) {
  const asked = useMemo(() => ({ tenant_id, ...argumentsOf(filters, Date.now()) }), [tenant_id, filters]);
  const { results, status, loadMore } = usePaginatedQuery(api.jobs.list, asked, { initialNumItems: PAGE });
  const body = useRef<HTMLDivElement>(null);
  const { first, last } = useWindow(body, ROW_PIXELS, results.length);
  useEffect(() => {
    if (status === "CanLoadMore" && last > results.length - PAGE / 2) loadMore(PAGE);
  }, [status, last, results.length, loadMore]);

  if (status === "LoadingFirstPage") return <Loading what="jobs" />;
  if (results.length === 0 && status === "Exhausted")
    return <NoJobs tenant_id={tenant_id} filtered={Object.keys(filters).length > 0} />;

  function move(event: KeyboardEvent) {
    const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1 };
    const step = steps[event.key];
    const row = (event.target as HTMLElement).closest<HTMLElement>("[data-index]");
    if (step === undefined || row === null) return;
    event.preventDefault();
    const next = Math.min(results.length - 1, Math.max(0, Number(row.dataset.index) + step));
    // The rows around the screen are there already; the browser scrolls to the one that gets the focus.
    body.current?.querySelector<HTMLElement>(`[data-index="${next}"] a`)?.focus();
  }

  const known = status === "Exhausted";
  return (
    <div className="table">
      <div role="table" aria-label="Jobs" aria-rowcount={known ? results.length + 1 : -1} onKeyDown={move}>
        <div role="rowgroup" className="table-head">
          <div role="row" className="row" aria-rowindex={1}>
            {COLUMNS.map((name) => (
              <span key={name} role="columnheader" className={name === "Changed" ? "number" : undefined}>
                {name}
              </span>
            ))}
          </div>
        </div>
        <div role="rowgroup" className="table-body" ref={body} tabIndex={-1}>
          <div style={{ height: results.length * ROW_PIXELS, position: "relative" }} role="presentation">
            {results.slice(first, last).map((job, offset) => (
              <Row key={job.job_id} job={job} index={first + offset} tenant_id={tenant_id} />
            ))}
          </div>
        </div>
      </div>
      <p className="table-foot" role="status">
        {counted(results.length, "job")}
        {known ? "" : " so far: scroll for more"}
        {status === "LoadingMore" ? " (loading)" : ""}
      </p>
    </div>
  );
}

function Row({ job, index, tenant_id }: { job: Job; index: number; tenant_id: string }) {
  const summary = summaryOf(job);
  const tasks = tasksOf(job);
  return (
    <div
      role="row"
      className="row"
      aria-rowindex={index + 2}
      data-index={index}
      style={{
        transform: `translateY(${index * ROW_PIXELS}px)`,
        position: "absolute",
        insetInline: 0,
        height: ROW_PIXELS,
      }}
    >
      <span role="cell">
        <State value={job.state} />
      </span>
      <span role="cell">
        <a className="row-link" href={to([tenant_id, "jobs", job.job_id])}>
          {job.job_id}
        </a>
        {job.attempt > 1 && <span className="tag">attempt {job.attempt}</span>}
      </span>
      <span role="cell">{job.workspace_id}</span>
      <span role="cell">{job.node_id}</span>
      <span role="cell" className="summary" title={summary}>
        {tasks !== undefined ? (
          <TaskBar tasks={tasks} />
        ) : (
          job.state === "running" &&
          job.progress?.fraction !== undefined && <progress value={job.progress.fraction} aria-label="Progress" />
        )}
        {summary}
      </span>
      <span role="cell" className="number">
        <Ago time={job.occurred_at} />
      </span>
    </div>
  );
}

function NoJobs({ tenant_id, filtered }: { tenant_id: string; filtered: boolean }) {
  if (filtered) {
    return (
      <Empty title="No job fits these filters">
        <p>
          <a href={to([tenant_id, "jobs"], queryOf({}))}>Show all jobs</a>
        </p>
      </Empty>
    );
  }
  return (
    <Empty title="No jobs yet">
      <p>
        <a href={to([tenant_id, "submit"])}>Submit the first one</a>, and watch it here as it moves.
      </p>
    </Empty>
  );
}

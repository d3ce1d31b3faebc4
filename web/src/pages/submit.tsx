// A new job, or one like an earlier one. The form is the contract's own schema.
import { useMutation, useQuery } from "convex/react";
import { useEffect, useMemo, useRef, useState, type FormEvent } from "react";
import { BLANK, COMMAND, NAME } from "../form/command";
import { draftOf, valueOf, type Draft } from "../form/draft";
import { FormProvider, idOf, Properties } from "../form/fields";
import { faults as faultsOf, type Fault } from "../form/schema";
import { Failure, Loading } from "../parts/common";
import { api, type Job, type Node as NodeShown, type Report } from "../product";
import { go, to } from "../router";

type Earlier = { workspace_id: string; node_id: string; command: Record<string, unknown>; isWhole: boolean };

export function SubmitPage({
  tenant_id,
  workspaces,
  from,
}: {
  tenant_id: string;
  workspaces: string[];
  from?: string;
}) {
  const nodes = useQuery(api.nodes.list, { tenant_id });
  const named = from === undefined ? ("skip" as const) : { tenant_id, job_id: from };
  const submitted = useQuery(api.commands.submitted, named);
  const job = useQuery(api.jobs.get, named);
  const isLoading = nodes === undefined || (from !== undefined && (submitted === undefined || job === undefined));
  // What one begins with must not change under one's hands.
  const begun = useRef<Earlier | undefined>(undefined);
  if (isLoading) return <Loading what="the form" />;
  if (from !== undefined) begun.current ??= earlier(submitted ?? null, job!);
  return <Form tenant_id={tenant_id} workspaces={workspaces} nodes={nodes} from={from} earlier={begun.current} />;
}

function earlier(submitted: { workspace_id: string; node_id: string; command: string } | null, job: Job): Earlier {
  if (submitted !== null) {
    const command = JSON.parse(submitted.command) as Record<string, unknown>;
    return { ...submitted, command, isWhole: true };
  }
  const { workspace_id, node_id, image } = job;
  const workload = { ...BLANK.workload, ...(image === undefined ? {} : { image: image.reference }) };
  return { workspace_id, node_id, command: { ...BLANK, workload }, isWhole: false };
}

type Props = { tenant_id: string; workspaces: string[]; nodes: NodeShown[]; from?: string; earlier?: Earlier };

function Form({ tenant_id, workspaces, nodes, from, earlier }: Props) {
  const submit = useMutation(api.commands.submitJob);
  const [node_id, setNode] = useState(earlier?.node_id ?? likely(nodes)?.node_id ?? "");
  const [workspace_id, setWorkspace] = useState(earlier?.workspace_id ?? workspaces[0] ?? "");
  const [job_id, setJob] = useState("");
  const queues = queuesOf(nodes, node_id);
  const [draft, setDraft] = useState(() => {
    const place = queues[0] === undefined ? {} : { execution_profile: { queue_name: queues[0] } };
    return draftOf(COMMAND, COMMAND, { ...place, ...(earlier?.command ?? BLANK) }) as { [name: string]: Draft };
  });
  const [faults, setFaults] = useState<Fault[]>([]);
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const summary = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (faults.length > 0 || error !== undefined) summary.current?.focus();
  }, [faults, error]);
  const form = useMemo(
    () => ({ root: COMMAND, faults, suggestions: { "execution_profile.queue_name": queues } }),
    [faults, queues],
  );

  async function send(event: FormEvent) {
    event.preventDefault();
    if (busy) return;
    const { value, faults: found } = valueOf(COMMAND, COMMAND, draft);
    const names = { node_id, workspace_id, ...(job_id === "" ? {} : { job_id }) };
    const wrong = Object.entries(names).flatMap(([field, name]) =>
      name === "" ? missing(field) : faultsOf(NAME, NAME, name, field),
    );
    setFaults([...wrong, ...found]);
    setError(undefined);
    if (wrong.length + found.length > 0) return;
    setBusy(true);
    try {
      const made = await submit({ tenant_id, ...names, command: JSON.stringify(value) });
      go(to([tenant_id, "jobs", made.job_id]));
    } catch (reason) {
      setError(reason);
      setBusy(false);
    }
  }

  return (
    <FormProvider value={form}>
      <form className="submit" onSubmit={(event) => void send(event)} noValidate>
        <h1>{from === undefined ? "New job" : `Submit ${from} again`}</h1>
        {earlier?.isWhole === false && (
          <p className="hint">
            This job did not come through the product, so only what the product saw of it is filled in.
          </p>
        )}
        <div ref={summary} tabIndex={-1} className="summary-box">
          {faults.length > 0 && (
            <div className="failure" role="alert">
              <p>
                <strong>
                  {faults.length === 1 ? "One field needs a change" : `${faults.length} fields need a change`}
                </strong>
              </p>
              <ul>
                {faults.map(({ path, message }) => (
                  <li key={`${path} ${message}`}>
                    <button type="button" className="link" onClick={() => focusOn(path)}>
                      {path} {message}
                    </button>
                  </li>
                ))}
              </ul>
            </div>
          )}
          {error !== undefined && <Failure error={error} title="The job was not submitted." />}
        </div>
        <fieldset>
          <legend>Where</legend>
          <Node nodes={nodes} value={node_id} set={setNode} />
          <Named
            path="workspace_id"
            label="Workspace"
            value={workspace_id}
            set={setWorkspace}
            faults={faults}
            known={workspaces}
          />
          <Named path="job_id" label="Name of the job" value={job_id} set={setJob} faults={faults}>
            left out: one is made up
          </Named>
        </fieldset>
        <Properties schema={COMMAND} path="" draft={draft} set={setDraft} />
        <div className="actions">
          <button type="submit" className="primary" disabled={busy}>
            {busy ? "Submitting…" : "Submit job"}
          </button>
        </div>
      </form>
    </FormProvider>
  );
}

function likely(nodes: NodeShown[]): NodeShown | undefined {
  return nodes.find(({ status }) => status.state === "online") ?? nodes[0];
}

function queuesOf(nodes: NodeShown[], node_id: string): string[] {
  const node = nodes.find((each) => each.node_id === node_id);
  return (node?.heartbeat?.report as Report | undefined)?.queues ?? [];
}

function Node({ nodes, value, set }: { nodes: NodeShown[]; value: string; set: (node_id: string) => void }) {
  const state = nodes.find((each) => each.node_id === value)?.status.state;
  const names = nodes.map(({ node_id }) => node_id);
  return (
    <div className="field">
      <label htmlFor={idOf("node_id")}>Node</label>
      <select
        id={idOf("node_id")}
        value={value}
        aria-describedby={`${idOf("node_id")}-words`}
        onChange={(event) => set(event.target.value)}
      >
        {(names.includes(value) ? names : [value, ...names]).map((each) => (
          <option key={each}>{each}</option>
        ))}
      </select>
      <span id={`${idOf("node_id")}-words`} className="hint">
        {state === undefined
          ? "no such node serves this tenant"
          : state !== "online" && `it is ${state}: the job waits until it takes jobs again`}
      </span>
    </div>
  );
}

function missing(path: string): Fault[] {
  return [{ path, message: "is needed" }];
}

function focusOn(path: string): void {
  const field = document.getElementById(idOf(path)) ?? document.getElementById(idOf(path.replace(/\.[^.]*$/, "")));
  field?.closest("details")?.setAttribute("open", "");
  field?.focus();
}

function Named({
  path,
  label,
  value,
  set,
  faults,
  known,
  children,
}: {
  path: string;
  label: string;
  value: string;
  set: (value: string) => void;
  faults: Fault[];
  known?: string[];
  children?: string;
}) {
  const fault = faults.find((each) => each.path === path);
  return (
    <div className="field">
      <label htmlFor={idOf(path)}>{label}</label>
      <input
        id={idOf(path)}
        value={value}
        list={known && `${idOf(path)}-known`}
        spellCheck={false}
        autoComplete="off"
        aria-invalid={fault !== undefined || undefined}
        aria-describedby={`${idOf(path)}-words`}
        onChange={(event) => set(event.target.value)}
      />
      {known && (
        <datalist id={`${idOf(path)}-known`}>
          {known.map((each) => (
            <option key={each} value={each} />
          ))}
        </datalist>
      )}
      <span id={`${idOf(path)}-words`} className={fault ? "fault" : "hint"}>
        {fault ? `${path} ${fault.message}` : children}
      </span>
    </div>
  );
}

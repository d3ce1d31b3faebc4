import { useEffect, useRef, useState } from "react";
import { queryOf, STATES, WINDOWS, type Filters, type State } from "../filters";
import { go, to } from "../router";

const TYPING_MILLISECONDS = 250;

/** The filters of the jobs list; what is chosen stands in the address. */
export function FilterBar({ tenant_id, filters, nodes }: { tenant_id: string; filters: Filters; nodes: string[] }) {
  const apply = (changed: Partial<Filters>) =>
    go(to([tenant_id, "jobs"], queryOf({ ...filters, ...changed })), { replace: true });
  const period = filters.window ?? (filters.since || filters.until ? "between" : "");
  const known = filters.node_id && !nodes.includes(filters.node_id) ? [filters.node_id, ...nodes] : nodes;
  return (
    <form className="filters" role="search" aria-label="Jobs" onSubmit={(event) => event.preventDefault()}>
      <Search text={filters.text ?? ""} apply={(text) => apply({ text: text || undefined })} />
      <select
        aria-label="State"
        value={filters.state ?? ""}
        onChange={(event) => apply({ state: (event.target.value as State) || undefined })}
      >
        <option value="">any state</option>
        {STATES.map((state) => (
          <option key={state} value={state}>
            {state === "attention" ? "needs attention" : state}
          </option>
        ))}
      </select>
      <select
        aria-label="Node"
        value={filters.node_id ?? ""}
        onChange={(event) => apply({ node_id: event.target.value || undefined })}
      >
        <option value="">any node</option>
        {known.map((node) => (
          <option key={node}>{node}</option>
        ))}
      </select>
      <select
        aria-label="Time"
        value={period}
        onChange={({ target: { value } }) =>
          apply({
            window: value in WINDOWS ? value : undefined,
            since: value === "between" ? new Date(Date.now() - 86_400_000).toISOString() : undefined,
            until: undefined,
          })
        }
      >
        <option value="">any time</option>
        {Object.entries(WINDOWS).map(([name, { label }]) => (
          <option key={name} value={name}>
            {label}
          </option>
        ))}
        <option value="between">between…</option>
      </select>
      {period === "between" && (
        <>
          <Moment label="From" time={filters.since} apply={(since) => apply({ since })} />
          <Moment label="Until" time={filters.until} apply={(until) => apply({ until })} />
        </>
      )}
      {Object.keys(filters).length > 0 && (
        <a className="clear" href={to([tenant_id, "jobs"])}>
          Clear
        </a>
      )}
    </form>
  );
}

function Search({ text, apply }: { text: string; apply: (text: string) => void }) {
  const [typed, setTyped] = useState(text);
  const told = useRef(text);
  useEffect(() => {
    if (text !== told.current) setTyped(text); // the address was changed elsewhere
    told.current = text;
  }, [text]);
  useEffect(() => {
    if (typed.trim() === told.current) return;
    const timer = window.setTimeout(() => {
      told.current = typed.trim();
      apply(typed.trim());
    }, TYPING_MILLISECONDS);
    return () => window.clearTimeout(timer);
  });
  return (
    <input
      type="search"
      aria-label="Search"
      placeholder="Search jobs"
      value={typed}
      onChange={(event) => setTyped(event.target.value)}
    />
  );
}

function Moment({ label, time, apply }: { label: string; time?: string; apply: (time?: string) => void }) {
  return (
    <input
      type="datetime-local"
      aria-label={label}
      value={time === undefined ? "" : localOf(time)}
      onChange={({ target: { value } }) => apply(value === "" ? undefined : new Date(value).toISOString())}
    />
  );
}

/** A time as `datetime-local` wants it: of the reader's own clock, without a zone. */
export function localOf(time: string): string {
  const date = new Date(time);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

import { useQuery } from "convex/react";
import { useMemo } from "react";
import { argumentsOf, WINDOWS } from "../filters";
import { own } from "../own";
import { Boundary, Empty, Loading, Meter } from "../parts/common";
import { api } from "../product";
import { go, to, usePlace } from "../router";

/** What each workspace has used. */
export function UsagePage({ tenant_id }: { tenant_id: string }) {
  const { query } = usePlace();
  const window = query.get("window") ?? "30d";
  return (
    <>
      <div className="title-row">
        <h1>Usage</h1>
        <select
          aria-label="Time"
          value={own(WINDOWS, window) ? window : "all"}
          onChange={(event) => go(to([tenant_id, "usage"], { window: event.target.value }), { replace: true })}
        >
          {Object.entries(WINDOWS).map(([name, { label }]) => (
            <option key={name} value={name}>
              {label}
            </option>
          ))}
          <option value="all">all time</option>
        </select>
      </div>
      <Boundary key={window}>
        <Summary tenant_id={tenant_id} window={window} />
      </Boundary>
    </>
  );
}

function Summary({ tenant_id, window }: { tenant_id: string; window: string }) {
  const since = useMemo(() => argumentsOf({ window }, Date.now()).since, [window]);
  const usage = useQuery(api.usage.summary, { tenant_id, ...(since === undefined ? {} : { since }) });
  if (usage === undefined) return <Loading what="usage" />;
  if (usage.by_workspace.length === 0) return <Empty title="Nothing was used in this time" />;
  return (
    <>
      {!usage.complete && <p className="hint">There is more than can be summed up at once: choose a shorter time.</p>}
      <div className="scrolls" role="region" aria-label="Usage by workspace" tabIndex={0}>
        <table className="wide">
          <thead>
            <tr>
              <th scope="col">Workspace</th>
              {["Jobs", "Succeeded", "Failed", "Cancelled", "Node hours"].map((name) => (
                <th key={name} scope="col" className="number">
                  {name}
                </th>
              ))}
              <th scope="col">Success rate</th>
            </tr>
          </thead>
          <tbody>
            {usage.by_workspace.map((each) => (
              <tr key={each.workspace_id}>
                <th scope="row">{each.workspace_id}</th>
                <td className="number">{each.jobs.toLocaleString("en")}</td>
                <td className="number">{each.succeeded.toLocaleString("en")}</td>
                <td className="number">{each.failed.toLocaleString("en")}</td>
                <td className="number">{each.cancelled.toLocaleString("en")}</td>
                <td className="number">{hours(each.node_hours)}</td>
                <td>
                  {typeof each.success_rate === "number" ? (
                    <Meter value={each.success_rate} max={1} label={`${Math.round(each.success_rate * 100)} %`} />
                  ) : (
                    <span className="quiet">–</span>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}

function hours(value: number): string {
  return value.toLocaleString("en", { maximumFractionDigits: value < 1 ? 3 : 1 });
}

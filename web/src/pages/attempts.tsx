import { useQuery } from "convex/react";
import { Empty, Loading } from "../parts/common";
import { State } from "../parts/state";
import { Ago, Span } from "../parts/time";
import { api } from "../product";

/** Every attempt of the job, how it ended, and what the node did about it. */
export function Attempts({ ended, ...named }: { tenant_id: string; job_id: string; ended: boolean }) {
  const attempts = useQuery(api.jobs.attempts, named);
  if (attempts === undefined) return <Loading what="attempts" />;
  if (attempts.length === 0) return <Empty title={ended ? "It was never tried" : "No attempt yet"} />;
  return (
    <ol className="attempts">
      {attempts.map((each) => (
        <li key={each.attempt}>
          <p className="attempt-head">
            <strong>{each.attempt}</strong>
            <State value={each.state} />
            {each.scheduler && <span className="quiet">Slurm {each.scheduler.job_id}</span>}
            <span className="quiet">
              {each.started === undefined ? (
                each.ended && <Ago time={each.ended} />
              ) : (
                <Span from={each.started} until={each.ended} />
              )}
            </span>
          </p>
          {each.error && (
            <p>
              <code>{each.error.code}</code> {each.error.message}
            </p>
          )}
          {!each.error && each.message && <p>{each.message}</p>}
          {each.action && <p className="remedy">Then: {each.action}</p>}
        </li>
      ))}
    </ol>
  );
}

import { clock, exact } from "../format";
import { Empty } from "../parts/common";
import { State } from "../parts/state";
import { summaryOf } from "../parts/summary";
import type { Update } from "../product";

/** Everything that was told of a job, in the order in which it happened. */
export function Timeline({ updates, more }: { updates: Update[]; more?: () => void }) {
  if (updates.length === 0) return <Empty title="Nothing was told of this job yet" />;
  return (
    <>
      <ol className="timeline">
        {updates.map((update, index) => (
          <li key={`${update.epoch}:${update.seq}:${index}`}>
            <time dateTime={update.occurred_at} title={exact(update.occurred_at)}>
              {clock(update.occurred_at)}
            </time>
            <State value={update.state} />
            <span>
              <span className="quiet">
                {update.execution_state !== update.state && `${update.execution_state} `}
                {update.attempt > 1 && `attempt ${update.attempt} `}
                {update.outcome === "superseded" && "(came late) "}
              </span>
              {wordsOf(update)}
            </span>
          </li>
        ))}
      </ol>
      {more && (
        <button type="button" onClick={more}>
          Show more
        </button>
      )}
    </>
  );
}

function wordsOf(update: Update): string {
  const summary = summaryOf(update);
  return summary === update.execution_state ? "" : summary;
}

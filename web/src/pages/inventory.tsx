import { span } from "../format";
import { Facts, Meter } from "../parts/common";
import type { Partition, Report } from "../product";

/** What a node says that it has, and how much of it is free. */
export function Inventory({ report }: { report: Report }) {
  const { partitions = [], versions = {}, queues = [], runtimes = [], slots_free, jobs_running, jobs_waiting } = report;
  const undelivered = report.events_undelivered ?? 0;
  const skew = report.clock_skew_seconds;
  return (
    <div className="inventory">
      <Facts
        of={[
          ["Running", number(jobs_running)],
          ["Waiting", number(jobs_waiting)],
          ["Free slots", number(slots_free)],
          ["Queues", queues.join(", ")],
          ["Runtimes", runtimes.join(", ")],
          [
            "Undelivered events",
            undelivered > 0 && `${undelivered}, the oldest for ${span(report.oldest_undelivered_seconds ?? 0)}`,
          ],
          [
            "Clock",
            skew !== undefined && Math.abs(skew) >= 1 && `${skew > 0 ? "ahead" : "behind"} by ${span(Math.abs(skew))}`,
          ],
          [
            "Versions",
            Object.entries(versions)
              .map(([name, version]) => `${name} ${version}`)
              .join(", "),
          ],
        ]}
      />
      {partitions.length > 0 && <Partitions partitions={partitions} />}
    </div>
  );
}

function Partitions({ partitions }: { partitions: Partition[] }) {
  return (
    <table>
      <thead>
        <tr>
          <th scope="col">Partition</th>
          <th scope="col">Free CPUs</th>
          <th scope="col">Free machines</th>
          <th scope="col" className="number">
            GPUs
          </th>
        </tr>
      </thead>
      <tbody>
        {partitions.map(({ name, up, cpus, cpus_free, nodes, nodes_free, gpus = 0 }) => (
          <tr key={name} className={up ? "" : "down"}>
            <th scope="row">
              {name} {!up && <span className="tag">down</span>}
            </th>
            <td>
              <Meter value={cpus_free} max={cpus} label={`${cpus_free} of ${cpus}`} />
            </td>
            <td>
              <Meter value={nodes_free} max={nodes} label={`${nodes_free} of ${nodes}`} />
            </td>
            <td className="number">{gpus}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function number(count: number | undefined): string | undefined {
  return count?.toLocaleString("en");
}

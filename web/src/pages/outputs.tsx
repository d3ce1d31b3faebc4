import { bytes, counted } from "../format";
import { Code, Empty } from "../parts/common";
import { TERMINAL, type Job } from "../product";

/** The files that the job left, and the values of a work chain. */
export function Outputs({ job: { state, result } }: { job: Job }) {
  const { outputs = [], outputs_omitted: omitted, values = [] } = result ?? {};
  if (outputs.length === 0 && values.length === 0) {
    return <Empty title={TERMINAL.has(state) ? "It left no outputs" : "Outputs are told once the job has ended"} />;
  }
  return (
    <>
      {outputs.length > 0 && (
        <table>
          <thead>
            <tr>
              <th scope="col">Name</th>
              <th scope="col" className="number">
                Size
              </th>
              <th scope="col">SHA-256</th>
              <th scope="col">Kept</th>
            </tr>
          </thead>
          <tbody>
            {outputs.map(({ name, size, sha256, location }) => (
              <tr key={name}>
                <td>{name}</td>
                <td className="number" title={counted(size, "byte")}>
                  {bytes(size)}
                </td>
                <td>
                  <Code what={`the SHA-256 of ${name}`}>{sha256}</Code>
                </td>
                <td>{location === "remote" ? "on the cluster" : "in provenance"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {omitted !== undefined && <p className="hint">The node has {counted(omitted, "more output")}, not told here.</p>}
      {values.length > 0 && (
        <dl className="facts">
          {values.map(({ name, json_text }) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>
                <code>{json_text}</code>
              </dd>
            </div>
          ))}
        </dl>
      )}
    </>
  );
}

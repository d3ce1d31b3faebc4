import { useQuery } from "convex/react";
import { Boundary } from "../parts/common";
import { State } from "../parts/state";
import { Ago } from "../parts/time";
import { counted } from "../format";
import { own } from "../own";
import { api, type Command } from "../product";

type Named = { tenant_id: string; job_id: string };

const VERBS: Record<string, string> = { submit: "Submission", cancel: "Cancellation" };

/** What was asked of the node and has no answer yet, or was refused, and why; `said` stands on the page already. */
export function Commands({ said, ...named }: Named & { said: string | undefined }) {
  return (
    <Boundary title="The commands of this job cannot be shown.">
      <Open {...named} said={said} />
    </Boundary>
  );
}

function Open({ said, ...named }: Named & { said: string | undefined }) {
  const commands = useQuery(api.commands.list, named);
  const open = (commands ?? []).filter(({ state }) => state !== "accepted");
  if (open.length === 0) return null;
  return (
    <ul className="commands" aria-label="Commands">
      {open.map((command) => (
        <li key={command.command_id}>
          <strong>{own(VERBS, command.operation) ?? command.operation}</strong> <State value={command.state} />
          <span>
            {command.last_problem && command.last_problem.message !== said && `${command.last_problem.message} `}
            <span className="quiet">
              asked <Ago time={command.created_at} />
              <Tries command={command} />
            </span>
          </span>
        </li>
      ))}
    </ul>
  );
}

function Tries({ command: { attempts, next_at, state } }: { command: Command }) {
  return (
    <>
      {attempts > 0 && `; tried ${counted(attempts, "time")}`}
      {state === "pending" && next_at !== undefined && (
        <>
          , next <Ago time={next_at} />
        </>
      )}
    </>
  );
}

// The machines that serve the tenant: whether each is there, what it has, and how to bring another one.
import { useAction, useMutation, useQuery } from "convex/react";
import { useState } from "react";
import { Confirm, Empty, Loading } from "../parts/common";
import { State } from "../parts/state";
import { Ago } from "../parts/time";
import { reasonOf } from "../parts/reasons";
import { api, type Node, type Report } from "../product";
import { to } from "../router";
import { Enrol } from "./enrol";
import { Inventory } from "./inventory";

type Token = { node_id: string; enrolment_token: string; expires_at: string };

export function NodesPage({
  tenant_id,
  manages,
  adapter_url,
}: {
  tenant_id: string;
  manages: boolean;
  adapter_url: string;
}) {
  const nodes = useQuery(api.nodes.list, { tenant_id });
  const [enrolling, setEnrolling] = useState<Token | "new">();
  return (
    <>
      <div className="title-row">
        <h1>Nodes</h1>
        {manages && (
          <button type="button" className="primary" onClick={() => setEnrolling("new")}>
            Enrol a node
          </button>
        )}
      </div>
      {nodes === undefined ? (
        <Loading what="nodes" />
      ) : nodes.length === 0 ? (
        <Empty title="No node serves this tenant yet">
          <p>
            A node is a machine of yours with AiiDA and Slurm. It calls out to the product, so it needs no open port.{" "}
            {manages ? "Enrol one, and it shows up here." : "An owner or admin of the tenant can enrol one."}
          </p>
        </Empty>
      ) : (
        <ul className="cards">
          {nodes.map((node) => (
            <li key={node.node_id}>
              <NodeCard node={node} tenant_id={tenant_id} manages={manages} shown={setEnrolling} />
            </li>
          ))}
        </ul>
      )}
      {enrolling !== undefined && (
        <Enrol
          tenant_id={tenant_id}
          adapter_url={adapter_url}
          made={enrolling === "new" ? undefined : enrolling}
          close={() => setEnrolling(undefined)}
        />
      )}
    </>
  );
}

function NodeCard({
  node,
  tenant_id,
  manages,
  shown,
}: {
  node: Node;
  tenant_id: string;
  manages: boolean;
  shown: (token: Token) => void;
}) {
  const { node_id, status, heartbeat, owned } = node;
  return (
    <article className="panel" aria-labelledby={`node-${node_id}`}>
      <header>
        <h2 id={`node-${node_id}`}>{node_id}</h2>
        <State value={status.state} />
        <span className="quiet">
          since <Ago time={status.since} />
        </span>
        <span className="quiet">
          {heartbeat ? (
            <>
              heard <Ago time={heartbeat.received_at} />
            </>
          ) : (
            "never heard"
          )}
        </span>
        <div className="panel-aside">
          <a href={to([tenant_id, "jobs"], { node_id })}>Its jobs</a>
          {owned && manages && <Manage node={node} tenant_id={tenant_id} shown={shown} />}
        </div>
      </header>
      {status.reasons.length > 0 && (
        <ul className="reasons">
          {status.reasons.map((reason) => (
            <li key={reason}>{reasonOf(reason)}</li>
          ))}
        </ul>
      )}
      {heartbeat && <Inventory report={heartbeat.report as Report} />}
    </article>
  );
}

function Manage({ node, tenant_id, shown }: { node: Node; tenant_id: string; shown: (token: Token) => void }) {
  const { node_id, status } = node;
  const [asking, setAsking] = useState<"drain" | "revoke" | "renew">();
  const drain = useMutation(api.nodes.drain);
  const resume = useMutation(api.nodes.resume);
  const revoke = useMutation(api.nodes.revoke);
  const renew = useAction(api.nodes.renewToken);
  const named = { tenant_id, node_id };
  const close = () => setAsking(undefined);
  const isDraining = status.reasons.includes("drain_requested");
  return (
    <>
      {status.state !== "revoked" && (
        <button type="button" onClick={() => (isDraining ? void resume(named) : setAsking("drain"))}>
          {isDraining ? "Take jobs again" : "Drain"}
        </button>
      )}
      <button type="button" onClick={() => setAsking("renew")}>
        New token
      </button>
      {status.state !== "revoked" && (
        <button type="button" className="danger" onClick={() => setAsking("revoke")}>
          Revoke
        </button>
      )}
      {asking === "drain" && (
        <Confirm title={`Drain ${node_id}?`} verb="Drain" action={() => drain(named)} close={close}>
          <p>It finishes what it has and takes no new jobs until you let it take some again.</p>
        </Confirm>
      )}
      {asking === "revoke" && (
        <Confirm title={`Revoke ${node_id}?`} verb="Revoke" action={() => revoke(named)} close={close}>
          <p>
            Its keys are taken: it can tell nothing more and takes no more jobs, until it is enrolled with a new token.
          </p>
        </Confirm>
      )}
      {asking === "renew" && (
        <Confirm
          title={`Make a new token for ${node_id}?`}
          verb="Make a token"
          action={async () => {
            const token = await renew(named);
            shown({ node_id, ...token });
          }}
          close={close}
        >
          <p>
            Once it is redeemed, the node has a new key and all earlier ones are void. A token made before is void at
            once.
          </p>
        </Confirm>
      )}
    </>
  );
}

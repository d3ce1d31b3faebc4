// The frame around every page: where one is, who one is, whether what one sees is live.
import { useConvexConnectionState, useQuery } from "convex/react";
import { useEffect, useRef, useState, type ReactNode } from "react";
import type { SignedIn } from "./auth";
import type { Config } from "./config";
import { clock } from "./format";
import { Boundary, Empty, Loading } from "./parts/common";
import { own } from "./own";
import { api, type Membership } from "./product";
import { go, to, usePlace } from "./router";
import { choose, chosenTheme, type Theme } from "./theme";
import { JobPage } from "./pages/job";
import { JobsPage } from "./pages/jobs";
import { NodesPage } from "./pages/nodes";
import { SubmitPage } from "./pages/submit";
import { UsagePage } from "./pages/usage";

type Frame = { config: Config; user: SignedIn; leave: (why?: string) => void };

export function App(frame: Frame) {
  return (
    <Boundary title="The product could not say who you are.">
      <Inside {...frame} />
    </Boundary>
  );
}

function Inside({ config, user, leave }: Frame) {
  const { path } = usePlace();
  const memberships = useQuery(api.tenancy.mine, {});
  const [wanted] = path;
  const first = memberships?.find(({ tenant_id }) => tenant_id === user.tenant_id) ?? memberships?.[0];
  useEffect(() => {
    if (wanted === undefined && first !== undefined) go(to([first.tenant_id, "jobs"]), { replace: true });
  }, [wanted, first]);
  const tenant_id = wanted ?? first?.tenant_id;
  return (
    <>
      <button type="button" className="skip" onClick={() => document.getElementById("main")?.focus()}>
        Skip to content
      </button>
      <Header
        tenant_id={memberships?.some((each) => each.tenant_id === tenant_id) ? tenant_id : first?.tenant_id}
        memberships={memberships ?? []}
        user={user}
        leave={leave}
      />
      <Connection />
      {memberships === undefined ? (
        <main id="main">
          <Loading what="your tenants" />
        </main>
      ) : tenant_id === undefined ? (
        <main id="main">
          <Empty title="You are in no tenant yet">
            <p>Whoever runs the product adds you to one; then your jobs show up here.</p>
          </Empty>
        </main>
      ) : (
        <Page
          tenant_id={tenant_id}
          membership={memberships.find((each) => each.tenant_id === tenant_id)}
          config={config}
        />
      )}
    </>
  );
}

function Page({ tenant_id, membership, config }: { tenant_id: string; membership?: Membership; config: Config }) {
  const { path, query } = usePlace();
  const [, area = "jobs", name] = path;
  const manages = membership?.role === "owner" || membership?.role === "admin";
  const workspaces = membership?.workspaces ?? [];
  const here = `${path.join("/")}${area === "submit" ? `?${query.toString()}` : ""}`;
  const pages: Record<string, ReactNode> = {
    jobs: name === undefined ? <JobsPage tenant_id={tenant_id} /> : <JobPage tenant_id={tenant_id} job_id={name} />,
    nodes: <NodesPage tenant_id={tenant_id} manages={manages} adapter_url={config.adapter_url} />,
    usage: <UsagePage tenant_id={tenant_id} />,
    submit: <SubmitPage tenant_id={tenant_id} workspaces={workspaces} from={query.get("from") ?? undefined} />,
  };
  const main = useRef<HTMLElement>(null);
  const seen = useRef(here);
  useEffect(() => {
    document.title = `${name ?? area} · ${tenant_id}`;
    // Who goes on by keyboard or screen reader goes on at the top of the new page; who only arrives, at the very top.
    if (seen.current !== "" && seen.current !== here) main.current?.focus();
    seen.current = here;
  }, [here, name, area, tenant_id]);
  return (
    <main id="main" ref={main} tabIndex={-1}>
      <Boundary key={here}>
        {own(pages, area) ?? (
          <Empty title="There is no such page">
            <p>
              <a href={to([tenant_id, "jobs"])}>To the jobs</a>
            </p>
          </Empty>
        )}
      </Boundary>
    </main>
  );
}

const AREAS = [
  ["jobs", "Jobs"],
  ["nodes", "Nodes"],
  ["usage", "Usage"],
] as const;

function Header({
  tenant_id,
  memberships,
  user,
  leave,
}: {
  tenant_id?: string;
  memberships: Membership[];
  user: SignedIn;
  leave: () => void;
}) {
  const { path } = usePlace();
  const area = path[1] ?? "jobs";
  return (
    <header className="top">
      {tenant_id !== undefined && (
        <nav aria-label="Pages">
          {memberships.length > 1 ? (
            <select
              aria-label="Tenant"
              value={tenant_id}
              onChange={(event) => go(to([event.target.value, area === "submit" ? "jobs" : area]))}
            >
              {memberships.map((each) => (
                <option key={each.tenant_id}>{each.tenant_id}</option>
              ))}
            </select>
          ) : (
            <strong className="tenant">{tenant_id}</strong>
          )}
          {AREAS.map(([name, title]) => (
            <a key={name} href={to([tenant_id, name])} aria-current={area === name ? "page" : undefined}>
              {title}
            </a>
          ))}
        </nav>
      )}
      <div className="top-end">
        {tenant_id !== undefined && (
          <a className="button primary" href={to([tenant_id, "submit"])}>
            New job
          </a>
        )}
        <ThemeChoice />
        <span className="user">{user.label}</span>
        <button type="button" onClick={() => leave()}>
          Sign out
        </button>
      </div>
    </header>
  );
}

function ThemeChoice() {
  const [theme, setTheme] = useState<Theme>(chosenTheme);
  return (
    <select
      aria-label="Theme"
      value={theme}
      onChange={(event) => {
        const chosen = event.target.value as Theme;
        choose(chosen);
        setTheme(chosen);
      }}
    >
      <option value="system">Theme: system</option>
      <option value="light">Theme: light</option>
      <option value="dark">Theme: dark</option>
    </select>
  );
}

// Says so when the page is no longer live; a moment's interruption is nobody's business.
function Connection() {
  const { isWebSocketConnected, hasEverConnected } = useConvexConnectionState();
  const [lostAt, setLostAt] = useState<string>();
  useEffect(() => {
    if (isWebSocketConnected) {
      setLostAt(undefined);
      return;
    }
    const at = new Date().toISOString();
    const timer = window.setTimeout(() => setLostAt(at), 1500);
    return () => window.clearTimeout(timer);
  }, [isWebSocketConnected]);
  return (
    <div role="status" className="connection">
      {lostAt !== undefined &&
        (hasEverConnected
          ? `Not connected to the product: what you see is of ${clock(lostAt)}. Trying again…`
          : "The product cannot be reached. Trying again…")}
    </div>
  );
}

import { StrictMode, useMemo, useState, useEffect } from "react";
import { createRoot } from "react-dom/client";
import { ConvexProvider, ConvexReactClient } from "convex/react";
import { ConvexError } from "convex/values";
import { AdapterProvider } from "./adapter";
import { App } from "./app";
import { restored, signOut, type SignedIn } from "./auth";
import { loadConfig, narrowConnections, type Config } from "./config";
import { SignIn } from "./pages/signin";
import { choose, chosenTheme } from "./theme";
import "./style/colours.css";
import "./style/base.css";
import "./style/parts.css";
import "./style/jobs.css";
import "./style/job.css";
import "./style/forms.css";

function Root({ config }: { config: Config }) {
  const [user, setUser] = useState<SignedIn | null>(restored);
  const [notice, setNotice] = useState<string>();
  function leave(why?: string) {
    signOut();
    setNotice(why);
    setUser(null);
  }
  if (user === null) return <SignIn offered={config.tenants} notice={notice} signedIn={setUser} />;
  return <Session key={user.label} config={config} user={user} leave={leave} />;
}

// One client per user: what one was shown must not be in another's memory.
function Session({ config, user, leave }: { config: Config; user: SignedIn; leave: (why?: string) => void }) {
  const [client, setClient] = useState<ConvexReactClient>();
  useEffect(() => {
    const convex = new ConvexReactClient(config.convex_url, { unsavedChangesWarning: false });
    convex.setAuth(user.token, (accepted) => {
      if (!accepted) leave("The product does not accept this token any more: sign in again.");
    });
    setClient(convex);
    return () => void convex.close();
    // A user and a configuration are for the life of this component.
  }, []);
  const adapter = useMemo(() => ({ url: config.adapter_url, token: user.token }), [config, user]);
  if (client === undefined) return null;
  return (
    <ConvexProvider client={client}>
      <AdapterProvider value={adapter}>
        <App config={config} user={user} leave={leave} />
      </AdapterProvider>
    </ConvexProvider>
  );
}

choose(chosenTheme());
// A refusal of the product is told on the page; whatever else fails belongs in the console too.
const root = createRoot(document.getElementById("app")!, {
  onCaughtError: (error) => {
    if (!(error instanceof ConvexError)) console.error(error);
  },
});
loadConfig().then(
  (config) => {
    narrowConnections(config);
    root.render(
      <StrictMode>
        <Root config={config} />
      </StrictMode>,
    );
  },
  (error: Error) =>
    root.render(
      <main className="alone">
        <h1>This page is not set up</h1>
        <p role="alert">{error.message}</p>
      </main>,
    ),
);

// The websocket of Convex's sync protocol: `/api/<version of the client>/sync`.
import type { IncomingMessage, Server } from "node:http";
import type { Duplex } from "node:stream";
import { WebSocketServer, type WebSocket } from "ws";
import type { Authenticator } from "./auth";
import type { Deployment } from "./functions";
import { ProtocolError } from "./protocol";
import { Requests } from "./requests";
import { Session, type Wire } from "./session";

const ROUTE = /^\/api\/(?:\d+\.\d+\.\d+[^/]*\/)?sync$/;
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;
const MAX_CONNECTIONS = 256;
const PING_MS = 15_000;

/** Serves the sync protocol on an HTTP server's upgrades. */
export function serveSync(server: Server, authenticator: Authenticator, deployment: Deployment): void {
  const sockets = new WebSocketServer({ noServer: true, maxPayload: MAX_MESSAGE_BYTES });
  const sessions = new Map<WebSocket, Session>();
  const requests = new Requests();
  const heard = new WeakSet<WebSocket>();
  deployment.onWrite((table) => {
    for (const session of sessions.values()) session.hearWrite(table);
  });
  server.on("upgrade", (request: IncomingMessage, stream: Duplex, head: Buffer) => {
    const path = (request.url ?? "/").split("?", 1)[0]!;
    if (!ROUTE.test(path)) return refuse(stream, "404 Not Found");
    if (sessions.size >= MAX_CONNECTIONS) return refuse(stream, "503 Service Unavailable");
    sockets.handleUpgrade(request, stream, head, (socket) => {
      const session = new Session(wire(socket), authenticator, deployment, requests);
      sessions.set(socket, session);
      heard.add(socket);
      socket.on("message", (data: Buffer, isBinary) => {
        heard.add(socket);
        if (isBinary) session.fail(new ProtocolError("WSMessageInvalidJson", "Received a binary message"));
        else session.receive(data.toString());
      });
      socket.on("pong", () => heard.add(socket));
      socket.on("error", (error) => console.log(`sync ${error.message}`)); // the close follows
      socket.on("close", () => {
        session.end();
        sessions.delete(socket);
      });
    });
  });
  setInterval(() => {
    for (const socket of sessions.keys()) {
      if (!heard.delete(socket)) {
        socket.terminate();
        continue;
      }
      socket.ping();
      socket.send(JSON.stringify({ type: "Ping" })); // browsers do not show scripts the other one
    }
  }, PING_MS);
}

function wire(socket: WebSocket): Wire {
  return {
    send: (message) => new Promise((resolve) => socket.send(JSON.stringify(message), () => resolve())),
    close: (code, reason) => socket.close(code, reason),
  };
}

function refuse(stream: Duplex, status: string): void {
  stream.on("error", () => {}); // whoever has gone needs no answer
  stream.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

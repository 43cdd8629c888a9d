/** The page of a key's owner: balance, usage, transactions, keys and limits. */
import { render } from "preact";
import { SignedInPage, type View } from "../parts/frame";
import { Sessions } from "../parts/sessions";
import { start } from "../parts/sign_in";
import { AuditLog } from "./audit_log";
import { Connect } from "./connect";
import { Keys } from "./keys";
import { Limits } from "./limits";
import { Overview } from "./overview";
import { Transactions } from "./transactions";
import { UpstreamKeys } from "./upstream_keys";
import { Usage } from "./usage";
import { Webhooks } from "./webhooks";

const VIEWS: View[] = [
  { path: "", name: "Overview", show: () => <Overview /> },
  { path: "usage", name: "Usage", show: () => <Usage /> },
  { path: "transactions", name: "Transactions", show: () => <Transactions /> },
  { path: "keys", name: "Keys", show: () => <Keys /> },
  { path: "upstream-keys", name: "Upstream keys", show: () => <UpstreamKeys /> },
  { path: "webhooks", name: "Webhooks", show: () => <Webhooks />, scope: "keys" },
  { path: "limits", name: "Limits", show: () => <Limits /> },
  { path: "connect", name: "Connect", show: () => <Connect /> },
  { path: "audit", name: "Audit log", show: () => <AuditLog />, group: "Security" },
  { path: "sessions", name: "Sessions", show: () => <Sessions />, group: "Security" },
];

document.addEventListener("DOMContentLoaded", () => {
  const page = document.getElementById("page");
  if (page) render(<SignedInPage page="account" views={VIEWS} />, page);
  void start();
});

/** The console of operators. */
import { render } from "preact";
import { SignedInPage, type View } from "../parts/frame";
import { me } from "../parts/session";
import { Sessions } from "../parts/sessions";
import { start } from "../parts/sign_in";
import { Alerts } from "./alerts";
import { Audit } from "./audit";
import { Cache } from "./cache";
import { Deployments } from "./deployments";
import { FiringBadge } from "./firing";
import { Hosts } from "./hosts";
import { Keys } from "./keys";
import { Models } from "./models";
import { Orgs } from "./orgs";
import { Overview } from "./overview";
import { Plans } from "./plans";
import { Reconciliation } from "./reconciliation";
import { Security } from "./security";
import { System } from "./system";
import { Transfers } from "./transfers";
import { Upstreams } from "./upstreams";
import { Usage } from "./usage";
import { Users } from "./users";
import { Vault } from "./vault";

const VIEWS: View[] = [
  { path: "", name: "Overview", show: () => <Overview /> },
  { path: "usage", name: "Usage", show: () => <Usage /> },
  { path: "orgs", name: "Orgs", show: () => <Orgs />, group: "Customers" },
  { path: "users", name: "Users", show: () => <Users />, group: "Customers" },
  { path: "keys", name: "Keys", show: () => <Keys />, group: "Customers" },
  { path: "plans", name: "Plans", show: () => <Plans />, group: "Customers" },
  { path: "transfers", name: "Transfers", show: () => <Transfers />, group: "Customers" },
  { path: "models", name: "Models", show: () => <Models />, group: "Serving" },
  { path: "upstreams", name: "Upstreams", show: () => <Upstreams />, group: "Serving" },
  { path: "cache", name: "Completion cache", show: () => <Cache />, group: "Serving" },
  { path: "vault", name: "Vault", show: () => <Vault />, group: "Serving" },
  { path: "hosts", name: "Hosts", show: () => <Hosts />, group: "Your machines" },
  { path: "deployments", name: "Deployments", show: () => <Deployments />, group: "Your machines" },
  { path: "alerts", name: "Alerts", show: () => <Alerts />, group: "Operation", badge: FiringBadge },
  { path: "security", name: "Security", show: () => <Security />, group: "Operation" },
  { path: "audit", name: "Audit log", show: () => <Audit />, group: "Operation" },
  { path: "reconciliation", name: "Reconciliation", show: () => <Reconciliation />, group: "Operation" },
  { path: "sessions", name: "Sessions", show: () => <Sessions />, group: "Operation" },
  { path: "system", name: "System", show: () => <System />, group: "Operation" },
];

function Admin() {
  return me.value && me.value.role !== "admin" ? <NotForMembers /> : <SignedInPage page="admin" views={VIEWS} />;
}

const NotForMembers = () => (
  <SignedInPage
    page="admin"
    views={[
      {
        path: "",
        name: "",
        show: () => (
          <div class="nothing-here">
            <h1>The console is for operators</h1>
            <p>You are signed in as a member. Your balance, keys and usage are on your account page.</p>
            <a class="button" href="account">
              To your account
            </a>
          </div>
        ),
      },
    ]}
  />
);

document.addEventListener("DOMContentLoaded", () => {
  const page = document.getElementById("page");
  if (page) render(<Admin />, page);
  void start();
});

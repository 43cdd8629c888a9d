/** The console of operators. */
import { render } from "preact";
import { SignedInPage, type View } from "../parts/frame";
import { me } from "../parts/session";
import { start } from "../parts/sign_in";
import { Keys } from "./keys";
import { Orgs } from "./orgs";
import { Overview } from "./overview";
import { Plans } from "./plans";
import { Transfers } from "./transfers";
import { Users } from "./users";

const VIEWS: View[] = [
  { path: "", name: "Overview", show: () => <Overview /> },
  { path: "orgs", name: "Orgs", show: () => <Orgs />, group: "Customers" },
  { path: "users", name: "Users", show: () => <Users />, group: "Customers" },
  { path: "keys", name: "Keys", show: () => <Keys />, group: "Customers" },
  { path: "plans", name: "Plans", show: () => <Plans />, group: "Customers" },
  { path: "transfers", name: "Transfers", show: () => <Transfers />, group: "Customers" },
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

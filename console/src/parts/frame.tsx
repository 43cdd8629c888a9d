/** What stands around every page: its name, the way to the other pages, and who is signed in. */
import type { ComponentChildren } from "preact";
import { Icon, Toast } from "./basics";
import { Failure } from "./data";
import { Revealed } from "./dialogs";
import { link, route } from "./routing";
import { me, recognise, signOut, unknown } from "./session";
import { SignIn, SignInAgain } from "./sign_in";
import { type Theme, theme } from "./theme";
import { ZoneSwitch, zoneName } from "./times";

export type PageName = "admin" | "account" | "ui";
const PAGES: [PageName, string][] = [
  ["admin", "Console"],
  ["account", "Account"],
  ["ui", "Playground"],
];
const THEMES: [Theme, string][] = [
  ["system", "System"],
  ["light", "Light"],
  ["dark", "Dark"],
];

function ThemeSwitch() {
  return (
    <select
      class="compact"
      aria-label="Theme"
      value={theme.value}
      onChange={(event) => {
        theme.value = event.currentTarget.value as Theme;
      }}
    >
      {THEMES.map(([value, name]) => (
        <option key={value} value={value}>
          {name}
        </option>
      ))}
    </select>
  );
}

/** Members do not see the console, which they may not use. */
const isShown = (name: PageName, page: PageName) =>
  name !== "admin" || page === "admin" || me.value?.role === "admin" || me.value === undefined;

export function Frame({
  page,
  aside,
  menu,
  children,
}: {
  page: PageName;
  aside?: ComponentChildren;
  menu?: ComponentChildren;
  children: ComponentChildren;
}) {
  return (
    <>
      <header class="top">
        {menu ?? <SmallMenu page={page} />}
        <a class="brand" href={page}>
          <svg viewBox="0 0 16 16" aria-hidden="true">
            <rect width="16" height="16" rx="4" />
            <path d="M4.5 5h7M8 5v6.5" />
          </svg>
          Tollgate
        </a>
        <Pages open={page} />
        <div class="end">
          {aside}
          <ThemeSwitch />
        </div>
      </header>
      {children}
      <Toast />
    </>
  );
}

const Pages = ({ open }: { open: PageName }) => (
  <nav class="pages" aria-label="Pages">
    {PAGES.filter(([name]) => isShown(name, open)).map(([name, title]) => (
      <a key={name} href={name} aria-current={open === name ? "page" : undefined}>
        {title}
      </a>
    ))}
    <a href="docs">Reference</a>
  </nav>
);

/** A view of a page: where it stands in the menu and what it shows. */
export interface View {
  path: string;
  name: string;
  show: () => ComponentChildren;
  /** Views with the same group stand together in the menu. */
  group?: string;
  /** Who lacks this scope does not see the view in the menu. */
  scope?: string;
  /** What stands beside the name in the menu. */
  badge?: () => ComponentChildren;
}

/** A page for people who are signed in, with a menu of views. The first view is the one without an address. */
export function SignedInPage({ page, views }: { page: PageName; views: View[] }) {
  const known = me.value;
  if (known === undefined) {
    return (
      <Frame page={page}>
        {unknown.value && (
          <main class="connect">
            <Failure problem={unknown.value} retry={() => void recognise()} />
          </main>
        )}
      </Frame>
    );
  }
  if (known === null) {
    return (
      <Frame page={page}>
        <SignIn />
      </Frame>
    );
  }
  const path = route.value.parts[0] ?? "";
  const view = views.find((one) => one.path === path);
  return (
    <Frame page={page} aside={<Person />} menu={<SmallMenu page={page} views={views} open={path} />}>
      <div class="console">
        <Menu views={views} open={path} />
        <main class="view" key={path}>
          {view ? view.show() : <NoView />}
          <p class="zone soft small">Times are {zoneName()}.</p>
        </main>
      </div>
      <SignInAgain />
      <Revealed />
    </Frame>
  );
}

function Person() {
  const known = me.value;
  return (
    <>
      <ZoneSwitch />
      <span class="person wide" title={known?.email}>
        {known?.name || known?.email}
      </span>
      <button type="button" class="quiet" onClick={() => void signOut()}>
        <Icon name="leave" />
        <span class="wide">Sign out</span>
        <span class="offscreen narrow">Sign out</span>
      </button>
    </>
  );
}

/** Where a name is cut, the pointer shows it whole. A title that the view has given stays. */
addEventListener("pointerover", ({ target }) => {
  const cut = target instanceof Element ? target.closest<HTMLElement>(".cut, td .text code") : null;
  if (!cut || (cut.title && !cut.dataset.whole)) return;
  cut.dataset.whole = "shown";
  cut.title = cut.scrollWidth > cut.clientWidth ? cut.textContent : "";
});

const groupsOf = (views: View[]): [string, View[]][] => [
  ...Map.groupBy(
    views.filter(({ name, scope }) => name && (!scope || me.value?.scopes.includes(scope))),
    ({ group }) => group ?? "",
  ),
];

function Menu({ views, open }: { views: View[]; open: string }) {
  if (!views.some(({ name }) => name)) return null;
  return (
    <nav class="menu" aria-label="Views">
      {groupsOf(views).map(([group, members]) => (
        <div key={group}>
          {group && <p>{group}</p>}
          {members.map((view) => (
            <a key={view.path} href={link(view.path)} aria-current={view.path === open ? "page" : undefined}>
              {view.name}
              {view.badge?.()}
            </a>
          ))}
        </div>
      ))}
    </nav>
  );
}

/** The menu of a narrow window. A choice closes it. */
function SmallMenu({ page, views = [], open = "" }: { page: PageName; views?: View[]; open?: string }) {
  return (
    <details class="small-menu" key={open}>
      <summary aria-label="Menu">
        <Icon name="menu" />
      </summary>
      <div class="opened">
        <Pages open={page} />
        <Menu views={views} open={open} />
        <div class="switches">
          {views.length > 0 && <ZoneSwitch />}
          <ThemeSwitch />
        </div>
      </div>
    </details>
  );
}

const NoView = () => (
  <div class="nothing-here">
    <h1>There is no such view</h1>
    <a class="button" href={link("")}>
      To the overview
    </a>
  </div>
);

export function Heading({ title, children }: { title: ComponentChildren; children?: ComponentChildren }) {
  return (
    <div class="heading">
      <h1>{title}</h1>
      {children && <div class="end">{children}</div>}
    </div>
  );
}

/** Backups that were created or verified, what was found in them, and how one is made. */
import { Copy } from "../parts/basics";
import { Panel, Shown, useData } from "../parts/data";
import { Secret } from "../parts/dialogs";
import { Facts, Figures } from "../parts/figures";
import { Choice } from "../parts/filters";
import { Count, counted, lasting, Status, sized } from "../parts/numbers";
import { route, withFilters } from "../parts/routing";
import type { Answer } from "../parts/session";
import { EntrySide } from "../parts/side";
import { List } from "../parts/table";
import { When } from "../parts/times";

type Page = Answer<"/admin/backups", "get">;
type Backup = Page["data"][number];

const STATES: [string, string][] = [
  ["true", "Sound"],
  ["false", "Not sound"],
];
const CREATE = "python -m tollgate backup create --to tollgate.dump";
const VERIFY = "python -m tollgate backup verify tollgate.dump";

export function Backups() {
  const { is_sound, sort, cursor, open } = route.value.filters;
  const loaded = useData("/admin/backups", { query: { is_sound, sort, cursor, limit: 50 } });
  return (
    <>
      <Newest />
      <div class="columns">
        <Panel title="Create one">
          <p>It takes one snapshot, and the server goes on meanwhile. Keep the file where the database is not.</p>
          <Secret label="Command" text={CREATE} />
        </Panel>
        <Panel title="Verify one">
          <p>It is restored into a Postgres of its own, and its books are audited. Supabase's backups are taken too.</p>
          <Secret label="Command" text={VERIFY} />
        </Panel>
      </div>
      <div class="filters">
        <Choice name="is_sound" label="State" options={STATES} />
      </div>
      <Panel title="Backups">
        <List
          loaded={loaded}
          caption="Backups"
          nothing={
            <>
              <p>Tollgate knows of no backup. Those that your host makes are listed once they are verified.</p>
              <p>
                <code>python -m tollgate backup create</code> makes one.
              </p>
            </>
          }
          keyOf={({ digest }) => digest}
          link={({ digest }) => withFilters({ open: digest })}
          open={({ digest }) => digest === open}
          columns={[
            { name: "File", of: ({ file }) => <span class="cut file">{file}</span> },
            { name: "State", of: (one) => <Soundness of={one} /> },
            { name: "Taken", of: (one) => <When at={momentOf(one)} />, sort: "created_at" },
            { name: "Age", of: (one) => ageOf(momentOf(one)), number: true },
            { name: "Size", of: ({ bytes }) => sized(bytes), number: true },
            { name: "Verified", of: ({ verified_at }) => <When at={verified_at} />, wide: true },
            { name: "Requests", of: ({ counts }) => <Count of={counts?.requests} />, number: true, wide: true },
          ]}
        />
      </Panel>
      {open && <OneBackup key={open} digest={open} />}
    </>
  );
}

/** When what is in it was so. Before a verification, when it was written. */
const momentOf = ({ taken_at, created_at }: Backup): string => taken_at ?? created_at;

const ageOf = (moment: string): string => lasting(Date.now() - Date.parse(moment));

const Soundness = ({ of }: { of: Backup }) => (
  <span class="group">
    <Status of={of.is_sound === null ? "not verified" : of.is_sound ? "sound" : "not sound"} />
    {of.faults.length > 0 && (
      <span class="badge">{of.faults.length === 1 ? "1 fault" : `${of.faults.length} faults`}</span>
    )}
  </span>
);

function Newest() {
  const loaded = useData("/admin/backups", { query: { is_sound: true, limit: 1 } });
  return (
    <Panel>
      <Shown loaded={loaded}>{(found) => <NewestFigures of={found} />}</Shown>
    </Panel>
  );
}

function NewestFigures({ of: { data, total } }: { of: Page }) {
  const [newest] = data;
  if (!newest) {
    return (
      <Figures
        figures={[
          {
            name: "Newest sound backup",
            value: <span class="status bad">none</span>,
            note: "No backup was verified: nothing proves that this database can be made again.",
          },
        ]}
      />
    );
  }
  return (
    <Figures
      figures={[
        {
          name: "Newest sound backup",
          value: `${ageOf(momentOf(newest))} ago`,
          note: <When at={momentOf(newest)} seconds />,
        },
        { name: "Verified", value: `${ageOf(newest.verified_at ?? newest.created_at)} ago`, note: newest.file },
        {
          name: "In it",
          value: newest.counts ? `${counted(newest.counts.requests)} requests` : "–",
          note: newest.counts && `${counted(newest.counts.orgs)} orgs, ${counted(newest.counts.transfers)} transfers`,
        },
        { name: "Sound backups", value: counted(total) },
      ]}
    />
  );
}

function OneBackup({ digest }: { digest: string }) {
  const loaded = useData("/admin/backups/{digest}", { path: { digest } });
  return (
    <EntrySide loaded={loaded} kind="Backup" title={({ file }) => file}>
      {(found) => <Whole of={found} />}
    </EntrySide>
  );
}

function Whole({ of }: { of: Backup }) {
  return (
    <>
      <Facts
        facts={[
          ["State", <Soundness key="state" of={of} />],
          ["Taken", <When key="taken" at={of.taken_at} seconds />],
          [of.made_here ? "Created" : "First seen", <When key="created" at={of.created_at} seconds />],
          ["Verified", <When key="verified" at={of.verified_at} seconds />],
          ["Size", sized(of.bytes)],
          ["Schema", of.schema_version ?? "–"],
          ["Orgs", <Count key="orgs" of={of.counts?.orgs} />],
          ["Transfers", <Count key="transfers" of={of.counts?.transfers} />],
          ["Requests", <Count key="requests" of={of.counts?.requests} />],
          [
            "SHA-256",
            <span key="digest" class="group">
              <code>{of.digest}</code>
              <Copy label="SHA-256" text={() => of.digest} />
            </span>,
          ],
        ]}
      />
      {of.faults.length > 0 && (
        <>
          <h3>What was found</h3>
          <ul class="fixes">
            {of.faults.map((fault) => (
              <li key={fault}>{fault}</li>
            ))}
          </ul>
        </>
      )}
      {of.is_sound === null && (
        <p class="soft">It was not restored on trial yet, so nothing is known of what is in it.</p>
      )}
    </>
  );
}

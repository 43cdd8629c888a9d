/** Lists as tables: sorted, paged and opened by their address. */
import type { ComponentChildren } from "preact";
import { type Loaded, Shown } from "./data";
import { route, withFilters } from "./routing";

export interface Column<Row> {
  name: string;
  of: (row: Row) => ComponentChildren;
  /** Numbers stand at the right. */
  number?: boolean;
  /** The name by which the API sorts. */
  sort?: string;
  /** Left out where the window is narrow. */
  wide?: boolean;
}

interface TableProps<Row> {
  caption: string;
  columns: Column<Row>[];
  rows: Row[];
  keyOf: (row: Row, index: number) => string;
  /** Where a click on a row leads. The first cell is the link. */
  link?: (row: Row) => string;
  /** Whether this row is open in a panel. */
  open?: (row: Row) => boolean;
  totals?: ComponentChildren[];
}

export function Table<Row>({ caption, columns, rows, keyOf, link, open, totals }: TableProps<Row>) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolling region must take the focus to be scrolled by keyboard
    <section class="scroll" tabIndex={0} aria-label={caption}>
      <table>
        <caption class="offscreen">{caption}</caption>
        <thead>
          <tr>
            {columns.map((column) => (
              <Head key={column.name} column={column} />
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row, index) => (
            <tr key={keyOf(row, index)} class={link ? "linked" : undefined} aria-current={open?.(row) || undefined}>
              {columns.map((column, at) => (
                <td key={column.name} class={classOf(column)}>
                  {at === 0 && link ? <a href={link(row)}>{column.of(row)}</a> : column.of(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
        {totals && (
          <tfoot>
            <tr>
              {totals.map((total, at) => (
                <td key={columns[at]?.name} class={columns[at] && classOf(columns[at])}>
                  {total}
                </td>
              ))}
            </tr>
          </tfoot>
        )}
      </table>
    </section>
  );
}

const classOf = ({ number, wide }: Pick<Column<never>, "number" | "wide">) =>
  [number && "number", wide && "wide"].filter(Boolean).join(" ") || undefined;

function Head<Row>({ column }: { column: Column<Row> }) {
  const { name, sort } = column;
  if (!sort) {
    return (
      <th scope="col" class={classOf(column)}>
        {name}
      </th>
    );
  }
  const [by, direction] = (route.value.filters.sort ?? "").split(":");
  const sorted = by === sort ? (direction === "asc" ? "ascending" : "descending") : undefined;
  const next = sorted === "descending" || (!sorted && !column.number) ? "asc" : "desc";
  return (
    <th scope="col" class={classOf(column)} aria-sort={sorted}>
      <a href={withFilters({ sort: `${sort}:${next}` })}>{name}</a>
    </th>
  );
}

interface Page<Row> {
  data: Row[];
  next_cursor?: string | null;
  total?: number;
}

/** A list of the API with its pages. `nothing` is said when there is no entry at all; with filters set, that none matches. */
export function List<Row>({
  loaded,
  nothing,
  ...table
}: Omit<TableProps<Row>, "rows"> & { loaded: Loaded<Page<Row>>; nothing: ComponentChildren }) {
  return (
    <Shown loaded={loaded}>
      {(page) =>
        page.data.length ? (
          <>
            <Table {...table} rows={page.data} />
            <Pager next={page.next_cursor ?? null} total={page.total} shown={page.data.length} />
          </>
        ) : page.next_cursor ? (
          <Further next={page.next_cursor} />
        ) : (
          <Nothing>{nothing}</Nothing>
        )
      }
    </Shown>
  );
}

/** One call searches a limited number of entries, and more may be behind them. */
const Further = ({ next }: { next: string }) => (
  <div class="nothing-here">
    <p>Nothing matches so far. There is more to search.</p>
    <a class="button" href={withFilters({ cursor: next })}>
      Continue the search
    </a>
  </div>
);

/** What says how the view is shown, and the period, which `nothing` speaks of. */
const SHAPING = new Set(["sort", "open", "cursor", "tab", "by", "measure", "hours", "from", "to"]);

export function Nothing({ children }: { children: ComponentChildren }) {
  const { filters } = route.value;
  const filtering = Object.keys(filters).filter((name) => !SHAPING.has(name));
  if (!filtering.length) return <div class="nothing-here">{children}</div>;
  const none = Object.fromEntries(filtering.map((name) => [name, ""]));
  return (
    <div class="nothing-here">
      <p>Nothing matches these filters.</p>
      <a class="button" href={withFilters(none)}>
        Clear the filters
      </a>
    </div>
  );
}

function Pager({ next, total, shown }: { next: string | null; total: number | undefined; shown: number }) {
  const { cursor } = route.value.filters;
  if (!next && !cursor && total === undefined) return null;
  return (
    <nav class="pager" aria-label="Pages of the list">
      <span class="soft small">
        {total === undefined ? `${shown} shown` : `${shown} of ${total.toLocaleString("en-US")}`}
      </span>
      {cursor && (
        <a class="button" href={withFilters({ cursor: "" })}>
          First page
        </a>
      )}
      {next && (
        <a class="button" href={withFilters({ cursor: next })}>
          Next page
        </a>
      )}
    </nav>
  );
}

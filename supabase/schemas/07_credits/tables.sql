-- Domains rather than checks, as in 05_people.
create domain tollgate.account as text check (value in ('wallet', 'funding', 'promotion', 'revenue', 'writeoff'));
create domain tollgate.transfer_kind as text check (value in ('grant', 'charge', 'refund', 'adjustment'));
create domain tollgate.amount_nanos as bigint check (value between 1 and 100000000000000000);
create domain tollgate.reference as text check (length(value) between 1 and 255);
create domain tollgate.reason as text check (length(value) <= 1000);

create table tollgate.transfers (
  position bigint generated always as identity primary key,
  org_id text not null,
  debit tollgate.account not null,
  credit tollgate.account not null,
  amount_nanos tollgate.amount_nanos not null,
  kind tollgate.transfer_kind not null,
  reference tollgate.reference not null,
  reason tollgate.reason not null default '',
  balance_after_nanos bigint not null,
  created_at timestamptz not null default clock_timestamp(),
  chain bytea,
  unique (kind, reference),
  check ((debit = 'wallet') <> (credit = 'wallet'))
);

create index transfers_org on tollgate.transfers (org_id, position desc);
-- Without autosummarize, every search by time would read all rows since the last vacuum.
create index transfers_time on tollgate.transfers using brin (created_at) with (pages_per_range = 32, autosummarize);
create index transfers_but_charges on tollgate.transfers (created_at) where kind <> 'charge';

comment on table tollgate.transfers is 'The ledger: each row moves amount_nanos from the account `debit` to the account `credit`, one of them the org''s wallet. Append-only. No foreign key: it is written only under the org''s lock, on the path of every request.';
comment on column tollgate.transfers.position is 'The order in which an org''s transfers were made: drawn while the org is locked. transfer_id() makes the id of it that the API shows.';
comment on column tollgate.transfers.reference is 'What caused it; (kind, reference) is unique, so a repeated cause moves money once.';
comment on column tollgate.transfers.balance_after_nanos is 'The org''s balance after this transfer.';
comment on column tollgate.transfers.chain is 'Links the transfer to those of its org before it: see chain_after().';

alter table tollgate.transfers enable row level security;

create trigger transfers_append_only
before update or delete or truncate on tollgate.transfers
for each statement execute function tollgate.forbid_change();


create table tollgate.credit_operations (
  operator text not null check (length(operator) between 1 and 100),
  idempotency_key text not null check (length(idempotency_key) between 1 and 180),
  asked jsonb not null,
  position bigint not null unique, -- of its transfer, which is never deleted
  request_id text, -- whose charge was refunded
  counted_nanos bigint not null check (counted_nanos >= 0),
  created_at timestamptz not null default clock_timestamp(),
  primary key (operator, idempotency_key)
);

create index credit_operations_request on tollgate.credit_operations (request_id) where request_id is not null;
create index credit_operations_cap on tollgate.credit_operations (operator, created_at);

comment on table tollgate.credit_operations is 'Credits moved by operators over HTTP: one row for each transfer. Append-only.';
comment on column tollgate.credit_operations.operator is 'The user who acted, with any of their keys. Idempotency keys are separate for each operator.';
comment on column tollgate.credit_operations.asked is 'The operation as it was requested, to tell a repetition from another request under the same idempotency key.';
comment on column tollgate.credit_operations.counted_nanos is 'How much of it counts toward the operator''s daily cap.';

alter table tollgate.credit_operations enable row level security;

create trigger credit_operations_append_only
before update or delete or truncate on tollgate.credit_operations
for each statement execute function tollgate.forbid_change();

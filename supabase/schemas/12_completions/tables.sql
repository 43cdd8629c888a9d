-- Domains rather than checks, as in 05_people.
create domain tollgate.request_id as text check (length(value) between 5 and 140);
create domain tollgate.request_state as text check (value in ('held', 'unsettled', 'settled', 'released'));

create table tollgate.requests (
  id tollgate.request_id primary key,
  org_id text not null,
  key_id text not null,
  user_id text not null,
  state tollgate.request_state not null,
  endpoint text not null,
  model text not null,
  streamed boolean not null default false,
  upstream text,
  served_model text,
  generation_id text,
  hold_nanos tollgate.not_negative not null,
  charge_nanos tollgate.not_negative,
  cost_nanos tollgate.not_negative,
  markup_ppm integer not null,
  output_bound bigint not null,
  reserved_tokens tollgate.not_negative not null,
  prompt_tokens tollgate.not_negative,
  completion_tokens tollgate.not_negative,
  usage jsonb,
  price jsonb,
  charged_price jsonb,
  basis text,
  attempts jsonb,
  estimated boolean not null default false,
  quarantined boolean not null default false,
  status integer,
  error_code text,
  first_token_ms integer,
  duration_ms integer,
  idempotency_key text,
  created_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null,
  settled_at timestamptz,
  is_byok boolean not null default false,
  alias text,
  cached boolean,
  check ((settled_at is null) = (state in ('held', 'unsettled')))
) with (fillfactor = 50); -- space on the page for the settled version of each row: settling then writes no index

create index requests_org on tollgate.requests (org_id, created_at desc);
-- For lists over all orgs, roll-ups and retention. Settling does not change created_at, so it does not write here.
create index requests_age on tollgate.requests (created_at);
-- Settling writes this index only for the few requests that it quarantines.
create index requests_quarantined on tollgate.requests (created_at) where quarantined;

comment on table tollgate.requests is 'Paid calls, one row for the whole life of each. No foreign keys: rows are written only under the orgs lock, and history outlives keys. orgs.held_nanos is the sum of hold_nanos of the held and unsettled ones.';
comment on column tollgate.requests.reserved_tokens is 'Tokens counted in the windows at admission; corrected when settled.';
comment on column tollgate.requests.price is 'The prices that the hold was made with; estimates are charged with them.';
comment on column tollgate.requests.charged_price is 'The prices of the route that answered, where they are not those of the hold.';
comment on column tollgate.requests.alias is 'The alias that the client named, where model is what it stood for.';
comment on column tollgate.requests.basis is 'How the charge was found, where the upstream did not simply state its cost or its tokens.';
comment on column tollgate.requests.attempts is 'What was sent upstream, in order; null where one attempt was answered at once.';
comment on column tollgate.requests.is_byok is 'The call used, or could only use, a key of the org''s own: it cost us nothing, and the org the fee, which `price` holds as byok_fee_nanos.';
comment on column tollgate.requests.cached is 'Whether the cache had the answer; null where it was not asked for.';

alter table tollgate.requests enable row level security;


create table tollgate.holds (
  request_id text primary key,
  next_sweep_at timestamptz not null,
  sweeps integer not null default 0
);

create index holds_due on tollgate.holds (next_sweep_at);

comment on table tollgate.holds is 'The open holds: one row for each request that is held or unsettled, deleted when it ends.';
comment on column tollgate.holds.next_sweep_at is 'When a sweeper looks for the cost of a request that was not settled; later with each look.';

alter table tollgate.holds enable row level security;


create table tollgate.answers (
  org_id text not null,
  idempotency_key text not null check (length(idempotency_key) between 1 and 255),
  body_hash text not null,
  request_id text not null,
  answer jsonb, -- null while the request runs; {"kept": false} when it ended without an answer to keep
  replays integer not null default 0,
  replayed_at timestamptz,
  created_at timestamptz not null default clock_timestamp(),
  primary key (org_id, idempotency_key)
);

create index answers_request on tollgate.answers (request_id);
create index answers_age on tollgate.answers (created_at);

comment on table tollgate.answers is 'Answers under idempotency keys, kept for 24 hours. No foreign key, as for requests.';

alter table tollgate.answers enable row level security;


create table tollgate.dropped (
  org_id text primary key,
  requests bigint not null default 0,
  charges bigint not null default 0,
  charge_nanos bigint not null default 0
);

comment on table tollgate.dropped is 'Sums of the requests that retention dropped, so that the audit can still prove their charges.';

alter table tollgate.dropped enable row level security;


create type tollgate.wallet as (
  org_id text,
  balance_nanos bigint,
  held_nanos bigint,
  open_requests bigint,
  counters tollgate.counters,
  chain_head bytea
);

comment on type tollgate.wallet is 'The columns of an org that requests change: carried from item to item of a batch, and written once.';


create type tollgate.worst_case as (
  output_bound bigint,
  hold_nanos bigint,
  reserved_tokens bigint,
  affordable_tokens bigint -- of output, by the org's balance
);

comment on type tollgate.worst_case is 'The most that a request can use and cost: the bound of its output, and what is set aside for it.';


create type tollgate.admitted as (
  item jsonb,
  id text,
  org_id text,
  key_id text,
  user_id text,
  markup_ppm integer,
  hold_nanos bigint,
  output_bound bigint,
  reserved_tokens bigint
);

comment on type tollgate.admitted is 'A request that was admitted, before it is a row.';


create type tollgate.correction as (
  wallet tollgate.wallet,
  state text,
  charge_nanos bigint,
  transfer tollgate.transfers -- null in all where no money moves
);

comment on type tollgate.correction is 'A request, and its org, after a settlement that came late.';

-- Why:  the first release starts from one file.
-- What: all of supabase/schemas, in the order of supabase/config.toml.
-- Care: for a database without a schema `tollgate`.

set check_function_bodies = off;

-- schemas/01_foundation/schema.sql

create schema tollgate;

comment on schema tollgate is
  'Tollgate''s tables and inner functions. PostgREST must never expose it; programs call public.tollgate_*.';

-- Supabase has these roles already. A plain Postgres gets them when the migrating role may create roles,
-- and otherwise does without: only the Supabase door needs them.
do $$
declare
  wanted text;
begin
  foreach wanted in array array['anon', 'authenticated', 'service_role'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = wanted) then
      begin
        execute format('create role %I nologin noinherit', wanted);
      exception
        when duplicate_object or unique_violation then
          null; -- another database of this cluster was migrated at the same moment
        when insufficient_privilege then
          raise notice 'role % is missing and may not be created here; the Supabase door will not work', wanted;
      end;
    end if;
  end loop;
end
$$;


create table tollgate.schema_version (
  single boolean primary key default true check (single),
  version text not null check (version ~ '^[0-9]{14}$')
);

comment on table tollgate.schema_version is 'The newest Tollgate migration in this database, in one row. Every migration writes it, whoever applies it, so the code can tell whether the database is behind or ahead.';

alter table tollgate.schema_version enable row level security;


-- schemas/01_foundation/append_only.sql

-- The trigger of append-only tables.

create function tollgate.forbid_change() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  raise exception '%.% is append-only: % is refused', tg_table_schema, tg_table_name, tg_op
    using errcode = 'restrict_violation';
end
$$;

comment on function tollgate.forbid_change() is 'Trigger of the append-only tables.';


-- schemas/01_foundation/changes.sql

-- For functions that change a row.

create function tollgate.what_changed(was jsonb, now_is jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select coalesce(jsonb_object_agg(n.key, jsonb_build_object('was', was -> n.key, 'is', n.value)), '{}')
  from jsonb_each(now_is) n
  where n.value is distinct from was -> n.key
$$;

comment on function tollgate.what_changed(jsonb, jsonb) is 'The fields of a row that differ, for the audit trail; empty when none does.';


create function tollgate.lock_people() returns void
language sql
set search_path = ''
as $$
  select pg_advisory_xact_lock(hashtextextended('tollgate_people', 0))
$$;

comment on function tollgate.lock_people() is
  'Lets one change of people or plans run at a time, so that two admins cannot demote each other at once, and no plan changes while an org is put on it. Takes an advisory lock until the transaction ends.';


-- schemas/01_foundation/ids.sql

-- Ids.

create function tollgate.new_id(prefix text) returns text
language sql
volatile
set search_path = ''
as $$
  select prefix || '_'
    || lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
    || right(replace(gen_random_uuid()::text, '-', ''), 16)
$$;

comment on function tollgate.new_id(text) is
  'A new id such as org_0193…: 12 hex digits of the time in milliseconds, so that indexes grow at their end, and 16 random ones.';


create table tollgate.id_key (
  single boolean primary key default true check (single),
  secret bytea not null
);

comment on table tollgate.id_key is 'The secret of this database that mixed() uses, in one row.';

alter table tollgate.id_key enable row level security;

insert into tollgate.id_key (secret) values (
  decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex')
);


create function tollgate.mixing_round(half bigint, round integer) returns bigint
language sql
stable
set search_path = ''
as $$
  select ('x' || left(encode(sha256(k.secret || int8send(half) || int4send(round)), 'hex'), 8))::bit(32)::bigint
  from tollgate.id_key k
$$;

comment on function tollgate.mixing_round(bigint, integer) is
  'Of mixed() and unmixed(): 32 bits that depend on half a number, the round, and the secret of this database.';


create function tollgate.mixed(number bigint) returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  low constant bigint := 4294967295;
  first_half bigint := (number >> 32) & low;
  second_half bigint := number & low;
  mixed_half bigint;
begin
  for round in 1 .. 4 loop
    mixed_half := first_half # tollgate.mixing_round(second_half, round);
    first_half := second_half;
    second_half := mixed_half;
  end loop;
  return lpad(to_hex(first_half), 8, '0') || lpad(to_hex(second_half), 8, '0');
end
$$;

comment on function tollgate.mixed(bigint) is
  'A number as 16 hex digits that do not tell it: a Feistel cipher of four rounds. Ids made of it cannot be guessed or counted, and cost no column and no index.';


create function tollgate.unmixed(digits text) returns bigint
language plpgsql
stable
set search_path = ''
as $$
declare
  first_half bigint;
  second_half bigint;
  mixed_half bigint;
begin
  if digits !~ '^[0-9a-f]{16}$' then
    return null;
  end if;
  first_half := ('x' || left(digits, 8))::bit(32)::bigint;
  second_half := ('x' || right(digits, 8))::bit(32)::bigint;
  for round in reverse 4 .. 1 loop
    mixed_half := second_half;
    second_half := first_half;
    first_half := mixed_half # tollgate.mixing_round(second_half, round);
  end loop;
  return (first_half << 32) | second_half;
end
$$;

comment on function tollgate.unmixed(text) is 'The number that mixed() was given; null for other texts.';


-- schemas/01_foundation/inputs.sql

-- Fields of a JSON argument, read into a row.
--
-- The server checks what clients write. What a column may hold is said once more by its domain, for callers of SQL.

create function tollgate.with_fields(fields anyelement, given jsonb, known text[]) returns anyelement
language plpgsql
stable
set search_path = ''
as $$
declare
  field text;
begin
  for field in select jsonb_object_keys(given) loop
    if field <> all (known) then
      perform tollgate.refuse_field(field, 'is not known here');
    end if;
    fields := jsonb_populate_record(fields, jsonb_build_object(field, given -> field));
  end loop;
  return fields;
exception when check_violation or data_exception then
  perform tollgate.refuse_field(coalesce(field, 'body'), 'has a value that is not allowed');
end
$$;

comment on function tollgate.with_fields(anyelement, jsonb, text[]) is
  'A row with the given fields in place of its own; null clears, what is left out stays. Refuses, with invalid_request and the field: one that is not `known`, and a value that its column''s type or domain does not allow.';


create function tollgate.all_match(texts text[], shape text) returns boolean
language sql
immutable
set search_path = ''
as $$
  select coalesce(bool_and(coalesce(t ~ shape, false)), true) from unnest(texts) t
$$;

comment on function tollgate.all_match(text[], text) is 'Whether each of the texts has the shape. For domains.';


-- schemas/01_foundation/pages.sql

-- Pages of a list, by keyset.

create function tollgate.page(
  source regclass,
  shown regproc,
  wanted text,
  sortings jsonb,
  sort text,
  filters jsonb,
  page_size integer,
  within text default 'true',
  id text default 'e.id',
  moving text default null,
  counted boolean default true,
  most_read integer default null
) returns jsonb
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  word constant text := split_part(sort, ':', 1);
  sorted_by constant text := sortings ->> word;
  direction constant text := split_part(sort, ':', 2);
  last constant text := split_part(filters ->> 'cursor', '~', 1);
  rows text := format('%s e where (%s)', source, within);
  in_order constant text := format(' order by %1$s %2$s, %3$s %2$s limit ', sorted_by, direction, id);
  place text;
  page jsonb[];
  next_cursor text;
  total bigint;
begin
  if sorted_by is null or direction not in ('asc', 'desc') then
    perform tollgate.refuse(400, 'invalid_request', '{"param": "sort"}');
  end if;
  -- The texts are constants of the calling functions. Values from outside are quoted, or read from $1.
  if counted then
    execute format('select count(*) from %s and (%s)', rows, wanted) into total using filters;
  end if;
  if last is not null then
    execute format('select (%s)::text from %s e where %s = %L and (%s)', sorted_by, source, id, last, within)
    into place using filters;
    if place is null then
      perform tollgate.refuse(400, 'invalid_request', '{"param": "cursor"}');
    end if;
    place := coalesce(case word when moving then nullif(split_part(filters ->> 'cursor', '~', 2), '') end, place);
    rows := rows || format(
      ' and (%s, %s) %s (%L, %L)', sorted_by, id, case direction when 'asc' then '>' else '<' end, place, last
    );
  end if;
  if most_read is not null then
    rows := format('(select e.* from %s %s %s) e where true', rows, in_order, most_read);
  end if;

  execute format(
    'select array(select %s(e::%s) from %s and (%s) %s %s offset %L)',
    shown, source, rows, wanted, in_order, page_size + 1, coalesce((filters ->> 'offset')::integer, 0)
  ) into page using filters;
  if cardinality(page) > page_size then
    next_cursor := page[page_size] ->> 'id';
  elsif most_read is not null then
    execute format('select %s from %s %s 1 offset %s', id, rows, in_order, most_read - 1) into next_cursor using filters;
  end if;
  if next_cursor is not null and word = moving then
    execute format('select %L || ''~'' || (%s) from %s e where %s = %1$L', next_cursor, sorted_by, source, id)
    into next_cursor;
  end if;
  return jsonb_build_object('data', to_jsonb(page[:page_size]), 'next_cursor', next_cursor)
    || case when counted then jsonb_build_object('total', total) else '{}' end;
end
$$;

comment on function tollgate.page(
  regclass, regproc, text, jsonb, text, jsonb, integer, text, text, text, boolean, integer
) is
  'A page of a table, whose rows are called `e` in the conditions, and `filters` $1. `shown` is the function that makes JSON of a row, with an id. `wanted` says which rows are listed, `within` which rows the caller may see: a cursor must be one of those. `sortings` maps the words of `sort` (<word>:asc or <word>:desc) to expressions that are never null; `id` breaks ties. `filters` may hold an `offset`, and a cursor: the id of the last row of the page before, and for the sorting `moving`, whose value may change between pages and must be a text, <id>~<value>. `total` is there only where `counted`. With `most_read`, reads no more rows: a page may then be short, and next_cursor is the last row that was read. Planned for each call, so that the filters that are there find their index. Refuses: invalid_request for an unknown sort or cursor. Locks nothing.';


-- schemas/01_foundation/refusals.sql

-- How functions refuse a call, and the refusals that several rooms share.

create function tollgate.expose(signature regprocedure) returns void
language plpgsql
set search_path = ''
as $$
declare
  stranger text;
begin
  execute format('revoke all on function %s from public', signature);
  for stranger in select rolname from pg_catalog.pg_roles where rolname in ('anon', 'authenticated') loop
    execute format('revoke all on function %s from %I', signature, stranger);
  end loop;
  if exists (select from pg_catalog.pg_roles where rolname = 'service_role') then
    execute format('grant execute on function %s to service_role', signature);
  end if;
end
$$;

comment on function tollgate.expose(regprocedure) is
  'Lets the server, and nobody else, call a public function. Revokes by name because Supabase grants new functions to anon and authenticated by default.';


create function tollgate.refuse(status integer, code text, facts jsonb default '{}') returns void
language plpgsql
set search_path = ''
as $$
begin
  raise exception using errcode = 'PT' || status, message = code, detail = facts::text;
end
$$;

comment on function tollgate.refuse(integer, text, jsonb) is
  'Refuses the whole call: raises, so it never returns. PostgREST turns PT<status> into that HTTP status; the Postgres door reads it as sqlstate. `code` is a code of core/errors.py, `facts` become fields of the error.';


create function tollgate.refusal(status integer, code text, facts jsonb default '{}') returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('status', status, 'code', code, 'facts', facts)
$$;

comment on function tollgate.refusal(integer, text, jsonb) is
  'A refusal as a value, for functions that answer a batch: a refused item must not fail the others.';


create function tollgate.refused(status integer, code text, facts jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('refusal', tollgate.refusal(status, code, facts))
$$;

comment on function tollgate.refused(integer, text, jsonb) is 'A refusal as the answer to an item.';


create function tollgate.refuse_field(field text, fault text) returns void
language plpgsql
set search_path = ''
as $$
begin
  perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', field, 'fault', fault));
end
$$;

comment on function tollgate.refuse_field(text, text) is
  'Refuses the whole call for one of its fields. Says what is wrong with the value, and does not repeat it.';


create function tollgate.refuse_missing(kind text, id text) returns void
language sql
set search_path = ''
as $$
  select tollgate.refuse(404, 'not_found', jsonb_build_object('kind', kind, 'id', id))
$$;

comment on function tollgate.refuse_missing(text, text) is 'Refuses the whole call with not_found.';


-- schemas/01_foundation/time.sql

-- Moments, and the periods they lie in.

create function tollgate.utc(moment timestamptz) returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  return to_char(moment at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');
end
$$;

comment on function tollgate.utc(timestamptz) is
  'RFC 3339 in UTC, whatever the session''s time zone. Null stays null.';


create function tollgate.ms_of(moment timestamptz) returns bigint
language plpgsql
immutable
set search_path = ''
as $$
begin
  return extract(epoch from moment) * 1000;
end
$$;

comment on function tollgate.ms_of(timestamptz) is 'Milliseconds since the epoch.';


create function tollgate.first_of(unit text, moment timestamptz) returns timestamptz
language sql
immutable
set search_path = ''
as $$
  select case when begun = moment then moment
    else (begun at time zone 'UTC' + ('1 ' || unit)::interval) at time zone 'UTC' end
  from date_trunc(unit, moment, 'UTC') begun
$$;

comment on function tollgate.first_of(text, timestamptz) is
  'The beginning of the first hour, day or month (UTC) at or after a moment.';


create function tollgate.budget_period(reset text, moment timestamptz) returns date
language sql
immutable
set search_path = ''
as $$
  select case reset
    when 'daily' then date_trunc('day', moment at time zone 'utc')
    when 'weekly' then date_trunc('week', moment at time zone 'utc')
    when 'monthly' then date_trunc('month', moment at time zone 'utc')
    else timestamp 'epoch'
  end::date
$$;

comment on function tollgate.budget_period(text, timestamptz) is 'The first day, in UTC, of the period a budget counts in.';


-- schemas/02_audit_trail/tables.sql

create type tollgate.caller as (
  kind text, -- key | session | console | system
  key_id text,
  user_id text,
  org_id text,
  role text,
  environment text,
  scopes text[],
  name text, -- the console command or the part of the system, when no key acts
  ip inet,
  user_agent text,
  request_id text,
  session_id text,
  signed_in_at timestamptz
);

comment on type tollgate.caller is 'Who makes a call: a recognised key or session, an operator at the command line, or Tollgate itself.';


create table tollgate.audit_events (
  id text primary key default tollgate.new_id('evt'),
  occurred_at timestamptz not null default clock_timestamp(),
  actor_kind text not null check (actor_kind in ('key', 'session', 'console', 'system')),
  actor_key_id text,
  actor_user_id text,
  actor_name text,
  org_id text,
  action text not null check (action ~ '^[a-z_]+\.[a-z_]+$'),
  target_id text not null,
  outcome text not null check (outcome in ('success', 'refused')),
  ip inet,
  user_agent text,
  request_id text,
  details jsonb not null default '{}' check (jsonb_typeof(details) = 'object')
);

create index audit_events_time on tollgate.audit_events (occurred_at desc, id desc);
create index audit_events_org on tollgate.audit_events (org_id, occurred_at desc, id desc);
create index audit_events_target on tollgate.audit_events (target_id, occurred_at desc, id desc);

comment on table tollgate.audit_events is 'Who did what to which thing, from where. Append-only.';
comment on column tollgate.audit_events.org_id is 'The org that the target belongs to.';

alter table tollgate.audit_events enable row level security;

create trigger audit_events_append_only
before update or delete or truncate on tollgate.audit_events
for each statement execute function tollgate.forbid_change();


create table tollgate.chain_starts (
  chain text primary key check (chain in ('transfers', 'audit_events')),
  position bigint not null,
  started_at timestamptz not null
);

comment on table tollgate.chain_starts is 'Where a chain begins: transfers up to position, and audit events before started_at, are older than the chain and may have no link.';

alter table tollgate.chain_starts enable row level security;

create trigger chain_starts_append_only
before update or delete or truncate on tollgate.chain_starts
for each statement execute function tollgate.forbid_change();

insert into tollgate.chain_starts (chain, position, started_at) values
  ('transfers', 0, clock_timestamp()),
  ('audit_events', 0, '-infinity');


create table tollgate.event_links (
  position bigint primary key,
  event_id text not null unique,
  chain bytea not null
);

comment on table tollgate.event_links is 'The hash chain of the audit trail: chain is sha256(chain of the previous link || the event as text); positions have no gaps. A table of its own, because an event is linked when its transaction commits, and rows of audit_events never change.';

alter table tollgate.event_links enable row level security;

create trigger event_links_append_only
before update or delete or truncate on tollgate.event_links
for each statement execute function tollgate.forbid_change();


-- schemas/04_limits/tables.sql

create type tollgate.counters as (
  minute_bucket bigint,
  minute_requests bigint,
  minute_tokens bigint,
  minute_requests_before bigint,
  minute_tokens_before bigint,
  hour_bucket bigint,
  hour_requests bigint,
  hour_tokens bigint,
  hour_requests_before bigint,
  hour_tokens_before bigint,
  day_bucket bigint,
  day_requests bigint,
  day_tokens bigint,
  day_requests_before bigint,
  day_tokens_before bigint
);

comment on type tollgate.counters is 'For minute, hour and day: the number of the current bucket, the requests and tokens in it, and those in the previous bucket. Not an array, because in plpgsql a subscript costs more than a field.';


create domain tollgate.limit as bigint check (value between 0 and 100000000000);

comment on domain tollgate.limit is 'A limit of requests or tokens. Its bound keeps the arithmetic of the windows within bigint.';


create type tollgate.limits as (
  requests_per_minute tollgate.limit,
  requests_per_hour tollgate.limit,
  requests_per_day tollgate.limit,
  tokens_per_minute tollgate.limit,
  tokens_per_hour tollgate.limit,
  tokens_per_day tollgate.limit
);

comment on type tollgate.limits is 'Six limits; null is none.';


create type tollgate.remaining as (
  requests_limit bigint,
  requests_left bigint,
  requests_reset_ms bigint,
  tokens_limit bigint,
  tokens_left bigint,
  tokens_reset_ms bigint
);

comment on type tollgate.remaining is 'Of requests and of tokens, the window with the least left: its limit, what is left, and how long a request made now stays in it. Null where no window has a limit.';


-- schemas/05_people/tables.sql

-- Domains check single columns in the tables that requests write (orgs, keys, transfers, requests). Postgres parses a
-- table's checks again for every statement that writes to it, whichever columns it writes. A domain is parsed once per
-- connection, and checked only where its column is written. A domain also tells with_fields() which field is wrong.
create domain tollgate.org_id as text check (value ~ '^org_[a-z0-9]{1,64}$');
create domain tollgate.name as text check (value is not null and length(value) between 1 and 200);
create domain tollgate.org_status as text check (value in ('active', 'suspended'));
create domain tollgate.markup_ppm as integer check (value between 0 and 100000000);
create domain tollgate.not_negative as bigint check (value >= 0);
create domain tollgate.model_patterns as text[] check (
  cardinality(value) <= 100 and tollgate.all_match(value, '^[!-~]{1,200}$')
);
create domain tollgate.model_name as text check (length(value) between 1 and 256 and value ~ '^[[:graph:]]+$');

create table tollgate.plans (
  id text primary key check (id ~ '^[a-z][a-z0-9_-]{0,62}$'),
  name tollgate.name not null,
  description text not null default '',
  markup_ppm tollgate.markup_ppm,
  requests_per_minute tollgate.limit,
  requests_per_hour tollgate.limit,
  requests_per_day tollgate.limit,
  tokens_per_minute tollgate.limit,
  tokens_per_hour tollgate.limit,
  tokens_per_day tollgate.limit,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  max_concurrent_requests tollgate.limit,
  byok_fee_nanos tollgate.not_negative
);

comment on table tollgate.plans is 'Named sets of limits and a markup. A null limit is no limit; a null markup is the setting MARKUP.';
comment on column tollgate.plans.markup_ppm is 'Markup in parts per million of the cost: 50000 is 5 %.';
comment on column tollgate.plans.max_concurrent_requests is 'How many requests an org on the plan may have open at once; null is no bound.';
comment on column tollgate.plans.byok_fee_nanos is 'What a request with the org''s own upstream key costs; null is the setting BYOK_FEE.';

alter table tollgate.plans enable row level security;

insert into tollgate.plans (
  id, name, description,
  requests_per_minute, requests_per_hour, requests_per_day,
  tokens_per_minute, tokens_per_hour, tokens_per_day
) values
  ('free', 'Free', 'To try it out.', 20, 200, 1000, 40000, 400000, 2000000),
  ('pro', 'Pro', 'For a product and its team.', 600, 20000, 200000, 2000000, 40000000, 400000000),
  ('enterprise', 'Enterprise', 'No limits but the balance.', null, null, null, null, null, null);


create table tollgate.orgs (
  id tollgate.org_id primary key default tollgate.new_id('org'),
  name tollgate.name not null,
  plan_id text not null default 'free' references tollgate.plans (id),
  status tollgate.org_status not null default 'active',
  markup_ppm tollgate.markup_ppm,
  balance_nanos bigint not null default 0,
  held_nanos tollgate.not_negative not null default 0,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  limits tollgate.limits,
  counters tollgate.counters,
  limits_set tollgate.limits,
  max_concurrent_requests tollgate.limit,
  open_requests bigint not null default 0,
  quarantined_at timestamptz,
  paid_suspended_at timestamptz,
  paid_suspended_reason text,
  chain_head bytea,
  byok_fee_nanos tollgate.not_negative,
  allowed_models tollgate.model_patterns,
  default_model tollgate.model_name,
  cache boolean
) with (fillfactor = 50); -- rewritten with every batch of requests, so its pages keep room for the next version

create index orgs_plan_id on tollgate.orgs (plan_id);
create index orgs_age on tollgate.orgs (created_at, id); -- requests change neither, so they write no index

comment on table tollgate.orgs is 'Who pays. balance_nanos always equals the sum of the org''s transfers, held_nanos the sum of its open holds; available = balance − held.';
comment on column tollgate.orgs.markup_ppm is 'The org''s own markup in parts per million; null follows the plan.';
comment on column tollgate.orgs.limits is 'The limits in force: limits_set, and the plan''s for those that are not set; null when none is set.';
comment on column tollgate.orgs.limits_set is 'The limits that an operator set. A null in it follows the plan; null is none set.';
comment on column tollgate.orgs.max_concurrent_requests is 'The org''s own bound of open requests; null follows the plan.';
comment on column tollgate.orgs.open_requests is 'Requests whose hold has not ended, held and unsettled ones: as many as the org has rows in tollgate.holds.';
comment on column tollgate.orgs.quarantined_at is 'When a request of the org was last settled as quarantined; null again once an operator resumes paid calls.';
comment on column tollgate.orgs.paid_suspended_at is 'Since when paid calls are refused; null while they are served. Other calls are served all the same.';
comment on column tollgate.orgs.paid_suspended_reason is 'quarantined_usage, or operator; null while paid calls are served.';
comment on column tollgate.orgs.chain_head is 'The chain of the org''s last transfer.';
comment on column tollgate.orgs.byok_fee_nanos is 'What a request with the org''s own upstream key costs; null follows the plan.';
comment on column tollgate.orgs.allowed_models is 'Patterns of the models that the org may use, in which * matches anything; null is all. A key''s own list narrows it.';
comment on column tollgate.orgs.default_model is 'The model or alias of calls that name none; null is the setting DEFAULT_MODEL.';
comment on column tollgate.orgs.cache is 'Whether requests that do not say so themselves use the cache; null is no.';

alter table tollgate.orgs enable row level security;


create table tollgate.users (
  id text primary key default tollgate.new_id('usr') check (id ~ '^usr_[a-z0-9]{1,64}$'),
  org_id text not null references tollgate.orgs (id),
  email text not null check (length(email) between 3 and 320 and email like '%_@_%'),
  name text not null default '' check (length(name) <= 200),
  role text not null default 'member' check (role in ('member', 'admin')),
  status text not null default 'active' check (status in ('active', 'disabled')),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  limits tollgate.limits,
  limits_set tollgate.limits,
  counters tollgate.counters,
  unique (id, org_id) -- lets a key point at its user and its org at once
);

create unique index users_email on tollgate.users (lower(email));
create index users_org_id on tollgate.users (org_id);
create index users_age on tollgate.users (created_at, id);

comment on table tollgate.users is 'People. Each belongs to one org; an admin operates the whole installation.';
comment on column tollgate.users.deleted_at is 'When the user was deleted. The row stays as long as the org, disabled and without name or address, because keys and requests refer to it.';
comment on column tollgate.users.limits is 'The limits in force: limits_set, and those of the role for what it does not set; null when there are none. Requests do not write the rows of other users.';
comment on column tollgate.users.limits_set is 'The limits that an operator set. A null in it follows the role.';

alter table tollgate.users enable row level security;


create table tollgate.role_limits (
  role text primary key check (role in ('member', 'admin')),
  limits tollgate.limits not null
);

comment on table tollgate.role_limits is 'The limits of each user of a role, unless the user''s own say otherwise.';

alter table tollgate.role_limits enable row level security;


-- schemas/06_keys/tables.sql

create function tollgate.is_metadata(metadata jsonb) returns boolean
language sql
immutable
set search_path = ''
as $$
  select case jsonb_typeof(metadata) when 'object' then (
    select count(*) <= 16 and coalesce(bool_and(
      length(m.key) between 1 and 64 and length(m.value #>> '{}') <= 500
        and jsonb_typeof(m.value) in ('string', 'number', 'boolean')
    ), true)
    from jsonb_each(metadata) m
  ) else metadata is null end
$$;

comment on function tollgate.is_metadata(jsonb) is
  'Whether this is a flat object with at most 16 names of 1 to 64 characters, and texts, numbers or booleans of at most 500.';


-- Domains rather than checks, as in 05_people. Those that must be there refuse null as well, so that a change to null is
-- refused by its field.
create domain tollgate.key_name as text check (value is not null and value ~ '^[^[:cntrl:]]{1,200}$');
create domain tollgate.digest as bytea check (value is not null and length(value) = 32);
create domain tollgate.pepper as text check (value is not null and value ~ '^[0-9a-f]{8}$');
create domain tollgate.prefix as text check (value is not null and value ~ '^[!-~]{1,16}$');
create domain tollgate.last_four as text check (value is not null and value ~ '^[!-~]{4}$');
create domain tollgate.environment as text check (value is not null and value in ('live', 'test'));
create domain tollgate.scopes as text[] check (
  value is not null and tollgate.all_match(value, '^(chat|completions|embeddings|models|usage|keys|admin)$')
);
create domain tollgate.networks as cidr[] check (cardinality(value) <= 100 and array_ndims(value) = 1);
create domain tollgate.budget_nanos as bigint check (value between 0 and 100000000000000000);
create domain tollgate.budget_reset as text check (value in ('daily', 'weekly', 'monthly', 'never'));
create domain tollgate.token_quota as bigint check (value between 0 and 1000000000000000);
create domain tollgate.metadata as jsonb check (tollgate.is_metadata(value));

create domain tollgate.quota_reset_day as integer check (value between 1 and 28);

create table tollgate.api_keys (
  id text primary key default tollgate.new_id('key') check (id ~ '^key_[a-z0-9]{1,64}$'),
  org_id text not null,
  user_id text not null,
  name tollgate.key_name not null,
  digest tollgate.digest not null unique,
  pepper tollgate.pepper not null,
  prefix tollgate.prefix not null,
  last_four tollgate.last_four not null,
  environment tollgate.environment not null default 'live',
  scopes tollgate.scopes not null,
  ip_allowlist tollgate.networks,
  expires_at timestamptz,
  disabled_at timestamptz,
  revoked_at timestamptz,
  last_used_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  limits tollgate.limits,
  counters tollgate.counters,
  allowed_models tollgate.model_patterns,
  budget_nanos tollgate.budget_nanos,
  budget_reset tollgate.budget_reset,
  budget_period date,
  budget_spent_nanos bigint not null default 0,
  tokens_per_month tollgate.token_quota,
  tokens_in_all tollgate.token_quota,
  month_of_tokens date,
  tokens_used_in_month bigint not null default 0,
  tokens_used_in_all bigint not null default 0,
  counted boolean not null generated always as (
    budget_nanos is not null or tokens_per_month is not null or tokens_in_all is not null or not limits is null
  ) stored,
  metadata tollgate.metadata not null default '{}',
  rotated_from text,
  rotated_to text,
  line text,
  max_concurrent_requests tollgate.limit,
  open_requests bigint not null default 0,
  quota_reset_day tollgate.quota_reset_day not null default 1,
  cache boolean,
  foreign key (user_id, org_id) references tollgate.users (id, org_id) on update cascade
);

create index api_keys_user_id on tollgate.api_keys (user_id, org_id);
create index api_keys_org_id on tollgate.api_keys (org_id);
create index api_keys_age on tollgate.api_keys (created_at, id);
create index api_keys_line on tollgate.api_keys (line) where line is not null;

comment on table tollgate.api_keys is 'Keys without their secrets: a digest to find them by, a prefix and the last four characters to show.';
comment on column tollgate.api_keys.pepper is 'Fingerprint of the pepper of this digest: tells which keys still use an old pepper.';
comment on column tollgate.api_keys.ip_allowlist is 'Networks that the key may be used from; null is any.';
comment on column tollgate.api_keys.limits is 'The key''s own limits, within the org''s; null is none.';
comment on column tollgate.api_keys.allowed_models is 'Patterns of the models that the key may use, in which * matches anything; null is all.';
comment on column tollgate.api_keys.budget_spent_nanos is 'Charges and open holds since budget_period began.';
comment on column tollgate.api_keys.quota_reset_day is 'The day of the month, in UTC, on which tokens_used_in_month starts from zero.';
comment on column tollgate.api_keys.counted is 'Whether the key has limits, a budget or a quota of its own. Requests do not write the rows of other keys.';
comment on column tollgate.api_keys.metadata is 'The owner''s own notes: a small flat object.';
comment on column tollgate.api_keys.rotated_from is 'The key that was rotated to this one.';
comment on column tollgate.api_keys.rotated_to is 'The key that this one was rotated to; this one ends at expires_at.';
comment on column tollgate.api_keys.line is 'The first key of the line; null if the key was never rotated.';
comment on column tollgate.api_keys.max_concurrent_requests is 'How many requests the keys of the line may have open at once; null is no bound of its own.';
comment on column tollgate.api_keys.cache is 'Whether requests that do not say so themselves use the cache; null follows the org.';
comment on column tollgate.api_keys.open_requests is 'Open requests of the keys of the line; 0 while there is no bound.';

alter table tollgate.api_keys enable row level security;


create type tollgate.recognition as (
  actor tollgate.caller,
  key tollgate.api_keys, -- null for the console
  refusal jsonb -- null when the caller may act
);

comment on type tollgate.recognition is 'Who is behind a request, or why it is refused.';


-- schemas/07_credits/tables.sql

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


-- schemas/08_upstreams/tables.sql

create function tollgate.is_pricing(pricing jsonb) returns boolean
language sql
immutable
set search_path = ''
as $$
  select jsonb_typeof(pricing) = 'object'
    and pricing ?& array['prompt', 'completion']
    and not exists (
      select from jsonb_each(pricing) p
      where p.key <> 'overrides'
        and (jsonb_typeof(p.value) <> 'string' or p.value #>> '{}' !~ '^[0-9]{1,6}(\.[0-9]{1,30})?$')
    )
    and case jsonb_typeof(coalesce(pricing -> 'overrides', '[]'))
      when 'array' then not exists (
        select from jsonb_array_elements(coalesce(pricing -> 'overrides', '[]')) o
        where jsonb_typeof(o) <> 'object' or jsonb_typeof(o -> 'min_prompt_tokens') is distinct from 'number'
          or o ->> 'min_prompt_tokens' !~ '^[0-9]{1,9}$'
          or not tollgate.is_pricing('{"prompt": "0", "completion": "0"}'::jsonb || (o - 'min_prompt_tokens'))
      )
      else false
    end
$$;

comment on function tollgate.is_pricing(jsonb) is
  'Whether this is pricing as OpenRouter writes it: US dollars per token or piece as plain decimal strings, none negative, with prompt and completion.';


-- Domains, which tollgate.with_fields() refuses by field. Those that must be there refuse null as well.
create domain tollgate.upstream_id as text check (value is not null and value ~ '^ups_[a-z0-9]{1,64}$');
create domain tollgate.base_url as text check (
  value is not null and length(value) <= 2000
  and value ~ '^https?://[^[:space:]/@?#]+(/[^[:space:]@?#]*[^[:space:]/@?#])?$'
);
create domain tollgate.dialect as text check (
  value is not null and value in (
    'vllm', 'sglang', 'llamacpp', 'tgi', 'openai',
    'openai-platform', 'azure-openai', 'anthropic', 'groq', 'mistral', 'together'
  )
);
create domain tollgate.secret_name as text check (
  value ~ '^[A-Z][A-Z0-9_]{0,127}$'
  and value !~ '^(KEY_PEPPER|CRON_SECRET|DATABASE_|SUPABASE_|OPENROUTER_|REDIS_|TOLLGATE_|VAULT_|AGENT_)'
);
create domain tollgate.connect_seconds as double precision check (value is not null and value between 0.1 and 60);
create domain tollgate.wait_seconds as double precision check (value is not null and value between 0.1 and 86400);
create domain tollgate.health_path as text check (length(value) <= 2000 and value ~ '^/[^[:space:]?#]*$');
create domain tollgate.enabled_state as text check (value is not null and value in ('active', 'disabled'));
create domain tollgate.upstream_model as text check (
  value is not null and length(value) between 1 and 256 and value ~ '^[[:graph:]]+$'
);
create domain tollgate.model as tollgate.upstream_model check (value !~ '/.*/');
create domain tollgate.pricing as jsonb check (value is not null and tollgate.is_pricing(value));
create domain tollgate.token_bound as bigint check (value between 1 and 1000000000);
create domain tollgate.priority as integer check (value is not null and value between 0 and 1000);
create domain tollgate.weight as integer check (value is not null and value between 1 and 1000);
create domain tollgate.listing as jsonb check (
  value is not null and jsonb_typeof(value) = 'object' and length(value::text) <= 20000
);
create function tollgate.is_targets(targets jsonb) returns boolean
language sql
immutable
set search_path = ''
as $$
  select case when jsonb_typeof(targets) = 'array' then
    jsonb_array_length(targets) between 1 and 16 and not exists (
      select from jsonb_array_elements(targets) t
      where jsonb_typeof(t) <> 'object'
        or (t ->> 'model' ~ '^[[:graph:]]{1,255}$') is not true
        or (t ->> 'upstream_id' ~ '^[!-~]{1,80}$') is false
        or (jsonb_typeof(t -> 'weight') = 'number' and t ->> 'weight' ~ '^[0-9]{1,4}$') is not true
        or (t ->> 'weight')::integer not between 1 and 1000
    )
  else false end
$$;

comment on function tollgate.is_targets(jsonb) is
  'Whether these are the targets of an alias: 1 to 16, each with a model, a weight from 1 to 1000 and, if only one upstream is meant, its upstream_id.';


create domain tollgate.targets as jsonb check (value is not null and tollgate.is_targets(value));
create domain tollgate.fallbacks as text[] check (
  value is not null and cardinality(value) <= 16 and tollgate.all_match(value, '^[[:graph:]]{1,255}$')
);
create domain tollgate.day as date check (value between '2000-01-01' and '9998-12-31');
create domain tollgate.description as text check (value is not null and length(value) <= 500);
create domain tollgate.concurrency as integer check (value between 1 and 100000);
create domain tollgate.yes_or_no as boolean check (value is not null);
create domain tollgate.host_id as text check (value ~ '^hst_[a-z0-9]{1,64}$');


create table tollgate.upstreams (
  id tollgate.upstream_id primary key default tollgate.new_id('ups'),
  name tollgate.name not null,
  base_url tollgate.base_url not null,
  dialect tollgate.dialect not null,
  secret_name tollgate.secret_name,
  concurrency tollgate.concurrency,
  connect_seconds tollgate.connect_seconds not null default 5,
  first_byte_seconds tollgate.wait_seconds not null default 120,
  idle_seconds tollgate.wait_seconds not null default 120,
  health_path tollgate.health_path,
  state tollgate.enabled_state not null default 'active',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  takes_org_keys tollgate.yes_or_no not null default false,
  host_id tollgate.host_id,
  host_key_generation integer,
  check ((host_id is null) = (host_key_generation is null)),
  check (host_id is null or not (takes_org_keys or secret_name is not null))
);

create index upstreams_host_id on tollgate.upstreams (host_id);

comment on table tollgate.upstreams is 'Upstreams of our own that serve OpenAI''s API. OpenRouter is not here: it comes from the settings.';
comment on column tollgate.upstreams.secret_name is 'The environment variable that holds the upstream''s key; the key itself is never stored.';
comment on column tollgate.upstreams.takes_org_keys is 'Whether orgs may store keys of their own for it, in 11_vault. A call with such a key costs a fee alone, so the server must check keys.';
comment on column tollgate.upstreams.host_id is 'The host of our own whose ingress this is: 12_fleet writes the row and its routes. Its key is made from AGENT_KEY, the host and host_key_generation, so it is not stored.';

alter table tollgate.upstreams enable row level security;


create table tollgate.routes (
  id text primary key default tollgate.new_id('rte') check (id ~ '^rte_[a-z0-9]{1,64}$'),
  model tollgate.model not null,
  upstream_id text not null references tollgate.upstreams (id),
  upstream_model tollgate.upstream_model not null,
  pricing tollgate.pricing not null,
  context_tokens tollgate.token_bound,
  most_output tollgate.token_bound,
  priority tollgate.priority not null default 50,
  weight tollgate.weight not null default 1,
  listing tollgate.listing not null default '{}',
  state tollgate.enabled_state not null default 'active',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deprecated_on tollgate.day,
  retires_on tollgate.day,
  replacement tollgate.model_name,
  unique (model, upstream_id)
);

create index routes_upstream_id on tollgate.routes (upstream_id);

comment on table tollgate.routes is 'Which of our own upstreams serves which model, and at what price. A model that OpenRouter lists too also has a route to it, with priority 100.';
comment on column tollgate.routes.pricing is 'In OpenRouter''s shape: US dollars as decimal strings, per token, request or piece.';
comment on column tollgate.routes.priority is 'Routes with the lowest priority are tried first; among equal ones, the order is random by weight.';
comment on column tollgate.routes.listing is 'More fields of the model for GET /v1/models: name, description, architecture, supported_parameters.';

comment on column tollgate.routes.deprecated_on is 'Since when clients are asked to leave the model; shown to them, and nothing else.';
comment on column tollgate.routes.retires_on is 'The last day (UTC) on which the route serves; null is for good.';
comment on column tollgate.routes.replacement is 'The model to use instead.';

alter table tollgate.routes enable row level security;


create table tollgate.aliases (
  name tollgate.model primary key,
  targets tollgate.targets not null,
  fallbacks tollgate.fallbacks not null default '{}',
  description tollgate.description not null default '',
  deprecated_on tollgate.day,
  retires_on tollgate.day,
  replacement tollgate.model_name,
  state tollgate.enabled_state not null default 'active',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

comment on table tollgate.aliases is 'Names of an operator''s for models. A target is a model and never another alias, so there are no cycles; the alias itself among its targets or fallbacks is the model of that name.';
comment on column tollgate.aliases.targets is 'One of them serves a call, chosen by weight: the same one for the same key or session.';
comment on column tollgate.aliases.fallbacks is 'Models that are tried in this order when the target fails.';

alter table tollgate.aliases enable row level security;


create table tollgate.probes (
  upstream_id text primary key references tollgate.upstreams (id) on delete cascade,
  status text not null check (status in ('up', 'down')),
  http_status integer check (http_status between 100 and 999),
  latency_ms integer check (latency_ms >= 0),
  error text check (length(error) between 1 and 500),
  probed_at timestamptz not null default clock_timestamp()
);

comment on table tollgate.probes is 'The last probe of each of our own upstreams.';
comment on column tollgate.probes.latency_ms is 'Milliseconds until the head of the answer; null without an answer.';

alter table tollgate.probes enable row level security;


create table tollgate.past_probes (
  upstream_id text not null references tollgate.upstreams (id) on delete cascade,
  probed_at timestamptz not null,
  status text not null,
  http_status integer,
  latency_ms integer,
  error text,
  primary key (upstream_id, probed_at)
);

comment on table tollgate.past_probes is 'The last 50 probes of each of our own upstreams.';

alter table tollgate.past_probes enable row level security;


-- schemas/09_catalog/tables.sql

create table tollgate.snapshots (
  source text primary key check (length(source) between 1 and 2000),
  taken_at timestamptz not null
);

comment on table tollgate.snapshots is 'When the models of each source (its URL) were last fetched. The writer locks the row.';

alter table tollgate.snapshots enable row level security;


create table tollgate.listings (
  source text not null references tollgate.snapshots (source) on delete cascade,
  id text not null check (length(id) between 1 and 256),
  also text,
  position integer not null,
  listing text not null,
  primary key (source, id)
);

create index listings_also on tollgate.listings (source, also);

comment on table tollgate.listings is 'The models of a snapshot, one row each, so that a cold instance can read one alone.';
comment on column tollgate.listings.also is 'The model''s canonical name, where that is another.';
comment on column tollgate.listings.listing is 'The entry of the source, as JSON in a text: nothing in the database reads it, and jsonb does not allow NUL.';

alter table tollgate.listings enable row level security;


-- schemas/10_usage/tables.sql

create table tollgate.tallies (
  cut text not null,
  start timestamptz not null,
  org_id text not null default '',
  user_id text not null default '',
  key_id text not null default '',
  model text not null default '',
  upstream text not null default '',
  requests bigint not null,
  errors bigint not null,
  streamed bigint not null,
  estimated bigint not null,
  prompt_tokens bigint not null,
  completion_tokens bigint not null,
  charge_nanos bigint not null,
  cost_nanos bigint not null,
  last_at timestamptz not null,
  cached_tokens bigint not null default 0,
  reasoning_tokens bigint not null default 0,
  primary key (cut, start, org_id, user_id, key_id, model, upstream)
)
partition by list (cut);

create index tallies_org on tollgate.tallies (org_id, start) where org_id <> '';

comment on table tollgate.tallies is 'Ended requests counted by the hour, day and month (UTC) in which they were made. Each is in all eight cuts: hour, day and month group by org, user, key, model and upstream, …_model only by the last two, …_key only by the first three; the other columns are empty. Each cut is a partition, so that a query reads the rows of one cut only.';

alter table tollgate.tallies enable row level security;


create table tollgate.latencies (
  cut text not null,
  start timestamptz not null,
  kind text not null check (kind in ('whole', 'first_token')),
  model text not null default '',
  upstream text not null default '',
  bucket integer not null,
  requests bigint not null,
  total_ms bigint not null,
  primary key (cut, start, kind, model, upstream, bucket)
)
partition by list (cut);

comment on table tollgate.latencies is 'How long requests without an error took, in buckets that are 5 % wide. Each is in all three cuts; only day_model groups by model and upstream.';

alter table tollgate.latencies enable row level security;


create table tollgate.key_latencies (
  org_id text not null,
  start timestamptz not null,
  key_id text not null,
  user_id text not null,
  model text not null,
  upstream text not null,
  whole jsonb,
  first_token jsonb,
  primary key (org_id, start, key_id, model, upstream)
) with (fillfactor = 70);

comment on table tollgate.key_latencies is 'How long requests without an error took, by key, model, upstream and day (UTC): one row for all buckets, since most have few requests a day.';
comment on column tollgate.key_latencies.whole is 'How many requests are in a bucket, and their milliseconds together: {"<bucket>": [requests, total_ms]}; first_token likewise.';

alter table tollgate.key_latencies enable row level security;


-- Days and months are updated page by page: with free space on the page, an update needs no new index entry (HOT).
do $$
declare
  one record;
begin
  for one in values
    ('tallies', 'hour'), ('tallies', 'hour_model'),
    ('tallies', 'day'), ('tallies', 'day_model'), ('tallies', 'day_key'),
    ('tallies', 'month'), ('tallies', 'month_model'), ('tallies', 'month_key'),
    ('latencies', 'hour'), ('latencies', 'day'), ('latencies', 'day_model')
  loop
    execute format(
      'create table tollgate.%1$s_%2$s partition of tollgate.%1$s for values in (%2$L) with (fillfactor = %3$s)',
      one.column1, one.column2, case when one.column2 like 'hour%' then 95 else 70 end
    );
    execute format('alter table tollgate.%1$s_%2$s enable row level security', one.column1, one.column2);
    execute format('comment on table tollgate.%1$s_%2$s is %3$L', one.column1, one.column2, 'One cut of tollgate.' || one.column1 || '.');
  end loop;
end
$$;

create index tallies_of_model on tollgate.tallies_day (model, start);


create table tollgate.flows (
  hour timestamptz not null,
  kind text not null,
  debit text not null,
  credit text not null,
  transfers bigint not null,
  amount_nanos numeric not null,
  primary key (hour, kind, debit, credit)
);

comment on table tollgate.flows is 'Sums of transfers by the hour (UTC) in which they were made.';

alter table tollgate.flows enable row level security;


create table tollgate.late_requests (
  request_id text primary key,
  created_at timestamptz not null
);

comment on table tollgate.late_requests is 'Requests that were still open when their hour was rolled up; deleted here and counted when they have ended.';

alter table tollgate.late_requests enable row level security;


create table tollgate.rolled (
  single boolean primary key default true check (single),
  rolled_until timestamptz not null default '-infinity',
  marked_at timestamptz,
  marked_xid xid8,
  complete_until timestamptz not null default '-infinity',
  marked_position bigint,
  complete_position bigint not null default 0,
  flowed_until bigint not null default 0,
  dropped_until timestamptz not null default '-infinity'
);

comment on table tollgate.rolled is 'How far requests and transfers are rolled up: one row, which the writer locks.';
comment on column tollgate.rolled.rolled_until is 'Requests made before it are in the tallies, or in late_requests.';
comment on column tollgate.rolled.marked_xid is 'A transaction that began at marked_at or later. Once all transactions before it have ended, no request made before marked_at can still appear.';
comment on column tollgate.rolled.complete_until is 'Every request made before it is committed.';
comment on column tollgate.rolled.marked_position is 'The newest position of a transfer when marked_xid began.';
comment on column tollgate.rolled.complete_position is 'Every transfer up to it is committed.';
comment on column tollgate.rolled.flowed_until is 'The flows hold the transfers up to this position, and no others.';
comment on column tollgate.rolled.dropped_until is 'Requests made before it may have been dropped, so hours before it cannot be divided.';

alter table tollgate.rolled enable row level security;

insert into tollgate.rolled default values;


create type tollgate.usage as (
  start timestamptz,
  org_id text,
  user_id text,
  key_id text,
  model text,
  upstream text,
  requests bigint,
  errors bigint,
  streamed bigint,
  estimated bigint,
  prompt_tokens bigint,
  completion_tokens bigint,
  charge_nanos bigint,
  cost_nanos bigint,
  last_at timestamptz,
  cached_tokens bigint,
  reasoning_tokens bigint
);

comment on type tollgate.usage is 'What was used, by any of the columns start to upstream; the others are null.';


create type tollgate.duration as (
  hour timestamptz, org_id text, key_id text, user_id text, model text, upstream text, kind text, ms integer, bucket integer
);

comment on type tollgate.duration is 'How long one request took, whole or until its first token.';


create type tollgate.piece as (of_what text, beginning timestamptz, ending timestamptz);

comment on type tollgate.piece is 'A part of a span of time, and what to read for it: request, late, hour, day or month.';


create type tollgate.latency as (
  requests bigint,
  average_ms numeric,
  p50_ms bigint,
  p90_ms bigint,
  p95_ms bigint,
  p99_ms bigint
);

comment on type tollgate.latency is 'How long requests took; nulls where there were none.';


-- schemas/11_cache/tables.sql

create table tollgate.cache_entries (
  org_id text not null references tollgate.orgs (id) on delete cascade,
  cache_key text not null check (cache_key ~ '^[0-9a-f]{64}$'),
  endpoint text not null,
  model text not null,
  key_id text not null,
  begun_at timestamptz not null,
  filler_id text,
  filler_until timestamptz,
  request_id text,
  answer jsonb,
  bytes bigint not null default 0,
  served_model text,
  charge_nanos bigint not null default 0,
  filled_at timestamptz,
  expires_at timestamptz not null,
  primary key (org_id, cache_key)
);

create index cache_entries_oldest on tollgate.cache_entries (org_id, filled_at);
create index cache_entries_expiry on tollgate.cache_entries (expires_at);
create index cache_entries_model on tollgate.cache_entries (model);
create index cache_entries_key_id on tollgate.cache_entries (key_id);

comment on table tollgate.cache_entries is 'The completion cache: answers by org and by the digest of the request. Whoever inserts, fills or deletes a row holds the lock of its org.';
comment on column tollgate.cache_entries.cache_key is 'A keyed digest of the request and of what serves it. Prompts are not kept.';
comment on column tollgate.cache_entries.key_id is 'The API key of the request that began the entry, or filled it last.';
comment on column tollgate.cache_entries.begun_at is 'When the row was made. An answer to an older request is not stored in it, so that clearing is final.';
comment on column tollgate.cache_entries.filler_id is 'The request that will fill the entry. Until filler_until, the same requests wait for it.';
comment on column tollgate.cache_entries.request_id is 'The request whose answer it is; null while there is none.';
comment on column tollgate.cache_entries.charge_nanos is 'What that request was charged.';

alter table tollgate.cache_entries enable row level security;


create table tollgate.cache_sizes (
  org_id text primary key references tollgate.orgs (id) on delete cascade,
  entries bigint not null,
  bytes bigint not null
);

comment on table tollgate.cache_sizes is 'How many answers the cache has of each org, and how large they are together.';

alter table tollgate.cache_sizes enable row level security;


create table tollgate.cache_days (
  day date not null,
  org_id text not null,
  model text not null,
  hits bigint not null default 0,
  misses bigint not null default 0,
  saved_nanos bigint not null default 0,
  primary key (day, org_id, model)
);

comment on table tollgate.cache_days is 'Look-ups in the cache by the day (UTC). No foreign key: like tallies, they outlive the org.';
comment on column tollgate.cache_days.saved_nanos is 'What the hits would have been charged as misses, less what they were charged.';

alter table tollgate.cache_days enable row level security;


-- schemas/11_content/tables.sql

create table tollgate.contents (
  request_id text primary key,
  org_id text not null,
  prompt text,
  answer text,
  created_at timestamptz not null default clock_timestamp()
);

create index contents_age on tollgate.contents (created_at);

comment on table tollgate.contents is 'The beginnings of prompts and answers; secrets are redacted before they get here. No checks and no foreign key: rows are written while money is settled, and no content may make that fail.';

alter table tollgate.contents enable row level security;


-- schemas/11_vault/tables.sql

create domain tollgate.secret_kind as text check (value in ('upstream_key', 'hf_token', 'channel'));
create domain tollgate.name_of_secret as text check (length(value) between 1 and 100 and value ~ '^[!-~]+$');
create domain tollgate.sealed as bytea check (length(value) between 29 and 4096);

create table tollgate.secrets (
  id text primary key default tollgate.new_id('sec') check (id ~ '^sec_[a-z0-9]{1,64}$'),
  kind tollgate.secret_kind not null,
  org_id text references tollgate.orgs (id) on delete cascade,
  name tollgate.name_of_secret not null,
  address text check (length(address) <= 2000),
  sealed tollgate.sealed not null,
  sealed_with tollgate.pepper not null,
  last_four tollgate.last_four not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique nulls not distinct (org_id, kind, name),
  check ((org_id is null) = (kind <> 'upstream_key'))
);

create index secrets_sealed_with on tollgate.secrets (sealed_with, id);

comment on table tollgate.secrets is 'The vault: secrets that Tollgate must be able to read again, encrypted by the server with VAULT_KEY. The database never has the key.';
comment on column tollgate.secrets.kind is 'upstream_key: a key of the org''s own for an upstream. hf_token: a token of Hugging Face, of the whole installation. channel: what a channel of alerts is signed or opened with.';
comment on column tollgate.secrets.org_id is 'Whose it is; null for one of the whole installation.';
comment on column tollgate.secrets.name is 'Of an upstream_key, the id of the upstream; of a channel, its id.';
comment on column tollgate.secrets.address is 'Of an upstream_key, the base URL that it may be sent to. If the upstream moves, the key must be stored again.';
comment on column tollgate.secrets.sealed is 'A random nonce of 12 bytes, and the secret encrypted by AES-256-GCM. It is bound to kind, org, name, address and key, so it cannot be read in another row.';
comment on column tollgate.secrets.sealed_with is 'Which VAULT_KEY it was encrypted with, as the start of a hash.';

alter table tollgate.secrets enable row level security;


-- schemas/12_completions/tables.sql

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


-- schemas/12_fleet/tables.sql

-- Hosts of our own, and the models that should run on them.

create function tollgate.is_served_name(name text) returns boolean
language sql
immutable
set search_path = ''
as $$
  select (length(name) between 1 and 256 and name ~ '^[[:graph:]]+$' and name !~ '/.*/') is true
$$;

comment on function tollgate.is_served_name(text) is 'Whether clients can use this name of a model.';


create function tollgate.is_spec(spec jsonb) returns boolean
language sql
immutable
set search_path = ''
as $$
  select jsonb_typeof(spec) = 'object'
    and length(spec::text) <= 65536
    and (spec ->> 'engine' in ('vllm', 'sglang', 'llamacpp', 'tgi', 'whisper', 'tts', 'custom')) is true
    and (spec ->> 'kind' in ('text', 'transcription', 'speech')) is true
    and (spec #>> '{source,type}' in ('hub', 'path')) is true
    and tollgate.is_served_name(spec ->> 'served_name')
    and case jsonb_typeof(coalesce(spec -> 'aliases', '[]'))
      when 'array' then not exists (
        select from jsonb_array_elements_text(coalesce(spec -> 'aliases', '[]')) a (name)
        where not tollgate.is_served_name(a.name)
      )
      else false
    end
$$;

comment on function tollgate.is_spec(jsonb) is
  'Whether this may be the spec of a deployment. The server checks it in full; here is what routes are made of.';


create domain tollgate.host_state as text check (value is not null and value in ('active', 'cordoned', 'retired'));
create domain tollgate.ingress_url as text check (
  length(value) <= 2000 and value ~ '^https?://[^[:space:]/@?#]+(/[^[:space:]@?#]*[^[:space:]/@?#])?$'
);
create domain tollgate.base_dir as text check (length(value) <= 1024 and value ~ '^/[^[:cntrl:]]*$');
create domain tollgate.labels as jsonb check (
  value is not null and jsonb_typeof(value) = 'object' and length(value::text) <= 8192
);
create domain tollgate.spec as jsonb check (value is not null and tollgate.is_spec(value));
create domain tollgate.wanted as text check (value is not null and value in ('running', 'stopped', 'on_demand'));
create domain tollgate.phase as text check (value is not null and value in (
  'stopped', 'downloading', 'starting', 'loading', 'running', 'draining', 'stopping', 'failed', 'unknown'
));
create domain tollgate.maybe_pricing as jsonb check (tollgate.is_pricing(value));
create domain tollgate.stay_seconds as integer check (value is not null and value between 0 and 86400);
create domain tollgate.idle_seconds as integer check (value between 10 and 604800);
create domain tollgate.load_seconds as integer check (value is not null and value between 1 and 3600);


create table tollgate.hosts (
  id tollgate.host_id primary key default tollgate.new_id('hst'),
  name tollgate.name not null,
  state tollgate.host_state not null default 'active',
  labels tollgate.labels not null default '{}',
  base_dir tollgate.base_dir,
  ingress_url tollgate.ingress_url,
  reported_ingress_url tollgate.ingress_url,
  key_generation integer not null default 0,
  desired_version bigint not null default 1,
  agent_version text check (length(agent_version) <= 100),
  capabilities jsonb,
  incarnation text check (length(incarnation) <= 64),
  seq bigint,
  lease_until timestamptz,
  enrolled_at timestamptz,
  last_seen_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

comment on table tollgate.hosts is 'Machines of our own that run models. Their agents call us; we call only their ingress.';
comment on column tollgate.hosts.ingress_url is 'Where the ingress is, as an operator says; otherwise reported_ingress_url, as the agent says.';
comment on column tollgate.hosts.key_generation is 'The key of the host is made from AGENT_KEY, the id and this number, so nothing secret is stored. Each enrolment and each rotation counts one.';
comment on column tollgate.hosts.desired_version is 'Counts the changes of what should run here, so that an unchanged list is not sent again.';
comment on column tollgate.hosts.incarnation is 'The run of the agent that has the lease. Another one is refused until lease_until.';
comment on column tollgate.hosts.seq is 'The number of the last sync of this incarnation. One that was counted before changes nothing.';

alter table tollgate.hosts enable row level security;

alter table tollgate.upstreams
  add constraint upstreams_host_id_fkey foreign key (host_id) references tollgate.hosts (id);


create table tollgate.enrolments (
  digest bytea primary key check (length(digest) = 32),
  host_id text not null references tollgate.hosts (id) on delete cascade,
  expires_at timestamptz not null,
  used_at timestamptz
);

create index enrolments_host_id on tollgate.enrolments (host_id);

comment on table tollgate.enrolments is 'Tokens by which an agent becomes the agent of a host: once, and within an hour. Only digests are stored.';

alter table tollgate.enrolments enable row level security;


create table tollgate.deployments (
  id text primary key default tollgate.new_id('dep') check (id ~ '^dep_[a-z0-9]{1,60}$'),
  host_id text not null references tollgate.hosts (id),
  name tollgate.name not null,
  spec tollgate.spec not null,
  generation integer not null default 1,
  applied_spec tollgate.spec not null,
  applied_generation integer not null default 1,
  wanted tollgate.wanted not null default 'stopped',
  pricing tollgate.maybe_pricing,
  context_tokens tollgate.token_bound,
  most_output tollgate.token_bound,
  priority tollgate.priority not null default 50,
  weight tollgate.weight not null default 1,
  listing tollgate.listing not null default '{}',
  drain_seconds tollgate.stay_seconds not null default 60,
  idle_seconds tollgate.idle_seconds,
  minimum_stay_seconds tollgate.stay_seconds not null default 60,
  load_seconds tollgate.load_seconds not null default 60,
  hub_token tollgate.name_of_secret,
  token_sent_for integer,
  asked_by text,
  archived_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create index deployments_host_id on tollgate.deployments (host_id);

comment on table tollgate.deployments is 'Models that should run on a host.';
comment on column tollgate.deployments.spec is 'As it was edited last. generation counts its changes; start and apply make it applied_spec, which the host gets.';
comment on column tollgate.deployments.pricing is 'As routes have it. Without a price the model runs but is not offered.';
comment on column tollgate.deployments.hub_token is 'The name of a token of Hugging Face in the vault. The host gets it while it downloads, and at no other time.';
comment on column tollgate.deployments.token_sent_for is 'The generation that the host got the token for last, so that the audit trail has it once.';
comment on column tollgate.deployments.asked_by is 'Who said last what is wanted: the id of a user, or the name of a command.';

alter table tollgate.deployments enable row level security;


create table tollgate.observations (
  deployment_id text primary key references tollgate.deployments (id) on delete cascade,
  generation integer not null,
  phase tollgate.phase not null,
  ready boolean not null,
  failures integer not null,
  retry_at timestamptz,
  detail text,
  diagnosis jsonb,
  progress jsonb,
  measured jsonb,
  facts jsonb,
  log_tail text,
  metrics jsonb,
  phase_since timestamptz not null default now(),
  last_started_at timestamptz,
  last_stopped_at timestamptz,
  observed_at timestamptz not null default now()
);

comment on table tollgate.observations is 'What the agent said of a deployment last. Times are the database''s: agents send durations.';
comment on column tollgate.observations.log_tail is 'The end of the log of the last failure.';

alter table tollgate.observations enable row level security;


create table tollgate.phase_changes (
  id text primary key default tollgate.new_id('phc') check (id ~ '^phc_[a-z0-9]{1,64}$'),
  deployment_id text not null references tollgate.deployments (id) on delete cascade,
  incarnation text not null,
  number bigint not null,
  before tollgate.phase not null,
  phase tollgate.phase not null,
  why text not null check (length(why) <= 4000),
  asked_by text,
  changed_at timestamptz not null,
  unique (deployment_id, incarnation, number)
);

create index phase_changes_deployment_id on tollgate.phase_changes (deployment_id, changed_at);

comment on table tollgate.phase_changes is 'The last 200 changes of the phase of a deployment, as its agent told them.';
comment on column tollgate.phase_changes.number is 'Which change of the incarnation it is: one that is told again is no other.';
comment on column tollgate.phase_changes.asked_by is 'The operator who wanted it; null where the host did it by itself.';

alter table tollgate.phase_changes enable row level security;


create table tollgate.host_samples (
  host_id text not null references tollgate.hosts (id) on delete cascade,
  sampled_at timestamptz not null default now(),
  sample jsonb not null,
  primary key (host_id, sampled_at)
);

create index host_samples_age on tollgate.host_samples (sampled_at);

comment on table tollgate.host_samples is 'The figures of hosts, one row a minute, kept for 24 hours.';

alter table tollgate.host_samples enable row level security;


create table tollgate.tasks (
  id text primary key default tollgate.new_id('tsk') check (id ~ '^tsk_[a-z0-9]{1,64}$'),
  host_id text not null references tollgate.hosts (id) on delete cascade,
  kind text not null check (kind in (
    'local_folders', 'inspect_folder', 'facts', 'logs', 'test', 'delete_files', 'hub_config'
  )),
  arguments jsonb not null,
  state text not null default 'waiting' check (state in ('waiting', 'done', 'failed')),
  result jsonb,
  error text,
  created_at timestamptz not null default now(),
  ended_at timestamptz,
  check ((ended_at is null) = (state = 'waiting'))
);

create index tasks_host_id on tollgate.tasks (host_id, created_at);
create index tasks_age on tollgate.tasks (created_at);

comment on table tollgate.tasks is 'What a host is asked to do once. It is in each answer to the host until its result is there, or a minute is over.';

alter table tollgate.tasks enable row level security;


-- schemas/14_channels/tables.sql

-- Channels, where alerts and events are told, and what was told.

create domain tollgate.channel_kind as text check (value is not null and value in ('webhook', 'slack', 'pagerduty', 'email'));
create domain tollgate.channel_address as text check (value is not null and length(value) <= 2000 and value ~ '^[!-~]+$');
create domain tollgate.severity as text check (value is not null and value in ('info', 'warning', 'critical'));
create domain tollgate.channel_settings as jsonb check (
  value is not null and jsonb_typeof(value) = 'object' and length(value::text) <= 8192
);
create domain tollgate.matched as text[] check (cardinality(value) <= 100 and tollgate.all_match(value, '^[!-~]{1,200}$'));

create table tollgate.channels (
  id text primary key check (id ~ '^chn_[a-z0-9]{1,64}$'),
  org_id text references tollgate.orgs (id) on delete cascade,
  kind tollgate.channel_kind not null,
  name tollgate.name not null,
  address tollgate.channel_address not null,
  settings tollgate.channel_settings not null default '{}',
  severity tollgate.severity not null default 'info',
  rules tollgate.matched,
  org_ids tollgate.matched,
  events tollgate.matched,
  state tollgate.enabled_state not null default 'active',
  failures integer not null default 0,
  failed_at timestamptz,
  last_error text check (length(last_error) <= 500),
  told_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create index channels_org_id on tollgate.channels (org_id, created_at);

comment on table tollgate.channels is 'Where alerts and events are told. Its secret is in tollgate.secrets, of the kind channel, so that it is encrypted again with the others.';
comment on column tollgate.channels.org_id is 'Whose events are told; null is an operator''s channel, which is told of alerts.';
comment on column tollgate.channels.address is 'A URL; of Slack without its secret path; of email, host and port of the mail server.';
comment on column tollgate.channels.severity is 'The least severity that is told.';
comment on column tollgate.channels.rules is 'Only alerts of these rules; null is all.';
comment on column tollgate.channels.org_ids is 'Only alerts about these orgs; null is all alerts.';
comment on column tollgate.channels.events is 'Of an org''s channel, only these events; null is all.';
comment on column tollgate.channels.failures is 'How many attempts have failed since one succeeded.';

alter table tollgate.channels enable row level security;


create table tollgate.deliveries (
  id text primary key default tollgate.new_id('dlv'),
  channel_id text not null references tollgate.channels (id) on delete cascade,
  event text not null check (length(event) <= 100),
  content jsonb not null,
  state text not null default 'waiting' check (state in ('waiting', 'sent', 'failed')),
  tries integer not null default 0,
  attempts jsonb not null default '[]',
  due_at timestamptz not null default clock_timestamp(),
  created_at timestamptz not null default clock_timestamp(),
  ended_at timestamptz
);

create index deliveries_due on tollgate.deliveries (due_at) where state = 'waiting';
create index deliveries_channel on tollgate.deliveries (channel_id, created_at desc, id desc);
create index deliveries_age on tollgate.deliveries (created_at, id);

comment on table tollgate.deliveries is 'What is told over a channel: one row for each telling, kept for 30 days. Written in the transaction that finds what is told, so that it is told once however many instances look.';
comment on column tollgate.deliveries.attempts is 'The last ten attempts: at, status, error, answer, took_ms.';
comment on column tollgate.deliveries.due_at is 'When it is sent next. A sender moves it ahead while it sends, so that no other sends it too.';

alter table tollgate.deliveries enable row level security;


-- schemas/14_security/tables.sql

create table tollgate.security_events (
  id text primary key default tollgate.new_id('sec') check (id ~ '^sec_[a-z0-9]{1,64}$'),
  kind text not null check (kind in (
    'key_created', 'key_rotated', 'key_revoked', 'authentication_failed', 'limit_exceeded', 'ip_refused',
    'org_overdrawn', 'org_paid_suspended', 'usage_quarantined', 'many_networks', 'usage_spike', 'many_failures'
  )),
  severity text not null check (severity in ('info', 'warning', 'critical')),
  subject_kind text not null check (subject_kind in ('org', 'key', 'user', 'address')),
  subject text not null check (length(subject) between 1 and 140),
  org_id text,
  key_id text,
  first_seen_at timestamptz not null,
  last_seen_at timestamptz not null,
  count bigint not null check (count > 0),
  hour timestamptz not null,
  count_in_hour bigint not null,
  details jsonb not null default '{}' check (jsonb_typeof(details) = 'object'),
  acknowledged_at timestamptz,
  acknowledged_by text,
  note text check (length(note) <= 1000),
  check ((acknowledged_at is null) = (acknowledged_by is null))
);

create unique index security_events_open on tollgate.security_events (kind, subject_kind, subject)
  where acknowledged_at is null;
create index security_events_subject on tollgate.security_events (subject, kind);
create index security_events_age on tollgate.security_events (last_seen_at, id);

comment on table tollgate.security_events is 'What an operator should look at: one row for a kind and a subject until it is acknowledged, with how often and when it happened.';
comment on column tollgate.security_events.subject is 'The id of an org, key or user, or an address: `unknown` where there is none, `others` for those beyond the first ten thousand.';
comment on column tollgate.security_events.count_in_hour is 'How often it happened within the hour (UTC) of last_seen_at.';

alter table tollgate.security_events enable row level security;


create table tollgate.key_networks (
  key_id text not null,
  network cidr not null,
  first_seen_at timestamptz not null,
  last_seen_at timestamptz not null,
  primary key (key_id, network)
);

comment on table tollgate.key_networks is 'The networks from which keys were used: at most 200 of a key, /24 or /48, for 30 days. last_seen_at changes at most once an hour.';

alter table tollgate.key_networks enable row level security;


create table tollgate.pattern_scan (
  one boolean primary key default true check (one),
  scanned_at timestamptz not null default '-infinity',
  quarantined_until timestamptz not null default now() - interval '30 days'
);

comment on table tollgate.pattern_scan is 'How far patterns were looked for: one row, which the writer locks.';
comment on column tollgate.pattern_scan.quarantined_until is 'Requests that were quarantined before it have raised their event.';

alter table tollgate.pattern_scan enable row level security;

insert into tollgate.pattern_scan default values;


create table tollgate.refused_calls (
  id text primary key default tollgate.new_id('ref'),
  hour timestamptz not null,
  org_id text not null,
  user_id text not null,
  key_id text not null,
  model text not null,
  code text not null,
  count bigint not null check (count > 0),
  first_seen_at timestamptz not null,
  last_seen_at timestamptz not null,
  request_id text,
  facts jsonb not null default '{}' check (jsonb_typeof(facts) = 'object'),
  unique (org_id, hour, key_id, code, model)
);

create index refused_calls_age on tollgate.refused_calls (hour, id);
create index refused_calls_seen on tollgate.refused_calls (last_seen_at);

comment on table tollgate.refused_calls is 'Paid calls refused with 402, 403 or 429, by hour, key, model and code, for 30 days. request_id and facts are those of the last.';
comment on column tollgate.refused_calls.key_id is 'Empty, like user_id and model, for those beyond a hundred rows of an org in an hour.';

alter table tollgate.refused_calls enable row level security;


create table tollgate.spreads (
  kind text not null check (kind in (
    'missing_ids', 'models_read', 'reused_keys', 'repeated_from', 'failed_addresses', 'failed_credentials'
  )),
  subject text not null check (length(subject) between 1 and 140),
  hour timestamptz not null,
  about text not null default '',
  org_id text not null default '',
  times bigint not null check (times > 0),
  marks bit(512) not null,
  last_seen_at timestamptz not null,
  primary key (kind, subject, hour, about)
);

create index spreads_hour on tollgate.spreads (hour, kind, org_id);

comment on table tollgate.spreads is 'How often a key or an address did something in an hour (UTC), and with how many different things: for 8 days. An org has at most a hundred rows of a kind in an hour; those without an org, a thousand together.';
comment on column tollgate.spreads.subject is 'The id of a key, an address, or `installation`: for failed_addresses and failed_credentials, which count only failures of a new address with a new key or email.';
comment on column tollgate.spreads.about is 'Of repeated_from, the request that was repeated; else empty.';
comment on column tollgate.spreads.marks is 'Each different thing sets one of the bits, by its keyed hash; tollgate.different() estimates how many there were.';

alter table tollgate.spreads enable row level security;


-- schemas/15_backups/tables.sql

create table tollgate.backups (
  digest text primary key check (digest ~ '^[0-9a-f]{64}$'),
  file text not null,
  bytes bigint not null,
  created_at timestamptz not null,
  made_here boolean not null,
  as_of timestamptz,
  schema_version text,
  verified_at timestamptz,
  is_sound boolean,
  faults jsonb not null default '[]',
  counts jsonb,
  check ((is_sound is null) = (verified_at is null))
);

comment on table tollgate.backups is 'Backups that were created or verified with the settings of this installation.';
comment on column tollgate.backups.digest is 'SHA-256 of the file, by which it is known again.';
comment on column tollgate.backups.created_at is 'When it was created; where made_here is false, when it was first verified.';
comment on column tollgate.backups.as_of is 'The newest moment that a row of the backup has, as its verification found it.';
comment on column tollgate.backups.faults is 'What the last verification found, as sentences.';
comment on column tollgate.backups.counts is 'How many orgs, transfers and requests it has, as the audit of its last verification counted them.';

alter table tollgate.backups enable row level security;


-- schemas/15_processes/tables.sql

-- What processes of Tollgate used.

create table tollgate.process_samples (
  process text not null check (length(process) between 1 and 256),
  sampled_at timestamptz not null default now(),
  sample jsonb not null check (jsonb_typeof(sample) = 'object'),
  primary key (process, sampled_at)
);

create index process_samples_age on tollgate.process_samples (sampled_at);

comment on table tollgate.process_samples is 'What a process of Tollgate and its machine used, one row a minute, kept for 24 hours.';
comment on column tollgate.process_samples.process is 'The name of the machine, container or dyno, and the id of the process there.';

alter table tollgate.process_samples enable row level security;


-- schemas/15_reconciliation/tables.sql

create table tollgate.reconciliations (
  day date primary key,
  leased_until timestamptz,
  reconciled_at timestamptz,
  failed_at timestamptz,
  failure text,
  verdict text check (verdict in ('agrees', 'explained', 'differs')),
  tolerance_ppm integer,
  our_requests bigint,
  their_requests bigint,
  our_cost_nanos bigint,
  their_cost_nanos bigint,
  check ((verdict is null) = (reconciled_at is null))
);

comment on table tollgate.reconciliations is 'The control totals of days (UTC): what OpenRouter''s models cost by our books, and by its own statement. A day that is reconciled again has its last outcome.';
comment on column tollgate.reconciliations.leased_until is 'Until then, the server that took the day reconciles it, and no other.';
comment on column tollgate.reconciliations.failure is 'Why the day could not be reconciled the last time; null once it could.';

alter table tollgate.reconciliations enable row level security;


create table tollgate.reconciled_models (
  day date not null references tollgate.reconciliations (day) on delete cascade,
  model text not null,
  verdict text not null check (verdict in ('agrees', 'explained', 'differs')),
  our_requests bigint not null,
  their_requests bigint not null,
  our_tokens bigint not null,
  their_tokens bigint not null,
  our_cost_nanos bigint not null,
  their_cost_nanos bigint not null,
  causes jsonb not null,
  primary key (day, model)
);

comment on table tollgate.reconciled_models is 'The control totals of a day by model, and why they may differ.';
comment on column tollgate.reconciled_models.causes is 'A list of {"cause", "requests", "least_nanos", "most_nanos", "examples"}: what each may add to their cost less ours, and some of its requests.';

alter table tollgate.reconciled_models enable row level security;


-- schemas/16_alerts/tables.sql

-- Rules, the alerts that they raise, silences, and what processes observed.

create domain tollgate.rule_id as text check (value is not null and value ~ '^[a-z][a-z0-9_-]{0,62}$');
create domain tollgate.signal as text check (value is not null and value ~ '^[a-z][a-z0-9_]{0,62}$');
create domain tollgate.comparison as text check (value is not null and value in ('at_least', 'below'));
create domain tollgate.threshold as numeric check (value is not null and abs(value) < 1e18);
create domain tollgate.clear_threshold as numeric check (abs(value) < 1e18);
create domain tollgate.rule_seconds as integer check (value is not null and value between 0 and 604800);

create table tollgate.alert_rules (
  id tollgate.rule_id primary key,
  signal tollgate.signal not null,
  comparison tollgate.comparison not null,
  threshold tollgate.threshold not null,
  clear_threshold tollgate.clear_threshold,
  for_seconds tollgate.rule_seconds not null default 0,
  clear_seconds tollgate.rule_seconds not null default 0,
  severity tollgate.severity not null default 'warning',
  subjects tollgate.matched,
  state tollgate.enabled_state not null default 'active',
  description tollgate.description not null default '',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

comment on table tollgate.alert_rules is 'A signal with a threshold: which readings raise an alert.';
comment on column tollgate.alert_rules.clear_threshold is 'A firing alert clears once the reading is on the other side of this; null is the threshold.';
comment on column tollgate.alert_rules.for_seconds is 'How long readings are beyond the threshold before the alert fires.';
comment on column tollgate.alert_rules.clear_seconds is 'How long they are clear before it is resolved.';
comment on column tollgate.alert_rules.subjects is 'Only readings of these subjects; null is all.';

alter table tollgate.alert_rules enable row level security;


create table tollgate.alerts (
  id text primary key default tollgate.new_id('alt') check (id ~ '^alt_[a-z0-9]{1,64}$'),
  rule_id text not null references tollgate.alert_rules (id) on delete cascade,
  subject text not null check (length(subject) between 1 and 300),
  org_id text,
  severity tollgate.severity not null,
  state text not null check (state in ('pending', 'firing', 'resolved')),
  value numeric not null,
  pending_at timestamptz not null,
  firing_at timestamptz,
  clear_since timestamptz,
  resolved_at timestamptz,
  told_at timestamptz,
  incident_id text,
  acknowledged_at timestamptz,
  acknowledged_by text,
  note text check (length(note) <= 1000)
);

create unique index alerts_open on tollgate.alerts (rule_id, subject) where state <> 'resolved';
create index alerts_age on tollgate.alerts (pending_at, id);

comment on table tollgate.alerts is 'The state of a rule for a subject. A rule is ok for a subject without an open alert. A pending alert whose reading clears is deleted; resolved ones are kept for 90 days.';
comment on column tollgate.alerts.org_id is 'The org that the subject is, or belongs to.';
comment on column tollgate.alerts.value is 'The last reading.';
comment on column tollgate.alerts.told_at is 'When operators'' channels were told that it fires; null while a silence matches.';
comment on column tollgate.alerts.incident_id is 'Shared by the alerts that began to fire in one round.';

alter table tollgate.alerts enable row level security;


create table tollgate.alert_changes (
  position bigint generated always as identity primary key,
  alert_id text not null references tollgate.alerts (id) on delete cascade,
  state text not null,
  value numeric not null,
  at timestamptz not null
);

create index alert_changes_alert on tollgate.alert_changes (alert_id, position);

comment on table tollgate.alert_changes is 'The history of alerts: each change of a state once.';

alter table tollgate.alert_changes enable row level security;


create table tollgate.silences (
  id text primary key default tollgate.new_id('sil') check (id ~ '^sil_[a-z0-9]{1,64}$'),
  reason text not null check (length(reason) between 1 and 1000),
  rules tollgate.matched,
  subjects tollgate.matched,
  org_ids tollgate.matched,
  starts_at timestamptz not null,
  ends_at timestamptz not null,
  created_by text,
  created_at timestamptz not null default now(),
  check (starts_at < ends_at)
);

create index silences_ends_at on tollgate.silences (ends_at, id);

comment on table tollgate.silences is 'Times in which matching alerts are not told to operators. A maintenance window is one that starts later. Null matches all.';

alter table tollgate.silences enable row level security;


create table tollgate.readings (
  process text not null check (length(process) between 1 and 100),
  signal text not null,
  subject text not null check (length(subject) between 1 and 300),
  value numeric not null,
  at timestamptz not null,
  primary key (process, signal, subject)
);

comment on table tollgate.readings is 'Readings that only a process knows, the last of each process; and those that the database takes every five minutes, of the process `database`.';

alter table tollgate.readings enable row level security;


create table tollgate.alert_scan (
  single boolean primary key default true check (single),
  scanned_at timestamptz not null default '-infinity',
  slow_at timestamptz not null default '-infinity'
);

comment on table tollgate.alert_scan is 'When rules were last evaluated, and when the slow readings were taken: one row, which the evaluating transaction locks.';

alter table tollgate.alert_scan enable row level security;

insert into tollgate.alert_scan default values;


create type tollgate.reading as (signal text, subject text, value numeric);

comment on type tollgate.reading is 'The value of a signal for a subject at a moment.';


-- schemas/16_creations/tables.sql

-- What was created under an idempotency key.

create table tollgate.creations (
  operator text not null,
  idempotency_key text not null check (length(idempotency_key) between 1 and 180),
  creation text not null,
  asked jsonb not null,
  answer jsonb not null,
  created_at timestamptz not null default clock_timestamp(),
  primary key (operator, idempotency_key)
);

create index creations_age on tollgate.creations (created_at);

comment on table tollgate.creations is 'The answers to creations with an idempotency key, kept for 48 hours. Credits have credit_operations instead.';
comment on column tollgate.creations.operator is 'The user who created, with any of their keys. Idempotency keys are separate for each user.';
comment on column tollgate.creations.asked is 'What was asked for, without what is new in each attempt: to tell a repetition from another request under the same key.';

alter table tollgate.creations enable row level security;


-- schemas/16_monitor/tables.sql

create table tollgate.top_keys (
  org_id text not null,
  key_id text not null,
  requests bigint not null,
  tokens bigint not null,
  charge_nanos bigint not null,
  cost_nanos bigint not null
);

comment on table tollgate.top_keys is 'What each key used in the span of tollgate.top_keys_period, about 30 days, so that the top lists need not be computed from all days of all keys each time.';

alter table tollgate.top_keys enable row level security;


create table tollgate.top_keys_period (
  single boolean primary key default true check (single),
  since timestamptz,
  until timestamptz
);

comment on table tollgate.top_keys_period is 'The span of time that tollgate.top_keys covers. One row, which the writer locks.';

alter table tollgate.top_keys_period enable row level security;

insert into tollgate.top_keys_period default values;


-- schemas/17_sessions/tables.sql

create table tollgate.sessions (
  id text primary key default tollgate.new_id('ses') check (id ~ '^ses_[a-z0-9]{1,64}$'),
  digest tollgate.digest not null unique,
  user_id text not null references tollgate.users (id) on delete cascade,
  key_id text references tollgate.api_keys (id) on delete cascade,
  way text not null check (way in ('key', 'link', 'password', 'supabase')),
  ip inet,
  user_agent text,
  created_at timestamptz not null default now(),
  last_seen_at timestamptz not null default now()
);

create index sessions_user_id on tollgate.sessions (user_id);
create index sessions_key_id on tollgate.sessions (key_id) where key_id is not null;

comment on table tollgate.sessions is 'Sign-ins of people in a browser. A row is deleted when its session ends; the audit trail keeps its history.';
comment on column tollgate.sessions.digest is 'Of the token in the cookie, which is not stored.';
comment on column tollgate.sessions.key_id is 'The key that was exchanged, whose bounds the session keeps; null for other ways to sign in.';
comment on column tollgate.sessions.last_seen_at is 'Changes at most once a minute.';

alter table tollgate.sessions enable row level security;


create table tollgate.sign_in_links (
  digest tollgate.digest primary key,
  user_id text not null references tollgate.users (id) on delete cascade,
  expires_at timestamptz not null default now() + interval '10 minutes'
);

create index sign_in_links_user_id on tollgate.sign_in_links (user_id);

comment on table tollgate.sign_in_links is 'Links by which a user signs in once. A row is deleted when its link is used.';

alter table tollgate.sign_in_links enable row level security;


create table tollgate.passwords (
  user_id text primary key references tollgate.users (id) on delete cascade,
  hash text not null check (hash like '$argon2id$%' and length(hash) <= 200),
  known_addresses text[] not null default '{}' check (cardinality(known_addresses) <= 10),
  set_at timestamptz not null default now()
);

comment on table tollgate.passwords is 'The passwords by which users sign in, hashed with Argon2id.';
comment on column tollgate.passwords.known_addresses is 'The last 10 addresses from which the password was right.';

alter table tollgate.passwords enable row level security;


create table tollgate.password_failures (
  account text not null,
  address text not null,
  failures integer not null default 1,
  since timestamptz not null default now(),
  primary key (account, address)
);

create index password_failures_since on tollgate.password_failures (since);

comment on table tollgate.password_failures is 'Wrong passwords within 15 minutes: of an account from an address; of the address in all, where account is empty; of the account in all, where address is empty.';
comment on column tollgate.password_failures.account is 'A digest of the email that was sent, whether a user has it or not.';

alter table tollgate.password_failures enable row level security;


-- schemas/02_audit_trail/chain.sql

-- The hash chain of the audit events.

create function tollgate.event_text(e tollgate.audit_events) returns bytea
language sql
stable
set search_path = ''
as $$
  select convert_to(row(
    e.id, extract(epoch from e.occurred_at), e.actor_kind, e.actor_key_id, e.actor_user_id, e.actor_name, e.org_id, e.action,
    e.target_id, e.outcome, e.ip, e.user_agent, e.request_id, e.details
  )::text, 'UTF8')
$$;

comment on function tollgate.event_text(tollgate.audit_events) is
  'The bytes of an audit event that are hashed: all its columns as the text of a row, the time in seconds since the epoch.';


create function tollgate.link_event() returns trigger
language plpgsql
security definer -- it runs at commit, when no other security definer function is running
set search_path = ''
as $$
declare
  last tollgate.event_links;
begin
  perform pg_advisory_xact_lock(hashtextextended('tollgate_event_chain', 0));
  select l.* into last from tollgate.event_links l order by l.position desc limit 1;
  insert into tollgate.event_links (position, event_id, chain)
  values (coalesce(last.position, 0) + 1, new.id, sha256(coalesce(last.chain, '') || tollgate.event_text(new)));
  return null;
end
$$;

comment on function tollgate.link_event() is
  'Trigger of the audit trail, deferred to the commit: links each event to the previous one. Locks the chain, always as the last lock of a transaction, so that it cannot deadlock.';

create constraint trigger audit_events_linked
after insert on tollgate.audit_events
deferrable initially deferred
for each row execute function tollgate.link_event();


-- schemas/02_audit_trail/record.sql

-- Writes audit events.

create function tollgate.record(
  actor tollgate.caller,
  action text,
  org_id text,
  target_id text,
  details jsonb default '{}'
) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.audit_events (
    actor_kind, actor_key_id, actor_user_id, actor_name,
    org_id, action, target_id, outcome, ip, user_agent, request_id, details
  ) values (
    actor.kind, actor.key_id, actor.user_id, actor.name,
    org_id, action, target_id, 'success', actor.ip, actor.user_agent, actor.request_id, details
  )
$$;

comment on function tollgate.record(tollgate.caller, text, text, text, jsonb) is
  'Writes the audit event of a change, in the transaction of the change. Locks nothing.';


-- schemas/02_audit_trail/shown.sql

-- Audit events as JSON.

create function tollgate.audit_event_shown(e tollgate.audit_events) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', e.id,
    'occurred_at', tollgate.utc(e.occurred_at),
    'actor', jsonb_strip_nulls(jsonb_build_object(
      'kind', e.actor_kind, 'key_id', e.actor_key_id, 'user_id', e.actor_user_id, 'name', e.actor_name
    )),
    'org_id', e.org_id,
    'action', e.action,
    'target_id', e.target_id,
    'outcome', e.outcome,
    'ip', host(e.ip),
    'user_agent', e.user_agent,
    'request_id', e.request_id,
    'details', e.details
  )
$$;

comment on function tollgate.audit_event_shown(tollgate.audit_events) is 'An audit event as it is shown.';


-- schemas/03_authentication/recognise.sql

-- Recognises callers, and decides whether they may act.

create function tollgate.digests_of(caller jsonb) returns bytea[]
language sql
immutable
set search_path = ''
as $$
  select array(select decode(d, 'hex') from jsonb_array_elements_text(caller -> 'digests') d)
$$;

comment on function tollgate.digests_of(jsonb) is
  'The digests under which a caller''s key may be stored: one for each active pepper, the newest first.';


create function tollgate.key_refusal(
  key tollgate.api_keys,
  owner_status text,
  owner_role text,
  org_status text,
  caller jsonb,
  scope text
) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  code constant text := case
    when key.id is null or org_status is null then 'invalid_api_key'
    when key.revoked_at is not null then 'key_revoked'
    when (key.disabled_at is null and owner_status = 'active' and org_status = 'active') is not true then 'key_disabled'
    when key.expires_at <= now() then 'key_expired'
    when key.ip_allowlist is not null and ((caller ->> 'ip')::inet <<= any (key.ip_allowlist)) is not true
      then 'ip_not_allowed'
    when scope is not null and (scope = any (key.scopes) and (scope <> 'admin' or owner_role = 'admin')) is not true
      then 'permission_denied'
  end;
  status integer;
begin
  if code is null then
    return null;
  end if;
  status := case when code in ('ip_not_allowed', 'permission_denied') then 403 else 401 end;
  return tollgate.refusal(status, code, case code
    when 'invalid_api_key' then '{}'
    when 'key_revoked' then jsonb_build_object('key_id', key.id, 'revoked_at', tollgate.utc(key.revoked_at))
    when 'key_disabled' then jsonb_build_object('key_id', key.id, 'disabled', case
      when key.disabled_at is not null then 'key'
      when owner_status <> 'active' then 'user'
      else 'org'
    end)
    when 'key_expired' then jsonb_build_object('key_id', key.id, 'expired_at', tollgate.utc(key.expires_at))
    when 'ip_not_allowed' then jsonb_build_object('key_id', key.id, 'ip', host((caller ->> 'ip')::inet))
    when 'permission_denied' then jsonb_build_object('key_id', key.id, 'scope', scope)
  end);
end
$$;

comment on function tollgate.key_refusal(tollgate.api_keys, text, text, text, jsonb, text) is
  'Decides whether a key may act, and do what `scope` names (null: nothing in particular): null if it may, otherwise the refusal. Every function that recognises a key asks this one. Refuses, as a value: invalid_api_key (no key), key_revoked, key_disabled, key_expired, ip_not_allowed, permission_denied.';


create function tollgate.identify(caller jsonb, scope text default null) returns tollgate.recognition
language plpgsql
set search_path = ''
as $$
declare
  known record;
  actor tollgate.caller;
begin
  if caller ? 'session' then
    return tollgate.identify_session(caller, scope);
  end if;
  actor.ip := caller ->> 'ip';
  actor.user_agent := caller ->> 'user_agent';
  actor.request_id := caller ->> 'request_id';
  if caller ? 'console' then
    actor.kind := 'console';
    actor.name := caller ->> 'console';
    actor.role := 'admin';
    return row(actor, null::tollgate.api_keys, null::jsonb);
  end if;

  select k as key, u.role, tollgate.key_refusal(k, u.status, u.role, o.status, caller, scope) as refusal into known
  from (select) nothing
  left join tollgate.api_keys k on k.digest = any (tollgate.digests_of(caller))
  left join tollgate.users u on u.id = k.user_id
  left join tollgate.orgs o on o.id = k.org_id
  limit 1;
  if known.refusal is not null then
    return row(null::tollgate.caller, null::tollgate.api_keys, known.refusal);
  end if;

  actor.kind := 'key';
  actor.key_id := (known.key).id;
  actor.user_id := (known.key).user_id;
  actor.org_id := (known.key).org_id;
  actor.role := known.role;
  actor.environment := (known.key).environment;
  actor.scopes := (known.key).scopes;
  return row(actor, known.key, null::jsonb);
end
$$;

comment on function tollgate.identify(jsonb, text) is
  'The caller behind a request, if it may do what `scope` names. Refuses, as a value: as key_refusal() and identify_session(). Locks nothing.';


create function tollgate.recognise(caller jsonb, scope text default null, touch boolean default true)
returns tollgate.caller
language plpgsql
set search_path = ''
as $$
declare
  recognition tollgate.recognition := tollgate.identify(caller, scope);
begin
  if recognition.refusal is not null then
    perform tollgate.refuse(
      (recognition.refusal ->> 'status')::integer, recognition.refusal ->> 'code', recognition.refusal -> 'facts'
    );
  end if;
  if touch and (recognition.actor).kind = 'key' then
    perform tollgate.touch(recognition.key, caller);
  elsif touch then
    perform tollgate.touch_session((recognition.actor).session_id);
  end if;
  return recognition.actor;
end
$$;

comment on function tollgate.recognise(jsonb, text, boolean) is
  'As identify(), for functions that serve one caller: a refusal ends the call. Touches the key or the session unless `touch` is false. A function that locks orgs passes false, and touches the key after it has locked the org.';


create function tollgate.touch(key tollgate.api_keys, caller jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  newest bytea := decode(caller -> 'digests' ->> 0, 'hex');
begin
  if key.digest <> newest or key.last_used_at is null or key.last_used_at < now() - interval '1 minute' then
    update tollgate.api_keys k set last_used_at = now(), digest = newest, pepper = caller ->> 'pepper'
    where k.id = (select id from tollgate.api_keys where id = key.id for no key update skip locked);
  end if;
end
$$;

comment on function tollgate.touch(tollgate.api_keys, jsonb) is
  'Updates last_used_at of a key, at most once a minute, and replaces a digest that was made with a previous pepper. Skips a key that another transaction has locked. Orgs are locked before keys, so a function that locks an org calls this afterwards. Locks the key.';


create function tollgate.identity(actor tollgate.caller) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('org_id', actor.org_id, 'user_id', actor.user_id, 'key_id', actor.key_id)
$$;

comment on function tollgate.identity(tollgate.caller) is
  'The ids of the caller, which the server writes into the log line of the request.';


create function tollgate.operates(actor tollgate.caller) returns boolean
language sql
immutable
set search_path = ''
as $$
  select actor.kind = 'console' or (actor.role = 'admin' and actor.scopes @> array['admin'])
$$;

comment on function tollgate.operates(tollgate.caller) is
  'Whether the caller acts for the whole installation: the console, or an admin with a key or session that has the scope admin.';


create function public.tollgate_identify(caller jsonb) returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select jsonb_build_object('caller', tollgate.identity(tollgate.recognise(caller, touch => false)))
$$;

comment on function public.tollgate_identify(jsonb) is
  'Answers who the caller is, if it may act. Changes nothing. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_identify(jsonb)');


create function public.tollgate_operator(caller jsonb) returns jsonb
language sql
security definer
set search_path = ''
as $$
  select jsonb_build_object('caller', tollgate.identity(tollgate.recognise(caller, 'admin')))
$$;

comment on function public.tollgate_operator(jsonb) is
  'Answers who the caller is, if it is an operator: for what operators do outside the database. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_operator(jsonb)');


-- schemas/03_authentication/sessions.sql

-- Recognises the sessions of people who signed in.

create function tollgate.session_digests_of(caller jsonb) returns bytea[]
language sql
immutable
set search_path = ''
as $$
  select array(select decode(d, 'hex') from jsonb_array_elements_text(caller -> 'session') d)
$$;

comment on function tollgate.session_digests_of(jsonb) is
  'The digests under which a caller''s session may be stored: one for each active pepper.';


create function tollgate.session_lifetime(role text) returns interval
language sql
immutable
set search_path = ''
as $$
  select case role when 'admin' then interval '12 hours' else interval '14 days' end
$$;

comment on function tollgate.session_lifetime(text) is 'How long a session of a user with this role lasts at most.';


create function tollgate.session_idle_time(role text) returns interval
language sql
immutable
set search_path = ''
as $$
  select case role when 'admin' then interval '1 hour' else interval '3 days' end
$$;

comment on function tollgate.session_idle_time(text) is
  'After how long without a request a session of a user with this role ends.';


create function tollgate.session_expires_at(session tollgate.sessions, role text) returns timestamptz
language sql
immutable
set search_path = ''
as $$
  select least(
    session.created_at + tollgate.session_lifetime(role), session.last_seen_at + tollgate.session_idle_time(role)
  )
$$;

comment on function tollgate.session_expires_at(tollgate.sessions, text) is
  'When a session ends if no further request comes. `role` is the role that the user has now.';


create function tollgate.key_of_session(session tollgate.sessions, person tollgate.users) returns tollgate.api_keys
language plpgsql
stable
set search_path = ''
as $$
declare
  key tollgate.api_keys;
begin
  if session.key_id is not null then
    select k.* into key from tollgate.api_keys k where k.id = session.key_id and k.rotated_to is null;
  else
    key.id := session.id;
    key.org_id := person.org_id;
    key.user_id := person.id;
    key.environment := 'live';
    key.scopes := array['chat', 'completions', 'embeddings', 'models', 'usage', 'keys']
      || case person.role when 'admin' then array['admin'] else '{}'::text[] end;
  end if;
  return key;
end
$$;

comment on function tollgate.key_of_session(tollgate.sessions, tollgate.users) is
  'What a session may do, as a key: the key that was exchanged, or null when it was rotated; without a key, one with all scopes of the user''s role that is not stored.';


create function tollgate.identify_session(caller jsonb, scope text) returns tollgate.recognition
language plpgsql
stable
set search_path = ''
as $$
declare
  session tollgate.sessions;
  person tollgate.users;
  key tollgate.api_keys;
  org_status text;
  refusal jsonb;
  actor tollgate.caller;
begin
  select s.* into session from tollgate.sessions s where s.digest = any (tollgate.session_digests_of(caller));
  select u.* into person from tollgate.users u where u.id = session.user_id;
  select o.status into org_status from tollgate.orgs o where o.id = person.org_id;
  key := tollgate.key_of_session(session, person);
  refusal := tollgate.key_refusal(key, person.status, person.role, org_status, caller, scope);
  if refusal ->> 'status' = '401' or (tollgate.session_expires_at(session, person.role) > now()) is not true then
    refusal := tollgate.refusal(401, 'session_ended');
  end if;
  if session.key_id is null then
    refusal := refusal #- '{facts, key_id}';
  end if;
  if refusal is not null then
    return row(null::tollgate.caller, null::tollgate.api_keys, refusal);
  end if;

  actor.kind := 'session';
  actor.key_id := session.key_id;
  actor.user_id := person.id;
  actor.org_id := person.org_id;
  actor.role := person.role;
  actor.environment := key.environment;
  actor.scopes := key.scopes;
  actor.ip := caller ->> 'ip';
  actor.user_agent := caller ->> 'user_agent';
  actor.request_id := caller ->> 'request_id';
  actor.session_id := session.id;
  actor.signed_in_at := session.created_at;
  return row(actor, key, null::jsonb);
end
$$;

comment on function tollgate.identify_session(jsonb, text) is
  'The user behind a session, if the session may do what `scope` names. Its rights are those that the user has now, and no more than those of the key that was exchanged. Refuses, as a value: session_ended (unknown, expired, or its key, user or org may not act), ip_not_allowed, permission_denied. Locks nothing.';


create function tollgate.touch_session(session_id text) returns void
language sql
set search_path = ''
as $$
  update tollgate.sessions s set last_seen_at = now()
  where s.id = session_id and s.last_seen_at < now() - interval '1 minute'
$$;

comment on function tollgate.touch_session(text) is
  'Updates last_seen_at of a session, at most once a minute. Locks the session.';


create function tollgate.check_recent_sign_in(actor tollgate.caller) returns void
language plpgsql
set search_path = ''
as $$
begin
  if actor.kind = 'session' and actor.signed_in_at < now() - interval '15 minutes' then
    perform tollgate.refuse(403, 'sign_in_again', jsonb_build_object('signed_in_at', tollgate.utc(actor.signed_in_at)));
  end if;
end
$$;

comment on function tollgate.check_recent_sign_in(tollgate.caller) is
  'Refuses, with sign_in_again, a session that began more than 15 minutes ago. Keys and the console need no sign-in.';


-- schemas/04_limits/remaining.sql

-- What limits leave.

create function tollgate.remaining(counters tollgate.counters, limits tollgate.limits, at_ms bigint)
returns tollgate.remaining
language plpgsql
immutable
set search_path = ''
as $$
declare
  remaining tollgate.remaining;
  -- How much of the previous bucket is still inside the window.
  minute_rest constant bigint := 60000 - at_ms % 60000;
  hour_rest constant bigint := 3600000 - at_ms % 3600000;
  day_rest constant bigint := 86400000 - at_ms % 86400000;
  in_minute bigint;
  in_hour bigint;
  in_day bigint;
begin
  if limits is null then
    return remaining;
  end if;
  if (
    counters.minute_bucket >= at_ms / 60000 and counters.hour_bucket >= at_ms / 3600000
    and counters.day_bucket >= at_ms / 86400000
  ) is not true then
    counters := tollgate.roll(counters, at_ms);
  end if;
  -- Used: the current bucket, and the part of the previous one that is still inside, rounded up.
  in_minute := limits.requests_per_minute - counters.minute_requests
    - (counters.minute_requests_before * minute_rest + 59999) / 60000;
  in_hour := limits.requests_per_hour - counters.hour_requests
    - (counters.hour_requests_before * hour_rest + 3599999) / 3600000;
  in_day := limits.requests_per_day - counters.day_requests
    - (counters.day_requests_before * day_rest + 86399999) / 86400000;
  remaining.requests_left := least(in_minute, in_hour, in_day);
  remaining.requests_limit := case remaining.requests_left
    when in_minute then limits.requests_per_minute
    when in_hour then limits.requests_per_hour
    when in_day then limits.requests_per_day
  end;
  remaining.requests_reset_ms := case remaining.requests_left
    when in_minute then 60000 + minute_rest
    when in_hour then 3600000 + hour_rest
    when in_day then 86400000 + day_rest
  end;
  in_minute := limits.tokens_per_minute - counters.minute_tokens
    - (counters.minute_tokens_before * minute_rest + 59999) / 60000;
  in_hour := limits.tokens_per_hour - counters.hour_tokens
    - (counters.hour_tokens_before * hour_rest + 3599999) / 3600000;
  in_day := limits.tokens_per_day - counters.day_tokens
    - (counters.day_tokens_before * day_rest + 86399999) / 86400000;
  remaining.tokens_left := least(in_minute, in_hour, in_day);
  remaining.tokens_limit := case remaining.tokens_left
    when in_minute then limits.tokens_per_minute
    when in_hour then limits.tokens_per_hour
    when in_day then limits.tokens_per_day
  end;
  remaining.tokens_reset_ms := case remaining.tokens_left
    when in_minute then 60000 + minute_rest
    when in_hour then 3600000 + hour_rest
    when in_day then 86400000 + day_rest
  end;
  return remaining;
end
$$;

comment on function tollgate.remaining(tollgate.counters, tollgate.limits, bigint) is
  'How many requests and how many tokens fit into every window at a time. A request fits when one request and its tokens are left; what is taken at that time lowers all windows alike, so a batch calls this once. In bigint, since no limit is above 10^11.';


create function tollgate.tighter(one tollgate.remaining, other tollgate.remaining) returns tollgate.remaining
language plpgsql
immutable
set search_path = ''
as $$
begin
  if other.requests_left < one.requests_left or one.requests_left is null then
    one.requests_limit := other.requests_limit;
    one.requests_left := other.requests_left;
    one.requests_reset_ms := other.requests_reset_ms;
  end if;
  if other.tokens_left < one.tokens_left or one.tokens_left is null then
    one.tokens_limit := other.tokens_limit;
    one.tokens_left := other.tokens_left;
    one.tokens_reset_ms := other.tokens_reset_ms;
  end if;
  return one;
end
$$;

comment on function tollgate.tighter(tollgate.remaining, tollgate.remaining) is 'For each measure, whichever has less left.';


create function tollgate.windows(counters tollgate.counters, limits tollgate.limits, at_ms bigint) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'requests', jsonb_object_agg(w.name, w.shown) filter (where w.measure = 'requests'),
    'tokens', jsonb_object_agg(w.name, w.shown) filter (where w.measure = 'tokens')
  )
  from (
    select l.measure, l.name, jsonb_build_object(
      'limit', l.most,
      'used', u.used,
      'remaining', case when l.most is not null then greatest(0, l.most - u.used) end,
      'resets_at', tollgate.utc(to_timestamp((at_ms - at_ms % l.span + l.span * case
        when l.current > 0 then 2
        when l.before > 0 then 1
      end) / 1000.0))
    ) as shown
    from tollgate.roll(counters, at_ms) c,
    lateral (values
      ('requests', 'minute', 60000, limits.requests_per_minute, c.minute_requests, c.minute_requests_before),
      ('requests', 'hour', 3600000, limits.requests_per_hour, c.hour_requests, c.hour_requests_before),
      ('requests', 'day', 86400000, limits.requests_per_day, c.day_requests, c.day_requests_before),
      ('tokens', 'minute', 60000, limits.tokens_per_minute, c.minute_tokens, c.minute_tokens_before),
      ('tokens', 'hour', 3600000, limits.tokens_per_hour, c.hour_tokens, c.hour_tokens_before),
      ('tokens', 'day', 86400000, limits.tokens_per_day, c.day_tokens, c.day_tokens_before)
    ) l (measure, name, span, most, current, before),
    lateral (select l.current + (l.before * (l.span - at_ms % l.span) + l.span - 1) / l.span as used) u
  ) w
$$;

comment on function tollgate.windows(tollgate.counters, tollgate.limits, bigint) is
  'The six windows one by one, counted as remaining() counts them: what is used, what remains of the limit (null without one), and when the window will be empty if no more requests come (null when it is empty).';


create function tollgate.of_requests(limits tollgate.limits) returns tollgate.limits
language sql
immutable
set search_path = ''
as $$
  select row(
    limits.requests_per_minute, limits.requests_per_hour, limits.requests_per_day, null, null, null
  )::tollgate.limits
$$;

comment on function tollgate.of_requests(tollgate.limits) is 'The limits of requests, without those of tokens.';


create function tollgate.concurrent(bound bigint, open_requests bigint) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'limit', bound,
    'in_flight', open_requests,
    'remaining', case when bound is not null then greatest(0, bound - open_requests) end
  )
$$;

comment on function tollgate.concurrent(bigint, bigint) is
  'How many requests may be open at once, how many are, and how many more may be; null where there is no bound.';


create function tollgate.in_flight_refusal(most bigint, open_requests bigint) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select tollgate.refusal(429, 'too_many_in_flight', jsonb_build_object(
    'limit', most, 'in_flight', open_requests, 'of', 'org'
  ))
$$;

comment on function tollgate.in_flight_refusal(bigint, bigint) is
  'The refusal of an org that has as many requests open as it may.';


-- schemas/04_limits/windows.sql

-- Sliding windows of requests and tokens: three lengths, two buckets each.
--
-- The current bucket counts in full, and the previous one by the part that is still inside the window. With calendar
-- windows, twice the limit would pass around the turn of an hour. Each window is written out, because a loop over arrays
-- costs twice as much on the hot path. For the same reason the functions call roll() only when a window has turned.

create function tollgate.roll(counters tollgate.counters, at_ms bigint) returns tollgate.counters
language plpgsql
immutable
set search_path = ''
as $$
declare
  minute constant bigint := at_ms / 60000;
  hour constant bigint := at_ms / 3600000;
  day constant bigint := at_ms / 86400000;
  follows boolean; -- whether the bucket in the counters is the previous one
begin
  -- When the clock goes back, the later buckets stay the current ones.
  if (counters.minute_bucket >= minute) is not true then
    follows := counters.minute_bucket = minute - 1;
    counters.minute_requests_before := case when follows then counters.minute_requests else 0 end;
    counters.minute_tokens_before := case when follows then counters.minute_tokens else 0 end;
    counters.minute_bucket := minute;
    counters.minute_requests := 0;
    counters.minute_tokens := 0;
  end if;
  if (counters.hour_bucket >= hour) is not true then
    follows := counters.hour_bucket = hour - 1;
    counters.hour_requests_before := case when follows then counters.hour_requests else 0 end;
    counters.hour_tokens_before := case when follows then counters.hour_tokens else 0 end;
    counters.hour_bucket := hour;
    counters.hour_requests := 0;
    counters.hour_tokens := 0;
  end if;
  if (counters.day_bucket >= day) is not true then
    follows := counters.day_bucket = day - 1;
    counters.day_requests_before := case when follows then counters.day_requests else 0 end;
    counters.day_tokens_before := case when follows then counters.day_tokens else 0 end;
    counters.day_bucket := day;
    counters.day_requests := 0;
    counters.day_tokens := 0;
  end if;
  return counters;
end
$$;

comment on function tollgate.roll(tollgate.counters, bigint) is 'The counters as they stand at a time, before anything is taken.';


create function tollgate.window_wait(
  current bigint,
  before bigint,
  span bigint,
  at_ms bigint,
  need bigint,
  most bigint
) returns bigint
language plpgsql
immutable
set search_path = ''
as $$
declare
  spare bigint := most - current - need;
begin
  if need > most then
    return null;
  elsif before = 0 and spare >= 0 then
    return 0;
  elsif spare >= 0 then
    return greatest(0, span - floor(spare::numeric * span / before) - at_ms % span);
  end if;
  -- Only after the next turn, when the current bucket has become the previous one.
  return span - at_ms % span + greatest(0, span - floor((most - need)::numeric * span / current));
end
$$;

comment on function tollgate.window_wait(bigint, bigint, bigint, bigint, bigint, bigint) is
  'Milliseconds until `need` fits into a window if nothing else comes; 0 when it fits now, null when it never will.';


create function tollgate.take(counters tollgate.counters, at_ms bigint, requests bigint, tokens bigint)
returns tollgate.counters
language plpgsql
immutable
set search_path = ''
as $$
begin
  if (
    counters.minute_bucket >= at_ms / 60000 and counters.hour_bucket >= at_ms / 3600000
    and counters.day_bucket >= at_ms / 86400000
  ) is not true then
    counters := tollgate.roll(counters, at_ms);
  end if;
  counters.minute_requests := counters.minute_requests + requests;
  counters.minute_tokens := counters.minute_tokens + tokens;
  counters.hour_requests := counters.hour_requests + requests;
  counters.hour_tokens := counters.hour_tokens + tokens;
  counters.day_requests := counters.day_requests + requests;
  counters.day_tokens := counters.day_tokens + tokens;
  return counters;
end
$$;

comment on function tollgate.take(tollgate.counters, bigint, bigint, bigint) is 'Counts in every window at once.';


create function tollgate.correct(counters tollgate.counters, taken_at_ms bigint, at_ms bigint, tokens bigint)
returns tollgate.counters
language plpgsql
immutable
set search_path = ''
as $$
begin
  if (
    counters.minute_bucket >= at_ms / 60000 and counters.hour_bucket >= at_ms / 3600000
    and counters.day_bucket >= at_ms / 86400000
  ) is not true then
    counters := tollgate.roll(counters, at_ms);
  end if;
  if counters.minute_bucket = taken_at_ms / 60000 then
    counters.minute_tokens := greatest(0, counters.minute_tokens + tokens);
  elsif counters.minute_bucket = taken_at_ms / 60000 + 1 then
    counters.minute_tokens_before := greatest(0, counters.minute_tokens_before + tokens);
  end if;
  if counters.hour_bucket = taken_at_ms / 3600000 then
    counters.hour_tokens := greatest(0, counters.hour_tokens + tokens);
  elsif counters.hour_bucket = taken_at_ms / 3600000 + 1 then
    counters.hour_tokens_before := greatest(0, counters.hour_tokens_before + tokens);
  end if;
  if counters.day_bucket = taken_at_ms / 86400000 then
    counters.day_tokens := greatest(0, counters.day_tokens + tokens);
  elsif counters.day_bucket = taken_at_ms / 86400000 + 1 then
    counters.day_tokens_before := greatest(0, counters.day_tokens_before + tokens);
  end if;
  return counters;
end
$$;

comment on function tollgate.correct(tollgate.counters, bigint, bigint, bigint) is
  'Adds the difference between tokens reserved at one time and tokens used, in the buckets that reserved them.';


create function tollgate.limit_exceeded(counters tollgate.counters, limits tollgate.limits, at_ms bigint, tokens bigint)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
declare
  spans constant bigint[] := array[60000, 3600000, 86400000];
  now_in tollgate.counters := tollgate.roll(counters, at_ms);
  most constant bigint[] := array[
    limits.requests_per_minute, limits.requests_per_hour, limits.requests_per_day,
    limits.tokens_per_minute, limits.tokens_per_hour, limits.tokens_per_day
  ];
  current constant bigint[] := array[
    now_in.minute_requests, now_in.hour_requests, now_in.day_requests,
    now_in.minute_tokens, now_in.hour_tokens, now_in.day_tokens
  ];
  before constant bigint[] := array[
    now_in.minute_requests_before, now_in.hour_requests_before, now_in.day_requests_before,
    now_in.minute_tokens_before, now_in.hour_tokens_before, now_in.day_tokens_before
  ];
  worst jsonb;
  longest bigint := 0;
  wait bigint;
  need bigint;
  span bigint;
  rest bigint; -- until the window turns
begin
  for place in 1..6 loop
    continue when most[place] is null;
    need := case when place <= 3 then 1 else tokens end;
    span := spans[(place - 1) % 3 + 1];
    rest := span - at_ms % span;
    wait := tollgate.window_wait(current[place], before[place], span, at_ms, need, most[place]);
    if wait is null or wait > longest then
      worst := jsonb_build_object(
        'window', (array['minute', 'hour', 'day'])[(place - 1) % 3 + 1],
        'measure', case when place <= 3 then 'requests' else 'tokens' end,
        'limit', most[place],
        'needed', need,
        'left', greatest(0, most[place] - current[place] - (before[place] * rest + span - 1) / span),
        'reset_ms', rest + case when current[place] > 0 then span else 0 end,
        'retry_after_ms', wait
      );
      exit when wait is null;
      longest := wait;
    end if;
  end loop;
  return worst;
end
$$;

comment on function tollgate.limit_exceeded(tollgate.counters, tollgate.limits, bigint, bigint) is
  'Null when one more request of so many tokens fits into every window; otherwise the window to wait longest for, with retry_after_ms, or null there when no wait would help. Explains a refusal that remaining() decided.';


create function tollgate.rate_refusal(
  counters tollgate.counters,
  limits tollgate.limits,
  at_ms bigint,
  tokens bigint,
  subject jsonb default '{"of": "org"}'
) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select tollgate.refusal(
    429, 'rate_limit_exceeded', tollgate.limit_exceeded(counters, limits, at_ms, tokens) || subject
  )
$$;

comment on function tollgate.rate_refusal(tollgate.counters, tollgate.limits, bigint, bigint, jsonb) is
  'The refusal of a request of so many tokens by the windows of an org or, as `subject` says, of a user or a key.';


-- schemas/05_people/change_org.sql

-- Changes of an org, and of its plan.
--
-- Changes of orgs, users and plans run one at a time: each takes an advisory lock, which requests do not take.
-- Lock order: the advisory lock, orgs in id order, plan, user, key.

create function tollgate.check_admin_remains() returns void
language plpgsql
set search_path = ''
as $$
begin
  if not exists (
    select from tollgate.users u
    join tollgate.orgs o on o.id = u.org_id
    join tollgate.api_keys k on k.user_id = u.id
    where u.role = 'admin' and u.status = 'active' and o.status = 'active'
      and k.scopes @> array['admin'] and k.revoked_at is null and k.disabled_at is null
      and (k.expires_at is null or k.expires_at > now())
  ) then
    perform tollgate.refuse(409, 'conflict', '{"reason": "last_admin"}');
  end if;
end
$$;

comment on function tollgate.check_admin_remains() is
  'Refuses a change that leaves no working admin: an active one, in an active org, with a working key of scope admin. Called after the change, which the refusal rolls back.';


create function tollgate.org_with(was tollgate.orgs, changes jsonb) returns tollgate.orgs
language plpgsql
stable
set search_path = ''
as $$
declare
  nullable constant text[] :=
    array['markup_ppm', 'byok_fee_nanos', 'max_concurrent_requests', 'allowed_models', 'default_model'];
  org tollgate.orgs;
begin
  org := tollgate.with_fields(
    was,
    coalesce((select jsonb_object_agg(c.key, c.value) from jsonb_each(changes) c where c.key = any (nullable)), '{}'),
    nullable
  );
  org.name := coalesce(changes ->> 'name', was.name);
  org.status := coalesce(changes ->> 'status', was.status);
  org.plan_id := coalesce(changes ->> 'plan', was.plan_id);
  org.cache := coalesce((changes ->> 'cache')::boolean, was.cache);
  if changes ? 'limits' then
    org.limits_set := tollgate.limits_with(was.limits_set, changes -> 'limits');
  end if;
  if changes ->> 'paid_calls' = 'active' then
    org.paid_suspended_at := null;
    org.paid_suspended_reason := null;
    org.quarantined_at := null;
  elsif changes ->> 'paid_calls' = 'suspended' and was.paid_suspended_at is null then
    org.paid_suspended_at := now();
    org.paid_suspended_reason := 'operator';
  end if;
  return org;
end
$$;

comment on function tollgate.org_with(tollgate.orgs, jsonb) is
  'The org with the changes. Refuses: as with_fields().';


create function tollgate.change_org(actor tollgate.caller, org_id text, changes jsonb) returns tollgate.orgs
language plpgsql
set search_path = ''
as $$
declare
  was tollgate.orgs;
  org tollgate.orgs;
  plan tollgate.plans;
  details jsonb;
begin
  perform tollgate.lock_people();
  select o.* into was from tollgate.orgs o where o.id = change_org.org_id for no key update;
  if not found then
    perform tollgate.refuse_missing('org', org_id);
  end if;
  was.limits_set := coalesce(was.limits_set, was.limits);

  org := tollgate.org_with(was, changes);
  details := tollgate.what_changed(to_jsonb(was), to_jsonb(org));
  if details = '{}' then
    return was;
  end if;

  select p.* into plan from tollgate.plans p where p.id = org.plan_id for key share;
  if not found then
    perform tollgate.refuse_missing('plan', org.plan_id);
  end if;
  update tollgate.orgs o set
    name = org.name,
    status = org.status,
    plan_id = org.plan_id,
    markup_ppm = org.markup_ppm,
    byok_fee_nanos = org.byok_fee_nanos,
    limits_set = org.limits_set,
    limits = tollgate.in_force(org.limits_set, plan),
    max_concurrent_requests = org.max_concurrent_requests,
    cache = org.cache,
    quarantined_at = org.quarantined_at,
    paid_suspended_at = org.paid_suspended_at,
    paid_suspended_reason = org.paid_suspended_reason,
    allowed_models = org.allowed_models,
    default_model = org.default_model,
    updated_at = now()
  where o.id = was.id
  returning * into org;
  perform tollgate.record(actor, 'org.updated', was.id, was.id, details);
  if org.status <> 'active' and was.status = 'active' then
    perform tollgate.check_admin_remains();
  end if;
  return org;
end
$$;

comment on function tollgate.change_org(tollgate.caller, text, jsonb) is
  'Changes what `changes` names of an org: name, plan, status, markup_ppm and byok_fee_nanos (null follows the plan), limits (those it names; a null follows the plan), max_concurrent_requests (null follows the plan), cache, paid_calls (active, suspended), allowed_models (null is all), default_model (null is the setting). They apply from the next admission on. Repeating a change changes and records nothing. Refuses: as with_fields(), not_found (org, plan), conflict (no working admin would be left). Locks the advisory lock, the org, the plan.';


create function public.tollgate_update_org(caller jsonb, org_id text, changes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
begin
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.org_shown(tollgate.change_org(actor, org_id, changes));
end
$$;

comment on function public.tollgate_update_org(jsonb, text, jsonb) is
  'Changes an org. Suspending it stops its keys at once; open requests end as usual. For the console and admins. Refuses: as recognise() and change_org(). Locks as change_org().';

select tollgate.expose('public.tollgate_update_org(jsonb, text, jsonb)');


create function public.tollgate_assign_plan(caller jsonb, subject jsonb, plan text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  changes constant jsonb := jsonb_build_object('plan', plan);
begin
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.org_shown(tollgate.change_org(actor, tollgate.org_of(subject), changes));
end
$$;

comment on function public.tollgate_assign_plan(jsonb, jsonb, text) is
  'Puts an org, or the org of a user, on a plan. Limits and markup of its own stay. For the console and admins. Refuses: as recognise() and change_org(), not_found (user). Locks as change_org().';

select tollgate.expose('public.tollgate_assign_plan(jsonb, jsonb, text)');


-- schemas/05_people/limits.sql

-- The limits of an org: its own, and its plan's.

create function tollgate.in_force(chosen tollgate.limits, plan tollgate.plans) returns tollgate.limits
language sql
immutable
set search_path = ''
as $$
  -- `not … is null` is true when any of the six is set; `is not null` only when all are.
  select case when not chosen is null then row(
    coalesce(chosen.requests_per_minute, plan.requests_per_minute),
    coalesce(chosen.requests_per_hour, plan.requests_per_hour),
    coalesce(chosen.requests_per_day, plan.requests_per_day),
    coalesce(chosen.tokens_per_minute, plan.tokens_per_minute),
    coalesce(chosen.tokens_per_hour, plan.tokens_per_hour),
    coalesce(chosen.tokens_per_day, plan.tokens_per_day)
  )::tollgate.limits end
$$;

comment on function tollgate.in_force(tollgate.limits, tollgate.plans) is
  'The limits of an org in force: its own, and the plan''s for those that it does not set. Null when it sets none.';


create function tollgate.limits_with(chosen tollgate.limits, given jsonb) returns tollgate.limits
language plpgsql
immutable
set search_path = ''
as $$
declare
  changed tollgate.limits := case jsonb_typeof(given) when 'object' then jsonb_populate_record(chosen, given) end;
begin
  return case when not changed is null then changed end;
end
$$;

comment on function tollgate.limits_with(tollgate.limits, jsonb) is
  'The limits after a change: it replaces those that it names, and a null removes one; null in place of the object removes all.';


create function tollgate.limits_shown(limits tollgate.limits) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select to_jsonb(coalesce(limits, row(null, null, null, null, null, null)::tollgate.limits))
$$;

comment on function tollgate.limits_shown(tollgate.limits) is 'The six limits by name, null where none is set.';


create function tollgate.limits_of(org tollgate.orgs) returns tollgate.limits
language sql
stable
set search_path = ''
as $$
  select coalesce(org.limits, row(
    p.requests_per_minute, p.requests_per_hour, p.requests_per_day,
    p.tokens_per_minute, p.tokens_per_hour, p.tokens_per_day
  )::tollgate.limits)
  from tollgate.plans p where p.id = org.plan_id
$$;

comment on function tollgate.limits_of(tollgate.orgs) is 'The limits that admission applies to an org: its own, or its plan''s.';


create function tollgate.bound_of(org tollgate.orgs) returns bigint
language sql
stable
set search_path = ''
as $$
  select coalesce(org.max_concurrent_requests, p.max_concurrent_requests)
  from tollgate.plans p where p.id = org.plan_id
$$;

comment on function tollgate.bound_of(tollgate.orgs) is
  'How many requests admission lets the org have open at once: its own bound, or its plan''s.';


-- schemas/05_people/orgs.sql

-- Orgs: create, show, list, delete.

create function tollgate.org_shown(org tollgate.orgs) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', org.id,
    'name', org.name,
    'plan', org.plan_id,
    'status', org.status,
    'markup', trim_scale(org.markup_ppm / 1000000.0),
    'byok_fee_nanos', org.byok_fee_nanos,
    'limits', tollgate.limits_shown(coalesce(org.limits_set, org.limits)),
    'max_concurrent_requests', org.max_concurrent_requests,
    'open_requests', org.open_requests,
    'allowed_models', to_jsonb(org.allowed_models),
    'default_model', org.default_model,
    'cache', coalesce(org.cache, false),
    'paid_calls', case when org.paid_suspended_at is null then 'active' else 'suspended' end,
    'paid_suspended_at', tollgate.utc(org.paid_suspended_at),
    'paid_suspended_reason', org.paid_suspended_reason,
    'credits_nanos', org.balance_nanos,
    'held_nanos', org.held_nanos,
    'available_nanos', org.balance_nanos - org.held_nanos,
    'users', (select count(*) from tollgate.users u where u.org_id = org.id and u.deleted_at is null),
    'created_at', tollgate.utc(org.created_at),
    'updated_at', tollgate.utc(org.updated_at)
  )
$$;

comment on function tollgate.org_shown(tollgate.orgs) is 'An org as operators see it.';


create function tollgate.org_of(subject jsonb) returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  org_id text := subject ->> 'org_id';
begin
  if subject ->> 'user_id' is not null then
    select u.org_id into org_id from tollgate.users u where u.id = subject ->> 'user_id' and u.deleted_at is null;
    if not found then
      perform tollgate.refuse_missing('user', subject ->> 'user_id');
    end if;
  end if;
  return org_id;
end
$$;

comment on function tollgate.org_of(jsonb) is 'The org that `subject` names by org_id, or by the user_id of one of its users. Refuses: not_found (user).';


create function tollgate.add_org(actor tollgate.caller, org jsonb) returns tollgate.orgs
language plpgsql
set search_path = ''
as $$
declare
  plan_id text := coalesce(org ->> 'plan', 'free');
  made tollgate.orgs;
begin
  perform from tollgate.plans p where p.id = plan_id for key share;
  if not found then
    perform tollgate.refuse_missing('plan', plan_id);
  end if;
  insert into tollgate.orgs (name, plan_id, markup_ppm)
  values (org ->> 'name', plan_id, (org ->> 'markup_ppm')::integer)
  returning * into made;
  perform tollgate.record(actor, 'org.created', made.id, made.id, org);
  return made;
end
$$;

comment on function tollgate.add_org(tollgate.caller, jsonb) is
  'Inserts an org and its audit event. `org` holds name, plan (free without it) and markup_ppm (that of the plan without it). Refuses: not_found (plan). Locks the plan against deletion.';


create function tollgate.others_named(org tollgate.orgs) returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(o.id order by o.id), '[]')
  from (
    select n.id from tollgate.orgs n where lower(n.name) = lower(org.name) and n.id <> org.id order by n.id limit 10
  ) o
$$;

comment on function tollgate.others_named(tollgate.orgs) is
  'The ids of other orgs with the name of this one, case-insensitively, at most 10.';


create function public.tollgate_create_org(caller jsonb, org jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  made constant tollgate.orgs := tollgate.add_org(actor, org);
begin
  return jsonb_build_object('caller', tollgate.identity(actor), 'same_name', tollgate.others_named(made))
    || tollgate.org_shown(made);
end
$$;

comment on function public.tollgate_create_org(jsonb, jsonb) is
  'Creates an org, and names the others of the same name. For the console and admins. Refuses: as recognise(), not_found (plan). Locks the plan against deletion.';

select tollgate.expose('public.tollgate_create_org(jsonb, jsonb)');


create function public.tollgate_delete_org(caller jsonb, org_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  org tollgate.orgs;
  user_count bigint;
  open_holds bigint;
begin
  perform tollgate.lock_people();
  select o.* into org from tollgate.orgs o where o.id = tollgate_delete_org.org_id for update;
  if not found then
    perform tollgate.refuse_missing('org', org_id);
  end if;

  select count(*) into user_count from tollgate.users u where u.org_id = org.id and u.deleted_at is null;
  select count(*) into open_holds
  from tollgate.holds h
  join tollgate.requests r on r.id = h.request_id
  where r.org_id = org.id;
  if org.balance_nanos <> 0 or org.held_nanos <> 0 or open_holds > 0 or user_count > 0 then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', 'not_empty',
      'org_id', org.id,
      'balance_nanos', org.balance_nanos,
      'held_nanos', org.held_nanos,
      'open_holds', open_holds,
      'users', user_count
    ));
  end if;

  delete from tollgate.api_keys k where k.org_id = org.id; -- keys of deleted users, all revoked
  delete from tollgate.users u where u.org_id = org.id;
  delete from tollgate.orgs o where o.id = org.id;
  perform tollgate.record(actor, 'org.deleted', org.id, org.id,
    jsonb_build_object('name', org.name, 'plan', org.plan_id));
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', org.id, 'deleted', true);
end
$$;

comment on function public.tollgate_delete_org(jsonb, text) is
  'Deletes an org. Its requests, transfers and audit events stay; its revoked keys are deleted. For the console and admins. Refuses: as recognise(), not_found, conflict while it has a balance (credits or debt), open holds or users. Locks the org for update, so a grant or an admission at the same moment either comes first and is seen, or finds no org.';

select tollgate.expose('public.tollgate_delete_org(jsonb, text)');


create function public.tollgate_org(caller jsonb, org_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  org tollgate.orgs;
begin
  select o.* into org from tollgate.orgs o where o.id = tollgate_org.org_id;
  if not found then
    perform tollgate.refuse_missing('org', org_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.org_shown(org);
end
$$;

comment on function public.tollgate_org(jsonb, text) is
  'One org. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_org(jsonb, text)');


create function public.tollgate_orgs(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.orgs',
    'tollgate.org_shown',
    $where$
      ($1 ->> 'q' is null or position(lower($1 ->> 'q') in lower(e.name)) > 0 or e.id = $1 ->> 'q')
      and ($1 ->> 'plan' is null or e.plan_id = $1 ->> 'plan')
      and ($1 ->> 'status' is null or e.status = $1 ->> 'status')
    $where$,
    '{"created_at": "e.created_at", "name": "lower(e.name)", "credits": "e.balance_nanos"}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_orgs(jsonb, jsonb, integer) is
  'Orgs by pages. `filters`: q (part of the name, or the id), plan, status, sort (created_at, name, credits), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_orgs(jsonb, jsonb, integer)');


-- schemas/05_people/plans.sql

-- Plans.

create function tollgate.plan_shown(plan tollgate.plans) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', plan.id,
    'name', plan.name,
    'description', plan.description,
    'markup', trim_scale(plan.markup_ppm / 1000000.0),
    'byok_fee_nanos', plan.byok_fee_nanos,
    'limits', jsonb_build_object(
      'requests_per_minute', plan.requests_per_minute,
      'requests_per_hour', plan.requests_per_hour,
      'requests_per_day', plan.requests_per_day,
      'tokens_per_minute', plan.tokens_per_minute,
      'tokens_per_hour', plan.tokens_per_hour,
      'tokens_per_day', plan.tokens_per_day
    ),
    'max_concurrent_requests', plan.max_concurrent_requests,
    'orgs', (select count(*) from tollgate.orgs o where o.plan_id = plan.id),
    'created_at', tollgate.utc(plan.created_at),
    'updated_at', tollgate.utc(plan.updated_at)
  )
$$;

comment on function tollgate.plan_shown(tollgate.plans) is 'A plan as operators see it. `orgs` counts those that are on it.';


create function tollgate.plan_with(plan tollgate.plans, changes jsonb) returns tollgate.plans
language plpgsql
immutable
set search_path = ''
as $$
declare
  limits jsonb := case jsonb_typeof(changes -> 'limits') when 'object' then changes -> 'limits' else '{}' end;
  changed tollgate.plans := jsonb_populate_record(plan, limits);
begin
  changed.name := coalesce(changes ->> 'name', plan.name);
  changed.description := coalesce(changes ->> 'description', plan.description, '');
  if changes ? 'markup_ppm' then
    changed.markup_ppm := (changes ->> 'markup_ppm')::integer;
  end if;
  if changes ? 'byok_fee_nanos' then
    changed.byok_fee_nanos := (changes ->> 'byok_fee_nanos')::bigint;
  end if;
  if changes ? 'max_concurrent_requests' then
    changed.max_concurrent_requests := (changes ->> 'max_concurrent_requests')::bigint;
  end if;
  return changed;
end
$$;

comment on function tollgate.plan_with(tollgate.plans, jsonb) is
  'The plan after a change. It changes only the limits that it names; null is no limit.';


create function public.tollgate_create_plan(caller jsonb, plan jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  made tollgate.plans;
begin
  made.id := plan ->> 'id';
  made := tollgate.plan_with(made, plan);
  insert into tollgate.plans (
    id, name, description, markup_ppm, byok_fee_nanos, max_concurrent_requests,
    requests_per_minute, requests_per_hour, requests_per_day,
    tokens_per_minute, tokens_per_hour, tokens_per_day
  ) values (
    made.id, made.name, made.description, made.markup_ppm, made.byok_fee_nanos, made.max_concurrent_requests,
    made.requests_per_minute, made.requests_per_hour, made.requests_per_day,
    made.tokens_per_minute, made.tokens_per_hour, made.tokens_per_day
  )
  on conflict (id) do nothing
  returning * into made;
  if not found then
    perform tollgate.refuse(409, 'conflict',
      jsonb_build_object('reason', 'id_taken', 'param', 'id', 'id', plan ->> 'id'));
  end if;
  perform tollgate.record(actor, 'plan.created', null, made.id, plan - 'id');
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.plan_shown(made);
end
$$;

comment on function public.tollgate_create_plan(jsonb, jsonb) is
  'Creates a plan. `plan` holds id, name and perhaps description, markup_ppm, byok_fee_nanos, limits, max_concurrent_requests. For the console and admins. Refuses: as recognise(), conflict (the id is taken). Locks nothing that exists.';

select tollgate.expose('public.tollgate_create_plan(jsonb, jsonb)');


create function public.tollgate_update_plan(caller jsonb, plan_id text, changes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  was tollgate.plans;
  plan tollgate.plans;
  details jsonb;
  followers text[];
begin
  perform tollgate.lock_people();
  select p.* into was from tollgate.plans p where p.id = tollgate_update_plan.plan_id;
  if not found then
    perform tollgate.refuse_missing('plan', plan_id);
  end if;
  plan := tollgate.plan_with(was, changes);
  details := tollgate.what_changed(to_jsonb(was), to_jsonb(plan));
  if details <> '{}' then
    followers := array(
      select o.id from tollgate.orgs o
      where o.plan_id = was.id and not o.limits_set is null
      order by o.id
      for no key update
    );
    update tollgate.plans p set
      name = plan.name,
      description = plan.description,
      markup_ppm = plan.markup_ppm,
      byok_fee_nanos = plan.byok_fee_nanos,
      requests_per_minute = plan.requests_per_minute,
      requests_per_hour = plan.requests_per_hour,
      requests_per_day = plan.requests_per_day,
      tokens_per_minute = plan.tokens_per_minute,
      tokens_per_hour = plan.tokens_per_hour,
      tokens_per_day = plan.tokens_per_day,
      max_concurrent_requests = plan.max_concurrent_requests,
      updated_at = now()
    where p.id = was.id
    returning * into plan;
    update tollgate.orgs o set limits = tollgate.in_force(o.limits_set, plan)
    where o.id = any (followers);
    perform tollgate.record(actor, 'plan.updated', null, plan.id, details);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.plan_shown(plan);
end
$$;

comment on function public.tollgate_update_plan(jsonb, text, jsonb) is
  'Changes a plan: name, description, markup_ppm (null is the setting MARKUP), byok_fee_nanos (null is the setting BYOK_FEE), limits (those it names; null is no limit), max_concurrent_requests (null is no bound). It applies from the next admission of each org on the plan. Repeating a change changes and records nothing. For the console and admins. Refuses: as recognise(), not_found. Locks the orgs on the plan that set limits of their own, in id order, then the plan.';

select tollgate.expose('public.tollgate_update_plan(jsonb, text, jsonb)');


create function public.tollgate_delete_plan(caller jsonb, plan_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  plan tollgate.plans;
  users_of_it bigint;
begin
  perform tollgate.lock_people();
  select p.* into plan from tollgate.plans p where p.id = tollgate_delete_plan.plan_id for update;
  if not found then
    perform tollgate.refuse_missing('plan', plan_id);
  end if;
  select count(*) into users_of_it from tollgate.orgs o where o.plan_id = plan.id;
  if users_of_it > 0 or plan.id in ('free', 'pro', 'enterprise') then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', case when users_of_it > 0 then 'in_use' else 'built_in' end,
      'plan', plan.id,
      'orgs', users_of_it
    ));
  end if;
  delete from tollgate.plans p where p.id = plan.id;
  perform tollgate.record(actor, 'plan.deleted', null, plan.id, to_jsonb(plan) - 'id');
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', plan.id, 'deleted', true);
end
$$;

comment on function public.tollgate_delete_plan(jsonb, text) is
  'Deletes a plan that no org is on. For the console and admins. Refuses: as recognise(), not_found, conflict while orgs are on it, and for the built-in free, pro and enterprise. Locks the plan.';

select tollgate.expose('public.tollgate_delete_plan(jsonb, text)');


create function public.tollgate_plan(caller jsonb, plan_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  plan tollgate.plans;
begin
  select p.* into plan from tollgate.plans p where p.id = tollgate_plan.plan_id;
  if not found then
    perform tollgate.refuse_missing('plan', plan_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.plan_shown(plan);
end
$$;

comment on function public.tollgate_plan(jsonb, text) is
  'One plan. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_plan(jsonb, text)');


create function public.tollgate_plans(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.plans',
    'tollgate.plan_shown',
    $where$
      $1 ->> 'q' is null or position(lower($1 ->> 'q') in e.id) > 0
        or position(lower($1 ->> 'q') in lower(e.name)) > 0
    $where$,
    '{"id": "e.id", "name": "lower(e.name)", "created_at": "e.created_at"}',
    coalesce(filters ->> 'sort', 'id:asc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_plans(jsonb, jsonb, integer) is
  'Plans by pages. `filters`: q (part of the id or name), sort (id, name, created_at), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_plans(jsonb, jsonb, integer)');


-- schemas/05_people/user_limits.sql

-- The limits of a user: its own, and its role's. They bound all keys of the user together.

create function tollgate.counted_so_far(key_ids text[]) returns tollgate.counters
language plpgsql
stable
set search_path = ''
as $$
declare
  counters tollgate.counters;
  running record;
begin
  for running in
    select tollgate.ms_of(r.created_at) as at_ms, r.reserved_tokens as tokens
    from tollgate.holds h join tollgate.requests r on r.id = h.request_id
    where r.key_id = any (key_ids)
    order by r.created_at
  loop
    counters := tollgate.take(counters, running.at_ms, 1, running.tokens);
  end loop;
  return counters;
end
$$;

comment on function tollgate.counted_so_far(text[]) is
  'Windows with the open requests of some keys, for when their counting begins. Expects the org to be locked.';


create function tollgate.user_limits_in_force() returns trigger
language plpgsql
set search_path = ''
as $$
declare
  by_role tollgate.limits := (select r.limits from tollgate.role_limits r where r.role = new.role);
  limits tollgate.limits := row(
    coalesce((new.limits_set).requests_per_minute, by_role.requests_per_minute),
    coalesce((new.limits_set).requests_per_hour, by_role.requests_per_hour),
    coalesce((new.limits_set).requests_per_day, by_role.requests_per_day),
    coalesce((new.limits_set).tokens_per_minute, by_role.tokens_per_minute),
    coalesce((new.limits_set).tokens_per_hour, by_role.tokens_per_hour),
    coalesce((new.limits_set).tokens_per_day, by_role.tokens_per_day)
  );
begin
  if new.limits is null and not limits is null then
    new.counters := tollgate.counted_so_far(array(select k.id from tollgate.api_keys k where k.user_id = new.id));
  end if;
  new.limits := case when not limits is null then limits end;
  return new;
end
$$;

comment on function tollgate.user_limits_in_force() is
  'Trigger: the limits of a user in force follow limits_set and the role. When the first is set, the user''s open requests are counted, because settling will correct them. Expects the org to be locked.';

create trigger users_limits_in_force
before insert or update of role, limits_set on tollgate.users
for each row
execute function tollgate.user_limits_in_force();


create function tollgate.change_role_limits(actor tollgate.caller, role text, limits jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  was tollgate.limits := (select r.limits from tollgate.role_limits r where r.role = change_role_limits.role);
  now_is tollgate.limits := tollgate.limits_with(null, limits);
begin
  if was is not distinct from now_is then
    return;
  end if;
  perform from tollgate.orgs o
  where o.id in (select u.org_id from tollgate.users u where u.role = change_role_limits.role)
  order by o.id
  for no key update;
  if now_is is null then
    delete from tollgate.role_limits r where r.role = change_role_limits.role;
  else
    insert into tollgate.role_limits values (role, now_is)
    on conflict on constraint role_limits_pkey do update set limits = excluded.limits;
  end if;
  update tollgate.users u set limits_set = u.limits_set where u.role = change_role_limits.role;
  perform tollgate.record(actor, 'role.updated', null, role, tollgate.what_changed(
    jsonb_build_object('limits', to_jsonb(was)), jsonb_build_object('limits', to_jsonb(now_is))
  ));
end
$$;

comment on function tollgate.change_role_limits(tollgate.caller, text, jsonb) is
  'Sets the six limits of each user of a role; null removes them. They apply from the next admission on. Repeating a change changes and records nothing. Expects lock_people(). Locks the orgs that have such users, in id order, then the users.';


create function tollgate.change_user_limits(actor tollgate.caller, user_id text, limits jsonb, counters boolean)
returns void
language plpgsql
set search_path = ''
as $$
declare
  was tollgate.users;
  person tollgate.users;
begin
  perform from tollgate.orgs o
  where o.id = (select u.org_id from tollgate.users u where u.id = change_user_limits.user_id)
  for no key update;
  select u.* into was from tollgate.users u
  where u.id = change_user_limits.user_id and u.deleted_at is null
  for no key update;
  if not found then
    perform tollgate.refuse_missing('user', user_id);
  end if;
  person := was;
  person.limits_set := tollgate.limits_with(was.limits_set, limits);
  if was.limits_set is distinct from person.limits_set then
    update tollgate.users u set limits_set = person.limits_set, updated_at = now() where u.id = was.id;
    perform tollgate.record(actor, 'user.updated', was.org_id, was.id,
      tollgate.what_changed(to_jsonb(was), to_jsonb(person)));
  end if;
  if change_user_limits.counters and not was.counters is null then
    update tollgate.users u set counters = null where u.id = was.id;
    perform tollgate.record(actor, 'limits.reset', was.org_id, was.id, '{"counters": true}');
  end if;
end
$$;

comment on function tollgate.change_user_limits(tollgate.caller, text, jsonb, boolean) is
  'Sets the limits of a user that `limits` names; null removes all. With `counters`, the user''s windows start from zero. They apply from the next admission on. Repeating a change changes and records nothing. Expects lock_people(). Refuses: not_found. Locks the org, then the user.';


-- schemas/05_people/users.sql

-- Users.

create function tollgate.has_password(user_id text) returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (select from tollgate.passwords p where p.user_id = has_password.user_id)
$$;

comment on function tollgate.has_password(text) is 'Whether the user can sign in with a password.';


create function tollgate.user_shown(person tollgate.users) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', person.id,
    'org_id', person.org_id,
    'org_name', (select o.name from tollgate.orgs o where o.id = person.org_id),
    'email', person.email,
    'name', person.name,
    'role', person.role,
    'status', person.status,
    'keys', (select count(*) from tollgate.api_keys k where k.user_id = person.id and k.revoked_at is null),
    'has_password', tollgate.has_password(person.id),
    'created_at', tollgate.utc(person.created_at),
    'updated_at', tollgate.utc(person.updated_at)
  )
$$;

comment on function tollgate.user_shown(tollgate.users) is 'A user as operators see it. `keys` counts those that are not revoked.';


create function tollgate.refuse_taken_email(email text) returns void
language sql
set search_path = ''
as $$
  select tollgate.refuse(409, 'conflict', jsonb_build_object('reason', 'email_taken', 'param', 'email', 'email', email))
$$;

comment on function tollgate.refuse_taken_email(text) is 'Refuses an email address that another user has; addresses are case-insensitive.';


create function public.tollgate_create_user(caller jsonb, person jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  org_id text := person ->> 'org_id';
  made tollgate.users;
begin
  if org_id is null then
    org_id := (tollgate.add_org(actor, jsonb_build_object(
      'name', left(coalesce(nullif(person ->> 'name', ''), person ->> 'email'), 200)
    ))).id;
  else
    perform from tollgate.orgs o where o.id = org_id for key share;
    if not found then
      perform tollgate.refuse_missing('org', org_id);
    end if;
  end if;

  begin
    insert into tollgate.users (org_id, email, name, role)
    values (org_id, person ->> 'email', coalesce(person ->> 'name', ''), coalesce(person ->> 'role', 'member'))
    returning * into made;
  exception when unique_violation then
    perform tollgate.refuse_taken_email(person ->> 'email');
  end;
  perform tollgate.record(actor, 'user.created', made.org_id, made.id,
    jsonb_build_object('email', made.email, 'name', made.name, 'role', made.role));
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.user_shown(made);
end
$$;

comment on function public.tollgate_create_user(jsonb, jsonb) is
  'Creates a user in an org or, where none is named, together with a personal org on the plan free. `person` holds email and perhaps org_id, name, role. For the console and admins. Refuses: as recognise(), not_found (org), conflict (the address is taken). Locks the org against deletion.';

select tollgate.expose('public.tollgate_create_user(jsonb, jsonb)');


create function public.tollgate_update_user(caller jsonb, user_id text, changes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  was tollgate.users;
  person tollgate.users;
  details jsonb;
begin
  perform tollgate.lock_people();
  if changes ->> 'org_id' is not null then
    perform from tollgate.orgs o where o.id = changes ->> 'org_id' for key share;
    if not found then
      perform tollgate.refuse_missing('org', changes ->> 'org_id');
    end if;
    -- Requests write all keys of a line, in any order, while they hold the lock of the org.
    perform from tollgate.orgs o
    where o.id in (
      select k.org_id from tollgate.api_keys k
      where k.user_id = tollgate_update_user.user_id and k.line is not null
    )
    for no key update;
  elsif changes ->> 'role' is not null then -- another role can have other limits
    perform from tollgate.orgs o
    where o.id = (select u.org_id from tollgate.users u where u.id = tollgate_update_user.user_id)
    for no key update;
  end if;
  select u.* into was from tollgate.users u
  where u.id = tollgate_update_user.user_id and u.deleted_at is null
  for update;
  if not found then
    perform tollgate.refuse_missing('user', user_id);
  end if;

  person := was;
  person.org_id := coalesce(changes ->> 'org_id', was.org_id);
  person.email := coalesce(changes ->> 'email', was.email);
  person.name := coalesce(changes ->> 'name', was.name);
  person.role := coalesce(changes ->> 'role', was.role);
  person.status := coalesce(changes ->> 'status', was.status);
  details := tollgate.what_changed(to_jsonb(was), to_jsonb(person));
  if details <> '{}' then
    begin
      update tollgate.users u set
        org_id = person.org_id,
        email = person.email,
        name = person.name,
        role = person.role,
        status = person.status,
        updated_at = now()
      where u.id = was.id
      returning * into person;
    exception when unique_violation then
      perform tollgate.refuse_taken_email(person.email);
    end;
    perform tollgate.record(actor, 'user.updated', person.org_id, person.id, details);
    if person.org_id <> was.org_id then -- so that the old org can see it too
      perform tollgate.record(actor, 'user.updated', was.org_id, person.id, details);
    end if;
    if was.role = 'admin' and (person.role, person.status, person.org_id) <> (was.role, was.status, was.org_id) then
      perform tollgate.check_admin_remains();
    end if;
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.user_shown(person);
end
$$;

comment on function public.tollgate_update_user(jsonb, text, jsonb) is
  'Changes a user: email, name, role, status, org_id. Disabling stops the user''s keys at once. A user who moves to another org takes their keys along, with limits, budgets and counts: the new org pays from the next admission on. Open requests are charged to the org that holds credits for them, and past requests stay with the old org. A request that is being admitted during the move may be refused as unknown; sent again, it is admitted. Repeating a change changes and records nothing. For the console and admins. Refuses: as recognise(), not_found (user, org), conflict (the address is taken, or no working admin would be left). Locks the new org against deletion, the old org if the user has rotated keys, then the user and, for a move, their keys.';

select tollgate.expose('public.tollgate_update_user(jsonb, text, jsonb)');


create function public.tollgate_delete_user(caller jsonb, user_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  person tollgate.users;
  key tollgate.api_keys;
  revoked bigint := 0;
begin
  perform tollgate.lock_people();
  perform from tollgate.orgs o
  where o.id = (select u.org_id from tollgate.users u where u.id = tollgate_delete_user.user_id)
  for no key update;
  select u.* into person from tollgate.users u
  where u.id = tollgate_delete_user.user_id and u.deleted_at is null
  for update;
  if not found then
    perform tollgate.refuse_missing('user', user_id);
  end if;

  for key in
    update tollgate.api_keys k set revoked_at = now(), updated_at = now()
    where k.user_id = person.id and k.revoked_at is null
    returning k.*
  loop
    revoked := revoked + 1;
    perform tollgate.record(actor, 'key.revoked', key.org_id, key.id, jsonb_build_object(
      'was', case when key.disabled_at is null then 'active' else 'disabled' end,
      'because', 'user.deleted'
    ));
  end loop;
  update tollgate.users u set
    email = u.id || '@deleted.invalid',
    name = '',
    role = 'member',
    status = 'disabled',
    deleted_at = now(),
    updated_at = now()
  where u.id = person.id;
  delete from tollgate.passwords p where p.user_id = person.id;
  perform tollgate.record(actor, 'user.deleted', person.org_id, person.id, jsonb_build_object(
    'email', person.email, 'name', person.name, 'role', person.role, 'keys_revoked', revoked
  ));
  if person.role = 'admin' then
    perform tollgate.check_admin_remains();
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'id', person.id, 'deleted', true, 'keys_revoked', revoked
  );
end
$$;

comment on function public.tollgate_delete_user(jsonb, text) is
  'Deletes a user: revokes all keys, frees the address, and keeps a row without a name for what refers to it. Credits belong to the org and stay there. For the console and admins. Refuses: as recognise(), not_found, conflict (no working admin would be left). Locks the org, then the user and their keys.';

select tollgate.expose('public.tollgate_delete_user(jsonb, text)');


create function public.tollgate_user(caller jsonb, user_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  person tollgate.users;
begin
  select u.* into person from tollgate.users u where u.id = tollgate_user.user_id and u.deleted_at is null;
  if not found then
    perform tollgate.refuse_missing('user', user_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.user_shown(person);
end
$$;

comment on function public.tollgate_user(jsonb, text) is
  'One user. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_user(jsonb, text)');


create function public.tollgate_users(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.users',
    'tollgate.user_shown',
    $where$
      e.deleted_at is null
      and ($1 ->> 'q' is null or e.id = $1 ->> 'q'
        or position(lower($1 ->> 'q') in lower(e.email)) > 0 or position(lower($1 ->> 'q') in lower(e.name)) > 0)
      and ($1 ->> 'org_id' is null or e.org_id = $1 ->> 'org_id')
      and ($1 ->> 'role' is null or e.role = $1 ->> 'role')
      and ($1 ->> 'status' is null or e.status = $1 ->> 'status')
    $where$,
    '{"created_at": "e.created_at", "email": "lower(e.email)", "name": "lower(e.name)"}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_users(jsonb, jsonb, integer) is
  'Users by pages. `filters`: q (part of the address or name, or the id), org_id, role, status, sort (created_at, email, name), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_users(jsonb, jsonb, integer)');


-- schemas/06_keys/change.sql

-- Changes, disables, revokes and rotates keys.

create function tollgate.check_open(key tollgate.api_keys) returns void
language plpgsql
set search_path = ''
as $$
begin
  if key.revoked_at is not null then
    perform tollgate.refuse(409, 'key_is_final', jsonb_build_object('key_id', key.id, 'state', 'revoked'));
  elsif key.rotated_to is not null then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', 'rotated', 'key_id', key.id, 'rotated_to', key.rotated_to
    ));
  end if;
end
$$;

comment on function tollgate.check_open(tollgate.api_keys) is
  'Refuses a change of a key that was revoked (key_is_final) or rotated (conflict).';


create function tollgate.check_own_key(actor tollgate.caller) returns void
language plpgsql
set search_path = ''
as $$
begin
  if actor.kind = 'key' and tollgate.operates(actor) then
    perform tollgate.check_admin_remains();
  end if;
end
$$;

comment on function tollgate.check_own_key(tollgate.caller) is
  'Refuses a change by which an operator''s key ends or narrows itself, if no working admin would be left. Called after the change. A key that changes another works itself, so it never refuses that.';


create function public.tollgate_change_key(caller jsonb, key_id text, changes jsonb, scope text default 'keys')
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => false);
  before tollgate.api_keys;
  after tollgate.api_keys;
  ids text[];
  changed jsonb;
begin
  if tollgate.operates(actor) then
    perform tollgate.lock_people();
  end if;
  before := tollgate.lock_key(actor, key_id);
  ids := tollgate.line_of(before);
  perform tollgate.check_open(before);
  after := tollgate.with_terms(before, changes);
  perform tollgate.check_terms(after, before);
  perform tollgate.check_grant(actor, after, before);

  changed := tollgate.what_changed(tollgate.key_terms(before), tollgate.key_terms(after));
  if changed <> '{}' then
    if tollgate.counted_terms(before) = '{}' and tollgate.counted_terms(after) <> '{}' then
      after := tollgate.begin_counting(after, ids);
    elsif after.budget_reset is distinct from before.budget_reset then
      after := tollgate.begin_budget(after, ids);
    end if;
    if after.quota_reset_day <> before.quota_reset_day then -- what is used stays used until the next reset
      after.tokens_used_in_month := (tollgate.in_this_period(before, clock_timestamp())).tokens_used_in_month;
      after.month_of_tokens := tollgate.quota_month(after.quota_reset_day, clock_timestamp());
    end if;
    update tollgate.api_keys k set
      name = after.name,
      scopes = after.scopes,
      allowed_models = after.allowed_models,
      ip_allowlist = after.ip_allowlist,
      expires_at = case k.id when after.id then after.expires_at else least(k.expires_at, after.expires_at) end,
      budget_nanos = after.budget_nanos,
      budget_reset = after.budget_reset,
      budget_period = after.budget_period,
      budget_spent_nanos = after.budget_spent_nanos,
      tokens_per_month = after.tokens_per_month,
      tokens_in_all = after.tokens_in_all,
      quota_reset_day = after.quota_reset_day,
      month_of_tokens = after.month_of_tokens,
      tokens_used_in_month = after.tokens_used_in_month,
      tokens_used_in_all = after.tokens_used_in_all,
      limits = after.limits,
      counters = after.counters,
      cache = after.cache,
      metadata = after.metadata,
      updated_at = now()
    where k.id = any (ids);
    if after.max_concurrent_requests is distinct from before.max_concurrent_requests then
      perform tollgate.bound_line(after);
    end if;
    perform tollgate.record(actor, 'key.updated', after.org_id, after.id, tollgate.audited(changed));
    perform tollgate.check_own_key(actor);
    select k.* into after from tollgate.api_keys k where k.id = after.id;
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'changed', changed <> '{}', 'key', tollgate.key_shown(after)
  );
end
$$;

comment on function public.tollgate_change_key(jsonb, text, jsonb, text) is
  'Changes the terms of a key, and of the keys in grace that were rotated to it: any key for operators, one''s own otherwise. It never grants more than its changer has, see check_grant(). What is left out stays, null clears. A budget begins anew when it is first set or its reset changes. Changing nothing records nothing. Refuses: as recognise(), check_open(), with_terms(), check_terms() and check_own_key(), not_found, permission_denied. Locks the advisory lock (for operators), the org, then the keys.';

select tollgate.expose('public.tollgate_change_key(jsonb, text, jsonb, text)');


create function public.tollgate_set_key_state(caller jsonb, key_id text, state text, scope text default 'keys')
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => false);
  key tollgate.api_keys;
  one tollgate.api_keys;
  was text;
  before text;
begin
  if state is null or state not in ('active', 'disabled', 'revoked') then
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'state', 'state', state));
  end if;
  if tollgate.operates(actor) then
    perform tollgate.lock_people();
  end if;
  key := tollgate.lock_key(actor, key_id);
  was := tollgate.key_state(key);
  if was = 'revoked' and state <> 'revoked' then
    perform tollgate.refuse(409, 'key_is_final', jsonb_build_object('key_id', key.id, 'state', was));
  end if;

  for one in
    select k.* from tollgate.api_keys k
    where k.id = key.id or (
      k.id = any (tollgate.line_of(key)) and key.rotated_to is null and k.revoked_at is null and k.expires_at > now()
    )
    order by k.id desc
    for no key update
  loop
    before := tollgate.key_state(one);
    continue when before = state;
    update tollgate.api_keys k set
      revoked_at = case when state = 'revoked' then now() end,
      disabled_at = case state when 'active' then null when 'disabled' then now() else k.disabled_at end,
      updated_at = now()
    where k.id = one.id;
    perform tollgate.record(
      actor,
      case state when 'active' then 'key.enabled' else 'key.' || state end,
      one.org_id,
      one.id,
      jsonb_build_object('was', before)
    );
  end loop;
  perform tollgate.check_own_key(actor);
  select k.* into key from tollgate.api_keys k where k.id = key.id;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'id', key.id, 'state', state, 'was', was, 'key', tollgate.key_shown(key)
  );
end
$$;

comment on function public.tollgate_set_key_state(jsonb, text, text, text) is
  'Disables, enables or revokes a key: any key for operators, one''s own otherwise. A change of the newest key of a line also changes the keys in grace that were rotated to it; one of those can be revoked or disabled alone. Revoked is final. Repeating a state changes nothing and records nothing. A key may end itself, but not the last of an operator. Refuses: as recognise() and check_own_key(), invalid_request, not_found, key_is_final. Locks the advisory lock (for operators), the org, then the keys.';

select tollgate.expose('public.tollgate_set_key_state(jsonb, text, text, text)');


create function public.tollgate_rotate_key(
  caller jsonb,
  key_id text,
  grace_hours integer,
  imprints jsonb,
  scope text default 'keys'
) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => false);
  key tollgate.api_keys := tollgate.lock_key(actor, key_id);
  successor tollgate.api_keys;
begin
  perform tollgate.check_open(key);
  if key.expires_at <= now() then
    perform tollgate.refuse(409, 'conflict',
      jsonb_build_object('reason', 'expired', 'key_id', key.id, 'expired_at', tollgate.utc(key.expires_at)));
  elsif cardinality(tollgate.line_of(key)) >= 10 then
    perform tollgate.refuse(409, 'conflict',
      jsonb_build_object(
        'reason', 'too_many_secrets', 'key_id', key.id, 'secrets', cardinality(tollgate.line_of(key))
      ));
  end if;
  if actor.key_id is distinct from key.id then
    perform tollgate.check_grant(actor, key);
  end if;

  successor := tollgate.with_imprint(key, imprints -> key.environment);
  if successor.environment <> key.environment then
    perform tollgate.refuse_field('environment', 'is not that of the key');
  end if;
  successor.id := tollgate.new_id('key');
  successor.line := coalesce(key.line, key.id);
  successor.rotated_from := key.id;
  perform tollgate.insert_key(actor, successor);
  update tollgate.api_keys k set
    line = successor.line,
    rotated_to = successor.id,
    expires_at = least(k.expires_at, now() + make_interval(hours => coalesce(grace_hours, 0))),
    updated_at = now()
  where k.id = key.id
  returning k.expires_at into key.expires_at;
  if coalesce(grace_hours, 0) = 0 then -- the secrets of earlier rotations end too
    update tollgate.api_keys k set expires_at = now(), updated_at = now()
    where k.line = successor.line and k.id <> successor.id and k.revoked_at is null
      and coalesce(k.expires_at, 'infinity') > now();
  end if;
  perform tollgate.record(actor, 'key.rotated', key.org_id, key.id, jsonb_build_object(
    'rotated_to', successor.id, 'grace_hours', grace_hours, 'valid_until', tollgate.utc(key.expires_at)
  ));
  select k.* into successor from tollgate.api_keys k where k.id = successor.id;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'key', tollgate.key_shown(successor),
    'old_valid_until', tollgate.utc(key.expires_at)
  );
end
$$;

comment on function public.tollgate_rotate_key(jsonb, text, integer, jsonb, text) is
  'Gives a key a new secret: a new key takes over its terms and what it has used; the old one is refused after the hours of grace, or at once without any, and then those of earlier rotations are too. Meanwhile both share one budget, one set of quotas and one set of limits. `imprints` holds what is kept of the new secret for each environment; the key''s own is used. Whoever rotates a key learns its secret, so the caller''s key must be one that could have made it, or the key itself. At most ten keys of a line may be open or ended within a day. Refuses: as recognise() and check_open(), not_found, invalid_request, conflict (expired, too many), permission_denied. Locks the org, then the key.';

select tollgate.expose('public.tollgate_rotate_key(jsonb, text, integer, jsonb, text)');


-- schemas/06_keys/create.sql

-- Creates keys.


create function public.tollgate_seed(caller jsonb, org jsonb, owner jsonb, key jsonb, peppers jsonb default null)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  seeded tollgate.api_keys;
  created boolean;
begin
  perform pg_advisory_xact_lock(hashtextextended('tollgate_seed', 0));

  select k.* into seeded from tollgate.api_keys k where k.digest = decode(key ->> 'digest', 'hex');
  created := not found;
  if created then
    if exists (select from tollgate.api_keys) and not exists (
      select from tollgate.api_keys k
      where peppers is null or k.pepper in (select jsonb_array_elements_text(peppers))
    ) then
      perform tollgate.refuse(409, 'conflict', '{"reason": "another_pepper"}');
    end if;
    insert into tollgate.orgs (id, name, plan_id)
    values (org ->> 'id', org ->> 'name', org ->> 'plan_id')
    on conflict (id) do nothing;
    if found then
      perform tollgate.record(actor, 'org.created', org ->> 'id', org ->> 'id', org - 'id');
    end if;

    insert into tollgate.users (id, org_id, email, name, role)
    values (owner ->> 'id', org ->> 'id', owner ->> 'email', owner ->> 'name', owner ->> 'role')
    on conflict (id) do nothing;
    if found then
      perform tollgate.record(actor, 'user.created', org ->> 'id', owner ->> 'id', owner - 'id');
    end if;

    if key ? 'digest' then
      select (tollgate.new_key(u, key)).* into seeded from tollgate.users u where u.id = owner ->> 'id';
      perform tollgate.insert_key(actor, seeded);
    end if;
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'created', created, 'id', seeded.id, 'org_id', seeded.org_id, 'user_id', seeded.user_id
  );
end
$$;

comment on function public.tollgate_seed(jsonb, jsonb, jsonb, jsonb, jsonb) is
  'Creates a key with a known secret, and its org and user where they are missing; without a key, only these. Changes nothing when a key with this secret exists. `peppers` are fingerprints: where there are keys, one of them must be of one of these (null: of any). For the console and admins. Refuses: as recognise() and new_key(), conflict (another pepper). Takes an advisory lock, so that two calls at once create one key.';

select tollgate.expose('public.tollgate_seed(jsonb, jsonb, jsonb, jsonb, jsonb)');


create function tollgate.key_manager(caller jsonb, scope text, touch boolean) returns tollgate.caller
language sql
set search_path = ''
as $$
  select tollgate.recognise(caller, case scope when 'admin' then 'admin' else 'keys' end, touch)
$$;

comment on function tollgate.key_manager(jsonb, text, boolean) is
  'The caller of a function that manages keys: an operator when `scope` is admin, otherwise anyone whose key has the scope keys. Refuses: as recognise().';


create function tollgate.lock_key(actor tollgate.caller, key_id text) returns tollgate.api_keys
language plpgsql
set search_path = ''
as $$
declare
  key tollgate.api_keys;
begin
  perform from tollgate.orgs o
  where o.id = (
    select k.org_id from tollgate.api_keys k
    where k.id = lock_key.key_id and (tollgate.operates(actor) or k.user_id = actor.user_id)
  )
  for no key update;
  select k.* into key from tollgate.api_keys k
  where k.id = lock_key.key_id and (tollgate.operates(actor) or k.user_id = actor.user_id)
  for no key update;
  if not found then
    perform tollgate.refuse_missing('key', key_id);
  end if;
  return key;
end
$$;

comment on function tollgate.lock_key(tollgate.caller, text) is
  'A key that the caller may manage, as it stands under the lock: any for operators, one''s own otherwise. The org is locked too, so that no request of the key''s line is admitted or settled meanwhile. Refuses: not_found. Locks the org, then the key.';


create function tollgate.with_imprint(key tollgate.api_keys, given jsonb) returns tollgate.api_keys
language sql
stable
set search_path = ''
as $$
  select tollgate.with_fields(
    key,
    given || jsonb_build_object('digest', '\x' || (given ->> 'digest')),
    array['digest', 'pepper', 'prefix', 'last_four', 'environment']
  )
$$;

comment on function tollgate.with_imprint(tollgate.api_keys, jsonb) is
  'The key with what is kept of a new secret: digest (in hex), pepper, prefix, last_four, environment. Refuses: as with_fields().';


create function tollgate.new_key(owner tollgate.users, given jsonb) returns tollgate.api_keys
language plpgsql
set search_path = ''
as $$
declare
  imprint constant text[] := array['digest', 'pepper', 'prefix', 'last_four', 'environment'];
  made tollgate.api_keys;
begin
  made.id := tollgate.new_id('key');
  made.org_id := owner.org_id;
  made.user_id := owner.id;
  made := tollgate.with_imprint(made, (
    select jsonb_object_agg(field, given -> field) from unnest(imprint) field
  ));
  return tollgate.with_terms(made, '{"name": null, "scopes": null}' || (given - imprint));
end
$$;

comment on function tollgate.new_key(tollgate.users, jsonb) is
  'A key that is not inserted yet. `given` holds digest, pepper, prefix, last_four, environment, name, scopes and perhaps other terms. Refuses: as with_terms().';


create function tollgate.insert_key(actor tollgate.caller, key tollgate.api_keys) returns void
language plpgsql
set search_path = ''
as $$
begin
  insert into tollgate.api_keys (
    id, org_id, user_id, name, digest, pepper, prefix, last_four, environment, scopes, ip_allowlist, expires_at,
    disabled_at, limits, counters, allowed_models, budget_nanos, budget_reset, budget_period, budget_spent_nanos,
    tokens_per_month, tokens_in_all, month_of_tokens, tokens_used_in_month, tokens_used_in_all, metadata,
    rotated_from, line, max_concurrent_requests, open_requests, quota_reset_day, cache
  ) values (
    key.id, key.org_id, key.user_id, key.name, key.digest, key.pepper, key.prefix, key.last_four, key.environment,
    key.scopes, key.ip_allowlist, key.expires_at,
    key.disabled_at, key.limits, key.counters, key.allowed_models, key.budget_nanos, key.budget_reset,
    key.budget_period, coalesce(key.budget_spent_nanos, 0),
    key.tokens_per_month, key.tokens_in_all, key.month_of_tokens, coalesce(key.tokens_used_in_month, 0),
    coalesce(key.tokens_used_in_all, 0), coalesce(key.metadata, '{}'),
    key.rotated_from, key.line, key.max_concurrent_requests, coalesce(key.open_requests, 0), key.quota_reset_day, key.cache
  );
  perform tollgate.record(actor, 'key.created', key.org_id, key.id,
    tollgate.audited(tollgate.key_terms(key)) || jsonb_build_object(
      'user_id', key.user_id, 'environment', key.environment, 'prefix', key.prefix, 'last_four', key.last_four
    ) || case when key.rotated_from is null then '{}' else jsonb_build_object('rotated_from', key.rotated_from) end);
exception when unique_violation then
  perform tollgate.refuse(409, 'conflict', '{"reason": "digest_taken", "kind": "key", "param": "digest"}');
end
$$;

comment on function tollgate.insert_key(tollgate.caller, tollgate.api_keys) is
  'Inserts a key and its audit event; no other function inserts keys. Refuses: conflict, when a key with this secret exists.';


create function public.tollgate_create_key(caller jsonb, user_id text, key jsonb, scope text default 'keys')
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => true);
  owner tollgate.users;
  made tollgate.api_keys;
begin
  select u.* into owner from tollgate.users u
  where u.id = coalesce(tollgate_create_key.user_id, actor.user_id) and u.deleted_at is null
    and (tollgate.operates(actor) or u.id = actor.user_id)
  for key share; -- nobody moves to another org meanwhile
  if not found then
    perform tollgate.refuse_missing('user', user_id);
  end if;

  made := tollgate.new_key(owner, key);
  perform tollgate.check_terms(made);
  perform tollgate.check_grant(actor, made);
  perform tollgate.insert_key(actor, made);
  select k.* into made from tollgate.api_keys k where k.id = made.id;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'id', made.id,
    'org_id', made.org_id,
    'user_id', made.user_id,
    'key', tollgate.key_shown(made)
  );
end
$$;

comment on function public.tollgate_create_key(jsonb, text, jsonb, text) is
  'Makes a key for a user: any user for operators, oneself otherwise, which is also what null means. It never grants more than its maker has, see check_grant(). `key` is as for new_key(). Refuses: as recognise(), new_key() and check_terms(), not_found, permission_denied, conflict. Locks the user against moving.';

select tollgate.expose('public.tollgate_create_key(jsonb, text, jsonb, text)');


-- schemas/06_keys/limits.sql

-- Limits of an org, a user, a key or a role, as an operator sees and sets them.

create function tollgate.limits_in_effect(subject jsonb) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  none constant tollgate.limits := null;
  key tollgate.api_keys;
  person tollgate.users;
  org tollgate.orgs;
  plan jsonb;
  by_role jsonb;
begin
  if subject ->> 'key_id' is not null then
    select k.* into key from tollgate.api_keys k where k.id = subject ->> 'key_id';
    if not found then
      perform tollgate.refuse_missing('key', subject ->> 'key_id');
    end if;
  end if;
  select u.* into person from tollgate.users u
  where u.id = coalesce(key.user_id, subject ->> 'user_id') and (u.deleted_at is null or key.id is not null);
  if not found and subject ->> 'user_id' is not null then
    perform tollgate.refuse_missing('user', subject ->> 'user_id');
  end if;
  select o.* into org from tollgate.orgs o where o.id = coalesce(person.org_id, subject ->> 'org_id');
  if not found and subject ->> 'role' is null then
    perform tollgate.refuse_missing('org', subject ->> 'org_id');
  end if;
  plan := (select to_jsonb(p) from tollgate.plans p where p.id = org.plan_id);
  by_role := (
    select to_jsonb(r.limits) from tollgate.role_limits r where r.role = coalesce(person.role, subject ->> 'role')
  );

  return jsonb_build_object(
    'org_id', org.id,
    'user_id', person.id,
    'key_id', key.id,
    'role', subject ->> 'role',
    'plan', org.plan_id,
    'limits', tollgate.limits_shown(case
      when key.id is not null then key.limits
      when person.id is not null then person.limits_set
      when org.id is not null then coalesce(org.limits_set, org.limits)
      else (select r.limits from tollgate.role_limits r where r.role = subject ->> 'role')
    end),
    'in_effect', (
      select jsonb_object_agg(name, coalesce((
        select jsonb_build_object('limit', l.most, 'set_by', l.set_by)
        from (values
          (1, 'key', (to_jsonb(key.limits) ->> name)::bigint),
          (2, 'user', (to_jsonb(person.limits_set) ->> name)::bigint),
          (3, 'role', case when to_jsonb(person.limits_set) ->> name is null then (by_role ->> name)::bigint end),
          (4, 'org', (to_jsonb(coalesce(org.limits_set, org.limits)) ->> name)::bigint),
          (5, 'plan', case when to_jsonb(org.limits_set) ->> name is null then (plan ->> name)::bigint end)
        ) l (place, set_by, most)
        where l.most is not null
        order by l.most, l.place
        limit 1
      ), '{"limit": null, "set_by": null}'))
      from jsonb_object_keys(tollgate.limits_shown(none)) name
    )
  );
end
$$;

comment on function tollgate.limits_in_effect(jsonb) is
  'The limits set for an org, a user, a key or a role; and for each of the six the lowest that applies to it, and what set it: the key, its user, the user''s role, the org or its plan. Refuses: not_found.';


create function tollgate.change_limits(
  actor tollgate.caller,
  caller jsonb,
  subject jsonb,
  limits jsonb,
  counters boolean default false
) returns void
language plpgsql
set search_path = ''
as $$
declare
  changes constant jsonb := jsonb_build_object('limits', limits);
  reset text;
begin
  if subject ->> 'key_id' is not null then
    perform public.tollgate_change_key(caller, subject ->> 'key_id', changes, 'admin');
    update tollgate.api_keys k set counters = null
    where change_limits.counters and k.id = subject ->> 'key_id' and k.counters is not null
    returning k.org_id into reset;
  elsif subject ->> 'org_id' is not null then
    perform tollgate.change_org(actor, subject ->> 'org_id', changes);
    update tollgate.orgs o set counters = null
    where change_limits.counters and o.id = subject ->> 'org_id' and o.counters is not null
    returning o.id into reset;
  else
    perform tollgate.lock_people();
    if subject ->> 'user_id' is not null then
      perform tollgate.change_user_limits(actor, subject ->> 'user_id', limits, counters);
    else
      perform tollgate.change_role_limits(actor, subject ->> 'role', limits);
    end if;
  end if;
  if reset is not null then
    perform tollgate.record(actor, 'limits.reset', reset, coalesce(subject ->> 'key_id', reset), '{"counters": true}');
  end if;
end
$$;

comment on function tollgate.change_limits(tollgate.caller, jsonb, jsonb, jsonb, boolean) is
  'Changes the limits of an org, a user, a key or a role; with `counters`, the windows of an org, a user or a key start from zero. Refuses and locks as change_org(), change_user_limits(), tollgate_change_key() or change_role_limits().';


create function public.tollgate_limits_of(caller jsonb, subject jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.limits_in_effect(subject);
end
$$;

comment on function public.tollgate_limits_of(jsonb, jsonb) is
  'The limits of the subject: an org_id, a user_id, a key_id or a role. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_limits_of(jsonb, jsonb)');


create function public.tollgate_set_limits(caller jsonb, subject jsonb, limits jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
begin
  perform tollgate.change_limits(actor, caller, subject, limits);
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.limits_in_effect(subject);
end
$$;

comment on function public.tollgate_set_limits(jsonb, jsonb, jsonb) is
  'Sets limits of an org (null follows the plan), a user (null follows the role), a key or a role (null is no limit). They apply from the next admission on; those of an org also to what was counted before. For the console and admins. Refuses and locks as recognise() and change_limits().';

select tollgate.expose('public.tollgate_set_limits(jsonb, jsonb, jsonb)');


create function public.tollgate_reset_limits(caller jsonb, subject jsonb, counters boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
begin
  perform tollgate.change_limits(actor, caller, subject, null, counters);
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.limits_in_effect(subject);
end
$$;

comment on function public.tollgate_reset_limits(jsonb, jsonb, boolean) is
  'Removes the limits that were set for an org, a user, a key or a role; with `counters`, its windows start from zero as well. For the console and admins. Refuses and locks as recognise() and change_limits().';

select tollgate.expose('public.tollgate_reset_limits(jsonb, jsonb, boolean)');


-- schemas/06_keys/pages.sql

-- Shows and lists keys and their events.


create function public.tollgate_key(caller jsonb, key_id text, scope text default 'keys') returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => true);
  key tollgate.api_keys;
begin
  select k.* into key from tollgate.api_keys k
  where k.id = tollgate_key.key_id and (tollgate.operates(actor) or k.user_id = actor.user_id);
  if not found then
    perform tollgate.refuse_missing('key', key_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'key', tollgate.key_shown(key));
end
$$;

comment on function public.tollgate_key(jsonb, text, text) is
  'One key: any for operators, one''s own otherwise. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_key(jsonb, text, text)');


create function public.tollgate_keys(caller jsonb, filters jsonb, page_size integer, scope text default 'keys')
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => true);
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.api_keys',
    'tollgate.key_shown',
    $where$
      ($1 ->> 'org_id' is null or e.org_id = $1 ->> 'org_id')
      and ($1 ->> 'user_id' is null or e.user_id = $1 ->> 'user_id')
      and ($1 ->> 'environment' is null or e.environment = $1 ->> 'environment')
      and ($1 ->> 'role' is null or $1 ->> 'role' = (select u.role from tollgate.users u where u.id = e.user_id))
      and ($1 ->> 'status' is null or tollgate.key_status(e) = $1 ->> 'status')
      and ($1 ->> 'q' is null or strpos(lower(e.name), lower($1 ->> 'q')) > 0 or strpos(e.prefix, $1 ->> 'q') > 0)
    $where$,
    jsonb_build_object(
      'created_at', 'e.created_at',
      'name', 'lower(e.name)',
      'last_used_at', $key$coalesce(to_char(e.last_used_at at time zone 'utc', 'YYYYMMDDHH24MISSUS'), '0') collate "C"$key$
    ),
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters || jsonb_build_object('owner_id', case when scope <> 'admin' then coalesce(actor.user_id, '') end),
    page_size,
    within => $where$ $1 ->> 'owner_id' is null or e.user_id = $1 ->> 'owner_id' $where$,
    moving => 'last_used_at'
  );
end
$$;

comment on function public.tollgate_keys(jsonb, jsonb, integer, text) is
  'Keys: one''s own, or with `scope` admin everybody''s. `filters`: org_id, user_id, q (a part of the name or of the prefix), status, environment, role (of the owner), sort (created_at, last_used_at, name), cursor. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_keys(jsonb, jsonb, integer, text)');


create function public.tollgate_key_events(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'keys');
  page constant jsonb := tollgate.page(
    'tollgate.audit_events',
    'tollgate.audit_event_shown',
    $where$
      ($1 ->> 'key_id' is null or e.target_id = $1 ->> 'key_id')
      and ($1 ->> 'action' is null or e.action = $1 ->> 'action')
      and ($1 ->> 'outcome' is null or e.outcome = $1 ->> 'outcome')
      and ($1 ->> 'from' is null or e.occurred_at >= ($1 ->> 'from')::timestamptz)
      and ($1 ->> 'to' is null or e.occurred_at < ($1 ->> 'to')::timestamptz)
    $where$,
    '{"occurred_at": "e.occurred_at"}',
    'occurred_at:desc',
    filters || jsonb_build_object('org_id', coalesce(actor.org_id, '')),
    page_size,
    within => $where$ e.org_id = $1 ->> 'org_id' and e.action like 'key.%' $where$,
    counted => false
  );
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || page || jsonb_build_object('data', (
    select coalesce(jsonb_agg(
      e.value - array['org_id', 'target_id'] || jsonb_build_object('key_id', e.value -> 'target_id')
        || case when u.id is null then '{"ip": null, "user_agent": null}' else '{}'::jsonb end
      order by e.ordinality
    ), '[]')
    from jsonb_array_elements(page -> 'data') with ordinality e
    left join tollgate.users u on u.id = e.value #>> '{actor,user_id}' and u.org_id = actor.org_id
  ));
end
$$;

comment on function public.tollgate_key_events(jsonb, jsonb, integer) is
  'What was done to the keys of the caller''s org, newest first. `filters`: key_id, action, outcome, from, to, cursor. Address and user agent are shown of the org''s own users only. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_key_events(jsonb, jsonb, integer)');


-- schemas/06_keys/quotas.sql

-- When the budget and the monthly quota of a key are reset.

create function tollgate.quota_month(reset_day integer, moment timestamptz) returns date
language plpgsql
immutable
set search_path = ''
as $$
begin
  return date_trunc('month', (moment at time zone 'utc') - make_interval(days => reset_day - 1))::date + reset_day - 1;
end
$$;

comment on function tollgate.quota_month(integer, timestamptz) is
  'The first day, in UTC, of the month that a monthly quota counts in, if it is reset on a day of the month from 1 to 28.';


create function tollgate.in_this_period(key tollgate.api_keys, moment timestamptz) returns tollgate.api_keys
language plpgsql
immutable
set search_path = ''
as $$
declare
  period date := tollgate.budget_period(key.budget_reset, moment);
  month date := tollgate.quota_month(key.quota_reset_day, moment);
begin
  if key.budget_period is distinct from period then
    key.budget_period := period;
    key.budget_spent_nanos := 0;
  end if;
  if key.month_of_tokens is distinct from month then
    key.month_of_tokens := month;
    key.tokens_used_in_month := 0;
  end if;
  return key;
end
$$;

comment on function tollgate.in_this_period(tollgate.api_keys, timestamptz) is 'The key with its budget and its monthly quota reset where a new period has begun.';


create function tollgate.budget_resets_at(key tollgate.api_keys) returns text
language sql
immutable
set search_path = ''
as $$
  select tollgate.utc((key.budget_period + case key.budget_reset
    when 'daily' then interval '1 day' when 'weekly' then interval '1 week' when 'monthly' then interval '1 month'
  end) at time zone 'utc')
$$;

comment on function tollgate.budget_resets_at(tollgate.api_keys) is
  'When the budget of a key from in_this_period() is reset; null for never.';


create function tollgate.quota_resets_at(key tollgate.api_keys) returns text
language sql
immutable
set search_path = ''
as $$
  select tollgate.utc((key.month_of_tokens + interval '1 month') at time zone 'utc')
$$;

comment on function tollgate.quota_resets_at(tollgate.api_keys) is
  'When the monthly quota of a key from in_this_period() is reset.';


-- schemas/06_keys/rotation_lines.sql

-- A line is a key and the keys it was rotated from or to. They share one budget, quota and set of counters.
--
-- Until the old secret is refused, and for one more day while its requests are settled, a trigger copies these to all rows
-- of the line, under the lock of the org, which every request takes first. So nothing is spent twice in a grace period.

create function tollgate.line_of(key tollgate.api_keys) returns text[]
language sql
stable
set search_path = ''
as $$
  select array(
    select k.id from tollgate.api_keys k
    where k.id = key.id or (
      k.line = key.line
      and (k.expires_at is null or k.expires_at > now() - interval '1 day')
      and (k.revoked_at is null or k.revoked_at > now() - interval '1 day')
    )
  )
$$;

comment on function tollgate.line_of(tollgate.api_keys) is
  'The ids of the keys of a line whose requests may still be settled: until a day after the key ended. The key itself is always one of them.';


create function tollgate.bound_line(key tollgate.api_keys) returns void
language sql
set search_path = ''
as $$
  with line as (
    select k.id from tollgate.api_keys k where k.id = key.id or k.line = key.line
  )
  update tollgate.api_keys k set
    max_concurrent_requests = key.max_concurrent_requests,
    open_requests = case when key.max_concurrent_requests is null then 0 else (
      select count(*)
      from tollgate.holds h
      join tollgate.requests r on r.id = h.request_id
      where r.key_id in (select l.id from line l)
    ) end
  where k.id in (select l.id from line l)
$$;

comment on function tollgate.bound_line(tollgate.api_keys) is
  'Copies the key''s bound of open requests to every key of its line, ended ones too, and counts their open requests. Expects the org to be locked. Locks those keys.';


create function tollgate.share_use() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  if least(new.expires_at, new.revoked_at) <= now() - interval '1 day' then
    return null; -- it ended too long ago: its row is no longer kept up to date
  end if;
  update tollgate.api_keys k set
    counters = new.counters,
    budget_period = new.budget_period,
    budget_spent_nanos = new.budget_spent_nanos,
    month_of_tokens = new.month_of_tokens,
    tokens_used_in_month = new.tokens_used_in_month,
    tokens_used_in_all = new.tokens_used_in_all
  where k.id = any (tollgate.line_of(new)) and k.id <> new.id;
  return null;
end
$$;

comment on function tollgate.share_use() is
  'Trigger: copies the counts of a key to the other keys of its line. Every request locks the org first, so requests of a line run one at a time. Locks the keys of the line.';

create trigger api_keys_share_use
after update of
  counters, budget_period, budget_spent_nanos, month_of_tokens, tokens_used_in_month, tokens_used_in_all
on tollgate.api_keys
for each row
when (new.line is not null and pg_trigger_depth() = 0)
execute function tollgate.share_use();


create function tollgate.begin_budget(key tollgate.api_keys, ids text[]) returns tollgate.api_keys
language plpgsql
set search_path = ''
as $$
begin
  key.budget_period := tollgate.budget_period(key.budget_reset, clock_timestamp());
  key.budget_spent_nanos := coalesce((
    select sum(r.hold_nanos) from tollgate.holds h join tollgate.requests r on r.id = h.request_id
    where r.key_id = any (ids)
  ), 0);
  return key;
end
$$;

comment on function tollgate.begin_budget(tollgate.api_keys, text[]) is
  'The key at the start of a budget: spent is what its open requests hold; settling them corrects it. Expects the org to be locked.';


create function tollgate.begin_counting(key tollgate.api_keys, ids text[]) returns tollgate.api_keys
language plpgsql
set search_path = ''
as $$
begin
  key.counters := tollgate.counted_so_far(ids);
  key.month_of_tokens := tollgate.quota_month(key.quota_reset_day, clock_timestamp());
  key.tokens_used_in_all := coalesce((
    select sum(r.reserved_tokens) from tollgate.holds h join tollgate.requests r on r.id = h.request_id
    where r.key_id = any (ids)
  ), 0);
  key.tokens_used_in_month := key.tokens_used_in_all;
  return tollgate.begin_budget(key, ids);
end
$$;

comment on function tollgate.begin_counting(tollgate.api_keys, text[]) is
  'The key when its first counted term is set: its open requests are counted now, because settling will correct them. Expects the org to be locked.';


-- schemas/06_keys/shown.sql

-- Keys as JSON.

create function tollgate.key_state(key tollgate.api_keys) returns text
language sql
immutable
set search_path = ''
as $$
  select case when key.revoked_at is not null then 'revoked' when key.disabled_at is not null then 'disabled' else 'active' end
$$;

comment on function tollgate.key_state(tollgate.api_keys) is 'What was done to a key: active, disabled or revoked.';


create function tollgate.key_status(key tollgate.api_keys) returns text
language sql
stable
set search_path = ''
as $$
  select case
    when key.revoked_at is not null then 'revoked'
    when key.disabled_at is not null then 'disabled'
    when key.expires_at <= now() then 'expired'
    else 'active'
  end
$$;

comment on function tollgate.key_status(tollgate.api_keys) is 'The state of a key, or expired. What identify() would refuse it for, in its order.';


create function tollgate.key_terms(key tollgate.api_keys) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'name', key.name,
    'scopes', key.scopes,
    'allowed_models', key.allowed_models,
    'ip_allowlist', key.ip_allowlist,
    'expires_at', tollgate.utc(key.expires_at),
    'budget_nanos', key.budget_nanos,
    'budget_reset', key.budget_reset,
    'tokens_per_month', key.tokens_per_month,
    'tokens_in_all', key.tokens_in_all,
    'quota_reset_day', key.quota_reset_day,
    'limits', case when not key.limits is null then to_jsonb(key.limits) end,
    'max_concurrent_requests', key.max_concurrent_requests,
    'cache', key.cache,
    'metadata', key.metadata
  )
$$;

comment on function tollgate.key_terms(tollgate.api_keys) is 'The terms of a key: what its owner may change.';


create function tollgate.key_named(key tollgate.api_keys) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', key.id,
    'name', key.name,
    'masked_key', key.prefix || '…' || key.last_four,
    'user_id', key.user_id,
    'environment', key.environment,
    'status', tollgate.key_status(key),
    'created_at', tollgate.utc(key.created_at),
    'last_used_at', tollgate.utc(key.last_used_at)
  )
$$;

comment on function tollgate.key_named(tollgate.api_keys) is 'A key in short, as a list of usage names it.';


create function tollgate.key_shown(key tollgate.api_keys) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', key.id,
    'org_id', key.org_id,
    'org_name', (select o.name from tollgate.orgs o where o.id = key.org_id),
    'user_id', key.user_id,
    'role', u.role,
    'email', u.email,
    'prefix', key.prefix,
    'last_four', key.last_four,
    'environment', key.environment,
    'status', tollgate.key_status(key),
    'rotated_from', key.rotated_from,
    'rotated_to', key.rotated_to,
    'created_at', tollgate.utc(key.created_at),
    'updated_at', tollgate.utc(key.updated_at),
    'last_used_at', tollgate.utc(key.last_used_at),
    'revoked_at', tollgate.utc(key.revoked_at),
    'budget_spent_nanos', present.budget_spent_nanos,
    'budget_resets_at', tollgate.budget_resets_at(present),
    'tokens_used_in_month', present.tokens_used_in_month,
    'quota_resets_at', case when key.tokens_per_month is not null then
      tollgate.utc((present.month_of_tokens + interval '1 month') at time zone 'utc')
    end,
    'tokens_used_in_all', key.tokens_used_in_all,
    'open_requests', case when key.max_concurrent_requests is not null then key.open_requests end
  ) || tollgate.key_terms(key)
  from tollgate.users u, tollgate.in_this_period(key, now()) present
  where u.id = key.user_id
$$;

comment on function tollgate.key_shown(tollgate.api_keys) is
  'All that may be seen of a key: its terms, its state and its use. Of its secret, only the prefix and the last four characters.';


create function tollgate.audited(terms jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select case when terms ? 'metadata' then terms || '{"metadata": "not kept here"}' else terms end
$$;

comment on function tollgate.audited(jsonb) is
  'Terms as the audit trail keeps them: without metadata, which may be personal data and could never be deleted there.';


-- schemas/06_keys/terms.sql

-- The terms of a key, and whether the terms of one exceed those of another.
--
-- A key grants no more than the key that makes it has: scopes, environment, models, networks, expiry. A key with a
-- budget, a quota or limits of its own cannot make keys, because each new key would have them again. Any change may
-- narrow a key. Operators may grant other people's keys anything, but not their own: otherwise a narrow key of an operator
-- could make itself wide.

create function tollgate.model_allowed(patterns text[], model text) returns boolean
language sql
immutable
set search_path = ''
as $$
  select exists (
    select from unnest(patterns) pattern
    where model like replace(replace(replace(replace(pattern, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%')
  )
$$;

comment on function tollgate.model_allowed(text[], text) is 'Whether one of the patterns, in which * matches anything, matches the model.';


create function tollgate.models_within(models text[], others text[]) returns boolean
language sql
immutable
set search_path = ''
as $$
  select others is null or (models is not null
    and not exists (select from unnest(models) m where not tollgate.model_allowed(others, m)))
$$;

comment on function tollgate.models_within(text[], text[]) is
  'Whether each pattern is covered by one of the others. A * of the first is compared as a character, which only a * matches.';


create function tollgate.networks_within(networks cidr[], others cidr[]) returns boolean
language sql
immutable
set search_path = ''
as $$
  select others is null or (networks is not null and not exists (
    select from unnest(networks) n where not exists (select from unnest(others) o where n <<= o)
  ))
$$;

comment on function tollgate.networks_within(cidr[], cidr[]) is 'Whether each network lies in one of the others.';


create function tollgate.bounds(key tollgate.api_keys) returns bigint[]
language sql
immutable
set search_path = ''
as $$
  select array[
    (key.limits).requests_per_minute, (key.limits).requests_per_hour, (key.limits).requests_per_day,
    (key.limits).tokens_per_minute, (key.limits).tokens_per_hour, (key.limits).tokens_per_day
  ]
$$;

comment on function tollgate.bounds(tollgate.api_keys) is 'The six limits of a key as an array.';


create function tollgate.wider_terms(key tollgate.api_keys, other tollgate.api_keys) returns text[]
language sql
immutable
set search_path = ''
as $$
  select array_remove(array[
    case when not key.scopes <@ other.scopes then 'scopes' end,
    case when key.environment = 'live' and other.environment = 'test' then 'environment' end,
    case when not tollgate.models_within(key.allowed_models, other.allowed_models) then 'allowed_models' end,
    case when not tollgate.networks_within(key.ip_allowlist, other.ip_allowlist) then 'ip_allowlist' end,
    case when other.expires_at < coalesce(key.expires_at, 'infinity') then 'expires_at' end,
    case when other.budget_nanos < coalesce(key.budget_nanos, other.budget_nanos + 1)
      or (other.budget_nanos is not null and key.budget_reset is distinct from other.budget_reset)
      then 'budget_nanos' end,
    case when other.tokens_per_month < coalesce(key.tokens_per_month, other.tokens_per_month + 1)
      then 'tokens_per_month' end,
    case when other.tokens_per_month is not null and key.quota_reset_day <> other.quota_reset_day
      then 'quota_reset_day' end,
    case when other.tokens_in_all < coalesce(key.tokens_in_all, other.tokens_in_all + 1) then 'tokens_in_all' end,
    case when other.max_concurrent_requests
      < coalesce(key.max_concurrent_requests, other.max_concurrent_requests + 1) then 'max_concurrent_requests' end,
    case when exists (
      select from unnest(tollgate.bounds(key), tollgate.bounds(other)) b (its, others)
      where b.others < coalesce(b.its, b.others + 1)
    ) then 'limits' end
  ], null)
$$;

comment on function tollgate.wider_terms(tollgate.api_keys, tollgate.api_keys) is
  'The terms in which a key grants more than another. A budget or a quota with a different reset counts as more.';


create function tollgate.counted_terms(key tollgate.api_keys) returns text[]
language sql
immutable
set search_path = ''
as $$
  select array_remove(array[
    case when key.budget_nanos is not null then 'budget_nanos' end,
    case when key.tokens_per_month is not null then 'tokens_per_month' end,
    case when key.tokens_in_all is not null then 'tokens_in_all' end,
    case when key.max_concurrent_requests is not null then 'max_concurrent_requests' end,
    case when not key.limits is null then 'limits' end
  ], null)
$$;

comment on function tollgate.counted_terms(tollgate.api_keys) is
  'The terms of a key that requests use up: a second key with the same terms would double them.';


create function tollgate.with_terms(key tollgate.api_keys, given jsonb) returns tollgate.api_keys
language plpgsql
stable
set search_path = ''
as $$
begin
  key := tollgate.with_fields(key, given, array[
    'name', 'scopes', 'allowed_models', 'ip_allowlist', 'expires_at', 'budget_nanos', 'budget_reset',
    'tokens_per_month', 'tokens_in_all', 'quota_reset_day', 'limits', 'max_concurrent_requests', 'cache', 'metadata'
  ]);
  key.limits := case when not key.limits is null then key.limits end;
  key.metadata := coalesce(key.metadata, '{}');
  key.quota_reset_day := coalesce(key.quota_reset_day, 1);
  if key.budget_nanos is null and given ->> 'budget_reset' is not null then
    perform tollgate.refuse_field('budget_reset', 'needs a budget');
  end if;
  key.budget_reset := case when key.budget_nanos is not null then coalesce(key.budget_reset, 'never') end;
  return key;
end
$$;

comment on function tollgate.with_terms(tollgate.api_keys, jsonb) is
  'The key with the given terms in place of its own; what is left out stays, null clears. Refuses: as with_fields(), and a budget_reset without a budget.';


create function tollgate.check_terms(key tollgate.api_keys, before tollgate.api_keys default null) returns void
language plpgsql
set search_path = ''
as $$
begin
  if key.scopes @> array['admin'] and (before.scopes @> array['admin']) is not true
    and not exists (select from tollgate.users u where u.id = key.user_id and u.role = 'admin')
  then
    perform tollgate.refuse_field('scopes', 'admin is for the keys of admins');
  elsif key.expires_at is distinct from before.expires_at and key.expires_at <= clock_timestamp() then
    perform tollgate.refuse_field('expires_at', 'is in the past');
  end if;
end
$$;

comment on function tollgate.check_terms(tollgate.api_keys, tollgate.api_keys) is
  'Refuses, with invalid_request, new terms that no key may get: the scope admin for a user who is none, or an end in the past.';


create function tollgate.check_grant(
  actor tollgate.caller,
  key tollgate.api_keys,
  before tollgate.api_keys default null
) returns void
language plpgsql
set search_path = ''
as $$
declare
  maker tollgate.api_keys;
  term text;
begin
  if actor.key_id is null or (tollgate.operates(actor) and key.user_id <> actor.user_id) then
    return;
  end if;
  select k.* into maker from tollgate.api_keys k where k.id = actor.key_id;
  select t into term
  from unnest(tollgate.wider_terms(key, maker) || tollgate.counted_terms(maker)) t
  where before.id is null or t = any (tollgate.wider_terms(key, before))
  limit 1;
  if found then
    perform tollgate.refuse(403, 'permission_denied', jsonb_build_object(
      'key_id', actor.key_id, 'param', term, 'scopes', to_jsonb(actor.scopes)
    ));
  end if;
end
$$;

comment on function tollgate.check_grant(tollgate.caller, tollgate.api_keys, tollgate.api_keys) is
  'Refuses, with permission_denied and the term as param, what the caller''s key may not grant. It may grant a new key within its own terms, if none of them is counted, and a change that narrows a key or stays within those terms. Operators may grant others anything, and so may sessions without a key what their user may do. Locks nothing.';


-- schemas/07_credits/chain.sql

-- The hash chain of each org's transfers.

create function tollgate.chain_after(head bytea, t tollgate.transfers) returns bytea
language plpgsql
immutable
set search_path = ''
as $$
begin
  return sha256(coalesce(head, '') || convert_to(row(
    t.position, t.org_id, t.debit, t.credit, t.amount_nanos, t.kind, t.reference, t.reason,
    t.balance_after_nanos, extract(epoch from t.created_at)
  )::text, 'UTF8'));
end
$$;

comment on function tollgate.chain_after(bytea, tollgate.transfers) is
  'The chain of a transfer: the hash of the chain of its org''s previous transfer and of the transfer as a row of Postgres. Its time is in seconds since the epoch, so that no setting of a session changes the text.';


create function tollgate.link_transfer() returns trigger
language plpgsql
set search_path = ''
as $$
declare
  head bytea;
begin
  select t.chain into head from tollgate.transfers t where t.org_id = new.org_id order by t.position desc limit 1;
  new.chain := tollgate.chain_after(head, new);
  update tollgate.orgs o set chain_head = new.chain where o.id = new.org_id;
  return new;
end
$$;

comment on function tollgate.link_transfer() is
  'Trigger of the ledger: links a transfer to the previous one of its org. Relies on the org''s lock, which every writer of transfers holds.';

-- tollgate_settle() links its transfers itself: it has read the orgs'' heads and writes the orgs anyway.
create trigger transfers_linked
before insert on tollgate.transfers
for each row when (new.chain is null) execute function tollgate.link_transfer();


-- schemas/07_credits/grant.sql

-- Grants made at the console.

create function public.tollgate_grant(
  caller jsonb,
  org_id text,
  amount_nanos bigint,
  source text,
  reason text,
  reference text
) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  operation constant jsonb := jsonb_build_object('org_id', org_id, 'amount_nanos', amount_nanos, 'source', source);
  draft tollgate.transfers;
  payer tollgate.orgs;
  posted tollgate.transfers;
  created boolean;
begin
  draft.kind := 'grant';
  draft.amount_nanos := tollgate.check_amount(operation, 1);
  draft.debit := tollgate.check_source(operation, array['funding', 'promotion']);
  draft.credit := 'wallet';
  draft.reference := reference;
  draft.reason := reason;
  payer := tollgate.lock_payer(operation);
  draft.org_id := payer.id;

  select t.* into posted from tollgate.transfers t where t.kind = 'grant' and t.reference = draft.reference;
  created := not found;
  if created then
    posted := tollgate.move(draft);
    perform tollgate.record(actor, 'credits.granted', org_id, tollgate.transfer_id(posted.position),
      jsonb_build_object('amount_nanos', amount_nanos, 'source', source, 'reason', reason, 'reference', reference));
  elsif (posted.org_id, posted.amount_nanos, posted.debit)
    is distinct from (draft.org_id, draft.amount_nanos, draft.debit)
  then
    perform tollgate.refuse(422, 'idempotency_key_reused', jsonb_build_object('transfer_id', tollgate.transfer_id(posted.position)));
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'created', created,
    'transfer_id', tollgate.transfer_id(posted.position),
    'balance_nanos', case when created then posted.balance_after_nanos else payer.balance_nanos end
  );
exception when unique_violation then -- another org took the same reference at this moment
  perform tollgate.refuse(422, 'idempotency_key_reused', jsonb_build_object('reference', reference));
end
$$;

comment on function public.tollgate_grant(jsonb, text, bigint, text, text, text) is
  'Adds credits to an org, once per reference: a repetition answers with the first transfer. For the console and admins. Refuses: as recognise(), invalid_request, not_found, idempotency_key_reused. Locks the org.';

select tollgate.expose('public.tollgate_grant(jsonb, text, bigint, text, text, text)');


-- schemas/07_credits/operations.sql

-- Grants and adjustments made by operators over HTTP.
--
-- Lock order: operator (an advisory lock), org, key, transfer.

create function tollgate.operator_of(actor tollgate.caller) returns text
language sql
immutable
set search_path = ''
as $$
  select coalesce(actor.user_id, actor.kind)
$$;

comment on function tollgate.operator_of(tollgate.caller) is
  'The operator whose operation this is: a user id, or console.';


create function tollgate.check_amount(operation jsonb, smallest bigint) returns bigint
language plpgsql
set search_path = ''
as $$
declare
  amount constant numeric := operation ->> 'amount_nanos';
begin
  if (amount between smallest and 100000000000000000 and amount <> 0) is not true then
    perform tollgate.refuse(400, 'invalid_request',
      jsonb_build_object('param', 'amount_nanos', 'amount_nanos', amount));
  end if;
  return amount;
end
$$;

comment on function tollgate.check_amount(jsonb, bigint) is
  'The amount of an operation. Refuses, with invalid_request, a missing amount, zero, and one outside the bounds of a transfer.';


create function tollgate.check_cap(actor tollgate.caller, amount_nanos bigint, caps jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  today constant timestamptz := date_trunc('day', clock_timestamp() at time zone 'utc') at time zone 'utc';
  cap constant bigint := caps ->> 'grant_nanos';
  cap_per_day constant bigint := caps ->> 'day_nanos';
  granted_today numeric;
begin
  if actor.kind = 'console' then
    return;
  end if;
  select coalesce(sum(o.counted_nanos), 0) into granted_today from tollgate.credit_operations o
  where o.operator = tollgate.operator_of(actor) and o.created_at >= today;

  if (amount_nanos <= cap and granted_today + amount_nanos <= cap_per_day) is not true then
    perform tollgate.refuse(403, 'cap_exceeded', jsonb_build_object(
      'amount_nanos', amount_nanos,
      'cap_nanos', cap,
      'cap_per_day_nanos', cap_per_day,
      'granted_today_nanos', granted_today,
      'resets_at', tollgate.utc(today + interval '1 day')
    ));
  end if;
end
$$;

comment on function tollgate.check_cap(tollgate.caller, bigint, jsonb) is
  'Refuses, with cap_exceeded, a grant above the cap, or one that exceeds the operator''s cap of the day (UTC). A missing cap refuses every grant. The console has no cap. Expects the operator to be locked.';


create function tollgate.check_source(operation jsonb, sources text[]) returns text
language plpgsql
set search_path = ''
as $$
begin
  if (operation ->> 'source' = any (sources)) is not true then
    perform tollgate.refuse(400, 'invalid_request',
      jsonb_build_object('param', 'source', 'source', operation ->> 'source', 'sources', to_jsonb(sources)));
  end if;
  return operation ->> 'source';
end
$$;

comment on function tollgate.check_source(jsonb, text[]) is
  'The account on the other side of an operation. Refuses, with invalid_request, any but the `sources`.';


create function tollgate.earlier_operation(actor tollgate.caller, kind text, operation jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  acting text := tollgate.operator_of(actor);
  earlier tollgate.credit_operations;
  posted tollgate.transfers;
begin
  perform tollgate.check_recent_sign_in(actor);
  perform pg_advisory_xact_lock(hashtextextended('tollgate_credits ' || acting, 0));

  select o.* into earlier from tollgate.credit_operations o
  where o.operator = acting and o.idempotency_key = operation ->> 'idempotency_key';
  if not found then
    return null;
  end if;
  select t.* into posted from tollgate.transfers t where t.position = earlier.position;
  if posted.kind <> earlier_operation.kind or earlier.asked <> operation - 'idempotency_key' then
    perform tollgate.refuse(422, 'idempotency_key_reused',
      jsonb_build_object('transfer_id', tollgate.transfer_id(posted.position)));
  end if;
  return tollgate.transfer_shown(posted) || '{"created": false}';
end
$$;

comment on function tollgate.earlier_operation(tollgate.caller, text, jsonb) is
  'The answer given before under the operation''s idempotency key, or null. Refuses: sign_in_again, idempotency_key_reused. Locks the operator until the transaction ends, so that operations of one operator run one at a time: no repetition and no grant beyond the cap can slip through.';


create function tollgate.lock_payer(operation jsonb) returns tollgate.orgs
language plpgsql
set search_path = ''
as $$
declare
  payer_id constant text := tollgate.org_of(operation);
  payer tollgate.orgs;
begin
  select o.* into payer from tollgate.orgs o where o.id = payer_id for no key update;
  if not found then
    perform tollgate.refuse_missing('org', payer_id);
  end if;
  return payer;
end
$$;

comment on function tollgate.lock_payer(jsonb) is
  'The org of an operation: of its org_id, or of its user_id. Refuses: not_found. Locks the org.';


create function tollgate.post_operation(
  caller jsonb,
  actor tollgate.caller,
  operation jsonb,
  draft tollgate.transfers
) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  posted tollgate.transfers;
begin
  draft.reference := coalesce(
    draft.reference, tollgate.operator_of(actor) || ':' || (operation ->> 'idempotency_key')
  );
  draft.reason := operation ->> 'reason';
  posted := tollgate.move(draft);

  insert into tollgate.credit_operations (operator, idempotency_key, asked, position, request_id, counted_nanos)
  values (
    tollgate.operator_of(actor),
    operation ->> 'idempotency_key',
    operation - 'idempotency_key',
    posted.position,
    tollgate.request_of(posted),
    case when posted.credit = 'wallet' and posted.kind <> 'refund' then posted.amount_nanos else 0 end
  );
  perform tollgate.record(
    actor,
    case posted.kind
      when 'grant' then 'credits.granted'
      when 'refund' then 'credits.refunded'
      else 'credits.adjusted'
    end,
    posted.org_id,
    tollgate.transfer_id(posted.position),
    operation || jsonb_build_object('amount_nanos', posted.amount_nanos, 'debit', posted.debit, 'credit', posted.credit)
  );
  perform tollgate.touch(k, caller) from tollgate.api_keys k where k.id = actor.key_id;
  return tollgate.transfer_shown(posted) || '{"created": true}';
end
$$;

comment on function tollgate.post_operation(jsonb, tollgate.caller, jsonb, tollgate.transfers) is
  'Moves what the draft says, and inserts the operation and its audit event. A draft without a reference gets one of the operator and the idempotency key, so that it never equals one of another operator or of the console. Expects the operator and the org to be locked. Touches the key.';


create function public.tollgate_grant_credits(caller jsonb, operation jsonb, caps jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  answer jsonb := tollgate.earlier_operation(actor, 'grant', operation);
  draft tollgate.transfers;
begin
  if answer is null then
    draft.kind := 'grant';
    draft.amount_nanos := tollgate.check_amount(operation, 1);
    draft.debit := tollgate.check_source(operation, array['funding', 'promotion']);
    draft.credit := 'wallet';
    draft.org_id := (tollgate.lock_payer(operation)).id;
    perform tollgate.check_cap(actor, draft.amount_nanos, caps);
    answer := tollgate.post_operation(caller, actor, operation, draft);
  end if;
  return answer || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_grant_credits(jsonb, jsonb, jsonb) is
  'Grants credits to an org, or to a user''s org, once per idempotency key of the operator. `operation`: org_id or user_id, amount_nanos, source (funding, promotion), reason, idempotency_key. `caps`: grant_nanos, day_nanos. For admins. Refuses: as recognise(), invalid_request, not_found, idempotency_key_reused, cap_exceeded. Locks the operator, the org, the key.';

select tollgate.expose('public.tollgate_grant_credits(jsonb, jsonb, jsonb)');


create function public.tollgate_adjust_credits(caller jsonb, operation jsonb, caps jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  answer jsonb := tollgate.earlier_operation(actor, 'adjustment', operation);
  change bigint;
  source text;
  payer tollgate.orgs;
  draft tollgate.transfers;
begin
  if answer is null then
    change := tollgate.check_amount(operation, -100000000000000000);
    source := tollgate.check_source(operation, array['funding', 'promotion', 'writeoff']);
    payer := tollgate.lock_payer(operation);
    if change > 0 then
      perform tollgate.check_cap(actor, change, caps);
    elsif payer.balance_nanos - payer.held_nanos + change < 0 then
      perform tollgate.refuse(409, 'conflict', jsonb_build_object(
        'reason', 'balance_too_low',
        'param', 'credits',
        'amount_nanos', change,
        'balance_nanos', payer.balance_nanos,
        'held_nanos', payer.held_nanos,
        'available_nanos', payer.balance_nanos - payer.held_nanos
      ));
    end if;
    draft.kind := 'adjustment';
    draft.org_id := payer.id;
    draft.amount_nanos := abs(change);
    draft.debit := case when change > 0 then source else 'wallet' end;
    draft.credit := case when change > 0 then 'wallet' else source end;
    answer := tollgate.post_operation(caller, actor, operation, draft);
  end if;
  return answer || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_adjust_credits(jsonb, jsonb, jsonb) is
  'Adjusts an org''s balance, up or down, once per idempotency key of the operator. Takes no more than is available, so never what requests hold. `operation`: as for tollgate_grant_credits(), with a negative amount_nanos to take, source funding, promotion or writeoff. What it adds counts toward the caps. For admins. Refuses: as recognise(), invalid_request, not_found, idempotency_key_reused, cap_exceeded, conflict. Locks the operator, the org, the key.';

select tollgate.expose('public.tollgate_adjust_credits(jsonb, jsonb, jsonb)');


-- schemas/07_credits/post.sql

-- Writes the ledger. No other function inserts transfers.

create function tollgate.post(drafts tollgate.transfers[]) returns setof tollgate.transfers
language sql
set search_path = ''
as $$
  insert into tollgate.transfers (
    org_id, debit, credit, amount_nanos, kind, reference, reason, balance_after_nanos, created_at
  )
  select
    d.org_id, d.debit, d.credit, d.amount_nanos, d.kind, d.reference, coalesce(d.reason, ''), d.balance_after_nanos,
    coalesce(d.created_at, clock_timestamp())
  from unnest(drafts) with ordinality d
  order by d.ordinality -- the order of the running balances, in which positions are drawn
  returning *
$$;

comment on function tollgate.post(tollgate.transfers[]) is
  'Inserts transfers whose running balances are known, in their order; the caller writes the balances of their orgs. Expects the orgs to be locked.';


create function tollgate.move(draft tollgate.transfers) returns tollgate.transfers
language plpgsql
set search_path = ''
as $$
declare
  posted tollgate.transfers;
begin
  update tollgate.orgs o set
    balance_nanos = o.balance_nanos
      + case draft.credit when 'wallet' then draft.amount_nanos else -draft.amount_nanos end,
    updated_at = now()
  where o.id = draft.org_id
  returning o.balance_nanos into draft.balance_after_nanos;
  select p.* into posted from tollgate.post(array[draft]) p;
  return posted;
end
$$;

comment on function tollgate.move(tollgate.transfers) is
  'Moves credits into or out of an org: changes its balance and inserts the transfer. Expects the org to be locked.';


-- schemas/07_credits/refund.sql

-- Refunds of charges.

create function tollgate.charged(request_id text) returns bigint
language sql
stable
set search_path = ''
as $$
  select coalesce(sum(case t.kind when 'charge' then t.amount_nanos else -t.amount_nanos end), 0)
  from tollgate.transfers t
  where (t.kind = 'charge' and t.reference in (request_id, request_id || ':late'))
    or (t.kind = 'refund' and t.reference = request_id || ':late')
$$;

comment on function tollgate.charged(text) is
  'The charge of a request, with the correction of a late settlement, and without refunds by operators.';


create function tollgate.refundable(request_id text) returns bigint
language sql
stable
set search_path = ''
as $$
  select greatest(tollgate.charged(refundable.request_id) - coalesce(sum(t.amount_nanos), 0), 0)
  from tollgate.credit_operations o
  join tollgate.transfers t on t.position = o.position
  where o.request_id = refundable.request_id
$$;

comment on function tollgate.refundable(text) is
  'What is left of the charge of a request after the refunds by operators.';


create function tollgate.refuse_refund(request_id text) returns void
language plpgsql
set search_path = ''
as $$
declare
  request tollgate.requests;
begin
  select r.* into request from tollgate.requests r where r.id = refuse_refund.request_id;
  if not found then
    perform tollgate.refuse_missing('request', request_id);
  end if;
  perform tollgate.refuse(409, 'conflict', jsonb_build_object(
    'reason', 'nothing_charged',
    'param', 'request_id',
    'request_id', request_id,
    'state', request.state,
    'charge_nanos', coalesce(request.charge_nanos, 0),
    'refundable_nanos', 0
  ));
end
$$;

comment on function tollgate.refuse_refund(text) is
  'Refuses to refund a request without a charge: not_found, or conflict with its state.';


create function public.tollgate_refund_charge(caller jsonb, operation jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  answer jsonb := tollgate.earlier_operation(actor, 'refund', operation);
  charge tollgate.transfers;
  charged bigint;
  refunds bigint;
  refunded bigint;
  draft tollgate.transfers;
begin
  if answer is null then
    select t.* into charge from tollgate.transfers t
    where t.kind = 'charge' and t.reference = operation ->> 'request_id';
    if not found then
      perform tollgate.refuse_refund(operation ->> 'request_id');
    end if;
    draft.org_id := (tollgate.lock_payer(jsonb_build_object('org_id', charge.org_id))).id;

    -- Read under the org's lock, which every refund and correction of the charge takes.
    charged := tollgate.charged(charge.reference);
    select count(*), coalesce(sum(t.amount_nanos), 0) into refunds, refunded
    from tollgate.credit_operations o
    join tollgate.transfers t on t.position = o.position
    where o.request_id = charge.reference;
    draft.amount_nanos := case
      when operation ->> 'amount_nanos' is not null then tollgate.check_amount(operation, 1)
      else nullif(charged - refunded, 0)
    end;
    if (draft.amount_nanos <= charged - refunded) is not true then
      perform tollgate.refuse(409, 'conflict', jsonb_build_object(
        'reason', 'beyond_charge',
        'param', 'amount_nanos',
        'request_id', charge.reference,
        'charge_nanos', charged,
        'refunded_nanos', refunded,
        'refundable_nanos', charged - refunded
      ));
    end if;
    draft.kind := 'refund';
    draft.debit := 'revenue';
    draft.credit := 'wallet';
    draft.reference := charge.reference || '/' || refunds + 1;
    answer := tollgate.post_operation(caller, actor, operation, draft);
  end if;
  return answer || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_refund_charge(jsonb, jsonb) is
  'Refunds the charge of a request, in part or what is left of it, once per idempotency key of the operator; the refunds of a charge together never exceed it. `operation`: request_id, amount_nanos or null for what is left, reason, idempotency_key. For admins. Refuses: as recognise(), invalid_request, not_found, idempotency_key_reused, conflict. Locks the operator, the org, the key.';

select tollgate.expose('public.tollgate_refund_charge(jsonb, jsonb)');


-- schemas/07_credits/refusal.sql

-- The refusal of what the balance does not cover.

create function tollgate.credits_refusal(available bigint, required bigint, affordable_tokens bigint) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select tollgate.refusal(402, 'insufficient_credits', jsonb_build_object(
    'available_nanos', available,
    'required_nanos', required,
    'affordable_output_tokens', case when affordable_tokens < 1000000000 then affordable_tokens else 0 end
  ))
$$;

comment on function tollgate.credits_refusal(bigint, bigint, bigint) is
  'The refusal of a request whose worst case is above what the org has left. Where output costs nothing, fewer tokens would not help, so none are affordable.';


-- schemas/07_credits/transfers.sql

-- Transfers as JSON, and lists of them.

create function tollgate.transfer_id(number bigint) returns text
language sql
stable
set search_path = ''
as $$
  select 'trf_' || tollgate.mixed(number)
$$;

comment on function tollgate.transfer_id(bigint) is
  'The id of a transfer in the API. It does not tell the position, which counts the transfers of all orgs.';


create function tollgate.request_of(t tollgate.transfers) returns text
language sql
immutable
set search_path = ''
as $$
  select case t.kind
    when 'charge' then regexp_replace(t.reference, ':late$', '')
    when 'refund' then regexp_replace(t.reference, '(/[0-9]+|:late)$', '')
  end
$$;

comment on function tollgate.request_of(tollgate.transfers) is
  'The request of a charge or refund. The n-th refund of a request has the reference <request id>/<n>, so that the ledger cannot hold it twice; a correction by a late settlement has <request id>:late.';


create function tollgate.transfer_shown(t tollgate.transfers) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', tollgate.transfer_id(t.position),
    'org_id', t.org_id,
    'org_name', (select o.name from tollgate.orgs o where o.id = t.org_id),
    'kind', t.kind,
    'debit', t.debit,
    'credit', t.credit,
    'amount_nanos', t.amount_nanos,
    'change_nanos', case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end,
    'balance_after_nanos', t.balance_after_nanos,
    'request_id', tollgate.request_of(t),
    'refundable_nanos', case t.kind when 'charge' then tollgate.refundable(tollgate.request_of(t)) end,
    'reference', t.reference,
    'reason', t.reason,
    'created_at', tollgate.utc(t.created_at)
  )
$$;

comment on function tollgate.transfer_shown(tollgate.transfers) is
  'A transfer as operators see it. change_nanos is the change of the org''s balance.';


create function tollgate.transfer_page(filters jsonb, page_size integer) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  matching constant text := $where$
    ($1 ->> 'kind' is null or e.kind = $1 ->> 'kind')
    and ($1 ->> 'debit' is null or e.debit = $1 ->> 'debit')
    and ($1 ->> 'credit' is null or e.credit = $1 ->> 'credit')
    and ($1 ->> 'from' is null or e.created_at >= ($1 ->> 'from')::timestamptz)
    and ($1 ->> 'to' is null or e.created_at < ($1 ->> 'to')::timestamptz)
    and ($1 ->> 'min_nanos' is null or e.amount_nanos >= ($1 ->> 'min_nanos')::bigint)
    and ($1 ->> 'max_nanos' is null or e.amount_nanos <= ($1 ->> 'max_nanos')::bigint)
  $where$;
  -- Few transfers are no charges, and they have an index of their own. It is used where the condition says so.
  without_charges constant boolean := filters ->> 'kind' <> 'charge' or filters ->> 'debit' <> 'wallet'
    or filters ->> 'credit' <> 'revenue';
  -- Rows of a past time lie together, far from either end of the positions: the index by time finds them first.
  by_time constant boolean := filters ->> 'org_id' is null and (filters ->> 'to')::timestamptz < clock_timestamp();
begin
  return tollgate.page(
    'tollgate.transfers',
    'tollgate.transfer_shown',
    case when without_charges then 'e.kind <> ''charge'' and' || matching
      when by_time then format('e.position = any (array(select e.position from tollgate.transfers e where %s))', matching)
      else matching
    end,
    '{"created_at": "e.position"}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    case when filters ->> 'cursor' is null then filters else filters || jsonb_build_object(
      'cursor', coalesce(tollgate.unmixed(substring(filters ->> 'cursor' from '^trf_(.*)$')), 0)
    ) end,
    page_size,
    within => $where$ $1 ->> 'org_id' is null or e.org_id = $1 ->> 'org_id' $where$,
    id => 'e.position',
    counted => false
  );
end
$$;

comment on function tollgate.transfer_page(jsonb, integer) is
  'A page of the ledger, in the order of its positions. `filters`: org_id, kind, debit, credit, from, to, min_nanos, max_nanos, sort (created_at), cursor, offset. Refuses: as page(). Locks nothing.';


create function public.tollgate_transfers(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return tollgate.transfer_page(filters, page_size) || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_transfers(jsonb, jsonb, integer) is
  'The ledger by pages; filters and sort as for transfer_page(). For admins. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_transfers(jsonb, jsonb, integer)');


create function public.tollgate_own_transfers(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'usage');
begin
  return tollgate.transfer_page(filters || jsonb_build_object('org_id', actor.org_id), page_size)
    || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_own_transfers(jsonb, jsonb, integer) is
  'The transfers of the caller''s org and of no other, by pages; filters and sort as for transfer_page(). Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_own_transfers(jsonb, jsonb, integer)');


-- schemas/08_upstreams/aliases.sql

-- Aliases: names of an operator's for models.

create function tollgate.alias_shown(a tollgate.aliases) returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(a) || jsonb_build_object(
    'id', a.name, 'created_at', tollgate.utc(a.created_at), 'updated_at', tollgate.utc(a.updated_at)
  )
$$;

comment on function tollgate.alias_shown(tollgate.aliases) is 'An alias as operators see it.';


create function tollgate.models_of(a tollgate.aliases) returns text[]
language sql
immutable
set search_path = ''
as $$
  select array(select t ->> 'model' from jsonb_array_elements(a.targets) t) || a.fallbacks::text[]
$$;

comment on function tollgate.models_of(tollgate.aliases) is 'The models that an alias may stand for.';


create function tollgate.aliases_of(names jsonb) returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(
    jsonb_build_object(
      'name', a.name, 'targets', a.targets, 'fallbacks', a.fallbacks, 'description', a.description,
      'deprecated_on', a.deprecated_on, 'retires_on', a.retires_on, 'replacement', a.replacement
    ) order by a.name
  ), '[]')
  from tollgate.aliases a
  where a.state = 'active' and (names is null or a.name in (select jsonb_array_elements_text(names)))
$$;

comment on function tollgate.aliases_of(jsonb) is 'The active aliases of these names, or all.';


create function tollgate.with_targets(names jsonb) returns jsonb
language sql
stable
set search_path = ''
as $$
  select names || coalesce((
    select jsonb_agg(distinct s.spelling)
    from tollgate.aliases a
    cross join unnest(tollgate.models_of(a)) m (model)
    cross join lateral (values (m.model), (split_part(m.model, ':', 1))) s (spelling)
    where a.state = 'active' and a.name in (select jsonb_array_elements_text(names))
  ), '[]')
$$;

comment on function tollgate.with_targets(jsonb) is
  'These names, and those of the models that the aliases among them stand for, with and without a suffix. Null stays null.';


create function tollgate.check_targets(made tollgate.aliases) returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  other text;
begin
  select a.name into other from tollgate.aliases a
  where a.name <> made.name and a.name = any (tollgate.models_of(made))
  order by a.name
  limit 1;
  if not found then
    select a.name into other from tollgate.aliases a
    where a.name <> made.name and made.name = any (tollgate.models_of(a))
    order by a.name
    limit 1;
  end if;
  if found then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', 'alias_of_alias', 'kind', 'alias', 'id', made.name, 'alias', other
    ));
  end if;
end
$$;

comment on function tollgate.check_targets(tollgate.aliases) is
  'Refuses, with conflict, an alias that stands for another one, or that another one stands for.';


create function public.tollgate_put_alias(caller jsonb, alias jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  was tollgate.aliases;
  made tollgate.aliases;
  is_new boolean;
begin
  perform pg_advisory_xact_lock(hashtextextended('tollgate.aliases', 0));
  select a.* into was from tollgate.aliases a where a.name = alias ->> 'name' for no key update;
  is_new := not found;
  if is_new then
    was.fallbacks := '{}';
    was.description := '';
    was.state := 'active';
    was := tollgate.with_fields(
      was, jsonb_build_object('name', alias -> 'name', 'targets', alias -> 'targets'), array['name', 'targets']
    );
  end if;
  made := tollgate.with_fields(was, alias, array[
    'name', 'targets', 'fallbacks', 'description', 'deprecated_on', 'retires_on', 'replacement', 'state'
  ]);
  if is_new or made is distinct from was then
    perform tollgate.check_targets(made);
    made.updated_at := now();
    if is_new then
      made.created_at := now();
      insert into tollgate.aliases select made.*;
    else
      update tollgate.aliases a set
        targets = made.targets, fallbacks = made.fallbacks, description = made.description,
        deprecated_on = made.deprecated_on, retires_on = made.retires_on, replacement = made.replacement,
        state = made.state, updated_at = made.updated_at
      where a.name = made.name;
    end if;
    perform tollgate.record(
      actor, case when is_new then 'alias.created' else 'alias.changed' end, null, made.name, alias - 'name'
    );
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'created', is_new, 'alias', tollgate.alias_shown(made)
  );
end
$$;

comment on function public.tollgate_put_alias(jsonb, jsonb) is
  'Creates an alias, or changes the given fields of the one with this name. A repetition changes and records nothing. For admins. Refuses: as recognise(), with_fields() and check_targets(). Takes an advisory lock, so that two aliases cannot be made of each other at once, and locks the row.';

select tollgate.expose('public.tollgate_put_alias(jsonb, jsonb)');


create function public.tollgate_delete_alias(caller jsonb, name text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  gone tollgate.aliases;
begin
  delete from tollgate.aliases a where a.name = tollgate_delete_alias.name returning a.* into gone;
  if not found then
    perform tollgate.refuse_missing('alias', name);
  end if;
  perform tollgate.record(
    actor, 'alias.deleted', null, gone.name, to_jsonb(gone) - 'name' - 'created_at' - 'updated_at'
  );
  return jsonb_build_object('caller', tollgate.identity(actor), 'name', gone.name);
end
$$;

comment on function public.tollgate_delete_alias(jsonb, text) is
  'Deletes an alias, and records it in full. For admins. Refuses: as recognise(), not_found. Locks the row.';

select tollgate.expose('public.tollgate_delete_alias(jsonb, text)');


create function public.tollgate_alias(caller jsonb, name text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_one tollgate.aliases;
begin
  select a.* into found_one from tollgate.aliases a where a.name = tollgate_alias.name;
  if not found then
    perform tollgate.refuse_missing('alias', name);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'alias', tollgate.alias_shown(found_one));
end
$$;

comment on function public.tollgate_alias(jsonb, text) is
  'One alias. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_alias(jsonb, text)');


create function public.tollgate_aliases(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.aliases',
    'tollgate.alias_shown',
    $where$
      ($1 ->> 'model' is null or $1 ->> 'model' = any (tollgate.models_of(e)))
      and ($1 ->> 'state' is null or e.state = $1 ->> 'state')
    $where$,
    '{"created_at": "e.created_at", "name": "e.name collate \"C\""}',
    coalesce(filters ->> 'sort', 'name:asc'),
    filters,
    page_size,
    id => 'e.name'
  );
end
$$;

comment on function public.tollgate_aliases(jsonb, jsonb, integer) is
  'Aliases. `filters`: model (one that the alias may stand for), state, sort (created_at, name), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_aliases(jsonb, jsonb, integer)');


-- schemas/08_upstreams/probes.sql

-- Results of probes.

create function tollgate.probe_shown(p tollgate.probes) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'upstream_id', p.upstream_id,
    'status', p.status,
    'http_status', p.http_status,
    'latency_ms', p.latency_ms,
    'error', p.error,
    'probed_at', tollgate.utc(p.probed_at)
  )
$$;

comment on function tollgate.probe_shown(tollgate.probes) is 'A probe as operators see it.';


create function tollgate.keep_past_probes(kept tollgate.probes[]) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.past_probes (upstream_id, probed_at, status, http_status, latency_ms, error)
  select k.upstream_id, k.probed_at, k.status, k.http_status, k.latency_ms, k.error from unnest(kept) k
  on conflict do nothing;
  delete from tollgate.past_probes p
  using unnest(kept) k
  where p.upstream_id = k.upstream_id and p.probed_at < (
    select o.probed_at from tollgate.past_probes o
    where o.upstream_id = k.upstream_id
    order by o.probed_at desc
    offset 49
    limit 1
  )
$$;

comment on function tollgate.keep_past_probes(tollgate.probes[]) is
  'Adds probes to those of the past, and deletes all but the last 50 of each upstream. Expects the upstreams to be locked.';


create function tollgate.past_probes_of(id text) returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(
    jsonb_build_object(
      'status', p.status, 'http_status', p.http_status, 'latency_ms', p.latency_ms, 'error', p.error,
      'probed_at', tollgate.utc(p.probed_at)
    ) order by p.probed_at desc
  ), '[]')
  from tollgate.past_probes p where p.upstream_id = id
$$;

comment on function tollgate.past_probes_of(text) is 'The last probes of an upstream, newest first.';


create function public.tollgate_keep_probes(caller jsonb, probes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  kept jsonb;
  rows tollgate.probes[];
begin
  perform u.id from tollgate.upstreams u
  where u.id in (select p ->> 'upstream_id' from jsonb_array_elements(probes) p)
  order by u.id
  for key share;

  with stored as (
    insert into tollgate.probes as p (upstream_id, status, http_status, latency_ms, error)
    select g.upstream_id, g.status, g.http_status, g.latency_ms, left(g.error, 500)
    from jsonb_to_recordset(probes)
      as g (upstream_id text, status text, http_status integer, latency_ms integer, error text)
    where exists (select from tollgate.upstreams u where u.id = g.upstream_id)
    order by g.upstream_id
    on conflict (upstream_id) do update set
      status = excluded.status, http_status = excluded.http_status, latency_ms = excluded.latency_ms,
      error = excluded.error, probed_at = excluded.probed_at
    returning p as row
  )
  select coalesce(jsonb_agg(tollgate.probe_shown(s.row) order by (s.row).upstream_id), '[]'), array_agg(s.row)
  into kept, rows
  from stored s;
  perform tollgate.keep_past_probes(rows);

  perform tollgate.record(actor, 'upstreams.probed', null, 'upstreams', jsonb_build_object(
    'up', (select count(*) from jsonb_array_elements(kept) k where k ->> 'status' = 'up'),
    'down', (select count(*) from jsonb_array_elements(kept) k where k ->> 'status' = 'down')
  ));
  return jsonb_build_object('caller', tollgate.identity(actor), 'data', kept);
end
$$;

comment on function public.tollgate_keep_probes(jsonb, jsonb) is
  'Keeps the results of probes: upstream_id, status, http_status, latency_ms, error. Results of an upstream that is gone are left out. For admins. Refuses: as recognise(). Locks the upstreams by id against removal, then their probes in the same order.';

select tollgate.expose('public.tollgate_keep_probes(jsonb, jsonb)');


-- schemas/08_upstreams/routes.sql

-- Routes: which upstream serves which model, at what price.

create function tollgate.route_shown(r tollgate.routes) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', r.id,
    'model', r.model,
    'upstream_id', r.upstream_id,
    'upstream_name', (select u.name from tollgate.upstreams u where u.id = r.upstream_id),
    'upstream_model', r.upstream_model,
    'pricing', r.pricing,
    'context_tokens', r.context_tokens,
    'most_output', r.most_output,
    'priority', r.priority,
    'weight', r.weight,
    'listing', r.listing,
    'deprecated_on', r.deprecated_on,
    'retires_on', r.retires_on,
    'replacement', r.replacement,
    'state', r.state,
    'created_at', tollgate.utc(r.created_at),
    'updated_at', tollgate.utc(r.updated_at)
  )
$$;

comment on function tollgate.route_shown(tollgate.routes) is 'A route as operators see it.';


create function tollgate.write_route(actor tollgate.caller, was tollgate.routes, given jsonb) returns tollgate.routes
language plpgsql
set search_path = ''
as $$
declare
  is_new constant boolean := was.created_at is null;
  made tollgate.routes := tollgate.with_fields(was, given, array[
    'model', 'upstream_id', 'upstream_model', 'pricing', 'context_tokens', 'most_output', 'priority', 'weight',
    'listing', 'state', 'deprecated_on', 'retires_on', 'replacement'
  ]);
begin
  if not is_new and made is not distinct from was then
    return was;
  end if;
  made.updated_at := now();
  if is_new then
    made.created_at := now();
    insert into tollgate.routes select made.*;
  else
    update tollgate.routes r set
      upstream_model = made.upstream_model, pricing = made.pricing, context_tokens = made.context_tokens,
      most_output = made.most_output, priority = made.priority, weight = made.weight, listing = made.listing,
      state = made.state, deprecated_on = made.deprecated_on, retires_on = made.retires_on,
      replacement = made.replacement, updated_at = made.updated_at
    where r.id = made.id;
  end if;
  perform tollgate.record(
    actor, case when is_new then 'route.created' else 'route.changed' end, null, made.id, given
  );
  return made;
end
$$;

comment on function tollgate.write_route(tollgate.caller, tollgate.routes, jsonb) is
  'Inserts a route that has no created_at yet, or changes the given fields of one that the calling function has locked, and records it. Changing nothing records nothing. Refuses: as with_fields().';


create function tollgate.remove_route(actor tollgate.caller, r tollgate.routes) returns void
language plpgsql
set search_path = ''
as $$
begin
  delete from tollgate.routes where id = r.id;
  perform tollgate.record(actor, 'route.deleted', null, r.id, to_jsonb(r) - 'id' - 'created_at' - 'updated_at');
end
$$;

comment on function tollgate.remove_route(tollgate.caller, tollgate.routes) is
  'Deletes a route that the calling function has locked, and records it in full.';


create function tollgate.routes_of(names jsonb) returns jsonb
language sql
stable
set search_path = ''
as $$
  with wanted as (
    select r.*
    from tollgate.routes r
    join tollgate.upstreams u on u.id = r.upstream_id
    where r.state = 'active' and u.state = 'active'
      and (names is null or r.model in (select jsonb_array_elements_text(names)))
  )
  select jsonb_build_object(
    'routes', coalesce((
      select jsonb_agg(
        to_jsonb(w) - 'updated_at' || jsonb_build_object('created', extract(epoch from w.created_at)::bigint)
        order by w.priority, w.model, w.id
      ) from wanted w
    ), '[]'::jsonb),
    'upstreams', coalesce((
      select jsonb_agg(to_jsonb(u) - 'created_at' - 'updated_at' order by u.id)
      from tollgate.upstreams u where u.id in (select w.upstream_id from wanted w)
    ), '[]'::jsonb)
  )
$$;

comment on function tollgate.routes_of(jsonb) is 'The active routes of these models, or of all, and their upstreams.';


create function public.tollgate_put_route(caller jsonb, route jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  server tollgate.upstreams;
  was tollgate.routes;
  made tollgate.routes;
begin
  if route ->> 'url' is not null then
    route := route || jsonb_build_object('upstream_id', (
      select u.id from tollgate.upstreams u where u.base_url = route ->> 'url' order by u.created_at limit 1
    ));
    if route ->> 'upstream_id' is null then
      perform tollgate.refuse_missing('upstream', route ->> 'url');
    end if;
  end if;
  route := route - 'url';
  select u.* into server from tollgate.upstreams u where u.id = route ->> 'upstream_id' for key share;
  if not found then
    perform tollgate.refuse_missing('upstream', route ->> 'upstream_id');
  end if;
  perform tollgate.refuse_of_host(server);
  perform pg_advisory_xact_lock(hashtextextended('tollgate.routes', 0));
  select r.* into was from tollgate.routes r
  where r.model = route ->> 'model' and r.upstream_id = route ->> 'upstream_id'
  for no key update;
  if not found then
    was.id := tollgate.new_id('rte');
    was.priority := 50;
    was.weight := 1;
    was.listing := '{}';
    was.state := 'active';
    was := tollgate.with_fields(
      was,
      jsonb_build_object(
        'model', route -> 'model', 'upstream_model', route -> 'model', 'pricing', route -> 'pricing'
      ),
      array['model', 'upstream_model', 'pricing']
    );
  end if;
  made := tollgate.write_route(actor, was, route);
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'id', made.id,
    'created', was.created_at is null,
    'route', tollgate.route_shown(made)
  );
end
$$;

comment on function public.tollgate_put_route(jsonb, jsonb) is
  'Creates the route of a model to an upstream (upstream_id, or url for the oldest with this base_url), or changes its given fields. A repetition changes and records nothing. For admins and the console. Refuses: as recognise(), with_fields() and refuse_of_host(), not_found (the upstream). Locks the upstream against deletion, takes an advisory lock, so that two calls at once create one, and locks the row.';

select tollgate.expose('public.tollgate_put_route(jsonb, jsonb)');


create function public.tollgate_delete_route(caller jsonb, route_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  gone tollgate.routes;
begin
  select r.* into gone from tollgate.routes r
  where r.id = tollgate_delete_route.route_id or r.model = tollgate_delete_route.route_id
  order by r.id = tollgate_delete_route.route_id desc
  limit 1
  for update;
  if gone.id <> route_id and (select count(*) > 1 from tollgate.routes r where r.model = route_id) then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', 'several_routes', 'model', route_id, 'route_ids', (
        select jsonb_agg(r.id order by r.id) from tollgate.routes r where r.model = route_id
      )
    ));
  elsif gone.id is null then
    perform tollgate.refuse_missing('route', route_id);
  end if;
  perform tollgate.refuse_of_host(u) from tollgate.upstreams u where u.id = gone.upstream_id;
  perform tollgate.remove_route(actor, gone);
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', gone.id, 'model', gone.model);
end
$$;

comment on function public.tollgate_delete_route(jsonb, text) is
  'Deletes a route, named by its id or by its model if that has one route, and records it in full. For admins. Refuses: as recognise() and refuse_of_host(), not_found, conflict (the model has several routes). Locks the route.';

select tollgate.expose('public.tollgate_delete_route(jsonb, text)');


create function public.tollgate_route(caller jsonb, route_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_one tollgate.routes;
begin
  select r.* into found_one from tollgate.routes r where r.id = tollgate_route.route_id;
  if not found then
    perform tollgate.refuse_missing('route', route_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'route', tollgate.route_shown(found_one));
end
$$;

comment on function public.tollgate_route(jsonb, text) is
  'One route. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_route(jsonb, text)');


create function public.tollgate_routes(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.routes',
    'tollgate.route_shown',
    $where$
      ($1 ->> 'model' is null or e.model = $1 ->> 'model')
      and ($1 ->> 'upstream_id' is null or e.upstream_id = $1 ->> 'upstream_id')
      and ($1 ->> 'state' is null or e.state = $1 ->> 'state')
    $where$,
    '{"created_at": "e.created_at", "model": "e.model collate \"C\""}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_routes(jsonb, jsonb, integer) is
  'Routes to our own upstreams. `filters`: model, upstream_id, state, sort (created_at, model), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_routes(jsonb, jsonb, integer)');


-- schemas/08_upstreams/upstreams.sql

-- Upstreams: our own servers that answer completions.

create function tollgate.upstream_shown(u tollgate.upstreams) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', u.id,
    'name', u.name,
    'base_url', u.base_url,
    'dialect', u.dialect,
    'secret_name', u.secret_name,
    'concurrency', u.concurrency,
    'connect_seconds', u.connect_seconds,
    'first_byte_seconds', u.first_byte_seconds,
    'idle_seconds', u.idle_seconds,
    'health_path', u.health_path,
    'takes_org_keys', u.takes_org_keys,
    'host_id', u.host_id,
    'host_key_generation', u.host_key_generation,
    'state', u.state,
    'created_at', tollgate.utc(u.created_at),
    'updated_at', tollgate.utc(u.updated_at),
    'routes', (select count(*) from tollgate.routes r where r.upstream_id = u.id),
    'health', (select tollgate.probe_shown(p) - 'upstream_id' from tollgate.probes p where p.upstream_id = u.id)
  )
$$;

comment on function tollgate.upstream_shown(tollgate.upstreams) is
  'An upstream as operators see it: with the number of its routes, and its last probe.';


create function tollgate.refuse_of_host(u tollgate.upstreams) returns void
language plpgsql
set search_path = ''
as $$
begin
  if u.host_id is not null then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', 'of_host', 'kind', 'upstream', 'id', u.id, 'host_id', u.host_id
    ));
  end if;
end
$$;

comment on function tollgate.refuse_of_host(tollgate.upstreams) is
  'Refuses, with conflict, an operator''s change of an upstream that is a host''s: another address would get the key of the host.';


create function tollgate.write_upstream(actor tollgate.caller, was tollgate.upstreams, given jsonb)
returns tollgate.upstreams
language plpgsql
set search_path = ''
as $$
declare
  is_new constant boolean := was.created_at is null;
  made tollgate.upstreams := tollgate.with_fields(was, given, array[
    'name', 'base_url', 'dialect', 'secret_name', 'concurrency', 'connect_seconds', 'first_byte_seconds',
    'idle_seconds', 'health_path', 'state', 'takes_org_keys'
  ]);
begin
  if not is_new and made is not distinct from was then
    return was;
  end if;
  made.updated_at := now();
  if is_new then
    made.created_at := now();
    insert into tollgate.upstreams select made.*;
  else
    update tollgate.upstreams u set
      name = made.name, base_url = made.base_url, dialect = made.dialect, secret_name = made.secret_name,
      concurrency = made.concurrency, connect_seconds = made.connect_seconds,
      first_byte_seconds = made.first_byte_seconds, idle_seconds = made.idle_seconds,
      health_path = made.health_path, state = made.state, takes_org_keys = made.takes_org_keys,
      updated_at = made.updated_at
    where u.id = made.id;
  end if;
  perform tollgate.record(
    actor, case when is_new then 'upstream.created' else 'upstream.changed' end, null, made.id, given
  );
  return made;
end
$$;

comment on function tollgate.write_upstream(tollgate.caller, tollgate.upstreams, jsonb) is
  'Inserts an upstream that has no created_at yet, or changes the given fields of one that the calling function has locked, and records it. Changing nothing records nothing. Refuses: as with_fields().';


create function public.tollgate_put_upstream(caller jsonb, upstream jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  was tollgate.upstreams;
  made tollgate.upstreams;
begin
  perform pg_advisory_xact_lock(hashtextextended('tollgate.upstreams', 0));
  select u.* into was from tollgate.upstreams u where u.id = upstream ->> 'id' for no key update;
  perform tollgate.refuse_of_host(was);
  if was.id is null then
    was.connect_seconds := 5;
    was.first_byte_seconds := 120;
    was.idle_seconds := 120;
    was.state := 'active';
    was.takes_org_keys := false;
    was := tollgate.with_fields(
      was,
      jsonb_build_object(
        'id', coalesce(upstream ->> 'id', tollgate.new_id('ups')),
        'name', upstream -> 'name', 'base_url', upstream -> 'base_url', 'dialect', upstream -> 'dialect'
      ),
      array['id', 'name', 'base_url', 'dialect']
    );
  end if;
  made := tollgate.write_upstream(actor, was, upstream - 'id');
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'id', made.id,
    'created', was.created_at is null,
    'upstream', tollgate.upstream_shown(made)
  );
end
$$;

comment on function public.tollgate_put_upstream(jsonb, jsonb) is
  'Creates an upstream, or changes the given fields of the one with this id. A repetition changes and records nothing. For admins and the console. Refuses: as recognise(), with_fields() and refuse_of_host(). Takes an advisory lock, so that two calls at once create one, and locks the row.';

select tollgate.expose('public.tollgate_put_upstream(jsonb, jsonb)');


create function public.tollgate_change_upstream(caller jsonb, upstream_id text, changes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  was tollgate.upstreams;
begin
  select u.* into was from tollgate.upstreams u
  where u.id = tollgate_change_upstream.upstream_id for no key update;
  if not found then
    perform tollgate.refuse_missing('upstream', upstream_id);
  end if;
  perform tollgate.refuse_of_host(was);
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'upstream', tollgate.upstream_shown(tollgate.write_upstream(actor, was, changes))
  );
end
$$;

comment on function public.tollgate_change_upstream(jsonb, text, jsonb) is
  'Changes the given fields of an upstream. A repetition changes and records nothing. For admins. Refuses: as recognise(), with_fields() and refuse_of_host(), not_found. Locks the row.';

select tollgate.expose('public.tollgate_change_upstream(jsonb, text, jsonb)');


create function public.tollgate_delete_upstream(caller jsonb, upstream_id text, with_routes boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  gone tollgate.upstreams;
  route tollgate.routes;
  routes integer := 0;
begin
  select u.* into gone from tollgate.upstreams u where u.id = tollgate_delete_upstream.upstream_id for update;
  if not found then
    perform tollgate.refuse_missing('upstream', upstream_id);
  end if;
  perform tollgate.refuse_of_host(gone);

  for route in select r.* from tollgate.routes r where r.upstream_id = gone.id order by r.id for update loop
    perform tollgate.remove_route(actor, route);
    routes := routes + 1;
  end loop;
  if routes > 0 and not with_routes then -- the refusal rolls everything back
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', 'has_routes', 'kind', 'upstream', 'id', gone.id, 'routes', routes
    ));
  end if;

  delete from tollgate.upstreams u where u.id = gone.id;
  perform tollgate.record(
    actor, 'upstream.deleted', null, gone.id, to_jsonb(gone) - 'id' - 'created_at' - 'updated_at'
  );
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', gone.id, 'routes', routes);
end
$$;

comment on function public.tollgate_delete_upstream(jsonb, text, boolean) is
  'Deletes an upstream and, with `with_routes`, its routes; each is recorded in full. Requests keep its id. For admins. Refuses: as recognise() and refuse_of_host(), not_found, conflict (with the number of its routes). Locks the upstream, then its routes by id.';

select tollgate.expose('public.tollgate_delete_upstream(jsonb, text, boolean)');


create function public.tollgate_upstream(caller jsonb, upstream_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_one tollgate.upstreams;
begin
  select u.* into found_one from tollgate.upstreams u where u.id = tollgate_upstream.upstream_id;
  if not found then
    perform tollgate.refuse_missing('upstream', upstream_id);
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'upstream', tollgate.upstream_shown(found_one) || jsonb_build_object('checks', tollgate.past_probes_of(upstream_id))
  );
end
$$;

comment on function public.tollgate_upstream(jsonb, text) is
  'One upstream, with its last 50 probes. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_upstream(jsonb, text)');


create function public.tollgate_upstreams(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.upstreams',
    'tollgate.upstream_shown',
    $where$
      ($1 -> 'ids' is null or e.id in (select jsonb_array_elements_text($1 -> 'ids')))
      and ($1 ->> 'state' is null or e.state = $1 ->> 'state')
      and ($1 ->> 'dialect' is null or e.dialect = $1 ->> 'dialect')
    $where$,
    '{"created_at": "e.created_at", "name": "e.name collate \"C\""}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_upstreams(jsonb, jsonb, integer) is
  'Upstreams of our own, with the number of their routes and their last probe. `filters`: ids, state, dialect, sort (created_at, name), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_upstreams(jsonb, jsonb, integer)');


-- schemas/09_catalog/catalog.sql

-- The models of the catalog, and what the caller may see of them.

create function tollgate.listings_of(source text, names jsonb, within_seconds integer) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  age bigint;
  wanted text[];
  found jsonb;
begin
  select floor(extract(epoch from greatest(clock_timestamp() - s.taken_at, interval '0'))) into age
  from tollgate.snapshots s where s.source = listings_of.source;
  if age < within_seconds then
    if names is null then
      select jsonb_agg(l.listing order by l.position) into found
      from tollgate.listings l where l.source = listings_of.source;
    else
      wanted := array(select jsonb_array_elements_text(names));
      select jsonb_agg(l.listing order by l.position) into found
      from tollgate.listings l
      where l.source = listings_of.source and (l.id = any (wanted) or l.also = any (wanted));
    end if;
    found := coalesce(found, '[]');
  end if;
  return jsonb_build_object('age_seconds', age, 'models', found);
end
$$;

comment on function tollgate.listings_of(text, jsonb, integer) is
  'The age of a source''s snapshot and, if it is younger than `within_seconds`, its models of these names, or all.';


create function public.tollgate_catalog(source text, names jsonb, within_seconds integer) returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select tollgate.listings_of(source, w.names, within_seconds)
    || tollgate.routes_of(w.names)
    || jsonb_build_object('aliases', tollgate.aliases_of(nullif(tollgate_catalog.names, 'null')))
  from (select tollgate.with_targets(nullif(tollgate_catalog.names, 'null')) as names) w
$$;

comment on function public.tollgate_catalog(text, jsonb, integer) is
  'The catalog of models with these names, or of all: the snapshot''s age, its entries if it is younger than `within_seconds` (else null), the active routes to our own upstreams, and the active aliases. With names, the models that aliases of these names stand for are among them. Refuses nothing, locks nothing.';

select tollgate.expose('public.tollgate_catalog(text, jsonb, integer)');


create function public.tollgate_keep_catalog(source text, models jsonb, age_ms bigint) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  taken timestamptz := statement_timestamp() - make_interval(secs => greatest(age_ms, 0) / 1000.0);
begin
  insert into tollgate.snapshots (source, taken_at) values (tollgate_keep_catalog.source, '-infinity')
  on conflict do nothing;
  perform from tollgate.snapshots s
  where s.source = tollgate_keep_catalog.source and s.taken_at < taken
  for no key update;
  if not found then
    return jsonb_build_object('kept', false);
  end if;

  update tollgate.snapshots s set taken_at = taken where s.source = tollgate_keep_catalog.source;
  delete from tollgate.listings l
  where l.source = tollgate_keep_catalog.source
    and l.id not in (select m ->> 'id' from jsonb_array_elements(models) m);
  insert into tollgate.listings as l (source, id, also, position, listing)
  select tollgate_keep_catalog.source, m.value ->> 'id', m.value ->> 'also', m.ordinality, m.value ->> 'listing'
  from jsonb_array_elements(models) with ordinality m
  on conflict on constraint listings_pkey do update
    set also = excluded.also, position = excluded.position, listing = excluded.listing
    where (l.also, l.position, l.listing) is distinct from (excluded.also, excluded.position, excluded.listing);
  return jsonb_build_object('kept', true);
end
$$;

comment on function public.tollgate_keep_catalog(text, jsonb, bigint) is
  'Replaces a source''s snapshot by one taken `age_ms` ago, unless the stored one is newer. `models`: id, also, listing, in order, each id once. Refuses nothing. Locks the snapshot, so that of two calls at once the newer one stays.';

select tollgate.expose('public.tollgate_keep_catalog(text, jsonb, bigint)');


create function public.tollgate_catalog_caller(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'models');
begin
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'environment', k.environment,
      'allowed_models', to_jsonb(k.allowed_models),
      'allowed_models_of_org', to_jsonb(o.allowed_models),
      'default_model', o.default_model,
      'markup_ppm', coalesce(o.markup_ppm, p.markup_ppm)
    )
    from tollgate.api_keys k
    join tollgate.orgs o on o.id = k.org_id
    join tollgate.plans p on p.id = o.plan_id
    where k.id = actor.key_id
  );
end
$$;

comment on function public.tollgate_catalog_caller(jsonb) is
  'The caller of the catalog: its markup (null is the setting MARKUP), the models that its key and its org may use (null is all), and the org''s default model (null is the setting). Refuses: as recognise(). Locks nothing of the org.';

select tollgate.expose('public.tollgate_catalog_caller(jsonb)');


create function public.tollgate_default_model(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, touch => false);
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'default_model', (select o.default_model from tollgate.orgs o where o.id = actor.org_id)
  );
end
$$;

comment on function public.tollgate_default_model(jsonb) is
  'The default model of the caller''s org; null is the setting DEFAULT_MODEL. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_default_model(jsonb)');


create function public.tollgate_catalog_operator(caller jsonb, org_id text, plan text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  plan_id text := plan;
  own_ppm integer;
begin
  if org_id is not null then
    select o.plan_id, o.markup_ppm into plan_id, own_ppm
    from tollgate.orgs o where o.id = tollgate_catalog_operator.org_id;
    if not found then
      perform tollgate.refuse_missing('org', org_id);
    end if;
  elsif plan is not null and not exists (select from tollgate.plans p where p.id = plan) then
    perform tollgate.refuse_missing('plan', plan);
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'markup_ppm', coalesce(own_ppm, (select p.markup_ppm from tollgate.plans p where p.id = plan_id)),
    'upstreams', (
      select coalesce(jsonb_object_agg(u.id, jsonb_build_object('name', u.name, 'health', p.status)), '{}')
      from tollgate.upstreams u
      left join tollgate.probes p on p.upstream_id = u.id
    )
  );
end
$$;

comment on function public.tollgate_catalog_operator(jsonb, text, text) is
  'What an operator''s list of models needs besides the catalog: the markup of an org or a plan (null is the setting MARKUP), and the last health of our own upstreams. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_catalog_operator(jsonb, text, text)');


-- schemas/09_catalog/snapshots.sql

-- When a source's list of models was taken.

create function tollgate.snapshot_digest(source text) returns text
language sql
stable
set search_path = ''
as $$
  select md5(string_agg(l.id || ' ' || l.listing, e'\n' order by l.id))
  from tollgate.listings l where l.source = snapshot_digest.source
$$;

comment on function tollgate.snapshot_digest(text) is 'A digest of a snapshot''s models, independent of their order.';


create function tollgate.snapshot_shown(source text) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'source', s.source,
    'taken_at', tollgate.utc(s.taken_at),
    'age_seconds', floor(extract(epoch from greatest(clock_timestamp() - s.taken_at, interval '0')))::bigint,
    'models', (select count(*) from tollgate.listings l where l.source = s.source)
  )
  from tollgate.snapshots s where s.source = snapshot_shown.source
$$;

comment on function tollgate.snapshot_shown(text) is
  'The snapshot of a source''s models, which all instances share; null where there is none.';


create function public.tollgate_snapshot(caller jsonb, source text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'snapshot', tollgate.snapshot_shown(source),
    'digest', tollgate.snapshot_digest(source)
  );
end
$$;

comment on function public.tollgate_snapshot(jsonb, text) is
  'The snapshot of a source: when it was taken, how many models it has, and a digest of them. Nulls where there is none. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_snapshot(jsonb, text)');


create function public.tollgate_note_refresh(caller jsonb, source text, digest text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  snapshot jsonb := tollgate.snapshot_shown(source);
  changed boolean := tollgate.snapshot_digest(source) is distinct from digest;
begin
  perform tollgate.record(actor, 'catalog.refreshed', null, source,
    jsonb_build_object('models', snapshot -> 'models', 'changed', changed));
  return jsonb_build_object('caller', tollgate.identity(actor), 'snapshot', snapshot, 'changed', changed);
end
$$;

comment on function public.tollgate_note_refresh(jsonb, text, text) is
  'Records that an operator refreshed a source''s models, and tells whether they differ from the digest. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_note_refresh(jsonb, text, text)');


-- schemas/10_usage/aggregate.sql

-- Usage by time, org, user, key, model or upstream.

create function public.tollgate_usage_aggregate(
  caller jsonb,
  by jsonb,
  filters jsonb,
  page_size integer,
  everyone boolean
) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
set timezone = 'UTC'
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, case when everyone then 'admin' else 'usage' end);
  groups text[] := array(select jsonb_array_elements_text(by));
  sort constant text := filters ->> 'sort';
  since constant timestamptz := filters ->> 'from';
  until constant timestamptz := filters ->> 'to';
  scope constant jsonb := tollgate.own_or_all(actor, filters, everyone);
  refunds constant jsonb := tollgate.refunds_of(groups, since, until, scope);
  answer jsonb;
begin
  with used as materialized (
    select u.*,
      case when sort like '%:asc' then -1 else 1 end * case split_part(sort, ':', 1)
        when 'start' then extract(epoch from u.start)
        when 'requests' then u.requests when 'errors' then u.errors when 'tokens' then u.prompt_tokens + u.completion_tokens
        when 'charge' then u.charge_nanos when 'cost' then u.cost_nanos when 'margin' then u.charge_nanos - u.cost_nanos
      end as measure
    from tollgate.usage_by(groups, since, until, scope) u
    where u.requests > 0
  ),
  past as (
    select case when filters ? 'cursor' then (
      select p.place
      from (
        select tollgate.group_id(u.start, u.org_id, u.user_id, u.key_id, u.model, u.upstream) as id,
          row_number() over (
            order by u.measure desc, u.start, u.org_id, u.user_id, u.key_id, u.model, u.upstream
          ) as place
        from used u
      ) p
      where p.id = filters ->> 'cursor'
    ) else coalesce((filters ->> 'offset')::bigint, 0) end as place
  ),
  page as (
    select tollgate.group_shown(u::tollgate.usage, groups, everyone) as shown,
      tollgate.group_id(u.start, u.org_id, u.user_id, u.key_id, u.model, u.upstream) as id, row_number() over () as place
    from (
      select u.start, u.org_id, u.user_id, u.key_id, u.model, u.upstream, u.requests, u.errors, u.streamed, u.estimated,
        u.prompt_tokens, u.completion_tokens, u.charge_nanos, u.cost_nanos, u.last_at, u.cached_tokens, u.reasoning_tokens
      from used u
      order by u.measure desc, u.start, u.org_id, u.user_id, u.key_id, u.model, u.upstream
      offset (select p.place from past p)
      limit page_size
    ) u
  )
  select jsonb_build_object(
    'caller', tollgate.identity(actor),
    'data', (select coalesce(jsonb_agg(p.shown || tollgate.refunded(refunds, p.id) order by p.place), '[]') from page p),
    'next_cursor', (
      select p.id from page p
      where p.place = page_size and past.place + page_size < (select count(*) from used)
    ),
    'total', (select count(*) from used),
    'totals', tollgate.measures((
      select row(null, null, null, null, null, null, sum(u.requests), sum(u.errors), sum(u.streamed), sum(u.estimated),
        sum(u.prompt_tokens), sum(u.completion_tokens), sum(u.charge_nanos), sum(u.cost_nanos), null,
        sum(u.cached_tokens), sum(u.reasoning_tokens))::tollgate.usage from used u
    ), everyone) || jsonb_build_object('refunded_nanos', tollgate.sum_of(refunds)),
    'unknown', past.place is null
  ) into answer
  from past;
  if (answer -> 'unknown')::boolean then
    perform tollgate.refuse(400, 'invalid_request', '{"param": "cursor"}');
  end if;
  return answer - 'unknown';
end
$$;

comment on function public.tollgate_usage_aggregate(jsonb, jsonb, jsonb, integer, boolean) is
  'Usage by any of day, month, model, key, user, org, upstream, a page of groups and the totals of all: everyone''s for admins, or of the caller''s org without what it cost us. `filters`: org_id, user_id, key_id, model, upstream, from, to, cursor, offset, sort (start, requests, errors, tokens, charge, cost or margin). Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_usage_aggregate(jsonb, jsonb, jsonb, integer, boolean)');


create function tollgate.split_series(
  bucket text, by text, since timestamptz, until timestamptz, filters jsonb, everyone boolean
) returns jsonb
language sql
stable
set search_path = ''
as $$
  -- Of thousands of orgs, keys or users, only the five largest are read by their buckets.
  with used as materialized (
    select u.*, coalesce(u.org_id, u.user_id, u.key_id, u.model, u.upstream, '') as name
    from tollgate.usage_by(array[by], since, until, filters) u
    where u.requests > 0
  ),
  ranked as (
    select u.name, least(row_number() over (order by u.charge_nanos desc, u.requests desc, u.name), 6) as place
    from used u
  ),
  groups as (
    select r.place, row(
      null,
      min(u.org_id) filter (where r.place < 6), min(u.user_id) filter (where r.place < 6),
      min(u.key_id) filter (where r.place < 6), min(u.model) filter (where r.place < 6),
      min(u.upstream) filter (where r.place < 6),
      sum(u.requests), sum(u.errors), sum(u.streamed), sum(u.estimated), sum(u.prompt_tokens), sum(u.completion_tokens),
      sum(u.charge_nanos), sum(u.cost_nanos), max(u.last_at), sum(u.cached_tokens), sum(u.reasoning_tokens)
    )::tollgate.usage as used
    from used u
    join ranked r on r.name = u.name
    group by r.place
  ),
  largest as materialized (
    select r.place, u as used
    from ranked r
    cross join lateral tollgate.usage_by(array[bucket], since, until, filters || jsonb_build_object(
      case when by in ('org', 'user', 'key') then by || '_id' else by end, r.name
    )) u
    where r.place < 6
  ),
  points as (
    select l.place, (l.used).start, l.used from largest l
    union all
    select 6, u.start, row(
      u.start, null, null, null, null, null,
      u.requests - l.requests, u.errors - l.errors, u.streamed - l.streamed, u.estimated - l.estimated,
      u.prompt_tokens - l.prompt_tokens, u.completion_tokens - l.completion_tokens,
      u.charge_nanos - l.charge_nanos, u.cost_nanos - l.cost_nanos, null,
      u.cached_tokens - l.cached_tokens, u.reasoning_tokens - l.reasoning_tokens
    )::tollgate.usage
    from tollgate.usage_by(array[bucket], since, until, filters) u
    cross join lateral (
      select coalesce(sum((l.used).requests), 0) as requests, coalesce(sum((l.used).errors), 0) as errors,
        coalesce(sum((l.used).streamed), 0) as streamed, coalesce(sum((l.used).estimated), 0) as estimated,
        coalesce(sum((l.used).prompt_tokens), 0) as prompt_tokens,
        coalesce(sum((l.used).completion_tokens), 0) as completion_tokens,
        coalesce(sum((l.used).charge_nanos), 0) as charge_nanos, coalesce(sum((l.used).cost_nanos), 0) as cost_nanos,
        coalesce(sum((l.used).cached_tokens), 0) as cached_tokens,
        coalesce(sum((l.used).reasoning_tokens), 0) as reasoning_tokens
      from largest l
      where (l.used).start = u.start
    ) l
    where exists (select from ranked r where r.place = 6)
  )
  select coalesce(jsonb_agg(tollgate.group_shown(g.used, array[by], everyone) || jsonb_build_object(
    'is_rest', g.place = 6,
    'data', (
      select jsonb_agg(
        jsonb_build_object('start', tollgate.utc(s.start)) || tollgate.measures(p.used, everyone) order by s.start
      )
      from generate_series(since, until - interval '1 microsecond', ('1 ' || bucket)::interval) s (start)
      left join points p on p.place = g.place and p.start = s.start
    )
  ) order by g.place), '[]')
  from groups g
$$;

comment on function tollgate.split_series(text, text, timestamptz, timestamptz, jsonb, boolean) is
  'The series of the five groups with the highest charge, and that of all others together.';


create function public.tollgate_usage_series(caller jsonb, bucket text, filters jsonb, everyone boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
set work_mem = '64MB'
set timezone = 'UTC'
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, case when everyone then 'admin' else 'usage' end);
  beginning timestamptz := date_trunc(bucket, (filters ->> 'from')::timestamptz);
  ending timestamptz := coalesce((filters ->> 'to')::timestamptz, now());
  refunds constant jsonb := tollgate.refunds_of(
    array[bucket], beginning, ending, tollgate.own_or_all(actor, filters, everyone)
  );
begin
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'data', coalesce(jsonb_agg(
        jsonb_build_object('start', tollgate.utc(s.start)) || tollgate.measures(u, everyone)
          || tollgate.refunded(refunds, tollgate.group_id(s.start, null, null, null, null, null)) order by s.start
      ), '[]'),
      'groups', case when filters ? 'by' then tollgate.split_series(
        bucket, filters ->> 'by', beginning, ending, tollgate.own_or_all(actor, filters, everyone), everyone
      ) end
    )
    from generate_series(beginning, ending - interval '1 microsecond', ('1 ' || bucket)::interval) s (start)
    left join tollgate.usage_by(
      array[bucket], beginning, ending, tollgate.own_or_all(actor, filters, everyone)
    ) u on u.start = s.start
  );
end
$$;

comment on function public.tollgate_usage_series(jsonb, text, jsonb, boolean) is
  'Usage in every minute, hour or day from a time, moved back to where its bucket begins, until before another, empty ones included; the server bounds how many. Everyone''s for admins, or the caller''s org''s without what it cost us. `filters`: from (needed), to, org_id, user_id, key_id, model, upstream, and `by` for the same by one of model, key, user, org, upstream as `groups`. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_usage_series(jsonb, text, jsonb, boolean)');


-- schemas/10_usage/latency.sql

-- Latency of any period, and what it is read from.
--
-- tollgate.latency_between(kind text, since timestamptz, until timestamptz, filters jsonb) returns tollgate.latency
--   kind     whole | first_token
--   filters  org_id, user_id, key_id, model, upstream
-- A row: requests, average_ms, p50_ms, p90_ms, p95_ms, p99_ms, within 5 %.

create function tollgate.with_buckets(own jsonb, others jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_object_agg(s.bucket, jsonb_build_array(s.requests, s.total_ms))
  from (
    select b.key as bucket, sum((b.value -> 0)::bigint) as requests, sum((b.value -> 1)::bigint) as total_ms
    from (select * from jsonb_each(own) union all select * from jsonb_each(others)) b
    group by b.key
  ) s
$$;

comment on function tollgate.with_buckets(jsonb, jsonb) is 'The sums of two columns of buckets of tollgate.key_latencies; null where both are.';


create function tollgate.add_latencies(durations tollgate.duration[]) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.latencies as t (cut, start, kind, model, upstream, bucket, requests, total_ms)
  select c.cut, date_trunc(c.unit, d.hour, 'UTC'), d.kind,
    case when c.models then d.model else '' end, case when c.models then d.upstream else '' end,
    d.bucket, count(*), sum(d.ms)
  from unnest(durations) d
  cross join (values ('hour', 'hour', false), ('day', 'day', false), ('day_model', 'day', true)) c (cut, unit, models)
  group by 1, 2, 3, 4, 5, 6
  order by 1, 2, 3, 4, 5, 6
  on conflict on constraint latencies_pkey do update set
    requests = t.requests + excluded.requests,
    total_ms = t.total_ms + excluded.total_ms;

  insert into tollgate.key_latencies as t (org_id, start, key_id, user_id, model, upstream, whole, first_token)
  select b.org_id, b.day, b.key_id, b.user_id, b.model, b.upstream,
    jsonb_object_agg(b.bucket, jsonb_build_array(b.requests, b.ms)) filter (where b.kind = 'whole'),
    jsonb_object_agg(b.bucket, jsonb_build_array(b.requests, b.ms)) filter (where b.kind = 'first_token')
  from (
    select d.org_id, date_trunc('day', d.hour, 'UTC') as day, d.key_id, d.user_id, d.model, d.upstream, d.kind, d.bucket,
      count(*) as requests, sum(d.ms) as ms
    from unnest(durations) d
    group by 1, 2, 3, 4, 5, 6, 7, 8
  ) b
  group by 1, 2, 3, 4, 5, 6
  order by 1, 2, 3, 5, 6
  on conflict on constraint key_latencies_pkey do update set
    whole = tollgate.with_buckets(t.whole, excluded.whole),
    first_token = tollgate.with_buckets(t.first_token, excluded.first_token);
$$;

comment on function tollgate.add_latencies(tollgate.duration[]) is
  'Adds how long requests took to the latencies of all cuts, and to those of their keys.';


create function tollgate.latency_between(
  kind text,
  since timestamptz default null,
  until timestamptz default null,
  filters jsonb default '{}'
) returns tollgate.latency
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  models constant boolean := filters ?| '{model,upstream}';
  people constant boolean := filters ?| '{org_id,user_id,key_id}';
  units constant text[] := case when people or models then '{day}' else '{hour,day}' end;
  measured constant text := case kind when 'whole' then 'duration_ms' else 'first_token_ms' end;
  wanted constant text := tollgate.wanted(
    tollgate.with_org(filters), array['org_id', 'user_id', 'key_id', 'model', 'upstream']
  );
  raw constant text := format($raw$
    select floor(ln(greatest(t.%1$I, 1)::double precision) / ln(1.05::double precision))::integer as bucket,
      1 as requests, t.%1$I::bigint as total_ms
    from tollgate.requests t
    where t.%1$I is not null and t.settled_at is not null 
      and (t.error_code is not null or t.status >= 400) is not true %2$s $raw$, measured, wanted);
  rolled constant text := format(
    case when people then $of_keys$
      select b.key::integer, (b.value -> 0)::bigint, (b.value -> 1)::bigint
      from (select 'day' as cut, k.* from tollgate.key_latencies k) t
      cross join lateral jsonb_each(t.%1$I) b where true %2$s $of_keys$
    else 'select t.bucket, t.requests, t.total_ms from tollgate.latencies t where t.kind = %1$L %2$s' end, kind, wanted);
  parts text;
  found_latency tollgate.latency;
begin
  select string_agg(
    case p.of_what when 'request' then raw when 'late' then raw else rolled end
    || ' and ' || tollgate.in_piece(p, case when models and not people then '_model' else '' end),
    ' union all '
  ) into parts
  from tollgate.pieces(since, until, units) p;
  execute format(
    $query$
      with buckets as (
        select t.bucket, sum(t.requests) as requests, sum(t.total_ms) as total_ms
        from (
          %s
        ) t
        group by t.bucket
      ),
      ranked as (
        select b.*, sum(b.requests) over (order by b.bucket) as up_to, sum(b.requests) over () as of_all,
          round(b.total_ms / b.requests) as ms
        from buckets b
      )
      select
        coalesce(max(r.of_all), 0), round(sum(r.total_ms) / max(r.of_all), 1),
        min(r.ms) filter (where r.up_to >= 0.50 * r.of_all),
        min(r.ms) filter (where r.up_to >= 0.90 * r.of_all),
        min(r.ms) filter (where r.up_to >= 0.95 * r.of_all),
        min(r.ms) filter (where r.up_to >= 0.99 * r.of_all)
      from ranked r
    $query$,
    parts
  ) into found_latency;
  return found_latency;
end
$$;

comment on function tollgate.latency_between(text, timestamptz, timestamptz, jsonb) is
  'How long requests without an error took, in all or until their first token, within 5 %: a percentile is the mean of its bucket. Read from rolled up hours and days, and from whole days only for a model or upstream, or for an org, user or key. Parts of days are then read from the requests: the server bounds the span.';


create function public.tollgate_latency(caller jsonb, kind text, filters jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return to_jsonb(tollgate.latency_between(
    kind, (filters ->> 'from')::timestamptz, (filters ->> 'to')::timestamptz, filters
  )) || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_latency(jsonb, text, jsonb) is
  'How long requests took, whole or until their first token (`kind`: whole, first_token). For admins. `filters`: from, to, org_id, user_id, key_id, model, upstream. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_latency(jsonb, text, jsonb)');


create function public.tollgate_latency_series(caller jsonb, bucket text, filters jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  length constant interval := '1 ' || bucket;
  beginning constant timestamptz := date_trunc(bucket, (filters ->> 'from')::timestamptz);
  ending constant timestamptz := coalesce((filters ->> 'to')::timestamptz, now());
begin
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'data', coalesce(jsonb_agg(jsonb_build_object(
        'start', tollgate.utc(s.start),
        'latency', to_jsonb(tollgate.latency_between('whole', s.start, least(s.start + length, ending), filters)),
        'first_token', to_jsonb(tollgate.latency_between('first_token', s.start, least(s.start + length, ending), filters))
      ) order by s.start), '[]')
    )
    from generate_series(beginning, ending - interval '1 microsecond', length) s (start)
  );
end
$$;

comment on function public.tollgate_latency_series(jsonb, text, jsonb) is
  'How long requests took, whole and until their first token, in every hour or day of a span of time; the server bounds how many. For admins. `filters`: from (needed), to, org_id, user_id, key_id, model, upstream. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_latency_series(jsonb, text, jsonb)');


-- schemas/10_usage/of_keys.sql

-- What each key has used.

create function public.tollgate_keys_usage(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'usage');
  own constant jsonb := jsonb_build_object('org_id', actor.org_id);
  page constant jsonb := tollgate.page(
    'tollgate.api_keys',
    'tollgate.key_named',
    'true',
    '{"created_at": "e.created_at"}',
    'created_at:desc',
    filters || own,
    page_size,
    within => $where$ e.org_id = $1 ->> 'org_id' $where$
  );
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || page || jsonb_build_object('data', (
    select coalesce(jsonb_agg(
      k.value || jsonb_build_object(
        'today', tollgate.used(today), 'last_30_days', tollgate.used(month), 'all_time', tollgate.used(always)
      )
      order by k.ordinality
    ), '[]')
    from jsonb_array_elements(page -> 'data') with ordinality k
    left join tollgate.usage_by('{key}', date_trunc('day', now(), 'UTC'), null, own) today on today.key_id = k.value ->> 'id'
    left join tollgate.usage_by('{key}', date_trunc('hour', now()) - interval '30 days', null, own) month
      on month.key_id = k.value ->> 'id'
    left join tollgate.usage_by('{key}', null, null, own) always on always.key_id = k.value ->> 'id'
  ));
end
$$;

comment on function public.tollgate_keys_usage(jsonb, jsonb, integer) is
  'The keys of the caller''s org, newest first, with what each used today (UTC), in 30 days and ever. `filters`: cursor. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_keys_usage(jsonb, jsonb, integer)');


create function public.tollgate_keys_with_usage(
  caller jsonb,
  filters jsonb,
  page_size integer,
  scope text default 'keys'
) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
as $$
declare
  page constant jsonb := public.tollgate_keys(caller, filters - 'include', page_size, scope);
begin
  return page || jsonb_build_object('data', (
    select coalesce(jsonb_agg(
      k.value || jsonb_build_object('usage', jsonb_build_object(
        'requests', coalesce(u.requests, 0),
        'prompt_tokens', coalesce(u.prompt_tokens, 0),
        'completion_tokens', coalesce(u.completion_tokens, 0),
        'charge_nanos', coalesce(u.charge_nanos, 0),
        'last_request_at', tollgate.utc(u.last_at)
      ))
      order by k.ordinality
    ), '[]')
    from jsonb_array_elements(page -> 'data') with ordinality k
    left join (
      select used.*
      from (select distinct e.value ->> 'org_id' as org_id from jsonb_array_elements(page -> 'data') e) o,
      lateral tollgate.usage_by('{key}', null, null, jsonb_build_object('org_id', o.org_id)) used
    ) u on u.key_id = k.value ->> 'id'
  ));
end
$$;

comment on function public.tollgate_keys_with_usage(jsonb, jsonb, integer, text) is
  'As tollgate_keys(), with what each key has used since it was made. Refuses: as tollgate_keys(). Locks nothing.';

select tollgate.expose('public.tollgate_keys_with_usage(jsonb, jsonb, integer, text)');


-- schemas/10_usage/pieces.sql

-- Usage of any span of time, read from as few rows as possible: months, days, hours, then requests.
--
-- tollgate.usage_by(by text[], since timestamptz, until timestamptz, filters jsonb) returns setof tollgate.usage
--   by       any of minute, hour, day, month, org, user, key, model, upstream; '{}' is one row of everything, or none
--   since    counted from here; null is from the beginning
--   until    to before here; null is until now
--   filters  org_id, user_id, key_id, model, upstream, each optional
-- A row: start (of the minute, hour, day or month, UTC), org_id, user_id, key_id, model, upstream (null unless asked
-- for), requests, errors, streamed, estimated, prompt_tokens, completion_tokens, charge_nanos, cost_nanos, last_at,
-- cached_tokens (of the prompt), reasoning_tokens (of the completion).
--
-- It is stable, so it reads one snapshot: rolled up rows and the others add up exactly. A request counts at the time of its
-- admission, from then on, with what is known of it. Whole days and months are cheap, and so is all time; minutes and
-- parts of hours are read from the requests.

create function tollgate.pieces(since timestamptz, until timestamptz, units text[]) returns setof tollgate.piece
language plpgsql
stable
set search_path = ''
as $$
declare
  state tollgate.rolled;
  piece tollgate.piece := row('request', coalesce(since, '-infinity'), coalesce(until, 'infinity'));
  unit text;
  within tollgate.piece;
begin
  select r.* into state from tollgate.rolled r;
  if piece.beginning < state.dropped_until then
    piece.beginning := tollgate.first_of('hour', piece.beginning);
  end if;
  if piece.ending < state.dropped_until then
    piece.ending := tollgate.first_of('hour', piece.ending);
  end if;

  -- From the ends inwards: whole units in the middle, and on both sides the rest, in the next finer unit.
  foreach unit in array units loop
    within.of_what := unit;
    within.beginning := tollgate.first_of(unit, piece.beginning);
    -- The current day has a row of what is rolled up, so up to there it counts as a whole unit.
    within.ending := case when piece.ending >= state.rolled_until then state.rolled_until
      else date_trunc(unit, piece.ending, 'UTC') end;
    exit when within.beginning >= within.ending;
    return query select p.* from (values
      (piece.of_what, piece.beginning, within.beginning),
      (piece.of_what, within.ending, piece.ending),
      (case piece.of_what when 'request' then 'late' end, within.beginning, within.ending)
    ) p (of_what, beginning, ending)
    where p.of_what is not null and p.beginning < p.ending;
    piece := within;
  end loop;
  return next piece;
end
$$;

comment on function tollgate.pieces(timestamptz, timestamptz, text[]) is
  'Divides a span of time into adjacent pieces: the coarsest unit (of hour, day, month; `units` lists the finest first) in the middle, finer units toward the ends, and requests where no unit fits or nothing is rolled up. The piece `late` covers the rolled up part: requests that it does not count yet. Where requests were dropped, both ends move to the next full hour, so that adjacent spans never count an hour twice.';


create function tollgate.in_piece(piece tollgate.piece, grain text) returns text
language sql
immutable
set search_path = ''
as $$
  select case piece.of_what
    when 'request' then format('t.created_at >= %L and t.created_at < %L', piece.beginning, piece.ending)
    when 'late' then format(
      't.id = any (array(select l.request_id from tollgate.late_requests l where l.created_at >= %L and l.created_at < %L))',
      piece.beginning, piece.ending
    )
    else format('t.cut = %L and t.start >= %L and t.start < %L', piece.of_what || grain, piece.beginning, piece.ending)
  end
$$;

comment on function tollgate.in_piece(tollgate.piece, text) is
  'A piece as a condition on `t`: on requests or, for a unit, on the tallies or latencies of that grain.';


create function tollgate.wanted(filters jsonb, columns text[]) returns text
language sql
immutable
set search_path = ''
as $$
  select coalesce(string_agg(format(
    case f.value when '' then ' and coalesce(t.%I, '''') = %L' else ' and t.%I = %L' end, f.key, f.value
  ), '' order by f.key), '')
  from jsonb_each_text(filters) f
  where f.key = any (columns)
$$;

comment on function tollgate.wanted(jsonb, text[]) is 'The filters on these columns as an SQL condition on `t`. An empty value is that of requests without one. Values are quoted as literals.';


create function tollgate.with_org(filters jsonb) returns jsonb
language sql
stable
set search_path = ''
as $$
  select filters || jsonb_strip_nulls(jsonb_build_object('org_id', coalesce(
    filters ->> 'org_id',
    (select k.org_id from tollgate.api_keys k where k.id = filters ->> 'key_id'),
    (select u.org_id from tollgate.users u where u.id = filters ->> 'user_id')
  )))
$$;

comment on function tollgate.with_org(jsonb) is
  'The filters, and the org of their key or user: its index finds the requests.';


create function tollgate.usage_by(
  by text[],
  since timestamptz default null,
  until timestamptz default null,
  filters jsonb default '{}'
) returns setof tollgate.usage
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  unit constant text := (select u from unnest(array['minute', 'hour', 'day', 'month']) u where u = any (by) limit 1);
  units constant text[] := case unit when 'minute' then '{}' when 'hour' then '{hour}' when 'day' then '{hour,day}'
    else '{hour,day,month}' end;
  people constant boolean := by && '{org,user,key}' or filters ?| '{org_id,user_id,key_id}';
  models constant boolean := by && '{model,upstream}' or filters ?| '{model,upstream}';
  wanted constant text := tollgate.wanted(
    tollgate.with_org(filters), array['org_id', 'user_id', 'key_id', 'model', 'upstream']
  );
  raw constant text := $raw$
    select t.created_at as start, t.org_id, t.user_id, t.key_id, t.model, coalesce(t.upstream, '') as upstream,
      1 as requests, ((t.error_code is not null or t.status >= 400) is true)::integer as errors,
      t.streamed::integer as streamed, t.estimated::integer as estimated,
      t.prompt_tokens::bigint, t.completion_tokens::bigint, t.charge_nanos::bigint, t.cost_nanos::bigint, t.created_at as last_at,
      tollgate.cached_tokens(t.usage, t.prompt_tokens) as cached_tokens,
      tollgate.reasoning_tokens(t.usage, t.completion_tokens) as reasoning_tokens
    from tollgate.requests t where $raw$;
  tallied constant text := $tallied$
    select t.start, t.org_id, t.user_id, t.key_id, t.model, t.upstream, t.requests, t.errors, t.streamed, t.estimated,
      t.prompt_tokens, t.completion_tokens, t.charge_nanos, t.cost_nanos, t.last_at, t.cached_tokens, t.reasoning_tokens
    from tollgate.tallies t where $tallied$;
  selected constant text := concat_ws(', ',
    case when unit is null then 'null::timestamptz' else format('date_trunc(%L, t.start, ''UTC'')', unit) end,
    case when 'org' = any (by) then 't.org_id' else 'null::text' end,
    case when 'user' = any (by) then 't.user_id' else 'null::text' end,
    case when 'key' = any (by) then 't.key_id' else 'null::text' end,
    case when 'model' = any (by) then 't.model' else 'null::text' end,
    case when 'upstream' = any (by) then 'nullif(t.upstream, '''')' else 'null::text' end
  );
  parts text;
begin
  select string_agg(
    case p.of_what when 'request' then raw when 'late' then raw else tallied end
    || tollgate.in_piece(p, case when not people then '_model' when models or p.of_what = 'hour' then '' else '_key' end)
    || wanted,
    ' union all '
  ) into parts
  from tollgate.pieces(since, until, units) p;
  return query execute format(
    $query$
      select %1$s,
        coalesce(sum(t.requests), 0)::bigint, coalesce(sum(t.errors), 0)::bigint,
        coalesce(sum(t.streamed), 0)::bigint, coalesce(sum(t.estimated), 0)::bigint,
        coalesce(sum(t.prompt_tokens), 0)::bigint, coalesce(sum(t.completion_tokens), 0)::bigint,
        coalesce(sum(t.charge_nanos), 0)::bigint, coalesce(sum(t.cost_nanos), 0)::bigint, max(t.last_at),
        coalesce(sum(t.cached_tokens), 0)::bigint, coalesce(sum(t.reasoning_tokens), 0)::bigint
      from (%2$s) t
      group by %3$s
    $query$,
    selected, parts, case when by = '{}' then '()' else '1, 2, 3, 4, 5, 6' end
  );
end
$$;

comment on function tollgate.usage_by(text[], timestamptz, timestamptz, jsonb) is
  'What was used in a span of time, by any of minute, hour, day, month, org, user, key, model, upstream. Reads rolled up hours, days and months where whole ones lie within, and requests at the ends, after what was rolled up, and where they are late: each request counts exactly once. Where requests were dropped, an hour counts when it begins within the span.';


-- schemas/10_usage/refunds.sql

-- Refunds, counted with the requests that they refund.

create function tollgate.refunds_by(by text[], since timestamptz, until timestamptz, filters jsonb) returns table (
  start timestamptz, org_id text, user_id text, key_id text, model text, upstream text, nanos numeric
)
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  unit constant text := (select u from unnest(array['minute', 'hour', 'day', 'month']) u where u = any (by) limit 1);
begin
  return query execute format(
    $query$
      select %1$s, sum(f.amount_nanos)
      from tollgate.transfers f
      join tollgate.requests t on t.id = tollgate.request_of(f)
      where f.kind <> 'charge' and f.kind = 'refund' and f.reference not like '%%:late'
        and f.created_at >= coalesce($1, '-infinity')
        and t.created_at >= coalesce($1, '-infinity') and t.created_at < coalesce($2, 'infinity') %2$s
      group by 1, 2, 3, 4, 5, 6
    $query$,
    concat_ws(', ',
      case when unit is null then 'null::timestamptz' else format('date_trunc(%L, t.created_at, ''UTC'')', unit) end,
      case when 'org' = any (by) then 't.org_id' else 'null::text' end,
      case when 'user' = any (by) then 't.user_id' else 'null::text' end,
      case when 'key' = any (by) then 't.key_id' else 'null::text' end,
      case when 'model' = any (by) then 't.model' else 'null::text' end,
      case when 'upstream' = any (by) then 't.upstream' else 'null::text' end
    ),
    tollgate.wanted(filters, array['org_id', 'user_id', 'key_id', 'model', 'upstream'])
  ) using since, until;
end
$$;

comment on function tollgate.refunds_by(text[], timestamptz, timestamptz, jsonb) is
  'What operators have refunded of the requests made in a span of time, grouped as usage_by() groups them. Refunds of requests that retention dropped are left out. Refunds are few: they are read one by one, from the index of transfers that are no charges.';


create function tollgate.refunded(refunds jsonb, group_id text) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('refunded_nanos', coalesce(refunds -> group_id, '0'))
$$;

comment on function tollgate.refunded(jsonb, text) is 'The refunds of a group, from those of refunds_of().';


create function tollgate.refunds_of(by text[], since timestamptz, until timestamptz, filters jsonb) returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(
    jsonb_object_agg(tollgate.group_id(r.start, r.org_id, r.user_id, r.key_id, r.model, r.upstream), r.nanos), '{}'
  )
  from tollgate.refunds_by(by, since, until, filters) r
$$;

comment on function tollgate.refunds_of(text[], timestamptz, timestamptz, jsonb) is
  'The refunds of refunds_by() by the id of their group: few, where there may be many groups.';


create function tollgate.sum_of(refunds jsonb) returns numeric
language sql
immutable
set search_path = ''
as $$
  select coalesce(sum(r.value::numeric), 0) from jsonb_each(refunds) r
$$;

comment on function tollgate.sum_of(jsonb) is 'All refunds of refunds_of() together.';


-- schemas/10_usage/requests.sql

-- Lists of requests.

create function tollgate.request_shown(r tollgate.requests) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'id', r.id,
    'created_at', tollgate.utc(r.created_at),
    'org_id', r.org_id,
    'org_name', (select o.name from tollgate.orgs o where o.id = r.org_id),
    'user_id', r.user_id,
    'key_id', r.key_id,
    'endpoint', r.endpoint,
    'model', r.model,
    'alias', r.alias,
    'served_model', r.served_model,
    'upstream', r.upstream,
    'state', r.state,
    'status', r.status,
    'error_code', r.error_code,
    'streamed', r.streamed,
    'estimated', r.estimated,
    'quarantined', r.quarantined,
    'is_byok', r.is_byok,
    'prompt_tokens', r.prompt_tokens,
    'completion_tokens', r.completion_tokens,
    'cached', r.cached,
    'cached_tokens', tollgate.cached_tokens(r.usage, r.prompt_tokens),
    'reasoning_tokens', tollgate.reasoning_tokens(r.usage, r.completion_tokens),
    'charge_nanos', r.charge_nanos,
    'cost_nanos', r.cost_nanos,
    'generation_id', r.generation_id,
    'duration_ms', r.duration_ms,
    'first_token_ms', r.first_token_ms,
    'settled_at', tollgate.utc(r.settled_at)
  );
end
$$;

comment on function tollgate.request_shown(tollgate.requests) is 'A request as operators see it.';


create function tollgate.own_request_shown(r tollgate.requests) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return tollgate.request_shown(r) - array['cost_nanos', 'org_name'];
end
$$;

comment on function tollgate.own_request_shown(tollgate.requests) is
  'A request as its org sees it: without what it cost us.';


create function tollgate.request_page(
  filters jsonb,
  page_size integer,
  everyone boolean,
  most_read integer default 50000
) returns jsonb
language sql
stable
set search_path = ''
as $$
  select tollgate.page(
    'tollgate.requests',
    case when everyone then 'tollgate.request_shown' else 'tollgate.own_request_shown' end::regproc,
    $where$
      ($1 ->> 'id' is null or e.id = $1 ->> 'id')
      and ($1 ->> 'generation_id' is null or e.generation_id = $1 ->> 'generation_id')
      and ($1 ->> 'user_id' is null or e.user_id = $1 ->> 'user_id')
      and ($1 ->> 'key_id' is null or e.key_id = $1 ->> 'key_id')
      and ($1 ->> 'model' is null or e.model = $1 ->> 'model')
      and ($1 ->> 'upstream' is null or e.upstream = $1 ->> 'upstream')
      and ($1 ->> 'endpoint' is null or e.endpoint = $1 ->> 'endpoint')
      and ($1 ->> 'state' is null or e.state = $1 ->> 'state')
      and ($1 ->> 'streamed' is null or e.streamed = ($1 ->> 'streamed')::boolean)
      and ($1 ->> 'estimated' is null or e.estimated = ($1 ->> 'estimated')::boolean)
      and ($1 ->> 'cached' is null or coalesce(e.cached, false) = ($1 ->> 'cached')::boolean)
      and (
        $1 ->> 'prompt_cached' is null
        or (tollgate.cached_tokens(e.usage, e.prompt_tokens) > 0) = ($1 ->> 'prompt_cached')::boolean
      )
      and case
        when $1 ->> 'status' is null then true
        when $1 ->> 'status' like '_xx' then e.status / 100 = left($1 ->> 'status', 1)::integer
        else e.status = ($1 ->> 'status')::integer
      end
    $where$,
    '{"created_at": "e.created_at"}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    tollgate.with_org(filters) || jsonb_build_object('kept_from', r.dropped_until),
    page_size,
    within => $where$
      ($1 ->> 'org_id' is null or e.org_id = $1 ->> 'org_id')
      and e.created_at >= greatest(($1 ->> 'from')::timestamptz, ($1 ->> 'kept_from')::timestamptz)
      and ($1 ->> 'to' is null or e.created_at < ($1 ->> 'to')::timestamptz)
      and ($1 ->> 'quarantined' is distinct from 'true' or e.quarantined)
      and ($1 ->> 'quarantined' is distinct from 'false' or not e.quarantined)
    $where$,
    counted => false,
    most_read => most_read
  )
  from tollgate.rolled r
$$;

comment on function tollgate.request_page(jsonb, integer, boolean, integer) is
  'A page of requests. `filters` as for tollgate_requests(). Reads at most most_read requests: where too few of them are wanted, the page is short, even empty, and next_cursor is the last one that was read. Refuses: as page().';


create function public.tollgate_requests(
  caller jsonb,
  filters jsonb,
  page_size integer,
  everyone boolean
) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, case when everyone then 'admin' else 'usage' end);
begin
  return tollgate.request_page(tollgate.own_or_all(actor, filters, everyone), page_size, everyone)
    || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_requests(jsonb, jsonb, integer, boolean) is
  'A page of requests: everyone''s for admins, or those of the caller''s org without what they cost us. `filters`: model, key_id, user_id, org_id, upstream, endpoint, status (a code, or 4xx), state, streamed, estimated, quarantined, cached, prompt_cached, from, to, sort (created_at), cursor, offset. A page may be short, or empty, while next_cursor says that there is more to read. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_requests(jsonb, jsonb, integer, boolean)');


-- schemas/10_usage/shown.sql

-- Usage as JSON.

create function tollgate.group_id(start timestamptz, org_id text, user_id text, key_id text, model text, upstream text) returns text
language sql
immutable
set search_path = ''
as $$
  select md5(jsonb_build_array(start, org_id, user_id, key_id, model, upstream)::text)
$$;

comment on function tollgate.group_id(timestamptz, text, text, text, text, text) is 'The cursor of a group of usage.';


create function tollgate.group_shown(u tollgate.usage, groups text[], everyone boolean) returns jsonb
language sql
stable
set search_path = ''
as $$
  select (
    select jsonb_object_agg(d.name, d.value)
    from (values
      ('day', 'start', tollgate.utc(u.start)),
      ('month', 'start', tollgate.utc(u.start)),
      ('org', 'org_id', u.org_id),
      ('org', 'org_name', (select o.name from tollgate.orgs o where o.id = u.org_id)),
      ('user', 'user_id', u.user_id),
      ('user', 'user_email', (select p.email from tollgate.users p where p.id = u.user_id)),
      ('key', 'key_id', u.key_id),
      ('key', 'key_name', (select k.name from tollgate.api_keys k where k.id = u.key_id)),
      ('model', 'model', u.model),
      ('upstream', 'upstream', u.upstream)
    ) d (of_group, name, value)
    where d.of_group = any (groups)
  ) || tollgate.measures(u, everyone) || jsonb_build_object('last_request_at', tollgate.utc(u.last_at))
$$;

comment on function tollgate.group_shown(tollgate.usage, text[], boolean) is
  'A group of usage, with the names of what it is grouped by.';


create function tollgate.measures(used tollgate.usage, everyone boolean) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'requests', coalesce(used.requests, 0),
    'errors', coalesce(used.errors, 0),
    'streamed', coalesce(used.streamed, 0),
    'estimated', coalesce(used.estimated, 0),
    'prompt_tokens', coalesce(used.prompt_tokens, 0),
    'completion_tokens', coalesce(used.completion_tokens, 0),
    'cached_tokens', coalesce(used.cached_tokens, 0),
    'reasoning_tokens', coalesce(used.reasoning_tokens, 0),
    'charge_nanos', m.charge
  ) || case when everyone then jsonb_build_object(
    'cost_nanos', m.cost,
    'margin_nanos', m.charge - m.cost
  ) else '{}' end
  from (select coalesce(used.charge_nanos, 0) as charge, coalesce(used.cost_nanos, 0) as cost) m
$$;

comment on function tollgate.measures(tollgate.usage, boolean) is
  'What was used, as answers show it, zeros for none; cost and margin only where it is everyone''s.';


create function tollgate.used(used tollgate.usage) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'requests', coalesce(used.requests, 0),
    'tokens', coalesce(used.prompt_tokens + used.completion_tokens, 0),
    'charge_nanos', coalesce(used.charge_nanos, 0)
  )
$$;

comment on function tollgate.used(tollgate.usage) is 'What was used, as a summary.';


create function tollgate.own_or_all(actor tollgate.caller, filters jsonb, everyone boolean) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select case when everyone then filters else filters || jsonb_build_object('org_id', coalesce(actor.org_id, '')) end
$$;

comment on function tollgate.own_or_all(tollgate.caller, jsonb, boolean) is
  'The filters, limited to the caller''s own org unless everyone''s are asked for.';


create function tollgate.used_since(since timestamptz, filters jsonb) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'requests', coalesce(sum(u.requests), 0),
    'errors', coalesce(sum(u.errors), 0),
    'prompt_tokens', coalesce(sum(u.prompt_tokens), 0),
    'completion_tokens', coalesce(sum(u.completion_tokens), 0),
    'charge_nanos', coalesce(sum(u.charge_nanos), 0),
    'cost_nanos', coalesce(sum(u.cost_nanos), 0),
    'most_used_model', (array_agg(u.model order by u.requests desc, u.model))[1],
    'last_request_at', tollgate.utc(max(u.last_at))
  )
  from tollgate.usage_by('{model}', since, null, filters) u
$$;

comment on function tollgate.used_since(timestamptz, jsonb) is
  'What was used from a moment on (null is the beginning), the model with the most requests, and the time of the last request.';


-- schemas/10_usage/token_details.sql

-- What the usage of an answer says of its tokens. The columns of a request have their sums only.

create function tollgate.cached_tokens(usage jsonb, prompt_tokens bigint) returns bigint
language plpgsql
immutable
set search_path = ''
as $$
begin
  return least(coalesce(prompt_tokens, 0), greatest(0, coalesce(
    jsonb_path_query_first(usage, '$.*.cached_tokens ? (@.type() == "number")'),
    jsonb_path_query_first(usage, '$.cache_read_input_tokens ? (@.type() == "number")')
  )::numeric));
end
$$;

comment on function tollgate.cached_tokens(jsonb, bigint) is
  'How many tokens of the prompt the upstream read from its cache, as chat completions, Responses or Messages state it: never more than the prompt has.';


create function tollgate.reasoning_tokens(usage jsonb, completion_tokens bigint) returns bigint
language plpgsql
immutable
set search_path = ''
as $$
begin
  return least(coalesce(completion_tokens, 0), greatest(0, coalesce(
    jsonb_path_query_first(usage, '$.*.reasoning_tokens ? (@.type() == "number")'),
    jsonb_path_query_first(usage, '$.*.thinking_tokens ? (@.type() == "number")')
  )::numeric));
end
$$;

comment on function tollgate.reasoning_tokens(jsonb, bigint) is
  'How many tokens of the completion were reasoning, as chat completions, Responses or Messages state it: never more than the completion has.';


-- schemas/11_cache/entries.sql

-- Looks answers up, and stores them. In all of these functions, the caller holds the lock of the org.

create function tollgate.drop_entries(org_id text, cache_keys text[]) returns bigint
language plpgsql
set search_path = ''
as $$
declare
  gone bigint;
begin
  with dropped as (
    delete from tollgate.cache_entries e
    where e.org_id = drop_entries.org_id and e.cache_key = any (cache_keys)
    returning e.answer is not null as is_filled, e.bytes
  ),
  summed as (
    select count(*) filter (where d.is_filled) as entries, coalesce(sum(d.bytes), 0) as bytes from dropped d
  ),
  resized as (
    update tollgate.cache_sizes s set entries = s.entries - d.entries, bytes = s.bytes - d.bytes
    from summed d
    where s.org_id = drop_entries.org_id
  )
  select d.entries into gone from summed d;
  return gone;
end
$$;

comment on function tollgate.drop_entries(text, text[]) is
  'Deletes entries of an org, and returns how many had an answer. A request that was to fill one of them fills nothing.';


create function tollgate.look_up_answer(org_id text, wish jsonb, moment timestamptz) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  entry tollgate.cache_entries;
  charge bigint;
begin
  select e.* into entry from tollgate.cache_entries e
  where e.org_id = look_up_answer.org_id and e.cache_key = wish ->> 'key';
  if entry.expires_at <= moment then
    perform tollgate.drop_entries(org_id, array[entry.cache_key]);
    return '{}';
  elsif (wish ->> 'reads')::boolean is not true then
    return '{}';
  elsif entry.request_id is not null then
    charge := ceil(entry.charge_nanos::numeric * (wish ->> 'hit_share_ppm')::integer / 1000000);
    return jsonb_build_object('hit', jsonb_build_object(
      'request_id', entry.request_id,
      'charge_nanos', charge,
      'saved_nanos', entry.charge_nanos - charge,
      'served_model', entry.served_model,
      'age_seconds', floor(extract(epoch from moment - entry.filled_at)),
      'expires_in_seconds', ceil(extract(epoch from entry.expires_at - moment)),
      'answer', case when entry.request_id is distinct from wish ->> 'held' then entry.answer end
    ));
  elsif entry.filler_until > moment and (wish ->> 'waits')::boolean
    and coalesce(wish ->> 'waited_for', entry.filler_id) = entry.filler_id
  then
    return jsonb_build_object('wait', jsonb_build_object('request_id', entry.filler_id));
  end if;
  return '{}';
end
$$;

comment on function tollgate.look_up_answer(text, jsonb, timestamptz) is
  'What the cache has for a request: a hit with its answer, or without it where the server holds that of the same request already; the request to wait for, once; or neither. `wish` has key, reads, waits, waited_for, held, hit_share_ppm.';


create function tollgate.begin_entry(org_id text, key_id text, item jsonb, moment timestamptz) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.cache_entries as e (
    org_id, cache_key, endpoint, model, key_id, begun_at, filler_id, filler_until, expires_at
  ) values (
    org_id, item -> 'cache' ->> 'key', item ->> 'endpoint', item ->> 'model', key_id, moment, item ->> 'id',
    moment + make_interval(secs => (item -> 'cache' ->> 'wait_seconds')::double precision),
    moment + make_interval(secs => (item ->> 'ttl_seconds')::double precision)
  )
  on conflict on constraint cache_entries_pkey do update set
    filler_id = excluded.filler_id,
    filler_until = excluded.filler_until,
    expires_at = case when e.request_id is null then excluded.expires_at else e.expires_at end
$$;

comment on function tollgate.begin_entry(text, text, jsonb, timestamptz) is
  'Stores which request will fill an entry. An answer that is there stays until then. An entry that is never filled expires with the hold of the request.';


create function tollgate.leave_entry(org_id text, cache_key text, request_id text) returns void
language sql
set search_path = ''
as $$
  update tollgate.cache_entries e set filler_until = null
  where e.org_id = leave_entry.org_id and e.cache_key = leave_entry.cache_key and e.filler_id = leave_entry.request_id
$$;

comment on function tollgate.leave_entry(text, text, text) is
  'A request has ended without an answer to store: nobody waits for it any longer.';


create function tollgate.make_room(org_id text, most_bytes bigint) returns void
language plpgsql
set search_path = ''
as $$
declare
  excess constant bigint := (select s.bytes from tollgate.cache_sizes s where s.org_id = make_room.org_id) - most_bytes;
  oldest text[];
begin
  if excess > 0 then
    select array_agg(o.cache_key) into oldest
    from (
      select e.cache_key, sum(e.bytes) over (order by e.filled_at, e.cache_key) - e.bytes as before
      from (
        select n.cache_key, n.bytes, n.filled_at from tollgate.cache_entries n
        where n.org_id = make_room.org_id and n.filled_at is not null
        order by n.filled_at, n.cache_key
        limit 1000
      ) e
    ) o
    where o.before < excess;
    perform tollgate.drop_entries(org_id, oldest);
  end if;
end
$$;

comment on function tollgate.make_room(text, bigint) is
  'Deletes the oldest answers of an org, at most 1,000, until the rest is within most_bytes.';


create function tollgate.fill_entry(
  org_id text,
  key_id text,
  request_id text,
  began timestamptz,
  item jsonb,
  moment timestamptz
) returns void
language plpgsql
set search_path = ''
as $$
declare
  wish constant jsonb := item -> 'cache';
  size constant bigint := octet_length(wish ->> 'answer');
  before record;
begin
  select e.begun_at, e.request_id is not null as is_filled, e.bytes into before
  from tollgate.cache_entries e
  where e.org_id = fill_entry.org_id and e.cache_key = wish ->> 'key';
  if before.begun_at is null or before.begun_at > began or size > (wish ->> 'most_bytes')::bigint then
    perform tollgate.leave_entry(org_id, wish ->> 'key', request_id);
    return;
  end if;
  update tollgate.cache_entries e set
    key_id = fill_entry.key_id,
    filler_id = null,
    filler_until = null,
    request_id = fill_entry.request_id,
    answer = wish -> 'answer',
    bytes = size,
    served_model = item ->> 'served_model',
    charge_nanos = (item ->> 'charge_nanos')::bigint,
    filled_at = moment,
    expires_at = moment + make_interval(secs => (wish ->> 'ttl_seconds')::double precision)
  where e.org_id = fill_entry.org_id and e.cache_key = wish ->> 'key';
  insert into tollgate.cache_sizes as s (org_id, entries, bytes)
  values (fill_entry.org_id, 1, size)
  on conflict on constraint cache_sizes_pkey do update set
    entries = s.entries + case when before.is_filled then 0 else 1 end,
    bytes = s.bytes + size - before.bytes;
  perform tollgate.make_room(org_id, (wish ->> 'most_bytes')::bigint);
end
$$;

comment on function tollgate.fill_entry(text, text, text, timestamptz, jsonb, timestamptz) is
  'Stores the answer of a request that began at `began` in the entry that was begun for it. Nothing is stored if the entry was deleted since: clearing is final. The oldest answers of the org make room. `item` is that of a settlement; its `cache` has key, answer, ttl_seconds, most_bytes.';


create function tollgate.count_look_up(org_id text, model text, hits integer, saved_nanos bigint, moment timestamptz)
returns void
language sql
set search_path = ''
as $$
  insert into tollgate.cache_days as d (day, org_id, model, hits, misses, saved_nanos)
  values ((moment at time zone 'utc')::date, org_id, model, hits, 1 - hits, saved_nanos)
  on conflict on constraint cache_days_pkey do update set
    hits = d.hits + excluded.hits, misses = d.misses + excluded.misses, saved_nanos = d.saved_nanos + excluded.saved_nanos
$$;

comment on function tollgate.count_look_up(text, text, integer, bigint, timestamptz) is
  'Counts one hit (hits is 1) or one miss (0) of an org and a model.';


create function tollgate.note_look_up(
  org_id text,
  key_id text,
  item jsonb,
  wish jsonb,
  hit jsonb,
  moment timestamptz
) returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  if hit is null and (wish ->> 'writes')::boolean then
    perform tollgate.begin_entry(org_id, key_id, item, moment);
  end if;
  if (wish ->> 'reads')::boolean is not true then
    return item;
  end if;
  perform tollgate.count_look_up(
    org_id, item ->> 'model', (hit is not null)::integer, coalesce((hit ->> 'saved_nanos')::bigint, 0), moment
  );
  return item || jsonb_build_object('cached', hit is not null);
end
$$;

comment on function tollgate.note_look_up(text, text, jsonb, jsonb, jsonb, timestamptz) is
  'Counts the look-up of a request that is admitted, and begins the entry that a miss will fill. Returns the item with `cached`, as the row has it. The org is locked by the caller.';


create function tollgate.settlement_of_hit(request_id text, hit jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', request_id, 'outcome', 'settled', 'charge_nanos', hit -> 'charge_nanos', 'cost_nanos', 0,
    'served_model', hit -> 'served_model', 'status', 200
  )
$$;

comment on function tollgate.settlement_of_hit(text, jsonb) is
  'The settlement of a request that the cache answers. It follows its admission in the same transaction.';


-- schemas/11_cache/manage.sql

-- What operators and the upkeep do with the cache.

create function tollgate.cache_shown(since date, org_id text default null) returns jsonb
language sql
stable
set search_path = ''
as $$
  with looked as materialized (
    select d.model, sum(d.hits) as hits, sum(d.misses) as misses, sum(d.saved_nanos) as saved_nanos
    from tollgate.cache_days d
    where d.day >= since and (cache_shown.org_id is null or d.org_id = cache_shown.org_id)
    group by d.model
  )
  select jsonb_build_object(
    'entries', s.entries,
    'bytes', s.bytes,
    'hits', coalesce(l.hits, 0),
    'misses', coalesce(l.misses, 0),
    'saved_nanos', coalesce(l.saved_nanos, 0),
    'models', (
      select coalesce(jsonb_agg(to_jsonb(m) order by m.hits + m.misses desc, m.model), '[]')
      from (select k.* from looked k order by k.hits + k.misses desc, k.model limit 50) m
    )
  )
  from (
    select coalesce(sum(z.entries), 0) as entries, coalesce(sum(z.bytes), 0) as bytes
    from tollgate.cache_sizes z
    where cache_shown.org_id is null or z.org_id = cache_shown.org_id
  ) s
  cross join (select sum(k.hits) as hits, sum(k.misses) as misses, sum(k.saved_nanos) as saved_nanos from looked k) l
$$;

comment on function tollgate.cache_shown(date, text) is
  'The size of the cache now, and its hits and misses since a day (UTC), in all and for the 50 models with most look-ups; of one org, or of all.';


create function public.tollgate_cache_stats(caller jsonb, filters jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  days constant integer := filters ->> 'days';
begin
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.cache_shown((now() at time zone 'utc')::date - days + 1, filters ->> 'org_id');
end
$$;

comment on function public.tollgate_cache_stats(jsonb, jsonb) is
  'As cache_shown(), over so many `days` (UTC) including today; `filters` may have org_id. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_cache_stats(jsonb, jsonb)');


create function public.tollgate_clear_cache(caller jsonb, filters jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  org text;
  gone bigint;
  cleared bigint := 0;
begin
  for org in
    select o.id from tollgate.orgs o
    where o.id in (
      select e.org_id from tollgate.cache_entries e
      where (filters ->> 'org_id' is null or e.org_id = filters ->> 'org_id')
        and (filters ->> 'model' is null or e.model = filters ->> 'model')
        and (filters ->> 'key_id' is null or e.key_id = filters ->> 'key_id')
    )
    order by o.id
    for no key update
  loop
    gone := tollgate.drop_entries(org, array(
      select e.cache_key from tollgate.cache_entries e
      where e.org_id = org
        and (filters ->> 'model' is null or e.model = filters ->> 'model')
        and (filters ->> 'key_id' is null or e.key_id = filters ->> 'key_id')
    ));
    cleared := cleared + gone;
  end loop;
  perform tollgate.record(actor, 'cache.cleared', filters ->> 'org_id', 'cache', filters || jsonb_build_object('cleared', cleared));
  return jsonb_build_object('caller', tollgate.identity(actor), 'cleared', cleared);
end
$$;

comment on function public.tollgate_clear_cache(jsonb, jsonb) is
  'Deletes the entries of an org, a model, an API key, of several of these, or all. It takes effect at once and everywhere: an answer that is on its way is not stored either. For admins. Refuses: as recognise(). Locks the orgs of these entries in id order.';

select tollgate.expose('public.tollgate_clear_cache(jsonb, jsonb)');


create function public.tollgate_newest_cached(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor), 'data', (
    select coalesce(jsonb_agg(jsonb_build_object(
      'org_id', n.org_id,
      'cache_key', n.cache_key,
      'request_id', n.request_id,
      'answer', n.answer,
      'filled_at', n.filled_at,
      'expires_in_seconds', ceil(extract(epoch from n.expires_at - clock_timestamp()))
    ) order by n.filled_at desc), '[]')
    from (
      select e.* from tollgate.cache_entries e
      where e.request_id is not null and e.expires_at > clock_timestamp()
        and (filters ->> 'org_id' is null or e.org_id = filters ->> 'org_id')
        and (filters ->> 'model' is null or e.model = filters ->> 'model')
        and (filters ->> 'before' is null or e.filled_at < (filters ->> 'before')::timestamptz)
      order by e.filled_at desc
      limit page_size
    ) n
  ));
end
$$;

comment on function public.tollgate_newest_cached(jsonb, jsonb, integer) is
  'The answers that were stored last, of an org, a model or all, `before` a time, for the second level of the cache. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_newest_cached(jsonb, jsonb, integer)');


create function public.tollgate_drop_expired_cached(page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  org text;
  keys text[];
  found_keys bigint := 0;
begin
  for org in
    select o.id from tollgate.orgs o
    where o.id in (
      select e.org_id from tollgate.cache_entries e
      where e.expires_at <= clock_timestamp()
      order by e.expires_at
      limit page_size
    )
    for no key update skip locked
  loop
    keys := array(
      select e.cache_key from tollgate.cache_entries e
      where e.org_id = org and e.expires_at <= clock_timestamp()
      order by e.expires_at
      limit greatest(page_size - found_keys, 0)
    );
    perform tollgate.drop_entries(org, keys);
    found_keys := found_keys + cardinality(keys);
  end loop;
  return jsonb_build_object('entries', found_keys, 'more', found_keys >= page_size);
end
$$;

comment on function public.tollgate_drop_expired_cached(integer) is
  'Deletes a batch of entries that have expired; to be called again while it answers "more". Refuses nothing. Locks the orgs of these entries, skipping locked ones.';

select tollgate.expose('public.tollgate_drop_expired_cached(integer)');


-- schemas/11_content/contents.sql

-- Prompts and answers, where they are kept.

create function tollgate.keep_contents(items jsonb[]) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.contents (request_id, org_id, prompt, answer)
  select r.id, r.org_id, left(i.item -> 'content' ->> 'prompt', 4000), left(i.item -> 'content' ->> 'answer', 4000)
  from unnest(items) i (item)
  join tollgate.requests r on r.id = i.item ->> 'id'
  where i.item ? 'content'
  on conflict do nothing
$$;

comment on function tollgate.keep_contents(jsonb[]) is
  'Stores prompts and answers of the items that have them; what is stored already stays. Refuses nothing. Expects the orgs to be locked.';


create function tollgate.drop_contents() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  delete from tollgate.contents c where c.request_id = any (array(select g.id from gone g));
  return null;
end
$$;

comment on function tollgate.drop_contents() is
  'Trigger of requests: deletes the content of deleted requests. It replaces a foreign key, which would slow down every settlement.';

create trigger requests_gone
after delete on tollgate.requests
referencing old table as gone
for each statement execute function tollgate.drop_contents();


create function public.tollgate_contents(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  page jsonb := public.tollgate_requests(caller, filters, page_size, true);
begin
  perform tollgate.record(
    actor, 'content.read', s.org_id, s.org_id, jsonb_build_object('request_ids', s.request_ids)
  )
  from (
    select c.org_id, jsonb_agg(c.request_id order by c.request_id) as request_ids
    from tollgate.contents c
    where c.request_id = any (array(select r.value ->> 'id' from jsonb_array_elements(page -> 'data') r))
    group by c.org_id
    order by c.org_id
  ) s;
  return page || jsonb_build_object('data', (
    select coalesce(
      jsonb_agg(r.request || jsonb_build_object('prompt', c.prompt, 'answer', c.answer) order by r.place), '[]'
    )
    from jsonb_array_elements(page -> 'data') with ordinality r (request, place)
    left join tollgate.contents c on c.request_id = r.request ->> 'id'
  ));
end
$$;

comment on function public.tollgate_contents(jsonb, jsonb, integer) is
  'A page of everyone''s requests as from tollgate_requests(), each with its prompt and answer where they were stored. For admins. Reading is recorded: an audit event content.read for each org whose content was shown, with the requests. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_contents(jsonb, jsonb, integer)');


create function public.tollgate_drop_old_contents(older_than_days integer, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  gone bigint;
begin
  with old as (
    delete from tollgate.contents c
    where c.request_id = any (array(
      select o.request_id from tollgate.contents o
      where o.created_at < now() - make_interval(days => greatest(older_than_days, 1))
      order by o.created_at
      limit page_size
      for update skip locked
    ))
    returning 1
  )
  select count(*) into gone from old;
  return jsonb_build_object('contents', gone, 'more', gone >= page_size);
end
$$;

comment on function public.tollgate_drop_old_contents(integer, integer) is
  'Deletes a batch of content that is older than so many days (at least one); to be called again while it answers "more". Refuses nothing. Locks the deleted rows, skipping locked ones.';

select tollgate.expose('public.tollgate_drop_old_contents(integer, integer)');


-- schemas/11_rollup/corrections.sql

-- Corrects tallies of requests that changed after they were rolled up.

create function tollgate.tally_correction(was tollgate.requests, now_is tollgate.requests) returns void
language plpgsql
set search_path = ''
as $$
declare
  until timestamptz;
begin
  select r.rolled_until into until from tollgate.rolled r for share; -- waits for a step of rolling up
  if was.created_at >= until
    or exists (select from tollgate.late_requests l where l.request_id = was.id)
  then
    return; -- not counted yet
  end if;
  update tollgate.tallies t set
    estimated = t.estimated - was.estimated::integer + now_is.estimated::integer,
    prompt_tokens = t.prompt_tokens - coalesce(was.prompt_tokens, 0) + coalesce(now_is.prompt_tokens, 0),
    completion_tokens =
      t.completion_tokens - coalesce(was.completion_tokens, 0) + coalesce(now_is.completion_tokens, 0),
    charge_nanos = t.charge_nanos - coalesce(was.charge_nanos, 0) + coalesce(now_is.charge_nanos, 0),
    cost_nanos = t.cost_nanos - coalesce(was.cost_nanos, 0) + coalesce(now_is.cost_nanos, 0),
    cached_tokens = t.cached_tokens - tollgate.cached_tokens(was.usage, was.prompt_tokens)
      + tollgate.cached_tokens(now_is.usage, now_is.prompt_tokens),
    reasoning_tokens = t.reasoning_tokens - tollgate.reasoning_tokens(was.usage, was.completion_tokens)
      + tollgate.reasoning_tokens(now_is.usage, now_is.completion_tokens)
  from tollgate.cuts() c
  where t.cut = c.cut and t.start = date_trunc(c.unit, was.created_at, 'UTC')
    and t.org_id = case when c.people then was.org_id else '' end
    and t.user_id = case when c.people then was.user_id else '' end
    and t.key_id = case when c.people then was.key_id else '' end
    and t.model = case when c.models then was.model else '' end
    and t.upstream = case when c.models then coalesce(was.upstream, '') else '' end;
end
$$;

comment on function tollgate.tally_correction(tollgate.requests, tollgate.requests) is
  'Corrects the tallies, in all cuts, after a request changed; a request that is not rolled up yet needs no correction. Locks the row of tollgate.rolled against rolling up.';


create function tollgate.roll_up_again(since timestamptz) returns void
language plpgsql
set search_path = ''
as $$
declare
  state tollgate.rolled;
  beginning timestamptz;
begin
  select r.* into state from tollgate.rolled r for no key update;
  beginning := date_trunc('day', since, 'UTC');
  if beginning < state.dropped_until then
    beginning := tollgate.first_of('day', state.dropped_until);
  end if;
  delete from tollgate.tallies t
  where t.start >= beginning or t.cut like 'month%' and t.start >= date_trunc('month', beginning, 'UTC');
  -- The month is counted again from its days that stay.
  insert into tollgate.tallies
  select replace(t.cut, 'day', 'month'), date_trunc('month', beginning, 'UTC'),
    t.org_id, t.user_id, t.key_id, t.model, t.upstream,
    sum(t.requests), sum(t.errors), sum(t.streamed), sum(t.estimated), sum(t.prompt_tokens), sum(t.completion_tokens),
    sum(t.charge_nanos), sum(t.cost_nanos), max(t.last_at), sum(t.cached_tokens), sum(t.reasoning_tokens)
  from tollgate.tallies t
  where t.cut in ('day', 'day_model', 'day_key')
    and t.start >= date_trunc('month', beginning, 'UTC') and t.start < beginning
  group by 1, 2, 3, 4, 5, 6, 7;
  delete from tollgate.latencies t where t.start >= beginning;
  delete from tollgate.key_latencies t where t.start >= beginning;
  delete from tollgate.late_requests l where l.created_at >= beginning;
  update tollgate.rolled set rolled_until = least(rolled_until, beginning);
end
$$;

comment on function tollgate.roll_up_again(timestamptz) is
  'Deletes what was rolled up from the day of a moment on, so that it is counted again: for use after an import of requests. Days whose requests were dropped stay as they are. Locks the row of tollgate.rolled.';


-- schemas/11_rollup/roll_up.sql

-- Rolls requests up into tallies and latencies, and transfers into flows.
--
-- The sweeper calls public.tollgate_roll_up_usage(page_size), which takes one bounded step, until it stops answering
-- "more". Requests that are still open are left out by id, and counted when they have ended.

create function tollgate.ended_requests(since timestamptz, until timestamptz, page_size integer)
returns setof tollgate.requests
language sql
set search_path = ''
as $$
  with ripe as (
    delete from tollgate.late_requests l
    using tollgate.requests r
    where r.id = l.request_id and r.settled_at is not null
      and l.request_id in (
        select o.request_id
        from tollgate.late_requests o
        join tollgate.requests q on q.id = o.request_id
        where q.settled_at is not null
        limit page_size
      )
    returning r.*
  ),
  fresh as (
    select r.* from tollgate.requests r where r.created_at >= since and r.created_at < until
  ),
  late as (
    insert into tollgate.late_requests (request_id, created_at)
    select f.id, f.created_at from fresh f where f.settled_at is null
  )
  select f.* from fresh f where f.settled_at is not null
  union all
  select r.* from ripe r
$$;

comment on function tollgate.ended_requests(timestamptz, timestamptz, integer) is
  'The requests made in a time that have ended, and a page of late ones that have ended since. Those of the time that are still open become late ones. Expects the row of tollgate.rolled to be locked.';


create function tollgate.rolled_until(state tollgate.rolled, horizon timestamptz, page_size integer) returns timestamptz
language sql
stable
set search_path = ''
as $$
  -- More than a page at one moment would never move on.
  select greatest(state.rolled_until, least(horizon, greatest(
    state.rolled_until + interval '1 microsecond',
    coalesce((
      select r.created_at
      from tollgate.requests r
      where r.created_at >= state.rolled_until and r.created_at < horizon
      order by r.created_at
      offset page_size
      limit 1
    ), horizon)
  )))
$$;

comment on function tollgate.rolled_until(tollgate.rolled, timestamptz, integer) is
  'Where the next step of rolling up ends: after about page_size requests, or at the horizon.';


create function tollgate.cuts() returns table (cut text, unit text, people boolean, models boolean)
language sql
immutable
rows 8
set search_path = ''
as $$
  values
    ('hour', 'hour', true, true),
    ('hour_model', 'hour', false, true),
    ('day', 'day', true, true),
    ('day_model', 'day', false, true),
    ('day_key', 'day', true, false),
    ('month', 'month', true, true),
    ('month_model', 'month', false, true),
    ('month_key', 'month', true, false)
$$;

comment on function tollgate.cuts() is
  'The cuts of tollgate.tallies: the length of each, and whether it tells people (org, user, key) and models (and upstreams) apart.';


create function tollgate.add_tallies(hours tollgate.usage[]) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.tallies as t (
    cut, start, org_id, user_id, key_id, model, upstream,
    requests, errors, streamed, estimated, prompt_tokens, completion_tokens, charge_nanos, cost_nanos, last_at,
    cached_tokens, reasoning_tokens
  )
  select c.cut, date_trunc(c.unit, h.start, 'UTC'),
    case when c.people then h.org_id else '' end,
    case when c.people then h.user_id else '' end,
    case when c.people then h.key_id else '' end,
    case when c.models then h.model else '' end,
    case when c.models then h.upstream else '' end,
    sum(h.requests), sum(h.errors), sum(h.streamed), sum(h.estimated), sum(h.prompt_tokens),
    sum(h.completion_tokens), sum(h.charge_nanos), sum(h.cost_nanos), max(h.last_at),
    sum(h.cached_tokens), sum(h.reasoning_tokens)
  from unnest(hours) h
  cross join tollgate.cuts() c
  group by 1, 2, 3, 4, 5, 6, 7
  order by 1, 2, 3, 4, 5, 6, 7
  on conflict on constraint tallies_pkey do update set
    requests = t.requests + excluded.requests,
    errors = t.errors + excluded.errors,
    streamed = t.streamed + excluded.streamed,
    estimated = t.estimated + excluded.estimated,
    prompt_tokens = t.prompt_tokens + excluded.prompt_tokens,
    completion_tokens = t.completion_tokens + excluded.completion_tokens,
    charge_nanos = t.charge_nanos + excluded.charge_nanos,
    cost_nanos = t.cost_nanos + excluded.cost_nanos,
    last_at = greatest(t.last_at, excluded.last_at),
    cached_tokens = t.cached_tokens + excluded.cached_tokens,
    reasoning_tokens = t.reasoning_tokens + excluded.reasoning_tokens
$$;

comment on function tollgate.add_tallies(tollgate.usage[]) is
  'Adds what was used in hours, by org, user, key, model and upstream, to the tallies of all cuts.';


create function tollgate.roll_up(horizon timestamptz, page_size integer) returns jsonb
language plpgsql
set search_path = ''
set jit = off
set work_mem = '32MB'
as $$
declare
  state tollgate.rolled;
  upto timestamptz;
  counted bigint;
begin
  select r.* into state from tollgate.rolled r for no key update skip locked;
  if not found then
    return '{"requests": 0, "more": false}';
  end if;
  if state.rolled_until = '-infinity' then
    select date_trunc('hour', least(min(r.created_at), horizon), 'UTC') into state.rolled_until from tollgate.requests r;
  end if;
  upto := tollgate.rolled_until(state, horizon, page_size);

  with ended as materialized (
    select date_trunc('hour', e.created_at, 'UTC') as hour, e.org_id, e.user_id, e.key_id, e.model,
      coalesce(e.upstream, '') as upstream, e.created_at, e.streamed, e.estimated, e.prompt_tokens, e.completion_tokens,
      e.charge_nanos, e.cost_nanos, e.first_token_ms, e.duration_ms,
      tollgate.cached_tokens(e.usage, e.prompt_tokens) as cached_tokens,
      tollgate.reasoning_tokens(e.usage, e.completion_tokens) as reasoning_tokens,
      (e.error_code is not null or e.status >= 400) is true as failed
    from tollgate.ended_requests(state.rolled_until, upto, page_size) e
  ),
  tallied as (
    select tollgate.add_tallies(array_agg(h::tollgate.usage)) from (
      select e.hour as start, e.org_id, e.user_id, e.key_id, e.model, e.upstream,
        count(*) as requests,
        count(*) filter (where e.failed) as errors,
        count(*) filter (where e.streamed) as streamed,
        count(*) filter (where e.estimated) as estimated,
        coalesce(sum(e.prompt_tokens), 0)::bigint as prompt_tokens,
        coalesce(sum(e.completion_tokens), 0)::bigint as completion_tokens,
        coalesce(sum(e.charge_nanos), 0)::bigint as charge_nanos,
        coalesce(sum(e.cost_nanos), 0)::bigint as cost_nanos,
        max(e.created_at) as last_at,
        sum(e.cached_tokens)::bigint as cached_tokens,
        sum(e.reasoning_tokens)::bigint as reasoning_tokens
      from ended e
      group by e.hour, e.org_id, e.user_id, e.key_id, e.model, e.upstream
    ) h
  ),
  timed as (
    select tollgate.add_latencies(array_agg(row(
      e.hour, e.org_id, e.key_id, e.user_id, e.model, e.upstream, k.kind, k.ms,
      floor(ln(greatest(k.ms, 1)::double precision) / ln(1.05::double precision))
    )::tollgate.duration))
    from ended e
    cross join lateral (values ('whole', e.duration_ms), ('first_token', e.first_token_ms)) k (kind, ms)
    where k.ms is not null and not e.failed
  )
  select (select count(*) from ended) into counted from tallied, timed; -- which are read, since only then they are run

  update tollgate.rolled set rolled_until = upto;
  return jsonb_build_object('requests', counted, 'more', upto < horizon or counted >= page_size);
end
$$;

comment on function tollgate.roll_up(timestamptz, integer) is
  'Counts at most about page_size requests made before the horizon, and as many late ones that have ended since: each exactly once, even when two try at the same time. `more` says whether to call again. Locks the row of tollgate.rolled; when another transaction has it, does nothing.';


create function tollgate.roll_up_flows(page_size integer) returns boolean
language plpgsql
set search_path = ''
as $$
declare
  upto bigint;
  counted bigint;
begin
  with page as materialized (
    select t.position, t.created_at, t.kind, t.debit, t.credit, t.amount_nanos
    from tollgate.rolled r, tollgate.transfers t
    where t.position > r.flowed_until and t.position <= r.complete_position
    order by t.position
    limit page_size
  ),
  summed as (
    insert into tollgate.flows as f (hour, kind, debit, credit, transfers, amount_nanos)
    select date_trunc('hour', p.created_at, 'UTC'), p.kind, p.debit, p.credit, count(*), sum(p.amount_nanos)
    from page p
    group by 1, 2, 3, 4
    on conflict (hour, kind, debit, credit) do update set
      transfers = f.transfers + excluded.transfers,
      amount_nanos = f.amount_nanos + excluded.amount_nanos
  )
  select max(p.position), count(*) into upto, counted from page p;
  update tollgate.rolled set flowed_until = upto where upto is not null;
  return counted >= page_size;
end
$$;

comment on function tollgate.roll_up_flows(integer) is
  'Adds a page of transfers to the flows, each exactly once, in the order of the ledger. Tells whether there may be more. Expects the row of tollgate.rolled to be locked.';


create function public.tollgate_roll_up_usage(page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  -- Read before this transaction gets an id. The transactions that drew these positions had theirs before: they lock the org first.
  newest constant bigint := (
    select case when s.is_called then s.last_value else 0 end from tollgate.transfers_position_seq s
  );
  state tollgate.rolled;
  more_flows boolean;
  counted jsonb;
  horizon timestamptz;
begin
  select r.* into state from tollgate.rolled r for no key update skip locked;
  if not found then
    return '{"requests": 0, "more": false}';
  end if;
  -- Admission gets its transaction id before it reads the clock, so requests made before a mark belong to transactions older
  -- than that of the mark. No admission takes an hour: an older transaction that still runs is something else.
  if state.marked_xid <= pg_snapshot_xmin(pg_current_snapshot()) or state.marked_at < now() - interval '1 hour' then
    state.complete_until := state.marked_at;
    state.complete_position := state.marked_position;
    state.marked_xid := null;
  end if;
  if state.marked_xid is null then
    state.marked_at := now();
    state.marked_position := newest;
    state.marked_xid := pg_current_xact_id();
  end if;
  update tollgate.rolled set
    marked_at = state.marked_at, marked_xid = state.marked_xid, complete_until = state.complete_until,
    marked_position = state.marked_position, complete_position = state.complete_position;
  more_flows := tollgate.roll_up_flows(page_size);
  -- The current hour is rolled up in whole pages, so that readers find few requests that are not counted yet. Less than a
  -- page would not be worth it: the cost is that of the orgs, keys and models in it.
  horizon := case when exists (
    select from tollgate.requests r
    where r.created_at >= state.rolled_until and r.created_at < state.complete_until
    order by r.created_at
    offset page_size
  ) then state.complete_until else date_trunc('hour', state.complete_until, 'UTC') end;
  counted := tollgate.roll_up(horizon, page_size);
  return counted || jsonb_build_object('more', more_flows or (counted -> 'more')::boolean);
end
$$;

comment on function public.tollgate_roll_up_usage(integer) is
  'One bounded step of rolling up, a page of requests and a page of transfers: hours that are over, and full pages of the current hour, up to where all rows are known to be committed. Answers {"requests", "more"}; to be called again while there is more. Refuses nothing. Locks the row of tollgate.rolled; when another transaction has it, does nothing.';

select tollgate.expose('public.tollgate_roll_up_usage(integer)');


-- schemas/11_vault/org_keys.sql

-- What an org's own keys change about the admission of a call.

create function tollgate.may_ask(upstreams jsonb, upstream text) returns boolean
language sql
immutable
set search_path = ''
as $$
  select exists (select from jsonb_array_elements(upstreams) m (of_model) where m.of_model ? upstream)
$$;

comment on function tollgate.may_ask(jsonb, text) is
  'Whether a call may ask the upstream. `upstreams` has an array of ids for each model of the call.';


create function tollgate.with_org_keys(item jsonb, org_keys jsonb, fee_nanos bigint) returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
declare
  -- A call that costs nothing has no fee either.
  fee constant bigint := case when (item ->> 'byok_fee_nanos')::bigint = 0 then 0
    else coalesce(fee_nanos, (item ->> 'byok_fee_nanos')::bigint) end;
  is_byok constant boolean := not exists (
    select from jsonb_array_elements(item -> 'upstreams') m (of_model)
    where not (m.of_model ?| array(select jsonb_object_keys(org_keys)))
  );
  fixed constant numeric := case when is_byok then fee else greatest((item ->> 'fixed_nanos')::numeric, fee) end;
  output constant numeric := case when is_byok then 0 else (item ->> 'output_nanos')::numeric end;
begin
  return item || jsonb_build_object(
    'is_byok', is_byok,
    'byok_fee_nanos', fee,
    'fixed_nanos', fixed,
    'output_nanos', output,
    'price', case when is_byok
      then jsonb_build_object('fixed_nanos', fixed, 'output_nanos', output)
      else item -> 'price'
    end || jsonb_build_object('byok_fee_nanos', fee)
  );
end
$$;

comment on function tollgate.with_org_keys(jsonb, jsonb, bigint) is
  'The item of an admission whose org has keys of its own for some of the upstreams. Where each model has an upstream with a key, no other upstream is asked, and the worst case is the fee: `fee_nanos`, or the item''s where that is null. Otherwise it is the usual one, and at least the fee.';


-- schemas/11_vault/rotation.sql

-- Encrypts secrets again, after VAULT_KEY has changed.

create function public.tollgate_secrets_to_seal(caller jsonb, sealed_with text, after_id text, page_size integer)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'data', coalesce((
      select jsonb_agg(tollgate.secret_sealed(o) order by o.id)
      from (
        select s.* from tollgate.secrets s
        where s.sealed_with <> tollgate_secrets_to_seal.sealed_with and s.id > after_id
        order by s.id
        limit page_size
      ) o
    ), '[]')
  );
end
$$;

comment on function public.tollgate_secrets_to_seal(jsonb, text, text, integer) is
  'Secrets that were encrypted with another key than this one, encrypted as they are, by id. For the console and admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_secrets_to_seal(jsonb, text, text, integer)');


create function public.tollgate_seal_again(caller jsonb, items jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  done text[];
begin
  with changed as (
    update tollgate.secrets s
    set sealed = decode(i.sealed, 'hex'), sealed_with = i.sealed_with
    from jsonb_to_recordset(items) i (id text, was text, sealed text, sealed_with text)
    where s.id = i.id and s.sealed = decode(i.was, 'hex')
    returning s.id
  )
  select array_agg(c.id) into done from changed c;
  if done is not null then
    perform tollgate.record(actor, 'vault.rotated', null, 'vault', jsonb_build_object('secrets', cardinality(done)));
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'sealed', coalesce(cardinality(done), 0));
end
$$;

comment on function public.tollgate_seal_again(jsonb, jsonb) is
  'Replaces encrypted values by new ones of the same secrets, unless a secret was stored again meanwhile. Each item has id, was, sealed, sealed_with. For the console and admins. Refuses: as recognise(). Locks the rows.';

select tollgate.expose('public.tollgate_seal_again(jsonb, jsonb)');


-- schemas/11_vault/secrets.sql

-- Secrets of orgs and of the installation. What is stored is encrypted before it comes here.

create function tollgate.secret_shown(s tollgate.secrets) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', s.id,
    'org_id', s.org_id,
    'name', s.name,
    'address', s.address,
    'last_four', s.last_four,
    'sealed_with', s.sealed_with,
    'created_at', tollgate.utc(s.created_at),
    'updated_at', tollgate.utc(s.updated_at)
  )
$$;

comment on function tollgate.secret_shown(tollgate.secrets) is 'A secret without its value.';


create function tollgate.secret_sealed(s tollgate.secrets) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', s.id, 'kind', s.kind, 'org_id', s.org_id, 'name', s.name, 'address', s.address,
    'sealed', encode(s.sealed, 'hex'), 'sealed_with', s.sealed_with
  )
$$;

comment on function tollgate.secret_sealed(tollgate.secrets) is
  'All that the server needs to decrypt a secret, except its key.';


create function tollgate.keeper_of(caller jsonb, kind text, org_id text) returns tollgate.caller
language plpgsql
set search_path = ''
as $$
declare
  is_own constant boolean := kind = 'upstream_key' and org_id is null;
  keeper tollgate.caller := tollgate.recognise(caller, case when is_own then 'keys' else 'admin' end, touch => false);
begin
  if org_id is not null and not exists (select from tollgate.orgs o where o.id = keeper_of.org_id) then
    perform tollgate.refuse_missing('org', org_id);
  end if;
  return keeper;
end
$$;

comment on function tollgate.keeper_of(jsonb, text, text) is
  'The caller, if it may list and change the secrets: the keys of its own org, where `org_id` is null, with the scope keys; all others as an operator. Refuses: as recognise(), not_found (org).';


create function tollgate.org_of_secrets(keeper tollgate.caller, kind text, org_id text) returns text
language sql
immutable
set search_path = ''
as $$
  select case when kind = 'upstream_key' then coalesce(org_id, keeper.org_id) end
$$;

comment on function tollgate.org_of_secrets(tollgate.caller, text, text) is
  'Whose the secrets of a call are: those of the named org, or the caller''s; null for those of the installation.';


create function public.tollgate_secrets(caller jsonb, kind text, org_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of(caller, kind, org_id);
  whose constant text := tollgate.org_of_secrets(keeper, kind, org_id);
begin
  return jsonb_build_object(
    'caller', tollgate.identity(keeper),
    'data', coalesce((
      select jsonb_agg(tollgate.secret_shown(s) || jsonb_build_object('upstream_name', u.name) order by s.name)
      from tollgate.secrets s
      left join tollgate.upstreams u on u.id = s.name
      where s.kind = tollgate_secrets.kind and s.org_id is not distinct from whose
    ), '[]'),
    'upstreams', case when kind = 'upstream_key' then coalesce((
      select jsonb_agg(jsonb_build_object('id', u.id, 'name', u.name, 'base_url', u.base_url) order by u.name, u.id)
      from tollgate.upstreams u where u.takes_org_keys
    ), '[]') end
  );
end
$$;

comment on function public.tollgate_secrets(jsonb, text, text) is
  'The secrets of a kind, of the caller''s org or another, or of the installation; without their values, with the name of an upstream that has this id; and the upstreams of our own that take keys of orgs. Refuses: as keeper_of(). Locks nothing.';

select tollgate.expose('public.tollgate_secrets(jsonb, text, text)');


create function public.tollgate_upstream_for_keys(caller jsonb, org_id text, upstream_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of(caller, 'upstream_key', org_id);
  server tollgate.upstreams;
begin
  select u.* into server from tollgate.upstreams u where u.id = upstream_id and u.takes_org_keys;
  if not found and upstream_id <> 'openrouter' then
    perform tollgate.refuse_missing('upstream', upstream_id);
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(keeper),
    'org_id', tollgate.org_of_secrets(keeper, 'upstream_key', org_id),
    'address', server.base_url,
    'name', server.name
  );
end
$$;

comment on function public.tollgate_upstream_for_keys(jsonb, text, text) is
  'The org that a key would be stored for, and the address and name of the upstream; null for OpenRouter, whose address comes from the settings. Refuses: as keeper_of(), not_found (an upstream that is not there, or takes no keys of orgs). Locks nothing.';

select tollgate.expose('public.tollgate_upstream_for_keys(jsonb, text, text)');


create function public.tollgate_put_secret(caller jsonb, kind text, org_id text, secret jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of(caller, kind, org_id);
  whose constant text := tollgate.org_of_secrets(keeper, kind, org_id);
  given tollgate.secrets;
  made tollgate.secrets;
begin
  given.kind := kind;
  given := tollgate.with_fields(given, secret - 'sealed', array['name', 'address', 'sealed_with', 'last_four']);
  if kind = 'upstream_key' and given.name <> 'openrouter' then
    perform from tollgate.upstreams u
    where u.id = given.name and u.base_url = given.address and u.takes_org_keys
    for key share;
    if not found then
      perform tollgate.refuse_missing('upstream', given.name);
    end if;
  end if;
  insert into tollgate.secrets as s (kind, org_id, name, address, sealed, sealed_with, last_four)
  values (
    given.kind, whose, given.name, given.address, decode(secret ->> 'sealed', 'hex'),
    given.sealed_with, given.last_four
  )
  on conflict on constraint secrets_org_id_kind_name_key do update set
    address = excluded.address, sealed = excluded.sealed, sealed_with = excluded.sealed_with,
    last_four = excluded.last_four, updated_at = now()
  returning s.* into made;
  perform tollgate.record(keeper, 'secret.stored', made.org_id, made.id, jsonb_build_object(
    'kind', made.kind, 'name', made.name, 'address', made.address, 'last_four', made.last_four,
    'replaced', made.created_at < made.updated_at
  ));
  return jsonb_build_object('caller', tollgate.identity(keeper), 'secret', tollgate.secret_shown(made));
end
$$;

comment on function public.tollgate_put_secret(jsonb, text, text, jsonb) is
  'Stores a secret, or another in the place of the one with this name. `secret` has name, address, sealed, sealed_with and last_four. Refuses: as keeper_of() and with_fields(), not_found (an upstream of our own that takes no keys, or has moved meanwhile). Locks the upstream, the org against deletion, and the row.';

select tollgate.expose('public.tollgate_put_secret(jsonb, text, text, jsonb)');


create function public.tollgate_delete_secret(caller jsonb, kind text, org_id text, name text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of(caller, kind, org_id);
  whose constant text := tollgate.org_of_secrets(keeper, kind, org_id);
  gone tollgate.secrets;
begin
  delete from tollgate.secrets s
  where s.kind = tollgate_delete_secret.kind and s.org_id is not distinct from whose
    and s.name = tollgate_delete_secret.name
  returning s.* into gone;
  if gone.id is null then
    perform tollgate.refuse_missing(kind, name);
  end if;
  perform tollgate.record(keeper, 'secret.deleted', gone.org_id, gone.id, jsonb_build_object(
    'kind', gone.kind, 'name', gone.name, 'last_four', gone.last_four
  ));
  return jsonb_build_object('caller', tollgate.identity(keeper), 'id', gone.id, 'deleted', true);
end
$$;

comment on function public.tollgate_delete_secret(jsonb, text, text, text) is
  'Deletes a secret. Refuses: as keeper_of(), not_found. Locks the row.';

select tollgate.expose('public.tollgate_delete_secret(jsonb, text, text, text)');


create function public.tollgate_read_secret(caller jsonb, kind text, name text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper tollgate.caller := tollgate.keeper_of(caller, kind, null);
  wanted tollgate.secrets;
begin
  select s.* into wanted from tollgate.secrets s
  where s.kind = tollgate_read_secret.kind and s.org_id is null and s.name = tollgate_read_secret.name;
  if not found or keeper.kind <> 'console' then
    perform tollgate.refuse_missing(kind, name);
  end if;
  perform tollgate.record(keeper, 'secret.read', null, wanted.id, jsonb_build_object(
    'kind', wanted.kind, 'name', wanted.name, 'last_four', wanted.last_four
  ));
  return jsonb_build_object('caller', tollgate.identity(keeper), 'secret', tollgate.secret_sealed(wanted));
end
$$;

comment on function public.tollgate_read_secret(jsonb, text, text) is
  'A secret of the installation, encrypted, for the console alone. Refuses: as keeper_of(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_read_secret(jsonb, text, text)');


-- schemas/12_completions/admit.sql

-- Admits requests: takes from limits and holds the worst case.
--
-- Admission and settlement take many items and answer each. A refusal is an answer, and an item that is repeated with
-- the same id changes nothing. Both have four steps: lock the orgs, look everything up, decide item by item in memory,
-- write. The first two and the last are one statement each for the whole batch, because starting a statement costs more
-- than a row in it.

create function public.tollgate_admit(items jsonb) returns json
language plpgsql
security definer
set search_path = ''
-- Plans are made once per connection, often while the tables are small. With these settings they use indexes, so that
-- they stay fast when the tables are large, and a batch of one is not planned again each time.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
as $$
declare
  key_ids text[]; -- of the items, in their order; null where the key is not known
  org_ids text[];
  moment timestamptz; -- of the whole batch, read when its locks are held
  at_ms bigint;
  request record;
  key tollgate.api_keys;
  person tollgate.users;
  wallet tollgate.wallet;
  remaining tollgate.remaining;
  key_remaining tollgate.remaining;
  user_remaining tollgate.remaining;
  least_left tollgate.remaining; -- of org, user and key
  worst_case tollgate.worst_case;
  admitted tollgate.admitted;
  available bigint;
  hit jsonb; -- what the cache has for the request
  hits jsonb := '[]'; -- the settlements of the requests that the cache answers
  refusal jsonb;
  answer json;
  last_id text;
  place integer := 0; -- of the wallet among the wallets
  place_of_keys integer := 0; -- of the org whose keys this batch has written to
  place_of_users integer := 0; -- of the org whose users this batch has written to
  used_keys text[] := '{}'; -- to be touched
  callers jsonb[] := '{}'; -- of the used keys, in their order
  all_admitted tollgate.admitted[] := '{}';
  wallets tollgate.wallet[] := '{}';
  ids text[] := '{}';
  answers json[] := '{}';
begin
  -- Lock: in id order, so that two batches cannot deadlock. Later statements read what holds under the locks.
  with keys as materialized (
    select k.id, k.org_id
    from jsonb_array_elements(items) with ordinality i (item, place)
    left join lateral (
      select k.id, k.org_id from tollgate.api_keys k
      where k.digest = any (array(
        select decode(d.hex, 'hex') from jsonb_array_elements_text(i.item -> 'caller' -> 'digests') d (hex)
      ))
      limit 1
    ) k on true
  )
  select
    array(select k.id from keys k),
    array(
      select o.id from tollgate.orgs o
      where o.id = any (array(select k.org_id from keys k))
      order by o.id
      for no key update
    )
  into key_ids, org_ids;
  moment := clock_timestamp();
  at_ms := extract(epoch from moment) * 1000;

  -- Look up.
  for request in
    select
      i.item ->> 'id' as id,
      i.item,
      k.id as key_id,
      k.user_id,
      k.environment,
      k.counted or k.max_concurrent_requests is not null as is_counted,
      case when k.counted or k.max_concurrent_requests is not null then k end as counted_key,
      not u.limits is null as is_limited,
      case when not u.limits is null then u end as limited_user,
      (k.last_used_at > moment - interval '1 minute') is not true or (
        jsonb_array_length(i.item -> 'caller' -> 'digests') > 1
        and k.digest <> decode(i.item -> 'caller' -> 'digests' ->> 0, 'hex')
      ) as is_touched,
      o.id as org_id,
      o.balance_nanos,
      o.held_nanos,
      o.open_requests,
      coalesce(o.max_concurrent_requests, p.max_concurrent_requests) as most_open,
      o.counters,
      coalesce(o.limits, row(
        p.requests_per_minute, p.requests_per_hour, p.requests_per_day,
        p.tokens_per_minute, p.tokens_per_hour, p.tokens_per_day
      )::tollgate.limits) as limits,
      coalesce(o.markup_ppm, p.markup_ppm, (i.item ->> 'markup_ppm')::integer) as markup_ppm,
      (
        select jsonb_object_agg(s.name, tollgate.secret_sealed(s))
        from tollgate.secrets s
        where s.org_id = o.id and s.kind = 'upstream_key' and tollgate.may_ask(i.item -> 'upstreams', s.name)
      ) as org_keys,
      coalesce(o.byok_fee_nanos, p.byok_fee_nanos) as byok_fee_nanos,
      i.item ->> 'idempotency_key' as idempotency_key,
      coalesce(k.cache, o.cache) as caches,
      case when coalesce(k.cache, o.cache) or (i.item -> 'cache' ->> 'asked')::boolean then i.item -> 'cache' end as wish,
      r as earlier, -- the request, when it was admitted before
      tollgate.key_refusal(k, u.status, u.role, o.status, i.item -> 'caller', i.item ->> 'scope') as key_refusal,
      case when r.id is null then coalesce(
        case when o.paid_suspended_at is not null then tollgate.suspended_refusal(o.id, o.paid_suspended_at) end,
        case when k.allowed_models is not null or o.allowed_models is not null then
          tollgate.model_refusal(k, o.allowed_models, i.item -> 'models')
        end
      ) end as call_refusal
    from jsonb_array_elements(items) with ordinality i (item, place)
    left join tollgate.api_keys k on k.id = key_ids[i.place]
    left join tollgate.users u on u.id = k.user_id
    left join tollgate.orgs o on o.id = k.org_id and o.id = any (org_ids)
    left join tollgate.plans p on p.id = o.plan_id
    left join tollgate.requests r on r.id = i.item ->> 'id' and r.org_id = o.id
    order by o.id, i.item ->> 'id', i.place
  -- Decide.
  loop
    continue when request.id = last_id; -- one id is one request, and has one answer
    last_id := request.id;
    if wallet.org_id is distinct from request.org_id then
      place := place + 1;
      wallet := row(
        request.org_id, request.balance_nanos, request.held_nanos, request.open_requests, request.counters, null
      );
      remaining := tollgate.remaining(request.counters, request.limits, at_ms);
    end if;
    if request.is_touched and request.key_refusal is null then
      used_keys := used_keys || request.key_id::text;
      callers := callers || (request.item -> 'caller');
    end if;

    answer := null;
    hit := null;
    refusal := coalesce(request.key_refusal, request.call_refusal);
    if request.is_counted then
      key := request.counted_key;
      if place_of_keys = place then -- an earlier item may have changed this key, or one of its line
        select k.* into key from tollgate.api_keys k where k.id = request.key_id;
      end if;
      key := tollgate.in_this_period(key, moment);
      key_remaining := tollgate.remaining(key.counters, key.limits, at_ms);
    elsif key.id is not null then
      key := null;
      key_remaining := null;
    end if;
    if request.is_limited then
      person := request.limited_user;
      if place_of_users = place then -- an earlier item may have changed this user
        select u.* into person from tollgate.users u where u.id = person.id;
      end if;
      user_remaining := tollgate.remaining(person.counters, person.limits, at_ms);
    elsif person.id is not null then
      person := null;
      user_remaining := null;
    end if;

    if refusal is not null then
      null;
    elsif (request.earlier).id is not null then
      answer := tollgate.admitted_again(
        request.earlier, request.environment, wallet, remaining, request.org_keys, request.caches, request.wish, moment
      );
    elsif request.idempotency_key is not null then
      answer := tollgate.kept_answer(request.item, request.org_id, request.key_id);
      if answer -> 'replay' is not null then -- it takes one request from every window, and nothing else
        refusal := tollgate.replay_refusal(
          wallet.counters, request.limits, remaining, person, user_remaining, key, key_remaining, at_ms
        );
        if refusal is null then
          wallet.counters := tollgate.take(wallet.counters, at_ms, 1, 0);
          remaining.requests_left := remaining.requests_left - 1;
          wallets[place] := wallet;
          if request.is_limited then
            perform tollgate.take_from_user(person.id, at_ms, 0);
            place_of_users := place;
          end if;
          if request.is_counted then
            perform tollgate.take_replay_from_key(key, at_ms);
            place_of_keys := place;
          end if;
        end if;
      end if;
    end if;

    if request.wish is not null and answer is null and refusal is null then
      hit := tollgate.look_up_answer(request.org_id, request.wish, moment);
      answer := case when hit ? 'wait' then hit end; -- it takes nothing, and the request comes again
      hit := hit -> 'hit';
    end if;

    if answer is null and refusal is null then
      if request.org_keys is not null and hit is null then
        request.item := tollgate.with_org_keys(request.item, request.org_keys, request.byok_fee_nanos);
        if (request.item ->> 'is_byok')::boolean then
          request.markup_ppm := 0;
        end if;
      end if;
      available := wallet.balance_nanos - wallet.held_nanos;
      worst_case := case when hit is null then tollgate.worst_case(
        request.item,
        request.markup_ppm,
        least(available, key.budget_nanos - key.budget_spent_nanos),
        least(
          -- Half, because other requests can run at the same time.
          remaining.tokens_left / 2, user_remaining.tokens_left / 2, key_remaining.tokens_left / 2,
          key.tokens_per_month - key.tokens_used_in_month, key.tokens_in_all - key.tokens_used_in_all
        )
      ) else row(0, (hit ->> 'charge_nanos')::bigint, 0, null)::tollgate.worst_case end; -- and no tokens
      if wallet.open_requests >= request.most_open then
        refusal := tollgate.in_flight_refusal(request.most_open, wallet.open_requests);
      elsif worst_case.hold_nanos > available or available < 0 then
        refusal := tollgate.credits_refusal(available, worst_case.hold_nanos, worst_case.affordable_tokens);
      elsif remaining.requests_left < 1 or remaining.tokens_left < worst_case.reserved_tokens then
        refusal := tollgate.rate_refusal(wallet.counters, request.limits, at_ms, worst_case.reserved_tokens);
      elsif user_remaining.requests_left < 1 or user_remaining.tokens_left < worst_case.reserved_tokens then
        refusal := tollgate.rate_refusal(
          person.counters, person.limits, at_ms, worst_case.reserved_tokens, tollgate.of_user(person)
        );
      elsif request.is_counted then
        refusal := tollgate.key_limit_refusal(key, key_remaining, worst_case, at_ms);
      end if;

      if refusal is null then -- from here on nothing refuses
        wallet.held_nanos := wallet.held_nanos + worst_case.hold_nanos;
        wallet.open_requests := wallet.open_requests + 1;
        wallet.counters := tollgate.take(wallet.counters, at_ms, 1, worst_case.reserved_tokens);
        wallets[place] := wallet;
        remaining.requests_left := remaining.requests_left - 1;
        remaining.tokens_left := remaining.tokens_left - worst_case.reserved_tokens;
        if request.is_limited then
          perform tollgate.take_from_user(person.id, at_ms, worst_case.reserved_tokens);
          place_of_users := place;
          user_remaining.requests_left := user_remaining.requests_left - 1;
          user_remaining.tokens_left := user_remaining.tokens_left - worst_case.reserved_tokens;
        end if;
        if request.is_counted then
          perform tollgate.take_from_key(key, worst_case, at_ms);
          place_of_keys := place;
          key_remaining.requests_left := key_remaining.requests_left - 1;
          key_remaining.tokens_left := key_remaining.tokens_left - worst_case.reserved_tokens;
        end if;
        if request.idempotency_key is not null then
          perform tollgate.begin_answer(request.org_id, request.item);
        end if;
        admitted := row(
          case when request.wish is null then request.item else tollgate.note_look_up(
            request.org_id, request.key_id, request.item, request.wish, hit, moment
          ) end,
          request.id, request.org_id, request.key_id, request.user_id, request.markup_ppm,
          worst_case.hold_nanos, worst_case.output_bound, worst_case.reserved_tokens
        );
        all_admitted := all_admitted || admitted;
        least_left := case when request.is_limited then tollgate.tighter(remaining, user_remaining) else remaining end;
        if request.is_counted then
          least_left := tollgate.tighter(least_left, key_remaining);
        end if;
        answer := tollgate.grant_of(admitted, request.environment, wallet, least_left, request.org_keys, request.caches);
        if hit is not null then
          answer := answer::jsonb || jsonb_build_object('hit', hit);
          hits := hits || tollgate.settlement_of_hit(request.id, hit);
        end if;
      end if;
    end if;

    ids := ids || request.id;
    answers := answers || case when refusal is null then answer else json_build_object('refusal', refusal) end;
  end loop;

  -- Write.
  if used_keys <> '{}' then
    perform tollgate.touch(k, u.caller)
    from unnest(used_keys, callers) u (key_id, caller)
    join tollgate.api_keys k on k.id = u.key_id;
  end if;
  perform tollgate.begin_requests(all_admitted, moment);
  update tollgate.orgs o set held_nanos = w.held_nanos, open_requests = w.open_requests, counters = w.counters
  from unnest(wallets) w
  where o.id = w.org_id;
  select json_object_agg(a.id, a.answer) into answer from unnest(ids, answers) a (id, answer);
  return coalesce(case when hits = '[]' then answer else tollgate.with_settlements(answer, hits) end, '{}');
end
$$;

comment on function public.tollgate_admit(jsonb) is
  'Admits paid requests: recognises the key, takes from every window or from none, holds the credits, writes the request. Answers by id: granted, replay, wait or refusal. A replay takes one request from the windows, and nothing else. A request that the cache answers is granted with a hit: it takes one request and its charge, and is settled at once. One that waits for the answer to the same request takes nothing. Refuses, per item: as key_refusal(), paid_calls_suspended, model_not_allowed, too_many_in_flight, insufficient_credits, key_budget_exhausted, quota_exhausted, rate_limit_exceeded, idempotency_key_reused, request_in_progress, answer_not_kept (a repeated hit whose entry is gone). A repeated id gets the same answer. Where the org has keys of its own for upstreams that the call may ask, the grant has them, encrypted, and the hold is as with_org_keys() says. Locks orgs in id order, then for each request the user, if limited, and the key.';

select tollgate.expose('public.tollgate_admit(jsonb)');


-- schemas/12_completions/answers.sql

-- Answers kept under an idempotency key.

create function tollgate.kept_answer(item jsonb, org_id text, key_id text) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  kept tollgate.answers;
begin
  select a.* into kept from tollgate.answers a
  where a.org_id = kept_answer.org_id and a.idempotency_key = item ->> 'idempotency_key'
    and a.created_at > clock_timestamp() - interval '24 hours';
  if not found or kept.request_id = item ->> 'id' then
    return null;
  elsif kept.body_hash <> item ->> 'body_hash' then
    return tollgate.refused(422, 'idempotency_key_reused', jsonb_build_object('request_id', kept.request_id));
  elsif kept.answer is null then
    return tollgate.refused(409, 'request_in_progress', jsonb_build_object('request_id', kept.request_id));
  end if;
  update tollgate.answers a set replays = a.replays + 1, replayed_at = clock_timestamp()
  where a.org_id = kept_answer.org_id and a.idempotency_key = kept.idempotency_key;
  return jsonb_build_object('replay', kept.answer || jsonb_build_object(
    'request_id', kept.request_id, 'org_id', org_id, 'key_id', key_id
  ));
end
$$;

comment on function tollgate.kept_answer(jsonb, text, text) is
  'The answer to a request that repeats an idempotency key: a replay, which is counted, a refusal, or null when the key is new. The org is locked by the caller, so two requests cannot both find the key new.';


create function tollgate.begin_answer(org_id text, item jsonb) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.answers (org_id, idempotency_key, body_hash, request_id)
  values (org_id, item ->> 'idempotency_key', item ->> 'body_hash', item ->> 'id')
  on conflict on constraint answers_pkey do update set
    body_hash = excluded.body_hash, request_id = excluded.request_id, answer = null, replays = 0, replayed_at = null,
    created_at = excluded.created_at
$$;

comment on function tollgate.begin_answer(text, jsonb) is
  'Stores which request runs under an idempotency key, in place of an answer that has expired. The org is locked by the caller.';


create function tollgate.keep_answer(request_id text, item jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  given jsonb := nullif(item -> 'answer', 'null');
begin
  if given is not null then
    update tollgate.answers a set answer = given where a.request_id = keep_answer.request_id;
  elsif item ->> 'outcome' = 'released' then
    -- Nothing was done, so the key can be used again.
    delete from tollgate.answers a where a.request_id = keep_answer.request_id;
  else
    update tollgate.answers a set answer = '{"kept": false}'
    where a.request_id = keep_answer.request_id and a.answer is null;
  end if;
end
$$;

comment on function tollgate.keep_answer(text, jsonb) is
  'Stores the answer to a request under its idempotency key, or that there is none to store: a repetition is then refused instead of running a second time.';


create function tollgate.replay_refusal(
  counters tollgate.counters,
  limits tollgate.limits,
  remaining tollgate.remaining,
  person tollgate.users,
  user_remaining tollgate.remaining,
  key tollgate.api_keys,
  key_remaining tollgate.remaining,
  at_ms bigint
) returns jsonb
language sql
stable
set search_path = ''
as $$
  select case
    when remaining.requests_left < 1 then tollgate.rate_refusal(counters, tollgate.of_requests(limits), at_ms, 0)
    when user_remaining.requests_left < 1 then tollgate.rate_refusal(
      person.counters, tollgate.of_requests(person.limits), at_ms, 0, tollgate.of_user(person)
    )
    when key_remaining.requests_left < 1 then tollgate.rate_refusal(
      key.counters, tollgate.of_requests(key.limits), at_ms, 0, tollgate.of_key(key)
    )
  end
$$;

comment on function tollgate.replay_refusal(tollgate.counters, tollgate.limits, tollgate.remaining, tollgate.users, tollgate.remaining, tollgate.api_keys, tollgate.remaining, bigint) is
  'The refusal of a replay by the windows of org, user and key; null when each has a request left.';


-- schemas/12_completions/begin.sql

-- The rows of requests that begin.

create function tollgate.begin_requests(all_admitted tollgate.admitted[], moment timestamptz) returns void
language plpgsql
set search_path = ''
as $$
begin
  with requests as (
    insert into tollgate.requests (
      id, org_id, key_id, user_id, state, endpoint, model, streamed, hold_nanos, markup_ppm,
      output_bound, reserved_tokens, price, idempotency_key, created_at, expires_at, is_byok, alias, cached
    )
    select
      a.id, a.org_id, a.key_id, a.user_id, 'held', a.item ->> 'endpoint', a.item ->> 'model',
      (a.item ->> 'streamed')::boolean, a.hold_nanos, a.markup_ppm, a.output_bound, a.reserved_tokens,
      a.item -> 'price', a.item ->> 'idempotency_key', moment,
      moment + make_interval(secs => (a.item ->> 'ttl_seconds')::double precision),
      coalesce((a.item ->> 'is_byok')::boolean, false), a.item ->> 'alias', (a.item ->> 'cached')::boolean
    from unnest(all_admitted) a
    returning id, expires_at
  )
  insert into tollgate.holds (request_id, next_sweep_at) select r.id, r.expires_at from requests r;
end
$$;

comment on function tollgate.begin_requests(tollgate.admitted[], timestamptz) is
  'Writes admitted requests and their holds. The orgs are locked by the caller.';


-- schemas/12_completions/cached.sql

-- Paid calls and the cache: the look-up is part of the admission, and the answer is stored by the settlement.

create function tollgate.with_settlements(answers json, hits jsonb) returns json
language sql
set search_path = ''
as $$
  select json_object_agg(a.key, coalesce((a.value::jsonb || s.value)::json, a.value))
  from json_each(answers) a
  left join jsonb_each(public.tollgate_settle(hits)::jsonb) s on s.key = a.key
$$;

comment on function tollgate.with_settlements(json, jsonb) is
  'Settles the requests that the cache answers, and adds the settlements to the answers of the admission. Locks as tollgate_settle().';


create function tollgate.admitted_again(
  earlier tollgate.requests,
  environment text,
  wallet tollgate.wallet,
  remaining tollgate.remaining,
  org_keys jsonb,
  caches boolean,
  wish jsonb,
  moment timestamptz
) returns json
language plpgsql
set search_path = ''
as $$
declare
  answer json := tollgate.grant_of(
    row(
      case when earlier.price ? 'byok_fee_nanos' then jsonb_build_object(
        'is_byok', earlier.is_byok, 'byok_fee_nanos', earlier.price -> 'byok_fee_nanos'
      ) end,
      earlier.id, earlier.org_id, earlier.key_id, earlier.user_id, earlier.markup_ppm, earlier.hold_nanos,
      earlier.output_bound, earlier.reserved_tokens
    ),
    environment, wallet, remaining, org_keys, caches
  );
  hit jsonb;
begin
  if earlier.cached is not true then
    return answer;
  end if;
  hit := tollgate.look_up_answer(earlier.org_id, wish, moment) -> 'hit';
  if hit is null then
    return tollgate.refused(409, 'answer_not_kept', jsonb_build_object('request_id', earlier.id));
  end if;
  return answer::jsonb || jsonb_build_object('hit', hit, 'settled', jsonb_build_object(
    'state', earlier.state, 'charge_nanos', earlier.charge_nanos, 'balance_nanos', wallet.balance_nanos, 'again', true
  ));
end
$$;

comment on function tollgate.admitted_again(tollgate.requests, text, tollgate.wallet, tollgate.remaining, jsonb, boolean, jsonb, timestamptz) is
  'The answer to a repeated admission: as to the first, but without keys that the org has stored since. Refuses, as a value: answer_not_kept, where the cache had answered and the entry is gone. The org is locked by the caller.';


create function tollgate.fill_cache(items jsonb[], moment timestamptz) returns void
language plpgsql
set search_path = ''
as $$
declare
  one record;
begin
  for one in
    select i.item, r.id, r.org_id, r.key_id, r.created_at
    from unnest(items) i (item)
    join tollgate.requests r on r.id = i.item ->> 'id'
    where i.item ? 'cache'
  loop
    if one.item ->> 'outcome' = 'settled' and one.item -> 'cache' ? 'answer'
      and ((one.item ->> 'estimated')::boolean or (one.item ->> 'quarantined')::boolean) is not true
    then
      perform tollgate.fill_entry(one.org_id, one.key_id, one.id, one.created_at, one.item, moment);
    else
      perform tollgate.leave_entry(one.org_id, one.item -> 'cache' ->> 'key', one.id);
    end if;
  end loop;
end
$$;

comment on function tollgate.fill_cache(jsonb[], timestamptz) is
  'Stores the answers of settled items whose charge is exact in the cache, and ends the waiting for the others. The orgs are locked by the caller.';


-- schemas/12_completions/key_limits.sql

-- A key's own budget, quotas and limits.

create function tollgate.of_key(key tollgate.api_keys) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('of', 'key', 'key_id', key.id)
$$;

comment on function tollgate.of_key(tollgate.api_keys) is 'The key as the subject of a refusal.';


create function tollgate.key_limit_refusal(
  key tollgate.api_keys,
  remaining tollgate.remaining,
  worst_case tollgate.worst_case,
  at_ms bigint
) returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  if key.open_requests >= key.max_concurrent_requests then
    return tollgate.refusal(429, 'too_many_in_flight', jsonb_build_object(
      'limit', key.max_concurrent_requests, 'in_flight', key.open_requests, 'of', 'key', 'key_id', key.id
    ));
  elsif worst_case.hold_nanos > key.budget_nanos - key.budget_spent_nanos then
    return tollgate.refusal(402, 'key_budget_exhausted', jsonb_build_object(
      'key_id', key.id,
      'budget_nanos', key.budget_nanos,
      'spent_nanos', key.budget_spent_nanos,
      'left_nanos', greatest(0, key.budget_nanos - key.budget_spent_nanos),
      'required_nanos', worst_case.hold_nanos,
      'resets_at', tollgate.budget_resets_at(key)
    ));
  elsif worst_case.reserved_tokens > least(
    key.tokens_per_month - key.tokens_used_in_month, key.tokens_in_all - key.tokens_used_in_all
  ) then
    return tollgate.refusal(402, 'quota_exhausted', tollgate.tightest_quota(key) || jsonb_build_object(
      'key_id', key.id, 'needed', worst_case.reserved_tokens
    ));
  elsif remaining.requests_left < 1 or remaining.tokens_left < worst_case.reserved_tokens then
    return tollgate.rate_refusal(key.counters, key.limits, at_ms, worst_case.reserved_tokens, tollgate.of_key(key));
  end if;
  return null;
end
$$;

comment on function tollgate.key_limit_refusal(tollgate.api_keys, tollgate.remaining, tollgate.worst_case, bigint) is
  'The refusal of a request by a key''s bound of open requests, budget, quotas or windows; null when it fits. `key` comes from in_this_period(). Refuses, as a value: too_many_in_flight, key_budget_exhausted, quota_exhausted, rate_limit_exceeded.';


create function tollgate.tightest_quota(key tollgate.api_keys) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'period', q.period, 'limit', q.most, 'left', greatest(0, q.most - q.used), 'resets_at', q.resets_at
  )
  from (values
    ('month', key.tokens_per_month, key.tokens_used_in_month, tollgate.quota_resets_at(key)),
    ('lifetime', key.tokens_in_all, key.tokens_used_in_all, null)
  ) q (period, most, used, resets_at)
  where q.most is not null
  order by q.most - q.used
  limit 1
$$;

comment on function tollgate.tightest_quota(tollgate.api_keys) is
  'Which of a key''s quotas has the least left, and when it is reset. `key` comes from in_this_period() and has a quota.';


create function tollgate.take_from_key(key tollgate.api_keys, worst_case tollgate.worst_case, at_ms bigint) returns void
language plpgsql
set search_path = ''
as $$
begin
  update tollgate.api_keys k set
    counters = tollgate.take(key.counters, at_ms, 1, worst_case.reserved_tokens),
    budget_period = key.budget_period,
    budget_spent_nanos = key.budget_spent_nanos + worst_case.hold_nanos,
    month_of_tokens = key.month_of_tokens,
    tokens_used_in_month = key.tokens_used_in_month + worst_case.reserved_tokens,
    tokens_used_in_all = key.tokens_used_in_all + worst_case.reserved_tokens
  where k.id = key.id;
  if key.max_concurrent_requests is not null then
    perform tollgate.count_open(key.id, key.line, 1);
  end if;
end
$$;

comment on function tollgate.take_from_key(tollgate.api_keys, tollgate.worst_case, bigint) is
  'Takes a request from a key''s windows, budget and quotas, and counts it as open. `key` comes from in_this_period(). The org is locked by the caller, so no other transaction changes these columns. Locks the key.';


create function tollgate.take_replay_from_key(key tollgate.api_keys, at_ms bigint) returns void
language sql
set search_path = ''
as $$
  update tollgate.api_keys k set counters = tollgate.take(key.counters, at_ms, 1, 0) where k.id = key.id
$$;

comment on function tollgate.take_replay_from_key(tollgate.api_keys, bigint) is
  'Counts a replay in a key''s windows: one request, no tokens and no credits. The org is locked by the caller. Locks the key.';


create function tollgate.count_open(key_id text, line text, change bigint) returns void
language sql
set search_path = ''
as $$
  update tollgate.api_keys k set open_requests = k.open_requests + change
  where k.id = count_open.key_id or k.line = count_open.line
$$;

comment on function tollgate.count_open(text, text, bigint) is
  'Counts a request as open (1) or as ended (-1), on the key and every other key of its line. For keys with a bound of open requests. The org is locked by the caller. Locks those keys.';


create function tollgate.settle_key(
  key_id text,
  admitted_at timestamptz,
  charge_change bigint,
  token_change bigint,
  at_ms bigint
) returns void
language plpgsql
set search_path = ''
as $$
begin
  update tollgate.api_keys k set
    counters = tollgate.correct(k.counters, tollgate.ms_of(admitted_at), at_ms, token_change),
    budget_spent_nanos = case
      when k.budget_period = tollgate.budget_period(k.budget_reset, admitted_at)
      then greatest(0, k.budget_spent_nanos + charge_change)
      else k.budget_spent_nanos
    end,
    tokens_used_in_month = case
      when k.month_of_tokens = tollgate.quota_month(k.quota_reset_day, admitted_at)
      then greatest(0, k.tokens_used_in_month + token_change)
      else k.tokens_used_in_month
    end,
    tokens_used_in_all = greatest(0, k.tokens_used_in_all + token_change)
  where k.id = settle_key.key_id;
end
$$;

comment on function tollgate.settle_key(text, timestamptz, bigint, bigint, bigint) is
  'Corrects a key''s budget, quotas and windows by the difference between what a request took at its admission and what it cost and used. Locks the key.';


-- schemas/12_completions/refusals.sql

-- Refusals of a paid call to a key that may act.

create function tollgate.suspended_refusal(org_id text, suspended_at timestamptz) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select tollgate.refusal(403, 'paid_calls_suspended',
    jsonb_build_object('org_id', org_id, 'suspended_at', tollgate.utc(suspended_at)))
$$;

comment on function tollgate.suspended_refusal(text, timestamptz) is
  'The refusal of an org whose paid calls are suspended.';


create function tollgate.model_refusal(key tollgate.api_keys, of_org text[], models jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select tollgate.refusal(403, 'model_not_allowed', jsonb_build_object('key_id', key.id, 'model', m.model, 'of', l.of))
  from jsonb_array_elements_text(models) with ordinality m (model, place)
  cross join (values ('org', of_org), ('key', key.allowed_models::text[])) l (of, patterns)
  where l.patterns is not null and not tollgate.model_allowed(l.patterns, m.model)
  order by m.place, l.of desc
  limit 1
$$;

comment on function tollgate.model_refusal(tollgate.api_keys, text[], jsonb) is
  'The refusal of the first model that the org or the key may not use, by the list of which; null when both may use all.';


-- schemas/12_completions/settle.sql

-- Settles requests: charges what each cost and returns the rest of its hold.

create function tollgate.at_the_hold(item jsonb, hold numeric) returns jsonb
language sql
set search_path = ''
as $$
  select item - array['prompt_tokens', 'completion_tokens'] || jsonb_build_object(
    'charge_nanos', hold, 'cost_nanos', trunc(hold * 1000000 / (1000000 + r.markup_ppm)), 'quarantined', true,
    'basis', 'out_of_range'
  )
  from tollgate.requests r where r.id = item ->> 'id'
$$;

comment on function tollgate.at_the_hold(jsonb, numeric) is
  'The item of a settlement whose money or tokens are below zero or beyond what a transfer may move, changed: quarantined, and charged at its hold.';


create function tollgate.note_quarantine(org_id text, request_id text, moment timestamptz) returns boolean
language plpgsql
set search_path = ''
as $$
declare
  org tollgate.orgs;
begin
  select o.* into org from tollgate.orgs o where o.id = note_quarantine.org_id;
  update tollgate.orgs o set quarantined_at = moment where o.id = org.id;
  if org.quarantined_at > moment - interval '1 hour' and org.paid_suspended_at is null then
    update tollgate.orgs o
    set paid_suspended_at = moment, paid_suspended_reason = 'quarantined_usage', updated_at = moment
    where o.id = org.id;
    perform tollgate.record(
      row('system', null, null, null, null, null, null, 'settle', null, null, request_id, null, null)::tollgate.caller,
      'org.paid_suspended', org.id, org.id,
      jsonb_build_object(
        'reason', 'quarantined_usage', 'request_id', request_id, 'quarantined_before', tollgate.utc(org.quarantined_at)
      )
    );
    return true;
  end if;
  return false;
end
$$;

comment on function tollgate.note_quarantine(text, text, timestamptz) is
  'Stores when a request of the org was quarantined, and suspends the org''s paid calls when it is the second within an hour. Returns whether it did. The org is locked by the caller.';


create function public.tollgate_settle(items jsonb) returns json
language plpgsql
security definer
set search_path = ''
-- As for tollgate_admit().
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
as $$
declare
  -- Lock, as in tollgate_admit().
  org_ids text[] := array(
    select o.id from tollgate.orgs o
    where o.id = any (array(
      select r.org_id from tollgate.requests r
      where r.id = any (array(select i.value ->> 'id' from jsonb_array_elements(items) i))
    ))
    order by o.id
    for no key update
  );
  moment timestamptz := clock_timestamp();
  at_ms bigint := extract(epoch from moment) * 1000;
  entry record;
  wallet tollgate.wallet;
  most constant numeric := 100000000000000000; -- as tollgate.amount_nanos
  correction record;
  transfer tollgate.transfers;
  charge bigint;
  suspended boolean;
  token_change bigint;
  last_id text;
  place integer := 0; -- of the wallet among the wallets
  answer json;
  repeated jsonb := '[]';
  changed jsonb[] := '{}';
  ended text[] := '{}';
  charges tollgate.transfers[] := '{}';
  wallets tollgate.wallet[] := '{}';
  ids text[] := '{}';
  answers json[] := '{}';
begin
  -- Look up.
  for entry in
    select
      i.item ->> 'id' as id,
      i.item,
      i.item ->> 'outcome' as outcome,
      (i.item ->> 'charge_nanos')::numeric as new_charge_nanos,
      (i.item ->> 'cost_nanos')::numeric as cost_nanos,
      (i.item ->> 'prompt_tokens')::numeric as prompt_tokens,
      (i.item ->> 'completion_tokens')::numeric as completion_tokens,
      r.org_id,
      r.key_id,
      r.state,
      r.hold_nanos,
      r.charge_nanos,
      r.reserved_tokens,
      r.idempotency_key,
      r.created_at,
      (extract(epoch from r.created_at) * 1000)::bigint as created_ms,
      k.counted or k.max_concurrent_requests is not null as is_counted,
      k.max_concurrent_requests is not null as is_bounded,
      r.user_id,
      not u.limits is null as is_limited,
      k.line,
      o.balance_nanos,
      o.held_nanos,
      o.open_requests,
      o.counters,
      o.chain_head
    from jsonb_array_elements(items) with ordinality i (item, place)
    left join tollgate.requests r on r.id = i.item ->> 'id' and r.org_id = any (org_ids)
    left join tollgate.orgs o on o.id = r.org_id
    left join tollgate.api_keys k on k.id = r.key_id
    left join tollgate.users u on u.id = r.user_id
    order by o.id, i.item ->> 'id', i.place
  -- Decide.
  loop
    if entry.id = last_id then -- a second settlement of one request: it follows when the first is written
      repeated := repeated || entry.item;
      continue;
    end if;
    last_id := entry.id;
    ids := ids || entry.id;
    if entry.org_id is null then
      answers := answers
        || tollgate.refused(404, 'not_found', jsonb_build_object('kind', 'request', 'id', entry.id))::json;
      continue;
    end if;
    if wallet.org_id is distinct from entry.org_id then
      place := place + 1;
      wallet := row(
        entry.org_id, entry.balance_nanos, entry.held_nanos, entry.open_requests, entry.counters, entry.chain_head
      );
    end if;
    if greatest(entry.new_charge_nanos, entry.cost_nanos, entry.prompt_tokens, entry.completion_tokens) > most
      or least(entry.new_charge_nanos, entry.cost_nanos, entry.prompt_tokens, entry.completion_tokens) < 0
    then
      entry.item := tollgate.at_the_hold(entry.item, least(entry.hold_nanos, most));
      entry.new_charge_nanos := entry.item -> 'charge_nanos';
      entry.prompt_tokens := null;
      entry.completion_tokens := null;
    end if;
    charge := case entry.outcome when 'settled' then entry.new_charge_nanos else 0 end;
    if entry.state in ('settled', 'released') then
      if entry.outcome <> 'unsettled' and charge <> entry.charge_nanos then
        correction := tollgate.settle_late(entry.item, wallet, entry.is_counted, moment);
        wallet := correction.wallet;
        wallets[place] := wallet;
        entry.state := correction.state;
        entry.charge_nanos := correction.charge_nanos;
        if not correction.transfer is null then
          charges := charges || correction.transfer;
        end if;
      end if;
      answers := answers || json_build_object('settled', json_build_object(
        'state', entry.state, 'charge_nanos', entry.charge_nanos, 'balance_nanos', wallet.balance_nanos, 'again', true
      ));
      continue;
    end if;

    changed := changed || entry.item;
    if entry.idempotency_key is not null then
      perform tollgate.keep_answer(entry.id, entry.item);
    end if;
    if entry.outcome = 'unsettled' then
      update tollgate.holds h
      set next_sweep_at = moment
        + make_interval(secs => coalesce((entry.item ->> 'sweep_in_seconds')::double precision, 0))
      where h.request_id = entry.id;
      answers := answers || json_build_object('settled', json_build_object(
        'state', 'unsettled', 'balance_nanos', wallet.balance_nanos, 'again', false
      ));
      continue;
    end if;

    token_change := coalesce(entry.prompt_tokens, 0) + coalesce(entry.completion_tokens, 0) - entry.reserved_tokens;
    ended := ended || entry.id;
    wallet.balance_nanos := wallet.balance_nanos - charge;
    wallet.held_nanos := wallet.held_nanos - entry.hold_nanos;
    wallet.open_requests := wallet.open_requests - 1;
    wallet.counters := tollgate.correct(wallet.counters, entry.created_ms, at_ms, token_change);

    if charge > 0 then
      transfer := row(
        nextval('tollgate.transfers_position_seq'), entry.org_id, 'wallet', 'revenue', charge, 'charge', entry.id, '',
        wallet.balance_nanos, moment, null
      );
      transfer.chain := tollgate.chain_after(wallet.chain_head, transfer);
      wallet.chain_head := transfer.chain;
      charges := charges || transfer;
    end if;
    wallets[place] := wallet;
    if entry.is_limited then
      perform tollgate.settle_user(entry.user_id, entry.created_at, token_change, at_ms);
    end if;
    if entry.is_counted then
      perform tollgate.settle_key(entry.key_id, entry.created_at, charge - entry.hold_nanos, token_change, at_ms);
    end if;
    if entry.is_bounded then
      perform tollgate.count_open(entry.key_id, entry.line, -1);
    end if;
    suspended := false;
    if charge >= entry.hold_nanos and (entry.item ->> 'quarantined')::boolean then -- it is charged its hold
      suspended := tollgate.note_quarantine(entry.org_id, entry.id, moment);
    end if;
    if charge > entry.hold_nanos then
      perform tollgate.record(
        row('system', null, null, null, null, null, null, 'settle', null, null, entry.id, null, null)::tollgate.caller,
        'credits.overdrawn', entry.org_id, entry.id,
        jsonb_build_object('hold_nanos', entry.hold_nanos, 'charge_nanos', charge, 'balance_nanos', wallet.balance_nanos)
      );
    end if;
    answers := answers || json_build_object('settled', json_build_object(
      'state', entry.outcome, 'charge_nanos', charge, 'balance_nanos', wallet.balance_nanos, 'again', false,
      'suspended_org_id', case when suspended then entry.org_id end
    ));
  end loop;

  if items @? '$[*].content' then -- where LOG_CONTENT is on
    perform tollgate.keep_contents(changed);
  end if;

  if items @? '$[*].cache' then
    perform tollgate.fill_cache(changed, moment);
  end if;

  -- Write.
  with requests as (
    update tollgate.requests r set
      state = c.item ->> 'outcome',
      upstream = coalesce(c.item ->> 'upstream', r.upstream),
      served_model = coalesce(c.item ->> 'served_model', r.served_model),
      generation_id = coalesce(c.item ->> 'generation_id', r.generation_id),
      charge_nanos = case c.item ->> 'outcome'
        when 'settled' then (c.item ->> 'charge_nanos')::bigint
        when 'released' then 0
        else r.charge_nanos
      end,
      cost_nanos = coalesce((c.item ->> 'cost_nanos')::bigint, r.cost_nanos),
      prompt_tokens = coalesce((c.item ->> 'prompt_tokens')::bigint, r.prompt_tokens),
      completion_tokens = coalesce((c.item ->> 'completion_tokens')::bigint, r.completion_tokens),
      usage = coalesce(c.item -> 'usage', r.usage),
      charged_price = coalesce(c.item -> 'charged_price', r.charged_price),
      basis = coalesce(c.item ->> 'basis', r.basis),
      attempts = coalesce(c.item -> 'attempts', r.attempts),
      estimated = coalesce((c.item ->> 'estimated')::boolean, r.estimated),
      quarantined = coalesce((c.item ->> 'quarantined')::boolean, r.quarantined),
      status = coalesce((c.item ->> 'status')::integer, r.status),
      error_code = coalesce(c.item ->> 'error_code', r.error_code),
      first_token_ms = coalesce((c.item ->> 'first_token_ms')::integer, r.first_token_ms),
      duration_ms = coalesce((c.item ->> 'duration_ms')::integer, r.duration_ms),
      is_byok = coalesce((c.item ->> 'is_byok')::boolean, r.is_byok),
      settled_at = case when c.item ->> 'outcome' <> 'unsettled' then moment end
    from unnest(changed) c (item)
    where r.id = c.item ->> 'id'
  ),
  holds as (
    delete from tollgate.holds h where h.request_id = any (ended)
  ),
  transfers as (
    insert into tollgate.transfers overriding system value select t.* from unnest(charges) t
  ),
  orgs as (
    update tollgate.orgs o
    set balance_nanos = w.balance_nanos, held_nanos = w.held_nanos, open_requests = w.open_requests,
      counters = w.counters, chain_head = w.chain_head
    from unnest(wallets) w
    where o.id = w.org_id
  )
  select json_object_agg(a.id, a.answer) into answer from unnest(ids, answers) a (id, answer);
  if repeated <> '[]' then
    answer := answer::jsonb || public.tollgate_settle(repeated)::jsonb;
  end if;
  return coalesce(answer, '{}');
end
$$;

comment on function public.tollgate_settle(jsonb) is
  'Ends holds: `outcome` settled charges and returns the rest, released returns all, unsettled keeps the hold for the sweeper. A cost above the hold is charged in full and recorded as credits.overdrawn. A quarantined request is charged its hold; it suspends the org''s paid calls when it is the second within an hour. The first outcome of a request stands, unless it was an estimate, a release or an answer from the cache, and a later one is exact: see settle_late(). A repetition changes nothing and is answered with "again": true. Refuses, per item: not_found. Stores answers in the cache, for items with `cache`. Locks orgs in id order, then users and keys, then requests.';

select tollgate.expose('public.tollgate_settle(jsonb)');


-- schemas/12_completions/settle_late.sql

-- Settles requests whose hold has ended already.

create function tollgate.settle_late(item jsonb, wallet tollgate.wallet, counted boolean, moment timestamptz)
returns tollgate.correction
language plpgsql
set search_path = ''
as $$
declare
  new_charge constant bigint := case when item ->> 'outcome' = 'settled' then item ->> 'charge_nanos' else '0' end;
  is_exact constant boolean := ((item ->> 'estimated')::boolean or (item ->> 'quarantined')::boolean) is not true;
  at_ms constant bigint := tollgate.ms_of(moment);
  before tollgate.requests;
  now_settled tollgate.requests;
  refunded bigint;
  token_change bigint;
  change bigint := 0; -- of the charge
  transfer tollgate.transfers;
begin
  select r.* into before from tollgate.requests r where r.id = item ->> 'id';
  now_settled := before;
  if is_exact and (before.state = 'released' or before.estimated or before.cached) then
    select coalesce(sum(t.amount_nanos), 0) into refunded
    from tollgate.credit_operations o
    join tollgate.transfers t on t.position = o.position
    where o.request_id = before.id;
    -- At most the hold, and never a refund of what an operator has refunded already.
    change := greatest(least(new_charge, before.hold_nanos) - before.charge_nanos, refunded - before.charge_nanos);

    update tollgate.requests r set
      state = 'settled',
      charge_nanos = before.charge_nanos + change,
      cost_nanos = coalesce((item ->> 'cost_nanos')::bigint, 0),
      prompt_tokens = coalesce((item ->> 'prompt_tokens')::bigint, 0),
      completion_tokens = coalesce((item ->> 'completion_tokens')::bigint, 0),
      usage = coalesce(item -> 'usage', r.usage),
      charged_price = coalesce(item -> 'charged_price', r.charged_price),
      basis = item ->> 'basis',
      attempts = coalesce(item -> 'attempts', r.attempts),
      generation_id = coalesce(item ->> 'generation_id', r.generation_id),
      served_model = coalesce(item ->> 'served_model', r.served_model),
      estimated = false, is_byok = coalesce((item ->> 'is_byok')::boolean, r.is_byok)
    where r.id = before.id
    returning r.* into now_settled;
    token_change := now_settled.prompt_tokens + now_settled.completion_tokens
      - coalesce(before.prompt_tokens, 0) - coalesce(before.completion_tokens, 0);
    wallet.balance_nanos := wallet.balance_nanos - change;
    wallet.counters := tollgate.correct(wallet.counters, tollgate.ms_of(before.created_at), at_ms, token_change);
    if change <> 0 then
      transfer := row(
        nextval('tollgate.transfers_position_seq'), before.org_id,
        case when change > 0 then 'wallet' else 'revenue' end, case when change > 0 then 'revenue' else 'wallet' end,
        abs(change), case when change > 0 then 'charge' else 'refund' end,
        before.id || case when before.charge_nanos > 0 then ':late' else '' end, -- the first charge has the id itself
        '', wallet.balance_nanos, moment, null
      )::tollgate.transfers;
      transfer.chain := tollgate.chain_after(wallet.chain_head, transfer);
      wallet.chain_head := transfer.chain;
    end if;
    perform tollgate.tally_correction(before, now_settled);
    perform tollgate.settle_user(before.user_id, before.created_at, token_change, at_ms)
    from tollgate.users u where u.id = before.user_id and not u.limits is null;
    if counted then
      perform tollgate.settle_key(before.key_id, before.created_at, change, token_change, at_ms);
    end if;
  end if;

  if not exists (
    select from tollgate.audit_events a
    where a.target_id = before.id and a.action = 'settlement.late' and a.details ->> 'charge_nanos' = new_charge::text
  ) then
    perform tollgate.record(
      row('system', null, null, null, null, null, null, 'settle', null, null, before.id, null, null)::tollgate.caller,
      'settlement.late', before.org_id, before.id,
      jsonb_build_object(
        'state_before', before.state, 'charge_before_nanos', now_settled.charge_nanos - change,
        'charge_nanos', new_charge, 'corrected_by_nanos', change
      )
    );
  end if;
  return row(wallet, now_settled.state, now_settled.charge_nanos, transfer)::tollgate.correction;
end
$$;

comment on function tollgate.settle_late(jsonb, tollgate.wallet, boolean, timestamptz) is
  'Settles a request again that has ended, at another charge. Records it as settlement.late, once for each charge. An exact charge corrects one that was estimated, a release, or the answer from the cache that was not delivered, within the hold: the answer has the transfer of the difference, for the caller to post, and the changed wallet. Any other changes nothing. The org is locked by the caller. Locks the request, the row of tollgate.rolled, the user, the key.';


-- schemas/12_completions/user_limits.sql

-- A user's own limits, over all the user's keys.

create function tollgate.of_user(person tollgate.users) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('of', 'user', 'user_id', person.id)
$$;

comment on function tollgate.of_user(tollgate.users) is 'The user as the subject of a refusal.';


create function tollgate.take_from_user(user_id text, at_ms bigint, tokens bigint) returns void
language sql
set search_path = ''
as $$
  update tollgate.users u set counters = tollgate.take(u.counters, at_ms, 1, tokens) where u.id = user_id
$$;

comment on function tollgate.take_from_user(text, bigint, bigint) is
  'Takes a request from a user''s windows. The org is locked by the caller. Locks the user.';


create function tollgate.settle_user(user_id text, admitted_at timestamptz, token_change bigint, at_ms bigint)
returns void
language sql
set search_path = ''
as $$
  update tollgate.users u
  set counters = tollgate.correct(u.counters, tollgate.ms_of(admitted_at), at_ms, token_change)
  where u.id = user_id
$$;

comment on function tollgate.settle_user(text, timestamptz, bigint, bigint) is
  'Corrects a user''s windows by the difference between the tokens that a request took and those it used. Locks the user.';


-- schemas/12_completions/worst_case.sql

-- The bound and the hold that a request is admitted with.

create function tollgate.worst_case(item jsonb, markup_ppm integer, nanos_left bigint, tokens_left bigint)
returns tollgate.worst_case
language plpgsql
immutable
set search_path = ''
as $$
declare
  prompt_tokens constant bigint := item ->> 'prompt_tokens';
  choices constant bigint := item ->> 'choices';
  charged constant numeric := (1000000 + markup_ppm) * 0.000001; -- for each nano that we pay
  fixed constant numeric := (item ->> 'fixed_nanos')::numeric * charged;
  per_output constant numeric := (item ->> 'output_nanos')::numeric * charged;
  worst_case tollgate.worst_case;
begin
  worst_case.affordable_tokens := case when per_output > 0
    then least(greatest(floor((nanos_left - fixed) / per_output), 0), 1000000000)
    else 1000000000
  end;
  -- A bound that the client left open shrinks to what is left; one that it chose stays.
  worst_case.output_bound := coalesce(
    (item ->> 'output_bound')::bigint,
    least((item ->> 'most_output')::bigint, greatest(
      (item ->> 'least_output')::bigint,
      least(worst_case.affordable_tokens, (tokens_left - prompt_tokens) / choices)
    ))
  );
  worst_case.hold_nanos := least(ceil(fixed + per_output * worst_case.output_bound), 9223372036854775807);
  worst_case.reserved_tokens := prompt_tokens + worst_case.output_bound * choices;
  return worst_case;
end
$$;

comment on function tollgate.worst_case(jsonb, integer, bigint, bigint) is
  'The worst case of a request. An output that the client did not bound is bounded by what is left. The hold is computed exactly and rounded up, and may be more than the balance; one beyond bigint is the largest bigint, which no balance covers.';


create function tollgate.grant_of(
  admitted tollgate.admitted,
  environment text,
  wallet tollgate.wallet,
  remaining tollgate.remaining,
  org_keys jsonb,
  caches boolean
) returns json
language plpgsql
immutable
set search_path = ''
as $$
begin
  return json_build_object('granted', json_build_object(
    'id', admitted.id,
    'org_id', admitted.org_id,
    'user_id', admitted.user_id,
    'key_id', admitted.key_id,
    'environment', environment,
    'hold_nanos', admitted.hold_nanos,
    'output_bound', admitted.output_bound,
    'markup_ppm', admitted.markup_ppm,
    'balance_nanos', wallet.balance_nanos,
    'held_nanos', wallet.held_nanos,
    'byok', case when admitted.item ? 'is_byok' then json_build_object(
      'keys', coalesce(org_keys, '{}'),
      'fee_nanos', admitted.item -> 'byok_fee_nanos',
      'only', admitted.item -> 'is_byok'
    ) end,
    'caches', caches,
    'limits', case when not remaining is null then json_build_object(
      'requests', case when remaining.requests_limit is not null then json_build_object(
        'limit', remaining.requests_limit,
        'remaining', greatest(0, remaining.requests_left),
        'reset_ms', remaining.requests_reset_ms
      ) end,
      'tokens', case when remaining.tokens_limit is not null then json_build_object(
        'limit', remaining.tokens_limit,
        'remaining', greatest(0, remaining.tokens_left),
        'reset_ms', remaining.tokens_reset_ms
      ) end
    ) end
  ));
end
$$;

comment on function tollgate.grant_of(tollgate.admitted, text, tollgate.wallet, tollgate.remaining, jsonb, boolean) is
  'The answer to an admitted request. `byok` has the org''s own keys for the call, null where it has none: `only` if no other may be used. `limits` is null where neither org nor key has any; `caches` is the setting of the key or its org. As json, which is half as expensive to build as jsonb.';


-- schemas/12_fleet/deployment_lists.sql

-- Deployments: the end of one, and all of them.

create function public.tollgate_archive_deployment(caller jsonb, deployment_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  d tollgate.deployments := tollgate.locked_deployment(deployment_id);
begin
  if d.archived_at is not null then
    return jsonb_build_object('caller', tollgate.identity(actor), 'deployment', tollgate.deployment_shown(d));
  end if;
  update tollgate.deployments o set archived_at = now(), wanted = 'stopped', updated_at = now()
  where o.id = d.id returning o.* into d;
  return tollgate.settled_deployment(actor, d, 'deployment.archived');
end
$$;

comment on function public.tollgate_archive_deployment(jsonb, text) is
  'Stops a deployment and takes it out of lists. A repetition changes and records nothing. For admins. Refuses: as recognise(), not_found. Locks the host, the deployment, its upstream and routes.';

select tollgate.expose('public.tollgate_archive_deployment(jsonb, text)');


create function public.tollgate_delete_deployment(caller jsonb, deployment_id text, with_files boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  d constant tollgate.deployments := tollgate.locked_deployment(deployment_id);
  shares_files constant boolean := exists (
    select from tollgate.deployments o
    where o.host_id = d.host_id and o.id <> d.id and o.spec -> 'source' = d.spec -> 'source'
  );
  deletes_files constant boolean := with_files and not shares_files and d.spec #>> '{source,type}' = 'hub';
begin
  if d.wanted <> 'stopped' then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', 'still_wanted', 'kind', 'deployment', 'id', d.id
    ));
  end if;
  perform tollgate.withdraw(d);
  delete from tollgate.deployments o where o.id = d.id;
  perform tollgate.changed_desire(h) from tollgate.hosts h where h.id = d.host_id;
  if deletes_files then
    insert into tollgate.tasks (host_id, kind, arguments)
    values (d.host_id, 'delete_files', jsonb_build_object('source', d.spec -> 'source'));
  end if;
  perform tollgate.record(
    actor, 'deployment.deleted', null, d.id,
    tollgate.without_environment(to_jsonb(d) - 'id' - 'applied_spec' - 'created_at' - 'updated_at')
      || jsonb_build_object('deletes_files', deletes_files)
  );
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'id', d.id, 'files_preserved', not deletes_files, 'shares_files', shares_files,
    'routes_changed', true, 'waking', (select tollgate.waking(h) from tollgate.hosts h where h.id = d.host_id)
  );
end
$$;

comment on function public.tollgate_delete_deployment(jsonb, text, boolean) is
  'Deletes a deployment that should not run, with its upstream and routes, and records it in full. With `with_files`, asks the host to delete what it downloaded for it, unless another deployment has the same files. Requests keep the upstream''s id. For admins. Refuses: as recognise(), not_found, conflict (still_wanted). Locks the host, the deployment, its upstream and routes.';

select tollgate.expose('public.tollgate_delete_deployment(jsonb, text, boolean)');


create function public.tollgate_deployment(caller jsonb, deployment_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  d constant tollgate.deployments := tollgate.deployment_of(deployment_id);
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'deployment', tollgate.deployment_shown(d),
    'log_tail', (select o.log_tail from tollgate.observations o where o.deployment_id = d.id),
    'capabilities', (select h.capabilities from tollgate.hosts h where h.id = d.host_id)
  );
end
$$;

comment on function public.tollgate_deployment(jsonb, text) is
  'One deployment, the log of its last failure, and what its host can do. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_deployment(jsonb, text)');


create function public.tollgate_deployments(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.deployments',
    'tollgate.deployment_shown',
    $where$
      (e.archived_at is not null) = coalesce(($1 ->> 'archived')::boolean, false)
      and ($1 ->> 'host_id' is null or e.host_id = $1 ->> 'host_id')
      and ($1 ->> 'wanted' is null or e.wanted = $1 ->> 'wanted')
      and ($1 ->> 'engine' is null or e.spec ->> 'engine' = $1 ->> 'engine')
      and ($1 ->> 'kind' is null or e.spec ->> 'kind' = $1 ->> 'kind')
      and ($1 ->> 'served_name' is null or e.spec ->> 'served_name' = $1 ->> 'served_name')
      and ($1 ->> 'phase' is null or coalesce((
        select o.phase from tollgate.observations o where o.deployment_id = e.id
      ), 'stopped') = $1 ->> 'phase')
    $where$,
    '{"created_at": "e.created_at", "name": "e.name collate \"C\""}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_deployments(jsonb, jsonb, integer) is
  'Deployments. `filters`: archived (others are left out; default false), host_id, wanted, engine, kind, served_name, phase, sort (created_at, name), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_deployments(jsonb, jsonb, integer)');


create function tollgate.phase_change_shown(c tollgate.phase_changes) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', c.id, 'before', c.before, 'phase', c.phase, 'why', c.why, 'asked_by', c.asked_by,
    'changed_at', tollgate.utc(c.changed_at)
  )
$$;

comment on function tollgate.phase_change_shown(tollgate.phase_changes) is 'A change of a phase as operators see it.';


create function public.tollgate_phase_changes(caller jsonb, deployment_id text, filters jsonb, page_size integer)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  d constant tollgate.deployments := tollgate.deployment_of(deployment_id);
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.phase_changes',
    'tollgate.phase_change_shown',
    'true',
    '{"changed_at": "e.changed_at"}',
    'changed_at:desc',
    filters,
    page_size,
    within => format('e.deployment_id = %L', d.id)
  );
end
$$;

comment on function public.tollgate_phase_changes(jsonb, text, jsonb, integer) is
  'The last changes of the phase of a deployment, newest first. `filters`: cursor. For admins. Refuses: as recognise() and page(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_phase_changes(jsonb, text, jsonb, integer)');


create function public.tollgate_deployment_metrics(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor), 'data', coalesce((
    select jsonb_agg(coalesce(o.metrics, '{}') || jsonb_build_object(
      'model_id', d.id, 'model_name', d.name, 'served_name', d.applied_spec -> 'served_name', 'host_id', d.host_id,
      'status', tollgate.state_of(o.phase), 'error', o.detail, 'observed_at', tollgate.utc(o.observed_at)
    ) order by d.name, d.id)
    from tollgate.deployments d
    left join tollgate.observations o on o.deployment_id = d.id
    where d.archived_at is null
  ), '[]'));
end
$$;

comment on function public.tollgate_deployment_metrics(jsonb) is
  'The last figures of the engines of all deployments. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_deployment_metrics(jsonb)');


-- schemas/12_fleet/deployments.sql

-- Deployments, as operators manage them.
--
-- Lock order: host, deployment, its upstream and routes.

create function tollgate.state_of(phase text) returns text
language sql
immutable
set search_path = ''
as $$
  select case phase
    when 'downloading' then 'starting'
    when 'draining' then 'running'
    when 'stopping' then 'stopped'
    when 'unknown' then 'loading'
    else coalesce(phase, 'stopped')
  end
$$;

comment on function tollgate.state_of(text) is 'A phase as one of the five states that clients of older servers know.';


create function tollgate.deployment_shown(d tollgate.deployments) returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(d) - 'applied_spec' - 'token_sent_for' - 'asked_by' || jsonb_build_object(
    'engine', d.spec -> 'engine',
    'kind', d.spec -> 'kind',
    'served_name', d.spec -> 'served_name',
    'archived', d.archived_at is not null,
    'archived_at', tollgate.utc(d.archived_at),
    'created_at', tollgate.utc(d.created_at),
    'updated_at', tollgate.utc(d.updated_at),
    'host', (
      select jsonb_build_object('name', h.name, 'state', h.state, 'contact', case
        when h.last_seen_at is null then 'never' when tollgate.is_seen(h) then 'seen' else 'unseen' end)
      from tollgate.hosts h where h.id = d.host_id
    ),
    'upstream_id', (select u.id from tollgate.upstreams u where u.id = tollgate.upstream_of(d)),
    'offered_as', array(
      select r.model::text from tollgate.routes r
      where r.upstream_id = tollgate.upstream_of(d) and r.state = 'active' order by r.model
    ),
    'phase', coalesce(o.phase, 'stopped'),
    'state', tollgate.state_of(o.phase),
    'ready', coalesce(o.ready, false),
    'running_generation', o.generation,
    'failures', coalesce(o.failures, 0),
    'retry_at', tollgate.utc(o.retry_at),
    'detail', o.detail,
    'diagnosis', o.diagnosis,
    'progress', o.progress,
    'measured', o.measured,
    'facts', o.facts,
    'metrics', case when o.phase in ('running', 'draining') then o.metrics end,
    'phase_since', tollgate.utc(o.phase_since),
    'last_started_at', tollgate.utc(o.last_started_at),
    'last_stopped_at', tollgate.utc(o.last_stopped_at),
    'observed_at', tollgate.utc(o.observed_at)
  )
  from (select) nothing
  left join tollgate.observations o on o.deployment_id = d.id
$$;

comment on function tollgate.deployment_shown(tollgate.deployments) is
  'A deployment as operators see it: what should be, and what its host says.';


create function tollgate.deployment_of(id text) returns tollgate.deployments
language plpgsql
stable
set search_path = ''
as $$
declare
  d tollgate.deployments;
begin
  if id is not null then
    select o.* into d from tollgate.deployments o where o.id = deployment_of.id;
    if not found then
      perform tollgate.refuse_missing('deployment', id);
    end if;
  end if;
  return d;
end
$$;

comment on function tollgate.deployment_of(text) is 'The deployment of this id; null for null. Refuses: not_found.';


create function tollgate.locked_deployment(id text) returns tollgate.deployments
language plpgsql
set search_path = ''
as $$
declare
  h constant tollgate.hosts := tollgate.locked_host(coalesce((tollgate.deployment_of(id)).host_id, ''));
  d tollgate.deployments;
begin
  select o.* into d from tollgate.deployments o where o.id = locked_deployment.id for no key update;
  if not found then
    perform tollgate.refuse_missing('deployment', id);
  end if;
  return d;
end
$$;

comment on function tollgate.locked_deployment(text) is
  'The deployment of this id. Refuses: not_found. Locks its host, then the deployment. It never moves to another host.';


create function tollgate.settled_deployment(
  actor tollgate.caller, d tollgate.deployments, action text, details jsonb default '{}'
) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  h tollgate.hosts;
  routes_changed boolean;
begin
  if action <> 'deployment.changed' then
    update tollgate.deployments o set asked_by = coalesce(actor.user_id, actor.name) where o.id = d.id;
  end if;
  select o.* into h from tollgate.hosts o where o.id = d.host_id;
  perform tollgate.changed_desire(h);
  routes_changed := tollgate.offer(d, h);
  perform tollgate.record(actor, action, null, d.id, details);
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'deployment', tollgate.deployment_shown(d), 'routes_changed', routes_changed,
    'waking', tollgate.waking(h)
  );
end
$$;

comment on function tollgate.settled_deployment(tollgate.caller, tollgate.deployments, text, jsonb) is
  'What follows each change of a deployment: who asked for it is noted, its host is to read the list again, its routes are made again, the change is recorded; and the answer. Locks its upstream and routes; the host must be locked.';


create function tollgate.without_environment(given jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select given #- '{spec,environment}'
$$;

comment on function tollgate.without_environment(jsonb) is
  'A change of a deployment for the audit trail: variables of engines may hold secrets.';


create function public.tollgate_create_deployment(caller jsonb, deployment jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  h constant tollgate.hosts := tollgate.locked_host(deployment ->> 'host_id');
  made tollgate.deployments;
begin
  perform tollgate.refuse_retired(h);
  made := jsonb_populate_record(made, '{"wanted": "stopped", "priority": 50, "weight": 1, "listing": {},
    "drain_seconds": 60, "minimum_stay_seconds": 60, "load_seconds": 60, "generation": 1, "applied_generation": 1}'
    || jsonb_build_object('id', tollgate.new_id('dep'), 'name', coalesce(deployment ->> 'name', '-'),
      'host_id', h.id, 'created_at', now(), 'updated_at', now(),
      'spec', '{"engine": "custom", "kind": "text", "source": {"type": "path"}, "served_name": "-"}'::jsonb,
      'applied_spec', '{"engine": "custom", "kind": "text", "source": {"type": "path"}, "served_name": "-"}'::jsonb));
  made := tollgate.with_fields(made, deployment - 'host_id', array[
    'name', 'spec', 'wanted', 'pricing', 'context_tokens', 'most_output', 'priority', 'weight', 'listing',
    'drain_seconds', 'idle_seconds', 'minimum_stay_seconds', 'load_seconds', 'hub_token'
  ]);
  made.applied_spec := made.spec;
  insert into tollgate.deployments select made.*;
  return tollgate.settled_deployment(
    actor, made, 'deployment.created', tollgate.without_environment(deployment) || jsonb_build_object('host_id', h.id)
  );
end
$$;

comment on function public.tollgate_create_deployment(jsonb, jsonb) is
  'Creates a deployment on a host, or on the only one. For admins. Refuses: as recognise(), with_fields() and locked_host(), conflict (host_retired). Locks the host.';

select tollgate.expose('public.tollgate_create_deployment(jsonb, jsonb)');


create function public.tollgate_change_deployment(caller jsonb, deployment_id text, changes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  was constant tollgate.deployments := tollgate.locked_deployment(deployment_id);
  made tollgate.deployments := tollgate.with_fields(was, changes - 'archived', array[
    'name', 'spec', 'pricing', 'context_tokens', 'most_output', 'priority', 'weight', 'listing',
    'drain_seconds', 'idle_seconds', 'minimum_stay_seconds', 'load_seconds', 'hub_token'
  ]);
begin
  if changes -> 'archived' = 'false' then
    made.archived_at := null;
  end if;
  if made is not distinct from was then
    return jsonb_build_object('caller', tollgate.identity(actor), 'deployment', tollgate.deployment_shown(was));
  end if;
  made.generation := was.generation + (made.spec <> was.spec)::integer;
  if was.wanted = 'stopped' then -- nothing runs that a change could disturb
    made.applied_spec := made.spec;
    made.applied_generation := made.generation;
  end if;
  update tollgate.deployments d set
    name = made.name, spec = made.spec, generation = made.generation, applied_spec = made.applied_spec,
    applied_generation = made.applied_generation, pricing = made.pricing, context_tokens = made.context_tokens,
    most_output = made.most_output, priority = made.priority, weight = made.weight, listing = made.listing,
    drain_seconds = made.drain_seconds, idle_seconds = made.idle_seconds,
    minimum_stay_seconds = made.minimum_stay_seconds, load_seconds = made.load_seconds, hub_token = made.hub_token,
    archived_at = made.archived_at, updated_at = now()
  where d.id = was.id returning d.* into made;
  return tollgate.settled_deployment(actor, made, 'deployment.changed', tollgate.without_environment(changes));
end
$$;

comment on function public.tollgate_change_deployment(jsonb, text, jsonb) is
  'Changes the given fields of a deployment. A running one keeps its spec until apply; prices follow at once. A repetition changes and records nothing. For admins. Refuses: as recognise() and with_fields(), not_found. Locks the host, the deployment, its upstream and routes.';

select tollgate.expose('public.tollgate_change_deployment(jsonb, text, jsonb)');


create function public.tollgate_set_wanted(caller jsonb, deployment_id text, wanted text, applied boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  d tollgate.deployments := tollgate.locked_deployment(deployment_id);
  again constant boolean := applied and d.generation = d.applied_generation;
begin
  if wanted <> 'stopped' then
    perform tollgate.refuse_retired(h) from tollgate.hosts h where h.id = d.host_id;
    if d.archived_at is not null then
      perform tollgate.refuse(409, 'conflict', jsonb_build_object('reason', 'archived', 'kind', 'deployment', 'id', d.id));
    end if;
  end if;
  if not applied and d.wanted = wanted and (wanted = 'stopped' or d.applied_generation = d.generation) then
    return jsonb_build_object('caller', tollgate.identity(actor), 'deployment', tollgate.deployment_shown(d));
  end if;
  update tollgate.deployments o set
    wanted = case when applied and o.wanted = 'on_demand' then o.wanted else tollgate_set_wanted.wanted end,
    generation = o.generation + again::integer,
    applied_spec = o.spec,
    applied_generation = o.generation + again::integer,
    updated_at = now()
  where o.id = d.id returning o.* into d;
  return tollgate.settled_deployment(
    actor, d, case when applied then 'deployment.applied' when wanted = 'stopped' then 'deployment.stopped'
      else 'deployment.started' end, jsonb_build_object('wanted', wanted, 'generation', d.generation)
  );
end
$$;

comment on function public.tollgate_set_wanted(jsonb, text, text, boolean) is
  'Says whether a deployment should run, be stopped, or be loaded by the first call, with its newest spec. With `applied`, it starts again even if nothing was edited. Otherwise a repetition changes and records nothing. For admins. Refuses: as recognise(), not_found, conflict (archived, host_retired). Locks the host, the deployment, its upstream and routes.';

select tollgate.expose('public.tollgate_set_wanted(jsonb, text, text, boolean)');


-- schemas/12_fleet/enrolments.sql

-- Enrolments, as operators create them.

create function tollgate.put_enrolment(h tollgate.hosts, digest text) returns jsonb
language sql
set search_path = ''
as $$
  delete from tollgate.enrolments e where e.host_id = h.id;
  insert into tollgate.enrolments (digest, host_id, expires_at)
  values (decode(put_enrolment.digest, 'hex'), h.id, now() + interval '1 hour')
  returning jsonb_build_object('expires_at', tollgate.utc(expires_at))
$$;

comment on function tollgate.put_enrolment(tollgate.hosts, text) is
  'Stores the enrolment of a host that the calling function has locked. Earlier ones end.';


create function public.tollgate_new_enrolment(caller jsonb, host_id text, digest text, rotate boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  h tollgate.hosts := tollgate.locked_host(host_id);
begin
  perform tollgate.refuse_retired(h);
  if rotate then
    h := tollgate.with_next_key(h);
  end if;
  perform tollgate.record(
    actor, case when rotate then 'host.rotated' else 'enrolment.created' end, null, h.id
  );
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'host', tollgate.host_shown(h),
    'enrolment', tollgate.put_enrolment(h, digest)
  );
end
$$;

comment on function public.tollgate_new_enrolment(jsonb, text, text, boolean) is
  'Stores another enrolment of a host, in the place of earlier ones. With `rotate`, the key of the host ends at once; otherwise when the enrolment is used. For admins. Refuses: as recognise(), not_found, conflict (host_retired). Locks the host, then its upstreams.';

select tollgate.expose('public.tollgate_new_enrolment(jsonb, text, text, boolean)');


-- schemas/12_fleet/host_lists.sql

-- Hosts: the end of one, and all of them.

create function public.tollgate_delete_host(caller jsonb, host_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  h constant tollgate.hosts := tollgate.locked_host(host_id);
  wanted constant text[] := array(
    select d.id from tollgate.deployments d where d.host_id = h.id and d.wanted <> 'stopped' order by d.id limit 10
  );
  models integer;
begin
  if cardinality(wanted) > 0 then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', 'host_still_wanted', 'kind', 'host', 'id', h.id, 'deployment_ids', to_jsonb(wanted)
    ));
  end if;
  perform tollgate.withdraw(d) from tollgate.deployments d where d.host_id = h.id;
  delete from tollgate.deployments d where d.host_id = h.id;
  get diagnostics models = row_count;
  delete from tollgate.hosts o where o.id = h.id;
  perform tollgate.record(actor, 'host.deleted', null, h.id, jsonb_build_object(
    'name', h.name, 'state', h.state, 'labels', h.labels, 'ingress_url', tollgate.ingress_of(h), 'models', models
  ));
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'id', h.id, 'models', models, 'routes_changed', models > 0
  );
end
$$;

comment on function public.tollgate_delete_host(jsonb, text) is
  'Deletes a host with its deployments, their upstreams and routes, its enrolments, tasks and samples. Requests and audit events keep their ids. For admins. Refuses: as recognise(), not_found, conflict (host_still_wanted). Locks the host, its deployments, upstreams and routes.';

select tollgate.expose('public.tollgate_delete_host(jsonb, text)');


create function public.tollgate_host(caller jsonb, host_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  wanted constant text := tollgate.host_named(host_id);
  h tollgate.hosts;
begin
  select o.* into h from tollgate.hosts o where o.id = wanted;
  if not found then
    perform tollgate.refuse_missing('host', wanted);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'host', tollgate.host_shown(h));
end
$$;

comment on function public.tollgate_host(jsonb, text) is
  'The host of this id, or the only one. For admins. Refuses: as recognise() and host_named(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_host(jsonb, text)');


create function public.tollgate_hosts(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.hosts',
    'tollgate.host_shown',
    '$1 ->> ''state'' is null or e.state = $1 ->> ''state''',
    '{"created_at": "e.created_at", "name": "e.name collate \"C\""}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_hosts(jsonb, jsonb, integer) is
  'Hosts. `filters`: state, sort (created_at, name), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_hosts(jsonb, jsonb, integer)');


-- schemas/12_fleet/hosts.sql

-- Hosts, as operators manage them.
--
-- Lock order: host, its deployments by id, their upstreams and routes.

create function tollgate.is_seen(h tollgate.hosts) returns boolean
language sql
stable
set search_path = ''
as $$
  select (h.last_seen_at > clock_timestamp() - interval '45 seconds') is true
$$;

comment on function tollgate.is_seen(tollgate.hosts) is
  'Whether the agent called within 45 seconds, by the clock of the database. What runs on a silent host is left as it is.';


create function tollgate.ingress_of(h tollgate.hosts) returns text
language sql
immutable
set search_path = ''
as $$
  select coalesce(h.ingress_url, h.reported_ingress_url)
$$;

comment on function tollgate.ingress_of(tollgate.hosts) is 'Where the ingress of a host is; null where nobody said.';


create function tollgate.waking(h tollgate.hosts) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object('host_id', h.id, 'ingress_url', tollgate.ingress_of(h), 'key_generation', h.key_generation)
  where tollgate.is_seen(h) and tollgate.ingress_of(h) is not null
$$;

comment on function tollgate.waking(tollgate.hosts) is
  'How the server wakes the agent of a host, so that it syncs now; null where that would be in vain.';


create function tollgate.host_shown(h tollgate.hosts) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', h.id,
    'name', h.name,
    'state', h.state,
    'contact', case when h.last_seen_at is null then 'never' when tollgate.is_seen(h) then 'seen' else 'unseen' end,
    'labels', h.labels,
    'base_dir', h.base_dir,
    'ingress_url', tollgate.ingress_of(h),
    'agent_version', h.agent_version,
    'capabilities', h.capabilities,
    'sample', (
      select s.sample || jsonb_build_object('sampled_at', tollgate.utc(s.sampled_at))
      from tollgate.host_samples s where s.host_id = h.id order by s.sampled_at desc limit 1
    ),
    'models', (select count(*) from tollgate.deployments d where d.host_id = h.id and d.archived_at is null),
    'running', (
      select count(*) from tollgate.deployments d
      join tollgate.observations o on o.deployment_id = d.id
      where d.host_id = h.id and o.phase = 'running'
    ),
    'enrolled_at', tollgate.utc(h.enrolled_at),
    'last_seen_at', tollgate.utc(h.last_seen_at),
    'created_at', tollgate.utc(h.created_at),
    'updated_at', tollgate.utc(h.updated_at)
  )
$$;

comment on function tollgate.host_shown(tollgate.hosts) is 'A host as operators see it, with its last sample.';


create function tollgate.host_named(host_id text) returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  ids constant text[] := array(select h.id from tollgate.hosts h where h.state <> 'retired' order by h.id limit 10);
begin
  if host_id is null and cardinality(ids) <> 1 then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', case cardinality(ids) when 0 then 'no_host' else 'several_hosts' end, 'host_ids', to_jsonb(ids)
    ));
  end if;
  return coalesce(host_id, ids[1]);
end
$$;

comment on function tollgate.host_named(text) is
  'This id or, where none is given, that of the only host that is not retired. Refuses: conflict (no_host, several_hosts).';


create function tollgate.locked_host(host_id text) returns tollgate.hosts
language plpgsql
set search_path = ''
as $$
declare
  wanted constant text := tollgate.host_named(host_id);
  h tollgate.hosts;
begin
  select o.* into h from tollgate.hosts o where o.id = wanted for no key update;
  if not found then
    perform tollgate.refuse_missing('host', wanted);
  end if;
  return h;
end
$$;

comment on function tollgate.locked_host(text) is
  'The host of this id, or the only one. Refuses: as host_named(), not_found. Locks the host.';


create function tollgate.refuse_retired(h tollgate.hosts) returns void
language plpgsql
set search_path = ''
as $$
begin
  if h.state = 'retired' then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object('reason', 'host_retired', 'kind', 'host', 'id', h.id));
  end if;
end
$$;

comment on function tollgate.refuse_retired(tollgate.hosts) is 'Refuses, with conflict, what a retired host cannot do.';


create function public.tollgate_create_host(caller jsonb, host jsonb, enrolment jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  made tollgate.hosts;
begin
  made.name := '-';
  made.state := 'active';
  made.labels := '{}';
  made := tollgate.with_fields(made, host, array['name', 'labels', 'ingress_url', 'base_dir']);
  insert into tollgate.hosts (name, labels, ingress_url, base_dir)
  values (made.name, made.labels, made.ingress_url, made.base_dir)
  returning * into made;
  perform tollgate.record(actor, 'host.created', null, made.id, host);
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'host', tollgate.host_shown(made),
    'enrolment', tollgate.put_enrolment(made, enrolment ->> 'digest')
  );
end
$$;

comment on function public.tollgate_create_host(jsonb, jsonb, jsonb) is
  'Creates a host, with an enrolment whose token has this digest. For admins. Refuses: as recognise() and with_fields(). Locks nothing.';

select tollgate.expose('public.tollgate_create_host(jsonb, jsonb, jsonb)');


create function public.tollgate_change_host(caller jsonb, host_id text, changes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  was constant tollgate.hosts := tollgate.locked_host(host_id);
  made tollgate.hosts := tollgate.with_fields(was, changes, array['name', 'labels', 'ingress_url', 'base_dir']);
  routes_changed boolean := false;
begin
  if made is distinct from was then
    update tollgate.hosts h set
      name = made.name, labels = made.labels, ingress_url = made.ingress_url, base_dir = made.base_dir,
      updated_at = now()
    where h.id = was.id returning h.* into made;
    routes_changed := tollgate.offer_all(made);
    perform tollgate.record(actor, 'host.changed', null, made.id, changes);
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'host', tollgate.host_shown(made), 'routes_changed', routes_changed
  );
end
$$;

comment on function public.tollgate_change_host(jsonb, text, jsonb) is
  'Changes the given fields of a host, or of the only one. A repetition changes and records nothing. For admins. Refuses: as recognise(), with_fields() and locked_host(). Locks the host, then its upstreams and routes.';

select tollgate.expose('public.tollgate_change_host(jsonb, text, jsonb)');


create function public.tollgate_set_host_state(caller jsonb, host_id text, state text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  h tollgate.hosts := tollgate.locked_host(host_id);
  routes_changed boolean := false;
begin
  if h.state <> tollgate_set_host_state.state then
    perform tollgate.refuse_retired(h);
    update tollgate.hosts o set state = tollgate_set_host_state.state, updated_at = now()
    where o.id = h.id returning o.* into h;
    routes_changed := tollgate.offer_all(h);
    perform tollgate.record(actor, case tollgate_set_host_state.state
      when 'active' then 'host.uncordoned' when 'cordoned' then 'host.cordoned' else 'host.retired' end,
      null, h.id);
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'host', tollgate.host_shown(h), 'routes_changed', routes_changed,
    'waking', tollgate.waking(h)
  );
end
$$;

comment on function public.tollgate_set_host_state(jsonb, text, text) is
  'Makes a host active, cordoned or retired. Its routes follow at once. A retired host stays retired, and its key opens nothing. For admins. Refuses: as recognise(), not_found, conflict (host_retired). Locks the host, then its upstreams and routes.';

select tollgate.expose('public.tollgate_set_host_state(jsonb, text, text)');


-- schemas/12_fleet/offers.sql

-- What hosts offer: a deployment that can take calls is an upstream, with a route for each of its names.
--
-- The upstream is the ingress of the host. Its key is made from AGENT_KEY, so no variable is named.

create function tollgate.upstream_of(d tollgate.deployments) returns text
language sql
immutable
set search_path = ''
as $$
  select 'ups_' || substr(d.id, 5)
$$;

comment on function tollgate.upstream_of(tollgate.deployments) is 'The id of the upstream that a deployment is offered as.';


create function tollgate.names_of(spec jsonb) returns text[]
language sql
immutable
set search_path = ''
as $$
  select array(
    select distinct n.name
    from jsonb_array_elements_text(jsonb_build_array(spec ->> 'served_name') || coalesce(spec -> 'aliases', '[]')) n (name)
  )
$$;

comment on function tollgate.names_of(jsonb) is 'The names by which clients find the model of a spec.';


create function tollgate.dialect_of(engine text) returns text
language sql
immutable
set search_path = ''
as $$
  select case when engine in ('vllm', 'sglang', 'llamacpp', 'tgi') then engine else 'openai' end
$$;

comment on function tollgate.dialect_of(text) is 'How an engine differs from OpenAI''s API.';


create function tollgate.listing_of(d tollgate.deployments) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('name', d.name) || case d.applied_spec ->> 'kind'
    when 'transcription' then '{"architecture": {"modality": "audio->transcription", "input_modalities": ["audio"],
      "output_modalities": ["transcription"], "tokenizer": "Other", "instruct_type": null}}'::jsonb
    when 'speech' then '{"architecture": {"modality": "text->speech", "input_modalities": ["text"],
      "output_modalities": ["speech"], "tokenizer": "Other", "instruct_type": null}}'::jsonb
    else '{}'
  end || d.listing
$$;

comment on function tollgate.listing_of(tollgate.deployments) is
  'How GET /v1/models shows the model of a deployment: by its kind, and as the operator says.';


create function tollgate.is_offered(d tollgate.deployments, h tollgate.hosts) returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (
    select from tollgate.observations o
    where o.deployment_id = d.id
      and o.generation = d.applied_generation
      and (o.phase = 'running' or (d.wanted = 'on_demand' and o.ready and o.phase in ('stopped', 'starting', 'loading')))
  )
  and d.wanted <> 'stopped' and d.pricing is not null and d.archived_at is null
  and h.state = 'active' and tollgate.ingress_of(h) is not null
$$;

comment on function tollgate.is_offered(tollgate.deployments, tollgate.hosts) is
  'Whether clients may call a deployment: it runs, or would be loaded by a call; it has a price; and its host takes calls. A host that is silent still does: breakers judge the way to it.';


create function tollgate.offer(d tollgate.deployments, h tollgate.hosts) returns boolean
language plpgsql
set search_path = ''
as $$
declare
  server constant text := tollgate.upstream_of(d);
  offered constant text[] := case when tollgate.is_offered(d, h) then tollgate.names_of(d.applied_spec) else '{}' end;
  written integer;
  changes integer := 0;
begin
  if cardinality(offered) > 0 then
    insert into tollgate.upstreams as u (id, name, base_url, dialect, host_id, host_key_generation)
    values (
      server, left(d.name || ' at ' || h.name, 200), tollgate.ingress_of(h) || '/d/' || d.id || '/v1',
      tollgate.dialect_of(d.applied_spec ->> 'engine'), h.id, h.key_generation
    )
    on conflict (id) do update set
      name = excluded.name, base_url = excluded.base_url, dialect = excluded.dialect, host_id = excluded.host_id,
      host_key_generation = excluded.host_key_generation, updated_at = now()
    where (u.name, u.base_url, u.dialect, u.host_id, u.host_key_generation) is distinct from
      (excluded.name, excluded.base_url, excluded.dialect, excluded.host_id, excluded.host_key_generation);
    get diagnostics changes = row_count;

    insert into tollgate.routes as r (
      model, upstream_id, upstream_model, pricing, context_tokens, most_output, priority, weight, listing
    )
    select n.name, server, d.applied_spec ->> 'served_name', d.pricing, d.context_tokens, d.most_output, d.priority,
      d.weight, tollgate.listing_of(d)
    from unnest(offered) n (name)
    order by n.name
    on conflict (model, upstream_id) do update set
      upstream_model = excluded.upstream_model, pricing = excluded.pricing, context_tokens = excluded.context_tokens,
      most_output = excluded.most_output, priority = excluded.priority, weight = excluded.weight,
      listing = excluded.listing, state = 'active', updated_at = now()
    where (r.upstream_model, r.pricing, r.context_tokens, r.most_output, r.priority, r.weight, r.listing, r.state)
      is distinct from (excluded.upstream_model, excluded.pricing, excluded.context_tokens, excluded.most_output,
        excluded.priority, excluded.weight, excluded.listing, 'active');
    get diagnostics written = row_count;
    changes := changes + written;
  end if;

  update tollgate.routes r set state = 'disabled', updated_at = now()
  where r.upstream_id = server and r.state = 'active' and r.model <> all (offered);
  get diagnostics written = row_count;
  return changes + written > 0;
end
$$;

comment on function tollgate.offer(tollgate.deployments, tollgate.hosts) is
  'Makes the upstream and the routes of a deployment as they should be now, and tells whether that changed any. The host must be locked. Locks the upstream and its routes.';


create function tollgate.offer_all(h tollgate.hosts) returns boolean
language sql
set search_path = ''
as $$
  select coalesce(bool_or(a.changed), false) from (
    select tollgate.offer(o, h) as changed from tollgate.deployments o where o.host_id = h.id order by o.id
  ) a
$$;

comment on function tollgate.offer_all(tollgate.hosts) is 'As offer(), for all deployments of a host that is locked.';


create function tollgate.withdraw(d tollgate.deployments) returns void
language sql
set search_path = ''
as $$
  delete from tollgate.routes r where r.upstream_id = tollgate.upstream_of(d);
  delete from tollgate.upstreams u where u.id = tollgate.upstream_of(d)
$$;

comment on function tollgate.withdraw(tollgate.deployments) is
  'Deletes the upstream and the routes of a deployment. Requests keep their id. Locks them.';


create function tollgate.with_next_key(h tollgate.hosts) returns tollgate.hosts
language plpgsql
set search_path = ''
as $$
declare
  made tollgate.hosts;
begin
  update tollgate.hosts o set
    key_generation = o.key_generation + 1, incarnation = null, seq = null, lease_until = null, updated_at = now()
  where o.id = h.id returning o.* into made;
  update tollgate.upstreams u set host_key_generation = made.key_generation, updated_at = now()
  where u.host_id = h.id;
  return made;
end
$$;

comment on function tollgate.with_next_key(tollgate.hosts) is
  'The host with its next key: the one before opens nothing any more, and its lease is over. The host must be locked. Locks its upstreams.';


create function tollgate.changed_desire(h tollgate.hosts) returns void
language sql
set search_path = ''
as $$
  update tollgate.hosts o set desired_version = o.desired_version + 1 where o.id = h.id
$$;

comment on function tollgate.changed_desire(tollgate.hosts) is
  'Notes that what should run on a host has changed. The host must be locked.';


-- schemas/12_fleet/tasks.sql

-- Tasks: what a host is asked to do once.

create function public.tollgate_create_task(caller jsonb, host_id text, deployment_id text, kind text, arguments jsonb)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  h tollgate.hosts;
  made tollgate.tasks;
begin
  h := tollgate.locked_host(coalesce((tollgate.deployment_of(deployment_id)).host_id, host_id));
  perform tollgate.refuse_retired(h);
  if not tollgate.is_seen(h) then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object('reason', 'host_unseen', 'kind', 'host', 'id', h.id));
  end if;
  insert into tollgate.tasks (host_id, kind, arguments) values (
    h.id, tollgate_create_task.kind,
    case when deployment_id is null then arguments
      else arguments || jsonb_build_object('deployment_id', deployment_id) end
  ) returning * into made;
  perform tollgate.record(actor, 'task.created', null, h.id, jsonb_build_object(
    'task_id', made.id, 'kind', made.kind, 'arguments', made.arguments
  ));
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'task', jsonb_build_object(
      'id', made.id, 'kind', made.kind, 'arguments', made.arguments, 'host_id', h.id,
      'ingress_url', tollgate.ingress_of(h), 'key_generation', h.key_generation
    )
  );
end
$$;

comment on function public.tollgate_create_task(jsonb, text, text, text, jsonb) is
  'Asks a host to do something once: the host of a deployment, a host by its id, or the only one. For admins. Refuses: as recognise() and locked_host(), not_found (deployment), conflict (host_retired, host_unseen). Locks the host.';

select tollgate.expose('public.tollgate_create_task(jsonb, text, text, text, jsonb)');


create function public.tollgate_task(caller jsonb, task_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  t tollgate.tasks;
begin
  select o.* into t from tollgate.tasks o where o.id = tollgate_task.task_id;
  if not found then
    perform tollgate.refuse_missing('task', task_id);
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'task', jsonb_build_object('id', t.id, 'state', t.state, 'result', t.result, 'error', t.error)
  );
end
$$;

comment on function public.tollgate_task(jsonb, text) is
  'What has become of a task. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_task(jsonb, text)');


-- schemas/12_sweeper/retention.sql

-- Drops old requests.

create function public.tollgate_drop_old_requests(older_than_days integer, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  boundary timestamptz;
  gone text[];
begin
  -- Only whole hours that are rolled up: their counts are in the tallies.
  select date_trunc('hour', least(r.rolled_until, now() - make_interval(days => greatest(older_than_days, 1))), 'UTC')
  into boundary
  from tollgate.rolled r;
  update tollgate.rolled set dropped_until = boundary where dropped_until < boundary;

  with old as (
    delete from tollgate.requests r
    where r.id = any (array(
      select o.id from tollgate.requests o
      where o.created_at < boundary and o.settled_at is not null
        and not exists (select from tollgate.late_requests l where l.request_id = o.id)
      order by o.created_at
      limit page_size
      for update skip locked
    ))
    returning r.id, r.org_id, r.charge_nanos
  ),
  noted as (
    insert into tollgate.dropped as d (org_id, requests, charges, charge_nanos)
    select o.org_id, count(*), count(*) filter (where o.charge_nanos > 0 or exists ( -- refunded later
      select from tollgate.transfers t where t.kind = 'charge' and t.reference = o.id
    )), coalesce(sum(o.charge_nanos), 0)
    from old o
    group by o.org_id
    order by o.org_id
    on conflict (org_id) do update set
      requests = d.requests + excluded.requests,
      charges = d.charges + excluded.charges,
      charge_nanos = d.charge_nanos + excluded.charge_nanos
  )
  select array_agg(o.id) into gone from old o;
  delete from tollgate.answers a where a.request_id = any (gone);
  return jsonb_build_object(
    'requests', coalesce(cardinality(gone), 0), 'more', coalesce(cardinality(gone), 0) >= page_size
  );
end
$$;

comment on function public.tollgate_drop_old_requests(integer, integer) is
  'Drops a batch of the oldest ended requests made so many days ago or more (at least one), and their answers, once they are rolled up; called again while it answers "more". Their usage stays in the tallies, and their charges in the ledger and, by org, in tollgate.dropped. Refuses nothing. Locks the dropped rows, skipping locked ones, never an org; the row of tollgate.rolled when the hour has moved on.';

select tollgate.expose('public.tollgate_drop_old_requests(integer, integer)');


-- schemas/12_sweeper/sweep.sql

-- Ends open requests that were not settled in time.

create function public.tollgate_note_generations(items jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
set enable_seqscan = off -- as for tollgate_admit()
as $$
declare
  answers jsonb;
begin
  with noted as (
    update tollgate.requests r
    set generation_id = i.generation_id, upstream = i.upstream, is_byok = coalesce(i.is_byok, r.is_byok)
    from jsonb_to_recordset(items) i (id text, generation_id text, upstream text, is_byok boolean)
    where r.id = i.id and r.id = any (array(
      select o.id from tollgate.requests o
      where o.id = any (array(select a.value ->> 'id' from jsonb_array_elements(items) a))
        and o.state in ('held', 'unsettled')
      for no key update skip locked
    ))
    returning r.id
  )
  select jsonb_object_agg(i.value ->> 'id', jsonb_build_object('noted', n.id is not null)) into answers
  from jsonb_array_elements(items) i
  left join noted n on n.id = i.value ->> 'id';
  return answers;
end
$$;

comment on function public.tollgate_note_generations(jsonb) is
  'Stores the upstreams'' ids of running generations. With them the sweeper finds the costs of requests whose process died. Each item has id, generation_id, upstream, and is_byok where the org''s own key is in use. Refuses nothing. Locks the request rows, and skips locked ones, which are being settled.';

select tollgate.expose('public.tollgate_note_generations(jsonb)');


create function public.tollgate_due(page_size integer, lease_seconds integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  due jsonb;
begin
  delete from tollgate.answers a
  where (a.org_id, a.idempotency_key) in (
    select o.org_id, o.idempotency_key from tollgate.answers o
    where o.created_at < clock_timestamp() - interval '24 hours'
    order by o.created_at
    limit 1000
    for update skip locked
  );

  with taken as (
    update tollgate.holds h set
      sweeps = h.sweeps + 1,
      next_sweep_at = clock_timestamp() + make_interval(secs => lease_seconds)
    where h.request_id in (
      select o.request_id from tollgate.holds o
      where o.next_sweep_at <= clock_timestamp()
      order by o.next_sweep_at
      limit page_size
      for update skip locked
    )
    returning *
  )
  select jsonb_agg(jsonb_build_object(
    'id', r.id,
    'org_id', r.org_id,
    'state', r.state,
    'endpoint', r.endpoint,
    'model', r.model,
    'streamed', r.streamed,
    'upstream', r.upstream,
    'generation_id', r.generation_id,
    'hold_nanos', r.hold_nanos,
    'markup_ppm', r.markup_ppm,
    'price', r.price,
    'usage', r.usage,
    'prompt_tokens', r.prompt_tokens,
    'completion_tokens', r.completion_tokens,
    'output_bound', r.output_bound,
    'reserved_tokens', r.reserved_tokens,
    'is_byok', r.is_byok,
    'sweeps', t.sweeps,
    'created_at', tollgate.utc(r.created_at),
    'age_seconds', extract(epoch from clock_timestamp() - r.created_at)::bigint,
    'expires_in_seconds', extract(epoch from r.expires_at - clock_timestamp())::bigint,
    'expired', r.expires_at <= clock_timestamp()
  ) order by r.created_at, r.id) into due
  from taken t
  join tollgate.requests r on r.id = t.request_id;
  return jsonb_build_object('data', coalesce(due, '[]'::jsonb));
end
$$;

comment on function public.tollgate_due(integer, integer) is
  'Leases requests that are due to one sweeper, and deletes up to 1,000 answers older than a day. Refuses nothing. Skips holds and answers that another sweeper has locked.';

select tollgate.expose('public.tollgate_due(integer, integer)');


create function public.tollgate_expire(page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  overdue jsonb;
  answers jsonb;
begin
  select jsonb_agg(jsonb_build_object(
    'id', o.id,
    'outcome', 'settled',
    'charge_nanos', least(o.hold_nanos, ceil(o.prompt_nanos * (1000000 + o.markup_ppm) / 1000000)),
    'cost_nanos', case when o.is_byok then 0 else least(o.hold_nanos, ceil(o.prompt_nanos)) end,
    'estimated', true
  )) into overdue
  from (
    select r.id, r.hold_nanos, r.markup_ppm, r.is_byok, coalesce((r.price ->> 'fixed_nanos')::numeric, 0) as prompt_nanos
    from tollgate.holds h
    join tollgate.requests r on r.id = h.request_id
    where h.next_sweep_at < clock_timestamp() - interval '1 hour'
      and r.expires_at < clock_timestamp() - interval '1 hour'
      and r.state = 'held' and r.upstream is null and r.generation_id is null
    order by h.next_sweep_at
    limit page_size
  ) o;
  answers := public.tollgate_settle(coalesce(overdue, '[]'));
  return jsonb_build_object('ended', (
    select count(*) from jsonb_each(answers) a where not (a.value -> 'settled' ->> 'again')::boolean
  ));
end
$$;

comment on function public.tollgate_expire(integer) is
  'Ends holds that are overdue by an hour and have no upstream that could be asked. Charges the prompt, as the server''s own sweeper does, and marks the charge as estimated: the call may have run. Refuses nothing. Locks as tollgate_settle().';

select tollgate.expose('public.tollgate_expire(integer)');

-- For installations where no server sweeps. SQL cannot ask upstreams.
do $$
begin
  if exists (select from pg_catalog.pg_extension where extname = 'pg_cron') then
    perform cron.schedule('tollgate-expire', '* * * * *', 'select public.tollgate_expire(500)');
  end if;
end
$$;


-- schemas/13_agents/agents.sql

-- Agents: their enrolment, their keys, and the lease of their host.

create function tollgate.host_of_key(host_id text, key_generation integer) returns tollgate.hosts
language plpgsql
set search_path = ''
as $$
declare
  h tollgate.hosts;
begin
  select o.* into h from tollgate.hosts o where o.id = host_of_key.host_id for no key update;
  if not found or h.key_generation <> host_of_key.key_generation then
    perform tollgate.refuse(401, 'host_key_invalid');
  elsif h.state = 'retired' then
    perform tollgate.refuse(403, 'host_retired');
  end if;
  return h;
end
$$;

comment on function tollgate.host_of_key(text, integer) is
  'The host that a key is of. The server has checked the key against AGENT_KEY. Refuses: host_key_invalid (unknown, or rotated since), host_retired. Locks the host.';


create function tollgate.agent_of(h tollgate.hosts) returns tollgate.caller
language plpgsql
immutable
set search_path = ''
as $$
declare
  actor tollgate.caller;
begin
  actor.kind := 'system';
  actor.name := 'agent of ' || h.id;
  return actor;
end
$$;

comment on function tollgate.agent_of(tollgate.hosts) is 'The agent of a host, as an actor.';


create function public.tollgate_enrol(digests jsonb, agent jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  wanted text;
  h tollgate.hosts;
begin
  select e.host_id into wanted from tollgate.enrolments e
  where e.digest in (select decode(d, 'hex') from jsonb_array_elements_text(digests) d);
  select o.* into h from tollgate.hosts o where o.id = wanted for no key update;
  update tollgate.enrolments e set used_at = clock_timestamp()
  where e.digest in (select decode(d, 'hex') from jsonb_array_elements_text(digests) d)
    and e.used_at is null and e.expires_at > clock_timestamp();
  if not found or h.state = 'retired' then
    perform tollgate.refuse(401, 'enrolment_invalid');
  end if;
  h := tollgate.with_next_key(h);
  update tollgate.hosts o set
    enrolled_at = now(), agent_version = agent ->> 'agent_version', capabilities = agent -> 'capabilities',
    reported_ingress_url = agent ->> 'ingress_url'
  where o.id = h.id returning o.* into h;
  perform tollgate.offer_all(h);
  perform tollgate.record(tollgate.agent_of(h), 'host.enrolled', null, h.id, jsonb_build_object(
    'agent_version', h.agent_version, 'ingress_url', h.reported_ingress_url
  ));
  return jsonb_build_object('host_id', h.id, 'key_generation', h.key_generation);
end
$$;

comment on function public.tollgate_enrol(jsonb, jsonb) is
  'Makes the sender the agent of the host of an enrolment, once: of two at the same time one is refused. The key that the host had before ends. `digests` are those of the token, one for each active pepper. Refuses: enrolment_invalid (unknown, used, or older than an hour). Locks the host, then the enrolment.';

select tollgate.expose('public.tollgate_enrol(jsonb, jsonb)');


create function tollgate.with_lease(h tollgate.hosts, report jsonb) returns tollgate.hosts
language plpgsql
set search_path = ''
as $$
declare
  left_seconds constant numeric := extract(epoch from h.lease_until - clock_timestamp());
  made tollgate.hosts;
begin
  if h.incarnation <> report ->> 'incarnation' and left_seconds > 0 then
    perform tollgate.refuse(409, 'host_busy', jsonb_build_object(
      'host_id', h.id, 'retry_after_seconds', ceil(left_seconds)
    ));
  end if;
  update tollgate.hosts o set
    incarnation = report ->> 'incarnation',
    seq = case when o.incarnation = report ->> 'incarnation' then greatest(o.seq, (report ->> 'seq')::bigint)
      else (report ->> 'seq')::bigint end,
    lease_until = clock_timestamp() + interval '45 seconds',
    last_seen_at = clock_timestamp(),
    agent_version = report ->> 'agent_version',
    reported_ingress_url = report ->> 'ingress_url',
    capabilities = coalesce(nullif(report -> 'capabilities', 'null'), o.capabilities)
  where o.id = h.id returning o.* into made;
  return made;
end
$$;

comment on function tollgate.with_lease(tollgate.hosts, jsonb) is
  'The host, leased to the incarnation of this report for 45 seconds by the clock of the database. Refuses: host_busy (another incarnation has the lease; nothing changes). The host must be locked.';


-- schemas/13_agents/observations.sql

-- What an agent reports of its own host.

create function tollgate.note_phase_changes(h tollgate.hosts, report jsonb) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.phase_changes (
    deployment_id, incarnation, number, before, phase, why, asked_by, changed_at
  )
  select d.id, h.incarnation, c.number, c.before, c.phase, c.why,
    case when c.why in ('wanted', 'wanted again', 'unwanted', 'changed') then d.asked_by end,
    now() - make_interval(secs => c.seconds_ago)
  from jsonb_to_recordset(report -> 'observations') as s (deployment_id text, changes jsonb)
  join tollgate.deployments d on d.id = s.deployment_id and d.host_id = h.id
  cross join jsonb_to_recordset(s.changes) as c (
    number bigint, before text, phase text, why text, seconds_ago double precision
  )
  order by d.id, c.number
  on conflict do nothing;

  delete from tollgate.phase_changes p where p.id in (
    select o.id
    from jsonb_to_recordset(report -> 'observations') as s (deployment_id text, changes jsonb)
    join tollgate.deployments d on d.id = s.deployment_id and d.host_id = h.id
    cross join lateral (
      select c.id from tollgate.phase_changes c
      where c.deployment_id = d.id order by c.changed_at desc, c.id desc offset 200
    ) o
    where s.changes <> '[]'
  )
$$;

comment on function tollgate.note_phase_changes(tollgate.hosts, jsonb) is
  'Stores the changes of phases that an agent reports, each once, and keeps the last 200 of a deployment. The host must be locked. Locks what it deletes.';


create function tollgate.observe(h tollgate.hosts, report jsonb) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.observations as o (
    deployment_id, generation, phase, ready, failures, retry_at, detail, diagnosis, progress, measured, facts, log_tail,
    last_started_at, last_stopped_at
  )
  select d.id, s.generation, s.phase, s.ready, s.failures, now() + make_interval(secs => s.retry_in_seconds), s.detail,
    s.diagnosis, s.progress, s.measured, s.facts, s.log_tail,
    case when s.phase = 'running' then now() end, case when s.phase = 'stopped' then now() end
  from jsonb_to_recordset(report -> 'observations') as s (
    deployment_id text, generation integer, phase text, ready boolean, failures integer, retry_in_seconds double precision,
    detail text, diagnosis jsonb, progress jsonb, measured jsonb, facts jsonb, log_tail text
  )
  join tollgate.deployments d on d.id = s.deployment_id and d.host_id = h.id
  order by d.id
  on conflict (deployment_id) do update set
    generation = excluded.generation, phase = excluded.phase, ready = excluded.ready, failures = excluded.failures,
    retry_at = excluded.retry_at, detail = excluded.detail, diagnosis = excluded.diagnosis, progress = excluded.progress,
    measured = coalesce(excluded.measured, o.measured),
    facts = coalesce(excluded.facts, case when o.generation = excluded.generation then o.facts end),
    log_tail = coalesce(excluded.log_tail, o.log_tail),
    phase_since = case when o.phase = excluded.phase then o.phase_since else now() end,
    last_started_at = case when o.phase = excluded.phase then o.last_started_at
      else coalesce(excluded.last_started_at, o.last_started_at) end,
    last_stopped_at = case when o.phase = excluded.phase then o.last_stopped_at
      else coalesce(excluded.last_stopped_at, o.last_stopped_at) end,
    observed_at = now();

  update tollgate.observations o set metrics = m.figures
  from jsonb_array_elements(report -> 'metrics') m (figures), tollgate.deployments d
  where d.id = m.figures ->> 'deployment_id' and d.host_id = h.id and o.deployment_id = d.id;

  insert into tollgate.host_samples (host_id, sample)
  select h.id, report -> 'sample'
  where jsonb_typeof(report -> 'sample') = 'object' and not exists (
    select from tollgate.host_samples s where s.host_id = h.id and s.sampled_at > now() - interval '30 seconds'
  )
  on conflict do nothing;

  update tollgate.tasks t set state = r.status, result = r.result, error = r.error, ended_at = now()
  from jsonb_to_recordset(report -> 'task_results') as r (task_id text, status text, result jsonb, error text)
  where t.id = r.task_id and t.host_id = h.id and t.state = 'waiting'
$$;

comment on function tollgate.observe(tollgate.hosts, jsonb) is
  'Stores what an agent reports of its own host; what it says of others is left out. The host must be locked. Locks the observations and tasks.';


-- schemas/13_agents/sync.sql

-- The sync of an agent, the tasks that it ends, and what is dropped with time.

create function tollgate.desired_of(h tollgate.hosts) returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'id', d.id, 'generation', d.applied_generation, 'wanted', d.wanted, 'spec', d.applied_spec,
    'drain_seconds', d.drain_seconds, 'idle_seconds', d.idle_seconds,
    'minimum_stay_seconds', d.minimum_stay_seconds, 'load_seconds', d.load_seconds
  ) order by d.id), '[]')
  from tollgate.deployments d where d.host_id = h.id and d.archived_at is null
$$;

comment on function tollgate.desired_of(tollgate.hosts) is 'All that should be on a host: what is not in the list should not be there.';


create function tollgate.is_moving(h tollgate.hosts) returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (
    select from tollgate.deployments d
    left join tollgate.observations o on o.deployment_id = d.id
    where d.host_id = h.id and d.archived_at is null and case
      when o.phase is null then d.wanted <> 'stopped'
      when o.phase in ('downloading', 'starting', 'loading', 'draining', 'stopping', 'unknown') then true
      when o.phase = 'running' then d.wanted = 'stopped' or o.generation <> d.applied_generation
      else d.wanted = 'running' and o.phase = 'stopped'
    end
  ) or exists (
    select from tollgate.tasks t
    where t.host_id = h.id and t.state = 'waiting' and t.created_at > now() - interval '1 minute'
  )
$$;

comment on function tollgate.is_moving(tollgate.hosts) is
  'Whether something on a host is not yet as it should be, or a task waits, so that its agent should come again soon.';


create function tollgate.tokens_of(h tollgate.hosts) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  sent record;
  tokens jsonb := '{}';
begin
  for sent in
    select d, s
    from tollgate.deployments d
    join tollgate.secrets s on s.kind = 'hf_token' and s.org_id is null and s.name = d.hub_token
    left join tollgate.observations o on o.deployment_id = d.id
    where d.host_id = h.id and d.archived_at is null and h.state = 'active' and d.wanted <> 'stopped'
      and d.applied_spec #>> '{source,type}' = 'hub'
      and (o.phase = 'downloading' or (
        coalesce(o.phase, 'stopped') in ('stopped', 'failed')
        and (o.facts is null or o.generation <> d.applied_generation)
      ))
    order by (d).id
  loop
    tokens := tokens || jsonb_build_object((sent.d).id, tollgate.secret_sealed(sent.s));
    if (sent.d).token_sent_for is distinct from (sent.d).applied_generation then
      update tollgate.deployments o set token_sent_for = o.applied_generation where o.id = (sent.d).id;
      perform tollgate.record(tollgate.agent_of(h), 'secret.sent', null, (sent.s).id, jsonb_build_object(
        'name', (sent.s).name, 'last_four', (sent.s).last_four, 'host_id', h.id, 'deployment_id', (sent.d).id
      ));
    end if;
  end loop;
  return tokens;
end
$$;

comment on function tollgate.tokens_of(tollgate.hosts) is
  'The tokens of Hugging Face, encrypted, for what the host downloads now or has to. The audit trail has each once for a generation. Locks the deployments that get one.';


create function public.tollgate_sync(host_id text, key_generation integer, report jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  was constant tollgate.hosts := tollgate.host_of_key(host_id, key_generation);
  h constant tollgate.hosts := tollgate.with_lease(was, report);
  routes_changed boolean := false;
begin
  if was.incarnation is distinct from h.incarnation or (report ->> 'seq')::bigint > was.seq then
    perform tollgate.observe(h, report);
    perform tollgate.note_phase_changes(h, report);
    routes_changed := tollgate.offer_all(h);
  end if;
  return jsonb_build_object(
    'desired_version', h.desired_version,
    'deployments',
      case when (report ->> 'known_version')::bigint = h.desired_version then null else tollgate.desired_of(h) end,
    'host', jsonb_build_object('state', h.state, 'base_dir', h.base_dir),
    'tasks', coalesce((
      select jsonb_agg(jsonb_build_object('id', t.id, 'kind', t.kind, 'arguments', t.arguments) order by t.created_at, t.id)
      from tollgate.tasks t
      where t.host_id = h.id and t.state = 'waiting' and t.created_at > now() - interval '1 minute'
    ), '[]'),
    'hub_tokens', tollgate.tokens_of(h),
    'poll_seconds', case when tollgate.is_moving(h) then 2 else 10 end,
    'routes_changed', routes_changed
  );
end
$$;

comment on function public.tollgate_sync(text, integer, jsonb) is
  'Takes what an agent reports of its host, makes the routes of it, and answers what should be there: all of it, unless the agent knows this version. A report with a number that was counted before changes nothing and is answered all the same. Refuses: as host_of_key() and with_lease(). Locks the host, then its observations, tasks, upstreams and routes.';

select tollgate.expose('public.tollgate_sync(text, integer, jsonb)');


create function public.tollgate_end_task(host_id text, key_generation integer, task_id text, outcome jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  h constant tollgate.hosts := tollgate.host_of_key(host_id, key_generation);
  ended tollgate.tasks;
begin
  update tollgate.tasks t set
    state = outcome ->> 'status', result = outcome -> 'result', error = outcome ->> 'error', ended_at = now()
  where t.id = tollgate_end_task.task_id and t.host_id = h.id and t.state = 'waiting';
  select t.* into ended from tollgate.tasks t where t.id = tollgate_end_task.task_id and t.host_id = h.id;
  if not found then
    perform tollgate.refuse_missing('task', task_id);
  end if;
  return jsonb_build_object('id', ended.id, 'state', ended.state);
end
$$;

comment on function public.tollgate_end_task(text, integer, text, jsonb) is
  'Stores the result of a task, unless it has one. Refuses: as host_of_key(), not_found (also a task of another host). Locks the host and the task.';

select tollgate.expose('public.tollgate_end_task(text, integer, text, jsonb)');


create function public.tollgate_keep_fleet(page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  dropped bigint;
begin
  update tollgate.tasks t set state = 'failed', error = 'The host did not answer within a minute.', ended_at = now()
  where t.id in (
    select o.id from tollgate.tasks o
    where o.state = 'waiting' and o.created_at < now() - interval '1 minute'
    order by o.created_at limit page_size for update skip locked
  );
  delete from tollgate.tasks t where t.id in (
    select o.id from tollgate.tasks o where o.created_at < now() - interval '24 hours' and o.state <> 'waiting'
    order by o.created_at limit page_size for update skip locked
  );
  delete from tollgate.enrolments e where e.expires_at < now() - interval '24 hours';
  delete from tollgate.host_samples s where (s.host_id, s.sampled_at) in (
    select o.host_id, o.sampled_at from tollgate.host_samples o where o.sampled_at < now() - interval '24 hours'
    order by o.sampled_at limit page_size for update skip locked
  );
  get diagnostics dropped = row_count;
  return jsonb_build_object('samples', dropped, 'more', dropped >= page_size);
end
$$;

comment on function public.tollgate_keep_fleet(integer) is
  'Ends tasks that nobody took within a minute, and deletes enrolments, ended tasks and samples that are older than a day; called again while it answers "more". Refuses nothing. Skips rows that are locked.';

select tollgate.expose('public.tollgate_keep_fleet(integer)');


-- schemas/13_books/audit.sql

-- The audit of all books.

create function public.tollgate_audit_books() returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  with faults as (
    select * from tollgate.ledger_faults()
    union all
    select * from tollgate.charge_faults()
    union all
    select * from tollgate.origin_faults()
    union all
    select * from tollgate.total_faults()
    union all
    select * from tollgate.org_faults()
    union all
    select * from tollgate.chain_faults()
  )
  select jsonb_build_object(
    'orgs', (select count(*) from tollgate.orgs),
    'transfers', (select count(*) from tollgate.transfers),
    'requests', (select count(*) from tollgate.requests),
    'open_holds', (select count(*) from tollgate.holds),
    'accounts_nanos', coalesce((
      select jsonb_object_agg(a.account, a.nanos) from (
        select e.account, sum(e.nanos) as nanos from (
          select t.debit as account, -t.amount_nanos as nanos from tollgate.transfers t
          union all
          select t.credit, t.amount_nanos from tollgate.transfers t
        ) e group by e.account
      ) a
    ), '{}'::jsonb),
    'fault_count', (select count(*) from faults),
    'faults', coalesce((
      select jsonb_agg(jsonb_build_object('fault', f.fault, 'id', f.id, 'facts', f.facts))
      from (select * from faults limit 1000) f
    ), '[]'::jsonb)
  )
$$;

comment on function public.tollgate_audit_books() is
  'Proves the books of one moment from the tables alone: that the ledger agrees with itself, with requests, with the operations and audit events that moved credits, with the tallies and flows and with its hash chain, and that the audit trail agrees with its own. Names the rows that do not agree, at most 1,000. Refuses nothing, locks nothing.';

select tollgate.expose('public.tollgate_audit_books()');


-- schemas/13_books/chains.sql

-- Faults of the hash chains.

create function tollgate.chain_faults() returns table (fault text, id text, facts jsonb)
language sql
stable
set search_path = ''
as $$
  with transfers as (
    select t, lag(t.chain) over (partition by t.org_id order by t.position) as before from tollgate.transfers t
  ),
  heads as (
    select distinct on (t.org_id) t.org_id, t.chain from tollgate.transfers t order by t.org_id, t.position desc
  ),
  events as (
    select l.position, l.event_id, l.chain, lag(l.chain) over (order by l.position) as before,
      l.position - lag(l.position, 1, 0::bigint) over (order by l.position) as step
    from tollgate.event_links l
  )
  (
    select distinct on ((c.t).org_id) 'chain', tollgate.transfer_id((c.t).position), jsonb_build_object(
      'org_id', (c.t).org_id, 'row', true, 'link', (c.t).chain is not null
    )
    from transfers c
    where (c.t).chain is distinct from tollgate.chain_after(c.before, c.t)
      and not ((c.t).chain is null and (c.t).position <= (
        select s.position from tollgate.chain_starts s where s.chain = 'transfers'
      ))
    order by (c.t).org_id, (c.t).position
  )
  union all
  (
    select 'chain', o.id, jsonb_build_object('org_id', o.id, 'row', h.chain is not null, 'link', o.chain_head is not null)
    from tollgate.orgs o
    left join heads h on h.org_id = o.id
    where h.chain is distinct from o.chain_head
    order by o.id
  )
  union all
  (
    select 'chain', c.event_id, jsonb_build_object('position', c.position, 'row', a.id is not null, 'link', true)
    from events c
    left join tollgate.audit_events a on a.id = c.event_id
    where (c.step = 1 and c.chain = sha256(coalesce(c.before, '') || tollgate.event_text(a))) is not true
    order by c.position
    limit 1
  )
  union all
  (
    select 'chain', a.id, jsonb_build_object('row', true, 'link', false)
    from tollgate.audit_events a
    where not exists (select from tollgate.event_links l where l.event_id = a.id)
      and a.occurred_at > (select s.started_at from tollgate.chain_starts s where s.chain = 'audit_events')
    order by a.occurred_at, a.id
    limit 1
  )
  union all
  select 'chain', c.name, '{"row": true, "link": false}'
  from (values ('transfers'), ('audit_events')) c (name)
  where not exists (select from tollgate.chain_starts s where s.chain = c.name)
$$;

comment on function tollgate.chain_faults() is
  'Where a hash chain is broken: the first broken transfer of each org, each org whose last transfer is not its head, the first broken link of the audit trail, the first event without one. Rows that were there before the chain need none.';


create function public.tollgate_sight_chains() returns jsonb
language sql
security definer
set search_path = ''
as $$
  -- Read before this transaction has an id of its own, and drawn by transactions that had theirs: they lock the org first.
  with newest as materialized (
    select case when s.is_called then s.last_value else 0 end as position from tollgate.transfers_position_seq s
  )
  select jsonb_build_object('position', n.position, 'transaction', pg_current_xact_id()::text) from newest n
$$;

comment on function public.tollgate_sight_chains() is
  'The newest transfer, and a transaction id: when none before it runs any more, every transfer up to that one is there to be seen. Refuses nothing, locks nothing.';

select tollgate.expose('public.tollgate_sight_chains()');


create function public.tollgate_chains_at(sighted jsonb) returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  with here as (
    select (sighted ->> 'position')::bigint as position,
      coalesce(
        (sighted ->> 'event_position')::bigint,
        (select max(l.position) from tollgate.event_links l),
        0
      ) as event_position,
      (sighted ->> 'transaction')::xid8 <= pg_snapshot_xmin(pg_current_snapshot()) is not false as is_complete
  ),
  heads as (
    select distinct on (t.org_id) t.org_id, t.chain
    from tollgate.transfers t
    where t.position <= (select h.position from here h)
    order by t.org_id, t.position desc
  )
  select jsonb_build_object('complete', h.is_complete) || case when h.is_complete then jsonb_build_object(
    'at', tollgate.utc(now()),
    'schema_version', (select v.version from tollgate.schema_version v),
    'position', h.position,
    'transfers', (select count(*) from tollgate.transfers t where t.position <= h.position),
    'transfers_digest', (
      select encode(sha256(coalesce(string_agg(s.chain, '' order by s.org_id collate "C"), '')), 'hex') from heads s
    ),
    'orgs', (select count(*) from heads),
    'event_position', h.event_position,
    'events', (select count(*) from tollgate.event_links l where l.position <= h.event_position),
    'events_digest', coalesce((
      select encode(l.chain, 'hex') from tollgate.event_links l where l.position = h.event_position
    ), ''),
    'starts', (
      select jsonb_object_agg(s.chain, jsonb_build_object('position', s.position, 'at', tollgate.utc(s.started_at)))
      from tollgate.chain_starts s
    )
  ) else '{}' end
  from here h
$$;

comment on function public.tollgate_chains_at(jsonb) is
  'The chains up to a transfer and an audit event: how many rows, one digest over the orgs'' last links, the last link of the trail. `sighted`: what tollgate_sight_chains() answered, or the position and event_position of an earlier head. Answers {"complete": false} while a transaction before the sighting still runs. Refuses nothing, locks nothing.';

select tollgate.expose('public.tollgate_chains_at(jsonb)');


-- schemas/13_books/charges.sql

-- Faults of charges and of the other transfers.

create function tollgate.charge_faults() returns table (fault text, id text, facts jsonb)
language sql
stable
set search_path = ''
as $$
  with charges as (
    -- For each request: its charge, and the correction of a late settlement.
    select tollgate.request_of(t) as request_id, min(t.org_id) as org_id, max(t.org_id) as other_org_id,
      count(*) filter (where t.kind = 'charge' and t.reference not like '%:late') as charges,
      count(*) filter (where t.reference like '%:late') as corrections,
      sum(case t.kind when 'charge' then t.amount_nanos else -t.amount_nanos end) as nanos
    from tollgate.transfers t
    where t.kind = 'charge' or (t.kind = 'refund' and t.reference like '%:late')
    group by 1
  )
  select 'charge', r.id, jsonb_build_object(
    'state', r.state, 'charge_nanos', r.charge_nanos, 'org_id', r.org_id,
    'transfers', coalesce(c.charges + c.corrections, 0), 'amount_nanos', c.nanos, 'charged_org', c.org_id
  )
  from tollgate.requests r
  left join charges c on c.request_id = r.id
  where r.state in ('settled', 'released') and (
    r.charge_nanos is null
    or r.state = 'released' and r.charge_nanos <> 0
    or r.charge_nanos > 0 and c.charges is distinct from 1
    or r.charge_nanos = 0 and c.charges > 0 and c.corrections = 0
    or coalesce(c.nanos, 0) <> r.charge_nanos
    or c.org_id <> r.org_id or c.other_org_id <> r.org_id
  )
  union all
  select 'stray_charge', tollgate.transfer_id(t.position), jsonb_build_object('reference', t.reference, 'state', r.state)
  from tollgate.transfers t
  left join tollgate.requests r on r.id = tollgate.request_of(t)
  left join tollgate.dropped d on d.org_id = t.org_id and d.charges > 0
  where (t.kind = 'charge' or (t.kind = 'refund' and t.reference like '%:late'))
    and coalesce(r.state not in ('settled', 'released'), d.org_id is null)
  union all
  select 'dropped_charges', d.org_id, jsonb_build_object(
    'dropped', d.charges, 'dropped_nanos', d.charge_nanos, 'transfers', c.charges, 'amount_nanos', c.nanos
  )
  from tollgate.dropped d
  cross join lateral (
    select coalesce(sum(g.charges), 0) as charges, coalesce(sum(g.nanos), 0) as nanos
    from charges g
    where g.org_id = d.org_id and not exists (select from tollgate.requests r where r.id = g.request_id)
  ) c
  where d.charges <> c.charges or d.charge_nanos <> c.nanos
  union all
  -- For requests that an upstream answered. The cost was rounded up to a whole nano, so the charge may be less by its
  -- markup; estimates and corrections by late settlements are at most the hold.
  select 'cost', r.id, jsonb_build_object(
    'state', r.state, 'cost_nanos', r.cost_nanos, 'charge_nanos', r.charge_nanos, 'markup_ppm', r.markup_ppm,
    'usage_cost', r.usage -> 'cost'
  )
  from tollgate.requests r
  where (r.usage is not null or r.generation_id is not null)
    and not exists (
      select from tollgate.audit_events a
      where a.target_id = r.id and a.action = 'settlement.late' and a.outcome = 'success' and r.charge_nanos <= r.hold_nanos
    )
    and case r.state
    when 'released' then r.cost_nanos > 0
    when 'settled' then case when r.is_byok then
      r.cost_nanos <> 0 or r.charge_nanos <> (r.price ->> 'byok_fee_nanos')::bigint
    else
      r.charge_nanos > ceil((r.cost_nanos + 1) * (1000000 + r.markup_ppm::numeric) / 1000000)
      or r.charge_nanos < floor((r.cost_nanos - 1) * (1000000 + r.markup_ppm::numeric) / 1000000)
        and not (r.estimated and r.charge_nanos = r.hold_nanos)
      or r.upstream = 'openrouter' and not r.quarantined and not r.estimated and r.usage -> 'is_byok' is distinct from 'true'
        and case when r.usage ->> 'cost' ~ '^[0-9]+([.][0-9]+)?([eE][-+]?[0-9]{1,3})?$'
          then ceil((r.usage ->> 'cost')::numeric * 1000000000) <> r.cost_nanos
        end
    end
  end
$$;

comment on function tollgate.charge_faults() is
  'Where requests and charges do not agree: every charge must be one transfer of the request''s org, with the correction of a late settlement; the cost with its markup; and the cost must be what the upstream said. Charges whose requests retention dropped must agree, in number and sum, with tollgate.dropped.';


create function tollgate.origin_faults() returns table (fault text, id text, facts jsonb)
language sql
stable
set search_path = ''
as $$
  with moved as (
    select tollgate.transfer_id(t.position) as id, t.*,
      case t.kind when 'grant' then 'credits.granted' when 'refund' then 'credits.refunded' else 'credits.adjusted' end as action
    from tollgate.transfers t
    where t.kind <> 'charge' and not (t.kind = 'refund' and t.reference like '%:late')
  ),
  told as (
    select a.* from tollgate.audit_events a
    where a.action in ('credits.granted', 'credits.refunded', 'credits.adjusted', 'credits.overdrawn') and a.outcome = 'success'
  ),
  compared as (
    select coalesce(m.id, a.target_id) as id, m.position, a.id as event_id, a.details ? 'idempotency_key' as operated,
      (m.org_id, m.amount_nanos::text, m.debit::text)
        is not distinct from (a.org_id, a.details ->> 'amount_nanos', coalesce(a.details ->> 'debit', a.details ->> 'source'))
        and m.credit = coalesce(a.details ->> 'credit', m.credit) as agrees
    from moved m
    full join (select t.* from told t where t.action <> 'credits.overdrawn') a on a.target_id = m.id and a.action = m.action
  )
  select 'audit_event', c.id, jsonb_build_object('transfer', c.position is not null, 'audit_event_id', c.event_id)
  from compared c where c.agrees is not true
  union all
  select 'audit_event', c.id, jsonb_build_object('audit_events', count(*))
  from compared c where c.agrees group by c.id having count(*) > 1
  union all
  select 'operation', coalesce(c.id, tollgate.transfer_id(o.position)), jsonb_build_object(
    'operator', o.operator, 'asked', o.asked, 'audit_event_id', c.event_id
  )
  from (select c.* from compared c where c.operated) c
  full join tollgate.credit_operations o on o.position = c.position
  left join moved m on m.position = o.position
  where c.event_id is null or o.position is null or m.position is null
    or abs((o.asked ->> 'amount_nanos')::numeric) <> m.amount_nanos
    or case m.kind
      when 'refund' then m.reference not like o.request_id || '/%'
      else o.asked ->> 'source' not in (m.debit, m.credit) or o.asked ->> 'org_id' <> m.org_id
    end
  union all
  select 'audit_event', a.target_id, jsonb_build_object(
    'audit_event_id', a.id, 'charge_nanos', a.details -> 'charge_nanos', 'amount_nanos', t.amount_nanos
  )
  from told a
  left join tollgate.transfers t on t.kind = 'charge' and t.reference = a.target_id
  where a.action = 'credits.overdrawn' and (a.details ->> 'charge_nanos' = t.amount_nanos::text and a.org_id = t.org_id) is not true
  union all
  select 'audit_event', tollgate.transfer_id(t.position), jsonb_build_object('reference', t.reference, 'amount_nanos', t.amount_nanos)
  from tollgate.transfers t
  where t.reference like '%:late' and not exists (
    select from tollgate.audit_events a
    where a.target_id = tollgate.request_of(t) and a.action = 'settlement.late' and a.org_id = t.org_id
      and a.details ->> 'corrected_by_nanos' = (case t.kind when 'charge' then t.amount_nanos else -t.amount_nanos end)::text
  )
$$;

comment on function tollgate.origin_faults() is
  'Where credits moved without their origin: every transfer except charges must have one audit event with its org, amount and accounts, every such event its transfer, every operation both; every overdrawing charge and every late correction must agree with its event.';


-- schemas/13_books/ledger.sql

-- Faults of the ledger as a whole and of each org's balance.

create function tollgate.org_faults() returns table (fault text, id text, facts jsonb)
language sql
stable
set search_path = ''
as $$
  select 'org', m.org_id, jsonb_build_object('transfers_nanos', coalesce(b.nanos, 0))
  from (
    select t.org_id from tollgate.transfers t
    union
    select r.org_id from tollgate.requests r
    union
    select u.org_id from tollgate.users u
    union
    select k.org_id from tollgate.api_keys k
    union
    select a.target_id from tollgate.audit_events a where a.action like 'org.%' and a.outcome = 'success'
    except
    select o.id from tollgate.orgs o
  ) m
  cross join lateral (
    select sum(case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end) as nanos
    from tollgate.transfers t where t.org_id = m.org_id
  ) b
  where coalesce(b.nanos, 0) <> 0
    or not exists (select from tollgate.audit_events a where a.target_id = m.org_id and a.action = 'org.deleted')
$$;

comment on function tollgate.org_faults() is
  'Orgs that are missing although they had a balance, or without an audit event of their deletion.';


create function tollgate.ledger_faults() returns table (fault text, id text, facts jsonb)
language sql
stable
set search_path = ''
as $$
  with wallets as (
    select o.id, o.balance_nanos, o.held_nanos, o.open_requests,
      coalesce((
        select sum(case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end)
        from tollgate.transfers t where t.org_id = o.id
      ), 0) as transferred,
      coalesce((
        select sum(r.hold_nanos) from tollgate.requests r where r.org_id = o.id and r.state in ('held', 'unsettled')
      ), 0) as held,
      (
        select count(*) from tollgate.requests r where r.org_id = o.id and r.state in ('held', 'unsettled')
      ) as open
    from tollgate.orgs o
  )
  select 'balance', w.id, jsonb_build_object('balance_nanos', w.balance_nanos, 'transfers', w.transferred)
  from wallets w where w.balance_nanos <> w.transferred
  union all
  select 'held', w.id, jsonb_build_object('held_nanos', w.held_nanos, 'open_holds', w.held)
  from wallets w where w.held_nanos <> w.held
  union all
  select 'in_flight', w.id, jsonb_build_object('open_requests', w.open_requests, 'open_holds', w.open)
  from wallets w where w.open_requests <> w.open
  union all
  select 'in_flight', k.id, jsonb_build_object('open_requests', k.open_requests, 'open_holds', c.open)
  from tollgate.api_keys k
  cross join lateral (
    select count(*) as open
    from tollgate.holds h
    join tollgate.requests r on r.id = h.request_id
    where r.org_id = k.org_id
      and r.key_id in (select l.id from tollgate.api_keys l where l.id = k.id or l.line = k.line)
  ) c
  where k.max_concurrent_requests is not null and k.open_requests <> c.open
  union all
  select 'hold', coalesce(r.id, h.request_id), jsonb_build_object('state', r.state, 'open', h.request_id is not null)
  from tollgate.requests r
  full join tollgate.holds h on h.request_id = r.id
  where coalesce(r.state in ('held', 'unsettled'), false) <> (h.request_id is not null)
  union all
  select 'refund', g.request_id, jsonb_build_object('refunded_nanos', g.nanos, 'charge_nanos', coalesce(c.nanos, 0))
  from (
    select t.org_id, tollgate.request_of(t) as request_id, sum(t.amount_nanos) as nanos
    from tollgate.transfers t where t.kind = 'refund'
    group by 1, 2
  ) g
  left join (
    select t.org_id, tollgate.request_of(t) as request_id, sum(t.amount_nanos) as nanos
    from tollgate.transfers t where t.kind = 'charge'
    group by 1, 2
  ) c on c.request_id = g.request_id and c.org_id = g.org_id
  where g.nanos > coalesce(c.nanos, 0)
  union all
  select 'running_balance', tollgate.transfer_id(s.position), jsonb_build_object('balance_after_nanos', s.balance_after_nanos, 'before', s.before)
  from (
    select t.*, lag(t.balance_after_nanos, 1, 0::bigint) over (partition by t.org_id order by t.position) as before,
      case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end as change
    from tollgate.transfers t
  ) s
  where s.before + s.change <> s.balance_after_nanos
$$;

comment on function tollgate.ledger_faults() is
  'Where the ledger does not agree with itself: every balance must be the sum of its transfers, every held sum and count of open requests that of its open holds; every open request must have one hold, every refund be within its charges, every running balance be the one before plus its change.';


create function tollgate.total_faults() returns table (fault text, id text, facts jsonb)
language sql
stable
set search_path = ''
as $$
  with counted as (
    select c.org_id, c.hour,
      sum(c.requests) as requests, sum(c.charges) as charge_nanos, sum(c.costs) as cost_nanos,
      sum(c.tallied) as tallied, sum(c.tallied_charges) as tallied_charges, sum(c.tallied_costs) as tallied_costs
    from (
      select r.org_id, date_trunc('hour', r.created_at, 'UTC') as hour, 1 as requests,
        coalesce(r.charge_nanos, 0) as charges, coalesce(r.cost_nanos, 0) as costs,
        0 as tallied, 0 as tallied_charges, 0 as tallied_costs
      from tollgate.rolled s
      join tollgate.requests r on r.created_at < s.rolled_until and r.settled_at is not null
      where not exists (select from tollgate.late_requests l where l.request_id = r.id)
      union all
      select t.org_id, t.start, 0, 0, 0, t.requests, t.charge_nanos, t.cost_nanos
      from tollgate.tallies t where t.cut = 'hour'
    ) c
    group by c.org_id, c.hour
  )
  -- Retention drops whole hours.
  select 'tally', c.org_id || ' ' || tollgate.utc(c.hour), jsonb_build_object(
    'requests', c.requests, 'charge_nanos', c.charge_nanos, 'cost_nanos', c.cost_nanos,
    'tallied', c.tallied, 'tallied_charge_nanos', c.tallied_charges, 'tallied_cost_nanos', c.tallied_costs
  )
  from counted c
  cross join tollgate.rolled s
  where c.hour >= s.dropped_until
    and (c.requests, c.charge_nanos, c.cost_nanos) <> (c.tallied, c.tallied_charges, c.tallied_costs)
  union all
  select 'dropped', c.org_id, jsonb_build_object(
    'missing', sum(c.tallied - c.requests), 'dropped', coalesce(max(d.requests), 0),
    'missing_nanos', sum(c.tallied_charges - c.charge_nanos), 'dropped_nanos', coalesce(max(d.charge_nanos), 0)
  )
  from (select n.* from counted n union all select d.org_id, null, 0, 0, 0, 0, 0, 0 from tollgate.dropped d) c
  left join tollgate.dropped d on d.org_id = c.org_id
  group by c.org_id
  having sum(c.tallied - c.requests) <> coalesce(max(d.requests), 0)
    or sum(c.tallied_charges - c.charge_nanos) <> coalesce(max(d.charge_nanos), 0)
  union all
  select 'flow', concat_ws(' ', tollgate.utc(f.hour), f.kind, f.debit, f.credit), jsonb_build_object(
    'transfers', sum(f.transfers), 'amount_nanos', sum(f.nanos), 'summed', sum(f.summed), 'summed_nanos', sum(f.summed_nanos)
  )
  from (
    select date_trunc('hour', t.created_at, 'UTC') as hour, t.kind::text, t.debit::text, t.credit::text,
      1 as transfers, t.amount_nanos as nanos, 0 as summed, 0 as summed_nanos
    from tollgate.rolled s
    join tollgate.transfers t on t.position <= s.flowed_until
    union all
    select g.hour, g.kind::text, g.debit::text, g.credit::text, 0, 0, g.transfers, g.amount_nanos from tollgate.flows g
  ) f
  group by f.hour, f.kind, f.debit, f.credit
  having sum(f.transfers) <> sum(f.summed) or sum(f.nanos) <> sum(f.summed_nanos)
$$;

comment on function tollgate.total_faults() is
  'Where rows do not agree with their sums: every hour of an org''s requests with its tally, an org''s missing requests with tollgate.dropped, every hour of transfers with its flow.';


-- schemas/14_channels/channels.sql

-- Channels as operators and owners see and change them.

create function tollgate.keeper_of_channels(caller jsonb, scope text) returns tollgate.caller
language sql
set search_path = ''
as $$
  select tollgate.recognise(caller, scope, touch => false)
$$;

comment on function tollgate.keeper_of_channels(jsonb, text) is
  'The caller, if it may list and change channels: with the scope admin those of operators, with keys those of its own org. Refuses: as recognise().';


create function tollgate.org_of_channels(keeper tollgate.caller, scope text) returns text
language sql
immutable
set search_path = ''
as $$
  select case when scope <> 'admin' then keeper.org_id end
$$;

comment on function tollgate.org_of_channels(tollgate.caller, text) is 'Whose the channels of a call are; null for operators''.';


create function tollgate.lock_channels(whose text) returns void
language sql
set search_path = ''
as $$
  select pg_advisory_xact_lock(hashtextextended('tollgate.channels ' || coalesce(whose, ''), 0))
$$;

comment on function tollgate.lock_channels(text) is
  'Lets the channels of an org, or of operators, and their tests be counted by one call at a time. Takes an advisory lock until the transaction ends.';


create function tollgate.channel_shown(c tollgate.channels) returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(c) || jsonb_build_object(
    'last_four', (
      select s.last_four from tollgate.secrets s
      where s.org_id is null and s.kind = 'channel' and s.name = c.id
    ),
    'failed_at', tollgate.utc(c.failed_at),
    'told_at', tollgate.utc(c.told_at),
    'created_at', tollgate.utc(c.created_at),
    'updated_at', tollgate.utc(c.updated_at)
  )
$$;

comment on function tollgate.channel_shown(tollgate.channels) is 'A channel without its secret.';


create function tollgate.found_channel(channel_id text, whose text) returns tollgate.channels
language plpgsql
set search_path = ''
as $$
declare
  found_one tollgate.channels;
begin
  select c.* into found_one from tollgate.channels c
  where c.id = channel_id and c.org_id is not distinct from whose
  for no key update;
  if not found then
    perform tollgate.refuse_missing('channel', channel_id);
  end if;
  return found_one;
end
$$;

comment on function tollgate.found_channel(text, text) is
  'A channel of this org, or of operators. Refuses: not_found. Locks the row.';


create function tollgate.drop_channel_secret() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  delete from tollgate.secrets s where s.org_id is null and s.kind = 'channel' and s.name = old.id;
  return null;
end
$$;

comment on function tollgate.drop_channel_secret() is 'Trigger of channels: deletes the secret of a channel that is deleted, also with its org.';

create trigger channels_dropped
after delete on tollgate.channels
for each row execute function tollgate.drop_channel_secret();


create function tollgate.put_channel_secret(c tollgate.channels, secret jsonb) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.secrets (kind, org_id, name, address, sealed, sealed_with, last_four)
  select 'channel', null, c.id, c.address, decode(secret ->> 'sealed', 'hex'), secret ->> 'sealed_with', secret ->> 'last_four'
  where secret is not null
  on conflict on constraint secrets_org_id_kind_name_key do update set
    address = excluded.address, sealed = excluded.sealed, sealed_with = excluded.sealed_with,
    last_four = excluded.last_four, updated_at = now()
$$;

comment on function tollgate.put_channel_secret(tollgate.channels, jsonb) is
  'Stores the secret of a channel, encrypted, or another in its place. Null changes nothing. Locks the row.';


create function public.tollgate_create_channel(caller jsonb, channel jsonb, secret jsonb, scope text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  most constant integer := 20;
  keeper constant tollgate.caller := tollgate.keeper_of_channels(caller, scope);
  whose constant text := tollgate.org_of_channels(keeper, scope);
  made tollgate.channels;
begin
  perform tollgate.lock_channels(whose);
  if (select count(*) from tollgate.channels c where c.org_id is not distinct from whose) >= most then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', 'too_many_channels', 'kind', 'channel', 'limit', most
    ));
  end if;
  made.settings := '{}';
  made.severity := 'info';
  made.state := 'active';
  made.kind := channel ->> 'kind';
  made.name := channel ->> 'name';
  made.address := channel ->> 'address';
  made := tollgate.with_fields(made, channel, array[
    'id', 'kind', 'name', 'address', 'settings', 'severity', 'rules', 'org_ids', 'events', 'state'
  ]);
  insert into tollgate.channels (id, org_id, kind, name, address, settings, severity, rules, org_ids, events, state)
  values (
    made.id, whose, made.kind, made.name, made.address, made.settings, made.severity, made.rules, made.org_ids,
    made.events, made.state
  )
  returning * into made;
  perform tollgate.put_channel_secret(made, secret);
  perform tollgate.record(keeper, 'channel.created', whose, made.id, jsonb_strip_nulls(channel - 'id'));
  return jsonb_build_object('caller', tollgate.identity(keeper), 'channel', tollgate.channel_shown(made));
end
$$;

comment on function public.tollgate_create_channel(jsonb, jsonb, jsonb, text) is
  'Creates a channel with its encrypted secret: of operators with the scope admin, of the caller''s org with keys; at most 20 of each. Refuses: as keeper_of_channels() and with_fields(), conflict (too_many_channels). Locks as lock_channels().';

select tollgate.expose('public.tollgate_create_channel(jsonb, jsonb, jsonb, text)');


create function public.tollgate_change_channel(caller jsonb, channel_id text, changes jsonb, secret jsonb, scope text)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of_channels(caller, scope);
  was constant tollgate.channels := tollgate.found_channel(channel_id, tollgate.org_of_channels(keeper, scope));
  made tollgate.channels := tollgate.with_fields(was, changes, array[
    'name', 'address', 'settings', 'severity', 'rules', 'org_ids', 'events', 'state'
  ]);
begin
  if made is distinct from was or secret is not null then
    made.updated_at := now();
    update tollgate.channels c set
      name = made.name, address = made.address, settings = made.settings, severity = made.severity, rules = made.rules,
      org_ids = made.org_ids, events = made.events, state = made.state, updated_at = made.updated_at
    where c.id = made.id;
    perform tollgate.put_channel_secret(made, secret);
    perform tollgate.record(keeper, 'channel.changed', made.org_id, made.id, changes || case
      when secret is null then '{}' else jsonb_build_object('last_four', secret -> 'last_four') end);
  end if;
  return jsonb_build_object('caller', tollgate.identity(keeper), 'channel', tollgate.channel_shown(made));
end
$$;

comment on function public.tollgate_change_channel(jsonb, text, jsonb, jsonb, text) is
  'Changes the given fields of a channel, and its secret unless that is null. A repetition without a secret changes and records nothing. Refuses: as keeper_of_channels(), found_channel() and with_fields(). Locks the channel and its secret.';

select tollgate.expose('public.tollgate_change_channel(jsonb, text, jsonb, jsonb, text)');


create function public.tollgate_delete_channel(caller jsonb, channel_id text, scope text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of_channels(caller, scope);
  gone constant tollgate.channels := tollgate.found_channel(channel_id, tollgate.org_of_channels(keeper, scope));
begin
  delete from tollgate.channels c where c.id = gone.id;
  perform tollgate.record(keeper, 'channel.deleted', gone.org_id, gone.id, jsonb_build_object(
    'kind', gone.kind, 'name', gone.name, 'address', gone.address
  ));
  return jsonb_build_object('caller', tollgate.identity(keeper), 'id', gone.id, 'deleted', true);
end
$$;

comment on function public.tollgate_delete_channel(jsonb, text, text) is
  'Deletes a channel with its secret and its deliveries. Refuses: as keeper_of_channels() and found_channel(). Locks the rows.';

select tollgate.expose('public.tollgate_delete_channel(jsonb, text, text)');


create function public.tollgate_channel(caller jsonb, channel_id text, scope text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of_channels(caller, scope);
begin
  return jsonb_build_object('caller', tollgate.identity(keeper), 'channel', tollgate.channel_shown(
    tollgate.found_channel(channel_id, tollgate.org_of_channels(keeper, scope))
  ));
end
$$;

comment on function public.tollgate_channel(jsonb, text, text) is
  'One channel. Refuses: as keeper_of_channels() and found_channel(). Locks the row.';

select tollgate.expose('public.tollgate_channel(jsonb, text, text)');


create function public.tollgate_channels(caller jsonb, filters jsonb, page_size integer, scope text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of_channels(caller, scope);
  whose constant text := tollgate.org_of_channels(keeper, scope);
begin
  return jsonb_build_object('caller', tollgate.identity(keeper)) || tollgate.page(
    'tollgate.channels',
    'tollgate.channel_shown',
    $where$
      ($1 ->> 'kind' is null or e.kind = $1 ->> 'kind')
      and ($1 ->> 'state' is null or e.state = $1 ->> 'state')
    $where$,
    '{"created_at": "e.created_at"}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters || jsonb_build_object('whose', whose),
    page_size,
    within => $where$ e.org_id is not distinct from $1 ->> 'whose' $where$
  );
end
$$;

comment on function public.tollgate_channels(jsonb, jsonb, integer, text) is
  'Channels. `filters`: kind, state, sort (created_at), cursor. Refuses: as keeper_of_channels() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_channels(jsonb, jsonb, integer, text)');


-- schemas/14_channels/deliveries.sql

-- Deliveries as operators and owners see them: list, test, resend.

create function tollgate.delivery_shown(d tollgate.deliveries) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', d.id,
    'channel_id', d.channel_id,
    'event', d.event,
    'content', d.content,
    'state', d.state,
    'tries', d.tries,
    'attempts', d.attempts,
    'due_at', case when d.state = 'waiting' then tollgate.utc(d.due_at) end,
    'created_at', tollgate.utc(d.created_at),
    'ended_at', tollgate.utc(d.ended_at)
  )
$$;

comment on function tollgate.delivery_shown(tollgate.deliveries) is 'A delivery with its content and its last attempts.';


create function public.tollgate_deliveries(caller jsonb, filters jsonb, page_size integer, scope text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of_channels(caller, scope);
  whose constant text := tollgate.org_of_channels(keeper, scope);
begin
  return jsonb_build_object('caller', tollgate.identity(keeper)) || tollgate.page(
    'tollgate.deliveries',
    'tollgate.delivery_shown',
    $where$
      ($1 ->> 'channel_id' is null or e.channel_id = $1 ->> 'channel_id')
      and ($1 ->> 'state' is null or e.state = $1 ->> 'state')
      and ($1 ->> 'event' is null or e.event = $1 ->> 'event')
      and ($1 ->> 'from' is null or e.created_at >= ($1 ->> 'from')::timestamptz)
      and ($1 ->> 'to' is null or e.created_at < ($1 ->> 'to')::timestamptz)
      and ($1 ->> 'alert_id' is null
        or e.content @> jsonb_build_object('data', jsonb_build_object('alerts', jsonb_build_array(jsonb_build_object('id', $1 ->> 'alert_id')))))
    $where$,
    '{"created_at": "e.created_at"}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters || jsonb_build_object('whose', whose),
    page_size,
    within => $where$
      e.channel_id in (select c.id from tollgate.channels c where c.org_id is not distinct from $1 ->> 'whose')
    $where$,
    counted => false
  );
end
$$;

comment on function public.tollgate_deliveries(jsonb, jsonb, integer, text) is
  'Deliveries over the channels of operators, or of the caller''s org. `filters`: channel_id, alert_id (of those that list it), state, event, from, to, sort (created_at), cursor. Refuses: as keeper_of_channels() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_deliveries(jsonb, jsonb, integer, text)');


create function public.tollgate_delivery(caller jsonb, delivery_id text, scope text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of_channels(caller, scope);
  whose constant text := tollgate.org_of_channels(keeper, scope);
  found_one tollgate.deliveries;
begin
  select d.* into found_one from tollgate.deliveries d
  join tollgate.channels c on c.id = d.channel_id
  where d.id = delivery_id and c.org_id is not distinct from whose;
  if not found then
    perform tollgate.refuse_missing('delivery', delivery_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(keeper), 'delivery', tollgate.delivery_shown(found_one));
end
$$;

comment on function public.tollgate_delivery(jsonb, text, text) is
  'One delivery. Refuses: as keeper_of_channels(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_delivery(jsonb, text, text)');


create function public.tollgate_resend_delivery(caller jsonb, delivery_id text, scope text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of_channels(caller, scope);
  whose constant text := tollgate.org_of_channels(keeper, scope);
  due tollgate.deliveries;
begin
  update tollgate.deliveries d
  set state = 'waiting', due_at = clock_timestamp(), ended_at = null, tries = case when d.state = 'waiting' then d.tries else 0 end
  from tollgate.channels c
  where d.id = delivery_id and c.id = d.channel_id and c.org_id is not distinct from whose
  returning d.* into due;
  if not found then
    perform tollgate.refuse_missing('delivery', delivery_id);
  end if;
  perform tollgate.record(keeper, 'delivery.resent', whose, due.id, jsonb_build_object('channel_id', due.channel_id));
  return jsonb_build_object('caller', tollgate.identity(keeper), 'delivery', tollgate.delivery_shown(due));
end
$$;

comment on function public.tollgate_resend_delivery(jsonb, text, text) is
  'Makes a delivery due now, with all its attempts ahead of it. It keeps its id, by which a receiver knows it. Refuses: as keeper_of_channels(), not_found. Locks the delivery.';

select tollgate.expose('public.tollgate_resend_delivery(jsonb, text, text)');


create function public.tollgate_test_channel(caller jsonb, channel_id text, scope text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of_channels(caller, scope);
  whose constant text := tollgate.org_of_channels(keeper, scope);
  tested constant tollgate.channels := tollgate.found_channel(channel_id, whose);
  most_a_minute constant integer := 10;
  again_at timestamptz;
  made tollgate.deliveries;
begin
  perform tollgate.lock_channels(whose);
  select d.created_at + interval '1 minute' into again_at
  from tollgate.channels c
  join tollgate.deliveries d on d.channel_id = c.id
  where c.org_id is not distinct from whose and d.event = 'channel.test'
    and d.created_at > clock_timestamp() - interval '1 minute'
  order by d.created_at desc
  offset most_a_minute - 1 limit 1;
  if found then
    perform tollgate.refuse(429, 'too_many_tests', jsonb_build_object(
      'limit', most_a_minute,
      'retry_after_seconds', greatest(1, ceil(extract(epoch from again_at - clock_timestamp()))::integer)
    ));
  end if;
  insert into tollgate.deliveries (channel_id, event, content, due_at) values (
    tested.id, 'channel.test',
    jsonb_build_object(
      'type', 'channel.test', 'timestamp', tollgate.utc(clock_timestamp()),
      'data', jsonb_build_object('channel_id', tested.id, 'name', tested.name)
    ),
    clock_timestamp()
  )
  returning * into made;
  perform tollgate.record(keeper, 'channel.tested', tested.org_id, tested.id, jsonb_build_object('delivery_id', made.id));
  return jsonb_build_object('caller', tollgate.identity(keeper), 'delivery', tollgate.delivery_shown(made));
end
$$;

comment on function public.tollgate_test_channel(jsonb, text, text) is
  'Writes a delivery that says it is a test: at most ten a minute over all channels of an org, and of operators. Refuses: as keeper_of_channels() and found_channel(), too_many_tests. Locks the channel, then as lock_channels().';

select tollgate.expose('public.tollgate_test_channel(jsonb, text, text)');


-- schemas/14_channels/tell.sql

-- Writes what is to be told, and keeps what became of it.

create function tollgate.tell(channel_id text, event text, content jsonb) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.deliveries (channel_id, event, content) values (channel_id, event, content)
$$;

comment on function tollgate.tell(text, text, jsonb) is 'Writes a delivery, in the transaction of what it tells. Locks the channel against deletion.';


create function tollgate.tell_owner(org_id text, event text, facts jsonb, moment timestamptz) returns void
language sql
set search_path = ''
as $$
  select tollgate.tell(c.id, event, jsonb_build_object(
    'type', event, 'timestamp', tollgate.utc(moment), 'data', jsonb_build_object('org_id', c.org_id) || facts
  ))
  from tollgate.channels c
  where c.org_id = tell_owner.org_id and c.state = 'active' and (c.events is null or event = any (c.events))
  order by c.id
$$;

comment on function tollgate.tell_owner(text, text, jsonb, timestamptz) is
  'Tells the channels of an org of an event of the org, and of no other. Locks as tell().';


create function tollgate.tell_of_key() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  perform tollgate.tell_owner(new.org_id, new.action, jsonb_strip_nulls(jsonb_build_object(
    'key_id', new.target_id, 'user_id', new.actor_user_id
  )), new.occurred_at);
  return null;
end
$$;

comment on function tollgate.tell_of_key() is
  'Trigger of the audit trail: tells the org of its new, rotated and revoked keys, in the transaction of the change.';

create trigger audit_events_told
after insert on tollgate.audit_events
for each row
when (new.outcome = 'success' and new.org_id is not null and new.action in ('key.created', 'key.rotated', 'key.revoked'))
execute function tollgate.tell_of_key();


create function public.tollgate_lease_deliveries(page_size integer, lease_seconds integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  leased jsonb;
begin
  delete from tollgate.deliveries d where d.id in (
    select o.id from tollgate.deliveries o
    where o.created_at < clock_timestamp() - interval '30 days'
    order by o.created_at, o.id
    limit 1000
    for update skip locked
  );
  with taken as (
    update tollgate.deliveries d
    set due_at = clock_timestamp() + make_interval(secs => lease_seconds), tries = d.tries + 1
    where d.id in (
      select o.id from tollgate.deliveries o
      join (
        select w.id, c.org_id, row_number() over (partition by coalesce(c.org_id, c.id) order by w.due_at, w.id) as place
        from tollgate.deliveries w
        join tollgate.channels c on c.id = w.channel_id
        where w.state = 'waiting' and w.due_at <= clock_timestamp() and (c.state = 'active' or w.event = 'channel.test')
      ) q on q.id = o.id
      where o.state = 'waiting' and o.due_at <= clock_timestamp()
      order by q.place, q.org_id is not null, o.due_at
      limit page_size
      for update of o skip locked
    )
    returning d.*
  )
  select jsonb_agg(jsonb_build_object(
    'id', t.id, 'event', t.event, 'content', t.content, 'tries', t.tries, 'created_at', tollgate.utc(t.created_at),
    'channel', jsonb_build_object(
      'id', c.id, 'org_id', c.org_id, 'kind', c.kind, 'address', c.address, 'settings', c.settings, 'state', c.state
    ),
    'secret', case when s.id is not null then tollgate.secret_sealed(s) end
  ) order by t.created_at, t.id) into leased
  from taken t
  join tollgate.channels c on c.id = t.channel_id
  left join tollgate.secrets s on s.org_id is null and s.kind = 'channel' and s.name = c.id;
  return jsonb_build_object('data', coalesce(leased, '[]'));
end
$$;

comment on function public.tollgate_lease_deliveries(integer, integer) is
  'Leases deliveries that are due to one sender, with their channels; of disabled ones only tests. One of each operator''s channel and of each org comes before the second of any, so that none waits for the others'' receivers. Deletes up to 1,000 that are older than 30 days. Refuses nothing. Skips deliveries that another sender has locked.';

select tollgate.expose('public.tollgate_lease_deliveries(integer, integer)');


create function public.tollgate_end_deliveries(items jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  item record;
  ended tollgate.deliveries;
begin
  for item in
    select i.* from jsonb_to_recordset(items) i (id text, tries integer, attempt jsonb, sent boolean, again_seconds integer)
    order by i.id
  loop
    update tollgate.deliveries d set
      state = case when item.sent then 'sent' when item.again_seconds is null then 'failed' else 'waiting' end,
      due_at = clock_timestamp() + make_interval(secs => coalesce(item.again_seconds, 0)),
      ended_at = case when item.sent or item.again_seconds is null then clock_timestamp() end,
      attempts = case when jsonb_array_length(d.attempts) >= 10 then d.attempts - 0 else d.attempts end
        || jsonb_build_array(item.attempt)
    where d.id = item.id and d.state = 'waiting' and d.tries = item.tries
    returning d.* into ended;
    continue when not found;
    update tollgate.channels c set
      failures = case when item.sent then 0 else c.failures + 1 end,
      failed_at = case when item.sent then c.failed_at else clock_timestamp() end,
      last_error = case when item.sent then null else left(item.attempt ->> 'error', 500) end,
      told_at = case when item.sent then clock_timestamp() else c.told_at end
    where c.id = ended.channel_id;
  end loop;
  return '{"ended": true}';
end
$$;

comment on function public.tollgate_end_deliveries(jsonb) is
  'Keeps how attempts ended: id, tries (as leased), attempt, sent, again_seconds (null: no more attempts). An attempt whose lease ended and that another sender repeated changes nothing. Refuses nothing. Locks the deliveries, then their channels, in order.';

select tollgate.expose('public.tollgate_end_deliveries(jsonb)');


-- schemas/14_security/audit_events.sql

-- Audit events: lists, and one.

create function public.tollgate_audit_events(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.audit_events',
    'tollgate.audit_event_shown',
    $where$
      ($1 ->> 'org_id' is null or e.org_id = $1 ->> 'org_id')
      and ($1 ->> 'action' is null or e.action = $1 ->> 'action')
      and ($1 ->> 'outcome' is null or e.outcome = $1 ->> 'outcome')
      and ($1 ->> 'target_id' is null or e.target_id = $1 ->> 'target_id')
      and ($1 ->> 'actor_id' is null or $1 ->> 'actor_id' in (e.actor_key_id, e.actor_user_id, e.actor_name))
      and ($1 ->> 'from' is null or e.occurred_at >= ($1 ->> 'from')::timestamptz)
      and ($1 ->> 'to' is null or e.occurred_at < ($1 ->> 'to')::timestamptz)
    $where$,
    '{"occurred_at": "e.occurred_at"}',
    coalesce(filters ->> 'sort', 'occurred_at:desc'),
    filters,
    page_size,
    counted => false
  );
end
$$;

comment on function public.tollgate_audit_events(jsonb, jsonb, integer) is
  'Audit events. `filters`: org_id, action, outcome, target_id, actor_id (of a key or user, or the name of a console command), from, to, sort (occurred_at), cursor, offset. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_audit_events(jsonb, jsonb, integer)');


create function public.tollgate_audit_event(caller jsonb, event_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_one tollgate.audit_events;
begin
  select e.* into found_one from tollgate.audit_events e where e.id = tollgate_audit_event.event_id;
  if not found then
    perform tollgate.refuse_missing('audit_event', event_id);
  end if;
  return tollgate.audit_event_shown(found_one) || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_audit_event(jsonb, text) is
  'One audit event. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_audit_event(jsonb, text)');


-- schemas/14_security/compliance.sql

-- The compliance report.

create function tollgate.report_on_books(wanted boolean) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  rows bigint := (
    select sum(greatest(c.reltuples, 0)) from pg_catalog.pg_class c
    where c.oid in ('tollgate.requests'::regclass, 'tollgate.transfers'::regclass)
  );
  books jsonb;
begin
  if not coalesce(wanted, rows <= 200000) then
    return jsonb_build_object('audited', false, 'agree', null, 'faults', '[]'::jsonb, 'fault_count', null, 'reason', case
      when wanted is null then format('The books have about %s rows, too many to read in one call. Run `python -m tollgate audit`.', rows)
      else 'The audit was left out.'
    end);
  end if;
  books := public.tollgate_audit_books();
  return jsonb_build_object(
    'audited', true,
    'agree', books -> 'faults' = '[]',
    'fault_count', books -> 'fault_count',
    'faults', jsonb_path_query_array(books, '$.faults[0 to 99]'),
    'orgs', books -> 'orgs',
    'transfers', books -> 'transfers',
    'requests', books -> 'requests',
    'open_holds', books -> 'open_holds',
    'reason', null
  );
end
$$;

comment on function tollgate.report_on_books(boolean) is
  'The audit of the books at this moment, with the first hundred faults. Large books, which may take longer than a call, are audited only when asked for; otherwise the answer says that they were not.';


create function public.tollgate_audit(caller jsonb, wanted boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  books jsonb := tollgate.report_on_books(wanted);
begin
  if (books -> 'audited')::boolean then
    perform tollgate.record(
      actor, 'books.audited', null, 'books',
      jsonb_build_object('agree', books -> 'agree', 'fault_count', books -> 'fault_count')
    );
  end if;
  return books || jsonb_build_object('caller', tollgate.identity(actor), 'at', tollgate.utc(clock_timestamp()));
end
$$;

comment on function public.tollgate_audit(jsonb, boolean) is
  'Audits the books and records that it did: an audit event books.audited with the number of faults. Large books are audited only when `wanted` is true. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_audit(jsonb, boolean)');


create function tollgate.faults_of_last_audit() returns bigint
language sql
stable
set search_path = ''
as $$
  select (e.details -> 'fault_count')::bigint from tollgate.audit_events e
  where e.target_id = 'books' and e.action = 'books.audited'
  order by e.occurred_at desc, e.id desc
  limit 1
$$;

comment on function tollgate.faults_of_last_audit() is 'How many faults the last audit of the books found; null without one.';


create function tollgate.report_on_access(since timestamptz, until timestamptz) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    with used as (
      select u.* from tollgate.usage_by('{key}', since, until, '{}') u where u.requests > 0
    )
    select jsonb_build_object(
      'keys', count(*),
      'requests', coalesce(sum(u.requests), 0),
      'used', coalesce((
        select jsonb_agg(jsonb_build_object(
          'key_id', b.key_id,
          'masked_key', k.prefix || '…' || k.last_four,
          'name', k.name,
          'org_id', k.org_id,
          'user_id', k.user_id,
          'requests', b.requests,
          'charge_nanos', b.charge_nanos,
          'last_request_at', tollgate.utc(b.last_at),
          'last_used_at', tollgate.utc(k.last_used_at)
        ) order by b.requests desc, b.key_id)
        from (select * from used b order by b.requests desc, b.key_id limit 1000) b
        left join tollgate.api_keys k on k.id = b.key_id
      ), '[]')
    )
    from used u
  );
end
$$;

comment on function tollgate.report_on_access(timestamptz, timestamptz) is
  'Which keys made paid requests in a span of time: the 1,000 busiest.';


create function tollgate.report_on_keys(since timestamptz, until timestamptz) returns jsonb
language sql
stable
set search_path = ''
as $$
  with usable as (
    select k.*, k.last_used_at is null as never_used
    from tollgate.api_keys k
    where k.revoked_at is null and k.disabled_at is null and (k.expires_at is null or k.expires_at > now())
  ),
  unused as (
    select u.* from usable u where u.never_used or u.last_used_at < now() - interval '90 days'
  )
  select (
    select jsonb_build_object(
      'issued', count(*) filter (where a.action = 'key.created'),
      'rotated', count(*) filter (where a.action = 'key.rotated'),
      'disabled', count(*) filter (where a.action = 'key.disabled'),
      'revoked', count(*) filter (where a.action = 'key.revoked')
    )
    from tollgate.audit_events a
    where a.occurred_at >= since and a.occurred_at < until and a.outcome = 'success' and a.action like 'key.%'
  ) || jsonb_build_object(
    'usable', (select count(*) from usable),
    'never_used', (select count(*) from unused u where u.never_used),
    'unused_90_days', (select count(*) from unused u where not u.never_used),
    'unused', coalesce((
      select jsonb_agg(jsonb_build_object(
        'key_id', u.id,
        'masked_key', u.prefix || '…' || u.last_four,
        'name', u.name,
        'org_id', u.org_id,
        'user_id', u.user_id,
        'created_at', tollgate.utc(u.created_at),
        'last_used_at', tollgate.utc(u.last_used_at)
      ) order by u.created_at, u.id)
      from (select * from unused u order by u.created_at, u.id limit 1000) u
    ), '[]')
  )
$$;

comment on function tollgate.report_on_keys(timestamptz, timestamptz) is
  'How many keys were issued, rotated, disabled and revoked in a span of time, and which working keys are unused: the 1,000 oldest of them.';


create function tollgate.report_on_money(since timestamptz, until timestamptz) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  used record;
  moved record;
begin
  select u.charge_nanos, u.cost_nanos into used from tollgate.usage_by('{}', since, until, '{}') u;
  select
    coalesce(sum(s.nanos) filter (where s.account = 'funding'), 0) as funded,
    coalesce(sum(s.nanos) filter (where s.account = 'promotion'), 0) as promoted,
    coalesce(sum(s.nanos) filter (where s.account = 'revenue'), 0) as refunded,
    coalesce(sum(s.nanos) filter (where s.account = 'writeoff'), 0) as written_off
  into moved
  from (
    select
      case t.credit when 'wallet' then t.debit else t.credit end as account,
      case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end as nanos
    from tollgate.transfers t
    where t.created_at >= since and t.created_at < until and t.kind <> 'charge'
      and not (t.kind = 'refund' and t.reference like '%:late') -- counted in the charge of its request
  ) s;
  return jsonb_build_object(
    'in_nanos', moved.funded,
    'promotions_nanos', moved.promoted,
    'written_off_nanos', moved.written_off,
    'charged_nanos', coalesce(used.charge_nanos, 0),
    'refunded_nanos', moved.refunded,
    'out_nanos', coalesce(used.cost_nanos, 0),
    'margin_nanos', coalesce(used.charge_nanos, 0) - moved.refunded - coalesce(used.cost_nanos, 0)
  );
end
$$;

comment on function tollgate.report_on_money(timestamptz, timestamptz) is
  'Money in (funding, less what was taken back), money out (the cost of upstreams) and the margin: charges less refunds and cost. A charge counts at the time of its request, with the correction of a late settlement; other transfers count at their own time.';


create function tollgate.report_on_people(since timestamptz, until timestamptz) returns jsonb
language sql
stable
set search_path = ''
as $$
  with done as (
    select case a.actor_kind when 'session' then 'key' else a.actor_kind end as actor_kind,
      coalesce(a.actor_user_id, a.actor_name, a.actor_key_id) as actor_id, a.action, a.outcome, count(*) as times
    from tollgate.audit_events a
    where a.occurred_at >= since and a.occurred_at < until
    group by 1, 2, 3, 4
  ),
  actors as (
    select
      d.actor_kind, d.actor_id,
      sum(d.times) as times,
      coalesce(sum(d.times) filter (where d.outcome = 'refused'), 0) as refused,
      jsonb_object_agg(d.action, d.times) filter (where d.outcome = 'success') as actions
    from done d
    group by 1, 2
  ),
  people as (
    select
      coalesce(d.actor_kind, 'key') as kind, coalesce(d.actor_id, u.id) as id, u.email, u.role, u.status, u.org_id,
      coalesce(d.actions, '{}') as actions, coalesce(d.refused, 0) as refused, coalesce(d.times, 0) as times
    from actors d
    full join (select u.* from tollgate.users u) u on u.id = d.actor_id and d.actor_kind = 'key'
    where d.actor_id is not null or u.role = 'admin'
  )
  select jsonb_build_object(
    'admins', (select count(*) from tollgate.users u where u.role = 'admin' and u.status = 'active'),
    'actors', (select count(*) from people),
    'done', coalesce((
      select jsonb_agg(jsonb_build_object(
        'kind', case p.kind when 'key' then 'user' else p.kind end,
        'id', p.id,
        'email', p.email,
        'role', p.role,
        'status', p.status,
        'org_id', p.org_id,
        'actions', p.actions,
        'refused', p.refused
      ) order by p.role = 'admin' desc nulls last, p.times desc, p.id)
      from (select * from people p order by p.role = 'admin' desc nulls last, p.times desc, p.id limit 1000) p
    ), '[]')
  )
$$;

comment on function tollgate.report_on_people(timestamptz, timestamptz) is
  'Who changed what how often: all admins, then others who acted; the 1,000 busiest.';


create function public.tollgate_compliance_report(caller jsonb, since text, until text, books boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  beginning constant timestamptz := since;
  ending constant timestamptz := until;
begin
  if ending <= beginning or ending > beginning + interval '366 days' then
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'to', 'most_days', 366));
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'from', tollgate.utc(beginning),
    'to', tollgate.utc(ending),
    'made_at', tollgate.utc(now()),
    'keys', tollgate.report_on_keys(beginning, ending),
    'people', tollgate.report_on_people(beginning, ending),
    'access', tollgate.report_on_access(beginning, ending),
    'money', tollgate.report_on_money(beginning, ending),
    'books', tollgate.report_on_books(books)
  );
end
$$;

comment on function public.tollgate_compliance_report(jsonb, text, text, boolean) is
  'The report of a span of time of at most 366 days: keys, people, access, money, and the books at this moment. For admins. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_compliance_report(jsonb, text, text, boolean)');


-- schemas/14_security/detectors.sql

-- Readings of the detectors: patterns in what is counted, each with a rule of its own in 16_alerts. A habit is no
-- pattern: what a key, an address or the installation does every day is compared with, not counted.

create function tollgate.spread_readings(as_of timestamptz) returns table (signal text, subject text, value numeric)
language sql
stable
set search_path = ''
as $$
  with lately as materialized (
    select s.kind, s.subject, sum(s.times) as times, tollgate.different(bit_or(s.marks)) as different
    from tollgate.spreads s
    where s.hour in (date_trunc('hour', as_of, 'UTC'), date_trunc('hour', as_of, 'UTC') - interval '1 hour')
    group by s.kind, s.subject, s.about
    having sum(s.times) >= 4
  ),
  wide as (
    select l.* from lately l
    where l.kind in ('missing_ids', 'models_read', 'failed_addresses', 'failed_credentials') and l.different >= 10
      and not (l.kind = 'models_read' and exists (
        select from tollgate.api_keys k where k.id = l.subject and k.created_at > as_of - interval '24 hours'
      ))
    order by l.different desc
    limit 500
  ),
  unusual as materialized (
    select w.* from wide w where w.different >= 3 * tollgate.usual_spread(w.kind, w.subject, as_of)
  )
  select u.kind, u.subject, u.different::numeric from unusual u where u.kind in ('missing_ids', 'models_read')
  union all
  select 'stuffing_addresses', u.subject, min(u.different)
  from unusual u
  where u.kind in ('failed_addresses', 'failed_credentials')
  group by u.subject
  having count(*) = 2
  union all
  select 'idempotency_keys_reused', l.subject, l.times from lately l where l.kind = 'reused_keys'
  union all
  select 'idempotency_networks', l.subject, max(l.different)
  from lately l
  where l.kind = 'repeated_from'
  group by l.subject
$$;

comment on function tollgate.spread_readings(timestamptz) is
  'Of this clock hour and the one before: ids that did not exist and models that were read, by key or address, and addresses that failed with as many credentials, each where it is three times the habit, of the 500 widest, but no models that a key read in its first day; refused reuses of Idempotency-Keys by key; and the most networks that repeated one request of a key.';


create function tollgate.network_readings(as_of timestamptz) returns table (signal text, subject text, value numeric)
language sql
stable
set search_path = ''
as $$
  with met as (
    select n.key_id, min(n.first_seen_at) as since,
      count(*) filter (where n.first_seen_at > as_of - interval '1 hour') as in_hour,
      count(*) filter (where n.first_seen_at > as_of - interval '24 hours') as in_day,
      count(*) filter (where n.first_seen_at > as_of - interval '8 days' and n.first_seen_at <= as_of - interval '24 hours') as before
    from tollgate.key_networks n
    group by n.key_id
  ),
  usual as (
    select m.*, case when m.since > as_of - interval '2 days' or m.since > as_of - interval '7 days' and m.before >= 5
      then 50 -- of who has no habit yet
      else m.before / least(extract(epoch from as_of - m.since) / 86400 - 1, 7) end as a_day
    from met m
  )
  select r.signal, u.key_id, r.value::numeric
  from usual u
  cross join lateral (values
    ('key_networks', u.in_day, u.in_day >= 5),
    ('key_new_networks', u.in_hour, u.in_hour > 0 and u.since < as_of - interval '24 hours')
  ) r (signal, value, told)
  where r.told and u.in_day >= 3 * u.a_day
$$;

comment on function tollgate.network_readings(timestamptz) is
  'From how many networks that it was never used from before a key was used in a day, from five, and, of keys known for a day, in an hour; not of keys that met a third as many on each day of the week before. A key may meet 50 a day in its first two days, and in its first week if it has met five before.';


create function tollgate.asking_readings(as_of timestamptz) returns table (signal text, subject text, value numeric)
language sql
stable
set search_path = ''
set jit = off
as $$
  select 'models_asked', a.key_id, a.models::numeric
  from (
    select u.org_id, u.user_id, u.key_id, count(*) as models
    from tollgate.usage_by('{org,user,key,model}', date_trunc('hour', as_of, 'UTC') - interval '1 hour', as_of) u
    group by u.org_id, u.user_id, u.key_id
    having count(*) >= 20
    order by models desc
    limit 100
  ) a
  where a.models >= 2 * coalesce((
    select max(d.models)
    from (
      select count(distinct t.model) as models
      from tollgate.tallies t
      where t.cut = 'day' and t.org_id = a.org_id and t.user_id = a.user_id and t.key_id = a.key_id and t.start = any (array(
        select date_trunc('day', as_of, 'UTC') - make_interval(days => n) from generate_series(1, 7) n
      ))
      group by t.start
    ) d
  ), 25) -- of who has no habit yet
$$;

comment on function tollgate.asking_readings(timestamptz) is
  'How many different models a key asked in this clock hour and the one before, from 20, of the 100 keys that asked most; not of keys that asked half as many on one of the seven days before. A key that was not used then may ask 50.';


-- schemas/14_security/events.sql

-- Security events: raise, list, acknowledge.

create function tollgate.severity_of(kind text) returns text
language sql
immutable
set search_path = ''
as $$
  select case
    when kind in ('usage_quarantined', 'org_paid_suspended', 'many_failures') then 'critical'
    when kind in ('key_created', 'key_rotated', 'key_revoked', 'limit_exceeded') then 'info'
    else 'warning'
  end
$$;

comment on function tollgate.severity_of(text) is 'The severity of a kind of security event: info, warning or critical.';


create function tollgate.raise_event(
  kind text,
  subject_kind text,
  subject text,
  org_id text,
  key_id text,
  times bigint,
  first_seen timestamptz,
  last_seen timestamptz,
  details jsonb
) returns bigint
language sql
set search_path = ''
as $$
  insert into tollgate.security_events as e (
    kind, severity, subject_kind, subject, org_id, key_id,
    first_seen_at, last_seen_at, count, hour, count_in_hour, details
  ) values (
    kind, tollgate.severity_of(kind), subject_kind, subject, org_id, key_id,
    least(first_seen, last_seen), last_seen, times, date_trunc('hour', last_seen, 'UTC'), times, details
  )
  on conflict (kind, subject_kind, subject) where acknowledged_at is null do update set
    first_seen_at = least(e.first_seen_at, excluded.first_seen_at),
    last_seen_at = greatest(e.last_seen_at, excluded.last_seen_at),
    count = e.count + excluded.count,
    hour = greatest(e.hour, excluded.hour),
    count_in_hour = excluded.count_in_hour * (excluded.hour >= e.hour)::integer
      + e.count_in_hour * (excluded.hour <= e.hour)::integer,
    details = e.details || excluded.details
  returning e.count_in_hour
$$;

comment on function tollgate.raise_event(text, text, text, text, text, bigint, timestamptz, timestamptz, jsonb) is
  'Raises a security event: opens one, or adds to the open one of this kind and subject. Answers its count within the hour. Locks the event: raise several in the order of kind and subject.';


create function tollgate.raise_event_of_change() returns trigger
language plpgsql
set search_path = ''
as $$
declare
  is_of_org constant boolean := new.action in ('credits.overdrawn', 'org.paid_suspended');
begin
  perform tollgate.raise_event(
    case new.action when 'credits.overdrawn' then 'org_overdrawn' else replace(new.action, '.', '_') end,
    case when is_of_org then 'org' else 'key' end,
    case when is_of_org then new.org_id else new.target_id end,
    new.org_id,
    case when not is_of_org then new.target_id end,
    1,
    new.occurred_at,
    new.occurred_at,
    jsonb_strip_nulls(jsonb_build_object('audit_event_id', new.id, 'user_id', new.actor_user_id, 'name', new.actor_name))
  );
  return null;
end
$$;

comment on function tollgate.raise_event_of_change() is
  'Trigger of the audit trail: raises a security event for new, rotated and revoked keys, charges above their hold and suspensions of paid calls, in the transaction of the change.';

create trigger audit_events_raised
after insert on tollgate.audit_events
for each row
when (new.outcome = 'success' and new.action in (
  'key.created', 'key.rotated', 'key.revoked', 'credits.overdrawn', 'org.paid_suspended'
))
execute function tollgate.raise_event_of_change();


create function tollgate.security_event_shown(e tollgate.security_events) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', e.id,
    'kind', e.kind,
    'severity', e.severity,
    'subject', jsonb_build_object('kind', e.subject_kind, 'id', e.subject),
    'org_id', e.org_id,
    'key_id', e.key_id,
    'first_seen_at', tollgate.utc(e.first_seen_at),
    'last_seen_at', tollgate.utc(e.last_seen_at),
    'count', e.count,
    'details', e.details,
    'acknowledged_at', tollgate.utc(e.acknowledged_at),
    'acknowledged_by', e.acknowledged_by,
    'note', e.note
  )
$$;

comment on function tollgate.security_event_shown(tollgate.security_events) is 'A security event as operators see it.';


create function public.tollgate_security_events(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.security_events',
    'tollgate.security_event_shown',
    $where$
      ($1 ->> 'kind' is null or e.kind = $1 ->> 'kind')
      and ($1 ->> 'severity' is null or e.severity = $1 ->> 'severity')
      and ($1 ->> 'org_id' is null or e.org_id = $1 ->> 'org_id')
      and ($1 ->> 'key_id' is null or e.key_id = $1 ->> 'key_id')
      and ($1 ->> 'acknowledged' is null or (e.acknowledged_at is not null) = ($1 ->> 'acknowledged')::boolean)
      and ($1 ->> 'from' is null or e.last_seen_at >= ($1 ->> 'from')::timestamptz)
      and ($1 ->> 'to' is null or e.first_seen_at < ($1 ->> 'to')::timestamptz)
    $where$,
    jsonb_build_object(
      'last_seen_at', 'e.last_seen_at',
      'first_seen_at', 'e.first_seen_at',
      'count', 'e.count',
      'severity', $key$array_position('{info,warning,critical}', e.severity)$key$
    ),
    coalesce(filters ->> 'sort', 'last_seen_at:desc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_security_events(jsonb, jsonb, integer) is
  'Security events. `filters`: kind, severity, org_id, key_id, acknowledged, from (seen at or after), to (seen before), sort (last_seen, first_seen, count, severity), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_security_events(jsonb, jsonb, integer)');


create function public.tollgate_security_event(caller jsonb, event_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_one tollgate.security_events;
begin
  select e.* into found_one from tollgate.security_events e where e.id = tollgate_security_event.event_id;
  if not found then
    perform tollgate.refuse_missing('security_event', event_id);
  end if;
  return tollgate.security_event_shown(found_one) || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_security_event(jsonb, text) is
  'One security event. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_security_event(jsonb, text)');


create function public.tollgate_acknowledge_security_event(caller jsonb, event_id text, note text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  event tollgate.security_events;
begin
  update tollgate.security_events e
  set acknowledged_at = now(), acknowledged_by = coalesce(actor.user_id, actor.name), note = tollgate_acknowledge_security_event.note
  where e.id = event_id and e.acknowledged_at is null
  returning e.* into event;
  if found then
    perform tollgate.record(actor, 'security_event.acknowledged', event.org_id, event.id, jsonb_strip_nulls(jsonb_build_object(
      'kind', event.kind, 'subject', event.subject, 'count', event.count, 'note', event.note
    )));
  else
    select e.* into event from tollgate.security_events e where e.id = event_id;
    if not found then
      perform tollgate.refuse_missing('security_event', event_id);
    end if;
  end if;
  return tollgate.security_event_shown(event) || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_acknowledge_security_event(jsonb, text, text) is
  'Acknowledges an event; when it happens again, a new one opens. The first acknowledgement stands: a repetition changes and records nothing. For admins. Refuses: as recognise(), not_found. Locks the event.';

select tollgate.expose('public.tollgate_acknowledge_security_event(jsonb, text, text)');


-- schemas/14_security/patterns.sql

-- Security events from patterns in the tables. The time is an argument, so that a test can move it.

create function tollgate.raise_pattern(
  kind text,
  subject_kind text,
  subject text,
  org_id text,
  key_id text,
  details jsonb,
  as_of timestamptz
) returns integer
language plpgsql
set search_path = ''
as $$
begin
  if exists (
    select from tollgate.security_events e
    where e.kind = raise_pattern.kind and e.subject = raise_pattern.subject
      and (e.acknowledged_at > as_of - interval '24 hours'
        or e.acknowledged_at is null and e.last_seen_at > as_of - interval '1 hour')
  ) then
    return 0;
  end if;
  perform tollgate.raise_event(kind, subject_kind, subject, org_id, key_id, 1, as_of, as_of, details);
  return 1;
end
$$;

comment on function tollgate.raise_pattern(text, text, text, text, text, jsonb, timestamptz) is
  'Raises the event of a lasting pattern: at most once an hour, and not within a day of an acknowledgement. Answers how many it raised: 1 or 0. Locks the event.';


create function tollgate.find_many_networks(as_of timestamptz) returns bigint
language sql
set search_path = ''
as $$
  select coalesce(sum(tollgate.raise_pattern(
    'many_networks', 'key', s.key_id, k.org_id, s.key_id, jsonb_build_object('networks', s.networks), as_of
  )), 0)
  from (
    select n.key_id, count(*) as networks
    from tollgate.key_networks n
    where n.last_seen_at > as_of - interval '24 hours' and n.last_seen_at <= as_of
    group by n.key_id
    having count(*) >= 20
    order by n.key_id
    limit 500
  ) s
  join tollgate.api_keys k on k.id = s.key_id
$$;

comment on function tollgate.find_many_networks(timestamptz) is
  'Raises an event for each key that was used from 20 or more networks within the 24 hours before a moment.';


create function tollgate.find_quarantined(since timestamptz, until timestamptz) returns bigint
language sql
set search_path = ''
as $$
  select count(tollgate.raise_event(
    'usage_quarantined', 'org', q.org_id, q.org_id, null, q.requests, q.first_seen, q.last_seen,
    jsonb_build_object('request_id', q.request_id)
  ))
  from (
    select r.org_id, count(*) as requests, min(r.settled_at) as first_seen, max(r.settled_at) as last_seen, max(r.id) as request_id
    from tollgate.requests r
    where r.quarantined and r.created_at >= since - interval '7 days' and r.settled_at >= since and r.settled_at < until
    group by r.org_id
    order by r.org_id
  ) q
$$;

comment on function tollgate.find_quarantined(timestamptz, timestamptz) is
  'Raises an event for each org with requests that were settled as quarantined in this span of time.';


create function tollgate.find_spikes(as_of timestamptz) returns bigint
language plpgsql
set search_path = ''
as $$
declare
  busy record;
  past record;
  spotted bigint := 0;
begin
  for busy in
    select u.key_id, k.org_id, u.requests
    from tollgate.usage_by('{key}', as_of - interval '24 hours', as_of, '{}') u
    join tollgate.api_keys k on k.id = u.key_id
    where u.requests >= 1000
    order by u.key_id
    limit 200
  loop
    select coalesce(sum(u.requests), 0) / 14 as mean, count(*) as days into past
    from tollgate.usage_by(
      '{day}', as_of - interval '15 days', as_of - interval '24 hours',
      jsonb_build_object('org_id', busy.org_id, 'key_id', busy.key_id)
    ) u
    where u.requests > 0;
    if past.days >= 3 and busy.requests >= 10 * past.mean then
      spotted := spotted + tollgate.raise_pattern('usage_spike', 'key', busy.key_id, busy.org_id, busy.key_id,
        jsonb_build_object('requests', busy.requests, 'usual_requests', round(past.mean)), as_of);
    end if;
  end loop;
  return spotted;
end
$$;

comment on function tollgate.find_spikes(timestamptz) is
  'Raises an event for each key with 1,000 requests or more within 24 hours, if that is ten times its daily mean of the 14 days before and it was used on at least three of them. Looks at 200 keys.';


create function tollgate.drop_old_events(as_of timestamptz) returns void
language sql
set search_path = ''
as $$
  delete from tollgate.security_events e where e.id in (
    select o.id from tollgate.security_events o
    where o.last_seen_at < as_of - interval '90 days'
      and (o.acknowledged_at is not null or o.severity = 'info' or o.subject_kind = 'address')
    limit 1000
    for update skip locked
  );
  delete from tollgate.key_networks n where (n.key_id, n.network) in (
    select o.key_id, o.network from tollgate.key_networks o
    where o.last_seen_at < as_of - interval '30 days'
    limit 1000
    for update skip locked
  );
$$;

comment on function tollgate.drop_old_events(timestamptz) is
  'Deletes up to 1,000 events that did not happen for 90 days, except unacknowledged warnings and critical ones of orgs and keys, and up to 1,000 networks that were not seen for 30 days.';


create function public.tollgate_detect_patterns(as_of text default null) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  moment constant timestamptz := coalesce(as_of::timestamptz, now());
  until constant timestamptz := moment - interval '30 seconds'; -- earlier settlements are committed
  scan tollgate.pattern_scan;
  spotted bigint := 0;
begin
  select s.* into scan from tollgate.pattern_scan s for update skip locked;
  if not found then
    return '{"spotted": 0}';
  end if;

  spotted := tollgate.find_quarantined(scan.quarantined_until, until);
  update tollgate.pattern_scan set quarantined_until = greatest(quarantined_until, until);
  if scan.scanned_at not between moment - interval '10 minutes' and moment then
    spotted := spotted + tollgate.find_many_networks(moment) + tollgate.find_spikes(moment);
    perform tollgate.drop_old_events(moment);
    perform tollgate.drop_old_spreads(moment);
    update tollgate.pattern_scan set scanned_at = moment;
  end if;
  return jsonb_build_object('spotted', spotted);
end
$$;

comment on function public.tollgate_detect_patterns(text) is
  'Looks for quarantined usage, and every ten minutes for keys on many networks and for spikes of usage; deletes old events and spreads. A second call at the same time does nothing. Refuses nothing. Locks the row of tollgate.pattern_scan and the events it writes.';

select tollgate.expose('public.tollgate_detect_patterns(text)');

-- For deployments whose servers do not sweep.
do $$
begin
  if exists (select from pg_catalog.pg_extension where extname = 'pg_cron') then
    perform cron.schedule('tollgate-detect', '* * * * *', 'select public.tollgate_detect_patterns()');
  end if;
end
$$;


-- schemas/14_security/refused_calls.sql

-- Paid calls that were refused with 402, 403 or 429, counted by hour, key, model and code.
--
-- A refused call writes nothing, so the server counts refusals in memory and writes sums, a few seconds apart.

create function tollgate.count_refused_calls(refused jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  most_rows constant integer := 100; -- of an org in an hour
  moment constant timestamptz := clock_timestamp();
  seen record;
begin
  perform pg_advisory_xact_lock(hashtextextended('tollgate_refused_calls', 0));
  delete from tollgate.refused_calls c
  where c.id in (
    select o.id from tollgate.refused_calls o where o.last_seen_at < moment - interval '30 days' limit 1000
  );
  for seen in
    select
      k.org_id, k.user_id, k.id as key_id, left(coalesce(g.model, ''), 200) as model, g.code,
      greatest(g.times, 1) as times, least(g.first_seen, moment) as first_seen, least(g.last_seen, moment) as last_seen,
      date_trunc('hour', least(g.last_seen, moment), 'UTC') as hour, g.request_id, coalesce(g.facts, '{}') as facts
    from jsonb_to_recordset(refused) g (
      code text, key_id text, digest text, model text, times bigint, first_seen timestamptz, last_seen timestamptz,
      request_id text, facts jsonb
    )
    join tollgate.api_keys k on k.id = g.key_id or (g.key_id is null and k.digest = decode(g.digest, 'hex'))
  loop
    if not exists (
      select from tollgate.refused_calls c
      where c.org_id = seen.org_id and c.hour = seen.hour and c.key_id = seen.key_id and c.code = seen.code
        and c.model = seen.model
    ) and (
      select count(*) from tollgate.refused_calls c where c.org_id = seen.org_id and c.hour = seen.hour
    ) >= most_rows then
      seen.user_id := '';
      seen.key_id := '';
      seen.model := '';
    end if;
    insert into tollgate.refused_calls as c (
      hour, org_id, user_id, key_id, model, code, count, first_seen_at, last_seen_at, request_id, facts
    ) values (
      seen.hour, seen.org_id, seen.user_id, seen.key_id, seen.model, seen.code, seen.times, seen.first_seen,
      seen.last_seen, seen.request_id, seen.facts
    )
    on conflict (org_id, hour, key_id, code, model) do update set
      count = c.count + excluded.count,
      first_seen_at = least(c.first_seen_at, excluded.first_seen_at),
      last_seen_at = greatest(c.last_seen_at, excluded.last_seen_at),
      request_id = excluded.request_id,
      facts = excluded.facts;
  end loop;
end
$$;

comment on function tollgate.count_refused_calls(jsonb) is
  'Adds to the counts of refused calls: code, key_id or digest, model, times, first_seen, last_seen, and of the last one request_id and facts. An org has at most a hundred rows in an hour, besides one for each code, without key and model, that counts all others. Deletes rows older than 30 days, at most 1,000. Takes an advisory lock, so that two writers cannot wait for each other.';


create function tollgate.refused_calls_shown(refused tollgate.refused_calls) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', refused.id,
    'start', tollgate.utc(refused.hour),
    'org_id', refused.org_id,
    'user_id', nullif(refused.user_id, ''),
    'key_id', nullif(refused.key_id, ''),
    'model', nullif(refused.model, ''),
    'code', refused.code,
    'count', refused.count,
    'first_seen_at', tollgate.utc(refused.first_seen_at),
    'last_seen_at', tollgate.utc(refused.last_seen_at),
    'last', jsonb_build_object('request_id', refused.request_id, 'facts', refused.facts)
  )
$$;

comment on function tollgate.refused_calls_shown(tollgate.refused_calls) is 'A count of refused calls, with the last of them.';


create function public.tollgate_refused_calls(caller jsonb, filters jsonb, page_size integer, everyone boolean)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, case when everyone then 'admin' else 'usage' end);
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.refused_calls',
    'tollgate.refused_calls_shown',
    $where$
      ($1 ->> 'user_id' is null or e.user_id = $1 ->> 'user_id')
      and ($1 ->> 'key_id' is null or e.key_id = $1 ->> 'key_id')
      and ($1 ->> 'model' is null or e.model = $1 ->> 'model')
      and ($1 ->> 'code' is null or e.code = $1 ->> 'code')
      and ($1 ->> 'from' is null or e.last_seen_at >= ($1 ->> 'from')::timestamptz)
      and ($1 ->> 'to' is null or e.first_seen_at < ($1 ->> 'to')::timestamptz)
    $where$,
    '{"start": "e.hour"}',
    coalesce(filters ->> 'sort', 'start:desc'),
    tollgate.own_or_all(actor, filters, everyone),
    page_size,
    within => $where$ ($1 ->> 'org_id' is null or e.org_id = $1 ->> 'org_id') $where$,
    counted => false
  );
end
$$;

comment on function public.tollgate_refused_calls(jsonb, jsonb, integer, boolean) is
  'A page of counts of refused calls: everyone''s for admins, or those of the caller''s org. `filters`: org_id, user_id, key_id, model, code, from, to, sort (start), cursor. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_refused_calls(jsonb, jsonb, integer, boolean)');


create function public.tollgate_refused_call(caller jsonb, row_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_one tollgate.refused_calls;
begin
  select e.* into found_one from tollgate.refused_calls e where e.id = tollgate_refused_call.row_id;
  if not found then
    perform tollgate.refuse_missing('refused_calls', row_id);
  end if;
  return tollgate.refused_calls_shown(found_one) || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_refused_call(jsonb, text) is
  'One count of refused calls. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_refused_call(jsonb, text)');


-- schemas/14_security/security_counters.sql

-- Writes the security counters of servers.
--
-- A refused call rolls back and so writes nothing, and a row for each refusal would let an attacker fill the database. The
-- server counts refusals in memory and writes sums, a few seconds apart; a frozen host loses those that it holds. The
-- tables of security are bounded, so that many addresses cannot fill them either.

create function tollgate.count_refusals(refusals jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  moment timestamptz := clock_timestamp();
  crowded boolean := (
    select count(*) >= 10000
    from (select from tollgate.security_events e where e.acknowledged_at is null and e.subject_kind = 'address' limit 10000) e
  );
  seen record;
  in_hour bigint;
begin
  for seen in
    select
      g.kind,
      case when k.id is null then 'address' else 'key' end as subject_kind,
      case
        when k.id is not null then k.id
        when crowded and not exists (
          select from tollgate.security_events e
          where e.kind = g.kind and e.subject_kind = 'address' and e.subject = g.address and e.acknowledged_at is null
        ) then 'others'
        else coalesce(g.address, 'unknown')
      end as subject,
      k.org_id,
      k.id as key_id,
      greatest(g.times, 1) as times,
      least(g.first_seen, moment) as first_seen,
      least(g.last_seen, moment) as last_seen,
      jsonb_strip_nulls(jsonb_build_object('code', g.code, 'address', g.address)) as details
    from jsonb_to_recordset(refusals) g (
      kind text, code text, key_id text, digest text, address text, times bigint,
      first_seen timestamptz, last_seen timestamptz
    )
    left join lateral (
      select k.id, k.org_id from tollgate.api_keys k
      where k.id = g.key_id or (g.key_id is null and k.digest = decode(g.digest, 'hex'))
    ) k on true
    where g.kind in ('authentication_failed', 'limit_exceeded', 'ip_refused')
    order by 1, 2, 3
  loop
    in_hour := tollgate.raise_event(
      seen.kind, seen.subject_kind, seen.subject, seen.org_id, seen.key_id,
      seen.times, seen.first_seen, seen.last_seen, seen.details
    );
    if seen.kind = 'authentication_failed' and seen.subject_kind = 'address' and in_hour > 100 then
      perform tollgate.raise_event(
        'many_failures', 'address', seen.subject, null, null,
        least(seen.times, in_hour - 100), seen.last_seen, seen.last_seen, jsonb_build_object('in_hour', in_hour)
      );
    end if;
  end loop;
end
$$;

comment on function tollgate.count_refusals(jsonb) is
  'Raises events for refusals: kind, code, key_id or digest, address, times, first_seen, last_seen. The subject is the key where there is one, otherwise the address. An address with more than a hundred failures in an hour raises many_failures as well, which counts those beyond. Locks the events.';


create function tollgate.record_refused_access(trespasses jsonb) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.audit_events (
    actor_kind, actor_key_id, actor_user_id, org_id, action, target_id, outcome, ip, user_agent, request_id, details
  )
  select
    'key', k.id, k.user_id, k.org_id, 'access.refused', t.target, 'refused', t.ip, t.user_agent, t.request_id,
    jsonb_build_object('count', t.times)
  from jsonb_to_recordset(trespasses) t (
    key_id text, target text, times bigint, ip inet, user_agent text, request_id text
  )
  join tollgate.api_keys k on k.id = t.key_id
  where not exists (
    select from tollgate.audit_events a
    where a.target_id = t.target and a.action = 'access.refused' and a.actor_key_id = k.id
      and a.occurred_at > clock_timestamp() - interval '1 hour'
  )
$$;

comment on function tollgate.record_refused_access(jsonb) is
  'Records calls of operators'' routes by other keys in the audit trail: key_id, target (method and route), times, ip, user_agent, request_id. Once an hour for a key and a target, so that nobody can fill the trail. Locks nothing.';


create function tollgate.count_networks(uses jsonb) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.key_networks as n (key_id, network, first_seen_at, last_seen_at)
  select u.key_id, u.network, least(u.seen, clock_timestamp()), least(u.seen, clock_timestamp())
  from (
    select u.key_id, u.network, max(u.seen) as seen, row_number() over (partition by u.key_id order by u.network) as place
    from jsonb_to_recordset(uses) u (key_id text, network cidr, seen timestamptz)
    group by u.key_id, u.network
  ) u
  join tollgate.api_keys k on k.id = u.key_id
  where u.place + (select count(*) from tollgate.key_networks o where o.key_id = u.key_id) <= 200
    or exists (select from tollgate.key_networks o where o.key_id = u.key_id and o.network = u.network)
  order by u.key_id, u.network
  on conflict (key_id, network) do update set last_seen_at = greatest(n.last_seen_at, excluded.last_seen_at)
$$;

comment on function tollgate.count_networks(jsonb) is 'Stores the networks from which keys were used: key_id, network, seen. Locks the rows, in order.';


create function public.tollgate_write_security_counts(
  refusals jsonb,
  trespasses jsonb,
  uses jsonb,
  refused_calls jsonb default '[]',
  spreads jsonb default '[]'
) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform tollgate.count_networks(uses);
  perform tollgate.record_refused_access(trespasses);
  perform tollgate.count_refusals(refusals);
  perform tollgate.count_refused_calls(refused_calls);
  perform tollgate.count_spreads(spreads);
  return '{"noted": true}';
end
$$;

comment on function public.tollgate_write_security_counts(jsonb, jsonb, jsonb, jsonb, jsonb) is
  'Writes the security counters of a server: refusals, calls of operators'' routes by other keys, networks from which keys were used, refused paid calls, and spreads. Refuses nothing. Locks the security events, networks and spreads it writes, in order, and as count_refused_calls().';

select tollgate.expose('public.tollgate_write_security_counts(jsonb, jsonb, jsonb, jsonb, jsonb)');


-- schemas/14_security/spreads.sql

-- How widely keys and addresses did something in an hour: with how many different ids, models, requests, networks.
--
-- A row has a bit for each of 512 hashes instead of the things themselves, so it has the same size whatever a client
-- sends, and the counts of several servers add up to those of one.

create function tollgate.different(marks bit) returns integer
language sql
immutable
set search_path = ''
as $$
  select round(-length(marks) * ln(1 - least(bit_count(marks), length(marks) - 0.5) / length(marks)))::integer
$$;

comment on function tollgate.different(bit) is
  'How many different things set these marks, by linear counting: within a tenth up to a thousand, about 3,500 when all are set.';


create function tollgate.count_spreads(spreads jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  moment constant timestamptz := clock_timestamp();
  seen record;
begin
  for seen in
    select g.kind, coalesce(k.id, g.address) as subject, date_trunc('hour', least(g.last_seen, moment), 'UTC') as hour,
      coalesce(g.about, '') as about, coalesce(k.org_id, '') as org_id, sum(greatest(g.times, 1)) as times,
      bit_or(('x' || g.marks)::bit(512)) as marks, max(least(g.last_seen, moment)) as last_seen
    from jsonb_to_recordset(spreads) g (
      kind text, key_id text, digest text, address text, about text, times bigint, marks text, last_seen timestamptz
    )
    left join lateral (
      select k.id, k.org_id from tollgate.api_keys k
      where k.id = g.key_id or (g.key_id is null and k.digest = decode(g.digest, 'hex'))
    ) k on true
    where coalesce(k.id, g.address) is not null
    group by 1, 2, 3, 4, 5
    order by 1, 2, 3, 4
  loop
    insert into tollgate.spreads as s (kind, subject, hour, about, org_id, times, marks, last_seen_at)
    select seen.kind, seen.subject, seen.hour, seen.about, seen.org_id, seen.times, seen.marks, seen.last_seen
    where exists (
      select from tollgate.spreads o
      where o.kind = seen.kind and o.subject = seen.subject and o.hour = seen.hour and o.about = seen.about
    ) or (
      select count(*) from tollgate.spreads o
      where o.hour = seen.hour and o.kind = seen.kind and o.org_id = seen.org_id
    ) < case seen.org_id when '' then 1000 else 100 end
    on conflict (kind, subject, hour, about) do update set
      times = s.times + excluded.times,
      marks = s.marks | excluded.marks,
      last_seen_at = greatest(s.last_seen_at, excluded.last_seen_at);
  end loop;
end
$$;

comment on function tollgate.count_spreads(jsonb) is
  'Adds to the spreads: kind, key_id or digest or address, about, times, marks (128 hexadecimal digits), last_seen. Those beyond the most rows of an hour are left out. Locks the rows, in order.';


create function tollgate.drop_old_spreads(as_of timestamptz) returns void
language sql
set search_path = ''
as $$
  delete from tollgate.spreads s where s.ctid = any (array(
    select o.ctid from tollgate.spreads o
    where o.hour < as_of - interval '8 days'
    order by o.hour
    limit 10000
    for update skip locked
  ))
$$;

comment on function tollgate.drop_old_spreads(timestamptz) is 'Deletes up to 10,000 spreads that are older than 8 days.';


create function tollgate.usual_spread(kind text, subject text, as_of timestamptz) returns integer
language sql
stable
set search_path = ''
as $$
  with hours as materialized (
    select s.hour, tollgate.different(s.marks) as different
    from tollgate.spreads s
    where s.kind = usual_spread.kind and s.subject = usual_spread.subject and s.about = ''
      and s.hour < as_of - interval '20 hours' and s.hour >= as_of - interval '8 days'
  )
  select greatest(
    (select h.different from hours h order by h.different desc offset 7 limit 1),
    (
      select max(h.different) from hours h
      where usual_spread.subject <> 'installation'
        and (extract(hour from h.hour at time zone 'UTC') - extract(hour from as_of at time zone 'UTC') + 25)::integer % 24 <= 2
    ),
    0
  )
$$;

comment on function tollgate.usual_spread(text, text, timestamptz) is
  'With how many different things a subject does this in an hour by its habit of a week: in all but its seven widest hours, so that an attack makes no habit; and of a key or address, at most at this time of day, so that a nightly job does. The last 20 hours are no habit yet.';


-- schemas/15_account/balance.sql

-- The balance of the caller's org.

create function public.tollgate_balance(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller);
begin
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'org_id', o.id,
      'user_id', actor.user_id,
      'prefix', k.prefix,
      'last_four', k.last_four,
      'environment', actor.environment,
      'balance_nanos', o.balance_nanos,
      'held_nanos', o.held_nanos,
      'plan', o.plan_id,
      'status', o.status
    )
    from tollgate.orgs o
    left join tollgate.api_keys k on k.id = actor.key_id
    where o.id = actor.org_id
  );
end
$$;

comment on function public.tollgate_balance(jsonb) is
  'The balance of the caller''s org. Refuses: as recognise(). Locks nothing of the org.';

select tollgate.expose('public.tollgate_balance(jsonb)');


-- schemas/15_account/limits.sql

-- The plan and the limits of the caller.

create function public.tollgate_own_plan(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller);
begin
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'id', p.id,
      'name', p.name,
      'description', p.description,
      'org_id', o.id,
      'own_limits', o.limits is distinct from null,
      'limits', to_jsonb(tollgate.limits_of(o)),
      'max_concurrent_requests', tollgate.bound_of(o)
    )
    from tollgate.orgs o
    join tollgate.plans p on p.id = o.plan_id
    where o.id = actor.org_id
  );
end
$$;

comment on function public.tollgate_own_plan(jsonb) is
  'The plan of the caller''s org, with the limits in force. It has no markup, which would tell what we paid. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_own_plan(jsonb)');


create function tollgate.limits_around(actor tollgate.caller, key tollgate.api_keys, moment timestamptz) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'org', tollgate.windows(o.counters, tollgate.limits_of(o), tollgate.ms_of(moment))
      || jsonb_build_object('concurrent', tollgate.concurrent(tollgate.bound_of(o), o.open_requests)),
    'user', case when not u.limits is null then tollgate.windows(u.counters, u.limits, tollgate.ms_of(moment)) end,
    'key', case when key.counted or key.max_concurrent_requests is not null then
      tollgate.windows(key.counters, key.limits, tollgate.ms_of(moment))
      || jsonb_build_object('concurrent', case when key.max_concurrent_requests is not null then
        tollgate.concurrent(key.max_concurrent_requests, key.open_requests)
      end)
    end
  )
  from tollgate.orgs o, tollgate.users u
  where o.id = actor.org_id and u.id = actor.user_id
$$;

comment on function tollgate.limits_around(tollgate.caller, tollgate.api_keys, timestamptz) is
  'The windows and open requests of the caller''s org, the windows of its user if that has limits, and those of the key if it has limits, a bound, a budget or a quota of its own; requests of other keys are counted for the org alone.';


create function public.tollgate_own_limits(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller);
  moment constant timestamptz := clock_timestamp();
begin
  return (
    select tollgate.limits_around(actor, k, moment)
      || jsonb_build_object(
        'caller', tollgate.identity(actor),
        'at', tollgate.utc(moment),
        'models', jsonb_build_object(
          'default_model', o.default_model,
          'allowed_of_org', to_jsonb(o.allowed_models),
          'allowed_of_key', to_jsonb(k.allowed_models)
        )
      )
    from tollgate.orgs o
    left join tollgate.api_keys k on k.id = actor.key_id
    where o.id = actor.org_id
  );
end
$$;

comment on function public.tollgate_own_limits(jsonb) is
  'What the limits of the caller''s org, user and key leave: see limits_around(); and its models: those that org and key may use (null is all), and the org''s default (null is the setting). Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_own_limits(jsonb)');


-- schemas/15_account/profile.sql

-- The profile of the caller.

create function tollgate.profile_of(actor tollgate.caller) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'caller', tollgate.identity(actor),
    'user_id', u.id,
    'name', u.name,
    'email', u.email,
    'role', u.role,
    'status', u.status,
    'org_id', o.id,
    'org_name', o.name,
    'plan', o.plan_id,
    'prefix', k.prefix,
    'last_four', k.last_four,
    'environment', actor.environment,
    'scopes', actor.scopes,
    'created_at', tollgate.utc(u.created_at),
    'updated_at', tollgate.utc(u.updated_at)
  )
  from tollgate.users u
  join tollgate.orgs o on o.id = u.org_id
  left join tollgate.api_keys k on k.id = actor.key_id
  where u.id = actor.user_id
$$;

comment on function tollgate.profile_of(tollgate.caller) is 'The caller''s user and, where the caller has one, key.';


create function public.tollgate_own_profile(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
begin
  return tollgate.profile_of(tollgate.recognise(caller));
end
$$;

comment on function public.tollgate_own_profile(jsonb) is
  'The caller''s own profile. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_own_profile(jsonb)');


create function public.tollgate_change_own_profile(caller jsonb, changes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'keys', touch => false);
  was tollgate.users;
  person tollgate.users;
  details jsonb;
begin
  select u.* into was from tollgate.users u where u.id = actor.user_id for no key update;
  person := was;
  person.name := coalesce(changes ->> 'name', was.name);
  person.email := coalesce(changes ->> 'email', was.email);
  details := tollgate.what_changed(to_jsonb(was), to_jsonb(person));
  if details <> '{}' then
    begin
      update tollgate.users u set name = person.name, email = person.email, updated_at = now() where u.id = was.id;
    exception when unique_violation then
      perform tollgate.refuse_taken_email(person.email);
    end;
    perform tollgate.record(actor, 'user.updated', was.org_id, was.id, details);
  end if;
  perform tollgate.touch(k, caller) from tollgate.api_keys k where k.id = actor.key_id;
  return tollgate.profile_of(actor);
end
$$;

comment on function public.tollgate_change_own_profile(jsonb, jsonb) is
  'Changes the name and the email of the caller; other fields of `changes` are ignored. Needs the scope keys, so that a key that only calls models cannot rename its owner. A repetition changes and records nothing. Refuses: as recognise(), conflict. Locks the user, the key.';

select tollgate.expose('public.tollgate_change_own_profile(jsonb, jsonb)');


-- schemas/15_backups/backups.sql

-- Backups: note one that was created or verified, and list them.

create function public.tollgate_note_backup(caller jsonb, backup jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  given tollgate.backups := jsonb_populate_record(null::tollgate.backups, backup);
begin
  insert into tollgate.backups (digest, file, bytes, created_at, made_here, as_of)
  values (given.digest, given.file, given.bytes, now(), true, given.as_of);
  perform tollgate.record(
    actor, 'backup.created', null, given.digest, jsonb_build_object('file', given.file, 'bytes', given.bytes)
  );
  return jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_note_backup(jsonb, jsonb) is
  'Notes a backup that was created: digest, file, bytes, as_of. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_note_backup(jsonb, jsonb)');


create function public.tollgate_note_verification(caller jsonb, backup jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  given tollgate.backups := jsonb_populate_record(null::tollgate.backups, backup);
begin
  insert into tollgate.backups as b (
    digest, file, bytes, created_at, made_here, as_of, schema_version, verified_at, is_sound, faults, counts
  )
  values (
    given.digest, given.file, given.bytes, now(), false, given.as_of, given.schema_version, now(), given.is_sound, given.faults,
    given.counts
  )
  on conflict on constraint backups_pkey do update set
    file = excluded.file, as_of = coalesce(excluded.as_of, b.as_of), schema_version = excluded.schema_version,
    verified_at = excluded.verified_at, is_sound = excluded.is_sound, faults = excluded.faults,
    counts = excluded.counts;
  perform tollgate.record(actor, 'backup.verified', null, given.digest, jsonb_build_object(
    'file', given.file, 'is_sound', given.is_sound
  ));
  return jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_note_verification(jsonb, jsonb) is
  'Notes what the verification of a backup found: digest, file, bytes, as_of, schema_version, is_sound, faults, counts. The backup need not have been created here. For admins. Refuses: as recognise(). Locks the row of the backup.';

select tollgate.expose('public.tollgate_note_verification(jsonb, jsonb)');


create function tollgate.backup_shown(b tollgate.backups) returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(b) || jsonb_build_object(
    'id', b.digest,
    'created_at', tollgate.utc(b.created_at),
    'taken_at', tollgate.utc(b.as_of),
    'verified_at', tollgate.utc(b.verified_at)
  )
$$;

comment on function tollgate.backup_shown(tollgate.backups) is 'A backup as operators see it.';


create function public.tollgate_backups(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.backups',
    'tollgate.backup_shown',
    $where$
      ($1 ->> 'is_sound' is null or e.is_sound = ($1 ->> 'is_sound')::boolean)
    $where$,
    '{"created_at": "e.created_at"}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters,
    page_size,
    id => 'e.digest'
  );
end
$$;

comment on function public.tollgate_backups(jsonb, jsonb, integer) is
  'Backups. `filters`: is_sound, sort (created_at), cursor, offset. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_backups(jsonb, jsonb, integer)');


create function public.tollgate_backup(caller jsonb, digest text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_one tollgate.backups;
begin
  select b.* into found_one from tollgate.backups b where b.digest = tollgate_backup.digest;
  if not found then
    perform tollgate.refuse_missing('backup', digest);
  end if;
  return tollgate.backup_shown(found_one) || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_backup(jsonb, text) is
  'One backup. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_backup(jsonb, text)');


create function tollgate.newest_moment() returns timestamptz
language sql
stable
set search_path = ''
as $$
  select nullif(greatest(
    (select max(r.created_at) from tollgate.requests r),
    (select t.created_at from tollgate.transfers t order by t.position desc limit 1),
    (select max(a.occurred_at) from tollgate.audit_events a),
    (select r.marked_at from tollgate.rolled r)
  ), '-infinity')
$$;

comment on function tollgate.newest_moment() is
  'The newest moment that the rows tell of: of a backup, when it was taken. A server that sweeps moves it every quarter of a minute.';


create function public.tollgate_moment_of_books() returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select jsonb_build_object('as_of', tollgate.utc(tollgate.newest_moment()))
$$;

comment on function public.tollgate_moment_of_books() is 'The newest moment that the rows tell of. Refuses nothing, locks nothing.';

select tollgate.expose('public.tollgate_moment_of_books()');


create function tollgate.backup_readings(as_of timestamptz) returns table (signal text, subject text, value numeric)
language sql
stable
set search_path = ''
as $$
  select 'days_since_verified_backup', 'installation',
    greatest(0, round(extract(epoch from backup_readings.as_of - s.since) / 86400, 3))
  from (
    select coalesce(
      (select max(coalesce(b.as_of, b.created_at)) from tollgate.backups b where b.is_sound),
      (select min(o.created_at) from tollgate.orgs o)
    ) as since
  ) s
  where s.since is not null
$$;

comment on function tollgate.backup_readings(timestamptz) is
  'Readings for alerts: how many days ago the newest backup that is sound was taken; where none is, the days since the first org was made. No reading before there is one.';


-- schemas/15_processes/samples.sql

-- Process samples: written in the sweeper's round, shown to operators, read by rules.

create function public.tollgate_record_process(process text, sample jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  dropped bigint;
begin
  insert into tollgate.process_samples (process, sample)
  select tollgate_record_process.process, tollgate_record_process.sample
  where sample is not null and not exists (
    select from tollgate.process_samples s
    where s.process = tollgate_record_process.process and s.sampled_at > now() - interval '50 seconds'
  )
  on conflict do nothing;
  delete from tollgate.process_samples s where (s.process, s.sampled_at) in (
    select o.process, o.sampled_at from tollgate.process_samples o where o.sampled_at < now() - interval '24 hours'
    order by o.sampled_at limit page_size for update skip locked
  );
  get diagnostics dropped = row_count;
  return jsonb_build_object('dropped', dropped, 'more', dropped >= page_size);
end
$$;

comment on function public.tollgate_record_process(text, jsonb, integer) is
  'Adds a sample of a process, unless its last is of this minute or the sample is null, and deletes samples that are older than a day; called again while it answers "more". Refuses nothing. Skips rows that are locked.';

select tollgate.expose('public.tollgate_record_process(text, jsonb, integer)');


create function tollgate.process_readings(as_of timestamptz)
returns table (signal text, subject text, value numeric)
language sql
stable
set search_path = ''
as $$
  with last_ones as (
    select distinct on (s.process) s.process, s.sample
    from tollgate.process_samples s
    where s.sampled_at > as_of - interval '3 minutes' and s.sampled_at <= as_of
    order by s.process, s.sampled_at desc
  )
  select r.signal, l.process, round(100 * r.used / nullif(r.total, 0), 1)
  from last_ones l
  cross join lateral (values
    ('process_memory_percent', (l.sample ->> 'memory_used_bytes')::numeric, (l.sample ->> 'memory_total_bytes')::numeric),
    ('process_disk_percent', (l.sample ->> 'disk_used_bytes')::numeric, (l.sample ->> 'disk_total_bytes')::numeric)
  ) r (signal, used, total)
  where r.used is not null and r.total > 0
$$;

comment on function tollgate.process_readings(timestamptz) is
  'How full the memory and the disk of each process are, by its last sample of the three minutes before.';


create function public.tollgate_processes(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor), 'processes', coalesce((
    select jsonb_agg(jsonb_build_object('process', l.process, 'sampled_at', l.sampled_at, 'sample', l.sample)
      order by l.process)
    from (
      select distinct on (s.process) s.process, s.sampled_at, s.sample
      from tollgate.process_samples s where s.sampled_at > now() - interval '10 minutes'
      order by s.process, s.sampled_at desc
    ) l
  ), '[]'));
end
$$;

comment on function public.tollgate_processes(jsonb) is
  'The last sample of each process that wrote one in the last ten minutes. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_processes(jsonb)');


create function public.tollgate_process_trends(caller jsonb, process text, minutes integer, step_seconds integer)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  if not exists (select from tollgate.process_samples s where s.process = tollgate_process_trends.process) then
    perform tollgate.refuse_missing('process', process);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'process', process, 'samples', (
    select coalesce(jsonb_agg(b.sample || jsonb_build_object('ts', b.ts, 'sampled_at', b.sampled_at) order by b.ts), '[]')
    from (
      select distinct on (1) floor(extract(epoch from s.sampled_at) / step_seconds)::bigint * step_seconds as ts,
        s.sample, s.sampled_at
      from tollgate.process_samples s
      where s.process = tollgate_process_trends.process and s.sampled_at > now() - make_interval(mins => minutes)
      order by 1, s.sampled_at desc
    ) b
  ));
end
$$;

comment on function public.tollgate_process_trends(jsonb, text, integer, integer) is
  'The samples of a process in the last minutes, the last one of each step, with the beginning of the step in seconds since the epoch. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_process_trends(jsonb, text, integer, integer)');


-- schemas/15_reconciliation/books.sql

-- What our books say of a day at OpenRouter, and which of its requests may cost something else there.

create function public.tollgate_books_of_day(day text) returns jsonb
language sql
stable
security definer
set search_path = ''
set jit = off
as $$
  select jsonb_build_object('models', coalesce(jsonb_agg(jsonb_build_object(
    'model', u.model,
    'requests', u.requests,
    'tokens', u.prompt_tokens + u.completion_tokens,
    'cost_nanos', u.cost_nanos
  ) order by u.model), '[]'))
  from tollgate.usage_by(
    '{model}',
    day::date::timestamp at time zone 'UTC',
    (day::date + 1)::timestamp at time zone 'UTC',
    '{"upstream": "openrouter"}'
  ) u
  where u.requests > 0
$$;

comment on function public.tollgate_books_of_day(text) is
  'What each model cost us at OpenRouter on a day (UTC), from the tallies, and from requests where nothing is rolled up. Refuses nothing, locks nothing.';

select tollgate.expose('public.tollgate_books_of_day(text)');


create function public.tollgate_causes_of_difference(day text, since text, until text, examples integer) returns jsonb
language sql
stable
security definer
set search_path = ''
set jit = off
as $$
  with doubtful as (
    select c.cause, r.model, coalesce(r.served_model, r.model) as served_model, r.id, r.generation_id,
      coalesce(r.cost_nanos, 0) as cost_nanos, r.hold_nanos,
      row_number() over (
        partition by c.cause, r.model, coalesce(r.served_model, r.model)
        order by greatest(r.hold_nanos, coalesce(r.cost_nanos, 0)) desc, r.id
      ) as place
    from tollgate.requests r
    cross join (values (day::date::timestamp at time zone 'UTC', (day::date + 1)::timestamp at time zone 'UTC')) d (beginning, ending)
    cross join lateral (select case -- here, since a function would be called for each request
      when r.is_byok or r.cached then null -- not with our key, or not sent
      when r.created_at < d.beginning then case
        when r.settled_at >= d.beginning and r.cost_nanos > 0 then 'day_before'
      end
      when r.settled_at is null then 'open'
      when r.upstream is null then case when r.basis = 'no_trace' then 'no_trace' end
      when r.state = 'released' then case when r.generation_id is not null or r.basis = 'no_record' then 'no_record' end
      when r.quarantined then 'at_the_hold'
      when r.estimated then 'estimated'
      when r.settled_at >= d.ending and r.cost_nanos > 0 then 'next_day'
      when r.usage -> 'is_byok' = 'true' then 'account_key'
      when r.served_model <> r.model then 'other_model'
    end as cause) c
    where r.created_at >= since::timestamptz and r.created_at < until::timestamptz
      and (r.upstream = 'openrouter' or r.upstream is null)
      and c.cause is not null
  ),
  groups as (
    select d.cause, d.model, d.served_model, count(*) as requests, sum(d.cost_nanos) as cost_nanos,
      sum(case when d.cause in ('no_trace', 'open', 'no_record', 'estimated', 'at_the_hold') then greatest(d.hold_nanos, d.cost_nanos)
        else d.cost_nanos end) as most_nanos,
      jsonb_agg(jsonb_build_object(
        'id', d.id, 'generation_id', d.generation_id, 'cost_nanos', d.cost_nanos, 'hold_nanos', d.hold_nanos
      ) order by d.place) filter (where d.place <= examples) as examples
    from doubtful d
    group by d.cause, d.model, d.served_model
  )
  select jsonb_build_object('causes', coalesce(jsonb_agg(to_jsonb(g) order by g.model, g.cause, g.served_model), '[]'))
  from groups g
$$;

comment on function public.tollgate_causes_of_difference(text, text, text, integer) is
  'The requests admitted in a span of a day that OpenRouter may state otherwise, by cause, model and the model that served them: how many, what they cost by our books, the most that they can cost, and the dearest of them. Reads the requests of the span. Refuses nothing, locks nothing.';

select tollgate.expose('public.tollgate_causes_of_difference(text, text, text, integer)');


-- schemas/15_reconciliation/days.sql

-- Days: which one is due, its outcome, and what operators see of it.

create function public.tollgate_lease_reconciliation(as_of text, lease_seconds integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  moment constant timestamptz := as_of;
  -- OpenRouter states a day only when it is over; it has six hours for that.
  newest constant date := (moment - interval '6 hours') at time zone 'UTC';
  leased date;
begin
  insert into tollgate.reconciliations (day)
  select newest - n from generate_series(1, 3) n
  where exists (select from tollgate.orgs o where o.created_at < (newest - n)::timestamp at time zone 'UTC')
  on conflict do nothing;
  update tollgate.reconciliations r set leased_until = moment + make_interval(secs => lease_seconds)
  where r.day = (
    select d.day from tollgate.reconciliations d
    where d.day between newest - 3 and newest - 1
      and (d.leased_until is null or d.leased_until <= moment)
      and (d.reconciled_at is null or d.reconciled_at <= moment - interval '23 hours')
      and (d.failed_at is null or d.failed_at <= moment - interval '1 hour')
    order by d.day desc
    limit 1
    for update skip locked
  )
  returning r.day into leased;
  return jsonb_build_object('day', leased);
end
$$;

comment on function public.tollgate_lease_reconciliation(text, integer) is
  'Leases one day to one server: of the last three that are over since six hours, the newest that was not reconciled within 23 hours, nor tried within one. So each is reconciled three times, and what is settled or corrected later is seen. Days before the first org are left out. Answers {"day": null} when none is due. Refuses nothing. Locks the row of the day, and skips locked ones.';

select tollgate.expose('public.tollgate_lease_reconciliation(text, integer)');


create function public.tollgate_ask_for_reconciliation(caller jsonb, day text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  perform tollgate.record(actor, 'reconciliation.run', null, day, '{}');
  return jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_ask_for_reconciliation(jsonb, text) is
  'Records that an operator has a day reconciled. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_ask_for_reconciliation(jsonb, text)');


create function public.tollgate_keep_reconciliation(day text, outcome jsonb, as_of text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  kept tollgate.reconciliations;
begin
  insert into tollgate.reconciliations as r (day) values (tollgate_keep_reconciliation.day::date)
  on conflict on constraint reconciliations_pkey do update set leased_until = null
  returning r.* into kept;
  if outcome ? 'failure' then
    update tollgate.reconciliations r set failed_at = as_of::timestamptz, failure = outcome ->> 'failure' where r.day = kept.day;
    return '{"kept": true}';
  end if;
  kept := jsonb_populate_record(kept, outcome - 'models');
  update tollgate.reconciliations r set
    reconciled_at = as_of::timestamptz, failed_at = null, failure = null, verdict = kept.verdict, tolerance_ppm = kept.tolerance_ppm,
    our_requests = kept.our_requests, their_requests = kept.their_requests,
    our_cost_nanos = kept.our_cost_nanos, their_cost_nanos = kept.their_cost_nanos
  where r.day = kept.day;
  delete from tollgate.reconciled_models m where m.day = kept.day;
  insert into tollgate.reconciled_models
  select (jsonb_populate_record(null::tollgate.reconciled_models, m.value || jsonb_build_object('day', kept.day))).*
  from jsonb_array_elements(outcome -> 'models') m;
  return '{"kept": true}';
end
$$;

comment on function public.tollgate_keep_reconciliation(text, jsonb, text) is
  'Keeps the outcome of a day in place of the one before: verdict, totals and `models`; or, as {"failure": …}, why there is none, which leaves the one before. Ends the lease. Refuses nothing. Locks the row of the day.';

select tollgate.expose('public.tollgate_keep_reconciliation(text, jsonb, text)');


create function tollgate.difference_ppm(r tollgate.reconciliations) returns bigint
language sql
immutable
set search_path = ''
as $$
  select case when r.our_cost_nanos = r.their_cost_nanos then 0
    else ceil(abs(r.their_cost_nanos - r.our_cost_nanos) * 1000000::numeric / greatest(r.their_cost_nanos, r.our_cost_nanos))
  end::bigint
$$;

comment on function tollgate.difference_ppm(tollgate.reconciliations) is
  'How far the totals of a day are apart, in millionths of the larger one; null before it is reconciled.';


create function tollgate.reconciliation_shown(r tollgate.reconciliations) returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(r) - array['leased_until', 'reconciled_at', 'failed_at'] || jsonb_build_object(
    'id', r.day,
    'difference_nanos', r.their_cost_nanos - r.our_cost_nanos,
    'difference_ppm', case when r.verdict is not null then tollgate.difference_ppm(r) end,
    'reconciled_at', tollgate.utc(r.reconciled_at),
    'failed_at', tollgate.utc(r.failed_at)
  )
$$;

comment on function tollgate.reconciliation_shown(tollgate.reconciliations) is 'A day as operators see it.';


create function public.tollgate_reconciliations(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.reconciliations',
    'tollgate.reconciliation_shown',
    $where$
      ($1 ->> 'verdict' is null or e.verdict = $1 ->> 'verdict')
    $where$,
    '{"day": "e.day"}',
    coalesce(filters ->> 'sort', 'day:desc'),
    filters,
    page_size,
    id => 'e.day::text'
  );
end
$$;

comment on function public.tollgate_reconciliations(jsonb, jsonb, integer) is
  'Days that were reconciled, or should have been. `filters`: verdict, sort (day), cursor, offset. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_reconciliations(jsonb, jsonb, integer)');


create function public.tollgate_reconciliation(caller jsonb, day text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_day tollgate.reconciliations;
begin
  select r.* into found_day from tollgate.reconciliations r where r.day = tollgate_reconciliation.day::date;
  if not found then
    perform tollgate.refuse_missing('reconciliation', tollgate_reconciliation.day);
  end if;
  return tollgate.reconciliation_shown(found_day) || jsonb_build_object(
    'caller', tollgate.identity(actor),
    'models', (
      select coalesce(jsonb_agg(to_jsonb(m) - 'day' || jsonb_build_object(
        'difference_nanos', m.their_cost_nanos - m.our_cost_nanos
      ) order by abs(m.their_cost_nanos - m.our_cost_nanos) desc, m.model), '[]')
      from tollgate.reconciled_models m where m.day = found_day.day
    )
  );
end
$$;

comment on function public.tollgate_reconciliation(jsonb, text) is
  'One day with its models, the largest difference first. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_reconciliation(jsonb, text)');


create function tollgate.reconciliation_readings(as_of timestamptz) returns table (signal text, subject text, value numeric)
language sql
stable
set search_path = ''
as $$
  select 'reconciliation_difference_ppm', r.day::text,
    case when r.verdict = 'agrees' then 0 else tollgate.difference_ppm(r) end::numeric
  from tollgate.reconciliations r
  where r.verdict is not null and r.reconciled_at <= as_of
  order by r.day desc
  limit 3
$$;

comment on function tollgate.reconciliation_readings(timestamptz) is
  'Readings for alerts: how far the totals of the last three days that were reconciled are apart; 0 within the tolerance.';


-- schemas/15_spend/habits.sql

-- What orgs and keys spend beside what is usual for them.

create function tollgate.usual_spend(busy tollgate.usage, hour timestamptz) returns numeric
language plpgsql
stable
set search_path = ''
as $$
declare
  whose constant text := format('t.org_id = %L', busy.org_id)
    || case when busy.key_id is not null then format(' and t.user_id = %L and t.key_id = %L', busy.user_id, busy.key_id) else '' end;
  usual numeric;
begin
  execute format(
    $query$
      with days as (
        select count(distinct t.start) as used, min(t.start) as since, sum(t.charge_nanos) as nanos
        from tollgate.tallies t
        where t.cut = 'day_key' and %1$s and t.start = any (array(
          select date_trunc('day', $1, 'UTC') - make_interval(days => d) from generate_series(1, 15) d
        ))
      ),
      hours as (
        select t.start, sum(t.charge_nanos) as nanos
        from tollgate.tallies t
        where t.cut = 'hour' and %1$s and t.start = any (array(
          select $1 - make_interval(days => d, hours => h) from generate_series(1, 28) d, generate_series(-1, 1) h
          where d <= 15 or d %% 7 = 0
        ))
        group by t.start
      ),
      peaks as (
        select d, max(h.nanos) as nanos
        from generate_series(1, 28) d
        join hours h on h.start between $1 - make_interval(days => d, hours => 1) and $1 - make_interval(days => d, hours => -1)
        group by d
      )
      select greatest(
        (select p.nanos from peaks p where p.d <= 15 order by p.nanos desc offset least(d.used / 5, 2) limit 1),
        (select p.nanos from peaks p where p.d %% 7 = 0 order by p.nanos desc offset 1 limit 1),
        d.nanos / (24 * d.used)
      )
      from days d
      where d.used >= 3 and d.since <= $1 - interval '7 days'
    $query$,
    whose
  ) into usual using hour;
  return usual;
end
$$;

comment on function tollgate.usual_spend(tollgate.usage, timestamptz) is
  'What an org or one of its keys may spend in an hour by its habit: the third highest peak at this time of day in 15 days, the second highest at this hour of the week in four weeks (an hour before or after included), and at least its mean hour. So one or two odd days make no habit, and a weekly peak does. Null without three days of use, the first a week ago. Read by the primary key: by time first.';


create function tollgate.highest_spend(of_org text, hour timestamptz) returns numeric
language sql
stable
set search_path = ''
as $$
  select greatest(max(h.nanos), 3e9)
  from (
    select t.start, sum(t.charge_nanos) as nanos
    from tollgate.tallies t
    where t.cut = 'hour' and t.org_id = of_org and t.start = any (array(
      select highest_spend.hour - make_interval(hours => h) from generate_series(24, 191) h
    ))
    group by t.start
  ) h
  having count(distinct date_trunc('day', h.start, 'UTC')) >= 3
$$;

comment on function tollgate.highest_spend(text, timestamptz) is
  'The most that an org spent in one hour of the week that ended a day before, and at least 3 credits; null unless it was used on three days of it.';


create function tollgate.spend_readings(as_of timestamptz) returns table (signal text, subject text, value numeric)
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  this_hour constant timestamptz := date_trunc('hour', as_of, 'UTC');
  least_nanos constant numeric := 1e9; -- what an hour may cost without a look
  newcomer_nanos constant numeric := 20e9; -- the usual hour of who has none yet
  busy tollgate.usage;
  of_org tollgate.usage;
  usual numeric;
begin
  for busy in
    select u.* from tollgate.usage_by('{hour,org}', this_hour - interval '1 hour', as_of) u
    where u.charge_nanos >= least_nanos
    union all
    select u.* from tollgate.usage_by('{hour,org,user,key}', this_hour - interval '1 hour', as_of) u
    where u.charge_nanos >= least_nanos
    order by charge_nanos desc
    limit 100
  loop
    of_org := busy;
    of_org.key_id := null;
    usual := coalesce(
      tollgate.usual_spend(busy, busy.start),
      case when busy.key_id is null then tollgate.highest_spend(busy.org_id, busy.start) end,
      greatest(case when busy.key_id is not null then tollgate.usual_spend(of_org, busy.start) end, newcomer_nanos)
    );
    signal := case when busy.key_id is null then 'org_spend_times_usual' else 'key_spend_times_usual' end;
    subject := coalesce(busy.key_id, busy.org_id);
    value := round(busy.charge_nanos / greatest(usual, least_nanos), 2);
    return next;
  end loop;
end
$$;

comment on function tollgate.spend_readings(timestamptz) is
  'How many times its usual spend each org and key spent in this clock hour and in the one before: of the 100 that spent most, and at least a credit. Usual for a new key is what is usual for its org, for an org without a habit of a week the most that it spent in an hour before, and for a new one 20 credits.';


-- schemas/16_alerts/alerts.sql

-- Alerts as operators see them.

create function tollgate.name_of_subject(subject text) returns text
language sql
stable
set search_path = ''
as $$
  select coalesce(
    (select o.name from tollgate.orgs o where o.id = subject),
    (select k.name from tollgate.api_keys k where k.id = subject),
    (select u.name from tollgate.upstreams u where u.id = subject),
    (select h.name from tollgate.hosts h where h.id = subject),
    (select c.name from tollgate.channels c where c.id = subject)
  )
$$;

comment on function tollgate.name_of_subject(text) is
  'The name of the org, key, upstream, host or channel that an alert is about; null for other subjects, and for those that are gone.';


create function tollgate.alert_shown(a tollgate.alerts) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', a.id,
    'rule_id', a.rule_id,
    'signal', r.signal,
    'comparison', r.comparison,
    'threshold', r.threshold,
    'subject', a.subject,
    'subject_name', tollgate.name_of_subject(a.subject),
    'org_id', a.org_id,
    'severity', a.severity,
    'state', a.state,
    'value', a.value,
    'pending_at', tollgate.utc(a.pending_at),
    'firing_at', tollgate.utc(a.firing_at),
    'resolved_at', tollgate.utc(a.resolved_at),
    'told_at', tollgate.utc(a.told_at),
    'incident_id', a.incident_id,
    'acknowledged_at', tollgate.utc(a.acknowledged_at),
    'acknowledged_by', a.acknowledged_by,
    'note', a.note,
    'silenced', tollgate.is_silenced(a, now())
  )
  from tollgate.alert_rules r
  where r.id = a.rule_id
$$;

comment on function tollgate.alert_shown(tollgate.alerts) is 'An alert as operators see it in a list.';


create function public.tollgate_alerts(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.alerts',
    'tollgate.alert_shown',
    $where$
      ($1 ->> 'state' is null or e.state = $1 ->> 'state')
      and ($1 ->> 'severity' is null or e.severity = $1 ->> 'severity')
      and ($1 ->> 'rule_id' is null or e.rule_id = $1 ->> 'rule_id')
      and ($1 ->> 'subject' is null or e.subject = $1 ->> 'subject')
      and ($1 ->> 'org_id' is null or e.org_id = $1 ->> 'org_id')
      and ($1 ->> 'incident_id' is null or e.incident_id = $1 ->> 'incident_id')
      and ($1 ->> 'acknowledged' is null or (e.acknowledged_at is not null) = ($1 ->> 'acknowledged')::boolean)
      and ($1 ->> 'from' is null or coalesce(e.resolved_at, 'infinity') >= ($1 ->> 'from')::timestamptz)
      and ($1 ->> 'to' is null or e.pending_at < ($1 ->> 'to')::timestamptz)
    $where$,
    jsonb_build_object(
      'pending_at', 'e.pending_at', 'severity', $key$array_position('{info,warning,critical}', e.severity::text)$key$
    ),
    coalesce(filters ->> 'sort', 'pending_at:desc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_alerts(jsonb, jsonb, integer) is
  'Alerts. `filters`: state, severity, rule_id, subject, org_id, incident_id, acknowledged, from (not resolved before), to (pending before), sort (pending_at, severity), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_alerts(jsonb, jsonb, integer)');


create function tollgate.alert_in_full(a tollgate.alerts) returns jsonb
language sql
stable
set search_path = ''
as $$
  select tollgate.alert_shown(a) || jsonb_build_object(
    'rule', tollgate.rule_shown(r),
    'history', (
      select coalesce(jsonb_agg(
        jsonb_build_object('state', h.state, 'value', h.value, 'at', tollgate.utc(h.at)) order by h.position
      ), '[]')
      from tollgate.alert_changes h where h.alert_id = a.id
    )
  )
  from tollgate.alert_rules r
  where r.id = a.rule_id
$$;

comment on function tollgate.alert_in_full(tollgate.alerts) is 'An alert with its rule and its history.';


create function public.tollgate_alert(caller jsonb, alert_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_one tollgate.alerts;
begin
  select a.* into found_one from tollgate.alerts a where a.id = alert_id;
  if not found then
    perform tollgate.refuse_missing('alert', alert_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'alert', tollgate.alert_in_full(found_one));
end
$$;

comment on function public.tollgate_alert(jsonb, text) is
  'One alert with its rule and its history. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_alert(jsonb, text)');


create function public.tollgate_acknowledge_alert(caller jsonb, alert_id text, note text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  a tollgate.alerts;
begin
  update tollgate.alerts o
  set acknowledged_at = now(), acknowledged_by = coalesce(actor.user_id, actor.name), note = tollgate_acknowledge_alert.note
  where o.id = alert_id and o.acknowledged_at is null
  returning o.* into a;
  if found then
    perform tollgate.record(actor, 'alert.acknowledged', a.org_id, a.id, jsonb_strip_nulls(jsonb_build_object(
      'rule_id', a.rule_id, 'subject', a.subject, 'note', a.note
    )));
  else
    select o.* into a from tollgate.alerts o where o.id = alert_id;
    if not found then
      perform tollgate.refuse_missing('alert', alert_id);
    end if;
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'alert', tollgate.alert_in_full(a));
end
$$;

comment on function public.tollgate_acknowledge_alert(jsonb, text, text) is
  'Says that somebody looks after an alert. The first acknowledgement stands: a repetition changes and records nothing. For admins. Refuses: as recognise(), not_found. Locks the alert.';

select tollgate.expose('public.tollgate_acknowledge_alert(jsonb, text, text)');


-- schemas/16_alerts/defaults.sql

-- The rules that are on from the start. alerts/register.py says what each means.

create function tollgate.default_rules() returns setof tollgate.alert_rules
language sql
stable
set search_path = ''
as $$
  select d.id, d.signal, d.comparison, d.threshold, d.clear_threshold, d.for_seconds, d.clear_seconds, d.severity,
    null::text[], 'active', '', now(), now()
  from (values
    ('error_rate', 'error_rate_percent', 'at_least', 10, 5, 120, 300, 'critical'),
    ('latency', 'latency_p95_ms', 'at_least', 120000, 90000, 300, 300, 'warning'),
    ('first_token', 'first_token_p95_ms', 'at_least', 20000, 15000, 300, 300, 'warning'),
    ('upstream_down', 'upstream_down', 'at_least', 1, null, 0, 60, 'critical'),
    ('breaker_open', 'breaker_open', 'at_least', 1, null, 60, 120, 'warning'),
    ('host_silent', 'host_silent_seconds', 'at_least', 120, 60, 60, 60, 'critical'),
    ('catalog_stale', 'catalog_age_seconds', 'at_least', 21600, 3600, 0, 0, 'warning'),
    ('openrouter_credit', 'openrouter_days_left', 'below', 3, 5, 0, 0, 'critical'),
    ('margin_negative', 'margin_percent', 'below', 0, null, 600, 600, 'critical'),
    ('reconciliation', 'reconciliation_difference_ppm', 'at_least', 1000, null, 0, 0, 'critical'),
    ('unsettled', 'unsettled_requests', 'at_least', 100, 50, 600, 300, 'warning'),
    ('expired_holds', 'expired_holds', 'at_least', 1, null, 300, 60, 'critical'),
    ('quarantined', 'quarantined_requests', 'at_least', 1, null, 0, 0, 'critical'),
    ('books', 'books_faults', 'at_least', 1, null, 0, 0, 'critical'),
    ('database_slow', 'database_answer_ms', 'at_least', 2000, 1000, 120, 300, 'warning'),
    ('database_connections', 'database_connections_percent', 'at_least', 85, 75, 120, 300, 'critical'),
    ('database_size', 'database_bytes', 'at_least', 1e12, 9e11, 0, 0, 'warning'),
    ('database_transaction', 'database_transaction_seconds', 'at_least', 3600, null, 0, 0, 'warning'),
    ('backup_old', 'days_since_verified_backup', 'at_least', 7, null, 0, 0, 'critical'),
    ('process_memory', 'process_memory_percent', 'at_least', 90, 80, 300, 300, 'warning'),
    ('process_disk', 'process_disk_percent', 'at_least', 90, 85, 0, 300, 'critical'),
    ('sweeper_paused', 'sweep_pause_seconds', 'at_least', 600, null, 0, 0, 'warning'),
    ('channel_failing', 'channel_failures', 'at_least', 3, 1, 0, 0, 'warning'),
    ('spend_of_org', 'org_spend_times_usual', 'at_least', 5, 2, 0, 600, 'warning'),
    ('spend_of_key', 'key_spend_times_usual', 'at_least', 10, 3, 0, 600, 'warning'),
    ('balance_low', 'balance_days_left', 'below', 1, 2, 0, 0, 'info'),
    ('key_budget_near', 'key_budget_percent', 'at_least', 90, null, 0, 0, 'info'),
    ('key_budget_reached', 'key_budget_percent', 'at_least', 100, null, 0, 0, 'info'),
    ('key_expiring', 'key_days_left', 'below', 7, null, 0, 0, 'info'),
    ('key_new_networks', 'key_new_networks', 'at_least', 5, null, 0, 0, 'warning'),
    ('key_networks', 'key_networks', 'at_least', 20, 10, 0, 600, 'warning'),
    ('refused_address', 'refusals_in_hour', 'at_least', 100, 50, 0, 3600, 'warning'),
    ('limits_hit', 'limits_hit_in_hour', 'at_least', 1000, 500, 0, 3600, 'info'),
    ('credential_stuffing', 'stuffing_addresses', 'at_least', 40, 20, 0, 0, 'critical'),
    ('ids_enumerated', 'missing_ids', 'at_least', 60, 30, 0, 0, 'warning'),
    ('models_read_widely', 'models_read', 'at_least', 100, 50, 0, 0, 'warning'),
    ('models_asked_widely', 'models_asked', 'at_least', 40, 30, 0, 0, 'warning'),
    ('idempotency_keys_reused', 'idempotency_keys_reused', 'at_least', 20, 10, 0, 0, 'warning'),
    ('idempotency_key_shared', 'idempotency_networks', 'at_least', 4, null, 0, 0, 'critical'),
    ('security_event', 'security_events', 'at_least', 1, null, 0, 0, 'warning')
  ) d (id, signal, comparison, threshold, clear_threshold, for_seconds, clear_seconds, severity)
$$;

comment on function tollgate.default_rules() is 'The rules of a new installation, as they are before an operator changes them.';

insert into tollgate.alert_rules select d.* from tollgate.default_rules() d;


-- schemas/16_alerts/readings.sql

-- Readings of this moment, taken in each round: from a bounded number of rows.

create function tollgate.request_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
as $$
  with recent as materialized (
    select r.upstream, r.first_token_ms, r.duration_ms,
      (r.status >= 500 or r.error_code in ('failed_upstream', 'upstream_cut', 'upstream_garbled')) is true as failed
    from tollgate.requests r
    where r.created_at > as_of - interval '5 minutes' and r.created_at <= as_of and r.settled_at is not null
      and r.upstream is distinct from 'sandbox'
    order by r.created_at desc
    limit 5000
  ),
  seen as (
    select coalesce(r.upstream, 'installation') as subject, count(*) as requests, count(*) filter (where r.failed) as failed,
      count(r.duration_ms) filter (where not r.failed) as timed,
      count(r.first_token_ms) filter (where not r.failed) as timed_tokens,
      percentile_disc(0.95) within group (order by r.duration_ms) filter (where not r.failed) as p95_ms,
      percentile_disc(0.95) within group (order by r.first_token_ms) filter (where not r.failed) as first_token_ms
    from recent r
    group by grouping sets ((), (r.upstream))
    having grouping(r.upstream) = 1 or r.upstream is not null
  )
  select k.signal, s.subject, k.value
  from seen s
  cross join lateral (values
    ('error_rate_percent', round(100.0 * s.failed / greatest(s.requests, 1), 2), s.requests),
    ('latency_p95_ms', s.p95_ms::numeric, s.timed),
    ('first_token_p95_ms', s.first_token_ms::numeric, s.timed_tokens)
  ) k (signal, value, requests)
  where k.requests >= 20
$$;

comment on function tollgate.request_readings(timestamptz) is
  'Error rate and latencies of the installation and of each upstream: of the newest 5,000 requests of the last five minutes, where at least 20 say something of it. Calls of test keys do not count.';


create function tollgate.hold_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
as $$
  select k.signal, 'installation', k.value
  from (
    select count(*) filter (where r.state = 'unsettled' and r.created_at < as_of - interval '10 minutes') as unsettled,
      count(*) filter (where r.state = 'held' and r.expires_at < as_of - interval '10 minutes') as expired
    from tollgate.holds h
    join tollgate.requests r on r.id = h.request_id
  ) o
  cross join lateral (values ('unsettled_requests', o.unsettled), ('expired_holds', o.expired)) k (signal, value)
  union all
  select 'quarantined_requests', 'installation', count(*)
  from tollgate.requests r
  where r.quarantined and r.created_at > as_of - interval '24 hours' and r.created_at <= as_of
$$;

comment on function tollgate.hold_readings(timestamptz) is
  'Requests whose cost is unknown for 10 minutes, holds that should have ended 10 minutes ago, and requests of a day that were quarantined.';


create function tollgate.upstream_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
as $$
  select 'upstream_down', u.id::text, (p.failed = 2)::integer::numeric
  from tollgate.upstreams u
  cross join lateral (
    select count(*) filter (where l.status = 'down') as failed
    from (
      select o.status from tollgate.past_probes o
      where o.upstream_id = u.id and o.probed_at > as_of - interval '1 day'
      order by o.probed_at desc
      limit 2
    ) l
    having count(*) > 0
  ) p
  where u.state = 'active'
  union all
  select 'host_silent_seconds', h.id::text, greatest(0, round(extract(epoch from as_of - h.last_seen_at)))
  from tollgate.hosts h
  where h.state = 'active' and h.last_seen_at is not null
$$;

comment on function tollgate.upstream_readings(timestamptz) is
  'Our own upstreams whose last two health checks, of a day, failed, and for how many seconds the agents of hosts are silent.';


create function tollgate.security_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
as $$
  with seen as materialized (
    select e.kind, e.severity, e.subject, e.acknowledged_at, e.last_seen_at,
      case when e.hour = date_trunc('hour', as_of, 'UTC') then e.count_in_hour else 0 end as in_hour
    from tollgate.security_events e
    where e.last_seen_at > as_of - interval '1 hour'
    order by e.last_seen_at desc
    limit 5000
  )
  select case s.kind when 'limit_exceeded' then 'limits_hit_in_hour' else 'refusals_in_hour' end, s.subject, sum(s.in_hour)
  from seen s
  where s.kind in ('limit_exceeded', 'authentication_failed', 'ip_refused')
  group by 1, 2
  union all
  select 'security_events', s.kind, count(*)
  from seen s
  where s.acknowledged_at is null and s.severity <> 'info'
    and s.kind not in ('authentication_failed', 'ip_refused', 'many_networks', 'usage_spike')
  group by s.kind
$$;

comment on function tollgate.security_readings(timestamptz) is
  'Refusals and exceeded limits of keys and addresses in the current hour (UTC), and open security events of the last hour by kind; not of kinds that have a signal of their own.';


create function tollgate.database_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
as $$
  select 'database_connections_percent', 'installation', round(
    100.0 * (select sum(d.numbackends) from pg_catalog.pg_stat_database d)
      / (current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer), 1
  )
  union all
  select 'database_transaction_seconds', 'installation', coalesce(max(round(extract(epoch from as_of - a.xact_start))), 0)
  from pg_catalog.pg_stat_activity a
  where a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
$$;

comment on function tollgate.database_readings(timestamptz) is
  'The share of the connections that is in use, and the age of the oldest transaction besides this one.';


create function tollgate.channel_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
as $$
  select 'channel_failures', c.id, c.failures::numeric
  from tollgate.channels c
  where c.org_id is null and c.state = 'active' and c.created_at <= as_of
$$;

comment on function tollgate.channel_readings(timestamptz) is
  'How often each channel of operators has failed since it last worked.';


create function tollgate.observed_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
as $$
  select o.signal, o.subject, max(o.value)
  from tollgate.readings o
  where o.at > as_of - case o.process when 'database' then interval '15 minutes' else interval '2 minutes' end
  group by o.signal, o.subject
$$;

comment on function tollgate.observed_readings(timestamptz) is
  'What processes observed in the last two minutes, the highest of each subject, and the last slow readings.';


create function tollgate.alert_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
as $$
  select * from tollgate.request_readings(as_of)
  union all
  select * from tollgate.hold_readings(as_of)
  union all
  select * from tollgate.upstream_readings(as_of)
  union all
  select * from tollgate.security_readings(as_of)
  union all
  select * from tollgate.spread_readings(as_of)
  union all
  select * from tollgate.database_readings(as_of)
  union all
  select * from tollgate.channel_readings(as_of)
  union all
  select * from tollgate.reconciliation_readings(as_of)
  union all
  select * from tollgate.backup_readings(as_of)
  union all
  select * from tollgate.process_readings(as_of)
  union all
  select * from tollgate.observed_readings(as_of)
$$;

comment on function tollgate.alert_readings(timestamptz) is 'All readings of a moment. A room that has some adds its function here.';


-- schemas/16_alerts/round.sql

-- One round of evaluating the rules. The time is an argument, so that a test can move it.

create function tollgate.is_beyond(comparison text, value numeric, threshold numeric) returns boolean
language sql
immutable
set search_path = ''
as $$
  select case comparison when 'at_least' then value >= threshold else value < threshold end
$$;

comment on function tollgate.is_beyond(text, numeric, numeric) is 'Whether a reading is beyond a threshold; null without a reading.';


create function tollgate.org_of_subject(subject text) returns text
language sql
stable
set search_path = ''
as $$
  select case
    when subject like 'org\_%' then subject
    when subject like 'key\_%' then (select k.org_id from tollgate.api_keys k where k.id = subject)
  end
$$;

comment on function tollgate.org_of_subject(text) is 'The org that the subject of a reading is, or belongs to.';


create function tollgate.keep_readings(process text, observed jsonb, as_of timestamptz) returns void
language sql
set search_path = ''
as $$
  delete from tollgate.readings o where o.process = keep_readings.process;
  insert into tollgate.readings (process, signal, subject, value, at)
  select keep_readings.process, o.signal, o.subject, max(o.value), as_of
  from jsonb_to_recordset(observed) o (signal text, subject text, value numeric)
  where o.value is not null
  group by o.signal, o.subject
  on conflict on constraint readings_pkey do nothing;
$$;

comment on function tollgate.keep_readings(text, jsonb, timestamptz) is
  'Replaces what a process observed. Locks its rows.';


create function tollgate.change_alert(a tollgate.alerts, state text, as_of timestamptz) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.alert_changes (alert_id, state, value, at) values (a.id, change_alert.state, a.value, as_of)
$$;

comment on function tollgate.change_alert(tollgate.alerts, text, timestamptz) is 'Adds a change to the history of an alert.';


create function tollgate.next_state(rule tollgate.alert_rules, a tollgate.alerts, beyond boolean, value numeric, as_of timestamptz)
returns tollgate.alerts
language plpgsql
immutable
set search_path = ''
as $$
declare
  is_clear constant boolean := not beyond and coalesce(
    not tollgate.is_beyond(rule.comparison, value, coalesce(rule.clear_threshold, rule.threshold)), true
  );
begin
  a.value := coalesce(value, a.value);
  if a.state = 'pending' then
    a.state := case
      when not beyond then null
      when as_of >= a.pending_at + make_interval(secs => rule.for_seconds) then 'firing'
      else 'pending'
    end;
    a.firing_at := case a.state when 'firing' then as_of end;
    return a;
  end if;
  a.clear_since := case when is_clear then coalesce(a.clear_since, as_of) end;
  if rule.state = 'disabled' or as_of >= a.clear_since + make_interval(secs => rule.clear_seconds) then
    a.state := 'resolved';
    a.resolved_at := as_of;
  end if;
  return a;
end
$$;

comment on function tollgate.next_state(tollgate.alert_rules, tollgate.alerts, boolean, numeric, timestamptz) is
  'An open alert after a reading, which may be missing: that is clear. A pending alert fires once its readings were beyond the threshold for `for_seconds`; its state is null when they are not. A firing one is resolved once they were clear for `clear_seconds`.';


create function tollgate.candidates(as_of timestamptz, pause_seconds numeric)
returns table (rule tollgate.alert_rules, subject text, value numeric, beyond boolean, alert tollgate.alerts)
language sql
stable
set search_path = ''
as $$
  with readings as materialized (
    select * from tollgate.alert_readings(as_of)
    union all
    select 'sweep_pause_seconds', 'installation', pause_seconds where pause_seconds is not null
  ),
  over as (
    select o.* from (
      select r.id as rule_id, g.subject, g.value, row_number() over (partition by r.id order by g.subject) as place
      from tollgate.alert_rules r
      join readings g on g.signal = r.signal and (r.subjects is null or g.subject = any (r.subjects))
      where r.state = 'active' and tollgate.is_beyond(r.comparison, g.value, r.threshold)
    ) o
    where o.place <= 1000
  ),
  opened as (
    select a.rule_id, a.subject, a as alert from tollgate.alerts a where a.state <> 'resolved'
  )
  select r, s.subject, g.value, o.rule_id is not null, p.alert
  from (select o.rule_id, o.subject from over o union select p.rule_id, p.subject from opened p) s
  join tollgate.alert_rules r on r.id = s.rule_id
  left join over o on o.rule_id = s.rule_id and o.subject = s.subject
  left join opened p on p.rule_id = s.rule_id and p.subject = s.subject
  left join lateral (
    select g.value from readings g where g.signal = r.signal and g.subject = s.subject limit 1
  ) g on true
$$;

comment on function tollgate.candidates(timestamptz, numeric) is
  'The rules and subjects that a round looks at: those with a reading beyond the threshold, at most 1,000 of a rule, and those with an open alert.';


create function tollgate.evaluate_rules(as_of timestamptz, pause_seconds numeric) returns integer
language plpgsql
set search_path = ''
as $$
declare
  incident constant text := tollgate.new_id('inc');
  seen record;
  a tollgate.alerts;
  changed integer := 0;
begin
  for seen in
    select c.* from tollgate.candidates(as_of, pause_seconds) c order by (c.rule).id, c.subject
  loop
    a := seen.alert;
    if a.id is null then
      insert into tollgate.alerts (rule_id, subject, org_id, severity, state, value, pending_at)
      values (
        (seen.rule).id, seen.subject, tollgate.org_of_subject(seen.subject), (seen.rule).severity, 'pending',
        seen.value, as_of
      )
      returning * into a;
      perform tollgate.change_alert(a, 'pending', as_of);
      seen.alert := a;
    end if;
    a := tollgate.next_state(seen.rule, a, seen.beyond, seen.value, as_of);
    if a.state is null then
      delete from tollgate.alerts o where o.id = a.id;
      continue;
    end if;
    if a.state = 'firing' and (seen.alert).state = 'pending' then
      a.incident_id := incident;
      a.severity := (seen.rule).severity;
    end if;
    if a is distinct from seen.alert then
      update tollgate.alerts o set
        state = a.state, value = a.value, severity = a.severity, firing_at = a.firing_at, clear_since = a.clear_since,
        resolved_at = a.resolved_at, incident_id = a.incident_id
      where o.id = a.id;
    end if;
    if a.state <> (seen.alert).state then
      perform tollgate.change_alert(a, a.state, as_of);
      changed := changed + 1;
    end if;
  end loop;
  return changed;
end
$$;

comment on function tollgate.evaluate_rules(timestamptz, numeric) is
  'Moves each alert to its next state, and answers how many began to fire or were resolved. Expects the row of tollgate.alert_scan to be locked. Locks the open alerts.';


create function public.tollgate_alert_round(observed jsonb, process text, as_of text default null) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
as $$
declare
  moment constant timestamptz := coalesce(as_of::timestamptz, clock_timestamp());
  scan tollgate.alert_scan;
  changed integer;
  told integer;
begin
  perform tollgate.keep_readings(process, observed, moment);
  select s.* into scan from tollgate.alert_scan s for update skip locked;
  -- A clock that was ahead for a while must not keep rounds from being evaluated.
  if not found or scan.scanned_at between moment - interval '5 seconds' and moment + interval '5 seconds' then
    return '{"changed": 0, "told": 0}';
  end if;
  if scan.slow_at not between moment - interval '5 minutes' and moment then
    perform tollgate.take_slow_readings(moment);
    perform tollgate.drop_old_alerts(moment);
  end if;
  changed := tollgate.evaluate_rules(
    moment, case when scan.scanned_at > '-infinity' then greatest(0, extract(epoch from moment - scan.scanned_at)) end
  );
  told := tollgate.tell_operators(moment);
  perform tollgate.tell_owners(moment);
  update tollgate.alert_scan set scanned_at = moment;
  return jsonb_build_object('changed', changed, 'told', told);
end
$$;

comment on function public.tollgate_alert_round(jsonb, text, text) is
  'One round: keeps what this process observed, evaluates the rules, and writes what is to be told of each change, in one transaction: each change is told once, by whichever instance finds it. Instances that evaluate at the same time, or within five seconds, do nothing. Refuses nothing. Locks the row of tollgate.alert_scan, the open alerts, and as tell().';

select tollgate.expose('public.tollgate_alert_round(jsonb, text, text)');


-- schemas/16_alerts/rules.sql

-- Rules as operators see and change them.

create function tollgate.rule_shown(r tollgate.alert_rules) returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(r) || jsonb_build_object(
    'built_in', exists (select from tollgate.default_rules() d where d.id = r.id),
    'firing', (select count(*) from tollgate.alerts a where a.rule_id = r.id and a.state = 'firing'),
    'created_at', tollgate.utc(r.created_at),
    'updated_at', tollgate.utc(r.updated_at)
  )
$$;

comment on function tollgate.rule_shown(tollgate.alert_rules) is 'A rule, whether it is one of those from the start, and how many of its alerts fire.';


create function tollgate.readings_of_rules(only_rule text default null) returns jsonb
language sql
stable
set search_path = ''
set jit = off
as $$
  with readings as materialized (
    select * from tollgate.alert_readings(now())
    union all
    select 'sweep_pause_seconds', 'installation', round(extract(epoch from now() - s.scanned_at))
    from tollgate.alert_scan s where s.scanned_at > '-infinity'
  ),
  matched as (
    select r.id, g.subject, g.value, count(*) over (partition by r.id) as count, row_number() over (
      partition by r.id order by case r.comparison when 'at_least' then -g.value else g.value end, g.subject
    ) as place
    from tollgate.alert_rules r
    join readings g on g.signal = r.signal and (r.subjects is null or g.subject = any (r.subjects))
    where only_rule is null or r.id = only_rule
  )
  select coalesce(jsonb_object_agg(m.id, jsonb_build_object('count', m.count, 'value', m.value, 'subject', m.subject)), '{}')
  from matched m
  where m.place = 1
$$;

comment on function tollgate.readings_of_rules(text) is
  'By rule, or of one rule: how many readings it has at the moment, and the one nearest to its threshold, or farthest beyond it. Rules without readings are left out.';


create function tollgate.rule_fields() returns text[]
language sql
immutable
set search_path = ''
as $$
  select array[
    'id', 'signal', 'comparison', 'threshold', 'clear_threshold', 'for_seconds', 'clear_seconds', 'severity', 'subjects',
    'state', 'description'
  ]
$$;

comment on function tollgate.rule_fields() is 'The fields of a rule that an operator may set.';


create function tollgate.check_thresholds(r tollgate.alert_rules) returns void
language plpgsql
immutable
set search_path = ''
as $$
begin
  if r.clear_threshold is not null and tollgate.is_beyond(
    case r.comparison when 'at_least' then 'below' else 'at_least' end, r.threshold, r.clear_threshold
  ) and r.clear_threshold <> r.threshold then
    perform tollgate.refuse_field('clear_threshold', format(
      'must not be %s the threshold', case r.comparison when 'at_least' then 'above' else 'below' end
    ));
  end if;
end
$$;

comment on function tollgate.check_thresholds(tollgate.alert_rules) is
  'Refuses a rule that would fire and clear at the same reading, with invalid_request.';


create function tollgate.write_rule(actor tollgate.caller, made tollgate.alert_rules, action text, details jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  perform tollgate.check_thresholds(made);
  made.updated_at := now();
  insert into tollgate.alert_rules as r select made.*
  on conflict (id) do update set
    signal = excluded.signal, comparison = excluded.comparison, threshold = excluded.threshold,
    clear_threshold = excluded.clear_threshold, for_seconds = excluded.for_seconds,
    clear_seconds = excluded.clear_seconds, severity = excluded.severity, subjects = excluded.subjects,
    state = excluded.state, description = excluded.description, updated_at = excluded.updated_at;
  perform tollgate.record(actor, action, null, made.id, details);
  return jsonb_build_object('caller', tollgate.identity(actor), 'rule', tollgate.rule_shown(made));
end
$$;

comment on function tollgate.write_rule(tollgate.caller, tollgate.alert_rules, text, jsonb) is
  'Writes a rule, and records it. Refuses: as check_thresholds(). Locks the row.';


create function tollgate.found_rule(rule_id text) returns tollgate.alert_rules
language plpgsql
set search_path = ''
as $$
declare
  found_one tollgate.alert_rules;
begin
  select r.* into found_one from tollgate.alert_rules r where r.id = rule_id for no key update;
  if not found then
    perform tollgate.refuse_missing('alert_rule', rule_id);
  end if;
  return found_one;
end
$$;

comment on function tollgate.found_rule(text) is 'A rule. Refuses: not_found. Locks the row.';


create function public.tollgate_create_alert_rule(caller jsonb, rule jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  made tollgate.alert_rules;
begin
  made.id := rule ->> 'id';
  made.signal := rule ->> 'signal';
  made.comparison := rule ->> 'comparison';
  made.threshold := (rule ->> 'threshold')::numeric;
  made.for_seconds := 0;
  made.clear_seconds := 0;
  made.severity := 'warning';
  made.state := 'active';
  made.description := '';
  made.created_at := now();
  made := tollgate.with_fields(made, rule, tollgate.rule_fields());
  perform pg_advisory_xact_lock(hashtextextended('tollgate.alert_rules', 0));
  if exists (select from tollgate.alert_rules r where r.id = made.id) then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object('reason', 'exists', 'kind', 'alert_rule', 'id', made.id));
  end if;
  return tollgate.write_rule(actor, made, 'alert_rule.created', rule);
end
$$;

comment on function public.tollgate_create_alert_rule(jsonb, jsonb) is
  'Creates a rule. For admins. Refuses: as recognise(), with_fields() and check_thresholds(), conflict (exists). Takes an advisory lock, so that two of one id cannot be created at once.';

select tollgate.expose('public.tollgate_create_alert_rule(jsonb, jsonb)');


create function public.tollgate_change_alert_rule(caller jsonb, rule_id text, changes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  was constant tollgate.alert_rules := tollgate.found_rule(rule_id);
  made constant tollgate.alert_rules := tollgate.with_fields(was, changes - 'id', tollgate.rule_fields());
begin
  if made is not distinct from was then
    return jsonb_build_object('caller', tollgate.identity(actor), 'rule', tollgate.rule_shown(was));
  end if;
  return tollgate.write_rule(actor, made, 'alert_rule.changed', tollgate.what_changed(to_jsonb(was), to_jsonb(made)));
end
$$;

comment on function public.tollgate_change_alert_rule(jsonb, text, jsonb) is
  'Changes the given fields of a rule. A repetition changes and records nothing. For admins. Refuses: as recognise(), found_rule(), with_fields() and check_thresholds(). Locks the row.';

select tollgate.expose('public.tollgate_change_alert_rule(jsonb, text, jsonb)');


create function public.tollgate_reset_alert_rule(caller jsonb, rule_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  made tollgate.alert_rules;
begin
  select d.* into made from tollgate.default_rules() d where d.id = rule_id;
  if not found then
    perform tollgate.refuse_missing('alert_rule', rule_id);
  end if;
  return tollgate.write_rule(actor, made, 'alert_rule.reset', '{}');
end
$$;

comment on function public.tollgate_reset_alert_rule(jsonb, text) is
  'Makes a rule what it was from the start, also one that was deleted. For admins. Refuses: as recognise(), not_found (for rules of an operator''s own). Locks the row.';

select tollgate.expose('public.tollgate_reset_alert_rule(jsonb, text)');


create function public.tollgate_delete_alert_rule(caller jsonb, rule_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  gone constant tollgate.alert_rules := tollgate.found_rule(rule_id);
begin
  delete from tollgate.alert_rules r where r.id = gone.id;
  perform tollgate.record(actor, 'alert_rule.deleted', null, gone.id, to_jsonb(gone) - 'id' - 'created_at' - 'updated_at');
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', gone.id, 'deleted', true);
end
$$;

comment on function public.tollgate_delete_alert_rule(jsonb, text) is
  'Deletes a rule with its alerts, and records it in full. For admins. Refuses: as recognise() and found_rule(). Locks the rows.';

select tollgate.expose('public.tollgate_delete_alert_rule(jsonb, text)');


create function public.tollgate_alert_rule(caller jsonb, rule_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'rule', tollgate.rule_shown(tollgate.found_rule(rule_id)),
    'readings', tollgate.readings_of_rules(rule_id)
  );
end
$$;

comment on function public.tollgate_alert_rule(jsonb, text) is
  'One rule with its readings. For admins. Refuses: as recognise() and found_rule(). Locks the row.';

select tollgate.expose('public.tollgate_alert_rule(jsonb, text)');


create function public.tollgate_alert_rules(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'readings', tollgate.readings_of_rules()
  ) || tollgate.page(
    'tollgate.alert_rules',
    'tollgate.rule_shown',
    $where$
      ($1 ->> 'signal' is null or e.signal = $1 ->> 'signal')
      and ($1 ->> 'severity' is null or e.severity = $1 ->> 'severity')
      and ($1 ->> 'state' is null or e.state = $1 ->> 'state')
    $where$,
    '{"id": "e.id::text collate \"C\""}',
    coalesce(filters ->> 'sort', 'id:asc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_alert_rules(jsonb, jsonb, integer) is
  'Rules with their readings. `filters`: signal, severity, state, sort (id), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_alert_rules(jsonb, jsonb, integer)');


-- schemas/16_alerts/silences.sql

-- Silences as operators see and change them.

create function tollgate.silence_shown(s tollgate.silences) returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(s) || jsonb_build_object(
    'state', case when now() < s.starts_at then 'planned' when now() < s.ends_at then 'active' else 'ended' end,
    'starts_at', tollgate.utc(s.starts_at),
    'ends_at', tollgate.utc(s.ends_at),
    'created_at', tollgate.utc(s.created_at)
  )
$$;

comment on function tollgate.silence_shown(tollgate.silences) is 'A silence as operators see it.';


create function public.tollgate_create_silence(caller jsonb, silence jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  given tollgate.silences := tollgate.with_fields(
    null::tollgate.silences, silence, array['reason', 'rules', 'subjects', 'org_ids', 'starts_at', 'ends_at']
  );
  made tollgate.silences;
begin
  given.starts_at := coalesce(given.starts_at, now());
  if given.ends_at <= given.starts_at then
    perform tollgate.refuse_field('ends_at', 'must be later than starts_at');
  end if;
  insert into tollgate.silences (reason, rules, subjects, org_ids, starts_at, ends_at, created_by)
  values (
    given.reason, given.rules, given.subjects, given.org_ids, given.starts_at, given.ends_at,
    coalesce(actor.user_id, actor.name)
  )
  returning * into made;
  perform tollgate.record(actor, 'silence.created', null, made.id, silence);
  return jsonb_build_object('caller', tollgate.identity(actor), 'silence', tollgate.silence_shown(made));
end
$$;

comment on function public.tollgate_create_silence(jsonb, jsonb) is
  'Creates a silence, from now on unless it says when it starts. For admins. Refuses: as recognise() and with_fields(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_create_silence(jsonb, jsonb)');


create function public.tollgate_delete_silence(caller jsonb, silence_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  gone tollgate.silences;
begin
  delete from tollgate.silences s where s.id = silence_id returning s.* into gone;
  if not found then
    perform tollgate.refuse_missing('silence', silence_id);
  end if;
  perform tollgate.record(actor, 'silence.deleted', null, gone.id, tollgate.silence_shown(gone) - 'id');
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', gone.id, 'deleted', true);
end
$$;

comment on function public.tollgate_delete_silence(jsonb, text) is
  'Ends a silence: what it held back and still fires is told in the next round. For admins. Refuses: as recognise(), not_found. Locks the row.';

select tollgate.expose('public.tollgate_delete_silence(jsonb, text)');


create function public.tollgate_silences(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.silences',
    'tollgate.silence_shown',
    $where$
      ($1 ->> 'state' is null or $1 ->> 'state' = tollgate.silence_shown(e) ->> 'state')
    $where$,
    '{"ends_at": "e.ends_at", "created_at": "e.created_at"}',
    coalesce(filters ->> 'sort', 'ends_at:desc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_silences(jsonb, jsonb, integer) is
  'Silences. `filters`: state (planned, active, ended), sort (ends_at, created_at), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_silences(jsonb, jsonb, integer)');


-- schemas/16_alerts/slow_readings.sql

-- Readings that cost more, taken every five minutes and kept.

create function tollgate.wallet_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
set jit = off
as $$
  with spent as materialized (
    select u.org_id, sum(u.charge_nanos) / greatest(extract(epoch from as_of - date_trunc('day', as_of, 'UTC')) / 86400 + 1, 1) as day_nanos
    from tollgate.usage_by('{org}', date_trunc('day', as_of, 'UTC') - interval '1 day', as_of) u
    where u.charge_nanos > 0
    group by u.org_id
  )
  select 'balance_days_left', o.id::text, round(greatest(o.balance_nanos - o.held_nanos, 0) / greatest(s.day_nanos, 1), 2)
  from spent s
  join tollgate.orgs o on o.id = s.org_id
  union all
  select 'margin_percent', coalesce(u.model, 'installation'), round(100.0 * (u.charge_nanos - u.cost_nanos) / greatest(u.charge_nanos, 1), 2)
  from (
    select u.model, sum(u.charge_nanos) as charge_nanos, sum(u.cost_nanos) as cost_nanos
    from tollgate.usage_by('{model}', date_trunc('hour', as_of, 'UTC') - interval '1 hour', as_of) u
    group by grouping sets ((), (u.model))
  ) u
  where u.cost_nanos >= 100000000
$$;

comment on function tollgate.wallet_readings(timestamptz) is
  'For how many days the credits of each org last, by its spend since yesterday began; and the margin of the installation and of each model that cost a tenth of a credit in this clock hour and the one before.';


create function tollgate.key_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
as $$
  select 'key_budget_percent', k.id::text, round(100.0 * k.budget_spent_nanos / greatest(k.budget_nanos, 1), 2)
  from tollgate.api_keys k
  where k.budget_nanos is not null and k.revoked_at is null and k.last_used_at > as_of - interval '31 days'
    and k.budget_period = tollgate.budget_period(k.budget_reset, as_of)
    and k.budget_spent_nanos >= 0.5 * k.budget_nanos
  union all
  select 'key_days_left', k.id::text, round(extract(epoch from k.expires_at - as_of) / 86400, 2)
  from tollgate.api_keys k
  where k.expires_at > as_of and k.expires_at < as_of + interval '31 days' and k.expires_at > k.created_at + interval '14 days'
    and k.revoked_at is null and k.disabled_at is null and k.rotated_to is null
$$;

comment on function tollgate.key_readings(timestamptz) is
  'How much of its budget each key has used, from a half; in how many days keys expire, of those that had two weeks or more.';


create function tollgate.account_readings(as_of timestamptz) returns setof tollgate.reading
language sql
stable
set search_path = ''
set jit = off
as $$
  select 'openrouter_days_left', 'installation', round(greatest(o.value, 0) / u.cost_nanos, 2)
  from tollgate.observed_readings(as_of) o
  cross join tollgate.usage_by('{}', as_of - interval '24 hours', as_of, '{"upstream": "openrouter"}') u
  where o.signal = 'openrouter_credit_nanos' and u.cost_nanos > 0
  union all
  select 'books_faults', 'installation', f.faults::numeric
  from tollgate.faults_of_last_audit() f (faults)
  where f.faults is not null
  union all
  select 'database_bytes', 'installation', pg_database_size(current_database())::numeric
$$;

comment on function tollgate.account_readings(timestamptz) is
  'For how many days our credit at OpenRouter lasts at the cost of the last 24 hours, the faults that the last audit of the books found, and the size of the database.';


create function tollgate.take_slow_readings(as_of timestamptz) returns void
language plpgsql
set search_path = ''
as $$
begin
  delete from tollgate.readings o where o.process = 'database';
  insert into tollgate.readings (process, signal, subject, value, at)
  select 'database', r.signal, r.subject, max(r.value), as_of
  from (
    select * from tollgate.spend_readings(as_of)
    union all
    select * from tollgate.wallet_readings(as_of)
    union all
    select * from tollgate.key_readings(as_of)
    union all
    select * from tollgate.account_readings(as_of)
    union all
    select * from tollgate.network_readings(as_of)
    union all
    select * from tollgate.asking_readings(as_of)
  ) r
  group by r.signal, r.subject;
  update tollgate.alert_scan set slow_at = as_of;
end
$$;

comment on function tollgate.take_slow_readings(timestamptz) is
  'Replaces the slow readings by those of this moment. Locks them, and the row of tollgate.alert_scan.';


-- schemas/16_alerts/tell.sql

-- Who is told of what a round found.

create function tollgate.is_silenced(a tollgate.alerts, as_of timestamptz) returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (
    select from tollgate.silences s
    where s.starts_at <= as_of and s.ends_at > as_of
      and (s.rules is null or a.rule_id = any (s.rules))
      and (s.subjects is null or a.subject = any (s.subjects))
      and (s.org_ids is null or a.org_id = any (s.org_ids))
  )
$$;

comment on function tollgate.is_silenced(tollgate.alerts, timestamptz) is 'Whether a silence matches an alert at a moment.';


create function tollgate.alert_told(a tollgate.alerts) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', a.id,
    'rule', a.rule_id,
    'signal', r.signal,
    'subject', a.subject,
    'org_id', a.org_id,
    'severity', a.severity,
    'state', a.state,
    'value', a.value,
    'comparison', r.comparison,
    'threshold', r.threshold,
    'firing_at', tollgate.utc(a.firing_at),
    'resolved_at', tollgate.utc(a.resolved_at),
    'incident_id', a.incident_id
  )
  from tollgate.alert_rules r
  where r.id = a.rule_id
$$;

comment on function tollgate.alert_told(tollgate.alerts) is 'An alert as channels are told of it.';


create function tollgate.concerns(c tollgate.channels, a tollgate.alerts) returns boolean
language sql
immutable
set search_path = ''
as $$
  select array_position('{info,warning,critical}', a.severity::text) >= array_position('{info,warning,critical}', c.severity::text)
    and (c.rules is null or a.rule_id = any (c.rules))
    and (c.org_ids is null or (a.org_id = any (c.org_ids)) is true)
$$;

comment on function tollgate.concerns(tollgate.channels, tollgate.alerts) is 'Whether a channel is told of an alert.';


create function tollgate.tell_of_incident(c tollgate.channels, changed tollgate.alerts[], as_of timestamptz) returns void
language plpgsql
set search_path = ''
as $$
declare
  most_listed constant integer := 50;
  part tollgate.alerts[];
begin
  changed := array(select a from unnest(changed) a where tollgate.concerns(c, a) order by a.state, a.id);
  -- PagerDuty opens and resolves each alert by its own key, and groups them itself.
  for i in 1 .. case when c.kind = 'pagerduty' then cardinality(changed) else least(cardinality(changed), 1) end loop
    part := case when c.kind = 'pagerduty' then changed[i:i] else changed end;
    perform tollgate.tell(c.id, 'alerts.changed', jsonb_build_object(
      'type', 'alerts.changed',
      'timestamp', tollgate.utc(as_of),
      'data', (
        select jsonb_build_object(
          'firing', count(*) filter (where a.state = 'firing'),
          'resolved', count(*) filter (where a.state = 'resolved'),
          'alerts', (select jsonb_agg(tollgate.alert_told(b)) from unnest(part[:most_listed]) b)
        )
        from unnest(part) a
      )
    ));
  end loop;
end
$$;

comment on function tollgate.tell_of_incident(tollgate.channels, tollgate.alerts[], timestamptz) is
  'Tells a channel in one message of all that concerns it; lists 50 alerts at most. Locks as tell().';


create function tollgate.tell_operators(as_of timestamptz) returns integer
language plpgsql
set search_path = ''
as $$
declare
  changed tollgate.alerts[];
begin
  with started as (
    update tollgate.alerts a set told_at = as_of
    where a.state = 'firing' and a.told_at is null and not tollgate.is_silenced(a, as_of)
    returning a
  ),
  ended as (
    select a from tollgate.alerts a where a.state = 'resolved' and a.resolved_at = as_of and a.told_at is not null
  )
  select array(select s.a from started s union all select e.a from ended e) into changed;
  if cardinality(changed) > 0 then
    perform tollgate.tell_of_incident(c, changed, as_of)
    from tollgate.channels c
    where c.org_id is null and c.state = 'active'
    order by c.id;
  end if;
  return cardinality(changed);
end
$$;

comment on function tollgate.tell_operators(timestamptz) is
  'Tells operators of alerts that fire and were not told yet, except silenced ones, which are told when the silence ends; and of those that this round resolved, if it was told that they fire. Answers how many. Locks the alerts, and as tell().';


create function tollgate.tell_owners(as_of timestamptz) returns void
language sql
set search_path = ''
as $$
  select tollgate.tell_owner(a.org_id, e.event, jsonb_build_object(e.subject, a.subject, e.figure, a.value), as_of)
  from tollgate.alerts a
  join (values
    ('balance_low', 'balance.low', 'org_id', 'days_left'),
    ('key_expiring', 'key.expiring', 'key_id', 'days_left'),
    ('key_budget_near', 'key.budget_near', 'key_id', 'used_percent'),
    ('key_budget_reached', 'key.budget_reached', 'key_id', 'used_percent')
  ) e (rule_id, event, subject, figure) on e.rule_id = a.rule_id
  where a.state = 'firing' and a.firing_at = as_of and a.org_id is not null
  order by a.id
$$;

comment on function tollgate.tell_owners(timestamptz) is
  'Tells orgs of their own alerts that began to fire in this round. Silences are the operators'', and do not hold these back. Locks as tell().';


create function tollgate.drop_old_alerts(as_of timestamptz) returns void
language sql
set search_path = ''
as $$
  delete from tollgate.alerts a where a.id in (
    select o.id from tollgate.alerts o
    where o.state = 'resolved' and o.resolved_at < as_of - interval '90 days' and o.pending_at < as_of - interval '90 days'
    order by o.pending_at
    limit 1000
  );
  delete from tollgate.readings r where r.process <> 'database' and r.at < as_of - interval '10 minutes';
  delete from tollgate.silences s where s.ends_at < as_of - interval '90 days';
$$;

comment on function tollgate.drop_old_alerts(timestamptz) is 'Deletes alerts that were resolved 90 days ago, at most 1,000, silences that ended then, and readings of processes that have ended.';


-- schemas/16_creations/creations.sql

-- Creates an org, a user, a plan, a key, an upstream, a host, a deployment, a channel or a silence once for each
-- idempotency key.
--
-- Lock order: operator and idempotency key (an advisory lock), then as the function that creates.

create function tollgate.create_new(caller jsonb, creation text, arguments jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  return case creation
    when 'tollgate_create_org' then public.tollgate_create_org(caller, arguments -> 'org')
    when 'tollgate_create_user' then public.tollgate_create_user(caller, arguments -> 'person')
    when 'tollgate_create_plan' then public.tollgate_create_plan(caller, arguments -> 'plan')
    when 'tollgate_put_upstream' then public.tollgate_put_upstream(caller, arguments -> 'upstream')
    when 'tollgate_create_host' then
      public.tollgate_create_host(caller, arguments -> 'host', arguments -> 'enrolment')
    when 'tollgate_create_deployment' then public.tollgate_create_deployment(caller, arguments -> 'deployment')
    when 'tollgate_create_silence' then public.tollgate_create_silence(caller, arguments -> 'silence')
    when 'tollgate_create_channel' then public.tollgate_create_channel(
      caller, arguments -> 'channel', arguments -> 'secret', arguments ->> 'scope'
    )
    when 'tollgate_create_key' then
      public.tollgate_create_key(caller, arguments ->> 'user_id', arguments -> 'key', arguments ->> 'scope')
  end;
end
$$;

comment on function tollgate.create_new(jsonb, text, jsonb) is
  'Calls the function that creates. Refuses: as that function.';


create function public.tollgate_create_once(caller jsonb, creation text, arguments jsonb, idempotency_key text)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, coalesce(arguments ->> 'scope', 'admin'), touch => false);
  acting constant text := tollgate.operator_of(actor);
  asked constant jsonb := arguments #- '{key,digest}' #- '{key,pepper}' #- '{key,prefix}' #- '{key,last_four}'
    #- '{enrolment}' #- '{channel,id}' #- '{secret}';
  earlier tollgate.creations;
  answer jsonb;
begin
  perform pg_advisory_xact_lock(hashtextextended('tollgate_creations ' || acting || ' ' || idempotency_key, 0));
  delete from tollgate.creations c where c.created_at < now() - interval '48 hours';

  select c.* into earlier from tollgate.creations c
  where c.operator = acting and c.idempotency_key = tollgate_create_once.idempotency_key;
  if found then
    if (earlier.creation, earlier.asked) <> (creation, asked) then
      perform tollgate.refuse(422, 'idempotency_key_reused');
    end if;
    return earlier.answer || jsonb_build_object('caller', tollgate.identity(actor), 'replayed', true);
  end if;

  answer := tollgate.create_new(caller, creation, arguments);
  insert into tollgate.creations (operator, idempotency_key, creation, asked, answer)
  values (acting, idempotency_key, creation, asked, answer - 'caller');
  return answer;
end
$$;

comment on function public.tollgate_create_once(jsonb, text, jsonb, text) is
  'Calls the function `creation` with its arguments, once for each idempotency key of the user: a repetition gets the first answer, with `replayed`. The answer is stored in the transaction that creates, so neither is there without the other. Refuses: as that function, idempotency_key_reused. Locks the idempotency key, then as that function.';

select tollgate.expose('public.tollgate_create_once(jsonb, text, jsonb, text)');


-- schemas/16_monitor/credit_summary.sql

-- Credits granted, charged and refunded, summed up.

create function tollgate.moved_since(since timestamptz) returns table (kind text, debit text, credit text, nanos numeric)
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  first_hour constant timestamptz := tollgate.first_of('hour', since);
  summed constant bigint := (select r.flowed_until from tollgate.rolled r);
begin
  return query
  select m.kind::text, m.debit::text, m.credit::text, sum(m.amount_nanos)
  from (
    select f.kind, f.debit, f.credit, f.amount_nanos from tollgate.flows f where f.hour >= first_hour
    union all
    select t.kind, t.debit, t.credit, t.amount_nanos from tollgate.transfers t
    where t.position <= summed and t.created_at >= since and t.created_at < first_hour
    union all
    select t.kind, t.debit, t.credit, t.amount_nanos from tollgate.transfers t
    where t.position > summed and t.created_at >= since
  ) m
  group by 1, 2, 3;
end
$$;

comment on function tollgate.moved_since(timestamptz) is
  'The sums of transfers between accounts from a moment on. Each transfer counts once; whole hours are read from the flows.';


create function public.tollgate_credit_summary(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  moment constant timestamptz := clock_timestamp();
  today constant timestamptz := date_trunc('day', moment at time zone 'utc') at time zone 'utc';
  flows jsonb;
  outstanding jsonb;
begin
  -- One statement, so that all figures are of one moment.
  with moved as (
    select m.kind, m.debit, m.credit,
      coalesce(sum(m.nanos) filter (where s.name = 'today'), 0) as today_nanos,
      coalesce(sum(m.nanos) filter (where s.name = 'week'), 0) as last_7_days_nanos,
      coalesce(sum(m.nanos) filter (where s.name = 'month'), 0) as last_30_days_nanos,
      sum(m.nanos) filter (where s.name = 'all') as all_nanos
    from (values
      ('today', today), ('week', moment - interval '7 days'), ('month', moment - interval '30 days'), ('all', '-infinity')
    ) s (name, since)
    cross join lateral tollgate.moved_since(s.since) m
    group by m.kind, m.debit, m.credit
  ),
  wallets as (
    select count(*) as orgs,
      coalesce(sum(o.balance_nanos), 0) as credits_nanos,
      coalesce(sum(o.held_nanos), 0) as held_nanos,
      count(*) filter (where o.balance_nanos < 0) as overdrawn_orgs,
      coalesce(-sum(o.balance_nanos) filter (where o.balance_nanos < 0), 0) as overdrawn_nanos
    from tollgate.orgs o
  )
  select coalesce((select jsonb_agg(to_jsonb(m) order by m.kind, m.debit, m.credit) from moved m), '[]'),
    (select to_jsonb(w) from wallets w)
  into flows, outstanding;

  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'at', tollgate.utc(moment),
    'flows', flows,
    'accounts', (
      select coalesce(jsonb_agg(to_jsonb(a) order by a.account), '[]')
      from (
        select s.account,
          sum(s.sign * (f ->> 'today_nanos')::numeric) as today_nanos,
          sum(s.sign * (f ->> 'last_7_days_nanos')::numeric) as last_7_days_nanos,
          sum(s.sign * (f ->> 'last_30_days_nanos')::numeric) as last_30_days_nanos,
          sum(s.sign * (f ->> 'all_nanos')::numeric) as all_nanos
        from jsonb_array_elements(flows) f, lateral (values (f ->> 'debit', -1), (f ->> 'credit', 1)) s (account, sign)
        group by s.account
      ) a
    ),
    'outstanding', outstanding
  );
end
$$;

comment on function public.tollgate_credit_summary(jsonb) is
  'The sums of transfers between accounts, today (UTC), in the last 7 and 30 days and in all; the balance of each account, which add up to zero; and the balances and holds of all orgs now. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_credit_summary(jsonb)');


-- schemas/16_monitor/database.sql

-- Statistics of the database.

create function tollgate.index_advice() returns jsonb
language sql
set search_path = ''
as $$
  select jsonb_build_object(
    'counted_since', (
      select tollgate.utc(d.stats_reset) from pg_catalog.pg_stat_database d where d.datname = current_database()
    ),
    'unused', coalesce((
      select jsonb_agg(jsonb_build_object('index', s.indexrelname, 'table', s.relname, 'bytes', pg_relation_size(s.indexrelid))
        order by pg_relation_size(s.indexrelid) desc, s.indexrelname)
      from pg_catalog.pg_stat_user_indexes s
      join pg_catalog.pg_index i on i.indexrelid = s.indexrelid
      where s.schemaname = 'tollgate' and s.idx_scan = 0 and not i.indisunique
    ), '[]'),
    'missing', coalesce((
      select jsonb_agg(jsonb_build_object('table', m.relname, 'reason', m.reason) order by m.relname, m.reason)
      from (
        select s.relname, format(
          '%s reads of the whole table, of %s rows each, against %s by an index', s.seq_scan, s.seq_tup_read / s.seq_scan, s.idx_scan
        ) as reason
        from pg_catalog.pg_stat_user_tables s
        where s.schemaname = 'tollgate' and s.n_live_tup > 10000
          and s.seq_scan > 100 and s.seq_tup_read / s.seq_scan > 10000 and s.seq_scan > coalesce(s.idx_scan, 0)
        union all
        select c.conrelid::regclass::text, format('foreign key %s has no index', c.conname)
        from pg_catalog.pg_constraint c
        where c.contype = 'f' and c.connamespace = 'tollgate'::regnamespace and not exists (
          select from pg_catalog.pg_index i
          where i.indrelid = c.conrelid and (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey
        )
      ) m
    ), '[]')
  )
$$;

comment on function tollgate.index_advice() is
  'Indexes that were never read since the statistics were reset, and tables that are read in full more often than by an index. Only a hint. Unique indexes are never listed as unused.';


create function tollgate.last_backup() returns jsonb
language sql
set search_path = ''
as $$
  select jsonb_build_object(
    'archived_at', tollgate.utc(a.last_archived_time),
    'failed_at', tollgate.utc(a.last_failed_time),
    'reason', case when a.last_archived_time is null then
      'Postgres does not archive its write-ahead log here, and knows of no other backup. Ask the host of the database.'
    end
  )
  from pg_catalog.pg_stat_archiver a
$$;

comment on function tollgate.last_backup() is
  'What Postgres knows about backups: when it last archived a segment of its log, or that it does not archive.';


create function tollgate.sessions() returns jsonb
language sql
set search_path = ''
as $$
  select jsonb_build_object(
    'connections', jsonb_build_object(
      'used', (select sum(d.numbackends) from pg_catalog.pg_stat_database d),
      'used_here', (select d.numbackends from pg_catalog.pg_stat_database d where d.datname = current_database()),
      'most', current_setting('max_connections')::integer,
      'reserved', current_setting('superuser_reserved_connections')::integer
    ),
    'oldest_transaction', (
      select jsonb_build_object(
        'began_at', tollgate.utc(a.xact_start),
        'seconds', extract(epoch from clock_timestamp() - a.xact_start)::bigint,
        'pid', a.pid,
        'state', a.state
      )
      from pg_catalog.pg_stat_activity a
      where a.datname = current_database() and a.pid <> pg_backend_pid() and a.xact_start is not null
        and a.backend_type = 'client backend'
      order by a.xact_start
      limit 1
    ),
    'sees_all_sessions', pg_has_role('pg_read_all_stats', 'member')
  )
$$;

comment on function tollgate.sessions() is
  'Connections, and the oldest transaction besides this one: of all roles if our owner may see them, otherwise of its own.';


create function tollgate.sizes() returns jsonb
language sql
set search_path = ''
as $$
  select jsonb_build_object(
    'database_bytes', pg_database_size(current_database()),
    'tables_bytes', coalesce(sum(t.table_bytes), 0),
    'indexes_bytes', coalesce(sum(t.index_bytes), 0),
    'tables', coalesce(jsonb_agg(jsonb_build_object(
      'table', t.relname,
      'rows', t.n_live_tup,
      'dead_rows', t.n_dead_tup,
      'table_bytes', t.table_bytes,
      'index_bytes', t.index_bytes,
      'last_vacuum_at', tollgate.utc(greatest(t.last_vacuum, t.last_autovacuum)),
      'last_analyze_at', tollgate.utc(greatest(t.last_analyze, t.last_autoanalyze))
    ) order by t.table_bytes + t.index_bytes desc, t.relname), '[]')
  )
  from (
    select s.*, pg_table_size(s.relid) as table_bytes, pg_indexes_size(s.relid) as index_bytes
    from pg_catalog.pg_stat_user_tables s
    where s.schemaname = 'tollgate'
  ) t
$$;

comment on function tollgate.sizes() is 'The sizes of the database and of our tables, and when they were vacuumed and analyzed. Rows are Postgres''s estimate.';


create function tollgate.slowest_functions() returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  home text := (
    select n.nspname from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
    where e.extname = 'pg_stat_statements'
  );
  slowest jsonb;
  reason text := 'pg_stat_statements is not installed in this database and track_functions is none, so Postgres does not time functions.';
begin
  if home is not null then
    begin
      execute format(
        $query$
          select coalesce(jsonb_agg(to_jsonb(f) order by f.total_ms desc), '[]')
          from (
            select substring(s.query from 'tollgate_[a-z_]+') as function, sum(s.calls)::bigint as calls,
              round(sum(s.total_exec_time)::numeric, 3) as total_ms,
              round((sum(s.total_exec_time) / greatest(sum(s.calls), 1))::numeric, 3) as mean_ms,
              round(max(s.max_exec_time)::numeric, 3) as most_ms
            from %I.pg_stat_statements s
            join pg_catalog.pg_database d on d.oid = s.dbid and d.datname = current_database()
            where s.query ~ 'public"?\."?tollgate_[a-z_]+'
            group by 1
            order by 3 desc
            limit 20
          ) f
        $query$,
        home
      ) into slowest;
      return jsonb_build_object('source', 'pg_stat_statements', 'functions', slowest, 'reason', null);
    exception when object_not_in_prerequisite_state or insufficient_privilege or undefined_column then
      reason := 'pg_stat_statements is installed but cannot be read here: ' || sqlerrm || '.';
    end;
  end if;

  if current_setting('track_functions') = 'none' then
    return jsonb_build_object('source', null, 'functions', null, 'reason', reason);
  end if;
  select coalesce(jsonb_agg(to_jsonb(f) order by f.total_ms desc), '[]') into slowest
  from (
    select s.funcname as function, s.calls, round(s.total_time::numeric, 3) as total_ms,
      round((s.total_time / greatest(s.calls, 1))::numeric, 3) as mean_ms, null as most_ms
    from pg_catalog.pg_stat_user_functions s
    where s.schemaname = 'public' and s.funcname like 'tollgate\_%'
    order by s.total_time desc
    limit 20
  ) f;
  return jsonb_build_object('source', 'pg_stat_user_functions', 'functions', slowest, 'reason', null);
end
$$;

comment on function tollgate.slowest_functions() is
  'The functions that took most time, from pg_stat_statements, else from pg_stat_user_functions, else none and the reason.';


create function public.tollgate_database(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'schema_version', (select v.version from tollgate.schema_version v),
    'server_version', current_setting('server_version'),
    'sizes', tollgate.sizes(),
    'slowest', tollgate.slowest_functions(),
    'indexes', tollgate.index_advice(),
    'last_backup', tollgate.last_backup()
  ) || tollgate.sessions();
end
$$;

comment on function public.tollgate_database(jsonb) is
  'The state of the database, from Postgres''s own statistics; needs no superuser. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_database(jsonb)');


create function tollgate.database_load() returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'bytes', pg_catalog.pg_database_size(d.datname),
    'connections', (select sum(o.numbackends) from pg_catalog.pg_stat_database o),
    'most_connections', current_setting('max_connections')::integer,
    'committed', d.xact_commit,
    'rolled_back', d.xact_rollback,
    'blocks_read', d.blks_read,
    'blocks_hit', d.blks_hit,
    'deadlocks', d.deadlocks,
    'oldest_transaction_seconds', coalesce((
      select extract(epoch from clock_timestamp() - min(a.xact_start))::bigint
      from pg_catalog.pg_stat_activity a
      where a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
    ), 0)
  )
  from pg_catalog.pg_stat_database d
  where d.datname = current_database()
$$;

comment on function tollgate.database_load() is
  'What Postgres counts of this database and its connections.';


-- schemas/16_monitor/figures.sql

-- The operator's figures of this moment.

create function tollgate.last_day() returns jsonb
language sql
stable
set search_path = ''
as $$
  with used as materialized (
    select u.* from tollgate.usage_by('{upstream}', now() - interval '24 hours') u
  )
  select jsonb_build_object(
    'requests', coalesce(sum(u.requests), 0),
    'errors', coalesce(sum(u.errors), 0),
    'latency', (select to_jsonb(l) from tollgate.latency_between('whole', now() - interval '24 hours', null, '{}') l),
    'first_token', (
      select to_jsonb(l) from tollgate.latency_between('first_token', now() - interval '24 hours', null, '{}') l
    ),
    'upstreams', coalesce(jsonb_agg(jsonb_build_object(
      'upstream', nullif(u.upstream, ''), 'requests', u.requests, 'errors', u.errors, 'cost_nanos', u.cost_nanos
    ) order by u.requests desc, u.upstream), '[]')
  )
  from used u
$$;

comment on function tollgate.last_day() is 'Requests, errors and latencies of the last 24 hours, in all and by upstream; null is no upstream.';


create function tollgate.usage_today() returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'orgs', count(distinct u.org_id), 'users', count(distinct u.user_id), 'keys', count(distinct u.key_id)
  )
  from tollgate.usage_by('{org,user,key}', date_trunc('day', now(), 'UTC')) u
$$;

comment on function tollgate.usage_today() is 'How many orgs, users and keys have made a request today (UTC).';


create function tollgate.recent_usage(today timestamptz) returns jsonb
language sql
stable
set search_path = ''
as $$
  with used as materialized (
    select u.* from tollgate.usage_by('{day}', today - interval '29 days') u
  )
  select jsonb_object_agg(s.name, (
    select jsonb_build_object(
      'requests', coalesce(sum(u.requests), 0),
      'errors', coalesce(sum(u.errors), 0),
      'prompt_tokens', coalesce(sum(u.prompt_tokens), 0),
      'completion_tokens', coalesce(sum(u.completion_tokens), 0),
      'charge_nanos', coalesce(sum(u.charge_nanos), 0),
      'cost_nanos', coalesce(sum(u.cost_nanos), 0)
    )
    from used u
    where u.start > today - make_interval(days => s.days)
  ))
  from (values ('today', 1), ('last_7_days', 7), ('last_30_days', 30)) s (name, days)
$$;

comment on function tollgate.recent_usage(timestamptz) is
  'What all orgs used today, in 7 days and in 30: whole days (UTC) including today.';


create function tollgate.models_today(today timestamptz, places integer) returns jsonb
language sql
stable
set search_path = ''
as $$
  with ranked as (
    select u.*, row_number() over (order by u.charge_nanos desc, u.requests desc, u.model) as place
    from tollgate.usage_by('{model}', today) u
  ),
  shown as (
    select case when r.place <= places then r.model else 'other' end as model,
      sum(r.requests) as requests,
      sum(r.prompt_tokens) as prompt_tokens,
      sum(r.completion_tokens) as completion_tokens,
      sum(r.charge_nanos) as charge_nanos
    from ranked r
    group by 1
  )
  select coalesce(jsonb_agg(to_jsonb(s) order by s.charge_nanos desc, s.requests desc, s.model), '[]') from shown s
$$;

comment on function tollgate.models_today(timestamptz, integer) is
  'What was used of each model today (UTC): of those that were charged most, and of all others together as `other`.';


create function tollgate.newest_requests(places integer) returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(tollgate.request_shown(r::tollgate.requests) order by r.created_at desc, r.id desc), '[]')
  from (select n.* from tollgate.requests n order by n.created_at desc, n.id desc limit places) r
$$;

comment on function tollgate.newest_requests(integer) is 'The requests admitted last, of all orgs.';


create function tollgate.population(active jsonb) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'orgs', (
      select jsonb_build_object(
        'total', count(*), 'usable', count(*) filter (where o.status = 'active'), 'active_today', active -> 'orgs'
      ) from tollgate.orgs o
    ),
    'users', (
      select jsonb_build_object(
        'total', count(*), 'usable', count(*) filter (where u.status = 'active'), 'active_today', active -> 'users'
      ) from tollgate.users u
    ),
    'keys', (
      select jsonb_build_object(
        'total', count(*),
        'usable', count(*) filter (
          where k.revoked_at is null and k.disabled_at is null and coalesce(k.expires_at > now(), true)
        ),
        'active_today', active -> 'keys'
      ) from tollgate.api_keys k
    )
  )
$$;

comment on function tollgate.population(jsonb) is 'How many orgs, users and keys there are, how many of them may make calls, and how many did today.';


create function tollgate.needs_attention(places integer) returns jsonb
language sql
stable
set search_path = ''
as $$
  with orgs as materialized ( -- which is read once, since each row has all counters of its org
    select o.id, o.name, o.balance_nanos, o.paid_suspended_at, o.paid_suspended_reason from tollgate.orgs o
  )
  select jsonb_build_object(
    'open_holds', (
      select jsonb_build_object(
        'count', count(*),
        'held_nanos', coalesce(sum(r.hold_nanos), 0),
        'oldest_at', tollgate.utc(min(r.created_at)),
        'unsettled', count(*) filter (where r.state = 'unsettled')
      )
      from tollgate.holds h
      join tollgate.requests r on r.id = h.request_id
    ),
    'balances', (
      select jsonb_build_object('credits_nanos', coalesce(sum(o.balance_nanos), 0))
      from orgs o
      where o.balance_nanos > 0
    ),
    'overdrawn', (
      select jsonb_build_object(
        'count', count(*),
        'overdrawn_nanos', coalesce(-sum(o.balance_nanos), 0),
        'orgs', coalesce((
          select jsonb_agg(
            jsonb_build_object('org_id', w.id, 'name', w.name, 'credits_nanos', w.balance_nanos)
            order by w.balance_nanos, w.id
          )
          from (
            select d.* from orgs d where d.balance_nanos < 0 order by d.balance_nanos, d.id limit places
          ) w
        ), '[]')
      )
      from orgs o
      where o.balance_nanos < 0
    ),
    'paid_suspended', (
      select jsonb_build_object(
        'count', count(*),
        'orgs', coalesce(jsonb_agg(
          jsonb_build_object(
            'org_id', s.id, 'name', s.name, 'suspended_at', tollgate.utc(s.paid_suspended_at), 'reason', s.paid_suspended_reason
          )
          order by s.paid_suspended_at, s.id
        ) filter (where s.place <= places), '[]')
      )
      from (
        select o.*, row_number() over (order by o.paid_suspended_at, o.id) as place
        from orgs o
        where o.paid_suspended_at is not null
      ) s
    )
  )
$$;

comment on function tollgate.needs_attention(integer) is
  'Open holds, the sum of all balances above zero, orgs with a negative balance (the lowest are listed), and orgs whose paid calls are suspended (the earliest are listed).';


create function public.tollgate_monitor(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
set work_mem = '64MB' -- so that the month's keys are summed up in memory
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  today timestamptz := date_trunc('day', now(), 'UTC');
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'at', tollgate.utc(now()),
    'usage', tollgate.recent_usage(today),
    'models_today', tollgate.models_today(today, 50),
    'last_24_hours', tollgate.last_day(),
    'recent_requests', tollgate.newest_requests(20),
    'cache', tollgate.cache_shown((today at time zone 'utc')::date),
    'database', tollgate.database_load()
  )
    || tollgate.population(tollgate.usage_today())
    || tollgate.top_lists(10, tollgate.top_since())
    || tollgate.needs_attention(10);
end
$$;

comment on function public.tollgate_monitor(jsonb) is
  'The operator''s overview: how many orgs, users and keys; what they used today, in 7 and in 30 days (UTC days including today); errors and latencies of 24 hours; the top orgs, keys and models; the newest requests; open holds and overdrawn orgs. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_monitor(jsonb)');


-- schemas/16_monitor/health.sql

-- The health of the database.

create function public.tollgate_health() returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select jsonb_build_object(
    'schema_version', (select v.version from tollgate.schema_version v),
    'user_count', (select count(*) from tollgate.users),
    'upstreams', (
      select jsonb_build_object(
        'up', count(*) filter (where p.status = 'up'),
        'down', count(*) filter (where p.status = 'down'),
        'unknown', count(*) filter (where p.status is null)
      )
      from tollgate.upstreams u left join tollgate.probes p on p.upstream_id = u.id
      where u.state = 'active'
    )
  )
$$;

comment on function public.tollgate_health() is 'Answers when the database works. Refuses nothing, locks nothing.';

select tollgate.expose('public.tollgate_health()');


create function public.tollgate_versions(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'schema_version', (select v.version from tollgate.schema_version v),
    'postgres_version', current_setting('server_version')
  );
end
$$;

comment on function public.tollgate_versions(jsonb) is
  'The versions of the schema and of Postgres. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_versions(jsonb)');


-- schemas/16_monitor/hosts.sql

-- The figures of hosts of our own.

create function tollgate.paid_call_rates(host_id text) returns jsonb
language sql
stable
set search_path = ''
as $$
  with calls as (
    select r.created_at, r.prompt_tokens, r.completion_tokens, r.duration_ms, r.first_token_ms
    from tollgate.requests r
    left join tollgate.upstreams u on u.id = r.upstream
    where r.created_at > now() - interval '5 minutes' and r.settled_at is not null
      and (paid_call_rates.host_id is null or u.host_id = paid_call_rates.host_id)
  )
  select jsonb_build_object(
    'req_per_sec', count(*) filter (where c.created_at > now() - interval '1 minute') / 60.0,
    'prompt_tokens_per_sec',
      coalesce(sum(c.prompt_tokens) filter (where c.created_at > now() - interval '1 minute'), 0) / 60.0,
    'generation_tokens_per_sec',
      coalesce(sum(c.completion_tokens) filter (where c.created_at > now() - interval '1 minute'), 0) / 60.0,
    'latency_p50_ms', percentile_cont(0.5) within group (order by c.duration_ms),
    'latency_p95_ms', percentile_cont(0.95) within group (order by c.duration_ms),
    'ttft_p50_ms', percentile_cont(0.5) within group (order by c.first_token_ms),
    'ttft_p95_ms', percentile_cont(0.95) within group (order by c.first_token_ms)
  )
  from calls c
$$;

comment on function tollgate.paid_call_rates(text) is
  'All paid calls, or those that a host answered: rates of the last minute, percentiles of the last five.';


create function public.tollgate_fleet(caller jsonb, host_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  found_ones jsonb;
begin
  select jsonb_agg(tollgate.host_shown(h) order by h.id) into found_ones from tollgate.hosts h
  where case when tollgate_fleet.host_id is null then h.state <> 'retired' else h.id = tollgate_fleet.host_id end;
  if found_ones is null and host_id is not null then
    perform tollgate.refuse_missing('host', host_id);
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'hosts', coalesce(found_ones, '[]'),
    'throughput', tollgate.paid_call_rates(host_id)
  );
end
$$;

comment on function public.tollgate_fleet(jsonb, text) is
  'All hosts that are not retired, or one, each with its last sample; and the rates of all paid calls, or of those that the one host answers. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_fleet(jsonb, text)');


create function public.tollgate_host_trends(caller jsonb, host_id text, minutes integer, step_seconds integer)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  wanted constant text := tollgate.host_named(host_id);
begin
  if not exists (select from tollgate.hosts h where h.id = wanted) then
    perform tollgate.refuse_missing('host', wanted);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'host_id', wanted, 'samples', coalesce((
    select jsonb_agg(b.sample || jsonb_build_object('ts', b.ts) order by b.ts)
    from (
      select distinct on (1) floor(extract(epoch from s.sampled_at) / step_seconds)::bigint * step_seconds as ts, s.sample
      from tollgate.host_samples s
      where s.host_id = wanted and s.sampled_at > now() - make_interval(mins => minutes)
      order by 1, s.sampled_at desc
    ) b
  ), '[]'));
end
$$;

comment on function public.tollgate_host_trends(jsonb, text, integer, integer) is
  'The samples of a host, or of the only one, in the last minutes, the last one of each step, with the beginning of the step in seconds since the epoch. For admins. Refuses: as recognise() and host_named(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_host_trends(jsonb, text, integer, integer)');


-- schemas/16_monitor/one_request.sql

-- All that is stored of one request.

create function tollgate.hold_shown(r tollgate.requests) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'amount_nanos', r.hold_nanos,
    'is_open', r.settled_at is null,
    'output_bound', r.output_bound,
    'reserved_tokens', r.reserved_tokens,
    'expires_at', tollgate.utc(r.expires_at),
    'next_look_at', (select tollgate.utc(h.next_sweep_at) from tollgate.holds h where h.request_id = r.id),
    'looks', (select h.sweeps from tollgate.holds h where h.request_id = r.id),
    'fixed_cost', r.price -> 'fixed_nanos',
    'output_token_cost', r.price -> 'output_nanos'
  )
$$;

comment on function tollgate.hold_shown(tollgate.requests) is
  'The hold of a request: how much, how its worst case was computed, and when the sweeper looks for the cost of one that is open.';


create function tollgate.transfers_of(request_id text) returns setof tollgate.transfers
language sql
stable
rows 3
set search_path = ''
as $$
  select t.* from tollgate.transfers t
  where t.kind = 'charge' and t.reference = any (array[request_id, request_id || ':late'])
  union all
  select t.* from tollgate.transfers t where t.kind = 'refund' and t.reference = request_id || ':late'
  union all
  select t.* from tollgate.credit_operations o
  join tollgate.transfers t on t.position = o.position
  where o.request_id = transfers_of.request_id
$$;

comment on function tollgate.transfers_of(text) is
  'The transfers of a request: its charge, the correction of a late settlement, and refunds by operators.';


create function tollgate.settlement_shown(r tollgate.requests) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'settled_at', tollgate.utc(r.settled_at),
    'basis', r.basis,
    'charge_nanos', r.charge_nanos,
    'cost_nanos', r.cost_nanos,
    'margin_nanos', r.charge_nanos - r.cost_nanos,
    'refunded_nanos', f.refunded,
    'refundable_nanos', greatest(coalesce(r.charge_nanos, 0) - f.refunded, 0),
    'markup_ppm', r.markup_ppm,
    'price', coalesce(r.charged_price, r.price - array['fixed_nanos', 'output_nanos', 'byok_fee_nanos'], '{}'),
    'usage', r.usage
  )
  from (
    select coalesce(sum(t.amount_nanos), 0) as refunded
    from tollgate.credit_operations o
    join tollgate.transfers t on t.position = o.position
    where o.request_id = r.id
  ) f
$$;

comment on function tollgate.settlement_shown(tollgate.requests) is
  'How a request was charged, as operators see it: units, prices, markup, charge, cost and refunds.';


create function tollgate.idempotency_shown(r tollgate.requests) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'key', r.idempotency_key,
    'answer', case
      when a.request_id is null then 'gone'
      when a.answer is null then 'running'
      when (a.answer -> 'kept')::boolean is false then 'not_kept'
      else 'kept'
    end,
    'kept_until', tollgate.utc(a.created_at + interval '24 hours'),
    'replays', coalesce(a.replays, 0),
    'replayed_at', tollgate.utc(a.replayed_at)
  )
  from (select) one
  left join tollgate.answers a on a.request_id = r.id
  where r.idempotency_key is not null
$$;

comment on function tollgate.idempotency_shown(tollgate.requests) is
  'The idempotency key of a request, and how often its answer was replayed; null without a key.';


create function public.tollgate_request(caller jsonb, id text, everyone boolean, content boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, case when everyone then 'admin' else 'usage' end);
  found_request tollgate.requests;
  kept jsonb;
begin
  select r.* into found_request from tollgate.requests r
  where r.id = tollgate_request.id and (everyone or r.org_id = actor.org_id);
  if not found then
    perform tollgate.refuse_missing('request', id);
  end if;
  if content and everyone then
    select jsonb_build_object('prompt', c.prompt, 'answer', c.answer) into kept
    from tollgate.contents c where c.request_id = found_request.id;
    if found then
      perform tollgate.record(
        actor, 'content.read', found_request.org_id, found_request.org_id,
        jsonb_build_object('request_ids', jsonb_build_array(found_request.id))
      );
    end if;
  end if;
  return tollgate.request_shown(found_request) || jsonb_build_object(
    'caller', tollgate.identity(actor),
    'user_email', (select u.email from tollgate.users u where u.id = found_request.user_id),
    'key_name', (select k.name from tollgate.api_keys k where k.id = found_request.key_id),
    'hold', tollgate.hold_shown(found_request),
    'attempts', found_request.attempts,
    'settlement', tollgate.settlement_shown(found_request),
    'idempotency', tollgate.idempotency_shown(found_request),
    'transfers', (
      select coalesce(jsonb_agg(tollgate.transfer_shown(t) order by t.position), '[]')
      from tollgate.transfers_of(found_request.id) t
    ),
    'events', (
      select coalesce(jsonb_agg(tollgate.audit_event_shown(e) order by e.occurred_at, e.id), '[]')
      from tollgate.audit_events e where e.target_id = found_request.id
    ),
    'content', kept
  );
end
$$;

comment on function public.tollgate_request(jsonb, text, boolean, boolean) is
  'All that is stored of one request: its row, hold, attempts, settlement, transfers, idempotency key and audit events: of everyone''s for admins, or one of the caller''s org. The server leaves out our cost for the latter. `content`, for admins: its prompt and answer too, where they were stored; that is recorded as content.read. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_request(jsonb, text, boolean, boolean)');


-- schemas/16_monitor/overview.sql

-- The operator's overview of a period, beside the period before it.

create function tollgate.refunded_between(since timestamptz, until timestamptz) returns numeric
language sql
stable
set search_path = ''
as $$
  select coalesce(sum(t.amount_nanos), 0)
  from tollgate.transfers t
  where t.kind <> 'charge' and t.kind = 'refund' -- the index is that of the first
    and t.created_at >= since and t.created_at < until
    and t.reference not like '%:late'
$$;

comment on function tollgate.refunded_between(timestamptz, timestamptz) is
  'What operators refunded in a span of time. Corrections by a late settlement are part of the charges.';


create function tollgate.period_shown(since timestamptz, until timestamptz) returns jsonb
language sql
stable
set search_path = ''
as $$
  select tollgate.measures(u, true) || jsonb_build_object(
    'from', tollgate.utc(since),
    'to', tollgate.utc(until),
    'refunded_nanos', tollgate.refunded_between(since, until),
    'latency', (select to_jsonb(l) from tollgate.latency_between('whole', since, until, '{}') l),
    'first_token', (select to_jsonb(l) from tollgate.latency_between('first_token', since, until, '{}') l)
  )
  from tollgate.usage_by('{}', since, until) u
$$;

comment on function tollgate.period_shown(timestamptz, timestamptz) is
  'What all orgs used in a span of time, what was refunded in it, and how long requests took.';


create function tollgate.attention_item(kind text, severity text, count bigint, facts jsonb default '{}') returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('kind', kind, 'severity', severity, 'count', count, 'facts', facts) where count > 0
$$;

comment on function tollgate.attention_item(text, text, bigint, jsonb) is
  'Something that an operator should look at; null where there is none of it.';


create function tollgate.holds_to_look_at() returns table (unsettled bigint, expired bigint)
language sql
stable
set search_path = ''
as $$
  select count(*) filter (where r.state = 'unsettled' and r.created_at < now() - interval '10 minutes'),
    count(*) filter (where r.state = 'held' and r.expires_at < now() - interval '10 minutes')
  from tollgate.holds h
  join tollgate.requests r on r.id = h.request_id
$$;

comment on function tollgate.holds_to_look_at() is
  'Requests whose cost is unknown for more than 10 minutes, and those that the sweeper should have ended 10 minutes ago.';


create function tollgate.attention() returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(a.item order by a.place) filter (where a.item is not null), '[]')
  from (
    select 1, tollgate.attention_item('audit_failed', 'critical', tollgate.faults_of_last_audit())
    union all
    select 2, tollgate.attention_item('quarantined', 'critical', count(*))
    from tollgate.requests r where r.quarantined and r.created_at >= now() - interval '7 days'
    union all
    select 3, tollgate.attention_item('expired_holds', 'critical', h.expired) from tollgate.holds_to_look_at() h
    union all
    select 4, tollgate.attention_item('unsettled', 'warning', h.unsettled) from tollgate.holds_to_look_at() h
    union all
    select 5, tollgate.attention_item('upstream_down', 'critical', count(*), jsonb_build_object('names', jsonb_agg(u.name)))
    from tollgate.upstreams u
    join tollgate.probes p on p.upstream_id = u.id
    where u.state = 'active' and p.status = 'down'
    union all
    select 6, tollgate.attention_item('alerts_firing', case
      when bool_or(f.severity = 'critical') then 'critical' when bool_or(f.severity = 'warning') then 'warning' else 'info'
    end, count(*))
    from tollgate.alerts f where f.state = 'firing'
    union all
    select 7, tollgate.attention_item('security_event', s.severity, s.count)
    from (
      select e.severity, count(*) as count
      from tollgate.security_events e
      where e.acknowledged_at is null and e.severity <> 'info'
      group by e.severity
      order by e.severity
    ) s
  ) a (place, item)
$$;

comment on function tollgate.attention() is
  'What an operator should look at: a failed audit, quarantined requests of 7 days, holds that do not end, upstreams that are down, alerts that fire with the worst severity, and open security events by severity.';


create function public.tollgate_overview(caller jsonb, since text, until text, bucket text) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
set work_mem = '64MB'
set timezone = 'UTC'
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  beginning constant timestamptz := since;
  ending constant timestamptz := coalesce(until::timestamptz, clock_timestamp());
  first_bucket constant timestamptz := date_trunc(bucket, beginning);
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'at', tollgate.utc(now()),
    'period', tollgate.period_shown(beginning, ending),
    'before', tollgate.period_shown(beginning - (ending - beginning), beginning),
    'series', (
      select coalesce(jsonb_agg(
        jsonb_build_object('start', tollgate.utc(s.start)) || tollgate.measures(u, true) order by s.start
      ), '[]')
      from generate_series(first_bucket, ending - interval '1 microsecond', ('1 ' || bucket)::interval) s (start)
      left join tollgate.usage_by(array[bucket], first_bucket, ending) u on u.start = s.start
    ),
    'openrouter_day_nanos', (
      select coalesce(sum(u.cost_nanos), 0)
      from tollgate.usage_by('{}', now() - interval '24 hours', null, '{"upstream": "openrouter"}') u
    ),
    'attention', tollgate.attention()
  )
    || tollgate.top_lists(10, beginning, until::timestamptz)
    || tollgate.needs_attention(10);
end
$$;

comment on function public.tollgate_overview(jsonb, text, text, text) is
  'The operator''s overview of a span of time (`until` null is now) and of the one before it, of the same length: usage, refunds, latencies; a series by hour or day; the top orgs, keys and models; open holds; what to look at. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_overview(jsonb, text, text, text)');


-- schemas/16_monitor/own.sql

-- The overview of the caller's own key and org.

create function tollgate.allowances_of(key tollgate.api_keys) returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'budget', case when key.budget_nanos is not null then jsonb_build_object(
      'limit_nanos', key.budget_nanos,
      'spent_nanos', key.budget_spent_nanos,
      'remaining_nanos', greatest(0, key.budget_nanos - key.budget_spent_nanos),
      'resets_at', tollgate.budget_resets_at(key)
    ) end,
    'tokens_in_month', case when key.tokens_per_month is not null then jsonb_build_object(
      'limit', key.tokens_per_month,
      'used', key.tokens_used_in_month,
      'remaining', greatest(0, key.tokens_per_month - key.tokens_used_in_month),
      'resets_at', tollgate.quota_resets_at(key)
    ) end,
    'tokens_in_all', case when key.tokens_in_all is not null then jsonb_build_object(
      'limit', key.tokens_in_all,
      'used', key.tokens_used_in_all,
      'remaining', greatest(0, key.tokens_in_all - key.tokens_used_in_all),
      'resets_at', null
    ) end
  );
end
$$;

comment on function tollgate.allowances_of(tollgate.api_keys) is
  'What remains of a key''s own budget and quotas, and when they are reset; null where it has none. Expects a key from in_this_period().';


create function tollgate.first_request_of(key tollgate.api_keys) returns timestamptz
language sql
stable
set search_path = ''
as $$
  select coalesce((
    select r.created_at from tollgate.requests r
    where r.org_id = key.org_id and r.created_at >= d.day and r.created_at < d.day + interval '1 day' and r.key_id = key.id
    order by r.created_at
    limit 1
  ), d.day)
  from (
    select min(u.start) as day
    from tollgate.usage_by('{day}', null, null, jsonb_build_object('org_id', key.org_id, 'key_id', key.id)) u
  ) d
$$;

comment on function tollgate.first_request_of(tollgate.api_keys) is
  'When a key made its first request; only the day if the request was dropped.';


create function public.tollgate_own_monitor(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'usage');
  moment timestamptz := clock_timestamp();
  own jsonb := jsonb_build_object('org_id', actor.org_id);
  org tollgate.orgs;
  key tollgate.api_keys;
begin
  select o.* into org from tollgate.orgs o where o.id = actor.org_id;
  select k.* into key from tollgate.api_keys k where k.id = actor.key_id;
  key := tollgate.in_this_period(key, moment);
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'at', tollgate.utc(moment),
    'org_id', org.id,
    'user_id', actor.user_id,
    'prefix', key.prefix,
    'last_four', key.last_four,
    'plan', org.plan_id,
    'balance_nanos', org.balance_nanos,
    'held_nanos', org.held_nanos,
    'usage', jsonb_build_object(
      'today', tollgate.used_since(date_trunc('day', moment, 'UTC'), own),
      'this_month', tollgate.used_since(date_trunc('month', moment, 'UTC'), own),
      'all_time', tollgate.used_since(null, own)
    ),
    'limits', tollgate.limits_around(actor, key, moment),
    'allowances', tollgate.allowances_of(key)
  );
end
$$;

comment on function public.tollgate_own_monitor(jsonb) is
  'The overview of a key''s owner: the org''s balance; its usage today, this month (UTC) and of all time; what remains of the limits of org and key, and of the key''s budget and quotas. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_own_monitor(jsonb)');


create function public.tollgate_own_overview(caller jsonb, bucket text, filters jsonb) returns jsonb
language sql
security definer
set search_path = ''
set jit = off
as $$
  select public.tollgate_own_monitor(caller) || jsonb_build_object(
    'series', public.tollgate_usage_series(caller, bucket, filters, false) - 'caller',
    'models', public.tollgate_usage_aggregate(
      caller, '["model"]', filters || jsonb_build_object('sort', 'charge:desc'), 10, false
    ) - 'caller'
  )
$$;

comment on function public.tollgate_own_overview(jsonb, text, jsonb) is
  'tollgate_own_monitor(), with the usage of the caller''s org in a period as `series` and the ten models that cost most as `models`. `filters` has from and to. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_own_overview(jsonb, text, jsonb)');


create function public.tollgate_key_usage(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'usage');
  moment timestamptz := clock_timestamp();
  own jsonb := jsonb_build_object('org_id', actor.org_id, 'key_id', actor.key_id);
  month timestamptz; -- of the quota
  in_month jsonb;
  org tollgate.orgs;
  person tollgate.users;
  key tollgate.api_keys;
  minute jsonb;
begin
  if actor.key_id is null then
    perform tollgate.refuse_missing('key', null);
  end if;
  select o.* into org from tollgate.orgs o where o.id = actor.org_id;
  select k.* into key from tollgate.api_keys k where k.id = actor.key_id;
  key := tollgate.in_this_period(key, moment);
  select u.* into person from tollgate.users u where u.id = actor.user_id;
  month := tollgate.quota_month(key.quota_reset_day, moment)::timestamp at time zone 'utc';
  in_month := tollgate.used_since(month, own);
  select w.minute into minute
  from (values
    (tollgate.windows(org.counters, tollgate.limits_of(org), tollgate.ms_of(moment)) -> 'requests' -> 'minute'),
    (tollgate.windows(person.counters, person.limits, tollgate.ms_of(moment)) -> 'requests' -> 'minute'),
    (tollgate.windows(key.counters, key.limits, tollgate.ms_of(moment)) -> 'requests' -> 'minute')
  ) w (minute)
  where w.minute ->> 'limit' is not null
  order by (w.minute -> 'remaining')::bigint, (w.minute -> 'limit')::bigint
  limit 1;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'org_id', org.id,
    'user_id', key.user_id,
    'name', key.name,
    'quota_used', case when key.tokens_per_month is not null then key.tokens_used_in_month
      else (in_month ->> 'prompt_tokens')::bigint + (in_month ->> 'completion_tokens')::bigint
    end,
    'quota_monthly', key.tokens_per_month,
    'quota_reset_at', tollgate.utc((month at time zone 'utc' + interval '1 month') at time zone 'utc'),
    'rpm_limit', minute -> 'limit',
    'rpm_remaining', minute -> 'remaining',
    'total', tollgate.used_since(null, own),
    'first_request_at', tollgate.utc(tollgate.first_request_of(key))
  );
end
$$;

comment on function public.tollgate_key_usage(jsonb) is
  'What the calling key has used: its monthly quota, its requests per minute (by the limit of the key, its user or its org, whichever has less left), and its usage of all time. Refuses: as recognise(), not_found for a session without a key. Locks nothing.';

select tollgate.expose('public.tollgate_key_usage(jsonb)');


-- schemas/16_monitor/readouts.sql

-- What OpenRouter's clients ask of an account, from our own books.

create function public.tollgate_credits_readout(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'usage');
begin
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'balance_nanos', o.balance_nanos,
      'charge_nanos', tollgate.used_since(null, jsonb_build_object('org_id', o.id)) -> 'charge_nanos'
    )
    from tollgate.orgs o
    where o.id = actor.org_id
  );
end
$$;

comment on function public.tollgate_credits_readout(jsonb) is
  'The balance of the caller''s org, and what it was charged since it was made: together, the credits that it was given. Refuses: as recognise(). Locks nothing of the org.';

select tollgate.expose('public.tollgate_credits_readout(jsonb)');


create function public.tollgate_key_readout(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller);
  moment timestamptz := clock_timestamp();
  own jsonb := jsonb_build_object('org_id', actor.org_id, 'key_id', actor.key_id);
begin
  if actor.key_id is null then
    perform tollgate.refuse_missing('key', null);
  end if;
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'key', tollgate.key_shown(k),
      'plan', o.plan_id,
      'limits', tollgate.limits_around(actor, k, moment),
      'charged', jsonb_build_object(
        'all', tollgate.used_since(null, own) -> 'charge_nanos',
        'day', tollgate.used_since(date_trunc('day', moment, 'UTC'), own) -> 'charge_nanos',
        'week', tollgate.used_since(date_trunc('week', moment, 'UTC'), own) -> 'charge_nanos',
        'month', tollgate.used_since(date_trunc('month', moment, 'UTC'), own) -> 'charge_nanos'
      )
    )
    from tollgate.api_keys k
    join tollgate.orgs o on o.id = k.org_id
    where k.id = actor.key_id
  );
end
$$;

comment on function public.tollgate_key_readout(jsonb) is
  'The calling key: its terms and its budget, the windows that it counts in, and what it was charged today, this week (from Monday), this month (UTC) and in all. Refuses: as recognise(), not_found for a session without a key. Locks nothing.';

select tollgate.expose('public.tollgate_key_readout(jsonb)');


create function tollgate.request_named(org_id text, name text) returns setof tollgate.requests
language sql
stable
rows 1
set search_path = ''
as $$
  select r.* from tollgate.requests r where r.id = name and r.org_id = request_named.org_id
  union all
  (
    select r.*
    from (
      select q.* from tollgate.requests q
      where q.org_id = request_named.org_id
      order by q.created_at desc
      limit 50000
    ) r
    where r.generation_id = name
    limit 1
  )
  limit 1
$$;

comment on function tollgate.request_named(text, text) is
  'The request of an org with this id, or with this generation id of an upstream: that has no index, which each settlement would write, so the newest 50,000 requests of the org are read, until it is found.';


create function public.tollgate_generation(caller jsonb, id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'usage');
  found_request tollgate.requests;
begin
  select r.* into found_request from tollgate.request_named(actor.org_id, id) r;
  if found_request.settled_at is null then
    perform tollgate.refuse_missing('generation', id);
  end if;
  return tollgate.own_request_shown(found_request) || jsonb_build_object(
    'caller', tollgate.identity(actor),
    'attempts', found_request.attempts
  );
end
$$;

comment on function public.tollgate_generation(jsonb, text) is
  'A request of the caller''s org that has ended, by its id or by the upstream''s generation id: see request_named(). Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_generation(jsonb, text)');


-- schemas/16_monitor/top_lists.sql

-- The orgs, keys and models that used most in a period.

create function tollgate.top_since() returns timestamptz
language sql
stable
set search_path = ''
as $$
  select date_trunc('day', now(), 'UTC') - interval '29 days'
$$;

comment on function tollgate.top_since() is 'The beginning of the 30 days of the top lists, which include today.';


create function tollgate.top_lists(places integer, since timestamptz, until timestamptz default null) returns jsonb
language sql
stable
set search_path = ''
as $$
  with used as materialized (
    select u.* from tollgate.keys_used(since, until) u
  ),
  orgs as (
    select u.org_id, sum(u.requests) as requests, sum(u.tokens) as tokens,
      sum(u.charge_nanos) as charge_nanos, sum(u.cost_nanos) as cost_nanos
    from used u
    group by u.org_id
    order by charge_nanos desc, requests desc, u.org_id
    limit places
  ),
  keys as (
    select u.* from used u
    order by u.charge_nanos desc, u.requests desc, u.key_id
    limit places
  ),
  models as (
    select u.model, u.requests, u.prompt_tokens + u.completion_tokens as tokens, u.charge_nanos, u.cost_nanos
    from tollgate.usage_by('{model}', since, until) u
    order by u.charge_nanos desc, u.requests desc, u.model
    limit places
  )
  select jsonb_build_object(
    'top_orgs', coalesce((
      select jsonb_agg(to_jsonb(t) || jsonb_build_object('name', o.name)
        order by t.charge_nanos desc, t.requests desc, t.org_id)
      from orgs t left join tollgate.orgs o on o.id = t.org_id
    ), '[]'),
    'top_keys', coalesce((
      select jsonb_agg(
        to_jsonb(t) || jsonb_build_object('name', k.name, 'prefix', k.prefix, 'last_four', k.last_four)
        order by t.charge_nanos desc, t.requests desc, t.key_id)
      from keys t left join tollgate.api_keys k on k.id = t.key_id
    ), '[]'),
    'top_models', coalesce((
      select jsonb_agg(to_jsonb(t) order by t.charge_nanos desc, t.requests desc, t.model) from models t
    ), '[]')
  )
$$;

comment on function tollgate.top_lists(integer, timestamptz, timestamptz) is
  'The orgs, keys and models that were charged most in a span of time; until null is now.';


create function tollgate.keys_used(since timestamptz, until timestamptz) returns table (
  org_id text, key_id text, requests numeric, tokens numeric, charge_nanos numeric, cost_nanos numeric
)
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  period tollgate.top_keys_period;
begin
  select l.* into period from tollgate.top_keys_period l;
  -- Not of the span that is renewed, or so far from it that correcting it would cost more than summing up again.
  if keys_used.until is not null
    or (period.since between keys_used.since - interval '7 days' and keys_used.since + interval '7 days') is not true then
    return query
    select u.org_id, u.key_id, u.requests::numeric, (u.prompt_tokens + u.completion_tokens)::numeric,
      u.charge_nanos::numeric, u.cost_nanos::numeric
    from tollgate.usage_by('{org,key}', keys_used.since, keys_used.until) u;
    return;
  end if;
  return query
  select p.org_id, p.key_id, sum(p.requests * p.sign), sum(p.tokens * p.sign), sum(p.charge_nanos * p.sign),
    sum(p.cost_nanos * p.sign)
  from (
    select l.org_id, l.key_id, l.requests, l.tokens, l.charge_nanos, l.cost_nanos, 1 as sign from tollgate.top_keys l
    union all
    select u.org_id, u.key_id, u.requests, u.prompt_tokens + u.completion_tokens, u.charge_nanos, u.cost_nanos, 1
    from tollgate.usage_by('{org,key}', period.until) u
    union all
    select u.org_id, u.key_id, u.requests, u.prompt_tokens + u.completion_tokens, u.charge_nanos, u.cost_nanos, -1
    from tollgate.usage_by('{org,key}', period.since, keys_used.since) u
    where period.since < keys_used.since
    union all
    select u.org_id, u.key_id, u.requests, u.prompt_tokens + u.completion_tokens, u.charge_nanos, u.cost_nanos, 1
    from tollgate.usage_by('{org,key}', keys_used.since, period.since) u
    where keys_used.since < period.since
  ) p
  group by p.org_id, p.key_id
  having sum(p.requests * p.sign) > 0;
end
$$;

comment on function tollgate.keys_used(timestamptz, timestamptz) is
  'What each key used in a span of time. For one that begins about 30 days ago and ends now: the sums in tollgate.top_keys, plus what came since, with the difference at their beginning.';


create function public.tollgate_renew_leaders() returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
set work_mem = '64MB'
as $$
declare
  period tollgate.top_keys_period;
  rolled_until timestamptz;
begin
  select l.* into period from tollgate.top_keys_period l for no key update skip locked;
  select r.rolled_until into rolled_until from tollgate.rolled r;
  if period.single and isfinite(rolled_until)
    and (period.since, period.until) is distinct from (tollgate.top_since(), rolled_until) then
    delete from tollgate.top_keys;
    insert into tollgate.top_keys
    select u.org_id, u.key_id, u.requests, u.prompt_tokens + u.completion_tokens, u.charge_nanos, u.cost_nanos
    from tollgate.usage_by('{org,key}', tollgate.top_since(), rolled_until) u
    where u.requests > 0;
    update tollgate.top_keys_period set since = tollgate.top_since(), until = rolled_until;
  end if;
  return '{"more": false}';
end
$$;

comment on function public.tollgate_renew_leaders() is
  'Sums up what each key used in 30 days, as far as it is rolled up; does nothing when that is done already. A request that ended after its hour was rolled up is added with the next hour. Refuses nothing. Locks the row of tollgate.top_keys_period; when another transaction has it, does nothing.';

select tollgate.expose('public.tollgate_renew_leaders()');


-- schemas/17_sessions/failures.sql

-- Counts wrong passwords, so that nobody guesses them.
--
-- A try counts as a failure before the password is checked, so that tries at the same time cannot pass the limit together.
-- A right password takes its failure back.

create function tollgate.account_of(email text) returns text
language sql
immutable
set search_path = ''
as $$
  select encode(sha256(convert_to(lower(email), 'UTF8')), 'hex')
$$;

comment on function tollgate.account_of(text) is
  'How failures name an account. A digest, because some people type their password into the field of the email.';


create function tollgate.most_password_failures(counted tollgate.password_failures, is_known boolean) returns integer
language sql
immutable
set search_path = ''
as $$
  select case
    when counted.account = '' then 30
    when counted.address <> '' then 10
    when not is_known then 100
  end
$$;

comment on function tollgate.most_password_failures(tollgate.password_failures, boolean) is
  'How many failures are allowed in 15 minutes: 30 of an address, 10 of an account from one address, and 100 of an account, but no limit of the last for an address from which its password was right before.';


create function tollgate.count_password_failure(account text, address text, is_known boolean) returns integer
language plpgsql
set search_path = ''
as $$
declare
  counted tollgate.password_failures;
  of_account integer;
begin
  for counted in
    insert into tollgate.password_failures as f (account, address)
    values ('', count_password_failure.address), (count_password_failure.account, ''),
      (count_password_failure.account, count_password_failure.address)
    on conflict on constraint password_failures_pkey do update set
      failures = case when f.since > now() - interval '15 minutes' then f.failures + 1 else 1 end,
      since = case when f.since > now() - interval '15 minutes' then f.since else now() end
    returning f.*
  loop
    if counted.failures > tollgate.most_password_failures(counted, is_known) then
      perform tollgate.refuse(429, 'too_many_sign_ins', jsonb_build_object(
        'retry_after_seconds', ceil(extract(epoch from counted.since + interval '15 minutes' - now()))::integer
      ));
    end if;
    if counted.address = '' then
      of_account := counted.failures;
    end if;
  end loop;
  delete from tollgate.password_failures f
  where (f.account, f.address) in (
    select o.account, o.address from tollgate.password_failures o
    where o.since <= now() - interval '15 minutes'
    limit 100
    for update skip locked
  );
  return of_account;
end
$$;

comment on function tollgate.count_password_failure(text, text, boolean) is
  'Counts a failure, and answers how many the account has from all addresses. Refuses, and counts nothing then: too_many_sign_ins. Deletes counts that are over, at most 100. Locks the counts, in the order address, account, both.';


create function tollgate.forgive_password_failure(account text, address text) returns void
language sql
set search_path = ''
as $$
  update tollgate.password_failures f set failures = f.failures - 1
  where f.account = '' and f.address = forgive_password_failure.address and f.failures > 0;
  update tollgate.password_failures f set failures = f.failures - 1
  where f.account = forgive_password_failure.account and f.address = '' and f.failures > 0;
  delete from tollgate.password_failures f
  where f.account = forgive_password_failure.account and f.address = forgive_password_failure.address;
$$;

comment on function tollgate.forgive_password_failure(text, text) is
  'Takes back the failure of a right password, and those of its account from this address. Locks as count_password_failure().';


-- schemas/17_sessions/passwords.sql

-- Signing in with a password, and setting it. The server checks passwords against their hash; the database never sees them.

create function public.tollgate_begin_password_sign_in(caller jsonb, email text, address text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  person tollgate.users;
  password tollgate.passwords;
  failures integer;
begin
  select u.* into person from tollgate.users u where lower(u.email) = lower(tollgate_begin_password_sign_in.email);
  select p.* into password from tollgate.passwords p where p.user_id = person.id;
  failures := tollgate.count_password_failure(
    tollgate.account_of(email), address, coalesce(address = any (password.known_addresses), false)
  );
  if failures = 100 and person.id is not null then
    perform tollgate.raise_event(
      'many_failures', 'user', person.id, person.org_id, null, failures, now(), now(),
      jsonb_build_object('code', 'sign_in_failed')
    );
  end if;
  return jsonb_build_object('caller', '{}'::jsonb, 'hash', password.hash);
end
$$;

comment on function public.tollgate_begin_password_sign_in(jsonb, text, text) is
  'Counts a failure, and answers with the hash of the account''s password for the server to check; null where there is none. The hundredth failure of an account raises a security event. `address` is the caller''s, as failures are counted. Refuses: as count_password_failure(). Locks as count_password_failure(), then the event.';

select tollgate.expose('public.tollgate_begin_password_sign_in(jsonb, text, text)');


create function public.tollgate_sign_in_with_password(
  caller jsonb, email text, hash text, address text, digest text
) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  person tollgate.users;
begin
  select u.* into person from tollgate.users u where lower(u.email) = lower(tollgate_sign_in_with_password.email)
  for key share; -- before the password, as tollgate_delete_user() locks them
  update tollgate.passwords p
  set known_addresses = (array_prepend(address, array_remove(p.known_addresses, address)))[1:10]
  where p.user_id = person.id and p.hash = tollgate_sign_in_with_password.hash;
  if (found and tollgate.may_sign_in(person)) is not true then
    perform tollgate.refuse(401, 'sign_in_failed');
  end if;
  perform tollgate.forgive_password_failure(tollgate.account_of(email), address);
  return tollgate.start_session(caller, tollgate.actor_of(caller, person), 'password', digest);
end
$$;

comment on function public.tollgate_sign_in_with_password(jsonb, text, text, text, text) is
  'Starts a session for a user whose password was right. `hash` is the one it was checked against, and `digest` that of the session''s token. Refuses: sign_in_failed (the password was changed since, or the user or org may not act). Locks the user against deletion, the password, the counts of failures, and as start_session().';

select tollgate.expose('public.tollgate_sign_in_with_password(jsonb, text, text, text, text)');


create function tollgate.signed_in_by_link(actor tollgate.caller) returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (
    select from tollgate.sessions s
    where s.id = actor.session_id and s.way = 'link' and s.created_at > now() - interval '15 minutes'
  )
$$;

comment on function tollgate.signed_in_by_link(tollgate.caller) is
  'Whether the caller signed in by a link within 15 minutes: who did so sets a password without the current one.';


create function public.tollgate_begin_password_change(caller jsonb, has_current boolean, address text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller);
  email constant text := (select u.email from tollgate.users u where u.id = actor.user_id);
  password tollgate.passwords;
begin
  if not tollgate.signed_in_by_link(actor) then
    select p.* into password from tollgate.passwords p where p.user_id = actor.user_id;
    if not found then
      perform tollgate.refuse(403, 'sign_in_again', jsonb_build_object('way', 'link'));
    elsif not has_current then
      perform tollgate.refuse_field('current', 'is missing; send the password that you have now');
    end if;
    perform tollgate.count_password_failure(
      tollgate.account_of(email), address, address = any (password.known_addresses)
    );
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'hash', password.hash);
end
$$;

comment on function public.tollgate_begin_password_change(jsonb, boolean, text) is
  'Counts a failure, and answers with the hash of the current password for the server to check. Counts nothing and answers null after a sign-in by link within 15 minutes, which needs no current password. Refuses: as recognise(), sign_in_again (there is no password yet), invalid_request, as count_password_failure(). Locks as count_password_failure().';

select tollgate.expose('public.tollgate_begin_password_change(jsonb, boolean, text)');


create function public.tollgate_set_password(caller jsonb, hash text, checked text, address text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller);
  email constant text := (select u.email from tollgate.users u where u.id = actor.user_id);
begin
  if checked is not null then
    update tollgate.passwords p set hash = tollgate_set_password.hash, set_at = now()
    where p.user_id = actor.user_id and p.hash = checked;
    if not found then
      perform tollgate.refuse(401, 'sign_in_failed');
    end if;
    perform tollgate.forgive_password_failure(tollgate.account_of(email), address);
  elsif tollgate.signed_in_by_link(actor) then
    insert into tollgate.passwords as p (user_id, hash) values (actor.user_id, tollgate_set_password.hash)
    on conflict on constraint passwords_pkey do update set hash = excluded.hash, set_at = now();
  else
    perform tollgate.refuse(403, 'sign_in_again', jsonb_build_object('way', 'link'));
  end if;
  delete from tollgate.sign_in_links l where l.user_id = actor.user_id;
  perform tollgate.record(actor, 'password.set', actor.org_id, actor.user_id);
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'ended', tollgate.end_sessions(actor, actor.user_id, actor.session_id)
  );
end
$$;

comment on function public.tollgate_set_password(jsonb, text, text, text) is
  'Sets the password of the caller''s user, and ends their other sessions and links. `checked` is the hash that the current password was checked against; null after a sign-in by link. Refuses: as recognise(), sign_in_failed (the password was changed since), sign_in_again. Locks the password, the counts of failures, the links and sessions.';

select tollgate.expose('public.tollgate_set_password(jsonb, text, text, text)');


create function public.tollgate_remove_password(caller jsonb, user_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  person tollgate.users;
  was_there boolean;
  ended integer;
begin
  select u.* into person from tollgate.users u
  where u.id = tollgate_remove_password.user_id and u.deleted_at is null;
  if not found then
    perform tollgate.refuse_missing('user', user_id);
  end if;
  delete from tollgate.passwords p where p.user_id = person.id;
  was_there := found;
  delete from tollgate.sign_in_links l where l.user_id = person.id;
  ended := tollgate.end_sessions(actor, person.id, null);
  if was_there then
    perform tollgate.record(actor, 'password.removed', person.org_id, person.id);
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'user_id', person.id, 'removed', was_there, 'ended', ended
  );
end
$$;

comment on function public.tollgate_remove_password(jsonb, text) is
  'Removes the password of a user, and ends all their sessions and links. For the console and admins. Refuses: as recognise(), not_found. Locks the password, the links and sessions.';

select tollgate.expose('public.tollgate_remove_password(jsonb, text)');


-- schemas/17_sessions/shown.sql

-- Sessions as JSON.

create function tollgate.session_shown(session tollgate.sessions) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', session.id,
    'user_id', session.user_id,
    'email', u.email,
    'key_id', session.key_id,
    'way', session.way,
    'ip', host(session.ip),
    'user_agent', session.user_agent,
    'signed_in_at', tollgate.utc(session.created_at),
    'last_seen_at', tollgate.utc(session.last_seen_at),
    'expires_at', tollgate.utc(tollgate.session_expires_at(session, u.role))
  )
  from tollgate.users u where u.id = session.user_id
$$;

comment on function tollgate.session_shown(tollgate.sessions) is 'A session as its user sees it.';


create function tollgate.signed_in(actor tollgate.caller) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'caller', tollgate.identity(actor),
    'user_id', u.id,
    'name', u.name,
    'email', u.email,
    'role', u.role,
    'org_id', o.id,
    'org_name', o.name,
    'key_id', actor.key_id,
    'environment', actor.environment,
    'scopes', actor.scopes,
    'has_password', tollgate.has_password(u.id),
    'firing_alerts', case when tollgate.operates(actor) then (select count(*) from tollgate.alerts a where a.state = 'firing') end,
    'session', (select tollgate.session_shown(s) from tollgate.sessions s where s.id = actor.session_id)
  )
  from tollgate.users u
  join tollgate.orgs o on o.id = u.org_id
  where u.id = actor.user_id
$$;

comment on function tollgate.signed_in(tollgate.caller) is
  'Who the caller is and what it may do; for operators also how many alerts fire. `session` is null for a key.';


create function public.tollgate_signed_in(caller jsonb) returns jsonb
language sql
security definer
set search_path = ''
as $$
  select tollgate.signed_in(tollgate.recognise(caller))
$$;

comment on function public.tollgate_signed_in(jsonb) is
  'Who the caller is and what it may do. Refuses: as recognise(). Locks nothing but what it touches.';

select tollgate.expose('public.tollgate_signed_in(jsonb)');


create function public.tollgate_sessions(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller);
  mine constant boolean := not (tollgate.operates(actor) and coalesce((filters ->> 'everyone')::boolean, false));
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.sessions',
    'tollgate.session_shown',
    $where$
      ($1 ->> 'user_id' is null or e.user_id = $1 ->> 'user_id')
      and tollgate.session_expires_at(e, (select u.role from tollgate.users u where u.id = e.user_id)) > now()
    $where$,
    jsonb_build_object('signed_in_at', 'e.created_at'),
    'signed_in_at:desc',
    (filters - 'everyone') || case when mine then jsonb_build_object('user_id', actor.user_id) else '{}' end,
    page_size
  );
end
$$;

comment on function public.tollgate_sessions(jsonb, jsonb, integer) is
  'The sessions of the caller, newest first; of all users when `filters` says everyone and the caller is an operator. `filters`: everyone, user_id, cursor. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_sessions(jsonb, jsonb, integer)');


-- schemas/17_sessions/sign_in.sql

-- Signing in and out.

create function tollgate.start_session(
  caller jsonb, actor tollgate.caller, way text, digest text
) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  session tollgate.sessions;
begin
  delete from tollgate.sessions s
  where s.user_id = actor.user_id and (
    s.digest = any (tollgate.session_digests_of(caller)) or tollgate.session_expires_at(s, actor.role) <= now()
  );
  insert into tollgate.sessions (digest, user_id, key_id, way, ip, user_agent)
  values (decode(digest, 'hex'), actor.user_id, actor.key_id, way, actor.ip, actor.user_agent)
  returning * into session;
  actor.kind := 'session';
  actor.session_id := session.id;
  perform tollgate.record(actor, 'session.started', actor.org_id, session.id, jsonb_build_object('way', way));
  return tollgate.signed_in(actor) || jsonb_build_object(
    'lifetime_seconds', extract(epoch from tollgate.session_lifetime(actor.role))::integer
  );
end
$$;

comment on function tollgate.start_session(jsonb, tollgate.caller, text, text) is
  'Starts a session of the actor, and deletes its expired ones and the one that the cookie of this request names. Answers signed_in(), with lifetime_seconds for the cookie. Locks the deleted sessions.';


create function public.tollgate_sign_in_with_key(caller jsonb, digest text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  recognition constant tollgate.recognition := tollgate.identify(caller - 'session');
  key constant tollgate.api_keys := recognition.key;
begin
  if recognition.refusal is null and key.rotated_to is not null then
    perform tollgate.refuse(401, 'key_expired', jsonb_build_object('key_id', key.id));
  end if;
  return tollgate.start_session(caller, tollgate.recognise(caller - 'session'), 'key', digest);
end
$$;

comment on function public.tollgate_sign_in_with_key(jsonb, text) is
  'Exchanges the caller''s key for a session, whose token has this digest. Refuses: as recognise(), key_expired for a key that was rotated. Locks as start_session().';

select tollgate.expose('public.tollgate_sign_in_with_key(jsonb, text)');


create function tollgate.actor_of(caller jsonb, person tollgate.users) returns tollgate.caller
language plpgsql
stable
set search_path = ''
as $$
declare
  actor tollgate.caller;
begin
  actor.kind := 'session';
  actor.user_id := person.id;
  actor.org_id := person.org_id;
  actor.role := person.role;
  actor.environment := 'live';
  actor.scopes := (tollgate.key_of_session(null, person)).scopes;
  actor.ip := caller ->> 'ip';
  actor.user_agent := caller ->> 'user_agent';
  actor.request_id := caller ->> 'request_id';
  return actor;
end
$$;

comment on function tollgate.actor_of(jsonb, tollgate.users) is 'A user who signs in without a key, as an actor.';


create function tollgate.may_sign_in(person tollgate.users) returns boolean
language sql
stable
set search_path = ''
as $$
  select person.status = 'active' and exists (
    select from tollgate.orgs o where o.id = person.org_id and o.status = 'active'
  )
$$;

comment on function tollgate.may_sign_in(tollgate.users) is 'Whether the user and the org are active.';


create function public.tollgate_sign_in_with_link(caller jsonb, link jsonb, digest text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  person tollgate.users;
  used text;
begin
  delete from tollgate.sign_in_links l
  where l.digest in (select decode(d, 'hex') from jsonb_array_elements_text(link) d) and l.expires_at > now()
  returning l.user_id into used;
  select u.* into person from tollgate.users u where u.id = used;
  if tollgate.may_sign_in(person) is not true then
    perform tollgate.refuse(401, 'invalid_link');
  end if;
  return tollgate.start_session(caller, tollgate.actor_of(caller, person), 'link', digest);
end
$$;

comment on function public.tollgate_sign_in_with_link(jsonb, jsonb, text) is
  'Exchanges a sign-in link for a session, once: of two calls at the same time one is refused. `link` holds the digests of the token in the link, one for each active pepper. Refuses: invalid_link. Locks the link.';

select tollgate.expose('public.tollgate_sign_in_with_link(jsonb, jsonb, text)');


create function public.tollgate_sign_in_with_supabase(caller jsonb, email text, digest text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  person constant tollgate.users := (
    select u from tollgate.users u where lower(u.email) = lower(tollgate_sign_in_with_supabase.email)
  );
begin
  if tollgate.may_sign_in(person) is not true then
    perform tollgate.refuse(401, 'sign_in_failed', '{"way": "supabase"}');
  end if;
  return tollgate.start_session(caller, tollgate.actor_of(caller, person), 'supabase', digest);
end
$$;

comment on function public.tollgate_sign_in_with_supabase(jsonb, text, text) is
  'Starts a session for the user with this email, whose ownership Supabase Auth has verified. Refuses: sign_in_failed (no such user, or the user or org may not act). Locks as start_session().';

select tollgate.expose('public.tollgate_sign_in_with_supabase(jsonb, text, text)');


create function public.tollgate_create_sign_in_link(caller jsonb, person jsonb, digest text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_users tollgate.users[];
  whose tollgate.users;
  expiry timestamptz;
begin
  perform tollgate.check_recent_sign_in(actor);
  select array_agg(u) into found_users from tollgate.users u
  where tollgate.may_sign_in(u) and case
    when person ? 'user_id' then u.id = person ->> 'user_id'
    when person ? 'email' then lower(u.email) = lower(person ->> 'email')
    else u.role = 'admin'
  end;
  if found_users is null then
    perform tollgate.refuse_missing('user', coalesce(person ->> 'user_id', person ->> 'email', 'admin'));
  elsif cardinality(found_users) > 1 then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object('reason', 'several_admins', 'param', 'email'));
  end if;
  whose := found_users[1];
  if actor.key_id is not null and actor.user_id = whose.id then
    perform tollgate.refuse(403, 'permission_denied', jsonb_build_object('key_id', actor.key_id, 'param', 'user_id'));
  end if;

  delete from tollgate.sign_in_links l where l.user_id = whose.id and l.expires_at <= now();
  insert into tollgate.sign_in_links (digest, user_id) values (decode(digest, 'hex'), whose.id)
  returning expires_at into expiry;
  perform tollgate.record(actor, 'sign_in_link.created', whose.org_id, whose.id);
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'user_id', whose.id, 'email', whose.email, 'expires_at', tollgate.utc(expiry)
  );
end
$$;

comment on function public.tollgate_create_sign_in_link(jsonb, jsonb, text) is
  'Creates a link by which a user signs in once, within 10 minutes. `person` names the user by user_id or email; without either it is the only active admin. `digest` is that of the token in the link. A key makes no link for its own owner, since the session could do more than the key. For the console and admins. Refuses: as recognise(), sign_in_again, not_found, conflict (there are several admins), permission_denied. Locks nothing.';

select tollgate.expose('public.tollgate_create_sign_in_link(jsonb, jsonb, text)');


create function public.tollgate_end_session(caller jsonb, session_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, touch => false);
  gone tollgate.sessions;
begin
  delete from tollgate.sessions s
  where s.id = coalesce(tollgate_end_session.session_id, actor.session_id)
    and (s.user_id = actor.user_id or tollgate.operates(actor))
  returning s.* into gone;
  if found then
    perform tollgate.record(
      actor, 'session.ended', (select u.org_id from tollgate.users u where u.id = gone.user_id), gone.id
    );
  elsif session_id is not null then
    perform tollgate.refuse_missing('session', session_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'ended', (gone.id is not null)::integer);
end
$$;

comment on function public.tollgate_end_session(jsonb, text) is
  'Ends a session: one of the caller''s, or any for an operator. Null is the session of this call, if there is one. Answers how many were ended. Refuses: as recognise(), not_found. Locks the session.';

select tollgate.expose('public.tollgate_end_session(jsonb, text)');


create function tollgate.end_sessions(actor tollgate.caller, whose text, but text) returns integer
language plpgsql
set search_path = ''
as $$
declare
  ended text[];
begin
  with gone as (
    delete from tollgate.sessions s where s.user_id = whose and s.id is distinct from but returning s.id
  )
  select array_agg(g.id) into ended from gone g;
  perform tollgate.record(actor, 'session.ended', u.org_id, session_id)
  from unnest(ended) session_id, tollgate.users u where u.id = whose;
  return coalesce(cardinality(ended), 0);
end
$$;

comment on function tollgate.end_sessions(tollgate.caller, text, text) is
  'Ends all sessions of a user but one, and answers how many. Locks the sessions.';


create function public.tollgate_end_sessions(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, touch => false);
begin
  return jsonb_build_object('caller', tollgate.identity(actor), 'ended', tollgate.end_sessions(actor, actor.user_id, null));
end
$$;

comment on function public.tollgate_end_sessions(jsonb) is
  'Ends all sessions of the caller''s user, this one included. Refuses: as recognise(). Locks the sessions.';

select tollgate.expose('public.tollgate_end_sessions(jsonb)');


-- schemas/18_privileges/revoke.sql

-- Postgres lets everyone execute a new function; only owners may execute the inner ones.

revoke execute on all functions in schema tollgate from public;

insert into tollgate.schema_version (version) values ('20261130000000');
reset check_function_bodies;

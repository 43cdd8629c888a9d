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

-- Helpers of functions that change a row.

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


create function tollgate.one_by_one() returns void
language sql
set search_path = ''
as $$
  select pg_advisory_xact_lock(hashtextextended('tollgate_people', 0))
$$;

comment on function tollgate.one_by_one() is
  'Lets changes of people and plans through one after the other, so that each sees what the one before did: two admins cannot demote each other at once, nor a plan change while an org takes it up. Takes an advisory lock until the transaction ends.';


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
  'A new id such as org_0193…: 12 hex digits of milliseconds, so that indexes fill in order, and 16 random ones.';


-- schemas/01_foundation/inputs.sql

-- Values read from a JSON argument, checked.

create function tollgate.given_text(given jsonb, field text, shape text) returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  if jsonb_typeof(given) is distinct from 'string' or given #>> '{}' !~ shape then
    perform tollgate.refuse_field(field, 'has not the form it must have');
  end if;
  return given #>> '{}';
end
$$;

comment on function tollgate.given_text(jsonb, text, text) is
  'A text of one shape, never null. Refuses: invalid_request.';


create function tollgate.given_texts(given jsonb, field text, shape text) returns text[]
language plpgsql
immutable
set search_path = ''
as $$
begin
  if jsonb_typeof(given) = 'null' then
    return null;
  elsif jsonb_typeof(given) is distinct from 'array' then
    perform tollgate.refuse_field(field, 'must be a list');
  elsif jsonb_array_length(given) > 100 then
    perform tollgate.refuse_field(field, 'has more than 100 entries');
  elsif exists (
    select from jsonb_array_elements(given) e where jsonb_typeof(e.value) <> 'string' or e.value #>> '{}' !~ shape
  ) then
    perform tollgate.refuse_field(field, 'has an entry that cannot be one');
  end if;
  return array(select e.value from jsonb_array_elements_text(given) with ordinality e (value, place) order by e.place);
end
$$;

comment on function tollgate.given_texts(jsonb, text, text) is
  'A list of texts of one shape, or null. Refuses: invalid_request.';


create function tollgate.given_number(given jsonb, field text, most bigint) returns bigint
language plpgsql
immutable
set search_path = ''
as $$
begin
  if jsonb_typeof(given) = 'null' then
    return null;
  elsif jsonb_typeof(given) is distinct from 'number' or given::numeric % 1 <> 0
    or given::numeric not between 0 and most
  then
    perform tollgate.refuse_field(field, 'must be a whole number from 0 to ' || most);
  end if;
  return given::numeric::bigint;
end
$$;

comment on function tollgate.given_number(jsonb, text, bigint) is
  'A whole number, or null. Refuses: invalid_request.';


create function tollgate.given_networks(given jsonb, field text) returns cidr[]
language plpgsql
immutable
set search_path = ''
as $$
begin
  return tollgate.given_texts(given, field, '^[0-9a-fA-F.:/]{2,43}$')::cidr[];
exception when invalid_text_representation then
  perform tollgate.refuse_field(field, 'has an entry that is no network');
end
$$;

comment on function tollgate.given_networks(jsonb, text) is
  'A list of networks, or null. Bits behind the mask are refused: whoever wrote 10.0.0.5/8 meant another network. Refuses: invalid_request.';


create function tollgate.given_metadata(given jsonb, field text) returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  if jsonb_typeof(given) = 'null' then
    return '{}';
  elsif jsonb_typeof(given) is distinct from 'object' then
    perform tollgate.refuse_field(field, 'must be an object');
  elsif (select count(*) from jsonb_object_keys(given)) > 16 or exists (
    select from jsonb_each(given) e
    where length(e.key) not between 1 and 64 or length(e.value #>> '{}') > 500
      or jsonb_typeof(e.value) not in ('string', 'number', 'boolean')
  ) then
    perform tollgate.refuse_field(field,
      'must be flat, with at most 16 names of 1 to 64 characters, and texts, numbers or booleans of at most 500');
  end if;
  return given;
end
$$;

comment on function tollgate.given_metadata(jsonb, text) is
  'A small flat object. Replaced as a whole; null empties it. Refuses: invalid_request.';


create function tollgate.given_time_to_come(given jsonb, field text) returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
declare
  moment timestamptz;
begin
  if jsonb_typeof(given) = 'null' then
    return null;
  elsif jsonb_typeof(given) is distinct from 'string'
    or given #>> '{}' !~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)$'
  then
    perform tollgate.refuse_field(field, 'must be a time as in RFC 3339');
  end if;
  begin
    moment := (given #>> '{}')::timestamptz;
  exception when datetime_field_overflow or invalid_datetime_format or invalid_time_zone_displacement_value then
    perform tollgate.refuse_field(field, 'is no time of any day');
  end;
  if moment <= clock_timestamp() then
    perform tollgate.refuse_field(field, 'is in the past');
  end if;
  return moment;
end
$$;

comment on function tollgate.given_time_to_come(jsonb, text) is
  'A time after this moment, or null. Refuses: invalid_request.';


create function tollgate.wanted(filters jsonb, columns text[]) returns text
language sql
immutable
set search_path = ''
as $$
  select coalesce(string_agg(format(' and t.%I = %L', f.key, f.value), '' order by f.key), '')
  from jsonb_each_text(filters) f
  where f.key = any (columns)
$$;

comment on function tollgate.wanted(jsonb, text[]) is 'The filters on these columns as a condition on `t`.';


-- schemas/01_foundation/pages.sql

-- Pages of a list, sorted by a key.

create function tollgate.listed(
  source text,
  entry text,
  condition text,
  sortings jsonb,
  filters jsonb,
  page_size integer
) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  cursor_id text := filters ->> 'cursor';
  sorted_by text := sortings ->> split_part(filters ->> 'sort', ':', 1);
  direction text := split_part(filters ->> 'sort', ':', 2);
  known boolean;
  page jsonb;
begin
  if sorted_by is null or direction not in ('asc', 'desc') then
    perform tollgate.refuse(400, 'invalid_request', '{"param": "sort"}');
  end if;
  if cursor_id is not null then
    execute format('select exists (select from %s e where e.id = $1)', source) into known using cursor_id;
    if not known then
      perform tollgate.refuse(400, 'invalid_request', '{"param": "cursor"}');
    end if;
  end if;

  execute format(
    $query$
      with matching as (
        select e, e.id, %2$s as place from %1$s e where %3$s
      ),
      page as (
        select m.e, m.id, row_number() over (order by m.place %5$s, m.id %5$s) as nth
        from matching m
        where $2 is null or (m.place, m.id) %6$s (select %2$s, e.id from %1$s e where e.id = $2)
        order by m.place %5$s, m.id %5$s
        limit $3 + 1
      )
      select jsonb_build_object(
        'data', coalesce(jsonb_agg(%4$s(p.e) order by p.nth) filter (where p.nth <= $3), '[]'),
        'next_cursor', case when count(*) > $3 then max(p.id) filter (where p.nth = $3) end,
        'total', (select count(*) from matching)
      )
      from page p
    $query$,
    source, sorted_by, condition, entry, direction, case direction when 'asc' then '>' else '<' end
  ) into page using filters, cursor_id, page_size;
  return page;
end
$$;

comment on function tollgate.listed(text, text, text, jsonb, jsonb, integer) is
  'A page of a table by keyset. The table is called e; `entry` names the function that shows a row, `condition` says which rows, with the filters as $1, `sortings` which expression stands behind each word that may be sorted by; the id breaks ties. The filter `sort` is <word>:asc or <word>:desc. All but the filters are constants of the caller. Refuses: invalid_request for an unknown sorting or cursor. Locks nothing.';


create function tollgate.sort_key(sort text, name text, created_at timestamptz) returns text
language sql
immutable
set search_path = ''
as $$
  select case split_part(sort, ':', 1) when 'created_at'
    then to_char(created_at at time zone 'utc', 'YYYYMMDDHH24MISSUS') else name end collate "C"
$$;

comment on function tollgate.sort_key(text, text, timestamptz) is
  'What a list of few is sorted by: its name, or when it was made. `sort` is one of the two and its direction, as created_at:desc.';


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
  'Refuses the whole call: never returns. PostgREST turns PT<status> into that HTTP status; the direct door reads it as sqlstate. `code` is a code of core/errors.py, `facts` become fields of the error.';


create function tollgate.refusal(status integer, code text, facts jsonb default '{}') returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('status', status, 'code', code, 'facts', facts)
$$;

comment on function tollgate.refusal(integer, text, jsonb) is
  'The same as a value, for functions that answer many at once: there one refusal must not fail its neighbours.';


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
  'Refuses a call for one of its fields: never returns. Says what is wrong with it, and not what it was.';


create function tollgate.refuse_unknown(given jsonb, known text[]) returns void
language plpgsql
set search_path = ''
as $$
declare
  unknown text;
begin
  select k into unknown from jsonb_object_keys(given) k where k <> all (known) order by 1 limit 1;
  if found then
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', unknown));
  end if;
end
$$;

comment on function tollgate.refuse_unknown(jsonb, text[]) is
  'Refuses, with invalid_request, a field that would go unheeded.';


create function tollgate.not_there(kind text, id text) returns void
language sql
set search_path = ''
as $$
  select tollgate.refuse(404, 'not_found', jsonb_build_object('kind', kind, 'id', id))
$$;

comment on function tollgate.not_there(text, text) is 'Refuses the call since there is no such thing.';


-- schemas/01_foundation/time.sql

-- Moments, and the periods they lie in.

create function tollgate.utc(moment timestamptz) returns text
language sql
immutable
set search_path = ''
as $$
  select to_char(moment at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
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
  'The first hour, day or month (UTC) that does not begin before a moment.';


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
  kind text, -- key | console | system
  key_id text,
  user_id text,
  org_id text,
  role text,
  environment text,
  scopes text[],
  name text, -- the console command or the part of the system, when no key acts
  ip inet,
  user_agent text,
  request_id text
);

comment on type tollgate.caller is 'Who acts in a call: a recognised key, an operator at the console, or Tollgate itself.';


create table tollgate.audit_events (
  id text primary key default tollgate.new_id('evt'),
  occurred_at timestamptz not null default clock_timestamp(),
  actor_kind text not null check (actor_kind in ('key', 'console', 'system')),
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

comment on table tollgate.chain_starts is 'Where a chain begins: transfers up to position, and audit events before started_at, may have no link. They were there before the chain.';

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

comment on table tollgate.event_links is 'The hash chain of the audit trail: chain is sha256(chain of the previous link || the event as text); positions have no gaps. In a table of its own, since an event is linked when its transaction commits and never changed after it was written.';

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


create type tollgate.limits as (
  requests_per_minute bigint,
  requests_per_hour bigint,
  requests_per_day bigint,
  tokens_per_minute bigint,
  tokens_per_hour bigint,
  tokens_per_day bigint
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

-- What one column must be is said by its domain in the tables that requests write (orgs, transfers, requests): Postgres
-- parses a table's own checks anew for every statement that writes to it, whichever columns it writes. A domain is
-- parsed once per connection, and looked at only where its column is written.
create domain tollgate.org_id as text check (value ~ '^org_[a-z0-9]{1,64}$');
create domain tollgate.name as text check (length(value) between 1 and 200);
create domain tollgate.org_status as text check (value in ('active', 'suspended'));
create domain tollgate.markup_ppm as integer check (value between 0 and 100000000);
create domain tollgate.not_negative as bigint check (value >= 0);

create table tollgate.plans (
  id text primary key check (id ~ '^[a-z][a-z0-9_-]{0,62}$'),
  name text not null check (length(name) between 1 and 200),
  description text not null default '',
  markup_ppm integer check (markup_ppm between 0 and 100000000),
  requests_per_minute bigint check (requests_per_minute between 0 and 100000000000),
  requests_per_hour bigint check (requests_per_hour between 0 and 100000000000),
  requests_per_day bigint check (requests_per_day between 0 and 100000000000),
  tokens_per_minute bigint check (tokens_per_minute between 0 and 100000000000),
  tokens_per_hour bigint check (tokens_per_hour between 0 and 100000000000),
  tokens_per_day bigint check (tokens_per_day between 0 and 100000000000),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  max_concurrent_requests bigint check (max_concurrent_requests between 0 and 100000000000)
);

comment on table tollgate.plans is 'Named sets of limits and a markup. A null limit is no limit; a null markup is the setting MARKUP.';
comment on column tollgate.plans.markup_ppm is 'Markup in parts per million of the cost: 50000 is 5 %.';
comment on column tollgate.plans.max_concurrent_requests is 'How many requests an org on the plan may have open at once; null is no bound.';

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
  max_concurrent_requests bigint,
  open_requests bigint not null default 0,
  quarantined_at timestamptz,
  paid_suspended_at timestamptz,
  paid_suspended_reason text,
  chain_head bytea
) with (fillfactor = 50); -- rewritten with every batch of requests, so its pages keep room for the next version

create index orgs_plan_id on tollgate.orgs (plan_id);

comment on table tollgate.orgs is 'Who pays. balance_nanos always equals the org''s transfers, held_nanos its open holds; available = balance − held.';
comment on column tollgate.orgs.markup_ppm is 'The org''s own markup in parts per million; null follows the plan.';
comment on column tollgate.orgs.limits is 'What requests are held to: limits_set with the plan''s limits where it says nothing; null follows the plan in all.';
comment on column tollgate.orgs.limits_set is 'What an operator set. A null in it follows the plan; null is nothing set.';
comment on column tollgate.orgs.max_concurrent_requests is 'The org''s own bound of open requests; null follows the plan.';
comment on column tollgate.orgs.open_requests is 'Requests whose hold has not ended, held and unsettled ones: as many as the org has rows in tollgate.holds.';
comment on column tollgate.orgs.quarantined_at is 'When a request of the org was last settled as quarantined, unless an operator has set paid calls going since.';
comment on column tollgate.orgs.paid_suspended_at is 'Since when paid calls are refused; null while they are served. Everything else goes on.';
comment on column tollgate.orgs.paid_suspended_reason is 'quarantined_usage, or operator; null while paid calls are served.';
comment on column tollgate.orgs.chain_head is 'The chain of the org''s last transfer.';

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
  unique (id, org_id) -- lets a key point at its user and its org at once
);

create unique index users_email on tollgate.users (lower(email));
create index users_org_id on tollgate.users (org_id);

comment on table tollgate.users is 'People. Each belongs to one org; an admin operates the whole installation.';
comment on column tollgate.users.deleted_at is 'When the user was deleted. The row stays while the org does, disabled and without name or address, since keys and requests point at it.';

alter table tollgate.users enable row level security;


-- schemas/06_keys/tables.sql

create table tollgate.api_keys (
  id text primary key default tollgate.new_id('key') check (id ~ '^key_[a-z0-9]{1,64}$'),
  org_id text not null,
  user_id text not null,
  name text not null check (length(name) between 1 and 200),
  digest bytea not null unique check (length(digest) = 32),
  pepper text not null check (pepper ~ '^[0-9a-f]{8}$'),
  prefix text not null check (length(prefix) between 1 and 16),
  last_four text not null check (length(last_four) = 4),
  environment text not null default 'live' check (environment in ('live', 'test')),
  scopes text[] not null,
  ip_allowlist cidr[],
  expires_at timestamptz,
  disabled_at timestamptz,
  revoked_at timestamptz,
  last_used_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  limits tollgate.limits,
  counters tollgate.counters,
  allowed_models text[],
  budget_nanos bigint check (budget_nanos >= 0),
  budget_reset text check (budget_reset in ('daily', 'weekly', 'monthly', 'never')),
  budget_period date,
  budget_spent_nanos bigint not null default 0,
  tokens_per_month bigint check (tokens_per_month >= 0),
  tokens_in_all bigint check (tokens_in_all >= 0),
  month_of_tokens date,
  tokens_used_in_month bigint not null default 0,
  tokens_used_in_all bigint not null default 0,
  counted boolean not null generated always as (
    budget_nanos is not null or tokens_per_month is not null or tokens_in_all is not null or not limits is null
  ) stored,
  metadata jsonb not null default '{}',
  rotated_from text,
  rotated_to text,
  line text,
  max_concurrent_requests bigint,
  open_requests bigint not null default 0,
  foreign key (user_id, org_id) references tollgate.users (id, org_id) on update cascade
);

create index api_keys_user_id on tollgate.api_keys (user_id, org_id);
create index api_keys_org_id on tollgate.api_keys (org_id);
create index api_keys_line on tollgate.api_keys (line) where line is not null;

comment on table tollgate.api_keys is 'Keys, never their secrets: a digest to find them by, a prefix and four characters to show.';
comment on column tollgate.api_keys.pepper is 'Fingerprint of the pepper of this digest: tells which keys still hang on an old one.';
comment on column tollgate.api_keys.ip_allowlist is 'Networks the key may be used from; null is anywhere.';
comment on column tollgate.api_keys.limits is 'The key''s own limits, within the org''s; null is none.';
comment on column tollgate.api_keys.allowed_models is 'Patterns (* stands for anything) of the models the key may use; null is all.';
comment on column tollgate.api_keys.budget_spent_nanos is 'Charges and open holds since budget_period began.';
comment on column tollgate.api_keys.counted is 'Whether the key has limits, a budget or a quota of its own. The row of any other is left alone by requests.';
comment on column tollgate.api_keys.metadata is 'The owner''s own notes: a small flat object.';
comment on column tollgate.api_keys.rotated_from is 'The key whose place this one took.';
comment on column tollgate.api_keys.rotated_to is 'The key that took its place; this one ends at expires_at.';
comment on column tollgate.api_keys.line is 'The first key of all that took each other''s place; null if none did.';
comment on column tollgate.api_keys.max_concurrent_requests is 'How many requests the key, and those it took the place of, may have open at once; null is no bound of its own.';
comment on column tollgate.api_keys.open_requests is 'Open requests of the key and of those it took the place of; 0 while the key has no bound.';

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
comment on column tollgate.transfers.position is 'The order in which an org''s transfers were made: drawn while the org is locked. An id shows it as trf_<position>.';
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
  'Whether these are prices in OpenRouter''s shape: plain decimal strings, US dollars per token or piece, none negative, prompt and completion among them.';


create table tollgate.upstreams (
  id text primary key default tollgate.new_id('ups') check (id ~ '^ups_[a-z0-9]{1,64}$'),
  name text not null check (length(name) between 1 and 200),
  base_url text not null check (length(base_url) <= 2000 and base_url ~ '^https?://[^[:space:]/@?#]+(/[^[:space:]@?#]*[^[:space:]/@?#])?$'),
  dialect text not null check (dialect in ('vllm', 'sglang', 'llamacpp', 'tgi', 'openai')),
  secret_name text check (secret_name ~ '^[A-Z][A-Z0-9_]{0,127}$'),
  concurrency integer check (concurrency between 1 and 100000),
  connect_seconds double precision not null default 5 check (connect_seconds between 0.1 and 60),
  first_byte_seconds double precision not null default 120 check (first_byte_seconds between 0.1 and 86400),
  idle_seconds double precision not null default 120 check (idle_seconds between 0.1 and 86400),
  health_path text check (length(health_path) <= 2000 and health_path ~ '^/[^[:space:]?#]*$'),
  state text not null default 'active' check (state in ('active', 'disabled')),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint upstreams_secret_name_is_not_ours check (
    secret_name !~ '^(KEY_PEPPER|CRON_SECRET|DATABASE_|SUPABASE_|OPENROUTER_|REDIS_|TOLLGATE_)'
  )
);

comment on table tollgate.upstreams is 'Servers of our own, which speak OpenAI''s API. OpenRouter is none of them: it comes from the settings.';
comment on column tollgate.upstreams.secret_name is 'The environment variable that holds the server''s key; the key itself is never here.';

alter table tollgate.upstreams enable row level security;


create table tollgate.routes (
  id text primary key default tollgate.new_id('rte') check (id ~ '^rte_[a-z0-9]{1,64}$'),
  model text not null check (length(model) between 1 and 256 and model ~ '^[[:graph:]]+$' and model !~ '/.*/'),
  upstream_id text not null references tollgate.upstreams (id),
  upstream_model text not null check (length(upstream_model) between 1 and 256 and upstream_model ~ '^[[:graph:]]+$'),
  pricing jsonb not null check (tollgate.is_pricing(pricing)),
  context_tokens bigint check (context_tokens between 1 and 1000000000),
  most_output bigint check (most_output between 1 and 1000000000),
  priority integer not null default 50 check (priority between 0 and 1000),
  weight integer not null default 1 check (weight between 1 and 1000),
  listing jsonb not null default '{}' check (jsonb_typeof(listing) = 'object' and length(listing::text) <= 20000),
  state text not null default 'active' check (state in ('active', 'disabled')),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (model, upstream_id)
);

create index routes_upstream_id on tollgate.routes (upstream_id);

comment on table tollgate.routes is 'Which of our own servers serves which model, and at what price. A model that OpenRouter lists too has its route there besides, with priority 100.';
comment on column tollgate.routes.pricing is 'In OpenRouter''s shape: US dollars as decimal strings, per token, request or piece.';
comment on column tollgate.routes.priority is 'Lower ones first; within one, at random by weight.';
comment on column tollgate.routes.listing is 'What GET /v1/models says of it beyond what is known: name, description, architecture, supported_parameters.';

alter table tollgate.routes enable row level security;


create table tollgate.probes (
  upstream_id text primary key references tollgate.upstreams (id) on delete cascade,
  status text not null check (status in ('up', 'down')),
  http_status integer check (http_status between 100 and 999),
  latency_ms integer check (latency_ms >= 0),
  error text check (length(error) between 1 and 500),
  probed_at timestamptz not null default clock_timestamp()
);

comment on table tollgate.probes is 'How each of our own servers was when an operator last had it asked.';
comment on column tollgate.probes.latency_ms is 'Until the head of its answer came; null when none did.';

alter table tollgate.probes enable row level security;


-- schemas/09_catalog/tables.sql

create table tollgate.snapshots (
  source text primary key check (length(source) between 1 and 2000),
  taken_at timestamptz not null
);

comment on table tollgate.snapshots is 'When the list of models of each source (its address) was last taken. Locked by whoever replaces it.';

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

comment on table tollgate.listings is 'The models of a snapshot, one row each, so that a cold instance reads one.';
comment on column tollgate.listings.also is 'The model''s canonical name, where that is another.';
comment on column tollgate.listings.listing is 'As the source listed it; JSON in text, since nothing here looks into it and jsonb takes no NUL.';

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
  primary key (cut, start, org_id, user_id, key_id, model, upstream)
)
partition by list (cut);

create index tallies_org on tollgate.tallies (org_id, start) where org_id <> '';

comment on table tollgate.tallies is 'Ended requests counted by the hour, day and month (UTC) they were made in. Each is in all eight cuts: hour, day and month tell org, user, key, model and upstream apart, …_model only the last two, …_key only the first three; what a cut does not tell apart is empty. A cut is a partition of its own: who reads the month''s keys meets no other rows.';

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

comment on table tollgate.latencies is 'How long requests without an error took, in buckets that are 5 % wide. Each is in all three cuts; only day_model tells model and upstream apart.';

alter table tollgate.latencies enable row level security;


-- Days and months are counted up page by page: rows that find room beside themselves need no new entry in an index.
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


create table tollgate.flows (
  hour timestamptz not null,
  kind text not null,
  debit text not null,
  credit text not null,
  transfers bigint not null,
  amount_nanos numeric not null,
  primary key (hour, kind, debit, credit)
);

comment on table tollgate.flows is 'The ledger summed up by the hour (UTC) its transfers were made in.';

alter table tollgate.flows enable row level security;


create table tollgate.late_requests (
  request_id text primary key,
  created_at timestamptz not null
);

comment on table tollgate.late_requests is 'Requests that were still open when their time was rolled up; counted, and gone from here, when they have ended.';

alter table tollgate.late_requests enable row level security;


create table tollgate.rolled (
  single boolean primary key default true check (single),
  rolled_until timestamptz not null default '-infinity',
  sighted_at timestamptz,
  sighted_xid xid8,
  complete_until timestamptz not null default '-infinity',
  sighted_position bigint,
  complete_position bigint not null default 0,
  flowed_until bigint not null default 0,
  dropped_until timestamptz not null default '-infinity'
);

comment on table tollgate.rolled is 'How far requests and transfers are rolled up: one row, locked by whoever does it.';
comment on column tollgate.rolled.rolled_until is 'Requests made before are in the tallies, or late.';
comment on column tollgate.rolled.sighted_xid is 'A transaction that began at sighted_at or after. When none before it runs any more, no request made before sighted_at can still appear.';
comment on column tollgate.rolled.complete_until is 'Every request made before is there to be seen.';
comment on column tollgate.rolled.sighted_position is 'The newest transfer drawn before sighted_xid was.';
comment on column tollgate.rolled.complete_position is 'Every transfer up to it is there to be seen.';
comment on column tollgate.rolled.flowed_until is 'Transfers up to this position are in the flows, and no other.';
comment on column tollgate.rolled.dropped_until is 'Requests made before may have been dropped: hours are no longer divided there.';

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
  last_at timestamptz
);

comment on type tollgate.usage is 'What was used, by whatever was asked for; the rest of start … upstream is null.';


create type tollgate.piece as (of_what text, beginning timestamptz, ending timestamptz);

comment on type tollgate.piece is 'A part of a time, and what to read of it: request, late, hour, day or month.';


create type tollgate.latency as (
  requests bigint,
  average_ms numeric,
  p50_ms bigint,
  p90_ms bigint,
  p95_ms bigint,
  p99_ms bigint
);

comment on type tollgate.latency is 'How long requests took; nulls where there were none.';


-- schemas/11_content/tables.sql

create table tollgate.contents (
  request_id text primary key,
  org_id text not null,
  prompt text,
  answer text,
  created_at timestamptz not null default clock_timestamp()
);

create index contents_age on tollgate.contents (created_at);

comment on table tollgate.contents is 'What was asked and answered: no more than its beginning, its secrets hidden before it came here. No checks and no foreign key: it is written where money is settled, which nothing that somebody said may keep from being done.';

alter table tollgate.contents enable row level security;


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


-- schemas/14_security/tables.sql

create table tollgate.security_events (
  id text primary key default tollgate.new_id('sec') check (id ~ '^sec_[a-z0-9]{1,64}$'),
  kind text not null check (kind in (
    'key_created', 'key_rotated', 'key_revoked', 'authentication_failed', 'limit_exceeded', 'ip_refused',
    'org_overdrawn', 'org_paid_suspended', 'usage_quarantined', 'many_networks', 'usage_spike', 'many_failures'
  )),
  severity text not null check (severity in ('info', 'warning', 'critical')),
  subject_kind text not null check (subject_kind in ('org', 'key', 'address')),
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

comment on table tollgate.security_events is 'What an operator should look at: one row for a kind and a subject until it is acknowledged, counting how often and when it was seen.';
comment on column tollgate.security_events.subject is 'An org''s or key''s id, or an address: `unknown` where nothing names one, `others` for those beyond the ten thousandth.';
comment on column tollgate.security_events.count_in_hour is 'How often within the hour (UTC) in which it was last seen.';

alter table tollgate.security_events enable row level security;


create table tollgate.key_networks (
  key_id text not null,
  network cidr not null,
  first_seen_at timestamptz not null,
  last_seen_at timestamptz not null,
  primary key (key_id, network)
);

comment on table tollgate.key_networks is 'From where keys were used: at most 200 networks of a key, /24 or /48, for 30 days. last_seen_at moves once an hour.';

alter table tollgate.key_networks enable row level security;


create table tollgate.lookout (
  one boolean primary key default true check (one),
  looked_at timestamptz not null default '-infinity',
  quarantined_until timestamptz not null default now() - interval '30 days'
);

comment on table tollgate.lookout is 'How far patterns were looked for: one row, locked by whoever looks.';
comment on column tollgate.lookout.quarantined_until is 'Requests that were quarantined before have their event.';

alter table tollgate.lookout enable row level security;

insert into tollgate.lookout default values;


-- schemas/16_monitor/tables.sql

create table tollgate.leading (
  org_id text not null,
  key_id text not null,
  requests bigint not null,
  tokens bigint not null,
  charge_nanos bigint not null,
  cost_nanos bigint not null
);

comment on table tollgate.leading is 'What each key used in the time that tollgate.led says: some 30 days, so that who leads is not reckoned each time from all days of all keys.';

alter table tollgate.leading enable row level security;


create table tollgate.led (
  single boolean primary key default true check (single),
  since timestamptz,
  until timestamptz
);

comment on table tollgate.led is 'Of which time the rows of tollgate.leading are. One row, locked by whoever renews them.';

alter table tollgate.led enable row level security;

insert into tollgate.led default values;


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
  'What is hashed of an audit event: all its columns as a row of Postgres, the time in seconds since the epoch.';


create function tollgate.link_event() returns trigger
language plpgsql
security definer -- a deferred trigger runs at the commit, outside of the functions that may write here
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
    when key.disabled_at is not null or owner_status <> 'active' or org_status <> 'active' then 'key_disabled'
    when key.expires_at <= now() then 'key_expired'
    when key.ip_allowlist is not null and ((caller ->> 'ip')::inet <<= any (key.ip_allowlist)) is not true
      then 'ip_not_allowed'
    when scope <> all (key.scopes) or (scope = 'admin' and owner_role <> 'admin') then 'permission_denied'
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
  'The caller behind a request, if it may do what `scope` names. Refuses, as a value: as key_refusal(). Locks nothing.';


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
  end if;
  return recognition.actor;
end
$$;

comment on function tollgate.recognise(jsonb, text, boolean) is
  'As identify(), for functions that serve one caller: a refusal ends the call. Touches the key unless `touch` is false. A function that locks orgs passes false, and touches the key after it has locked the org.';


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
  'Whether the caller acts for the whole installation: the console, or an admin with a key that has the scope admin.';


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


create function tollgate.limited(windows jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_object_agg(m.key, (
    select jsonb_object_agg(w.key, case when w.value -> 'limit' <> 'null' then w.value end) from jsonb_each(m.value) w
  ))
  from jsonb_each(windows) m
$$;

comment on function tollgate.limited(jsonb) is 'The answer of windows(), with null for each window that has no limit.';


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
begin
  for place in 1..6 loop
    continue when most[place] is null;
    need := case when place <= 3 then 1 else tokens end;
    wait := tollgate.window_wait(
      current[place], before[place], spans[(place - 1) % 3 + 1], at_ms, need, most[place]
    );
    if wait is null or wait > longest then
      worst := jsonb_build_object(
        'window', (array['minute', 'hour', 'day'])[(place - 1) % 3 + 1],
        'measure', case when place <= 3 then 'requests' else 'tokens' end,
        'limit', most[place],
        'needed', need,
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
  key_id text default null
) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select tollgate.refusal(429, 'rate_limit_exceeded', tollgate.limit_exceeded(counters, limits, at_ms, tokens) || case
    when key_id is null then '{"of": "org"}' else jsonb_build_object('of', 'key', 'key_id', key_id)
  end)
$$;

comment on function tollgate.rate_refusal(tollgate.counters, tollgate.limits, bigint, bigint, text) is
  'The refusal of a request of so many tokens by the windows of an org or, if `key_id` is given, of a key.';


-- schemas/05_people/change_org.sql

-- Changes of an org, and of its plan.
--
-- Changes of orgs, users and plans go one after the other: each takes an advisory lock, which requests do not take.
-- Lock order: the advisory lock, orgs in id order, plan, user, key.

create function tollgate.keep_an_admin() returns void
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

comment on function tollgate.keep_an_admin() is
  'Refuses a change after which no admin could come in any more: none active, in an active org, with a key of scope admin that works. Called after the change, which the refusal undoes.';


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
  perform tollgate.one_by_one();
  select o.* into was from tollgate.orgs o where o.id = change_org.org_id for no key update;
  if not found then
    perform tollgate.not_there('org', org_id);
  end if;
  was.limits_set := coalesce(was.limits_set, was.limits);

  org := was;
  org.name := coalesce(changes ->> 'name', was.name);
  org.status := coalesce(changes ->> 'status', was.status);
  org.plan_id := coalesce(changes ->> 'plan', was.plan_id);
  if changes ? 'markup_ppm' then
    org.markup_ppm := (changes ->> 'markup_ppm')::integer;
  end if;
  if changes ? 'limits' then
    org.limits_set := tollgate.limits_with(was.limits_set, changes -> 'limits');
  end if;
  if changes ? 'max_concurrent_requests' then
    org.max_concurrent_requests := (changes ->> 'max_concurrent_requests')::bigint;
  end if;
  if changes ->> 'paid_calls' = 'active' then
    org.paid_suspended_at := null;
    org.paid_suspended_reason := null;
    org.quarantined_at := null;
  elsif changes ->> 'paid_calls' = 'suspended' and was.paid_suspended_at is null then
    org.paid_suspended_at := now();
    org.paid_suspended_reason := 'operator';
  end if;
  details := tollgate.what_changed(to_jsonb(was), to_jsonb(org));
  if details = '{}' then
    return was;
  end if;

  select p.* into plan from tollgate.plans p where p.id = org.plan_id for key share;
  if not found then
    perform tollgate.not_there('plan', org.plan_id);
  end if;
  update tollgate.orgs o set
    name = org.name,
    status = org.status,
    plan_id = org.plan_id,
    markup_ppm = org.markup_ppm,
    limits_set = org.limits_set,
    limits = tollgate.in_force(org.limits_set, plan),
    max_concurrent_requests = org.max_concurrent_requests,
    quarantined_at = org.quarantined_at,
    paid_suspended_at = org.paid_suspended_at,
    paid_suspended_reason = org.paid_suspended_reason,
    updated_at = now()
  where o.id = was.id
  returning * into org;
  perform tollgate.record(actor, 'org.updated', was.id, was.id, details);
  if org.status <> 'active' and was.status = 'active' then
    perform tollgate.keep_an_admin();
  end if;
  return org;
end
$$;

comment on function tollgate.change_org(tollgate.caller, text, jsonb) is
  'Changes what `changes` names of an org: name, plan, status, markup_ppm (null follows the plan), limits (those it names; a null follows the plan), max_concurrent_requests (null follows the plan), paid_calls (active, suspended). They hold for the next admission. What is so already changes and records nothing. Refuses: not_found (org, plan), conflict (the last admin would be shut out). Locks as said above, the org among it.';


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
  'Changes an org. Suspending it stops its keys at once; requests that are running end as usual. For the console and admins. Refuses: as recognise() and change_org(). Locks as change_org().';

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
  -- `not … is null`: whether any of the six is there; `is not null` would ask for all.
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
  'The limits that requests of an org are held to: its own, and where it has none of its own the plan''s. Null when it has none at all and follows the plan in everything.';


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
  'The limits as a change leaves them: those it names are replaced, or taken away by a null; a null for all of them takes all away.';


create function tollgate.limits_shown(limits tollgate.limits) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select to_jsonb(coalesce(limits, row(null, null, null, null, null, null)::tollgate.limits))
$$;

comment on function tollgate.limits_shown(tollgate.limits) is 'The six by name, null each where nothing is set.';


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

comment on function tollgate.limits_of(tollgate.orgs) is 'The limits that admission holds an org to: its own, or its plan''s.';


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
    'limits', tollgate.limits_shown(coalesce(org.limits_set, org.limits)),
    'max_concurrent_requests', org.max_concurrent_requests,
    'open_requests', org.open_requests,
    'paid_calls', case when org.paid_suspended_at is null then 'active' else 'suspended' end,
    'paid_suspended_at', tollgate.utc(org.paid_suspended_at),
    'paid_suspended_reason', org.paid_suspended_reason,
    'credits', trim_scale(org.balance_nanos / 1000000000.0),
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
      perform tollgate.not_there('user', subject ->> 'user_id');
    end if;
  end if;
  return org_id;
end
$$;

comment on function tollgate.org_of(jsonb) is 'The org that `subject` names: itself as org_id, or one of its users as user_id.';


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
    perform tollgate.not_there('plan', plan_id);
  end if;
  insert into tollgate.orgs (name, plan_id) values (org ->> 'name', plan_id) returning * into made;
  perform tollgate.record(actor, 'org.created', made.id, made.id, org);
  return made;
end
$$;

comment on function tollgate.add_org(tollgate.caller, jsonb) is
  'Inserts an org and its audit event. `org` holds name and, unless it is free, plan. Refuses: not_found (plan). Locks the plan against its end.';


create function public.tollgate_create_org(caller jsonb, org jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
begin
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.org_shown(tollgate.add_org(actor, org));
end
$$;

comment on function public.tollgate_create_org(jsonb, jsonb) is
  'Makes an org. For the console and admins. Refuses: as recognise(), not_found (plan). Locks the plan against its end.';

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
  perform tollgate.one_by_one();
  select o.* into org from tollgate.orgs o where o.id = tollgate_delete_org.org_id for update;
  if not found then
    perform tollgate.not_there('org', org_id);
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

  delete from tollgate.api_keys k where k.org_id = org.id; -- of users who were deleted: all revoked
  delete from tollgate.users u where u.org_id = org.id;
  delete from tollgate.orgs o where o.id = org.id;
  perform tollgate.record(actor, 'org.deleted', org.id, org.id,
    jsonb_build_object('name', org.name, 'plan', org.plan_id));
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', org.id, 'deleted', true);
end
$$;

comment on function public.tollgate_delete_org(jsonb, text) is
  'Ends an org for good. Its requests, transfers and audit events stay; its revoked keys go. For the console and admins. Refuses: as recognise(), not_found, conflict while it has a balance (credits or debt), open holds or users. Locks the org against everything, so a grant or an admission at the same moment comes before, and is seen, or after, and finds nothing.';

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
    perform tollgate.not_there('org', org_id);
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
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.listed(
    'tollgate.orgs',
    'tollgate.org_shown',
    $where$
      ($1 ->> 'q' is null or position(lower($1 ->> 'q') in lower(e.name)) > 0 or e.id = $1 ->> 'q')
      and ($1 ->> 'plan' is null or e.plan_id = $1 ->> 'plan')
      and ($1 ->> 'status' is null or e.status = $1 ->> 'status')
    $where$,
    '{"created_at": "e.created_at", "name": "lower(e.name)", "credits": "e.balance_nanos"}',
    '{"sort": "created_at:desc"}'::jsonb || filters,
    page_size
  );
end
$$;

comment on function public.tollgate_orgs(jsonb, jsonb, integer) is
  'Orgs by pages. `filters`: q (part of the name, or the id), plan, status, sort (created_at, name, credits), cursor. For admins. Refuses: as recognise(), invalid_request. Locks nothing.';

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
  if changes ? 'max_concurrent_requests' then
    changed.max_concurrent_requests := (changes ->> 'max_concurrent_requests')::bigint;
  end if;
  return changed;
end
$$;

comment on function tollgate.plan_with(tollgate.plans, jsonb) is
  'The plan as a change leaves it: of the limits those it names, a null being no limit.';


create function public.tollgate_create_plan(caller jsonb, plan jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  made tollgate.plans := tollgate.plan_with(null, plan);
begin
  insert into tollgate.plans (
    id, name, description, markup_ppm, max_concurrent_requests,
    requests_per_minute, requests_per_hour, requests_per_day,
    tokens_per_minute, tokens_per_hour, tokens_per_day
  ) values (
    plan ->> 'id', made.name, made.description, made.markup_ppm, made.max_concurrent_requests,
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
  'Makes a plan. `plan` holds id, name and perhaps description, markup_ppm, limits, max_concurrent_requests. For the console and admins. Refuses: as recognise(), conflict (the id is taken). Locks nothing that exists.';

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
  perform tollgate.one_by_one();
  select p.* into was from tollgate.plans p where p.id = tollgate_update_plan.plan_id;
  if not found then
    perform tollgate.not_there('plan', plan_id);
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
  'Changes a plan: name, description, markup_ppm (null is the setting MARKUP), limits (those it names; a null is none), max_concurrent_requests (null is none). It holds for the next admission of each org that follows it. What is so already changes and records nothing. For the console and admins. Refuses: as recognise(), not_found. Locks, in id order, the orgs that follow the plan in part, then the plan.';

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
  perform tollgate.one_by_one();
  select p.* into plan from tollgate.plans p where p.id = tollgate_delete_plan.plan_id for update;
  if not found then
    perform tollgate.not_there('plan', plan_id);
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
  'Deletes a plan that no org is on. For the console and admins. Refuses: as recognise(), not_found, conflict while orgs are on it, and for free, pro and enterprise, on which new orgs are made. Locks the plan.';

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
    perform tollgate.not_there('plan', plan_id);
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
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.listed(
    'tollgate.plans',
    'tollgate.plan_shown',
    $where$
      $1 ->> 'q' is null or position(lower($1 ->> 'q') in e.id) > 0
        or position(lower($1 ->> 'q') in lower(e.name)) > 0
    $where$,
    '{"id": "e.id", "name": "lower(e.name)", "created_at": "e.created_at"}',
    '{"sort": "id:asc"}'::jsonb || filters,
    page_size
  );
end
$$;

comment on function public.tollgate_plans(jsonb, jsonb, integer) is
  'Plans by pages. `filters`: q (part of the id or name), sort (id, name, created_at), cursor. For admins. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_plans(jsonb, jsonb, integer)');


-- schemas/05_people/users.sql

-- Users.

create function tollgate.user_shown(person tollgate.users) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', person.id,
    'org_id', person.org_id,
    'email', person.email,
    'name', person.name,
    'role', person.role,
    'status', person.status,
    'keys', (select count(*) from tollgate.api_keys k where k.user_id = person.id and k.revoked_at is null),
    'created_at', tollgate.utc(person.created_at),
    'updated_at', tollgate.utc(person.updated_at)
  )
$$;

comment on function tollgate.user_shown(tollgate.users) is 'A user as operators see it. `keys` counts those that are not revoked.';


create function tollgate.address_taken(email text) returns void
language sql
set search_path = ''
as $$
  select tollgate.refuse(409, 'conflict', jsonb_build_object('reason', 'email_taken', 'param', 'email', 'email', email))
$$;

comment on function tollgate.address_taken(text) is 'Refuses a second user with one address. Capitals make no difference.';


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
      perform tollgate.not_there('org', org_id);
    end if;
  end if;

  begin
    insert into tollgate.users (org_id, email, name, role)
    values (org_id, person ->> 'email', coalesce(person ->> 'name', ''), coalesce(person ->> 'role', 'member'))
    returning * into made;
  exception when unique_violation then
    perform tollgate.address_taken(person ->> 'email');
  end;
  perform tollgate.record(actor, 'user.created', made.org_id, made.id,
    jsonb_build_object('email', made.email, 'name', made.name, 'role', made.role));
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.user_shown(made);
end
$$;

comment on function public.tollgate_create_user(jsonb, jsonb) is
  'Makes a user in an org or, where none is named, with a personal org on the plan free, both or neither. `person` holds email and perhaps org_id, name, role. For the console and admins. Refuses: as recognise(), not_found (org), conflict (the address is taken). Locks the org against its end.';

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
  perform tollgate.one_by_one();
  if changes ->> 'org_id' is not null then
    perform from tollgate.orgs o where o.id = changes ->> 'org_id' for key share;
    if not found then
      perform tollgate.not_there('org', changes ->> 'org_id');
    end if;
    -- Keys of one line are written together by requests, in any order but under their org's lock.
    perform from tollgate.orgs o
    where o.id in (
      select k.org_id from tollgate.api_keys k
      where k.user_id = tollgate_update_user.user_id and k.line is not null
    )
    for no key update;
  end if;
  select u.* into was from tollgate.users u
  where u.id = tollgate_update_user.user_id and u.deleted_at is null
  for update;
  if not found then
    perform tollgate.not_there('user', user_id);
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
      perform tollgate.address_taken(person.email);
    end;
    perform tollgate.record(actor, 'user.updated', person.org_id, person.id, details);
    if person.org_id <> was.org_id then -- whom he left can see it too
      perform tollgate.record(actor, 'user.updated', was.org_id, person.id, details);
    end if;
    if was.role = 'admin' and (person.role, person.status, person.org_id) <> (was.role, was.status, was.org_id) then
      perform tollgate.keep_an_admin();
    end if;
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.user_shown(person);
end
$$;

comment on function public.tollgate_update_user(jsonb, text, jsonb) is
  'Changes a user: email, name, role, status, org_id. Disabling stops the user''s keys at once. Moving to another org takes the keys along, with their limits, budgets and what these have counted: the new org pays from the next admission on. What is running is charged to the org that set credits aside for it, and what was done stays in its books. A request that is being admitted while the user moves may be refused as unknown; sent again, it is admitted. What is so already changes and records nothing. For the console and admins. Refuses: as recognise(), not_found (user, org), conflict (the address is taken, or the last admin would be shut out). Locks the new org against its end, the old one where keys of the user have been rotated, then the user and, when he moves, his keys.';

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
  perform tollgate.one_by_one();
  perform from tollgate.orgs o
  where o.id = (select u.org_id from tollgate.users u where u.id = tollgate_delete_user.user_id)
  for no key update;
  select u.* into person from tollgate.users u
  where u.id = tollgate_delete_user.user_id and u.deleted_at is null
  for update;
  if not found then
    perform tollgate.not_there('user', user_id);
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
  perform tollgate.record(actor, 'user.deleted', person.org_id, person.id, jsonb_build_object(
    'email', person.email, 'name', person.name, 'role', person.role, 'keys_revoked', revoked
  ));
  if person.role = 'admin' then
    perform tollgate.keep_an_admin();
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'id', person.id, 'deleted', true, 'keys_revoked', revoked
  );
end
$$;

comment on function public.tollgate_delete_user(jsonb, text) is
  'Deletes a user: all keys are revoked, the address is free again, and a nameless row stays for what points at it. Credits are the org''s and stay there. For the console and admins. Refuses: as recognise(), not_found, conflict (the last admin would be shut out). Locks the org, then the user and his keys.';

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
    perform tollgate.not_there('user', user_id);
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
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.listed(
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
    '{"sort": "created_at:desc"}'::jsonb || filters,
    page_size
  );
end
$$;

comment on function public.tollgate_users(jsonb, jsonb, integer) is
  'Users by pages. `filters`: q (part of the address or name, or the id), org_id, role, status, sort (created_at, email, name), cursor. For admins. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_users(jsonb, jsonb, integer)');


-- schemas/06_keys/change.sql

-- Changes, disables, revokes and rotates keys.

create function public.tollgate_change_key(caller jsonb, key_id text, changes jsonb, scope text default 'keys')
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => false);
  before tollgate.api_keys := tollgate.lock_key(actor, key_id);
  after tollgate.api_keys;
  ids text[] := tollgate.line_of(before);
  changed jsonb;
begin
  if before.revoked_at is not null then
    perform tollgate.refuse(409, 'key_is_final', jsonb_build_object('key_id', before.id, 'state', 'revoked'));
  elsif before.rotated_to is not null then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object('key_id', before.id, 'rotated_to', before.rotated_to));
  elsif jsonb_typeof(changes) is distinct from 'object' then
    perform tollgate.refuse_field('changes', 'must be an object');
  end if;

  after := tollgate.with_terms(before, changes);
  if after.scopes @> array['admin'] and not before.scopes @> array['admin']
    and not exists (select from tollgate.users u where u.id = after.user_id and u.role = 'admin')
  then
    perform tollgate.refuse_field('scopes', 'admin is for the keys of admins');
  end if;
  perform tollgate.check_grant(actor, after, before);

  changed := tollgate.what_changed(tollgate.key_terms(before), tollgate.key_terms(after));
  if changed <> '{}' then
    if tollgate.counted_terms(before) = '{}' and tollgate.counted_terms(after) <> '{}' then
      after := tollgate.begin_counting(after, ids);
    elsif after.budget_reset is distinct from before.budget_reset then
      after := tollgate.begin_budget(after, ids);
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
      month_of_tokens = after.month_of_tokens,
      tokens_used_in_month = after.tokens_used_in_month,
      tokens_used_in_all = after.tokens_used_in_all,
      limits = after.limits,
      counters = after.counters,
      metadata = after.metadata,
      updated_at = now()
    where k.id = any (ids);
    if after.max_concurrent_requests is distinct from before.max_concurrent_requests then
      perform tollgate.bound_line(after);
    end if;
    perform tollgate.record(actor, 'key.updated', after.org_id, after.id, tollgate.audited(changed));
    select k.* into after from tollgate.api_keys k where k.id = after.id;
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'changed', changed <> '{}', 'key', tollgate.key_shown(after)
  );
end
$$;

comment on function public.tollgate_change_key(jsonb, text, jsonb, text) is
  'Changes the terms of a key, and of those in grace that it took the place of: any key for operators, one''s own otherwise, and never to more than its changer has, as check_grant() has it. What is left out stays, null clears. A budget begins anew when it is first set or its reset changes. Changing nothing records nothing. Refuses: as recognise(), not_found, key_is_final, conflict (rotated), invalid_request, permission_denied. Locks the org, then the keys.';

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
  key := tollgate.lock_key(actor, key_id);
  was := case
    when key.revoked_at is not null then 'revoked' when key.disabled_at is not null then 'disabled' else 'active'
  end;
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
    before := case
      when one.revoked_at is not null then 'revoked' when one.disabled_at is not null then 'disabled' else 'active'
    end;
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
  select k.* into key from tollgate.api_keys k where k.id = key.id;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'id', key.id, 'state', state, 'was', was, 'key', tollgate.key_shown(key)
  );
end
$$;

comment on function public.tollgate_set_key_state(jsonb, text, text, text) is
  'Disables, enables or revokes a key: any key for operators, one''s own otherwise. What is done to the newest key of a line is done to those in grace that it took the place of; one of those can be ended alone. Revoked is final. Repeating a state changes nothing and records nothing. Refuses: as recognise(), invalid_request, not_found, key_is_final. Locks the org, then the keys.';

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
  if grace_hours is null or grace_hours not between 0 and 168 then
    perform tollgate.refuse_field('grace_hours', 'must be from 0 to 168');
  elsif key.revoked_at is not null then
    perform tollgate.refuse(409, 'key_is_final', jsonb_build_object('key_id', key.id, 'state', 'revoked'));
  elsif key.rotated_to is not null then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object('key_id', key.id, 'rotated_to', key.rotated_to));
  elsif key.expires_at <= now() then
    perform tollgate.refuse(409, 'conflict',
      jsonb_build_object('key_id', key.id, 'expired_at', tollgate.utc(key.expires_at)));
  elsif cardinality(tollgate.line_of(key)) >= 10 then
    perform tollgate.refuse(409, 'conflict',
      jsonb_build_object('key_id', key.id, 'secrets', cardinality(tollgate.line_of(key))));
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
    expires_at = least(k.expires_at, now() + make_interval(hours => grace_hours)),
    updated_at = now()
  where k.id = key.id
  returning k.expires_at into key.expires_at;
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
  'Gives a key a new secret: a new key takes its place with all that it may and has used, and the old one is refused after the hours of grace, at once with none. Meanwhile both draw on one purse: budget, quotas and limits are spent once, whichever secret spends them. `imprints` holds what is kept of the new secret for each environment, of which the key''s is taken. Whoever rotates learns the secret, so it takes a key that could have made it, or the key itself. A line has at most ten keys that are open or ended within a day. Refuses: as recognise(), not_found, invalid_request, key_is_final, conflict (rotated, expired, too many), permission_denied. Locks the org, then the key.';

select tollgate.expose('public.tollgate_rotate_key(jsonb, text, integer, jsonb, text)');


-- schemas/06_keys/create.sql

-- Creates keys.

create function tollgate.add_key(actor tollgate.caller, owner tollgate.users, key jsonb) returns text
language plpgsql
set search_path = ''
as $$
declare
  new_key_id text;
begin
  insert into tollgate.api_keys (
    org_id, user_id, name, digest, pepper, prefix, last_four, environment, scopes, ip_allowlist, expires_at
  ) values (
    owner.org_id,
    owner.id,
    key ->> 'name',
    decode(key ->> 'digest', 'hex'),
    key ->> 'pepper',
    key ->> 'prefix',
    key ->> 'last_four',
    key ->> 'environment',
    array(select jsonb_array_elements_text(key -> 'scopes')),
    case when jsonb_typeof(key -> 'ip_allowlist') = 'array'
      then array(select jsonb_array_elements_text(key -> 'ip_allowlist'))::cidr[] end,
    (key ->> 'expires_at')::timestamptz
  ) returning id into new_key_id;

  perform tollgate.record(actor, 'key.created', owner.org_id, new_key_id,
    key - 'digest' - 'pepper' || jsonb_build_object('user_id', owner.id));
  return new_key_id;
end
$$;

comment on function tollgate.add_key(tollgate.caller, tollgate.users, jsonb) is
  'Inserts a key and its audit event. `key` holds name, digest, pepper, prefix, last_four, environment, scopes, ip_allowlist, expires_at.';


create function public.tollgate_seed(caller jsonb, org jsonb, owner jsonb, key jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  known tollgate.api_keys;
  seeded tollgate.users;
begin
  perform pg_advisory_xact_lock(hashtextextended('tollgate_seed', 0));

  select k.* into known from tollgate.api_keys k where k.digest = decode(key ->> 'digest', 'hex');
  if found then
    return jsonb_build_object(
      'caller', tollgate.identity(actor),
      'created', false, 'id', known.id, 'org_id', known.org_id, 'user_id', known.user_id
    );
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

  select u.* into seeded from tollgate.users u where u.id = owner ->> 'id';
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'created', true,
    'id', tollgate.add_key(actor, seeded, key),
    'org_id', seeded.org_id,
    'user_id', seeded.id
  );
end
$$;

comment on function public.tollgate_seed(jsonb, jsonb, jsonb, jsonb) is
  'Makes a key with a known secret, and the org and user it needs where they are missing. With a secret that exists already it changes nothing. For the console and admins. Refuses: as recognise(). Takes an advisory lock, so that two at once make one key.';

select tollgate.expose('public.tollgate_seed(jsonb, jsonb, jsonb, jsonb)');


create function tollgate.key_manager(caller jsonb, scope text, touch boolean) returns tollgate.caller
language sql
set search_path = ''
as $$
  select tollgate.recognise(caller, case scope when 'admin' then 'admin' else 'keys' end, touch)
$$;

comment on function tollgate.key_manager(jsonb, text, boolean) is
  'Who manages keys: with `scope` admin operators alone, otherwise whoever''s key has the scope keys. Refuses: as recognise().';


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
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'key', 'id', key_id));
  end if;
  return key;
end
$$;

comment on function tollgate.lock_key(tollgate.caller, text) is
  'A key that the caller may manage, as it stands under the lock: any for operators, one''s own otherwise. The org is locked too, so that no request of the key''s line runs meanwhile. Refuses: not_found. Locks the org, then the key.';


create function tollgate.with_imprint(key tollgate.api_keys, given jsonb) returns tollgate.api_keys
language plpgsql
immutable
set search_path = ''
as $$
begin
  key.digest := decode(tollgate.given_text(given -> 'digest', 'digest', '^[0-9a-f]{64}$'), 'hex');
  key.pepper := tollgate.given_text(given -> 'pepper', 'pepper', '^[0-9a-f]{8}$');
  key.prefix := tollgate.given_text(given -> 'prefix', 'prefix', '^[!-~]{1,16}$');
  key.last_four := tollgate.given_text(given -> 'last_four', 'last_four', '^[!-~]{4}$');
  key.environment := tollgate.given_text(given -> 'environment', 'environment', '^(live|test)$');
  return key;
end
$$;

comment on function tollgate.with_imprint(tollgate.api_keys, jsonb) is
  'The key with what is kept of a new secret: digest, pepper, prefix, last_four, environment. Refuses: invalid_request.';


create function tollgate.insert_key(actor tollgate.caller, key tollgate.api_keys) returns void
language plpgsql
set search_path = ''
as $$
begin
  insert into tollgate.api_keys (
    id, org_id, user_id, name, digest, pepper, prefix, last_four, environment, scopes, ip_allowlist, expires_at,
    disabled_at, limits, counters, allowed_models, budget_nanos, budget_reset, budget_period, budget_spent_nanos,
    tokens_per_month, tokens_in_all, month_of_tokens, tokens_used_in_month, tokens_used_in_all, metadata,
    rotated_from, line, max_concurrent_requests, open_requests
  ) values (
    key.id, key.org_id, key.user_id, key.name, key.digest, key.pepper, key.prefix, key.last_four, key.environment,
    key.scopes, key.ip_allowlist, key.expires_at,
    key.disabled_at, key.limits, key.counters, key.allowed_models, key.budget_nanos, key.budget_reset,
    key.budget_period, coalesce(key.budget_spent_nanos, 0),
    key.tokens_per_month, key.tokens_in_all, key.month_of_tokens, coalesce(key.tokens_used_in_month, 0),
    coalesce(key.tokens_used_in_all, 0), coalesce(key.metadata, '{}'),
    key.rotated_from, key.line, key.max_concurrent_requests, coalesce(key.open_requests, 0)
  );
  perform tollgate.record(actor, 'key.created', key.org_id, key.id,
    tollgate.audited(tollgate.key_terms(key)) || jsonb_build_object(
      'user_id', key.user_id, 'environment', key.environment, 'prefix', key.prefix, 'last_four', key.last_four
    ) || case when key.rotated_from is null then '{}' else jsonb_build_object('rotated_from', key.rotated_from) end);
exception when unique_violation then
  perform tollgate.refuse(409, 'conflict', '{"kind": "key", "param": "digest"}');
end
$$;

comment on function tollgate.insert_key(tollgate.caller, tollgate.api_keys) is
  'Inserts a key and its audit event. Refuses: conflict, where its secret is a key already.';


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
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'user', 'id', user_id));
  end if;
  if jsonb_typeof(key) is distinct from 'object' then
    perform tollgate.refuse_field('key', 'must be an object');
  end if;

  made.id := tollgate.new_id('key');
  made.org_id := owner.org_id;
  made.user_id := owner.id;
  made.metadata := '{}';
  made := tollgate.with_imprint(made, key);
  made := tollgate.with_terms(made,
    '{"name": null, "scopes": null}' || (key - array['digest', 'pepper', 'prefix', 'last_four', 'environment']));
  if made.scopes @> array['admin'] and owner.role <> 'admin' then
    perform tollgate.refuse_field('scopes', 'admin is for the keys of admins');
  end if;
  perform tollgate.check_grant(actor, made);
  perform tollgate.insert_key(actor, made);
  select k.* into made from tollgate.api_keys k where k.id = made.id;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'id', made.id,
    'org_id', owner.org_id,
    'user_id', owner.id,
    'key', tollgate.key_shown(made)
  );
end
$$;

comment on function public.tollgate_create_key(jsonb, text, jsonb, text) is
  'Makes a key for a user: any user for operators, oneself otherwise, which is also who null is; and never one that grants more than its maker has, as check_grant() has it. `key` holds digest, pepper, prefix, last_four, environment and the terms, of which name and scopes are needed. Refuses: as recognise(), not_found, invalid_request, permission_denied, conflict. Locks the user against moving.';

select tollgate.expose('public.tollgate_create_key(jsonb, text, jsonb, text)');


-- schemas/06_keys/limits.sql

-- Limits of an org or a key, as an operator sees and sets them.

create function tollgate.limits_told(org_id text, key_id text) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  org tollgate.orgs;
  key tollgate.api_keys;
  of_key jsonb;
  of_org jsonb; -- what an operator set for it
  of_both jsonb; -- with what it takes from its plan, as admissions read it
begin
  if key_id is not null then
    select k.* into key from tollgate.api_keys k where k.id = limits_told.key_id;
    if not found then
      perform tollgate.not_there('key', key_id);
    end if;
    of_key := tollgate.limits_shown(key.limits);
  end if;
  select o.* into org from tollgate.orgs o where o.id = coalesce(key.org_id, limits_told.org_id);
  if not found then
    perform tollgate.not_there('org', org_id);
  end if;
  of_org := tollgate.limits_shown(coalesce(org.limits_set, org.limits));
  of_both := to_jsonb(tollgate.limits_of(org));

  return jsonb_build_object(
    'org_id', org.id,
    'key_id', key.id,
    'plan', org.plan_id,
    'limits', coalesce(of_key, of_org),
    'in_effect', (
      select jsonb_object_agg(name, jsonb_build_object(
        'limit', least((of_key ->> name)::bigint, (of_both ->> name)::bigint),
        'set_by', case
          when (of_key ->> name)::bigint <= coalesce((of_both ->> name)::bigint, (of_key ->> name)::bigint) then 'key'
          when of_both ->> name is null then null
          when of_org ->> name is null then 'plan'
          else 'org'
        end
      ))
      from jsonb_object_keys(of_org) name
    )
  );
end
$$;

comment on function tollgate.limits_told(text, text) is
  'The limits set for a key or, without one, for an org; and for each of the six the one that binds first, and who set it. Refuses: not_found.';


create function tollgate.change_limits(actor tollgate.caller, caller jsonb, subject jsonb, limits jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  changes constant jsonb := jsonb_build_object('limits', limits);
begin
  if subject ->> 'key_id' is not null then
    perform public.tollgate_change_key(caller, subject ->> 'key_id', changes, 'admin');
  else
    perform tollgate.change_org(actor, tollgate.org_of(subject), changes);
  end if;
end
$$;

comment on function tollgate.change_limits(tollgate.caller, jsonb, jsonb, jsonb) is
  'Changes the limits of an org, of the org of a user, or of a key, as any other change of an org or key. Refuses and locks as change_org() or tollgate_change_key().';


create function public.tollgate_limits_of(caller jsonb, subject jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.limits_told(tollgate.org_of(subject), subject ->> 'key_id');
end
$$;

comment on function public.tollgate_limits_of(jsonb, jsonb) is
  'The limits of what `subject` names: an org_id, a user_id (whose org is meant) or a key_id. For admins. Refuses: as recognise(), not_found. Locks nothing.';

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
    || tollgate.limits_told(tollgate.org_of(subject), subject ->> 'key_id');
end
$$;

comment on function public.tollgate_set_limits(jsonb, jsonb, jsonb) is
  'Sets limits of an org (a null follows its plan), of a user''s org, or of a key within its org (a null is none). They bind the next admission; what was counted so far counts. For the console and admins. Refuses: as recognise(), not_found (org, user), and for a key as tollgate_change_key(). Locks as change_org() or tollgate_change_key().';

select tollgate.expose('public.tollgate_set_limits(jsonb, jsonb, jsonb)');


create function public.tollgate_reset_limits(caller jsonb, subject jsonb, counters boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  reset text;
begin
  perform tollgate.change_limits(actor, caller, subject, null);
  if counters and subject ->> 'key_id' is not null then
    update tollgate.api_keys k set counters = null
    where k.id = subject ->> 'key_id' and k.counters is not null
    returning k.org_id into reset;
  elsif counters then
    update tollgate.orgs o set counters = null
    where o.id = tollgate.org_of(subject) and o.counters is not null
    returning o.id into reset;
  end if;
  if reset is not null then
    perform tollgate.record(actor, 'limits.reset', reset, coalesce(subject ->> 'key_id', reset), '{"counters": true}');
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.limits_told(tollgate.org_of(subject), subject ->> 'key_id');
end
$$;

comment on function public.tollgate_reset_limits(jsonb, jsonb, boolean) is
  'Takes away the limits that were set for an org, the org of a user, or a key; with `counters`, its windows begin anew as well. For the console and admins. Refuses: as recognise(), not_found (org, user), and for a key as tollgate_change_key(). Locks as change_org() or tollgate_change_key().';

select tollgate.expose('public.tollgate_reset_limits(jsonb, jsonb, boolean)');


-- schemas/06_keys/pages.sql

-- Shows and lists keys and their events.

create function tollgate.listed_key(key tollgate.api_keys, sort text) returns text
language sql
immutable
set search_path = ''
as $$
  select case sort
    when 'name' then lower(key.name)
    when 'last_used_at' then lpad(coalesce(extract(epoch from key.last_used_at) * 1000000, 0)::bigint::text, 20, '0')
    else lpad((extract(epoch from key.created_at) * 1000000)::bigint::text, 20, '0')
  end collate "C"
$$;

comment on function tollgate.listed_key(tollgate.api_keys, text) is
  'What a key is sorted by, as a text that sorts as it does. Never used comes before all use.';


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
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'key', 'id', key_id));
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
  sort text := split_part(coalesce(filters ->> 'sort', 'created_at:desc'), ':', 1);
  direction text := split_part(coalesce(filters ->> 'sort', 'created_at:desc'), ':', 2);
  descending boolean := direction = 'desc';
  cursor_id text := split_part(filters ->> 'cursor', '~', 1);
  cursor_place text := nullif(split_part(filters ->> 'cursor', '~', 2), '');
  faulty text;
  answer jsonb;
begin
  faulty := case
    when sort not in ('created_at', 'last_used_at', 'name') or direction not in ('asc', 'desc') then 'sort'
    when filters ->> 'status' not in ('active', 'disabled', 'revoked', 'expired') then 'status'
    when filters ->> 'environment' not in ('live', 'test') then 'environment'
    when filters ->> 'role' not in ('member', 'admin') then 'role'
    when page_size is null or page_size not between 1 and 1000 then 'limit'
  end;
  if cursor_id is not null then
    select coalesce(cursor_place, tollgate.listed_key(k, sort)) into cursor_place from tollgate.api_keys k
    where k.id = cursor_id and (scope = 'admin' or k.user_id = actor.user_id);
    if not found then
      faulty := 'cursor';
    end if;
  end if;
  if faulty is not null then
    perform tollgate.refuse_field(faulty, 'is none that is known');
  end if;

  with found as (
    select k as key, k.id, tollgate.listed_key(k, sort) as place
    from tollgate.api_keys k
    join tollgate.users u on u.id = k.user_id
    where (scope = 'admin' or k.user_id = actor.user_id)
      and (filters ->> 'org_id' is null or k.org_id = filters ->> 'org_id')
      and (filters ->> 'user_id' is null or k.user_id = filters ->> 'user_id')
      and (filters ->> 'environment' is null or k.environment = filters ->> 'environment')
      and (filters ->> 'role' is null or u.role = filters ->> 'role')
      and (filters ->> 'status' is null or tollgate.key_status(k) = filters ->> 'status')
      and (filters ->> 'q' is null or strpos(lower(k.name), lower(filters ->> 'q')) > 0
        or strpos(k.prefix, filters ->> 'q') > 0)
  ),
  page as (
    select f.*, row_number() over (
      order by
        case when not descending then f.place end, case when not descending then f.id end,
        case when descending then f.place end desc, case when descending then f.id end desc
    ) as row
    from found f
    where cursor_id is null
      or (not descending and (f.place, f.id) > (cursor_place, cursor_id))
      or (descending and (f.place, f.id) < (cursor_place, cursor_id))
    order by row
    limit page_size + 1
  )
  select jsonb_build_object(
    'caller', tollgate.identity(actor),
    'data', coalesce(
      (select jsonb_agg(tollgate.key_shown(p.key) order by p.row) from page p where p.row <= page_size), '[]'::jsonb
    ),
    -- A key may be used between two pages, so the place it had goes with its id.
    'next_cursor', (
      select case sort when 'last_used_at' then last.id || '~' || last.place else last.id end
      from page last
      where last.row = page_size and exists (select from page more where more.row > page_size)
    ),
    'total', (select count(*) from found)
  ) into answer;
  return answer;
end
$$;

comment on function public.tollgate_keys(jsonb, jsonb, integer, text) is
  'Keys: one''s own, or with `scope` admin everybody''s. `filters`: org_id, user_id, q (a part of the name or of the prefix), status, environment, role (of the owner), sort (created_at, last_used_at or name, :asc or :desc; created_at:desc if none is named), cursor. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_keys(jsonb, jsonb, integer, text)');


create function public.tollgate_key_events(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'keys');
  before tollgate.audit_events;
  answer jsonb;
begin
  if filters ->> 'cursor' is not null then
    select b.* into before from tollgate.audit_events b
    where b.id = filters ->> 'cursor' and b.org_id = actor.org_id and b.action like 'key.%';
  end if;
  if filters ->> 'cursor' is not null and before.id is null then
    perform tollgate.refuse_field('cursor', 'is none that is known');
  elsif page_size is null or page_size not between 1 and 1000 then
    perform tollgate.refuse_field('limit', 'must be from 1 to 1000');
  end if;

  with page as (
    select a.*, row_number() over (order by a.occurred_at desc, a.id desc) as row
    from tollgate.audit_events a
    where a.org_id = actor.org_id and a.action like 'key.%'
      and (filters ->> 'key_id' is null or a.target_id = filters ->> 'key_id')
      and (filters ->> 'action' is null or a.action = filters ->> 'action')
      and (filters ->> 'outcome' is null or a.outcome = filters ->> 'outcome')
      and (filters ->> 'from' is null or a.occurred_at >= (filters ->> 'from')::timestamptz)
      and (filters ->> 'to' is null or a.occurred_at < (filters ->> 'to')::timestamptz)
      and (before.id is null or (a.occurred_at, a.id) < (before.occurred_at, before.id))
    order by a.occurred_at desc, a.id desc
    limit page_size + 1
  )
  select jsonb_build_object(
    'caller', tollgate.identity(actor),
    'data', coalesce((
      select jsonb_agg(jsonb_build_object(
        'id', e.id,
        'occurred_at', tollgate.utc(e.occurred_at),
        'actor', jsonb_strip_nulls(jsonb_build_object(
          'kind', e.actor_kind, 'key_id', e.actor_key_id, 'user_id', e.actor_user_id, 'name', e.actor_name
        )),
        'action', e.action,
        'key_id', e.target_id,
        'outcome', e.outcome,
        'ip', case when u.id is not null then host(e.ip) end,
        'user_agent', case when u.id is not null then e.user_agent end,
        'request_id', e.request_id,
        'details', e.details
      ) order by e.row)
      from page e
      left join tollgate.users u on u.id = e.actor_user_id and u.org_id = actor.org_id
      where e.row <= page_size
    ), '[]'::jsonb),
    'next_cursor', (
      select last.id from page last
      where last.row = page_size and exists (select from page more where more.row > page_size)
    ),
    'total', null
  ) into answer;
  return answer;
end
$$;

comment on function public.tollgate_key_events(jsonb, jsonb, integer) is
  'What was done to the keys of the caller''s org, newest first. `filters`: key_id, action, outcome, from, to, cursor. From where operators came is theirs: addresses are told of the org''s own users only. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_key_events(jsonb, jsonb, integer)');


-- schemas/06_keys/rotation_lines.sql

-- A line is a key and the keys it was rotated from or to. They share one budget, quota and set of counters.
--
-- Until the old secret is refused, and for a day more while requests that it began are settled, a trigger keeps the rows
-- of a line alike, under the lock of the org, which every request takes first. So a grace period spends nothing twice.

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
  'The key and those that it took the place of, or that took its place, as long as their requests may still be settled: until a day after their end.';


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
  'Gives the bound of open requests that the key has to every key of its line, however long ago it ended, and counts their open requests. The org is locked by the caller. Locks those keys.';


create function tollgate.share_purse() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  if least(new.expires_at, new.revoked_at) <= now() - interval '1 day' then
    return null; -- it ended too long ago to know how the others stand
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

comment on function tollgate.share_purse() is
  'Trigger: what one key of a line uses is used of all. Every request locks the org first, so there is one at a time and each finds the others'' counts in its own row. Locks the keys of the line.';

create trigger api_keys_share_purse
after update of
  counters, budget_period, budget_spent_nanos, month_of_tokens, tokens_used_in_month, tokens_used_in_all
on tollgate.api_keys
for each row
when (new.line is not null and pg_trigger_depth() = 0)
execute function tollgate.share_purse();


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
  'The key at the start of a budget: what is spent is what its open requests hold, which they will give back when settled. The org is locked by the caller.';


create function tollgate.begin_counting(key tollgate.api_keys, ids text[]) returns tollgate.api_keys
language plpgsql
set search_path = ''
as $$
declare
  running record;
begin
  key.counters := null;
  key.month_of_tokens := tollgate.budget_period('monthly', clock_timestamp());
  key.tokens_used_in_month := 0;
  key.tokens_used_in_all := 0;
  for running in
    select tollgate.ms_of(r.created_at) as at_ms, r.reserved_tokens as tokens
    from tollgate.holds h join tollgate.requests r on r.id = h.request_id
    where r.key_id = any (ids)
    order by r.created_at
  loop
    key.counters := tollgate.take(key.counters, running.at_ms, 1, running.tokens);
    key.tokens_used_in_month := key.tokens_used_in_month + running.tokens;
    key.tokens_used_in_all := key.tokens_used_in_all + running.tokens;
  end loop;
  return tollgate.begin_budget(key, ids);
end
$$;

comment on function tollgate.begin_counting(tollgate.api_keys, text[]) is
  'The key when the first of its terms that are counted is set: its open requests are counted as if it had been set before them, since settling will correct them. The org is locked by the caller.';


-- schemas/06_keys/shown.sql

-- Keys as JSON.

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

comment on function tollgate.key_status(tollgate.api_keys) is 'What identify() would refuse the key for, in its order.';


create function tollgate.in_this_period(key tollgate.api_keys, moment timestamptz) returns tollgate.api_keys
language plpgsql
immutable
set search_path = ''
as $$
declare
  period date := tollgate.budget_period(key.budget_reset, moment);
  month date := tollgate.budget_period('monthly', moment);
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

comment on function tollgate.in_this_period(tollgate.api_keys, timestamptz) is 'The key with its budget and its monthly quota begun anew where their time has come.';


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
    'limits', case when not key.limits is null then to_jsonb(key.limits) end,
    'max_concurrent_requests', key.max_concurrent_requests,
    'metadata', key.metadata
  )
$$;

comment on function tollgate.key_terms(tollgate.api_keys) is 'What of a key its owner may change.';


create function tollgate.key_shown(key tollgate.api_keys) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', key.id,
    'org_id', key.org_id,
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
    'budget_resets_at', tollgate.utc((case key.budget_reset
      when 'daily' then present.budget_period + interval '1 day'
      when 'weekly' then present.budget_period + interval '1 week'
      when 'monthly' then present.budget_period + interval '1 month'
    end) at time zone 'utc'),
    'tokens_used_in_month', present.tokens_used_in_month,
    'tokens_used_in_all', key.tokens_used_in_all,
    'open_requests', case when key.max_concurrent_requests is not null then key.open_requests end
  ) || tollgate.key_terms(key)
  from tollgate.users u, tollgate.in_this_period(key, now()) present
  where u.id = key.user_id
$$;

comment on function tollgate.key_shown(tollgate.api_keys) is
  'All that may be seen of a key: its terms, its state and its use, and nothing of its secret but what people know it by.';


create function tollgate.audited(terms jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select case when terms ? 'metadata' then terms || '{"metadata": "not kept here"}' else terms end
$$;

comment on function tollgate.audited(jsonb) is
  'Terms as the audit trail keeps them: without metadata, which may be anybody''s data and is never forgotten there.';


-- schemas/06_keys/terms.sql

-- What a key may do: its terms, and whether one key's terms exceed another's.
--
-- A key grants no more than its maker has. Where the maker is limited, a new key is within that limit: scopes,
-- environment, models, networks, expiry. A key with a budget, a quota or limits of its own makes no keys, because ten
-- keys of a tenth each could be made again tomorrow. Whoever changes a key may always narrow it. Operators are free of
-- this for other people's keys, but not for their own: otherwise a narrow key of theirs would be as good as a wide one.

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

comment on function tollgate.model_allowed(text[], text) is 'Whether one of the patterns, in which * stands for anything, fits the model.';


create function tollgate.models_within(models text[], others text[]) returns boolean
language sql
immutable
set search_path = ''
as $$
  select others is null or (models is not null
    and not exists (select from unnest(models) m where not tollgate.model_allowed(others, m)))
$$;

comment on function tollgate.models_within(text[], text[]) is
  'Whether each of the patterns fits into one of the others: * is a letter there like any, which only another * fits.';


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

comment on function tollgate.bounds(tollgate.api_keys) is 'A key''s six limits as a list; null is none.';


create function tollgate.wider(key tollgate.api_keys, other tollgate.api_keys) returns text[]
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
    case when other.tokens_in_all < coalesce(key.tokens_in_all, other.tokens_in_all + 1) then 'tokens_in_all' end,
    case when other.max_concurrent_requests
      < coalesce(key.max_concurrent_requests, other.max_concurrent_requests + 1) then 'max_concurrent_requests' end,
    case when exists (
      select from unnest(tollgate.bounds(key), tollgate.bounds(other)) b (its, others)
      where b.others < coalesce(b.its, b.others + 1)
    ) then 'limits' end
  ], null)
$$;

comment on function tollgate.wider(tollgate.api_keys, tollgate.api_keys) is
  'The terms in which a key grants more than another. A budget with another reset counts as more.';


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
  'The terms of a key that are used up, and which another key would therefore multiply however small it is.';


create function tollgate.given_limits(given jsonb, field text, limits tollgate.limits) returns tollgate.limits
language plpgsql
immutable
set search_path = ''
as $$
declare
  named text;
begin
  if jsonb_typeof(given) = 'null' then
    return null;
  elsif jsonb_typeof(given) is distinct from 'object' then
    perform tollgate.refuse_field(field, 'must be an object');
  end if;
  for named in select jsonb_object_keys(given) loop
    if not to_jsonb(row(null, null, null, null, null, null)::tollgate.limits) ? named then
      perform tollgate.refuse_field(field, 'has a limit that is not known');
    end if;
    perform tollgate.given_number(given -> named, field || '.' || named, 100000000000);
  end loop;
  limits := jsonb_populate_record(limits, given);
  return case when not limits is null then limits end;
end
$$;

comment on function tollgate.given_limits(jsonb, text, tollgate.limits) is
  'Limits with those changed that are given: null clears one, or all. Refuses: invalid_request.';


create function tollgate.given_scopes(given jsonb, field text) returns text[]
language plpgsql
immutable
set search_path = ''
as $$
declare
  scopes text[] := tollgate.given_texts(given, field, '^(chat|completions|embeddings|models|usage|keys|admin)$');
begin
  if coalesce(cardinality(scopes), 0) = 0 then
    perform tollgate.refuse_field(field, 'must name at least one scope');
  end if;
  return array(select s from unnest(scopes) with ordinality o (s, place) group by s order by min(place));
end
$$;

comment on function tollgate.given_scopes(jsonb, text) is
  'The scopes a key may have, each once. Refuses: invalid_request.';


create function tollgate.with_terms(key tollgate.api_keys, given jsonb) returns tollgate.api_keys
language plpgsql
stable
set search_path = ''
as $$
declare
  field text;
begin
  for field in select jsonb_object_keys(given) loop
    case field
      when 'name' then
        key.name := tollgate.given_text(given -> field, field, '^[^[:cntrl:]]{1,200}$');
      when 'scopes' then
        key.scopes := tollgate.given_scopes(given -> field, field);
      when 'allowed_models' then
        key.allowed_models := tollgate.given_texts(given -> field, field, '^[!-~]{1,200}$');
      when 'ip_allowlist' then
        key.ip_allowlist := tollgate.given_networks(given -> field, field);
      when 'expires_at' then
        key.expires_at := tollgate.given_time_to_come(given -> field, field);
      when 'budget_nanos' then
        key.budget_nanos := tollgate.given_number(given -> field, field, 100000000000000000);
      when 'budget_reset' then
        key.budget_reset := case when jsonb_typeof(given -> field) <> 'null'
          then tollgate.given_text(given -> field, field, '^(daily|weekly|monthly|never)$') end;
      when 'tokens_per_month' then
        key.tokens_per_month := tollgate.given_number(given -> field, field, 1000000000000000);
      when 'tokens_in_all' then
        key.tokens_in_all := tollgate.given_number(given -> field, field, 1000000000000000);
      when 'max_concurrent_requests' then
        key.max_concurrent_requests := tollgate.given_number(given -> field, field, 100000000000);
      when 'limits' then
        key.limits := tollgate.given_limits(given -> field, field, key.limits);
      when 'metadata' then
        key.metadata := tollgate.given_metadata(given -> field, field);
      else
        perform tollgate.refuse_field(field, 'is not known here');
    end case;
  end loop;

  if key.budget_nanos is not null then
    key.budget_reset := coalesce(key.budget_reset, 'never');
  elsif jsonb_typeof(given -> 'budget_reset') <> 'null' then
    perform tollgate.refuse_field('budget_reset', 'needs a budget');
  else
    key.budget_reset := null;
  end if;
  return key;
end
$$;

comment on function tollgate.with_terms(tollgate.api_keys, jsonb) is
  'The key with those terms changed that are given; what is left out stays, null clears. Refuses: invalid_request, with the field.';


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
  if actor.kind <> 'key' or (tollgate.operates(actor) and key.user_id <> actor.user_id) then
    return;
  end if;
  select k.* into maker from tollgate.api_keys k where k.id = actor.key_id;
  select t into term
  from unnest(tollgate.wider(key, maker) || tollgate.counted_terms(maker)) t
  where before.id is null or t = any (tollgate.wider(key, before))
  limit 1;
  if found then
    perform tollgate.refuse(403, 'permission_denied', jsonb_build_object(
      'key_id', actor.key_id, 'param', term, 'scopes', to_jsonb(actor.scopes)
    ));
  end if;
end
$$;

comment on function tollgate.check_grant(tollgate.caller, tollgate.api_keys, tollgate.api_keys) is
  'Lets pass what the caller''s key may grant: a new key within its own terms, made by a key that nothing is counted of; or a change of a key that narrows it, or stays within those terms. Operators may grant others anything. Refuses: permission_denied, with the term as param. Locks nothing.';


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
  balance bigint;
  earlier tollgate.transfers;
  posted tollgate.transfers;
begin
  if source not in ('funding', 'promotion') then
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'source', 'source', source));
  end if;
  if amount_nanos is null or amount_nanos not between 1 and 100000000000000000 then
    perform tollgate.refuse(400, 'invalid_request',
      jsonb_build_object('param', 'amount_nanos', 'amount_nanos', amount_nanos));
  end if;

  select o.balance_nanos into balance from tollgate.orgs o where o.id = tollgate_grant.org_id for no key update;
  if not found then
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'org', 'id', org_id));
  end if;

  select t.* into earlier from tollgate.transfers t where t.kind = 'grant' and t.reference = tollgate_grant.reference;
  if found then
    if (earlier.org_id, earlier.amount_nanos, earlier.debit)
      is distinct from (tollgate_grant.org_id, tollgate_grant.amount_nanos, source)
    then
      perform tollgate.refuse(422, 'idempotency_key_reused', jsonb_build_object('transfer_id', tollgate.transfer_id(earlier)));
    end if;
    return jsonb_build_object('caller', tollgate.identity(actor), 'created', false,
      'transfer_id', tollgate.transfer_id(earlier), 'balance_nanos', balance);
  end if;

  update tollgate.orgs o
  set balance_nanos = o.balance_nanos + tollgate_grant.amount_nanos, updated_at = now()
  where o.id = tollgate_grant.org_id
  returning o.balance_nanos into balance;

  begin
    insert into tollgate.transfers (org_id, debit, credit, amount_nanos, kind, reference, reason, balance_after_nanos)
    values (org_id, source, 'wallet', amount_nanos, 'grant', reference, reason, balance)
    returning * into posted;
  exception when unique_violation then -- another org took the same reference at this moment
    perform tollgate.refuse(422, 'idempotency_key_reused', jsonb_build_object('reference', reference));
  end;

  perform tollgate.record(actor, 'credits.granted', org_id, tollgate.transfer_id(posted),
    jsonb_build_object('amount_nanos', amount_nanos, 'source', source, 'reason', reason, 'reference', reference));
  return jsonb_build_object('caller', tollgate.identity(actor), 'created', true,
    'transfer_id', tollgate.transfer_id(posted), 'balance_nanos', balance);
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
  'Under whose name an operation is kept: the user''s, or console.';


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
  'The amount of an operation. Refuses, with invalid_request, none, zero, and what no transfer may move.';


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
  'Refuses, with cap_exceeded, what is above the cap of one grant or would be above the operator''s cap of the day in UTC. A cap that is missing lets nothing through. The console has none. Expects the operator to be locked.';


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
  'The account on the other side of an operation. Refuses, with invalid_request, any but these.';


create function tollgate.earlier_operation(actor tollgate.caller, kind text, operation jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  acting text := tollgate.operator_of(actor);
  earlier tollgate.credit_operations;
  posted tollgate.transfers;
begin
  perform pg_advisory_xact_lock(hashtextextended('tollgate_credits ' || acting, 0));

  select o.* into earlier from tollgate.credit_operations o
  where o.operator = acting and o.idempotency_key = operation ->> 'idempotency_key';
  if not found then
    return null;
  end if;
  select t.* into posted from tollgate.transfers t where t.position = earlier.position;
  if posted.kind <> earlier_operation.kind or earlier.asked <> operation - 'idempotency_key' then
    perform tollgate.refuse(422, 'idempotency_key_reused',
      jsonb_build_object('transfer_id', tollgate.transfer_id(posted)));
  end if;
  return tollgate.shown_transfer(posted) || '{"created": false}';
end
$$;

comment on function tollgate.earlier_operation(tollgate.caller, text, jsonb) is
  'What was answered under the operation''s idempotency key, or null when it is new. Refuses: idempotency_key_reused. Locks the operator until the transaction ends, so that of their operations one follows the other: none is found new twice, and none passes the cap beside another.';


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
    perform tollgate.not_there('org', payer_id);
  end if;
  return payer;
end
$$;

comment on function tollgate.lock_payer(jsonb) is
  'The org that an operation names, or the org of the user that it names. Refuses: not_found. Locks the org.';


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
  update tollgate.orgs o set
    balance_nanos = o.balance_nanos
      + case draft.credit when 'wallet' then draft.amount_nanos else -draft.amount_nanos end,
    updated_at = now()
  where o.id = draft.org_id
  returning o.balance_nanos into draft.balance_after_nanos;

  insert into tollgate.transfers (org_id, debit, credit, amount_nanos, kind, reference, reason, balance_after_nanos)
  values (
    draft.org_id, draft.debit, draft.credit, draft.amount_nanos, draft.kind,
    coalesce(draft.reference, tollgate.operator_of(actor) || ':' || (operation ->> 'idempotency_key')),
    operation ->> 'reason', draft.balance_after_nanos
  )
  returning * into posted;

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
    tollgate.transfer_id(posted),
    operation || jsonb_build_object('amount_nanos', posted.amount_nanos, 'debit', posted.debit, 'credit', posted.credit)
  );
  perform tollgate.touch(k, caller) from tollgate.api_keys k where k.id = actor.key_id;
  return tollgate.shown_transfer(posted) || '{"created": true}';
end
$$;

comment on function tollgate.post_operation(jsonb, tollgate.caller, jsonb, tollgate.transfers) is
  'Moves what the draft says, and notes the operation and its audit event. A draft without a reference gets one of the operator and the idempotency key, so no operator meets another''s, nor what the console chose. Expects the operator and the org to be locked. Touches the key.';


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
  'Gives credits to an org, or to a user''s, once per idempotency key of the operator. `operation`: org_id or user_id, amount_nanos, source (funding, promotion), reason, idempotency_key. `caps`: grant_nanos, day_nanos. For admins. Refuses: as recognise(), invalid_request, not_found, idempotency_key_reused, cap_exceeded. Locks the operator, the org, the key.';

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
    source := tollgate.check_source(operation, array['funding', 'writeoff']);
    payer := tollgate.lock_payer(operation);
    if change > 0 then
      perform tollgate.check_cap(actor, change, caps);
    elsif payer.balance_nanos - payer.held_nanos + change < 0 then
      perform tollgate.refuse(409, 'conflict', jsonb_build_object(
        'param', 'amount_nanos',
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
  'Puts an org''s balance right, up or down, once per idempotency key of the operator. Takes no more than is available: what requests hold is spoken for. `operation`: as for tollgate_grant_credits(), amount_nanos below zero to take, source funding or writeoff. What it gives counts toward the caps. For admins. Refuses: as recognise(), invalid_request, not_found, idempotency_key_reused, cap_exceeded, conflict. Locks the operator, the org, the key.';

select tollgate.expose('public.tollgate_adjust_credits(jsonb, jsonb, jsonb)');


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
  'What a request was charged, with what a late settlement corrected of it; refunds of operators left out.';


create function tollgate.refuse_refund(request_id text) returns void
language plpgsql
set search_path = ''
as $$
declare
  request tollgate.requests;
begin
  select r.* into request from tollgate.requests r where r.id = refuse_refund.request_id;
  if not found then
    perform tollgate.not_there('request', request_id);
  end if;
  perform tollgate.refuse(409, 'conflict', jsonb_build_object(
    'param', 'request_id',
    'request_id', request_id,
    'state', request.state,
    'charge_nanos', coalesce(request.charge_nanos, 0),
    'refundable_nanos', 0
  ));
end
$$;

comment on function tollgate.refuse_refund(text) is
  'Refuses to refund a request that has no charge: not_found, or conflict with its state.';


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
  'Gives a request''s charge back, in part or what is left of it, once per idempotency key of the operator; all refunds of a charge together never exceed it. `operation`: request_id, amount_nanos or null for what is left, reason, idempotency_key. For admins. Refuses: as recognise(), invalid_request, not_found, idempotency_key_reused, conflict. Locks the operator, the org, the key.';

select tollgate.expose('public.tollgate_refund_charge(jsonb, jsonb)');


-- schemas/07_credits/transfers.sql

-- Transfers as JSON, and lists of them.

create function tollgate.transfer_id(t tollgate.transfers) returns text
language sql
immutable
set search_path = ''
as $$
  select 'trf_' || t.position
$$;

comment on function tollgate.transfer_id(tollgate.transfers) is 'How a transfer is called outside.';


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
  'The request that a charge or a refund is about. The n-th refund of a request has the reference <request id>/<n>, so that the ledger itself cannot hold two n-th ones; what a late settlement corrects has <request id>:late.';


create function tollgate.shown_transfer(t tollgate.transfers) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', tollgate.transfer_id(t),
    'org_id', t.org_id,
    'kind', t.kind,
    'debit', t.debit,
    'credit', t.credit,
    'amount_nanos', t.amount_nanos,
    'change_nanos', case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end,
    'balance_after_nanos', t.balance_after_nanos,
    'request_id', tollgate.request_of(t),
    'reference', t.reference,
    'reason', t.reason,
    'created_at', tollgate.utc(t.created_at)
  )
$$;

comment on function tollgate.shown_transfer(tollgate.transfers) is
  'A transfer as operators see it. change_nanos is what it did to the org''s balance.';


create function tollgate.transfer_page(filters jsonb, page_size integer) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  most_counted constant integer := 10000;
  condition constant text := concat_ws(' and ', 'true',
    case when filters ->> 'org_id' is not null then 't.org_id = $1 ->> ''org_id''' end,
    case when filters ->> 'kind' is not null then 't.kind = $1 ->> ''kind''' end,
    case when filters ->> 'debit' is not null then 't.debit = $1 ->> ''debit''' end,
    case when filters ->> 'credit' is not null then 't.credit = $1 ->> ''credit''' end,
    case when filters ->> 'from' is not null then 't.created_at >= ($1 ->> ''from'')::timestamptz' end,
    case when filters ->> 'to' is not null then 't.created_at < ($1 ->> ''to'')::timestamptz' end,
    case when filters ->> 'min_nanos' is not null then 't.amount_nanos >= ($1 ->> ''min_nanos'')::bigint' end,
    case when filters ->> 'max_nanos' is not null then 't.amount_nanos <= ($1 ->> ''max_nanos'')::bigint' end
  );
  rising constant boolean := coalesce(filters ->> 'sort' = 'created_at:asc', false);
  beyond bigint := case when rising then 0 else 9223372036854775807 end;
  -- Times that are past lie together, far from where reading by position begins: then they are sought out first.
  first constant text := case
    when filters ->> 'org_id' is null and (filters ->> 'to')::timestamptz < clock_timestamp() then 'materialized'
    else 'not materialized'
  end;
  counted bigint;
  page jsonb;
begin
  if filters ->> 'cursor' is not null then
    select t.position into beyond from tollgate.transfers t
    where t.position = substring(filters ->> 'cursor' from '^trf_([0-9]{1,18})$')::bigint
      and (filters ->> 'org_id' is null or t.org_id = filters ->> 'org_id');
    if not found then
      perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'cursor'));
    end if;
  end if;

  -- Planned each time for the filters there are: one plan for all of them would read the whole ledger for one org.
  execute format(
    'with found as %4$s (select t.position from tollgate.transfers t where %1$s and t.position %3$s $2)
     select coalesce(jsonb_agg(tollgate.shown_transfer(t) order by t.position %2$s), ''[]'')
     from tollgate.transfers t
     where t.position in (select f.position from found f order by f.position %2$s limit $3)',
    condition, case when rising then 'asc' else 'desc' end, case when rising then '>' else '<' end, first)
  into page using filters, beyond, page_size + 1;
  execute format(
    'with found as %2$s (select t.position from tollgate.transfers t where %1$s)
     select count(*) from (select from found limit $2) f', condition, first)
  into counted using filters, most_counted + 1;

  return jsonb_build_object(
    'data', page - page_size,
    'next_cursor', case when jsonb_array_length(page) > page_size then page -> (page_size - 1) -> 'id' end,
    'total', case when counted <= most_counted then counted end
  );
end
$$;

comment on function tollgate.transfer_page(jsonb, integer) is
  'A page of the ledger, in the order of its making: newest first, or with the sort created_at:asc oldest first. `filters`: org_id, kind, debit, credit, from, to, min_nanos, max_nanos, cursor (the id of the last one of the page before). Counts up to 10,000; more is null. Refuses, with invalid_request, a cursor that is none of the org''s.';


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


-- schemas/08_upstreams/probes.sql

-- Results of probes.

create function public.tollgate_keep_probes(caller jsonb, probes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  kept jsonb;
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
    returning p.*
  )
  select coalesce(jsonb_agg(
    to_jsonb(s) || jsonb_build_object('probed_at', tollgate.utc(s.probed_at)) order by s.upstream_id
  ), '[]') into kept
  from stored s;

  perform tollgate.record(actor, 'upstreams.probed', null, 'upstreams', jsonb_build_object(
    'up', (select count(*) from jsonb_array_elements(kept) k where k ->> 'status' = 'up'),
    'down', (select count(*) from jsonb_array_elements(kept) k where k ->> 'status' = 'down')
  ));
  return jsonb_build_object('caller', tollgate.identity(actor), 'data', kept);
end
$$;

comment on function public.tollgate_keep_probes(jsonb, jsonb) is
  'Keeps how our own servers answered just now: upstream_id, status, http_status, latency_ms, error. One that was removed meanwhile is left out. For admins. Refuses: as recognise(). Locks the upstreams by id against removal, then their probes in the same order.';

select tollgate.expose('public.tollgate_keep_probes(jsonb, jsonb)');


-- schemas/08_upstreams/routes.sql

-- Routes: which upstream serves which model, at what price.

create function tollgate.route_shown(r tollgate.routes) returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(r) || jsonb_build_object(
    'created_at', tollgate.utc(r.created_at), 'updated_at', tollgate.utc(r.updated_at)
  )
$$;

comment on function tollgate.route_shown(tollgate.routes) is 'A route as operators see it.';


create function tollgate.write_route(actor tollgate.caller, was tollgate.routes, given jsonb) returns tollgate.routes
language plpgsql
set search_path = ''
as $$
declare
  is_new boolean := was.created_at is null;
  made tollgate.routes;
  culprit text;
begin
  made := jsonb_populate_record(was, given);
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
      state = made.state, updated_at = made.updated_at
    where r.id = made.id;
  end if;
  perform tollgate.record(
    actor, case when is_new then 'route.created' else 'route.changed' end, null, made.id, given
  );
  return made;
exception
  when check_violation then
    get stacked diagnostics culprit = constraint_name;
    perform tollgate.refuse(400, 'invalid_request',
      jsonb_build_object('param', regexp_replace(culprit, '^routes_(.*)_check$', '\1')));
  when not_null_violation then
    get stacked diagnostics culprit = column_name;
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', culprit));
  when invalid_text_representation or numeric_value_out_of_range or untranslatable_character then
    perform tollgate.refuse(400, 'invalid_request', '{"param": "route"}');
end
$$;

comment on function tollgate.write_route(tollgate.caller, tollgate.routes, jsonb) is
  'Inserts a route that has no created_at yet, or changes the named fields of one that the caller has locked, and records it. What changes nothing records nothing.';


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
  'Deletes a route that the caller has locked, and records all of it.';


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
  was tollgate.routes;
  made tollgate.routes;
begin
  perform tollgate.refuse_unknown(route, array[
    'model', 'upstream_id', 'upstream_model', 'pricing', 'context_tokens', 'most_output',
    'priority', 'weight', 'listing', 'state'
  ]);
  perform from tollgate.upstreams u where u.id = route ->> 'upstream_id' for key share;
  if not found then
    perform tollgate.refuse(404, 'not_found',
      jsonb_build_object('kind', 'upstream', 'id', route ->> 'upstream_id'));
  end if;
  perform pg_advisory_xact_lock(hashtextextended('tollgate.routes', 0));
  select r.* into was from tollgate.routes r
  where r.model = route ->> 'model' and r.upstream_id = route ->> 'upstream_id'
  for no key update;
  if not found then
    was.id := tollgate.new_id('rte');
    was.upstream_model := route ->> 'model';
    was.priority := 50;
    was.weight := 1;
    was.listing := '{}';
    was.state := 'active';
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
  'Lets an upstream serve a model, or changes the named fields of how it does. Repeating that changes and records nothing. For admins and the console. Refuses: as recognise(), not_found (the upstream), invalid_request (with the field). Locks the upstream against removal, takes an advisory lock, so that two at once make one, and locks the row.';

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
  select r.* into gone from tollgate.routes r where r.id = tollgate_delete_route.route_id for update;
  if not found then
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'route', 'id', route_id));
  end if;
  perform tollgate.remove_route(actor, gone);
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', gone.id, 'model', gone.model);
end
$$;

comment on function public.tollgate_delete_route(jsonb, text) is
  'Removes a route, which is recorded whole. For admins. Refuses: as recognise(), not_found. Locks the route.';

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
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'route', 'id', route_id));
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'route', tollgate.route_shown(found_one));
end
$$;

comment on function public.tollgate_route(jsonb, text) is
  'One route to one of our own servers. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_route(jsonb, text)');


create function public.tollgate_routes(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  sort text := coalesce(filters ->> 'sort', 'created_at:desc');
  down boolean := sort like '%:desc';
  last tollgate.routes;
  last_key text;
  answer jsonb;
begin
  perform tollgate.refuse_unknown(filters, array['model', 'upstream_id', 'state', 'sort', 'cursor']);
  if sort not in ('created_at:asc', 'created_at:desc', 'model:asc', 'model:desc') then
    perform tollgate.refuse(400, 'invalid_request', '{"param": "sort"}');
  end if;
  if filters ->> 'cursor' is not null then
    select r.* into last from tollgate.routes r where r.id = filters ->> 'cursor';
    if not found then
      perform tollgate.refuse(400, 'invalid_request', '{"param": "cursor"}');
    end if;
    last_key := tollgate.sort_key(sort, last.model, last.created_at);
  end if;

  with wanted as (
    select r, r.id, tollgate.sort_key(sort, r.model, r.created_at) as key
    from tollgate.routes r
    where (filters ->> 'model' is null or r.model = filters ->> 'model')
      and (filters ->> 'upstream_id' is null or r.upstream_id = filters ->> 'upstream_id')
      and (filters ->> 'state' is null or r.state = filters ->> 'state')
  ), placed as (
    select w.*, row_number() over (
      order by case when not down then w.key end, case when down then w.key end desc,
        case when not down then w.id end, case when down then w.id end desc
    ) as place
    from wanted w
    where last_key is null
      or case when down then (w.key, w.id) < (last_key, last.id) else (w.key, w.id) > (last_key, last.id) end
  )
  select jsonb_build_object(
    'data', coalesce(jsonb_agg(tollgate.route_shown(p.r) order by p.place) filter (where p.place <= page_size), '[]'),
    'next_cursor', case when count(*) > page_size then max(p.id) filter (where p.place = page_size) end,
    'total', (select count(*) from wanted)
  ) into answer
  from placed p where p.place <= page_size + 1;
  return answer || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_routes(jsonb, jsonb, integer) is
  'Routes to our own servers. `filters`: model, upstream_id, state, sort (created_at or model, :asc or :desc), cursor. For admins. There are few, so all are looked at. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_routes(jsonb, jsonb, integer)');


-- schemas/08_upstreams/upstreams.sql

-- Upstreams: own servers that answer completions.

create function tollgate.upstream_shown(u tollgate.upstreams) returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(u) || jsonb_build_object(
    'created_at', tollgate.utc(u.created_at),
    'updated_at', tollgate.utc(u.updated_at),
    'routes', (select count(*) from tollgate.routes r where r.upstream_id = u.id),
    'health', (
      select to_jsonb(p) - 'upstream_id' || jsonb_build_object('probed_at', tollgate.utc(p.probed_at))
      from tollgate.probes p where p.upstream_id = u.id
    )
  )
$$;

comment on function tollgate.upstream_shown(tollgate.upstreams) is
  'An upstream as operators see it: with the number of its routes, and how it was when it was last probed.';


create function tollgate.write_upstream(actor tollgate.caller, was tollgate.upstreams, given jsonb)
returns tollgate.upstreams
language plpgsql
set search_path = ''
as $$
declare
  is_new boolean := was.created_at is null;
  made tollgate.upstreams;
  culprit text;
begin
  perform tollgate.refuse_unknown(given, array[
    'id', 'name', 'base_url', 'dialect', 'secret_name', 'concurrency',
    'connect_seconds', 'first_byte_seconds', 'idle_seconds', 'health_path', 'state'
  ]);
  made := jsonb_populate_record(was, given - 'id');
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
      health_path = made.health_path, state = made.state, updated_at = made.updated_at
    where u.id = made.id;
  end if;
  perform tollgate.record(
    actor, case when is_new then 'upstream.created' else 'upstream.changed' end, null, made.id, given - 'id'
  );
  return made;
exception
  when check_violation then
    get stacked diagnostics culprit = constraint_name;
    perform tollgate.refuse(400, 'invalid_request',
      jsonb_build_object('param', regexp_replace(culprit, '^upstreams_(.*)_(check|is_not_ours)$', '\1')));
  when not_null_violation then
    get stacked diagnostics culprit = column_name;
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', culprit));
  when invalid_text_representation or numeric_value_out_of_range or untranslatable_character then
    perform tollgate.refuse(400, 'invalid_request', '{"param": "upstream"}');
end
$$;

comment on function tollgate.write_upstream(tollgate.caller, tollgate.upstreams, jsonb) is
  'Inserts an upstream that has no created_at yet, or changes the named fields of one that the caller has locked, and records it. What changes nothing records nothing.';


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
  if not found then
    was.id := coalesce(upstream ->> 'id', tollgate.new_id('ups'));
    was.connect_seconds := 5;
    was.first_byte_seconds := 120;
    was.idle_seconds := 120;
    was.state := 'active';
  end if;
  made := tollgate.write_upstream(actor, was, upstream);
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'id', made.id,
    'created', was.created_at is null,
    'upstream', tollgate.upstream_shown(made)
  );
end
$$;

comment on function public.tollgate_put_upstream(jsonb, jsonb) is
  'Makes a server of our own known, or changes the named fields of the one with this id. Repeating that changes and records nothing. For admins and the console. Refuses: as recognise(), invalid_request (with the field). Takes an advisory lock, so that two at once make one, and locks the row.';

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
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'upstream', 'id', upstream_id));
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'upstream', tollgate.upstream_shown(tollgate.write_upstream(actor, was, changes))
  );
end
$$;

comment on function public.tollgate_change_upstream(jsonb, text, jsonb) is
  'Changes the named fields of one of our own servers. Repeating that changes and records nothing. For admins. Refuses: as recognise(), not_found, invalid_request (with the field). Locks the row.';

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
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'upstream', 'id', upstream_id));
  end if;

  for route in select r.* from tollgate.routes r where r.upstream_id = gone.id order by r.id for update loop
    perform tollgate.remove_route(actor, route);
    routes := routes + 1;
  end loop;
  if routes > 0 and not with_routes then -- which takes the whole call back
    perform tollgate.refuse(409, 'conflict', jsonb_build_object('kind', 'upstream', 'id', gone.id, 'routes', routes));
  end if;

  delete from tollgate.upstreams u where u.id = gone.id;
  perform tollgate.record(
    actor, 'upstream.deleted', null, gone.id, to_jsonb(gone) - 'id' - 'created_at' - 'updated_at'
  );
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', gone.id, 'routes', routes);
end
$$;

comment on function public.tollgate_delete_upstream(jsonb, text, boolean) is
  'Removes one of our own servers, and its routes where `with_routes` says so; each is recorded whole. Requests keep its id. For admins. Refuses: as recognise(), not_found, conflict (with the number of routes that still lead there). Locks the upstream, then its routes by id.';

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
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'upstream', 'id', upstream_id));
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'upstream', tollgate.upstream_shown(found_one));
end
$$;

comment on function public.tollgate_upstream(jsonb, text) is
  'One of our own servers. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_upstream(jsonb, text)');


create function public.tollgate_upstreams(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  sort text := coalesce(filters ->> 'sort', 'created_at:desc');
  down boolean := sort like '%:desc';
  last tollgate.upstreams;
  last_key text;
  answer jsonb;
begin
  perform tollgate.refuse_unknown(filters, array['ids', 'state', 'dialect', 'sort', 'cursor']);
  if sort not in ('created_at:asc', 'created_at:desc', 'name:asc', 'name:desc') then
    perform tollgate.refuse(400, 'invalid_request', '{"param": "sort"}');
  end if;
  if filters ->> 'cursor' is not null then
    select u.* into last from tollgate.upstreams u where u.id = filters ->> 'cursor';
    if not found then
      perform tollgate.refuse(400, 'invalid_request', '{"param": "cursor"}');
    end if;
    last_key := tollgate.sort_key(sort, last.name, last.created_at);
  end if;

  with wanted as (
    select u, u.id, tollgate.sort_key(sort, u.name, u.created_at) as key
    from tollgate.upstreams u
    where (filters -> 'ids' is null or u.id in (select jsonb_array_elements_text(filters -> 'ids')))
      and (filters ->> 'state' is null or u.state = filters ->> 'state')
      and (filters ->> 'dialect' is null or u.dialect = filters ->> 'dialect')
  ), placed as (
    select w.*, row_number() over (
      order by case when not down then w.key end, case when down then w.key end desc,
        case when not down then w.id end, case when down then w.id end desc
    ) as place
    from wanted w
    where last_key is null
      or case when down then (w.key, w.id) < (last_key, last.id) else (w.key, w.id) > (last_key, last.id) end
  )
  select jsonb_build_object(
    'data', coalesce(jsonb_agg(tollgate.upstream_shown(p.u) order by p.place) filter (where p.place <= page_size), '[]'),
    'next_cursor', case when count(*) > page_size then max(p.id) filter (where p.place = page_size) end,
    'total', (select count(*) from wanted)
  ) into answer
  from placed p where p.place <= page_size + 1;
  return answer || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_upstreams(jsonb, jsonb, integer) is
  'Servers of our own, with their routes'' number and their last probe. `filters`: ids, state, dialect, sort (created_at or name, :asc or :desc), cursor. For admins. There are few, so all are looked at. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_upstreams(jsonb, jsonb, integer)');


-- schemas/09_catalog/catalog.sql

-- The models that a call may name.

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
  'The age of a source''s snapshot and, where it is no older than that, its models of these names, or all.';


create function public.tollgate_catalog(source text, names jsonb, within_seconds integer) returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select tollgate.listings_of(source, nullif(names, 'null'), within_seconds) || tollgate.routes_of(nullif(names, 'null'))
$$;

comment on function public.tollgate_catalog(text, jsonb, integer) is
  'What is known of models by these names, or of all: the snapshot''s age, its entries if it is no older than `within_seconds` (else null), and the active routes to our own servers with their upstreams. Refuses nothing, locks nothing.';

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
  'Replaces a source''s snapshot by one that was taken so long ago, unless a newer one is there. `models`: id, also, listing, in order, each id once. Refuses nothing. Locks the snapshot, so that two at once end with the newer.';

select tollgate.expose('public.tollgate_keep_catalog(text, jsonb, bigint)');


create function public.tollgate_shopper(caller jsonb) returns jsonb
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
      'markup_ppm', coalesce(o.markup_ppm, p.markup_ppm)
    )
    from tollgate.api_keys k
    join tollgate.orgs o on o.id = k.org_id
    join tollgate.plans p on p.id = o.plan_id
    where k.id = actor.key_id
  );
end
$$;

comment on function public.tollgate_shopper(jsonb) is
  'Who looks at the catalogue: with which markup (null is the setting MARKUP), and which models the key may use (null is all). Refuses: as recognise(). Locks nothing of the org.';

select tollgate.expose('public.tollgate_shopper(jsonb)');


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

comment on function tollgate.snapshot_digest(text) is 'Tells whether a snapshot says something new, in whatever order.';


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
  'What all instances share of a source''s list of models; null where none has kept it.';


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
  'The shared list of models of a source: when it was taken, how many there are, and a digest of it all. Nulls where there is none. For admins. Refuses: as recognise(). Locks nothing.';

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
  'Records that an operator had a source''s list of models fetched, and says whether it differs from that of the digest. For admins. Refuses: as recognise(). Locks nothing.';

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
  answer jsonb;
begin
  with used as materialized (
    select u.*,
      case when sort = 'start' then u.start end as at,
      case sort
        when 'requests' then u.requests
        when 'errors' then u.errors
        when 'tokens' then u.prompt_tokens + u.completion_tokens
        when 'charge' then u.charge_nanos
        when 'cost' then u.cost_nanos
        when 'margin' then u.charge_nanos - u.cost_nanos
      end as measure
    from tollgate.usage_by(
      groups, (filters ->> 'from')::timestamptz, (filters ->> 'to')::timestamptz,
      tollgate.own_or_all(actor, filters, everyone)
    ) u
    where u.requests > 0
  ),
  past as (
    select case when filters ? 'cursor' then (
      select p.place
      from (
        select tollgate.group_id(u.start, u.org_id, u.user_id, u.key_id, u.model, u.upstream) as id,
          row_number() over (
            order by u.at, u.measure desc, u.start, u.org_id, u.user_id, u.key_id, u.model, u.upstream
          ) as place
        from used u
      ) p
      where p.id = filters ->> 'cursor'
    ) else 0 end as place
  ),
  page as (
    select u.*, row_number() over () as place
    from (
      select u.* from used u
      order by u.at, u.measure desc, u.start, u.org_id, u.user_id, u.key_id, u.model, u.upstream
      offset (select p.place from past p)
      limit page_size
    ) u
  )
  select jsonb_build_object(
    'caller', tollgate.identity(actor),
    'data', coalesce((
      select jsonb_agg(
        (
          select jsonb_object_agg(d.name, d.value)
          from (values
            ('day', 'start', tollgate.utc(p.start)),
            ('month', 'start', tollgate.utc(p.start)),
            ('org', 'org_id', p.org_id),
            ('org', 'org_name', (select o.name from tollgate.orgs o where o.id = p.org_id)),
            ('user', 'user_id', p.user_id),
            ('user', 'user_email', (select u.email from tollgate.users u where u.id = p.user_id)),
            ('key', 'key_id', p.key_id),
            ('key', 'key_name', (select k.name from tollgate.api_keys k where k.id = p.key_id)),
            ('model', 'model', p.model),
            ('upstream', 'upstream', p.upstream)
          ) d (of_group, name, value)
          where d.of_group = any (groups)
        )
        || tollgate.measures(
          row(null, null, null, null, null, null, p.requests, p.errors, p.streamed, p.estimated, p.prompt_tokens,
            p.completion_tokens, p.charge_nanos, p.cost_nanos, p.last_at)::tollgate.usage,
          everyone
        )
        || jsonb_build_object('last_request_at', tollgate.utc(p.last_at))
        order by p.place
      )
      from page p
    ), '[]'),
    'next_cursor', (
      select tollgate.group_id(p.start, p.org_id, p.user_id, p.key_id, p.model, p.upstream) from page p
      where p.place = page_size and past.place + page_size < (select count(*) from used)
    ),
    'total', (select count(*) from used),
    'totals', (
      select tollgate.measures(
        row(null, null, null, null, null, null, coalesce(sum(u.requests), 0), coalesce(sum(u.errors), 0),
          coalesce(sum(u.streamed), 0), coalesce(sum(u.estimated), 0), coalesce(sum(u.prompt_tokens), 0),
          coalesce(sum(u.completion_tokens), 0), coalesce(sum(u.charge_nanos), 0), coalesce(sum(u.cost_nanos), 0),
          max(u.last_at))::tollgate.usage,
        everyone
      )
      from used u
    ),
    'unknown', past.place is null
  ) into answer
  from past;
  if (answer -> 'unknown')::boolean then
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'cursor'));
  end if;
  return answer - 'unknown';
end
$$;

comment on function public.tollgate_usage_aggregate(jsonb, jsonb, jsonb, integer, boolean) is
  'Usage by any of day, month, model, key, user, org, upstream, a page of groups and the totals of all: everyone''s for admins, or of the caller''s org without what it cost us. `filters`: org_id, user_id, key_id, model, upstream, from, to, cursor, sort (start, or the most requests, errors, tokens, charge, cost, margin first). Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_usage_aggregate(jsonb, jsonb, jsonb, integer, boolean)');


create function public.tollgate_usage_series(caller jsonb, bucket text, filters jsonb, everyone boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
set timezone = 'UTC'
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, case when everyone then 'admin' else 'usage' end);
  beginning timestamptz := date_trunc(bucket, (filters ->> 'from')::timestamptz);
  ending timestamptz := coalesce((filters ->> 'to')::timestamptz, now());
begin
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'data', coalesce(jsonb_agg(
        jsonb_build_object('start', tollgate.utc(s.start)) || tollgate.measures(
          row(null, null, null, null, null, null, coalesce(u.requests, 0), coalesce(u.errors, 0),
            coalesce(u.streamed, 0), coalesce(u.estimated, 0), coalesce(u.prompt_tokens, 0),
            coalesce(u.completion_tokens, 0), coalesce(u.charge_nanos, 0), coalesce(u.cost_nanos, 0),
            null)::tollgate.usage,
          everyone
        )
        order by s.start
      ), '[]')
    )
    from generate_series(beginning, ending - interval '1 microsecond', ('1 ' || bucket)::interval) s (start)
    left join tollgate.usage_by(
      array[bucket], beginning, ending, tollgate.own_or_all(actor, filters, everyone)
    ) u on u.start = s.start
  );
end
$$;

comment on function public.tollgate_usage_series(jsonb, text, jsonb, boolean) is
  'Usage in every minute, hour or day from a time, moved back to where its bucket begins, until before another, empty ones included; the caller bounds how many. Everyone''s for admins, or the caller''s org''s without what it cost us. `filters`: from (needed), to, org_id, user_id, key_id, model, upstream. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_usage_series(jsonb, text, jsonb, boolean)');


create function public.tollgate_keys_usage(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'usage');
  past tollgate.api_keys;
  own constant jsonb := jsonb_build_object('org_id', actor.org_id);
begin
  if filters ? 'cursor' then
    select k.* into past from tollgate.api_keys k where k.id = filters ->> 'cursor' and k.org_id = actor.org_id;
    if not found then
      perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'cursor'));
    end if;
  end if;
  return (
    with page as (
      select k.*, row_number() over (order by k.created_at desc, k.id desc) as place
      from tollgate.api_keys k
      where k.org_id = actor.org_id and (past.id is null or (k.created_at, k.id) < (past.created_at, past.id))
      order by k.created_at desc, k.id desc
      limit page_size + 1
    )
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'data', coalesce(jsonb_agg(
        jsonb_build_object(
          'id', p.id,
          'name', p.name,
          'key', p.prefix || '…' || p.last_four,
          'user_id', p.user_id,
          'environment', p.environment,
          'status', case when p.revoked_at is not null then 'revoked' when p.disabled_at is not null then 'disabled'
            when p.expires_at <= now() then 'expired' else 'active' end,
          'created_at', tollgate.utc(p.created_at),
          'last_used_at', tollgate.utc(p.last_used_at),
          'today', tollgate.used(today),
          'last_30_days', tollgate.used(month),
          'all_time', tollgate.used(always)
        )
        order by p.place
      ) filter (where p.place <= page_size), '[]'),
      'next_cursor', case when count(*) > page_size then min(p.id) filter (where p.place = page_size) end,
      'total', (select count(*) from tollgate.api_keys k where k.org_id = actor.org_id)
    )
    from page p
    left join tollgate.usage_by('{key}', date_trunc('day', now(), 'UTC'), null, own) today on today.key_id = p.id
    left join tollgate.usage_by('{key}', date_trunc('hour', now()) - interval '30 days', null, own) month
      on month.key_id = p.id
    left join tollgate.usage_by('{key}', null, null, own) always on always.key_id = p.id
  );
end
$$;

comment on function public.tollgate_keys_usage(jsonb, jsonb, integer) is
  'The keys of the caller''s org, newest first, with what each used today (UTC), in 30 days and ever. `filters`: cursor. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_keys_usage(jsonb, jsonb, integer)');


-- schemas/10_usage/corrections.sql

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
    cost_nanos = t.cost_nanos - coalesce(was.cost_nanos, 0) + coalesce(now_is.cost_nanos, 0)
  from (values
    ('hour', 'hour', true, true),
    ('hour_model', 'hour', false, true),
    ('day', 'day', true, true),
    ('day_model', 'day', false, true),
    ('day_key', 'day', true, false),
    ('month', 'month', true, true),
    ('month_model', 'month', false, true),
    ('month_key', 'month', true, false)
  ) c (cut, unit, people, models)
  where t.cut = c.cut and t.start = date_trunc(c.unit, was.created_at, 'UTC')
    and t.org_id = case when c.people then was.org_id else '' end
    and t.user_id = case when c.people then was.user_id else '' end
    and t.key_id = case when c.people then was.key_id else '' end
    and t.model = case when c.models then was.model else '' end
    and t.upstream = case when c.models then coalesce(was.upstream, '') else '' end;
end
$$;

comment on function tollgate.tally_correction(tollgate.requests, tollgate.requests) is
  'Corrects what was rolled up of a request, in all cuts; what is not rolled up yet will be counted as the request is then. Locks the row of tollgate.rolled against rolling up.';


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
  -- The days of a month that stay are counted in it again.
  insert into tollgate.tallies
  select replace(t.cut, 'day', 'month'), date_trunc('month', beginning, 'UTC'),
    t.org_id, t.user_id, t.key_id, t.model, t.upstream,
    sum(t.requests), sum(t.errors), sum(t.streamed), sum(t.estimated), sum(t.prompt_tokens), sum(t.completion_tokens),
    sum(t.charge_nanos), sum(t.cost_nanos), max(t.last_at)
  from tollgate.tallies t
  where t.cut in ('day', 'day_model', 'day_key')
    and t.start >= date_trunc('month', beginning, 'UTC') and t.start < beginning
  group by 1, 2, 3, 4, 5, 6, 7;
  delete from tollgate.latencies t where t.start >= beginning;
  delete from tollgate.late_requests l where l.created_at >= beginning;
  update tollgate.rolled set rolled_until = least(rolled_until, beginning);
end
$$;

comment on function tollgate.roll_up_again(timestamptz) is
  'Forgets what was rolled up from the day of a moment on, so that it is counted anew: after requests were brought in from elsewhere. Days of which requests were dropped stay as they are. Locks the row of tollgate.rolled.';


-- schemas/10_usage/credit_summary.sql

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
  'What moved between which accounts from a moment on: each transfer once, from the flows where whole hours are in them.';


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
  -- One statement, so that all of it is of one moment.
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
      coalesce(sum(o.balance_nanos), 0) as balance_nanos,
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
  'What moved between which accounts, today (UTC), in the last 7 and 30 days and in all; what each account is left with, which is zero over all of them; and what wallets hold now. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_credit_summary(jsonb)');


-- schemas/10_usage/latency.sql

-- Latency of any period.
--
-- tollgate.latency_between(kind text, since timestamptz, until timestamptz, filters jsonb) returns tollgate.latency
--   kind     whole | first_token
--   filters  org_id, user_id, key_id, model, upstream
-- A row: requests, average_ms, p50_ms, p90_ms, p95_ms, p99_ms, within 5 %.

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
  units constant text[] := case when filters ?| '{org_id,user_id,key_id}' then '{}' when models then '{day}'
    else '{hour,day}' end;
  measured constant text := case kind when 'whole' then 'duration_ms' else 'first_token_ms' end;
  raw constant text := format($raw$
    select floor(ln(greatest(t.%1$I, 1)::double precision) / ln(1.05::double precision))::integer as bucket,
      1 as requests, t.%1$I::bigint as total_ms
    from tollgate.requests t
    where t.%1$I is not null and t.settled_at is not null 
      and (t.error_code is not null or t.status >= 400) is not true %2$s $raw$,
    measured,
    tollgate.wanted(tollgate.with_org(filters), array['org_id', 'user_id', 'key_id', 'model', 'upstream'])
  );
  rolled constant text := format(
    'select t.bucket, t.requests, t.total_ms from tollgate.latencies t where t.kind = %L %s',
    kind,
    tollgate.wanted(filters, array['model', 'upstream'])
  );
  parts text;
  found_latency tollgate.latency;
begin
  select string_agg(
    case p.of_what when 'request' then raw when 'late' then raw else rolled end
    || ' and ' || tollgate.in_piece(p, case when models then '_model' else '' end),
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
  'How long requests without an error took, whole or until their first token, within 5 %: a percentile is the mean of the bucket it lies in. From rolled hours and days, by model or upstream from whole days only; of an org, user or key from its requests themselves, for which the caller bounds the span.';


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


-- schemas/10_usage/pieces.sql

-- Usage of any period, read from as few rows as possible: months, days, hours, then requests.
--
-- tollgate.usage_by(by text[], since timestamptz, until timestamptz, filters jsonb) returns setof tollgate.usage
--   by       any of minute, hour, day, month, org, user, key, model, upstream; '{}' is one row of everything, or none
--   since    counted from here; null is from the beginning
--   until    to before here; null is until now
--   filters  org_id, user_id, key_id, model, upstream, each optional
-- A row: start (of the minute, hour, day or month, UTC), org_id, user_id, key_id, model, upstream (null unless asked
-- for), requests, errors, streamed, estimated, prompt_tokens, completion_tokens, charge_nanos, cost_nanos, last_at.
--
-- It is stable and so sees one moment: rolled rows and those not rolled yet add up exactly. A request counts at the time
-- it was made, from the moment it is admitted, with what is known of it. Whole days and months are cheap, and so is all
-- time; minutes, and whatever no whole hour covers, are read from the requests.

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

  -- From outside inwards: the whole units within, and on either side of them what is left, in the unit before.
  foreach unit in array units loop
    within.of_what := unit;
    within.beginning := tollgate.first_of(unit, piece.beginning);
    -- A day that is running is a row of what is rolled up of it, so up to there it is a whole one too.
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
  'A time in pieces that lie side by side: the coarsest of the units (of hour, day, month, the finest first) in its middle, finer ones toward its ends, requests themselves where no unit fits or nothing is rolled up; and `late`, over all that units cover: those which they do not count yet. Where requests were dropped, both ends move on to the next full hour, so that times side by side never share one.';


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
  'A piece as a condition on `t`, which is requests or, of a unit, the tallies or latencies of that grain.';


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
  'The filters and the org that they lead to, by whose index its requests are found.';


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
      t.prompt_tokens::bigint, t.completion_tokens::bigint, t.charge_nanos::bigint, t.cost_nanos::bigint, t.created_at as last_at
    from tollgate.requests t where $raw$;
  tallied constant text := $tallied$
    select t.start, t.org_id, t.user_id, t.key_id, t.model, t.upstream, t.requests, t.errors, t.streamed, t.estimated,
      t.prompt_tokens, t.completion_tokens, t.charge_nanos, t.cost_nanos, t.last_at
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
        coalesce(sum(t.charge_nanos), 0)::bigint, coalesce(sum(t.cost_nanos), 0)::bigint, max(t.last_at)
      from (%2$s) t
      group by %3$s
    $query$,
    selected, parts, case when by = '{}' then '()' else '1, 2, 3, 4, 5, 6' end
  );
end
$$;

comment on function tollgate.usage_by(text[], timestamptz, timestamptz, jsonb) is
  'What was used from a time until before another, by any of minute, hour, day, month, org, user, key, model, upstream. Rolled hours, days and months where whole ones lie between, requests themselves at the edges, after what was rolled up, and where they are late: every request is counted exactly once. Where requests were dropped, an hour counts when it begins in the time asked for.';


-- schemas/10_usage/requests.sql

-- Lists of requests.

create function tollgate.cached_tokens(usage jsonb) returns numeric
language sql
immutable
set search_path = ''
as $$
  select coalesce(sum(c.value::text::numeric), 0)
  from (values
    (usage #> '{prompt_tokens_details,cached_tokens}'),
    (usage #> '{input_tokens_details,cached_tokens}'),
    (usage #> '{cache_read_input_tokens}')
  ) c (value)
  where jsonb_typeof(c.value) = 'number'
$$;

comment on function tollgate.cached_tokens(jsonb) is
  'How many tokens of the prompt the upstream found in its cache, in whichever of three places it says so.';


create function tollgate.requests_wanted(filters jsonb) returns text
language sql
immutable
set search_path = ''
as $$
  select tollgate.wanted(
      filters,
      array['org_id', 'user_id', 'key_id', 'model', 'upstream', 'endpoint', 'state', 'streamed', 'estimated']
    )
    || case
      when filters ->> 'status' like '_xx' then format(' and t.status / 100 = %L', left(filters ->> 'status', 1))
      when filters ? 'status' then format(' and t.status = %L', filters ->> 'status')
      else ''
    end
    || case when filters ? 'cached' then format(' and (tollgate.cached_tokens(t.usage) > 0) = %L', filters ->> 'cached')
      else ''
    end
$$;

comment on function tollgate.requests_wanted(jsonb) is
  'The filters of a list of requests as a condition on `t`. status is a code, or 4xx for all of its hundred.';


create function tollgate.how_many(filters jsonb) returns bigint
language sql
stable
set search_path = ''
as $$
  select (tollgate.usage_by(
    '{}',
    greatest((filters ->> 'from')::timestamptz, r.dropped_until),
    (filters ->> 'to')::timestamptz,
    filters
  )).requests
  from tollgate.rolled r
  where filters - '{from,to,sort,cursor,org_id,user_id,key_id,model,upstream}'::text[] = '{}'
$$;

comment on function tollgate.how_many(jsonb) is
  'How many requests a list has, where the tallies know it; null where counting would mean reading them all.';


create function tollgate.request_page(
  filters jsonb,
  page_size integer,
  everyone boolean,
  most_read integer default 50000
) returns json
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  direction constant text := case filters ->> 'sort' when 'created_at:asc' then 'asc' else 'desc' end;
  whose constant jsonb := tollgate.with_org(filters);
  beginning constant timestamptz := greatest(
    coalesce((filters ->> 'from')::timestamptz, '-infinity'), (select r.dropped_until from tollgate.rolled r)
  );
  ending constant timestamptz := coalesce((filters ->> 'to')::timestamptz, 'infinity');
  past tollgate.requests;
  read text;
  rows json;
  next_cursor text;
begin
  if filters ? 'cursor' then
    select r.* into past from tollgate.requests r
    where r.id = filters ->> 'cursor' and (everyone or r.org_id = filters ->> 'org_id');
    if not found then
      perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'cursor'));
    end if;
  end if;
  read := format(
    $read$
      select t.* from tollgate.requests t
      where t.created_at >= %1$L and t.created_at < %2$L %3$s %4$s
      order by t.created_at %5$s, t.id %5$s
      limit %6$s
    $read$,
    beginning, ending, tollgate.wanted(whose, array['org_id']),
    case when past.id is not null then
      format('and (t.created_at, t.id) %s (%L, %L)', case direction when 'asc' then '>' else '<' end, past.created_at, past.id)
    end,
    direction, most_read
  );
  execute format(
    $query$
      select json_agg(p) from (
        select t.id, tollgate.utc(t.created_at) as created_at, t.org_id, t.user_id, t.key_id, t.endpoint, t.model,
          t.served_model, t.upstream, t.state, t.status, t.error_code, t.streamed, t.estimated, t.quarantined,
          t.prompt_tokens, t.completion_tokens, tollgate.cached_tokens(t.usage) as cached_tokens,
          t.charge_nanos, tollgate.credits_of(t.charge_nanos) as charge_credits, %1$s
          t.duration_ms, t.first_token_ms, tollgate.utc(t.settled_at) as settled_at
        from (%2$s) t
        where true %3$s
        order by t.created_at %4$s, t.id %4$s
        limit %5$s
      ) p
    $query$,
    case when everyone then 't.cost_nanos, tollgate.credits_of(t.cost_nanos) as cost_credits, t.generation_id,' end,
    read, tollgate.requests_wanted(whose), direction, page_size + 1
  ) into rows;

  if json_array_length(rows) > page_size then
    select json_agg(r.value order by r.place), max(r.value ->> 'id') filter (where r.place = page_size)
    into rows, next_cursor
    from json_array_elements(rows) with ordinality r (value, place)
    where r.place <= page_size;
  else
    execute format('select t.id from (%s) t offset %s', read, most_read - 1) into next_cursor;
  end if;
  return json_build_object('data', coalesce(rows, '[]'), 'next_cursor', next_cursor);
end
$$;

comment on function tollgate.request_page(jsonb, integer, boolean, integer) is
  'A page of requests, newest first unless sorted by created_at:asc; with cost and generation where they are everyone''s. Looks at most_read requests at most: where too few of them are wanted, the page is short, even empty, and next_cursor is the last one looked at. Refuses an unknown cursor.';


create function public.tollgate_requests(
  caller jsonb,
  filters jsonb,
  page_size integer,
  everyone boolean,
  counted boolean
) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, case when everyone then 'admin' else 'usage' end);
  wanted jsonb := tollgate.own_or_all(actor, filters, everyone);
  page json := tollgate.request_page(wanted, page_size, everyone);
begin
  return json_build_object(
    'caller', tollgate.identity(actor),
    'data', page -> 'data',
    'next_cursor', page -> 'next_cursor',
    'total', case when counted then tollgate.how_many(wanted) end
  );
end
$$;

comment on function public.tollgate_requests(jsonb, jsonb, integer, boolean, boolean) is
  'A page of requests: everyone''s for admins, or those of the caller''s org without what they cost us. `filters`: model, key_id, user_id, org_id, upstream, endpoint, status (a code, or 4xx), state, streamed, estimated, cached, from, to, cursor, sort (created_at:desc or created_at:asc). A page may be short, or empty, while next_cursor says that there is more to look through. `total` is null unless wanted and cheap. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_requests(jsonb, jsonb, integer, boolean, boolean)');


-- schemas/10_usage/roll_up.sql

-- Rolls requests up into tallies and latencies, and transfers into flows.
--
-- The sweeper calls public.tollgate_roll_up_usage(page_size), which takes one bounded step, until it stops answering
-- "more". Requests that are still open are left out by id, and counted when they have ended.

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
    select coalesce(min(r.created_at), horizon) into state.rolled_until from tollgate.requests r;
    state.rolled_until := date_trunc('hour', least(state.rolled_until, horizon), 'UTC');
  end if;
  select r.created_at into upto
  from tollgate.requests r
  where r.created_at >= state.rolled_until and r.created_at < horizon
  order by r.created_at
  offset page_size
  limit 1;
  -- More than a page at one moment would never move on.
  upto := least(greatest(coalesce(upto, horizon), state.rolled_until + interval '1 microsecond'), horizon);
  upto := greatest(upto, state.rolled_until);

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
    returning r.id, r.org_id, r.user_id, r.key_id, r.model, r.upstream, r.created_at, r.settled_at, r.streamed, r.estimated,
      r.prompt_tokens, r.completion_tokens, r.charge_nanos, r.cost_nanos, r.first_token_ms, r.duration_ms,
      (r.error_code is not null or r.status >= 400) is true as failed
  ),
  fresh as (
    select r.id, r.org_id, r.user_id, r.key_id, r.model, r.upstream, r.created_at, r.settled_at, r.streamed, r.estimated,
      r.prompt_tokens, r.completion_tokens, r.charge_nanos, r.cost_nanos, r.first_token_ms, r.duration_ms,
      (r.error_code is not null or r.status >= 400) is true as failed
    from tollgate.requests r
    where r.created_at >= state.rolled_until and r.created_at < upto
  ),
  late as (
    insert into tollgate.late_requests (request_id, created_at)
    select f.id, f.created_at from fresh f where f.settled_at is null
  ),
  ended as materialized (
    select date_trunc('hour', e.created_at, 'UTC') as hour, e.org_id, e.user_id, e.key_id, e.model,
      coalesce(e.upstream, '') as upstream, e.created_at, e.streamed, e.estimated, e.prompt_tokens, e.completion_tokens,
      e.charge_nanos, e.cost_nanos, e.first_token_ms, e.duration_ms, e.failed
    from (select * from fresh f where f.settled_at is not null union all select * from ripe) e
  ),
  by_hour as materialized (
    select e.hour, e.org_id, e.user_id, e.key_id, e.model, e.upstream,
      count(*) as requests,
      count(*) filter (where e.failed) as errors,
      count(*) filter (where e.streamed) as streamed,
      count(*) filter (where e.estimated) as estimated,
      coalesce(sum(e.prompt_tokens), 0)::bigint as prompt_tokens,
      coalesce(sum(e.completion_tokens), 0)::bigint as completion_tokens,
      coalesce(sum(e.charge_nanos), 0)::bigint as charge_nanos,
      coalesce(sum(e.cost_nanos), 0)::bigint as cost_nanos,
      max(e.created_at) as last_at
    from ended e
    group by e.hour, e.org_id, e.user_id, e.key_id, e.model, e.upstream
  ),
  tallied as (
    insert into tollgate.tallies as t (
      cut, start, org_id, user_id, key_id, model, upstream,
      requests, errors, streamed, estimated, prompt_tokens, completion_tokens, charge_nanos, cost_nanos, last_at
    )
    select c.cut, date_trunc(c.unit, h.hour, 'UTC') as start,
      case when c.people then h.org_id else '' end,
      case when c.people then h.user_id else '' end,
      case when c.people then h.key_id else '' end,
      case when c.models then h.model else '' end,
      case when c.models then h.upstream else '' end,
      sum(h.requests), sum(h.errors), sum(h.streamed), sum(h.estimated), sum(h.prompt_tokens),
      sum(h.completion_tokens), sum(h.charge_nanos), sum(h.cost_nanos), max(h.last_at)
    from by_hour h
    cross join (values
      ('hour', 'hour', true, true),
      ('hour_model', 'hour', false, true),
      ('day', 'day', true, true),
      ('day_model', 'day', false, true),
      ('day_key', 'day', true, false),
      ('month', 'month', true, true),
      ('month_model', 'month', false, true),
      ('month_key', 'month', true, false)
    ) c (cut, unit, people, models)
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
      last_at = greatest(t.last_at, excluded.last_at)
  ),
  durations as materialized (
    select e.hour, k.kind, e.model, e.upstream,
      floor(ln(greatest(k.ms, 1)::double precision) / ln(1.05::double precision))::integer as bucket,
      count(*) as requests, sum(k.ms) as total_ms
    from ended e
    cross join lateral (values ('whole', e.duration_ms), ('first_token', e.first_token_ms)) k (kind, ms)
    where k.ms is not null and not e.failed
    group by 1, 2, 3, 4, 5
  ),
  timed as (
    insert into tollgate.latencies as t (cut, start, kind, model, upstream, bucket, requests, total_ms)
    select c.cut, date_trunc(c.unit, d.hour, 'UTC'), d.kind,
      case when c.models then d.model else '' end, case when c.models then d.upstream else '' end,
      d.bucket, sum(d.requests), sum(d.total_ms)
    from durations d
    cross join (values ('hour', 'hour', false), ('day', 'day', false), ('day_model', 'day', true)) c (cut, unit, models)
    group by 1, 2, 3, 4, 5, 6
    order by 1, 2, 3, 4, 5, 6
    on conflict on constraint latencies_pkey do update set
      requests = t.requests + excluded.requests,
      total_ms = t.total_ms + excluded.total_ms
  )
  select count(*) into counted from ended;

  update tollgate.rolled set rolled_until = upto;
  return jsonb_build_object('requests', counted, 'more', upto < horizon or counted >= page_size);
end
$$;

comment on function tollgate.roll_up(timestamptz, integer) is
  'Counts at most about page_size requests made before the horizon, and as many late ones that have ended since: each exactly once, whoever else tries at the same time. `more` says whether to call again. Locks the row of tollgate.rolled; when another has it, does nothing.';


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
  'Sums up a page of transfers, each exactly once, in the order of the ledger; whether there may be more. Expects the row of tollgate.rolled to be locked.';


create function public.tollgate_roll_up_usage(page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  -- Read before this transaction has an id of its own, and drawn by transactions that had theirs: they lock the org first.
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
  -- Admission draws its transaction id before it reads the clock, so requests made before a sighting belong to older
  -- transactions than the sighting's own. None takes an hour: one that stays longer is no admission.
  if state.sighted_xid <= pg_snapshot_xmin(pg_current_snapshot()) or state.sighted_at < now() - interval '1 hour' then
    state.complete_until := state.sighted_at;
    state.complete_position := state.sighted_position;
    state.sighted_xid := null;
  end if;
  if state.sighted_xid is null then
    state.sighted_at := now();
    state.sighted_position := newest;
    state.sighted_xid := pg_current_xact_id();
  end if;
  update tollgate.rolled set
    sighted_at = state.sighted_at, sighted_xid = state.sighted_xid, complete_until = state.complete_until,
    sighted_position = state.sighted_position, complete_position = state.complete_position;
  more_flows := tollgate.roll_up_flows(page_size);
  -- Of the running hour whole pages, so that whoever reads finds few requests that are not counted yet, however many
  -- come; and no less, since a page costs as much as the subjects in it.
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
  'One bounded step of rolling up: the hours that are over, and of the running one full pages, as far as every request is there to be seen, and the ledger likewise; a page of requests and one of transfers at a time. Answers {"requests", "more"}; called again while there is more. Refuses nothing. Locks the row of tollgate.rolled; when another has it, does nothing.';

select tollgate.expose('public.tollgate_roll_up_usage(integer)');


-- schemas/10_usage/shown.sql

-- Usage as JSON.

create function tollgate.credits_of(nanos bigint) returns numeric
language sql
immutable
set search_path = ''
as $$
  select trim_scale(nanos / 1000000000.0)
$$;

comment on function tollgate.credits_of(bigint) is 'Nanos as credits, for people to read.';


create function tollgate.group_id(start timestamptz, org_id text, user_id text, key_id text, model text, upstream text) returns text
language sql
immutable
set search_path = ''
as $$
  select md5(jsonb_build_array(start, org_id, user_id, key_id, model, upstream)::text)
$$;

comment on function tollgate.group_id(timestamptz, text, text, text, text, text) is 'By what a cursor finds its place among groups.';


create function tollgate.measures(used tollgate.usage, everyone boolean) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'requests', used.requests,
    'errors', used.errors,
    'streamed', used.streamed,
    'estimated', used.estimated,
    'prompt_tokens', used.prompt_tokens,
    'completion_tokens', used.completion_tokens,
    'charge_nanos', used.charge_nanos,
    'charge_credits', tollgate.credits_of(used.charge_nanos)
  ) || case when everyone then jsonb_build_object(
    'cost_nanos', used.cost_nanos,
    'cost_credits', tollgate.credits_of(used.cost_nanos),
    'margin_nanos', used.charge_nanos - used.cost_nanos,
    'margin_credits', tollgate.credits_of(used.charge_nanos - used.cost_nanos)
  ) else '{}' end
$$;

comment on function tollgate.measures(tollgate.usage, boolean) is
  'What was used, as answers tell it; cost and margin only where it is everyone''s.';


create function tollgate.used(used tollgate.usage) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'requests', coalesce(used.requests, 0),
    'tokens', coalesce(used.prompt_tokens + used.completion_tokens, 0),
    'charge_nanos', coalesce(used.charge_nanos, 0),
    'charge_credits', tollgate.credits_of(coalesce(used.charge_nanos, 0))
  )
$$;

comment on function tollgate.used(tollgate.usage) is 'What was used, in short.';


create function tollgate.own_or_all(actor tollgate.caller, filters jsonb, everyone boolean) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select case when everyone then filters else filters || jsonb_build_object('org_id', coalesce(actor.org_id, '')) end
$$;

comment on function tollgate.own_or_all(tollgate.caller, jsonb, boolean) is
  'The filters, over the caller''s own org unless it asks for everyone''s.';


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
  'What was used from a moment on, null being the beginning; which model most requests were for, and when the last was made.';


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
  'Keeps what was said in those requests whose item tells of it; of each the first word stands. Refuses nothing. Called under the lock of the orgs.';


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
  'Trigger of requests: what was said goes with its request, whoever drops it. In place of a foreign key, which every settlement would pay for.';

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
  page jsonb := public.tollgate_requests(caller, filters, page_size, true, true);
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
  'A page of everyone''s requests as tollgate_requests() answers it, each with what was asked and answered where that was kept. For admins. Reading is recorded: an event content.read for each org whose words were shown, naming the requests. Refuses: as recognise(), invalid_request. Locks nothing.';

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
  'Drops a batch of what was said so many days ago or more (at least one); called again while it answers "more". Refuses nothing. Locks the dropped rows, skipping locked ones.';

select tollgate.expose('public.tollgate_drop_old_contents(integer, integer)');


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
  wallet tollgate.wallet;
  remaining tollgate.remaining;
  key_remaining tollgate.remaining;
  worst_case tollgate.worst_case;
  admitted tollgate.admitted;
  available bigint;
  refusal jsonb;
  answer json;
  last_id text;
  place integer := 0; -- of the wallet among the wallets
  place_of_keys integer := 0; -- of the org whose keys this batch has written to
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
      i.item ->> 'idempotency_key' as idempotency_key,
      r as earlier, -- the request, when it was admitted before
      tollgate.key_refusal(k, u.status, u.role, o.status, i.item -> 'caller', i.item ->> 'scope') as key_refusal,
      case when r.id is null then coalesce(
        case when o.paid_suspended_at is not null then tollgate.suspended_refusal(o.id, o.paid_suspended_at) end,
        case when k.allowed_models is not null then tollgate.model_refusal(k, i.item -> 'models') end
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

    if refusal is not null then
      null;
    elsif (request.earlier).id is not null then
      admitted := row(
        null, request.id, request.org_id, (request.earlier).key_id, (request.earlier).user_id,
        (request.earlier).markup_ppm, (request.earlier).hold_nanos, (request.earlier).output_bound,
        (request.earlier).reserved_tokens
      );
      answer := tollgate.grant_of(admitted, request.environment, wallet, remaining);
    elsif request.idempotency_key is not null then
      answer := tollgate.kept_answer(request.item, request.org_id);
      if answer -> 'replay' is not null then -- it takes one request from every window, and nothing else
        if remaining.requests_left < 1 then
          refusal := tollgate.rate_refusal(wallet.counters, tollgate.of_requests(request.limits), at_ms, 0);
        elsif key_remaining.requests_left < 1 then
          refusal := tollgate.rate_refusal(key.counters, tollgate.of_requests(key.limits), at_ms, 0, key.id);
        else
          wallet.counters := tollgate.take(wallet.counters, at_ms, 1, 0);
          remaining.requests_left := remaining.requests_left - 1;
          wallets[place] := wallet;
          if request.is_counted then
            perform tollgate.take_replay_from_key(key, at_ms);
            place_of_keys := place;
          end if;
        end if;
      end if;
    end if;

    if answer is null and refusal is null then
      available := wallet.balance_nanos - wallet.held_nanos;
      worst_case := tollgate.worst_case(
        request.item,
        request.markup_ppm,
        least(available, key.budget_nanos - key.budget_spent_nanos),
        least(
          remaining.tokens_left / 2, key_remaining.tokens_left / 2, -- half: other requests can run at the same time
          key.tokens_per_month - key.tokens_used_in_month, key.tokens_in_all - key.tokens_used_in_all
        )
      );
      if wallet.open_requests >= request.most_open then
        refusal := tollgate.refusal(429, 'too_many_in_flight', jsonb_build_object(
          'limit', request.most_open, 'in_flight', wallet.open_requests, 'of', 'org'
        ));
      elsif worst_case.hold_nanos > available or available < 0 then
        refusal := tollgate.refusal(402, 'insufficient_credits', jsonb_build_object(
          'available_nanos', available,
          'required_nanos', worst_case.hold_nanos,
          'affordable_output_tokens', worst_case.affordable_tokens
        ));
      elsif remaining.requests_left < 1 or remaining.tokens_left < worst_case.reserved_tokens then
        refusal := tollgate.rate_refusal(wallet.counters, request.limits, at_ms, worst_case.reserved_tokens);
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
          request.item, request.id, request.org_id, request.key_id, request.user_id, request.markup_ppm,
          worst_case.hold_nanos, worst_case.output_bound, worst_case.reserved_tokens
        );
        all_admitted := all_admitted || admitted;
        answer := tollgate.grant_of(admitted, request.environment, wallet, case
          when request.is_counted then tollgate.tighter(remaining, key_remaining) else remaining
        end);
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
  with requests as (
    insert into tollgate.requests (
      id, org_id, key_id, user_id, state, endpoint, model, streamed, hold_nanos, markup_ppm,
      output_bound, reserved_tokens, price, idempotency_key, created_at, expires_at
    )
    select
      a.id, a.org_id, a.key_id, a.user_id, 'held', a.item ->> 'endpoint', a.item ->> 'model',
      (a.item ->> 'streamed')::boolean, a.hold_nanos, a.markup_ppm, a.output_bound, a.reserved_tokens,
      a.item -> 'price', a.item ->> 'idempotency_key', moment,
      moment + make_interval(secs => (a.item ->> 'ttl_seconds')::double precision)
    from unnest(all_admitted) a
    returning id, expires_at
  ),
  holds as (
    insert into tollgate.holds (request_id, next_sweep_at) select r.id, r.expires_at from requests r
  ),
  orgs as (
    update tollgate.orgs o set held_nanos = w.held_nanos, open_requests = w.open_requests, counters = w.counters
    from unnest(wallets) w
    where o.id = w.org_id
  )
  select json_object_agg(a.id, a.answer) into answer from unnest(ids, answers) a (id, answer);
  return coalesce(answer, '{}');
end
$$;

comment on function public.tollgate_admit(jsonb) is
  'Admits paid requests: recognises the key, takes from every window or from none, holds the credits, writes the request. Answers by id: granted, replay or refusal. A replay takes one request from the windows, and nothing else. Refuses, per item: as key_refusal(), paid_calls_suspended, model_not_allowed, too_many_in_flight, insufficient_credits, key_budget_exhausted, quota_exhausted, rate_limit_exceeded, idempotency_key_reused, request_in_progress. A repeated id gets the same answer. Locks orgs in id order, then keys.';

select tollgate.expose('public.tollgate_admit(jsonb)');


-- schemas/12_completions/answers.sql

-- Answers kept under an idempotency key.

create function tollgate.kept_answer(item jsonb, org_id text) returns jsonb
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
  return jsonb_build_object('replay', kept.answer || jsonb_build_object('request_id', kept.request_id));
end
$$;

comment on function tollgate.kept_answer(jsonb, text) is
  'The answer to a request that repeats an idempotency key: a replay, a refusal, or null when the key is new. The org is locked by the caller, so two requests cannot both find the key new.';


create function tollgate.begin_answer(org_id text, item jsonb) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.answers (org_id, idempotency_key, body_hash, request_id)
  values (org_id, item ->> 'idempotency_key', item ->> 'body_hash', item ->> 'id')
  on conflict on constraint answers_pkey do update set
    body_hash = excluded.body_hash, request_id = excluded.request_id, answer = null, created_at = excluded.created_at
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


-- schemas/12_completions/key_limits.sql

-- A key's own budget, quotas and limits.

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
      'required_nanos', worst_case.hold_nanos
    ));
  elsif worst_case.reserved_tokens > least(
    key.tokens_per_month - key.tokens_used_in_month, key.tokens_in_all - key.tokens_used_in_all
  ) then
    return tollgate.refusal(402, 'quota_exhausted', jsonb_build_object(
      'key_id', key.id,
      'tokens_needed', worst_case.reserved_tokens,
      'tokens_left_in_month', key.tokens_per_month - key.tokens_used_in_month,
      'tokens_left_in_all', key.tokens_in_all - key.tokens_used_in_all
    ));
  elsif remaining.requests_left < 1 or remaining.tokens_left < worst_case.reserved_tokens then
    return tollgate.rate_refusal(key.counters, key.limits, at_ms, worst_case.reserved_tokens, key.id);
  end if;
  return null;
end
$$;

comment on function tollgate.key_limit_refusal(tollgate.api_keys, tollgate.remaining, tollgate.worst_case, bigint) is
  'The refusal of a request by a key''s bound of open requests, budget, quotas or windows; null when it fits. `key` comes from in_this_period(). Refuses, as a value: too_many_in_flight, key_budget_exhausted, quota_exhausted, rate_limit_exceeded.';


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
      when k.month_of_tokens = tollgate.budget_period('monthly', admitted_at)
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


create function tollgate.model_refusal(key tollgate.api_keys, models jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select tollgate.refusal(403, 'model_not_allowed', jsonb_build_object('key_id', key.id, 'model', m.model))
  from jsonb_array_elements_text(models) with ordinality m (model, place)
  where not tollgate.model_allowed(key.allowed_models, m.model)
  order by m.place
  limit 1
$$;

comment on function tollgate.model_refusal(tollgate.api_keys, jsonb) is
  'The refusal of the first model that the key may not use; null when it may use all.';


-- schemas/12_completions/retention.sql

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


-- schemas/12_completions/settle.sql

-- Settles requests: charges what each cost and returns the rest of its hold.

create function tollgate.at_the_hold(item jsonb, hold numeric) returns jsonb
language sql
set search_path = ''
as $$
  select item - array['prompt_tokens', 'completion_tokens'] || jsonb_build_object(
    'charge_nanos', hold, 'cost_nanos', trunc(hold * 1000000 / (1000000 + r.markup_ppm)), 'quarantined', true
  )
  from tollgate.requests r where r.id = item ->> 'id'
$$;

comment on function tollgate.at_the_hold(jsonb, numeric) is
  'The item of a settlement whose money or tokens are below zero or beyond what a transfer may move, changed: quarantined, and charged at its hold.';


create function tollgate.note_quarantine(org_id text, request_id text, moment timestamptz) returns void
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
      row('system', null, null, null, null, null, null, 'settle', null, null, request_id)::tollgate.caller,
      'org.paid_suspended', org.id, org.id,
      jsonb_build_object(
        'reason', 'quarantined_usage', 'request_id', request_id, 'quarantined_before', tollgate.utc(org.quarantined_at)
      )
    );
  end if;
end
$$;

comment on function tollgate.note_quarantine(text, text, timestamptz) is
  'Stores when a request of the org was quarantined, and suspends the org''s paid calls when it is the second within an hour. The org is locked by the caller.';


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
    if entry.is_counted then
      perform tollgate.settle_key(entry.key_id, entry.created_at, charge - entry.hold_nanos, token_change, at_ms);
    end if;
    if entry.is_bounded then
      perform tollgate.count_open(entry.key_id, entry.line, -1);
    end if;
    if charge >= entry.hold_nanos and (entry.item ->> 'quarantined')::boolean then -- it is charged its hold
      perform tollgate.note_quarantine(entry.org_id, entry.id, moment);
    end if;
    if charge > entry.hold_nanos then
      perform tollgate.record(
        row('system', null, null, null, null, null, null, 'settle', null, null, entry.id)::tollgate.caller,
        'credits.overdrawn', entry.org_id, entry.id,
        jsonb_build_object('hold_nanos', entry.hold_nanos, 'charge_nanos', charge, 'balance_nanos', wallet.balance_nanos)
      );
    end if;
    answers := answers || json_build_object('settled', json_build_object(
      'state', entry.outcome, 'charge_nanos', charge, 'balance_nanos', wallet.balance_nanos, 'again', false
    ));
  end loop;

  if items @? '$[*].content' then -- where LOG_CONTENT is on
    perform tollgate.keep_contents(changed);
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
      estimated = coalesce((c.item ->> 'estimated')::boolean, r.estimated),
      quarantined = coalesce((c.item ->> 'quarantined')::boolean, r.quarantined),
      status = coalesce((c.item ->> 'status')::integer, r.status),
      error_code = coalesce(c.item ->> 'error_code', r.error_code),
      first_token_ms = coalesce((c.item ->> 'first_token_ms')::integer, r.first_token_ms),
      duration_ms = coalesce((c.item ->> 'duration_ms')::integer, r.duration_ms),
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
  'Ends holds: `outcome` settled charges and returns the rest, released returns all, unsettled keeps the hold for the sweeper. A cost above the hold is charged in full and recorded as credits.overdrawn. A quarantined request is charged its hold; it suspends the org''s paid calls when it is the second within an hour. The first outcome of a request stands, unless it was an estimate or a release and a later one is exact: see settle_late(). A repetition changes nothing and is answered with "again": true. Refuses, per item: not_found. Locks orgs in id order, then keys, then requests.';

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
  if is_exact and (before.state = 'released' or before.estimated) then
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
      generation_id = coalesce(item ->> 'generation_id', r.generation_id),
      served_model = coalesce(item ->> 'served_model', r.served_model),
      estimated = false
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
    if counted then
      perform tollgate.settle_key(before.key_id, before.created_at, change, token_change, at_ms);
    end if;
  end if;

  if not exists (
    select from tollgate.audit_events a
    where a.target_id = before.id and a.action = 'settlement.late' and a.details ->> 'charge_nanos' = new_charge::text
  ) then
    perform tollgate.record(
      row('system', null, null, null, null, null, null, 'settle', null, null, before.id)::tollgate.caller,
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
  'Settles a request again that has ended, at another charge. Records it as settlement.late, once for each charge. An exact charge corrects one that was estimated, or a release, within the hold: the answer has the transfer of the difference, for the caller to post, and the changed wallet. Any other changes nothing. The org is locked by the caller. Locks the request, the row of tollgate.rolled, the key.';


-- schemas/12_completions/sweep.sql

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
    update tollgate.requests r set generation_id = i.generation_id, upstream = i.upstream
    from jsonb_to_recordset(items) i (id text, generation_id text, upstream text)
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
  'Stores the upstreams'' ids of running generations. With them the sweeper finds the costs of requests whose process died. Each item has id, generation_id, upstream. Refuses nothing. Locks the request rows, and skips locked ones, which are being settled.';

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
    'cost_nanos', least(o.hold_nanos, ceil(o.prompt_nanos)),
    'estimated', true
  )) into overdue
  from (
    select r.id, r.hold_nanos, r.markup_ppm, coalesce((r.price ->> 'fixed_nanos')::numeric, 0) as prompt_nanos
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
  remaining tollgate.remaining
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

comment on function tollgate.grant_of(tollgate.admitted, text, tollgate.wallet, tollgate.remaining) is
  'The answer to an admitted request. `limits` is null where neither org nor key has any. As json, which is half as expensive to build as jsonb.';


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
  'Proves the books from the tables alone, of one moment: that the ledger agrees with itself, with requests, with the operations and audit events that moved credits, with what was counted of it and with its hash chains, and that the audit trail agrees with its own. Names the rows that do not fit, at most 1,000 of them. Refuses nothing, locks nothing.';

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
    select distinct on ((c.t).org_id) 'chain', 'trf_' || (c.t).position, jsonb_build_object(
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
    -- Of each request: its charge, and what a late settlement charged more or gave back.
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
  select 'stray_charge', tollgate.transfer_id(t), jsonb_build_object('reference', t.reference, 'state', r.state)
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
  -- Of requests that an upstream answered. The cost was rounded up to a whole nano, so the charge may be less by its
  -- markup; an estimate ends at the hold, and so does what a late settlement corrected.
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
    when 'settled' then
      r.charge_nanos > ceil((r.cost_nanos + 1) * (1000000 + r.markup_ppm::numeric) / 1000000)
      or r.charge_nanos < floor((r.cost_nanos - 1) * (1000000 + r.markup_ppm::numeric) / 1000000)
        and not (r.estimated and r.charge_nanos = r.hold_nanos)
      or r.upstream = 'openrouter' and not r.quarantined and not r.estimated and r.usage -> 'is_byok' is distinct from 'true'
        and case when r.usage ->> 'cost' ~ '^[0-9]+([.][0-9]+)?([eE][-+]?[0-9]{1,3})?$'
          then ceil((r.usage ->> 'cost')::numeric * 1000000000) <> r.cost_nanos
        end
  end
$$;

comment on function tollgate.charge_faults() is
  'Where requests and charges do not agree: every charge is one transfer of the request''s org, with what a late settlement corrected of it, every charge is the cost and its markup, every cost what the upstream said; charges of an org whose requests retention dropped are, in number and sum, what it noted then.';


create function tollgate.origin_faults() returns table (fault text, id text, facts jsonb)
language sql
stable
set search_path = ''
as $$
  with moved as (
    select tollgate.transfer_id(t) as id, t.*,
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
  select 'operation', coalesce(c.id, 'trf_' || o.position), jsonb_build_object(
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
  select 'audit_event', tollgate.transfer_id(t), jsonb_build_object('reference', t.reference, 'amount_nanos', t.amount_nanos)
  from tollgate.transfers t
  where t.reference like '%:late' and not exists (
    select from tollgate.audit_events a
    where a.target_id = tollgate.request_of(t) and a.action = 'settlement.late' and a.org_id = t.org_id
      and a.details ->> 'corrected_by_nanos' = (case t.kind when 'charge' then t.amount_nanos else -t.amount_nanos end)::text
  )
$$;

comment on function tollgate.origin_faults() is
  'Where credits moved without their origin: every transfer but charges has one audit event of its org, amount and accounts, every such event its transfer, every operation both; every overdrawing charge and every late correction is what its event says.';


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
  'Orgs that are gone though they had a balance, or though nobody deleted them.';


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
  select 'running_balance', 'trf_' || s.position, jsonb_build_object('balance_after_nanos', s.balance_after_nanos, 'before', s.before)
  from (
    select t.*, lag(t.balance_after_nanos, 1, 0::bigint) over (partition by t.org_id order by t.position) as before,
      case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end as change
    from tollgate.transfers t
  ) s
  where s.before + s.change <> s.balance_after_nanos
$$;

comment on function tollgate.ledger_faults() is
  'Where the ledger does not agree with itself: every balance is its transfers, every held sum and every count of open requests its open holds, every open request one hold, every refund within its charges, every running balance the one before and its change.';


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
  'Where rows do not agree with what was counted of them: every hour of an org''s requests with its tally, what is missing of an org''s requests with what retention noted that it dropped, every hour of transfers with its flow.';


-- schemas/14_security/audit_events.sql

-- Lists of audit events.

create function tollgate.of_audit_event(e tollgate.audit_events) returns jsonb
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

comment on function tollgate.of_audit_event(tollgate.audit_events) is 'An audit event as it is shown.';


create function public.tollgate_audit_events(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  cursor_id text := coalesce(filters ->> 'cursor', filters ->> 'before_id'); -- as older servers say it
  last tollgate.audit_events;
  -- Said once and planned for each call, so that the filters that are there find their index.
  fits constant text := $fits$
    ($1 ->> 'org_id' is null or a.org_id = $1 ->> 'org_id')
    and ($1 ->> 'action' is null or a.action = $1 ->> 'action')
    and ($1 ->> 'outcome' is null or a.outcome = $1 ->> 'outcome')
    and ($1 ->> 'target_id' is null or a.target_id = $1 ->> 'target_id')
    and ($1 ->> 'actor_id' is null or $1 ->> 'actor_id' in (a.actor_key_id, a.actor_user_id, a.actor_name))
    and ($1 ->> 'from' is null or a.occurred_at >= ($1 ->> 'from')::timestamptz)
    and ($1 ->> 'to' is null or a.occurred_at < ($1 ->> 'to')::timestamptz)
  $fits$;
  most_counted constant integer := 10000;
  total bigint;
  page jsonb[];
begin
  if cursor_id is not null then
    select a.* into last from tollgate.audit_events a where a.id = cursor_id;
    if not found then
      perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'cursor'));
    end if;
  end if;

  execute 'select count(*) from (select from tollgate.audit_events a where ' || fits || ' limit $2) a'
  into total using filters, most_counted + 1;
  execute format(
    $page$
      select array(
        select tollgate.of_audit_event(a) from tollgate.audit_events a
        where %s and ($2 is null or (a.occurred_at, a.id) %s ($3, $2))
        order by a.occurred_at %s, a.id %3$s
        limit $4
      )
    $page$,
    fits,
    case filters ->> 'sort' when 'occurred_at:asc' then '>' else '<' end,
    case filters ->> 'sort' when 'occurred_at:asc' then 'asc' else 'desc' end
  )
  into page using filters, last.id, last.occurred_at, page_size + 1;

  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'data', to_jsonb(page[:page_size]),
    'next_cursor', case when cardinality(page) > page_size then page[page_size] -> 'id' end,
    'total', case when total <= most_counted then total end
  );
end
$$;

comment on function public.tollgate_audit_events(jsonb, jsonb, integer) is
  'Audit events. `filters`: org_id, action, outcome, target_id, actor_id (of a key or user, or a console''s name), from, to, sort (occurred_at:desc, or occurred_at:asc for the oldest first), cursor (the last id of the page before). The total is counted up to 10,000. For admins. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_audit_events(jsonb, jsonb, integer)');


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
  'The audit of the books at this moment, with the first hundred faults. Unless it is asked for, books that a call''s deadline may be too short for are not read, and the answer says so.';


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
          'key', k.prefix || '…' || k.last_four,
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
  'Which keys made paid requests in a time: the 1,000 busiest.';


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
        'key', u.prefix || '…' || u.last_four,
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
  'What happened to keys in a time, and which of those that may be used today are not: the 1,000 oldest of them by name.';


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
      and not (t.kind = 'refund' and t.reference like '%:late') -- in the charge of its request already
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
  'Money in (what was funded, less what was taken back), out (what upstreams cost) and the margin: charges less refunds and cost. A charge counts at the time of its request, with what a late settlement corrected of it; everything else when it was moved.';


create function tollgate.report_on_people(since timestamptz, until timestamptz) returns jsonb
language sql
stable
set search_path = ''
as $$
  with done as (
    select a.actor_kind, coalesce(a.actor_user_id, a.actor_name, a.actor_key_id) as actor_id, a.action, a.outcome, count(*) as times
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
  'Who changed what how often: admins, idle ones too, then whoever else acted; the 1,000 busiest.';


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
  'What an auditor asks of a time, of at most 366 days: keys, people, access, money, and the books at this moment. For admins. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_compliance_report(jsonb, text, text, boolean)');


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

comment on function tollgate.severity_of(text) is 'How grave a kind of security event is: info, warning or critical.';


create function tollgate.sight(
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

comment on function tollgate.sight(text, text, text, text, text, bigint, timestamptz, timestamptz, jsonb) is
  'Counts something seen: opens an event, or moves the one that is open on. Answers how often it was seen within the hour. Locks the event: whoever sights many does so in the order of kind and subject.';


create function tollgate.sight_change() returns trigger
language plpgsql
set search_path = ''
as $$
declare
  is_of_org constant boolean := new.action in ('credits.overdrawn', 'org.paid_suspended');
begin
  perform tollgate.sight(
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

comment on function tollgate.sight_change() is
  'Trigger of the audit trail: what happens to keys, charges above their hold and the suspension of paid calls are security events in the transaction of the change.';

create trigger audit_events_sighted
after insert on tollgate.audit_events
for each row
when (new.outcome = 'success' and new.action in (
  'key.created', 'key.rotated', 'key.revoked', 'credits.overdrawn', 'org.paid_suspended'
))
execute function tollgate.sight_change();


create function tollgate.of_security_event(e tollgate.security_events) returns jsonb
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
    'first_seen', tollgate.utc(e.first_seen_at),
    'last_seen', tollgate.utc(e.last_seen_at),
    'count', e.count,
    'details', e.details,
    'acknowledged_at', tollgate.utc(e.acknowledged_at),
    'acknowledged_by', e.acknowledged_by,
    'note', e.note
  )
$$;

comment on function tollgate.of_security_event(tollgate.security_events) is 'A security event as it is shown.';


create function tollgate.rank_of(e tollgate.security_events, sort text) returns numeric
language sql
immutable
set search_path = ''
as $$
  select case split_part(sort, ':', 1)
    when 'first_seen' then extract(epoch from e.first_seen_at)
    when 'count' then e.count
    when 'severity' then array_position('{info,warning,critical}'::text[], e.severity)
    else extract(epoch from e.last_seen_at)
  end * case when sort like '%:desc' then 1 else -1 end
$$;

comment on function tollgate.rank_of(tollgate.security_events, text) is 'What a list of security events is sorted by, greatest first. `sort` is a word and its direction, as last_seen:desc.';


create function public.tollgate_security_events(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  sort text := coalesce(filters ->> 'sort', 'last_seen:desc');
  last tollgate.security_events;
  fitting bigint;
  page jsonb[];
begin
  if filters ->> 'cursor' is not null then
    select e.* into last from tollgate.security_events e where e.id = filters ->> 'cursor';
    if not found then
      perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'cursor'));
    end if;
  end if;

  with fitting as materialized (
    select e.id, tollgate.rank_of(e, sort) as rank
    from tollgate.security_events e
    where (filters ->> 'kind' is null or e.kind = filters ->> 'kind')
      and (filters ->> 'severity' is null or e.severity = filters ->> 'severity')
      and (filters ->> 'org_id' is null or e.org_id = filters ->> 'org_id')
      and (filters ->> 'key_id' is null or e.key_id = filters ->> 'key_id')
      and (filters ->> 'acknowledged' is null or (e.acknowledged_at is not null) = (filters ->> 'acknowledged')::boolean)
      and (filters ->> 'from' is null or e.last_seen_at >= (filters ->> 'from')::timestamptz)
      and (filters ->> 'to' is null or e.first_seen_at < (filters ->> 'to')::timestamptz)
  )
  select
    (select count(*) from fitting),
    array(
      select tollgate.of_security_event(e)
      from (
        select f.id, f.rank from fitting f
        where last.id is null or (f.rank, f.id) < (tollgate.rank_of(last, sort), last.id)
        order by f.rank desc, f.id desc
        limit page_size + 1
      ) f
      join tollgate.security_events e on e.id = f.id
      order by f.rank desc, f.id desc
    )
  into fitting, page;

  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'data', to_jsonb(page[:page_size]),
    'next_cursor', case when cardinality(page) > page_size then page[page_size] -> 'id' end,
    'total', fitting
  );
end
$$;

comment on function public.tollgate_security_events(jsonb, jsonb, integer) is
  'Security events. `filters`: kind, severity, org_id, key_id, acknowledged, from (seen at or after), to (seen before), sort (last_seen, first_seen, count or severity, :asc or :desc), cursor (the last id of the page before). For admins. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_security_events(jsonb, jsonb, integer)');


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
      perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'security_event', 'id', event_id));
    end if;
  end if;
  return tollgate.of_security_event(event) || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_acknowledge_security_event(jsonb, text, text) is
  'Says that somebody has seen to an event; when it is seen again, a new one opens. The first acknowledgement stands: repeating changes and records nothing. For admins. Refuses: as recognise(), not_found. Locks the event.';

select tollgate.expose('public.tollgate_acknowledge_security_event(jsonb, text, text)');


-- schemas/14_security/patterns.sql

-- Security events from patterns in the tables.

create function tollgate.spot(
  kind text,
  subject_kind text,
  subject text,
  org_id text,
  key_id text,
  details jsonb
) returns integer
language plpgsql
set search_path = ''
as $$
begin
  if exists (
    select from tollgate.security_events e
    where e.kind = spot.kind and e.subject = spot.subject
      and (e.acknowledged_at > now() - interval '24 hours'
        or e.acknowledged_at is null and e.last_seen_at > now() - interval '1 hour')
  ) then
    return 0;
  end if;
  perform tollgate.sight(kind, subject_kind, subject, org_id, key_id, 1, now(), now(), details);
  return 1;
end
$$;

comment on function tollgate.spot(text, text, text, text, text, jsonb) is
  'Sights a pattern that lasts: at most once an hour, and not within a day of somebody saying it is known. Answers how often: 1 or 0. Locks the event.';


create function tollgate.spot_networks() returns bigint
language sql
set search_path = ''
as $$
  select coalesce(sum(tollgate.spot('many_networks', 'key', s.key_id, k.org_id, s.key_id, jsonb_build_object('networks', s.networks))), 0)
  from (
    select n.key_id, count(*) as networks
    from tollgate.key_networks n
    where n.last_seen_at > now() - interval '24 hours'
    group by n.key_id
    having count(*) >= 20
    order by n.key_id
    limit 500
  ) s
  join tollgate.api_keys k on k.id = s.key_id
$$;

comment on function tollgate.spot_networks() is 'Keys used from 20 or more networks within 24 hours.';


create function tollgate.spot_quarantined(since timestamptz, until timestamptz) returns bigint
language sql
set search_path = ''
as $$
  select count(tollgate.sight(
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

comment on function tollgate.spot_quarantined(timestamptz, timestamptz) is
  'Orgs whose usage was charged at the hold because what the upstream said of it was nonsense, and settled in this time.';


create function tollgate.spot_spikes() returns bigint
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
    from tollgate.usage_by('{key}', now() - interval '24 hours', now(), '{}') u
    join tollgate.api_keys k on k.id = u.key_id
    where u.requests >= 1000
    order by u.key_id
    limit 200
  loop
    select coalesce(sum(u.requests), 0) / 14 as mean, count(*) as days into past
    from tollgate.usage_by(
      '{day}', now() - interval '15 days', now() - interval '24 hours',
      jsonb_build_object('org_id', busy.org_id, 'key_id', busy.key_id)
    ) u
    where u.requests > 0;
    if past.days >= 3 and busy.requests >= 10 * past.mean then
      spotted := spotted + tollgate.spot('usage_spike', 'key', busy.key_id, busy.org_id, busy.key_id,
        jsonb_build_object('requests', busy.requests, 'usual_requests', round(past.mean)));
    end if;
  end loop;
  return spotted;
end
$$;

comment on function tollgate.spot_spikes() is
  'Keys that made 1,000 requests or more within 24 hours, ten times their mean of the 14 days before, on three of which at least they were used. Looks at 200 keys.';


create function tollgate.forget_sightings() returns void
language sql
set search_path = ''
as $$
  delete from tollgate.security_events e where e.id in (
    select o.id from tollgate.security_events o
    where o.last_seen_at < now() - interval '90 days'
      and (o.acknowledged_at is not null or o.severity = 'info' or o.subject_kind = 'address')
    limit 1000
    for update skip locked
  );
  delete from tollgate.key_networks n where (n.key_id, n.network) in (
    select o.key_id, o.network from tollgate.key_networks o
    where o.last_seen_at < now() - interval '30 days'
    limit 1000
    for update skip locked
  );
$$;

comment on function tollgate.forget_sightings() is
  'Drops up to 1,000 events not seen for 90 days, unless they are grave and nobody acknowledged them, and as many networks not seen for 30.';


create function public.tollgate_detect_patterns() returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  lookout tollgate.lookout;
  until timestamptz := now() - interval '30 seconds'; -- what was settled before is committed
  spotted bigint := 0;
begin
  select l.* into lookout from tollgate.lookout l for update skip locked;
  if not found then
    return '{"spotted": 0}';
  end if;

  spotted := tollgate.spot_quarantined(lookout.quarantined_until, until);
  update tollgate.lookout set quarantined_until = greatest(quarantined_until, until);
  if lookout.looked_at < now() - interval '10 minutes' then
    spotted := spotted + tollgate.spot_networks() + tollgate.spot_spikes();
    perform tollgate.forget_sightings();
    update tollgate.lookout set looked_at = now();
  end if;
  return jsonb_build_object('spotted', spotted);
end
$$;

comment on function public.tollgate_detect_patterns() is
  'Looks for quarantined usage, and every ten minutes for keys on many networks and for spikes; drops what is old. One at a time: whoever comes second has nothing to do. Refuses nothing. Locks the lookout and the events it writes.';

select tollgate.expose('public.tollgate_detect_patterns()');

-- The net under servers that do not sweep.
do $$
begin
  if exists (select from pg_catalog.pg_extension where extname = 'pg_cron') then
    perform cron.schedule('tollgate-detect', '* * * * *', 'select public.tollgate_detect_patterns()');
  end if;
end
$$;


-- schemas/14_security/sightings.sql

-- Security events from what servers counted.
--
-- A refused call rolls back and so writes nothing, and a row for each refusal would let an attacker fill the database. The
-- server counts refusals in memory and hands over sums, a few seconds apart; those that a frozen host held are lost.
-- All tables of security are bounded: what one address may not do, ten thousand may not do either.

create function tollgate.note_refused(refusals jsonb) returns void
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
    in_hour := tollgate.sight(
      seen.kind, seen.subject_kind, seen.subject, seen.org_id, seen.key_id,
      seen.times, seen.first_seen, seen.last_seen, seen.details
    );
    if seen.kind = 'authentication_failed' and seen.subject_kind = 'address' and in_hour > 100 then
      perform tollgate.sight(
        'many_failures', 'address', seen.subject, null, null,
        least(seen.times, in_hour - 100), seen.last_seen, seen.last_seen, jsonb_build_object('in_hour', in_hour)
      );
    end if;
  end loop;
end
$$;

comment on function tollgate.note_refused(jsonb) is
  'Counts refusals: kind, code, key_id or digest, address, times, first_seen, last_seen. The subject is the key where there is one, otherwise the address. An address with more than a hundred failures in an hour is a pattern of its own, which counts those beyond. Locks the events.';


create function tollgate.note_trespasses(trespasses jsonb) returns void
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

comment on function tollgate.note_trespasses(jsonb) is
  'Writes into the audit trail who asked for what only operators may: key_id, target (method and route), times, ip, user_agent, request_id. Once an hour for a key and a target, so nobody can fill the trail. Locks nothing.';


create function tollgate.note_uses(uses jsonb) returns void
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

comment on function tollgate.note_uses(jsonb) is 'Remembers from which networks keys were used: key_id, network, seen. Locks the rows, in order.';


create function public.tollgate_note_sightings(refusals jsonb, trespasses jsonb, uses jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform tollgate.note_uses(uses);
  perform tollgate.note_trespasses(trespasses);
  perform tollgate.note_refused(refusals);
  return '{"noted": true}';
end
$$;

comment on function public.tollgate_note_sightings(jsonb, jsonb, jsonb) is
  'Takes over what a server has counted since it last did: refusals, keys that asked for what only operators may, and networks from which keys were used. Refuses nothing. Locks the security events and networks it writes, in order.';

select tollgate.expose('public.tollgate_note_sightings(jsonb, jsonb, jsonb)');


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
      'user_id', k.user_id,
      'prefix', k.prefix,
      'last_four', k.last_four,
      'environment', k.environment,
      'balance_nanos', o.balance_nanos,
      'held_nanos', o.held_nanos,
      'plan', o.plan_id,
      'status', o.status
    )
    from tollgate.api_keys k
    join tollgate.orgs o on o.id = k.org_id
    where k.id = actor.key_id
  );
end
$$;

comment on function public.tollgate_balance(jsonb) is
  'The balance of the caller''s org. Refuses: as recognise(). Locks nothing of the org.';

select tollgate.expose('public.tollgate_balance(jsonb)');


-- schemas/15_account/limits.sql

-- The plan and the limits of the caller.

create function public.tollgate_own_plan(caller jsonb, markup_ppm integer) returns jsonb
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
      'markup_ppm', coalesce(o.markup_ppm, p.markup_ppm, tollgate_own_plan.markup_ppm),
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

comment on function public.tollgate_own_plan(jsonb, integer) is
  'The plan of the caller''s org, with the limits and the markup that its requests meet. `markup_ppm` is what the settings say where neither org nor plan do. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_own_plan(jsonb, integer)');


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
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'at', tollgate.utc(moment),
      'org', tollgate.windows(o.counters, tollgate.limits_of(o), tollgate.ms_of(moment))
        || jsonb_build_object('concurrent', tollgate.concurrent(tollgate.bound_of(o), o.open_requests)),
      'key', case when k.counted or k.max_concurrent_requests is not null then
        tollgate.windows(k.counters, k.limits, tollgate.ms_of(moment))
        || jsonb_build_object('concurrent', case when k.max_concurrent_requests is not null then
          tollgate.concurrent(k.max_concurrent_requests, k.open_requests)
        end)
      end
    )
    from tollgate.api_keys k
    join tollgate.orgs o on o.id = k.org_id
    where k.id = actor.key_id
  );
end
$$;

comment on function public.tollgate_own_limits(jsonb) is
  'The windows and open requests of the caller''s org, and of the key where it has limits, a bound, a budget or a quota of its own; requests of any other are counted for the org alone. Refuses: as recognise(). Locks nothing.';

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
    'environment', k.environment,
    'scopes', k.scopes,
    'created_at', tollgate.utc(u.created_at),
    'updated_at', tollgate.utc(u.updated_at)
  )
  from tollgate.api_keys k
  join tollgate.users u on u.id = k.user_id
  join tollgate.orgs o on o.id = k.org_id
  where k.id = actor.key_id
$$;

comment on function tollgate.profile_of(tollgate.caller) is 'Who the user behind a key is, and which key it is.';


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
  'Who the caller is. Refuses: as recognise(). Locks nothing.';

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
      perform tollgate.address_taken(person.email);
    end;
    perform tollgate.record(actor, 'user.updated', was.org_id, was.id, details);
  end if;
  perform tollgate.touch(k, caller) from tollgate.api_keys k where k.id = actor.key_id;
  return tollgate.profile_of(actor);
end
$$;

comment on function public.tollgate_change_own_profile(jsonb, jsonb) is
  'Changes the name and the email of the caller, and nothing else of them whatever `changes` holds. Needs the scope keys: a key that only calls models cannot rename its owner. What is so already changes nothing and records nothing. Refuses: as recognise(), conflict. Locks the user, the key.';

select tollgate.expose('public.tollgate_change_own_profile(jsonb, jsonb)');


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
  'Indexes that were not read since Postgres counts, and tables that are read whole more often than by an index: a hint, no more. Indexes that keep things unique are never unused.';


create function tollgate.last_backup() returns jsonb
language sql
set search_path = ''
as $$
  select jsonb_build_object(
    'archived_at', tollgate.utc(a.last_archived_time),
    'failed_at', tollgate.utc(a.last_failed_time),
    'reason', case when a.last_archived_time is null then
      'Postgres archives no write-ahead log here, and knows of no other backup. Ask whoever hosts it.'
    end
  )
  from pg_catalog.pg_stat_archiver a
$$;

comment on function tollgate.last_backup() is
  'What Postgres knows of backups: when it last handed a piece of its log to the archive, or that it does not.';


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
  'Connections and the oldest transaction besides this one: of all roles where our owner may see them, otherwise of its own.';


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
      'last_vacuum', tollgate.utc(greatest(t.last_vacuum, t.last_autovacuum)),
      'last_analyze', tollgate.utc(greatest(t.last_analyze, t.last_autoanalyze))
    ) order by t.table_bytes + t.index_bytes desc, t.relname), '[]')
  )
  from (
    select s.*, pg_table_size(s.relid) as table_bytes, pg_indexes_size(s.relid) as index_bytes
    from pg_catalog.pg_stat_user_tables s
    where s.schemaname = 'tollgate'
  ) t
$$;

comment on function tollgate.sizes() is 'How large the database and our tables are, and how they are kept. Rows are Postgres''s estimate.';


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
      reason := 'pg_stat_statements is installed but not to be read here: ' || sqlerrm || '.';
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
  'The functions that took most time, by what this database keeps of it: pg_stat_statements, else pg_stat_user_functions, else nothing and the reason.';


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
  'How the database fares, by Postgres''s own statistics; nothing that only a superuser may ask. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_database(jsonb)');


-- schemas/16_monitor/figures.sql

-- The operator's figures of the moment.

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

comment on function tollgate.last_day() is 'Requests, errors and latencies of the last 24 hours, and what went to each upstream; to null went what reached none.';


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


create function tollgate.used_of_late(today timestamptz) returns jsonb
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

comment on function tollgate.used_of_late(timestamptz) is
  'What everybody used today, in 7 days and in 30: whole days, today among them, read together.';


create function tollgate.newest_requests(places integer) returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'id', r.id,
    'created_at', tollgate.utc(r.created_at),
    'org_id', r.org_id,
    'user_id', r.user_id,
    'key_id', r.key_id,
    'model', r.model,
    'upstream', r.upstream,
    'state', r.state,
    'status', r.status,
    'error_code', r.error_code,
    'prompt_tokens', r.prompt_tokens,
    'completion_tokens', r.completion_tokens,
    'charge_nanos', r.charge_nanos,
    'cost_nanos', r.cost_nanos,
    'first_token_ms', r.first_token_ms,
    'duration_ms', r.duration_ms
  ) order by r.created_at desc, r.id desc), '[]')
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

comment on function tollgate.population(jsonb) is 'How many orgs, users and keys there are, how many of them may act, and how many did today.';


create function tollgate.open_matters(places integer) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'open_holds', (
      select jsonb_build_object(
        'count', count(*),
        'nanos', coalesce(sum(r.hold_nanos), 0),
        'oldest_at', tollgate.utc(min(r.created_at)),
        'unsettled', count(*) filter (where r.state = 'unsettled')
      )
      from tollgate.holds h
      join tollgate.requests r on r.id = h.request_id
    ),
    'balances', (
      select jsonb_build_object('nanos', coalesce(sum(o.balance_nanos), 0))
      from tollgate.orgs o
      where o.balance_nanos > 0
    ),
    'overdrawn', (
      select jsonb_build_object(
        'count', count(*),
        'nanos', coalesce(-sum(o.balance_nanos), 0),
        'orgs', coalesce((
          select jsonb_agg(
            jsonb_build_object('org_id', w.id, 'name', w.name, 'balance_nanos', w.balance_nanos)
            order by w.balance_nanos, w.id
          )
          from (
            select d.* from tollgate.orgs d where d.balance_nanos < 0 order by d.balance_nanos, d.id limit places
          ) w
        ), '[]')
      )
      from tollgate.orgs o
      where o.balance_nanos < 0
    ),
    'paid_suspended', (
      select jsonb_build_object(
        'count', count(*),
        'orgs', coalesce(jsonb_agg(
          jsonb_build_object(
            'org_id', s.id, 'name', s.name, 'since', tollgate.utc(s.paid_suspended_at), 'reason', s.paid_suspended_reason
          )
          order by s.paid_suspended_at, s.id
        ) filter (where s.place <= places), '[]')
      )
      from (
        select o.*, row_number() over (order by o.paid_suspended_at, o.id) as place
        from tollgate.orgs o
        where o.paid_suspended_at is not null
      ) s
    )
  )
$$;

comment on function tollgate.open_matters(integer) is
  'Holds that no settlement has ended yet, what all balances above zero come to, orgs whose balance is below it, the worst by name, and those whose paid calls are suspended, the first by name.';


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
    'usage', tollgate.used_of_late(today),
    'last_24_hours', tollgate.last_day(),
    'recent_requests', tollgate.newest_requests(20)
  )
    || tollgate.population(tollgate.usage_today())
    || tollgate.leaders(10)
    || tollgate.open_matters(10);
end
$$;

comment on function public.tollgate_monitor(jsonb) is
  'The whole house at one look: how many orgs, users and keys; what they used today, in 7 and in 30 days (UTC days, today among them); errors and latencies of 24 hours; who and what leads; the newest requests; open holds and overdrawn orgs. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_monitor(jsonb)');


-- schemas/16_monitor/health.sql

-- What probes ask.

create function public.tollgate_health() returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select jsonb_build_object(
    'schema_version', (select v.version from tollgate.schema_version v),
    'user_count', (select count(*) from tollgate.users)
  )
$$;

comment on function public.tollgate_health() is 'Answers when the database can. Refuses nothing, locks nothing.';

select tollgate.expose('public.tollgate_health()');


-- schemas/16_monitor/leaders.sql

-- Which orgs and keys used most.

create function tollgate.led_since() returns timestamptz
language sql
stable
set search_path = ''
as $$
  select date_trunc('day', now(), 'UTC') - interval '29 days'
$$;

comment on function tollgate.led_since() is 'Where the 30 days begin in which one leads: today is one of them.';


create function tollgate.leaders(places integer) returns jsonb
language sql
stable
set search_path = ''
as $$
  with used as materialized (
    select u.* from tollgate.keys_of_late() u
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
    from tollgate.usage_by('{model}', tollgate.led_since()) u
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

comment on function tollgate.leaders(integer) is 'The orgs, keys and models that were charged most in 30 days.';


create function tollgate.keys_of_late() returns table (
  org_id text, key_id text, requests numeric, tokens numeric, charge_nanos numeric, cost_nanos numeric
)
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  led tollgate.led;
begin
  select l.* into led from tollgate.led l;
  -- Never renewed, or so long ago that there would be more to take away than to sum up.
  if (led.since between tollgate.led_since() - interval '7 days' and tollgate.led_since()) is not true then
    return query
    select u.org_id, u.key_id, u.requests::numeric, (u.prompt_tokens + u.completion_tokens)::numeric,
      u.charge_nanos::numeric, u.cost_nanos::numeric
    from tollgate.usage_by('{org,key}', tollgate.led_since()) u;
    return;
  end if;
  return query
  select p.org_id, p.key_id, sum(p.requests * p.sign), sum(p.tokens * p.sign), sum(p.charge_nanos * p.sign),
    sum(p.cost_nanos * p.sign)
  from (
    select l.org_id, l.key_id, l.requests, l.tokens, l.charge_nanos, l.cost_nanos, 1 as sign from tollgate.leading l
    union all
    select u.org_id, u.key_id, u.requests, u.prompt_tokens + u.completion_tokens, u.charge_nanos, u.cost_nanos, 1
    from tollgate.usage_by('{org,key}', led.until) u
    union all
    select u.org_id, u.key_id, u.requests, u.prompt_tokens + u.completion_tokens, u.charge_nanos, u.cost_nanos, -1
    from tollgate.usage_by('{org,key}', led.since, tollgate.led_since()) u
    where led.since < tollgate.led_since()
  ) p
  group by p.org_id, p.key_id
  having sum(p.requests * p.sign) > 0;
end
$$;

comment on function tollgate.keys_of_late() is
  'What each key used in 30 days: what was summed up of it, what came since, less the days that are 30 days old since.';


create function public.tollgate_renew_leaders() returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
set work_mem = '64MB'
as $$
declare
  led tollgate.led;
  rolled_until timestamptz;
begin
  select l.* into led from tollgate.led l for no key update skip locked;
  select r.rolled_until into rolled_until from tollgate.rolled r;
  if led.single and isfinite(rolled_until)
    and (led.since, led.until) is distinct from (tollgate.led_since(), rolled_until) then
    delete from tollgate.leading;
    insert into tollgate.leading
    select u.org_id, u.key_id, u.requests, u.prompt_tokens + u.completion_tokens, u.charge_nanos, u.cost_nanos
    from tollgate.usage_by('{org,key}', tollgate.led_since(), rolled_until) u
    where u.requests > 0;
    update tollgate.led set since = tollgate.led_since(), until = rolled_until;
  end if;
  return '{"more": false}';
end
$$;

comment on function public.tollgate_renew_leaders() is
  'Sums up what each key used in 30 days, as far as it is rolled up; does nothing when that is done already. What a request was charged that ended after its hour was rolled up comes in with the next hour. Refuses nothing. Locks the row of tollgate.led; when another has it, does nothing.';

select tollgate.expose('public.tollgate_renew_leaders()');


-- schemas/16_monitor/own.sql

-- The same for the caller's own key and org.

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
      'resets_at', tollgate.utc((key.budget_period + case key.budget_reset
        when 'daily' then interval '1 day' when 'weekly' then interval '1 week' when 'monthly' then interval '1 month'
      end) at time zone 'utc')
    ) end,
    'tokens_in_month', case when key.tokens_per_month is not null then jsonb_build_object(
      'limit', key.tokens_per_month,
      'used', key.tokens_used_in_month,
      'remaining', greatest(0, key.tokens_per_month - key.tokens_used_in_month),
      'resets_at', tollgate.utc((key.month_of_tokens + interval '1 month') at time zone 'utc')
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
  'What is left of a key''s own budget and quotas, and when they begin anew; null where it has none. The key as in_this_period() gives it.';


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
  'When a key made its first request; the day, where the request itself is no longer kept.';


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
    'user_id', key.user_id,
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
    'limits', jsonb_build_object(
      'org', tollgate.limited(tollgate.windows(org.counters, tollgate.limits_of(org), tollgate.ms_of(moment)))
        || jsonb_build_object('concurrent', case when tollgate.bound_of(org) is not null then
          tollgate.concurrent(tollgate.bound_of(org), org.open_requests)
        end),
      'key', tollgate.limited(tollgate.windows(key.counters, key.limits, tollgate.ms_of(moment)))
        || jsonb_build_object('concurrent', case when key.max_concurrent_requests is not null then
          tollgate.concurrent(key.max_concurrent_requests, key.open_requests)
        end)
    ),
    'allowances', tollgate.allowances_of(key)
  );
end
$$;

comment on function public.tollgate_own_monitor(jsonb) is
  'What a key''s owner sees at one look: the org''s balance; its usage today, this month (UTC) and of all time; what is left of the limits of org and key, and of the key''s budget and quotas. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_own_monitor(jsonb)');


create function public.tollgate_key_usage(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
set jit = off
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'usage');
  moment timestamptz := clock_timestamp();
  month timestamptz := date_trunc('month', moment, 'UTC');
  own jsonb := jsonb_build_object('org_id', actor.org_id, 'key_id', actor.key_id);
  in_month jsonb;
  org tollgate.orgs;
  key tollgate.api_keys;
  minute jsonb;
begin
  select o.* into org from tollgate.orgs o where o.id = actor.org_id;
  select k.* into key from tollgate.api_keys k where k.id = actor.key_id;
  key := tollgate.in_this_period(key, moment);
  in_month := tollgate.used_since(month, own);
  select w.minute into minute
  from (values
    (tollgate.limited(tollgate.windows(org.counters, tollgate.limits_of(org), tollgate.ms_of(moment))) -> 'requests' -> 'minute'),
    (tollgate.limited(tollgate.windows(key.counters, key.limits, tollgate.ms_of(moment))) -> 'requests' -> 'minute')
  ) w (minute)
  where w.minute <> 'null'
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
  'What the calling key itself has used: its monthly quota, its requests a minute (of its own limit or its org''s, whichever leaves less), and all that it ever used. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_key_usage(jsonb)');


-- schemas/17_privileges/revoke.sql

-- Postgres lets everyone execute a new function; only owners may execute the inner ones.

revoke execute on all functions in schema tollgate from public;

insert into tollgate.schema_version (version) values ('20261130000000');
reset check_function_bodies;

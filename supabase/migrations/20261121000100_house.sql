-- Why:  Tollgate may share a database with other things, so it keeps to one schema of its own and to
--       functions in `public` whose names begin with `tollgate_`.
-- What: the schema, the API roles where they are missing, and the few functions every other migration uses.
-- Care: additive; takes no lock on anything that already exists.

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


create function tollgate.utc(moment timestamptz) returns text
language sql
immutable
set search_path = ''
as $$
  select to_char(moment at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

comment on function tollgate.utc(timestamptz) is
  'RFC 3339 in UTC, whatever the session''s time zone. Null stays null.';


create function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121000100'
$$;

comment on function tollgate.schema_version() is
  'The newest Tollgate migration in this database. Every migration replaces it, whoever applies it, so the code can tell whether the database is behind or ahead.';

revoke execute on all functions in schema tollgate from public;

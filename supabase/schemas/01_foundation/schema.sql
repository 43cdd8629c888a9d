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

-- Why:  probes ask whether the database is there and fits the code.
-- What: one function that says which schema it has and how many users there are.
-- Care: additive; reads only.

create function public.tollgate_health() returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select jsonb_build_object(
    'schema_version', tollgate.schema_version(),
    'user_count', (select count(*) from tollgate.users)
  )
$$;

comment on function public.tollgate_health() is 'Answers when the database can. Refuses nothing, locks nothing.';

select tollgate.expose('public.tollgate_health()');


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121000600'
$$;

revoke execute on all functions in schema tollgate from public;

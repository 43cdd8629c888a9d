-- Why:  the server asks who comes before it reads a large body, and before it tells a fault of the request.
-- What: tollgate_identify().
-- Care: additive; reads only.

set lock_timeout = '1s';


create function public.tollgate_identify(caller jsonb) returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select jsonb_build_object('caller', tollgate.identity(tollgate.recognise(caller, touch => false)))
$$;

comment on function public.tollgate_identify(jsonb) is
  'Says that the caller may come in, and who it is. Changes nothing. Refuses: as recognise(). Locks nothing.';


select tollgate.expose('public.tollgate_identify(jsonb)');


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261129000050'
$$;

revoke execute on all functions in schema tollgate from public;

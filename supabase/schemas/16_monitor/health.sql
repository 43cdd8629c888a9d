-- The health of the database.

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

comment on function public.tollgate_health() is 'Answers when the database works. Refuses nothing, locks nothing.';

select tollgate.expose('public.tollgate_health()');

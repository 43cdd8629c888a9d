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

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

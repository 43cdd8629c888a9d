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

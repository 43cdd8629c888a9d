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

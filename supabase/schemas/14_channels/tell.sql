-- Writes what is to be told, and keeps what became of it.

create function tollgate.tell(channel_id text, event text, content jsonb) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.deliveries (channel_id, event, content) values (channel_id, event, content)
$$;

comment on function tollgate.tell(text, text, jsonb) is 'Writes a delivery, in the transaction of what it tells. Locks the channel against deletion.';


create function tollgate.tell_owner(org_id text, event text, facts jsonb, moment timestamptz) returns void
language sql
set search_path = ''
as $$
  select tollgate.tell(c.id, event, jsonb_build_object(
    'type', event, 'timestamp', tollgate.utc(moment), 'data', jsonb_build_object('org_id', c.org_id) || facts
  ))
  from tollgate.channels c
  where c.org_id = tell_owner.org_id and c.state = 'active' and (c.events is null or event = any (c.events))
  order by c.id
$$;

comment on function tollgate.tell_owner(text, text, jsonb, timestamptz) is
  'Tells the channels of an org of an event of the org, and of no other. Locks as tell().';


create function tollgate.tell_of_key() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  perform tollgate.tell_owner(new.org_id, new.action, jsonb_strip_nulls(jsonb_build_object(
    'key_id', new.target_id, 'user_id', new.actor_user_id
  )), new.occurred_at);
  return null;
end
$$;

comment on function tollgate.tell_of_key() is
  'Trigger of the audit trail: tells the org of its new, rotated and revoked keys, in the transaction of the change.';

create trigger audit_events_told
after insert on tollgate.audit_events
for each row
when (new.outcome = 'success' and new.org_id is not null and new.action in ('key.created', 'key.rotated', 'key.revoked'))
execute function tollgate.tell_of_key();


create function public.tollgate_lease_deliveries(page_size integer, lease_seconds integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  leased jsonb;
begin
  delete from tollgate.deliveries d where d.id in (
    select o.id from tollgate.deliveries o
    where o.created_at < clock_timestamp() - interval '30 days'
    order by o.created_at, o.id
    limit 1000
    for update skip locked
  );
  with taken as (
    update tollgate.deliveries d
    set due_at = clock_timestamp() + make_interval(secs => lease_seconds), tries = d.tries + 1
    where d.id in (
      select o.id from tollgate.deliveries o
      join (
        select w.id, c.org_id, row_number() over (partition by coalesce(c.org_id, c.id) order by w.due_at, w.id) as place
        from tollgate.deliveries w
        join tollgate.channels c on c.id = w.channel_id
        where w.state = 'waiting' and w.due_at <= clock_timestamp() and (c.state = 'active' or w.event = 'channel.test')
      ) q on q.id = o.id
      where o.state = 'waiting' and o.due_at <= clock_timestamp()
      order by q.place, q.org_id is not null, o.due_at
      limit page_size
      for update of o skip locked
    )
    returning d.*
  )
  select jsonb_agg(jsonb_build_object(
    'id', t.id, 'event', t.event, 'content', t.content, 'tries', t.tries, 'created_at', tollgate.utc(t.created_at),
    'channel', jsonb_build_object(
      'id', c.id, 'org_id', c.org_id, 'kind', c.kind, 'address', c.address, 'settings', c.settings, 'state', c.state
    ),
    'secret', case when s.id is not null then tollgate.secret_sealed(s) end
  ) order by t.created_at, t.id) into leased
  from taken t
  join tollgate.channels c on c.id = t.channel_id
  left join tollgate.secrets s on s.org_id is null and s.kind = 'channel' and s.name = c.id;
  return jsonb_build_object('data', coalesce(leased, '[]'));
end
$$;

comment on function public.tollgate_lease_deliveries(integer, integer) is
  'Leases deliveries that are due to one sender, with their channels; of disabled ones only tests. One of each operator''s channel and of each org comes before the second of any, so that none waits for the others'' receivers. Deletes up to 1,000 that are older than 30 days. Refuses nothing. Skips deliveries that another sender has locked.';

select tollgate.expose('public.tollgate_lease_deliveries(integer, integer)');


create function public.tollgate_end_deliveries(items jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  item record;
  ended tollgate.deliveries;
begin
  for item in
    select i.* from jsonb_to_recordset(items) i (id text, tries integer, attempt jsonb, sent boolean, again_seconds integer)
    order by i.id
  loop
    update tollgate.deliveries d set
      state = case when item.sent then 'sent' when item.again_seconds is null then 'failed' else 'waiting' end,
      due_at = clock_timestamp() + make_interval(secs => coalesce(item.again_seconds, 0)),
      ended_at = case when item.sent or item.again_seconds is null then clock_timestamp() end,
      attempts = case when jsonb_array_length(d.attempts) >= 10 then d.attempts - 0 else d.attempts end
        || jsonb_build_array(item.attempt)
    where d.id = item.id and d.state = 'waiting' and d.tries = item.tries
    returning d.* into ended;
    continue when not found;
    update tollgate.channels c set
      failures = case when item.sent then 0 else c.failures + 1 end,
      failed_at = case when item.sent then c.failed_at else clock_timestamp() end,
      last_error = case when item.sent then null else left(item.attempt ->> 'error', 500) end,
      told_at = case when item.sent then clock_timestamp() else c.told_at end
    where c.id = ended.channel_id;
  end loop;
  return '{"ended": true}';
end
$$;

comment on function public.tollgate_end_deliveries(jsonb) is
  'Keeps how attempts ended: id, tries (as leased), attempt, sent, again_seconds (null: no more attempts). An attempt whose lease ended and that another sender repeated changes nothing. Refuses nothing. Locks the deliveries, then their channels, in order.';

select tollgate.expose('public.tollgate_end_deliveries(jsonb)');

-- Deliveries as operators and owners see them: list, test, resend.

create function tollgate.delivery_shown(d tollgate.deliveries) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', d.id,
    'channel_id', d.channel_id,
    'event', d.event,
    'content', d.content,
    'state', d.state,
    'tries', d.tries,
    'attempts', d.attempts,
    'due_at', case when d.state = 'waiting' then tollgate.utc(d.due_at) end,
    'created_at', tollgate.utc(d.created_at),
    'ended_at', tollgate.utc(d.ended_at)
  )
$$;

comment on function tollgate.delivery_shown(tollgate.deliveries) is 'A delivery with its content and its last attempts.';


create function public.tollgate_deliveries(caller jsonb, filters jsonb, page_size integer, scope text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of_channels(caller, scope);
  whose constant text := tollgate.org_of_channels(keeper, scope);
begin
  return jsonb_build_object('caller', tollgate.identity(keeper)) || tollgate.page(
    'tollgate.deliveries',
    'tollgate.delivery_shown',
    $where$
      ($1 ->> 'channel_id' is null or e.channel_id = $1 ->> 'channel_id')
      and ($1 ->> 'state' is null or e.state = $1 ->> 'state')
      and ($1 ->> 'event' is null or e.event = $1 ->> 'event')
      and ($1 ->> 'from' is null or e.created_at >= ($1 ->> 'from')::timestamptz)
      and ($1 ->> 'to' is null or e.created_at < ($1 ->> 'to')::timestamptz)
      and ($1 ->> 'alert_id' is null
        or e.content @> jsonb_build_object('data', jsonb_build_object('alerts', jsonb_build_array(jsonb_build_object('id', $1 ->> 'alert_id')))))
    $where$,
    '{"created_at": "e.created_at"}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters || jsonb_build_object('whose', whose),
    page_size,
    within => $where$
      e.channel_id in (select c.id from tollgate.channels c where c.org_id is not distinct from $1 ->> 'whose')
    $where$,
    counted => false
  );
end
$$;

comment on function public.tollgate_deliveries(jsonb, jsonb, integer, text) is
  'Deliveries over the channels of operators, or of the caller''s org. `filters`: channel_id, alert_id (of those that list it), state, event, from, to, sort (created_at), cursor. Refuses: as keeper_of_channels() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_deliveries(jsonb, jsonb, integer, text)');


create function public.tollgate_delivery(caller jsonb, delivery_id text, scope text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of_channels(caller, scope);
  whose constant text := tollgate.org_of_channels(keeper, scope);
  found_one tollgate.deliveries;
begin
  select d.* into found_one from tollgate.deliveries d
  join tollgate.channels c on c.id = d.channel_id
  where d.id = delivery_id and c.org_id is not distinct from whose;
  if not found then
    perform tollgate.refuse_missing('delivery', delivery_id);
  end if;
  return jsonb_build_object('caller', tollgate.identity(keeper), 'delivery', tollgate.delivery_shown(found_one));
end
$$;

comment on function public.tollgate_delivery(jsonb, text, text) is
  'One delivery. Refuses: as keeper_of_channels(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_delivery(jsonb, text, text)');


create function public.tollgate_resend_delivery(caller jsonb, delivery_id text, scope text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of_channels(caller, scope);
  whose constant text := tollgate.org_of_channels(keeper, scope);
  due tollgate.deliveries;
begin
  update tollgate.deliveries d
  set state = 'waiting', due_at = clock_timestamp(), ended_at = null, tries = case when d.state = 'waiting' then d.tries else 0 end
  from tollgate.channels c
  where d.id = delivery_id and c.id = d.channel_id and c.org_id is not distinct from whose
  returning d.* into due;
  if not found then
    perform tollgate.refuse_missing('delivery', delivery_id);
  end if;
  perform tollgate.record(keeper, 'delivery.resent', whose, due.id, jsonb_build_object('channel_id', due.channel_id));
  return jsonb_build_object('caller', tollgate.identity(keeper), 'delivery', tollgate.delivery_shown(due));
end
$$;

comment on function public.tollgate_resend_delivery(jsonb, text, text) is
  'Makes a delivery due now, with all its attempts ahead of it. It keeps its id, by which a receiver knows it. Refuses: as keeper_of_channels(), not_found. Locks the delivery.';

select tollgate.expose('public.tollgate_resend_delivery(jsonb, text, text)');


create function public.tollgate_test_channel(caller jsonb, channel_id text, scope text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of_channels(caller, scope);
  whose constant text := tollgate.org_of_channels(keeper, scope);
  tested constant tollgate.channels := tollgate.found_channel(channel_id, whose);
  most_a_minute constant integer := 10;
  again_at timestamptz;
  made tollgate.deliveries;
begin
  perform tollgate.lock_channels(whose);
  select d.created_at + interval '1 minute' into again_at
  from tollgate.channels c
  join tollgate.deliveries d on d.channel_id = c.id
  where c.org_id is not distinct from whose and d.event = 'channel.test'
    and d.created_at > clock_timestamp() - interval '1 minute'
  order by d.created_at desc
  offset most_a_minute - 1 limit 1;
  if found then
    perform tollgate.refuse(429, 'too_many_tests', jsonb_build_object(
      'limit', most_a_minute,
      'retry_after_seconds', greatest(1, ceil(extract(epoch from again_at - clock_timestamp()))::integer)
    ));
  end if;
  insert into tollgate.deliveries (channel_id, event, content, due_at) values (
    tested.id, 'channel.test',
    jsonb_build_object(
      'type', 'channel.test', 'timestamp', tollgate.utc(clock_timestamp()),
      'data', jsonb_build_object('channel_id', tested.id, 'name', tested.name)
    ),
    clock_timestamp()
  )
  returning * into made;
  perform tollgate.record(keeper, 'channel.tested', tested.org_id, tested.id, jsonb_build_object('delivery_id', made.id));
  return jsonb_build_object('caller', tollgate.identity(keeper), 'delivery', tollgate.delivery_shown(made));
end
$$;

comment on function public.tollgate_test_channel(jsonb, text, text) is
  'Writes a delivery that says it is a test: at most ten a minute over all channels of an org, and of operators. Refuses: as keeper_of_channels() and found_channel(), too_many_tests. Locks the channel, then as lock_channels().';

select tollgate.expose('public.tollgate_test_channel(jsonb, text, text)');

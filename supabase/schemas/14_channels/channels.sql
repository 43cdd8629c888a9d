-- Channels as operators and owners see and change them.

create function tollgate.keeper_of_channels(caller jsonb, scope text) returns tollgate.caller
language sql
set search_path = ''
as $$
  select tollgate.recognise(caller, scope, touch => false)
$$;

comment on function tollgate.keeper_of_channels(jsonb, text) is
  'The caller, if it may list and change channels: with the scope admin those of operators, with keys those of its own org. Refuses: as recognise().';


create function tollgate.org_of_channels(keeper tollgate.caller, scope text) returns text
language sql
immutable
set search_path = ''
as $$
  select case when scope <> 'admin' then keeper.org_id end
$$;

comment on function tollgate.org_of_channels(tollgate.caller, text) is 'Whose the channels of a call are; null for operators''.';


create function tollgate.lock_channels(whose text) returns void
language sql
set search_path = ''
as $$
  select pg_advisory_xact_lock(hashtextextended('tollgate.channels ' || coalesce(whose, ''), 0))
$$;

comment on function tollgate.lock_channels(text) is
  'Lets the channels of an org, or of operators, and their tests be counted by one call at a time. Takes an advisory lock until the transaction ends.';


create function tollgate.channel_shown(c tollgate.channels) returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(c) || jsonb_build_object(
    'last_four', (
      select s.last_four from tollgate.secrets s
      where s.org_id is null and s.kind = 'channel' and s.name = c.id
    ),
    'failed_at', tollgate.utc(c.failed_at),
    'told_at', tollgate.utc(c.told_at),
    'created_at', tollgate.utc(c.created_at),
    'updated_at', tollgate.utc(c.updated_at)
  )
$$;

comment on function tollgate.channel_shown(tollgate.channels) is 'A channel without its secret.';


create function tollgate.found_channel(channel_id text, whose text) returns tollgate.channels
language plpgsql
set search_path = ''
as $$
declare
  found_one tollgate.channels;
begin
  select c.* into found_one from tollgate.channels c
  where c.id = channel_id and c.org_id is not distinct from whose
  for no key update;
  if not found then
    perform tollgate.refuse_missing('channel', channel_id);
  end if;
  return found_one;
end
$$;

comment on function tollgate.found_channel(text, text) is
  'A channel of this org, or of operators. Refuses: not_found. Locks the row.';


create function tollgate.drop_channel_secret() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  delete from tollgate.secrets s where s.org_id is null and s.kind = 'channel' and s.name = old.id;
  return null;
end
$$;

comment on function tollgate.drop_channel_secret() is 'Trigger of channels: deletes the secret of a channel that is deleted, also with its org.';

create trigger channels_dropped
after delete on tollgate.channels
for each row execute function tollgate.drop_channel_secret();


create function tollgate.put_channel_secret(c tollgate.channels, secret jsonb) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.secrets (kind, org_id, name, address, sealed, sealed_with, last_four)
  select 'channel', null, c.id, c.address, decode(secret ->> 'sealed', 'hex'), secret ->> 'sealed_with', secret ->> 'last_four'
  where secret is not null
  on conflict on constraint secrets_org_id_kind_name_key do update set
    address = excluded.address, sealed = excluded.sealed, sealed_with = excluded.sealed_with,
    last_four = excluded.last_four, updated_at = now()
$$;

comment on function tollgate.put_channel_secret(tollgate.channels, jsonb) is
  'Stores the secret of a channel, encrypted, or another in its place. Null changes nothing. Locks the row.';


create function public.tollgate_create_channel(caller jsonb, channel jsonb, secret jsonb, scope text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  most constant integer := 20;
  keeper constant tollgate.caller := tollgate.keeper_of_channels(caller, scope);
  whose constant text := tollgate.org_of_channels(keeper, scope);
  made tollgate.channels;
begin
  perform tollgate.lock_channels(whose);
  if (select count(*) from tollgate.channels c where c.org_id is not distinct from whose) >= most then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', 'too_many_channels', 'kind', 'channel', 'limit', most
    ));
  end if;
  made.settings := '{}';
  made.severity := 'info';
  made.state := 'active';
  made.kind := channel ->> 'kind';
  made.name := channel ->> 'name';
  made.address := channel ->> 'address';
  made := tollgate.with_fields(made, channel, array[
    'id', 'kind', 'name', 'address', 'settings', 'severity', 'rules', 'org_ids', 'events', 'state'
  ]);
  insert into tollgate.channels (id, org_id, kind, name, address, settings, severity, rules, org_ids, events, state)
  values (
    made.id, whose, made.kind, made.name, made.address, made.settings, made.severity, made.rules, made.org_ids,
    made.events, made.state
  )
  returning * into made;
  perform tollgate.put_channel_secret(made, secret);
  perform tollgate.record(keeper, 'channel.created', whose, made.id, jsonb_strip_nulls(channel - 'id'));
  return jsonb_build_object('caller', tollgate.identity(keeper), 'channel', tollgate.channel_shown(made));
end
$$;

comment on function public.tollgate_create_channel(jsonb, jsonb, jsonb, text) is
  'Creates a channel with its encrypted secret: of operators with the scope admin, of the caller''s org with keys; at most 20 of each. Refuses: as keeper_of_channels() and with_fields(), conflict (too_many_channels). Locks as lock_channels().';

select tollgate.expose('public.tollgate_create_channel(jsonb, jsonb, jsonb, text)');


create function public.tollgate_change_channel(caller jsonb, channel_id text, changes jsonb, secret jsonb, scope text)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of_channels(caller, scope);
  was constant tollgate.channels := tollgate.found_channel(channel_id, tollgate.org_of_channels(keeper, scope));
  made tollgate.channels := tollgate.with_fields(was, changes, array[
    'name', 'address', 'settings', 'severity', 'rules', 'org_ids', 'events', 'state'
  ]);
begin
  if made is distinct from was or secret is not null then
    made.updated_at := now();
    update tollgate.channels c set
      name = made.name, address = made.address, settings = made.settings, severity = made.severity, rules = made.rules,
      org_ids = made.org_ids, events = made.events, state = made.state, updated_at = made.updated_at
    where c.id = made.id;
    perform tollgate.put_channel_secret(made, secret);
    perform tollgate.record(keeper, 'channel.changed', made.org_id, made.id, changes || case
      when secret is null then '{}' else jsonb_build_object('last_four', secret -> 'last_four') end);
  end if;
  return jsonb_build_object('caller', tollgate.identity(keeper), 'channel', tollgate.channel_shown(made));
end
$$;

comment on function public.tollgate_change_channel(jsonb, text, jsonb, jsonb, text) is
  'Changes the given fields of a channel, and its secret unless that is null. A repetition without a secret changes and records nothing. Refuses: as keeper_of_channels(), found_channel() and with_fields(). Locks the channel and its secret.';

select tollgate.expose('public.tollgate_change_channel(jsonb, text, jsonb, jsonb, text)');


create function public.tollgate_delete_channel(caller jsonb, channel_id text, scope text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of_channels(caller, scope);
  gone constant tollgate.channels := tollgate.found_channel(channel_id, tollgate.org_of_channels(keeper, scope));
begin
  delete from tollgate.channels c where c.id = gone.id;
  perform tollgate.record(keeper, 'channel.deleted', gone.org_id, gone.id, jsonb_build_object(
    'kind', gone.kind, 'name', gone.name, 'address', gone.address
  ));
  return jsonb_build_object('caller', tollgate.identity(keeper), 'id', gone.id, 'deleted', true);
end
$$;

comment on function public.tollgate_delete_channel(jsonb, text, text) is
  'Deletes a channel with its secret and its deliveries. Refuses: as keeper_of_channels() and found_channel(). Locks the rows.';

select tollgate.expose('public.tollgate_delete_channel(jsonb, text, text)');


create function public.tollgate_channel(caller jsonb, channel_id text, scope text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of_channels(caller, scope);
begin
  return jsonb_build_object('caller', tollgate.identity(keeper), 'channel', tollgate.channel_shown(
    tollgate.found_channel(channel_id, tollgate.org_of_channels(keeper, scope))
  ));
end
$$;

comment on function public.tollgate_channel(jsonb, text, text) is
  'One channel. Refuses: as keeper_of_channels() and found_channel(). Locks the row.';

select tollgate.expose('public.tollgate_channel(jsonb, text, text)');


create function public.tollgate_channels(caller jsonb, filters jsonb, page_size integer, scope text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of_channels(caller, scope);
  whose constant text := tollgate.org_of_channels(keeper, scope);
begin
  return jsonb_build_object('caller', tollgate.identity(keeper)) || tollgate.page(
    'tollgate.channels',
    'tollgate.channel_shown',
    $where$
      ($1 ->> 'kind' is null or e.kind = $1 ->> 'kind')
      and ($1 ->> 'state' is null or e.state = $1 ->> 'state')
    $where$,
    '{"created_at": "e.created_at"}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters || jsonb_build_object('whose', whose),
    page_size,
    within => $where$ e.org_id is not distinct from $1 ->> 'whose' $where$
  );
end
$$;

comment on function public.tollgate_channels(jsonb, jsonb, integer, text) is
  'Channels. `filters`: kind, state, sort (created_at), cursor. Refuses: as keeper_of_channels() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_channels(jsonb, jsonb, integer, text)');

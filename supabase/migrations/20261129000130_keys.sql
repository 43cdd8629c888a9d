-- Why:  a key's owner sets how many requests it may have open at once.
-- What: max_concurrent_requests in the functions of keys.
-- Care: replaces functions by wider ones. Code that is older does not look at the new field.

set lock_timeout = '1s';


create or replace function tollgate.with_terms(key tollgate.api_keys, given jsonb) returns tollgate.api_keys
language plpgsql
stable
set search_path = ''
as $$
declare
  field text;
begin
  for field in select jsonb_object_keys(given) loop
    case field
      when 'name' then
        key.name := tollgate.given_text(given -> field, field, '^[^[:cntrl:]]{1,200}$');
      when 'scopes' then
        key.scopes := tollgate.given_scopes(given -> field, field);
      when 'allowed_models' then
        key.allowed_models := tollgate.given_texts(given -> field, field, '^[!-~]{1,200}$');
      when 'ip_allowlist' then
        key.ip_allowlist := tollgate.given_networks(given -> field, field);
      when 'expires_at' then
        key.expires_at := tollgate.given_time_to_come(given -> field, field);
      when 'budget_nanos' then
        key.budget_nanos := tollgate.given_number(given -> field, field, 100000000000000000);
      when 'budget_reset' then
        key.budget_reset := case when jsonb_typeof(given -> field) <> 'null'
          then tollgate.given_text(given -> field, field, '^(daily|weekly|monthly|never)$') end;
      when 'tokens_per_month' then
        key.tokens_per_month := tollgate.given_number(given -> field, field, 1000000000000000);
      when 'tokens_in_all' then
        key.tokens_in_all := tollgate.given_number(given -> field, field, 1000000000000000);
      when 'max_concurrent_requests' then
        key.max_concurrent_requests := tollgate.given_number(given -> field, field, 100000000000);
      when 'limits' then
        key.limits := tollgate.given_limits(given -> field, field, key.limits);
      when 'metadata' then
        key.metadata := tollgate.given_metadata(given -> field, field);
      else
        perform tollgate.refuse_field(field, 'is not known here');
    end case;
  end loop;

  if key.budget_nanos is not null then
    key.budget_reset := coalesce(key.budget_reset, 'never');
  elsif jsonb_typeof(given -> 'budget_reset') <> 'null' then
    perform tollgate.refuse_field('budget_reset', 'needs a budget');
  else
    key.budget_reset := null;
  end if;
  return key;
end
$$;

comment on function tollgate.with_terms(tollgate.api_keys, jsonb) is
  'The key with those terms changed that are given; what is left out stays, null clears. Refuses: invalid_request, with the field.';


create or replace function tollgate.wider(key tollgate.api_keys, other tollgate.api_keys) returns text[]
language sql
immutable
set search_path = ''
as $$
  select array_remove(array[
    case when not key.scopes <@ other.scopes then 'scopes' end,
    case when key.environment = 'live' and other.environment = 'test' then 'environment' end,
    case when not tollgate.models_within(key.allowed_models, other.allowed_models) then 'allowed_models' end,
    case when not tollgate.networks_within(key.ip_allowlist, other.ip_allowlist) then 'ip_allowlist' end,
    case when other.expires_at < coalesce(key.expires_at, 'infinity') then 'expires_at' end,
    case when other.budget_nanos < coalesce(key.budget_nanos, other.budget_nanos + 1)
      or (other.budget_nanos is not null and key.budget_reset is distinct from other.budget_reset)
      then 'budget_nanos' end,
    case when other.tokens_per_month < coalesce(key.tokens_per_month, other.tokens_per_month + 1)
      then 'tokens_per_month' end,
    case when other.tokens_in_all < coalesce(key.tokens_in_all, other.tokens_in_all + 1) then 'tokens_in_all' end,
    case when other.max_concurrent_requests
      < coalesce(key.max_concurrent_requests, other.max_concurrent_requests + 1) then 'max_concurrent_requests' end,
    case when exists (
      select from unnest(tollgate.bounds(key), tollgate.bounds(other)) b (its, others)
      where b.others < coalesce(b.its, b.others + 1)
    ) then 'limits' end
  ], null)
$$;

comment on function tollgate.wider(tollgate.api_keys, tollgate.api_keys) is
  'The terms in which a key grants more than another. A budget with another reset counts as more.';


create or replace function tollgate.counted_terms(key tollgate.api_keys) returns text[]
language sql
immutable
set search_path = ''
as $$
  select array_remove(array[
    case when key.budget_nanos is not null then 'budget_nanos' end,
    case when key.tokens_per_month is not null then 'tokens_per_month' end,
    case when key.tokens_in_all is not null then 'tokens_in_all' end,
    case when key.max_concurrent_requests is not null then 'max_concurrent_requests' end,
    case when not key.limits is null then 'limits' end
  ], null)
$$;

comment on function tollgate.counted_terms(tollgate.api_keys) is
  'The terms of a key that are used up, and which another key would therefore multiply however small it is.';


create or replace function tollgate.key_terms(key tollgate.api_keys) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'name', key.name,
    'scopes', key.scopes,
    'allowed_models', key.allowed_models,
    'ip_allowlist', key.ip_allowlist,
    'expires_at', tollgate.utc(key.expires_at),
    'budget_nanos', key.budget_nanos,
    'budget_reset', key.budget_reset,
    'tokens_per_month', key.tokens_per_month,
    'tokens_in_all', key.tokens_in_all,
    'limits', case when not key.limits is null then to_jsonb(key.limits) end,
    'max_concurrent_requests', key.max_concurrent_requests,
    'metadata', key.metadata
  )
$$;

comment on function tollgate.key_terms(tollgate.api_keys) is 'What of a key its owner may change.';


create or replace function tollgate.key_shown(key tollgate.api_keys) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', key.id,
    'org_id', key.org_id,
    'user_id', key.user_id,
    'role', u.role,
    'email', u.email,
    'prefix', key.prefix,
    'last_four', key.last_four,
    'environment', key.environment,
    'status', tollgate.key_status(key),
    'rotated_from', key.rotated_from,
    'rotated_to', key.rotated_to,
    'created_at', tollgate.utc(key.created_at),
    'updated_at', tollgate.utc(key.updated_at),
    'last_used_at', tollgate.utc(key.last_used_at),
    'revoked_at', tollgate.utc(key.revoked_at),
    'budget_spent_nanos', present.budget_spent_nanos,
    'budget_resets_at', tollgate.utc((case key.budget_reset
      when 'daily' then present.budget_period + interval '1 day'
      when 'weekly' then present.budget_period + interval '1 week'
      when 'monthly' then present.budget_period + interval '1 month'
    end) at time zone 'utc'),
    'tokens_used_in_month', present.tokens_used_in_month,
    'tokens_used_in_all', key.tokens_used_in_all,
    'open_requests', case when key.max_concurrent_requests is not null then key.open_requests end
  ) || tollgate.key_terms(key)
  from tollgate.users u, tollgate.in_this_period(key, now()) present
  where u.id = key.user_id
$$;

comment on function tollgate.key_shown(tollgate.api_keys) is
  'All that may be seen of a key: its terms, its state and its use, and nothing of its secret but what people know it by.';


create or replace function tollgate.insert_key(actor tollgate.caller, key tollgate.api_keys) returns void
language plpgsql
set search_path = ''
as $$
begin
  insert into tollgate.api_keys (
    id, org_id, user_id, name, digest, pepper, prefix, last_four, environment, scopes, ip_allowlist, expires_at,
    disabled_at, limits, counters, allowed_models, budget_nanos, budget_reset, budget_period, budget_spent_nanos,
    tokens_per_month, tokens_in_all, month_of_tokens, tokens_used_in_month, tokens_used_in_all, metadata,
    rotated_from, line, max_concurrent_requests, open_requests
  ) values (
    key.id, key.org_id, key.user_id, key.name, key.digest, key.pepper, key.prefix, key.last_four, key.environment,
    key.scopes, key.ip_allowlist, key.expires_at,
    key.disabled_at, key.limits, key.counters, key.allowed_models, key.budget_nanos, key.budget_reset,
    key.budget_period, coalesce(key.budget_spent_nanos, 0),
    key.tokens_per_month, key.tokens_in_all, key.month_of_tokens, coalesce(key.tokens_used_in_month, 0),
    coalesce(key.tokens_used_in_all, 0), coalesce(key.metadata, '{}'),
    key.rotated_from, key.line, key.max_concurrent_requests, coalesce(key.open_requests, 0)
  );
  perform tollgate.record(actor, 'key.created', key.org_id, key.id,
    tollgate.audited(tollgate.key_terms(key)) || jsonb_build_object(
      'user_id', key.user_id, 'environment', key.environment, 'prefix', key.prefix, 'last_four', key.last_four
    ) || case when key.rotated_from is null then '{}' else jsonb_build_object('rotated_from', key.rotated_from) end);
exception when unique_violation then
  perform tollgate.refuse(409, 'conflict', '{"kind": "key", "param": "digest"}');
end
$$;

comment on function tollgate.insert_key(tollgate.caller, tollgate.api_keys) is
  'Inserts a key and its audit event. Refuses: conflict, where its secret is a key already.';


create function tollgate.bound_line(key tollgate.api_keys) returns void
language sql
set search_path = ''
as $$
  with line as (
    select k.id from tollgate.api_keys k where k.id = key.id or k.line = key.line
  )
  update tollgate.api_keys k set
    max_concurrent_requests = key.max_concurrent_requests,
    open_requests = case when key.max_concurrent_requests is null then 0 else (
      select count(*)
      from tollgate.holds h
      join tollgate.requests r on r.id = h.request_id
      where r.key_id in (select l.id from line l)
    ) end
  where k.id in (select l.id from line l)
$$;

comment on function tollgate.bound_line(tollgate.api_keys) is
  'Gives the bound of open requests that the key has to every key of its line, however long ago it ended, and counts their open requests. The org is locked by the caller. Locks those keys.';


create or replace function public.tollgate_change_key(caller jsonb, key_id text, changes jsonb, scope text default 'keys')
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => false);
  before tollgate.api_keys := tollgate.lock_key(actor, key_id);
  after tollgate.api_keys;
  ids text[] := tollgate.line_of(before);
  changed jsonb;
begin
  if before.revoked_at is not null then
    perform tollgate.refuse(409, 'key_is_final', jsonb_build_object('key_id', before.id, 'state', 'revoked'));
  elsif before.rotated_to is not null then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object('key_id', before.id, 'rotated_to', before.rotated_to));
  elsif jsonb_typeof(changes) is distinct from 'object' then
    perform tollgate.refuse_field('changes', 'must be an object');
  end if;

  after := tollgate.with_terms(before, changes);
  if after.scopes @> array['admin'] and not before.scopes @> array['admin']
    and not exists (select from tollgate.users u where u.id = after.user_id and u.role = 'admin')
  then
    perform tollgate.refuse_field('scopes', 'admin is for the keys of admins');
  end if;
  perform tollgate.check_grant(actor, after, before);

  changed := tollgate.what_changed(tollgate.key_terms(before), tollgate.key_terms(after));
  if changed <> '{}' then
    if tollgate.counted_terms(before) = '{}' and tollgate.counted_terms(after) <> '{}' then
      after := tollgate.begin_counting(after, ids);
    elsif after.budget_reset is distinct from before.budget_reset then
      after := tollgate.begin_budget(after, ids);
    end if;
    update tollgate.api_keys k set
      name = after.name,
      scopes = after.scopes,
      allowed_models = after.allowed_models,
      ip_allowlist = after.ip_allowlist,
      expires_at = case k.id when after.id then after.expires_at else least(k.expires_at, after.expires_at) end,
      budget_nanos = after.budget_nanos,
      budget_reset = after.budget_reset,
      budget_period = after.budget_period,
      budget_spent_nanos = after.budget_spent_nanos,
      tokens_per_month = after.tokens_per_month,
      tokens_in_all = after.tokens_in_all,
      month_of_tokens = after.month_of_tokens,
      tokens_used_in_month = after.tokens_used_in_month,
      tokens_used_in_all = after.tokens_used_in_all,
      limits = after.limits,
      counters = after.counters,
      metadata = after.metadata,
      updated_at = now()
    where k.id = any (ids);
    if after.max_concurrent_requests is distinct from before.max_concurrent_requests then
      perform tollgate.bound_line(after);
    end if;
    perform tollgate.record(actor, 'key.updated', after.org_id, after.id, tollgate.audited(changed));
    select k.* into after from tollgate.api_keys k where k.id = after.id;
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'changed', changed <> '{}', 'key', tollgate.key_shown(after)
  );
end
$$;

comment on function public.tollgate_change_key(jsonb, text, jsonb, text) is
  'Changes the terms of a key, and of those in grace that it took the place of: any key for operators, one''s own otherwise, and never to more than its changer has, as check_grant() has it. What is left out stays, null clears. A budget begins anew when it is first set or its reset changes. Changing nothing records nothing. Refuses: as recognise(), not_found, key_is_final, conflict (rotated), invalid_request, permission_denied. Locks the org, then the keys.';


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261129000130'
$$;

revoke execute on all functions in schema tollgate from public;

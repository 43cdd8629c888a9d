-- The terms of a key, and whether the terms of one exceed those of another.
--
-- A key grants no more than the key that makes it has: scopes, environment, models, networks, expiry. A key with a
-- budget, a quota or limits of its own cannot make keys, because each new key would have them again. Any change may
-- narrow a key. Operators may grant other people's keys anything, but not their own: otherwise a narrow key of an operator
-- could make itself wide.

create function tollgate.model_allowed(patterns text[], model text) returns boolean
language sql
immutable
set search_path = ''
as $$
  select exists (
    select from unnest(patterns) pattern
    where model like replace(replace(replace(replace(pattern, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%')
  )
$$;

comment on function tollgate.model_allowed(text[], text) is 'Whether one of the patterns, in which * matches anything, matches the model.';


create function tollgate.models_within(models text[], others text[]) returns boolean
language sql
immutable
set search_path = ''
as $$
  select others is null or (models is not null
    and not exists (select from unnest(models) m where not tollgate.model_allowed(others, m)))
$$;

comment on function tollgate.models_within(text[], text[]) is
  'Whether each pattern is covered by one of the others. A * of the first is compared as a character, which only a * matches.';


create function tollgate.networks_within(networks cidr[], others cidr[]) returns boolean
language sql
immutable
set search_path = ''
as $$
  select others is null or (networks is not null and not exists (
    select from unnest(networks) n where not exists (select from unnest(others) o where n <<= o)
  ))
$$;

comment on function tollgate.networks_within(cidr[], cidr[]) is 'Whether each network lies in one of the others.';


create function tollgate.bounds(key tollgate.api_keys) returns bigint[]
language sql
immutable
set search_path = ''
as $$
  select array[
    (key.limits).requests_per_minute, (key.limits).requests_per_hour, (key.limits).requests_per_day,
    (key.limits).tokens_per_minute, (key.limits).tokens_per_hour, (key.limits).tokens_per_day
  ]
$$;

comment on function tollgate.bounds(tollgate.api_keys) is 'The six limits of a key as an array.';


create function tollgate.wider_terms(key tollgate.api_keys, other tollgate.api_keys) returns text[]
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
    case when other.tokens_per_month is not null and key.quota_reset_day <> other.quota_reset_day
      then 'quota_reset_day' end,
    case when other.tokens_in_all < coalesce(key.tokens_in_all, other.tokens_in_all + 1) then 'tokens_in_all' end,
    case when other.max_concurrent_requests
      < coalesce(key.max_concurrent_requests, other.max_concurrent_requests + 1) then 'max_concurrent_requests' end,
    case when exists (
      select from unnest(tollgate.bounds(key), tollgate.bounds(other)) b (its, others)
      where b.others < coalesce(b.its, b.others + 1)
    ) then 'limits' end
  ], null)
$$;

comment on function tollgate.wider_terms(tollgate.api_keys, tollgate.api_keys) is
  'The terms in which a key grants more than another. A budget or a quota with a different reset counts as more.';


create function tollgate.counted_terms(key tollgate.api_keys) returns text[]
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
  'The terms of a key that requests use up: a second key with the same terms would double them.';


create function tollgate.with_terms(key tollgate.api_keys, given jsonb) returns tollgate.api_keys
language plpgsql
stable
set search_path = ''
as $$
begin
  key := tollgate.with_fields(key, given, array[
    'name', 'scopes', 'allowed_models', 'ip_allowlist', 'expires_at', 'budget_nanos', 'budget_reset',
    'tokens_per_month', 'tokens_in_all', 'quota_reset_day', 'limits', 'max_concurrent_requests', 'cache', 'metadata'
  ]);
  key.limits := case when not key.limits is null then key.limits end;
  key.metadata := coalesce(key.metadata, '{}');
  key.quota_reset_day := coalesce(key.quota_reset_day, 1);
  if key.budget_nanos is null and given ->> 'budget_reset' is not null then
    perform tollgate.refuse_field('budget_reset', 'needs a budget');
  end if;
  key.budget_reset := case when key.budget_nanos is not null then coalesce(key.budget_reset, 'never') end;
  return key;
end
$$;

comment on function tollgate.with_terms(tollgate.api_keys, jsonb) is
  'The key with the given terms in place of its own; what is left out stays, null clears. Refuses: as with_fields(), and a budget_reset without a budget.';


create function tollgate.check_terms(key tollgate.api_keys, before tollgate.api_keys default null) returns void
language plpgsql
set search_path = ''
as $$
begin
  if key.scopes @> array['admin'] and (before.scopes @> array['admin']) is not true
    and not exists (select from tollgate.users u where u.id = key.user_id and u.role = 'admin')
  then
    perform tollgate.refuse_field('scopes', 'admin is for the keys of admins');
  elsif key.expires_at is distinct from before.expires_at and key.expires_at <= clock_timestamp() then
    perform tollgate.refuse_field('expires_at', 'is in the past');
  end if;
end
$$;

comment on function tollgate.check_terms(tollgate.api_keys, tollgate.api_keys) is
  'Refuses, with invalid_request, new terms that no key may get: the scope admin for a user who is none, or an end in the past.';


create function tollgate.check_grant(
  actor tollgate.caller,
  key tollgate.api_keys,
  before tollgate.api_keys default null
) returns void
language plpgsql
set search_path = ''
as $$
declare
  maker tollgate.api_keys;
  term text;
begin
  if actor.key_id is null or (tollgate.operates(actor) and key.user_id <> actor.user_id) then
    return;
  end if;
  select k.* into maker from tollgate.api_keys k where k.id = actor.key_id;
  select t into term
  from unnest(tollgate.wider_terms(key, maker) || tollgate.counted_terms(maker)) t
  where before.id is null or t = any (tollgate.wider_terms(key, before))
  limit 1;
  if found then
    perform tollgate.refuse(403, 'permission_denied', jsonb_build_object(
      'key_id', actor.key_id, 'param', term, 'scopes', to_jsonb(actor.scopes)
    ));
  end if;
end
$$;

comment on function tollgate.check_grant(tollgate.caller, tollgate.api_keys, tollgate.api_keys) is
  'Refuses, with permission_denied and the term as param, what the caller''s key may not grant. It may grant a new key within its own terms, if none of them is counted, and a change that narrows a key or stays within those terms. Operators may grant others anything, and so may sessions without a key what their user may do. Locks nothing.';

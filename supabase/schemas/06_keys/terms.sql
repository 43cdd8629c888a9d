-- What a key may do: its terms, and whether one key's terms exceed another's.
--
-- A key grants no more than its maker has. Where the maker is limited, a new key is within that limit: scopes,
-- environment, models, networks, expiry. A key with a budget, a quota or limits of its own makes no keys, because ten
-- keys of a tenth each could be made again tomorrow. Whoever changes a key may always narrow it. Operators are free of
-- this for other people's keys, but not for their own: otherwise a narrow key of theirs would be as good as a wide one.

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

comment on function tollgate.model_allowed(text[], text) is 'Whether one of the patterns, in which * stands for anything, fits the model.';


create function tollgate.models_within(models text[], others text[]) returns boolean
language sql
immutable
set search_path = ''
as $$
  select others is null or (models is not null
    and not exists (select from unnest(models) m where not tollgate.model_allowed(others, m)))
$$;

comment on function tollgate.models_within(text[], text[]) is
  'Whether each of the patterns fits into one of the others: * is a letter there like any, which only another * fits.';


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

comment on function tollgate.bounds(tollgate.api_keys) is 'A key''s six limits as a list; null is none.';


create function tollgate.wider(key tollgate.api_keys, other tollgate.api_keys) returns text[]
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
  'The terms of a key that are used up, and which another key would therefore multiply however small it is.';


create function tollgate.given_limits(given jsonb, field text, limits tollgate.limits) returns tollgate.limits
language plpgsql
immutable
set search_path = ''
as $$
declare
  named text;
begin
  if jsonb_typeof(given) = 'null' then
    return null;
  elsif jsonb_typeof(given) is distinct from 'object' then
    perform tollgate.refuse_field(field, 'must be an object');
  end if;
  for named in select jsonb_object_keys(given) loop
    if not to_jsonb(row(null, null, null, null, null, null)::tollgate.limits) ? named then
      perform tollgate.refuse_field(field, 'has a limit that is not known');
    end if;
    perform tollgate.given_number(given -> named, field || '.' || named, 100000000000);
  end loop;
  limits := jsonb_populate_record(limits, given);
  return case when not limits is null then limits end;
end
$$;

comment on function tollgate.given_limits(jsonb, text, tollgate.limits) is
  'Limits with those changed that are given: null clears one, or all. Refuses: invalid_request.';


create function tollgate.given_scopes(given jsonb, field text) returns text[]
language plpgsql
immutable
set search_path = ''
as $$
declare
  scopes text[] := tollgate.given_texts(given, field, '^(chat|completions|embeddings|models|usage|keys|admin)$');
begin
  if coalesce(cardinality(scopes), 0) = 0 then
    perform tollgate.refuse_field(field, 'must name at least one scope');
  end if;
  return array(select s from unnest(scopes) with ordinality o (s, place) group by s order by min(place));
end
$$;

comment on function tollgate.given_scopes(jsonb, text) is
  'The scopes a key may have, each once. Refuses: invalid_request.';


create function tollgate.with_terms(key tollgate.api_keys, given jsonb) returns tollgate.api_keys
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
  if actor.kind <> 'key' or (tollgate.operates(actor) and key.user_id <> actor.user_id) then
    return;
  end if;
  select k.* into maker from tollgate.api_keys k where k.id = actor.key_id;
  select t into term
  from unnest(tollgate.wider(key, maker) || tollgate.counted_terms(maker)) t
  where before.id is null or t = any (tollgate.wider(key, before))
  limit 1;
  if found then
    perform tollgate.refuse(403, 'permission_denied', jsonb_build_object(
      'key_id', actor.key_id, 'param', term, 'scopes', to_jsonb(actor.scopes)
    ));
  end if;
end
$$;

comment on function tollgate.check_grant(tollgate.caller, tollgate.api_keys, tollgate.api_keys) is
  'Lets pass what the caller''s key may grant: a new key within its own terms, made by a key that nothing is counted of; or a change of a key that narrows it, or stays within those terms. Operators may grant others anything. Refuses: permission_denied, with the term as param. Locks nothing.';

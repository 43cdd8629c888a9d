-- Why:  people and programs manage their own keys, and operators everybody's, over HTTP: make, look, change, rotate, end.
-- What: metadata and rotation of keys; what a key may be, checked here too; create, change, rotate, look up and list.
--       tollgate_create_key() and tollgate_set_key_state() are made anew, for callers as before and for operators alone.
-- Care: additive: new columns are nullable or have constant defaults, which rewrite nothing. One small index. The code
--       before it calls what is replaced by names that are all there still.
--
-- Two rules run through all of it.
--
-- A key grants no more than its maker has. Where its maker is limited, a new key is within that limit: scopes, the
-- environment, models, networks, the expiry. Of a budget, a quota and limits of its own there is no within: ten keys of
-- a tenth each could be made again tomorrow, so a key that has any of these makes no keys. Whoever changes a key may always
-- narrow it. Operators are free of this for other people's keys: not for their own, or a narrow key of theirs would be
-- as good as a wide one.
--
-- A rotated key and its successor are one line: two secrets, one purse. Until the old secret is refused, and for a day
-- more while requests that it began are settled, each row of the line has the same budget, quotas and counters, kept
-- alike by a trigger under the lock of the org, which every request takes first. So grace spends nothing twice.

alter table tollgate.api_keys
  add column metadata jsonb not null default '{}',
  add column rotated_from text,
  add column rotated_to text,
  add column line text;

create index api_keys_line on tollgate.api_keys (line) where line is not null;

comment on column tollgate.api_keys.metadata is 'The owner''s own notes: a small flat object.';
comment on column tollgate.api_keys.rotated_from is 'The key whose place this one took.';
comment on column tollgate.api_keys.rotated_to is 'The key that took its place; this one ends at expires_at.';
comment on column tollgate.api_keys.line is 'The first key of all that took each other''s place; null if none did.';


-- What a key may be.

create function tollgate.refuse_field(field text, fault text) returns void
language plpgsql
set search_path = ''
as $$
begin
  perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', field, 'fault', fault));
end
$$;

comment on function tollgate.refuse_field(text, text) is
  'Refuses a call for one of its fields: never returns. Says what is wrong with it, and not what it was.';


create function tollgate.given_texts(given jsonb, field text, shape text) returns text[]
language plpgsql
immutable
set search_path = ''
as $$
begin
  if jsonb_typeof(given) = 'null' then
    return null;
  elsif jsonb_typeof(given) is distinct from 'array' then
    perform tollgate.refuse_field(field, 'must be a list');
  elsif jsonb_array_length(given) > 100 then
    perform tollgate.refuse_field(field, 'has more than 100 entries');
  elsif exists (
    select from jsonb_array_elements(given) e where jsonb_typeof(e.value) <> 'string' or e.value #>> '{}' !~ shape
  ) then
    perform tollgate.refuse_field(field, 'has an entry that cannot be one');
  end if;
  return array(select e.value from jsonb_array_elements_text(given) with ordinality e (value, place) order by e.place);
end
$$;

comment on function tollgate.given_texts(jsonb, text, text) is
  'A list of texts of one shape, or null. Refuses: invalid_request.';


create function tollgate.given_networks(given jsonb, field text) returns cidr[]
language plpgsql
immutable
set search_path = ''
as $$
begin
  return tollgate.given_texts(given, field, '^[0-9a-fA-F.:/]{2,43}$')::cidr[];
exception when invalid_text_representation then
  perform tollgate.refuse_field(field, 'has an entry that is no network');
end
$$;

comment on function tollgate.given_networks(jsonb, text) is
  'A list of networks, or null. Bits behind the mask are refused: whoever wrote 10.0.0.5/8 meant another network. Refuses: invalid_request.';


create function tollgate.given_number(given jsonb, field text, most bigint) returns bigint
language plpgsql
immutable
set search_path = ''
as $$
begin
  if jsonb_typeof(given) = 'null' then
    return null;
  elsif jsonb_typeof(given) is distinct from 'number' or given::numeric % 1 <> 0
    or given::numeric not between 0 and most
  then
    perform tollgate.refuse_field(field, 'must be a whole number from 0 to ' || most);
  end if;
  return given::numeric::bigint;
end
$$;

comment on function tollgate.given_number(jsonb, text, bigint) is
  'A whole number, or null. Refuses: invalid_request.';


create function tollgate.given_time_to_come(given jsonb, field text) returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
declare
  moment timestamptz;
begin
  if jsonb_typeof(given) = 'null' then
    return null;
  elsif jsonb_typeof(given) is distinct from 'string'
    or given #>> '{}' !~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)$'
  then
    perform tollgate.refuse_field(field, 'must be a time as in RFC 3339');
  end if;
  begin
    moment := (given #>> '{}')::timestamptz;
  exception when datetime_field_overflow or invalid_datetime_format or invalid_time_zone_displacement_value then
    perform tollgate.refuse_field(field, 'is no time of any day');
  end;
  if moment <= clock_timestamp() then
    perform tollgate.refuse_field(field, 'is in the past');
  end if;
  return moment;
end
$$;

comment on function tollgate.given_time_to_come(jsonb, text) is
  'A time after this moment, or null. Refuses: invalid_request.';


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


create function tollgate.given_metadata(given jsonb, field text) returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  if jsonb_typeof(given) = 'null' then
    return '{}';
  elsif jsonb_typeof(given) is distinct from 'object' then
    perform tollgate.refuse_field(field, 'must be an object');
  elsif (select count(*) from jsonb_object_keys(given)) > 16 or exists (
    select from jsonb_each(given) e
    where length(e.key) not between 1 and 64 or length(e.value #>> '{}') > 500
      or jsonb_typeof(e.value) not in ('string', 'number', 'boolean')
  ) then
    perform tollgate.refuse_field(field,
      'must be flat, with at most 16 names of 1 to 64 characters, and texts, numbers or booleans of at most 500');
  end if;
  return given;
end
$$;

comment on function tollgate.given_metadata(jsonb, text) is
  'A small flat object. Replaced as a whole; null empties it. Refuses: invalid_request.';


create function tollgate.given_text(given jsonb, field text, shape text) returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  if jsonb_typeof(given) is distinct from 'string' or given #>> '{}' !~ shape then
    perform tollgate.refuse_field(field, 'has not the form it must have');
  end if;
  return given #>> '{}';
end
$$;

comment on function tollgate.given_text(jsonb, text, text) is
  'A text of one shape, never null. Refuses: invalid_request.';


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


create function tollgate.with_imprint(key tollgate.api_keys, given jsonb) returns tollgate.api_keys
language plpgsql
immutable
set search_path = ''
as $$
begin
  key.digest := decode(tollgate.given_text(given -> 'digest', 'digest', '^[0-9a-f]{64}$'), 'hex');
  key.pepper := tollgate.given_text(given -> 'pepper', 'pepper', '^[0-9a-f]{8}$');
  key.prefix := tollgate.given_text(given -> 'prefix', 'prefix', '^[!-~]{1,16}$');
  key.last_four := tollgate.given_text(given -> 'last_four', 'last_four', '^[!-~]{4}$');
  key.environment := tollgate.given_text(given -> 'environment', 'environment', '^(live|test)$');
  return key;
end
$$;

comment on function tollgate.with_imprint(tollgate.api_keys, jsonb) is
  'The key with what is kept of a new secret: digest, pepper, prefix, last_four, environment. Refuses: invalid_request.';


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


-- Who may do what to which key.

create function tollgate.operates(actor tollgate.caller) returns boolean
language sql
immutable
set search_path = ''
as $$
  select actor.kind = 'console' or (actor.role = 'admin' and actor.scopes @> array['admin'])
$$;

comment on function tollgate.operates(tollgate.caller) is
  'Whether the caller acts for the whole installation: the console, or an admin with a key that has the scope admin.';


create function tollgate.key_manager(caller jsonb, scope text, touch boolean) returns tollgate.caller
language sql
set search_path = ''
as $$
  select tollgate.recognise(caller, case scope when 'admin' then 'admin' else 'keys' end, touch)
$$;

comment on function tollgate.key_manager(jsonb, text, boolean) is
  'Who manages keys: with `scope` admin operators alone, otherwise whoever''s key has the scope keys. Refuses: as recognise().';


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
    case when not key.limits is null then 'limits' end
  ], null)
$$;

comment on function tollgate.counted_terms(tollgate.api_keys) is
  'The terms of a key that are used up, and which another key would therefore multiply however small it is.';


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


create function tollgate.lock_key(actor tollgate.caller, key_id text) returns tollgate.api_keys
language plpgsql
set search_path = ''
as $$
declare
  key tollgate.api_keys;
begin
  perform from tollgate.orgs o
  where o.id = (
    select k.org_id from tollgate.api_keys k
    where k.id = lock_key.key_id and (tollgate.operates(actor) or k.user_id = actor.user_id)
  )
  for no key update;
  select k.* into key from tollgate.api_keys k
  where k.id = lock_key.key_id and (tollgate.operates(actor) or k.user_id = actor.user_id)
  for no key update;
  if not found then
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'key', 'id', key_id));
  end if;
  return key;
end
$$;

comment on function tollgate.lock_key(tollgate.caller, text) is
  'A key that the caller may manage, as it stands under the lock: any for operators, one''s own otherwise. The org is locked too, so that no request of the key''s line runs meanwhile. Refuses: not_found. Locks the org, then the key.';


-- A line of keys, and its one purse.

create function tollgate.line_of(key tollgate.api_keys) returns text[]
language sql
stable
set search_path = ''
as $$
  select array(
    select k.id from tollgate.api_keys k
    where k.id = key.id or (
      k.line = key.line
      and (k.expires_at is null or k.expires_at > now() - interval '1 day')
      and (k.revoked_at is null or k.revoked_at > now() - interval '1 day')
    )
  )
$$;

comment on function tollgate.line_of(tollgate.api_keys) is
  'The key and those that it took the place of, or that took its place, as long as their requests may still be settled: until a day after their end.';


create function tollgate.share_purse() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  if least(new.expires_at, new.revoked_at) <= now() - interval '1 day' then
    return null; -- it ended too long ago to know how the others stand
  end if;
  update tollgate.api_keys k set
    counters = new.counters,
    budget_period = new.budget_period,
    budget_spent_nanos = new.budget_spent_nanos,
    month_of_tokens = new.month_of_tokens,
    tokens_used_in_month = new.tokens_used_in_month,
    tokens_used_in_all = new.tokens_used_in_all
  where k.id = any (tollgate.line_of(new)) and k.id <> new.id;
  return null;
end
$$;

comment on function tollgate.share_purse() is
  'Trigger: what one key of a line uses is used of all. Every request locks the org first, so there is one at a time and each finds the others'' counts in its own row. Locks the keys of the line.';

create trigger api_keys_share_purse
after update of
  counters, budget_period, budget_spent_nanos, month_of_tokens, tokens_used_in_month, tokens_used_in_all
on tollgate.api_keys
for each row
when (new.line is not null and pg_trigger_depth() = 0)
execute function tollgate.share_purse();


create function tollgate.begin_budget(key tollgate.api_keys, ids text[]) returns tollgate.api_keys
language plpgsql
set search_path = ''
as $$
begin
  key.budget_period := tollgate.budget_period(key.budget_reset, clock_timestamp());
  key.budget_spent_nanos := coalesce((
    select sum(r.hold_nanos) from tollgate.holds h join tollgate.requests r on r.id = h.request_id
    where r.key_id = any (ids)
  ), 0);
  return key;
end
$$;

comment on function tollgate.begin_budget(tollgate.api_keys, text[]) is
  'The key at the start of a budget: what is spent is what its open requests hold, which they will give back when settled. The org is locked by the caller.';


create function tollgate.begin_counting(key tollgate.api_keys, ids text[]) returns tollgate.api_keys
language plpgsql
set search_path = ''
as $$
declare
  running record;
begin
  key.counters := null;
  key.month_of_tokens := tollgate.budget_period('monthly', clock_timestamp());
  key.tokens_used_in_month := 0;
  key.tokens_used_in_all := 0;
  for running in
    select tollgate.ms_of(r.created_at) as at_ms, r.reserved_tokens as tokens
    from tollgate.holds h join tollgate.requests r on r.id = h.request_id
    where r.key_id = any (ids)
    order by r.created_at
  loop
    key.counters := tollgate.take(key.counters, running.at_ms, 1, running.tokens);
    key.tokens_used_in_month := key.tokens_used_in_month + running.tokens;
    key.tokens_used_in_all := key.tokens_used_in_all + running.tokens;
  end loop;
  return tollgate.begin_budget(key, ids);
end
$$;

comment on function tollgate.begin_counting(tollgate.api_keys, text[]) is
  'The key when the first of its terms that are counted is set: its open requests are counted as if it had been set before them, since settling will correct them. The org is locked by the caller.';


-- What is shown of keys.

create function tollgate.key_terms(key tollgate.api_keys) returns jsonb
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
    'metadata', key.metadata
  )
$$;

comment on function tollgate.key_terms(tollgate.api_keys) is 'What of a key its owner may change.';


create function tollgate.key_status(key tollgate.api_keys) returns text
language sql
stable
set search_path = ''
as $$
  select case
    when key.revoked_at is not null then 'revoked'
    when key.disabled_at is not null then 'disabled'
    when key.expires_at <= now() then 'expired'
    else 'active'
  end
$$;

comment on function tollgate.key_status(tollgate.api_keys) is 'What identify() would refuse the key for, in its order.';


create function tollgate.key_shown(key tollgate.api_keys) returns jsonb
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
    'tokens_used_in_all', key.tokens_used_in_all
  ) || tollgate.key_terms(key)
  from tollgate.users u, tollgate.in_this_period(key, now()) present
  where u.id = key.user_id
$$;

comment on function tollgate.key_shown(tollgate.api_keys) is
  'All that may be seen of a key: its terms, its state and its use, and nothing of its secret but what people know it by.';


create function tollgate.audited(terms jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select case when terms ? 'metadata' then terms || '{"metadata": "not kept here"}' else terms end
$$;

comment on function tollgate.audited(jsonb) is
  'Terms as the audit trail keeps them: without metadata, which may be anybody''s data and is never forgotten there.';


create function tollgate.insert_key(actor tollgate.caller, key tollgate.api_keys) returns void
language plpgsql
set search_path = ''
as $$
begin
  insert into tollgate.api_keys (
    id, org_id, user_id, name, digest, pepper, prefix, last_four, environment, scopes, ip_allowlist, expires_at,
    disabled_at, limits, counters, allowed_models, budget_nanos, budget_reset, budget_period, budget_spent_nanos,
    tokens_per_month, tokens_in_all, month_of_tokens, tokens_used_in_month, tokens_used_in_all, metadata,
    rotated_from, line
  ) values (
    key.id, key.org_id, key.user_id, key.name, key.digest, key.pepper, key.prefix, key.last_four, key.environment,
    key.scopes, key.ip_allowlist, key.expires_at,
    key.disabled_at, key.limits, key.counters, key.allowed_models, key.budget_nanos, key.budget_reset,
    key.budget_period, coalesce(key.budget_spent_nanos, 0),
    key.tokens_per_month, key.tokens_in_all, key.month_of_tokens, coalesce(key.tokens_used_in_month, 0),
    coalesce(key.tokens_used_in_all, 0), coalesce(key.metadata, '{}'),
    key.rotated_from, key.line
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


-- What programs call.

drop function public.tollgate_create_key(jsonb, text, jsonb);

create function public.tollgate_create_key(caller jsonb, user_id text, key jsonb, scope text default 'keys')
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => true);
  owner tollgate.users;
  made tollgate.api_keys;
begin
  select u.* into owner from tollgate.users u
  where u.id = coalesce(tollgate_create_key.user_id, actor.user_id) and u.deleted_at is null
    and (tollgate.operates(actor) or u.id = actor.user_id)
  for key share; -- nobody moves to another org meanwhile
  if not found then
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'user', 'id', user_id));
  end if;
  if jsonb_typeof(key) is distinct from 'object' then
    perform tollgate.refuse_field('key', 'must be an object');
  end if;

  made.id := tollgate.new_id('key');
  made.org_id := owner.org_id;
  made.user_id := owner.id;
  made.metadata := '{}';
  made := tollgate.with_imprint(made, key);
  made := tollgate.with_terms(made,
    '{"name": null, "scopes": null}' || (key - array['digest', 'pepper', 'prefix', 'last_four', 'environment']));
  if made.scopes @> array['admin'] and owner.role <> 'admin' then
    perform tollgate.refuse_field('scopes', 'admin is for the keys of admins');
  end if;
  perform tollgate.check_grant(actor, made);
  perform tollgate.insert_key(actor, made);
  select k.* into made from tollgate.api_keys k where k.id = made.id;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'id', made.id,
    'org_id', owner.org_id,
    'user_id', owner.id,
    'key', tollgate.key_shown(made)
  );
end
$$;

comment on function public.tollgate_create_key(jsonb, text, jsonb, text) is
  'Makes a key for a user: any user for operators, oneself otherwise, which is also who null is; and never one that grants more than its maker has, as check_grant() has it. `key` holds digest, pepper, prefix, last_four, environment and the terms, of which name and scopes are needed. Refuses: as recognise(), not_found, invalid_request, permission_denied, conflict. Locks the user against moving.';


drop function public.tollgate_set_key_state(jsonb, text, text);

create function public.tollgate_set_key_state(caller jsonb, key_id text, state text, scope text default 'keys')
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => false);
  key tollgate.api_keys;
  one tollgate.api_keys;
  was text;
  before text;
begin
  if state is null or state not in ('active', 'disabled', 'revoked') then
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'state', 'state', state));
  end if;
  key := tollgate.lock_key(actor, key_id);
  was := case
    when key.revoked_at is not null then 'revoked' when key.disabled_at is not null then 'disabled' else 'active'
  end;
  if was = 'revoked' and state <> 'revoked' then
    perform tollgate.refuse(409, 'key_is_final', jsonb_build_object('key_id', key.id, 'state', was));
  end if;

  for one in
    select k.* from tollgate.api_keys k
    where k.id = key.id or (
      k.id = any (tollgate.line_of(key)) and key.rotated_to is null and k.revoked_at is null and k.expires_at > now()
    )
    order by k.id desc
    for no key update
  loop
    before := case
      when one.revoked_at is not null then 'revoked' when one.disabled_at is not null then 'disabled' else 'active'
    end;
    continue when before = state;
    update tollgate.api_keys k set
      revoked_at = case when state = 'revoked' then now() end,
      disabled_at = case state when 'active' then null when 'disabled' then now() else k.disabled_at end,
      updated_at = now()
    where k.id = one.id;
    perform tollgate.record(
      actor,
      case state when 'active' then 'key.enabled' else 'key.' || state end,
      one.org_id,
      one.id,
      jsonb_build_object('was', before)
    );
  end loop;
  select k.* into key from tollgate.api_keys k where k.id = key.id;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'id', key.id, 'state', state, 'was', was, 'key', tollgate.key_shown(key)
  );
end
$$;

comment on function public.tollgate_set_key_state(jsonb, text, text, text) is
  'Disables, enables or revokes a key: any key for operators, one''s own otherwise. What is done to the newest key of a line is done to those in grace that it took the place of; one of those can be ended alone. Revoked is final. Repeating a state changes nothing and records nothing. Refuses: as recognise(), invalid_request, not_found, key_is_final. Locks the org, then the keys.';


create function public.tollgate_change_key(caller jsonb, key_id text, changes jsonb, scope text default 'keys')
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


create function public.tollgate_rotate_key(
  caller jsonb,
  key_id text,
  grace_hours integer,
  imprints jsonb,
  scope text default 'keys'
) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => false);
  key tollgate.api_keys := tollgate.lock_key(actor, key_id);
  successor tollgate.api_keys;
begin
  if grace_hours is null or grace_hours not between 0 and 168 then
    perform tollgate.refuse_field('grace_hours', 'must be from 0 to 168');
  elsif key.revoked_at is not null then
    perform tollgate.refuse(409, 'key_is_final', jsonb_build_object('key_id', key.id, 'state', 'revoked'));
  elsif key.rotated_to is not null then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object('key_id', key.id, 'rotated_to', key.rotated_to));
  elsif key.expires_at <= now() then
    perform tollgate.refuse(409, 'conflict',
      jsonb_build_object('key_id', key.id, 'expired_at', tollgate.utc(key.expires_at)));
  elsif cardinality(tollgate.line_of(key)) >= 10 then
    perform tollgate.refuse(409, 'conflict',
      jsonb_build_object('key_id', key.id, 'secrets', cardinality(tollgate.line_of(key))));
  end if;
  if actor.key_id is distinct from key.id then
    perform tollgate.check_grant(actor, key);
  end if;

  successor := tollgate.with_imprint(key, imprints -> key.environment);
  if successor.environment <> key.environment then
    perform tollgate.refuse_field('environment', 'is not that of the key');
  end if;
  successor.id := tollgate.new_id('key');
  successor.line := coalesce(key.line, key.id);
  successor.rotated_from := key.id;
  perform tollgate.insert_key(actor, successor);
  update tollgate.api_keys k set
    line = successor.line,
    rotated_to = successor.id,
    expires_at = least(k.expires_at, now() + make_interval(hours => grace_hours)),
    updated_at = now()
  where k.id = key.id
  returning k.expires_at into key.expires_at;
  perform tollgate.record(actor, 'key.rotated', key.org_id, key.id, jsonb_build_object(
    'rotated_to', successor.id, 'grace_hours', grace_hours, 'valid_until', tollgate.utc(key.expires_at)
  ));
  select k.* into successor from tollgate.api_keys k where k.id = successor.id;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'key', tollgate.key_shown(successor),
    'old_valid_until', tollgate.utc(key.expires_at)
  );
end
$$;

comment on function public.tollgate_rotate_key(jsonb, text, integer, jsonb, text) is
  'Gives a key a new secret: a new key takes its place with all that it may and has used, and the old one is refused after the hours of grace, at once with none. Meanwhile both draw on one purse: budget, quotas and limits are spent once, whichever secret spends them. `imprints` holds what is kept of the new secret for each environment, of which the key''s is taken. Whoever rotates learns the secret, so it takes a key that could have made it, or the key itself. A line has at most ten keys that are open or ended within a day. Refuses: as recognise(), not_found, invalid_request, key_is_final, conflict (rotated, expired, too many), permission_denied. Locks the org, then the key.';


create function public.tollgate_key(caller jsonb, key_id text, scope text default 'keys') returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => true);
  key tollgate.api_keys;
begin
  select k.* into key from tollgate.api_keys k
  where k.id = tollgate_key.key_id and (tollgate.operates(actor) or k.user_id = actor.user_id);
  if not found then
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'key', 'id', key_id));
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'key', tollgate.key_shown(key));
end
$$;

comment on function public.tollgate_key(jsonb, text, text) is
  'One key: any for operators, one''s own otherwise. Refuses: as recognise(), not_found. Locks nothing.';


create function tollgate.listed_key(key tollgate.api_keys, sort text) returns text
language sql
immutable
set search_path = ''
as $$
  select case sort
    when 'name' then lower(key.name)
    when 'last_used_at' then lpad(coalesce(extract(epoch from key.last_used_at) * 1000000, 0)::bigint::text, 20, '0')
    else lpad((extract(epoch from key.created_at) * 1000000)::bigint::text, 20, '0')
  end collate "C"
$$;

comment on function tollgate.listed_key(tollgate.api_keys, text) is
  'What a key is sorted by, as a text that sorts as it does. Never used comes before all use.';


create function public.tollgate_keys(caller jsonb, filters jsonb, page_size integer, scope text default 'keys')
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.key_manager(caller, scope, touch => true);
  sort text := split_part(coalesce(filters ->> 'sort', 'created_at:desc'), ':', 1);
  direction text := split_part(coalesce(filters ->> 'sort', 'created_at:desc'), ':', 2);
  descending boolean := direction = 'desc';
  cursor_id text := split_part(filters ->> 'cursor', '~', 1);
  cursor_place text := nullif(split_part(filters ->> 'cursor', '~', 2), '');
  faulty text;
  answer jsonb;
begin
  faulty := case
    when sort not in ('created_at', 'last_used_at', 'name') or direction not in ('asc', 'desc') then 'sort'
    when filters ->> 'status' not in ('active', 'disabled', 'revoked', 'expired') then 'status'
    when filters ->> 'environment' not in ('live', 'test') then 'environment'
    when filters ->> 'role' not in ('member', 'admin') then 'role'
    when page_size is null or page_size not between 1 and 1000 then 'limit'
  end;
  if cursor_id is not null then
    select coalesce(cursor_place, tollgate.listed_key(k, sort)) into cursor_place from tollgate.api_keys k
    where k.id = cursor_id and (scope = 'admin' or k.user_id = actor.user_id);
    if not found then
      faulty := 'cursor';
    end if;
  end if;
  if faulty is not null then
    perform tollgate.refuse_field(faulty, 'is none that is known');
  end if;

  with found as (
    select k as key, k.id, tollgate.listed_key(k, sort) as place
    from tollgate.api_keys k
    join tollgate.users u on u.id = k.user_id
    where (scope = 'admin' or k.user_id = actor.user_id)
      and (filters ->> 'org_id' is null or k.org_id = filters ->> 'org_id')
      and (filters ->> 'user_id' is null or k.user_id = filters ->> 'user_id')
      and (filters ->> 'environment' is null or k.environment = filters ->> 'environment')
      and (filters ->> 'role' is null or u.role = filters ->> 'role')
      and (filters ->> 'status' is null or tollgate.key_status(k) = filters ->> 'status')
      and (filters ->> 'q' is null or strpos(lower(k.name), lower(filters ->> 'q')) > 0
        or strpos(k.prefix, filters ->> 'q') > 0)
  ),
  page as (
    select f.*, row_number() over (
      order by
        case when not descending then f.place end, case when not descending then f.id end,
        case when descending then f.place end desc, case when descending then f.id end desc
    ) as row
    from found f
    where cursor_id is null
      or (not descending and (f.place, f.id) > (cursor_place, cursor_id))
      or (descending and (f.place, f.id) < (cursor_place, cursor_id))
    order by row
    limit page_size + 1
  )
  select jsonb_build_object(
    'caller', tollgate.identity(actor),
    'data', coalesce(
      (select jsonb_agg(tollgate.key_shown(p.key) order by p.row) from page p where p.row <= page_size), '[]'::jsonb
    ),
    -- A key may be used between two pages, so the place it had goes with its id.
    'next_cursor', (
      select case sort when 'last_used_at' then last.id || '~' || last.place else last.id end
      from page last
      where last.row = page_size and exists (select from page more where more.row > page_size)
    ),
    'total', (select count(*) from found)
  ) into answer;
  return answer;
end
$$;

comment on function public.tollgate_keys(jsonb, jsonb, integer, text) is
  'Keys: one''s own, or with `scope` admin everybody''s. `filters`: org_id, user_id, q (a part of the name or of the prefix), status, environment, role (of the owner), sort (created_at, last_used_at or name, :asc or :desc; created_at:desc if none is named), cursor. Refuses: as recognise(), invalid_request. Locks nothing.';


create function public.tollgate_key_events(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'keys');
  before tollgate.audit_events;
  answer jsonb;
begin
  if filters ->> 'cursor' is not null then
    select b.* into before from tollgate.audit_events b
    where b.id = filters ->> 'cursor' and b.org_id = actor.org_id and b.action like 'key.%';
  end if;
  if filters ->> 'cursor' is not null and before.id is null then
    perform tollgate.refuse_field('cursor', 'is none that is known');
  elsif page_size is null or page_size not between 1 and 1000 then
    perform tollgate.refuse_field('limit', 'must be from 1 to 1000');
  end if;

  with page as (
    select a.*, row_number() over (order by a.occurred_at desc, a.id desc) as row
    from tollgate.audit_events a
    where a.org_id = actor.org_id and a.action like 'key.%'
      and (filters ->> 'key_id' is null or a.target_id = filters ->> 'key_id')
      and (filters ->> 'action' is null or a.action = filters ->> 'action')
      and (filters ->> 'outcome' is null or a.outcome = filters ->> 'outcome')
      and (filters ->> 'from' is null or a.occurred_at >= (filters ->> 'from')::timestamptz)
      and (filters ->> 'to' is null or a.occurred_at < (filters ->> 'to')::timestamptz)
      and (before.id is null or (a.occurred_at, a.id) < (before.occurred_at, before.id))
    order by a.occurred_at desc, a.id desc
    limit page_size + 1
  )
  select jsonb_build_object(
    'caller', tollgate.identity(actor),
    'data', coalesce((
      select jsonb_agg(jsonb_build_object(
        'id', e.id,
        'occurred_at', tollgate.utc(e.occurred_at),
        'actor', jsonb_strip_nulls(jsonb_build_object(
          'kind', e.actor_kind, 'key_id', e.actor_key_id, 'user_id', e.actor_user_id, 'name', e.actor_name
        )),
        'action', e.action,
        'key_id', e.target_id,
        'outcome', e.outcome,
        'ip', case when u.id is not null then host(e.ip) end,
        'user_agent', case when u.id is not null then e.user_agent end,
        'request_id', e.request_id,
        'details', e.details
      ) order by e.row)
      from page e
      left join tollgate.users u on u.id = e.actor_user_id and u.org_id = actor.org_id
      where e.row <= page_size
    ), '[]'::jsonb),
    'next_cursor', (
      select last.id from page last
      where last.row = page_size and exists (select from page more where more.row > page_size)
    ),
    'total', null
  ) into answer;
  return answer;
end
$$;

comment on function public.tollgate_key_events(jsonb, jsonb, integer) is
  'What was done to the keys of the caller''s org, newest first. `filters`: key_id, action, outcome, from, to, cursor. From where operators came is theirs: addresses are told of the org''s own users only. Refuses: as recognise(), invalid_request. Locks nothing.';


select tollgate.expose('public.tollgate_create_key(jsonb, text, jsonb, text)');
select tollgate.expose('public.tollgate_set_key_state(jsonb, text, text, text)');
select tollgate.expose('public.tollgate_change_key(jsonb, text, jsonb, text)');
select tollgate.expose('public.tollgate_rotate_key(jsonb, text, integer, jsonb, text)');
select tollgate.expose('public.tollgate_key(jsonb, text, text)');
select tollgate.expose('public.tollgate_keys(jsonb, jsonb, integer, text)');
select tollgate.expose('public.tollgate_key_events(jsonb, jsonb, integer)');


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121001400'
$$;

revoke execute on all functions in schema tollgate from public;

-- Keys as JSON.

create function tollgate.key_state(key tollgate.api_keys) returns text
language sql
immutable
set search_path = ''
as $$
  select case when key.revoked_at is not null then 'revoked' when key.disabled_at is not null then 'disabled' else 'active' end
$$;

comment on function tollgate.key_state(tollgate.api_keys) is 'What was done to a key: active, disabled or revoked.';


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

comment on function tollgate.key_status(tollgate.api_keys) is 'The state of a key, or expired. What identify() would refuse it for, in its order.';


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
    'quota_reset_day', key.quota_reset_day,
    'limits', case when not key.limits is null then to_jsonb(key.limits) end,
    'max_concurrent_requests', key.max_concurrent_requests,
    'cache', key.cache,
    'metadata', key.metadata
  )
$$;

comment on function tollgate.key_terms(tollgate.api_keys) is 'The terms of a key: what its owner may change.';


create function tollgate.key_named(key tollgate.api_keys) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', key.id,
    'name', key.name,
    'masked_key', key.prefix || '…' || key.last_four,
    'user_id', key.user_id,
    'environment', key.environment,
    'status', tollgate.key_status(key),
    'created_at', tollgate.utc(key.created_at),
    'last_used_at', tollgate.utc(key.last_used_at)
  )
$$;

comment on function tollgate.key_named(tollgate.api_keys) is 'A key in short, as a list of usage names it.';


create function tollgate.key_shown(key tollgate.api_keys) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', key.id,
    'org_id', key.org_id,
    'org_name', (select o.name from tollgate.orgs o where o.id = key.org_id),
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
    'budget_resets_at', tollgate.budget_resets_at(present),
    'tokens_used_in_month', present.tokens_used_in_month,
    'quota_resets_at', case when key.tokens_per_month is not null then
      tollgate.utc((present.month_of_tokens + interval '1 month') at time zone 'utc')
    end,
    'tokens_used_in_all', key.tokens_used_in_all,
    'open_requests', case when key.max_concurrent_requests is not null then key.open_requests end
  ) || tollgate.key_terms(key)
  from tollgate.users u, tollgate.in_this_period(key, now()) present
  where u.id = key.user_id
$$;

comment on function tollgate.key_shown(tollgate.api_keys) is
  'All that may be seen of a key: its terms, its state and its use. Of its secret, only the prefix and the last four characters.';


create function tollgate.audited(terms jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select case when terms ? 'metadata' then terms || '{"metadata": "not kept here"}' else terms end
$$;

comment on function tollgate.audited(jsonb) is
  'Terms as the audit trail keeps them: without metadata, which may be personal data and could never be deleted there.';

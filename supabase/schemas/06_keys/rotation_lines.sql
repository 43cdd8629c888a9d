-- A line is a key and the keys it was rotated from or to. They share one budget, quota and set of counters.
--
-- Until the old secret is refused, and for one more day while its requests are settled, a trigger copies these to all rows
-- of the line, under the lock of the org, which every request takes first. So nothing is spent twice in a grace period.

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
  'The ids of the keys of a line whose requests may still be settled: until a day after the key ended. The key itself is always one of them.';


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
  'Copies the key''s bound of open requests to every key of its line, ended ones too, and counts their open requests. Expects the org to be locked. Locks those keys.';


create function tollgate.share_use() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  if least(new.expires_at, new.revoked_at) <= now() - interval '1 day' then
    return null; -- it ended too long ago: its row is no longer kept up to date
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

comment on function tollgate.share_use() is
  'Trigger: copies the counts of a key to the other keys of its line. Every request locks the org first, so requests of a line run one at a time. Locks the keys of the line.';

create trigger api_keys_share_use
after update of
  counters, budget_period, budget_spent_nanos, month_of_tokens, tokens_used_in_month, tokens_used_in_all
on tollgate.api_keys
for each row
when (new.line is not null and pg_trigger_depth() = 0)
execute function tollgate.share_use();


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
  'The key at the start of a budget: spent is what its open requests hold; settling them corrects it. Expects the org to be locked.';


create function tollgate.begin_counting(key tollgate.api_keys, ids text[]) returns tollgate.api_keys
language plpgsql
set search_path = ''
as $$
begin
  key.counters := tollgate.counted_so_far(ids);
  key.month_of_tokens := tollgate.quota_month(key.quota_reset_day, clock_timestamp());
  key.tokens_used_in_all := coalesce((
    select sum(r.reserved_tokens) from tollgate.holds h join tollgate.requests r on r.id = h.request_id
    where r.key_id = any (ids)
  ), 0);
  key.tokens_used_in_month := key.tokens_used_in_all;
  return tollgate.begin_budget(key, ids);
end
$$;

comment on function tollgate.begin_counting(tollgate.api_keys, text[]) is
  'The key when its first counted term is set: its open requests are counted now, because settling will correct them. Expects the org to be locked.';

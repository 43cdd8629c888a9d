-- When the budget and the monthly quota of a key are reset.

create function tollgate.quota_month(reset_day integer, moment timestamptz) returns date
language plpgsql
immutable
set search_path = ''
as $$
begin
  return date_trunc('month', (moment at time zone 'utc') - make_interval(days => reset_day - 1))::date + reset_day - 1;
end
$$;

comment on function tollgate.quota_month(integer, timestamptz) is
  'The first day, in UTC, of the month that a monthly quota counts in, if it is reset on a day of the month from 1 to 28.';


create function tollgate.in_this_period(key tollgate.api_keys, moment timestamptz) returns tollgate.api_keys
language plpgsql
immutable
set search_path = ''
as $$
declare
  period date := tollgate.budget_period(key.budget_reset, moment);
  month date := tollgate.quota_month(key.quota_reset_day, moment);
begin
  if key.budget_period is distinct from period then
    key.budget_period := period;
    key.budget_spent_nanos := 0;
  end if;
  if key.month_of_tokens is distinct from month then
    key.month_of_tokens := month;
    key.tokens_used_in_month := 0;
  end if;
  return key;
end
$$;

comment on function tollgate.in_this_period(tollgate.api_keys, timestamptz) is 'The key with its budget and its monthly quota reset where a new period has begun.';


create function tollgate.budget_resets_at(key tollgate.api_keys) returns text
language sql
immutable
set search_path = ''
as $$
  select tollgate.utc((key.budget_period + case key.budget_reset
    when 'daily' then interval '1 day' when 'weekly' then interval '1 week' when 'monthly' then interval '1 month'
  end) at time zone 'utc')
$$;

comment on function tollgate.budget_resets_at(tollgate.api_keys) is
  'When the budget of a key from in_this_period() is reset; null for never.';


create function tollgate.quota_resets_at(key tollgate.api_keys) returns text
language sql
immutable
set search_path = ''
as $$
  select tollgate.utc((key.month_of_tokens + interval '1 month') at time zone 'utc')
$$;

comment on function tollgate.quota_resets_at(tollgate.api_keys) is
  'When the monthly quota of a key from in_this_period() is reset.';

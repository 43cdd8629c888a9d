-- When the budget and the monthly quota of a key are reset.

create function tollgate.in_this_period(key tollgate.api_keys, moment timestamptz) returns tollgate.api_keys
language plpgsql
immutable
set search_path = ''
as $$
declare
  period date := tollgate.budget_period(key.budget_reset, moment);
  month date := tollgate.budget_period('monthly', moment);
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

-- Ids.

create function tollgate.new_id(prefix text) returns text
language sql
volatile
set search_path = ''
as $$
  select prefix || '_'
    || lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
    || right(replace(gen_random_uuid()::text, '-', ''), 16)
$$;

comment on function tollgate.new_id(text) is
  'A new id such as org_0193…: 12 hex digits of the time in milliseconds, so that indexes grow at their end, and 16 random ones.';

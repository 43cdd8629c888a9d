-- Moments, and the periods they lie in.

create function tollgate.utc(moment timestamptz) returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  return to_char(moment at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');
end
$$;

comment on function tollgate.utc(timestamptz) is
  'RFC 3339 in UTC, whatever the session''s time zone. Null stays null.';


create function tollgate.ms_of(moment timestamptz) returns bigint
language plpgsql
immutable
set search_path = ''
as $$
begin
  return extract(epoch from moment) * 1000;
end
$$;

comment on function tollgate.ms_of(timestamptz) is 'Milliseconds since the epoch.';


create function tollgate.first_of(unit text, moment timestamptz) returns timestamptz
language sql
immutable
set search_path = ''
as $$
  select case when begun = moment then moment
    else (begun at time zone 'UTC' + ('1 ' || unit)::interval) at time zone 'UTC' end
  from date_trunc(unit, moment, 'UTC') begun
$$;

comment on function tollgate.first_of(text, timestamptz) is
  'The beginning of the first hour, day or month (UTC) at or after a moment.';


create function tollgate.budget_period(reset text, moment timestamptz) returns date
language sql
immutable
set search_path = ''
as $$
  select case reset
    when 'daily' then date_trunc('day', moment at time zone 'utc')
    when 'weekly' then date_trunc('week', moment at time zone 'utc')
    when 'monthly' then date_trunc('month', moment at time zone 'utc')
    else timestamp 'epoch'
  end::date
$$;

comment on function tollgate.budget_period(text, timestamptz) is 'The first day, in UTC, of the period a budget counts in.';

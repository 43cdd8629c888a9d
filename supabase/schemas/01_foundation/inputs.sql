-- Values read from a JSON argument, checked.

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


create function tollgate.wanted(filters jsonb, columns text[]) returns text
language sql
immutable
set search_path = ''
as $$
  select coalesce(string_agg(format(' and t.%I = %L', f.key, f.value), '' order by f.key), '')
  from jsonb_each_text(filters) f
  where f.key = any (columns)
$$;

comment on function tollgate.wanted(jsonb, text[]) is 'The filters on these columns as a condition on `t`.';

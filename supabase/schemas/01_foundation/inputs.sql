-- Fields of a JSON argument, read into a row.
--
-- The server checks what clients write. What a column may hold is said once more by its domain, for callers of SQL.

create function tollgate.with_fields(fields anyelement, given jsonb, known text[]) returns anyelement
language plpgsql
stable
set search_path = ''
as $$
declare
  field text;
begin
  for field in select jsonb_object_keys(given) loop
    if field <> all (known) then
      perform tollgate.refuse_field(field, 'is not known here');
    end if;
    fields := jsonb_populate_record(fields, jsonb_build_object(field, given -> field));
  end loop;
  return fields;
exception when check_violation or data_exception then
  perform tollgate.refuse_field(coalesce(field, 'body'), 'has a value that is not allowed');
end
$$;

comment on function tollgate.with_fields(anyelement, jsonb, text[]) is
  'A row with the given fields in place of its own; null clears, what is left out stays. Refuses, with invalid_request and the field: one that is not `known`, and a value that its column''s type or domain does not allow.';


create function tollgate.all_match(texts text[], shape text) returns boolean
language sql
immutable
set search_path = ''
as $$
  select coalesce(bool_and(coalesce(t ~ shape, false)), true) from unnest(texts) t
$$;

comment on function tollgate.all_match(text[], text) is 'Whether each of the texts has the shape. For domains.';

-- Pages of a list, by keyset.

create function tollgate.page(
  source regclass,
  shown regproc,
  wanted text,
  sortings jsonb,
  sort text,
  filters jsonb,
  page_size integer,
  within text default 'true',
  id text default 'e.id',
  moving text default null,
  counted boolean default true,
  most_read integer default null
) returns jsonb
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  word constant text := split_part(sort, ':', 1);
  sorted_by constant text := sortings ->> word;
  direction constant text := split_part(sort, ':', 2);
  last constant text := split_part(filters ->> 'cursor', '~', 1);
  rows text := format('%s e where (%s)', source, within);
  in_order constant text := format(' order by %1$s %2$s, %3$s %2$s limit ', sorted_by, direction, id);
  place text;
  page jsonb[];
  next_cursor text;
  total bigint;
begin
  if sorted_by is null or direction not in ('asc', 'desc') then
    perform tollgate.refuse(400, 'invalid_request', '{"param": "sort"}');
  end if;
  -- The texts are constants of the calling functions. Values from outside are quoted, or read from $1.
  if counted then
    execute format('select count(*) from %s and (%s)', rows, wanted) into total using filters;
  end if;
  if last is not null then
    execute format('select (%s)::text from %s e where %s = %L and (%s)', sorted_by, source, id, last, within)
    into place using filters;
    if place is null then
      perform tollgate.refuse(400, 'invalid_request', '{"param": "cursor"}');
    end if;
    place := coalesce(case word when moving then nullif(split_part(filters ->> 'cursor', '~', 2), '') end, place);
    rows := rows || format(
      ' and (%s, %s) %s (%L, %L)', sorted_by, id, case direction when 'asc' then '>' else '<' end, place, last
    );
  end if;
  if most_read is not null then
    rows := format('(select e.* from %s %s %s) e where true', rows, in_order, most_read);
  end if;

  execute format(
    'select array(select %s(e::%s) from %s and (%s) %s %s offset %L)',
    shown, source, rows, wanted, in_order, page_size + 1, coalesce((filters ->> 'offset')::integer, 0)
  ) into page using filters;
  if cardinality(page) > page_size then
    next_cursor := page[page_size] ->> 'id';
  elsif most_read is not null then
    execute format('select %s from %s %s 1 offset %s', id, rows, in_order, most_read - 1) into next_cursor using filters;
  end if;
  if next_cursor is not null and word = moving then
    execute format('select %L || ''~'' || (%s) from %s e where %s = %1$L', next_cursor, sorted_by, source, id)
    into next_cursor;
  end if;
  return jsonb_build_object('data', to_jsonb(page[:page_size]), 'next_cursor', next_cursor)
    || case when counted then jsonb_build_object('total', total) else '{}' end;
end
$$;

comment on function tollgate.page(
  regclass, regproc, text, jsonb, text, jsonb, integer, text, text, text, boolean, integer
) is
  'A page of a table, whose rows are called `e` in the conditions, and `filters` $1. `shown` is the function that makes JSON of a row, with an id. `wanted` says which rows are listed, `within` which rows the caller may see: a cursor must be one of those. `sortings` maps the words of `sort` (<word>:asc or <word>:desc) to expressions that are never null; `id` breaks ties. `filters` may hold an `offset`, and a cursor: the id of the last row of the page before, and for the sorting `moving`, whose value may change between pages and must be a text, <id>~<value>. `total` is there only where `counted`. With `most_read`, reads no more rows: a page may then be short, and next_cursor is the last row that was read. Planned for each call, so that the filters that are there find their index. Refuses: invalid_request for an unknown sort or cursor. Locks nothing.';

-- Pages of a list, sorted by a key.

create function tollgate.listed(
  source text,
  entry text,
  condition text,
  sortings jsonb,
  filters jsonb,
  page_size integer
) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  cursor_id text := filters ->> 'cursor';
  sorted_by text := sortings ->> split_part(filters ->> 'sort', ':', 1);
  direction text := split_part(filters ->> 'sort', ':', 2);
  known boolean;
  page jsonb;
begin
  if sorted_by is null or direction not in ('asc', 'desc') then
    perform tollgate.refuse(400, 'invalid_request', '{"param": "sort"}');
  end if;
  if cursor_id is not null then
    execute format('select exists (select from %s e where e.id = $1)', source) into known using cursor_id;
    if not known then
      perform tollgate.refuse(400, 'invalid_request', '{"param": "cursor"}');
    end if;
  end if;

  execute format(
    $query$
      with matching as (
        select e, e.id, %2$s as place from %1$s e where %3$s
      ),
      page as (
        select m.e, m.id, row_number() over (order by m.place %5$s, m.id %5$s) as nth
        from matching m
        where $2 is null or (m.place, m.id) %6$s (select %2$s, e.id from %1$s e where e.id = $2)
        order by m.place %5$s, m.id %5$s
        limit $3 + 1
      )
      select jsonb_build_object(
        'data', coalesce(jsonb_agg(%4$s(p.e) order by p.nth) filter (where p.nth <= $3), '[]'),
        'next_cursor', case when count(*) > $3 then max(p.id) filter (where p.nth = $3) end,
        'total', (select count(*) from matching)
      )
      from page p
    $query$,
    source, sorted_by, condition, entry, direction, case direction when 'asc' then '>' else '<' end
  ) into page using filters, cursor_id, page_size;
  return page;
end
$$;

comment on function tollgate.listed(text, text, text, jsonb, jsonb, integer) is
  'A page of a table by keyset. The table is called e; `entry` names the function that shows a row, `condition` says which rows, with the filters as $1, `sortings` which expression stands behind each word that may be sorted by; the id breaks ties. The filter `sort` is <word>:asc or <word>:desc. All but the filters are constants of the caller. Refuses: invalid_request for an unknown sorting or cursor. Locks nothing.';


create function tollgate.sort_key(sort text, name text, created_at timestamptz) returns text
language sql
immutable
set search_path = ''
as $$
  select case split_part(sort, ':', 1) when 'created_at'
    then to_char(created_at at time zone 'utc', 'YYYYMMDDHH24MISSUS') else name end collate "C"
$$;

comment on function tollgate.sort_key(text, text, timestamptz) is
  'What a list of few is sorted by: its name, or when it was made. `sort` is one of the two and its direction, as created_at:desc.';

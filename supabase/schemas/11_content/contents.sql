-- Prompts and answers, where they are kept.

create function tollgate.keep_contents(items jsonb[]) returns void
language sql
set search_path = ''
as $$
  insert into tollgate.contents (request_id, org_id, prompt, answer)
  select r.id, r.org_id, left(i.item -> 'content' ->> 'prompt', 4000), left(i.item -> 'content' ->> 'answer', 4000)
  from unnest(items) i (item)
  join tollgate.requests r on r.id = i.item ->> 'id'
  where i.item ? 'content'
  on conflict do nothing
$$;

comment on function tollgate.keep_contents(jsonb[]) is
  'Stores prompts and answers of the items that have them; what is stored already stays. Refuses nothing. Expects the orgs to be locked.';


create function tollgate.drop_contents() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  delete from tollgate.contents c where c.request_id = any (array(select g.id from gone g));
  return null;
end
$$;

comment on function tollgate.drop_contents() is
  'Trigger of requests: deletes the content of deleted requests. It replaces a foreign key, which would slow down every settlement.';

create trigger requests_gone
after delete on tollgate.requests
referencing old table as gone
for each statement execute function tollgate.drop_contents();


create function public.tollgate_contents(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  page jsonb := public.tollgate_requests(caller, filters, page_size, true);
begin
  perform tollgate.record(
    actor, 'content.read', s.org_id, s.org_id, jsonb_build_object('request_ids', s.request_ids)
  )
  from (
    select c.org_id, jsonb_agg(c.request_id order by c.request_id) as request_ids
    from tollgate.contents c
    where c.request_id = any (array(select r.value ->> 'id' from jsonb_array_elements(page -> 'data') r))
    group by c.org_id
    order by c.org_id
  ) s;
  return page || jsonb_build_object('data', (
    select coalesce(
      jsonb_agg(r.request || jsonb_build_object('prompt', c.prompt, 'answer', c.answer) order by r.place), '[]'
    )
    from jsonb_array_elements(page -> 'data') with ordinality r (request, place)
    left join tollgate.contents c on c.request_id = r.request ->> 'id'
  ));
end
$$;

comment on function public.tollgate_contents(jsonb, jsonb, integer) is
  'A page of everyone''s requests as from tollgate_requests(), each with its prompt and answer where they were stored. For admins. Reading is recorded: an audit event content.read for each org whose content was shown, with the requests. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_contents(jsonb, jsonb, integer)');


create function public.tollgate_drop_old_contents(older_than_days integer, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  gone bigint;
begin
  with old as (
    delete from tollgate.contents c
    where c.request_id = any (array(
      select o.request_id from tollgate.contents o
      where o.created_at < now() - make_interval(days => greatest(older_than_days, 1))
      order by o.created_at
      limit page_size
      for update skip locked
    ))
    returning 1
  )
  select count(*) into gone from old;
  return jsonb_build_object('contents', gone, 'more', gone >= page_size);
end
$$;

comment on function public.tollgate_drop_old_contents(integer, integer) is
  'Deletes a batch of content that is older than so many days (at least one); to be called again while it answers "more". Refuses nothing. Locks the deleted rows, skipping locked ones.';

select tollgate.expose('public.tollgate_drop_old_contents(integer, integer)');

-- Silences as operators see and change them.

create function tollgate.silence_shown(s tollgate.silences) returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(s) || jsonb_build_object(
    'state', case when now() < s.starts_at then 'planned' when now() < s.ends_at then 'active' else 'ended' end,
    'starts_at', tollgate.utc(s.starts_at),
    'ends_at', tollgate.utc(s.ends_at),
    'created_at', tollgate.utc(s.created_at)
  )
$$;

comment on function tollgate.silence_shown(tollgate.silences) is 'A silence as operators see it.';


create function public.tollgate_create_silence(caller jsonb, silence jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  given tollgate.silences := tollgate.with_fields(
    null::tollgate.silences, silence, array['reason', 'rules', 'subjects', 'org_ids', 'starts_at', 'ends_at']
  );
  made tollgate.silences;
begin
  given.starts_at := coalesce(given.starts_at, now());
  if given.ends_at <= given.starts_at then
    perform tollgate.refuse_field('ends_at', 'must be later than starts_at');
  end if;
  insert into tollgate.silences (reason, rules, subjects, org_ids, starts_at, ends_at, created_by)
  values (
    given.reason, given.rules, given.subjects, given.org_ids, given.starts_at, given.ends_at,
    coalesce(actor.user_id, actor.name)
  )
  returning * into made;
  perform tollgate.record(actor, 'silence.created', null, made.id, silence);
  return jsonb_build_object('caller', tollgate.identity(actor), 'silence', tollgate.silence_shown(made));
end
$$;

comment on function public.tollgate_create_silence(jsonb, jsonb) is
  'Creates a silence, from now on unless it says when it starts. For admins. Refuses: as recognise() and with_fields(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_create_silence(jsonb, jsonb)');


create function public.tollgate_delete_silence(caller jsonb, silence_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  gone tollgate.silences;
begin
  delete from tollgate.silences s where s.id = silence_id returning s.* into gone;
  if not found then
    perform tollgate.refuse_missing('silence', silence_id);
  end if;
  perform tollgate.record(actor, 'silence.deleted', null, gone.id, tollgate.silence_shown(gone) - 'id');
  return jsonb_build_object('caller', tollgate.identity(actor), 'id', gone.id, 'deleted', true);
end
$$;

comment on function public.tollgate_delete_silence(jsonb, text) is
  'Ends a silence: what it held back and still fires is told in the next round. For admins. Refuses: as recognise(), not_found. Locks the row.';

select tollgate.expose('public.tollgate_delete_silence(jsonb, text)');


create function public.tollgate_silences(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.silences',
    'tollgate.silence_shown',
    $where$
      ($1 ->> 'state' is null or $1 ->> 'state' = tollgate.silence_shown(e) ->> 'state')
    $where$,
    '{"ends_at": "e.ends_at", "created_at": "e.created_at"}',
    coalesce(filters ->> 'sort', 'ends_at:desc'),
    filters,
    page_size
  );
end
$$;

comment on function public.tollgate_silences(jsonb, jsonb, integer) is
  'Silences. `filters`: state (planned, active, ended), sort (ends_at, created_at), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_silences(jsonb, jsonb, integer)');

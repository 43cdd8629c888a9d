-- When a source's list of models was taken.

create function tollgate.snapshot_digest(source text) returns text
language sql
stable
set search_path = ''
as $$
  select md5(string_agg(l.id || ' ' || l.listing, e'\n' order by l.id))
  from tollgate.listings l where l.source = snapshot_digest.source
$$;

comment on function tollgate.snapshot_digest(text) is 'A digest of a snapshot''s models, independent of their order.';


create function tollgate.snapshot_shown(source text) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'source', s.source,
    'taken_at', tollgate.utc(s.taken_at),
    'age_seconds', floor(extract(epoch from greatest(clock_timestamp() - s.taken_at, interval '0')))::bigint,
    'models', (select count(*) from tollgate.listings l where l.source = s.source)
  )
  from tollgate.snapshots s where s.source = snapshot_shown.source
$$;

comment on function tollgate.snapshot_shown(text) is
  'The snapshot of a source''s models, which all instances share; null where there is none.';


create function public.tollgate_snapshot(caller jsonb, source text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'snapshot', tollgate.snapshot_shown(source),
    'digest', tollgate.snapshot_digest(source)
  );
end
$$;

comment on function public.tollgate_snapshot(jsonb, text) is
  'The snapshot of a source: when it was taken, how many models it has, and a digest of them. Nulls where there is none. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_snapshot(jsonb, text)');


create function public.tollgate_note_refresh(caller jsonb, source text, digest text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  snapshot jsonb := tollgate.snapshot_shown(source);
  changed boolean := tollgate.snapshot_digest(source) is distinct from digest;
begin
  perform tollgate.record(actor, 'catalog.refreshed', null, source,
    jsonb_build_object('models', snapshot -> 'models', 'changed', changed));
  return jsonb_build_object('caller', tollgate.identity(actor), 'snapshot', snapshot, 'changed', changed);
end
$$;

comment on function public.tollgate_note_refresh(jsonb, text, text) is
  'Records that an operator refreshed a source''s models, and tells whether they differ from the digest. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_note_refresh(jsonb, text, text)');

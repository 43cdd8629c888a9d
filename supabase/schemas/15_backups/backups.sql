-- Backups: note one that was created or verified, and list them.

create function public.tollgate_note_backup(caller jsonb, backup jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  given tollgate.backups := jsonb_populate_record(null::tollgate.backups, backup);
begin
  insert into tollgate.backups (digest, file, bytes, created_at, made_here, as_of)
  values (given.digest, given.file, given.bytes, now(), true, given.as_of);
  perform tollgate.record(
    actor, 'backup.created', null, given.digest, jsonb_build_object('file', given.file, 'bytes', given.bytes)
  );
  return jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_note_backup(jsonb, jsonb) is
  'Notes a backup that was created: digest, file, bytes, as_of. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_note_backup(jsonb, jsonb)');


create function public.tollgate_note_verification(caller jsonb, backup jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  given tollgate.backups := jsonb_populate_record(null::tollgate.backups, backup);
begin
  insert into tollgate.backups as b (
    digest, file, bytes, created_at, made_here, as_of, schema_version, verified_at, is_sound, faults, counts
  )
  values (
    given.digest, given.file, given.bytes, now(), false, given.as_of, given.schema_version, now(), given.is_sound, given.faults,
    given.counts
  )
  on conflict on constraint backups_pkey do update set
    file = excluded.file, as_of = coalesce(excluded.as_of, b.as_of), schema_version = excluded.schema_version,
    verified_at = excluded.verified_at, is_sound = excluded.is_sound, faults = excluded.faults,
    counts = excluded.counts;
  perform tollgate.record(actor, 'backup.verified', null, given.digest, jsonb_build_object(
    'file', given.file, 'is_sound', given.is_sound
  ));
  return jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_note_verification(jsonb, jsonb) is
  'Notes what the verification of a backup found: digest, file, bytes, as_of, schema_version, is_sound, faults, counts. The backup need not have been created here. For admins. Refuses: as recognise(). Locks the row of the backup.';

select tollgate.expose('public.tollgate_note_verification(jsonb, jsonb)');


create function tollgate.backup_shown(b tollgate.backups) returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(b) || jsonb_build_object(
    'id', b.digest,
    'created_at', tollgate.utc(b.created_at),
    'taken_at', tollgate.utc(b.as_of),
    'verified_at', tollgate.utc(b.verified_at)
  )
$$;

comment on function tollgate.backup_shown(tollgate.backups) is 'A backup as operators see it.';


create function public.tollgate_backups(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.backups',
    'tollgate.backup_shown',
    $where$
      ($1 ->> 'is_sound' is null or e.is_sound = ($1 ->> 'is_sound')::boolean)
    $where$,
    '{"created_at": "e.created_at"}',
    coalesce(filters ->> 'sort', 'created_at:desc'),
    filters,
    page_size,
    id => 'e.digest'
  );
end
$$;

comment on function public.tollgate_backups(jsonb, jsonb, integer) is
  'Backups. `filters`: is_sound, sort (created_at), cursor, offset. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_backups(jsonb, jsonb, integer)');


create function public.tollgate_backup(caller jsonb, digest text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_one tollgate.backups;
begin
  select b.* into found_one from tollgate.backups b where b.digest = tollgate_backup.digest;
  if not found then
    perform tollgate.refuse_missing('backup', digest);
  end if;
  return tollgate.backup_shown(found_one) || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_backup(jsonb, text) is
  'One backup. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_backup(jsonb, text)');


create function tollgate.newest_moment() returns timestamptz
language sql
stable
set search_path = ''
as $$
  select nullif(greatest(
    (select max(r.created_at) from tollgate.requests r),
    (select t.created_at from tollgate.transfers t order by t.position desc limit 1),
    (select max(a.occurred_at) from tollgate.audit_events a),
    (select r.marked_at from tollgate.rolled r)
  ), '-infinity')
$$;

comment on function tollgate.newest_moment() is
  'The newest moment that the rows tell of: of a backup, when it was taken. A server that sweeps moves it every quarter of a minute.';


create function public.tollgate_moment_of_books() returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select jsonb_build_object('as_of', tollgate.utc(tollgate.newest_moment()))
$$;

comment on function public.tollgate_moment_of_books() is 'The newest moment that the rows tell of. Refuses nothing, locks nothing.';

select tollgate.expose('public.tollgate_moment_of_books()');


create function tollgate.backup_readings(as_of timestamptz) returns table (signal text, subject text, value numeric)
language sql
stable
set search_path = ''
as $$
  select 'days_since_verified_backup', 'installation',
    greatest(0, round(extract(epoch from backup_readings.as_of - s.since) / 86400, 3))
  from (
    select coalesce(
      (select max(coalesce(b.as_of, b.created_at)) from tollgate.backups b where b.is_sound),
      (select min(o.created_at) from tollgate.orgs o)
    ) as since
  ) s
  where s.since is not null
$$;

comment on function tollgate.backup_readings(timestamptz) is
  'Readings for alerts: how many days ago the newest backup that is sound was taken; where none is, the days since the first org was made. No reading before there is one.';

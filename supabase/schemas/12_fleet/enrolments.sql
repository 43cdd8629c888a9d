-- Enrolments, as operators create them.

create function tollgate.put_enrolment(h tollgate.hosts, digest text) returns jsonb
language sql
set search_path = ''
as $$
  delete from tollgate.enrolments e where e.host_id = h.id;
  insert into tollgate.enrolments (digest, host_id, expires_at)
  values (decode(put_enrolment.digest, 'hex'), h.id, now() + interval '1 hour')
  returning jsonb_build_object('expires_at', tollgate.utc(expires_at))
$$;

comment on function tollgate.put_enrolment(tollgate.hosts, text) is
  'Stores the enrolment of a host that the calling function has locked. Earlier ones end.';


create function public.tollgate_new_enrolment(caller jsonb, host_id text, digest text, rotate boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor constant tollgate.caller := tollgate.recognise(caller, 'admin');
  h tollgate.hosts := tollgate.locked_host(host_id);
begin
  perform tollgate.refuse_retired(h);
  if rotate then
    h := tollgate.with_next_key(h);
  end if;
  perform tollgate.record(
    actor, case when rotate then 'host.rotated' else 'enrolment.created' end, null, h.id
  );
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'host', tollgate.host_shown(h),
    'enrolment', tollgate.put_enrolment(h, digest)
  );
end
$$;

comment on function public.tollgate_new_enrolment(jsonb, text, text, boolean) is
  'Stores another enrolment of a host, in the place of earlier ones. With `rotate`, the key of the host ends at once; otherwise when the enrolment is used. For admins. Refuses: as recognise(), not_found, conflict (host_retired). Locks the host, then its upstreams.';

select tollgate.expose('public.tollgate_new_enrolment(jsonb, text, text, boolean)');

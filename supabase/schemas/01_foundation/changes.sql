-- For functions that change a row.

create function tollgate.what_changed(was jsonb, now_is jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select coalesce(jsonb_object_agg(n.key, jsonb_build_object('was', was -> n.key, 'is', n.value)), '{}')
  from jsonb_each(now_is) n
  where n.value is distinct from was -> n.key
$$;

comment on function tollgate.what_changed(jsonb, jsonb) is 'The fields of a row that differ, for the audit trail; empty when none does.';


create function tollgate.lock_people() returns void
language sql
set search_path = ''
as $$
  select pg_advisory_xact_lock(hashtextextended('tollgate_people', 0))
$$;

comment on function tollgate.lock_people() is
  'Lets one change of people or plans run at a time, so that two admins cannot demote each other at once, and no plan changes while an org is put on it. Takes an advisory lock until the transaction ends.';

-- Why:  open_requests must be right before anybody relies on it, and a call that waited for the migration before this one
--       ran the old bodies, which did not count.
-- What: counts the open requests of each org; drops what only the old bodies used.
-- Care: locks orgs against admissions while it counts, which reads the open holds once. Those that waited for the
--       migration before this one have ended by then, and those that wait for this one run the new bodies.

set lock_timeout = '1s';

lock table tollgate.orgs in exclusive mode;

update tollgate.orgs o set open_requests = c.open
from (
  select r.org_id, count(*) as open
  from tollgate.holds h
  join tollgate.requests r on r.id = h.request_id
  group by r.org_id
) c
where o.id = c.org_id and o.open_requests <> c.open;

update tollgate.orgs o set open_requests = 0
where o.open_requests <> 0 and not exists (
  select from tollgate.holds h join tollgate.requests r on r.id = h.request_id where r.org_id = o.id
);

drop function tollgate.grant_of(tollgate.opening, text, tollgate.purse, tollgate.room);
drop function tollgate.answer_beforehand(jsonb, text, text, tollgate.purse, tollgate.room);
drop type tollgate.purse;


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261129000110'
$$;

revoke execute on all functions in schema tollgate from public;

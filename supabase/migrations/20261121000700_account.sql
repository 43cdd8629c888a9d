-- Why:  client apps poll their balance; it must cost one call.
-- What: tollgate_balance().
-- Care: additive; reads only, but for what recognise() notes of a key's use.

create function public.tollgate_balance(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller);
begin
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'org_id', o.id,
      'user_id', k.user_id,
      'prefix', k.prefix,
      'last_four', k.last_four,
      'environment', k.environment,
      'balance_nanos', o.balance_nanos,
      'held_nanos', o.held_nanos,
      'plan', o.plan_id,
      'status', o.status
    )
    from tollgate.api_keys k
    join tollgate.orgs o on o.id = k.org_id
    where k.id = actor.key_id
  );
end
$$;

comment on function public.tollgate_balance(jsonb) is
  'The balance of the caller''s org. Refuses: as recognise(). Locks nothing of the org.';

select tollgate.expose('public.tollgate_balance(jsonb)');


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121000700'
$$;

revoke execute on all functions in schema tollgate from public;

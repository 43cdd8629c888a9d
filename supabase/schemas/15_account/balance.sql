-- The balance of the caller's org.

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

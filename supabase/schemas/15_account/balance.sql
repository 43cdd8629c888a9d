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
      'user_id', actor.user_id,
      'prefix', k.prefix,
      'last_four', k.last_four,
      'environment', actor.environment,
      'balance_nanos', o.balance_nanos,
      'held_nanos', o.held_nanos,
      'plan', o.plan_id,
      'status', o.status
    )
    from tollgate.orgs o
    left join tollgate.api_keys k on k.id = actor.key_id
    where o.id = actor.org_id
  );
end
$$;

comment on function public.tollgate_balance(jsonb) is
  'The balance of the caller''s org. Refuses: as recognise(). Locks nothing of the org.';

select tollgate.expose('public.tollgate_balance(jsonb)');

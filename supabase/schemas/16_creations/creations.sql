-- Creates an org, a user, a plan, a key, an upstream, a host, a deployment, a channel or a silence once for each
-- idempotency key.
--
-- Lock order: operator and idempotency key (an advisory lock), then as the function that creates.

create function tollgate.create_new(caller jsonb, creation text, arguments jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  return case creation
    when 'tollgate_create_org' then public.tollgate_create_org(caller, arguments -> 'org')
    when 'tollgate_create_user' then public.tollgate_create_user(caller, arguments -> 'person')
    when 'tollgate_create_plan' then public.tollgate_create_plan(caller, arguments -> 'plan')
    when 'tollgate_put_upstream' then public.tollgate_put_upstream(caller, arguments -> 'upstream')
    when 'tollgate_create_host' then
      public.tollgate_create_host(caller, arguments -> 'host', arguments -> 'enrolment')
    when 'tollgate_create_deployment' then public.tollgate_create_deployment(caller, arguments -> 'deployment')
    when 'tollgate_create_silence' then public.tollgate_create_silence(caller, arguments -> 'silence')
    when 'tollgate_create_channel' then public.tollgate_create_channel(
      caller, arguments -> 'channel', arguments -> 'secret', arguments ->> 'scope'
    )
    when 'tollgate_create_key' then
      public.tollgate_create_key(caller, arguments ->> 'user_id', arguments -> 'key', arguments ->> 'scope')
  end;
end
$$;

comment on function tollgate.create_new(jsonb, text, jsonb) is
  'Calls the function that creates. Refuses: as that function.';


create function public.tollgate_create_once(caller jsonb, creation text, arguments jsonb, idempotency_key text)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, coalesce(arguments ->> 'scope', 'admin'), touch => false);
  acting constant text := tollgate.operator_of(actor);
  asked constant jsonb := arguments #- '{key,digest}' #- '{key,pepper}' #- '{key,prefix}' #- '{key,last_four}'
    #- '{enrolment}' #- '{channel,id}' #- '{secret}';
  earlier tollgate.creations;
  answer jsonb;
begin
  perform pg_advisory_xact_lock(hashtextextended('tollgate_creations ' || acting || ' ' || idempotency_key, 0));
  delete from tollgate.creations c where c.created_at < now() - interval '48 hours';

  select c.* into earlier from tollgate.creations c
  where c.operator = acting and c.idempotency_key = tollgate_create_once.idempotency_key;
  if found then
    if (earlier.creation, earlier.asked) <> (creation, asked) then
      perform tollgate.refuse(422, 'idempotency_key_reused');
    end if;
    return earlier.answer || jsonb_build_object('caller', tollgate.identity(actor), 'replayed', true);
  end if;

  answer := tollgate.create_new(caller, creation, arguments);
  insert into tollgate.creations (operator, idempotency_key, creation, asked, answer)
  values (acting, idempotency_key, creation, asked, answer - 'caller');
  return answer;
end
$$;

comment on function public.tollgate_create_once(jsonb, text, jsonb, text) is
  'Calls the function `creation` with its arguments, once for each idempotency key of the user: a repetition gets the first answer, with `replayed`. The answer is stored in the transaction that creates, so neither is there without the other. Refuses: as that function, idempotency_key_reused. Locks the idempotency key, then as that function.';

select tollgate.expose('public.tollgate_create_once(jsonb, text, jsonb, text)');

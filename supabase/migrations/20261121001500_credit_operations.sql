-- Why:  operators give credits, put balances right and give charges back, each once and within bounds; an org's
--       owner sees what moved, the plan, the limits and who they are.
-- What: credit_operations (what operators did over HTTP, by idempotency key), the functions that grant, adjust, refund,
--       list and sum up; and an owner's transfers, profile, plan and limits.
-- Care: additive, but for a small index on transfers, which blocks writes to it for as long as it is read once.
--       Lock order: operator (an advisory lock), org, key, transfer.

-- Without autosummarize what came since the last vacuum would be read whole for any time.
create index transfers_time on tollgate.transfers using brin (created_at) with (pages_per_range = 32, autosummarize);


create table tollgate.credit_operations (
  operator text not null check (length(operator) between 1 and 100),
  idempotency_key text not null check (length(idempotency_key) between 1 and 180),
  asked jsonb not null,
  position bigint not null unique, -- of its transfer, which is never deleted
  request_id text, -- whose charge was given back
  counted_nanos bigint not null check (counted_nanos >= 0),
  created_at timestamptz not null default clock_timestamp(),
  primary key (operator, idempotency_key)
);

create index credit_operations_request on tollgate.credit_operations (request_id) where request_id is not null;
create index credit_operations_cap on tollgate.credit_operations (operator, created_at);

comment on table tollgate.credit_operations is 'What operators did with credits over HTTP: one row for each transfer they made. Append-only.';
comment on column tollgate.credit_operations.operator is 'The user who acted, whichever of their keys they used: an idempotency key is theirs alone.';
comment on column tollgate.credit_operations.asked is 'What was asked for under the idempotency key, to tell a repetition from another request.';
comment on column tollgate.credit_operations.counted_nanos is 'What of it counts toward the operator''s cap of the day.';

alter table tollgate.credit_operations enable row level security;

create trigger credit_operations_append_only
before update or delete or truncate on tollgate.credit_operations
for each statement execute function tollgate.forbid_change();


create function tollgate.request_of(t tollgate.transfers) returns text
language sql
immutable
set search_path = ''
as $$
  select case t.kind
    when 'charge' then t.reference
    when 'refund' then regexp_replace(t.reference, '/[0-9]+$', '')
  end
$$;

comment on function tollgate.request_of(tollgate.transfers) is
  'The request that a charge or a refund is about. The n-th refund of a request has the reference <request id>/<n>, so that the ledger itself cannot hold two n-th ones.';


create function tollgate.shown_transfer(t tollgate.transfers) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', tollgate.transfer_id(t),
    'org_id', t.org_id,
    'kind', t.kind,
    'debit', t.debit,
    'credit', t.credit,
    'amount_nanos', t.amount_nanos,
    'change_nanos', case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end,
    'balance_after_nanos', t.balance_after_nanos,
    'request_id', tollgate.request_of(t),
    'reference', t.reference,
    'reason', t.reason,
    'created_at', tollgate.utc(t.created_at)
  )
$$;

comment on function tollgate.shown_transfer(tollgate.transfers) is
  'A transfer as operators see it. change_nanos is what it did to the org''s balance.';


create function tollgate.operator_of(actor tollgate.caller) returns text
language sql
immutable
set search_path = ''
as $$
  select coalesce(actor.user_id, actor.kind)
$$;

comment on function tollgate.operator_of(tollgate.caller) is
  'Under whose name an operation is kept: the user''s, or console.';


create function tollgate.earlier_operation(actor tollgate.caller, kind text, operation jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  acting text := tollgate.operator_of(actor);
  earlier tollgate.credit_operations;
  posted tollgate.transfers;
begin
  perform pg_advisory_xact_lock(hashtextextended('tollgate_credits ' || acting, 0));

  select o.* into earlier from tollgate.credit_operations o
  where o.operator = acting and o.idempotency_key = operation ->> 'idempotency_key';
  if not found then
    return null;
  end if;
  select t.* into posted from tollgate.transfers t where t.position = earlier.position;
  if posted.kind <> earlier_operation.kind or earlier.asked <> operation - 'idempotency_key' then
    perform tollgate.refuse(422, 'idempotency_key_reused',
      jsonb_build_object('transfer_id', tollgate.transfer_id(posted)));
  end if;
  return tollgate.shown_transfer(posted) || '{"created": false}';
end
$$;

comment on function tollgate.earlier_operation(tollgate.caller, text, jsonb) is
  'What was answered under the operation''s idempotency key, or null when it is new. Refuses: idempotency_key_reused. Locks the operator until the transaction ends, so that of their operations one follows the other: none is found new twice, and none passes the cap beside another.';


create function tollgate.check_cap(actor tollgate.caller, amount_nanos bigint, caps jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  today constant timestamptz := date_trunc('day', clock_timestamp() at time zone 'utc') at time zone 'utc';
  cap constant bigint := caps ->> 'grant_nanos';
  cap_per_day constant bigint := caps ->> 'day_nanos';
  granted_today numeric;
begin
  if actor.kind = 'console' then
    return;
  end if;
  select coalesce(sum(o.counted_nanos), 0) into granted_today from tollgate.credit_operations o
  where o.operator = tollgate.operator_of(actor) and o.created_at >= today;

  if (amount_nanos <= cap and granted_today + amount_nanos <= cap_per_day) is not true then
    perform tollgate.refuse(403, 'cap_exceeded', jsonb_build_object(
      'amount_nanos', amount_nanos,
      'cap_nanos', cap,
      'cap_per_day_nanos', cap_per_day,
      'granted_today_nanos', granted_today,
      'resets_at', tollgate.utc(today + interval '1 day')
    ));
  end if;
end
$$;

comment on function tollgate.check_cap(tollgate.caller, bigint, jsonb) is
  'Refuses, with cap_exceeded, what is above the cap of one grant or would be above the operator''s cap of the day in UTC. A cap that is missing lets nothing through. The console has none. Expects the operator to be locked.';


create function tollgate.check_amount(operation jsonb, smallest bigint) returns bigint
language plpgsql
set search_path = ''
as $$
declare
  amount constant numeric := operation ->> 'amount_nanos';
begin
  if (amount between smallest and 100000000000000000 and amount <> 0) is not true then
    perform tollgate.refuse(400, 'invalid_request',
      jsonb_build_object('param', 'amount_nanos', 'amount_nanos', amount));
  end if;
  return amount;
end
$$;

comment on function tollgate.check_amount(jsonb, bigint) is
  'The amount of an operation. Refuses, with invalid_request, none, zero, and what no transfer may move.';


create function tollgate.check_source(operation jsonb, sources text[]) returns text
language plpgsql
set search_path = ''
as $$
begin
  if (operation ->> 'source' = any (sources)) is not true then
    perform tollgate.refuse(400, 'invalid_request',
      jsonb_build_object('param', 'source', 'source', operation ->> 'source', 'sources', to_jsonb(sources)));
  end if;
  return operation ->> 'source';
end
$$;

comment on function tollgate.check_source(jsonb, text[]) is
  'The account on the other side of an operation. Refuses, with invalid_request, any but these.';


create function tollgate.lock_payer(operation jsonb) returns tollgate.orgs
language plpgsql
set search_path = ''
as $$
declare
  payer_id constant text := tollgate.org_of(operation);
  payer tollgate.orgs;
begin
  select o.* into payer from tollgate.orgs o where o.id = payer_id for no key update;
  if not found then
    perform tollgate.not_there('org', payer_id);
  end if;
  return payer;
end
$$;

comment on function tollgate.lock_payer(jsonb) is
  'The org that an operation names, or the org of the user that it names. Refuses: not_found. Locks the org.';


create function tollgate.post_operation(
  caller jsonb,
  actor tollgate.caller,
  operation jsonb,
  draft tollgate.transfers
) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  posted tollgate.transfers;
begin
  update tollgate.orgs o set
    balance_nanos = o.balance_nanos
      + case draft.credit when 'wallet' then draft.amount_nanos else -draft.amount_nanos end,
    updated_at = now()
  where o.id = draft.org_id
  returning o.balance_nanos into draft.balance_after_nanos;

  insert into tollgate.transfers (org_id, debit, credit, amount_nanos, kind, reference, reason, balance_after_nanos)
  values (
    draft.org_id, draft.debit, draft.credit, draft.amount_nanos, draft.kind,
    coalesce(draft.reference, tollgate.operator_of(actor) || ':' || (operation ->> 'idempotency_key')),
    operation ->> 'reason', draft.balance_after_nanos
  )
  returning * into posted;

  insert into tollgate.credit_operations (operator, idempotency_key, asked, position, request_id, counted_nanos)
  values (
    tollgate.operator_of(actor),
    operation ->> 'idempotency_key',
    operation - 'idempotency_key',
    posted.position,
    tollgate.request_of(posted),
    case when posted.credit = 'wallet' and posted.kind <> 'refund' then posted.amount_nanos else 0 end
  );
  perform tollgate.record(
    actor,
    case posted.kind
      when 'grant' then 'credits.granted'
      when 'refund' then 'credits.refunded'
      else 'credits.adjusted'
    end,
    posted.org_id,
    tollgate.transfer_id(posted),
    operation || jsonb_build_object('amount_nanos', posted.amount_nanos, 'debit', posted.debit, 'credit', posted.credit)
  );
  perform tollgate.touch(k, caller) from tollgate.api_keys k where k.id = actor.key_id;
  return tollgate.shown_transfer(posted) || '{"created": true}';
end
$$;

comment on function tollgate.post_operation(jsonb, tollgate.caller, jsonb, tollgate.transfers) is
  'Moves what the draft says, and notes the operation and its audit event. A draft without a reference gets one of the operator and the idempotency key, so no operator meets another''s, nor what the console chose. Expects the operator and the org to be locked. Touches the key.';


create function public.tollgate_grant_credits(caller jsonb, operation jsonb, caps jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  answer jsonb := tollgate.earlier_operation(actor, 'grant', operation);
  draft tollgate.transfers;
begin
  if answer is null then
    draft.kind := 'grant';
    draft.amount_nanos := tollgate.check_amount(operation, 1);
    draft.debit := tollgate.check_source(operation, array['funding', 'promotion']);
    draft.credit := 'wallet';
    draft.org_id := (tollgate.lock_payer(operation)).id;
    perform tollgate.check_cap(actor, draft.amount_nanos, caps);
    answer := tollgate.post_operation(caller, actor, operation, draft);
  end if;
  return answer || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_grant_credits(jsonb, jsonb, jsonb) is
  'Gives credits to an org, or to a user''s, once per idempotency key of the operator. `operation`: org_id or user_id, amount_nanos, source (funding, promotion), reason, idempotency_key. `caps`: grant_nanos, day_nanos. For admins. Refuses: as recognise(), invalid_request, not_found, idempotency_key_reused, cap_exceeded. Locks the operator, the org, the key.';


create function public.tollgate_adjust_credits(caller jsonb, operation jsonb, caps jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  answer jsonb := tollgate.earlier_operation(actor, 'adjustment', operation);
  change bigint;
  source text;
  payer tollgate.orgs;
  draft tollgate.transfers;
begin
  if answer is null then
    change := tollgate.check_amount(operation, -100000000000000000);
    source := tollgate.check_source(operation, array['funding', 'writeoff']);
    payer := tollgate.lock_payer(operation);
    if change > 0 then
      perform tollgate.check_cap(actor, change, caps);
    elsif payer.balance_nanos - payer.held_nanos + change < 0 then
      perform tollgate.refuse(409, 'conflict', jsonb_build_object(
        'param', 'amount_nanos',
        'amount_nanos', change,
        'balance_nanos', payer.balance_nanos,
        'held_nanos', payer.held_nanos,
        'available_nanos', payer.balance_nanos - payer.held_nanos
      ));
    end if;
    draft.kind := 'adjustment';
    draft.org_id := payer.id;
    draft.amount_nanos := abs(change);
    draft.debit := case when change > 0 then source else 'wallet' end;
    draft.credit := case when change > 0 then 'wallet' else source end;
    answer := tollgate.post_operation(caller, actor, operation, draft);
  end if;
  return answer || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_adjust_credits(jsonb, jsonb, jsonb) is
  'Puts an org''s balance right, up or down, once per idempotency key of the operator. Takes no more than is available: what requests hold is spoken for. `operation`: as for tollgate_grant_credits(), amount_nanos below zero to take, source funding or writeoff. What it gives counts toward the caps. For admins. Refuses: as recognise(), invalid_request, not_found, idempotency_key_reused, cap_exceeded, conflict. Locks the operator, the org, the key.';


create function tollgate.refuse_refund(request_id text) returns void
language plpgsql
set search_path = ''
as $$
declare
  request tollgate.requests;
begin
  select r.* into request from tollgate.requests r where r.id = refuse_refund.request_id;
  if not found then
    perform tollgate.not_there('request', request_id);
  end if;
  perform tollgate.refuse(409, 'conflict', jsonb_build_object(
    'param', 'request_id',
    'request_id', request_id,
    'state', request.state,
    'charge_nanos', coalesce(request.charge_nanos, 0),
    'refundable_nanos', 0
  ));
end
$$;

comment on function tollgate.refuse_refund(text) is
  'Refuses to refund a request that has no charge: not_found, or conflict with its state.';


create function public.tollgate_refund_charge(caller jsonb, operation jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  answer jsonb := tollgate.earlier_operation(actor, 'refund', operation);
  charge tollgate.transfers;
  refunds bigint;
  refunded bigint;
  draft tollgate.transfers;
begin
  if answer is null then
    select t.* into charge from tollgate.transfers t
    where t.kind = 'charge' and t.reference = operation ->> 'request_id';
    if not found then
      perform tollgate.refuse_refund(operation ->> 'request_id');
    end if;
    draft.org_id := (tollgate.lock_payer(jsonb_build_object('org_id', charge.org_id))).id;

    -- Read under the org's lock, which every refund of the charge takes.
    select count(*), coalesce(sum(t.amount_nanos), 0) into refunds, refunded
    from tollgate.credit_operations o
    join tollgate.transfers t on t.position = o.position
    where o.request_id = charge.reference;
    draft.amount_nanos := case
      when operation ->> 'amount_nanos' is not null then tollgate.check_amount(operation, 1)
      else nullif(charge.amount_nanos - refunded, 0)
    end;
    if (draft.amount_nanos <= charge.amount_nanos - refunded) is not true then
      perform tollgate.refuse(409, 'conflict', jsonb_build_object(
        'param', 'amount_nanos',
        'request_id', charge.reference,
        'charge_nanos', charge.amount_nanos,
        'refunded_nanos', refunded,
        'refundable_nanos', charge.amount_nanos - refunded
      ));
    end if;
    draft.kind := 'refund';
    draft.debit := 'revenue';
    draft.credit := 'wallet';
    draft.reference := charge.reference || '/' || refunds + 1;
    answer := tollgate.post_operation(caller, actor, operation, draft);
  end if;
  return answer || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_refund_charge(jsonb, jsonb) is
  'Gives a request''s charge back, in part or what is left of it, once per idempotency key of the operator; all refunds of a charge together never exceed it. `operation`: request_id, amount_nanos or null for what is left, reason, idempotency_key. For admins. Refuses: as recognise(), invalid_request, not_found, idempotency_key_reused, conflict. Locks the operator, the org, the key.';


create function tollgate.transfer_page(filters jsonb, page_size integer) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  most_counted constant integer := 10000;
  condition constant text := concat_ws(' and ', 'true',
    case when filters ->> 'org_id' is not null then 't.org_id = $1 ->> ''org_id''' end,
    case when filters ->> 'kind' is not null then 't.kind = $1 ->> ''kind''' end,
    case when filters ->> 'debit' is not null then 't.debit = $1 ->> ''debit''' end,
    case when filters ->> 'credit' is not null then 't.credit = $1 ->> ''credit''' end,
    case when filters ->> 'from' is not null then 't.created_at >= ($1 ->> ''from'')::timestamptz' end,
    case when filters ->> 'to' is not null then 't.created_at < ($1 ->> ''to'')::timestamptz' end,
    case when filters ->> 'min_nanos' is not null then 't.amount_nanos >= ($1 ->> ''min_nanos'')::bigint' end,
    case when filters ->> 'max_nanos' is not null then 't.amount_nanos <= ($1 ->> ''max_nanos'')::bigint' end
  );
  rising constant boolean := coalesce(filters ->> 'sort' = 'created_at:asc', false);
  beyond bigint := case when rising then 0 else 9223372036854775807 end;
  -- Times that are past lie together, far from where reading by position begins: then they are sought out first.
  first constant text := case
    when filters ->> 'org_id' is null and (filters ->> 'to')::timestamptz < clock_timestamp() then 'materialized'
    else 'not materialized'
  end;
  counted bigint;
  page jsonb;
begin
  if filters ->> 'cursor' is not null then
    select t.position into beyond from tollgate.transfers t
    where t.position = substring(filters ->> 'cursor' from '^trf_([0-9]{1,18})$')::bigint
      and (filters ->> 'org_id' is null or t.org_id = filters ->> 'org_id');
    if not found then
      perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'cursor'));
    end if;
  end if;

  -- Planned each time for the filters there are: one plan for all of them would read the whole ledger for one org.
  execute format(
    'with found as %4$s (select t.position from tollgate.transfers t where %1$s and t.position %3$s $2)
     select coalesce(jsonb_agg(tollgate.shown_transfer(t) order by t.position %2$s), ''[]'')
     from tollgate.transfers t
     where t.position in (select f.position from found f order by f.position %2$s limit $3)',
    condition, case when rising then 'asc' else 'desc' end, case when rising then '>' else '<' end, first)
  into page using filters, beyond, page_size + 1;
  execute format(
    'with found as %2$s (select t.position from tollgate.transfers t where %1$s)
     select count(*) from (select from found limit $2) f', condition, first)
  into counted using filters, most_counted + 1;

  return jsonb_build_object(
    'data', page - page_size,
    'next_cursor', case when jsonb_array_length(page) > page_size then page -> (page_size - 1) -> 'id' end,
    'total', case when counted <= most_counted then counted end
  );
end
$$;

comment on function tollgate.transfer_page(jsonb, integer) is
  'A page of the ledger, in the order of its making: newest first, or with the sort created_at:asc oldest first. `filters`: org_id, kind, debit, credit, from, to, min_nanos, max_nanos, cursor (the id of the last one of the page before). Counts up to 10,000; more is null. Refuses, with invalid_request, a cursor that is none of the org''s.';


create function public.tollgate_transfers(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return tollgate.transfer_page(filters, page_size) || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_transfers(jsonb, jsonb, integer) is
  'The ledger by pages; filters and sort as for transfer_page(). For admins. Refuses: as recognise(), invalid_request. Locks nothing.';


create function public.tollgate_own_transfers(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'usage');
begin
  return tollgate.transfer_page(filters || jsonb_build_object('org_id', actor.org_id), page_size)
    || jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_own_transfers(jsonb, jsonb, integer) is
  'The transfers of the caller''s org and of no other, by pages; filters and sort as for transfer_page(). Refuses: as recognise(), invalid_request. Locks nothing.';


create function tollgate.profile_of(actor tollgate.caller) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'caller', tollgate.identity(actor),
    'user_id', u.id,
    'name', u.name,
    'email', u.email,
    'role', u.role,
    'status', u.status,
    'org_id', o.id,
    'org_name', o.name,
    'plan', o.plan_id,
    'prefix', k.prefix,
    'last_four', k.last_four,
    'environment', k.environment,
    'scopes', k.scopes,
    'created_at', tollgate.utc(u.created_at),
    'updated_at', tollgate.utc(u.updated_at)
  )
  from tollgate.api_keys k
  join tollgate.users u on u.id = k.user_id
  join tollgate.orgs o on o.id = k.org_id
  where k.id = actor.key_id
$$;

comment on function tollgate.profile_of(tollgate.caller) is 'Who the user behind a key is, and which key it is.';


create function public.tollgate_own_profile(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
begin
  return tollgate.profile_of(tollgate.recognise(caller));
end
$$;

comment on function public.tollgate_own_profile(jsonb) is
  'Who the caller is. Refuses: as recognise(). Locks nothing.';


create function public.tollgate_change_own_profile(caller jsonb, changes jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'keys', touch => false);
  was tollgate.users;
  person tollgate.users;
  details jsonb;
begin
  select u.* into was from tollgate.users u where u.id = actor.user_id for no key update;
  person := was;
  person.name := coalesce(changes ->> 'name', was.name);
  person.email := coalesce(changes ->> 'email', was.email);
  details := tollgate.what_changed(to_jsonb(was), to_jsonb(person));
  if details <> '{}' then
    begin
      update tollgate.users u set name = person.name, email = person.email, updated_at = now() where u.id = was.id;
    exception when unique_violation then
      perform tollgate.address_taken(person.email);
    end;
    perform tollgate.record(actor, 'user.updated', was.org_id, was.id, details);
  end if;
  perform tollgate.touch(k, caller) from tollgate.api_keys k where k.id = actor.key_id;
  return tollgate.profile_of(actor);
end
$$;

comment on function public.tollgate_change_own_profile(jsonb, jsonb) is
  'Changes the name and the email of the caller, and nothing else of them whatever `changes` holds. Needs the scope keys: a key that only calls models cannot rename its owner. What is so already changes nothing and records nothing. Refuses: as recognise(), conflict. Locks the user, the key.';


create function public.tollgate_own_plan(caller jsonb, markup_ppm integer) returns jsonb
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
      'id', p.id,
      'name', p.name,
      'description', p.description,
      'org_id', o.id,
      'markup_ppm', coalesce(o.markup_ppm, p.markup_ppm, tollgate_own_plan.markup_ppm),
      'own_limits', o.limits is distinct from null,
      'limits', to_jsonb(tollgate.limits_of(o))
    )
    from tollgate.orgs o
    join tollgate.plans p on p.id = o.plan_id
    where o.id = actor.org_id
  );
end
$$;

comment on function public.tollgate_own_plan(jsonb, integer) is
  'The plan of the caller''s org, with the limits and the markup that its requests meet. `markup_ppm` is what the settings say where neither org nor plan do. Refuses: as recognise(). Locks nothing.';


create function tollgate.windows(counters bigint[], limits tollgate.limits, at_ms bigint) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'requests', jsonb_object_agg(w.name, w.shown) filter (where w.measure = 'requests'),
    'tokens', jsonb_object_agg(w.name, w.shown) filter (where w.measure = 'tokens')
  )
  from (
    select l.measure, l.name, jsonb_build_object(
      'limit', l.most,
      'used', c.used,
      'remaining', case when l.most is not null then greatest(0, l.most - c.used) end,
      'resets_at', tollgate.utc(to_timestamp((at_ms - at_ms % l.span + l.span * case
        when rolled[l.counter] > 0 then 2
        when rolled[l.counter + 2] > 0 then 1
      end) / 1000.0))
    ) as shown
    from tollgate.roll(counters, at_ms) rolled,
    lateral (values
      ('requests', 'minute', 60000, limits.requests_per_minute, 2),
      ('requests', 'hour', 3600000, limits.requests_per_hour, 7),
      ('requests', 'day', 86400000, limits.requests_per_day, 12),
      ('tokens', 'minute', 60000, limits.tokens_per_minute, 3),
      ('tokens', 'hour', 3600000, limits.tokens_per_hour, 8),
      ('tokens', 'day', 86400000, limits.tokens_per_day, 13)
    ) l (measure, name, span, most, counter),
    lateral (
      select rolled[l.counter] + (rolled[l.counter + 2] * (l.span - at_ms % l.span) + l.span - 1) / l.span as used
    ) c
  ) w
$$;

comment on function tollgate.windows(bigint[], tollgate.limits, bigint) is
  'The six windows one by one, counted as room() counts them: what is used, what remains of the limit (null without one), and when nothing of it will be left in the window if nothing more comes (null when nothing is).';


create function public.tollgate_own_limits(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller);
  moment constant timestamptz := clock_timestamp();
begin
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'at', tollgate.utc(moment),
      'org', tollgate.windows(o.counters, tollgate.limits_of(o), tollgate.ms_of(moment)),
      'key', case when k.counted then tollgate.windows(k.counters, k.limits, tollgate.ms_of(moment)) end
    )
    from tollgate.api_keys k
    join tollgate.orgs o on o.id = k.org_id
    where k.id = actor.key_id
  );
end
$$;

comment on function public.tollgate_own_limits(jsonb) is
  'The windows of the caller''s org, and of the key where it has limits, a budget or a quota of its own; requests of any other are counted for the org alone. Refuses: as recognise(). Locks nothing.';


select tollgate.expose('public.tollgate_grant_credits(jsonb, jsonb, jsonb)');
select tollgate.expose('public.tollgate_adjust_credits(jsonb, jsonb, jsonb)');
select tollgate.expose('public.tollgate_refund_charge(jsonb, jsonb)');
select tollgate.expose('public.tollgate_transfers(jsonb, jsonb, integer)');
select tollgate.expose('public.tollgate_own_transfers(jsonb, jsonb, integer)');
select tollgate.expose('public.tollgate_own_profile(jsonb)');
select tollgate.expose('public.tollgate_change_own_profile(jsonb, jsonb)');
select tollgate.expose('public.tollgate_own_plan(jsonb, integer)');
select tollgate.expose('public.tollgate_own_limits(jsonb)');


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121001500'
$$;

revoke execute on all functions in schema tollgate from public;

-- All that is stored of one request.

create function tollgate.hold_shown(r tollgate.requests) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'amount_nanos', r.hold_nanos,
    'is_open', r.settled_at is null,
    'output_bound', r.output_bound,
    'reserved_tokens', r.reserved_tokens,
    'expires_at', tollgate.utc(r.expires_at),
    'next_look_at', (select tollgate.utc(h.next_sweep_at) from tollgate.holds h where h.request_id = r.id),
    'looks', (select h.sweeps from tollgate.holds h where h.request_id = r.id),
    'fixed_cost', r.price -> 'fixed_nanos',
    'output_token_cost', r.price -> 'output_nanos'
  )
$$;

comment on function tollgate.hold_shown(tollgate.requests) is
  'The hold of a request: how much, how its worst case was computed, and when the sweeper looks for the cost of one that is open.';


create function tollgate.transfers_of(request_id text) returns setof tollgate.transfers
language sql
stable
rows 3
set search_path = ''
as $$
  select t.* from tollgate.transfers t
  where t.kind = 'charge' and t.reference = any (array[request_id, request_id || ':late'])
  union all
  select t.* from tollgate.transfers t where t.kind = 'refund' and t.reference = request_id || ':late'
  union all
  select t.* from tollgate.credit_operations o
  join tollgate.transfers t on t.position = o.position
  where o.request_id = transfers_of.request_id
$$;

comment on function tollgate.transfers_of(text) is
  'The transfers of a request: its charge, the correction of a late settlement, and refunds by operators.';


create function tollgate.settlement_shown(r tollgate.requests) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'settled_at', tollgate.utc(r.settled_at),
    'basis', r.basis,
    'charge_nanos', r.charge_nanos,
    'cost_nanos', r.cost_nanos,
    'margin_nanos', r.charge_nanos - r.cost_nanos,
    'refunded_nanos', f.refunded,
    'refundable_nanos', greatest(coalesce(r.charge_nanos, 0) - f.refunded, 0),
    'markup_ppm', r.markup_ppm,
    'price', coalesce(r.charged_price, r.price - array['fixed_nanos', 'output_nanos', 'byok_fee_nanos'], '{}'),
    'usage', r.usage
  )
  from (
    select coalesce(sum(t.amount_nanos), 0) as refunded
    from tollgate.credit_operations o
    join tollgate.transfers t on t.position = o.position
    where o.request_id = r.id
  ) f
$$;

comment on function tollgate.settlement_shown(tollgate.requests) is
  'How a request was charged, as operators see it: units, prices, markup, charge, cost and refunds.';


create function tollgate.idempotency_shown(r tollgate.requests) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'key', r.idempotency_key,
    'answer', case
      when a.request_id is null then 'gone'
      when a.answer is null then 'running'
      when (a.answer -> 'kept')::boolean is false then 'not_kept'
      else 'kept'
    end,
    'kept_until', tollgate.utc(a.created_at + interval '24 hours'),
    'replays', coalesce(a.replays, 0),
    'replayed_at', tollgate.utc(a.replayed_at)
  )
  from (select) one
  left join tollgate.answers a on a.request_id = r.id
  where r.idempotency_key is not null
$$;

comment on function tollgate.idempotency_shown(tollgate.requests) is
  'The idempotency key of a request, and how often its answer was replayed; null without a key.';


create function public.tollgate_request(caller jsonb, id text, everyone boolean, content boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, case when everyone then 'admin' else 'usage' end);
  found_request tollgate.requests;
  kept jsonb;
begin
  select r.* into found_request from tollgate.requests r
  where r.id = tollgate_request.id and (everyone or r.org_id = actor.org_id);
  if not found then
    perform tollgate.refuse_missing('request', id);
  end if;
  if content and everyone then
    select jsonb_build_object('prompt', c.prompt, 'answer', c.answer) into kept
    from tollgate.contents c where c.request_id = found_request.id;
    if found then
      perform tollgate.record(
        actor, 'content.read', found_request.org_id, found_request.org_id,
        jsonb_build_object('request_ids', jsonb_build_array(found_request.id))
      );
    end if;
  end if;
  return tollgate.request_shown(found_request) || jsonb_build_object(
    'caller', tollgate.identity(actor),
    'user_email', (select u.email from tollgate.users u where u.id = found_request.user_id),
    'key_name', (select k.name from tollgate.api_keys k where k.id = found_request.key_id),
    'hold', tollgate.hold_shown(found_request),
    'attempts', found_request.attempts,
    'settlement', tollgate.settlement_shown(found_request),
    'idempotency', tollgate.idempotency_shown(found_request),
    'transfers', (
      select coalesce(jsonb_agg(tollgate.transfer_shown(t) order by t.position), '[]')
      from tollgate.transfers_of(found_request.id) t
    ),
    'events', (
      select coalesce(jsonb_agg(tollgate.audit_event_shown(e) order by e.occurred_at, e.id), '[]')
      from tollgate.audit_events e where e.target_id = found_request.id
    ),
    'content', kept
  );
end
$$;

comment on function public.tollgate_request(jsonb, text, boolean, boolean) is
  'All that is stored of one request: its row, hold, attempts, settlement, transfers, idempotency key and audit events: of everyone''s for admins, or one of the caller''s org. The server leaves out our cost for the latter. `content`, for admins: its prompt and answer too, where they were stored; that is recorded as content.read. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_request(jsonb, text, boolean, boolean)');

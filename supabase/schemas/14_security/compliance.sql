-- The compliance report.

create function tollgate.report_on_books(wanted boolean) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  rows bigint := (
    select sum(greatest(c.reltuples, 0)) from pg_catalog.pg_class c
    where c.oid in ('tollgate.requests'::regclass, 'tollgate.transfers'::regclass)
  );
  books jsonb;
begin
  if not coalesce(wanted, rows <= 200000) then
    return jsonb_build_object('audited', false, 'agree', null, 'faults', '[]'::jsonb, 'fault_count', null, 'reason', case
      when wanted is null then format('The books have about %s rows, too many to read in one call. Run `python -m tollgate audit`.', rows)
      else 'The audit was left out.'
    end);
  end if;
  books := public.tollgate_audit_books();
  return jsonb_build_object(
    'audited', true,
    'agree', books -> 'faults' = '[]',
    'fault_count', books -> 'fault_count',
    'faults', jsonb_path_query_array(books, '$.faults[0 to 99]'),
    'orgs', books -> 'orgs',
    'transfers', books -> 'transfers',
    'requests', books -> 'requests',
    'open_holds', books -> 'open_holds',
    'reason', null
  );
end
$$;

comment on function tollgate.report_on_books(boolean) is
  'The audit of the books at this moment, with the first hundred faults. Large books, which may take longer than a call, are audited only when asked for; otherwise the answer says that they were not.';


create function public.tollgate_audit(caller jsonb, wanted boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  books jsonb := tollgate.report_on_books(wanted);
begin
  if (books -> 'audited')::boolean then
    perform tollgate.record(
      actor, 'books.audited', null, 'books',
      jsonb_build_object('agree', books -> 'agree', 'fault_count', books -> 'fault_count')
    );
  end if;
  return books || jsonb_build_object('caller', tollgate.identity(actor), 'at', tollgate.utc(clock_timestamp()));
end
$$;

comment on function public.tollgate_audit(jsonb, boolean) is
  'Audits the books and records that it did: an audit event books.audited with the number of faults. Large books are audited only when `wanted` is true. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_audit(jsonb, boolean)');


create function tollgate.faults_of_last_audit() returns bigint
language sql
stable
set search_path = ''
as $$
  select (e.details -> 'fault_count')::bigint from tollgate.audit_events e
  where e.target_id = 'books' and e.action = 'books.audited'
  order by e.occurred_at desc, e.id desc
  limit 1
$$;

comment on function tollgate.faults_of_last_audit() is 'How many faults the last audit of the books found; null without one.';


create function tollgate.report_on_access(since timestamptz, until timestamptz) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    with used as (
      select u.* from tollgate.usage_by('{key}', since, until, '{}') u where u.requests > 0
    )
    select jsonb_build_object(
      'keys', count(*),
      'requests', coalesce(sum(u.requests), 0),
      'used', coalesce((
        select jsonb_agg(jsonb_build_object(
          'key_id', b.key_id,
          'masked_key', k.prefix || '…' || k.last_four,
          'name', k.name,
          'org_id', k.org_id,
          'user_id', k.user_id,
          'requests', b.requests,
          'charge_nanos', b.charge_nanos,
          'last_request_at', tollgate.utc(b.last_at),
          'last_used_at', tollgate.utc(k.last_used_at)
        ) order by b.requests desc, b.key_id)
        from (select * from used b order by b.requests desc, b.key_id limit 1000) b
        left join tollgate.api_keys k on k.id = b.key_id
      ), '[]')
    )
    from used u
  );
end
$$;

comment on function tollgate.report_on_access(timestamptz, timestamptz) is
  'Which keys made paid requests in a span of time: the 1,000 busiest.';


create function tollgate.report_on_keys(since timestamptz, until timestamptz) returns jsonb
language sql
stable
set search_path = ''
as $$
  with usable as (
    select k.*, k.last_used_at is null as never_used
    from tollgate.api_keys k
    where k.revoked_at is null and k.disabled_at is null and (k.expires_at is null or k.expires_at > now())
  ),
  unused as (
    select u.* from usable u where u.never_used or u.last_used_at < now() - interval '90 days'
  )
  select (
    select jsonb_build_object(
      'issued', count(*) filter (where a.action = 'key.created'),
      'rotated', count(*) filter (where a.action = 'key.rotated'),
      'disabled', count(*) filter (where a.action = 'key.disabled'),
      'revoked', count(*) filter (where a.action = 'key.revoked')
    )
    from tollgate.audit_events a
    where a.occurred_at >= since and a.occurred_at < until and a.outcome = 'success' and a.action like 'key.%'
  ) || jsonb_build_object(
    'usable', (select count(*) from usable),
    'never_used', (select count(*) from unused u where u.never_used),
    'unused_90_days', (select count(*) from unused u where not u.never_used),
    'unused', coalesce((
      select jsonb_agg(jsonb_build_object(
        'key_id', u.id,
        'masked_key', u.prefix || '…' || u.last_four,
        'name', u.name,
        'org_id', u.org_id,
        'user_id', u.user_id,
        'created_at', tollgate.utc(u.created_at),
        'last_used_at', tollgate.utc(u.last_used_at)
      ) order by u.created_at, u.id)
      from (select * from unused u order by u.created_at, u.id limit 1000) u
    ), '[]')
  )
$$;

comment on function tollgate.report_on_keys(timestamptz, timestamptz) is
  'How many keys were issued, rotated, disabled and revoked in a span of time, and which working keys are unused: the 1,000 oldest of them.';


create function tollgate.report_on_money(since timestamptz, until timestamptz) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  used record;
  moved record;
begin
  select u.charge_nanos, u.cost_nanos into used from tollgate.usage_by('{}', since, until, '{}') u;
  select
    coalesce(sum(s.nanos) filter (where s.account = 'funding'), 0) as funded,
    coalesce(sum(s.nanos) filter (where s.account = 'promotion'), 0) as promoted,
    coalesce(sum(s.nanos) filter (where s.account = 'revenue'), 0) as refunded,
    coalesce(sum(s.nanos) filter (where s.account = 'writeoff'), 0) as written_off
  into moved
  from (
    select
      case t.credit when 'wallet' then t.debit else t.credit end as account,
      case t.credit when 'wallet' then t.amount_nanos else -t.amount_nanos end as nanos
    from tollgate.transfers t
    where t.created_at >= since and t.created_at < until and t.kind <> 'charge'
      and not (t.kind = 'refund' and t.reference like '%:late') -- counted in the charge of its request
  ) s;
  return jsonb_build_object(
    'in_nanos', moved.funded,
    'promotions_nanos', moved.promoted,
    'written_off_nanos', moved.written_off,
    'charged_nanos', coalesce(used.charge_nanos, 0),
    'refunded_nanos', moved.refunded,
    'out_nanos', coalesce(used.cost_nanos, 0),
    'margin_nanos', coalesce(used.charge_nanos, 0) - moved.refunded - coalesce(used.cost_nanos, 0)
  );
end
$$;

comment on function tollgate.report_on_money(timestamptz, timestamptz) is
  'Money in (funding, less what was taken back), money out (the cost of upstreams) and the margin: charges less refunds and cost. A charge counts at the time of its request, with the correction of a late settlement; other transfers count at their own time.';


create function tollgate.report_on_people(since timestamptz, until timestamptz) returns jsonb
language sql
stable
set search_path = ''
as $$
  with done as (
    select case a.actor_kind when 'session' then 'key' else a.actor_kind end as actor_kind,
      coalesce(a.actor_user_id, a.actor_name, a.actor_key_id) as actor_id, a.action, a.outcome, count(*) as times
    from tollgate.audit_events a
    where a.occurred_at >= since and a.occurred_at < until
    group by 1, 2, 3, 4
  ),
  actors as (
    select
      d.actor_kind, d.actor_id,
      sum(d.times) as times,
      coalesce(sum(d.times) filter (where d.outcome = 'refused'), 0) as refused,
      jsonb_object_agg(d.action, d.times) filter (where d.outcome = 'success') as actions
    from done d
    group by 1, 2
  ),
  people as (
    select
      coalesce(d.actor_kind, 'key') as kind, coalesce(d.actor_id, u.id) as id, u.email, u.role, u.status, u.org_id,
      coalesce(d.actions, '{}') as actions, coalesce(d.refused, 0) as refused, coalesce(d.times, 0) as times
    from actors d
    full join (select u.* from tollgate.users u) u on u.id = d.actor_id and d.actor_kind = 'key'
    where d.actor_id is not null or u.role = 'admin'
  )
  select jsonb_build_object(
    'admins', (select count(*) from tollgate.users u where u.role = 'admin' and u.status = 'active'),
    'actors', (select count(*) from people),
    'done', coalesce((
      select jsonb_agg(jsonb_build_object(
        'kind', case p.kind when 'key' then 'user' else p.kind end,
        'id', p.id,
        'email', p.email,
        'role', p.role,
        'status', p.status,
        'org_id', p.org_id,
        'actions', p.actions,
        'refused', p.refused
      ) order by p.role = 'admin' desc nulls last, p.times desc, p.id)
      from (select * from people p order by p.role = 'admin' desc nulls last, p.times desc, p.id limit 1000) p
    ), '[]')
  )
$$;

comment on function tollgate.report_on_people(timestamptz, timestamptz) is
  'Who changed what how often: all admins, then others who acted; the 1,000 busiest.';


create function public.tollgate_compliance_report(caller jsonb, since text, until text, books boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  beginning constant timestamptz := since;
  ending constant timestamptz := until;
begin
  if ending <= beginning or ending > beginning + interval '366 days' then
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'to', 'most_days', 366));
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'from', tollgate.utc(beginning),
    'to', tollgate.utc(ending),
    'made_at', tollgate.utc(now()),
    'keys', tollgate.report_on_keys(beginning, ending),
    'people', tollgate.report_on_people(beginning, ending),
    'access', tollgate.report_on_access(beginning, ending),
    'money', tollgate.report_on_money(beginning, ending),
    'books', tollgate.report_on_books(books)
  );
end
$$;

comment on function public.tollgate_compliance_report(jsonb, text, text, boolean) is
  'The report of a span of time of at most 366 days: keys, people, access, money, and the books at this moment. For admins. Refuses: as recognise(), invalid_request. Locks nothing.';

select tollgate.expose('public.tollgate_compliance_report(jsonb, text, text, boolean)');

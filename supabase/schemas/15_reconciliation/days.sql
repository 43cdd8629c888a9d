-- Days: which one is due, its outcome, and what operators see of it.

create function public.tollgate_lease_reconciliation(as_of text, lease_seconds integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  moment constant timestamptz := as_of;
  -- OpenRouter states a day only when it is over; it has six hours for that.
  newest constant date := (moment - interval '6 hours') at time zone 'UTC';
  leased date;
begin
  insert into tollgate.reconciliations (day)
  select newest - n from generate_series(1, 3) n
  where exists (select from tollgate.orgs o where o.created_at < (newest - n)::timestamp at time zone 'UTC')
  on conflict do nothing;
  update tollgate.reconciliations r set leased_until = moment + make_interval(secs => lease_seconds)
  where r.day = (
    select d.day from tollgate.reconciliations d
    where d.day between newest - 3 and newest - 1
      and (d.leased_until is null or d.leased_until <= moment)
      and (d.reconciled_at is null or d.reconciled_at <= moment - interval '23 hours')
      and (d.failed_at is null or d.failed_at <= moment - interval '1 hour')
    order by d.day desc
    limit 1
    for update skip locked
  )
  returning r.day into leased;
  return jsonb_build_object('day', leased);
end
$$;

comment on function public.tollgate_lease_reconciliation(text, integer) is
  'Leases one day to one server: of the last three that are over since six hours, the newest that was not reconciled within 23 hours, nor tried within one. So each is reconciled three times, and what is settled or corrected later is seen. Days before the first org are left out. Answers {"day": null} when none is due. Refuses nothing. Locks the row of the day, and skips locked ones.';

select tollgate.expose('public.tollgate_lease_reconciliation(text, integer)');


create function public.tollgate_ask_for_reconciliation(caller jsonb, day text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  perform tollgate.record(actor, 'reconciliation.run', null, day, '{}');
  return jsonb_build_object('caller', tollgate.identity(actor));
end
$$;

comment on function public.tollgate_ask_for_reconciliation(jsonb, text) is
  'Records that an operator has a day reconciled. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_ask_for_reconciliation(jsonb, text)');


create function public.tollgate_keep_reconciliation(day text, outcome jsonb, as_of text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  kept tollgate.reconciliations;
begin
  insert into tollgate.reconciliations as r (day) values (tollgate_keep_reconciliation.day::date)
  on conflict on constraint reconciliations_pkey do update set leased_until = null
  returning r.* into kept;
  if outcome ? 'failure' then
    update tollgate.reconciliations r set failed_at = as_of::timestamptz, failure = outcome ->> 'failure' where r.day = kept.day;
    return '{"kept": true}';
  end if;
  kept := jsonb_populate_record(kept, outcome - 'models');
  update tollgate.reconciliations r set
    reconciled_at = as_of::timestamptz, failed_at = null, failure = null, verdict = kept.verdict, tolerance_ppm = kept.tolerance_ppm,
    our_requests = kept.our_requests, their_requests = kept.their_requests,
    our_cost_nanos = kept.our_cost_nanos, their_cost_nanos = kept.their_cost_nanos
  where r.day = kept.day;
  delete from tollgate.reconciled_models m where m.day = kept.day;
  insert into tollgate.reconciled_models
  select (jsonb_populate_record(null::tollgate.reconciled_models, m.value || jsonb_build_object('day', kept.day))).*
  from jsonb_array_elements(outcome -> 'models') m;
  return '{"kept": true}';
end
$$;

comment on function public.tollgate_keep_reconciliation(text, jsonb, text) is
  'Keeps the outcome of a day in place of the one before: verdict, totals and `models`; or, as {"failure": …}, why there is none, which leaves the one before. Ends the lease. Refuses nothing. Locks the row of the day.';

select tollgate.expose('public.tollgate_keep_reconciliation(text, jsonb, text)');


create function tollgate.difference_ppm(r tollgate.reconciliations) returns bigint
language sql
immutable
set search_path = ''
as $$
  select case when r.our_cost_nanos = r.their_cost_nanos then 0
    else ceil(abs(r.their_cost_nanos - r.our_cost_nanos) * 1000000::numeric / greatest(r.their_cost_nanos, r.our_cost_nanos))
  end::bigint
$$;

comment on function tollgate.difference_ppm(tollgate.reconciliations) is
  'How far the totals of a day are apart, in millionths of the larger one; null before it is reconciled.';


create function tollgate.reconciliation_shown(r tollgate.reconciliations) returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(r) - array['leased_until', 'reconciled_at', 'failed_at'] || jsonb_build_object(
    'id', r.day,
    'difference_nanos', r.their_cost_nanos - r.our_cost_nanos,
    'difference_ppm', case when r.verdict is not null then tollgate.difference_ppm(r) end,
    'reconciled_at', tollgate.utc(r.reconciled_at),
    'failed_at', tollgate.utc(r.failed_at)
  )
$$;

comment on function tollgate.reconciliation_shown(tollgate.reconciliations) is 'A day as operators see it.';


create function public.tollgate_reconciliations(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.reconciliations',
    'tollgate.reconciliation_shown',
    $where$
      ($1 ->> 'verdict' is null or e.verdict = $1 ->> 'verdict')
    $where$,
    '{"day": "e.day"}',
    coalesce(filters ->> 'sort', 'day:desc'),
    filters,
    page_size,
    id => 'e.day::text'
  );
end
$$;

comment on function public.tollgate_reconciliations(jsonb, jsonb, integer) is
  'Days that were reconciled, or should have been. `filters`: verdict, sort (day), cursor, offset. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_reconciliations(jsonb, jsonb, integer)');


create function public.tollgate_reconciliation(caller jsonb, day text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_day tollgate.reconciliations;
begin
  select r.* into found_day from tollgate.reconciliations r where r.day = tollgate_reconciliation.day::date;
  if not found then
    perform tollgate.refuse_missing('reconciliation', tollgate_reconciliation.day);
  end if;
  return tollgate.reconciliation_shown(found_day) || jsonb_build_object(
    'caller', tollgate.identity(actor),
    'models', (
      select coalesce(jsonb_agg(to_jsonb(m) - 'day' || jsonb_build_object(
        'difference_nanos', m.their_cost_nanos - m.our_cost_nanos
      ) order by abs(m.their_cost_nanos - m.our_cost_nanos) desc, m.model), '[]')
      from tollgate.reconciled_models m where m.day = found_day.day
    )
  );
end
$$;

comment on function public.tollgate_reconciliation(jsonb, text) is
  'One day with its models, the largest difference first. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_reconciliation(jsonb, text)');


create function tollgate.reconciliation_readings(as_of timestamptz) returns table (signal text, subject text, value numeric)
language sql
stable
set search_path = ''
as $$
  select 'reconciliation_difference_ppm', r.day::text,
    case when r.verdict = 'agrees' then 0 else tollgate.difference_ppm(r) end::numeric
  from tollgate.reconciliations r
  where r.verdict is not null and r.reconciled_at <= as_of
  order by r.day desc
  limit 3
$$;

comment on function tollgate.reconciliation_readings(timestamptz) is
  'Readings for alerts: how far the totals of the last three days that were reconciled are apart; 0 within the tolerance.';

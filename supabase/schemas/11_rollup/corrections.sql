-- Corrects tallies of requests that changed after they were rolled up.

create function tollgate.tally_correction(was tollgate.requests, now_is tollgate.requests) returns void
language plpgsql
set search_path = ''
as $$
declare
  until timestamptz;
begin
  select r.rolled_until into until from tollgate.rolled r for share; -- waits for a step of rolling up
  if was.created_at >= until
    or exists (select from tollgate.late_requests l where l.request_id = was.id)
  then
    return; -- not counted yet
  end if;
  update tollgate.tallies t set
    estimated = t.estimated - was.estimated::integer + now_is.estimated::integer,
    prompt_tokens = t.prompt_tokens - coalesce(was.prompt_tokens, 0) + coalesce(now_is.prompt_tokens, 0),
    completion_tokens =
      t.completion_tokens - coalesce(was.completion_tokens, 0) + coalesce(now_is.completion_tokens, 0),
    charge_nanos = t.charge_nanos - coalesce(was.charge_nanos, 0) + coalesce(now_is.charge_nanos, 0),
    cost_nanos = t.cost_nanos - coalesce(was.cost_nanos, 0) + coalesce(now_is.cost_nanos, 0),
    cached_tokens = t.cached_tokens - tollgate.cached_tokens(was.usage, was.prompt_tokens)
      + tollgate.cached_tokens(now_is.usage, now_is.prompt_tokens),
    reasoning_tokens = t.reasoning_tokens - tollgate.reasoning_tokens(was.usage, was.completion_tokens)
      + tollgate.reasoning_tokens(now_is.usage, now_is.completion_tokens)
  from tollgate.cuts() c
  where t.cut = c.cut and t.start = date_trunc(c.unit, was.created_at, 'UTC')
    and t.org_id = case when c.people then was.org_id else '' end
    and t.user_id = case when c.people then was.user_id else '' end
    and t.key_id = case when c.people then was.key_id else '' end
    and t.model = case when c.models then was.model else '' end
    and t.upstream = case when c.models then coalesce(was.upstream, '') else '' end;
end
$$;

comment on function tollgate.tally_correction(tollgate.requests, tollgate.requests) is
  'Corrects the tallies, in all cuts, after a request changed; a request that is not rolled up yet needs no correction. Locks the row of tollgate.rolled against rolling up.';


create function tollgate.roll_up_again(since timestamptz) returns void
language plpgsql
set search_path = ''
as $$
declare
  state tollgate.rolled;
  beginning timestamptz;
begin
  select r.* into state from tollgate.rolled r for no key update;
  beginning := date_trunc('day', since, 'UTC');
  if beginning < state.dropped_until then
    beginning := tollgate.first_of('day', state.dropped_until);
  end if;
  delete from tollgate.tallies t
  where t.start >= beginning or t.cut like 'month%' and t.start >= date_trunc('month', beginning, 'UTC');
  -- The month is counted again from its days that stay.
  insert into tollgate.tallies
  select replace(t.cut, 'day', 'month'), date_trunc('month', beginning, 'UTC'),
    t.org_id, t.user_id, t.key_id, t.model, t.upstream,
    sum(t.requests), sum(t.errors), sum(t.streamed), sum(t.estimated), sum(t.prompt_tokens), sum(t.completion_tokens),
    sum(t.charge_nanos), sum(t.cost_nanos), max(t.last_at), sum(t.cached_tokens), sum(t.reasoning_tokens)
  from tollgate.tallies t
  where t.cut in ('day', 'day_model', 'day_key')
    and t.start >= date_trunc('month', beginning, 'UTC') and t.start < beginning
  group by 1, 2, 3, 4, 5, 6, 7;
  delete from tollgate.latencies t where t.start >= beginning;
  delete from tollgate.key_latencies t where t.start >= beginning;
  delete from tollgate.late_requests l where l.created_at >= beginning;
  update tollgate.rolled set rolled_until = least(rolled_until, beginning);
end
$$;

comment on function tollgate.roll_up_again(timestamptz) is
  'Deletes what was rolled up from the day of a moment on, so that it is counted again: for use after an import of requests. Days whose requests were dropped stay as they are. Locks the row of tollgate.rolled.';

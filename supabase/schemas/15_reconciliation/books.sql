-- What our books say of a day at OpenRouter, and which of its requests may cost something else there.

create function public.tollgate_books_of_day(day text) returns jsonb
language sql
stable
security definer
set search_path = ''
set jit = off
as $$
  select jsonb_build_object('models', coalesce(jsonb_agg(jsonb_build_object(
    'model', u.model,
    'requests', u.requests,
    'tokens', u.prompt_tokens + u.completion_tokens,
    'cost_nanos', u.cost_nanos
  ) order by u.model), '[]'))
  from tollgate.usage_by(
    '{model}',
    day::date::timestamp at time zone 'UTC',
    (day::date + 1)::timestamp at time zone 'UTC',
    '{"upstream": "openrouter"}'
  ) u
  where u.requests > 0
$$;

comment on function public.tollgate_books_of_day(text) is
  'What each model cost us at OpenRouter on a day (UTC), from the tallies, and from requests where nothing is rolled up. Refuses nothing, locks nothing.';

select tollgate.expose('public.tollgate_books_of_day(text)');


create function public.tollgate_causes_of_difference(day text, since text, until text, examples integer) returns jsonb
language sql
stable
security definer
set search_path = ''
set jit = off
as $$
  with doubtful as (
    select c.cause, r.model, coalesce(r.served_model, r.model) as served_model, r.id, r.generation_id,
      coalesce(r.cost_nanos, 0) as cost_nanos, r.hold_nanos,
      row_number() over (
        partition by c.cause, r.model, coalesce(r.served_model, r.model)
        order by greatest(r.hold_nanos, coalesce(r.cost_nanos, 0)) desc, r.id
      ) as place
    from tollgate.requests r
    cross join (values (day::date::timestamp at time zone 'UTC', (day::date + 1)::timestamp at time zone 'UTC')) d (beginning, ending)
    cross join lateral (select case -- here, since a function would be called for each request
      when r.is_byok or r.cached then null -- not with our key, or not sent
      when r.created_at < d.beginning then case
        when r.settled_at >= d.beginning and r.cost_nanos > 0 then 'day_before'
      end
      when r.settled_at is null then 'open'
      when r.upstream is null then case when r.basis = 'no_trace' then 'no_trace' end
      when r.state = 'released' then case when r.generation_id is not null or r.basis = 'no_record' then 'no_record' end
      when r.quarantined then 'at_the_hold'
      when r.estimated then 'estimated'
      when r.settled_at >= d.ending and r.cost_nanos > 0 then 'next_day'
      when r.usage -> 'is_byok' = 'true' then 'account_key'
      when r.served_model <> r.model then 'other_model'
    end as cause) c
    where r.created_at >= since::timestamptz and r.created_at < until::timestamptz
      and (r.upstream = 'openrouter' or r.upstream is null)
      and c.cause is not null
  ),
  groups as (
    select d.cause, d.model, d.served_model, count(*) as requests, sum(d.cost_nanos) as cost_nanos,
      sum(case when d.cause in ('no_trace', 'open', 'no_record', 'estimated', 'at_the_hold') then greatest(d.hold_nanos, d.cost_nanos)
        else d.cost_nanos end) as most_nanos,
      jsonb_agg(jsonb_build_object(
        'id', d.id, 'generation_id', d.generation_id, 'cost_nanos', d.cost_nanos, 'hold_nanos', d.hold_nanos
      ) order by d.place) filter (where d.place <= examples) as examples
    from doubtful d
    group by d.cause, d.model, d.served_model
  )
  select jsonb_build_object('causes', coalesce(jsonb_agg(to_jsonb(g) order by g.model, g.cause, g.served_model), '[]'))
  from groups g
$$;

comment on function public.tollgate_causes_of_difference(text, text, text, integer) is
  'The requests admitted in a span of a day that OpenRouter may state otherwise, by cause, model and the model that served them: how many, what they cost by our books, the most that they can cost, and the dearest of them. Reads the requests of the span. Refuses nothing, locks nothing.';

select tollgate.expose('public.tollgate_causes_of_difference(text, text, text, integer)');

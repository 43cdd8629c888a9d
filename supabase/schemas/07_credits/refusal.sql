-- The refusal of what the balance does not cover.

create function tollgate.credits_refusal(available bigint, required bigint, affordable_tokens bigint) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select tollgate.refusal(402, 'insufficient_credits', jsonb_build_object(
    'available_nanos', available,
    'required_nanos', required,
    'affordable_output_tokens', case when affordable_tokens < 1000000000 then affordable_tokens else 0 end
  ))
$$;

comment on function tollgate.credits_refusal(bigint, bigint, bigint) is
  'The refusal of a request whose worst case is above what the org has left. Where output costs nothing, fewer tokens would not help, so none are affordable.';

-- The refusal of what the balance does not cover.

create function tollgate.credits_refusal(available bigint, required bigint, affordable_tokens bigint) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select tollgate.refusal(402, 'insufficient_credits', jsonb_build_object(
    'available_nanos', available,
    'required_nanos', required,
    'affordable_output_tokens', affordable_tokens
  ))
$$;

comment on function tollgate.credits_refusal(bigint, bigint, bigint) is
  'The refusal of a request whose worst case is above what the org has left.';

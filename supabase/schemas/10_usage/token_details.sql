-- What the usage of an answer says of its tokens. The columns of a request have their sums only.

create function tollgate.cached_tokens(usage jsonb, prompt_tokens bigint) returns bigint
language plpgsql
immutable
set search_path = ''
as $$
begin
  return least(coalesce(prompt_tokens, 0), greatest(0, coalesce(
    jsonb_path_query_first(usage, '$.*.cached_tokens ? (@.type() == "number")'),
    jsonb_path_query_first(usage, '$.cache_read_input_tokens ? (@.type() == "number")')
  )::numeric));
end
$$;

comment on function tollgate.cached_tokens(jsonb, bigint) is
  'How many tokens of the prompt the upstream read from its cache, as chat completions, Responses or Messages state it: never more than the prompt has.';


create function tollgate.reasoning_tokens(usage jsonb, completion_tokens bigint) returns bigint
language plpgsql
immutable
set search_path = ''
as $$
begin
  return least(coalesce(completion_tokens, 0), greatest(0, coalesce(
    jsonb_path_query_first(usage, '$.*.reasoning_tokens ? (@.type() == "number")'),
    jsonb_path_query_first(usage, '$.*.thinking_tokens ? (@.type() == "number")')
  )::numeric));
end
$$;

comment on function tollgate.reasoning_tokens(jsonb, bigint) is
  'How many tokens of the completion were reasoning, as chat completions, Responses or Messages state it: never more than the completion has.';

-- What an org's own keys change about the admission of a call.

create function tollgate.may_ask(upstreams jsonb, upstream text) returns boolean
language sql
immutable
set search_path = ''
as $$
  select exists (select from jsonb_array_elements(upstreams) m (of_model) where m.of_model ? upstream)
$$;

comment on function tollgate.may_ask(jsonb, text) is
  'Whether a call may ask the upstream. `upstreams` has an array of ids for each model of the call.';


create function tollgate.with_org_keys(item jsonb, org_keys jsonb, fee_nanos bigint) returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
declare
  -- A call that costs nothing has no fee either.
  fee constant bigint := case when (item ->> 'byok_fee_nanos')::bigint = 0 then 0
    else coalesce(fee_nanos, (item ->> 'byok_fee_nanos')::bigint) end;
  is_byok constant boolean := not exists (
    select from jsonb_array_elements(item -> 'upstreams') m (of_model)
    where not (m.of_model ?| array(select jsonb_object_keys(org_keys)))
  );
  fixed constant numeric := case when is_byok then fee else greatest((item ->> 'fixed_nanos')::numeric, fee) end;
  output constant numeric := case when is_byok then 0 else (item ->> 'output_nanos')::numeric end;
begin
  return item || jsonb_build_object(
    'is_byok', is_byok,
    'byok_fee_nanos', fee,
    'fixed_nanos', fixed,
    'output_nanos', output,
    'price', case when is_byok
      then jsonb_build_object('fixed_nanos', fixed, 'output_nanos', output)
      else item -> 'price'
    end || jsonb_build_object('byok_fee_nanos', fee)
  );
end
$$;

comment on function tollgate.with_org_keys(jsonb, jsonb, bigint) is
  'The item of an admission whose org has keys of its own for some of the upstreams. Where each model has an upstream with a key, no other upstream is asked, and the worst case is the fee: `fee_nanos`, or the item''s where that is null. Otherwise it is the usual one, and at least the fee.';

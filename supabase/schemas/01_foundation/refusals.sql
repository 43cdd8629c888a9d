-- How functions refuse a call, and the refusals that several rooms share.

create function tollgate.expose(signature regprocedure) returns void
language plpgsql
set search_path = ''
as $$
declare
  stranger text;
begin
  execute format('revoke all on function %s from public', signature);
  for stranger in select rolname from pg_catalog.pg_roles where rolname in ('anon', 'authenticated') loop
    execute format('revoke all on function %s from %I', signature, stranger);
  end loop;
  if exists (select from pg_catalog.pg_roles where rolname = 'service_role') then
    execute format('grant execute on function %s to service_role', signature);
  end if;
end
$$;

comment on function tollgate.expose(regprocedure) is
  'Lets the server, and nobody else, call a public function. Revokes by name because Supabase grants new functions to anon and authenticated by default.';


create function tollgate.refuse(status integer, code text, facts jsonb default '{}') returns void
language plpgsql
set search_path = ''
as $$
begin
  raise exception using errcode = 'PT' || status, message = code, detail = facts::text;
end
$$;

comment on function tollgate.refuse(integer, text, jsonb) is
  'Refuses the whole call: never returns. PostgREST turns PT<status> into that HTTP status; the direct door reads it as sqlstate. `code` is a code of core/errors.py, `facts` become fields of the error.';


create function tollgate.refusal(status integer, code text, facts jsonb default '{}') returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('status', status, 'code', code, 'facts', facts)
$$;

comment on function tollgate.refusal(integer, text, jsonb) is
  'The same as a value, for functions that answer many at once: there one refusal must not fail its neighbours.';


create function tollgate.refused(status integer, code text, facts jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('refusal', tollgate.refusal(status, code, facts))
$$;

comment on function tollgate.refused(integer, text, jsonb) is 'A refusal as the answer to an item.';


create function tollgate.refuse_field(field text, fault text) returns void
language plpgsql
set search_path = ''
as $$
begin
  perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', field, 'fault', fault));
end
$$;

comment on function tollgate.refuse_field(text, text) is
  'Refuses a call for one of its fields: never returns. Says what is wrong with it, and not what it was.';


create function tollgate.refuse_unknown(given jsonb, known text[]) returns void
language plpgsql
set search_path = ''
as $$
declare
  unknown text;
begin
  select k into unknown from jsonb_object_keys(given) k where k <> all (known) order by 1 limit 1;
  if found then
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', unknown));
  end if;
end
$$;

comment on function tollgate.refuse_unknown(jsonb, text[]) is
  'Refuses, with invalid_request, a field that would go unheeded.';


create function tollgate.not_there(kind text, id text) returns void
language sql
set search_path = ''
as $$
  select tollgate.refuse(404, 'not_found', jsonb_build_object('kind', kind, 'id', id))
$$;

comment on function tollgate.not_there(text, text) is 'Refuses the call since there is no such thing.';

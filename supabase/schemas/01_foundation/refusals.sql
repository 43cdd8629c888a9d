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
  'Refuses the whole call: raises, so it never returns. PostgREST turns PT<status> into that HTTP status; the Postgres door reads it as sqlstate. `code` is a code of core/errors.py, `facts` become fields of the error.';


create function tollgate.refusal(status integer, code text, facts jsonb default '{}') returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('status', status, 'code', code, 'facts', facts)
$$;

comment on function tollgate.refusal(integer, text, jsonb) is
  'A refusal as a value, for functions that answer a batch: a refused item must not fail the others.';


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
  'Refuses the whole call for one of its fields. Says what is wrong with the value, and does not repeat it.';


create function tollgate.refuse_missing(kind text, id text) returns void
language sql
set search_path = ''
as $$
  select tollgate.refuse(404, 'not_found', jsonb_build_object('kind', kind, 'id', id))
$$;

comment on function tollgate.refuse_missing(text, text) is 'Refuses the whole call with not_found.';

-- Encrypts secrets again, after VAULT_KEY has changed.

create function public.tollgate_secrets_to_seal(caller jsonb, sealed_with text, after_id text, page_size integer)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'data', coalesce((
      select jsonb_agg(tollgate.secret_sealed(o) order by o.id)
      from (
        select s.* from tollgate.secrets s
        where s.sealed_with <> tollgate_secrets_to_seal.sealed_with and s.id > after_id
        order by s.id
        limit page_size
      ) o
    ), '[]')
  );
end
$$;

comment on function public.tollgate_secrets_to_seal(jsonb, text, text, integer) is
  'Secrets that were encrypted with another key than this one, encrypted as they are, by id. For the console and admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_secrets_to_seal(jsonb, text, text, integer)');


create function public.tollgate_seal_again(caller jsonb, items jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  done text[];
begin
  with changed as (
    update tollgate.secrets s
    set sealed = decode(i.sealed, 'hex'), sealed_with = i.sealed_with
    from jsonb_to_recordset(items) i (id text, was text, sealed text, sealed_with text)
    where s.id = i.id and s.sealed = decode(i.was, 'hex')
    returning s.id
  )
  select array_agg(c.id) into done from changed c;
  if done is not null then
    perform tollgate.record(actor, 'vault.rotated', null, 'vault', jsonb_build_object('secrets', cardinality(done)));
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'sealed', coalesce(cardinality(done), 0));
end
$$;

comment on function public.tollgate_seal_again(jsonb, jsonb) is
  'Replaces encrypted values by new ones of the same secrets, unless a secret was stored again meanwhile. Each item has id, was, sealed, sealed_with. For the console and admins. Refuses: as recognise(). Locks the rows.';

select tollgate.expose('public.tollgate_seal_again(jsonb, jsonb)');

-- Secrets of orgs and of the installation. What is stored is encrypted before it comes here.

create function tollgate.secret_shown(s tollgate.secrets) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', s.id,
    'org_id', s.org_id,
    'name', s.name,
    'address', s.address,
    'last_four', s.last_four,
    'sealed_with', s.sealed_with,
    'created_at', tollgate.utc(s.created_at),
    'updated_at', tollgate.utc(s.updated_at)
  )
$$;

comment on function tollgate.secret_shown(tollgate.secrets) is 'A secret without its value.';


create function tollgate.secret_sealed(s tollgate.secrets) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', s.id, 'kind', s.kind, 'org_id', s.org_id, 'name', s.name, 'address', s.address,
    'sealed', encode(s.sealed, 'hex'), 'sealed_with', s.sealed_with
  )
$$;

comment on function tollgate.secret_sealed(tollgate.secrets) is
  'All that the server needs to decrypt a secret, except its key.';


create function tollgate.keeper_of(caller jsonb, kind text, org_id text) returns tollgate.caller
language plpgsql
set search_path = ''
as $$
declare
  is_own constant boolean := kind = 'upstream_key' and org_id is null;
  keeper tollgate.caller := tollgate.recognise(caller, case when is_own then 'keys' else 'admin' end, touch => false);
begin
  if org_id is not null and not exists (select from tollgate.orgs o where o.id = keeper_of.org_id) then
    perform tollgate.refuse_missing('org', org_id);
  end if;
  return keeper;
end
$$;

comment on function tollgate.keeper_of(jsonb, text, text) is
  'The caller, if it may list and change the secrets: the keys of its own org, where `org_id` is null, with the scope keys; all others as an operator. Refuses: as recognise(), not_found (org).';


create function tollgate.org_of_secrets(keeper tollgate.caller, kind text, org_id text) returns text
language sql
immutable
set search_path = ''
as $$
  select case when kind = 'upstream_key' then coalesce(org_id, keeper.org_id) end
$$;

comment on function tollgate.org_of_secrets(tollgate.caller, text, text) is
  'Whose the secrets of a call are: those of the named org, or the caller''s; null for those of the installation.';


create function public.tollgate_secrets(caller jsonb, kind text, org_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of(caller, kind, org_id);
  whose constant text := tollgate.org_of_secrets(keeper, kind, org_id);
begin
  return jsonb_build_object(
    'caller', tollgate.identity(keeper),
    'data', coalesce((
      select jsonb_agg(tollgate.secret_shown(s) || jsonb_build_object('upstream_name', u.name) order by s.name)
      from tollgate.secrets s
      left join tollgate.upstreams u on u.id = s.name
      where s.kind = tollgate_secrets.kind and s.org_id is not distinct from whose
    ), '[]'),
    'upstreams', case when kind = 'upstream_key' then coalesce((
      select jsonb_agg(jsonb_build_object('id', u.id, 'name', u.name, 'base_url', u.base_url) order by u.name, u.id)
      from tollgate.upstreams u where u.takes_org_keys
    ), '[]') end
  );
end
$$;

comment on function public.tollgate_secrets(jsonb, text, text) is
  'The secrets of a kind, of the caller''s org or another, or of the installation; without their values, with the name of an upstream that has this id; and the upstreams of our own that take keys of orgs. Refuses: as keeper_of(). Locks nothing.';

select tollgate.expose('public.tollgate_secrets(jsonb, text, text)');


create function public.tollgate_upstream_for_keys(caller jsonb, org_id text, upstream_id text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of(caller, 'upstream_key', org_id);
  server tollgate.upstreams;
begin
  select u.* into server from tollgate.upstreams u where u.id = upstream_id and u.takes_org_keys;
  if not found and upstream_id <> 'openrouter' then
    perform tollgate.refuse_missing('upstream', upstream_id);
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(keeper),
    'org_id', tollgate.org_of_secrets(keeper, 'upstream_key', org_id),
    'address', server.base_url,
    'name', server.name
  );
end
$$;

comment on function public.tollgate_upstream_for_keys(jsonb, text, text) is
  'The org that a key would be stored for, and the address and name of the upstream; null for OpenRouter, whose address comes from the settings. Refuses: as keeper_of(), not_found (an upstream that is not there, or takes no keys of orgs). Locks nothing.';

select tollgate.expose('public.tollgate_upstream_for_keys(jsonb, text, text)');


create function public.tollgate_put_secret(caller jsonb, kind text, org_id text, secret jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of(caller, kind, org_id);
  whose constant text := tollgate.org_of_secrets(keeper, kind, org_id);
  given tollgate.secrets;
  made tollgate.secrets;
begin
  given.kind := kind;
  given := tollgate.with_fields(given, secret - 'sealed', array['name', 'address', 'sealed_with', 'last_four']);
  if kind = 'upstream_key' and given.name <> 'openrouter' then
    perform from tollgate.upstreams u
    where u.id = given.name and u.base_url = given.address and u.takes_org_keys
    for key share;
    if not found then
      perform tollgate.refuse_missing('upstream', given.name);
    end if;
  end if;
  insert into tollgate.secrets as s (kind, org_id, name, address, sealed, sealed_with, last_four)
  values (
    given.kind, whose, given.name, given.address, decode(secret ->> 'sealed', 'hex'),
    given.sealed_with, given.last_four
  )
  on conflict on constraint secrets_org_id_kind_name_key do update set
    address = excluded.address, sealed = excluded.sealed, sealed_with = excluded.sealed_with,
    last_four = excluded.last_four, updated_at = now()
  returning s.* into made;
  perform tollgate.record(keeper, 'secret.stored', made.org_id, made.id, jsonb_build_object(
    'kind', made.kind, 'name', made.name, 'address', made.address, 'last_four', made.last_four,
    'replaced', made.created_at < made.updated_at
  ));
  return jsonb_build_object('caller', tollgate.identity(keeper), 'secret', tollgate.secret_shown(made));
end
$$;

comment on function public.tollgate_put_secret(jsonb, text, text, jsonb) is
  'Stores a secret, or another in the place of the one with this name. `secret` has name, address, sealed, sealed_with and last_four. Refuses: as keeper_of() and with_fields(), not_found (an upstream of our own that takes no keys, or has moved meanwhile). Locks the upstream, the org against deletion, and the row.';

select tollgate.expose('public.tollgate_put_secret(jsonb, text, text, jsonb)');


create function public.tollgate_delete_secret(caller jsonb, kind text, org_id text, name text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper constant tollgate.caller := tollgate.keeper_of(caller, kind, org_id);
  whose constant text := tollgate.org_of_secrets(keeper, kind, org_id);
  gone tollgate.secrets;
begin
  delete from tollgate.secrets s
  where s.kind = tollgate_delete_secret.kind and s.org_id is not distinct from whose
    and s.name = tollgate_delete_secret.name
  returning s.* into gone;
  if gone.id is null then
    perform tollgate.refuse_missing(kind, name);
  end if;
  perform tollgate.record(keeper, 'secret.deleted', gone.org_id, gone.id, jsonb_build_object(
    'kind', gone.kind, 'name', gone.name, 'last_four', gone.last_four
  ));
  return jsonb_build_object('caller', tollgate.identity(keeper), 'id', gone.id, 'deleted', true);
end
$$;

comment on function public.tollgate_delete_secret(jsonb, text, text, text) is
  'Deletes a secret. Refuses: as keeper_of(), not_found. Locks the row.';

select tollgate.expose('public.tollgate_delete_secret(jsonb, text, text, text)');


create function public.tollgate_read_secret(caller jsonb, kind text, name text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  keeper tollgate.caller := tollgate.keeper_of(caller, kind, null);
  wanted tollgate.secrets;
begin
  select s.* into wanted from tollgate.secrets s
  where s.kind = tollgate_read_secret.kind and s.org_id is null and s.name = tollgate_read_secret.name;
  if not found or keeper.kind <> 'console' then
    perform tollgate.refuse_missing(kind, name);
  end if;
  perform tollgate.record(keeper, 'secret.read', null, wanted.id, jsonb_build_object(
    'kind', wanted.kind, 'name', wanted.name, 'last_four', wanted.last_four
  ));
  return jsonb_build_object('caller', tollgate.identity(keeper), 'secret', tollgate.secret_sealed(wanted));
end
$$;

comment on function public.tollgate_read_secret(jsonb, text, text) is
  'A secret of the installation, encrypted, for the console alone. Refuses: as keeper_of(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_read_secret(jsonb, text, text)');

-- The models of the catalog, and what the caller may see of them.

create function tollgate.listings_of(source text, names jsonb, within_seconds integer) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  age bigint;
  wanted text[];
  found jsonb;
begin
  select floor(extract(epoch from greatest(clock_timestamp() - s.taken_at, interval '0'))) into age
  from tollgate.snapshots s where s.source = listings_of.source;
  if age < within_seconds then
    if names is null then
      select jsonb_agg(l.listing order by l.position) into found
      from tollgate.listings l where l.source = listings_of.source;
    else
      wanted := array(select jsonb_array_elements_text(names));
      select jsonb_agg(l.listing order by l.position) into found
      from tollgate.listings l
      where l.source = listings_of.source and (l.id = any (wanted) or l.also = any (wanted));
    end if;
    found := coalesce(found, '[]');
  end if;
  return jsonb_build_object('age_seconds', age, 'models', found);
end
$$;

comment on function tollgate.listings_of(text, jsonb, integer) is
  'The age of a source''s snapshot and, if it is younger than `within_seconds`, its models of these names, or all.';


create function public.tollgate_catalog(source text, names jsonb, within_seconds integer) returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select tollgate.listings_of(source, w.names, within_seconds)
    || tollgate.routes_of(w.names)
    || jsonb_build_object('aliases', tollgate.aliases_of(nullif(tollgate_catalog.names, 'null')))
  from (select tollgate.with_targets(nullif(tollgate_catalog.names, 'null')) as names) w
$$;

comment on function public.tollgate_catalog(text, jsonb, integer) is
  'The catalog of models with these names, or of all: the snapshot''s age, its entries if it is younger than `within_seconds` (else null), the active routes to our own upstreams, and the active aliases. With names, the models that aliases of these names stand for are among them. Refuses nothing, locks nothing.';

select tollgate.expose('public.tollgate_catalog(text, jsonb, integer)');


create function public.tollgate_keep_catalog(source text, models jsonb, age_ms bigint) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  taken timestamptz := statement_timestamp() - make_interval(secs => greatest(age_ms, 0) / 1000.0);
begin
  insert into tollgate.snapshots (source, taken_at) values (tollgate_keep_catalog.source, '-infinity')
  on conflict do nothing;
  perform from tollgate.snapshots s
  where s.source = tollgate_keep_catalog.source and s.taken_at < taken
  for no key update;
  if not found then
    return jsonb_build_object('kept', false);
  end if;

  update tollgate.snapshots s set taken_at = taken where s.source = tollgate_keep_catalog.source;
  delete from tollgate.listings l
  where l.source = tollgate_keep_catalog.source
    and l.id not in (select m ->> 'id' from jsonb_array_elements(models) m);
  insert into tollgate.listings as l (source, id, also, position, listing)
  select tollgate_keep_catalog.source, m.value ->> 'id', m.value ->> 'also', m.ordinality, m.value ->> 'listing'
  from jsonb_array_elements(models) with ordinality m
  on conflict on constraint listings_pkey do update
    set also = excluded.also, position = excluded.position, listing = excluded.listing
    where (l.also, l.position, l.listing) is distinct from (excluded.also, excluded.position, excluded.listing);
  return jsonb_build_object('kept', true);
end
$$;

comment on function public.tollgate_keep_catalog(text, jsonb, bigint) is
  'Replaces a source''s snapshot by one taken `age_ms` ago, unless the stored one is newer. `models`: id, also, listing, in order, each id once. Refuses nothing. Locks the snapshot, so that of two calls at once the newer one stays.';

select tollgate.expose('public.tollgate_keep_catalog(text, jsonb, bigint)');


create function public.tollgate_catalog_caller(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'models');
begin
  return (
    select jsonb_build_object(
      'caller', tollgate.identity(actor),
      'environment', k.environment,
      'allowed_models', to_jsonb(k.allowed_models),
      'allowed_models_of_org', to_jsonb(o.allowed_models),
      'default_model', o.default_model,
      'markup_ppm', coalesce(o.markup_ppm, p.markup_ppm)
    )
    from tollgate.api_keys k
    join tollgate.orgs o on o.id = k.org_id
    join tollgate.plans p on p.id = o.plan_id
    where k.id = actor.key_id
  );
end
$$;

comment on function public.tollgate_catalog_caller(jsonb) is
  'The caller of the catalog: its markup (null is the setting MARKUP), the models that its key and its org may use (null is all), and the org''s default model (null is the setting). Refuses: as recognise(). Locks nothing of the org.';

select tollgate.expose('public.tollgate_catalog_caller(jsonb)');


create function public.tollgate_default_model(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, touch => false);
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'default_model', (select o.default_model from tollgate.orgs o where o.id = actor.org_id)
  );
end
$$;

comment on function public.tollgate_default_model(jsonb) is
  'The default model of the caller''s org; null is the setting DEFAULT_MODEL. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_default_model(jsonb)');


create function public.tollgate_catalog_operator(caller jsonb, org_id text, plan text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  plan_id text := plan;
  own_ppm integer;
begin
  if org_id is not null then
    select o.plan_id, o.markup_ppm into plan_id, own_ppm
    from tollgate.orgs o where o.id = tollgate_catalog_operator.org_id;
    if not found then
      perform tollgate.refuse_missing('org', org_id);
    end if;
  elsif plan is not null and not exists (select from tollgate.plans p where p.id = plan) then
    perform tollgate.refuse_missing('plan', plan);
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'markup_ppm', coalesce(own_ppm, (select p.markup_ppm from tollgate.plans p where p.id = plan_id)),
    'upstreams', (
      select coalesce(jsonb_object_agg(u.id, jsonb_build_object('name', u.name, 'health', p.status)), '{}')
      from tollgate.upstreams u
      left join tollgate.probes p on p.upstream_id = u.id
    )
  );
end
$$;

comment on function public.tollgate_catalog_operator(jsonb, text, text) is
  'What an operator''s list of models needs besides the catalog: the markup of an org or a plan (null is the setting MARKUP), and the last health of our own upstreams. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_catalog_operator(jsonb, text, text)');

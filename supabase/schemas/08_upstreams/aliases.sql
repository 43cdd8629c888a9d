-- Aliases: names of an operator's for models.

create function tollgate.alias_shown(a tollgate.aliases) returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(a) || jsonb_build_object(
    'id', a.name, 'created_at', tollgate.utc(a.created_at), 'updated_at', tollgate.utc(a.updated_at)
  )
$$;

comment on function tollgate.alias_shown(tollgate.aliases) is 'An alias as operators see it.';


create function tollgate.models_of(a tollgate.aliases) returns text[]
language sql
immutable
set search_path = ''
as $$
  select array(select t ->> 'model' from jsonb_array_elements(a.targets) t) || a.fallbacks::text[]
$$;

comment on function tollgate.models_of(tollgate.aliases) is 'The models that an alias may stand for.';


create function tollgate.aliases_of(names jsonb) returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(
    jsonb_build_object(
      'name', a.name, 'targets', a.targets, 'fallbacks', a.fallbacks, 'description', a.description,
      'deprecated_on', a.deprecated_on, 'retires_on', a.retires_on, 'replacement', a.replacement
    ) order by a.name
  ), '[]')
  from tollgate.aliases a
  where a.state = 'active' and (names is null or a.name in (select jsonb_array_elements_text(names)))
$$;

comment on function tollgate.aliases_of(jsonb) is 'The active aliases of these names, or all.';


create function tollgate.with_targets(names jsonb) returns jsonb
language sql
stable
set search_path = ''
as $$
  select names || coalesce((
    select jsonb_agg(distinct s.spelling)
    from tollgate.aliases a
    cross join unnest(tollgate.models_of(a)) m (model)
    cross join lateral (values (m.model), (split_part(m.model, ':', 1))) s (spelling)
    where a.state = 'active' and a.name in (select jsonb_array_elements_text(names))
  ), '[]')
$$;

comment on function tollgate.with_targets(jsonb) is
  'These names, and those of the models that the aliases among them stand for, with and without a suffix. Null stays null.';


create function tollgate.check_targets(made tollgate.aliases) returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  other text;
begin
  select a.name into other from tollgate.aliases a
  where a.name <> made.name and a.name = any (tollgate.models_of(made))
  order by a.name
  limit 1;
  if not found then
    select a.name into other from tollgate.aliases a
    where a.name <> made.name and made.name = any (tollgate.models_of(a))
    order by a.name
    limit 1;
  end if;
  if found then
    perform tollgate.refuse(409, 'conflict', jsonb_build_object(
      'reason', 'alias_of_alias', 'kind', 'alias', 'id', made.name, 'alias', other
    ));
  end if;
end
$$;

comment on function tollgate.check_targets(tollgate.aliases) is
  'Refuses, with conflict, an alias that stands for another one, or that another one stands for.';


create function public.tollgate_put_alias(caller jsonb, alias jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  was tollgate.aliases;
  made tollgate.aliases;
  is_new boolean;
begin
  perform pg_advisory_xact_lock(hashtextextended('tollgate.aliases', 0));
  select a.* into was from tollgate.aliases a where a.name = alias ->> 'name' for no key update;
  is_new := not found;
  if is_new then
    was.fallbacks := '{}';
    was.description := '';
    was.state := 'active';
    was := tollgate.with_fields(
      was, jsonb_build_object('name', alias -> 'name', 'targets', alias -> 'targets'), array['name', 'targets']
    );
  end if;
  made := tollgate.with_fields(was, alias, array[
    'name', 'targets', 'fallbacks', 'description', 'deprecated_on', 'retires_on', 'replacement', 'state'
  ]);
  if is_new or made is distinct from was then
    perform tollgate.check_targets(made);
    made.updated_at := now();
    if is_new then
      made.created_at := now();
      insert into tollgate.aliases select made.*;
    else
      update tollgate.aliases a set
        targets = made.targets, fallbacks = made.fallbacks, description = made.description,
        deprecated_on = made.deprecated_on, retires_on = made.retires_on, replacement = made.replacement,
        state = made.state, updated_at = made.updated_at
      where a.name = made.name;
    end if;
    perform tollgate.record(
      actor, case when is_new then 'alias.created' else 'alias.changed' end, null, made.name, alias - 'name'
    );
  end if;
  return jsonb_build_object(
    'caller', tollgate.identity(actor), 'created', is_new, 'alias', tollgate.alias_shown(made)
  );
end
$$;

comment on function public.tollgate_put_alias(jsonb, jsonb) is
  'Creates an alias, or changes the given fields of the one with this name. A repetition changes and records nothing. For admins. Refuses: as recognise(), with_fields() and check_targets(). Takes an advisory lock, so that two aliases cannot be made of each other at once, and locks the row.';

select tollgate.expose('public.tollgate_put_alias(jsonb, jsonb)');


create function public.tollgate_delete_alias(caller jsonb, name text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  gone tollgate.aliases;
begin
  delete from tollgate.aliases a where a.name = tollgate_delete_alias.name returning a.* into gone;
  if not found then
    perform tollgate.refuse_missing('alias', name);
  end if;
  perform tollgate.record(
    actor, 'alias.deleted', null, gone.name, to_jsonb(gone) - 'name' - 'created_at' - 'updated_at'
  );
  return jsonb_build_object('caller', tollgate.identity(actor), 'name', gone.name);
end
$$;

comment on function public.tollgate_delete_alias(jsonb, text) is
  'Deletes an alias, and records it in full. For admins. Refuses: as recognise(), not_found. Locks the row.';

select tollgate.expose('public.tollgate_delete_alias(jsonb, text)');


create function public.tollgate_alias(caller jsonb, name text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
  found_one tollgate.aliases;
begin
  select a.* into found_one from tollgate.aliases a where a.name = tollgate_alias.name;
  if not found then
    perform tollgate.refuse_missing('alias', name);
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor), 'alias', tollgate.alias_shown(found_one));
end
$$;

comment on function public.tollgate_alias(jsonb, text) is
  'One alias. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_alias(jsonb, text)');


create function public.tollgate_aliases(caller jsonb, filters jsonb, page_size integer) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor)) || tollgate.page(
    'tollgate.aliases',
    'tollgate.alias_shown',
    $where$
      ($1 ->> 'model' is null or $1 ->> 'model' = any (tollgate.models_of(e)))
      and ($1 ->> 'state' is null or e.state = $1 ->> 'state')
    $where$,
    '{"created_at": "e.created_at", "name": "e.name collate \"C\""}',
    coalesce(filters ->> 'sort', 'name:asc'),
    filters,
    page_size,
    id => 'e.name'
  );
end
$$;

comment on function public.tollgate_aliases(jsonb, jsonb, integer) is
  'Aliases. `filters`: model (one that the alias may stand for), state, sort (created_at, name), cursor. For admins. Refuses: as recognise() and page(). Locks nothing.';

select tollgate.expose('public.tollgate_aliases(jsonb, jsonb, integer)');

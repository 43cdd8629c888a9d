-- Limits of an org or a key, as an operator sees and sets them.

create function tollgate.limits_in_effect(org_id text, key_id text) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  org tollgate.orgs;
  key tollgate.api_keys;
  of_key jsonb;
  of_org jsonb; -- set by an operator
  of_both jsonb; -- with those of the plan: in force
begin
  if key_id is not null then
    select k.* into key from tollgate.api_keys k where k.id = limits_in_effect.key_id;
    if not found then
      perform tollgate.refuse_missing('key', key_id);
    end if;
    of_key := tollgate.limits_shown(key.limits);
  end if;
  select o.* into org from tollgate.orgs o where o.id = coalesce(key.org_id, limits_in_effect.org_id);
  if not found then
    perform tollgate.refuse_missing('org', org_id);
  end if;
  of_org := tollgate.limits_shown(coalesce(org.limits_set, org.limits));
  of_both := to_jsonb(tollgate.limits_of(org));

  return jsonb_build_object(
    'org_id', org.id,
    'key_id', key.id,
    'plan', org.plan_id,
    'limits', coalesce(of_key, of_org),
    'in_effect', (
      select jsonb_object_agg(name, jsonb_build_object(
        'limit', least((of_key ->> name)::bigint, (of_both ->> name)::bigint),
        'set_by', case
          when (of_key ->> name)::bigint <= coalesce((of_both ->> name)::bigint, (of_key ->> name)::bigint) then 'key'
          when of_both ->> name is null then null
          when of_org ->> name is null then 'plan'
          else 'org'
        end
      ))
      from jsonb_object_keys(of_org) name
    )
  );
end
$$;

comment on function tollgate.limits_in_effect(text, text) is
  'The limits set for a key or, without one, for an org; and for each of the six the lowest that applies, and what set it. Refuses: not_found.';


create function tollgate.change_limits(actor tollgate.caller, caller jsonb, subject jsonb, limits jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  changes constant jsonb := jsonb_build_object('limits', limits);
begin
  if subject ->> 'key_id' is not null then
    perform public.tollgate_change_key(caller, subject ->> 'key_id', changes, 'admin');
  else
    perform tollgate.change_org(actor, tollgate.org_of(subject), changes);
  end if;
end
$$;

comment on function tollgate.change_limits(tollgate.caller, jsonb, jsonb, jsonb) is
  'Changes the limits of an org, of a user''s org, or of a key. Refuses and locks as change_org() or tollgate_change_key().';


create function public.tollgate_limits_of(caller jsonb, subject jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.limits_in_effect(tollgate.org_of(subject), subject ->> 'key_id');
end
$$;

comment on function public.tollgate_limits_of(jsonb, jsonb) is
  'The limits of the subject: an org_id, a user_id (for the user''s org) or a key_id. For admins. Refuses: as recognise(), not_found. Locks nothing.';

select tollgate.expose('public.tollgate_limits_of(jsonb, jsonb)');


create function public.tollgate_set_limits(caller jsonb, subject jsonb, limits jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
begin
  perform tollgate.change_limits(actor, caller, subject, limits);
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.limits_in_effect(tollgate.org_of(subject), subject ->> 'key_id');
end
$$;

comment on function public.tollgate_set_limits(jsonb, jsonb, jsonb) is
  'Sets limits of an org or a user''s org (null follows the plan), or of a key (null is no limit). They apply from the next admission on, to what was counted before as well. For the console and admins. Refuses: as recognise(), not_found (org, user), and for a key as tollgate_change_key(). Locks as change_org() or tollgate_change_key().';

select tollgate.expose('public.tollgate_set_limits(jsonb, jsonb, jsonb)');


create function public.tollgate_reset_limits(caller jsonb, subject jsonb, counters boolean) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  reset text;
begin
  perform tollgate.change_limits(actor, caller, subject, null);
  if counters and subject ->> 'key_id' is not null then
    update tollgate.api_keys k set counters = null
    where k.id = subject ->> 'key_id' and k.counters is not null
    returning k.org_id into reset;
  elsif counters then
    update tollgate.orgs o set counters = null
    where o.id = tollgate.org_of(subject) and o.counters is not null
    returning o.id into reset;
  end if;
  if reset is not null then
    perform tollgate.record(actor, 'limits.reset', reset, coalesce(subject ->> 'key_id', reset), '{"counters": true}');
  end if;
  return jsonb_build_object('caller', tollgate.identity(actor))
    || tollgate.limits_in_effect(tollgate.org_of(subject), subject ->> 'key_id');
end
$$;

comment on function public.tollgate_reset_limits(jsonb, jsonb, boolean) is
  'Removes the limits that were set for an org, a user''s org, or a key; with `counters`, its windows start from zero as well. For the console and admins. Refuses: as recognise(), not_found (org, user), and for a key as tollgate_change_key(). Locks as change_org() or tollgate_change_key().';

select tollgate.expose('public.tollgate_reset_limits(jsonb, jsonb, boolean)');

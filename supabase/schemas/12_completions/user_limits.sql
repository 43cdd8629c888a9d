-- A user's own limits, over all the user's keys.

create function tollgate.of_user(person tollgate.users) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object('of', 'user', 'user_id', person.id)
$$;

comment on function tollgate.of_user(tollgate.users) is 'The user as the subject of a refusal.';


create function tollgate.take_from_user(user_id text, at_ms bigint, tokens bigint) returns void
language sql
set search_path = ''
as $$
  update tollgate.users u set counters = tollgate.take(u.counters, at_ms, 1, tokens) where u.id = user_id
$$;

comment on function tollgate.take_from_user(text, bigint, bigint) is
  'Takes a request from a user''s windows. The org is locked by the caller. Locks the user.';


create function tollgate.settle_user(user_id text, admitted_at timestamptz, token_change bigint, at_ms bigint)
returns void
language sql
set search_path = ''
as $$
  update tollgate.users u
  set counters = tollgate.correct(u.counters, tollgate.ms_of(admitted_at), at_ms, token_change)
  where u.id = user_id
$$;

comment on function tollgate.settle_user(text, timestamptz, bigint, bigint) is
  'Corrects a user''s windows by the difference between the tokens that a request took and those it used. Locks the user.';

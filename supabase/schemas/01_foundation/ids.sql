-- Ids.

create function tollgate.new_id(prefix text) returns text
language sql
volatile
set search_path = ''
as $$
  select prefix || '_'
    || lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
    || right(replace(gen_random_uuid()::text, '-', ''), 16)
$$;

comment on function tollgate.new_id(text) is
  'A new id such as org_0193…: 12 hex digits of the time in milliseconds, so that indexes grow at their end, and 16 random ones.';


create table tollgate.id_key (
  single boolean primary key default true check (single),
  secret bytea not null
);

comment on table tollgate.id_key is 'The secret of this database that mixed() uses, in one row.';

alter table tollgate.id_key enable row level security;

insert into tollgate.id_key (secret) values (
  decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex')
);


create function tollgate.mixing_round(half bigint, round integer) returns bigint
language sql
stable
set search_path = ''
as $$
  select ('x' || left(encode(sha256(k.secret || int8send(half) || int4send(round)), 'hex'), 8))::bit(32)::bigint
  from tollgate.id_key k
$$;

comment on function tollgate.mixing_round(bigint, integer) is
  'Of mixed() and unmixed(): 32 bits that depend on half a number, the round, and the secret of this database.';


create function tollgate.mixed(number bigint) returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  low constant bigint := 4294967295;
  first_half bigint := (number >> 32) & low;
  second_half bigint := number & low;
  mixed_half bigint;
begin
  for round in 1 .. 4 loop
    mixed_half := first_half # tollgate.mixing_round(second_half, round);
    first_half := second_half;
    second_half := mixed_half;
  end loop;
  return lpad(to_hex(first_half), 8, '0') || lpad(to_hex(second_half), 8, '0');
end
$$;

comment on function tollgate.mixed(bigint) is
  'A number as 16 hex digits that do not tell it: a Feistel cipher of four rounds. Ids made of it cannot be guessed or counted, and cost no column and no index.';


create function tollgate.unmixed(digits text) returns bigint
language plpgsql
stable
set search_path = ''
as $$
declare
  first_half bigint;
  second_half bigint;
  mixed_half bigint;
begin
  if digits !~ '^[0-9a-f]{16}$' then
    return null;
  end if;
  first_half := ('x' || left(digits, 8))::bit(32)::bigint;
  second_half := ('x' || right(digits, 8))::bit(32)::bigint;
  for round in reverse 4 .. 1 loop
    mixed_half := second_half;
    second_half := first_half;
    first_half := mixed_half # tollgate.mixing_round(second_half, round);
  end loop;
  return (first_half << 32) | second_half;
end
$$;

comment on function tollgate.unmixed(text) is 'The number that mixed() was given; null for other texts.';

create table tollgate.leading (
  org_id text not null,
  key_id text not null,
  requests bigint not null,
  tokens bigint not null,
  charge_nanos bigint not null,
  cost_nanos bigint not null
);

comment on table tollgate.leading is 'What each key used in the time that tollgate.led says: some 30 days, so that who leads is not reckoned each time from all days of all keys.';

alter table tollgate.leading enable row level security;


create table tollgate.led (
  single boolean primary key default true check (single),
  since timestamptz,
  until timestamptz
);

comment on table tollgate.led is 'Of which time the rows of tollgate.leading are. One row, locked by whoever renews them.';

alter table tollgate.led enable row level security;

insert into tollgate.led default values;

create table tollgate.top_keys (
  org_id text not null,
  key_id text not null,
  requests bigint not null,
  tokens bigint not null,
  charge_nanos bigint not null,
  cost_nanos bigint not null
);

comment on table tollgate.top_keys is 'What each key used in the span of tollgate.top_keys_period, about 30 days, so that the top lists need not be computed from all days of all keys each time.';

alter table tollgate.top_keys enable row level security;


create table tollgate.top_keys_period (
  single boolean primary key default true check (single),
  since timestamptz,
  until timestamptz
);

comment on table tollgate.top_keys_period is 'The span of time that tollgate.top_keys covers. One row, which the writer locks.';

alter table tollgate.top_keys_period enable row level security;

insert into tollgate.top_keys_period default values;

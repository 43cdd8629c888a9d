create table tollgate.reconciliations (
  day date primary key,
  leased_until timestamptz,
  reconciled_at timestamptz,
  failed_at timestamptz,
  failure text,
  verdict text check (verdict in ('agrees', 'explained', 'differs')),
  tolerance_ppm integer,
  our_requests bigint,
  their_requests bigint,
  our_cost_nanos bigint,
  their_cost_nanos bigint,
  check ((verdict is null) = (reconciled_at is null))
);

comment on table tollgate.reconciliations is 'The control totals of days (UTC): what OpenRouter''s models cost by our books, and by its own statement. A day that is reconciled again has its last outcome.';
comment on column tollgate.reconciliations.leased_until is 'Until then, the server that took the day reconciles it, and no other.';
comment on column tollgate.reconciliations.failure is 'Why the day could not be reconciled the last time; null once it could.';

alter table tollgate.reconciliations enable row level security;


create table tollgate.reconciled_models (
  day date not null references tollgate.reconciliations (day) on delete cascade,
  model text not null,
  verdict text not null check (verdict in ('agrees', 'explained', 'differs')),
  our_requests bigint not null,
  their_requests bigint not null,
  our_tokens bigint not null,
  their_tokens bigint not null,
  our_cost_nanos bigint not null,
  their_cost_nanos bigint not null,
  causes jsonb not null,
  primary key (day, model)
);

comment on table tollgate.reconciled_models is 'The control totals of a day by model, and why they may differ.';
comment on column tollgate.reconciled_models.causes is 'A list of {"cause", "requests", "least_nanos", "most_nanos", "examples"}: what each may add to their cost less ours, and some of its requests.';

alter table tollgate.reconciled_models enable row level security;

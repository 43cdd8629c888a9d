-- What was created under an idempotency key.

create table tollgate.creations (
  operator text not null,
  idempotency_key text not null check (length(idempotency_key) between 1 and 180),
  creation text not null,
  asked jsonb not null,
  answer jsonb not null,
  created_at timestamptz not null default clock_timestamp(),
  primary key (operator, idempotency_key)
);

create index creations_age on tollgate.creations (created_at);

comment on table tollgate.creations is 'The answers to creations with an idempotency key, kept for 48 hours. Credits have credit_operations instead.';
comment on column tollgate.creations.operator is 'The user who created, with any of their keys. Idempotency keys are separate for each user.';
comment on column tollgate.creations.asked is 'What was asked for, without what is new in each attempt: to tell a repetition from another request under the same key.';

alter table tollgate.creations enable row level security;

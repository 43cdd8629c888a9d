-- What processes of Tollgate used.

create table tollgate.process_samples (
  process text not null check (length(process) between 1 and 256),
  sampled_at timestamptz not null default now(),
  sample jsonb not null check (jsonb_typeof(sample) = 'object'),
  primary key (process, sampled_at)
);

create index process_samples_age on tollgate.process_samples (sampled_at);

comment on table tollgate.process_samples is 'What a process of Tollgate and its machine used, one row a minute, kept for 24 hours.';
comment on column tollgate.process_samples.process is 'The name of the machine, container or dyno, and the id of the process there.';

alter table tollgate.process_samples enable row level security;

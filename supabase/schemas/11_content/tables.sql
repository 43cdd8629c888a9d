create table tollgate.contents (
  request_id text primary key,
  org_id text not null,
  prompt text,
  answer text,
  created_at timestamptz not null default clock_timestamp()
);

create index contents_age on tollgate.contents (created_at);

comment on table tollgate.contents is 'The beginnings of prompts and answers; secrets are redacted before they get here. No checks and no foreign key: rows are written while money is settled, and no content may make that fail.';

alter table tollgate.contents enable row level security;

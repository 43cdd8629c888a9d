create table tollgate.contents (
  request_id text primary key,
  org_id text not null,
  prompt text,
  answer text,
  created_at timestamptz not null default clock_timestamp()
);

create index contents_age on tollgate.contents (created_at);

comment on table tollgate.contents is 'What was asked and answered: no more than its beginning, its secrets hidden before it came here. No checks and no foreign key: it is written where money is settled, which nothing that somebody said may keep from being done.';

alter table tollgate.contents enable row level security;

create table tollgate.backups (
  digest text primary key check (digest ~ '^[0-9a-f]{64}$'),
  file text not null,
  bytes bigint not null,
  created_at timestamptz not null,
  made_here boolean not null,
  as_of timestamptz,
  schema_version text,
  verified_at timestamptz,
  is_sound boolean,
  faults jsonb not null default '[]',
  counts jsonb,
  check ((is_sound is null) = (verified_at is null))
);

comment on table tollgate.backups is 'Backups that were created or verified with the settings of this installation.';
comment on column tollgate.backups.digest is 'SHA-256 of the file, by which it is known again.';
comment on column tollgate.backups.created_at is 'When it was created; where made_here is false, when it was first verified.';
comment on column tollgate.backups.as_of is 'The newest moment that a row of the backup has, as its verification found it.';
comment on column tollgate.backups.faults is 'What the last verification found, as sentences.';
comment on column tollgate.backups.counts is 'How many orgs, transfers and requests it has, as the audit of its last verification counted them.';

alter table tollgate.backups enable row level security;

create table tollgate.cache_entries (
  org_id text not null references tollgate.orgs (id) on delete cascade,
  cache_key text not null check (cache_key ~ '^[0-9a-f]{64}$'),
  endpoint text not null,
  model text not null,
  key_id text not null,
  begun_at timestamptz not null,
  filler_id text,
  filler_until timestamptz,
  request_id text,
  answer jsonb,
  bytes bigint not null default 0,
  served_model text,
  charge_nanos bigint not null default 0,
  filled_at timestamptz,
  expires_at timestamptz not null,
  primary key (org_id, cache_key)
);

create index cache_entries_oldest on tollgate.cache_entries (org_id, filled_at);
create index cache_entries_expiry on tollgate.cache_entries (expires_at);
create index cache_entries_model on tollgate.cache_entries (model);
create index cache_entries_key_id on tollgate.cache_entries (key_id);

comment on table tollgate.cache_entries is 'The completion cache: answers by org and by the digest of the request. Whoever inserts, fills or deletes a row holds the lock of its org.';
comment on column tollgate.cache_entries.cache_key is 'A keyed digest of the request and of what serves it. Prompts are not kept.';
comment on column tollgate.cache_entries.key_id is 'The API key of the request that began the entry, or filled it last.';
comment on column tollgate.cache_entries.begun_at is 'When the row was made. An answer to an older request is not stored in it, so that clearing is final.';
comment on column tollgate.cache_entries.filler_id is 'The request that will fill the entry. Until filler_until, the same requests wait for it.';
comment on column tollgate.cache_entries.request_id is 'The request whose answer it is; null while there is none.';
comment on column tollgate.cache_entries.charge_nanos is 'What that request was charged.';

alter table tollgate.cache_entries enable row level security;


create table tollgate.cache_sizes (
  org_id text primary key references tollgate.orgs (id) on delete cascade,
  entries bigint not null,
  bytes bigint not null
);

comment on table tollgate.cache_sizes is 'How many answers the cache has of each org, and how large they are together.';

alter table tollgate.cache_sizes enable row level security;


create table tollgate.cache_days (
  day date not null,
  org_id text not null,
  model text not null,
  hits bigint not null default 0,
  misses bigint not null default 0,
  saved_nanos bigint not null default 0,
  primary key (day, org_id, model)
);

comment on table tollgate.cache_days is 'Look-ups in the cache by the day (UTC). No foreign key: like tallies, they outlive the org.';
comment on column tollgate.cache_days.saved_nanos is 'What the hits would have been charged as misses, less what they were charged.';

alter table tollgate.cache_days enable row level security;

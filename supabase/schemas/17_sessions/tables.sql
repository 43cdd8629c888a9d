create table tollgate.sessions (
  id text primary key default tollgate.new_id('ses') check (id ~ '^ses_[a-z0-9]{1,64}$'),
  digest tollgate.digest not null unique,
  user_id text not null references tollgate.users (id) on delete cascade,
  key_id text references tollgate.api_keys (id) on delete cascade,
  way text not null check (way in ('key', 'link', 'password')),
  ip inet,
  user_agent text,
  created_at timestamptz not null default now(),
  last_seen_at timestamptz not null default now()
);

create index sessions_user_id on tollgate.sessions (user_id);
create index sessions_key_id on tollgate.sessions (key_id) where key_id is not null;

comment on table tollgate.sessions is 'Sign-ins of people in a browser. A row is deleted when its session ends; the audit trail keeps its history.';
comment on column tollgate.sessions.digest is 'Of the token in the cookie, which is not stored.';
comment on column tollgate.sessions.key_id is 'The key that was exchanged, whose bounds the session keeps; null for other ways to sign in.';
comment on column tollgate.sessions.last_seen_at is 'Changes at most once a minute.';

alter table tollgate.sessions enable row level security;


create table tollgate.sign_in_links (
  digest tollgate.digest primary key,
  user_id text not null references tollgate.users (id) on delete cascade,
  expires_at timestamptz not null default now() + interval '10 minutes'
);

create index sign_in_links_user_id on tollgate.sign_in_links (user_id);

comment on table tollgate.sign_in_links is 'Links by which a user signs in once. A row is deleted when its link is used.';

alter table tollgate.sign_in_links enable row level security;

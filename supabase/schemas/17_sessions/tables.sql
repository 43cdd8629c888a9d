create table tollgate.sessions (
  id text primary key default tollgate.new_id('ses') check (id ~ '^ses_[a-z0-9]{1,64}$'),
  digest tollgate.digest not null unique,
  user_id text not null references tollgate.users (id) on delete cascade,
  key_id text references tollgate.api_keys (id) on delete cascade,
  way text not null check (way in ('key', 'link', 'password', 'supabase')),
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


create table tollgate.passwords (
  user_id text primary key references tollgate.users (id) on delete cascade,
  hash text not null check (hash like '$argon2id$%' and length(hash) <= 200),
  known_addresses text[] not null default '{}' check (cardinality(known_addresses) <= 10),
  set_at timestamptz not null default now()
);

comment on table tollgate.passwords is 'The passwords by which users sign in, hashed with Argon2id.';
comment on column tollgate.passwords.known_addresses is 'The last 10 addresses from which the password was right.';

alter table tollgate.passwords enable row level security;


create table tollgate.password_failures (
  account text not null,
  address text not null,
  failures integer not null default 1,
  since timestamptz not null default now(),
  primary key (account, address)
);

create index password_failures_since on tollgate.password_failures (since);

comment on table tollgate.password_failures is 'Wrong passwords within 15 minutes: of an account from an address; of the address in all, where account is empty; of the account in all, where address is empty.';
comment on column tollgate.password_failures.account is 'A digest of the email that was sent, whether a user has it or not.';

alter table tollgate.password_failures enable row level security;

create domain tollgate.secret_kind as text check (value in ('upstream_key', 'hf_token', 'channel'));
create domain tollgate.name_of_secret as text check (length(value) between 1 and 100 and value ~ '^[!-~]+$');
create domain tollgate.sealed as bytea check (length(value) between 29 and 4096);

create table tollgate.secrets (
  id text primary key default tollgate.new_id('sec') check (id ~ '^sec_[a-z0-9]{1,64}$'),
  kind tollgate.secret_kind not null,
  org_id text references tollgate.orgs (id) on delete cascade,
  name tollgate.name_of_secret not null,
  address text check (length(address) <= 2000),
  sealed tollgate.sealed not null,
  sealed_with tollgate.pepper not null,
  last_four tollgate.last_four not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique nulls not distinct (org_id, kind, name),
  check ((org_id is null) = (kind <> 'upstream_key'))
);

create index secrets_sealed_with on tollgate.secrets (sealed_with, id);

comment on table tollgate.secrets is 'The vault: secrets that Tollgate must be able to read again, encrypted by the server with VAULT_KEY. The database never has the key.';
comment on column tollgate.secrets.kind is 'upstream_key: a key of the org''s own for an upstream. hf_token: a token of Hugging Face, of the whole installation. channel: what a channel of alerts is signed or opened with.';
comment on column tollgate.secrets.org_id is 'Whose it is; null for one of the whole installation.';
comment on column tollgate.secrets.name is 'Of an upstream_key, the id of the upstream; of a channel, its id.';
comment on column tollgate.secrets.address is 'Of an upstream_key, the base URL that it may be sent to. If the upstream moves, the key must be stored again.';
comment on column tollgate.secrets.sealed is 'A random nonce of 12 bytes, and the secret encrypted by AES-256-GCM. It is bound to kind, org, name, address and key, so it cannot be read in another row.';
comment on column tollgate.secrets.sealed_with is 'Which VAULT_KEY it was encrypted with, as the start of a hash.';

alter table tollgate.secrets enable row level security;

create table tollgate.snapshots (
  source text primary key check (length(source) between 1 and 2000),
  taken_at timestamptz not null
);

comment on table tollgate.snapshots is 'When the models of each source (its URL) were last fetched. The writer locks the row.';

alter table tollgate.snapshots enable row level security;


create table tollgate.listings (
  source text not null references tollgate.snapshots (source) on delete cascade,
  id text not null check (length(id) between 1 and 256),
  also text,
  position integer not null,
  listing text not null,
  primary key (source, id)
);

create index listings_also on tollgate.listings (source, also);

comment on table tollgate.listings is 'The models of a snapshot, one row each, so that a cold instance can read one alone.';
comment on column tollgate.listings.also is 'The model''s canonical name, where that is another.';
comment on column tollgate.listings.listing is 'The entry of the source, as JSON in a text: nothing in the database reads it, and jsonb does not allow NUL.';

alter table tollgate.listings enable row level security;

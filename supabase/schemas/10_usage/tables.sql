create table tollgate.tallies (
  cut text not null,
  start timestamptz not null,
  org_id text not null default '',
  user_id text not null default '',
  key_id text not null default '',
  model text not null default '',
  upstream text not null default '',
  requests bigint not null,
  errors bigint not null,
  streamed bigint not null,
  estimated bigint not null,
  prompt_tokens bigint not null,
  completion_tokens bigint not null,
  charge_nanos bigint not null,
  cost_nanos bigint not null,
  last_at timestamptz not null,
  cached_tokens bigint not null default 0,
  reasoning_tokens bigint not null default 0,
  primary key (cut, start, org_id, user_id, key_id, model, upstream)
)
partition by list (cut);

create index tallies_org on tollgate.tallies (org_id, start) where org_id <> '';

comment on table tollgate.tallies is 'Ended requests counted by the hour, day and month (UTC) in which they were made. Each is in all eight cuts: hour, day and month group by org, user, key, model and upstream, …_model only by the last two, …_key only by the first three; the other columns are empty. Each cut is a partition, so that a query reads the rows of one cut only.';

alter table tollgate.tallies enable row level security;


create table tollgate.latencies (
  cut text not null,
  start timestamptz not null,
  kind text not null check (kind in ('whole', 'first_token')),
  model text not null default '',
  upstream text not null default '',
  bucket integer not null,
  requests bigint not null,
  total_ms bigint not null,
  primary key (cut, start, kind, model, upstream, bucket)
)
partition by list (cut);

comment on table tollgate.latencies is 'How long requests without an error took, in buckets that are 5 % wide. Each is in all three cuts; only day_model groups by model and upstream.';

alter table tollgate.latencies enable row level security;


create table tollgate.key_latencies (
  org_id text not null,
  start timestamptz not null,
  key_id text not null,
  user_id text not null,
  model text not null,
  upstream text not null,
  whole jsonb,
  first_token jsonb,
  primary key (org_id, start, key_id, model, upstream)
) with (fillfactor = 70);

comment on table tollgate.key_latencies is 'How long requests without an error took, by key, model, upstream and day (UTC): one row for all buckets, since most have few requests a day.';
comment on column tollgate.key_latencies.whole is 'How many requests are in a bucket, and their milliseconds together: {"<bucket>": [requests, total_ms]}; first_token likewise.';

alter table tollgate.key_latencies enable row level security;


-- Days and months are updated page by page: with free space on the page, an update needs no new index entry (HOT).
do $$
declare
  one record;
begin
  for one in values
    ('tallies', 'hour'), ('tallies', 'hour_model'),
    ('tallies', 'day'), ('tallies', 'day_model'), ('tallies', 'day_key'),
    ('tallies', 'month'), ('tallies', 'month_model'), ('tallies', 'month_key'),
    ('latencies', 'hour'), ('latencies', 'day'), ('latencies', 'day_model')
  loop
    execute format(
      'create table tollgate.%1$s_%2$s partition of tollgate.%1$s for values in (%2$L) with (fillfactor = %3$s)',
      one.column1, one.column2, case when one.column2 like 'hour%' then 95 else 70 end
    );
    execute format('alter table tollgate.%1$s_%2$s enable row level security', one.column1, one.column2);
    execute format('comment on table tollgate.%1$s_%2$s is %3$L', one.column1, one.column2, 'One cut of tollgate.' || one.column1 || '.');
  end loop;
end
$$;

create index tallies_of_model on tollgate.tallies_day (model, start);


create table tollgate.flows (
  hour timestamptz not null,
  kind text not null,
  debit text not null,
  credit text not null,
  transfers bigint not null,
  amount_nanos numeric not null,
  primary key (hour, kind, debit, credit)
);

comment on table tollgate.flows is 'Sums of transfers by the hour (UTC) in which they were made.';

alter table tollgate.flows enable row level security;


create table tollgate.late_requests (
  request_id text primary key,
  created_at timestamptz not null
);

comment on table tollgate.late_requests is 'Requests that were still open when their hour was rolled up; deleted here and counted when they have ended.';

alter table tollgate.late_requests enable row level security;


create table tollgate.rolled (
  single boolean primary key default true check (single),
  rolled_until timestamptz not null default '-infinity',
  marked_at timestamptz,
  marked_xid xid8,
  complete_until timestamptz not null default '-infinity',
  marked_position bigint,
  complete_position bigint not null default 0,
  flowed_until bigint not null default 0,
  dropped_until timestamptz not null default '-infinity'
);

comment on table tollgate.rolled is 'How far requests and transfers are rolled up: one row, which the writer locks.';
comment on column tollgate.rolled.rolled_until is 'Requests made before it are in the tallies, or in late_requests.';
comment on column tollgate.rolled.marked_xid is 'A transaction that began at marked_at or later. Once all transactions before it have ended, no request made before marked_at can still appear.';
comment on column tollgate.rolled.complete_until is 'Every request made before it is committed.';
comment on column tollgate.rolled.marked_position is 'The newest position of a transfer when marked_xid began.';
comment on column tollgate.rolled.complete_position is 'Every transfer up to it is committed.';
comment on column tollgate.rolled.flowed_until is 'The flows hold the transfers up to this position, and no others.';
comment on column tollgate.rolled.dropped_until is 'Requests made before it may have been dropped, so hours before it cannot be divided.';

alter table tollgate.rolled enable row level security;

insert into tollgate.rolled default values;


create type tollgate.usage as (
  start timestamptz,
  org_id text,
  user_id text,
  key_id text,
  model text,
  upstream text,
  requests bigint,
  errors bigint,
  streamed bigint,
  estimated bigint,
  prompt_tokens bigint,
  completion_tokens bigint,
  charge_nanos bigint,
  cost_nanos bigint,
  last_at timestamptz,
  cached_tokens bigint,
  reasoning_tokens bigint
);

comment on type tollgate.usage is 'What was used, by any of the columns start to upstream; the others are null.';


create type tollgate.duration as (
  hour timestamptz, org_id text, key_id text, user_id text, model text, upstream text, kind text, ms integer, bucket integer
);

comment on type tollgate.duration is 'How long one request took, whole or until its first token.';


create type tollgate.piece as (of_what text, beginning timestamptz, ending timestamptz);

comment on type tollgate.piece is 'A part of a span of time, and what to read for it: request, late, hour, day or month.';


create type tollgate.latency as (
  requests bigint,
  average_ms numeric,
  p50_ms bigint,
  p90_ms bigint,
  p95_ms bigint,
  p99_ms bigint
);

comment on type tollgate.latency is 'How long requests took; nulls where there were none.';

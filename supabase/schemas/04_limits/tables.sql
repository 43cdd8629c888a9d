create domain tollgate.counters as bigint[] check (value is null or cardinality(value) = 15);

comment on domain tollgate.counters is 'For minute, hour and day: bucket, requests, tokens, requests in the bucket before, tokens in it.';


create domain tollgate.limit as bigint check (value between 0 and 100000000000);

comment on domain tollgate.limit is 'A limit of requests or tokens. Its bound keeps the arithmetic of the windows within bigint.';


create type tollgate.limits as (
  requests_per_minute tollgate.limit,
  requests_per_hour tollgate.limit,
  requests_per_day tollgate.limit,
  tokens_per_minute tollgate.limit,
  tokens_per_hour tollgate.limit,
  tokens_per_day tollgate.limit
);

comment on type tollgate.limits is 'Six limits; null is none.';


create type tollgate.room as (
  requests_limit bigint,
  requests_left bigint,
  requests_reset_ms bigint,
  tokens_limit bigint,
  tokens_left bigint,
  tokens_reset_ms bigint
);

comment on type tollgate.room is 'Of each measure the window with the least left: its limit, what is left, and how long a request of this moment stays in it. Nulls where no window of the measure has a limit.';

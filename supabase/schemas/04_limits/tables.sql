create type tollgate.counters as (
  minute_bucket bigint,
  minute_requests bigint,
  minute_tokens bigint,
  minute_requests_before bigint,
  minute_tokens_before bigint,
  hour_bucket bigint,
  hour_requests bigint,
  hour_tokens bigint,
  hour_requests_before bigint,
  hour_tokens_before bigint,
  day_bucket bigint,
  day_requests bigint,
  day_tokens bigint,
  day_requests_before bigint,
  day_tokens_before bigint
);

comment on type tollgate.counters is 'For minute, hour and day: the number of the current bucket, the requests and tokens in it, and those in the previous bucket. Not an array, because in plpgsql a subscript costs more than a field.';


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


create type tollgate.remaining as (
  requests_limit bigint,
  requests_left bigint,
  requests_reset_ms bigint,
  tokens_limit bigint,
  tokens_left bigint,
  tokens_reset_ms bigint
);

comment on type tollgate.remaining is 'Of requests and of tokens, the window with the least left: its limit, what is left, and how long a request made now stays in it. Null where no window has a limit.';

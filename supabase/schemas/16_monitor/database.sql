-- Statistics of the database.

create function tollgate.index_advice() returns jsonb
language sql
set search_path = ''
as $$
  select jsonb_build_object(
    'counted_since', (
      select tollgate.utc(d.stats_reset) from pg_catalog.pg_stat_database d where d.datname = current_database()
    ),
    'unused', coalesce((
      select jsonb_agg(jsonb_build_object('index', s.indexrelname, 'table', s.relname, 'bytes', pg_relation_size(s.indexrelid))
        order by pg_relation_size(s.indexrelid) desc, s.indexrelname)
      from pg_catalog.pg_stat_user_indexes s
      join pg_catalog.pg_index i on i.indexrelid = s.indexrelid
      where s.schemaname = 'tollgate' and s.idx_scan = 0 and not i.indisunique
    ), '[]'),
    'missing', coalesce((
      select jsonb_agg(jsonb_build_object('table', m.relname, 'reason', m.reason) order by m.relname, m.reason)
      from (
        select s.relname, format(
          '%s reads of the whole table, of %s rows each, against %s by an index', s.seq_scan, s.seq_tup_read / s.seq_scan, s.idx_scan
        ) as reason
        from pg_catalog.pg_stat_user_tables s
        where s.schemaname = 'tollgate' and s.n_live_tup > 10000
          and s.seq_scan > 100 and s.seq_tup_read / s.seq_scan > 10000 and s.seq_scan > coalesce(s.idx_scan, 0)
        union all
        select c.conrelid::regclass::text, format('foreign key %s has no index', c.conname)
        from pg_catalog.pg_constraint c
        where c.contype = 'f' and c.connamespace = 'tollgate'::regnamespace and not exists (
          select from pg_catalog.pg_index i
          where i.indrelid = c.conrelid and (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey
        )
      ) m
    ), '[]')
  )
$$;

comment on function tollgate.index_advice() is
  'Indexes that were never read since the statistics were reset, and tables that are read in full more often than by an index. Only a hint. Unique indexes are never listed as unused.';


create function tollgate.last_backup() returns jsonb
language sql
set search_path = ''
as $$
  select jsonb_build_object(
    'archived_at', tollgate.utc(a.last_archived_time),
    'failed_at', tollgate.utc(a.last_failed_time),
    'reason', case when a.last_archived_time is null then
      'Postgres does not archive its write-ahead log here, and knows of no other backup. Ask the host of the database.'
    end
  )
  from pg_catalog.pg_stat_archiver a
$$;

comment on function tollgate.last_backup() is
  'What Postgres knows about backups: when it last archived a segment of its log, or that it does not archive.';


create function tollgate.sessions() returns jsonb
language sql
set search_path = ''
as $$
  select jsonb_build_object(
    'connections', jsonb_build_object(
      'used', (select sum(d.numbackends) from pg_catalog.pg_stat_database d),
      'used_here', (select d.numbackends from pg_catalog.pg_stat_database d where d.datname = current_database()),
      'most', current_setting('max_connections')::integer,
      'reserved', current_setting('superuser_reserved_connections')::integer
    ),
    'oldest_transaction', (
      select jsonb_build_object(
        'began_at', tollgate.utc(a.xact_start),
        'seconds', extract(epoch from clock_timestamp() - a.xact_start)::bigint,
        'pid', a.pid,
        'state', a.state
      )
      from pg_catalog.pg_stat_activity a
      where a.datname = current_database() and a.pid <> pg_backend_pid() and a.xact_start is not null
        and a.backend_type = 'client backend'
      order by a.xact_start
      limit 1
    ),
    'sees_all_sessions', pg_has_role('pg_read_all_stats', 'member')
  )
$$;

comment on function tollgate.sessions() is
  'Connections, and the oldest transaction besides this one: of all roles if our owner may see them, otherwise of its own.';


create function tollgate.sizes() returns jsonb
language sql
set search_path = ''
as $$
  select jsonb_build_object(
    'database_bytes', pg_database_size(current_database()),
    'tables_bytes', coalesce(sum(t.table_bytes), 0),
    'indexes_bytes', coalesce(sum(t.index_bytes), 0),
    'tables', coalesce(jsonb_agg(jsonb_build_object(
      'table', t.relname,
      'rows', t.n_live_tup,
      'dead_rows', t.n_dead_tup,
      'table_bytes', t.table_bytes,
      'index_bytes', t.index_bytes,
      'last_vacuum_at', tollgate.utc(greatest(t.last_vacuum, t.last_autovacuum)),
      'last_analyze_at', tollgate.utc(greatest(t.last_analyze, t.last_autoanalyze))
    ) order by t.table_bytes + t.index_bytes desc, t.relname), '[]')
  )
  from (
    select s.*, pg_table_size(s.relid) as table_bytes, pg_indexes_size(s.relid) as index_bytes
    from pg_catalog.pg_stat_user_tables s
    where s.schemaname = 'tollgate'
  ) t
$$;

comment on function tollgate.sizes() is 'The sizes of the database and of our tables, and when they were vacuumed and analyzed. Rows are Postgres''s estimate.';


create function tollgate.slowest_functions() returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  home text := (
    select n.nspname from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
    where e.extname = 'pg_stat_statements'
  );
  slowest jsonb;
  reason text := 'pg_stat_statements is not installed in this database and track_functions is none, so Postgres does not time functions.';
begin
  if home is not null then
    begin
      execute format(
        $query$
          select coalesce(jsonb_agg(to_jsonb(f) order by f.total_ms desc), '[]')
          from (
            select substring(s.query from 'tollgate_[a-z_]+') as function, sum(s.calls)::bigint as calls,
              round(sum(s.total_exec_time)::numeric, 3) as total_ms,
              round((sum(s.total_exec_time) / greatest(sum(s.calls), 1))::numeric, 3) as mean_ms,
              round(max(s.max_exec_time)::numeric, 3) as most_ms
            from %I.pg_stat_statements s
            join pg_catalog.pg_database d on d.oid = s.dbid and d.datname = current_database()
            where s.query ~ 'public"?\."?tollgate_[a-z_]+'
            group by 1
            order by 3 desc
            limit 20
          ) f
        $query$,
        home
      ) into slowest;
      return jsonb_build_object('source', 'pg_stat_statements', 'functions', slowest, 'reason', null);
    exception when object_not_in_prerequisite_state or insufficient_privilege or undefined_column then
      reason := 'pg_stat_statements is installed but cannot be read here: ' || sqlerrm || '.';
    end;
  end if;

  if current_setting('track_functions') = 'none' then
    return jsonb_build_object('source', null, 'functions', null, 'reason', reason);
  end if;
  select coalesce(jsonb_agg(to_jsonb(f) order by f.total_ms desc), '[]') into slowest
  from (
    select s.funcname as function, s.calls, round(s.total_time::numeric, 3) as total_ms,
      round((s.total_time / greatest(s.calls, 1))::numeric, 3) as mean_ms, null as most_ms
    from pg_catalog.pg_stat_user_functions s
    where s.schemaname = 'public' and s.funcname like 'tollgate\_%'
    order by s.total_time desc
    limit 20
  ) f;
  return jsonb_build_object('source', 'pg_stat_user_functions', 'functions', slowest, 'reason', null);
end
$$;

comment on function tollgate.slowest_functions() is
  'The functions that took most time, from pg_stat_statements, else from pg_stat_user_functions, else none and the reason.';


create function public.tollgate_database(caller jsonb) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin');
begin
  return jsonb_build_object(
    'caller', tollgate.identity(actor),
    'schema_version', (select v.version from tollgate.schema_version v),
    'server_version', current_setting('server_version'),
    'sizes', tollgate.sizes(),
    'slowest', tollgate.slowest_functions(),
    'indexes', tollgate.index_advice(),
    'last_backup', tollgate.last_backup()
  ) || tollgate.sessions();
end
$$;

comment on function public.tollgate_database(jsonb) is
  'The state of the database, from Postgres''s own statistics; needs no superuser. For admins. Refuses: as recognise(). Locks nothing.';

select tollgate.expose('public.tollgate_database(jsonb)');


create function tollgate.database_load() returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'bytes', pg_catalog.pg_database_size(d.datname),
    'connections', (select sum(o.numbackends) from pg_catalog.pg_stat_database o),
    'most_connections', current_setting('max_connections')::integer,
    'committed', d.xact_commit,
    'rolled_back', d.xact_rollback,
    'blocks_read', d.blks_read,
    'blocks_hit', d.blks_hit,
    'deadlocks', d.deadlocks,
    'oldest_transaction_seconds', coalesce((
      select extract(epoch from clock_timestamp() - min(a.xact_start))::bigint
      from pg_catalog.pg_stat_activity a
      where a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
    ), 0)
  )
  from pg_catalog.pg_stat_database d
  where d.datname = current_database()
$$;

comment on function tollgate.database_load() is
  'What Postgres counts of this database and its connections.';

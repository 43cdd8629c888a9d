-- The rules that are on from the start. alerts/register.py says what each means.

create function tollgate.default_rules() returns setof tollgate.alert_rules
language sql
stable
set search_path = ''
as $$
  select d.id, d.signal, d.comparison, d.threshold, d.clear_threshold, d.for_seconds, d.clear_seconds, d.severity,
    null::text[], 'active', '', now(), now()
  from (values
    ('error_rate', 'error_rate_percent', 'at_least', 10, 5, 120, 300, 'critical'),
    ('latency', 'latency_p95_ms', 'at_least', 120000, 90000, 300, 300, 'warning'),
    ('first_token', 'first_token_p95_ms', 'at_least', 20000, 15000, 300, 300, 'warning'),
    ('upstream_down', 'upstream_down', 'at_least', 1, null, 0, 60, 'critical'),
    ('breaker_open', 'breaker_open', 'at_least', 1, null, 60, 120, 'warning'),
    ('host_silent', 'host_silent_seconds', 'at_least', 120, 60, 60, 60, 'critical'),
    ('catalog_stale', 'catalog_age_seconds', 'at_least', 21600, 3600, 0, 0, 'warning'),
    ('openrouter_credit', 'openrouter_days_left', 'below', 3, 5, 0, 0, 'critical'),
    ('margin_negative', 'margin_percent', 'below', 0, null, 600, 600, 'critical'),
    ('reconciliation', 'reconciliation_difference_ppm', 'at_least', 1000, null, 0, 0, 'critical'),
    ('unsettled', 'unsettled_requests', 'at_least', 100, 50, 600, 300, 'warning'),
    ('expired_holds', 'expired_holds', 'at_least', 1, null, 300, 60, 'critical'),
    ('quarantined', 'quarantined_requests', 'at_least', 1, null, 0, 0, 'critical'),
    ('books', 'books_faults', 'at_least', 1, null, 0, 0, 'critical'),
    ('database_slow', 'database_answer_ms', 'at_least', 2000, 1000, 120, 300, 'warning'),
    ('database_connections', 'database_connections_percent', 'at_least', 85, 75, 120, 300, 'critical'),
    ('database_size', 'database_bytes', 'at_least', 1e12, 9e11, 0, 0, 'warning'),
    ('database_transaction', 'database_transaction_seconds', 'at_least', 3600, null, 0, 0, 'warning'),
    ('backup_old', 'days_since_verified_backup', 'at_least', 7, null, 0, 0, 'critical'),
    ('process_memory', 'process_memory_percent', 'at_least', 90, 80, 300, 300, 'warning'),
    ('process_disk', 'process_disk_percent', 'at_least', 90, 85, 0, 300, 'critical'),
    ('sweeper_paused', 'sweep_pause_seconds', 'at_least', 600, null, 0, 0, 'warning'),
    ('channel_failing', 'channel_failures', 'at_least', 3, 1, 0, 0, 'warning'),
    ('spend_of_org', 'org_spend_times_usual', 'at_least', 5, 2, 0, 600, 'warning'),
    ('spend_of_key', 'key_spend_times_usual', 'at_least', 10, 3, 0, 600, 'warning'),
    ('balance_low', 'balance_days_left', 'below', 1, 2, 0, 0, 'info'),
    ('key_budget_near', 'key_budget_percent', 'at_least', 90, null, 0, 0, 'info'),
    ('key_budget_reached', 'key_budget_percent', 'at_least', 100, null, 0, 0, 'info'),
    ('key_expiring', 'key_days_left', 'below', 7, null, 0, 0, 'info'),
    ('key_new_networks', 'key_new_networks', 'at_least', 5, null, 0, 0, 'warning'),
    ('key_networks', 'key_networks', 'at_least', 20, 10, 0, 600, 'warning'),
    ('refused_address', 'refusals_in_hour', 'at_least', 100, 50, 0, 3600, 'warning'),
    ('limits_hit', 'limits_hit_in_hour', 'at_least', 1000, 500, 0, 3600, 'info'),
    ('credential_stuffing', 'stuffing_addresses', 'at_least', 40, 20, 0, 0, 'critical'),
    ('ids_enumerated', 'missing_ids', 'at_least', 60, 30, 0, 0, 'warning'),
    ('models_read_widely', 'models_read', 'at_least', 100, 50, 0, 0, 'warning'),
    ('models_asked_widely', 'models_asked', 'at_least', 40, 30, 0, 0, 'warning'),
    ('idempotency_keys_reused', 'idempotency_keys_reused', 'at_least', 20, 10, 0, 0, 'warning'),
    ('idempotency_key_shared', 'idempotency_networks', 'at_least', 4, null, 0, 0, 'critical'),
    ('security_event', 'security_events', 'at_least', 1, null, 0, 0, 'warning')
  ) d (id, signal, comparison, threshold, clear_threshold, for_seconds, clear_seconds, severity)
$$;

comment on function tollgate.default_rules() is 'The rules of a new installation, as they are before an operator changes them.';

insert into tollgate.alert_rules select d.* from tollgate.default_rules() d;

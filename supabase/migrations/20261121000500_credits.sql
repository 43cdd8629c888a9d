-- Why:  a balance must be provable, so every nano that enters or leaves a wallet is a row that never changes.
-- What: the ledger (transfers) and the function that grants credits.
-- Care: additive. Lock order: org, then transfer.

-- Domains, as for tollgate.orgs.
create domain tollgate.account as text check (value in ('wallet', 'funding', 'promotion', 'revenue', 'writeoff'));
create domain tollgate.transfer_kind as text check (value in ('grant', 'charge', 'refund', 'adjustment'));
create domain tollgate.amount_nanos as bigint check (value between 1 and 100000000000000000);
create domain tollgate.reference as text check (length(value) between 1 and 255);
create domain tollgate.reason as text check (length(value) <= 1000);

create table tollgate.transfers (
  position bigint generated always as identity primary key,
  org_id text not null,
  debit tollgate.account not null,
  credit tollgate.account not null,
  amount_nanos tollgate.amount_nanos not null,
  kind tollgate.transfer_kind not null,
  reference tollgate.reference not null,
  reason tollgate.reason not null default '',
  balance_after_nanos bigint not null,
  created_at timestamptz not null default clock_timestamp(),
  unique (kind, reference),
  check ((debit = 'wallet') <> (credit = 'wallet'))
);

create index transfers_org on tollgate.transfers (org_id, position desc);

comment on table tollgate.transfers is 'The ledger: each row moves amount_nanos from the account `debit` to the account `credit`, one of them the org''s wallet. Append-only. No foreign key: it is written only under the org''s lock, on the path of every request.';
comment on column tollgate.transfers.position is 'The order in which an org''s transfers were made: drawn while the org is locked. An id shows it as trf_<position>.';
comment on column tollgate.transfers.reference is 'What caused it; (kind, reference) is unique, so a repeated cause moves money once.';
comment on column tollgate.transfers.balance_after_nanos is 'The org''s balance after this transfer.';

alter table tollgate.transfers enable row level security;

create trigger transfers_append_only
before update or delete or truncate on tollgate.transfers
for each statement execute function tollgate.forbid_change();


create function tollgate.transfer_id(t tollgate.transfers) returns text
language sql
immutable
set search_path = ''
as $$
  select 'trf_' || t.position
$$;

comment on function tollgate.transfer_id(tollgate.transfers) is 'How a transfer is called outside.';


create function public.tollgate_grant(
  caller jsonb,
  org_id text,
  amount_nanos bigint,
  source text,
  reason text,
  reference text
) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  actor tollgate.caller := tollgate.recognise(caller, 'admin', touch => false);
  balance bigint;
  earlier tollgate.transfers;
  posted tollgate.transfers;
begin
  if source not in ('funding', 'promotion') then
    perform tollgate.refuse(400, 'invalid_request', jsonb_build_object('param', 'source', 'source', source));
  end if;
  if amount_nanos is null or amount_nanos not between 1 and 100000000000000000 then
    perform tollgate.refuse(400, 'invalid_request',
      jsonb_build_object('param', 'amount_nanos', 'amount_nanos', amount_nanos));
  end if;

  select o.balance_nanos into balance from tollgate.orgs o where o.id = tollgate_grant.org_id for no key update;
  if not found then
    perform tollgate.refuse(404, 'not_found', jsonb_build_object('kind', 'org', 'id', org_id));
  end if;

  select t.* into earlier from tollgate.transfers t where t.kind = 'grant' and t.reference = tollgate_grant.reference;
  if found then
    if (earlier.org_id, earlier.amount_nanos, earlier.debit)
      is distinct from (tollgate_grant.org_id, tollgate_grant.amount_nanos, source)
    then
      perform tollgate.refuse(422, 'idempotency_key_reused', jsonb_build_object('transfer_id', tollgate.transfer_id(earlier)));
    end if;
    return jsonb_build_object('caller', tollgate.identity(actor), 'created', false,
      'transfer_id', tollgate.transfer_id(earlier), 'balance_nanos', balance);
  end if;

  update tollgate.orgs o
  set balance_nanos = o.balance_nanos + tollgate_grant.amount_nanos, updated_at = now()
  where o.id = tollgate_grant.org_id
  returning o.balance_nanos into balance;

  begin
    insert into tollgate.transfers (org_id, debit, credit, amount_nanos, kind, reference, reason, balance_after_nanos)
    values (org_id, source, 'wallet', amount_nanos, 'grant', reference, reason, balance)
    returning * into posted;
  exception when unique_violation then -- another org took the same reference at this moment
    perform tollgate.refuse(422, 'idempotency_key_reused', jsonb_build_object('reference', reference));
  end;

  perform tollgate.record(actor, 'credits.granted', org_id, tollgate.transfer_id(posted),
    jsonb_build_object('amount_nanos', amount_nanos, 'source', source, 'reason', reason, 'reference', reference));
  return jsonb_build_object('caller', tollgate.identity(actor), 'created', true,
    'transfer_id', tollgate.transfer_id(posted), 'balance_nanos', balance);
end
$$;

comment on function public.tollgate_grant(jsonb, text, bigint, text, text, text) is
  'Adds credits to an org, once per reference: a repetition answers with the first transfer. For the console and admins. Refuses: as recognise(), invalid_request, not_found, idempotency_key_reused. Locks the org.';

select tollgate.expose('public.tollgate_grant(jsonb, text, bigint, text, text, text)');


create or replace function tollgate.schema_version() returns text
language sql
immutable
set search_path = ''
as $$
  select '20261121000500'
$$;

revoke execute on all functions in schema tollgate from public;

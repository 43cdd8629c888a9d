-- Counts wrong passwords, so that nobody guesses them.
--
-- A try counts as a failure before the password is checked, so that tries at the same time cannot pass the limit together.
-- A right password takes its failure back.

create function tollgate.account_of(email text) returns text
language sql
immutable
set search_path = ''
as $$
  select encode(sha256(convert_to(lower(email), 'UTF8')), 'hex')
$$;

comment on function tollgate.account_of(text) is
  'How failures name an account. A digest, because some people type their password into the field of the email.';


create function tollgate.most_password_failures(counted tollgate.password_failures, is_known boolean) returns integer
language sql
immutable
set search_path = ''
as $$
  select case
    when counted.account = '' then 30
    when counted.address <> '' then 10
    when not is_known then 100
  end
$$;

comment on function tollgate.most_password_failures(tollgate.password_failures, boolean) is
  'How many failures are allowed in 15 minutes: 30 of an address, 10 of an account from one address, and 100 of an account, but no limit of the last for an address from which its password was right before.';


create function tollgate.count_password_failure(account text, address text, is_known boolean) returns integer
language plpgsql
set search_path = ''
as $$
declare
  counted tollgate.password_failures;
  of_account integer;
begin
  for counted in
    insert into tollgate.password_failures as f (account, address)
    values ('', count_password_failure.address), (count_password_failure.account, ''),
      (count_password_failure.account, count_password_failure.address)
    on conflict on constraint password_failures_pkey do update set
      failures = case when f.since > now() - interval '15 minutes' then f.failures + 1 else 1 end,
      since = case when f.since > now() - interval '15 minutes' then f.since else now() end
    returning f.*
  loop
    if counted.failures > tollgate.most_password_failures(counted, is_known) then
      perform tollgate.refuse(429, 'too_many_sign_ins', jsonb_build_object(
        'retry_after_seconds', ceil(extract(epoch from counted.since + interval '15 minutes' - now()))::integer
      ));
    end if;
    if counted.address = '' then
      of_account := counted.failures;
    end if;
  end loop;
  delete from tollgate.password_failures f
  where (f.account, f.address) in (
    select o.account, o.address from tollgate.password_failures o
    where o.since <= now() - interval '15 minutes'
    limit 100
    for update skip locked
  );
  return of_account;
end
$$;

comment on function tollgate.count_password_failure(text, text, boolean) is
  'Counts a failure, and answers how many the account has from all addresses. Refuses, and counts nothing then: too_many_sign_ins. Deletes counts that are over, at most 100. Locks the counts, in the order address, account, both.';


create function tollgate.forgive_password_failure(account text, address text) returns void
language sql
set search_path = ''
as $$
  update tollgate.password_failures f set failures = f.failures - 1
  where f.account = '' and f.address = forgive_password_failure.address and f.failures > 0;
  update tollgate.password_failures f set failures = f.failures - 1
  where f.account = forgive_password_failure.account and f.address = '' and f.failures > 0;
  delete from tollgate.password_failures f
  where f.account = forgive_password_failure.account and f.address = forgive_password_failure.address;
$$;

comment on function tollgate.forgive_password_failure(text, text) is
  'Takes back the failure of a right password, and those of its account from this address. Locks as count_password_failure().';

-- The trigger of append-only tables.

create function tollgate.forbid_change() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  raise exception '%.% is append-only: % is refused', tg_table_schema, tg_table_name, tg_op
    using errcode = 'restrict_violation';
end
$$;

comment on function tollgate.forbid_change() is 'Trigger of the append-only tables.';

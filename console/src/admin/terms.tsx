/** The fields that orgs and plans share: the markup, the open requests, and the fee of calls with an own key. */
import { Input, type Values } from "../parts/dialogs";
import { exactCredits, nanosOf } from "../parts/money";

interface Terms {
  markup: number | null;
  max_concurrent_requests: number | null;
  byok_fee_nanos: number | null;
}

const MILLIONTHS = 1_000_000;
const percentOf = (markup: number): string => String(Math.round(markup * MILLIONTHS) / (MILLIONTHS / 100));
const creditsOf = (nanos: number): string => exactCredits(BigInt(nanos)).replaceAll(",", "");

interface TermFieldsProps {
  row?: Terms | undefined;
  /** What applies where a field is left empty. */
  none: string;
  noBound?: string;
}

export const TermFields = ({ row, none, noBound = none }: TermFieldsProps) => (
  <>
    <div class="pair">
      <Input
        label="Markup in percent"
        name="markup"
        type="number"
        step="any"
        min={0}
        placeholder={none}
        hint="What a request costs besides the upstream's price."
        defaultValue={row?.markup === null || !row ? "" : percentOf(row.markup)}
      />
      <Input
        label="Open requests"
        name="max_concurrent_requests"
        type="number"
        min={0}
        placeholder={noBound}
        hint="The most that run at the same time."
        defaultValue={row?.max_concurrent_requests?.toString() ?? ""}
      />
    </div>
    <Input
      label="Fee of a call with an own upstream key, in credits"
      name="byok_fee"
      param="byok_fee_nanos"
      inputMode="decimal"
      pattern="\d{1,6}(\.\d{0,9})?"
      title="Credits with at most nine decimals, such as 0.001"
      placeholder={none}
      defaultValue={row?.byok_fee_nanos === null || !row ? "" : creditsOf(row.byok_fee_nanos)}
    />
  </>
);

/** The API takes the markup in steps of a millionth: 0.05 is 5 %. */
export function termsOf(values: Values): Terms {
  const percent = values.number("markup");
  const fee = nanosOf(values.text("byok_fee"));
  return {
    markup: percent === null ? null : Math.round((percent * MILLIONTHS) / 100) / MILLIONTHS,
    max_concurrent_requests: values.number("max_concurrent_requests"),
    byok_fee_nanos: fee === null ? null : Number(fee),
  };
}

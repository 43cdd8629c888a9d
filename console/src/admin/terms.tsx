/** The fields that orgs and plans share: the markup and the open requests. */
import { Input, type Values } from "../parts/dialogs";

interface Terms {
  markup: number | null;
  max_concurrent_requests: number | null;
}

const MILLIONTHS = 1_000_000;
const percentOf = (markup: number): string => String(Math.round(markup * MILLIONTHS) / (MILLIONTHS / 100));

interface TermFieldsProps {
  row?: Terms | undefined;
  /** What holds where a field is left empty. */
  noMarkup: string;
  noBound: string;
}

export const TermFields = ({ row, noMarkup, noBound }: TermFieldsProps) => (
  <div class="pair">
    <Input
      label="Markup in percent"
      name="markup"
      type="number"
      step="any"
      min={0}
      placeholder={noMarkup}
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
);

/** The API takes the markup in steps of a millionth: 0.05 is 5 %. */
export function termsOf(values: Values): Terms {
  const percent = values.number("markup");
  return {
    markup: percent === null ? null : Math.round((percent * MILLIONTHS) / 100) / MILLIONTHS,
    max_concurrent_requests: values.number("max_concurrent_requests"),
  };
}

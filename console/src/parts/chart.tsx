/** Charts over time. Beside each stands a summary, a table of its data, and a cursor that the arrow keys move. */
import { effect } from "@preact/signals";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { theme } from "./theme";
import { bucketName } from "./times";

export interface Line {
  name: string;
  values: (number | null)[];
}

interface ChartProps {
  title: string;
  /** Starts of the buckets, in RFC 3339. */
  times: string[];
  bucket: string;
  lines: Line[];
  /** Bars of several lines are stacked. */
  kind?: "bars" | "lines";
  written: (value: number) => string;
  /** What the chart says in one sentence. */
  summary: string;
  /** Values are not whole numbers, as counts, nanos and milliseconds are. */
  fractions?: boolean;
}

const HEIGHT = 200;
const COLOURS = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6"];

export function Chart(props: ChartProps) {
  const { title, times, lines, bucket, written, summary } = props;
  const [at, setAt] = useState<number | null>(null);
  const id = useId();
  const move = (event: KeyboardEvent) => {
    const steps: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, Home: -times.length, End: times.length };
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    setAt((before) => Math.min(times.length - 1, Math.max(0, (before ?? (step > 0 ? -1 : times.length)) + step)));
  };
  return (
    <figure class="chart">
      <figcaption>
        <strong>{title}</strong>
        <span class="soft" id={id}>
          {summary}
        </span>
      </figcaption>
      <div
        class="plot"
        role="img"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: the arrow keys move the cursor
        tabIndex={0}
        aria-label={title}
        aria-describedby={id}
        onKeyDown={move}
        onBlur={() => setAt(null)}
      >
        <Plot {...props} at={at} onMove={setAt} />
      </div>
      <p class="reading" aria-live="polite">
        {at === null || !times[at] ? (
          <>
            {lines.length > 1 &&
              lines.map((line, index) => (
                <span key={line.name}>
                  <Swatch index={index} /> {line.name}
                </span>
              ))}
            <span class="soft">Hover, or use the arrow keys, to read values.</span>
          </>
        ) : (
          <>
            <b>{bucketName(times[at], bucket)}</b>
            {lines.map((line, index) => (
              <span key={line.name}>
                <Swatch index={index} /> {line.name} <b>{said(line.values[at], written)}</b>
              </span>
            ))}
          </>
        )}
      </p>
      <details>
        <summary>As a table</summary>
        <DataTable {...props} />
      </details>
    </figure>
  );
}

const said = (value: number | null | undefined, written: (value: number) => string): string =>
  value === null || value === undefined ? "–" : written(value);

const Swatch = ({ index }: { index: number }) => <i class={`swatch swatch-${(index % COLOURS.length) + 1}`} />;

function DataTable({ title, times, bucket, lines, written }: ChartProps) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolling region must take the focus to be scrolled by keyboard
    <section class="scroll tall" tabIndex={0} aria-label={`${title}, as a table`}>
      <table>
        <thead>
          <tr>
            <th scope="col">Time</th>
            {lines.map(({ name }) => (
              <th key={name} scope="col" class="number">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {times.map((time, row) => (
            <tr key={time}>
              <td>{bucketName(time, bucket)}</td>
              {lines.map(({ name, values }) => (
                <td key={name} class="number">
                  {said(values[row], written)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Plot(props: ChartProps & { at: number | null; onMove: (at: number | null) => void }) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const { times, lines, kind = "bars" } = props;
  const shape = JSON.stringify([times, lines, kind]);
  useEffect(() => {
    const place = box.current;
    if (!place) return;
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(optionsOf(props, place.clientWidth), dataOf(props), place);
    };
    const watch = new ResizeObserver(() => plot.current?.setSize({ width: place.clientWidth, height: HEIGHT }));
    watch.observe(place);
    const dispose = effect(() => {
      theme.value;
      draw();
    });
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", draw);
    return () => {
      scheme.removeEventListener("change", draw);
      dispose();
      watch.disconnect();
      plot.current?.destroy();
    };
  }, [shape]);
  useEffect(() => {
    const { current } = plot;
    if (!current) return;
    const left = props.at === null ? -10 : current.valToPos(seconds(times[props.at] ?? ""), "x");
    current.setCursor({ left, top: 0 }, false);
  }, [props.at]);
  return <div ref={box} />;
}

const seconds = (time: string): number => Date.parse(time) / 1000;

/** Stacked bars are drawn from the sums: the highest first, so that the lower ones cover it. */
function stacked(lines: Line[]): (number | null)[][] {
  const sums: number[] = [];
  return lines.map(({ values }) =>
    values.map((value, at) => {
      sums[at] = (sums[at] ?? 0) + (value ?? 0);
      return sums[at];
    }),
  );
}

function dataOf({ times, lines, kind = "bars" }: ChartProps): uPlot.AlignedData {
  const rows = kind === "bars" ? stacked(lines).reverse() : lines.map(({ values }) => values);
  return [times.map(seconds), ...rows];
}

function optionsOf(props: ChartProps & { onMove: (at: number | null) => void }, width: number): uPlot.Options {
  const { lines, kind = "bars", bucket, written, times, onMove, fractions = false } = props;
  const style = getComputedStyle(document.documentElement);
  const colour = (name: string) => resolved(style.getPropertyValue(name));
  const isFlat = lines.every(({ values }) => values.every((value) => !value));
  const bars = uPlot.paths.bars?.({ size: [0.7, 40], radius: 0.15 });
  const order = lines.map((_, index) => index);
  const drawn = (kind === "bars" ? order.reverse() : order).map((index): uPlot.Series => {
    const stroke = colour(COLOURS[index % COLOURS.length] ?? "");
    return kind === "bars"
      ? { fill: stroke, width: 0, points: { show: false }, ...(bars ? { paths: bars } : {}) }
      : { stroke, width: 1.75, points: { show: isSparse(lines[index]), size: 5 } };
  });
  const axis = { stroke: colour("--soft"), font: "11px system-ui", ticks: { show: false } };
  return {
    width,
    height: HEIGHT,
    padding: [8, 44, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    hooks: { setCursor: [(made) => made.cursor.event && onMove(made.cursor.idx ?? null)] },
    series: [{}, ...drawn],
    scales: { x: { time: true, range: (_, low, high) => around(low, high, times.length) }, y: { range: fromZero } },
    axes: [
      {
        ...axis,
        grid: { show: false },
        space: 100,
        values: (_, ticks) => ticks.map((tick) => bucketName(new Date(tick * 1000).toISOString(), bucket)),
      },
      {
        ...axis,
        ...(fractions ? {} : { incrs: WHOLE_STEPS }),
        size: (_, labels) => roomFor(labels ?? []),
        grid: { stroke: colour("--line"), width: 1 },
        values: (_, ticks) => ticks.map((tick) => (isFlat && tick ? "" : written(tick))),
      },
    ],
  };
}

/** 1, 2, 5, 10, 20, …: between two ticks of an axis of whole numbers. */
const WHOLE_STEPS = Array.from({ length: 18 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();

/** The width of an axis with these labels. */
const roomFor = (labels: string[]): number => Math.max(48, 16 + 7 * Math.max(0, ...labels.map(({ length }) => length)));

/** A value between two gaps is no line: it needs a point. */
const isSparse = (line: Line | undefined): boolean =>
  !!line?.values.some((value, at) => value !== null && line.values[at - 1] == null && line.values[at + 1] == null);

/** Half a bucket of room at both ends, so that no bar is cut. */
function around(low: number, high: number, buckets: number): [number, number] {
  const half = buckets > 1 ? (high - low) / (buckets - 1) / 2 : 1800;
  return [low - half, high + half];
}

const fromZero = (_: uPlot, low: number, high: number): [number, number] => [
  Math.min(0, low),
  high > 0 ? high * 1.08 : 1,
];

/** A canvas does not know light-dark(): an element resolves it. */
function resolved(value: string): string {
  const probe = document.createElement("i");
  probe.style.color = value;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

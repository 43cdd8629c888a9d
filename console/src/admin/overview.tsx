/** What an operator must know at a glance. */
import { Shown, useData } from "../parts/data";
import { Heading } from "../parts/frame";

export function Overview() {
  const loaded = useData("/admin/monitor", {}, 30);
  return (
    <>
      <Heading title="Overview" />
      <Shown loaded={loaded}>{(found) => <pre>{JSON.stringify(found, null, 1)}</pre>}</Shown>
    </>
  );
}

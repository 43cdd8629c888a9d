/** The org's own keys for upstreams. */
import { Heading } from "../parts/frame";
import { UpstreamKeys as Stored } from "../parts/upstream_keys";

export const UpstreamKeys = () => (
  <>
    <Heading title="Upstream keys" />
    <Stored path="/user/upstream-keys" />
  </>
);

/** The keys of who is signed in. */
import { useState } from "preact/hooks";
import { Icon } from "../parts/basics";
import { FormDialog } from "../parts/dialogs";
import { Choice, Search } from "../parts/filters";
import { Heading } from "../parts/frame";
import { bodyOf, KeyFields } from "../parts/key_fields";
import { createKey, ENVIRONMENTS, KEY_STATES, KeyList } from "../parts/keys";

const PATH = "/user/api-keys";

export function Keys() {
  const [creates, setCreates] = useState(false);
  return (
    <>
      <Heading title="Keys">
        <button type="button" class="primary" onClick={() => setCreates(true)}>
          <Icon name="plus" /> Create a key
        </button>
      </Heading>
      <div class="filters">
        <Search label="Find by name or beginning" />
        <Choice name="status" label="State" options={KEY_STATES} />
        <Choice name="environment" label="Environment" options={ENVIRONMENTS} />
      </div>
      <KeyList
        path={PATH}
        nothing={
          <>
            <p>There is no key yet. A program needs one to use the API.</p>
            <button type="button" onClick={() => setCreates(true)}>
              Create the first key
            </button>
          </>
        }
      />
      {creates && (
        <FormDialog
          title="Create a key"
          action="Create"
          onClose={() => setCreates(false)}
          submit={(values, idempotencyKey) => createKey(PATH, bodyOf(values), idempotencyKey)}
        >
          <KeyFields />
        </FormDialog>
      )}
    </>
  );
}

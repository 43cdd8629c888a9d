/** How a program uses the API from here: the address, and a first request in three languages. */
import { useState } from "preact/hooks";
import { base } from "../parts/api";
import { Copy, Icon } from "../parts/basics";
import { Panel, useData } from "../parts/data";
import { Facts } from "../parts/figures";
import { Heading } from "../parts/frame";
import { link } from "../parts/routing";
import { curl, javascript, python } from "../parts/snippets";

const USUAL_MODEL = "openai/gpt-4o-mini";
const MESSAGES = [{ role: "user", content: "Say hello." }];
const PATH = "v1/chat/completions";
const LANGUAGES: [string, (path: string, body: Record<string, unknown>) => string][] = [
  ["curl", curl],
  ["Python", python],
  ["JavaScript", javascript],
];

/** A model that this org has. */
function useModel(): string {
  const models = useData("/v1/models").data?.data ?? [];
  const known = models.some(({ id }) => id === USUAL_MODEL);
  return known ? USUAL_MODEL : (models[0]?.id ?? USUAL_MODEL);
}

export function Connect() {
  const [chosen, choose] = useState(0);
  const [name, write] = LANGUAGES[chosen] ?? ["curl", curl];
  const text = write(PATH, { model: useModel(), messages: MESSAGES });
  return (
    <>
      <Heading title="Connect" />
      <Panel title="Where to send requests">
        <Facts
          facts={[
            [
              "Base URL",
              <>
                <code>{base()}/v1</code>
                <Copy label="Base URL" text={() => `${base()}/v1`} />
              </>,
            ],
            [
              "API key",
              <a key="keys" class="text" href={link("keys")}>
                Create or choose one
              </a>,
            ],
            [
              "Models",
              <a key="models" class="text" href="v1/models">
                All models with their prices, as JSON
              </a>,
            ],
          ]}
        />
      </Panel>
      <Panel
        title="A first request"
        aside={
          <Copy label={name} text={() => text}>
            <Icon name="copy" /> Copy
          </Copy>
        }
      >
        <fieldset class="segments">
          <legend class="offscreen">Language</legend>
          {LANGUAGES.map(([language], index) => (
            <label key={language}>
              <input type="radio" name="language" checked={index === chosen} onChange={() => choose(index)} />
              <span>{language}</span>
            </label>
          ))}
        </fieldset>
        {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolling region must take the focus */}
        <pre class="code" tabIndex={0}>
          {text}
        </pre>
        <p class="soft small">
          Set <code>TOLLGATE_API_KEY</code> to your key first. Any client of OpenAI's API works with this base URL.
        </p>
      </Panel>
    </>
  );
}

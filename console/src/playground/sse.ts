/** The JSON of each event of a stream. Comments and `[DONE]` are left out. */
export async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<Record<string, unknown>> {
  for await (const line of lines(body)) {
    const data = line.startsWith("data:") ? line.slice(5).trim() : "";
    if (data && data !== "[DONE]") yield JSON.parse(data);
  }
}

async function* lines(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    const parts = (rest + (value ? decoder.decode(value, { stream: true }) : "")).split(/\r?\n/);
    rest = done ? "" : (parts.pop() ?? "");
    yield* parts;
    if (done) return;
  }
}

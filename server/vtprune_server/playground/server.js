// What the page asks the server for.

let key = "";
export function useKey(value) {
  key = value;
}

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function call(path, body) {
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
  const method = body ? "POST" : "GET";
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  if (!response.ok) throw new Refused(response.status, await reason(response));
  return response;
}

async function reason(response) {
  const body = await response.json().catch(() => null);
  return body?.error?.message ?? body?.error ?? `${response.status} ${response.statusText}`;
}

export function message(image, question, extra = {}) {
  const picture = { type: "image_url", image_url: { url: image }, ...extra };
  return [{ role: "user", content: [picture, { type: "text", text: question }] }];
}

export async function explain(image, question, vtprune) {
  const body = { messages: message(image, question), vtprune };
  return (await (await call("explain", body)).json()).images[0];
}

// The chunks of an answer. The image has an identity of its own, so that no cache answers for it.
export async function* answer(model, image, question, vtprune) {
  const fresh = { uuid: crypto.randomUUID?.() ?? String(Math.random()) };
  const response = await call("../v1/chat/completions", {
    model, messages: message(image, question, fresh), max_tokens: 64, temperature: 0,
    stream: true, stream_options: { include_usage: true }, vtprune,
  });
  for await (const chunk of events(response)) {
    if (chunk.error) throw new Error(chunk.error.message);
    yield chunk;
  }
}

export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

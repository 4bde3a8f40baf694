"use strict";
// The requests of the page. Every failure is an Error whose message is the server's one line.

async function checked(reply) {
  if (!reply.ok) throw new Error((await reply.text()).trim());
  return reply;
}

const post = (address, body, how = {}) =>
  fetch(address, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body ?? {}),
    ...how,
  }).then(checked);

export const getJson = (address) => fetch(address).then(checked).then((reply) => reply.json());
export const getText = (address) => fetch(address).then(checked).then((reply) => reply.text());
export const postJson = (address, body) => post(address, body).then((reply) => reply.json());
export const remove = (address) => fetch(address, { method: "DELETE" }).then(checked);

// Yields the events of an answer as they arrive; aborting `signal` ends the answer.
export async function* answerEvents(question, signal) {
  const reply = await post("/ask", question, { signal });
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

// The record of an answer that was ended early: the model may need a moment for its last token.
export async function keptAnswer(id) {
  for (let wait = 50; wait < 5000; wait *= 2) {
    await new Promise((resume) => setTimeout(resume, wait));
    try {
      return await getJson(`/answers/${id}`);
    } catch {
      // not kept yet
    }
  }
  throw new Error("the stopped answer was not kept");
}

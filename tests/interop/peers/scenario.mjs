// Plays one scenario on a WHATWG-style WebSocket, in node and in a page alike (so it refers to nothing outside itself).
//
// scenario: { url, protocols?, send?: [{kind, text?, size?, fragments?}], receive?: number of messages to wait for,
//             echo?: true to compare them with what was sent, hold?: true to stay open until `finish` resolves,
//             close?: {code, reason}: close when all that is done (without it, the peer's close is awaited) }
// outcome:  { opened, protocol, extensions, texts, echoed, close: {code, reason}, clean }
export function play(scenario, open, told = () => {}, finish = Promise.resolve(), fragment = null) {
  function payload({ kind, text, size }) {
    if (text !== undefined && kind === 'text') return text;
    if (kind === 'text') return 'pulsegate \u2713 0123456789 '.repeat(size / 23 + 1).slice(0, size);
    const bytes = new Uint8Array(size);
    for (let i = 0; i < size; i += 1) bytes[i] = (i * 7 + (i >> 8)) & 255;
    return bytes;
  }
  function same(sent, got) {
    if (typeof sent === 'string') return sent === got;
    const bytes = new Uint8Array(got);
    return typeof got !== 'string' && bytes.length === sent.length && sent.every((byte, i) => byte === bytes[i]);
  }
  return new Promise((resolve) => {
    const sent = (scenario.send ?? []).map(payload);
    const wanted = scenario.receive ?? sent.length;
    const outcome = { opened: false, protocol: '', extensions: '', texts: [], echoed: true, close: null, clean: null };
    let received = 0;
    let last = null;
    let socket;
    try {
      socket = (open ?? ((url, protocols) => new WebSocket(url, protocols)))(scenario.url, scenario.protocols ?? []);
    } catch (error) {
      resolve({ ...outcome, error: String(error) });
      return;
    }
    socket.binaryType = 'arraybuffer';
    const done = async () => {
      if (scenario.hold) {
        await finish;
        const answer = new Promise((heard) => { last = heard; });
        socket.send('still here');
        outcome.texts.push(await answer);
      }
      if (scenario.close) socket.close(scenario.close.code, scenario.close.reason);
    };
    socket.onopen = () => {
      Object.assign(outcome, { opened: true, protocol: socket.protocol, extensions: socket.extensions });
      told({ event: 'open' });
      (scenario.send ?? []).forEach(({ fragments }, i) => {
        if (fragments && fragment) fragment(socket, sent[i], fragments);
        else socket.send(sent[i]);
      });
      if (wanted === 0) done();
    };
    socket.onmessage = ({ data }) => {
      if (last) {
        last(data);
        return;
      }
      if (scenario.echo && !same(sent[received], data)) outcome.echoed = false;
      if (typeof data === 'string' && data.length < 20000) outcome.texts.push(data);
      received += 1;
      if (received === wanted) done();
    };
    socket.onerror = (error) => { outcome.error = String(error.message ?? 'error'); };
    socket.onclose = ({ code, reason, wasClean }) => {
      if (received < wanted) outcome.echoed = false;
      resolve({ ...outcome, received, close: { code, reason }, clean: wasClean });
    };
  });
}

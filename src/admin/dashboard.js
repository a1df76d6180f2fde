// The dashboard of the admin listener: asks it for an overview every two seconds, and shows it. Nothing that comes from the gateway
// is ever taken for HTML: clients name themselves.
'use strict';

const EVERY = 2000;
const KEPT = 300;
const $ = (id) => document.getElementById(id);
const past = [];
let token = null;
let paused = false;
let timer = 0;
let asking = false;

/** Text in a new element. */
function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function age(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${(ms / 1000).toFixed(1)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function size(bytes) {
  for (const [unit, factor] of [['GiB', 2 ** 30], ['MiB', 2 ** 20], ['KiB', 2 ** 10]]) {
    if (bytes >= factor) return `${(bytes / factor).toFixed(1)} ${unit}`;
  }
  return `${bytes} B`;
}

const trip = (ms) => (ms === null || ms === undefined ? '–' : `${ms.toFixed(ms < 10 ? 2 : 0)} ms`);
const both = (session, key) => [session.legs.client[key], session.legs.upstream[key]];

/** An answer of the API; asks for the token when the gateway does. */
async function ask(path, body) {
  for (;;) {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const options = { headers, cache: 'no-store', credentials: 'omit' };
    if (body) Object.assign(options, { method: 'POST', body: JSON.stringify(body) });
    const answer = await fetch(path, options);
    const value = await answer.json();
    if (answer.ok) return value;
    if (answer.status !== 401 || !(await askToken(value.error))) throw new Error(value.error ?? answer.statusText);
  }
}

let tokenAsked = null;

/** Whether somebody gave a token. Two that ask share one dialog. */
function askToken(why) {
  tokenAsked ??= new Promise((resolve) => {
    const dialog = $('dialog-token');
    $('token-why').textContent = why;
    $('token').value = '';
    dialog.returnValue = 'cancel';
    dialog.addEventListener('close', () => {
      const given = dialog.returnValue === 'use' && $('token').value.trim();
      token = given || null;
      $('token').value = '';
      tokenAsked = null;
      if (!given) pause(true);
      resolve(Boolean(given));
    }, { once: true });
    dialog.showModal();
  });
  return tokenAsked;
}

function endDialog(session) {
  const dialog = $('dialog-end');
  $('end-key').textContent = session.key;
  $('end-about').textContent = `${session.client} on ${session.route}, to ${session.backend}, since ${age(session.age_ms)}`;
  $('end-code').value = '';
  $('end-reason').value = '';
  dialog.returnValue = 'cancel';
  dialog.addEventListener('close', async () => {
    if (dialog.returnValue !== 'end') return;
    const body = {};
    if ($('end-code').value) body.code = Number($('end-code').value);
    if ($('end-reason').value) body.reason = $('end-reason').value;
    try {
      await ask(`/api/v1/sessions/${encodeURIComponent(session.key)}/end`, body);
      say(`session ${session.key} is ended`);
      setTimeout(look, 300);
    } catch (error) {
      say(`session ${session.key} was not ended: ${error.message}`, true);
    }
  }, { once: true });
  dialog.showModal();
}

let saidUntil = 0;

function say(text, trouble = false, lasting = true) {
  if (!lasting && Date.now() < saidUntil) return;
  if (lasting) saidUntil = Date.now() + 4000;
  const state = $('state');
  if (state.textContent !== text) state.textContent = text;
  state.classList.toggle('trouble', trouble);
}

function line(chart, values, most, kind, filled) {
  const named = document.createElementNS(chart.namespaceURI, filled ? 'polygon' : 'polyline');
  const step = 600 / Math.max(values.length - 1, 1);
  const points = values.map((value, at) => [at * step, value]).filter(([, value]) => value !== null);
  const place = points.map(([x, value]) => `${x.toFixed(1)},${(156 - (value / (most || 1)) * 148).toFixed(1)}`);
  if (filled) place.push(`${(points.at(-1)?.[0] ?? 0).toFixed(1)},160`, `${(points[0]?.[0] ?? 0).toFixed(1)},160`);
  named.setAttribute('points', place.join(' '));
  named.setAttribute('class', filled ? `${kind} area` : kind);
  chart.append(named);
}

function charts() {
  const open = past.map((one) => one.open);
  const most = Math.max(1, ...open);
  const sessions = $('chart-sessions');
  sessions.replaceChildren();
  line(sessions, open, most, 'client', true);
  line(sessions, open, most, 'client');
  sessions.setAttribute('aria-label', `Open sessions: ${open.at(-1)} now, ${most} at most`);
  $('span-sessions').textContent = `the last ${age(past.at(-1).at - past[0].at)}`;
  $('top-sessions').textContent = `most ${most}`;
  const legs = ['client', 'upstream'].map((leg) => past.map((one) => one[leg]));
  const longest = Math.max(0.001, ...legs.flat().filter((value) => value !== null));
  const trips = $('chart-trips');
  trips.replaceChildren();
  legs.forEach((values, leg) => line(trips, values, longest, ['client', 'upstream'][leg]));
  const now = legs.map((values) => trip(values.at(-1)));
  trips.setAttribute('aria-label', `Median round trips: client ${now[0]}, upstream ${now[1]}`);
  $('top-trips').textContent = `most ${trip(longest)}`;
}

function rows(body, list, cells, none) {
  const made = list.map((one) => {
    const row = element('tr');
    row.append(...cells(one));
    return row;
  });
  if (!made.length) {
    const row = element('tr');
    row.append(element('td', none, { class: 'none', colspan: '9' }));
    made.push(row);
  }
  body.replaceChildren(...made);
}

const COLUMNS = ['session', 'client', 'route', 'backend', 'age', 'round trip client', 'upstream', 'silent', 'waiting', ''];

/** A table of sessions. The button that has the focus keeps it, as long as its session is there. */
function sessionTable(table, sessions) {
  const focused = table.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  if (!table.tHead) {
    const head = element('tr');
    head.append(...COLUMNS.map((name) => element('th', name || 'end', { scope: 'col' })));
    table.createTHead().append(head);
    table.append(element('tbody'));
  }
  const cell = (session) => {
    const values = [
      session.key, session.client, session.route, session.backend, age(session.age_ms),
      trip(session.legs.client.round_trip_ms), trip(session.legs.upstream.round_trip_ms),
      age(Math.max(...both(session, 'silence_ms'))),
      size(both(session, 'outbox').reduce((sum, bytes) => sum + bytes, 0)),
    ];
    const cells = values.map((value, at) => element('td', value, { 'data-label': COLUMNS[at] }));
    const button = element('button', 'End', { type: 'button', class: 'danger', 'data-key': session.key });
    button.setAttribute('aria-label', `End session ${session.key} of ${session.client}`);
    button.addEventListener('click', () => endDialog(session));
    const last = element('td');
    last.append(button);
    return [...cells, last];
  };
  rows(table.tBodies[0], sessions, cell, 'none yet');
  if (focused) table.querySelector(`button[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function show(all) {
  const { sessions, round_trip_ms: trips } = all;
  past.push({ at: Date.now(), open: sessions.open, client: trips.client.p50, upstream: trips.upstream.p50 });
  if (past.length > KEPT) past.shift();
  $('open').textContent = sessions.open;
  $('started').textContent = sessions.started;
  $('paused').textContent = sessions.paused;
  $('outbox').textContent = size(sessions.outbox);
  charts();
  const cells = (leg) => [
    element('th', leg, { scope: 'row', class: leg }),
    ...['p50', 'p90', 'p99', 'max'].map((name) => element('td', trip(trips[leg][name]))),
    element('td', trips[leg].count),
  ];
  rows($('trips'), ['client', 'upstream'], cells, '');
  const ended = Object.entries(sessions.ended).filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1]);
  const most = ended[0]?.[1] ?? 1;
  $('ended').replaceChildren(...(ended.length ? ended.map(([reason, count]) => {
    const item = element('li');
    item.append(element('span', reason), element('progress', '', { value: count, max: most, 'aria-label': reason }), element('span', count));
    return item;
  }) : [element('li', 'none yet', { class: 'none' })]));
  rows($('backends'), all.backends, (one) => [
    element('td', one.backend), element('td', one.upstream), element('td', one.state, { class: one.state }),
    element('td', one.sessions), element('td', one.answers_pings ? 'yes' : 'not yet'),
  ], 'none');
  sessionTable($('table-slowest'), all.slowest);
  sessionTable($('table-quietest'), all.quietest);
  const sample = sessions.asked < sessions.open * 0.9 ? `, figures of ${sessions.asked} of them` : '';
  say(`${all.phase}, up ${age(all.uptime_ms)}, version ${all.version}${sample}`, all.phase !== 'serving', false);
}

async function look() {
  clearTimeout(timer);
  if (asking || paused || document.hidden) return;
  asking = true;
  try {
    show(await ask('/api/v1/overview'));
  } catch (error) {
    say(`no answer: ${error.message}`, true, false);
  } finally {
    asking = false;
  }
  if (!paused) timer = setTimeout(look, EVERY);
}

function pause(wanted) {
  paused = wanted;
  const button = $('pause');
  button.setAttribute('aria-pressed', String(paused));
  button.textContent = paused ? 'Go on' : 'Pause';
  if (!paused) look();
}

$('pause').addEventListener('click', () => pause(!paused));
document.addEventListener('visibilitychange', look);
look();

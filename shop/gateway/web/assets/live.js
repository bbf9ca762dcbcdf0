// All events as they happen. However many come, a bounded number is kept, and drawn at a bounded pace.

import { EVENTS, inWords, SERVICES } from './events.js';
import { Feed, showLink } from './feed.js';
import { aim, byId, debounce, el, setText, showMoney, showPrecise } from './lib.js';

const KEPT = 1000;
const SHOWN = 200;
const DRAW = 200; // ms
const SPAN = 5; // seconds that the rate is of

const rows = byId('rows');
let kept = []; // the newest last
let fresh = []; // not drawn yet
let held = 0; // came while paused
let total = 0;
let paused = false;
const filter = { service: '', type: '', key: '' };
const seconds = new Map(); // events by second

const matches = (e) => (!filter.service || e.producer === filter.service)
  && (!filter.type || e.type === filter.type)
  && (!filter.key || e.key.toLowerCase().includes(filter.key));

// What an event says beside its name, if it is short.
function aside({ data }) {
  if (!data) return '';
  const money = data.total ?? data.amount ?? data.price;
  return [data.reason, data.code, money?.currency && showMoney(money)].filter(Boolean).join(' · ');
}

function row(e) {
  const of = e.topic === 'catalog-events' ? e.key : el('a', { href: `/order/${encodeURIComponent(e.key)}` }, e.key);
  return el('tr', { 'data-type': e.type },
    el('td', { class: 'code' }, showPrecise(e.at)),
    el('td', { title: e.type }, inWords(e.type), ' ', el('span', { class: 'muted small' }, aside(e))),
    el('td', {}, e.producer),
    el('td', { class: 'code' }, of));
}

function trim() {
  while (rows.children.length > SHOWN) rows.lastElementChild.remove();
  const none = rows.children.length === 0;
  byId('empty').hidden = !none;
  if (!none) return;
  const filtered = kept.length > 0;
  byId('empty').replaceChildren(el('strong', {}, filtered ? 'No event matches' : 'Nothing yet'),
    filtered ? 'Choose another service, type or key.' : 'Events appear here as they happen.');
}

function drawAll() {
  fresh = [];
  rows.replaceChildren(...kept.filter(matches).slice(-SHOWN).reverse().map(row));
  trim();
}

function drawFresh() {
  if (paused || fresh.length === 0) return;
  const show = fresh.filter(matches).slice(-SHOWN).reverse();
  fresh = [];
  rows.prepend(...show.map(row));
  trim();
}

function onEvent(e) {
  total += 1;
  const second = Math.floor(performance.now() / 1000);
  seconds.set(second, (seconds.get(second) ?? 0) + 1);
  if (paused) held += 1;
  kept.push(e);
  if (kept.length > 2 * KEPT) kept = kept.slice(-KEPT);
  fresh.push(e);
  if (fresh.length > SHOWN * 4) fresh = fresh.slice(-SHOWN * 2);
}

function tick() {
  drawFresh();
  const now = Math.floor(performance.now() / 1000);
  for (const second of seconds.keys()) if (second < now - SPAN) seconds.delete(second);
  let sum = 0;
  for (const [second, n] of seconds) if (second < now) sum += n;
  const rate = sum / SPAN;
  setText(byId('rate'), rate >= 10 || rate === 0 ? Math.round(rate).toLocaleString('en-GB') : rate.toFixed(1));
  setText(byId('count'), total.toLocaleString('en-GB'));
  setText(byId('pause'), paused ? `Resume (${held.toLocaleString('en-GB')} new)` : 'Pause');
}

function pause() {
  paused = !paused;
  held = 0;
  byId('pause').setAttribute('aria-pressed', String(paused));
  if (!paused) drawAll();
  tick();
}

function options(select, names) {
  byId(select).append(...names.map((name) => el('option', { value: name }, name)));
  byId(select).addEventListener('change', (e) => { filter[select] = e.target.value; drawAll(); });
}

function start() {
  aim();
  options('service', SERVICES);
  options('type', Object.keys(EVENTS));
  byId('key').addEventListener('input', debounce(150, (e) => { filter.key = e.target.value.trim().toLowerCase(); drawAll(); }));
  byId('tools').addEventListener('submit', (e) => e.preventDefault());
  byId('pause').addEventListener('click', pause);
  setInterval(tick, DRAW);
  new Feed('/stream', { onEvent, onGap: () => {}, onLink: (state) => showLink(byId('link'), state) });
}

start();

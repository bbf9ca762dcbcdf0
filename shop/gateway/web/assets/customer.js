// A customer's orders, the newest first, with their states as they change.

import { describe } from './events.js';
import { Feed, showLink } from './feed.js';
import { aim, byId, coalesce, customerPath, el, idOfPage, notice, request, setCustomer, setText, showDate, showMoney } from './lib.js';

const PAGE = 25;
const who = idOfPage();
const orders = new Map(); // by id, in the order in which they are shown
const rows = byId('rows');
let next = '';

function row(order) {
  const { word, tone } = describe(order);
  return el('tr', { 'data-order': order.id, 'data-state': order.state },
    el('td', {},
      el('a', { href: `/order/${encodeURIComponent(order.id)}` }, el('code', { title: order.id }, order.reference || `…${order.id.slice(-8)}`)),
      el('span', { class: 'about narrow-only' }, showDate(order.placedAt))),
    el('td', { class: 'wide-only' }, showDate(order.placedAt)),
    el('td', {}, el('span', { class: 'badge', 'data-tone': tone }, word)),
    el('td', { class: 'num' }, showMoney(order.total)));
}

const nothing = () => el('p', { class: 'empty' }, el('strong', {}, 'No orders yet'), `Nobody has ordered as “${who}”. `, el('a', { href: '/' }, 'To the shop'));

function render() {
  const sorted = [...orders.values()].sort((a, b) => (a.placedAt < b.placedAt ? 1 : a.placedAt > b.placedAt ? -1 : 0));
  rows.replaceChildren(...sorted.map(row));
  rows.removeAttribute('aria-busy');
  byId('empty').replaceChildren(...(sorted.length ? [] : [nothing()]));
  byId('more-row').hidden = !next;
}

async function page(after) {
  const params = new URLSearchParams({ limit: PAGE, after });
  return request(`/customers/${encodeURIComponent(who)}/orders?${params}`);
}

async function guarded(fn) {
  try {
    await fn();
    byId('note').replaceChildren();
  } catch (e) {
    rows.removeAttribute('aria-busy');
    if (orders.size === 0) rows.replaceChildren();
    byId('note').replaceChildren(notice(e));
  }
}

// The first page anew: what is new stands there, and what changed lately mostly does.
const refresh = coalesce(() => guarded(async () => {
  const first = await page('');
  for (const order of first.items) orders.set(order.id, order);
  if (orders.size === first.items.length) next = first.next ?? '';
  render();
}));

const more = () => guarded(async () => {
  const older = await page(next);
  for (const order of older.items) orders.set(order.id, order);
  next = older.next ?? '';
  render();
});

function onEvent(event) {
  const order = orders.get(event.key);
  if (order && event.data?.state) {
    Object.assign(order, { state: event.data.state, reason: event.data.reason });
    render();
  } else refresh();
}

function start() {
  setText(byId('who'), who);
  byId('name').value = who;
  setCustomer(who);
  aim();
  byId('switch').addEventListener('submit', (e) => {
    e.preventDefault();
    location.assign(customerPath(byId('name').value.trim() || 'guest'));
  });
  byId('more').addEventListener('click', more);
  rows.replaceChildren(...Array.from({ length: 3 }, () => el('tr', {}, el('td', { colspan: '4' }, el('span', { class: 'ghost long' })))));
  refresh();
  new Feed(`/customers/${encodeURIComponent(who)}/stream`, {
    onEvent, onGap: refresh, onLink: (state) => showLink(byId('link'), state),
  });
}

start();

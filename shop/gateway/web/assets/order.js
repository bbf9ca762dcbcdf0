// One order: its state, its money and what happened, live.

import { describe, EVENTS, inWords, isTerminal } from './events.js';
import { Feed, showLink } from './feed.js';
import { aim, byId, coalesce, customerPath, el, idOfPage, notice, post, request, setText, showClock, showDate, showMoney, showPrecise } from './lib.js';

const id = idOfPage();
const path = `/orders/${encodeURIComponent(id)}`;
const timeline = new Map(); // by event id: an event may come twice
let order;
let feed;

const STEPS = [
  ['Placed', 'OrderCreated', ['PENDING', 'STOCK_RESERVED', 'PAYMENT_IN_PROGRESS', 'PAID', 'COMPLETED']],
  ['Reserved', 'StockReserved', ['STOCK_RESERVED', 'PAYMENT_IN_PROGRESS', 'PAID', 'COMPLETED']],
  ['Paid', 'OrderPaid', ['PAID', 'COMPLETED']],
  ['Shipped', 'ShipmentCreated', ['COMPLETED']],
  ['Completed', 'OrderCompleted', ['COMPLETED']],
];

// Each step is done, now (the one that is waited for), todo, or failed.
function stepsOf() {
  const seen = new Map([...timeline.values()].map((e) => [e.type, e]));
  const all = STEPS.map(([name, type, states]) => ({
    name, at: seen.get(type)?.at, step: seen.has(type) || states.includes(order.state) ? 'done' : 'todo',
  }));
  all[0] = { ...all[0], at: all[0].at ?? order.placedAt, step: 'done' };
  if (order.state === 'CANCELED') {
    return [...all.filter((s) => s.step === 'done'), { name: 'Canceled', at: seen.get('OrderCanceled')?.at ?? order.updatedAt, step: 'failed' }];
  }
  if (order.state === 'CANCELING') {
    return [...all.filter((s) => s.step === 'done'), { name: 'Canceling', step: 'now' }, { name: 'Canceled', step: 'todo' }];
  }
  const next = all.find((s) => s.step === 'todo');
  if (next) next.step = 'now';
  return all;
}

const SAID = { done: 'done', now: 'in progress', todo: 'not yet', failed: 'ended here' };
const SVG = 'http://www.w3.org/2000/svg';

function mark(kind, d) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('class', kind);
  svg.setAttribute('viewBox', '0 0 16 16');
  const line = document.createElementNS(SVG, 'path');
  line.setAttribute('d', d);
  svg.append(line);
  return svg;
}

function stepItem({ name, at, step }) {
  return el('li', { 'data-step': step, 'aria-current': step === 'now' ? 'step' : undefined },
    el('span', { class: 'dot', 'aria-hidden': 'true' }, mark('tick', 'M3 8.5 6.5 12 13 4.5'), mark('cross', 'M4 4l8 8M12 4l-8 8')),
    el('span', { class: 'name' }, name, el('span', { class: 'sr' }, `, ${SAID[step]}`)),
    at && step !== 'todo' ? showClock(at) : el('span', { class: 'when' }));
}

function renderState() {
  const { word, tone, sentence } = describe(order);
  byId('status').dataset.tone = tone;
  byId('status').dataset.state = order.state;
  setText(byId('state'), word);
  const shipped = order.state === 'PAID' && [...timeline.values()].some((e) => e.type === 'ShipmentCreated');
  setText(byId('sentence'), shipped ? 'Your order is on its way. The payment is being collected.' : sentence);
  byId('steps').replaceChildren(...stepsOf().map(stepItem));
  document.title = `${word} · Order · settle`;
}

// In the order of time; of the same moment, in that of the way of an order.
const RANK = new Map(Object.keys(EVENTS).map((type, i) => [type, i]));
const inOrder = (a, b) => Date.parse(a.at) - Date.parse(b.at) || (RANK.get(a.type) ?? 0) - (RANK.get(b.type) ?? 0);

function renderEvents() {
  byId('events').replaceChildren(...[...timeline.values()].sort(inOrder).map((e) => el('li', { 'data-type': e.type },
    showPrecise(e.at),
    el('span', { class: 'what' }, inWords(e.type), ' ', el('span', { class: 'code wide-only' }, e.type)),
    el('span', { class: 'by' }, `by ${e.producer}`))));
}

function renderLines() {
  byId('lines').replaceChildren(...(order.lines ?? []).map((l) => el('tr', {},
    el('td', {}, el('span', { class: 'calm' }, l.name || l.productId), el('span', { class: 'about' }, l.productId)),
    el('td', { class: 'num' }, l.quantity.toLocaleString('en-GB')),
    el('td', { class: 'num wide-only' }, showMoney({ amount: l.unitPrice, currency: l.amount.currency })),
    el('td', { class: 'num' }, showMoney(l.amount)))));
  const sums = [['Total', order.total]];
  if (/[1-9]/.test(order.returned.amount)) sums.push(['Returned', order.returned]);
  byId('sums').replaceChildren(...sums.map(([name, money]) => el('tr', {},
    el('th', { scope: 'row' }, name), el('td', { class: 'wide-only' }), el('td', {}), el('td', { class: 'num' }, showMoney(money)))));
}

function renderFacts() {
  const facts = [
    ['Customer', el('a', { href: customerPath(order.customerId) }, order.customerId)],
    ['Total', showMoney(order.total)],
    ['Placed', showDate(order.placedAt)],
    ['Last change', showClock(order.updatedAt)],
  ];
  if (order.reference) facts.push(['Reference', order.reference]);
  if (order.reason) facts.push(['Reason', el('code', {}, order.reason)]);
  byId('facts').replaceChildren(...facts.flatMap(([name, value]) => [el('dt', {}, name), el('dd', {}, value)]));
}

function renderCancel() {
  const over = isTerminal(order);
  // What is offered once keeps its place: it is closed, not removed, when the order ends.
  if (!over) byId('cancel-card').hidden = false;
  byId('cancel').disabled = over || order.state === 'CANCELING';
  setText(byId('cancel'), over ? 'No longer possible' : 'Cancel this order');
  setText(byId('ask-about'), `${showMoney(order.total)} will not be charged and all ${order.lines?.length ?? 0} lines go back to stock. This cannot be undone.`);
  if ([...timeline.values()].some((e) => e.type === 'OrderCancelRefused')) {
    refuse({ title: 'The order could not be canceled', detail: 'It had been shipped already.', code: 'order-already-shipped' });
  }
}

function refuse(problem) {
  const note = byId('cancel-note');
  if (note.firstElementChild?.dataset.code !== problem.code) note.replaceChildren(notice(problem));
}

function render() {
  byId('order').removeAttribute('aria-busy');
  byId('note').replaceChildren(...(order.attention ? [el('div', { class: 'notice wait', role: 'alert' },
    el('strong', {}, 'A person has to look at this order'), el('p', {}, el('code', {}, order.attention)))] : []));
  renderState();
  renderLines();
  renderEvents();
  renderFacts();
  renderCancel();
}

const load = coalesce(async () => {
  try {
    order = await request(path);
    for (const e of order.timeline ?? []) timeline.set(e.id, e);
    render();
  } catch (e) {
    if (e.status === 404) {
      feed?.close();
      missing(e);
    } else if (!order) byId('note').replaceChildren(notice(e));
  }
});

function missing(e) {
  byId('note').replaceChildren(notice(e, el('a', { class: 'button', href: '/' }, 'To the shop')));
  byId('order').hidden = true;
  byId('link').hidden = true;
}

async function cancel() {
  byId('cancel').disabled = true;
  byId('cancel-note').replaceChildren();
  try {
    await post(`${path}/cancel`);
  } catch (e) {
    if (e.code === 'order-already-shipped') e.detail ||= 'It can no longer be canceled.';
    refuse(e);
  }
  await load();
}

function start() {
  aim();
  setText(byId('order-id'), id);
  byId('cancel').addEventListener('click', () => byId('ask').showModal());
  byId('ask').addEventListener('close', () => { if (byId('ask').returnValue === 'cancel') cancel(); });
  load();
  feed = new Feed(`${path}/events`, {
    onEvent: (e) => { timeline.set(e.id, e); load(); },
    onGap: load,
    onLink: (state) => showLink(byId('link'), state),
  });
}

start();

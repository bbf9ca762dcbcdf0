// The shop: search, basket, order.

import * as basket from './basket.js';
import { aim, byId, customer, debounce, el, notice, post, Problem, request, setCustomer, setText, showMoney, times } from './lib.js';

const PAGE = 24;
const list = byId('products');
let search = { query: '', next: '', stop: new AbortController() };

// Products ---------------------------------------------------------------------------------------

function ghosts() {
  return Array.from({ length: PAGE }, () => el('li', { class: 'product' }, el('span', { class: 'ghost long' })));
}

function productRow(product) {
  const free = product.available;
  const stock = free === undefined ? '' : free > 0 ? ` · ${free.toLocaleString('en-GB')} in stock` : ' · out of stock';
  return el('li', { class: 'product', 'data-product': product.id },
    el('div', { class: 'what' },
      el('span', { class: 'name calm' }, product.name),
      el('span', { class: 'about' }, el('span', { class: 'code' }, product.id), stock)),
    el('span', { class: 'num price' }, showMoney(product.price)),
    el('button', {
      type: 'button', disabled: free === 0, 'aria-label': `Add ${product.name.toLowerCase()} to the basket`,
      onclick: () => { basket.add(product); renderBasket(); },
    }, 'Add'));
}

async function find(query) {
  search.stop.abort();
  search = { query, next: '', stop: new AbortController() };
  list.setAttribute('aria-busy', 'true');
  await load(search, true);
}

async function load(asked, anew) {
  const params = new URLSearchParams({ query: asked.query, limit: PAGE, after: asked.next });
  if (byId('in-stock').checked) params.set('inStock', 'true');
  try {
    const page = await request(`/products?${params}`, { signal: asked.stop.signal });
    showProducts(asked, page, anew);
  } catch (e) {
    if (e.name === 'AbortError') return;
    if (anew) list.replaceChildren();
    list.removeAttribute('aria-busy');
    byId('products-note').replaceChildren(notice(e, el('button', { type: 'button', onclick: () => load(asked, anew) }, 'Try again')));
  }
}

function showProducts(asked, page, anew) {
  asked.next = page.next ?? '';
  const rows = page.items.map(productRow);
  if (anew) list.replaceChildren(...rows);
  else list.append(...rows);
  list.removeAttribute('aria-busy');
  const none = list.children.length === 0;
  byId('products-note').replaceChildren(...(none ? [nothing(asked.query)] : []));
  byId('more-row').hidden = !asked.next;
  setText(byId('found'), none ? 'No products found' : `${list.children.length} products shown${asked.next ? ', there are more' : ''}`);
  if (!anew) rows[0]?.querySelector('button')?.focus({ preventScroll: true });
}

const nothing = (query) => el('p', { class: 'empty' },
  el('strong', {}, query ? `Nothing found for “${query}”` : 'There are no products'),
  byId('in-stock').checked ? 'Only products in stock were looked for.' : query ? 'Try fewer or other words.' : 'The catalogue is empty.');

// Basket -----------------------------------------------------------------------------------------

function basketRow(line) {
  const name = line.name.toLowerCase();
  const change = (quantity) => { basket.setQuantity(line.id, quantity); renderBasket(); };
  return el('li', { class: 'line', 'data-line': line.id },
    el('span', { class: 'name calm' }, line.name),
    el('button', { type: 'button', class: 'icon quiet', 'aria-label': `Remove ${name}`, onclick: () => change(0) }, '×'),
    el('div', { class: 'qty' },
      el('button', { type: 'button', class: 'icon', 'aria-label': `One less of ${name}`, onclick: () => change(line.quantity - 1) }, '−'),
      el('input', {
        value: String(line.quantity), inputmode: 'numeric', 'aria-label': `Quantity of ${name}`,
        onchange: (e) => change(/^\d+$/.test(e.target.value) ? Number(e.target.value) : line.quantity),
      }),
      el('button', { type: 'button', class: 'icon', 'aria-label': `One more of ${name}`, onclick: () => change(line.quantity + 1) }, '+')),
    el('span', { class: 'num' }, showMoney(times(line.price, line.quantity))));
}

// A row is made anew when its line changed; the keyboard stays where it was.
function renderBasket() {
  const held = document.activeElement?.getAttribute('aria-label');
  const items = basket.lines();
  const units = basket.count(items);
  byId('lines').replaceChildren(...items.map(basketRow));
  byId('basket-empty').hidden = items.length > 0;
  byId('checkout').hidden = items.length === 0 && !basket.attempt();
  setText(byId('basket-count'), items.length ? `${units.toLocaleString('en-GB')} ${units === 1 ? 'item' : 'items'}` : '');
  setText(byId('total'), items.length ? showMoney(basket.total(items)) : '');
  setText(byId('bar-count'), items.length ? `View basket (${units.toLocaleString('en-GB')})` : 'Basket is empty');
  setText(byId('bar-total'), items.length ? showMoney(basket.total(items)) : '');
  if (held) byId('lines').querySelector(`[aria-label="${CSS.escape(held)}"]`)?.focus();
}

// Order ------------------------------------------------------------------------------------------

let sending = false;

function busy(on) {
  sending = on;
  byId('place').disabled = on;
  setText(byId('place'), on ? 'Placing your order…' : 'Place order');
}

/** Sends an attempt until it is answered; whatever the answer, it is the first one's. */
async function send(made) {
  for (let n = 0; ; n++) {
    try {
      return await post('/orders', made.body, { 'Idempotency-Key': made.key });
    } catch (e) {
      if (!(e instanceof Problem) || !unanswered(e) || n === 3) throw e;
      await new Promise((resolve) => setTimeout(resolve, e.retryAfter * 1000 || 500 * 2 ** n));
    }
  }
}

// The order may have been placed: nobody said that it was not.
const unanswered = (e) => e.status === 0 || e.status >= 500 || e.code === 'idempotency-key-in-progress';

async function place(made) {
  if (sending) return;
  busy(true);
  byId('order-note').replaceChildren();
  try {
    const order = await send(made);
    basket.forgetAttempt();
    basket.empty();
    location.assign(`/order/${encodeURIComponent(order.id)}`);
  } catch (e) {
    busy(false);
    await refused(e, made);
  }
}

async function refused(e, made) {
  if (unanswered(e)) {
    byId('order-note').replaceChildren(pendingNotice(e, made));
    return;
  }
  basket.forgetAttempt();
  byId('order-note').replaceChildren(notice(e));
  if (e.code === 'total-mismatch') await reprice();
}

function pendingNotice(e, made) {
  byId('place').disabled = true; // One order at a time: the first one's fate comes first.
  return el('div', { class: 'notice wait', role: 'alert', 'data-code': e.code },
    el('strong', {}, e.title),
    el('p', {}, 'Your order was sent, but there is no answer yet. Sending it again is safe: it cannot be placed twice. ', el('code', {}, e.code)),
    el('div', { class: 'acts' },
      el('button', { type: 'button', id: 'again', onclick: () => place(made) }, 'Send again'),
      el('button', { type: 'button', onclick: giveUp }, 'Forget it')));
}

function giveUp() {
  basket.forgetAttempt();
  byId('order-note').replaceChildren(el('p', { class: 'small muted' }, 'The order may have been placed. See ', el('a', { href: byId('nav-orders').href }, 'your orders'), '.'));
  busy(false);
  renderBasket();
}

// A price changed since it was put in the basket: show today's.
async function reprice() {
  const ids = basket.lines().map((l) => l.id);
  const found = await Promise.allSettled(ids.map((id) => request(`/products/${encodeURIComponent(id)}`)));
  basket.reprice(new Map(found.filter((f) => f.status === 'fulfilled').map((f) => [f.value.id, f.value])));
  renderBasket();
}

// ------------------------------------------------------------------------------------------------

function start() {
  aim();
  byId('customer').value = customer() === 'guest' ? '' : customer();
  byId('query').addEventListener('input', debounce(200, (e) => find(e.target.value.trim())));
  byId('search').addEventListener('submit', (e) => { e.preventDefault(); find(byId('query').value.trim()); });
  byId('in-stock').addEventListener('change', () => find(search.query));
  byId('more').addEventListener('click', () => load(search, false));
  byId('checkout').addEventListener('submit', (e) => {
    e.preventDefault();
    if (basket.lines().length === 0) return;
    setCustomer(byId('customer').value.trim() || 'guest');
    aim();
    place(basket.newAttempt(customer()));
  });
  addEventListener('storage', renderBasket); // Another tab of the shop.
  list.replaceChildren(...ghosts());
  renderBasket();
  const left = basket.attempt();
  if (left) byId('order-note').replaceChildren(pendingNotice(new Problem(0, 'no-answer', 'An order of yours has no answer yet', ''), left));
  find('');
}

start();

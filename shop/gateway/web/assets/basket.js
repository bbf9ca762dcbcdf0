// The basket, kept in this browser, and the one attempt to order it.

import { sum, times } from './lib.js';

const BASKET = 'settle.basket';
const ATTEMPT = 'settle.attempt';
const QUANTITY_MAX = 100_000;

function read(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise; // Somebody else wrote there.
  }
}

export const lines = () => read(BASKET, []);

function keep(list) {
  localStorage.setItem(BASKET, JSON.stringify(list));
}

/** Puts one more of a product in, at today's name and price. */
export function add(product) {
  const list = lines();
  const line = list.find((l) => l.id === product.id);
  if (line) Object.assign(line, { price: product.price, quantity: Math.min(line.quantity + 1, QUANTITY_MAX) });
  else list.push({ id: product.id, name: product.name, price: product.price, quantity: 1 });
  keep(list);
}

/** Sets a line's quantity; zero takes it out. What is no whole number changes nothing. */
export function setQuantity(id, quantity) {
  if (!Number.isInteger(quantity) || quantity < 0) return;
  const list = lines();
  const line = list.find((l) => l.id === id);
  if (line) line.quantity = Math.min(quantity, QUANTITY_MAX);
  keep(list.filter((l) => l.quantity > 0));
}

/** Gives the lines today's prices. */
export function reprice(products) {
  keep(lines().map((l) => ({ ...l, price: products.get(l.id)?.price ?? l.price })));
}

export const empty = () => keep([]);
export const total = (list) => sum(list.map((l) => times(l.price, l.quantity)));
export const count = (list) => list.reduce((n, l) => n + l.quantity, 0);

// An attempt is kept until it is answered: sent again under the same key it is the same order.

export const attempt = () => read(ATTEMPT, null);
export const forgetAttempt = () => localStorage.removeItem(ATTEMPT);

export function newAttempt(customerId) {
  const list = lines();
  const made = {
    key: newKey(),
    body: JSON.stringify({
      customerId,
      items: list.map((l) => ({ productId: l.id, quantity: l.quantity })),
      total: total(list), // What the customer saw: another price is refused, not charged.
    }),
  };
  localStorage.setItem(ATTEMPT, JSON.stringify(made));
  return made;
}

// crypto.randomUUID exists only on secure origins, and a shop on a LAN is none.
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, '0')).join('');
}

// What all pages share: elements, money, times, requests, problem documents.

/** Finds the element that a page must have. */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/** Makes an element. Strings become text, never markup. */
export function el(name, attributes = {}, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (key.startsWith('on')) e.addEventListener(key.slice(2), value);
    else if (key === 'class') e.className = value;
    else if (key === 'value') e.value = value;
    else e.setAttribute(key, value === true ? '' : value);
  }
  e.append(...children.filter((c) => c !== undefined && c !== null));
  return e;
}

/** Sets text only when it differs: a screen reader repeats what changes. */
export function setText(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

/** An exact amount in minor units: "12.50" is 1250n. */
export function minor(money) {
  const [whole, fraction = ''] = money.amount.split('.');
  return { units: BigInt(whole + fraction), digits: fraction.length };
}

/** quantity x money, exactly, in the form that the API speaks. */
export function times(money, quantity) {
  const { units, digits } = minor(money);
  return { amount: decimal(units * BigInt(quantity), digits), currency: money.currency };
}

/** The exact sum of amounts of one currency. */
export function sum(amounts) {
  const digits = minor(amounts[0]).digits;
  const units = amounts.reduce((total, m) => total + minor(m).units, 0n);
  return { amount: decimal(units, digits), currency: amounts[0].currency };
}

function decimal(units, digits) {
  const text = units.toString().padStart(digits + 1, '0');
  return digits ? `${text.slice(0, -digits)}.${text.slice(-digits)}` : text;
}

const SIGNS = { GBP: '£', EUR: '€', USD: '$', JPY: '¥' };

/** An amount for people: £1,234.50. The digits are the server's, not a float's. */
export function showMoney(money) {
  if (!money.currency) return '–';
  const [whole, fraction] = money.amount.split('.');
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ',');
  const sign = SIGNS[money.currency];
  const digits = fraction ? `${grouped}.${fraction}` : grouped;
  return sign ? sign + digits : `${digits} ${money.currency}`;
}

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const precise = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3 });
const calendar = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', year: 'numeric', hour: '2-digit', minute: '2-digit' });

const timeBy = (format) => (at) => el('time', { datetime: at }, format.format(new Date(at)));
export const showClock = timeBy(clock);
export const showPrecise = timeBy(precise);
export const showDate = timeBy(calendar);

/** A refusal of the server (RFC 9457), or a request that got no answer (status 0). */
export class Problem extends Error {
  constructor(status, code, title, detail) {
    super(title);
    Object.assign(this, { status, code, title, detail });
  }
}

const silence = () => new Problem(0, 'no-answer', 'The shop did not answer', 'Check the connection. Nothing is lost.');

/** Asks the API; throws a Problem. */
export async function request(path, options = {}) {
  let response;
  let text;
  try {
    response = await fetch(path, { cache: 'no-store', ...options });
    text = await response.text();
  } catch (e) {
    throw e.name === 'AbortError' ? e : silence();
  }
  let body;
  try {
    body = text ? JSON.parse(text) : {};
  } catch {
    throw new Problem(response.status, 'no-json', `The shop answered ${response.status} with something unreadable`, '');
  }
  if (response.ok) return body;
  const p = new Problem(response.status, body.code ?? 'unknown', body.title ?? `The shop answered ${response.status}`, body.detail ?? '');
  p.retryAfter = Number(response.headers.get('Retry-After')) || 0;
  throw p;
}

/** Sends a command as JSON. */
export const post = (path, body, headers = {}) => request(path, {
  method: 'POST', body: body ?? '', headers: { 'Content-Type': 'application/json', ...headers },
});

/** Shows a problem as it is: what, the detail, and the code that support asks for. */
export function notice(problem, ...acts) {
  return el('div', { class: 'notice bad', role: 'alert', 'data-code': problem.code ?? '' },
    el('strong', {}, problem.title ?? 'Something went wrong in this page'),
    el('p', {}, problem.detail ?? String(problem), ' ', el('code', {}, problem.code ?? '')),
    acts.length ? el('div', { class: 'acts' }, ...acts) : undefined);
}

/** Runs fn once it has not been asked for again for so many milliseconds. */
export function debounce(ms, fn) {
  let timer;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => fn(...args), ms);
  };
}

/** Runs an asynchronous fn never twice at a time; asked meanwhile, it runs once more afterwards. */
export function coalesce(fn) {
  let running = false;
  let again = false;
  return async function run() {
    if (running) {
      again = true;
      return;
    }
    running = true;
    try {
      await fn();
    } finally {
      running = false;
      if (again) {
        again = false;
        run();
      }
    }
  };
}

const CUSTOMER = 'settle.customer';

/** The customer's name, which is all that the shop knows of one. */
export const customer = () => localStorage.getItem(CUSTOMER) || 'guest';
export const setCustomer = (name) => localStorage.setItem(CUSTOMER, name);
export const customerPath = (name) => `/customer/${encodeURIComponent(name)}`;

/** Points the header's "Orders" at the customer. */
export function aim() {
  byId('nav-orders').href = customerPath(customer());
}

/** The last part of the page's path. */
export function idOfPage() {
  return decodeURIComponent(location.pathname.split('/')[2] ?? '');
}

// What the shop's events mean, in words. A browser hears only the server-sent events whose names it asks
// for, so every event type of the shop must be here; a test compares the list with the contract.

export const EVENTS = {
  OrderCreated: 'Order placed',
  OrderDeadlinePassed: 'Payment deadline passed',
  OrderPaymentDelayed: 'Payment takes longer than usual',
  OrderPaid: 'Order paid',
  OrderCompleted: 'Order completed',
  OrderCanceled: 'Order canceled',
  OrderCancelRefused: 'Cancellation refused',
  ReturnRequested: 'Return requested',
  ReturnCompleted: 'Return completed',
  StockReserveRequested: 'Items requested from stock',
  StockReserved: 'Items reserved',
  StockReservationFailed: 'Not enough in stock',
  StockReleaseRequested: 'Release of items requested',
  StockReleased: 'Items released',
  StockCommitted: 'Items sold',
  StockReturned: 'Items returned to stock',
  PaymentRequested: 'Payment requested',
  PaymentAuthorized: 'Payment authorized',
  PaymentFailed: 'Payment declined',
  PaymentVoidRequested: 'Release of payment requested',
  PaymentVoided: 'Payment released',
  PaymentSucceeded: 'Payment collected',
  PaymentCaptureFailed: 'Payment could not be collected',
  PaymentRefunded: 'Payment refunded',
  ShipmentDue: 'Shipment due',
  ShipmentCreated: 'Order shipped',
  ShipmentFailed: 'Shipment impossible',
  ShipmentCancelRequested: 'Stop of shipment requested',
  ShipmentCanceled: 'Shipment stopped',
  ShipmentCancelRefused: 'Shipment already on its way',
  ProductViewed: 'Product viewed',
  ProductLiked: 'Product liked',
  ProductUnliked: 'Like withdrawn',
  PriceChanged: 'Price changed',
};

export const SERVICES = ['order', 'inventory', 'payment', 'shipping', 'catalog'];

/** Words for an event type; one that is not known speaks for itself. */
export const inWords = (type) => EVENTS[type] ?? type;

const STATES = {
  PENDING: ['Received', 'wait', 'Your items are being reserved.'],
  STOCK_RESERVED: ['Items reserved', 'wait', 'Waiting for your payment to be authorized.'],
  PAYMENT_IN_PROGRESS: ['Payment in progress', 'wait', 'This is taking longer than usual, up to 2 minutes. If it fails, nothing is charged.'],
  PAID: ['Paid', 'good', 'Your payment is authorized. Your items are being prepared for shipment.'],
  COMPLETED: ['Completed', 'good', 'Your order has been shipped and the payment collected.'],
  CANCELING: ['Canceling', 'wait', 'Your items and your payment are being released.'],
  CANCELED: ['Canceled', 'bad', ''],
};

const REASONS = {
  OUT_OF_STOCK: 'Not all of the items were in stock. Nothing was charged.',
  PAYMENT_TIMEOUT: 'The payment did not go through within 2 minutes. Nothing was charged.',
  CUSTOMER: 'Canceled at your request. Nothing was charged.',
  SHIPMENT_FAILED: 'The order could not be shipped. Nothing was charged.',
};

/** What to say about an order: its state in a word or two, the tone, and a sentence. */
export function describe(order) {
  const [word, tone, sentence] = STATES[order.state] ?? [order.state, 'wait', ''];
  if (order.state !== 'CANCELED') return { word, tone, sentence };
  const reason = REASONS[order.reason]
    ?? `The payment was declined${order.reason ? ` (${order.reason})` : ''}. Nothing was charged.`;
  return { word, tone, sentence: reason };
}

export const isTerminal = (order) => order.state === 'COMPLETED' || order.state === 'CANCELED';

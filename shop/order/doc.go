// Package order owns the shop's orders and returns: it takes them, decides what becomes of them, and
// answers for them.
//
//	svc, err := order.New(store, broker, order.Config{Catalog: catalog})
//	...
//	mux.Handle("/orders", svc.Handler())
//	err = svc.Run(ctx)
//
// # How an order decides
//
// An order's row stores [Facts], each set once. [Decide] is the one pure function that says what follows
// from them: the [State], and what has to be said to the other services. The handlers only load the facts,
// ask Decide, store the facts and add the events, all in one transaction.
//
// # Guarantee
//
// The order's row is the arbiter of PAID and CANCELING. Whatever is asked of another service is asked
// once, and an order is CANCELED when every request was answered: then no money is held and no stock
// reserved. An event that contradicts the facts changes nothing and is counted in the row. A refused
// command stores nothing and emits nothing. An imported order is one order however often its reference
// comes.
//
// # What this package does not do
//
// It touches no stock, no money and no parcels, and reads nobody else's tables. It knows no users: who
// may call which route is the gateway's to say (/import and /internal are for operators). An order whose
// capture the gateway refused for good stays PAID, with an attention, until a person acts.
package order

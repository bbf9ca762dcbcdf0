// Package contract is all that the shop's services share: events, topics and money. A service that
// needs more of another one asks for an event, never for its tables.
//
// Key of every event is the aggregate's id; each event of one order, whoever emits it, carries the
// order's id as key. A request to a service travels on that service's topic.
package contract

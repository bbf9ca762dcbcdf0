// Package settletest is for the tests of services: it runs one on package memory, waits until
// everything that a test caused is done, and says what differs in words.
//
//	rig := settletest.New(t, "stock", settletest.Config{})
//	settle.On(rig.Service, OrderPlaced, reserve)
//
//	rig.Given(StockAdded.New(...)).       // handled before, its events don't count
//		When(OrderPlaced.New(...)).       // arrives from the broker; WhenDo is for commands
//		Then(StockReserved.New(...))      // exactly these events, in order
//
// [Rig.Settle] is the same without the sentence: it runs a function and returns every event that the
// service added because of it.
//
// # Time
//
// Nothing here has a clock of its own. Inside a testing/synctest bubble the bubble's clock is the virtual
// one: let it pass by time.Sleep, and timers fire, retries come and leases end at their exact times,
// at once. Make the rig inside the bubble.
//
//	synctest.Test(t, func(t *testing.T) {
//		rig := settletest.New(t, "order", settletest.Config{})
//		...
//		rig.WhenDo(place).Then(OrderPlaced.New(order))
//		time.Sleep(2 * time.Minute)
//		rig.Then(OrderCanceled.New(order))
//	})
//
// # Guarantee
//
// A service is quiet when its outbox is carried, its groups have handled all that their topics hold,
// no letter is RETRYING, every prepared call is answered and no timer is due. That is read from what
// stores and brokers know and not from the absence of activity, so it is never reached too early.
//
// # What this package does not do
//
// After-commit handlers (settle.After) are not waited for: nothing tells when one is done. Inside a bubble
// synctest.Wait does. A rig is one service; several rigs may share a broker, and [Quiet] waits for all
// of them. It proves nothing about SQL or a real broker: that is for the conformance suites beside
// the contracts.
package settletest

package order

import (
	"fmt"

	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/inventory"
	"github.com/settledev/settle/shop/payment"
	"github.com/settledev/settle/shop/shipping"
)

// The model is one order with all its participants. Order, inventory, payment and shipping decide by
// their real rules; the transport, the payment gateway and the timers are modelled. A message waits in
// the queue of its topic, producer and consumer: that is all the order that a broker guarantees for one
// key. The world is a value, so that a search can remember where it has been.

// message is an event's type. Each is emitted at most once for an order, which the model checks; that
// makes the type the identity that an inbox remembers.
type message byte

const (
	mReserve message = iota
	mRelease
	mReserved
	mShort
	mReleased
	mCommitted
	mPaymentRequested
	mVoid
	mAuthorized
	mPaymentFailed
	mVoided
	mCaptured
	mCaptureFailed
	mPaid
	mShipmentCancel
	mShipmentDue
	mShipmentCreated
	mShipmentFailed
	mShipmentCanceled
	mShipmentCancelRefused
	mDelayedPassed
	mExpiredPassed
	mPaymentDelayed
	mCompleted
	mCanceled
	mRefused
	messages
)

// Queues: topic, producer -> consumer.
const (
	qOrderInventory    = iota // inventory-events
	qInventoryOrder           // inventory-events
	qInventoryPayment         // payment-events
	qOrderPayment             // payment-events
	qPaymentOrder             // payment-events
	qOrderShippingPaid        // order-events
	qOrderShippingAsk         // shipping-events
	qShippingShipping         // shipping-events
	qShippingOrder            // shipping-events
	qShippingInventory        // shipping-events
	qShippingPayment          // shipping-events
	qOrderOrder               // order-events: its deadlines
	queues
)

// gateway is what the payment gateway really did.
type gateway byte

const (
	gwNothing gateway = iota
	gwAuthorized
	gwDeclined
	gwVoided
	gwCaptured
	gwCaptureRefused
)

// call is an outside call in its three beats.
type call byte

const (
	callNone call = iota
	callPrepared
	callYes // performed, the answer not recorded yet
	callNo
	callNothing // the lookup found neither
	callRecorded
)

const (
	cAuthorize = iota
	cVoid
	cCapture
	cLookup // after a webhook, which is a hint only
	calls
)

// scenario is what chance decides.
type scenario struct {
	short, declined, captureRefused, impossible bool
	delay                                       bool // shipping waits before it ships
	hint                                        bool // the gateway sends a webhook
	cancels                                     int8 // how often the customer may cancel
	units                                       int64
}

// world is the whole system as far as one order is concerned.
type world struct {
	facts     Facts
	stock     inventory.State
	money     payment.State
	parcel    shipping.State
	gateway   gateway
	calls     [calls]call
	queues    [queues]string
	seen      [queues]uint32 // inboxes
	told      uint32         // inputs that the order was told, by kind
	emitted   uint32
	armed     message // the order's timer: mDelayedPassed, mExpiredPassed, or 0
	shipTimer bool
	hint      bool
	cancels   int8
	accepted  int8 // cancels that were answered 202
}

// newWorld is the world right after the order was placed.
func newWorld(sc scenario) world {
	w := world{armed: mDelayedPassed, hint: sc.hint, cancels: sc.cancels}
	w.emit(mReserve, qOrderInventory)
	return w
}

// broken collects what must never be.
type broken []error

func (b *broken) addf(format string, args ...any) { *b = append(*b, fmt.Errorf(format, args...)) }

func (w *world) emit(m message, to ...int) {
	if w.emitted&(1<<m) != 0 {
		panic(fmt.Sprintf("message %d is emitted twice", m))
	}
	w.emitted |= 1 << m
	for _, q := range to {
		w.queues[q] += string(rune('A' + m))
	}
}

func (w *world) has(m message) bool { return w.emitted&(1<<m) != 0 }

// action is one thing that may happen next.
type action struct {
	kind  string
	index int
}

// actions returns all that may happen next.
func (w *world) actions() []action {
	var all []action
	for q, waiting := range w.queues {
		if waiting != "" {
			all = append(all, action{"deliver", q})
		}
	}
	for c, at := range w.calls {
		switch at {
		case callPrepared:
			all = append(all, action{"perform", c})
		case callYes, callNo, callNothing:
			all = append(all, action{"record", c})
		case callNone, callRecorded:
		}
	}
	if w.armed != 0 {
		all = append(all, action{"fire", 0})
	}
	if w.shipTimer {
		all = append(all, action{"ship", 0})
	}
	if w.hint && w.gateway != gwNothing {
		all = append(all, action{"hint", 0})
	}
	if w.cancels > 0 {
		all = append(all, action{"cancel", 0})
	}
	return all
}

// do lets an action happen. free is the stock that all orders share.
func (w *world) do(sc scenario, a action, free *int64, b *broken) {
	switch a.kind {
	case "deliver":
		m := message(w.queues[a.index][0] - 'A')
		w.queues[a.index] = w.queues[a.index][1:]
		if w.seen[a.index]&(1<<m) != 0 {
			return // The inbox absorbs it.
		}
		w.seen[a.index] |= 1 << m
		w.deliver(sc, a.index, m, free, b)
	case "perform":
		w.perform(sc, a.index)
	case "record":
		w.record(a.index)
	case "fire":
		w.queues[qOrderOrder] += string(rune('A' + w.armed))
		w.emitted |= 1 << w.armed
		w.armed = 0
	case "ship":
		w.shipTimer = false
		w.emit(mShipmentDue, qShippingShipping)
	case "hint":
		w.hint = false
		if w.money == payment.StateRequested { // Only an open question is worth asking about.
			w.calls[cLookup] = callPrepared
		}
	case "cancel":
		w.cancels--
		switch d := w.tell(Input{Kind: InputCancel}, b); {
		case d.Verdict == Contradicts && !w.facts.shipped():
			b.addf("cancel is refused although no shipment is known")
		case d.Verdict != Contradicts:
			w.accepted++
		}
	}
	w.check(b)
}

func (w *world) deliver(sc scenario, q int, m message, free *int64, b *broken) {
	switch q {
	case qOrderInventory, qShippingInventory:
		w.tellInventory(sc, m, free)
	case qInventoryPayment, qOrderPayment, qShippingPayment:
		in := map[message]payment.Input{
			mPaymentRequested: payment.InputRequested, mVoid: payment.InputVoidRequested, mShipmentCreated: payment.InputShipped,
		}
		if input, ok := in[m]; ok {
			w.tellPayment(input)
		}
	case qOrderShippingPaid, qOrderShippingAsk, qShippingShipping:
		w.tellShipping(sc, m)
	default:
		in, ok := orderInputs[m]
		if !ok {
			return // A reply that the order does not listen to.
		}
		if d := w.tell(Input{Kind: in}, b); d.Verdict == Contradicts {
			b.addf("message %d contradicts %+v", m, w.facts)
		}
	}
}

var orderInputs = map[message]Kind{
	mReserved: InputStockReserved, mShort: InputStockFailed, mReleased: InputStockReleased, mCommitted: InputStockCommitted,
	mAuthorized: InputPaymentAuthorized, mPaymentFailed: InputPaymentFailed, mVoided: InputPaymentVoided,
	mCaptured: InputPaymentCaptured, mCaptureFailed: InputPaymentCaptureFailed,
	mShipmentCreated: InputShipmentCreated, mShipmentFailed: InputShipmentFailed,
	mShipmentCanceled: InputShipmentCanceled, mShipmentCancelRefused: InputShipmentCancelRefused,
	mDelayedPassed: InputDelayed, mExpiredPassed: InputExpired,
}

// tell is Service.tell without a database.
func (w *world) tell(in Input, b *broken) Decision {
	before := w.facts
	d := Decide(w.facts, in)
	if in.Kind != InputCancel {
		w.told |= 1 << in.Kind
	}
	if d.Verdict != Changed {
		if d.Facts != before || d.Emit != 0 || d.Timer != TimerKeep {
			b.addf("%v changed something: %+v", d.Verdict, d)
		}
		return d
	}
	w.facts = d.Facts
	if !follows(before, w.facts) {
		b.addf("a fact was set twice: %+v, then %+v", before, w.facts)
	}
	if in.Kind == InputExpired && (before.Payment != PaymentUnknown || before.Cancel != "") {
		b.addf("a deadline cancels an order that does not wait: %+v", before)
	}
	switch d.Timer {
	case TimerExpire:
		if w.armed != 0 {
			b.addf("two timers at a time")
		}
		w.armed = mExpiredPassed
	case TimerCancel:
		w.armed = 0
	case TimerKeep:
	}
	if d.Emit.Has(TellPaid) && before.Cancel != "" {
		b.addf("PAID after CANCELING")
	}
	for _, e := range [...]struct {
		told Told
		m    message
		to   []int
	}{
		{TellDelayed, mPaymentDelayed, nil},
		{TellPaid, mPaid, []int{qOrderShippingPaid}},
		{TellRefused, mRefused, nil},
		{TellCompleted, mCompleted, nil},
		{TellCanceled, mCanceled, nil},
		{AskShipmentCancel, mShipmentCancel, []int{qOrderShippingAsk}},
		{AskVoid, mVoid, []int{qOrderPayment}},
		{AskRelease, mRelease, []int{qOrderInventory}},
	} {
		if d.Emit.Has(e.told) {
			w.emit(e.m, e.to...)
		}
	}
	return d
}

// follows reports whether every fact of old stands in next, or went on as facts may.
func follows(old, next Facts) bool {
	return (old.Stock == StockUnknown || old.Stock == next.Stock || old.Stock == StockReserved && next.Stock == StockCommitted) &&
		(old.Payment == PaymentUnknown || old.Payment == next.Payment ||
			old.Payment == PaymentAuthorized && (next.Payment == PaymentCaptured || next.Payment == PaymentCaptureFailed)) &&
		(old.Shipment == ShipmentUnknown || old.Shipment == next.Shipment) &&
		(old.Deadline == DeadlineNone || old.Deadline == next.Deadline || next.Deadline == DeadlineExpired) &&
		(old.Cancel == "" || old.Cancel == next.Cancel) &&
		next.Told.Has(old.Told) && next.Answered.Has(old.Answered)
}

func (w *world) tellInventory(sc scenario, m message, free *int64) {
	in := inventory.InputShipped
	switch m {
	case mReserve:
		if in = inventory.InputReserve; sc.short || *free < sc.units {
			in = inventory.InputShort
		}
	case mRelease:
		in = inventory.InputRelease
	case mShipmentCreated:
	default:
		return
	}
	state, effect := inventory.Decide(w.stock, in)
	w.stock = state
	if effect.Take {
		*free -= sc.units
	}
	if effect.GiveBack {
		*free += sc.units
	}
	if effect.Reserved {
		w.emit(mReserved, qInventoryOrder)
		w.emit(mPaymentRequested, qInventoryPayment)
	}
	if effect.Failed {
		w.emit(mShort, qInventoryOrder)
	}
	if effect.Released {
		w.emit(mReleased, qInventoryOrder)
	}
	if effect.Committed {
		w.emit(mCommitted, qInventoryOrder)
	}
}

func (w *world) tellPayment(in payment.Input) {
	state, act := payment.Decide(w.money, in)
	w.money = state
	switch act {
	case payment.CallAuthorize:
		w.calls[cAuthorize] = callPrepared
	case payment.CallVoid:
		w.calls[cVoid] = callPrepared
	case payment.CallCapture:
		w.calls[cCapture] = callPrepared
	case payment.EmitAuthorized:
		w.emit(mAuthorized, qPaymentOrder)
	case payment.EmitFailed:
		w.emit(mPaymentFailed, qPaymentOrder)
	case payment.EmitVoided:
		w.emit(mVoided, qPaymentOrder)
	case payment.EmitSucceeded:
		w.emit(mCaptured, qPaymentOrder)
	case payment.EmitCaptureFailed:
		w.emit(mCaptureFailed, qPaymentOrder)
	case payment.ActionNone:
	}
}

func (w *world) tellShipping(sc scenario, m message) {
	in := shipping.InputShip
	switch {
	case m == mShipmentCancel:
		in = shipping.InputCancel
	case m == mPaid && sc.delay:
		in = shipping.InputPlan
	case m != mPaid && m != mShipmentDue:
		return
	case sc.impossible:
		in = shipping.InputImpossible
	}
	state, act := shipping.Decide(w.parcel, in)
	w.parcel = state
	switch act {
	case shipping.SetTimer:
		w.shipTimer = true
	case shipping.EmitCreated:
		w.emit(mShipmentCreated, qShippingOrder, qShippingInventory, qShippingPayment)
	case shipping.EmitFailed:
		w.emit(mShipmentFailed, qShippingOrder)
	case shipping.EmitCanceled:
		w.shipTimer = false
		w.emit(mShipmentCanceled, qShippingOrder)
	case shipping.EmitCancelRefused:
		w.emit(mShipmentCancelRefused, qShippingOrder)
	case shipping.ActionNone:
	}
}

// perform makes a call at the gateway. Made again it gives the same answer: the key is the same.
func (w *world) perform(sc scenario, c int) {
	answer := callYes
	switch c {
	case cAuthorize:
		if w.gateway == gwNothing {
			w.gateway = gwAuthorized
			if sc.declined {
				w.gateway = gwDeclined
			}
		}
		if w.gateway != gwAuthorized { // The tombstone of a void refuses the late-comer, too.
			answer = callNo
		}
	case cVoid:
		if w.gateway == gwNothing || w.gateway == gwAuthorized {
			w.gateway = gwVoided
		}
	case cLookup:
		switch w.gateway {
		case gwAuthorized:
		case gwDeclined:
			answer = callNo
		default:
			answer = callNothing
		}
	case cCapture:
		if w.gateway == gwAuthorized {
			w.gateway = gwCaptured
			if sc.captureRefused {
				w.gateway = gwCaptureRefused
			}
		}
		if w.gateway != gwCaptured {
			answer = callNo
		}
	}
	w.calls[c] = answer
}

// record tells payment the answer, once.
func (w *world) record(c int) {
	yes, nothing := w.calls[c] == callYes, w.calls[c] == callNothing
	w.calls[c] = callRecorded
	switch {
	case nothing:
	case (c == cAuthorize || c == cLookup) && yes:
		w.tellPayment(payment.InputAuthorized)
	case c == cAuthorize || c == cLookup:
		w.tellPayment(payment.InputDeclined)
	case c == cVoid:
		w.tellPayment(payment.InputVoided)
	case yes:
		w.tellPayment(payment.InputCaptured)
	default:
		w.tellPayment(payment.InputCaptureRefused)
	}
}

// check looks for what must not be in any state.
func (w *world) check(b *broken) {
	if w.has(mCompleted) && w.has(mCanceled) {
		b.addf("both COMPLETED and CANCELED")
	}
	if w.has(mCanceled) {
		w.checkCanceled(b)
	}
	if w.armed != 0 && !w.facts.waiting() {
		b.addf("a timer is armed that nobody waits for: %+v", w.facts)
	}
	if w.gateway == gwCaptured && w.parcel != shipping.StateCreated {
		b.addf("money captured for goods that do not go out")
	}
	if w.facts.Answered&^w.facts.Told != 0 {
		b.addf("an answer without its request: %+v", w.facts)
	}
	// Told again, past the inbox, nothing may happen.
	for k := range InputCancel {
		if w.told&(1<<k) == 0 {
			continue
		}
		if d := Decide(w.facts, Input{Kind: k}); d.Verdict == Changed {
			b.addf("input %d told again changes %+v to %+v", k, w.facts, d)
		}
	}
}

func (w *world) checkCanceled(b *broken) {
	if open := w.facts.Told & requests &^ w.facts.Answered; open != 0 {
		b.addf("CANCELED and requests %v have no answer", open.names())
	}
	if w.gateway == gwAuthorized || w.gateway == gwCaptured {
		b.addf("CANCELED and the gateway holds money (%d)", w.gateway)
	}
	if w.stock == inventory.StateReserved || w.stock == inventory.StateCommitted {
		b.addf("CANCELED and the stock is %s", w.stock)
	}
	if w.parcel == shipping.StateCreated || w.parcel == shipping.StatePlanned {
		b.addf("CANCELED and the parcel is %s", w.parcel)
	}
}

// checkEnd looks at a world in which nothing can happen any more.
func (w *world) checkEnd(b *broken) {
	switch state := w.facts.State(); state {
	case StateCompleted:
		if w.gateway != gwCaptured || w.stock != inventory.StateCommitted || w.parcel != shipping.StateCreated {
			b.addf("COMPLETED with gateway %d, stock %s, parcel %s", w.gateway, w.stock, w.parcel)
		}
	case StateCanceled:
		w.checkCanceled(b)
		if w.facts.Reason() == "" || w.facts.CanceledBy() == "" {
			b.addf("CANCELED for no reason")
		}
	case StatePaid:
		if w.facts.Attention() != AttentionCaptureFailed || w.gateway != gwCaptureRefused {
			b.addf("ends PAID: %+v", w.facts)
		}
	default:
		b.addf("ends %s: %+v", state, w.facts)
	}
	if w.armed != 0 {
		b.addf("a timer is left")
	}
	for _, pair := range [][2][]message{
		{{mReserve}, {mReserved, mShort}},
		{{mReserved}, {mPaymentRequested}},
		{{mRelease}, {mReleased}},
		{{mVoid}, {mVoided}},
		{{mShipmentCancel}, {mShipmentCanceled, mShipmentCancelRefused}},
		{{mShipmentCancelRefused}, {mRefused}},
		{{mShipmentCreated}, {mCaptured, mCaptureFailed}},
		{{mShipmentCreated}, {mCommitted}},
	} {
		if asked, answers := w.count(pair[0]), w.count(pair[1]); asked != answers {
			b.addf("messages %v: %d, answered by %v: %d", pair[0], asked, pair[1], answers)
		}
	}
	w.checkReason(b)
}

func (w *world) count(ms []message) (n int) {
	for _, m := range ms {
		if w.has(m) {
			n++
		}
	}
	return n
}

// checkReason compares the order's reason with what its owner knows.
func (w *world) checkReason(b *broken) {
	r := w.facts.Reason()
	switch {
	case r == contract.ReasonOutOfStock && w.stock != inventory.StateFailed,
		r == contract.ReasonCardDeclined && w.gateway != gwDeclined,
		r == contract.ReasonShipmentFailed && w.parcel != shipping.StateFailed,
		r == contract.ReasonCustomer && w.accepted == 0,
		r == contract.ReasonPaymentTimeout && !w.has(mExpiredPassed):
		b.addf("reason %s is not confirmed: stock %s, gateway %d, parcel %s", r, w.stock, w.gateway, w.parcel)
	}
}

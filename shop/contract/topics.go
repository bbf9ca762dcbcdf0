package contract

// Topics. A request to a service travels on that service's topic, whoever emits it.
const (
	OrderTopic     = "order-events"
	InventoryTopic = "inventory-events"
	PaymentTopic   = "payment-events"
	ShippingTopic  = "shipping-events"
	CatalogTopic   = "catalog-events"
)

// Topics returns every topic of the shop.
func Topics() []string {
	return []string{OrderTopic, InventoryTopic, PaymentTopic, ShippingTopic, CatalogTopic}
}

// Named is what every definition says of itself.
type Named interface {
	Name() string
	Topic() string
}

// Events returns every event of the shop, topic by topic.
func Events() []Named {
	return []Named{
		OrderCreated, OrderDeadlinePassed, OrderPaymentDelayed, OrderPaid, OrderCompleted,
		OrderCanceled, OrderCancelRefused, ReturnRequested, ReturnCompleted,
		StockReserveRequested, StockReserved, StockReservationFailed, StockReleaseRequested,
		StockReleased, StockCommitted, StockReturned,
		PaymentRequested, PaymentAuthorized, PaymentFailed, PaymentVoidRequested,
		PaymentVoided, PaymentSucceeded, PaymentCaptureFailed, PaymentRefunded,
		ShipmentDue, ShipmentCreated, ShipmentFailed, ShipmentCancelRequested, ShipmentCanceled, ShipmentCancelRefused,
		ProductViewed, ProductLiked, ProductUnliked, PriceChanged,
	}
}

// EventTypes returns the name of every event of the shop: what a consumer must know or park.
func EventTypes() []string {
	var names []string
	for _, e := range Events() {
		names = append(names, e.Name())
	}
	return names
}

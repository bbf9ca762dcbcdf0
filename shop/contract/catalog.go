package contract

import "github.com/settledev/settle/event"

// ProductV1 is something that a person did with a product.
type ProductV1 struct {
	ProductID string `json:"productId"`
	UserID    string `json:"userId,omitempty"`
}

// PriceV1 is a product's new price.
type PriceV1 struct {
	ProductID string `json:"productId"`
	Price     Money  `json:"price"`
}

func product(name string) event.Type[ProductV1] {
	return event.Define(name, 1, event.Spec[ProductV1]{
		Topic: CatalogTopic, Aggregate: "product", Key: func(d ProductV1) string { return d.ProductID },
	})
}

// Events of the catalogue.
var (
	ProductViewed  = product("ProductViewed")
	ProductLiked   = product("ProductLiked")
	ProductUnliked = product("ProductUnliked")
	PriceChanged   = event.Define("PriceChanged", 1, event.Spec[PriceV1]{
		Topic: CatalogTopic, Aggregate: "product", Key: func(d PriceV1) string { return d.ProductID },
	})
)

// Stocked reports whether a product code is one of goods: services such as POST are sold, not stocked.
func Stocked(code string) bool {
	if len(code) < 5 {
		return false
	}
	for i := range 5 {
		if code[i] < '0' || code[i] > '9' {
			return false
		}
	}
	return true
}

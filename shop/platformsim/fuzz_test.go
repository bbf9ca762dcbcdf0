package platformsim

import (
	"testing"

	"github.com/settledev/settle/shop/internal/jsonhttp"
)

// FuzzDelivery: whatever the body, it is refused or it is a delivery within its bounds.
func FuzzDelivery(f *testing.F) {
	f.Add([]byte(`{"eventId":"e1","kind":"order","reference":"o1","data":{}}`))
	f.Add([]byte(`{"eventId":"e1","kind":"order","reference":"o1","data": {"a":[1e9]} }`))
	f.Add([]byte(`{"data":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var d delivery
		if p := jsonhttp.Unmarshal(body, &d); p != nil {
			return
		}
		if p := d.check(d.EventID); p != nil {
			return
		}
		if d.EventID == "" || len(d.EventID) > NameBytesMax || d.Reference == "" || len(d.Reference) > NameBytesMax || len(d.Data) < 2 {
			t.Errorf("taken: %+v", d)
		}
	})
}

package settlekafka

import (
	"slices"
	"testing"
)

// TestHeld wants topics told apart by whether they have ever had a message, and none made by the question.
func TestHeld(t *testing.T) {
	b := open(t, "kafka://"+fake(t), Config{})
	if _, err := b.topic(t.Context(), "empty-events"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if held, err := b.Held(t.Context(), orders, "empty-events", "no-events"); err != nil || len(held) > 0 {
			t.Fatalf("held %v, %v before anything was written", held, err)
		}
	}
	publish(t, b, oneMessage("1", "{}"))
	if held, err := b.Held(t.Context(), "no-events", "empty-events", orders); err != nil || !slices.Equal(held, []string{orders}) {
		t.Errorf("held %v, %v", held, err)
	}
}

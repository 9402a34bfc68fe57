package audit

import (
	"testing"

	"hanse/client"
	"hanse/internal/order"
)

func TestWhatWasGivenUpIsNotUnderWay(t *testing.T) {
	shipped := func(reason string) *client.Order {
		return &client.Order{State: "fulfilled", Fulfillments: []client.Fulfillment{{Amount: 100, CaptureFailed: reason}}}
	}
	refunded := func(reason string) *client.Order {
		return &client.Order{State: "fulfilled", Refunds: []client.Refund{{Amount: 100, Failed: reason}}}
	}
	for _, c := range []struct {
		name string
		o    *client.Order
		open bool
	}{
		{"a capture", shipped(""), true},
		{"a declined capture", shipped("expired_card"), true},
		{"a capture that was given up", shipped(order.GivenUp), false},
		{"a refund", refunded(""), true},
		{"a declined refund", refunded("account_closed"), true},
		{"a refund that was given up", refunded(order.GivenUp), false},
	} {
		if open, _ := underWay(c.o); open != c.open {
			t.Errorf("%s is under way: %v, want %v", c.name, open, c.open)
		}
	}
}

package rest

import (
	"testing"

	"hanse/api/orderpb"
	"hanse/internal/order"
)

// A finished order's saga said that its money was authorized and its stock held.
func TestSagaOfAFinishedOrder(t *testing.T) {
	leg := &orderpb.Leg{State: orderpb.LegState_LEG_HELD}
	o := &orderpb.Order{
		Total: 200, Authorized: 200, Payment: orderpb.PaymentStep_PAYMENT_AUTHORIZED, Legs: []*orderpb.Leg{leg},
		Lines: []*orderpb.Line{{No: 1, Quantity: 2}},
	}
	want := func(payment, stock string) {
		t.Helper()
		if got := paymentStep(o); got != payment {
			t.Errorf("the payment is %s, want %s", got, payment)
		}
		if got := legState(o, leg); got != stock {
			t.Errorf("the stock is %s, want %s", got, stock)
		}
	}
	want("authorized", "held")
	o.Lines[0].Fulfilled, o.Captured = 1, 100
	want("partially_captured", "held")
	o.Lines[0].Canceled, o.Payment = 1, orderpb.PaymentStep_PAYMENT_VOIDING
	want("voiding", "closed")
	o.Voided, o.Payment = 100, orderpb.PaymentStep_PAYMENT_VOIDED
	want("captured", "closed")
	o.Refunded = 100
	want("refunded", "closed")
}

// A refund that an operator had given up called for a person for ever.
func TestWhatNeedsAttention(t *testing.T) {
	for reason, want := range map[string]bool{"": false, "account_closed": true, order.GivenUp: false} {
		o := &orderpb.Order{State: order.Fulfilled, Refunds: []*orderpb.Refund{{Amount: 100, Failed: reason}}}
		if got := needsAttention(o); got != want {
			t.Errorf("a refund that failed by %q needs attention: %v, want %v", reason, got, want)
		}
	}
}

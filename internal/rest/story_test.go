package rest

import (
	"testing"

	"hanse/api/orderpb"
	"hanse/internal/order"
)

// What a person has decided is told as that, and not as an answer of the provider.
func TestStoryTellsWhoHasDecided(t *testing.T) {
	stuck := func(seq uint64, step string, amount int64) *orderpb.Event {
		return &orderpb.Event{Detail: &orderpb.Event_StepStuck{StepStuck: &orderpb.StepStuck{Step: &orderpb.StuckStep{Seq: seq, Step: step, Amount: amount}}}}
	}
	resolved := func(seq uint64, decision, evidence, operator string) *orderpb.Event {
		return &orderpb.Event{Detail: &orderpb.Event_StepResolved{StepResolved: &orderpb.StepResolved{
			Seq: seq, Decision: decision, Evidence: evidence, Operator: operator,
		}}}
	}
	captured := func(amount int64) *orderpb.Event {
		return &orderpb.Event{Detail: &orderpb.Event_PaymentCaptured{PaymentCaptured: &orderpb.PaymentCaptured{FulfillmentId: "ful_1", Amount: amount}}}
	}
	refunded := &orderpb.Event{Detail: &orderpb.Event_PaymentRefunded{PaymentRefunded: &orderpb.PaymentRefunded{RefundId: "rfd_1", Amount: 50}}}
	captureFailed := func(code string) *orderpb.Event {
		return &orderpb.Event{Detail: &orderpb.Event_CaptureFailed{CaptureFailed: &orderpb.CaptureFailed{FulfillmentId: "ful_1", Code: code}}}
	}
	refundFailed := &orderpb.Event{Detail: &orderpb.Event_RefundFailed{RefundFailed: &orderpb.RefundFailed{RefundId: "rfd_1", Code: order.GivenUp}}}
	n := newNarrator("EUR")
	for i, c := range []struct {
		event *orderpb.Event
		want  string
	}{
		{captureFailed("no"), "Charging for fulfillment ful_1 failed for good (no). The order waits for a person. (answer of the payment provider)"},
		{stuck(1, "capture", 100), `Step "capture" is stuck after 0 attempts:  (the order's saga)`},
		{stuck(2, "capture", 100), `Step "capture" is stuck after 0 attempts:  (the order's saga)`},
		{resolved(1, "retry", "", ""), "Stuck step 1 was settled: retry. (the order's saga)"},
		{resolved(2, "done", "cash", "kim"), "Stuck step 2 was settled: done (cash). (operator kim)"},
		{captured(70), "0.70 EUR were charged for fulfillment ful_1. (answer of the payment provider)"},
		{captured(100), "1.00 EUR were charged for fulfillment ful_1. (the word of operator kim)"},
		{captured(100), "1.00 EUR were charged for fulfillment ful_1. (answer of the payment provider)"},
		{stuck(3, "refund", 50), `Step "refund" is stuck after 0 attempts:  (the order's saga)`},
		{resolved(3, "done", "cash", ""), "Stuck step 3 was settled: done (cash). (an operator)"},
		{refunded, "0.50 EUR were refunded (rfd_1). (the word of an operator)"},
		{resolved(4, "done", "", ""), "Stuck step 4 was settled: done. (the order's saga)"},
		{resolved(5, "retry", "", ""), "Stuck step 5 was settled: retry. (an operator)"},
		{captureFailed(order.GivenUp), "Charging for fulfillment ful_1 was given up: nobody pays for it. (an operator)"},
		{refundFailed, "Refund rfd_1 was given up: it is not paid out. (an operator)"},
	} {
		cause, text := n.tell(c.event)
		if got := text + " (" + cause + ")"; got != c.want {
			t.Errorf("sentence %d is\n%s\nwant\n%s", i+1, got, c.want)
		}
	}
}

package order

import "hanse/api/orderpb"

// Kind says what an event is about.
type Kind uint8

// The kinds of events, in the order of their field numbers.
const (
	KindUnknown Kind = iota
	KindPlaced
	KindStockReserved
	KindStockRefused
	KindPaymentAuthorized
	KindPaymentDeclined
	KindConfirmed
	KindCancelRequested
	KindExpireRequested
	KindStockReleased
	KindPaymentVoided
	KindEnded
	KindFulfilled
	KindPaymentCaptured
	KindCaptureFailed
	KindReturned
	KindRefundRequested
	KindPaymentRefunded
	KindRefundFailed
	KindStepStuck
	KindStepResolved
	KindRemainderCanceled
	KindKeyRefused
	kindCount
)

var kindNames = [kindCount]string{
	"unknown", "order.placed", "order.stock_reserved", "order.stock_refused", "order.payment_authorized",
	"order.payment_declined", "order.confirmed", "order.cancel_requested", "order.expire_requested",
	"order.stock_released", "payment.voided", "order.ended", "order.fulfilled", "payment.captured",
	"payment.capture_failed", "order.returned", "order.refund_requested", "payment.refunded",
	"payment.refund_failed", "saga.stuck", "saga.resolved", "order.remainder_canceled", "order.key_refused",
}

// String returns the kind's event type; that of an ended order is told apart by [EventType].
func (k Kind) String() string { return kindNames[k] }

// Kinds lists the kinds of events.
func Kinds() []Kind {
	kinds := make([]Kind, 0, kindCount-1)
	for k := KindPlaced; k < kindCount; k++ {
		kinds = append(kinds, k)
	}
	return kinds
}

// KindOf returns what e is about, KindUnknown for an event without detail.
func KindOf(e *orderpb.Event) Kind {
	switch e.Detail.(type) {
	case *orderpb.Event_Placed:
		return KindPlaced
	case *orderpb.Event_StockReserved:
		return KindStockReserved
	case *orderpb.Event_StockRefused:
		return KindStockRefused
	case *orderpb.Event_PaymentAuthorized:
		return KindPaymentAuthorized
	case *orderpb.Event_PaymentDeclined:
		return KindPaymentDeclined
	case *orderpb.Event_Confirmed:
		return KindConfirmed
	case *orderpb.Event_CancelRequested:
		return KindCancelRequested
	case *orderpb.Event_ExpireRequested:
		return KindExpireRequested
	case *orderpb.Event_StockReleased:
		return KindStockReleased
	case *orderpb.Event_PaymentVoided:
		return KindPaymentVoided
	case *orderpb.Event_Ended:
		return KindEnded
	case *orderpb.Event_Fulfilled:
		return KindFulfilled
	case *orderpb.Event_PaymentCaptured:
		return KindPaymentCaptured
	case *orderpb.Event_CaptureFailed:
		return KindCaptureFailed
	case *orderpb.Event_Returned:
		return KindReturned
	case *orderpb.Event_RefundRequested:
		return KindRefundRequested
	case *orderpb.Event_PaymentRefunded:
		return KindPaymentRefunded
	case *orderpb.Event_RefundFailed:
		return KindRefundFailed
	case *orderpb.Event_StepStuck:
		return KindStepStuck
	case *orderpb.Event_StepResolved:
		return KindStepResolved
	case *orderpb.Event_RemainderCanceled:
		return KindRemainderCanceled
	case *orderpb.Event_KeyRefused:
		return KindKeyRefused
	}
	return KindUnknown
}

// EventType returns the type that users see, for example "order.confirmed". Types are never renamed. The end of
// an order is "order.rejected", "order.canceled" or "order.expired".
func EventType(e *orderpb.Event) string {
	if ended, ok := e.Detail.(*orderpb.Event_Ended); ok {
		return "order." + StateName(ended.Ended.GetState())
	}
	return KindOf(e).String()
}

// EventTypes lists every type that EventType returns, for those who choose among them.
func EventTypes() []string {
	var types []string
	for _, k := range Kinds() {
		if k == KindEnded {
			types = append(types, "order.rejected", "order.canceled", "order.expired")
			continue
		}
		types = append(types, k.String())
	}
	return types
}

// history collects the events that follow on an order, numbering them.
type history struct {
	o      *orderpb.Order
	now    int64
	events []*orderpb.Event
}

func follow(o *orderpb.Order, now int64) *history { return &history{o: o, now: now} }

// add appends an event with the detail that set puts into it.
func (h *history) add(set func(*orderpb.Event)) *history {
	e := new(orderpb.Event)
	set(e)
	return h.put(e)
}

// put appends an event that has its detail. The events of every order come with their detail in one allocation.
func (h *history) put(e *orderpb.Event) *history {
	e.OrderId, e.Version, e.At = h.o.Id, h.o.Revision+uint64(len(h.events))+1, h.now
	if h.events == nil {
		h.events = make([]*orderpb.Event, 0, 2) // as many as most decisions have
	}
	h.events = append(h.events, e)
	return h
}

package order

import (
	"strings"

	"hanse/api/orderpb"
	"hanse/internal/reject"
)

// State is the life-cycle state of an order. Payment, fulfillment and return status are derived from
// amounts and quantities and never stored.
type State = orderpb.State

// The states in use, in the words of this package.
const (
	None               = orderpb.State_STATE_UNSPECIFIED // there is no order yet
	Placing            = orderpb.State_PLACING
	AwaitingPayment    = orderpb.State_AWAITING_PAYMENT
	Confirmed          = orderpb.State_CONFIRMED
	PartiallyFulfilled = orderpb.State_PARTIALLY_FULFILLED
	Fulfilled          = orderpb.State_FULFILLED
	Completed          = orderpb.State_COMPLETED
	Canceling          = orderpb.State_CANCELING
	Canceled           = orderpb.State_CANCELED
	Expiring           = orderpb.State_EXPIRING
	Expired            = orderpb.State_EXPIRED
	Rejecting          = orderpb.State_REJECTING
	Rejected           = orderpb.State_REJECTED
	OnHold             = orderpb.State_ON_HOLD
)

// States lists the states that an order can be in, in the order of its life.
func States() []State {
	return []State{
		Placing, AwaitingPayment, Confirmed, PartiallyFulfilled, OnHold, Fulfilled, Completed,
		Canceling, Canceled, Expiring, Expired, Rejecting, Rejected,
	}
}

var stateNames = func() (names [16]string) {
	for number, name := range orderpb.State_name {
		names[number] = strings.ToLower(name)
	}
	names[None] = "none"
	return names
}()

// StateName returns the name that users see, for example "awaiting_payment".
func StateName(s State) string {
	if int(s) < len(stateNames) && s >= 0 {
		return stateNames[s]
	}
	return s.String()
}

// Ended reports whether the order was undone and has come to rest: rejected, canceled or expired.
func Ended(s State) bool { return s == Rejected || s == Canceled || s == Expired }

// Refusal says why an order that has been decided was refused, nil for one that was not.
func Refusal(o *orderpb.Order) *reject.Rejection {
	switch o.State {
	case Rejected:
		return &reject.Rejection{Code: o.Reason, Field: o.RejectField, Detail: o.RejectDetail}
	case Expired:
		return &reject.Rejection{Code: reject.DeadlineExceeded, Detail: "the order was not placed and paid in time"}
	}
	return nil
}

// Terminal reports whether nothing but returns can happen any more.
func Terminal(s State) bool { return Ended(s) || s == Completed }

// Compensating reports whether the order's steps are being undone.
func Compensating(s State) bool { return s == Canceling || s == Expiring || s == Rejecting }

// Open reports whether something is still under way or waits for an operator: the order's saga is not finished.
// Steps that only tell other services what is certain (allocate, fulfill, restock) count once they are stuck.
func Open(o *orderpb.Order) bool {
	switch o.State {
	case Placing, AwaitingPayment, Canceling, Expiring, Rejecting, OnHold:
		return true
	}
	return o.Payment == orderpb.PaymentStep_PAYMENT_VOIDING || o.Captured < o.CaptureRequested ||
		o.Refunded < o.RefundRequested || len(o.Stuck) > 0
}

// Ahead reports whether the order's authorization is in the outbox although its stock is not known to be held: it leaves as soon as
// the inventory has said so, before that is on record here.
func Ahead(o *orderpb.Order) bool {
	return o.State == Placing && o.Payment == orderpb.PaymentStep_PAYMENT_AUTHORIZING
}

// KeepsHold answers an inventory shard that asks whether the order still wants the stock it holds there.
func KeepsHold(o *orderpb.Order, shard uint32) bool {
	if Ended(o.State) {
		return false
	}
	leg := legOf(o, shard)
	return leg != nil && leg.State != orderpb.LegState_LEG_RELEASED && leg.State != orderpb.LegState_LEG_REFUSED
}

// PaymentStatus derives how far the money has moved: none, pending, authorized, partially_captured, captured, partially_refunded,
// refunded, declined or voided.
func PaymentStatus(o *orderpb.Order) string {
	switch {
	case o.Total == 0:
		return "none"
	case o.Refunded > 0 && o.Refunded >= o.Captured:
		return "refunded"
	case o.Refunded > 0:
		return "partially_refunded"
	case o.Captured > 0 && o.Captured+o.Voided >= o.Authorized:
		return "captured"
	case o.Captured > 0:
		return "partially_captured"
	case o.Payment == orderpb.PaymentStep_PAYMENT_DECLINED:
		return "declined"
	case o.Payment == orderpb.PaymentStep_PAYMENT_VOIDED:
		return "voided"
	case o.Authorized > 0:
		return "authorized"
	case o.Payment == orderpb.PaymentStep_PAYMENT_NONE:
		return "none"
	}
	return "pending"
}

// FulfillmentStatus derives unfulfilled, partial or fulfilled.
func FulfillmentStatus(o *orderpb.Order) string {
	var done, open int64
	for _, l := range o.Lines {
		done += l.Fulfilled
		open += openQuantity(l)
	}
	switch {
	case done == 0:
		return "unfulfilled"
	case open > 0:
		return "partial"
	}
	return "fulfilled"
}

// ReturnStatus derives none, partial or returned.
func ReturnStatus(o *orderpb.Order) string {
	var returned, fulfilled int64
	for _, l := range o.Lines {
		returned += l.Returned
		fulfilled += l.Fulfilled
	}
	switch {
	case returned == 0:
		return "none"
	case returned < fulfilled:
		return "partial"
	}
	return "returned"
}

func openQuantity(l *orderpb.Line) int64 { return l.Quantity - l.Canceled - l.Fulfilled }

func legOf(o *orderpb.Order, shard uint32) *orderpb.Leg {
	for _, leg := range o.Legs {
		if leg.Shard == shard {
			return leg
		}
	}
	return nil
}

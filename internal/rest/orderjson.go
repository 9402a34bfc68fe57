package rest

import (
	"strconv"

	"hanse/api/orderpb"
	"hanse/internal/order"
)

// AppendOrder appends an order's JSON ([Order]) to b.
func AppendOrder(b []byte, o *orderpb.Order) []byte {
	e := encoder{b: b, start: len(b)}
	appendOrder(&e, o, true)
	return e.b
}

// appendOrder writes an order as [Order]. An open one lacks its closing brace, for members to follow, and leaves
// its payment out unless withPayment.
func appendOrder(e *encoder, o *orderpb.Order, withPayment bool) {
	beginOrder(e, o, withPayment)
	e.close('}')
}

func beginOrder(e *encoder, o *orderpb.Order, withPayment bool) {
	e.open('{')
	e.str("id", o.Id)
	e.str("state", order.StateName(o.State))
	e.opt("reason", o.Reason)
	e.opt("reason_detail", o.RejectDetail)
	e.int("revision", int64(o.Revision))
	e.str("customer_id", o.CustomerId)
	e.str("currency", o.Currency)
	e.str("location", o.Location)
	e.key("lines")
	e.open('[')
	for _, l := range o.Lines {
		e.open('{')
		e.int("line", int64(l.No))
		e.str("sku", l.Sku)
		e.int("quantity", l.Quantity)
		e.int("unit_price", l.UnitPrice)
		e.int("total", l.Total)
		e.bool("tracked", !l.Untracked)
		e.int("canceled", l.Canceled)
		e.int("fulfilled", l.Fulfilled)
		e.int("returned", l.Returned)
		e.close('}')
	}
	e.close(']')
	e.int("total", o.Total)
	e.str("payment_status", order.PaymentStatus(o))
	e.str("fulfillment_status", order.FulfillmentStatus(o))
	e.str("return_status", order.ReturnStatus(o))
	e.str("payment_id", o.PaymentId)
	if withPayment {
		e.key("payment")
		e.open('{')
		e.str("method", o.PaymentMethod)
		e.int("authorized", o.Authorized)
		e.int("captured", o.Captured)
		e.int("refunded", o.Refunded)
		e.int("voided", o.Voided)
		e.close('}')
	}
	e.key("fulfillments")
	e.open('[')
	for _, f := range o.Fulfillments {
		appendFulfillment(e, f)
	}
	e.close(']')
	e.key("returns")
	e.open('[')
	for _, r := range o.Returns {
		appendReturn(e, r)
	}
	e.close(']')
	e.key("refunds")
	e.open('[')
	for _, r := range o.Refunds {
		appendRefund(e, r)
	}
	e.close(']')
	e.bool("attention", needsAttention(o))
	if len(o.Stuck) > 0 {
		appendStuck(e, o.Stuck)
	}
	e.time("created_at", o.CreatedAt)
	e.time("updated_at", o.UpdatedAt)
	e.opt("merchant_reference", o.MerchantReference)
}

func appendItems(e *encoder, items []*orderpb.Item) {
	e.key("items")
	e.open('[')
	for _, it := range items {
		e.open('{')
		e.int("line", int64(it.Line))
		e.int("quantity", it.Quantity)
		e.close('}')
	}
	e.close(']')
}

func appendFulfillment(e *encoder, f *orderpb.Fulfillment) {
	e.open('{')
	e.str("id", f.GetId())
	e.time("at", f.GetAt())
	appendItems(e, f.GetItems())
	e.int("amount", f.GetAmount())
	e.int("captured", f.GetCaptured())
	e.opt("capture_failed", f.GetCaptureFailed())
	e.opt("tracking", f.GetTracking())
	e.close('}')
}

func appendReturn(e *encoder, r *orderpb.Return) {
	e.open('{')
	e.str("id", r.GetId())
	e.time("at", r.GetAt())
	appendItems(e, r.GetItems())
	e.str("disposition", nameOf(dispositions, r.GetDisposition()))
	e.opt("reason", r.GetReason())
	e.int("amount", r.GetAmount())
	e.close('}')
}

func appendRefund(e *encoder, r *orderpb.Refund) {
	e.open('{')
	e.str("id", r.GetId())
	e.time("at", r.GetAt())
	e.int("amount", r.GetAmount())
	e.opt("reason", r.GetReason())
	e.opt("return_id", r.GetReturnId())
	e.bool("done", r.GetDone())
	e.opt("failed", r.GetFailed())
	e.close('}')
}

func appendStuck(e *encoder, steps []*orderpb.StuckStep) {
	e.key("stuck")
	e.open('[')
	for _, s := range steps {
		appendStuckStep(e, s)
	}
	e.close(']')
}

func appendStuckStep(e *encoder, s *orderpb.StuckStep) {
	e.open('{')
	e.int("seq", int64(s.GetSeq()))
	e.str("step", s.GetStep())
	e.str("cause", s.GetCause())
	e.time("since", s.GetSince())
	e.int("attempts", int64(s.GetAttempts()))
	e.time("next_try", s.GetNextTry())
	e.int("amount", s.GetAmount())
	e.int("units", s.GetUnits())
	e.close('}')
}

// paymentStep says how far the money is. The order's own step ends with the authorization, or the void of what is left of it.
func paymentStep(o *orderpb.Order) string {
	if o.Captured > 0 && o.Payment != orderpb.PaymentStep_PAYMENT_VOIDING {
		return order.PaymentStatus(o)
	}
	return nameOf(paymentSteps, o.Payment)
}

// legState says how an inventory shard's part is kept: not at all when every unit of the order has left or was canceled. The order's own leg is held from
// then on for ever, for it says whether there is something to undo.
func legState(o *orderpb.Order, l *orderpb.Leg) string {
	if l.State == orderpb.LegState_LEG_HELD && order.FulfillmentStatus(o) == "fulfilled" {
		return "closed"
	}
	return nameOf(legStates, l.State)
}

// appendSaga writes an order as [Saga].
func appendSaga(e *encoder, o *orderpb.Order) {
	e.open('{')
	e.str("order_id", o.Id)
	e.str("state", order.StateName(o.State))
	e.int("revision", int64(o.Revision))
	e.str("payment_id", o.PaymentId)
	e.str("payment_step", paymentStep(o))
	e.str("currency", o.Currency)
	e.int("total", o.Total)
	e.key("legs")
	e.open('[')
	for _, l := range o.Legs {
		e.open('{')
		e.str("shard", "inventory/"+strconv.Itoa(int(l.Shard)))
		e.str("state", legState(o, l))
		e.close('}')
	}
	e.close(']')
	appendStuck(e, o.Stuck)
	e.time("deadline", o.Deadline)
	e.time("created_at", o.CreatedAt)
	e.time("updated_at", o.UpdatedAt)
	e.close('}')
}

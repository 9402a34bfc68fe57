package rest

import (
	"strconv"

	"hanse/api/orderpb"
	"hanse/internal/order"
)

// AppendEvent appends an event's JSON ([Event]) to b. The position is the event's in the feed of its shard.
// Webhooks and streams send the same bytes.
func AppendEvent(b []byte, position uint64, ev *orderpb.Event) []byte {
	e := encoder{b: b, start: len(b)}
	appendEvent(&e, position, ev)
	return e.b
}

func appendEvent(e *encoder, position uint64, ev *orderpb.Event) {
	e.open('{')
	e.key("id")
	e.b = append(e.b, '"')
	e.b = append(e.b, ev.OrderId...)
	e.b = append(e.b, '.')
	e.b = strconv.AppendUint(e.b, ev.Version, 10)
	e.b = append(e.b, '"')
	e.str("type", order.EventType(ev))
	e.str("order_id", ev.OrderId)
	e.int("version", int64(ev.Version))
	e.time("timestamp", ev.At)
	e.int("sequence", int64(position))
	e.key("data")
	appendDetail(e, ev)
	e.close('}')
}

func appendDetail(e *encoder, ev *orderpb.Event) {
	e.open('{')
	switch d := ev.Detail.(type) {
	case *orderpb.Event_Placed:
		if d.Placed.GetOrder() != nil && ev.Version == 1 {
			e.key("order") // as it was then: the event itself keeps only what others do not say
			appendOrder(e, order.Replay([]*orderpb.Event{ev}), true)
		}
	case *orderpb.Event_StockReserved:
		e.str("shard", inventoryShard(d.StockReserved.GetShard()))
	case *orderpb.Event_StockRefused:
		e.str("shard", inventoryShard(d.StockRefused.GetShard()))
		e.str("code", d.StockRefused.GetCode())
		e.opt("pointer", d.StockRefused.GetField())
		e.opt("detail", d.StockRefused.GetText())
	case *orderpb.Event_KeyRefused:
		e.str("code", d.KeyRefused.GetCode())
		e.opt("detail", d.KeyRefused.GetText())
	case *orderpb.Event_PaymentAuthorized:
		e.int("amount", d.PaymentAuthorized.GetAmount())
		e.opt("provider_reference", d.PaymentAuthorized.GetProviderReference())
	case *orderpb.Event_PaymentDeclined:
		e.str("code", d.PaymentDeclined.GetCode())
	case *orderpb.Event_CancelRequested:
		e.str("reason", d.CancelRequested.GetReason())
	case *orderpb.Event_ExpireRequested:
		e.str("reason", d.ExpireRequested.GetReason())
	case *orderpb.Event_StockReleased:
		e.str("shard", inventoryShard(d.StockReleased.GetShard()))
	case *orderpb.Event_PaymentVoided:
		e.int("amount", d.PaymentVoided.GetAmount())
	case *orderpb.Event_Ended:
		e.str("state", order.StateName(d.Ended.GetState()))
	case *orderpb.Event_Fulfilled:
		e.key("fulfillment")
		appendFulfillment(e, d.Fulfilled.GetFulfillment())
	case *orderpb.Event_PaymentCaptured:
		e.str("fulfillment_id", d.PaymentCaptured.GetFulfillmentId())
		e.int("amount", d.PaymentCaptured.GetAmount())
	case *orderpb.Event_CaptureFailed:
		e.str("fulfillment_id", d.CaptureFailed.GetFulfillmentId())
		e.str("code", d.CaptureFailed.GetCode())
	case *orderpb.Event_Returned:
		e.key("return")
		appendReturn(e, d.Returned.GetReturn())
	case *orderpb.Event_RefundRequested:
		e.key("refund")
		appendRefund(e, d.RefundRequested.GetRefund())
	case *orderpb.Event_PaymentRefunded:
		e.str("refund_id", d.PaymentRefunded.GetRefundId())
		e.int("amount", d.PaymentRefunded.GetAmount())
	case *orderpb.Event_RefundFailed:
		e.str("refund_id", d.RefundFailed.GetRefundId())
		e.str("code", d.RefundFailed.GetCode())
	case *orderpb.Event_StepStuck:
		e.key("step")
		appendStuckStep(e, d.StepStuck.GetStep())
	case *orderpb.Event_StepResolved:
		e.int("seq", int64(d.StepResolved.GetSeq()))
		e.str("decision", d.StepResolved.GetDecision())
		e.opt("evidence", d.StepResolved.GetEvidence())
		e.opt("operator", d.StepResolved.GetOperator())
	case *orderpb.Event_RemainderCanceled:
		appendItems(e, d.RemainderCanceled.GetItems())
		e.opt("reason", d.RemainderCanceled.GetReason())
	}
	e.close('}')
}

func inventoryShard(index uint32) string { return "inventory/" + strconv.FormatUint(uint64(index), 10) }

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

func units(items []*orderpb.Item) int {
	var n int64
	for _, it := range items {
		n += it.GetQuantity()
	}
	return int(n)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

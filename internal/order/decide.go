package order

import (
	"strconv"

	"hanse/api/orderpb"
	"hanse/internal/id"
	"hanse/internal/reject"
)

const declinedReason = reject.PaymentDeclined

// DecideCancel decides on a cancel. Before anything is fulfilled the whole order is undone, after that the rest that is still open. A
// cancel of an order that is being canceled has no events: it is the same cancel again.
func DecideCancel(o *orderpb.Order, c *orderpb.Cancel, now int64) ([]*orderpb.Event, *reject.Rejection) {
	if r := admit(o, CommandCancel, c.IfRevision); r != nil {
		return nil, r
	}
	if r := checkText("/reason", c.Reason, MaxTextBytes); r != nil {
		return nil, r
	}
	switch o.State {
	case Canceling:
		return nil, nil
	case PartiallyFulfilled:
		rest := &orderpb.RemainderCanceled{Items: openItems(o), Reason: c.Reason}
		return follow(o, now).add(func(e *orderpb.Event) {
			e.Detail = &orderpb.Event_RemainderCanceled{RemainderCanceled: rest}
		}).events, nil
	}
	h := follow(o, now).add(func(e *orderpb.Event) {
		e.Detail = &orderpb.Event_CancelRequested{CancelRequested: &orderpb.CancelRequested{Reason: c.Reason}}
	})
	if !paymentNeedsVoid(o) && countLegs(o, orderpb.LegState_LEG_PENDING, orderpb.LegState_LEG_HELD) == 0 {
		h.ended(Canceled)
	}
	return h.events, nil
}

// DecideExpire decides what happens when the deadline of placing and paying has come: nothing once the order is confirmed or
// being undone.
func DecideExpire(o *orderpb.Order, now int64) []*orderpb.Event {
	if o.State != Placing && o.State != AwaitingPayment {
		return nil
	}
	// Before the pivot there is always something to undo, or the order would not be waiting.
	return follow(o, now).add(func(e *orderpb.Event) {
		e.Detail = &orderpb.Event_ExpireRequested{ExpireRequested: &orderpb.ExpireRequested{Reason: reject.DeadlineExceeded}}
	}).events
}

// DecideFulfill decides on a shipment: of the items, or of all that is open when there are none. The same
// fulfillment again has no events.
func DecideFulfill(o *orderpb.Order, c *orderpb.Fulfill, now int64) ([]*orderpb.Event, *reject.Rejection) {
	if _, err := id.Parse(id.Fulfillment, c.FulfillmentId); err != nil {
		return nil, refuse(reject.InvalidID, "/fulfillment_id", "%v", err)
	}
	if fulfillmentOf(o, c.FulfillmentId) != nil {
		return nil, nil
	}
	if r := admit(o, CommandFulfill, c.IfRevision); r != nil {
		return nil, r
	}
	if r := checkText("/tracking", c.Tracking, MaxTextBytes); r != nil {
		return nil, r
	}
	if len(o.Fulfillments) >= MaxObjects {
		return nil, refuse(reject.TooManyObjects, "", "the order has %d fulfillments", len(o.Fulfillments))
	}
	items := openItems(o)
	if len(c.Items) > 0 {
		var r *reject.Rejection
		items, r = chooseItems(o, c.Items, func(l *orderpb.Line) int64 { return openQuantity(l) }, reject.FulfillExceedsOpen, "open")
		if r != nil {
			return nil, r
		}
	}
	f := &orderpb.Fulfillment{Id: c.FulfillmentId, At: now, Items: items, Amount: price(o, items), Tracking: c.Tracking}
	return follow(o, now).add(func(e *orderpb.Event) {
		e.Detail = &orderpb.Event_Fulfilled{Fulfilled: &orderpb.Fulfilled{Fulfillment: f}}
	}).events, nil
}

// DecideReturn decides on goods that come back, and on the refund of their price unless the caller wants none. The same return again
// has no events. The refund's ID is the return's with its own prefix.
func DecideReturn(o *orderpb.Order, c *orderpb.ReturnItems, now int64) ([]*orderpb.Event, *reject.Rejection) {
	if _, err := id.Parse(id.Return, c.ReturnId); err != nil {
		return nil, refuse(reject.InvalidID, "/return_id", "%v", err)
	}
	if returnOf(o, c.ReturnId) != nil {
		return nil, nil
	}
	if r := admit(o, CommandReturn, c.IfRevision); r != nil {
		return nil, r
	}
	if r := checkText("/reason", c.Reason, MaxTextBytes); r != nil {
		return nil, r
	}
	switch {
	case len(c.Items) == 0:
		return nil, refuse(reject.InvalidRequest, "/items", "a return has at least one item")
	case c.Disposition < orderpb.Disposition_SELLABLE || c.Disposition > orderpb.Disposition_LOST:
		return nil, refuse(reject.InvalidRequest, "/disposition", "disposition %d is not sellable, damaged or lost", c.Disposition)
	case len(o.Returns) >= MaxObjects:
		return nil, refuse(reject.TooManyObjects, "", "the order has %d returns", len(o.Returns))
	}
	items, r := chooseItems(o, c.Items, func(l *orderpb.Line) int64 { return l.Fulfilled - l.Returned }, reject.ReturnExceeds, "fulfilled and not returned")
	if r != nil {
		return nil, r
	}
	ret := &orderpb.Return{Id: c.ReturnId, At: now, Items: items, Disposition: c.Disposition, Reason: c.Reason}
	if !c.NoRefund {
		ret.Amount = price(o, items)
	}
	h := follow(o, now).add(func(e *orderpb.Event) {
		e.Detail = &orderpb.Event_Returned{Returned: &orderpb.Returned{Return: ret}}
	})
	if ret.Amount > 0 {
		refund := &orderpb.Refund{
			Id: id.Sibling(id.Refund, c.ReturnId), At: now, Amount: ret.Amount, Reason: c.Reason, ReturnId: c.ReturnId,
		}
		if r := checkRefund(o, refund); r != nil {
			return nil, r
		}
		h.refundRequested(refund)
	}
	return h.events, nil
}

// DecideRefund decides on money given back without goods. The same refund again has no events.
func DecideRefund(o *orderpb.Order, c *orderpb.RefundAmount, now int64) ([]*orderpb.Event, *reject.Rejection) {
	if _, err := id.Parse(id.Refund, c.RefundId); err != nil {
		return nil, refuse(reject.InvalidID, "/refund_id", "%v", err)
	}
	if r := refundOf(o, c.RefundId); r != nil && r.ReturnId == "" {
		return nil, nil
	}
	if r := admit(o, CommandRefund, c.IfRevision); r != nil {
		return nil, r
	}
	if r := checkText("/reason", c.Reason, MaxTextBytes); r != nil {
		return nil, r
	}
	if c.Amount <= 0 {
		return nil, refuse(reject.InvalidAmount, "/amount", "the amount is %d, want more than 0", c.Amount)
	}
	refund := &orderpb.Refund{Id: c.RefundId, At: now, Amount: c.Amount, Reason: c.Reason}
	if r := checkRefund(o, refund); r != nil {
		return nil, r
	}
	return follow(o, now).refundRequested(refund).events, nil
}

func checkRefund(o *orderpb.Order, r *orderpb.Refund) *reject.Rejection {
	if len(o.Refunds) >= MaxObjects {
		return refuse(reject.TooManyObjects, "", "the order has %d refunds", len(o.Refunds))
	}
	if refundOf(o, r.Id) != nil { // nodes make IDs that differ in more than their prefix, but nothing is ever paid out twice under one
		return refuse(reject.InvalidID, "", "the order has a refund %s already", r.Id)
	}
	if left := o.CaptureRequested - o.RefundRequested; r.Amount > left {
		return refuse(reject.RefundExceeds, "/amount", "%d is to be refunded, %d was charged and not refunded", r.Amount, left)
	}
	return nil
}

// admit refuses what the order's state or a stale revision rules out.
func admit(o *orderpb.Order, c Command, ifRevision uint64) *reject.Rejection {
	if ifRevision != 0 && ifRevision != o.Revision {
		return refuse(reject.RevisionMismatch, "", "the order is at revision %d, not %d", o.Revision, ifRevision)
	}
	if code := Admits(c, o.State); code != "" {
		return refuse(code, "", "%s is not possible: the order is %s", c, StateName(o.State))
	}
	return nil
}

func openItems(o *orderpb.Order) []*orderpb.Item {
	var items []*orderpb.Item
	for _, l := range o.Lines {
		if n := openQuantity(l); n > 0 {
			items = append(items, &orderpb.Item{Line: l.No, Quantity: n})
		}
	}
	return items
}

// chooseItems checks the asked items against what each line has left, and returns them with one item a line, in line order.
func chooseItems(o *orderpb.Order, asked []*orderpb.Item, left func(*orderpb.Line) int64, code, what string) ([]*orderpb.Item, *reject.Rejection) {
	if len(asked) > MaxLines {
		return nil, refuse(reject.TooManyLines, "/items", "%d items, at most %d are possible", len(asked), MaxLines)
	}
	sums := make([]int64, len(o.Lines))
	for i, it := range asked {
		pointer := "/items/" + strconv.Itoa(i)
		if it.Line < 1 || int(it.Line) > len(o.Lines) {
			return nil, refuse(reject.UnknownLine, pointer+"/line", "there is no line %d, the order has %d", it.Line, len(o.Lines))
		}
		if it.Quantity < 1 || it.Quantity > MaxQuantity {
			return nil, refuse(reject.InvalidQuantity, pointer+"/quantity", "the quantity is %d, want 1 to %d", it.Quantity, MaxQuantity)
		}
		l := o.Lines[it.Line-1]
		sums[it.Line-1] += it.Quantity // at most MaxLines * MaxQuantity: no overflow
		if n := left(l); sums[it.Line-1] > n {
			return nil, refuse(code, pointer+"/quantity", "%d of line %d, of which %d are %s", sums[it.Line-1], it.Line, n, what)
		}
	}
	var items []*orderpb.Item
	for i, n := range sums {
		if n > 0 {
			items = append(items, &orderpb.Item{Line: uint32(i) + 1, Quantity: n})
		}
	}
	return items, nil
}

// price adds up what items cost. It is bounded by the order's total.
func price(o *orderpb.Order, items []*orderpb.Item) int64 {
	var sum int64
	for _, it := range items {
		sum += it.Quantity * o.Lines[it.Line-1].UnitPrice
	}
	return sum
}

func (h *history) confirmed() *history {
	var e struct {
		orderpb.Event
		is   orderpb.Event_Confirmed
		what orderpb.Confirmed
	}
	e.is.Confirmed, e.Detail = &e.what, &e.is
	return h.put(&e.Event)
}

func (h *history) ended(s State) *history {
	return h.add(func(e *orderpb.Event) { e.Detail = &orderpb.Event_Ended{Ended: &orderpb.Ended{State: s}} })
}

func (h *history) refundRequested(r *orderpb.Refund) *history {
	return h.add(func(e *orderpb.Event) {
		e.Detail = &orderpb.Event_RefundRequested{RefundRequested: &orderpb.RefundRequested{Refund: r}}
	})
}

package order

import (
	"slices"

	"hanse/api/orderpb"
	"hanse/internal/invariant"
)

// Replay returns the fold of an order's events, from the first. It keeps nothing of them.
func Replay(events []*orderpb.Event) *orderpb.Order {
	o := &orderpb.Order{}
	for _, e := range events {
		Fold(o, e)
	}
	return o
}

// Fold adds an event to its order. An event that the table does not allow in the order's state, or that is not the next
// of the order, is a bug or a damaged history: Fold panics with an *invariant.Violation rather than build on it. It keeps nothing of e.
func Fold(o *orderpb.Order, e *orderpb.Event) {
	kind, from := KindOf(e), o.State
	// Arguments of a check are made whether it fails or not: these two are on the way of every event.
	if e.Version != o.Revision+1 {
		invariant.Check(false, "order %s: event %d (%s) after revision %d", e.OrderId, e.Version, kind, o.Revision)
	}
	o.Revision, o.UpdatedAt = e.Version, e.At
	switch d := e.Detail.(type) {
	case *orderpb.Event_Placed:
		foldPlaced(o, d.Placed.GetOrder(), e)
	case *orderpb.Event_StockReserved:
		setLeg(o, d.StockReserved.Shard, orderpb.LegState_LEG_HELD)
		if o.Total > 0 && o.Payment != orderpb.PaymentStep_PAYMENT_AUTHORIZED && countLegs(o, orderpb.LegState_LEG_PENDING) == 0 {
			awaitPayment(o)
		}
	case *orderpb.Event_StockRefused:
		r := d.StockRefused
		setLeg(o, r.Shard, orderpb.LegState_LEG_REFUSED)
		o.Reason, o.RejectField, o.RejectDetail = r.Code, r.Field, r.Text
		if Ahead(o) {
			o.Payment = orderpb.PaymentStep_PAYMENT_NONE // not all is held, so it has not left
		}
		compensate(o, Rejecting)
	case *orderpb.Event_KeyRefused:
		o.Reason, o.RejectDetail = d.KeyRefused.Code, d.KeyRefused.Text
		if o.Payment == orderpb.PaymentStep_PAYMENT_AUTHORIZING {
			o.Payment = orderpb.PaymentStep_PAYMENT_NONE // it waits for the claim, so it has not left
		}
		compensate(o, Rejecting)
	case *orderpb.Event_PaymentAuthorized:
		o.Authorized, o.ProviderReference = d.PaymentAuthorized.Amount, d.PaymentAuthorized.ProviderReference
		if o.Payment == orderpb.PaymentStep_PAYMENT_AUTHORIZING { // a late one is only on record: it is being voided
			o.Payment = orderpb.PaymentStep_PAYMENT_AUTHORIZED
		}
	case *orderpb.Event_PaymentDeclined:
		o.Payment = orderpb.PaymentStep_PAYMENT_DECLINED
		o.Reason, o.RejectDetail = declinedReason, d.PaymentDeclined.Code
		compensate(o, Rejecting)
	case *orderpb.Event_Confirmed:
		o.State = Confirmed
		o.SettledRevision = o.Revision
	case *orderpb.Event_CancelRequested:
		o.Reason = d.CancelRequested.Reason
		compensate(o, Canceling)
	case *orderpb.Event_ExpireRequested:
		o.Reason = d.ExpireRequested.Reason
		compensate(o, Expiring)
	case *orderpb.Event_StockReleased:
		setLeg(o, d.StockReleased.Shard, orderpb.LegState_LEG_RELEASED)
	case *orderpb.Event_PaymentVoided:
		o.Voided += d.PaymentVoided.Amount
		// The authorization that was voided may not have been reported here.
		o.Authorized = max(o.Authorized, o.Captured+o.Voided)
		o.Payment = orderpb.PaymentStep_PAYMENT_VOIDED
		if Compensating(o.State) {
			releaseLegs(o)
		}
	case *orderpb.Event_Ended:
		o.State = d.Ended.State
		for _, l := range o.Lines {
			l.Canceled = l.Quantity - l.Fulfilled
		}
		if o.SettledRevision == 0 {
			o.SettledRevision = o.Revision
		}
	case *orderpb.Event_Fulfilled:
		f := d.Fulfilled.Fulfillment.CloneVT()
		o.Fulfillments = append(o.Fulfillments, f)
		for _, it := range f.Items {
			o.Lines[it.Line-1].Fulfilled += it.Quantity
		}
		o.CaptureRequested += f.Amount
		advance(o)
	case *orderpb.Event_PaymentCaptured:
		o.Captured += d.PaymentCaptured.Amount
		if f := fulfillmentOf(o, d.PaymentCaptured.FulfillmentId); f != nil {
			f.Captured, f.CaptureFailed = d.PaymentCaptured.Amount, ""
		}
		voidRest(o)
	case *orderpb.Event_CaptureFailed:
		if f := fulfillmentOf(o, d.CaptureFailed.FulfillmentId); f != nil {
			f.CaptureFailed = d.CaptureFailed.Code
		}
		o.State, o.Reason = OnHold, "payment"
	case *orderpb.Event_Returned:
		r := d.Returned.Return.CloneVT()
		o.Returns = append(o.Returns, r)
		for _, it := range r.Items {
			o.Lines[it.Line-1].Returned += it.Quantity
		}
	case *orderpb.Event_RefundRequested:
		r := d.RefundRequested.Refund.CloneVT()
		o.Refunds = append(o.Refunds, r)
		o.RefundRequested += r.Amount
	case *orderpb.Event_PaymentRefunded:
		o.Refunded += d.PaymentRefunded.Amount
		if r := refundOf(o, d.PaymentRefunded.RefundId); r != nil {
			r.Done, r.Failed = true, ""
		}
	case *orderpb.Event_RefundFailed:
		if r := refundOf(o, d.RefundFailed.RefundId); r != nil {
			r.Failed = d.RefundFailed.Code
		}
	case *orderpb.Event_StepStuck:
		o.Stuck = append(o.Stuck, d.StepStuck.Step.CloneVT())
	case *orderpb.Event_StepResolved:
		foldResolved(o, d.StepResolved)
	case *orderpb.Event_RemainderCanceled:
		for _, it := range d.RemainderCanceled.Items {
			o.Lines[it.Line-1].Canceled += it.Quantity
		}
		o.Reason = d.RemainderCanceled.Reason
		advance(o)
	}
	if !allows(from, kind, o.State) {
		invariant.Check(false, "order %s: %s leads from %s to %s, which the table does not know",
			e.OrderId, kind, StateName(from), StateName(o.State))
	}
}

func foldPlaced(o, p *orderpb.Order, e *orderpb.Event) {
	o.Id, o.CreatedAt = e.OrderId, e.At
	o.CustomerId, o.Currency, o.Location = p.CustomerId, p.Currency, p.Location
	o.PaymentMethod, o.MerchantReference = p.PaymentMethod, p.MerchantReference
	o.Total, o.Deadline, o.PaymentId, o.Payment, o.CallFirst = p.Total, p.Deadline, p.PaymentId, p.Payment, p.CallFirst
	// One allocation for all lines: most of what an order is made of.
	lines := make([]orderpb.Line, len(p.Lines))
	o.Lines = make([]*orderpb.Line, len(p.Lines))
	for i, from := range p.Lines {
		l := &lines[i]
		l.No, l.Sku, l.Quantity, l.UnitPrice, l.Total, l.Untracked = from.No, from.Sku, from.Quantity, from.UnitPrice, from.Total, from.Untracked
		o.Lines[i] = l
	}
	if len(p.Legs) > 0 {
		legs := make([]orderpb.Leg, len(p.Legs))
		o.Legs = make([]*orderpb.Leg, len(p.Legs))
		for i, leg := range p.Legs {
			legs[i].Shard = leg.Shard
			o.Legs[i] = &legs[i]
		}
	}
	o.State = Placing
	if len(o.Legs) == 0 && o.Total > 0 {
		awaitPayment(o)
	}
}

func awaitPayment(o *orderpb.Order) {
	o.State, o.Payment = AwaitingPayment, orderpb.PaymentStep_PAYMENT_AUTHORIZING
}

// compensate begins to undo the order's steps, the last first: while money may be authorized it is voided, and only
// then is the stock released.
func compensate(o *orderpb.Order, s State) {
	o.State = s
	if paymentNeedsVoid(o) {
		o.Payment = orderpb.PaymentStep_PAYMENT_VOIDING
		return
	}
	releaseLegs(o)
}

func paymentNeedsVoid(o *orderpb.Order) bool {
	return o.Payment == orderpb.PaymentStep_PAYMENT_AUTHORIZING || o.Payment == orderpb.PaymentStep_PAYMENT_AUTHORIZED
}

// releaseLegs releases what is held, and what may be: a reserve that was not answered may still arrive.
func releaseLegs(o *orderpb.Order) {
	for _, leg := range o.Legs {
		if leg.State == orderpb.LegState_LEG_PENDING || leg.State == orderpb.LegState_LEG_HELD {
			leg.State = orderpb.LegState_LEG_RELEASING
		}
	}
}

// advance sets the state that the quantities imply after the pivot.
func advance(o *orderpb.Order) {
	var open, fulfilled int64
	for _, l := range o.Lines {
		open += openQuantity(l)
		fulfilled += l.Fulfilled
	}
	switch {
	case open == 0:
		o.State = Fulfilled
	case fulfilled > 0:
		o.State = PartiallyFulfilled
	default:
		o.State = Confirmed
	}
	voidRest(o)
}

// voidRest gives back the part of the authorization that nothing will capture any more, once no capture is under way:
// providers do not void while they capture.
func voidRest(o *orderpb.Order) {
	if o.State == Fulfilled && o.Payment == orderpb.PaymentStep_PAYMENT_AUTHORIZED &&
		o.Captured == o.CaptureRequested && o.Authorized > o.Captured+o.Voided {
		o.Payment = orderpb.PaymentStep_PAYMENT_VOIDING
	}
}

func foldResolved(o *orderpb.Order, r *orderpb.StepResolved) {
	i := slices.IndexFunc(o.Stuck, func(s *orderpb.StuckStep) bool { return s.Seq == r.Seq })
	if i < 0 {
		return
	}
	step := o.Stuck[i]
	o.Stuck = slices.Delete(o.Stuck, i, i+1)
	if r.Decision == DecisionSkip { // the money will not move: nothing waits for it any more
		switch step.Step {
		case StepCapture:
			o.CaptureRequested -= step.Amount
		case StepRefund:
			o.RefundRequested -= step.Amount
		}
	}
	stillStuck := slices.ContainsFunc(o.Stuck, func(s *orderpb.StuckStep) bool { return s.Step == StepCapture })
	if o.State == OnHold && !stillStuck {
		o.Reason = ""
		advance(o)
	} else {
		voidRest(o)
	}
}

func setLeg(o *orderpb.Order, shard uint32, s orderpb.LegState) {
	leg := legOf(o, shard)
	if leg == nil {
		invariant.Check(false, "order %s has no stock in inventory shard %d", o.Id, shard)
	}
	leg.State = s
}

// countLegs counts the legs in one of the given states.
func countLegs(o *orderpb.Order, states ...orderpb.LegState) int {
	n := 0
	for _, leg := range o.Legs {
		if slices.Contains(states, leg.State) {
			n++
		}
	}
	return n
}

func fulfillmentOf(o *orderpb.Order, id string) *orderpb.Fulfillment {
	for _, f := range o.Fulfillments {
		if f.Id == id {
			return f
		}
	}
	return nil
}

func returnOf(o *orderpb.Order, id string) *orderpb.Return {
	for _, r := range o.Returns {
		if r.Id == id {
			return r
		}
	}
	return nil
}

func refundOf(o *orderpb.Order, id string) *orderpb.Refund {
	for _, r := range o.Refunds {
		if r.Id == id {
			return r
		}
	}
	return nil
}

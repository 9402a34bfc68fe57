package order

import (
	"slices"

	"hanse/api/orderpb"
	"hanse/internal/reject"
)

// The functions below decide what follows from the answer to a step of the saga. An answer that comes when the order no
// longer waits for it has no events.

// StockHeld decides when an inventory shard has reserved its leg.
func StockHeld(o *orderpb.Order, shard uint32, now int64) []*orderpb.Event {
	leg := legOf(o, shard)
	if o.State != Placing || leg == nil || leg.State != orderpb.LegState_LEG_PENDING {
		return nil
	}
	var e struct {
		orderpb.Event
		is   orderpb.Event_StockReserved
		what orderpb.StockReserved
	}
	e.what.Shard = shard
	e.is.StockReserved, e.Detail = &e.what, &e.is
	h := follow(o, now).put(&e.Event)
	paid := o.Total == 0 || o.Payment == orderpb.PaymentStep_PAYMENT_AUTHORIZED
	if paid && countLegs(o, orderpb.LegState_LEG_PENDING) == 1 {
		h.confirmed()
	}
	return h.events
}

// StockRefused decides when an inventory shard has refused to reserve its leg. A refusal because the request came after
// its time is the order's deadline.
func StockRefused(o *orderpb.Order, shard uint32, why *reject.Rejection, now int64) []*orderpb.Event {
	leg := legOf(o, shard)
	if o.State != Placing || leg == nil || leg.State != orderpb.LegState_LEG_PENDING {
		return nil
	}
	if why.Code == reject.MessageExpired {
		return DecideExpire(o, now)
	}
	h := follow(o, now).add(func(e *orderpb.Event) {
		e.Detail = &orderpb.Event_StockRefused{StockRefused: &orderpb.StockRefused{
			Shard: shard, Code: why.Code, Field: why.Field, Text: why.Detail,
		}}
	})
	if len(o.Legs) == 1 {
		h.ended(Rejected)
	}
	return h.events
}

// StockReleased decides when an inventory shard has released its leg.
func StockReleased(o *orderpb.Order, shard uint32, now int64) []*orderpb.Event {
	leg := legOf(o, shard)
	if !Compensating(o.State) || leg == nil || leg.State != orderpb.LegState_LEG_RELEASING {
		return nil
	}
	h := follow(o, now).add(func(e *orderpb.Event) {
		e.Detail = &orderpb.Event_StockReleased{StockReleased: &orderpb.StockReleased{Shard: shard}}
	})
	if countLegs(o, orderpb.LegState_LEG_RELEASING) == 1 {
		h.ended(endOf(o.State))
	}
	return h.events
}

// KeyRefused decides when the key that the order was placed under turns out to be another request's.
func KeyRefused(o *orderpb.Order, why *reject.Rejection, now int64) []*orderpb.Event {
	if o.State != Placing && o.State != AwaitingPayment {
		return nil
	}
	h := follow(o, now).add(func(e *orderpb.Event) {
		e.Detail = &orderpb.Event_KeyRefused{KeyRefused: &orderpb.KeyRefused{Code: why.Code, Text: why.Detail}}
	})
	if o.Payment != orderpb.PaymentStep_PAYMENT_AUTHORIZED && len(o.Legs) == 0 {
		h.ended(Rejected)
	}
	return h.events
}

// PaymentAuthorized decides when the total is authorized: this confirms the order, in the same entry. When the order is being undone
// it is put on record, and the void that is under way takes it back. When the answer about the stock is still to come, that confirms.
func PaymentAuthorized(o *orderpb.Order, amount int64, reference string, now int64) []*orderpb.Event {
	late := Compensating(o.State) && o.Payment == orderpb.PaymentStep_PAYMENT_VOIDING && o.Authorized == 0
	if o.State != AwaitingPayment && !late && !Ahead(o) {
		return nil
	}
	var e struct {
		orderpb.Event
		is   orderpb.Event_PaymentAuthorized
		what orderpb.PaymentAuthorized
	}
	e.what.Amount, e.what.ProviderReference = amount, reference
	e.is.PaymentAuthorized, e.Detail = &e.what, &e.is
	h := follow(o, now).put(&e.Event)
	if o.State == AwaitingPayment {
		h.confirmed()
	}
	return h.events
}

// PaymentDeclined decides when the provider has declined, for the provider's reason in code.
func PaymentDeclined(o *orderpb.Order, code string, now int64) []*orderpb.Event {
	if o.State != AwaitingPayment && !Ahead(o) {
		return nil
	}
	if code == reject.MessageExpired {
		return DecideExpire(o, now)
	}
	h := follow(o, now).add(func(e *orderpb.Event) {
		e.Detail = &orderpb.Event_PaymentDeclined{PaymentDeclined: &orderpb.PaymentDeclined{Code: code}}
	})
	if len(o.Legs) == 0 {
		h.ended(Rejected)
	}
	return h.events
}

// PaymentVoided decides when amount (0 if nothing had been authorized) has been given back.
func PaymentVoided(o *orderpb.Order, amount, now int64) []*orderpb.Event {
	if o.Payment != orderpb.PaymentStep_PAYMENT_VOIDING {
		return nil
	}
	h := follow(o, now).add(func(e *orderpb.Event) {
		e.Detail = &orderpb.Event_PaymentVoided{PaymentVoided: &orderpb.PaymentVoided{Amount: amount}}
	})
	if Compensating(o.State) && len(o.Legs) == 0 {
		h.ended(endOf(o.State))
	}
	return h.events
}

// PaymentCaptured decides when a fulfillment's amount has been captured.
func PaymentCaptured(o *orderpb.Order, fulfillment string, amount, now int64) []*orderpb.Event {
	f := fulfillmentOf(o, fulfillment)
	if !captureOpen(f) {
		return nil
	}
	return follow(o, now).add(func(e *orderpb.Event) {
		e.Detail = &orderpb.Event_PaymentCaptured{PaymentCaptured: &orderpb.PaymentCaptured{
			FulfillmentId: fulfillment, Amount: amount,
		}}
	}).events
}

// CaptureFailed decides when a capture has failed for good: the order waits for a person. A repeated
// failure for the same reason has no events.
func CaptureFailed(o *orderpb.Order, fulfillment, code string, now int64) []*orderpb.Event {
	f := fulfillmentOf(o, fulfillment)
	if !captureOpen(f) || f.CaptureFailed == code && o.State == OnHold {
		return nil
	}
	return follow(o, now).add(func(e *orderpb.Event) {
		e.Detail = &orderpb.Event_CaptureFailed{CaptureFailed: &orderpb.CaptureFailed{FulfillmentId: fulfillment, Code: code}}
	}).events
}

// captureOpen reports whether a fulfillment waits for its money: it was neither captured nor given up.
func captureOpen(f *orderpb.Fulfillment) bool {
	return f != nil && f.Amount > 0 && f.Captured == 0 && f.CaptureFailed != GivenUp
}

// PaymentRefunded decides when a refund has been paid out.
func PaymentRefunded(o *orderpb.Order, refund string, amount, now int64) []*orderpb.Event {
	r := refundOf(o, refund)
	if r == nil || r.Done || r.Failed == GivenUp {
		return nil
	}
	return follow(o, now).add(func(e *orderpb.Event) {
		e.Detail = &orderpb.Event_PaymentRefunded{PaymentRefunded: &orderpb.PaymentRefunded{RefundId: refund, Amount: amount}}
	}).events
}

// RefundFailed decides when a refund has failed for good.
func RefundFailed(o *orderpb.Order, refund, code string, now int64) []*orderpb.Event {
	r := refundOf(o, refund)
	if r == nil || r.Done || r.Failed == GivenUp || r.Failed == code {
		return nil
	}
	return follow(o, now).add(func(e *orderpb.Event) {
		e.Detail = &orderpb.Event_RefundFailed{RefundFailed: &orderpb.RefundFailed{RefundId: refund, Code: code}}
	}).events
}

// The steps of which an order's books depend on how they end.
const (
	StepAuthorize = "authorize"
	StepCapture   = "capture"
	StepRefund    = "refund"
)

// The decisions that end a stuck step.
const (
	DecisionRetry = "retry" // an operator had it sent again at once, or it was refused and is sent again slowly
	DecisionSkip  = "skip"  // an operator gave it up
	DecisionDone  = "done"  // it healed, or an operator saw to it
)

// StepStuck decides when a step could not be done for long. A step that is known to be stuck has no events.
func StepStuck(o *orderpb.Order, step *orderpb.StuckStep, now int64) []*orderpb.Event {
	if StuckAt(o, step.Seq) != nil {
		return nil
	}
	return follow(o, now).add(func(e *orderpb.Event) {
		e.Detail = &orderpb.Event_StepStuck{StepStuck: &orderpb.StepStuck{Step: step}}
	}).events
}

// StepResolved decides when a stuck step is no longer stuck; when it was not, there are no events.
func StepResolved(o *orderpb.Order, seq uint64, decision, evidence, operator string, now int64) []*orderpb.Event {
	if StuckAt(o, seq) == nil {
		return nil
	}
	return follow(o, now).resolved(seq, decision, evidence, operator).events
}

// DecideRetry decides on an operator's wish to have a stuck step sent again now.
func DecideRetry(o *orderpb.Order, c *orderpb.RetryStep, now int64) ([]*orderpb.Event, *reject.Rejection) {
	if StuckAt(o, c.Seq) == nil {
		return nil, notStuck(o, c.Seq)
	}
	if r := checkText("/operator", c.Operator, MaxNameBytes); r != nil {
		return nil, r
	}
	return StepResolved(o, c.Seq, DecisionRetry, "", c.Operator, now), nil
}

// GivenUp stands in the place of the provider's reason on a fulfillment that will not be captured and on a refund that
// will not be paid, by an operator's decision.
const GivenUp = "given_up"

// DecideResolve decides on an operator's word about a stuck step: done, or to be given up. Object is the
// fulfillment or refund that the step is about, if it is about one. This ends the step; what it would have brought when it is
// done is decided by the functions above, and with TellPayment not before the payment has recorded it. Money that refunds count on cannot be given up, nor the
// record of what the provider has authorized.
func DecideResolve(o *orderpb.Order, c *orderpb.ResolveStep, object string, now int64) ([]*orderpb.Event, *reject.Rejection) {
	step := StuckAt(o, c.Seq)
	if step == nil {
		return nil, notStuck(o, c.Seq)
	}
	if c.Decision != DecisionSkip && c.Decision != DecisionDone {
		return nil, refuse(reject.InvalidRequest, "/decision", "the decision is %q, want skip or done", c.Decision)
	}
	if c.Evidence == "" {
		return nil, refuse(reject.InvalidRequest, "/evidence", "say how it is known")
	}
	if r := checkText("/evidence", c.Evidence, MaxTextBytes); r != nil {
		return nil, r
	}
	if r := checkText("/operator", c.Operator, MaxNameBytes); r != nil {
		return nil, r
	}
	if c.Decision == DecisionSkip && step.Step == StepCapture && o.CaptureRequested-step.Amount < o.RefundRequested {
		return nil, refuse(reject.OrderState, "", "refunds of %d count on this capture of %d: resolve them first", o.RefundRequested, step.Amount)
	}
	if done := c.Decision == DecisionDone; done && c.TellPayment && step.Step == StepRefund && o.Refunded+step.Amount > o.Captured {
		return nil, refuse(reject.OrderState, "", "a refund of %d cannot be done: %d are captured, and %d of them refunded; settle the captures first", step.Amount, o.Captured, o.Refunded)
	}
	if step.Step == StepAuthorize && o.Payment == orderpb.PaymentStep_PAYMENT_AUTHORIZED {
		return nil, refuse(reject.OrderState, "", "the provider has authorized the order, and the payment has to record it: retry the step")
	}
	h := follow(o, now)
	if c.Decision == DecisionSkip && step.Step == StepCapture && captureOpen(fulfillmentOf(o, object)) {
		h.add(func(e *orderpb.Event) {
			e.Detail = &orderpb.Event_CaptureFailed{CaptureFailed: &orderpb.CaptureFailed{FulfillmentId: object, Code: GivenUp}}
		})
	}
	if c.Decision == DecisionSkip && step.Step == StepRefund && refundOf(o, object) != nil {
		h.add(func(e *orderpb.Event) {
			e.Detail = &orderpb.Event_RefundFailed{RefundFailed: &orderpb.RefundFailed{RefundId: object, Code: GivenUp}}
		})
	}
	return h.resolved(c.Seq, c.Decision, c.Evidence, c.Operator).events, nil
}

func (h *history) resolved(seq uint64, decision, evidence, operator string) *history {
	return h.add(func(e *orderpb.Event) {
		e.Detail = &orderpb.Event_StepResolved{StepResolved: &orderpb.StepResolved{
			Seq: seq, Decision: decision, Evidence: evidence, Operator: operator,
		}}
	})
}

// StuckAt returns the stuck step of an outbox message, nil when it is not stuck.
func StuckAt(o *orderpb.Order, seq uint64) *orderpb.StuckStep {
	if i := slices.IndexFunc(o.Stuck, func(s *orderpb.StuckStep) bool { return s.Seq == seq }); i >= 0 {
		return o.Stuck[i]
	}
	return nil
}

func notStuck(o *orderpb.Order, seq uint64) *reject.Rejection {
	return refuse(reject.SagaNotStuck, "/seq", "order %s has no stuck step %d", o.Id, seq)
}

func endOf(s State) State {
	switch s {
	case Canceling:
		return Canceled
	case Expiring:
		return Expired
	}
	return Rejected
}

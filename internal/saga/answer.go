package saga

import (
	"strings"

	"hanse/api/inventorypb"
	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/order"
	"hanse/internal/reject"
)

// Sent identifies what was sent, read back from the outbox.
type Sent struct {
	Step Step
	// Leg is the inventory shard of a step for one.
	Leg uint32
	// Op is the fulfillment, return, refund or void that the step is about, Attempt what was appended to it when it was
	// sent again after a refusal. Amount is the money at risk, Units the stock.
	Op, Attempt   string
	Amount, Units int64
}

// attemptMark separates an operation from its later attempts; no ID contains it.
const attemptMark = "~"

// steps has the step of each field of a service's command that says all: not of a release, which may be a partial one, and not of what orders are asked.
var steps = [...][16]Step{
	Inventory: {1: Reserve, 2: Allocate, 4: Fulfill, 5: Restock},
	Payment:   {1: Authorize, 3: Void},
	Keys:      {claimField: Claim},
}

// claimField is the number of the field that a command to claim a key has.
const claimField = 10

// StepOf tells the step of a message to a service from its first byte, without decoding it: false for one that Read tells apart.
func StepOf(to Service, payload []byte) (Step, bool) {
	if len(payload) == 0 || payload[0]>>3 >= 16 {
		return None, false
	}
	step := steps[to][payload[0]>>3]
	return step, step != None
}

// Unawaited reports whether the order is where it was, whatever comes of a command to the inventory: nobody waits for it.
func Unawaited(payload []byte) bool {
	step, _ := StepOf(Inventory, payload)
	return step == Allocate || step == Fulfill || step == Restock
}

// Read decodes what was sent to a service, of the inventory to its shard leg.
func Read(o *orderpb.Order, to Service, leg uint32, payload []byte, shardOf ShardOf) (Sent, error) {
	s := Sent{Leg: leg}
	switch to {
	case Inventory:
	case Keys:
		s.Step = Claim
		return s, nil
	case Payment:
		c := new(paymentpb.Command)
		if err := c.UnmarshalVT(payload); err != nil {
			return s, err
		}
		switch c := c.Body.(type) {
		case *paymentpb.Command_Authorize:
			s.Step, s.Amount = Authorize, c.Authorize.Amount
		case *paymentpb.Command_Capture:
			s.Step, s.Amount, s.Op = Capture, c.Capture.Amount, c.Capture.Op
		case *paymentpb.Command_Void:
			s.Step, s.Amount, s.Op = Void, authorizedRest(o), c.Void.Op
			if o.Authorized == 0 {
				s.Amount = o.Total // not known yet
			}
		case *paymentpb.Command_Refund:
			s.Step, s.Amount, s.Op = Refund, c.Refund.Amount, c.Refund.Op
		}
		s.Op, s.Attempt, _ = strings.Cut(s.Op, attemptMark)
		return s, nil
	}
	c := new(inventorypb.Command)
	if err := c.UnmarshalVT(payload); err != nil {
		return s, err
	}
	var demands []*inventorypb.Demand
	switch c := c.Body.(type) {
	case *inventorypb.Command_Reserve:
		s.Step, demands = Reserve, c.Reserve.Demands
	case *inventorypb.Command_Allocate:
		s.Step = Allocate
	case *inventorypb.Command_Release:
		s.Step, s.Op, demands = Release, c.Release.Op, c.Release.Demands
		if len(demands) > 0 {
			s.Step = Trim
		}
	case *inventorypb.Command_Fulfill:
		s.Step, s.Op, demands = Fulfill, c.Fulfill.Op, c.Fulfill.Demands
	case *inventorypb.Command_Restock:
		s.Step, s.Op, demands = Restock, c.Restock.Op, c.Restock.Demands
	}
	for _, d := range demands {
		s.Units += d.Quantity
	}
	if s.Step == Allocate || s.Step == Release { // of all that the order has there
		for _, l := range o.Lines {
			if !l.Untracked && shardOf(l.Sku) == leg {
				s.Units += l.Quantity - l.Canceled - l.Fulfilled
			}
		}
	}
	return s, nil
}

// ByWord returns what was sent to the payment service with an operator's word that it has been done: the payment records it, and the provider is
// not called.
func ByWord(payload []byte, operator, evidence string) ([]byte, error) {
	c := new(paymentpb.Command)
	if err := c.UnmarshalVT(payload); err != nil {
		return nil, err
	}
	word := &paymentpb.Word{Operator: operator, Evidence: evidence}
	switch c := c.Body.(type) {
	case *paymentpb.Command_Authorize:
		c.Authorize.Word, c.Authorize.CallFirst = word, false
	case *paymentpb.Command_Capture:
		c.Capture.Word = word
	case *paymentpb.Command_Void:
		c.Void.Word = word
	case *paymentpb.Command_Refund:
		c.Refund.Word = word
	}
	return c.MarshalVT()
}

// Again returns the ID under which a refused operation is sent once more: the provider has answered the old one for good.
func Again(op, attempt string) string { return op + attemptMark + attempt }

// Outcome is what came of a step.
type Outcome struct {
	// Refused is why a service refused, nil when it did as asked.
	Refused *reject.Rejection
	// Payment is the payment service's outcome, nil for steps in the inventory.
	Payment *paymentpb.Outcome
}

// Answer decides what an outcome means for the order: the events that follow. Unexpected says that a step which
// must succeed was refused, for the given reason: it stays to be done.
func Answer(o *orderpb.Order, s Sent, out Outcome, now int64) (events []*orderpb.Event, unexpected string) {
	if r := out.Refused; r != nil {
		switch s.Step {
		case Claim:
			return order.KeyRefused(o, r, now), ""
		case Reserve:
			return order.StockRefused(o, s.Leg, r, now), ""
		case Authorize:
			if o.Payment == orderpb.PaymentStep_PAYMENT_AUTHORIZED { // the order has been told, and the payment is not on record
				break
			}
			return order.PaymentDeclined(o, r.Code, now), ""
		case Allocate:
			if order.Compensating(o.State) || order.Ended(o.State) {
				return nil, "" // sent again so late that the release came first
			}
		}
		return nil, r.Code + ": " + r.Detail
	}
	switch s.Step {
	case Reserve:
		return order.StockHeld(o, s.Leg, now), ""
	case Release:
		return order.StockReleased(o, s.Leg, now), ""
	}
	p := out.Payment
	if p == nil {
		return nil, "" // claim, allocate, fulfill, restock, trim: the order has nothing to note
	}
	succeeded := p.Status == paymentpb.OutcomeStatus_SUCCEEDED
	switch s.Step {
	case Authorize:
		switch {
		case succeeded:
			return order.PaymentAuthorized(o, p.Amount, p.ProviderReference, now), ""
		case p.Status == paymentpb.OutcomeStatus_DECLINED:
			return order.PaymentDeclined(o, p.Code, now), ""
		}
		return nil, "" // canceled: a void came first, and the order is being undone
	case Capture:
		if succeeded {
			return order.PaymentCaptured(o, s.Op, p.Amount, now), ""
		}
		return order.CaptureFailed(o, s.Op, p.Code, now), "provider: " + p.Code
	case Void:
		if succeeded {
			return order.PaymentVoided(o, p.Amount, now), ""
		}
		if p.Status == paymentpb.OutcomeStatus_CANCELED {
			return order.PaymentVoided(o, 0, now), "" // nothing had been authorized
		}
		return nil, "provider: " + p.Code
	case Refund:
		if succeeded {
			return order.PaymentRefunded(o, s.Op, p.Amount, now), ""
		}
		return order.RefundFailed(o, s.Op, p.Code, now), "provider: " + p.Code
	}
	return nil, ""
}

// Resolve decides what an operator's word about a step means for the order, as Answer does. Done says that it has
// happened; otherwise it is given up. A reserve or an authorization that is given up may still arrive, so the order is
// undone as by a cancel: what arrives then finds its void and its release.
func Resolve(o *orderpb.Order, s Sent, done bool, evidence string, now int64) []*orderpb.Event {
	switch s.Step {
	case Claim:
		if !done {
			return giveUp(o, evidence, now)
		}
	case Reserve:
		if done {
			return order.StockHeld(o, s.Leg, now)
		}
		return giveUp(o, evidence, now)
	case Release:
		return order.StockReleased(o, s.Leg, now)
	case Authorize:
		if done {
			return order.PaymentAuthorized(o, o.Total, "", now)
		}
		return giveUp(o, evidence, now)
	case Capture:
		if done {
			return order.PaymentCaptured(o, s.Op, s.Amount, now)
		}
	case Void:
		if done {
			return order.PaymentVoided(o, authorizedRest(o), now)
		}
		return order.PaymentVoided(o, 0, now)
	case Refund:
		if done {
			return order.PaymentRefunded(o, s.Op, s.Amount, now)
		}
	}
	return nil
}

// authorizedRest is what is known to be authorized and neither captured nor given back.
func authorizedRest(o *orderpb.Order) int64 { return max(0, o.Authorized-o.Captured-o.Voided) }

// giveUp cancels an order that waits for a step; one that does not wait any more has no events.
func giveUp(o *orderpb.Order, evidence string, now int64) []*orderpb.Event {
	if o.State != order.Placing && o.State != order.AwaitingPayment {
		return nil
	}
	events, r := order.DecideCancel(o, &orderpb.Cancel{Id: o.Id, Reason: evidence}, now)
	if r != nil {
		return nil
	}
	return events
}

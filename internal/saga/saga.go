package saga

import (
	"fmt"
	"strings"

	"hanse/api/inventorypb"
	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/order"
	"hanse/internal/payment"
)

// Step is a command of the saga to another service.
type Step uint8

// The steps. Names are in events and never change.
const (
	None Step = iota
	Reserve
	Authorize
	Allocate
	Fulfill
	Capture
	Release // of what is held, while the order is being undone
	Trim    // release of a part, when the rest of a fulfilled order is canceled
	Void
	Refund
	Restock
	Claim // of the key that the order was placed under
	stepCount
)

var stepNames = [stepCount]string{
	"", "reserve", order.StepAuthorize, "allocate", "fulfill", order.StepCapture, "release", "release", "void", order.StepRefund, "restock", "claim",
}

// String returns the name that users see.
func (s Step) String() string { return stepNames[s] }

// HoldGrace is how long after the order's deadline its holds come due, in ms: then the inventory asks whether they are still wanted.
const HoldGrace = 60_000

// CallGrace is how long after the order's deadline an authorization may still be carried out, in ms, when the provider is called first: it may have been, and
// what the provider has must come to be on record. Providers keep idempotency keys for a day or longer.
const CallGrace = 24 * 60 * 60_000

// TentativeTime is how long after a tentative reserve its order is asked, in ms: long enough for the order to be placed, so that few are asked about, and
// short, for until then the stock of one that was not placed after all is nobody's.
const TentativeTime = 1_000

// Service is what a step is for.
type Service uint8

// The services that take part in a saga.
const (
	Inventory Service = iota
	Payment
	Keys // where the idempotency keys are kept
)

// Send is a command for another service: one of Inventory, for the inventory shard Leg, Payment and Key is set. Sends that follow
// one another may share a command.
type Send struct {
	Step      Step
	Leg       uint32
	Inventory *inventorypb.Command
	Payment   *paymentpb.Command
	Key       *orderpb.ClaimKey
}

// Rule is a row of the saga's table: after an event, under a condition, a step is sent; Undo is what takes it back.
type Rule struct {
	After order.Kind
	When  string
	Send  Step
	Undo  Step
}

// Rules lists what Follow does, for documents and tests.
func Rules() []Rule {
	return []Rule{
		{order.KindPlaced, "its key is kept elsewhere and the order is not free", Claim, None},
		{order.KindPlaced, "a line is tracked: to each inventory shard", Reserve, Release},
		{order.KindPlaced, "the order is not free: to leave when all shards hold and the key is the order's", Authorize, Void},
		{order.KindStockReserved, "all shards hold, the order is not free, and it was placed at feature level 1", Authorize, Void},
		{order.KindConfirmed, "to each inventory shard", Allocate, Release},
		{order.KindStockRefused, "to the shards that hold or may hold", Release, None},
		{order.KindKeyRefused, "to the shards that hold or may hold", Release, None},
		{order.KindPaymentDeclined, "to the shards that hold", Release, None},
		{order.KindCancelRequested, "money is or may be authorized", Void, None},
		{order.KindCancelRequested, "no money is", Release, None},
		{order.KindExpireRequested, "money is or may be authorized", Void, None},
		{order.KindExpireRequested, "no money is", Release, None},
		{order.KindPaymentVoided, "the order is being undone", Release, None},
		{order.KindFulfilled, "to the shards of the items", Fulfill, None},
		{order.KindFulfilled, "the items have a price", Capture, Refund},
		{order.KindRemainderCanceled, "to the shards of the rest", Trim, None},
		{order.KindPaymentCaptured, "the rest was canceled and nothing else is being captured", Void, None},
		{order.KindRemainderCanceled, "nothing is being captured", Void, None},
		{order.KindStepResolved, "a capture was given up and nothing else is being captured", Void, None},
		{order.KindReturned, "the goods are back: to the shards of the items", Restock, None},
		{order.KindRefundRequested, "", Refund, None},
	}
}

// Table prints the rules as Markdown.
func Table() string {
	var b strings.Builder
	b.WriteString("| After | When | Send | Undone by |\n|---|---|---|---|\n")
	for _, r := range Rules() {
		undo := r.Undo.String()
		if undo == "" {
			undo = "–"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", r.After, r.When, r.Send, undo)
	}
	return b.String()
}

// ShardOf names the inventory shard that keeps a SKU.
type ShardOf func(sku string) uint32

// Follow appends to sends what follows from event e, which has been folded into o. Before is the payment step of the order before it.
func Follow(sends []Send, o *orderpb.Order, e *orderpb.Event, before orderpb.PaymentStep, shardOf ShardOf) []Send {
	voids := o.Payment == orderpb.PaymentStep_PAYMENT_VOIDING && before != orderpb.PaymentStep_PAYMENT_VOIDING
	doubtful := o.CallFirst && before == orderpb.PaymentStep_PAYMENT_AUTHORIZING
	switch d := e.Detail.(type) {
	case *orderpb.Event_Placed:
		sends = reserve(sends, o, shardOf)
		if o.Payment == orderpb.PaymentStep_PAYMENT_AUTHORIZING {
			sends = append(sends, authorize(o))
		}
	case *orderpb.Event_StockReserved:
		if o.State == order.AwaitingPayment && before == orderpb.PaymentStep_PAYMENT_NONE {
			sends = append(sends, authorize(o))
		}
	case *orderpb.Event_Confirmed:
		same := &inventorypb.Command{Body: &inventorypb.Command_Allocate{Allocate: &inventorypb.Allocate{HoldId: o.Id}}}
		for _, leg := range o.Legs {
			sends = append(sends, Send{Step: Allocate, Leg: leg.Shard, Inventory: same})
		}
	case *orderpb.Event_StockRefused, *orderpb.Event_KeyRefused, *orderpb.Event_PaymentDeclined, *orderpb.Event_PaymentVoided,
		*orderpb.Event_CancelRequested, *orderpb.Event_ExpireRequested:
		sends = release(sends, o)
	case *orderpb.Event_Fulfilled:
		f := d.Fulfilled.Fulfillment
		for _, g := range group(o, f.Items, shardOf) {
			sends = append(sends, Send{Step: Fulfill, Leg: g.leg, Inventory: &inventorypb.Command{
				Body: &inventorypb.Command_Fulfill{Fulfill: &inventorypb.Fulfill{HoldId: o.Id, Op: f.Id, Demands: g.demands}},
			}})
		}
		if f.Amount > 0 {
			sends = append(sends, Send{Step: Capture, Payment: CaptureOf(o, f.Id, f.Amount)})
		}
	case *orderpb.Event_RemainderCanceled:
		op := fmt.Sprintf("rest.%d", e.Version)
		for _, g := range group(o, d.RemainderCanceled.Items, shardOf) {
			sends = append(sends, Send{Step: Trim, Leg: g.leg, Inventory: &inventorypb.Command{
				Body: &inventorypb.Command_Release{Release: &inventorypb.Release{HoldId: o.Id, Op: op, Demands: g.demands}},
			}})
		}
	case *orderpb.Event_Returned:
		r := d.Returned.Return
		if r.Disposition == orderpb.Disposition_LOST {
			break
		}
		for _, g := range group(o, r.Items, shardOf) {
			sends = append(sends, Send{Step: Restock, Leg: g.leg, Inventory: &inventorypb.Command{
				Body: &inventorypb.Command_Restock{Restock: &inventorypb.Restock{
					HoldId: o.Id, Op: r.Id, Demands: g.demands, Damaged: r.Disposition == orderpb.Disposition_DAMAGED,
				}},
			}})
		}
	case *orderpb.Event_RefundRequested:
		sends = append(sends, Send{Step: Refund, Payment: RefundOf(o, d.RefundRequested.Refund.Id, d.RefundRequested.Refund.Amount)})
	}
	if voids {
		void := VoidOf(o, payment.VoidOp)
		if doubtful { // the provider may have been called although the payment is not on record
			void.GetVoid().Authorize = authorize(o).Payment.GetAuthorize()
		}
		sends = append(sends, Send{Step: Void, Payment: void})
	}
	return sends
}

// CaptureOf makes the command that captures a fulfillment's amount under the operation's ID.
func CaptureOf(o *orderpb.Order, op string, amount int64) *paymentpb.Command {
	return &paymentpb.Command{Body: &paymentpb.Command_Capture{Capture: &paymentpb.Capture{PaymentId: o.PaymentId, Op: op, Amount: amount}}}
}

// VoidOf makes the command that gives back what is authorized and not captured, under the operation's ID.
func VoidOf(o *orderpb.Order, op string) *paymentpb.Command {
	return &paymentpb.Command{Body: &paymentpb.Command_Void{Void: &paymentpb.Void{PaymentId: o.PaymentId, Op: op}}}
}

// RefundOf makes the command that pays a refund out under the operation's ID.
func RefundOf(o *orderpb.Order, op string, amount int64) *paymentpb.Command {
	return &paymentpb.Command{Body: &paymentpb.Command_Refund{Refund: &paymentpb.Refund{PaymentId: o.PaymentId, Op: op, Amount: amount}}}
}

func authorize(o *orderpb.Order) Send {
	var c struct {
		paymentpb.Command
		is   paymentpb.Command_Authorize
		what paymentpb.Authorize
	}
	c.what.PaymentId, c.what.OrderId, c.what.Amount = o.PaymentId, o.Id, o.Total
	c.what.Currency, c.what.Method, c.what.Expires, c.what.CallFirst = o.Currency, o.PaymentMethod, o.Deadline, o.CallFirst
	if o.CallFirst {
		c.what.Expires += CallGrace
	}
	c.is.Authorize, c.Body = &c.what, &c.is
	return Send{Step: Authorize, Payment: &c.Command}
}

// Heard returns what an order may be told when the provider has answered its authorization and the payment is still being logged; nil when
// it has to wait for the payment: what the provider said needs more than to be written down.
func Heard(c *paymentpb.Authorize) *orderpb.Command {
	a := c.GetAnswer()
	if a.GetStatus() != paymentpb.ProviderStatus_PROVIDER_SUCCEEDED || a.Amount != 0 && a.Amount != c.Amount {
		return nil
	}
	return &orderpb.Command{Body: &orderpb.Command_Authorized{Authorized: &orderpb.Authorized{
		Id: c.OrderId, Amount: c.Amount, ProviderReference: a.Reference,
	}}}
}

// Tentative returns the claim and the reserves that may leave while an order is being placed, with the order's ID: those that are sent when it is on record,
// but for that the reserves are tentative for some time in ms. None for any other command, and for an order that is going to be refused.
func Tentative(payload []byte, shardOf ShardOf, now, time int64) (orderID string, sends []Send) {
	if len(payload) == 0 || payload[0]>>3 != placeField {
		return "", nil
	}
	var c orderpb.Command
	if c.UnmarshalVT(payload) != nil || c.GetPlace() == nil {
		return "", nil
	}
	events, r := order.DecidePlace(c.GetPlace(), shardOf, now)
	if r != nil {
		return "", nil
	}
	o := new(orderpb.Order)
	order.Fold(o, events[0])
	sends = reserve(nil, o, shardOf)
	for _, s := range sends {
		what := s.Inventory.GetReserve()
		what.Tentative, what.Expires, what.Due = time, 0, 0
	}
	if claim := c.GetPlace().Claim; claim != nil {
		sends = append(sends, Send{Step: Claim, Key: claim})
	}
	return o.Id, sends
}

// ClaimCommand makes the command that claims a key, encoded.
func ClaimCommand(c *orderpb.ClaimKey) []byte {
	return Encode(&orderpb.Command{Body: &orderpb.Command_ClaimKey{ClaimKey: c}})
}

// Encode encodes a command.
func Encode(m interface{ MarshalVT() ([]byte, error) }) []byte {
	data, err := m.MarshalVT()
	if err != nil {
		panic("saga: encode: " + err.Error()) // only a wrong size can fail
	}
	return data
}

// placeField is the number of the field that a command to place has.
const placeField = 1

// release sends for the legs that the fold has set to be released just now: a leg is in that state only until its answer.
func release(sends []Send, o *orderpb.Order) []Send {
	same := &inventorypb.Command{Body: &inventorypb.Command_Release{Release: &inventorypb.Release{HoldId: o.Id, Op: "undo"}}}
	for _, leg := range o.Legs {
		if leg.State == orderpb.LegState_LEG_RELEASING {
			sends = append(sends, Send{Step: Release, Leg: leg.Shard, Inventory: same})
		}
	}
	return sends
}

func reserve(sends []Send, o *orderpb.Order, shardOf ShardOf) []Send {
	if len(o.Legs) == 0 {
		return sends
	}
	commands := make([]struct { // one allocation for all that the shards get
		inventorypb.Command
		is   inventorypb.Command_Reserve
		what inventorypb.Reserve
	}, len(o.Legs))
	for i, leg := range o.Legs {
		c := &commands[i]
		c.what.HoldId, c.what.Location, c.what.Expires, c.what.Due = o.Id, o.Location, o.Deadline, o.Deadline+HoldGrace
		c.is.Reserve, c.Body = &c.what, &c.is
		sends = append(sends, Send{Step: Reserve, Leg: leg.Shard, Inventory: &c.Command})
	}
	sums := adder{lines: len(o.Lines)}
	for _, l := range o.Lines {
		if l.Untracked {
			continue
		}
		shard := shardOf(l.Sku)
		for i, leg := range o.Legs {
			if leg.Shard == shard {
				r := &commands[i].what
				r.Demands = sums.add(r.Demands, l.Sku, l.Quantity, l.No)
			}
		}
	}
	return sends
}

// grouped is what one inventory shard has to do about some items.
type grouped struct {
	leg     uint32
	demands []*inventorypb.Demand
}

// group sums items up per SKU, by inventory shard. Items of untracked lines are nobody's.
func group(o *orderpb.Order, items []*orderpb.Item, shardOf ShardOf) []grouped {
	var groups []grouped
	sums := adder{lines: len(items)}
	for _, it := range items {
		l := o.Lines[it.Line-1]
		if l.Untracked {
			continue
		}
		leg := shardOf(l.Sku)
		i := 0
		for i < len(groups) && groups[i].leg != leg {
			i++
		}
		if i == len(groups) {
			groups = append(groups, grouped{leg: leg})
		}
		groups[i].demands = sums.add(groups[i].demands, l.Sku, it.Quantity, l.No)
	}
	return groups
}

// adder sums demands up per SKU: by looking, and for long orders by a map, for a SKU may stand in many lines.
type adder struct {
	lines int // that are going to be added, at most
	block []inventorypb.Demand
	bySKU map[string]*inventorypb.Demand
}

const searchLines = 24

func (a *adder) add(demands []*inventorypb.Demand, sku string, quantity int64, line uint32) []*inventorypb.Demand {
	if a.lines <= searchLines {
		for _, d := range demands {
			if d.Sku == sku {
				d.Quantity += quantity
				return demands
			}
		}
	} else if d := a.bySKU[sku]; d != nil {
		d.Quantity += quantity
		return demands
	}
	if a.block == nil {
		a.block = make([]inventorypb.Demand, 0, a.lines)
	}
	a.block = append(a.block, inventorypb.Demand{Sku: sku, Quantity: quantity, Line: line}) // never grows: demands point into it
	d := &a.block[len(a.block)-1]
	if a.lines > searchLines {
		if a.bySKU == nil {
			a.bySKU = make(map[string]*inventorypb.Demand, a.lines)
		}
		a.bySKU[sku] = d
	}
	if demands == nil && a.lines <= searchLines {
		demands = make([]*inventorypb.Demand, 0, a.lines)
	}
	return append(demands, d)
}

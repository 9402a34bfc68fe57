package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"hanse/client"
	"hanse/internal/order"
	"hanse/internal/payment"
)

// verdict is what is to be said about one order.
type verdict struct {
	differences []Difference
	// resolved is what the provider has otherwise by an operator's decision.
	resolved []Difference
	// open says that its saga has not ended, stuck that it waits for a person.
	open, stuck bool
}

func (v *verdict) fine() bool { return !v.open && len(v.differences) == 0 }

func (v *verdict) differ(kind, id string, expected, found any) {
	v.differences = append(v.differences, Difference{kind, id, fmt.Sprint(expected), fmt.Sprint(found)})
}

// sums is the money of a payment.
type sums struct{ authorized, captured, refunded, voided int64 }

func (m sums) String() string {
	return fmt.Sprintf("authorized %d, captured %d, refunded %d, voided %d", m.authorized, m.captured, m.refunded, m.voided)
}

// add books an operation of a kind.
func (m *sums) add(kind string, amount int64) {
	switch kind {
	case "authorize":
		m.authorized += amount
	case "capture":
		m.captured += amount
	case "refund":
		m.refunded += amount
	case "void":
		m.voided += amount
	}
}

// judge compares what the services and the provider know of one order.
func (a *auditor) judge(g *group) verdict {
	var v verdict
	if g.order != nil {
		o := &g.order.Stored
		if f := g.order.Folded; f != nil {
			expected, found := unlike(f, o)
			v.differ(OrderNotItsEvents, o.ID, expected, found)
			o = f // the events are the truth
		}
		if g.order.Broken != "" {
			v.differ(OrderNotItsEvents, o.ID, "events that make an order", g.order.Broken)
		}
		v.open, v.stuck = underWay(o)
		if v.open && !v.stuck && a.cfg.Now().Sub(o.UpdatedAt) > a.cfg.StalledAfter {
			v.differ(OrderStalled, o.ID, "progress, or a stuck step", fmt.Sprintf("%s since %s", o.State, moment(o.UpdatedAt)))
		}
		v.lines(o)
		v.money(o)
		if !v.open {
			v.holds(g, o)
			v.payment(g.payment, o)
		}
	} else {
		for i := range g.holds {
			switch h := &g.holds[i]; {
			case h.FreeStanding:
			case h.State == "tentative": // its order is being placed, or it expires in a moment
				v.open = true
				if a.cfg.Now().Sub(h.UpdatedAt) > a.cfg.StalledAfter {
					v.differ(HoldWithoutOrder, h.ID, "an order, or its end", "a hold that is tentative since "+moment(h.UpdatedAt))
				}
			case h.State != "expired":
				v.differ(HoldWithoutOrder, h.ID, "an order", "a hold that is "+h.State)
			}
		}
		if g.payment != nil {
			v.differ(PaymentNoOrder, g.payment.ID, "an order", sumsOf(g.payment))
		}
	}
	v.operations(g.payment)
	if a.provider != nil {
		a.provider.judge(&v, g)
	}
	return v
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// underWay says whether an order's saga has not ended, and whether a person has to look. What an operator has given up is not under way.
func underWay(o *client.Order) (open, stuck bool) {
	switch o.State {
	case "placing", "awaiting_payment", "canceling", "expiring", "rejecting", "on_hold":
		open = true
	case "fulfilled", "completed": // what was authorized and is not charged is given back
		open = o.Payment.Authorized != o.Payment.Captured+o.Payment.Voided
	}
	for _, f := range o.Fulfillments {
		open = open || f.Captured != f.Amount && f.CaptureFailed != order.GivenUp
	}
	for _, r := range o.Refunds {
		open = open || !r.Done && r.Failed != order.GivenUp
	}
	return open || len(o.Stuck) > 0, o.Attention
}

// unlike names the members in which two orders differ.
func unlike(expected, found *client.Order) (string, string) {
	e, f := members(expected), members(found)
	var left, right []string
	for _, name := range slices.Sorted(maps.Keys(e)) {
		if x, y := e[name], f[name]; !bytes.Equal(x, y) {
			left, right = append(left, name+" "+clip(x)), append(right, name+" "+clip(y))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if _, ok := e[name]; !ok {
			left, right = append(left, "no "+name), append(right, name+" "+clip(f[name]))
		}
	}
	if len(left) == 0 {
		return "the fold of its events", "something else that is not shown"
	}
	return strings.Join(left, ", "), strings.Join(right, ", ")
}

func members(o *client.Order) map[string]json.RawMessage {
	var m map[string]json.RawMessage
	data, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil { // an order came out of JSON and goes back into it
		panic("audit: " + err.Error())
	}
	return m
}

func clip(value json.RawMessage) string {
	const most = 120
	if len(value) == 0 {
		return "none"
	}
	if len(value) > most {
		return string(value[:most]) + "…"
	}
	return string(value)
}

// lines checks quantities and prices.
func (v *verdict) lines(o *client.Order) {
	var total int64
	fulfilled, returned := make([]int64, len(o.Lines)), make([]int64, len(o.Lines))
	count := func(sum []int64, items []client.Item) {
		for _, it := range items {
			if int(it.Line) < 1 || int(it.Line) > len(sum) {
				v.differ(OrderLine, o.ID, fmt.Sprintf("lines 1 to %d", len(sum)), fmt.Sprintf("line %d", it.Line))
				continue
			}
			sum[it.Line-1] += it.Quantity
		}
	}
	for _, f := range o.Fulfillments {
		count(fulfilled, f.Items)
	}
	for _, r := range o.Returns {
		count(returned, r.Items)
	}
	for i, l := range o.Lines {
		total += l.Total
		name := fmt.Sprintf("%s line %d", o.ID, l.Line)
		if l.Total != l.Quantity*l.UnitPrice {
			v.differ(OrderLine, name, fmt.Sprintf("%d × %d", l.Quantity, l.UnitPrice), fmt.Sprintf("total %d", l.Total))
		}
		if l.Fulfilled != fulfilled[i] || l.Returned != returned[i] {
			v.differ(OrderLine, name, fmt.Sprintf("fulfilled %d, returned %d", fulfilled[i], returned[i]), fmt.Sprintf("fulfilled %d, returned %d", l.Fulfilled, l.Returned))
		}
		if l.Canceled < 0 || l.Canceled+l.Fulfilled > l.Quantity || l.Returned > l.Fulfilled {
			v.differ(OrderLine, name, "canceled + fulfilled within the quantity, returned within fulfilled",
				fmt.Sprintf("quantity %d, canceled %d, fulfilled %d, returned %d", l.Quantity, l.Canceled, l.Fulfilled, l.Returned))
		}
	}
	if total != o.Total {
		v.differ(OrderTotal, o.ID, total, o.Total)
	}
}

// money checks that an order's amounts fit to one another.
func (v *verdict) money(o *client.Order) {
	p := o.Payment
	var captured, refunded, refunds int64
	for _, f := range o.Fulfillments {
		captured += f.Captured
	}
	for _, r := range o.Refunds {
		refunds += r.Amount
		if r.Done {
			refunded += r.Amount
		}
	}
	if p.Captured != captured || p.Refunded != refunded {
		v.differ(OrderMoney, o.ID, fmt.Sprintf("captured %d, refunded %d", captured, refunded), fmt.Sprintf("captured %d, refunded %d", p.Captured, p.Refunded))
	}
	if p.Refunded > p.Captured || p.Captured+p.Voided > p.Authorized || p.Authorized > o.Total {
		v.differ(OrderMoney, o.ID, fmt.Sprintf("refunded <= captured <= authorized - voided, authorized <= %d", o.Total), sums{p.Authorized, p.Captured, p.Refunded, p.Voided})
	}
	switch o.State {
	case "confirmed", "partially_fulfilled", "fulfilled", "completed":
		if p.Authorized != o.Total {
			v.differ(OrderMoney, o.ID, fmt.Sprintf("authorized %d, for it is %s", o.Total, o.State), fmt.Sprintf("authorized %d", p.Authorized))
		}
	case "canceled", "expired", "rejected":
		if p.Authorized != p.Captured+p.Voided {
			v.differ(OrderMoney, o.ID, "all that was authorized voided, for it is "+o.State, sums{p.Authorized, p.Captured, p.Refunded, p.Voided})
		}
	}
}

// kept is what a hold says about one SKU, and what an order wants of it.
type kept struct {
	quantity, fulfilled, released, restocked int64
	damaged                                  int64 // of restocked; only orders know
}

func (k kept) String() string {
	return fmt.Sprintf("quantity %d, fulfilled %d, released %d, restocked %d", k.quantity, k.fulfilled, k.released, k.restocked)
}

// kept sums the group's holds up by SKU.
func (g *group) kept() map[string]kept {
	all := make(map[string]kept)
	for i := range g.holds {
		for _, l := range g.holds[i].Lines {
			k := all[l.SKU]
			k.quantity += l.Quantity
			k.fulfilled += l.Fulfilled
			k.released += l.Released
			k.restocked += l.Restocked
			all[l.SKU] = k
		}
	}
	return all
}

// wanted sums an order's tracked lines up by SKU: what its holds should be when everything has arrived.
func wanted(o *client.Order) map[string]kept {
	all := make(map[string]kept, len(o.Lines))
	for _, l := range o.Lines {
		if l.Tracked {
			k := all[l.SKU]
			k.quantity += l.Quantity
			k.fulfilled += l.Fulfilled
			k.released += l.Canceled
			all[l.SKU] = k
		}
	}
	for _, r := range o.Returns {
		if r.Disposition == "lost" {
			continue
		}
		for _, it := range r.Items {
			if int(it.Line) < 1 || int(it.Line) > len(o.Lines) || !o.Lines[it.Line-1].Tracked {
				continue
			}
			sku := o.Lines[it.Line-1].SKU
			k := all[sku]
			k.restocked += it.Quantity
			if r.Disposition == "damaged" {
				k.damaged += it.Quantity
			}
			all[sku] = k
		}
	}
	return all
}

// holds compares an order that is not under way with what the inventory keeps for it.
func (v *verdict) holds(g *group, o *client.Order) {
	ended := o.State == "canceled" || o.State == "expired" || o.State == "rejected"
	for i := range g.holds {
		h := &g.holds[i]
		if h.FreeStanding || h.Location != o.Location && len(h.Lines) > 0 {
			v.differ(HoldDiffers, o.ID, "the order's hold at "+o.Location, fmt.Sprintf("one at %s, free-standing %v", h.Location, h.FreeStanding))
		}
		keeps := h.State == "allocated" || h.State == "consumed" || h.State == "released" // the last when all was canceled piece by piece
		if ended {
			keeps = h.State != "held" && h.State != "allocated" && h.State != "tentative"
		}
		if !keeps {
			v.differ(HoldDiffers, o.ID, "a hold of an order that is "+o.State, "one that is "+h.State)
		}
	}
	found := g.kept()
	if ended { // a refused, void or released hold keeps nothing, and the order wants nothing
		for _, sku := range slices.Sorted(maps.Keys(found)) {
			if k := found[sku]; k.fulfilled != 0 {
				v.differ(HoldDiffers, o.ID+" "+sku, "nothing fulfilled, for it is "+o.State, k)
			}
		}
		return
	}
	want := wanted(o)
	for _, sku := range slices.Sorted(maps.Keys(want)) {
		w := want[sku]
		k, ok := found[sku]
		w.damaged = 0
		switch {
		case !ok:
			v.differ(HoldMissing, o.ID+" "+sku, w, "nothing")
		case k.quantity == 0: // the SKU was not tracked when it was reserved
		case k != w:
			v.differ(HoldDiffers, o.ID+" "+sku, w, k)
		}
		delete(found, sku)
	}
	for _, sku := range slices.Sorted(maps.Keys(found)) {
		v.differ(HoldDiffers, o.ID+" "+sku, "nothing", found[sku])
	}
}

func sumsOf(p *client.Payment) sums { return sums{p.Authorized, p.Captured, p.Refunded, p.Voided} }

// payment compares an order that is not under way with its payment.
func (v *verdict) payment(p *client.Payment, o *client.Order) {
	expected := sums{o.Payment.Authorized, o.Payment.Captured, o.Payment.Refunded, o.Payment.Voided}
	switch {
	case p == nil && expected == (sums{}): // free, or ended before it came to that
	case p == nil:
		v.differ(PaymentMissing, o.PaymentID, expected, "none")
	case p.ID != o.PaymentID || p.OrderID != o.ID || p.Currency != o.Currency:
		v.differ(PaymentDiffers, o.PaymentID, fmt.Sprintf("%s of order %s in %s", o.PaymentID, o.ID, o.Currency), fmt.Sprintf("%s of order %s in %s", p.ID, p.OrderID, p.Currency))
	case sumsOf(p) != expected && told(p) != expected:
		v.differ(PaymentDiffers, p.ID, expected, sumsOf(p))
	}
}

// told is what the order of a payment may have been told already: that the provider has authorized it. It hears that from the call itself, and the payment
// perhaps when it asks, half a minute later.
func told(p *client.Payment) sums {
	m := sumsOf(p)
	for _, op := range p.Operations {
		if op.Kind == "authorize" && isOpen(&op) {
			m.add(op.Kind, op.Amount)
		}
	}
	return m
}

// isOpen says that an operation has no outcome yet.
func isOpen(op *client.Operation) bool {
	return op.State == "pending" || op.State == "sent" || op.State == "unknown"
}

// operations compares a payment with the sum of its operations. While one is under way the payment is open.
func (v *verdict) operations(p *client.Payment) {
	if p == nil {
		return
	}
	var done sums
	for _, op := range p.Operations {
		switch {
		case op.State == "succeeded":
			done.add(op.Kind, op.Amount)
		case isOpen(&op):
			v.open = true
			v.stuck = v.stuck || op.Stuck
		}
	}
	if done != sumsOf(p) {
		v.differ(PaymentOperations, p.ID, done, sumsOf(p))
	}
	if done.authorized > p.Requested || done.captured+done.voided > done.authorized || done.refunded > done.captured {
		v.differ(PaymentOperations, p.ID, fmt.Sprintf("refunded <= captured <= authorized - voided, authorized <= %d", p.Requested), done)
	}
}

// mark digests an operation at the provider, so that a set of them can be compared by its sum: 64-bit FNV-1a.
func mark(key, kind, currency string, amount int64) uint64 {
	const prime = 1099511628211
	h := uint64(14695981039346656037)
	add := func(s string) {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * prime
		}
		h *= prime
	}
	add(key)
	add(kind)
	add(currency)
	for range 8 {
		h = (h ^ uint64(amount)&0xff) * prime
		amount >>= 8
	}
	return h
}

// marks sums up the operations that a payment has had the provider do.
func marks(p *client.Payment) (sum uint64) {
	for _, op := range p.Operations {
		if op.State == "succeeded" && op.Amount > 0 { // to void nothing is no operation
			sum += mark(payment.Key(p.ID, op.ID), op.Kind, p.Currency, op.Amount)
		}
	}
	return sum
}

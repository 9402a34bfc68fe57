// Package audit recomputes a cluster's books from scratch and compares them with what it has stored.
//
//	orders' events ──fold──▶ orders ──sum──▶ stock of each SKU, money of each payment
//	receipts, adjustments ───────────────▶                │ compared with
//	                     stored orders, counters, holds, payments, and the provider's ledger
//
// It reads shard after shard while the cluster may go on, so what is under way can look like a difference. Differences are
// therefore looked at several times: only those that stay are reported. A cluster at rest is compared exactly.
package audit

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"hanse/client"
)

// Source is the cluster; *client.Client provides it.
type Source interface {
	Shards(ctx context.Context) (*client.Shards, error)
	ScanOrders(ctx context.Context, shard int, after string, limit int) ([]client.ScannedOrder, bool, error)
	ScanItems(ctx context.Context, shard int, afterSKU, afterLocation string, limit int) ([]client.Location, bool, error)
	ScanHolds(ctx context.Context, shard int, after string, limit int) ([]client.Hold, bool, error)
	ScanMovements(ctx context.Context, shard int, after uint64, limit int) ([]client.Movement, bool, error)
	Payments(ctx context.Context, shard int, after string, limit int, stuck bool) ([]client.Payment, bool, error)
}

// Charge is an operation of the provider's ledger.
type Charge struct {
	Key, PaymentID, Kind string
	Amount               int64
	Declined             bool
}

// Ledger reads the provider's ledger from its beginning; nil when there is none to compare with.
type Ledger func(ctx context.Context, fn func(Charge)) error

// Difference is one thing that is not as it should be.
type Difference struct {
	Kind     string `json:"kind"`
	ID       string `json:"id"`
	Expected string `json:"expected"`
	Found    string `json:"found"`
}

func (d Difference) String() string {
	return fmt.Sprintf("%s %s: expected %s, found %s", d.Kind, d.ID, d.Expected, d.Found)
}

// Report is what an audit has found.
type Report struct {
	Orders   int `json:"orders"`
	SKUs     int `json:"skus"`
	Payments int `json:"payments"`
	// CheckedAt is the applied index of each shard when the audit began.
	CheckedAt   map[string]uint64 `json:"checked_at"`
	Differences []Difference      `json:"differences"`
	// Open counts orders that were under way.
	Open int `json:"open"`
}

const (
	pageRows = 500
	// looks is how often a difference has to be seen, lookAgain the time between.
	looks     = 4
	lookAgain = time.Second
)

// Run audits a cluster. A difference is reported when it was there each time it was looked at.
func Run(ctx context.Context, s Source, ledger Ledger) (*Report, error) {
	var report *Report
	for look := range looks {
		next, err := once(ctx, s, ledger)
		if err != nil {
			return nil, err
		}
		if report != nil {
			next.Differences = slices.DeleteFunc(next.Differences, func(d Difference) bool {
				return !slices.ContainsFunc(report.Differences, func(o Difference) bool { return o.Kind == d.Kind && o.ID == d.ID })
			})
		}
		report = next
		if len(report.Differences) == 0 || look == looks-1 {
			break
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lookAgain):
		}
	}
	return report, nil
}

// place is a SKU at a location.
type place struct{ sku, location string }

// counters are the stock at a place as the books have it.
type counters struct{ onHand, reserved, allocated, unavailable int64 }

func (c counters) String() string {
	return fmt.Sprintf("on hand %d, reserved %d, allocated %d, unavailable %d", c.onHand, c.reserved, c.allocated, c.unavailable)
}

// sums is the money of a payment.
type sums struct{ authorized, captured, refunded, voided int64 }

func (m sums) String() string {
	return fmt.Sprintf("authorized %d, captured %d, refunded %d, voided %d", m.authorized, m.captured, m.refunded, m.voided)
}

// books is one pass over the cluster.
type books struct {
	report Report
	stock  map[place]*counters // from orders and movements
	money  map[string]sums     // from orders, by payment
	open   map[string]bool     // payments of orders under way
	asked  map[string]sums     // from payments
}

func once(ctx context.Context, s Source, ledger Ledger) (*Report, error) {
	b := &books{
		report: Report{CheckedAt: make(map[string]uint64), Differences: []Difference{}},
		stock:  make(map[place]*counters), money: make(map[string]sums), open: make(map[string]bool), asked: make(map[string]sums),
	}
	shards, err := s.Shards(ctx)
	if err != nil {
		return nil, err
	}
	for _, sh := range shards.Shards {
		b.report.CheckedAt[sh.ID] = sh.Applied
	}
	for _, part := range []struct {
		service string
		read    func(context.Context, Source, int) error
	}{
		{"inventory", b.movements}, {"order", b.orders}, {"inventory", b.holds}, {"inventory", b.items}, {"payment", b.payments},
	} {
		for i := range shards.Counts[part.service] {
			if err := part.read(ctx, s, i); err != nil {
				return nil, fmt.Errorf("audit %s/%d: %w", part.service, i, err)
			}
		}
	}
	b.missingItems()
	b.comparePayments()
	if ledger != nil {
		if err := b.compareLedger(ctx, ledger); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(b.report.Differences, func(x, y Difference) int {
		return cmp.Or(strings.Compare(x.Kind, y.Kind), strings.Compare(x.ID, y.ID))
	})
	return &b.report, nil
}

func (b *books) differ(kind, id string, expected, found any) {
	b.report.Differences = append(b.report.Differences, Difference{kind, id, fmt.Sprint(expected), fmt.Sprint(found)})
}

func (b *books) at(sku, location string) *counters {
	p := place{sku, location}
	c := b.stock[p]
	if c == nil {
		c = new(counters)
		b.stock[p] = c
	}
	return c
}

func (b *books) movements(ctx context.Context, s Source, shard int) error {
	for after, more := uint64(0), true; more; {
		page, next, err := s.ScanMovements(ctx, shard, after, pageRows)
		if err != nil {
			return err
		}
		for _, m := range page {
			if m.Seq != after+1 {
				b.differ("movement_gap", fmt.Sprintf("inventory/%d", shard), after+1, m.Seq)
			}
			after = m.Seq
			b.at(m.SKU, m.Location).onHand += m.Quantity
		}
		more = next && len(page) > 0
	}
	return nil
}

func (b *books) orders(ctx context.Context, s Source, shard int) error {
	for after, more := "", true; more; {
		page, next, err := s.ScanOrders(ctx, shard, after, pageRows)
		if err != nil {
			return err
		}
		for i := range page {
			b.order(&page[i])
			after = page[i].Stored.ID
		}
		more = next && len(page) > 0
	}
	return nil
}

func (b *books) order(scanned *client.ScannedOrder) {
	o := &scanned.Stored
	b.report.Orders++
	if f := scanned.Folded; f != nil {
		b.differ("order_is_not_its_events", o.ID, fmt.Sprintf("%s at revision %d", f.State, f.Revision), fmt.Sprintf("%s at revision %d", o.State, o.Revision))
		o = f // the events are the truth
	}
	var total, captures int64
	for _, l := range o.Lines {
		total += l.Total
		if l.Total != l.Quantity*l.UnitPrice || l.Canceled+l.Fulfilled > l.Quantity || l.Returned > l.Fulfilled {
			b.differ("order_line", fmt.Sprintf("%s line %d", o.ID, l.Line), "canceled + fulfilled <= quantity, returned <= fulfilled", fmt.Sprintf("%+v", l))
		}
		if !l.Tracked {
			continue
		}
		c := b.at(l.SKU, o.Location)
		c.onHand -= l.Fulfilled
		switch open := l.Quantity - l.Canceled - l.Fulfilled; o.State {
		case "placing", "awaiting_payment":
			c.reserved += open // while it is under way that may be early or late
		case "confirmed", "partially_fulfilled", "on_hold":
			c.allocated += open
		}
	}
	for _, r := range o.Returns {
		for _, it := range r.Items {
			l := o.Lines[it.Line-1]
			if !l.Tracked || r.Disposition == "lost" {
				continue
			}
			c := b.at(l.SKU, o.Location)
			c.onHand += it.Quantity
			if r.Disposition == "damaged" {
				c.unavailable += it.Quantity
			}
		}
	}
	if total != o.Total {
		b.differ("order_total", o.ID, total, o.Total)
	}
	for _, f := range o.Fulfillments {
		captures += f.Captured
	}
	p := o.Payment
	if captures != p.Captured || p.Captured > p.Authorized || p.Refunded > p.Captured || p.Captured+p.Voided > p.Authorized {
		b.differ("order_money", o.ID, "refunded <= captured = sum of captures, captured + voided <= authorized", fmt.Sprintf("%+v, captures %d", p, captures))
	}
	underWay := false
	switch o.State {
	case "placing", "awaiting_payment", "canceling", "expiring", "rejecting", "on_hold":
		underWay = true
	case "confirmed":
		if p.Authorized != o.Total {
			b.differ("confirmed_without_payment", o.ID, o.Total, p.Authorized)
		}
	}
	for _, r := range o.Refunds {
		underWay = underWay || !r.Done
	}
	for _, f := range o.Fulfillments {
		underWay = underWay || f.Captured != f.Amount
	}
	if underWay {
		b.report.Open++
	}
	if o.PaymentID != "" {
		b.money[o.PaymentID] = sums{p.Authorized, p.Captured, p.Refunded, p.Voided}
		if underWay {
			b.open[o.PaymentID] = true
		}
	}
}

// holds adds what reservations without an order keep.
func (b *books) holds(ctx context.Context, s Source, shard int) error {
	for after, more := "", true; more; {
		page, next, err := s.ScanHolds(ctx, shard, after, pageRows)
		if err != nil {
			return err
		}
		for _, h := range page {
			after = h.ID
			if !h.FreeStanding {
				continue
			}
			for _, l := range h.Lines {
				left := l.Quantity - l.Fulfilled - l.Released
				switch h.State {
				case "held":
					b.at(l.SKU, h.Location).reserved += left
				case "allocated":
					b.at(l.SKU, h.Location).allocated += left
				}
			}
		}
		more = next && len(page) > 0
	}
	return nil
}

func (b *books) items(ctx context.Context, s Source, shard int) error {
	sku, location := "", ""
	for more := true; more; {
		page, next, err := s.ScanItems(ctx, shard, sku, location, pageRows)
		if err != nil {
			return err
		}
		for _, i := range page {
			sku, location = i.SKU, i.Location
			b.report.SKUs++
			p := place{i.SKU, i.Location}
			expected := b.stock[p]
			delete(b.stock, p)
			if !i.Tracked {
				continue
			}
			if expected == nil {
				expected = new(counters)
			}
			if found := (counters{i.OnHand, i.Reserved, i.Allocated, i.Unavailable}); found != *expected {
				b.differ("stock", i.SKU+" at "+i.Location, expected, found)
			}
		}
		more = next && len(page) > 0
	}
	return nil
}

// missingItems reports stock that the books have and no shard keeps.
func (b *books) missingItems() {
	for p, c := range b.stock {
		if *c != (counters{}) {
			b.differ("stock", p.sku+" at "+p.location, c, "nothing")
		}
	}
}

func (b *books) payments(ctx context.Context, s Source, shard int) error {
	for after, more := "", true; more; {
		page, next, err := s.Payments(ctx, shard, after, pageRows, false)
		if err != nil {
			return err
		}
		for _, p := range page {
			after = p.ID
			b.report.Payments++
			b.asked[p.ID] = sums{p.Authorized, p.Captured, p.Refunded, p.Voided}
			for _, op := range p.Operations {
				if op.State == "sent" || op.State == "unknown" || op.State == "pending" {
					b.open[p.ID] = true
				}
			}
		}
		more = next && len(page) > 0
	}
	return nil
}

func (b *books) comparePayments() {
	for id, expected := range b.money {
		if found := b.asked[id]; found != expected && !b.open[id] {
			b.differ("payment", id, expected, found)
		}
	}
	for id, found := range b.asked {
		if _, ok := b.money[id]; !ok {
			b.differ("payment_without_order", id, "an order", found)
		}
	}
}

// compareLedger compares the payments with what the provider has done.
func (b *books) compareLedger(ctx context.Context, ledger Ledger) error {
	charged := make(map[string]sums)
	authorizations := make(map[string]int)
	keys := make(map[string]bool)
	err := ledger(ctx, func(c Charge) {
		if c.Declined {
			return
		}
		if keys[c.Key] {
			b.differ("charged_twice", c.Key, "one operation for each key", "another")
		}
		keys[c.Key] = true
		m := charged[c.PaymentID]
		switch c.Kind {
		case "authorize":
			authorizations[c.PaymentID]++
			m.authorized += c.Amount
		case "capture":
			m.captured += c.Amount
		case "refund":
			m.refunded += c.Amount
		case "void":
			m.voided += c.Amount
		}
		charged[c.PaymentID] = m
	})
	if err != nil {
		return fmt.Errorf("read the provider's ledger: %w", err)
	}
	for id, n := range authorizations {
		if n > 1 {
			b.differ("charged_twice", id, "one authorization", fmt.Sprint(n))
		}
	}
	for id, found := range charged {
		if expected, ok := b.asked[id]; !ok {
			b.differ("provider_knows_more", id, "a payment", found)
		} else if found != expected && !b.open[id] {
			b.differ("provider_ledger", id, expected, found)
		}
	}
	for id, expected := range b.asked {
		if _, ok := charged[id]; !ok && expected != (sums{}) && !b.open[id] {
			b.differ("provider_ledger", id, expected, "nothing")
		}
	}
	return nil
}

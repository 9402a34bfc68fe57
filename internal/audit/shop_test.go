package audit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"hanse/client"
	"hanse/internal/id"
	"hanse/internal/payment"
	"hanse/internal/slot"
)

const inventoryShards, orderShards, paymentShards = 2, 3, 2

// shop is a cluster of rows, kept consistent by its methods until a test breaks them, and the provider's ledger.
type shop struct {
	mu        sync.Mutex
	orders    [orderShards][]Order
	holds     [inventoryShards][]client.Hold
	items     [inventoryShards][]client.Location
	movements [inventoryShards][]client.Movement
	payments  [paymentShards][]client.Payment
	charges   []Charge
	made      int
	// onScan is called before each page of a service, for tests in which the cluster goes on.
	onScan func(what string)
	fail   error
}

var created = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func shardOf(sku string) int { return int(sku[0]) % inventoryShards }

func (s *shop) item(sku string) *client.Location {
	items := &s.items[shardOf(sku)]
	i, ok := slices.BinarySearchFunc(*items, sku, func(l client.Location, sku string) int { return strings.Compare(l.SKU, sku) })
	if !ok {
		*items = slices.Insert(*items, i, client.Location{SKU: sku, Location: "main", Tracked: true})
	}
	return &(*items)[i]
}

// move changes counters as the inventory does.
func (s *shop) move(sku string, onHand, reserved, allocated, unavailable int64) {
	i := s.item(sku)
	i.OnHand += onHand
	i.Reserved += reserved
	i.Allocated += allocated
	i.Unavailable += unavailable
	i.Available = i.OnHand - i.Reserved - i.Allocated - i.Unavailable
	i.Revision++
}

func (s *shop) receive(sku string, quantity int64) {
	m := &s.movements[shardOf(sku)]
	*m = append(*m, client.Movement{Seq: uint64(len(*m) + 1), SKU: sku, Location: "main", Quantity: quantity})
	s.move(sku, quantity, 0, 0, 0)
}

// handle finds the rows of an order, which move when others are added.
type handle struct {
	s  *shop
	id string
}

func (h handle) order() *client.Order { return &h.scanned().Stored }

func (h handle) scanned() *Order {
	for i := range h.s.orders {
		for k := range h.s.orders[i] {
			if h.s.orders[i][k].Stored.ID == h.id {
				return &h.s.orders[i][k]
			}
		}
	}
	panic("no order " + h.id)
}

func (h handle) hold(sku string) *client.Hold {
	for k := range h.s.holds[shardOf(sku)] {
		if hold := &h.s.holds[shardOf(sku)][k]; hold.ID == h.id {
			return hold
		}
	}
	panic("no hold of " + h.id)
}

func (h handle) line(sku string) *client.HoldLine {
	hold := h.hold(sku)
	for i := range hold.Lines {
		if hold.Lines[i].SKU == sku {
			return &hold.Lines[i]
		}
	}
	panic("no line of " + sku)
}

func (h handle) payment() *client.Payment {
	for i := range h.s.payments {
		for k := range h.s.payments[i] {
			if h.s.payments[i][k].OrderID == h.id {
				return &h.s.payments[i][k]
			}
		}
	}
	panic("no payment of " + h.id)
}

func tracked(sku string, quantity, price int64) client.Line {
	return client.Line{SKU: sku, Quantity: quantity, UnitPrice: price, Tracked: true}
}

// place adds an order that has been placed: nothing has answered yet.
func (s *shop) place(lines ...client.Line) handle {
	s.made++
	orderID := id.New(id.Order, slot.Slot(s.made%slot.Count), created.UnixMilli()+int64(s.made), uint64(s.made))
	o := client.Order{
		ID: orderID, State: "placing", Revision: 1, CustomerID: "ann", Currency: "EUR", Location: "main",
		PaymentID: id.Sibling(id.Payment, orderID), CreatedAt: created, UpdatedAt: created,
	}
	for i, l := range lines {
		l.Line, l.Total = uint32(i+1), l.Quantity*l.UnitPrice
		o.Total += l.Total
		o.Lines = append(o.Lines, l)
	}
	shard := s.made % orderShards
	s.orders[shard] = append(s.orders[shard], Order{Stored: o})
	return handle{s, orderID}
}

// reserve adds the order's holds.
func (h handle) reserve() handle {
	for _, l := range h.order().Lines {
		if !l.Tracked {
			continue
		}
		holds := &h.s.holds[shardOf(l.SKU)]
		k := slices.IndexFunc(*holds, func(x client.Hold) bool { return x.ID == h.id })
		if k < 0 {
			k = len(*holds)
			*holds = append(*holds, client.Hold{ID: h.id, State: "held", Location: "main"})
		}
		quantity := l.Quantity
		if !h.s.item(l.SKU).Tracked {
			quantity = 0
		}
		hold := &(*holds)[k]
		i := slices.IndexFunc(hold.Lines, func(x client.HoldLine) bool { return x.SKU == l.SKU })
		if i < 0 {
			i = len(hold.Lines)
			hold.Lines = append(hold.Lines, client.HoldLine{SKU: l.SKU})
		}
		hold.Lines[i].Quantity += quantity
		h.s.move(l.SKU, 0, quantity, 0, 0)
	}
	h.order().State = "awaiting_payment"
	return h
}

// pay does an operation at the provider.
func (h handle) pay(op, kind string, amount int64) {
	o := h.order()
	if kind == "authorize" {
		shard := h.s.made % paymentShards
		h.s.payments[shard] = append(h.s.payments[shard], client.Payment{ID: o.PaymentID, OrderID: o.ID, Currency: "EUR", Requested: amount})
	}
	p := h.payment()
	p.Operations = append(p.Operations, client.Operation{ID: op, Kind: kind, State: "succeeded", Amount: amount})
	h.s.charges = append(h.s.charges, Charge{
		Seq: uint64(len(h.s.charges) + 1), Key: payment.Key(p.ID, op), PaymentID: p.ID, Kind: kind, Currency: "EUR", Amount: amount,
	})
	switch kind {
	case "authorize":
		p.Authorized += amount
		o.Payment.Authorized += amount
	case "capture":
		p.Captured += amount
		o.Payment.Captured += amount
	case "void":
		p.Voided += amount
		o.Payment.Voided += amount
	case "refund":
		p.Refunded += amount
		o.Payment.Refunded += amount
	}
}

// confirm authorizes and allocates.
func (h handle) confirm() handle {
	h.reserve()
	o := h.order()
	if o.Total > 0 {
		h.pay("auth", "authorize", o.Total)
	}
	o.State = "confirmed"
	for i := range h.s.holds {
		for k := range h.s.holds[i] {
			hold := &h.s.holds[i][k]
			if hold.ID != h.id {
				continue
			}
			hold.State = "allocated"
			for _, l := range hold.Lines {
				h.s.move(l.SKU, 0, -l.Quantity, l.Quantity, 0)
			}
		}
	}
	return h
}

// ship fulfills and charges quantity of line n (from 1).
func (h handle) ship(n int, quantity int64) handle {
	o := h.order()
	l := &o.Lines[n-1]
	l.Fulfilled += quantity
	name := fmt.Sprintf("ful_%d", len(o.Fulfillments)+1)
	amount := quantity * l.UnitPrice
	o.Fulfillments = append(o.Fulfillments, client.Fulfillment{ID: name, Items: []client.Item{{Line: uint32(n), Quantity: quantity}}, Amount: amount, Captured: amount})
	if amount > 0 {
		h.pay(name, "capture", amount)
	}
	if l.Tracked && h.line(l.SKU).Quantity > 0 {
		h.line(l.SKU).Fulfilled += quantity
		h.s.move(l.SKU, -quantity, 0, -quantity, 0)
	}
	h.settle()
	return h
}

// settle sets the states that the quantities imply.
func (h handle) settle() {
	o := h.order()
	var open, fulfilled int64
	for _, l := range o.Lines {
		open += l.Quantity - l.Canceled - l.Fulfilled
		fulfilled += l.Fulfilled
	}
	switch {
	case open == 0 && fulfilled > 0:
		o.State = "fulfilled"
	case fulfilled > 0:
		o.State = "partially_fulfilled"
	}
	for i := range h.s.holds {
		for k := range h.s.holds[i] {
			hold := &h.s.holds[i][k]
			var left int64
			for _, l := range hold.Lines {
				left += l.Quantity - l.Fulfilled - l.Released
			}
			if hold.ID == h.id && left == 0 {
				hold.State = "consumed"
			}
		}
	}
}

// takeBack returns quantity of line n and refunds it.
func (h handle) takeBack(n int, quantity int64, disposition string) handle {
	o := h.order()
	l := &o.Lines[n-1]
	l.Returned += quantity
	name := fmt.Sprint(len(o.Returns) + 1)
	o.Returns = append(o.Returns, client.Return{ID: "ret_" + name, Items: []client.Item{{Line: uint32(n), Quantity: quantity}}, Disposition: disposition})
	amount := quantity * l.UnitPrice
	o.Refunds = append(o.Refunds, client.Refund{ID: "rfd_" + name, Amount: amount, Done: true})
	h.pay("rfd_"+name, "refund", amount)
	if l.Tracked && disposition != "lost" && h.line(l.SKU).Quantity > 0 {
		h.line(l.SKU).Restocked += quantity
		var damaged int64
		if disposition == "damaged" {
			damaged = quantity
		}
		h.s.move(l.SKU, quantity, 0, 0, damaged)
	}
	return h
}

// cancelRest releases what is open and gives its money back.
func (h handle) cancelRest() handle {
	o := h.order()
	for i := range o.Lines {
		l := &o.Lines[i]
		open := l.Quantity - l.Canceled - l.Fulfilled
		l.Canceled += open
		if l.Tracked && h.line(l.SKU).Quantity > 0 {
			h.line(l.SKU).Released += open
			h.s.move(l.SKU, 0, 0, -open, 0)
		}
	}
	if rest := o.Payment.Authorized - o.Payment.Captured; rest > 0 {
		h.pay("void", "void", rest)
	}
	h.settle()
	if o.State == "confirmed" {
		o.State = "canceled"
		for i := range h.s.holds {
			for k := range h.s.holds[i] {
				if h.s.holds[i][k].ID == h.id {
					h.s.holds[i][k].State = "released"
				}
			}
		}
	}
	return h
}

// scan pages over rows as the cluster does.
func scan[T any](s *shop, what string, table *[]T, limit int, isAfter func(*T) bool) ([]T, bool, error) {
	s.mu.Lock() // shards are read side by side
	defer s.mu.Unlock()
	if s.onScan != nil {
		s.onScan(what)
	}
	if s.fail != nil {
		return nil, false, s.fail
	}
	i := slices.IndexFunc(*table, func(r T) bool { return isAfter(&r) })
	if i < 0 {
		return nil, false, nil
	}
	rows := (*table)[i:]
	return slices.Clone(rows[:min(limit, len(rows))]), len(rows) > limit, nil
}

func (s *shop) Shards(context.Context) (*client.Shards, error) {
	return &client.Shards{
		Shards: []client.Shard{{ID: "order/0", Applied: 17}},
		Counts: map[string]int{"order": orderShards, "inventory": inventoryShards, "payment": paymentShards},
	}, nil
}

func (s *shop) ScanOrders(_ context.Context, shard int, after string, limit int) ([]Order, bool, error) {
	return scan(s, "orders", &s.orders[shard], limit, func(o *Order) bool { return o.Stored.ID > after })
}

func (s *shop) ScanItems(_ context.Context, shard int, afterSKU, _ string, limit int) ([]client.Location, bool, error) {
	return scan(s, "items", &s.items[shard], limit, func(l *client.Location) bool { return l.SKU > afterSKU })
}

func (s *shop) ScanHolds(_ context.Context, shard int, after string, limit int) ([]client.Hold, bool, error) {
	return scan(s, "holds", &s.holds[shard], limit, func(h *client.Hold) bool { return h.ID > after })
}

func (s *shop) ScanMovements(_ context.Context, shard int, after uint64, limit int) ([]client.Movement, bool, error) {
	return scan(s, "movements", &s.movements[shard], limit, func(m *client.Movement) bool { return m.Seq > after })
}

func (s *shop) Payments(_ context.Context, shard int, after string, limit int, _ bool) ([]client.Payment, bool, error) {
	return scan(s, "payments", &s.payments[shard], limit, func(p *client.Payment) bool { return p.ID > after })
}

func (s *shop) ledger(_ context.Context, after uint64, fn func(Charge)) error {
	for _, c := range s.charges {
		if c.Seq > after {
			fn(c)
		}
	}
	return nil
}

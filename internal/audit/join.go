package audit

import (
	"context"
	"fmt"
	"strings"

	"hanse/client"
	"hanse/internal/id"
)

// suffixLength is that of the part which an order's ID and its payment's have in common.
const suffixLength = 26

// group is what the services know of one order. A reservation without an order is a group of one hold.
type group struct {
	id      string // the order's, or the hold's
	order   *Order
	holds   []client.Hold // one for each inventory shard at most
	payment *client.Payment
}

// cursor reads one shard's rows in the order of their IDs, a page ahead of its reader.
type cursor[T any] struct {
	name  string
	key   func(*T) string
	pages <-chan page[T]
	rows  []T
	last  string
	done  bool
}

type page[T any] struct {
	rows []T
	err  error
}

// read starts a cursor. Its goroutine ends with the rows, or with ctx.
func read[T any](ctx context.Context, name string, key func(*T) string, id func(*T) string, scan func(ctx context.Context, after string) ([]T, bool, error)) *cursor[T] {
	pages := make(chan page[T], 1)
	go func() {
		defer close(pages)
		for after, more := "", true; more; {
			rows, next, err := scan(ctx, after)
			select {
			case pages <- page[T]{rows, err}:
			case <-ctx.Done():
				return
			}
			if more = err == nil && next && len(rows) > 0; more {
				after = id(&rows[len(rows)-1])
			}
		}
	}()
	return &cursor[T]{name: name, key: key, pages: pages}
}

// peek returns the next row, nil at the end.
func (c *cursor[T]) peek(ctx context.Context) (*T, error) {
	for len(c.rows) == 0 && !c.done {
		p, ok := <-c.pages
		switch {
		case !ok:
			c.done = true
			if err := ctx.Err(); err != nil {
				return nil, err
			}
		case p.err != nil:
			return nil, fmt.Errorf("%s: %w", c.name, p.err)
		default:
			c.rows = p.rows
		}
	}
	if c.done {
		return nil, nil
	}
	return &c.rows[0], nil
}

// take removes the next row and reports whether it is in order.
func (c *cursor[T]) take() (row *T, sorted bool) {
	row = &c.rows[0]
	c.rows = c.rows[1:]
	key := c.key(row)
	sorted = c.last < key
	c.last = key
	return row, sorted
}

// joined reads all orders, holds and payments side by side.
type joined struct {
	a        *auditor
	orders   []*cursor[Order]
	holds    []*cursor[client.Hold]
	payments []*cursor[client.Payment]
}

func (a *auditor) join(ctx context.Context) *joined {
	j := &joined{a: a}
	for i := range a.counts["order"] {
		key := func(o *Order) string { return o.Stored.ID }
		j.orders = append(j.orders, read(ctx, fmt.Sprintf("orders of order/%d", i), key, key, func(ctx context.Context, after string) ([]Order, bool, error) {
			return a.source.ScanOrders(ctx, i, after, pageRows)
		}))
	}
	for i := range a.counts["inventory"] {
		key := func(h *client.Hold) string { return h.ID }
		j.holds = append(j.holds, read(ctx, fmt.Sprintf("holds of inventory/%d", i), key, key, func(ctx context.Context, after string) ([]client.Hold, bool, error) {
			return a.source.ScanHolds(ctx, i, after, pageRows)
		}))
	}
	for i := range a.counts["payment"] {
		j.payments = append(j.payments, read(ctx, fmt.Sprintf("payments of payment/%d", i), orderOf, func(p *client.Payment) string { return p.ID },
			func(ctx context.Context, after string) ([]client.Payment, bool, error) {
				return a.source.Payments(ctx, i, after, pageRows, false)
			}))
	}
	return j
}

// orderOf returns the order's ID of a payment's, which sorts like it.
func orderOf(p *client.Payment) string {
	if suffix, ok := strings.CutPrefix(p.ID, id.Payment+"_"); ok {
		return id.Order + "_" + suffix
	}
	return p.ID
}

// next returns the group with the lowest ID, nil at the end.
func (j *joined) next(ctx context.Context) (*group, error) {
	lowest := ""
	if err := first(ctx, j.orders, &lowest); err != nil {
		return nil, err
	}
	if err := first(ctx, j.holds, &lowest); err != nil {
		return nil, err
	}
	if err := first(ctx, j.payments, &lowest); err != nil {
		return nil, err
	}
	if lowest == "" {
		return nil, nil
	}
	g := &group{id: lowest}
	gather(j.a, j.orders, lowest, func(o *Order) { g.order = o })
	gather(j.a, j.holds, lowest, func(h *client.Hold) { g.holds = append(g.holds, *h) })
	gather(j.a, j.payments, lowest, func(p *client.Payment) { g.payment = p })
	return g, nil
}

// first lowers key to the lowest that the cursors stand at.
func first[T any](ctx context.Context, cursors []*cursor[T], key *string) error {
	for _, c := range cursors {
		row, err := c.peek(ctx)
		if err != nil {
			return err
		}
		if row == nil {
			continue
		}
		if k := c.key(row); *key == "" || k < *key {
			*key = k
		}
	}
	return nil
}

// gather takes the rows with a key. Each has been peeked at.
func gather[T any](a *auditor, cursors []*cursor[T], key string, fn func(*T)) {
	for _, c := range cursors {
		if c.done || c.key(&c.rows[0]) != key {
			continue
		}
		row, sorted := c.take()
		if !sorted {
			a.differ(OutOfOrder, key, "rows in the order of their IDs", "another one in "+c.name)
		}
		fn(row)
	}
}

// find reads one order's group anew. The first rows after an ID that lacks its last character begin with that ID.
func (a *auditor) find(ctx context.Context, orderID string) (*group, error) {
	g := &group{id: orderID}
	for i := range a.counts["order"] {
		rows, _, err := a.source.ScanOrders(ctx, i, before(orderID), 1)
		if err != nil {
			return nil, fmt.Errorf("order %s: %w", orderID, err)
		}
		if len(rows) > 0 && rows[0].Stored.ID == orderID {
			g.order = &rows[0]
		}
	}
	for i := range a.counts["inventory"] {
		rows, _, err := a.source.ScanHolds(ctx, i, before(orderID), 1)
		if err != nil {
			return nil, fmt.Errorf("holds of order %s: %w", orderID, err)
		}
		if len(rows) > 0 && rows[0].ID == orderID {
			g.holds = append(g.holds, rows[0])
		}
	}
	paymentID := id.Sibling(id.Payment, orderID)
	for i := range a.counts["payment"] {
		rows, _, err := a.source.Payments(ctx, i, before(paymentID), 1, false)
		if err != nil {
			return nil, fmt.Errorf("payment %s: %w", paymentID, err)
		}
		if len(rows) > 0 && rows[0].ID == paymentID {
			g.payment = &rows[0]
		}
	}
	return g, nil
}

// before returns the position right in front of an ID. It ends in a character below all that IDs are made of.
func before(s string) string {
	if s == "" {
		return ""
	}
	last := s[len(s)-1]
	return s[:len(s)-1] + string(rune(last-1)) + "~"
}

package audit

import (
	"context"
	"fmt"
	"slices"

	"hanse/client"
)

// place is a SKU at a location.
type place struct{ sku, location string }

func (p place) String() string { return p.sku + " at " + p.location }

// counters are the stock at a place as the books have it.
type counters struct{ onHand, reserved, allocated, unavailable int64 }

func (c counters) String() string {
	return fmt.Sprintf("on hand %d, reserved %d, allocated %d, unavailable %d", c.onHand, c.reserved, c.allocated, c.unavailable)
}

// stock sums up what moved each place. Everything that changes a counter gives its item another revision. So what is read
// between two looks at the item that show the same revision belongs together, however long it took.
type stock struct {
	sums map[place]*counters
	// revisions are those before anything else was read.
	revisions map[place]uint64
	// unsettled places have a return that has not arrived in the stock yet.
	unsettled map[place]bool
	seen      map[place]bool
	moving    int
}

func newStock() *stock {
	return &stock{
		sums: make(map[place]*counters), revisions: make(map[place]uint64), unsettled: make(map[place]bool), seen: make(map[place]bool),
	}
}

func (s *stock) at(p place) *counters {
	c := s.sums[p]
	if c == nil {
		c = new(counters)
		s.sums[p] = c
	}
	return c
}

func (s *stock) before(item *client.Location) {
	s.revisions[place{item.SKU, item.Location}] = item.Revision
}

// add takes what an order's holds, or a reservation, have moved.
func (s *stock) add(g *group) {
	for i := range g.holds {
		h := &g.holds[i]
		for _, l := range h.Lines {
			c := s.at(place{l.SKU, h.Location})
			c.onHand += l.Restocked - l.Fulfilled
			switch rest := l.Quantity - l.Fulfilled - l.Released; h.State {
			case "held", "tentative":
				c.reserved += rest
			case "allocated":
				c.allocated += rest
			}
		}
	}
	if g.order == nil {
		return
	}
	// A hold does not tell the damaged of what came back: the order's returns do.
	o := &g.order.Stored
	if !slices.ContainsFunc(o.Returns, func(r client.Return) bool { return r.Disposition == "damaged" }) {
		return
	}
	kept := g.kept()
	for sku, want := range wanted(o) {
		if want.damaged == 0 {
			continue
		}
		p := place{sku, o.Location}
		switch k, ok := kept[sku]; {
		case ok && k.quantity == 0: // it was not tracked: nothing was counted
		case !ok || k.restocked != want.restocked:
			s.unsettled[p] = true
		default:
			s.at(p).unavailable += want.damaged
		}
	}
}

// compare holds an item to its sums, if it has rested.
func (s *stock) compare(a *auditor, item *client.Location) {
	p := place{item.SKU, item.Location}
	s.seen[p] = true
	if a.rested[p] {
		return
	}
	if before, ok := s.revisions[p]; !ok || before != item.Revision || s.unsettled[p] {
		s.moving++
		return
	}
	a.rested[p] = true
	expected := counters{}
	if c := s.sums[p]; c != nil {
		expected = *c
	}
	if found := (counters{item.OnHand, item.Reserved, item.Allocated, item.Unavailable}); found != expected {
		a.differ(StockDiffers, p.String(), expected, found)
	} else if free := item.OnHand - item.Reserved - item.Allocated - item.Unavailable; free < 0 || free != item.Available {
		a.differ(StockDiffers, p.String(), fmt.Sprintf("available %d, and not below zero", free), fmt.Sprintf("available %d", item.Available))
	}
}

// finish reports what moved at places that no shard knows.
func (s *stock) finish(a *auditor) {
	a.report.SKUs, a.report.Moving = len(s.seen), s.moving
	for p, c := range s.sums {
		if !s.seen[p] && !a.rested[p] && *c != (counters{}) {
			a.rested[p] = true
			a.differ(StockDiffers, p.String(), c, "nothing")
		}
	}
}

func (a *auditor) items(ctx context.Context, fn func(*client.Location)) error {
	for shard := range a.counts["inventory"] {
		sku, location := "", ""
		for more := true; more; {
			page, next, err := a.source.ScanItems(ctx, shard, sku, location, pageRows)
			if err != nil {
				return fmt.Errorf("items of inventory/%d: %w", shard, err)
			}
			for i := range page {
				sku, location = page[i].SKU, page[i].Location
				fn(&page[i])
			}
			more = next && len(page) > 0
		}
	}
	return nil
}

// movements sums up receipts and adjustments. Their numbers have no gaps.
func (a *auditor) movements(ctx context.Context, s *stock) error {
	for shard := range a.counts["inventory"] {
		for after, more := uint64(0), true; more; {
			page, next, err := a.source.ScanMovements(ctx, shard, after, pageRows)
			if err != nil {
				return fmt.Errorf("movements of inventory/%d: %w", shard, err)
			}
			for _, m := range page {
				if m.Seq != after+1 {
					a.gap(fmt.Sprintf("inventory/%d", shard), after+1, m.Seq)
				}
				after = m.Seq
				s.at(place{m.SKU, m.Location}).onHand += m.Quantity
			}
			more = next && len(page) > 0
		}
	}
	return nil
}

// gap reports a gap once, however often it is passed.
func (a *auditor) gap(shard string, expected, found uint64) {
	d := Difference{MovementGap, shard, fmt.Sprintf("number %d", expected), fmt.Sprintf("number %d", found)}
	if !slices.Contains(a.report.Differences, d) {
		a.report.Differences = append(a.report.Differences, d)
	}
}

package replay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeShop is a shop in memory that keeps Hanse's promises about keys.
type fakeShop struct {
	mu       sync.Mutex
	stock    map[string]int64
	orders   map[string]*fakeOrder // by ID
	seen     map[string]string     // idempotency key → order ID or content
	inFlight map[string]int        // by customer
	busiest  int                   // customers at once
	refuse   map[string]bool       // invoices
	fail     map[string]error      // by invoice
	onPlace  func(n int)
}

type fakeOrder struct {
	lines    []Line
	shipped  bool
	returned []int64
	refunds  int64
}

func newFakeShop() *fakeShop {
	return &fakeShop{
		stock: make(map[string]int64), orders: make(map[string]*fakeOrder), seen: make(map[string]string),
		inFlight: make(map[string]int), refuse: make(map[string]bool), fail: make(map[string]error),
	}
}

// once reports whether a key is new, and panics when it comes back with other content.
func (s *fakeShop) once(key, content string) bool {
	if old, ok := s.seen[key]; ok {
		if old != content {
			panic(fmt.Sprintf("key %s stood for %s, now for %s", key, old, content))
		}
		return false
	}
	s.seen[key] = content
	return true
}

func (s *fakeShop) Receive(_ context.Context, r Receipt) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.once(r.Key, fmt.Sprint(r.SKU, r.Quantity)) {
		s.stock[r.SKU] += r.Quantity
	}
	return nil
}

func (s *fakeShop) Adjust(_ context.Context, a *Adjustment) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.once(a.Key, fmt.Sprint(a.SKU, a.Quantity)) {
		return nil
	}
	if s.stock[a.SKU]+a.Quantity < 0 {
		return &Refusal{Code: "stock_negative", Detail: a.SKU}
	}
	s.stock[a.SKU] += a.Quantity
	return nil
}

func (s *fakeShop) Place(ctx context.Context, o *Order) (Placed, error) {
	s.mu.Lock()
	if o.Customer != "" {
		if s.inFlight[o.Customer]++; s.inFlight[o.Customer] > 1 {
			panic("two actions of customer " + o.Customer + " at once")
		}
		s.busiest = max(s.busiest, len(s.inFlight))
	}
	s.mu.Unlock()
	time.Sleep(10 * time.Millisecond) // of a test's virtual time
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.Customer != "" {
		delete(s.inFlight, o.Customer)
	}
	if err := ctx.Err(); err != nil {
		return Placed{}, err
	}
	if err := s.fail[o.Invoice]; err != nil {
		return Placed{}, err
	}
	if s.refuse[o.Invoice] {
		return Placed{}, &Refusal{Code: "payment_declined", Detail: "no"}
	}
	id := "ord_" + o.Invoice
	fresh := s.once(o.Key, id)
	if fresh {
		for _, l := range o.Lines {
			if l.Untracked {
				continue
			}
			if s.stock[l.SKU] -= l.Quantity; s.stock[l.SKU] < 0 {
				panic("oversold " + l.SKU)
			}
		}
		s.orders[id] = &fakeOrder{lines: o.Lines, returned: make([]int64, len(o.Lines))}
		if s.onPlace != nil {
			s.onPlace(len(s.orders))
		}
	}
	p := Placed{ID: id, Lines: len(o.Lines), Total: o.Total, Replayed: !fresh}
	for _, l := range o.Lines {
		p.Units += l.Quantity
	}
	return p, nil
}

func (s *fakeShop) Ship(_ context.Context, key, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.once(key, id) {
		s.orders[id].shipped = true
	}
	return nil
}

func (s *fakeShop) Return(_ context.Context, key, id string, items []ReturnItem, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.once(key, fmt.Sprint(id, items)) {
		return nil
	}
	o := s.orders[id]
	if !o.shipped {
		return &Refusal{Code: "return_exceeds_fulfilled", Detail: id}
	}
	for _, it := range items {
		o.returned[it.Line-1] += it.Quantity
		if o.returned[it.Line-1] > o.lines[it.Line-1].Quantity {
			panic("returned too much of " + id)
		}
		o.refunds += it.Quantity * o.lines[it.Line-1].Price
	}
	return nil
}

func (s *fakeShop) Booked(_ context.Context, id string) (b Booked, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.orders[id].returned {
		b.Returned += n
	}
	b.Refunds = s.orders[id].refunds
	return b, nil
}

func syntheticPlan(t *testing.T, orders int) *Plan {
	t.Helper()
	return mustPlan(t, slices.Collect(ok(Synthetic(11, orders))), Options{})
}

// checkTruth compares a finished replay with its plan.
func checkTruth(t *testing.T, r *Result, p *Plan) {
	t.Helper()
	got := Truth{
		Orders: r.Orders, Guests: p.Truth.Guests, Lines: r.Lines, Units: r.Units, Amount: r.Amount,
		Adjustments: r.Adjustments, AdjustedUnits: r.AdjustedUnits, ReturnsBooked: r.ReturnsBooked, ReturnedUnits: r.ReturnedUnits,
		Refunded: r.Refunded, ReturnedOrders: p.Truth.ReturnedOrders, Rejected: r.ReturnsRejected, Skipped: p.Truth.Skipped,
	}
	if got != p.Truth {
		t.Errorf("the replay came to\n%+v, the plan to\n%+v", got, p.Truth)
	}
}

func TestDriveDoesThePlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, shop, progress := syntheticPlan(t, 600), newFakeShop(), new(Progress)
		r, err := Drive(t.Context(), shop, p, Config{Workers: 32}, progress)
		if err != nil {
			t.Fatal(err)
		}
		checkTruth(t, r, p)
		if shop.busiest < 16 {
			t.Errorf("at most %d customers at once, want many", shop.busiest)
		}
		if got := progress.Orders.Load(); got != int64(p.Truth.Orders) {
			t.Errorf("progress shows %d orders, want %d", got, p.Truth.Orders)
		}
		if len(r.Latency) != p.Truth.Orders || r.Percentile(0.5) != 10*time.Millisecond || r.Percentile(1) != 10*time.Millisecond {
			t.Errorf("latency of %d orders: p50 %v, max %v; want %d orders at 10ms", len(r.Latency), r.Percentile(0.5), r.Percentile(1), p.Truth.Orders)
		}
		if r.Took < 10*time.Millisecond*time.Duration(p.Truth.Orders)/32 {
			t.Errorf("took %v: faster than 32 workers can be", r.Took)
		}

		// A second run books nothing twice and comes to the same.
		again, err := Drive(t.Context(), shop, p, Config{Workers: 32}, new(Progress))
		if err != nil {
			t.Fatal(err)
		}
		checkTruth(t, again, p)
		if again.Replayed != p.Truth.Orders || len(again.Latency) != 0 {
			t.Errorf("the second run: %d replayed and %d measured, want %d and 0", again.Replayed, len(again.Latency), p.Truth.Orders)
		}
	})
}

func TestDriveGoesOnAfterAnInterruption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, shop := syntheticPlan(t, 300), newFakeShop()
		ctx, cancel := context.WithCancel(t.Context())
		shop.onPlace = func(n int) {
			if n == 100 {
				cancel()
			}
		}
		r, err := Drive(ctx, shop, p, Config{Workers: 8}, new(Progress))
		if !errors.Is(err, context.Canceled) || r.Orders < 50 || r.Orders >= 300 {
			t.Fatalf("interrupted: %v after %d orders, want a cancellation about the hundredth", err, r.Orders)
		}
		r, err = Drive(t.Context(), shop, p, Config{Workers: 8}, new(Progress))
		if err != nil {
			t.Fatal(err)
		}
		checkTruth(t, r, p)
		if r.Replayed < 50 {
			t.Errorf("%d orders were there already, want at least 50", r.Replayed)
		}
	})
}

func TestDriveCountsRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := PlanRows(ReadFile("testdata/shop.csv"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		shop := newFakeShop()
		shop.refuse["100009"] = true
		r, err := Drive(t.Context(), shop, p, DefaultConfig(), new(Progress))
		if err != nil {
			t.Fatal(err)
		}
		// C100010's first line spans the refused order and another: it is not booked whole.
		if r.Orders != 4 || r.RejectedOrders != 1 || r.ReturnsBooked != 2 || r.ReturnsRejected != 4 {
			t.Errorf("%d orders, %d rejected, %d returns, %d rejected; want 4, 1, 2, 4", r.Orders, r.RejectedOrders, r.ReturnsBooked, r.ReturnsRejected)
		}
		if got := r.Refusals["payment_declined"]; got.Count != 1 || got.Example != "place invoice 100009: no" {
			t.Errorf("refusals: %+v", r.Refusals)
		}
	})
}

func TestDriveStopsAtAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, shop := syntheticPlan(t, 100), newFakeShop()
		shop.fail["100050"] = errors.New("no node answers")
		for i := range 20 { // whichever of these numbers is an order
			shop.fail[fmt.Sprint(100_050+i)] = errors.New("no node answers")
		}
		_, err := Drive(t.Context(), shop, p, Config{Workers: 4}, new(Progress))
		if err == nil || !strings.Contains(err.Error(), "no node answers") || !strings.Contains(err.Error(), "place invoice 1000") {
			t.Errorf("Drive: %v, want what failed and why", err)
		}
		if _, err := Drive(t.Context(), shop, p, Config{}, new(Progress)); err == nil {
			t.Error("Drive without workers succeeded")
		}
	})
}

// liar is a shop that loses a penny of each order.
type liar struct{ *fakeShop }

func (l liar) Place(ctx context.Context, o *Order) (Placed, error) {
	p, err := l.fakeShop.Place(ctx, o)
	p.Total--
	return p, err
}

func TestDriveNoticesAnotherTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := Drive(t.Context(), liar{newFakeShop()}, syntheticPlan(t, 3), DefaultConfig(), new(Progress))
		if err == nil || !strings.Contains(err.Error(), "pence in the file") {
			t.Errorf("Drive: %v, want a complaint about the total", err)
		}
	})
}

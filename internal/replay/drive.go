package replay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Shop is where a plan is carried out. Its methods return a [*Refusal] when the shop says no for good; any other error
// ends the replay. They retry by themselves, under the key given, what may be retried.
type Shop interface {
	Receive(ctx context.Context, r Receipt) error
	Adjust(ctx context.Context, a *Adjustment) error
	// Place answers when the order has an outcome: confirmed, or a Refusal.
	Place(ctx context.Context, o *Order) (Placed, error)
	// Ship fulfills everything of an order.
	Ship(ctx context.Context, key, orderID string) error
	// Return takes items back and refunds them.
	Return(ctx context.Context, key, orderID string, items []ReturnItem, reason string) error
	// Booked reads what the shop has come to know of an order.
	Booked(ctx context.Context, orderID string) (Booked, error)
}

// Placed is a confirmed order as the shop answered it.
type Placed struct {
	ID    string
	Lines int
	Units int64
	Total int64 // minor units
	// Replayed says that an earlier run had placed the order, under the same key.
	Replayed bool
}

// Booked is what came back of an order.
type Booked struct {
	Returned int64 // units
	Refunds  int64 // minor units, requested or done
}

// Refusal is a shop's final no.
type Refusal struct {
	Code, Detail string
}

func (r *Refusal) Error() string { return r.Code + ": " + r.Detail }

// Progress counts what is done while Drive runs; all fields may be read at any time.
type Progress struct {
	Receipts, Orders, Lines, Units, Amount atomic.Int64
	Returns, Adjustments                   atomic.Int64
	// Replayed counts orders that had been placed by an earlier run.
	Replayed atomic.Int64
	// Refused counts refusals of any kind.
	Refused atomic.Int64
}

// Result is what a replay came to.
type Result struct {
	Orders, Lines   int
	Units, Amount   int64
	ReturnsBooked   int
	ReturnsRejected int // by the plan or by the shop
	Refunded        int64
	ReturnedUnits   int64
	Adjustments     int
	AdjustedUnits   int64
	RejectedOrders  int
	Replayed        int
	// Receiving is how long the receipts took; Took is the time from the first order to the last action.
	Receiving, Took time.Duration
	// Latency of each order placed in this run, from the request to the confirmed answer, ascending.
	Latency []time.Duration
	// Refusals of the shop by code, with an example each.
	Refusals map[string]Refused
}

// Refused counts the refusals of one code.
type Refused struct {
	Count   int
	Example string
}

// Percentile returns the latency below which the fraction q of the orders lies; 0 without orders.
func (r *Result) Percentile(q float64) time.Duration {
	if len(r.Latency) == 0 {
		return 0
	}
	return r.Latency[min(len(r.Latency)-1, int(q*float64(len(r.Latency))))]
}

// Config says how a plan is driven.
type Config struct {
	// Workers is the number of lanes worked on at once, and of receipts in flight. Default 64: enough to keep three
	// nodes busy, few enough that latency is not all waiting.
	Workers int
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{Workers: 64} }

// Drive carries the plan out and returns when all is done, at the first error, or when ctx ends; the result is of what was
// done until then. Driving the same plan again goes on where it stopped: what was booked answers again
// under its key.
func Drive(ctx context.Context, shop Shop, plan *Plan, cfg Config, progress *Progress) (*Result, error) {
	d := &driver{shop: shop, progress: progress}
	d.result.Refusals = make(map[string]Refused)
	d.result.ReturnsRejected = len(plan.Refused)
	start := time.Now()
	err := inParallel(ctx, cfg.Workers, plan.Receipts, d.receive)
	d.result.Receiving = time.Since(start)
	if err == nil {
		start = time.Now()
		err = inParallel(ctx, cfg.Workers, plan.Lanes, d.lane)
		d.result.Took = time.Since(start)
	}
	slices.Sort(d.result.Latency)
	return &d.result, err
}

// inParallel calls fn for every item, in order of their starts, at most n at once.
func inParallel[T any](ctx context.Context, n int, items []T, fn func(context.Context, T) error) error {
	if n < 1 {
		return fmt.Errorf("%d workers: want at least 1", n)
	}
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(n, len(items)) {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(items) {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := fn(ctx, items[i]); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

type driver struct {
	shop     Shop
	progress *Progress

	mu     sync.Mutex
	result Result
}

// refused notes a shop's refusal and reports whether err is one.
func (d *driver) refused(what string, err error) bool {
	r, ok := errors.AsType[*Refusal](err)
	if !ok {
		return false
	}
	d.progress.Refused.Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.result.Refusals[r.Code]
	if n.Count++; n.Count == 1 {
		n.Example = what + ": " + r.Detail
	}
	d.result.Refusals[r.Code] = n
	return true
}

func (d *driver) receive(ctx context.Context, r Receipt) error {
	if err := d.shop.Receive(ctx, r); err != nil && !d.refused("receive "+r.SKU, err) {
		return fmt.Errorf("receive %d of %s: %w", r.Quantity, r.SKU, err)
	}
	d.progress.Receipts.Add(1)
	return nil
}

// lane does one lane's actions, one after the other.
func (d *driver) lane(ctx context.Context, lane *Lane) error {
	ids := make(map[*Order]string) // of the confirmed ones
	var returned []*Order
	for _, a := range lane.Actions {
		var err error
		switch {
		case a.Order != nil:
			err = d.order(ctx, a.Order, ids)
		case a.Adjust != nil:
			err = d.adjust(ctx, a.Adjust)
		case a.Return != nil:
			err = d.takeBack(ctx, a.Return, ids)
			for _, part := range a.Return.Parts {
				if ids[part.Order] != "" && !slices.Contains(returned, part.Order) {
					returned = append(returned, part.Order)
				}
			}
		}
		if err != nil {
			return err
		}
	}
	// What was refunded is the shop's word, not ours: it is read back once the lane is done.
	for _, o := range returned {
		b, err := d.shop.Booked(ctx, ids[o])
		if err != nil {
			return fmt.Errorf("read the returns of order %s (invoice %s): %w", ids[o], o.Invoice, err)
		}
		d.mu.Lock()
		d.result.Refunded += b.Refunds
		d.result.ReturnedUnits += b.Returned
		d.mu.Unlock()
	}
	return nil
}

func (d *driver) order(ctx context.Context, o *Order, ids map[*Order]string) error {
	start := time.Now()
	placed, err := d.shop.Place(ctx, o)
	took := time.Since(start)
	if err != nil {
		if !d.refused("place invoice "+o.Invoice, err) {
			return fmt.Errorf("place invoice %s: %w", o.Invoice, err)
		}
		d.mu.Lock()
		d.result.RejectedOrders++
		d.mu.Unlock()
		return nil
	}
	if placed.Total != o.Total || placed.Lines != len(o.Lines) {
		return fmt.Errorf("invoice %s: %d lines and %d pence in the file, but order %s has %d lines and %d",
			o.Invoice, len(o.Lines), o.Total, placed.ID, placed.Lines, placed.Total)
	}
	d.mu.Lock()
	d.result.Orders++
	d.result.Lines += placed.Lines
	d.result.Units += placed.Units
	d.result.Amount += placed.Total
	if placed.Replayed {
		d.result.Replayed++
	} else {
		d.result.Latency = append(d.result.Latency, took)
	}
	d.mu.Unlock()
	d.progress.Orders.Add(1)
	d.progress.Lines.Add(int64(placed.Lines))
	d.progress.Units.Add(placed.Units)
	d.progress.Amount.Add(placed.Total)
	if placed.Replayed {
		d.progress.Replayed.Add(1)
	}
	if err := d.shop.Ship(ctx, o.ShipKey, placed.ID); err != nil && !d.refused("ship invoice "+o.Invoice, err) {
		return fmt.Errorf("ship invoice %s (order %s): %w", o.Invoice, placed.ID, err)
	}
	ids[o] = placed.ID
	return nil
}

func (d *driver) adjust(ctx context.Context, a *Adjustment) error {
	if err := d.shop.Adjust(ctx, a); err != nil {
		if d.refused("adjust "+a.SKU, err) {
			return nil
		}
		return fmt.Errorf("adjust %s by %d: %w", a.SKU, a.Quantity, err)
	}
	d.mu.Lock()
	d.result.Adjustments++
	d.result.AdjustedUnits += a.Quantity
	d.mu.Unlock()
	d.progress.Adjustments.Add(1)
	return nil
}

func (d *driver) takeBack(ctx context.Context, r *Return, ids map[*Order]string) error {
	booked := true
	for _, part := range r.Parts {
		id := ids[part.Order]
		if id == "" { // the order was refused
			booked = false
			continue
		}
		if err := d.shop.Return(ctx, part.Key, id, part.Items, "return "+r.Invoice); err != nil {
			if !d.refused("return "+r.Invoice, err) {
				return fmt.Errorf("return %s on order %s (invoice %s): %w", r.Invoice, id, part.Order.Invoice, err)
			}
			booked = false
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if booked {
		d.result.ReturnsBooked++
		d.progress.Returns.Add(1)
	} else {
		d.result.ReturnsRejected++
	}
	return nil
}

package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Client places one order after the other at a system. Each client is used by one goroutine.
type Client interface {
	// Order places an order of one unit of each SKU and returns when it is confirmed, durably. A
	// [*Refusal] is the system's final no; any other error says nothing about the order.
	Order(ctx context.Context, skus []int) error
}

// Refusal is a system's final no.
type Refusal struct{ Code string }

func (r *Refusal) Error() string { return "refused: " + r.Code }

// Load says what is asked for.
type Load struct {
	Workload Workload
	// SKUs is how many there are, default 10,000; Lines how many an order has, default 3.
	SKUs, Lines int
	// Warmup is how long orders are placed before they are measured, default 2 s: connections, caches and
	// the first growth of files are not what is asked about. Duration is how long they are measured after that. Default 10 s.
	Warmup, Duration time.Duration
	// Seed makes the baskets repeatable.
	Seed uint64
}

// DefaultLoad returns the defaults.
func DefaultLoad() Load {
	return Load{Workload: Uniform, SKUs: 10_000, Lines: 3, Warmup: 2 * time.Second, Duration: 10 * time.Second, Seed: 1}
}

// Validate reports all values that cannot work.
func (l Load) Validate() error {
	_, err := ParseWorkload(string(l.Workload))
	errs := []error{err}
	if l.Lines < 1 || l.SKUs < 2*l.Lines {
		errs = append(errs, fmt.Errorf("%d lines of %d SKUs: want at least one line and twice as many SKUs as lines", l.Lines, l.SKUs))
	}
	if l.Warmup < 0 || l.Duration <= 0 {
		errs = append(errs, fmt.Errorf("%v after a warm-up of %v: want a duration above zero", l.Duration, l.Warmup))
	}
	return errors.Join(errs...)
}

// Result is what a run came to. Orders, Refused and Latency are of the measured time; Errors, Confirmed and Unknown are of the
// whole run, warm-up included, for they are compared with the stock.
type Result struct {
	Orders, Refused, Errors int64
	Took                    time.Duration
	Latency                 Histogram
	// Confirmed counts the units of confirmed orders by SKU; Unknown those of orders without an answer.
	Confirmed, Unknown []int64
	// FirstError is an example of Errors.
	FirstError error
}

// PerSecond returns the confirmed orders per second.
func (r *Result) PerSecond() float64 { return float64(r.Orders) / max(r.Took.Seconds(), 1e-9) }

// errorPause keeps a client that only fails from spinning.
const errorPause = 20 * time.Millisecond

// Run drives every client in its own goroutine and returns when the time is over and all have their last answer, or when ctx ends.
func Run(ctx context.Context, load Load, clients []Client) (*Result, error) {
	if err := load.Validate(); err != nil {
		return nil, err
	}
	result := &Result{Confirmed: make([]int64, load.SKUs), Unknown: make([]int64, load.SKUs)}
	var mu sync.Mutex // guards the result's sums and example
	begin := time.Now().Add(load.Warmup)
	end := begin.Add(load.Duration)
	var wait sync.WaitGroup
	for i, client := range clients {
		baskets := load.Workload.Baskets(load.SKUs, load.Lines, load.Seed+uint64(i)*0x9e3779b97f4a7c15)
		wait.Go(func() {
			var latency Histogram
			var orders, refused, failed int64
			var example error
			for ctx.Err() == nil {
				start := time.Now()
				if start.After(end) {
					break
				}
				basket := baskets.Next()
				err := client.Order(ctx, basket)
				now := time.Now()
				// An order counts where it ends: a system that is slow to confirm gets no credit for what it has begun.
				measured := now.After(begin) && !now.After(end)
				counters := result.Confirmed
				switch _, isRefusal := errors.AsType[*Refusal](err); {
				case err == nil:
					if measured {
						orders++
						latency.Record(now.Sub(start))
					}
				case isRefusal:
					counters = nil
					if measured {
						refused++
					}
				default:
					counters = result.Unknown
					if ctx.Err() == nil {
						failed++
						example = err
						pause(ctx, errorPause)
					}
				}
				if counters != nil {
					for _, sku := range basket {
						atomic.AddInt64(&counters[sku], 1)
					}
				}
			}
			mu.Lock()
			defer mu.Unlock()
			result.Latency.Merge(&latency)
			result.Orders += orders
			result.Refused += refused
			result.Errors += failed
			if result.FirstError == nil {
				result.FirstError = example
			}
		})
	}
	wait.Wait()
	result.Took = max(0, min(time.Since(begin), load.Duration))
	return result, ctx.Err()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

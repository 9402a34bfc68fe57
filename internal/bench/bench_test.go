package bench

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestBaskets(t *testing.T) {
	const skus, lines, orders = 1000, 3, 20_000
	for _, test := range []struct {
		workload Workload
		lo, hi   float64 // share of orders with SKU 0
	}{
		{Uniform, 0.001, 0.006},
		{Zipf, 0.35, 0.60},
		{Hot, 1, 1},
	} {
		b, again := test.workload.Baskets(skus, lines, 7), test.workload.Baskets(skus, lines, 7)
		first := 0
		for range orders {
			basket := b.Next()
			if !slices.Equal(basket, again.Next()) {
				t.Fatalf("%s: the same seed gives other baskets", test.workload)
			}
			if len(basket) != lines || !slices.IsSorted(basket) || basket[0] == basket[1] || basket[1] == basket[2] || basket[0] < 0 || basket[2] >= skus {
				t.Fatalf("%s: basket %v, want %d different SKUs below %d, ascending", test.workload, basket, lines, skus)
			}
			if basket[0] == 0 {
				first++
			}
		}
		if share := float64(first) / orders; share < test.lo || share > test.hi {
			t.Errorf("%s: SKU 0 is in %.3f of the orders, want %v to %v", test.workload, share, test.lo, test.hi)
		}
	}
	if _, err := ParseWorkload("cold"); err == nil {
		t.Error("ParseWorkload(cold) accepts an unknown workload")
	}
}

func TestHistogram(t *testing.T) {
	var h, other Histogram
	if h.Quantile(0.5) != 0 {
		t.Errorf("Quantile of nothing = %v, want 0", h.Quantile(0.5))
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var all []time.Duration
	for i := range 50_000 {
		d := time.Duration(rng.ExpFloat64() * float64(time.Millisecond))
		all = append(all, d)
		if i%2 == 0 {
			h.Record(d)
		} else {
			other.Record(d)
		}
	}
	h.Merge(&other)
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.95, 0.99, 0.999, 1} {
		exact := all[max(0, min(len(all)-1, int(q*float64(len(all))+0.5)-1))]
		if got := h.Quantile(q); got < exact || float64(got) > float64(exact)*1.017+1 {
			t.Errorf("Quantile(%v) = %v, want %v to 1.7 %% above", q, got, exact)
		}
	}
	if h.Count() != 50_000 || h.Max() != all[len(all)-1] {
		t.Errorf("Count, Max = %d, %v; want 50000, %v", h.Count(), h.Max(), all[len(all)-1])
	}
}

func TestHistogramBuckets(t *testing.T) {
	last := -1
	for _, ns := range []uint64{0, 1, 63, 64, 65, 127, 128, 130, 1 << 20, 1<<20 + 1<<14, 1 << 42, 1<<43 - 1, 1 << 50, 1<<64 - 1} {
		i := bucket(ns)
		if i < last || i >= len(Histogram{}.counts) {
			t.Errorf("bucket(%d) = %d, want %d to %d", ns, i, last, len(Histogram{}.counts)-1)
		}
		if up := upper(i); up < min(ns, 1<<43-1) || ns >= 64 && ns < 1<<43 && float64(up) > float64(ns)*(1+1./64) {
			t.Errorf("upper(bucket(%d)) = %d, want at most a 64th above", ns, up)
		}
		last = i
	}
}

// clientFunc is a system with a price for each order.
type clientFunc func(ctx context.Context, skus []int) error

func (f clientFunc) Order(ctx context.Context, skus []int) error { return f(ctx, skus) }

func TestRunCountsWhatItMeasures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		broken := errors.New("no answer")
		clients := []Client{
			clientFunc(func(context.Context, []int) error { // 100 orders a second
				calls.Add(1)
				time.Sleep(10 * time.Millisecond)
				return nil
			}),
			clientFunc(func(context.Context, []int) error {
				time.Sleep(50 * time.Millisecond)
				return &Refusal{Code: "out_of_stock"}
			}),
			clientFunc(func(context.Context, []int) error { time.Sleep(time.Second); return broken }),
		}
		load := Load{Workload: Hot, SKUs: 10, Lines: 2, Warmup: time.Second, Duration: 2 * time.Second, Seed: 1}
		r, err := Run(t.Context(), load, clients)
		if err != nil {
			t.Fatal(err)
		}
		if r.Orders < 199 || r.Orders > 201 || r.Refused < 39 || r.Refused > 41 || r.Errors == 0 || !errors.Is(r.FirstError, broken) {
			t.Errorf("orders %d, refused %d, errors %d (%v); want 200, 40 and some", r.Orders, r.Refused, r.Errors, r.FirstError)
		}
		if got := r.PerSecond(); got < 99 || got > 101 {
			t.Errorf("PerSecond = %v, want 100: the warm-up does not count", got)
		}
		if p50 := r.Latency.Quantile(0.5); p50 < 10*time.Millisecond || p50 > 10200*time.Microsecond {
			t.Errorf("p50 = %v, want 10 ms", p50)
		}
		if r.Confirmed[0] != calls.Load() || r.Unknown[0] != r.Errors {
			t.Errorf("hot SKU: %d confirmed, %d unknown; want %d and %d, the warm-up included", r.Confirmed[0], r.Unknown[0], calls.Load(), r.Errors)
		}
	})
}

func TestRunRefusesImpossibleLoads(t *testing.T) {
	good := DefaultLoad()
	for name, change := range map[string]func(*Load){
		"workload": func(l *Load) { l.Workload = "cold" },
		"lines":    func(l *Load) { l.Lines = 0 },
		"SKUs":     func(l *Load) { l.SKUs = 5 },
		"duration": func(l *Load) { l.Duration = 0 },
		"warm-up":  func(l *Load) { l.Warmup = -1 },
	} {
		l := good
		change(&l)
		if _, err := Run(t.Context(), l, nil); err == nil {
			t.Errorf("%s: Run accepts %+v", name, l)
		}
	}
	if err := good.Validate(); err != nil {
		t.Errorf("the default load is refused: %v", err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := Run(ctx, DefaultLoad(), []Client{clientFunc(func(ctx context.Context, _ []int) error { <-ctx.Done(); return ctx.Err() })})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Run = %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

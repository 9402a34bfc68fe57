package cluster

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hanse/client"
	"hanse/internal/cluster"
)

// customers place orders until stop is called, which fails the test when one of them was refused, and returns how many there were.
func (f *fleet) customers() (placed func() int64, stop func()) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	if err := f.serves(f.nodes[0]); err != nil {
		f.t.Fatal(err)
	}
	c, err := client.New(client.Config{Addrs: f.addrs()})
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := c.Receive(ctx, "customers-stock", "TEA", client.StockChange{Quantity: 100_000}); err != nil {
		f.t.Fatal(err)
	}
	var count, slowest atomic.Int64
	var wg sync.WaitGroup
	t := f.t
	for customer := range 2 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				began := time.Now()
				o, err := c.PlaceOrder(t.Context(), fmt.Sprintf("customer-%d-%d", customer, i), &client.PlaceOrder{
					CustomerID: fmt.Sprintf("customer-%d", i), Currency: "EUR", Payment: &client.Method{Method: "card"},
					Lines: []client.NewLine{{SKU: "TEA", Quantity: 1, UnitPrice: 799}},
				})
				// A leader that hands over answers who waits: accepted, and under way. The order goes on without it.
				for deadline := time.Now().Add(30 * time.Second); err == nil && time.Now().Before(deadline) && (o.State == "placing" || o.State == "awaiting_payment"); {
					<-time.After(10 * time.Millisecond)
					o, err = c.Order(t.Context(), o.ID, 0)
				}
				if err != nil || o.State != "confirmed" {
					t.Errorf("an order failed: %+v, %v", o, err)
					return
				}
				count.Add(1)
				for took := int64(time.Since(began)); ; {
					old := slowest.Load()
					if took <= old || slowest.CompareAndSwap(old, took) {
						break
					}
				}
				select { // a light load
				case <-ctx.Done():
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
	}
	return count.Load, func() {
		f.t.Helper()
		cancel()
		wg.Wait()
		c.Close()
		f.t.Logf("%d orders, the slowest took %v", count.Load(), time.Duration(slowest.Load()).Round(time.Millisecond))
	}
}

func (f *fleet) features() (level uint32) {
	f.t.Helper()
	f.until("all nodes agree", func() error {
		v, err := f.agreed()
		if err == nil {
			level = v.Cluster.Features
		}
		return err
	})
	return level
}

// A rolling upgrade is a rolling restart with another program: no order fails, features wait for the last node, and there is no way back.
func TestRollingUpgrade(t *testing.T) {
	slow(t)
	f := newFleet(t)
	f.tags = "hanse_previous"
	old, next := program(t, f.tags), program(t, "")
	nodes := f.found(3)
	f.makeToken()
	const before, after = cluster.FeatureLevel - 1, cluster.FeatureLevel
	f.until("the level before is in force", func() error {
		if level := f.features(); level != before {
			return fmt.Errorf("it is level %d", level)
		}
		return nil
	})
	placed, stop := f.customers()
	for i, m := range nodes {
		already := placed()
		f.until("some orders", func() error {
			if n := placed(); n < already+20 && !t.Failed() {
				return fmt.Errorf("%d", n-already)
			}
			return nil
		})
		m.stop()
		m.program = next
		m.start()
		f.ready()
		if level := f.features(); i < 2 && level != before {
			t.Errorf("with %d of 3 upgraded, level %d is in force", i+1, level)
		}
		if i == 0 { // and back, as long as the others have not followed
			m.stop()
			m.program = old
			m.start()
			f.ready()
			m.stop()
			m.program = next
			m.start()
			f.ready()
		}
	}
	f.until("the level after is in force", func() error {
		if level := f.features(); level != after {
			return fmt.Errorf("it is level %d", level)
		}
		return nil
	})
	stop()
	f.happened("features.raised", "0", fmt.Sprintf("level %d", after))
	f.audit()

	f.run("an old program is refused", func(t *testing.T) {
		c := nodes[2]
		c.stop()
		c.program = old
		c.start()
		refused := fmt.Sprintf("knows features up to level %d, but level %d is in force", before, after)
		c.ended(1, "the cluster refuses this node: .*features_too_old|"+refused)
		d := f.member("d")
		d.join()
		d.ended(1, "features_too_old: node d "+refused)
		c.program = next
		c.start()
		f.ready()
	})
}

package audit

import (
	"context"
	"encoding/json"
	"fmt"

	"hanse/api/orderpb"
	"hanse/client"
	"hanse/internal/order"
	"hanse/internal/rest"
)

// Cluster is a cluster as its client shows it; *client.Client provides it.
type Cluster interface {
	Shards(ctx context.Context) (*client.Shards, error)
	// ScanOrders returns an encoded orderpb.HistoryScan: orders with their events.
	ScanOrders(ctx context.Context, shard int, after string, limit int) ([]byte, error)
	ScanItems(ctx context.Context, shard int, afterSKU, afterLocation string, limit int) ([]client.Location, bool, error)
	ScanHolds(ctx context.Context, shard int, after string, limit int) ([]client.Hold, bool, error)
	ScanMovements(ctx context.Context, shard int, after uint64, limit int) ([]client.Movement, bool, error)
	Payments(ctx context.Context, shard int, after string, limit int, stuck bool) ([]client.Payment, bool, error)
}

// Folding returns the source that an audit wants: it reads every order with its events and folds them here, in the audit's process. A
// cluster whose replicas have come to a wrong order is not asked whether it is right.
func Folding(c Cluster) Source { return folding{c} }

type folding struct{ Cluster }

// ScanOrders implements [Source].
func (f folding) ScanOrders(ctx context.Context, shard int, after string, limit int) ([]Order, bool, error) {
	data, err := f.Cluster.ScanOrders(ctx, shard, after, limit)
	if err != nil {
		return nil, false, err
	}
	page := new(orderpb.HistoryScan)
	if err := page.UnmarshalVT(data); err != nil {
		return nil, false, fmt.Errorf("decode orders with their events: %w", err)
	}
	orders := make([]Order, len(page.Orders))
	for i, h := range page.Orders {
		if orders[i], err = compare(h); err != nil {
			return nil, false, err
		}
	}
	return orders, page.More, nil
}

// compare folds an order's events and says where they differ from what is stored.
func compare(h *orderpb.History) (o Order, err error) {
	if h.Stored == nil {
		return o, fmt.Errorf("an order that is not there, with %d events", len(h.Events))
	}
	if err := show(h.Stored, &o.Stored); err != nil {
		return o, err
	}
	folded, broken := fold(h)
	if broken != "" || folded.EqualVT(h.Stored) {
		o.Broken = broken
		return o, nil
	}
	o.Folded = new(client.Order)
	return o, show(folded, o.Folded)
}

// fold returns the fold of an order's events, or why they have none. Folding stops with a panic at what cannot be: for a replica
// that is a reason to stop, for an audit it is a finding.
func fold(h *orderpb.History) (o *orderpb.Order, broken string) {
	defer func() {
		if p := recover(); p != nil {
			o, broken = nil, fmt.Sprint(p)
		}
	}()
	for _, e := range h.Events {
		if e.OrderId != h.Stored.Id {
			return nil, fmt.Sprintf("event %d is of order %s", e.Version, e.OrderId)
		}
	}
	return order.Replay(h.Events), ""
}

// show turns an order into what the API shows of it, which the rest of the audit judges.
func show(o *orderpb.Order, to *client.Order) error {
	if err := json.Unmarshal(rest.AppendOrder(nil, o), to); err != nil {
		return fmt.Errorf("order %s: %w", o.Id, err)
	}
	return nil
}

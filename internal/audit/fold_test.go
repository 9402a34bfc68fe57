package audit

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"hanse/api/orderpb"
	"hanse/internal/order"
)

// history is a free order without stock, canceled right after it was placed, with its events.
func history(orderID string) *orderpb.History {
	at := created.UnixMilli()
	h := &orderpb.History{Events: []*orderpb.Event{
		{OrderId: orderID, Version: 1, At: at, Detail: &orderpb.Event_Placed{Placed: &orderpb.Placed{Order: &orderpb.Order{
			Id: orderID, CustomerId: "ann", Currency: "EUR", Location: "main",
			Lines: []*orderpb.Line{{No: 1, Sku: "POST", Quantity: 1, Untracked: true}},
		}}}},
		{OrderId: orderID, Version: 2, At: at + 1, Detail: &orderpb.Event_CancelRequested{CancelRequested: &orderpb.CancelRequested{Reason: "changed my mind"}}},
		{OrderId: orderID, Version: 3, At: at + 2, Detail: &orderpb.Event_Ended{Ended: &orderpb.Ended{State: orderpb.State_CANCELED}}},
	}}
	h.Stored = order.Replay(h.Events)
	return h
}

// encoded is a shop whose orders come with their events.
type encoded struct {
	*shop
	page *orderpb.HistoryScan
	raw  []byte // instead of the page
}

func (e *encoded) ScanOrders(_ context.Context, shard int, after string, limit int) ([]byte, error) {
	if e.raw != nil {
		return e.raw, nil
	}
	var page orderpb.HistoryScan
	if shard == 0 {
		for _, h := range e.page.Orders {
			if h.Stored.Id > after && len(page.Orders) < limit {
				page.Orders = append(page.Orders, h)
			}
		}
	}
	return page.MarshalVT()
}

func TestTheAuditFoldsTheEventsItself(t *testing.T) {
	const first, second = "ord_00000000000000000000000001", "ord_00000000000000000000000002"
	for _, test := range []struct {
		name            string
		plant           func(h *orderpb.History)
		expected, found string // in the one difference; none when empty
	}{
		{"nothing", func(*orderpb.History) {}, "", ""},
		{"another reason", func(h *orderpb.History) { h.Stored.Reason = "sold out" }, "changed my mind", "sold out"},
		{"another quantity", func(h *orderpb.History) { h.Stored.Lines[0].Canceled = 0 }, `"canceled":1`, `"canceled":0`},
		{"an event too many", func(h *orderpb.History) {
			h.Events = append(h.Events, &orderpb.Event{OrderId: h.Stored.Id, Version: 4, Detail: &orderpb.Event_Confirmed{Confirmed: &orderpb.Confirmed{}}})
		}, "events that make an order", "table does not know"},
		{"an event is missing", func(h *orderpb.History) { h.Events = append(h.Events[:1:1], h.Events[2]) }, "events that make an order", "event 3 (order.ended) after revision 1"},
		{"no events", func(h *orderpb.History) { h.Events = nil }, "no reason", "changed my mind"},
		{"an event of another order", func(h *orderpb.History) { h.Events[1].OrderId = second }, "events that make an order", "event 2 is of order " + second},
		{"an event about a line that there is not", func(h *orderpb.History) {
			h.Events[1].Detail = &orderpb.Event_RemainderCanceled{RemainderCanceled: &orderpb.RemainderCanceled{Items: []*orderpb.Item{{Line: 7, Quantity: 1}}}}
		}, "events that make an order", "index out of range"},
		{"an event of a later program", func(h *orderpb.History) { h.Events[1].Detail = nil }, "events that make an order", "unknown"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &encoded{shop: new(shop), page: &orderpb.HistoryScan{Orders: []*orderpb.History{history(first), history(second)}}}
			test.plant(c.page.Orders[0])
			var r *Report
			synctest.Test(t, func(t *testing.T) {
				var err error
				if r, err = Run(t.Context(), Folding(c), nil, config()); err != nil {
					t.Fatal(err)
				}
			})
			if r.Orders != 2 {
				t.Errorf("%d orders, want 2", r.Orders)
			}
			if test.found == "" {
				if len(r.Differences) > 0 {
					t.Errorf("differences %v, want none", r.Differences)
				}
				return
			}
			if len(r.Differences) == 0 {
				t.Fatal("no difference")
			}
			i := 0
			for i < len(r.Differences)-1 && r.Differences[i].Kind != OrderNotItsEvents {
				i++
			}
			if d := r.Differences[i]; d.Kind != OrderNotItsEvents || d.ID != first || !strings.Contains(d.Expected, test.expected) || !strings.Contains(d.Found, test.found) {
				t.Errorf("difference %v, want %s of %s with %q and %q", d, OrderNotItsEvents, first, test.expected, test.found)
			}
		})
	}
}

func TestAPageThatCannotBeReadEndsTheAudit(t *testing.T) {
	noOrder, err := (&orderpb.HistoryScan{Orders: []*orderpb.History{{}}}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{"garbage": bytes.Repeat([]byte{0xff}, 10), "no order": noOrder} {
		if r, err := Run(t.Context(), Folding(&encoded{shop: new(shop), raw: raw}), nil, config()); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("%s: report %+v, %v, want an error", name, r, err)
		}
	}
}

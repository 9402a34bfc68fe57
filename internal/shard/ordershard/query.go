package ordershard

import (
	"encoding/binary"
	"fmt"
	"slices"

	"hanse/api/orderpb"
	"hanse/internal/order"
	"hanse/internal/reject"
	"hanse/internal/shard"
)

const (
	// A page has maxPage rows at most, defaultPage when the query does not say, and pageBytes when it does not either.
	maxPage     = 1000
	defaultPage = 100
	pageBytes   = 2 << 20
)

func pageSize(limit uint32) int {
	if limit == 0 {
		return defaultPage
	}
	return int(min(limit, maxPage))
}

// Query answers a read-only question.
func (l *logic) Query(payload []byte) shard.Result {
	var q orderpb.Query
	if err := q.UnmarshalVT(payload); err != nil {
		return malformed("order query: %v", err)
	}
	switch q := q.Body.(type) {
	case *orderpb.Query_Find:
		return l.findVersion(q.Find)
	case *orderpb.Query_List:
		return l.list(q.List)
	case *orderpb.Query_Events:
		return l.events(q.Events.Id)
	case *orderpb.Query_Feed:
		return l.feed(q.Feed)
	case *orderpb.Query_Sagas:
		return l.sagas(q.Sagas)
	case *orderpb.Query_Scan:
		return l.scan(q.Scan)
	case *orderpb.Query_Histories:
		return l.histories(q.Histories)
	}
	return malformed("order query without a body")
}

func (l *logic) findVersion(q *orderpb.FindOrder) shard.Result {
	f, r := l.find(q.Id)
	if r != nil {
		return rejected(r)
	}
	o := &f.order
	if q.Version == 0 || q.Version == o.Revision {
		return shard.Result{Payload: encode(o)}
	}
	if q.Version > o.Revision {
		return rejected(&reject.Rejection{
			Code: reject.OrderNotFound, Field: "/version",
			Detail: fmt.Sprintf("order %s has no version %d yet, the newest is %d", o.Id, q.Version, o.Revision),
		})
	}
	return shard.Result{Payload: encode(l.fold(f.positions[:q.Version]))}
}

// fold rebuilds an order from the events at some positions.
func (l *logic) fold(positions []uint64) *orderpb.Order {
	o := new(orderpb.Order)
	for _, p := range positions {
		order.Fold(o, l.readEvent(p))
	}
	return o
}

func (l *logic) readEvent(position uint64) *orderpb.Event {
	e := new(orderpb.Event)
	if err := e.UnmarshalVT(l.event(position)); err != nil {
		panic(&shard.StoreFault{Err: fmt.Errorf("event %d of the feed: %w", position, err)})
	}
	return e
}

func (l *logic) event(position uint64) []byte {
	data, ok := l.state.Feed.Event(position)
	if !ok {
		panic(&shard.StoreFault{Err: fmt.Errorf("event %d of the feed is missing", position)})
	}
	return data
}

func (l *logic) list(q *orderpb.ListOrders) shard.Result {
	prefix := customerPrefix(q.CustomerId)
	from := prefix
	if q.After != "" {
		f, ok := l.files.Find(q.After)
		if !ok || f.order.CustomerId != q.CustomerId {
			return rejected(&reject.Rejection{Code: reject.InvalidID, Field: "/cursor", Detail: "the cursor is not an order of this customer"})
		}
		from = customerKey(&f.order) + "\x00"
	}
	var page orderpb.OrderList
	limit := pageSize(q.Limit)
	bytes := 0
	l.customers.Scan(prefix, from, func(key string, _ struct{}) bool {
		if len(page.Orders) == limit || bytes > pageBytes {
			page.More = true
			return false
		}
		f, _ := l.files.Find(key[len(prefix)+8:])
		page.Orders = append(page.Orders, &f.order)
		bytes += f.order.SizeVT()
		return true
	})
	return shard.Result{Payload: encode(&page)}
}

// events returns an order's events as they are in the feed, without decoding them.
func (l *logic) events(orderID string) shard.Result {
	f, r := l.find(orderID)
	if r != nil {
		return rejected(r)
	}
	var b []byte
	for _, p := range f.positions {
		b = appendEvent(b, l.event(p))
	}
	tail := encode(&orderpb.EventList{Positions: f.positions})
	return shard.Result{Payload: append(b, tail...)}
}

// appendEvent appends an encoded event as field 1, which it is of EventList and of FeedPage.
func appendEvent(b, event []byte) []byte { return appendField(b, 1, event) }

// appendField appends an encoded message as a field.
func appendField(b []byte, number byte, message []byte) []byte {
	b = append(b, number<<3|2) // length-delimited
	b = binary.AppendUvarint(b, uint64(len(message)))
	return append(b, message...)
}

func (l *logic) feed(q *orderpb.ReadFeed) shard.Result {
	last := l.state.Feed.Last()
	limit, maxBytes := pageSize(q.Limit), int(q.MaxBytes)
	if maxBytes == 0 {
		maxBytes = pageBytes
	}
	var b []byte
	n := 0
	if q.After < last {
		l.state.Feed.Read(q.After, func(_ uint64, event []byte) bool {
			if n == limit || n > 0 && len(b)+len(event) > maxBytes {
				return false
			}
			b = appendEvent(b, event)
			n++
			return true
		})
	}
	tail := encode(&orderpb.FeedPage{First: q.After + 1, Last: last})
	return shard.Result{Payload: append(b, tail...)}
}

// sagas lists the orders that are on their way, or only those that are stuck there. Each has a message in the
// outbox: what is not finished is being sent, or waits for its next attempt.
func (l *logic) sagas(q *orderpb.ListSagas) shard.Result {
	var page orderpb.OrderList
	limit, bytes := pageSize(q.Limit), 0
	add := func(o *orderpb.Order) bool {
		if len(page.Orders) == limit || bytes > pageBytes {
			page.More = true
			return false
		}
		page.Orders = append(page.Orders, o)
		bytes += o.SizeVT()
		return true
	}
	if q.Stuck {
		l.stuck.Scan("", q.After+"\x00", func(orderID string, _ struct{}) bool {
			f, _ := l.files.Find(orderID)
			return add(&f.order)
		})
		return shard.Result{Payload: encode(&page)}
	}
	seen := make(map[string]bool)
	var ids []string
	for _, m := range l.state.Outbox() {
		if orderID := orderOf(m); !seen[orderID] && orderID > q.After {
			seen[orderID] = true
			ids = append(ids, orderID)
		}
	}
	slices.Sort(ids)
	for _, orderID := range ids {
		if f, ok := l.files.Find(orderID); ok && order.Open(&f.order) && !add(&f.order) {
			break
		}
	}
	return shard.Result{Payload: encode(&page)}
}

// scan pages over all orders and compares each with the fold of its events.
func (l *logic) scan(q *orderpb.ScanOrders) shard.Result {
	from := ""
	if q.After != "" {
		from = q.After + "\x00"
	}
	limit, maxBytes := pageSize(q.Limit), int(q.MaxBytes)
	if maxBytes == 0 {
		maxBytes = pageBytes
	}
	var page orderpb.OrderScan
	bytes := 0
	l.files.Scan("", from, func(_ string, f *file) bool {
		if len(page.Orders) == limit || bytes > maxBytes {
			page.More = true
			return false
		}
		s := &orderpb.ScannedOrder{Stored: &f.order}
		if folded := l.fold(f.positions); !folded.EqualVT(&f.order) {
			s.Folded = folded
		}
		page.Orders = append(page.Orders, s)
		bytes += f.order.SizeVT()
		return true
	})
	return shard.Result{Payload: encode(&page)}
}

// histories pages over all orders, each with its events as they are in the feed: nothing is folded or compared here.
func (l *logic) histories(q *orderpb.ScanHistories) shard.Result {
	from := ""
	if q.After != "" {
		from = q.After + "\x00"
	}
	limit, maxBytes := pageSize(q.Limit), int(q.MaxBytes)
	if maxBytes == 0 {
		maxBytes = pageBytes
	}
	var page, history []byte // of HistoryScan and History
	more := false
	l.files.Scan("", from, func(_ string, f *file) bool {
		if limit == 0 || len(page) > maxBytes {
			more = true
			return false
		}
		limit--
		history = appendField(history[:0], 1, encode(&f.order))
		for _, p := range f.positions {
			history = appendField(history, 2, l.event(p))
		}
		page = appendField(page, 1, history)
		return true
	})
	tail := encode(&orderpb.HistoryScan{More: more})
	return shard.Result{Payload: append(page, tail...)}
}

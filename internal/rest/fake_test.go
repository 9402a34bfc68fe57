package rest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"hanse/api/inventorypb"
	"hanse/api/keyspacepb"
	"hanse/api/notificationpb"
	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/id"
	"hanse/internal/reject"
)

// The objects that the fake knows. Their times are a Tuesday in November.
const at = int64(1764072000123)

var (
	orderID   = id.New(id.Order, 5, at, 7)
	paymentID = id.Sibling(id.Payment, orderID)
	holdID    = id.New(id.Reservation, 6, at, 8)
)

// sampleOrder has something in every field.
func sampleOrder() *orderpb.Order {
	return &orderpb.Order{
		Id: orderID, State: orderpb.State_PARTIALLY_FULFILLED, Reason: "changed my mind", RejectDetail: "in words",
		Revision: 9, CreatedAt: at, UpdatedAt: at + 1500, CustomerId: "c/ö \"1\"", Currency: "EUR", Location: "main",
		PaymentMethod: "card", MerchantReference: "536365",
		Lines: []*orderpb.Line{
			{No: 1, Sku: "TEAPOT", Quantity: 7, UnitPrice: 1999, Total: 13993, Canceled: 3, Fulfilled: 2, Returned: 1},
			{No: 2, Sku: "POST", Quantity: 1, UnitPrice: 495, Total: 495, Untracked: true},
		},
		Total: 14488, Legs: []*orderpb.Leg{{Shard: 0, State: orderpb.LegState_LEG_HELD}, {Shard: 2, State: orderpb.LegState_LEG_RELEASED}},
		Deadline: at + 900_000, PaymentId: paymentID, Authorized: 14488, Captured: 3998, Refunded: 1999, Voided: 1,
		Payment: orderpb.PaymentStep_PAYMENT_AUTHORIZED, CaptureRequested: 3998, RefundRequested: 2099,
		Fulfillments: []*orderpb.Fulfillment{{Id: "ful_1", At: at + 300, Items: []*orderpb.Item{{Line: 1, Quantity: 2}}, Amount: 3998, Tracking: "1Z", Captured: 3998}},
		Returns:      []*orderpb.Return{{Id: "ret_1", At: at + 900, Items: []*orderpb.Item{{Line: 1, Quantity: 1}}, Disposition: orderpb.Disposition_DAMAGED, Reason: "chipped", Amount: 1999}},
		Refunds: []*orderpb.Refund{
			{Id: "rfd_1", At: at + 900, Amount: 1999, ReturnId: "ret_1", Done: true},
			{Id: "rfd_2", At: at + 999, Amount: 100, Reason: "late", Failed: "card_closed"},
		},
		Stuck: []*orderpb.StuckStep{{Seq: 4, Step: "refund", Cause: "provider: card_closed", Since: at + 1000, Attempts: 12, NextTry: at + 30_000, Amount: 100, Units: 1}},
	}
}

// placed is the order that a request makes.
func placedOrder(p *orderpb.Place) *orderpb.Order {
	o := &orderpb.Order{
		Id: orderID, State: orderpb.State_CONFIRMED, Revision: 4, CreatedAt: at, UpdatedAt: at + 4, CustomerId: p.CustomerId, Currency: p.Currency,
		Location: cmp.Or(p.Location, "main"), PaymentMethod: p.PaymentMethod, MerchantReference: p.MerchantReference, PaymentId: paymentID,
		Payment: orderpb.PaymentStep_PAYMENT_AUTHORIZED, Lines: p.Lines,
	}
	for _, l := range p.Lines {
		o.Total += l.Total
	}
	o.Authorized = o.Total
	return o
}

// sampleEvents has one of each kind.
func sampleEvents() *orderpb.EventList {
	o := sampleOrder()
	list := &orderpb.EventList{}
	add := func(e *orderpb.Event) {
		e.OrderId, e.Version, e.At = orderID, uint64(len(list.Events)+1), at+int64(len(list.Events))
		list.Events = append(list.Events, e)
		list.Positions = append(list.Positions, uint64(100+3*len(list.Positions)))
	}
	add(&orderpb.Event{Detail: &orderpb.Event_Placed{Placed: &orderpb.Placed{Order: &orderpb.Order{Id: orderID, Currency: "EUR", Lines: o.Lines[1:], Total: 495}}}})
	add(&orderpb.Event{Detail: &orderpb.Event_StockReserved{StockReserved: &orderpb.StockReserved{Shard: 2}}})
	add(&orderpb.Event{Detail: &orderpb.Event_StockRefused{StockRefused: &orderpb.StockRefused{Shard: 1, Code: "out_of_stock", Field: "/lines/0", Text: "2 left"}}})
	add(&orderpb.Event{Detail: &orderpb.Event_PaymentAuthorized{PaymentAuthorized: &orderpb.PaymentAuthorized{Amount: 495, ProviderReference: "ch_1"}}})
	add(&orderpb.Event{Detail: &orderpb.Event_PaymentDeclined{PaymentDeclined: &orderpb.PaymentDeclined{Code: "card_declined"}}})
	add(&orderpb.Event{Detail: &orderpb.Event_Confirmed{Confirmed: &orderpb.Confirmed{}}})
	add(&orderpb.Event{Detail: &orderpb.Event_CancelRequested{CancelRequested: &orderpb.CancelRequested{Reason: "changed my mind"}}})
	add(&orderpb.Event{Detail: &orderpb.Event_ExpireRequested{ExpireRequested: &orderpb.ExpireRequested{Reason: "deadline_exceeded"}}})
	add(&orderpb.Event{Detail: &orderpb.Event_StockReleased{StockReleased: &orderpb.StockReleased{Shard: 2}}})
	add(&orderpb.Event{Detail: &orderpb.Event_PaymentVoided{PaymentVoided: &orderpb.PaymentVoided{Amount: 495}}})
	add(&orderpb.Event{Detail: &orderpb.Event_Ended{Ended: &orderpb.Ended{State: orderpb.State_CANCELED}}})
	add(&orderpb.Event{Detail: &orderpb.Event_Fulfilled{Fulfilled: &orderpb.Fulfilled{Fulfillment: o.Fulfillments[0]}}})
	add(&orderpb.Event{Detail: &orderpb.Event_PaymentCaptured{PaymentCaptured: &orderpb.PaymentCaptured{FulfillmentId: "ful_1", Amount: 3998}}})
	add(&orderpb.Event{Detail: &orderpb.Event_CaptureFailed{CaptureFailed: &orderpb.CaptureFailed{FulfillmentId: "ful_1", Code: "expired"}}})
	add(&orderpb.Event{Detail: &orderpb.Event_Returned{Returned: &orderpb.Returned{Return: o.Returns[0]}}})
	add(&orderpb.Event{Detail: &orderpb.Event_RefundRequested{RefundRequested: &orderpb.RefundRequested{Refund: o.Refunds[1]}}})
	add(&orderpb.Event{Detail: &orderpb.Event_PaymentRefunded{PaymentRefunded: &orderpb.PaymentRefunded{RefundId: "rfd_1", Amount: 1999}}})
	add(&orderpb.Event{Detail: &orderpb.Event_RefundFailed{RefundFailed: &orderpb.RefundFailed{RefundId: "rfd_2", Code: "card_closed"}}})
	add(&orderpb.Event{Detail: &orderpb.Event_StepStuck{StepStuck: &orderpb.StepStuck{Step: o.Stuck[0]}}})
	add(&orderpb.Event{Detail: &orderpb.Event_StepResolved{StepResolved: &orderpb.StepResolved{Seq: 4, Decision: "skip", Evidence: "paid in cash", Operator: "eve"}}})
	add(&orderpb.Event{Detail: &orderpb.Event_KeyRefused{KeyRefused: &orderpb.KeyRefused{Code: reject.KeyReused, Text: "use a new key"}}})
	add(&orderpb.Event{Detail: &orderpb.Event_RemainderCanceled{RemainderCanceled: &orderpb.RemainderCanceled{Items: o.Returns[0].Items, Reason: "sold out"}}})
	return list
}

func samplePayment() *paymentpb.Payment {
	return &paymentpb.Payment{
		Id: paymentID, OrderId: orderID, Currency: "EUR", Method: "card", Requested: 6492, Authorized: 6492, Captured: 3998, Refunded: 1999, Voided: 1,
		CreatedAt: at, UpdatedAt: at + 999, ProviderReference: "ch_1", Revision: 6,
		Ops: []*paymentpb.Op{
			{Id: "auth", Kind: paymentpb.OpKind_AUTHORIZE, State: paymentpb.OpState_OP_SUCCEEDED, Amount: 6492, Attempts: 1, ProviderReference: "ch_1", CreatedAt: at, FinishedAt: at + 2},
			{Id: "rfd_2", Kind: paymentpb.OpKind_REFUND, State: paymentpb.OpState_OP_UNKNOWN, Amount: 100, Attempts: 12, Code: "timeout", NextTry: at + 30_000, CreatedAt: at + 999, Stuck: true},
		},
	}
}

func sampleItem(sku string) *inventorypb.Item {
	return &inventorypb.Item{Sku: sku, Location: "main", OnHand: 10, Reserved: 1, Allocated: 2, Unavailable: 3, Revision: 12}
}

func sampleHold() *inventorypb.Hold {
	return &inventorypb.Hold{
		Id: holdID, State: inventorypb.HoldState_HELD, Location: "main", Due: at + 60_000, FreeStanding: true, UpdatedAt: at,
		Lines: []*inventorypb.HoldLine{{Sku: "TEAPOT", Quantity: 2, Fulfilled: 1, Released: 1, Restocked: 1, Line: 1}},
	}
}

func sampleEndpoint() *notificationpb.Endpoint {
	return &notificationpb.Endpoint{
		Id: "whe_1", Url: "https://example.com/hook", Types: []string{"order.confirmed"}, Secret: "whsec_c2VjcmV0", CreatedAt: at, Disabled: true,
		DisabledReason: "410", Delivered: 5, Failed: 1, Parked: []*notificationpb.Parked{{Position: 3, Attempts: 2, Error: "connection refused", FailedAt: at + 7}},
	}
}

// fake is a backend with one object of each kind. It writes down what it is asked, keeps idempotency keys as a shard does,
// and answers otherwise when it is told.
type fake struct {
	mu    sync.Mutex // guards asked and keys
	asked strings.Builder
	// err, when set, is every answer; order comes with it where an order may.
	err               error
	order             *orderpb.Order
	pending, replayed bool
	// block, when set, holds requests until it is closed or their time is over.
	block    chan struct{}
	panics   bool
	notReady error
	keys     map[string]uint64
	feed     *fakeFeed
}

func (f *fake) note(what string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked.Len() < 1<<16 {
		fmt.Fprintf(&f.asked, "%s", what)
		for _, a := range args {
			if m, ok := a.(proto.Message); ok {
				var b bytes.Buffer
				raw, _ := protojson.Marshal(m)
				_ = json.Compact(&b, raw) // protojson spaces at random
				a = b.String()
			}
			fmt.Fprintf(&f.asked, " %v", a)
		}
		f.asked.WriteByte('\n')
	}
}

func answer[T any](ctx context.Context, f *fake, r Request, v T) (Answer[T], error) {
	a := Answer[T]{Mark: "order/1:77", Pending: f.pending, Replayed: f.replayed}
	if f.panics {
		panic("a bug")
	}
	if f.block != nil {
		select {
		case <-f.block:
		case <-ctx.Done():
			return a, ctx.Err()
		}
	}
	if f.err != nil {
		return a, f.err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Key != "" && f.keys != nil {
		if hash, known := f.keys[r.Caller+"\x00"+r.Key]; known && hash != r.Hash {
			return a, &reject.Rejection{Code: reject.KeyReused, Detail: "the key was used for another request"}
		} else if known {
			a.Replayed = true
		}
		f.keys[r.Caller+"\x00"+r.Key] = r.Hash
	}
	a.Value = v
	return a, nil
}

// who writes a request down; its digest is not for reading.
func who(r Request) string {
	return fmt.Sprintf("caller=%s key=%s", r.Caller, r.Key)
}

func how(c Consistency) string {
	switch {
	case c.Stale:
		return "stale"
	case c.AtLeast != "":
		return "at least " + string(c.AtLeast)
	}
	return "linearizable"
}

func (f *fake) Place(ctx context.Context, r Request, p *orderpb.Place, wait time.Duration) (Answer[*orderpb.Order], error) {
	f.note("Place", who(r), wait, p)
	a, err := answer(ctx, f, r, placedOrder(p))
	if f.order != nil {
		a.Value = f.order
	}
	return a, err
}

func (f *fake) Cancel(ctx context.Context, r Request, c *orderpb.Cancel, wait time.Duration) (Answer[*orderpb.Order], error) {
	f.note("Cancel", who(r), wait, c)
	return answer(ctx, f, r, sampleOrder())
}

func (f *fake) Fulfill(ctx context.Context, r Request, c *orderpb.Fulfill) (Answer[*orderpb.Order], error) {
	f.note("Fulfill", who(r), c)
	return answer(ctx, f, r, sampleOrder())
}

func (f *fake) Return(ctx context.Context, r Request, c *orderpb.ReturnItems) (Answer[*orderpb.Order], error) {
	f.note("Return", who(r), c)
	return answer(ctx, f, r, sampleOrder())
}

func (f *fake) Refund(ctx context.Context, r Request, c *orderpb.RefundAmount) (Answer[*orderpb.Order], error) {
	f.note("Refund", who(r), c)
	return answer(ctx, f, r, sampleOrder())
}

func (f *fake) Order(ctx context.Context, orderID string, version uint64, c Consistency) (Answer[*orderpb.Order], error) {
	f.note("Order", orderID, version, how(c))
	return answer(ctx, f, Request{}, sampleOrder())
}

func (f *fake) OrdersOf(ctx context.Context, customer, after string, limit int, c Consistency) (Answer[*orderpb.OrderList], error) {
	f.note("OrdersOf", customer, "after="+after, limit, how(c))
	return answer(ctx, f, Request{}, &orderpb.OrderList{Orders: []*orderpb.Order{sampleOrder()}, More: true})
}

func (f *fake) OrderEvents(ctx context.Context, orderID string, c Consistency) (Answer[*orderpb.EventList], error) {
	f.note("OrderEvents", orderID, how(c))
	return answer(ctx, f, Request{}, sampleEvents())
}

func (f *fake) Sagas(ctx context.Context, stuck bool, after string, limit int) (Answer[*orderpb.OrderList], error) {
	f.note("Sagas", stuck, "after="+after, limit)
	return answer(ctx, f, Request{}, &orderpb.OrderList{Orders: []*orderpb.Order{sampleOrder()}, More: true})
}

func (f *fake) RetryStep(ctx context.Context, r Request, c *orderpb.RetryStep) (Answer[*orderpb.Order], error) {
	f.note("RetryStep", who(r), c)
	return answer(ctx, f, r, sampleOrder())
}

func (f *fake) ResolveStep(ctx context.Context, r Request, c *orderpb.ResolveStep) (Answer[*orderpb.Order], error) {
	f.note("ResolveStep", who(r), c)
	return answer(ctx, f, r, sampleOrder())
}

func (f *fake) ScanOrders(ctx context.Context, shard int, after string, limit int) (Answer[[]byte], error) {
	f.note("ScanOrders", shard, "after="+after, limit)
	return answer(ctx, f, Request{}, []byte("orders with their events"))
}

func (f *fake) Receive(ctx context.Context, r Request, c *inventorypb.Receive) (Answer[*inventorypb.Item], error) {
	f.note("Receive", who(r), c)
	return answer(ctx, f, r, sampleItem(c.Sku))
}

func (f *fake) Adjust(ctx context.Context, r Request, c *inventorypb.Adjust) (Answer[*inventorypb.Item], error) {
	f.note("Adjust", who(r), c)
	return answer(ctx, f, r, sampleItem(c.Sku))
}

func (f *fake) SetTracking(ctx context.Context, r Request, c *inventorypb.SetTracking) (Answer[*inventorypb.Item], error) {
	f.note("SetTracking", who(r), c)
	return answer(ctx, f, r, sampleItem(c.Sku))
}

func (f *fake) StockOf(ctx context.Context, sku string, c Consistency) (Answer[*inventorypb.ItemList], error) {
	f.note("StockOf", fmt.Sprintf("%q", sku), how(c))
	harbor := sampleItem(sku)
	harbor.Location, harbor.OnHand, harbor.Untracked = "harbor", 5, true
	return answer(ctx, f, Request{}, &inventorypb.ItemList{Items: []*inventorypb.Item{harbor, sampleItem(sku)}})
}

func (f *fake) Reserve(ctx context.Context, r Request, sku, location string, quantity int64, ttl time.Duration) (Answer[*inventorypb.Hold], error) {
	f.note("Reserve", who(r), sku, "location="+location, quantity, ttl)
	return answer(ctx, f, r, sampleHold())
}

func (f *fake) Reservation(ctx context.Context, holdID string, c Consistency) (Answer[*inventorypb.Hold], error) {
	f.note("Reservation", holdID, how(c))
	return answer(ctx, f, Request{}, sampleHold())
}

func (f *fake) ReleaseReservation(ctx context.Context, r Request, holdID string) (Answer[*inventorypb.Hold], error) {
	f.note("ReleaseReservation", who(r), holdID)
	return answer(ctx, f, r, sampleHold())
}

func (f *fake) ScanItems(ctx context.Context, shard int, afterSKU, afterLocation string, limit int) (Answer[*inventorypb.ItemList], error) {
	f.note("ScanItems", shard, "after="+afterSKU+","+afterLocation, limit)
	return answer(ctx, f, Request{}, &inventorypb.ItemList{Items: []*inventorypb.Item{sampleItem("TEAPOT")}, More: true})
}

func (f *fake) ScanHolds(ctx context.Context, shard int, after string, limit int) (Answer[*inventorypb.HoldList], error) {
	f.note("ScanHolds", shard, "after="+after, limit)
	return answer(ctx, f, Request{}, &inventorypb.HoldList{Holds: []*inventorypb.Hold{sampleHold()}})
}

func (f *fake) Movements(ctx context.Context, shard int, after uint64, limit int) (Answer[*inventorypb.MovementList], error) {
	f.note("Movements", shard, after, limit)
	return answer(ctx, f, Request{}, &inventorypb.MovementList{Movements: []*inventorypb.Movement{
		{Seq: 8, Sku: "TEAPOT", Location: "main", Quantity: -2, Reason: "broken", At: at, Adjustment: true},
	}})
}

func (f *fake) Payment(ctx context.Context, paymentID string, c Consistency) (Answer[*paymentpb.Payment], error) {
	f.note("Payment", paymentID, how(c))
	return answer(ctx, f, Request{}, samplePayment())
}

func (f *fake) WakePayment(ctx context.Context, paymentID string) error {
	f.note("WakePayment", paymentID)
	_, err := answer(ctx, f, Request{}, 0)
	return err
}

func (f *fake) ScanPayments(ctx context.Context, shard int, after string, limit int, stuck bool) (Answer[*paymentpb.PaymentList], error) {
	f.note("ScanPayments", shard, "after="+after, limit, stuck)
	return answer(ctx, f, Request{}, &paymentpb.PaymentList{Payments: []*paymentpb.Payment{samplePayment()}})
}

func (f *fake) RetryOp(ctx context.Context, r Request, c *paymentpb.RetryOp) (Answer[*paymentpb.Payment], error) {
	f.note("RetryOp", who(r), c)
	return answer(ctx, f, r, samplePayment())
}

func (f *fake) ResolveOp(ctx context.Context, r Request, c *paymentpb.ResolveOp) (Answer[*paymentpb.Payment], error) {
	f.note("ResolveOp", who(r), c)
	return answer(ctx, f, r, samplePayment())
}

var sampleValue = &keyspacepb.Value{Value: []byte("a\x00\xffb"), Version: 3, UpdatedAt: at}

func (f *fake) Put(ctx context.Context, r Request, c *keyspacepb.Put) (Answer[*keyspacepb.Value], error) {
	f.note("Put", who(r), c)
	return answer(ctx, f, r, sampleValue)
}

func (f *fake) CompareAndSet(ctx context.Context, r Request, c *keyspacepb.CompareAndSet) (Answer[*keyspacepb.Value], error) {
	f.note("CompareAndSet", who(r), c)
	return answer(ctx, f, r, sampleValue)
}

func (f *fake) Delete(ctx context.Context, r Request, c *keyspacepb.Delete) (Answer[*keyspacepb.Value], error) {
	f.note("Delete", who(r), c)
	return answer(ctx, f, r, sampleValue)
}

func (f *fake) Key(ctx context.Context, keyspace, key string, c Consistency) (Answer[*keyspacepb.Value], error) {
	f.note("Key", keyspace, fmt.Sprintf("%q", key), how(c))
	return answer(ctx, f, Request{}, sampleValue)
}

func (f *fake) CreateEndpoint(ctx context.Context, r Request, url string, types []string) (Answer[*notificationpb.Endpoint], error) {
	f.note("CreateEndpoint", who(r), url, types)
	return answer(ctx, f, r, sampleEndpoint())
}

func (f *fake) DeleteEndpoint(ctx context.Context, r Request, endpointID string) error {
	f.note("DeleteEndpoint", who(r), endpointID)
	_, err := answer(ctx, f, r, 0)
	return err
}

func (f *fake) EnableEndpoint(ctx context.Context, r Request, endpointID string) (Answer[*notificationpb.Endpoint], error) {
	f.note("EnableEndpoint", who(r), endpointID)
	return answer(ctx, f, r, sampleEndpoint())
}

func (f *fake) Endpoints(ctx context.Context) (Answer[*notificationpb.EndpointList], error) {
	f.note("Endpoints")
	return answer(ctx, f, Request{}, &notificationpb.EndpointList{Endpoints: []*notificationpb.Endpoint{sampleEndpoint()}})
}

func (f *fake) FeedEnds(ctx context.Context) ([]uint64, error) {
	a, err := answer(ctx, f, Request{}, 0)
	_ = a
	if err != nil {
		return nil, err
	}
	return f.feed.ends(), nil
}

func (f *fake) FollowFeed(ctx context.Context, after []uint64, fn func([]FeedEvent) error) error {
	return f.feed.follow(ctx, after, fn)
}

func sampleNodes() []NodeInfo {
	return []NodeInfo{
		{
			ID: 1, Name: "shop1", REST: "10.0.0.1:7400", Peers: "10.0.0.1:7402", Gossip: "10.0.0.1:7403", Zone: "a", Version: "1.2.3", Features: 2, Self: true,
			State: "active", StateSince: at, Health: "healthy", HealthSince: at + 5, Replicas: 9, Leaders: 4, StartedAt: at, Boot: 3,
		},
		{
			ID: 2, Name: "shop2", REST: "shop2.example:7400", Peers: "shop2.example:7402", Gossip: "shop2.example:7403", Zone: "b", Roles: []string{"order", "payment"},
			Version: "1.2.4", Features: 3, State: "active", StateSince: at, Health: "suspect", HealthSince: at + 7, Reason: "node 3 does not reach it",
			RTT: 1234567 * time.Nanosecond, Offset: -3 * time.Millisecond, Replicas: 4, Leaders: 1, StartedAt: at, Boot: 1,
		},
		{ID: 3, REST: "10.0.0.3:7400", Peers: "10.0.0.3:7402", State: "draining", StateReason: "new kernel", Health: "healthy", Replicas: 5},
		{ID: 4, REST: "10.0.0.4:7400", Peers: "10.0.0.4:7402", State: "active", Health: "dead", Reason: "silent for 12 s", Replicas: 3},
	}
}

func (f *fake) Cluster() ClusterInfo {
	return ClusterInfo{
		ID: "hanse", Features: 2, Replicas: 3, DownAfter: 5 * time.Minute, Version: 41, Nodes: sampleNodes(), Links: []LinkInfo{
			{From: 1, To: 2, Reached: true, RTT: 1234567 * time.Nanosecond, Offset: -3 * time.Millisecond, Since: at},
			{From: 2, To: 1, Since: at + 9},
		}, Blocked: []string{"order/2 has 2 of 3 replicas, and no node can take another"},
	}
}

func (f *fake) Join(ctx context.Context, r JoinRequest) (JoinAnswer, error) {
	f.note("Join", fmt.Sprintf("%+v", r))
	_, err := answer(ctx, f, Request{}, 0)
	return JoinAnswer{Node: 5, Cluster: "hanse", View: []byte("a view"), PSP: "instant"}, err
}

func (f *fake) CreateJoinToken(ctx context.Context) (string, error) {
	f.note("CreateJoinToken")
	_, err := answer(ctx, f, Request{}, 0)
	return "hjt_1", err
}

func (f *fake) SetNodeState(ctx context.Context, node uint64, state, reason string, dry bool) (NodeInfo, error) {
	f.note("SetNodeState", node, state, fmt.Sprintf("%q dry=%v", reason, dry))
	_, err := answer(ctx, f, Request{}, 0)
	n := sampleNodes()[2]
	n.ID = node
	if !dry {
		n.State, n.StateReason = state, reason
	}
	return n, err
}

func (f *fake) MoveReplica(ctx context.Context, shard string, from, to uint64) error {
	f.note("MoveReplica", shard, from, to)
	_, err := answer(ctx, f, Request{}, 0)
	return err
}

func (f *fake) RecoverShard(ctx context.Context, shard, confirm string) (Recovery, error) {
	f.note("RecoverShard", shard, fmt.Sprintf("%q", confirm))
	_, err := answer(ctx, f, Request{}, 0)
	r := Recovery{Shard: shard, Node: 2, Term: 7, Index: 1041, Survivors: []uint64{2}, Missing: []uint64{1, 3}}
	if r.Done = confirm != ""; !r.Done {
		r.Confirm, r.Warning = "recover "+shard+" from node 2", "what nodes 1 and 3 alone have is lost"
	}
	return r, err
}

func (f *fake) SetDownAfter(ctx context.Context, d time.Duration) error {
	f.note("SetDownAfter", d)
	_, err := answer(ctx, f, Request{}, 0)
	return err
}

func (f *fake) ClusterEvents(ctx context.Context, after uint64, limit int) ([]ClusterEvent, error) {
	f.note("ClusterEvents", after, limit)
	_, err := answer(ctx, f, Request{}, 0)
	return []ClusterEvent{
		{Seq: after + 1, At: at, Type: "node.joined", Node: 4, Detail: "shop4 in zone a"},
		{Seq: after + 2, At: at + 1, Type: "move.finished", Shard: "order/1", Detail: "from node 1 to node 4"},
	}, err
}

func (f *fake) Shards() []ShardInfo {
	return []ShardInfo{
		{ID: "inventory/0", State: "unavailable", Term: 2, Applied: 12, Commit: 12, Replicas: []ReplicaInfo{{ID: 1, Node: 1, Match: 12, State: "voter"}}},
		{
			ID: "order/0", Leader: 1, Preferred: 2, State: "moving", Term: 2, Applied: 40, Commit: 41,
			Replicas: []ReplicaInfo{{ID: 1, Node: 1, Match: 41, State: "leader"}, {ID: 4, Node: 4, Match: 20, State: "learner"}},
			Move:     &MoveInfo{From: 1, To: 4, Reason: "balance", Doing: "learner is catching up", Share: 0.4878, Left: 1500 * time.Millisecond, Started: at},
		},
	}
}

func (f *fake) ShardCounts() map[string]int {
	return map[string]int{"order": 3, "inventory": 3, "payment": 3}
}

func (f *fake) Ready() error { return f.notReady }

func newDiscard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// newDoor returns a handler in front of a fake.
func newDoor(tb testing.TB, change func(*Config)) (http.Handler, *fake) {
	cfg := DefaultConfig()
	cfg.Version = "1.2.3"
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		tb.Fatal(err)
	}
	f := &fake{keys: map[string]uint64{}, feed: &fakeFeed{}}
	return New(cfg, f, newDiscard()), f
}

// testTrace is the trace that ask's requests belong to.
const testTrace = "4bf92f3577b34da6a3ce929d0e0e4736"

// ask sends a request whose headers are in pairs.
func ask(h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req := httptest.NewRequest(method, target, r)
	req.Header.Set("X-Request-Id", "req_test")
	req.Header.Set("Traceparent", "00-"+testTrace+"-00f067aa0ba902b7-01")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

// askRaw sends a request without a body whose query and headers need not be well-formed.
func askRaw(h http.Handler, method, path, query string, headers map[string]string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, http.NoBody)
	r.URL.RawQuery = query
	for name, value := range headers {
		r.Header[name] = []string{value}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// problemOf decodes an error.
func problemOf(tb testing.TB, w *httptest.ResponseRecorder) Problem {
	tb.Helper()
	var p Problem
	if err := strict(w.Body.Bytes(), &p); err != nil || w.Header().Get("Content-Type") != "application/problem+json" {
		tb.Fatalf("answer %d is no problem (%v): %s", w.Code, err, w.Body)
	}
	return p
}

// strict decodes JSON with encoding/json, without unknown members.
func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the value")
	}
	return nil
}

// conforms holds JSON to a type: no unknown member by the letter, and every member that may not be absent.
func conforms(data []byte, t reflect.Type) error {
	v := reflect.New(t)
	if err := strict(data, v.Interface()); err != nil {
		return err
	}
	return complete(json.RawMessage(data), t, "")
}

func complete(data json.RawMessage, t reflect.Type, at string) error {
	switch t.Kind() {
	case reflect.Pointer:
		return complete(data, t.Elem(), at)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return nil // base64, which strict has read
		}
		var elements []json.RawMessage
		if err := json.Unmarshal(data, &elements); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		if elements == nil {
			return fmt.Errorf("%s is null", at)
		}
		for i, e := range elements {
			if err := complete(e, t.Elem(), fmt.Sprintf("%s/%d", at, i)); err != nil {
				return err
			}
		}
	case reflect.Struct:
		var members map[string]json.RawMessage
		if err := json.Unmarshal(data, &members); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		for _, f := range reflect.VisibleFields(t) {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous || name == "" {
				continue
			}
			m, present := members[name]
			delete(members, name)
			switch {
			case present:
				if err := complete(m, f.Type, at+"/"+name); err != nil {
					return err
				}
			case options != "omitempty":
				return fmt.Errorf("%s lacks %q", at, name)
			}
		}
		for name := range members {
			return fmt.Errorf("%s has %q, which %v has not", at, name, t)
		}
	}
	return nil
}

// routeOf finds the row of the table that serves a request.
func routeOf(method, path string) *route {
	s := &server{backend: &fake{}}
	var best *route
	for _, rt := range s.routes() {
		pattern := regexp.QuoteMeta(rt.path)
		pattern = regexp.MustCompile(`\\\{[a-z]+\\\.\\\.\\\.\\\}`).ReplaceAllString(pattern, `.+`)
		pattern = regexp.MustCompile(`\\\{[a-z]+\\\}`).ReplaceAllString(pattern, `[^/]+`)
		if rt.method == method && regexp.MustCompile("^"+pattern+"$").MatchString(path) {
			best = &rt
		}
	}
	return best
}

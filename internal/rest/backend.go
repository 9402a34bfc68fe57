package rest

import (
	"context"
	"time"

	"hanse/api/inventorypb"
	"hanse/api/keyspacepb"
	"hanse/api/notificationpb"
	"hanse/api/orderpb"
	"hanse/api/paymentpb"
)

// Request is what every changing call carries besides its own content.
type Request struct {
	// Caller scopes the idempotency key: the API caller.
	Caller string
	// Key is the idempotency key; empty for none. Hash digests the request, so that
	// another one under the same key is noticed.
	Key  string
	Hash uint64
}

// Mark says at which point of which shard's history an answer was true ("order/0:1234"); empty for none. A
// read that passes one sees at least that.
type Mark string

// Answer is a changed or found object with its circumstances.
type Answer[T any] struct {
	Value T
	Mark  Mark
	// Replayed says that the request was a retry and this is the first answer again.
	Replayed bool
	// Pending says that the saga has not ended within the wait.
	Pending bool
}

// Consistency of a read.
type Consistency struct {
	// AtLeast asks for read-your-writes at any replica; Stale for whatever the node has. Neither: linearizable.
	AtLeast Mark
	Stale   bool
}

// The interfaces below are what the handlers need; *node.Client provides them. Every method returns a
// *reject.Rejection for a refusal, a *reject.Failure when there is no answer (retry with the same
// key), ctx's error, or a fault. IDs are passed as the user sent them.

// Orders places and changes orders.
type Orders interface {
	// Place waits until the order is confirmed or refused, at most wait. A refused order is a *reject.Rejection and
	// the answer still holds the order.
	Place(ctx context.Context, r Request, p *orderpb.Place, wait time.Duration) (Answer[*orderpb.Order], error)
	Cancel(ctx context.Context, r Request, c *orderpb.Cancel, wait time.Duration) (Answer[*orderpb.Order], error)
	Fulfill(ctx context.Context, r Request, c *orderpb.Fulfill) (Answer[*orderpb.Order], error)
	Return(ctx context.Context, r Request, c *orderpb.ReturnItems) (Answer[*orderpb.Order], error)
	Refund(ctx context.Context, r Request, c *orderpb.RefundAmount) (Answer[*orderpb.Order], error)
	// Order finds an order, at a version of its history or (0) as it is.
	Order(ctx context.Context, id string, version uint64, c Consistency) (Answer[*orderpb.Order], error)
	// OrdersOf lists a customer's orders, newest first, after the ID of the page before.
	OrdersOf(ctx context.Context, customer, after string, limit int, c Consistency) (Answer[*orderpb.OrderList], error)
	OrderEvents(ctx context.Context, id string, c Consistency) (Answer[*orderpb.EventList], error)
	// Sagas lists unfinished sagas of all shards (only stuck ones when stuck), after the ID of the page before.
	Sagas(ctx context.Context, stuck bool, after string, limit int) (Answer[*orderpb.OrderList], error)
	RetryStep(ctx context.Context, r Request, c *orderpb.RetryStep) (Answer[*orderpb.Order], error)
	ResolveStep(ctx context.Context, r Request, c *orderpb.ResolveStep) (Answer[*orderpb.Order], error)
	// ScanOrders pages over all orders of one shard with their events, for the audit: an encoded orderpb.HistoryScan.
	ScanOrders(ctx context.Context, shard int, after string, limit int) (Answer[[]byte], error)
}

// Inventory changes and reads stock and free-standing reservations.
type Inventory interface {
	Receive(ctx context.Context, r Request, c *inventorypb.Receive) (Answer[*inventorypb.Item], error)
	Adjust(ctx context.Context, r Request, c *inventorypb.Adjust) (Answer[*inventorypb.Item], error)
	SetTracking(ctx context.Context, r Request, c *inventorypb.SetTracking) (Answer[*inventorypb.Item], error)
	// StockOf returns the SKU at all its locations.
	StockOf(ctx context.Context, sku string, c Consistency) (Answer[*inventorypb.ItemList], error)
	// Reserve makes a free-standing reservation of one SKU that expires after ttl.
	Reserve(ctx context.Context, r Request, sku, location string, quantity int64, ttl time.Duration) (Answer[*inventorypb.Hold], error)
	Reservation(ctx context.Context, id string, c Consistency) (Answer[*inventorypb.Hold], error)
	ReleaseReservation(ctx context.Context, r Request, id string) (Answer[*inventorypb.Hold], error)
	// ScanItems, ScanHolds and Movements page over one shard, for the audit.
	ScanItems(ctx context.Context, shard int, afterSKU, afterLocation string, limit int) (Answer[*inventorypb.ItemList], error)
	ScanHolds(ctx context.Context, shard int, after string, limit int) (Answer[*inventorypb.HoldList], error)
	Movements(ctx context.Context, shard int, after uint64, limit int) (Answer[*inventorypb.MovementList], error)
}

// Payments reads payments and lets operators settle them.
type Payments interface {
	Payment(ctx context.Context, id string, c Consistency) (Answer[*paymentpb.Payment], error)
	// WakePayment asks the provider again; a provider's callback does no more.
	WakePayment(ctx context.Context, id string) error
	ScanPayments(ctx context.Context, shard int, after string, limit int, stuck bool) (Answer[*paymentpb.PaymentList], error)
	RetryOp(ctx context.Context, r Request, c *paymentpb.RetryOp) (Answer[*paymentpb.Payment], error)
	ResolveOp(ctx context.Context, r Request, c *paymentpb.ResolveOp) (Answer[*paymentpb.Payment], error)
}

// Keys reads and writes the keyspaces of level raft.
type Keys interface {
	Put(ctx context.Context, r Request, c *keyspacepb.Put) (Answer[*keyspacepb.Value], error)
	CompareAndSet(ctx context.Context, r Request, c *keyspacepb.CompareAndSet) (Answer[*keyspacepb.Value], error)
	Delete(ctx context.Context, r Request, c *keyspacepb.Delete) (Answer[*keyspacepb.Value], error)
	Key(ctx context.Context, keyspace, key string, c Consistency) (Answer[*keyspacepb.Value], error)
}

// Endpoints manages webhook receivers.
type Endpoints interface {
	CreateEndpoint(ctx context.Context, r Request, url string, types []string) (Answer[*notificationpb.Endpoint], error)
	DeleteEndpoint(ctx context.Context, r Request, id string) error
	EnableEndpoint(ctx context.Context, r Request, id string) (Answer[*notificationpb.Endpoint], error)
	Endpoints(ctx context.Context) (Answer[*notificationpb.EndpointList], error)
}

// FeedEvent is an event at its position in the feed of an order shard.
type FeedEvent struct {
	Shard    int
	Position uint64
	Event    *orderpb.Event
}

// Feed reads the event feeds of all order shards.
type Feed interface {
	// FeedEnds returns the newest position of each order shard.
	FeedEnds(ctx context.Context) ([]uint64, error)
	// FollowFeed calls fn with events after the given position of each shard, in order within a shard,
	// as they are committed, until ctx ends or fn fails.
	FollowFeed(ctx context.Context, after []uint64, fn func([]FeedEvent) error) error
}

// Backend is everything the API needs.
type Backend interface {
	Orders
	Inventory
	Payments
	Keys
	Endpoints
	Feed
	Operator
}

package node

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"hanse/api/inventorypb"
	"hanse/api/keyspacepb"
	"hanse/api/notificationpb"
	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/clock"
	"hanse/internal/cluster"
	"hanse/internal/id"
	"hanse/internal/order"
	"hanse/internal/payment"
	"hanse/internal/reject"
	"hanse/internal/replica"
	"hanse/internal/rest"
	"hanse/internal/shard"
	"hanse/internal/slot"
	"hanse/internal/trace"
)

const (
	// callTimeout bounds a command or read whose caller set no earlier deadline.
	callTimeout = 10 * time.Second
	// retryAfter is what clients are told to wait when no leader answers: about an election.
	retryAfter = time.Second
	// busyAfter is what they are told when queues are full.
	busyAfter = 200 * time.Millisecond
)

// patience says what refusal may soon be another answer, for how long it is asked for again, and at which interval.
type patience struct {
	code        string
	time, pause time.Duration
}

var (
	// A payment that its order knows of is about to be recorded.
	untilRecorded = patience{reject.PaymentNotFound, 2 * time.Second, 5 * time.Millisecond}
	// Stock may be held for orders that are just being placed. A node that has died leaves some behind, until its order's shard has a leader again that
	// can be asked.
	untilPlaced = patience{shard.CodeAgain, 5 * time.Second, 100 * time.Millisecond}
)

// Client turns typed operations into commands and queries of the shards that own them. It implements rest.Backend.
type Client struct {
	router *router
	layout shard.Layout
	clock  *clock.Clock
	feed   *feedSignal
	// publicOnly says that webhooks go to public addresses only.
	publicOnly bool
	*operator
}

var _ rest.Backend = (*Client)(nil)

// message is what generated protobuf types offer.
type message interface {
	MarshalVT() ([]byte, error)
	UnmarshalVT([]byte) error
}

func encode(m message) []byte {
	data, err := m.MarshalVT()
	if err != nil {
		panic("node: encode command: " + err.Error()) // only a wrong size can fail
	}
	return data
}

func decode[T any, P interface {
	*T
	message
}](data []byte) (P, error) {
	v := P(new(T))
	if err := v.UnmarshalVT(data); err != nil {
		return nil, fmt.Errorf("decode answer: %w", err)
	}
	return v, nil
}

// propose carries out a command on the shard that owns sl, if its key is not another request's.
func (c *Client) propose(ctx context.Context, s shard.Service, sl slot.Slot, r rest.Request, m message, wait time.Duration) (shard.ID, shard.Result, error) {
	to := c.layout.Shard(s, sl)
	if claim := c.claim(r, to); claim != nil {
		home := c.layout.KeyHome(r.Key)
		result, err := c.send(ctx, home, rest.Request{}, &orderpb.Command{Body: &orderpb.Command_ClaimKey{ClaimKey: claim}}, true, 0)
		if err != nil || !result.OK() {
			return home, result, unclaimed(err)
		}
	}
	result, err := c.send(ctx, to, r, m, r.Key != "", wait)
	return to, result, err
}

// claim returns what has to be claimed for a request to a shard; nil when that shard keeps its key, or it has none.
func (c *Client) claim(r rest.Request, to shard.ID) *orderpb.ClaimKey {
	if r.Key == "" || c.layout.KeyHome(r.Key) == to || c.directory.features() < cluster.ClaimKeys {
		return nil
	}
	return &orderpb.ClaimKey{Caller: r.Caller, Key: r.Key, RequestHash: r.Hash}
}

// send has a shard carry out a command. Repeatable says that it recognizes a repetition.
func (c *Client) send(ctx context.Context, to shard.ID, r rest.Request, m message, repeatable bool, wait time.Duration) (shard.Result, error) {
	deadline := deadlineOf(ctx)
	if wait > 0 {
		deadline = time.Now().Add(wait)
	}
	cmd := shard.Command{Kind: shard.KindLogic, Caller: r.Caller, Key: r.Key, RequestHash: r.Hash, Payload: encode(m)}
	type answer struct {
		result shard.Result
		err    error
	}
	answers := make(chan answer, 1)
	c.router.propose(trace.Of(ctx), to, cmd, wait > 0, repeatable, deadline, func(result shard.Result, err error) {
		answers <- answer{result, err}
	})
	select {
	case a := <-answers:
		return a.result, c.failure(to, a.err)
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) { // a moment before the router has said so
			return shard.Result{}, c.failure(to, replica.ErrOutcomeUnknown)
		}
		return shard.Result{}, &reject.Failure{Shard: to.String(), Code: reject.OutcomeUnknown, Detail: "the caller stopped waiting", RetryAfter: retryAfter}
	}
}

func deadlineOf(ctx context.Context) time.Time {
	deadline := time.Now().Add(callTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		return d
	}
	return deadline
}

// query asks the shard that owns sl.
func (c *Client) query(ctx context.Context, to shard.ID, m message, cons rest.Consistency) (shard.Result, error) {
	consistency, atLeast := replica.Linearizable, uint64(0)
	if cons.Stale {
		consistency = replica.Stale
	} else if index, ok := markIndex(cons.AtLeast, to); ok {
		consistency, atLeast = replica.AtLeast, index
	}
	result, err := c.router.read(ctx, to, consistency, atLeast, encode(m), deadlineOf(ctx))
	if err != nil {
		return result, certain(c.failure(to, err)) // a read
	}
	if !result.OK() {
		return result, rejection(result)
	}
	return result, nil
}

// unclaimed is the failure of a request whose claim has no answer: it is not carried out, whether the claim was or not.
func unclaimed(err error) error {
	var f *reject.Failure
	if errors.As(certain(err), &f) {
		f.Detail += "; it keeps the request's idempotency key"
	}
	return err
}

// certain is the failure of what left nothing to be in doubt about.
func certain(err error) error {
	var f *reject.Failure
	if errors.As(err, &f) && f.Code == reject.OutcomeUnknown {
		f.Code = reject.Unavailable
	}
	return err
}

// failure says why a shard did not answer, and which of its nodes are missing.
func (c *Client) failure(to shard.ID, err error) error {
	var notLeader *replica.NotLeaderError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, replica.ErrBusy):
		return &reject.Failure{Shard: to.String(), Code: reject.Overloaded, Detail: fmt.Sprintf("shard %s has its queue full", to), RetryAfter: busyAfter}
	case errors.Is(err, replica.ErrOutcomeUnknown):
		return &reject.Failure{Shard: to.String(), Code: reject.OutcomeUnknown, Detail: fmt.Sprintf("shard %s did not answer in time", to) + c.router.missing(to), RetryAfter: retryAfter}
	case errors.As(err, &notLeader), errors.Is(err, errUnavailable), errors.Is(err, replica.ErrStopped),
		errors.Is(err, replica.ErrTimeout), errors.Is(err, replica.ErrNoReplica):
		return &reject.Failure{Shard: to.String(), Code: reject.Unavailable, Detail: fmt.Sprintf("shard %s has no leader that answers", to) + c.router.missing(to), RetryAfter: retryAfter}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &reject.Failure{Shard: to.String(), Code: reject.OutcomeUnknown, Detail: fmt.Sprintf("shard %s: %v", to, err), RetryAfter: retryAfter}
	}
	return err
}

func rejection(r shard.Result) *reject.Rejection {
	return &reject.Rejection{Code: r.Code, Field: r.Field, Detail: r.Detail}
}

func mark(to shard.ID, index uint64) rest.Mark {
	return rest.Mark(strconv.AppendUint(append(append(make([]byte, 0, 40), to.String()...), ':'), index, 10))
}

// markIndex returns the index that m has for shard to.
func markIndex(m rest.Mark, to shard.ID) (index uint64, ok bool) {
	name, rest, found := strings.Cut(string(m), ":")
	if !found || name != to.String() {
		return 0, false
	}
	_, err := fmt.Sscanf(rest, "%d", &index)
	return index, err == nil
}

func invalidID(err error) error {
	return &reject.Rejection{Code: reject.InvalidID, Detail: err.Error()}
}

func (c *Client) newID(kind string, sl slot.Slot) string {
	return id.New(kind, sl, c.clock.Now().UnixMilli(), mathrand.Uint64())
}

// Place implements rest.Orders.
func (c *Client) Place(ctx context.Context, r rest.Request, p *orderpb.Place, wait time.Duration) (rest.Answer[*orderpb.Order], error) {
	var a rest.Answer[*orderpb.Order]
	var sl slot.Slot
	switch {
	case p.CustomerId != "":
		sl = slot.Of(p.CustomerId)
	case r.Key != "":
		sl = slot.Of(r.Key) // so that a guest's retry finds the first order
	default:
		sl = slot.Slot(mathrand.IntN(slot.Count))
	}
	level := c.directory.features()
	p.AuthorizeAhead, p.CallFirst = level >= cluster.AuthorizeAhead, level >= cluster.CallFirst
	to := c.layout.Shard(shard.Order, sl)
	m := &orderpb.Command{Body: &orderpb.Command_Place{Place: p}}
	var result shard.Result
	var err error
	for {
		p.Id = c.newID(id.Order, sl)
		if order.Free(p) {
			_, result, err = c.propose(ctx, shard.Order, sl, r, m, wait)
		} else { // it claims its key itself, while its stock is being reserved
			p.Claim = c.claim(r, to)
			result, err = c.send(ctx, to, r, m, r.Key != "", wait)
		}
		if err != nil {
			return a, err
		}
		if result.Code != shard.CodeAgain { // hardly ever: its stock was asked about before it was there
			break
		}
	}
	a.Mark, a.Replayed = mark(to, result.Position), result.Replayed
	if result.Pending != "" {
		o, err := c.Order(ctx, result.Pending, 0, rest.Consistency{AtLeast: a.Mark})
		a.Value, a.Pending = o.Value, true
		if err != nil || !a.Replayed || a.Value.SettledRevision == 0 {
			return a, err
		}
		// Repeated without a wait, but there is nothing left to wait for: the answer is that of then.
		a.Pending = false
		if settled := a.Value.SettledRevision; settled < a.Value.Revision {
			if o, err = c.Order(ctx, result.Pending, settled, rest.Consistency{AtLeast: a.Mark}); err != nil {
				return a, err
			}
			a.Value = o.Value
		}
		if refusal := order.Refusal(a.Value); refusal != nil {
			return a, refusal
		}
		return a, nil
	}
	if len(result.Payload) > 0 {
		if a.Value, err = decode[orderpb.Order](result.Payload); err != nil {
			return a, err
		}
	}
	if !result.OK() {
		return a, rejection(result)
	}
	return a, nil
}

// change carries out a command on an existing order and returns the order as the command left it.
func (c *Client) change(ctx context.Context, r rest.Request, orderID string, m *orderpb.Command, wait time.Duration) (rest.Answer[*orderpb.Order], error) {
	var a rest.Answer[*orderpb.Order]
	sl, err := id.Parse(id.Order, orderID)
	if err != nil {
		return a, invalidID(err)
	}
	to, result, err := c.propose(ctx, shard.Order, sl, r, m, wait)
	if err != nil {
		return a, err
	}
	if !result.OK() {
		return a, rejection(result)
	}
	a.Mark, a.Replayed, a.Pending = mark(to, result.Position), result.Replayed, result.Pending != ""
	version := uint64(0)
	if !a.Pending && len(result.Payload) > 0 {
		receipt, err := decode[orderpb.Receipt](result.Payload)
		if err != nil {
			return a, err
		}
		version = receipt.Revision
	}
	o, err := c.Order(ctx, orderID, version, rest.Consistency{AtLeast: a.Mark})
	a.Value = o.Value
	if err != nil || !a.Pending || !a.Replayed || !order.Ended(a.Value.State) {
		return a, err
	}
	a.Pending = false // repeated without a wait, but there is nothing left to wait for: the answer is the order at its end
	list, err := c.OrderEvents(ctx, orderID, rest.Consistency{AtLeast: a.Mark})
	if err != nil {
		return a, err
	}
	for _, e := range list.Value.Events {
		if order.KindOf(e) == order.KindEnded && e.Version < a.Value.Revision {
			o, err = c.Order(ctx, orderID, e.Version, rest.Consistency{AtLeast: a.Mark})
			a.Value = o.Value
		}
	}
	return a, err
}

// Cancel implements rest.Orders.
func (c *Client) Cancel(ctx context.Context, r rest.Request, m *orderpb.Cancel, wait time.Duration) (rest.Answer[*orderpb.Order], error) {
	return c.change(ctx, r, m.Id, &orderpb.Command{Body: &orderpb.Command_Cancel{Cancel: m}}, wait)
}

// Fulfill implements rest.Orders.
func (c *Client) Fulfill(ctx context.Context, r rest.Request, m *orderpb.Fulfill) (rest.Answer[*orderpb.Order], error) {
	m.FulfillmentId = c.childID(id.Fulfillment, m.Id)
	return c.change(ctx, r, m.Id, &orderpb.Command{Body: &orderpb.Command_Fulfill{Fulfill: m}}, 0)
}

// Return implements rest.Orders.
func (c *Client) Return(ctx context.Context, r rest.Request, m *orderpb.ReturnItems) (rest.Answer[*orderpb.Order], error) {
	m.ReturnId = c.childID(id.Return, m.Id)
	return c.change(ctx, r, m.Id, &orderpb.Command{Body: &orderpb.Command_ReturnItems{ReturnItems: m}}, 0)
}

// Refund implements rest.Orders.
func (c *Client) Refund(ctx context.Context, r rest.Request, m *orderpb.RefundAmount) (rest.Answer[*orderpb.Order], error) {
	m.RefundId = c.childID(id.Refund, m.Id)
	return c.change(ctx, r, m.Id, &orderpb.Command{Body: &orderpb.Command_RefundAmount{RefundAmount: m}}, 0)
}

// childID makes an ID in the slot of an order; an invalid order ID is refused later.
func (c *Client) childID(kind, orderID string) string {
	sl, err := id.Parse(id.Order, orderID)
	if err != nil {
		return ""
	}
	return c.newID(kind, sl)
}

// RetryStep implements rest.Orders.
func (c *Client) RetryStep(ctx context.Context, r rest.Request, m *orderpb.RetryStep) (rest.Answer[*orderpb.Order], error) {
	return c.change(ctx, r, m.Id, &orderpb.Command{Body: &orderpb.Command_RetryStep{RetryStep: m}}, 0)
}

// ResolveStep implements rest.Orders.
func (c *Client) ResolveStep(ctx context.Context, r rest.Request, m *orderpb.ResolveStep) (rest.Answer[*orderpb.Order], error) {
	m.TellPayment = c.directory.features() >= cluster.TellPayment
	return c.change(ctx, r, m.Id, &orderpb.Command{Body: &orderpb.Command_ResolveStep{ResolveStep: m}}, 0)
}

// ask sends a query and decodes its answer.
func ask[T any, P interface {
	*T
	message
}](ctx context.Context, c *Client, to shard.ID, q message, cons rest.Consistency) (rest.Answer[P], error) {
	var a rest.Answer[P]
	result, err := c.query(ctx, to, q, cons)
	if err != nil {
		return a, err
	}
	a.Mark = mark(to, result.Position)
	a.Value, err = decode[T, P](result.Payload)
	return a, err
}

// tell carries out a command and decodes the payload of its result.
func tell[T any, P interface {
	*T
	message
}](ctx context.Context, c *Client, s shard.Service, sl slot.Slot, r rest.Request, m message) (rest.Answer[P], error) {
	var a rest.Answer[P]
	to, result, err := c.propose(ctx, s, sl, r, m, 0)
	if err != nil {
		return a, err
	}
	a.Mark, a.Replayed = mark(to, result.Position), result.Replayed
	if len(result.Payload) > 0 || result.OK() {
		if a.Value, err = decode[T, P](result.Payload); err != nil {
			return a, err
		}
	}
	if !result.OK() {
		return a, rejection(result)
	}
	return a, nil
}

func (c *Client) orderShard(orderID string) (shard.ID, error) {
	sl, err := id.Parse(id.Order, orderID)
	if err != nil {
		return 0, invalidID(err)
	}
	return c.layout.Shard(shard.Order, sl), nil
}

// Order implements rest.Orders.
func (c *Client) Order(ctx context.Context, orderID string, version uint64, cons rest.Consistency) (rest.Answer[*orderpb.Order], error) {
	to, err := c.orderShard(orderID)
	if err != nil {
		return rest.Answer[*orderpb.Order]{}, err
	}
	q := &orderpb.Query{Body: &orderpb.Query_Find{Find: &orderpb.FindOrder{Id: orderID, Version: version}}}
	return ask[orderpb.Order](ctx, c, to, q, cons)
}

// OrdersOf implements rest.Orders.
func (c *Client) OrdersOf(ctx context.Context, customer, after string, limit int, cons rest.Consistency) (rest.Answer[*orderpb.OrderList], error) {
	q := &orderpb.Query{Body: &orderpb.Query_List{List: &orderpb.ListOrders{CustomerId: customer, After: after, Limit: uint32(limit)}}}
	return ask[orderpb.OrderList](ctx, c, c.layout.Shard(shard.Order, slot.Of(customer)), q, cons)
}

// OrderEvents implements rest.Orders.
func (c *Client) OrderEvents(ctx context.Context, orderID string, cons rest.Consistency) (rest.Answer[*orderpb.EventList], error) {
	to, err := c.orderShard(orderID)
	if err != nil {
		return rest.Answer[*orderpb.EventList]{}, err
	}
	return ask[orderpb.EventList](ctx, c, to, &orderpb.Query{Body: &orderpb.Query_Events{Events: &orderpb.ListEvents{Id: orderID}}}, cons)
}

// Sagas implements rest.Orders: the pages of all shards, merged by order ID.
func (c *Client) Sagas(ctx context.Context, stuck bool, after string, limit int) (rest.Answer[*orderpb.OrderList], error) {
	a := rest.Answer[*orderpb.OrderList]{Value: &orderpb.OrderList{}}
	if _, err := id.Parse(id.Order, after); after != "" && err != nil { // it would give the orders behind it in the alphabet
		return a, &reject.Rejection{Code: reject.InvalidID, Field: "/cursor", Detail: err.Error()}
	}
	q := &orderpb.Query{Body: &orderpb.Query_Sagas{Sagas: &orderpb.ListSagas{Stuck: stuck, After: after, Limit: uint32(limit)}}}
	for i := range c.layout[shard.Order] {
		page, err := ask[orderpb.OrderList](ctx, c, shard.NewID(shard.Order, i), q, rest.Consistency{})
		if err != nil {
			return a, err
		}
		a.Value.Orders = append(a.Value.Orders, page.Value.Orders...)
		a.Value.More = a.Value.More || page.Value.More
	}
	slices.SortFunc(a.Value.Orders, func(x, y *orderpb.Order) int { return strings.Compare(x.Id, y.Id) })
	if len(a.Value.Orders) > limit {
		a.Value.Orders, a.Value.More = a.Value.Orders[:limit], true
	}
	return a, nil
}

// ScanOrders implements rest.Orders.
func (c *Client) ScanOrders(ctx context.Context, index int, after string, limit int) (a rest.Answer[[]byte], err error) {
	to := shard.NewID(shard.Order, index)
	q := &orderpb.Query{Body: &orderpb.Query_Histories{Histories: &orderpb.ScanHistories{After: after, Limit: uint32(limit), MaxBytes: 4 << 20}}}
	result, err := c.query(ctx, to, q, rest.Consistency{})
	if err != nil {
		return a, err
	}
	a.Mark, a.Value = mark(to, result.Position), result.Payload
	return a, nil
}

// Receive implements rest.Stock.
func (c *Client) Receive(ctx context.Context, r rest.Request, m *inventorypb.Receive) (rest.Answer[*inventorypb.Item], error) {
	return tell[inventorypb.Item](ctx, c, shard.Inventory, slot.Of(m.Sku), r, &inventorypb.Command{Body: &inventorypb.Command_Receive{Receive: m}})
}

// Adjust implements rest.Stock.
func (c *Client) Adjust(ctx context.Context, r rest.Request, m *inventorypb.Adjust) (rest.Answer[*inventorypb.Item], error) {
	m.AwaitTentative = c.directory.features() >= cluster.AwaitTentative
	return takeStock[inventorypb.Item](ctx, c, m.Sku, r, &inventorypb.Command{Body: &inventorypb.Command_Adjust{Adjust: m}})
}

// takeStock carries out a command that takes units of an SKU. It waits while that depends on what is held tentatively.
func takeStock[T any, P interface {
	*T
	message
}](ctx context.Context, c *Client, sku string, r rest.Request, m *inventorypb.Command) (rest.Answer[P], error) {
	sl := slot.Of(sku)
	why := fmt.Sprintf("whether there is enough of %s depends on what is held for orders that are just being placed", sku)
	return patiently(ctx, untilPlaced, c.layout.Shard(shard.Inventory, sl), why, func() (rest.Answer[P], error) {
		return tell[T, P](ctx, c, shard.Inventory, sl, r, m)
	})
}

// SetTracking implements rest.Stock.
func (c *Client) SetTracking(ctx context.Context, r rest.Request, m *inventorypb.SetTracking) (rest.Answer[*inventorypb.Item], error) {
	return tell[inventorypb.Item](ctx, c, shard.Inventory, slot.Of(m.Sku), r, &inventorypb.Command{Body: &inventorypb.Command_SetTracking{SetTracking: m}})
}

// StockOf implements rest.Stock.
func (c *Client) StockOf(ctx context.Context, sku string, cons rest.Consistency) (rest.Answer[*inventorypb.ItemList], error) {
	q := &inventorypb.Query{Body: &inventorypb.Query_Find{Find: &inventorypb.FindItem{Sku: sku}}}
	return ask[inventorypb.ItemList](ctx, c, c.layout.Shard(shard.Inventory, slot.Of(sku)), q, cons)
}

// Reserve implements rest.Stock.
func (c *Client) Reserve(ctx context.Context, r rest.Request, sku, location string, quantity int64, ttl time.Duration) (rest.Answer[*inventorypb.Hold], error) {
	m := &inventorypb.Reserve{
		HoldId: c.newID(id.Reservation, slot.Of(sku)), Location: location, FreeStanding: true,
		Demands: []*inventorypb.Demand{{Sku: sku, Quantity: quantity}},
		Due:     c.clock.Now().Add(ttl).UnixMilli(), AwaitTentative: c.directory.features() >= cluster.AwaitTentative,
	}
	return takeStock[inventorypb.Hold](ctx, c, sku, r, &inventorypb.Command{Body: &inventorypb.Command_Reserve{Reserve: m}})
}

// Reservation implements rest.Stock.
func (c *Client) Reservation(ctx context.Context, holdID string, cons rest.Consistency) (rest.Answer[*inventorypb.Hold], error) {
	sl, err := id.Parse(id.Reservation, holdID)
	if err != nil {
		return rest.Answer[*inventorypb.Hold]{}, invalidID(err)
	}
	q := &inventorypb.Query{Body: &inventorypb.Query_Hold{Hold: &inventorypb.FindHold{Id: holdID}}}
	return ask[inventorypb.Hold](ctx, c, c.layout.Shard(shard.Inventory, sl), q, cons)
}

// ReleaseReservation implements rest.Stock.
func (c *Client) ReleaseReservation(ctx context.Context, r rest.Request, holdID string) (rest.Answer[*inventorypb.Hold], error) {
	sl, err := id.Parse(id.Reservation, holdID)
	if err != nil {
		return rest.Answer[*inventorypb.Hold]{}, invalidID(err)
	}
	m := &inventorypb.Command{Body: &inventorypb.Command_Release{Release: &inventorypb.Release{HoldId: holdID}}}
	return tell[inventorypb.Hold](ctx, c, shard.Inventory, sl, r, m)
}

// ScanItems implements rest.Stock.
func (c *Client) ScanItems(ctx context.Context, index int, afterSKU, afterLocation string, limit int) (rest.Answer[*inventorypb.ItemList], error) {
	q := &inventorypb.Query{Body: &inventorypb.Query_Items{Items: &inventorypb.ScanItems{AfterSku: afterSKU, AfterLocation: afterLocation, Limit: uint32(limit)}}}
	return ask[inventorypb.ItemList](ctx, c, shard.NewID(shard.Inventory, index), q, rest.Consistency{})
}

// ScanHolds implements rest.Stock.
func (c *Client) ScanHolds(ctx context.Context, index int, after string, limit int) (rest.Answer[*inventorypb.HoldList], error) {
	q := &inventorypb.Query{Body: &inventorypb.Query_Holds{Holds: &inventorypb.ScanHolds{After: after, Limit: uint32(limit)}}}
	return ask[inventorypb.HoldList](ctx, c, shard.NewID(shard.Inventory, index), q, rest.Consistency{})
}

// Movements implements rest.Stock.
func (c *Client) Movements(ctx context.Context, index int, after uint64, limit int) (rest.Answer[*inventorypb.MovementList], error) {
	q := &inventorypb.Query{Body: &inventorypb.Query_Movements{Movements: &inventorypb.ListMovements{After: after, Limit: uint32(limit)}}}
	return ask[inventorypb.MovementList](ctx, c, shard.NewID(shard.Inventory, index), q, rest.Consistency{})
}

func (c *Client) paymentSlot(paymentID string) (slot.Slot, error) {
	sl, err := id.Parse(id.Payment, paymentID)
	if err != nil {
		return 0, invalidID(err)
	}
	return sl, nil
}

// Payment implements rest.Payments. An order may hear that it is paid a moment before its payment is on record: then this waits.
func (c *Client) Payment(ctx context.Context, paymentID string, cons rest.Consistency) (rest.Answer[*paymentpb.Payment], error) {
	sl, err := c.paymentSlot(paymentID)
	if err != nil {
		return rest.Answer[*paymentpb.Payment]{}, err
	}
	q := &paymentpb.Query{Body: &paymentpb.Query_Find{Find: &paymentpb.FindPayment{Id: paymentID}}}
	to := c.layout.Shard(shard.Payment, sl)
	a, err := ask[paymentpb.Payment](ctx, c, to, q, cons)
	if cons.Stale || !isRejected(err, reject.PaymentNotFound) {
		return a, err
	}
	o, noOrder := c.Order(ctx, id.Sibling(id.Order, paymentID), 0, rest.Consistency{})
	if noOrder != nil || o.Value.PaymentId != paymentID || o.Value.Authorized == 0 {
		return a, err
	}
	why := fmt.Sprintf("payment %s is authorized and about to be recorded", paymentID)
	return patiently(ctx, untilRecorded, to, why, func() (rest.Answer[*paymentpb.Payment], error) {
		return ask[paymentpb.Payment](ctx, c, to, q, rest.Consistency{})
	})
}

// patiently tries again while a shard refuses as p says. When p or ctx ends it says why there is no answer.
func patiently[T any](ctx context.Context, p patience, to shard.ID, why string, try func() (rest.Answer[T], error)) (rest.Answer[T], error) {
	for end := time.Now().Add(p.time); ; {
		a, err := try()
		if !isRejected(err, p.code) {
			return a, err
		}
		if time.Now().Before(end) {
			select {
			case <-time.After(p.pause):
				continue
			case <-ctx.Done():
			}
		}
		return a, &reject.Failure{Shard: to.String(), Code: reject.Unavailable, Detail: why, RetryAfter: retryAfter}
	}
}

func isRejected(err error, code string) bool {
	var r *reject.Rejection
	return errors.As(err, &r) && r.Code == code
}

// WakePayment implements rest.Payments. Most callbacks come for operations that have been answered: a look at the nearest
// replica spares them an entry in the log. One that lags shows an operation as under way, or not at all, and its timer comes.
func (c *Client) WakePayment(ctx context.Context, paymentID string) error {
	sl, err := c.paymentSlot(paymentID)
	if err != nil {
		return err
	}
	p, err := c.Payment(ctx, paymentID, rest.Consistency{Stale: true})
	if err == nil && !payment.Waits(p.Value) {
		return nil
	}
	m := &paymentpb.Command{Body: &paymentpb.Command_Wake{Wake: &paymentpb.Wake{PaymentId: paymentID}}}
	_, result, err := c.propose(ctx, shard.Payment, sl, rest.Request{}, m, 0)
	if err == nil && !result.OK() {
		return rejection(result)
	}
	return err
}

// ScanPayments implements rest.Payments.
func (c *Client) ScanPayments(ctx context.Context, index int, after string, limit int, stuck bool) (rest.Answer[*paymentpb.PaymentList], error) {
	q := &paymentpb.Query{Body: &paymentpb.Query_Scan{Scan: &paymentpb.ScanPayments{After: after, Limit: uint32(limit), Stuck: stuck}}}
	return ask[paymentpb.PaymentList](ctx, c, shard.NewID(shard.Payment, index), q, rest.Consistency{})
}

// RetryOp implements rest.Payments.
func (c *Client) RetryOp(ctx context.Context, r rest.Request, m *paymentpb.RetryOp) (rest.Answer[*paymentpb.Payment], error) {
	m.RefuseEnded = c.directory.features() >= cluster.TellPayment
	return c.settlePayment(ctx, r, m.PaymentId, &paymentpb.Command{Body: &paymentpb.Command_Retry{Retry: m}})
}

// ResolveOp implements rest.Payments.
func (c *Client) ResolveOp(ctx context.Context, r rest.Request, m *paymentpb.ResolveOp) (rest.Answer[*paymentpb.Payment], error) {
	m.RefuseEnded = c.directory.features() >= cluster.TellPayment
	return c.settlePayment(ctx, r, m.PaymentId, &paymentpb.Command{Body: &paymentpb.Command_Resolve{Resolve: m}})
}

func (c *Client) settlePayment(ctx context.Context, r rest.Request, paymentID string, m *paymentpb.Command) (rest.Answer[*paymentpb.Payment], error) {
	sl, err := c.paymentSlot(paymentID)
	if err != nil {
		return rest.Answer[*paymentpb.Payment]{}, err
	}
	to, result, err := c.propose(ctx, shard.Payment, sl, r, m, 0)
	if err != nil {
		return rest.Answer[*paymentpb.Payment]{}, err
	}
	if !result.OK() {
		return rest.Answer[*paymentpb.Payment]{}, rejection(result)
	}
	a, err := c.Payment(ctx, paymentID, rest.Consistency{AtLeast: mark(to, result.Position)})
	a.Replayed = result.Replayed
	return a, err
}

// Put implements rest.Keys.
func (c *Client) Put(ctx context.Context, r rest.Request, m *keyspacepb.Put) (rest.Answer[*keyspacepb.Value], error) {
	return tell[keyspacepb.Value](ctx, c, shard.Keyspace, slot.Of(m.Key), r, &keyspacepb.Command{Body: &keyspacepb.Command_Put{Put: m}})
}

// CompareAndSet implements rest.Keys.
func (c *Client) CompareAndSet(ctx context.Context, r rest.Request, m *keyspacepb.CompareAndSet) (rest.Answer[*keyspacepb.Value], error) {
	return tell[keyspacepb.Value](ctx, c, shard.Keyspace, slot.Of(m.Key), r, &keyspacepb.Command{Body: &keyspacepb.Command_Cas{Cas: m}})
}

// Delete implements rest.Keys.
func (c *Client) Delete(ctx context.Context, r rest.Request, m *keyspacepb.Delete) (rest.Answer[*keyspacepb.Value], error) {
	return tell[keyspacepb.Value](ctx, c, shard.Keyspace, slot.Of(m.Key), r, &keyspacepb.Command{Body: &keyspacepb.Command_Delete{Delete: m}})
}

// Key implements rest.Keys.
func (c *Client) Key(ctx context.Context, keyspace, key string, cons rest.Consistency) (rest.Answer[*keyspacepb.Value], error) {
	q := &keyspacepb.Query{Body: &keyspacepb.Query_Find{Find: &keyspacepb.FindKey{Keyspace: keyspace, Key: key}}}
	return ask[keyspacepb.Value](ctx, c, c.layout.Shard(shard.Keyspace, slot.Of(key)), q, cons)
}

// CreateEndpoint implements rest.Endpoints. Deliveries begin with what happens from now on.
func (c *Client) CreateEndpoint(ctx context.Context, r rest.Request, url string, types []string) (rest.Answer[*notificationpb.Endpoint], error) {
	if c.publicOnly {
		if err := checkReceiver(url); err != nil {
			return rest.Answer[*notificationpb.Endpoint]{}, err
		}
	}
	ends, err := c.FeedEnds(ctx)
	if err != nil {
		return rest.Answer[*notificationpb.Endpoint]{}, err
	}
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return rest.Answer[*notificationpb.Endpoint]{}, fmt.Errorf("draw webhook secret: %w", err)
	}
	m := &notificationpb.CreateEndpoint{
		Id: c.newID(id.Endpoint, 0), Url: url, Types: types, Secret: "whsec_" + base64.StdEncoding.EncodeToString(key[:]),
		Shards: uint32(len(ends)), Cursors: ends,
	}
	return tell[notificationpb.Endpoint](ctx, c, shard.Notification, 0, r, &notificationpb.Command{Body: &notificationpb.Command_Create{Create: m}})
}

// DeleteEndpoint implements rest.Endpoints.
func (c *Client) DeleteEndpoint(ctx context.Context, r rest.Request, endpointID string) error {
	m := &notificationpb.Command{Body: &notificationpb.Command_Delete{Delete: &notificationpb.DeleteEndpoint{Id: endpointID}}}
	_, result, err := c.propose(ctx, shard.Notification, 0, r, m, 0)
	if err == nil && !result.OK() {
		return rejection(result)
	}
	return err
}

// EnableEndpoint implements rest.Endpoints.
func (c *Client) EnableEndpoint(ctx context.Context, r rest.Request, endpointID string) (rest.Answer[*notificationpb.Endpoint], error) {
	m := &notificationpb.Command{Body: &notificationpb.Command_Enable{Enable: &notificationpb.EnableEndpoint{Id: endpointID}}}
	return tell[notificationpb.Endpoint](ctx, c, shard.Notification, 0, r, m)
}

// Endpoints implements rest.Endpoints.
func (c *Client) Endpoints(ctx context.Context) (rest.Answer[*notificationpb.EndpointList], error) {
	q := &notificationpb.Query{Body: &notificationpb.Query_List{List: &notificationpb.ListEndpoints{}}}
	return ask[notificationpb.EndpointList](ctx, c, shard.NewID(shard.Notification, 0), q, rest.Consistency{})
}

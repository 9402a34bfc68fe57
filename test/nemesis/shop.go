package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"hanse/client"
)

// outcome is what a customer knows about a request.
type outcome int

const (
	notAsked outcome = iota
	accepted
	refused
	open // no answer yet: it may or may not have happened, and is asked again at the end, with the same key
)

// request is a change that was asked for, with its idempotency key.
type request struct {
	Outcome outcome
	Code    string // of a refusal
	Amount  int64  // of a refund
}

// sale is one order and all that was asked about it. Its reference is its idempotency key, too, and the suffixes of the others.
type sale struct {
	Reference string
	Customer  string
	Order     client.PlaceOrder
	Placed    request
	ID        string // once an answer has named it
	// Told is the state that the answer named: confirmed, or one on the way.
	Told                    string
	Cancel, Fulfill, Refund request
}

func (s *sale) total() (t int64) {
	for _, l := range s.Order.Lines {
		t += l.Quantity * l.UnitPrice
	}
	return t
}

// sample is how one order fared with its customer.
type sample struct {
	Begin, Took time.Duration
	Answered    bool
}

// timely says that the customer had an answer before giving up.
func (s sample) timely() bool { return s.Answered && s.Took <= inTime }

// shop sells at a steady rate.
type shop struct {
	shops  []*client.Client // shop servers, each with its own idea of which nodes are up
	seed   uint64
	rate   float64 // orders a second
	well   bool    // no order asks the provider to fail
	now    func() time.Duration
	length time.Duration

	mu      sync.Mutex
	sales   []*sale
	samples []sample
	shed    atomic.Int64 // orders that were not even sent, for too many waited
}

const (
	skus = 24
	// Of the last SKUs there is little, so that orders are refused for want of stock, too.
	scarce      = 2
	plenty      = 50_000_000
	scarceStock = 400

	// inTime is what a customer waits for an answer; the shop's server goes on asking a little longer, to know how long it takes.
	inTime    = 2 * time.Second
	patience  = 10 * time.Second
	attempt   = 400 * time.Millisecond // besides waiting for the outcome
	waitOrder = time.Second            // how long a node may wait for an order's outcome before it answers that it goes on
	maxAtOnce = 2000
)

func sku(i int) string { return fmt.Sprintf("SKU-%02d", i) }

func stockOf(i int) int64 {
	if i >= skus-scarce {
		return scarceStock
	}
	return plenty
}

// fill receives the stock that is sold.
func fill(ctx context.Context, c *client.Client) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range skus {
		g.Go(func() error {
			_, err := c.Receive(ctx, "fill-"+sku(i), sku(i), client.StockChange{Quantity: stockOf(i), Reason: "opening"})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("fill the shelves: %w", err)
	}
	return nil
}

// prefix begins the references of this shop's orders.
func (s *shop) prefix() string { return fmt.Sprintf("r%d-", s.seed) }

// draw makes up an order.
func (s *shop) draw(rng *rand.Rand, n int) *sale {
	o := &sale{Reference: s.prefix() + strconv.Itoa(n), Customer: fmt.Sprintf("customer-%d", rng.IntN(300))}
	o.Order = client.PlaceOrder{CustomerID: o.Customer, Currency: "EUR", Payment: &client.Method{Method: "card"}, MerchantReference: o.Reference}
	switch r := rng.IntN(100); {
	case r < 2:
		o.Order.Payment.Method = "pm_declined"
	case r < 4 && !s.well:
		o.Order.Payment.Method = "pm_error_5xx"
	}
	for _, i := range rng.Perm(skus)[:1+rng.IntN(3)] {
		o.Order.Lines = append(o.Order.Lines, client.NewLine{SKU: sku(i), Quantity: 1 + rng.Int64N(3), UnitPrice: 100 + rng.Int64N(5000)})
	}
	return o
}

// sell places orders at the shop's rate until ctx ends, and returns when the last customer has an answer or has given up.
func (s *shop) sell(ctx context.Context) {
	rng := rand.New(rand.NewPCG(s.seed, 1))
	var wg sync.WaitGroup
	defer wg.Wait()
	places := make(chan struct{}, maxAtOnce)
	begin := s.now()
	for n := 0; ; n++ {
		// Open loop: an order comes when its time has come, whether or not earlier ones have their answer.
		due := begin + time.Duration(float64(n)/s.rate*float64(time.Second))
		select {
		case <-ctx.Done():
			return
		case <-time.After(due - s.now()):
		}
		o, c, fate := s.draw(rng, n), s.shops[n%len(s.shops)], rng.Uint64()
		select {
		case places <- struct{}{}:
		default:
			s.shed.Add(1)
			s.book(nil, sample{Begin: s.now()})
			continue
		}
		wg.Go(func() {
			defer func() { <-places }()
			s.serve(ctx, c, o, rand.New(rand.NewPCG(fate, 3)))
		})
	}
}

// book keeps a sale and how it went.
func (s *shop) book(o *sale, took sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o != nil {
		s.sales = append(s.sales, o)
	}
	s.samples = append(s.samples, took)
}

// serve is the life of one order as its customer sees it.
func (s *shop) serve(ctx context.Context, c *client.Client, o *sale, rng *rand.Rand) {
	begin := s.now()
	s.ask(c, patience, o.place)
	s.book(o, sample{Begin: begin, Took: s.now() - begin, Answered: o.Placed.Outcome != open})
	if o.Placed.Outcome != accepted || o.Told != "confirmed" {
		return
	}
	think := func() bool {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(time.Duration(rng.Int64N(int64(3 * time.Second)))):
			return true
		}
	}
	if !think() {
		return
	}
	switch r := rng.IntN(100); {
	case r < 20:
		s.ask(c, patience, o.cancel)
	case r < 65:
		s.ask(c, patience, o.fulfill)
		if rng.IntN(3) == 0 && think() {
			o.Refund.Amount = 1 + rng.Int64N(o.total())
			s.ask(c, patience, o.refund)
		}
	}
}

// ask carries a request out with the patience of a shop's server. What was sent is waited for even when the run is over.
func (s *shop) ask(c *client.Client, patience time.Duration, what func(context.Context, *client.Client)) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	what(ctx, c)
}

// heard notes an answer. Only a refusal or an acceptance is one.
func (r *request) heard(err error) {
	e, ok := errors.AsType[*client.Error](err)
	switch {
	case err == nil:
		r.Outcome = accepted
	case ok && e.Status < 500 && !e.Retryable:
		r.Outcome, r.Code = refused, e.Code
	default:
		r.Outcome = open
	}
}

func (o *sale) place(ctx context.Context, c *client.Client) {
	order, err := c.PlaceOrder(ctx, o.Reference, &o.Order)
	o.Placed.heard(err)
	if err == nil {
		o.ID, o.Told = order.ID, order.State
	} else if e, ok := errors.AsType[*client.Error](err); ok && e.OrderID != "" {
		o.ID = e.OrderID
	}
}

func (o *sale) cancel(ctx context.Context, c *client.Client) {
	_, err := c.Cancel(ctx, o.Reference+"-cancel", o.ID, "changed my mind")
	o.Cancel.heard(err)
}

func (o *sale) fulfill(ctx context.Context, c *client.Client) {
	_, err := c.Fulfill(ctx, o.Reference+"-fulfill", o.ID, nil, "")
	o.Fulfill.heard(err)
}

func (o *sale) refund(ctx context.Context, c *client.Client) {
	_, err := c.Refund(ctx, o.Reference+"-refund", o.ID, o.Refund.Amount, "late")
	o.Refund.heard(err)
}

// settlers is how many open requests are asked again at once.
const settlers = 16

// settle asks every request that has no answer again, with its key, now that all is well. It returns how many there were and what is
// still open.
func (s *shop) settle(ctx context.Context, c *client.Client) (asked int, failures []string) {
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(settlers)
	for _, o := range s.sales {
		for what, r := range map[string]*request{"place": &o.Placed, "cancel": &o.Cancel, "fulfill": &o.Fulfill, "refund": &o.Refund} {
			if r.Outcome != open {
				continue
			}
			asked++
			do := map[string]func(context.Context, *client.Client){"place": o.place, "cancel": o.cancel, "fulfill": o.fulfill, "refund": o.refund}[what]
			g.Go(func() error { // at most one request of an order is open
				do(ctx, c)
				if r.Outcome == open {
					mu.Lock()
					failures = append(failures, fmt.Sprintf("%s of %s has no answer", what, o.Reference))
					mu.Unlock()
				}
				return nil
			})
		}
	}
	_ = g.Wait() // its functions return nil
	return asked, failures
}

// repeats is how many answered requests are sent again at the end.
const repeats = 300

// repeat sends a sample of accepted orders again: the answer has to name the same order, and to say that it is a repetition.
func (s *shop) repeat(ctx context.Context, c *client.Client) (asked int, failures []string) {
	rng := rand.New(rand.NewPCG(s.seed, 4))
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(settlers)
	for _, i := range rng.Perm(len(s.sales)) {
		o := s.sales[i]
		if o.Placed.Outcome != accepted {
			continue
		}
		if asked++; asked > repeats {
			break
		}
		g.Go(func() error {
			again, err := c.PlaceOrder(ctx, o.Reference, &o.Order)
			problem := ""
			switch e, ok := errors.AsType[*client.Error](err); {
			case ok && o.Told != "confirmed" && e.OrderID == o.ID: // accepted while it was under way, refused in the end
			case err != nil:
				problem = err.Error()
			case again.ID != o.ID:
				problem = "is now order " + again.ID
			case !again.Replayed:
				problem = "was carried out again"
			}
			if problem != "" {
				mu.Lock()
				failures = append(failures, fmt.Sprintf("%s, order %s, asked again: %s", o.Reference, o.ID, problem))
				mu.Unlock()
			}
			return nil
		})
	}
	_ = g.Wait() // its functions return nil
	return min(asked, repeats), failures
}

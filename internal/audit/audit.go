package audit

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"hanse/client"
	"hanse/internal/id"
)

// Source is what an audit reads; [Folding] makes one of a cluster's client. Orders, holds and payments come in the order of their IDs.
type Source interface {
	Shards(ctx context.Context) (*client.Shards, error)
	ScanOrders(ctx context.Context, shard int, after string, limit int) ([]Order, bool, error)
	ScanItems(ctx context.Context, shard int, afterSKU, afterLocation string, limit int) ([]client.Location, bool, error)
	ScanHolds(ctx context.Context, shard int, after string, limit int) ([]client.Hold, bool, error)
	ScanMovements(ctx context.Context, shard int, after uint64, limit int) ([]client.Movement, bool, error)
	Payments(ctx context.Context, shard int, after string, limit int, stuck bool) ([]client.Payment, bool, error)
}

// Order is an order as it is stored, and what its events say when that is something else.
type Order struct {
	Stored client.Order
	// Folded is the fold of the events when it differs, Broken why they have none.
	Folded *client.Order
	Broken string
}

// Charge is an operation of the provider's ledger.
type Charge struct {
	// Seq numbers the ledger's rows from 1.
	Seq                            uint64
	Key, PaymentID, Kind, Currency string
	Amount                         int64
	Declined                       bool
}

// Ledger calls fn with the rows of the provider's ledger after row number after, in their order.
type Ledger func(ctx context.Context, after uint64, fn func(Charge)) error

// Difference is one thing that is not as it should be.
type Difference struct {
	Kind     string `json:"kind"`
	ID       string `json:"id"`
	Expected string `json:"expected"`
	Found    string `json:"found"`
}

func (d Difference) String() string {
	return fmt.Sprintf("%s %s: expected %s, found %s", d.Kind, d.ID, d.Expected, d.Found)
}

// The kinds of differences.
const (
	OrderNotItsEvents  = "order_is_not_its_events" // the stored order is not the fold of its events
	OrderLine          = "order_line"              // quantities or total of a line do not fit
	OrderTotal         = "order_total"             // the total is not the sum of the lines
	OrderMoney         = "order_money"             // the order's amounts do not fit to one another
	OrderStalled       = "order_stalled"           // the saga has stopped without being stuck
	HoldMissing        = "hold_missing"            // an order's stock is not kept
	HoldDiffers        = "hold_differs"            // another quantity or state than the order's
	HoldWithoutOrder   = "hold_without_order"      // stock kept for nobody
	PaymentMissing     = "payment_missing"
	PaymentDiffers     = "payment_differs"    // other amounts than the order's
	PaymentOperations  = "payment_operations" // the amounts are not the sums of the operations
	PaymentNoOrder     = "payment_without_order"
	ChargedTwice       = "charged_twice"    // more than one authorization at the provider
	LedgerDiffers      = "ledger_differs"   // the provider has done something else than the payment says
	LedgerResolved     = "ledger_resolved"  // the same, by what an operator has decided
	LedgerNoPayment    = "ledger_has_more"  // the provider has a payment that the cluster does not know
	StockDiffers       = "stock_differs"    // a counter is not the sum of what moved it
	MovementGap        = "movement_gap"     // a receipt or adjustment is missing
	OutOfOrder         = "out_of_order"     // a shard's rows are not sorted: nothing can be said about them
	TooManyDifferences = "more_differences" // so many that they are not all named
)

// Report is what an audit has found.
type Report struct {
	Orders   int `json:"orders"`
	SKUs     int `json:"skus"`
	Payments int `json:"payments"`
	// CheckedAt is the applied index of each shard when the audit began, as the answering node knew it.
	CheckedAt   map[string]uint64 `json:"checked_at"`
	Differences []Difference      `json:"differences"`
	// LedgerCompared says that the provider's ledger was there to be compared with.
	LedgerCompared bool `json:"ledger_compared"`
	// Resolved are the payments of which the provider has something else because an operator has decided what came of an operation. They are
	// no differences: a person answers for them.
	Resolved []Difference `json:"resolved"`
	// Open counts orders that were under way to the end, Stuck those of them that wait for a person. Moving counts SKUs that
	// changed while they were summed up, each time.
	Open   int `json:"open"`
	Stuck  int `json:"stuck"`
	Moving int `json:"moving"`
}

// Config says how patient an audit is.
type Config struct {
	// Looks is how often what differs is looked at before it is reported. Default 6.
	Looks int
	// Pause is the time between two looks. Default 500 ms: several round trips of a saga.
	Pause time.Duration
	// StalledAfter is how long an order may be under way without being stuck. Default 20 minutes: longer than
	// the 15 minutes after which a step without an answer is called stuck.
	StalledAfter time.Duration
	// Now tells the time. Default time.Now.
	Now func() time.Time
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{Looks: 6, Pause: 500 * time.Millisecond, StalledAfter: 20 * time.Minute, Now: time.Now}
}

const (
	// pageRows is how many rows are read at once; orders of a thousand lines make pages of fewer.
	pageRows = 500
	// maxSuspects bounds the orders that are looked at again, maxNamed the differences that are named.
	maxSuspects = 100_000
	maxNamed    = 10_000
)

// Run audits a cluster; without a ledger it is not compared with the provider's.
func Run(ctx context.Context, s Source, ledger Ledger, cfg Config) (*Report, error) {
	shards, err := s.Shards(ctx)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	a := &auditor{
		source: s, cfg: cfg, counts: shards.Counts, suspects: make(map[string]verdict), rested: make(map[place]bool),
		report: Report{CheckedAt: make(map[string]uint64), Differences: []Difference{}, Resolved: []Difference{}},
	}
	for _, sh := range shards.Shards {
		a.report.CheckedAt[sh.ID] = sh.Applied
	}
	if ledger != nil {
		a.provider, a.report.LedgerCompared = newProvider(ledger), true
		if err := a.provider.read(ctx); err != nil {
			return nil, err
		}
	}
	if err := a.pass(ctx, a.examine); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	a.leftovers()
	for look := 1; look < cfg.Looks && (len(a.suspects) > 0 || a.report.Moving > 0); look++ {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(cfg.Pause):
		}
		if err := a.lookAgain(ctx); err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
	}
	for _, v := range a.suspects {
		a.conclude(v)
	}
	slices.SortFunc(a.report.Differences, byKind)
	slices.SortFunc(a.report.Resolved, byKind)
	if n := len(a.report.Differences); n > maxNamed {
		a.report.Differences = append(a.report.Differences[:maxNamed], Difference{TooManyDifferences, "all", fmt.Sprintf("at most %d", maxNamed), fmt.Sprint(n)})
	}
	return &a.report, nil
}

func byKind(x, y Difference) int {
	return cmp.Or(strings.Compare(x.Kind, y.Kind), strings.Compare(x.ID, y.ID), strings.Compare(x.Expected, y.Expected))
}

// auditor is an audit under way.
type auditor struct {
	source   Source
	cfg      Config
	counts   map[string]int // shards of each service
	provider *provider      // nil without a ledger
	suspects map[string]verdict
	// rested are the places whose counters have been compared.
	rested map[place]bool
	report Report
}

func (a *auditor) differ(kind, id string, expected, found any) {
	a.report.Differences = append(a.report.Differences, Difference{kind, id, fmt.Sprint(expected), fmt.Sprint(found)})
}

// examine judges an order during the first pass. What is not in order is looked at again later.
func (a *auditor) examine(g *group) {
	if g.order != nil {
		a.report.Orders++
	}
	if g.payment != nil {
		a.report.Payments++
	}
	v := a.judge(g)
	if v.fine() {
		a.report.Resolved = append(a.report.Resolved, v.resolved...)
		return
	}
	if len(a.suspects) < maxSuspects {
		a.suspects[g.id] = v
	} else {
		a.conclude(v)
	}
}

// leftovers suspects what the provider knows and no payment has asked for.
func (a *auditor) leftovers() {
	if a.provider == nil {
		return
	}
	for _, paymentID := range a.provider.unseen() {
		if _, ok := suffix(paymentID); ok && len(a.suspects) < maxSuspects {
			g := &group{id: id.Sibling(id.Order, paymentID)}
			if _, ok := a.suspects[g.id]; !ok {
				a.suspects[g.id] = a.judge(g)
			}
			continue
		}
		a.differ(LedgerNoPayment, paymentID, "a payment", "none")
	}
}

// lookAgain reads the suspects anew, one by one, and sums up the SKUs that have not rested.
func (a *auditor) lookAgain(ctx context.Context) error {
	if a.provider != nil {
		if err := a.provider.read(ctx); err != nil {
			return err
		}
	}
	for orderID := range a.suspects {
		g, err := a.find(ctx, orderID)
		if err != nil {
			return err
		}
		if v := a.judge(g); v.fine() {
			a.report.Resolved = append(a.report.Resolved, v.resolved...)
			delete(a.suspects, orderID)
		} else {
			a.suspects[orderID] = v
		}
	}
	if a.report.Moving == 0 {
		return nil
	}
	return a.pass(ctx, func(*group) {})
}

func (a *auditor) conclude(v verdict) {
	if v.open {
		a.report.Open++
	}
	if v.stuck {
		a.report.Stuck++
	}
	a.report.Differences = append(a.report.Differences, v.differences...)
	a.report.Resolved = append(a.report.Resolved, v.resolved...)
}

// pass reads the whole cluster once: every order with its holds and its payment goes to examine, and the counters
// of the SKUs are compared.
func (a *auditor) pass(ctx context.Context, examine func(*group)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := newStock()
	if err := a.items(ctx, s.before); err != nil {
		return err
	}
	if err := a.movements(ctx, s); err != nil {
		return err
	}
	join := a.join(ctx)
	for {
		g, err := join.next(ctx)
		if err != nil {
			return err
		}
		if g == nil {
			break
		}
		s.add(g)
		examine(g)
	}
	if err := a.items(ctx, func(item *client.Location) { s.compare(a, item) }); err != nil {
		return err
	}
	s.finish(a)
	return nil
}

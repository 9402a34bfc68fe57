package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"hanse/client"
	"hanse/internal/money"
	"hanse/internal/replay"
)

// shop carries a replay out over the public client.
type shop struct{ c *client.Client }

var _ replay.Shop = (*shop)(nil)

// refusal turns the cluster's final no into the replay's.
func refusal(err error) error {
	var e *client.Error
	if errors.As(err, &e) && !e.Retryable {
		return &replay.Refusal{Code: e.Code, Detail: e.Detail}
	}
	return err
}

func (s *shop) Receive(ctx context.Context, r replay.Receipt) error {
	_, err := s.c.Receive(ctx, r.Key, r.SKU, client.StockChange{Quantity: r.Quantity, Reason: "replay"})
	return refusal(err)
}

func (s *shop) Adjust(ctx context.Context, a *replay.Adjustment) error {
	_, err := s.c.Adjust(ctx, a.Key, a.SKU, client.StockChange{Quantity: a.Quantity, Reason: a.Reason})
	return refusal(err)
}

func (s *shop) Place(ctx context.Context, o *replay.Order) (replay.Placed, error) {
	p := &client.PlaceOrder{
		CustomerID: o.Customer, Currency: replay.Currency, Payment: &client.Method{Method: "card"}, MerchantReference: o.Invoice,
		Lines: make([]client.NewLine, len(o.Lines)),
	}
	for i, l := range o.Lines {
		p.Lines[i] = client.NewLine{SKU: l.SKU, Quantity: l.Quantity, UnitPrice: l.Price}
		if l.Untracked {
			p.Lines[i].Tracked = new(bool)
		}
	}
	asked := time.Now().Truncate(time.Millisecond) // as precise as the cluster's times
	for {
		placed, err := s.c.PlaceOrder(ctx, o.Key, p)
		if err != nil {
			return replay.Placed{}, refusal(err)
		}
		if placed.State == "placing" || placed.State == "awaiting_payment" {
			continue // the wait ended before the saga: the same key joins it again
		}
		out := replay.Placed{ID: placed.ID, Lines: len(placed.Lines), Total: placed.Total}
		// A request that was repeated because a node died is answered as a repetition too: it is of this run, and its wait counts.
		out.Replayed = placed.Replayed && placed.CreatedAt.Before(asked)
		for _, l := range placed.Lines {
			out.Units += l.Quantity
		}
		return out, nil
	}
}

func (s *shop) Ship(ctx context.Context, key, orderID string) error {
	_, err := s.c.Fulfill(ctx, key, orderID, nil, "")
	return refusal(err)
}

func (s *shop) Return(ctx context.Context, key, orderID string, items []replay.ReturnItem, reason string) error {
	r := &client.ReturnItems{Reason: reason}
	for _, it := range items {
		r.Items = append(r.Items, client.Item{Line: uint32(it.Line), Quantity: it.Quantity})
	}
	_, err := s.c.Return(ctx, key, orderID, r)
	return refusal(err)
}

func (s *shop) Booked(ctx context.Context, orderID string) (replay.Booked, error) {
	o, err := s.c.Order(ctx, orderID, 0)
	if err != nil {
		return replay.Booked{}, refusal(err)
	}
	var b replay.Booked
	for _, l := range o.Lines {
		b.Returned += l.Returned
	}
	for _, r := range o.Refunds {
		b.Refunds += r.Amount
	}
	return b, nil
}

// replayReport is the JSON of a replay; its names are stable.
type replayReport struct {
	Orders           int       `json:"orders"`
	Lines            int       `json:"lines"`
	Units            int64     `json:"units"`
	AmountMinor      int64     `json:"amount_minor"`
	ReturnsBooked    int       `json:"returns_booked"`
	ReturnsRejected  int       `json:"returns_rejected"`
	RefundMinor      int64     `json:"refund_minor"`
	Adjustments      int       `json:"adjustments"`
	RejectedOrders   int       `json:"rejected_orders"`
	Replayed         int       `json:"replayed"`
	Seconds          float64   `json:"seconds"`
	OrdersPerSecond  float64   `json:"orders_per_second"`
	Latency          latencyMS `json:"latency_ms"`
	AuditDifferences *int      `json:"audit_differences"`
	LedgerCompared   bool      `json:"ledger_compared"`
	// Expected is what the file has, up to the last order of --limit; AsExpected says that just that was booked.
	Expected   expectedFigures `json:"expected"`
	AsExpected bool            `json:"as_expected"`
}

type expectedFigures struct {
	Orders          int   `json:"orders"`
	Lines           int   `json:"lines"`
	Units           int64 `json:"units"`
	AmountMinor     int64 `json:"amount_minor"`
	ReturnsBooked   int   `json:"returns_booked"`
	ReturnsRejected int   `json:"returns_rejected"`
	RefundMinor     int64 `json:"refund_minor"`
	Adjustments     int   `json:"adjustments"`
}

func expected(t replay.Truth) expectedFigures {
	return expectedFigures{
		Orders: t.Orders, Lines: t.Lines, Units: t.Units, AmountMinor: t.Amount, ReturnsBooked: t.ReturnsBooked, ReturnsRejected: t.Rejected,
		RefundMinor: t.Refunded, Adjustments: t.Adjustments,
	}
}

type latencyMS struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (a *app) replayCmd() *cobra.Command {
	var withDev, noAudit, synthetic bool
	var o devOptions
	var workers, limit int
	var run string
	cmd := &cobra.Command{
		Use: "replay FILE|--synthetic", Short: "Run a year of a real shop through a cluster", Args: cobra.MaximumNArgs(1),
		Long: "Run a year of a real shop through a cluster: receive its stock, place, ship and charge its orders, book its adjustments and\nreturns. It can be interrupted and run again, and books nothing twice. --synthetic\ninvents a shop of the same profile instead of reading a file, as a run of its own.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if workers < 1 || limit < 0 {
				return usage("want at least one worker, and a limit of 0 or more orders")
			}
			if synthetic == (len(args) == 1) {
				return usage("want the file of a shop, or --synthetic for an invented one")
			}
			plan, err := a.plan(args, replay.Options{Run: run, Limit: limit})
			if err != nil {
				return err
			}
			drive := func(ctx context.Context, c *client.Client, psp string) error {
				err := a.replay(ctx, c, psp, plan, replayRun{workers: workers, limit: limit, synthetic: synthetic, noAudit: noAudit})
				if err != nil && ctx.Err() != nil && withDev && o.dir == "" {
					fmt.Fprintln(a.err, "the cluster was started for this replay, and is gone; with --dir it can be gone on with")
				}
				return err
			}
			if !withDev {
				c, err := client.New(client.Config{Addrs: splitAddrs(a.addr), RetryFor: 2 * time.Minute, Connections: workers})
				if err != nil {
					return &usageError{err}
				}
				if err := c.Discover(cmd.Context()); err != nil {
					return err
				}
				return drive(cmd.Context(), c, "")
			}
			o.quiet = true
			return a.withDev(cmd.Context(), o, func(ctx context.Context, d *devRun) error {
				fmt.Fprintf(a.err, "%d nodes are ready, data in %s\n", o.nodes, d.dir)
				c, err := client.New(client.Config{Addrs: d.alive, RetryFor: 2 * time.Minute, Connections: workers})
				if err != nil {
					return err
				}
				return drive(ctx, c, d.psp)
			})
		},
	}
	f := cmd.Flags()
	f.IntVar(&workers, "workers", replay.DefaultConfig().Workers, "customers served at once")
	f.IntVar(&limit, "limit", 0, "number of orders; 0 for all")
	f.StringVar(&run, "run", "", fmt.Sprintf("name of the run: another one books everything anew; %s unless given, %s for the invented shop", replay.DefaultRun, syntheticRun))
	f.BoolVar(&synthetic, "synthetic", false, "an invented shop instead of a file")
	f.BoolVar(&noAudit, "no-audit", false, "do not audit at the end")
	f.BoolVar(&withDev, "dev", false, "start a cluster for it")
	f.IntVar(&o.nodes, "nodes", 3, "with --dev: number of nodes")
	f.IntVar(&o.shards, "shards", 0, "with --dev: shards of orders, stock and payments: as many as the data in --dir has, or 1")
	f.StringVar(&o.dir, "dir", "", "with --dev: keep the data here")
	f.IntVar(&o.port, "http-port", 7400, "with --dev: first port")
	f.StringVar(&o.psp, "psp", "sim", "with --dev: payment provider: sim, instant or a URL")
	return cmd
}

// syntheticRun is the run of the invented shop: its keys are other requests than the real one's.
const syntheticRun = "synthetic"

// plan reads the file, or makes a shop up when none is given on purpose.
func (a *app) plan(files []string, opts replay.Options) (*replay.Plan, error) {
	if len(files) == 0 {
		opts.Run = cmp.Or(opts.Run, syntheticRun)
		// The whole year is invented whatever the limit, so that the first orders are the same with any.
		return replay.PlanRows(replay.Synthetic(1, replay.SyntheticOrders), opts)
	}
	plan, err := replay.PlanRows(replay.ReadFile(files[0]), opts)
	if _, unreadable := errors.AsType[*fs.PathError](err); unreadable {
		return nil, usage("%w; --synthetic invents a shop", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", files[0], err)
	}
	return plan, nil
}

// replayRun is how a plan is carried out, and of what it is.
type replayRun struct {
	workers, limit     int
	synthetic, noAudit bool
}

// source heads the column of what was to be booked.
func (r replayRun) source() string {
	s := "IN THE FILE"
	if r.synthetic {
		s = "IN THE INVENTED SHOP"
	}
	if r.limit > 0 {
		s += fmt.Sprintf(", UP TO ORDER %d", r.limit)
	}
	return s
}

func (a *app) replay(ctx context.Context, c *client.Client, psp string, plan *replay.Plan, run replayRun) error {
	var p replay.Progress
	stop := a.progress(&p, plan)
	result, err := replay.Drive(ctx, &shop{c}, plan, replay.Config{Workers: run.workers}, &p)
	stop()
	if err != nil {
		if ctx.Err() != nil {
			fmt.Fprintf(a.err, "interrupted after %d orders; run it again to go on\n", p.Orders.Load())
		}
		return err
	}
	report := replayReport{
		Orders: result.Orders, Lines: result.Lines, Units: result.Units, AmountMinor: result.Amount,
		ReturnsBooked: result.ReturnsBooked, ReturnsRejected: result.ReturnsRejected, RefundMinor: result.Refunded,
		Adjustments: result.Adjustments, RejectedOrders: result.RejectedOrders, Replayed: result.Replayed,
		Seconds: result.Took.Seconds(), OrdersPerSecond: float64(result.Orders) / result.Took.Seconds(),
		Latency:  latencyMS{millis(result.Percentile(.5)), millis(result.Percentile(.95)), millis(result.Percentile(.99)), millis(result.Percentile(1))},
		Expected: expected(plan.Truth), AsExpected: matches(result, plan),
	}
	var unaudited error
	if !run.noAudit {
		fmt.Fprintln(a.err, "auditing …")
		unaudited = a.auditReplay(ctx, c, psp, &report)
	}
	// What was booked stays booked, also when the audit is interrupted.
	if err := a.print(report, func(w io.Writer) { summary(w, report, result, run.source()) }); err != nil {
		return err
	}
	switch {
	case unaudited != nil:
		return fmt.Errorf("the replay is done, but not audited: %w", unaudited)
	case !report.AsExpected, report.AuditDifferences != nil && *report.AuditDifferences > 0:
		return errDifferent
	}
	return nil
}

// auditReplay notes how many differences an audit has found, and names some.
func (a *app) auditReplay(ctx context.Context, c *client.Client, psp string, report *replayReport) error {
	found, err := a.runAudit(ctx, c, psp)
	if err != nil {
		return err
	}
	n := len(found.Differences)
	report.AuditDifferences, report.LedgerCompared = &n, found.LedgerCompared
	for _, d := range found.Differences[:min(n, 20)] {
		fmt.Fprintln(a.err, "difference:", d)
	}
	return nil
}

// matches compares what was booked with what the file says.
func matches(r *replay.Result, plan *replay.Plan) bool {
	t := plan.Truth
	return r.Orders == t.Orders && r.Lines == t.Lines && r.Units == t.Units && r.Amount == t.Amount &&
		r.ReturnsBooked == t.ReturnsBooked && r.Refunded == t.Refunded && r.Adjustments == t.Adjustments
}

func summary(w io.Writer, r replayReport, result *replay.Result, source string) {
	t := r.Expected
	fmt.Fprintln(w)
	table(w, "\tBOOKED\t"+source, func(row func(...any)) {
		row("orders", r.Orders, t.Orders)
		row("lines", r.Lines, t.Lines)
		row("units", r.Units, t.Units)
		row("amount", money.Text(r.AmountMinor, replay.Currency), money.Text(t.AmountMinor, replay.Currency))
		row("returns booked", r.ReturnsBooked, t.ReturnsBooked)
		row("returns rejected", r.ReturnsRejected, t.ReturnsRejected)
		row("refunded", money.Text(r.RefundMinor, replay.Currency), money.Text(t.RefundMinor, replay.Currency))
		row("adjustments", r.Adjustments, t.Adjustments)
	})
	fmt.Fprintf(w, "\n%.1f s for %d orders (%d of them placed by an earlier run), %.0f orders/s, after %.1f s of receiving stock\n",
		r.Seconds, r.Orders, r.Replayed, r.OrdersPerSecond, result.Receiving.Seconds())
	fmt.Fprintf(w, "place to confirmed: p50 %.1f ms, p95 %.1f ms, p99 %.1f ms, max %.1f ms\n", r.Latency.P50, r.Latency.P95, r.Latency.P99, r.Latency.Max)
	for code, refused := range result.Refusals {
		fmt.Fprintf(w, "refused %d times: %s, for example %s\n", refused.Count, code, refused.Example)
	}
	if r.AuditDifferences != nil {
		found := "no difference"
		if n := *r.AuditDifferences; n > 0 {
			found = plural(n, "difference")
		}
		if !r.LedgerCompared {
			found += "; the provider's ledger was not compared"
		}
		fmt.Fprintln(w, "audit:", found)
	}
	if !r.AsExpected {
		fmt.Fprintln(w, "What was booked is not what was to be booked.")
	}
}

// progress shows how far the replay is until the returned function is called: a line that is rewritten on a terminal, and
// otherwise a line now and then.
func (a *app) progress(p *replay.Progress, plan *replay.Plan) func() {
	interval, end := 5*time.Second, "\n"
	if f, ok := a.err.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			interval, end = 200*time.Millisecond, "\x1b[K\r" // what a longer line left is erased
		}
	}
	stop, done := make(chan struct{}), make(chan struct{})
	start := time.Now()
	show := func() {
		n := p.Orders.Load()
		if n == 0 {
			fmt.Fprintf(a.err, "receiving stock: %d of %d SKUs%s", p.Receipts.Load(), len(plan.Receipts), end)
			return
		}
		fmt.Fprintf(a.err, "%d of %d orders (%.0f %%), %s, %d returns, %d adjustments, %d refused, %.0f s%s", n, plan.Truth.Orders,
			100*float64(n)/float64(max(1, plan.Truth.Orders)), money.Text(p.Amount.Load(), replay.Currency), p.Returns.Load(), p.Adjustments.Load(),
			p.Refused.Load(), time.Since(start).Seconds(), end)
	}
	go func() {
		defer close(done)
		t := time.NewTicker(interval)
		defer t.Stop()
		for {
			select {
			case <-stop:
				show()
				if end != "\n" {
					fmt.Fprintln(a.err)
				}
				return
			case <-t.C:
				show()
			}
		}
	}()
	return func() {
		close(stop)
		<-done
	}
}

package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hanse/client"
	"hanse/internal/bench"
)

// benchReport is the JSON of `bench orders`; its names are stable.
type benchReport struct {
	Workload        string    `json:"workload"`
	Clients         int       `json:"clients"`
	Nodes           int       `json:"nodes"`
	Seconds         float64   `json:"seconds"`
	OrdersPerSecond float64   `json:"orders_per_second"`
	Latency         latencyMS `json:"latency_ms"`
	Orders          int64     `json:"orders"`
	Refused         int64     `json:"refused"`
	Retries         int64     `json:"retries"`
	Errors          int64     `json:"errors"`
	Oversold        int64     `json:"oversold"`
}

func (a *app) benchCmd() *cobra.Command {
	return group("bench", "Measure a running cluster", a.benchOrdersCmd())
}

func (a *app) benchOrdersCmd() *cobra.Command {
	load := bench.DefaultLoad()
	var workload, run string
	var clients int
	var stock int64
	cmd := &cobra.Command{
		Use: "orders", Short: "Place orders as fast as the cluster confirms them", Args: cobra.NoArgs,
		Long: "Place orders as fast as the cluster confirms them: each client sends the next one when the one before is confirmed. At the end the\nstock is compared with what was confirmed. With a small --stock it is a flash sale: what is there is sold, and no unit more.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if load.Workload, err = bench.ParseWorkload(workload); err != nil {
				return &usageError{err}
			}
			if err := load.Validate(); err != nil {
				return &usageError{err}
			}
			if clients < 1 || clients > 10_000 || stock < 1 || stock > 1_000_000_000 {
				return usage("want 1 to 10,000 clients and 1 to 1,000,000,000 units of stock")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Discover(cmd.Context()); err != nil {
				return err
			}
			if run == "" {
				run = "bench-" + time.Now().UTC().Format("20060102-150405")
			}
			return a.benchOrders(cmd.Context(), c, load, run, clients, stock)
		},
	}
	var names []string
	for _, w := range bench.Workloads() {
		names = append(names, string(w))
	}
	f := cmd.Flags()
	f.StringVar(&workload, "workload", string(load.Workload), "which SKUs are asked for: "+strings.Join(names, ", "))
	f.IntVar(&clients, "clients", 64, "orders under way at once")
	f.DurationVar(&load.Duration, "duration", load.Duration, "how long to measure")
	f.DurationVar(&load.Warmup, "warmup", load.Warmup, "how long to place orders before that")
	f.IntVar(&load.SKUs, "skus", load.SKUs, "number of SKUs")
	f.IntVar(&load.Lines, "lines", load.Lines, "lines of an order")
	f.Int64Var(&stock, "stock", 1_000_000, "units of each SKU received before")
	f.Uint64Var(&load.Seed, "seed", load.Seed, "seed of the choice of SKUs")
	f.StringVar(&run, "run", "", "begins the names of the SKUs and customers; drawn from the time unless given")
	return cmd
}

func (a *app) benchOrders(ctx context.Context, c *client.Client, load bench.Load, run string, clients int, stock int64) error {
	fmt.Fprintf(a.err, "receiving %d units of %d SKUs\n", stock, load.SKUs)
	shop, err := bench.Open(ctx, c.Addrs(), run, load.SKUs, stock)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.err, "%d clients, %s, %v\n", clients, load.Workload, load.Warmup+load.Duration)
	r, oversold, err := shop.Sell(ctx, load, clients)
	if err != nil {
		return err
	}
	report := benchReport{
		Workload: string(load.Workload), Clients: clients, Nodes: shop.Nodes, Seconds: r.Took.Seconds(), OrdersPerSecond: r.PerSecond(),
		Latency: latencyMS{millis(r.Latency.Quantile(.5)), millis(r.Latency.Quantile(.95)), millis(r.Latency.Quantile(.99)), millis(r.Latency.Max())},
		Orders:  r.Orders, Refused: r.Refused, Retries: shop.Retries.Load(), Errors: r.Errors, Oversold: oversold,
	}
	if err := a.print(report, func(w io.Writer) {
		fmt.Fprintf(w, "%.0f orders/s confirmed on %d nodes (%d orders in %.1f s, %d refused)\n", report.OrdersPerSecond, report.Nodes, report.Orders, report.Seconds, report.Refused)
		fmt.Fprintf(w, "place to confirmed: p50 %.1f ms, p95 %.1f ms, p99 %.1f ms, max %.1f ms\n", report.Latency.P50, report.Latency.P95, report.Latency.P99, report.Latency.Max)
		fmt.Fprintf(w, "%d requests were repeated, %d had no answer, %d units oversold\n", report.Retries, report.Errors, report.Oversold)
		if r.FirstError != nil {
			fmt.Fprintln(w, "for example:", r.FirstError)
		}
	}); err != nil {
		return err
	}
	if oversold > 0 {
		return errDifferent
	}
	return nil
}

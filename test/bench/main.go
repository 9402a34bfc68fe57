// Command bench compares Hanse with the systems that one would use instead, side by side in one run: the same work from the same
// loop, the same disk, the same durability.
//
//	go run ./test/bench orders [--seconds 10] [--systems hanse,postgres] [--workloads uniform,zipf,hot] [--clients 8,64,512,1024] [--json]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"hanse/internal/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// measurement is a row of the result.
type measurement struct {
	System    string  `json:"system"`
	Nodes     int     `json:"nodes"`
	Workload  string  `json:"workload"`
	Clients   int     `json:"clients"`
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
}

// options is what the command line says.
type options struct {
	systems   []string
	nodes     []int
	workloads []bench.Workload
	clients   []int
	load      bench.Load
	dir       string
	pool      int
	settings  settings
	report    io.Writer
}

// settings are PostgreSQL's, as name=value.
type settings map[string]string

func (s settings) String() string { return "" }

func (s settings) Set(v string) error {
	name, value, ok := strings.Cut(v, "=")
	if !ok {
		return errors.New("want name=value")
	}
	s[name] = value
	return nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	if len(args) == 0 || args[0] != "orders" {
		return errors.New("say what to compare: orders")
	}
	o := options{load: bench.DefaultLoad(), settings: settings{}, report: stderr}
	flags := flag.NewFlagSet("bench orders", flag.ContinueOnError)
	flags.SetOutput(stderr)
	seconds := flags.Float64("seconds", 10, "how long each combination is measured")
	warmup := flags.Float64("warmup", 2, "seconds before that")
	asJSON := flags.Bool("json", false, "print JSON")
	systems := flags.String("systems", "hanse,postgres", "systems to compare")
	nodes := flags.String("nodes", "1,3", "sizes of Hanse's cluster")
	workloads := flags.String("workloads", "uniform,zipf,hot", "workloads")
	clients := flags.String("clients", "8,64,512,1024", "numbers of clients")
	flags.IntVar(&o.load.SKUs, "skus", o.load.SKUs, "number of SKUs")
	flags.StringVar(&o.dir, "dir", "", "directory for the data of all systems, on the disk to be measured; a temporary one unless stated")
	flags.IntVar(&o.pool, "pool", 0, "connections to PostgreSQL; 0 tries what suits each workload")
	flags.Var(o.settings, "set", "a setting of PostgreSQL, name=value; may be repeated")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	o.load.Duration = time.Duration(*seconds * float64(time.Second))
	o.load.Warmup = time.Duration(*warmup * float64(time.Second))
	if o.systems, err = list(*systems, func(s string) (string, error) {
		if !slices.Contains([]string{"hanse", "postgres"}, s) {
			return "", fmt.Errorf("system %q: want hanse or postgres", s)
		}
		return s, nil
	}); err != nil {
		return err
	}
	if o.workloads, err = list(*workloads, bench.ParseWorkload); err != nil {
		return err
	}
	if o.clients, err = list(*clients, count); err != nil {
		return err
	}
	if o.nodes, err = list(*nodes, count); err != nil {
		return err
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "hanse-bench-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
		if err := os.Chmod(o.dir, 0o755); err != nil { // the server's user has to reach what is his
			return err
		}
	}
	results, err := compareOrders(ctx, o)
	if err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(stdout).Encode(map[string]any{"results": results})
	}
	return table(stdout, results)
}

func list[T any](s string, parse func(string) (T, error)) ([]T, error) {
	var all []T
	for part := range strings.SplitSeq(s, ",") {
		v, err := parse(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

func count(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 10_000 {
		return 0, fmt.Errorf("%q: want a number from 1 to 10000", s)
	}
	return n, nil
}

// table prints the results, with the ratio of each to the best of PostgreSQL on the same workload.
func table(w io.Writer, results []measurement) error {
	base := make(map[string]float64)
	for _, m := range results {
		if m.System == "postgres" {
			base[m.Workload] = max(base[m.Workload], m.PerSecond)
		}
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "system\tnodes\tworkload\tclients\torders/s\tp50 ms\tp99 ms\tx best postgres\t")
	for _, m := range results {
		ratio := "-"
		if base[m.Workload] > 0 {
			ratio = fmt.Sprintf("%.2f", m.PerSecond/base[m.Workload])
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%.0f\t%.2f\t%.2f\t%s\t\n", m.System, m.Nodes, m.Workload, m.Clients, m.PerSecond, m.P50, m.P99, ratio)
	}
	return t.Flush()
}

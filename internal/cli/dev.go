package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"hanse/client"
	"hanse/internal/dev"
)

// demo is what a new development cluster has in stock.
var demo = []struct {
	sku      string
	quantity int64
}{
	{"MUG-BLUE", 250}, {"MUG-RED", 250}, {"TEAPOT", 80}, {"TEA-EARL-GREY", 500}, {"TEA-GREEN", 500}, {"SPOON", 1000},
	{"TOWEL", 120}, {"LAMP", 40}, {"CLOCK", 25}, {"POSTER", 300}, {"CANDLE", 400}, {"LAST-ONE", 1},
}

const (
	// readyPatience is how long a cluster may take to be ready.
	readyPatience = 30 * time.Second
	devName       = "dev"
)

// devOptions are what `dev` and `replay --dev` start.
type devOptions struct {
	nodes int
	dir   string // empty for a temporary one
	port  int
	psp   string // sim, instant or a URL
	quiet bool
}

func (a *app) devCmd() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a cluster on this machine, to try things out", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withDev(cmd.Context(), o, func(ctx context.Context, d *devRun) error {
				if err := d.stockShop(ctx); err != nil {
					return err
				}
				d.welcome(a.out)
				<-ctx.Done()
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.nodes, "nodes", 3, "number of nodes, 1 to 9")
	f.StringVar(&o.dir, "dir", "", "keep the data here; without it everything is gone at the end")
	cmd.PersistentFlags().IntVar(&o.port, "http-port", 7400, "first port; node n listens 10 further on for each")
	f.StringVar(&o.psp, "psp", "sim", "payment provider: sim (a process with a ledger), instant (accepts everything), or a URL")
	for _, act := range []struct{ use, short string }{
		{"kill", "Kill a process with SIGKILL: a node by its number, or psp"},
		{"stop", "Stop a process in order: a node by its number, or psp"},
		{"start", "Start a process again: a node by its number, or psp"},
	} {
		cmd.AddCommand(&cobra.Command{Use: act.use + " NODE", Short: act.short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			c, err := findDev(o.port)
			if err != nil {
				return err
			}
			name := args[0]
			if _, err := strconv.Atoi(name); err == nil {
				name = "node " + name
			}
			s, err := c.Do(cmd.Context(), act.use, name)
			if err != nil {
				return err
			}
			return a.print(s, func(w io.Writer) { fmt.Fprintf(w, "%s: %s\n", s.Name, s.State) })
		}})
	}
	cmd.AddCommand(&cobra.Command{Use: "status", Short: "List the processes", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := findDev(o.port)
		if err != nil {
			return err
		}
		all, err := c.Status(cmd.Context())
		if err != nil {
			return err
		}
		return a.print(all, func(w io.Writer) {
			table(w, "PROCESS\tSTATE\tPID\tSINCE\tLOG", func(row func(...any)) {
				for _, s := range all {
					row(s.Name, s.State, s.PID, s.Since.Format("15:04:05"), s.Log)
				}
			})
		})
	}})
	return cmd
}

func findDev(port int) (*dev.Control, error) {
	c, err := dev.Find(dev.DefaultConfig().Runtime, strconv.Itoa(port))
	if err != nil {
		return nil, fmt.Errorf("%w at port %d: start one with hanse dev, or give --http-port", err, port)
	}
	return c, nil
}

// devRun is a running development cluster.
type devRun struct {
	opts  devOptions
	dir   string
	temp  bool
	addrs []string
	psp   string // URL, empty without a simulated provider
	c     *client.Client
	start time.Time
}

// withDev runs a development cluster for as long as use takes, and leaves nothing behind.
func (a *app) withDev(ctx context.Context, o devOptions, use func(context.Context, *devRun) error) (err error) {
	if o.nodes < 1 || o.nodes > dev.MaxNodes {
		return usage("--nodes %d: want 1 to %d", o.nodes, dev.MaxNodes)
	}
	d := &devRun{opts: o, dir: o.dir, start: time.Now()}
	if d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "hanse-dev-"); err != nil {
			return fmt.Errorf("make a temporary directory: %w", err)
		}
		d.temp = true
		defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	} else if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cfg := dev.DefaultConfig()
	cfg.Dir, cfg.Name = d.dir, strconv.Itoa(o.port)
	cfg.Report = func(s dev.Status) {
		if s.State == dev.Crashed {
			fmt.Fprintf(a.err, "%s crashed (%s):\n%s\n", s.Name, s.Exit, dev.Tail(s.Log, 12))
		} else if !o.quiet && time.Since(d.start) > 2*time.Second && ctx.Err() == nil {
			fmt.Fprintf(a.err, "%s: %s\n", s.Name, s.State)
		}
	}
	provider, urls := d.plan(&cfg, program)
	if err := dev.CheckPorts(urls...); err != nil {
		return fmt.Errorf("%w: another cluster may run there; choose other ports with --http-port", err)
	}
	s := dev.New(cfg)
	g, ctx := errgroup.WithContext(ctx)
	inner, stop := context.WithCancel(ctx)
	g.Go(func() error { defer stop(); return s.Run(inner) })
	g.Go(func() error {
		defer stop()
		ready, cancel := context.WithTimeout(inner, readyPatience)
		defer cancel()
		var probes []string
		if provider != "" {
			probes = append(probes, provider+"/readyz")
		}
		for _, addr := range d.addrs {
			probes = append(probes, "http://"+addr+"/readyz")
		}
		if err := dev.WaitReady(ready, probes...); err != nil {
			if inner.Err() != nil {
				return nil
			}
			return fmt.Errorf("the cluster did not start: %w; its logs are in %s", err, d.dir)
		}
		var err error
		if d.c, err = client.New(client.Config{Addrs: d.addrs}); err != nil {
			return err
		}
		defer d.c.Close()
		return use(inner, d)
	})
	return g.Wait()
}

// plan lists the processes, and the addresses they need.
func (d *devRun) plan(cfg *dev.Config, program string) (provider string, addrs []string) {
	o := d.opts
	psp := o.psp
	if psp == "sim" {
		addr := dev.Loopback(o.port + dev.ProviderOffset)
		addrs = append(addrs, addr)
		provider = "http://" + addr
		psp, d.psp = provider, provider
		cfg.Processes = append(cfg.Processes, dev.Process{Name: "psp", Command: []string{
			program, "psp", "--listen", addr, "--data", filepath.Join(d.dir, "psp"),
			"--callback-url", "http://" + dev.Loopback(o.port) + "/v1/callbacks/psp",
		}})
	}
	var peers []string
	for n := 1; n <= o.nodes; n++ {
		p := dev.NodePorts(o.port, n)
		d.addrs = append(d.addrs, dev.Loopback(p.HTTP))
		peers = append(peers, fmt.Sprintf("%d=%s/%s", n, dev.Loopback(p.HTTP), dev.Loopback(p.Peer)))
		addrs = append(addrs, dev.Loopback(p.HTTP), dev.Loopback(p.Peer))
	}
	for n := 1; n <= o.nodes; n++ {
		cfg.Processes = append(cfg.Processes, dev.Process{Name: fmt.Sprintf("node %d", n), Command: []string{
			program, "serve", "--bootstrap", "--cluster", devName, "--id", strconv.Itoa(n), "--data", filepath.Join(d.dir, fmt.Sprintf("node%d", n)),
			"--port", strconv.Itoa(dev.NodePorts(o.port, n).HTTP), "--peers", strings.Join(peers, ","), "--psp", psp,
			"--debug", dev.Loopback(dev.NodePorts(o.port, n).Debug),
		}})
	}
	return provider, addrs
}

// stockShop receives the demo shop's stock, once.
func (d *devRun) stockShop(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, item := range demo {
		g.Go(func() error {
			_, err := d.c.Receive(ctx, "demo-"+item.sku, item.sku, client.StockChange{Quantity: item.quantity, Reason: "demo shop"})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("stock the demo shop: %w", err)
	}
	return nil
}

func (d *devRun) welcome(w io.Writer) {
	flag := ""
	if d.opts.port != 7400 {
		flag = fmt.Sprintf(" --http-port %d", d.opts.port)
	}
	kill := min(2, d.opts.nodes)
	fmt.Fprintf(w, "Hanse is ready after %.1f s: %d nodes, a payment provider, a small shop.\n\n", time.Since(d.start).Seconds(), d.opts.nodes)
	for i, addr := range d.addrs {
		fmt.Fprintf(w, "  node %d    http://%s\n", i+1, addr)
	}
	if d.psp != "" {
		fmt.Fprintf(w, "  provider  %s/v1/ledger\n", d.psp)
	}
	fmt.Fprintf(w, "  API       http://%s/docs, http://%s/openapi.json\n", d.addrs[0], d.addrs[0])
	fmt.Fprintf(w, "  data      %s", d.dir)
	if d.temp {
		fmt.Fprint(w, " (gone when this ends; keep it with --dir)")
	}
	fmt.Fprintf(w, `

Place an order:

  curl -s http://%s/v1/orders -H 'Idempotency-Key: first' -d '
    {"customer_id": "ann", "currency": "EUR", "payment": {"method": "card"},
     "lines": [{"sku": "MUG-BLUE", "quantity": 2, "unit_price": 1250}]}'

Then try:

  hanse dev%s kill %d            # and order again: with another Idempotency-Key at another node
  hanse stock get MUG-BLUE
  hanse events                  # follow what happens
  hanse audit                   # recompute stock, money and orders from their events

Ctrl-C ends it.
`, d.addrs[0], flag, kill)
}

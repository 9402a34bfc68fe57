package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"hanse/client"
	"hanse/internal/dev"
	"hanse/internal/dirlock"
	"hanse/internal/node"
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
	maxPort       = 1<<16 - 1
)

// devOptions are what `dev` and `replay --dev` start.
type devOptions struct {
	nodes int
	// zones are given to the nodes in turn; none: no zones.
	zones []string
	// shards of the services that an order goes through. One each is enough on a machine that runs all nodes: more cost hops and syncs
	// and bring nothing.
	shards int
	dir    string // empty for a temporary one
	port   int
	psp    string // sim, instant or a URL
	quiet  bool
}

func (a *app) devCmd() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a cluster on this machine, to try things out", Args: cobra.NoArgs,
		Long: "Run a cluster of real node processes on this machine with a simulated payment provider and a small shop, until Ctrl-C. Without\n--dir nothing is left of it; with --dir it goes on with its data when it is started again.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withDev(cmd.Context(), o, func(ctx context.Context, d *devRun) error {
				if err := d.stockShop(ctx); err != nil {
					return err
				}
				if err := a.print(d.report(), d.welcome); err != nil {
					return err
				}
				<-ctx.Done()
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.nodes, "nodes", 3, "number of nodes, 1 to 9")
	f.StringSliceVar(&o.zones, "zones", nil, "zones of the nodes, given to them in turn, for example a,b,c")
	f.IntVar(&o.shards, "shards", 0, "shards of orders, stock and payments: as many as the data in --dir has, or 1")
	f.StringVar(&o.dir, "dir", "", "keep the data here; without it everything is gone at the end")
	cmd.PersistentFlags().IntVar(&o.port, "http-port", dev.DefaultPort, "first port; node n listens 10 further on for each")
	f.StringVar(&o.psp, "psp", "sim", "payment provider: sim (a process with a ledger), instant (accepts everything), or a URL")
	cmd.AddCommand(a.devAddCmd(&o.port))
	for _, act := range []struct{ use, short string }{
		{"kill", "Kill a process with SIGKILL: a node by its number, or psp"},
		{"stop", "Stop a process in order: a node by its number, or psp"},
		{"start", "Start a process again: a node by its number, or psp"},
	} {
		cmd.AddCommand(&cobra.Command{Use: act.use + " NODE", Short: act.short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if n, err := strconv.Atoi(name); err == nil && n > 0 {
				name = "node " + name
			} else if name != "psp" {
				return usage("%q is no process: want the number of a node, or psp", name)
			}
			c, err := findDev(o.port)
			if err != nil {
				return err
			}
			if act.use == "start" {
				if err := startable(cmd.Context(), c, name, o.port); err != nil {
					return err
				}
			}
			s, err := c.Do(cmd.Context(), act.use, name)
			if err != nil {
				return err
			}
			if act.use == "start" {
				awaitAnswer(cmd.Context(), name, o.port)
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
		return a.print(map[string]any{"processes": all}, func(w io.Writer) {
			table(w, "PROCESS\tSTATE\tPID\tSINCE\tLOG", func(row func(...any)) {
				for _, s := range all {
					pid := any(s.PID)
					if s.PID == 0 {
						pid = "–"
					}
					row(s.Name, s.State, pid, s.Since.Format("15:04:05"), s.Log)
				}
			})
		})
	}})
	return cmd
}

// startPatience is how long a process that was started may take to answer before it is left alone with that.
const startPatience = 5 * time.Second

// awaitAnswer waits until a process that was started answers, so that what comes next finds it. One that does not may wait for others.
func awaitAnswer(ctx context.Context, name string, port int) {
	at := dev.Loopback(port+dev.ProviderOffset) + "/readyz"
	if n, err := strconv.Atoi(strings.TrimPrefix(name, "node ")); err == nil {
		at = dev.Loopback(dev.NodePorts(port, n).HTTP) + "/livez"
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	_ = dev.WaitReady(ctx, "http://"+at) // it has started, which is what was asked for
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
	// provider is what the nodes are told of it.
	provider string
	c        *client.Client
	start    time.Time
	// alive are the addresses of the nodes that got ready, and resumed the nodes that had data before they were started.
	alive   []string
	resumed map[int]bool
	// program is how one types this program's name.
	program string
	// added are the nodes that joined after the first start; the supervisor's goroutine owns them once it runs.
	added []addedNode
	// seen is what was seen of the nodes, and left has those that are not started because of it, with what there is to say.
	seen seenNodes
	left map[int]string
}

// check says what of the options cannot be.
func (o devOptions) check() error {
	switch {
	case o.nodes < 1 || o.nodes > dev.MaxNodes:
		return usage("--nodes %d: want 1 to %d", o.nodes, dev.MaxNodes)
	case o.shards < 0 || o.shards > 64:
		return usage("--shards %d: want 1 to 64", o.shards)
	case o.port < 1 || o.port > maxPort-dev.ProviderOffset:
		return usage("--http-port %d: want 1 to %d, for the ports up to %d above are a cluster's too", o.port, maxPort-dev.ProviderOffset, dev.ProviderOffset)
	}
	if o.psp == "sim" || o.psp == node.Instant {
		return nil
	}
	if u, err := url.Parse(o.psp); err != nil || u.Host == "" {
		return usage("--psp %q: want sim, instant or a URL", o.psp)
	}
	return nil
}

// withDev runs a development cluster for as long as use takes, and leaves nothing behind.
func (a *app) withDev(ctx context.Context, o devOptions, use func(context.Context, *devRun) error) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	d := &devRun{opts: o, dir: o.dir, start: time.Now()}
	if d.dir == "" {
		if d.dir, err = os.MkdirTemp(dev.DefaultConfig().Runtime, dev.TempPrefix); err != nil {
			return fmt.Errorf("make a temporary directory: %w", err)
		}
		d.temp = true
		defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	} else if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	lock, err := dirlock.Take(d.dir, fmt.Sprintf("the dev cluster at port %d", o.port))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }() // before the directory goes
	if d.opts.shards, err = keepShards(d.dir, o.shards); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	d.program = "hanse"
	if strings.Contains(program, "go-build") { // built by go run, for this run alone
		d.program = "go run ./cmd/hanse"
	}
	if d.added, err = readAdded(d.dir); err != nil {
		return err
	}
	if d.seen, err = readSeen(d.dir); err != nil {
		return err
	}
	if len(d.added) > 0 && d.added[0].Node <= o.nodes {
		return usage("--nodes %d: node %d of the cluster in %s was added later; want at most %d", o.nodes, d.added[0].Node, d.dir, d.added[0].Node-1)
	}
	cfg := dev.DefaultConfig()
	cfg.Dir, cfg.Temporary, cfg.Name = d.dir, d.temp, strconv.Itoa(o.port)
	cfg.Add = func(n dev.Addition) (dev.Process, error) { return d.add(program, n) }
	crashed, changed := newEnds(), make(chan struct{}, 1)
	cfg.Report = func(s dev.Status) {
		select {
		case changed <- struct{}{}:
		default: // it will be looked at
		}
		if s.State == dev.Ended {
			crashed.end(s.Name)
		}
		if s.State == dev.Crashed {
			crashed.end(s.Name)
			fmt.Fprintf(a.err, "%s crashed (%s):\n%s\n", s.Name, s.Exit, dev.Tail(s.Log, 12))
		} else if !o.quiet && time.Since(d.start) > 2*time.Second && ctx.Err() == nil {
			fmt.Fprintf(a.err, "%s: %s\n", s.Name, s.State)
		}
	}
	provider, urls := d.plan(&cfg, program)
	for _, n := range slices.Sorted(maps.Keys(d.left)) {
		_, advice := d.leaveOut(n)
		fmt.Fprintln(a.err, advice)
	}
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
		if err := d.await(ready, provider, crashed); err != nil {
			if inner.Err() != nil {
				return nil
			}
			return d.notReady(err)
		}
		var err error
		if d.c, err = client.New(client.Config{Addrs: d.alive, Pinned: true}); err != nil {
			return err
		}
		defer d.c.Close()
		noting, noted := context.WithCancel(inner)
		done := make(chan struct{})
		go func() { defer close(done); d.keepNoting(noting, changed) }()
		err = use(inner, d)
		noted()
		<-done
		return err
	})
	return g.Wait()
}

// errEnded is why a process that has ended by itself is not waited for.
var errEnded = errors.New("its process has ended")

// ends knows which processes have ended by themselves.
type ends struct {
	mu  sync.Mutex
	all map[string]chan struct{}
}

func newEnds() *ends { return &ends{all: make(map[string]chan struct{})} }

// of returns a channel that is closed when the process called name ends.
func (e *ends) of(name string) chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.all[name] == nil {
		e.all[name] = make(chan struct{})
	}
	return e.all[name]
}

func (e *ends) end(name string) {
	c := e.of(name)
	select {
	case <-c: // again
	default:
		close(c)
	}
}

// addedPatience is how long a cluster that is ready waits for a node that was added.
const addedPatience = 10 * time.Second

// await waits until the nodes are ready. One that ended by itself is left out if there was data when it was started, its own or
// that of others: it has been decommissioned, perhaps, or has lost its own, and what has become of it was reported. Those that
// the cluster began with have to come; when none is left, the added ones count.
func (d *devRun) await(ctx context.Context, provider string, crashed *ends) error {
	if provider != "" {
		if err := dev.WaitReady(ctx, provider+"/readyz"); err != nil {
			return err
		}
	}
	data := slices.Contains(slices.Collect(maps.Values(d.resumed)), true)
	wait := func(ctx context.Context, number int) error {
		if d.left[number] != "" {
			return nil
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		end := crashed.of(fmt.Sprintf("node %d", number))
		go func() {
			select {
			case <-end:
				cancel(errEnded)
			case <-ctx.Done():
			}
		}()
		addr := dev.Loopback(dev.NodePorts(d.opts.port, number).HTTP)
		err := dev.WaitReady(ctx, "http://"+addr+"/readyz")
		if err == nil {
			d.alive = append(d.alive, addr)
		} else if errors.Is(err, errEnded) && data {
			err = nil
		}
		return err
	}
	for n := 1; n <= d.opts.nodes; n++ {
		if err := wait(ctx, n); err != nil {
			return err
		}
	}
	for _, n := range d.added {
		ctx, cancel := context.WithTimeout(ctx, addedPatience)
		err := wait(ctx, n.Node)
		cancel()
		if err != nil && len(d.alive) == 0 {
			return err
		}
	}
	if len(d.alive) == 0 {
		return errEnded
	}
	return nil
}

// notReady tells why a cluster did not start: its logs are shown when they are gone in a moment.
func (d *devRun) notReady(err error) error {
	if !d.temp {
		return fmt.Errorf("the cluster did not start: %w; its logs are in %s", err, d.dir)
	}
	var tails strings.Builder
	logs, _ := filepath.Glob(filepath.Join(d.dir, "*.log")) // the pattern is well formed
	for _, log := range logs {
		fmt.Fprintf(&tails, "\n%s:\n%s", filepath.Base(log), dev.Tail(log, 8))
	}
	return fmt.Errorf("the cluster did not start: %w%s", err, tails.String())
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
	d.provider = psp
	d.resumed, d.left = make(map[int]bool), make(map[int]string)
	var peers []string
	for n := 1; n <= o.nodes; n++ {
		p := dev.NodePorts(o.port, n)
		d.addrs = append(d.addrs, dev.Loopback(p.HTTP))
		d.notice(n)
		peers = append(peers, fmt.Sprintf("%d=%s/%s", n, dev.Loopback(p.HTTP), dev.Loopback(p.Peer)))
		if d.left[n] == "" {
			addrs = append(addrs, nodeAddrs(p)...)
		}
	}
	for n := 1; n <= o.nodes; n++ {
		if d.left[n] != "" {
			continue
		}
		command := d.serve(program, n, d.zone(n), "--bootstrap", "--cluster", devName, "--node-id", strconv.Itoa(n), "--peers", strings.Join(peers, ","),
			"--shards", fmt.Sprintf("order=%d,inventory=%d,payment=%d", o.shards, o.shards, o.shards))
		cfg.Processes = append(cfg.Processes, dev.Process{Name: fmt.Sprintf("node %d", n), Command: command})
	}
	for _, n := range d.added {
		if d.notice(n.Node); d.left[n.Node] != "" {
			continue
		}
		cfg.Processes = append(cfg.Processes, d.joining(program, n))
		addrs = append(addrs, nodeAddrs(dev.NodePorts(o.port, n.Node))...)
	}
	return provider, addrs
}

// nodeAddrs are the addresses that a node listens on.
func nodeAddrs(p dev.Ports) []string {
	return []string{dev.Loopback(p.HTTP), dev.Loopback(p.Peer), dev.Loopback(p.Gossip)}
}

func (d *devRun) nodeDir(n int) string { return filepath.Join(d.dir, fmt.Sprintf("node%d", n)) }

// notice notes whether node n has data already, and whether it is left out.
func (d *devRun) notice(n int) {
	_, err := os.Stat(d.nodeDir(n))
	d.resumed[n] = err == nil
	if short, _ := d.leaveOut(n); short != "" {
		d.left[n] = short
	}
}

// zone is what --zones has for node n.
func (d *devRun) zone(n int) string {
	if len(d.opts.zones) == 0 {
		return ""
	}
	return d.opts.zones[(n-1)%len(d.opts.zones)]
}

// serve is the command line of node n, with what the nodes differ in by how they come into the cluster.
func (d *devRun) serve(program string, n int, zone string, more ...string) []string {
	p := dev.NodePorts(d.opts.port, n)
	command := []string{
		program, "serve", "--data", d.nodeDir(n), "--http-port", strconv.Itoa(p.HTTP), "--name", fmt.Sprintf("node%d", n),
		"--psp", d.provider, "--debug", dev.Loopback(p.Debug),
	}
	if zone != "" {
		command = append(command, "--zone", zone)
	}
	return append(command, more...)
}

// stockShop receives the demo shop's stock, once: idempotency keys are kept for a week only, a shop with --dir for as
// long as one likes, and so what has ever been there is left as it is.
func (d *devRun) stockShop(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, item := range demo {
		g.Go(func() error {
			_, err := d.c.Stock(ctx, item.sku)
			if e, ok := errors.AsType[*client.Error](err); !ok || e.Status != http.StatusNotFound {
				return err
			}
			_, err = d.c.Receive(ctx, "demo-"+item.sku, item.sku, client.StockChange{Quantity: item.quantity, Reason: "demo shop"})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("stock the demo shop: %w", err)
	}
	return nil
}

// devReport is the JSON of a development cluster that is ready.
type devReport struct {
	Nodes    []string `json:"nodes"`
	Provider string   `json:"provider,omitempty"`
	Dir      string   `json:"dir"`
	Seconds  float64  `json:"seconds"`
}

func (d *devRun) report() devReport {
	r := devReport{Provider: d.psp, Dir: d.dir, Seconds: time.Since(d.start).Seconds()}
	for _, addr := range d.alive {
		r.Nodes = append(r.Nodes, "http://"+addr)
	}
	return r
}

// whereabouts says where node n is, or why it is not.
func (d *devRun) whereabouts(n int) string {
	addr := dev.Loopback(dev.NodePorts(d.opts.port, n).HTTP)
	if slices.Contains(d.alive, addr) {
		return "http://" + addr
	}
	return cmp.Or(d.left[n], "is not ready, or has ended")
}

// welcome says where everything is, and what to try. Other ports than the usual are part of what to type.
func (d *devRun) welcome(w io.Writer) {
	port, addr, first := "", "", d.alive[0]
	if d.opts.port != dev.DefaultPort {
		port, addr = fmt.Sprintf(" --http-port %d", d.opts.port), " --addr "+first
	}
	with := "a small shop"
	if d.psp != "" {
		with = "a payment provider, " + with
	}
	founders, added := 0, 0
	for _, addr := range d.alive {
		if d.number(addr) <= d.opts.nodes {
			founders++
		} else {
			added++
		}
	}
	nodes := plural(founders, "node")
	if added > 0 {
		nodes += fmt.Sprintf(" and %d added", added)
	}
	fmt.Fprintf(w, "Hanse is ready after %.1f s: %s, %s.\n\n", time.Since(d.start).Seconds(), nodes, with)
	for n := 1; n <= d.opts.nodes; n++ {
		fmt.Fprintf(w, "  node %d    %s\n", n, d.whereabouts(n))
	}
	for _, n := range d.added {
		fmt.Fprintf(w, "  node %d    %s\n", n.Node, d.whereabouts(n.Node))
	}
	if d.psp != "" {
		fmt.Fprintf(w, "  provider  %s/v1/ledger\n", d.psp)
	}
	fmt.Fprintf(w, "  API       http://%s/docs, http://%s/openapi.json\n", first, first)
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
`, first)
	table(w, "", func(row func(...any)) {
		try := func(command, then string) { row("  "+d.program+" "+command, "# "+then) }
		if d.opts.nodes+len(d.added) < dev.MaxNodes {
			try("dev add"+port, "one more node joins, and takes its share")
		}
		if len(d.alive) > 2 { // fewer cannot lose one
			victim := d.number(d.alive[1])
			try(fmt.Sprintf("dev kill %d%s", victim, port), "and order again, with another Idempotency-Key")
			try(fmt.Sprintf("dev start %d%s", victim, port), "it catches up")
		}
		try("order list ann"+addr, "what she has ordered")
		try("stock get MUG-BLUE"+addr, "what is left")
		try("events --after start"+addr, "what has happened, and what does")
		try("audit"+addr, "recompute stock, money and orders from their events")
	})
	fmt.Fprint(w, "\nCtrl-C ends it.\n")
}

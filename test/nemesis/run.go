package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/anishathalye/porcupine"

	"hanse/client"
	"hanse/internal/audit"
	"hanse/internal/dev"
	"hanse/internal/psp"
)

const (
	startTime = 60 * time.Second
	// settleTime is how long the cluster may take, once all is healed, to answer what is open, to end every saga, and to have equal replicas.
	settleTime = 3 * time.Minute
	// auditTime bounds the reading of all books.
	auditTime = 5 * time.Minute
	// porcupineTime bounds the check of one key. One that cannot be decided in it has failed: nobody knows what it hides.
	porcupineTime = 2 * time.Minute
	// At most so many things that are wrong are named by one check.
	maxNamed = 20
	// maxPictures bounds the histories of keys that are drawn: the first few show what is wrong with the others, too.
	maxPictures = 4
)

// runner is a run.
type runner struct {
	cfg     options
	network network
	program string
	dir     string
	log     func(format string, args ...any)
	skipped map[kind]string
	disk    *smallDisk

	begin    time.Time
	cluster  *cluster
	spawner  *spawner
	nodes    []*client.Client // one for each node, for questions to it alone
	any      *client.Client   // patient
	provider *http.Client
	stalls   []window // of the machine
	// ours says which orders were placed by the shop; nil for all.
	ours   func(*client.Order) bool
	result result
}

func (r *runner) now() time.Duration { return time.Since(r.begin) }

// newClient returns a client of some nodes. Connections are made anew for each request when fresh is set: Go's transport would repeat a
// request by itself whose old connection breaks, and the second answer says nothing of the first try.
func (r *runner) newClient(cfg client.Config, fresh bool, nodes ...int) (*client.Client, error) {
	for _, n := range nodes {
		cfg.Addrs = append(cfg.Addrs, r.network.reach(clientsHost, host(n), restDoor))
	}
	cfg.Pinned = len(nodes) == 1
	dialer := &net.Dialer{Timeout: 500 * time.Millisecond}
	cfg.Transport = &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 64, DisableKeepAlives: fresh, DisableCompression: true}
	return client.New(cfg)
}

// run starts the cluster, sells, injects the faults, heals, and checks.
func (r *runner) run(ctx context.Context) (err error) {
	r.spawner = newSpawner()
	r.provider = &http.Client{Timeout: 10 * time.Second}
	kinds := r.possible(ctx)
	cc := clusterConfig{Program: r.program, Dir: r.dir, Nodes: r.cfg.nodes, Seed: r.cfg.seed, Shards: "order=2,inventory=2,payment=2", Well: r.cfg.provider == "well", Clocks: true, Volatile: r.cfg.volatile()}
	pc := planConfig{Seed: r.cfg.seed, Nodes: r.cfg.nodes, Length: r.cfg.length(), Kinds: kinds, AtOnce: r.cfg.atOnce}
	if r.disk != nil {
		cc.SmallDisk, pc.SmallDisk = r.disk.dir, r.cfg.nodes
	}
	plan := makePlan(pc)
	if err := keepsEnough(plan, pc.Nodes, pc.AtOnce); err != nil {
		return fmt.Errorf("the plan is wrong: %w", err)
	}
	if r.cluster, err = newCluster(cc, r.network, r.spawner); err != nil {
		return err
	}
	defer r.cluster.close()
	if err := r.launch(ctx); err != nil {
		return err
	}
	s, err := r.newShop()
	if err != nil {
		return err
	}

	r.begin = time.Now()
	n := &nemesis{
		cfg: cc, cluster: r.cluster, shaper: &shaper{network: r.network}, disk: r.disk, now: r.now,
		report: func(format string, args ...any) {
			r.log("%6.1f s  %s", r.now().Seconds(), fmt.Sprintf(format, args...))
		},
	}
	keys := newKeyBook()
	o := newObserver(r.nodes, r.now)
	r.drive(ctx, s, keys, n, o, plan)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.log("%6.1f s  all is healed; settling", r.now().Seconds())
	r.collect(s, n, o)
	r.check(ctx, s, keys, n, o)
	return ctx.Err()
}

// launch starts the cluster, waits until it is ready, and fills its shelves.
func (r *runner) launch(ctx context.Context) error {
	if p, ok := r.network.(*proxyNetwork); ok {
		p.owner = r.cluster.owner
	}
	if err := r.cluster.launch(); err != nil {
		return err
	}
	for n := 1; n <= r.cfg.nodes; n++ {
		c, err := r.newClient(client.Config{RetryFor: -1, AttemptTimeout: 2 * time.Second}, true, n)
		if err != nil {
			return err
		}
		r.nodes = append(r.nodes, c)
	}
	var err error
	if r.any, err = r.newClient(client.Config{RetryFor: 45 * time.Second, Wait: 10 * time.Second}, false, r.numbers()...); err != nil {
		return err
	}
	if err := r.ready(ctx); err != nil {
		return err
	}
	return fill(ctx, r.any)
}

// numbers are those of the nodes that the cluster begins with.
func (r *runner) numbers() (all []int) {
	for i := range r.cluster.cfg.Nodes {
		all = append(all, i+1)
	}
	return all
}

// newShop opens a shop with a few servers.
func (r *runner) newShop() (*shop, error) {
	s := &shop{seed: r.cfg.seed, rate: r.cfg.rate, well: r.cfg.provider == "well", now: r.now, length: r.cfg.length()}
	for range 4 {
		c, err := r.newClient(client.Config{RetryFor: patience, AttemptTimeout: attempt, Wait: waitOrder}, false, r.numbers()...)
		if err != nil {
			return nil, err
		}
		s.shops = append(s.shops, c)
	}
	return s, nil
}

// possible mounts the small disk and returns the kinds of faults that can be injected here; why others cannot is noted.
func (r *runner) possible(ctx context.Context) (possible []kind) {
	skip := func(k kind, why string) { r.skipped[k] = why }
	_, namespaces := r.network.(*netnsNetwork)
	tracing := tracingWorks(ctx, r.spawner, r.dir)
	for _, k := range r.cfg.faults {
		switch k {
		case partition, oneWay, bridge, loss, delay:
			if !namespaces && runtime.GOOS != "linux" {
				skip(k, "the proxy can tell only on Linux which node calls")
				continue
			}
			if k == delay && namespaces {
				skip(k, "the network of namespaces cannot delay packets without the kernel's netem; --network proxy can")
				continue
			}
		case syncError, syncStall, syncLie:
			if tracing != nil {
				skip(k, tracing.Error())
				continue
			}
		case fullDisk:
			if !namespaces {
				skip(k, "a small file system can be mounted only by root, in a namespace of its own")
				continue
			}
			var err error
			if r.disk, err = newSmallDisk(ctx, filepath.Join(r.dir, "small"), r.cfg.minutes); err != nil {
				skip(k, err.Error())
				continue
			}
		}
		possible = append(possible, k)
	}
	return possible
}

// ready waits until every process is.
func (r *runner) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	urls := []string{"http://" + r.network.reach(clientsHost, providerHost, providerDoor) + "/readyz"}
	for i, p := range r.cluster.nodes {
		if !p.retired() {
			urls = append(urls, "http://"+r.network.reach(clientsHost, host(i+1), restDoor)+"/readyz")
		}
	}
	if err := dev.WaitReady(ctx, urls...); err != nil {
		var tails string
		for _, p := range r.cluster.processes() {
			tails += "\n" + p.name + ":\n" + dev.Tail(p.log, 5)
		}
		return fmt.Errorf("the cluster did not start: %w%s", err, tails)
	}
	return nil
}

// drive lets shop, keys and nemesis run side by side for the run's length; when it returns everything is healed.
func (r *runner) drive(ctx context.Context, s *shop, keys *keyBook, n *nemesis, o *observer, plan []fault) {
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	go o.watch(watching)
	busy, cancel := context.WithTimeout(ctx, r.cfg.length())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { s.sell(busy) })
	for i := range keyClients {
		pause := time.Duration(float64(keyClients) / r.cfg.keyRate * float64(time.Second))
		wg.Go(func() { useKeys(busy, keys, r.nodes, r.cfg.seed+uint64(i)<<32, pause, r.now) })
	}
	wg.Go(func() { n.run(busy, plan) })
	wg.Go(func() { r.stalls = feelPulse(busy, r.now) })
	wg.Wait()
}

// A pulse that is late by so much says that this program did not get the processor, and so the nodes did not either.
const (
	pulse     = 50 * time.Millisecond
	stallTime = 250 * time.Millisecond
)

// feelPulse notes when the machine itself stood still. What customers waited for then is no fault's doing, nor the cluster's.
func feelPulse(ctx context.Context, now func() time.Duration) (stalls []window) {
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	for last := now(); ; {
		select {
		case <-ctx.Done():
			return stalls
		case <-tick.C:
			if at := now(); at-last > stallTime {
				stalls = append(stalls, window{last, at})
			}
			last = now()
		}
	}
}

const keyClients = 8

// check heals what is left, settles and looks at everything.
func (r *runner) check(ctx context.Context, s *shop, keys *keyBook, n *nemesis, o *observer) {
	ctx, cancel := context.WithTimeout(ctx, settleTime+auditTime)
	defer cancel()
	r.checkOrders(ctx, s, o)
	r.judgeExits(n)
	r.judgeInjections(n)
	r.linearizable(ctx, keys, n)
	r.log("%6.1f s  checked", r.now().Seconds())
}

// checkOrders settles what is open, and looks at all orders, all money and all replicas.
func (r *runner) checkOrders(ctx context.Context, s *shop, o *observer) {
	var notReady []string
	if err := r.ready(ctx); err != nil {
		notReady = append(notReady, err.Error())
	}
	r.result.add("ready", "Once all is healed, every node is ready again", fmt.Sprintf("within %v", startTime), notReady)

	began := time.Now()
	asked, failures := s.settle(ctx, r.any)
	r.result.add("answers", "Every request has an answer in the end", fmt.Sprintf("%d that were open asked again with their idempotency key", asked), failures)

	repeated, failures := s.repeat(ctx, r.any)
	r.result.add("repeats", "A repeated request is the same request", fmt.Sprintf("%d accepted orders sent again", repeated), failures)

	failures = r.rest(ctx)
	r.result.add("rest", "Every order comes to an end: nothing is under way or stuck", fmt.Sprintf("after %.1f s", time.Since(began).Seconds()), failures)

	r.judge(ctx, s)
	r.audit(ctx)

	replicas, failures := r.equal(ctx, o)
	r.result.add("replicas", "All replicas have caught up", replicas, failures)
	o.mu.Lock()
	split := slices.Clone(o.split)
	terms := len(o.leaders)
	o.mu.Unlock()
	r.result.add("leaders", "No term has two leaders", fmt.Sprintf("%d leaderships seen", terms), split)
}

// rest waits until no saga is under way, and tells which are when time is up. It tries stuck steps again as an operator would.
func (r *runner) rest(ctx context.Context) (failures []string) {
	deadline := time.Now().Add(settleTime)
	for {
		failures = nil
		for saga, err := range r.any.AllSagas(ctx, false) {
			if err != nil {
				failures = append(failures, "list sagas: "+err.Error())
				break
			}
			failures = append(failures, fmt.Sprintf("order %s is %s since %s", saga.OrderID, saga.State, saga.UpdatedAt.Format("15:04:05")))
			for _, step := range saga.Stuck {
				if _, err := r.any.RetryStep(ctx, saga.OrderID, step.Seq, "nemesis"); err != nil {
					r.log("retry step %d of %s: %v", step.Seq, saga.OrderID, err)
				}
			}
		}
		if len(failures) == 0 || time.Now().After(deadline) || ctx.Err() != nil {
			return failures
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// judge reads all orders and the provider's ledger and compares them with what customers were told.
func (r *runner) judge(ctx context.Context, s *shop) {
	const (
		lost    = "Every acknowledged order is there, once, in the right state, and no other"
		charged = "No order is charged twice; order and provider agree on every amount"
	)
	orders, err := r.orders(ctx)
	rows, err2 := r.ledger(ctx)
	if err := errors.Join(err, err2); err != nil {
		r.result.add("orders", lost, "", []string{err.Error()})
		return
	}
	v := judge(s.sales, orders, ledgerByOrder(rows))
	r.result.Orders = len(orders)
	r.result.add("orders", lost, fmt.Sprintf("%d orders", len(orders)), v.lost)
	r.result.add("ends", "Every order is at an end, and what was promised is paid", fmt.Sprintf("%d orders", len(orders)), v.unfinished)
	r.result.add("charges", charged, fmt.Sprintf("%d operations in the ledger", len(rows)), v.charged)
}

func (r *runner) orders(ctx context.Context) (orders []client.Order, err error) {
	shards, err := r.any.Shards(ctx)
	if err != nil {
		return nil, fmt.Errorf("list shards: %w", err)
	}
	for shard := range shards.Counts["order"] {
		for after, more := "", true; more; {
			var page []audit.Order
			if page, more, err = audit.Folding(r.any).ScanOrders(ctx, shard, after, 500); err != nil {
				return nil, fmt.Errorf("read the orders of shard %d: %w", shard, err)
			}
			for _, o := range page {
				after = o.Stored.ID
				if r.ours == nil || r.ours(&o.Stored) {
					orders = append(orders, o.Stored)
				}
			}
			more = more && len(page) > 0
		}
	}
	return orders, nil
}

func (r *runner) ledger(ctx context.Context) (rows []*psp.Operation, err error) {
	base := "http://" + r.network.reach(clientsHost, providerHost, providerDoor)
	for after, more := uint64(0), true; more; {
		page, err := r.ledgerPage(ctx, fmt.Sprintf("%s/v1/ledger?after=%d&limit=5000", base, after))
		if err != nil {
			return nil, fmt.Errorf("read the provider's ledger: %w", err)
		}
		rows = append(rows, page.Operations...)
		if more = page.HasMore && len(page.Operations) > 0; more {
			after = page.Operations[len(page.Operations)-1].Seq
		}
	}
	return rows, nil
}

func (r *runner) ledgerPage(ctx context.Context, url string) (*psp.LedgerPage, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := r.provider.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	page := new(psp.LedgerPage)
	return page, json.NewDecoder(resp.Body).Decode(page)
}

// audit recomputes the cluster's books and compares them with the stored ones and the provider's.
func (r *runner) audit(ctx context.Context) {
	const claim = "The audit finds no difference: orders are their events, counters are sums, the provider has the same money"
	ledger := func(ctx context.Context, after uint64, fn func(audit.Charge)) error {
		rows, err := r.ledger(ctx)
		for _, op := range rows {
			if op.Seq > after {
				fn(audit.Charge{Seq: op.Seq, Key: op.Key, PaymentID: op.PaymentID, Kind: op.Kind, Currency: op.Currency, Amount: op.Amount, Declined: op.Declined})
			}
		}
		return err
	}
	// A payment may have an authorization open that its order has been told of already: it asks the provider again within half a minute.
	var report *audit.Report
	var err error
	for deadline := time.Now().Add(settleTime); ; {
		report, err = audit.Run(ctx, audit.Folding(r.any), ledger, audit.DefaultConfig())
		if err != nil || len(report.Differences) > 0 || report.Open == 0 && report.Moving == 0 || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		r.result.add("audit", claim, "", []string{err.Error()})
		return
	}
	var failures []string
	for _, d := range report.Differences {
		failures = append(failures, d.String())
	}
	if report.Open > 0 || report.Moving > 0 {
		failures = append(failures, fmt.Sprintf("%d orders under way, %d SKUs moving, although all is at rest", report.Open, report.Moving))
	}
	r.result.add("audit", claim, fmt.Sprintf("%d orders, %d payments, %d SKUs", report.Orders, report.Payments, report.SKUs), failures)
}

// equal waits until every replica of a shard has applied the same.
func (r *runner) equal(ctx context.Context, o *observer) (what string, failures []string) {
	deadline := time.Now().Add(settleTime)
	for {
		answers := o.look(ctx)
		for i := range answers {
			if i >= len(r.cluster.nodes) || r.cluster.nodes[i].retired() {
				answers[i] = new(client.Shards) // it is no member, and has none
			}
		}
		if failures = lagging(answers); len(failures) == 0 {
			n := 0
			for _, a := range answers {
				n += len(a.Shards)
			}
			return fmt.Sprintf("%d replicas on %d nodes", n, len(answers)), nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return "", failures
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// judgeExits looks at the processes that ended by themselves.
func (r *runner) judgeExits(n *nemesis) {
	r.cluster.mu.Lock()
	exits := slices.Clone(r.cluster.exits)
	r.cluster.mu.Unlock()
	var failures []string
	for _, e := range exits {
		at := e.At.Sub(r.begin)
		if !excused(n.injections, e.Name, at) || e.Bug {
			failures = append(failures, fmt.Sprintf("%s ended after %.1f s: %s\n%s", e.Name, at.Seconds(), e.How, e.Tail))
		}
	}
	r.result.add("exits", "No process ends by itself, but a node whose disk fails or whose clock is far off", fmt.Sprintf("%d ended because of that", len(exits)-len(failures)), failures)
}

// judgeInjections looks whether the faults were really there: a nemesis that does nothing proves nothing.
func (r *runner) judgeInjections(n *nemesis) {
	var failures []string
	for _, in := range n.injections {
		if in.Err != nil {
			failures = append(failures, fmt.Sprintf("%v at %.1f s: %v", &in.fault, in.Began.Seconds(), in.Err))
		}
	}
	r.result.add("faults", "Every fault was injected, and healed", fmt.Sprintf("%d faults", len(n.injections)), failures)
}

// linearizable looks for an order of all operations on each key that explains every answer (Herlihy and Wing, 1990).
func (r *runner) linearizable(ctx context.Context, keys *keyBook, n *nemesis) {
	// The last word on every key: a write that was lost late would otherwise never be looked for.
	last := keys.newClient()
	var g errgroup.Group
	g.SetLimit(settlers)
	for i, name := range keys.names {
		g.Go(func() error {
			op := keyOp{Client: last + i, Key: name, Verb: get, Node: i%len(r.nodes) + 1}
			keys.end(op, act(ctx, r.nodes[i%len(r.nodes)], &op, r.now))
			return nil
		})
	}
	_ = g.Wait() // its functions return nil

	total := 0
	var mu sync.Mutex
	var failures []string
	g.SetLimit(2)
	for _, name := range keys.names {
		ops := keys.ops[name]
		total += len(ops)
		g.Go(func() error {
			verdict, info := porcupine.CheckOperationsVerbose(registerModel, operations(ops), porcupineTime)
			if verdict == porcupine.Ok {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			what := "no order explains its answers"
			if verdict == porcupine.Unknown {
				what = fmt.Sprintf("undecided after %v", porcupineTime)
			}
			picture := ""
			if len(r.result.Pictures) < maxPictures {
				picture = r.draw(name, ops, info, n)
			}
			failures = append(failures, fmt.Sprintf("key %s, %d operations: %s%s", name, len(ops), what, picture))
			return nil
		})
	}
	_ = g.Wait() // its functions return nil
	r.result.KeyOps = total
	r.result.add("keys", "Keys are linearizable", fmt.Sprintf("%d operations on %d keys", total, len(keys.names)), failures)
}

// draw writes porcupine's picture of a history beside the report, with the faults in it.
func (r *runner) draw(key string, ops []keyOp, info porcupine.LinearizationInfo, n *nemesis) string {
	first, lastCall := forever, time.Duration(0)
	for i := range ops {
		first, lastCall = min(first, ops[i].Call), max(lastCall, ops[i].Call)
	}
	var notes []porcupine.Annotation
	for _, in := range n.injections {
		if in.Ended < first || in.Began > lastCall {
			continue
		}
		notes = append(notes, porcupine.Annotation{
			Tag: "faults", Start: int64(in.Began), End: int64(in.Ended), Description: in.fault.String(), BackgroundColor: "#f3d1c8",
		})
	}
	info.AddAnnotations(notes)
	base := r.cfg.report
	if base == "" {
		base = filepath.Join(r.dir, "nemesis.html")
	}
	file := fmt.Sprintf("%s-%s.html", base[:len(base)-len(filepath.Ext(base))], filepath.Base(key))
	if err := porcupine.VisualizePath(registerModel, info, file); err != nil {
		return ": " + err.Error()
	}
	r.result.Pictures = append(r.result.Pictures, filepath.Base(file))
	return ", see " + filepath.Base(file)
}

// keepLogs removes everything from the run's directory but logs and pictures.
func keepLogs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("tidy up: %w", err)
	}
	var errs []error
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".log", ".html", ".json":
		default:
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

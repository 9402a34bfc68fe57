package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"hanse/client"
)

// scenario is one thing that is done to a cluster, again and again, to measure what it costs its customers.
type scenario struct {
	name   string
	times  int
	cut    bool   // instead of a kill
	replay string // file of a year's orders that the cluster has before it is measured
}

// scenarios are all there are. Nodes is how many the cluster has at first, hosts how many it may come to.
var scenarios = map[string]struct {
	what         string
	nodes, hosts int
	zones        []string
	minutes      float64
	run          func(*lab, context.Context) error
}{
	"failover": {what: "the leader of a shard of orders is killed", nodes: 5, hosts: 5, run: (*lab).failover},
	"pause":    {what: "a node stands still for 400 ms, too short for an election", nodes: 5, hosts: 5, run: (*lab).pause},
	"loss":     {what: "a tenth of the packets between two nodes is lost", nodes: 5, hosts: 5, minutes: 10, run: (*lab).loss},
	"grow":     {what: "two nodes join, one leaves, all are restarted, while customers buy", nodes: 3, hosts: 5, run: (*lab).grow},
	"zone":     {what: "all nodes of a zone are killed", nodes: 5, hosts: 5, zones: []string{"a", "a", "b", "b", "c"}, run: (*lab).zone},
}

func scenarioNames() string {
	var all []string
	for name := range scenarios {
		all = append(all, name)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// parseScenario reads "scenario NAME" and its flags.
func parseScenario(args []string, out io.Writer) (o options, err error) {
	if len(args) < 2 {
		return o, errors.New("which scenario? There are " + scenarioNames())
	}
	s := &scenario{name: args[1]}
	about, ok := scenarios[s.name]
	if !ok {
		return o, fmt.Errorf("there is no scenario %q; there are %s", s.name, scenarioNames())
	}
	o = options{args: args, scenario: s, nodes: about.hosts}
	f := flag.NewFlagSet("nemesis scenario "+s.name, flag.ContinueOnError)
	f.SetOutput(out)
	o.common(f)
	f.IntVar(&s.times, "times", 30, "how often a node is killed, or stopped")
	f.BoolVar(&s.cut, "cut", false, "failover: the node loses its network instead of its process, as a machine without power does")
	f.StringVar(&s.replay, "replay", "", "CSV `file` of a shop's year that the cluster has in its books before nodes join")
	f.Float64Var(&o.minutes, "minutes", about.minutes, "how long packets are lost")
	if err := f.Parse(args[2:]); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("what is %q? only flags follow the scenario's name", f.Arg(0))
	}
	if s.times < 1 || o.minutes < 0 || !(o.rate > 0 && o.rate <= 2000) {
		return o, fmt.Errorf("--times %d, --minutes %v, --rate %v: want at least one time, no negative minutes, a rate above 0 and at most 2000", s.times, o.minutes, o.rate)
	}
	if o.seed == 0 {
		o.seed = rand.Uint64N(1_000_000) + 1
	}
	return o, nil
}

// figure is one thing that was measured.
type figure struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
	// Goal is the most that the figure should be, nil for any; Missed says that it is more.
	Goal   *float64 `json:"goal,omitempty"`
	Missed bool     `json:"missed,omitempty"`
}

// measurement is what a scenario has shown. Figures are measured; only checks can fail.
type measurement struct {
	Scenario string    `json:"scenario"`
	Passed   bool      `json:"passed"`
	Revision string    `json:"revision,omitempty"`
	Started  string    `json:"started"`
	Network  string    `json:"network"`
	Load     []float64 `json:"load"` // of the machine, before and after; the run's own share is in the second
	Stalls   int       `json:"stalls"`
	Figures  []figure  `json:"figures"`
	Checks   []check   `json:"checks"`
}

// add notes a figure.
func (m *measurement) add(what string, value float64, unit string) {
	m.Figures = append(m.Figures, figure{What: what, Value: value, Unit: unit})
}

// aim notes a figure that should be at most goal.
func (m *measurement) aim(what string, value float64, unit string, goal float64) {
	m.Figures = append(m.Figures, figure{what, value, unit, &goal, value > goal})
}

func (m *measurement) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s: %s\n\n", m.Scenario, scenarios[m.Scenario].what)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range m.Figures {
		goal := ""
		if f.Goal != nil {
			goal = "at most " + number(*f.Goal, f.Unit)
		}
		if f.Missed {
			goal += ", missed"
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\n", f.What, number(f.Value, f.Unit), goal)
	}
	_ = w.Flush() // as of the other lines: who reads has gone
	fmt.Fprintln(out)
	printChecks(out, m.Checks)
	fmt.Fprintf(out, "\nLoad of the machine %.1f before, %.1f after; it had no processor for this program %d times.\n", m.Load[0], m.Load[1], m.Stalls)
}

func number(v float64, unit string) string {
	digits := 0
	switch {
	case v != float64(int64(v)) && v < 10:
		digits = 2
	case v != float64(int64(v)) && v < 1000:
		digits = 1
	}
	return strings.TrimSpace(fmt.Sprintf("%.*f %s", digits, v, unit))
}

// lab is a cluster that is measured.
type lab struct {
	*runner
	*scenario
	out      measurement
	observer *observer
	shop     *shop
}

// measureScenario starts a cluster, runs the scenario, checks the promises, and prints.
func (r *runner) measureScenario(ctx context.Context, out io.Writer) (passed bool, err error) {
	about := scenarios[r.cfg.scenario.name]
	l := &lab{runner: r, scenario: r.cfg.scenario}
	l.out = measurement{Scenario: l.name, Revision: r.result.Revision, Started: r.result.Started, Network: r.result.Network, Load: []float64{machineLoad()}}
	r.log("scenario %s: %s; %d nodes; %s", l.name, about.what, about.nodes, r.result.Network)
	r.spawner, r.provider, r.begin = newSpawner(), &http.Client{Timeout: 10 * time.Second}, time.Now()
	cc := clusterConfig{Program: r.program, Dir: r.dir, Nodes: about.nodes, Seed: r.cfg.seed, Well: true, Zones: about.zones}
	if r.cluster, err = newCluster(cc, r.network, r.spawner); err != nil {
		return false, err
	}
	defer r.cluster.close()
	if err := r.launch(ctx); err != nil {
		return false, err
	}
	if l.shop, err = r.newShop(); err != nil {
		return false, err
	}
	r.ours = func(o *client.Order) bool { return strings.HasPrefix(o.MerchantReference, l.shop.prefix()) }
	l.observer = newObserver(r.nodes, r.now)

	watching, stop := context.WithCancel(ctx)
	pulse := make(chan []window)
	go func() { pulse <- feelPulse(watching, r.now) }()
	observed := make(chan struct{})
	go func() { defer close(observed); l.observer.watch(watching) }()
	err = about.run(l, ctx)
	stop()
	l.out.Stalls = len(<-pulse)
	<-observed
	if err != nil {
		return false, err
	}

	r.log("%6.1f s  measured; looking whether all is there", r.now().Seconds())
	r.checkOrders(ctx, l.shop, l.observer)
	r.judgeExits(new(nemesis)) // nothing was done to a node that would excuse its end
	l.out.Checks = r.result.Checks
	l.out.Load = append(l.out.Load, machineLoad())
	l.out.Passed = !slices.ContainsFunc(l.out.Checks, func(c check) bool { return !c.Passed })
	if r.cfg.json {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return l.out.Passed, errors.Join(e.Encode(l.out), ctx.Err())
	}
	l.out.print(out)
	return l.out.Passed, ctx.Err()
}

// machineLoad is how many threads of the machine wanted to run in the last minute; 0 where the system does not say.
func machineLoad() (load float64) {
	data, err := os.ReadFile("/proc/loadavg")
	if err == nil {
		_, _ = fmt.Sscan(string(data), &load) // 0 when it is something else
	}
	return load
}

// quiet is how long a cluster has to be well without a break before something is done to it.
const quiet = time.Second

// well waits until nothing is left of what was done before: every node healthy, every shard with all its replicas caught up, led
// by whom the plan wants, and nothing moving. It returns the shards.
func (l *lab) well(ctx context.Context) (*client.Shards, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	if err := l.ready(ctx); err != nil {
		return nil, err
	}
	var since time.Time
	for {
		shards, why := l.look(ctx)
		switch {
		case why != "":
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= quiet:
			return shards, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the cluster does not come to rest: %s: %w", why, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// look says why the cluster is not well, empty when it is.
func (l *lab) look(ctx context.Context) (shards *client.Shards, why string) {
	shards, err := l.any.Shards(ctx)
	if err != nil {
		return nil, err.Error()
	}
	v, err := l.any.Overview(ctx)
	if err != nil {
		return nil, err.Error()
	}
	for _, n := range v.Nodes {
		if n.State != client.Decommissioned && n.Health != client.Healthy {
			return nil, fmt.Sprintf("node %d is %s: %s", n.ID, n.Health, n.Reason)
		}
	}
	for _, s := range shards.Shards {
		switch {
		case s.State != "ok" || s.Move != nil:
			return nil, fmt.Sprintf("%s is %s", s.ID, s.State)
		case s.Preferred != 0 && s.Leader != s.Preferred:
			return nil, fmt.Sprintf("%s is led by node %d, not %d", s.ID, s.Leader, s.Preferred)
		}
		for _, r := range s.Replicas {
			if r.Match+wellBehind < s.Commit {
				return nil, fmt.Sprintf("%s on node %d has %d of %d", s.ID, r.Node, r.Match, s.Commit)
			}
		}
	}
	return shards, ""
}

// wellBehind is how many entries a replica may lack and be well: under load some are always on their way.
const wellBehind = 50

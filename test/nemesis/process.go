package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"hanse/internal/dev"
)

// spawner starts processes from one thread. The kernel kills them when their parent's thread ends (see [childAttributes]), so that thread has
// to be one that lives as long as the program.
type spawner struct{ requests chan spawn }

type spawn struct {
	cmd    *exec.Cmd
	answer chan<- error
}

func newSpawner() *spawner {
	s := &spawner{requests: make(chan spawn)}
	go func() { // lives as long as the program, see above
		runtime.LockOSThread()
		for r := range s.requests {
			r.answer <- r.cmd.Start()
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = childAttributes()
	answer := make(chan error, 1)
	s.requests <- spawn{cmd, answer}
	return <-answer
}

// exit is the end of a process that nobody asked for.
type exit struct {
	At   time.Time
	Name string
	How  string
	Tail string // the end of its log
	Bug  bool   // it ended by a panic
}

// process is a program that runs unless it is held down, and is started again when it ends by itself, as a service manager would.
type process struct {
	name string
	argv []string
	env  []string
	log  string
	*spawner
	// fell is told each end that nobody asked for.
	fell func(exit)

	mu     sync.Mutex
	holds  int // reasons for it not to run
	closed bool
	cmd    *exec.Cmd
	ended  chan struct{} // of cmd; closed when it has
	asked  bool          // we ended cmd
	again  *time.Timer
	size   int64 // of the log when cmd was started
}

// restartPause is what a service manager waits before it starts a program that ended by itself.
const restartPause = time.Second

// launch starts the process if nothing holds it down.
func (p *process) launch() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.launchLocked()
}

func (p *process) launchLocked() error {
	if p.holds > 0 || p.cmd != nil || p.closed {
		return nil
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", p.name, err)
	}
	defer log.Close() // the child has its own descriptor
	if info, err := log.Stat(); err == nil {
		p.size = info.Size()
	}
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, append(os.Environ(), p.env...)
	if err := p.start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.cmd, p.asked, p.ended = cmd, false, make(chan struct{})
	go p.watch(cmd, p.ended) // ends with the process
	return nil
}

func (p *process) watch(cmd *exec.Cmd, ended chan struct{}) {
	err := cmd.Wait()
	p.mu.Lock()
	p.cmd = nil
	size := p.size
	asked := p.asked
	close(ended)
	if !asked && !p.closed {
		p.again = time.AfterFunc(restartPause, func() { _ = p.launch() }) // what cannot start shows in the checks: the node is not ready
	}
	p.mu.Unlock()
	if asked {
		return
	}
	how := cmd.ProcessState.String()
	if err != nil && cmd.ProcessState == nil {
		how = err.Error()
	}
	p.fell(exit{At: time.Now(), Name: p.name, How: how, Tail: dev.Tail(p.log, 6), Bug: panicked(p.log, size)})
}

// panicked looks for a panic in what a process has written to its log since it was started.
func panicked(log string, since int64) bool {
	data, err := os.ReadFile(log)
	if err != nil || since > int64(len(data)) {
		return false // a log that cannot be read says nothing; the exit itself is reported
	}
	for _, sign := range []string{"\npanic: ", "\nfatal error: ", "\n[signal "} {
		if bytes.Contains(append([]byte("\n"), data[since:]...), []byte(sign)) {
			return true
		}
	}
	return false
}

// hold ends the process with a signal, waits until it is gone and keeps it down until as many releases.
func (p *process) hold(ctx context.Context, sig syscall.Signal) error {
	p.mu.Lock()
	p.holds++
	cmd, ended := p.cmd, p.ended
	if cmd != nil {
		p.asked = true
		_ = cmd.Process.Signal(sig) // an error means that it has ended
	}
	p.mu.Unlock()
	if cmd == nil {
		return nil
	}
	patience := time.NewTimer(20 * time.Second)
	defer patience.Stop()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	case <-patience.C:
	}
	_ = cmd.Process.Kill()
	<-ended
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("%s did not end within 20 s of %v", p.name, sig)
}

func (p *process) release() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holds--
	return p.launchLocked()
}

// signal sends a signal to the process if there is one.
func (p *process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(sig) // an error means that it has ended
	}
}

// pid is 0 while it does not run.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// retire says that the process may end by itself from now on, and is not to be started again.
func (p *process) retire() {
	p.mu.Lock()
	p.closed, p.asked = true, true
	p.mu.Unlock()
}

func (p *process) retired() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// close ends the process for good.
func (p *process) close() {
	p.mu.Lock()
	p.closed = true
	if p.again != nil {
		p.again.Stop()
	}
	p.mu.Unlock()
	p.signal(syscall.SIGCONT) // it may stand still
	_ = p.hold(context.Background(), syscall.SIGTERM)
}

// cluster is the nodes and the provider.
type cluster struct {
	nodes    []*process // node n is nodes[n-1]
	provider *process
	network  network
	cfg      clusterConfig
	spawner  *spawner

	mu    sync.Mutex
	exits []exit
}

// clusterConfig says what to start.
type clusterConfig struct {
	Program   string
	Dir       string
	Nodes     int
	Seed      uint64
	SmallDisk string // directory of the last node's data, when it is not below Dir
	// Well is for measuring: the provider answers at once and never fails.
	Well bool
	// Clocks can be turned.
	Clocks bool
	// Volatile says that a node that is killed loses what it has not synced.
	Volatile bool
	// Shards is the layout in the words of --shards, empty for the default.
	Shards string
	// Zones are those of the nodes in turn; none without.
	Zones []string
}

// launchArgs are the arguments that make a program node n of the cluster.
func (c clusterConfig) launchArgs(n int, net network) []string {
	args := append(c.serveArgs(n, net), "--bootstrap", "--cluster", "nemesis", "--node-id", fmt.Sprint(n), "--peers", peersFlag(net, c.Nodes))
	if c.Shards != "" {
		args = append(args, "--shards", c.Shards)
	}
	return args
}

// joinArgs are the arguments that make a program node n, which joins the nodes that are there.
func (c clusterConfig) joinArgs(n int, net network, tokenFile string) []string {
	var there []string
	for i := 1; i <= c.Nodes; i++ {
		there = append(there, net.reach(host(n), host(i), restDoor))
	}
	return append(c.serveArgs(n, net), "--join", strings.Join(there, ","), "--join-token-file", tokenFile)
}

// serveArgs are what every node is told.
func (c clusterConfig) serveArgs(n int, net network) []string {
	args := []string{
		"serve", "--data", c.data(n),
		"--http", net.listen(host(n), restDoor), "--peer", net.listen(host(n), peerDoor), "--gossip", net.listen(host(n), gossipDoor),
		"--psp", "http://" + net.reach(host(n), providerHost, providerDoor),
	}
	if len(c.Zones) > 0 {
		args = append(args, "--zone", c.Zones[(n-1)%len(c.Zones)])
	}
	return args
}

func (c clusterConfig) data(n int) string {
	if n == c.Nodes && c.SmallDisk != "" {
		return c.SmallDisk + "/node"
	}
	return fmt.Sprintf("%s/node%d", c.Dir, n)
}

// clockFile is where node n reads how wrong its clock is.
func (c clusterConfig) clockFile(n int) string { return fmt.Sprintf("%s/clock%d", c.Dir, n) }

const rightClock = "+0ms"

func newCluster(c clusterConfig, net network, s *spawner) (*cluster, error) {
	cl := &cluster{network: net, cfg: c, spawner: s}
	args := []string{"psp", "--listen", net.listen(providerHost, providerDoor), "--data", c.Dir + "/provider", "--seed", fmt.Sprint(c.Seed)}
	if !c.Well {
		// The provider is slow, declines, fails, and carries out what it does not answer: a usual day of a provider, on one day.
		args = append(args, "--latency-ms", "15", "--jitter-ms", "30", "--decline-rate", "0.03", "--timeout-rate", "0.004",
			"--error-rate", "0.01", "--error-after-rate", "0.01", "--duplicate-rate", "0.1",
			"--callback-url", "http://"+net.reach(providerHost, 1, restDoor)+"/v1/callbacks/psp")
	}
	cl.provider = cl.process(providerHost, "provider", nil, args...)
	for n := 1; n <= c.Nodes; n++ {
		var env []string
		if c.Clocks {
			if err := os.WriteFile(c.clockFile(n), []byte(rightClock), 0o644); err != nil {
				return nil, fmt.Errorf("write the clock of node %d: %w", n, err)
			}
			env = []string{"HANSE_TEST_CLOCK=@" + c.clockFile(n)}
		}
		if c.Volatile {
			env = append(env, "HANSE_TEST_DISK=volatile")
		}
		cl.nodes = append(cl.nodes, cl.process(host(n), fmt.Sprintf("node%d", n), env, c.launchArgs(n, net)...))
	}
	return cl, nil
}

// process describes a process at a host.
func (c *cluster) process(h host, file string, env []string, args ...string) *process {
	return &process{
		name: h.String(), argv: append(append(slices.Clone(c.network.prefix(h)), c.cfg.Program), args...), env: env,
		log: c.cfg.Dir + "/" + file + ".log", spawner: c.spawner, fell: c.fell,
	}
}

// fell notes the end of a process that nobody asked for.
func (c *cluster) fell(e exit) {
	c.mu.Lock()
	c.exits = append(c.exits, e)
	c.mu.Unlock()
}

// join starts one more node, which joins with a token.
func (c *cluster) join(tokenFile string) error {
	n := len(c.nodes) + 1
	p := c.process(host(n), fmt.Sprintf("node%d", n), nil, c.cfg.joinArgs(n, c.network, tokenFile)...)
	c.nodes = append(c.nodes, p)
	return p.launch()
}

// owner returns the host whose process has a pid.
func (c *cluster) owner() map[int]host {
	pids := make(map[int]host)
	for i, p := range c.nodes {
		pids[p.pid()] = host(i + 1)
	}
	delete(pids, 0) // those that do not run
	return pids
}

func (c *cluster) processes() []*process { return append([]*process{c.provider}, c.nodes...) }

func (c *cluster) launch() error {
	for _, p := range c.processes() {
		if err := p.launch(); err != nil {
			return err
		}
	}
	return nil
}

// close ends all processes at once and waits for them.
func (c *cluster) close() {
	var wg sync.WaitGroup
	for _, p := range c.processes() {
		wg.Go(p.close)
	}
	wg.Wait()
}

// each does something to several nodes at once.
func (c *cluster) each(nodes []int, do func(*process) error) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = do(c.nodes[n-1]) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

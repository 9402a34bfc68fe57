// Package cluster starts real nodes on this machine, and does to them what operators and accidents do to a cluster that grows and shrinks.
package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hanse/client"
	"hanse/internal/cli"
	"hanse/internal/cluster"
	"hanse/internal/freeport"
)

var builds struct {
	dir string
	mu  sync.Mutex
	of  map[string]string // program by build tags
}

// linked is the program that these tests start, as a part of the test: without it, go test takes a result of another program for this one's.
var linked = cli.Run

func TestMain(m *testing.M) {
	if linked == nil {
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "hanse-cluster-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	builds.dir, builds.of = dir, make(map[string]string)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// program builds hanse once for each set of tags.
func program(t *testing.T, tags string) string {
	t.Helper()
	builds.mu.Lock()
	defer builds.mu.Unlock()
	if path, done := builds.of[tags]; done {
		return path
	}
	path := filepath.Join(builds.dir, fmt.Sprintf("hanse-%d", len(builds.of)))
	if out, err := exec.Command("go", "build", "-tags", tags, "-o", path, "hanse/cmd/hanse").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	builds.of[tags] = path
	return path
}

// slow skips a test that takes long. Mostly it waits: where there are cores enough, several go on at once.
func slow(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many elections, moves and timeouts; without -short it runs")
	}
	if runtime.NumCPU() >= 4 {
		t.Parallel()
	}
}

// patience bounds every wait. It is for machines that do much else: what is waited for takes seconds.
const patience = 2 * time.Minute

// fleet is a cluster of processes.
type fleet struct {
	t     *testing.T
	nodes []*member
	token string
	tags  string // build tags of the programs that new members run
}

// member is a node: its directory and addresses, and the process that runs it, if one does.
type member struct {
	f        *fleet
	name     string
	dir      string
	port     int // REST; other nodes 2 above, gossip 3 above
	args     []string
	founding []string // what a founder was first started with
	env      []string
	program  string
	p        *process
	paused   bool
}

type process struct {
	cmd  *exec.Cmd
	out  lockedBuffer
	done chan struct{} // closed when it has ended
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newFleet makes a fleet without nodes, whose processes end with the test.
func newFleet(t *testing.T) *fleet {
	f := &fleet{t: t}
	t.Cleanup(func() {
		for _, m := range f.nodes {
			if t.Failed() {
				t.Logf("log of %s:\n%s", m.name, m.log())
			}
			m.kill()
		}
	})
	return f
}

// run runs a part of the test; the parts after one that failed are left out, for they build on it.
func (f *fleet) run(name string, part func(t *testing.T)) {
	outer := f.t
	outer.Run(name, func(t *testing.T) {
		f.t = t
		part(t)
	})
	f.t = outer
	if outer.Failed() {
		outer.FailNow()
	}
}

// freePort finds a first port for a node.
func freePort(t *testing.T) int {
	t.Helper()
	port, err := freeport.Block()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// member makes a node that has yet to be started, with an empty directory.
func (f *fleet) member(name string, args ...string) *member {
	f.t.Helper()
	m := &member{f: f, name: name, dir: filepath.Join(f.tempDir(), name), port: freePort(f.t), args: args, program: program(f.t, f.tags)}
	f.nodes = append(f.nodes, m)
	return m
}

// tempDir is a directory that lives as long as the fleet rather than as a part of the test.
func (f *fleet) tempDir() string {
	dir, err := os.MkdirTemp(builds.dir, "nodes-")
	if err != nil {
		f.t.Fatal(err)
	}
	return dir
}

// few is a layout of six shards, for tests that are not about how they are spread: moves take time.
var few = []string{"--shards", "order=1,inventory=1,payment=1"}

// found starts a cluster of n founders, named a, b, c and so on, and waits for it.
func (f *fleet) found(n int, args ...string) []*member {
	f.t.Helper()
	var peers []string
	for i := range n {
		m := f.member(string(rune('a' + i)))
		peers = append(peers, fmt.Sprintf("%d=%s/%s", i+1, m.addr(0), m.addr(2)))
	}
	founders := f.nodes[len(f.nodes)-n:]
	for i, m := range founders {
		m.args = append([]string{"--name", m.name}, args...)
		m.founding = []string{"--bootstrap", "--node-id", strconv.Itoa(i + 1), "--peers", strings.Join(peers, ",")}
		m.start(m.founding...)
	}
	f.ready()
	return founders
}

func (m *member) addr(above int) string { return fmt.Sprintf("127.0.0.1:%d", m.port+above) }

// start starts the node's process.
func (m *member) start(args ...string) {
	m.f.t.Helper()
	if m.running() {
		m.f.t.Fatalf("%s runs already", m.name)
	}
	m.p = &process{done: make(chan struct{})}
	all := slices.Concat([]string{"serve", "--data", m.dir, "--http-port", strconv.Itoa(m.port), "--psp", "instant"}, m.args, args)
	m.p.cmd = exec.Command(m.program, all...)
	m.p.cmd.Env = append(os.Environ(), m.env...)
	m.p.cmd.Stdout, m.p.cmd.Stderr = &m.p.out, &m.p.out
	if err := m.p.cmd.Start(); err != nil {
		m.f.t.Fatal(err)
	}
	p := m.p
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the exit code is read from its state
	}()
}

// join starts a node that asks the others to admit it, with the fleet's token.
func (m *member) join(args ...string) {
	m.f.t.Helper()
	m.env = append(m.env, "HANSE_JOIN_TOKEN="+m.f.token)
	m.start(append([]string{"--name", m.name, "--join", strings.Join(m.f.addrs(), ",")}, args...)...)
}

func (m *member) running() bool {
	if m.p == nil {
		return false
	}
	select {
	case <-m.p.done:
		return false
	default:
		return true
	}
}

func (m *member) log() string {
	if m.p == nil {
		return ""
	}
	text := m.p.out.String()
	if cut := len(text) - 3000; cut > 0 {
		text = "…" + text[cut:]
	}
	return text
}

func (m *member) signal(s os.Signal) {
	m.f.t.Helper()
	if err := m.p.cmd.Process.Signal(s); err != nil {
		m.f.t.Fatalf("%v to %s: %v", s, m.name, err)
	}
}

// kill ends the process at once, if there is one.
func (m *member) kill() {
	if m.running() {
		_ = m.p.cmd.Process.Kill() // it may have ended
		<-m.p.done
	}
}

// stop ends the process in order.
func (m *member) stop() {
	m.f.t.Helper()
	m.signal(syscall.SIGTERM)
	m.ended(0, "node stopped")
}

// pause stops the process where it is, as a partition or a machine that hangs looks from outside; resume lets it go on.
func (m *member) pause()  { m.f.t.Helper(); m.signal(syscall.SIGSTOP); m.paused = true }
func (m *member) resume() { m.f.t.Helper(); m.paused = false; m.signal(syscall.SIGCONT) }

// up says that the process runs, and is not paused.
func (m *member) up() bool { return m.running() && !m.paused }

// ended waits for the process to end by itself, with an exit code, and saying why.
func (m *member) ended(code int, why ...string) {
	m.f.t.Helper()
	select {
	case <-m.p.done:
	case <-time.After(patience):
		m.f.t.Fatalf("%s does not end; want exit code %d and %q\n%s", m.name, code, why, m.log())
	}
	if got := m.p.cmd.ProcessState.ExitCode(); got != code {
		m.f.t.Errorf("%s ended with exit code %d, want %d\n%s", m.name, got, code, m.log())
	}
	for _, text := range why {
		if out := m.p.out.String(); !regexp.MustCompile(text).MatchString(out) {
			m.f.t.Errorf("%s ended without saying %q:\n%s", m.name, text, m.log())
		}
	}
}

// says waits until the node's log has a line.
func (m *member) says(text string) {
	m.f.t.Helper()
	line := regexp.MustCompile(text)
	m.f.until(m.name+" says "+text, func() error {
		if !m.running() {
			m.f.t.Fatalf("%s has ended before it said %q:\n%s", m.name, text, m.log())
		}
		if !line.MatchString(m.p.out.String()) {
			return errors.New("it has not")
		}
		return nil
	})
}

// orOther waits until one of two nodes says something.
func (m *member) orOther(other *member, text string) {
	m.f.t.Helper()
	line := regexp.MustCompile(text)
	m.f.until(m.name+" or "+other.name+" says "+text, func() error {
		if !line.MatchString(m.p.out.String()) && !line.MatchString(other.p.out.String()) {
			return fmt.Errorf("neither has:\n%s\n%s", m.log(), other.log())
		}
		return nil
	})
}

// addrs are the REST addresses of the nodes that run.
func (f *fleet) addrs() (addrs []string) {
	for _, m := range f.nodes {
		if m.up() {
			addrs = append(addrs, m.addr(0))
		}
	}
	return addrs
}

// client asks the nodes that run, or some.
func (f *fleet) client(some ...*member) *client.Client {
	f.t.Helper()
	addrs := f.addrs()
	if len(some) > 0 {
		addrs = nil
	}
	for _, m := range some {
		addrs = append(addrs, m.addr(0))
	}
	c, err := client.New(client.Config{Addrs: addrs, Pinned: true, RetryFor: 5 * time.Second, AttemptTimeout: 5 * time.Second})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(c.Close)
	return c
}

// until waits for a condition, which says what it still lacks.
func (f *fleet) until(what string, lacks func() error) {
	f.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := lacks()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("not within %v: %s: %v", patience, what, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// hanse runs the program against the nodes that run.
func (f *fleet) hanse(args ...string) (out, errOut string, code int) {
	f.t.Helper()
	cmd := exec.Command(program(f.t, ""), append(args, "--addr", strings.Join(f.addrs(), ","))...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		f.t.Fatal(err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// command runs the program and wants an exit code, and texts in what it prints.
func (f *fleet) command(code int, args []string, want ...string) string {
	f.t.Helper()
	out, errOut, got := f.hanse(args...)
	if got != code {
		f.t.Fatalf("hanse %s: exit code %d, want %d:\n%s%s", strings.Join(args, " "), got, code, out, errOut)
	}
	for _, text := range want {
		if !regexp.MustCompile(text).MatchString(out + errOut) {
			f.t.Fatalf("hanse %s does not say %q:\n%s%s", strings.Join(args, " "), text, out, errOut)
		}
	}
	return out
}

// makeToken lets nodes join.
func (f *fleet) makeToken() {
	f.t.Helper()
	f.token = strings.TrimSpace(f.command(0, []string{"node", "token"}))
}

// overview is the cluster as the nodes that run see it, or one.
func (f *fleet) overview(by ...*member) (*client.Overview, error) {
	return f.client(by...).Overview(f.t.Context())
}

// node finds a node by its name.
func (f *fleet) node(m *member) (client.Node, error) {
	v, err := f.overview()
	if err != nil {
		return client.Node{}, err
	}
	for _, n := range v.Nodes {
		if n.REST == m.addr(0) && n.State != client.Decommissioned {
			return n, nil
		}
	}
	return client.Node{}, fmt.Errorf("%s is no member", m.name)
}

// id is a node's number.
func (f *fleet) id(m *member) (id uint64) {
	f.t.Helper()
	f.until(m.name+" has a number", func() error {
		n, err := f.node(m)
		id = n.ID
		return err
	})
	return id
}

// view is what all nodes that run agree on.
type view struct {
	*client.Overview
	shards []client.Shard
}

// agreed looks at the cluster from every node that runs, and complains when they differ.
func (f *fleet) agreed() (v view, err error) {
	for _, m := range f.nodes {
		if !m.up() {
			continue
		}
		o, err := f.overview(m)
		switch {
		case err != nil:
			return v, fmt.Errorf("%s: %w", m.name, err)
		case o.Cluster.Version == 0:
			return v, errors.New("the cluster has not been founded")
		case v.Overview != nil && v.Cluster.Version != o.Cluster.Version:
			return v, fmt.Errorf("%s knows version %d, another node version %d", m.name, o.Cluster.Version, v.Cluster.Version)
		}
		v.Overview = o
		s, err := f.client(m).Shards(f.t.Context())
		if err != nil {
			return v, fmt.Errorf("%s: %w", m.name, err)
		}
		v.shards = s.Shards
	}
	if v.Overview == nil {
		return v, errors.New("no node runs")
	}
	return v, nil
}

// seen waits until all nodes that run show the same cluster, and returns it.
func (f *fleet) seen() (v view) {
	f.t.Helper()
	f.until("all nodes show the same cluster", func() (err error) {
		v, err = f.agreed()
		return err
	})
	return v
}

// ready waits until all nodes that run are active and well, and every shard is as it should be.
func (f *fleet) ready() {
	f.t.Helper()
	f.until("the cluster is ready", func() error {
		v, err := f.agreed()
		if err != nil {
			return err
		}
		for _, m := range f.nodes {
			if !m.up() {
				continue
			}
			i := slices.IndexFunc(v.Nodes, func(n client.Node) bool { return n.REST == m.addr(0) })
			if i < 0 || !strings.Contains(m.p.out.String(), "node registered") { // or what is known of it is of an earlier start
				return fmt.Errorf("%s has not registered", m.name)
			}
			if n := v.Nodes[i]; n.State != client.Active || n.Health != client.Healthy {
				return fmt.Errorf("%s is %s and %s: %s", m.name, n.State, n.Health, n.Reason)
			}
		}
		return v.sound()
	})
}

// serves says why some nodes do not take orders, stock and keys.
func (f *fleet) serves(by ...*member) error {
	for _, m := range by {
		key := fmt.Sprintf("serves-%d", rand.Uint64())
		if _, err := f.client(m).Receive(f.t.Context(), key+"-stock", "TEA", client.StockChange{Quantity: 1}); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		o, err := f.client(m).PlaceOrder(f.t.Context(), key, &client.PlaceOrder{
			CustomerID: key, Currency: "EUR", Payment: &client.Method{Method: "card"}, Lines: []client.NewLine{{SKU: "TEA", Quantity: 1, UnitPrice: 799}},
		})
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", m.name, err)
		case o.State != "confirmed":
			return fmt.Errorf("%s: order %s is %s", m.name, o.ID, o.State)
		}
	}
	return nil
}

// sound says which shard is not as it should be.
func (v view) sound() error {
	for _, sh := range v.shards {
		if sh.State != "ok" || sh.Leader == 0 {
			return fmt.Errorf("%s is %s, led by %d: %+v", sh.ID, sh.State, sh.Leader, sh.Replicas)
		}
	}
	return nil
}

// balanced waits until replicas are spread evenly over the active nodes and each leads its share, but for some that cannot host everything, and
// nothing moves.
func (f *fleet) balanced(but ...*member) {
	f.t.Helper()
	f.until("the load is even", func() error {
		v, err := f.agreed()
		if err == nil {
			err = v.sound()
		}
		if err != nil {
			return err
		}
		for _, sh := range v.shards {
			if sh.Preferred != sh.Leader {
				return fmt.Errorf("%s is led by %d, to be led by %d", sh.ID, sh.Leader, sh.Preferred)
			}
		}
		var replicas, leaders []int
		for _, n := range v.Nodes {
			if n.State == client.Active && !slices.ContainsFunc(but, func(m *member) bool { return m.addr(0) == n.REST }) {
				replicas, leaders = append(replicas, n.Replicas), append(leaders, n.Leaders)
			}
		}
		total := 0
		for _, n := range leaders {
			total += n
		}
		least, most := cluster.FairShare(total, len(leaders))
		if slices.Max(replicas)-slices.Min(replicas) > 1 || slices.Min(leaders) < least || slices.Max(leaders) > most {
			return fmt.Errorf("replicas %v, leaders %v", replicas, leaders)
		}
		return nil
	})
}

// audit fails the test when the books do not agree.
func (f *fleet) audit() {
	f.t.Helper()
	out := f.command(0, []string{"audit", "--json"})
	var report struct {
		Orders      int              `json:"orders"`
		Differences []map[string]any `json:"differences"`
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || len(report.Differences) > 0 {
		f.t.Errorf("audit: %v: %s", err, out)
	}
	f.t.Logf("audited %d orders", report.Orders)
}

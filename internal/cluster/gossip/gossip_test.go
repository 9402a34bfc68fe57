package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"hanse/internal/freeport"
)

// process is a node with real sockets on the loopback.
type process struct {
	*Gossip
	t    *testing.T
	log  *record
	wire *wire
	stop func() // ends it and waits
}

// wire is the library's transport, from which other processes can be hidden.
type wire struct {
	memberlist.NodeAwareTransport
	hidden atomic.Pointer[[]string] // addresses; nil: none
	all    atomic.Bool              // hides everybody
}

var errHidden = errors.New("no route")

func (w *wire) hides(address string) bool {
	hidden := w.hidden.Load()
	return w.all.Load() || hidden != nil && slices.Contains(*hidden, address)
}

func (w *wire) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if w.hides(a.Addr) {
		return time.Now(), nil
	}
	return w.NodeAwareTransport.WriteToAddress(b, a)
}

func (w *wire) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if w.hides(a.Addr) {
		return nil, errHidden
	}
	return w.NodeAwareTransport.DialAddressTimeout(a, timeout)
}

// record keeps what was logged.
type record struct {
	mu    sync.Mutex
	lines strings.Builder
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lines.Write(p)
}

func (r *record) has(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains(r.lines.String(), text)
}

// known is a list of addresses that a test may change.
type known struct {
	mu        sync.Mutex
	addresses []string
}

func (k *known) add(p *process) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.addresses = append(k.addresses, p.Addr().String())
}

func (k *known) all() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.addresses)
}

func config(node, boot uint64, known func() []string) Config {
	return Config{
		Cluster: "c1", Secret: []byte("secret"), Listen: "127.0.0.1:0", Rejoin: 100 * time.Millisecond, Known: known,
		Self: Member{Node: node, Boot: boot, HTTP: "h:1", Peers: "p:1", Version: "v"},
	}
}

// start runs a process with quick probes, until the test ends. Its members are forgotten as soon as they are dead, so that only the loop
// finds them again.
func start(t *testing.T, cfg Config, tune ...func(*memberlist.Config)) *process {
	t.Helper()
	p := &process{t: t, log: new(record)}
	cfg.Log = slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	g, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.Gossip = g
	p.wire = &wire{NodeAwareTransport: g.settings.Transport.(memberlist.NodeAwareTransport)}
	g.settings.Transport = p.wire
	g.settings.ProbeInterval, g.settings.ProbeTimeout, g.settings.SuspicionMult = 200*time.Millisecond, 100*time.Millisecond, 2
	g.settings.GossipInterval, g.settings.GossipToTheDeadTime = 50*time.Millisecond, time.Millisecond
	for _, f := range tune {
		f(g.settings)
	}

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run of node %d: %v", cfg.Self.Node, err)
		}
	})
	t.Cleanup(p.stop)
	return p
}

// crash ends the process without a goodbye.
func (p *process) crash() {
	p.wire.all.Store(true)
	p.stop()
}

// sees lists the members: "1.1 2.1".
func (p *process) sees() string {
	var all []string
	for _, m := range p.Members() {
		all = append(all, fmt.Sprintf("%d.%d", m.Node, m.Boot))
	}
	return strings.Join(all, " ")
}

// await waits for a condition, for as long as a loaded machine may take.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !condition() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("waited for a minute: %s", what)
		}
	}
}

func awaitSees(t *testing.T, want string, all ...*process) {
	t.Helper()
	for _, p := range all {
		await(t, fmt.Sprintf("node %d sees %q", p.cfg.Self.Node, want), func() bool { return p.sees() == want })
	}
}

func TestThreeFindEachOtherByOneSeed(t *testing.T) {
	t.Parallel()
	var seeds known
	first := start(t, config(1, 1, nil))
	seeds.add(first)
	second, third := start(t, config(2, 1, seeds.all)), start(t, config(3, 1, seeds.all))
	awaitSees(t, "1.1 2.1 3.1", first, second, third)

	want := second.cfg.Self
	if got := first.Members()[1]; got != want || got.Gossip != second.Addr().String() {
		t.Errorf("node 1 knows node 2 as %+v, want %+v at %s", got, want, second.Addr())
	}
	select {
	case <-first.Changed():
	default:
		t.Error("two members came, and Changed holds no token")
	}
	second.stop()
	awaitSees(t, "1.1 3.1", first, third)
	if !second.log.has("level=DEBUG") || second.log.has("level=ERROR") {
		t.Errorf("node 2 logged:\n%s", second.log.lines.String())
	}
}

// A node crashes; it comes back elsewhere and knows nobody, but the others know where it ought to be.
func TestCrashedNodeComesBackElsewhere(t *testing.T) {
	t.Parallel()
	var seeds known
	first := start(t, config(1, 1, seeds.all))
	seeds.add(first)
	second, third := start(t, config(2, 1, seeds.all)), start(t, config(3, 1, seeds.all))
	awaitSees(t, "1.1 2.1 3.1", first, second, third)

	third.crash()
	awaitSees(t, "1.1 2.1", first, second)
	back := start(t, config(3, 2, nil))
	seeds.add(back)
	awaitSees(t, "1.1 2.1 3.2", first, second, back)
}

// It comes back before the others have noticed. They see it at once, and it has nothing to argue about with its former self.
func TestQuickRestart(t *testing.T) {
	t.Parallel()
	var seeds known
	first := start(t, config(1, 1, nil), func(c *memberlist.Config) { c.SuspicionMult = 1000 }) // does not notice
	seeds.add(first)
	port, err := freeport.Block() // that nobody takes in between
	if err != nil {
		t.Fatal(err)
	}
	once, again := config(2, 1, seeds.all), config(2, 2, seeds.all)
	once.Listen = fmt.Sprintf("127.0.0.1:%d", port)
	again.Listen = once.Listen
	second := start(t, once)
	awaitSees(t, "1.1 2.1", first, second)
	second.crash()
	awaitSees(t, "1.1 2.2", first, start(t, again))
	if c := first.Conflicts(); len(c) > 0 {
		t.Errorf("a restart is reported as a conflict: %+v", c)
	}
}

func TestHalvesThatForgotEachOtherMeetAgain(t *testing.T) {
	t.Parallel()
	var seeds known
	first := start(t, config(1, 1, seeds.all))
	seeds.add(first)
	second, third := start(t, config(2, 1, seeds.all)), start(t, config(3, 1, seeds.all))
	seeds.add(second)
	awaitSees(t, "1.1 2.1 3.1", first, second, third)

	first.wire.hidden.Store(&[]string{second.Addr().String(), third.Addr().String()})
	second.wire.hidden.Store(&[]string{first.Addr().String()})
	third.wire.hidden.Store(&[]string{first.Addr().String()})
	awaitSees(t, "1.1", first)
	awaitSees(t, "2.1 3.1", second, third)

	for _, p := range []*process{first, second, third} {
		p.wire.hidden.Store(nil)
	}
	awaitSees(t, "1.1 2.1 3.1", first, second, third)
}

func TestStrangersAreNotHeard(t *testing.T) {
	t.Parallel()
	var seeds known
	first := start(t, config(1, 1, nil))
	seeds.add(first)
	second := start(t, config(2, 1, seeds.all))
	for name, stranger := range map[string]struct {
		cluster, secret string
		heard           string // what node 1 says about it
	}{
		"another secret":  {"c1", "guessed", "no installed keys could decrypt the message"},
		"another cluster": {"c2", "secret", "unacceptable label"},
	} {
		cfg := config(3, 1, seeds.all)
		cfg.Cluster, cfg.Secret = stranger.cluster, []byte(stranger.secret)
		p := start(t, cfg)
		await(t, name+" is refused", func() bool { return first.log.has(stranger.heard) })
		if got := p.sees(); got != "3.1" {
			t.Errorf("%s: sees %q, want itself", name, got)
		}
	}
	// Whatever the strangers sent has been answered by now, and these two still only see each other.
	awaitSees(t, "1.1 2.1", first, second)
}

func TestTwoProcessesWithOneNumber(t *testing.T) {
	t.Parallel()
	var seeds known
	lingering := func(node, boot uint64) Config {
		cfg := config(node, boot, seeds.all)
		cfg.Linger = 10 * time.Millisecond
		return cfg
	}
	first := start(t, lingering(1, 1))
	seeds.add(first)
	second := start(t, lingering(2, 7))
	copied := start(t, lingering(2, 5))
	awaitSees(t, "1.1 2.7", first, second, copied)
	want := Conflict{Counts: second.cfg.Self, Other: copied.cfg.Self}
	for _, p := range []*process{first, second, copied} {
		await(t, "the conflict is seen", func() bool { return slices.Equal(p.Conflicts(), []Conflict{want}) })
		await(t, "it is logged", func() bool {
			return p.log.has(`level=WARN msg="two processes take themselves for one node" node=2 boot=7`)
		})
	}
	copied.stop()
	await(t, "the conflict is over", func() bool { return first.Conflicts() == nil })

	cfg := lingering(2, 7)
	cfg.Linger = time.Hour
	twin := start(t, cfg)
	await(t, "a twin of the same boot is seen", func() bool {
		c := twin.Conflicts()
		return len(c) == 1 && c[0].Counts == twin.cfg.Self && c[0].Other == second.cfg.Self
	})
}

func TestOpenRefuses(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"the cluster's ID has 0 bytes, want 1 to 255":                     func(c *Config) { c.Cluster = "" },
		"the cluster's ID has 256 bytes, want 1 to 255":                   func(c *Config) { c.Cluster = strings.Repeat("x", 256) },
		"the secret is empty":                                             func(c *Config) { c.Secret = nil },
		"this node has no number":                                         func(c *Config) { c.Self.Node = 0 },
		"neither can be negative":                                         func(c *Config) { c.Rejoin = -1 },
		`listen on "nowhere": address nowhere: missing port in address`:   func(c *Config) { c.Listen = "nowhere" },
		"listening on every address does not say by which the others":     func(c *Config) { c.Listen = ":0" },
		"this node's addresses, name, zone and version take 583 bytes as": func(c *Config) { c.Self.Name = strings.Repeat("x", 513) },
	} {
		cfg := config(1, 1, nil)
		change(&cfg)
		g, err := Open(cfg)
		if err == nil {
			_ = g.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open = %v, want %q", err, want)
		}
	}
}

// Who connects before Run does not keep Close from giving the port back.
func TestCloseWithoutRun(t *testing.T) {
	cfg := config(1, 1, nil)
	g, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"tcp", "udp"} {
		conn, err := net.Dial(network, g.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Listen = g.Addr().String()
	again, err := Open(cfg)
	if err != nil {
		t.Fatalf("the port was not given back: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := again.Run(ctx); err != nil {
		t.Errorf("Run with a context that has ended = %v, want nil", err)
	}
}

// It runs while the parallel tests wait, so what is left is left by it.
func TestNothingIsLeftRunning(t *testing.T) {
	var seeds known
	first := start(t, config(1, 1, seeds.all))
	seeds.add(first)
	second := start(t, config(2, 1, seeds.all))
	awaitSees(t, "1.1 2.1", first, second)
	second.stop()
	first.crash()
	await(t, "all goroutines of the library have ended", func() bool {
		buf := make([]byte, 1<<20)
		return !strings.Contains(string(buf[:runtime.Stack(buf, true)]), "hashicorp/memberlist")
	})
}

func TestLinesOfTheLibrary(t *testing.T) {
	for line, want := range map[string]string{
		"[DEBUG] memberlist: Stream connection from=1.2.3.4:5": `level=DEBUG msg="gossip reports" what="Stream connection from=1.2.3.4:5"`,
		"[INFO] memberlist: Marking 2.1 as failed":             `level=DEBUG msg="gossip reports" what="Marking 2.1 as failed"`,
		"[WARN] memberlist: Refuting a dead message":           `level=WARN msg="gossip reports" what="Refuting a dead message"`,
		"[ERR] memberlist: Push/Pull with 3.1 failed: eof":     `level=WARN msg="gossip reports" what="Push/Pull with 3.1 failed: eof"`,
		"a line of another form":                               `level=DEBUG msg="gossip reports" what="a line of another form"`,
	} {
		var out record
		libraryLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))).Print(line)
		if !out.has(want) {
			t.Errorf("%q is logged as %q, want %q", line, out.lines.String(), want)
		}
	}
	var out record
	log := libraryLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn})))
	for range 1000 {
		log.Print("[ERR] memberlist: failed to receive: No installed keys could decrypt the message")
	}
	if n := strings.Count(out.lines.String(), "\n"); n < 5 || n > 10 {
		t.Errorf("1000 errors at once are %d warnings, want 5 or a few more", n)
	}
}

func TestLookUp(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:7946":          "[127.0.0.1:7946] <nil>",
		"[::1]:7946":              "[[::1]:7946] <nil>",
		"[::ffff:10.0.0.1]:1":     "[10.0.0.1:1] <nil>",
		"127.0.0.1":               "[] address 127.0.0.1: missing port in address",
		"127.0.0.1:no-such-thing": "[] lookup tcp/no-such-thing: unknown port",
	} {
		found, err := lookUp(t.Context(), address)
		if got := fmt.Sprint(found, " ", err); got != want {
			t.Errorf("lookUp(%q) = %s, want %s", address, got, want)
		}
	}
}

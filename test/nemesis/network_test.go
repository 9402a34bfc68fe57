package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fakeNetwork remembers how it is shaped.
type fakeNetwork struct{ links map[link]trouble }

func (f *fakeNetwork) listen(h host, s service) string { return fmt.Sprintf("%v/%s", h, s) }
func (f *fakeNetwork) reach(from, to host, s service) string {
	return fmt.Sprintf("%v>%v/%s", from, to, s)
}
func (f *fakeNetwork) prefix(host) []string { return nil }
func (f *fakeNetwork) close() error         { return nil }
func (f *fakeNetwork) shape(_ context.Context, links map[link]trouble) error {
	f.links = links
	return nil
}

// echo answers each line at a door of node 2 and tells which lines it has heard.
func echo(t *testing.T, addr string) <-chan string {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	heard := make(chan string, 10)
	go func() { // ends when the listener is closed
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with its connection
				defer c.Close()
				for s := bufio.NewScanner(c); s.Scan(); {
					heard <- s.Text()
					fmt.Fprintln(c, s.Text())
				}
			}()
		}
	}()
	return heard
}

func TestProxyCutsOneWay(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("who calls can be told on Linux only")
	}
	p, err := newProxyNetwork(3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.close() })
	p.owner = func() map[int]host { return map[int]host{os.Getppid(): 3, os.Getpid(): 1} }
	heard := echo(t, p.listen(2, peerDoor))
	c, err := net.Dial("tcp", p.reach(anyNode, 2, peerDoor))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answers := bufio.NewReader(c)
	say := func(line string) {
		if _, err := fmt.Fprintln(c, line); err != nil {
			t.Fatal(err)
		}
	}
	answer := func(want string) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if line, err := answers.ReadString('\n'); err != nil || strings.TrimSpace(line) != want {
			t.Fatalf("answer %q, %v, want %q", line, err, want)
		}
	}
	shape := func(links map[link]trouble) {
		if err := p.shape(t.Context(), links); err != nil {
			t.Fatal(err)
		}
	}
	say("one")
	answer("one")
	<-heard

	// Node 1 is heard and does not hear; another link does not matter.
	shape(map[link]trouble{{2, 1}: {Cut: true}, {3, 1}: {Cut: true}})
	say("two")
	if got := <-heard; got != "two" {
		t.Errorf("heard %q, want two", got)
	}
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if b, err := answers.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an answer came through a cut link: %q, %v", b, err)
	}
	shape(nil)
	answer("two")

	// Node 1 hears and is not heard.
	shape(map[link]trouble{{1, 2}: {Cut: true}})
	say("three")
	select {
	case line := <-heard:
		t.Errorf("heard %q through a cut link", line)
	case <-time.After(50 * time.Millisecond):
	}
	shape(map[link]trouble{{1, 2}: {Loss: 0.5, Delay: time.Millisecond}})
	answer("three")
}

func TestNodesAreToldHowOthersReachThem(t *testing.T) {
	const want = "1=clients>node 1/rest/node 0>node 1/peer,2=clients>node 2/rest/node 0>node 2/peer,3=clients>node 3/rest/node 0>node 3/peer"
	if got := peersFlag(&fakeNetwork{}, 3); got != want {
		t.Errorf("peers:\n%s, want\n%s", got, want)
	}
}

func TestNamespacesComeAndGo(t *testing.T) {
	if err := namespacesWork(t.Context()); err != nil {
		t.Skipf("no network namespaces here: %v", err)
	}
	base := fmt.Sprintf("%s%d", namespacePrefix, os.Getpid())
	ours := func(name string) bool { return strings.HasPrefix(name, base+"-") }
	t.Cleanup(func() {
		if err := removeNamespaces(context.Background(), ours); err != nil { // t.Context has ended
			t.Error(err)
		}
	})
	if err := makeNamespaces(t.Context(), base, 3); err != nil {
		t.Fatal(err)
	}
	n := &netnsNetwork{base: base, nodes: 3}
	links := map[link]trouble{{1, 2}: {Cut: true}, {clientsHost, 3}: {Loss: 0.25}}
	for range 2 { // rules replace one another
		if err := n.shape(t.Context(), links); err != nil {
			t.Fatal(err)
		}
	}
	out, err := command(t.Context(), append(n.prefix(2), "iptables-save")...)
	if err != nil || strings.Count(out, "-A INPUT -s 10.77.0.1/32 -j DROP") != 1 {
		t.Errorf("node 2 hears node 1: %v\n%s", err, out)
	}
	if err := n.shape(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if out, err := command(t.Context(), append(n.prefix(3), "iptables-save")...); err != nil || strings.Contains(out, "DROP") {
		t.Errorf("rules are left at node 3: %v\n%s", err, out)
	}
	if leftover(base + "-1") {
		t.Error("namespaces of a living run are taken for leftovers")
	}
	if leftover(namespacePrefix + "nonsense-1") {
		t.Error("namespaces of nobody are taken for leftovers")
	}
}

func command(ctx context.Context, argv ...string) (string, error) {
	var b strings.Builder
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout = &b
	err := cmd.Run()
	return b.String(), err
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// A process is started again when it ends by itself, and stays down for as long as anything holds it.
func TestProcessIsHeldDownAndStartedAgain(t *testing.T) {
	dir := t.TempDir()
	exits := make(chan exit, 10)
	p := &process{
		name: "node 1", argv: []string{"sh", "-c", `echo "panic: $0" ; exec sleep 600`}, log: filepath.Join(dir, "log"), spawner: newSpawner(),
		fell: func(e exit) { exits <- e },
	}
	defer p.close()
	if err := p.launch(); err != nil {
		t.Fatal(err)
	}
	first := p.pid()
	if err := p.hold(t.Context(), syscall.SIGKILL); err != nil || p.pid() != 0 {
		t.Fatalf("held, and pid is %d, %v", p.pid(), err)
	}
	if err := p.hold(t.Context(), syscall.SIGKILL); err != nil { // a second reason
		t.Fatal(err)
	}
	if err := p.release(); err != nil || p.pid() != 0 {
		t.Fatalf("one of two reasons is left, and pid is %d, %v", p.pid(), err)
	}
	if err := p.release(); err != nil || p.pid() == 0 || p.pid() == first {
		t.Fatalf("released, and pid is %d, %v", p.pid(), err)
	}
	if len(exits) != 0 {
		t.Errorf("an end that was asked for is reported: %v", <-exits)
	}
	second := p.pid()
	until(t, "it has written its log", func() bool { return panicked(p.log, p.size) })
	p.signal(syscall.SIGTERM) // not ours to know: as if it ended by itself
	if e := <-exits; e.Name != "node 1" || !e.Bug || !strings.Contains(e.How, "terminated") {
		t.Errorf("exit %+v, want node 1's, by SIGTERM, with a panic in its log", e)
	}
	until(t, "it runs again", func() bool { return p.pid() != 0 && p.pid() != second })
	p.close()
	if err := p.launch(); err != nil || p.pid() != 0 {
		t.Errorf("closed, and pid is %d, %v", p.pid(), err)
	}
}

func TestPanicked(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	old := "panic: an old one\n"
	if err := os.WriteFile(log, []byte(old+"level=ERROR msg=\"no panic: here\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !panicked(log, 0) || panicked(log, int64(len(old))) {
		t.Error("a panic of an earlier life counts, or one of this life does not")
	}
}

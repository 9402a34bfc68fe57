package dev

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hanse/internal/freeport"
)

// The test binary is its own children: what it does is said in this variable.
const (
	roleEnv   = "HANSE_TEST_ROLE"
	socketEnv = "HANSE_TEST_SOCKET"
)

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleEnv); role {
	case "":
		os.Exit(m.Run())
	case "end":
		fmt.Println("my work is done")
	case "crash":
		fmt.Println("cannot go on")
		os.Exit(3)
	case "parent":
		cfg := DefaultConfig()
		cfg.Dir, cfg.Runtime, cfg.Name = os.Getenv("HANSE_TEST_DIR"), os.Getenv("HANSE_TEST_DIR"), "parent"
		cfg.Processes = []Process{child("node 1", "obedient")}
		fmt.Println(New(cfg).Run(context.Background()))
	default:
		c := make(chan os.Signal, 1)
		if role == "stubborn" {
			signal.Ignore(syscall.SIGTERM)
		} else {
			signal.Notify(c, syscall.SIGTERM)
		}
		conn, err := net.Dial("unix", os.Getenv(socketEnv))
		if err != nil {
			panic(err)
		}
		fmt.Fprintln(conn, os.Getpid())
		fmt.Println("up")
		<-c
		fmt.Println("going")
	}
}

func child(name, role string) Process {
	return Process{Name: name, Command: []string{os.Args[0]}, Env: []string{roleEnv + "=" + role, "GORACE=atexit_sleep_ms=0"}} // which would outlast Grace
}

// births accepts the connections that children open when they are up and keep until they die.
type births struct {
	l net.Listener
	t *testing.T
}

func newBirths(t *testing.T) births {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	t.Setenv(socketEnv, path)
	return births{l, t}
}

// next waits until a child is up and returns its PID and its life line.
func (b births) next() (int, io.Reader) {
	b.t.Helper()
	conn, err := b.l.Accept()
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if err != nil {
		b.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		b.t.Fatal(err)
	}
	return pid, r
}

// run starts a supervisor and returns it with its control, its reports and what stops it.
func run(t *testing.T, procs ...Process) (*Supervisor, chan Status, func() error) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Dir, cfg.Runtime, cfg.Name, cfg.Grace = t.TempDir(), t.TempDir(), "7400", time.Second // the obedient end in it on a busy machine too
	cfg.Processes = procs
	reports := make(chan Status, 100)
	cfg.Report = func(s Status) { reports <- s }
	s := New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop := func() error {
		cancel()
		err := <-ended
		ended <- err
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return s, reports, stop
}

func control(t *testing.T, s *Supervisor) *Control {
	t.Helper()
	<-s.Started()
	c, err := Find(s.cfg.Runtime, s.cfg.Name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func dead(t *testing.T, lifeLine io.Reader) {
	t.Helper()
	if n, err := lifeLine.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes from a child that should be dead", n)
	}
}

func TestANodeIsAdded(t *testing.T) {
	b := newBirths(t)
	cfg := DefaultConfig()
	cfg.Dir, cfg.Runtime, cfg.Name = t.TempDir(), t.TempDir(), "7400"
	cfg.Processes = []Process{child("node 1", "obedient")}
	asked := make(chan Addition, 1)
	cfg.Add = func(a Addition) (Process, error) {
		asked <- a
		if a.Zone == "full" {
			return Process{}, errors.New("there is no room")
		}
		return child("node 2", "obedient"), nil
	}
	s := New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	c := control(t, s)
	b.next()
	if _, err := c.Add(ctx, Addition{Zone: "full"}); err == nil || err.Error() != "there is no room" {
		t.Errorf("Add = %v, want what is in the way", err)
	}
	<-asked
	got, err := c.Add(ctx, Addition{Zone: "b", Roles: []string{"order"}})
	if a := <-asked; err != nil || got.Name != "node 2" || got.State != Running || a.Zone != "b" || len(a.Roles) != 1 {
		t.Fatalf("Add = %+v, %v, having asked for %+v", got, err, a)
	}
	_, line := b.next()
	// It is a process like the others.
	if got, err := c.Do(ctx, "kill", "node 2"); err != nil || got.State != Killed {
		t.Errorf("kill = %+v, %v", got, err)
	}
	dead(t, line)
	if got, err := c.Do(ctx, "start", "node 2"); err != nil || got.State != Running {
		t.Errorf("start = %+v, %v", got, err)
	}
	_, line = b.next()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	dead(t, line)
}

func TestNothingIsAddedWhereNothingCanBe(t *testing.T) {
	newBirths(t)
	s, _, _ := run(t)
	if _, err := control(t, s).Add(t.Context(), Addition{}); err == nil || !strings.Contains(err.Error(), "nothing can be added") {
		t.Errorf("Add = %v", err)
	}
}

func TestKillStopAndStart(t *testing.T) {
	b := newBirths(t)
	s, reports, stop := run(t, child("node 1", "obedient"), child("node 2", "stubborn"))
	c := control(t, s)
	lines := make(map[int]io.Reader)
	for range 2 {
		pid, line := b.next()
		lines[pid] = line
	}
	all, err := c.Status(t.Context())
	if err != nil || len(all) != 2 || all[0].State != Running || lines[all[0].PID] == nil || lines[all[1].PID] == nil {
		t.Fatalf("Status = %+v, %v; want both running", all, err)
	}

	steps := []struct {
		act, name string
		state     State
		exit, err string
	}{
		{"kill", "node 1", Killed, "signal: killed", ""},
		{"kill", "node 1", "", "", "does not run: it is killed"},
		{"start", "node 1", Running, "", ""},
		{"start", "node 1", "", "", "runs already"},
		{"stop", "node 1", Stopped, "exit status 0", ""},
		{"stop", "node 2", Stopped, "signal: killed", ""}, // it ignores the question
		{"start", "node 2", Running, "", ""},
		{"kill", "node 9", "", "", "there is no node 9"},
		{"feed", "node 2", "", "", "nothing to do to a process"},
	}
	for _, step := range steps {
		got, err := c.Do(t.Context(), step.act, step.name)
		if step.err != "" {
			if err == nil || !strings.Contains(err.Error(), step.err) {
				t.Errorf("%s %s: %v, want %q", step.act, step.name, err, step.err)
			}
			continue
		}
		if err != nil || got.State != step.state || got.Exit != step.exit {
			t.Errorf("%s %s = %+v, %v; want %s, %q", step.act, step.name, got, err, step.state, step.exit)
		}
		if step.state == Running {
			pid, line := b.next()
			lines[pid] = line
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		dead(t, line)
	}
	if _, err := Find(s.cfg.Runtime, s.cfg.Name); !errors.Is(err, ErrNoCluster) {
		t.Errorf("Find after the end: %v, want ErrNoCluster", err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.cfg.Runtime, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	close(reports)
	var told []string
	for r := range reports {
		if r.Name == "node 1" {
			told = append(told, string(r.State))
		}
	}
	if got := strings.Join(told, " "); got != "running killed running stopped" {
		t.Errorf("reports about node 1: %s", got)
	}
	if log := Tail(filepath.Join(s.cfg.Dir, "node1.log"), 1); log != "going" {
		t.Errorf("the log of node 1 ends with %q", log)
	}
}

func TestCrashIsReportedAndNotHealed(t *testing.T) {
	s, reports, _ := run(t, child("psp", "crash"))
	c := control(t, s)
	<-reports // running
	got := <-reports
	if got.State != Crashed || got.Exit != "exit status 3" || Tail(got.Log, 5) != "cannot go on" {
		t.Errorf("report %+v, log %q", got, Tail(got.Log, 5))
	}
	all, err := c.Status(t.Context())
	if err != nil || all[0].State != Crashed {
		t.Errorf("Status = %+v, %v; want it crashed still", all, err)
	}
}

func TestAnOrderlyEndIsNoCrash(t *testing.T) {
	_, reports, _ := run(t, child("node 1", "end"))
	<-reports // running
	if got := <-reports; got.State != Ended || got.Exit != "exit status 0" {
		t.Errorf("report %+v, want it ended", got)
	}
}

func TestOneClusterToAPort(t *testing.T) {
	b := newBirths(t)
	s, _, _ := run(t, child("node 1", "obedient"))
	b.next()
	<-s.Started()
	second := New(s.cfg)
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("a second Run: %v", err)
	}
}

func TestRunWithAProgramThatIsNotThere(t *testing.T) {
	b := newBirths(t)
	s, _, stop := run(t, child("node 1", "obedient"), Process{Name: "node 2", Command: []string{"/nonexistent/hanse"}})
	if err := stop(); err == nil || !strings.Contains(err.Error(), "start node 2") {
		t.Errorf("Run: %v", err)
	}
	_ = b
	for _, p := range s.procs {
		if p.cmd != nil {
			t.Errorf("%s is left", p.Name)
		}
	}
}

func TestStaleControlFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(infoPath(dir, "1"), []byte(`{"pid":1,"socket":"`+filepath.Join(dir, "gone")+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(dir, "1"); !errors.Is(err, ErrNoCluster) {
		t.Errorf("Find: %v, want ErrNoCluster", err)
	}
	if err := os.WriteFile(infoPath(dir, "2"), []byte(`{`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(dir, "2"); err == nil || errors.Is(err, ErrNoCluster) {
		t.Errorf("Find of a broken file: %v", err)
	}
}

func TestWhatAKilledClusterLeftIsRemoved(t *testing.T) {
	runtime := t.TempDir()
	for _, test := range []struct {
		name, dir string
		temporary bool
		removed   bool
	}{
		{"its temporary directory", filepath.Join(runtime, "hanse-dev-123"), true, true},
		{"not one to keep", filepath.Join(runtime, "hanse-dev-124"), false, false},
		{"not one of another name", filepath.Join(runtime, "home"), true, false},
		{"not one elsewhere", filepath.Join(runtime, "x", "hanse-dev-125"), true, false},
		{"not one that looks so", filepath.Join(runtime, "hanse-dev-126", "..", "home"), true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.MkdirAll(filepath.Join(test.dir, "node1"), 0o700); err != nil {
				t.Fatal(err)
			}
			info := fmt.Sprintf(`{"pid":1,"dir":%q,"socket":%q,"temporary":%v}`, test.dir, filepath.Join(runtime, "gone"), test.temporary)
			if err := os.WriteFile(infoPath(runtime, "7"), []byte(info), 0o600); err != nil {
				t.Fatal(err)
			}
			s := New(Config{Dir: t.TempDir(), Runtime: runtime, Name: "7"})
			ctx, stop := context.WithCancel(t.Context())
			stop()
			if err := s.Run(ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(test.dir); os.IsNotExist(err) != test.removed {
				t.Errorf("%s: %v, want it removed: %v", test.dir, err, test.removed)
			}
		})
	}
}

func TestChildrenDieWithTheSupervisor(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends children with their parent")
	}
	b := newBirths(t)
	dir := t.TempDir()
	outer := child("supervisor", "parent")
	outer.Env = append(outer.Env, "HANSE_TEST_DIR="+dir)
	s, reports, _ := run(t, outer)
	c := control(t, s)
	_, lifeLine := b.next()
	if r := <-reports; r.State != Running {
		t.Fatalf("report %+v", r)
	}
	if _, err := c.Do(t.Context(), "kill", "supervisor"); err != nil {
		t.Fatal(err)
	}
	dead(t, lifeLine)
}

func TestWaitReady(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < 3 {
			http.Error(w, "no leader of order/1", http.StatusServiceUnavailable)
			return
		}
	}))
	defer server.Close()
	if err := WaitReady(t.Context(), server.URL+"/readyz"); err != nil || asked.Load() != 3 {
		t.Errorf("WaitReady: %v after %d questions, want nil after 3", err, asked.Load())
	}
	asked.Store(-1_000_000)
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(errors.New("node 1 crashed")) })
	err := WaitReady(ctx, server.URL+"/readyz")
	if err == nil || !strings.Contains(err.Error(), "no leader of order/1") || !strings.Contains(err.Error(), "node 1 crashed") {
		t.Errorf("WaitReady: %v, want the last answer and the cause", err)
	}
}

func TestPorts(t *testing.T) {
	if got, want := NodePorts(7400, 3), (Ports{7420, 7421, 7422, 7423, 7424}); got != want {
		t.Errorf("NodePorts(7400, 3) = %+v, want %+v", got, want)
	}
	port, err := freeport.Block()
	if err != nil {
		t.Fatal(err)
	}
	addr := Loopback(port)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckPorts(addr); err == nil || err.Error() != addr+" is in use" {
		t.Errorf("CheckPorts of a port in use: %v", err)
	}
	l.Close()
	if err := CheckPorts(addr); err != nil {
		t.Errorf("CheckPorts of a free port: %v", err)
	}
}

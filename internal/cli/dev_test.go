package cli

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hanse/client"
	"hanse/internal/dev"
	"hanse/internal/dirlock"
)

func TestADevelopmentClusterIsPlanned(t *testing.T) {
	d := &devRun{opts: devOptions{nodes: 3, port: 7400, psp: "sim"}, dir: "/data"}
	var cfg dev.Config
	provider, addrs := d.plan(&cfg, "hanse")
	if provider != "http://127.0.0.1:7490" || d.psp != provider {
		t.Errorf("the provider is at %s, want port 7490", provider)
	}
	if got, want := strings.Join(d.addrs, " "), "127.0.0.1:7400 127.0.0.1:7410 127.0.0.1:7420"; got != want {
		t.Errorf("nodes at %s, want %s", got, want)
	}
	if got, want := strings.Join(addrs, " "), "127.0.0.1:7490 127.0.0.1:7400 127.0.0.1:7402 127.0.0.1:7403 127.0.0.1:7410 127.0.0.1:7412 127.0.0.1:7413 127.0.0.1:7420 127.0.0.1:7422 127.0.0.1:7423"; got != want {
		t.Errorf("it needs %s, want %s", got, want)
	}
	var names []string
	for _, p := range cfg.Processes {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, ", "); got != "psp, node 1, node 2, node 3" {
		t.Errorf("it runs %s", got)
	}
	// Each command line is one that the program takes.
	for _, p := range cfg.Processes {
		root := (&app{}).root()
		cmd, args, err := root.Find(p.Command[1:])
		if err == nil {
			err = cmd.ParseFlags(args)
		}
		if err != nil {
			t.Errorf("%s: %v: %v", p.Name, p.Command, err)
		}
	}
	second := strings.Join(cfg.Processes[2].Command, " ")
	for _, want := range []string{"--node-id 2", "--data /data/node2", "--http-port 7410", "--psp http://127.0.0.1:7490", "--bootstrap", "1=127.0.0.1:7400/127.0.0.1:7402,2="} {
		if !strings.Contains(second, want) {
			t.Errorf("node 2 runs as %s, without %s", second, want)
		}
	}
	d = &devRun{opts: devOptions{nodes: 1, port: 7400, psp: "instant"}}
	if provider, addrs := d.plan(&cfg, "hanse"); provider != "" || len(addrs) != 3 {
		t.Errorf("without a process for it the provider is %q, and %v are needed", provider, addrs)
	}
}

func TestTheWelcomeTellsWhatToType(t *testing.T) {
	d := &devRun{
		opts: devOptions{nodes: 3, port: 7400}, dir: "/tmp/hanse-dev-1", temp: true, program: "hanse", psp: "http://127.0.0.1:7490",
		addrs: []string{"127.0.0.1:7400", "127.0.0.1:7410", "127.0.0.1:7420"}, start: time.Now(),
	}
	d.alive = d.addrs
	var out strings.Builder
	d.welcome(&out)
	for _, want := range []string{
		"3 nodes, a payment provider, a small shop", "http://127.0.0.1:7420", "gone when this ends", "curl -s http://127.0.0.1:7400/v1/orders",
		"hanse dev kill 2  ", "hanse dev add  ", "hanse audit  ", "Ctrl-C",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
	d.opts = devOptions{nodes: 1, port: 7500}
	d.addrs, d.alive, d.psp, d.temp = []string{"127.0.0.1:7500"}, []string{"127.0.0.1:7500"}, "", false
	out.Reset()
	d.welcome(&out)
	for _, want := range []string{"1 node, a small shop", "hanse audit --addr 127.0.0.1:7500"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
	for _, no := range []string{"kill", "provider", "gone when this ends", "7400"} {
		if strings.Contains(out.String(), no) {
			t.Errorf("it says %q:\n%s", no, out.String())
		}
	}
}

func TestZonesAreGivenInTurn(t *testing.T) {
	d := &devRun{opts: devOptions{nodes: 3, port: 7400, psp: "instant", zones: []string{"a", "b"}}, dir: t.TempDir()}
	var cfg dev.Config
	d.plan(&cfg, "hanse")
	for i, want := range []string{"a", "b", "a"} {
		if got := strings.Join(cfg.Processes[i].Command, " "); !strings.Contains(got, " --zone "+want+" ") {
			t.Errorf("node %d runs as %s, want it in zone %s", i+1, got, want)
		}
	}
	p, err := d.add("hanse", dev.Addition{})
	if err != nil || !strings.Contains(strings.Join(p.Command, " ")+" ", " --zone b ") {
		t.Errorf("the fourth runs as %v (%v), want it in zone b", p.Command, err)
	}
}

// An added node joins; when the cluster starts again with its directory, the node comes back.
func TestAddedNodesComeBack(t *testing.T) {
	dir := t.TempDir()
	d := &devRun{opts: devOptions{nodes: 3, port: 21400, psp: "sim"}, dir: dir}
	var cfg dev.Config
	d.plan(&cfg, "hanse")
	p, err := d.add("hanse", dev.Addition{Zone: "b", Roles: []string{"order", "payment"}})
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Join(p.Command, " ")
	for _, want := range []string{
		"--data " + dir + "/node4", "--http-port 21430", "--name node4", "--zone b", "--roles order,payment", "--psp http://127.0.0.1:21490",
		"--join 127.0.0.1:21400,127.0.0.1:21410,127.0.0.1:21420", "--join-token-file " + dir + "/join-token",
	} {
		if !strings.Contains(line, want) {
			t.Errorf("it runs as %s, without %s", line, want)
		}
	}
	if p.Name != "node 4" || strings.Contains(line, "--bootstrap") || strings.Contains(line, "--peers") || strings.Contains(line, "--node-id") {
		t.Errorf("%s runs as %s, want a node that joins", p.Name, line)
	}
	if err := os.WriteFile(filepath.Join(dir, tokenFile), []byte("hjt_1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if joined, err := configured(t, p.Command[2:]...); err != nil || joined.JoinToken != "hjt_1" || joined.ID != 0 {
		t.Errorf("hanse serve takes it as %+v, %v", joined, err)
	}
	if p, err = d.add("hanse", dev.Addition{}); err != nil || p.Name != "node 5" {
		t.Errorf("the next is %s, %v", p.Name, err)
	}

	again := &devRun{opts: devOptions{nodes: 3, port: 21400, psp: "sim"}, dir: dir}
	if again.added, err = readAdded(dir); err != nil {
		t.Fatal(err)
	}
	cfg = dev.Config{}
	_, addrs := again.plan(&cfg, "hanse")
	if n := len(cfg.Processes); n != 6 || cfg.Processes[4].Name != "node 4" || strings.Join(cfg.Processes[4].Command, " ") != line {
		t.Errorf("started again it runs %+v, want the same node 4, and node 5", cfg.Processes)
	}
	if all := strings.Join(addrs, " "); !strings.Contains(all, "127.0.0.1:21443") {
		t.Errorf("it needs %s, want the addresses of node 5 too", all)
	}
	// There is an end to it.
	for range 4 {
		if _, err = again.add("hanse", dev.Addition{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err = again.add("hanse", dev.Addition{}); err == nil || !strings.Contains(err.Error(), "at most 9") {
		t.Errorf("a tenth node: %v", err)
	}
	var out, errOut strings.Builder
	if code := Run(t.Context(), []string{"dev", "--dir", dir, "--nodes", "5", "--http-port", "21400"}, nil, &out, &errOut); code != exitUsage || !strings.Contains(errOut.String(), "added later; want at most 3") {
		t.Errorf("with more nodes than it began with: exit %d, %s", code, errOut.String())
	}
}

// What dev add shows, with a control and a cluster that are told.
func TestAnAddedNodeIsWatchedUntilNothingMoves(t *testing.T) {
	runtime := t.TempDir()
	cfg := dev.DefaultConfig()
	cfg.Dir, cfg.Runtime, cfg.Name = t.TempDir(), runtime, "1"
	cfg.Add = func(dev.Addition) (dev.Process, error) {
		return dev.Process{Name: "node 4", Command: []string{"sleep", "600"}}, nil
	}
	s := dev.New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	<-s.Started()
	control, err := dev.Find(runtime, "1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := control.Add(ctx, dev.Addition{}); err != nil {
		t.Fatal(err)
	}
	var looks atomic.Int64
	addr := operated(t, func(n *client.Node, sh *client.Shard) {
		n.ID, n.REST = 4, "127.0.0.1:31" // node 4 of a cluster whose first port is 1
		switch at := looks.Add(1); {
		case at < 4:
			n.State = client.Joining
		case at < 10:
			sh.Move = &client.Move{From: 1, To: 4, Reason: "balance", Doing: "learner is catching up", Share: 0.5}
		default:
			n.Replicas = 3
		}
	})
	c, err := client.New(client.Config{Addrs: []string{addr}, Pinned: true})
	if err != nil {
		t.Fatal(err)
	}
	var told strings.Builder
	a := &app{err: &told, poll: time.Millisecond}
	n, err := a.watchAdded(ctx, control, c, "node 4", 1)
	if err != nil || n.Replicas != 3 {
		t.Fatalf("watchAdded = %+v, %v", n, err)
	}
	want := "node 4 joins\nnode 4 is active, healthy, and has 0 replicas; moving: order/0 1→4 balance: learner is catching up, 50 %\nnode 4 is active, healthy, and has 3 replicas\n"
	if told.String() != want {
		t.Errorf("it tells\n%s, want\n%s", told.String(), want)
	}
	// One that ends is not waited for.
	if _, err := control.Do(ctx, "kill", "node 4"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.watchAdded(ctx, control, c, "node 4", 1); err == nil || !strings.Contains(err.Error(), "node 4 is killed") {
		t.Errorf("watchAdded of a killed node: %v", err)
	}
}

func TestTheShopIsStockedOnce(t *testing.T) {
	var mu sync.Mutex
	received := make(map[string]string) // key to SKU
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		sku := strings.Split(r.URL.Path, "/")[3]
		switch {
		case r.Method == http.MethodPost:
			received[r.Header.Get("Idempotency-Key")] = sku
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write([]byte(`{}`))
		case sku == "LAMP": // sold out, but it was there
			_, _ = w.Write([]byte(`{"sku":"LAMP","available":0}`))
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"code":"sku_not_found","status":404}`))
		}
	}))
	defer s.Close()
	c, err := client.New(client.Config{Addrs: []string{s.URL}, Pinned: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := (&devRun{c: c}).stockShop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(received) != len(demo)-1 || received["demo-LAMP"] != "" || received["demo-TEAPOT"] != "TEAPOT" {
		t.Errorf("received %v, want all but the lamp, under fixed keys", received)
	}
}

// A node that was decommissioned ends when it is started: the others are the cluster. One that ends at its very first start is a failure.
func TestANodeThatEndsIsNotWaitedFor(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer up.Close()
	port, err := strconv.Atoi(up.URL[strings.LastIndex(up.URL, ":")+1:])
	if err != nil {
		t.Fatal(err)
	}
	crashed := newEnds()
	crashed.end("node 2")
	crashed.end("node 2")
	d := &devRun{opts: devOptions{nodes: 2, port: port}, resumed: map[int]bool{2: true}}
	if err := d.await(t.Context(), "", crashed); err != nil || len(d.alive) != 1 {
		t.Errorf("with a node that had data: %v, alive %v, want one", err, d.alive)
	}
	d = &devRun{opts: devOptions{nodes: 2, port: port}, resumed: map[int]bool{}}
	if err := d.await(t.Context(), "", crashed); !errors.Is(err, errEnded) {
		t.Errorf("with a new node: %v, want that it has ended", err)
	}
	d = &devRun{opts: devOptions{nodes: 2, port: port}, resumed: map[int]bool{1: true}}
	if err := d.await(t.Context(), "", crashed); err != nil || len(d.alive) != 1 {
		t.Errorf("with a node that has lost its data: %v, alive %v, want the other", err, d.alive)
	}
	// The added ones are the cluster when all that it began with have gone.
	crashed = newEnds()
	crashed.end("node 1")
	d = &devRun{opts: devOptions{nodes: 1, port: port - dev.PortStep}, resumed: map[int]bool{1: true}, added: []addedNode{{Node: 2}}}
	if err := d.await(t.Context(), "", crashed); err != nil || len(d.alive) != 1 {
		t.Errorf("with an added node: %v, alive %v, want it", err, d.alive)
	}
	d.added, d.alive = nil, nil
	if err := d.await(t.Context(), "", crashed); !errors.Is(err, errEnded) {
		t.Errorf("with no node at all: %v", err)
	}
}

func TestAStartThatFailsShowsWhy(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "node1.log"), []byte("hanse: the disk is full\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("node 1 is not ready")
	kept := (&devRun{dir: dir}).notReady(cause)
	if !errors.Is(kept, cause) || !strings.Contains(kept.Error(), dir) {
		t.Errorf("with --dir: %v, want the place of the logs", kept)
	}
	gone := (&devRun{dir: dir, temp: true}).notReady(cause)
	if !errors.Is(gone, cause) || !strings.Contains(gone.Error(), "the disk is full") || strings.Contains(gone.Error(), dir) {
		t.Errorf("with a directory that goes: %v, want the logs themselves", gone)
	}
}

// A directory is one cluster's: a second one, at whatever ports, writes nothing there.
func TestADirectoryHasOneDevelopmentCluster(t *testing.T) {
	dir := t.TempDir()
	lock, err := dirlock.Take(dir, "the dev cluster at port 9400")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	for _, args := range [][]string{{"dev", "--dir", dir, "--http-port", "21400"}, {"replay", "--synthetic", "--dev", "--dir", dir, "--http-port", "21400", "--limit", "1"}} {
		var out, errOut strings.Builder
		code := Run(t.Context(), args, nil, &out, &errOut)
		if want := "hanse: " + dir + " is used by the dev cluster at port 9400\n"; code != exitRefused || !strings.HasSuffix(errOut.String(), want) {
			t.Errorf("hanse %v: exit %d, %q, want %q", args, code, errOut.String(), want)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || files[0].Name() != dirlock.Name {
		t.Errorf("it has left %v (%v)", files, err)
	}
}

func TestDevRefusesWhatCannotWork(t *testing.T) {
	taken := httptest.NewServer(http.NotFoundHandler())
	defer taken.Close()
	port := taken.URL[strings.LastIndex(taken.URL, ":")+1:]
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"dev", "--nodes", "0"}, exitUsage, "want 1 to 9"},
		{[]string{"dev", "--nodes", "10"}, exitUsage, "want 1 to 9"},
		{[]string{"dev", "--http-port", port, "--nodes", "1"}, exitRefused, "in use"},
		{[]string{"dev", "--http-port", "70000"}, exitUsage, "want 1 to 65445"},
		{[]string{"dev", "--http-port", "65530"}, exitUsage, "want 1 to 65445"},
		{[]string{"dev", "--http-port", "0"}, exitUsage, "want 1 to 65445"},
		{[]string{"dev", "--psp", "foo"}, exitUsage, "want sim, instant or a URL"},
		{[]string{"dev", "kill", "x"}, exitUsage, "want the number of a node, or psp"},
		{[]string{"dev", "start", "0"}, exitUsage, "want the number of a node, or psp"},
		{[]string{"dev", "kill", "2", "--http-port", "1"}, exitUnavailable, "hanse dev"},
		{[]string{"dev", "kill"}, exitUsage, "NODE"},
		{[]string{"dev", "status", "--http-port", "1", "--json"}, exitUnavailable, `"unavailable"`},
	} {
		var out, errOut strings.Builder
		code := Run(t.Context(), test.args, nil, &out, &errOut)
		if code != test.code || !strings.Contains(errOut.String(), test.want) {
			t.Errorf("hanse %v: exit %d, %q, want %d and %q", test.args, code, errOut.String(), test.code, test.want)
		}
	}
}

package cli

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hanse/client"
	"hanse/internal/dev"
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
	if got, want := strings.Join(addrs, " "), "127.0.0.1:7490 127.0.0.1:7400 127.0.0.1:7402 127.0.0.1:7410 127.0.0.1:7412 127.0.0.1:7420 127.0.0.1:7422"; got != want {
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
	if provider, addrs := d.plan(&cfg, "hanse"); provider != "" || len(addrs) != 2 {
		t.Errorf("without a process for it the provider is %q, and %v are needed", provider, addrs)
	}
}

func TestTheWelcomeTellsWhatToType(t *testing.T) {
	d := &devRun{
		opts: devOptions{nodes: 3, port: 7400}, dir: "/tmp/hanse-dev-1", temp: true, program: "hanse", psp: "http://127.0.0.1:7490",
		addrs: []string{"127.0.0.1:7400", "127.0.0.1:7410", "127.0.0.1:7420"}, start: time.Now(),
	}
	var out strings.Builder
	d.welcome(&out)
	for _, want := range []string{
		"3 nodes, a payment provider, a small shop", "http://127.0.0.1:7420", "gone when this ends", "curl -s http://127.0.0.1:7400/v1/orders",
		"hanse dev kill 2  ", "hanse audit  ", "Ctrl-C",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
	d.opts = devOptions{nodes: 1, port: 7500}
	d.addrs, d.psp, d.temp = []string{"127.0.0.1:7500"}, "", false
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

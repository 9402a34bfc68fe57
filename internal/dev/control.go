package dev

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Info is what the file <runtime>/hanse-dev-<name>.json says about a running supervisor.
type Info struct {
	PID    int    `json:"pid"`
	Dir    string `json:"dir"`
	Socket string `json:"socket"`
	// Temporary says that Dir goes with the cluster.
	Temporary bool `json:"temporary,omitempty"`
}

func infoPath(runtime, name string) string {
	return filepath.Join(runtime, "hanse-dev-"+name+".json")
}

// serveControl listens on the control socket until the returned function is called, which also removes the traces.
func (s *Supervisor) serveControl() (func() error, error) {
	info := Info{PID: os.Getpid(), Dir: s.cfg.Dir, Socket: filepath.Join(s.cfg.Runtime, "hanse-dev-"+s.cfg.Name+".sock"), Temporary: s.cfg.Temporary}
	if c, err := Find(s.cfg.Runtime, s.cfg.Name); err == nil {
		return nil, fmt.Errorf("a dev cluster at port %s runs already (process %d, %s)", s.cfg.Name, c.Info.PID, c.Info.Dir)
	}
	if err := s.removeLeftover(); err != nil {
		return nil, err
	}
	// What a killed supervisor left behind is in the way.
	if err := os.Remove(info.Socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the old control socket: %w", err)
	}
	l, err := net.Listen("unix", info.Socket)
	if err != nil {
		return nil, fmt.Errorf("listen on the control socket: %w", err)
	}
	if err := os.Chmod(info.Socket, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("protect the control socket: %w", err)
	}
	b, err := json.Marshal(info)
	if err == nil {
		err = os.WriteFile(infoPath(s.cfg.Runtime, s.cfg.Name), b, 0o600)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("publish the control socket: %w", err)
	}
	ended := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /processes", func(w http.ResponseWriter, r *http.Request) { s.ask(w, r, ended, request{act: "status"}) })
	mux.HandleFunc("POST /processes/{name}/{act}", func(w http.ResponseWriter, r *http.Request) {
		s.ask(w, r, ended, request{act: r.PathValue("act"), name: r.PathValue("name")})
	})
	mux.HandleFunc("POST /processes", func(w http.ResponseWriter, r *http.Request) {
		q := request{act: "add"}
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&q.add); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(controlAnswer{Error: "what is to be added: " + err.Error()})
			return
		}
		s.ask(w, r, ended, q)
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l) // ends with Close below
	}()
	return func() error {
		close(ended)
		err := server.Close()
		<-served
		return errors.Join(err, os.Remove(infoPath(s.cfg.Runtime, s.cfg.Name)))
	}, nil
}

// TempPrefix begins the names of temporary directories, which are made in Config.Runtime.
const TempPrefix = "hanse-dev-"

// removeLeftover removes the temporary directory of a supervisor of this name that was killed. Its file lies where others can
// write too, so that it is not believed any other directory.
func (s *Supervisor) removeLeftover() error {
	var old Info // nothing is known when there is no file that can be read
	if b, err := os.ReadFile(infoPath(s.cfg.Runtime, s.cfg.Name)); err == nil && json.Unmarshal(b, &old) != nil {
		old = Info{}
	}
	if !old.Temporary || old.Dir == s.cfg.Dir {
		return nil
	}
	parent, name := filepath.Split(filepath.Clean(old.Dir))
	if filepath.Clean(parent) != filepath.Clean(s.cfg.Runtime) || !strings.HasPrefix(name, TempPrefix) {
		return nil
	}
	if err := os.RemoveAll(old.Dir); err != nil {
		return fmt.Errorf("remove what a killed cluster left: %w", err)
	}
	return nil
}

// ask hands a request to Run's goroutine, which alone touches processes, and waits for its answer.
func (s *Supervisor) ask(w http.ResponseWriter, r *http.Request, ended <-chan struct{}, q request) {
	got := make(chan answer, 1)
	q.answer = got
	var a answer
	select {
	case s.requests <- q:
		select {
		case a = <-got:
		case <-ended:
			a.err = errors.New("the cluster has stopped")
		}
	case <-ended:
		a.err = errors.New("the cluster has stopped")
	case <-r.Context().Done():
		return
	}
	body := controlAnswer{Processes: a.status}
	if a.err != nil {
		body.Error = a.err.Error()
		w.WriteHeader(http.StatusConflict)
	}
	_ = json.NewEncoder(w).Encode(body)
}

type controlAnswer struct {
	Processes []Status `json:"processes,omitempty"`
	Error     string   `json:"error,omitempty"`
}

// Control talks to a running supervisor.
type Control struct {
	Info Info
	http *http.Client
}

// ErrNoCluster says that no dev cluster runs under the name.
var ErrNoCluster = errors.New("no dev cluster runs here")

// Find returns the control of the dev cluster called name (its first port), or [ErrNoCluster].
func Find(runtime, name string) (*Control, error) {
	b, err := os.ReadFile(infoPath(runtime, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoCluster
	}
	if err != nil {
		return nil, fmt.Errorf("find the dev cluster: %w", err)
	}
	c := new(Control)
	if err := json.Unmarshal(b, &c.Info); err != nil {
		return nil, fmt.Errorf("find the dev cluster: %s: %w", infoPath(runtime, name), err)
	}
	c.http = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", c.Info.Socket)
		},
	}}
	conn, err := net.Dial("unix", c.Info.Socket)
	if err != nil { // the file outlived its supervisor
		return nil, ErrNoCluster
	}
	conn.Close()
	return c, nil
}

// Status lists the processes in the order of their start.
func (c *Control) Status(ctx context.Context) ([]Status, error) {
	return c.do(ctx, http.MethodGet, "/processes", nil)
}

// Add starts one more node. It returns when the process has started.
func (c *Control) Add(ctx context.Context, a Addition) (Status, error) {
	body, err := json.Marshal(a)
	if err != nil {
		return Status{}, fmt.Errorf("add a node: %w", err)
	}
	return c.one(ctx, "add a node", "/processes", body)
}

// Do does "kill", "stop" or "start" to the process called name. It returns when the process has ended or started.
func (c *Control) Do(ctx context.Context, act, name string) (Status, error) {
	return c.one(ctx, act+" "+name, "/processes/"+url.PathEscape(name)+"/"+url.PathEscape(act), nil)
}

// one asks for what is about one process.
func (c *Control) one(ctx context.Context, what, path string, body []byte) (Status, error) {
	all, err := c.do(ctx, http.MethodPost, path, body)
	if err != nil {
		return Status{}, err
	}
	if len(all) != 1 {
		return Status{}, fmt.Errorf("%s: %d processes in the answer, want 1", what, len(all))
	}
	return all[0], nil
}

func (c *Control) do(ctx context.Context, method, path string, body []byte) ([]Status, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://dev"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the dev cluster: %w", err)
	}
	defer resp.Body.Close()
	var a controlAnswer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return nil, fmt.Errorf("ask the dev cluster: %s: %w", resp.Status, err)
	}
	if a.Error != "" {
		return nil, errors.New(a.Error)
	}
	return a.Processes, nil
}

// Tail returns the last lines of a log file, at most n; an empty string when it cannot be read.
func Tail(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

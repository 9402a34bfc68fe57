package rest

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hanse/internal/reject"
)

// server is the door: a table of routes around a backend.
type server struct {
	cfg     Config
	backend Backend
	log     *slog.Logger
	access  *accessLog
	metrics *metrics
	calls   sync.Pool
	// description is /openapi.json, made when it is first asked for.
	description func() ([]byte, error)
	// inFlight and streams count what MaxInFlight and MaxStreams bound.
	inFlight, streams atomic.Int64
}

// route is an operation: what it is called, how it is described, and what it does.
type route struct {
	method, path string
	name         string // operationId
	tag, summary string
	handle       func(*call) error
	// needsKey refuses requests without Idempotency-Key; reads takes the parameters of consistency.
	needsKey, reads bool
	params          []param
	needs           []string // query parameters that have to be there
	in, out         any      // JSON types, nil for none
	mayBeEmpty      bool     // no body says what an empty object does
	inType, outType string   // media types unless JSON
	status          int      // of success
	codes           []string // refusals worth naming
	// free requests are not bounded by MaxInFlight: probes have to pass when nothing else does.
	free bool
	// stream requests last; they are bounded by MaxStreams and have no deadline.
	stream bool
	// waits is for operations that wait for a saga besides their own time.
	waits bool
}

// param is a query parameter or header of a route; path parameters are read off the path.
type param struct{ name, in, kind, doc string }

// door is the API as a handler.
type door struct {
	http.Handler
	place http.Handler // of POST /v1/orders alone
}

// New returns the API as a handler. It starts nothing; streams end with their requests.
func New(cfg Config, b Backend, log *slog.Logger) http.Handler {
	s := &server{cfg: cfg, backend: b, log: log, access: newAccessLog(log, cfg.SlowRequest), metrics: newMetrics(cfg.Registerer)}
	s.calls.New = func() any { return new(call) }
	s.description = sync.OnceValues(s.describe)
	mux := http.NewServeMux()
	methods := map[string][]string{}
	d := new(door)
	for _, rt := range s.routes() {
		h := s.serve(rt)
		if rt.method == http.MethodPost && rt.path == placePath {
			d.place = h
		}
		mux.Handle(rt.method+" "+rt.path, h)
		methods[rt.path] = append(methods[rt.path], rt.method)
	}
	// A path without its method is more general than with it, and so catches the other methods.
	for path, allowed := range methods {
		if slices.Contains(allowed, http.MethodGet) {
			allowed = append(allowed, http.MethodHead)
		}
		slices.Sort(allowed)
		allow := strings.Join(allowed, ", ")
		mux.Handle(path, s.serve(route{path: "405", free: true, handle: func(c *call) error {
			c.w.Header().Set("Allow", allow)
			return refuse(reject.MethodNotAllowed, "", c.r.Method+" is not allowed here; allowed are "+allow)
		}}))
	}
	notFound := s.serve(route{path: "404", free: true, handle: func(c *call) error {
		return refuse(reject.NotFound, "", "there is nothing at "+c.r.Method+" "+c.r.URL.Path)
	}})
	mux.Handle("/v1/", notFound)
	if cfg.Fallback != nil {
		mux.Handle("/", cfg.Fallback)
	} else {
		mux.Handle("/", notFound)
	}
	unclean := s.serve(route{path: "404", free: true, handle: func(c *call) error {
		return refuse(reject.NotFound, "", "the path has an empty or dot segment; in a SKU or key write / as %2F and . as %2E")
	}})
	d.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The mux would redirect to what the path looks like to it, which is another key, and turn a PUT into a GET.
		if path := r.URL.EscapedPath(); strings.HasPrefix(path, "/v1/") && !isClean(path) {
			unclean.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
	return d
}

// isClean says whether no segment of a path but the last is empty, and none is a dot or two.
func isClean(path string) bool {
	for {
		i := strings.IndexByte(path, '/')
		if i < 0 {
			return true
		}
		path = path[i+1:]
		segment, _, more := strings.Cut(path, "/")
		if segment == "." || segment == ".." || segment == "" && more {
			return false
		}
	}
}

// serve wraps a route's handler in what all have in common: bounds, deadline, request ID, metrics and log.
func (s *server) serve(rt route) http.Handler {
	label := rt.path
	if rt.method != "" {
		label = rt.method + " " + rt.path
	}
	timeout := s.cfg.RequestTimeout
	if rt.waits {
		timeout += s.cfg.MaxWait
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		c := s.calls.Get().(*call)
		c.s, c.w, c.r, c.rt, c.route = s, w, r, &rt, label
		c.identify()

		s.bounded(c, &rt, timeout)

		took := time.Since(start)
		s.metrics.observe(label, c.status, took.Seconds(), rt.stream)
		s.access.record(c, &rt, label, took)
		c.reset()
		s.calls.Put(c)
	})
}

// bounded runs a route's handler unless as many as may run do.
func (s *server) bounded(c *call, rt *route, timeout time.Duration) {
	if rt.free {
		s.run(c, rt.handle)
		return
	}
	counter, bound := &s.inFlight, int64(s.cfg.MaxInFlight)
	if rt.stream {
		counter, bound = &s.streams, int64(s.cfg.MaxStreams)
	}
	defer counter.Add(-1)
	if counter.Add(1) > bound {
		c.problem(&reject.Failure{Code: reject.Overloaded, RetryAfter: time.Second,
			Detail: "this node serves " + strconv.FormatInt(bound, 10) + " such requests at once and has no room"})
		return
	}
	if !rt.stream {
		ctx, cancel := context.WithTimeout(c.ctx, timeout)
		defer cancel()
		c.ctx = ctx
	}
	s.run(c, rt.handle)
}

// run calls a handler and answers its error. A panic ends the request and not the node: it is a bug of the door, which has
// no state to be wrong afterwards.
func (s *server) run(c *call, handle func(*call) error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if c.status != 0 {
			s.log.Error("handler panicked", "request_id", c.requestID, "trace", c.trace, "route", c.route, "err", p, "stack", string(debug.Stack()))
			panic(http.ErrAbortHandler) // half an answer must not pass for a whole one
		}
		c.problem(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
	}()
	if err := handle(c); err != nil {
		if c.status == 0 {
			c.problem(err)
		} else {
			s.log.Debug("answer cut short", "request_id", c.requestID, "trace", c.trace, "err", err)
		}
	}
}

package rest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hanse/internal/reject"
)

const smallOrder = `{"currency":"EUR","lines":[{"sku":"A","quantity":1,"unit_price":1}]}`

func TestRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		door, f := newDoor(t, func(c *Config) { c.MaxInFlight = 2 })
		f.block = make(chan struct{})
		answers := make(chan int, 2)
		for range 2 {
			go func() { answers <- ask(door, "GET", "/v1/stock/A", "").Code }()
		}
		synctest.Wait()
		w := ask(door, "GET", "/v1/stock/A", "")
		p := problemOf(t, w)
		if w.Code != http.StatusTooManyRequests || p.Code != reject.Overloaded || !p.Retryable || w.Header().Get("Retry-After") != "1" {
			t.Errorf("a third request gets %d %+v, Retry-After %q", w.Code, p, w.Header().Get("Retry-After"))
		}
		for _, path := range []string{"/livez", "/readyz", "/v1/nodes", "/v1/shards", "/version"} {
			if w := ask(door, "GET", path, ""); w.Code != http.StatusOK {
				t.Errorf("GET %s under load = %d: probes have to pass", path, w.Code)
			}
		}
		close(f.block)
		for range 2 {
			if code := <-answers; code != http.StatusOK {
				t.Errorf("a request that was under way = %d", code)
			}
		}
		if w := ask(door, "GET", "/v1/stock/A", ""); w.Code != http.StatusOK {
			t.Errorf("afterwards = %d, want 200", w.Code)
		}
	})
}

// A backend that does not answer: a read changed nothing, a write is in doubt, and who waits for a saga has its wait besides.
func TestNoAnswerInTime(t *testing.T) {
	for _, test := range []struct {
		name, method, path, body string
		status                   int
		code                     string
		after                    time.Duration
	}{
		{"read", "GET", "/v1/stock/A", "", 503, reject.Unavailable, 10 * time.Second},
		{"write", "POST", "/v1/stock/A/receipts", `{"quantity":1}`, 504, reject.OutcomeUnknown, 10 * time.Second},
		{"order", "POST", "/v1/orders", smallOrder, 504, reject.OutcomeUnknown, 40 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				door, f := newDoor(t, nil)
				f.block = make(chan struct{})
				start := time.Now()
				w := ask(door, test.method, test.path, test.body, "Idempotency-Key", "k")
				p := problemOf(t, w)
				if w.Code != test.status || p.Code != test.code || !p.Retryable || w.Header().Get("Retry-After") == "" || time.Since(start) != test.after {
					t.Errorf("%s %s = %d %s (retryable %v) after %v, want %d %s after %v", test.method, test.path, w.Code, p.Code, p.Retryable, time.Since(start), test.status, test.code, test.after)
				}
			})
		})
	}
}

// unannounced hides a body's length.
type unannounced struct{ io.Reader }

func TestBodiesAreBounded(t *testing.T) {
	door, f := newDoor(t, func(c *Config) { c.MaxBodyBytes = 1000 })
	fits := smallOrder + strings.Repeat(" ", 1000-len(smallOrder))
	for _, test := range []struct {
		name string
		body io.Reader
		want int
	}{
		{"announced, just fits", strings.NewReader(fits), 201},
		{"unannounced, just fits", unannounced{strings.NewReader(fits)}, 201},
		{"announced, one more", strings.NewReader(fits + " "), 413},
		{"unannounced, one more", unannounced{strings.NewReader(fits + " ")}, 413},
		{"unannounced, far more", unannounced{strings.NewReader(strings.Repeat(" ", 1<<20))}, 413},
		{"broken off", io.MultiReader(strings.NewReader("{"), brokenReader{}), 400},
	} {
		r := httptest.NewRequest("POST", "/v1/orders", test.body)
		r.Header.Set("Idempotency-Key", "k")
		w := httptest.NewRecorder()
		f.asked.Reset()
		door.ServeHTTP(w, r)
		if w.Code != test.want {
			t.Errorf("%s: status %d, want %d: %s", test.name, w.Code, test.want, w.Body)
		}
		if (f.asked.Len() > 0) != (test.want == 201) {
			t.Errorf("%s: the backend was asked %q", test.name, f.asked.String())
		}
		if test.want == 413 {
			if p := problemOf(t, w); p.Code != reject.BodyTooLarge {
				t.Errorf("%s: code %s", test.name, p.Code)
			}
		}
	}
}

// Clients that send all before they read the answer see it, however large the body is; one that asks before it sends hears at once.
func TestTheAnswerToALargeBodyIsNotLost(t *testing.T) {
	door, _ := newDoor(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := DefaultConfig().Server(door, newDiscard())
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	defer func() { _ = server.Close(); <-done }()
	const size = 20 << 20
	for _, test := range []struct {
		name, request, header string
		sends                 int
		want                  string
	}{
		{"too large", "POST /v1/orders", "Idempotency-Key: k\r\n", size, " 413 "},
		{"of a request that has none", "POST /v1/nothing", "", size, " 404 "},
		{"asks first", "POST /v1/orders", "Idempotency-Key: k\r\nExpect: 100-continue\r\n", 0, " 413 "},
	} {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: hanse\r\n%sContent-Length: %d\r\n\r\n", test.request, test.header, size)
		if err == nil {
			_, err = conn.Write(make([]byte, test.sends))
		}
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, test.want) {
			t.Errorf("%s: answered %q (%v), want%s", test.name, line, err, test.want)
		}
		conn.Close()
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

func TestManyLines(t *testing.T) {
	door, f := newDoor(t, nil)
	order := func(lines int) string {
		return `{"currency":"EUR","lines":[` + strings.Repeat(`{"sku":"A","quantity":1,"unit_price":1},`, lines-1) + `{"sku":"A","quantity":1,"unit_price":1}]}`
	}
	if w := ask(door, "POST", "/v1/orders", order(2000), "Idempotency-Key", "k"); w.Code != http.StatusCreated {
		t.Errorf("2,000 lines = %d", w.Code)
	}
	f.asked.Reset()
	w := ask(door, "POST", "/v1/orders", order(2001), "Idempotency-Key", "k2")
	p := problemOf(t, w)
	if w.Code != 422 || p.Code != reject.TooManyLines || len(p.Errors) != 1 || p.Errors[0].Pointer != "/lines" || f.asked.Len() > 0 {
		t.Errorf("2,001 lines = %d %+v; the backend was asked %q", w.Code, p, f.asked.String())
	}
	// Every line is wrong: the answer stays short.
	wrong := strings.ReplaceAll(order(2001), `"quantity":1`, `"quantity":0`)
	if p := problemOf(t, ask(door, "POST", "/v1/orders", wrong, "Idempotency-Key", "k3")); len(p.Errors) != maxViolations {
		t.Errorf("%d violations are listed, want %d", len(p.Errors), maxViolations)
	}
}

func TestHeadAndWrongMethods(t *testing.T) {
	door, f := newDoor(t, nil)
	s := &server{backend: f}
	methods := map[string]map[string]bool{}
	for _, rt := range s.routes() {
		if methods[rt.path] == nil {
			methods[rt.path] = map[string]bool{}
		}
		methods[rt.path][rt.method] = true
		if rt.method == "GET" {
			methods[rt.path]["HEAD"] = true
		}
	}
	for pattern, allowed := range methods {
		path := strings.NewReplacer("{id}", orderID, "{sku}", "A", "{keyspace}", "ks", "{key...}", "a/b", "{shard}", "0", "{seq}", "1", "{op}", "auth",
			"{service}", "order", "{index}", "0", "/nodes/{id}", "/nodes/1").Replace(pattern)
		if strings.Contains(path, "{") {
			t.Fatalf("path %s has a parameter that this test does not know", path)
		}
		if pattern == "/v1/orders" {
			path += "?customer_id=a"
		}
		if pattern == "/v1/srv" {
			path += "?role=order"
		}
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
			if method == "GET" && allowed["GET"] || allowed[method] && method != "HEAD" {
				continue // the scripts play them
			}
			w := ask(door, method, path, "")
			switch {
			case method == "HEAD" && allowed["HEAD"]:
				if w.Body.Len() > 0 || w.Code != http.StatusOK && pattern != "/metrics" {
					t.Errorf("HEAD %s = %d %q, want 200 without a body", path, w.Code, w.Body)
				}
			case w.Code != http.StatusMethodNotAllowed:
				t.Errorf("%s %s = %d, want 405", method, path, w.Code)
			default:
				for m := range allowed {
					if !strings.Contains(w.Header().Get("Allow"), m) {
						t.Errorf("%s %s allows %q, want %s too", method, path, w.Header().Get("Allow"), m)
					}
				}
				if method != "HEAD" {
					problemOf(t, w)
				}
			}
		}
	}
}

func TestKeysAreRequiredWhereMoneyOrStockMoves(t *testing.T) {
	door, f := newDoor(t, nil)
	required := 0
	for _, rt := range (&server{backend: f}).routes() {
		if !rt.needsKey {
			continue
		}
		required++
		f.asked.Reset()
		path := strings.NewReplacer("{id}", orderID, "{sku}", "A").Replace(rt.path)
		w := ask(door, rt.method, path, `{"quantity":1}`)
		if p := problemOf(t, w); w.Code != 400 || p.Code != reject.KeyMissing || f.asked.Len() > 0 {
			t.Errorf("%s %s without a key = %d %s; the backend was asked %q", rt.method, path, w.Code, p.Code, f.asked.String())
		}
	}
	if required != 8 {
		t.Errorf("%d routes need a key, want 8: place, cancel, fulfill, return, refund, receive, adjust, reserve", required)
	}
}

// The scope of a key is the caller, and the digest is of what the body says.
func TestSameKey(t *testing.T) {
	door, _ := newDoor(t, nil)
	first := `{"currency":"EUR","lines":[{"sku":"é","quantity":2,"unit_price":1}],"customer_id":"a/b"}`
	if w := ask(door, "POST", "/v1/orders", first, "Idempotency-Key", "k"); w.Code != 201 || w.Header().Get("Idempotent-Replayed") != "" {
		t.Fatalf("the first request = %d, replayed %q", w.Code, w.Header().Get("Idempotent-Replayed"))
	}
	for name, test := range map[string]struct {
		path, body string
		headers    []string
		want       int
		replayed   string
	}{
		"again":                {"/v1/orders", first, nil, 201, "true"},
		"spaced and reordered": {"/v1/orders", ` { "lines" : [ {"unit_price":1, "quantity" : 2,"sku":"\u00e9"} ], "customer_id":"a\/b", "location":null, "currency":"EUR"}`, nil, 201, "true"},
		"another quantity":     {"/v1/orders", strings.Replace(first, ":2", ":3", 1), nil, 422, ""},
		"another path":         {"/v1/orders/" + orderID + "/refunds", `{"amount":1}`, nil, 422, ""},
		"another caller":       {"/v1/orders", strings.Replace(first, ":2", ":3", 1), []string{"Authorization", "Bearer x"}, 201, ""},
	} {
		w := ask(door, "POST", test.path, test.body, append([]string{"Idempotency-Key", "k"}, test.headers...)...)
		if got := w.Header().Get("Idempotent-Replayed"); w.Code != test.want || got != test.replayed {
			t.Errorf("%s: %d, replayed %q, want %d and %q: %s", name, w.Code, got, test.want, test.replayed, w.Body)
		}
	}
}

func TestPanicEndsTheRequestAlone(t *testing.T) {
	var log bytes.Buffer
	cfg := DefaultConfig()
	f := &fake{panics: true}
	door := New(cfg, f, slog.New(slog.NewTextHandler(&log, nil)))
	w := ask(door, "POST", "/v1/orders", smallOrder, "Idempotency-Key", "k")
	if p := problemOf(t, w); w.Code != 500 || p.Code != reject.Internal || strings.Contains(w.Body.String(), "a bug") {
		t.Errorf("a panic is answered %d %+v", w.Code, p)
	}
	if got := log.String(); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "a bug") || !strings.Contains(got, "req_test") || !strings.Contains(got, "fake_test.go") {
		t.Errorf("a panic is logged as %q, want its request, cause and stack", got)
	}
	f.panics = false
	if w := ask(door, "POST", "/v1/orders", smallOrder, "Idempotency-Key", "k"); w.Code != 201 {
		t.Errorf("the next request = %d", w.Code)
	}
}

// An answer that has begun is cut off, so that half of it does not pass for a whole one.
func TestPanicInAnAnswer(t *testing.T) {
	var log bytes.Buffer
	cfg := DefaultConfig()
	cfg.Gatherer = struct{ prometheus.Gatherer }{} // has no Gather behind it
	door := New(cfg, &fake{}, slog.New(slog.NewTextHandler(&log, nil)))
	defer func() {
		if err, _ := recover().(error); !errors.Is(err, http.ErrAbortHandler) {
			t.Errorf("the handler panics with %v, want http.ErrAbortHandler for the server to close the connection", err)
		}
		if !strings.Contains(log.String(), "nil pointer") {
			t.Errorf("the panic is logged as %q", log.String())
		}
	}()
	ask(door, "GET", "/metrics", "")
}

// What a fault says is for the log.
func TestFaultsAreLogged(t *testing.T) {
	var log bytes.Buffer
	door := New(DefaultConfig(), &fake{err: errors.New("pebble: sync failed")}, slog.New(slog.NewTextHandler(&log, nil)))
	w := ask(door, "GET", "/v1/orders/"+orderID, "")
	if p := problemOf(t, w); w.Code != 500 || strings.Contains(w.Body.String(), "pebble") || !p.Retryable {
		t.Errorf("a fault is answered %d %s", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), "pebble: sync failed") || !strings.Contains(log.String(), "request_id=req_test") {
		t.Errorf("a fault is logged as %q", log.String())
	}
}

func TestRequestIDs(t *testing.T) {
	door, _ := newDoor(t, nil)
	for given, keep := range map[string]bool{"abc-1": true, "": false, "a b": false, strings.Repeat("x", 129): false, "a\u00e9": false} {
		w := ask(door, "GET", "/v1/nowhere", "", "X-Request-Id", given) // the helper's comes first
		if got := w.Header().Get("X-Request-Id"); got != "req_test" {
			t.Errorf("X-Request-Id is %q, want the request's", got)
		}
		r := httptest.NewRequest("GET", "/v1/nowhere", nil)
		r.Header.Set("X-Request-Id", given)
		w = httptest.NewRecorder()
		door.ServeHTTP(w, r)
		got := w.Header().Get("X-Request-Id")
		if (got == given) != keep || got == "" || problemOf(t, w).RequestID != got {
			t.Errorf("X-Request-Id %q is answered %q", given, got)
		}
	}
}

func TestNotReady(t *testing.T) {
	door, f := newDoor(t, nil)
	f.notReady = errors.New("no leader for order/1")
	w := ask(door, "GET", "/readyz", "")
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "order/1") {
		t.Errorf("GET /readyz = %d %q", w.Code, w.Body)
	}
	if w := ask(door, "GET", "/livez", ""); w.Code != http.StatusOK {
		t.Errorf("GET /livez = %d: a node without leaders lives", w.Code)
	}
}

func TestVersion(t *testing.T) {
	door, _ := newDoor(t, nil)
	var v Version
	if err := strict(ask(door, "GET", "/version", "").Body.Bytes(), &v); err != nil || v.Version != "1.2.3" || !strings.HasPrefix(v.Go, "go1.") {
		t.Errorf("GET /version = %+v, %v", v, err)
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	door, _ := newDoor(t, func(c *Config) { c.Registerer, c.Gatherer = registry, registry })
	ask(door, "GET", "/v1/stock/A", "")
	ask(door, "GET", "/v1/stock/B", "")
	ask(door, "GET", "/v1/nowhere/"+strings.Repeat("x", 50), "")
	w := ask(door, "GET", "/metrics", "")
	for _, want := range []string{
		`rest_requests_total{code="200",route="GET /v1/stock/{sku}"} 2`, `rest_requests_total{code="404",route="404"} 1`,
		`rest_request_duration_seconds_count{route="GET /v1/stock/{sku}"} 2`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("GET /metrics lacks %s", want)
		}
	}
	door, _ = newDoor(t, nil)
	if w := ask(door, "GET", "/metrics", ""); w.Code != http.StatusNotFound {
		t.Errorf("GET /metrics of a node without = %d", w.Code)
	}
}

func TestFallback(t *testing.T) {
	door, _ := newDoor(t, func(c *Config) { c.Fallback = http.NotFoundHandler() })
	if w := ask(door, "GET", "/orders", ""); w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("a path outside the API is not the fallback's: %d %v", w.Code, w.Header())
	}
	problemOf(t, ask(door, "GET", "/v1/nowhere", ""))
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	bad := Config{Wait: time.Second}
	err := bad.Validate()
	for _, name := range []string{"MaxInFlight", "MaxStreams", "MaxBodyBytes", "Wait", "RequestTimeout", "Heartbeat"} {
		if err == nil || !strings.Contains(err.Error(), name+" is") {
			t.Errorf("Validate of nothing = %v, want it to name %s", err, name)
		}
	}
}

// The codes that a client is told to retry have Retry-After, and no others.
func TestRetryAfter(t *testing.T) {
	door, f := newDoor(t, nil)
	for _, code := range reject.Codes() {
		f.err = &reject.Rejection{Code: code.Code, Detail: "because"}
		w := ask(door, "GET", "/v1/stock/A", "")
		p := problemOf(t, w)
		temporary := code.Code == reject.Overloaded || code.Code == reject.Unavailable || code.Code == reject.OutcomeUnknown || code.Code == reject.KeyInProgress
		if w.Code != code.Status || (w.Header().Get("Retry-After") != "") != temporary || p.Retryable != (temporary || code.Code == reject.Internal) {
			t.Errorf("%s = %d, retryable %v, Retry-After %q", code.Code, w.Code, p.Retryable, w.Header().Get("Retry-After"))
		}
		var raw map[string]json.RawMessage
		if err := json.Unmarshal(w.Body.Bytes(), &raw); err != nil || string(raw["type"]) != `"/docs/errors#`+code.Code+`"` {
			t.Errorf("%s: type %s, %v", code.Code, raw["type"], err)
		}
	}
	for after, want := range map[time.Duration]string{0: "1", time.Millisecond: "1", time.Second: "1", 1001 * time.Millisecond: "2"} {
		f.err = &reject.Failure{Code: reject.Unavailable, RetryAfter: after}
		if got := ask(door, "GET", "/v1/stock/A", "").Header().Get("Retry-After"); got != want {
			t.Errorf("Retry-After of %v is %q, want %q", after, got, want)
		}
	}
}

// Tokens let a machine into the cluster: whatever happens to the request, no log has one.
func TestTokensAreNotLogged(t *testing.T) {
	var log bytes.Buffer
	f := &fake{keys: map[string]uint64{}, feed: &fakeFeed{}}
	door := New(DefaultConfig(), f, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	const body = `{"http":"a:1","peers":"a:2","format":1,"features":1,"process":"7","clock":1}`
	for _, err := range []error{nil, errors.New("a fault"), &reject.Rejection{Code: reject.JoinTokenWrong, Detail: "it is not the newest"}} {
		f.err = err
		w := ask(door, "POST", "/v1/nodes", body, "Authorization", "Bearer s3cret")
		ask(door, "POST", "/v1/nodes", "{", "Authorization", "Bearer s3cret")
		if strings.Contains(w.Body.String(), "s3cret") || !strings.Contains(f.asked.String(), "s3cret") {
			t.Errorf("with %v the answer is %s, and the backend was asked %s", err, w.Body, &f.asked)
		}
	}
	f.err = nil
	ask(door, "POST", "/v1/join-tokens", "")
	if log.Len() == 0 || strings.Contains(log.String(), "s3cret") || strings.Contains(log.String(), "hjt_1") {
		t.Errorf("the log is\n%s", &log)
	}
}

package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"hanse/api/orderpb"
	"hanse/internal/reject"
	"hanse/internal/trace"
)

// logged returns a door over b and what it has logged since it was asked last, by line.
func logged(t *testing.T, b Backend, level slog.Level, change func(*Config)) (http.Handler, func() []map[string]any) {
	t.Helper()
	cfg := DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	var out bytes.Buffer
	door := New(cfg, b, slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: level})))
	return door, func() (lines []map[string]any) {
		for line := range strings.Lines(out.String()) {
			m := map[string]any{}
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, m)
		}
		out.Reset()
		return lines
	}
}

// listening notes the trace that its callers pass on.
type listening struct {
	*fake
	heard trace.ID
}

func (l *listening) Order(ctx context.Context, orderID string, version uint64, c Consistency) (Answer[*orderpb.Order], error) {
	l.heard = trace.Of(ctx)
	return l.fake.Order(ctx, orderID, version, c)
}

func TestTrace_goes_from_the_request_to_the_backend_the_log_and_the_answer(t *testing.T) {
	b := &listening{fake: &fake{}}
	door, lines := logged(t, b, slog.LevelDebug, nil)
	w := ask(door, "GET", "/v1/orders/"+orderID, "")
	if got := w.Header().Get("Trace-Id"); w.Code != http.StatusOK || got != testTrace || b.heard.String() != testTrace {
		t.Errorf("%d: trace %q in the answer, %v at the backend; want that of the request, %s", w.Code, got, b.heard, testTrace)
	}
	all := lines()
	if len(all) != 1 {
		t.Fatalf("%d lines in the log, want one: %v", len(all), all)
	}
	for key, want := range map[string]any{"level": "DEBUG", "trace": testTrace, "request_id": "req_test", "order_id": orderID, "shard": "order/1", "status": 200.0} {
		if all[0][key] != want {
			t.Errorf("%s is %v in the log, want %v", key, all[0][key], want)
		}
	}
}

func TestTrace_is_drawn_when_the_request_has_no_valid_one(t *testing.T) {
	door, _ := newDoor(t, nil)
	valid := "00-" + testTrace + "-00f067aa0ba902b7-01"
	seen := map[string]bool{testTrace: true}
	for name, parents := range map[string][]string{
		"none": nil, "malformed": {strings.ToUpper(valid)}, "two": {valid, valid}, "zero": {"00-00000000000000000000000000000000-00f067aa0ba902b7-01"},
	} {
		r := httptest.NewRequest("GET", "/v1/nowhere", nil)
		r.Header["Traceparent"] = parents
		w := httptest.NewRecorder()
		door.ServeHTTP(w, r)
		got := w.Header().Get("Trace-Id")
		if id, ok := trace.Parse("00-" + got + "-00f067aa0ba902b7-01"); !ok || id.IsZero() || seen[got] {
			t.Errorf("%s: trace %q, want a fresh one", name, got)
		}
		seen[got] = true
		if p := problemOf(t, w); p.Trace != got {
			t.Errorf("%s: trace %q in the problem, %q in the header", name, p.Trace, got)
		}
	}
}

func TestAccessLog_warns_of_what_the_node_could_not_answer(t *testing.T) {
	f := &fake{err: &reject.Failure{Code: reject.Unavailable, Detail: "no leader", Shard: "order/1", RetryAfter: time.Second}}
	door, lines := logged(t, f, slog.LevelInfo, nil)
	const asked = 3 * warningsPerSecond
	for range asked {
		if w := ask(door, "GET", "/v1/orders/"+orderID, ""); w.Code != http.StatusServiceUnavailable {
			t.Fatal(w.Code)
		}
	}
	all := lines()
	if len(all) < warningsPerSecond || len(all) == asked {
		t.Fatalf("%d lines about %d requests, want about %d", len(all), asked, warningsPerSecond)
	}
	for key, want := range map[string]any{"level": "WARN", "msg": "request not answered", "trace": testTrace, "order_id": orderID, "shard": "order/1", "status": 503.0} {
		if all[0][key] != want {
			t.Errorf("%s is %v in the log, want %v", key, all[0][key], want)
		}
	}
	f.err, f.notReady = nil, errors.New("no leader for order/1")
	if w := ask(door, "GET", "/readyz", ""); w.Code != http.StatusServiceUnavailable || len(lines()) > 0 {
		t.Errorf("%d: a probe is in the log", w.Code)
	}
	if w := ask(door, "GET", "/v1/orders/"+orderID, ""); w.Code != http.StatusOK || len(lines()) > 0 {
		t.Errorf("%d: an answered request is in the log", w.Code)
	}
}

func TestAccessLog_warns_of_slow_requests(t *testing.T) {
	door, lines := logged(t, &fake{}, slog.LevelInfo, func(cfg *Config) { cfg.SlowRequest = 1 })
	ask(door, "GET", "/v1/orders/"+orderID, "")
	if all := lines(); len(all) != 1 || all[0]["msg"] != "request slow" || all[0]["took"].(float64) < 1 {
		t.Errorf("log %v, want the slow request", all)
	}
}

package rest

import (
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"hanse/internal/trace"
)

// identify finds out under which names the request is to be found in the logs: those that it brought if they are well-formed, else
// drawn ones. Both are in the answer, and the trace goes on in the context.
func (c *call) identify() {
	var brought, drawn string
	id, traced := trace.ID{}, false
	if parents := c.r.Header["Traceparent"]; len(parents) == 1 { // several contradict each other
		if id, traced = trace.Parse(parents[0]); traced {
			c.trace = parents[0][3:35]
		}
	}
	if ids := c.r.Header["X-Request-Id"]; len(ids) > 0 && validRequestID(ids[0]) {
		brought = ids[0]
	}
	if brought == "" || !traced { // one string for both
		var b [requestIDLength + 32]byte
		appendRequestID(b[:0])
		if !traced {
			id = trace.NewID(rand.Uint64(), rand.Uint64())
			id.Append(b[:requestIDLength])
		}
		drawn = string(b[:])
	}
	if c.requestID = brought; brought == "" {
		c.requestID = drawn[:requestIDLength]
	}
	if !traced {
		c.trace = drawn[requestIDLength:]
	}
	values := []string{c.requestID, c.trace}
	h := c.w.Header()
	h["X-Request-Id"], h["Trace-Id"] = values[:1:1], values[1:]
	c.ctx = trace.With(c.r.Context(), id)
}

const requestIDLength = len("req_") + 16

func appendRequestID(b []byte) []byte {
	const digits = "0123456789abcdef"
	b = append(b, "req_"...)
	for n := rand.Uint64(); len(b) < requestIDLength; n >>= 4 {
		b = append(b, digits[n&15])
	}
	return b
}

func validRequestID(s string) bool {
	if len(s) < 1 || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		if s[i] <= 0x20 || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// accessLog tells what became of requests: all of them for us, and for the operator those that took long or that the node could
// not answer. What was answered 500 has been logged as an error with its cause.
type accessLog struct {
	log      *slog.Logger
	slow     time.Duration
	warnings *rate.Limiter
	unlogged atomic.Int64 // warnings that were one too many
}

// A cluster without its majority answers thousands of requests a second, and all alike.
const warningsPerSecond = 20

func newAccessLog(log *slog.Logger, slow time.Duration) *accessLog {
	return &accessLog{log: log, slow: slow, warnings: rate.NewLimiter(warningsPerSecond, warningsPerSecond)}
}

func (a *accessLog) record(c *call, rt *route, label string, took time.Duration) {
	level, message := slog.LevelDebug, "request served"
	switch {
	case c.status > http.StatusInternalServerError && !rt.free: // a probe that is told "not yet" is no failure
		level, message = slog.LevelWarn, "request not answered"
	case took > a.slow && !rt.stream:
		level, message = slog.LevelWarn, "request slow"
	}
	if !a.log.Enabled(c.ctx, level) {
		return
	}
	if level == slog.LevelWarn && !a.warnings.Allow() {
		a.unlogged.Add(1)
		return
	}
	orderID := c.orderID
	if orderID == "" && (strings.HasPrefix(rt.path, "/v1/orders/{id}") || strings.HasPrefix(rt.path, "/v1/sagas/{id}")) {
		orderID = c.r.PathValue("id") // asked for, and perhaps not there
	}
	attrs := []slog.Attr{
		slog.String("request_id", c.requestID), slog.String("trace", c.trace), slog.String("route", label), slog.Int("status", c.status),
		slog.String("order_id", orderID), slog.String("shard", c.shard), slog.Duration("took", took),
	}
	if level == slog.LevelWarn {
		if n := a.unlogged.Swap(0); n > 0 {
			attrs = append(attrs, slog.Int64("left_out", n))
		}
	}
	a.log.LogAttrs(c.ctx, level, message, attrs...) //nolint:sloglint // one of the constants above
}

package rest

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config sets the door's bounds and its surroundings.
type Config struct {
	// MaxInFlight bounds the requests that are served at once; more get 429. Default 4,096: each costs a
	// goroutine and a body of at most MaxBodyBytes.
	MaxInFlight int
	// MaxStreams bounds the event streams, which last as long as their clients like. Default 256.
	MaxStreams int
	// MaxBodyBytes bounds a request's body; more is 413. Default 1 MiB, room for an order of 2,000 lines.
	MaxBodyBytes int64
	// Wait is how long placing and canceling wait for the saga unless the request says otherwise. Default 10 s.
	Wait time.Duration
	// MaxWait bounds what a request may say. Default 30 s, below the usual timeouts of proxies.
	MaxWait time.Duration
	// RequestTimeout bounds a request besides its wait. Default 10 s.
	RequestTimeout time.Duration
	// Heartbeat is the time between comments on an event stream, in ms in its header Hanse-Heartbeat, so that a client can tell a quiet
	// stream from a dead node: after three of them, say. Default 1.5 s.
	Heartbeat time.Duration
	// SlowRequest is from when on a request is worth a warning in the log. Default 1 s, an election and a bit.
	SlowRequest time.Duration
	// Version is what /version tells.
	Version string
	// Registerer gets the metrics, Gatherer feeds /metrics. Without them there are none.
	Registerer prometheus.Registerer
	Gatherer   prometheus.Gatherer
	// Drain ends the event streams when it is closed; their clients resume elsewhere. Nil for never.
	Drain <-chan struct{}
	// Fallback serves paths outside the API, such as the console's. Nil answers 404.
	Fallback http.Handler
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		MaxInFlight: 4096, MaxStreams: 256, MaxBodyBytes: 1 << 20,
		Wait: 10 * time.Second, MaxWait: 30 * time.Second, RequestTimeout: 10 * time.Second,
		Heartbeat: 1500 * time.Millisecond, SlowRequest: time.Second, Version: "dev",
	}
}

// Validate reports all values that cannot work.
func (c Config) Validate() error {
	var problems []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			problems = append(problems, fmt.Errorf("rest: "+format, args...))
		}
	}
	check(c.MaxInFlight > 0, "MaxInFlight is %d, want at least 1", c.MaxInFlight)
	check(c.MaxStreams > 0, "MaxStreams is %d, want at least 1", c.MaxStreams)
	check(c.MaxBodyBytes > 0, "MaxBodyBytes is %d, want at least 1", c.MaxBodyBytes)
	check(c.Wait >= 0 && c.Wait <= c.MaxWait, "Wait is %v, want 0 to MaxWait (%v)", c.Wait, c.MaxWait)
	check(c.RequestTimeout > 0, "RequestTimeout is %v, want more than 0", c.RequestTimeout)
	check(c.Heartbeat >= time.Millisecond, "Heartbeat is %v, want at least 1 ms", c.Heartbeat)
	check(c.SlowRequest > 0, "SlowRequest is %v, want more than 0", c.SlowRequest)
	return errors.Join(problems...)
}

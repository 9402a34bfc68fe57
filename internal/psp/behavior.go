package psp

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/url"
	"time"
)

// maxDelayMS bounds each of the times of a Behavior.
const maxDelayMS = 60_000

// Behavior is how the provider misbehaves. Rates are from 0 to 1. Which authorizations are declined depends on the seed and the
// operation's key alone; everything else is drawn for each request, in the order in which they come.
type Behavior struct {
	// LatencyMS is how long an answer takes, JitterMS what is added at random, evenly from 0.
	LatencyMS int64 `json:"latency_ms"`
	JitterMS  int64 `json:"jitter_ms"`
	// DeclineRate is how many authorizations are declined.
	DeclineRate float64 `json:"decline_rate"`
	// TimeoutRate is how many requests are carried out and never answered.
	TimeoutRate float64 `json:"timeout_after_success_rate"`
	// ErrorRate is how many requests are answered 500 before anything is done, ErrorAfterRate after.
	ErrorRate      float64 `json:"error_rate"`
	ErrorAfterRate float64 `json:"error_after_success_rate"`
	// CallbackURL gets a callback for every operation, CallbackDelayMS after it was done; DuplicateRate is how many come twice.
	CallbackURL     string  `json:"callback_url,omitempty"`
	CallbackDelayMS int64   `json:"callback_delay_ms"`
	DuplicateRate   float64 `json:"duplicate_callback_rate"`
}

// Validate reports all that cannot be.
func (b Behavior) Validate() error {
	var problems []error
	for _, r := range []struct {
		name string
		rate float64
	}{
		{"decline_rate", b.DeclineRate}, {"timeout_after_success_rate", b.TimeoutRate}, {"error_rate", b.ErrorRate},
		{"error_after_success_rate", b.ErrorAfterRate}, {"duplicate_callback_rate", b.DuplicateRate},
	} {
		if !(r.rate >= 0 && r.rate <= 1) { // not a number is neither
			problems = append(problems, fmt.Errorf("%s is %v, want 0 to 1", r.name, r.rate))
		}
	}
	for _, d := range []struct {
		name  string
		delay int64
	}{{"latency_ms", b.LatencyMS}, {"jitter_ms", b.JitterMS}, {"callback_delay_ms", b.CallbackDelayMS}} {
		if d.delay < 0 || d.delay > maxDelayMS {
			problems = append(problems, fmt.Errorf("%s is %d, want 0 to %d", d.name, d.delay, maxDelayMS))
		}
	}
	if u, err := url.Parse(b.CallbackURL); b.CallbackURL != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		problems = append(problems, fmt.Errorf("callback_url is %q, want a URL, http or https", b.CallbackURL))
	}
	return errors.Join(problems...)
}

// Payment methods that always do the same. The fate of a call is its own: others in the same request have theirs.
const (
	MethodDeclined        = "pm_declined"
	MethodNoFunds         = "pm_insufficient_funds"
	MethodCaptureDeclined = "pm_capture_declined"      // authorized, and no capture succeeds
	MethodRefundDeclined  = "pm_refund_declined"       // nothing can be given back
	MethodTimeout         = "pm_timeout_after_success" // each operation is carried out and its first answer is unknown
	MethodError           = "pm_error_5xx"             // the first call of each operation fails before anything is done
)

// Declines returns the code with which an authorization by method is always declined, empty for none.
func Declines(method string) string { return refusalBy(method, kindAuthorize) }

// refusalBy returns the code with which an operation of a kind is always declined for its method, empty for none.
func refusalBy(method, kind string) string {
	switch {
	case method == MethodDeclined && kind == kindAuthorize:
		return "card_declined"
	case method == MethodNoFunds && kind == kindAuthorize:
		return "insufficient_funds"
	case method == MethodCaptureDeclined && kind == kindCapture:
		return "capture_declined"
	case method == MethodRefundDeclined && kind == kindRefund:
		return "refund_declined"
	}
	return ""
}

// luck is what is drawn for one request.
type luck struct {
	behavior                       Behavior
	pause                          time.Duration
	errorBefore, errorAfter, muted bool
	twice                          bool
}

func (s *Server) draw() luck {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.behavior
	l := luck{behavior: b, pause: time.Duration(b.LatencyMS) * time.Millisecond}
	if b.JitterMS > 0 {
		l.pause += time.Duration(s.rng.Int64N(b.JitterMS+1)) * time.Millisecond
	}
	// All are drawn every time, so that changing one rate leaves the others' luck as it was.
	l.errorBefore = s.rng.Float64() < b.ErrorRate
	l.errorAfter = s.rng.Float64() < b.ErrorAfterRate
	l.muted = s.rng.Float64() < b.TimeoutRate
	l.twice = s.rng.Float64() < b.DuplicateRate
	return l
}

// unlucky reports whether the authorization of a key is declined at a rate.
func (s *Server) unlucky(key string, rate float64) bool {
	if rate == 0 {
		return false
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // a hash never fails
	return rand.New(rand.NewPCG(s.cfg.Seed, h.Sum64())).Float64() < rate
}

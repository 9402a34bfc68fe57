package psp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"os"
)

// Call is what a client asks for, Answer what it gets. They mirror the contract of package payment.
type Call struct {
	PaymentID     string `json:"payment_id"`
	OrderID       string `json:"order_id,omitempty"`
	Kind          string `json:"kind"`
	Amount        int64  `json:"amount"`
	Currency      string `json:"currency"`
	Method        string `json:"method,omitempty"`
	Key           string `json:"key"`
	Query         bool   `json:"query,omitempty"` // ask what became of the key
	Authorization string `json:"authorization,omitempty"`
}

// Answer is the provider's word on a call. Status is succeeded, declined, not_found (of a query), or unknown.
type Answer struct {
	Status    string `json:"status"`
	Reference string `json:"reference,omitempty"`
	Code      string `json:"code,omitempty"`
	Amount    int64  `json:"amount,omitempty"`
}

// The statuses of an answer.
const (
	Succeeded = "succeeded"
	Declined  = "declined"
	NotFound  = "not_found"
	Unknown   = "unknown"
)

// MaxCalls bounds the calls of one request.
const MaxCalls = 256

// Behavior is how the provider misbehaves. Rates are from 0 to 1.
type Behavior struct {
	// LatencyMS is how long an answer takes, JitterMS what is added at random.
	LatencyMS int64 `json:"latency_ms"`
	JitterMS  int64 `json:"jitter_ms"`
	// DeclineRate is how many authorizations are declined.
	DeclineRate float64 `json:"decline_rate"`
	// TimeoutRate is how many calls are carried out and not answered in time.
	TimeoutRate float64 `json:"timeout_after_success_rate"`
	// ErrorRate is how many requests are answered 500 before anything is done, ErrorAfterRate after.
	ErrorRate      float64 `json:"error_rate"`
	ErrorAfterRate float64 `json:"error_after_success_rate"`
	// CallbackURL gets a callback for every operation, DuplicateRate how many come twice.
	CallbackURL   string  `json:"callback_url,omitempty"`
	DuplicateRate float64 `json:"duplicate_callback_rate"`
}

// Validate reports what cannot be.
func (b Behavior) Validate() error {
	for name, rate := range map[string]float64{
		"decline_rate": b.DeclineRate, "timeout_after_success_rate": b.TimeoutRate, "error_rate": b.ErrorRate,
		"error_after_success_rate": b.ErrorAfterRate, "duplicate_callback_rate": b.DuplicateRate,
	} {
		if !(rate >= 0 && rate <= 1) {
			return fmt.Errorf("%s is %v, want 0 to 1", name, rate)
		}
	}
	if b.LatencyMS < 0 || b.JitterMS < 0 || b.LatencyMS > 60_000 || b.JitterMS > 60_000 {
		return errors.New("latency_ms and jitter_ms: want 0 to 60000")
	}
	return nil
}

// Payment methods that always do the same.
const (
	MethodDeclined = "pm_declined"
	MethodNoFunds  = "pm_insufficient_funds"
	MethodTimeout  = "pm_timeout_after_success" // the first call is carried out and answered as unknown
	MethodError    = "pm_error"                 // the first call fails before anything is done
)

// Declines returns the code with which an authorization by method is always declined, empty for none.
func Declines(method string) string {
	switch method {
	case MethodDeclined:
		return "card_declined"
	case MethodNoFunds:
		return "insufficient_funds"
	}
	return ""
}

// Config of a provider. Start from DefaultConfig.
type Config struct {
	// Dir holds the ledger; empty keeps it in memory.
	Dir string
	// Sync says that answers wait for the disk. Default true.
	Sync bool
	// Seed makes the misbehavior repeatable. Default 1.
	Seed     uint64
	Behavior Behavior
	Log      *slog.Logger
}

// DefaultConfig returns a provider that behaves.
func DefaultConfig() Config { return Config{Sync: true, Seed: 1, Log: slog.New(slog.DiscardHandler)} }

// Server is a provider. Its methods may be used concurrently.
type Server struct {
	cfg    Config
	ledger *ledger
	http   *http.Client

	mu       sync.Mutex
	behavior Behavior
	rng      *rand.Rand
	tried    map[string]bool // keys of methods that misbehave at the first call

	callbacks sync.WaitGroup
	slots     chan struct{}
}

// New opens the ledger.
func New(cfg Config) (*Server, error) {
	if err := cfg.Behavior.Validate(); err != nil {
		return nil, fmt.Errorf("psp: %w", err)
	}
	path := ""
	if cfg.Dir != "" {
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("psp: %w", err)
		}
		path = filepath.Join(cfg.Dir, "ledger.jsonl")
	}
	l, err := openLedger(path, cfg.Sync)
	if err != nil {
		return nil, fmt.Errorf("psp: %w", err)
	}
	return &Server{
		cfg: cfg, ledger: l, behavior: cfg.Behavior, rng: rand.New(rand.NewPCG(cfg.Seed, 0)), tried: make(map[string]bool),
		http: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64, MaxConnsPerHost: 64}}, slots: make(chan struct{}, 64),
	}, nil
}

// Close writes the ledger out.
func (s *Server) Close() error {
	s.callbacks.Wait()
	return s.ledger.close()
}

// Run serves on l until ctx ends.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("psp: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	err := server.Shutdown(stop)
	<-done
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("psp: %w", err)
	}
	return nil
}

// Handler returns the API.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/operations", s.operations)
	mux.HandleFunc("GET /v1/ledger", s.list)
	mux.HandleFunc("GET /v1/behavior", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		respond(w, http.StatusOK, s.behavior)
	})
	mux.HandleFunc("PUT /v1/behavior", s.behave)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { respond(w, http.StatusOK, "ready") })
	return mux
}

func respond(w http.ResponseWriter, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(data) // the client is gone, and asks again
}

type fault struct {
	Error string `json:"error"`
}

func (s *Server) behave(w http.ResponseWriter, r *http.Request) {
	var b Behavior
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16))
	d.DisallowUnknownFields()
	err := d.Decode(&b)
	if err == nil {
		err = b.Validate()
	}
	if err != nil {
		respond(w, http.StatusBadRequest, fault{err.Error()})
		return
	}
	s.mu.Lock()
	s.behavior = b
	s.mu.Unlock()
	respond(w, http.StatusOK, b)
}

// luck is what is drawn for one request.
type luck struct {
	pause                  time.Duration
	errorBefore, errorNow  bool
	declined, lost, double bool
}

func (s *Server) draw() (Behavior, luck) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.behavior
	l := luck{pause: time.Duration(b.LatencyMS) * time.Millisecond}
	if b.JitterMS > 0 {
		l.pause += time.Duration(s.rng.Int64N(b.JitterMS+1)) * time.Millisecond
	}
	l.errorBefore = s.rng.Float64() < b.ErrorRate
	l.errorNow = s.rng.Float64() < b.ErrorAfterRate
	l.declined = s.rng.Float64() < b.DeclineRate
	l.lost = s.rng.Float64() < b.TimeoutRate
	l.double = s.rng.Float64() < b.DuplicateRate
	return b, l
}

// first reports whether a key is called for the first time.
func (s *Server) first(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.tried[key]
	s.tried[key] = true
	return !was
}

func (s *Server) operations(w http.ResponseWriter, r *http.Request) {
	var calls []Call
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&calls); err != nil {
		respond(w, http.StatusBadRequest, fault{"want a list of calls: " + err.Error()})
		return
	}
	if len(calls) == 0 || len(calls) > MaxCalls {
		respond(w, http.StatusBadRequest, fault{fmt.Sprintf("%d calls, want 1 to %d", len(calls), MaxCalls)})
		return
	}
	b, l := s.draw()
	if l.pause > 0 {
		select {
		case <-time.After(l.pause):
		case <-r.Context().Done():
			return
		}
	}
	if l.errorBefore {
		respond(w, http.StatusInternalServerError, fault{"simulated: nothing was done"})
		return
	}
	answers := make([]Answer, len(calls))
	var last uint64
	s.ledger.mu.Lock()
	for i := range calls {
		var seq uint64
		answers[i], seq = s.carryOut(&calls[i], l)
		last = max(last, seq)
	}
	err := s.ledger.wait(last)
	s.ledger.mu.Unlock()
	if err != nil {
		s.cfg.Log.Error("ledger failed", "err", err)
		respond(w, http.StatusInternalServerError, fault{"the ledger cannot be written"})
		return
	}
	for i := range calls {
		if b.CallbackURL != "" && !calls[i].Query && answers[i].Status != Unknown {
			s.callBack(b.CallbackURL, calls[i], l.double)
		}
	}
	if l.errorNow {
		respond(w, http.StatusInternalServerError, fault{"simulated: it was done all the same"})
		return
	}
	respond(w, http.StatusOK, answers)
}

// carryOut does a call once per key. The ledger is locked.
func (s *Server) carryOut(c *Call, l luck) (Answer, uint64) {
	if op := s.ledger.byKey[c.Key]; op != nil {
		if op.PaymentID != c.PaymentID || op.Kind != c.Kind || !c.Query && op.Amount != c.Amount {
			return Answer{Status: Declined, Code: "key_reused"}, 0
		}
		return answerOf(op), op.Seq
	}
	if c.Query {
		return Answer{Status: NotFound}, 0
	}
	if c.Key == "" || c.PaymentID == "" || c.Amount <= 0 && c.Kind != "void" {
		return Answer{Status: Declined, Code: "malformed"}, 0
	}
	lost := l.lost
	switch c.Method {
	case MethodError:
		if c.Kind == "authorize" && s.first(c.Key) {
			return Answer{Status: Unknown, Code: "simulated_error"}, 0
		}
	case MethodTimeout:
		lost = lost || c.Kind == "authorize"
	}
	op := &Operation{
		Key: c.Key, PaymentID: c.PaymentID, OrderID: c.OrderID, Kind: c.Kind, Amount: c.Amount, Currency: c.Currency,
		Reference: fmt.Sprintf("psp_%06d", len(s.ledger.rows)+1), AtMillis: time.Now().UnixMilli(),
	}
	if op.Code = s.refuses(c, l); op.Code != "" {
		op.Declined, op.Reference = true, ""
	}
	if err := s.ledger.record(op); err != nil {
		s.cfg.Log.Error("operation not recorded", "err", err)
		return Answer{Status: Unknown, Code: "ledger"}, 0
	}
	if lost {
		return Answer{Status: Unknown, Code: "simulated_timeout"}, op.Seq
	}
	return answerOf(op), op.Seq
}

// refuses returns the code with which a call is declined, empty when it is carried out.
func (s *Server) refuses(c *Call, l luck) string {
	a := s.ledger.accounts[c.PaymentID]
	if a == nil {
		a = new(account)
	}
	switch c.Kind {
	case "authorize":
		switch {
		case Declines(c.Method) != "":
			return Declines(c.Method)
		case l.declined:
			return "card_declined"
		case a.authorized > 0:
			return "already_authorized"
		}
	case "capture":
		if a.captured+a.voided+c.Amount > a.authorized {
			return "exceeds_authorized"
		}
	case "void":
		if c.Amount > a.authorized-a.captured-a.voided {
			return "exceeds_authorized"
		}
	case "refund":
		if a.refunded+c.Amount > a.captured {
			return "exceeds_captured"
		}
	default:
		return "unknown_kind"
	}
	return ""
}

func answerOf(op *Operation) Answer {
	if op.Declined {
		return Answer{Status: Declined, Code: op.Code}
	}
	return Answer{Status: Succeeded, Reference: op.Reference, Amount: op.Amount}
}

// callBack tells the merchant that something happened, as providers do: perhaps twice, perhaps never.
func (s *Server) callBack(url string, c Call, twice bool) {
	select {
	case s.slots <- struct{}{}:
	default:
		return // too many are under way: callbacks promise nothing
	}
	body, err := json.Marshal(map[string]string{"payment_id": c.PaymentID, "operation": c.Key, "type": c.Kind})
	if err != nil {
		<-s.slots
		return
	}
	s.callbacks.Go(func() {
		defer func() { <-s.slots }()
		times := 1
		if twice {
			times = 2
		}
		for range times {
			resp, err := s.http.Post(url, "application/json", bytes.NewReader(body))
			if err != nil {
				s.cfg.Log.Debug("callback failed", "err", err)
				return
			}
			resp.Body.Close()
		}
	})
}

// LedgerPage is a page of the ledger.
type LedgerPage struct {
	Operations []*Operation `json:"operations"`
	HasMore    bool         `json:"has_more"`
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.ParseUint(or(r.URL.Query().Get("after"), "0"), 10, 63)
	limit, err2 := strconv.ParseUint(or(r.URL.Query().Get("limit"), "1000"), 10, 31)
	if err != nil || err2 != nil || limit < 1 || limit > 10_000 {
		respond(w, http.StatusBadRequest, fault{"want ?after=SEQ&limit=1..10000"})
		return
	}
	s.ledger.mu.Lock()
	rows := s.ledger.rows[min(after, uint64(len(s.ledger.rows))):]
	page := LedgerPage{HasMore: uint64(len(rows)) > limit, Operations: rows[:min(limit, uint64(len(rows)))]}
	s.ledger.mu.Unlock()
	if page.Operations == nil {
		page.Operations = []*Operation{}
	}
	respond(w, http.StatusOK, page)
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
